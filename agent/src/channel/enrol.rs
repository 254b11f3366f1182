//! Enrolment: a key made here, a one-time key from a person, a certificate from the cloud.

use causeway_protocol::Secret;
use causeway_protocol::channel::payload::{Certificate, CertificateRequest, Payload};
use causeway_protocol::limits::{ELEMENT_PRE_AUTH_MAX_BYTES, LOGIN_WITHIN};
use futures_util::FutureExt;
use thiserror::Error;
use tokio::time::timeout;

use super::limited::Limited;
use super::login::{self, Credentials, LoginError};
use super::{Connect, ConnectError};
use crate::identity::{Identity, IdentityError, PendingKey};
use crate::limits::CLOSE_WITHIN;

/// A one-time key as people get it: `cw1-<id>-<secret>`.
pub struct EnrolmentKey {
    id: String,
    secret: Secret,
}

/// Why enrolment failed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum EnrolError {
    /// Not a key at all.
    #[error("the enrolment key does not have the form cw1-<id>-<secret>; copy it again from the portal")]
    KeyForm,
    /// No way to the cloud.
    #[error("reach the cloud")]
    Connect {
        /// Why.
        #[source]
        source: ConnectError,
    },
    /// The cloud does not let us in.
    #[error("log in with the enrolment key")]
    Login {
        /// Why.
        #[source]
        source: LoginError,
    },
    /// The cloud gave no certificate.
    #[error("have our key certified")]
    Certificate {
        /// Why.
        #[source]
        source: LoginError,
    },
    /// What it gave is unusable.
    #[error("use the certificate")]
    Identity {
        /// Why.
        #[source]
        source: IdentityError,
    },
}

impl EnrolmentKey {
    /// Takes a key apart.
    ///
    /// # Errors
    /// When it has another form. The text is never repeated.
    pub fn parse(text: &Secret) -> Result<Self, EnrolError> {
        let rest = text.expose().trim().strip_prefix("cw1-").ok_or(EnrolError::KeyForm)?;
        let (id, secret) = rest.split_once('-').ok_or(EnrolError::KeyForm)?;
        if id.is_empty() || secret.is_empty() {
            return Err(EnrolError::KeyForm);
        }
        Ok(Self { id: id.to_owned(), secret: Secret::new(secret) })
    }
}

/// Enrols as `host`, the name people see. `domain` is what the cloud is called on the stream before it has told us its name: the URL's host.
///
/// # Errors
/// Says at which step and who is at fault. The key is spent only when the cloud has issued a certificate.
pub async fn enrol(
    connect: &dyn Connect,
    domain: &str,
    host: String,
    key: EnrolmentKey,
) -> Result<Identity, EnrolError> {
    let pending = PendingKey::generate().map_err(|source| EnrolError::Identity { source })?;
    let csr_pem = pending.request_pem().map_err(|source| EnrolError::Identity { source })?;
    let io = connect.connect(None).await.map_err(|source| EnrolError::Connect { source })?;
    let io = Limited::new(io, ELEMENT_PRE_AUTH_MAX_BYTES);
    let credentials = Credentials::Password { username: key.id, secret: key.secret };
    let authenticated = timeout(LOGIN_WITHIN, login::authenticate(io, domain, &credentials).boxed())
        .await
        .unwrap_or(Err(LoginError::TimedOut))
        .map_err(|source| EnrolError::Login { source })?;
    let mut stream = authenticated.stream;
    let request = CertificateRequest { csr_pem, host };
    let answer = timeout(LOGIN_WITHIN, login::ask(&mut stream, "certify our key", request.to_element()))
        .await
        .unwrap_or(Err(LoginError::TimedOut))
        .map_err(|source| EnrolError::Certificate { source })?;
    let _ = timeout(CLOSE_WITHIN, stream.shutdown()).await;
    let unusable =
        || LoginError::Unexpected { wanted: "a certificate", got: "an answer without one".to_owned() };
    let certificate = answer
        .and_then(|element| Certificate::from_element(&element).ok())
        .ok_or_else(|| EnrolError::Certificate { source: unusable() })?;
    pending.certified(certificate).map_err(|source| EnrolError::Identity { source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_taken_apart_and_never_repeated() {
        let key = EnrolmentKey::parse(&Secret::new(" cw1-k7-se-cret \n")).ok().unwrap();
        assert_eq!((key.id.as_str(), key.secret.expose()), ("k7", "se-cret"));
        for bad in ["", "cw1-", "cw1-canary", "cw1--canary", "canary-k-s"] {
            let Err(error) = EnrolmentKey::parse(&Secret::new(bad)) else { panic!("{bad} accepted") };
            assert!(!error.to_string().contains("canary"), "{error}");
        }
    }
}
