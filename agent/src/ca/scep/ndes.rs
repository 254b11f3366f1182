//! Challenges from NDES. It keeps five at a time for an hour each, and one that is fetched and not used keeps somebody
//! else out that long; so they are fetched just in time, few at once, and forgotten with the request.

use std::sync::Arc;
use std::time::Duration;

use causeway_protocol::Secret;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::Scep;
use super::page::{self, Said};
use crate::ca::http::{Who, note, refusal};
use crate::ca::settings::CaSettings;
use crate::ca::{CaError, Challenge, limits};
use crate::directory::Net;
use crate::web::servers::Server;

/// Our turns at each front end's page, in the order of the front ends.
pub(super) struct Pages(Vec<Arc<Semaphore>>);

impl Pages {
    pub(super) fn new(settings: &CaSettings) -> Self {
        let turns = settings.challenges_kept.saturating_sub(1).clamp(1, limits::CHALLENGES_AT_ONCE);
        let turns = usize::try_from(turns).unwrap_or(1);
        Self(settings.urls.iter().map(|_| Arc::new(Semaphore::new(turns))).collect())
    }
}

impl Scep {
    /// Fetches a challenge from the first page that gives one.
    pub(super) async fn fetch_challenge(&self, net: &Net) -> Result<Challenge, CaError> {
        let mut last = None;
        for server in self.fronts.candidates() {
            let turn = match self.turn(&server).await {
                Ok(turn) => turn,
                Err(error) => {
                    last = Some(error);
                    continue;
                }
            };
            let fetched = self.fetch(net, &server, turn).await;
            note(&server, &fetched);
            match fetched {
                // Another server keeps challenges of its own.
                Err(error)
                    if error.is_servers_fault() || matches!(error, CaError::ChallengesExhausted { .. }) =>
                {
                    tracing::debug!(server = %server.endpoint(), error = %crate::chain::Chain(&error), "A page gives no challenge");
                    last = Some(error);
                }
                fetched => return fetched,
            }
        }
        Err(last.unwrap_or_else(|| self.nowhere()))
    }

    async fn turn(&self, server: &Server) -> Result<OwnedSemaphorePermit, CaError> {
        let at = server.endpoint();
        let n = self.fronts.all().iter().position(|other| other.endpoint().url == at.url);
        let Some(turns) = n.and_then(|n| self.pages.0.get(n)) else { return Err(self.nowhere()) };
        match timeout(limits::CHALLENGE_TURN_WITHIN, turns.clone().acquire_owned()).await {
            Ok(turn) => Ok(turn.expect("the semaphore is never closed")),
            Err(_) => Err(exhausted(at.to_string())),
        }
    }

    async fn fetch(
        &self,
        net: &Net,
        server: &Server,
        turn: OwnedSemaphorePermit,
    ) -> Result<Challenge, CaError> {
        // Who shows a page of challenges under another authority's name gets nothing of ours.
        self.known(net, server).await?;
        let Some(page) = self.page_of(server) else { return Err(self.nowhere()) };
        let answer = self.fronts.get(net, &page, Who::Account).await?;
        if !answer.status.is_success() {
            return Err(self.with_ended(net, server.endpoint(), refusal(&page, &answer)));
        }
        let host = page.to_string();
        match page::read(&answer.body, self.settings.challenge_length) {
            Said::Challenge { password, by_label } => {
                if !by_label {
                    tracing::debug!(%host, "The page of challenges is not in English; the challenge was found by its looks");
                }
                let minutes = u64::from(self.settings.challenge_valid_mins);
                let good_for = Duration::from_secs(minutes * 60).saturating_sub(limits::CHALLENGE_MARGIN);
                Ok(Challenge {
                    password: Secret::new(password.as_str()),
                    good_for,
                    once: true,
                    at: Some(server.endpoint().url.clone()),
                    turn: Some(turn),
                })
            }
            Said::Full => Err(exhausted(host)),
            Said::NoPermission => Err(CaError::Forbidden {
                host,
                detail: "the account may not enrol: it needs Enroll on the templates of NDES".to_owned(),
            }),
            Said::Else => Err(CaError::Answer {
                host,
                detail: format!(
                    "{} shows no challenge of {} characters, and no reason that is known",
                    page.path, self.settings.challenge_length
                ),
            }),
        }
    }
}

fn exhausted(host: String) -> CaError {
    CaError::ChallengesExhausted { host, retry_after: limits::CHALLENGES_RETRY_AFTER }
}
