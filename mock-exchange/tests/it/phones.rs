//! Simulated phones against the front end they are made for.

use std::time::Duration;

use causeway_mock_exchange::MockExchange;
use causeway_mock_exchange::config::DefaultAccess;
use causeway_mock_exchange::phone::http::{Answer, Http, Target};
use causeway_mock_exchange::phone::{NewPhone, Phone, PhoneModel, Standing};
use causeway_mock_exchange::world::{PolicyValue, WipeKind};
use causeway_mock_kit::fault::{Fault, Rule};
use causeway_protocol::Secret;
use http::Request;
use http_body_util::Full;
use serde_json::{Value, json};

use crate::activesync::{USER, cas, default_access, mailbox, mock, mock_with, partnership, policy};

const WITHIN: Duration = Duration::from_secs(20);

async fn connect(mock: &MockExchange, device_id: &str) -> Phone {
    let new = NewPhone { device_id: Some(device_id.to_owned()), ..NewPhone::of(USER) };
    mock.phones().connect(new).await.unwrap().1
}

fn allow(mock: &MockExchange, device_id: &str) {
    cas(mock, |cas| {
        cas.blocked.clear();
        cas.allowed.push(device_id.into());
    });
}

fn block(mock: &MockExchange, device_id: &str) {
    cas(mock, |cas| {
        cas.allowed.clear();
        cas.blocked.push(device_id.into());
    });
}

#[tokio::test]
async fn held_let_in_blocked_let_in_again() {
    let mock = mock_with(|config| config.default_access = DefaultAccess::Quarantine).await;
    let phone = connect(&mock, "STORY1").await;
    let view = phone.view();
    assert_eq!((view.standing, view.folders.len(), view.messages), (Standing::Held, 1, 1), "{view:?}");
    assert_eq!(view.protocol.as_deref(), Some("16.1"));
    assert!(view.provisioned, "a held phone is provisioned all the same");
    allow(&mock, "STORY1");
    assert_eq!(phone.visit().await, Standing::Synced);
    let view = phone.view();
    assert_eq!((view.folders.len(), view.messages), (8, 3), "the notice is gone: {view:?}");
    block(&mock, "STORY1");
    assert_eq!(phone.visit().await, Standing::Blocked);
    assert_eq!(phone.view().messages, 3, "what it has it keeps");
    allow(&mock, "STORY1");
    mock.world().deliver(mailbox(&mock), "bjones@acme.example", "Later", "text").unwrap();
    assert_eq!(phone.visit().await, Standing::Synced);
    assert_eq!(phone.view().latest[0].subject, "Later");
}

#[tokio::test]
async fn every_version_and_both_forms_of_query() {
    let mock = mock().await;
    for (number, protocol) in ["2.5", "12.0", "12.1", "14.0", "14.1", "16.0", "16.1"].into_iter().enumerate()
    {
        for base64_query in [true, false] {
            let details = PhoneModel { protocol: protocol.to_owned(), base64_query, ..PhoneModel::default() };
            let id = format!("FORM{number}{base64_query}");
            let new = NewPhone { device_id: Some(id), details: Some(details), ..NewPhone::of(USER) };
            let (_, phone) = mock.phones().connect(new).await.unwrap();
            let view = phone.view();
            assert_eq!(view.standing, Standing::Synced, "{protocol} {:#?}", view.log);
            assert_eq!((view.protocol.as_deref(), view.messages), (Some(protocol), 3));
        }
    }
}

#[tokio::test]
async fn a_wiped_phone_is_empty_and_silent() {
    for (kind, standing, status) in [
        (WipeKind::Full, Standing::Wiped, "DeviceWipeSucceeded"),
        (WipeKind::AccountOnly, Standing::AccountWiped, "AccountOnlyDeviceWipeSucceeded"),
    ] {
        let mock = mock().await;
        let phone = connect(&mock, "WIPE1").await;
        assert_eq!(phone.standing(), Standing::Synced);
        let id = partnership(&mock, "WIPE1");
        mock.world().write(None, |writer| writer.request_wipe(id, kind));
        assert_eq!(phone.visit().await, standing);
        let view = phone.view();
        assert_eq!((view.messages, view.folders.len(), view.provisioned), (0, 0, false));
        let stands = || mock.world().read(None, |reader| reader.device(id).map(|it| it.contact.status()));
        assert_eq!(stands(), Some(status));
        let asked = mock.journal().last_seq();
        assert_eq!(phone.visit().await, standing);
        assert_eq!(mock.journal().last_seq(), asked, "an empty phone asks nothing");
        // Its owner sets it up again; the server lets it in once the old partnership is removed.
        phone.set_up_again();
        assert_eq!(phone.visit().await, Standing::Blocked);
        mock.world().write(None, |writer| writer.remove_device(id));
        assert_eq!(phone.visit().await, Standing::Synced);
    }
}

