//! One certificate: its serial number, its extensions, its signature (RFC 5280 section 4.1).

use std::fmt;

use aws_lc_rs::rand::SecureRandom as _;
use causeway_protocol::pkix::{Digest, Key, Oid, der, oid, time};

use super::template::KeyUsage;
use super::{Links, Signer, hierarchy, template};

/// A serial number: 16 random bytes, the first bit clear so that it is positive, the second set so that its length is
/// always the same.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Serial(pub [u8; 16]);

impl Serial {
    pub fn random() -> Self {
        let mut bytes = [0; 16];
        aws_lc_rs::rand::SystemRandom::new().fill(&mut bytes).expect("the system has randomness");
        bytes[0] = bytes[0] & 0x7f | 0x40;
        Self(bytes)
    }

    /// From hexadecimal digits in any case, with or without colons and leading zeros.
    pub fn from_hex(text: &str) -> Option<Self> {
        let digits: String = text.chars().filter(|letter| *letter != ':').collect();
        let digits = digits.trim_start_matches('0');
        if digits.len() != 32 || !digits.is_ascii() {
            return None;
        }
        let mut bytes = [0; 16];
        for (at, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&digits[at * 2..at * 2 + 2], 16).ok()?;
        }
        Some(Self(bytes))
    }

    /// From the body of an INTEGER.
    pub fn from_bytes(body: &[u8]) -> Option<Self> {
        let start = body.iter().position(|byte| *byte != 0)?;
        body[start..].try_into().ok().map(Self)
    }

    /// The INTEGER, DER.
    pub fn der(&self) -> Vec<u8> {
        der::unsigned(&self.0)
    }
}

impl fmt::Display for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What stands in a certificate besides its extensions.
pub(super) struct Body<'a> {
    pub(super) serial: Serial,
    /// Names, DER.
    pub(super) issuer: &'a [u8],
    pub(super) subject: &'a [u8],
    /// SubjectPublicKeyInfo, DER.
    pub(super) spki: &'a [u8],
    pub(super) not_before_ms: i64,
    pub(super) not_after_ms: i64,
}

/// Extensions on their way into a certificate, each a whole `Extension`, DER.
#[derive(Default)]
pub(super) struct Extensions(Vec<Vec<u8>>);

impl Extensions {
    /// An extension as it stands in a request, byte for byte.
    pub(super) fn raw(&mut self, extension: &[u8]) {
        self.0.push(extension.to_vec());
    }

    /// Subject alternative name; critical when the subject is empty (RFC 5280 section 4.2.1.6).
    pub(super) fn alternative_names(&mut self, value: &[u8], critical: bool) {
        self.push(oid::SUBJECT_ALT_NAME, critical, value);
    }

    /// Basic constraints and usage of an authority.
    pub(super) fn authority(&mut self, path_max: Option<u8>, usage: &[KeyUsage]) {
        let path = path_max.map_or_else(Vec::new, |count| der::small(u32::from(count)));
        self.push(oid::BASIC_CONSTRAINTS, true, &der::sequence(&[&der::yes(), &path]));
        self.push(oid::KEY_USAGE, true, &der::named_bits(&KeyUsage::bits(usage)));
    }

    /// Says that it is no authority, for clients that take silence for neither yes nor no.
    pub(super) fn no_authority(&mut self) {
        self.push(oid::BASIC_CONSTRAINTS, false, &der::sequence(&[]));
    }

    /// Usage and purposes of anything else.
    pub(super) fn usage<S: AsRef<str>>(&mut self, usage: &[KeyUsage], purposes: &[S]) {
        if !usage.is_empty() {
            self.push(oid::KEY_USAGE, true, &der::named_bits(&KeyUsage::bits(usage)));
        }
        let purposes: Vec<Vec<u8>> =
            purposes.iter().filter_map(|word| template::purpose(word.as_ref())).collect();
        if !purposes.is_empty() {
            let parts: Vec<&[u8]> = purposes.iter().map(Vec::as_slice).collect();
            self.push(oid::EXTENDED_KEY_USAGE, false, &der::sequence(&parts));
        }
    }

    /// Identifiers of the subject's and the issuer's key.
    pub(super) fn key_ids(&mut self, subject: &[u8], issuer: &[u8]) {
        self.push(oid::SUBJECT_KEY_ID, false, &der::octets(subject));
        self.push(oid::AUTHORITY_KEY_ID, false, &der::sequence(&[&der::implicit(0, issuer)]));
    }

    /// Where the CRL, the OCSP responder and the certificate of whoever signs it are.
    pub(super) fn links(&mut self, links: &Links, signer: Signer) {
        let uri = |text: &str| der::implicit(6, text.as_bytes());
        if !links.crl.is_empty() {
            let name = der::explicit(0, &der::explicit(0, &uri(&links.crl_of(signer))));
            self.push(oid::CRL_DISTRIBUTION_POINTS, false, &der::sequence(&[&der::sequence(&[&name])]));
        }
        if !links.ocsp.is_empty() {
            let access = |method: Oid, url: &str| der::sequence(&[&der::oid(method), &uri(url)]);
            let both = [access(oid::OCSP, &links.ocsp), access(oid::CA_ISSUERS, &links.issuer_of(signer))];
            self.push(oid::AUTHORITY_INFO_ACCESS, false, &der::sequence(&[&both[0], &both[1]]));
        }
    }

    fn push(&mut self, oid: Oid, critical: bool, value: &[u8]) {
        self.0.push(extension(oid, critical, value));
    }
}

/// One `Extension` around a value.
pub(super) fn extension(oid: Oid, critical: bool, value: &[u8]) -> Vec<u8> {
    let flag = if critical { der::yes() } else { Vec::new() };
    der::sequence(&[&der::oid(oid), &flag, &der::octets(value)])
}

/// Signs a certificate of version 3.
pub(super) fn sign(body: &Body<'_>, extensions: &Extensions, by: &Key) -> Vec<u8> {
    let parts: Vec<&[u8]> = extensions.0.iter().map(Vec::as_slice).collect();
    let validity = der::sequence(&[&time::write(body.not_before_ms), &time::write(body.not_after_ms)]);
    let content = der::sequence(&[
        &der::explicit(0, &der::small(2)),
        &body.serial.der(),
        &by.signature_algorithm(Digest::Sha256).identifier(),
        body.issuer,
        &validity,
        body.subject,
        body.spki,
        &der::explicit(3, &der::sequence(&parts)),
    ]);
    hierarchy::signed(&content, by)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn serial_numbers_are_positive_and_of_one_length() {
        for _ in 0..200 {
            let serial = Serial::random();
            assert_eq!(serial.der()[..2], [2, 16], "{serial}");
            assert!(serial.0[0] & 0x80 == 0 && serial.0[0] != 0);
            assert_eq!(Serial::from_hex(&serial.to_string()), Some(serial));
            assert_eq!(Serial::from_hex(&serial.to_string().to_uppercase()), Some(serial));
            assert_eq!(Serial::from_bytes(&serial.der()[2..]), Some(serial));
        }
        assert_eq!(Serial::from_hex("00"), None);
        assert_eq!(Serial::from_hex("not a number at all, but 32 long"), None);
    }
}
