//! Two ways to the servers: one for scans, given back after every cmdlet, and one for actions, which go first.
//!
//! A server that allows only one session gives it to the scan; an action then waits for the scan's current cmdlet and
//! uses that one. A session that is in the middle of a cmdlet belongs to nobody: whoever is dropped there loses it.

use std::sync::{Arc, Mutex as Lock, PoisonError};
use std::time::Duration;

use causeway_protocol::clixml::Object;
use causeway_protocol::cmdlet::{Cmdlet, Completed};
use tokio::sync::{Mutex, MutexGuard, mpsc, oneshot, watch};
use tokio::time::{Instant, timeout};

use super::error::{MailError, is_missing_cmdlet};
use super::limits;
use super::recipes::{Recipe, recipes};
use crate::directory::Net;
use crate::exchange::{Exchange, ExchangeError, ServerFacts, Session, Urgency};

/// The sessions of one organisation.
pub(super) struct Sessions {
    exchange: Arc<dyn Exchange>,
    background: Mutex<Slot>,
    urgent: Mutex<Slot>,
    /// Actions that wait or work.
    pressing: watch::Sender<usize>,
    recipe: Lock<Option<&'static Recipe>>,
    /// The domain controller that actions write to and read back from.
    domain_controller: Option<String>,
}

#[derive(Default)]
struct Slot {
    session: Option<Box<dyn Session>>,
    used: Option<Instant>,
}

/// A session for as long as it is held.
pub(super) struct Lent<'a> {
    slot: MutexGuard<'a, Slot>,
    /// Which cmdlets this server has.
    pub(super) recipe: &'static Recipe,
    _pressing: Option<Pressing<'a>>,
    /// The domain controller where cmdlets write and read, when that must be one.
    pinned_to: Option<String>,
}

/// Counts an action for as long as it waits or works.
struct Pressing<'a>(&'a watch::Sender<usize>);

impl Drop for Pressing<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

impl Sessions {
    pub(super) fn new(exchange: Arc<dyn Exchange>, domain_controller: Option<String>) -> Self {
        Self {
            exchange,
            background: Mutex::default(),
            urgent: Mutex::default(),
            pressing: watch::Sender::new(0),
            recipe: Lock::new(None),
            domain_controller,
        }
    }

