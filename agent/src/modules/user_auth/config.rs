//! Settings of user_auth. The desired config and the local table have the same keys; the local one wins.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::directory::filter::Filter;
use crate::modules::{ConfigError, ModuleSettings};

/// How password checks are made.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Settings {
    /// Which `[directory.<name>]` to ask. Default `default`.
    pub(super) directory: String,
    /// How a typed name becomes the name that is bound.
    pub(super) lookup: Lookup,
    /// Further condition on who may sign in, as an LDAP filter. Default: none.
    pub(super) filter: Option<String>,
    /// Whether a distinguished name may be typed. Default false.
    pub(super) accept_dn: bool,
    /// How long a found name is kept, in seconds, 0 to 3600. Default 60.
    pub(super) name_cache_secs: u64,
    /// How long a refused pair of user and password is answered without asking again, in seconds, 0 to 600. Default 60.
    pub(super) refused_cache_secs: u64,
    /// Refused passwords of one user within the window after which the directory is not asked any more. Default: one
    /// less than the domain's lockoutThreshold; without one, no cap.
    pub(super) failures_max: Option<u32>,
    /// That window, in seconds. Default: the domain's lockOutObservationWindow, or 1800.
    pub(super) failure_window_secs: Option<u64>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            directory: "default".to_owned(),
            lookup: Lookup::default(),
            filter: None,
            accept_dn: false,
            name_cache_secs: 60,
            refused_cache_secs: 60,
            failures_max: None,
            failure_window_secs: None,
        }
    }
}

/// How a typed name becomes the name that is bound.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum Lookup {
    /// The service account searches for the user.
    #[default]
    Search,
    /// No service account: the bind name is made from a template with one `{login}`.
    Direct {
        /// For example `{login}@acme.example` or `uid={login},ou=people,dc=acme,dc=example`.
        template: String,
    },
}

impl Settings {
    /// Reads and checks.
    ///
    /// # Errors
    /// Names the offending key.
    pub(super) fn read(settings: &ModuleSettings) -> Result<Self, ConfigError> {
        const PATH: &str = "modules.user_auth";
        let read: Self = ModuleSettings::read(PATH, &super::super::merged(settings))?;
        let wrong = |key: &str, problem: String, advice: &str| {
            Err(ConfigError::new(format!("{PATH}.{key}"), problem, advice))
        };
        if read.name_cache_secs > 3_600 {
            return wrong(
                "name_cache_secs",
                format!("{} is too long", read.name_cache_secs),
                "choose 0 to 3600",
            );
        }
        if read.refused_cache_secs > 600 {
            return wrong(
                "refused_cache_secs",
                format!("{} is too long", read.refused_cache_secs),
                "choose 0 to 600",
            );
        }
        if read.failures_max == Some(0) {
            return wrong(
                "failures_max",
                "0 would refuse everyone".into(),
                "choose at least 1, or remove the key",
            );
        }
        if let Some(text) = &read.filter
            && let Err(error) = Filter::parse(text)
        {
            return wrong("filter", error.to_string(), "correct the filter (RFC 4515)");
        }
        if let Lookup::Direct { template } = &read.lookup
            && template.matches("{login}").count() != 1
        {
            return wrong(
                "lookup.direct.template",
                format!("{template:?} must hold {{login}} once"),
                "write it in",
            );
        }
        Ok(read)
    }

    /// The documented example.
    pub(super) fn example() -> Value {
        json!({
            "directory": "default",
            "lookup": "search",
            "filter": "(!(department=Contractors))",
            "accept_dn": false,
            "name_cache_secs": 60,
            "refused_cache_secs": 60,
        })
    }
}
