//! What the services answer: profiles, certificates, changes of status, search results, faults.

use super::super::soap::{self, Head, Message, Version, local, local_text, many, text};
use super::super::{ShapeError, base64_text};
use super::{ENCODING, ENROLLMENT, MANAGEMENT, POLICY, TOKEN_TYPE};
use crate::xml::{Element, Writer};

/// A profile of the policy service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Profile {
    /// Object identifier.
    pub oid: String,
    /// For people.
    pub name: String,
    /// Fields an enrolment must or may bring.
    pub fields: Vec<Field>,
}

/// A field of a profile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    /// Its name in a name-value pair.
    pub name: String,
    /// Whether an enrolment without it is refused.
    pub mandatory: bool,
}

/// Answer to an enrolment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Enrolled {
    /// The caller's id of the exchange.
    pub transaction: String,
    /// PKCS#7 with the certificate and its chain, DER.
    pub bag: Vec<u8>,
}

/// Answer to a change of status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Updated {
    /// 0 is success; below 0 is failure.
    pub code: i32,
    /// For people.
    pub message: String,
    /// How many certificates changed.
    pub count: u32,
}

/// Answer to a search.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// The page.
    pub certificates: Vec<Entry>,
    /// Whether another page follows.
    pub more: bool,
}

/// A certificate in the service's books.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// DER.
    pub certificate: Vec<u8>,
    /// Whose it is.
    pub seat: String,
    /// Object identifier of the profile.
    pub profile: String,
    /// `VALID`, `REVOKED`, `SUSPENDED`, `EXPIRED`.
    pub status: String,
    /// Hexadecimal.
    pub serial: String,
}

/// Answer with the profiles.
pub fn write_policies(profiles: &[Profile]) -> String {
    answer(POLICY, |out| {
        out.start("n:getPoliciesResponse", &[]);
        for profile in profiles {
            out.start("n:policy", &[]).element("n:certificateProfileID", &[], &profile.oid);
            out.element("n:certificateProfileName", &[], &profile.name);
            for field in &profile.fields {
                out.start("n:attribute", &[]).element("n:name", &[], &field.name);
                out.element("n:mandatory", &[], if field.mandatory { "true" } else { "false" }).end();
            }
            out.end();
        }
        out.end();
    })
}

/// Reads the answer with the profiles.
///
/// # Errors
/// Names the element that is missing or wrong.
pub fn read_policies(message: &Message) -> Result<Vec<Profile>, ShapeError> {
    let expected = "getPoliciesResponse";
    let body = soap::anywhere(&message.body, expected).ok_or(ShapeError::Other { expected })?;
    let profile = |policy: &Element| {
        let fields = many(policy, "attribute")?.into_iter().map(|field| {
            let mandatory = local_text(field, "mandatory") == Some("true");
            Ok(Field { name: text(field, "name")?.to_owned(), mandatory })
        });
        Ok(Profile {
            oid: text(policy, "certificateProfileID")?.to_owned(),
            name: local_text(policy, "certificateProfileName").unwrap_or_default().to_owned(),
            fields: fields.collect::<Result<_, ShapeError>>()?,
        })
    };
    many(body, "policy")?.into_iter().map(profile).collect()
}

impl Enrolled {
    /// The envelope.
    pub fn write(&self) -> String {
        answer(ENROLLMENT, |out| {
            out.start("n:RequestSecurityTokenResponse", &[]).start("n:RequestVSSecurityTokenResponse", &[]);
            out.element("n:clientTransactionID", &[], &self.transaction).element(
                "n:tokenType",
                &[],
                TOKEN_TYPE,
            );
            out.start("n:requestedVSSecurityToken", &[]);
            out.start("n:binarySecurityToken", &[("EncodingType", ENCODING)]).base64(&self.bag).end();
            out.end().end().end();
        })
    }

    /// Reads the answer.
    ///
    /// # Errors
    /// Names the element that is missing or wrong.
    pub fn read(message: &Message) -> Result<Self, ShapeError> {
        let expected = "requestedVSSecurityToken";
        let requested = soap::anywhere(&message.body, expected).ok_or(ShapeError::Other { expected })?;
        let what = "binarySecurityToken";
        let token = local(requested, what).ok_or(ShapeError::Missing { what })?;
        let transaction = soap::anywhere(&message.body, "clientTransactionID");
        Ok(Self {
            transaction: transaction.map(|found| found.text.trim().to_owned()).unwrap_or_default(),
            bag: base64_text(&token.text, what)?,
        })
    }
}

