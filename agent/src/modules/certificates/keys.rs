//! Keys: made beside the work, so that an order does not wait for one. RSA with 2,048 bits takes 80 ms on average and
//! now and then half a second.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use causeway_protocol::certificate::KeyKind;
use causeway_protocol::pkix::Key;
use tokio::sync::Notify;
use tokio::time::Instant;
use zeroize::Zeroizing;

use super::error::CertError;
use super::limits;

/// Hands out keys and keeps some ready.
#[derive(Default)]
pub(super) struct Keyring {
    /// RSA with 2,048 bits, PKCS#8; each is given away once.
    ready: Mutex<Vec<Zeroizing<Vec<u8>>>>,
    /// Somebody took one.
    taken: Notify,
    message: tokio::sync::Mutex<Option<Message>>,
}

/// The key that messages share for a while.
struct Message {
    key: Arc<Key>,
    orders: u32,
    since: Instant,
}

impl Keyring {
    /// A key nobody has had before.
    pub(super) async fn fresh(&self, kind: KeyKind) -> Result<Zeroizing<Vec<u8>>, CertError> {
        if kind == KeyKind::Rsa2048 {
            let ready = self.ready().pop();
            self.taken.notify_one();
            if let Some(ready) = ready {
                return Ok(ready);
            }
        }
        make(kind).await
    }

    /// A key to sign and open messages with; several orders may have the same one.
    pub(super) async fn message(&self) -> Result<Arc<Key>, CertError> {
        let mut message = self.message.lock().await;
        if let Some(Message { key, orders, since }) = &mut *message
            && *orders < limits::MESSAGE_KEY_ORDERS
            && since.elapsed() < limits::MESSAGE_KEY_HOLDS
        {
            *orders += 1;
            return Ok(Arc::clone(key));
        }
        let key = read(&self.fresh(KeyKind::Rsa2048).await?)?;
        *message = Some(Message { key: Arc::clone(&key), orders: 1, since: Instant::now() });
        Ok(key)
    }

    /// Keeps keys ready for as long as it is polled.
    pub(super) async fn refill(self: Arc<Self>) {
        loop {
            while self.ready().len() < limits::KEYS_READY {
                match make(KeyKind::Rsa2048).await {
                    Ok(key) => self.ready().push(key),
                    Err(error) => {
                        tracing::warn!(error = %crate::chain::Chain(&error), "No key could be made");
                        break;
                    }
                }
            }
            self.taken.notified().await;
        }
    }

    fn ready(&self) -> MutexGuard<'_, Vec<Zeroizing<Vec<u8>>>> {
        self.ready.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The key behind PKCS#8 that was made here.
pub(super) fn read(pkcs8: &[u8]) -> Result<Arc<Key>, CertError> {
    Key::from_pkcs8(pkcs8).map(Arc::new).map_err(|_| CertError::BadState)
}

async fn make(kind: KeyKind) -> Result<Zeroizing<Vec<u8>>, CertError> {
    let made = tokio::task::spawn_blocking(move || Key::generate(kind).map(|key| key.pkcs8().clone())).await;
    let failed = |problem: String| CertError::Identity { problem };
    made.map_err(|error| failed(error.to_string()))?.map_err(|error| failed(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn keys_are_given_away_once_and_message_keys_shared() {
        let keyring = Keyring::default();
        let fresh = [
            keyring.fresh(KeyKind::Rsa2048).await.unwrap(),
            keyring.fresh(KeyKind::P256).await.unwrap(),
            keyring.message().await.unwrap().pkcs8().clone(),
        ];
        assert!(fresh[0] != fresh[1] && fresh[0] != fresh[2]);
        assert!(
            Key::from_pkcs8(&fresh[0]).unwrap().is_rsa() && !Key::from_pkcs8(&fresh[1]).unwrap().is_rsa()
        );
        assert_eq!(*keyring.message().await.unwrap().pkcs8(), fresh[2]);
    }
}
