//! Actions from acceptance to the outbox, with a module that waits until it is told to be done.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize};

use serde_json::json;

use super::*;
use crate::config::Settings;
use crate::modules::testing::{MemoryCloud, context};
use crate::modules::{CheckResult, ConfigError, ModuleError, ModuleFactory, ModuleSettings};
use crate::orchestrator::ModulesParts;
use crate::secrets::SecretStore;
use crate::storage::memory::{Gated, MemoryStorage};
use crate::storage::{Scoped, Table};

/// What the module does, seen from outside.
#[derive(Default)]
struct Patient {
    done: AtomicBool,
    acts: AtomicUsize,
}

struct PatientFactory(Arc<Patient>);

impl ModuleFactory for PatientFactory {
    fn kind(&self) -> &'static str {
        "patient"
    }

    fn example(&self) -> Value {
        json!({})
    }

    fn build(&self, _: &ModuleSettings) -> Result<Arc<dyn Module>, ConfigError> {
        Ok(Arc::new(PatientModule(self.0.clone())))
    }
}

struct PatientModule(Arc<Patient>);

impl Module for PatientModule {
    fn run(self: Arc<Self>, cx: ModuleContext) -> BoxFuture<'static, Result<(), ModuleError>> {
        Box::pin(async move {
            cx.stop.cancelled().await;
            Ok(())
        })
    }

    fn keeps(&self, action: &Action) -> bool {
        action.action == "keep"
    }

    fn act(&self, _: ModuleContext, _: Action) -> BoxFuture<'_, Outcome> {
        self.0.acts.fetch_add(1, Ordering::SeqCst);
        let outcome = if self.0.done.load(Ordering::SeqCst) {
            Outcome::Success(json!("done"))
        } else {
            Outcome::Pending { result: json!("waits"), next_check: Duration::from_secs(3_600) }
        };
        futures_util::future::ready(outcome).boxed()
    }

    fn answer(&self, _: ModuleContext, _: Request) -> BoxFuture<'_, Result<Value, ErrorReport>> {
        futures_util::future::ready(Ok(Value::Null)).boxed()
    }

    fn check(&self, _: ModuleContext) -> BoxFuture<'_, Vec<CheckResult>> {
        futures_util::future::ready(Vec::new()).boxed()
    }
}

struct Bench {
    patient: Arc<Patient>,
    storage: MemoryStorage,
    secrets: SecretStore,
    modules: Modules,
    dispatcher: Dispatcher,
    _folder: tempfile::TempDir,
}

impl Bench {
    async fn new() -> Self {
        let (patient, storage, secrets) =
            (Arc::new(Patient::default()), MemoryStorage::new(), SecretStore::default());
        let folder = tempfile::tempdir().unwrap();
        let whole: Arc<dyn Storage> = Arc::new(storage.clone());
        let own: Arc<dyn Storage> = Arc::new(Scoped::new(whole.clone(), "agent"));
        let template = context(own.clone(), Arc::new(MemoryCloud::default()));
        let (clock, stop) = (template.clock, template.stop.clone());
        // A factory lives as long as the program; a test's is a few bytes.
        let factory: &'static PatientFactory = Box::leak(Box::new(PatientFactory(patient.clone())));
        let modules = Modules::new(ModulesParts {
            factories: vec![factory],
            data_dir: PathBuf::from(folder.path()),
            settings: Settings::default(),
            secrets: secrets.clone(),
            own: own.clone(),
            whole,
            template,
        });
        let config = causeway_protocol::config::DesiredConfig {
            module: "patient".to_owned(),
            revision: 1,
            enabled: true,
            settings: json!({}),
        };
        modules.configure(config).await.unwrap();
        let capacity = Capacity { actions: 4, requests: 4 };
        let dispatcher = Dispatcher::new(own, modules.clone(), clock, capacity, stop).await.unwrap();
        Self { patient, storage, secrets, modules, dispatcher, _folder: folder }
    }

    async fn give(&self, attempt: u32, fence: Option<u64>) {
        self.dispatcher.accept(action("wait", attempt, fence)).await.unwrap();
    }

    /// Status and fence of every terminal report that is on its way, once there are so many.
    async fn ends(&self, count: usize) -> Vec<(Status, Option<u64>)> {
        let ends = || -> Vec<Report> {
            let stored = self.storage.dump().into_iter().filter(|(table, ..)| *table == Table::Outbox);
            stored.map(|(_, _, value)| serde_json::from_slice(&value).unwrap()).collect()
        };
        until("the ends", || ends().len() >= count).await;
        ends().into_iter().map(|report| (report.status, report.fence)).collect()
    }

    /// Waits until the action says that it is pending under this fence.
    async fn pends(&self, fence: Option<u64>) {
        let told = || self.dispatcher.outbox().told("a");
        until("the news", || told().is_some_and(|it| it.status == Status::Pending && it.fence == fence))
            .await;
    }

