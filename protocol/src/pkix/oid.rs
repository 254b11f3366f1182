//! Object identifiers: their text and the ones this crate knows.

use std::fmt;

/// Longest object identifier kept, in bytes of its encoding. Microsoft's identifiers of templates have about thirty.
const BYTES_MAX: usize = 63;

/// An object identifier, as its encoding (X.690 section 8.19).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Oid {
    length: u8,
    bytes: [u8; BYTES_MAX],
}

impl Oid {
    /// From its numbers; for constants.
    ///
    /// # Panics
    /// When there are fewer than two numbers or their encoding is too long: at compile time, in a constant.
    pub const fn new(arcs: &[u32]) -> Self {
        let mut oid = Self { length: 0, bytes: [0; BYTES_MAX] };
        oid = oid.with(arcs[0] * 40 + arcs[1]);
        let mut at = 2;
        while at < arcs.len() {
            oid = oid.with(arcs[at]);
            at += 1;
        }
        oid
    }

    const fn with(mut self, arc: u32) -> Self {
        let mut groups = 1;
        while groups < 5 && arc >> (7 * groups) != 0 {
            groups += 1;
        }
        while groups > 0 {
            groups -= 1;
            let more = if groups > 0 { 0x80 } else { 0 };
            self.bytes[self.length as usize] = ((arc >> (7 * groups)) & 0x7f) as u8 | more;
            self.length += 1;
        }
        self
    }

    /// From contents received; `None` when they are empty, too long or end within a number.
    pub fn from_bytes(received: &[u8]) -> Option<Self> {
        if received.is_empty() || received.len() > BYTES_MAX || received.last()? & 0x80 != 0 {
            return None;
        }
        let mut bytes = [0; BYTES_MAX];
        bytes[..received.len()].copy_from_slice(received);
        Some(Self { length: received.len() as u8, bytes })
    }

    /// From dotted numbers.
    pub fn parse(text: &str) -> Option<Self> {
        let arcs = text.split('.').map(|arc| arc.parse::<u32>().ok()).collect::<Option<Vec<_>>>()?;
        let [first, second, rest @ ..] = arcs.as_slice() else { return None };
        // Five bytes is the longest a number can have.
        if *first > 2
            || (*first < 2 && *second > 39)
            || *second > u32::MAX - 80
            || rest.len() > BYTES_MAX / 5 - 1
        {
            return None;
        }
        Some(Self::new(&arcs))
    }

    /// Contents of the encoding.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }
}

impl fmt::Display for Oid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut arc = 0u128;
        let mut first = true;
        for byte in self.as_bytes() {
            // Eighteen groups of seven bits fill 126; what is longer is cut at the front rather than refused.
            arc = (arc & (u128::MAX >> 7)) << 7 | u128::from(byte & 0x7f);
            if byte & 0x80 != 0 {
                continue;
            }
            if first {
                let root = (arc / 40).min(2);
                write!(f, "{root}.{}", arc - root * 40)?;
            } else {
                write!(f, ".{arc}")?;
            }
            (first, arc) = (false, 0);
        }
        Ok(())
    }
}

impl fmt::Debug for Oid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

// Algorithms of keys and signatures.

