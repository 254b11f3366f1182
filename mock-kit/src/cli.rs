//! Flags, configuration file, ready line and life of a stand-alone mock.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::io::{IsTerminal as _, Write as _};
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::{Mutex, PoisonError};

use anyhow::Context as _;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::task::JoinHandle;

use crate::limits::{DOMAIN_MAX_BYTES, LABEL_MAX_BYTES, PEOPLE_MAX, STOP_TIMEOUT};
use crate::world::{Company, CompanySpec, PersonState};

/// The flags every mock has. A mock flattens them into its own clap struct; a flag wins over the file.
#[derive(clap::Args, Clone, Debug, Default)]
pub struct CommonArgs {
    /// Address to listen on
    #[arg(long, value_name = "HOST")]
    pub listen: Option<IpAddr>,
    /// Port of one front end, such as ldap=3389 (0 = any free port); may be repeated
    #[arg(long, value_name = "NAME=N")]
    pub port: Vec<NamedPort>,
    /// Seed of the generated company; the same seed gives the same company
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// Number of generated people
    #[arg(long, value_name = "N")]
    pub users: Option<usize>,
    /// DNS domain of the company
    #[arg(long, value_name = "DOMAIN")]
    pub domain: Option<String>,
    /// Vendor or version to behave like
    #[arg(long, value_name = "NAME")]
    pub personality: Option<String>,
    /// TOML file that says everything the flags say, and more
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Milliseconds added to everything sent
    #[arg(long, value_name = "N")]
    pub latency_ms: Option<u64>,
}

/// `NAME=N` of the `--port` flag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedPort {
    /// Front end, as in the ready line's `urls`.
    pub name: String,
    /// Port, 0 for any free one.
    pub port: u16,
}

/// A `--port` value that is not `NAME=N`.
#[derive(Debug, thiserror::Error)]
#[error("{text:?} is not NAME=N with a port number up to 65535, such as ldap=3389")]
pub struct NamedPortError {
    text: String,
}

impl FromStr for NamedPort {
    type Err = NamedPortError;

    fn from_str(text: &str) -> Result<Self, NamedPortError> {
        let wrong = || NamedPortError { text: text.to_owned() };
        let (name, port) = text.split_once('=').ok_or_else(wrong)?;
        if name.is_empty() {
            return Err(wrong());
        }
        Ok(Self { name: name.to_owned(), port: port.parse().map_err(|_| wrong())? })
    }
}

/// The settings all mocks share; each mock's own settings embed it as `common`, the file's `[common]` table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CommonConfig {
    /// Address to listen on. Default 127.0.0.1: a mock holds generated passwords and must not be reachable.
    pub listen: IpAddr,
    /// Port by front end name; a missing one, or 0, means any free port.
    pub ports: BTreeMap<String, u16>,
    /// Seed of the generated company. Default 1.
    pub seed: u64,
    /// Number of generated people. Default 250.
    pub users: usize,
    /// DNS domain of the company. Default `acme.example`.
    pub domain: String,
    /// Milliseconds added to everything sent. Default 0.
    pub latency_ms: u64,
}

impl Default for CommonConfig {
    fn default() -> Self {
        Self {
            listen: IpAddr::V4(Ipv4Addr::LOCALHOST),
            ports: BTreeMap::new(),
            seed: 1,
            users: 250,
            domain: "acme.example".to_owned(),
            latency_ms: 0,
        }
    }
}

impl CommonConfig {
    /// Lets the flags that were given win over the file.
    pub fn apply(&mut self, args: &CommonArgs) {
        if let Some(listen) = args.listen {
            self.listen = listen;
        }
        self.ports.extend(args.port.iter().map(|named| (named.name.clone(), named.port)));
        if let Some(seed) = args.seed {
            self.seed = seed;
        }
        if let Some(users) = args.users {
            self.users = users;
        }
        if let Some(domain) = &args.domain {
            self.domain.clone_from(domain);
        }
        if let Some(latency_ms) = args.latency_ms {
            self.latency_ms = latency_ms;
        }
    }

    /// The configured port of a front end, 0 (any free port) when none is set.
    pub fn port(&self, name: &str) -> u16 {
        self.ports.get(name).copied().unwrap_or(0)
    }

    /// Refuses a port for a front end the mock does not have, which is nearly always a typing error.
    ///
    /// # Errors
    /// [`ConfigError::UnknownFrontEnd`] names it and lists the known ones.
    pub fn check_ports(&self, known: &[&str]) -> Result<(), ConfigError> {
        match self.ports.keys().find(|name| !known.contains(&name.as_str())) {
            Some(name) => Err(ConfigError::UnknownFrontEnd { name: name.clone(), known: known.join(", ") }),
            None => Ok(()),
        }
    }

