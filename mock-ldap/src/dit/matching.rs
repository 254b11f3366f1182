//! How values compare: one folding per family of servers, one rule per syntax (RFC 4517, MS-ADTS 3.1.1.2.2.4).

use std::borrow::Cow;
use std::cmp::Ordering;

use crate::dit::schema::Syntax;
use crate::dn::Dn;

/// What strings ignore.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Folding {
    /// Case and repeated blanks (caseIgnoreMatch).
    Case,
    /// Accents and width as well: Active Directory.
    Accents,
}

impl Folding {
    /// Appends the comparison form: lower case, outer blanks gone, inner runs of blanks one blank.
    pub(crate) fn fold_into(self, value: &[u8], out: &mut Vec<u8>) {
        let start = out.len();
        let mut blank = false;
        let mut push = |byte_or_char: &[u8], out: &mut Vec<u8>| {
            if byte_or_char == b" " {
                blank = out.len() > start;
                return;
            }
            if std::mem::take(&mut blank) {
                out.push(b' ');
            }
            out.extend_from_slice(byte_or_char);
        };
        if value.is_ascii() {
            for byte in value {
                push(&[byte.to_ascii_lowercase()], out);
            }
            return;
        }
        let mut buffer = [0; 4];
        for chunk in value.utf8_chunks() {
            for character in chunk.valid().chars() {
                let plain = match self {
                    Self::Case => Plain::One(character),
                    Self::Accents => without_accent(character),
                };
                match plain {
                    Plain::None => {}
                    Plain::Two(text) => text.bytes().for_each(|byte| push(&[byte], out)),
                    Plain::One(base) => {
                        for lower in base.to_lowercase() {
                            // Lower case may bring its own accent (U+0130); one more pass settles it.
                            match self {
                                Self::Accents if !lower.is_ascii() => match without_accent(lower) {
                                    Plain::One(again) => push(again.encode_utf8(&mut buffer).as_bytes(), out),
                                    Plain::Two(text) => text.bytes().for_each(|byte| push(&[byte], out)),
                                    Plain::None => {}
                                },
                                _ => push(lower.encode_utf8(&mut buffer).as_bytes(), out),
                            }
                        }
                    }
                }
            }
            chunk.invalid().iter().for_each(|&byte| push(&[byte], out));
        }
    }

    pub(crate) fn fold(self, value: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(value.len());
        self.fold_into(value, &mut out);
        out
    }
}

/// The comparison form of a value under its syntax; borrowed when the value already is in that form.
pub(crate) fn normalize(syntax: Syntax, folding: Folding, value: &[u8]) -> Cow<'_, [u8]> {
    match syntax {
        Syntax::CaseIgnore | Syntax::Oid | Syntax::Boolean | Syntax::Time => {
            let tidy = value.iter().all(|byte| byte.is_ascii_graphic() && !byte.is_ascii_uppercase());
            if tidy { Cow::Borrowed(value) } else { Cow::Owned(folding.fold(value)) }
        }
        Syntax::CaseExact => squeeze(value),
        Syntax::Telephone => Cow::Owned(
            value.iter().filter(|byte| !matches!(byte, b' ' | b'-')).map(u8::to_ascii_lowercase).collect(),
        ),
        Syntax::Numeric => Cow::Owned(value.iter().filter(|byte| **byte != b' ').copied().collect()),
        Syntax::Integer => match parse_integer(value) {
            Some(number) => Cow::Owned(number.to_string().into_bytes()),
            None => Cow::Borrowed(value),
        },
        Syntax::Dn => match Dn::parse(value) {
            Ok(dn) => Cow::Owned(dn.key(folding)),
            Err(_) => Cow::Owned(folding.fold(value)),
        },
        Syntax::Octets | Syntax::Sid | Syntax::Descriptor => Cow::Borrowed(value),
    }
}

/// Equality of a stored value with an assertion that is already normalized.
pub(crate) fn equals(syntax: Syntax, folding: Folding, stored: &[u8], normalized: &[u8]) -> bool {
    let same_text = matches!(syntax, Syntax::CaseIgnore | Syntax::Oid) && stored.len() == normalized.len();
    if same_text && stored.iter().all(|byte| byte.is_ascii_graphic()) {
        return stored.eq_ignore_ascii_case(normalized);
    }
    normalize(syntax, folding, stored).as_ref() == normalized
}

