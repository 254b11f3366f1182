//! Envelopes of SOAP 1.1 and 1.2, WS-Addressing 1.0 and the user name token of WS-Security 1.0.

use crate::Secret;
use crate::limits::{ENROL_DOCUMENT_MAX_BYTES, ENROL_PARTS_MAX};
use crate::xml::{self, Element, Writer};

use super::ShapeError;

/// SOAP 1.1.
pub const SOAP_11: &str = "http://schemas.xmlsoap.org/soap/envelope/";
/// SOAP 1.2.
pub const SOAP_12: &str = "http://www.w3.org/2003/05/soap-envelope";
/// WS-Addressing 1.0.
pub const ADDRESSING: &str = "http://www.w3.org/2005/08/addressing";
/// WS-Security 1.0: elements.
pub const SECURITY: &str =
    "http://docs.oasis-open.org/wss/2004/01/oasis-200401-wss-wssecurity-secext-1.0.xsd";
/// WS-Security 1.0, user name token profile 1.0: a password as it is.
pub const PASSWORD_TEXT: &str =
    "http://docs.oasis-open.org/wss/2004/01/oasis-200401-wss-username-token-profile-1.0#PasswordText";
const XSI: &str = "http://www.w3.org/2001/XMLSchema-instance";
const ANONYMOUS: &str = "http://www.w3.org/2005/08/addressing/anonymous";

/// Which SOAP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// 1.1: `text/xml`, and the header field `SOAPAction`.
    V11,
    /// 1.2: `application/soap+xml`.
    V12,
}

impl Version {
    /// Namespace of the envelope.
    pub fn namespace(self) -> &'static str {
        match self {
            Self::V11 => SOAP_11,
            Self::V12 => SOAP_12,
        }
    }

    /// `Content-Type` of a message.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::V11 => "text/xml; charset=utf-8",
            Self::V12 => "application/soap+xml; charset=utf-8",
        }
    }
}

/// What stands in the header of an envelope.
#[derive(Clone, Copy, Default)]
pub struct Head<'a> {
    /// WS-Addressing action; without it the message has no addressing at all.
    pub action: Option<&'a str>,
    /// WS-Addressing message id.
    pub message_id: Option<&'a str>,
    /// The message this one answers.
    pub relates_to: Option<&'a str>,
    /// Where the message goes.
    pub to: Option<&'a str>,
    /// User name and password of a user name token.
    pub user: Option<(&'a str, &'a Secret)>,
}

/// A message as it was read.
#[derive(Clone)]
pub struct Message {
    /// Which SOAP.
    pub version: Version,
    header: Option<Element>,
    /// The one element in its body.
    pub body: Element,
}

/// A fault, whichever SOAP it came in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The innermost code, without prefix.
    pub code: String,
    /// For people.
    pub reason: String,
    /// What the service says besides.
    pub detail: Option<Element>,
}

/// Writes an envelope. The body may use the prefixes `s`, `a`, `o` and those given.
pub fn write(
    version: Version,
    head: &Head<'_>,
    namespaces: &[(&str, &str)],
    body: impl FnOnce(&mut Writer),
) -> String {
    let mut out = Writer::new();
    let mut declared = vec![
        ("xmlns:s", version.namespace()),
        ("xmlns:a", ADDRESSING),
        ("xmlns:o", SECURITY),
        ("xmlns:i", XSI),
    ];
    declared.extend_from_slice(namespaces);
    out.start("s:Envelope", &declared);
    out.start("s:Header", &[]);
    if let Some(action) = head.action {
        out.element("a:Action", &[("s:mustUnderstand", "1")], action);
    }
    if let Some(id) = head.message_id {
        out.element("a:MessageID", &[], id);
        out.start("a:ReplyTo", &[]).element("a:Address", &[], ANONYMOUS).end();
    }
    if let Some(id) = head.relates_to {
        out.element("a:RelatesTo", &[], id);
    }
    if let Some(to) = head.to {
        out.element("a:To", &[("s:mustUnderstand", "1")], to);
    }
    if let Some((name, password)) = head.user {
        out.start("o:Security", &[("s:mustUnderstand", "1")]).start("o:UsernameToken", &[]);
        out.element("o:Username", &[], name);
        out.element("o:Password", &[("Type", PASSWORD_TEXT)], password.expose());
        out.end().end();
    }
    out.end().start("s:Body", &[]);
    body(&mut out);
    out.finish()
}

