//! One certificate: its serial number, its extensions, its signature (RFC 5280 section 4.1).

use std::fmt;

use aws_lc_rs::rand::SecureRandom as _;
use causeway_protocol::pkix::{Digest, Key};

use super::{Links, der, hierarchy, template};

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

const CE: [u32; 3] = [2, 5, 29];

impl Extensions {
    /// An extension as it stands in a request, byte for byte.
    pub(super) fn raw(&mut self, extension: &[u8]) {
        self.0.push(extension.to_vec());
    }

    /// Subject alternative name; critical when the subject is empty (RFC 5280 section 4.2.1.6).
    pub(super) fn alternative_names(&mut self, value: &[u8], critical: bool) {
        self.push(&[CE[0], CE[1], CE[2], 17], critical, value);
    }

    /// Basic constraints and usage of an authority.
    pub(super) fn authority(&mut self, path_max: Option<u8>, usage: u16) {
        let path = path_max.map_or_else(Vec::new, |count| der::number(u64::from(count)));
        self.push(&[CE[0], CE[1], CE[2], 19], true, &der::sequence(&[&der::boolean_true(), &path]));
        self.push(&[CE[0], CE[1], CE[2], 15], true, &der::named_bits(usage));
    }

    /// Says that it is no authority, for clients that take silence for neither yes nor no.
    pub(super) fn no_authority(&mut self) {
        self.push(&[CE[0], CE[1], CE[2], 19], false, &der::sequence(&[]));
    }

    /// Usage and purposes of anything else.
    pub(super) fn usage<S: AsRef<str>>(&mut self, usage: u16, purposes: &[S]) {
        if usage != 0 {
            self.push(&[CE[0], CE[1], CE[2], 15], true, &der::named_bits(usage));
        }
        let purposes: Vec<Vec<u8>> =
            purposes.iter().filter_map(|word| template::purpose(word.as_ref())).collect();
        if !purposes.is_empty() {
            let parts: Vec<&[u8]> = purposes.iter().map(Vec::as_slice).collect();
            self.push(&[CE[0], CE[1], CE[2], 37], false, &der::sequence(&parts));
        }
    }

    /// Identifiers of the subject's and the issuer's key.
    pub(super) fn key_ids(&mut self, subject: &[u8], issuer: &[u8]) {
        self.push(&[CE[0], CE[1], CE[2], 14], false, &der::octets(subject));
        self.push(&[CE[0], CE[1], CE[2], 35], false, &der::sequence(&[&der::context_primitive(0, issuer)]));
    }

    /// Where the CRL, the OCSP responder and the issuer's certificate are.
    pub(super) fn links(&mut self, links: &Links, generation: u32) {
        let uri = |text: &str| der::context_primitive(6, text.as_bytes());
        if !links.crl.is_empty() {
            let name = der::context(0, &[&der::context(0, &[&uri(&links.crl_of(generation))])]);
            self.push(&[CE[0], CE[1], CE[2], 31], false, &der::sequence(&[&der::sequence(&[&name])]));
        }
        if !links.ocsp.is_empty() {
            let pkix_ad = [1, 3, 6, 1, 5, 5, 7, 48];
            let access = |kind: u32, url: &str| {
                let method: Vec<u32> = pkix_ad.iter().copied().chain([kind]).collect();
                der::sequence(&[&der::oid(&method), &uri(url)])
            };
            let both = [access(1, &links.ocsp), access(2, &links.issuer_of(generation))];
            self.push(&[1, 3, 6, 1, 5, 5, 7, 1, 1], false, &der::sequence(&[&both[0], &both[1]]));
        }
    }

    fn push(&mut self, arcs: &[u32], critical: bool, value: &[u8]) {
        self.0.push(extension(&der::oid(arcs), critical, value));
    }
}

/// One `Extension` around a value.
pub(super) fn extension(oid: &[u8], critical: bool, value: &[u8]) -> Vec<u8> {
    let flag = if critical { der::boolean_true() } else { Vec::new() };
    der::sequence(&[oid, &flag, &der::octets(value)])
}

/// Signs a certificate of version 3.
pub(super) fn sign(body: &Body<'_>, extensions: &Extensions, by: &Key) -> Vec<u8> {
    let parts: Vec<&[u8]> = extensions.0.iter().map(Vec::as_slice).collect();
    let validity = der::sequence(&[&der::time(body.not_before_ms), &der::time(body.not_after_ms)]);
    let content = der::sequence(&[
        &der::context(0, &[&der::number(2)]),
        &body.serial.der(),
        &by.signature_algorithm(Digest::Sha256).identifier(),
        body.issuer,
        &validity,
        body.subject,
        body.spki,
        &der::context(3, &[&der::sequence(&parts)]),
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