impl Updated {
    /// The envelope.
    pub fn write(&self, transaction: &str) -> String {
        answer(MANAGEMENT, |out| {
            out.start("n:updateCertificateStatusResponse", &[]);
            out.element("n:clientTransactionID", &[], transaction).element("n:version", &[], "1.0");
            out.element("n:successCode", &[], &self.code.to_string());
            out.element("n:successMsg", &[], &self.message);
            out.element("n:revocationCount", &[], &self.count.to_string()).end();
        })
    }

    /// Reads the answer.
    ///
    /// # Errors
    /// Names the element that is missing or wrong.
    pub fn read(message: &Message) -> Result<Self, ShapeError> {
        let expected = "updateCertificateStatusResponse";
        let body = soap::anywhere(&message.body, expected).ok_or(ShapeError::Other { expected })?;
        let code = text(body, "successCode")?.parse();
        let count = local_text(body, "revocationCount").map_or(Ok(0), str::parse);
        Ok(Self {
            code: code.map_err(|_| ShapeError::Wrong { what: "successCode" })?,
            message: local_text(body, "successMsg").unwrap_or_default().to_owned(),
            count: count.map_err(|_| ShapeError::Wrong { what: "revocationCount" })?,
        })
    }
}

impl Found {
    /// The envelope.
    pub fn write(&self, transaction: &str) -> String {
        answer(MANAGEMENT, |out| {
            out.start("n:searchCertificateResponse", &[]);
            out.element("n:clientTransactionID", &[], transaction);
            out.element("n:certificateCount", &[], &self.certificates.len().to_string());
            out.start("n:certificateList", &[]);
            for entry in &self.certificates {
                out.start("n:certificateInformation", &[]);
                out.start("n:certificate", &[]).base64(&entry.certificate).end();
                out.element("n:seatId", &[], &entry.seat).element("n:profileOID", &[], &entry.profile);
                out.element("n:status", &[], &entry.status)
                    .element("n:serialNumber", &[], &entry.serial)
                    .end();
            }
            out.end();
            out.element("n:moreCertificateAvailable", &[], if self.more { "true" } else { "false" }).end();
        })
    }

    /// Reads the answer.
    ///
    /// # Errors
    /// Names the element that is missing or wrong.
    pub fn read(message: &Message) -> Result<Self, ShapeError> {
        let expected = "searchCertificateResponse";
        let body = soap::anywhere(&message.body, expected).ok_or(ShapeError::Other { expected })?;
        let entry = |entry: &Element| {
            let own = |name| local_text(entry, name).unwrap_or_default().to_owned();
            Ok(Entry {
                certificate: base64_text(text(entry, "certificate")?, "certificate")?,
                seat: own("seatId"),
                profile: own("profileOID"),
                status: own("status"),
                serial: own("serialNumber"),
            })
        };
        let list = local(body, "certificateList");
        let list = list.map(|list| many(list, "certificateInformation")).transpose()?.unwrap_or_default();
        Ok(Self {
            certificates: list.into_iter().map(entry).collect::<Result<_, ShapeError>>()?,
            more: local_text(body, "moreCertificateAvailable") == Some("true"),
        })
    }
}

/// A fault: its code and its text are in the detail.
pub fn write_fault(blame: soap::Blame, code: &str, message: &str) -> String {
    soap::write_fault(Version::V11, &Head::default(), blame, None, message, &[], |out| {
        out.element("errorcode", &[], code).element("message", &[], message);
    })
}

/// Code and text of a fault.
pub fn read_fault(fault: &soap::Fault) -> (String, String) {
    let detail = |name| {
        let found = fault.detail.as_ref().and_then(|detail| soap::anywhere(detail, name));
        found.map(|found| found.text.trim().to_owned()).filter(|text| !text.is_empty())
    };
    (
        detail("errorcode").unwrap_or_else(|| fault.code.clone()),
        detail("message").unwrap_or_else(|| fault.reason.clone()),
    )
}

fn answer(namespace: &str, body: impl FnOnce(&mut Writer)) -> String {
    soap::write(Version::V11, &Head::default(), &[("xmlns:n", namespace)], body)
}
