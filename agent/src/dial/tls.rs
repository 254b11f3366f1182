//! TLS as a client: what we trust, what we offer, and errors an administrator can act on.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::time_provider::TimeProvider;
use rustls::{
    CertificateError, ClientConfig, ConfigBuilder, DigitallySignedStruct, OtherError, RootCertStore,
    SignatureScheme,
};
use thiserror::Error;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::steps::shortened;
use super::{ByteStream, DialStream};
use crate::clock::Clock;
use crate::limits::TLS_WITHIN;

/// Why there is no TLS.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A file of certificates cannot be used.
    #[error("read certificates from {}", .path.display())]
    CaFile {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The system has no usable store of certificate authorities.
    #[error("the system's certificate store holds no usable certificate; name one with ca_file")]
    NoSystemRoots,
    /// Our own key and certificate do not fit.
    #[error("use our own certificate")]
    OwnCertificate {
        /// What is wrong.
        #[source]
        source: rustls::Error,
    },
    /// Nothing a certificate could be issued for.
    #[error("{name} is neither a host name nor an address")]
    BadName {
        /// The text.
        name: String,
    },
    /// The peer's certificate is not trusted.
    #[error("certificate of {name} refused")]
    Untrusted {
        /// Whom we wanted to talk to.
        name: String,
        /// What is wrong, and who issued it.
        #[source]
        problem: Box<Refused>,
    },
    /// The peer did something else than TLS, or refused ours.
    #[error("TLS handshake with {name}")]
    Handshake {
        /// Whom we wanted to talk to.
        name: String,
        /// What happened.
        #[source]
        source: io::Error,
    },
    /// The peer is silent.
    #[error("no TLS answer from {name} within {} s", TLS_WITHIN.as_secs())]
    TimedOut {
        /// Whom we wanted to talk to.
        name: String,
    },
}

/// Why a certificate was refused.
#[derive(Clone, Debug, Error)]
#[error("{reason} (issued by {issuer})")]
pub struct Refused {
    /// One clause for people.
    pub reason: String,
    /// The issuer's name as in the certificate: an inspecting proxy shows itself here.
    pub issuer: String,
    /// The verifier's own word, for matching.
    pub error: CertificateError,
}

impl Refused {
    /// Whether a foreign authority has signed, which is what an inspecting proxy looks like.
    pub fn is_foreign(&self) -> bool {
        matches!(self.error, CertificateError::UnknownIssuer | CertificateError::BadSignature)
    }
}

/// A certificate as it was shown to us.
#[derive(Clone, Debug)]
pub struct Witnessed {
    /// Whom it is for.
    pub subject: String,
    /// Who has signed it.
    pub issuer: String,
    /// The issuer's common name, or all of its name.
    pub issuer_name: String,
    /// `1.3` or `1.2`.
    pub version: &'static str,
    /// Why we would not accept it.
    pub refused: Option<Refused>,
}

/// What we trust.
#[derive(Clone, Debug)]
pub enum Trust {
    /// Exactly the authorities of this PEM file.
    File(PathBuf),
    /// The operating system's.
    System,
}

/// The crypto provider of everything the agent does: AES-256-GCM first.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

impl Trust {
    /// The certificates.
    ///
    /// # Errors
    /// When there are none.
    pub fn roots(&self) -> Result<RootCertStore, TlsError> {
        let mut roots = RootCertStore::empty();
        match self {
            Self::File(path) => {
                for certificate in read_certificates(path)? {
                    roots
                        .add(certificate)
                        .map_err(|source| TlsError::CaFile { path: path.clone(), source: source.into() })?;
                }
            }
            Self::System => {
                let found = rustls_native_certs::load_native_certs();
                let (usable, _) = roots.add_parsable_certificates(found.certs);
                if usable == 0 {
                    return Err(TlsError::NoSystemRoots);
                }
            }
        }
        Ok(roots)
    }
}

/// Reads every certificate of a PEM file.
///
/// # Errors
/// When the file cannot be read or holds none.
pub fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let bad =
        |source: Box<dyn std::error::Error + Send + Sync>| TlsError::CaFile { path: path.to_owned(), source };
    let text = std::fs::read(path).map_err(|source| bad(source.into()))?;
    let found: Vec<_> = CertificateDer::pem_slice_iter(&text)
        .collect::<Result<_, _>>()
        .map_err(|source| bad(source.into()))?;
    if found.is_empty() {
        return Err(bad("the file holds no certificate in PEM form".into()));
    }
    Ok(found)
}

