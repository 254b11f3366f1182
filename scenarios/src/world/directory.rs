//! The company's directory: mock-ldap, and what an administrator sees of it over LDAP.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, bail};
use causeway_mock_kit::fault::FaultId;
use causeway_mock_kit::world::Company;
use causeway_mock_ldap::MockLdap;
use ldap3::adapters::{Adapter, EntriesOnly, PagedResults};
use ldap3::{Ldap, LdapConnAsync, LdapConnSettings, Scope, SearchEntry};
use serde_json::Value;

use super::vocabulary::{self, Vocabulary};
use crate::spec::LdapSpec;

/// Entries in one page of the runner's own searches.
const PAGE: i32 = 500;

/// Wrong binds that lock an account in any generated company; its lockout threshold is lower.
const LOCKING_ATTEMPTS: usize = 30;

/// The directory of a world.
pub struct Directory {
    mock: MockLdap,
    spec: LdapSpec,
    vocabulary: Vocabulary,
    company: Company,
    base: String,
    /// Login to DN and group name to DN, as they were when the world stood.
    people: BTreeMap<String, String>,
    groups: BTreeMap<String, String>,
    down: BTreeMap<String, Vec<FaultId>>,
}

/// Someone who signs in.
pub struct Person {
    /// What the person types.
    pub username: String,
    /// The right password.
    pub password: String,
}

/// What the cloud and the directory must agree about.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Census {
    /// DN to mail address.
    pub people: BTreeMap<String, String>,
    /// Group DN to member DNs.
    pub groups: BTreeMap<String, BTreeSet<String>>,
}

impl Census {
    /// The first difference to what the cloud has, in words.
    pub fn difference(&self, cloud: &Self) -> Option<String> {
        let counts = (self.people.len(), cloud.people.len());
        if let Some(dn) = self.people.keys().find(|dn| !cloud.people.contains_key(*dn)) {
            return Some(format!(
                "the cloud lacks {dn:?} ({} people in the directory, {} in the cloud)",
                counts.0, counts.1
            ));
        }
        if let Some(dn) = cloud.people.keys().find(|dn| !self.people.contains_key(*dn)) {
            return Some(format!("the cloud has {dn:?}, the directory does not"));
        }
        if let Some((dn, mail)) = self.people.iter().find(|(dn, mail)| cloud.people[*dn] != **mail) {
            return Some(format!(
                "mail of {dn:?} is {mail:?} in the directory, {:?} in the cloud",
                cloud.people[dn]
            ));
        }
        for (dn, members) in &self.groups {
            let Some(there) = cloud.groups.get(dn) else {
                return Some(format!("the cloud lacks the group {dn:?}"));
            };
            if let Some(member) = members.difference(there).next() {
                return Some(format!("the cloud lacks {member:?} in {dn:?}"));
            }
            // What only the cloud has may be a primary group, which a directory does not list as a member.
            if let Some(member) = there.iter().find(|member| !members.contains(*member) && !is_primary(dn)) {
                return Some(format!("the cloud has {member:?} in {dn:?}, the directory does not"));
            }
        }
        let extra = cloud.groups.keys().find(|dn| !self.groups.contains_key(*dn));
        extra.map(|dn| format!("the cloud has the group {dn:?}, the directory does not"))
    }
}

impl Directory {
    /// Starts the directory of a scenario.
    ///
    /// # Errors
    /// When a setting is wrong or a port is taken.
    pub async fn start(spec: &LdapSpec, users: usize, seed: u64) -> Result<Self> {
        let mut settings: toml::Table = toml::toml! { [common] };
        let common = settings["common"].as_table_mut().context("common is a table")?;
        common.insert("users".into(), i64::try_from(users)?.into());
        common.insert("seed".into(), i64::try_from(seed)?.into());
        settings.insert("personality".into(), spec.personality.clone().into());
        settings.insert(
            "servers".into(),
            spec.servers.iter().map(|name| server_settings(name)).collect::<Vec<_>>().into(),
        );
        super::cloud::merge(&mut settings, &spec.settings);
        let config: causeway_mock_ldap::Config = settings.try_into().context("settings of mock-ldap")?;
        let company = Company::generate(&config.common.company()?);
        let mock = MockLdap::start(config).await.context("start mock-ldap")?;
        let vocabulary = vocabulary::of(&spec.personality);
        let base = vocabulary.base.map_or_else(|| mock.directory().base_dn().to_owned(), str::to_owned);
        let mut directory = Self {
            mock,
            spec: spec.clone(),
            vocabulary,
            company,
            base,
            people: BTreeMap::new(),
            groups: BTreeMap::new(),
            down: BTreeMap::new(),
        };
        directory.people = directory.names(vocabulary.user_filter, vocabulary.login).await?;
        directory.groups = directory.names(vocabulary.group_filter, "cn").await?;
        Ok(directory)
    }

    /// The mock itself.
    pub fn mock(&self) -> &MockLdap {
        &self.mock
    }

    /// The server agents try first.
    pub fn first_server(&self) -> &str {
        &self.spec.servers[0]
    }

