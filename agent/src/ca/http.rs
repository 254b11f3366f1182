//! Requests to the front ends of one authority: one client for all of them, and which front end is tried when.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{BoxFuture, join_all};
use http::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use http::{Method, StatusCode};
use tokio::time::{Instant, timeout};

use super::settings::CaSettings;
use super::{CaError, Seen, limits};
use crate::chain::Chain;
use crate::directory::Net;
use crate::secrets::SecretStore;
use crate::web::auth::AuthError;
pub use crate::web::client::Who;
use crate::web::client::{Bounds, Client, WebError};
pub use crate::web::connection::{Answer, Ask};
use crate::web::connection::{HttpError, date_ms, retry_after};
pub use crate::web::endpoint::Endpoint;
use crate::web::servers::{Server, Servers};

/// The front ends of one authority.
pub struct FrontEnds {
    client: Client,
    servers: Servers,
    /// How far each host's clock is ahead of ours by its last answer, milliseconds.
    clocks: Mutex<BTreeMap<String, i64>>,
}

impl FrontEnds {
    /// Opens nothing yet.
    pub fn new(name: &str, settings: &CaSettings, secrets: SecretStore) -> Self {
        Self {
            client: Client::new(settings.manner(name), secrets),
            servers: Servers::new(settings.endpoints()),
            clocks: Mutex::default(),
        }
    }

    /// How far the clocks of those that have answered are ahead of ours: host, milliseconds.
    pub fn clocks(&self) -> Vec<(String, i64)> {
        let clocks = self.clocks.lock().unwrap_or_else(PoisonError::into_inner);
        clocks.iter().map(|(host, ahead_ms)| (host.clone(), *ahead_ms)).collect()
    }

    /// How far one's clock is ahead of ours; nothing when it has not said.
    pub fn ahead_ms(&self, endpoint: &Endpoint) -> Option<i64> {
        let clocks = self.clocks.lock().unwrap_or_else(PoisonError::into_inner);
        clocks.get(&endpoint.to_string()).copied()
    }

    /// All of them, as configured.
    pub fn all(&self) -> &[Arc<Server>] {
        self.servers.all()
    }

    /// The one with this URL, if it still is one.
    pub fn named(&self, url: &str) -> Option<&Arc<Server>> {
        self.servers.all().iter().find(|server| server.endpoint().url == url)
    }

    /// Those that are well in the configured order, then the others as a last resort.
    pub fn candidates(&self) -> Vec<Arc<Server>> {
        self.servers.candidates(Instant::now())
    }

    /// Does something at the first front end that works: those that are well come first. The next one is tried when a
    /// front end cannot be reached or has trouble, but never after a request that it may have taken, unless
    /// `repeatable` says that doing it twice does no harm.
    ///
    /// # Errors
    /// The last front end's.
    pub async fn first<'a, T>(
        &'a self,
        repeatable: bool,
        work: impl Fn(Arc<Server>) -> BoxFuture<'a, Result<T, CaError>>,
    ) -> Result<T, CaError> {
        let mut last = None;
        for server in self.servers.candidates(Instant::now()) {
            let done = work(server.clone()).await;
            note(&server, &done);
            match done {
                Err(error) if error.is_servers_fault() && (repeatable || error.was_not_sent()) => {
                    tracing::debug!(server = %server.endpoint(), error = %Chain(&error), "A front end of an authority does not work");
                    last = Some(error);
                }
                done => return done,
            }
        }
        Err(last.unwrap_or_else(|| CaError::Settings { detail: "no front end is configured".to_owned() }))
    }

    /// Looks at all front ends at the same time and puts together what they show. One that works is enough: what is wrong
    /// with the others is in [`Seen::front_ends`], so that somebody hears of it before the last one fails.
    ///
    /// # Errors
    /// When none works: what a person has to mend rather than what may pass.
    pub async fn look<'a>(
        &'a self,
        look: impl Fn(Arc<Server>) -> BoxFuture<'a, Result<Seen, CaError>>,
    ) -> Result<Seen, CaError> {
        let looks = self.all().iter().map(|server| {
            let looking = timeout(limits::LOOK_WITHIN, look(server.clone()));
            async move {
                let seen = looking.await.unwrap_or_else(|_| Err(late(server.endpoint())));
                note(server, &seen);
                (server.endpoint().to_string(), seen)
            }
        });
        let (mut whole, mut worst) = (Seen::default(), None::<CaError>);
        let mut works = false;
        for (host, seen) in join_all(looks).await {
            match seen {
                Ok(seen) => {
                    works = true;
                    if !seen.front_ends.iter().any(|(named, _)| *named == host) {
                        whole.front_ends.push((host, None));
                    }
                    whole.merge(seen);
                }
                Err(error) => {
                    whole.front_ends.push((host, Some(Chain(&error).to_string())));
                    if worst.as_ref().is_none_or(CaError::is_servers_fault) {
                        worst = Some(error);
                    }
                }
            }
        }
        match worst {
            Some(error) if !works => Err(error),
            _ => Ok(Seen { clocks: self.clocks(), ..whole }),
        }
    }

    /// Asks for a page.
    ///
    /// # Errors
    /// When there is no answer; the answer's status is the caller's matter ([`success`]).
    pub async fn get(&self, net: &Net, endpoint: &Endpoint, who: Who) -> Result<Answer, CaError> {
        let ask = Ask { method: Method::GET, headers: HeaderMap::new(), body: Bytes::new() };
        self.send(net, endpoint, ask, who).await
    }

    /// Asks for a page without saying who we are, to see whether it would want to know. HEAD, and never with an account,
    /// because pages of challenges use one up for whoever may see them.
    ///
    /// # Errors
    /// As [`FrontEnds::get`].
    pub async fn probe(&self, net: &Net, endpoint: &Endpoint) -> Result<Answer, CaError> {
        let ask = Ask { method: Method::HEAD, headers: HeaderMap::new(), body: Bytes::new() };
        self.send(net, endpoint, ask, Who::Nobody).await
    }

    /// Posts a body of that type.
    ///
    /// # Errors
    /// As [`FrontEnds::get`].
    pub async fn post(
        &self,
        net: &Net,
        endpoint: &Endpoint,
        content_type: &'static str,
        body: impl Into<Bytes>,
        who: Who,
    ) -> Result<Answer, CaError> {
        let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(content_type))]);
        self.send(net, endpoint, Ask { method: Method::POST, headers, body: body.into() }, who).await
    }

    /// Sends any request.
    ///
    /// # Errors
    /// As [`FrontEnds::get`].
    pub async fn send(&self, net: &Net, endpoint: &Endpoint, ask: Ask, who: Who) -> Result<Answer, CaError> {
        let bounds = Bounds { within: limits::ANSWER_WITHIN, max_bytes: limits::ANSWER_MAX_BYTES };
        let answer = self.client.send(net, endpoint, ask, who, bounds).await;
        let answer = answer.map_err(|error| judged(endpoint, error))?;
        if let Some(date_ms) = date_ms(&answer.headers) {
            let mut clocks = self.clocks.lock().unwrap_or_else(PoisonError::into_inner);
            if clocks.len() < limits::CLOCKS_KEPT || clocks.contains_key(&endpoint.to_string()) {
                clocks.insert(endpoint.to_string(), date_ms - net.clock.now_ms());
            }
        }
        Ok(answer)
    }
}

