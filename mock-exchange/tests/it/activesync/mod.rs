//! The ActiveSync front end, judged by raw requests: what is sent and what is expected is written out here.

mod autodiscover;
mod enforcement;
mod faults;
mod malformed;
mod provisioning;
mod sync;
mod wipe;

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use causeway_mock_exchange::config::DefaultAccess;
use causeway_mock_exchange::phone::http::{Answer, Http, HttpError, Target};
use causeway_mock_exchange::world::{
    CasSettings, MailboxId, Organisation, PartnershipId, PolicyValue, Setting,
};
use causeway_mock_exchange::{Config, MockExchange};
use causeway_protocol::wbxml::tags::{folder_hierarchy, provision, settings};
use causeway_protocol::wbxml::{Element, Limits, decode, encode};
use http::Request;
use http_body_util::Full;

pub(crate) const USER: &str = "asmith";
const WITHIN: Duration = Duration::from_secs(20);

/// A mock with no partnerships.
pub(crate) async fn mock() -> MockExchange {
    mock_with(|_| {}).await
}

pub(crate) async fn mock_with(change: impl FnOnce(&mut Config)) -> MockExchange {
    let mut config = Config { partnerships: Some(0), ..Config::default() };
    change(&mut config);
    MockExchange::start(config).await.unwrap()
}

pub(crate) fn mailbox(mock: &MockExchange) -> MailboxId {
    mock.world().mailbox(USER).unwrap()
}

pub(crate) fn partnership(mock: &MockExchange, device_id: &str) -> PartnershipId {
    mock.world().partnership(mailbox(mock), device_id).unwrap()
}

/// Changes what client access knows of the mailbox. The mailbox is looked up first: the world is locked while it changes.
pub(crate) fn cas(mock: &MockExchange, change: impl FnOnce(&mut CasSettings)) {
    let mailbox = mailbox(mock);
    assert!(mock.world().write(None, |writer| writer.change_cas(mailbox, change)));
}

pub(crate) fn default_access(mock: &MockExchange, level: DefaultAccess) {
    mock.world().write(None, |writer| writer.change_settings(|settings| settings.default_access = level));
}

/// Changes one setting of the default policy.
pub(crate) fn policy(mock: &MockExchange, name: &str, value: PolicyValue) {
    let world = mock.world();
    let id = default_policy(&world);
    let setting = Setting::named(name).unwrap();
    world.write(None, |writer| writer.change_policy(id, |policy| policy.set(setting, value))).unwrap();
}

fn default_policy(world: &Organisation) -> causeway_mock_exchange::world::PolicyId {
    world.read(None, |reader| reader.policies().find(|(_, policy)| policy.is_default).unwrap().0)
}

/// One phone as a test writes its bytes.
pub(crate) struct Raw {
    http: Http,
    target: Target,
    credentials: String,
    pub(crate) version: &'static str,
    pub(crate) device_id: String,
    pub(crate) device_type: String,
    /// `X-MS-PolicyKey`, when it is sent at all.
    pub(crate) key: Option<String>,
}

impl Raw {
    pub(crate) fn new(mock: &MockExchange, device_id: &str, version: &'static str) -> Self {
        let password = mock.world().password_of(USER).unwrap();
        Self {
            http: Http::new(mock.ca().client_config()),
            target: Target::parse(mock.url("activesync")).unwrap(),
            credentials: STANDARD.encode(format!("{USER}:{password}")),
            version,
            device_id: device_id.to_owned(),
            device_type: "TestPhone".to_owned(),
            key: Some("0".to_owned()),
        }
    }

    pub(crate) async fn send(&self, command: &str, body: Vec<u8>) -> Result<Answer, HttpError> {
        let query =
            format!("Cmd={command}&User={USER}&DeviceId={}&DeviceType={}", self.device_id, self.device_type);
        self.send_query(&query, body).await
    }

    pub(crate) async fn send_query(&self, query: &str, body: Vec<u8>) -> Result<Answer, HttpError> {
        let mut request = Request::post(format!("{}?{query}", self.target.path))
            .header("Host", self.target.authority())
            .header("Authorization", format!("Basic {}", self.credentials))
            .header("MS-ASProtocolVersion", self.version)
            .header("User-Agent", "TestPhone/1.0");
        if let Some(key) = &self.key {
            request = request.header("X-MS-PolicyKey", key);
        }
        let request = request.body(Full::new(Bytes::from(body))).unwrap();
        self.http.send(&self.target, request, WITHIN).await
    }

    pub(crate) async fn post(&self, command: &str, body: &Element) -> Answer {
        self.send(command, encode(body).unwrap()).await.unwrap()
    }

    /// HTTP status, and the status in the body when there is one.
    pub(crate) async fn verdict(&self, command: &str, body: &Element) -> (u16, Option<u32>) {
        let answer = self.post(command, body).await;
        let status = (!answer.body.is_empty()).then(|| status(&root(&answer))).flatten();
        (answer.status, status)
    }

    pub(crate) async fn folder_sync(&self) -> (u16, Option<u32>) {
        self.verdict("FolderSync", &folder_sync("0")).await
    }

    /// Both steps of Provision; afterwards the phone shows its key. Gives the policy document.
    pub(crate) async fn provision(&mut self) -> Element {
        let first = root(&self.post("Provision", &ask_policy()).await);
        let offered = first.at(&[provision::POLICIES, provision::POLICY]).expect("a policy").clone();
        let key = offered.text_of(provision::POLICY_KEY).expect("a key");
        let last = root(&self.post("Provision", &confirm(&key, 1)).await);
        let policy = last.at(&[provision::POLICIES, provision::POLICY]).expect("a policy");
        assert_eq!(policy.text_of(provision::STATUS).as_deref(), Some("1"), "{last}");
        self.key = policy.text_of(provision::POLICY_KEY);
        offered.at(&[provision::DATA]).expect("a document").clone()
    }
}

pub(crate) fn folder_sync(key: &str) -> Element {
    Element::new(folder_hierarchy::FOLDER_SYNC).with(Element::leaf(folder_hierarchy::SYNC_KEY, key))
}

pub(crate) fn ask_policy() -> Element {
    let about = Element::new(settings::SET)
        .with(Element::leaf(settings::MODEL, "Test 1"))
        .with(Element::leaf(settings::OS, "TestOS 1"));
    Element::new(provision::PROVISION)
        .with(Element::new(settings::DEVICE_INFORMATION).with(about))
        .with(policies(vec![]))
}

pub(crate) fn confirm(key: &str, status: u32) -> Element {
    let rest = vec![Element::leaf(provision::POLICY_KEY, key), Element::leaf(provision::STATUS, status)];
    Element::new(provision::PROVISION).with(policies(rest))
}

pub(crate) fn policies(rest: Vec<Element>) -> Element {
    let policy = Element::new(provision::POLICY)
        .with(Element::leaf(provision::POLICY_TYPE, "MS-EAS-Provisioning-WBXML"))
        .with_all(rest);
    Element::new(provision::POLICIES).with(policy)
}

pub(crate) fn root(answer: &Answer) -> Element {
    assert_eq!(answer.status, 200, "{answer:?}");
    decode(&answer.body, &Limits::default()).unwrap()
}

pub(crate) fn status(root: &Element) -> Option<u32> {
    let status = root.elements().find(|child| child.tag.name() == Some("Status"))?;
    status.text().parse().ok()
}
