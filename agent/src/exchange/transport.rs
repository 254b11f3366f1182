//! Envelopes there and back: connect, sign in, seal, send; open, unseal, judge. One request in flight (MS-WSMV 3.1.4.1:
//! a context numbers its messages).

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use causeway_protocol::wsman::encryption::{self, Protocol};
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, LOCATION, USER_AGENT};
use http::{Method, StatusCode};
use rustls::ClientConfig;
use thiserror::Error;

use super::cookies::Cookies;
use super::settings::ExchangeSettings;
use super::{ExchangeError, limits};
use crate::chain::Chain;
use crate::dial::security::challenge::{Challenge, offered};
use crate::dial::security::{Credentials, Sealed, SecurityContext, SecurityContexts};
use crate::dial::tls::{self, TlsError, Trust};
use crate::dial::{Side, security};
use crate::directory::Net;
use crate::web::auth::{self, Accounts, Auth, AuthError, Names, NotShaken, Shaking, Way};
use crate::web::connection::{Answer, Connection, HttpError, retry_after};
use crate::web::endpoint::Endpoint;

/// Content type of an envelope (MS-WSMV 2.2.1).
const SOAP: &str = "application/soap+xml;charset=UTF-8";

/// What the sessions of one organisation share.
pub struct Common {
    pub(super) name: String,
    pub(super) settings: ExchangeSettings,
    pub(super) accounts: Accounts,
}

/// What one session reaches its server by.
#[derive(Clone)]
pub struct Means {
    pub(super) net: Net,
    pub(super) tls: Arc<ClientConfig>,
    pub(super) contexts: Arc<dyn SecurityContexts>,
}

impl Means {
    /// # Errors
    /// When the authorities of the settings cannot be read.
    pub(super) fn new(net: Net, settings: &ExchangeSettings) -> Result<Self, TlsError> {
        let trust = settings.ca_file.clone().map_or(Trust::System, Trust::File);
        let tls = tls::client_config_by(net.clock, &trust, None, &[b"http/1.1"])?;
        let contexts = Arc::from(security::system_contexts(net.dial.clone()));
        Ok(Self { net, tls, contexts })
    }
}

/// Carries the envelopes of one session with one server as one account.
pub struct Transport {
    common: Arc<Common>,
    means: Means,
    endpoint: Endpoint,
    user: String,
    secret: String,
    cookies: Cookies,
    link: Option<Link>,
}

/// A connection that is signed in.
struct Link {
    connection: Connection,
    signed: Signed,
}

enum Signed {
    /// Every request shows the password.
    Basic { value: HeaderValue, credentials: Credentials },
    /// The connection is signed in, and TLS protects what travels.
    Bound,
    /// The context seals what travels.
    Sealed { context: Box<dyn SecurityContext>, protocol: Protocol },
}