    /// URLs of every server, as an agent's settings name them.
    ///
    /// # Errors
    /// When a server has no such front end.
    pub fn agent_urls(&self) -> Result<Vec<String>> {
        let scheme = if self.starttls() { "ldap" } else { "ldaps" };
        self.spec.servers.iter().map(|server| self.url(scheme, server)).collect()
    }

    /// Whether agents are to use StartTLS.
    pub fn starttls(&self) -> bool {
        self.spec.transport == "starttls"
    }

    /// The account agents read with: DN and password.
    pub fn service_account(&self) -> (String, String) {
        let login = self.mock.service_account();
        (login.dn, login.password)
    }

    /// Takes a server off the network, or brings it back.
    ///
    /// # Errors
    /// When there is no such server.
    pub fn set_server_down(&mut self, server: &str, down: bool) -> Result<String> {
        self.position(server)?;
        for rule in self.down.remove(server).unwrap_or_default() {
            self.mock.faults().remove(rule);
        }
        if down {
            let fronts = ["ldap", "ldaps", "gc", "gcs"].map(|front| self.front(front, server));
            let rules = fronts.iter().map(|front| self.mock.faults().set_down(front)).collect();
            self.down.insert(server.to_owned(), rules);
        }
        Ok(String::new())
    }

    /// Replaces `${base}`, `${people}`, `${groups}`, `${dn:LOGIN}`, `${ou_of:LOGIN}`, `${group:NAME}` and
    /// `${password:LOGIN}`.
    ///
    /// # Errors
    /// When a variable is unknown.
    pub fn expand(&self, text: &str) -> Result<String> {
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("${") {
            let (variable, after) =
                after.split_once('}').with_context(|| format!("{text:?}: a variable has no end"))?;
            out.push_str(before);
            out.push_str(&self.variable(variable)?);
            rest = after;
        }
        out.push_str(rest);
        Ok(out)
    }

    fn variable(&self, variable: &str) -> Result<String> {
        let (name, argument) = variable.split_once(':').unwrap_or((variable, ""));
        let found = match name {
            "base" => Some(self.base.clone()),
            "people" => self.people.get("asmith").map(|dn| parent(parent(dn)).to_owned()),
            "groups" => self.groups.get("All Staff").map(|dn| parent(dn).to_owned()),
            "dn" => self.people.get(argument).cloned(),
            "ou_of" => self.people.get(argument).map(|dn| parent(dn).to_owned()),
            "group" => self.groups.get(argument).cloned(),
            "password" => self.company.person(argument).map(causeway_mock_kit::world::Person::password),
            _ => None,
        };
        found.with_context(|| format!("the variable ${{{variable}}} stands for nothing here"))
    }

    /// Someone by login, by `state:NAME`, or as typed.
    ///
    /// # Errors
    /// When nobody is in that state.
    pub fn person(&self, user: &str) -> Result<Person> {
        let person = match user.strip_prefix("state:") {
            Some(word) => {
                let wanted = Value::String(word.to_owned());
                let mut people = self.company.people.iter();
                let found = people
                    .find(|person| serde_json::to_value(person.state).is_ok_and(|state| state == wanted));
                Some(found.with_context(|| format!("nobody in the company is {word}"))?)
            }
            None => self.company.person(user),
        };
        let username = person.map_or(user, |person| &*person.login).to_owned();
        Ok(Person { username, password: person.map(|person| person.password()).unwrap_or_default() })
    }

    /// DN and attributes of a person who does not exist yet.
    pub fn new_person(&self, login: &str) -> (String, BTreeMap<String, Vec<String>>) {
        let Vocabulary { person_rdn, person_classes, login: login_attribute, .. } = self.vocabulary;
        let place = self.people.get("asmith").map_or(self.base.as_str(), |dn| parent(dn));
        let mut attributes: BTreeMap<String, Vec<String>> = BTreeMap::new();
        let mut put = |name: &str, value: String| attributes.insert(name.to_owned(), vec![value]);
        put("cn", login.to_owned());
        put("sn", "Newcomer".to_owned());
        put(login_attribute, login.to_owned());
        put("mail", format!("{login}@{}", self.company.domain));
        attributes
            .insert("objectClass".into(), person_classes.iter().map(|class| (*class).to_owned()).collect());
        (format!("{person_rdn}={login},{place}"), attributes)
    }

    /// Locks an account by wrong passwords.
    ///
    /// # Errors
    /// When the directory cannot be reached or knows nobody of that login.
    pub async fn lock(&self, login: &str) -> Result<()> {
        let dn = self.people.get(login).with_context(|| format!("nobody is called {login}"))?;
        let mut ldap = self.connect(self.first_server()).await?;
        for attempt in 0..LOCKING_ATTEMPTS {
            ldap.simple_bind(dn, &format!("wrong-{attempt}")).await?;
        }
        Ok(ldap.unbind().await?)
    }

    /// A connection bound as the directory's administrator.
    ///
    /// # Errors
    /// When the server is down.
    pub async fn administrator(&self, server: &str) -> Result<Ldap> {
        let (dn, password) = self.service_account();
        let mut ldap = self.connect(server).await?;
        ldap.simple_bind(&dn, &password).await?.success().context("bind as administrator")?;
        Ok(ldap)
    }

