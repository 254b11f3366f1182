//! What a scenario file says: the world it needs, and the steps of its story.
//!
//! Every choice is externally tagged (`do = { kill_agent = { agent = "agent1" } }`), so that a typing error is reported
//! at its own line and column.

mod ca;
mod mail;
mod step;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;
use thiserror::Error;

pub use ca::*;
pub use mail::*;
pub use step::*;

/// A whole scenario.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// One sentence that says what holds when the scenario passes.
    pub name: String,
    /// Requirement tags, for `causeway list`.
    #[serde(default)]
    pub covers: Vec<String>,
    /// What stands around the agents.
    #[serde(default)]
    pub world: WorldSpec,
    /// The story, in order.
    #[serde(rename = "step")]
    pub steps: Vec<Step>,
}

/// The world of a scenario. Everything has a default, so a file names only what matters to its story.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WorldSpec {
    /// People in the generated company.
    pub users: usize,
    /// Seed of the company and of everything random.
    pub seed: u64,
    /// Agents to enrol and start: `agent1`, `agent2` ...
    pub agents: usize,
    /// The directory.
    pub ldap: LdapSpec,
    /// The mail system; none by default.
    pub exchange: Option<ExchangeSpec>,
    /// The certificate authority; none by default.
    pub ca: Option<CaSpec>,
    /// The cloud.
    pub cloud: CloudSpec,
    /// Desired config by module kind; merged over the defaults of a working setup.
    pub modules: BTreeMap<String, Value>,
    /// Desired config of modules that single agents overrule in their own files, by agent and kind.
    pub own: BTreeMap<String, BTreeMap<String, Value>>,
    /// Further settings of the directory in the agents' own files (`[directory.default]`).
    pub directory: serde_json::Map<String, Value>,
    /// Address of the cloud's public port; any free port of loopback by default.
    pub listen: Option<SocketAddr>,
    /// Start the agents with a CA that did not sign the directory's certificate.
    pub wrong_directory_ca: bool,
}

impl Default for WorldSpec {
    fn default() -> Self {
        Self {
            users: 50,
            seed: 7,
            agents: 1,
            ldap: LdapSpec::default(),
            exchange: None,
            ca: None,
            cloud: CloudSpec::default(),
            modules: BTreeMap::new(),
            own: BTreeMap::new(),
            directory: serde_json::Map::new(),
            listen: None,
            wrong_directory_ca: false,
        }
    }
}

/// The directory of a scenario.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LdapSpec {
    /// Vendor behaviour, as `mock-ldap --personality`.
    pub personality: String,
    /// Servers of the one domain, in the order agents try them.
    pub servers: Vec<String>,
    /// How agents reach them: `ldaps` or `starttls`.
    pub transport: String,
    /// Settings of mock-ldap's own file, merged over its defaults.
    pub settings: toml::Table,
}

impl Default for LdapSpec {
    fn default() -> Self {
        Self {
            personality: "active_directory".into(),
            servers: vec!["dc1".into()],
            transport: "ldaps".into(),
            settings: toml::Table::new(),
        }
    }
}

/// The cloud of a scenario.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CloudSpec {
    /// Settings of mock-cloud's own file, merged over the runner's defaults (short leases).
    pub settings: toml::Table,
}

/// Why a scenario file cannot be used.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SpecError {
    /// The file cannot be read.
    #[error("read scenario {}", path.display())]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The text is not a scenario.
    #[error("scenario {origin} is not usable")]
    Malformed {
        /// File name.
        origin: String,
        /// What toml says, with line and column.
        #[source]
        source: Box<toml::de::Error>,
    },
    /// No built-in scenario has that name.
    #[error(
        "no scenario is called {0:?}; `causeway list` shows them, and a path with a slash or .toml is read as a file"
    )]
    Unknown(String),
}

/// A scenario with the short name people call it by.
#[derive(Clone, Debug)]
pub struct Case {
    /// File name without `.toml`.
    pub id: String,
    /// The text it was read from.
    pub scenario: Scenario,
}

macro_rules! cases {
    ($($id:literal),* $(,)?) => { &[$(($id, include_str!(concat!("../../cases/", $id, ".toml")))),*] };
}

