//! Errors of the module, and what kind of trouble each is.

use std::time::Duration;

use causeway_protocol::action::{ErrorReport, codes};
use causeway_protocol::cmdlet::ErrorRecord;
use thiserror::Error;

use crate::chain::Chain;
use crate::exchange::ExchangeError;
use crate::link::LinkError;
use crate::modules::Retry;
use crate::modules::output::OutputError;
use crate::storage::StorageError;

/// Why the module did not do what it was to do.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum MailError {
    /// No session, or it broke.
    #[error("talk to Exchange")]
    Session {
        /// What went wrong.
        #[source]
        source: ExchangeError,
    },
    /// A cmdlet failed.
    #[error("{cmdlet} failed: {}", .record.message)]
    Cmdlet {
        /// Its name.
        cmdlet: String,
        /// What the server says.
        record: Box<ErrorRecord>,
    },
    /// A cmdlet took too long.
    #[error("{cmdlet} gave nothing within {} s", .within.as_secs())]
    TimedOut {
        /// Its name.
        cmdlet: String,
        /// How long we waited.
        within: Duration,
    },
    /// The account sees none of the cmdlets that any version has.
    #[error("the account sees none of {cmdlets}")]
    NoCmdlets {
        /// What was looked for.
        cmdlets: String,
    },
    /// This version cannot do it.
    #[error("{title} cannot {what}")]
    NotSupported {
        /// The version, for people.
        title: String,
        /// What was asked.
        what: &'static str,
    },
    /// There is no such object.
    #[error("there is no {what}")]
    NotFound {
        /// Named as asked.
        what: String,
    },
    /// The object is not the one that was meant.
    #[error("{what}")]
    Mismatch {
        /// What differs.
        what: String,
    },
    /// A wipe can be taken back only before the phone has confirmed it.
    #[error("the phone confirmed the wipe at {at}")]
    TooLate {
        /// When.
        at: String,
    },
    /// Somebody else took the wipe back.
    #[error("the wipe was taken back before the phone confirmed it")]
    WipeCancelled,
    /// The server did not keep what it was told.
    #[error("{what} did not stay as written")]
    NotKept {
        /// What.
        what: String,
    },
    /// Newcomers come faster than they can be allowed.
    #[error("new phones appear faster than they are allowed: {left} after {rounds} rounds")]
    TooFast {
        /// Found by the last round.
        left: u64,
        /// Rounds.
        rounds: u32,
    },
    /// The listing is not complete, so nothing may be concluded from what is not in it.
    #[error("the listing is not complete: {why}")]
    Incomplete {
        /// In the server's words.
        why: String,
    },
    /// The cloud.
    #[error("send to the cloud")]
    Link {
        /// What went wrong.
        #[source]
        source: LinkError,
    },
    /// The agent's own storage.
    #[error("use the state file")]
    Storage {
        /// What went wrong.
        #[source]
        source: StorageError,
    },
    /// A value in the state file is not what we wrote.
    #[error("the state file holds an unreadable {what}")]
    BadState {
        /// Which kind of value.
        what: &'static str,
    },
    /// The guard stopped it.
    #[error("{deletions} of {known} phones would be deleted, {allowed} are allowed without asking")]
    Held {
        /// Phones that would be deleted.
        deletions: u64,
        /// Phones known.
        known: u64,
        /// What is allowed without asking.
        allowed: u64,
    },
    /// The lease went to another agent.
    #[error("the lease has passed to another agent")]
    LeaseLost,
    /// The agent stops.
    #[error("the agent is stopping")]
    Stopping,
    /// Parameters of an action do not fit.
    #[error("parameters of {action}: {problem}")]
    BadParameters {
        /// Which action.
        action: String,
        /// What is wrong.
        problem: String,
    },
    /// The local settings forbid it.
    #[error("agent.toml forbids {action}")]
    ForbiddenHere {
        /// Which action.
        action: String,
    },
    /// No such action.
    #[error("exchange has no action or request {name}")]
    Unknown {
        /// What was asked.
        name: String,
    },
    /// The run loop is not there to take the order.
    #[error("the collection is not running")]
    NotRunning,
}

