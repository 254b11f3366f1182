//! What every module must do, tried on each of [`FACTORIES`]. A new module inherits all of it.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::{
    FACTORIES, Module, ModuleContext, ModuleFactory, ModuleSettings, Outcome, Verdict, check_with_directories,
};
use crate::clock::Clock;
use crate::dial::direct::Dialer;
use crate::dial::proxy::Ways;
use crate::dial::resolve::Names;
use crate::limits::{DRAIN_WITHIN, MODULE_CHECK_WITHIN};
use crate::link::Detached;
use crate::random::RandomSource;
use crate::secrets::SecretStore;
use crate::status::StatusCell;
use crate::storage::memory::MemoryStorage;
use crate::wake::Wake;
use causeway_protocol::Secret;
use causeway_protocol::action::{Action, codes};
use causeway_protocol::channel::payload::Request;

fn settings(factory: &dyn ModuleFactory) -> ModuleSettings {
    let local = factory.example_local();
    let secrets = local.secrets.iter().map(|name| (name.clone(), Secret::new("a secret of the example")));
    ModuleSettings {
        desired: factory.example(),
        local: local.module,
        directories: local.directories,
        exchanges: local.exchanges,
        authorities: local.authorities,
        secrets: SecretStore::new(secrets),
        ..ModuleSettings::default()
    }
}

fn build(factory: &dyn ModuleFactory) -> Arc<dyn Module> {
    match factory.build(&settings(factory)) {
        Ok(module) => module,
        Err(error) => panic!("{}: its own example is refused: {error}", factory.kind()),
    }
}

/// Real sockets, and name servers that never answer: every peer is dead.
fn context() -> ModuleContext {
    let random = RandomSource::seeded(1);
    let names = Names::new(&["127.0.0.1:1".parse().unwrap()], random.clone()).unwrap();
    ModuleContext {
        dial: Arc::new(Dialer::new(names, Ways::none())),
        storage: Arc::new(MemoryStorage::new()),
        cloud: Arc::new(Detached::default()),
        clock: Clock::system(),
        stop: CancellationToken::new(),
        status: StatusCell::default(),
        random,
        wake: Wake::default(),
    }
}

#[test]
fn kinds_are_stable_words_and_differ() {
    let mut kinds: Vec<&str> = FACTORIES.iter().map(|factory| factory.kind()).collect();
    assert!(kinds.iter().all(|kind| kind.chars().all(|c| c.is_ascii_lowercase() || c == '_')), "{kinds:?}");
    kinds.sort_unstable();
    let before = kinds.len();
    kinds.dedup();
    assert_eq!(kinds.len(), before);
}

#[test]
fn keys_of_examples_are_snake_case() {
    fn keys(path: &str, value: &Value) {
        match value {
            Value::Object(fields) => {
                for (key, value) in fields {
                    let plain = key.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
                    assert!(plain, "{path}.{key}");
                    keys(&format!("{path}.{key}"), value);
                }
            }
            Value::Array(items) => items.iter().for_each(|item| keys(path, item)),
            _ => {}
        }
    }
    for factory in FACTORIES {
        keys(factory.kind(), &factory.example());
    }
}

#[test]
fn unknown_keys_are_refused_by_name() {
    for factory in FACTORIES {
        let kind = factory.kind();
        let refused = |settings: &ModuleSettings, key: &str| match factory.build(settings) {
            Ok(_) => panic!("{kind}: an unknown key was accepted"),
            Err(error) => assert!(format!("{error} {}", error.path).contains(key), "{kind}: {error}"),
        };
        let mut wrong = settings(*factory);
        wrong.desired["no_such_key"] = json!(1);
        refused(&wrong, "no_such_key");
        let mut wrong = settings(*factory);
        wrong.local = json!({ "no_such_local_key": 1 });
        refused(&wrong, "no_such_local_key");
    }
}

#[tokio::test]
async fn every_module_starts_and_stops_twice_with_its_peers_dead() {
    for factory in FACTORIES {
        for _ in 0..2 {
            let cx = context();
            let running = tokio::spawn(build(*factory).run(cx.clone()));
            // Stopped before, or while, it first talks to a peer: either must end in time.
            cx.stop.cancel();
            let ended = timeout(DRAIN_WITHIN, running).await;
            assert!(matches!(ended, Ok(Ok(_))), "{}: does not stop in time: {ended:?}", factory.kind());
        }
    }
}

#[tokio::test]
async fn the_doctor_names_a_dead_peer_and_a_remedy() {
    for factory in FACTORIES {
        let module = build(*factory);
        let results =
            timeout(MODULE_CHECK_WITHIN, check_with_directories(&*module, context())).await.unwrap();
        let failed: Vec<_> = results.iter().filter(|result| result.verdict() == Verdict::Fail).collect();
        assert!(!failed.is_empty(), "{}: all is well without any peer: {results:?}", factory.kind());
        assert!(failed.iter().all(|result| !result.remedy().is_empty()), "{}: {failed:?}", factory.kind());
        assert!(!format!("{results:?}").contains("a secret of the example"));
    }
}

#[tokio::test]
async fn unknown_actions_and_requests_have_their_code() {
    for factory in FACTORIES {
        let module = build(*factory);
        let action = Action {
            id: "a1".to_owned(),
            module: factory.kind().to_owned(),
            action: "no_such_action".to_owned(),
            target: Value::Null,
            params: Value::Null,
            ttl_ms: 1_000,
            attempt: 1,
            fence: None,
        };
        let outcome = timeout(Duration::from_secs(10), module.act(context(), action)).await.unwrap();
        let Outcome::Failure(error) = outcome else { panic!("{}: {outcome:?}", factory.kind()) };
        assert_eq!(error.code, codes::UNKNOWN_ACTION, "{}", factory.kind());
        let request = Request {
            module: factory.kind().to_owned(),
            request: "no_such_request".to_owned(),
            ttl_ms: 1_000,
            body: Secret::new("{}"),
        };
        let answer = timeout(Duration::from_secs(10), module.answer(context(), request)).await.unwrap();
        assert_eq!(answer.unwrap_err().code, codes::UNKNOWN_ACTION, "{}", factory.kind());
    }
}
