//! Symantec Managed PKI 8 (DigiCert PKI Platform 8), SOAP 1.1.
//!
//! The vendor's contract is not public: names and order are those public clients send, namespaces of policies and
//! enrolment are inferred. So reading goes by local names, and both ends say which namespace they write.

mod answers;

pub use self::answers::{
    Enrolled, Entry, Field, Found, Profile, Updated, read_fault, read_policies, write_fault, write_policies,
};
use super::soap::{self, Head, Message, Version, local, local_attribute, local_text, many, text};
use super::{ShapeError, base64_text};
use crate::xml::{Element, Writer};

/// Namespace of the policy service. Inferred.
pub const POLICY: &str = "http://schemas.verisign.com/pkiservices/2009/07/policy";
/// Namespace of the enrolment service.
pub const ENROLLMENT: &str = "http://schemas.verisign.com/pkiservices/2009/07/enrollment";
/// Namespace of the management service.
pub const MANAGEMENT: &str = "http://schemas.verisign.com/pkiservices/2009/07/management";
/// Path of the policy service.
pub const POLICY_PATH: &str = "/pki-ws/policyService";
/// Path of the enrolment service.
pub const ENROLLMENT_PATH: &str = "/pki-ws/enrollmentService";
/// Path of the management service.
pub const MANAGEMENT_PATH: &str = "/pki-ws/certificateManagementService";

const TOKEN_TYPE: &str =
    "http://docs.oasis-open.org/wss/2004/01/oasis-200401-wss-x509-token-profile-1.0#PKCS7";
const VALUE_PKCS10: &str = "http://schemas.verisign.com/pkiservices/2009/07/PKCS10";
const ENCODING: &str =
    "http://docs.oasis-open.org/wss/2004/01/oasis-200401-wss-wssecurity-secext-1.0.xsd#base64binary";
const ISSUE: &str = "http://docs.oasis-open.org/ws-sx/ws-trust/200512/Issue";
const RENEW: &str = "http://docs.oasis-open.org/ws-sx/ws-trust/200512/Renew";

/// A request of any of the three services.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Which profiles there are.
    GetPolicies {
        /// The caller's id of the exchange.
        transaction: String,
    },
    /// Issue or renew.
    Enroll(Enroll),
    /// Revoke, suspend or resume.
    UpdateStatus(UpdateStatus),
    /// Look for certificates.
    Search(Search),
}

/// `RequestSecurityToken`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Enroll {
    /// Object identifier of the profile.
    pub profile: String,
    /// The caller's id of the exchange.
    pub transaction: String,
    /// In place of a certificate the seat has.
    pub renew: bool,
    /// PKCS#10, DER.
    pub csr: Vec<u8>,
    /// What the profile asks for, `seat_id` first.
    pub fields: Vec<(String, String)>,
}

/// `updateCertificateStatusRequest`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpdateStatus {
    /// The caller's id of the exchange.
    pub transaction: String,
    /// Which certificates.
    pub target: Target,
    /// The issuer of that serial number, RFC 4514.
    pub issuer: Option<String>,
    /// Why.
    pub reason: Option<Reason>,
    /// What to do.
    pub operation: Operation,
}

/// Whose status changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// One certificate: serial number in hexadecimal.
    Serial(String),
    /// All of a seat.
    Seat(String),
}

/// What happens to a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// For good.
    Revoke,
    /// For now.
    Suspend,
    /// Ends a suspension.
    Resume,
}

/// Why a certificate ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are those of RFC 5280, section 5.3.1")]
pub enum Reason {
    Unspecified,
    KeyCompromise,
    CaCompromise,
    AffiliationChanged,
    CessationOfOperation,
    PrivilegeWithdrawn,
    AaCompromise,
    Superseded,
}

/// `searchCertificateRequest`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Search {
    /// The caller's id of the exchange.
    pub transaction: String,
    /// Only of this seat.
    pub seat: Option<String>,
    /// Only of this profile.
    pub profile: Option<String>,
    /// Only with this serial number, hexadecimal.
    pub serial: Option<String>,
    /// Where the page begins, from 0.
    pub start: usize,
}

impl Operation {
    const ALL: [Self; 3] = [Self::Revoke, Self::Suspend, Self::Resume];