/// What kind of trouble: each has its own patience.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    /// The server wants less of us.
    Throttled,
    /// Nobody answers, or not now.
    Unreachable,
    /// The account is refused; every further try brings it closer to its lockout.
    Credentials,
    /// The object is not there, maybe not yet on this domain controller.
    NotFound,
    /// The account may not.
    Forbidden,
    /// Something else that may pass.
    Other,
    /// Trying again changes nothing.
    Permanent,
}

impl Class {
    /// The word in results and figures.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Throttled => "throttled",
            Self::Unreachable => "unreachable",
            Self::Credentials => "credentials",
            Self::NotFound => "not_found",
            Self::Forbidden => "forbidden",
            Self::Other => "other",
            Self::Permanent => "permanent",
        }
    }
}

/// Classes of exceptions by the .NET name of the exception or the failure category; never by the message, which is in
/// the server's language. The first row that is part of the name counts.
const EXCEPTIONS: &[(&str, Class)] = &[
    ("CommandNotFound", Class::Forbidden),
    ("ParameterBinding", Class::Permanent),
    ("ManagementObjectNotFound", Class::NotFound),
    ("ObjectNotFound", Class::NotFound),
    ("ManagementObjectAmbiguous", Class::Permanent),
    ("OverBudget", Class::Throttled),
    ("Throttl", Class::Throttled),
    ("ADServerSettingsChanged", Class::Unreachable),
    ("Transient", Class::Unreachable),
    ("ServerUnavailable", Class::Unreachable),
    ("Unavailable", Class::Unreachable),
    ("Timeout", Class::Unreachable),
    ("ADExternal", Class::Unreachable),
    ("MapiException", Class::Unreachable),
    ("UnauthorizedAccess", Class::Forbidden),
    ("AccessDenied", Class::Forbidden),
    ("OperationRequiresGroupManager", Class::Forbidden),
    ("Security", Class::Forbidden),
    ("ParameterOutOfRange", Class::Permanent),
    ("DataValidation", Class::Permanent),
    ("InvalidOperation", Class::Permanent),
    ("AlreadyExists", Class::Permanent),
];

/// `ErrorCategory` numbers (MS-PSRP 2.2.3.9) that say enough by themselves.
const PERMISSION_DENIED: i32 = 18;
const OPERATION_TIMEOUT: i32 = 16;

/// What kind of trouble an error record tells of.
pub(super) fn class_of(record: &ErrorRecord) -> Class {
    let names = [record.failure_category().unwrap_or_default(), &record.reason, &record.fully_qualified_id];
    for name in names.iter().filter(|name| !name.is_empty()) {
        if let Some((_, class)) = EXCEPTIONS.iter().find(|(part, _)| name.contains(part)) {
            return *class;
        }
    }
    match record.category {
        PERMISSION_DENIED => Class::Forbidden,
        OPERATION_TIMEOUT => Class::Unreachable,
        _ => Class::Other,
    }
}

fn named(record: &ErrorRecord, what: &str) -> bool {
    record.reason.contains(what) || record.fully_qualified_id.contains(what)
}

/// Whether the account does not see the cmdlet: an older version, or a missing role.
pub(super) fn is_missing_cmdlet(record: &ErrorRecord) -> bool {
    named(record, "CommandNotFound")
}

/// Whether the account does not see a parameter, or its value is of a type this server does not take.
pub(super) fn is_missing_parameter(record: &ErrorRecord) -> bool {
    named(record, "ParameterBinding") || named(record, "InvalidCast") || named(record, "ParameterNotFound")
}

