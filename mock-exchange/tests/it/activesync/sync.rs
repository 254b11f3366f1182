//! Folders, mail, and waiting for news.

use causeway_mock_exchange::world::{INBOX, Mark};
use causeway_protocol::wbxml::tags::{
    air_sync, air_sync_base, compose_mail, email, folder_hierarchy, get_item_estimate, item_operations, ping,
    settings,
};
use causeway_protocol::wbxml::{Element, decode};

use super::{Raw, USER, cas, folder_sync, mailbox, mock, mock_with, partnership, root, status};

impl Raw {
    pub(crate) fn sync_request(&self, folder: &str, key: &str) -> Element {
        sync_with(folder, key, vec![])
    }

    /// Primes a folder and fetches it; the subjects.
    pub(crate) async fn mail(&self, folder: &str) -> Vec<String> {
        let first = root(&self.post("Sync", &self.sync_request(folder, "0")).await);
        let collection = only(&first);
        assert_eq!(collection.text_of(air_sync::STATUS).as_deref(), Some("1"), "{first}");
        assert!(collection.child(air_sync::COMMANDS).is_none(), "priming gives no items");
        let key = collection.text_of(air_sync::SYNC_KEY).unwrap();
        let second = root(&self.post("Sync", &self.sync_request(folder, &key)).await);
        subjects(only(&second))
    }

    /// The status of a collection, or of the whole.
    pub(crate) async fn sync_status(&self, folder: &str) -> Option<u32> {
        let answer = root(&self.post("Sync", &self.sync_request(folder, "0")).await);
        status(&answer).or_else(|| only(&answer).text_of(air_sync::STATUS)?.parse().ok())
    }
}

fn sync_with(folder: &str, key: &str, rest: Vec<Element>) -> Element {
    let collection = Element::new(air_sync::COLLECTION)
        .with(Element::leaf(air_sync::SYNC_KEY, key))
        .with(Element::leaf(air_sync::COLLECTION_ID, folder))
        .with_all(rest);
    Element::new(air_sync::SYNC).with(Element::new(air_sync::COLLECTIONS).with(collection))
}

fn only(answer: &Element) -> &Element {
    answer.at(&[air_sync::COLLECTIONS, air_sync::COLLECTION]).unwrap_or_else(|| panic!("{answer}"))
}

fn subjects(collection: &Element) -> Vec<String> {
    let adds = collection.child(air_sync::COMMANDS).into_iter().flat_map(|all| all.children(air_sync::ADD));
    adds.filter_map(|add| add.child(air_sync::APPLICATION_DATA)?.text_of(email::SUBJECT)).collect()
}

fn key(collection: &Element) -> String {
    collection.text_of(air_sync::SYNC_KEY).unwrap()
}

async fn ready(device_id: &str) -> (causeway_mock_exchange::MockExchange, Raw) {
    let mock = mock().await;
    let mut phone = Raw::new(&mock, device_id, "16.1");
    phone.provision().await;
    assert_eq!(phone.folder_sync().await, (200, Some(1)));
    (mock, phone)
}

#[tokio::test]
async fn folders_are_told_once() {
    let (_mock, phone) = ready("FOLDERS").await;
    let all = root(&phone.post("FolderSync", &folder_sync("0")).await);
    let count =
        |root: &Element| root.at(&[folder_hierarchy::CHANGES, folder_hierarchy::COUNT]).unwrap().text();
    assert_eq!(count(&all), "8");
    let again = root(&phone.post("FolderSync", &folder_sync("1")).await);
    assert_eq!(
        (count(&again).as_str(), again.text_of(folder_hierarchy::SYNC_KEY).as_deref()),
        ("0", Some("1"))
    );
    assert_eq!(phone.verdict("FolderSync", &folder_sync("7")).await, (200, Some(9)));
    assert_eq!(phone.verdict("FolderSync", &folder_sync("seven")).await, (200, Some(10)));
}

