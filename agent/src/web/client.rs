//! A client of the servers of one system: signs in where they ask who we are, and keeps connections open, because NTLM
//! signs in a connection and not a request (MS-NTHT 3.2.5.1).

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use causeway_protocol::Secret;
use http::StatusCode;
use http::header::{AUTHORIZATION, HeaderValue, USER_AGENT};
use rustls::ClientConfig;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use thiserror::Error;
use tokio::time::Instant;

use super::auth::{self, Accounts, Auth, AuthError, Names, NotShaken, Shaking};
use super::connection::{Answer, Ask, Connection, HttpError};
use super::endpoint::Endpoint;
use super::limits;
use crate::dial::Side;
use crate::dial::security::challenge::offered;
use crate::dial::security::{self, Credentials, SecurityContexts};
use crate::dial::tls::{self, OwnCertificate, TlsError, Trust, read_certificates};
use crate::directory::Net;
use crate::secrets::SecretStore;

/// Who we are to the servers of a system, and whom we trust.
#[derive(Clone, Debug)]
pub struct Manner {
    /// User name, and the name of the secret with the password. Without: nobody in particular.
    pub account: Option<(String, String)>,
    /// Ways to sign in, the first one that the server offers.
    pub auth: Vec<Auth>,
    /// Class of the servers' service principal names.
    pub spn_class: String,
    /// Kerberos realm of the account, where it is not in the user name.
    pub kerberos_realm: Option<String>,
    /// KDCs of that realm, where they are not in DNS.
    pub kerberos_kdcs: Vec<String>,
    /// Who may sign the servers' certificates.
    pub trust: Trust,
    /// PEM file with our own certificate, and the name of the secret with its key.
    pub certificate: Option<(PathBuf, String)>,
}

/// As whom a request is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// As nobody in particular: what the server asks for is not given.
    Nobody,
    /// As the account, if there is one and the server asks.
    Account,
}

/// How much of the server's time and words we take.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// For one answer.
    pub within: Duration,
    /// Of one answer's body.
    pub max_bytes: usize,
}

