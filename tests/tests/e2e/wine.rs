//! The agent for Windows under Wine, against the mocks: what an administrator does, from enrolment to removal.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use causeway_tests::company::Company;
use causeway_tests::wine::{Prefix, Ran, Running};
use serde_json::{Value, json};

const DATA_DIR: &str = r"C:\ProgramData\Causeway";

const PEOPLE: usize = 40;

/// What the doctor tries at the least, with one directory and no agent running.
const CHECKS_MIN: usize = 30;

/// Longest wait for the agent to come online, and for a first sync, under Wine beside a compiler.
const WITHIN: Duration = Duration::from_secs(60);

const LOOK_EVERY: Duration = Duration::from_millis(100);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_agent_for_windows_does_the_whole_job() -> Result<()> {
    let Some(mut windows) = Prefix::start().await? else { return Ok(()) };
    let company = Company::start(PEOPLE).await?;
    enrol(&mut windows, &company).await?;
    configure(&mut windows, &company).await?;
    sealed_by_dpapi(&windows, &company)?;
    in_the_foreground(&mut windows, &company).await?;
    as_a_service(&mut windows, &company).await?;
    let home: Vec<_> = std::fs::read_dir(windows.home())?.collect();
    ensure!(home.is_empty(), "left in the home folder: {home:?}");
    Ok(())
}

async fn enrol(windows: &mut Prefix, company: &Company) -> Result<()> {
    let key = company.tenant.enrollment_key().await?;
    let ca = Prefix::windows_path(company.cloud.ca_pem());
    let words =
        ["enroll", "--cloud", company.cloud.url("api"), "--key", "-", "--ca", &ca, "--data-dir", DATA_DIR];
    let ran = windows.agent(&words, &key).await?.expect_success();
    let told: Value = serde_json::from_str(ran.stdout.trim()).context(ran.stderr)?;
    ensure!(told["enrolled"] == true, "{told}");
    // The key works once.
    let again = windows.agent(&words, &key).await?;
    ensure!(again.code != Some(0) && again.stderr.contains("identity already"), "{again:?}");
    Ok(())
}

async fn configure(windows: &mut Prefix, company: &Company) -> Result<()> {
    let account = company.ldap.service_account();
    let ca_file = windows.drive_c().join("directory-ca.pem");
    std::fs::write(&ca_file, company.ldap.ca().ca_pem())?;
    let servers = format!("servers=[\"{}\"]", company.ldap.url("ldaps"));
    let bind_dn = format!("bind_dn={}", account.dn);
    let words = [
        "configure",
        "directory",
        "--set",
        &servers,
        "--set",
        &bind_dn,
        "--set",
        r"ca_file='C:\directory-ca.pem'",
        "--secret-from-stdin",
        "password",
        "--data-dir",
        DATA_DIR,
    ];
    windows.agent(&words, &account.password).await?.expect_success();
    let checked = windows.agent(&["check", "--json", "--data-dir", DATA_DIR], "").await?;
    healthy(&checked)
}

/// The doctor finds nothing wrong but what Wine cannot do: files in a folder inherit no rights from it.
fn healthy(checked: &Ran) -> Result<()> {
    let told: Value = serde_json::from_str(&checked.stdout).with_context(|| format!("{checked:?}"))?;
    let checks = told["checks"].as_array().context("the doctor lists its checks")?;
    let with = |verdict: &str| checks.iter().filter(|check| check["verdict"] == verdict).collect::<Vec<_>>();
    let failed: Vec<_> =
        with("fail").into_iter().filter(|check| check["name"] != "installation.permissions").collect();
    ensure!(failed.is_empty(), "{failed:#?}");
    ensure!(with("ok").len() >= CHECKS_MIN, "only {} checks are fine: {told:#}", with("ok").len());
    Ok(())
}

/// What is on the disk is sealed: neither the key nor the password can be read there.
fn sealed_by_dpapi(windows: &Prefix, company: &Company) -> Result<()> {
    let folder = data_dir(windows);
    for name in ["identity.sealed", "secrets.sealed"] {
        let bytes = std::fs::read(folder.join(name)).with_context(|| format!("read {name}"))?;
        ensure!(bytes.starts_with(b"causeway sealed, dpapi"), "{name} is not sealed by DPAPI");
        for secret in ["PRIVATE KEY", &company.ldap.service_account().password] {
            let found = bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
            ensure!(!found, "{name} shows a secret");
        }
    }
    Ok(())
}

