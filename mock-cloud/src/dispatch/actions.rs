//! Actions: stored first, then carried to an agent that accepts them durably, then ended exactly once.
//!
//! One carrier (a short-lived task) per action takes it from the store to an agent's acceptance. An action nobody can
//! take stays in the store and is tried again whenever something changes for its tenant. Every end, whoever causes
//! it, goes through the store's compare-and-set.

use std::collections::HashSet;
use std::sync::atomic::Ordering;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use causeway_mock_kit::fault::Point;
use causeway_protocol::action::{Action, ErrorReport, Report, Status, codes};
use futures_util::StreamExt as _;
use serde_json::{Value, json};
use xmpp_parsers::stanza_error::{DefinedCondition, StanzaError};

use super::Dispatch;
use super::choice::{Choice, choose, instance_of, is_repeatable};
use crate::certificates;
use crate::channel::FRONT;
use crate::channel::inbound::{Refused, error_report, journal};
use crate::channel::registry::{Answer, Session};
use crate::limits::{
    ACTIONS_IN_FLIGHT_MAX, ATTEMPTS_MAX, DEADLINE_GRACE, DEADLINES_PER_TURN, OVERLOAD_PAUSE, SESSION_PAUSE,
    STORE_PAUSE,
};
use crate::pki::AgentIdentity;
use crate::state::Cloud;
use crate::store::{ActionRow, Finish, Given, StoreError, Under};

/// What an agent reports of an action.
///
/// # Errors
/// `item-not-found` for an action the tenant does not have, `conflict` with text `stale_fence` for work done under a
/// lease that has passed on.
pub(crate) async fn report(cloud: &Arc<Cloud>, who: &AgentIdentity, report: Report) -> Result<(), Refused> {
    let tenant = who.tenant.as_str();
    let found = cloud.store.action(tenant, &report.id).await.map_err(|error| Refused::store(&error))?;
    let Some((action, _)) = found else {
        return Err(Refused::new(DefinedCondition::ItemNotFound, "there is no such action"));
    };
    if let (Some(fence), Some(resource)) = (report.fence, &action.resource) {
        let current =
            cloud.store.lease(tenant, resource).await.map_err(|error| Refused::store(&error))?.fence;
        if fence < current {
            return Err(refuse_stale(cloud, who, action, fence, current).await);
        }
    }
    let ended = match report.status {
        Status::Pending => {
            certificates::progressed(cloud, &action, report.result.as_ref())
                .await
                .map_err(|error| Refused::store(&error))?;
            let detail = report.result.map(|result| result.to_string()).unwrap_or_default();
            let agent = Some(who.instance.clone());
            let noted =
                cloud.store.action_note(tenant, &report.id, "running", agent, detail, cloud.now_ms()).await;
            // News of an action that is over by now is none.
            if noted.map_err(|error| Refused::store(&error))? {
                changed(cloud, &action, "running", Status::Pending, Some(&who.instance));
            }
            return Ok(());
        }
        Status::Success => Ok(report.result.unwrap_or(Value::Null)),
        Status::Failure => Err(report.error.unwrap_or_else(|| {
            ErrorReport::new(codes::INTERNAL, "the agent gave no reason", "See the agent's log")
        })),
    };
    finish(cloud, &action, Some(&who.instance), ended).await.map_err(|error| Refused::store(&error))
}

async fn refuse_stale(
    cloud: &Arc<Cloud>,
    who: &AgentIdentity,
    action: ActionRow,
    fence: u64,
    current: u64,
) -> Refused {
    let detail = format!("fence {fence} is older than {current}");
    let agent = Some(who.instance.clone());
    let noted =
        cloud.store.action_note(&who.tenant, &action.id, "stale_report", agent, detail, cloud.now_ms()).await;
    if let Err(error) = noted {
        return Refused::store(&error);
    }
    // Nobody works on it any more under a valid lease: the holder of today gets it. Unless it has it: then this was said
    // before it was given again.
    if action.fence == Some(fence) {
        if let Err(error) = cloud.store.action_taken_back(&who.tenant, &action.id, &who.instance).await {
            return Refused::store(&error);
        }
        tokio::spawn(carry(Arc::clone(cloud), who.tenant.clone(), action.id));
    }
    Refused::new(DefinedCondition::Conflict, codes::STALE_FENCE)
}

