//! Stable ids: every directory has sixteen bytes that never change for an object, each spelled its own way.

use serde::Deserialize;

/// Sixteen bytes that name an object for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectId(pub [u8; 16]);

/// How a personality's id attribute is spelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IdCodec {
    /// Sixteen octets whose first three groups are little-endian (objectGUID of Active Directory, GUID of eDirectory).
    GuidLe,
    /// `f81d4fae-7dec-11d0-a765-00a0c91e6bf6` (entryUUID).
    UuidText,
    /// Four groups of eight hex digits (nsUniqueId of 389-ds and its relatives).
    NsUniqueId,
    /// Thirty-two hex digits (dominoUNID).
    Hex,
}

impl IdCodec {
    /// Reads an attribute value; `None` when it is not spelled like this.
    pub fn decode(self, value: &[u8]) -> Option<ObjectId> {
        if self == Self::GuidLe {
            let mut bytes: [u8; 16] = value.try_into().ok()?;
            swap(&mut bytes);
            return Some(ObjectId(bytes));
        }
        let mut bytes = [0; 16];
        let mut digits = value.iter().filter(|&&octet| octet != b'-');
        for byte in &mut bytes {
            *byte = hex_octet([*digits.next()?, *digits.next()?])?;
        }
        digits.next().is_none().then_some(ObjectId(bytes))
    }

    /// The id as text, as uploads spell it.
    pub fn text(self, id: ObjectId) -> String {
        let groups: &[usize] = match self {
            Self::GuidLe | Self::UuidText => &[4, 2, 2, 2, 6],
            Self::NsUniqueId => &[4, 4, 4, 4],
            Self::Hex => &[16],
        };
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut text = String::with_capacity(36);
        let mut bytes = id.0.iter();
        for (n, &size) in groups.iter().enumerate() {
            if n > 0 {
                text.push('-');
            }
            for byte in bytes.by_ref().take(size) {
                text.push(char::from(DIGITS[usize::from(byte >> 4)]));
                text.push(char::from(DIGITS[usize::from(byte & 15)]));
            }
        }
        text
    }

    /// The id as the octets of a filter's assertion value.
    pub fn assertion(self, id: ObjectId) -> Vec<u8> {
        match self {
            Self::GuidLe => {
                let mut bytes = id.0;
                swap(&mut bytes);
                bytes.to_vec()
            }
            _ => self.text(id).into_bytes(),
        }
    }
}

/// Swaps between the mixed-endian form of Windows and the order of the text.
fn swap(bytes: &mut [u8; 16]) {
    bytes[0..4].reverse();
    bytes[4..6].reverse();
    bytes[6..8].reverse();
}

/// Two hex digits. Unlike `from_str_radix`, takes no sign.
pub(super) fn hex_octet(pair: [u8; 2]) -> Option<u8> {
    Some((hex_digit(pair[0])? << 4) | hex_digit(pair[1])?)
}

fn hex_digit(octet: u8) -> Option<u8> {
    char::from(octet).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

/// The relative identifier: last sub-authority of a SID (MS-DTYP 2.4.2).
pub fn sid_rid(sid: &[u8]) -> Option<u32> {
    let count = usize::from(*sid.get(1)?);
    if count == 0 || sid.len() != 8 + 4 * count {
        return None;
    }
    Some(u32::from_le_bytes(sid[sid.len() - 4..].try_into().ok()?))
}

/// A security identifier as text, `S-1-5-21-...` (MS-DTYP 2.4.2.1).
pub fn sid_text(sid: &[u8]) -> Option<String> {
    let (&revision, rest) = sid.split_first()?;
    let (&count, rest) = rest.split_first()?;
    let (authority, parts) = rest.split_first_chunk::<6>()?;
    if revision != 1 || !(1..=15).contains(&count) || parts.len() != 4 * usize::from(count) {
        return None;
    }
    let authority = authority.iter().fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
    // The text form has hexadecimal digits from there on, which no account has.
    if authority >= 1 << 32 {
        return None;
    }
    let mut text = format!("S-1-{authority}");
    for part in parts.chunks_exact(4) {
        let number = u32::from_le_bytes(part.try_into().ok()?);
        text.push_str(&format!("-{number}"));
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;

    use super::*;

    #[test]
    fn guid_pair_measured_on_samba() {
        let raw = STANDARD.decode("DuR+1y3RV0eXr3lj2bVjpQ==").unwrap();
        let id = IdCodec::GuidLe.decode(&raw).unwrap();
        assert_eq!(IdCodec::GuidLe.text(id), "d77ee40e-d12d-4757-97af-7963d9b563a5");
        assert_eq!(IdCodec::GuidLe.assertion(id), raw);
    }

    #[test]
    fn sid_measured_on_samba() {
        let raw = STANDARD.decode("AQUAAAAAAAUVAAAAbRy2hXUkznqcFnuebAQAAA==").unwrap();
        assert_eq!(sid_rid(&raw), Some(1132));
        assert_eq!(sid_rid(&raw[..20]), None);
        let text = "S-1-5-21-2243304557-2060330101-2658866844-1132";
        assert_eq!(sid_text(&raw).as_deref(), Some(text));
        assert_eq!(sid_text(&raw[..20]), None);
    }

    #[test]
    fn every_spelling_survives() {
        for (codec, text) in [
            (IdCodec::UuidText, "f81d4fae-7dec-11d0-a765-00a0c91e6bf6"),
            (IdCodec::NsUniqueId, "5213a0ae-e63111f1-a821be6c-091e3b7a"),
            (IdCodec::Hex, "0123456789abcdef0123456789abcdef"),
        ] {
            let id = codec.decode(text.as_bytes()).unwrap();
            assert_eq!(codec.text(id), text);
            assert_eq!(codec.assertion(id), text.as_bytes());
        }
    }

    #[test]
    fn what_is_no_id_is_refused() {
        assert!(IdCodec::UuidText.decode(b"f81d4fae").is_none());
        assert!(IdCodec::GuidLe.decode(&[0; 15]).is_none());
        assert!(IdCodec::Hex.decode(b"0123456789abcdef0123456789abcdef00").is_none());
    }
}
