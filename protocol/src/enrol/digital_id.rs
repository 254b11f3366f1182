//! An adapter of our own for Entrust's older administration services: SOAP 1.1, user name token.
//!
//! The operations of the vendor's services (Administration Services, IdentityGuard, MDM Web Service) are not public, so
//! this is no copy of them. It is the contract an adapter in front of them has to offer: list what can be issued, issue,
//! revoke. An issue is named by the caller for ever, so that repeating it leads to the same certificate.

use super::soap::{self, Head, Message, Version, local_text, many, text};
use super::{ShapeError, base64_text};
use crate::Secret;
use crate::xml::{Element, Writer};

/// Namespace of the adapter.
pub const NAMESPACE: &str = "urn:causeway:digital-id:1";

/// A request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Which digital ids the group may have issued.
    List {
        /// Group of the administrator; empty for their own.
        group: String,
    },
    /// Issue one.
    Create(Create),
    /// End one.
    Revoke {
        /// Serial number, hexadecimal.
        serial: String,
        /// As RFC 5280 section 5.3.1 writes it.
        reason: String,
    },
}

/// `createDigitalId`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Create {
    /// The caller's name of the issue, for ever.
    pub request: String,
    /// Which digital id.
    pub name: String,
    /// Values of its `%REPLACE%` fields, by field.
    pub values: Vec<(String, String)>,
    /// PKCS#10, DER.
    pub csr: Vec<u8>,
}

/// A kind of certificate that can be issued.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DigitalId {
    /// Its name.
    pub name: String,
    /// Parts of its subject: type and value, `%REPLACE%` for one the caller fills in.
    pub subject: Vec<(String, String)>,
    /// The part that names the user uniquely.
    pub unique: String,
}

/// Answer to a creation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Created {
    /// Here it is: the certificate, and the authorities from its issuer upwards, DER.
    Issued {
        /// The certificate.
        certificate: Vec<u8>,
        /// The authorities.
        chain: Vec<Vec<u8>>,
    },
    /// Asking with the same request again tells more.
    Pending,
}

/// What a caller fills in.
pub const REPLACE: &str = "%REPLACE%";

impl Request {
    /// The envelope.
    pub fn write(&self, user: &str, password: &Secret) -> String {
        let head = Head { user: Some((user, password)), ..Head::default() };
        soap::write(Version::V11, &head, &[("xmlns:d", NAMESPACE)], |out| match self {
            Self::List { group } => {
                out.start("d:listDigitalIds", &[]).element("d:group", &[], group).end();
            }
            Self::Create(create) => {
                out.start("d:createDigitalId", &[]).element("d:requestId", &[], &create.request);
                out.element("d:name", &[], &create.name);
                parts(out, "d:value", &create.values);
                out.start("d:request", &[]).base64(&create.csr).end().end();
            }
            Self::Revoke { serial, reason } => {
                out.start("d:revokeDigitalId", &[]).element("d:serialNumber", &[], serial);
                out.element("d:reason", &[], reason).end();
            }
        })
    }

    /// `SOAPAction`, with its quotation marks.
    pub fn soap_action(&self) -> String {
        let operation = match self {
            Self::List { .. } => "listDigitalIds",
            Self::Create(_) => "createDigitalId",
            Self::Revoke { .. } => "revokeDigitalId",
        };
        format!("\"{NAMESPACE}/{operation}\"")
    }

    /// Reads a request.
    ///
    /// # Errors
    /// Names the element that is missing or wrong.
    pub fn read(message: &Message) -> Result<Self, ShapeError> {
        let body = &message.body;
        let own = |what| text(body, what).map(str::to_owned);
        if *body.namespace != *NAMESPACE {
            return Err(ShapeError::Other { expected: "an operation of this service" });
        }
        match body.name.as_str() {
            "listDigitalIds" => {
                Ok(Self::List { group: local_text(body, "group").unwrap_or_default().to_owned() })
            }
            "createDigitalId" => Ok(Self::Create(Create {
                request: own("requestId")?,
                name: own("name")?,
                values: read_parts(body, "value")?,
                csr: base64_text(text(body, "request")?, "request")?,
            })),
            "revokeDigitalId" => Ok(Self::Revoke { serial: own("serialNumber")?, reason: own("reason")? }),
            _ => Err(ShapeError::Other { expected: "an operation of this service" }),
        }
    }
}

/// Answer to a list.
pub fn write_list(ids: &[DigitalId]) -> String {
    answer(|out| {
        out.start("d:listDigitalIdsResponse", &[]);
        for id in ids {
            out.start("d:digitalId", &[]).element("d:name", &[], &id.name);
            parts(out, "d:subjectPart", &id.subject);
            out.element("d:uniqueField", &[], &id.unique).end();
        }
        out.end();
    })
}

