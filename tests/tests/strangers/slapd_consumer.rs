//! OpenLDAP's `slapd` as a consumer of mock-ldap's content synchronisation (RFC 4533): it loads everything, then stays
//! connected and follows every kind of change.

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use causeway_mock_ldap::{Config, MockLdap};
use causeway_tests::program;
use tokio::process::{Child, Command};

/// From a change at the provider to the consumer having it; on a loaded machine.
const WITHIN: Duration = Duration::from_secs(30);

const TOOL_WITHIN: Duration = Duration::from_secs(20);

#[tokio::test]
async fn slapd_follows_every_change_of_mock_ldap() -> Result<()> {
    let Some(slapd) = program::find("slapd", "slapd") else { return Ok(()) };
    let Some(_) = program::find("ldapsearch", "ldap-utils") else { return Ok(()) };
    let mut config = Config::of("openldap");
    config.common.users = 40;
    let mock = MockLdap::start(config).await?;
    let provider = Provider::new(&mock)?;
    let consumer = Consumer::start(&slapd, &mock).await?;
    let all = provider.names("(objectClass=*)").await?;
    ensure!(all.len() > 40, "the provider has {} entries", all.len());
    consumer.until("everything there is", "(objectClass=*)", &all).await?;

    let base = mock.directory().base_dn().to_owned();
    let dn = format!("ou=Probe,{base}");
    provider.change("ldapadd", &format!("dn: {dn}\nobjectClass: organizationalUnit\nou: Probe\n\n")).await?;
    consumer.until("an added entry", "(ou=Probe)", std::slice::from_ref(&dn)).await?;
    let change = format!("dn: {dn}\nchangetype: modify\nadd: description\ndescription: followed\n-\n\n");
    provider.change("ldapmodify", &change).await?;
    consumer.until("a changed entry", "(description=followed)", std::slice::from_ref(&dn)).await?;
    let rename = format!("dn: {dn}\nchangetype: modrdn\nnewrdn: ou=Renamed\ndeleteoldrdn: 1\n\n");
    provider.change("ldapmodify", &rename).await?;
    let renamed = format!("ou=Renamed,{base}");
    consumer.until("a renamed entry", "(description=followed)", std::slice::from_ref(&renamed)).await?;
    provider.change("ldapmodify", &format!("dn: {renamed}\nchangetype: delete\n\n")).await?;
    consumer.until("no deleted entry", "(description=followed)", &[]).await?;
    consumer.until("everything else", "(objectClass=*)", &all).await
}

/// mock-ldap, as Debian's tools see it.
struct Provider {
    url: String,
    base: String,
    login: String,
    password: tempfile::NamedTempFile,
}

impl Provider {
    fn new(mock: &MockLdap) -> Result<Self> {
        let account = mock.service_account();
        let password = tempfile::NamedTempFile::new()?;
        std::fs::write(password.path(), &account.password)?;
        let base = mock.directory().base_dn().to_owned();
        Ok(Self { url: mock.url("ldap").to_owned(), base, login: account.dn, password })
    }

    async fn change(&self, tool: &str, ldif: &str) -> Result<()> {
        let mut command = Command::new(tool);
        command.args(["-x", "-H", &self.url, "-D", &self.login, "-y"]).arg(self.password.path());
        let run = program::run(&mut command, ldif, TOOL_WITHIN).await?;
        ensure!(run.status.success(), "{tool}: {run:?}");
        Ok(())
    }

    async fn names(&self, filter: &str) -> Result<Vec<String>> {
        let mut command = Command::new("ldapsearch");
        command.args(["-x", "-LLL", "-o", "ldif-wrap=no", "-H", &self.url, "-D", &self.login, "-y"]);
        command.arg(self.password.path()).args(["-E", "pr=100/noprompt", "-b", &self.base, filter, "1.1"]);
        let run = program::run(&mut command, "", TOOL_WITHIN).await?;
        ensure!(run.status.success(), "{run:?}");
        Ok(names(&run.stdout))
    }
}

/// A slapd of the test's own, on a socket in its folder: no port, nothing another test could meet.
struct Consumer {
    slapd: Child,
    url: String,
    base: String,
    folder: tempfile::TempDir,
}

