//! Errors of the module, and what kind of trouble each is.

use std::time::Duration;

use causeway_protocol::action::{ErrorReport, codes};
use thiserror::Error;

use super::limits;
use super::rules::RequestError;
use super::template::TemplateError;
use crate::ca::CaError;
use crate::chain::Chain;
use crate::directory::error::DirectoryError;
use crate::modules::Retry;
use crate::storage::StorageError;
use crate::vault::VaultError;

/// Why the module did not do what it was to do.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CertError {
    /// The authority, or the way to it.
    #[error("ask the authority {authority}")]
    Ca {
        /// Its name in agent.toml.
        authority: String,
        /// What went wrong.
        #[source]
        source: CaError,
    },
    /// The directory did not say what a name needs.
    #[error("look the person up")]
    Directory {
        /// What went wrong.
        #[source]
        source: DirectoryError,
    },
    /// More than one person answers to the name.
    #[error("the directory has several people for {name}")]
    Ambiguous {
        /// What was looked for.
        name: String,
    },
    /// The agent's own storage.
    #[error("use the state file")]
    Storage {
        /// What went wrong.
        #[source]
        source: StorageError,
    },
    /// What protects keys in the state file.
    #[error("protect the order's keys")]
    Vault {
        /// What went wrong.
        #[source]
        source: VaultError,
    },
    /// A value in the state file is not what we wrote.
    #[error("the state file holds an unreadable order")]
    BadState,
    /// The profile is not in the agent's config.
    #[error("there is no profile {profile}")]
    NoProfile {
        /// Its id.
        profile: String,
    },
    /// The order is for a newer profile than the agent has.
    #[error("the order is for version {ordered} of the profile {profile}, the agent has {known}")]
    ProfileBehind {
        /// Its id.
        profile: String,
        /// What was ordered.
        ordered: u64,
        /// What is here.
        known: u64,
    },
    /// The profile has changed since the order.
    #[error("the order is for version {ordered} of the profile {profile}, which is {known} by now")]
    ProfileChanged {
        /// Its id.
        profile: String,
        /// What was ordered.
        ordered: u64,
        /// What is here.
        known: u64,
    },
    /// The profile's authority is not defined here.
    #[error("the authority {authority} is not defined on this agent")]
    NoAuthority {
        /// Its name.
        authority: String,
    },
    /// The names of the certificate cannot be made.
    #[error("make the names of the certificate")]
    Template {
        /// What went wrong.
        #[source]
        source: TemplateError,
    },
    /// The device's request is not what was ordered.
    #[error("the device's signing request is refused")]
    Request {
        /// What is wrong with it.
        #[source]
        source: RequestError,
    },
    /// The device's request was sealed to another agent, or to this one before it lost its state.
    #[error("the device's signing request {request} was not sealed to this agent")]
    SealedElsewhere {
        /// The request's id.
        request: String,
    },
    /// Nobody gets a certificate in that name.
    #[error("{name} is a privileged name")]
    Privileged {
        /// The name.
        name: String,
    },
    /// It was asked for so often that nobody is going to approve it.
    #[error("the authority {authority} has not decided after {polls} questions")]
    NotDecided {
        /// Its name.
        authority: String,
        /// How often it was asked.
        polls: u32,
    },
    /// The same request id with other contents.
    #[error("the request {request} was ordered before with other contents")]
    OtherOrder {
        /// The id.
        request: String,
    },
    /// The identity cannot be put together or encrypted.
    #[error("make the identity: {problem}")]
    Identity {
        /// What went wrong; never holds a key.
        problem: String,
    },
    /// Parameters do not fit.
    #[error("parameters of {action}: {problem}")]
    BadParameters {
        /// Which action or request.
        action: String,
        /// What is wrong.
        problem: String,
    },
    /// The local settings forbid it.
    #[error("agent.toml forbids the authority {authority}")]
    ForbiddenHere {
        /// Its name.
        authority: String,
    },
    /// No such action.
    #[error("certificates has no action or request {name}")]
    Unknown {
        /// What was asked.
        name: String,
    },
}

