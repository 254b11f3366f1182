//! An organisation in memory behind the trait: it knows the cmdlets the module uses, believes nothing it is not told by
//! a parameter, and does the harm a real server does (a null or unknown identity gives everything).

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use causeway_protocol::clixml::{Content, Object, Value};
use causeway_protocol::cmdlet::{Cmdlet, Completed, ErrorRecord};
use futures_util::future::BoxFuture;
use tokio::sync::mpsc;
use tokio::time::Instant;
use uuid::Uuid;

use crate::directory::Net;
use crate::exchange::{Exchange, ExchangeError, ServerFacts, Session, Urgency};

/// A phone in a mailbox.
#[derive(Clone, Debug)]
pub(super) struct Phone {
    pub(super) guid: Uuid,
    pub(super) device_id: String,
    pub(super) mailbox: usize,
    pub(super) model: String,
    pub(super) first_sync: String,
    pub(super) last_sync: Option<String>,
    pub(super) status: String,
    pub(super) wipe: [Option<String>; 3],
    pub(super) account_wipe: [Option<String>; 3],
}

/// A mailbox.
#[derive(Clone, Debug, Default)]
pub(super) struct Mailbox {
    pub(super) guid: Uuid,
    pub(super) name: String,
    pub(super) allowed: Vec<String>,
    pub(super) blocked: Vec<String>,
    pub(super) policy: Option<String>,
    pub(super) marked: bool,
}

/// What the servers hold and how they behave.
pub(super) struct State {
    pub(super) phones: Vec<Phone>,
    pub(super) mailboxes: Vec<Mailbox>,
    pub(super) policies: BTreeMap<String, BTreeMap<String, String>>,
    pub(super) default_level: String,
    /// Cmdlets that do not exist here.
    pub(super) missing: Vec<String>,
    /// Whether lists can be changed by hashtables.
    pub(super) takes_changes: bool,
    /// What happens next to cmdlets, in order: the name's beginning and what.
    pub(super) trouble: VecDeque<(String, Trouble)>,
    pub(super) delay: Duration,
    pub(super) truncate_at: Option<usize>,
    /// Calls, as text.
    pub(super) log: Vec<String>,
    pub(super) sessions: usize,
    pub(super) sessions_max: usize,
    pub(super) budget: Option<Budget>,
    /// Reads see writes only so many reads later.
    pub(super) lag: usize,
    pub(super) clock_ms: i64,
    stale: VecDeque<(usize, Vec<Mailbox>)>,
    /// After so many more cmdlets the "process" dies: every call hangs.
    pub(super) dies_after: Option<usize>,
    /// States of phones that have been seen blocked although they existed before.
    pub(super) watch: Option<Vec<Uuid>>,
    pub(super) wrongly_held: Vec<String>,
    pub(super) before_cmdlet: Option<BeforeCmdlet>,
}

/// Changes the organisation before the cmdlet of a name runs.
pub(super) type BeforeCmdlet = Box<dyn FnMut(&mut Vec<Phone>, &mut Vec<Mailbox>, &str) + Send>;

