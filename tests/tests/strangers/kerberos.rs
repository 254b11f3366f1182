//! A real key distribution centre: Samba's domain controller gives our client of Exchange its tickets, and mock-exchange,
//! with a keytab from that domain, takes them.

use std::collections::{BTreeMap, HashSet};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use causeway_agent::clock::Clock;
use causeway_agent::dial::proxy::Ways;
use causeway_agent::dial::{Dial, DialError, DialStream, Dialer, Service, Target, resolve::Names};
use causeway_agent::directory::Net;
use causeway_agent::exchange::{Exchange, ExchangeError, Organisation, Urgency};
use causeway_agent::modules::ModuleSettings;
use causeway_agent::random::RandomSource;
use causeway_agent::secrets::SecretStore;
use causeway_mock_exchange::config::{AccountConfig, ChannelBinding};
use causeway_mock_exchange::{Config, MockExchange};
use causeway_mock_kit::cli::RunningMock as _;
use causeway_mock_kit::fault::{Fault, Rule};
use causeway_protocol::Secret;
use causeway_protocol::cmdlet::Cmdlet;
use causeway_tests::containers::{Running, SambaDc};
use causeway_tests::tls;
use futures_util::future::BoxFuture;
use ldap3::{Ldap, LdapConnAsync, LdapConnSettings};
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};

const PASSWORD: &str = "Correct horse 9";

/// One call to a server, on a loaded machine.
const WITHIN: Duration = Duration::from_secs(60);

/// The types of AES in `msDS-SupportedEncryptionTypes` (MS-KILE 2.2.7); Samba gives RC4 without.
const AES: &str = "24";

/// Every name is this machine's: names are what tickets are for, and nobody has to resolve these.
struct ToThisMachine(Dialer);

impl Dial for ToThisMachine {
    fn connect(&self, target: Target) -> BoxFuture<'_, Result<DialStream, DialError>> {
        self.0.connect(Target::inside(Ipv4Addr::LOCALHOST.to_string(), target.port))
    }

    fn addresses(&self, _host: &str) -> BoxFuture<'_, Result<Vec<IpAddr>, DialError>> {
        Box::pin(async { Ok(vec![Ipv4Addr::LOCALHOST.into()]) })
    }

    fn services(&self, name: &str) -> BoxFuture<'_, Result<Vec<Service>, DialError>> {
        self.0.services(name)
    }
}

fn net() -> Result<Net> {
    let names = Names::new(&[], RandomSource::system())?;
    Ok(Net { dial: Arc::new(ToThisMachine(Dialer::new(names, Ways::none()))), clock: Clock::system() })
}

/// Accounts of one test in the domain: a person who signs in, and the servers' with its principal name.
struct Domain {
    controller: Running,
    person: String,
    host: String,
    keytab: tempfile::NamedTempFile,
}

impl Domain {
    /// `None` after a counted skip.
    async fn join() -> Result<Option<Self>> {
        let Some(controller) = SambaDc::shared().await? else { return Ok(None) };
        let nanos = SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos();
        let tag = format!("{:x}{nanos:x}", std::process::id());
        let (person, servers) = (format!("p{}", short(&tag)), format!("s{}", short(&tag)));
        let host = format!("mail{tag}.acme.example");
        let mut ldap = administrator(&controller).await?;
        let spn = format!("HTTP/{host}");
        for (login, more) in [(&person, None), (&servers, Some(("servicePrincipalName", spn.as_str())))] {
            add(&mut ldap, &controller.base_dn, login, more).await?;
        }
        ldap.unbind().await?;
        let keytab = exported(&controller, &spn, &tag).await?;
        Ok(Some(Self { controller, person, host, keytab }))
    }

    async fn mock(&self) -> Result<MockExchange> {
        let mut config = Config::default();
        config.common.users = 10;
        config.partnerships = Some(5);
        config.kerberos.hosts = vec![self.host.clone()];
        config.kerberos.keytab = Some(self.keytab.path().to_owned());
        config.powershell.channel_binding = ChannelBinding::Require;
        // The domain judges passwords; this one is never asked.
        config.accounts = vec![AccountConfig {
            login: self.person.clone(),
            password: "not the domain's".into(),
            roles: vec!["Organization Management".into()],
        }];
        Ok(MockExchange::start(config).await?)
    }

    fn settings(&self, mock: &MockExchange, front: &str, user: &str, password: &str) -> Result<Organisation> {
        let url = mock.url(front).replace("127.0.0.1", &self.host);
        let kdc = format!("{}:{}", self.controller.host, self.controller.port("kerberos"));
        let exchange = json!({
            "servers": [url], "accounts": [{ "user": user }], "auth": ["kerberos"],
            "ca_file": mock.ready().ca_pem, "kerberos_kdcs": [kdc],
        });
        Ok(Organisation::new(
            "default",
            &ModuleSettings {
                exchanges: BTreeMap::from([("default".to_owned(), exchange)]),
                secrets: SecretStore::new([("exchange.default".to_owned(), Secret::new(password))]),
                ..ModuleSettings::default()
            },
        )?)
    }
}

/// A login has at most 20 characters in Active Directory.
fn short(tag: &str) -> &str {
    &tag[tag.len().saturating_sub(12)..]
}