    fn acts(&self) -> usize {
        self.patient.acts.load(Ordering::SeqCst)
    }

    async fn asked(&self, times: usize) {
        until("the next try", || self.acts() >= times).await;
    }

    fn wake(&self) {
        self.modules.find("patient").unwrap().1.wake.call();
    }
}

fn action(verb: &str, attempt: u32, fence: Option<u64>) -> Action {
    Action {
        id: "a".to_owned(),
        module: "patient".to_owned(),
        action: verb.to_owned(),
        target: Value::Null,
        params: Value::Null,
        ttl_ms: 600_000,
        attempt,
        fence,
    }
}

async fn until(what: &str, is_so: impl Fn() -> bool) {
    for _ in 0..1_000 {
        if is_so() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    panic!("{what} did not come");
}

#[tokio::test(start_paused = true)]
async fn an_action_given_again_is_reported_under_the_lease_of_now() {
    let bench = Bench::new().await;
    bench.give(1, Some(5)).await;
    bench.pends(Some(5)).await;
    // Taken for dead, come back under a new lease, and given what it still has.
    bench.give(2, Some(6)).await;
    // An echo of the first order changes nothing.
    bench.give(1, Some(5)).await;
    bench.wake();
    bench.pends(Some(6)).await;
    bench.patient.done.store(true, Ordering::SeqCst);
    bench.wake();
    assert_eq!(bench.ends(1).await, [(Status::Success, Some(6))]);
    assert_eq!(bench.dispatcher.outbox().told("a"), None, "it is over");
    // It is done, and asked for once more under the next lease: what was done is not done again.
    let acts = bench.acts();
    bench.give(3, Some(7)).await;
    assert_eq!(bench.ends(2).await[1..], [(Status::Success, Some(7))]);
    // And by nobody's lease.
    bench.give(4, None).await;
    assert_eq!(bench.ends(3).await[2..], [(Status::Success, None)]);
    assert_eq!((bench.acts(), bench.dispatcher.outbox().waiting()), (acts, 3));
}

#[tokio::test(start_paused = true)]
async fn a_pending_action_says_the_same_once_and_looks_again_when_it_is_called() {
    let bench = Bench::new().await;
    bench.give(1, None).await;
    bench.pends(None).await;
    bench.wake();
    bench.asked(2).await;
    let watch = tokio::spawn(bench.modules.clone().wake_on_new_secrets());
    tokio::task::yield_now().await;
    bench.secrets.renew(&SecretStore::default());
    bench.asked(3).await;
    assert_eq!(bench.dispatcher.outbox().waiting(), 1, "there is no news");
    bench.patient.done.store(true, Ordering::SeqCst);
    bench.secrets.renew(&SecretStore::default());
    assert_eq!(bench.ends(1).await, [(Status::Success, None)]);
    assert_eq!(bench.dispatcher.outbox().waiting(), 1);
    watch.abort();
}

#[tokio::test(start_paused = true)]
async fn work_that_began_with_its_acceptance_ends_with_its_refusal() {
    let bench = Bench::new().await;
    bench.storage.set_full(true);
    assert!(bench.dispatcher.accept(action("keep", 1, None)).await.is_err());
    bench.storage.set_full(false);
    bench.patient.done.store(true, Ordering::SeqCst);
    bench.dispatcher.accept(action("keep", 2, Some(1))).await.unwrap();
    assert_eq!(bench.ends(1).await, [(Status::Success, Some(1))]);
    bench.wake();
    tokio::task::yield_now().await;
    assert_eq!(bench.dispatcher.outbox().waiting(), 1, "the first try has not gone on");
    let dump = bench.storage.crash().dump();
    assert!(dump.iter().any(|(table, ..)| *table == Table::Inbox), "the acceptance is on the disk");
}

#[tokio::test]
async fn only_the_end_of_kept_work_is_told_before_the_disk_has_it() {
    for (tell, told_before) in [(Tell::Stored, 0), (Tell::AtOnce, 1)] {
        let disk = Arc::new(Gated { inner: MemoryStorage::new(), gate: Arc::new(Semaphore::new(0)) });
        let inbox = Inbox::open(disk.clone(), Clock::system()).await.unwrap();
        let outbox = Outbox::open(disk.clone()).await.unwrap();
        let report = Some(Report::success("a", json!("done")));
        let row = Row { action: action("keep", 1, None), accepted_ms: 0, deadline_ms: 0, report };
        let mut finish = std::pin::pin!(outbox.finish(&inbox, &row, tell));
        assert!(futures_util::poll!(finish.as_mut()).is_pending(), "it ends when the disk has it");
        assert_eq!((outbox.waiting(), disk.inner.dump().len()), (told_before, 0), "{tell:?}");
        disk.gate.add_permits(1);
        finish.await.unwrap();
        assert_eq!(outbox.waiting(), 1, "{tell:?}");
        assert!(disk.inner.dump().iter().any(|(table, ..)| *table == Table::Outbox), "{tell:?}");
    }
}
