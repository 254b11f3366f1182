//! Entrust CA Gateway, version 1 of its REST interface: JSON over TLS with a client certificate.
//!
//! Names are those of the vendor's public command-line examples and of open connectors. A reader takes what it knows and
//! leaves the rest.

use serde::{Deserialize, Serialize};

use super::{ShapeError, base64_text, json};

/// Path all resources begin with.
pub const PATH: &str = "/v1/certificate-authorities";

/// Answer to `GET /v1/certificate-authorities`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Authorities {
    /// Kind of the answer.
    #[serde(rename = "type", default)]
    pub kind: String,
    /// All the caller may use.
    #[serde(default)]
    pub certificate_authorities: Vec<Authority>,
}

/// Answer to `GET /v1/certificate-authorities/{id}`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct OneAuthority {
    /// Kind of the answer.
    #[serde(rename = "type", default)]
    pub kind: String,
    /// It.
    pub ca: Authority,
}

/// A certificate authority. Certificate and chain come only when `$fields=ca.certificate,ca.chain` asks for them.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Authority {
    /// Stable.
    #[serde(default)]
    pub id: String,
    /// For people.
    #[serde(default)]
    pub name: String,
    /// `ACTIVE`.
    #[serde(default)]
    pub status: String,
    /// Its own certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<Certificate>,
    /// The ones above it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub chain: Vec<Certificate>,
}

/// A certificate.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Certificate {
    /// Base64 of DER.
    #[serde(default)]
    pub certificate_data: String,
    /// Hexadecimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serial_number: Option<String>,
    /// `ACTIVE`, `REVOKED`, `EXPIRED`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
}

impl Certificate {
    /// Its DER.
    ///
    /// # Errors
    /// [`ShapeError::Wrong`]
    pub fn der(&self) -> Result<Vec<u8>, ShapeError> {
        base64_text(&self.certificate_data, "certificateData")
    }
}

/// Answer to `GET .../certificates/{serial}`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct OneCertificate {
    /// Kind of the answer.
    #[serde(rename = "type", default)]
    pub kind: String,
    /// It.
    pub certificate: Certificate,
}

/// Answer to `GET .../profiles`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Profiles {
    /// Kind of the answer.
    #[serde(rename = "type", default)]
    pub kind: String,
    /// All of the authority.
    #[serde(default)]
    pub profiles: Vec<Profile>,
}

/// Answer to `GET .../profiles/{id}`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct OneProfile {
    /// Kind of the answer.
    #[serde(rename = "type", default)]
    pub kind: String,
    /// It.
    pub profile: Profile,
}

/// A profile.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Profile {
    /// Stable.
    pub id: String,
    /// For people.
    #[serde(default)]
    pub name: String,
    /// Parts of the subject an enrolment brings when the profile builds the subject.
    #[serde(default)]
    pub subject_variable_requirements: Vec<VariableRequirement>,
    /// Kinds of alternative names it takes.
    #[serde(default)]
    pub subject_alt_name_requirements: Vec<NameRequirement>,
}

/// A part of the subject.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VariableRequirement {
    /// `cn`, for example.
    pub name: String,
    /// Whether an enrolment without it is refused.
    #[serde(default)]
    pub required: bool,
}

/// A kind of alternative name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NameRequirement {
    /// `dNSName`, for example.
    #[serde(rename = "type")]
    pub kind: String,
    /// Whether an enrolment without it is refused.
    #[serde(default)]
    pub required: bool,
}

/// Body of `POST .../enrollments`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Enroll {
    /// Which profile.
    pub profile_id: String,
    /// What comes back.
    pub required_format: Format,
    /// Base64 of a PKCS#10; its subject and names do not count, those of this body do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub csr: Option<String>,
    /// Parts of the subject.
    #[serde(default)]
    pub subject_variables: Vec<Typed>,
    /// Alternative names.
    #[serde(default)]
    pub subject_alt_names: Vec<Typed>,
    /// Whether the chain comes along.
    #[serde(default)]
    pub include_ca: bool,
    /// Free properties.
    #[serde(default, skip_serializing_if = "std::collections::BTreeMap::is_empty")]
    pub properties: std::collections::BTreeMap<String, String>,
    /// What goes past the profile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub optional_certificate_request_details: Option<Details>,
}

/// Format of what comes back.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Format {
    /// `PEM`, `X509` or `PKCS12`.
    pub format: String,
}

/// A kind and a value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Typed {
    /// `cn`, `dNSName`, ...
    #[serde(rename = "type")]
    pub kind: String,
    /// Its value.
    pub value: String,
}

/// What goes past the profile.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Details {
    /// The whole subject.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject_dn: Option<String>,
    /// ISO 8601 period.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validity_period: Option<String>,
}

/// Answer to an enrolment and to a question after it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Enrolled {
    /// Kind of the answer.
    #[serde(rename = "type", default)]
    pub kind: String,
    /// It.
    pub enrollment: Enrollment,
}

