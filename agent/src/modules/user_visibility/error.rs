//! Errors of user_visibility.

use causeway_protocol::action::{ErrorReport, codes};
use thiserror::Error;

use super::guard::Held;
use crate::chain::Chain;
use crate::directory::error::DirectoryError;
use crate::link::LinkError;
use crate::modules::Retry;
use crate::modules::output::OutputError;
use crate::storage::StorageError;

/// Why a run ended without a result.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SyncError {
    /// The directory.
    #[error("read the directory")]
    Directory {
        /// What went wrong.
        #[source]
        source: DirectoryError,
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
    /// The server no longer accepts our place in its history.
    #[error("the {strategy} cursor is lost: {reason}")]
    CursorLost {
        /// Which strategy.
        strategy: &'static str,
        /// Why.
        reason: String,
    },
    /// More changed than a delta holds.
    #[error("more than {limit} changes at once")]
    TooManyChanges {
        /// The limit.
        limit: usize,
    },
    /// The guard stopped it.
    #[error("{held}")]
    Held {
        /// The figures.
        held: Held,
    },
    /// The lease went to another agent.
    #[error("the lease has passed to another agent")]
    LeaseLost,
    /// The agent stops.
    #[error("the agent is stopping")]
    Stopping,
    /// More units than a tree may have.
    #[error("more than {limit} units and containers")]
    TooManyUnits {
        /// The limit.
        limit: usize,
    },
    /// The directory has no such user in scope.
    #[error("no user named {user} in scope")]
    NoSuchUser {
        /// As asked.
        user: String,
    },
    /// Parameters of an action do not fit.
    #[error("parameters of {action}: {problem}")]
    BadParameters {
        /// Which action.
        action: String,
        /// What is wrong.
        problem: String,
    },
    /// No such action.
    #[error("user_visibility has no action or request {name}")]
    Unknown {
        /// What was asked.
        name: String,
    },
    /// The run loop is not there to take the order.
    #[error("the collection is not running")]
    NotRunning,
}

impl SyncError {
    /// Code, retry class and remedy of every code; those of the directory are in its own table.
    pub const TABLE: &[(&str, Retry, &str)] = &[
        ("cloud_refused", Retry::After, "see the cloud's own words in the detail"),
        ("storage", Retry::After, "free space on the agent's disk and check its permissions"),
        ("bad_state", Retry::After, "nothing: everything is read again"),
        ("cursor_lost", Retry::After, "nothing: everything is read again and only differences travel"),
        (
            codes::HELD_BY_GUARD,
            Retry::NeedsAdmin,
            "check why so many objects are gone; if it is right, run sync_now with allow_mass_delete",
        ),
        (codes::STALE_FENCE, Retry::After, "nothing: another agent collects"),
        ("stopping", Retry::After, "nothing: the work goes on after the restart"),
        ("too_many_units", Retry::NeedsAdmin, "narrow the bases"),
        (
            "no_such_user",
            Retry::Permanent,
            "check the name, and that the user is within the bases and filters",
        ),
        (codes::BAD_PARAMETERS, Retry::Permanent, "correct the parameters"),
        (codes::UNKNOWN_ACTION, Retry::Permanent, "use sync_now or sync_user"),
        ("not_running", Retry::After, "enable the module and wait until it has started"),
    ];

    /// Stable word of a bounded set.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Directory { source } => source.code(),
            Self::Link { source: LinkError::StaleFence } | Self::LeaseLost => codes::STALE_FENCE,
            Self::Link { source: LinkError::MassDelete { .. } } | Self::Held { .. } => codes::HELD_BY_GUARD,
            Self::Link { source: LinkError::Stopping } | Self::Stopping => "stopping",
            Self::Link { .. } => "cloud_refused",
            Self::Storage { .. } => "storage",
            Self::BadState { .. } => "bad_state",
            Self::CursorLost { .. } | Self::TooManyChanges { .. } => "cursor_lost",
            Self::TooManyUnits { .. } => "too_many_units",
            Self::NoSuchUser { .. } => "no_such_user",
            Self::BadParameters { .. } => codes::BAD_PARAMETERS,
            Self::Unknown { .. } => codes::UNKNOWN_ACTION,
            Self::NotRunning => "not_running",
        }
    }

    /// What a person can do.
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::Directory { source } => source.remedy(),
            other => {
                let code = other.code();
                Self::TABLE.iter().find(|row| row.0 == code).expect("every code has a row; tested").2
            }
        }
    }

    /// Whether another server may do better.
    pub(super) fn is_servers_fault(&self) -> bool {
        matches!(self, Self::Directory { source } if source.is_servers_fault())
    }

    /// As the cloud and the portal see it.
    pub fn report(&self) -> ErrorReport {
        ErrorReport::new(self.code(), Chain(self).to_string(), self.remedy())
    }
}

impl From<DirectoryError> for SyncError {
    fn from(source: DirectoryError) -> Self {
        Self::Directory { source }
    }
}

impl From<LinkError> for SyncError {
    fn from(source: LinkError) -> Self {
        Self::Link { source }
    }
}

impl From<OutputError> for SyncError {
    fn from(error: OutputError) -> Self {
        match error {
            OutputError::LeaseLost => Self::LeaseLost,
            OutputError::Link(source) => Self::Link { source },
        }
    }
}

impl From<StorageError> for SyncError {
    fn from(source: StorageError) -> Self {
        Self::Storage { source }
    }
}
