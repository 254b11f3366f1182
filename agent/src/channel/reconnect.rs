//! Keeps a session over many connections: connect, log in, resume or begin anew, and wait with full jitter between.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use causeway_protocol::channel::backoff::{Backoff, Haste, spread};
use causeway_protocol::channel::keepalive::Keepalive;
use causeway_protocol::channel::sm::StreamManagement;
use causeway_protocol::limits::{
    ELEMENT_MAX_BYTES, ELEMENT_PRE_AUTH_MAX_BYTES, HASTE_WITHIN, LOGIN_WITHIN, NO_NETWORK_RETRY_FOR,
    NO_NETWORK_RETRY_WITHIN, RESUME_SECS,
};
use futures_util::FutureExt;
use jid::BareJid;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::conversation::Conversation;
use super::driver::{self, End, Workplace};
use super::limited::Limited;
use super::login::{self, Credentials, Ended, LoginError, Stream};
use super::reaction::{self, Next, later_refused};
use super::session::Session;
use super::{ChannelState, Connect, ConnectError, Ends, Nudge, OnlineSender};
use crate::chain::Chain;
use crate::clock::Clock;
use crate::cloud::CloudError;
use crate::limits::{CHANNEL_QUEUE_MAX, INTERCEPTED_WAIT_FROM, INTERCEPTED_WAIT_TO, NUDGE_SPREAD};
use crate::random::RandomSource;

/// What a channel is made of.
pub struct Parts {
    /// Opens byte streams to the server.
    pub connect: Arc<dyn Connect>,
    /// What its sessions are for.
    pub conversation: Arc<dyn Conversation>,
    /// Whom we log in as.
    pub jid: BareJid,
    /// How we prove it.
    pub credentials: Credentials,
    /// Time.
    pub clock: Clock,
    /// Chance.
    pub random: RandomSource,
    /// Ends it.
    pub stop: CancellationToken,
}

/// Runs until stopped.
pub async fn run(parts: Parts, ends: Ends) {
    let (reply_sender, replies) = mpsc::channel(CHANNEL_QUEUE_MAX);
    let place = Workplace {
        conversation: parts.conversation.clone(),
        outgoing: ends.outgoing,
        replies,
        reply_sender,
        clock: parts.clock,
        stop: parts.stop.clone(),
        nudges: ends.nudges,
        keepalive: Keepalive::default(),
    };
    let mut life = Life {
        parts,
        place,
        state: ends.state,
        online: ends.online,
        session: None,
        sessions: 0,
        cut_at: None,
        backoff: Backoff::default(),
        haste: Haste::default(),
        outage_since: None,
        redirects: 0,
        redirect: None,
        redirected: false,
    };
    while !life.parts.stop.is_cancelled() {
        let (end, lived) = life.attempt().await;
        if life.parts.stop.is_cancelled() {
            break;
        }
        life.backoff.session_lived(lived);
        if life.backoff.attempts() == 0 {
            life.outage_since = None;
        }
        let (next, reason) = life.judge(end);
        life.pause(next, reason).await;
    }
    if let Some(session) = life.session.take() {
        session.give_up();
    }
    life.state.send_replace(ChannelState::Stopped);
}

struct Life {
    parts: Parts,
    place: Workplace,
    state: tokio::sync::watch::Sender<ChannelState>,
    online: OnlineSender,
    session: Option<Session>,
    sessions: u64,
    cut_at: Option<Instant>,
    backoff: Backoff,
    haste: Haste,
    /// When the first attempt of the back-off's series failed.
    outage_since: Option<Instant>,
    redirects: u32,
    redirect: Option<String>,
    /// Whether the running attempt follows a redirect.
    redirected: bool,
}

/// How an attempt ended, before or after login.
enum Failure {
    Connect(ConnectError),
    Login(LoginError),
    Session(End),
}