/// Ends an action and tells everyone. A second end is kept as `duplicate_result` and told to nobody.
async fn finish(
    cloud: &Cloud,
    action: &ActionRow,
    agent: Option<&str>,
    ended: Result<Value, ErrorReport>,
) -> Result<(), StoreError> {
    let status = if ended.is_ok() { Status::Success } else { Status::Failure };
    let outcome = ended.as_ref().err().map_or("success".to_owned(), |error| error.code.clone());
    let agent_owned = agent.map(str::to_owned);
    let certified = match &ended {
        Ok(result) => certificates::certified(cloud, action, result).await?,
        Err(_) => None,
    };
    let issued = certified.as_ref().map(|it| it.issued.clone());
    let is_settled = certified.is_some();
    // What comes after the end is kept nowhere else: a certificate that exists must not be forgotten.
    let late = certificates::is_about(action).then(|| ended.as_ref().ok().cloned()).flatten();
    let now_ms = cloud.now_ms();
    let (finish, request) =
        cloud.store.finish_action(&action.tenant, &action.id, agent_owned, ended, issued, now_ms).await?;
    match finish {
        Finish::Done => {
            changed(cloud, action, status.as_str(), status, agent);
            if let Some(certified) = certified {
                certificates::recorded(cloud, &action.tenant, certified, request).await?;
            }
        }
        Finish::Duplicate => {
            if let Some(result) = late {
                certificates::came_late(cloud, action, result).await?;
            }
        }
        Finish::Unknown => {}
    }
    if certificates::is_about(action) && !is_settled {
        cloud.certificates.touch(&action.tenant);
    }
    let duplicate = finish != Finish::Done;
    journal(cloud, "report", &action.id, &outcome, json!({ "agent": agent, "duplicate": duplicate }));
    Ok(())
}

pub(super) fn changed(cloud: &Cloud, action: &ActionRow, step: &str, status: Status, agent: Option<&str>) {
    let body = json!({
        "action": action.id, "module": action.module, "verb": action.action, "status": status.as_str(),
        "step": step, "agent": agent,
    });
    cloud.action_changed(&action.tenant, &action.id, body);
}

/// Tries every action of a tenant that waits for an agent.
pub(super) async fn carry_waiting(cloud: &Arc<Cloud>, tenant: &str) {
    let waiting = match cloud.store.waiting_actions(tenant).await {
        Ok(waiting) => waiting,
        Err(error) => return tracing::error!(%error, "Waiting actions could not be read"),
    };
    futures_util::stream::iter(waiting)
        .for_each_concurrent(ACTIONS_IN_FLIGHT_MAX, |id| carry(Arc::clone(cloud), tenant.to_owned(), id))
        .await;
}

/// Gives what a lost agent had accepted to others, where that is safe; the rest waits for the agent or its deadline.
pub(super) async fn take_from_lost(cloud: &Arc<Cloud>, who: &AgentIdentity) {
    let accepted = match cloud.store.accepted_actions(&who.tenant, &who.instance).await {
        Ok(accepted) => accepted,
        Err(error) => return tracing::error!(%error, "Actions of a lost agent could not be read"),
    };
    for action in accepted.into_iter().filter(is_repeatable) {
        note(cloud, &action, "lost", &who.instance, "the agent is gone; another one takes over").await;
        if let Err(error) = cloud.store.action_taken_back(&who.tenant, &action.id, &who.instance).await {
            return tracing::error!(%error, "Actions of a lost agent could not be taken back");
        }
    }
    carry_waiting(cloud, &who.tenant).await;
}

/// The right to carry an action, which one carrier has at a time.
pub(super) struct Carried {
    pub(super) cloud: Arc<Cloud>,
    id: String,
}

impl Carried {
    /// Nothing when somebody else has it.
    pub(super) fn take(cloud: &Arc<Cloud>, id: &str) -> Option<Self> {
        let is_free = cloud.dispatch.carried().insert(id.to_owned());
        is_free.then(|| Self { cloud: Arc::clone(cloud), id: id.to_owned() })
    }
}

impl Drop for Carried {
    fn drop(&mut self) {
        self.cloud.dispatch.carried().remove(&self.id);
    }
}

