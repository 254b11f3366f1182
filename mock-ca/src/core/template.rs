//! Templates (AD CS calls them so; others say profiles): what a certificate of one purpose may look like.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use causeway_protocol::pkix::Oid;

/// One template.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Template {
    pub name: String,
    /// `msPKI-Cert-Template-OID`, for requests that name their template by it. Default none.
    pub oid: Option<String>,
    /// Days a certificate is good for; never past the end of the authority. Default 365.
    pub validity_days: u32,
    /// Default `digital_signature`, `key_encipherment`.
    pub key_usage: Vec<KeyUsage>,
    /// `client_auth`, `server_auth`, `email_protection`, `smart_card_logon`, `ipsec_intermediate`, or an OID in dots.
    /// Default `client_auth`.
    pub extended_key_usage: Vec<String>,
    /// Least size of an RSA key. Default 2048.
    pub key_min_bits: u32,
    /// Whether keys on P-256 are accepted. Default true.
    pub p256: bool,
    /// Whether a person or the clock must approve. Default `none`.
    pub approval: Approval,
    /// Names that may be asked for: patterns with `*` over common names, UPNs, addresses and DNS names, ASCII case does
    /// not matter. Empty allows every one, which is the default.
    pub allowed_names: Vec<String>,
    /// Names that are refused, whatever is allowed. Default none.
    pub denied_names: Vec<String>,
    /// Days before the end from which a renewal is accepted; 0 accepts one at any time, the default.
    pub renewal_days: u32,
}

impl Default for Template {
    fn default() -> Self {
        Self {
            name: String::new(),
            oid: None,
            validity_days: 365,
            key_usage: vec![KeyUsage::DigitalSignature, KeyUsage::KeyEncipherment],
            extended_key_usage: vec!["client_auth".to_owned()],
            key_min_bits: 2048,
            p256: true,
            approval: Approval::None,
            allowed_names: Vec::new(),
            denied_names: Vec::new(),
            renewal_days: 0,
        }
    }
}

/// Who approves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Approval {
    /// Nobody needs to.
    #[default]
    None,
    /// A person, over the admin API.
    Manual,
    /// The clock: so many seconds after the request came.
    AfterSecs(u32),
}

/// Bits of the extension (RFC 5280 section 4.2.1.3), in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum KeyUsage {
    DigitalSignature,
    NonRepudiation,
    KeyEncipherment,
    DataEncipherment,
    KeyAgreement,
    KeyCertSign,
    CrlSign,
}

impl KeyUsage {
    /// Their numbers as bits (RFC 5280 section 4.2.1.3).
    pub(super) fn bits(usages: &[Self]) -> Vec<u8> {
        usages.iter().map(|usage| *usage as u8).collect()
    }
}

/// Purposes by the words settings use (RFC 5280 section 4.2.1.12, and Microsoft's).
const PURPOSES: [(&str, &str); 7] = [
    ("server_auth", "1.3.6.1.5.5.7.3.1"),
    ("client_auth", "1.3.6.1.5.5.7.3.2"),
    ("email_protection", "1.3.6.1.5.5.7.3.4"),
    ("ocsp_signing", "1.3.6.1.5.5.7.3.9"),
    ("ipsec_intermediate", "1.3.6.1.5.5.8.2.2"),
    ("smart_card_logon", "1.3.6.1.4.1.311.20.2.2"),
    ("enrolment_agent", "1.3.6.1.4.1.311.20.2.1"),
];

/// The purpose's identifier, DER; `None` for a word nobody knows.
pub(super) fn purpose(word: &str) -> Option<Vec<u8>> {
    let known = PURPOSES.iter().find(|(name, _)| *name == word).map(|(_, oid)| *oid);
    Oid::parse(known.unwrap_or(word)).map(causeway_protocol::pkix::der::oid)
}

/// A template that cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TemplateError {
    #[error("template {position} has no name")]
    Nameless { position: usize },
    #[error("two templates are called {name:?}")]
    Twice { name: String },
    #[error(
        "template {name:?}: {word:?} is no purpose; use client_auth, server_auth, ... or an identifier in dots"
    )]
    Purpose { name: String, word: String },
    #[error("template {name:?}: {oid:?} is no object identifier")]
    Identifier { name: String, oid: String },
    #[error("template {name:?} has a validity of no days")]
    Validity { name: String },
    #[error("at least one template is needed")]
    None,
}

