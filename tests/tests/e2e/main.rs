//! The real agent and the real mock-cloud in one process, with a link between them that can be cut.

mod canary;
mod channel;
mod files;
mod support;
mod uploads;
