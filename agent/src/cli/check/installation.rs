//! What the agent finds on its own machine: files, disk, service, limits. Nothing here talks to the network.

use std::collections::BTreeSet;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::bench::Bench;
use crate::ca::settings::CaSettings;
use crate::chain::Chain;
use crate::checks::{CheckResult, declare_checks};
use crate::cli::tables;
use crate::config;
use crate::exchange::settings::ExchangeSettings;
use crate::health;
use crate::identity::{self, machine};
use crate::limits::{WORKING_FILES_MIN, WORKING_MEMORY_BYTES};
use crate::modules::ModuleSettings;
use crate::secrets;
use crate::storage::redb::{self, OpenError, Opened, RedbStorage};
use crate::vault;

/// The area's name.
pub(super) const NAME: &str = "installation";

declare_checks! {
    SETTINGS = "installation.settings":
        "whether agent.toml can be read and every value is one that can work",
        "correct agent.toml";
    SECRETS = "installation.secrets":
        "whether the sealed secrets can be opened on this machine by this account",
        "run the command as the account the service runs as; if that is not it, set the secrets again with configure";
    UNUSED_SECRETS = "installation.unused_secrets":
        "whether secrets are kept that no setting names",
        "remove them with causeway-agent configure --forget-secret NAME";
    PERMISSIONS = "installation.permissions":
        "whether others can read the data directory's private files, and whether all belong to who owns the directory",
        "let only the service's account read them: chmod 700 for the directory, 600 for the files; on Windows, service install";
    WRITABLE = "installation.writable":
        "whether the data directory can be written to",
        "make the data directory writable for the agent, and make room on its disk";
    DISK = "installation.disk":
        "how much room the data directory's disk has",
        "make room on the disk, or move the data directory to a larger one";
    STATE = "installation.state_file":
        "whether the state file is sound and not of a newer agent",
        "start the agent: it keeps a damaged file aside and collects everything again; look for disk errors";
    MACHINE = "installation.machine":
        "whether the data directory was made on this machine and not copied from another",
        "enrol this machine with a data directory of its own";
    LEFTOVERS = "installation.leftovers":
        "whether damaged files, or the state of an earlier enrolment, are kept aside",
        "look for disk errors; remove the files when nobody needs them for an analysis";
    ONE_AGENT = "installation.one_agent":
        "which process works with this data directory, if any",
        "start the agent: causeway-agent service start, or causeway-agent run";
    VERSION = "installation.version":
        "whether the running agent is the installed version",
        "restart the agent: causeway-agent service stop, then start";
    SERVICE = "installation.service":
        "whether the service is installed, starts with the machine, and runs",
        "install and start it: causeway-agent service install, then causeway-agent service start";
    LOG_LEVEL = "installation.log_level":
        "whether the log is as quiet as it should be in daily work",
        "set the level back with causeway-agent configure log --set level=info when the analysis is over";
    LOG_FILE = "installation.log_file":
        "whether the log file, where one is set, can be written to",
        "correct log.file in agent.toml, or make its directory writable for the agent";
    OPEN_FILES = "installation.open_files":
        "whether the agent may hold enough files and connections open",
        "raise the limit of open files (LimitNOFILE in the unit, or ulimit -n)";
    MEMORY = "installation.memory":
        "whether the machine has memory left for the agent",
        "give the machine more memory, or end what uses it";
}

pub(super) async fn run(bench: &Bench) -> Vec<CheckResult> {
    let data_dir = &bench.data_dir;
    let mut results = vec![settings(bench)];
    results.push(match &bench.secrets {
        Ok(secrets) => CheckResult::ok(&SECRETS, format!("{} sealed", secrets.names().count())),
        Err(error) => {
            CheckResult::fail(&SECRETS, Chain(error).to_string(), remedy_if_denied(error, data_dir))
        }
    });
    results.extend(unused_secrets(bench));
    results.push(permissions(data_dir));
    results.push(writable(data_dir));
    results.extend(disk(data_dir));
    results.extend(state_file(data_dir));
    results.extend(leftovers(data_dir));
    results.extend(running(bench));
    results.push(service());
    results.extend(log(bench));
    results.extend(open_files());
    results.extend(memory());
    results
}