    /// The word on the wire.
    pub fn word(self) -> &'static str {
        match self {
            Self::Revoke => "Revoke",
            Self::Suspend => "Suspend",
            Self::Resume => "Resume",
        }
    }
}

impl Reason {
    const ALL: [Self; 8] = [
        Self::Unspecified,
        Self::KeyCompromise,
        Self::CaCompromise,
        Self::AffiliationChanged,
        Self::CessationOfOperation,
        Self::PrivilegeWithdrawn,
        Self::AaCompromise,
        Self::Superseded,
    ];

    /// The word on the wire.
    pub fn word(self) -> &'static str {
        match self {
            Self::Unspecified => "Unspecified",
            Self::KeyCompromise => "KeyCompromise",
            Self::CaCompromise => "CACompromise",
            Self::AffiliationChanged => "AffiliationChanged",
            Self::CessationOfOperation => "CessationOfOperation",
            Self::PrivilegeWithdrawn => "PrivilegeWithdrawn",
            Self::AaCompromise => "AACompromise",
            Self::Superseded => "Superseded",
        }
    }

    /// From the word on the wire.
    pub fn of_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|known| known.word() == word)
    }
}

impl Request {
    /// The envelope.
    pub fn write(&self) -> String {
        let namespace = [("xmlns:n", self.namespace())];
        soap::write(Version::V11, &Head::default(), &namespace, |out| match self {
            Self::GetPolicies { transaction } => {
                out.start("n:getPolicies", &[]);
                out.element("n:version", &[], "1.0").element("n:clientTransactionID", &[], transaction).end();
            }
            Self::Enroll(enroll) => enroll.write(out),
            Self::UpdateStatus(update) => update.write(out),
            Self::Search(search) => search.write(out),
        })
    }

    /// Namespace of the service it is for.
    pub fn namespace(&self) -> &'static str {
        match self {
            Self::GetPolicies { .. } => POLICY,
            Self::Enroll(_) => ENROLLMENT,
            Self::UpdateStatus(_) | Self::Search(_) => MANAGEMENT,
        }
    }

    /// Path of the service it is for.
    pub fn path(&self) -> &'static str {
        match self {
            Self::GetPolicies { .. } => POLICY_PATH,
            Self::Enroll(_) => ENROLLMENT_PATH,
            Self::UpdateStatus(_) | Self::Search(_) => MANAGEMENT_PATH,
        }
    }

    /// `SOAPAction`, with its quotation marks.
    pub fn soap_action(&self) -> String {
        let operation = match self {
            Self::GetPolicies { .. } => "getPolicies",
            Self::Enroll(_) => "requestSecurityToken",
            Self::UpdateStatus(_) => "updateCertificateStatus",
            Self::Search(_) => "searchCertificate",
        };
        format!("\"{}/{operation}\"", self.namespace())
    }

    /// Reads a request of any service.
    ///
    /// # Errors
    /// Names the element that is missing or wrong.
    pub fn read(message: &Message) -> Result<Self, ShapeError> {
        let body = &message.body;
        match body.name.as_str() {
            "getPolicies" => Ok(Self::GetPolicies {
                transaction: local_text(body, "clientTransactionID").unwrap_or_default().to_owned(),
            }),
            "RequestSecurityToken" => Enroll::read(body).map(Self::Enroll),
            "updateCertificateStatusRequest" => UpdateStatus::read(body).map(Self::UpdateStatus),
            "searchCertificateRequest" => Ok(Self::Search(Search::read(body)?)),
            _ => Err(ShapeError::Other { expected: "an operation of this service" }),
        }
    }
}