/// What goes wrong.
#[derive(Clone, Debug)]
pub(super) enum Trouble {
    /// An error that ends the cmdlet.
    Fails(&'static str),
    /// An error beside the objects.
    Partly(&'static str),
    Unreachable,
    Credentials,
    Forbidden,
    Throttled(u64),
    /// It is done, and the answer is lost.
    AnswerLost,
}

/// A throttling policy: too much at once locks the account out.
#[derive(Clone, Debug)]
pub(super) struct Budget {
    pub(super) balance: f64,
    pub(super) max: f64,
    pub(super) per_sec: f64,
    pub(super) cost: f64,
    pub(super) cutoff: f64,
    pub(super) locked_until: Option<Instant>,
    pub(super) lockouts: u32,
    pub(super) refusals: u32,
    at: Instant,
}

impl Budget {
    pub(super) fn new(max: f64, per_sec: f64, cost: f64, cutoff: f64) -> Self {
        let at = Instant::now();
        Self { balance: max, max, per_sec, cost, cutoff, locked_until: None, lockouts: 0, refusals: 0, at }
    }

    /// Charges a cmdlet; gives the delay the server puts in, or that it refuses.
    fn charge(&mut self) -> Result<Duration, Duration> {
        let now = Instant::now();
        self.balance =
            (self.balance + now.duration_since(self.at).as_secs_f64() * self.per_sec).min(self.max);
        self.at = now;
        if let Some(until) = self.locked_until.filter(|until| *until > now) {
            self.refusals += 1;
            return Err(until - now);
        }
        self.balance -= self.cost;
        if self.balance < self.cutoff {
            self.lockouts += 1;
            self.locked_until = Some(now + Duration::from_secs(900));
            return Err(Duration::from_secs(900));
        }
        // Micro-delay: as long as the debt takes to be paid back, at most 22 s.
        let debt = (-self.balance).max(0.0) / self.per_sec;
        Ok(Duration::from_secs_f64(debt.min(22.0)))
    }
}

/// The organisation; clones are the same one.
#[derive(Clone)]
pub(super) struct Fake(Arc<Mutex<State>>);

pub(super) const OLD: &str = "2026-01-01T00:00:00Z";

impl Fake {
    /// `count` phones, about four mailboxes for five of them.
    pub(super) fn with_phones(count: usize) -> Self {
        let mut state = State {
            phones: Vec::new(),
            mailboxes: Vec::new(),
            policies: BTreeMap::from([
                ("Default".to_owned(), BTreeMap::new()),
                ("Strict".to_owned(), BTreeMap::new()),
            ]),
            default_level: "Allow".to_owned(),
            missing: Vec::new(),
            takes_changes: true,
            trouble: VecDeque::new(),
            delay: Duration::ZERO,
            truncate_at: None,
            log: Vec::new(),
            sessions: 0,
            sessions_max: 2,
            budget: None,
            lag: 0,
            clock_ms: 0,
            stale: VecDeque::new(),
            dies_after: None,
            watch: None,
            wrongly_held: Vec::new(),
            before_cmdlet: None,
        };
        for n in 0..count {
            if n % 5 != 4 || state.mailboxes.is_empty() {
                add_mailbox(&mut state.mailboxes, n);
            }
            let mailbox = state.mailboxes.len() - 1;
            state.phones.push(phone(n, mailbox));
        }
        Self(Arc::new(Mutex::new(state)))
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn trouble(&self, cmdlet: &str, trouble: Trouble) {
        self.state().trouble.push_back((cmdlet.to_owned(), trouble));
    }

    /// Calls of a cmdlet so far.
    pub(super) fn calls(&self, name: &str) -> usize {
        self.state().log.iter().filter(|call| call.starts_with(name)).count()
    }

    pub(super) fn phone(&self, n: usize) -> Phone {
        self.state().phones[n].clone()
    }
}

pub(super) fn add_mailbox(mailboxes: &mut Vec<Mailbox>, n: usize) {
    let name = format!("user{n}");
    mailboxes.push(Mailbox {
        guid: Uuid::from_u128(0x2000_0000 + n as u128),
        name,
        marked: true,
        ..Mailbox::default()
    });
}

pub(super) fn phone(n: usize, mailbox: usize) -> Phone {
    Phone {
        guid: Uuid::from_u128(0x1000_0000 + n as u128),
        device_id: format!("Appl{n:06}"),
        mailbox,
        model: "iPhone14C2".to_owned(),
        first_sync: OLD.to_owned(),
        last_sync: Some("2026-11-01T00:00:00Z".to_owned()),
        status: "DeviceOk".to_owned(),
        wipe: [None, None, None],
        account_wipe: [None, None, None],
    }
}

impl State {
    /// The decision of the sheet, as far as it matters here.
    pub(super) fn access(&self, phone: &Phone) -> (&'static str, &'static str) {
        let mailbox = &self.mailboxes[phone.mailbox];
        if mailbox.blocked.contains(&phone.device_id) {
            ("Blocked", "Individual")
        } else if mailbox.allowed.contains(&phone.device_id) {
            ("Allowed", "Individual")
        } else {
            match self.default_level.as_str() {
                "Allow" => ("Allowed", "Global"),
                "Block" => ("Blocked", "Global"),
                _ => ("Quarantined", "Global"),
            }
        }
    }

    fn look(&mut self) {
        let Some(watched) = &self.watch else { return };
        for phone in &self.phones {
            if watched.contains(&phone.guid) && self.access(phone).0 != "Allowed" {
                self.wrongly_held.push(phone.device_id.clone());
            }
        }
    }

    fn identity(&self, phone: &Phone) -> String {
        let owner = &self.mailboxes[phone.mailbox].name;
        format!("acme.example/Users/{owner}/ExchangeActiveSyncDevices/iPhone§{}", phone.device_id)
    }

    fn phone_object(&self, phone: &Phone, statistics: bool) -> Object {
        let owner = &self.mailboxes[phone.mailbox];
        let (state, reason) = self.access(phone);
        let mut properties: Vec<(&str, Value)> = vec![
            ("Guid", Value::Guid(phone.guid.to_string())),
            ("DeviceId", phone.device_id.as_str().into()),
            ("Identity", self.identity(phone).into()),
            ("UserDisplayName", format!("acme.example/Users/{}", owner.name).into()),
            ("DeviceModel", phone.model.as_str().into()),
            ("DeviceType", "iPhone".into()),
            ("DeviceAccessState", Value::enumeration("X.DeviceAccessState", state, 1)),
            ("DeviceAccessStateReason", Value::enumeration("X.DeviceAccessStateReason", reason, 1)),
            ("FirstSyncTime", Value::DateTime(phone.first_sync.clone())),
            ("RunspaceId", Value::Guid(Uuid::from_u128(self.log.len() as u128).to_string())),
        ];
        if statistics {
            let time = |time: &Option<String>| time.clone().map_or(Value::Null, Value::DateTime);
            properties.extend([
                ("LastSuccessSync", time(&phone.last_sync)),
                ("LastSyncAttemptTime", time(&phone.last_sync)),
                ("Status", phone.status.as_str().into()),
                ("DevicePolicyApplied", owner.policy.clone().unwrap_or("Default".to_owned()).into()),
                ("DeviceWipeRequestTime", time(&phone.wipe[0])),
                ("DeviceWipeSentTime", time(&phone.wipe[1])),
                ("DeviceWipeAckTime", time(&phone.wipe[2])),
                ("AccountOnlyDeviceWipeRequestTime", time(&phone.account_wipe[0])),
                ("AccountOnlyDeviceWipeSentTime", time(&phone.account_wipe[1])),
                ("AccountOnlyDeviceWipeAckTime", time(&phone.account_wipe[2])),
            ]);
        }
        object(properties)
    }

    fn mailbox_object(&self, mailbox: &Mailbox) -> Object {
        let list = |ids: &[String]| Value::list(ids.iter().map(|id| id.as_str().into()).collect());
        object(vec![
            ("Guid", Value::Guid(mailbox.guid.to_string())),
            ("Identity", format!("acme.example/Users/{}", mailbox.name).into()),
            ("SamAccountName", mailbox.name.as_str().into()),
            ("PrimarySmtpAddress", format!("{}@acme.example", mailbox.name).into()),
            ("ServerName", "ex1".into()),
            ("ActiveSyncMailboxPolicy", mailbox.policy.clone().map_or(Value::Null, Value::from)),
            ("ActiveSyncAllowedDeviceIDs", list(&mailbox.allowed)),
            ("ActiveSyncBlockedDeviceIDs", list(&mailbox.blocked)),
        ])
    }

    fn mailbox_at(&self, identity: &str) -> Option<usize> {
        let identity = identity.to_lowercase();
        self.mailboxes.iter().position(|it| {
            it.guid.to_string() == identity
                || it.name == identity
                || format!("{}@acme.example", it.name) == identity
                || format!("acme.example/users/{}", it.name) == identity
        })
    }

    fn answer(&mut self, cmdlet: &Cmdlet) -> Result<Vec<Object>, ErrorRecord> {
        let text = |name: &str| cmdlet.parameter(name).and_then(Value::text).map(|it| it.into_owned());
        let verb = cmdlet.name.as_str();
        if self.missing.iter().any(|missing| missing == verb) {
            return Err(record("CommandNotFoundException"));
        }
        let gone = || Err(record("ManagementObjectNotFoundException"));
        let by_identity = |state: &Self| {
            text("Identity").and_then(|id| state.phones.iter().position(|it| it.guid.to_string() == id))
        };
        match verb {
            "Get-MobileDevice" | "Get-ActiveSyncDevice" => {
                // The trap: an identity that is empty or unknown gives everything.
                let all = 0..self.phones.len();
                let range = by_identity(self).map_or(all, |at| at..at + 1);
                let cut = self.truncate_at.filter(|_| text("Identity").is_none()).unwrap_or(usize::MAX);
                Ok(range.take(cut).map(|at| self.phone_object(&self.phones[at], false)).collect())
            }
            "Get-MobileDeviceStatistics" | "Get-ActiveSyncDeviceStatistics" => {
                if let Some(mailbox) = text("Mailbox") {
                    let Some(mailbox) = self.mailbox_at(&mailbox) else { return gone() };
                    let mine = self.phones.iter().filter(|it| it.mailbox == mailbox);
                    return Ok(mine.map(|it| self.phone_object(it, true)).collect());
                }
                let Some(at) = by_identity(self) else { return gone() };
                Ok(vec![self.phone_object(&self.phones[at], true)])
            }
            "Clear-MobileDevice" | "Clear-ActiveSyncDevice" => {
                let Some(at) = by_identity(self) else { return gone() };
                let now = super::at_ms(self.clock_ms + 1_000);
                let phone = &mut self.phones[at];
                if cmdlet.parameter("Cancel").is_some() {
                    phone.wipe = [None, None, None];
                    phone.account_wipe = [None, None, None];
                    phone.status = "DeviceOk".to_owned();
                } else if cmdlet.parameter("AccountOnly").is_some() {
                    phone.account_wipe[0] = Some(now);
                    phone.status = "AccountOnlyDeviceWipePending".to_owned();
                } else {
                    phone.wipe[0] = Some(now);
                    phone.status = "DeviceWipePending".to_owned();
                }
                Ok(Vec::new())
            }
            "Remove-MobileDevice" | "Remove-ActiveSyncDevice" => {
                let Some(at) = by_identity(self) else { return gone() };
                self.phones.remove(at);
                Ok(Vec::new())
            }
            "Get-CASMailbox" => match text("Identity") {
                Some(identity) => {
                    let Some(at) = self.mailbox_at(&identity) else { return gone() };
                    let seen = match self.stale.front_mut() {
                        Some((left, before)) if *left > 0 => {
                            *left -= 1;
                            before[at].clone()
                        }
                        _ => self.mailboxes[at].clone(),
                    };
                    Ok(vec![self.mailbox_object(&seen)])
                }
                None => {
                    let marked = self.mailboxes.iter().filter(|it| it.marked);
                    Ok(marked.map(|it| self.mailbox_object(it)).collect())
                }
            },
            "Set-CASMailbox" => self.set_mailbox(cmdlet, text("Identity").unwrap_or_default()),
            "Get-ActiveSyncOrganizationSettings" => {
                Ok(vec![object(vec![("DefaultAccessLevel", self.default_level.as_str().into())])])
            }
            "Set-ActiveSyncOrganizationSettings" => {
                self.default_level = text("DefaultAccessLevel").unwrap();
                self.look();
                Ok(Vec::new())
            }
            "Get-MobileDeviceMailboxPolicy" => Ok(self
                .policies
                .iter()
                .map(|(name, settings)| {
                    let mut properties: Vec<(&str, Value)> = vec![("Name", name.as_str().into())];
                    properties
                        .extend(settings.iter().map(|(key, value)| (key.as_str(), value.as_str().into())));
                    object(properties)
                })
                .collect()),
            "New-MobileDeviceMailboxPolicy" | "Set-MobileDeviceMailboxPolicy" => {
                let name = text("Name").or(text("Identity")).unwrap();
                let policy = self.policies.entry(name).or_default();
                for (key, value) in &cmdlet.parameters {
                    if !["Name", "Identity", "Confirm"].contains(&key.as_str()) {
                        policy.insert(key.clone(), value.text().unwrap().into_owned());
                    }
                }
                Ok(Vec::new())
            }
            "Get-ExchangeServer" => {
                Ok(vec![object(vec![("AdminDisplayVersion", "Version 15.2 (Build 1544.4)".into())])])
            }
            "Get-OrganizationConfig" => Ok(vec![object(vec![("Name", "Acme".into())])]),
            _ => Err(record("CommandNotFoundException")),
        }
    }

    fn set_mailbox(&mut self, cmdlet: &Cmdlet, identity: String) -> Result<Vec<Object>, ErrorRecord> {
        let Some(at) = self.mailbox_at(&identity) else {
            return Err(record("ManagementObjectNotFoundException"));
        };
        if self.lag > 0 {
            self.stale.push_back((self.lag, self.mailboxes.clone()));
        }
        for (name, value) in &cmdlet.parameters {
            let mailbox = &mut self.mailboxes[at];
            let list = match name.as_str() {
                "ActiveSyncAllowedDeviceIDs" => &mut mailbox.allowed,
                "ActiveSyncBlockedDeviceIDs" => &mut mailbox.blocked,
                "ActiveSyncMailboxPolicy" => {
                    mailbox.policy = value.text().map(|it| it.into_owned());
                    continue;
                }
                _ => continue,
            };
            let ids = |value: &Value| -> Vec<String> {
                value.items().iter().map(|it| it.text().unwrap().into_owned()).collect()
            };
            match value {
                Value::Object(object) if matches!(object.content, Content::Dictionary(_)) => {
                    if !self.takes_changes {
                        return Err(record("ParameterBindingArgumentTransformationException"));
                    }
                    let Content::Dictionary(entries) = &object.content else { unreachable!() };
                    for (key, value) in entries {
                        for id in ids(value) {
                            list.retain(|known| *known != id);
                            if key.text().as_deref() == Some("Add") {
                                list.push(id);
                            }
                        }
                    }
                }
                value => *list = ids(value),
            }
        }
        self.look();
        Ok(Vec::new())
    }
}

fn object(properties: Vec<(&str, Value)>) -> Object {
    let adapted = properties.into_iter().map(|(name, value)| (name.into(), value)).collect();
    Object { adapted, ..Object::default() }
}

pub(super) fn record(reason: &str) -> ErrorRecord {
    ErrorRecord {
        message: format!("the server says {reason}"),
        reason: reason.to_owned(),
        ..ErrorRecord::default()
    }
}

impl Exchange for Fake {
    fn open(&self, _: Net, _: Urgency) -> BoxFuture<'_, Result<Box<dyn Session>, ExchangeError>> {
        Box::pin(async move {
            let mut state = self.state();
            if let Some(error) = state.take_session_trouble("open") {
                return Err(error);
            }
            if state.sessions >= state.sessions_max {
                let detail = "MaxConcurrency".to_owned();
                return Err(ExchangeError::Throttled { detail, retry_after: None });
            }
            state.sessions += 1;
            drop(state);
            Ok(Box::new(FakeSession { fake: self.clone(), open: true }) as Box<dyn Session>)
        })
    }
}

impl State {
    fn take_session_trouble(&mut self, name: &str) -> Option<ExchangeError> {
        let detail = "as the test wants".to_owned();
        let error = match self.trouble.front()? {
            (at, _) if name != at => return None,
            (_, Trouble::Unreachable) => ExchangeError::Unreachable { detail },
            (_, Trouble::Credentials) => ExchangeError::Credentials { detail },
            (_, Trouble::Forbidden) => ExchangeError::Forbidden { detail },
            (_, Trouble::Throttled(secs)) => {
                ExchangeError::Throttled { detail, retry_after: Some(Duration::from_secs(*secs)) }
            }
            _ => return None,
        };
        self.trouble.pop_front();
        Some(error)
    }
}

struct FakeSession {
    fake: Fake,
    open: bool,
}

impl Drop for FakeSession {
    fn drop(&mut self) {
        if self.open {
            let mut state = self.fake.state();
            state.sessions = state.sessions.saturating_sub(1);
        }
    }
}

impl Session for FakeSession {
    fn run<'a>(
        &'a mut self,
        cmdlet: &'a Cmdlet,
        objects: mpsc::Sender<Object>,
    ) -> BoxFuture<'a, Result<Completed, ExchangeError>> {
        Box::pin(async move {
            let wait = {
                let mut state = self.fake.state();
                match &mut state.dies_after {
                    Some(0) => None,
                    Some(left) => {
                        *left -= 1;
                        Some(state.delay)
                    }
                    None => Some(state.delay),
                }
            };
            match wait {
                None => std::future::pending::<()>().await,
                Some(delay) if !delay.is_zero() => tokio::time::sleep(delay).await,
                Some(_) => tokio::task::yield_now().await,
            }
            let charged = self.fake.state().budget.as_mut().map(Budget::charge);
            match charged {
                Some(Err(left)) => {
                    let detail = "the account is locked out".to_owned();
                    return Err(ExchangeError::Throttled { detail, retry_after: Some(left) });
                }
                Some(Ok(delay)) => tokio::time::sleep(delay).await,
                None => {}
            }
            let (answer, completed, lost) = self.fake.state().perform(cmdlet)?;
            for object in answer {
                if objects.send(object).await.is_err() {
                    return Err(ExchangeError::Stopped);
                }
            }
            if lost {
                return Err(ExchangeError::Unreachable { detail: "the answer was lost".to_owned() });
            }
            Ok(completed)
        })
    }

