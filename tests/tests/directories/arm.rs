//! One arm of the tests: a directory server, an administrator's connection to it by a client that is not ours, and a
//! subtree that belongs to the test alone.

use std::any::Any;
use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use causeway_mock_ldap::{Config, MockLdap};
use causeway_tests::containers::{Ds389, OpenLdap, Running, SambaDc};
use causeway_tests::tls;
use ldap3::adapters::{Adapter, EntriesOnly, PagedResults};
use ldap3::{Ldap, LdapConnAsync, LdapConnSettings, Mod, Scope, SearchEntry};

/// People of a mock's generated company; the tests make their own.
const GENERATED_PEOPLE: usize = 20;

/// Bound of every call to a server by the tests' own client.
const CALL_WITHIN: Duration = Duration::from_secs(20);

/// How a server spells things, for the tests' own client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Product {
    ActiveDirectory,
    OpenLdap,
    Ds389,
}

/// A server under test.
pub(crate) struct Arm {
    pub product: Product,
    pub ldap_url: String,
    pub ldaps_url: String,
    pub ca_file: PathBuf,
    /// The account the agent reads with, which may also write.
    pub login: String,
    pub password: String,
    /// The subtree of this test.
    pub root: String,
    /// Distinguishes names that must be unique on a shared server.
    pub tag: String,
    /// The mock, where it is one: its journal says what reached the wire.
    pub mock: Option<Arc<MockLdap>>,
    ca_pem: String,
    admin: Ldap,
    _alive: Box<dyn Any + Send + Sync>,
}

/// A person to be added.
pub(crate) struct NewPerson<'a> {
    /// Common name; the name of the entry in Active Directory.
    pub name: &'a str,
    pub login: &'a str,
    pub password: &'a str,
}

impl Arm {
    /// mock-ldap in this process.
    pub(crate) async fn mock(personality: &str) -> Result<Option<Self>> {
        let mut config = Config::of(personality);
        config.common.users = GENERATED_PEOPLE;
        let mock = Arc::new(MockLdap::start(config).await?);
        let login = mock.service_account();
        let product = match personality {
            "active_directory" => Product::ActiveDirectory,
            "ds389" => Product::Ds389,
            _ => Product::OpenLdap,
        };
        let server = Server {
            product,
            ldap_url: mock.url("ldap").to_owned(),
            ldaps_url: mock.url("ldaps").to_owned(),
            ca_pem: mock.ca().ca_pem().to_owned(),
            login: login.dn,
            password: login.password,
            base: mock.directory().base_dn().to_owned(),
        };
        let mut arm = Self::enter(server, Box::new(())).await?;
        arm.mock = Some(mock);
        Ok(Some(arm))
    }

    pub(crate) async fn openldap() -> Result<Option<Self>> {
        Self::container(Product::OpenLdap, OpenLdap::shared().await?).await
    }

    pub(crate) async fn ds389() -> Result<Option<Self>> {
        Self::container(Product::Ds389, Ds389::shared().await?).await
    }

    pub(crate) async fn samba() -> Result<Option<Self>> {
        Self::container(Product::ActiveDirectory, SambaDc::shared().await?).await
    }

    /// An arm on a container; `None` when there is none.
    pub(crate) async fn container(product: Product, running: Option<Running>) -> Result<Option<Self>> {
        let Some(running) = running else { return Ok(None) };
        let server = Server {
            product,
            ldap_url: running.url("ldap"),
            ldaps_url: running.url("ldaps"),
            ca_pem: running.ca_pem.clone(),
            login: running.login.clone(),
            password: running.password.clone(),
            base: running.base_dn.clone(),
        };
        Ok(Some(Self::enter(server, Box::new(running)).await?))
    }

    /// A further server of the domain that `first` is on, over the same subtree.
    pub(crate) async fn container_at(product: Product, running: Running, first: &Self) -> Result<Self> {
        let mut admin = connect(&running.url("ldaps"), &running.ca_pem).await?;
        admin
            .simple_bind(&running.login, &running.password)
            .await?
            .success()
            .context("bind as administrator")?;
        let ca_file = std::env::temp_dir().join(format!("causeway-directories-{}-2.pem", first.tag));
        std::fs::copy(&first.ca_file, &ca_file).context("copy the CA")?;
        Ok(Self {
            product,
            ldap_url: running.url("ldap"),
            ldaps_url: running.url("ldaps"),
            ca_file,
            login: running.login.clone(),
            password: running.password.clone(),
            root: first.root.clone(),
            tag: first.tag.clone(),
            mock: None,
            ca_pem: running.ca_pem.clone(),
            admin,
            _alive: Box::new(running),
        })
    }

