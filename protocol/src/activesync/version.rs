use std::fmt;
use std::str::FromStr;

/// A protocol version, ten times its number: 161 is 16.1.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(pub u8);

impl Version {
    /// Exchange 2003 SP2.
    pub const V2_5: Self = Self(25);
    /// Exchange 2007.
    pub const V12_0: Self = Self(120);
    /// Exchange 2007 SP1.
    pub const V12_1: Self = Self(121);
    /// Exchange 2010.
    pub const V14_0: Self = Self(140);
    /// Exchange 2010 SP1, 2013.
    pub const V14_1: Self = Self(141);
    /// Exchange 2016.
    pub const V16_0: Self = Self(160);
    /// Exchange 2016 CU and later, Exchange Online.
    pub const V16_1: Self = Self(161);

    /// All that Exchange has spoken, oldest first.
    pub const ALL: [Self; 7] =
        [Self::V2_5, Self::V12_0, Self::V12_1, Self::V14_0, Self::V14_1, Self::V16_0, Self::V16_1];

    /// Refusals are HTTP status codes before 14.0 and status numbers in the body since (MS-ASCMD 2.2.2).
    pub fn has_common_status(self) -> bool {
        self >= Self::V14_0
    }

    /// A phone tells about itself within Provision from 14.1 on (MS-ASPROV 2.2.2.21).
    pub fn wants_device_information(self) -> bool {
        self >= Self::V14_1
    }

    /// Only the account can be wiped from 16.1 on (MS-ASPROV 2.2.2.1).
    pub fn has_account_only_wipe(self) -> bool {
        self >= Self::V16_1
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0 / 10, self.0 % 10)
    }
}

impl fmt::Debug for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A text that is not a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an ActiveSync protocol version, such as 16.1")]
pub struct NotAVersion;

impl FromStr for Version {
    type Err = NotAVersion;

    fn from_str(text: &str) -> Result<Self, NotAVersion> {
        let (major, minor) = text.trim().split_once('.').ok_or(NotAVersion)?;
        let (major, minor) = (digits(major, 2)?, digits(minor, 1)?);
        major.checked_mul(10).and_then(|tens| tens.checked_add(minor)).map(Self).ok_or(NotAVersion)
    }
}

fn digits(text: &str, length_max: usize) -> Result<u8, NotAVersion> {
    let plain = (1..=length_max).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    if plain { text.parse().map_err(|_| NotAVersion) } else { Err(NotAVersion) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_as_they_are_written() {
        for version in Version::ALL {
            assert_eq!(version.to_string().parse(), Ok(version));
        }
        for wrong in ["", "16", "16.", ".1", "16.11", "+1.0", "161", "99.9", "16.1.1", "a.b"] {
            assert_eq!(wrong.parse::<Version>(), Err(NotAVersion), "{wrong}");
        }
        assert!(Version::V2_5 < Version::V12_1 && Version::V14_0.has_common_status());
    }
}