#[tokio::test]
async fn windows_changes_and_lost_answers() {
    let (mock, phone) = ready("WINDOWS").await;
    let window = |key: &str| sync_with(INBOX, key, vec![Element::leaf(air_sync::WINDOW_SIZE, 2)]);
    let primed = root(&phone.post("Sync", &window("0")).await);
    let first_key = key(only(&primed));
    let first = root(&phone.post("Sync", &window(&first_key)).await);
    assert_eq!(subjects(only(&first)).len(), 2);
    assert!(only(&first).child(air_sync::MORE_AVAILABLE).is_some());
    let repeated = root(&phone.post("Sync", &window(&first_key)).await);
    assert_eq!(repeated, first, "the answer may have been lost");
    let second_key = key(only(&first));
    let second = root(&phone.post("Sync", &window(&second_key)).await);
    assert_eq!(subjects(only(&second)).len(), 1);
    assert!(only(&second).child(air_sync::MORE_AVAILABLE).is_none());

    // Nothing new is said with an empty body, and repeated with an empty request.
    let third_key = key(only(&second));
    let quiet = phone.post("Sync", &window(&third_key)).await;
    assert_eq!((quiet.status, quiet.body.len()), (200, 0));
    let empty = phone.send("Sync", Vec::new()).await.unwrap();
    assert_eq!((empty.status, empty.body.len()), (200, 0));

    // A change and a deletion elsewhere reach the phone.
    let world = mock.world();
    assert!(world.mark(mailbox(&mock), "5:1", Mark::Read(true)));
    assert!(world.mark(mailbox(&mock), "5:2", Mark::Delete));
    let changed = root(&phone.send("Sync", Vec::new()).await.unwrap());
    let commands = only(&changed).child(air_sync::COMMANDS).unwrap();
    let change = commands.child(air_sync::CHANGE).unwrap();
    assert_eq!(change.text_of(air_sync::SERVER_ID).as_deref(), Some("5:1"));
    assert_eq!(
        commands.child(air_sync::DELETE).unwrap().text_of(air_sync::SERVER_ID).as_deref(),
        Some("5:2")
    );

    let stale = root(&phone.post("Sync", &window(&first_key)).await);
    assert_eq!(only(&stale).text_of(air_sync::STATUS).as_deref(), Some("3"), "{stale}");
}

#[tokio::test]
async fn what_the_phone_changes_is_not_told_back() {
    let (mock, phone) = ready("OWNCHANGE").await;
    let primed = root(&phone.post("Sync", &phone.sync_request(INBOX, "0")).await);
    let full = root(&phone.post("Sync", &phone.sync_request(INBOX, &key(only(&primed)))).await);
    let read = Element::new(air_sync::CHANGE)
        .with(Element::leaf(air_sync::SERVER_ID, "5:1"))
        .with(Element::new(air_sync::APPLICATION_DATA).with(Element::leaf(email::READ, 1)));
    let delete = |id: &str| Element::new(air_sync::DELETE).with(Element::leaf(air_sync::SERVER_ID, id));
    let commands = Element::new(air_sync::COMMANDS).with(read).with(delete("5:2")).with(delete("5:999"));
    let answer = root(&phone.post("Sync", &sync_with(INBOX, &key(only(&full)), vec![commands])).await);
    let collection = only(&answer);
    assert!(collection.child(air_sync::COMMANDS).is_none(), "{answer}");
    let failed: Vec<_> = collection.child(air_sync::RESPONSES).unwrap().elements().collect();
    assert_eq!(failed.len(), 1, "{answer}");
    assert_eq!(failed[0].text_of(air_sync::STATUS).as_deref(), Some("8"));
    let left = mock.world().messages(mailbox(&mock), INBOX);
    assert_eq!(left.len(), 2);
    assert!(left.iter().any(|message| message.id == "5:1" && message.read));
}

#[tokio::test]
async fn an_empty_request_needs_something_to_repeat() {
    let (_mock, phone) = ready("REPEAT").await;
    let answer = root(&phone.send("Sync", Vec::new()).await.unwrap());
    assert_eq!(status(&answer), Some(13));
    let answer = root(&phone.send("Ping", Vec::new()).await.unwrap());
    assert_eq!(status(&answer), Some(3));
}

fn wait(seconds: u32, folders: &[&str]) -> Element {
    let folders = folders.iter().map(|id| {
        Element::new(ping::FOLDER).with(Element::leaf(ping::ID, id)).with(Element::leaf(ping::CLASS, "Email"))
    });
    Element::new(ping::PING)
        .with(Element::leaf(ping::HEARTBEAT_INTERVAL, seconds))
        .with(Element::new(ping::FOLDERS).with_all(folders))
}

