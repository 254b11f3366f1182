//! What a phone remembers.

use std::collections::{BTreeMap, VecDeque};

use causeway_protocol::Chain;
use causeway_protocol::Secret;
use causeway_protocol::activesync::Version;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use utoipa::ToSchema;

use super::conversation::Setback;
use super::limits::{EVENTS_MAX, MESSAGES_SHOWN_MAX};
use super::model::PhoneModel;
use super::words::Heading;

/// How a visit ended, as the phone's owner would tell it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// It has not talked to the server yet.
    #[default]
    New,
    /// All mail fetched.
    Synced,
    /// One folder with a notice in it: somebody must let the phone in.
    Held,
    /// Turned away: the phone is blocked, or the server does not say why.
    Blocked,
    /// ActiveSync is off for the mailbox.
    Disabled,
    /// Wrong password, or the account may not sign in.
    SignInRefused,
    /// The phone does not do what the policy asks.
    PolicyRefused,
    /// The mailbox has too many phones.
    TooManyDevices,
    /// The server asked to come again later.
    Busy,
    /// No answer.
    Unreachable,
    /// An answer that makes no sense.
    Failed,
    /// The phone has wiped itself.
    Wiped,
    /// The phone has removed this account.
    AccountWiped,
}

impl Standing {
    /// Whether nothing of the account is left on the phone.
    pub fn is_wiped(self) -> bool {
        matches!(self, Self::Wiped | Self::AccountWiped)
    }
}

/// Something a phone experienced.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Event {
    /// Unix milliseconds of the mock's clock.
    pub at_ms: i64,
    /// What happened, in a word or two.
    pub what: String,
    /// Particulars.
    pub detail: String,
}

/// A folder on the phone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct FolderView {
    pub id: String,
    pub name: String,
    /// MS-ASCMD 2.2.3.186.3; 2 is the inbox.
    pub folder_type: u8,
}

/// A message on the phone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct MessageView {
    pub id: String,
    pub subject: String,
    pub from: String,
    pub read: bool,
}

/// Everything about a phone, without its password.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct PhoneView {
    pub user: String,
    pub device_id: String,
    pub device_type: String,
    pub model: String,
    pub url: String,
    pub on: bool,
    pub standing: Standing,
    /// Protocol version agreed upon.
    pub protocol: Option<String>,
    /// Whether it holds a policy key.
    pub provisioned: bool,
    /// The policy in force on it, by the names of the policy document.
    pub policy: BTreeMap<String, String>,
    pub folders: Vec<FolderView>,
    /// Messages it has.
    pub messages: usize,
    /// The newest of them.
    pub latest: Vec<MessageView>,
    /// Visits so far.
    pub visits: u64,
    pub log: Vec<Event>,
}

pub(super) struct Memory {
    pub(super) on: bool,
    pub(super) url: String,
    pub(super) user: String,
    pub(super) password: Secret,
    pub(super) standing: Standing,
    pub(super) version: Option<Version>,
    pub(super) policy_key: Option<u32>,
    pub(super) policy: BTreeMap<String, String>,
    pub(super) hierarchy_key: String,
    pub(super) folders: Vec<FolderView>,
    pub(super) inbox: Inbox,
    /// What the server asked for with its last refusal.
    pub(super) retry_after_secs: Option<u32>,
    /// Heartbeat and folder of the last Ping, which an empty one repeats.
    pub(super) pinged: Option<(u32, String)>,
    visits: u64,
    log: VecDeque<Event>,
}

/// The inbox as the phone has it.
pub(super) struct Inbox {
    pub(super) key: String,
    pub(super) messages: BTreeMap<String, Message>,
}

pub(super) struct Message {
    subject: String,
    from: String,
    text: String,
    read: bool,
    /// Counts up; the newest have the highest.
    order: usize,
}

impl Default for Inbox {
    fn default() -> Self {
        Self { key: "0".to_owned(), messages: BTreeMap::new() }
    }
}

impl Inbox {
    pub(super) fn put(&mut self, heading: Heading) {
        let order = self.messages.len();
        let known = self.messages.entry(heading.id).or_insert_with(|| Message {
            subject: String::new(),
            from: String::new(),
            text: String::new(),
            read: false,
            order,
        });
        known.subject = heading.subject.unwrap_or(std::mem::take(&mut known.subject));
        known.from = heading.from.unwrap_or(std::mem::take(&mut known.from));
        known.text = heading.text.unwrap_or(std::mem::take(&mut known.text));
        known.read = heading.read.unwrap_or(known.read);
    }
}

