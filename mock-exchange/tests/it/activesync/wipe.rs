//! Remote wipe from the order to the empty phone.

use causeway_mock_exchange::MockExchange;
use causeway_mock_exchange::world::WipeKind;
use causeway_mock_kit::fault::{Fault, Rule};
use causeway_protocol::wbxml::tags::provision as tag;
use causeway_protocol::wbxml::{Element, Tag};

use super::{Raw, ask_policy, mailbox, mock, partnership, root, status};

fn order(mock: &MockExchange, kind: WipeKind) {
    let id = partnership(mock, "WIPED1");
    assert!(mock.world().write(None, |writer| writer.request_wipe(id, kind)));
}

fn stands(mock: &MockExchange) -> &'static str {
    let id = partnership(mock, "WIPED1");
    mock.world().read(None, |reader| reader.device(id).map(|device| device.contact.status())).unwrap()
}

fn acknowledge(which: Tag) -> Element {
    Element::new(tag::PROVISION).with(Element::new(which).with(Element::leaf(tag::STATUS, 1)))
}

async fn ready(version: &'static str) -> (MockExchange, Raw) {
    let mock = mock().await;
    let mut phone = Raw::new(&mock, "WIPED1", version);
    phone.provision().await;
    assert_eq!(phone.folder_sync().await, (200, Some(1)));
    (mock, phone)
}

#[tokio::test]
async fn ordered_sent_confirmed_and_shut_out_until_removed() {
    for (version, asked, shut_out) in
        [("16.1", (200, Some(140)), (200, Some(129))), ("12.1", (449, None), (403, None))]
    {
        let (mock, phone) = ready(version).await;
        order(&mock, WipeKind::Full);
        assert_eq!(stands(&mock), "DeviceWipePending");
        assert_eq!(phone.folder_sync().await, asked);
        let told = root(&phone.post("Provision", &ask_policy()).await);
        assert!(told.child(tag::REMOTE_WIPE).is_some_and(|wipe| wipe.content.is_empty()), "{told}");
        assert!(told.child(tag::POLICIES).is_none(), "{told}");
        assert_eq!(stands(&mock), "DeviceWipePending", "told, not done");
        let done = root(&phone.post("Provision", &acknowledge(tag::REMOTE_WIPE)).await);
        assert_eq!(status(&done), Some(1));
        assert_eq!(stands(&mock), "DeviceWipeSucceeded");
        assert_eq!(phone.folder_sync().await, shut_out, "until the partnership is removed");

        let id = partnership(&mock, "WIPED1");
        assert!(mock.world().write(None, |writer| writer.remove_device(id)));
        let mut phone = Raw::new(&mock, "WIPED1", version);
        phone.provision().await;
        assert_eq!(phone.folder_sync().await, (200, Some(1)), "a new partnership");
        assert_ne!(partnership(&mock, "WIPED1"), id);
    }
}

#[tokio::test]
async fn only_the_account() {
    let (mock, phone) = ready("16.1").await;
    order(&mock, WipeKind::AccountOnly);
    assert_eq!(phone.folder_sync().await, (200, Some(140)));
    let told = root(&phone.post("Provision", &ask_policy()).await);
    assert!(
        told.child(tag::ACCOUNT_ONLY_REMOTE_WIPE).is_some() && told.child(tag::REMOTE_WIPE).is_none(),
        "{told}"
    );
    phone.post("Provision", &acknowledge(tag::REMOTE_WIPE)).await;
    assert_eq!(stands(&mock), "AccountOnlyDeviceWipePending", "another kind was ordered");
    phone.post("Provision", &acknowledge(tag::ACCOUNT_ONLY_REMOTE_WIPE)).await;
    assert_eq!(stands(&mock), "AccountOnlyDeviceWipeSucceeded");
}

#[tokio::test]
async fn a_version_without_the_word_stays_shut_out() {
    let (mock, phone) = ready("14.1").await;
    order(&mock, WipeKind::AccountOnly);
    assert_eq!(phone.folder_sync().await, (200, Some(140)));
    assert_eq!(phone.verdict("Provision", &ask_policy()).await, (200, Some(129)));
}

#[tokio::test]
async fn a_confirmation_nobody_asked_for_counts_for_nothing() {
    let (mock, phone) = ready("16.1").await;
    phone.post("Provision", &acknowledge(tag::REMOTE_WIPE)).await;
    assert_eq!(stands(&mock), "DeviceOk");
    assert_eq!(phone.folder_sync().await, (200, Some(1)));
    order(&mock, WipeKind::Full);
    phone.post("Provision", &acknowledge(tag::REMOTE_WIPE)).await;
    assert_eq!(stands(&mock), "DeviceWipePending", "ordered, but the phone had not been told");
}

#[tokio::test]
async fn cancelled_before_the_phone_asked() {
    let (mock, phone) = ready("16.1").await;
    order(&mock, WipeKind::Full);
    let id = partnership(&mock, "WIPED1");
    mock.world().write(None, |writer| writer.cancel_wipe(id)).unwrap();
    assert_eq!(phone.folder_sync().await, (200, Some(1)));
    assert_eq!(stands(&mock), "DeviceOk");
}

#[tokio::test]
async fn a_confirmation_that_gets_lost() {
    let (mock, phone) = ready("16.1").await;
    order(&mock, WipeKind::Full);
    let fault = Fault::Custom { word: "wipe_ack_lost".to_owned(), args: serde_json::Value::Null };
    let lost = mock.faults().guard(Rule::new(fault).on_front("activesync").on_operation("Provision"));
    assert!(root(&phone.post("Provision", &ask_policy()).await).child(tag::REMOTE_WIPE).is_some());
    let body = causeway_protocol::wbxml::encode(&acknowledge(tag::REMOTE_WIPE)).unwrap();
    assert!(phone.send("Provision", body).await.is_err(), "the connection closes");
    assert_eq!(stands(&mock), "DeviceWipePending");
    drop(lost);
    assert_eq!(phone.folder_sync().await, (200, Some(140)), "the order stands");
    assert!(mock.world().partnership(mailbox(&mock), "WIPED1").is_some());
}
