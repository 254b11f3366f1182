//! Policies.

use causeway_mock_exchange::world::PolicyValue;
use causeway_protocol::wbxml::tags::provision as tag;
use causeway_protocol::wbxml::{Element, Tag};

use super::{Raw, ask_policy, confirm, mock, partnership, policies, policy, root, status};

fn setting(data: &Element, name: &str) -> Option<String> {
    let document = data.child(tag::EAS_PROVISION_DOC)?;
    document.elements().find(|element| element.tag.name() == Some(name)).map(Element::text)
}

#[tokio::test]
async fn the_document_is_the_policy_of_the_mailbox() {
    let mock = mock().await;
    policy(&mock, "PasswordEnabled", PolicyValue::Switch(true));
    policy(&mock, "MinPasswordLength", PolicyValue::Text("6".to_owned()));
    policy(&mock, "MaxInactivityTimeLock", PolicyValue::Text("00:15:00".to_owned()));
    policy(&mock, "AllowCamera", PolicyValue::Switch(false));
    policy(&mock, "AllowBluetooth", PolicyValue::Text("HandsfreeOnly".to_owned()));
    let data = Raw::new(&mock, "DOC1", "16.1").provision().await;
    for (name, value) in [
        ("DevicePasswordEnabled", "1"),
        ("MinDevicePasswordLength", "6"),
        ("MaxInactivityTimeDeviceLock", "900"),
        ("AllowCamera", "0"),
        ("AllowWiFi", "1"),
        ("AllowBluetooth", "1"),
        ("MaxDevicePasswordFailedAttempts", ""),
        ("MaxEmailBodyTruncationSize", "-1"),
    ] {
        assert_eq!(setting(&data, name).as_deref(), Some(value), "{name} in {data}");
    }
    let old = Raw::new(&mock, "DOC2", "12.0").provision().await;
    assert_eq!(setting(&old, "MinDevicePasswordLength").as_deref(), Some("6"));
    assert_eq!(setting(&old, "AllowCamera"), None, "12.0 does not know it");
}

#[tokio::test]
async fn keys_are_for_one_step_each() {
    let mock = mock().await;
    let phone = Raw::new(&mock, "KEYS1", "16.1");
    let inner =
        |root: &Element, tag: Tag| root.at(&[tag::POLICIES, tag::POLICY]).and_then(|it| it.text_of(tag));
    let first = root(&phone.post("Provision", &ask_policy()).await);
    let key = inner(&first, tag::POLICY_KEY).unwrap();
    let wrong = root(&phone.post("Provision", &confirm("1", 1)).await);
    assert_eq!(inner(&wrong, tag::STATUS).as_deref(), Some("5"), "{wrong}");
    let last = root(&phone.post("Provision", &confirm(&key, 1)).await);
    assert_eq!(inner(&last, tag::STATUS).as_deref(), Some("1"));
    assert_ne!(inner(&last, tag::POLICY_KEY).as_deref(), Some(key.as_str()));
    let again = root(&phone.post("Provision", &confirm(&key, 1)).await);
    assert_eq!(inner(&again, tag::STATUS).as_deref(), Some("5"));
    let id = partnership(&mock, "KEYS1");
    let applied = mock.world().read(None, |reader| reader.device(id).map(|it| it.contact.application.name()));
    assert_eq!(applied, Some("AppliedInFull"));
}

#[tokio::test]
async fn since_14_1_a_phone_says_what_it_is() {
    let mock = mock().await;
    let silent = Element::new(tag::PROVISION).with(policies(vec![]));
    assert_eq!(Raw::new(&mock, "MUTE1", "16.1").verdict("Provision", &silent).await, (200, Some(165)));
    assert_eq!(Raw::new(&mock, "MUTE2", "14.0").verdict("Provision", &silent).await, (200, Some(1)));
    assert_eq!(Raw::new(&mock, "MUTE3", "12.1").verdict("Provision", &silent).await, (200, Some(1)));
}

#[tokio::test]
async fn requests_that_ask_for_nothing() {
    let mock = mock().await;
    let phone = Raw::new(&mock, "NOTHING1", "16.1");
    let empty = root(&phone.post("Provision", &Element::new(tag::PROVISION)).await);
    assert_eq!(status(&empty), Some(2));
    let kind = Element::new(tag::POLICY).with(Element::leaf(tag::POLICY_TYPE, "MS-WAP-Provisioning-XML"));
    phone.post("Provision", &ask_policy()).await;
    let wrong = Element::new(tag::PROVISION).with(Element::new(tag::POLICIES).with(kind));
    let answer = root(&phone.post("Provision", &wrong).await);
    let inner = answer.at(&[tag::POLICIES, tag::POLICY, tag::STATUS]).unwrap();
    assert_eq!(inner.text(), "3", "{answer}");
}
