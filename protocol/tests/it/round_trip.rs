//! What one end writes the other reads, character for character.

use std::collections::BTreeMap;

use causeway_protocol::Secret;
use causeway_protocol::auth::{AuthOutcome, AuthReply, AuthRequest, AuthUser, encode_request};
use causeway_protocol::channel::StreamElement;
use causeway_protocol::channel::payload::{Payload, Request};
use causeway_protocol::mobile::{
    DevicePolicyRecord, DeviceRecord, DeviceTarget, MailOrganizationRecord, WipeScope,
};
use causeway_protocol::record::{GroupRecord, Kind, Op, OuRecord, Record, UserRecord};
use causeway_protocol::upload::{Commit, Committed, UploadState};
use minidom::Element;
use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use serde::Serialize;
use serde::de::DeserializeOwned;
use xmpp_parsers::iq::Iq;

use crate::any;

/// Writes an element as the stream does, inside an iq, and reads it back.
fn over_the_wire(element: Element) -> Result<Element, TestCaseError> {
    let iq = Iq::Set { from: None, to: None, id: "1".to_owned(), payload: element };
    let bytes = xso::to_vec(&StreamElement::Iq(iq))
        .map_err(|error| TestCaseError::fail(format!("cannot be written: {error}")))?;
    let back: StreamElement =
        xso::from_bytes(&bytes).map_err(|error| TestCaseError::fail(format!("cannot be read: {error}")))?;
    match back {
        StreamElement::Iq(Iq::Set { payload, .. }) => Ok(payload),
        other => Err(TestCaseError::fail(format!("became {other:?}"))),
    }
}

fn payload<T: Payload + PartialEq + std::fmt::Debug>(value: &T) -> Result<(), TestCaseError> {
    let element = over_the_wire(value.to_element())?;
    prop_assert!(T::names(&element));
    let back = T::from_element(&element).map_err(|error| TestCaseError::fail(format!("{error:?}")))?;
    prop_assert_eq!(&back, value);
    Ok(())
}

fn json<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(
    value: &T,
) -> Result<(), TestCaseError> {
    let line = serde_json::to_string(value).expect("plain types become JSON");
    prop_assert!(!line.contains('\n'), "a record is one line");
    let back: T = serde_json::from_str(&line).map_err(|error| TestCaseError::fail(error.to_string()))?;
    prop_assert_eq!(&back, value);
    Ok(())
}

macro_rules! every_payload {
    ($($name:ident),* $(,)?) => {
        proptest! {
            $(#[test]
            fn $name(value in any::$name()) {
                payload(&value)?;
            })*
        }
    };
}

every_payload! {
    action, applied, certificate, certificate_request, configure, error_report, health, hello, lease, lease_grant,
    notice, progress, reply, report, upload_grant, upload_request, welcome,
}

fn name() -> impl Strategy<Value = Option<String>> {
    option::of(any::text())
}

fn attributes() -> impl Strategy<Value = BTreeMap<String, Vec<String>>> {
    btree_map(any::text(), vec(any::text(), 0..3), 0..3)
}

proptest! {
    #[test]
    fn a_password_check_arrives_as_it_was_typed(
        username in any::text(), password in any::text(), ttl_ms in proptest::num::u64::ANY,
    ) {
        let body = encode_request(&AuthRequest { username: username.clone(), password: Secret::new(password.as_str()) });
        let request = Request { module: "user_auth".into(), request: "authenticate".into(), ttl_ms, body };
        let back = Request::from_element(&over_the_wire(request.to_element())?).unwrap();
        prop_assert_eq!((back.module.as_str(), back.request.as_str(), back.ttl_ms), ("user_auth", "authenticate", ttl_ms));
        let asked: AuthRequest = serde_json::from_str(back.body.expose()).unwrap();
        prop_assert_eq!((asked.username, asked.password.expose()), (username, password.as_str()));
    }

    #[test]
    fn a_verdict(
        outcome in prop::sample::select(AuthOutcome::ALL.to_vec()),
        user in option::of((any::text(), any::text(), any::text(), name(), name())),
        server in name(), detail in name(),
    ) {
        let user = user.map(|(id, login, dn, mail, display_name)| AuthUser { id, login, dn, mail, display_name });
        let reply = AuthReply { outcome, user, server, detail };
        json(&reply)?;
        let value = serde_json::to_value(&reply).unwrap();
        prop_assert_eq!(value["outcome"].as_str(), Some(outcome.as_str()));
    }

    #[test]
    fn records(
        texts in vec(any::text(), 3), names in vec(name(), 6), flag in proptest::bool::ANY, attributes in attributes(),
    ) {
        let [first, dn, key] = &texts[..] else { unreachable!("three were asked for") };
        let parent = names[0].clone();
        let ou = OuRecord { name: first.clone(), dn: dn.clone(), parent: parent.clone() };
        let group = GroupRecord {
            name: first.clone(), dn: dn.clone(), parent: parent.clone(), description: names[1].clone(),
            mail: names[2].clone(), security: flag,
        };
        let user = UserRecord {
            login: first.clone(), dn: dn.clone(), parent, enabled: flag, upn: names[1].clone(),
            display_name: names[2].clone(), given_name: names[3].clone(), surname: names[4].clone(),
            mail: names[5].clone(), attributes,
        };
        json(&ou)?;
        json(&group)?;
        json(&user)?;
        let v = serde_json::value::to_raw_value(&user).unwrap();
        let record = Record { op: Op::Upsert, kind: Kind::User, key: key.clone(), member: None, v: Some(v) };
        let back: Record = serde_json::from_str(&serde_json::to_string(&record).unwrap()).unwrap();
        prop_assert_eq!((back.op, back.kind, &back.key, back.member), (record.op, record.kind, key, None));
        let inner: UserRecord = serde_json::from_str(back.v.unwrap().get()).unwrap();
        prop_assert_eq!(inner, user);
    }

    #[test]
    fn records_of_mail_systems(texts in vec(any::text(), 4), names in vec(name(), 8), folders in option::of(0..99u32)) {
        let [device_id, mailbox, access_state, key] = texts.clone().try_into().expect("four were asked for");
        let settings = BTreeMap::from([(key.clone(), mailbox.clone())]);
        json(&DeviceRecord {
            device_id: device_id.clone(), mailbox: mailbox.clone(), access_state, user: names[0].clone(),
            model: names[1].clone(), imei: names[2].clone(), access_reason: names[3].clone(),
            last_sync: names[4].clone(), policy: names[5].clone(), wipe_status: names[6].clone(), folders,
            ..DeviceRecord::default()
        })?;
        json(&DevicePolicyRecord { name: key.clone(), settings: settings.clone(), ..DevicePolicyRecord::default() })?;
        let default_access = names[7].clone();
        json(&MailOrganizationRecord { default_access, settings, ..MailOrganizationRecord::default() })?;
        json(&DeviceTarget { key, device_id: Some(device_id), mailbox: names[0].clone() })?;
        json(&WipeScope::AccountOnly)?;
    }

    #[test]
    fn what_uploads_say(numbers in prop::array::uniform3(proptest::num::u64::ANY), ranges in vec((0..9u64, 9..99u64), 0..4)) {
        let [a, b, c] = numbers;
        json(&Commit { batches: a, records: b })?;
        json(&Committed { epoch: a, upserts: b, deletes: c })?;
        json(&UploadState { received: ranges, committed: a % 2 == 0 })?;
    }
}
