//! The generated company: the same people, groups, OUs and devices behind every mock, decided by a seed alone.
//!
//! Generation uses no clock, no hash order and no floating point, so a seed gives a byte-identical company on every
//! machine. What can be derived (passwords, phone numbers, identifiers) is not stored.

mod build;
mod device;
mod group;
mod mail;
mod names;
mod person;
mod random;

use serde::Serialize;

pub use device::{Device, DeviceModel, Platform};
pub use group::{Group, GroupKind, GroupScope, Member};
pub use mail::{DATABASES_PER_SERVER, MAIL_SERVERS, database_name, mailbox_home};
pub use person::{Person, PersonState, ServiceAccount};
pub use random::{SplitMix64, mix_two};

/// What a company is made from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompanySpec {
    /// Decides everything else.
    pub seed: u64,
    /// Number of people, at most [`crate::limits::PEOPLE_MAX`].
    pub users: usize,
    /// DNS domain, such as `acme.example`.
    pub domain: String,
}

impl Default for CompanySpec {
    fn default() -> Self {
        crate::cli::CommonConfig::default().company().expect("the default settings make a company")
    }
}

/// A company as generated. Mocks copy what they need into their own worlds and change it there.
#[derive(Serialize, Debug)]
pub struct Company {
    /// Decides everything else.
    pub seed: u64,
    /// DNS domain, such as `acme.example`.
    pub domain: String,
    /// NetBIOS domain name, such as `ACME`.
    pub netbios: String,
    /// Name of the organisation, such as `Acme`.
    pub organisation: String,
    /// `DC=acme,DC=example`.
    pub base_dn: String,
    /// Organisational units, parents before children.
    pub ous: Vec<Ou>,
    /// The people; a person's index is the position here.
    pub people: Vec<Person>,
    /// The groups.
    pub groups: Vec<Group>,
    /// The phones and tablets.
    pub devices: Vec<Device>,
    /// The account an agent uses to read the directory.
    pub service_account: ServiceAccount,
}

/// An organisational unit.
#[derive(Serialize, Clone, Debug, PartialEq, Eq)]
pub struct Ou {
    /// Its name, unescaped.
    pub name: String,
    /// Index of the unit it is in; `None` at the top of the domain.
    pub parent: Option<usize>,
    /// What it is for.
    pub kind: OuKind,
    /// Object GUID.
    pub guid: [u8; 16],
}

/// What an organisational unit is for.
#[derive(Serialize, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum OuKind {
    /// A location, holding departments.
    Location,
    /// A department at a location, holding people.
    Department,
    /// Holds the groups.
    Groups,
    /// Holds service accounts.
    ServiceAccounts,
    /// Holds computers and devices.
    Devices,
}

impl Company {
    /// Generates the company.
    ///
    /// # Panics
    /// When more than [`crate::limits::PEOPLE_MAX`] people are asked for; [`crate::cli::CommonConfig::company`] checks
    /// that first.
    pub fn generate(spec: &CompanySpec) -> Self {
        build::company(spec)
    }

    /// The person with this login, ignoring ASCII case.
    pub fn person(&self, login: &str) -> Option<&Person> {
        self.people.iter().find(|person| person.login.eq_ignore_ascii_case(login))
    }

    /// The group of this name.
    pub fn group(&self, name: &str) -> Option<&Group> {
        self.groups.iter().find(|group| group.name == name)
    }

    /// The first person in a state; every state exists in a company of at least 10 people.
    pub fn first_in_state(&self, state: PersonState) -> Option<&Person> {
        self.people.iter().find(|person| person.state == state)
    }

    /// The first unit of a kind.
    pub fn ou_of_kind(&self, kind: OuKind) -> Option<usize> {
        self.ous.iter().position(|ou| ou.kind == kind)
    }

    /// The units from the top of the domain down to `ou`.
    pub fn ou_path(&self, ou: usize) -> Vec<&Ou> {
        let mut path: Vec<&Ou> =
            std::iter::successors(self.ous.get(ou), |ou| ou.parent.and_then(|it| self.ous.get(it))).collect();
        path.reverse();
        path
    }

    /// The security identifier of an account of the company as text: `S-1-5-21-...-1132`. The domain's part follows from
    /// the seed, so that a directory and an authority of one company agree.
    pub fn sid(&self, rid: u32) -> String {
        let bytes = domain_sid(self.seed);
        let parts =
            bytes[8..].chunks_exact(4).map(|part| u32::from_le_bytes([part[0], part[1], part[2], part[3]]));
        parts.chain([rid]).fold("S-1-5".to_owned(), |text, part| format!("{text}-{part}"))
    }

    /// `login@domain`.
    pub fn upn(&self, login: &str) -> String {
        format!("{login}@{}", self.domain)
    }
}

/// The security identifier of a domain, `S-1-5-21-a-b-c`, as a directory stores it (MS-DTYP section 2.4.2.2).
pub fn domain_sid(seed: u64) -> Vec<u8> {
    let mut sid = vec![1, 4, 0, 0, 0, 0, 0, 5, 21, 0, 0, 0];
    sid.extend_from_slice(&mix_two(seed, 21).to_le_bytes());
    sid.extend_from_slice(&(mix_two(seed, 22) as u32).to_le_bytes());
    sid
}

#[cfg(test)]
mod tests;
