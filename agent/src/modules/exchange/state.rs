//! What the agent remembers of an organisation: for each phone two hashes and its last statistics, which to ask for
//! again costs a cmdlet each; what is still to be read; how far actions and jobs are. No phone's description stays here
//! longer than it waits for its statistics.
//!
//! Keys: `Objects 'd' guid` a phone, `Objects 'r' kind key` another record's hash; `Index 'm' name` a mailbox,
//! `Index 'w' urgency mailbox guid` work, `Index 'q' mailbox id` phones the quarantine job must allow, `Index 'l' name`
//! a mailbox with its lists while that job runs;
//! `Cursors` the state, the job, the guard; `Cursors 'a' id` an action.

use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest as sha};
use causeway_protocol::mobile::DeviceRecord;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::error::MailError;
use super::limits;
use super::mapping::{Mailbox, Statistics};
use super::quarantine::Listed;
use crate::storage::{Batch, Storage, Table};

/// Sixteen bytes that stand for a text.
pub(super) type Hash = [u8; 16];

/// The first sixteen bytes of SHA-256.
pub(super) fn digest(bytes: &[u8]) -> Hash {
    let mut hash = [0; 16];
    hash.copy_from_slice(&sha(&SHA256, bytes).as_ref()[..16]);
    hash
}

/// Where a collection stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct State {
    /// The cloud's epoch that this state is the agent's side of.
    pub(super) epoch: u64,
    pub(super) devices: u64,
    pub(super) listed_ms: i64,
    pub(super) full_ms: i64,
}

/// What is remembered of a phone the cloud has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Row {
    /// Of the phone as listed.
    pub(super) listed: Hash,
    /// Of the record as sent.
    pub(super) sent: Hash,
    /// When its statistics were read, Unix milliseconds; 0: never.
    pub(super) read_ms: i64,
    /// Since when it is not listed any more, Unix milliseconds; 0: it is.
    pub(super) missing_ms: i64,
    pub(super) statistics: Statistics,
}

const ROW_FIXED: usize = 49;
const ROW_VERSION: u8 = 1;

impl Row {
    fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(ROW_FIXED + 128);
        bytes.push(ROW_VERSION);
        bytes.extend_from_slice(&self.listed);
        bytes.extend_from_slice(&self.sent);
        bytes.extend_from_slice(&self.read_ms.to_be_bytes());
        bytes.extend_from_slice(&self.missing_ms.to_be_bytes());
        if self.statistics != Statistics::default() {
            bytes.extend(serde_json::to_vec(&self.statistics).expect("statistics serialise to JSON"));
        }
        bytes
    }

    fn decode(bytes: &[u8]) -> Result<Self, MailError> {
        let bad = || MailError::BadState { what: "phone" };
        let (fixed, rest) = bytes.split_at_checked(ROW_FIXED).ok_or_else(bad)?;
        if fixed[0] != ROW_VERSION {
            return Err(bad());
        }
        let hash = |at: usize| fixed[at..at + 16].try_into().map_err(|_| bad());
        let number = |at: usize| fixed[at..at + 8].try_into().map(i64::from_be_bytes).map_err(|_| bad());
        let statistics = if rest.is_empty() {
            Statistics::default()
        } else {
            serde_json::from_slice(rest).map_err(|_| bad())?
        };
        Ok(Self {
            listed: hash(1)?,
            sent: hash(17)?,
            read_ms: number(33)?,
            missing_ms: number(41)?,
            statistics,
        })
    }
}

/// Why a phone's statistics are to be read; lower ones first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Need {
    /// It is new or has changed, or an action touched it.
    Changed,
    /// They are old.
    Stale,
}

impl Need {
    fn other(self) -> Self {
        match self {
            Self::Changed => Self::Stale,
            Self::Stale => Self::Changed,
        }
    }
}

/// A phone whose statistics are to be read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Work {
    /// As listed, with its mailbox.
    pub(super) record: DeviceRecord,
    /// Of the phone as listed.
    pub(super) listed: Hash,
}

/// The module's part of the storage.
#[derive(Clone)]
pub(super) struct Store {
    storage: Arc<dyn Storage>,
}

/// A phone whose statistics are to be read, where it is kept.
pub(super) struct Queued {
    pub(super) place: Vec<u8>,
    pub(super) key: Uuid,
    pub(super) work: Work,
}

impl Store {
    pub(super) fn new(storage: Arc<dyn Storage>) -> Self {
        Self { storage }
    }

    /// Where the collection stands; `None` before the first listing, and when what is stored cannot be read.
    pub(super) async fn state(&self) -> Result<Option<State>, MailError> {
        self.document(STATE).await
    }

    /// A small document; `None` when there is none or it is not ours.
    pub(super) async fn document<T: DeserializeOwned>(&self, name: &[u8]) -> Result<Option<T>, MailError> {
        let stored = self.storage.get(Table::Cursors, name.to_vec()).await?;
        Ok(stored.and_then(|bytes| serde_json::from_slice(&bytes).ok()))
    }

