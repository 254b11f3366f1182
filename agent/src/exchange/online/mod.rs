//! Exchange Online: cmdlets by the REST API that Microsoft's own PowerShell module uses. It is no documented contract,
//! so nothing outside this folder knows of it.

mod json;
#[cfg(test)]
mod tests;
mod token;

use std::sync::Arc;

use bytes::Bytes;
use causeway_protocol::Secret;
use causeway_protocol::clixml::Object;
use causeway_protocol::cmdlet::{Cmdlet, Completed};
use futures_util::future::BoxFuture;
use http::StatusCode;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, USER_AGENT};
use rustls::ClientConfig;
use serde_json::Value;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use self::token::{Token, TokenError, Tokens};
use super::settings::ExchangeSettings;
use super::{Exchange, ExchangeError, ServerFacts, Session, Urgency, limits};
use crate::chain::Chain;
use crate::dial::Side;
use crate::dial::tls::{self, Trust};
use crate::directory::Net;
use crate::random::RandomSource;
use crate::secrets::SecretStore;
use crate::web::connection::{Answer, Connection, HttpError, retry_after};
use crate::web::endpoint::Endpoint;

/// What routes a request of an application to a server of the tenant.
const ANCHOR: &str = "APP:SystemMailbox{bb558c35-97f1-4cb9-8ff7-d53741dc928c}@";

/// A tenant of Exchange Online.
pub struct Online(Arc<Tenant>);

struct Tenant {
    settings: Arc<ExchangeSettings>,
    tokens: Tokens,
    /// `InvokeCommand` of the tenant.
    endpoint: Endpoint,
    sessions: Arc<Semaphore>,
}

struct OnlineSession {
    tenant: Arc<Tenant>,
    net: Net,
    tls: Arc<ClientConfig>,
    connection: Option<Connection>,
    _permit: OwnedSemaphorePermit,
}

impl Online {
    /// From checked settings.
    pub(super) fn new(
        name: &str,
        settings: ExchangeSettings,
        secrets: SecretStore,
        random: RandomSource,
    ) -> Result<Self, String> {
        let base = settings.rest_url.trim_end_matches('/');
        let endpoint = Endpoint::read(&format!("{base}/{}/InvokeCommand", settings.tenant))?;
        let token_endpoint = Endpoint::read(&settings.token_url())?;
        let settings = Arc::new(settings);
        let tokens = Tokens::new(settings.clone(), settings.key_name(name), secrets, random, token_endpoint);
        let sessions = Arc::new(Semaphore::new(settings.sessions_max));
        Ok(Self(Arc::new(Tenant { settings, tokens, endpoint, sessions })))
    }
}

impl Online {
    fn tls(&self, net: &Net) -> Result<Arc<ClientConfig>, ExchangeError> {
        let trust = self.0.settings.ca_file.clone().map_or(Trust::System, Trust::File);
        tls::client_config_by(net.clock, &trust, None, &[b"http/1.1"])
            .map_err(|error| ExchangeError::Unreachable { detail: Chain(&error).to_string() })
    }

    /// Where cmdlets go.
    pub(super) fn endpoint(&self) -> &Endpoint {
        &self.0.endpoint
    }
}

impl Exchange for Online {
    fn open(&self, net: Net, _urgency: Urgency) -> BoxFuture<'_, Result<Box<dyn Session>, ExchangeError>> {
        Box::pin(async move {
            let permit = self.0.sessions.clone().acquire_owned().await;
            let permit = permit.map_err(|_| ExchangeError::Stopped)?;
            let tls = self.tls(&net)?;
            // A refused application shows itself here and not in the middle of a scan.
            self.0.tokens.get(&net, &tls, None).await?;
            let tenant = self.0.clone();
            let session = OnlineSession { tenant, net, tls, connection: None, _permit: permit };
            Ok(Box::new(session) as Box<dyn Session>)
        })
    }
}

