//! What was learnt about proxies and credentials: which scheme a proxy takes, its current nonce, and which credentials
//! were refused. Credentials are known here by a keyed hash only; the key lives as long as the process.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aws_lc_rs::hmac;
use tokio::time::Instant;

use super::digest::Prompt;
use super::{Credentials, Scheme};
use crate::limits::{
    CREDENTIAL_REFUSALS_MAX, CREDENTIAL_RETRY_AFTER, CREDENTIAL_UNANSWERED_MAX, PROXIES_REMEMBERED_MAX,
};

/// Credentials without the credentials.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Fingerprint([u8; 32]);

/// Shared by all connections through proxies.
pub(super) struct Memory {
    key: hmac::Key,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Oldest first.
    refusals: VecDeque<Refusal>,
    proxies: BTreeMap<String, Known>,
}

struct Refusal {
    proxy: String,
    who: Fingerprint,
    at: Instant,
    /// False when the proxy never answered the password at all, which may be a refusal and may be an accident.
    said: bool,
}

/// What worked at a proxy.
#[derive(Clone)]
pub(super) struct Known {
    pub(super) who: Fingerprint,
    pub(super) scheme: Scheme,
    pub(super) digest: Option<Prompt>,
}

impl Memory {
    pub(super) fn new() -> Self {
        let mut key = [0; 32];
        // A key that is not random would only make the hashes guessable inside this very process.
        let _ = aws_lc_rs::rand::fill(&mut key);
        Self { key: hmac::Key::new(hmac::HMAC_SHA256, &key), state: Mutex::default() }
    }

    pub(super) fn fingerprint(&self, credentials: &Credentials) -> Fingerprint {
        let mut context = hmac::Context::with_key(&self.key);
        context.update(&credentials.username.len().to_be_bytes());
        context.update(credentials.username.as_bytes());
        context.update(credentials.password.expose().as_bytes());
        let tag = context.sign();
        let mut hash = [0; 32];
        hash.copy_from_slice(tag.as_ref());
        Fingerprint(hash)
    }

    /// How long these credentials must not be shown to this proxy; `None` when they may.
    pub(super) fn held(&self, now: Instant, proxy: &str, who: &Fingerprint) -> Option<Duration> {
        let mut state = self.lock();
        state.refusals.retain(|refusal| now.duration_since(refusal.at) < CREDENTIAL_RETRY_AFTER);
        let of = |refusal: &&Refusal| refusal.who == *who;
        let here = |refusal: &&Refusal| refusal.proxy == proxy;
        let said = state.refusals.iter().filter(of).filter(|refusal| refusal.said);
        let unanswered =
            state.refusals.iter().filter(of).filter(here).filter(|refusal| !refusal.said).count();
        let held = said.clone().any(|refusal| here(&refusal))
            // The proxies of one company ask one directory, so what they refuse adds up there.
            || said.count() >= CREDENTIAL_REFUSALS_MAX
            || unanswered >= CREDENTIAL_UNANSWERED_MAX;
        let last = state.refusals.iter().filter(of).map(|refusal| refusal.at).max()?;
        held.then(|| CREDENTIAL_RETRY_AFTER.saturating_sub(now.duration_since(last)))
    }

    pub(super) fn refused(&self, now: Instant, proxy: &str, who: &Fingerprint, said: bool) {
        let mut state = self.lock();
        state.proxies.remove(proxy);
        if state.refusals.len() == PROXIES_REMEMBERED_MAX {
            state.refusals.pop_front();
        }
        state.refusals.push_back(Refusal { proxy: proxy.to_owned(), who: who.clone(), at: now, said });
    }

    pub(super) fn accepted(&self, proxy: &str, known: Known) {
        let mut state = self.lock();
        state.refusals.retain(|refusal| refusal.who != known.who);
        if state.proxies.len() >= PROXIES_REMEMBERED_MAX && !state.proxies.contains_key(proxy) {
            state.proxies.pop_first();
        }
        state.proxies.insert(proxy.to_owned(), known);
    }

    /// What worked with these credentials.
    pub(super) fn known(&self, proxy: &str, who: &Fingerprint) -> Option<Known> {
        self.lock().proxies.get(proxy).filter(|known| known.who == *who).cloned()
    }

    /// Answers with the remembered nonce; the count goes up under the lock, so no two connections use one twice.
    pub(super) fn respond(
        &self,
        proxy: &str,
        credentials: &Credentials,
        authority: &str,
    ) -> Option<(Prompt, String)> {
        let mut state = self.lock();
        let prompt = state.proxies.get_mut(proxy)?.digest.as_mut()?;
        let answer = prompt.respond(credentials, authority).ok()?;
        Some((prompt.clone(), answer))
    }

    pub(super) fn forget_all(&self) {
        *self.lock() = State::default();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use causeway_protocol::Secret;

    use super::*;

    fn who(memory: &Memory, password: &str) -> Fingerprint {
        memory.fingerprint(&Credentials { username: "svc".into(), password: Secret::new(password) })
    }

    #[tokio::test(start_paused = true)]
    async fn one_attempt_in_thirty_minutes() {
        let memory = Memory::new();
        let (wrong, right) = (who(&memory, "a"), who(&memory, "b"));
        let now = Instant::now();
        assert_eq!(memory.held(now, "p", &wrong), None);
        memory.refused(now, "p", &wrong, true);
        assert_eq!(memory.held(now, "p", &wrong), Some(CREDENTIAL_RETRY_AFTER));
        assert_eq!(memory.held(now, "p", &right), None, "a changed password is another one");
        let later = now + CREDENTIAL_RETRY_AFTER - Duration::from_secs(1);
        assert_eq!(memory.held(later, "p", &wrong), Some(Duration::from_secs(1)));
        assert_eq!(memory.held(now + CREDENTIAL_RETRY_AFTER, "p", &wrong), None);
    }

    #[tokio::test(start_paused = true)]
    async fn refusals_of_several_proxies_add_up_and_accidents_weigh_less() {
        let memory = Memory::new();
        let who = who(&memory, "a");
        let now = Instant::now();
        for n in 0..CREDENTIAL_REFUSALS_MAX {
            assert_eq!(memory.held(now, "new", &who), None);
            memory.refused(now, &format!("p{n}"), &who, true);
        }
        assert!(memory.held(now, "new", &who).is_some());
        memory.forget_all();
        for _ in 0..CREDENTIAL_UNANSWERED_MAX {
            assert_eq!(memory.held(now, "p", &who), None);
            memory.refused(now, "p", &who, false);
        }
        assert!(memory.held(now, "p", &who).is_some());
        memory.accepted("p", Known { who: who.clone(), scheme: Scheme::Ntlm, digest: None });
        assert_eq!(memory.held(now, "p", &who), None);
    }
}
