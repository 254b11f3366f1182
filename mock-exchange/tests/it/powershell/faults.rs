//! Every word of the README's table does what it says there.

use causeway_mock_kit::fault::{Fault as Rule_, Rule};
use causeway_protocol::clixml;
use causeway_protocol::psrp::{Defragmenter, Envelope, FragmentError, Message, PipelineState, PoolState};
use causeway_protocol::wsman::{FaultCode, Operation, Reply, Response, SoapError};
use serde_json::{Value, json};

use super::client::{Client, start};
use super::{every_device, opened};

fn word(word: &str, args: Value) -> Rule {
    Rule::new(Rule_::Custom { word: word.to_owned(), args })
}

fn malformed(kind: &str) -> Rule {
    Rule::new(Rule_::Malformed { kind: kind.to_owned() })
}

fn receive(command: &str) -> Operation {
    Operation::Receive { command_id: Some(command.to_owned()), streams: "stdout".to_owned() }
}

#[tokio::test]
async fn statuses_become_faults_or_http() {
    let mock = start(|_| {}).await;
    let mut client = opened(&mock).await;
    let command = client.begin(1, &every_device()).await.unwrap();
    for (code, expected) in [
        ("timeout", Some(FaultCode::OPERATION_TIMED_OUT.0)),
        ("shell_not_found", Some(FaultCode::SHELL_NOT_FOUND.0)),
        ("access_denied", Some(5)),
        ("quota", None),
        ("without_detail", None),
        ("2150859046", Some(2_150_859_046)),
        ("no such word", None),
    ] {
        let rule = Rule::new(Rule_::status(code, "words"))
            .on_operation("receive")
            .on_subject("Get-MobileDevice")
            .times(1);
        let guard = mock.faults().guard(rule);
        let fault = client.ask(receive(&command)).await.unwrap_err();
        assert_eq!((fault.code, guard.hits()), (expected, 1), "{code}: {fault:?}");
    }
    for (code, header, value) in
        [(503, "retry-after", "7"), (302, "location", "https://mail2.acme.example/powershell"), (401, "", "")]
    {
        let _guard = mock.faults().guard(Rule::new(Rule_::status(code, value)).times(1));
        let (_, http) = client.ask_http(receive(&command)).await.unwrap();
        assert_eq!((u32::from(http.status), http.header(header).unwrap_or_default()), (code, value));
    }
    assert_eq!(client.finish(&command).await.unwrap().objects.len(), 25, "nothing was lost meanwhile");
}

#[tokio::test]
async fn faults_at_the_door_come_before_authentication() {
    let mock = start(|_| {}).await;
    let mut client = Client::connect(&mock).await;
    client.authorization = "Basic bm9ib2R5Og==".to_owned();
    let identify = client.request(Operation::Identify).write();
    let there = "https://mail2.acme.example/powershell";
    for (rule, status, header, value) in [
        (Rule::new(Rule_::status(302, there)), 302, "location", there),
        (Rule::new(Rule_::status(503, "3")), 503, "retry-after", "3"),
        (word("kerberos_header", Value::Null), 401, "www-authenticate", "Kerberos"),
    ] {
        let _guard = mock.faults().guard(rule.on_operation("authenticate"));
        let http = client.post(identify.as_bytes()).await.unwrap();
        assert_eq!((http.status, http.header(header)), (status, Some(value)));
    }
    let _guard = mock.faults().guard(Rule::new(Rule_::Close {}).on_operation("authenticate"));
    assert!(client.post(identify.as_bytes()).await.is_err());
}

#[tokio::test]
async fn a_cut_answer_can_be_asked_for_again() {
    let mock = start(|_| {}).await;
    let mut client = opened(&mock).await;
    let command = client.begin(1, &every_device()).await.unwrap();
    client.message_id = Some("uuid:22222222-0000-0000-0000-000000000000".to_owned());
    {
        let _guard = mock.faults().guard(word("drop_after_fragments", json!({ "fragments": 3 })));
        let error = client.ask_http(receive(&command)).await.unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::UnexpectedEof);
    }
    client.reconnect().await;
    assert_eq!(client.finish(&command).await.unwrap().objects.len(), 25);
}

