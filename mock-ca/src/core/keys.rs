//! Keys of the authority and who speaks for it.
//!
//! An RSA key takes a tenth of a second to make, so nothing at the start waits for one: keys are made in the background
//! while the ports are already bound, and a request that comes earlier waits for them. None is written to a file. Within
//! one process a key belongs to its name (seed, role, generation): a mock that is started again with the same seed has
//! the same keys at once, one with another seed has others.

use std::collections::VecDeque;
use std::sync::{Arc, LazyLock, Mutex, OnceLock, PoisonError};

use causeway_protocol::certificate::KeyKind;
use causeway_protocol::pkix::Key;

use crate::limits::KEPT_KEYS_MAX;

/// What names a kept key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct KeyName {
    pub(super) seed: u64,
    /// `root`, `issuing`, `ra-signing`, `ra-encryption`...
    pub(super) role: &'static str,
    pub(super) generation: u32,
    pub(super) kind: KeyKind,
}

/// A key that is made once, by whoever asks first; the others wait for it.
type Slot = Arc<OnceLock<Arc<Key>>>;

/// The process's keys, oldest first.
static KEPT: LazyLock<Mutex<VecDeque<(KeyName, Slot)>>> = LazyLock::new(Mutex::default);

/// The key of this name. Blocks while it is made.
pub(super) fn kept(name: &KeyName) -> Arc<Key> {
    let slot = {
        // Every change is one push or pop.
        let mut kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
        match kept.iter().find(|(known, _)| known == name) {
            Some((_, slot)) => Arc::clone(slot),
            None => {
                if kept.len() >= KEPT_KEYS_MAX {
                    kept.pop_front();
                }
                let slot = Slot::default();
                kept.push_back((name.clone(), Arc::clone(&slot)));
                slot
            }
        }
    };
    let made = slot.get_or_init(|| Arc::new(Key::generate(name.kind).expect("the generator has randomness")));
    Arc::clone(made)
}

/// Begins to make several keys at once, each on a thread of its own, and waits for all.
pub(super) fn make_all(names: &[KeyName]) {
    std::thread::scope(|scope| {
        for name in names {
            scope.spawn(|| kept(name));
        }
    });
}
