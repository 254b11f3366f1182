//! Failures that can be ordered.

use causeway_mock_kit::fault::{Fault, Rule};
use serde_json::json;

use super::{Raw, folder_sync, mock, root, status};

#[tokio::test]
async fn busy_moved_throttled_closed() {
    let mock = mock().await;
    let mut phone = Raw::new(&mock, "FAULT1", "16.1");
    phone.provision().await;
    let rule = |fault| Rule::new(fault).on_front("activesync").on_operation("FolderSync").times(1);
    let faults = mock.faults();

    faults.add(rule(Fault::status(503, "17")));
    let busy = phone.post("FolderSync", &folder_sync("0")).await;
    assert_eq!((busy.status, busy.header("Retry-After")), (503, Some("17")));

    faults.add(rule(Fault::Custom { word: "throttled".to_owned(), args: json!({ "retry_after_secs": 5 }) }));
    let throttled = phone.post("FolderSync", &folder_sync("0")).await;
    assert_eq!((throttled.status, throttled.header("Retry-After")), (503, Some("5")));
    assert!(throttled.header("X-MS-ASThrottle").is_some());

    faults.add(rule(Fault::status(451, "https://other.example/Microsoft-Server-ActiveSync")));
    let moved = phone.post("FolderSync", &folder_sync("0")).await;
    assert_eq!(moved.header("X-MS-Location"), Some("https://other.example/Microsoft-Server-ActiveSync"));

    faults.add(rule(Fault::status(111, "")));
    assert_eq!(phone.folder_sync().await, (200, Some(111)));

    faults.add(rule(Fault::Close {}));
    let body = causeway_protocol::wbxml::encode(&folder_sync("0")).unwrap();
    assert!(phone.send("FolderSync", body).await.is_err());
    assert_eq!(phone.folder_sync().await, (200, Some(1)));
}

#[tokio::test]
async fn answers_that_are_broken() {
    let mock = mock().await;
    let mut phone = Raw::new(&mock, "FAULT2", "16.1");
    phone.provision().await;
    for kind in ["cut", "unbalanced", "unknown_page", "endless_opaque", "deep", "html"] {
        let fault = Fault::Malformed { kind: kind.to_owned() };
        let _rule = mock.faults().guard(Rule::new(fault).on_front("activesync").on_operation("FolderSync"));
        let answer = phone.post("FolderSync", &folder_sync("0")).await;
        let read =
            causeway_protocol::wbxml::decode(&answer.body, &causeway_protocol::wbxml::Limits::default());
        assert!(answer.status == 200 && read.is_err(), "{kind}: {read:?}");
    }
    let whole = root(&phone.post("FolderSync", &folder_sync("0")).await);
    assert_eq!(status(&whole), Some(1));
}