#[tokio::test]
async fn fragments_in_pieces_are_the_same_messages() {
    let mock = start(|_| {}).await;
    // Smaller ones make more elements of one envelope than our own client takes (`XML_PARTS_MAX`).
    for bytes in [3, 7, 20, 21, 1_000] {
        let mut client = opened(&mock).await;
        client.envelope_max_bytes = 16_384;
        let _guard =
            mock.faults().guard(word("split_fragments", json!({ "bytes": bytes })).on_operation("receive"));
        let ran = client.run(1, &every_device()).await.unwrap();
        assert_eq!((ran.objects.len(), ran.state), (25, Some(PipelineState::Completed)), "pieces of {bytes}");
    }
}

#[tokio::test]
async fn byte_order_marks_come_and_go() {
    const MARK: &[u8] = b"\xef\xbb\xbf";
    for (configured, rule, expected) in
        [(true, None, true), (true, Some(false), false), (false, None, false), (false, Some(true), true)]
    {
        let mock = start(|config| config.powershell.byte_order_mark = configured).await;
        let mut client = opened(&mock).await;
        let _guard = rule.map(|on| mock.faults().guard(word("byte_order_mark", json!({ "on": on }))));
        let command = client.begin(1, &every_device()).await.unwrap();
        let Ok(Reply::Received { streams, .. }) = client.ask(receive(&command)).await else { panic!() };
        let mut messages = Defragmenter::new();
        messages.push(&streams[0].bytes);
        let message = messages.next_message().unwrap().unwrap();
        assert_eq!(&message[40..43] == MARK, expected, "configured {configured}, rule {rule:?}");
    }
}

#[tokio::test]
async fn compressed_answers_are_gzip() {
    let mock = start(|config| config.powershell.gzip = true).await;
    let mut client = opened(&mock).await;
    client.more_headers = "Accept-Encoding: br, gzip;q=0.5\r\n".to_owned();
    let request = client.request(Operation::Identify).write();
    let http = client.post(request.as_bytes()).await.unwrap();
    assert_eq!(http.header("content-encoding"), Some("gzip"));
    assert_eq!(&http.body[..3], [0x1f, 0x8b, 8]);
    // Ten bytes of header, five of the only block; the envelope follows as it is.
    let text = String::from_utf8_lossy(&http.body[15..]);
    assert!(text.starts_with("<s:Envelope"), "{text}");
    client.more_headers = "Accept-Encoding: identity\r\n".to_owned();
    let http = client.post(request.as_bytes()).await.unwrap();
    assert_eq!(http.header("content-encoding"), None);
}

#[tokio::test]
async fn answers_that_are_none() {
    let mock = start(|_| {}).await;
    let mut client = opened(&mock).await;
    let command = client.begin(1, &every_device()).await.unwrap();
    let mut seen = Vec::new();
    for kind in ["missing_relates_to", "wrong_relates_to", "truncated", "html", "doctype"] {
        let _guard = mock.faults().guard(malformed(kind).times(1));
        let error = client.try_ask(receive(&command)).await.map(drop).unwrap_err();
        seen.push(match error {
            SoapError::RelatesTo { .. } => "relates to",
            SoapError::Xml(_) => "xml",
            SoapError::Foreign { .. } => "foreign",
            other => panic!("{kind}: {other}"),
        });
    }
    assert_eq!(seen, ["relates to", "relates to", "xml", "foreign", "xml"]);
    let _guard = mock.faults().guard(malformed("wrong_action").times(1));
    let (id, http) = client.ask_http(Operation::Get).await.unwrap();
    assert!(Response::read(&http.body, &id).unwrap().request_action.ends_with("/Put"));
}

#[tokio::test]
async fn fragments_no_server_may_send() {
    for (kind, expected) in [
        ("huge_fragment", Some(FragmentError::TooLong { bytes: u32::MAX })),
        ("fragment_twice", Some(FragmentError::Repeated { object: 4 })),
        ("bad_base64", None),
        ("deep_clixml", None),
        ("reference_bomb", None),
        ("clixml_doctype", None),
    ] {
        let mock = start(|_| {}).await;
        let mut client = opened(&mock).await;
        let command = client.begin(1, &every_device()).await.unwrap();
        let _guard = mock.faults().guard(malformed(kind));
        let (id, http) = client.ask_http(receive(&command)).await.unwrap();
        let streams = match Response::read(&http.body, &id).map(|response| response.reply) {
            Ok(Reply::Received { streams, .. }) => streams,
            Err(SoapError::Missing { element: "Stream" }) if kind == "bad_base64" => continue,
            other => panic!("{kind}: {other:?}"),
        };
        let mut messages = Defragmenter::new();
        let bytes: Vec<u8> = streams.into_iter().flat_map(|stream| stream.bytes).collect();
        messages.push(&bytes);
        let mut reader = clixml::Reader::new();
        let mut refused = None;
        let wrong = loop {
            match messages.next_message() {
                Ok(Some(message)) => refused = refused.or(Envelope::read(&message, &mut reader).err()),
                Ok(None) => break None,
                Err(error) => break Some(error),
            }
        };
        assert_eq!(wrong, expected, "{kind}");
        assert_eq!(refused.is_some(), expected.is_none(), "{kind}: {refused:?}");
    }
}

