//! The client's machine of a remote session: a runspace pool in a WSMan shell. It says which envelope to send and takes
//! the answer's bytes; carrying them, and waiting, is the caller's.

use std::collections::VecDeque;
use std::time::Duration;

use thiserror::Error;

use super::fault::Fault;
use super::reply::{CommandState, Created, Reply, Response};
use super::request::{CreateShell, Header, Operation, Opt, Request, Signal, Stream, blob_budget};
use super::{SoapError, resource_uri};
use crate::clixml::Object;
use crate::cmdlet::{Cmdlet, Completed};
use crate::limits::{WSMAN_ENVELOPE_BYTES, WSMAN_ENVELOPE_FIRST_BYTES, WSMAN_OPERATION_TIMEOUT_SECS};
use crate::psrp::{Capability, Guid, PoolClient, PoolError, PoolEvent};

/// Version of PSRP from which servers take larger envelopes.
const LARGE_ENVELOPES_SINCE: (u32, u32) = (2, 2);

/// What a session is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionSettings {
    /// The full URL of the server, path and query as configured.
    pub url: String,
    /// For example [`super::EXCHANGE_CONFIGURATION`].
    pub configuration: String,
    /// The same on every request; new for every session.
    pub session_id: Guid,
    /// Of the runspace pool; new for every session.
    pub pool_id: Guid,
}

/// Why a session cannot go on. Only [`RemoteSession::close`] makes sense after one.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SessionError {
    /// The answer is no SOAP, or none to our request.
    #[error("{operation}")]
    Soap {
        /// What was asked.
        operation: &'static str,
        /// Why.
        #[source]
        source: SoapError,
    },
    /// What the streams carry makes no sense, or the pool is broken.
    #[error("runspace pool")]
    Pool(#[source] PoolError),
    /// The server refuses.
    #[error("{operation} refused: {} {} {}", fault.subcode, fault.reason, fault.detail)]
    Fault {
        /// What was asked.
        operation: &'static str,
        /// What it says; see its questions for what that means.
        fault: Box<Fault>,
    },
    /// An answer when nothing was asked.
    #[error("an answer came to no request")]
    Unasked,
    /// A cmdlet was to run while the session was not ready for one.
    #[error("the session is not ready for a cmdlet")]
    NotReady,
}

/// What happened.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The session takes cmdlets; what the server speaks, if it said so.
    Opened(Option<Capability>),
    /// The pipeline gave an object.
    Object(Object),
    /// The pipeline is over. Requests may follow that tell the server so.
    Completed(Completed),
    /// The server forgot the session as asked.
    Closed,
}

/// A remote session. The caller's loop: take all events; ask for the next request and, if there is one, send it and give
/// the answer back; when there is none, the session waits for [`RemoteSession::run`] or is closed.
#[derive(Debug)]
pub struct RemoteSession {
    settings: SessionSettings,
    pool: PoolClient,
    phase: Phase,
    /// As the server wants them; empty until it has created the shell.
    selectors: Vec<(String, String)>,
    queue: VecDeque<Wanted>,
    in_flight: Option<InFlight>,
    events_wait: bool,
    closed_wait: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Phase {
    /// No shell yet.
    New,
    /// There is a shell, and no open pool yet.
    Opening,
    /// Waits for a cmdlet.
    Ready,
    /// A pipeline runs; what the server calls its command, and whether it was told to stop.
    Running { command_id: String, stopping: bool },
    /// The shell is gone or given up.
    Closed,
}

/// An operation to ask for next, and how long the server may take.
#[derive(Debug)]
struct Wanted {
    operation: Operation,
    timeout: Duration,
}

#[derive(Debug)]
struct InFlight {
    message_id: String,
    operation: Operation,
    envelope: String,
}

impl RemoteSession {
    /// A session that has not begun.
    pub fn new(settings: SessionSettings) -> Self {
        Self {
            pool: PoolClient::new(settings.pool_id),
            settings,
            phase: Phase::New,
            selectors: Vec::new(),
            queue: VecDeque::new(),
            in_flight: None,
            events_wait: false,
            closed_wait: false,
        }
    }