/// Ordering for `>=` and `<=`; `None` where the syntax has no order.
pub(crate) fn compare(
    syntax: Syntax,
    folding: Folding,
    stored: &[u8],
    normalized: &[u8],
) -> Option<Ordering> {
    match syntax {
        Syntax::Integer => Some(parse_integer(stored)?.cmp(&parse_integer(normalized)?)),
        Syntax::Time => Some(time_key(stored).as_slice().cmp(time_key(normalized).as_slice())),
        Syntax::Dn | Syntax::Descriptor | Syntax::Boolean => None,
        _ => Some(normalize(syntax, folding, stored).as_ref().cmp(normalized)),
    }
}

/// Substrings over the comparison form. An assertion part that is only blanks still needs its blank.
pub(crate) fn substrings(
    syntax: Syntax,
    folding: Folding,
    stored: &[u8],
    initial: Option<&[u8]>,
    any: &[Vec<u8>],
    final_: Option<&[u8]>,
) -> bool {
    let value = normalize(syntax, folding, stored);
    let mut rest: &[u8] = &value;
    if let Some(initial) = initial {
        match rest.strip_prefix(initial) {
            Some(after) => rest = after,
            None => return false,
        }
    }
    for part in any {
        match find(rest, part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    final_.is_none_or(|last| rest.ends_with(last))
}

/// Normalizes one part of a substrings assertion: inner blanks stay where they touch another part.
pub(crate) fn normalize_part(
    syntax: Syntax,
    folding: Folding,
    part: &[u8],
    first: bool,
    last: bool,
) -> Vec<u8> {
    let mut out = Vec::new();
    let spaced = matches!(syntax, Syntax::CaseIgnore | Syntax::CaseExact | Syntax::Oid);
    if spaced && !first && part.first() == Some(&b' ') {
        out.push(b' ');
    }
    match syntax {
        Syntax::Dn => folding.fold_into(part, &mut out),
        Syntax::Integer => out.extend_from_slice(part),
        _ => out.extend_from_slice(&normalize(syntax, folding, part)),
    }
    if spaced && !last && part.len() > 1 && part.last() == Some(&b' ') {
        out.push(b' ');
    }
    out
}

/// A decimal integer with optional sign, as LDAP writes it.
pub(crate) fn parse_integer(value: &[u8]) -> Option<i64> {
    std::str::from_utf8(value).ok()?.trim().parse().ok()
}

/// GeneralizedTime without fraction and zone, so that `20260101000000.0Z` equals `20260101000000Z`.
fn time_key(value: &[u8]) -> Vec<u8> {
    value.iter().take_while(|byte| byte.is_ascii_digit()).copied().collect()
}

fn squeeze(value: &[u8]) -> Cow<'_, [u8]> {
    let tidy = value.first() != Some(&b' ') && value.last() != Some(&b' ') && find(value, b"  ").is_none();
    if tidy {
        return Cow::Borrowed(value);
    }
    let words: Vec<&[u8]> = value.split(|&byte| byte == b' ').filter(|word| !word.is_empty()).collect();
    Cow::Owned(words.join(&b' '))
}

pub(crate) fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    if needle.is_empty() {
        return Some(0);
    }
    haystack.windows(needle.len()).position(|window| window == needle)
}