impl MailError {
    /// Code, retry class and remedy of every code.
    pub const TABLE: &[(&str, Retry, &str)] = &[
        (
            "exchange_unreachable",
            Retry::After,
            "check that the Exchange servers run and are reachable from the agent",
        ),
        (
            "exchange_throttled",
            Retry::After,
            "nothing: the agent waits; raise the account's throttling policy if it lasts",
        ),
        (
            "exchange_credentials",
            Retry::NeedsAdmin,
            "store the account's right password with causeway-agent configure exchange",
        ),
        ("exchange_forbidden", Retry::NeedsAdmin, "give the account the roles that docs/exchange.md lists"),
        ("exchange_protocol", Retry::After, "check that the address is an Exchange PowerShell endpoint"),
        ("exchange_cmdlet_failed", Retry::After, "see the server's own words in the detail"),
        ("not_found", Retry::Permanent, "check that it still exists, and that the agent's scope holds it"),
        ("not_supported", Retry::Permanent, "this version of Exchange has no such function"),
        (
            "wrong_device",
            Retry::Permanent,
            "run sync_now and order the action again for the phone that is meant",
        ),
        ("too_late", Retry::Permanent, "remove the phone's partnership; it must be set up again"),
        ("wipe_cancelled", Retry::Permanent, "order the wipe again if it is still wanted"),
        ("not_kept", Retry::After, "look for another program that changes the same settings"),
        ("too_many_newcomers", Retry::After, "try again at a quieter time"),
        ("incomplete_listing", Retry::After, "see the server's own words; nothing is deleted meanwhile"),
        ("cloud_refused", Retry::After, "see the cloud's own words in the detail"),
        ("storage", Retry::After, "free space on the agent's disk and check its permissions"),
        ("bad_state", Retry::After, "nothing: everything is read again"),
        (
            codes::HELD_BY_GUARD,
            Retry::NeedsAdmin,
            "check why so many phones are touched; if it is right, confirm: sync_now with allow_mass_delete for deletions, confirm for actions",
        ),
        (codes::STALE_FENCE, Retry::After, "nothing: another agent collects"),
        ("stopping", Retry::After, "nothing: the work goes on after the restart"),
        (codes::BAD_PARAMETERS, Retry::Permanent, "correct the parameters"),
        (codes::FORBIDDEN_LOCALLY, Retry::NeedsAdmin, "ask the administrator of the agent's machine"),
        (codes::UNKNOWN_ACTION, Retry::Permanent, "see docs/exchange.md for the actions there are"),
        ("not_running", Retry::After, "enable the module and wait until it has started"),
    ];

    /// What kind of trouble it is.
    pub(super) fn class(&self) -> Class {
        match self {
            Self::Session { source } => match source {
                ExchangeError::Throttled { .. } => Class::Throttled,
                ExchangeError::Credentials { .. } => Class::Credentials,
                ExchangeError::Forbidden { .. } => Class::Forbidden,
                _ => Class::Unreachable,
            },
            Self::Cmdlet { record, .. } => class_of(record),
            Self::TimedOut { .. } | Self::Storage { .. } | Self::Stopping => Class::Unreachable,
            Self::NoCmdlets { .. } => Class::Forbidden,
            Self::NotFound { .. } => Class::NotFound,
            Self::NotKept { .. }
            | Self::TooFast { .. }
            | Self::Incomplete { .. }
            | Self::Link { .. }
            | Self::BadState { .. }
            | Self::LeaseLost
            | Self::NotRunning => Class::Other,
            Self::NotSupported { .. }
            | Self::Mismatch { .. }
            | Self::TooLate { .. }
            | Self::WipeCancelled
            | Self::Held { .. }
            | Self::BadParameters { .. }
            | Self::ForbiddenHere { .. }
            | Self::Unknown { .. } => Class::Permanent,
        }
    }

    /// When the server wants to be asked again, if it said so.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Session { source: ExchangeError::Throttled { retry_after, .. } } => *retry_after,
            _ => None,
        }
    }

    /// Stable word of a bounded set.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Session { source: ExchangeError::Protocol { .. } } => "exchange_protocol",
            Self::Session { .. } | Self::Cmdlet { .. } | Self::TimedOut { .. } | Self::NoCmdlets { .. } => {
                match self.class() {
                    Class::Throttled => "exchange_throttled",
                    Class::Credentials => "exchange_credentials",
                    Class::Forbidden => "exchange_forbidden",
                    Class::NotFound => "not_found",
                    Class::Unreachable => "exchange_unreachable",
                    Class::Other | Class::Permanent => "exchange_cmdlet_failed",
                }
            }
            Self::NotSupported { .. } => "not_supported",
            Self::NotFound { .. } => "not_found",
            Self::Mismatch { .. } => "wrong_device",
            Self::TooLate { .. } => "too_late",
            Self::WipeCancelled => "wipe_cancelled",
            Self::NotKept { .. } => "not_kept",
            Self::TooFast { .. } => "too_many_newcomers",
            Self::Incomplete { .. } => "incomplete_listing",
            Self::Link { source: LinkError::StaleFence } | Self::LeaseLost => codes::STALE_FENCE,
            Self::Link { source: LinkError::MassDelete { .. } } | Self::Held { .. } => codes::HELD_BY_GUARD,
            Self::Link { source: LinkError::Stopping } | Self::Stopping => "stopping",
            Self::Link { .. } => "cloud_refused",
            Self::Storage { .. } => "storage",
            Self::BadState { .. } => "bad_state",
            Self::BadParameters { .. } => codes::BAD_PARAMETERS,
            Self::ForbiddenHere { .. } => codes::FORBIDDEN_LOCALLY,
            Self::Unknown { .. } => codes::UNKNOWN_ACTION,
            Self::NotRunning => "not_running",
        }
    }

    /// What a person can do.
    pub fn remedy(&self) -> &'static str {
        let code = self.code();
        Self::TABLE.iter().find(|row| row.0 == code).expect("every code has a row; tested").2
    }

    /// As the cloud and the portal see it.
    pub fn report(&self) -> ErrorReport {
        ErrorReport::new(self.code(), Chain(self).to_string(), self.remedy())
    }
}