    /// Whether it waits for a cmdlet and has nothing left to say.
    pub fn is_ready(&self) -> bool {
        self.phase == Phase::Ready && self.queue.is_empty() && self.in_flight.is_none()
    }

    /// Whether there is a shell on the server that [`RemoteSession::close`] would close.
    pub fn has_shell(&self) -> bool {
        !self.selectors.is_empty() && self.phase != Phase::Closed
    }

    /// Runs a cmdlet as a pipeline of this identifier.
    ///
    /// # Errors
    /// [`SessionError::NotReady`] while another runs, before the session is open and after it is closed.
    pub fn run(&mut self, cmdlet: &Cmdlet, pipeline: Guid) -> Result<(), SessionError> {
        if self.phase != Phase::Ready {
            return Err(SessionError::NotReady);
        }
        let command_id = pipeline.upper();
        let command = |arguments| Operation::Command {
            command_id: Some(command_id.clone()),
            command: String::new(),
            arguments,
        };
        // Further fragments travel in envelopes with fewer headers, so what fits into this one fits into those.
        let empty = Request {
            header: self.header(&command(Vec::new()), Guid::NIL, timeout()),
            operation: command(Vec::new()),
        };
        let budget = blob_budget(self.envelope_max_bytes(), empty.write().len());
        let mut fragments = self.pool.begin(pipeline, cmdlet, budget).into_iter();
        let first = fragments.next().map(|first| encode(&first)).into_iter().collect();
        self.want(command(first));
        for bytes in fragments {
            let stream = Stream { name: "stdin".to_owned(), command_id: Some(command_id.clone()), bytes };
            self.want(Operation::Send { streams: vec![stream] });
        }
        self.phase = Phase::Running { command_id, stopping: false };
        Ok(())
    }

    /// Stops the pipeline that runs, if one does: no more objects come, [`Event::Completed`] does.
    pub fn stop(&mut self) {
        let Phase::Running { command_id, stopping } = &mut self.phase else { return };
        if !std::mem::replace(stopping, true) {
            let command_id = Some(command_id.clone());
            self.pool.stopping();
            self.want(Operation::Signal { command_id, signal: Signal::Stop });
        }
    }

    /// Lets the server see that somebody is there: a shell without requests is closed after some minutes.
    pub fn touch(&mut self) {
        if self.is_ready() {
            let operation = receive(None);
            self.queue.push_back(Wanted { operation, timeout: Duration::from_secs(1) });
        }
    }

    /// Closes the session, whatever goes on: what was asked and not answered is forgotten, and the server ends what runs.
    /// Without a shell it is closed at once.
    pub fn close(&mut self) {
        self.queue.clear();
        self.in_flight = None;
        // What was not taken is not wanted, and may be what made the caller give up.
        self.events_wait = false;
        if self.has_shell() {
            self.want(Operation::Delete);
        } else {
            self.closed_wait = self.phase != Phase::Closed;
            self.phase = Phase::Closed;
        }
    }

    /// The next envelope to send, as a message of this identifier. `None` while an answer or events wait to be taken, and
    /// when there is nothing to do.
    pub fn next_request(&mut self, message_id: Guid) -> Option<String> {
        if self.in_flight.is_some() || self.events_wait || self.closed_wait {
            return None;
        }
        let Wanted { operation, timeout } = self.queue.pop_front().or_else(|| self.next_operation())?;
        let request = Request { header: self.header(&operation, message_id, timeout), operation };
        let envelope = request.write();
        let Request { header, operation } = request;
        self.in_flight =
            Some(InFlight { message_id: header.message_id, operation, envelope: envelope.clone() });
        Some(envelope)
    }

    /// The envelope whose answer got lost, if it does no harm to send it once more: a server that has answered a Receive
    /// answers the same one the same way.
    pub fn again(&self) -> Option<&str> {
        let in_flight = self.in_flight.as_ref()?;
        let harmless = matches!(
            in_flight.operation,
            Operation::Receive { .. } | Operation::Signal { .. } | Operation::Delete
        );
        harmless.then_some(&*in_flight.envelope)
    }

