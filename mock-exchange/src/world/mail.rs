//! What is in a mailbox, and what a phone already has of it.

use std::collections::{BTreeMap, HashMap};

use serde::Serialize;

use super::device::PartnershipId;
use super::mailbox::MailboxId;
use crate::limits::MESSAGES_PER_MAILBOX_MAX;

/// A folder (MS-ASCMD 2.2.3.186.3 for the type).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Folder {
    pub id: &'static str,
    pub name: &'static str,
    pub folder_type: u8,
}

/// The inbox's id.
pub const INBOX: &str = "5";

/// The folders every mailbox has, all at the top.
pub const FOLDERS: [Folder; 8] = [
    Folder { id: "1", name: "Calendar", folder_type: 8 },
    Folder { id: "2", name: "Contacts", folder_type: 9 },
    Folder { id: "3", name: "Deleted Items", folder_type: 4 },
    Folder { id: "4", name: "Drafts", folder_type: 3 },
    Folder { id: INBOX, name: "Inbox", folder_type: 2 },
    Folder { id: "6", name: "Outbox", folder_type: 6 },
    Folder { id: "7", name: "Sent Items", folder_type: 5 },
    Folder { id: "8", name: "Tasks", folder_type: 7 },
];

/// A message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Message {
    /// `<folder>:<number>`.
    pub id: String,
    pub from: String,
    pub to: String,
    pub subject: String,
    pub body: String,
    pub received_ms: i64,
    pub read: bool,
}

/// What is new in a folder since a sync key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SyncPage {
    /// To be shown next time.
    pub key: u32,
    pub adds: Vec<Message>,
    pub changes: Vec<Message>,
    /// Ids of messages that are gone.
    pub deletes: Vec<String>,
    /// There is more than the window holds.
    pub more: bool,
}

/// Why there is no page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyncError {
    /// Neither the present key nor the one before: the phone must begin again with 0.
    InvalidKey,
    NoSuchFolder,
    /// What the phone may see has changed (held, or allowed again): it must fetch its folders again.
    HierarchyChanged,
    /// The partnership is gone.
    Gone,
}

#[derive(Clone, Debug)]
struct Entry {
    message: Message,
    created: u64,
    changed: u64,
    deleted: bool,
}

/// One folder of one mailbox.
#[derive(Clone, Debug, Default)]
struct Store {
    entries: Vec<Entry>,
    /// Counts changes.
    log: u64,
}

/// What a phone has of one folder.
#[derive(Clone, Copy, Debug)]
struct Position {
    key: u32,
    at: u64,
    /// The key before, in case the answer never arrived.
    before: Option<(u32, u64)>,
}

impl Position {
    /// Where the changes after this key begin: the present key, or the one before.
    fn from(&self, key: u32) -> Option<u64> {
        match self.before {
            _ if self.key == key => Some(self.at),
            Some((before, at)) if before == key => Some(at),
            _ => None,
        }
    }
}