    /// Writes a small document by itself.
    pub(super) async fn put_document<T: Serialize>(&self, name: &[u8], value: &T) -> Result<(), MailError> {
        let mut batch = Batch::new();
        put_document(&mut batch, name, value);
        self.commit(batch).await
    }

    /// Forgets a small document.
    pub(super) async fn delete_document(&self, name: &[u8]) -> Result<(), MailError> {
        let mut batch = Batch::new();
        batch.delete(Table::Cursors, name);
        self.commit(batch).await
    }

    pub(super) async fn commit(&self, batch: Batch) -> Result<(), MailError> {
        if batch.is_empty() { Ok(()) } else { Ok(self.storage.commit(batch).await?) }
    }

    pub(super) async fn rows(&self, keys: &[Uuid]) -> Result<Vec<Option<Row>>, MailError> {
        let keys = keys.iter().map(|key| row_key(*key)).collect();
        let found = self.storage.get_many(Table::Objects, keys).await?;
        found.into_iter().map(|value| value.map(|value| Row::decode(&value)).transpose()).collect()
    }

    /// Some phones in key order from behind `after`.
    pub(super) async fn rows_after(&self, after: Option<Uuid>) -> Result<Vec<(Uuid, Row)>, MailError> {
        let after = after.map(row_key);
        let pairs = self.storage.scan(Table::Objects, vec![b'd'], after, limits::ROWS_PER_READ).await?;
        pairs.into_iter().map(|(key, value)| Ok((uuid_at(&key, 1)?, Row::decode(&value)?))).collect()
    }

    /// Hashes of other records of a kind, by key.
    pub(super) async fn hashes(&self, kind: u8) -> Result<Vec<(String, Hash)>, MailError> {
        let pairs = self.storage.scan(Table::Objects, vec![b'r', kind], None, limits::POLICIES_MAX).await?;
        let bad = || MailError::BadState { what: "hash" };
        pairs
            .into_iter()
            .map(|(key, value)| {
                let key = String::from_utf8(key[2..].to_vec()).map_err(|_| bad())?;
                Ok((key, value.as_slice().try_into().map_err(|_| bad())?))
            })
            .collect()
    }

    /// The mailboxes phones call by these names.
    pub(super) async fn mailboxes(&self, names: &[&str]) -> Result<Vec<Option<Mailbox>>, MailError> {
        let keys = names.iter().map(|name| mailbox_key(name)).collect();
        let found = self.storage.get_many(Table::Index, keys).await?;
        Ok(found
            .into_iter()
            .map(|value| value.and_then(|value| serde_json::from_slice(&value).ok()))
            .collect())
    }

    /// The mailboxes phones call by these names, with their lists, as the quarantine job has just read them.
    pub(super) async fn mailbox_lists(&self, names: &[&str]) -> Result<Vec<Option<Listed>>, MailError> {
        let keys = names.iter().map(|name| lists_key(name)).collect();
        let found = self.storage.get_many(Table::Index, keys).await?;
        Ok(found
            .into_iter()
            .map(|value| value.and_then(|value| serde_json::from_slice(&value).ok()))
            .collect())
    }

    /// What is to be read from behind a place, most urgent first, those of one mailbox together.
    pub(super) async fn work(&self, after: Option<Vec<u8>>, limit: usize) -> Result<Vec<Queued>, MailError> {
        let pairs = self.storage.scan(Table::Index, vec![b'w'], after, limit).await?;
        pairs
            .into_iter()
            .map(|(place, value)| {
                let work = serde_json::from_slice(&value)
                    .map_err(|_| MailError::BadState { what: "waiting phone" })?;
                Ok(Queued { key: uuid_at(&place, 10)?, place, work })
            })
            .collect()
    }

    /// How much is to be read.
    pub(super) async fn work_left(&self) -> Result<u64, MailError> {
        let (mut count, mut after) = (0, None);
        loop {
            let pairs = self.storage.scan(Table::Index, vec![b'w'], after, limits::ROWS_PER_READ).await?;
            let Some((last, _)) = pairs.last() else { return Ok(count) };
            count += pairs.len() as u64;
            after = Some(last.clone());
        }
    }

    /// Phones the quarantine job must allow: mailbox and device id, those of one mailbox together.
    pub(super) async fn to_allow(&self, limit: usize) -> Result<Vec<(Vec<u8>, String, String)>, MailError> {
        let pairs = self.storage.scan(Table::Index, vec![b'q'], None, limit).await?;
        pairs
            .into_iter()
            .map(|(place, value)| {
                let (mailbox, id) = serde_json::from_slice(&value)
                    .map_err(|_| MailError::BadState { what: "phone to be allowed" })?;
                Ok((place, mailbox, id))
            })
            .collect()
    }
}

/// Where the collection stands.
pub(super) const STATE: &[u8] = b"state";

/// The document of an action.
pub(super) fn action_name(id: &str) -> Vec<u8> {
    [b"a".as_slice(), id.as_bytes()].concat()
}

pub(super) fn put_document<T: Serialize>(batch: &mut Batch, name: &[u8], value: &T) {
    let bytes = serde_json::to_vec(value).expect("documents of ours serialise to JSON");
    batch.put(Table::Cursors, name, bytes);
}

