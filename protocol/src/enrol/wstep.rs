//! MS-WSTEP: asking a certificate enrolment web service for a certificate, and asking again later.

use super::soap::{self, Head, Message, SECURITY, Version, local, local_attribute, local_text};
use super::{ShapeError, base64_text};
use crate::limits::ENROL_PARTS_MAX;
use crate::xml::{Element, Writer};

/// WS-Trust 1.3.
pub const TRUST: &str = "http://docs.oasis-open.org/ws-sx/ws-trust/200512";
/// Microsoft's additions to it.
pub const ENROLLMENT: &str = "http://schemas.microsoft.com/windows/pki/2009/01/enrollment";
/// Additional context of a request.
pub const CONTEXT: &str = "http://schemas.xmlsoap.org/ws/2006/12/authorization";
/// Action of every request.
pub const ACTION_REQUEST: &str = "http://schemas.microsoft.com/windows/pki/2009/01/enrollment/RST/wstep";
/// Action of every answer.
pub const ACTION_RESPONSE: &str = "http://schemas.microsoft.com/windows/pki/2009/01/enrollment/RSTRC/wstep";
/// Action of a fault with [`Detail`].
pub const ACTION_FAULT: &str = "http://schemas.microsoft.com/windows/pki/2009/01/enrollment/IWindowsEnrollment/RequestSecurityTokenCertificateEnrollmentWSDetailFault";

const ISSUE: &str = "http://docs.oasis-open.org/ws-sx/ws-trust/200512/Issue";
const QUERY: &str = "http://schemas.microsoft.com/windows/pki/2009/01/enrollment/QueryTokenStatus";
const TOKEN_TYPE: &str =
    "http://docs.oasis-open.org/wss/2004/01/oasis-200401-wss-x509-token-profile-1.0#X509v3";
const VALUE_PKCS10: &str = "http://schemas.microsoft.com/windows/pki/2009/01/enrollment#PKCS10";
const VALUE_PKCS7: &str =
    "http://docs.oasis-open.org/wss/2004/01/oasis-200401-wss-wssecurity-secext-1.0.xsd#PKCS7";
const ENCODING: &str =
    "http://docs.oasis-open.org/wss/2004/01/oasis-200401-wss-wssecurity-secext-1.0.xsd#base64binary";
const NAMESPACES: [(&str, &str); 3] = [("xmlns:t", TRUST), ("xmlns:e", ENROLLMENT), ("xmlns:c", CONTEXT)];

/// What a signing request comes in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wrapping {
    /// PKCS#10.
    Pkcs10,
    /// Signed by the certificate it renews, or by an enrolment agent. The value type is not verified on a real service.
    Pkcs7,
}

/// A request for a security token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Issue a certificate.
    Issue {
        /// What `request` is.
        wrapping: Wrapping,
        /// DER.
        request: Vec<u8>,
        /// Attributes of the request by name, for example `CertificateTemplate`.
        attributes: Vec<(String, String)>,
    },
    /// What became of a request.
    Query {
        /// The service's number of it.
        request_id: String,
    },
}

/// The answer to either.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Response {
    /// For people: `Issued`, `Taken Under Submission`.
    pub disposition: String,
    /// The service's number of the request.
    pub request_id: Option<String>,
    /// The certificate, DER; none while a person must approve.
    pub certificate: Option<Vec<u8>>,
    /// PKCS#7 with the certificate and its chain.
    pub bag: Option<Vec<u8>>,
    /// Where to ask again.
    pub poll: Option<String>,
}

/// What a fault says besides its reason (`CertificateEnrollmentWSDetail`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Detail {
    /// HRESULT as a number.
    pub error_code: Option<i64>,
    /// The service's number of the request.
    pub request_id: Option<String>,
}

impl Request {
    /// The envelope; `head` brings the address, the message id and who asks.
    pub fn write(&self, head: Head<'_>) -> String {
        let head = Head { action: Some(ACTION_REQUEST), ..head };
        soap::write(Version::V12, &head, &NAMESPACES, |out| {
            out.start("t:RequestSecurityToken", &[]);
            out.element("t:TokenType", &[], TOKEN_TYPE);
            match self {
                Self::Issue { wrapping, request, attributes } => {
                    out.element("t:RequestType", &[], ISSUE);
                    let value = match wrapping {
                        Wrapping::Pkcs10 => VALUE_PKCS10,
                        Wrapping::Pkcs7 => VALUE_PKCS7,
                    };
                    token(out, value, request);
                    if !attributes.is_empty() {
                        out.start("c:AdditionalContext", &[]);
                        for (name, value) in attributes {
                            out.start("c:ContextItem", &[("Name", name)])
                                .element("c:Value", &[], value)
                                .end();
                        }
                        out.end();
                    }
                }
                Self::Query { request_id } => {
                    out.element("t:RequestType", &[], QUERY).element("e:RequestID", &[], request_id);
                }
            }
            out.end();
        })
    }

