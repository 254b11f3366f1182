//! `check`: the doctor. Everything the agent needs is tried in order; each line says how it went and what to do.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use causeway_protocol::config::DesiredConfig;
use causeway_protocol::limits::{ELEMENT_PRE_AUTH_MAX_BYTES, LOGIN_WITHIN};
use clap::Args;
use futures_util::FutureExt;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::DataDir;
use crate::chain::Chain;
use crate::channel::limited::Limited;
use crate::channel::login::{self, Credentials, LoginError};
use crate::channel::{Connect, ConnectError};
use crate::clock::Clock;
use crate::cloud::{CloudConnector, CloudError};
use crate::config::SettingsFile;
use crate::dial::{Dial, DialError};
use crate::identity::{Identity, machine};
use crate::limits::MODULE_CHECK_WITHIN;
use crate::link::Detached;
use crate::modules::{CheckResult, FACTORIES, ModuleContext, ModuleSettings, Verdict};
use crate::orchestrator::{module_settings, read_desired};
use crate::platform::PlatformSealer;
use crate::random::RandomSource;
use crate::secrets::SecretStore;
use crate::status::StatusCell;
use crate::storage::memory::MemoryStorage;
use crate::storage::redb::{OpenError, RedbStorage};

/// Arguments of `check`.
#[derive(Args)]
pub struct Check {
    /// Only this module
    module: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    data_dir: DataDir,
}

impl Check {
    pub(super) async fn execute(self) -> anyhow::Result<ExitCode> {
        let results = check(&self.data_dir.data_dir, self.module.as_deref()).await?;
        let failed = results.iter().any(|result| result.verdict == Verdict::Fail);
        if self.json {
            println!("{:#}", serde_json::json!({ "ok": !failed, "checks": results }));
        } else {
            results.iter().for_each(print);
        }
        Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
    }
}

fn print(result: &CheckResult) {
    let verdict = match result.verdict {
        Verdict::Ok => "ok  ",
        Verdict::Warn => "warn",
        Verdict::Fail => "FAIL",
    };
    println!("{verdict}  {}: {}", result.name, result.detail);
    if !result.remedy.is_empty() {
        println!("      remedy: {}", result.remedy);
    }
}

/// Tries everything, or one module.
///
/// # Errors
/// Only when there is no such module; everything else is a result.
pub async fn check(data_dir: &Path, only: Option<&str>) -> anyhow::Result<Vec<CheckResult>> {
    if let Some(kind) = only
        && !FACTORIES.iter().any(|factory| factory.kind() == kind)
    {
        let kinds: Vec<&str> = FACTORIES.iter().map(|factory| factory.kind()).collect();
        anyhow::bail!("there is no module {kind}; this agent has: {}", kinds.join(", "));
    }
    let mut results = Vec::new();
    let file = match SettingsFile::load(data_dir) {
        Ok(file) => file,
        Err(error) => {
            results.push(CheckResult::fail("settings", Chain(&error).to_string(), "correct agent.toml"));
            return Ok(results);
        }
    };
    let secrets = match SecretStore::load(data_dir, &PlatformSealer) {
        Ok(secrets) => secrets,
        Err(error) => {
            results.push(CheckResult::fail("secrets", Chain(&error).to_string(), "see the message"));
            SecretStore::default()
        }
    };
    let random = RandomSource::system();
    let dial = match crate::dialer(&file, &secrets, &random) {
        Ok(dial) => dial as Arc<dyn Dial>,
        Err(error) => {
            let remedy = "correct [dns] and [proxy] in agent.toml";
            results.push(CheckResult::fail("network settings", Chain(&error).to_string(), remedy));
            return Ok(results);
        }
    };
    if only.is_none() {
        results.push(CheckResult::ok("settings", file.path.display().to_string()));
        results.push(storage(data_dir));
        cloud(data_dir, &file, &dial, &mut results).await;
    }
    let desired = read_desired(data_dir);
    for factory in FACTORIES {
        let kind = factory.kind();
        let wanted = desired.get(kind).is_some_and(|config| config.enabled)
            || file.settings.modules.contains_key(kind);
        if only.map_or(wanted, |only| only == kind) {
            let config = desired.get(kind).cloned().unwrap_or_else(|| unconfigured(kind));
            let settings = module_settings(&config, &file.settings, &secrets, data_dir);
            module(kind, &settings, &dial, &random, &mut results).await;
        }
    }
    Ok(results)
}

