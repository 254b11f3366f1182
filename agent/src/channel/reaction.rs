//! What to do after the server has ended a stream with an error: one row for every condition of RFC 6120 §4.9.3.

use std::time::Duration;

use xmpp_parsers::stream_error::DefinedCondition;

use super::login::Ended;
use crate::limits::{
    CLONE_WAIT_FROM, CLONE_WAIT_TO, CONSTRAINED_WAIT_FROM, CONSTRAINED_WAIT_TO, REDIRECT_SPREAD,
    REDIRECTS_MAX, REFUSED_WAIT_FROM, REFUSED_WAIT_TO, RETRY_HINT_MAX, SHUTDOWN_SPREAD,
};

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// The usual back-off.
    Backoff,
    /// At once, more or less: the link was cut under a session that worked.
    Soon,
    /// Soon and again: this machine has no network, so attempts cost nobody anything.
    NoNetwork,
    /// Within so long, because the server asked us to leave in good order.
    Spread { after: Duration, over: Duration },
    /// At once: the last connection was not lost but left.
    Now,
    /// Soon, at another address.
    Redirect { host: String, after: Duration, over: Duration },
    /// Calmly: somebody stands between us and the server, and only a person can change that.
    Calmly,
    /// Much later: asking sooner cannot help. A person must act.
    Later { from: Duration, to: Duration },
}

/// The same credentials, the same answer.
pub(super) fn later_refused() -> Next {
    Next::Later { from: REFUSED_WAIT_FROM, to: REFUSED_WAIT_TO }
}

/// What to do, given how many redirects in a row were followed before.
pub(super) fn after(ended: &Ended, redirects: u32) -> Next {
    let hint = |secs: Option<u64>| secs.map(|secs| Duration::from_secs(secs).min(RETRY_HINT_MAX));
    let (after, over) = (hint(ended.retry_after_secs), hint(ended.retry_spread_secs));
    let hinted = (after.is_some() || over.is_some())
        .then(|| Next::Spread { after: after.unwrap_or_default(), over: over.unwrap_or_default() });
    match &ended.condition {
        DefinedCondition::SeeOtherHost(host) if redirects < REDIRECTS_MAX => Next::Redirect {
            host: host.clone(),
            after: after.unwrap_or_default(),
            over: over.unwrap_or(REDIRECT_SPREAD),
        },
        DefinedCondition::SystemShutdown => {
            Next::Spread { after: after.unwrap_or_default(), over: over.unwrap_or(SHUTDOWN_SPREAD) }
        }
        DefinedCondition::Conflict => Next::Later { from: CLONE_WAIT_FROM, to: CLONE_WAIT_TO },
        // The server knows neither us nor the name we call it by, or does not speak our version: the same words again
        // get the same answer.
        DefinedCondition::NotAuthorized
        | DefinedCondition::HostUnknown
        | DefinedCondition::HostGone
        | DefinedCondition::ImproperAddressing
        | DefinedCondition::InvalidFrom
        | DefinedCondition::InvalidNamespace
        | DefinedCondition::UnsupportedEncoding
        | DefinedCondition::UnsupportedFeature
        | DefinedCondition::UnsupportedVersion => later_refused(),
        // Full, or tired of us: a minute at least, whatever the back-off has come to.
        DefinedCondition::ResourceConstraint | DefinedCondition::PolicyViolation => {
            hinted.unwrap_or(Next::Spread {
                after: CONSTRAINED_WAIT_FROM,
                over: CONSTRAINED_WAIT_TO - CONSTRAINED_WAIT_FROM,
            })
        }
        // Damage on the way or a passing trouble of the server's; also a chain of redirects that leads nowhere.
        DefinedCondition::SeeOtherHost(_)
        | DefinedCondition::BadFormat
        | DefinedCondition::BadNamespacePrefix
        | DefinedCondition::ConnectionTimeout
        | DefinedCondition::InternalServerError
        | DefinedCondition::InvalidXml
        | DefinedCondition::NotWellFormed
        | DefinedCondition::RemoteConnectionFailed
        | DefinedCondition::Reset
        | DefinedCondition::RestrictedXml
        | DefinedCondition::UndefinedCondition
        | DefinedCondition::UnsupportedStanzaType => hinted.unwrap_or(Next::Backoff),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(condition: DefinedCondition, retry: (Option<u64>, Option<u64>)) -> Ended {
        Ended { condition, text: None, retry_after_secs: retry.0, retry_spread_secs: retry.1 }
    }

    #[test]
    fn hints_of_the_server_are_obeyed_within_reason() {
        let next = after(&ended(DefinedCondition::Reset, (Some(5), Some(10))), 0);
        assert_eq!(next, Next::Spread { after: Duration::from_secs(5), over: Duration::from_secs(10) });
        let next = after(&ended(DefinedCondition::SystemShutdown, (Some(u64::MAX), None)), 0);
        assert_eq!(next, Next::Spread { after: RETRY_HINT_MAX, over: SHUTDOWN_SPREAD });
        let next = after(&ended(DefinedCondition::ResourceConstraint, (None, Some(7))), 0);
        assert_eq!(next, Next::Spread { after: Duration::ZERO, over: Duration::from_secs(7) });
        // A clone and a revoked agent must not be hurried by anyone.
        for condition in [DefinedCondition::Conflict, DefinedCondition::NotAuthorized] {
            assert!(matches!(after(&ended(condition, (Some(1), Some(1))), 0), Next::Later { .. }));
        }
    }

    #[test]
    fn a_chain_of_redirects_ends() {
        let to = || DefinedCondition::SeeOtherHost("node2".into());
        let follow = |after, over| Next::Redirect { host: "node2".into(), after, over };
        let soon = follow(Duration::ZERO, REDIRECT_SPREAD);
        assert_eq!(after(&ended(to(), (None, None)), REDIRECTS_MAX - 1), soon);
        let later = follow(Duration::from_secs(4), Duration::from_secs(9));
        assert_eq!(after(&ended(to(), (Some(4), Some(9))), 0), later);
        assert_eq!(after(&ended(to(), (None, None)), REDIRECTS_MAX), Next::Backoff);
    }
}