impl Enroll {
    /// A field by its name.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    fn write(&self, out: &mut Writer) {
        out.start("n:RequestSecurityToken", &[]).start("n:requestVSSecurityToken", &[]);
        out.element("n:certificateProfileID", &[], &self.profile);
        out.element("n:clientTransactionID", &[], &self.transaction);
        out.element("n:tokenType", &[], TOKEN_TYPE);
        out.element("n:requestType", &[], if self.renew { RENEW } else { ISSUE });
        let attributes = [("ValueType", VALUE_PKCS10), ("EncodingType", ENCODING)];
        out.start("n:binarySecurityToken", &attributes).base64(&self.csr).end();
        for (name, value) in &self.fields {
            out.start("n:nameValuePair", &[])
                .element("n:name", &[], name)
                .element("n:value", &[], value)
                .end();
        }
        out.element("n:version", &[], "2.0").end().end();
    }

    fn read(body: &Element) -> Result<Self, ShapeError> {
        let what = "requestVSSecurityToken";
        let request = local(body, what).ok_or(ShapeError::Missing { what })?;
        let token = local(request, "binarySecurityToken")
            .ok_or(ShapeError::Missing { what: "binarySecurityToken" })?;
        if local_attribute(token, "ValueType") != Some(VALUE_PKCS10) {
            return Err(ShapeError::Wrong { what: "ValueType" });
        }
        if text(request, "tokenType")? != TOKEN_TYPE {
            return Err(ShapeError::Wrong { what: "tokenType" });
        }
        let renew = match text(request, "requestType")? {
            ISSUE => false,
            RENEW => true,
            _ => return Err(ShapeError::Wrong { what: "requestType" }),
        };
        let pairs = many(request, "nameValuePair")?.into_iter().map(|pair| {
            let value = local(pair, "value").map(|value| value.text.trim().to_owned());
            Ok((text(pair, "name")?.to_owned(), value.unwrap_or_default()))
        });
        Ok(Self {
            profile: text(request, "certificateProfileID")?.to_owned(),
            transaction: text(request, "clientTransactionID")?.to_owned(),
            renew,
            csr: base64_text(&token.text, "binarySecurityToken")?,
            fields: pairs.collect::<Result<_, ShapeError>>()?,
        })
    }
}

impl UpdateStatus {
    fn write(&self, out: &mut Writer) {
        out.start("n:updateCertificateStatusRequest", &[]);
        out.element("n:clientTransactionID", &[], &self.transaction).element("n:version", &[], "1.0");
        if let Some(issuer) = &self.issuer {
            out.element("n:certificateIssuer", &[], issuer);
        }
        if let Some(reason) = self.reason {
            out.element("n:revocationReason", &[], reason.word());
        }
        match &self.target {
            Target::Serial(serial) => out.element("n:certificateSerialNumber", &[], serial),
            Target::Seat(seat) => out.element("n:seatId", &[], seat),
        };
        out.element("n:operationType", &[], self.operation.word()).end();
    }

    fn read(body: &Element) -> Result<Self, ShapeError> {
        let serial = local_text(body, "certificateSerialNumber").map(|text| Target::Serial(text.to_owned()));
        let seat = local_text(body, "seatId").map(|text| Target::Seat(text.to_owned()));
        let target = match (serial, seat) {
            (Some(target), None) | (None, Some(target)) => target,
            (None, None) => return Err(ShapeError::Missing { what: "certificateSerialNumber or seatId" }),
            (Some(_), Some(_)) => {
                return Err(ShapeError::Wrong { what: "certificateSerialNumber or seatId" });
            }
        };
        let reason = local_text(body, "revocationReason")
            .map(|word| Reason::of_word(word).ok_or(ShapeError::Wrong { what: "revocationReason" }));
        let operation = text(body, "operationType")?;
        let operation = Operation::ALL.into_iter().find(|known| known.word() == operation);
        Ok(Self {
            transaction: text(body, "clientTransactionID")?.to_owned(),
            target,
            issuer: local_text(body, "certificateIssuer").map(str::to_owned),
            reason: reason.transpose()?,
            operation: operation.ok_or(ShapeError::Wrong { what: "operationType" })?,
        })
    }
}

impl Search {
    fn write(&self, out: &mut Writer) {
        out.start("n:searchCertificateRequest", &[]);
        out.element("n:clientTransactionID", &[], &self.transaction);
        for (name, value) in
            [("n:seatId", &self.seat), ("n:profileOID", &self.profile), ("n:serialNumber", &self.serial)]
        {
            if let Some(value) = value {
                out.element(name, &[], value);
            }
        }
        out.element("n:startIndex", &[], &self.start.to_string()).element("n:version", &[], "1.0").end();
    }