/// `1.2.840.113549.1.1.1`: RSA keys, and signatures whose digest is named elsewhere (RFC 8017).
pub const RSA_ENCRYPTION: Oid = Oid::new(&[1, 2, 840, 113549, 1, 1, 1]);
/// `1.2.840.113549.1.1.5`: RSA PKCS#1 v1.5 with SHA-1.
pub const SHA1_WITH_RSA: Oid = Oid::new(&[1, 2, 840, 113549, 1, 1, 5]);
/// `1.2.840.113549.1.1.7`: RSA-OAEP key transport.
pub const RSAES_OAEP: Oid = Oid::new(&[1, 2, 840, 113549, 1, 1, 7]);
/// `1.2.840.113549.1.1.8`: mask generation function 1.
pub const MGF1: Oid = Oid::new(&[1, 2, 840, 113549, 1, 1, 8]);
/// `1.2.840.113549.1.1.10`: RSA-PSS signatures.
pub const RSASSA_PSS: Oid = Oid::new(&[1, 2, 840, 113549, 1, 1, 10]);
/// `1.2.840.113549.1.1.11`: RSA PKCS#1 v1.5 with SHA-256.
pub const SHA256_WITH_RSA: Oid = Oid::new(&[1, 2, 840, 113549, 1, 1, 11]);
/// `1.2.840.113549.1.1.12`: RSA PKCS#1 v1.5 with SHA-384.
pub const SHA384_WITH_RSA: Oid = Oid::new(&[1, 2, 840, 113549, 1, 1, 12]);
/// `1.2.840.113549.1.1.13`: RSA PKCS#1 v1.5 with SHA-512.
pub const SHA512_WITH_RSA: Oid = Oid::new(&[1, 2, 840, 113549, 1, 1, 13]);
/// `1.3.14.3.2.29`: RSA PKCS#1 v1.5 with SHA-1, the name some old Windows programs use.
pub const OIW_SHA1_WITH_RSA: Oid = Oid::new(&[1, 3, 14, 3, 2, 29]);
/// `1.2.840.10045.2.1`: elliptic curve keys (RFC 5480).
pub const EC_PUBLIC_KEY: Oid = Oid::new(&[1, 2, 840, 10045, 2, 1]);
/// `1.2.840.10045.4.1`: ECDSA with SHA-1.
pub const ECDSA_SHA1: Oid = Oid::new(&[1, 2, 840, 10045, 4, 1]);
/// `1.2.840.10045.4.3.2`: ECDSA with SHA-256.
pub const ECDSA_SHA256: Oid = Oid::new(&[1, 2, 840, 10045, 4, 3, 2]);
/// `1.2.840.10045.4.3.3`: ECDSA with SHA-384.
pub const ECDSA_SHA384: Oid = Oid::new(&[1, 2, 840, 10045, 4, 3, 3]);
/// `1.2.840.10045.4.3.4`: ECDSA with SHA-512.
pub const ECDSA_SHA512: Oid = Oid::new(&[1, 2, 840, 10045, 4, 3, 4]);
/// `1.2.840.10045.3.1.7`: the curve P-256.
pub const P256: Oid = Oid::new(&[1, 2, 840, 10045, 3, 1, 7]);
/// `1.3.132.0.34`: the curve P-384.
pub const P384: Oid = Oid::new(&[1, 3, 132, 0, 34]);
/// `1.3.132.0.35`: the curve P-521.
pub const P521: Oid = Oid::new(&[1, 3, 132, 0, 35]);
/// `1.3.14.3.2.26`: SHA-1.
pub const SHA1: Oid = Oid::new(&[1, 3, 14, 3, 2, 26]);
/// `2.16.840.1.101.3.4.2.1`: SHA-256.
pub const SHA256: Oid = Oid::new(&[2, 16, 840, 1, 101, 3, 4, 2, 1]);
/// `2.16.840.1.101.3.4.2.2`: SHA-384.
pub const SHA384: Oid = Oid::new(&[2, 16, 840, 1, 101, 3, 4, 2, 2]);
/// `2.16.840.1.101.3.4.2.3`: SHA-512.
pub const SHA512: Oid = Oid::new(&[2, 16, 840, 1, 101, 3, 4, 2, 3]);
/// `1.3.14.3.2.7`: single DES, CBC.
pub const DES_CBC: Oid = Oid::new(&[1, 3, 14, 3, 2, 7]);
/// `1.2.840.113549.3.7`: triple DES with three keys, CBC.
pub const DES_EDE3_CBC: Oid = Oid::new(&[1, 2, 840, 113549, 3, 7]);
/// `2.16.840.1.101.3.4.1.2`: AES-128, CBC.
pub const AES128_CBC: Oid = Oid::new(&[2, 16, 840, 1, 101, 3, 4, 1, 2]);
/// `2.16.840.1.101.3.4.1.22`: AES-192, CBC.
pub const AES192_CBC: Oid = Oid::new(&[2, 16, 840, 1, 101, 3, 4, 1, 22]);
/// `2.16.840.1.101.3.4.1.42`: AES-256, CBC.
pub const AES256_CBC: Oid = Oid::new(&[2, 16, 840, 1, 101, 3, 4, 1, 42]);
/// `2.16.840.1.101.3.4.1.5`: AES-128 key wrap (RFC 3394).
pub const AES128_WRAP: Oid = Oid::new(&[2, 16, 840, 1, 101, 3, 4, 1, 5]);
/// `2.16.840.1.101.3.4.1.45`: AES-256 key wrap (RFC 3394).
pub const AES256_WRAP: Oid = Oid::new(&[2, 16, 840, 1, 101, 3, 4, 1, 45]);
/// `1.3.132.1.11.1`: ECDH with the SHA-256 key derivation of X9.63 (RFC 5753).
pub const ECDH_SHA256_KDF: Oid = Oid::new(&[1, 3, 132, 1, 11, 1]);
// Content types and attributes of CMS (RFC 5652) and SCEP (RFC 8894).