pub(super) fn put_row(batch: &mut Batch, key: Uuid, row: &Row) {
    batch.put(Table::Objects, row_key(key), row.encode());
}

pub(super) fn delete_row(batch: &mut Batch, key: Uuid) {
    batch.delete(Table::Objects, row_key(key));
}

pub(super) fn put_hash(batch: &mut Batch, kind: u8, key: &str, hash: Hash) {
    batch.put(Table::Objects, [&[b'r', kind], key.as_bytes()].concat(), hash);
}

pub(super) fn delete_hash(batch: &mut Batch, kind: u8, key: &str) {
    batch.delete(Table::Objects, [&[b'r', kind], key.as_bytes()].concat());
}

/// Remembers a mailbox by each of its names.
pub(super) fn put_mailbox(batch: &mut Batch, mailbox: &Mailbox) {
    let bytes = serde_json::to_vec(mailbox).expect("mailboxes serialise to JSON");
    for name in &mailbox.names {
        batch.put(Table::Index, mailbox_key(name), bytes.clone());
    }
}

/// Queues a phone. What was queued of it before, whatever for, is older and would overwrite this one.
pub(super) fn put_work(batch: &mut Batch, need: Need, key: Uuid, work: &Work) {
    let bytes = serde_json::to_vec(work).expect("work serialises to JSON");
    let (mailbox, other) = (&work.record.mailbox, need.other());
    batch.delete(Table::Index, work_key(other, key, mailbox));
    batch.put(Table::Index, work_key(need, key, mailbox), bytes);
}

pub(super) fn delete_work(batch: &mut Batch, place: Vec<u8>) {
    batch.delete(Table::Index, place);
}

pub(super) fn put_to_allow(batch: &mut Batch, mailbox: &str, device_id: &str) {
    let value = serde_json::to_vec(&(mailbox, device_id)).expect("two texts serialise to JSON");
    let key = [b"q".as_slice(), &digest(mailbox.as_bytes()), &digest(device_id.as_bytes())].concat();
    batch.put(Table::Index, key, value);
}

pub(super) fn put_mailbox_lists(batch: &mut Batch, names: &[String], listed: &Listed) {
    let bytes = serde_json::to_vec(listed).expect("lists serialise to JSON");
    for name in names {
        batch.put(Table::Index, lists_key(name), bytes.clone());
    }
}

pub(super) fn clear_mailbox_lists(batch: &mut Batch) {
    batch.delete_prefix(Table::Index, [b'l']);
}

/// Forgets what is to be allowed.
pub(super) fn clear_to_allow(batch: &mut Batch) {
    batch.delete_prefix(Table::Index, [b'q']);
}

fn row_key(key: Uuid) -> Vec<u8> {
    [b"d".as_slice(), key.as_bytes()].concat()
}

fn mailbox_key(name: &str) -> Vec<u8> {
    [b"m".as_slice(), &digest(name.to_lowercase().as_bytes())].concat()
}

fn lists_key(name: &str) -> Vec<u8> {
    [b"l".as_slice(), &digest(name.to_lowercase().as_bytes())].concat()
}

fn work_key(need: Need, key: Uuid, mailbox: &str) -> Vec<u8> {
    let urgency = match need {
        Need::Changed => 0,
        Need::Stale => 1,
    };
    [&[b'w', urgency], &digest(mailbox.as_bytes())[..8], key.as_bytes().as_slice()].concat()
}

fn uuid_at(key: &[u8], at: usize) -> Result<Uuid, MailError> {
    key.get(at..).and_then(|bytes| Uuid::from_slice(bytes).ok()).ok_or(MailError::BadState { what: "key" })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two places in one queue would send the older record after the newer one.
    #[tokio::test]
    async fn a_phone_waits_once_and_as_it_was_seen_last() {
        let storage = std::sync::Arc::new(crate::storage::memory::MemoryStorage::default());
        let store = Store::new(storage);
        let key = Uuid::from_u128(1);
        let seen = |state: &str| {
            let record = DeviceRecord { access_state: state.to_owned(), ..DeviceRecord::default() };
            Work { record, listed: [0; 16] }
        };
        for (need, state) in [(Need::Stale, "allowed"), (Need::Changed, "blocked"), (Need::Stale, "allowed")]
        {
            let mut batch = Batch::new();
            put_work(&mut batch, need, key, &seen(state));
            store.commit(batch).await.unwrap();
            let queued = store.work(None, 10).await.unwrap();
            let states: Vec<&str> = queued.iter().map(|one| one.work.record.access_state.as_str()).collect();
            assert_eq!(states, [state]);
        }
    }

    #[test]
    fn rows_read_as_written_and_others_are_refused() {
        let statistics = Statistics { folders: Some(3), ..Statistics::default() };
        for statistics in [Statistics::default(), statistics] {
            let row = Row { listed: [1; 16], sent: [2; 16], read_ms: 3, missing_ms: 0, statistics };
            assert_eq!(Row::decode(&row.encode()).unwrap(), row);
        }
        assert!(Row::decode(&[1; 48]).is_err());
        assert!(Row::decode(&[9; 60]).is_err());
    }
}
