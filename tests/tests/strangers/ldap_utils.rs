//! Debian's ldap-utils in the same use of mock-ldap and of the real servers. What they do with one personality only
//! (DirSync, VLV, sync) is tested in mock-ldap itself.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use causeway_mock_ldap::{Config, MockLdap};
use causeway_tests::containers::{Ds389, OpenLdap, Running, SambaDc};
use causeway_tests::program;
use tokio::process::Command;

/// `ldapsearch` waits for ever after some errors.
const WITHIN: Duration = Duration::from_secs(30);

/// Servers that answer alike.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Family {
    ActiveDirectory,
    OpenLdap,
    Ds389,
}

/// A server, its administrator, and the folder the tools find CA and password in.
struct Peer {
    ldap: String,
    ldaps: String,
    base: String,
    login: String,
    family: Family,
    folder: tempfile::TempDir,
    _alive: Box<dyn std::any::Any>,
}

impl Peer {
    async fn mock(personality: &str) -> Result<Option<Self>> {
        let mut config = Config::of(personality);
        config.common.users = 30;
        let mock = MockLdap::start(config).await?;
        let account = mock.service_account();
        let peer = Self {
            ldap: mock.url("ldap").to_owned(),
            ldaps: mock.url("ldaps").to_owned(),
            base: mock.directory().base_dn().to_owned(),
            login: account.dn.clone(),
            family: match personality {
                "active_directory" => Family::ActiveDirectory,
                "ds389" => Family::Ds389,
                _ => Family::OpenLdap,
            },
            folder: folder(mock.ca().ca_pem(), &account.password)?,
            _alive: Box::new(mock),
        };
        Ok(Some(peer))
    }

    fn container(running: Option<Running>, family: Family) -> Result<Option<Self>> {
        let Some(running) = running else { return Ok(None) };
        Ok(Some(Self {
            ldap: running.url("ldap"),
            ldaps: running.url("ldaps"),
            base: running.base_dn.clone(),
            login: running.login.clone(),
            family,
            folder: folder(&running.ca_pem, &running.password)?,
            _alive: Box::new(running),
        }))
    }

    /// Runs a tool as the administrator over LDAPS; exit code and everything it printed.
    async fn tool(&self, program: &str, arguments: &[&str], input: &str) -> Result<(i32, String)> {
        self.tool_at(program, &self.ldaps, arguments, input).await
    }

    async fn tool_at(
        &self,
        program: &str,
        url: &str,
        arguments: &[&str],
        input: &str,
    ) -> Result<(i32, String)> {
        let mut command = Command::new(program);
        command
            .args(["-H", url, "-x", "-D", &self.login, "-y"])
            .arg(self.password_file())
            .args(arguments)
            .env("LDAPTLS_CACERT", self.folder.path().join("ca.pem"))
            .env("LDAPTLS_REQCERT", "demand");
        let run = program::run(&mut command, input, WITHIN).await?;
        Ok((run.status.code().unwrap_or(-1), run.stdout + &run.stderr))
    }

    fn password_file(&self) -> PathBuf {
        self.folder.path().join("password")
    }
}

fn folder(ca_pem: &str, password: &str) -> Result<tempfile::TempDir> {
    let folder = tempfile::tempdir()?;
    std::fs::write(folder.path().join("ca.pem"), ca_pem)?;
    let path = folder.path().join("password");
    std::fs::write(&path, password)?;
    // The tools say so when others may read it.
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    Ok(folder)
}

macro_rules! with_every_server {
    ($($body:ident),+ $(,)?) => { $(
        mod $body {
            use super::*;

            #[tokio::test]
            async fn mock_active_directory() -> Result<()> { play(Peer::mock("active_directory").await?).await }
            #[tokio::test]
            async fn mock_openldap() -> Result<()> { play(Peer::mock("openldap").await?).await }
            #[tokio::test]
            async fn mock_ds389() -> Result<()> { play(Peer::mock("ds389").await?).await }
            #[tokio::test]
            async fn openldap() -> Result<()> { play(Peer::container(OpenLdap::shared().await?, Family::OpenLdap)?).await }
            #[tokio::test]
            async fn ds389() -> Result<()> { play(Peer::container(Ds389::shared().await?, Family::Ds389)?).await }
            #[tokio::test]
            async fn samba() -> Result<()> { play(Peer::container(SambaDc::shared().await?, Family::ActiveDirectory)?).await }

            async fn play(peer: Option<Peer>) -> Result<()> {
                let Some(peer) = peer else { return Ok(()) };
                if program::find("ldapsearch", "ldap-utils").is_none() { return Ok(()) }
                super::$body(peer).await
            }
        }
    )+ };
}

