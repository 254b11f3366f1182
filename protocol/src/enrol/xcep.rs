//! MS-XCEP: which templates a caller may use and which services issue them.

use super::soap::{self, Head, Message, Version, local, local_text};
use super::{ShapeError, base64_text};
use crate::limits::ENROL_PARTS_MAX;
use crate::xml::{Element, Writer};

/// Namespace of the service.
pub const POLICY: &str = "http://schemas.microsoft.com/windows/pki/2009/01/enrollmentpolicy";
/// Action of the question.
pub const ACTION_REQUEST: &str =
    "http://schemas.microsoft.com/windows/pki/2009/01/enrollmentpolicy/IPolicy/GetPolicies";
/// Action of the answer.
pub const ACTION_RESPONSE: &str =
    "http://schemas.microsoft.com/windows/pki/2009/01/enrollmentpolicy/IPolicy/GetPoliciesResponse";
const NAMESPACES: [(&str, &str); 1] = [("xmlns:p", POLICY)];

/// How a service wants to know who asks (`clientAuthentication`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Authentication {
    /// Nobody in particular.
    Anonymous,
    /// Kerberos.
    Kerberos,
    /// User name token.
    UserName,
    /// TLS client certificate.
    Certificate,
}

impl Authentication {
    /// The number on the wire.
    pub fn code(self) -> u32 {
        match self {
            Self::Anonymous => 1,
            Self::Kerberos => 2,
            Self::UserName => 4,
            Self::Certificate => 8,
        }
    }

    /// From the number on the wire.
    pub fn of_code(code: u32) -> Option<Self> {
        [Self::Anonymous, Self::Kerberos, Self::UserName, Self::Certificate]
            .into_iter()
            .find(|known| known.code() == code)
    }
}

/// Where a certificate authority is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uri {
    /// How it wants to know who asks.
    pub authentication: Authentication,
    /// URL of the enrolment service.
    pub uri: String,
    /// The lowest is to be tried first.
    pub priority: u32,
    /// Only for renewals.
    pub renewal_only: bool,
}

/// A certificate authority.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ca {
    /// What policies refer to it by.
    pub reference: u32,
    /// Its services.
    pub uris: Vec<Uri>,
    /// Its certificate, DER.
    pub certificate: Vec<u8>,
    /// Whether the caller may enrol with it.
    pub may_enroll: bool,
}

/// A template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Its name, which requests carry.
    pub common_name: String,
    /// Object identifier in dots.
    pub oid: String,
    /// Seconds a certificate lives.
    pub validity_secs: u64,
    /// Seconds before its end at which it is to be renewed.
    pub renewal_secs: u64,
    /// Bits a key must have at least.
    pub key_min_bits: u32,
    /// Whether the caller may enrol.
    pub may_enroll: bool,
    /// Whether the caller is to enrol without being asked.
    pub auto_enroll: bool,
    /// [`Ca::reference`] of those that issue it.
    pub cas: Vec<u32>,
}

/// The answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policies {
    /// Identifier of the policy server.
    pub id: String,
    /// For people.
    pub friendly_name: String,
    /// Hours after which to ask again.
    pub next_update_hours: Option<u32>,
    /// Templates.
    pub policies: Vec<Policy>,
    /// Certificate authorities.
    pub cas: Vec<Ca>,
}

/// The question for everything.
pub fn write_request(head: Head<'_>) -> String {
    let head = Head { action: Some(ACTION_REQUEST), ..head };
    soap::write(Version::V12, &head, &NAMESPACES, |out| {
        out.start("p:GetPolicies", &[]).start("p:client", &[]);
        nil(out, "p:lastUpdate");
        nil(out, "p:preferredLanguage");
        out.end().start("p:requestFilter", &[]);
        for name in ["p:policyOIDs", "p:clientVersion", "p:serverVersion"] {
            nil(out, name);
        }
        out.end().end();
    })
}

/// Whether a message is the question; its action is the reader's to judge.
///
/// # Errors
/// Names what is missing.
pub fn read_request(message: &Message) -> Result<(), ShapeError> {
    if !message.body.is(POLICY, "GetPolicies") {
        return Err(ShapeError::Other { expected: "GetPolicies" });
    }
    for what in ["client", "requestFilter"] {
        message.body.child(POLICY, what).ok_or(ShapeError::Missing { what })?;
    }
    Ok(())
}

fn nil(out: &mut Writer, name: &'static str) {
    out.empty(name, &[("i:nil", "true")]);
}