/// Our own certificate chain and its key.
pub struct OwnCertificate {
    /// Leaf first.
    pub chain: Vec<CertificateDer<'static>>,
    /// The leaf's key.
    pub key: PrivateKeyDer<'static>,
}

/// A client configuration: TLS 1.2 at least, `alpn` offered, our certificate shown when asked for.
///
/// # Errors
/// When nothing is trusted or our own certificate is unusable.
pub fn client_config(
    trust: &Trust,
    own: Option<OwnCertificate>,
    alpn: &[&[u8]],
) -> Result<Arc<ClientConfig>, TlsError> {
    client_config_by(Clock::system(), trust, own, alpn)
}

/// The same with certificates judged by another clock than the machine's.
///
/// # Errors
/// As [`client_config`].
pub fn client_config_by(
    clock: Clock,
    trust: &Trust,
    own: Option<OwnCertificate>,
    alpn: &[&[u8]],
) -> Result<Arc<ClientConfig>, TlsError> {
    let builder = builder(clock, Verifier::new(trust, Manner::Naming)?);
    let mut config = match own {
        Some(own) => builder
            .with_client_auth_cert(own.chain, own.key)
            .map_err(|source| TlsError::OwnCertificate { source })?,
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    Ok(Arc::new(config))
}

fn builder(clock: Clock, verifier: Verifier) -> ConfigBuilder<ClientConfig, rustls::client::WantsClientCert> {
    ClientConfig::builder_with_details(provider(), Arc::new(ByClock(clock)))
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .expect("the provider has suites for both versions")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
}

/// Which certificates a look at a suspicious peer takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Leniency {
    /// Only those that were good at some time: the clock is in doubt.
    AnyTime,
    /// Any: the peer is in doubt, and is told nothing.
    Anyone,
}

/// A configuration for a look at the peer. It shows no certificate of ours, and nothing secret may be sent over it.
///
/// # Errors
/// When nothing is trusted.
pub(crate) fn lenient_config(trust: &Trust, leniency: Leniency) -> Result<Arc<ClientConfig>, TlsError> {
    let verifier = Verifier::new(trust, Manner::Lenient(leniency))?;
    let mut config = builder(Clock::system(), verifier).with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// Speaks TLS over an open stream, verifying `name`.
///
/// # Errors
/// When the peer is silent, speaks something else, or is not who it should be.
pub async fn handshake<S: ByteStream>(
    config: Arc<ClientConfig>,
    name: &str,
    stream: S,
) -> Result<TlsStream<S>, TlsError> {
    let server =
        ServerName::try_from(name.to_owned()).map_err(|_| TlsError::BadName { name: name.into() })?;
    match timeout(TLS_WITHIN, TlsConnector::from(config).connect(server, stream)).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(source)) => Err(explain(name, source)),
        Err(_) => Err(TlsError::TimedOut { name: name.to_owned() }),
    }
}

/// Looks at the certificate behind an open stream, whoever has signed it, and says nothing over it.
///
/// # Errors
/// When the peer is silent or does not speak TLS.
pub async fn witness<S: ByteStream>(trust: &Trust, name: &str, stream: S) -> Result<Witnessed, TlsError> {
    let seen = Arc::new(Mutex::new(None));
    let verifier = Verifier::new(trust, Manner::Witness(seen.clone()))?;
    let config = builder(Clock::system(), verifier).with_no_client_auth();
    let shaken = handshake(Arc::new(config), name, stream).await;
    let witnessed = seen.lock().unwrap_or_else(PoisonError::into_inner).take();
    match (witnessed, shaken) {
        (Some(seen), Ok(stream)) => {
            let two = stream.get_ref().1.protocol_version() == Some(rustls::ProtocolVersion::TLSv1_2);
            Ok(Witnessed { version: if two { "1.2" } else { "1.3" }, ..seen })
        }
        // A server that wants our certificate may hang up, but it has shown its own.
        (Some(seen), Err(_)) => Ok(seen),
        (None, Err(error)) => Err(error),
        (None, Ok(_)) => unreachable!("no handshake ends without a certificate looked at"),
    }
}

/// The stream of a secured connection opened by a [`super::Dial`].
pub type SecureStream = TlsStream<DialStream>;

/// Finds our verifier's reason inside the error tokio-rustls gives.
pub fn explain(name: &str, error: io::Error) -> TlsError {
    let refused =
        error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()).and_then(
            |inner| match inner {
                rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(other))) => {
                    other.downcast_ref::<Refused>()
                }
                _ => None,
            },
        );
    match refused {
        Some(problem) => TlsError::Untrusted { name: name.to_owned(), problem: Box::new(problem.clone()) },
        None => TlsError::Handshake { name: name.to_owned(), source: error },
    }
}

