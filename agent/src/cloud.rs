//! The way to the cloud: one host name, TLS with the agent's certificate, two protocols told apart by ALPN.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use causeway_protocol::channel::{ALPN_H2, ALPN_HTTP1, ALPN_XMPP};
use futures_util::future::BoxFuture;
use rustls::ClientConfig;
use thiserror::Error;

use rustls::CertificateError;

use crate::chain::Chain;
use crate::channel::websocket::{self, WebSocketError};
use crate::channel::{Connect, ConnectError};
use crate::clock::Clock;
use crate::config::Endpoint;
use crate::dial::tls::{self, Leniency, SecureStream, TlsError, Trust};
use crate::dial::{ByteStream, Dial, DialError, Target};
use crate::glimpse::{Glimpse, in_words};
use crate::identity::{Identity, IdentityError};
use crate::limits::CLOCK_SKEW_MAX;
use crate::way::{Evidence, Way, Ways};

/// Opens secured streams to the cloud.
pub struct CloudConnector {
    dial: Arc<dyn Dial>,
    endpoint: Endpoint,
    trust: Trust,
    clock: Clock,
    ways: Ways,
    /// Hosts besides the endpoint's own that a redirect may name; `*.` before a name stands for one label or more.
    redirect_hosts: Vec<String>,
    configs: ArcSwap<Configs>,
    /// Where the last connection went: to the cloud, or to the proxy before it.
    last_peer: ArcSwapOption<SocketAddr>,
}

struct Configs {
    xmpp: Arc<ClientConfig>,
    http1: Arc<ClientConfig>,
    h2: Arc<ClientConfig>,
}

/// Why there is no secured stream.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CloudError {
    /// No way there.
    #[error("reach {host}")]
    Dial {
        /// The cloud.
        host: String,
        /// Why.
        #[source]
        source: Box<DialError>,
    },
    /// Something else answers, or nobody we trust.
    #[error("secure the connection to {host}")]
    Tls {
        /// The cloud.
        host: String,
        /// Why.
        #[source]
        source: Box<TlsError>,
    },
    /// An inspecting proxy has put itself between: it strips our certificate, so going on is useless.
    #[error("TLS inspection by {issuer}; exclude {host} from it")]
    Inspected {
        /// The cloud.
        host: String,
        /// Who has signed what we saw.
        issuer: String,
    },
    /// Our certificate cannot be used.
    #[error("use our certificate")]
    Identity {
        /// Why.
        #[source]
        source: IdentityError,
    },
    /// A redirect that names no host.
    #[error("the cloud sends us to {to}, which is no host")]
    BadRedirect {
        /// The text.
        to: String,
    },
    /// A redirect to somebody this agent has not been told to trust.
    #[error("the cloud sends us to {to}; cloud.redirect_hosts of agent.toml does not allow that host")]
    RedirectNotAllowed {
        /// The text.
        to: String,
    },
    /// Something answers HTTP in clear text, or sends to a page of its own, where the cloud should be.
    #[error("captive portal: {}{host} is answered by somebody else; sign in to this network in a browser, or exclude {host} from it", .location.as_ref().map(|to| format!("sign-in page {to}; ")).unwrap_or_default())]
    CaptivePortal {
        /// The cloud.
        host: String,
        /// Where it sends us.
        location: Option<String>,
    },
    /// The cloud's certificate is good and our clock is not.
    #[error("clock wrong by {} ({side} {host}'s); set this machine's clock", in_words(*.by))]
    ClockWrong {
        /// The cloud.
        host: String,
        /// How far.
        by: Duration,
        /// `behind` or `ahead of`.
        side: &'static str,
    },
    /// The other way does not work either.
    #[error("open a WebSocket to {host}")]
    WebSocket {
        /// The cloud.
        host: String,
        /// Why.
        #[source]
        source: WebSocketError,
    },
}

impl CloudError {
    /// Whether somebody stands between us and the cloud, so that only a person can help.
    pub(crate) fn is_interception(&self) -> bool {
        matches!(self, Self::Inspected { .. } | Self::CaptivePortal { .. } | Self::ClockWrong { .. })
    }
}

