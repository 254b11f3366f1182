//! The client's machine of a runspace pool (MS-PSRP 3.1): fragments in, fragments and events out. One runspace, one
//! pipeline at a time, objects one by one.

use thiserror::Error;

use super::fragment::{Defragmenter, FragmentError, Fragmenter};
use super::guid::Guid;
use super::message::{
    Capability, Destination, Envelope, HostCall, Message, MessageError, PipelineState, PoolState,
};
use super::pipeline::Pipeline;
use crate::clixml::{Content, Object, Reader, Value};
use crate::cmdlet::{Cmdlet, Completed, ErrorRecord};
use crate::limits::{
    PIPELINE_QUESTIONS_MAX, PIPELINE_RECORD_MAX_BYTES, PIPELINE_RECORDS_MAX, PIPELINE_RECORDS_MAX_BYTES,
};

/// Why a pool cannot go on.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum PoolError {
    /// The stream of fragments makes no sense.
    #[error("read fragments")]
    Fragment(#[source] FragmentError),
    /// A message makes no sense.
    #[error("read message")]
    Message(#[source] MessageError),
    /// The server says that the pool is broken or closed.
    #[error("the runspace pool is {state:?}: {reason}")]
    Broken {
        /// What the server calls it.
        state: PoolState,
        /// In its words; empty if it has none.
        reason: String,
    },
    /// The server says that the pipeline is over before it says how it ended.
    #[error("the pipeline ended without its state")]
    Cut,
}

/// What happened.
#[derive(Clone, Debug, PartialEq)]
pub enum PoolEvent {
    /// The pool is open and takes pipelines.
    Opened,
    /// The pipeline gave an object.
    Object(Object),
    /// The server asked the client's host for something; this is the answer, whole fragments for the stream of answers.
    Answer {
        /// Whether the pipeline asked, not the pool.
        pipeline: bool,
        /// What to send.
        fragments: Vec<u8>,
    },
    /// The pipeline asks again and again and must be stopped.
    Asked,
    /// The pipeline is over.
    Completed(Completed),
}

/// A runspace pool as its client sees it.
#[derive(Debug)]
pub struct PoolClient {
    id: Guid,
    fragmenter: Fragmenter,
    reader: Reader,
    stream: Defragmenter,
    server: Option<Capability>,
    opened: bool,
    pipeline: Option<Running>,
}

/// The pipeline that runs.
#[derive(Debug, Default)]
struct Running {
    id: Guid,
    stream: Defragmenter,
    completed: Completed,
    /// Questions to the host so far.
    questions: usize,
    /// Errors and warnings so far, and their bytes.
    records: usize,
    record_bytes: usize,
    errors_left_out: bool,
    warnings_left_out: bool,
    /// Objects are not wanted any more.
    stopping: bool,
    /// Nobody reads any further.
    closed: bool,
}

impl PoolClient {
    /// A pool of this identifier, not open yet.
    pub fn new(id: Guid) -> Self {
        Self {
            id,
            fragmenter: Fragmenter::new(),
            reader: Reader::new(),
            stream: Defragmenter::new(),
            server: None,
            opened: false,
            pipeline: None,
        }
    }

    /// The fragments that open it: what we speak, and what we want.
    pub fn opening(&mut self) -> Vec<u8> {
        let mut fragments = Vec::new();
        for message in
            [Message::SessionCapability(Capability::default()), Message::InitRunspacePool { min: 1, max: 1 }]
        {
            let bytes = self.envelope(Guid::NIL, message).write();
            self.fragmenter.append_whole(&bytes, &mut fragments);
        }
        fragments
    }

    /// What the server speaks, once it said so.
    pub fn server(&self) -> Option<&Capability> {
        self.server.as_ref()
    }

    /// What both sides understand.
    pub fn version(&self) -> (u32, u32) {
        let ours = Capability::default().protocol;
        // A server that opens the pool without saying what it speaks is taken for an old one.
        self.server.as_ref().map_or((2, 1), |server| server.protocol.min(ours))
    }

    /// Whether a pipeline runs.
    pub fn is_running(&self) -> bool {
        self.pipeline.is_some()
    }

    /// Begins a pipeline; the fragments that say so, with blobs of at most so many bytes. A pipeline that runs is
    /// forgotten.
    pub fn begin(&mut self, pipeline: Guid, cmdlet: &Cmdlet, blob_max: usize) -> Vec<Vec<u8>> {
        self.pipeline = Some(Running { id: pipeline, ..Running::default() });
        let message = Message::CreatePipeline(Box::new(Pipeline::from(cmdlet)));
        let bytes = self.envelope(pipeline, message).write_for(self.version(), false);
        self.fragmenter.cut(&bytes, blob_max).collect()
    }

    /// Objects of the pipeline are not wanted any more; its end still is.
    pub fn stopping(&mut self) {
        if let Some(running) = &mut self.pipeline {
            running.stopping = true;
        }
    }

    /// Bytes of the pool's own stream.
    pub fn push(&mut self, bytes: &[u8]) {
        self.stream.push(bytes);
    }

    /// Bytes of the pipeline's stream.
    pub fn push_pipeline(&mut self, bytes: &[u8]) {
        if let Some(running) = &mut self.pipeline {
            running.stream.push(bytes);
        }
    }

    /// The pipeline's stream is over.
    pub fn end_pipeline(&mut self) {
        if let Some(running) = &mut self.pipeline {
            running.closed = true;
        }
    }

    /// The next event, or `None` when more bytes are needed. Bytes are decoded only now, so that who takes objects slowly
    /// holds one answer's bytes and one object.
    ///
    /// # Errors
    /// [`PoolError`]; the pool is over.
    pub fn next_event(&mut self) -> Result<Option<PoolEvent>, PoolError> {
        while let Some(message) = self.stream.next_message().map_err(PoolError::Fragment)? {
            let message = Envelope::read(&message, &mut self.reader).map_err(PoolError::Message)?;
            if let Some(event) = self.pool_message(message.message)? {
                return Ok(Some(event));
            }
        }
        while let Some(running) = &mut self.pipeline {
            let Some(bytes) = running.stream.next_message().map_err(PoolError::Fragment)? else {
                return if running.closed { Err(PoolError::Cut) } else { Ok(None) };
            };
            if running.stopping && Envelope::is_output(&bytes) {
                continue;
            }
            let message = Envelope::read(&bytes, &mut self.reader).map_err(PoolError::Message)?;
            // What belongs to another pipeline has no place here and means nothing.
            if message.pipeline == running.id
                && let Some(event) = self.pipeline_message(message.message)?
            {
                return Ok(Some(event));
            }
        }
        Ok(None)
    }

    fn envelope(&self, pipeline: Guid, message: Message) -> Envelope {
        Envelope { destination: Destination::Server, pool: self.id, pipeline, message }
    }

    fn pool_message(&mut self, message: Message) -> Result<Option<PoolEvent>, PoolError> {
        match message {
            Message::SessionCapability(capability) => self.server = Some(capability),
            Message::PoolState { state: PoolState::Opened, .. } if !self.opened => {
                self.opened = true;
                return Ok(Some(PoolEvent::Opened));
            }
            Message::PoolState {
                state: state @ (PoolState::Broken | PoolState::Closed | PoolState::Closing),
                error,
            } => {
                let reason = error.map(|error| cut(error.message)).unwrap_or_default();
                return Err(PoolError::Broken { state, reason });
            }
            Message::PoolHostCall(call) if call.wants_answer() => {
                let answer = Message::PoolHostResponse(call.refusal());
                return Ok(Some(self.answer(Guid::NIL, answer)));
            }
            // The rest is of no use to a client that has nobody to show it to, no keys and one runspace.
            _ => {}
        }
        Ok(None)
    }

    /// The pipeline wants something of our host: what is only shown is taken, what wants an answer is refused.
    fn asked(&mut self, call: HostCall) -> Option<PoolEvent> {
        let running = self.pipeline.as_mut().filter(|running| !running.stopping)?;
        if !call.wants_answer() {
            if let Some(text) = call.warning() {
                running.warning(text);
            }
            return None;
        }
        running.questions += 1;
        if running.questions > PIPELINE_QUESTIONS_MAX {
            running.give_up(call.name);
            return Some(PoolEvent::Asked);
        }
        let id = running.id;
        Some(self.answer(id, Message::PipelineHostResponse(call.refusal())))
    }

    fn answer(&mut self, pipeline: Guid, message: Message) -> PoolEvent {
        let bytes = self.envelope(pipeline, message).write_for(self.version(), false);
        let mut fragments = Vec::new();
        self.fragmenter.append_whole(&bytes, &mut fragments);
        PoolEvent::Answer { pipeline: pipeline != Guid::NIL, fragments }
    }

    fn pipeline_message(&mut self, message: Message) -> Result<Option<PoolEvent>, PoolError> {
        let Some(running) = &mut self.pipeline else { return Ok(None) };
        match message {
            Message::PipelineOutput(value) => return Ok(Some(PoolEvent::Object(into_object(value)))),
            Message::ErrorRecord(error) => running.error(error),
            Message::Warning(text) => running.warning(text),
            Message::PipelineHostCall(call) => return Ok(self.asked(call)),
            Message::PipelineState { state, error } if state.is_final() => {
                running.stream.end().map_err(PoolError::Fragment)?;
                let mut completed = std::mem::take(&mut running.completed);
                self.pipeline = None;
                if state != PipelineState::Completed {
                    // Why we stopped it says more than that it was stopped; what we refused the server says itself.
                    completed.failure = completed.failure.or(error).or_else(|| Some(without_reason(state)));
                }
                return Ok(Some(PoolEvent::Completed(completed)));
            }
            // States on the way, progress, and what verbose cmdlets say.
            _ => {}
        }
        Ok(None)
    }
}

impl Running {
    /// Asks too often: nobody will ever answer otherwise.
    fn give_up(&mut self, name: String) {
        self.stopping = true;
        self.completed.failure = Some(ErrorRecord {
            message: format!("the cmdlet asks somebody to answer ({})", cut(name)),
            reason: "HostCall".to_owned(),
            fully_qualified_id: "HostCall".to_owned(),
            ..ErrorRecord::default()
        });
    }

    fn error(&mut self, error: ErrorRecord) {
        let error = ErrorRecord {
            message: cut(error.message),
            reason: cut(error.reason),
            fully_qualified_id: cut(error.fully_qualified_id),
            category: error.category,
            target: cut(error.target),
        };
        let bytes =
            [&error.message, &error.reason, &error.fully_qualified_id, &error.target].map(String::len);
        if self.has_room(bytes.into_iter().sum()) {
            self.completed.errors.push(error);
        } else if !std::mem::replace(&mut self.errors_left_out, true) {
            let message = "further errors are left out".to_owned();
            self.completed.errors.push(ErrorRecord { message, ..ErrorRecord::default() });
        }
    }

    fn warning(&mut self, text: String) {
        let text = cut(text);
        if self.has_room(text.len()) {
            self.completed.warnings.push(text);
        } else if !std::mem::replace(&mut self.warnings_left_out, true) {
            self.completed.warnings.push("further warnings are left out".to_owned());
        }
    }

    /// Counts one more record of so many bytes; whether it may be kept.
    fn has_room(&mut self, bytes: usize) -> bool {
        self.records += 1;
        self.record_bytes += bytes;
        self.records <= PIPELINE_RECORDS_MAX && self.record_bytes <= PIPELINE_RECORDS_MAX_BYTES
    }
}

/// Pipelines give objects; a bare value is one that has nothing else.
fn into_object(value: Value) -> Object {
    match value {
        Value::Object(object) => *object,
        value => Object { content: Content::Primitive(value), ..Object::default() },
    }
}

fn without_reason(state: PipelineState) -> ErrorRecord {
    let (message, reason) = match state {
        PipelineState::Stopped => ("the pipeline was stopped", "PipelineStoppedException"),
        _ => ("the pipeline failed and the server gives no reason", ""),
    };
    ErrorRecord { message: message.to_owned(), reason: reason.to_owned(), ..ErrorRecord::default() }
}

/// The server's words, as much as is kept.
fn cut(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(PIPELINE_RECORD_MAX_BYTES));
    text
}
