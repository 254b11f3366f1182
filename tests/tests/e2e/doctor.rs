//! The doctor against the real mocks: all is well first, then one thing after the other is broken, and the check that
//! is about that thing has to say so, with a remedy.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use causeway_agent::cli::check::check;
use causeway_agent::modules::Verdict;
use causeway_agent::secrets::{FileModeSealer, SecretStore};
use causeway_agent::storage::redb::RedbStorage;
use causeway_agent::{config, health, identity, secrets};
use causeway_protocol::Secret;
use causeway_tests::company::Company;
use serde_json::{Value, json};

/// One thing that is broken.
struct Case {
    /// Which area is tried.
    area: &'static str,
    /// How it is broken.
    breaks: fn(&Scene) -> Result<()>,
    /// The check that has to notice.
    check: &'static str,
    verdict: Verdict,
    /// Part of its remedy.
    remedy: &'static str,
}

/// A data directory of an enrolled agent, fresh for each case.
struct Scene<'a> {
    company: &'a Company,
    dir: PathBuf,
    other: &'a Path,
}

impl Scene<'_> {
    fn edit(&self, from: &str, to: &str) -> Result<()> {
        let path = self.dir.join(config::FILE_NAME);
        let text = fs::read_to_string(&path)?;
        ensure!(from.is_empty() || text.contains(from), "{from:?} is not in\n{text}");
        let text = if from.is_empty() { format!("{text}\n{to}\n") } else { text.replacen(from, to, 1) };
        Ok(fs::write(path, text)?)
    }

    fn secret(&self, name: &str, text: &str) -> Result<()> {
        let kept = SecretStore::load(&self.dir, &FileModeSealer)?;
        Ok(kept.with(name, Secret::new(text)).save(&self.dir, &FileModeSealer)?)
    }

    fn file(&self, name: &str, bytes: &[u8]) -> Result<()> {
        fs::write(self.dir.join(name), bytes).with_context(|| name.to_owned())
    }

    fn identity(&self, change: impl Fn(&mut Value) -> Result<()>) -> Result<()> {
        let path = self.dir.join(identity::FILE_NAME);
        let mut value: Value = serde_json::from_slice(&fs::read(&path)?)?;
        change(&mut value)?;
        Ok(fs::write(path, serde_json::to_vec(&value)?)?)
    }

    fn status(&self, status: health::Status) -> Result<()> {
        self.file(health::FILE_NAME, &serde_json::to_vec(&status)?)
    }

    fn desired(&self, settings: &Value) -> Result<()> {
        let of = |kind: &str| json!({ "module": kind, "revision": 1, "enabled": true, "settings": settings });
        let both = json!({ "user_auth": of("user_auth"), "user_visibility": of("user_visibility") });
        self.file("desired.json", &serde_json::to_vec(&both)?)
    }
}

fn fresh(version: &str, change: impl Fn(&mut health::Status)) -> health::Status {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let mut status = health::Status {
        version: version.to_owned(),
        written_ms: i64::try_from(now.as_millis()).unwrap_or_default(),
        online: true,
        ..health::Status::default()
    };
    change(&mut status);
    status
}

const OURS: &str = env!("CARGO_PKG_VERSION");

