//! Filters as the journal shows them.

use crate::filter::Filter;

/// Longest filter text in the journal; the rest of a machine-made filter tells a reader nothing.
const FILTER_TEXT_MAX_BYTES: usize = 512;

/// The text of a filter, with values asserted on password attributes left out.
pub(super) fn filter(filter: &Filter) -> String {
    if asserts_secret(filter) {
        return "(contains a password assertion)".to_owned();
    }
    let mut text = filter.to_string();
    if text.len() > FILTER_TEXT_MAX_BYTES {
        let end = (0..=FILTER_TEXT_MAX_BYTES).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        text.truncate(end);
        text.push_str("...");
    }
    text
}

/// Whether values of this attribute are secrets.
pub(super) fn is_secret(attribute: &str) -> bool {
    let name = attribute.split(';').next().unwrap_or(attribute).to_ascii_lowercase();
    ["password", "pwd", "secret"].iter().any(|word| name.contains(word))
        && !["pwdlastset", "badpwdcount", "pwdproperties", "minpwdlength"].contains(&name.as_str())
}

fn asserts_secret(filter: &Filter) -> bool {
    match filter {
        Filter::And(inner) | Filter::Or(inner) => inner.iter().any(asserts_secret),
        Filter::Not(inner) => asserts_secret(inner),
        Filter::Present(_) | Filter::Undefined => false,
        Filter::Equality { attr, .. }
        | Filter::Substrings { attr, .. }
        | Filter::GreaterOrEqual { attr, .. }
        | Filter::LessOrEqual { attr, .. }
        | Filter::Approx { attr, .. } => is_secret(attr),
        Filter::Extensible { attr, .. } => attr.as_deref().is_none_or(is_secret),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn password_assertions_are_left_out() {
        let secret = Filter::Equality { attr: "userpassword".into(), value: b"Hunter2".to_vec() };
        let text = filter(&Filter::And(vec![Filter::Present("cn".into()), secret]));
        assert!(!text.contains("Hunter2"), "{text}");
        assert!(is_secret("unicodePwd") && is_secret("userPassword;x") && !is_secret("pwdLastSet"));
    }
}
