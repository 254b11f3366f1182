//! PowerShell remoting and WSMan from outside: what a third-party client sends is understood to the last property.

use causeway_protocol::clixml::Reader;
use causeway_protocol::psrp::{Capability, Defragmenter, Destination, Envelope, Message};
use causeway_protocol::wsman::{Operation, Request, Signal};

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