impl Policies {
    /// The envelope.
    pub fn write(&self, head: Head<'_>) -> String {
        let head = Head { action: Some(ACTION_RESPONSE), ..head };
        soap::write(Version::V12, &head, &NAMESPACES, |out| {
            out.start("p:GetPoliciesResponse", &[]).start("p:response", &[]);
            out.element("p:policyID", &[], &self.id);
            out.element("p:policyFriendlyName", &[], &self.friendly_name);
            match self.next_update_hours {
                Some(hours) => out.element("p:nextUpdateHours", &[], &hours.to_string()),
                None => out.empty("p:nextUpdateHours", &[("i:nil", "true")]),
            };
            nil(out, "p:policiesNotChanged");
            out.start("p:policies", &[]);
            for (at, policy) in self.policies.iter().enumerate() {
                policy.write(out, at);
            }
            out.end().end().start("p:cAs", &[]);
            for ca in &self.cas {
                ca.write(out);
            }
            out.end().start("p:oIDs", &[]);
            for (at, policy) in self.policies.iter().enumerate() {
                out.start("p:oID", &[]).element("p:value", &[], &policy.oid);
                // Group 9: a template (MS-XCEP 3.1.4.1.3.17).
                out.element("p:group", &[], "9").element("p:oIDReferenceID", &[], &at.to_string());
                out.element("p:defaultName", &[], &policy.common_name).end();
            }
            out.end().end();
        })
    }

    /// Reads the answer.
    ///
    /// # Errors
    /// Names the element that is missing or wrong.
    pub fn read(message: &Message) -> Result<Self, ShapeError> {
        let expected = "GetPoliciesResponse";
        if message.body.name != expected {
            return Err(ShapeError::Other { expected });
        }
        let body = &message.body;
        let response = local(body, "response").ok_or(ShapeError::Missing { what: "response" })?;
        let oids = parts(local(body, "oIDs"), "oID")?;
        let oid = |reference: &str| {
            let found = oids.iter().find(|oid| local_text(oid, "oIDReferenceID") == Some(reference));
            found.and_then(|oid| local_text(oid, "value")).unwrap_or_default().to_owned()
        };
        let policies = parts(local(response, "policies"), "policy")?;
        let cas = parts(local(body, "cAs"), "cA")?;
        Ok(Self {
            id: local_text(response, "policyID").unwrap_or_default().to_owned(),
            friendly_name: local_text(response, "policyFriendlyName").unwrap_or_default().to_owned(),
            next_update_hours: number(response, "nextUpdateHours"),
            policies: policies
                .into_iter()
                .map(|policy| Policy::read(policy, oid))
                .collect::<Result<_, _>>()?,
            cas: cas.into_iter().map(Ca::read).collect::<Result<_, _>>()?,
        })
    }
}

impl Policy {
    fn write(&self, out: &mut Writer, reference: usize) {
        out.start("p:policy", &[]).element("p:policyOIDReference", &[], &reference.to_string());
        out.start("p:cAs", &[]);
        for ca in &self.cas {
            out.element("p:cAReference", &[], &ca.to_string());
        }
        out.end().start("p:attributes", &[]).element("p:commonName", &[], &self.common_name);
        out.element("p:policySchema", &[], "2").start("p:certificateValidity", &[]);
        out.element("p:validityPeriodSeconds", &[], &self.validity_secs.to_string());
        out.element("p:renewalPeriodSeconds", &[], &self.renewal_secs.to_string()).end();
        out.start("p:permission", &[]).element("p:enroll", &[], truth(self.may_enroll));
        out.element("p:autoEnroll", &[], truth(self.auto_enroll)).end();
        out.start("p:privateKeyAttributes", &[]);
        out.element("p:minimalKeyLength", &[], &self.key_min_bits.to_string()).end();
        out.end().end();
    }

    fn read(policy: &Element, oid: impl Fn(&str) -> String) -> Result<Self, ShapeError> {
        let attributes = local(policy, "attributes").ok_or(ShapeError::Missing { what: "attributes" })?;
        let common_name =
            local_text(attributes, "commonName").ok_or(ShapeError::Missing { what: "commonName" })?;
        let validity = local(attributes, "certificateValidity");
        let permission = local(attributes, "permission");
        let seconds = |name| validity.and_then(|validity| number(validity, name)).unwrap_or_default();
        let allows =
            |name| permission.and_then(|permission| local_text(permission, name)).is_some_and(is_true);
        let cas = parts(local(policy, "cAs"), "cAReference")?;
        Ok(Self {
            common_name: common_name.to_owned(),
            oid: oid(local_text(policy, "policyOIDReference").unwrap_or_default()),
            validity_secs: seconds("validityPeriodSeconds"),
            renewal_secs: seconds("renewalPeriodSeconds"),
            key_min_bits: local(attributes, "privateKeyAttributes")
                .and_then(|key| number(key, "minimalKeyLength"))
                .unwrap_or_default(),
            may_enroll: allows("enroll"),
            auto_enroll: allows("autoEnroll"),
            cas: cas.into_iter().filter_map(|ca| ca.text.trim().parse().ok()).collect(),
        })
    }
}