#[tokio::test]
async fn ping_wakes_with_news_and_ends_with_the_interval() {
    let mock = mock_with(|config| config.activesync.heartbeat_min_secs = 1).await;
    let mut phone = Raw::new(&mock, "PINGER", "16.1");
    phone.provision().await;
    phone.folder_sync().await;
    assert_eq!(phone.mail(INBOX).await.len(), 3);
    assert_eq!(phone.verdict("Ping", &wait(1, &[INBOX])).await, (200, Some(1)));

    let asked = wait(600, &[INBOX]);
    let (answer, _) = tokio::join!(phone.post("Ping", &asked), async {
        waiting(&mock).await;
        mock.world().deliver(mailbox(&mock), "bjones@acme.example", "News", "text").unwrap()
    });
    let answer = root(&answer);
    assert_eq!(status(&answer), Some(2));
    let folder = answer.at(&[ping::FOLDERS, ping::FOLDER]).unwrap();
    assert_eq!(folder.text(), INBOX);
    // An empty Ping repeats the last one, and the news have not been fetched yet.
    assert_eq!(status(&root(&phone.send("Ping", Vec::new()).await.unwrap())), Some(2));
    assert_eq!(phone.verdict("Ping", &wait(0, &[INBOX])).await, (200, Some(5)));
    assert_eq!(phone.verdict("Ping", &wait(4000, &[INBOX])).await, (200, Some(5)));
    assert_eq!(phone.verdict("Ping", &wait(600, &["99"])).await, (200, Some(7)));
}