impl Life {
    async fn attempt(&mut self) -> (Failure, Duration) {
        self.state.send_replace(ChannelState::Connecting);
        let stop = self.parts.stop.clone();
        let stopped = || (Failure::Session(End::Stopped), Duration::ZERO);
        let connect = self.parts.connect.clone();
        let redirect = self.redirect.take();
        self.redirected = redirect.is_some();
        // What was said before this attempt is done by it.
        while self.place.nudges.try_recv().is_ok() {}
        let io = tokio::select! {
            biased;
            () = stop.cancelled() => return stopped(),
            reason = redial(&mut self.place.nudges) => {
                return (Failure::Session(End::Left(reason)), Duration::ZERO);
            }
            io = connect.connect(redirect) => match io {
                Ok(io) => Limited::new(io, ELEMENT_PRE_AUTH_MAX_BYTES),
                Err(error) => return (Failure::Connect(error), Duration::ZERO),
            },
        };
        let login = tokio::select! {
            biased;
            () = stop.cancelled() => return stopped(),
            login = timeout(LOGIN_WITHIN, self.log_in(io).boxed()) => login.unwrap_or(Err(LoginError::TimedOut)),
        };
        let (stream, resumed) = match login {
            Ok(login) => login,
            Err(error) => return (Failure::Login(error), Duration::ZERO),
        };
        let begun = self.parts.clock.now();
        let session = self.session.as_mut().expect("log_in leaves a session");
        let (state, online) = (&self.state, &self.online);
        let tell = |up: bool| {
            online.set(up);
            if up {
                state.send_replace(ChannelState::Online);
                tracing::info!(resumed = resumed.is_some(), "Online");
            }
        };
        let end = driver::run(stream, session, &mut self.place, resumed, &tell).await;
        self.cut_at = Some(self.parts.clock.now());
        (Failure::Session(end), self.parts.clock.now() - begun)
    }

    async fn log_in(&mut self, io: Limited) -> Result<(Stream, Option<u32>), LoginError> {
        let login::Authenticated { mut stream, features } =
            login::authenticate(io, self.parts.jid.domain().as_str(), &self.parts.credentials).await?;
        if let Some(session) = self.resumable() {
            let id = session.resume_id.clone().unwrap_or_default();
            let h = session.sm.as_ref().map_or(0, StreamManagement::h);
            if let Some(h) = login::resume(&mut stream, &id, h).await? {
                return Ok((stream, Some(h)));
            }
        }
        if let Some(old) = self.session.take() {
            old.give_up();
        }
        let bound = login::bind(&mut stream).await?;
        if bound.to_bare() != self.parts.jid {
            let got = login::shorten(bound.as_str());
            return Err(LoginError::Unexpected { wanted: "our own JID bound", got });
        }
        self.sessions += 1;
        let mut session = Session::new(self.sessions, bound);
        session.peer_max_bytes = features
            .limits
            .as_ref()
            .and_then(|limits| limits.max_bytes)
            .map_or(ELEMENT_MAX_BYTES, |bytes| usize::try_from(bytes.get()).unwrap_or(usize::MAX));
        if features.stream_management.is_some()
            && let Some(enabled) = login::enable(&mut stream).await?
        {
            session.resume_id = enabled.resume_id;
            session.early = enabled.early;
            session.sm = Some(StreamManagement::default());
        }
        self.session = Some(session);
        Ok((stream, None))
    }

    fn resumable(&self) -> Option<&Session> {
        let fresh = self
            .cut_at
            .is_some_and(|at| self.parts.clock.now() - at < Duration::from_secs(u64::from(RESUME_SECS)));
        self.session.as_ref().filter(|session| fresh && session.resume_id.is_some() && session.sm.is_some())
    }

