//! The client's machine against a server in memory, whose every answer is a function of the request: what a session
//! looks like from both sides, and what happens when the server does not keep to it.

use std::collections::VecDeque;

use causeway_protocol::clixml::{Object, Reader, Value};
use causeway_protocol::cmdlet::{Cmdlet, Completed, ErrorRecord};
use causeway_protocol::psrp::{
    Capability, Defragmenter, Destination, Envelope, Fragmenter, Guid, HostCall, Message, Pipeline,
    PipelineState, PoolState,
};
use causeway_protocol::wsman::{
    CommandState, Created, Event, Fault, FaultCode, Operation, RemoteSession, Reply, Request, Response,
    SessionError, SessionSettings, Signal, SoapError, Stream,
};
use proptest::prelude::*;

const POOL: Guid = Guid::from_bytes([1; 16]);
const PIPELINE: Guid = Guid::from_bytes([2; 16]);

/// Answers by a script: the n-th Receive gets the n-th part.
struct Server {
    fragmenter: Fragmenter,
    /// How large a blob is.
    blob_max: usize,
    /// How large a stream element is: fragments are cut anywhere.
    stream_max: usize,
    /// What comes out of the pool, then out of the pipeline.
    pool: VecDeque<Part>,
    pipeline: VecDeque<Part>,
    version: (u32, u32),
    /// What it calls things.
    shell_id: String,
    command_id: String,
    requests: Vec<Operation>,
    envelope_sizes: Vec<usize>,
    received: Defragmenter,
    pipelines: Vec<Pipeline>,
    rewrite: fn(String) -> String,
}

#[derive(Clone)]
enum Part {
    Messages(Vec<Message>),
    Bytes(Vec<u8>),
    Fault(Fault),
    Done,
}

fn timed_out() -> Fault {
    Fault {
        subcode: "TimedOut".to_owned(),
        reason: "The operation did not complete in time.".to_owned(),
        code: Some(FaultCode::OPERATION_TIMED_OUT.0),
        ..Fault::default()
    }
}

fn opened() -> Vec<Message> {
    vec![
        Message::SessionCapability(Capability::default()),
        Message::ApplicationPrivateData(Value::Null),
        Message::PoolState { state: PoolState::Opened, error: None },
    ]
}

fn ended(state: PipelineState) -> Message {
    Message::PipelineState { state, error: None }
}

fn device(number: usize) -> Message {
    let name = Value::from(format!("device {number}"));
    let object = Object { adapted: vec![("Name".into(), name)], ..Object::default() };
    Message::PipelineOutput(Value::Object(Box::new(object)))
}

impl Server {
    fn new(pipeline: Vec<Part>) -> Self {
        Self {
            fragmenter: Fragmenter::new(),
            blob_max: 1 << 15,
            stream_max: usize::MAX,
            pool: VecDeque::from([Part::Messages(opened())]),
            pipeline: pipeline.into(),
            version: (2, 3),
            shell_id: "SHELL-OF-THE-SERVER".to_owned(),
            command_id: "COMMAND-OF-THE-SERVER".to_owned(),
            requests: Vec::new(),
            envelope_sizes: Vec::new(),
            received: Defragmenter::new(),
            pipelines: Vec::new(),
            rewrite: |envelope| envelope,
        }
    }

    fn answer(&mut self, envelope: &str) -> String {
        let request = Request::read(envelope.as_bytes()).expect("the client writes what servers read");
        self.envelope_sizes.push(request.header.envelope_max_bytes.unwrap());
        if !matches!(request.operation, Operation::Create(_)) {
            assert_eq!(request.header.selector("ShellId"), Some(&*self.shell_id));
        }
        let reply = self.reply(&request.operation);
        self.requests.push(request.operation.clone());
        (self.rewrite)(Response::to(&request, "uuid:ANSWER", reply).write())
    }