    async fn enter(server: Server, alive: Box<dyn Any + Send + Sync>) -> Result<Self> {
        let mut admin = connect(&server.ldaps_url, &server.ca_pem).await?;
        admin
            .simple_bind(&server.login, &server.password)
            .await?
            .success()
            .context("bind as administrator")?;
        let tag = unique_tag();
        let ca_file = std::env::temp_dir().join(format!("causeway-directories-{tag}.pem"));
        std::fs::write(&ca_file, &server.ca_pem).context("write the CA")?;
        let mut arm = Self {
            product: server.product,
            ldap_url: server.ldap_url,
            ldaps_url: server.ldaps_url,
            ca_file,
            login: server.login,
            password: server.password,
            root: format!("ou=t{tag},{}", server.base),
            tag,
            mock: None,
            ca_pem: server.ca_pem,
            admin,
            _alive: alive,
        };
        let root = arm.root.clone();
        arm.add_unit_at(&root).await?;
        Ok(arm)
    }

    /// A further connection of the tests' own client, not bound.
    pub(crate) async fn connect(&self) -> Result<Ldap> {
        connect(&self.ldaps_url, &self.ca_pem).await
    }

    /// A login no other test uses.
    pub(crate) fn login_of(&self, name: &str) -> String {
        format!("{name}{}", self.tag)
    }

    /// Adds a unit and gives its DN.
    pub(crate) async fn add_unit(&mut self, name: &str) -> Result<String> {
        let dn = format!("ou={},{}", ldap3::dn_escape(name), self.root);
        self.add_unit_at(&dn).await?;
        Ok(dn)
    }

    async fn add_unit_at(&mut self, dn: &str) -> Result<()> {
        self.add(dn, vec![("objectClass", values(&["top", "organizationalUnit"]))]).await
    }

    /// Adds a person below `parent` and gives the DN.
    pub(crate) async fn add_person(&mut self, parent: &str, person: &NewPerson<'_>) -> Result<String> {
        let NewPerson { name, login, password } = person;
        let mail = format!("{}@acme.example", login.replace(|c: char| !c.is_ascii_alphanumeric(), "."));
        let mut attributes = vec![
            ("cn", values(&[name])),
            ("sn", values(&["Probe"])),
            ("givenName", values(&[name])),
            ("displayName", values(&[name])),
            ("mail", values(&[&mail])),
        ];
        let dn = match self.product {
            Product::ActiveDirectory => {
                let upn = format!("{}@acme.example", login.replace(' ', "."));
                attributes.push(("objectClass", values(&["top", "person", "organizationalPerson", "user"])));
                attributes.push(("sAMAccountName", values(&[login])));
                attributes.push(("userPrincipalName", values(&[&upn])));
                attributes.push(("userAccountControl", values(&["512"])));
                attributes.push(("unicodePwd", HashSet::from([unicode_password(password)])));
                format!("CN={},{parent}", ldap3::dn_escape(*name))
            }
            Product::OpenLdap | Product::Ds389 => {
                attributes.push((
                    "objectClass",
                    values(&["top", "person", "organizationalPerson", "inetOrgPerson"]),
                ));
                attributes.push(("uid", values(&[login])));
                attributes.push(("userPassword", values(&[password])));
                format!("uid={},{parent}", ldap3::dn_escape(*login))
            }
        };
        self.add(&dn, attributes).await?;
        Ok(dn)
    }

