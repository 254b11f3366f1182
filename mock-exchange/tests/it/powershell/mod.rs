//! The PowerShell front end as a client sees it, byte by byte where that matters. pypsrp and pywinrm judge it besides
//! (`tests/tests/strangers`).

mod client;
mod faults;

use std::time::Duration;

use causeway_mock_exchange::MockExchange;
use causeway_protocol::clixml::{Object, Value};
use causeway_protocol::cmdlet::Cmdlet;
use causeway_protocol::psrp::{Defragmenter, Guid, Message, PipelineState, PoolState};
use causeway_protocol::wsman::{FaultCode, Operation, POWERSHELL_CONFIGURATION, Reply, Response, Signal};

use client::{Client, start};

fn every_device() -> Cmdlet {
    Cmdlet::new("Get-MobileDevice").with("ResultSize", "Unlimited")
}

async fn opened(mock: &MockExchange) -> Client {
    let mut client = Client::connect(mock).await;
    assert_eq!(client.open().await, Ok(PoolState::Opened));
    client
}

#[tokio::test]
async fn a_session_from_its_first_message_to_its_last() {
    let mock = start(|_| {}).await;
    let mut client = opened(&mock).await;
    assert_ne!(client.shell.as_deref(), Some(client::POOL.upper().as_str()), "the server chooses the id");
    let ran = client.run(1, &every_device()).await.unwrap();
    assert_eq!((ran.state, ran.objects.len(), ran.errors.len()), (Some(PipelineState::Completed), 25, 0));
    let mut runspaces: Vec<_> = ran.objects.iter().map(|object| object.text("RunspaceId").unwrap()).collect();
    runspaces.dedup();
    assert_eq!(runspaces.len(), 1, "all objects of a session carry its runspace");
    assert_eq!(mock.shells(), 1);
    assert_eq!(client.ask(Operation::Delete).await, Ok(Reply::Deleted));
    assert_eq!(mock.shells(), 0);
    let gone = client.ask(Operation::Delete).await.unwrap_err();
    assert_eq!(gone.code, Some(FaultCode::SHELL_NOT_FOUND.0));
    assert!(gone.reason.contains("[FailureCategory=WSMan-InvalidShellID]"), "{}", gone.reason);
}

#[tokio::test]
async fn answers_keep_to_the_clients_envelope() {
    let mock = start(|config| config.partnerships = Some(120)).await;
    for envelope_max_bytes in [16_384, 153_600] {
        let mut client = Client::connect(&mock).await;
        client.envelope_max_bytes = envelope_max_bytes;
        client.open().await.unwrap();
        let command = client.begin(1, &every_device()).await.unwrap();
        let mut messages = Defragmenter::new();
        let (mut answers, mut objects) = (0, 0);
        loop {
            let operation =
                Operation::Receive { command_id: Some(command.clone()), streams: "stdout".to_owned() };
            let (id, http) = client.ask_http(operation).await.unwrap();
            assert!(http.body.len() <= envelope_max_bytes, "{} bytes", http.body.len());
            answers += 1;
            let Reply::Received { streams, state } = Response::read(&http.body, &id).unwrap().reply else {
                panic!()
            };
            for stream in streams {
                messages.push(&stream.bytes);
                while messages.next_message().unwrap().is_some() {
                    objects += 1;
                }
            }
            messages.end().unwrap_or_else(|_| panic!("an answer ends within a fragment"));
            if state.is_some() {
                break;
            }
        }
        assert_eq!(objects, 122, "120 devices and two states");
        assert!(answers > 1, "{answers} answers of {envelope_max_bytes} bytes");
        client.ask(Operation::Delete).await.unwrap();
    }
}

#[tokio::test]
async fn a_receive_that_is_sent_again_gets_the_same_data() {
    let mock = start(|_| {}).await;
    let mut client = opened(&mock).await;
    let command = client.begin(1, &every_device()).await.unwrap();
    let receive = || Operation::Receive { command_id: Some(command.clone()), streams: "stdout".to_owned() };
    client.message_id = Some("uuid:11111111-0000-0000-0000-000000000000".to_owned());
    let first = client.ask(receive()).await.unwrap();
    client.reconnect().await;
    assert_eq!(client.ask(receive()).await.unwrap(), first);
    let Reply::Received { streams, state } = first else { panic!() };
    assert!(!streams.is_empty() && state.is_some_and(|state| state.done));
}

