//! People of the generated company.

use serde::Serialize;

use super::names::{Location, PASSWORD_WORDS};
use super::random::{SplitMix64, mix_two};

/// A person. Phone numbers, identifiers and the password are derived on demand.
#[derive(Serialize, Clone, Debug, PartialEq, Eq)]
pub struct Person {
    /// Position in the company's people.
    pub index: u32,
    /// Given name, unescaped, any script.
    pub given_name: &'static str,
    /// Surname, unescaped, any script.
    pub surname: &'static str,
    /// Full name, unique in the company so that it can serve as a common name; unescaped.
    pub display_name: Box<str>,
    /// Account name: ASCII letters and digits, at most 20 (sAMAccountName's limit, MS-SAMR 3.1.1.6), unique.
    pub login: Box<str>,
    /// Mail address, unique.
    pub mail: Box<str>,
    /// Index of the unit the person is in.
    pub ou: usize,
    /// Department.
    pub department: &'static str,
    /// Job title.
    pub title: &'static str,
    /// Where the person works.
    pub location: &'static Location,
    /// Index of the manager; none for the head of the company.
    pub manager: Option<u32>,
    /// State of the account.
    pub state: PersonState,
    /// Relative identifier, unique in the company.
    pub rid: u32,
    /// When the account was made, Unix milliseconds.
    pub created_ms: i64,
    #[serde(skip)]
    pub(super) key: Key,
}

/// State of an account. Locking is not among them: it arises from wrong passwords.
#[derive(Serialize, Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[serde(rename_all = "snake_case")]
pub enum PersonState {
    /// May sign in.
    Active,
    /// Switched off by an administrator.
    Disabled,
    /// The account ran out.
    Expired,
    /// The password ran out.
    PasswordExpired,
    /// Must choose a new password first.
    MustChange,
    /// May not sign in at any hour.
    HoursDenied,
}

/// Where everything derived comes from, the password too, therefore without a readable Debug.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Key(u64);

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("..")
    }
}

impl Key {
    pub(super) fn derive(seed: u64, index: u64) -> Self {
        Self(mix_two(seed, index))
    }

    pub(super) fn part(self, number: u64) -> u64 {
        mix_two(self.0, number)
    }

    pub(super) fn guid(self) -> [u8; 16] {
        guid(self.0)
    }

    /// A password that satisfies Active Directory's complexity rule: upper and lower case, digits, symbols, and no
    /// part of a name. The number makes it unique in the company.
    fn password(self, number: u64) -> String {
        let mut random = SplitMix64::new(self.part(1));
        let mut word = || random.pick(&PASSWORD_WORDS);
        format!("{}-{}-{}-{:04}", word(), word(), word(), number)
    }
}

impl Person {
    /// The password the person has at the start; the same for a seed and index, never stored.
    pub fn password(&self) -> String {
        self.key.password(1_000 + u64::from(self.index))
    }

    /// Object GUID.
    pub fn guid(&self) -> [u8; 16] {
        self.key.guid()
    }

    /// Desk phone, international form.
    pub fn phone(&self) -> String {
        format!("{} {:04}", self.location.phone_prefix, self.key.part(2) % 10_000)
    }

    /// Mobile phone, international form. The numbers are not assigned to anybody: no country uses this prefix.
    pub fn mobile(&self) -> String {
        format!("+999 {:04} {:04}", self.key.part(3) % 10_000, self.key.part(4) % 10_000)
    }

    /// Employee number, unique.
    pub fn employee_id(&self) -> String {
        format!("E{:06}", 100_000 + self.index)
    }

    /// City of the person's office.
    pub fn city(&self) -> &'static str {
        self.location.city
    }

    /// Country of the person's office, in English.
    pub fn country(&self) -> &'static str {
        self.location.country
    }

    /// Country of the person's office, two letters (ISO 3166-1).
    pub fn country_code(&self) -> &'static str {
        self.location.country_code
    }

    /// True when the account can sign in with the right password.
    pub fn is_active(&self) -> bool {
        self.state == PersonState::Active
    }
}

/// The account an agent uses to read the directory.
#[derive(Serialize, Clone, Debug, PartialEq, Eq)]
pub struct ServiceAccount {
    /// Account name.
    pub login: &'static str,
    /// Full name, used as common name.
    pub display_name: &'static str,
    /// Index of the unit it is in.
    pub ou: usize,
    /// Object GUID.
    pub guid: [u8; 16],
    /// Relative identifier.
    pub rid: u32,
    #[serde(skip)]
    pub(super) key: Key,
}

impl ServiceAccount {
    /// Its password; the same for a seed, never stored.
    pub fn password(&self) -> String {
        self.key.password(7)
    }
}

/// A GUID of version 4 layout (RFC 9562 5.4) from a number.
pub(super) fn guid(key: u64) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&mix_two(key, 101).to_be_bytes());
    bytes[8..].copy_from_slice(&mix_two(key, 102).to_be_bytes());
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    bytes
}