fn settings(bench: &Bench) -> CheckResult {
    match (bench.broken_settings(), bench.file()) {
        (Some(broken), _) => broken,
        (None, Some(file)) if file.path.exists() => match tables::judge_all(file) {
            Ok(()) => CheckResult::ok(&SETTINGS, file.path.display().to_string()),
            Err(error) => CheckResult::fail(&SETTINGS, Chain(&error).to_string(), ""),
        },
        (None, _) => CheckResult::warn(
            &SETTINGS,
            format!("there is no {} in {}", config::FILE_NAME, bench.data_dir.display()),
            "enrol this agent; that writes the file",
        ),
    }
}

/// Names that settings refer to; a secret of another name is one nobody reads.
fn unused_secrets(bench: &Bench) -> Option<CheckResult> {
    let (file, secrets) = (bench.file()?, bench.secrets.as_ref().ok()?);
    let mut used = BTreeSet::new();
    for (name, value) in &file.settings.directory {
        let named = value.get("password").and_then(|name| name.as_str());
        used.insert(named.map_or_else(|| format!("directory.{name}"), str::to_owned));
    }
    for (name, exchange) in &file.settings.exchange {
        let read = ModuleSettings::read::<ExchangeSettings>(name, exchange);
        used.extend(read.map(|read| read.secret_names(name)).unwrap_or_default());
    }
    for (name, ca) in &file.settings.ca {
        let read = ModuleSettings::read::<CaSettings>(name, ca);
        used.extend(read.map(|read| read.secret_names(name)).unwrap_or_default());
    }
    // Which proxies take part is decided at run time, so that every secret of theirs counts as used.
    let unused: Vec<&str> =
        secrets.names().filter(|name| !used.contains(*name) && !name.starts_with("proxy")).collect();
    Some(if unused.is_empty() {
        CheckResult::ok(&UNUSED_SECRETS, "none")
    } else {
        CheckResult::warn(&UNUSED_SECRETS, format!("nothing names {}", unused.join(", ")), "")
    })
}

fn permissions(data_dir: &Path) -> CheckResult {
    let private = [secrets::FILE_NAME, identity::FILE_NAME, redb::FILE_NAME, vault::FILE_NAME]
        .map(|name| data_dir.join(name));
    let (mut open, mut foreign) = (Vec::new(), Vec::new());
    let settings = data_dir.join(config::FILE_NAME);
    for path in private.iter().chain([&settings]).filter(|path| path.exists()) {
        if let Ok(Some((owner, folders))) = crate::platform::foreign_owner(path) {
            foreign.push(format!("{} to user {owner}, its directory to user {folders}", path.display()));
        }
    }
    if !foreign.is_empty() {
        let remedy = give_back(data_dir);
        return CheckResult::fail(&PERMISSIONS, format!("belongs: {}", foreign.join("; ")), remedy);
    }
    for path in private.iter().filter(|path| path.exists()) {
        match crate::platform::readable_by(path) {
            Ok(others) if others.is_empty() => {}
            Ok(others) => open.push(format!("{} by {}", path.display(), others.join(", "))),
            Err(error) => {
                return CheckResult::warn(&PERMISSIONS, format!("{}: {error}", path.display()), "");
            }
        }
    }
    if open.is_empty() {
        CheckResult::ok(&PERMISSIONS, "private")
    } else {
        CheckResult::fail(&PERMISSIONS, format!("readable: {}", open.join("; ")), "")
    }
}

fn writable(data_dir: &Path) -> CheckResult {
    let probe = data_dir.join("check.tmp");
    match std::fs::write(&probe, b"probe").and_then(|()| std::fs::remove_file(&probe)) {
        Ok(()) => CheckResult::ok(&WRITABLE, data_dir.display().to_string()),
        Err(error) => CheckResult::fail(&WRITABLE, format!("write to {}: {error}", data_dir.display()), ""),
    }
}