fn late(endpoint: &Endpoint) -> CaError {
    let detail = format!("no answer within {} s", limits::LOOK_WITHIN.as_secs());
    CaError::Busy { host: endpoint.to_string(), detail, retry_after: None }
}

/// The circuit of a front end opens with what is its own fault.
pub fn note<T>(server: &Server, done: &Result<T, CaError>) {
    match done {
        Err(error) if error.is_servers_fault() => server.failed(Instant::now()),
        _ => server.succeeded(),
    }
}

/// Lets only answers with a status of success pass.
///
/// # Errors
/// What another status means, by itself.
pub fn success(endpoint: &Endpoint, answer: Answer) -> Result<Answer, CaError> {
    if answer.status.is_success() { Ok(answer) } else { Err(refusal(endpoint, &answer)) }
}

/// What a status that is no success means, by itself.
pub fn refusal(endpoint: &Endpoint, answer: &Answer) -> CaError {
    let host = endpoint.to_string();
    let status = answer.status.as_u16();
    match answer.status {
        StatusCode::UNAUTHORIZED => CaError::Credentials {
            detail: format!(
                "it wants to know who we are ({}), and no account is set",
                Client::offered(answer)
            ),
            host,
        },
        StatusCode::FORBIDDEN => {
            CaError::Forbidden { host, detail: format!("{} answers {status}", endpoint.path) }
        }
        status if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS => CaError::Busy {
            host,
            detail: format!("it answers {}", status.as_u16()),
            retry_after: retry_after(&answer.headers),
        },
        _ => CaError::Answer { host, detail: format!("{} answers {status}", endpoint.path) },
    }
}

/// Waits told by a server, or ours.
pub fn patience(told: Option<Duration>) -> Duration {
    told.unwrap_or(limits::BUSY_RETRY_AFTER)
}

fn judged(endpoint: &Endpoint, error: WebError) -> CaError {
    let host = endpoint.to_string();
    let detail = || Chain(&error).to_string();
    match &error {
        WebError::Auth(auth) if auth.is_about_account() => CaError::Credentials { host, detail: detail() },
        WebError::Auth(AuthError::NoScheme { .. }) => CaError::Credentials { host, detail: detail() },
        WebError::Key { .. } | WebError::Tls(_) => CaError::Settings { detail: detail() },
        WebError::Http(HttpError::TooLarge { .. } | HttpError::Encoded { .. }) => {
            CaError::Answer { host, detail: detail() }
        }
        WebError::Http(HttpError::BadRequest { .. }) => CaError::Settings { detail: detail() },
        WebError::Http(_) | WebError::Auth(_) => {
            CaError::Unreachable { host, sent: !error.was_not_sent(), source: error.into() }
        }
    }
}