    /// Decides what to do, and whether the session is still worth resuming.
    fn judge(&mut self, failure: Failure) -> (Next, String) {
        match failure {
            Failure::Connect(error) => {
                let intercepted =
                    error.source.downcast_ref::<CloudError>().is_some_and(CloudError::is_interception);
                let next = match intercepted {
                    // After a redirect that leads nowhere the usual address is tried soon, whoever answered at the
                    // other.
                    true if !self.redirected => Next::Calmly,
                    false if is_without_network(&error) => Next::NoNetwork,
                    _ => Next::Backoff,
                };
                (next, Chain(&error).to_string())
            }
            Failure::Login(error @ LoginError::Refused { passing: false, .. }) => {
                (later_refused(), Chain(&error).to_string())
            }
            Failure::Login(LoginError::Ended { source }) => self.ended(&source),
            Failure::Login(error) => (Next::Backoff, Chain(&error).to_string()),
            Failure::Session(End::Cut(reason)) => {
                let worked = self.session.as_ref().is_some_and(|session| session.opened);
                (if worked { Next::Soon } else { Next::Backoff }, reason)
            }
            Failure::Session(End::Left(reason)) => (Next::Now, reason),
            Failure::Session(end) => {
                if let Some(session) = self.session.take() {
                    session.give_up();
                }
                match end {
                    End::Ended(ended) => self.ended(&ended),
                    End::Closed => (Next::Backoff, "the cloud closed the session".to_owned()),
                    End::Broken(breach) => (Next::Backoff, breach.reason),
                    End::Refused(error) => {
                        (Next::Backoff, format!("the cloud refuses the session: {}", login::describe(&error)))
                    }
                    End::Cut(reason) | End::Left(reason) => (Next::Backoff, reason),
                    End::Stopped => (Next::Backoff, "stopped".to_owned()),
                }
            }
        }
    }

    fn ended(&mut self, ended: &Ended) -> (Next, String) {
        let next = reaction::after(ended, self.redirects);
        if matches!(next, Next::Redirect { .. }) {
            self.redirects += 1;
        }
        (next, format!("the cloud ended the session: {ended}"))
    }

    async fn pause(&mut self, next: Next, reason: String) {
        let draw = self.parts.random.next_u64();
        let now = self.parts.clock.now();
        let lost_lately = self.cut_at.is_some_and(|at| now - at < NO_NETWORK_RETRY_FOR);
        let (mut needs_admin, mut shortened) = (false, false);
        let is_redirect = matches!(next, Next::Redirect { .. });
        let delay = match next {
            Next::Redirect { host, after, over } => {
                tracing::info!(host, "The cloud sends us to another host");
                self.redirect = Some(host);
                after + spread(over, draw)
            }
            Next::Now => spread(NUDGE_SPREAD, draw),
            Next::Calmly => {
                (needs_admin, shortened) = (true, true);
                INTERCEPTED_WAIT_FROM + spread(INTERCEPTED_WAIT_TO - INTERCEPTED_WAIT_FROM, draw)
            }
            Next::Soon if self.haste.take(now.into_std()) => spread(HASTE_WITHIN, draw),
            Next::NoNetwork if lost_lately => {
                shortened = true;
                spread(NO_NETWORK_RETRY_WITHIN, draw)
            }
            Next::Backoff | Next::Soon | Next::NoNetwork => {
                shortened = true;
                let since = *self.outage_since.get_or_insert(now);
                self.backoff.next_in_outage(now - since, draw)
            }
            Next::Spread { after, over } => after + spread(over, draw),
            Next::Later { from, to } => {
                needs_admin = true;
                from + spread(to - from, draw)
            }
        };
        if !is_redirect {
            self.redirects = 0;
        }
        let delay_ms = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
        tracing::warn!(error = reason, delay_ms, "Offline");
        self.state.send_replace(ChannelState::Waiting { delay_ms, reason, needs_admin });
        tokio::select! {
            biased;
            () = self.parts.stop.cancelled() => {}
            // Only a wait of our own choice ends early; what the cloud asked for holds on every network.
            Some(_) = self.place.nudges.recv(), if shortened => {
                self.parts.clock.sleep(spread(NUDGE_SPREAD, self.parts.random.next_u64())).await;
            }
            () = self.parts.clock.sleep(delay) => {}
        }
    }
}

/// Waits for a reason to leave.
async fn redial(nudges: &mut mpsc::Receiver<Nudge>) -> String {
    loop {
        match nudges.recv().await {
            Some(Nudge::Redial(reason)) => return reason,
            Some(Nudge::Retry) => {}
            None => return std::future::pending().await,
        }
    }
}

/// Whether the attempt ended on this machine, for want of a route. A host that cannot be reached does not count: that
/// may be the cloud's side, and then everyone tries.
fn is_without_network(error: &ConnectError) -> bool {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(&*error.source);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<io::Error>() {
            return matches!(error.kind(), io::ErrorKind::NetworkUnreachable | io::ErrorKind::NetworkDown);
        }
        cause = error.source();
    }
    false
}