#[tokio::test]
async fn an_empty_receive_ends_with_the_timeout_fault_on_the_mocks_clock() {
    let mock = start(|_| {}).await;
    let mut client = opened(&mock).await;
    client.timeout = Duration::from_secs(600);
    let receive = Operation::Receive { command_id: None, streams: "stdout".to_owned() };
    let before = mock.journal().last_seq();
    let clock = mock.clock().clone();
    let answered = tokio::spawn(async move { client.ask(receive).await });
    // The wait may begin before or after the first advance, so time goes on until it ends.
    let fault = loop {
        clock.advance(Duration::from_secs(300));
        tokio::task::yield_now().await;
        if mock.journal().last_seq() > before {
            break answered.await.unwrap().unwrap_err();
        }
    };
    assert_eq!((fault.code, fault.subcode.as_str()), (Some(FaultCode::OPERATION_TIMED_OUT.0), "TimedOut"));
    assert_eq!(mock.shells(), 1, "a shell somebody waits for is not idle");
}

#[tokio::test]
async fn an_unused_shell_is_deleted() {
    let mock = start(|_| {}).await;
    let mut client = opened(&mock).await;
    mock.clock().advance(Duration::from_secs(890));
    assert_eq!(client.run(1, &Cmdlet::new("Get-OrganizationConfig")).await.unwrap().objects.len(), 1);
    mock.clock().advance(Duration::from_secs(901));
    let fault = client.begin(2, &Cmdlet::new("Get-OrganizationConfig")).await.unwrap_err();
    assert_eq!(fault.code, Some(FaultCode::SHELL_NOT_FOUND.0));
    assert_eq!(mock.shells(), 0);
}

#[tokio::test]
async fn commands_that_nobody_terminates_use_up_the_quota() {
    let mock = start(|config| config.powershell.commands_per_shell_max = 2).await;
    let mut client = opened(&mock).await;
    let cmdlet = Cmdlet::new("Get-OrganizationConfig");
    for number in 1..=2 {
        let command = client.begin(number, &cmdlet).await.unwrap();
        client.finish(&command).await.unwrap();
    }
    let fault = client.begin(3, &cmdlet).await.unwrap_err();
    assert!(fault.code.is_none() && fault.subcode == "InternalError", "{fault:?}");
    assert!(fault.reason.contains("maximum number of concurrent commands per shell"), "{}", fault.reason);
    client.signal(&Guid::from_bytes([1; 16]).upper(), Signal::Terminate).await.unwrap();
    client.run(3, &cmdlet).await.unwrap();
    let unknown = client.signal(&Guid::from_bytes([1; 16]).upper(), Signal::Terminate).await.unwrap_err();
    assert_eq!(unknown.subcode, "InvalidParameter", "{unknown:?}");
}

#[tokio::test]
async fn more_pools_than_the_policy_allows_are_refused() {
    for (personality, words) in [
        ("exchange2019", "for the policy party : MaxConcurrency"),
        ("exchange2010", "a maximum number of 1 concurrent shells"),
    ] {
        let mock = start(|config| {
            config.personality = personality.to_owned();
            config.throttling.max_concurrency = 1;
        })
        .await;
        let mut first = opened(&mock).await;
        let mut second = Client::connect(&mock).await;
        let fault = second.open().await.unwrap_err();
        assert!(fault.is_load() && fault.reason.contains(words), "{personality}: {fault:?}");
        first.ask(Operation::Delete).await.unwrap();
        assert_eq!(second.open().await, Ok(PoolState::Opened), "{personality}");
    }
}

#[tokio::test]
async fn one_runspace_runs_one_pipeline_after_the_other() {
    let mock = start(|config| config.partnerships = Some(200)).await;
    let mut client = opened(&mock).await;
    client.envelope_max_bytes = 16_384;
    let first = client.begin(1, &every_device()).await.unwrap();
    let second = client.begin(2, &Cmdlet::new("Get-OrganizationConfig")).await.unwrap();
    client.timeout = Duration::ZERO;
    let waiting = client.finish(&second).await.unwrap_err();
    assert!(waiting.is_timeout(), "{waiting:?}");
    assert_eq!(client.finish(&first).await.unwrap().objects.len(), 200);
    client.timeout = Duration::from_secs(20);
    assert_eq!(client.finish(&second).await.unwrap().objects.len(), 1);
}