    /// How many `users` or `groups` there are.
    ///
    /// # Errors
    /// When no server answers.
    pub async fn count(&self, list: &str) -> Result<u64> {
        let census = self.census().await?;
        match list {
            "users" => Ok(census.people.len() as u64),
            "groups" => Ok(census.groups.len() as u64),
            other => bail!("the runner does not count {other}"),
        }
    }

    /// DNs of the generated people, as they were when the world stood.
    pub fn people_dns(&self) -> Vec<String> {
        self.company.people.iter().filter_map(|person| self.people.get(&*person.login).cloned()).collect()
    }

    /// Everyone and every membership, read over LDAP from the first server that is up.
    ///
    /// # Errors
    /// When no server answers.
    pub async fn census(&self) -> Result<Census> {
        let Vocabulary { user_filter, group_filter, member, .. } = self.vocabulary;
        let mut census = Census::default();
        for entry in self.search(user_filter, &["mail"]).await? {
            let mail = entry.attrs.get("mail").and_then(|values| values.first()).cloned().unwrap_or_default();
            census.people.insert(entry.dn, mail);
        }
        for entry in self.search(group_filter, &[member]).await? {
            let members = entry.attrs.get(member).into_iter().flatten().cloned().collect();
            census.groups.insert(entry.dn, members);
        }
        // The cloud knows memberships of objects it knows.
        let known: BTreeSet<String> = census.people.keys().chain(census.groups.keys()).cloned().collect();
        for members in census.groups.values_mut() {
            members.retain(|member| known.contains(member));
        }
        Ok(census)
    }

    async fn names(&self, filter: &str, attribute: &str) -> Result<BTreeMap<String, String>> {
        let found = self.search(filter, &[attribute]).await?;
        let named = found.into_iter().filter_map(|entry| {
            let name =
                entry.attrs.iter().find(|(name, _)| name.eq_ignore_ascii_case(attribute))?.1.first()?.clone();
            Some((name, entry.dn))
        });
        Ok(named.collect())
    }

    async fn search(&self, filter: &str, attributes: &[&str]) -> Result<Vec<SearchEntry>> {
        let up = self.spec.servers.iter().find(|server| !self.down.contains_key(*server));
        let mut ldap = self.administrator(up.context("every directory server is down")?).await?;
        let adapters: Vec<Box<dyn Adapter<_, _>>> =
            vec![Box::new(EntriesOnly::new()), Box::new(PagedResults::new(PAGE))];
        let attributes = attributes.to_vec();
        let mut stream =
            ldap.streaming_search_with(adapters, &self.base, Scope::Subtree, filter, attributes).await?;
        let mut found = Vec::new();
        while let Some(entry) = stream.next().await? {
            found.push(SearchEntry::construct(entry));
        }
        stream.finish().await.success().with_context(|| format!("search {filter}"))?;
        ldap.unbind().await?;
        Ok(found)
    }

    async fn connect(&self, server: &str) -> Result<Ldap> {
        let url = self.url("ldap", server)?;
        // Some personalities take no password in the clear, so the runner always asks for StartTLS.
        let settings = LdapConnSettings::new().set_starttls(true).set_config(self.mock.ca().client_config());
        let connected = LdapConnAsync::with_settings(settings, &url).await;
        let (connection, ldap) = connected.with_context(|| format!("connect to {url}"))?;
        ldap3::drive!(connection);
        Ok(ldap)
    }

    fn url(&self, scheme: &str, server: &str) -> Result<String> {
        let front = self.front(scheme, server);
        self.mock.urls().get(&front).cloned().with_context(|| format!("mock-ldap has no front end {front}"))
    }

    /// The first server's front ends carry the plain names, the others' end in the server's.
    fn front(&self, scheme: &str, server: &str) -> String {
        if server == self.first_server() { scheme.to_owned() } else { format!("{scheme}_{server}") }
    }

    fn position(&self, server: &str) -> Result<usize> {
        let found = self.spec.servers.iter().position(|name| name == server);
        found.with_context(|| format!("no server is called {server}; there are {:?}", self.spec.servers))
    }
}

fn server_settings(name: &str) -> toml::Table {
    let mut table = toml::Table::new();
    table.insert("name".into(), name.to_owned().into());
    table
}

/// A DN without its first RDN.
fn parent(dn: &str) -> &str {
    let mut escaped = false;
    for (at, byte) in dn.bytes().enumerate() {
        match byte {
            b'\\' if !escaped => escaped = true,
            b',' if !escaped => return &dn[at + 1..],
            _ => escaped = false,
        }
    }
    ""
}

/// Groups whose members are kept in `primaryGroupID` (MS-ADTS 3.1.1.4.5.19).
fn is_primary(dn: &str) -> bool {
    ["CN=Domain Users,", "CN=Domain Computers,", "CN=Domain Guests,", "CN=Domain Controllers,"]
        .iter()
        .any(|rdn| dn.starts_with(rdn))
}