/// An attempt that is recorded, and not on its way yet.
pub(super) struct Attempt {
    pub(super) action: ActionRow,
    pub(super) session: Arc<Session>,
    pub(super) agent: String,
    pub(super) number: u32,
    pub(super) fence: Option<u64>,
}

/// Carries an action to an acceptance, if nobody else does.
pub(super) async fn carry(cloud: Arc<Cloud>, tenant: String, id: String) {
    if let Some(carried) = Carried::take(&cloud, &id) {
        carry_on(carried, tenant, None).await;
    }
}

/// Carries an action to an acceptance, beginning with an attempt that is recorded already.
pub(super) async fn carry_on(carried: Carried, tenant: String, mut begun: Option<Attempt>) {
    let (cloud, id) = (Arc::clone(&carried.cloud), carried.id.clone());
    let mut carried = Some(carried);
    let mut carrier = Carrier { avoid: None, may_be_there: false };
    while carried.is_some() {
        let chances = cloud.dispatch.chances.load(Ordering::Acquire);
        let step = match begun.take() {
            Some(attempt) => carrier.begin(&cloud, attempt).await,
            None => carrier.carry_once(&cloud, &tenant, &id).await,
        };
        match step {
            Ok(Next::Again) => {}
            Ok(Next::Pause(pause)) => tokio::time::sleep(pause).await,
            Ok(Next::Wait) => {
                carried = None;
                // A chance that came while we looked found the action carried and left it to us.
                if cloud.dispatch.chances.load(Ordering::Acquire) != chances {
                    carried = Carried::take(&cloud, &id);
                }
            }
            Ok(Next::Done) => return,
            Err(error) => {
                tracing::error!(%error, action = id, "Action could not be carried on");
                tokio::time::sleep(STORE_PAUSE).await;
            }
        }
        if cloud.kit.stop.is_cancelled() {
            return;
        }
    }
}

enum Next {
    Again,
    Pause(Duration),
    Wait,
    Done,
}

struct Carrier {
    avoid: Option<String>,
    /// An earlier attempt may have reached the agent, so a later one that certainly did not changes nothing.
    may_be_there: bool,
}

impl Carrier {
    /// Goes on with an attempt that was recorded with the order.
    async fn begin(&mut self, cloud: &Arc<Cloud>, attempt: Attempt) -> Result<Next, StoreError> {
        let Ok(_slot) = cloud.dispatch.in_flight.acquire().await else { return Ok(Next::Done) };
        self.send(cloud, attempt).await
    }

    async fn carry_once(&mut self, cloud: &Arc<Cloud>, tenant: &str, id: &str) -> Result<Next, StoreError> {
        let Ok(_slot) = cloud.dispatch.in_flight.acquire().await else { return Ok(Next::Done) };
        let Some((action, _)) = cloud.store.action(tenant, id).await? else { return Ok(Next::Done) };
        if action.status.is_terminal() || action.accepted {
            return Ok(Next::Done);
        }
        if action.deadline_ms <= cloud.now_ms() {
            // The deadline's own task ends it.
            return Ok(Next::Done);
        }
        if action.attempts >= ATTEMPTS_MAX {
            finish(cloud, &action, None, Err(why_given_up(&action))).await?;
            return Ok(Next::Done);
        }
        // After an attempt without an answer the agent may have the action. Then only a repeatable one may go
        // elsewhere; the others wait for the same agent, which knows the action by its id.
        let only = (action.attempts > 0 && !is_repeatable(&action) && action.agent.is_some())
            .then(|| action.agent.clone())
            .flatten();
        self.may_be_there = only.is_some();
        match choose(cloud, &action, self.avoid.as_deref(), only.as_deref()).await? {
            Choice::Agent(session, under) => self.give(cloud, action, session, under).await,
            Choice::Nobody => Ok(Next::Wait),
            Choice::Impossible(error) => {
                finish(cloud, &action, None, Err(error)).await?;
                Ok(Next::Done)
            }
        }
    }

