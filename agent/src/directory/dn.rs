//! Distinguished names (RFC 4514): compared, hashed and taken apart as text. A name is only ever used to find out where
//! an object is; what it is, its id says.

use aws_lc_rs::digest;

use super::guid::hex_octet;

/// Sixteen bytes of hash over a name in normal form, so that an index of a million names stays small. Equal for names
/// that differ in case, in spaces around separators, or in how they are escaped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NameHash(pub [u8; 16]);

impl NameHash {
    /// Of a distinguished name.
    pub fn of_dn(dn: &str) -> Self {
        let mut name = Vec::with_capacity(dn.len() + 8);
        name.push(b'd');
        normal_into(dn, &mut name);
        Self::of(&name)
    }

    /// Of the relative id that primaryGroupID holds.
    pub fn of_rid(rid: u32) -> Self {
        Self::of(&[&b"r"[..], &rid.to_be_bytes()].concat())
    }

    /// Of the login that memberUid holds. Logins compare with case (RFC 2307).
    pub fn of_login(login: &str) -> Self {
        Self::of(&[b"u", login.as_bytes()].concat())
    }

    /// The first octet keeps names of different kinds apart.
    fn of(name: &[u8]) -> Self {
        let mut hash = [0; 16];
        hash.copy_from_slice(&digest::digest(&digest::SHA256, name).as_ref()[..16]);
        Self(hash)
    }
}

/// The normal form: lower case, no space around separators, every escape resolved, a NUL between naming components and
/// a 1 between parts of one. Not text any more.
pub fn normal(dn: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(dn.len() + 8);
    normal_into(dn, &mut out);
    out
}

fn normal_into(dn: &str, out: &mut Vec<u8>) {
    // Nearly every name is this plain, and a scan hashes hundreds of thousands: no allocation here.
    let plain = |octet: u8| octet.is_ascii() && !matches!(octet, b'\\' | b'"' | b'+');
    if !dn.is_empty() && dn.bytes().all(plain) {
        for (n, component) in dn.split(',').enumerate() {
            if n > 0 {
                out.push(0);
            }
            let (name, value) = component.split_once('=').unwrap_or((component, ""));
            out.extend(name.trim().bytes().map(|octet| octet.to_ascii_lowercase()));
            out.push(b'=');
            out.extend(value.trim_matches(' ').bytes().map(|octet| octet.to_ascii_lowercase()));
        }
        return;
    }
    for (n, component) in split(dn, ',').into_iter().enumerate() {
        if n > 0 {
            out.push(0);
        }
        let mut parts: Vec<Vec<u8>> = split(component, '+').into_iter().map(normal_part).collect();
        parts.sort_unstable();
        for (m, part) in parts.iter().enumerate() {
            if m > 0 {
                out.push(1);
            }
            out.extend_from_slice(part);
        }
    }
}

/// The name without its first component; `None` for a name of one component or none.
pub fn parent(dn: &str) -> Option<&str> {
    separator(dn, ',').map(|at| dn[at + 1..].trim_start_matches(' ')).filter(|rest| !rest.is_empty())
}

/// The value of the first naming component, escapes resolved.
pub fn leaf_value(dn: &str) -> String {
    let first = separator(dn, ',').map_or(dn, |at| &dn[..at]);
    let first = separator(first, '+').map_or(first, |at| &first[..at]);
    let value = first.split_once('=').map_or(first, |(_, value)| value);
    String::from_utf8_lossy(&unescape(trim_value(value.trim_start_matches(' ')))).into_owned()
}

/// Whether `dn` is `base` or below it. The empty base holds everything.
pub fn is_within(dn: &str, base: &str) -> bool {
    is_within_normal(&normal(dn), &normal(base))
}

/// [`is_within`] for names already in normal form.
pub fn is_within_normal(dn: &[u8], base: &[u8]) -> bool {
    base.is_empty()
        || dn.strip_suffix(base).is_some_and(|before| before.is_empty() || before.last() == Some(&0))
}

/// Escapes a value for use in a distinguished name (RFC 4514 2.4).
pub fn escape(value: &str) -> String {
    let mut out = String::with_capacity(value.len() + 4);
    let last = value.chars().count().saturating_sub(1);
    for (n, character) in value.chars().enumerate() {
        match character {
            '"' | '+' | ',' | ';' | '<' | '>' | '\\' | '=' => {
                out.push('\\');
                out.push(character);
            }
            '#' if n == 0 => out.push_str("\\#"),
            ' ' if n == 0 || n == last => out.push_str("\\ "),
            '\0' => out.push_str("\\00"),
            control if control.is_control() => {
                let mut buffer = [0; 4];
                for octet in control.encode_utf8(&mut buffer).bytes() {
                    out.push_str(&format!("\\{octet:02x}"));
                }
            }
            plain => out.push(plain),
        }
    }
    out
}

fn normal_part(part: &str) -> Vec<u8> {
    let (name, value) = part.split_once('=').unwrap_or((part, ""));
    let mut out = name.trim().to_ascii_lowercase().into_bytes();
    out.push(b'=');
    let value = unescape(trim_value(value.trim_start_matches(' ')));
    if value.is_ascii() {
        out.extend(value.iter().map(u8::to_ascii_lowercase));
    } else {
        match std::str::from_utf8(&value) {
            Ok(text) => out.extend_from_slice(text.to_lowercase().as_bytes()),
            Err(_) => out.extend_from_slice(&value),
        }
    }
    out
}

