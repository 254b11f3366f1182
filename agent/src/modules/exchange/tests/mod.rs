mod acting;
mod against_mock;
mod catalog;
mod collecting;
mod fake;
mod quarantine;
mod site;

use std::sync::Arc;
use std::time::Duration;

use causeway_protocol::action::Action;
use causeway_protocol::record::Kind;
use serde_json::{Value, json};

use self::fake::Fake;
use super::*;
use crate::clock::Clock;
use crate::modules::testing::{MemoryCloud, context};
use crate::storage::Storage;
use crate::storage::memory::MemoryStorage;

/// A module before an organisation in memory.
struct Bench {
    fake: Fake,
    cloud: MemoryCloud,
    storage: MemoryStorage,
    module: Arc<ExchangeModule>,
    cx: ModuleContext,
    desired: Value,
}

/// The simulated clock starts here: 2026-11-23T06:00:00Z.
const NOW_MS: i64 = 1_795_413_600_000;

fn at_ms(ms: i64) -> String {
    let at = time::OffsetDateTime::from_unix_timestamp(ms / 1_000).unwrap();
    at.format(&time::format_description::well_known::Rfc3339).unwrap()
}

impl Bench {
    fn new(fake: Fake, desired: Value) -> Self {
        Self::over(fake, MemoryCloud::default(), MemoryStorage::new(), desired)
    }

    fn over(fake: Fake, cloud: MemoryCloud, storage: MemoryStorage, mut desired: Value) -> Self {
        // Small worlds: a handful of deletions is a large share.
        if desired.get("guard").is_none() {
            desired["guard"] = json!({"deletions_max": 1_000, "percent_max": 100});
        }
        fake.state().clock_ms = NOW_MS;
        let settings = ModuleSettings { desired: desired.clone(), ..ModuleSettings::default() };
        let module = Arc::new(ExchangeModule::new(&settings, Arc::new(fake.clone())).unwrap());
        let store: Arc<dyn Storage> = Arc::new(storage.clone());
        let mut cx = context(store, Arc::new(cloud.clone()));
        cx.clock = Clock::simulated(NOW_MS);
        Self { fake, cloud, storage, module, cx, desired }
    }

    /// The same agent after its process died.
    fn restarted(self) -> Self {
        self.fake.state().sessions = 0;
        let storage = self.storage.crash();
        Self::over(self.fake, self.cloud, storage, self.desired)
    }

    async fn lease(&self) -> LeaseGuard {
        self.cx.cloud.lease("exchange/default").await.unwrap()
    }

    /// One listing.
    async fn list(&self, task: Task) -> Result<Found, MailError> {
        self.module.runner.list(&self.cx, &self.lease().await, &task).await
    }

    /// All statistics that wait.
    async fn read(&self) -> Result<u64, MailError> {
        let (lease, mut read) = (self.lease().await, 0);
        loop {
            let until = Instant::now() + Duration::from_secs(3_600);
            let slice = self.module.runner.read_slice(&self.cx, &lease, until, || false).await?;
            read += slice.read;
            if slice.is_done {
                return Ok(read);
            }
        }
    }

    /// A listing and everything it leads to.
    async fn sync(&self) -> Value {
        match self.list(Task::default()).await {
            Ok(found) => {
                if let Err(error) = self.read().await {
                    panic!("{}\n{}", crate::chain::Chain(&error), self.shown());
                }
                found.result
            }
            Err(error) => panic!("{}\n{}", crate::chain::Chain(&error), self.shown()),
        }
    }

    async fn act(&self, action: &Action) -> Outcome {
        self.module.act(self.cx.clone(), action.clone()).await
    }

    /// Tries an action as the dispatcher does, until it ends.
    async fn settle(&self, action: &Action) -> Outcome {
        for _ in 0..500 {
            match self.act(action).await {
                Outcome::Pending { next_check, .. } => tokio::time::sleep(next_check).await,
                ended => return ended,
            }
        }
        panic!("{} does not end\n{}", action.action, self.shown());
    }

    /// The device record the cloud has.
    fn record(&self, n: usize) -> Value {
        self.cloud.values(Kind::Device)[&self.fake.phone(n).guid.to_string()].clone()
    }

    fn shown(&self) -> String {
        let state = self.fake.state();
        let last = state.log.len().saturating_sub(30);
        state.log[last..].join("\n")
    }
}

fn action(id: &str, name: &str, target: Value, params: Value) -> Action {
    Action {
        id: id.to_owned(),
        module: MODULE.to_owned(),
        action: name.to_owned(),
        target,
        params,
        ttl_ms: 600_000,
        attempt: 1,
        fence: None,
    }
}

fn on(fake: &Fake, n: usize) -> Value {
    let phone = fake.phone(n);
    let mailbox = fake.state().mailboxes[phone.mailbox].guid;
    json!({ "key": phone.guid.to_string(), "device_id": phone.device_id, "mailbox": mailbox.to_string() })
}

fn success(outcome: Outcome) -> Value {
    match outcome {
        Outcome::Success(result) => result,
        other => panic!("{other:?}"),
    }
}

fn failure(outcome: Outcome) -> ErrorReport {
    match outcome {
        Outcome::Failure(error) => error,
        other => panic!("{other:?}"),
    }
}

fn pending(outcome: Outcome) -> (Value, Duration) {
    match outcome {
        Outcome::Pending { result, next_check } => (result, next_check),
        other => panic!("{other:?}"),
    }
}
