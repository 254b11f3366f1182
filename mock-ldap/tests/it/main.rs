//! Conformance of mock-ldap, judged by clients that share no code with it: the tests' own raw client over `lber`, the
//! `ldap3` crate, and the tools of `ldap-utils` where they are installed.

#![expect(
    clippy::unwrap_used,
    reason = "clippy only knows functions marked #[test] as tests; these modules are nothing else"
)]

mod account;
mod admin;
mod bind;
mod changes;
mod client;
mod codec;
mod fault;
mod ldap3_crate;
mod ntlm;
mod paging;
mod peers;
mod program;
mod search;
mod stream;
mod sync;
mod world;
mod write;
