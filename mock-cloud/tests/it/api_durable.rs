//! What survives: a restart keeps everything, and the audit log shows what was changed behind its back.

use serde_json::{Value, json};

use crate::support::World;
use crate::support::agent::Agent;
use crate::support::company::{company, records, upload};
use crate::support::http::Api;

/// Everything the API shows of a tenant, apart from who is online.
async fn picture(world: &World) -> Value {
    let api = Api(world);
    let mut picture = serde_json::Map::new();
    for path in ["users", "groups", "ous", "actions", "uploads", "alerts", "modules", "audit", "audit/verify"]
    {
        picture.insert(path.to_owned(), api.of_tenant(&format!("/{path}")).await);
    }
    let agents = api.of_tenant("/agents").await;
    let known: Vec<Value> = agents["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|agent| json!([agent["id"], agent["host"], agent["enrolled_ms"]]))
        .collect();
    picture.insert("agents".to_owned(), known.into());
    Value::Object(picture)
}

#[tokio::test]
async fn a_restart_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::on(dir.path(), None, |_| {}).await;
    let mut agent = Agent::online(&world).await;
    upload(&world, &mut agent, &records(&company(30))).await;
    world.configure("user_auth").await;
    world.order("user_auth", "nothing_known", 3_600_000).await;
    drop(agent);
    let (token, password) = (world.mock.token().to_owned(), world.mock.admin().password.expose().to_owned());
    let api = Api(&world);
    crate::support::until("the agent to be gone", async || {
        let agents = api.of_tenant("/agents").await;
        (agents["items"][0]["online"] == false).then_some(())
    })
    .await;
    let before = picture(&world).await;
    let tenant = world.tenant.clone();
    world.mock.stop().await;
    let world = World::on(dir.path(), Some(&tenant), |_| {}).await;
    assert_eq!(picture(&world).await, before);
    assert_eq!(
        (world.mock.token(), world.mock.admin().password.expose()),
        (token.as_str(), password.as_str())
    );
}

#[tokio::test]
async fn one_directory_has_one_cloud() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::on(dir.path(), None, |_| {}).await;
    let config = causeway_mock_cloud::Config { data_dir: Some(dir.path().to_owned()), ..Default::default() };
    let error = causeway_mock_cloud::MockCloud::start(config).await.err().expect("a second cloud is refused");
    assert!(error.to_string().contains("in use by another mock-cloud"), "{error}");
    drop(world);
}

#[tokio::test]
async fn a_changed_or_missing_audit_row_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::on(dir.path(), None, |_| {}).await;
    for n in 0..4 {
        world.order("user_visibility", &format!("verb_{n}"), 60_000).await;
    }
    let api = Api(&world);
    let verdict = api.of_tenant("/audit/verify").await;
    let newest = api.of_tenant("/audit?limit=1").await;
    assert_eq!((&verdict["intact"], &verdict["first_broken"]), (&json!(true), &Value::Null));
    assert_eq!(verdict["head"], newest["items"][0]["hash"]);
    assert!(verdict["rows"].as_u64().unwrap() >= 5, "{verdict}");

    let file = rusqlite::Connection::open(dir.path().join("cloud.sqlite")).unwrap();
    let tamper = |sql: &str| assert_eq!(file.execute(sql, [&world.tenant]).unwrap(), 1, "{sql}");
    tamper("UPDATE audit SET actor = 'someone' WHERE tenant = ?1 AND n = 3");
    let verdict = api.of_tenant("/audit/verify").await;
    assert_eq!((&verdict["intact"], &verdict["first_broken"]), (&json!(false), &json!(3)));
    tamper("UPDATE audit SET actor = 'test' WHERE tenant = ?1 AND n = 3");
    assert_eq!(api.of_tenant("/audit/verify").await["intact"], true, "put back as it was");
    tamper("DELETE FROM audit WHERE tenant = ?1 AND n = 2");
    let verdict = api.of_tenant("/audit/verify").await;
    assert_eq!((&verdict["intact"], &verdict["first_broken"]), (&json!(false), &json!(2)));
}

#[tokio::test]
async fn no_secret_is_in_any_file_of_the_store() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::on(dir.path(), None, |_| {}).await;
    let api = Api(&world);
    let key = api.post(&format!("/tenants/{}/enrollment-keys", world.tenant), json!({})).await.ok();
    let secret = key["key"].as_str().unwrap().rsplit('-').next().unwrap().to_owned();
    let body = json!({"username": "asmith", "password": "pw-canary-0815"});
    api.post(&format!("/tenants/{}/authenticate", world.tenant), body).await.ok();
    let (token, password) = (world.mock.token().to_owned(), world.mock.admin().password.expose().to_owned());
    world.mock.stop().await;
    for entry in std::fs::read_dir(dir.path()).unwrap() {
        let path = entry.unwrap().path();
        // admin.json is where the first credentials are meant to be; it is for its owner only.
        if path.is_dir() || path.ends_with("admin.json") {
            continue;
        }
        let bytes = std::fs::read(&path).unwrap();
        for canary in [secret.as_str(), "pw-canary-0815", &token, &password] {
            let found = bytes.windows(canary.len()).any(|window| window == canary.as_bytes());
            assert!(!found, "a secret is in {}", path.display());
        }
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = std::fs::metadata(dir.path().join("admin.json")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}
