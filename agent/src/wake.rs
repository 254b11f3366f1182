//! A call to everything that waits: the reason for waiting may be gone.

use tokio::sync::watch;

/// Whoever changes something that work may be waiting for calls it: a secret was stored, settings were applied, a person
/// has confirmed. Clones share the call.
#[derive(Clone, Debug, Default)]
pub struct Wake(watch::Sender<u64>);

impl Wake {
    /// Everything that listens tries again.
    pub fn call(&self) {
        self.0.send_modify(|calls| *calls = calls.wrapping_add(1));
    }

    /// Listens from now on. Calls that come while the listener works are not lost: they are one call afterwards.
    pub fn listen(&self) -> Calls {
        Calls(self.0.subscribe())
    }
}

/// The calls since somebody began to listen.
#[derive(Debug)]
pub struct Calls(watch::Receiver<u64>);

impl Calls {
    /// Waits for the next call; for ever when nobody is left who could call.
    pub async fn next(&mut self) {
        if self.0.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn a_call_during_work_is_not_lost_and_many_are_one() {
        let wake = Wake::default();
        wake.call();
        let mut calls = wake.listen();
        assert_eq!(calls.next().now_or_never(), None, "what was called before does not count");
        wake.call();
        wake.clone().call();
        calls.next().await;
        assert_eq!(calls.next().now_or_never(), None);
        drop(wake);
        assert_eq!(calls.next().now_or_never(), None, "nobody can call any more");
    }
}
