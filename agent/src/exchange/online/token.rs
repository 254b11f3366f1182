//! Tokens for an application: client credentials with an assertion signed by its certificate's key (RFC 7523 §2.2, as
//! Entra ID wants it).

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{RSA_PKCS1_SHA256, RSA_PSS_SHA256, RsaKeyPair};
use aws_lc_rs::{digest, encoding, signature};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use causeway_protocol::Secret;
use http::HeaderMap;
use http::header::{CONTENT_TYPE, HeaderValue};
use rustls::ClientConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde::Deserialize;
use serde_json::json;
use thiserror::Error;
use tokio::time::Instant;

use crate::dial::Side;
use crate::dial::tls::{TlsError, read_certificates};
use crate::directory::Net;
use crate::exchange::limits;
use crate::exchange::settings::{Assertion, ExchangeSettings};
use crate::random::RandomSource;
use crate::secrets::SecretStore;
use crate::web::connection::{Connection, HttpError, retry_after};
use crate::web::endpoint::Endpoint;

/// Why there is no token.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TokenError {
    /// The application's certificate.
    #[error("use the application's certificate")]
    Certificate(#[source] TlsError),
    /// The application's key.
    #[error("the secret {name} is no usable RSA key of the application's certificate: {why}")]
    Key {
        /// Name of the secret.
        name: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// There is no key.
    #[error("the secret {name} with the key of the application's certificate is not stored")]
    NoKey {
        /// Name of the secret.
        name: String,
    },
    /// It was refused before, and nothing has been stored since.
    #[error("application {client_id} was refused before; correct its registration, then store its key again")]
    Held {
        /// The application.
        client_id: String,
    },
    /// The service does not accept the application.
    #[error("{server} refuses application {client_id} ({error}): {words}")]
    Refused {
        /// Host and port.
        server: String,
        /// The application.
        client_id: String,
        /// The code (RFC 6749 §5.2).
        error: String,
        /// In its words.
        words: String,
    },
    /// Too many requests.
    #[error("{server} is busy ({status})")]
    Busy {
        /// Host and port.
        server: String,
        /// HTTP status.
        status: u16,
        /// When to come back, if it said so.
        retry_after: Option<Duration>,
    },
    /// Not what a token service says.
    #[error("{server} answers {status} without a token")]
    Unexpected {
        /// Host and port.
        server: String,
        /// HTTP status.
        status: u16,
    },
    /// The connection.
    #[error(transparent)]
    Http(#[from] HttpError),
}

/// Gets tokens and keeps the newest.
pub(super) struct Tokens {
    settings: Arc<ExchangeSettings>,
    key_name: String,
    secrets: SecretStore,
    random: RandomSource,
    endpoint: Endpoint,
    /// Held while one is fetched: who comes second takes it.
    current: tokio::sync::Mutex<Option<Token>>,
}

/// A bearer token.
#[derive(Clone)]
pub(super) struct Token {
    pub(super) text: Secret,
    until: Instant,
}

#[derive(Deserialize)]
struct Granted {
    access_token: String,
    expires_in: u64,
}

#[derive(Deserialize)]
struct Denied {
    error: String,
    #[serde(default)]
    error_description: String,
}

impl Tokens {
    pub(super) fn new(
        settings: Arc<ExchangeSettings>,
        key_name: String,
        secrets: SecretStore,
        random: RandomSource,
        endpoint: Endpoint,
    ) -> Self {
        Self { settings, key_name, secrets, random, endpoint, current: tokio::sync::Mutex::default() }
    }

    /// A token that will be good for a while. `spent` is one that a server has just refused.
    pub(super) async fn get(
        &self,
        net: &Net,
        tls: &Arc<ClientConfig>,
        spent: Option<&Token>,
    ) -> Result<Token, TokenError> {
        let mut current = self.current.lock().await;
        if let Some(token) = &*current
            && token.until > net.clock.now()
            && spent.is_none_or(|spent| spent.text.expose() != token.text.expose())
        {
            return Ok(token.clone());
        }
        *current = None;
        let token = self.fetch(net, tls).await?;
        *current = Some(token.clone());
        Ok(token)
    }

    async fn fetch(&self, net: &Net, tls: &Arc<ClientConfig>) -> Result<Token, TokenError> {
        let client_id = &self.settings.client_id;
        let key = self.secrets.newest(&self.key_name).filter(|key| !key.is_empty());
        let key = key.ok_or_else(|| TokenError::NoKey { name: self.key_name.clone() })?;
        if self.secrets.is_refused(client_id, &key) {
            return Err(TokenError::Held { client_id: client_id.clone() });
        }
        let path = self.settings.certificate_file.clone().unwrap_or_default();
        let certificates = read_certificates(&path).map_err(TokenError::Certificate)?;
        let signer = Signer::new(self.settings.assertion, &certificates[0], key.expose())
            .map_err(|why| TokenError::Key { name: self.key_name.clone(), why })?;
        let now_secs = net.clock.now_ms() / 1000;
        let claims = json!({
            "aud": self.endpoint.url,
            "iss": client_id,
            "sub": client_id,
            "jti": self.random.uuid().to_string(),
            "nbf": now_secs,
            "exp": now_secs + i64::try_from(limits::ASSERTION_LIFETIME.as_secs()).unwrap_or_default(),
        });
        let assertion =
            signer.sign(&claims).map_err(|why| TokenError::Key { name: self.key_name.clone(), why })?;
        let body = form(&[
            ("grant_type", "client_credentials"),
            ("client_id", client_id),
            ("scope", &self.settings.scope),
            ("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"),
            ("client_assertion", &assertion),
        ]);
        let mut connection = Connection::open(net, Side::Outside, &self.endpoint, tls).await?;
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
        let (within, max) = (limits::TOKEN_WITHIN, limits::TOKEN_BODY_MAX_BYTES);
        let asked = net.clock.now();
        let answer = connection.post(&self.endpoint, headers, Bytes::from(body), within, max).await?;
        let (server, status) = (self.endpoint.to_string(), answer.status.as_u16());
        if matches!(status, 429 | 500..=599) {
            return Err(TokenError::Busy { server, status, retry_after: retry_after(&answer.headers) });
        }
        if let Ok(granted) = serde_json::from_slice::<Granted>(&answer.body)
            && answer.status.is_success()
        {
            let lifetime = Duration::from_secs(granted.expires_in.min(86_400));
            // Short tokens are a test's; they are used for half of their life.
            let usable = lifetime.saturating_sub(limits::TOKEN_MARGIN).max(lifetime / 2);
            return Ok(Token { text: Secret::new(granted.access_token), until: asked + usable });
        }
        match serde_json::from_slice::<Denied>(&answer.body) {
            Ok(denied) => {
                if matches!(denied.error.as_str(), "invalid_client" | "unauthorized_client") {
                    self.secrets.note_refused(client_id, &key);
                }
                let words = denied.error_description.chars().take(limits::TEXT_MAX_CHARS).collect();
                Err(TokenError::Refused { server, client_id: client_id.clone(), error: denied.error, words })
            }
            Err(_) => Err(TokenError::Unexpected { server, status }),
        }
    }
}

/// Signs assertions.
struct Signer {
    assertion: Assertion,
    thumbprint: String,
    key: RsaKeyPair,
}

impl Signer {
    fn new(assertion: Assertion, certificate: &CertificateDer<'_>, key: &str) -> Result<Self, &'static str> {
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|_| "it is not in PEM form")?;
        let key = match &key {
            PrivateKeyDer::Pkcs8(key) => RsaKeyPair::from_pkcs8(key.secret_pkcs8_der()),
            PrivateKeyDer::Pkcs1(key) => RsaKeyPair::from_der(key.secret_pkcs1_der()),
            _ => return Err("it is no RSA key"),
        };
        let key = key.map_err(|_| "it is no RSA key of 2048 bits or more")?;
        if !belongs(&key, certificate) {
            return Err("the certificate is for another key");
        }
        let hash = match assertion {
            Assertion::Rs256 => digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, certificate),
            Assertion::Ps256 => digest::digest(&digest::SHA256, certificate),
        };
        Ok(Self { assertion, thumbprint: URL_SAFE_NO_PAD.encode(hash), key })
    }

    /// A JWT (RFC 7519) with these claims.
    fn sign(&self, claims: &serde_json::Value) -> Result<String, &'static str> {
        let (header, padding): (_, &dyn signature::RsaEncoding) = match self.assertion {
            Assertion::Rs256 => {
                (json!({ "alg": "RS256", "typ": "JWT", "x5t": self.thumbprint }), &RSA_PKCS1_SHA256)
            }
            Assertion::Ps256 => {
                (json!({ "alg": "PS256", "typ": "JWT", "x5t#S256": self.thumbprint }), &RSA_PSS_SHA256)
            }
        };
        let encode = |value: &serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let text = format!("{}.{}", encode(&header), encode(claims));
        let mut signed = vec![0; self.key.public_modulus_len()];
        self.key
            .sign(padding, &SystemRandom::new(), text.as_bytes(), &mut signed)
            .map_err(|_| "it cannot sign")?;
        Ok(format!("{text}.{}", URL_SAFE_NO_PAD.encode(signed)))
    }
}

