//! Orders at authorities that would carry a repeated one out twice: what is kept of them before anything is sent, and
//! when trying again does no harm.

use std::future::Future;
use std::time::Duration;

use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::http::{Answer, Endpoint, refusal};
use super::{CaError, Keep};
use crate::directory::Net;

/// What is kept of an order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Ticket {
    /// URL of the front end that has, or may have, the request.
    pub(super) url: String,
    /// Whether the request may have gone out.
    pub(super) sent: bool,
    /// The authority's id of the request, once it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) id: Option<String>,
    /// When it went out, milliseconds since 1970.
    #[serde(default)]
    pub(super) at_ms: i64,
}

/// Why a request was not answered, and whether it may have been carried out.
pub(super) struct Failed {
    pub(super) error: CaError,
    pub(super) acted: bool,
}

impl Ticket {
    /// From what an earlier try left behind.
    ///
    /// # Errors
    /// When another version of the agent has written it.
    pub(super) fn read(value: &Value) -> Result<Self, CaError> {
        Self::deserialize(value).map_err(|_| CaError::Settings {
            detail: "the order was begun by another version of the agent".to_owned(),
        })
    }

    pub(super) fn value(&self) -> Value {
        serde_json::to_value(self).expect("text and numbers always become JSON")
    }

    /// What there is to say about a request that may have gone out, to an authority that cannot be asked for it.
    pub(super) fn unclear(self) -> CaError {
        let detail = "it cannot be asked for it; look among the issued certificates of the authority, revoke it there \
                      and order again";
        CaError::Unclear { host: self.url, detail: detail.to_owned() }
    }

    /// Whether so much time has gone by that the authority cannot still be working on the request.
    ///
    /// # Errors
    /// [`CaError::Busy`] until then.
    pub(super) fn settled(&self, net: &Net, within: Duration) -> Result<(), CaError> {
        let settled_ms = self.at_ms + i64::try_from(within.as_millis()).unwrap_or(i64::MAX);
        let left_ms = settled_ms.saturating_sub(net.clock.now_ms());
        if left_ms <= 0 {
            return Ok(());
        }
        Err(CaError::Busy {
            host: self.url.clone(),
            detail: "an earlier try may still be worked on".to_owned(),
            retry_after: Some(Duration::from_millis(left_ms.unsigned_abs())),
        })
    }

    /// Sends, once: the ticket says so before, and says otherwise again when nothing can have come of it.
    pub(super) async fn send<T>(
        mut self,
        keep: &dyn Keep,
        work: impl Future<Output = Result<T, Failed>>,
    ) -> Result<T, CaError> {
        self.sent = true;
        keep.keep(self.value()).await?;
        match work.await {
            Ok(done) => Ok(done),
            Err(Failed { error, acted: true }) => Err(error),
            Err(Failed { error, acted: false }) => {
                self.sent = false;
                keep.keep(self.value()).await?;
                Err(error)
            }
        }
    }
}

/// An error of the connection, or the authority's own verdict.
impl From<CaError> for Failed {
    fn from(error: CaError) -> Self {
        let verdict = matches!(error, CaError::Refused { .. } | CaError::Forbidden { .. });
        Self { acted: !(verdict || error.was_not_sent()), error }
    }
}

impl Failed {
    /// A status that is no success: what is refused before it reaches the authority has no effect, and a front end that
    /// is not available has not looked at the request (RFC 9110 sections 15.5 and 15.6.4).
    pub(super) fn of_status(endpoint: &Endpoint, answer: &Answer) -> Self {
        let acted = answer.status.is_server_error() && answer.status != StatusCode::SERVICE_UNAVAILABLE;
        let acted = acted || answer.status.is_redirection() || answer.status.is_success();
        Self { error: refusal(endpoint, answer), acted }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use futures_util::future::BoxFuture;

    use super::*;

    #[derive(Default)]
    struct Kept(Mutex<Vec<bool>>);

    impl Keep for Kept {
        fn keep(&self, ticket: Value) -> BoxFuture<'_, Result<(), CaError>> {
            let ticket = Ticket::read(&ticket).unwrap();
            self.0.lock().unwrap().push(ticket.sent);
            Box::pin(async { Ok(()) })
        }
    }

    #[tokio::test]
    async fn only_what_cannot_have_been_done_may_be_tried_again() {
        let host = || "ca1".to_owned();
        let busy = CaError::Busy { host: host(), detail: "500".into(), retry_after: None };
        let unreachable = |sent| CaError::Unreachable { host: host(), sent, source: "gone".into() };
        let refused = CaError::Refused { host: host(), code: "x".into(), detail: "no".into() };
        let answer = CaError::Answer { host: host(), detail: "html".into() };
        for (error, expected) in [
            (unreachable(false), vec![true, false]),
            (unreachable(true), vec![true]),
            (refused, vec![true, false]),
            (busy, vec![true]),
            (answer, vec![true]),
        ] {
            let kept = Kept::default();
            let text = error.to_string();
            let failed = Ticket::default().send(&kept, async { Err::<(), _>(Failed::from(error)) }).await;
            assert_eq!(failed.unwrap_err().to_string(), text);
            assert_eq!(*kept.0.lock().unwrap(), expected, "{text}");
        }
    }
}
