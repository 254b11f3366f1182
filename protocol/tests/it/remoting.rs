//! PowerShell remoting and WSMan from outside: what a third-party client sends is understood to the last property.

use std::collections::VecDeque;
use std::time::Duration;

use causeway_protocol::clixml::{Content, Reader};
use causeway_protocol::cmdlet::{Cmdlet, ErrorRecord};
use causeway_protocol::psrp::{
    Capability, Defragmenter, Destination, Envelope, Guid, HostCall, Kind, Message, Pipeline, PipelineState,
    PoolState,
};
use causeway_protocol::wsman::{
    CommandState, CreateShell, Created, Event, Fault, Header, Operation, Opt, RemoteSession, Reply, Request,
    Response, SessionSettings, Signal, Stream, action, decode_base64,
};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::clixml;

const SESSION: &str = include_str!("corpus/pypsrp-0.9.1-basic-session.txt");

/// The bodies of the recorded requests.
fn recorded() -> Vec<&'static str> {
    SESSION.lines().filter(|line| line.starts_with("<s:Envelope")).collect()
}

/// The recorder's own view of the values in the fragments.
fn recorded_values() -> Vec<&'static str> {
    SESSION
        .lines()
        .filter_map(|line| line.trim_start().strip_prefix("").filter(|line| line.starts_with("<Obj ")))
        .collect()
}

fn messages(bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut stream = Defragmenter::new();
    stream.push(bytes);
    let mut messages = Vec::new();
    while let Some(message) = stream.next_message().unwrap() {
        messages.push(message);
    }
    stream.end().unwrap();
    messages
}

#[test]
fn every_request_of_the_recorded_client_is_understood() {
    let requests: Vec<Request> =
        recorded().iter().map(|body| Request::read(body.as_bytes()).unwrap()).collect();
    let session = requests[0].header.session_id.clone();
    for (index, request) in requests.iter().enumerate() {
        assert_eq!(request.header.resource_uri, "http://schemas.microsoft.com/powershell/Microsoft.Exchange");
        assert!(request.header.to.ends_with("/powershell?serializationLevel=Full;ExchClientVer=15.1.2507.6"));
        assert!(request.header.message_id.starts_with("uuid:"), "{index}");
        assert_eq!(request.header.session_id, session);
        assert_eq!(request.header.operation_timeout.unwrap().as_secs(), 20);
        assert_eq!(request.header.selector("ShellId").is_some(), index > 0);
    }
    let Operation::Create(shell) = &requests[0].operation else { panic!("{:?}", requests[0]) };
    assert_eq!(shell.input_streams, "stdin pr");
    assert_eq!(requests[0].header.option("protocolversion"), Some("2.3"));
    assert!(
        requests.iter().any(|r| matches!(r.operation, Operation::Signal { signal: Signal::Terminate, .. }))
    );
    assert!(matches!(requests.last().unwrap().operation, Operation::Delete));
}

#[test]
fn the_recorded_messages_are_understood_and_written_alike() {
    let mut reader = Reader::new();
    let mut seen = Vec::new();
    for body in recorded() {
        let operation = Request::read(body.as_bytes()).unwrap().operation;
        let bytes = match &operation {
            Operation::Create(shell) => shell.creation.clone().unwrap(),
            Operation::Command { .. } => operation.argument_bytes().unwrap(),
            _ => continue,
        };
        for message in messages(&bytes) {
            let text = String::from_utf8(message[40..].to_vec()).unwrap();
            seen.push((Envelope::read(&message, &mut reader).unwrap(), text));
        }
    }
    assert_eq!(seen.iter().map(|(_, text)| text.as_str()).collect::<Vec<_>>()[..3], recorded_values()[..3]);
    assert!(seen.iter().all(|(envelope, _)| envelope.destination == Destination::Server));
    assert_eq!(seen[0].0.message, Message::SessionCapability(Capability::default()));
    assert_eq!(seen[1].0.message, Message::InitRunspacePool { min: 1, max: 1 });
    let Message::CreatePipeline(pipeline) = &seen[2].0.message else { panic!("{:?}", seen[2]) };
    let cmdlet = pipeline.commands[0].cmdlet().unwrap();
    assert_eq!(cmdlet.name, "Get-MobileDevice");
    assert_eq!(cmdlet.parameter("ResultSize"), Some(&"Unlimited".into()));

    // Ours are the same texts but for what we leave out of a record and how the merges are ordered.
    let same = |text: &str| text.replace(" />", "/>");
    for (envelope, text) in &seen[..2] {
        let ours = envelope.write();
        assert_eq!(String::from_utf8_lossy(&ours[40..]), same(text));
    }
    let again = Envelope::read(&seen[2].0.write(), &mut reader).unwrap();
    assert_eq!(again, seen[2].0);
}