impl CloudConnector {
    /// For somebody who connects once and waits for it. `identity` is absent only while enrolling.
    ///
    /// # Errors
    /// When nothing is trusted or our certificate is unusable.
    pub fn new(
        dial: Arc<dyn Dial>,
        endpoint: Endpoint,
        trust: Trust,
        identity: Option<&Identity>,
    ) -> Result<Self, CloudError> {
        let connector = Self::by(Clock::system(), dial, endpoint, trust, identity)?;
        Ok(Self { ways: connector.ways.impatient(), ..connector })
    }

    /// For somebody who stays. Certificates are judged by `clock`.
    ///
    /// # Errors
    /// As [`CloudConnector::new`].
    pub fn by(
        clock: Clock,
        dial: Arc<dyn Dial>,
        endpoint: Endpoint,
        trust: Trust,
        identity: Option<&Identity>,
    ) -> Result<Self, CloudError> {
        let configs = ArcSwap::from_pointee(Configs::new(&endpoint, &trust, clock, identity)?);
        let (redirect_hosts, last_peer) = (Vec::new(), ArcSwapOption::empty());
        Ok(Self { dial, endpoint, trust, clock, ways: Ways::new(), redirect_hosts, configs, last_peer })
    }

    /// Remembers in a data directory which way works.
    pub fn remembering(self, data_dir: &Path) -> Self {
        let ways = self.ways.remembering(data_dir, self.clock);
        Self { ways, ..self }
    }

    /// Lets redirects lead to these hosts too.
    pub fn allowing(self, redirect_hosts: Vec<String>) -> Self {
        Self { redirect_hosts, ..self }
    }

    /// Where the cloud is.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Uses another certificate from the next connection on.
    ///
    /// # Errors
    /// When it is unusable; the old one stays.
    pub fn set_identity(&self, identity: &Identity) -> Result<(), CloudError> {
        self.configs.store(Arc::new(Configs::new(&self.endpoint, &self.trust, self.clock, Some(identity))?));
        Ok(())
    }

    /// Tries the direct way again when a WebSocket has been used for a day. True when it works, so that the session
    /// should move.
    pub async fn better_way_works(&self) -> bool {
        if !self.ways.is_due() {
            return false;
        }
        let target = Target::outside(&self.endpoint.host, self.endpoint.port);
        let config = self.configs.load().xmpp.clone();
        match self.open(target, config).await {
            Ok(_) => {
                self.ways.direct_worked();
                true
            }
            Err(error) => {
                tracing::debug!(error = %Chain(&error), "The direct way to the cloud is still blocked");
                self.ways.websocket_worked(true);
                false
            }
        }
    }

    /// The address of ours by which the cloud is reached now.
    pub fn own_address(&self) -> Option<IpAddr> {
        self.way_out().1
    }

