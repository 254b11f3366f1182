//! What the agent says about itself: to the cloud in health reports, to people in a status file.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use causeway_protocol::channel::payload::{Health, Notice, Payload};
use causeway_protocol::health::{ModuleHealth, Severity};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::channel::{Channel, ChannelState};
use crate::clock::Clock;
use crate::dial::Dial;
use crate::dispatch::Dispatcher;
use crate::limits::{
    CLOCK_SKEW_MAX, HEALTH_EVERY_MAX, HEALTH_LOOK_EVERY, STATUS_FILE_EVERY, STATUS_FRESH_WITHIN,
};
use crate::link::CloudLink;
use crate::orchestrator::Modules;
use crate::storage::redb;
use crate::uplink::Uplink;

/// The status file's name in the data directory.
pub const FILE_NAME: &str = "status.json";

/// What `causeway-agent status` shows.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// The instance id.
    pub instance: String,
    /// The tenant's id.
    pub tenant: String,
    /// The cloud's URL.
    pub cloud: String,
    /// The agent's version.
    pub version: String,
    /// Process id.
    pub pid: u32,
    /// Unix milliseconds of the process start.
    pub started_ms: i64,
    /// Unix milliseconds of this report.
    pub written_ms: i64,
    /// Whether a session is up.
    pub online: bool,
    /// The channel in words.
    pub channel: String,
    /// Reports the cloud does not have.
    pub outbox: u64,
    /// Requests in work.
    pub requests_in_work: u32,
    /// Resident memory in bytes, 0 where unknown.
    pub rss_bytes: u64,
    /// Why writing to the disk fails, while it does.
    pub storage_trouble: Option<String>,
    /// Every configured module.
    pub modules: Vec<ModuleHealth>,
    /// Unix milliseconds since when the session is up.
    #[serde(default)]
    pub online_since_ms: Option<i64>,
    /// Unix milliseconds of the last health report the cloud took.
    #[serde(default)]
    pub health_told_ms: Option<i64>,
    /// Which way out the last connection to the outside took.
    #[serde(default)]
    pub way: Option<String>,
    /// Unix milliseconds of an orderly end; none while the agent runs, and after a crash.
    #[serde(default)]
    pub stopped_ms: Option<i64>,
}

/// What a reporter remembers between two looks; 0 for never.
#[derive(Debug, Default)]
pub(crate) struct Remembered {
    online_since_ms: AtomicI64,
    health_told_ms: AtomicI64,
}

/// What never changes while a process lives.
#[derive(Clone, Debug)]
pub(crate) struct Constants {
    pub(crate) instance: String,
    pub(crate) tenant: String,
    pub(crate) cloud: String,
    pub(crate) started_ms: i64,
}

/// Looks at everything. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Reporter {
    pub(crate) constants: Constants,
    pub(crate) channel: Channel,
    pub(crate) dispatcher: Dispatcher,
    pub(crate) modules: Modules,
    pub(crate) uplink: Uplink,
    pub(crate) storage_trouble: watch::Receiver<Option<String>>,
    pub(crate) welcome: watch::Receiver<Option<causeway_protocol::channel::payload::Welcome>>,
    pub(crate) clock: Clock,
    pub(crate) data_dir: PathBuf,
    pub(crate) dial: Arc<dyn Dial>,
    pub(crate) remembered: Arc<Remembered>,
}

impl Reporter {
    /// How everything is now.
    pub(crate) fn status(&self) -> Status {
        let state = self.channel.state().borrow().clone();
        Status {
            instance: self.constants.instance.clone(),
            tenant: self.constants.tenant.clone(),
            cloud: self.constants.cloud.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            started_ms: self.constants.started_ms,
            written_ms: self.clock.now_ms(),
            online: state == ChannelState::Online,
            channel: describe(&state),
            outbox: self.dispatcher.outbox().waiting(),
            requests_in_work: self.dispatcher.requests_in_work(),
            rss_bytes: rss_bytes(),
            storage_trouble: self.storage_trouble.borrow().clone(),
            modules: self.modules.health(),
            online_since_ms: self.online_since(state == ChannelState::Online),
            health_told_ms: Some(self.remembered.health_told_ms.load(Ordering::Relaxed)).filter(|at| *at > 0),
            way: self.dial.way(),
            stopped_ms: None,
        }
    }