fn unconfigured(kind: &str) -> DesiredConfig {
    DesiredConfig { module: kind.to_owned(), revision: 0, enabled: true, settings: serde_json::Value::Null }
}

async fn module(
    kind: &str,
    settings: &ModuleSettings,
    dial: &Arc<dyn Dial>,
    random: &RandomSource,
    results: &mut Vec<CheckResult>,
) {
    let name = |what: &str| format!("{kind}: {what}");
    let Some(factory) = crate::modules::factory(kind) else { return };
    let module = match factory.build(settings) {
        Ok(module) => module,
        Err(error) => {
            results.push(CheckResult::fail(name("settings"), error.to_string(), error.advice));
            return;
        }
    };
    let cx = ModuleContext {
        dial: dial.clone(),
        storage: Arc::new(MemoryStorage::new()),
        cloud: Arc::new(Detached::default()),
        clock: Clock::system(),
        stop: CancellationToken::new(),
        status: StatusCell::default(),
        random: random.clone(),
    };
    match timeout(MODULE_CHECK_WITHIN, module.check(cx)).await {
        Ok(found) => {
            results.extend(found.into_iter().map(|result| CheckResult { name: name(&result.name), ..result }))
        }
        Err(_) => results.push(CheckResult::fail(
            name("check"),
            format!("did not end within {} s", MODULE_CHECK_WITHIN.as_secs()),
            "look at the servers the module talks to",
        )),
    }
}

fn storage(data_dir: &Path) -> CheckResult {
    let name = "storage";
    let probe = data_dir.join("check.tmp");
    let writable = std::fs::write(&probe, b"probe").and_then(|()| std::fs::remove_file(&probe));
    if let Err(error) = writable {
        let remedy = "make the data directory writable for the agent, and make room on its disk";
        return CheckResult::fail(name, format!("write to {}: {error}", data_dir.display()), remedy);
    }
    if !data_dir.join(crate::storage::redb::FILE_NAME).exists() {
        return CheckResult::ok(name, "writable; no state yet");
    }
    match RedbStorage::open(data_dir, &machine()) {
        Ok(opened) => match opened.set_aside {
            None => CheckResult::ok(name, "writable; the state file is sound"),
            Some(kept) => CheckResult::warn(
                name,
                format!("the state file was damaged and is kept as {}", kept.display()),
                "start the agent: it collects everything again; look for disk errors",
            ),
        },
        Err(OpenError::InUse { .. }) => CheckResult::ok(name, "writable; a running agent has the state file"),
        Err(error) => CheckResult::fail(name, Chain(&error).to_string(), "see the message"),
    }
}