async fn administrator(controller: &Running) -> Result<Ldap> {
    let settings = LdapConnSettings::new()
        .set_conn_timeout(WITHIN)
        .set_config(Arc::new(tls::trusting_only(&controller.ca_pem)?));
    let (connection, mut ldap) = LdapConnAsync::with_settings(settings, &controller.url("ldaps")).await?;
    ldap3::drive!(connection);
    ldap.with_timeout(WITHIN).simple_bind(&controller.login, &controller.password).await?.success()?;
    Ok(ldap)
}

async fn add(ldap: &mut Ldap, base: &str, login: &str, more: Option<(&str, &str)>) -> Result<()> {
    let one = |value: &str| HashSet::from([value.as_bytes().to_vec()]);
    // MS-ADTS 3.1.1.3.1.5.1: quoted, in UTF-16.
    let password: Vec<u8> = format!("\"{PASSWORD}\"").encode_utf16().flat_map(u16::to_le_bytes).collect();
    let mut attributes = vec![
        (b"objectClass".to_vec(), one("user")),
        (b"sAMAccountName".to_vec(), one(login)),
        (b"userPrincipalName".to_vec(), one(&format!("{login}@acme.example"))),
        (b"userAccountControl".to_vec(), one("512")),
        (b"msDS-SupportedEncryptionTypes".to_vec(), one(AES)),
        (b"unicodePwd".to_vec(), HashSet::from([password])),
    ];
    attributes.extend(more.map(|(name, value)| (name.as_bytes().to_vec(), one(value))));
    let dn = format!("CN={login},CN=Users,{base}");
    ldap.with_timeout(WITHIN).add(&dn, attributes).await?.success().with_context(|| format!("add {dn}"))?;
    Ok(())
}

/// The keys of a service, as the domain's own tool writes them.
async fn exported(controller: &Running, spn: &str, tag: &str) -> Result<tempfile::NamedTempFile> {
    let name = format!("{tag}.keytab");
    let (file, done) = (format!("/out/{name}"), format!("/out/{tag}.done"));
    // Words of the script come as its arguments, so nothing is quoted.
    let script =
        "samba-tool domain exportkeytab \"$1\" --principal=\"$2\" && chmod 644 \"$1\" && touch \"$3\"";
    controller.exec(&["sh", "-c", script, "sh", &file, spn, &done]).await?;
    let until = Instant::now() + WITHIN;
    while !controller.folder.join(format!("{tag}.done")).exists() {
        ensure!(Instant::now() < until, "samba-tool has not written {file} within {WITHIN:?}");
        sleep(Duration::from_millis(50)).await;
    }
    let own = tempfile::NamedTempFile::new()?;
    std::fs::copy(controller.folder.join(&name), own.path()).context("copy the keytab")?;
    Ok(own)
}

/// Signs in and lists the phones.
async fn phones(organisation: &Organisation) -> Result<usize> {
    let mut session = timeout(WITHIN, organisation.open(net()?, Urgency::Background)).await??;
    let (objects, mut taken) = mpsc::channel(4);
    let take = async {
        let mut count = 0;
        while taken.recv().await.is_some() {
            count += 1;
        }
        count
    };
    let cmdlet = Cmdlet::new("Get-MobileDevice").with("ResultSize", "Unlimited");
    let (completed, count) =
        timeout(WITHIN, async { tokio::join!(session.run(&cmdlet, objects), take) }).await?;
    completed?;
    session.close().await;
    Ok(count)
}

#[tokio::test]
async fn tickets_of_a_real_domain_seal_and_are_bound_to_the_channel() -> Result<()> {
    let Some(domain) = Domain::join().await? else { return Ok(()) };
    let mock = domain.mock().await?;
    // As Active Directory names people, and as Kerberos does.
    for user in [format!("{}@acme.example", domain.person), format!("acme.example\\{}", domain.person)] {
        for front in ["powershell_http", "powershell"] {
            let organisation = domain.settings(&mock, front, &user, PASSWORD)?;
            let count = phones(&organisation).await.with_context(|| format!("{user} at {front}"))?;
            ensure!(count == 5, "{count} phones for {user} at {front}");
        }
    }
    let rule = Rule::new(Fault::Custom { word: "kerberos_header".into(), args: json!({}) });
    let guard = mock.faults().guard(rule.on_operation("authenticate"));
    let user = format!("{}@acme.example", domain.person);
    let count = phones(&domain.settings(&mock, "powershell_http", &user, PASSWORD)?).await?;
    ensure!(count == 5 && guard.hits() > 0, "{count} phones with Kerberos by its own name");
    Ok(())
}

#[tokio::test]
async fn a_real_domain_judges_the_password_and_the_service() -> Result<()> {
    let Some(domain) = Domain::join().await? else { return Ok(()) };
    let mock = domain.mock().await?;
    let user = format!("{}@acme.example", domain.person);
    let wrong = domain.settings(&mock, "powershell_http", &user, "not the password")?;
    let error =
        wrong.open(net()?, Urgency::Background).await.err().context("a wrong password is accepted")?;
    ensure!(matches!(error, ExchangeError::Credentials { .. }), "{error:?}");
    let mut elsewhere = domain;
    elsewhere.host = "nobody.acme.example".into();
    let organisation = elsewhere.settings(&mock, "powershell_http", &user, PASSWORD)?;
    let error = organisation.open(net()?, Urgency::Background).await.err().context("no such service")?;
    ensure!(error.to_string().contains("does not know the service HTTP/nobody.acme.example"), "{error}");
    Ok(())
}