/// Waits until the server has taken a Ping.
async fn waiting(mock: &causeway_mock_exchange::MockExchange) {
    let id = partnership(mock, "PINGER");
    for _ in 0..2_000 {
        let heartbeat = mock
            .world()
            .read(None, |reader| reader.device(id).and_then(|device| device.contact.ping_heartbeat_secs));
        if heartbeat == Some(600) {
            return;
        }
        tokio::task::yield_now().await;
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    panic!("no Ping arrived");
}

#[tokio::test]
async fn a_block_ends_a_ping() {
    let mock = mock().await;
    let mut phone = Raw::new(&mock, "PINGER", "16.1");
    phone.provision().await;
    phone.folder_sync().await;
    phone.mail(INBOX).await;
    let (verdict, _) = tokio::join!(async { phone.verdict("Ping", &wait(600, &[INBOX])).await }, async {
        waiting(&mock).await;
        cas(&mock, |cas| cas.blocked.push("PINGER".into()));
    });
    assert_eq!(verdict, (200, Some(7)));
    assert_eq!(phone.folder_sync().await, (200, Some(129)));
}

#[tokio::test]
async fn sync_can_wait_too() {
    let (mock, phone) = ready("PINGER").await;
    let primed = root(&phone.post("Sync", &phone.sync_request(INBOX, "0")).await);
    let full = root(&phone.post("Sync", &phone.sync_request(INBOX, &key(only(&primed)))).await);
    let waits =
        |tag, value: u32| phone.sync_request(INBOX, &key(only(&full))).with(Element::leaf(tag, value));
    let bad = root(&phone.post("Sync", &waits(air_sync::WAIT, 60)).await);
    assert_eq!((status(&bad), bad.text_of(air_sync::LIMIT).as_deref()), (Some(14), Some("59")));
    let bad = root(&phone.post("Sync", &waits(air_sync::HEARTBEAT_INTERVAL, 5)).await);
    assert_eq!((status(&bad), bad.text_of(air_sync::LIMIT).as_deref()), (Some(14), Some("60")));
    let asked = waits(air_sync::HEARTBEAT_INTERVAL, 600);
    let (answer, _) = tokio::join!(phone.post("Sync", &asked), async {
        mock.journal().wait(0, super::WITHIN, |entry| entry.operation == "Sync").await.unwrap();
        mock.world().deliver(mailbox(&mock), "bjones@acme.example", "News", "text").unwrap()
    });
    assert_eq!(subjects(only(&root(&answer))), ["News"]);
}

#[tokio::test]
async fn bodies_as_the_phone_wants_them() {
    let (_mock, phone) = ready("BODIES").await;
    let primed = root(&phone.post("Sync", &phone.sync_request(INBOX, "0")).await);
    let preference = Element::new(air_sync_base::BODY_PREFERENCE)
        .with(Element::leaf(air_sync_base::TYPE, 1))
        .with(Element::leaf(air_sync_base::TRUNCATION_SIZE, 4));
    let options = Element::new(air_sync::OPTIONS).with(preference);
    let cut = root(&phone.post("Sync", &sync_with(INBOX, &key(only(&primed)), vec![options])).await);
    let add = only(&cut).at(&[air_sync::COMMANDS, air_sync::ADD, air_sync::APPLICATION_DATA]).unwrap();
    let body = add.child(air_sync_base::BODY).unwrap();
    assert_eq!(body.text_of(air_sync_base::DATA).as_deref(), Some("Hell"));
    assert_eq!(body.text_of(air_sync_base::TRUNCATED).as_deref(), Some("1"));

    let fetch = Element::new(item_operations::FETCH)
        .with(Element::leaf(item_operations::STORE, "Mailbox"))
        .with(Element::leaf(air_sync::COLLECTION_ID, INBOX))
        .with(Element::leaf(air_sync::SERVER_ID, "5:1"));
    let whole = root(
        &phone.post("ItemOperations", &Element::new(item_operations::ITEM_OPERATIONS).with(fetch)).await,
    );
    let path =
        [item_operations::RESPONSE, item_operations::FETCH, item_operations::PROPERTIES, air_sync_base::BODY];
    let text = whole.at(&path).unwrap().text_of(air_sync_base::DATA).unwrap();
    assert!(text.starts_with("Hello ") && text.len() > 40, "{text}");
}

#[tokio::test]
async fn estimates_mail_and_settings() {
    let (mock, phone) = ready("OTHERS").await;
    let primed = root(&phone.post("Sync", &phone.sync_request(INBOX, "0")).await);
    let collection = Element::new(get_item_estimate::COLLECTION)
        .with(Element::leaf(air_sync::SYNC_KEY, key(only(&primed))))
        .with(Element::leaf(get_item_estimate::COLLECTION_ID, INBOX));
    let asked = Element::new(get_item_estimate::GET_ITEM_ESTIMATE)
        .with(Element::new(get_item_estimate::COLLECTIONS).with(collection));
    let answer = root(&phone.post("GetItemEstimate", &asked).await);
    let path = [get_item_estimate::RESPONSE, get_item_estimate::COLLECTION, get_item_estimate::ESTIMATE];
    assert_eq!(answer.at(&path).unwrap().text(), "3");

    let other = mock.world().company().people[5].clone();
    let mime = format!("To: {}\r\nSubject: From a phone\r\n\r\nHello", other.mail);
    let mail = Element::new(compose_mail::SEND_MAIL)
        .with(Element::leaf(compose_mail::CLIENT_ID, "m1"))
        .with(Element::bytes(compose_mail::MIME, mime.into_bytes()));
    let sent = phone.post("SendMail", &mail).await;
    assert_eq!((sent.status, sent.body.len()), (200, 0));
    let theirs = mock.world().mailbox(&other.login).unwrap();
    let subjects: Vec<_> =
        mock.world().messages(theirs, INBOX).into_iter().map(|message| message.subject).collect();
    assert!(subjects.contains(&"From a phone".to_owned()), "{subjects:?}");

    let set = Element::new(settings::SET).with(Element::leaf(settings::FRIENDLY_NAME, "Ada's phone"));
    let asked = Element::new(settings::SETTINGS)
        .with(Element::new(settings::DEVICE_INFORMATION).with(set))
        .with(Element::new(settings::USER_INFORMATION).with(Element::new(settings::GET)));
    let answer = root(&phone.post("Settings", &asked).await);
    assert_eq!(status(&answer), Some(1));
    let address = mock.world().company().person(USER).unwrap().mail.to_string();
    assert!(answer.to_string().contains(&address), "{answer}");
    let id = partnership(&mock, "OTHERS");
    let name = mock.world().read(None, |reader| {
        reader.device(id).and_then(|device| device.device.information.friendly_name.clone())
    });
    assert_eq!(name.as_deref(), Some("Ada's phone"));
}

#[tokio::test]
async fn the_oldest_versions_read_mail_too() {
    let mock = mock().await;
    let mut phone = Raw::new(&mock, "OLDONE", "2.5");
    phone.key = None;
    assert_eq!(phone.folder_sync().await, (200, Some(1)));
    assert_eq!(phone.mail(INBOX).await.len(), 3);
    let again = phone.post("Sync", &phone.sync_request(INBOX, "2")).await;
    let root = decode(&again.body, &causeway_protocol::wbxml::Limits::default()).unwrap();
    assert_eq!(key(only(&root)), "3", "older phones do not know empty answers");
}