/// Checks what settings say.
///
/// # Errors
/// [`TemplateError`] names the template at fault.
pub(super) fn check(templates: &[Template]) -> Result<(), TemplateError> {
    if templates.is_empty() {
        return Err(TemplateError::None);
    }
    for (position, template) in templates.iter().enumerate() {
        let name = template.name.clone();
        if name.is_empty() {
            return Err(TemplateError::Nameless { position: position + 1 });
        }
        if templates[..position].iter().any(|other| other.name.eq_ignore_ascii_case(&name)) {
            return Err(TemplateError::Twice { name });
        }
        if template.validity_days == 0 {
            return Err(TemplateError::Validity { name });
        }
        if let Some(word) = template.extended_key_usage.iter().find(|word| purpose(word).is_none()) {
            return Err(TemplateError::Purpose { name, word: word.clone() });
        }
        if let Some(oid) = template.oid.as_ref().filter(|oid| Oid::parse(oid).is_none()) {
            return Err(TemplateError::Identifier { name, oid: oid.clone() });
        }
    }
    Ok(())
}

/// What every authority offers unless settings say otherwise. `IPSECIntermediateOffline` is NDES's own default.
pub(super) fn defaults() -> Vec<Template> {
    let plain = |name: &str, oid: &str| Template {
        name: name.to_owned(),
        oid: Some(format!("1.3.6.1.4.1.311.21.8.4001.7.{oid}")),
        ..Template::default()
    };
    vec![
        Template {
            extended_key_usage: vec!["client_auth".to_owned(), "ipsec_intermediate".to_owned()],
            validity_days: 730,
            ..plain("IPSECIntermediateOffline", "1")
        },
        Template {
            extended_key_usage: vec!["client_auth".to_owned(), "email_protection".to_owned()],
            ..plain("User", "2")
        },
        plain("MobileDevice", "3"),
        Template { extended_key_usage: vec!["server_auth".to_owned()], ..plain("WebServer", "4") },
        Template { approval: Approval::Manual, ..plain("ApprovedDevice", "5") },
    ]
}

/// Whole-text match where `*` stands for any run of characters; ASCII case does not matter.
pub(super) fn matches(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.to_ascii_lowercase(), text.to_ascii_lowercase());
    let mut pieces = pattern.split('*');
    let first = pieces.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    if !pattern.contains('*') {
        return rest.is_empty();
    }
    let pieces: Vec<&str> = pieces.collect();
    let (last, middle) = pieces.split_last().expect("a pattern with a star has a piece after it");
    for piece in middle {
        match rest.find(piece) {
            Some(at) => rest = &rest[at + piece.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_whole_names() {
        for (pattern, name, expected) in [
            ("*@acme.example", "asmith@ACME.example", true),
            ("*@acme.example", "asmith@acme.example.evil", false),
            ("administrator@*", "Administrator@acme.example", true),
            ("administrator@*", "xadministrator@acme.example", false),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-c", false),
            ("ab*b", "ab", false),
            ("exact", "EXACT", true),
            ("exact", "exactly", false),
            ("*", "", true),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} on {name}");
        }
    }

    #[test]
    fn wrong_templates_are_named() {
        check(&defaults()).unwrap();
        let wrong = |change: fn(&mut Template)| {
            let mut templates = defaults();
            change(&mut templates[1]);
            check(&templates).unwrap_err().to_string()
        };
        assert!(
            wrong(|template| template.name = "ipsecintermediateoffline".to_owned()).contains("two templates")
        );
        assert!(
            wrong(|template| template.extended_key_usage = vec!["clientauth".to_owned()])
                .contains("\"User\"")
        );
        assert!(wrong(|template| template.oid = Some("1".to_owned())).contains("identifier"));
        assert!(wrong(|template| template.validity_days = 0).contains("no days"));
        assert!(wrong(|template| template.name.clear()).contains("template 2"));
        assert!(check(&[]).is_err());
    }
}
