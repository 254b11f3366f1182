//! The agent as a whole, against a cloud in memory and against real files, sockets and processes.

mod actions;
mod config;
mod process;
mod proxy;
mod session;
mod storage;
mod support;
