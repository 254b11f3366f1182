//! The mock as clients see it.

mod admin;
mod client;
mod faults;
mod hostile;
mod ndes;
mod program;
mod scep;
