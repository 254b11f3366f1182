//! What an authority gives back, judged: the certificate with the request's key, its chain, and whether it is the
//! authority that settings mean.

use std::future::Future;
use std::sync::{Mutex, PoisonError};

use causeway_protocol::certificate::{CertificateId, RevocationReason};
use causeway_protocol::cms::Bag;
use causeway_protocol::pkix::{Accept, Certificate, Csr};
use tokio::time::Instant;

use super::http::Endpoint;
use super::settings::CaSettings;
use super::{Answer, CaError, Order, Revocation, limits};
use crate::dial::tls::read_certificates;

/// The certificate of an order out of a bag of certificates, in any order.
///
/// # Errors
/// [`CaError::Answer`] when none has the request's key, or another authority has signed.
pub(super) fn answer(
    endpoint: &Endpoint,
    settings: &CaSettings,
    order: &Order,
    bag: &[Vec<u8>],
) -> Result<Answer, CaError> {
    let wrong = |detail: &str| CaError::Answer { host: endpoint.to_string(), detail: detail.to_owned() };
    let csr = Csr::read(&order.csr)
        .map_err(|_| CaError::Settings { detail: "the request is no PKCS#10".to_owned() })?;
    let read = read_all(endpoint, bag)?;
    let own = read.iter().find(|one| one.public_key().same_as(csr.public_key()));
    let own = own.ok_or_else(|| {
        wrong("the certificate is for another key; something between us and the authority exchanges answers")
    })?;
    let chain = above(own, &read, settings)?;
    check(endpoint, settings, own, &chain)?;
    let chain = chain.iter().map(|one| one.raw().to_vec()).collect();
    Ok(Answer::Issued { certificate: own.raw().to_vec(), chain })
}

/// The authorities in a bag from the issuer upwards, and whether they are the ones that settings mean.
///
/// # Errors
/// [`CaError::Answer`] when they are not.
pub(super) fn upwards(
    endpoint: &Endpoint,
    settings: &CaSettings,
    bag: &[Vec<u8>],
) -> Result<Vec<Vec<u8>>, CaError> {
    let wrong = |detail: &str| CaError::Answer { host: endpoint.to_string(), detail: detail.to_owned() };
    let read = read_all(endpoint, bag)?;
    let is_above = |one: &Certificate| {
        read.iter().any(|other| other.raw() != one.raw() && other.issuer_raw() == one.subject_raw())
    };
    let issuer = read.iter().find(|one| !is_above(one)).or(read.first());
    let issuer = issuer.ok_or_else(|| wrong("there is no certificate of an authority"))?;
    let mut chain = vec![issuer.clone()];
    chain.extend(above(issuer, &read, settings)?);
    is_meant(endpoint, settings, &chain)?;
    Ok(chain.iter().map(|one| one.raw().to_vec()).collect())
}

/// Ends of the certificates of a chain.
pub(super) fn ends(chain: &[Vec<u8>]) -> Vec<(String, i64)> {
    let read = chain.iter().filter_map(|der| Certificate::read(der).ok());
    read.map(|one| (format!("the authority {}", one.subject()), one.not_after_ms())).collect()
}

/// Certificates of a certs-only PKCS#7.
///
/// # Errors
/// [`CaError::Answer`]
pub(super) fn bag(endpoint: &Endpoint, bytes: &[u8]) -> Result<Vec<Vec<u8>>, CaError> {
    let read = Bag::read(bytes).map_err(|_| CaError::Answer {
        host: endpoint.to_string(),
        detail: "what should be a PKCS#7 with certificates is none".to_owned(),
    })?;
    Ok(read.certificates.iter().map(|one| one.raw().to_vec()).collect())
}

/// How a person ends a certificate of Active Directory Certificate Services.
pub(super) fn by_certutil(id: &CertificateId, reason: RevocationReason) -> Revocation {
    Revocation::Impossible(format!(
        "an administrator of the authority {} runs: certutil -revoke {} {}",
        id.issuer,
        id.serial,
        reason.code()
    ))
}

/// What is said where settings forbid to tell the authority.
pub(super) fn not_told() -> Revocation {
    Revocation::Impossible(
        "the settings of the authority say that it is not told; revoke it in its own console".to_owned(),
    )
}

/// Text of an authority, for an error: one line of bounded length.
pub(super) fn shortened(text: &str) -> String {
    let line: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
    line.chars().filter(|c| !c.is_control()).take(limits::TEXT_MAX_CHARS).collect()
}