#[tokio::test]
async fn a_stopped_pipeline_says_so_by_every_spelling() {
    let mock = start(|config| config.partnerships = Some(200)).await;
    let mut client = opened(&mock).await;
    for (number, code) in [
        (1, "powershell/signal/ctrl_c"),
        (2, "powershell/signal/crtl_c"),
        (3, "http://schemas.microsoft.com/powershell/signal/crtl_c"),
        (4, "http://schemas.microsoft.com/wbem/wsman/1/windows/shell/signal/ctrl_c"),
    ] {
        let command = client.begin(number, &every_device()).await.unwrap();
        client.signal(&command, Signal::Other(code.to_owned())).await.unwrap();
        let ran = client.finish(&command).await.unwrap();
        assert_eq!(ran.state, Some(PipelineState::Stopped), "{code}");
        assert_eq!(ran.failure.unwrap().reason, "PipelineStoppedException", "{code}");
        client.signal(&command, Signal::Terminate).await.unwrap();
    }
    let command = client.begin(5, &every_device()).await.unwrap();
    let fault = client.signal(&command, Signal::Other("powershell/signal/up".to_owned())).await.unwrap_err();
    assert_eq!(fault.subcode, "InvalidParameter");
}

/// What a client with a host answers, and what is left then.
#[tokio::test]
async fn a_host_is_asked_before_something_is_removed() {
    let mock = start(|_| {}).await;
    let mut client = Client::connect(&mock).await;
    client.host = true;
    client.open().await.unwrap();
    let devices = client.run(1, &every_device()).await.unwrap().objects;
    let identity = devices[0].text("Guid").unwrap().into_owned();
    // By their places: 2 is No, 0 is Yes.
    for (number, choice, left) in [(2, 2, 25), (3, 0, 24)] {
        let remove = Cmdlet::new("Remove-MobileDevice").with("Identity", identity.as_str());
        let command = client.begin(number, &remove).await.unwrap();
        let mut messages = Defragmenter::new();
        let (envelopes, done) = client.receive(Some(&command), &mut messages).await.unwrap();
        let call = envelopes.into_iter().find_map(|envelope| match envelope.message {
            Message::PipelineHostCall(call) => Some(call),
            _ => None,
        });
        let call = call.expect("the server asks");
        assert_eq!((call.method, call.name.as_str(), done), (26, "PromptForChoice", false));
        let answer = Object {
            extended: vec![
                ("ci".into(), Value::I64(call.call)),
                ("mi".into(), Value::I32(26)),
                ("mr".into(), Value::I32(choice)),
            ],
            ..Object::default()
        };
        let answer = Message::PipelineHostResponse(Value::Object(Box::new(answer)));
        // pypsrp answers on the pool's stream, Windows on the pipeline's.
        let to = (number == 2).then_some(command.as_str());
        client.send("pr", to, Guid::from_bytes([number; 16]), answer).await;
        let ran = client.finish(&command).await.unwrap();
        assert_eq!((ran.state, ran.errors.len()), (Some(PipelineState::Completed), 0), "{ran:?}");
        client.signal(&command, Signal::Terminate).await.unwrap();
        assert_eq!(client.run(10 + number, &every_device()).await.unwrap().objects.len(), left);
    }
}

#[tokio::test]
async fn a_shell_belongs_to_who_opened_it() {
    let mock = start(|config| {
        config.accounts.push(causeway_mock_exchange::config::AccountConfig {
            login: "helpdesk".to_owned(),
            password: "Helpdesk-1".to_owned(),
            roles: vec!["View-Only Organization Management".to_owned()],
        });
        config.accounts.push(causeway_mock_exchange::config::AccountConfig {
            login: "nobody".to_owned(),
            password: "Nobody-1".to_owned(),
            roles: Vec::new(),
        });
    })
    .await;
    let client = opened(&mock).await;
    let mut other = Client::connect_as(&mock, "ACME\\helpdesk", "Helpdesk-1").await;
    other.shell.clone_from(&client.shell);
    let fault = other.ask(Operation::Delete).await.unwrap_err();
    assert_eq!((fault.code, fault.subcode.as_str()), (Some(5), "AccessDenied"));
    other.shell = None;
    other.open().await.unwrap();
    let ran = other.run(1, &Cmdlet::new("Set-CASMailbox").with("Identity", "x")).await.unwrap();
    assert_eq!(
        ran.failure.unwrap().reason,
        "CommandNotFoundException",
        "what a role does not grant does not exist"
    );
    let mut nobody = Client::connect_as(&mock, "ACME\\nobody", "Nobody-1").await;
    let fault = nobody.open().await.unwrap_err();
    assert!(fault.reason.contains("isn't assigned to any management roles"), "{}", fault.reason);
}

#[tokio::test]
async fn a_shell_is_found_only_with_its_cookie() {
    let mock = start(|config| config.powershell.affinity_cookie = true).await;
    let mut client = opened(&mock).await;
    let cookie = client.cookie.take();
    let fault = client.begin(1, &every_device()).await.unwrap_err();
    assert_eq!(fault.code, Some(FaultCode::SHELL_NOT_FOUND.0));
    client.cookie = cookie.map(|cookie| format!("theme=dark; {cookie}"));
    assert_eq!(client.run(1, &every_device()).await.unwrap().objects.len(), 25);
}