    async fn give(
        &mut self,
        cloud: &Arc<Cloud>,
        action: ActionRow,
        session: Arc<Session>,
        under: Option<Under>,
    ) -> Result<Next, StoreError> {
        let Some(agent) = instance_of(&session).map(str::to_owned) else { return Ok(Next::Wait) };
        let fence = under.as_ref().map(|under| under.fence);
        let given = Given { agent: agent.clone(), under };
        let now_ms = cloud.now_ms();
        let number = cloud.store.action_dispatched(&action.tenant, &action.id, given, now_ms).await?;
        let Some(number) = number else { return Ok(Next::Done) };
        self.send(cloud, Attempt { action, session, agent, number, fence }).await
    }

    async fn send(&mut self, cloud: &Arc<Cloud>, attempt: Attempt) -> Result<Next, StoreError> {
        let Attempt { action, session, agent, number, fence } = attempt;
        changed(cloud, &action, "dispatched", Status::Pending, Some(&agent));
        let left_ms = u64::try_from(action.deadline_ms - cloud.now_ms()).unwrap_or(0);
        let order = Action {
            id: action.id.clone(),
            module: action.module.clone(),
            action: action.action.clone(),
            target: action.target.clone(),
            params: action.params.clone(),
            ttl_ms: agents_share(left_ms),
            attempt: number,
            fence,
        };
        // An injected fault stands for a network that loses the order before anyone has it.
        let point = Point { front: FRONT, operation: "action", subject: &action.id };
        if cloud.kit.faults.meet(&point).await.is_some() {
            self.set_free(cloud, &action, &agent).await?;
            note(cloud, &action, "undelivered", &agent, "the order was lost on its way (injected)").await;
            self.avoid = Some(agent);
            return Ok(Next::Again);
        }
        let within = cloud.config.channel.accept_within().min(Duration::from_millis(left_ms));
        let answer = session.action(Arc::new(order), within).await;
        self.answered(cloud, &action, agent, number, answer).await
    }

    async fn answered(
        &mut self,
        cloud: &Arc<Cloud>,
        action: &ActionRow,
        agent: String,
        attempt: u32,
        answer: Answer,
    ) -> Result<Next, StoreError> {
        let (tenant, id) = (action.tenant.as_str(), action.id.as_str());
        let detail = json!({ "agent": agent, "attempt": attempt });
        match answer {
            Answer::Result(_) => {
                journal(cloud, "action", id, "accepted", detail);
                if cloud.store.action_accepted(tenant, id, &agent, cloud.now_ms()).await? {
                    changed(cloud, action, "accepted", Status::Pending, Some(&agent));
                }
                Ok(Next::Done)
            }
            Answer::Error(error) => {
                journal(cloud, "action", id, "refused", detail);
                self.refused(cloud, action, agent, &error).await
            }
            Answer::Undelivered => {
                journal(cloud, "action", id, "undelivered", detail);
                self.set_free(cloud, action, &agent).await?;
                note(cloud, action, "undelivered", &agent, "the session was gone before anything was sent")
                    .await;
                Ok(self.try_another(agent))
            }
            Answer::Lost | Answer::TimedOut => {
                journal(cloud, "action", id, "not accepted", detail);
                note(
                    cloud,
                    action,
                    "not_accepted",
                    &agent,
                    "no acceptance came before the session or the time ended",
                )
                .await;
                Ok(self.try_another(agent))
            }
        }
    }

    /// Another agent is tried at once; the same one a second time only after a pause, because a session that is ending
    /// refuses as often as it is asked, and every refusal is an attempt.
    fn try_another(&mut self, agent: String) -> Next {
        let again = self.avoid.as_ref() == Some(&agent);
        self.avoid = Some(agent);
        if again { Next::Pause(SESSION_PAUSE) } else { Next::Again }
    }

    /// This attempt did not reach the agent: anyone may get the action next, unless an earlier attempt may have.
    async fn set_free(&self, cloud: &Cloud, action: &ActionRow, agent: &str) -> Result<(), StoreError> {
        if self.may_be_there {
            return Ok(());
        }
        cloud.store.action_undelivered(&action.tenant, &action.id, agent).await
    }

    async fn refused(
        &mut self,
        cloud: &Arc<Cloud>,
        action: &ActionRow,
        agent: String,
        error: &StanzaError,
    ) -> Result<Next, StoreError> {
        let report = error_report(error);
        if report.code == codes::OVERLOADED {
            self.set_free(cloud, action, &agent).await?;
            note(cloud, action, "refused", &agent, &report.detail).await;
            self.avoid = Some(agent);
            return Ok(Next::Pause(OVERLOAD_PAUSE));
        }
        finish(cloud, action, Some(&agent), Err(report)).await?;
        Ok(Next::Done)
    }
}

