//! Exchange Online's admin REST (`InvokeCommand`) and the token endpoint that lets an application in.

use std::sync::{Arc, Mutex, PoisonError};

use causeway_mock_kit::listen::FaultStream;

use crate::config::RestConfig;
use crate::server::{Shared, StartError};

/// Why a certificate is not registered.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CertificateError {
    #[error("the text is no PEM certificate")]
    NotPem,
    #[error("the certificate cannot be read")]
    Unreadable,
    #[error("the certificate's key is not RSA")]
    NotRsa,
    #[error("{} certificates are registered already", crate::limits::APP_CERTIFICATES_MAX)]
    TooMany,
}

/// What the REST and token front ends remember.
pub struct Rest {
    certificates: Mutex<Vec<String>>,
}

impl Rest {
    pub(crate) fn new(_config: &RestConfig) -> Result<Self, StartError> {
        Ok(Self { certificates: Mutex::default() })
    }

    pub(crate) fn register(&self, pem: &str) -> Result<String, CertificateError> {
        self.certificates.lock().unwrap_or_else(PoisonError::into_inner).push(pem.to_owned());
        Err(CertificateError::NotPem)
    }

    pub(crate) fn forget(&self) {}
}

pub(crate) async fn serve(shared: Arc<Shared>, front: &'static str, stream: FaultStream) {
    let _ = (shared, front, stream);
}
