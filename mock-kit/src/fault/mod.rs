//! Failures to inject: an ordered list of rules, changed at any time, obeyed by live connections too.
//!
//! Protocol-level faults are asked for by the mock ([`Faults::protocol_fault`]); the first rule that matches wins.
//! TCP-level faults are obeyed by the [`FaultStream`](crate::listen::FaultStream) of every connection; rules of
//! different kinds add up, of one kind the first wins.

mod lane;
mod rule;
mod tcp;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use utoipa::ToSchema;

pub use rule::{Fault, Match, Point, Rule, Stream};
pub use tcp::FaultStream;
pub(crate) use tcp::{Link, LinkGuard};

use crate::limits::FAULT_RULES_MAX;

/// Names one installed rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(transparent)]
pub struct FaultId(pub u64);

/// An installed rule and what it did so far.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Installed {
    /// Its number.
    pub id: FaultId,
    /// The rule.
    pub rule: Rule,
    /// Matches so far, including those it let pass.
    pub matched: u32,
    /// Matches it disturbed.
    pub hits: u32,
}

/// The rule list is full ([`FAULT_RULES_MAX`]).
#[derive(Debug, thiserror::Error)]
#[error("{FAULT_RULES_MAX} fault rules are installed already; remove some first")]
pub struct TooManyRules;

/// The rules of one mock. Clones share one list.
#[derive(Clone)]
pub struct Faults(Arc<Inner>);

struct Inner {
    state: Mutex<State>,
    /// Lets the request path skip the lock while no protocol-level rule exists.
    protocol_rules: AtomicUsize,
    changed: watch::Sender<u64>,
}

#[derive(Default)]
struct State {
    rules: Vec<Installed>,
    last_id: u64,
    links: BTreeMap<u64, (Arc<str>, Weak<Link>)>,
    last_link: u64,
    base_latency: Duration,
}

impl Default for Faults {
    fn default() -> Self {
        Self::new()
    }
}

impl Faults {
    /// No rules.
    pub fn new() -> Self {
        let changed = watch::Sender::new(0);
        Self(Arc::new(Inner { state: Mutex::default(), protocol_rules: AtomicUsize::new(0), changed }))
    }

    /// Installs a rule after the existing ones; live connections obey it at once.
    ///
    /// # Panics
    /// When [`FAULT_RULES_MAX`] rules are installed; [`Faults::try_add`] reports that instead.
    pub fn add(&self, rule: Rule) -> FaultId {
        self.try_add(rule).expect("fewer than FAULT_RULES_MAX rules")
    }

    /// As [`Faults::add`], for input from outside.
    ///
    /// # Errors
    /// [`TooManyRules`] when the list is full.
    pub fn try_add(&self, rule: Rule) -> Result<FaultId, TooManyRules> {
        let mut state = self.state();
        if state.rules.len() >= FAULT_RULES_MAX {
            return Err(TooManyRules);
        }
        state.last_id += 1;
        let id = FaultId(state.last_id);
        let mut installed = Installed { id, rule, matched: 0, hits: 0 };
        if installed.rule.fault.is_tcp() {
            for (front, link) in state.links.values() {
                if installed.rule.on.front_matches(front)
                    && installed.strikes()
                    && let Some(link) = link.upgrade()
                {
                    link.apply(id, &installed.rule);
                }
            }
        }
        state.rules.push(installed);
        self.publish(state);
        Ok(id)
    }

    /// Installs a rule that goes away with the returned guard.
    pub fn guard(&self, rule: Rule) -> FaultGuard {
        FaultGuard { faults: self.clone(), id: self.add(rule) }
    }

    /// Removes a rule; live connections stop obeying it. False when there is none of that number.
    pub fn remove(&self, id: FaultId) -> bool {
        let mut state = self.state();
        let before = state.rules.len();
        state.rules.retain(|installed| installed.id != id);
        let found = state.rules.len() < before;
        for (_, link) in state.links.values() {
            if let Some(link) = link.upgrade() {
                link.lift(|applied| applied == id);
            }
        }
        self.publish(state);
        found
    }