#[test]
fn our_envelopes_are_those_of_the_recorded_client() {
    for body in recorded() {
        let request = Request::read(body.as_bytes()).unwrap();
        // The client writes a space into empty elements, and declares the shell's prefix only where it is used.
        let mut theirs = body.replace(" />", "/>");
        let prefix = "xmlns:rsp=\"http://schemas.microsoft.com/wbem/wsman/1/windows/shell\" ";
        if !theirs.contains(prefix) {
            theirs = theirs.replacen("<s:Envelope ", &format!("<s:Envelope {prefix}"), 1);
        }
        assert_eq!(request.write(), theirs);
    }
}

/// What a third-party server's streams said, by whose stream it is.
fn replies() -> Vec<(&'static str, Vec<u8>)> {
    let text = include_str!("corpus/psrpcore-0.3.1-replies.txt");
    let decode = |line: &'static str| {
        let (stream, bytes) = line.split_once(' ').unwrap();
        (stream, decode_base64(bytes, "corpus").unwrap())
    };
    text.lines().map(decode).collect()
}

/// Plays the recorded streams; everything else is answered as it is asked.
struct Recorded {
    replies: VecDeque<(&'static str, Vec<u8>)>,
    signals: Vec<Signal>,
    /// What the client said to a running pipeline.
    sent: Vec<Message>,
}

impl Recorded {
    fn answer(&mut self, envelope: &str) -> String {
        let request = Request::read(envelope.as_bytes()).unwrap();
        let reply = match &request.operation {
            Operation::Create(shell) => {
                let shell_id = shell.shell_id.clone().unwrap();
                Reply::Created(Created { shell_id, ..Created::default() })
            }
            Operation::Command { command_id, .. } => {
                Reply::Commanded { command_id: command_id.clone().unwrap() }
            }
            Operation::Send { streams } => {
                let mut reader = Reader::new();
                for message in streams.iter().flat_map(|stream| messages(&stream.bytes)) {
                    self.sent.push(Envelope::read(&message, &mut reader).unwrap().message);
                }
                Reply::Sent
            }
            // The recording ends with a question of the server; what it does with an answer was not recorded.
            Operation::Receive { command_id: Some(command_id), .. } if self.replies.is_empty() => {
                let ended =
                    CommandState { command_id: Some(command_id.clone()), done: true, exit_code: None };
                Reply::Received { streams: Vec::new(), state: Some(ended) }
            }
            Operation::Receive { command_id, .. } => {
                let (stream, bytes) = self.replies.pop_front().unwrap();
                assert_eq!(stream == "pool", command_id.is_none());
                let stream = Stream { name: "stdout".to_owned(), command_id: command_id.clone(), bytes };
                Reply::Received { streams: vec![stream], state: None }
            }
            Operation::Signal { signal, .. } => {
                self.signals.push(signal.clone());
                Reply::Signalled
            }
            other => panic!("{other:?}"),
        };
        Response::to(&request, "uuid:ANSWER", reply).write()
    }