enum Plain {
    None,
    One(char),
    Two(&'static str),
}

/// The base letter of an accented one: Latin-1, Latin Extended-A and the combining and full-width ranges, which is
/// what names in a company directory use. Other letters stay as they are.
fn without_accent(character: char) -> Plain {
    let base = match character {
        '\u{300}'..='\u{36f}' => return Plain::None,
        'ß' => return Plain::Two("ss"),
        'æ' | 'Æ' => return Plain::Two("ae"),
        'œ' | 'Œ' => return Plain::Two("oe"),
        'ø' | 'Ø' | 'ð' | 'Ð' | 'þ' | 'Þ' | 'ı' | 'ł' | 'Ł' | 'đ' | 'Đ' => stroke_base(character),
        'à'..='å' | 'À'..='Å' | 'ā' | 'Ā' | 'ă' | 'Ă' | 'ą' | 'Ą' => 'a',
        'ç' | 'Ç' | 'Ć'..='č' => 'c',
        'ď' | 'Ď' => 'd',
        'è'..='ë' | 'È'..='Ë' | 'Ē'..='ě' => 'e',
        'Ĝ'..='ģ' => 'g',
        'Ĥ' | 'ĥ' => 'h',
        'ì'..='ï' | 'Ì'..='Ï' | 'Ĩ'..='İ' => 'i',
        'Ĵ' | 'ĵ' => 'j',
        'Ķ' | 'ķ' => 'k',
        'Ĺ'..='ľ' => 'l',
        'ñ' | 'Ñ' | 'Ń'..='ň' => 'n',
        'ò'..='ö' | 'Ò'..='Ö' | 'Ō'..='ő' => 'o',
        'Ŕ'..='ř' => 'r',
        'Ś'..='š' => 's',
        'Ţ'..='ť' => 't',
        'ù'..='ü' | 'Ù'..='Ü' | 'Ũ'..='ų' => 'u',
        'Ŵ' | 'ŵ' => 'w',
        'ý' | 'ÿ' | 'Ý' | 'Ŷ'..='Ÿ' => 'y',
        'Ź'..='ž' => 'z',
        // Full-width forms lie at a fixed distance from ASCII.
        '\u{ff01}'..='\u{ff5e}' => char::from_u32(character as u32 - 0xfee0).unwrap_or(character),
        '\u{3000}' => ' ',
        other => other,
    };
    Plain::One(base)
}

fn stroke_base(character: char) -> char {
    match character {
        'ø' | 'Ø' => 'o',
        'ł' | 'Ł' => 'l',
        'ı' => 'i',
        'þ' | 'Þ' => 'þ',
        _ => 'd',
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn active_directory_ignores_case_accents_and_width() {
        assert_eq!(Folding::Accents.fold("  MÜLLER   Ａnna ".as_bytes()), b"muller anna");
        assert_eq!(Folding::Case.fold("MÜLLER".as_bytes()), "müller".as_bytes());
        assert_eq!(Folding::Accents.fold("Stra\u{df}e".as_bytes()), b"strasse");
    }

    #[test]
    fn folding_twice_changes_nothing() {
        for text in ["İstanbul", "Ærøskøbing", "מנהל  רשת", "O'Brien, \"Bob\"", "e\u{301}"] {
            let once = Folding::Accents.fold(text.as_bytes());
            assert_eq!(Folding::Accents.fold(&once), once, "{text}");
        }
    }

    #[test]
    fn substrings_obey_order_and_blanks() {
        let matches = |value: &str, parts: (&str, &[&str], &str)| {
            let part = |text: &str, first, last| {
                normalize_part(Syntax::CaseIgnore, Folding::Case, text.as_bytes(), first, last)
            };
            let any: Vec<Vec<u8>> = parts.1.iter().map(|text| part(text, false, false)).collect();
            let initial = (!parts.0.is_empty()).then(|| part(parts.0, true, false));
            let final_ = (!parts.2.is_empty()).then(|| part(parts.2, false, true));
            substrings(
                Syntax::CaseIgnore,
                Folding::Case,
                value.as_bytes(),
                initial.as_deref(),
                &any,
                final_.as_deref(),
            )
        };
        assert!(matches("Jane Doe", ("ja", &["e d"], "OE")));
        assert!(matches("Jane Doe", ("jane ", &[], "doe")));
        assert!(!matches("JaneDoe", ("jane ", &[], "doe")));
        assert!(!matches("abcab", ("ab", &["c"], "cab")), "parts may not overlap");
    }

    #[test]
    fn numbers_and_times_order_by_value() {
        let order = |syntax, stored: &str, asked: &str| {
            compare(syntax, Folding::Case, stored.as_bytes(), asked.as_bytes())
        };
        assert_eq!(order(Syntax::Integer, "9", "10"), Some(Ordering::Less));
        assert_eq!(order(Syntax::Time, "20260101000000.0Z", "20260101000000Z"), Some(Ordering::Equal));
        assert_eq!(order(Syntax::Dn, "cn=a", "cn=b"), None);
    }
}