    /// Takes the answer to the request that was asked for last. That it is a fault says the answer, not HTTP's status.
    ///
    /// # Errors
    /// [`SessionError`]
    pub fn answer(&mut self, body: &[u8]) -> Result<(), SessionError> {
        let InFlight { message_id, operation, .. } = self.in_flight.take().ok_or(SessionError::Unasked)?;
        let name = operation_name(&operation);
        let soap = |source| SessionError::Soap { operation: name, source };
        let response = Response::read(body, &message_id).map_err(soap)?;
        if !response.reply.answers(&operation) {
            return Err(soap(SoapError::Unexpected { found: response.reply.name().to_owned() }));
        }
        match response.reply {
            Reply::Created(created) => self.created(created),
            Reply::Commanded { command_id } => self.commanded(&command_id),
            Reply::Received { streams, state } => self.received(&streams, state.as_ref()),
            Reply::Deleted => self.deleted(),
            Reply::Fault(fault) => return self.fault(&operation, fault),
            _ => {}
        }
        Ok(())
    }

    /// The next event, or `None` when a request must be sent first.
    ///
    /// # Errors
    /// [`SessionError::Pool`]
    pub fn next_event(&mut self) -> Result<Option<Event>, SessionError> {
        if std::mem::take(&mut self.closed_wait) {
            return Ok(Some(Event::Closed));
        }
        while self.events_wait {
            let event = match self.pool.next_event().map_err(SessionError::Pool)? {
                None => {
                    self.events_wait = false;
                    break;
                }
                Some(PoolEvent::Opened) => {
                    self.phase = Phase::Ready;
                    Event::Opened(self.pool.server().cloned())
                }
                Some(PoolEvent::Object(object)) => Event::Object(object),
                Some(PoolEvent::Answer { pipeline, fragments }) => {
                    self.answer_host(pipeline, fragments);
                    continue;
                }
                Some(PoolEvent::Asked) => {
                    self.stop();
                    continue;
                }
                Some(PoolEvent::Completed(completed)) => {
                    self.completed();
                    Event::Completed(completed)
                }
            };
            return Ok(Some(event));
        }
        Ok(None)
    }

    /// Answers travel on a stream of their own (MS-PSRP 3.1.5.3.3).
    fn answer_host(&mut self, pipeline: bool, bytes: Vec<u8>) {
        let command_id = match &self.phase {
            Phase::Running { command_id, .. } if pipeline => Some(command_id.clone()),
            _ => None,
        };
        if pipeline == command_id.is_some() {
            let stream = Stream { name: "pr".to_owned(), command_id, bytes };
            self.want(Operation::Send { streams: vec![stream] });
        }
    }

    fn next_operation(&mut self) -> Option<Wanted> {
        let operation = match &self.phase {
            Phase::New => Operation::Create(CreateShell {
                shell_id: Some(self.settings.pool_id.upper()),
                input_streams: "stdin pr".to_owned(),
                output_streams: "stdout".to_owned(),
                creation: Some(self.pool.opening()),
                idle_timeout: None,
            }),
            Phase::Opening => receive(None),
            Phase::Running { command_id, .. } => receive(Some(command_id.clone())),
            Phase::Ready | Phase::Closed => return None,
        };
        Some(Wanted { operation, timeout: timeout() })
    }

    fn want(&mut self, operation: Operation) {
        self.queue.push_back(Wanted { operation, timeout: timeout() });
    }

    fn envelope_max_bytes(&self) -> usize {
        let large = self.pool.server().is_some() && self.pool.version() >= LARGE_ENVELOPES_SINCE;
        if large { WSMAN_ENVELOPE_BYTES } else { WSMAN_ENVELOPE_FIRST_BYTES }
    }