    /// What the generated company is made from.
    ///
    /// # Errors
    /// [`ConfigError::TooManyPeople`] and [`ConfigError::NoDomain`].
    pub fn company(&self) -> Result<CompanySpec, ConfigError> {
        let Self { users, domain, .. } = self;
        if *users > PEOPLE_MAX {
            return Err(ConfigError::TooManyPeople { users: *users });
        }
        if domain.len() > DOMAIN_MAX_BYTES || !domain.split('.').all(is_label) {
            return Err(ConfigError::NoDomain { domain: domain.clone() });
        }
        Ok(CompanySpec { seed: self.seed, users: *users, domain: domain.clone() })
    }
}

/// Refuses short host names that can be no part of a DNS name, and two machines of one name.
///
/// # Errors
/// [`ConfigError::NoHostName`] and [`ConfigError::HostTwice`] name the one at fault.
pub fn check_hosts<'a>(names: impl IntoIterator<Item = &'a str>) -> Result<(), ConfigError> {
    let mut seen = BTreeSet::new();
    for name in names {
        if !is_label(name) {
            return Err(ConfigError::NoHostName { name: name.to_owned() });
        }
        if !seen.insert(name.to_ascii_lowercase()) {
            return Err(ConfigError::HostTwice { name: name.to_owned() });
        }
    }
    Ok(())
}

/// Whether a text is one label of a host name (RFC 1123 section 2.1).
pub fn is_label(text: &str) -> bool {
    (1..=LABEL_MAX_BYTES).contains(&text.len())
        && text.bytes().all(|letter| letter.is_ascii_alphanumeric() || letter == b'-')
        && !text.starts_with('-')
        && !text.ends_with('-')
}

/// A configuration that cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("read configuration file {}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file is not the TOML we expect; the position is that of the offending text.
    #[error("{}:{line}:{column}: {message}", path.display())]
    Wrong {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// Column in characters, from 1.
        column: usize,
        /// What is wrong, in the parser's words.
        message: String,
    },
    /// A port is given for a front end that does not exist.
    #[error("no front end is called {name:?}; the known ones are {known}")]
    UnknownFrontEnd {
        /// The name given.
        name: String,
        /// The names that exist.
        known: String,
    },
    /// More people than a company can have.
    #[error("{users} people are more than the {PEOPLE_MAX} a company can have; see users")]
    TooManyPeople {
        /// The number given.
        users: usize,
    },
    /// The domain is no DNS name.
    #[error("{domain:?} is no DNS domain; write it as acme.example")]
    NoDomain {
        /// The text given.
        domain: String,
    },
    /// A machine's short name is no host name.
    #[error("{name:?} is no host name; use letters, digits and hyphens")]
    NoHostName {
        /// The name given.
        name: String,
    },
    /// Two machines have one name.
    #[error("two servers are called {name:?}")]
    HostTwice {
        /// Their name.
        name: String,
    },
}

/// Reads a TOML file into `T`, or gives `T`'s default when there is no file.
///
/// # Errors
/// [`ConfigError`] with file, line and column.
pub fn load_config<T: DeserializeOwned + Default>(path: Option<&Path>) -> Result<T, ConfigError> {
    let Some(path) = path else { return Ok(T::default()) };
    let text = std::fs::read_to_string(path)
        .map_err(|source| ConfigError::Unreadable { path: path.to_owned(), source })?;
    parse_config(path, &text)
}

/// Reads TOML text that came from `path` (used in messages only).
///
/// # Errors
/// [`ConfigError::Wrong`] with line and column.
pub fn parse_config<T: DeserializeOwned>(path: &Path, text: &str) -> Result<T, ConfigError> {
    toml::from_str(text).map_err(|error| {
        let at = error.span().map_or(0, |span| span.start);
        let (line, column) = position(text, at);
        let message = error.message().trim().replace('\n', "; ");
        ConfigError::Wrong { path: path.to_owned(), line, column, message }
    })
}

/// What a mock prints once everything is bound.
#[derive(Serialize, Clone, Debug)]
pub struct Ready {
    /// Always true.
    pub ready: bool,
    /// The mock's name.
    pub service: String,
    /// Front end name to URL.
    pub urls: BTreeMap<String, String>,
    /// File with the certificate authority that signed the mock's TLS certificates.
    pub ca_pem: Option<PathBuf>,
    /// Accounts a test signs in with; `admin` at least. Passwords here are generated and of no use elsewhere.
    pub accounts: BTreeMap<String, serde_json::Value>,
}

