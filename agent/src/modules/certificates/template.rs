//! Names out of templates. The template is taken apart before anything is put in, so that no value can add a part to a
//! name, whatever it holds.

use std::collections::{BTreeMap, BTreeSet};

use causeway_protocol::certificate::{MissingVariable, Profile};
use causeway_protocol::pkix::{AlternativeName, Attribute, Name, PkixError};
use thiserror::Error;

use super::limits;

/// Kinds of alternative names a template may have, besides `sid` for Microsoft's extension.
const KINDS: &[&str] = &["upn", "email", "dns", "uri", "ip", "dir"];

/// Why there are no names.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum TemplateError {
    /// A variable has no value.
    #[error("%{name}% has no value")]
    Missing {
        /// Its name.
        name: String,
    },
    /// A value that no certificate may have.
    #[error("{template} with the values of this order: {source}")]
    Value {
        /// The part of the template.
        template: String,
        /// What is wrong.
        #[source]
        source: PkixError,
    },
    /// A value longer than anything that stands in a certificate.
    #[error("the value of %{name}% has more than {} characters", limits::TEXT_MAX_CHARS)]
    TooLong {
        /// Its name.
        name: String,
    },
    /// No security identifier.
    #[error("the value of %sid% is no security identifier")]
    NoSid,
    /// Nothing is left of the subject and there are no alternative names.
    #[error("nothing is left of the names")]
    Nothing,
}

/// The names a certificate must have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Names {
    pub(super) subject: Name,
    pub(super) alternative: Vec<AlternativeName>,
    /// For Microsoft's extension.
    pub(super) sid: Option<String>,
    /// The alternative names as text, those of the extension included.
    pub(super) texts: Vec<String>,
}

/// Looks at a profile's templates; names the field and what is wrong with it.
pub(super) fn check(profile: &Profile) -> Result<(), (&'static str, String)> {
    let subject = |problem: String| ("subject", problem);
    parts(&profile.subject).map_err(subject)?;
    for text in subject_parts(profile)?.attributes().map(|attribute| attribute.value.as_str()) {
        parts(text).map_err(subject)?;
    }
    if profile.alternative_names.len() > limits::NAMES_MAX {
        return Err(("alternative_names", format!("more than {}", limits::NAMES_MAX)));
    }
    for template in &profile.alternative_names {
        let wrong = |problem: String| ("alternative_names", format!("{template}: {problem}"));
        let (kind, value) =
            template.split_once(':').ok_or_else(|| wrong("a kind and a colon are missing".into()))?;
        let parts = parts(value).map_err(wrong)?;
        let has_variable = parts.iter().any(|part| matches!(part, Part::Variable(_)));
        match kind {
            // A value could bring parts of its own into a name that is read afterwards.
            "dir" if has_variable => return Err(wrong("a directory name takes no variables".into())),
            "sid" => {}
            kind if KINDS.contains(&kind) => {}
            kind => return Err(wrong(format!("{kind} is no kind of name"))),
        }
    }
    Ok(())
}

/// The variables a profile needs.
pub(super) fn variables(profile: &Profile) -> BTreeSet<&str> {
    let texts = std::iter::once(&profile.subject).chain(&profile.alternative_names);
    texts
        .flat_map(|text| parts(text).unwrap_or_default())
        .filter_map(|part| match part {
            Part::Variable(name) => Some(name),
            Part::Text(_) => None,
        })
        .collect()
}

/// Puts values into a profile's templates.
pub(super) fn fill(profile: &Profile, values: &BTreeMap<String, String>) -> Result<Names, TemplateError> {
    let missing = profile.missing_variable;
    let mut subject = Name::default();
    let pattern = subject_parts(profile).unwrap_or_default();
    for rdn in &pattern.rdns {
        let mut filled = Vec::with_capacity(rdn.len());
        for attribute in rdn {
            if let Some(value) = expand(&attribute.value, values, missing)? {
                filled.push(Attribute::new(attribute.kind, value));
            }
        }
        if !filled.is_empty() {
            subject.rdns.push(filled);
        }
    }
    subject.check().map_err(|source| TemplateError::Value { template: profile.subject.clone(), source })?;
    let mut names = Names { subject, alternative: Vec::new(), sid: None, texts: Vec::new() };
    for template in &profile.alternative_names {
        let Some((kind, pattern)) = template.split_once(':') else { continue };
        let Some(value) = expand(pattern, values, missing)? else { continue };
        let text = format!("{kind}:{value}");
        if kind == "sid" {
            names.sid = Some(security_identifier(&value)?);
        } else {
            let bad = |source| TemplateError::Value { template: template.clone(), source };
            let name = AlternativeName::parse(&text).map_err(bad)?;
            if let Some(sid) = name.sid() {
                security_identifier(sid)?;
            }
            names.alternative.push(name);
        }
        names.texts.push(text);
    }
    if names.subject.is_empty() && names.alternative.is_empty() {
        return Err(TemplateError::Nothing);
    }
    Ok(names)
}

