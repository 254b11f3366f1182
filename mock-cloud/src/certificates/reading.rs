//! What an agent reports as issued, read by ourselves: an agent's word alone makes nothing a device's certificate.

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use causeway_protocol::certificate::Issued;
use causeway_protocol::pkix::Certificate;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::renewal;
use crate::limits::{CERTIFICATE_MAX_BYTES, CHAIN_MAX};
use crate::store::NewCertificate;

/// A certificate that is what was ordered, and the identity that came with it.
pub(super) struct Read {
    pub(super) certificate: NewCertificate,
    pub(super) identity: Option<Vec<u8>>,
    /// Unix milliseconds of the first end among the authorities above it, with the name of that one.
    pub(super) authority_ends: Option<(i64, String)>,
}

/// What a certificate was ordered by.
pub(super) struct Terms<'a> {
    /// Name of the authority the order went to.
    pub(super) authority: &'a str,
    /// The public key of the device's signing request; nothing where the agent makes the key.
    pub(super) csr_key: Option<&'a [u8]>,
    /// Days before its end that it is renewed.
    pub(super) renew_days: u32,
}

/// Reads and checks what an agent reports.
///
/// # Errors
/// What does not fit, for people.
pub(super) fn read(issued: &Issued, request: &str, terms: &Terms<'_>) -> Result<Read, String> {
    if issued.request != request {
        return Err(format!("the answer is about the request {}", issued.request));
    }
    let der = decode("certificate", &issued.certificate)?;
    let parsed = whole("the certificate", X509Certificate::from_der(&der))?;
    let serial = hex(parsed.raw_serial());
    if serial.trim_start_matches('0') != issued.id.serial.trim_start_matches('0').to_lowercase() {
        return Err(format!("the certificate has the serial number {serial}, not {}", issued.id.serial));
    }
    match terms.csr_key {
        Some(key) if key != parsed.public_key().raw => {
            return Err("the certificate is for another key than the device's".to_owned());
        }
        None if issued.identity.is_none() => {
            return Err("the identity for the device is missing".to_owned());
        }
        _ => {}
    }
    if issued.chain.len() > CHAIN_MAX {
        return Err(format!("more than {CHAIN_MAX} authorities stand above the certificate"));
    }
    let identity = issued.identity.as_deref().map(|text| decode("identity", text)).transpose()?;
    let sha256 = hex(digest::digest(&digest::SHA256, &der).as_ref());
    let (not_before_ms, not_after_ms) =
        (parsed.validity().not_before.timestamp() * 1_000, parsed.validity().not_after.timestamp() * 1_000);
    let certificate = NewCertificate {
        renew_at_ms: renewal::moment(&sha256, not_before_ms, not_after_ms, terms.renew_days),
        issuer: issued.id.issuer.clone(),
        subject: issued.subject.clone(),
        authority: terms.authority.to_owned(),
        chain: issued.chain.clone(),
        serial: issued.id.serial.clone(),
        not_before_ms,
        not_after_ms,
        sha256,
        der: der.clone(),
    };
    Ok(Read { authority_ends: authority_ends(&issued.chain)?, certificate, identity })
}

/// The first end among authorities.
fn authority_ends(chain: &[String]) -> Result<Option<(i64, String)>, String> {
    let mut first: Option<(i64, String)> = None;
    for text in chain {
        let der = decode("chain", text)?;
        let authority = whole("an authority's certificate", X509Certificate::from_der(&der))?;
        let end_ms = authority.validity().not_after.timestamp() * 1_000;
        if first.as_ref().is_none_or(|(ms, _)| end_ms < *ms) {
            first = Some((end_ms, authority.subject().to_string()));
        }
    }
    Ok(first)
}

/// The public key (SubjectPublicKeyInfo) of a device's signing request. All else in it is for the agent to judge.
///
/// # Errors
/// What is wrong, for people.
pub(super) fn key_of_csr(der: &[u8]) -> Result<Vec<u8>, String> {
    let csr = whole("the signing request", X509CertificationRequest::from_der(der))?;
    Ok(csr.certification_request_info.subject_pki.raw.to_vec())
}

/// Checks a device's public key (SubjectPublicKeyInfo).
///
/// # Errors
/// What is wrong, for people.
pub(super) fn check_public_key(der: &[u8]) -> Result<(), String> {
    let key = whole("the public key", x509_parser::x509::SubjectPublicKeyInfo::from_der(der))?;
    key.parsed().map(|_| ()).map_err(|_| "the public key is of a kind nobody here knows".to_owned())
}

/// The value, when nothing follows it.
fn whole<T, E>(what: &str, read: Result<(&[u8], T), E>) -> Result<T, String> {
    match read {
        Ok(([], value)) => Ok(value),
        Ok(_) => Err(format!("there are bytes behind {what}")),
        Err(_) => Err(format!("{what} cannot be read")),
    }
}

fn decode(what: &str, text: &str) -> Result<Vec<u8>, String> {
    if text.len() > CERTIFICATE_MAX_BYTES {
        return Err(format!("{what} is larger than {CERTIFICATE_MAX_BYTES} bytes"));
    }
    STANDARD.decode(text).map_err(|_| format!("{what} is not base64"))
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        text += &format!("{byte:02x}");
        text
    })
}

/// A certificate and the authorities above it as PEM.
pub(crate) fn pem_of(der: &[u8], chain: &[String]) -> String {
    let own = STANDARD.encode(der);
    let all = std::iter::once(own.as_str()).chain(chain.iter().map(String::as_str));
    let mut pem = String::new();
    for text in all {
        pem += "-----BEGIN CERTIFICATE-----\n";
        for line in text.as_bytes().chunks(64) {
            pem += &String::from_utf8_lossy(line);
            pem.push('\n');
        }
        pem += "-----END CERTIFICATE-----\n";
    }
    pem
}

/// Names of authorities, for people; what cannot be read is left out.
pub(crate) fn names_of(chain: &[String]) -> Vec<String> {
    let name = |text: &String| {
        let der = STANDARD.decode(text).ok()?;
        Some(Certificate::read(&der).ok()?.subject().to_string())
    };
    chain.iter().filter_map(name).collect()
}

/// The common name of a subject, which is what people look for, or all of it.
pub(crate) fn subject_words(subject: &str) -> String {
    let upper = subject.to_uppercase();
    let Some(start) = upper.find("CN=") else { return subject.to_owned() };
    let rest = &subject[start + 3..];
    let mut words = String::new();
    let mut letters = rest.chars();
    while let Some(letter) = letters.next() {
        match letter {
            ',' | '+' => break,
            '\\' => words.extend(letters.next()),
            letter => words.push(letter),
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_read_the_common_name() {
        for (subject, words) in [
            ("CN=Alice Smith,O=Acme", "Alice Smith"),
            ("EMAIL=a@acme.example,CN=Smith\\, Alice", "Smith, Alice"),
            ("O=Acme", "O=Acme"),
            ("", ""),
        ] {
            assert_eq!(subject_words(subject), words);
        }
    }

    #[test]
    fn pem_has_short_lines_and_every_authority() {
        let pem = pem_of(&[7; 100], &["AAAA".to_owned()]);
        assert_eq!(pem.matches("BEGIN CERTIFICATE").count(), 2);
        assert!(pem.lines().all(|line| line.len() <= 64), "{pem}");
    }

    #[test]
    fn what_is_no_request_or_key_is_refused() {
        assert!(key_of_csr(b"hello").is_err());
        assert!(key_of_csr(&[]).is_err());
        assert!(check_public_key(&[0x30, 0]).is_err());
    }
}