/// What becomes of the usual verdict on a certificate.
#[derive(Debug)]
enum Manner {
    /// It stands, and a refusal says who issued the certificate.
    Naming,
    /// Some that are refused are taken.
    Lenient(Leniency),
    /// Everything is taken, and remembered together with the verdict.
    Witness(Arc<Mutex<Option<Witnessed>>>),
}

#[derive(Debug)]
struct Verifier {
    usual: Arc<WebPkiServerVerifier>,
    manner: Manner,
}

impl Verifier {
    fn new(trust: &Trust, manner: Manner) -> Result<Self, TlsError> {
        let usual = WebPkiServerVerifier::builder_with_provider(Arc::new(trust.roots()?), provider())
            .build()
            .map_err(|_| TlsError::NoSystemRoots)?;
        Ok(Self { usual, manner })
    }
}

/// Who issued the certificate that is refused for this.
fn refused(certificate: &CertificateDer<'_>, error: &rustls::Error) -> Refused {
    let (reason, error) = match error {
        rustls::Error::InvalidCertificate(error) => (reason(error), error.clone()),
        _ => ("it cannot be verified".to_owned(), CertificateError::BadEncoding),
    };
    Refused { reason, issuer: issuer(certificate), error }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let usual =
            |at| self.usual.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, at);
        match &self.manner {
            Manner::Naming => usual(now).map_err(|error| match error {
                rustls::Error::InvalidCertificate(_) => {
                    CertificateError::Other(OtherError(Arc::new(refused(end_entity, &error)))).into()
                }
                other => other,
            }),
            Manner::Lenient(Leniency::AnyTime) => usual(middle_of_life(end_entity).unwrap_or(now)),
            Manner::Lenient(Leniency::Anyone) => Ok(ServerCertVerified::assertion()),
            Manner::Witness(seen) => {
                let witnessed = Witnessed {
                    subject: subject(end_entity),
                    issuer: issuer(end_entity),
                    issuer_name: issuer_name(end_entity),
                    version: "1.3",
                    refused: usual(now).err().map(|error| refused(end_entity, &error)),
                };
                *seen.lock().unwrap_or_else(PoisonError::into_inner) = Some(witnessed);
                Ok(ServerCertVerified::assertion())
            }
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.usual.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.usual.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.usual.supported_verify_schemes()
    }
}

/// Tells the time for the judgement of certificates.
#[derive(Debug)]
struct ByClock(Clock);

impl TimeProvider for ByClock {
    fn current_time(&self) -> Option<UnixTime> {
        let since = Duration::from_millis(u64::try_from(self.0.now_ms()).ok()?);
        Some(UnixTime::since_unix_epoch(since))
    }
}

/// A moment at which the certificate was good.
fn middle_of_life(certificate: &CertificateDer<'_>) -> Option<UnixTime> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
    let (from, until) = (parsed.validity().not_before.timestamp(), parsed.validity().not_after.timestamp());
    let middle = from.checked_add(until.checked_sub(from)? / 2)?;
    Some(UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(middle).ok()?)))
}

fn reason(error: &CertificateError) -> String {
    match error {
        // A bad signature is what another authority of the same name looks like.
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            "no authority we trust has signed it".to_owned()
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "it has expired by this machine's clock".to_owned()
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "it is not valid yet by this machine's clock".to_owned()
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "it is for another name".to_owned()
        }
        CertificateError::Revoked => "it is revoked".to_owned(),
        other => other.to_string(),
    }
}

fn subject(certificate: &CertificateDer<'_>) -> String {
    match x509_parser::parse_x509_certificate(certificate) {
        Ok((_, parsed)) => shortened(&parsed.subject().to_string()),
        Err(_) => "an unreadable name".to_owned(),
    }
}

fn issuer_name(certificate: &CertificateDer<'_>) -> String {
    let Ok((_, parsed)) = x509_parser::parse_x509_certificate(certificate) else {
        return "an unreadable name".to_owned();
    };
    let common = parsed.issuer().iter_common_name().next().and_then(|name| name.as_str().ok());
    shortened(common.unwrap_or(&parsed.issuer().to_string()))
}

fn issuer(certificate: &CertificateDer<'_>) -> String {
    match x509_parser::parse_x509_certificate(certificate) {
        Ok((_, parsed)) => shortened(&parsed.issuer().to_string()),
        Err(_) => "an unreadable name".to_owned(),
    }
}

impl fmt::Display for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "{}", path.display()),
            Self::System => f.write_str("the system's certificate store"),
        }
    }
}
