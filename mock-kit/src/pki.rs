//! A throwaway certificate authority per mock instance (ECDSA P-256), and the TLS settings made from it.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose,
};
use rustls::crypto::CryptoProvider;
use rustls::server::danger::ClientCertVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use time::{Duration, OffsetDateTime};

/// File names inside a kept authority's directory.
const CA_CERT_FILE: &str = "ca.pem";
const CA_KEY_FILE: &str = "ca-key.pem";

/// Names every server certificate carries besides the asked ones, so that a client on this machine can verify it.
const LOOPBACK_NAMES: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

/// A certificate authority; its PEM file lives as long as this value unless it was opened from a directory.
pub struct TestCa {
    cert: CertificateDer<'static>,
    cert_pem: String,
    issuer: Issuer<'static, KeyPair>,
    pem_path: PathBuf,
    /// Deletes the private directory on drop.
    _private_dir: Option<tempfile::TempDir>,
}

/// A certificate with its key.
pub struct Leaf {
    /// The certificate.
    pub cert: CertificateDer<'static>,
    /// The certificate as PEM.
    pub cert_pem: String,
    /// The key as PEM (PKCS#8).
    pub key_pem: String,
    key: PrivatePkcs8KeyDer<'static>,
}

impl Leaf {
    /// The key as rustls takes it.
    pub fn key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::Pkcs8(self.key.clone_key())
    }
}

/// What a leaf is for; each makes another kind of certificate, some of them deliberately bad.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeafUse {
    /// A TLS server.
    Server,
    /// A TLS client.
    Client,
    /// A TLS server whose certificate ran out yesterday.
    ExpiredServer,
    /// A TLS client whose certificate ran out yesterday.
    ExpiredClient,
}

/// A certificate or key that could not be made or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PkiError {
    /// A name is neither a DNS name nor an address, or the certificate could not be signed.
    #[error("issue a certificate for {subject}")]
    Issue {
        /// For whom.
        subject: String,
        /// Why not.
        #[source]
        source: rcgen::Error,
    },
    /// A file of the authority cannot be read or written.
    #[error("use the authority's file {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// A stored authority does not parse.
    #[error("the authority in {} is damaged", path.display())]
    Damaged {
        /// The directory.
        path: PathBuf,
    },
    /// rustls refuses the settings.
    #[error("set up TLS")]
    Tls(#[source] rustls::Error),
}

impl TestCa {
    /// Makes a new authority and writes its certificate to a file in a private temporary directory.
    ///
    /// # Errors
    /// [`PkiError::File`] when the temporary directory cannot be written.
    pub fn new(common_name: &str) -> Result<Self, PkiError> {
        let temp = std::env::temp_dir();
        let dir = tempfile::Builder::new()
            .prefix("causeway-ca-")
            .tempdir()
            .map_err(|source| PkiError::File { path: temp, source })?;
        let (cert_pem, key) = generate_ca(common_name)?;
        let pem_path = dir.path().join(CA_CERT_FILE);
        write(&pem_path, &cert_pem)?;
        Self::assemble(cert_pem, key, pem_path, Some(dir))
    }

    /// Opens the authority kept in `dir`, or makes one there, so that it survives a restart of its mock.
    ///
    /// # Errors
    /// [`PkiError::File`] or [`PkiError::Damaged`]; a damaged authority is never replaced silently, because
    /// everything it signed would stop being trusted.
    pub fn open_or_create(dir: &Path, common_name: &str) -> Result<Self, PkiError> {
        let (cert_path, key_path) = (dir.join(CA_CERT_FILE), dir.join(CA_KEY_FILE));
        if cert_path.exists() || key_path.exists() {
            let read = |path: &Path| {
                std::fs::read_to_string(path)
                    .map_err(|source| PkiError::File { path: path.to_owned(), source })
            };
            let key = KeyPair::from_pem(&read(&key_path)?)
                .map_err(|_| PkiError::Damaged { path: dir.to_owned() })?;
            return Self::assemble(read(&cert_path)?, key, cert_path, None);
        }
        std::fs::create_dir_all(dir).map_err(|source| PkiError::File { path: dir.to_owned(), source })?;
        let (cert_pem, key) = generate_ca(common_name)?;
        write_private(&key_path, &key.serialize_pem())?;
        write(&cert_path, &cert_pem)?;
        Self::assemble(cert_pem, key, cert_path, None)
    }

    /// The authority's certificate as PEM.
    pub fn ca_pem(&self) -> &str {
        &self.cert_pem
    }