#[tokio::test]
async fn pools_that_are_refused_or_break() {
    let mock = start(|_| {}).await;
    let mut client = Client::connect(&mock).await;
    {
        let rule = word("refuse_runspace", json!({ "allowed": 3 }))
            .on_operation("create")
            .on_subject("svc-causeway");
        let _guard = mock.faults().guard(rule);
        let fault = client.open().await.unwrap_err();
        assert!(
            fault.is_load() && fault.reason.contains("allowed : 3 for the policy party : MaxConcurrency"),
            "{fault:?}"
        );
    }
    client.open().await.unwrap();
    let command = client.begin(1, &every_device()).await.unwrap();
    let guard = mock.faults().guard(word("broken_pool", Value::Null).on_operation("receive"));
    let ran = client.finish(&command).await.unwrap();
    assert_eq!((ran.state, ran.objects.len()), (Some(PipelineState::Failed), 0));
    drop(guard);
    let mut messages = Defragmenter::new();
    let (envelopes, _) = client.receive(None, &mut messages).await.unwrap();
    assert!(
        matches!(envelopes[0].message, Message::PoolState { state: PoolState::Broken, .. }),
        "{envelopes:?}"
    );
    assert!(client.begin(2, &every_device()).await.is_err());
    let mut second = Client::connect(&mock).await;
    let _guard = mock.faults().guard(word("broken_pool", Value::Null).on_operation("create"));
    assert_eq!(second.open().await, Ok(PoolState::Broken));
}

#[tokio::test]
async fn a_pipeline_may_succeed_in_part_or_be_slowed() {
    let mock = start(|_| {}).await;
    let mut client = opened(&mock).await;
    {
        let rule =
            word("partial_success", json!({ "reason": "ADTransientException", "message": "dc2 is down" }));
        let _guard = mock.faults().guard(rule.on_subject("Get-MobileDevice"));
        let ran = client.run(1, &every_device()).await.unwrap();
        assert_eq!((ran.state, ran.objects.len()), (Some(PipelineState::Completed), 25));
        assert_eq!(ran.errors[0].failure_category(), Some("ADTransientException"));
        assert_eq!(ran.errors[0].message, "dc2 is down");
    }
    let _guard = mock.faults().guard(word("micro_delay", json!({ "ms": 50 })).on_operation("receive"));
    let started = mock.clock().now_ms();
    let ran = client.run(2, &every_device()).await.unwrap();
    assert!(
        ran.warnings[0].starts_with("Micro delay applied. Actual delayed: 50 msecs"),
        "{:?}",
        ran.warnings
    );
    assert_eq!(ran.objects.len(), 25);
    assert!(mock.clock().now_ms() - started >= 50);
}

#[tokio::test]
async fn a_lost_server_forgets_its_shells() {
    let mock = start(|_| {}).await;
    let mut client = opened(&mock).await;
    client.envelope_max_bytes = 16_384;
    let command = client.begin(1, &every_device()).await.unwrap();
    let _guard = mock.faults().guard(word("lose_server", json!({ "objects": 10 })).on_operation("receive"));
    let mut answers = 0;
    while client.ask_http(receive(&command)).await.is_ok() {
        answers += 1;
        assert!(answers < 25, "the server does not die");
    }
    assert!(answers > 0, "the first objects still came");
    client.reconnect().await;
    let fault = client.begin(2, &every_device()).await.unwrap_err();
    assert_eq!(fault.code, Some(FaultCode::SHELL_NOT_FOUND.0));
}

#[tokio::test]
async fn a_host_call_nobody_expects() {
    let mock = start(|_| {}).await;
    let mut client = opened(&mock).await;
    let _guard =
        mock.faults().guard(word("host_call", json!({ "method": "WriteLine2" })).on_operation("receive"));
    let ran = client.run(1, &every_device()).await.unwrap();
    assert_eq!(ran.host_calls, ["WriteLine2"]);
}
