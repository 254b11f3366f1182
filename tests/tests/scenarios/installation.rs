//! What an administrator does: the wizard at a terminal, and installations nobody watches. Against the real mocks.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::process::Output;

use anyhow::{Context, Result, ensure};
use causeway_agent::{config, identity, secrets};
use causeway_mock_exchange::MockExchange;
use causeway_tests::company::Company;
use causeway_tests::program;
use serde_json::Value;
use tokio::process::Command;

use super::console::Terminal;

type Body = fn() -> Pin<Box<dyn Future<Output = Result<()>>>>;

pub(crate) static TRIALS: &[(&str, Body)] = &[
    ("wizard_from_nothing_with_mistakes_corrected", || Box::pin(from_nothing())),
    ("wizard_interrupted_changes_nothing", || Box::pin(interrupted())),
    ("unattended_installation_is_idempotent", || Box::pin(unattended())),
    ("unattended_installation_that_cannot_work_changes_nothing", || Box::pin(unattended_broken())),
];

/// The company, and the files an administrator has at hand.
struct Desk {
    company: Company,
    cloud_ca: String,
    directory_ca: String,
    mail_ca: String,
    data_dir: PathBuf,
}

impl Desk {
    async fn set() -> Result<Self> {
        let company = Company::with_mail(30, 5).await?;
        let directory_ca = company.folder.path().join("directory-ca.pem");
        std::fs::write(&directory_ca, company.ldap.ca().ca_pem())?;
        let mail = company.mail.as_ref().context("the company has mail")?;
        Ok(Self {
            cloud_ca: text_of(company.cloud.ca_pem())?,
            directory_ca: text_of(&directory_ca)?,
            mail_ca: text_of(mail.ca().pem_path())?,
            data_dir: company.folder.path().join("agent"),
            company,
        })
    }

    fn mail(&self) -> &MockExchange {
        self.company.mail.as_ref().expect("the company has mail")
    }

    async fn wizard(&self) -> Result<Terminal> {
        let data_dir = text_of(&self.data_dir)?;
        Terminal::start(&this_program()?, &["agent", "configure", "--data-dir", &data_dir]).await
    }

    async fn agent(&self, words: &[&str], environment: &[(&str, &str)], stdin: &str) -> Result<Output> {
        let mut command = Command::new(this_program()?);
        command.arg("agent").args(words).arg("--data-dir").arg(&self.data_dir);
        command.envs(environment.iter().copied()).kill_on_drop(true);
        command.stdin(std::process::Stdio::piped());
        command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
        let mut child = command.spawn()?;
        let mut input = child.stdin.take().context("piped")?;
        tokio::io::AsyncWriteExt::write_all(&mut input, stdin.as_bytes()).await?;
        drop(input);
        let ended = tokio::time::timeout(std::time::Duration::from_secs(60), child.wait_with_output());
        Ok(ended.await.context("the command did not end")??)
    }
}

fn this_program() -> Result<PathBuf> {
    std::env::current_exe().context("find this program")
}

