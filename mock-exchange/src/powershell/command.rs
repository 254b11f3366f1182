//! One command of a shell: a pipeline of one cmdlet, worked on as far as somebody fetches what it gives.

use std::sync::Arc;

use causeway_protocol::clixml::{Object, Value};
use causeway_protocol::cmdlet::{Cmdlet, ErrorRecord};
use causeway_protocol::psrp::{
    Defragmenter, Destination, Envelope, Fragmenter, Guid, HostCall, Kind, Message, Pipeline, PipelineState,
    error_record,
};

use super::language;
use super::outbox::{Outbox, Take};
use super::twist::{BadFragments, Twist};
use crate::cmdlets::{Output, Question, Running};

/// What the work of one request needs from the shell.
pub(super) struct Bench<'a> {
    pub(super) fragmenter: &'a mut Fragmenter,
    pub(super) pool: Guid,
    pub(super) version: (u32, u32),
    pub(super) byte_order_mark: bool,
    pub(super) fragment_max_bytes: usize,
    pub(super) now_ms: i64,
    /// Properties remoting adds to every object.
    pub(super) stamp: &'a Stamp,
    pub(super) twist: &'a Twist,
}

/// What remoting adds to every object of a session: they differ between sessions and say nothing about the object.
pub(super) struct Stamp([(Arc<str>, Value); 3]);

impl Stamp {
    pub(super) fn new(server: &str, runspace: Guid) -> Self {
        Self([
            ("PSComputerName".into(), server.into()),
            ("RunspaceId".into(), Value::Guid(runspace.to_string())),
            ("PSShowComputerName".into(), false.into()),
        ])
    }

    fn apply(&self, object: &mut Object) {
        object.extended.extend(self.0.iter().cloned());
    }
}

impl Bench<'_> {
    /// Puts a message for the client into a box.
    pub(super) fn post(&mut self, out: &mut Outbox, pipeline: Guid, message: Message) {
        let envelope = Envelope { destination: Destination::Client, pool: self.pool, pipeline, message };
        let mark = self.twist.byte_order_mark.unwrap_or(self.byte_order_mark);
        let bytes = envelope.write_for(self.version, mark);
        out.push(self.fragmenter, &bytes, self.fragment_max_bytes);
    }

    /// An object whose text no server may write.
    fn post_hostile(&mut self, out: &mut Outbox, pipeline: Guid, text: &str) {
        let mut bytes = Vec::with_capacity(40 + text.len());
        bytes.extend_from_slice(&1u32.to_le_bytes());
        bytes.extend_from_slice(&Kind::PIPELINE_OUTPUT.0.to_le_bytes());
        bytes.extend_from_slice(&self.pool.to_wire());
        bytes.extend_from_slice(&pipeline.to_wire());
        bytes.extend_from_slice(text.as_bytes());
        out.push(self.fragmenter, &bytes, self.fragment_max_bytes);
    }
}

/// How far a command is.
enum Stage {
    /// Not all fragments of CREATE_PIPELINE are here.
    Arriving,
    /// Every runspace of the pool is in use.
    Waiting(Box<Pipeline>),
    /// The throttling policy may hold it back until some time.
    Running { running: Box<Running>, from_ms: i64 },
    /// The client's host was asked and has not answered.
    Asking { call: i64, running: Box<Running> },
    /// The final state has been posted.
    Ended,
}

/// What came of starting a cmdlet.
pub(super) enum Started {
    Running(Box<Running>),
    /// It was one of the session's own and is over.
    Done(Result<(), ErrorRecord>),
}

/// What came of working on a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// Something waits to be fetched.
    Ready,
    /// Nothing before this time.
    At(i64),
    /// Nothing until the client or another command does something.
    Idle,
}

/// What an answered Receive carried, for a client that lost the answer and asks again with the same message id.
struct Delivered {
    message_id: String,
    elements: Vec<Vec<u8>>,
    done: bool,
}

/// What a Receive gets.
pub(super) struct Fetched {
    pub(super) elements: Vec<Vec<u8>>,
    /// Nothing more follows.
    pub(super) done: bool,
}

pub(super) struct Command {
    /// Its id in messages; that of WSMan is the key under which the shell keeps it.
    pub(super) pipeline: Guid,
    /// The cmdlet, once it is known.
    pub(super) name: String,
    input: Defragmenter,
    stage: Stage,
    out: Outbox,
    last: Option<Delivered>,
    objects: u64,
    calls: i64,
    /// A fault has put something of its own between the outputs.
    disturbed: bool,
}

