//! Whether a request may become a certificate, and what that certificate says.

use super::certificate::{Body, Extensions, Serial, sign};
use aws_lc_rs::digest::{SHA256, digest};
use causeway_mock_kit::world::Company;
use causeway_protocol::pkix::{AlternativeName, Extension, Name, Oid, PublicKey, PublicKeyKind, oid};

use super::csr::{self, Csr};
use super::hierarchy::{BACKDATED_MS, Generation};
use super::template::{self, KeyUsage, Template};
use super::{AuthorityConfig, Denial, Links, Signer, Submission};
use crate::limits::RSA_MAX_BITS;

const DAY_MS: i64 = 86_400_000;

/// What will be issued. Holds no secret: a challenge stays behind.
#[derive(Debug)]
pub struct Draft {
    /// Subject, DER, and as text.
    pub(super) name: Vec<u8>,
    pub(super) subject: String,
    pub(super) key: PublicKey,
    pub(super) key_sha256: [u8; 32],
    pub(super) template: String,
    validity_days: u32,
    key_usage: Vec<KeyUsage>,
    purposes: Vec<String>,
    /// GeneralNames, DER, in place of those in the request.
    alternative_names: Option<Vec<u8>>,
    /// Requested extensions.
    copied: Vec<Extension>,
    pub(super) alternative_texts: Vec<String>,
}

/// Extensions the authority decides about; a request's are left out, as AD CS leaves them out.
const OWN: [Oid; 7] = [
    oid::SUBJECT_KEY_ID,
    oid::KEY_USAGE,
    oid::BASIC_CONSTRAINTS,
    oid::CRL_DISTRIBUTION_POINTS,
    oid::AUTHORITY_KEY_ID,
    oid::EXTENDED_KEY_USAGE,
    oid::AUTHORITY_INFO_ACCESS,
];

/// Judges a request.
pub(super) fn draft(
    config: &AuthorityConfig,
    company: &Company,
    csr: &Csr,
    submission: &Submission<'_>,
) -> Result<Draft, Denial> {
    let template = choose(config, csr, submission)?;
    check_key(template, csr.key_kind())?;
    let raw = submission.subject.clone().unwrap_or_else(|| csr.subject_raw().to_vec());
    let name = match &submission.subject {
        Some(name) => Name::read(name).map_err(|_| Denial::BadName)?,
        None => csr.subject().clone(),
    };
    let names = match &submission.alternative_names {
        Some(value) => csr::alternative_names(value).ok_or(Denial::BadName)?,
        None => csr.alternative_names().to_vec(),
    };
    check_names(template, &name, &names)?;
    if config.strict_sid {
        check_sid(company, csr, &names)?;
    }
    let own_names = submission.alternative_names.is_some();
    let copied = csr.extensions().0.iter().filter(|extension| {
        !(OWN.contains(&extension.oid) || own_names && extension.oid == oid::SUBJECT_ALT_NAME)
    });
    Ok(Draft {
        name: raw,
        subject: name.to_string(),
        key: csr.public_key().clone(),
        key_sha256: sha256(csr.spki()),
        template: template.name.clone(),
        validity_days: submission.validity_days.unwrap_or(template.validity_days).min(template.validity_days),
        key_usage: template.key_usage.clone(),
        purposes: template.extended_key_usage.clone(),
        // An empty list is none: GeneralNames has at least one (RFC 5280 section 4.2.1.6).
        alternative_names: submission.alternative_names.clone().filter(|_| !names.is_empty()),
        copied: copied.cloned().collect(),
        alternative_texts: names.iter().map(ToString::to_string).collect(),
    })
}