async fn cloud(data_dir: &Path, file: &SettingsFile, dial: &Arc<dyn Dial>, results: &mut Vec<CheckResult>) {
    let identity = match Identity::load(data_dir, &PlatformSealer) {
        Ok(identity) => identity,
        Err(error) => {
            results.push(CheckResult::fail("identity", Chain(&error).to_string(), "enrol this agent"));
            return;
        }
    };
    results.push(certificate(&identity));
    let endpoint = match crate::endpoint(file) {
        Ok(endpoint) => endpoint,
        Err(error) => {
            results.push(CheckResult::fail("cloud", Chain(&error).to_string(), "enrol this agent"));
            return;
        }
    };
    match file.settings.proxy.as_ref().and_then(|proxy| proxy.url.as_ref()) {
        Some(url) => results.push(CheckResult::ok("way out", format!("proxy {url} by agent.toml"))),
        None => {
            let resolved = dial.addresses(&endpoint.host).await;
            let name = format!("resolve {}", endpoint.host);
            match resolved {
                Ok(found) => results.push(CheckResult::ok(
                    name,
                    found.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
                )),
                Err(error) => {
                    results.push(CheckResult::fail(
                        name,
                        Chain(&error).to_string(),
                        "correct the name in cloud.url, or the name servers",
                    ));
                    return;
                }
            }
        }
    }
    let trust = crate::trust(file, data_dir);
    let connector = match CloudConnector::new(dial.clone(), endpoint.clone(), trust.clone(), Some(&identity))
    {
        Ok(connector) => connector,
        Err(error) => {
            let remedy = "correct cloud.ca_file, or enrol again";
            results.push(CheckResult::fail("TLS settings", Chain(&error).to_string(), remedy));
            return;
        }
    };
    let name = format!("connect to {}:{}", endpoint.host, endpoint.port);
    match connector.connect(None).await {
        Ok(io) => {
            results.push(CheckResult::ok(name, format!("TLS verified by {trust}")));
            results.push(log_in(Limited::new(io, ELEMENT_PRE_AUTH_MAX_BYTES), &identity).await);
        }
        Err(error) => results.push(CheckResult::fail(name, Chain(&error).to_string(), remedy(&error))),
    }
}

fn certificate(identity: &Identity) -> CheckResult {
    let name = "identity";
    let now_ms = Clock::system().now_ms();
    match identity.validity() {
        Err(error) => CheckResult::fail(name, Chain(&error).to_string(), "enrol this agent again"),
        Ok(validity) if now_ms > validity.until_ms => CheckResult::fail(
            name,
            "our certificate has expired",
            "enrol this agent again, or correct the clock",
        ),
        Ok(validity) if now_ms < validity.from_ms => {
            let ahead = Duration::from_millis((validity.from_ms - now_ms).unsigned_abs());
            let detail =
                format!("our certificate becomes valid in {} s: the clock is wrong", ahead.as_secs());
            CheckResult::fail(name, detail, "synchronise this machine's clock")
        }
        Ok(validity) => {
            let days = (validity.until_ms - now_ms) / 86_400_000;
            CheckResult::ok(
                name,
                format!("instance {}, certificate valid for {days} days", identity.instance),
            )
        }
    }
}

/// Logs in and goes no further, so that a running agent's session is not disturbed.
async fn log_in(io: Limited, identity: &Identity) -> CheckResult {
    let name = "log in";
    let domain = identity.jid.domain().to_string();
    let credentials = Credentials::Certificate(identity.jid.clone());
    let login = login::authenticate(io, &domain, &credentials).boxed();
    match timeout(LOGIN_WITHIN, login).await.unwrap_or(Err(LoginError::TimedOut)) {
        Ok(mut authenticated) => {
            let _ = timeout(crate::limits::CLOSE_WITHIN, authenticated.stream.shutdown()).await;
            CheckResult::ok(name, format!("{} accepts {}", domain, identity.jid))
        }
        Err(error @ LoginError::Refused { .. }) => CheckResult::fail(
            name,
            Chain(&error).to_string(),
            "look whether the cloud has revoked this agent; if so, enrol it again",
        ),
        Err(error) => CheckResult::fail(
            name,
            Chain(&error).to_string(),
            "look whether a firewall or proxy alters the connection",
        ),
    }
}

fn remedy(error: &ConnectError) -> &'static str {
    match error.source.downcast_ref::<CloudError>() {
        Some(CloudError::Inspected { .. }) => {
            "exclude the cloud's host from TLS inspection at the proxy or firewall"
        }
        Some(CloudError::Tls { .. }) => {
            "give the right authorities with cloud.ca_file; look at this machine's clock"
        }
        Some(CloudError::Dial { source, .. }) if matches!(**source, DialError::Proxy { .. }) => {
            "correct [proxy] in agent.toml, or allow CONNECT to the cloud at the proxy"
        }
        _ => "allow outbound TCP to the cloud at the firewall, or configure a proxy",
    }
}
