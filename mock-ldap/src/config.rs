//! Settings of the mock: the flags every mock has, and everything else in TOML.

use std::collections::BTreeMap;
use std::path::PathBuf;

use causeway_mock_kit::cli::{CommonArgs, CommonConfig, ConfigError, load_config};
use serde::{Deserialize, Serialize};

use crate::dit::{AccountPolicy, EmptyPassword, ServerSpec};
use crate::limits::SERVERS_MAX;
use crate::personality::{Limits, Personality};

/// Everything that can be said about one mock directory.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    pub common: CommonConfig,
    /// Whose server to play. Default `active_directory`.
    pub personality: String,
    /// The servers of the domain; the first one owns the ports `ldap`, `ldaps`, `gc`, `gcs`, the second `ldap_dc2`
    /// and so on. Default: one server, `dc1`.
    pub servers: Vec<ServerConfig>,
    pub policies: Policies,
    /// Password and lockout rules of the domain.
    pub accounts: AccountPolicy,
    /// LDIF files applied to the generated directory before the mock is ready.
    pub people_from: Vec<PathBuf>,
    /// Active Directory: people have mailboxes where mock-exchange with its own defaults has them (`homeMDB`,
    /// `msExchHomeServerName`). Default false.
    pub exchange: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            common: CommonConfig::default(),
            personality: "active_directory".to_owned(),
            servers: vec![ServerConfig::default()],
            policies: Policies::default(),
            accounts: AccountPolicy::default(),
            people_from: Vec::new(),
            exchange: false,
        }
    }
}

impl Config {
    /// A directory of another vendor with all defaults.
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

    /// `count` servers `dc1`, `dc2`, ... that replicate at once.
    #[must_use]
    pub fn with_servers(mut self, count: usize) -> Self {
        let servers = (1..=count).map(|n| ServerConfig { name: format!("dc{n}"), ..ServerConfig::default() });
        self.servers = servers.collect();
        self
    }
}

/// One server of the domain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ServerConfig {
    /// Short host name. Default `dc1`.
    pub name: String,
    /// When a change made on another server arrives here. Default: at once.
    pub replication: Replication,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self { name: "dc1".to_owned(), replication: Replication::LagMs(0) }
    }
}

/// How changes travel between servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Replication {
    /// So many milliseconds of the mock's clock after they were made.
    LagMs(u64),
    /// Only when told (`POST /world/replicate`).
    Manual,
}

impl From<&ServerConfig> for ServerSpec {
    fn from(server: &ServerConfig) -> Self {
        let lag_ms = match server.replication {
            Replication::LagMs(ms) => Some(ms),
            Replication::Manual => None,
        };
        Self { name: server.name.clone(), lag_ms }
    }
}

/// Whether NTLM over TLS must be bound to the TLS channel (`LdapEnforceChannelBinding`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ChannelBinding {
    #[default]
    Never,
    /// A wrong binding is refused, a missing one accepted.
    WhenSupported,
    Always,
}

/// What an administrator of the directory can set. An absent value means what the personality says.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Policies {
    /// MaxPageSize. Entries of one page or one unpaged search; 0 = no limit.
    pub page_size_max: Option<usize>,
    /// MaxValRange. Values of one attribute in one answer; 0 = no limit.
    pub values_max: Option<usize>,
    /// Entries of a whole search (OpenLDAP `sizelimit`, 389-ds `nsslapd-sizelimit`); 0 = no limit.
    pub size_limit: Option<usize>,
    /// The service account is exempt from `size_limit`. Default true.
    pub service_size_unlimited: Option<bool>,
    /// MaxQueryDuration; 0 = no limit.
    pub query_duration_max_secs: Option<u64>,
    /// MaxReceiveBuffer: the largest request.
    pub receive_buffer_max_bytes: Option<usize>,
    /// MaxConnIdleTime, on the mock's clock; 0 = no limit.
    pub idle_timeout_secs: Option<u64>,
    /// MaxNotificationPerConn.
    pub notifications_max: Option<usize>,
    /// MaxResultSetsPerConn.
    pub result_sets_max: Option<usize>,
    /// Searches without a bind. Applied when the world is built.
    pub anonymous_search: Option<bool>,
    /// `LDAPServerIntegrity` = 2: simple binds need TLS, NTLM needs signing. Default false.
    pub require_signing: bool,
    /// Default never.
    pub channel_binding: ChannelBinding,
    /// A name with an empty password: `reject`, `anonymous` or `unwilling`.
    #[schema(value_type = Option<String>)]
    pub empty_password_bind: Option<EmptyPassword>,
    /// Simple binds answer confidentialityRequired without TLS (eDirectory's default).
    pub simple_bind_needs_tls: Option<bool>,
}

