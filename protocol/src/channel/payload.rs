//! Payloads of the channel's iq stanzas: an element whose name says what it is and whose text is JSON.
//!
//! XML carries the stream because strangers speak it; JSON carries the content because the API, the store and the
//! upload use the same types.

use std::borrow::Cow;

use minidom::Element;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use thiserror::Error;

use super::ns;
use crate::limits::BODY_MAX_BYTES;
use crate::{Secret, action, config, health, upload};

/// A type that travels as the JSON text of one element.
pub trait Payload: Serialize + DeserializeOwned {
    /// The element's namespace.
    const NS: &'static str;
    /// The element's name.
    const NAME: &'static str;

    /// Writes the element.
    ///
    /// # Panics
    /// Never for the types of this module: their JSON cannot fail.
    fn to_element(&self) -> Element {
        let json = serde_json::to_string(self).expect("payload types serialise to JSON");
        Element::builder(Self::NAME, Self::NS).append(&*fit_for_xml(&json)).build()
    }

    /// Whether `element` is one of these.
    fn names(element: &Element) -> bool {
        element.is(Self::NAME, Self::NS)
    }

    /// Reads the element.
    ///
    /// # Errors
    /// When it is another element, too large, or its text does not fit.
    fn from_element(element: &Element) -> Result<Self, PayloadError> {
        if !Self::names(element) {
            return Err(PayloadError::OtherElement { wanted: Self::NAME, got: element.name().to_owned() });
        }
        let text = element.text();
        if text.len() > BODY_MAX_BYTES {
            return Err(PayloadError::TooLarge { name: Self::NAME, bytes: text.len() });
        }
        serde_json::from_str(&text).map_err(|source| PayloadError::Malformed { name: Self::NAME, source })
    }
}

/// JSON text that XML can carry. JSON escapes control characters itself; what is left are the two characters that XML
/// 1.0 (§2.2) has no way to write and JSON takes as they are. Outside its strings JSON has neither, so the escape is
/// right wherever one is found. Without it, one such character in a person's name would end the stream.
fn fit_for_xml(json: &str) -> Cow<'_, str> {
    if json.contains(['\u{fffe}', '\u{ffff}']) {
        Cow::Owned(json.replace('\u{fffe}', "\\ufffe").replace('\u{ffff}', "\\uffff"))
    } else {
        Cow::Borrowed(json)
    }
}

/// What is wrong with a payload.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum PayloadError {
    /// Not the element that was expected.
    #[error("expected <{wanted}/>, got <{got}/>")]
    OtherElement {
        /// Expected name.
        wanted: &'static str,
        /// Received name.
        got: String,
    },
    /// Larger than [`BODY_MAX_BYTES`].
    #[error("<{name}/> holds {bytes} bytes, the limit is {BODY_MAX_BYTES}")]
    TooLarge {
        /// Element name.
        name: &'static str,
        /// Its size.
        bytes: usize,
    },
    /// An attribute is missing or unreadable.
    #[error("<{name}/> lacks a usable attribute {attribute}")]
    Attribute {
        /// Element name.
        name: &'static str,
        /// Attribute name.
        attribute: &'static str,
    },
    /// The JSON does not fit the type.
    #[error("read <{name}/>")]
    Malformed {
        /// Element name.
        name: &'static str,
        /// What serde says, with line and column; never the text itself.
        #[source]
        source: serde_json::Error,
    },
}

macro_rules! payloads {
    ($($ty:ty => $ns:expr, $name:literal;)*) => {
        $(impl Payload for $ty { const NS: &'static str = $ns; const NAME: &'static str = $name; })*
    };
}

payloads! {
    Hello => ns::AGENT, "hello";
    Welcome => ns::AGENT, "welcome";
    Health => ns::AGENT, "health";
    Progress => ns::AGENT, "progress";
    Notice => ns::AGENT, "notice";
    Configure => ns::AGENT, "configure";
    Applied => ns::AGENT, "applied";
    Lease => ns::AGENT, "lease";
    LeaseGrant => ns::AGENT, "lease-grant";
    UploadRequest => ns::AGENT, "upload-request";
    UploadGrant => ns::AGENT, "upload-grant";
    CertificateRequest => ns::AGENT, "certificate-request";
    Certificate => ns::AGENT, "certificate";
    Action => ns::CMD, "action";
    Report => ns::CMD, "report";
    Reply => ns::CMD, "reply";
    ErrorReport => ns::CMD, "error";
}

pub use action::{Action, ErrorReport, Report};
pub use config::AppliedConfig as Applied;
pub use config::DesiredConfig as Configure;
pub use health::{HealthReport as Health, Hello, Notice, Progress, Welcome};
pub use upload::{UploadGrant, UploadRequest};

/// A request: someone waits for the answer, nothing is stored, and repeating it is the asker's decision. The body is
/// secret because it may hold a password, so this type has no `Debug` and is not a [`Payload`].
#[derive(Clone)]
pub struct Request {
    /// Stable kind of the module.
    pub module: String,
    /// What is asked, for example `authenticate`.
    pub request: String,
    /// Milliseconds from receipt until nobody waits any more.
    pub ttl_ms: u64,
    /// JSON; its shape belongs to the module.
    pub body: Secret,
}