    fn online_since(&self, online: bool) -> Option<i64> {
        let since = &self.remembered.online_since_ms;
        if !online {
            since.store(0, Ordering::Relaxed);
            return None;
        }
        match since.compare_exchange(0, self.clock.now_ms(), Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => Some(since.load(Ordering::Relaxed)),
            Err(at) => Some(at),
        }
    }

    /// Writes that the agent ends as it should, for whoever looks later.
    pub(crate) fn ended(&self) {
        let status = Status { stopped_ms: Some(self.clock.now_ms()), online: false, ..self.status() };
        write_file(&self.data_dir, &status);
    }

    /// Reports for as long as the agent runs: at the cloud's pace, and soon after a module changed.
    pub(crate) async fn run(self) {
        let mut last_sent: Option<(Instant, Vec<ModuleHealth>)> = None;
        let mut last_file: Option<(Instant, Status)> = None;
        // The first round always tells: an earlier process may have left an alert open.
        let mut trouble: Option<Option<String>> = None;
        let mut welcomed = self.welcome.clone();
        loop {
            let now = self.clock.now();
            let status = self.status();
            if trouble.as_ref() != Some(&status.storage_trouble) {
                self.uplink.notice(storage_notice(status.storage_trouble.as_deref()));
                trouble = Some(status.storage_trouble.clone());
            }
            if worth_writing(last_file.as_ref(), &status, now) {
                write_file(&self.data_dir, &status);
                last_file = Some((now, status.clone()));
            }
            if welcomed.has_changed().unwrap_or(false) {
                last_sent = None;
                let offset_ms =
                    welcomed.borrow_and_update().as_ref().map(|w| w.time_ms - self.clock.now_ms());
                if let Some(offset_ms) = offset_ms {
                    self.uplink.notice(clock_notice(offset_ms));
                }
            }
            if status.online && self.due(last_sent.as_ref(), &status, now) && self.send(&status).await {
                last_sent = Some((now, status.modules));
            }
            self.clock.sleep(HEALTH_LOOK_EVERY).await;
        }
    }

    fn due(&self, last: Option<&(Instant, Vec<ModuleHealth>)>, status: &Status, now: Instant) -> bool {
        let every = self.welcome.borrow().as_ref().map_or(HEALTH_EVERY_MAX, |welcome| {
            Duration::from_secs(u64::from(welcome.health_every_secs))
                .clamp(HEALTH_LOOK_EVERY, HEALTH_EVERY_MAX)
        });
        last.is_none_or(|(at, modules)| now - *at >= every || changed(modules, &status.modules))
    }

    async fn send(&self, status: &Status) -> bool {
        let report = Health {
            modules: status.modules.clone(),
            outbox: status.outbox,
            requests_in_work: status.requests_in_work,
            rss_bytes: status.rss_bytes,
        };
        match self.channel.ask(report.to_element()).await {
            Ok(_) => {
                self.remembered.health_told_ms.store(self.clock.now_ms(), Ordering::Relaxed);
                true
            }
            Err(error) => {
                tracing::debug!(%error, "A health report did not arrive");
                false
            }
        }
    }
}

/// Figures change all the time and wait for the next report; states do not.
fn changed(before: &[ModuleHealth], now: &[ModuleHealth]) -> bool {
    let essence = |modules: &[ModuleHealth]| -> Vec<_> {
        modules
            .iter()
            .map(|m| (m.module.clone(), m.state, m.detail.clone(), m.revision, m.restarts))
            .collect()
    };
    essence(before) != essence(now)
}

