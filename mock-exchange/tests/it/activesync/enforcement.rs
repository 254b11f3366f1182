//! How phones are turned away, by protocol version.

use causeway_mock_exchange::activesync::RefusalNumbers;
use causeway_mock_exchange::config::DefaultAccess;
use causeway_mock_exchange::world::{AccessReason, AccessState, PolicyValue, WipeKind};
use causeway_protocol::wbxml::Element;
use causeway_protocol::wbxml::tags::folder_hierarchy as folder;

use super::{
    Raw, USER, cas, default_access, folder_sync, mailbox, mock, mock_with, partnership, policy, root,
};

const NEW: [&str; 4] = ["14.0", "14.1", "16.0", "16.1"];
const OLD: [&str; 2] = ["12.0", "12.1"];

/// The answer to FolderSync of a provisioned phone, before and after something happened to it.
async fn after(
    version: &'static str,
    change: impl Fn(&causeway_mock_exchange::MockExchange, &str),
) -> (u16, Option<u32>) {
    let mock = mock().await;
    let mut phone = Raw::new(&mock, "ENFORCE1", version);
    phone.provision().await;
    assert_eq!(phone.folder_sync().await, (200, Some(1)), "{version}");
    change(&mock, "ENFORCE1");
    phone.folder_sync().await
}

async fn table(change: impl Fn(&causeway_mock_exchange::MockExchange, &str), status: u32, http: u16) {
    for version in NEW {
        assert_eq!(after(version, &change).await, (200, Some(status)), "{version}");
    }
    for version in OLD {
        assert_eq!(after(version, &change).await, (http, None), "{version}");
    }
}

#[tokio::test]
async fn blocked_for_this_user() {
    let block = |mock: &causeway_mock_exchange::MockExchange, id: &str| {
        cas(mock, |cas| cas.blocked.push(id.to_ascii_lowercase().into()));
    };
    table(block, 129, 403).await;
}

#[tokio::test]
async fn blocked_by_default() {
    table(|mock, _| default_access(mock, DefaultAccess::Block), 129, 403).await;
}

#[tokio::test]
async fn switched_off_for_the_mailbox() {
    let off = |mock: &causeway_mock_exchange::MockExchange, _: &str| {
        cas(mock, |cas| cas.active_sync_enabled = false);
    };
    table(off, 126, 403).await;
}

#[tokio::test]
async fn a_wipe_is_asked_for() {
    let wipe = |mock: &causeway_mock_exchange::MockExchange, id: &str| {
        let id = partnership(mock, id);
        assert!(mock.world().write(None, |writer| writer.request_wipe(id, WipeKind::Full)));
    };
    table(wipe, 140, 449).await;
}

#[tokio::test]
async fn a_changed_policy_is_to_be_fetched() {
    let change = |mock: &causeway_mock_exchange::MockExchange, _: &str| {
        policy(mock, "PasswordEnabled", PolicyValue::Switch(true));
    };
    table(change, 143, 449).await;
}

#[tokio::test]
async fn keys_that_are_missing_or_wrong() {
    let mock = mock().await;
    for (version, missing, wrong) in
        [("16.1", (200, Some(142)), (200, Some(144))), ("12.1", (449, None), (449, None))]
    {
        let mut phone = Raw::new(&mock, &format!("KEYS{}", version.replace('.', "")), version);
        assert_eq!(phone.folder_sync().await, missing);
        phone.provision().await;
        assert_eq!(phone.folder_sync().await, (200, Some(1)));
        phone.key = Some("4711".to_owned());
        assert_eq!(phone.folder_sync().await, wrong);
    }
}

#[tokio::test]
async fn phones_without_policies_get_in_only_where_the_policy_forgives_it() {
    let mock = mock().await;
    // What a phone sends that knows no policies: no key at all.
    let phone = |id: &str, version| Raw { key: None, ..Raw::new(&mock, id, version) };
    assert_eq!(phone("LENIENT1", "14.1").folder_sync().await, (200, Some(1)));
    assert_eq!(phone("LENIENT2", "2.5").folder_sync().await, (200, Some(1)));
    policy(&mock, "AllowNonProvisionableDevices", PolicyValue::Switch(false));
    assert_eq!(phone("STRICT1", "14.1").folder_sync().await, (200, Some(142)));
    assert_eq!(phone("STRICT2", "12.1").folder_sync().await, (449, None));
    assert_eq!(phone("STRICT3", "2.5").folder_sync().await, (403, None));
}

#[tokio::test]
async fn half_a_policy_is_not_enough_for_a_strict_one() {
    let mock = mock().await;
    policy(&mock, "AllowNonProvisionableDevices", PolicyValue::Switch(false));
    for (version, refused) in [("16.1", (200, Some(139))), ("12.1", (403, None))] {
        let mut phone = Raw::new(&mock, &format!("HALF{}", version.replace('.', "")), version);
        let offer = root(&phone.post("Provision", &super::ask_policy()).await);
        let key = offer.at(&[super::provision::POLICIES, super::provision::POLICY]).unwrap();
        let key = key.text_of(super::provision::POLICY_KEY).unwrap();
        let last = root(&phone.post("Provision", &super::confirm(&key, 2)).await);
        phone.key = last
            .at(&[super::provision::POLICIES, super::provision::POLICY])
            .and_then(|policy| policy.text_of(super::provision::POLICY_KEY));
        assert_eq!(phone.folder_sync().await, refused, "{version}");
    }
}