#[tokio::test]
async fn a_confirmation_lost_on_the_way() {
    let mock = mock().await;
    let phone = connect(&mock, "WIPE2").await;
    let id = partnership(&mock, "WIPE2");
    mock.world().write(None, |writer| writer.request_wipe(id, WipeKind::Full));
    let fault = Fault::Custom { word: "wipe_ack_lost".to_owned(), args: Value::Null };
    let _lost = mock.faults().guard(Rule::new(fault).on_front("activesync"));
    assert_eq!(phone.visit().await, Standing::Wiped, "the phone is empty");
    let pending = mock.world().read(None, |reader| reader.device(id).map(|it| it.contact.status()));
    assert_eq!(pending, Some("DeviceWipePending"), "and nobody knows");
    assert!(phone.view().log.iter().any(|event| event.what == "wipe not confirmed"));
}

#[tokio::test]
async fn a_changed_policy_reaches_the_phone() {
    let mock = mock().await;
    let phone = connect(&mock, "POLICY1").await;
    assert_eq!(phone.view().policy["DevicePasswordEnabled"], "0");
    policy(&mock, "PasswordEnabled", PolicyValue::Switch(true));
    assert_eq!(phone.visit().await, Standing::Synced);
    assert_eq!(phone.view().policy["DevicePasswordEnabled"], "1");
    let taken = phone.view().log.iter().filter(|event| event.what == "policy taken").count();
    assert_eq!(taken, 2);
}

#[tokio::test]
async fn what_a_phone_cannot_do_it_says() {
    let mock = mock().await;
    policy(&mock, "RequireDeviceEncryption", PolicyValue::Switch(true));
    let cannot = PhoneModel { cannot: vec!["RequireDeviceEncryption".to_owned()], ..PhoneModel::default() };
    let new = |id: &str, details: &PhoneModel| NewPhone {
        device_id: Some(id.to_owned()),
        details: Some(details.clone()),
        ..NewPhone::of(USER)
    };
    let (_, phone) = mock.phones().connect(new("PART1", &cannot)).await.unwrap();
    assert_eq!(phone.standing(), Standing::Synced, "the policy forgives it");
    let id = partnership(&mock, "PART1");
    let application =
        mock.world().read(None, |reader| reader.device(id).map(|it| it.contact.application.name()));
    assert_eq!(application, Some("PartiallyApplied"));
    policy(&mock, "AllowNonProvisionableDevices", PolicyValue::Switch(false));
    assert_eq!(phone.visit().await, Standing::PolicyRefused);
    let without = PhoneModel { provisionable: false, ..PhoneModel::default() };
    let (_, phone) = mock.phones().connect(new("PART2", &without)).await.unwrap();
    assert_eq!(phone.standing(), Standing::PolicyRefused);
}

#[tokio::test]
async fn a_phone_that_keeps_in_touch_hears_of_everything() {
    let mock = mock().await;
    let new = NewPhone {
        device_id: Some("TOUCH1".to_owned()),
        keep_in_touch: true,
        heartbeat_secs: Some(600),
        ..NewPhone::of(USER)
    };
    let (_, phone) = mock.phones().connect(new).await.unwrap();
    let until = |what: &'static str, condition: fn(&causeway_mock_exchange::phone::PhoneView) -> bool| {
        let phone = phone.clone();
        async move { phone.wait(WITHIN, condition).await.unwrap_or_else(|view| panic!("{what}: {view:#?}")) }
    };
    until("first visit", |view| view.messages == 3).await;
    mock.world().deliver(mailbox(&mock), "bjones@acme.example", "News", "text").unwrap();
    until("news", |view| view.messages == 4).await;
    default_access(&mock, DefaultAccess::Quarantine);
    until("held", |view| view.standing == Standing::Held && view.folders.len() == 1).await;
    allow(&mock, "TOUCH1");
    until("let in", |view| view.standing == Standing::Synced && view.messages == 4).await;
    let id = partnership(&mock, "TOUCH1");
    mock.world().write(None, |writer| writer.request_wipe(id, WipeKind::Full));
    until("wiped", |view| view.standing == Standing::Wiped && view.messages == 0).await;
}

