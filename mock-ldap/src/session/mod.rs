//! One LDAP connection: who it is, what runs on it, and the loop that turns requests into responses.
//!
//! Everything of a connection happens in one task. Searches are cursors that add entries to the write buffer a batch
//! at a time, so several run side by side, an abandon is seen between two batches, and a client that stops reading
//! stops them.

mod bind;
mod describe;
mod extended;
mod fault;
mod page;
mod persist;
mod run;
mod sasl_bind;
mod search;
mod sync;
mod tls;
mod virtual_list;
mod wire;
mod write;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use causeway_mock_kit::KitContext;
use causeway_mock_kit::listen::FaultStream;
use causeway_protocol::Chain;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_rustls::rustls::ServerConfig;
use tokio_util::sync::CancellationToken;

use crate::config::{Effective, ServerNames};
use crate::controls::{self, Controls};
use crate::dit::{Directory, Identity, LdapFailure, Replica, ResultCode, View};
use crate::limits::{
    CLOSE_TIMEOUT, FIRST_REQUEST_TIMEOUT, OPERATIONS_PER_CONNECTION_MAX, REQUEST_SIZE_ANONYMOUS_MAX_BYTES,
    WRITE_BATCH_BYTES,
};
use crate::message::{self, MessageError, Operation, Outcome, Request, ResponseControl};
use crate::result;
use crate::sasl::{Exchange, SecurityLayer};
use fault::{Steer, Twist};
use page::PageSets;
use run::Run;
use wire::{Progress, Wire, WireError};

pub(crate) use tls::server_config;

/// What all connections of one mock share.
pub(crate) struct Shared {
    pub(crate) cx: KitContext,
    /// Replaced by a reset.
    pub(crate) directory: ArcSwap<Directory>,
    pub(crate) effective: ArcSwap<Effective>,
    /// Cancelled and replaced by a reset: connections to the old world are closed.
    pub(crate) generation: ArcSwap<CancellationToken>,
    pub(crate) tls: Arc<ServerConfig>,
    /// What an NTLM client must have seen of this TLS server.
    pub(crate) channel_binding: [u8; 16],
    /// DNS and NetBIOS name of the domain, for NTLM challenges.
    pub(crate) domain: String,
    pub(crate) netbios: String,
    pub(crate) names: ServerNames,
}

/// One front end: a port of one server.
pub(crate) struct Front {
    /// Name in `urls`, journal and fault rules: `ldap`, `ldaps`, `gc`, `gcs`, `ldap_dc2`, ...
    pub(crate) name: &'static str,
    /// The server whose copy is served.
    pub(crate) server: String,
    pub(crate) tls: bool,
    pub(crate) view: View,
}

/// What the journal and the final response of one operation need.
#[derive(Clone)]
struct Call {
    id: i32,
    word: &'static str,
    subject: String,
    /// Tag of the final response.
    tag: u8,
    detail: Value,
}

/// A request that a delay fault keeps back.
struct Held {
    id: i32,
    frame: Bytes,
    at: Instant,
    /// A bind keeps every later request waiting (RFC 4511 section 4.2.1).
    blocks: bool,
}

/// A change of what lies below the messages; done between two messages.
enum Transition {
    Tls,
    Layer(Box<SecurityLayer>),
}

pub(crate) struct Session {
    shared: Arc<Shared>,
    front: Arc<Front>,
    directory: Arc<Directory>,
    replica: Arc<Replica>,
    wire: Wire,
    who: Identity,
    /// A password policy let the bind succeed for a password change only (draft-behera-10 section 5.2).
    must_change: bool,
    /// A bind succeeded at some time: larger requests are accepted from now on.
    trusted: bool,
    /// An NTLM layer signs or seals everything.
    protected: bool,
    exchange: Option<Exchange>,
    running: VecDeque<Run>,
    held: Vec<Held>,
    watches: Vec<persist::Watch>,
    changes: Option<watch::Receiver<u64>>,
    pages: PageSets,
    transition: Option<Transition>,
    /// Nothing more is read; the connection ends when the write buffer is empty.
    closing: bool,
    /// The connection ends now, whatever is still in the write buffer.
    dropped: bool,
    last_request_ms: Option<i64>,
    opened_ms: i64,
}

