//! The agent's files in trouble: a full disk, one data directory for two, a key used twice.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use causeway_agent::{Agent, AgentConfig};
use causeway_tests::company::Company;
use causeway_tests::skips;
use ldap3::LdapConnAsync;
use serde_json::{Value, json};

use crate::support::PATIENCE;

/// Of the small disk: enough for a company of forty, not for the newcomers.
const DISK_SIZE_MIB: usize = 8;

/// People who join while the disk is full; their state does not fit into what the file has.
const NEWCOMERS: usize = 600;

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_degrades_the_agent_and_loses_nothing() -> Result<()> {
    let mut company = Company::start(40).await?;
    let data_dir = company.folder.path().join("small");
    let Some(disk) = SmallDisk::mount(&data_dir)? else { return Ok(()) };
    let key = company.tenant.enrollment_key().await?;
    company.enrol_with(&key, &data_dir).await?;
    company.start_agent("small", &data_dir).await?;
    let done = company.sync().await?;
    ensure!(done["status"] == "success", "{done}");

    let filler = disk.fill()?;
    add_people(&company, NEWCOMERS).await?;
    let order = company.tenant.order("user_visibility", "sync_now", &json!({}), &json!({})).await?;
    // Small writes may still fit; the run that needs more room says why it failed, and what to do.
    until(&company, "alerts", told).await.context("nobody is told")?;
    let hero = company.ldap.world().people[0].clone();
    let reply = company.tenant.authenticate(&hero.login, &hero.password()).await?;
    ensure!(reply["outcome"] == "ok", "sign-ins do not need the disk: {reply}");
    ensure!(company.agent("small").wait_online(Duration::ZERO).await, "the agent has left");

    std::fs::remove_file(filler).context("make room again")?;
    let action = company.tenant.finished(&order, Duration::from_secs(60)).await?;
    ensure!(action["status"] != "pending", "{action}");
    let done = company.sync().await?;
    ensure!(done["status"] == "success", "after there is room again: {done}");
    let seen = company.tenant.all("users").await?.len();
    ensure!(seen >= 40 + NEWCOMERS, "{seen} users in the cloud");
    until(&company, "alerts", |all| !told(all)).await.context("the alert stays open")?;
    company.stop_agent("small").await;
    drop(disk);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_agent_on_one_data_directory_is_refused_in_words() -> Result<()> {
    let mut company = Company::start(10).await?;
    company.add_agent("one").await?;
    let data_dir = company.folder.path().join("one");
    let second = match Agent::start(AgentConfig::load(&data_dir)?).await {
        Ok(_) => anyhow::bail!("two agents work on {}", data_dir.display()),
        Err(error) => format!("{:#}", anyhow::Error::from(error)),
    };
    ensure!(second.contains("in use") || second.contains("another"), "{second}");
    let hero = company.ldap.world().people[0].clone();
    let reply = company.tenant.authenticate(&hero.login, &hero.password()).await?;
    ensure!(reply["outcome"] == "ok", "the first one does not notice: {reply}");
    company.stop_agent("one").await;
    // Its end frees the directory.
    let again = Agent::start(AgentConfig::load(&data_dir)?).await?;
    ensure!(again.wait_online(PATIENCE).await, "{:?}", again.status());
    again.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_enrolment_key_enrols_one_agent() -> Result<()> {
    let company = Company::start(10).await?;
    let key = company.tenant.enrollment_key().await?;
    company.enrol_with(&key, &company.folder.path().join("first")).await?;
    let second = company.folder.path().join("second");
    let Err(refused) = company.enrol_with(&key, &second).await else {
        anyhow::bail!("a key enrolled two agents")
    };
    let text = format!("{refused:#}");
    ensure!(text.contains("enrolment key") && !text.contains(&key), "{text}");
    ensure!(company.tenant.all("agents").await?.len() == 1, "a refused agent is listed");
    ensure!(!second.join(causeway_agent::identity::FILE_NAME).exists(), "a refused agent keeps an identity");
    Ok(())
}

/// A file system in memory, so small that it can be filled at once.
struct SmallDisk {
    at: PathBuf,
}

impl SmallDisk {
    /// `None` after a counted skip: mounting needs root.
    fn mount(at: &Path) -> Result<Option<Self>> {
        std::fs::create_dir_all(at)?;
        let options = format!("size={DISK_SIZE_MIB}m,mode=0700");
        let mounted = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", &options, "tmpfs"])
            .arg(at)
            .output()
            .context("run mount")?;
        if !mounted.status.success() {
            let words = String::from_utf8_lossy(&mounted.stderr);
            skips::skip("a small disk", &format!("mount -t tmpfs: {}; run as root", words.trim()));
            return Ok(None);
        }
        Ok(Some(Self { at: at.to_owned() }))
    }

    /// Writes until nothing fits any more; gives the file that takes all the room.
    fn fill(&self) -> Result<PathBuf> {
        let path = self.at.join("filler");
        let mut file = std::fs::File::create(&path)?;
        for size in [64 * 1024, 512, 1] {
            let block = vec![0x5a; size];
            // Ends with the disk, which has a size.
            while file.write_all(&block).is_ok() {}
        }
        Ok(path)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: the agent's last handle may be a moment behind. Nothing is left to do when it fails.
        let _ = std::process::Command::new("umount").arg("-l").arg(&self.at).status();
    }
}

async fn add_people(company: &Company, count: usize) -> Result<()> {
    let (connection, mut ldap) = LdapConnAsync::new(company.ldap.url("ldap")).await?;
    ldap3::drive!(connection);
    let account = company.ldap.service_account();
    ldap.simple_bind(&account.dn, &account.password).await?.success()?;
    let base = company.ldap.directory().base_dn().to_owned();
    for number in 0..count {
        let login = format!("late{number}");
        let attributes = [("objectClass", "user"), ("sAMAccountName", &*login)];
        let attributes = attributes.map(|(name, value)| (name, std::collections::HashSet::from([value])));
        ldap.add(&format!("CN={login},{base}"), attributes.to_vec()).await?.success()?;
    }
    Ok(ldap.unbind().await?)
}

/// Whether an open alert says that the disk is full and what to do about it.
fn told(alerts: &Value) -> bool {
    let mut all = alerts["items"].as_array().into_iter().flatten();
    all.any(|alert| {
        let text = |key: &str| alert[key].as_str().unwrap_or_default();
        alert["closed_ms"].is_null()
            && text("detail").contains("No space left")
            && text("remedy").contains("disk")
    })
}

/// Waits for a condition over a list of the API.
async fn until(company: &Company, list: &str, good: impl Fn(&Value) -> bool) -> Result<Value> {
    let started = Instant::now();
    loop {
        let value = company.tenant.get(list).await?;
        if good(&value) {
            return Ok(value);
        }
        ensure!(started.elapsed() < PATIENCE, "after {PATIENCE:?} the {list} are {value}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
