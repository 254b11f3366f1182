//! What a scenario file says: the world it needs, and the steps of its story.
//!
//! Every choice is externally tagged (`do = { kill_agent = { agent = "agent1" } }`), so that a typing error is reported
//! at its own line and column.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;
use thiserror::Error;

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
    /// The cloud.
    pub cloud: CloudSpec,
    /// Desired config by module kind; merged over the defaults of a working setup.
    pub modules: BTreeMap<String, Value>,
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
            cloud: CloudSpec::default(),
            modules: BTreeMap::new(),
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

/// One step: what a person reads while it runs, and what is done.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// What a person reads; a sentence made from the step stands in.
    #[serde(default)]
    pub say: Option<String>,
    /// What is done.
    #[serde(rename = "do")]
    pub verb: Verb,
}

/// What a step does.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verb {
    /// Start an agent, whether new or ended before.
    StartAgent(AgentStep),
    /// End an agent at once (SIGKILL).
    KillAgent(AgentStep),
    /// Ask an agent to end (SIGTERM) and wait until it has.
    StopAgent(AgentStep),
    /// Overwrite an ended agent's state file with rubbish.
    CorruptState(AgentStep),
    /// Cut every connection between an agent and the cloud, and refuse new ones for a while.
    CutLink(CutLink),
    /// Stop the cloud and start it again on the same data.
    RestartCloud(RestartCloud),
    /// Take a directory server off the network.
    ServerDown(ServerStep),
    /// Bring it back.
    ServerUp(ServerStep),
    /// Install a fault rule in a mock.
    Fault(FaultStep),
    /// Remove every fault rule of a mock.
    ClearFaults(TargetStep),
    /// Move a mock's clock forward.
    AdvanceClock(AdvanceClock),
    /// Change the directory over LDAP, as its administrator.
    Ldap(LdapStep),
    /// Set a module's desired config.
    Configure(ConfigureStep),
    /// Order an action and wait for its terminal status.
    Action(ActionStep),
    /// Check a password through the cloud.
    Authenticate(AuthenticateStep),
    /// Wait until the cloud shows something.
    Expect(ExpectStep),
    /// Count what a mock received.
    ExpectJournal(JournalStep),
}

/// Names an agent: `agent1`, or `lease_holder` for whoever collects now, or `other` for the one who does not.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AgentStep {
    /// Which.
    pub agent: String,
}

/// Names a directory server.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServerStep {
    /// Which.
    pub server: String,
}

/// Names a mock: `ldap` or `cloud`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TargetStep {
    /// Which.
    pub target: String,
}

/// A cut of the link.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CutLink {
    /// Whose.
    pub agent: String,
    /// How long new connections are refused, in milliseconds.
    #[serde(default)]
    pub for_ms: u64,
}

/// A restart of the cloud.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RestartCloud {
    /// How long it stays away, in milliseconds.
    #[serde(default)]
    pub down_ms: u64,
}

/// A fault rule, in the mocks' own words.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FaultStep {
    /// `ldap` or `cloud`.
    pub target: String,
    /// The rule, as `POST /faults` of the mock's admin API takes it.
    pub rule: Value,
}

/// A step of a mock's clock.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdvanceClock {
    /// `ldap` or `cloud`.
    pub target: String,
    /// How far.
    pub secs: u64,
}

/// Changes of the directory. `${login}` of a generated person and `${base}` may be used in DNs.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LdapStep {
    /// The server that takes the changes; the first one by default.
    #[serde(default)]
    pub server: Option<String>,
    /// The changes, in order.
    pub changes: Vec<LdapChange>,
}

/// One change of the directory.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub enum LdapChange {
    /// Create an entry.
    Add {
        /// Its DN.
        dn: String,
        /// Its attributes.
        attributes: BTreeMap<String, Vec<String>>,
    },
    /// Create `count` people in the default place, named after `prefix`.
    AddPeople {
        /// Login prefix.
        prefix: String,
        /// How many.
        count: usize,
    },
    /// Replace attribute values.
    Replace {
        /// Which entry.
        dn: String,
        /// New values; an empty list removes the attribute.
        attributes: BTreeMap<String, Vec<String>>,
    },
    /// Add values.
    AddValues {
        /// Which entry.
        dn: String,
        /// Values to add.
        attributes: BTreeMap<String, Vec<String>>,
    },
    /// Remove values.
    RemoveValues {
        /// Which entry.
        dn: String,
        /// Values to remove.
        attributes: BTreeMap<String, Vec<String>>,
    },
    /// Give an entry another RDN.
    Rename {
        /// Which entry.
        dn: String,
        /// The new RDN, for example `CN=New Name`.
        rdn: String,
    },
    /// Put an entry elsewhere.
    Move {
        /// Which entry.
        dn: String,
        /// The new parent.
        to: String,
    },
    /// Lock a person's account, by wrong passwords.
    Lock {
        /// Whose.
        login: String,
    },
    /// Remove an entry.
    Delete {
        /// Which entry.
        dn: String,
    },
    /// Remove this share of all people, in percent.
    DeletePeople {
        /// 1 to 100.
        percent: u32,
    },
}

/// A desired config to set.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConfigureStep {
    /// Module kind.
    pub module: String,
    /// Settings, merged over those that are set.
    #[serde(default)]
    pub settings: Value,
    /// Whether the module runs.
    #[serde(default = "yes")]
    pub enabled: bool,
}

