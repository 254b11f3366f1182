//! WS-Management as remote shells use it (MS-WSMV), both directions.

mod client;
pub mod encryption;
mod fault;
mod ns;
mod reply;
mod request;

use std::time::Duration;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use thiserror::Error;

pub use client::{Event, RemoteSession, SessionError, SessionSettings};
pub use fault::{Fault, FaultCode};
pub use ns::{ACTION_FAULT, EXCHANGE_CONFIGURATION, POWERSHELL_CONFIGURATION, action, resource_uri};
pub use reply::{CommandState, Created, Identity, Reply, Response};
pub use request::{CreateShell, Header, Operation, Opt, Request, Signal, Stream, blob_budget};

use crate::xml::{Element, XmlError};

/// Why bytes are no SOAP message that is taken.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SoapError {
    /// Not XML, or too much of it.
    #[error("read SOAP envelope")]
    Xml(#[source] XmlError),
    /// Another version of SOAP, or something else entirely.
    #[error("the root is {name} of namespace {namespace:?} and not an envelope of SOAP 1.2")]
    Foreign {
        /// The element's name, cut.
        name: String,
        /// Its namespace, cut.
        namespace: String,
    },
    /// A header that must be understood and is not (SOAP 1.2 part 1, 5.2.3).
    #[error("header {name} must be understood and is not")]
    NotUnderstood {
        /// Its name, cut.
        name: String,
    },
    /// An element that must be there is not, or says nothing usable.
    #[error("the envelope has no usable {element}")]
    Missing {
        /// Its name.
        element: &'static str,
    },
    /// The answer is to another question (WS-Addressing).
    #[error("the answer relates to {found:?} and not to the request")]
    RelatesTo {
        /// What it relates to, cut; empty if it does not say.
        found: String,
    },
    /// An answer to another operation.
    #[error("the answer is {found:?}, which is not what was asked for")]
    Unexpected {
        /// The element in its body, cut.
        found: String,
    },
}

/// Text from a peer in an error: enough to recognise it.
fn cut(text: &str) -> String {
    text.chars().take(120).collect()
}

/// Bytes of an element's text. White space is allowed everywhere, padding may lack.
///
/// # Errors
/// [`SoapError::Missing`] naming the element.
pub fn decode_base64(text: &str, element: &'static str) -> Result<Vec<u8>, SoapError> {
    const ENGINE: GeneralPurpose = GeneralPurpose::new(
        &alphabet::STANDARD,
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
    );
    let wrong = |_| SoapError::Missing { element };
    // Nobody breaks lines in practice, so white space is only looked for when there is something wrong.
    ENGINE.decode(text).or_else(|_| {
        let joined: String = text.split_ascii_whitespace().collect();
        ENGINE.decode(joined).map_err(wrong)
    })
}

/// Header and body of an envelope.
fn parts(root: &Element) -> Result<(&[Element], &Element), SoapError> {
    if !root.is(ns::SOAP, "Envelope") {
        return Err(SoapError::Foreign { name: cut(&root.name), namespace: cut(&root.namespace) });
    }
    let header = root.child(ns::SOAP, "Header").map_or(&[][..], |header| &header.children);
    let body = root.child(ns::SOAP, "Body").ok_or(SoapError::Missing { element: "Body" })?;
    Ok((header, body))
}

/// Refuses headers of this kind that nobody here knows.
fn check_understood(headers: &[Element]) -> Result<(), SoapError> {
    for header in headers {
        let must =
            header.attribute_in(ns::SOAP, "mustUnderstand").is_some_and(|must| must == "true" || must == "1");
        let known = matches!(&*header.namespace, ns::ADDRESSING | ns::WSMAN | ns::WSMV);
        if must && !(known && ns::HEADERS.contains(&&*header.name)) {
            return Err(SoapError::NotUnderstood { name: cut(&header.name) });
        }
    }
    Ok(())
}

fn header_text<'h>(headers: &'h [Element], namespace: &str, name: &str) -> Option<&'h str> {
    headers.iter().find(|header| header.is(namespace, name)).map(|header| header.text.trim())
}

/// `PT20S`, `PT1M30.5S`, `P0DT0H20M0S`: days, hours, minutes and seconds of XML Schema's duration.
fn duration(text: &str) -> Option<Duration> {
    let (days, time) = match text.strip_prefix('P')?.split_once('T') {
        Some((days, time)) => (days, time),
        None => (text.strip_prefix('P')?, ""),
    };
    let mut seconds = 0.0;
    for (part, units) in [(days, &[('D', 86_400.0)][..]), (time, &[('H', 3_600.0), ('M', 60.0), ('S', 1.0)])]
    {
        let mut rest = part;
        while let Some(at) = rest.find(|c: char| c.is_ascii_alphabetic()) {
            let unit = rest[at..].chars().next()?;
            let factor = units.iter().find(|(known, _)| *known == unit)?.1;
            seconds += rest[..at].parse::<f64>().ok()? * factor;
            rest = &rest[at + 1..];
        }
        if !rest.is_empty() {
            return None;
        }
    }
    Duration::try_from_secs_f64(seconds).ok()
}

fn duration_text(duration: Duration) -> String {
    match duration.subsec_millis() {
        0 => format!("PT{}S", duration.as_secs()),
        millis => format!("PT{}.{millis:03}S", duration.as_secs()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_those_of_xml_schema() {
        for (text, millis) in [
            ("PT20S", 20_000),
            ("PT20.000S", 20_000),
            ("PT1M0.5S", 60_500),
            ("P1DT1H", 90_000_000),
            ("P0D", 0),
        ] {
            assert_eq!(duration(text), Some(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "20", "PT", "PT5", "PT-1S", "P1Y", "PTNaNS", "PTinfS", "PT1e999S"] {
            assert!(duration(text).is_none_or(|d| d.is_zero() && text == "PT"), "{text}");
        }
        assert_eq!(duration_text(Duration::from_millis(1_500)), "PT1.500S");
    }
}
