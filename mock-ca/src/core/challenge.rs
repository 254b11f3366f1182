//! Challenge passwords: NDES's small cache of one-time ones, a permanent one, and those an administrator makes.

use std::sync::{Mutex, MutexGuard, PoisonError};

use aws_lc_rs::rand::SecureRandom as _;
use causeway_protocol::Secret;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::limits::{CHALLENGE_MAX_BYTES, CHALLENGES_MAX};

/// How challenges work (the sheet's table of NDES's registry values).
#[derive(Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ChallengeConfig {
    /// Whether a first request needs one (`EnforcePassword`). Default true.
    pub required: bool,
    /// A password that is always good, for servers with a static one. Default none. The ready line's challenge is
    /// another one, made at the start.
    pub fixed: Option<String>,
    /// NDES hands out one permanent password instead of one-time ones (`UseSinglePassword`). Default false.
    pub single: bool,
    /// One-time passwords kept at once (`PasswordMax`). Default 5.
    pub cached_max: usize,
    /// Minutes each is good for (`PasswordValidity`). Default 60.
    pub validity_minutes: u32,
    /// Bytes of each; shown as twice as many hexadecimal digits (`PasswordLength`). Default 8.
    pub length_bytes: usize,
}

impl Default for ChallengeConfig {
    fn default() -> Self {
        Self {
            required: true,
            fixed: None,
            single: false,
            cached_max: 5,
            validity_minutes: 60,
            length_bytes: 8,
        }
    }
}

impl std::fmt::Debug for ChallengeConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ChallengeConfig")
            .field("required", &self.required)
            .field("fixed", &self.fixed.is_some())
            .field("single", &self.single)
            .field("cached_max", &self.cached_max)
            .field("validity_minutes", &self.validity_minutes)
            .field("length_bytes", &self.length_bytes)
            .finish()
    }
}

/// Why a challenge is not accepted. Clients are never told which.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ChallengeError {
    #[error("the request has no challenge")]
    Missing,
    #[error("the challenge is unknown or was used already")]
    Unknown,
    #[error("the challenge has expired")]
    Expired,
    #[error("the challenge was made for another name")]
    AnotherName,
}

/// A challenge that is handed out.
pub struct Handed {
    pub password: Secret,
    /// When it ends, milliseconds since 1970; `None` for a permanent one.
    pub until_ms: Option<i64>,
}

/// NDES keeps as many as it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the password cache is full")]
pub struct CacheFull;

struct Kept {
    password: Secret,
    until_ms: i64,
    /// The common name a request must have.
    name: Option<String>,
    /// Counts against NDES's cache; those of administrators do not.
    cached: bool,
    /// Stays after use.
    permanent: bool,
}

impl std::fmt::Debug for Handed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handed").field("until_ms", &self.until_ms).finish_non_exhaustive()
    }
}

/// What can be told about a challenge: everything but itself.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ChallengeView {
    pub until_ms: i64,
    pub name: Option<String>,
    pub cached: bool,
    pub permanent: bool,
}

/// Every challenge that is good.
pub struct Challenges {
    config: ChallengeConfig,
    kept: Mutex<Vec<Kept>>,
    /// NDES's permanent password, made when it is first shown.
    single: Mutex<Option<Secret>>,
}

impl Challenges {
    pub fn new(config: ChallengeConfig) -> Self {
        Self { config, kept: Mutex::default(), single: Mutex::default() }
    }

    pub fn config(&self) -> &ChallengeConfig {
        &self.config
    }

    /// What NDES's page shows: a new one-time password, or the permanent one.
    ///
    /// # Errors
    /// [`CacheFull`] while `cached_max` unused ones have not expired.
    pub fn hand_out(&self, now_ms: i64) -> Result<Handed, CacheFull> {
        if self.config.single {
            let mut single = held(&self.single);
            let password = single.get_or_insert_with(|| self.random()).clone();
            return Ok(Handed { password, until_ms: None });
        }
        let mut kept = held(&self.kept);
        kept.retain(|one| one.until_ms > now_ms);
        if kept.iter().filter(|one| one.cached).count() >= self.config.cached_max {
            return Err(CacheFull);
        }
        let until_ms = now_ms + i64::from(self.config.validity_minutes) * 60_000;
        let password = self.random();
        kept.push(Kept { password: password.clone(), until_ms, name: None, cached: true, permanent: false });
        Ok(Handed { password, until_ms: Some(until_ms) })
    }

    /// Makes one outside NDES's cache, for one common name if `name` says so. `None` when there are too many.
    pub fn make(&self, now_ms: i64, minutes: u32, name: Option<String>, permanent: bool) -> Option<Handed> {
        let mut kept = held(&self.kept);
        kept.retain(|one| one.until_ms > now_ms);
        if kept.len() >= CHALLENGES_MAX {
            return None;
        }
        let until_ms = now_ms + i64::from(minutes) * 60_000;
        let password = self.random();
        kept.push(Kept { password: password.clone(), until_ms, name, cached: false, permanent });
        Some(Handed { password, until_ms: Some(until_ms) })
    }