/// Writes a fault. `code` is `Sender` or `Receiver` in SOAP 1.2, `Client` or `Server` in 1.1; a sub-code comes only with 1.2.
pub fn write_fault(
    version: Version,
    head: &Head<'_>,
    blame: Blame,
    subcode: Option<&str>,
    reason: &str,
    namespaces: &[(&str, &str)],
    detail: impl FnOnce(&mut Writer),
) -> String {
    write(version, head, namespaces, |out| {
        out.start("s:Fault", &[]);
        match version {
            Version::V11 => {
                let code = match blame {
                    Blame::Sender => "s:Client",
                    Blame::Receiver => "s:Server",
                };
                out.element("faultcode", &[], code).element("faultstring", &[], reason);
                out.start("detail", &[]);
                detail(out);
                out.end();
            }
            Version::V12 => {
                let code = match blame {
                    Blame::Sender => "s:Sender",
                    Blame::Receiver => "s:Receiver",
                };
                out.start("s:Code", &[]).element("s:Value", &[], code);
                if let Some(subcode) = subcode {
                    out.start("s:Subcode", &[]).element("s:Value", &[], subcode).end();
                }
                out.end();
                out.start("s:Reason", &[]).element("s:Text", &[("xml:lang", "en-US")], reason).end();
                out.start("s:Detail", &[]);
                detail(out);
                out.end();
            }
        }
        out.end();
    })
}

/// Whose fault it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blame {
    /// The request is wrong.
    Sender,
    /// The service cannot.
    Receiver,
}

/// Reads a message of at most [`ENROL_DOCUMENT_MAX_BYTES`].
///
/// # Errors
/// [`ShapeError::Xml`] and [`ShapeError::NotSoap`].
pub fn read(bytes: &[u8]) -> Result<Message, ShapeError> {
    let mut root = xml::read(bytes, ENROL_DOCUMENT_MAX_BYTES).map_err(ShapeError::Xml)?;
    let version = match &*root.namespace {
        SOAP_11 => Version::V11,
        SOAP_12 => Version::V12,
        _ => return Err(ShapeError::NotSoap),
    };
    if root.name != "Envelope" {
        return Err(ShapeError::NotSoap);
    }
    let namespace = version.namespace();
    let mut take = |name: &str| {
        let at = root.children.iter().position(|child| child.is(namespace, name))?;
        Some(root.children.swap_remove(at))
    };
    let header = take("Header");
    let body = take("Body").and_then(|mut body| {
        let only = body.children.pop()?;
        body.children.is_empty().then_some(only)
    });
    Ok(Message { version, header, body: body.ok_or(ShapeError::NotSoap)? })
}

impl Message {
    /// The addressing action.
    pub fn action(&self) -> Option<&str> {
        self.addressing("Action")
    }

    /// The addressing message id.
    pub fn message_id(&self) -> Option<&str> {
        self.addressing("MessageID")
    }

    /// The id of the message this one answers.
    pub fn relates_to(&self) -> Option<&str> {
        self.addressing("RelatesTo")
    }

    fn addressing(&self, name: &str) -> Option<&str> {
        self.header.as_ref()?.child_text(ADDRESSING, name).filter(|text| !text.is_empty())
    }

    /// User name and password of a user name token with a password as it is.
    pub fn user(&self) -> Option<(String, Secret)> {
        let token = self.header.as_ref()?.child(SECURITY, "Security")?.child(SECURITY, "UsernameToken")?;
        let name = token.child_text(SECURITY, "Username")?;
        let password = token.child(SECURITY, "Password")?;
        // Without a type a password is one as it is (user name token profile 1.0, section 3.1).
        if password.attribute("Type").is_some_and(|kind| kind != PASSWORD_TEXT) {
            return None;
        }
        Some((name.to_owned(), Secret::new(password.text.clone())))
    }

    /// The fault, when it is one.
    pub fn fault(&self) -> Option<Fault> {
        if !self.body.is(self.version.namespace(), "Fault") {
            return None;
        }
        let text =
            |element: Option<&Element>| element.map(|found| found.text.trim().to_owned()).unwrap_or_default();
        let (code, reason, detail) = match self.version {
            Version::V11 => {
                let part = |name| local(&self.body, name);
                (text(part("faultcode")), text(part("faultstring")), part("detail"))
            }
            Version::V12 => {
                let code = local(&self.body, "Code");
                let sub = code.and_then(|code| local(code, "Subcode"));
                let value = sub.or(code).and_then(|code| local(code, "Value"));
                let reason = local(&self.body, "Reason").and_then(|reason| local(reason, "Text"));
                (text(value), text(reason), local(&self.body, "Detail"))
            }
        };
        let code = code.rsplit(':').next().unwrap_or_default().to_owned();
        Some(Fault { code, reason, detail: detail.cloned() })
    }
}

/// The first child of that local name, whatever its namespace.
pub fn local<'a>(element: &'a Element, name: &str) -> Option<&'a Element> {
    element.children.iter().find(|child| child.name == name)
}

