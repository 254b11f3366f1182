//! Settings of the cloud: the TOML file's tables, of which the flags say the most common part.

use std::path::PathBuf;
use std::time::Duration;

use causeway_mock_kit::cli::CommonConfig;
use serde::{Deserialize, Serialize};

/// All settings, with defaults that suit a laptop.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// What all mocks share.
    pub common: CommonConfig,
    /// Where store, certificate authority and first credentials are kept. Default: a private temporary directory that
    /// goes with the process.
    pub data_dir: Option<PathBuf>,
    /// The XMPP domain, also a name in the public port's certificate.
    pub domain: String,
    /// Further host names or addresses the public port's certificate names.
    pub names: Vec<String>,
    /// User of the portal. Default `admin`.
    pub portal_user: String,
    /// The channel.
    pub channel: ChannelConfig,
    /// Leases.
    pub leases: LeaseConfig,
    /// Uploads.
    pub uploads: UploadConfig,
    /// Certificates of devices.
    pub certificates: CertificateConfig,
}

/// Settings of the channel.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ChannelConfig {
    /// New connections per second. Who comes early waits a few seconds for its turn; more are closed before TLS.
    /// Default 500.
    pub admission_per_sec: u32,
    /// Connections at once that have not logged in or asked for anything; more are closed as they come: on a machine that
    /// lets in 300 a second the last of them is served within the 10 s that agents give it. Default 2,560.
    pub pre_auth_max: usize,
    /// Logins at once; who gets no turn within 3 s is asked to come back later. Default 1,024.
    pub logins_max: usize,
    /// Milliseconds from a connection's turn to the first byte inside its TLS. Default 10,000.
    pub handshake_within_ms: u64,
    /// Seconds between two health reports of an agent. Default 30.
    pub health_every_secs: u32,
    /// Seconds a cut session can be resumed. Default 300.
    pub resume_secs: u32,
    /// Milliseconds an agent has to accept an action before it goes elsewhere. Default 10,000.
    pub accept_within_ms: u64,
    /// Password of the XMPP account `console`, with which third-party clients may look around (ping and service
    /// discovery only). Default: no such account.
    pub console_password: Option<String>,
    /// Milliseconds a login may take, and again the bind after it. Default 10,000.
    pub login_within_ms: u64,
    /// Milliseconds between the first and the last byte of one element. Default 30,000.
    pub element_within_ms: u64,
    /// Milliseconds after which an agent without a connection counts as lost: what it had accepted goes elsewhere
    /// where that is safe. Default 5,000.
    pub gone_after_ms: u64,
    /// Milliseconds an older session of the same instance has to prove that it lives. Default 2,000.
    pub clone_probe_ms: u64,
    /// Days an agent's certificate is valid. Default 90.
    pub certificate_days: u32,
    /// Seconds instead of those days, to watch a renewal. Default 0: the days count.
    pub certificate_secs: u32,
}

impl ChannelConfig {
    /// See `accept_within_ms`.
    pub fn accept_within(&self) -> Duration {
        Duration::from_millis(self.accept_within_ms)
    }

    /// See `handshake_within_ms`.
    pub fn handshake_within(&self) -> Duration {
        Duration::from_millis(self.handshake_within_ms)
    }

    /// See `login_within_ms`.
    pub fn login_within(&self) -> Duration {
        Duration::from_millis(self.login_within_ms)
    }

    /// See `element_within_ms`.
    pub fn element_within(&self) -> Duration {
        Duration::from_millis(self.element_within_ms)
    }

    /// See `gone_after_ms`.
    pub fn gone_after(&self) -> Duration {
        Duration::from_millis(self.gone_after_ms)
    }

    /// See `clone_probe_ms`.
    pub fn clone_probe(&self) -> Duration {
        Duration::from_millis(self.clone_probe_ms)
    }

    /// See `certificate_days` and `certificate_secs`.
    pub fn certificate_life(&self) -> Duration {
        match self.certificate_secs {
            0 => Duration::from_secs(u64::from(self.certificate_days) * 86_400),
            secs => Duration::from_secs(u64::from(secs)),
        }
    }
}

/// Settings of leases.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LeaseConfig {
    /// Milliseconds a lease lives without renewal. Default 60,000.
    pub ttl_ms: u64,
}

/// Settings of uploads.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct UploadConfig {
    /// Uploads at once over all agents. Default 8.
    pub concurrent_max: usize,
    /// A snapshot that would delete more than this share of a source's objects is refused. Default 20.
    pub mass_delete_percent: u32,
    /// Acknowledge batches and commits without applying them: shows what agents can send when the store costs nothing.
    /// Batches are checked, counted and remembered by number and digest as ever. Default false.
    pub acknowledge_only: bool,
}

/// Settings of devices' certificates.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CertificateConfig {
    /// Renewals the timetable may begin in an hour, over all devices of a tenant. Default 600.
    pub renewals_per_hour: u64,
}

impl Default for CertificateConfig {
    fn default() -> Self {
        Self { renewals_per_hour: crate::limits::RENEWALS_PER_HOUR }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            common: CommonConfig::default(),
            data_dir: None,
            domain: "cloud.causeway.test".to_owned(),
            names: Vec::new(),
            portal_user: "admin".to_owned(),
            channel: ChannelConfig::default(),
            leases: LeaseConfig::default(),
            uploads: UploadConfig::default(),
            certificates: CertificateConfig::default(),
        }
    }
}

impl Default for ChannelConfig {
    fn default() -> Self {
        Self {
            admission_per_sec: 500,
            pre_auth_max: 2_560,
            logins_max: 1_024,
            handshake_within_ms: 10_000,
            health_every_secs: 30,
            resume_secs: causeway_protocol::limits::RESUME_SECS,
            accept_within_ms: 10_000,
            console_password: None,
            login_within_ms: 10_000,
            element_within_ms: 30_000,
            gone_after_ms: 5_000,
            clone_probe_ms: 2_000,
            certificate_days: 90,
            certificate_secs: 0,
        }
    }
}

impl Default for LeaseConfig {
    fn default() -> Self {
        Self { ttl_ms: 60_000 }
    }
}

impl Default for UploadConfig {
    fn default() -> Self {
        Self { concurrent_max: 8, mass_delete_percent: 20, acknowledge_only: false }
    }
}