impl Session {
    /// `None` when the front end has nothing to serve in the present world: no such server, no Global Catalog.
    pub(crate) fn new(shared: Arc<Shared>, front: Arc<Front>, stream: FaultStream) -> Option<Self> {
        let directory = shared.directory.load_full();
        let replica = directory.server(&front.server)?;
        if front.view == View::GlobalCatalog && !directory.personality().supports_global_catalog {
            return None;
        }
        let opened_ms = shared.cx.clock.now_ms();
        Some(Self {
            shared,
            front,
            directory,
            replica,
            wire: Wire::new(stream),
            who: Identity::Anonymous,
            must_change: false,
            trusted: false,
            protected: false,
            exchange: None,
            running: VecDeque::new(),
            held: Vec::new(),
            watches: Vec::new(),
            changes: None,
            pages: PageSets::default(),
            transition: None,
            closing: false,
            dropped: false,
            last_request_ms: None,
            opened_ms,
        })
    }

    /// Serves the connection to its end.
    pub(crate) async fn run(mut self) {
        if let Err(error) = self.serve().await {
            tracing::debug!(front = self.front.name, error = %Chain(&error), "Connection ended");
        }
        if !self.dropped {
            let goodbye = async {
                let _ = self.wire.flush().await;
                self.wire.shutdown().await;
            };
            // A peer that does not take its last bytes in time loses them.
            let _ = tokio::time::timeout(CLOSE_TIMEOUT, goodbye).await;
        }
    }

    async fn serve(&mut self) -> Result<(), WireError> {
        if self.front.tls {
            self.wire.start_tls(Arc::clone(&self.shared.tls)).await?;
            self.adopt_certificate();
        }
        let stop = self.shared.cx.stop.clone();
        let generation = self.shared.generation.load_full();
        let clock = self.shared.cx.clock.clone();
        let mut idle = Box::pin(clock.sleep_until_ms(self.idle_deadline_ms()));
        while !self.dropped {
            self.take_requests();
            if let Some(transition) = self.transition.take() {
                self.change_transport(transition).await?;
                continue;
            }
            self.produce();
            if self.dropped || (self.closing && self.wire.is_drained()) {
                break;
            }
            let read = self.may_read();
            if self.has_runnable() && self.wire.pending() < WRITE_BATCH_BYTES {
                if self.wire.progress_now(read).await? == Some(Progress::Closed) {
                    break;
                }
                tokio::task::yield_now().await;
                continue;
            }
            let due = self.next_due();
            tokio::select! {
                biased;
                progress = self.wire.progress(read) => {
                    if progress? == Progress::Closed {
                        break;
                    }
                }
                () = wake_at(due) => {}
                () = changed(&mut self.changes) => {}
                () = stop.cancelled(), if !self.closing => self.disconnect(ResultCode::UNAVAILABLE, "server is shutting down"),
                () = generation.cancelled(), if !self.closing => self.disconnect(ResultCode::UNAVAILABLE, "the directory was replaced"),
                () = &mut idle, if !self.closing => {
                    if self.is_idle() && clock.now_ms() >= self.idle_deadline_ms() {
                        self.disconnect(ResultCode::UNAVAILABLE, "connection was idle too long");
                    }
                    let again = self.idle_deadline_ms().max(clock.now_ms() + 1_000);
                    idle = Box::pin(clock.sleep_until_ms(again));
                }
            }
        }
        Ok(())
    }

    async fn change_transport(&mut self, transition: Transition) -> Result<(), WireError> {
        match transition {
            Transition::Tls => {
                self.wire.start_tls(Arc::clone(&self.shared.tls)).await?;
                self.adopt_certificate();
                Ok(())
            }
            Transition::Layer(layer) => {
                self.protected = true;
                self.wire.start_layer(*layer).await
            }
        }
    }

    /// Decodes and starts whatever has arrived, as far as this connection may take it.
    fn take_requests(&mut self) {
        self.release_held();
        while self.may_read() {
            match self.wire.next_message(self.request_size_max()) {
                Ok(Some(frame)) => self.dispatch(frame, false),
                Ok(None) => break,
                Err(error) => self.refuse(&error),
            }
        }
    }

    /// Whether another request may be looked at.
    fn may_read(&self) -> bool {
        !self.closing
            && !self.dropped
            && self.transition.is_none()
            && !self.held.iter().any(|held| held.blocks)
            && self.running.len() + self.held.len() < OPERATIONS_PER_CONNECTION_MAX
    }