impl Consumer {
    async fn start(slapd: &Path, mock: &MockLdap) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let base = mock.directory().base_dn().to_owned();
        let settings = folder.path().join("slapd.conf");
        std::fs::write(&settings, settings_text(folder.path(), mock)?)?;
        std::fs::create_dir(folder.path().join("data"))?;
        let socket = folder.path().join("ldapi");
        let socket = socket.to_str().context("the folder's path is UTF-8")?.replace('/', "%2F");
        let url = format!("ldapi://{socket}");
        let log = std::fs::File::create(folder.path().join("log"))?;
        let child = Command::new(slapd)
            .arg("-f")
            .arg(&settings)
            .args(["-h", &url, "-d", "sync,stats"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .context("start slapd")?;
        Ok(Self { slapd: child, url, base, folder })
    }

    /// Waits until a search finds exactly these names.
    async fn until(&self, what: &str, filter: &str, wanted: &[String]) -> Result<()> {
        let started = Instant::now();
        let mut wanted: Vec<String> = wanted.iter().map(|name| name.to_lowercase()).collect();
        wanted.sort();
        loop {
            let mut command = Command::new("ldapsearch");
            command.args([
                "-x",
                "-LLL",
                "-o",
                "ldif-wrap=no",
                "-H",
                &self.url,
                "-b",
                &self.base,
                filter,
                "1.1",
            ]);
            let run = program::run(&mut command, "", TOOL_WITHIN).await?;
            let found = names(&run.stdout);
            if found == wanted {
                return Ok(());
            }
            if started.elapsed() > WITHIN {
                let log = std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
                let tail: Vec<&str> = log.lines().rev().take(25).collect();
                let missing: Vec<&String> =
                    wanted.iter().filter(|name| !found.contains(name)).take(3).collect();
                bail!(
                    "{what}: slapd (process {:?}) has {} of {} names, not {missing:?}; {}\n{}",
                    self.slapd.id(),
                    found.len(),
                    wanted.len(),
                    run.stderr,
                    tail.into_iter().rev().collect::<Vec<_>>().join("\n")
                );
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

/// Names of an LDIF listing, in lower case and order, without escapes: servers choose different ones for the same name
/// (RFC 4514 §2.4). A name that is not ASCII comes in Base64.
fn names(ldif: &str) -> Vec<String> {
    use base64::Engine;
    let decode = |text: &str| {
        let bytes = base64::engine::general_purpose::STANDARD.decode(text.trim()).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    };
    let name = |line: &str| {
        let rest = line.strip_prefix("dn:")?;
        Some(plain(&rest.strip_prefix(':').map_or_else(|| rest.trim().to_owned(), decode)).to_lowercase())
    };
    let mut names: Vec<String> = ldif.lines().filter_map(name).collect();
    names.sort();
    names
}

fn plain(name: &str) -> String {
    let mut octets = Vec::new();
    let mut rest = name.as_bytes();
    while let [first, after @ ..] = rest {
        let hex = |digits: &[u8]| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok();
        rest = match (first, after) {
            (b'\\', [a, b, after @ ..]) if hex(&[*a, *b]).is_some() => {
                octets.extend(hex(&[*a, *b]));
                after
            }
            (b'\\', [escaped, after @ ..]) => {
                octets.push(*escaped);
                after
            }
            _ => {
                octets.push(*first);
                after
            }
        };
    }
    String::from_utf8_lossy(&octets).into_owned()
}

fn settings_text(folder: &Path, mock: &MockLdap) -> Result<String> {
    let folder = folder.to_str().context("the folder's path is UTF-8")?;
    let base = mock.directory().base_dn().to_owned();
    let account = mock.service_account();
    let ca = mock.ca().pem_path().display();
    Ok(format!(
        r#"include /etc/ldap/schema/core.schema
include /etc/ldap/schema/cosine.schema
include /etc/ldap/schema/nis.schema
include /etc/ldap/schema/inetorgperson.schema
modulepath /usr/lib/ldap
moduleload back_mdb
moduleload memberof
moduleload ppolicy
pidfile {folder}/pid
sizelimit unlimited
database mdb
suffix "{base}"
rootdn "cn=consumer,{base}"
directory {folder}/data
access to * by * read
syncrepl rid=1
  provider={}
  type=refreshAndPersist
  retry="1 +"
  searchbase="{base}"
  bindmethod=simple
  binddn="{}"
  credentials="{}"
  starttls=critical
  tls_cacert={ca}
  schemachecking=off
"#,
        mock.url("ldap"),
        account.dn,
        account.password
    ))
}
