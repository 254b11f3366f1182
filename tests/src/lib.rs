//! What the end-to-end, interop and container tests share: real servers in containers, third-party clients in
//! Python, and the record of what could not be tested on this machine.

pub mod company;
pub mod containers;
pub mod cuts;
pub mod engine;
pub mod ldif;
pub mod limits;
pub mod memory_cloud;
pub mod network;
pub mod program;
pub mod python;
pub mod raw_ldap;
pub mod sim;
pub mod skips;
pub mod throttled_day;
pub mod tls;
pub mod webdriver;
pub mod wine;
pub mod xmpp_client;