    fn request_size_max(&self) -> usize {
        let limit = self.shared.effective.load().limits.receive_buffer_max_bytes;
        let limit = if limit == 0 { crate::limits::REQUEST_SIZE_MAX_BYTES } else { limit };
        if self.trusted { limit } else { limit.min(REQUEST_SIZE_ANONYMOUS_MAX_BYTES) }
    }

    /// Starts one request. `released`: a delay fault has been served already.
    fn dispatch(&mut self, frame: Bytes, released: bool) {
        self.last_request_ms = Some(self.shared.cx.clock.now_ms());
        let request = match message::decode(&frame) {
            Ok(request) => request,
            Err(error) => {
                let id = message::peek_id(&frame).unwrap_or(0);
                tracing::debug!(front = self.front.name, id, error = %Chain(&error), "Request refused");
                match (&error, message::peek_numbered(&frame)) {
                    (MessageError::OutOfRange { .. }, Some((word, tag))) => {
                        let call = Call { id, word, subject: String::new(), tag, detail: Value::Null };
                        self.fail(call, ResultCode::PROTOCOL_ERROR, error.to_string());
                    }
                    _ => self.refuse(&error),
                }
                return;
            }
        };
        let call = Call {
            id: request.id,
            word: extended::word(&request.operation),
            subject: request.operation.subject(),
            tag: request.operation.response_tag().unwrap_or(0),
            detail: Value::Null,
        };
        match self.steer(&call, &frame, released) {
            Steer::Go(twist) => self.execute(call, request, twist),
            Steer::Taken => {}
        }
    }

    fn execute(&mut self, mut call: Call, request: Request<'_>, twist: Twist) {
        if twist.wrong_id {
            // Far from any id the client uses, so that it can only be a mistake of the server.
            call.id = call.id.wrapping_add(100_000) & i32::MAX;
        }
        let personality = self.directory.personality();
        let controls = match controls::decode(&request.controls, |oid| personality.supports_control(oid)) {
            Ok(controls) => controls,
            Err(_) => {
                return self.fail(call, ResultCode::PROTOCOL_ERROR, "a control value cannot be decoded");
            }
        };
        if let Some(oid) = &controls.unknown_critical
            && call.tag != 0
        {
            call.detail = json!({ "control": oid });
            let text = personality.text("unknown_control", &[("oid", oid)]);
            return self.fail(call, ResultCode::UNAVAILABLE_CRITICAL_EXTENSION, text);
        }
        if self.must_change && !extended::changes_password(&request.operation, call.word) {
            let text = "operations are restricted to bind, unbind, abandon, StartTLS and modify password";
            return self.fail(call, ResultCode::INSUFFICIENT_ACCESS_RIGHTS, text);
        }
        self.perform(call, &request, &controls, twist);
    }

    fn perform(&mut self, call: Call, request: &Request<'_>, controls: &Controls<'_>, twist: Twist) {
        match &request.operation {
            Operation::Bind { version, name, authentication } => {
                self.bind(call, *version, name, authentication, controls);
            }
            Operation::Unbind => {
                self.note(&call, "success");
                self.closing = true;
                self.running.clear();
            }
            Operation::Search(search) => self.search(call, search, request, controls, twist),
            Operation::Modify { .. }
            | Operation::Add { .. }
            | Operation::Delete { .. }
            | Operation::ModifyDn { .. } => self.write(call, &request.operation, controls),
            Operation::Compare { dn, attribute, value } => self.compare(call, dn, attribute, value),
            Operation::Abandon { id } => self.abandon(&call, *id),
            Operation::Extended { name, value } => self.extended(call, name, *value),
        }
    }

    fn abandon(&mut self, call: &Call, id: i64) {
        let before = self.running.len() + self.held.len() + self.watches.len();
        let other = |candidate: i32| i64::from(candidate) != id;
        self.running.retain(|run| other(run.id()));
        self.held.retain(|held| other(held.id));
        self.watches.retain(|watch| other(watch.id()));
        let found = self.running.len() + self.held.len() + self.watches.len() < before;
        self.note(call, if found { "abandoned" } else { "nothing to abandon" });
    }