/// Removes trailing spaces that are not escaped.
fn trim_value(value: &str) -> &str {
    let trimmed = value.trim_end_matches(' ');
    let backslashes = trimmed.bytes().rev().take_while(|&octet| octet == b'\\').count();
    if backslashes % 2 == 1 && trimmed.len() < value.len() { &value[..=trimmed.len()] } else { trimmed }
}

fn unescape(value: &str) -> Vec<u8> {
    let bytes = value.as_bytes();
    // RFC 2253 section 4: the whole value in quotes.
    if bytes.len() >= 2 && bytes[0] == b'"' && bytes[bytes.len() - 1] == b'"' {
        return unescape(&value[1..value.len() - 1]);
    }
    if !bytes.contains(&b'\\') {
        return bytes.to_vec();
    }
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some((&first, tail)) = rest.split_first() {
        rest = tail;
        if first != b'\\' {
            out.push(first);
            continue;
        }
        let hex = tail.first_chunk().and_then(|pair| hex_octet(*pair));
        match (hex, tail.split_first()) {
            (Some(octet), _) => {
                out.push(octet);
                rest = &tail[2..];
            }
            (None, Some((&escaped, after))) => {
                out.push(escaped);
                rest = after;
            }
            (None, None) => out.push(b'\\'),
        }
    }
    out
}

/// Where the first unescaped, unquoted `wanted` is.
fn separator(text: &str, wanted: char) -> Option<usize> {
    let mut escaped = false;
    let mut quoted = false;
    for (at, character) in text.char_indices() {
        match character {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => quoted = !quoted,
            found if found == wanted && !quoted => return Some(at),
            _ => {}
        }
    }
    None
}

fn split(text: &str, at: char) -> Vec<&str> {
    let mut parts = Vec::with_capacity(8);
    let mut rest = text;
    while let Some(end) = separator(rest, at) {
        parts.push(&rest[..end]);
        rest = &rest[end + 1..];
    }
    if !rest.trim().is_empty() || !parts.is_empty() {
        parts.push(rest);
    }
    parts
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn spelling_does_not_matter() {
        let hash = NameHash::of_dn("CN=Smith\\, Alice,OU=Sales,DC=acme,DC=example");
        for same in [
            "cn=smith\\2c alice, ou=sales , dc=ACME,dc=example",
            "cn=\"Smith, Alice\",ou=Sales,dc=acme,dc=example",
            "CN=Smith\\2C\\20Alice,OU=Sales,DC=acme,DC=example",
        ] {
            assert_eq!(NameHash::of_dn(same), hash, "{same}");
        }
        assert_ne!(NameHash::of_dn("CN=Smith Alice,OU=Sales,DC=acme,DC=example"), hash);
    }

    #[test]
    fn the_quick_way_agrees_with_the_thorough_one() {
        for (plain, escaped) in [
            ("CN=Alice Smith,OU=Sales,DC=acme", "CN=\\41lice Smith, OU = Sales ,dc=\\61cme"),
            ("o=Acme", "o=\\41cme"),
            ("cn=a=b,dc=x", "cn=a\\=b,dc=x"),
        ] {
            assert_eq!(NameHash::of_dn(plain), NameHash::of_dn(escaped), "{plain}");
        }
    }

    #[test]
    fn case_folds_beyond_ascii() {
        assert_eq!(NameHash::of_dn("CN=ÄÖÜ,DC=a"), NameHash::of_dn("cn=äöü,dc=a"));
    }

    #[test]
    fn parts_of_a_component_have_no_order() {
        assert_eq!(NameHash::of_dn("cn=a+uid=b,o=x"), NameHash::of_dn("UID=b + CN=a,o=x"));
    }

    #[test]
    fn parents_and_leaves() {
        assert_eq!(parent("CN=Smith\\, Alice,OU=Sales,DC=a"), Some("OU=Sales,DC=a"));
        assert_eq!(parent("DC=a"), None);
        assert_eq!(leaf_value("CN=Smith\\, Alice,OU=Sales"), "Smith, Alice");
        assert_eq!(leaf_value("CN=trailing\\ ,OU=Sales"), "trailing ");
    }

    #[test]
    fn within_counts_components_and_not_letters() {
        assert!(is_within("CN=a,OU=Sales,DC=x", "ou=sales, dc=x"));
        assert!(is_within("OU=Sales,DC=x", "OU=Sales,DC=x"));
        assert!(!is_within("CN=a,OU=PreSales,DC=x", "OU=Sales,DC=x"));
        assert!(!is_within("CN=a\\,OU=Sales,DC=x", "OU=Sales,DC=x"));
        assert!(is_within("CN=a,O=Acme", ""));
    }

    proptest! {
        #[test]
        fn an_escaped_value_comes_back(value in "\\PC{0,40}") {
            prop_assert_eq!(leaf_value(&format!("CN={},DC=x", escape(&value))), value);
        }

        #[test]
        fn hostile_values_stay_one_component(value in any::<String>()) {
            let dn = format!("CN={},OU=Sales,DC=x", escape(&value));
            prop_assert_eq!(parent(&dn), Some("OU=Sales,DC=x"));
        }

        #[test]
        fn arbitrary_text_never_panics(text in any::<String>()) {
            let _ = (NameHash::of_dn(&text), parent(&text).map(str::len), leaf_value(&text));
        }
    }
}
