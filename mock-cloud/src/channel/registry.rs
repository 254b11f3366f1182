//! Who is connected: the sessions of this node, and those that are cut and may be resumed (XEP-0198 §5).
//!
//! This is the seam at which routing between nodes would plug in: everything above asks here for a session and never
//! for a connection.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use causeway_protocol::channel::payload;
use causeway_protocol::channel::sm::StreamManagement;
use causeway_protocol::health::{HealthReport, Hello, ModuleState};
use jid::Jid;
use minidom::Element;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use xmpp_parsers::stanza_error::StanzaError;
use xmpp_parsers::stream_error::StreamError;

use super::outbound::Outgoing;
use crate::limits::{DETACHED_MAX_BYTES, DETACHED_SESSIONS_MAX, OUTBOUND_QUEUE};
use crate::pki::AgentIdentity;

/// What came of an iq.
#[derive(Debug)]
pub enum Answer {
    /// The agent answered.
    Result(Option<Element>),
    /// The agent refused.
    Error(Box<StanzaError>),
    /// It was certainly never written to the connection.
    Undelivered,
    /// It may have reached the agent; the session ended before an answer.
    Lost,
    /// The agent did not answer in time.
    TimedOut,
}

/// How an agent stands for one module.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fitness {
    /// The module runs and says it is well.
    Ok,
    /// It runs and has trouble.
    Degraded,
}

/// One agent's session as others see it.
#[derive(Clone, Debug)]
pub struct Presence {
    /// Who.
    pub identity: AgentIdentity,
    /// Grows with every session of the instance.
    pub session_epoch: u64,
    /// Unix milliseconds of the last stanza.
    pub last_seen_ms: i64,
    /// Requests and actions waiting for the agent's answer.
    pub outstanding: u32,
    /// What it said when it came.
    pub hello: Hello,
    /// Its last health report.
    pub health: Option<HealthReport>,
    /// Revision that runs, by module.
    pub running: BTreeMap<String, u64>,
}

/// Orders to a session's task.
pub(super) enum Control {
    /// Send this stream error and end for good.
    End(Box<StreamError>),
    /// Hand over to a new connection and end.
    HandOver(oneshot::Sender<Detached>),
}

/// A session: outlives its connection while it may be resumed.
pub struct Session {
    /// Unique in this process.
    pub serial: u64,
    /// The agent; `None` for consoles and agents that enrol.
    pub identity: Option<AgentIdentity>,
    outbound: mpsc::Sender<Outgoing>,
    control: mpsc::Sender<Control>,
    waiting: Mutex<Waiting>,
    next_id: AtomicU64,
    outstanding: AtomicU32,
    last_seen_ms: AtomicI64,
    epoch: AtomicU64,
    resumable: AtomicBool,
    jid: OnceLock<Jid>,
    said: Mutex<Said>,
    from: Mutex<SocketAddr>,
}

/// Those who wait for an answer. Under one lock with `attached`, so that nothing is queued after a cut.
struct Waiting {
    attached: bool,
    answers: BTreeMap<u64, oneshot::Sender<Answer>>,
}

/// What the agent told and was told.
#[derive(Default)]
struct Said {
    hello: Option<Hello>,
    health: Option<HealthReport>,
    running: BTreeMap<String, u64>,
    /// Pushes of config begun, by module.
    pushes: BTreeMap<String, u64>,
}

/// Receiving ends of a session, owned by its task.
pub(super) struct Inlets {
    pub(super) outbound: mpsc::Receiver<Outgoing>,
    pub(super) control: mpsc::Receiver<Control>,
}

impl Session {
    pub(super) fn new(serial: u64, identity: Option<AgentIdentity>, from: SocketAddr) -> (Arc<Self>, Inlets) {
        let (outbound, outbound_inlet) = mpsc::channel(OUTBOUND_QUEUE);
        let (control, control_inlet) = mpsc::channel(2);
        let session = Self {
            serial,
            identity,
            outbound,
            control,
            waiting: Mutex::new(Waiting { attached: true, answers: BTreeMap::new() }),
            next_id: AtomicU64::new(1),
            outstanding: AtomicU32::new(0),
            last_seen_ms: AtomicI64::new(0),
            epoch: AtomicU64::new(0),
            resumable: AtomicBool::new(false),
            jid: OnceLock::new(),
            said: Mutex::default(),
            from: Mutex::new(from),
        };
        (Arc::new(session), Inlets { outbound: outbound_inlet, control: control_inlet })
    }