/// Why there is no envelope.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TransportError {
    /// Nobody is signed in.
    #[error(transparent)]
    Auth(#[from] AuthError),
    /// The connection.
    #[error(transparent)]
    Http(#[from] HttpError),
    /// The server sends us to another one.
    #[error("{server} sends the session on to {to}")]
    Redirected {
        /// Host and port.
        server: String,
        /// Where to.
        to: String,
    },
    /// It knows us and does not let us in.
    #[error(
        "{server} does not let {user} in ({status}): remote PowerShell may be off for the account, or its address not allowed"
    )]
    Forbidden {
        /// Host and port.
        server: String,
        /// Who.
        user: String,
        /// HTTP status.
        status: u16,
    },
    /// It has too much to do.
    #[error("{server} is busy ({status})")]
    Busy {
        /// Host and port.
        server: String,
        /// HTTP status.
        status: u16,
        /// When to come back, if it said so.
        retry_after: Option<Duration>,
    },
    /// Another status without an envelope.
    #[error("{server} answers {status} to {path}")]
    Status {
        /// Host and port.
        server: String,
        /// HTTP status.
        status: u16,
        /// The path asked for.
        path: String,
    },
    /// What came back is not what was sealed for us.
    #[error("an answer of {server} cannot be opened")]
    Unsealable {
        /// Host and port.
        server: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl TransportError {
    /// Whether the request can be sent again without being carried out twice.
    pub fn was_not_sent(&self) -> bool {
        matches!(self, Self::Http(error) if error.was_not_sent()) || matches!(self, Self::Auth(_))
    }

    /// Whether another server may do better.
    pub fn is_servers_fault(&self) -> bool {
        match self {
            Self::Http(error) => error.is_servers_fault(),
            Self::Auth(error) => !error.is_about_account(),
            Self::Busy { .. } | Self::Status { .. } | Self::Unsealable { .. } => true,
            Self::Redirected { .. } | Self::Forbidden { .. } => false,
        }
    }
}

/// The class of an error decides what the module does about it.
impl From<TransportError> for ExchangeError {
    fn from(error: TransportError) -> Self {
        let detail = Chain(&error).to_string();
        match error {
            TransportError::Auth(error) if error.is_about_account() => Self::Credentials { detail },
            TransportError::Http(HttpError::Encoded { .. } | HttpError::TooLarge { .. })
            | TransportError::Unsealable { .. } => Self::Protocol { detail },
            TransportError::Forbidden { .. } => Self::Forbidden { detail },
            TransportError::Busy { retry_after, .. } => Self::Throttled { detail, retry_after },
            TransportError::Auth(_)
            | TransportError::Http(_)
            | TransportError::Redirected { .. }
            | TransportError::Status { .. } => Self::Unreachable { detail },
        }
    }
}

impl Transport {
    /// For a session with this server as this account. Opens nothing yet.
    pub fn new(common: Arc<Common>, means: Means, endpoint: Endpoint, account: usize) -> Self {
        let user = common.settings.accounts.get(account).map(|account| account.user.clone());
        let secret = common.settings.password_name(&common.name, account);
        let user = user.unwrap_or_default();
        Self { common, means, endpoint, user, secret, cookies: Cookies::default(), link: None }
    }

    /// Where it leads.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Who we are there.
    pub fn user(&self) -> &str {
        &self.user
    }

    /// Sends an envelope and gives back the answer's. A connection found closed is opened again, and a session at the
    /// server that has ended is signed in to once more; nothing else is repeated.
    ///
    /// # Errors
    /// See [`TransportError::was_not_sent`].
    pub async fn post(&mut self, envelope: &[u8], within: Duration) -> Result<Vec<u8>, TransportError> {
        let mut again = true;
        loop {
            let answered = match self.link.take().filter(|link| link.connection.is_open()) {
                Some(link) => self.send(link, envelope, within).await,
                None => match self.sign_in(envelope, within).await? {
                    (link, Some(answer)) => Ok((link, answer)),
                    (link, None) => self.send(link, envelope, within).await,
                },
            };
            let (mut link, answer) = match answered {
                Ok(answered) => answered,
                Err(error) if again && error.was_not_sent() => {
                    again = false;
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            if answer.status == StatusCode::UNAUTHORIZED {
                self.unauthorized(&link.signed, &mut again)?;
                continue;
            }
            self.cookies.note(&answer.headers);
            let envelope = self.open(&mut link, answer)?;
            self.link = Some(link);
            return Ok(envelope);
        }
    }

    /// A 401 in the middle of a session. A context may have ended, and the new one is judged for itself; the same
    /// password is not shown twice.
    fn unauthorized(&self, signed: &Signed, again: &mut bool) -> Result<(), AuthError> {
        let refused = |scheme| AuthError::Refused {
            server: self.endpoint.to_string(),
            user: self.user.clone(),
            scheme,
        };
        if let Signed::Basic { credentials, .. } = signed {
            self.common.accounts.refused(credentials);
            let newest = self.common.accounts.credentials(&self.user, &self.secret);
            if !*again || newest.is_err() {
                return Err(refused(Auth::Basic));
            }
        }
        if !std::mem::take(again) {
            return Err(AuthError::Broken {
                server: self.endpoint.to_string(),
                scheme: Auth::Negotiate,
                why: "it asks again right after it has accepted us".into(),
            });
        }
        Ok(())
    }

    async fn send(
        &mut self,
        mut link: Link,
        envelope: &[u8],
        within: Duration,
    ) -> Result<(Link, Answer), HttpError> {
        let mut headers = self.headers();
        let body = match &mut link.signed {
            Signed::Bound => Bytes::copy_from_slice(envelope),
            Signed::Basic { value, .. } => {
                headers.insert(AUTHORIZATION, value.clone());
                Bytes::copy_from_slice(envelope)
            }
            Signed::Sealed { context, protocol } => {
                // A context that cannot seal is as good as a connection that has ended.
                let closed = |_| HttpError::Closed { server: self.endpoint.to_string() };
                let sealed = context.seal(envelope).map_err(closed)?;
                let content_type = HeaderValue::from_str(&protocol.content_type());
                headers.insert(CONTENT_TYPE, content_type.expect("our own content type is ASCII"));
                // Padding counts (MS-WSMV 2.2.9.1.1.2.2); sealing itself keeps the length.
                let (protocol, plain_bytes) = (*protocol, sealed.body.len());
                let framed =
                    encryption::Sealed { protocol, plain_bytes, token: &sealed.token, content: &sealed.body };
                Bytes::from(framed.write())
            }
        };
        let max = limits::WSMAN_BODY_MAX_BYTES;
        let answer = link.connection.post(&self.endpoint, headers, body, within, max).await?;
        Ok((link, answer))
    }

    fn headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(SOAP));
        headers.insert(USER_AGENT, HeaderValue::from_static(concat!("causeway/", env!("CARGO_PKG_VERSION"))));
        headers.extend(self.cookies.header(&self.endpoint.path, self.endpoint.tls));
        headers
    }

    /// Connects and signs in; may bring the answer to the envelope along.
    async fn sign_in(
        &mut self,
        envelope: &[u8],
        within: Duration,
    ) -> Result<(Link, Option<Answer>), TransportError> {
        let common = self.common.clone();
        // Checked before anything is opened: a held account must not even knock.
        let mut credentials = common.accounts.credentials(&self.user, &self.secret)?;
        let mut turn = None;
        if !common.accounts.is_proved(&self.user) {
            turn = Some(common.accounts.proving.lock().await);
            // Whoever was before us may have been refused meanwhile.
            credentials = common.accounts.credentials(&self.user, &self.secret)?;
        }
        let (connection, challenges) = self.knock().await?;
        let signed = self.by_any(connection, &challenges, &credentials, envelope, within).await;
        match &signed {
            // Marked where the password was shown.
            Ok((Link { signed: Signed::Basic { .. }, .. }, _)) => {}
            Ok(_) => common.accounts.accepted(&self.user),
            Err(TransportError::Auth(AuthError::Refused { .. } | AuthError::RefusedByDirectory { .. })) => {
                common.accounts.refused(&credentials);
            }
            Err(_) => {}
        }
        drop(turn);
        signed
    }

    async fn connect(&self) -> Result<Connection, HttpError> {
        Connection::open(&self.means.net, Side::Inside, &self.endpoint, &self.means.tls).await
    }

    /// Asks what the server offers.
    async fn knock(&mut self) -> Result<(Connection, Vec<Challenge>), TransportError> {
        let mut connection = self.connect().await?;
        let mut headers = self.headers();
        headers.remove(CONTENT_TYPE);
        let max = limits::WSMAN_BODY_MAX_BYTES;
        let within = limits::SIGN_IN_WITHIN;
        let answer = connection.post(&self.endpoint, headers, Bytes::new(), within, max).await?;
        self.cookies.note(&answer.headers);
        let challenges = auth::challenges(&answer.headers);
        if answer.status == StatusCode::UNAUTHORIZED {
            return Ok((connection, challenges));
        }
        Err(self.judged(&answer))
    }

    /// The schemes a server offers; for the doctor.
    ///
    /// # Errors
    /// When it does not even ask who we are.
    pub async fn offered(&mut self) -> Result<String, TransportError> {
        Ok(offered(&self.knock().await?.1))
    }

    async fn by_any(
        &mut self,
        connection: Connection,
        challenges: &[Challenge],
        credentials: &Credentials,
        envelope: &[u8],
        within: Duration,
    ) -> Result<(Link, Option<Answer>), TransportError> {
        let common = self.common.clone();
        let (ways, mut why) = auth::ways(&common.settings.auth, challenges, self.endpoint.tls);
        let mut connection = Some(connection);
        for way in ways {
            let mut open = match connection.take().filter(Connection::is_open) {
                Some(open) => open,
                None => self.connect().await?,
            };
            let Some(package) = way.package else {
                return self.by_basic(open, credentials, envelope, within).await;
            };
            let with = Shaking {
                endpoint: &self.endpoint,
                names: Names {
                    spn_class: &common.settings.spn_class,
                    realm: common.settings.kerberos_realm.as_deref(),
                    kdcs: &common.settings.kerberos_kdcs,
                },
                contexts: &*self.means.contexts,
                credentials,
                headers: self.headers(),
                method: Method::POST,
                body: Bytes::copy_from_slice(envelope),
                seal: !self.endpoint.tls,
                within,
                max_bytes: limits::WSMAN_BODY_MAX_BYTES,
            };
            match auth::shake(&with, &mut open, way, package).await {
                Ok(shaken) => {
                    let signed = self.signed(way, shaken.context);
                    return Ok((Link { connection: open, signed }, shaken.answer));
                }
                Err(NotShaken::Final(error)) => return Err(error.into()),
                Err(NotShaken::Another(reason)) => {
                    tracing::debug!(server = %self.endpoint, scheme = %way.auth, reason, "A way to sign in does not work");
                    why.push(format!("{}: {reason}", way.auth));
                    connection = Some(open);
                }
            }
        }
        let why = if why.is_empty() { "nothing is configured".to_owned() } else { why.join("; ") };
        let (server, offered) = (self.endpoint.to_string(), offered(challenges));
        Err(AuthError::NoScheme { server, offered, why }.into())
    }

    /// Shows the password, once, and keeps the turn until it is judged.
    async fn by_basic(
        &mut self,
        connection: Connection,
        credentials: &Credentials,
        envelope: &[u8],
        within: Duration,
    ) -> Result<(Link, Option<Answer>), TransportError> {
        let signed = Signed::Basic { value: auth::basic(credentials), credentials: credentials.clone() };
        let (link, answer) = self.send(Link { connection, signed }, envelope, within).await?;
        if answer.status == StatusCode::UNAUTHORIZED {
            return Err(AuthError::Refused {
                server: self.endpoint.to_string(),
                user: self.user.clone(),
                scheme: Auth::Basic,
            }
            .into());
        }
        self.common.accounts.accepted(&self.user);
        Ok((link, Some(answer)))
    }

    fn signed(&self, way: Way, context: Box<dyn SecurityContext>) -> Signed {
        if self.endpoint.tls {
            return Signed::Bound;
        }
        let protocol = if way.header == "Kerberos" { Protocol::Kerberos } else { Protocol::Spnego };
        Signed::Sealed { context, protocol }
    }

    /// The envelope inside an answer.
    fn open(&self, link: &mut Link, answer: Answer) -> Result<Vec<u8>, TransportError> {
        let content_type = answer.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let content_type = content_type.unwrap_or_default().to_owned();
        let says = |what: &str| content_type.to_ascii_lowercase().starts_with(what);
        // Faults come with 4xx and 5xx, so the status says nothing where there is an envelope.
        let usable = answer.status == StatusCode::OK || answer.status.as_u16() >= 400;
        match &mut link.signed {
            Signed::Sealed { context, .. }
                if usable && Protocol::of_content_type(&content_type).is_some() =>
            {
                self.unsealed(&mut **context, &answer.body)
            }
            // Over plain http only what is sealed comes from the server we signed in to.
            Signed::Sealed { .. } => Err(self.judged(&answer)),
            Signed::Basic { .. } | Signed::Bound
                if usable && says("application/soap+xml") && !answer.body.is_empty() =>
            {
                Ok(answer.body.to_vec())
            }
            Signed::Basic { .. } | Signed::Bound => Err(self.judged(&answer)),
        }
    }

    fn unsealed(&self, context: &mut dyn SecurityContext, body: &[u8]) -> Result<Vec<u8>, TransportError> {
        let failed = |source: Box<dyn std::error::Error + Send + Sync>| TransportError::Unsealable {
            server: self.endpoint.to_string(),
            source,
        };
        let framed = encryption::Sealed::read(body).map_err(|error| failed(error.into()))?;
        let sealed = Sealed { token: framed.token.to_vec(), body: framed.content.to_vec() };
        let envelope = context.unseal(sealed).map_err(|error| failed(error.into()))?;
        Ok(envelope)
    }

    /// What an answer without an envelope means.
    fn judged(&self, answer: &Answer) -> TransportError {
        let server = self.endpoint.to_string();
        let status = answer.status.as_u16();
        match answer.status {
            status if status.is_redirection() => {
                let to = answer.headers.get(LOCATION).and_then(|value| value.to_str().ok());
                match to {
                    Some(to) => TransportError::Redirected { server, to: to.to_owned() },
                    None => self.unexpected(status.as_u16()),
                }
            }
            StatusCode::FORBIDDEN => TransportError::Forbidden { server, user: self.user.clone(), status },
            StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::TOO_MANY_REQUESTS
            | StatusCode::BAD_GATEWAY
            | StatusCode::GATEWAY_TIMEOUT => {
                TransportError::Busy { server, status, retry_after: retry_after(&answer.headers) }
            }
            _ => self.unexpected(status),
        }
    }

    fn unexpected(&self, status: u16) -> TransportError {
        TransportError::Status { server: self.endpoint.to_string(), status, path: self.endpoint.path.clone() }
    }
}
