//! Requests to servers of the company by HTTP: connections over the agent's dialler, and who we are to them. Shared by
//! the Exchange layer and the certificate authorities; knows nothing of either.

pub mod auth;
pub mod client;
pub mod connection;
pub mod endpoint;
pub mod limits;
pub mod servers;