    /// Sends an action and waits until the agent has durably accepted it.
    pub async fn action(&self, action: Arc<payload::Action>, within: Duration) -> Answer {
        self.ask(within, |id| Outgoing::Action { id, action }).await
    }

    /// Sends a request and waits for the reply. A full queue counts as undelivered: someone else may be free.
    pub async fn request(&self, request: payload::Request, within: Duration) -> Answer {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let Ok(permit) = self.outbound.try_reserve() else { return Answer::Undelivered };
        let Some(answer) = self.enqueue(id, permit, Outgoing::Request { id, request }) else {
            return Answer::Undelivered;
        };
        self.wait(id, answer, Instant::now() + within).await
    }

    /// Sends an iq of any other kind and waits for its result.
    pub async fn ask(&self, within: Duration, stanza: impl FnOnce(u64) -> Outgoing) -> Answer {
        let deadline = Instant::now() + within;
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let Ok(Ok(permit)) = tokio::time::timeout_at(deadline, self.outbound.reserve()).await else {
            return Answer::Undelivered;
        };
        let Some(answer) = self.enqueue(id, permit, stanza(id)) else { return Answer::Undelivered };
        self.wait(id, answer, deadline).await
    }

    fn enqueue(
        &self,
        id: u64,
        permit: mpsc::Permit<'_, Outgoing>,
        stanza: Outgoing,
    ) -> Option<oneshot::Receiver<Answer>> {
        let mut waiting = self.waiting();
        if !waiting.attached {
            return None;
        }
        let (answered, answer) = oneshot::channel();
        waiting.answers.insert(id, answered);
        self.outstanding.fetch_add(1, Ordering::Relaxed);
        permit.send(stanza);
        Some(answer)
    }