    /// Where packets for the cloud go now, and the address of ours they leave by.
    pub(crate) fn way_out(&self) -> (SocketAddr, Option<IpAddr>) {
        // Before the first connection, and where a proxy hides behind TLS, the default route stands in: an address
        // that is nobody's (RFC 5737).
        const ANYWHERE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 9);
        let toward = self.last_peer.load().as_deref().copied().unwrap_or(ANYWHERE);
        (toward, self.dial.own_address(toward))
    }

    /// A stream for HTTP/2.
    ///
    /// # Errors
    /// Says who is at fault.
    pub async fn connect_h2(&self) -> Result<SecureStream, CloudError> {
        let config = self.configs.load().h2.clone();
        self.open(Target::outside(&self.endpoint.host, self.endpoint.port), config).await
    }

    async fn open(&self, target: Target, config: Arc<ClientConfig>) -> Result<SecureStream, CloudError> {
        let host = self.endpoint.host.clone();
        let stream = match self.dial.connect(target).await {
            Ok(stream) => stream,
            Err(source) => return Err(CloudError::Dial { host, source: Box::new(source) }),
        };
        if let Some(peer) = stream.peer() {
            self.last_peer.store(Some(Arc::new(peer)));
        }
        // The name is the configured one even after a redirect: nobody may send us to a host of his own.
        tls::handshake(config, &self.endpoint.host, stream).await.map_err(|source| match source {
            TlsError::Untrusted { problem, .. }
                if matches!(self.trust, Trust::File(_))
                    && matches!(
                        problem.error,
                        CertificateError::UnknownIssuer | CertificateError::BadSignature
                    ) =>
            {
                CloudError::Inspected { host, issuer: problem.issuer.clone() }
            }
            source => CloudError::Tls { host, source: Box::new(source) },
        })
    }

    fn redirected(&self, to: &str) -> Result<Target, CloudError> {
        let short = || to.chars().take(100).collect();
        let endpoint =
            Endpoint::parse(&format!("https://{to}")).map_err(|_| CloudError::BadRedirect { to: short() })?;
        if !self.allows(&endpoint.host) {
            return Err(CloudError::RedirectNotAllowed { to: short() });
        }
        let port =
            if to.ends_with(&format!(":{}", endpoint.port)) { endpoint.port } else { self.endpoint.port };
        Ok(Target::outside(endpoint.host, port))
    }

    fn allows(&self, host: &str) -> bool {
        host.eq_ignore_ascii_case(&self.endpoint.host)
            || self.redirect_hosts.iter().any(|allowed| match allowed.strip_prefix('*') {
                Some(suffix) => {
                    suffix.starts_with('.')
                        && host.len() > suffix.len()
                        && host.to_ascii_lowercase().ends_with(&suffix.to_ascii_lowercase())
                }
                None => host.eq_ignore_ascii_case(allowed),
            })
    }

    /// One attempt, by the way that is likely to work.
    async fn attempt(&self, target: Target) -> Result<Box<dyn ByteStream>, CloudError> {
        if self.ways.first() == Way::WebSocket {
            let opened = self.open_websocket(target).await;
            match &opened {
                Ok(_) => self.ways.websocket_worked(false),
                // Nobody was reached, so nothing was learnt about the way.
                Err(CloudError::Dial { .. }) => {}
                Err(_) => self.ways.websocket_failed(),
            }
            return opened;
        }
        let direct = match self.open(target.clone(), self.configs.load().xmpp.clone()).await {
            Ok(stream) => {
                self.ways.direct_worked();
                return Ok(Box::new(stream));
            }
            Err(error) => error,
        };
        let evidence = match &direct {
            CloudError::Tls { source, .. } => Evidence::of(source),
            _ => Evidence::None,
        };
        if !self.ways.direct_failed(evidence) {
            return Err(direct);
        }
        match self.open_websocket(target).await {
            Ok(stream) => {
                self.ways.websocket_worked(evidence == Evidence::Certain);
                Ok(stream)
            }
            // Somebody who refuses our protocol shows who he is when he is asked for one he speaks.
            Err(error) if is_untrusted(&error) => Err(error),
            Err(error) => {
                tracing::debug!(error = %Chain(&error), "A WebSocket is no way out either");
                Err(direct)
            }
        }
    }

    async fn open_websocket(&self, target: Target) -> Result<Box<dyn ByteStream>, CloudError> {
        let Endpoint { host, port } = &self.endpoint;
        let authority =
            if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
        let secured = self.open(target, self.configs.load().http1.clone()).await?;
        let socket = websocket::open(secured, &authority).await;
        let socket = socket.map_err(|source| CloudError::WebSocket { host: host.clone(), source })?;
        Ok(Box::new(socket))
    }

    /// Says more about a failure when a second look can: who answers there, and what time he has.
    async fn explain(&self, target: Target, error: CloudError) -> CloudError {
        let host = self.endpoint.host.clone();
        let problem = match &error {
            CloudError::Inspected { .. } => Some(&CertificateError::UnknownIssuer),
            CloudError::Tls { source, .. } => match &**source {
                TlsError::Untrusted { problem, .. } => Some(&problem.error),
                TlsError::Handshake { source, .. } if is_clear_text(source) => None,
                _ => return error,
            },
            _ => return error,
        };
        match problem {
            None => match self.glimpse_clear(target).await {
                Some(glimpse) => CloudError::CaptivePortal { host, location: glimpse.location },
                None => error,
            },
            Some(
                CertificateError::UnknownIssuer
                | CertificateError::BadSignature
                | CertificateError::NotValidForName
                | CertificateError::NotValidForNameContext { .. },
            ) => {
                let glimpse = self.glimpse_secured(target, Leniency::Anyone).await;
                match glimpse.as_ref().and_then(|glimpse| glimpse.sends_away_from(&host)) {
                    Some(location) => CloudError::CaptivePortal { host, location: Some(location.to_owned()) },
                    None => error,
                }
            }
            Some(
                CertificateError::Expired
                | CertificateError::ExpiredContext { .. }
                | CertificateError::NotValidYet
                | CertificateError::NotValidYetContext { .. },
            ) => {
                let glimpse = self.glimpse_secured(target, Leniency::AnyTime).await;
                let Some(there_ms) = glimpse.and_then(|glimpse| glimpse.date_ms) else { return error };
                let ahead_ms = self.clock.now_ms() - there_ms;
                let by = Duration::from_millis(ahead_ms.unsigned_abs());
                if by <= CLOCK_SKEW_MAX {
                    return error;
                }
                let side = if ahead_ms < 0 { "behind" } else { "ahead of" };
                CloudError::ClockWrong { host, by, side }
            }
            Some(_) => error,
        }
    }

    async fn glimpse_clear(&self, target: Target) -> Option<Glimpse> {
        let stream = self.dial.connect(target).await.ok()?;
        Glimpse::take(stream, &self.endpoint.host).await
    }

    async fn glimpse_secured(&self, target: Target, leniency: Leniency) -> Option<Glimpse> {
        let stream = self.dial.connect(target).await.ok()?;
        let config = tls::lenient_config(&self.trust, leniency).ok()?;
        let stream = tls::handshake(config, &self.endpoint.host, stream).await.ok()?;
        Glimpse::take(stream, &self.endpoint.host).await
    }
}