#[tokio::test]
async fn too_many_phones() {
    let mock = mock_with(|config| config.personality = "exchange2010".to_owned()).await;
    for number in 0..10 {
        let phone = Raw::new(&mock, &format!("MANY{number}"), "14.1");
        assert_eq!(phone.folder_sync().await, (200, Some(142)));
    }
    assert_eq!(Raw::new(&mock, "MANY10", "14.1").folder_sync().await, (200, Some(177)));
    assert_eq!(Raw::new(&mock, "MANY10", "12.1").folder_sync().await, (403, None));
}

#[tokio::test]
async fn device_ids_and_types() {
    let mock = mock().await;
    let long = "A".repeat(33);
    for wrong in ["", "with-hyphen", "quote'", "star*", long.as_str(), "%C3%A9"] {
        let phone = Raw::new(&mock, wrong, "16.1");
        assert_eq!(phone.folder_sync().await, (200, Some(108)), "{wrong}");
        let phone = Raw::new(&mock, wrong, "12.1");
        assert_eq!(phone.folder_sync().await, (400, None), "{wrong}");
    }
    for (version, refused) in [("16.1", (200, Some(109))), ("12.1", (400, None))] {
        let phone = Raw { device_type: String::new(), ..Raw::new(&mock, "TYPED", version) };
        assert_eq!(phone.folder_sync().await, refused);
    }
    assert_eq!(
        mock.world().partnership(mailbox(&mock), "TYPED"),
        None,
        "a refused phone leaves no partnership"
    );
}

#[tokio::test]
async fn a_held_phone_sees_its_inbox_with_the_notice_alone() {
    for version in ["16.1", "14.1", "12.1"] {
        let mock = mock_with(|config| config.default_access = DefaultAccess::Quarantine).await;
        let mut phone = Raw::new(&mock, "HELD1", version);
        phone.provision().await;
        let folders = root(&phone.post("FolderSync", &folder_sync("0")).await);
        let names: Vec<_> = added(&folders);
        assert_eq!(names, ["Inbox"], "{version}");
        let mail = phone.mail("5").await;
        assert_eq!(mail.len(), 1, "{mail:?}");
        assert!(mail[0].contains("temporarily blocked"), "{mail:?}");
        assert_eq!(phone.sync_status("1").await, Some(8), "no other folder is there");

        // Let in: the folders have changed, and the mail is there.
        cas(&mock, |cas| cas.allowed.push("HELD1".into()));
        let sync = root(&phone.post("Sync", &phone.sync_request("5", "0")).await);
        assert_eq!(super::status(&sync), Some(12), "{sync}");
        let folders = root(&phone.post("FolderSync", &folder_sync("1")).await);
        assert_eq!(added(&folders).len(), 7, "{folders}");
        let mail = phone.mail("5").await;
        assert_eq!(mail.len(), 3);
        assert!(mail.iter().all(|subject| !subject.contains("blocked")), "{mail:?}");
        let mailbox = mailbox(&mock);
        let state = mock.world().read(None, |reader| {
            let device = reader.devices_of(mailbox).next().unwrap();
            reader.decide(&device)
        });
        assert_eq!((state.state, state.reason), (AccessState::Allowed, AccessReason::Individual));
    }
}

fn added(folders: &Element) -> Vec<String> {
    let changes = folders.child(folder::CHANGES).unwrap();
    changes.children(folder::ADD).filter_map(|add| add.text_of(folder::DISPLAY_NAME)).collect()
}

#[tokio::test]
async fn a_mailbox_that_moved() {
    let mock = mock().await;
    let url = "https://mail2.acme.example/Microsoft-Server-ActiveSync";
    let mailbox = mailbox(&mock);
    assert!(mock.world().write(None, |writer| writer.move_mailbox(mailbox, Some(url))));
    let answer = Raw::new(&mock, "MOVED1", "16.1").post("FolderSync", &folder_sync("0")).await;
    assert_eq!((answer.status, answer.header("X-MS-Location")), (451, Some(url)));
}

#[tokio::test]
async fn versions_and_commands_the_server_does_not_have() {
    let mock = mock_with(|config| config.personality = "exchange2010".to_owned()).await;
    assert_eq!(Raw::new(&mock, "V1", "16.1").folder_sync().await, (505, None));
    assert_eq!(Raw::new(&mock, "V1", "sixteen").folder_sync().await, (400, None));
    let phone = Raw::new(&mock, "V1", "14.1");
    assert_eq!(phone.verdict("Search", &folder_sync("0")).await, (200, Some(137)));
    assert_eq!(phone.verdict("Format", &folder_sync("0")).await, (501, None));
    assert_eq!(Raw::new(&mock, "V1", "12.1").verdict("Search", &folder_sync("0")).await, (501, None));
}

#[tokio::test]
async fn numbers_that_are_not_verified_can_be_set() {
    let numbers = RefusalNumbers { status: 130, http: 401 };
    let mock = mock_with(|config| {
        config.activesync.refusals.insert("blocked".to_owned(), numbers);
        config.default_access = DefaultAccess::Block;
    })
    .await;
    assert_eq!(Raw::new(&mock, "SET1", "16.1").folder_sync().await.1, Some(130));
    assert_eq!(Raw::new(&mock, "SET1", "12.1").folder_sync().await.0, 401);
}

#[tokio::test]
async fn wrong_passwords_are_not_told_apart() {
    let mock = mock().await;
    let mut phone = Raw::new(&mock, "PW1", "16.1");
    mock.world().set_password(USER, "another");
    let answer = phone.post("FolderSync", &folder_sync("0")).await;
    assert_eq!(answer.status, 401);
    assert!(answer.header("WWW-Authenticate").unwrap().starts_with("Basic "));
    phone.credentials = "not base64!".to_owned();
    assert_eq!(phone.folder_sync().await.0, 401);
    let journal = mock.journal().after(0);
    assert!(journal.iter().any(|entry| entry.outcome == "bad password"), "{journal:?}");
}