    /// The caller's loop, until there is nothing to do.
    fn pump(&mut self, session: &mut RemoteSession) -> Vec<Event> {
        let mut events = Vec::new();
        loop {
            while let Some(event) = session.next_event().unwrap() {
                events.push(event);
            }
            let Some(envelope) = session.next_request(Guid::NIL) else { return events };
            session.answer(self.answer(&envelope).as_bytes()).unwrap();
        }
    }
}

#[test]
fn every_answer_of_the_recorded_server_drives_our_session_to_its_end() {
    let mut server = Recorded { replies: replies().into(), signals: Vec::new(), sent: Vec::new() };
    let mut session = RemoteSession::new(SessionSettings {
        url: "http://ex1.contoso.example/powershell".to_owned(),
        configuration: "Microsoft.Exchange".to_owned(),
        session_id: Guid::NIL,
        pool_id: "11f915af-f175-48c7-96ce-1b965be34c78".parse().unwrap(),
    });
    let [Event::Opened(Some(capability))] = &server.pump(&mut session)[..] else { panic!("not opened") };
    assert_eq!(capability.protocol, (2, 3));

    let cmdlet = Cmdlet::new("Get-MobileDevice");
    session.run(&cmdlet, "13c07b91-215a-4f3a-bd22-40ffb3a52261".parse().unwrap()).unwrap();
    let events = server.pump(&mut session);
    let [Event::Object(first), Event::Object(second), Event::Object(text), Event::Completed(completed)] =
        &events[..]
    else {
        panic!("{events:?}")
    };
    assert_eq!(first, second);
    assert_eq!(first.types[0], "Microsoft.Exchange.Data.Directory.SystemConfiguration.MobileDevice");
    assert_eq!(first.text("FriendlyName").unwrap(), "Bob\u{2019}s iPhone \u{1f600} <&> _x0041_");
    assert_eq!(first.text("DeviceId").unwrap(), "iPhone\u{a7}Appl1");
    assert_eq!(first.get("Odd").unwrap().items().len(), 4);
    assert_eq!(text.content, Content::Primitive("text\r\n".into()));
    assert_eq!(completed.warnings, ["Micro delay applied. Actual delayed: 22000 msecs"]);
    assert_eq!(completed.failure, None);
    let [error] = &completed.errors[..] else { panic!("{completed:?}") };
    assert_eq!(error.message, "The operation couldn't be performed because object 'bob' couldn't be found.");
    assert_eq!(error.reason, "ManagementObjectNotFoundException");
    assert_eq!(error.failure_category(), Some("ManagementObjectNotFoundException"));
    assert_eq!((error.category, &*error.target), (13, "bob"));
    assert_eq!(server.signals, [Signal::Terminate]);

    session.run(&cmdlet, "00112233-4455-6677-8899-aabbccddeeff".parse().unwrap()).unwrap();
    let events = server.pump(&mut session);
    let [Event::Completed(completed)] = &events[..] else { panic!("{events:?}") };
    let [Message::PipelineHostResponse(refusal)] = &server.sent[..] else { panic!("{:?}", server.sent) };
    assert!(format!("{refusal:?}").contains("PromptForChoice"), "{refusal:?}");
    assert!(completed.failure.is_some(), "a pipeline that ends without saying how has not succeeded");
    assert_eq!(server.signals.last(), Some(&Signal::Terminate));
    assert!(server.replies.is_empty());
}

#[test]
fn names_and_arguments_cannot_smuggle_script() {
    for hostile in [
        "Get-MobileDevice; Remove-Mailbox bob",
        "$(Remove-Mailbox bob)",
        "x' ; Remove-Mailbox 'bob",
        "</S><B N=\"IsScript\">true</B><S>",
        "_x003C_/S_x003E_",
        "a\u{2028}b\u{0}c`n|%{iex $_}",
    ] {
        let cmdlet = Cmdlet::new(hostile).with("Identity", hostile).with(hostile, true);
        let envelope = Envelope {
            destination: Destination::Server,
            pool: Guid::NIL,
            pipeline: Guid::NIL,
            message: Message::CreatePipeline(Box::new(Pipeline::from(&cmdlet))),
        };
        let Message::CreatePipeline(read) =
            Envelope::read(&envelope.write(), &mut Reader::new()).unwrap().message
        else {
            panic!("{envelope:?}")
        };
        let [command] = &read.commands[..] else { panic!("{read:?}") };
        assert!(!command.is_script && read.more_statements.is_empty());
        assert_eq!(command.cmdlet(), Some(cmdlet));
    }
}

fn record() -> impl Strategy<Value = ErrorRecord> {
    let text = "[ -~§é\n]{0,20}";
    ("[ -~]{1,20}", "[A-Z][A-Za-z]{0,20}", text, any::<i32>(), text).prop_map(
        |(message, reason, fully_qualified_id, category, target)| ErrorRecord {
            message,
            reason,
            fully_qualified_id,
            category,
            target,
        },
    )
}

fn cmdlet() -> impl Strategy<Value = Cmdlet> {
    ("[A-Z][a-z]{1,8}-[A-Z][A-Za-z]{1,12}", vec(("[A-Z][A-Za-z]{0,12}", clixml::value()), 0..4))
        .prop_map(|(name, parameters)| Cmdlet { name, parameters })
}

fn message() -> impl Strategy<Value = Message> {
    let value = clixml::value;
    let call = || (any::<i64>(), any::<i32>(), "[A-Za-z]{1,12}", value());
    let host_call = move || {
        call().prop_map(|(call, method, name, parameters)| HostCall { call, method, name, parameters })
    };
    let error = || proptest::option::of(record());
    // Parts of a `System.Version` have a sign.
    let number = || 0..=i32::MAX.unsigned_abs();
    prop_oneof![
        (number(), number(), "[0-9]{1,4}\\.[0-9]{1,4}", "[0-9](\\.[0-9]){1,3}").prop_map(
            |(major, minor, powershell, serialization)| {
                Message::SessionCapability(Capability { protocol: (major, minor), powershell, serialization })
            }
        ),
        (any::<i32>(), any::<i32>()).prop_map(|(min, max)| Message::InitRunspacePool { min, max }),
        (any::<i32>(), any::<i64>())
            .prop_map(|(runspaces, call)| Message::SetMaxRunspaces { runspaces, call }),
        (any::<i32>(), any::<i64>())
            .prop_map(|(runspaces, call)| Message::SetMinRunspaces { runspaces, call }),
        any::<i64>().prop_map(|call| Message::GetAvailableRunspaces { call }),
        (any::<i64>(), value()).prop_map(|(call, response)| Message::RunspaceAvailability { call, response }),
        error().prop_map(|error| Message::PoolState { state: PoolState::Broken, error }),
        any::<i32>()
            .prop_filter("known", |n| !(0..10).contains(n))
            .prop_map(|n| Message::PoolState { state: PoolState::Unknown(n), error: None }),
        value().prop_map(Message::ApplicationPrivateData),
        cmdlet().prop_map(|cmdlet| Message::CreatePipeline(Box::new(Pipeline::from(&cmdlet)))),
        value().prop_map(Message::PipelineInput),
        Just(Message::EndOfPipelineInput),
        value().prop_map(Message::PipelineOutput),
        record().prop_map(Message::ErrorRecord),
        error().prop_map(|error| Message::PipelineState { state: PipelineState::Failed, error }),
        "[ -~\n]{0,20}".prop_map(Message::Warning),
        value().prop_map(Message::Progress),
        value().prop_map(Message::Information),
        host_call().prop_map(Message::PipelineHostCall),
        host_call().prop_map(Message::PoolHostCall),
        value().prop_map(|value| Message::Other(Kind(0x0001_0005), value)),
    ]
}

fn word() -> impl Strategy<Value = String> {
    "[ -~§é]{1,16}".prop_map(|word| word.trim().to_owned() + "x")
}

fn stream() -> impl Strategy<Value = Stream> {
    (word(), proptest::option::of(word()), vec(any::<u8>(), 0..60))
        .prop_map(|(name, command_id, bytes)| Stream { name, command_id, bytes })
}

fn operation() -> impl Strategy<Value = Operation> {
    let id = || proptest::option::of(word());
    prop_oneof![
        (id(), word(), word(), proptest::option::of(vec(any::<u8>(), 1..60))).prop_map(
            |(shell_id, input_streams, output_streams, creation)| Operation::Create(CreateShell {
                shell_id,
                input_streams,
                output_streams,
                creation,
                idle_timeout: Some(Duration::from_millis(7_200_500)),
            })
        ),
        (id(), word(), vec(word(), 0..3)).prop_map(|(command_id, command, arguments)| Operation::Command {
            command_id,
            command,
            arguments
        }),
        vec(stream(), 0..3).prop_map(|streams| Operation::Send { streams }),
        (id(), word()).prop_map(|(command_id, streams)| Operation::Receive { command_id, streams }),
        (id(), prop_oneof![Just(Signal::Terminate), Just(Signal::Stop), word().prop_map(Signal::Other)])
            .prop_map(|(command_id, signal)| Operation::Signal { command_id, signal }),
        Just(Operation::Delete),
        Just(Operation::Get),
        Just(Operation::Other { action: "urn:odd".to_owned() }),
    ]
}

fn reply() -> impl Strategy<Value = Reply> {
    let created = || {
        (word(), word(), word()).prop_map(|(shell_id, owner, idle_timeout)| Created {
            selectors: vec![("ShellId".to_owned(), shell_id.clone())],
            shell_id,
            owner,
            idle_timeout,
            ..Created::default()
        })
    };
    let state = (proptest::option::of(word()), any::<bool>(), proptest::option::of(any::<i32>()))
        .prop_map(|(command_id, done, exit_code)| CommandState { command_id, done, exit_code });
    let fault = (any::<bool>(), "[A-Z][A-Za-z]{0,12}", word(), any::<u32>(), word()).prop_map(
        |(sender, subcode, reason, code, detail)| Fault { sender, subcode, reason, code: Some(code), detail },
    );
    prop_oneof![
        created().prop_map(Reply::Created),
        created().prop_map(Reply::Got),
        word().prop_map(|command_id| Reply::Commanded { command_id }),
        Just(Reply::Sent),
        (vec(stream(), 0..4), proptest::option::of(state))
            .prop_map(|(streams, state)| Reply::Received { streams, state }),
        Just(Reply::Signalled),
        Just(Reply::Deleted),
        fault.prop_map(Reply::Fault),
    ]
}

proptest! {
    // Values are large; what they are made of has a test of its own.
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn messages_are_read_back_as_they_were_written(message in message(), mark in any::<bool>(), ids in any::<[[u8; 16]; 2]>()) {
        let envelope = Envelope {
            destination: Destination::Client,
            pool: Guid::from_bytes(ids[0]),
            pipeline: Guid::from_bytes(ids[1]),
            message,
        };
        let bytes = envelope.write_for((2, 3), mark);
        prop_assert_eq!(Envelope::read(&bytes, &mut Reader::new()), Ok(envelope));
    }

}

proptest! {
    #[test]
    fn requests_are_read_back_as_they_were_written(operation in operation(), words in vec(word(), 6)) {
        let request = Request {
            header: Header {
                to: words[0].clone(),
                resource_uri: words[1].clone(),
                message_id: words[2].clone(),
                session_id: Some(words[3].clone()),
                operation_timeout: Some(Duration::from_secs(20)),
                envelope_max_bytes: Some(153_600),
                options: vec![Opt { name: words[4].clone(), value: words[5].clone(), must_comply: true }],
                selectors: vec![("ShellId".to_owned(), words[5].clone())],
            },
            operation,
        };
        let envelope = request.write();
        prop_assert_eq!(Request::read(envelope.as_bytes()), Ok(request), "{}", envelope);
    }

    #[test]
    fn answers_are_read_back_as_they_were_written(reply in reply(), id in word()) {
        let action = match &reply {
            Reply::Fault(_) => "",
            Reply::Created(_) => action::CREATE,
            Reply::Got(_) => action::GET,
            Reply::Commanded { .. } => action::COMMAND,
            Reply::Sent => action::SEND,
            Reply::Received { .. } => action::RECEIVE,
            Reply::Signalled => action::SIGNAL,
            _ => action::DELETE,
        };
        let response = Response {
            message_id: "uuid:A".to_owned(),
            relates_to: Some(id.clone()),
            request_action: action.to_owned(),
            reply,
        };
        let envelope = response.write();
        prop_assert_eq!(Response::read(envelope.as_bytes(), &id), Ok(response), "{}", envelope);
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in vec(any::<u8>(), 0..400)) {
        let _ = Request::read(&bytes);
        let _ = Response::read(&bytes, "");
        let _ = Envelope::read(&bytes, &mut Reader::new());
    }

    /// Good envelopes, damaged.
    #[test]
    fn damaged_envelopes_never_panic(at in 0usize..3_000, with in "[<>/&'\"= a-zA-Z0-9]{0,6}", length in 0usize..40) {
        let mut bytes = recorded()[0].as_bytes().to_vec();
        let begin = at.min(bytes.len());
        let end = (begin + length).min(bytes.len());
        bytes.splice(begin..end, with.into_bytes());
        let _ = Request::read(&bytes);
        let _ = Response::read(&bytes, "");
    }
}