#[cfg(unix)]
fn disk(data_dir: &Path) -> Option<CheckResult> {
    use crate::limits::{DISK_FREE_MIN_BYTES, DISK_FREE_WARNING_BYTES};
    let room = rustix::fs::statvfs(data_dir).ok()?;
    let free = room.f_bavail.saturating_mul(room.f_frsize);
    let detail = format!("{} MB free", free / 1_000_000);
    Some(match free {
        ..DISK_FREE_MIN_BYTES => CheckResult::fail(&DISK, detail, ""),
        DISK_FREE_MIN_BYTES..DISK_FREE_WARNING_BYTES => CheckResult::warn(&DISK, detail, ""),
        _ => CheckResult::ok(&DISK, detail),
    })
}

#[cfg(not(unix))]
fn disk(_: &Path) -> Option<CheckResult> {
    None
}

fn state_file(data_dir: &Path) -> Vec<CheckResult> {
    if !data_dir.join(redb::FILE_NAME).exists() {
        return vec![CheckResult::ok(&STATE, "none yet")];
    }
    let opened = RedbStorage::open(data_dir, &machine());
    let ours = CheckResult::ok(&MACHINE, "this one");
    match opened {
        Ok(Opened { storage, thread, set_aside, .. }) => {
            // Whoever opens it next must not find this process there.
            drop(storage);
            let _ = thread.join();
            match set_aside {
                None => vec![CheckResult::ok(&STATE, "sound"), ours],
                Some(kept) => {
                    let detail = format!("it was damaged and is kept as {}", kept.display());
                    vec![CheckResult::warn(&STATE, detail, "")]
                }
            }
        }
        Err(OpenError::InUse { .. }) => {
            vec![CheckResult::ok(&STATE, "a running agent has it open"), ours]
        }
        Err(error @ OpenError::OtherMachine { .. }) => {
            vec![CheckResult::fail(&MACHINE, Chain(&error).to_string(), "")]
        }
        Err(error @ OpenError::Newer { .. }) => {
            vec![CheckResult::fail(&STATE, Chain(&error).to_string(), "install the newer agent again")]
        }
        Err(error) => {
            let remedy = remedy_if_denied(&error, data_dir);
            vec![CheckResult::fail(&STATE, Chain(&error).to_string(), remedy)]
        }
    }
}