    /// Takes the challenge a request shows. Two requests with one challenge: only one gets it.
    ///
    /// # Errors
    /// [`ChallengeError`] when it is not good for this name now.
    pub fn take(&self, now_ms: i64, shown: Option<&str>, name: &str) -> Result<(), ChallengeError> {
        if !self.config.required {
            return Ok(());
        }
        let shown = shown
            .filter(|shown| !shown.is_empty() && shown.len() <= CHALLENGE_MAX_BYTES)
            .ok_or(ChallengeError::Missing)?;
        let permanent = held(&self.single).clone();
        let fixed = self.config.fixed.as_deref();
        if fixed.is_some_and(|fixed| same(fixed, shown))
            || permanent.is_some_and(|single| same(single.expose(), shown))
        {
            return Ok(());
        }
        let mut kept = held(&self.kept);
        let at =
            kept.iter().position(|one| same(one.password.expose(), shown)).ok_or(ChallengeError::Unknown)?;
        let found = &kept[at];
        if found.until_ms <= now_ms {
            kept.remove(at);
            return Err(ChallengeError::Expired);
        }
        if found.name.as_deref().is_some_and(|own| own != name) {
            return Err(ChallengeError::AnotherName);
        }
        if found.permanent {
            return Ok(());
        }
        kept.remove(at);
        Ok(())
    }

    /// Forgets what NDES keeps in memory, as a restart of its application pool does; those of administrators stay.
    /// Returns how many were lost.
    pub fn restart(&self) -> usize {
        let mut kept = held(&self.kept);
        let before = kept.len();
        kept.retain(|one| !one.cached);
        before - kept.len()
    }

    /// Lets every one-time password of NDES's cache expire now.
    pub fn expire(&self, now_ms: i64) {
        for one in held(&self.kept).iter_mut().filter(|one| one.cached) {
            one.until_ms = one.until_ms.min(now_ms);
        }
    }

    pub fn list(&self, now_ms: i64) -> Vec<ChallengeView> {
        let kept = held(&self.kept);
        let good = kept.iter().filter(|one| one.until_ms > now_ms);
        good.map(|one| ChallengeView {
            until_ms: one.until_ms,
            name: one.name.clone(),
            cached: one.cached,
            permanent: one.permanent,
        })
        .collect()
    }

    fn random(&self) -> Secret {
        let mut bytes = vec![0; self.config.length_bytes.clamp(4, CHALLENGE_MAX_BYTES / 2)];
        aws_lc_rs::rand::SystemRandom::new().fill(&mut bytes).expect("the system has randomness");
        Secret::new(bytes.iter().map(|byte| format!("{byte:02X}")).collect::<String>())
    }
}

fn same(one: &str, other: &str) -> bool {
    aws_lc_rs::constant_time::verify_slices_are_equal(one.as_bytes(), other.as_bytes()).is_ok()
}

fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every change behind these locks is one push or removal.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn five() -> Challenges {
        Challenges::new(ChallengeConfig::default())
    }

    #[test]
    fn five_at_once_and_an_hour_each() {
        let challenges = five();
        let first = challenges.hand_out(0).unwrap();
        assert_eq!(first.password.expose().len(), 16);
        assert!(
            first
                .password
                .expose()
                .bytes()
                .all(|byte| byte.is_ascii_digit() || (b'A'..=b'F').contains(&byte))
        );
        for _ in 0..4 {
            challenges.hand_out(0).unwrap();
        }
        assert_eq!(challenges.hand_out(3_599_999).unwrap_err(), CacheFull);
        challenges.take(1, Some(first.password.expose()), "x").unwrap();
        let again = challenges.take(1, Some(first.password.expose()), "x");
        assert_eq!(again.unwrap_err(), ChallengeError::Unknown, "used");
        challenges.hand_out(2).expect("the used one made room");
        challenges.hand_out(3_600_000).expect("the others expired");
    }

    #[test]
    fn expired_unknown_and_missing() {
        let challenges = five();
        let one = challenges.hand_out(0).unwrap();
        let shown = Some(one.password.expose());
        assert_eq!(challenges.take(3_600_000, shown, "x").unwrap_err(), ChallengeError::Expired);
        assert_eq!(challenges.take(0, Some("0123456789ABCDEF"), "x").unwrap_err(), ChallengeError::Unknown);
        assert_eq!(challenges.take(0, None, "x").unwrap_err(), ChallengeError::Missing);
        assert_eq!(challenges.take(0, Some(""), "x").unwrap_err(), ChallengeError::Missing);
    }

    #[test]
    fn bound_to_a_name() {
        let challenges = five();
        let one = challenges.make(0, 5, Some("phone-1".to_owned()), false).unwrap();
        let shown = Some(one.password.expose());
        assert_eq!(challenges.take(0, shown, "phone-2").unwrap_err(), ChallengeError::AnotherName);
        challenges.take(0, shown, "phone-1").unwrap();
    }

    #[test]
    fn a_restart_forgets_what_was_cached() {
        let challenges = five();
        let cached = challenges.hand_out(0).unwrap();
        let made = challenges.make(0, 5, None, false).unwrap();
        assert_eq!(challenges.restart(), 1);
        assert!(challenges.take(0, Some(cached.password.expose()), "x").is_err());
        challenges.take(0, Some(made.password.expose()), "x").unwrap();
    }

    #[test]
    fn permanent_ones_stay() {
        let config =
            ChallengeConfig { single: true, fixed: Some("fixed".to_owned()), ..ChallengeConfig::default() };
        let challenges = Challenges::new(config);
        let single = challenges.hand_out(0).unwrap();
        assert_eq!(single.until_ms, None);
        for _ in 0..3 {
            challenges.take(i64::MAX, Some(single.password.expose()), "x").unwrap();
            challenges.take(0, Some("fixed"), "x").unwrap();
        }
        assert_eq!(challenges.hand_out(0).unwrap().password.expose(), single.password.expose());
        assert!(!format!("{:?}", challenges.config()).contains("fixed\""));
    }
}