async fn note(cloud: &Cloud, action: &ActionRow, event: &'static str, agent: &str, detail: &str) {
    let (agent, detail) = (Some(agent.to_owned()), detail.to_owned());
    let noted =
        cloud.store.action_note(&action.tenant, &action.id, event, agent, detail, cloud.now_ms()).await;
    match noted {
        Ok(_) => changed(cloud, action, event, Status::Pending, None),
        Err(error) => tracing::error!(%error, action = action.id, "Timeline could not be written"),
    }
}

/// What the agent gets of the remaining time: a little less than all, so that its own verdict about the deadline
/// arrives before ours.
fn agents_share(left_ms: u64) -> u64 {
    left_ms - (left_ms / 10).min(1_000)
}

/// Ends actions whose time is over, until the cloud stops.
pub(super) async fn watch_deadlines(cloud: Arc<Cloud>) {
    loop {
        let changed = cloud.dispatch.deadline_changed.notified();
        // Whoever orders while we look cannot know what we will find, so every order is news meanwhile.
        cloud.dispatch.next_deadline_ms.store(i64::MAX, Ordering::Release);
        let next_ms = match end_overdue(&cloud).await {
            Ok(next_ms) => next_ms,
            Err(error) => {
                tracing::error!(%error, "Deadlines could not be read");
                Some(cloud.now_ms() + i64::try_from(STORE_PAUSE.as_millis()).unwrap_or(i64::MAX))
            }
        };
        cloud.dispatch.next_deadline_ms.store(next_ms.unwrap_or(i64::MAX), Ordering::Release);
        let due = async {
            match next_ms {
                Some(next_ms) => cloud.kit.clock.sleep_until_ms(next_ms).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = cloud.kit.stop.cancelled() => return,
            () = changed => {}
            () = due => {}
        }
    }
}

/// Ends what is over and returns when the next one will be.
async fn end_overdue(cloud: &Arc<Cloud>) -> Result<Option<i64>, StoreError> {
    let grace_ms = i64::try_from(DEADLINE_GRACE.as_millis()).unwrap_or(i64::MAX);
    loop {
        let overdue = cloud.store.overdue_actions(cloud.now_ms(), grace_ms, DEADLINES_PER_TURN).await?;
        if overdue.is_empty() {
            return cloud.store.next_action_deadline(grace_ms).await;
        }
        for action in overdue {
            let error = why_over(cloud, &action);
            finish(cloud, &action, None, Err(error)).await?;
        }
    }
}

fn why_given_up(action: &ActionRow) -> ErrorReport {
    match &action.agent {
        Some(agent) if !is_repeatable(action) => unknown_outcome(format!(
            "agent {agent} may have the action; it did not accept it in {ATTEMPTS_MAX} attempts"
        )),
        _ => ErrorReport::new(
            codes::NO_AGENT,
            format!("no agent accepted the action in {ATTEMPTS_MAX} attempts"),
            "Look at the health of the tenant's agents, then order it again",
        ),
    }
}

fn unknown_outcome(detail: String) -> ErrorReport {
    let remedy = "Look at the system itself whether it was done; order it again if not";
    ErrorReport::new(codes::UNKNOWN_OUTCOME, detail, remedy)
}

fn why_over(cloud: &Cloud, action: &ActionRow) -> ErrorReport {
    if action.attempts > 0 && (action.accepted || !is_repeatable(action)) {
        let agent = action.agent.as_deref().unwrap_or("an agent");
        return unknown_outcome(format!(
            "agent {agent} had the action and did not report before the deadline"
        ));
    }
    let online = cloud.sessions.of_tenant(&action.tenant).len();
    ErrorReport::new(
        codes::DEADLINE_PASSED,
        format!(
            "no agent took the action before the deadline; {online} are online, none of them fit for {}",
            action.module
        ),
        "Bring an agent with this module online and healthy, then order the action again",
    )
}

impl Dispatch {
    fn carried(&self) -> MutexGuard<'_, HashSet<String>> {
        self.carried.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