/// `1.2.840.113549.1.7.1`: content: bytes.
pub const CMS_DATA: Oid = Oid::new(&[1, 2, 840, 113549, 1, 7, 1]);
/// `1.2.840.113549.1.7.2`: content: signed.
pub const SIGNED_DATA: Oid = Oid::new(&[1, 2, 840, 113549, 1, 7, 2]);
/// `1.2.840.113549.1.7.3`: content: encrypted.
pub const ENVELOPED_DATA: Oid = Oid::new(&[1, 2, 840, 113549, 1, 7, 3]);
/// `1.2.840.113549.1.9.1`: PKCS#9 emailAddress.
pub const EMAIL_ADDRESS: Oid = Oid::new(&[1, 2, 840, 113549, 1, 9, 1]);
/// `1.2.840.113549.1.9.3`: signed attribute: type of the content.
pub const CONTENT_TYPE: Oid = Oid::new(&[1, 2, 840, 113549, 1, 9, 3]);
/// `1.2.840.113549.1.9.4`: signed attribute: digest of the content.
pub const MESSAGE_DIGEST: Oid = Oid::new(&[1, 2, 840, 113549, 1, 9, 4]);
/// `1.2.840.113549.1.9.5`: signed attribute: when.
pub const SIGNING_TIME: Oid = Oid::new(&[1, 2, 840, 113549, 1, 9, 5]);
/// `1.2.840.113549.1.9.7`: PKCS#9 challengePassword.
pub const CHALLENGE_PASSWORD: Oid = Oid::new(&[1, 2, 840, 113549, 1, 9, 7]);
/// `1.2.840.113549.1.9.14`: requested extensions.
pub const EXTENSION_REQUEST: Oid = Oid::new(&[1, 2, 840, 113549, 1, 9, 14]);
/// `1.3.6.1.4.1.311.2.1.14`: requested extensions, Microsoft's older name.
pub const MS_EXTENSION_REQUEST: Oid = Oid::new(&[1, 3, 6, 1, 4, 1, 311, 2, 1, 14]);
/// `2.16.840.1.113733.1.9.2`: SCEP messageType.
pub const SCEP_MESSAGE_TYPE: Oid = Oid::new(&[2, 16, 840, 1, 113733, 1, 9, 2]);
/// `2.16.840.1.113733.1.9.3`: SCEP pkiStatus.
pub const SCEP_PKI_STATUS: Oid = Oid::new(&[2, 16, 840, 1, 113733, 1, 9, 3]);
/// `2.16.840.1.113733.1.9.4`: SCEP failInfo.
pub const SCEP_FAIL_INFO: Oid = Oid::new(&[2, 16, 840, 1, 113733, 1, 9, 4]);
/// `2.16.840.1.113733.1.9.5`: SCEP senderNonce.
pub const SCEP_SENDER_NONCE: Oid = Oid::new(&[2, 16, 840, 1, 113733, 1, 9, 5]);
/// `2.16.840.1.113733.1.9.6`: SCEP recipientNonce.
pub const SCEP_RECIPIENT_NONCE: Oid = Oid::new(&[2, 16, 840, 1, 113733, 1, 9, 6]);
/// `2.16.840.1.113733.1.9.7`: SCEP transactionID.
pub const SCEP_TRANSACTION_ID: Oid = Oid::new(&[2, 16, 840, 1, 113733, 1, 9, 7]);
/// `1.3.6.1.5.5.7.24.1`: SCEP failInfoText.
pub const SCEP_FAIL_INFO_TEXT: Oid = Oid::new(&[1, 3, 6, 1, 5, 5, 7, 24, 1]);
/// `1.3.6.1.4.1.311.13.2.1`: Microsoft name and value pair of an enrolment agent's request.
pub const MS_REQUESTER_NAME: Oid = Oid::new(&[1, 3, 6, 1, 4, 1, 311, 13, 2, 1]);
// Extensions of certificates (RFC 5280 section 4.2) and Microsoft's.

