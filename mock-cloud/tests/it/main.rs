//! The cloud from outside: everything over its real ports.

mod channel_login;
mod support;