#[tokio::test]
async fn exchange_2007_needs_its_snap_in_and_an_ordinary_session() {
    let mock = start(|config| config.personality = "exchange2007".to_owned()).await;
    let mut client = Client::connect(&mock).await;
    assert_eq!(client.open().await.unwrap_err().code, Some(2_150_858_811), "no Microsoft.Exchange there");
    client.configuration = POWERSHELL_CONFIGURATION.to_owned();
    client.open().await.unwrap();
    let statistics = Cmdlet::new("Get-CASMailbox");
    let ran = client.run(1, &statistics).await.unwrap();
    assert_eq!(ran.failure.unwrap().reason, "CommandNotFoundException");
    let snap_in = |name: &str| Cmdlet::new("Add-PSSnapin").with("Name", name);
    let ran = client.run(2, &snap_in("Some.Other")).await.unwrap();
    assert_eq!(ran.failure.unwrap().reason, "PSArgumentException");
    let ran = client.run(3, &snap_in("Microsoft.Exchange.Management.PowerShell.Admin")).await.unwrap();
    assert_eq!(ran.state, Some(PipelineState::Completed), "{ran:?}");
    let ran = client.run(4, &statistics).await.unwrap();
    assert_eq!((ran.state, ran.objects.is_empty()), (Some(PipelineState::Completed), false), "{ran:?}");
}

#[tokio::test]
async fn paths_methods_and_envelopes_that_are_none() {
    let mock = start(|_| {}).await;
    let mut client = Client::connect(&mock).await;
    for (path, status) in [
        ("/wsman", 404),
        ("/", 404),
        ("/powershell/x", 404),
        ("/POWERSHELL", 200),
        ("/PowerShell/?serializationLevel=Full;ExchClientVer=15.2.1544.4", 200),
    ] {
        client.path = path.to_owned();
        let request = client.request(Operation::Identify);
        let http = client.post(request.write().as_bytes()).await.unwrap();
        assert_eq!(http.status, status, "{path}");
    }
    for (body, subcode) in [
        ("", None),
        ("not xml", Some("SchemaValidationError")),
        ("<a xmlns=\"b\"/>", Some("SchemaValidationError")),
        ("<!DOCTYPE a><a/>", Some("SchemaValidationError")),
    ] {
        let http = client.post(body.as_bytes()).await.unwrap();
        match subcode {
            None => assert_eq!((http.status, http.body.len()), (200, 0), "an empty body only signs in"),
            Some(subcode) => {
                let Reply::Fault(fault) = Response::read(&http.body, "").unwrap().reply else { panic!() };
                assert_eq!((http.status, fault.subcode.as_str()), (500, subcode), "{body}");
            }
        }
    }
    let mut unknown = client.request(Operation::Create(Default::default())).write();
    unknown = unknown
        .replace("<s:Body>", "<s:Body><!-- -->")
        .replace("</s:Header>", "<x:New xmlns:x=\"urn:x\" s:mustUnderstand=\"true\"/></s:Header>");
    let http = client.post(unknown.as_bytes()).await.unwrap();
    assert!(String::from_utf8_lossy(&http.body).contains("header New must be understood"), "{http:?}");
    let other = Operation::Other {
        action: "http://schemas.microsoft.com/wbem/wsman/1/windows/shell/Disconnect".to_owned(),
    };
    client.open().await.unwrap();
    let fault = client.ask(other).await.unwrap_err();
    assert_eq!(fault.subcode, "ActionNotSupported");
}

#[tokio::test]
async fn who_is_not_let_in_is_told_how_to_sign_in() {
    let mock = start(|config| config.powershell.basic_over_http = false).await;
    let mut client = Client::connect(&mock).await;
    let request = client.request(Operation::Identify).write();
    let http = client.post(request.as_bytes()).await.unwrap();
    let offers: Vec<_> = http
        .headers
        .iter()
        .filter(|(name, _)| name.eq_ignore_ascii_case("www-authenticate"))
        .map(|(_, value)| value.as_str())
        .collect();
    assert_eq!((http.status, offers.as_slice()), (401, &["Negotiate", "NTLM"][..]), "no Basic without TLS");
    client.more_headers = "WSMANIDENTIFY: unauthenticated\r\n".to_owned();
    let http = client.post(request.as_bytes()).await.unwrap();
    let Reply::Identified(identity) = Response::read(&http.body, "").unwrap().reply else { panic!() };
    assert_eq!(
        (identity.vendor.as_str(), identity.version.starts_with("OS: 0.0.0")),
        ("Microsoft Corporation", true)
    );
}