/// What to do about a file that this account may not open; empty when that is not what is wrong.
pub(super) fn remedy_if_denied(error: &(dyn Error + 'static), data_dir: &Path) -> String {
    type Shared = Arc<dyn Error + Send + Sync>;
    let mut causes = std::iter::successors(Some(error), |error: &&(dyn Error + 'static)| (*error).source());
    let denied = causes.any(|cause| {
        let io = match cause.downcast_ref::<Shared>() {
            Some(shared) => shared.downcast_ref::<std::io::Error>(),
            None => cause.downcast_ref(),
        };
        io.is_some_and(|io| io.kind() == std::io::ErrorKind::PermissionDenied)
    });
    if !denied {
        return String::new();
    }
    format!(
        "run the command as the account the service runs as; if this is it, its files belong to somebody else: {}",
        give_back(data_dir)
    )
}

fn give_back(data_dir: &Path) -> String {
    if cfg!(windows) {
        "causeway-agent service install sets their rights".to_owned()
    } else {
        let folder = data_dir.display();
        format!("give them to the owner of the directory, sudo chown -R --reference={folder} {folder}")
    }
}

fn leftovers(data_dir: &Path) -> Option<CheckResult> {
    let mut kept: Vec<String> = std::fs::read_dir(data_dir)
        .ok()?
        .filter_map(|entry| Some(entry.ok()?.file_name().to_string_lossy().into_owned()))
        .filter(|name| [".corrupt-", ".former-"].iter().any(|mark| name.contains(mark)))
        .collect();
    kept.sort();
    Some(if kept.is_empty() {
        CheckResult::ok(&LEFTOVERS, "none")
    } else {
        CheckResult::warn(&LEFTOVERS, kept.join(", "), "")
    })
}

/// What the status file of a running or ended agent says.
fn running(bench: &Bench) -> Vec<CheckResult> {
    let Ok(status) = health::read_file(&bench.data_dir) else {
        return vec![CheckResult::ok(&ONE_AGENT, "none has run with this data directory yet")];
    };
    if status.stopped_ms.is_some() {
        return vec![CheckResult::warn(&ONE_AGENT, "none runs; it was stopped", "")];
    }
    if !bench.runs {
        let secs = (bench.clock.now_ms() - status.written_ms) / 1000;
        let detail = format!("none runs; process {} was last seen {secs} s ago", status.pid);
        return vec![CheckResult::warn(&ONE_AGENT, detail, "")];
    }
    let ours = env!("CARGO_PKG_VERSION");
    let version = if status.version == ours {
        CheckResult::ok(&VERSION, ours)
    } else {
        let detail = format!("version {} runs, {ours} is installed", status.version);
        CheckResult::warn(&VERSION, detail, "")
    };
    vec![CheckResult::ok(&ONE_AGENT, format!("process {}", status.pid)), version]
}

fn service() -> CheckResult {
    use crate::platform::Standing;
    match crate::platform::service::standing() {
        Standing::Running => CheckResult::ok(&SERVICE, "installed, enabled and running"),
        #[cfg(not(windows))]
        Standing::NoServices { because } => CheckResult::ok(&SERVICE, because),
        Standing::Missing => CheckResult::warn(&SERVICE, "not installed", ""),
        Standing::Disabled => {
            CheckResult::warn(&SERVICE, "installed, but it does not start with the machine", "")
        }
        Standing::Stopped => CheckResult::warn(
            &SERVICE,
            "installed, but not running",
            "start it: causeway-agent service start; look at its log if it does not stay up",
        ),
    }
}

fn log(bench: &Bench) -> Vec<CheckResult> {
    let Some(file) = bench.file() else { return Vec::new() };
    let level = &file.settings.log.level;
    let loud = ["debug", "trace"].iter().any(|word| level.contains(word));
    let mut results = vec![if loud {
        CheckResult::warn(&LOG_LEVEL, format!("{level:?} writes a lot and slows the agent down"), "")
    } else {
        CheckResult::ok(&LOG_LEVEL, level)
    }];
    if let Some(path) = &file.settings.log.file {
        results.push(log_file(&bench.data_dir.join(path)));
    }
    results
}

fn log_file(path: &Path) -> CheckResult {
    let folder = path.parent().map_or_else(|| PathBuf::from("."), Path::to_owned);
    let probe = folder.join("causeway-check.tmp");
    // What is there is opened as `run` opens it; for what is not, its folder speaks.
    let tried = if path.exists() {
        std::fs::OpenOptions::new().append(true).open(path).map(drop)
    } else {
        std::fs::write(&probe, b"probe").and_then(|()| std::fs::remove_file(&probe))
    };
    match tried {
        Ok(()) => CheckResult::ok(&LOG_FILE, path.display().to_string()),
        Err(error) => CheckResult::fail(&LOG_FILE, format!("write to {}: {error}", path.display()), ""),
    }
}

#[cfg(unix)]
fn open_files() -> Option<CheckResult> {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(u64::MAX);
    let detail = format!("{limit} for this shell; the service's unit sets its own");
    Some(if limit < WORKING_FILES_MIN {
        CheckResult::warn(&OPEN_FILES, detail, "")
    } else {
        CheckResult::ok(&OPEN_FILES, detail)
    })
}

#[cfg(not(unix))]
fn open_files() -> Option<CheckResult> {
    let _ = WORKING_FILES_MIN;
    None
}

fn memory() -> Option<CheckResult> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let available = line.trim().split(' ').next()?.parse::<u64>().ok()?.saturating_mul(1024);
    let detail = format!("{} MB available", available / 1_000_000);
    Some(if available < WORKING_MEMORY_BYTES {
        CheckResult::warn(&MEMORY, detail, "")
    } else {
        CheckResult::ok(&MEMORY, detail)
    })
}