/// Whether a certificate holds the key's public half; a wrong pair is refused here before the service counts it.
fn belongs(key: &RsaKeyPair, certificate: &CertificateDer<'_>) -> bool {
    use aws_lc_rs::signature::KeyPair as _;
    use encoding::AsDer as _;
    let Ok((_, parsed)) = x509_parser::parse_x509_certificate(certificate) else { return false };
    let ours: Result<encoding::PublicKeyX509Der<'_>, _> = key.public_key().as_der();
    ours.is_ok_and(|ours| ours.as_ref() == parsed.public_key().raw)
}

fn form(fields: &[(&str, &str)]) -> String {
    let pairs = fields.iter().map(|(name, value)| format!("{name}={}", escaped(value)));
    pairs.collect::<Vec<_>>().join("&")
}

/// `application/x-www-form-urlencoded`, with everything escaped that is not unreserved (RFC 3986 §2.3).
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            byte => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::signature::{RSA_PKCS1_2048_8192_SHA256, RSA_PSS_2048_8192_SHA256, UnparsedPublicKey};
    use serde_json::Value;

    use super::*;

    fn application() -> (CertificateDer<'static>, String, rcgen::KeyPair) {
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).unwrap();
        let certificate =
            rcgen::CertificateParams::new(vec!["app".into()]).unwrap().self_signed(&key).unwrap();
        (certificate.der().clone(), key.serialize_pem(), key)
    }

    #[test]
    fn assertions_name_the_certificate_and_verify() {
        let (certificate, pem, key) = application();
        for assertion in [Assertion::Rs256, Assertion::Ps256] {
            let signer = Signer::new(assertion, &certificate, &pem).unwrap();
            let jwt = signer.sign(&json!({ "aud": "https://login.example/token" })).unwrap();
            let parts: Vec<&str> = jwt.split('.').collect();
            let header: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(parts[0]).unwrap()).unwrap();
            let (alg, field, bytes) = match assertion {
                Assertion::Rs256 => ("RS256", "x5t", 20),
                Assertion::Ps256 => ("PS256", "x5t#S256", 32),
            };
            assert_eq!(header["alg"], alg);
            let thumbprint = URL_SAFE_NO_PAD.decode(header[field].as_str().unwrap()).unwrap();
            assert_eq!(thumbprint.len(), bytes);
            let signed = format!("{}.{}", parts[0], parts[1]);
            let signature = URL_SAFE_NO_PAD.decode(parts[2]).unwrap();
            use rcgen::PublicKeyData as _;
            let public = key.der_bytes();
            match assertion {
                Assertion::Rs256 => UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, public)
                    .verify(signed.as_bytes(), &signature),
                Assertion::Ps256 => UnparsedPublicKey::new(&RSA_PSS_2048_8192_SHA256, public)
                    .verify(signed.as_bytes(), &signature),
            }
            .unwrap();
        }
    }

    #[test]
    fn a_key_of_another_certificate_is_named_before_anybody_is_asked() {
        let ((certificate, ..), (_, pem, _)) = (application(), application());
        let refused = |key: &str| Signer::new(Assertion::Rs256, &certificate, key).err();
        assert_eq!(refused(&pem), Some("the certificate is for another key"));
        assert_eq!(refused("canary"), Some("it is not in PEM form"));
        let elliptic = rcgen::KeyPair::generate().unwrap().serialize_pem();
        assert_eq!(refused(&elliptic), Some("it is no RSA key of 2048 bits or more"));
    }

    #[test]
    fn forms_are_escaped() {
        assert_eq!(
            form(&[("scope", "https://a/.default"), ("b", "x y&z")]),
            "scope=https%3A%2F%2Fa%2F.default&b=x%20y%26z"
        );
    }
}
