//! Whether a request may become a certificate, and what that certificate says.

use aws_lc_rs::digest::{SHA256, digest};
use causeway_mock_kit::world::Company;

use super::certificate::{Body, Extensions, Serial, sign};
use super::csr::{self, AlternativeName, Csr, SubjectKey};
use super::hierarchy::{BACKDATED_MS, Generation};
use super::template::{self, KeyUsage, Template};
use super::{AuthorityConfig, Denial, Links, Submission};
use crate::limits::{COMMON_NAME_MAX_CHARS, RSA_MAX_BITS};

const DAY_MS: i64 = 86_400_000;
/// Before a SID in an alternative name (KB5014754).
pub const SID_PREFIX: &str = "tag:microsoft.com,2022-09-14:sid:";

/// What will be issued. Holds no secret: a challenge stays behind.
#[derive(Debug)]
pub struct Draft {
    /// Subject, DER, and as text.
    pub(super) name: Vec<u8>,
    pub(super) subject: String,
    pub(super) spki: Vec<u8>,
    pub(super) key_sha256: [u8; 32],
    pub(super) template: String,
    validity_days: u32,
    key_usage: u16,
    purposes: Vec<String>,
    /// GeneralNames, DER, in place of those in the request.
    alternative_names: Option<Vec<u8>>,
    /// Requested extensions, whole.
    copied: Vec<Vec<u8>>,
    pub(super) alternative_texts: Vec<String>,
}

/// Extensions the authority decides about; a request's are left out, as AD CS leaves them out. Bodies of identifiers.
const OWN: [&[u8]; 7] = [
    &[0x55, 0x1d, 14],
    &[0x55, 0x1d, 15],
    &[0x55, 0x1d, 19],
    &[0x55, 0x1d, 31],
    &[0x55, 0x1d, 35],
    &[0x55, 0x1d, 37],
    &[0x2b, 6, 1, 5, 5, 7, 1, 1],
];

/// Judges a request.
pub(super) fn draft(
    config: &AuthorityConfig,
    company: &Company,
    csr: &Csr,
    submission: &Submission<'_>,
) -> Result<Draft, Denial> {
    let template = choose(config, csr, submission)?;
    check_key(template, csr.key)?;
    let name = submission.subject.clone().unwrap_or_else(|| csr.subject.clone());
    let parts = match &submission.subject {
        Some(name) => csr::parts_of_name(name).ok_or(Denial::BadName)?,
        None => csr.parts.clone(),
    };
    let names = match &submission.alternative_names {
        Some(value) => csr::alternative_names(value).ok_or(Denial::BadName)?,
        None => csr.alternative_names.clone(),
    };
    check_names(template, &parts, &names)?;
    if config.strict_sid {
        check_sid(company, csr, &names)?;
    }
    let own_names = submission.alternative_names.is_some();
    let copied = csr.extensions.iter().filter(|extension| {
        !OWN.contains(&extension.oid.as_slice()) && !(own_names && extension.oid == csr::ALTERNATIVE_NAME)
    });
    let subject = if submission.subject.is_some() { csr::text_of_parts(&parts) } else { csr.subject_text() };
    Ok(Draft {
        name,
        subject,
        spki: csr.spki.clone(),
        key_sha256: sha256(&csr.spki),
        template: template.name.clone(),
        validity_days: submission.validity_days.unwrap_or(template.validity_days).min(template.validity_days),
        key_usage: KeyUsage::set(&template.key_usage),
        purposes: template.extended_key_usage.clone(),
        alternative_names: submission.alternative_names.clone(),
        copied: copied.map(|extension| extension.raw.clone()).collect(),
        alternative_texts: names.iter().map(AlternativeName::text).collect(),
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
        extensions.usage(self.key_usage, &self.purposes);
        extensions.key_ids(&super::keys::key_id(&self.spki), &by.authority.key.id());
        extensions.links(links, by.number);
        if let Some(names) = &self.alternative_names {
            extensions.alternative_names(names, self.subject.is_empty());
        }
        for extension in &self.copied {
            extensions.raw(extension);
        }
        let body = Body {
            serial,
            issuer: &by.authority.name,
            subject: &self.name,
            spki: &self.spki,
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

fn check_key(template: &Template, key: SubjectKey) -> Result<(), Denial> {
    match key {
        SubjectKey::Rsa { bits } if bits > RSA_MAX_BITS => Err(Denial::KeyKind),
        SubjectKey::Rsa { bits } if bits < template.key_min_bits => {
            Err(Denial::KeyTooSmall { bits, least: template.key_min_bits })
        }
        SubjectKey::Rsa { .. } => Ok(()),
        SubjectKey::P256 if template.p256 => Ok(()),
        SubjectKey::P256 | SubjectKey::Other => Err(Denial::KeyKind),
    }
}

fn check_names(
    template: &Template,
    parts: &[(String, String)],
    names: &[AlternativeName],
) -> Result<(), Denial> {
    if parts.is_empty() && names.is_empty() {
        return Err(Denial::BadName);
    }
    let commons = parts.iter().filter(|(kind, _)| kind == "CN").map(|(_, value)| value.as_str());
    let mut asked: Vec<&str> = commons.collect();
    if asked.iter().any(|name| name.chars().count() > COMMON_NAME_MAX_CHARS) {
        return Err(Denial::BadName);
    }
    for name in names {
        match name {
            AlternativeName::Email(text) | AlternativeName::Dns(text) | AlternativeName::Upn(text) => {
                asked.push(text)
            }
            AlternativeName::Uri(text) if text.chars().any(char::is_control) => return Err(Denial::BadName),
            AlternativeName::Uri(_) | AlternativeName::Ip(_) | AlternativeName::Other(_) => {}
        }
    }
    // A NUL ends a name for one program and not for another: the two would see different people.
    let all = parts.iter().map(|(_, value)| value.as_str()).chain(asked.iter().copied());
    if all.into_iter().any(|text| text.chars().any(char::is_control)) {
        return Err(Denial::BadName);
    }
    let is_in = |list: &[String], name: &str| list.iter().any(|pattern| template::matches(pattern, name));
    let refused = asked.iter().find(|name| {
        is_in(&template.denied_names, name)
            || !(template.allowed_names.is_empty() || is_in(&template.allowed_names, name))
    });
    match refused {
        Some(name) => Err(Denial::NameRefused { name: (*name).to_owned() }),
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
    let in_uri = names.iter().find_map(|name| match name {
        AlternativeName::Uri(uri) => uri.strip_prefix(SID_PREFIX).map(str::to_owned),
        _ => None,
    });
    let in_extension = || {
        let extension = csr.extensions.iter().find(|extension| extension.oid == csr::SECURITY_EXTENSION)?;
        let at = extension.value.windows(4).position(|window| window == b"S-1-")?;
        String::from_utf8(extension.value[at..].to_vec()).ok()
    };
    let sid = in_uri.or_else(in_extension).ok_or(Denial::NoSid)?;
    let login = upn
        .split_once('@')
        .filter(|(_, domain)| domain.eq_ignore_ascii_case(&company.domain))
        .map(|(login, _)| login);
    match login.and_then(|login| company.person(login)) {
        Some(person) if company.sid(person.rid) != sid => Err(Denial::AnothersSid),
        _ => Ok(()),
    }
}

pub(super) fn sha256(bytes: &[u8]) -> [u8; 32] {
    digest(&SHA256, bytes).as_ref().try_into().expect("SHA-256 has 32 bytes")
}