    /// Adds a group below `parent` and gives the DN. Some servers want at least one member.
    pub(crate) async fn add_group(&mut self, parent: &str, name: &str, members: &[&str]) -> Result<String> {
        let dn = format!("cn={},{parent}", ldap3::dn_escape(name));
        let mut attributes = vec![("cn", values(&[name])), ("description", values(&["made by a test"]))];
        attributes.push(("member", values(members)));
        match self.product {
            Product::ActiveDirectory => {
                let login =
                    self.login_of(&format!("g-{}", name.replace(|c: char| !c.is_ascii_alphanumeric(), "-")));
                attributes.push(("objectClass", values(&["top", "group"])));
                attributes.push(("sAMAccountName", values(&[&login])));
            }
            Product::OpenLdap | Product::Ds389 => {
                attributes.push(("objectClass", values(&["top", "groupOfNames"])));
            }
        }
        attributes.retain(|(_, values)| !values.is_empty());
        self.add(&dn, attributes).await?;
        Ok(dn)
    }

    pub(crate) async fn add(&mut self, dn: &str, attributes: Vec<(&str, HashSet<Vec<u8>>)>) -> Result<()> {
        let attributes: Vec<(Vec<u8>, HashSet<Vec<u8>>)> =
            attributes.into_iter().map(|(name, values)| (name.as_bytes().to_vec(), values)).collect();
        self.admin().add(dn, attributes).await?.success().with_context(|| format!("add {dn}"))?;
        Ok(())
    }

    pub(crate) async fn replace(&mut self, dn: &str, attribute: &str, new: &[&str]) -> Result<()> {
        let change = Mod::Replace(attribute.as_bytes().to_vec(), values(new));
        self.admin().modify(dn, vec![change]).await?.success().with_context(|| format!("modify {dn}"))?;
        Ok(())
    }

    pub(crate) async fn add_value(&mut self, dn: &str, attribute: &str, value: &str) -> Result<()> {
        let change = Mod::Add(attribute.as_bytes().to_vec(), values(&[value]));
        self.admin().modify(dn, vec![change]).await?.success().with_context(|| format!("modify {dn}"))?;
        Ok(())
    }

    pub(crate) async fn delete_value(&mut self, dn: &str, attribute: &str, value: &str) -> Result<()> {
        let change = Mod::Delete(attribute.as_bytes().to_vec(), values(&[value]));
        self.admin().modify(dn, vec![change]).await?.success().with_context(|| format!("modify {dn}"))?;
        Ok(())
    }

    /// Gives an entry another RDN, another parent, or both; gives the new DN.
    pub(crate) async fn rename(&mut self, dn: &str, rdn: &str, parent: &str) -> Result<String> {
        let renamed = self.admin().modifydn(dn, rdn, true, Some(parent)).await?;
        renamed.success().with_context(|| format!("rename {dn} to {rdn},{parent}"))?;
        Ok(format!("{rdn},{parent}"))
    }

    /// What an administrator must do after a rename where the server does not keep references itself.
    pub(crate) async fn relink(&mut self, group: &str, old: &str, new: &str) -> Result<()> {
        let found = self.read(group, &["member"]).await?;
        let listed =
            found.attrs.get("member").is_some_and(|all| all.iter().any(|one| one.eq_ignore_ascii_case(old)));
        if listed {
            let changes = vec![
                Mod::Add(b"member".to_vec(), values(&[new])),
                Mod::Delete(b"member".to_vec(), values(&[old])),
            ];
            self.admin()
                .modify(group, changes)
                .await?
                .success()
                .with_context(|| format!("relink {group}"))?;
        }
        Ok(())
    }

    pub(crate) async fn delete(&mut self, dn: &str) -> Result<()> {
        self.admin().delete(dn).await?.success().with_context(|| format!("delete {dn}"))?;
        Ok(())
    }

    pub(crate) async fn read(&mut self, dn: &str, attributes: &[&str]) -> Result<SearchEntry> {
        let found = self.admin().search(dn, Scope::Base, "(objectClass=*)", attributes.to_vec()).await?;
        let (mut entries, _) = found.success().with_context(|| format!("read {dn}"))?;
        ensure!(entries.len() == 1, "{} entries at {dn}", entries.len());
        Ok(SearchEntry::construct(entries.remove(0)))
    }

