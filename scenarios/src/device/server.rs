//! A company server that lets in whoever shows a certificate of the company's authority: TLS with a client certificate,
//! its chain, validity, purpose and the authority's CRL checked by rustls-webpki, which is none of our own code.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use causeway_mock_kit::Clock;
use causeway_mock_kit::pki::{TestCa, provider};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::time_provider::TimeProvider;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::Held;

/// The name of the server.
const SERVER: &str = "intranet.acme.example";

/// What the server says to whom it lets in.
const WELCOME: &[u8] = b"welcome\n";

/// How long a handshake may take.
const WITHIN: Duration = Duration::from_secs(10);

/// Bytes a connection between two tasks holds.
const PIPE_BYTES: usize = 64 * 1024;

/// What the server makes of a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is let in.
    Accepted,
    /// It is not, and why.
    Refused(String),
}

/// The clock of a simulated world, as TLS sees it.
#[derive(Debug)]
struct WorldTime(Clock);

impl TimeProvider for WorldTime {
    fn current_time(&self) -> Option<UnixTime> {
        let ms = u64::try_from(self.0.now_ms()).ok()?;
        Some(UnixTime::since_unix_epoch(Duration::from_millis(ms)))
    }
}

/// Shows what a device has to a server that trusts `roots` and knows `crls`, at the time of `clock`.
///
/// # Errors
/// When the server cannot be set up.
pub async fn show(held: &Held, roots: &[Vec<u8>], crls: Vec<Vec<u8>>, clock: Clock) -> Result<Verdict> {
    let (server, client) = settings(held, roots, crls, clock)?;
    let (near, far) = tokio::io::duplex(PIPE_BYTES);
    let serve = async {
        let mut stream = TlsAcceptor::from(server).accept(far).await?;
        stream.write_all(WELCOME).await?;
        stream.shutdown().await
    };
    let visit = async {
        let name = ServerName::try_from(SERVER).map_err(std::io::Error::other)?;
        let mut stream = TlsConnector::from(client).connect(name, near).await?;
        let mut heard = Vec::new();
        stream.read_to_end(&mut heard).await.map(|_| heard)
    };
    let both = async { tokio::join!(serve, visit) };
    let (served, heard) = tokio::time::timeout(WITHIN, both).await.context("the server says nothing")?;
    Ok(match (served, heard) {
        (Ok(()), Ok(heard)) if heard == WELCOME => Verdict::Accepted,
        (Err(error), _) | (_, Err(error)) => Verdict::Refused(error.to_string()),
        (Ok(()), Ok(_)) => Verdict::Refused("the server says something else".to_owned()),
    })
}

fn settings(
    held: &Held,
    roots: &[Vec<u8>],
    crls: Vec<Vec<u8>>,
    clock: Clock,
) -> Result<(Arc<ServerConfig>, Arc<ClientConfig>)> {
    let mut trusted = RootCertStore::empty();
    for root in roots {
        trusted.add(CertificateDer::from(root.clone())).context("trust the company's root")?;
    }
    let mut verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(trusted), provider());
    if !crls.is_empty() {
        verifier = verifier
            .with_crls(crls.into_iter().map(CertificateRevocationListDer::from))
            .only_check_end_entity_revocation();
    }
    let verifier = verifier.build().context("check clients by the company's root")?;
    // The server's own certificate is of the mocks' authority for TLS, made now: it is not what is tried here.
    let tls_ca = TestCa::new("Company servers")?;
    let leaf = tls_ca.issue_leaf(&[SERVER], causeway_mock_kit::pki::LeafUse::Server)?;
    let server = ServerConfig::builder_with_details(provider(), Arc::new(WorldTime(clock)))
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(verifier)
        .with_single_cert(vec![leaf.cert.clone()], leaf.key())?;
    let chain = std::iter::once(&held.certificate).chain(&held.chain);
    let chain = chain.map(|it| CertificateDer::from(it.raw().to_vec())).collect();
    let key = PrivateKeyDer::Pkcs8(held.key.to_vec().into());
    let client = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .with_root_certificates(tls_ca.roots())
        .with_client_auth_cert(chain, key)
        .context("use the device's certificate")?;
    Ok((Arc::new(server), Arc::new(client)))
}