/// An enrolment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Enrollment {
    /// The service's id of it.
    #[serde(default)]
    pub id: String,
    /// `ACCEPTED`, `ISSUED`, `PENDING`, `REJECTED`; some versions leave it out where the body says it all.
    #[serde(default)]
    pub status: String,
    /// The certificate: PEM, or base64 of DER, as the format was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
    /// Hexadecimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serial_number: Option<String>,
    /// With `includeCa`: authorities from the issuer upwards, PEM or base64 of DER.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub chain: Vec<ChainLink>,
    /// Why it was rejected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// A certificate of a chain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ChainLink {
    /// Base64 of DER.
    pub certificate_data: String,
}

/// Reads the answer to an enrolment or to a question after it.
///
/// # Errors
/// [`ShapeError::Json`]
pub fn enrollment(bytes: &[u8]) -> Result<Enrollment, ShapeError> {
    json::<Enrolled>(bytes).map(|answer| answer.enrollment)
}

/// Reads any other answer.
///
/// # Errors
/// [`ShapeError::Json`]
pub fn answer<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, ShapeError> {
    json(bytes)
}

/// Body of `POST .../certificates/{serial}/actions`, and its answer.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Act {
    /// It.
    pub action: Action,
}

/// Something done to a certificate.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Action {
    /// `RevokeAction`, `HoldAction`, `UnholdAction`.
    #[serde(rename = "type")]
    pub kind: String,
    /// As RFC 5280 section 5.3.1 writes it, `keyCompromise` for example.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    /// Whether doing it twice is a success. Absent: yes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub succeed_if_already_in_requested_state: Option<bool>,
    /// In answers: `COMPLETED`, `PENDING`, `FAILED`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
}

/// Body of `PUT .../certificates/{serial}/revoke`, as an open connector sends it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PutRevoke {
    /// As RFC 5280 section 5.3.1 writes it.
    pub reason: String,
}

/// Answer to `GET .../certificate-events?startDate=...&preferredPageSize=N&nextPageIndex=N`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Events {
    /// Kind of the answer.
    #[serde(rename = "type", default)]
    pub kind: String,
    /// The page, oldest first.
    #[serde(default)]
    pub events: Vec<Event>,
    /// Whether another page follows.
    #[serde(default)]
    pub more_pages: bool,
    /// Where it begins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_page_index: Option<u64>,
}

/// Something that happened to a certificate. The members of an event are inferred.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Event {
    /// `CertificateIssuedEvent`, `CertificateRevokedEvent`.
    #[serde(rename = "type", default)]
    pub kind: String,
    /// Hexadecimal.
    #[serde(default)]
    pub serial_number: String,
    /// The certificate, base64 of DER.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<String>,
}

/// What went wrong.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Failed {
    /// It.
    pub error: Problem,
}

/// What went wrong.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Problem {
    /// Stable.
    #[serde(default)]
    pub code: String,
    /// For people.
    #[serde(default)]
    pub message: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_of_the_vendors_shape_is_read() {
        let text = br#"{"type":"EnrollmentResponse","message":{"message":"ok","details":[]},"enrollment":
            {"id":"7","serialNumber":"0a","subjectName":"cn=a","issuerName":"cn=ca","validityPeriod":"P1Y",
             "status":"ACCEPTED","body":"-----BEGIN CERTIFICATE-----\nAQID\n-----END CERTIFICATE-----\n"}}"#;
        let read = enrollment(text).unwrap();
        assert_eq!((read.id.as_str(), read.status.as_str()), ("7", "ACCEPTED"));
        assert_eq!(base64_text(read.body.as_deref().unwrap(), "body").unwrap(), [1, 2, 3]);
        let text = br#"{"type":"ActionResponse","action":{"type":"RevokeAction","id":"9","properties":{},
            "comment":"","status":"COMPLETED","succeedIfAlreadyInRequestedState":true,"reason":"unspecified"}}"#;
        let act: Act = answer(text).unwrap();
        assert_eq!(act.action.status.as_deref(), Some("COMPLETED"));
    }

    #[test]
    fn a_page_in_place_of_json_is_refused() {
        for text in ["", "<html></html>", "[]", "{}", r#"{"enrollment":7}"#] {
            assert!(matches!(enrollment(text.as_bytes()), Err(ShapeError::Json { .. })), "{text}");
        }
    }

    #[test]
    fn an_enrolment_has_the_names_connectors_send() {
        let enroll = Enroll {
            profile_id: "p".into(),
            required_format: Format { format: "PEM".into() },
            csr: Some("AQID".into()),
            subject_variables: vec![Typed { kind: "cn".into(), value: "a".into() }],
            subject_alt_names: vec![],
            include_ca: true,
            properties: Default::default(),
            optional_certificate_request_details: Some(Details {
                subject_dn: Some("CN=a".into()),
                validity_period: None,
            }),
        };
        let text = serde_json::to_value(&enroll).unwrap();
        let expected = serde_json::json!({
            "profileId": "p", "requiredFormat": { "format": "PEM" }, "csr": "AQID",
            "subjectVariables": [{ "type": "cn", "value": "a" }], "subjectAltNames": [], "includeCa": true,
            "optionalCertificateRequestDetails": { "subjectDn": "CN=a" },
        });
        assert_eq!(text, expected);
    }
}
