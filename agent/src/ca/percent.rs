//! Percent encoding for forms and paths (RFC 3986 section 2.1).

use std::fmt::Write as _;

/// A form body (`application/x-www-form-urlencoded`).
pub(super) fn form(fields: &[(&str, &str)]) -> String {
    let pairs: Vec<String> =
        fields.iter().map(|(name, value)| format!("{name}={}", encoded(value))).collect();
    pairs.join("&")
}

/// One segment of a path, or one value of a form.
pub(super) fn encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            _ => write!(out, "%{byte:02X}").expect("writing to a String never fails"),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_reserved_stays() {
        assert_eq!(form(&[("a", "x y&z"), ("b", "+/=")]), "a=x%20y%26z&b=%2B%2F%3D");
        assert_eq!(encoded("ca~1/.."), "ca~1%2F..");
    }
}
