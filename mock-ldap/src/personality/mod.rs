//! Personalities: how each vendor's server looks and answers. Mostly data (`data/*.toml`, `data/*.schema`), so that a
//! capture from a real server can correct it without touching code.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::dit::schema::Schema;
use crate::dit::{EmptyPassword, ResultCode};

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

impl Vendor {
    pub const ALL: [Self; 6] =
        [Self::ActiveDirectory, Self::OpenLdap, Self::Ds389, Self::Oracle, Self::EDirectory, Self::Domino];

    fn files(self) -> (&'static str, &'static [&'static str]) {
        const COMMON: &str = include_str!("../../data/common.schema");
        const DS389: &str = include_str!("../../data/ds389.schema");
        match self {
            Self::ActiveDirectory => (
                include_str!("../../data/active_directory.toml"),
                &[include_str!("../../data/active_directory.schema")],
            ),
            Self::OpenLdap => (
                include_str!("../../data/openldap.toml"),
                &[COMMON, include_str!("../../data/openldap.schema")],
            ),
            Self::Ds389 => (include_str!("../../data/ds389.toml"), &[COMMON, DS389]),
            Self::Oracle => (include_str!("../../data/oracle.toml"), &[COMMON, DS389]),
            Self::EDirectory => (
                include_str!("../../data/edirectory.toml"),
                &[COMMON, include_str!("../../data/edirectory.schema")],
            ),
            Self::Domino => {
                (include_str!("../../data/domino.toml"), &[COMMON, include_str!("../../data/domino.schema")])
            }
        }
    }
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
    /// 0: never.
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
    /// Other words for it.
    pub aliases: Vec<String>,
    pub limits: Limits,
    pub page_mode: PageMode,
    /// Searches below the rootDSE without a bind.
    pub anonymous_search: bool,
    /// A name without password in a simple bind; the account policy may say otherwise.
    pub empty_password: EmptyPassword,
    /// Simple binds need TLS unless configured otherwise.
    pub simple_bind_needs_tls: bool,
    /// LDAPv2 binds answer protocolError.
    pub rejects_version_2: bool,
    pub supports_global_catalog: bool,
    /// String comparison ignores accents and width.
    pub accent_insensitive: bool,
    /// The WhoAmI extended operation exists.
    pub who_am_i: bool,
    /// The administrator without entry; `{base}` is the suffix, `{organisation}` the organisation's name.
    #[serde(default)]
    pub manager_dn: Option<String>,
    pub supported_controls: Vec<String>,
    pub supported_extensions: Vec<String>,
    #[serde(default)]
    pub supported_features: Vec<String>,
    pub sasl_mechanisms: Vec<String>,
    /// Constant attributes of the rootDSE.
    root_dse: BTreeMap<String, Vec<String>>,
    /// Diagnostic messages by reason; `{name}` stands for a value known at run time.
    texts: BTreeMap<String, String>,
}

impl Personality {
    pub fn of(vendor: Vendor) -> Self {
        let (settings, _) = vendor.files();
        toml::from_str(settings).expect("the personality files are read by a test")
    }

    /// By the word of `--personality`; `None` when there is none of that name.
    pub fn named(word: &str) -> Option<Self> {
        let matches = |personality: &Self| {
            personality.name == word || personality.aliases.iter().any(|alias| alias == word)
        };
        Vendor::ALL.into_iter().map(Self::of).find(matches)
    }

    pub fn is_active_directory(&self) -> bool {
        self.vendor == Vendor::ActiveDirectory
    }

    pub fn supports_control(&self, oid: &str) -> bool {
        self.supported_controls.iter().any(|known| known == oid)
    }

    /// The diagnostic message for a reason, such as `no_such_object`; empty when the server gives none.
    pub fn text(&self, reason: &str, values: &[(&str, &str)]) -> String {
        let mut text = self.texts.get(reason).cloned().unwrap_or_default();
        for (name, value) in values {
            text = text.replace(&format!("{{{name}}}"), value);
        }
        text
    }

    pub(crate) fn root_dse_constants(&self) -> &BTreeMap<String, Vec<String>> {
        &self.root_dse
    }

    pub(crate) fn load_schema(&self) -> Schema {
        let (_, files) = self.vendor.files();
        Schema::parse(files, self.is_active_directory()).expect("the schema files are read by a test")
    }

    /// Members must exist, and links follow renames (Active Directory, eDirectory).
    pub(crate) fn checks_link_targets(&self) -> bool {
        matches!(self.vendor, Vendor::ActiveDirectory | Vendor::EDirectory)
    }

    /// Attributes outside the classes of an entry are refused.
    pub(crate) fn checks_allowed_attributes(&self) -> bool {
        !self.is_active_directory()
    }

    /// Code for an attribute the schema does not know.
    pub(crate) fn unknown_attribute_code(&self) -> ResultCode {
        match self.vendor {
            Vendor::ActiveDirectory | Vendor::EDirectory => ResultCode::NO_SUCH_ATTRIBUTE,
            Vendor::Ds389 | Vendor::Oracle => ResultCode::OBJECT_CLASS_VIOLATION,
            _ => ResultCode::UNDEFINED_ATTRIBUTE_TYPE,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_personality_loads_and_has_its_name() {
        for vendor in Vendor::ALL {
            let personality = Personality::of(vendor);
            assert_eq!(personality.vendor, vendor);
            assert_eq!(Personality::named(&personality.name), Some(personality.clone()));
            let schema = personality.load_schema();
            assert!(schema.len() > 50, "{vendor:?} knows {} attributes", schema.len());
            assert!(schema.find_class("top").is_some());
        }
        assert_eq!(Personality::named("nosuch"), None);
        assert!(Personality::named("ad").is_some_and(|personality| personality.is_active_directory()));
    }

    #[test]
    fn texts_carry_their_values() {
        let text = Personality::of(Vendor::ActiveDirectory).text("bind_failed", &[("data", "52e")]);
        assert!(text.contains("AcceptSecurityContext error, data 52e,") && text.ends_with('\0'), "{text:?}");
        assert_eq!(Personality::of(Vendor::OpenLdap).text("bind_failed", &[("data", "52e")]), "");
    }
}
