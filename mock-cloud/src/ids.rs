//! Where the names of rows and streams come from. They are random, so that nobody can guess one; a simulation gives a
//! seed instead, so that the same seed leads to the same run.

use std::sync::{Arc, Mutex, PoisonError};

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use uuid::Uuid;

/// Draws ids; clones share one sequence.
#[derive(Clone, Default)]
pub struct Ids(Option<Arc<Mutex<StdRng>>>);

impl Ids {
    /// Ids nobody can guess.
    pub fn random() -> Self {
        Self(None)
    }

    /// The same seed gives the same ids. For simulations only.
    pub fn seeded(seed: u64) -> Self {
        Self(Some(Arc::new(Mutex::new(StdRng::seed_from_u64(seed)))))
    }

    /// The next one, a version 4 UUID.
    pub fn next(&self) -> Uuid {
        let Some(sequence) = &self.0 else { return Uuid::new_v4() };
        let mut bytes = [0; 16];
        sequence.lock().unwrap_or_else(PoisonError::into_inner).fill_bytes(&mut bytes);
        uuid::Builder::from_random_bytes(bytes).into_uuid()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_repeats_itself_and_nothing_else_does() {
        let three = |ids: Ids| [ids.next(), ids.next(), ids.next()];
        assert_eq!(three(Ids::seeded(7)), three(Ids::seeded(7)));
        assert_ne!(three(Ids::seeded(7)), three(Ids::seeded(8)));
        assert_ne!(three(Ids::random()), three(Ids::random()));
    }
}
