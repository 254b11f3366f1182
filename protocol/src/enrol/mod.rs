//! Web services that issue certificates: the shapes both ends share, without HTTP.
//!
//! - [`soap`]: envelopes of SOAP 1.1 and 1.2 with the headers these services use.
//! - [`xcep`] and [`wstep`]: Microsoft's enrolment policy and enrolment services (MS-XCEP, MS-WSTEP).
//! - [`mpki`] and [`mpki_rest`]: Symantec Managed PKI 8, later DigiCert PKI Platform 8. No contract of the vendor's is
//!   public; the shapes are those public clients send.
//! - [`gateway`]: Entrust CA Gateway, version 1 of its REST interface.
//! - [`digital_id`]: an adapter of our own for Entrust's older administration services, whose interface is not public.
//!
//! Reading goes by local names wherever a namespace is not known for certain, and never by prefixes or by order. Writing
//! is strict. What is missing or out of shape is named; no error carries what a document says, because requests hold
//! passwords.

pub mod digital_id;
pub mod gateway;
pub mod mpki;
pub mod mpki_rest;
pub mod soap;
pub mod wstep;
pub mod xcep;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use thiserror::Error;

use crate::xml::XmlError;

/// Why a document is not the one expected.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ShapeError {
    /// No XML that is taken.
    #[error("read the document")]
    Xml(#[source] XmlError),
    /// XML, but no SOAP envelope with exactly one element in its body.
    #[error("the document is no SOAP envelope with one element in its body")]
    NotSoap,
    /// Another message than the one that was asked for.
    #[error("the body does not hold {expected}")]
    Other {
        /// Its element.
        expected: &'static str,
    },
    /// An element or member is missing or empty.
    #[error("{what} is missing")]
    Missing {
        /// Its name.
        what: &'static str,
    },
    /// An element or member does not hold what it must.
    #[error("{what} does not hold what it must")]
    Wrong {
        /// Its name.
        what: &'static str,
    },
    /// No JSON, or another object.
    #[error("the document is not the JSON object expected at line {line}, column {column}")]
    Json {
        /// From 1.
        line: usize,
        /// From 1.
        column: usize,
    },
    /// More repetitions than are taken.
    #[error("more than {max} of {what}")]
    TooMany {
        /// What is repeated.
        what: &'static str,
        /// What is taken.
        max: usize,
    },
}

/// Base64 as services send it: Windows breaks lines and writes the carriage returns as `&#xD;`, so all white space goes.
/// PEM armour goes too.
///
/// # Errors
/// [`ShapeError::Wrong`] with `what`.
pub fn base64_text(text: &str, what: &'static str) -> Result<Vec<u8>, ShapeError> {
    let inner = match text.split_once("-----BEGIN ") {
        None => text,
        Some((_, rest)) => {
            let body = rest.split_once("-----").map(|(_, body)| body);
            body.and_then(|body| body.split_once("-----END")).ok_or(ShapeError::Wrong { what })?.0
        }
    };
    let packed: String = inner.chars().filter(|c| !c.is_whitespace()).collect();
    match STANDARD.decode(packed) {
        Ok(bytes) if !bytes.is_empty() => Ok(bytes),
        _ => Err(ShapeError::Wrong { what }),
    }
}

/// Bytes in PEM armour with lines of 64 characters (RFC 7468).
pub fn pem(label: &str, bytes: &[u8]) -> String {
    let text = STANDARD.encode(bytes);
    let mut out = format!("-----BEGIN {label}-----\n");
    for at in (0..text.len()).step_by(64) {
        out.push_str(&text[at..text.len().min(at + 64)]);
        out.push('\n');
    }
    out.push_str(&format!("-----END {label}-----\n"));
    out
}

pub(crate) fn json<'a, T: serde::Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, ShapeError> {
    serde_json::from_slice(bytes)
        .map_err(|error| ShapeError::Json { line: error.line(), column: error.column() })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn base64_is_taken_with_breaks_and_armour() {
        for text in
            ["AQID", "AQ\r\n ID\t", "-----BEGIN CERTIFICATE-----\r\nAQID\r\n-----END CERTIFICATE-----\n"]
        {
            assert_eq!(base64_text(text, "x").unwrap(), [1, 2, 3], "{text}");
        }
        for text in ["", " ", "A", "<html>", "-----BEGIN CERTIFICATE-----\nAQID"] {
            assert_eq!(base64_text(text, "x"), Err(ShapeError::Wrong { what: "x" }), "{text}");
        }
    }

    proptest! {
        #[test]
        fn armour_comes_off_again(bytes in proptest::collection::vec(any::<u8>(), 1..300)) {
            let text = pem("CERTIFICATE", &bytes);
            prop_assert!(text.lines().all(|line| line.len() <= 64));
            prop_assert_eq!(base64_text(&text, "x").unwrap(), bytes);
        }

        #[test]
        fn no_document_makes_a_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            if let Ok(message) = soap::read(&bytes) {
                let _ = (wstep::Request::read(&message), wstep::Response::read(&message));
            }
            let _ = gateway::enrollment(&bytes);
            let _ = mpki_rest::Certificate::read(&bytes);
        }
    }
}
