//! Certificates of registration authorities: what companies download from the vendor's console, and what MPKI and
//! Entrust know them by.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use causeway_mock_kit::pki::{Leaf, LeafUse, PkiError, TestCa, provider};
use causeway_protocol::pkix::{Certificate, oid};
use tokio_rustls::rustls::client::danger::HandshakeSignatureValid;
use tokio_rustls::rustls::pki_types::{CertificateDer, UnixTime};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use tokio_rustls::rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, ServerConfig, SignatureScheme,
};

use crate::serve::Connection;

/// Issues them, and holds one that is good.
pub struct RaIssuer {
    ca: TestCa,
    leaf: Leaf,
    certificate_file: PathBuf,
    key_file: PathBuf,
}

/// A registration authority that has shown its certificate.
pub(crate) struct Ra {
    pub(crate) name: String,
    pub(crate) is_expired: bool,
}

impl RaIssuer {
    /// Makes the issuer and one certificate; both files live as long as the issuer.
    ///
    /// # Errors
    /// [`PkiError`] when the temporary directory cannot be written.
    pub fn new() -> Result<Self, PkiError> {
        let ca = TestCa::new("Causeway RA issuer")?;
        let leaf = ca.issue_leaf(&["ra.causeway.example"], LeafUse::Client)?;
        let beside = |name: &str| ca.pem_path().with_file_name(name);
        let (certificate_file, key_file) = (beside("ra.pem"), beside("ra-key.pem"));
        for (path, text) in [(&certificate_file, &leaf.cert_pem), (&key_file, &leaf.key_pem)] {
            // The directory is this user's alone.
            std::fs::write(path, text).map_err(|source| PkiError::File { path: path.clone(), source })?;
        }
        Ok(Self { ca, leaf, certificate_file, key_file })
    }

    /// A certificate that is good, with its key.
    pub fn leaf(&self) -> &Leaf {
        &self.leaf
    }

    /// Another one, for instance one that has ended.
    ///
    /// # Errors
    /// [`PkiError`] when the name is none.
    pub fn issue(&self, name: &str, usage: LeafUse) -> Result<Leaf, PkiError> {
        self.ca.issue_leaf(&[name], usage)
    }

    /// PEM file of [`RaIssuer::leaf`].
    pub fn certificate_file(&self) -> &Path {
        &self.certificate_file
    }

    /// PEM file of its key.
    pub fn key_file(&self) -> &Path {
        &self.key_file
    }

    /// TLS of a front end that asks for such a certificate, and may insist.
    ///
    /// # Errors
    /// [`PkiError`] when rustls refuses the settings.
    pub(crate) fn tls(&self, ca: &TestCa, leaf: Leaf, insist: bool) -> Result<Arc<ServerConfig>, PkiError> {
        let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(self.ca.roots()), provider());
        let builder = if insist { builder } else { builder.allow_unauthenticated() };
        let inner = builder.build().expect("the roots hold the issuer's certificate");
        ca.server_config_with(leaf, &[b"http/1.1"], Some(Arc::new(EvenExpired(inner))))
    }
}

impl Ra {
    /// Who the certificate of a connection belongs to.
    pub(crate) fn of(connection: &Connection, now_ms: i64) -> Option<Self> {
        let certificate = Certificate::read(connection.client_certificate.as_deref()?).ok()?;
        let name = certificate.subject().value(oid::CN).unwrap_or_default().to_owned();
        Some(Self { name, is_expired: certificate.not_after_ms() < now_ms })
    }
}

/// Lets expired certificates through TLS: the services say themselves that one has ended, which clients must see.
#[derive(Debug)]
struct EvenExpired(Arc<dyn ClientCertVerifier>);

impl ClientCertVerifier for EvenExpired {
    fn offer_client_auth(&self) -> bool {
        self.0.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.0.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.0.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        match self.0.verify_client_cert(end_entity, intermediates, now) {
            Err(Error::InvalidCertificate(
                CertificateError::Expired | CertificateError::ExpiredContext { .. },
            )) => Ok(ClientCertVerified::assertion()),
            judged => judged,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}