    fn reply(&mut self, operation: &Operation) -> Reply {
        match operation {
            Operation::Create(shell) => {
                self.take(shell.creation.as_ref().unwrap());
                let shell_id = self.shell_id.clone();
                let selectors = vec![("ShellId".to_owned(), shell_id.clone())];
                Reply::Created(Created { shell_id, selectors, ..Created::default() })
            }
            Operation::Command { .. } => {
                self.take(&operation.argument_bytes().unwrap());
                Reply::Commanded { command_id: self.command_id.clone() }
            }
            Operation::Send { streams } => {
                for stream in streams {
                    assert_eq!(stream.command_id.as_ref(), Some(&self.command_id));
                    self.take(&stream.bytes);
                }
                Reply::Sent
            }
            Operation::Receive { command_id, .. } => self.output(command_id.clone()),
            Operation::Signal { signal, .. } => {
                if *signal == Signal::Stop {
                    self.pipeline =
                        VecDeque::from([Part::Messages(vec![device(9), ended(PipelineState::Stopped)])]);
                }
                Reply::Signalled
            }
            Operation::Delete => Reply::Deleted,
            other => panic!("{other:?}"),
        }
    }

    fn take(&mut self, bytes: &[u8]) {
        self.received.push(bytes);
        while let Some(message) = self.received.next_message().unwrap() {
            if let Message::CreatePipeline(pipeline) =
                Envelope::read(&message, &mut Reader::new()).unwrap().message
            {
                self.pipelines.push(*pipeline);
            }
        }
    }

    fn output(&mut self, command_id: Option<String>) -> Reply {
        let parts = if command_id.is_some() { &mut self.pipeline } else { &mut self.pool };
        let pipeline = if command_id.is_some() { PIPELINE } else { Guid::NIL };
        let (bytes, done) = match parts.pop_front() {
            None => return Reply::Fault(timed_out()),
            Some(Part::Fault(fault)) => return Reply::Fault(fault),
            Some(Part::Done) => (Vec::new(), true),
            Some(Part::Bytes(bytes)) => (bytes, false),
            Some(Part::Messages(messages)) => {
                let mut bytes = Vec::new();
                for message in messages {
                    let envelope =
                        Envelope { destination: Destination::Client, pool: POOL, pipeline, message };
                    let message = envelope.write_for(self.version, true);
                    bytes.extend(self.fragmenter.cut(&message, self.blob_max).flatten());
                }
                (bytes, false)
            }
        };
        let stream = |piece: &[u8]| Stream {
            name: "stdout".to_owned(),
            command_id: command_id.clone(),
            bytes: piece.to_vec(),
        };
        let streams = bytes.chunks(self.stream_max).map(stream).collect();
        let state = done.then(|| CommandState { command_id: command_id.clone(), done, exit_code: None });
        Reply::Received { streams, state }
    }
}

fn session() -> RemoteSession {
    RemoteSession::new(SessionSettings {
        url: "https://mail.contoso.example/powershell?serializationLevel=Full;ExchClientVer=15.1".to_owned(),
        configuration: "Microsoft.Exchange".to_owned(),
        session_id: Guid::from_bytes([3; 16]),
        pool_id: POOL,
    })
}

/// The caller's loop, until there is nothing to do or it goes on too long.
fn pump(session: &mut RemoteSession, server: &mut Server) -> Result<Vec<Event>, SessionError> {
    let mut events = Vec::new();
    for round in 0u8..50 {
        while let Some(event) = session.next_event()? {
            events.push(event);
        }
        let Some(envelope) = session.next_request(Guid::from_bytes([round; 16])) else { return Ok(events) };
        session.answer(server.answer(&envelope).as_bytes())?;
    }
    Ok(events)
}

fn open(server: &mut Server) -> RemoteSession {
    let mut session = session();
    let events = pump(&mut session, server).unwrap();
    assert_eq!(events, [Event::Opened(Some(Capability::default()))]);
    assert!(session.is_ready());
    session
}

fn run(server: &mut Server, cmdlet: &Cmdlet) -> Result<Vec<Event>, SessionError> {
    let mut session = open(server);
    session.run(cmdlet, PIPELINE).unwrap();
    let events = pump(&mut session, server)?;
    assert!(session.is_ready() || !server.pipeline.is_empty());
    Ok(events)
}

fn names(events: &[Event]) -> Vec<String> {
    let name = |event: &Event| match event {
        Event::Object(object) => object.text("Name").map(|name| name.into_owned()),
        _ => None,
    };
    events.iter().filter_map(name).collect()
}

fn completed(events: &[Event]) -> &Completed {
    match events.last() {
        Some(Event::Completed(completed)) => completed,
        other => panic!("{other:?} in {events:?}"),
    }
}

fn kinds(server: &Server) -> Vec<&str> {
    server.requests.iter().map(|operation| operation.action().rsplit('/').next().unwrap()).collect()
}

