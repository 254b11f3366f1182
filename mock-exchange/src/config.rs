//! Settings of the mock: the flags every mock has, and everything else in TOML.

use std::collections::BTreeMap;

use causeway_mock_kit::cli::{CommonArgs, CommonConfig, ConfigError, load_config};
use causeway_mock_kit::world::{DATABASES_PER_SERVER, MAIL_SERVERS};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::activesync::RefusalNumbers;
pub use crate::kerberos::KerberosConfig;
pub use crate::powershell::{ChannelBinding, PowerShellConfig};
use crate::world::{AccessState, ThrottlingPolicy};

/// Everything that can be said about one mock organisation.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    pub common: CommonConfig,
    /// Which version to play. Default `exchange2019`.
    pub personality: String,
    /// Partnerships at the start. Default: one for each generated phone; a number makes exactly so many, spread over the
    /// mailboxes; at most [`crate::limits::PARTNERSHIPS_MAX`].
    pub partnerships: Option<usize>,
    /// What happens to a phone nobody has decided about. Default allow.
    pub default_access: DefaultAccess,
    /// Minutes a new phone waits until the server knows what it is. Default 0: it is judged at once. Exchange: up to 14.
    pub discovery_minutes: u32,
    /// Get-MobileDevice with an identity nobody has returns every phone, as its documentation warns; otherwise it is an
    /// error, as administrators report. Default false. A null identity returns every phone either way.
    pub unknown_identity_returns_all: bool,
    /// Domain controllers. Writes go to the first, reads come from the last. Default: `dc1` alone.
    pub domain_controllers: Vec<DomainController>,
    /// Mailbox servers. Default: `mail1`, `mail2`.
    pub servers: Vec<String>,
    /// Databases on each server. Default 2.
    pub databases_per_server: usize,
    /// Budget of every account. See [`ThrottlingPolicy`].
    pub throttling: ThrottlingPolicy,
    /// Roles of the service account. Default `Organization Management`.
    pub service_roles: Vec<String>,
    /// Further roles.
    pub roles: Vec<RoleConfig>,
    /// Further accounts that may sign in.
    pub accounts: Vec<AccountConfig>,
    /// The remoting front ends.
    pub powershell: PowerShellConfig,
    /// Tickets for them.
    pub kerberos: KerberosConfig,
    /// The REST and token front ends.
    pub rest: RestConfig,
    /// The ActiveSync front end.
    pub activesync: ActiveSyncConfig,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            common: CommonConfig::default(),
            personality: "exchange2019".to_owned(),
            partnerships: None,
            default_access: DefaultAccess::Allow,
            discovery_minutes: 0,
            unknown_identity_returns_all: false,
            domain_controllers: vec![DomainController::default()],
            servers: MAIL_SERVERS.map(str::to_owned).to_vec(),
            databases_per_server: DATABASES_PER_SERVER,
            throttling: ThrottlingPolicy::default(),
            service_roles: vec!["Organization Management".to_owned()],
            roles: Vec::new(),
            accounts: Vec::new(),
            powershell: PowerShellConfig::default(),
            kerberos: KerberosConfig::default(),
            rest: RestConfig::default(),
            activesync: ActiveSyncConfig::default(),
        }
    }
}

impl Config {
    /// Another version with all defaults.
    pub fn of(personality: &str) -> Self {
        Self { personality: personality.to_owned(), ..Self::default() }
    }

    /// Reads the file the flags name and lets the other flags win over it.
    ///
    /// # Errors
    /// [`ConfigError`] with file, line and column.
    pub fn from_args(args: &CommonArgs) -> Result<Self, ConfigError> {
        let mut config: Self = load_config(args.config.as_deref())?;
        config.common.apply(args);
        if let Some(personality) = &args.personality {
            config.personality.clone_from(personality);
        }
        Ok(config)
    }
}

/// `DefaultAccessLevel` of the organisation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum DefaultAccess {
    #[default]
    Allow,
    Block,
    Quarantine,
}

impl DefaultAccess {
    /// The state of a phone only this decides about.
    pub fn state(self) -> AccessState {
        match self {
            Self::Allow => AccessState::Allowed,
            Self::Block => AccessState::Blocked,
            Self::Quarantine => AccessState::Quarantined,
        }
    }

    /// As cmdlets write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Allow => "Allow",
            Self::Block => "Block",
            Self::Quarantine => "Quarantine",
        }
    }

    /// From the word of a cmdlet, whatever the case.
    pub fn named(name: &str) -> Option<Self> {
        [Self::Allow, Self::Block, Self::Quarantine]
            .into_iter()
            .find(|level| level.name().eq_ignore_ascii_case(name))
    }
}

/// One domain controller.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DomainController {
    /// Short host name. Default `dc1`.
    pub name: String,
    /// When a change made elsewhere arrives here. Default: at once.
    pub replication: Replication,
}

impl Default for DomainController {
    fn default() -> Self {
        Self { name: "dc1".to_owned(), replication: Replication::LagMs(0) }
    }
}

/// How changes travel between domain controllers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Replication {
    /// So many milliseconds of the mock's clock after they were made.
    LagMs(u64),
    /// Only when told (`POST /world/replicate`).
    Manual,
}

/// A role: a name and what it grants.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RoleConfig {
    pub name: String,
    /// `Get-MobileDevice`, or with the only parameters granted: `Set-CASMailbox:Identity,ActiveSyncAllowedDeviceIDs`.
    pub grants: Vec<String>,
}

/// An account besides the people of the company and the service account.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AccountConfig {
    pub login: String,
    pub password: String,
    #[serde(default)]
    pub roles: Vec<String>,
}

impl std::fmt::Debug for AccountConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AccountConfig")
            .field("login", &self.login)
            .field("roles", &self.roles)
            .finish_non_exhaustive()
    }
}

/// The REST and token front ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RestConfig {
    /// Client (application) id. Default: made from the seed.
    pub client_id: Option<String>,
    /// PEM files of certificates registered for the app at the start; others through the admin API.
    pub certificates: Vec<std::path::PathBuf>,
    /// Seconds an access token lives. Default 3600.
    pub token_life_secs: i64,
    /// Whether an assertion counts once. Default false: MSAL sends the same one for nine minutes, so the service takes it.
    pub single_use_assertions: bool,
    /// Roles of the app. Default `Organization Management`.
    pub app_roles: Vec<String>,
}

impl Default for RestConfig {
    fn default() -> Self {
        Self {
            client_id: None,
            certificates: Vec::new(),
            token_life_secs: 3600,
            single_use_assertions: false,
            app_roles: vec!["Organization Management".to_owned()],
        }
    }
}

/// The ActiveSync front end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ActiveSyncConfig {
    /// Messages in each inbox at the start. Default 3.
    pub messages: usize,
    /// Shortest and longest heartbeat of Ping and Sync, in seconds. Default 60 and 3540.
    pub heartbeat_min_secs: u32,
    pub heartbeat_max_secs: u32,
    /// How refusals are said, by name, where it differs from [`crate::activesync::refusals`]: most of those numbers are
    /// not verified against a server.
    pub refusals: BTreeMap<String, RefusalNumbers>,
}

impl Default for ActiveSyncConfig {
    fn default() -> Self {
        Self { messages: 3, heartbeat_min_secs: 60, heartbeat_max_secs: 3540, refusals: BTreeMap::new() }
    }
}

/// The front ends; the names are fixed so that fault rules and journals can name them.
pub const FRONTS: [&str; 8] =
    ["powershell", "powershell_http", "kdc", "rest", "token", "activesync", "autodiscover", "admin"];
