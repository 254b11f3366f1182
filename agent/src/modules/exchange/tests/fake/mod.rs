//! An organisation in memory behind the trait: it knows the cmdlets the module uses, believes nothing it is not told by
//! a parameter, and does the harm a real server does (a null or unknown identity gives everything).

mod cmdlets;
mod session;

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use uuid::Uuid;

/// A phone in a mailbox.
#[derive(Clone, Debug)]
pub(in crate::modules::exchange) struct Phone {
    pub(in crate::modules::exchange) guid: Uuid,
    pub(in crate::modules::exchange) device_id: String,
    pub(in crate::modules::exchange) mailbox: usize,
    pub(in crate::modules::exchange) model: String,
    pub(in crate::modules::exchange) first_sync: String,
    pub(in crate::modules::exchange) last_sync: Option<String>,
    pub(in crate::modules::exchange) status: String,
    pub(in crate::modules::exchange) wipe: [Option<String>; 3],
    pub(in crate::modules::exchange) account_wipe: [Option<String>; 3],
}

/// A mailbox.
#[derive(Clone, Debug, Default)]
pub(in crate::modules::exchange) struct Mailbox {
    pub(in crate::modules::exchange) guid: Uuid,
    pub(in crate::modules::exchange) name: String,
    pub(in crate::modules::exchange) allowed: Vec<String>,
    pub(in crate::modules::exchange) blocked: Vec<String>,
    pub(in crate::modules::exchange) policy: Option<String>,
    pub(in crate::modules::exchange) marked: bool,
}

/// What the servers hold and how they behave.
pub(in crate::modules::exchange) struct State {
    pub(in crate::modules::exchange) phones: Vec<Phone>,
    pub(in crate::modules::exchange) mailboxes: Vec<Mailbox>,
    pub(in crate::modules::exchange) policies: BTreeMap<String, BTreeMap<String, String>>,
    pub(in crate::modules::exchange) default_level: String,
    /// Cmdlets that do not exist here.
    pub(in crate::modules::exchange) missing: Vec<String>,
    /// Whether lists can be changed by hashtables.
    pub(in crate::modules::exchange) takes_changes: bool,
    /// Mailboxes from this one on are in another domain: who names a domain controller does not find them.
    pub(in crate::modules::exchange) other_domain_from: Option<usize>,
    /// Whether phones can be chosen by a filter.
    pub(in crate::modules::exchange) takes_filters: bool,
    /// What happens next to cmdlets, in order: the name's beginning and what.
    pub(in crate::modules::exchange) trouble: VecDeque<(String, Trouble)>,
    pub(in crate::modules::exchange) delay: Duration,
    pub(in crate::modules::exchange) truncate_at: Option<usize>,
    /// Calls, as text.
    pub(in crate::modules::exchange) log: Vec<String>,
    pub(in crate::modules::exchange) sessions: usize,
    pub(in crate::modules::exchange) sessions_max: usize,
    /// Reads see writes only so many reads later.
    pub(in crate::modules::exchange) lag: usize,
    pub(in crate::modules::exchange) clock_ms: i64,
    stale: VecDeque<(usize, Vec<Mailbox>)>,
    /// After so many more cmdlets the "process" dies: every call hangs.
    pub(in crate::modules::exchange) dies_after: Option<usize>,
    /// States of phones that have been seen blocked although they existed before.
    pub(in crate::modules::exchange) watch: Option<Vec<Uuid>>,
    pub(in crate::modules::exchange) wrongly_held: Vec<String>,
    pub(in crate::modules::exchange) before_cmdlet: Option<BeforeCmdlet>,
}

/// Changes the organisation before the cmdlet of a name runs.
pub(in crate::modules::exchange) type BeforeCmdlet =
    Box<dyn FnMut(&mut Vec<Phone>, &mut Vec<Mailbox>, &str) + Send>;

/// What goes wrong.
#[derive(Clone, Debug)]
pub(in crate::modules::exchange) enum Trouble {
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

/// The organisation; clones are the same one.
#[derive(Clone)]
pub(in crate::modules::exchange) struct Fake(Arc<Mutex<State>>);

pub(in crate::modules::exchange) const OLD: &str = "2026-01-01T00:00:00Z";

impl Fake {
    /// `count` phones, about four mailboxes for five of them.
    pub(in crate::modules::exchange) fn with_phones(count: usize) -> Self {
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
            takes_filters: true,
            other_domain_from: None,
            trouble: VecDeque::new(),
            delay: Duration::ZERO,
            truncate_at: None,
            log: Vec::new(),
            sessions: 0,
            sessions_max: 2,
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

    pub(in crate::modules::exchange) fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(in crate::modules::exchange) fn trouble(&self, cmdlet: &str, trouble: Trouble) {
        self.state().trouble.push_back((cmdlet.to_owned(), trouble));
    }

    /// Calls of a cmdlet so far.
    pub(in crate::modules::exchange) fn calls(&self, name: &str) -> usize {
        self.state().log.iter().filter(|call| call.starts_with(name)).count()
    }

    pub(in crate::modules::exchange) fn phone(&self, n: usize) -> Phone {
        self.state().phones[n].clone()
    }
}

pub(in crate::modules::exchange) fn add_mailbox(mailboxes: &mut Vec<Mailbox>, n: usize) {
    let name = format!("user{n}");
    mailboxes.push(Mailbox {
        guid: Uuid::from_u128(0x2000_0000 + n as u128),
        name,
        marked: true,
        ..Mailbox::default()
    });
}

pub(in crate::modules::exchange) fn phone(n: usize, mailbox: usize) -> Phone {
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
    pub(in crate::modules::exchange) fn access(&self, phone: &Phone) -> (&'static str, &'static str) {
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
}