impl Draft {
    /// Makes the certificate. Signs, so it takes half a millisecond.
    pub(super) fn sign(
        &self,
        by: &Generation,
        links: &Links,
        serial: Serial,
        now_ms: i64,
    ) -> (Vec<u8>, i64, i64) {
        let not_before_ms = (now_ms - BACKDATED_MS).max(by.authority.not_before_ms);
        let not_after_ms = (now_ms + i64::from(self.validity_days) * DAY_MS).min(by.authority.not_after_ms);
        let mut extensions = Extensions::default();
        extensions.usage(&self.key_usage, &self.purposes);
        extensions.key_ids(&self.key.key_id(), &by.authority.key.public_key().key_id());
        extensions.links(links, Signer::Generation(by.number));
        if let Some(names) = &self.alternative_names {
            extensions.alternative_names(names, self.subject.is_empty());
        }
        for extension in &self.copied {
            extensions.raw(&extension.to_der());
        }
        let body = Body {
            serial,
            issuer: &by.authority.name,
            subject: &self.name,
            spki: self.key.spki(),
            not_before_ms,
            not_after_ms,
        };
        (sign(&body, &extensions, &by.authority.key), not_before_ms, not_after_ms)
    }
}

/// The template a request is for: the one the protocol names, else the request itself, else the default.
fn choose<'a>(
    config: &'a AuthorityConfig,
    csr: &Csr,
    submission: &Submission<'_>,
) -> Result<&'a Template, Denial> {
    if let Some(name) = submission.template {
        return config.template(name).ok_or_else(|| Denial::UnknownTemplate { name: name.to_owned() });
    }
    let named = csr.template.as_deref().and_then(|name| config.template(name));
    let default = || config.template(&config.default_template);
    named
        .or_else(default)
        .or_else(|| config.templates.first())
        .ok_or_else(|| Denial::UnknownTemplate { name: config.default_template.clone() })
}

fn check_key(template: &Template, key: PublicKeyKind) -> Result<(), Denial> {
    match key {
        PublicKeyKind::Rsa { bits } => {
            let bits = u32::try_from(bits).unwrap_or(u32::MAX);
            match bits {
                _ if bits > RSA_MAX_BITS => Err(Denial::KeyKind),
                _ if bits < template.key_min_bits => {
                    Err(Denial::KeyTooSmall { bits, least: template.key_min_bits })
                }
                _ => Ok(()),
            }
        }
        PublicKeyKind::P256 if template.p256 => Ok(()),
        _ => Err(Denial::KeyKind),
    }
}

fn check_names(template: &Template, subject: &Name, names: &[AlternativeName]) -> Result<(), Denial> {
    if subject.is_empty() && names.is_empty() {
        return Err(Denial::BadName);
    }
    // Lengths of RFC 5280 appendix A, and control characters: a NUL ends a name for one program and not for another.
    subject.check().map_err(|_| Denial::BadName)?;
    let commons = subject.attributes().filter(|part| part.kind == oid::CN).map(|part| part.value.as_str());
    let others = names.iter().filter_map(|name| match name {
        AlternativeName::Email(text) | AlternativeName::Dns(text) | AlternativeName::Upn(text) => {
            Some(text.as_str())
        }
        _ => None,
    });
    let is_in = |list: &[String], name: &str| list.iter().any(|pattern| template::matches(pattern, name));
    let refused = commons.chain(others).find(|name| {
        is_in(&template.denied_names, name)
            || !(template.allowed_names.is_empty() || is_in(&template.allowed_names, name))
    });
    match refused {
        Some(name) => Err(Denial::NameRefused { name: name.to_owned() }),
        None => Ok(()),
    }
}

/// A certificate of a person (it has a UPN) must say whose it is in the way domain controllers insist on.
fn check_sid(company: &Company, csr: &Csr, names: &[AlternativeName]) -> Result<(), Denial> {
    let upn = names.iter().find_map(|name| match name {
        AlternativeName::Upn(upn) => Some(upn.as_str()),
        _ => None,
    });
    let Some(upn) = upn else { return Ok(()) };
    let in_uri = names.iter().find_map(|name| name.sid().map(str::to_owned));
    let in_extension = || csr.extensions().sid().ok().flatten();
    let sid = in_uri.or_else(in_extension).ok_or(Denial::NoSid)?;
    let local = upn.split_once('@').filter(|(_, domain)| domain.eq_ignore_ascii_case(&company.domain));
    match local.and_then(|(login, _)| company.person(login)) {
        Some(person) if company.sid(person.rid) != sid => Err(Denial::AnothersSid),
        _ => Ok(()),
    }
}

pub(super) fn sha256(bytes: &[u8]) -> [u8; 32] {
    digest(&SHA256, bytes).as_ref().try_into().expect("SHA-256 has 32 bytes")
}
