//! What goes wrong between us and a proxy; the variant names the culprit.

use std::io;

use thiserror::Error;

use super::{Scheme, offered};
use crate::dial::security::SecurityError;
use crate::limits::{PROXY_ROUNDS_MAX, PROXY_WITHIN};

/// What the proxy did wrong, or what we did in its eyes.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ProxyError {
    /// The connection broke.
    #[error("talk to the proxy")]
    Io {
        /// What the operating system says.
        #[source]
        source: io::Error,
    },
    /// No answer in time.
    #[error("the proxy does not answer within {} s", PROXY_WITHIN.as_secs())]
    TimedOut,
    /// It closed before it answered.
    #[error("the proxy closed the connection before it answered")]
    Closed,
    /// It answers something that is not HTTP, or without end.
    #[error("the proxy's answer is not usable: {what}")]
    Malformed {
        /// What is wrong.
        what: &'static str,
    },
    /// It wants credentials and we have none.
    #[error("the proxy wants a user name and password (offers {offered}); none is configured")]
    CredentialsWanted {
        /// The schemes it offers.
        offered: String,
    },
    /// It offers nothing that we can or may answer.
    #[error("none of the schemes the proxy offers ({offered}) can be used: {why}")]
    NoScheme {
        /// The schemes it offers.
        offered: String,
        /// Each scheme with its reason.
        why: String,
    },
    /// It does not accept ours. Not repeated, because repeated failures lock accounts.
    #[error(
        "the proxy does not accept user {username} by {scheme}: wrong password, or the user may not pass"
    )]
    BadCredentials {
        /// Who we said we are.
        username: String,
        /// By which scheme.
        scheme: Scheme,
    },
    /// The directory behind the scheme has refused them; the proxy never saw them.
    #[error("user {username} is refused for {scheme}")]
    RefusedByDirectory {
        /// Who we said we are.
        username: String,
        /// By which scheme.
        scheme: Scheme,
        /// What the directory says.
        #[source]
        source: SecurityError,
    },
    /// They were refused lately, so we do not show them.
    #[error(
        "user {username} was refused lately; the next attempt is in {wait_mins} min or after the settings change"
    )]
    CredentialsHeld {
        /// Who we would say we are.
        username: String,
        /// Until the next attempt, in minutes.
        wait_mins: u64,
    },
    /// The password is right, but the proxy does not take the ticket.
    #[error(
        "the proxy does not accept the Kerberos ticket for {spn}: its keytab or clock is wrong, or the user may not pass"
    )]
    TicketRefused {
        /// The service the ticket is for.
        spn: String,
    },
    /// NTLM and Negotiate are bound to a connection, and the proxy ends it in the middle.
    #[error("{scheme} needs the connection to stay open, but the proxy {how}")]
    ConnectionNotKept {
        /// The scheme.
        scheme: Scheme,
        /// What it does instead.
        how: &'static str,
    },
    /// It offered a scheme and does not go on with it.
    #[error("the proxy offers {scheme} but does not answer its first message")]
    NotContinued {
        /// The scheme.
        scheme: Scheme,
    },
    /// Its part of a scheme's exchange is broken.
    #[error("the proxy's {scheme} message is not usable")]
    BadToken {
        /// The scheme.
        scheme: Scheme,
        /// What is wrong with it.
        #[source]
        source: SecurityError,
    },
    /// It calls each nonce stale, even the one it has just given.
    #[error("the proxy calls its own fresh nonce stale")]
    StaleNonces,
    /// It asks again and again.
    #[error("the proxy still asks for credentials after {PROXY_ROUNDS_MAX} rounds")]
    TooManyRounds,
    /// A rule of the proxy forbids the target.
    #[error("the proxy forbids it ({status}): {text}")]
    Forbidden {
        /// HTTP status.
        status: u16,
        /// What the proxy says.
        text: String,
    },
    /// The proxy does not reach the target; another one might.
    #[error("the proxy does not reach the target ({status}): {text}")]
    TargetUnreachable {
        /// HTTP status.
        status: u16,
        /// What the proxy says.
        text: String,
    },
    /// Another refusal.
    #[error("the proxy answers {status}: {text}")]
    Refused {
        /// HTTP status.
        status: u16,
        /// What the proxy says.
        text: String,
    },
}

impl ProxyError {
    /// Whether another proxy, or a direct way, may do better. False where the answer is a verdict about us or the
    /// target, which asking elsewhere would only repeat, at the price of a failed sign-in each.
    pub fn elsewhere(&self) -> bool {
        matches!(
            self,
            Self::Io { .. }
                | Self::TimedOut
                | Self::Closed
                | Self::Malformed { .. }
                | Self::ConnectionNotKept { .. }
                | Self::NotContinued { .. }
                | Self::BadToken { .. }
                | Self::StaleNonces
                | Self::TooManyRounds
                | Self::TargetUnreachable { .. }
        )
    }

    pub(super) fn by_status(status: u16, text: String) -> Self {
        match status {
            403 => Self::Forbidden { status, text },
            502..=504 => Self::TargetUnreachable { status, text },
            _ => Self::Refused { status, text },
        }
    }

    pub(super) fn wanted(challenges: &[crate::dial::security::challenge::Challenge]) -> Self {
        Self::CredentialsWanted { offered: offered(challenges) }
    }
}