impl Ready {
    /// A ready line with no URL yet.
    pub fn new(service: &str) -> Self {
        Self {
            ready: true,
            service: service.to_owned(),
            urls: BTreeMap::new(),
            ca_pem: None,
            accounts: BTreeMap::new(),
        }
    }
}

impl Ready {
    /// Adds the first person in each state, so that a test has someone to sign in as; states nobody is in are left out.
    pub fn add_people(&mut self, company: &Company, states: &[(&str, PersonState)]) {
        for (name, state) in states {
            let Some(person) = company.first_in_state(*state) else { continue };
            let account = json!({
                "login": person.login,
                "upn": company.upn(&person.login),
                "mail": person.mail,
                "password": person.password(),
            });
            self.accounts.insert((*name).to_owned(), account);
        }
    }
}

/// The tasks of a running mock.
pub struct Tasks(Mutex<Vec<JoinHandle<()>>>);

impl Tasks {
    /// Takes them over; they end when the mock's `stop` is cancelled.
    pub fn new(tasks: Vec<JoinHandle<()>>) -> Self {
        Self(Mutex::new(tasks))
    }

    /// Waits until all have ended.
    pub async fn ended(&self) {
        let tasks = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        for task in tasks {
            // A task that panicked has said so in the log.
            let _ = task.await;
        }
    }
}

/// A started mock, as [`run_mock`] needs it.
pub trait RunningMock {
    /// The ready line.
    fn ready(&self) -> Ready;
    /// Closes everything; must return within [`STOP_TIMEOUT`].
    fn stop(self) -> impl Future<Output = ()> + Send;
}

/// Runs a stand-alone mock: log to stderr, start, one JSON line on stdout, wait for SIGTERM or Ctrl-C, stop.
///
/// # Errors
/// Whatever `start` reports, or a stdout that cannot be written.
pub async fn run_mock<H: RunningMock>(start: impl Future<Output = anyhow::Result<H>>) -> anyhow::Result<()> {
    log_to_stderr();
    let mut signals = Signals::install()?;
    let mock = tokio::select! {
        started = start => started?,
        () = signals.stop() => return Ok(()),
    };
    let line = serde_json::to_string(&mock.ready()).context("encode the ready line")?;
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{line}").and_then(|()| stdout.flush()).context("write the ready line")?;
    drop(stdout);
    signals.stop().await;
    if tokio::time::timeout(STOP_TIMEOUT, mock.stop()).await.is_err() {
        tracing::warn!(timeout_ms = STOP_TIMEOUT.as_millis(), "Mock did not stop in time, leaving anyway");
    }
    Ok(())
}

/// Sends the log to stderr, level by `RUST_LOG` (default `info`). A second call changes nothing.
pub fn log_to_stderr() {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    let ansi = std::io::stderr().is_terminal();
    // An error means a subscriber is already there, set by a program that embeds the mock: its choice stands.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(ansi)
        .with_writer(std::io::stderr)
        .try_init();
}

/// Installed before `start`, so that a signal during a slow start is not lost.
struct Signals {
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
    #[cfg(unix)]
    interrupt: tokio::signal::unix::Signal,
}