/// The mailboxes somebody has looked into, and how far each phone has read.
#[derive(Clone, Debug, Default)]
pub(super) struct Mail {
    stores: HashMap<(MailboxId, &'static str), Store>,
    /// By phone and folder; a held phone reads another inbox, the one with the notice.
    positions: BTreeMap<(PartnershipId, &'static str), Position>,
    /// The notice each held phone sees in its inbox.
    notices: HashMap<PartnershipId, Store>,
}

impl Mail {
    /// Whether a mailbox has been filled already.
    pub(super) fn is_open(&self, mailbox: MailboxId) -> bool {
        self.stores.contains_key(&(mailbox, INBOX))
    }

    /// Marks a mailbox as filled.
    pub(super) fn open(&mut self, mailbox: MailboxId) {
        self.stores.entry((mailbox, INBOX)).or_default();
    }

    pub(super) fn has_notice(&self, phone: PartnershipId) -> bool {
        self.notices.contains_key(&phone)
    }

    pub(super) fn put_notice(&mut self, phone: PartnershipId, message: Message) {
        self.notices.entry(phone).or_default().add(message, INBOX);
    }

    pub(super) fn forget_notice(&mut self, phone: PartnershipId) {
        self.notices.remove(&phone);
    }

    /// Puts a message into a folder. `None` when the folder does not exist or is full.
    pub(super) fn deliver(&mut self, mailbox: MailboxId, folder: &str, message: Message) -> Option<String> {
        let folder = folder_id(folder)?;
        self.stores.entry((mailbox, folder)).or_default().add(message, folder)
    }

    /// Changes or removes a message. False when it is not there.
    pub(super) fn mark(&mut self, mailbox: MailboxId, id: &str, change: Mark) -> bool {
        let Some(folder) = id.split(':').next().and_then(folder_id) else { return false };
        self.stores.get_mut(&(mailbox, folder)).is_some_and(|store| store.mark(id, change))
    }

    /// Every message of a folder, oldest first.
    pub(super) fn messages(&self, mailbox: MailboxId, folder: &str) -> Vec<Message> {
        let store = folder_id(folder).and_then(|folder| self.stores.get(&(mailbox, folder)));
        store.map_or_else(Vec::new, |store| store.live().cloned().collect())
    }

    pub(super) fn notice(&self, phone: PartnershipId) -> Vec<Message> {
        self.notices.get(&phone).map_or_else(Vec::new, |store| store.live().cloned().collect())
    }

    /// The changes since `key`; 0 begins anew and gives nothing but a key.
    pub(super) fn sync(
        &mut self,
        phone: PartnershipId,
        mailbox: MailboxId,
        held: bool,
        folder: &str,
        key: u32,
        window: usize,
    ) -> Result<SyncPage, SyncError> {
        let folder = folder_id(folder).ok_or(SyncError::NoSuchFolder)?;
        if held && folder != INBOX {
            return Err(SyncError::NoSuchFolder);
        }
        if key == 0 {
            self.positions.insert((phone, folder), Position { key: 1, at: 0, before: None });
            return Ok(SyncPage { key: 1, ..SyncPage::default() });
        }
        let position = self.positions.get_mut(&(phone, folder)).ok_or(SyncError::InvalidKey)?;
        let from = position.from(key).ok_or(SyncError::InvalidKey)?;
        let empty = Store::default();
        let store = match held {
            true => self.notices.get(&phone),
            false => self.stores.get(&(mailbox, folder)),
        };
        let (mut page, at) = store.unwrap_or(&empty).since(from, window.max(1));
        page.key = key + 1;
        *position = Position { key: page.key, at, before: Some((key, from)) };
        Ok(page)
    }

    /// How many changes a phone with this key has to fetch; tells a valid key from another without moving on.
    pub(super) fn pending(
        &self,
        phone: PartnershipId,
        mailbox: MailboxId,
        held: bool,
        folder: &str,
        key: u32,
    ) -> Result<usize, SyncError> {
        let folder = folder_id(folder).ok_or(SyncError::NoSuchFolder)?;
        if held && folder != INBOX {
            return Err(SyncError::NoSuchFolder);
        }
        let position = self.positions.get(&(phone, folder)).ok_or(SyncError::InvalidKey)?;
        let from = position.from(key).ok_or(SyncError::InvalidKey)?;
        let store = match held {
            true => self.notices.get(&phone),
            false => self.stores.get(&(mailbox, folder)),
        };
        let page = store.map(|store| store.since(from, usize::MAX).0);
        Ok(page.map_or(0, |page| page.adds.len() + page.changes.len() + page.deletes.len()))
    }

    /// Whether a phone has something to fetch in a folder.
    pub(super) fn has_news(
        &self,
        phone: PartnershipId,
        mailbox: MailboxId,
        held: bool,
        folder: &str,
    ) -> bool {
        let Some(folder) = folder_id(folder) else { return false };
        let at = self.positions.get(&(phone, folder)).map_or(0, |position| position.at);
        let store = match held {
            true => self.notices.get(&phone),
            false => self.stores.get(&(mailbox, folder)),
        };
        store.is_some_and(|store| !store.since(at, 1).0.is_nothing())
    }

    /// Forgets what a phone has.
    pub(super) fn forget(&mut self, phone: PartnershipId) {
        self.positions.retain(|(known, _), _| *known != phone);
        self.notices.remove(&phone);
    }

    /// Makes a phone fetch everything anew.
    pub(super) fn invalidate(&mut self, phone: PartnershipId) {
        self.positions.retain(|(known, _), _| *known != phone);
    }
}

/// What is done to a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    Read(bool),
    Delete,
}

impl SyncPage {
    fn is_nothing(&self) -> bool {
        self.adds.is_empty() && self.changes.is_empty() && self.deletes.is_empty()
    }
}

impl Store {
    fn live(&self) -> impl Iterator<Item = &Message> {
        self.entries.iter().filter(|entry| !entry.deleted).map(|entry| &entry.message)
    }