    /// Removes every rule.
    pub fn clear(&self) {
        let mut state = self.state();
        state.rules.clear();
        for (_, link) in state.links.values() {
            if let Some(link) = link.upgrade() {
                link.lift(|_| true);
            }
        }
        self.publish(state);
    }

    /// The installed rules in order, with their counts.
    pub fn list(&self) -> Vec<Installed> {
        self.state().rules.clone()
    }

    /// How often a rule struck, `None` when it is gone.
    pub fn hits(&self, id: FaultId) -> Option<u32> {
        self.state().rules.iter().find(|installed| installed.id == id).map(|installed| installed.hits)
    }

    /// The protocol-level fault to apply here, if any: the first rule that matches, is past its `after` and has
    /// `times` left. Counts as one match of every rule up to it.
    pub fn protocol_fault(&self, point: &Point<'_>) -> Option<Fault> {
        if self.0.protocol_rules.load(Ordering::Acquire) == 0 {
            return None;
        }
        let mut state = self.state();
        state
            .rules
            .iter_mut()
            .filter(|installed| !installed.rule.fault.is_tcp() && installed.rule.on.matches(point))
            .find_map(|installed| installed.strikes().then(|| installed.rule.fault.clone()))
    }

    /// As [`Faults::protocol_fault`], already doing what is the same in every protocol: a delay is waited for, and
    /// a stall never returns. What is left for the caller: nothing, close, status, malformed or custom.
    pub async fn meet(&self, point: &Point<'_>) -> Option<Fault> {
        match self.protocol_fault(point)? {
            Fault::Delay { ms } => {
                tokio::time::sleep(Duration::from_millis(ms)).await;
                None
            }
            Fault::Stall {} => std::future::pending().await,
            fault => Some(fault),
        }
    }

    /// Switches a front end off: live connections are reset, new ones refused, until the rule is removed.
    pub fn set_down(&self, front: &str) -> FaultId {
        self.add(Rule::new(Fault::Down {}).on_front(front))
    }

    /// Resets every live connection of a front end, once; new ones are not affected. Returns how many there were.
    pub fn cut(&self, front: &str) -> usize {
        let state = self.state();
        let links = state.links.values().filter(|(name, _)| **name == *front);
        links.filter_map(|(_, link)| link.upgrade()).map(|link| link.reset()).count()
    }

    /// True while a [`Fault::Down`] rule names this front end.
    pub fn is_down(&self, front: &str) -> bool {
        let state = self.state();
        let mut rules = state.rules.iter();
        rules
            .any(|installed| installed.rule.fault == Fault::Down {} && installed.rule.on.front_matches(front))
    }

    /// Latency of everything sent, for connections made from now on; not a rule, so [`Faults::clear`] keeps it.
    pub fn set_base_latency(&self, latency: Duration) {
        self.state().base_latency = latency;
    }