/// Reads the answer to a list.
///
/// # Errors
/// Names the element that is missing or wrong.
pub fn read_list(message: &Message) -> Result<Vec<DigitalId>, ShapeError> {
    let body = of(message, "listDigitalIdsResponse")?;
    let id = |id: &Element| {
        Ok(DigitalId {
            name: text(id, "name")?.to_owned(),
            subject: read_parts(id, "subjectPart")?,
            unique: local_text(id, "uniqueField").unwrap_or_default().to_owned(),
        })
    };
    many(body, "digitalId")?.into_iter().map(id).collect()
}

impl Created {
    /// The envelope.
    pub fn write(&self) -> String {
        answer(|out| {
            out.start("d:createDigitalIdResponse", &[]);
            match self {
                Self::Pending => {
                    out.element("d:status", &[], "PENDING");
                }
                Self::Issued { certificate, chain } => {
                    out.element("d:status", &[], "ISSUED");
                    out.start("d:certificate", &[]).base64(certificate).end();
                    for authority in chain {
                        out.start("d:authority", &[]).base64(authority).end();
                    }
                }
            }
            out.end();
        })
    }

    /// Reads the answer.
    ///
    /// # Errors
    /// Names the element that is missing or wrong.
    pub fn read(message: &Message) -> Result<Self, ShapeError> {
        let body = of(message, "createDigitalIdResponse")?;
        match text(body, "status")? {
            "PENDING" => Ok(Self::Pending),
            "ISSUED" => {
                let chain = many(body, "authority")?;
                let chain = chain.into_iter().map(|link| base64_text(&link.text, "authority"));
                Ok(Self::Issued {
                    certificate: base64_text(text(body, "certificate")?, "certificate")?,
                    chain: chain.collect::<Result<_, _>>()?,
                })
            }
            _ => Err(ShapeError::Wrong { what: "status" }),
        }
    }
}

/// Answer to a revocation: the status of the certificate, `REVOKED`.
pub fn write_revoked(status: &str) -> String {
    answer(|out| {
        out.start("d:revokeDigitalIdResponse", &[]).element("d:status", &[], status).end();
    })
}

/// Reads the answer to a revocation.
///
/// # Errors
/// Names the element that is missing or wrong.
pub fn read_revoked(message: &Message) -> Result<String, ShapeError> {
    text(of(message, "revokeDigitalIdResponse")?, "status").map(str::to_owned)
}

fn answer(body: impl FnOnce(&mut Writer)) -> String {
    soap::write(Version::V11, &Head::default(), &[("xmlns:d", NAMESPACE)], body)
}

fn of<'a>(message: &'a Message, expected: &'static str) -> Result<&'a Element, ShapeError> {
    if message.body.name == expected { Ok(&message.body) } else { Err(ShapeError::Other { expected }) }
}

fn parts(out: &mut Writer, name: &'static str, parts: &[(String, String)]) {
    for (field, value) in parts {
        out.element(name, &[("field", field)], value);
    }
}

fn read_parts(parent: &Element, what: &'static str) -> Result<Vec<(String, String)>, ShapeError> {
    let part = |part: &Element| {
        let field = part.attribute("field").ok_or(ShapeError::Missing { what: "field" })?;
        Ok((field.to_owned(), part.text.trim().to_owned()))
    };
    many(parent, what)?.into_iter().map(part).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_travel_with_who_asks() {
        let password = Secret::new("s3cret&".to_owned());
        let create = Create {
            request: "r-1".into(),
            name: "Mobile user".into(),
            values: vec![("cn".into(), "Ann <a>".into())],
            csr: vec![0x30, 1],
        };
        for sent in [
            Request::List { group: "Mobile".into() },
            Request::Create(create),
            Request::Revoke { serial: "0a".into(), reason: "superseded".into() },
        ] {
            let message = soap::read(sent.write("admin", &password).as_bytes()).unwrap();
            assert_eq!(message.user().unwrap().1.expose(), "s3cret&");
            assert_eq!(Request::read(&message).unwrap(), sent);
        }
    }

    #[test]
    fn answers_travel() {
        let read = |text: String| soap::read(text.as_bytes()).unwrap();
        let ids = vec![DigitalId {
            name: "Mobile user".into(),
            subject: vec![("cn".into(), REPLACE.into()), ("o".into(), "Acme".into())],
            unique: "cn".into(),
        }];
        assert_eq!(read_list(&read(write_list(&ids))).unwrap(), ids);
        for created in
            [Created::Pending, Created::Issued { certificate: vec![0x30], chain: vec![vec![0x30, 0]] }]
        {
            assert_eq!(Created::read(&read(created.write())).unwrap(), created);
        }
        assert_eq!(read_revoked(&read(write_revoked("REVOKED"))).unwrap(), "REVOKED");
        assert_eq!(
            read_list(&read(write_revoked("REVOKED"))),
            Err(ShapeError::Other { expected: "listDigitalIdsResponse" })
        );
    }
}
