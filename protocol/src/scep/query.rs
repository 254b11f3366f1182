//! SCEP over HTTP (RFC 8894 section 4.1): the query, and messages within it.

use base64::Engine;
use base64::alphabet::STANDARD as ALPHABET;
use base64::engine::general_purpose::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use super::error::ScepError;
use crate::limits::SCEP_QUERY_MAX_BYTES;

/// Padding may be missing, and bits behind the end may be set: what counts is the message.
const TOLERANT: GeneralPurpose = GeneralPurpose::new(
    &ALPHABET,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

/// What a request by HTTP is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    /// Capabilities.
    GetCaCaps,
    /// Certificates of the authority.
    GetCaCert,
    /// Certificates of its successor.
    GetNextCaCert,
    /// A message.
    PkiOperation,
}

impl Operation {
    const ALL: [Self; 4] = [Self::GetCaCaps, Self::GetCaCert, Self::GetNextCaCert, Self::PkiOperation];

    /// Its name in the query.
    pub fn name(self) -> &'static str {
        match self {
            Self::GetCaCaps => "GetCACaps",
            Self::GetCaCert => "GetCACert",
            Self::GetNextCaCert => "GetNextCACert",
            Self::PkiOperation => "PKIOperation",
        }
    }

    /// Reads the name, in any case.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|operation| operation.name().eq_ignore_ascii_case(name))
    }
}

/// The address for an operation. `message` is the name of the authority, or, with GET, what [`encode_get`] made.
pub fn url(base: &str, operation: Operation, message: Option<&str>) -> String {
    let separator = if base.contains('?') { '&' } else { '?' };
    let message = message.map(|message| format!("&message={}", percent(message))).unwrap_or_default();
    format!("{base}{separator}operation={}{message}", operation.name())
}

/// A message as the query of a GET carries it, before percent-encoding (which [`url`] does).
pub fn encode_get(message: &[u8]) -> String {
    STANDARD.encode(message)
}

/// Undoes [`encode_get`] and whatever happened to it on the way: percent-encoding that is still there, a plus sign that
/// became a blank, line breaks, the alphabet for URLs.
pub fn decode_get(value: &str) -> Result<Vec<u8>, ScepError> {
    let unreadable = ScepError::Attribute { what: "message in the query" };
    if value.len() > SCEP_QUERY_MAX_BYTES {
        return Err(unreadable);
    }
    let mut text = Vec::with_capacity(value.len());
    let mut bytes = value.bytes();
    while let Some(byte) = bytes.next() {
        let byte = match byte {
            b'%' => {
                let mut digit = || char::from(bytes.next()?).to_digit(16);
                match (digit(), digit()) {
                    (Some(high), Some(low)) => (high * 16 + low) as u8,
                    _ => return Err(unreadable),
                }
            }
            other => other,
        };
        match byte {
            b' ' => text.push(b'+'),
            b'-' => text.push(b'+'),
            b'_' => text.push(b'/'),
            byte if byte.is_ascii_whitespace() => {}
            byte => text.push(byte),
        }
    }
    TOLERANT.decode(text).map_err(|_| unreadable)
}

/// Percent-encodes everything but letters, digits and the four marks that never mean anything (RFC 3986 section 2.3).
fn percent(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
            byte if byte.is_ascii_alphanumeric() => char::from(byte).to_string(),
            byte => format!("%{byte:02X}"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_survive_every_way_of_writing_them() {
        let message: Vec<u8> = (0..=255).chain(250..=255).collect();
        let plain = encode_get(&message);
        // strongSwan breaks lines of 64 characters.
        let wrapped: String =
            plain.as_bytes().chunks(64).map(|line| format!("{}%0A", line.escape_ascii())).collect();
        let forms = [
            percent(&plain),
            plain.replace('+', " "),
            plain.replace('+', "-").replace('/', "_"),
            plain.trim_end_matches('=').to_owned(),
            wrapped.replace('+', "%2B"),
            plain.clone(),
        ];
        for form in forms {
            assert_eq!(decode_get(&form).as_deref(), Ok(message.as_slice()), "{form}");
        }
        for bad in ["%", "%4", "%zz", "a*b", "&"] {
            assert!(decode_get(bad).is_err(), "{bad}");
        }
        assert!(decode_get(&"A".repeat(SCEP_QUERY_MAX_BYTES + 1)).is_err());
    }

    #[test]
    fn addresses() {
        let base = "http://ca.example/certsrv/mscep/mscep.dll";
        assert_eq!(url(base, Operation::GetCaCaps, None), format!("{base}?operation=GetCACaps"));
        assert_eq!(
            url("http://ca.example/?p=1", Operation::PkiOperation, Some("a+/=")),
            "http://ca.example/?p=1&operation=PKIOperation&message=a%2B%2F%3D"
        );
        assert_eq!(Operation::parse("getcacert"), Some(Operation::GetCaCert));
        assert_eq!(Operation::parse("GetCACertificate"), None);
    }
}