with_every_server![an_entry_lives_and_dies, who_i_am, refusals_have_their_codes];

/// Adds, finds by its binary id, compares, changes, renames and deletes.
async fn an_entry_lives_and_dies(peer: Peer) -> Result<()> {
    let unit = format!("ou=u{},{}", std::process::id(), peer.base);
    let dn = format!("ou=inner,{unit}");
    let add = format!(
        "dn: {unit}\nobjectClass: organizationalUnit\nou: u{}\n\ndn: {dn}\nobjectClass: organizationalUnit\nou: inner\n\
         description: first\n\n",
        std::process::id()
    );
    ok(peer.tool("ldapadd", &[], &add).await?)?;
    for (url, more) in [(&peer.ldaps, &[][..]), (&peer.ldap, &["-ZZ"][..])] {
        let arguments = [more, &["-LLL", "-b", &unit, "-E", "pr=1/noprompt", "(ou=*)", "1.1"]].concat();
        let found = ok(peer.tool_at("ldapsearch", url, &arguments, "").await?)?;
        ensure!(found.matches("dn:").count() == 2, "{url}: {found}");
    }
    let id = if peer.family == Family::ActiveDirectory { "objectGUID" } else { "nsUniqueId" };
    let id = if peer.base.contains("dc=") && !found_id(&peer, &dn, id).await? { "entryUUID" } else { id };
    let filter = id_filter(&peer, &dn, id).await?;
    let found = ok(peer
        .tool("ldapsearch", &["-LLL", "-o", "ldif-wrap=no", "-b", &peer.base, &filter, "1.1"], "")
        .await?)?;
    ensure!(found.to_lowercase().contains(&format!("dn: {}", dn.to_lowercase())), "{filter}: {found}");

    let (code, text) = peer.tool("ldapcompare", &[&dn, "description:FIRST"], "").await?;
    ensure!(code == 6, "compare ended with {code}: {text}");
    let (code, text) = peer.tool("ldapcompare", &[&dn, "description:second"], "").await?;
    ensure!(code == 5, "compare ended with {code}: {text}");
    let change = format!("dn: {dn}\nchangetype: modify\nreplace: description\ndescription: second\n-\n\n");
    ok(peer.tool("ldapmodify", &[], &change).await?)?;
    ok(peer.tool("ldapmodrdn", &["-r", &dn, "ou=renamed"], "").await?)?;
    let renamed = format!("ou=renamed,{unit}");
    let found =
        ok(peer.tool("ldapsearch", &["-LLL", "-b", &unit, "(description=second)", "ou"], "").await?)?;
    ensure!(found.contains("ou: renamed"), "{found}");
    ok(peer.tool("ldapdelete", &[&renamed, &unit], "").await?)?;
    let (code, text) = peer.tool("ldapsearch", &["-b", &unit, "-s", "base", "1.1"], "").await?;
    ensure!(code == 32, "a deleted entry: {code} {text}");
    Ok(())
}

async fn who_i_am(peer: Peer) -> Result<()> {
    let (code, text) = peer.tool("ldapwhoami", &[], "").await?;
    // Samba has no such operation (RFC 4532); domain controllers of Windows have.
    if code == 0 {
        // 389-ds writes a space behind the colon.
        let said = text.trim().to_lowercase().replace("dn: ", "dn:");
        let known = said == format!("dn:{}", peer.login.to_lowercase()) || said.starts_with("u:acme\\");
        ensure!(known, "{text}");
    } else {
        ensure!(peer.family == Family::ActiveDirectory && text.contains("Protocol error"), "{code} {text}");
    }
    Ok(())
}