/// An action to order.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ActionStep {
    /// Module kind.
    pub module: String,
    /// Verb.
    pub action: String,
    /// Its target.
    #[serde(default)]
    pub target: Value,
    /// Its parameters.
    #[serde(default)]
    pub params: Value,
    /// How many to order at once, each with its own id.
    #[serde(default = "one")]
    pub count: usize,
    /// The terminal status, `pending` to go on without waiting.
    #[serde(default = "success")]
    pub status: String,
    /// The error code of a failure.
    #[serde(default)]
    pub code: Option<String>,
    /// JSON pointers into the result and the values they must have.
    #[serde(default)]
    pub result: BTreeMap<String, Value>,
    /// How long it may take.
    #[serde(default = "half_a_minute")]
    pub within_secs: u64,
    /// Remember the ids under this name, for `expect = { actions = NAME }`.
    #[serde(default)]
    pub remember: Option<String>,
}

/// A password to check.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuthenticateStep {
    /// What the person types. A login of the generated company, or `state:locked` and the like for a person who is
    /// in that state.
    pub user: String,
    /// The password; the right one by default.
    #[serde(default)]
    pub password: Option<String>,
    /// The verdict.
    pub outcome: String,
    /// How often to try, all at once.
    #[serde(default = "one")]
    pub count: usize,
    /// How long to go on trying until the verdict comes; 0 for one try.
    #[serde(default)]
    pub within_secs: u64,
}

/// Something the cloud must show in time. Every named field must hold at once.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExpectStep {
    /// Agents online.
    #[serde(default)]
    pub agents_online: Option<usize>,
    /// People in the cloud; `all` stands for as many as the directory has in scope.
    #[serde(default)]
    pub users: Option<Count>,
    /// Groups in the cloud.
    #[serde(default)]
    pub groups: Option<Count>,
    /// A person: JSON pointers into the API's object and the values they must have.
    #[serde(default)]
    pub user: Option<UserExpectation>,
    /// A login the cloud must not know.
    #[serde(default)]
    pub no_user: Option<String>,
    /// An open alert with this code.
    #[serde(default)]
    pub alert: Option<String>,
    /// No open alert with this code.
    #[serde(default)]
    pub no_alert: Option<String>,
    /// The state of a module on every agent that is online.
    #[serde(default)]
    pub module_state: Option<BTreeMap<String, String>>,
    /// Every action remembered under this name ended with success, exactly once.
    #[serde(default)]
    pub actions: Option<String>,
    /// The lease is held by this agent (names as in `kill_agent`).
    #[serde(default)]
    pub lease_holder: Option<String>,
    /// The cloud's people, groups and memberships are exactly the directory's.
    #[serde(default)]
    pub in_step: Option<bool>,
    /// How long it may take.
    #[serde(default = "half_a_minute")]
    pub within_secs: u64,
}

/// A number, or `all`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub enum Count {
    /// As many as the directory has.
    All,
    /// Exactly so many.
    Exactly(u64),
    /// So many or more.
    AtLeast(u64),
}

/// A person the cloud must show.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UserExpectation {
    /// Login.
    pub login: String,
    /// JSON pointers and values.
    #[serde(default)]
    pub fields: BTreeMap<String, Value>,
    /// Names of groups the person is in, directly or through others.
    #[serde(default)]
    pub member_of: Vec<String>,
    /// Names of groups the person is not in.
    #[serde(default)]
    pub not_member_of: Vec<String>,
}

/// What a mock must have received since the last such step (or the beginning).
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JournalStep {
    /// `ldap` or `cloud`.
    pub target: String,
    /// Operation word.
    pub operation: String,
    /// Part of the subject.
    #[serde(default)]
    pub subject: Option<String>,
    /// Part of the front end's name, for example `dc2`.
    #[serde(default)]
    pub front: Option<String>,
    /// Outcome word.
    #[serde(default)]
    pub outcome: Option<String>,
    /// At least so many.
    #[serde(default)]
    pub at_least: Option<usize>,
    /// At most so many.
    #[serde(default)]
    pub at_most: Option<usize>,
}

fn yes() -> bool {
    true
}
fn one() -> usize {
    1
}
fn success() -> String {
    "success".into()
}
fn half_a_minute() -> u64 {
    30
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
    ($($id:literal),* $(,)?) => { &[$(($id, include_str!(concat!("../cases/", $id, ".toml")))),*] };
}

/// The scenarios inside the program, so that it needs no files beside it. A test compares this list with the folder.
const BUILT_IN: &[(&str, &str)] = cases![
    "agent_killed_holding_lease",
    "agent_killed_with_actions",
    "agent_restarted",
    "auth_every_outcome",
    "auth_server_lost",
    "auth_stale_password",
    "busy_directory",
    "cloud_restarted",
    "cookie_refused",
    "corrupt_state",
    "delta_by_syncrepl",
    "delta_by_usn",
    "delta_every_change",
    "demo",
    "domino",
    "ds389",
    "edirectory",
    "first_sync",
    "group_membership",
    "link_cut",
    "mass_deletion_guard",
    "slow_directory",
    "starttls",
    "sync_server_lost",
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
