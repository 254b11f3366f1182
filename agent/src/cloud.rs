//! The way to the cloud: one host name, TLS with the agent's certificate, two protocols told apart by ALPN.

use std::sync::Arc;

use arc_swap::ArcSwap;
use causeway_protocol::channel::{ALPN_H2, ALPN_XMPP};
use futures_util::future::BoxFuture;
use rustls::ClientConfig;
use thiserror::Error;

use crate::channel::{Connect, ConnectError};
use crate::config::Endpoint;
use crate::dial::tls::{self, SecureStream, TlsError, Trust};
use crate::dial::{ByteStream, Dial, DialError, Target};
use crate::identity::{Identity, IdentityError};

/// Opens secured streams to the cloud.
pub struct CloudConnector {
    dial: Arc<dyn Dial>,
    endpoint: Endpoint,
    trust: Trust,
    configs: ArcSwap<Configs>,
}

struct Configs {
    xmpp: Arc<ClientConfig>,
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
}

impl CloudConnector {
    /// `identity` is absent only while enrolling.
    ///
    /// # Errors
    /// When nothing is trusted or our certificate is unusable.
    pub fn new(
        dial: Arc<dyn Dial>,
        endpoint: Endpoint,
        trust: Trust,
        identity: Option<&Identity>,
    ) -> Result<Self, CloudError> {
        let configs = Configs::new(&endpoint, &trust, identity)?;
        Ok(Self { dial, endpoint, trust, configs: ArcSwap::from_pointee(configs) })
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
        self.configs.store(Arc::new(Configs::new(&self.endpoint, &self.trust, Some(identity))?));
        Ok(())
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
        // The name is the configured one even after a redirect: nobody may send us to a host of his own.
        tls::handshake(config, &self.endpoint.host, stream).await.map_err(|source| match source {
            TlsError::Untrusted { problem, .. }
                if matches!(self.trust, Trust::File(_))
                    && problem.error == rustls::CertificateError::UnknownIssuer =>
            {
                CloudError::Inspected { host, issuer: problem.issuer.clone() }
            }
            source => CloudError::Tls { host, source: Box::new(source) },
        })
    }

    fn redirected(&self, to: &str) -> Result<Target, CloudError> {
        let bad = || CloudError::BadRedirect { to: to.chars().take(100).collect() };
        let endpoint = Endpoint::parse(&format!("https://{to}")).map_err(|_| bad())?;
        let port =
            if to.ends_with(&format!(":{}", endpoint.port)) { endpoint.port } else { self.endpoint.port };
        Ok(Target::outside(endpoint.host, port))
    }
}

impl Configs {
    fn new(endpoint: &Endpoint, trust: &Trust, identity: Option<&Identity>) -> Result<Self, CloudError> {
        let config = |alpn: &[u8]| {
            let own = identity
                .map(Identity::certificate)
                .transpose()
                .map_err(|source| CloudError::Identity { source })?;
            tls::client_config(trust, own, &[alpn])
                .map_err(|source| CloudError::Tls { host: endpoint.host.clone(), source: Box::new(source) })
        };
        Ok(Self { xmpp: config(ALPN_XMPP)?, h2: config(ALPN_H2)? })
    }
}

impl Connect for CloudConnector {
    fn connect(&self, redirect: Option<String>) -> BoxFuture<'_, Result<Box<dyn ByteStream>, ConnectError>> {
        Box::pin(async move {
            let target = match redirect {
                Some(to) => self.redirected(&to),
                None => Ok(Target::outside(&self.endpoint.host, self.endpoint.port)),
            };
            let failed = |source: CloudError| ConnectError { source: Box::new(source) };
            let config = self.configs.load().xmpp.clone();
            let stream = self.open(target.map_err(failed)?, config).await.map_err(failed)?;
            Ok(Box::new(stream) as Box<dyn ByteStream>)
        })
    }
}