/// What is tried, the tool, its arguments, its input, and the exit code by [`Family`].
type Refusal<'a> = (&'a str, &'a str, &'a [&'a str], &'a str, [i32; 3]);

async fn refusals_have_their_codes(peer: Peer) -> Result<()> {
    let nobody = format!("ou=nobody,{}", peer.base);
    let unit = format!("ou=r{},{}", std::process::id(), peer.base);
    ok(peer.tool("ldapadd", &[], &format!("dn: {unit}\nobjectClass: organizationalUnit\n\n")).await?)?;
    let child = format!("dn: ou=child,{nobody}\nobjectClass: organizationalUnit\n\n");
    let odd = format!("dn: ou=odd,{}\nobjectClass: noSuchClassAnywhere\nou: odd\n\n", peer.base);
    let again = format!("dn: {unit}\nobjectClass: organizationalUnit\n\n");
    let unnamed = format!("dn: {unit}\nchangetype: modify\nreplace: ou\nou: other\n\n");
    let below =
        format!("dn: {unit}\nchangetype: modrdn\nnewrdn: ou=x\ndeleteoldrdn: 1\nnewsuperior: {unit}\n\n");
    // What each family of servers says: Active Directory, slapd, 389-ds.
    let cases: [Refusal<'_>; 7] = [
        ("delete of nothing", "ldapdelete", &[&nobody], "", [32, 32, 32]),
        ("a bad name", "ldapsearch", &["-b", "this is no name", "1.1"], "", [34, 34, 34]),
        ("an entry without a parent", "ldapadd", &[], &child, [32, 32, 32]),
        ("an unknown class", "ldapadd", &[], &odd, [16, 21, 65]),
        ("an entry that is there", "ldapadd", &[], &again, [68, 68, 68]),
        ("a name's value replaced", "ldapmodify", &[], &unnamed, [67, 64, 67]),
        ("a rename below itself", "ldapmodify", &[], &below, [53, 53, 53]),
    ];
    for (what, tool, arguments, input, codes) in cases {
        let (code, text) = peer.tool(tool, arguments, input).await?;
        let expected = codes[peer.family as usize];
        ensure!(code == expected, "{what}: {code} instead of {expected}: {text}");
    }
    ok(peer.tool("ldapdelete", &[&unit], "").await?)?;
    std::fs::write(peer.password_file(), "wrong").context("write a wrong password")?;
    // Not the administrator: a shared server would lock it.
    let other = Peer { login: format!("cn=nobody-at-all,{}", peer.base), ..peer };
    let (code, text) = other.tool("ldapsearch", &["-b", "", "-s", "base"], "").await?;
    ensure!(code == 49, "an unknown name: {code} {text}");
    Ok(())
}

async fn found_id(peer: &Peer, dn: &str, id: &str) -> Result<bool> {
    let found = ok(peer.tool("ldapsearch", &["-LLL", "-b", dn, "-s", "base", id], "").await?)?;
    Ok(found.to_lowercase().contains(&format!("{}:", id.to_lowercase())))
}

/// A filter with the entry's id: octet by octet where the id is binary (RFC 4515 §3).
async fn id_filter(peer: &Peer, dn: &str, id: &str) -> Result<String> {
    use base64::Engine;
    let found =
        ok(peer.tool("ldapsearch", &["-LLL", "-o", "ldif-wrap=no", "-b", dn, "-s", "base", id], "").await?)?;
    let prefix = format!("{}:", id.to_lowercase());
    let line = found.lines().find(|line| line.to_lowercase().starts_with(&prefix)).context("no id")?;
    let value = line[prefix.len()..].trim();
    let value = match value.strip_prefix(':') {
        Some(encoded) => base64::engine::general_purpose::STANDARD.decode(encoded.trim())?,
        None => value.as_bytes().to_vec(),
    };
    Ok(format!("({id}={})", value.iter().map(|octet| format!("\\{octet:02x}")).collect::<String>()))
}

fn ok((code, text): (i32, String)) -> Result<String> {
    ensure!(code == 0, "it ended with {code}: {text}");
    Ok(text)
}