impl CertError {
    /// Code, retry class and remedy of every code.
    pub const TABLE: &[(&str, Retry, &str)] = &[
        (
            "ca_unreachable",
            Retry::After,
            "check that the authority's servers run and are reachable from the agent",
        ),
        (
            "ca_credentials",
            Retry::NeedsAdmin,
            "store the account's right password with causeway-agent configure ca --secret-from-stdin password",
        ),
        (
            "ca_forbidden",
            Retry::NeedsAdmin,
            "give the account the right to enrol that docs/certificates.md names for this kind of authority",
        ),
        (
            "ca_challenges_used_up",
            Retry::After,
            "nothing: the agent waits; raise PasswordMax of NDES if it lasts",
        ),
        (
            "ca_challenge_refused",
            Retry::Permanent,
            "order it again: a challenge is good once and for an hour; restarting NDES forgets all of them",
        ),
        ("ca_refused", Retry::Permanent, "see the authority's own words, and its log of failed requests"),
        (
            "ca_busy",
            Retry::After,
            "nothing: the agent tries again; see the authority's event log if it lasts",
        ),
        (
            "ca_unclear",
            Retry::NeedsAdmin,
            "look at the authority whether it has issued the certificate; revoke it there, or order again",
        ),
        (
            "ca_answer",
            Retry::After,
            "run causeway-agent check certificates: the address, the authority's or its registration authority's certificate is not what agent.toml says",
        ),
        ("ca_settings", Retry::NeedsAdmin, "correct [ca.NAME] in agent.toml"),
        (
            "ca_not_decided",
            Retry::NeedsAdmin,
            "approve or deny the request at the authority, and order it again",
        ),
        ("authority_missing", Retry::NeedsAdmin, "add the table [ca.NAME] to agent.toml"),
        (
            "profile_missing",
            Retry::After,
            "nothing: the agent waits for its config; check the profile if it lasts",
        ),
        ("profile_changed", Retry::Permanent, "order it again for the profile as it is now"),
        (
            "name_not_possible",
            Retry::Permanent,
            "complete the person's record, or change the profile's templates",
        ),
        ("person_ambiguous", Retry::Permanent, "give the order a name that only one person has"),
        (
            "request_refused",
            Retry::Permanent,
            "look at the device: it asks for something else than was ordered",
        ),
        (
            "challenge_mismatch",
            Retry::Permanent,
            "look at the device: it uses a challenge that was handed out for something else",
        ),
        (
            "request_sealed_elsewhere",
            Retry::Permanent,
            "nothing: the cloud begins anew with another challenge, which the agent that fetches it can use",
        ),
        (
            "privileged_name",
            Retry::Permanent,
            "nobody gets a certificate in this name; change privileged_names if that is wrong",
        ),
        ("request_reused", Retry::Permanent, "order it under a new request id"),
        ("identity_failed", Retry::Permanent, "check the public key the device has given"),
        ("storage", Retry::After, "free space on the agent's disk and check its permissions"),
        (
            "vault",
            Retry::NeedsAdmin,
            "run the agent as the account that enrolled it; see vault.sealed in its data directory",
        ),
        ("bad_state", Retry::Permanent, "order it under a new request id"),
        (codes::BAD_PARAMETERS, Retry::Permanent, "correct the parameters"),
        (codes::FORBIDDEN_LOCALLY, Retry::NeedsAdmin, "ask the administrator of the agent's machine"),
        (codes::UNKNOWN_ACTION, Retry::Permanent, "see docs/certificates.md for the actions there are"),
    ];

    /// Stable word of a bounded set.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Ca { source, .. } => match source {
                CaError::Unreachable { .. } => "ca_unreachable",
                CaError::Credentials { .. } => "ca_credentials",
                CaError::Forbidden { .. } => "ca_forbidden",
                CaError::ChallengesExhausted { .. } => "ca_challenges_used_up",
                CaError::ChallengeRefused { .. } => "ca_challenge_refused",
                CaError::Refused { .. } => "ca_refused",
                CaError::Busy { .. } => "ca_busy",
                CaError::Unclear { .. } => "ca_unclear",
                CaError::Answer { .. } => "ca_answer",
                CaError::Settings { .. } => "ca_settings",
                CaError::Keep { .. } => "storage",
            },
            Self::Directory { source } => source.code(),
            Self::Ambiguous { .. } => "person_ambiguous",
            Self::Storage { .. } => "storage",
            Self::Vault { .. } => "vault",
            Self::BadState => "bad_state",
            Self::NoProfile { .. } | Self::ProfileBehind { .. } => "profile_missing",
            Self::ProfileChanged { .. } => "profile_changed",
            Self::NoAuthority { .. } => "authority_missing",
            Self::Template { .. } => "name_not_possible",
            Self::Request { source: RequestError::Challenge } => "challenge_mismatch",
            Self::Request { .. } => "request_refused",
            Self::SealedElsewhere { .. } => "request_sealed_elsewhere",
            Self::Privileged { .. } => "privileged_name",
            Self::NotDecided { .. } => "ca_not_decided",
            Self::OtherOrder { .. } => "request_reused",
            Self::Identity { .. } => "identity_failed",
            Self::BadParameters { .. } => codes::BAD_PARAMETERS,
            Self::ForbiddenHere { .. } => codes::FORBIDDEN_LOCALLY,
            Self::Unknown { .. } => codes::UNKNOWN_ACTION,
        }
    }

    /// Whether trying again helps.
    pub fn retry(&self) -> Retry {
        match self {
            Self::Directory { source } => source.retry(),
            Self::Ca { source: CaError::Unclear { .. }, .. } | Self::NotDecided { .. } => Retry::Permanent,
            _ => self.row().1,
        }
    }

    /// What a person can do.
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::Directory { source } => source.remedy(),
            _ => self.row().2,
        }
    }

    /// As the cloud and the portal see it.
    pub fn report(&self) -> ErrorReport {
        ErrorReport::new(self.code(), Chain(self).to_string(), self.remedy())
    }

    /// Whether the authority has said no for good, so that nothing of the order is left with it.
    pub(super) fn is_refusal(&self) -> bool {
        matches!(self, Self::Ca { source: CaError::Refused { .. } | CaError::ChallengeRefused { .. }, .. })
    }

    /// How long to wait before the next try; none when a further try makes no sense.
    pub(super) fn wait(&self, tries: u32) -> Option<Duration> {
        let doubled = limits::RETRY_FIRST.saturating_mul(1 << tries.min(10)).min(limits::RETRY_MAX);
        match (self.retry(), self) {
            (Retry::Permanent, _) => None,
            (_, Self::ProfileBehind { .. } | Self::NoProfile { .. }) => Some(limits::RETRY_CONFIG),
            (_, Self::Ca { source: CaError::ChallengesExhausted { retry_after, .. }, .. }) => {
                Some(*retry_after)
            }
            (_, Self::Ca { source: CaError::Busy { retry_after: Some(told), .. }, .. }) => {
                Some((*told).max(limits::RETRY_FIRST))
            }
            (Retry::NeedsAdmin, _) => Some(limits::RETRY_ADMIN),
            (Retry::After, _) => Some(doubled),
        }
    }

    fn row(&self) -> &'static (&'static str, Retry, &'static str) {
        let code = self.code();
        Self::TABLE.iter().find(|row| row.0 == code).expect("every code has a row; tested")
    }
}