    /// Gives every running search its turn, until the write buffer holds a batch.
    fn produce(&mut self) {
        self.report_changes();
        let mut turns = self.running.len();
        while turns > 0 && !self.dropped && self.wire.pending() < WRITE_BATCH_BYTES {
            turns -= 1;
            let Some(mut run) = self.running.pop_front() else { break };
            if run.is_due() {
                match self.advance(&mut run) {
                    run::Turn::Again => self.running.push_back(run),
                    run::Turn::Done => {}
                }
            } else {
                self.running.push_back(run);
            }
        }
    }

    fn has_runnable(&self) -> bool {
        !self.closing && self.running.iter().any(Run::is_due)
    }

    /// When the next delayed request or slowed search wants its turn.
    fn next_due(&self) -> Option<Instant> {
        let held = self.held.iter().map(|held| held.at);
        held.chain(self.running.iter().filter_map(Run::due_at)).min()
    }

    fn release_held(&mut self) {
        let now = Instant::now();
        while let Some(at) = self.held.iter().position(|held| held.at <= now) {
            let held = self.held.remove(at);
            self.dispatch(held.frame, true);
        }
    }

    fn is_idle(&self) -> bool {
        self.running.is_empty() && self.held.is_empty() && self.watches.is_empty() && self.wire.is_drained()
    }

    /// On the mock's clock: silence after the last request, or before the first one.
    fn idle_deadline_ms(&self) -> i64 {
        let limit_secs = self.shared.effective.load().limits.idle_timeout_secs;
        let idle = match limit_secs {
            0 => i64::MAX / 2,
            secs => i64::try_from(secs.saturating_mul(1_000)).unwrap_or(i64::MAX / 2),
        };
        match self.last_request_ms {
            Some(at) => at.saturating_add(idle),
            None => self.opened_ms.saturating_add(idle.min(millis(FIRST_REQUEST_TIMEOUT))),
        }
    }

    /// TLS, or an NTLM layer, protects what is sent.
    fn is_secure(&self) -> bool {
        self.wire.is_tls() || self.protected
    }

    /// Sends the final response of an operation and journals it.
    fn finish(&mut self, call: &Call, failure: Option<&LdapFailure>, controls: &[ResponseControl]) {
        let outcome = outcome_of(failure);
        message::put_result(self.wire.out(), call.id, call.tag, outcome, controls, |_| {});
        self.note_outcome(call, failure);
    }

    fn fail(&mut self, call: Call, code: ResultCode, text: impl Into<String>) {
        self.finish(&call, Some(&LdapFailure::new(code, text)), &[]);
    }

    fn note_outcome(&self, call: &Call, failure: Option<&LdapFailure>) {
        let word = result::word(failure.map_or(ResultCode::SUCCESS, |failure| failure.code));
        match failure.and_then(|failure| bind::sub_code(&failure.message)) {
            Some(data) => self.note(call, &format!("{word} data {data}")),
            None => self.note(call, &word),
        }
    }

    fn note(&self, call: &Call, outcome: &str) {
        self.shared.cx.journal.record(
            self.front.name,
            call.word,
            &call.subject,
            outcome,
            call.detail.clone(),
        );
    }

    /// A request that cannot be understood ends the connection (RFC 4511 section 5.3).
    fn refuse(&mut self, error: &(dyn std::error::Error + 'static)) {
        let text = Chain(error).to_string();
        let journal = &self.shared.cx.journal;
        journal.record(self.front.name, "malformed", "", "protocolError", json!({ "reason": text }));
        self.disconnect(ResultCode::PROTOCOL_ERROR, &text);
    }

    /// Sends the notice of disconnection and ends the connection.
    fn disconnect(&mut self, code: ResultCode, text: &str) {
        self.running.clear();
        self.held.clear();
        self.watches.clear();
        message::put_notice_of_disconnection(self.wire.out(), code.0, text);
        self.closing = true;
    }
}

fn outcome_of(failure: Option<&LdapFailure>) -> Outcome<'_> {
    match failure {
        None => Outcome::SUCCESS,
        Some(failure) => Outcome {
            code: failure.code.0,
            matched_dn: failure.matched_dn.as_bytes(),
            message: failure.message.as_bytes(),
            referrals: &failure.referrals,
        },
    }
}

async fn wake_at(due: Option<Instant>) {
    match due {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

async fn changed(changes: &mut Option<watch::Receiver<u64>>) {
    if let Some(receiver) = changes
        && receiver.changed().await.is_ok()
    {
        return;
    }
    // Nothing is watched, or the directory is gone and the generation token ends the connection.
    std::future::pending().await
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
