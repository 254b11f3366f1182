//! What the agent must not forget of an order, so that it leads to one certificate whatever dies when: that it may be
//! with the authority, the keys it was made with, and what came of it.
//!
//! Keys: `Cursors 'o' request` an order. The keys in it are encrypted ([`Vault`]); a finished order has none any more.
//! No challenge and no signing request is ever in it. `Cursors 'k'` the key that requests are sealed to, encrypted.

use std::sync::Arc;
use std::task::Poll;

use causeway_protocol::certificate::Issued;
use causeway_protocol::pkix::Key;
use futures_util::FutureExt as _;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use zeroize::Zeroizing;

use super::error::CertError;
use super::{keys, limits};
use crate::chain::Chain;
use crate::storage::{Batch, Storage, Table};
use crate::vault::Vault;

const ORDER: u8 = b'o';
const OWN_KEY: &[u8] = b"k";

/// How far an order is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Row {
    /// SHA-256 over what was ordered, hexadecimal.
    pub(super) digest: String,
    /// When the row was begun, Unix milliseconds.
    pub(super) since_ms: i64,
    pub(super) standing: Standing,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Standing {
    /// The authority has it, or may have it.
    Open(Open),
    /// It is issued.
    Done(Box<Issued>),
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Open {
    /// The authority's name in agent.toml.
    pub(super) authority: String,
    /// Its own name of the template.
    pub(super) template: Option<String>,
    /// The subject that was asked for, RFC 4514.
    pub(super) subject: String,
    /// The alternative names that were asked for.
    pub(super) alternative_names: Vec<String>,
    /// How the identity is to be wrapped.
    pub(super) legacy_pkcs12: bool,
    /// What the back end needs to ask about it.
    pub(super) ticket: Value,
    /// [`Keys`], encrypted, base64.
    pub(super) keys: String,
    /// How often the authority was asked.
    pub(super) polls: u32,
    /// Whether the authority has said that it has it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) acknowledged: bool,
    /// Since when nothing of use was heard of it, Unix milliseconds; nothing while it answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) unheard_since_ms: Option<i64>,
}

/// The keys of an order that is on its way.
#[derive(Clone)]
pub(super) struct Keys {
    /// Signs the messages about the order and opens the answers.
    pub(super) message: Arc<Key>,
    /// The identity's own key, when the agent makes it. PKCS#8. The same as `message` where that is possible.
    pub(super) identity: Option<Zeroizing<Vec<u8>>>,
}

impl Keys {
    /// Lengths before the parts; encrypted before it leaves this function's caller.
    pub(super) fn seal(&self, vault: &Vault, request: &str) -> Result<Vec<u8>, CertError> {
        let identity: &[u8] = self.identity.as_ref().map_or(&[], |key| key.as_slice());
        let message = self.message.pkcs8();
        let length = u32::try_from(message.len()).expect("a key is shorter than 4 GB");
        let mut plain = Zeroizing::new(Vec::with_capacity(4 + message.len() + identity.len()));
        plain.extend_from_slice(&length.to_be_bytes());
        plain.extend_from_slice(message);
        plain.extend_from_slice(identity);
        Ok(vault.seal(&purpose(request), &plain)?)
    }

    pub(super) fn open(vault: &Vault, request: &str, sealed: &[u8]) -> Result<Self, CertError> {
        let plain = vault.open(&purpose(request), sealed)?;
        let (length, rest) = plain.split_first_chunk::<4>().ok_or(CertError::BadState)?;
        let length = usize::try_from(u32::from_be_bytes(*length)).map_err(|_| CertError::BadState)?;
        let (message, identity) = rest.split_at_checked(length).ok_or(CertError::BadState)?;
        Ok(Self {
            message: keys::read(message)?,
            identity: (!identity.is_empty()).then(|| Zeroizing::new(identity.to_vec())),
        })
    }
}

fn purpose(request: &str) -> String {
    format!("certificates order {request}")
}

/// The orders in the module's part of the storage.
#[derive(Clone)]
pub(super) struct Store(Arc<dyn Storage>);

impl Store {
    pub(super) fn new(storage: Arc<dyn Storage>) -> Self {
        Self(storage)
    }

    pub(super) async fn find(&self, request: &str) -> Result<Option<Row>, CertError> {
        let Some(bytes) = self.0.get(Table::Cursors, key(request)).await? else { return Ok(None) };
        serde_json::from_slice(&bytes).map(Some).map_err(|_| CertError::BadState)
    }

    pub(super) async fn put(&self, request: &str, row: &Row) -> Result<(), CertError> {
        let mut batch = Batch::new();
        batch.put(Table::Cursors, key(request), encode(row));
        Ok(self.0.commit(batch).await?)
    }

    /// As [`Self::put`], without waiting for anything: the report of the action's end follows at once and takes it along
    /// to the disk. Should both be lost, what was kept before still leads to the same certificate, or, at an authority that cannot
    /// be asked, to a person.
    pub(super) async fn put_before_the_end(&self, request: &str, row: &Row) -> Result<(), CertError> {
        let mut batch = Batch::new();
        batch.put(Table::Cursors, key(request), encode(row));
        let (storage, request) = (Arc::clone(&self.0), request.to_owned());
        let mut put = async move { storage.commit(batch.may_be_lost()).await }.boxed();
        if let Poll::Ready(done) = futures_util::poll!(&mut put) {
            return Ok(done?);
        }
        tokio::spawn(async move {
            if let Err(error) = put.await {
                tracing::warn!(request, error = %Chain(&error), "What came of an order could not be kept");
            }
        });
        Ok(())
    }

    pub(super) async fn forget(&self, request: &str) -> Result<(), CertError> {
        let mut batch = Batch::new();
        batch.delete(Table::Cursors, key(request));
        Ok(self.0.commit(batch).await?)
    }

    /// The agent's own key, encrypted, when there is one.
    pub(super) async fn own_key(&self) -> Result<Option<Vec<u8>>, CertError> {
        Ok(self.0.get(Table::Cursors, OWN_KEY.to_vec()).await?)
    }

    pub(super) async fn keep_own_key(&self, sealed: Vec<u8>) -> Result<(), CertError> {
        let mut batch = Batch::new();
        batch.put(Table::Cursors, OWN_KEY.to_vec(), sealed);
        Ok(self.0.commit(batch).await?)
    }

    /// Forgets what is old; gives how many orders are open.
    pub(super) async fn prune(&self, now_ms: i64) -> Result<u64, CertError> {
        let (mut open, mut after) = (0, None);
        let old = |since_ms: i64, kept: std::time::Duration| {
            now_ms.saturating_sub(since_ms) > i64::try_from(kept.as_millis()).unwrap_or(i64::MAX)
        };
        loop {
            let page = self.0.scan(Table::Cursors, vec![ORDER], after.take(), limits::PAGE).await?;
            let mut batch = Batch::new();
            for (key, value) in &page {
                let gone = match serde_json::from_slice::<Row>(value) {
                    Ok(Row { since_ms, standing: Standing::Done(_), .. }) => {
                        old(since_ms, limits::FINISHED_KEPT)
                    }
                    Ok(Row { since_ms, standing: Standing::Open(_), .. }) => {
                        open += 1;
                        old(since_ms, limits::OPEN_KEPT)
                    }
                    // Left for a person: it may stand for a certificate.
                    Err(_) => false,
                };
                if gone {
                    batch.delete(Table::Cursors, key.clone());
                }
            }
            if !batch.is_empty() {
                self.0.commit(batch).await?;
            }
            match page.last() {
                Some((key, _)) if page.len() == limits::PAGE => after = Some(key.clone()),
                _ => return Ok(open),
            }
        }
    }
}

pub(super) fn encode(row: &Row) -> Vec<u8> {
    serde_json::to_vec(row).expect("a row serialises to JSON")
}

fn key(request: &str) -> Vec<u8> {
    [&[ORDER], request.as_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use causeway_protocol::certificate::KeyKind;
    use serde_json::json;

    use super::*;
    use crate::storage::memory::MemoryStorage;

    #[test]
    fn keys_come_back_for_their_own_order_only() {
        let vault = Vault::default();
        let keys = Keys {
            message: Arc::new(Key::generate(KeyKind::P256).unwrap()),
            identity: Some(Zeroizing::new(b"canary two".to_vec())),
        };
        let sealed = keys.seal(&vault, "r1").unwrap();
        for canary in [b"canary".as_slice(), &keys.message.pkcs8()[40..60]] {
            assert!(!sealed.windows(canary.len()).any(|part| part == canary));
        }
        let back = Keys::open(&vault, "r1", &sealed).unwrap();
        assert_eq!(back.message.pkcs8(), keys.message.pkcs8());
        assert_eq!(back.identity, keys.identity);
        assert!(matches!(Keys::open(&vault, "r2", &sealed), Err(CertError::Vault { .. })));
        let none = Keys { identity: None, ..keys };
        assert!(Keys::open(&vault, "r1", &none.seal(&vault, "r1").unwrap()).unwrap().identity.is_none());
    }

    #[tokio::test]
    async fn old_orders_are_forgotten() {
        let store = Store::new(Arc::new(MemoryStorage::new()));
        let day = 24 * 3_600_000;
        let open = |since_ms| Row {
            digest: String::new(),
            since_ms,
            standing: Standing::Open(Open {
                authority: "default".to_owned(),
                template: None,
                subject: "CN=asmith".to_owned(),
                alternative_names: Vec::new(),
                legacy_pkcs12: false,
                ticket: json!(1),
                keys: String::new(),
                polls: 0,
                acknowledged: false,
                unheard_since_ms: None,
            }),
        };
        for n in 0..300 {
            store.put(&format!("r{n}"), &open(n % 2 * 60 * day)).await.unwrap();
        }
        assert_eq!(store.prune(89 * day).await.unwrap(), 300);
        store.prune(91 * day).await.unwrap();
        assert_eq!(store.prune(91 * day).await.unwrap(), 150);
        assert!(store.find("r0").await.unwrap().is_none() && store.find("r1").await.unwrap().is_some());
    }
}