    /// The authority's certificate.
    pub fn ca_der(&self) -> &CertificateDer<'static> {
        &self.cert
    }

    /// The file that holds [`TestCa::ca_pem`].
    pub fn pem_path(&self) -> &Path {
        &self.pem_path
    }

    /// The issuing name and key, for a mock that signs requests of its own.
    pub fn issuer(&self) -> &Issuer<'static, KeyPair> {
        &self.issuer
    }

    /// A root store that trusts this authority only.
    pub fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(self.cert.clone()).expect("a certificate this authority made or parsed is a valid root");
        roots
    }

    /// A certificate and key for `names` (DNS names or addresses); the first one is the common name.
    ///
    /// # Errors
    /// [`PkiError::Issue`] when a name is not one.
    pub fn issue_leaf(&self, names: &[&str], usage: LeafUse) -> Result<Leaf, PkiError> {
        let subject = names.first().copied().unwrap_or("localhost");
        let failed = |source| PkiError::Issue { subject: subject.to_owned(), source };
        let mut all: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let server = matches!(usage, LeafUse::Server | LeafUse::ExpiredServer);
        if server {
            all.extend(
                LOOPBACK_NAMES.iter().filter(|name| !names.contains(name)).map(|name| (*name).to_owned()),
            );
        }
        let mut params = CertificateParams::new(all).map_err(failed)?;
        params.distinguished_name = common_name(subject);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![match server {
            true => ExtendedKeyUsagePurpose::ServerAuth,
            false => ExtendedKeyUsagePurpose::ClientAuth,
        }];
        params.use_authority_key_identifier_extension = true;
        let now = OffsetDateTime::now_utc();
        params.not_before = now - Duration::days(2);
        params.not_after = match usage {
            LeafUse::Server | LeafUse::Client => now + Duration::days(365),
            LeafUse::ExpiredServer | LeafUse::ExpiredClient => now - Duration::days(1),
        };
        let key = KeyPair::generate().map_err(failed)?;
        let cert = params.signed_by(&key, &self.issuer).map_err(failed)?;
        Ok(Leaf {
            cert: cert.der().clone(),
            cert_pem: cert.pem(),
            key_pem: key.serialize_pem(),
            key: PrivatePkcs8KeyDer::from(key.serialize_der()),
        })
    }

    /// TLS 1.2 and 1.3 server settings with a fresh certificate for `names` (and loopback), no client certificates.
    ///
    /// # Errors
    /// [`PkiError`] when a name is not one.
    pub fn server_config(&self, names: &[&str], alpn: &[&[u8]]) -> Result<Arc<ServerConfig>, PkiError> {
        self.server_config_with(self.issue_leaf(names, LeafUse::Server)?, alpn, None)
    }

    /// As [`TestCa::server_config`], asking clients for a certificate that `verifier` judges.
    ///
    /// # Errors
    /// [`PkiError`] when a name is not one.
    pub fn server_config_requesting_clients(
        &self,
        names: &[&str],
        alpn: &[&[u8]],
        verifier: Arc<dyn ClientCertVerifier>,
    ) -> Result<Arc<ServerConfig>, PkiError> {
        self.server_config_with(self.issue_leaf(names, LeafUse::Server)?, alpn, Some(verifier))
    }

    /// Server settings around a given leaf, for instance an expired one.
    ///
    /// # Errors
    /// [`PkiError::Tls`] when rustls refuses the leaf.
    pub fn server_config_with(
        &self,
        leaf: Leaf,
        alpn: &[&[u8]],
        verifier: Option<Arc<dyn ClientCertVerifier>>,
    ) -> Result<Arc<ServerConfig>, PkiError> {
        let builder = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(PkiError::Tls)?;
        let builder = match verifier {
            Some(verifier) => builder.with_client_cert_verifier(verifier),
            None => builder.with_no_client_auth(),
        };
        let key = leaf.key();
        let mut config =
            builder.with_single_cert(vec![leaf.cert, self.cert.clone()], key).map_err(PkiError::Tls)?;
        config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
        Ok(Arc::new(config))
    }

    /// Client settings that trust this authority only.
    pub fn client_config(&self) -> Arc<ClientConfig> {
        Arc::new(self.client_builder().with_no_client_auth())
    }

    /// Client settings that trust this authority only and present `leaf`.
    ///
    /// # Errors
    /// [`PkiError::Tls`] when rustls refuses the leaf.
    pub fn client_config_with(&self, leaf: &Leaf) -> Result<Arc<ClientConfig>, PkiError> {
        self.client_builder()
            .with_client_auth_cert(vec![leaf.cert.clone()], leaf.key())
            .map(Arc::new)
            .map_err(PkiError::Tls)
    }

    fn client_builder(&self) -> rustls::ConfigBuilder<ClientConfig, rustls::client::WantsClientCert> {
        ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .expect("aws-lc-rs supports the default versions")
            .with_root_certificates(self.roots())
    }

    fn assemble(
        cert_pem: String,
        key: KeyPair,
        pem_path: PathBuf,
        private_dir: Option<tempfile::TempDir>,
    ) -> Result<Self, PkiError> {
        let damaged = || PkiError::Damaged { path: pem_path.parent().unwrap_or(&pem_path).to_owned() };
        let cert = CertificateDer::from_pem_slice(cert_pem.as_bytes()).map_err(|_| damaged())?;
        RootCertStore::empty().add(cert.clone()).map_err(|_| damaged())?;
        let issuer = Issuer::from_ca_cert_der(&cert, key).map_err(|_| damaged())?;
        Ok(Self { cert, cert_pem, issuer, pem_path, _private_dir: private_dir })
    }
}

/// The one cryptography provider, named explicitly so that no process-wide default is needed.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

fn generate_ca(name: &str) -> Result<(String, KeyPair), PkiError> {
    let failed = |source| PkiError::Issue { subject: name.to_owned(), source };
    let mut params = CertificateParams::new(Vec::new()).map_err(failed)?;
    params.distinguished_name = common_name(name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(1));
    params.key_usages =
        vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
    let now = OffsetDateTime::now_utc();
    params.not_before = now - Duration::days(3);
    params.not_after = now + Duration::days(3_650);
    let key = KeyPair::generate().map_err(failed)?;
    let cert = params.self_signed(&key).map_err(failed)?;
    Ok((cert.pem(), key))
}

fn common_name(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}

/// True when `name` is an IP address rather than a DNS name.
pub fn is_address(name: &str) -> bool {
    name.parse::<IpAddr>().is_ok()
}

fn write(path: &Path, text: &str) -> Result<(), PkiError> {
    std::fs::write(path, text).map_err(|source| PkiError::File { path: path.to_owned(), source })
}

/// Creates the file readable by its owner only: it holds a private key.
fn write_private(path: &Path, text: &str) -> Result<(), PkiError> {
    use std::io::Write as _;
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
        .open(path)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .map_err(|source| PkiError::File { path: path.to_owned(), source })
}