    /// For scans: waits while actions wait or work, but not for ever. Scans are spread over all domain controllers.
    pub(super) async fn background(&self, net: &Net) -> Result<Lent<'_>, MailError> {
        self.background_at(net, None).await
    }

    /// The same at one domain controller, for work that must find again what it has written.
    pub(super) async fn background_at(&self, net: &Net, host: Option<&str>) -> Result<Lent<'_>, MailError> {
        let mut pressing = self.pressing.subscribe();
        // Its sender is ours, so the wait ends only by being met or by the limit.
        let _ = timeout(limits::YIELD_AT_MOST, pressing.wait_for(|count| *count == 0)).await;
        let mut slot = self.background.lock().await;
        self.fill(&mut slot, net, Urgency::Background).await?;
        self.lend(slot, None, host).await
    }

    /// For actions: goes before scans. What an action has written it must find again.
    pub(super) async fn urgent(&self, net: &Net) -> Result<Lent<'_>, MailError> {
        self.urgent_at(net, self.domain_controller()).await
    }

    /// The same at this domain controller.
    pub(super) async fn urgent_at(&self, net: &Net, host: Option<&str>) -> Result<Lent<'_>, MailError> {
        self.pressing.send_modify(|count| *count += 1);
        let pressing = Pressing(&self.pressing);
        let mut slot = self.urgent.lock().await;
        match self.fill(&mut slot, net, Urgency::Urgent).await {
            Err(MailError::Session { source: ExchangeError::Throttled { detail, .. } }) => {
                tracing::info!(detail, "No second session; the action waits for the scan's cmdlet");
                drop(slot);
                let mut slot = self.background.lock().await;
                self.fill(&mut slot, net, Urgency::Urgent).await?;
                self.lend(slot, Some(pressing), host).await
            }
            filled => {
                filled?;
                self.lend(slot, Some(pressing), host).await
            }
        }
    }

    /// The one that the settings name.
    pub(super) fn domain_controller(&self) -> Option<&str> {
        self.domain_controller.as_deref()
    }

    async fn fill(&self, slot: &mut Slot, net: &Net, urgency: Urgency) -> Result<(), MailError> {
        if slot.session.is_none() {
            slot.session = Some(self.exchange.open(net.clone(), urgency).await?);
        }
        slot.used = Some(Instant::now());
        Ok(())
    }

    async fn lend<'a>(
        &'a self,
        slot: MutexGuard<'a, Slot>,
        pressing: Option<Pressing<'a>>,
        host: Option<&str>,
    ) -> Result<Lent<'a>, MailError> {
        let known = *self.recipe.lock().unwrap_or_else(PoisonError::into_inner);
        let recipe = known.unwrap_or(&recipes()[0]);
        let mut lent = Lent { slot, recipe, _pressing: pressing, pinned_to: None };
        // Exchange Online shows no domain controllers.
        lent.pinned_to = host.filter(|_| !lent.server().online).map(str::to_owned);
        if known.is_none() {
            lent.recipe = detect(&mut lent).await?;
            tracing::info!(version = lent.recipe.title, host = lent.server().host, "Exchange is known");
            *self.recipe.lock().unwrap_or_else(PoisonError::into_inner) = Some(lent.recipe);
        }
        Ok(lent)
    }

    /// Looks again which cmdlets there are, the next time: servers are updated, and roles are given.
    pub(super) fn forget_recipe(&self) {
        *self.recipe.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Ends the scan's session; servers count open runspaces.
    pub(super) async fn rest(&self) {
        // Somebody who holds it needs it.
        let session = self.background.try_lock().ok().and_then(|mut slot| slot.session.take());
        if let Some(session) = session {
            session.close().await;
        }
    }

    /// Ends the actions' session if nobody has used it for a while.
    pub(super) async fn close_idle(&self) {
        let idle = |slot: &Slot| slot.used.is_none_or(|used| used.elapsed() >= limits::URGENT_IDLE);
        let session =
            self.urgent.try_lock().ok().filter(|slot| idle(slot)).and_then(|mut slot| slot.session.take());
        if let Some(session) = session {
            session.close().await;
        }
    }

    /// Ends both.
    pub(super) async fn close(&self) {
        for slot in [&self.background, &self.urgent] {
            let session = slot.try_lock().ok().and_then(|mut slot| slot.session.take());
            if let Some(session) = session {
                session.close().await;
            }
        }
    }
}