/// `2.5.29.14`: subjectKeyIdentifier.
pub const SUBJECT_KEY_ID: Oid = Oid::new(&[2, 5, 29, 14]);
/// `2.5.29.15`: keyUsage.
pub const KEY_USAGE: Oid = Oid::new(&[2, 5, 29, 15]);
/// `2.5.29.17`: subjectAltName.
pub const SUBJECT_ALT_NAME: Oid = Oid::new(&[2, 5, 29, 17]);
/// `2.5.29.19`: basicConstraints.
pub const BASIC_CONSTRAINTS: Oid = Oid::new(&[2, 5, 29, 19]);
/// `2.5.29.20`: cRLNumber.
pub const CRL_NUMBER: Oid = Oid::new(&[2, 5, 29, 20]);
/// `2.5.29.21`: reasonCode of an entry.
pub const CRL_REASON: Oid = Oid::new(&[2, 5, 29, 21]);
/// `2.5.29.31`: cRLDistributionPoints.
pub const CRL_DISTRIBUTION_POINTS: Oid = Oid::new(&[2, 5, 29, 31]);
/// `2.5.29.35`: authorityKeyIdentifier.
pub const AUTHORITY_KEY_ID: Oid = Oid::new(&[2, 5, 29, 35]);
/// `2.5.29.37`: extKeyUsage.
pub const EXTENDED_KEY_USAGE: Oid = Oid::new(&[2, 5, 29, 37]);
/// `1.3.6.1.5.5.7.1.1`: authorityInfoAccess.
pub const AUTHORITY_INFO_ACCESS: Oid = Oid::new(&[1, 3, 6, 1, 5, 5, 7, 1, 1]);
/// `1.3.6.1.5.5.7.48.1`: access method OCSP.
pub const OCSP: Oid = Oid::new(&[1, 3, 6, 1, 5, 5, 7, 48, 1]);
/// `1.3.6.1.5.5.7.48.1.1`: id-pkix-ocsp-basic, what an OCSP response holds (RFC 6960 section 4.2.1).
pub const OCSP_BASIC: Oid = Oid::new(&[1, 3, 6, 1, 5, 5, 7, 48, 1, 1]);
/// `1.3.6.1.5.5.7.48.1.2`: id-pkix-ocsp-nonce (RFC 6960 section 4.4.1).
pub const OCSP_NONCE: Oid = Oid::new(&[1, 3, 6, 1, 5, 5, 7, 48, 1, 2]);
/// `1.3.6.1.5.5.7.48.2`: access method caIssuers.
pub const CA_ISSUERS: Oid = Oid::new(&[1, 3, 6, 1, 5, 5, 7, 48, 2]);
/// `1.3.6.1.5.5.7.3.1`: purpose: TLS server.
pub const SERVER_AUTH: Oid = Oid::new(&[1, 3, 6, 1, 5, 5, 7, 3, 1]);
/// `1.3.6.1.5.5.7.3.2`: purpose: TLS client.
pub const CLIENT_AUTH: Oid = Oid::new(&[1, 3, 6, 1, 5, 5, 7, 3, 2]);
/// `1.3.6.1.5.5.7.3.4`: purpose: S/MIME.
pub const EMAIL_PROTECTION: Oid = Oid::new(&[1, 3, 6, 1, 5, 5, 7, 3, 4]);
/// `1.3.6.1.5.5.7.3.9`: purpose: signing OCSP answers.
pub const OCSP_SIGNING: Oid = Oid::new(&[1, 3, 6, 1, 5, 5, 7, 3, 9]);
/// `2.5.29.37.0`: purpose: any.
pub const ANY_PURPOSE: Oid = Oid::new(&[2, 5, 29, 37, 0]);
/// `1.3.6.1.4.1.311.20.2.1`: purpose: enrolling on behalf of others (registration authorities of NDES).
pub const ENROLLMENT_AGENT: Oid = Oid::new(&[1, 3, 6, 1, 4, 1, 311, 20, 2, 1]);
/// `1.3.6.1.4.1.311.20.2.2`: purpose: logon to Windows.
pub const SMART_CARD_LOGON: Oid = Oid::new(&[1, 3, 6, 1, 4, 1, 311, 20, 2, 2]);
/// `1.3.6.1.4.1.311.20.2`: name of a version 1 template.
pub const MS_TEMPLATE_NAME: Oid = Oid::new(&[1, 3, 6, 1, 4, 1, 311, 20, 2]);
/// `1.3.6.1.4.1.311.21.7`: template with versions.
pub const MS_TEMPLATE: Oid = Oid::new(&[1, 3, 6, 1, 4, 1, 311, 21, 7]);
/// `1.3.6.1.4.1.311.20.2.3`: alternative name: user principal name.
pub const MS_UPN: Oid = Oid::new(&[1, 3, 6, 1, 4, 1, 311, 20, 2, 3]);
/// `1.3.6.1.4.1.311.25.2`: extension with the security identifier (KB5014754).
pub const MS_SID: Oid = Oid::new(&[1, 3, 6, 1, 4, 1, 311, 25, 2]);
/// `1.3.6.1.4.1.311.25.2.1`: the security identifier within that extension.
pub const MS_SID_OBJECT: Oid = Oid::new(&[1, 3, 6, 1, 4, 1, 311, 25, 2, 1]);
// Attributes of names (X.520, RFC 4519).