    async fn wait(&self, id: u64, answer: oneshot::Receiver<Answer>, deadline: Instant) -> Answer {
        match tokio::time::timeout_at(deadline, answer).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Answer::Lost,
            Err(_) => {
                self.settle(id, Answer::TimedOut);
                Answer::TimedOut
            }
        }
    }

    /// An answer has come for iq `id`. False when nobody waits for it.
    pub(super) fn settle(&self, id: u64, answer: Answer) -> bool {
        let Some(waiter) = self.waiting().answers.remove(&id) else { return false };
        self.outstanding.fetch_sub(1, Ordering::Relaxed);
        // The waiter may have given up in this moment; then nobody needs the answer.
        let _ = waiter.send(answer);
        true
    }

    /// The connection is gone: nothing more is queued, what was queued is undelivered, and the rest is lost.
    pub(super) fn cut(&self, outbound: &mut mpsc::Receiver<Outgoing>) {
        let mut waiting = self.waiting();
        waiting.attached = false;
        let mut answers = std::mem::take(&mut waiting.answers);
        drop(waiting);
        while let Ok(stanza) = outbound.try_recv() {
            if let Some(waiter) = stanza.asks().and_then(|id| answers.remove(&id)) {
                let _ = waiter.send(Answer::Undelivered);
            }
        }
        for (_, waiter) in answers {
            let _ = waiter.send(Answer::Lost);
        }
        self.outstanding.store(0, Ordering::Relaxed);
    }

    pub(super) fn reattach(&self) {
        self.waiting().attached = true;
    }

    /// Ends the session with a stream error. Does nothing when it is ending already.
    pub(crate) fn end(&self, error: StreamError) {
        let _ = self.control.try_send(Control::End(Box::new(error)));
    }

    /// The full JID the session is bound to; `None` before.
    pub(super) fn jid(&self) -> Option<&Jid> {
        self.jid.get()
    }

    /// Binds the session; false when it is bound already.
    pub(super) fn bind(&self, jid: Jid) -> bool {
        self.jid.set(jid).is_ok()
    }

    pub(super) fn set_resumable(&self) {
        self.resumable.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_resumable(&self) -> bool {
        self.resumable.load(Ordering::Relaxed)
    }

    /// Whether a connection carries the session now.
    pub fn is_attached(&self) -> bool {
        self.waiting().attached
    }

    pub(super) fn seen(&self, now_ms: i64) {
        self.last_seen_ms.store(now_ms, Ordering::Relaxed);
    }

    pub(crate) fn said_hello(&self, hello: Hello, epoch: u64) {
        self.epoch.store(epoch, Ordering::Relaxed);
        let mut said = self.said();
        said.running.clone_from(&hello.revisions);
        said.hello = Some(hello);
    }

    /// Keeps a health report and returns the one before.
    pub(crate) fn said_health(&self, health: HealthReport) -> Option<HealthReport> {
        let mut said = self.said();
        for module in &health.modules {
            said.running.insert(module.module.clone(), module.revision);
        }
        said.health.replace(health)
    }

    pub(crate) fn said_applied(&self, applied: &payload::Applied) {
        self.said().running.insert(applied.module.clone(), applied.running);
    }

    /// What the agent said when it came; `None` before.
    pub fn hello(&self) -> Option<Hello> {
        self.said().hello.clone()
    }

    /// A config of the module is about to be sent; returns the number of this push.
    pub(crate) fn begin_push(&self, module: &str) -> u64 {
        let mut said = self.said();
        let pushes = said.pushes.entry(module.to_owned()).or_default();
        *pushes += 1;
        *pushes
    }

    /// Whether no other push of the module was begun since.
    pub(crate) fn is_latest_push(&self, module: &str, push: u64) -> bool {
        self.said().pushes.get(module) == Some(&push)
    }

    /// The revision of a module's config that runs, 0 for none.
    pub fn running(&self, module: &str) -> u64 {
        self.said().running.get(module).copied().unwrap_or(0)
    }

    /// Whether the agent's build has such a module.
    pub fn knows(&self, module: &str) -> bool {
        self.said().hello.as_ref().is_some_and(|hello| hello.modules.iter().any(|kind| kind == module))
    }

    /// Whether and how well the agent can work for a module now.
    pub fn fitness(&self, module: &str) -> Option<Fitness> {
        let said = self.said();
        let reported = said
            .health
            .as_ref()
            .and_then(|health| health.modules.iter().find(|entry| entry.module == module))
            .map(|entry| entry.state);
        match reported {
            Some(ModuleState::Ok) => Some(Fitness::Ok),
            Some(ModuleState::Degraded) => Some(Fitness::Degraded),
            // A report from before the config arrived says idle while `applied` says it runs since.
            Some(ModuleState::Idle) | None => {
                (said.running.get(module).is_some_and(|revision| *revision > 0)).then_some(Fitness::Ok)
            }
            Some(ModuleState::Failed) => None,
        }
    }

    /// Requests and actions waiting for the agent's answer.
    pub fn outstanding(&self) -> u32 {
        self.outstanding.load(Ordering::Relaxed)
    }

    /// Where its connection comes from; a proxy's address when there is one between.
    pub fn from(&self) -> SocketAddr {
        *self.from.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Another connection carries the session from now on.
    pub(super) fn moved_to(&self, from: SocketAddr) {
        *self.from.lock().unwrap_or_else(PoisonError::into_inner) = from;
    }

    /// The session's epoch, 0 before its hello.
    pub fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Relaxed)
    }

    fn presence(&self) -> Option<Presence> {
        let said = self.said();
        Some(Presence {
            identity: self.identity.clone()?,
            session_epoch: self.epoch(),
            last_seen_ms: self.last_seen_ms.load(Ordering::Relaxed),
            outstanding: self.outstanding(),
            hello: said.hello.clone()?,
            health: said.health.clone(),
            running: said.running.clone(),
        })
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn said(&self) -> MutexGuard<'_, Said> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A session without a connection.
pub(super) struct Detached {
    pub(super) session: Arc<Session>,
    pub(super) inlets: Inlets,
    pub(super) sm: StreamManagement<Box<Outgoing>>,
    /// Bytes of the stanzas in `sm`.
    pub(super) unacked_bytes: usize,
}

impl Detached {
    fn weight_bytes(&self) -> usize {
        const SESSION_BYTES: usize = 1_024;
        SESSION_BYTES + self.unacked_bytes
    }
}

enum Resumable {
    Attached(Arc<Session>),
    Detached { state: Detached, weight_bytes: usize },
}

/// All sessions of this node.
#[derive(Default)]
pub struct Sessions {
    state: Mutex<State>,
    next_serial: AtomicU64,
    rotation: AtomicU64,
}

#[derive(Default)]
struct State {
    /// Agents that said hello, by tenant and instance: a request looks at its tenant's agents only.
    online: HashMap<String, BTreeMap<String, Arc<Session>>>,
    /// By XEP-0198 id.
    resumable: HashMap<String, Resumable>,
    /// Detached ones in the order of their cut; entries of resumed sessions are skipped when met.
    oldest: VecDeque<String>,
    detached: usize,
    detached_bytes: usize,
    /// Every session with a connection, whatever its role.
    connected: BTreeMap<u64, Arc<Session>>,
}

impl Sessions {
    /// A number no other session of this process has.
    pub(super) fn serial(&self) -> u64 {
        self.next_serial.fetch_add(1, Ordering::Relaxed)
    }

    /// The live session of an agent.
    pub fn get(&self, identity: &AgentIdentity) -> Option<Arc<Session>> {
        self.state().online.get(&identity.tenant)?.get(&identity.instance).cloned()
    }

    /// Everyone of a tenant who is online, by instance id.
    pub fn online(&self, tenant: &str) -> Vec<Presence> {
        let sessions = self.of_tenant(tenant);
        let mut all: Vec<Presence> = sessions.iter().filter_map(|session| session.presence()).collect();
        all.sort_by(|a, b| a.identity.cmp(&b.identity));
        all
    }

    /// One agent, if it is online.
    pub fn presence(&self, tenant: &str, instance: &str) -> Option<Presence> {
        let identity = AgentIdentity { tenant: tenant.to_owned(), instance: instance.to_owned() };
        self.get(&identity)?.presence()
    }

    /// The number of agents online.
    pub fn count(&self) -> usize {
        self.state().online.values().map(BTreeMap::len).sum()
    }

    /// Live sessions of a tenant.
    pub fn of_tenant(&self, tenant: &str) -> Vec<Arc<Session>> {
        self.state().online.get(tenant).map(|agents| agents.values().cloned().collect()).unwrap_or_default()
    }

    /// Agents fit for a module, best first: those that are well before those in trouble, then the least loaded; among
    /// equals it changes, so that load spreads.
    pub fn fit_for(&self, tenant: &str, module: &str) -> Vec<Arc<Session>> {
        let mut fit: Vec<(Fitness, u32, Arc<Session>)> = self
            .of_tenant(tenant)
            .into_iter()
            .filter_map(|session| Some((session.fitness(module)?, session.outstanding(), session)))
            .collect();
        fit.sort_by_key(|(fitness, outstanding, session)| (*fitness, *outstanding, session.serial));
        let equals = fit
            .iter()
            .take_while(|(fitness, outstanding, _)| {
                fit.first().is_some_and(|best| (best.0, best.1) == (*fitness, *outstanding))
            })
            .count();
        if equals > 1 {
            let turn = self.rotation.fetch_add(1, Ordering::Relaxed) as usize;
            fit[..equals].rotate_left(turn % equals);
        }
        fit.into_iter().map(|(_, _, session)| session).collect()
    }

    pub(super) fn connect(&self, session: &Arc<Session>) {
        self.state().connected.insert(session.serial, Arc::clone(session));
    }

    pub(super) fn disconnect(&self, session: &Session) {
        self.state().connected.remove(&session.serial);
    }

    /// Ends every session that has a connection.
    pub(crate) fn end_all(&self, error: impl Fn() -> StreamError) {
        for session in self.state().connected.values() {
            session.end(error());
        }
    }

    /// Agents' sessions that have a connection.
    pub(super) fn connected_agents(&self) -> Vec<Arc<Session>> {
        let state = self.state();
        state.connected.values().filter(|session| session.identity.is_some()).cloned().collect()
    }

    /// Sessions that have a connection, whatever their role.
    pub fn connections(&self) -> usize {
        self.state().connected.len()
    }

    /// The agent's session counts from now on. Returns the one it replaces.
    pub(crate) fn come_online(&self, session: &Arc<Session>) -> Option<Arc<Session>> {
        let identity = session.identity.clone()?;
        let mut state = self.state();
        let agents = state.online.entry(identity.tenant).or_default();
        agents.insert(identity.instance, Arc::clone(session)).filter(|old| old.serial != session.serial)
    }

    /// The session is gone; false when another one of the same agent had taken over before.
    pub(super) fn go_offline(&self, session: &Session) -> bool {
        let Some(identity) = &session.identity else { return false };
        let mut state = self.state();
        let Some(agents) = state.online.get_mut(&identity.tenant) else { return false };
        let current = agents.get(&identity.instance).is_some_and(|online| online.serial == session.serial);
        if current {
            agents.remove(&identity.instance);
            if agents.is_empty() {
                state.online.remove(&identity.tenant);
            }
        }
        current
    }

    /// The session may be resumed under `id`.
    pub(super) fn enable_resumption(&self, id: &str, session: &Arc<Session>) {
        session.set_resumable();
        self.state().resumable.insert(id.to_owned(), Resumable::Attached(Arc::clone(session)));
    }

    /// Keeps a cut session. The oldest ones go when there are too many or they hold too much.
    pub(super) fn detach(&self, id: &str, state: Detached) {
        let weight_bytes = state.weight_bytes();
        let mut all = self.state();
        all.resumable.insert(id.to_owned(), Resumable::Detached { state, weight_bytes });
        all.oldest.push_back(id.to_owned());
        all.detached += 1;
        all.detached_bytes += weight_bytes;
        while all.detached > DETACHED_SESSIONS_MAX || all.detached_bytes > DETACHED_MAX_BYTES {
            let Some(oldest) = all.oldest.pop_front() else { break };
            all.forget_detached(&oldest);
        }
    }

    /// The session under `id` will not be resumed. False when it was resumed or forgotten before.
    pub(super) fn forget(&self, id: &str) {
        self.state().resumable.remove(id);
    }

    /// The time of a detached session is over; a session that was resumed meanwhile stays.
    pub(super) fn expire(&self, id: &str) {
        let mut state = self.state();
        state.forget_detached(id);
        state.oldest.retain(|other| other != id);
    }

    /// Takes a session out for resumption by `identity`, from its detached state or from a connection that is still
    /// there because nobody noticed its death.
    pub(super) async fn take(&self, id: &str, identity: Option<&AgentIdentity>) -> Option<Detached> {
        let attached = {
            let mut state = self.state();
            let mine = match state.resumable.get(id)? {
                Resumable::Attached(session) => session.identity.as_ref() == identity,
                Resumable::Detached { state, .. } => state.session.identity.as_ref() == identity,
            };
            if !mine {
                return None;
            }
            match state.resumable.remove(id)? {
                Resumable::Detached { state: detached, weight_bytes } => {
                    state.detached -= 1;
                    state.detached_bytes -= weight_bytes;
                    state.oldest.retain(|other| other != id);
                    return Some(detached);
                }
                Resumable::Attached(session) => session,
            }
        };
        let (hand_over, handed_over) = oneshot::channel();
        attached.control.send(Control::HandOver(hand_over)).await.ok()?;
        handed_over.await.ok()
    }

    /// Ends every session of these agents with a stream error, whether it has come online yet or waits for its
    /// resumption. One turn over all sessions, however many are out.
    pub(super) fn evict(&self, out: &HashSet<AgentIdentity>, error: impl Fn() -> StreamError) {
        let is_out =
            |session: &Session| session.identity.as_ref().is_some_and(|identity| out.contains(identity));
        let mut state = self.state();
        for session in state.connected.values().filter(|session| is_out(session)) {
            session.end(error());
        }
        let detached = |(id, entry): (&String, &Resumable)| match entry {
            Resumable::Detached { state, .. } if is_out(&state.session) => Some(id.clone()),
            _ => None,
        };
        let forgotten: Vec<String> = state.resumable.iter().filter_map(detached).collect();
        for id in forgotten {
            state.forget_detached(&id);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn forget_detached(&mut self, id: &str) {
        if let Some(Resumable::Detached { weight_bytes, .. }) = self.resumable.get(id) {
            self.detached -= 1;
            self.detached_bytes -= weight_bytes;
            self.resumable.remove(id);
        }
    }
}