impl Ca {
    fn write(&self, out: &mut Writer) {
        out.start("p:cA", &[]).start("p:uris", &[]);
        for uri in &self.uris {
            out.start("p:cAURI", &[]);
            out.element("p:clientAuthentication", &[], &uri.authentication.code().to_string());
            out.element("p:uri", &[], &uri.uri).element("p:priority", &[], &uri.priority.to_string());
            out.element("p:renewalOnly", &[], truth(uri.renewal_only)).end();
        }
        out.end().start("p:certificate", &[]).base64(&self.certificate).end();
        out.element("p:enrollPermission", &[], truth(self.may_enroll));
        out.element("p:cAReferenceID", &[], &self.reference.to_string()).end();
    }

    fn read(ca: &Element) -> Result<Self, ShapeError> {
        let certificate = local(ca, "certificate").ok_or(ShapeError::Missing { what: "certificate" })?;
        let uris = parts(local(ca, "uris"), "cAURI")?.into_iter().filter_map(|uri| {
            Some(Uri {
                // One we do not know is one we cannot use.
                authentication: Authentication::of_code(number(uri, "clientAuthentication")?)?,
                uri: local_text(uri, "uri")?.to_owned(),
                priority: number(uri, "priority").unwrap_or(u32::MAX),
                renewal_only: local_text(uri, "renewalOnly").is_some_and(is_true),
            })
        });
        Ok(Self {
            reference: number(ca, "cAReferenceID").ok_or(ShapeError::Missing { what: "cAReferenceID" })?,
            uris: uris.collect(),
            certificate: base64_text(&certificate.text, "certificate")?,
            may_enroll: local_text(ca, "enrollPermission").is_some_and(is_true),
        })
    }
}

fn parts<'a>(parent: Option<&'a Element>, what: &'static str) -> Result<Vec<&'a Element>, ShapeError> {
    let found: Vec<_> =
        parent.into_iter().flat_map(|parent| &parent.children).filter(|it| it.name == what).collect();
    if found.len() > ENROL_PARTS_MAX {
        return Err(ShapeError::TooMany { what, max: ENROL_PARTS_MAX });
    }
    Ok(found)
}

fn number<T: std::str::FromStr>(parent: &Element, name: &str) -> Option<T> {
    local_text(parent, name)?.parse().ok()
}

fn truth(value: bool) -> &'static str {
    if value { "true" } else { "false" }
}

fn is_true(text: &str) -> bool {
    matches!(text, "true" | "1")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_travels() {
        let sent = Policies {
            id: "{1}".into(),
            friendly_name: "Acme & sons".into(),
            next_update_hours: Some(8),
            policies: vec![Policy {
                common_name: "User".into(),
                oid: "1.3.6.1.4.1.311.21.8.1".into(),
                validity_secs: 31_536_000,
                renewal_secs: 3_628_800,
                key_min_bits: 2048,
                may_enroll: true,
                auto_enroll: false,
                cas: vec![0],
            }],
            cas: vec![Ca {
                reference: 0,
                uris: vec![Uri {
                    authentication: Authentication::UserName,
                    uri: "https://ca/CES?a=1&b=2".into(),
                    priority: 1,
                    renewal_only: false,
                }],
                certificate: vec![0x30, 0],
                may_enroll: true,
            }],
        };
        let message = soap::read(sent.write(Head::default()).as_bytes()).unwrap();
        assert_eq!(message.action(), Some(ACTION_RESPONSE));
        assert_eq!(Policies::read(&message).unwrap(), sent);
    }

    #[test]
    fn the_question_is_known_and_another_is_not() {
        let text = write_request(Head::default());
        let message = soap::read(text.as_bytes()).unwrap();
        read_request(&message).unwrap();
        assert_eq!(Policies::read(&message), Err(ShapeError::Other { expected: "GetPoliciesResponse" }));
        let cut = text.replace("p:client>", "p:other>");
        let cut = soap::read(cut.as_bytes()).unwrap();
        assert_eq!(read_request(&cut), Err(ShapeError::Missing { what: "client" }));
    }
}
