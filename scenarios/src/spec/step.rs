//! The steps of a scenario's story.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use super::ca::{CaStep, IdentityStep, LedgerExpectation, YearsStep};
use super::mail::{
    DeviceCounts, DeviceExpectation, DeviceStep, EnrolStep, MailPasswordStep, MailStep, PhoneStep, SecretStep,
};

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
    /// Put something that meddles on an agent's path to the cloud, or take it away.
    Middlebox(MiddleboxStep),
    /// Send every agent to another address of the cloud and wait until they are there.
    Drain(DrainStep),
    /// Wait until an agent says something about its link in its own status.
    AgentSays(AgentSays),
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
    Expect(Box<ExpectStep>),
    /// Count what a mock received.
    ExpectJournal(JournalStep),
    /// Let a simulated phone do something.
    Phone(PhoneStep),
    /// Order something about a phone.
    Device(DeviceStep),
    /// Enrol a phone in device management, or say whether it is compliant.
    Enrol(EnrolStep),
    /// Set the tenant's compliance rule.
    Compliance(Value),
    /// Let blocks through that the compliance rule's guard holds.
    ConfirmCompliance(NoSettings),
    /// Change the mail system, as its administrators or its world do.
    Mail(MailStep),
    /// Give an account another password.
    MailPassword(MailPasswordStep),
    /// Type a secret into an agent's configuration.
    StoreSecret(SecretStep),
    /// Let a device that is managed do something about its certificate.
    Identity(IdentityStep),
    /// Change the certificate authority, as its administrators or its world do.
    Ca(CaStep),
    /// Let time pass for many devices, with everything that certificates need meanwhile.
    Years(YearsStep),
}

/// Nothing to say.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NoSettings {}

/// Names an agent: `agent1`, or `lease_holder` for whoever collects people now, or `other` for the one who does not;
/// `mail_holder` and `mail_other` are the same for phones.
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

/// Names a mock: `ldap`, `cloud`, `exchange` or `ca`, or a server of the mail system or the authority.
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

/// What stands on the path of an agent for its next connections.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MiddleboxStep {
    /// Whose path.
    pub agent: String,
    /// What stands there.
    pub kind: MiddleboxKind,
}

/// Kinds of meddlers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MiddleboxKind {
    /// Nothing.
    None,
    /// Resets connections that offer a protocol it does not know.
    ResetsUnknownAlpn,
    /// Refuses them with a TLS alert.
    RefusesUnknownAlpn,
    /// Answers everything with a redirect to a sign-in page.
    CaptivePortal,
    /// Shows a certificate of its own.
    Inspects,
}

/// A node that is emptied.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DrainStep {
    /// Milliseconds over which the agents are spread.
    #[serde(default)]
    pub over_ms: u64,
    /// Agents that must be at the other address afterwards.
    pub agents: usize,
    /// How long that may take.
    #[serde(default = "half_a_minute")]
    pub within_secs: u64,
}

/// An agent's own words, as its `status` command shows them.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AgentSays {
    /// Which.
    pub agent: String,
    /// What is looked for.
    pub text: String,
    /// How long that may take.
    #[serde(default = "half_a_minute")]
    pub within_secs: u64,
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
    /// `ldap`, `cloud`, `exchange` or `ca`, or a server of the mail system or the authority for what happens to its
    /// connections.
    pub target: String,
    /// The rule, as `POST /faults` of the mock's admin API takes it.
    pub rule: Value,
}

/// A step of a mock's clock.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdvanceClock {
    /// `ldap`, `cloud`, `exchange` or `ca`.
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
    /// Certificates renewed since the cloud's start, at least.
    #[serde(default)]
    pub renewals: Option<usize>,
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
    /// Words that alert's detail must contain.
    #[serde(default)]
    pub alert_says: Option<String>,
    /// No open alert with this code.
    #[serde(default)]
    pub no_alert: Option<String>,
    /// The state of a module on every agent that is online.
    #[serde(default)]
    pub module_state: Option<BTreeMap<String, String>>,
    /// Every action remembered under this name ended with success, exactly once.
    #[serde(default)]
    pub actions: Option<String>,
    /// A phone as the cloud shows it.
    #[serde(default)]
    pub device: Option<DeviceExpectation>,
    /// A phone, as the story calls it, that the cloud must not know.
    #[serde(default)]
    pub no_device: Option<String>,
    /// Phones in the cloud by access state.
    #[serde(default)]
    pub devices: DeviceCounts,
    /// Phones in the cloud are exactly those of the mail system, each in its state.
    #[serde(default)]
    pub mail_in_step: Option<bool>,
    /// How often throttling has locked an account of the mail system out.
    #[serde(default)]
    pub lockouts: Option<u32>,
    /// JSON pointers into the mail organisation the cloud shows, and the values they must have.
    #[serde(default)]
    pub organization: BTreeMap<String, Value>,
    /// The lease is held by this agent (names as in `kill_agent`).
    #[serde(default)]
    pub lease_holder: Option<String>,
    /// The cloud's people, groups and memberships are exactly the directory's.
    #[serde(default)]
    pub in_step: Option<bool>,
    /// Certificates in the cloud by status; `all` for all together.
    #[serde(default)]
    pub certificates: BTreeMap<String, Count>,
    /// JSON pointers into what the cloud shows of a device's newest certificate, by the device, and their values.
    #[serde(default)]
    pub certificate: BTreeMap<String, BTreeMap<String, Value>>,
    /// Certificates in the authority's own books.
    #[serde(default)]
    pub ledger: Option<LedgerExpectation>,
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

impl Count {
    /// Whether so many are right; `all` is for those who know how many there are.
    pub fn fits(&self, got: u64) -> bool {
        match self {
            Self::All => false,
            Self::Exactly(n) => got == *n,
            Self::AtLeast(n) => got >= *n,
        }
    }
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
    /// `ldap`, `cloud`, `exchange` or `ca`.
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
    /// How long to wait until there are enough; 0 for one look.
    #[serde(default)]
    pub within_secs: u64,
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