fn worth_writing(last: Option<&(Instant, Status)>, status: &Status, now: Instant) -> bool {
    last.is_none_or(|(at, before)| {
        now - *at >= STATUS_FILE_EVERY
            || before.channel != status.channel
            || before.storage_trouble != status.storage_trouble
            || changed(&before.modules, &status.modules)
    })
}

/// The channel in words.
pub fn describe(state: &ChannelState) -> String {
    match state {
        ChannelState::Connecting => "connecting".to_owned(),
        ChannelState::Online => "online".to_owned(),
        ChannelState::Waiting { delay_ms, reason, needs_admin } => {
            let who = if *needs_admin { "; a person must act" } else { "" };
            format!("offline, next attempt {} s after the last: {reason}{who}", delay_ms.div_ceil(1000))
        }
        ChannelState::Stopped => "stopped".to_owned(),
    }
}

/// Reads the status file of a data directory.
///
/// # Errors
/// When there is none or it is unreadable.
pub fn read_file(data_dir: &Path) -> std::io::Result<Status> {
    let bytes = std::fs::read(data_dir.join(FILE_NAME))?;
    serde_json::from_slice(&bytes).map_err(std::io::Error::other)
}

/// Whether the agent that wrote a status runs: it says that it does, not long ago, and still has its state file open.
pub fn runs(data_dir: &Path, status: &Status, now_ms: i64) -> bool {
    let limit = i64::try_from(STATUS_FRESH_WITHIN.as_millis()).unwrap_or(i64::MAX);
    let is_fresh = (now_ms - status.written_ms).abs() < limit;
    // A process that was killed wrote no last word; where its lock cannot be asked for, the age has to do.
    status.stopped_ms.is_none() && is_fresh && redb::is_open(data_dir).unwrap_or(true)
}

fn write_file(data_dir: &Path, status: &Status) {
    let path = data_dir.join(FILE_NAME);
    let fresh = data_dir.join("status.new");
    let json = serde_json::to_vec_pretty(status).expect("a status serialises to JSON");
    if let Err(error) = std::fs::write(&fresh, json).and_then(|()| crate::platform::replace(&fresh, &path)) {
        tracing::debug!(%error, "The status file could not be written");
    }
}

fn storage_notice(trouble: Option<&str>) -> Notice {
    Notice {
        code: "storage_failing".to_owned(),
        severity: Severity::Critical,
        subject: "storage".to_owned(),
        detail: trouble.unwrap_or("the agent can write its state again").to_owned(),
        remedy: "make room on the disk that holds the agent's data directory, and look at its permissions"
            .to_owned(),
        resolved: trouble.is_none(),
    }
}

fn clock_notice(offset_ms: i64) -> Notice {
    let skew = Duration::from_millis(offset_ms.unsigned_abs());
    let side = if offset_ms > 0 { "behind" } else { "ahead" };
    Notice {
        code: "clock_wrong".to_owned(),
        severity: Severity::Warning,
        subject: "clock".to_owned(),
        detail: format!("this machine's clock is {} s {side} the cloud's", skew.as_secs()),
        remedy: "synchronise the clock; Kerberos and certificates need it within 5 minutes".to_owned(),
        resolved: skew <= CLOCK_SKEW_MAX,
    }
}

/// What the agent found when it opened a damaged state file.
pub(crate) fn damaged_notice(kept_at: &Path) -> Notice {
    Notice {
        code: "state_file_damaged".to_owned(),
        severity: Severity::Warning,
        subject: "storage".to_owned(),
        detail: format!(
            "the state file was damaged; it is kept as {} and a new one is begun",
            kept_at.display()
        ),
        remedy: "nothing: everything is collected again; look for disk errors if it happens twice".to_owned(),
        resolved: false,
    }
}

fn rss_bytes() -> u64 {
    let Ok(status) = std::fs::read_to_string("/proc/self/status") else { return 0 };
    status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .and_then(|rest| rest.trim().split(' ').next()?.parse::<u64>().ok())
        .map_or(0, |kib| kib * 1024)
}