impl Signals {
    #[cfg(unix)]
    fn install() -> anyhow::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        let terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
        let interrupt = signal(SignalKind::interrupt()).context("listen for SIGINT")?;
        Ok(Self { terminate, interrupt })
    }

    #[cfg(not(unix))]
    fn install() -> anyhow::Result<Self> {
        Ok(Self {})
    }

    #[cfg(unix)]
    async fn stop(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }

    #[cfg(not(unix))]
    async fn stop(&mut self) {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// Line and column, both from 1, of a byte offset.
fn position(text: &str, at: usize) -> (usize, usize) {
    let before = text.get(..at).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Flags {
        #[command(flatten)]
        common: CommonArgs,
    }

    #[derive(Default, Debug, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    struct Config {
        common: CommonConfig,
        personality: String,
    }

    fn wrong(text: &str) -> String {
        parse_config::<Config>(Path::new("mock.toml"), text).unwrap_err().to_string()
    }

    struct Fake {
        stopped: std::sync::Arc<std::sync::atomic::AtomicBool>,
        hangs: bool,
    }

    impl RunningMock for Fake {
        fn ready(&self) -> Ready {
            // By now the signals are caught, so the test program outlives this.
            let pid = std::process::id().to_string();
            assert!(std::process::Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
            Ready::new("mock-fake")
        }

        async fn stop(self) {
            if self.hangs {
                std::future::pending::<()>().await;
            }
            self.stopped.store(true, std::sync::atomic::Ordering::Release);
        }
    }

    #[cfg(unix)]
    #[tokio::test(start_paused = true)]
    async fn sigterm_stops_a_mock_even_one_that_hangs() {
        for hangs in [false, true] {
            let stopped = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
            let mock = Fake { stopped: std::sync::Arc::clone(&stopped), hangs };
            let started = tokio::time::Instant::now();
            run_mock(async { Ok(mock) }).await.unwrap();
            assert_eq!(stopped.load(std::sync::atomic::Ordering::Acquire), !hangs);
            assert!(started.elapsed() < std::time::Duration::from_secs(1), "took {:?}", started.elapsed());
        }
    }

    #[test]
    fn the_ready_line_has_the_agreed_names() {
        let mut ready = Ready::new("mock-ldap");
        ready.urls.insert("ldap".to_owned(), "ldap://127.0.0.1:40001".to_owned());
        let line = serde_json::to_string(&ready).unwrap();
        assert_eq!(
            line,
            r#"{"ready":true,"service":"mock-ldap","urls":{"ldap":"ldap://127.0.0.1:40001"},"ca_pem":null,"accounts":{}}"#
        );
    }

    #[test]
    fn flags_win_over_the_file() {
        let file = "personality = \"openldap\"\n[common]\nseed = 7\nusers = 12\nports = { ldap = 1389, admin = 9 }\n";
        let mut config: Config = parse_config(Path::new("mock.toml"), file).unwrap();
        let flags =
            Flags::try_parse_from(["mock", "--seed", "9", "--port", "ldap=0", "--port", "ldaps=6636"])
                .unwrap();
        config.common.apply(&flags.common);
        let common = &config.common;
        assert_eq!((common.seed, common.users, common.port("ldap"), common.port("ldaps")), (9, 12, 0, 6_636));
        assert_eq!(
            (common.port("admin"), common.port("gc"), config.personality.as_str()),
            (9, 0, "openldap")
        );
        assert!(common.check_ports(&["ldap", "ldaps", "admin"]).is_ok());
        let error = common.check_ports(&["ldap", "admin"]).unwrap_err().to_string();
        assert_eq!(error, "no front end is called \"ldaps\"; the known ones are ldap, admin");
    }

    #[test]
    fn settings_no_company_can_be_made_from_are_refused() {
        let with = |users: usize, domain: &str| {
            let common = CommonConfig { users, domain: domain.to_owned(), ..CommonConfig::default() };
            common.company().map_err(|error| error.to_string())
        };
        for (users, domain) in [(PEOPLE_MAX, "acme.example"), (0, "local"), (1, "XN--A.b-2.c3")] {
            let company = with(users, domain).unwrap();
            assert_eq!((company.users, company.domain.as_str()), (users, domain));
        }
        let error = with(100_000_000, "acme.example").unwrap_err();
        assert_eq!(error, "100000000 people are more than the 2000000 a company can have; see users");
        let long = format!("{}example", "label.".repeat(42));
        let label = "x".repeat(64);
        for domain in
            ["", ".", "..", "acme.", ".example", "x y,z=\0", "a_b", "-a.b", "a-.b", "é.fr", &long, &label]
        {
            let error = with(1, domain).unwrap_err();
            assert!(error.contains("is no DNS domain"), "{domain}: {error}");
        }
        check_hosts(["dc1", "dc2"]).unwrap();
        assert_eq!(check_hosts(["dc1", "DC1"]).unwrap_err().to_string(), "two servers are called \"DC1\"");
        for name in ["", "dc1.acme", "dc,1"] {
            assert!(check_hosts([name]).unwrap_err().to_string().contains("is no host name"), "{name}");
        }
    }

    #[test]
    fn a_wrong_port_flag_says_what_is_expected() {
        for text in ["389", "=389", "ldap=x", "ldap=70000"] {
            let error = text.parse::<NamedPort>().unwrap_err().to_string();
            assert!(error.contains(text) && error.contains("NAME=N"), "{error}");
        }
    }

    #[test]
    fn configuration_errors_carry_line_and_column() {
        assert!(
            wrong("[common]\nseed = \"x\"\n").starts_with("mock.toml:2:8: invalid type"),
            "{}",
            wrong("[common]\nseed = \"x\"\n")
        );
        let unknown = wrong("personality = \"a\"\n[common]\n  sead = 1\n");
        assert!(unknown.starts_with("mock.toml:3:3: unknown field `sead`"), "{unknown}");
        let broken = wrong("# é\npersonality = \n");
        assert!(broken.starts_with("mock.toml:2:1"), "{broken}");
        let missing = load_config::<Config>(Some(Path::new("no-such-file.toml"))).unwrap_err();
        assert_eq!(missing.to_string(), "read configuration file no-such-file.toml");
        assert_eq!(load_config::<Config>(None).unwrap().common, CommonConfig::default());
    }
}