fn text_of(path: &Path) -> Result<String> {
    Ok(path.to_str().context("the path is UTF-8")?.to_owned())
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

async fn from_nothing() -> Result<()> {
    if program::find("tmux", "tmux").is_none() {
        return Ok(());
    }
    let desk = Desk::set().await?;
    let account = desk.company.ldap.service_account();
    let key = desk.company.tenant.enrollment_key().await?;
    let cloud = desk.company.cloud.url("api").to_owned();
    let screen = desk.wizard().await?;

    screen.answer("Address of the cloud", "http://not-secure.example").await?;
    screen.shows("does not begin with https://").await?;
    screen.answer("Address of the cloud", &cloud).await?;
    screen.answer("PEM file of the cloud's authority", "/no/such/file").await?;
    screen.shows("read certificates from /no/such/file").await?;
    // The wrong authority is found by trying, and all of it is asked again with what was said as the default.
    screen.answer("PEM file of the cloud's authority", &desk.directory_ca).await?;
    screen.answer("Proxy, http", "").await?;
    screen.answer("Correct it?", "y").await?;
    screen.shows("FAIL  cloud.tls").await?;
    screen.answer("Address of the cloud", "").await?;
    screen.answer("PEM file of the cloud's authority", &desk.cloud_ca).await?;
    screen.answer("Proxy, http", "").await?;
    screen.answer("Name of this agent", "agent-berlin").await?;
    screen.answer("Enrolment key", &key).await?;

    screen.answer("Is there a directory", "").await?;
    screen.answer("Servers (ldaps://host", "").await?;
    screen.answer("Go on without", "").await?;
    screen.answer("Servers (ldaps://host", desk.company.ldap.url("ldaps")).await?;
    screen.answer("authority that signed the servers'", &desk.directory_ca).await?;
    screen.answer("Service account", &account.dn).await?;
    screen.answer("Its password", "canary-wrong-password").await?;
    screen.answer("Correct it?", "").await?;
    screen.shows("FAIL  directory.bind").await?;
    screen.shows("neither locked nor expired").await?;
    screen.answer("Service account", "").await?;
    screen.answer("Its password", &account.password).await?;
    screen.shows("The directory is active_directory.").await?;
    screen.answer("Number [1]", "").await?;
    mail(&desk, &screen).await?;
    screen.answer("Is there an authority", "").await?;
    screen.answer("May user_auth run here?", "").await?;
    screen.answer("May user_visibility run here?", "n").await?;
    screen.answer("May exchange run here?", "").await?;
    screen.answer("May certificates run here?", "").await?;
    screen.answer("Password checks at once", "5000").await?;
    screen.shows("Please answer with 1 to 1024.").await?;
    screen.answer("Password checks at once", "64").await?;
    screen.answer("Actions at once", "").await?;
    ensure!(!desk.data_dir.join(config::FILE_NAME).exists(), "something is on disk before anybody agreed");
    screen.answer("Keep it?", "").await?;
    screen.shows("ended with 0").await?;

    let shown = screen.screen().await?;
    let mail_password = desk.mail().service_account().password;
    for secret in ["canary-wrong-password", &account.password, &mail_password, &key] {
        ensure!(!shown.contains(secret), "a secret is on the screen:\n{shown}");
    }
    let settings = std::fs::read_to_string(desk.data_dir.join(config::FILE_NAME))?;
    for line in [
        "requests_at_once = 64",
        "modules_forbidden = [\"user_visibility\"]",
        "ca_file = \"cloud-ca.pem\"",
        "[exchange.default]",
    ] {
        ensure!(settings.contains(line), "{line} is not in\n{settings}");
    }
    ensure!(!settings.contains("canary") && !settings.contains(&account.password), "{settings}");
    let agents = desk.company.tenant.all("agents").await?;
    ensure!(agents.len() == 1 && agents[0]["host"] == "agent-berlin", "{agents:?}");
    let checked = desk.agent(&["check"], &[], "").await?;
    ensure!(checked.status.success(), "{}", said(&checked));
    let checked = desk.agent(&["check", "exchange"], &[], "").await?;
    ensure!(checked.status.success(), "{}", said(&checked));

    // Later, one thing is changed, without a terminal even.
    let changed = desk.agent(&["configure"], &[], "6\n16\n\n7\ny\n").await?;
    ensure!(changed.status.success(), "{}", said(&changed));
    ensure!(said(&changed).contains("- requests_at_once = 64"), "{}", said(&changed));
    let unchanged = desk.agent(&["configure"], &[], "7\n").await?;
    ensure!(said(&unchanged).contains("Nothing was changed."), "{}", said(&unchanged));
    Ok(())
}

/// The part about Exchange, with a server that is not there and a wrong password first.
async fn mail(desk: &Desk, screen: &Terminal) -> Result<()> {
    let login = desk.mail().service_account();
    screen.answer("Are there phones on Exchange", "y").await?;
    screen.shows("Who serves the mailboxes?").await?;
    screen.answer("Number [1]", "").await?;
    screen.answer("Servers (https://host/PowerShell/", "mail1").await?;
    screen.answer("authority that signed the servers'", &desk.mail_ca).await?;
    screen.answer("Is it Exchange 2007?", "").await?;
    screen.shows("exchange.default.servers[0]: mail1").await?;
    screen.answer("Servers (https://host/PowerShell/", "https://127.0.0.1:1/PowerShell/").await?;
    screen.answer("authority that signed the servers'", &desk.mail_ca).await?;
    screen.answer("Is it Exchange 2007?", "").await?;
    screen.answer("Correct it?", "").await?;
    screen.shows("FAIL  exchange.tcp").await?;
    screen.answer("Servers (https://host/PowerShell/", desk.mail().url("powershell")).await?;
    screen.answer("authority that signed the servers'", "").await?;
    screen.answer("Is it Exchange 2007?", "").await?;
    screen.answer("Account (DOMAIN", &login.user).await?;
    screen.shows("ok    exchange.tls").await?;
    screen.answer("Its password", "canary-wrong-password").await?;
    screen.answer("Correct it?", "").await?;
    screen.shows("FAIL  exchange.sign_in").await?;
    screen.answer("Account (DOMAIN", "").await?;
    screen.answer("Its password", &login.password).await?;
    screen.shows("ok    exchange.sign_in").await?;
    screen.shows("ok    exchange.version").await?;
    screen.shows("ok    exchange.devices").await
}

async fn interrupted() -> Result<()> {
    if program::find("tmux", "tmux").is_none() {
        return Ok(());
    }
    let desk = Desk::set().await?;
    let screen = desk.wizard().await?;
    screen.answer("Address of the cloud", desk.company.cloud.url("api")).await?;
    screen.answer("PEM file of the cloud's authority", &desk.cloud_ca).await?;
    screen.answer("Proxy, http", "").await?;
    screen.answer("Name of this agent", "").await?;
    screen.prompt("Enrolment key").await?;
    screen.key("C-c").await?;
    screen.shows("ended with 130").await?;
    screen.shows("echo is on").await?;
    // The end of input is an end too.
    let ended = desk.agent(&["configure"], &[], "https://cloud.example\n").await?;
    ensure!(!ended.status.success() && said(&ended).contains("nothing was changed"), "{}", said(&ended));
    let left: Vec<_> =
        std::fs::read_dir(&desk.data_dir)?.filter_map(Result::ok).map(|entry| entry.path()).collect();
    ensure!(left.is_empty(), "{left:?}");
    Ok(())
}

/// Answers for this company; secrets come from a file and from the environment.
fn answers(desk: &Desk, servers: &str) -> Result<String> {
    let account = desk.company.ldap.service_account();
    let secret = desk.company.folder.path().join("password");
    std::fs::write(&secret, format!("{}\n", account.password))?;
    let text = format!(
        "[enroll]\ncloud = {:?}\nkey = {{ env = \"CAUSEWAY_TEST_KEY\" }}\nca_file = {:?}\nname = \"agent-unattended\"\n\n\
         [secrets]\n\"directory.default\" = {{ file = {:?} }}\n\n\
         [directory.default]\nservers = [{servers:?}]\nca_file = {:?}\nbind_dn = {:?}\n\n\
         [limits]\nactions_at_once = 4\n",
        desk.company.cloud.url("api"),
        desk.cloud_ca,
        text_of(&secret)?,
        desk.directory_ca,
        account.dn,
    );
    let file = desk.company.folder.path().join("answers.toml");
    std::fs::write(&file, text)?;
    text_of(&file)
}

async fn unattended() -> Result<()> {
    let desk = Desk::set().await?;
    let key = desk.company.tenant.enrollment_key().await?;
    let file = answers(&desk, desk.company.ldap.url("ldaps"))?;
    let words = ["configure", "--from-file", &file];
    let first = desk.agent(&words, &[("CAUSEWAY_TEST_KEY", &key)], "").await?;
    ensure!(first.status.success(), "{}", said(&first));
    let outcome: Value = serde_json::from_slice(&first.stdout).context("one JSON line")?;
    ensure!(outcome["changed"] == true && !said(&first).contains(&key), "{}", said(&first));
    let files =
        [config::FILE_NAME, secrets::FILE_NAME, identity::FILE_NAME].map(|name| desk.data_dir.join(name));
    let before = files.each_ref().map(|file| std::fs::read(file).unwrap_or_default());
    // The key is spent, and nobody asks for it again.
    let second = desk.agent(&words, &[], "").await?;
    ensure!(second.status.success(), "{}", said(&second));
    let outcome: Value = serde_json::from_slice(&second.stdout).context("one JSON line")?;
    ensure!(outcome["changed"] == false, "{}", said(&second));
    ensure!(before == files.each_ref().map(|file| std::fs::read(file).unwrap_or_default()), "a file changed");
    let checked = desk.agent(&["check", "--json"], &[], "").await?;
    ensure!(checked.status.success(), "{}", said(&checked));
    Ok(())
}

async fn unattended_broken() -> Result<()> {
    let desk = Desk::set().await?;
    let key = desk.company.tenant.enrollment_key().await?;
    let file = answers(&desk, "ldaps://127.0.0.1:1")?;
    let words = ["configure", "--from-file", &file];
    let refused = desk.agent(&words, &[("CAUSEWAY_TEST_KEY", &key)], "").await?;
    ensure!(refused.status.code() == Some(1), "{}", said(&refused));
    ensure!(
        said(&refused).contains("directory.tcp") && said(&refused).contains("Nothing was changed."),
        "{}",
        said(&refused)
    );
    ensure!(!desk.data_dir.join(identity::FILE_NAME).exists(), "the key is spent");
    ensure!(!desk.data_dir.join(config::FILE_NAME).exists(), "settings are kept");
    // The same key works once the answers do.
    let file = answers(&desk, desk.company.ldap.url("ldaps"))?;
    let words = ["configure", "--from-file", &file];
    let kept = desk.agent(&words, &[("CAUSEWAY_TEST_KEY", &key)], "").await?;
    ensure!(kept.status.success(), "{}", said(&kept));
    Ok(())
}