impl From<ExchangeError> for MailError {
    fn from(source: ExchangeError) -> Self {
        match source {
            ExchangeError::Stopped => Self::Stopping,
            source => Self::Session { source },
        }
    }
}

impl From<LinkError> for MailError {
    fn from(source: LinkError) -> Self {
        Self::Link { source }
    }
}

impl From<OutputError> for MailError {
    fn from(error: OutputError) -> Self {
        match error {
            OutputError::LeaseLost => Self::LeaseLost,
            OutputError::Link(source) => Self::Link { source },
        }
    }
}

impl From<StorageError> for MailError {
    fn from(source: StorageError) -> Self {
        Self::Storage { source }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(reason: &str, id: &str) -> ErrorRecord {
        ErrorRecord { reason: reason.to_owned(), fully_qualified_id: id.to_owned(), ..ErrorRecord::default() }
    }

    #[test]
    fn classes_come_from_names_and_not_from_messages() {
        for (reason, id, class) in [
            ("ManagementObjectNotFoundException", "", Class::NotFound),
            (
                "",
                "[Server=EX1] [FailureCategory=Cmdlet-ManagementObjectNotFoundException] AB,x",
                Class::NotFound,
            ),
            ("CommandNotFoundException", "CommandNotFoundException", Class::Forbidden),
            ("ParameterBindingException", "NamedParameterNotFound,Get-MobileDevice", Class::Permanent),
            ("ADTransientException", "", Class::Unreachable),
            ("OverBudgetException", "", Class::Throttled),
            ("SomethingNew", "", Class::Other),
        ] {
            assert_eq!(class_of(&record(reason, id)), class, "{reason} {id}");
        }
        let mut german = record("", "");
        german.message = "Objekt nicht gefunden: ManagementObjectNotFoundException".to_owned();
        assert_eq!(class_of(&german), Class::Other);
    }

    #[test]
    fn every_code_has_a_remedy() {
        let cmdlet = |reason: &str| MailError::Cmdlet {
            cmdlet: "Get-X".to_owned(),
            record: Box::new(record(reason, "")),
        };
        let detail = String::new;
        let errors = [
            cmdlet("ManagementObjectNotFoundException"),
            cmdlet("UnauthorizedAccessException"),
            cmdlet("OverBudgetException"),
            cmdlet("x"),
            ExchangeError::Unreachable { detail: detail() }.into(),
            ExchangeError::Credentials { detail: detail() }.into(),
            ExchangeError::Forbidden { detail: detail() }.into(),
            ExchangeError::Protocol { detail: detail() }.into(),
            ExchangeError::Throttled { detail: detail(), retry_after: None }.into(),
            MailError::TooFast { left: 1, rounds: 1 },
            MailError::NotKept { what: detail() },
            MailError::WipeCancelled,
            MailError::TooLate { at: detail() },
            MailError::Incomplete { why: detail() },
            MailError::Held { deletions: 1, known: 1, allowed: 0 },
            MailError::ForbiddenHere { action: detail() },
            MailError::NotRunning,
            MailError::LeaseLost,
            MailError::Stopping,
            MailError::BadState { what: "x" },
            MailError::NotSupported { title: detail(), what: "x" },
            MailError::Mismatch { what: detail() },
            StorageError::Closed.into(),
            LinkError::Offline.into(),
        ];
        for error in errors {
            assert!(!error.remedy().is_empty(), "{error}");
        }
    }
}