#[rustfmt::skip]
const CASES: &[Case] = &[
    Case { area: "installation", check: "installation.settings", verdict: Verdict::Fail, remedy: "agent.toml",
        breaks: |scene| scene.edit("", "[limit]") },
    Case { area: "cloud", check: "installation.settings", verdict: Verdict::Fail, remedy: "agent.toml",
        breaks: |scene| scene.edit("", "[limits]\nrequests_at_once = 0") },
    Case { area: "installation", check: "installation.secrets", verdict: Verdict::Fail, remedy: "account",
        breaks: |scene| scene.file(secrets::FILE_NAME, b"\0garbage") },
    Case { area: "installation", check: "installation.unused_secrets", verdict: Verdict::Warn, remedy: "--forget-secret",
        breaks: |scene| scene.secret("directory.gone", "x") },
    Case { area: "installation", check: "installation.state_file", verdict: Verdict::Warn, remedy: "disk",
        breaks: |scene| scene.file("state.redb", &[7; 4096]) },
    Case { area: "installation", check: "installation.machine", verdict: Verdict::Fail, remedy: "enrol this machine",
        breaks: |scene| {
            let opened = RedbStorage::open(&scene.dir, "another machine")?;
            drop(opened.storage);
            opened.thread.join().ok().context("the storage thread ends")
        } },
    Case { area: "installation", check: "installation.leftovers", verdict: Verdict::Warn, remedy: "disk",
        breaks: |scene| scene.file("state.redb.corrupt-1", b"x") },
    Case { area: "installation", check: "installation.log_level", verdict: Verdict::Warn, remedy: "level=info",
        breaks: |scene| scene.edit("", "[log]\nlevel = \"debug\"") },
    Case { area: "installation", check: "installation.log_file", verdict: Verdict::Fail, remedy: "log.file",
        breaks: |scene| scene.edit("", "[log]\nfile = \"/no/such/folder/agent.log\"") },
    Case { area: "installation", check: "installation.one_agent", verdict: Verdict::Warn, remedy: "start the agent",
        breaks: |scene| scene.status(health::Status { written_ms: 1, ..health::Status::default() }) },
    Case { area: "installation", check: "installation.version", verdict: Verdict::Warn, remedy: "restart the agent",
        breaks: |scene| scene.status(fresh("0.0.0", |_| {})) },
    Case { area: "agent", check: "agent.online", verdict: Verdict::Fail, remedy: "checks of network",
        breaks: |scene| scene.status(fresh(OURS, |status| status.online = false)) },
    Case { area: "agent", check: "agent.outbox", verdict: Verdict::Warn, remedy: "agent.online",
        breaks: |scene| scene.status(fresh(OURS, |status| status.outbox = 50_000)) },
    Case { area: "agent", check: "agent.storage", verdict: Verdict::Fail, remedy: "make room",
        breaks: |scene| scene.status(fresh(OURS, |status| status.storage_trouble = Some("full".to_owned()))) },
    Case { area: "identity", check: "identity.enrolled", verdict: Verdict::Fail, remedy: "enrol this agent",
        breaks: |scene| Ok(fs::remove_file(scene.dir.join(identity::FILE_NAME))?) },
    Case { area: "identity", check: "identity.enrolled", verdict: Verdict::Fail, remedy: "enrol this agent again",
        breaks: |scene| scene.file(identity::FILE_NAME, b"{}") },
    Case { area: "identity", check: "identity.key", verdict: Verdict::Fail, remedy: "enrol this agent again",
        breaks: |scene| scene.identity(|own| {
            let theirs: Value = serde_json::from_slice(&fs::read(scene.other.join(identity::FILE_NAME))?)?;
            own["key_pem"] = theirs["key_pem"].clone();
            Ok(())
        }) },
    Case { area: "cloud", check: "cloud.trust", verdict: Verdict::Fail, remedy: "cloud.ca_file",
        breaks: |scene| scene.file("cloud-ca.pem", b"no certificate") },
    Case { area: "cloud", check: "cloud.tls", verdict: Verdict::Fail, remedy: "TLS inspection",
        breaks: |scene| scene.file("cloud-ca.pem", scene.company.ldap.ca().ca_pem().as_bytes()) },
    Case { area: "cloud", check: "cloud.url", verdict: Verdict::Fail, remedy: "cloud.url",
        breaks: |scene| scene.edit(&format!("url = {:?}", scene.company.cloud.url("api")), "url = \"\"") },
    Case { area: "cloud", check: "cloud.tcp", verdict: Verdict::Fail, remedy: "firewall",
        breaks: |scene| scene.edit(scene.company.cloud.url("api"), "https://127.0.0.1:1") },
    Case { area: "directory", check: "directory.settings", verdict: Verdict::Fail, remedy: "write servers",
        breaks: |scene| scene.edit("", "[directory.second]\nservres = [\"ldaps://127.0.0.1:1\"]") },
    Case { area: "directory", check: "directory.password", verdict: Verdict::Fail, remedy: "--secret-from-stdin",
        breaks: |scene| Ok(fs::remove_file(scene.dir.join(secrets::FILE_NAME))?) },
    Case { area: "directory", check: "directory.bind", verdict: Verdict::Fail, remedy: "neither locked nor expired",
        breaks: |scene| scene.secret("directory.default", "not the password") },
    Case { area: "directory", check: "directory.tcp", verdict: Verdict::Fail, remedy: "server runs",
        breaks: |scene| scene.edit(scene.company.ldap.url("ldaps"), "ldaps://127.0.0.1:1") },
    Case { area: "directory", check: "directory.tls", verdict: Verdict::Fail, remedy: "ca_file",
        breaks: |scene| Ok(fs::copy(scene.company.cloud.ca_pem(), scene.dir.join("directory-ca.pem")).map(drop)?) },
    Case { area: "directory", check: "directory.tls", verdict: Verdict::Fail, remedy: "speaks TLS",
        breaks: |scene| {
            let plain = scene.company.ldap.url("ldap").replace("ldap://", "ldaps://");
            scene.edit(scene.company.ldap.url("ldaps"), &plain)
        } },
    Case { area: "directory", check: "directory.protection", verdict: Verdict::Warn, remedy: "ldaps://",
        breaks: |scene| {
            let more = format!("{}\"]\nstart_tls = false\nallow_plain = true\n#", scene.company.ldap.url("ldap"));
            scene.edit(scene.company.ldap.url("ldaps"), &more)
        } },
    Case { area: "directory", check: "directory.personality", verdict: Verdict::Warn, remedy: "personality",
        breaks: |scene| scene.edit("[directory.default]", "[directory.default]\npersonality = \"openldap\"") },
    Case { area: "directory", check: "directory.base", verdict: Verdict::Fail, remedy: "base_dn",
        breaks: |scene| scene.edit("[directory.default]", "[directory.default]\nbase_dn = \"DC=none,DC=example\"") },
    Case { area: "modules", check: "modules.configured", verdict: Verdict::Warn, remedy: "portal",
        breaks: |scene| scene.file("desired.json", b"{}") },
    Case { area: "modules", check: "modules.permitted", verdict: Verdict::Warn, remedy: "modules_forbidden",
        breaks: |scene| scene.edit("", "[limits]\nmodules_forbidden = [\"user_auth\"]") },
    Case { area: "modules", check: "modules.settings", verdict: Verdict::Fail, remedy: "remove the key",
        breaks: |scene| scene.desired(&json!({ "no_such_key": 1 })) },
    Case { area: "modules", check: "user_visibility.bases", verdict: Verdict::Fail, remedy: "bases",
        breaks: |scene| scene.edit("", "[modules.user_visibility]\nbases = [\"OU=Gone,DC=acme,DC=example\"]") },
];