    /// Reads a request; its action is the reader's to judge.
    ///
    /// # Errors
    /// Names the element that is missing or wrong.
    pub fn read(message: &Message) -> Result<Self, ShapeError> {
        let body = &message.body;
        if !body.is(TRUST, "RequestSecurityToken") {
            return Err(ShapeError::Other { expected: "wst:RequestSecurityToken" });
        }
        let kind =
            body.child_text(TRUST, "RequestType").ok_or(ShapeError::Missing { what: "wst:RequestType" })?;
        match kind {
            ISSUE => Self::read_issue(body),
            QUERY => {
                let id = body.child_text(ENROLLMENT, "RequestID").filter(|id| !id.is_empty());
                let request_id = id.ok_or(ShapeError::Missing { what: "RequestID" })?.to_owned();
                Ok(Self::Query { request_id })
            }
            _ => Err(ShapeError::Wrong { what: "wst:RequestType" }),
        }
    }

    fn read_issue(body: &Element) -> Result<Self, ShapeError> {
        let what = "wsse:BinarySecurityToken";
        let token = body.child(SECURITY, "BinarySecurityToken").ok_or(ShapeError::Missing { what })?;
        let wrapping = match local_attribute(token, "ValueType") {
            Some(VALUE_PKCS10) => Wrapping::Pkcs10,
            Some(VALUE_PKCS7) => Wrapping::Pkcs7,
            _ => return Err(ShapeError::Wrong { what: "ValueType" }),
        };
        if local_attribute(token, "EncodingType").is_none_or(|kind| !kind.eq_ignore_ascii_case(ENCODING)) {
            return Err(ShapeError::Wrong { what: "EncodingType" });
        }
        let request = base64_text(&token.text, what)?;
        let mut attributes = Vec::new();
        let items = local(body, "AdditionalContext").map(|context| context.children.as_slice());
        for item in items.unwrap_or_default().iter().take(ENROL_PARTS_MAX) {
            if let (Some(name), Some(value)) = (local_attribute(item, "Name"), local_text(item, "Value")) {
                attributes.push((name.to_owned(), value.to_owned()));
            }
        }
        Ok(Self::Issue { wrapping, request, attributes })
    }
}

impl Response {
    /// The envelope.
    pub fn write(&self, head: Head<'_>) -> String {
        let head = Head { action: Some(ACTION_RESPONSE), ..head };
        soap::write(Version::V12, &head, &NAMESPACES, |out| {
            out.start("t:RequestSecurityTokenResponseCollection", &[]);
            out.start("t:RequestSecurityTokenResponse", &[]);
            out.element("t:TokenType", &[], TOKEN_TYPE);
            out.element("e:DispositionMessage", &[("xml:lang", "en-US")], &self.disposition);
            if let Some(bag) = &self.bag {
                token(out, VALUE_PKCS7, bag);
            }
            out.start("t:RequestedSecurityToken", &[]);
            if let Some(certificate) = &self.certificate {
                token(out, TOKEN_TYPE, certificate);
            } else if let Some(poll) = &self.poll {
                out.start("o:SecurityTokenReference", &[]).empty("o:Reference", &[("URI", poll)]).end();
            }
            out.end();
            if let Some(id) = &self.request_id {
                out.element("e:RequestID", &[], id);
            }
            out.end().end();
        })
    }

    /// Reads the first answer of a collection.
    ///
    /// # Errors
    /// Names the element that is missing or wrong.
    pub fn read(message: &Message) -> Result<Self, ShapeError> {
        let expected = "wst:RequestSecurityTokenResponse";
        let found = soap::anywhere(&message.body, "RequestSecurityTokenResponse");
        let body = found.ok_or(ShapeError::Other { expected })?;
        let token = |parent: &Element| {
            let token = local(parent, "BinarySecurityToken").filter(|token| !token.text.trim().is_empty());
            token.map(|token| base64_text(&token.text, "wsse:BinarySecurityToken")).transpose()
        };
        let requested = local(body, "RequestedSecurityToken");
        let reference = requested
            .and_then(|requested| local(requested, "SecurityTokenReference"))
            .and_then(|reference| local(reference, "Reference"))
            .and_then(|reference| local_attribute(reference, "URI"));
        Ok(Self {
            disposition: local_text(body, "DispositionMessage").unwrap_or_default().to_owned(),
            request_id: local_text(body, "RequestID").map(str::to_owned),
            certificate: requested.map(token).transpose()?.flatten(),
            bag: token(body)?,
            poll: reference.map(str::to_owned),
        })
    }
}