/// The authorities of a front end, read once in a while and again when they do not fit any more.
#[derive(Default)]
pub(super) struct Chain(Mutex<Option<(Instant, Vec<Vec<u8>>)>>);

impl Chain {
    /// Those that fit a certificate.
    ///
    /// # Errors
    /// As `read`.
    pub(super) async fn with<F>(
        &self,
        certificate: &[u8],
        read: impl FnOnce() -> F,
    ) -> Result<Vec<Vec<u8>>, CaError>
    where
        F: Future<Output = Result<Vec<Vec<u8>>, CaError>>,
    {
        if let Some(known) = self.known(certificate) {
            return Ok(known);
        }
        let fresh = read().await?;
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), fresh.clone()));
        Ok(fresh)
    }

    fn known(&self, certificate: &[u8]) -> Option<Vec<Vec<u8>>> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (since, chain) = kept.as_ref()?;
        let leaf = Certificate::read(certificate).ok()?;
        let fits =
            chain.iter().filter_map(|der| Certificate::read(der).ok()).any(|one| is_issuer(&one, &leaf));
        (fits && since.elapsed() < limits::CAPABILITIES_HOLD).then(|| chain.clone())
    }
}

fn read_all(endpoint: &Endpoint, bag: &[Vec<u8>]) -> Result<Vec<Certificate>, CaError> {
    let read = |der: &Vec<u8>| {
        Certificate::read(der).map_err(|_| CaError::Answer {
            host: endpoint.to_string(),
            detail: "what should be a certificate is none".to_owned(),
        })
    };
    bag.iter().map(read).collect()
}

/// The chain above a certificate, out of what came along and what settings trust.
fn above(
    leaf: &Certificate,
    bag: &[Certificate],
    settings: &CaSettings,
) -> Result<Vec<Certificate>, CaError> {
    let trusted = trusted(settings)?;
    let mut chain: Vec<Certificate> = Vec::new();
    loop {
        let last = chain.last().unwrap_or(leaf);
        if last.names_itself() || chain.len() >= limits::CHAIN_MAX {
            return Ok(chain);
        }
        let next = bag.iter().chain(&trusted).find(|one| is_issuer(one, last));
        match next {
            Some(next) => chain.push(next.clone()),
            None => return Ok(chain),
        }
    }
}

fn is_issuer(one: &Certificate, of: &Certificate) -> bool {
    // An old authority may still sign with SHA-1; who it is, settings say.
    one.is_ca() && of.issued_by(one, Accept::LEGACY)
}

fn check(
    endpoint: &Endpoint,
    settings: &CaSettings,
    leaf: &Certificate,
    chain: &[Certificate],
) -> Result<(), CaError> {
    if chain.is_empty() && (settings.fingerprint.is_some() || settings.ca_file.is_some()) {
        let detail = format!(
            "{} has signed, whose certificate neither came along nor is in ca_file; add it there if it is yours",
            leaf.issuer()
        );
        return Err(CaError::Answer { host: endpoint.to_string(), detail });
    }
    is_meant(endpoint, settings, chain)
}

/// Whether a chain, from the issuer upwards, is the one that settings mean.
fn is_meant(endpoint: &Endpoint, settings: &CaSettings, chain: &[Certificate]) -> Result<(), CaError> {
    let Some(issuer) = chain.first() else { return Ok(()) };
    let host = endpoint.to_string();
    if let Some(expected) = settings.is_expected(std::iter::once(issuer.sha256().as_str())) {
        if !expected {
            let detail = format!(
                "{} has signed, and its fingerprint is {}; put that into the settings if it is yours",
                issuer.subject(),
                issuer.sha256()
            );
            return Err(CaError::Answer { host, detail });
        }
        return Ok(());
    }
    let trusted = trusted(settings)?;
    let leads =
        |one: &Certificate| trusted.iter().any(|root| root.raw() == one.raw() || is_issuer(root, one));
    if settings.ca_file.is_some() && !chain.iter().any(leads) {
        let detail = format!(
            "{} has signed, which does not lead to ca_file; add it there if it is yours",
            issuer.subject()
        );
        return Err(CaError::Answer { host, detail });
    }
    Ok(())
}

fn trusted(settings: &CaSettings) -> Result<Vec<Certificate>, CaError> {
    let Some(file) = &settings.ca_file else { return Ok(Vec::new()) };
    let read = read_certificates(file)
        .map_err(|error| CaError::Settings { detail: causeway_protocol::Chain(&error).to_string() })?;
    Ok(read.iter().filter_map(|der| Certificate::read(der).ok()).collect())
}