#[test]
fn a_session_from_the_first_request_to_the_last() {
    let error = ErrorRecord {
        message: "couldn't be found".to_owned(),
        reason: "ManagementObjectNotFoundException".to_owned(),
        fully_qualified_id: "[Server=EX1] [FailureCategory=Cmdlet-ManagementObjectNotFoundException] 1,x"
            .to_owned(),
        category: 13,
        target: "bob".to_owned(),
    };
    let mut server = Server::new(vec![
        Part::Messages(vec![ended(PipelineState::Running), device(1)]),
        Part::Fault(timed_out()),
        Part::Messages(vec![
            Message::Warning("Micro delay applied".to_owned()),
            Message::ErrorRecord(error.clone()),
            Message::Progress(Value::Null),
            Message::Verbose("not of interest".to_owned()),
            device(2),
        ]),
        Part::Messages(vec![device(3), ended(PipelineState::Completed)]),
    ]);
    let mut session = open(&mut server);
    session.run(&Cmdlet::new("Get-MobileDevice").with("Mailbox", "bob"), PIPELINE).unwrap();
    let events = pump(&mut session, &mut server).unwrap();
    assert_eq!(names(&events), ["device 1", "device 2", "device 3"]);
    let completed = completed(&events);
    assert_eq!(completed.errors, [error]);
    assert_eq!(completed.warnings, ["Micro delay applied"]);
    assert_eq!(completed.failure, None);

    session.close();
    assert_eq!(pump(&mut session, &mut server).unwrap(), [Event::Closed]);
    assert_eq!(
        kinds(&server),
        ["Create", "Receive", "Command", "Receive", "Receive", "Receive", "Receive", "Signal", "Delete"]
    );
    let Operation::Signal { command_id, signal } = &server.requests[7] else { panic!() };
    assert_eq!((command_id.as_deref(), signal), (Some("COMMAND-OF-THE-SERVER"), &Signal::Terminate));
    // The limit of envelopes is raised when the server has said that it speaks 2.2 or newer.
    assert_eq!(server.envelope_sizes[..3], [153_600, 153_600, 512_000]);
    assert_eq!(
        server.pipelines[0].commands[0].cmdlet(),
        Some(Cmdlet::new("Get-MobileDevice").with("Mailbox", "bob"))
    );
}

#[test]
fn any_cut_of_the_streams_gives_the_same() {
    for (blob_max, stream_max) in [(1, 7), (50, 1), (64, 64), (1 << 15, 3), (17, usize::MAX)] {
        let mut server = Server::new(vec![
            Part::Messages(vec![device(1), device(2)]),
            Part::Messages(vec![ended(PipelineState::Completed)]),
        ]);
        (server.blob_max, server.stream_max) = (blob_max, stream_max);
        let events = run(&mut server, &Cmdlet::new("Get-MobileDevice")).unwrap();
        assert_eq!(names(&events), ["device 1", "device 2"], "{blob_max} {stream_max}");
        assert_eq!(completed(&events), &Completed::default());
    }
}

#[test]
fn long_cmdlets_go_in_several_requests() {
    let ids = Value::list((0..20_000).map(|id| Value::from(format!("ApplDEVICE{id:08}"))).collect());
    let cmdlet = Cmdlet::new("Set-CASMailbox").with("ActiveSyncAllowedDeviceIDs", ids);
    let mut server = Server::new(vec![Part::Messages(vec![ended(PipelineState::Completed)])]);
    run(&mut server, &cmdlet).unwrap();
    assert_eq!(kinds(&server)[2..], ["Command", "Send", "Receive", "Signal"]);
    assert_eq!(server.pipelines[0].commands[0].cmdlet(), Some(cmdlet));
}

#[test]
fn no_envelope_is_larger_than_the_server_takes() {
    let mut server = Server::new(vec![]);
    server.pool =
        VecDeque::from([Part::Messages(vec![Message::PoolState { state: PoolState::Opened, error: None }])]);
    let mut session = session();
    assert_eq!(pump(&mut session, &mut server).unwrap(), [Event::Opened(None)]);
    session.run(&Cmdlet::new("Set-CASMailbox").with("Identity", "x".repeat(500_000)), PIPELINE).unwrap();
    for round in 0..8 {
        let Some(envelope) = session.next_request(Guid::from_bytes([round; 16])) else { break };
        assert!(envelope.len() <= 153_600, "{}", envelope.len());
        let answer = server.answer(&envelope);
        if kinds(&server).last() == Some(&"Receive") {
            break;
        }
        session.answer(answer.as_bytes()).unwrap();
    }
    assert_eq!(kinds(&server)[2..], ["Command", "Send", "Send", "Send", "Send", "Receive"]);
    // An old server is not sent what it does not know.
    let Value::String(identity) = &server.pipelines[0].commands[0].arguments[0].value else { panic!() };
    assert_eq!(identity.len(), 500_000);
}