impl Memory {
    pub(super) fn new(url: String, user: String, password: Secret) -> Self {
        Self {
            on: true,
            url,
            user,
            password,
            standing: Standing::New,
            version: None,
            policy_key: None,
            policy: BTreeMap::new(),
            hierarchy_key: "0".to_owned(),
            folders: Vec::new(),
            inbox: Inbox::default(),
            retry_after_secs: None,
            pinged: None,
            visits: 0,
            log: VecDeque::new(),
        }
    }

    pub(super) fn note(&mut self, now_ms: i64, what: &str, detail: impl Into<String>) {
        if self.log.len() == EVENTS_MAX {
            self.log.pop_front();
        }
        self.log.push_back(Event { at_ms: now_ms, what: what.to_owned(), detail: detail.into() });
    }

    /// Forgets folders and mail; the policy stays.
    pub(super) fn start_over(&mut self) {
        "0".clone_into(&mut self.hierarchy_key);
        self.folders.clear();
        self.inbox = Inbox::default();
        self.pinged = None;
    }

    pub(super) fn wipe(&mut self, standing: Standing) {
        self.start_over();
        self.policy.clear();
        self.policy_key = None;
        self.version = None;
        self.standing = standing;
    }

    pub(super) fn set_up_again(&mut self, now_ms: i64) {
        self.wipe(Standing::New);
        self.note(now_ms, "set up again", "");
    }

    pub(super) fn switch(&mut self, on: bool, now_ms: i64) {
        if self.on != on {
            self.on = on;
            self.note(now_ms, if on { "switched on" } else { "switched off" }, "");
        }
    }

    /// The inbox, by its type.
    pub(super) fn inbox_id(&self) -> Option<&str> {
        self.folders.iter().find(|folder| folder.folder_type == 2).map(|folder| folder.id.as_str())
    }

    /// A phone cannot ask whether it is held. Its owner sees an inbox without anything beside it and a notice in it.
    fn is_held(&self) -> bool {
        let notice = |message: &Message| {
            let says = |text: &str| {
                let text = text.to_lowercase();
                text.contains("quarantine") || text.contains("temporarily blocked")
            };
            says(&message.subject) || says(&message.text)
        };
        self.folders.len() == 1 && !self.inbox.messages.is_empty() && self.inbox.messages.values().all(notice)
    }

    /// Draws the conclusion of a visit.
    pub(super) fn settle(&mut self, outcome: Result<(), Setback>, now_ms: i64) -> Standing {
        self.visits += 1;
        self.retry_after_secs = None;
        let (standing, detail) = match outcome {
            Ok(()) if self.is_held() => (Standing::Held, String::new()),
            Ok(()) => {
                let count = self.inbox.messages.len();
                (Standing::Synced, format!("{count} messages in {} folders", self.folders.len()))
            }
            Err(setback) => {
                if let Setback::Busy { after_secs } = setback {
                    self.retry_after_secs = after_secs;
                }
                (setback.standing(), Chain(&setback).to_string())
            }
        };
        let word = serde_json::to_value(standing).ok().and_then(|word| word.as_str().map(str::to_owned));
        self.note(now_ms, &word.unwrap_or_default().replace('_', " "), detail);
        self.standing = standing;
        standing
    }

    pub(super) fn view(&self, model: &PhoneModel, device_id: &str) -> PhoneView {
        let mut latest: Vec<_> = self.inbox.messages.iter().collect();
        latest.sort_by_key(|(_, message)| std::cmp::Reverse(message.order));
        let latest = latest.into_iter().take(MESSAGES_SHOWN_MAX).map(|(id, message)| MessageView {
            id: id.clone(),
            subject: message.subject.clone(),
            from: message.from.clone(),
            read: message.read,
        });
        PhoneView {
            user: self.user.clone(),
            device_id: device_id.to_owned(),
            device_type: model.device_type.clone(),
            model: model.model.clone(),
            url: self.url.clone(),
            on: self.on,
            standing: self.standing,
            protocol: self.version.map(|version| version.to_string()),
            provisioned: self.policy_key.is_some(),
            policy: self.policy.clone(),
            folders: self.folders.clone(),
            messages: self.inbox.messages.len(),
            latest: latest.collect(),
            visits: self.visits,
            log: self.log.iter().cloned().collect(),
        }
    }
}

impl std::fmt::Display for Event {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let at = OffsetDateTime::from_unix_timestamp_nanos(i128::from(self.at_ms) * 1_000_000);
        let at = at.ok().and_then(|at| at.format(&Rfc3339).ok()).unwrap_or_default();
        write!(f, "{at} {} {}", self.what, self.detail)
    }
}
