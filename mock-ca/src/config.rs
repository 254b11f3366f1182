//! Settings of the mock: the flags every mock has, and everything else in TOML.

use causeway_mock_kit::cli::{CommonArgs, CommonConfig, ConfigError, load_config};
use serde::{Deserialize, Serialize};

use crate::accounts::AccountConfig;
pub use crate::certsrv::CertsrvConfig;
use crate::core::{AuthorityConfig, ChallengeConfig};
pub use crate::door::DoorConfig;
pub use crate::entrust::EntrustConfig;
pub use crate::mpki::MpkiConfig;
pub use crate::ndes::NdesConfig;
pub use crate::scep::ScepConfig;

/// Everything that can be said about one mock authority.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    pub common: CommonConfig,
    /// Which product to play: `ndes` (an RA before a two-tier authority, no AES), `rfc8894` (the authority itself, everything
    /// the RFC has) or `legacy` (SHA-1, 3DES, GET only). Default `ndes`.
    pub personality: String,
    /// The authority itself and its templates.
    pub authority: AuthorityConfig,
    /// Challenge passwords.
    pub challenge: ChallengeConfig,
    /// The SCEP front end.
    pub scep: ScepConfig,
    /// NDES's page of challenges.
    pub ndes: NdesConfig,
    /// The web pages of AD CS.
    pub certsrv: CertsrvConfig,
    /// Symantec's and DigiCert's service.
    pub mpki: MpkiConfig,
    /// Entrust's gateway, and the adapter beside it.
    pub entrust: EntrustConfig,
    /// Further accounts that may sign in.
    pub accounts: Vec<AccountConfig>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            common: CommonConfig::default(),
            personality: "ndes".to_owned(),
            authority: AuthorityConfig::default(),
            challenge: ChallengeConfig::default(),
            scep: ScepConfig::default(),
            ndes: NdesConfig::default(),
            certsrv: CertsrvConfig::default(),
            mpki: MpkiConfig::default(),
            entrust: EntrustConfig::default(),
            accounts: Vec::new(),
        }
    }
}

impl Config {
    /// Another product with all defaults.
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