#[test]
fn a_failed_pipeline_says_why() {
    let error = ErrorRecord { message: "not recognized".to_owned(), ..ErrorRecord::default() };
    let failed = Message::PipelineState { state: PipelineState::Failed, error: Some(error) };
    let mut server = Server::new(vec![Part::Messages(vec![device(1), failed])]);
    let events = run(&mut server, &Cmdlet::new("Get-Nothing")).unwrap();
    assert_eq!(completed(&events).failure.as_ref().unwrap().message, "not recognized");
    assert_eq!(kinds(&server).last(), Some(&"Signal"));

    let mut server = Server::new(vec![Part::Messages(vec![ended(PipelineState::Failed)])]);
    let events = run(&mut server, &Cmdlet::new("Get-Nothing")).unwrap();
    assert!(completed(&events).failure.is_some());
}

#[test]
fn a_stopped_pipeline_gives_no_more_objects_and_is_terminated() {
    let mut server = Server::new(vec![Part::Messages(vec![device(1), device(2), device(3)])]);
    let mut session = open(&mut server);
    session.run(&Cmdlet::new("Get-MobileDevice"), PIPELINE).unwrap();
    let mut events = Vec::new();
    for round in 0..10 {
        while let Some(event) = session.next_event().unwrap() {
            if matches!(event, Event::Object(_)) {
                session.stop();
                session.stop();
            }
            events.push(event);
        }
        let Some(envelope) = session.next_request(Guid::from_bytes([round; 16])) else { break };
        session.answer(server.answer(&envelope).as_bytes()).unwrap();
    }
    assert_eq!(names(&events), ["device 1"]);
    assert_eq!(completed(&events).failure.as_ref().unwrap().reason, "PipelineStoppedException");
    assert_eq!(kinds(&server)[2..], ["Command", "Receive", "Signal", "Receive", "Signal"]);
    assert!(matches!(&server.requests[4], Operation::Signal { signal: Signal::Stop, .. }));
    assert!(matches!(&server.requests[6], Operation::Signal { signal: Signal::Terminate, .. }));
}

fn host_call(method: i32, name: &str) -> HostCall {
    HostCall { call: 7, method, name: name.to_owned(), parameters: Value::list(vec!["beware".into()]) }
}

#[test]
fn what_is_only_shown_is_taken_and_what_asks_is_refused() {
    let failed = Message::PipelineState {
        state: PipelineState::Failed,
        error: Some(ErrorRecord { reason: "HostException".to_owned(), ..ErrorRecord::default() }),
    };
    let mut server = Server::new(vec![
        Part::Messages(vec![
            Message::PipelineHostCall(host_call(22, "WriteWarningLine")),
            Message::PipelineHostCall(host_call(15, "WriteLine1")),
            Message::PipelineHostCall(host_call(26, "PromptForChoice")),
        ]),
        Part::Messages(vec![failed]),
    ]);
    let events = run(&mut server, &Cmdlet::new("Clear-MobileDevice")).unwrap();
    let completed = completed(&events);
    assert_eq!(completed.warnings, ["beware"]);
    assert_eq!(completed.failure.as_ref().unwrap().reason, "HostException");
    assert_eq!(kinds(&server)[2..], ["Command", "Receive", "Send", "Receive", "Signal"]);
    let Operation::Send { streams } = &server.requests[4] else { panic!("{:?}", server.requests[4]) };
    let [stream] = &streams[..] else { panic!("{streams:?}") };
    assert_eq!(stream.name, "pr");
    assert!(stream.command_id.is_some());
    let mut fragments = Defragmenter::new();
    fragments.push(&stream.bytes);
    let message = fragments.next_message().unwrap().unwrap();
    let answer = Envelope::read(&message, &mut Reader::new()).unwrap().message;
    let Message::PipelineHostResponse(Value::Object(answer)) = answer else { panic!("{answer:?}") };
    assert_eq!(answer.get("ci"), Some(&Value::I64(7)));
    assert!(answer.get("me").is_some() && answer.get("mr").is_none());
}