    fn read(body: &Element) -> Result<Self, ShapeError> {
        let own = |name| local_text(body, name).map(str::to_owned);
        let start = local_text(body, "startIndex").map_or(Ok(0), str::parse);
        Ok(Self {
            transaction: text(body, "clientTransactionID")?.to_owned(),
            seat: own("seatId"),
            profile: own("profileOID"),
            serial: own("serialNumber"),
            start: start.map_err(|_| ShapeError::Wrong { what: "startIndex" })?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn requests() -> Vec<Request> {
        let enroll = Enroll {
            profile: "2.16.840.1.113733.1.16.1.3.1.4.1.1".into(),
            transaction: "t-1".into(),
            renew: false,
            csr: vec![0x30, 1, 2],
            fields: vec![("seat_id".into(), "a&b@acme.example".into()), ("common_name".into(), "Ann".into())],
        };
        vec![
            Request::GetPolicies { transaction: "t-0".into() },
            Request::Enroll(Enroll { renew: true, ..enroll.clone() }),
            Request::Enroll(enroll),
            Request::UpdateStatus(UpdateStatus {
                transaction: "t-2".into(),
                target: Target::Serial("0a1b".into()),
                issuer: Some("CN=x".into()),
                reason: Some(Reason::KeyCompromise),
                operation: Operation::Revoke,
            }),
            Request::Search(Search {
                transaction: "t-3".into(),
                seat: Some("s".into()),
                start: 5,
                ..Search::default()
            }),
        ]
    }

    #[test]
    fn requests_travel() {
        for sent in requests() {
            let message = soap::read(sent.write().as_bytes()).unwrap();
            assert_eq!(&*message.body.namespace, sent.namespace());
            assert_eq!(Request::read(&message).unwrap(), sent);
        }
    }

    #[test]
    fn answers_travel() {
        let read = |text: String| soap::read(text.as_bytes()).unwrap();
        let field = Field { name: "seat_id".into(), mandatory: true };
        let profiles = vec![Profile { oid: "2.16".into(), name: "Wi-Fi".into(), fields: vec![field] }];
        assert_eq!(read_policies(&read(write_policies(&profiles))).unwrap(), profiles);
        let enrolled = Enrolled { transaction: "t".into(), bag: vec![0x30] };
        assert_eq!(Enrolled::read(&read(enrolled.write())).unwrap(), enrolled);
        let updated = Updated { code: -1, message: "unknown".into(), count: 0 };
        assert_eq!(Updated::read(&read(updated.write("t"))).unwrap(), updated);
        let entry = Entry {
            certificate: vec![0x30],
            seat: "s".into(),
            profile: "2.16".into(),
            status: "VALID".into(),
            serial: "0a".into(),
        };
        let found = Found { certificates: vec![entry], more: true };
        assert_eq!(Found::read(&read(found.write("t"))).unwrap(), found);
        let fault = read(write_fault(soap::Blame::Sender, "E7", "no seat left")).fault().unwrap();
        assert_eq!(read_fault(&fault), ("E7".to_owned(), "no seat left".to_owned()));
        assert_eq!(
            Enrolled::read(&read(updated.write("t"))),
            Err(ShapeError::Other { expected: "requestedVSSecurityToken" })
        );
    }

    #[test]
    fn namespaces_of_another_release_are_read() {
        for sent in requests() {
            let text =
                sent.write().replace("pkiservices/2009/07/enrollment", "pkiservices/2011/08/enrollment");
            assert_eq!(Request::read(&soap::read(text.as_bytes()).unwrap()).unwrap(), sent);
        }
    }

    #[test]
    fn what_is_missing_or_contradicts_itself_is_named() {
        let read = |text: &str| Request::read(&soap::read(text.as_bytes()).unwrap()).unwrap_err();
        let all = requests();
        let enroll = all[1].write();
        assert_eq!(read(&enroll.replace("/Renew", "/Cancel")), ShapeError::Wrong { what: "requestType" });
        assert_eq!(read(&enroll.replace("PKCS10", "PKCS12")), ShapeError::Wrong { what: "ValueType" });
        let what = "certificateProfileID";
        assert_eq!(read(&enroll.replace("certificateProfileID", "profile")), ShapeError::Missing { what });
        let both = all[3].write().replace("<n:operationType>", "<n:seatId>s</n:seatId><n:operationType>");
        assert_eq!(read(&both), ShapeError::Wrong { what: "certificateSerialNumber or seatId" });
    }
}