/// The policies in force.
#[derive(Clone, Debug)]
pub(crate) struct Effective {
    pub(crate) limits: Limits,
    pub(crate) service_size_unlimited: bool,
    pub(crate) require_signing: bool,
    pub(crate) channel_binding: ChannelBinding,
    pub(crate) empty_password_bind: EmptyPassword,
    pub(crate) simple_bind_needs_tls: bool,
}

impl Policies {
    pub(crate) fn over(&self, personality: &Personality) -> Effective {
        let base = &personality.limits;
        let limits = Limits {
            page_size_max: self.page_size_max.unwrap_or(base.page_size_max),
            values_max: self.values_max.unwrap_or(base.values_max),
            size_limit: self.size_limit.unwrap_or(base.size_limit),
            query_duration_max_secs: self.query_duration_max_secs.unwrap_or(base.query_duration_max_secs),
            receive_buffer_max_bytes: self.receive_buffer_max_bytes.unwrap_or(base.receive_buffer_max_bytes),
            idle_timeout_secs: self.idle_timeout_secs.unwrap_or(base.idle_timeout_secs),
            notifications_max: self.notifications_max.unwrap_or(base.notifications_max),
            result_sets_max: self.result_sets_max.unwrap_or(base.result_sets_max),
        };
        Effective {
            limits,
            service_size_unlimited: self.service_size_unlimited.unwrap_or(true),
            require_signing: self.require_signing,
            channel_binding: self.channel_binding,
            empty_password_bind: self.empty_password_bind.unwrap_or(personality.empty_password),
            simple_bind_needs_tls: self.simple_bind_needs_tls.unwrap_or(personality.simple_bind_needs_tls),
        }
    }
}

/// The four ports of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PortKind {
    Ldap,
    Ldaps,
    Gc,
    Gcs,
}

impl PortKind {
    pub(crate) const ALL: [Self; 4] = [Self::Ldap, Self::Ldaps, Self::Gc, Self::Gcs];

    pub(crate) fn is_tls(self) -> bool {
        matches!(self, Self::Ldaps | Self::Gcs)
    }

    pub(crate) fn is_global_catalog(self) -> bool {
        matches!(self, Self::Gc | Self::Gcs)
    }
}

/// Names of the front ends, by server and port. They are fixed so that fault rules and journals can name them.
const FRONT_NAMES: [[&str; 4]; SERVERS_MAX] = [
    ["ldap", "ldaps", "gc", "gcs"],
    ["ldap_dc2", "ldaps_dc2", "gc_dc2", "gcs_dc2"],
    ["ldap_dc3", "ldaps_dc3", "gc_dc3", "gcs_dc3"],
    ["ldap_dc4", "ldaps_dc4", "gc_dc4", "gcs_dc4"],
    ["ldap_dc5", "ldaps_dc5", "gc_dc5", "gcs_dc5"],
    ["ldap_dc6", "ldaps_dc6", "gc_dc6", "gcs_dc6"],
    ["ldap_dc7", "ldaps_dc7", "gc_dc7", "gcs_dc7"],
    ["ldap_dc8", "ldaps_dc8", "gc_dc8", "gcs_dc8"],
];

/// The name of a front end of the `server`th server, from 0.
pub(crate) fn front_name(server: usize, port: PortKind) -> &'static str {
    FRONT_NAMES[server][port as usize]
}

/// Every name a `--port` may use.
pub(crate) fn known_fronts() -> Vec<&'static str> {
    FRONT_NAMES.iter().flatten().copied().chain(["admin"]).collect()
}

/// Where the front ends listen: name to `host:port`.
#[derive(Clone, Debug, Default)]
pub(crate) struct ServerNames(pub(crate) BTreeMap<&'static str, String>);

impl ServerNames {
    pub(crate) fn endpoint(&self, front: &str) -> Option<&str> {
        self.0.get(front).map(String::as_str)
    }
}