impl From<StorageError> for CertError {
    fn from(source: StorageError) -> Self {
        Self::Storage { source }
    }
}

impl From<VaultError> for CertError {
    fn from(source: VaultError) -> Self {
        Self::Vault { source }
    }
}

impl From<DirectoryError> for CertError {
    fn from(source: DirectoryError) -> Self {
        Self::Directory { source }
    }
}

impl From<TemplateError> for CertError {
    fn from(source: TemplateError) -> Self {
        Self::Template { source }
    }
}

impl From<RequestError> for CertError {
    fn from(source: RequestError) -> Self {
        Self::Request { source }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> Vec<CertError> {
        let host = || "ndes1".to_owned();
        let detail = || "words".to_owned();
        let ca = [
            CaError::Unreachable { host: host(), sent: false, source: "cut".into() },
            CaError::Credentials { host: host(), detail: detail() },
            CaError::Forbidden { host: host(), detail: detail() },
            CaError::ChallengesExhausted { host: host(), retry_after: Duration::from_secs(7) },
            CaError::ChallengeRefused { host: host(), detail: detail() },
            CaError::Refused { host: host(), code: "2".into(), detail: detail() },
            CaError::Busy { host: host(), detail: detail(), retry_after: None },
            CaError::Unclear { host: host(), detail: detail() },
            CaError::Answer { host: host(), detail: detail() },
            CaError::Settings { detail: detail() },
            CaError::Keep { source: "full".into() },
        ];
        let name = || "x".to_owned();
        ca.into_iter()
            .map(|source| CertError::Ca { authority: name(), source })
            .chain([
                CertError::Ambiguous { name: name() },
                StorageError::Closed.into(),
                VaultError::Foreign.into(),
                CertError::BadState,
                CertError::NoProfile { profile: name() },
                CertError::ProfileBehind { profile: name(), ordered: 2, known: 1 },
                CertError::ProfileChanged { profile: name(), ordered: 1, known: 2 },
                CertError::NoAuthority { authority: name() },
                TemplateError::NoSid.into(),
                RequestError::Challenge.into(),
                RequestError::TooLarge { bytes: 1 }.into(),
                CertError::SealedElsewhere { request: name() },
                CertError::Privileged { name: name() },
                CertError::NotDecided { authority: name(), polls: 3 },
                CertError::OtherOrder { request: name() },
                CertError::Identity { problem: name() },
                CertError::BadParameters { action: name(), problem: name() },
                CertError::ForbiddenHere { authority: name() },
                CertError::Unknown { name: name() },
            ])
            .collect()
    }

    #[test]
    fn every_error_has_its_row_and_every_row_its_error() {
        let codes: std::collections::BTreeSet<&str> = all().iter().map(|error| error.row().0).collect();
        let rows: std::collections::BTreeSet<&str> = CertError::TABLE.iter().map(|row| row.0).collect();
        assert_eq!(codes, rows);
        assert!(all().iter().all(|error| !error.report().remedy.is_empty()));
    }

    #[test]
    fn each_kind_of_trouble_has_its_own_patience() {
        let secs = |code: &str, tries| {
            let error = all().into_iter().find(|error| error.code() == code).unwrap();
            error.wait(tries).map(|wait| wait.as_secs())
        };
        assert_eq!(secs("ca_unreachable", 0), Some(2));
        assert_eq!(secs("ca_unreachable", 3), Some(16));
        assert_eq!(secs("ca_unreachable", 40), Some(60));
        assert_eq!(secs("ca_credentials", 9), Some(300));
        assert_eq!(secs("ca_challenges_used_up", 9), Some(7));
        assert_eq!(secs("profile_missing", 9), Some(2));
        for code in ["ca_refused", "ca_unclear", "ca_challenge_refused", "privileged_name", "ca_not_decided"]
        {
            assert_eq!(secs(code, 0), None, "{code}");
        }
    }
}
