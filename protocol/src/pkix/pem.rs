//! The textual form of certificates and requests (RFC 7468).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// Writes one block, in lines of 64 characters.
pub fn write(label: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let mut out = format!("-----BEGIN {label}-----\n");
    for line in text.as_bytes().chunks(64) {
        out.extend(line.iter().map(|byte| char::from(*byte)));
        out.push('\n');
    }
    out.push_str(&format!("-----END {label}-----\n"));
    out
}

/// Reads all blocks whose label ends with `label` (`CERTIFICATE REQUEST` is there as `NEW CERTIFICATE REQUEST` too), in
/// order; blocks that are no base64 are left out.
pub fn read(label: &str, text: &str) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some((_, after)) = rest.split_once("-----BEGIN ") {
        let Some((name, after)) = after.split_once("-----") else { break };
        let Some((body, after)) = after.split_once("-----END ") else { break };
        rest = after;
        if name.ends_with(label) {
            let compact: String = body.chars().filter(|character| !character.is_ascii_whitespace()).collect();
            found.extend(STANDARD.decode(compact));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_found_among_other_text() {
        let text = format!(
            "subject: x\r\n{}noise\n{}",
            write("CERTIFICATE", &[7; 100]),
            write("NEW CERTIFICATE REQUEST", b"r")
        );
        assert_eq!(read("CERTIFICATE", &text), [vec![7; 100]]);
        assert_eq!(read("CERTIFICATE REQUEST", &text.replace('\n', "\r\n")), [b"r".to_vec()]);
        assert!(read("CERTIFICATE", "-----BEGIN CERTIFICATE-----\n!!\n-----END CERTIFICATE-----").is_empty());
    }
}