#[test]
fn a_cmdlet_that_asks_again_and_again_is_stopped() {
    let ask = || Message::PipelineHostCall(host_call(11, "ReadLine"));
    let mut server = Server::new(vec![Part::Messages((0..20).map(|_| ask()).collect())]);
    let events = run(&mut server, &Cmdlet::new("Clear-MobileDevice")).unwrap();
    let failure = completed(&events).failure.as_ref().unwrap();
    assert!(failure.message.contains("ReadLine"), "{failure:?}");
    let sent = kinds(&server).iter().filter(|kind| **kind == "Send").count();
    assert_eq!(sent, 16);
    assert_eq!(kinds(&server)[2 + 2 + sent..], ["Signal", "Receive", "Signal"]);
}

#[test]
fn a_broken_pool_ends_the_session() {
    let error = Some(ErrorRecord { message: "out of memory".to_owned(), ..ErrorRecord::default() });
    let broken = Message::PoolState { state: PoolState::Broken, error };
    let mut server = Server::new(vec![]);
    server.pool =
        VecDeque::from([Part::Messages(vec![Message::SessionCapability(Capability::default()), broken])]);
    let mut session = session();
    let outcome = pump(&mut session, &mut server).unwrap_err();
    let SessionError::Pool(pool) = &outcome else { panic!("{outcome:?}") };
    assert_eq!(pool.to_string(), "the runspace pool is Broken: out of memory");
    // The shell is closed all the same.
    session.close();
    assert_eq!(pump(&mut session, &mut server).unwrap(), [Event::Closed]);
}

#[test]
fn faults_are_told_apart() {
    let fault = |code: Option<u32>, detail: &str| Fault {
        subcode: "InternalError".to_owned(),
        reason: "refused".to_owned(),
        code,
        detail: detail.to_owned(),
        ..Fault::default()
    };
    let outcome = |fault: Fault| {
        let mut server = Server::new(vec![Part::Fault(fault)]);
        match run(&mut server, &Cmdlet::new("Get-MobileDevice")) {
            Err(SessionError::Fault { operation: "receive output", fault }) => *fault,
            other => panic!("{other:?}"),
        }
    };
    assert!(outcome(fault(Some(FaultCode::SHELL_NOT_FOUND.0), "")).is_shell_gone());
    assert!(outcome(fault(Some(FaultCode::QUOTA_MAX_OPERATIONS.0), "")).is_load());
    assert!(outcome(fault(Some(1), "connections allowed for the policy party : MaxConcurrency")).is_load());
    let plain = outcome(fault(Some(5), "access denied"));
    assert!(!plain.is_load() && !plain.is_shell_gone() && !plain.is_timeout());
}

#[test]
fn a_fault_without_detail_is_understood() {
    let fault = Fault { subcode: "TimedOut".to_owned(), reason: "late".to_owned(), ..Fault::default() };
    let mut server = Server::new(vec![
        Part::Fault(fault),
        Part::Messages(vec![device(1), ended(PipelineState::Completed)]),
    ]);
    server.rewrite = |envelope| {
        assert!(!envelope.contains("Detail"));
        envelope
    };
    let events = run(&mut server, &Cmdlet::new("Get-MobileDevice")).unwrap();
    assert_eq!(names(&events), ["device 1"]);
}

#[test]
fn an_endless_silence_stays_the_callers_business() {
    let mut server = Server::new(vec![]);
    let mut session = open(&mut server);
    session.run(&Cmdlet::new("Get-MobileDevice"), PIPELINE).unwrap();
    assert_eq!(pump(&mut session, &mut server).unwrap(), []);
    assert!(server.requests.len() > 40);
    // The caller has enough.
    session.close();
    assert_eq!(pump(&mut session, &mut server).unwrap(), [Event::Closed]);
}

