//! TLS settings for peers whose certificate authority comes as PEM.

use anyhow::{Context, Result};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};

/// A client that trusts the authorities in `ca_pem` and nobody else.
///
/// # Errors
/// When there is no usable certificate in it.
pub fn trusting_only(ca_pem: &str) -> Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(ca_pem.as_bytes()) {
        roots.add(certificate.context("read the CA's PEM")?).context("trust the CA")?;
    }
    Ok(ClientConfig::builder().with_root_certificates(roots).with_no_client_auth())
}