    fn add(&mut self, mut message: Message, folder: &str) -> Option<String> {
        if self.entries.len() >= MESSAGES_PER_MAILBOX_MAX {
            return None;
        }
        self.log += 1;
        message.id = format!("{folder}:{}", self.log);
        let id = message.id.clone();
        self.entries.push(Entry { message, created: self.log, changed: self.log, deleted: false });
        Some(id)
    }

    fn mark(&mut self, id: &str, change: Mark) -> bool {
        let Some(entry) = self.entries.iter_mut().find(|entry| entry.message.id == id && !entry.deleted)
        else {
            return false;
        };
        match change {
            Mark::Read(read) if entry.message.read == read => return true,
            Mark::Read(read) => entry.message.read = read,
            Mark::Delete => entry.deleted = true,
        }
        self.log += 1;
        entry.changed = self.log;
        true
    }

    /// At most `window` changes after `from`, and the position after them.
    fn since(&self, from: u64, window: usize) -> (SyncPage, u64) {
        let mut changed: Vec<&Entry> = self.entries.iter().filter(|entry| entry.changed > from).collect();
        changed.sort_by_key(|entry| entry.changed);
        let mut page = SyncPage { more: changed.len() > window, ..SyncPage::default() };
        let mut at = from;
        for entry in changed.into_iter().take(window) {
            at = entry.changed;
            match (entry.deleted, entry.created > from) {
                (true, true) => {}
                (true, false) => page.deletes.push(entry.message.id.clone()),
                (false, true) => page.adds.push(entry.message.clone()),
                (false, false) => page.changes.push(entry.message.clone()),
            }
        }
        (page, at)
    }
}

fn folder_id(id: &str) -> Option<&'static str> {
    FOLDERS.iter().find(|folder| folder.id == id).map(|folder| folder.id)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PHONE: PartnershipId = PartnershipId(1);
    const BOX: MailboxId = MailboxId(0);

    fn message(subject: &str) -> Message {
        Message {
            id: String::new(),
            from: "a@x".into(),
            to: "b@x".into(),
            subject: subject.into(),
            body: String::new(),
            received_ms: 0,
            read: false,
        }
    }

    fn filled(count: usize) -> Mail {
        let mut mail = Mail::default();
        for number in 0..count {
            mail.deliver(BOX, INBOX, message(&number.to_string())).unwrap();
        }
        mail
    }

    fn sync(mail: &mut Mail, key: u32, window: usize) -> Result<SyncPage, SyncError> {
        mail.sync(PHONE, BOX, false, INBOX, key, window)
    }

    #[test]
    fn pages_follow_each_other_and_a_lost_answer_is_given_again() {
        let mut mail = filled(3);
        assert_eq!(sync(&mut mail, 1, 2), Err(SyncError::InvalidKey));
        let first = sync(&mut mail, 0, 2).unwrap();
        assert_eq!((first.key, first.adds.len()), (1, 0));
        let second = sync(&mut mail, 1, 2).unwrap();
        assert_eq!((second.key, second.adds.len(), second.more), (2, 2, true));
        assert_eq!(sync(&mut mail, 1, 2).unwrap(), second, "asked again with the key before");
        let third = sync(&mut mail, 2, 2).unwrap();
        assert_eq!((third.adds.len(), third.more), (1, false));
        assert_eq!(sync(&mut mail, 1, 2), Err(SyncError::InvalidKey), "two steps back is too far");
    }

    #[test]
    fn changes_and_deletions_reach_only_who_knew_the_message() {
        let mut mail = filled(2);
        for key in 0..2 {
            sync(&mut mail, key, 10).unwrap();
        }
        mail.deliver(BOX, INBOX, message("short-lived")).unwrap();
        assert!(mail.mark(BOX, "5:1", Mark::Read(true)) && mail.mark(BOX, "5:2", Mark::Delete));
        assert!(mail.mark(BOX, "5:3", Mark::Delete) && !mail.mark(BOX, "5:3", Mark::Delete));
        assert!(mail.has_news(PHONE, BOX, false, INBOX));
        let page = sync(&mut mail, 2, 10).unwrap();
        assert_eq!((page.adds.len(), page.changes.len(), &page.deletes[..]), (0, 1, &["5:2".to_owned()][..]));
        assert!(!mail.has_news(PHONE, BOX, false, INBOX));
    }
}
