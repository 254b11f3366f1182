//! Identifiers as text.

/// A GUID as Windows writes it: the directory keeps the first three parts in the other byte order (MS-DTYP 2.3.4.2).
pub fn guid_text(guid: &[u8; 16]) -> String {
    uuid::Uuid::from_bytes_le(*guid).to_string()
}

/// Reads a GUID with or without braces.
pub fn parse_guid(text: &str) -> Option<[u8; 16]> {
    let text = text.trim();
    let bare = text.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')).unwrap_or(text);
    (bare.len() == 36).then(|| uuid::Uuid::parse_str(bare).ok().map(|guid| guid.to_bytes_le())).flatten()
}