/// Which generation it is: the newest whose cmdlet exists.
async fn detect(lent: &mut Lent<'_>) -> Result<&'static Recipe, MailError> {
    for recipe in recipes() {
        let probe = if recipe.per_mailbox {
            // Asking for everything is not possible; a mailbox that does not exist tells as much.
            Cmdlet::new(&recipe.probe).with("Mailbox", PROBE_MAILBOX)
        } else {
            Cmdlet::new(&recipe.probe).with("ResultSize", "1")
        };
        match lent.all(&probe, limits::ANSWERS_MAX).await {
            Err(MailError::Cmdlet { record, .. }) if is_missing_cmdlet(&record) => {}
            // Whatever else is wrong with it, the cmdlet is there.
            Ok(_) | Err(MailError::Cmdlet { .. }) => return Ok(recipe),
            Err(error) => return Err(error),
        }
    }
    let cmdlets: Vec<&str> = recipes().iter().map(|recipe| recipe.probe.as_str()).collect();
    Err(MailError::NoCmdlets { cmdlets: cmdlets.join(", ") })
}

/// A mailbox nobody has; it only shows that a cmdlet exists.
const PROBE_MAILBOX: &str = "00000000-0000-0000-0000-000000000000";

impl Lent<'_> {
    /// What is known of the other side.
    pub(super) fn server(&self) -> ServerFacts {
        self.slot.session.as_ref().map(|session| session.server()).unwrap_or_default()
    }

    /// Runs a cmdlet and takes its objects page by page.
    pub(super) fn list(&mut self, cmdlet: Cmdlet) -> Result<Listing<'_>, MailError> {
        let Some(mut session) = self.slot.session.take() else {
            let detail = "the session broke before".to_owned();
            return Err(ExchangeError::Unreachable { detail }.into());
        };
        let cmdlet = match &self.pinned_to {
            Some(host) => cmdlet.with("DomainController", host.as_str()),
            None => cmdlet,
        };
        let (sender, objects) = mpsc::channel(limits::OBJECTS_AHEAD);
        let (ended, end) = oneshot::channel();
        let name = cmdlet.name.clone();
        tokio::spawn(async move {
            let result = session.run(&cmdlet, sender).await;
            let lives = result.as_ref().err().is_none_or(ExchangeError::session_lives);
            if let Err((session, _)) = ended.send((lives.then_some(session), result))
                && let Some(session) = session
            {
                session.close().await;
            }
        });
        Ok(Listing { slot: &mut self.slot, cmdlet: name, objects, end })
    }

    /// Runs a cmdlet and keeps at most `max` objects; more are not waited for.
    pub(super) async fn all(
        &mut self,
        cmdlet: &Cmdlet,
        max: usize,
    ) -> Result<(Vec<Object>, Completed), MailError> {
        let mut listing = self.list(cmdlet.clone())?;
        let mut objects = Vec::new();
        while let Some(page) = listing.next_page(limits::CMDLET_WITHIN).await? {
            objects.extend(page);
            if objects.len() >= max {
                listing.stop().await;
                return Ok((objects, Completed::default()));
            }
        }
        Ok((objects, listing.finish().await?))
    }

    /// Runs a cmdlet about one object; an error record is an error.
    pub(super) async fn ask(&mut self, cmdlet: &Cmdlet) -> Result<Vec<Object>, MailError> {
        self.ask_for(cmdlet, limits::ANSWERS_MAX).await
    }

    /// The same for a few objects.
    pub(super) async fn ask_for(&mut self, cmdlet: &Cmdlet, max: usize) -> Result<Vec<Object>, MailError> {
        let (objects, completed) = self.all(cmdlet, max).await?;
        match completed.errors.into_iter().next() {
            Some(record) => Err(MailError::Cmdlet { cmdlet: cmdlet.name.clone(), record: Box::new(record) }),
            None => Ok(objects),
        }
    }
}

/// The session, unless it is over, and how the cmdlet ended.
type Ended = (Option<Box<dyn Session>>, Result<Completed, ExchangeError>);

/// A cmdlet at work.
pub(super) struct Listing<'a> {
    slot: &'a mut Slot,
    cmdlet: String,
    objects: mpsc::Receiver<Object>,
    end: oneshot::Receiver<Ended>,
}

impl Listing<'_> {
    /// Some more objects; none when the cmdlet has ended.
    pub(super) async fn next_page(&mut self, within: Duration) -> Result<Option<Vec<Object>>, MailError> {
        let mut page = Vec::new();
        match timeout(within, self.objects.recv_many(&mut page, limits::PAGE)).await {
            Ok(0) => Ok(None),
            Ok(_) => Ok(Some(page)),
            Err(_) => Err(MailError::TimedOut { cmdlet: self.cmdlet.clone(), within }),
        }
    }

    /// How it ended. An error that ended the cmdlet is an error here; others are in the answer.
    pub(super) async fn finish(self) -> Result<Completed, MailError> {
        let Self { slot, cmdlet, objects, end } = self;
        drop(objects);
        let Ok((session, result)) = end.await else {
            return Err(ExchangeError::Unreachable { detail: "the session failed".to_owned() }.into());
        };
        slot.session = session;
        let completed = result?;
        match completed.failure {
            Some(record) => Err(MailError::Cmdlet { cmdlet, record: Box::new(record) }),
            None => Ok(completed),
        }
    }

    /// Stops it before its end; the session may be used again if it takes that well.
    pub(super) async fn stop(self) {
        let Self { slot, objects, end, .. } = self;
        drop(objects);
        if let Ok(Ok((session, _))) = timeout(limits::CMDLET_WITHIN, end).await {
            slot.session = session;
        }
    }
}
