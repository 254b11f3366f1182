//! Identifiers of runspace pools, pipelines and messages. Where they come from is the caller's business.

use std::fmt;
use std::str::FromStr;

/// A GUID, kept in the order it is read by people.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default, PartialOrd, Ord)]
pub struct Guid([u8; 16]);

impl Guid {
    /// All zero: where a message belongs to no pipeline.
    pub const NIL: Self = Self([0; 16]);

    /// From sixteen bytes, first digits first.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// As .NET writes it: the first three groups with their last byte first (MS-DTYP 2.3.4.2).
    pub const fn from_wire(wire: [u8; 16]) -> Self {
        let [a, b, c, d, e, f, g, h, rest @ ..] = wire;
        let [i, j, k, l, m, n, o, p] = rest;
        Self([d, c, b, a, f, e, h, g, i, j, k, l, m, n, o, p])
    }

    /// The inverse of [`Guid::from_wire`], which is its own inverse.
    pub const fn to_wire(self) -> [u8; 16] {
        Self::from_wire(self.0).0
    }

    /// Upper case, as identifiers are written in SOAP headers.
    pub fn upper(self) -> String {
        self.to_string().to_ascii_uppercase()
    }
}

impl fmt::Display for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, byte) in self.0.iter().enumerate() {
            if matches!(at, 4 | 6 | 8 | 10) {
                f.write_str("-")?;
            }
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl FromStr for Guid {
    type Err = NotAGuid;

    /// In any case, with or without `uuid:` and braces.
    fn from_str(text: &str) -> Result<Self, NotAGuid> {
        let text = text.trim();
        let text = text.strip_prefix("uuid:").unwrap_or(text).trim_start_matches('{').trim_end_matches('}');
        let mut bytes = [0; 16];
        let mut digits = text.bytes().filter(|byte| *byte != b'-').map(|byte| char::from(byte).to_digit(16));
        for place in &mut bytes {
            let (Some(Some(high)), Some(Some(low))) = (digits.next(), digits.next()) else {
                return Err(NotAGuid);
            };
            *place = u8::try_from(high << 4 | low).map_err(|_| NotAGuid)?;
        }
        if digits.next().is_some() { Err(NotAGuid) } else { Ok(Self(bytes)) }
    }
}

/// Text that is no GUID.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the text is no GUID")]
pub struct NotAGuid;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wire_order_is_that_of_dotnet() {
        // The pool of the recorded session: header bytes and how it was printed.
        let wire =
            [0xaf, 0x15, 0xf9, 0x11, 0x75, 0xf1, 0xc7, 0x48, 0x96, 0xce, 0x1b, 0x96, 0x5b, 0xe3, 0x4c, 0x78];
        let guid = Guid::from_wire(wire);
        assert_eq!(guid.to_string(), "11f915af-f175-48c7-96ce-1b965be34c78");
        assert_eq!(guid.to_wire(), wire);
        assert_eq!("uuid:11F915AF-F175-48C7-96CE-1B965BE34C78".parse(), Ok(guid));
        assert_eq!("{11f915aff17548c796ce1b965be34c78}".parse(), Ok(guid));
        for wrong in
            ["", "11f915af", "11f915af-f175-48c7-96ce-1b965be34c7g", "11f915aff17548c796ce1b965be34c7800"]
        {
            assert_eq!(wrong.parse::<Guid>(), Err(NotAGuid), "{wrong}");
        }
    }
}