#[tokio::test]
async fn off_on_passwords_and_a_busy_server() {
    let mock = mock().await;
    let phone = connect(&mock, "OFF1").await;
    phone.switch_off();
    let asked = mock.journal().last_seq();
    assert_eq!(phone.visit().await, Standing::Synced);
    assert_eq!(mock.journal().last_seq(), asked, "a phone that is off asks nothing");
    phone.switch_on();
    mock.world().set_password(USER, "Changed-1");
    assert_eq!(phone.visit().await, Standing::SignInRefused);
    phone.set_password(Secret::new("Changed-1"));
    assert_eq!(phone.visit().await, Standing::Synced);
    let busy = mock.faults().guard(Rule::new(Fault::status(503, "30")).on_front("activesync"));
    assert_eq!(phone.visit().await, Standing::Busy);
    drop(busy);
    let url = mock.url("activesync").to_owned();
    let rule = Rule::new(Fault::status(451, &url)).on_front("activesync").times(1);
    mock.faults().add(rule);
    assert_eq!(phone.visit().await, Standing::Synced, "it follows the mailbox");
    for kind in ["cut", "endless_opaque", "deep", "html"] {
        let fault = Fault::Malformed { kind: kind.to_owned() };
        let _rule = mock.faults().guard(Rule::new(fault).on_front("activesync"));
        assert_eq!(phone.visit().await, Standing::Failed, "{kind}");
    }
    mock.faults().set_down("activesync");
    assert_eq!(phone.visit().await, Standing::Unreachable);
    let shown = format!("{:?} {}", phone.view(), serde_json::to_string(&phone.view()).unwrap());
    assert!(!shown.contains("Changed-1"), "{shown}");
}

#[tokio::test]
async fn the_admin_api_drives_the_same_phones() {
    let mock = mock_with(|config| config.default_access = DefaultAccess::Quarantine).await;
    let made = admin(&mock, "POST", "/world/phones", &json!({ "user": USER, "model": "Galaxy S24" })).await;
    assert_eq!(made.0, 201, "{}", made.1);
    assert_eq!(made.1["phone"]["standing"], "held");
    assert_eq!(made.1["phone"]["device_type"], "Android");
    let id = made.1["id"].as_str().unwrap().to_owned();
    assert!(mock.phones().get(&id).is_some());
    allow(&mock, &id);
    let synced = admin(&mock, "POST", &format!("/world/phones/{id}/sync"), &Value::Null).await;
    assert_eq!((synced.0, &synced.1["phone"]["standing"]), (200, &json!("synced")));
    let off = admin(&mock, "POST", &format!("/world/phones/{id}/off"), &Value::Null).await;
    assert_eq!(off.1["phone"]["on"], false);
    let all = admin(&mock, "GET", "/world/phones", &Value::Null).await;
    assert_eq!(all.1.as_array().map(Vec::len), Some(1));
    assert_eq!(admin(&mock, "POST", "/world/phones", &json!({ "user": "nobody" })).await.0, 400);
    assert_eq!(admin(&mock, "GET", "/world/phones/none", &Value::Null).await.0, 404);
    assert_eq!(admin(&mock, "DELETE", &format!("/world/phones/{id}"), &Value::Null).await.0, 204);
    let document = admin(&mock, "GET", "/openapi.json", &Value::Null).await;
    assert!(document.1["paths"]["/world/phones/{id}/sync"].is_object());
}

async fn admin(mock: &MockExchange, method: &str, path: &str, body: &Value) -> (u16, Value) {
    let target = Target::parse(mock.url("admin")).unwrap();
    let body = if body.is_null() { Vec::new() } else { serde_json::to_vec(body).unwrap() };
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("Host", target.authority())
        .header("Content-Type", "application/json")
        .body(Full::new(body.into()))
        .unwrap();
    let answer: Answer = Http::new(mock.ca().client_config()).send(&target, request, WITHIN).await.unwrap();
    (answer.status, serde_json::from_slice(&answer.body).unwrap_or_default())
}