#[test]
fn a_stream_that_ends_without_the_pipelines_state_is_an_error() {
    let mut server = Server::new(vec![Part::Messages(vec![device(1)]), Part::Done]);
    let outcome = run(&mut server, &Cmdlet::new("Get-MobileDevice")).unwrap_err();
    assert_eq!(
        std::error::Error::source(&outcome).unwrap().to_string(),
        "the pipeline ended without its state"
    );

    // The last message is not whole.
    let mut server = Server::new(vec![]);
    let mut half = [7u64.to_be_bytes(), 0u64.to_be_bytes()].concat();
    half.extend([1, 0, 0, 0, 1, b'x']);
    server.pipeline =
        VecDeque::from([Part::Bytes(half), Part::Messages(vec![ended(PipelineState::Completed)])]);
    let outcome = run(&mut server, &Cmdlet::new("Get-MobileDevice"));
    assert!(matches!(outcome, Err(SessionError::Pool(_))), "{outcome:?}");
}

#[test]
fn nonsense_in_the_streams_ends_the_session() {
    for bytes in [vec![0xff; 100], vec![0; 21], b"<html>".repeat(9)] {
        let mut server = Server::new(vec![Part::Bytes(bytes)]);
        let mut session = open(&mut server);
        session.run(&Cmdlet::new("Get-MobileDevice"), PIPELINE).unwrap();
        let outcome = pump(&mut session, &mut server);
        assert!(matches!(outcome, Err(SessionError::Pool(_))), "{outcome:?}");
        // The server is told all the same.
        session.close();
        assert_eq!(pump(&mut session, &mut server).unwrap(), [Event::Closed]);
        assert_eq!(kinds(&server).last(), Some(&"Delete"));
    }
}