impl Request {
    /// The element's name in [`ns::CMD`].
    pub const NAME: &'static str = "request";

    /// Whether `element` is one.
    pub fn names(element: &Element) -> bool {
        element.is(Self::NAME, ns::CMD)
    }

    /// Writes the element.
    pub fn to_element(&self) -> Element {
        Element::builder(Self::NAME, ns::CMD)
            .attr(xso::exports::rxml::xml_ncname!("module").to_owned(), self.module.as_str())
            .attr(xso::exports::rxml::xml_ncname!("request").to_owned(), self.request.as_str())
            .attr(xso::exports::rxml::xml_ncname!("ttl-ms").to_owned(), self.ttl_ms.to_string())
            .append(&*fit_for_xml(self.body.expose()))
            .build()
    }

    /// Reads the element.
    ///
    /// # Errors
    /// When it is another element, too large, or lacks an attribute.
    pub fn from_element(element: &Element) -> Result<Self, PayloadError> {
        if !Self::names(element) {
            return Err(PayloadError::OtherElement { wanted: Self::NAME, got: element.name().to_owned() });
        }
        let attribute = |attribute: &'static str| {
            element.attr(attribute).ok_or(PayloadError::Attribute { name: Self::NAME, attribute })
        };
        let ttl_ms = attribute("ttl-ms")?
            .parse()
            .map_err(|_| PayloadError::Attribute { name: Self::NAME, attribute: "ttl-ms" })?;
        let body = Secret::new(element.text());
        if body.expose().len() > BODY_MAX_BYTES {
            return Err(PayloadError::TooLarge { name: Self::NAME, bytes: body.expose().len() });
        }
        Ok(Self {
            module: attribute("module")?.to_owned(),
            request: attribute("request")?.to_owned(),
            ttl_ms,
            body,
        })
    }
}

/// The answer to a [`Request`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub enum Reply {
    /// What was asked for; its shape belongs to the module.
    Answer(Value),
    /// Why there is no answer.
    Error(ErrorReport),
}

/// What an agent wants with a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LeaseOp {
    /// Get it, if nobody has it.
    Acquire,
    /// Keep it.
    Renew,
    /// Give it back.
    Release,
}

/// An agent asks for, keeps or returns a lease: the right to be the one collector of a resource.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lease {
    /// What is leased, for example `user_visibility/default`.
    pub resource: String,
    /// What to do.
    pub op: LeaseOp,
    /// The fence held, for renew and release.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fence: Option<u64>,
}

/// The cloud's answer to [`Lease`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LeaseGrant {
    /// What was asked for.
    pub resource: String,
    /// Whether the asker holds it now.
    pub granted: bool,
    /// The fence: grows with every new holder. The cloud refuses uploads and reports under an older one.
    pub fence: u64,
    /// Milliseconds the lease lives, counted by the agent from before it sent the request; 0 when not granted.
    pub ttl_ms: u64,
    /// Who has it, when not granted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holder: Option<String>,
    /// Milliseconds until asking again makes sense, when not granted.
    #[serde(default)]
    pub retry_after_ms: u64,
}

/// An agent wants its key certified: at enrolment, and again before the certificate ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CertificateRequest {
    /// PKCS#10 in PEM; the cloud takes the public key and nothing else from it.
    pub csr_pem: String,
    /// Host name, for people.
    pub host: String,
}

/// The cloud's answer to [`CertificateRequest`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Certificate {
    /// The agent's certificate chain in PEM, leaf first.
    pub chain_pem: String,
    /// The instance id the cloud gave, a UUID; at renewal the same as before.
    pub instance: String,
    /// The tenant's id.
    pub tenant: String,
    /// The bare JID to log in with.
    pub jid: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_survives_the_wire() {
        let request = Request {
            module: "user_auth".into(),
            request: "authenticate".into(),
            ttl_ms: 4_000,
            body: Secret::new(r#"{"username":"o'brien <x>","password":"a&b\"]]>"}"#),
        };
        let xml = String::from(&request.to_element());
        let back = Request::from_element(&xml.parse().unwrap()).unwrap();
        assert_eq!(back.body.expose(), request.body.expose());
        assert_eq!(
            (back.module, back.request, back.ttl_ms),
            (request.module, request.request, request.ttl_ms)
        );
    }

    #[test]
    fn a_foreign_element_is_named() {
        let element: Element = "<ping xmlns='urn:xmpp:ping'/>".parse().unwrap();
        let error = Hello::from_element(&element).unwrap_err();
        assert_eq!(error.to_string(), "expected <hello/>, got <ping/>");
    }

    #[test]
    fn an_oversized_body_is_refused_before_it_is_parsed() {
        let element = Element::builder("progress", ns::AGENT).append(" ".repeat(BODY_MAX_BYTES + 1)).build();
        assert!(matches!(Progress::from_element(&element), Err(PayloadError::TooLarge { .. })));
    }

    #[test]
    fn an_unknown_field_in_an_action_is_refused() {
        let element = Element::builder("action", ns::CMD)
            .append(r#"{"id":"1","module":"m","action":"a","ttl_ms":1,"attempt":1,"run":"cmd.exe"}"#)
            .build();
        let error = Action::from_element(&element).unwrap_err();
        assert!(matches!(error, PayloadError::Malformed { name: "action", .. }));
    }
}
