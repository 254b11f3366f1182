//! Settings of an authority.

use causeway_mock_kit::world::Company;
use causeway_protocol::certificate::KeyKind;
use causeway_protocol::pkix::Name;
use serde::{Deserialize, Serialize};

use super::hierarchy::{RaMode, Tiers};
use super::template::{self, Template, TemplateError};

/// Who the authority is and what it issues.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AuthorityConfig {
    /// Name of the issuing authority, `CN=..., DC=...`. Default: made from the company.
    pub name: String,
    /// Name of the root. Default: made from the company.
    pub root_name: String,
    /// Common name of the RA's certificates. Default `MSCEP-RA`.
    pub ra_name: String,
    /// Kind of the authorities' keys. Default RSA with 2,048 bits. With `p256` there must be an RA, whose keys are RSA.
    pub key: KeyKind,
    /// `one` or `two` (a root above the issuing authority). Default: the personality's.
    pub tiers: Option<Tiers>,
    /// Who speaks SCEP: `none` (the authority itself), `single` or `pair`. Default: the personality's.
    pub ra: Option<RaMode>,
    /// Days of the root, the issuing authority and the RA. Defaults 7300, 3650, 730.
    pub root_days: i32,
    pub authority_days: i32,
    pub ra_days: i32,
    /// Hours until the next CRL, and how long an OCSP answer is good. Default 168.
    pub crl_hours: u32,
    /// Certificates of people (those with a UPN) must have a SID, and it must be theirs. Default false.
    pub strict_sid: bool,
    /// A renewal must be for the same subject. Default true, as NDES has it.
    pub renewal_same_subject: bool,
    /// Template of requests that name none. Default `IPSECIntermediateOffline`.
    pub default_template: String,
    /// Default: `IPSECIntermediateOffline`, `User`, `MobileDevice`, `WebServer`, `ApprovedDevice`.
    pub templates: Vec<Template>,
}

impl Default for AuthorityConfig {
    fn default() -> Self {
        Self {
            name: String::new(),
            root_name: String::new(),
            ra_name: "MSCEP-RA".to_owned(),
            key: KeyKind::Rsa2048,
            tiers: None,
            ra: None,
            root_days: 7_300,
            authority_days: 3_650,
            ra_days: 730,
            crl_hours: 168,
            strict_sid: false,
            renewal_same_subject: true,
            default_template: "IPSECIntermediateOffline".to_owned(),
            templates: template::defaults(),
        }
    }
}

/// Settings an authority can be made from.
#[derive(Clone, Debug)]
pub struct Checked(AuthorityConfig);

impl Checked {
    pub(super) fn into_inner(self) -> AuthorityConfig {
        self.0
    }
}

/// Settings no authority can be made from.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AuthorityError {
    #[error("{name:?} is no name of an authority; write CN=..., DC=..., DC=...")]
    Name { name: String },
    #[error("an authority that signs with P-256 cannot open SCEP requests: set ra to \"single\" or \"pair\"")]
    NeedsRa,
    #[error("the days of root, authority and RA must be positive")]
    Days,
    #[error("default_template {name:?} is none of the templates")]
    DefaultTemplate { name: String },
    #[error("read the templates")]
    Template(#[source] TemplateError),
}

impl AuthorityConfig {
    pub(super) fn tiers(&self) -> Tiers {
        self.tiers.unwrap_or_default()
    }

    pub(super) fn ra(&self) -> RaMode {
        self.ra.unwrap_or_default()
    }

    /// A template by its name, in any case, or by its object identifier.
    pub fn template(&self, name: &str) -> Option<&Template> {
        self.templates.iter().find(|template| {
            template.name.eq_ignore_ascii_case(name) || template.oid.as_deref() == Some(name)
        })
    }

    /// Checks the settings, with the names of this company where none are given.
    ///
    /// # Errors
    /// [`AuthorityError`] names the setting at fault.
    pub fn checked(&self, company: &Company) -> Result<Checked, AuthorityError> {
        let resolved = self.resolved(company);
        resolved.check()?;
        Ok(Checked(resolved))
    }

    /// With the names of this company where none are given.
    fn resolved(&self, company: &Company) -> Self {
        let domain: String = company.domain.split('.').map(|label| format!(", DC={label}")).collect();
        let or = |name: &str, kind: &str| match name {
            "" => format!("CN={} {kind}{domain}", company.organisation.replace([',', '='], " ")),
            name => name.to_owned(),
        };
        Self { name: or(&self.name, "Issuing CA"), root_name: or(&self.root_name, "Root CA"), ..self.clone() }
    }

    fn check(&self) -> Result<(), AuthorityError> {
        for name in [&self.name, &self.root_name, &format!("CN={}", self.ra_name)] {
            if Name::parse(name).is_err() {
                return Err(AuthorityError::Name { name: name.clone() });
            }
        }
        if self.key == KeyKind::P256 && self.ra() == RaMode::None {
            return Err(AuthorityError::NeedsRa);
        }
        if [self.root_days, self.authority_days, self.ra_days].iter().any(|days| *days <= 0) {
            return Err(AuthorityError::Days);
        }
        template::check(&self.templates).map_err(AuthorityError::Template)?;
        match self.template(&self.default_template) {
            Some(_) => Ok(()),
            None => Err(AuthorityError::DefaultTemplate { name: self.default_template.clone() }),
        }
    }
}