/// The outcome of a session whose first answer is changed.
fn first_answer(rewrite: fn(String) -> String) -> SoapError {
    let mut server = Server::new(vec![]);
    server.rewrite = rewrite;
    match pump(&mut session(), &mut server) {
        Err(SessionError::Soap { operation: "create shell", source }) => source,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_missing_or_wrong_relates_to_is_refused() {
    let missing = first_answer(|envelope| {
        let (before, rest) = envelope.split_once("<a:RelatesTo>").unwrap();
        before.to_owned() + rest.split_once("</a:RelatesTo>").unwrap().1
    });
    assert_eq!(missing, SoapError::RelatesTo { found: String::new() });
    let other = first_answer(|envelope| envelope.replace("<a:RelatesTo>uuid:0", "<a:RelatesTo>uuid:1"));
    assert!(matches!(other, SoapError::RelatesTo { found } if found.starts_with("uuid:1")));
}

#[test]
fn a_foreign_envelope_is_refused() {
    let foreign = first_answer(|envelope| {
        envelope
            .replace("http://www.w3.org/2003/05/soap-envelope", "http://schemas.xmlsoap.org/soap/envelope/")
    });
    assert_eq!(
        foreign.to_string(),
        "the root is Envelope of namespace \"http://schemas.xmlsoap.org/soap/envelope/\" and not an envelope of SOAP 1.2"
    );
    assert!(matches!(first_answer(|_| "<html/>".to_owned()), SoapError::Foreign { .. }));
    let body = first_answer(|envelope| {
        envelope
            .replace("http://schemas.xmlsoap.org/ws/2004/09/transfer", "urn:x")
            .replace("windows/shell", "w")
    });
    assert!(matches!(body, SoapError::Unexpected { .. } | SoapError::RelatesTo { .. }), "{body:?}");
}

#[test]
fn headers_that_must_be_understood_are() {
    let unknown = first_answer(|envelope| {
        envelope.replace("<s:Header>", "<s:Header><z:Odd xmlns:z=\"urn:z\" s:mustUnderstand=\"1\">1</z:Odd>")
    });
    assert_eq!(unknown, SoapError::NotUnderstood { name: "Odd".to_owned() });
    // One that need not be is skipped.
    let mut server = Server::new(vec![]);
    server.rewrite =
        |envelope| envelope.replace("<s:Header>", "<s:Header><z:Odd xmlns:z=\"urn:z\">1</z:Odd>");
    assert!(pump(&mut session(), &mut server).is_ok());
}

#[test]
fn a_byte_order_mark_is_tolerated_and_what_is_no_xml_is_not() {
    let mut server = Server::new(vec![]);
    server.rewrite = |envelope| format!("\u{feff}<?xml version=\"1.0\"?>{envelope}");
    assert!(pump(&mut session(), &mut server).is_ok());
    for answer in ["", "\u{1f}\u{8b}\u{8}gzip", "<!DOCTYPE a [<!ENTITY b 'c'>]><a>&b;</a>"] {
        let mut session = session();
        session.next_request(POOL).unwrap();
        let outcome = session.answer(answer.as_bytes());
        assert!(
            matches!(outcome, Err(SessionError::Soap { source: SoapError::Xml(_), .. })),
            "{answer:?}: {outcome:?}"
        );
    }
}

#[test]
fn a_lost_answer_is_asked_for_again_where_that_does_no_harm() {
    let mut server = Server::new(vec![Part::Messages(vec![ended(PipelineState::Completed)])]);
    let mut session = open(&mut server);
    session.run(&Cmdlet::new("Clear-MobileDevice"), PIPELINE).unwrap();
    let command = session.next_request(POOL).unwrap();
    assert_eq!(session.again(), None, "a cmdlet must not run twice");
    session.answer(server.answer(&command).as_bytes()).unwrap();
    let receive = session.next_request(POOL).unwrap();
    assert_eq!(session.again(), Some(&*receive));
    assert_eq!(session.next_request(POOL), None, "one request at a time");
}

#[test]
fn what_is_not_in_order_is_refused() {
    let mut server = Server::new(vec![]);
    let cmdlet = Cmdlet::new("Get-MobileDevice");
    let mut early = session();
    assert_eq!(early.run(&cmdlet, PIPELINE), Err(SessionError::NotReady));
    assert_eq!(early.answer(b""), Err(SessionError::Unasked));
    // Nothing was opened, so nothing is said to the server.
    early.close();
    assert_eq!(early.next_event().unwrap(), Some(Event::Closed));
    assert_eq!(early.next_request(POOL), None);

    let mut open = open(&mut server);
    open.run(&cmdlet, PIPELINE).unwrap();
    assert_eq!(open.run(&cmdlet, PIPELINE), Err(SessionError::NotReady));
}

#[test]
fn a_session_in_silence_can_be_kept() {
    let mut server = Server::new(vec![]);
    let mut session = open(&mut server);
    session.touch();
    assert_eq!(pump(&mut session, &mut server).unwrap(), []);
    assert_eq!(kinds(&server), ["Create", "Receive", "Receive"]);
    assert!(session.is_ready());
}

#[test]
fn endless_errors_and_warnings_are_bounded() {
    let outcome = |messages: Vec<Message>, answers: usize| {
        let mut parts = vec![Part::Messages(messages); answers];
        parts.push(Part::Messages(vec![ended(PipelineState::Completed)]));
        let events = run(&mut Server::new(parts), &Cmdlet::new("Get-MobileDevice")).unwrap();
        completed(&events).clone()
    };
    let many = outcome(vec![Message::Warning("w".to_owned()); 1_001], 10);
    assert_eq!(many.warnings.len(), 10_001);
    assert_eq!(many.warnings.last().unwrap(), "further warnings are left out");

    let long = ErrorRecord { message: "x".repeat(20_000), ..ErrorRecord::default() };
    let long = outcome(vec![Message::ErrorRecord(long); 15], 10);
    assert!(long.errors.iter().all(|error| error.message.len() <= 16_384));
    assert_eq!(long.errors.len(), 128, "two mebibytes, of which the last is what says that there was more");
    assert_eq!(long.errors.last().unwrap().message, "further errors are left out");
}

proptest! {
    /// Whatever the streams carry, the session goes on or says why not, and can be closed.
    #[test]
    fn arbitrary_streams_never_panic(
        pool in proptest::collection::vec(any::<u8>(), 0..120),
        pipeline in proptest::collection::vec(any::<u8>(), 0..120),
        flags in 0u8..4,
    ) {
        // Random headers are refused at once, so some of the bytes are the blob of a good one.
        let framed = |blob: &[u8]| {
            let length = u32::try_from(blob.len()).unwrap().to_be_bytes();
            [&7u64.to_be_bytes()[..], &0u64.to_be_bytes(), &[flags], &length, blob].concat()
        };
        let mut server = Server::new(vec![Part::Bytes(framed(&pipeline)), Part::Bytes(pipeline), Part::Done]);
        server.pool.push_back(Part::Bytes(pool));
        let mut session = open(&mut server);
        session.run(&Cmdlet::new("Get-MobileDevice"), PIPELINE).unwrap();
        let _ = pump(&mut session, &mut server);
        session.close();
        prop_assert_eq!(pump(&mut session, &mut server).unwrap(), [Event::Closed]);
    }
}