    /// Everything below the test's subtree, itself included.
    pub(crate) async fn everything(&mut self, attributes: &[&str]) -> Result<Vec<SearchEntry>> {
        let adapters: Vec<Box<dyn Adapter<_, _>>> =
            vec![Box::new(EntriesOnly::new()), Box::new(PagedResults::new(500))];
        let (root, attributes) = (self.root.clone(), attributes.to_vec());
        let admin = self.admin();
        let mut stream = admin
            .streaming_search_with(adapters, &root, Scope::Subtree, "(objectClass=*)", attributes)
            .await?;
        let mut found = Vec::new();
        while let Some(entry) = stream.next().await? {
            found.push(SearchEntry::construct(entry));
        }
        stream.finish().await.success().context("read the test's subtree")?;
        Ok(found)
    }

    /// Switches an account off, the way the product does it.
    pub(crate) async fn disable(&mut self, dn: &str) -> Result<()> {
        match self.product {
            Product::ActiveDirectory => self.replace(dn, "userAccountControl", &["514"]).await,
            Product::OpenLdap => self.replace(dn, "pwdAccountLockedTime", &["000001010000Z"]).await,
            Product::Ds389 => self.replace(dn, "nsAccountLock", &["true"]).await,
        }
    }

    /// Makes the next sign-in one that must change the password; false where the server is not set up for it.
    pub(crate) async fn require_new_password(&mut self, dn: &str) -> Result<bool> {
        match self.product {
            Product::ActiveDirectory => self.replace(dn, "pwdLastSet", &["0"]).await?,
            Product::OpenLdap => self.replace(dn, "pwdReset", &["TRUE"]).await?,
            Product::Ds389 => return Ok(false),
        }
        Ok(true)
    }

    fn admin(&mut self) -> &mut Ldap {
        self.admin.with_timeout(CALL_WITHIN)
    }
}

impl Drop for Arm {
    fn drop(&mut self) {
        // Only a certificate in the folder for temporary files; the system removes it some day when this fails.
        let _ = std::fs::remove_file(&self.ca_file);
    }
}

struct Server {
    product: Product,
    ldap_url: String,
    ldaps_url: String,
    ca_pem: String,
    login: String,
    password: String,
    base: String,
}

/// A set of values.
pub(crate) fn values(all: &[&str]) -> HashSet<Vec<u8>> {
    all.iter().map(|value| value.as_bytes().to_vec()).collect()
}

/// Bytes of an attribute; the client sorts values that happen to be UTF-8 apart.
pub(crate) fn first_bytes(entry: &SearchEntry, name: &str) -> Option<Vec<u8>> {
    let text =
        find(&entry.attrs, name).and_then(|values| values.first()).map(|text| text.clone().into_bytes());
    text.or_else(|| find(&entry.bin_attrs, name).and_then(|values| values.first()).cloned())
}

/// Text values of an attribute, by name in any case.
pub(crate) fn texts<'a>(entry: &'a SearchEntry, name: &str) -> &'a [String] {
    find(&entry.attrs, name).map_or(&[], Vec::as_slice)
}

fn find<'a, V>(all: &'a HashMap<String, V>, name: &str) -> Option<&'a V> {
    all.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value)
}

/// A quoted password in UTF-16LE, as `unicodePwd` takes it (MS-ADTS 3.1.1.3.1.5.1).
pub(crate) fn unicode_password(password: &str) -> Vec<u8> {
    format!("\"{password}\"").encode_utf16().flat_map(u16::to_le_bytes).collect()
}

async fn connect(url: &str, ca_pem: &str) -> Result<Ldap> {
    let settings = LdapConnSettings::new()
        .set_conn_timeout(CALL_WITHIN)
        .set_config(Arc::new(tls::trusting_only(ca_pem)?));
    let opened = LdapConnAsync::with_settings(settings, url).await;
    let (connection, ldap) = opened.with_context(|| format!("connect to {url}"))?;
    ldap3::drive!(connection);
    Ok(ldap)
}

/// Eight hex digits: process, time and a counter, so that neither threads nor test processes meet.
fn unique_tag() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let nanos = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64);
    let mixed = nanos
        .wrapping_mul(0x9e37_79b9_7f4a_7c15)
        .wrapping_add(u64::from(std::process::id()) << 20)
        .wrapping_add(u64::from(NEXT.fetch_add(1, Ordering::Relaxed)));
    format!("{:08x}", (mixed ^ (mixed >> 32)) as u32)
}
