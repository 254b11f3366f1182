//! Tests over whole directories: each builds its own small company.

mod accounts;
mod conflicts;
mod logic;
mod reading;
mod story;
mod tracking;
mod writing;

use causeway_mock_kit::Clock;
use causeway_mock_kit::world::{Company, CompanySpec, Person, PersonState};

use super::*;
use crate::filter::Filter;
use crate::personality::{Personality, Vendor};

/// 2026-11-22 04:37:35 UTC.
const NOW_MS: i64 = 1_795_322_255_000;

/// A directory over a small company, on a clock that stands still.
struct World {
    company: Company,
    directory: Directory,
    clock: Clock,
}

impl World {
    fn new(vendor: Vendor) -> Self {
        Self::with(vendor, &[("dc1", Some(0))], |_| {})
    }

    fn with(
        vendor: Vendor,
        servers: &[(&str, Option<u64>)],
        change: impl FnOnce(&mut DirectorySpec),
    ) -> Self {
        let company =
            Company::generate(&CompanySpec { seed: 7, users: 60, domain: "acme.example".to_owned() });
        let clock = Clock::stepped(NOW_MS);
        let servers =
            servers.iter().map(|(name, lag_ms)| ServerSpec { name: (*name).to_owned(), lag_ms: *lag_ms });
        let mut spec = DirectorySpec {
            personality: Personality::of(vendor),
            servers: servers.collect(),
            accounts: AccountPolicy::default(),
            seed: 7,
            exchange: false,
        };
        change(&mut spec);
        Self { directory: Directory::build(&spec, &company, clock.clone()), company, clock }
    }

    fn server(&self) -> &Replica {
        &self.directory.servers()[0]
    }

    fn admin(&self) -> Identity {
        let login = self.directory.service_account();
        let bound = self.server().authenticate(login.user.as_bytes(), login.password.as_bytes());
        bound.expect("the service account can always bind").identity
    }

    fn person(&self, state: PersonState) -> &Person {
        self.company.first_in_state(state).expect("every state exists in a company of sixty")
    }

    fn dn_of(&self, person: &Person) -> String {
        let attribute =
            if self.directory.personality().is_active_directory() { "sAMAccountName" } else { "uid" };
        let found = self.find(&format!("({attribute}={})", person.login));
        self.server().dn_of(found[0]).expect("found a moment ago")
    }

    /// Numbers of the objects under the people's suffix that match.
    fn find(&self, filter: &str) -> Vec<EntryId> {
        self.search(self.directory.base_dn(), Scope::Subtree, filter, &self.admin()).expect("search").ids
    }

    fn names(&self, filter: &str) -> Vec<String> {
        let mut names: Vec<String> =
            self.find(filter).into_iter().filter_map(|id| self.server().dn_of(id)).collect();
        names.sort();
        names
    }

    fn search(&self, base: &str, scope: Scope, filter: &str, who: &Identity) -> Result<Matches, LdapFailure> {
        let filter = Filter::parse(filter).expect("test filter");
        self.server().search(&plan(base, scope, &filter, who))
    }

    fn text(&self, id: EntryId, attribute: &str) -> String {
        let values = self.server().values(id, attribute);
        values.first().map(|value| String::from_utf8_lossy(value).into_owned()).unwrap_or_default()
    }
}

fn plan<'a>(base: &'a str, scope: Scope, filter: &'a Filter, who: &'a Identity) -> SearchPlan<'a> {
    SearchPlan {
        base: base.as_bytes(),
        scope,
        filter,
        view: View::Domain,
        who,
        show_deleted: false,
        domain_scope: false,
        phantom_root: false,
        attribute_scope: None,
        count_max: usize::MAX,
    }
}

/// A DN, and attribute names with their values in the order they came.
type Decoded = (String, Vec<(String, Vec<Vec<u8>>)>);

/// An encoded entry taken apart by a reader of its own.
fn decode(body: &[u8]) -> Decoded {
    fn tlv<'a>(bytes: &mut &'a [u8], tag: u8) -> &'a [u8] {
        assert_eq!(bytes[0], tag, "tag at {bytes:02x?}");
        let (head, length) = match bytes[1] {
            short @ 0..0x80 => (2, usize::from(short)),
            long => {
                let count = usize::from(long & 0x7f);
                (2 + count, bytes[2..2 + count].iter().fold(0, |sum, byte| (sum << 8) | usize::from(*byte)))
            }
        };
        let content = &bytes[head..head + length];
        *bytes = &bytes[head + length..];
        content
    }
    let mut rest = body;
    let dn = String::from_utf8(tlv(&mut rest, 0x04).to_vec()).unwrap();
    let mut list = tlv(&mut rest, 0x30);
    assert!(rest.is_empty(), "nothing after the attribute list");
    let mut attributes = Vec::new();
    while !list.is_empty() {
        let mut attribute = tlv(&mut list, 0x30);
        let name = String::from_utf8(tlv(&mut attribute, 0x04).to_vec()).unwrap();
        let mut set = tlv(&mut attribute, 0x31);
        let mut values = Vec::new();
        while !set.is_empty() {
            values.push(tlv(&mut set, 0x04).to_vec());
        }
        attributes.push((name, values));
    }
    (dn, attributes)
}
