//! SCEP (RFC 8894) as NDES and other servers speak it: one URL, four operations, told apart by the query.
//!
//! `http` reads requests as clients really send them, `machine` decides; messages themselves are `protocol::scep`'s.

mod ca;
mod capabilities;
mod http;
mod machine;

use serde::{Deserialize, Serialize};

pub(crate) use http::router;

/// The SCEP front end.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ScepConfig {
    /// Words of GetCACaps. What is not among them is not accepted either: AES, 3DES (`DES3`), SHA-1. Default: the
    /// personality's.
    pub capabilities: Option<Vec<String>>,
    /// Accepts single DES, 3DES and SHA-1 whatever the words say. Default: the personality's.
    pub legacy: Option<bool>,
    /// Lines of GetCACaps end with CR LF. Default false.
    pub capabilities_crlf: bool,
    /// A first request must be signed with the key it asks a certificate for (RFC 8894 section 2.3 says SHOULD). Default
    /// false, as a relay signs with a key of its own.
    pub same_key: bool,
}