async fn in_the_foreground(windows: &mut Prefix, company: &Company) -> Result<()> {
    let mut agent = windows.start_agent(&["run", "--data-dir", DATA_DIR])?;
    let ready = ready_line(&mut agent).await?;
    ensure!(ready["ready"] == true && ready["cloud"] == company.cloud.url("api"), "{ready}");
    works(company).await?;
    let ended = agent.interrupt().await?;
    ensure!(ended.stderr.contains("Agent stops"), "it did not end in order: {ended:?}");
    Ok(())
}

async fn as_a_service(windows: &mut Prefix, company: &Company) -> Result<()> {
    let at = ["--data-dir", DATA_DIR];
    windows.agent(&["service", "install", at[0], at[1]], "").await?.expect_success();
    as_the_services_account(windows, company).await?;
    windows.agent(&["service", "start"], "").await?.expect_success();
    online(company, true).await.with_context(|| log(windows))?;
    works(company).await.with_context(|| log(windows))?;
    windows.agent(&["service", "stop"], "").await?.expect_success();
    online(company, false).await?;
    let told = log(windows);
    ensure!(told.contains("Agent started") && told.contains("Agent stops"), "the service's log: {told}");
    ensure!(!told.contains(&company.ldap.service_account().password), "the service's log shows a password");
    windows.agent(&["service", "remove"], "").await?.expect_success();
    let gone = windows.agent(&["service", "start"], "").await?;
    ensure!(gone.code != Some(0) && gone.stderr.contains("is it installed"), "{gone:?}");
    Ok(())
}

/// `service exec` passes on arguments, standard input, output and the exit code.
async fn as_the_services_account(windows: &mut Prefix, company: &Company) -> Result<()> {
    let password = company.ldap.service_account().password;
    let words = ["service", "exec", "configure", "directory", "--secret-from-stdin", "password"];
    let words: Vec<&str> = words.into_iter().chain(["--data-dir", DATA_DIR]).collect();
    windows.agent(&words, &password).await?.expect_success();
    let words = ["service", "exec", "check", "--json", "--data-dir", DATA_DIR];
    healthy(&windows.agent(&words, "").await?)?;
    let failed = windows.agent(&["service", "exec", "check", "no_such_module"], "").await?;
    ensure!(failed.code != Some(0) && failed.stderr.contains("no_such_module"), "{failed:?}");
    Ok(())
}

/// A password is checked and the directory is copied, both through the agent.
async fn works(company: &Company) -> Result<()> {
    online(company, true).await?;
    let done = company.sync().await?;
    ensure!(done["status"] == "success", "{done:#}");
    let users = company.tenant.all("users").await?.len();
    ensure!(users >= PEOPLE, "{users} users arrived");
    let person = company.ldap.world().people[0].clone();
    let verdict = company.tenant.authenticate(&person.login, &person.password()).await?;
    ensure!(verdict["outcome"] == "ok", "{verdict}");
    let refused = company.tenant.authenticate(&person.login, "wrong").await?;
    ensure!(refused["outcome"] == "bad_credentials", "{refused}");
    Ok(())
}

/// Waits until the cloud sees the agent with both modules at work, or sees it gone.
async fn online(company: &Company, wanted: bool) -> Result<()> {
    let started = Instant::now();
    loop {
        let agents = company.tenant.all("agents").await?;
        let running = |module: &Value| module["state"] == "ok" || module["state"] == "idle";
        let up = agents.iter().any(|agent| {
            let modules = agent["modules"].as_array().map(Vec::as_slice).unwrap_or_default();
            agent["online"] == true && modules.len() == 2 && modules.iter().all(running)
        });
        if up == wanted {
            return Ok(());
        }
        ensure!(started.elapsed() < WITHIN, "after {WITHIN:?} the cloud sees {:#}", json!(agents));
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

async fn ready_line(agent: &mut Running) -> Result<Value> {
    let started = Instant::now();
    loop {
        if let Some((line, _)) = agent.stdout().split_once('\n') {
            return serde_json::from_str(line).with_context(|| format!("the ready line {line:?}"));
        }
        ensure!(agent.is_running(), "it ended:\n{}", agent.stderr());
        ensure!(started.elapsed() < WITHIN, "not online after {WITHIN:?}:\n{}", agent.stderr());
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

fn data_dir(windows: &Prefix) -> std::path::PathBuf {
    windows.drive_c().join("ProgramData/Causeway")
}

fn log(windows: &Prefix) -> String {
    let path: &Path = &data_dir(windows).join("agent.log");
    std::fs::read_to_string(path).unwrap_or_else(|error| format!("no agent.log: {error}"))
}