/// `2.5.4.3`: commonName.
pub const CN: Oid = Oid::new(&[2, 5, 4, 3]);
/// `2.5.4.4`: surname.
pub const SURNAME: Oid = Oid::new(&[2, 5, 4, 4]);
/// `2.5.4.5`: serialNumber.
pub const SERIAL_NUMBER: Oid = Oid::new(&[2, 5, 4, 5]);
/// `2.5.4.6`: countryName.
pub const COUNTRY: Oid = Oid::new(&[2, 5, 4, 6]);
/// `2.5.4.7`: localityName.
pub const LOCALITY: Oid = Oid::new(&[2, 5, 4, 7]);
/// `2.5.4.8`: stateOrProvinceName.
pub const STATE: Oid = Oid::new(&[2, 5, 4, 8]);
/// `2.5.4.9`: streetAddress.
pub const STREET: Oid = Oid::new(&[2, 5, 4, 9]);
/// `2.5.4.10`: organizationName.
pub const ORGANIZATION: Oid = Oid::new(&[2, 5, 4, 10]);
/// `2.5.4.11`: organizationalUnitName.
pub const ORGANIZATIONAL_UNIT: Oid = Oid::new(&[2, 5, 4, 11]);
/// `2.5.4.12`: title.
pub const TITLE: Oid = Oid::new(&[2, 5, 4, 12]);
/// `2.5.4.13`: description.
pub const DESCRIPTION: Oid = Oid::new(&[2, 5, 4, 13]);
/// `2.5.4.42`: givenName.
pub const GIVEN_NAME: Oid = Oid::new(&[2, 5, 4, 42]);
/// `2.5.4.43`: initials.
pub const INITIALS: Oid = Oid::new(&[2, 5, 4, 43]);
/// `2.5.4.46`: dnQualifier.
pub const DN_QUALIFIER: Oid = Oid::new(&[2, 5, 4, 46]);
/// `0.9.2342.19200300.100.1.1`: userId.
pub const USER_ID: Oid = Oid::new(&[0, 9, 2342, 19200300, 100, 1, 1]);
/// `0.9.2342.19200300.100.1.25`: domainComponent.
pub const DOMAIN_COMPONENT: Oid = Oid::new(&[0, 9, 2342, 19200300, 100, 1, 25]);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encodings_are_those_of_the_standards() {
        // X.690 section 8.19.5 has {2 999 3}; the others are in every certificate.
        assert_eq!(Oid::new(&[2, 999, 3]).as_bytes(), [0x88, 0x37, 3]);
        assert_eq!(RSA_ENCRYPTION.as_bytes(), [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1]);
        assert_eq!(KEY_USAGE.as_bytes(), [0x55, 0x1d, 0x0f]);
    }

    #[test]
    fn text_goes_both_ways() {
        for text in ["2.999.3", "1.3.6.1.4.1.311.20.2.3", "0.9.2342.19200300.100.1.25", "2.5.4.3"] {
            assert_eq!(Oid::parse(text).unwrap().to_string(), text);
        }
        // A UUID below 2.25 has an arc of 128 bits (X.667); its text has them, a constant cannot.
        let uuid = Oid::from_bytes(&[0x69, 0x83, 0xff, 0xff, 0xff, 0xff, 0x7f]).unwrap();
        assert_eq!(uuid.to_string(), "2.25.137438953471");
        for bad in ["", "1", "1.40", "3.1", "1.2.x", "1.2.4294967296"] {
            assert_eq!(Oid::parse(bad), None, "{bad}");
        }
        assert_eq!(Oid::from_bytes(&[0x55, 0x81]), None);
    }
}