    fn header(&self, operation: &Operation, message_id: Guid, timeout: Duration) -> Header {
        let option = |name: &str, value: &str, must_comply| {
            vec![Opt { name: name.to_owned(), value: value.to_owned(), must_comply }]
        };
        let options = match operation {
            Operation::Create(_) => {
                let (major, minor) = Capability::default().protocol;
                option("protocolversion", &format!("{major}.{minor}"), true)
            }
            Operation::Receive { .. } => option("WSMAN_CMDSHELL_OPTION_KEEPALIVE", "True", false),
            Operation::Command { .. } => option("WINRS_SKIP_CMD_SHELL", "False", false),
            _ => Vec::new(),
        };
        Header {
            to: self.settings.url.clone(),
            resource_uri: resource_uri(&self.settings.configuration),
            message_id: format!("uuid:{}", message_id.upper()),
            session_id: Some(format!("uuid:{}", self.settings.session_id.upper())),
            operation_timeout: Some(timeout),
            envelope_max_bytes: Some(self.envelope_max_bytes()),
            options,
            selectors: self.selectors.clone(),
        }
    }

    fn created(&mut self, created: Created) {
        self.selectors = created.selectors;
        self.phase = Phase::Opening;
    }

    /// The server may call the command otherwise than we proposed.
    fn commanded(&mut self, theirs: &str) {
        let Phase::Running { command_id, .. } = &mut self.phase else { return };
        for wanted in &mut self.queue {
            match &mut wanted.operation {
                Operation::Send { streams } => {
                    streams.iter_mut().for_each(|stream| stream.command_id = Some(theirs.to_owned()));
                }
                Operation::Signal { command_id, .. } => *command_id = Some(theirs.to_owned()),
                _ => {}
            }
        }
        theirs.clone_into(command_id);
    }

    fn received(&mut self, streams: &[Stream], state: Option<&CommandState>) {
        let running = match &self.phase {
            Phase::Running { command_id, .. } => Some(&**command_id),
            _ => None,
        };
        let is_ours = |id: &str| running.is_some_and(|running| running.eq_ignore_ascii_case(id));
        for stream in streams {
            match &stream.command_id {
                None => self.pool.push(&stream.bytes),
                Some(id) if is_ours(id) => self.pool.push_pipeline(&stream.bytes),
                // Of a command that is over: nobody waits for it.
                Some(_) => {}
            }
        }
        if state.is_some_and(|state| state.done && state.command_id.as_deref().is_none_or(is_ours)) {
            self.pool.end_pipeline();
        }
        self.events_wait = true;
    }

    /// The server counts commands that were not terminated against the shell, also those that are over.
    fn completed(&mut self) {
        if let Phase::Running { command_id, .. } = std::mem::replace(&mut self.phase, Phase::Ready) {
            // A stop that was not sent yet has nothing to stop any more.
            self.queue.retain(|wanted| !matches!(wanted.operation, Operation::Signal { .. }));
            self.want(Operation::Signal { command_id: Some(command_id), signal: Signal::Terminate });
        }
    }

    fn deleted(&mut self) {
        self.phase = Phase::Closed;
        self.closed_wait = true;
    }

    fn fault(&mut self, operation: &Operation, fault: Fault) -> Result<(), SessionError> {
        match operation {
            // Nothing came in time; the next request asks again.
            Operation::Receive { .. } if fault.is_timeout() => return Ok(()),
            // A command the server does not know any more has ended; if it has not, Receive will tell.
            Operation::Signal { .. } if !fault.is_shell_gone() => return Ok(()),
            // What could not be closed is gone or will be for silence.
            Operation::Delete => {
                self.deleted();
                return Ok(());
            }
            _ => {}
        }
        if fault.is_shell_gone() {
            self.phase = Phase::Closed;
            self.queue.clear();
        }
        Err(SessionError::Fault { operation: operation_name(operation), fault: Box::new(fault) })
    }
}

fn timeout() -> Duration {
    Duration::from_secs(WSMAN_OPERATION_TIMEOUT_SECS.into())
}

fn receive(command_id: Option<String>) -> Operation {
    Operation::Receive { command_id, streams: "stdout".to_owned() }
}

fn encode(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

fn operation_name(operation: &Operation) -> &'static str {
    match operation {
        Operation::Create(_) => "create shell",
        Operation::Command { .. } => "begin command",
        Operation::Send { .. } => "send input",
        Operation::Receive { .. } => "receive output",
        Operation::Signal { .. } => "signal command",
        Operation::Delete => "delete shell",
        Operation::Get => "get shell",
        Operation::Identify => "identify",
        Operation::Other { .. } => "other operation",
    }
}
