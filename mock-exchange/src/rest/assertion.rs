//! Client assertions: a JWT (RFC 7523) signed with the key of a registered certificate.

use aws_lc_rs::digest;
use aws_lc_rs::signature::{
    RSA_PKCS1_2048_8192_SHA256, RSA_PSS_2048_8192_SHA256, UnparsedPublicKey, VerificationAlgorithm,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;
use x509_parser::prelude::{FromDer as _, X509Certificate};
use x509_parser::public_key::PublicKey;

use super::{Rest, held};
use crate::limits::{ASSERTION_IDS_MAX, ASSERTION_LIFE_MAX_SECS, CLOCK_SKEW_SECS};

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

/// A registered certificate, in the parts that matter.
pub(super) struct Registered {
    sha1: Vec<u8>,
    sha256: Vec<u8>,
    /// `RSAPublicKey` (RFC 8017 A.1.1).
    key: Vec<u8>,
}

impl Registered {
    pub(super) fn read(pem: &str) -> Result<Self, CertificateError> {
        let (_, pem) =
            x509_parser::pem::parse_x509_pem(pem.as_bytes()).map_err(|_| CertificateError::NotPem)?;
        if pem.label != "CERTIFICATE" {
            return Err(CertificateError::NotPem);
        }
        let (_, certificate) =
            X509Certificate::from_der(&pem.contents).map_err(|_| CertificateError::Unreadable)?;
        let spki = certificate.public_key();
        match spki.parsed() {
            Ok(PublicKey::RSA(_)) => {}
            Ok(_) => return Err(CertificateError::NotRsa),
            Err(_) => return Err(CertificateError::Unreadable),
        }
        Ok(Self {
            sha1: digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, &pem.contents).as_ref().to_vec(),
            sha256: digest::digest(&digest::SHA256, &pem.contents).as_ref().to_vec(),
            key: spki.subject_public_key.data.to_vec(),
        })
    }

    /// SHA-1 in upper-case hexadecimal.
    pub(super) fn thumbprint(&self) -> String {
        self.sha1.iter().map(|byte| format!("{byte:02X}")).collect()
    }
}

/// Why an assertion is refused. The numbers are those the service's sign-in errors have (from its documentation; the one for
/// a repeated identifier is unverified).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    Malformed,
    Algorithm,
    UnknownKey,
    Signature,
    Audience,
    Issuer,
    Time,
    Replayed,
}

impl Refused {
    pub(super) fn code(self) -> (u32, &'static str) {
        match self {
            Self::Malformed => (50_027, "JWT token is invalid or malformed."),
            Self::Algorithm => (700_027, "Client assertion contains an unsupported signing algorithm."),
            Self::UnknownKey => (
                700_027,
                "Client assertion failed signature validation: the key was not found by the thumbprint.",
            ),
            Self::Signature => (700_027, "Client assertion contains an invalid signature."),
            Self::Audience => (700_023, "Client assertion audience claim does not match Realm issuer."),
            Self::Issuer => {
                (700_021, "Client assertion application identifier doesn't match 'client_id' parameter.")
            }
            Self::Time => (700_024, "Client assertion is not within its valid time range."),
            Self::Replayed => (700_030, "Client assertion has been used before."),
        }
    }
}

/// Checks an assertion of `client_id` for the token endpoint `audience`, which by its port may have several names.
pub(super) fn check(
    rest: &Rest,
    assertion: &str,
    client_id: &str,
    audience: impl Fn(&str) -> bool,
    now_secs: i64,
) -> Result<(), Refused> {
    let mut parts = assertion.split('.');
    let (Some(header), Some(claims), Some(signature), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(Refused::Malformed);
    };
    let signed = &assertion[..header.len() + 1 + claims.len()];
    let (header, claims) = (decode(header)?, decode(claims)?);
    let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|_| Refused::Malformed)?;
    verify(rest, &header, signed, &signature)?;
    let text = |name: &str| claims[name].as_str().unwrap_or_default();
    if !audience(text("aud")) {
        return Err(Refused::Audience);
    }
    if text("iss") != client_id || text("sub") != client_id {
        return Err(Refused::Issuer);
    }
    let expires = instant(&claims["exp"]).ok_or(Refused::Time)?;
    let begins = instant(&claims["nbf"]).or_else(|| instant(&claims["iat"])).unwrap_or(now_secs);
    let valid = expires > now_secs - CLOCK_SKEW_SECS
        && begins <= now_secs + CLOCK_SKEW_SECS
        && expires.saturating_sub(begins) <= ASSERTION_LIFE_MAX_SECS;
    if !valid {
        return Err(Refused::Time);
    }
    let id = text("jti");
    if id.is_empty() {
        return Err(Refused::Malformed);
    }
    let Some(used) = &rest.used else { return Ok(()) };
    let mut used = held(used);
    used.retain(|(_, until)| *until > now_secs);
    if used.iter().any(|(known, _)| known == id) || used.len() >= ASSERTION_IDS_MAX {
        return Err(Refused::Replayed);
    }
    used.push_back((id.to_owned(), expires + CLOCK_SKEW_SECS));
    Ok(())
}

/// `RS256` names its key by `x5t`, `PS256` by `x5t#S256`; both may be there.
fn verify(rest: &Rest, header: &Value, signed: &str, signature: &[u8]) -> Result<(), Refused> {
    let algorithm: &dyn VerificationAlgorithm = match header["alg"].as_str() {
        Some("RS256") => &RSA_PKCS1_2048_8192_SHA256,
        Some("PS256") => &RSA_PSS_2048_8192_SHA256,
        _ => return Err(Refused::Algorithm),
    };
    // RFC 7515 has no padding; MSAL for Python writes it, and is let in.
    let thumbprint = |name: &str| {
        let text = header[name].as_str()?.trim_end_matches('=');
        URL_SAFE_NO_PAD.decode(text).ok()
    };
    let (sha1, sha256) = (thumbprint("x5t"), thumbprint("x5t#S256"));
    let certificates = held(&rest.certificates);
    let named = |known: &&Registered| {
        sha256.as_deref().is_some_and(|shown| shown == known.sha256)
            || sha1.as_deref().is_some_and(|shown| shown == known.sha1)
    };
    let certificate = certificates.iter().find(named).ok_or(Refused::UnknownKey)?;
    UnparsedPublicKey::new(algorithm, &certificate.key)
        .verify(signed.as_bytes(), signature)
        .map_err(|_| Refused::Signature)
}

/// A NumericDate (RFC 7519 2), which may have a fraction: MSAL for Python writes one.
fn instant(claim: &Value) -> Option<i64> {
    claim.as_i64().or_else(|| claim.as_f64().map(|secs| secs.floor() as i64))
}

fn decode(part: &str) -> Result<Value, Refused> {
    let bytes = URL_SAFE_NO_PAD.decode(part).map_err(|_| Refused::Malformed)?;
    serde_json::from_slice(&bytes).map_err(|_| Refused::Malformed)
}
