//! Personalities: how each vendor's server looks and answers. Data files beside the code (`data/`), read once.

use serde::{Deserialize, Serialize};

/// The vendors a directory can play.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Vendor {
    ActiveDirectory,
    OpenLdap,
    Ds389,
    Oracle,
    EDirectory,
    Domino,
}

/// How a server pages a search.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PageMode {
    /// Pages are cut to `page_size_max` silently; unpaged searches end with sizeLimitExceeded there.
    Capped,
    /// The size limit counts over all pages.
    CountedTotal,
    /// No paging control.
    None,
}

/// Limits a server announces or enforces.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Entries of one unpaged search or one page; 0 for none.
    pub page_size_max: usize,
    /// Values of one attribute in one answer; 0 for none.
    pub values_max: usize,
    /// Entries of a search by anyone but the manager; 0 for none.
    pub size_limit: usize,
    pub query_duration_max_secs: u64,
    pub receive_buffer_max_bytes: usize,
    pub idle_timeout_secs: u64,
    pub notifications_max: usize,
    /// Paged searches kept per connection.
    pub result_sets_max: usize,
}

/// One vendor's behaviour, as data.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Personality {
    pub vendor: Vendor,
    /// The word of `--personality`.
    pub name: String,
    pub limits: Limits,
    pub page_mode: PageMode,
    /// Searches below the rootDSE without a bind.
    pub anonymous_search: bool,
    /// RFC 4513 5.1.2: see `EmptyPassword`.
    pub empty_password: crate::dit::EmptyPassword,
    /// Simple binds need TLS unless configured otherwise.
    pub simple_bind_needs_tls: bool,
    /// LDAPv2 binds answer protocolError.
    pub rejects_version_2: bool,
    pub supports_global_catalog: bool,
    pub supported_controls: Vec<String>,
    pub supported_extensions: Vec<String>,
    pub sasl_mechanisms: Vec<String>,
}

impl Personality {
    pub fn supports_control(&self, oid: &str) -> bool {
        self.supported_controls.iter().any(|known| known == oid)
    }
}