    /// A receiver that changes whenever a rule is added or removed.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.0.changed.subscribe()
    }

    /// Live connections of a front end.
    pub fn connections(&self, front: &str) -> usize {
        self.state().links.values().filter(|(name, _)| **name == *front).count()
    }

    /// Enters a new connection: it obeys the rules of `front` from now until the guard is dropped.
    pub(crate) fn enter(&self, front: &Arc<str>, tcp: tokio::net::TcpStream) -> LinkGuard {
        let mut state = self.state();
        state.last_link += 1;
        let number = state.last_link;
        let link = Link::new(number, tcp, state.base_latency);
        for installed in &mut state.rules {
            if installed.rule.fault.is_tcp() && installed.rule.on.front_matches(front) && installed.strikes()
            {
                link.apply(installed.id, &installed.rule);
            }
        }
        state.links.insert(number, (Arc::clone(front), Arc::downgrade(&link)));
        LinkGuard::new(self.clone(), number, link)
    }

    fn leave(&self, number: u64) {
        self.state().links.remove(&number);
    }

    fn publish(&self, state: MutexGuard<'_, State>) {
        let count = state.rules.iter().filter(|installed| !installed.rule.fault.is_tcp()).count();
        self.0.protocol_rules.store(count, Ordering::Release);
        drop(state);
        self.0.changed.send_modify(|version| *version += 1);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Every critical section leaves the list consistent even if a later step of it panicked.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Installed {
    /// Counts a match and says whether the rule disturbs it.
    fn strikes(&mut self) -> bool {
        self.matched = self.matched.saturating_add(1);
        let strikes = self.matched > self.rule.after && self.rule.times.is_none_or(|times| self.hits < times);
        self.hits += u32::from(strikes);
        strikes
    }
}

/// Removes its rule on drop.
#[must_use = "the rule is removed when the guard is dropped"]
pub struct FaultGuard {
    faults: Faults,
    id: FaultId,
}

impl FaultGuard {
    /// The rule's number.
    pub fn id(&self) -> FaultId {
        self.id
    }

    /// How often the rule struck.
    pub fn hits(&self) -> u32 {
        self.faults.hits(self.id).unwrap_or(0)
    }
}

impl Drop for FaultGuard {
    fn drop(&mut self) {
        self.faults.remove(self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BIND: Point<'_> = Point { front: "ldap", operation: "bind", subject: "cn=asmith" };

    fn ask(faults: &Faults, times: usize) -> Vec<bool> {
        (0..times).map(|_| faults.protocol_fault(&BIND).is_some()).collect()
    }

    #[test]
    fn after_and_times_count_matches_only() {
        let faults = Faults::new();
        let id = faults.add(Rule::new(Fault::Close {}).on_operation("bind").after(2).times(2));
        assert!(faults.protocol_fault(&Point { operation: "search", ..BIND }).is_none());
        assert_eq!(ask(&faults, 6), [false, false, true, true, false, false]);
        assert_eq!(faults.hits(id), Some(2));
        assert_eq!(faults.list()[0].matched, 6);
    }

    #[test]
    fn the_first_rule_that_strikes_wins() {
        let faults = Faults::new();
        faults.add(Rule::new(Fault::status(51, "busy")).on_subject("asmith").times(1));
        faults.add(Rule::new(Fault::status(52, "unavailable")));
        let numbers: Vec<_> =
            (0..2).map(|_| faults.protocol_fault(&BIND).and_then(|fault| fault.status_number())).collect();
        assert_eq!(numbers, [Some(51), Some(52)]);
    }

    #[test]
    fn a_guard_takes_its_rule_away() {
        let faults = Faults::new();
        let guard = faults.guard(Rule::new(Fault::Close {}));
        assert_eq!(ask(&faults, 1), [true]);
        assert_eq!(guard.hits(), 1);
        drop(guard);
        assert_eq!(ask(&faults, 1), [false]);
        assert!(faults.list().is_empty());
    }

    #[test]
    fn the_list_is_bounded() {
        let faults = Faults::new();
        for _ in 0..FAULT_RULES_MAX {
            faults.add(Rule::new(Fault::Close {}));
        }
        assert!(faults.try_add(Rule::new(Fault::Close {})).is_err());
        faults.clear();
        assert!(faults.try_add(Rule::new(Fault::Close {})).is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn meet_waits_out_delays_and_never_answers_stalls() {
        let faults = Faults::new();
        let delay = faults.guard(Rule::new(Fault::Delay { ms: 300 }));
        let started = tokio::time::Instant::now();
        assert_eq!(faults.meet(&BIND).await, None);
        assert_eq!(started.elapsed(), Duration::from_millis(300));
        drop(delay);
        faults.add(Rule::new(Fault::Stall {}));
        let stalled = tokio::time::timeout(Duration::from_secs(86_400), faults.meet(&BIND)).await;
        assert!(stalled.is_err(), "answered {stalled:?}");
    }
}
