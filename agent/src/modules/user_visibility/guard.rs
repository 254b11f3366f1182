//! The brake on deletions: a moved base, a filter with a typing error or a half-empty replica must not empty the cloud.

use std::fmt;

use super::config::GuardSettings;

/// What the guard holds back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// Objects that would be deleted.
    pub deletions: u64,
    /// Objects known.
    pub known: u64,
    /// What is allowed without asking.
    pub allowed: u64,
}

impl fmt::Display for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { deletions, known, allowed } = self;
        write!(f, "{deletions} of {known} objects would be deleted, {allowed} are allowed without asking")
    }
}

impl GuardSettings {
    /// Stops a run that would delete too much.
    ///
    /// # Errors
    /// With the figures, unless a person has confirmed.
    pub(super) fn check(self, deletions: u64, known: u64, confirmed: bool) -> Result<(), Held> {
        let allowed = self.deletions_max.max(known * self.percent_max / 100);
        if confirmed || deletions <= allowed { Ok(()) } else { Err(Held { deletions, known, allowed }) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_larger_limit_counts() {
        let guard = GuardSettings { deletions_max: 10, percent_max: 5 };
        assert_eq!(guard.check(10, 100, false), Ok(()));
        assert_eq!(guard.check(11, 100, false), Err(Held { deletions: 11, known: 100, allowed: 10 }));
        assert_eq!(guard.check(50, 1_000, false), Ok(()));
        assert!(guard.check(51, 1_000, false).is_err());
        assert_eq!(guard.check(1_000, 1_000, true), Ok(()));
    }
}