    fn server(&self) -> ServerFacts {
        ServerFacts { host: "ex1.acme.example".to_owned(), online: false }
    }

    fn close(self: Box<Self>) -> BoxFuture<'static, ()> {
        Box::pin(async move { drop(self) })
    }
}

impl State {
    fn perform(&mut self, cmdlet: &Cmdlet) -> Result<(Vec<Object>, Completed, bool), ExchangeError> {
        let shown: Vec<String> = cmdlet
            .parameters
            .iter()
            .map(|(name, value)| format!(" -{name} {}", value.text().unwrap_or("@{...}".into())))
            .collect();
        self.log.push(format!("{}{}", cmdlet.name, shown.concat()));
        if let Some(mut before) = self.before_cmdlet.take() {
            before(&mut self.phones, &mut self.mailboxes, &cmdlet.name);
            self.before_cmdlet = Some(before);
        }
        if let Some(error) = self.take_session_trouble(&cmdlet.name) {
            return Err(error);
        }
        let trouble = match self.trouble.front() {
            Some((at, _)) if cmdlet.name == *at => self.trouble.pop_front().map(|it| it.1),
            _ => None,
        };
        let mut completed = Completed::default();
        if let Some(Trouble::Fails(reason)) = trouble {
            completed.failure = Some(record(reason));
            return Ok((Vec::new(), completed, false));
        }
        if let Some(Trouble::Partly(reason)) = &trouble {
            completed.errors.push(record(reason));
        }
        let listing = cmdlet.parameter("ResultSize").is_some() && cmdlet.name.ends_with("Device");
        if listing && self.truncate_at.is_some() {
            completed.warnings.push("There are more results; use the ResultSize parameter".to_owned());
        }
        let lost = matches!(trouble, Some(Trouble::AnswerLost));
        match self.answer(cmdlet) {
            Ok(objects) => Ok((objects, completed, lost)),
            Err(record) => {
                completed.failure = Some(record);
                Ok((Vec::new(), completed, lost))
            }
        }
    }
}