impl Command {
    pub(super) fn new(pipeline: Guid) -> Self {
        Self {
            pipeline,
            name: String::new(),
            input: Defragmenter::new(),
            stage: Stage::Arriving,
            out: Outbox::default(),
            last: None,
            objects: 0,
            calls: 0,
            disturbed: false,
        }
    }

    /// The stream of fragments the client sends for this command.
    pub(super) fn input(&mut self) -> &mut Defragmenter {
        &mut self.input
    }

    /// Whether it holds a runspace.
    pub(super) fn is_busy(&self) -> bool {
        matches!(self.stage, Stage::Running { .. } | Stage::Asking { .. })
    }

    /// Whether everything it had to say is in its box.
    pub(super) fn has_ended(&self) -> bool {
        matches!(self.stage, Stage::Ended)
    }

    /// Objects given so far.
    pub(super) fn objects(&self) -> u64 {
        self.objects
    }

    /// Takes what the client wants run; it starts when a runspace is free.
    pub(super) fn accept(&mut self, pipeline: Pipeline) {
        if matches!(self.stage, Stage::Arriving) {
            self.name = pipeline.commands.first().map(language::subject).unwrap_or_default();
            self.stage = Stage::Waiting(Box::new(pipeline));
        }
    }

    /// Starts what waits. `run` is asked only for a pipeline the language mode allows; `host` says whether somebody can
    /// be asked to confirm.
    pub(super) fn start(&mut self, bench: &mut Bench<'_>, host: bool, run: impl FnOnce(&Cmdlet) -> Started) {
        let stage = std::mem::replace(&mut self.stage, Stage::Ended);
        let Stage::Waiting(pipeline) = stage else { return self.stage = stage };
        let cmdlet = match language::only_cmdlet(&pipeline) {
            Ok(cmdlet) => cmdlet,
            Err(refused) => return self.end(bench, PipelineState::Failed, Some(refused)),
        };
        self.state(bench, PipelineState::Running, None);
        match run(&cmdlet) {
            Started::Done(Ok(())) => self.end(bench, PipelineState::Completed, None),
            Started::Done(Err(error)) => self.end(bench, PipelineState::Failed, Some(error)),
            Started::Running(running) => {
                let question = running.question().filter(|_| host).cloned();
                let delay_ms = i64::try_from(running.delay().as_millis()).unwrap_or(i64::MAX);
                let from_ms = bench.now_ms.saturating_add(delay_ms);
                self.stage = Stage::Running { running, from_ms };
                if let Some(question) = question {
                    self.ask(bench, &question);
                }
            }
        }
    }

    /// Works until so many bytes wait or nothing more can be done now.
    pub(super) fn work(&mut self, bench: &mut Bench<'_>, until_bytes: usize) -> Progress {
        self.twisted(bench);
        while self.out.size_bytes() < until_bytes {
            let Stage::Running { running, from_ms } = &mut self.stage else { break };
            if *from_ms > bench.now_ms {
                return if self.out.is_empty() { Progress::At(*from_ms) } else { Progress::Ready };
            }
            match running.next() {
                Some(Output::Object(mut object)) => {
                    self.objects += 1;
                    bench.stamp.apply(&mut object);
                    let object = Value::Object(Box::new(object));
                    bench.post(&mut self.out, self.pipeline, Message::PipelineOutput(object));
                }
                Some(Output::Warning(text)) => {
                    bench.post(&mut self.out, self.pipeline, Message::Warning(text))
                }
                Some(Output::Error(error)) => {
                    bench.post(&mut self.out, self.pipeline, Message::ErrorRecord(error))
                }
                Some(Output::Failed(error)) => self.end(bench, PipelineState::Failed, Some(error)),
                None => self.end(bench, PipelineState::Completed, None),
            }
        }
        if self.out.is_empty() { Progress::Idle } else { Progress::Ready }
    }

    /// What waits, or once more what was fetched with this message id.
    pub(super) fn fetch(&mut self, message_id: &str, how: &Take) -> Fetched {
        if let Some(last) = self.last.as_ref().filter(|last| last.message_id == message_id) {
            return Fetched { elements: last.elements.clone(), done: last.done };
        }
        let elements = self.out.take(how);
        let done = self.has_ended() && self.out.is_empty();
        let delivered = Delivered { message_id: message_id.to_owned(), elements: elements.clone(), done };
        self.last = Some(delivered);
        Fetched { elements, done }
    }

    /// Whether a Receive with this message id has been answered.
    pub(super) fn was_fetched(&self, message_id: &str) -> bool {
        self.last.as_ref().is_some_and(|last| last.message_id == message_id)
    }