fn subject_parts(profile: &Profile) -> Result<Name, (&'static str, String)> {
    Name::parse(&profile.subject).map_err(|error| ("subject", error.to_string()))
}

/// `S-1-5-21-...` (MS-DTYP 2.4.2.1). Anything else would be read as another account, or as none.
fn security_identifier(text: &str) -> Result<String, TemplateError> {
    let mut words = text.split('-');
    let plain = words.next() == Some("S")
        && words.next() == Some("1")
        && words.clone().count() >= 2
        && words.all(|word| word.parse::<u64>().is_ok_and(|number| number.to_string() == word));
    if plain { Ok(text.to_owned()) } else { Err(TemplateError::NoSid) }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part<'a> {
    Text(&'a str),
    Variable(&'a str),
}

/// Takes a template apart: `%name%` is a variable, `%%` a percent sign.
fn parts(template: &str) -> Result<Vec<Part<'_>>, String> {
    if template.chars().count() > limits::TEXT_MAX_CHARS {
        return Err(format!("it has more than {} characters", limits::TEXT_MAX_CHARS));
    }
    let mut parts = Vec::new();
    let mut rest = template;
    while let Some(at) = rest.find('%') {
        let (before, after) = (&rest[..at], &rest[at + 1..]);
        if !before.is_empty() {
            parts.push(Part::Text(before));
        }
        let Some(end) = after.find('%') else {
            return Err("a percent sign stands alone; write %% for one".to_owned());
        };
        let name = &after[..end];
        if name.is_empty() {
            parts.push(Part::Text("%"));
        } else if name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
        {
            parts.push(Part::Variable(name));
        } else {
            return Err(format!("%{name}% is no name of a variable"));
        }
        rest = &after[end + 1..];
    }
    if !rest.is_empty() {
        parts.push(Part::Text(rest));
    }
    Ok(parts)
}

/// Puts values in, once: what a value holds is never looked at again. Nothing where a variable is missing and its part is
/// to be left out.
fn expand(
    template: &str,
    values: &BTreeMap<String, String>,
    missing: MissingVariable,
) -> Result<Option<String>, TemplateError> {
    let mut text = String::new();
    for part in parts(template).unwrap_or_default() {
        match part {
            Part::Text(fixed) => text.push_str(fixed),
            Part::Variable(name) => match (values.get(name).filter(|value| !value.is_empty()), missing) {
                (Some(value), _) if value.chars().count() > limits::TEXT_MAX_CHARS => {
                    return Err(TemplateError::TooLong { name: name.to_owned() });
                }
                (Some(value), _) => text.push_str(value),
                (None, MissingVariable::Fail) => {
                    return Err(TemplateError::Missing { name: name.to_owned() });
                }
                (None, MissingVariable::Drop) => return Ok(None),
                (None, MissingVariable::Literal) => {
                    text.push('%');
                    text.push_str(name);
                    text.push('%');
                }
            },
        }
    }
    Ok(Some(text))
}

#[cfg(test)]
mod tests {
    use causeway_protocol::certificate::{KeyKind, KeyMode};
    use causeway_protocol::pkix::oid;
    use proptest::prelude::*;

    use super::*;

    fn profile(subject: &str, names: &[&str]) -> Profile {
        Profile {
            id: "p".into(),
            version: 1,
            authority: "default".into(),
            template: None,
            key_mode: KeyMode::Device,
            key: KeyKind::Rsa2048,
            subject: subject.into(),
            alternative_names: names.iter().map(|name| (*name).to_owned()).collect(),
            missing_variable: MissingVariable::Fail,
            renew_days: 14,
            legacy_pkcs12: false,
        }
    }

    fn values(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    const SID: &str = "S-1-5-21-2239831149-2056135797-2656803740-1132";

    #[test]
    fn the_usual_template_is_filled() {
        let profile = profile(
            "/CN=%uname%/emailAddress=%email%",
            &["upn:%upn%", "email:%email%", "uri:tag:microsoft.com,2022-09-14:sid:%sid%", "sid:%sid%"],
        );
        check(&profile).unwrap();
        assert_eq!(variables(&profile), BTreeSet::from(["uname", "email", "upn", "sid"]));
        let mail = "asmith@acme.example";
        let names =
            fill(&profile, &values(&[("uname", "asmith"), ("email", mail), ("upn", mail), ("sid", SID)]));
        let names = names.unwrap();
        assert_eq!(names.subject.value(oid::CN), Some("asmith"));
        assert_eq!(names.alternative.len(), 3);
        assert_eq!(names.alternative[2].sid(), Some(SID));
        assert_eq!(names.sid.as_deref(), Some(SID));
        assert_eq!(names.texts[3], format!("sid:{SID}"));
    }

    #[test]
    fn what_is_missing_is_treated_as_the_profile_says() {
        let mut profile = profile("/CN=%uname%/O=Acme 100%%/OU=%ou% team", &["email:%email%"]);
        let known = values(&[("uname", "asmith"), ("ou", "")]);
        assert_eq!(fill(&profile, &known), Err(TemplateError::Missing { name: "ou".into() }));
        profile.missing_variable = MissingVariable::Drop;
        let names = fill(&profile, &known).unwrap();
        assert_eq!((names.subject.rdns.len(), names.alternative.len()), (2, 0));
        assert_eq!(names.subject.value(oid::ORGANIZATION), Some("Acme 100%"));
        profile.missing_variable = MissingVariable::Literal;
        profile.alternative_names.clear();
        let names = fill(&profile, &known).unwrap();
        assert_eq!(names.subject.value(oid::ORGANIZATIONAL_UNIT), Some("%ou% team"));
        assert_eq!(fill(&self::profile("", &[]), &known), Err(TemplateError::Nothing));
    }

    #[test]
    fn values_no_certificate_may_have_are_refused() {
        let long = "x".repeat(65);
        for (subject, names, value) in [
            ("/CN=%v%", "", long.as_str()),
            ("/CN=%v%", "", "a\0b"),
            ("/C=%v%", "", "DEU"),
            ("/emailAddress=%v%", "", "jürgen@acme.example"),
            ("/CN=a", "email:%v%", "jürgen@acme.example"),
            ("/CN=a", "upn:%v%", "no-at-sign"),
            ("/CN=a", "ip:%v%", "10.0.0"),
            ("/CN=a", "sid:%v%", "S-1-5-21-1 -500"),
            ("/CN=a", "uri:tag:microsoft.com,2022-09-14:sid:%v%", "S-1-5-21-01-500"),
        ] {
            let names: Vec<&str> = if names.is_empty() { vec![] } else { vec![names] };
            let filled = fill(&profile(subject, &names), &values(&[("v", value)]));
            assert!(filled.is_err(), "{subject} {names:?} {value:?}: {filled:?}");
        }
        fill(&profile("/CN=a", &["upn:%v%"]), &values(&[("v", "jürgen@acme.example")])).unwrap();
    }

    proptest! {
        /// Whatever a person is called, the certificate's name has the parts of the template, in its order.
        #[test]
        fn no_value_adds_a_part_to_a_name(uname in "[^\\p{Cc}]{1,40}", ou in "([a-zA-Z/=+,;%#\\\\\"<>]|ü){1,30}") {
            let profile = profile("/O=Acme/OU=%ou%/CN=%uname%", &["upn:%uname%@acme.example"]);
            let known = values(&[("uname", &uname), ("ou", &ou), ("email", "injected")]);
            if let Ok(names) = fill(&profile, &known) {
                let kinds: Vec<_> = names.subject.attributes().map(|attribute| attribute.kind).collect();
                prop_assert_eq!(kinds, vec![oid::ORGANIZATION, oid::ORGANIZATIONAL_UNIT, oid::CN]);
                prop_assert!(names.subject.rdns.iter().all(|rdn| rdn.len() == 1));
                prop_assert_eq!(names.subject.value(oid::CN), Some(uname.as_str()));
                prop_assert_eq!(names.subject.value(oid::ORGANIZATIONAL_UNIT), Some(ou.as_str()));
                // Through the encoding and back: still the same parts.
                let back = Name::read(&names.subject.to_der()).unwrap();
                prop_assert_eq!(&back, &names.subject);
                let again = Name::parse(&names.subject.to_string()).unwrap();
                prop_assert_eq!(&again, &names.subject);
                prop_assert_eq!(names.alternative.len(), 1);
                prop_assert!(matches!(&names.alternative[0], AlternativeName::Upn(_)));
            }
        }
    }
}