/// The scenarios inside the program, so that it needs no files beside it. A test compares this list with the folder.
const BUILT_IN: &[(&str, &str)] = cases![
    "agent_killed_holding_lease",
    "agent_killed_with_actions",
    "agent_restarted",
    "alpn_eaten",
    "auth_every_outcome",
    "auth_server_lost",
    "auth_stale_password",
    "busy_directory",
    "captive_portal",
    "certificate_agent_killed",
    "certificate_agent_killed_after_issuing",
    "certificate_awaits_approval",
    "certificate_cache_full",
    "certificate_certsrv",
    "certificate_entrust_digital_id",
    "certificate_entrust_gateway",
    "certificate_forged_request",
    "certificate_made_by_agent",
    "certificate_mpki",
    "certificate_ndes",
    "certificate_ndes_german",
    "certificate_ocsp",
    "certificate_ra_expired",
    "certificate_renewed",
    "certificate_revoked_on_wipe",
    "certificate_rollover",
    "certificate_scep",
    "certificate_wstep",
    "certificate_year",
    "cloud_restarted",
    "compliance_blocks_by_itself",
    "cookie_refused",
    "corrupt_state",
    "delta_by_syncrepl",
    "delta_by_usn",
    "delta_every_change",
    "demo",
    "domino",
    "ds389",
    "edirectory",
    "exchange_2007",
    "exchange_online",
    "exchange_partial_success",
    "exchange_runspace_limit",
    "exchange_sealed_http",
    "exchange_throttled",
    "first_sync",
    "group_membership",
    "link_cut",
    "mail_collector_killed",
    "mail_divided",
    "mail_password_expired",
    "mail_rules",
    "mail_server_lost",
    "mass_deletion_guard",
    "node_drained",
    "phone_account_wiped",
    "phone_blocked",
    "phone_held_and_approved",
    "phone_policy_changed",
    "phone_removed_comes_back",
    "phone_wipe_cancelled",
    "phone_wiped",
    "quarantine_on_agent_killed",
    "slow_directory",
    "starttls",
    "sync_server_lost",
    "wipes_held_by_guard",
    "wrong_ca",
];

/// Every built-in scenario.
///
/// # Errors
/// When one is malformed; a test makes sure none is.
pub fn built_in() -> Result<Vec<Case>, SpecError> {
    BUILT_IN.iter().map(|(id, text)| parse(id, text)).collect()
}

/// A built-in scenario by name, or a file by path.
///
/// # Errors
/// When there is none, or it is malformed.
pub fn find(name: &str) -> Result<Case, SpecError> {
    if let Some((id, text)) = BUILT_IN.iter().find(|(id, _)| *id == name) {
        return parse(id, text);
    }
    if !name.contains('/') && !name.ends_with(".toml") {
        return Err(SpecError::Unknown(name.to_owned()));
    }
    let path = Path::new(name);
    let text = std::fs::read_to_string(path)
        .map_err(|source| SpecError::Unreadable { path: path.to_owned(), source })?;
    parse(path.file_stem().map_or(name, |stem| stem.to_str().unwrap_or(name)), &text)
}

fn parse(id: &str, text: &str) -> Result<Case, SpecError> {
    let scenario: Scenario = toml::from_str(text)
        .map_err(|source| SpecError::Malformed { origin: id.to_owned(), source: Box::new(source) })?;
    Ok(Case { id: id.to_owned(), scenario })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_long_case_is_readable() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("long");
        let files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert!(!files.is_empty());
        for file in files {
            find(file.to_str().unwrap()).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        }
    }

    #[test]
    fn every_case_of_the_folder_is_built_in_and_readable() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("cases");
        let files: BTreeSet<String> = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned())
            .collect();
        let cases: BTreeSet<String> = built_in().unwrap().into_iter().map(|case| case.id).collect();
        assert_eq!(cases, files);
    }

    #[test]
    fn a_typing_error_is_shown_where_it_is() {
        let text = "name = 'x'\n[[step]]\ndo = { kill_agnt = { agent = 'agent1' } }\n";
        let error = parse("broken", text).unwrap_err();
        let source = std::error::Error::source(&error).unwrap().to_string();
        assert!(source.contains("line 3") && source.contains("kill_agnt"), "{source}");
    }

    #[test]
    fn an_unknown_name_says_where_the_names_are() {
        let error = find("frist_sync").unwrap_err().to_string();
        assert!(error.contains("frist_sync") && error.contains("causeway list"));
    }
}
