//! A company server that lets in whoever shows a certificate of the company's authority: TLS with a client certificate,
//! its chain, validity, purpose and the authority's CRL checked by rustls-webpki, which is none of our own code. Then it
//! asks the OCSP responder that the certificate names.
//!
//! Its policy: who is on the list stays out, whatever the responder says. Otherwise the responder decides: `good` is let
//! in, `revoked` and `unknown` are not. If it says nothing that counts (no connection, an error, somebody else's signature,
//! an old answer), [`WhenSilent`] decides. Without list and responder nobody is let in.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use causeway_mock_kit::Clock;
use causeway_mock_kit::pki::{TestCa, provider};
use causeway_protocol::pkix::{Accept, Certificate};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::time_provider::TimeProvider;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use serde::Deserialize;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::ocsp::{Question, Standing};
use super::{Held, day};

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
    /// It is let in, and on whose word.
    Accepted(String),
    /// It is not, and why.
    Refused(String),
}

/// Who decides when the responder says nothing that counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WhenSilent {
    /// The CRL.
    #[default]
    List,
    /// Nobody is let in.
    Refuse,
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

/// A company server.
pub struct Server {
    /// Authorities it trusts, DER.
    pub roots: Vec<Vec<u8>>,
    /// The CRL it has, DER.
    pub crl: Option<Vec<u8>>,
    /// What it does without the responder.
    pub when_silent: WhenSilent,
    /// What it takes for the time.
    pub clock: Clock,
}

impl Server {
    /// What it makes of a device that shows what it has.
    ///
    /// # Errors
    /// When the server cannot be set up.
    pub async fn judge(&self, held: &Held) -> Result<Verdict> {
        let (server, client) = self.settings(held)?;
        let (near, far) = tokio::io::duplex(PIPE_BYTES);
        let serve = async {
            let mut stream =
                TlsAcceptor::from(server).accept(far).await.map_err(|error| error.to_string())?;
            let shown = stream.get_ref().1.peer_certificates().unwrap_or_default();
            let word = self.revocation(shown).await;
            if word.is_ok() {
                stream.write_all(WELCOME).await.map_err(|error| error.to_string())?;
            }
            stream.shutdown().await.map_err(|error| error.to_string())?;
            word
        };
        let visit = async {
            let name = ServerName::try_from(SERVER).map_err(std::io::Error::other)?;
            let mut stream = TlsConnector::from(client).connect(name, near).await?;
            let mut heard = Vec::new();
            stream.read_to_end(&mut heard).await.map(|_| heard)
        };
        let both = Box::pin(async { tokio::join!(serve, visit) });
        let (served, heard) = tokio::time::timeout(WITHIN, both).await.context("the server says nothing")?;
        Ok(match (served, heard) {
            (Ok(word), Ok(heard)) if heard == WELCOME => Verdict::Accepted(word),
            (Err(why), _) => Verdict::Refused(why),
            (_, Err(error)) => Verdict::Refused(error.to_string()),
            (Ok(_), Ok(_)) => Verdict::Refused("the server says something else".to_owned()),
        })
    }

    /// Whether what was shown still counts, or why not; the chain was verified before.
    async fn revocation(&self, shown: &[CertificateDer<'_>]) -> Result<String, String> {
        match (self.ask(shown).await, self.when_silent) {
            (Ok(Standing::Good), _) => Ok("OCSP says that it is good".to_owned()),
            (Ok(Standing::Revoked(at_ms, reason)), _) => {
                let reason = reason.map_or(String::new(), |number| format!(", reason {number}"));
                Err(format!("OCSP says that it was revoked on {}{reason}", day(at_ms)))
            }
            (Ok(Standing::Unknown), _) => Err("OCSP does not know it".to_owned()),
            (Err(error), WhenSilent::List) if self.crl.is_some() => {
                Ok(format!("it is not on the CRL; no word over OCSP: {error:#}"))
            }
            (Err(error), WhenSilent::List) => Err(format!("no CRL, and no word over OCSP: {error:#}")),
            (Err(error), WhenSilent::Refuse) => Err(format!("no word over OCSP: {error:#}")),
        }
    }

    async fn ask(&self, shown: &[CertificateDer<'_>]) -> Result<Standing> {
        let read = |der: &[u8]| Certificate::read(der).context("read a certificate");
        let (own, above) = shown.split_first().context("no certificate was shown")?;
        let own = read(own)?;
        let above = above.iter().map(AsRef::as_ref).chain(self.roots.iter().map(Vec::as_slice));
        let above = above.map(read).collect::<Result<Vec<_>>>()?;
        let issuer = above.iter().find(|it| own.issued_by(it, Accept::default()));
        let issuer = issuer.ok_or_else(|| anyhow!("its issuer was not shown"))?;
        // The random bits of a version 4 UUID are enough for a nonce.
        let nonce = uuid::Uuid::new_v4().into_bytes();
        Question::new(&own, issuer, nonce).ask(self.clock.now_ms()).await
    }

    fn settings(&self, held: &Held) -> Result<(Arc<ServerConfig>, Arc<ClientConfig>)> {
        let mut trusted = RootCertStore::empty();
        for root in &self.roots {
            trusted.add(CertificateDer::from(root.clone())).context("trust the company's root")?;
        }
        let mut verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(trusted), provider());
        if let Some(crl) = &self.crl {
            verifier = verifier
                .with_crls([CertificateRevocationListDer::from(crl.clone())])
                .only_check_end_entity_revocation();
        }
        let verifier = verifier.build().context("check clients by the company's root")?;
        // The server's own certificate is of the mocks' authority for TLS, made now: it is not what is tried here.
        let tls_ca = TestCa::new("Company servers")?;
        let leaf = tls_ca.issue_leaf(&[SERVER], causeway_mock_kit::pki::LeafUse::Server)?;
        let server = ServerConfig::builder_with_details(provider(), Arc::new(WorldTime(self.clock.clone())))
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
}
