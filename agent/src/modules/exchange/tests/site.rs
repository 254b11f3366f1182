//! The module before mock-exchange over its real front ends, with a cloud in memory.

use std::collections::BTreeMap;

use causeway_mock_exchange::world::{AccessState, PartnershipId};
use causeway_mock_exchange::{Config, MockExchange};
use causeway_protocol::Secret;
use causeway_protocol::mobile::DeviceRecord;
use tempfile::TempDir;

use super::*;
use crate::secrets::SecretStore;

pub(super) const PHONES: usize = 30;

/// A module, its organisation and a cloud in memory.
pub(super) struct Site {
    pub(super) mock: MockExchange,
    pub(super) cloud: MemoryCloud,
    pub(super) module: Arc<ExchangeModule>,
    pub(super) cx: ModuleContext,
    _folder: TempDir,
}

impl Site {
    pub(super) async fn start(personality: &str, change: impl FnOnce(&mut Config), desired: Value) -> Self {
        Self::start_with(personality, change, desired, None).await
    }

    /// With a directory and its account's password.
    pub(super) async fn start_with(
        personality: &str,
        change: impl FnOnce(&mut Config),
        desired: Value,
        directory: Option<(Value, Secret)>,
    ) -> Self {
        let mut config = Config::of(personality);
        config.common.users = 20;
        config.partnerships = Some(PHONES);
        change(&mut config);
        let mock = MockExchange::start(config).await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        let (exchange, secret) = if personality == "online" {
            let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).unwrap();
            let params = rcgen::CertificateParams::new(vec!["app".into()]).unwrap();
            let pem = params.self_signed(&key).unwrap().pem();
            let certificate_file = folder.path().join("app.pem");
            std::fs::write(&certificate_file, &pem).unwrap();
            mock.register_app_certificate(&pem).unwrap();
            let facts = mock.world();
            let exchange = json!({
                "kind": "online", "tenant": facts.facts().tenant, "client_id": facts.facts().client_id,
                "certificate_file": certificate_file, "token_url": mock.url("token"), "rest_url": mock.url("rest"),
                "ca_file": mock.ca().pem_path(),
            });
            (exchange, ("exchange.default.key", key.serialize_pem()))
        } else {
            let login = mock.service_account();
            let exchange = json!({
                "servers": [mock.url("powershell")], "accounts": [{ "user": login.user }], "auth": ["basic", "ntlm"],
                "ca_file": mock.ca().pem_path(), "snap_in": personality == "exchange2007",
            });
            (exchange, ("exchange.default", login.password))
        };
        let settings = ModuleSettings {
            desired,
            exchanges: BTreeMap::from([("default".to_owned(), exchange)]),
            directories: directory.iter().map(|(it, _)| ("default".to_owned(), it.clone())).collect(),
            secrets: SecretStore::new(
                [(secret.0.to_owned(), Secret::new(secret.1))]
                    .into_iter()
                    .chain(directory.map(|(_, password)| ("directory.default".to_owned(), password))),
            ),
            ..ModuleSettings::default()
        };
        let organisation = Arc::new(Organisation::new("default", &settings).unwrap());
        let module = ExchangeModule::new(&settings, organisation.clone()).unwrap();
        let module = Arc::new(ExchangeModule { organisation: Some(organisation), ..module });
        let cloud = MemoryCloud::default();
        let cx = context(Arc::new(MemoryStorage::new()), Arc::new(cloud.clone()));
        Self { mock, cloud, module, cx, _folder: folder }
    }

    /// A listing and all statistics.
    pub(super) async fn sync(&self) -> Found {
        let lease = self.cx.cloud.lease("exchange/default").await.unwrap();
        let done = async {
            let found = self.module.runner.list(&self.cx, &lease, &Task::default()).await?;
            loop {
                let until = Instant::now() + Duration::from_secs(60);
                if self.module.runner.read_slice(&self.cx, &lease, until, || false).await?.is_done {
                    return Ok::<_, MailError>(found);
                }
            }
        };
        match done.await {
            Ok(found) => found,
            Err(error) => panic!("{}\n{}", crate::chain::Chain(&error), self.shown()),
        }
    }

    pub(super) fn records(&self) -> BTreeMap<String, DeviceRecord> {
        let values = self.cloud.values(Kind::Device);
        values.into_iter().map(|(key, value)| (key, serde_json::from_value(value).unwrap())).collect()
    }

    pub(super) fn target(&self, n: usize) -> (Value, DeviceRecord) {
        let (key, record) = self.records().into_iter().nth(n).unwrap();
        let target = json!({ "key": key, "device_id": record.device_id, "mailbox": record.mailbox });
        (target, record)
    }

    /// The phone of a record in the mock's world.
    pub(super) fn phone(&self, record: &DeviceRecord) -> PartnershipId {
        let world = self.mock.world();
        world.read(None, |reader| {
            let devices = (0..reader.device_slots()).filter_map(|n| reader.device_at(n));
            let mut mine = devices.filter(|view| *view.device.id == *record.device_id);
            mine.next().map(|view| view.id).expect("the phone is in the world")
        })
    }

    pub(super) fn state(&self, record: &DeviceRecord) -> AccessState {
        let id = self.phone(record);
        self.mock.world().read(None, |reader| reader.decide(&reader.device(id).unwrap()).state)
    }

    pub(super) async fn settle(&self, name: &str, target: Value, params: Value) -> Outcome {
        let order = action(&format!("{name}{target}{params}"), name, target, params);
        for _ in 0..200 {
            match self.module.act(self.cx.clone(), order.clone()).await {
                Outcome::Pending { result, next_check } if next_check > Duration::from_secs(10) => {
                    panic!("{name} waits: {result}\n{}", self.shown())
                }
                Outcome::Pending { next_check, .. } => tokio::time::sleep(next_check).await,
                ended => return ended,
            }
        }
        panic!("{name} does not end\n{}", self.shown());
    }

    pub(super) fn shown(&self) -> String {
        let entries = self.mock.journal().after(0);
        let last = entries.len().saturating_sub(25);
        entries[last..].iter().map(|entry| format!("{entry}\n")).collect()
    }

    pub(super) async fn settle_same(&self, order: Action) -> Outcome {
        for _ in 0..20 {
            match self.module.act(self.cx.clone(), order.clone()).await {
                Outcome::Pending { .. } => tokio::time::sleep(Duration::from_millis(100)).await,
                ended => return ended,
            }
        }
        panic!("it does not end\n{}", self.shown());
    }
}