impl Session for OnlineSession {
    fn run<'a>(
        &'a mut self,
        cmdlet: &'a Cmdlet,
        objects: mpsc::Sender<Object>,
    ) -> BoxFuture<'a, Result<Completed, ExchangeError>> {
        Box::pin(async move {
            let body = Bytes::from(json::cmdlet_input(cmdlet).to_string());
            let mut completed = Completed::default();
            let mut at = self.tenant.endpoint.clone();
            for _ in 0..limits::REST_PAGES_MAX {
                let page = tokio::select! {
                    page = self.page(cmdlet, &at, &body) => page?,
                    () = objects.closed() => return Err(ExchangeError::Stopped),
                };
                let mut page = match page {
                    Ok(page) => page,
                    Err(failure) => {
                        completed.failure = Some(failure);
                        return Ok(completed);
                    }
                };
                completed.warnings.extend(page.warnings);
                completed.warnings.truncate(limits::RECORDS_MAX);
                for value in page.values.drain(..) {
                    if objects.send(json::object(value)).await.is_err() {
                        return Err(ExchangeError::Stopped);
                    }
                }
                match page.next {
                    Some(next) => at = self.next(&next)?,
                    None => return Ok(completed),
                }
            }
            Err(ExchangeError::Protocol {
                detail: format!("{at} has more than {} pages for {}", limits::REST_PAGES_MAX, cmdlet.name),
            })
        })
    }

    fn server(&self) -> ServerFacts {
        ServerFacts { host: self.tenant.endpoint.host.clone(), online: true }
    }

    fn close(self: Box<Self>) -> BoxFuture<'static, ()> {
        // Nothing is kept at the server between requests.
        Box::pin(async {})
    }
}

/// One page of a cmdlet's objects.
struct Page {
    values: Vec<Value>,
    warnings: Vec<String>,
    next: Option<String>,
}