impl Detail {
    /// Inside a fault's detail.
    pub fn write(&self, out: &mut Writer) {
        out.start("e:CertificateEnrollmentWSDetail", &[("xmlns:e", ENROLLMENT)]);
        out.empty("e:BinaryResponse", &[("i:nil", "true")]);
        if let Some(code) = self.error_code {
            out.element("e:ErrorCode", &[], &code.to_string());
        }
        out.element("e:InvalidRequest", &[], "true");
        if let Some(id) = &self.request_id {
            out.element("e:RequestID", &[], id);
        }
        out.end();
    }

    /// From a fault's detail; what is not there stays empty.
    pub fn read(detail: &Element) -> Self {
        let Some(body) = soap::anywhere(detail, "CertificateEnrollmentWSDetail") else {
            return Self::default();
        };
        Self {
            error_code: local_text(body, "ErrorCode").and_then(|text| text.parse().ok()),
            request_id: local_text(body, "RequestID").map(str::to_owned),
        }
    }
}

fn token(out: &mut Writer, value: &str, bytes: &[u8]) {
    let attributes = [("ValueType", value), ("EncodingType", ENCODING)];
    out.start("o:BinarySecurityToken", &attributes).base64(bytes).end();
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_request_is_read_as_windows_writes_it() {
        let text = format!(
            "<s:Envelope xmlns:s='{}' xmlns:a='{}'><s:Header><a:Action s:mustUnderstand='1'>{ACTION_REQUEST}</a:Action>\
             </s:Header><s:Body><RequestSecurityToken PreferredLanguage='en-US' xmlns='{TRUST}'>\
             <TokenType>{TOKEN_TYPE}</TokenType><RequestType>{ISSUE}</RequestType>\
             <BinarySecurityToken ValueType='{VALUE_PKCS10}' EncodingType='{ENCODING}' a:Id='' \
             xmlns='{SECURITY}'>AQ&#xD;\nID&#xD;\n</BinarySecurityToken></RequestSecurityToken></s:Body></s:Envelope>",
            soap::SOAP_12,
            soap::ADDRESSING,
        );
        let read = Request::read(&soap::read(text.as_bytes()).unwrap()).unwrap();
        let expected =
            Request::Issue { wrapping: Wrapping::Pkcs10, request: vec![1, 2, 3], attributes: vec![] };
        assert_eq!(read, expected);
    }

    #[test]
    fn requests_of_another_shape_are_named() {
        let good = Request::Query { request_id: "7".into() }.write(Head::default());
        for (from, to, expected) in [
            ("QueryTokenStatus", "Burn", ShapeError::Wrong { what: "wst:RequestType" }),
            (">7<", "><", ShapeError::Missing { what: "RequestID" }),
            (TRUST, "urn:trust", ShapeError::Other { expected: "wst:RequestSecurityToken" }),
        ] {
            let text = good.replace(from, to);
            assert_eq!(Request::read(&soap::read(text.as_bytes()).unwrap()), Err(expected));
        }
        let detail = Detail { error_code: Some(-2_146_877_420), request_id: Some("9".into()) };
        let text =
            soap::write_fault(Version::V12, &Head::default(), soap::Blame::Receiver, None, "", &[], |out| {
                detail.write(out);
            });
        let fault = soap::read(text.as_bytes()).unwrap().fault().unwrap();
        assert_eq!(Detail::read(&fault.detail.unwrap()), detail);
    }

    proptest! {
        #[test]
        fn requests_travel(
            request in proptest::collection::vec(any::<u8>(), 1..200),
            name in "[A-Za-z]{1,10}",
            value in "[ -~]{0,10}[!-~]",
            id in "[0-9]{1,8}",
        ) {
            let value = value.trim().to_owned();
            for sent in [
                Request::Issue { wrapping: Wrapping::Pkcs7, request, attributes: vec![(name, value)] },
                Request::Query { request_id: id },
            ] {
                let message = soap::read(sent.write(Head::default()).as_bytes()).unwrap();
                prop_assert_eq!(message.action(), Some(ACTION_REQUEST));
                prop_assert_eq!(Request::read(&message).unwrap(), sent);
            }
        }

        #[test]
        fn answers_travel(
            certificate in proptest::option::of(proptest::collection::vec(any::<u8>(), 1..50)),
            bag in proptest::option::of(proptest::collection::vec(any::<u8>(), 1..50)),
            id in proptest::option::of("[0-9]{1,8}"),
        ) {
            let poll = certificate.is_none().then(|| "https://ca/poll?x=1&y=2".to_owned());
            let sent = Response { disposition: "Issued".into(), request_id: id, certificate, bag, poll };
            let message = soap::read(sent.write(Head::default()).as_bytes()).unwrap();
            prop_assert_eq!(Response::read(&message).unwrap(), sent);
        }
    }
}