#[tokio::test(flavor = "multi_thread")]
async fn every_thing_that_is_broken_is_found_by_its_check_with_a_remedy() -> Result<()> {
    let company = Company::start(20).await?;
    let (whole, other) = (company.enrol("whole").await?, company.enrol("other").await?);
    let scene = Scene { company: &company, dir: whole.clone(), other: &other };
    relative_ca(&scene)?;
    scene.desired(&json!({}))?;
    let report = check(&whole, None).await?;
    ensure!(!report.failed(), "something is wrong with a healthy agent:\n{}", report.to_text());
    let tried = report.results().count();
    ensure!(tried >= 40, "only {tried} results");

    let mut wrong = Vec::new();
    for (number, case) in CASES.iter().enumerate() {
        let dir = company.folder.path().join(format!("case-{number}"));
        copy(&whole, &dir)?;
        let scene = Scene { company: &company, dir, other: &other };
        (case.breaks)(&scene).with_context(|| format!("break {} ({number})", case.check))?;
        let report = check(&scene.dir, Some(case.area)).await?;
        let found = report.results().any(|result| {
            result.name() == case.check
                && result.verdict() == case.verdict
                && result.remedy().contains(case.remedy)
        });
        if !found {
            wrong.push(format!("{} ({number}) is not noticed:\n{}", case.check, report.to_text()));
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_only_the_server_knows_is_found_too() -> Result<()> {
    let company = Company::start(20).await?;
    let dir = company.enrol("agent").await?;
    let scene = Scene { company: &company, dir: dir.clone(), other: &dir };
    scene.desired(&json!({}))?;
    let notices = async |area: &str, name: &str, verdict: Verdict| -> Result<()> {
        let report = check(&dir, Some(area)).await?;
        let seen = report.results().any(|result| result.name() == name && result.verdict() == verdict);
        ensure!(seen, "{name} is not {verdict:?}:\n{}", report.to_text());
        Ok(())
    };
    company.ldap.directory().set_service_may_replicate(false);
    notices("modules", "user_visibility.changes", Verdict::Warn).await?;
    company.ldap.clock().advance(std::time::Duration::from_secs(600));
    notices("directory", "directory.clock", Verdict::Warn).await?;
    // One wrong password is sent once, whatever number of modules shares the directory.
    scene.secret("directory.default", "not the password")?;
    let before = company.ldap.journal().after(0).len();
    let report = check(&dir, None).await?;
    ensure!(report.failed(), "{}", report.to_text());
    let binds =
        company.ldap.journal().after(0)[before..].iter().filter(|entry| entry.operation == "bind").count();
    ensure!(binds == 1, "{binds} binds with a wrong password");

    let agents = company.tenant.all("agents").await?;
    let agent = agents[0]["id"].as_str().context("the agent has an id")?;
    company.tenant.revoke(agent).await?;
    notices("cloud", "cloud.login", Verdict::Fail).await
}

/// The directory's authority is named relative to the data directory, so that a copy has its own.
fn relative_ca(scene: &Scene) -> Result<()> {
    let ca = scene.dir.join("directory-ca.pem");
    scene.edit(ca.to_str().context("UTF-8")?, "directory-ca.pem")
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        fs::copy(entry.path(), to.join(entry.file_name()))?;
    }
    Ok(())
}