/// The text of the first child of that local name, if there is any.
pub fn local_text<'a>(element: &'a Element, name: &str) -> Option<&'a str> {
    local(element, name).map(|child| child.text.trim()).filter(|text| !text.is_empty())
}

/// The text of a child that must be there and say something.
pub(super) fn text<'a>(parent: &'a Element, what: &'static str) -> Result<&'a str, ShapeError> {
    local_text(parent, what).ok_or(ShapeError::Missing { what })
}

/// The children of that local name, not too many of them.
pub(super) fn many<'a>(parent: &'a Element, what: &'static str) -> Result<Vec<&'a Element>, ShapeError> {
    let found: Vec<_> = parent.children.iter().filter(|child| child.name == what).collect();
    if found.len() > ENROL_PARTS_MAX {
        Err(ShapeError::TooMany { what, max: ENROL_PARTS_MAX })
    } else {
        Ok(found)
    }
}

/// The first element of that local name at any depth, itself included. Depth is bounded by the reader of XML.
pub fn anywhere<'a>(element: &'a Element, name: &str) -> Option<&'a Element> {
    if element.name == name {
        return Some(element);
    }
    element.children.iter().find_map(|child| anywhere(child, name))
}

/// An attribute by its local name: some clients put the namespace of their element before names of attributes.
pub fn local_attribute<'a>(element: &'a Element, name: &str) -> Option<&'a str> {
    element.attributes.iter().find(|known| known.name == name).map(|known| &*known.value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_keeps_its_header() {
        let password = Secret::new("p<&>w".to_owned());
        let head = Head {
            action: Some("urn:do"),
            message_id: Some("urn:uuid:1"),
            relates_to: None,
            to: Some("https://ca/x"),
            user: Some(("ACME\\svc", &password)),
        };
        for version in [Version::V11, Version::V12] {
            let text = write(version, &head, &[("xmlns:x", "urn:x")], |out| {
                out.element("x:Ask", &[], "1");
            });
            let message = read(text.as_bytes()).unwrap();
            assert_eq!(message.version, version);
            assert_eq!((message.action(), message.message_id()), (Some("urn:do"), Some("urn:uuid:1")));
            assert!(message.body.is("urn:x", "Ask") && message.fault().is_none());
            let (name, read) = message.user().unwrap();
            assert_eq!((name.as_str(), read.expose()), ("ACME\\svc", "p<&>w"));
        }
    }

    #[test]
    fn faults_of_both_versions_read_alike() {
        for version in [Version::V11, Version::V12] {
            let text =
                write_fault(version, &Head::default(), Blame::Sender, None, "no such profile", &[], |out| {
                    out.element("errorcode", &[], "7");
                });
            let fault = read(text.as_bytes()).unwrap().fault().unwrap();
            assert_eq!(fault.reason, "no such profile");
            assert_eq!(local_text(fault.detail.as_ref().unwrap(), "errorcode"), Some("7"));
            assert!(["Client", "Sender"].contains(&fault.code.as_str()));
        }
        let text =
            write_fault(Version::V12, &Head::default(), Blame::Sender, Some("a:Denied"), "", &[], |_| {});
        assert_eq!(read(text.as_bytes()).unwrap().fault().unwrap().code, "Denied");
    }

    #[test]
    fn foreign_prefixes_do_not_matter() {
        let text = format!(
            "<?xml version='1.0'?><Envelope xmlns='{SOAP_12}' xmlns:q='{ADDRESSING}'><Header><q:Action Z='1' \
             xmlns:Z='urn:z' Z:b=''>urn:a</q:Action></Header><Body><n:Ask xmlns:n='urn:n' n:Kind='k'/></Body></Envelope>"
        );
        let message = read(text.as_bytes()).unwrap();
        assert_eq!(message.action(), Some("urn:a"));
        assert_eq!(local_attribute(&message.body, "Kind"), Some("k"));
    }

    #[test]
    fn what_is_no_envelope_is_refused() {
        let two = format!("<E:Envelope xmlns:E='{SOAP_11}'><E:Body><a/><b/></E:Body></E:Envelope>");
        let none = format!("<E:Envelope xmlns:E='{SOAP_11}'><E:Body/></E:Envelope>");
        let other = "<E:Envelope xmlns:E='urn:soap'><E:Body><a/></E:Body></E:Envelope>";
        for text in [two.as_str(), &none, other, "<html/>"] {
            assert_eq!(read(text.as_bytes()).err(), Some(ShapeError::NotSoap), "{text}");
        }
        assert!(matches!(read(b"<html><br></html>"), Err(ShapeError::Xml(_))));
    }
}