/// Why there is no answer.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum WebError {
    /// Nobody is signed in.
    #[error(transparent)]
    Auth(#[from] AuthError),
    /// The connection.
    #[error(transparent)]
    Http(#[from] HttpError),
    /// Nobody is trusted, or our own certificate cannot be used.
    #[error("prepare TLS")]
    Tls(#[from] TlsError),
    /// The key of our own certificate is missing or is none.
    #[error("the secret {name} is not the key of our certificate in PEM form")]
    Key {
        /// Name of the secret.
        name: String,
    },
}

impl WebError {
    /// Whether the server cannot have acted on the request.
    pub fn was_not_sent(&self) -> bool {
        match self {
            Self::Http(error) => error.was_not_sent(),
            // A request that the server refuses to look at before it knows us has no effect.
            Self::Auth(AuthError::Http(error)) => error.was_not_sent(),
            Self::Auth(_) | Self::Tls(_) | Self::Key { .. } => true,
        }
    }
}

/// Talks to the servers of one system.
pub struct Client {
    manner: Manner,
    accounts: Accounts,
    /// With the key it was made with.
    tls: Mutex<Option<(Option<Secret>, Arc<ClientConfig>)>>,
    idle: Mutex<Vec<Idle>>,
}

struct Idle {
    authority: String,
    who: Who,
    since: Instant,
    link: Link,
}

struct Link {
    connection: Connection,
    signed: Signed,
}

enum Signed {
    /// Nobody has asked who we are.
    No,
    /// The connection is signed in.
    Bound,
    /// Every request shows the password.
    Basic { value: HeaderValue, credentials: Credentials },
}

impl Client {
    /// Opens nothing yet.
    pub fn new(manner: Manner, secrets: SecretStore) -> Self {
        Self { manner, accounts: Accounts::new(secrets), tls: Mutex::default(), idle: Mutex::default() }
    }

    /// Sends a request and reads its answer, whatever its status is. A connection found closed before the request went
    /// out is opened again; nothing else is repeated.
    ///
    /// # Errors
    /// See [`WebError::was_not_sent`].
    pub async fn send(
        &self,
        net: &Net,
        endpoint: &Endpoint,
        mut ask: Ask,
        who: Who,
        bounds: Bounds,
    ) -> Result<Answer, WebError> {
        let agent = HeaderValue::from_static(concat!("causeway/", env!("CARGO_PKG_VERSION")));
        ask.headers.entry(USER_AGENT).or_insert(agent);
        let who = if self.manner.account.is_some() { who } else { Who::Nobody };
        if who == Who::Account {
            // A held account must not even knock.
            self.credentials()?;
        }
        let (mut link, kept) = match self.lend(endpoint, who) {
            Some(link) => (link, true),
            None => (self.connect(net, endpoint).await?, false),
        };
        let mut answered = link.send(endpoint, ask.clone(), bounds).await;
        if kept && answered.as_ref().is_err_and(HttpError::was_not_sent) {
            link = self.connect(net, endpoint).await?;
            answered = link.send(endpoint, ask.clone(), bounds).await;
        }
        let answer = answered?;
        if answer.status != StatusCode::UNAUTHORIZED || who == Who::Nobody {
            self.keep(endpoint, who, link);
            return Ok(answer);
        }
        match &link.signed {
            Signed::Basic { credentials, .. } => {
                self.accounts.refused(credentials);
                Err(self.refused(endpoint, Auth::Basic).into())
            }
            // The connection's context has ended: the new one begins on a new connection, for itself.
            Signed::Bound => {
                let fresh = self.connect(net, endpoint).await?;
                self.sign_in(net, endpoint, fresh, &answer, &ask, bounds).await
            }
            Signed::No => self.sign_in(net, endpoint, link, &answer, &ask, bounds).await,
        }
    }

    /// The schemes a server offers in this answer, for people.
    pub fn offered(answer: &Answer) -> String {
        offered(&auth::challenges(&answer.headers))
    }

    fn credentials(&self) -> Result<Credentials, AuthError> {
        let (user, secret) = self.manner.account.as_ref().expect("asked for only with an account");
        self.accounts.credentials(user, secret)
    }

    fn refused(&self, endpoint: &Endpoint, scheme: Auth) -> AuthError {
        let user = self.manner.account.as_ref().map(|(user, _)| user.clone()).unwrap_or_default();
        AuthError::Refused { server: endpoint.to_string(), user, scheme }
    }

    async fn sign_in(
        &self,
        net: &Net,
        endpoint: &Endpoint,
        link: Link,
        asked: &Answer,
        ask: &Ask,
        bounds: Bounds,
    ) -> Result<Answer, WebError> {
        let mut credentials = self.credentials()?;
        let mut turn = None;
        if !self.accounts.is_proved(&credentials.username) {
            turn = Some(self.accounts.proving.lock().await);
            // Whoever was before us may have been refused meanwhile.
            credentials = self.credentials()?;
        }
        let signed = self.by_any(net, endpoint, link, asked, ask, &credentials, bounds).await;
        match &signed {
            Ok(_) => self.accounts.accepted(&credentials.username),
            Err(WebError::Auth(AuthError::Refused { .. } | AuthError::RefusedByDirectory { .. })) => {
                self.accounts.refused(&credentials);
            }
            Err(_) => {}
        }
        drop(turn);
        let (link, answer) = signed?;
        self.keep(endpoint, Who::Account, link);
        Ok(answer)
    }

    #[expect(clippy::too_many_arguments, reason = "all of one request, and it has one caller")]
    async fn by_any(
        &self,
        net: &Net,
        endpoint: &Endpoint,
        link: Link,
        asked: &Answer,
        ask: &Ask,
        credentials: &Credentials,
        bounds: Bounds,
    ) -> Result<(Link, Answer), WebError> {
        let challenges = auth::challenges(&asked.headers);
        let (ways, mut why) = auth::ways(&self.manner.auth, &challenges, endpoint.tls);
        let contexts: Box<dyn SecurityContexts> = security::system_contexts(net.dial.clone());
        let mut connection = Some(link.connection);
        for way in ways {
            let mut open = match connection.take().filter(Connection::is_open) {
                Some(open) => open,
                None => self.connect(net, endpoint).await?.connection,
            };
            let Some(package) = way.package else {
                let signed =
                    Signed::Basic { value: auth::basic(credentials), credentials: credentials.clone() };
                let mut link = Link { connection: open, signed };
                let answer = link.send(endpoint, ask.clone(), bounds).await?;
                if answer.status == StatusCode::UNAUTHORIZED {
                    return Err(self.refused(endpoint, Auth::Basic).into());
                }
                return Ok((link, answer));
            };
            let with = Shaking {
                endpoint,
                names: self.names(),
                contexts: &*contexts,
                credentials,
                headers: ask.headers.clone(),
                method: ask.method.clone(),
                body: ask.body.clone(),
                seal: false,
                within: bounds.within,
                max_bytes: bounds.max_bytes,
            };
            match auth::shake(&with, &mut open, way, package).await {
                Ok(shaken) => {
                    let mut link = Link { connection: open, signed: Signed::Bound };
                    let answer = match shaken.answer {
                        Some(answer) => answer,
                        None => link.send(endpoint, ask.clone(), bounds).await?,
                    };
                    return Ok((link, answer));
                }
                Err(NotShaken::Final(error)) => return Err(error.into()),
                Err(NotShaken::Another(reason)) => {
                    tracing::debug!(server = %endpoint, scheme = %way.auth, reason, "A way to sign in does not work");
                    why.push(format!("{}: {reason}", way.auth));
                    connection = Some(open);
                }
            }
        }
        let why = if why.is_empty() { "nothing is configured".to_owned() } else { why.join("; ") };
        let (server, offered) = (endpoint.to_string(), offered(&challenges));
        Err(AuthError::NoScheme { server, offered, why }.into())
    }

    fn names(&self) -> Names<'_> {
        Names {
            spn_class: &self.manner.spn_class,
            realm: self.manner.kerberos_realm.as_deref(),
            kdcs: &self.manner.kerberos_kdcs,
        }
    }

    async fn connect(&self, net: &Net, endpoint: &Endpoint) -> Result<Link, WebError> {
        let config = self.config(net)?;
        let connection = Connection::open(net, Side::Inside, endpoint, &config).await?;
        Ok(Link { connection, signed: Signed::No })
    }

    /// Made again when somebody has stored another key.
    fn config(&self, net: &Net) -> Result<Arc<ClientConfig>, WebError> {
        let key = match &self.manner.certificate {
            Some((_, name)) => match self.accounts.secrets().newest(name) {
                Some(key) => Some(key),
                None => return Err(WebError::Key { name: name.clone() }),
            },
            None => None,
        };
        let expose = |key: &Option<Secret>| key.as_ref().map(|key| key.expose().to_owned());
        let mut kept = self.tls.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((with, config)) = &*kept
            && expose(with).map(zeroize::Zeroizing::new) == expose(&key).map(zeroize::Zeroizing::new)
        {
            return Ok(config.clone());
        }
        let own = match (&self.manner.certificate, &key) {
            (Some((file, name)), Some(key)) => {
                let chain = read_certificates(file)?;
                let key = PrivateKeyDer::from_pem_slice(key.expose().as_bytes())
                    .map_err(|_| WebError::Key { name: name.clone() })?;
                Some(OwnCertificate { chain, key })
            }
            _ => None,
        };
        let config = tls::client_config_by(net.clock, &self.manner.trust, own, &[b"http/1.1"])?;
        *kept = Some((key, config.clone()));
        Ok(config)
    }

    fn lend(&self, endpoint: &Endpoint, who: Who) -> Option<Link> {
        let authority = authority(endpoint);
        let now = Instant::now();
        let mut idle = self.idle();
        idle.retain(|idle| {
            idle.link.connection.is_open() && now.duration_since(idle.since) < limits::IDLE_CONNECTION_FOR
        });
        let at = idle.iter().rposition(|idle| idle.who == who && idle.authority == authority)?;
        Some(idle.swap_remove(at).link)
    }

    fn keep(&self, endpoint: &Endpoint, who: Who, link: Link) {
        if !link.connection.is_open() {
            return;
        }
        let mut idle = self.idle();
        if idle.len() >= limits::IDLE_CONNECTIONS_MAX {
            idle.remove(0);
        }
        idle.push(Idle { authority: authority(endpoint), who, since: Instant::now(), link });
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Idle>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Link {
    async fn send(&mut self, endpoint: &Endpoint, mut ask: Ask, bounds: Bounds) -> Result<Answer, HttpError> {
        if let Signed::Basic { value, .. } = &self.signed {
            ask.headers.insert(AUTHORIZATION, value.clone());
        }
        self.connection.send(endpoint, ask, bounds.within, bounds.max_bytes).await
    }
}

/// With the scheme: a connection with TLS is another one.
fn authority(endpoint: &Endpoint) -> String {
    format!(
        "{}{}:{}",
        if endpoint.tls { "s:" } else { "" },
        endpoint.host.to_ascii_lowercase(),
        endpoint.port
    )
}
