//! What must hold before anything leaves: a device's request asks for exactly what the cloud has ordered, and nobody gets
//! a certificate in the name of somebody who administers.

use aws_lc_rs::digest::{SHA256, digest};
use causeway_protocol::certificate::{KeyKind, Profile};
use causeway_protocol::pkix::{
    Accept, AlternativeName, Csr, KeyUsage, PkixError, PublicKeyKind, Template, oid,
};
use thiserror::Error;

use super::limits;
use super::template::Names;

/// Why a device's request is not handed in.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum RequestError {
    /// It is no signing request, or its signature is not by its key.
    #[error("the signing request is not usable")]
    Unusable(#[source] PkixError),
    /// It is larger than any honest one.
    #[error("the signing request has {bytes} bytes")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// Another subject than ordered.
    #[error("it asks for the subject {asked}, the order is for {ordered}")]
    Subject {
        /// What the request has.
        asked: String,
        /// What the order has.
        ordered: String,
    },
    /// Other alternative names than ordered.
    #[error("it asks for other alternative names than the order: {difference}")]
    AlternativeNames {
        /// The first one that differs.
        difference: String,
    },
    /// Its key is weaker than the profile asks, or of another kind.
    #[error("its key is {found}, the profile wants at least {wanted:?}")]
    Key {
        /// What it has.
        found: String,
        /// What the profile has.
        wanted: KeyKind,
    },
    /// It asks for a right that nobody ordered.
    #[error("it asks for {what}, which nobody ordered")]
    Extension {
        /// What it is.
        what: String,
    },
    /// The challenge in it is not the one that was handed out for this order.
    #[error("its challenge is not the one that was handed out for this order")]
    Challenge,
}

/// Looks at a device's request.
pub(super) fn check(
    bytes: &[u8],
    names: &Names,
    profile: &Profile,
    challenge_sha256: Option<&str>,
) -> Result<Csr, RequestError> {
    if bytes.len() > limits::CSR_MAX_BYTES {
        return Err(RequestError::TooLarge { bytes: bytes.len() });
    }
    let csr = Csr::read(bytes).map_err(RequestError::Unusable)?;
    csr.verify(Accept::MODERN).map_err(RequestError::Unusable)?;
    if *csr.subject() != names.subject {
        let (asked, ordered) = (csr.subject().to_string(), names.subject.to_string());
        return Err(RequestError::Subject { asked: short(&asked), ordered });
    }
    check_names(csr.alternative_names(), &names.alternative)?;
    check_key(csr.public_key().kind(), profile.key)?;
    check_extensions(&csr, names, profile)?;
    if let Some(expected) = challenge_sha256 {
        let found = csr.challenge().map(|text| hex(digest(&SHA256, text.expose().as_bytes()).as_ref()));
        if !found.is_some_and(|found| found.eq_ignore_ascii_case(expected)) {
            return Err(RequestError::Challenge);
        }
    }
    Ok(csr)
}

fn check_names(asked: &[AlternativeName], ordered: &[AlternativeName]) -> Result<(), RequestError> {
    let differs = |text: String| Err(RequestError::AlternativeNames { difference: short(&text) });
    for name in asked {
        if !ordered.contains(name) {
            return differs(format!("{name} is not ordered"));
        }
    }
    for name in ordered {
        if !asked.contains(name) {
            return differs(format!("{name} is not in it"));
        }
    }
    Ok(())
}

fn check_key(found: PublicKeyKind, wanted: KeyKind) -> Result<(), RequestError> {
    let fits = match (wanted, found) {
        (KeyKind::Rsa2048, PublicKeyKind::Rsa { bits }) => bits >= 2_048,
        (KeyKind::Rsa3072, PublicKeyKind::Rsa { bits }) => bits >= 3_072,
        (KeyKind::Rsa4096, PublicKeyKind::Rsa { bits }) => bits >= 4_096,
        (KeyKind::P256, kind) => {
            matches!(kind, PublicKeyKind::P256 | PublicKeyKind::P384 | PublicKeyKind::P521)
        }
        _ => false,
    };
    if fits { Ok(()) } else { Err(RequestError::Key { found: format!("{found:?}"), wanted }) }
}

/// Purposes that give power over other certificates, and "any purpose", which includes them.
const PURPOSES_REFUSED: &[(&str, &str)] = &[
    ("1.3.6.1.4.1.311.20.2.1", "the purpose of an enrolment agent"),
    ("1.3.6.1.4.1.311.21.5", "the purpose of key archival"),
    ("1.3.6.1.4.1.311.21.6", "the purpose of a key recovery agent"),
    ("1.3.6.1.4.1.311.10.3.1", "the purpose of signing trust lists"),
    ("1.3.6.1.5.5.7.3.9", "the purpose of an OCSP responder"),
    ("2.5.29.37.0", "any purpose"),
];