    /// Ends it because the client says so; what nobody fetched is thrown away.
    pub(super) fn stop(&mut self, bench: &mut Bench<'_>) {
        if !self.has_ended() {
            self.out.clear();
            self.end(bench, PipelineState::Stopped, Some(language::stopped()));
        }
    }

    /// Ends it because the pool broke.
    pub(super) fn fail(&mut self, bench: &mut Bench<'_>, error: ErrorRecord) {
        if !self.has_ended() {
            self.end(bench, PipelineState::Failed, Some(error));
        }
    }

    /// The client's host has answered a question (MS-PSRP 2.2.2.28).
    pub(super) fn answered(&mut self, bench: &mut Bench<'_>, response: &Value) {
        let stage = std::mem::replace(&mut self.stage, Stage::Ended);
        let Stage::Asking { call, mut running } = stage else { return self.stage = stage };
        let Value::Object(response) = response else { return self.end_unanswered(bench) };
        let (answers, choice) = (response.get("ci"), response.get("mr").and_then(language::choice));
        if let (Some(Value::I64(answered)), Some(error)) = (answers, response.get("me"))
            && *answered == call
        {
            // What the host throws ends the cmdlet.
            return self.end(bench, PipelineState::Failed, Some(error_record(error)));
        }
        match (answers, choice) {
            (Some(Value::I64(answered)), Some(choice)) if *answered == call => {
                running.answer(choice == language::YES || choice == language::YES_TO_ALL);
                self.stage = Stage::Running { running, from_ms: bench.now_ms };
            }
            _ => self.end_unanswered(bench),
        }
    }

    fn ask(&mut self, bench: &mut Bench<'_>, question: &Question) {
        let stage = std::mem::replace(&mut self.stage, Stage::Ended);
        let Stage::Running { running, .. } = stage else { return self.stage = stage };
        self.calls += 1;
        let call = HostCall {
            call: self.calls,
            method: language::PROMPT_FOR_CHOICE,
            name: "PromptForChoice".to_owned(),
            parameters: language::confirmation(question),
        };
        bench.post(&mut self.out, self.pipeline, Message::PipelineHostCall(call));
        self.stage = Stage::Asking { call: self.calls, running };
    }

    fn end_unanswered(&mut self, bench: &mut Bench<'_>) {
        self.end(bench, PipelineState::Failed, Some(language::no_host("an answer that is none")));
    }

    fn end(&mut self, bench: &mut Bench<'_>, state: PipelineState, error: Option<ErrorRecord>) {
        if let (Some(partial), PipelineState::Completed) = (&bench.twist.partial, state) {
            let record = language::partial(&partial.reason, &partial.message);
            bench.post(&mut self.out, self.pipeline, Message::ErrorRecord(record));
        }
        self.stage = Stage::Ended;
        self.state(bench, state, error);
    }

    fn state(&mut self, bench: &mut Bench<'_>, state: PipelineState, error: Option<ErrorRecord>) {
        bench.post(&mut self.out, self.pipeline, Message::PipelineState { state, error });
    }

    /// Faults that put something of their own before what the cmdlet gives next, once for each pipeline.
    fn twisted(&mut self, bench: &mut Bench<'_>) {
        let Stage::Running { from_ms, .. } = &mut self.stage else { return };
        let twist = bench.twist;
        if self.disturbed {
            return;
        }
        if let Some(ms) = twist.micro_delay_ms {
            *from_ms = bench.now_ms.saturating_add_unsigned(ms);
            bench.post(&mut self.out, self.pipeline, Message::Warning(language::micro_delay(ms)));
            self.disturbed = true;
        }
        let hostile = match twist.fragments {
            Some(BadFragments::Deep) => Some(language::deep()),
            Some(BadFragments::Laughs) => Some(language::laughs()),
            Some(BadFragments::Doctype) => Some(language::DOCTYPE.to_owned()),
            _ => None,
        };
        if let Some(text) = hostile {
            bench.post_hostile(&mut self.out, self.pipeline, &text);
            self.disturbed = true;
        }
        if let Some(ask) = &twist.host_call {
            let call = HostCall {
                call: i64::MAX,
                method: ask.method,
                name: ask.name.clone(),
                parameters: Value::list(vec![ask.text.as_str().into()]),
            };
            bench.post(&mut self.out, self.pipeline, Message::PipelineHostCall(call));
            self.disturbed = true;
            if !ask.shows
                && let Stage::Running { running, .. } = std::mem::replace(&mut self.stage, Stage::Ended)
            {
                self.stage = Stage::Asking { call: i64::MAX, running };
            }
        }
    }
}
