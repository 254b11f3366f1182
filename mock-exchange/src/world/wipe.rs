//! Remote wipe: what stands between an administrator's order and an empty phone.

use serde::Serialize;

/// What is wiped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum WipeKind {
    /// The whole phone.
    Full,
    /// The account's data only (ActiveSync 16.1).
    AccountOnly,
}

/// A wipe and how far it has come. Sent and acknowledged wipes keep their earlier times.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Wipe {
    pub kind: WipeKind,
    pub requested_ms: i64,
    /// When the phone was told.
    pub sent_ms: Option<i64>,
    /// When the phone said that it obeys.
    pub acknowledged_ms: Option<i64>,
}

/// Why a wipe cannot be cancelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CancelError {
    NothingPending,
    /// The phone has confirmed it: what is gone is gone.
    Acknowledged,
}

impl Wipe {
    /// Orders a wipe. Ordering it again changes nothing, except that a full wipe replaces a pending account-only one.
    pub fn request(current: Option<Self>, kind: WipeKind, now_ms: i64) -> Self {
        match current {
            Some(wipe) if wipe.kind == kind || wipe.kind == WipeKind::Full => wipe,
            _ => Self { kind, requested_ms: now_ms, sent_ms: None, acknowledged_ms: None },
        }
    }

    /// Takes an order back.
    ///
    /// # Errors
    /// [`CancelError`] when there is none, or when the phone has confirmed it.
    pub fn cancel(current: Option<Self>) -> Result<(), CancelError> {
        match current {
            None => Err(CancelError::NothingPending),
            Some(wipe) if wipe.acknowledged_ms.is_some() => Err(CancelError::Acknowledged),
            Some(_) => Ok(()),
        }
    }

    /// Whether the phone still has to obey.
    pub fn is_pending(&self) -> bool {
        self.acknowledged_ms.is_none()
    }

    /// The phone has been told.
    pub fn sent(&mut self, now_ms: i64) {
        self.sent_ms.get_or_insert(now_ms);
    }

    /// The phone confirms. False when it was never told, or confirms another kind: such a confirmation counts for nothing.
    pub fn acknowledge(&mut self, kind: WipeKind, now_ms: i64) -> bool {
        let valid = self.kind == kind && self.sent_ms.is_some();
        if valid {
            self.acknowledged_ms.get_or_insert(now_ms);
        }
        valid
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wipe_is_confirmed_only_after_it_was_sent() {
        let mut wipe = Wipe::request(None, WipeKind::Full, 1);
        assert!(!wipe.acknowledge(WipeKind::Full, 2), "never told");
        wipe.sent(3);
        wipe.sent(4);
        assert!(!wipe.acknowledge(WipeKind::AccountOnly, 5), "another kind");
        assert!(wipe.is_pending());
        assert!(wipe.acknowledge(WipeKind::Full, 6));
        assert!(wipe.acknowledge(WipeKind::Full, 7), "a repeated confirmation is harmless");
        assert_eq!((wipe.sent_ms, wipe.acknowledged_ms), (Some(3), Some(6)));
    }

    #[test]
    fn ordering_twice_is_ordering_once_and_full_wins() {
        let account = Wipe::request(None, WipeKind::AccountOnly, 1);
        assert_eq!(Wipe::request(Some(account), WipeKind::AccountOnly, 9), account);
        let full = Wipe::request(Some(account), WipeKind::Full, 9);
        assert_eq!((full.kind, full.requested_ms), (WipeKind::Full, 9));
        assert_eq!(Wipe::request(Some(full), WipeKind::AccountOnly, 10), full);
    }

    #[test]
    fn cancel_comes_too_late_after_the_confirmation() {
        assert_eq!(Wipe::cancel(None), Err(CancelError::NothingPending));
        let mut wipe = Wipe::request(None, WipeKind::Full, 1);
        wipe.sent(2);
        assert_eq!(Wipe::cancel(Some(wipe)), Ok(()));
        wipe.acknowledge(WipeKind::Full, 3);
        assert_eq!(Wipe::cancel(Some(wipe)), Err(CancelError::Acknowledged));
    }
}