fn check_extensions(csr: &Csr, names: &Names, profile: &Profile) -> Result<(), RequestError> {
    let refuse = |what: &str| Err(RequestError::Extension { what: what.to_owned() });
    let extensions = csr.extensions();
    if extensions.basic_constraints().map_err(RequestError::Unusable)?.ca {
        return refuse("being an authority");
    }
    if let Some(usage) = extensions.key_usage().map_err(RequestError::Unusable)?
        && (usage.has(KeyUsage::CERT_SIGN.and(KeyUsage::CRL_SIGN)))
    {
        return refuse("signing certificates or lists");
    }
    for purpose in extensions.extended_key_usage().map_err(RequestError::Unusable)? {
        let purpose = purpose.to_string();
        if let Some((_, what)) = PURPOSES_REFUSED.iter().find(|(refused, _)| *refused == purpose) {
            return refuse(what);
        }
    }
    if let Some(sid) = extensions.sid().map_err(RequestError::Unusable)?
        && names.sid.as_ref() != Some(&sid)
    {
        return refuse("another account's security identifier");
    }
    // Each of the two by itself: which one the authority goes by is its own affair.
    let by_number = match csr.template() {
        Some(Template::Id { id, .. }) => Some(id.to_string()),
        _ => None,
    };
    let by_name = extensions.template_name().map_err(RequestError::Unusable)?;
    for asked in [by_number, by_name].into_iter().flatten() {
        if profile.template.as_ref() != Some(&asked) {
            return refuse(&format!("the template {}", short(&asked)));
        }
    }
    let known = [
        oid::SUBJECT_ALT_NAME,
        oid::KEY_USAGE,
        oid::EXTENDED_KEY_USAGE,
        oid::BASIC_CONSTRAINTS,
        oid::SUBJECT_KEY_ID,
        oid::MS_TEMPLATE_NAME,
        oid::MS_TEMPLATE,
        oid::MS_SID,
    ];
    match extensions.0.iter().find(|extension| !known.contains(&extension.oid)) {
        Some(other) => Err(RequestError::Extension { what: format!("the extension {}", other.oid) }),
        None => Ok(()),
    }
}

/// The first of the names that belongs to somebody who administers.
pub(super) fn privileged(names: &Names, patterns: &[String]) -> Option<String> {
    let mut claimed: Vec<&str> = Vec::new();
    for attribute in names.subject.attributes() {
        if [oid::CN, oid::USER_ID, oid::EMAIL_ADDRESS].contains(&attribute.kind) {
            claimed.push(&attribute.value);
        }
    }
    for name in &names.alternative {
        match name {
            AlternativeName::Upn(name) | AlternativeName::Email(name) => claimed.push(name),
            AlternativeName::Directory(name) => {
                claimed.extend(name.value(oid::CN));
            }
            _ => {}
        }
    }
    let sids = names.alternative.iter().filter_map(AlternativeName::sid).chain(names.sid.as_deref());
    if let Some(sid) = sids.into_iter().find(|sid| is_administrators_sid(sid)) {
        return Some(sid.to_owned());
    }
    claimed.into_iter().find(|claim| is_privileged(claim, patterns)).map(str::to_owned)
}

fn is_privileged(claim: &str, patterns: &[String]) -> bool {
    let folded = claim.trim().to_lowercase();
    let local = folded.split('@').next().unwrap_or_default();
    let account = folded.rsplit('\\').next().unwrap_or_default();
    patterns.iter().any(|pattern| {
        let pattern = pattern.to_lowercase();
        [folded.as_str(), local, account].iter().any(|text| matches(&pattern, text))
    })
}

/// Built-in accounts that administer, whatever they are called in the company's language: Administrator (500) and krbtgt
/// (502) of a domain (MS-DTYP 2.4.2.4).
fn is_administrators_sid(sid: &str) -> bool {
    sid.starts_with("S-1-5-21-") && (sid.ends_with("-500") || sid.ends_with("-502"))
}

/// `*` stands for any text.
fn matches(pattern: &str, text: &str) -> bool {
    let mut pieces = pattern.split('*');
    let first = pieces.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let mut pieces: Vec<&str> = pieces.collect();
    let Some(last) = pieces.pop() else { return rest.is_empty() };
    for piece in pieces {
        match rest.find(piece) {
            Some(at) => rest = &rest[at + piece.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

/// Text of a stranger in an error.
fn short(text: &str) -> String {
    text.chars().filter(|character| !character.is_control()).take(200).collect()
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