/// Whether the certificate shown is not the cloud's.
fn is_untrusted(error: &CloudError) -> bool {
    match error {
        CloudError::Inspected { .. } => true,
        CloudError::Tls { source, .. } => matches!(**source, TlsError::Untrusted { .. }),
        _ => false,
    }
}

/// Whether what came is no TLS at all.
fn is_clear_text(error: &std::io::Error) -> bool {
    matches!(
        error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()),
        Some(rustls::Error::InvalidMessage(_))
    )
}

impl Configs {
    fn new(
        endpoint: &Endpoint,
        trust: &Trust,
        clock: Clock,
        identity: Option<&Identity>,
    ) -> Result<Self, CloudError> {
        let own = identity
            .map(Identity::certificate)
            .transpose()
            .map_err(|source| CloudError::Identity { source })?;
        let base = tls::client_config_by(clock, trust, own, &[])
            .map_err(|source| CloudError::Tls { host: endpoint.host.clone(), source: Box::new(source) })?;
        let offering = |alpn: &[u8]| {
            let mut config = ClientConfig::clone(&base);
            config.alpn_protocols = vec![alpn.to_vec()];
            Arc::new(config)
        };
        Ok(Self { xmpp: offering(ALPN_XMPP), http1: offering(ALPN_HTTP1), h2: offering(ALPN_H2) })
    }
}

impl Connect for CloudConnector {
    fn connect(&self, redirect: Option<String>) -> BoxFuture<'_, Result<Box<dyn ByteStream>, ConnectError>> {
        Box::pin(async move {
            let usual = redirect.is_none();
            let target = match redirect {
                Some(to) => self.redirected(&to),
                None => Ok(Target::outside(&self.endpoint.host, self.endpoint.port)),
            };
            let failed = |source: CloudError| ConnectError { source: Box::new(source) };
            let target = target.map_err(failed)?;
            match self.attempt(target.clone()).await {
                Ok(stream) => Ok(stream),
                Err(error) if usual => Err(failed(self.explain(target, error).await)),
                // Whoever is wrong about where the cloud is need not be looked into.
                Err(error) => Err(failed(error)),
            }
        })
    }
}