impl OnlineSession {
    /// Gets one page, patiently: a scan of many pages does not begin anew because one of them has to wait. The inner
    /// error is the cmdlet's own.
    async fn page(
        &mut self,
        cmdlet: &Cmdlet,
        at: &Endpoint,
        body: &Bytes,
    ) -> Result<Result<Page, causeway_protocol::cmdlet::ErrorRecord>, ExchangeError> {
        let mut waits = 0;
        let mut renewed = false;
        let mut spent: Option<Token> = None;
        loop {
            let token = self.tenant.tokens.get(&self.net, &self.tls, spent.as_ref()).await?;
            let answer = self.post(cmdlet, at, body, &token).await?;
            let status = answer.status;
            match status {
                StatusCode::OK => return self.read(&answer).map(Ok),
                StatusCode::UNAUTHORIZED if !renewed => {
                    renewed = true;
                    spent = Some(token);
                }
                StatusCode::UNAUTHORIZED => {
                    return Err(ExchangeError::Credentials {
                        detail: format!(
                            "{at} does not take a fresh token of application {}: it may lack the permission \
                             Exchange.ManageAsApp or a role in the tenant",
                            self.tenant.settings.client_id
                        ),
                    });
                }
                StatusCode::FORBIDDEN => {
                    let error = json::error(&answer.body).unwrap_or_default();
                    // A cmdlet that no role gives does not exist, here as over remoting.
                    if error.reason.contains("CommandNotFound") {
                        return Ok(Err(error));
                    }
                    return Err(ExchangeError::Forbidden {
                        detail: format!("{at} forbids {}: {}", cmdlet.name, error.message),
                    });
                }
                StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
                    let told = retry_after(&answer.headers);
                    waits += 1;
                    let pause = told.unwrap_or(limits::REST_PAUSE * waits);
                    if waits > limits::REST_WAITS_MAX || pause > limits::PACE_MAX {
                        return Err(ExchangeError::Throttled {
                            detail: format!("{at} wants fewer requests ({})", status.as_u16()),
                            retry_after: told,
                        });
                    }
                    tracing::info!(%at, pause_ms = pause.as_millis(), "Exchange Online wants fewer requests");
                    tokio::time::sleep(pause).await;
                }
                _ => {
                    return match json::error(&answer.body) {
                        Some(error) => Ok(Err(error)),
                        None => Err(ExchangeError::Unreachable {
                            detail: format!("{at} answers {} to {}", status.as_u16(), cmdlet.name),
                        }),
                    };
                }
            }
        }
    }

    async fn post(
        &mut self,
        cmdlet: &Cmdlet,
        at: &Endpoint,
        body: &Bytes,
        token: &Token,
    ) -> Result<Answer, ExchangeError> {
        let headers = self.headers(cmdlet, token);
        let (within, max) = (limits::REST_WITHIN, limits::REST_BODY_MAX_BYTES);
        // A kept connection may have been closed meanwhile; the second one is fresh.
        for _ in 0..2 {
            let mut connection = match self.connection.take().filter(Connection::is_open) {
                Some(connection) => connection,
                None => Connection::open(&self.net, Side::Outside, at, &self.tls).await.map_err(reach)?,
            };
            match connection.post(at, headers.clone(), body.clone(), within, max).await {
                Ok(answer) => {
                    self.connection = Some(connection);
                    return Ok(answer);
                }
                Err(error) if error.was_not_sent() => {}
                Err(error) => return Err(reach(error)),
            }
        }
        Err(ExchangeError::Unreachable { detail: format!("{at} closes every connection") })
    }

    fn headers(&self, cmdlet: &Cmdlet, token: &Token) -> HeaderMap {
        let tenant = &self.tenant;
        let bearer = Secret::new(format!("Bearer {}", token.text.expose()));
        let mut headers = HeaderMap::new();
        let mut set = |name: HeaderName, text: &str| {
            if let Ok(value) = HeaderValue::from_str(text) {
                headers.insert(name, value);
            }
        };
        set(AUTHORIZATION, bearer.expose());
        set(CONTENT_TYPE, "application/json; charset=utf-8");
        set(USER_AGENT, concat!("causeway/", env!("CARGO_PKG_VERSION")));
        set(HeaderName::from_static("prefer"), &format!("odata.maxpagesize={}", limits::REST_PAGE_OBJECTS));
        set(HeaderName::from_static("x-anchormailbox"), &format!("{ANCHOR}{}", tenant.settings.tenant));
        set(HeaderName::from_static("x-cmdletname"), &cmdlet.name);
        set(HeaderName::from_static("x-responseformat"), "json");
        if let Some(bearer) = headers.get_mut(AUTHORIZATION) {
            bearer.set_sensitive(true);
        }
        headers
    }

    fn read(&self, answer: &Answer) -> Result<Page, ExchangeError> {
        let wrong = |what: &str| ExchangeError::Protocol {
            detail: format!("{} answers {what}", self.tenant.endpoint),
        };
        let body: Value =
            serde_json::from_slice(&answer.body).map_err(|_| wrong("something that is no JSON"))?;
        let Value::Object(mut fields) = body else { return Err(wrong("JSON without an object")) };
        let values = match fields.remove("value") {
            Some(Value::Array(values)) => values,
            Some(Value::Null) | None => Vec::new(),
            Some(_) => return Err(wrong("a value that is no list")),
        };
        let texts = |value: Value| match value {
            Value::Array(texts) => texts,
            other => vec![other],
        };
        let warnings = fields.remove("@adminapi.warnings").map(texts).unwrap_or_default();
        let warnings = warnings.into_iter().filter_map(|text| text.as_str().map(str::to_owned)).collect();
        let next = fields.get("@odata.nextLink").and_then(Value::as_str).map(str::to_owned);
        Ok(Page { values, warnings, next })
    }

    /// The next page must lie where we are: our token is for nobody else.
    fn next(&self, link: &str) -> Result<Endpoint, ExchangeError> {
        let here = &self.tenant.endpoint;
        match Endpoint::read(link) {
            Ok(next)
                if next.host.eq_ignore_ascii_case(&here.host)
                    && (next.tls, next.port) == (here.tls, here.port) =>
            {
                Ok(next)
            }
            _ => {
                let link: String = link.chars().take(limits::TEXT_MAX_CHARS).collect();
                Err(ExchangeError::Protocol { detail: format!("{here} names a next page elsewhere: {link}") })
            }
        }
    }
}

fn reach(error: HttpError) -> ExchangeError {
    let detail = Chain(&error).to_string();
    match error {
        HttpError::Encoded { .. } | HttpError::TooLarge { .. } => ExchangeError::Protocol { detail },
        _ => ExchangeError::Unreachable { detail },
    }
}

impl From<TokenError> for ExchangeError {
    fn from(error: TokenError) -> Self {
        let detail = Chain(&error).to_string();
        match error {
            TokenError::Busy { retry_after: Some(after), .. } => {
                Self::Throttled { detail, retry_after: Some(after) }
            }
            TokenError::Busy { .. } | TokenError::Http(_) | TokenError::Unexpected { .. } => {
                Self::Unreachable { detail }
            }
            TokenError::Certificate(_)
            | TokenError::Key { .. }
            | TokenError::NoKey { .. }
            | TokenError::Held { .. }
            | TokenError::Refused { .. } => Self::Credentials { detail },
        }
    }
}
