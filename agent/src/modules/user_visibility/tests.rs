mod hostile;
mod random;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use causeway_mock_kit::fault::{Fault, Rule};
use causeway_mock_ldap::Config;
use causeway_mock_ldap::dit::{Identity, ModOp, Modification, WriteOp};
use causeway_protocol::record::{Kind, UserRecord};
use causeway_protocol::upload::Mode;
use serde_json::json;

use super::run::Task;
use super::state::{Cursor, State, Store};
use super::*;
use crate::modules::Verdict;
use crate::modules::testing::{MemoryCloud, World, context, difference};
use crate::storage::memory::MemoryStorage;

/// A collection at work: no run loop, runs are made one by one.
struct Bench {
    world: World,
    module: Arc<UserVisibility>,
    cx: ModuleContext,
    desired: Value,
}

impl Bench {
    async fn start(personality: &str, desired: Value) -> Self {
        let mut config = Config::of(personality).with_servers(2);
        config.common.users = 60;
        Self::with(config, desired).await
    }

    async fn with(config: Config, mut desired: Value) -> Self {
        // Small worlds: a handful of deletions is a large share.
        if desired.get("guard").is_none() {
            desired["guard"] = json!({"deletions_max": 1_000, "percent_max": 100});
        }
        let world = World::start(config).await;
        let module = Arc::new(UserVisibility::new(&world.settings(desired.clone())).unwrap());
        let cx = world.context();
        Self { world, module, cx, desired }
    }

    async fn run(&self, task: Task) -> Result<Value, SyncError> {
        let lease = self.cx.cloud.lease("user_visibility/default").await.unwrap();
        self.module.runner.run(&self.cx, &lease, &task).await
    }

    async fn sync(&self) -> Value {
        match self.run(Task::default()).await {
            Ok(result) => result,
            Err(error) => panic!("{}\n{}", crate::chain::Chain(&error), self.world.shown_journal()),
        }
    }

    /// What a fresh agent would send to a fresh cloud now.
    async fn fresh(&self) -> MemoryCloud {
        let cloud = MemoryCloud::default();
        let module = UserVisibility::new(&self.world.settings(self.desired.clone())).unwrap();
        let cx = context(Arc::new(MemoryStorage::new()), Arc::new(cloud.clone()));
        let lease = cx.cloud.lease("user_visibility/default").await.unwrap();
        module.runner.run(&cx, &lease, &Task::default()).await.unwrap();
        cloud
    }

    async fn assert_current(&self, after: &str) {
        let fresh = self.fresh().await;
        let differences = difference(&self.world.cloud.objects(), &fresh.objects());
        assert!(differences.is_empty(), "after {after}: {differences:#?}\n{}", self.world.shown_journal());
    }

    fn write(&self, op: WriteOp) -> bool {
        let directory = self.world.ldap.directory();
        let manager = Identity::Manager { dn: "cn=test".into() };
        let done = directory.servers()[0].write(op, &manager, true);
        directory.replicate_now();
        if let Err(error) = &done {
            eprintln!("refused: {error}");
        }
        done.is_ok()
    }

    fn modify(&self, dn: &str, op: ModOp, attribute: &str, value: &str) -> bool {
        let values = vec![value.as_bytes().to_vec()];
        let change = Modification { op, attribute: attribute.to_owned(), values };
        self.write(WriteOp::Modify { dn: dn.as_bytes().to_vec(), changes: vec![change], permissive: false })
    }

    fn delete(&self, dn: &str) -> bool {
        self.write(WriteOp::Delete { dn: dn.as_bytes().to_vec(), tree: true })
    }

    fn rename(&self, dn: &str, rdn: &str, superior: Option<&str>) -> bool {
        self.write(WriteOp::ModifyDn {
            dn: dn.as_bytes().to_vec(),
            new_rdn: rdn.as_bytes().to_vec(),
            delete_old: true,
            new_superior: superior.map(|dn| dn.as_bytes().to_vec()),
        })
    }

    fn add_user(&self, unit: &str, login: &str) -> bool {
        let bytes = |text: &str| vec![text.as_bytes().to_vec()];
        let attribute = |name: &str, text: &str| (name.to_owned(), bytes(text));
        let (dn, mut attributes) = if self.is_ad() {
            let attributes = vec![attribute("objectClass", "user"), attribute("sAMAccountName", login)];
            (format!("CN=New {login},{unit}"), attributes)
        } else {
            let attributes = vec![
                attribute("objectClass", "inetOrgPerson"),
                attribute("uid", login),
                attribute("cn", login),
            ];
            (format!("uid={login},{unit}"), attributes)
        };
        attributes.push(attribute("sn", login));
        self.write(WriteOp::Add { dn: dn.into_bytes(), attributes })
    }

    fn is_ad(&self) -> bool {
        self.world.ldap.directory().personality().name == "active_directory"
    }

    /// DNs of a kind, in the order of their ids; without the account we bind as and what it is in.
    fn dns(&self, kind: Kind) -> Vec<String> {
        self.dns_in(&self.world.cloud, kind)
    }

    fn dns_in(&self, cloud: &MemoryCloud, kind: Kind) -> Vec<String> {
        let own = self.world.ldap.service_account().dn;
        let values = cloud.values(kind);
        let all = values.values().map(|value| value["dn"].as_str().unwrap().to_owned());
        all.filter(|dn| !crate::directory::dn::is_within(&own, dn)).collect()
    }
}

const STRATEGIES: [(&str, &str); 7] = [
    ("active_directory", "dirsync"),
    ("active_directory", "usn"),
    ("openldap", "syncrepl"),
    ("ds389", "changelog"),
    ("ds389", "syncrepl"),
    ("edirectory", "scan"),
    ("domino", "scan"),
];

#[tokio::test]
async fn a_first_snapshot_holds_the_company() {
    for personality in ["active_directory", "openldap", "ds389", "edirectory", "domino"] {
        let bench = Bench::start(personality, json!({"attributes": ["department"]})).await;
        let result = bench.sync().await;
        assert_eq!(result["mode"], "snapshot", "{personality}");
        let company = bench.world.ldap.world();
        let users = bench.world.cloud.values(Kind::User);
        let logins: BTreeSet<String> =
            users.values().map(|user| user["login"].as_str().unwrap().to_lowercase()).collect();
        for person in &company.people {
            assert!(
                logins.contains(&person.login.to_lowercase()),
                "{personality}: {} is missing among {logins:?}",
                person.login
            );
        }
        let groups = bench.world.cloud.values(Kind::Group);
        let names: BTreeSet<&str> = groups.values().map(|group| group["name"].as_str().unwrap()).collect();
        for group in &company.groups {
            assert!(names.contains(group.name.as_str()), "{personality}: {} of {names:?}", group.name);
        }
        let edges: usize = company.groups.iter().map(|group| group.members.len()).sum();
        assert!(bench.world.cloud.count(Kind::Member) >= edges, "{personality}");
        let disabled = users.values().filter(|user| user["enabled"] == false).count();
        // Domino has no such state.
        assert!(disabled > 0 || personality == "domino", "{personality}: some accounts are disabled");
        let with_parent = users.values().filter(|user| user["parent"].is_string()).count();
        // A flat Domino directory has no units.
        assert!(with_parent > 0 || personality == "domino", "{personality}: people are in units");
        let user: UserRecord = serde_json::from_value(users.values().next().unwrap().clone()).unwrap();
        assert!(user.attributes.keys().all(|name| name == "department"), "{personality}");
    }
}

#[tokio::test]
async fn nothing_travels_when_nothing_has_changed() {
    for (personality, strategy) in STRATEGIES {
        let bench = Bench::start(personality, json!({"strategy": strategy})).await;
        bench.sync().await;
        let uploads = bench.world.cloud.uploads().len();
        let result = bench.sync().await;
        assert_eq!(result["strategy"], strategy, "{personality}: {result}");
        assert_eq!(bench.world.cloud.uploads().len(), uploads, "{personality} {strategy}: {result}");
    }
}

#[tokio::test]
async fn every_kind_of_change_arrives_by_every_strategy() {
    for (personality, strategy) in STRATEGIES {
        let bench = Bench::start(personality, json!({"strategy": strategy})).await;
        bench.sync().await;
        let (users, groups, units) = (bench.dns(Kind::User), bench.dns(Kind::Group), bench.dns(Kind::Ou));
        let shown = format!("{personality} {strategy}");
        let step = async |what: &str, done: bool| {
            assert!(done, "{shown}: {what} was refused");
            let result = bench.sync().await;
            assert_eq!(result["strategy"], strategy, "{shown}: {what}");
            bench.assert_current(&format!("{shown}: {what}")).await;
        };
        step("change", bench.modify(&users[3], ModOp::Replace, "givenName", "Zoë")).await;
        step("delete", bench.delete(&users[5])).await;
        let unit = crate::directory::dn::parent(&users[7]).unwrap().to_owned();
        step("add", bench.add_user(&unit, "newcomer")).await;
        let old = &users[7];
        let rdn = if bench.is_ad() || !old.starts_with("uid") { "CN=Renamed Person" } else { "uid=renamed" };
        step("rename", bench.rename(old, rdn, None)).await;
        step("join", {
            let members = bench.world.cloud.objects();
            let free = (groups.iter())
                .find_map(|group| bench.modify(group, ModOp::Add, "member", &users[9]).then_some(()));
            assert!(!members.is_empty());
            free.is_some()
        })
        .await;
        step("leave", groups.iter().any(|group| bench.modify(group, ModOp::Delete, "member", &users[9])))
            .await;
        if let Some(unit) =
            units.iter().find(|unit| users.iter().any(|user| user.ends_with(&format!(",{unit}"))))
        {
            let rdn = format!("{}=Moved Unit", &unit[..2]);
            step("rename of a unit", bench.rename(unit, &rdn, None)).await;
        }
        step("delete of a group", bench.delete(&groups[0])).await;
    }
}

#[tokio::test]
async fn a_snapshot_that_was_interrupted_is_made_again() {
    let bench = Bench::start("active_directory", json!({})).await;
    let rule = Rule::new(Fault::Custom { word: "close_mid_page".into(), args: json!({"entries": 20}) });
    let cut = bench.world.ldap.faults().guard(rule.on_operation("search").on_front("ldaps"));
    let result = bench.sync().await;
    assert_ne!(result["server"], bench.world.ldap.address("ldaps"), "the second server served it");
    drop(cut);
    assert_eq!(bench.world.cloud.uploads().len(), 1);
    bench.assert_current("a cut").await;
}

#[tokio::test]
async fn long_member_lists_are_read_in_ranges() {
    let mut config = Config::default();
    config.common.users = 120;
    config.policies.values_max = Some(7);
    config.policies.page_size_max = Some(50);
    let bench = Bench::with(config, json!({})).await;
    bench.sync().await;
    let company = bench.world.ldap.world();
    let groups = bench.world.cloud.values(Kind::Group);
    let everyone = company.groups.iter().max_by_key(|group| group.members.len()).unwrap();
    let key = groups.iter().find(|(_, group)| group["name"] == everyone.name.as_str()).unwrap().0;
    let edges =
        bench.world.cloud.objects().into_keys().filter(|k| k.0 == Kind::Member && k.1 == *key).count();
    assert_eq!(edges, everyone.members.len());
}

#[tokio::test]
async fn primary_groups_count_as_memberships() {
    let bench = Bench::start("active_directory", json!({})).await;
    bench.sync().await;
    let groups = bench.world.cloud.values(Kind::Group);
    let Some((key, _)) = groups.iter().find(|(_, group)| group["name"] == "Domain Users") else {
        panic!("no Domain Users among {:?}", groups.values().map(|group| &group["name"]).collect::<Vec<_>>())
    };
    let edges =
        bench.world.cloud.objects().into_keys().filter(|k| k.0 == Kind::Member && k.1 == *key).count();
    assert!(edges >= bench.world.ldap.world().people.len(), "{edges}");
}

#[tokio::test]
async fn a_refused_cookie_leads_to_a_comparison_and_not_to_a_snapshot() {
    for (personality, strategy) in [("active_directory", "dirsync"), ("openldap", "syncrepl")] {
        let bench = Bench::start(personality, json!({"strategy": strategy})).await;
        bench.sync().await;
        let state = Store::new(bench.cx.storage.clone()).state().await.unwrap().unwrap();
        let cursor = match state.cursor.clone() {
            Cursor::Dirsync { context, .. } => Cursor::Dirsync { context, cookie: b"garbage".to_vec() },
            _ => Cursor::Syncrepl { cookie: b"garbage".to_vec() },
        };
        let mut batch = crate::storage::Batch::new();
        Store::put_state(&mut batch, &State { cursor, ..state });
        bench.cx.storage.commit(batch).await.unwrap();
        let users = bench.dns(Kind::User);
        assert!(bench.modify(&users[3], ModOp::Replace, "givenName", "Zoë"));
        let result = bench.sync().await;
        assert_eq!(result["mode"], "scan", "{personality}");
        let (mode, records) = bench.world.cloud.uploads()[1];
        assert_eq!((mode, records), (Mode::Delta, 1), "{personality}");
        bench.assert_current(personality).await;
    }
}

#[tokio::test]
async fn mass_deletion_is_held_until_a_person_confirms() {
    let guard = json!({"guard": {"deletions_max": 2, "percent_max": 1}});
    let bench = Bench::start("active_directory", guard).await;
    bench.sync().await;
    let before = bench.world.cloud.objects();
    for dn in &bench.dns(Kind::User)[..4] {
        bench.delete(dn);
    }
    let held = bench.run(Task::default()).await.unwrap_err();
    assert_eq!(held.code(), "held_by_guard");
    assert_eq!(bench.world.cloud.objects(), before);
    let lease = bench.cx.cloud.lease("user_visibility/default").await.unwrap();
    bench.module.tell(&bench.cx, &lease, &Err(held));
    let notices = bench.world.cloud.notices();
    let notice = notices.iter().find(|notice| notice.code == "held_by_guard" && !notice.resolved).unwrap();
    assert_eq!(notice.severity, Severity::Critical);
    assert!(notice.detail.contains("4 of"), "{}", notice.detail);
    let dry = bench.run(Task { dry: true, ..Task::default() }).await.unwrap();
    assert_eq!(dry["counts"]["user.delete"], 4, "{dry}");
    assert_eq!(dry["samples"]["user.delete"].as_array().map(Vec::len), Some(4));
    assert_eq!(bench.world.cloud.objects(), before, "a dry run sends nothing");
    let held = bench.run(Task::default()).await.unwrap_err();
    assert_eq!(held.code(), "held_by_guard", "a dry run forgets nothing");
    bench.run(Task { confirmed: true, ..Task::default() }).await.unwrap();
    bench.assert_current("confirmation").await;
    assert!(
        bench.world.cloud.notices().iter().any(|n| n.code == "held_by_guard" && n.resolved),
        "the alert closes"
    );
}

#[tokio::test]
async fn an_emptied_scope_is_held_in_a_scan_too() {
    let guard = json!({"guard": {"deletions_max": 2, "percent_max": 1}});
    let bench = Bench::start("active_directory", guard).await;
    bench.sync().await;
    let before = bench.world.cloud.objects();
    let narrowed = json!({"user_filter": "(cn=nobody)", "guard": {"deletions_max": 2, "percent_max": 1}});
    let module = UserVisibility::new(&bench.world.settings(narrowed)).unwrap();
    let lease = bench.cx.cloud.lease("user_visibility/default").await.unwrap();
    let held = module.runner.run(&bench.cx, &lease, &Task::default()).await.unwrap_err();
    assert_eq!(held.code(), "held_by_guard");
    assert_eq!(bench.world.cloud.objects(), before);
}

#[tokio::test]
async fn a_commit_whose_answer_was_lost_ends_in_the_same_state() {
    let bench = Bench::start("active_directory", json!({})).await;
    bench.sync().await;
    assert!(bench.delete(&bench.dns(Kind::User)[2]));
    bench.world.cloud.lose_next_commit_answer();
    assert!(bench.run(Task::default()).await.is_err());
    // The cloud is an epoch ahead of us: only a complete picture can be trusted.
    let result = bench.sync().await;
    assert_eq!(result["mode"], "snapshot");
    bench.assert_current("a lost answer").await;
}

#[tokio::test]
async fn a_cloud_that_lost_everything_is_found_by_the_first_run_after_a_start() {
    let mut bench = Bench::start("active_directory", json!({})).await;
    bench.sync().await;
    bench.world.cloud.lose_everything();
    // Nothing changes in the directory.
    bench.module = Arc::new(UserVisibility::new(&bench.world.settings(bench.desired.clone())).unwrap());
    assert_eq!(bench.sync().await["mode"], "snapshot");
    bench.assert_current("a loss").await;
    assert_eq!(bench.sync().await["mode"], "delta");
}

#[tokio::test]
async fn another_server_goes_on_where_the_first_one_stopped() {
    for (personality, strategy, mode) in [
        ("active_directory", "dirsync", "delta"),
        ("openldap", "syncrepl", "delta"),
        ("active_directory", "usn", "scan"),
    ] {
        let bench = Bench::start(personality, json!({"strategy": strategy})).await;
        bench.sync().await;
        assert!(bench.modify(&bench.dns(Kind::User)[3], ModOp::Replace, "givenName", "Zoë"));
        bench.world.ldap.faults().set_down("ldaps");
        let result = bench.sync().await;
        assert_eq!(result["mode"], mode, "{personality} {strategy}");
        let (mode, records) = bench.world.cloud.uploads()[1];
        assert_eq!((mode, records), (Mode::Delta, 1), "{personality} {strategy}: only the change travels");
        bench.assert_current(strategy).await;
    }
}

#[tokio::test]
async fn without_the_right_to_replicate_usn_takes_over() {
    let bench = Bench::start("active_directory", json!({})).await;
    bench.world.ldap.directory().set_service_may_replicate(false);
    let result = bench.sync().await;
    assert_eq!(result["strategy"], "usn");
    assert!(bench.delete(&bench.dns(Kind::User)[2]));
    bench.sync().await;
    bench.assert_current("a deletion").await;
    let checks = Module::check(&*bench.module, bench.cx.clone()).await;
    let history = checks.iter().find(|check| check.name() == "user_visibility.changes").unwrap();
    assert_eq!(history.verdict(), Verdict::Warn, "{history:?}");
    assert!(history.remedy().contains("Replicating Directory Changes"), "{history:?}");
}

#[tokio::test]
async fn deletions_are_found_where_deleted_objects_may_not_be_listed() {
    let mut config = Config::default();
    config.common.users = 60;
    config.accounts.service_sees_deleted = false;
    let bench = Bench::with(config, json!({"strategy": "usn"})).await;
    bench.sync().await;
    assert!(bench.delete(&bench.dns(Kind::User)[2]));
    let result = bench.sync().await;
    assert_eq!(result["mode"], "delta");
    bench.assert_current("a deletion").await;
}

#[tokio::test]
async fn ids_are_not_compared_where_deleted_objects_may_be_listed_and_none_are_there() {
    for (visible, compares) in [(true, false), (false, true)] {
        let mut config = Config::default();
        config.common.users = 60;
        config.accounts.service_sees_deleted = visible;
        let bench = Bench::with(config, json!({"strategy": "usn"})).await;
        bench.sync().await;
        let users = bench.dns(Kind::User);
        assert!(bench.modify(&users[3], ModOp::Replace, "givenName", "Zoë"));
        let before = bench.world.ldap.journal().last_seq();
        bench.sync().await;
        let searches = bench.world.ldap.journal().after(before);
        let large = searches.iter().any(|search| {
            search.detail["entries"].as_u64().is_some_and(|entries| entries >= users.len() as u64)
        });
        assert_eq!(large, compares, "{}", bench.world.shown_journal());
        bench.assert_current("a change").await;
    }
}

#[tokio::test]
async fn scope_decides_what_is_seen_and_moves_are_noticed() {
    let wide = Bench::start("active_directory", json!({})).await;
    wide.sync().await;
    let units = wide.dns(Kind::Ou);
    let users = wide.dns(Kind::User);
    let count = |unit: &String| users.iter().filter(|user| user.ends_with(&format!(",{unit}"))).count();
    let inside = units.iter().filter(|unit| count(unit) > 1).max_by_key(|unit| unit.len()).unwrap().clone();
    let outside =
        units.iter().find(|unit| !unit.ends_with(&inside) && !inside.ends_with(*unit)).unwrap().clone();
    let bench = Bench::start("active_directory", json!({"bases": [inside]})).await;
    bench.sync().await;
    let seen = bench.dns(Kind::User);
    assert!(!seen.is_empty() && seen.iter().all(|dn| dn.ends_with(&inside)), "{seen:?}");
    let rdn = seen[0].strip_suffix(&format!(",{inside}")).unwrap_or("CN=Moved").to_owned();
    assert!(bench.rename(&seen[0], &rdn, Some(&outside)));
    bench.sync().await;
    bench.assert_current("a move out").await;
    assert_eq!(bench.dns(Kind::User).len(), seen.len() - 1);
    assert!(bench.rename(&format!("{rdn},{outside}"), &rdn, Some(&inside)));
    bench.sync().await;
    bench.assert_current("a move in").await;
    assert_eq!(bench.dns(Kind::User).len(), seen.len());
}

#[tokio::test]
async fn one_user_can_be_fetched_at_once() {
    let bench = Bench::start("active_directory", json!({})).await;
    bench.sync().await;
    let company = bench.world.ldap.world();
    let person = &company.people[0];
    let users = bench.world.cloud.values(Kind::User);
    let dn = users.values().find(|user| user["login"] == *person.login).unwrap()["dn"].as_str().unwrap();
    assert!(bench.modify(dn, ModOp::Replace, "givenName", "Alicia"));
    assert!(bench.modify(&bench.dns(Kind::User)[7], ModOp::Replace, "givenName", "Not Yet"));
    let task = Task { user: Some(person.login.to_string()), ..Task::default() };
    let result = bench.run(task).await.unwrap();
    assert_eq!(result["counts"]["user.upsert"], 1, "{result}");
    bench.sync().await;
    bench.assert_current("the rest").await;
    let task = Task { user: Some("nobody".into()), ..Task::default() };
    assert_eq!(bench.run(task).await.unwrap_err().code(), "no_such_user");
}

#[tokio::test]
async fn a_crash_at_any_commit_is_survived() {
    let bench = Bench::start("active_directory", json!({})).await;
    bench.sync().await;
    assert!(bench.delete(&bench.dns(Kind::User)[2]));
    let survivor = bench.world.storage.crash();
    assert!(bench.run(Task::default()).await.is_err(), "a dead storage takes nothing");
    let cx = context(Arc::new(survivor), Arc::new(bench.world.cloud.clone()));
    let bench = Bench { cx, ..bench };
    bench.sync().await;
    bench.assert_current("a crash").await;
}

#[tokio::test]
async fn a_full_disk_stops_the_run_and_nothing_else() {
    let bench = Bench::start("active_directory", json!({})).await;
    bench.world.storage.set_full(true);
    let error = bench.run(Task::default()).await.unwrap_err();
    assert_eq!(error.code(), "storage");
    assert!(bench.world.cloud.uploads().is_empty(), "nothing counts before it can be remembered");
    bench.world.storage.set_full(false);
    bench.sync().await;
    bench.assert_current("room again").await;
}

#[tokio::test]
async fn the_run_loop_takes_orders_and_stops_when_its_lease_is_lost() {
    let bench = Bench::start("active_directory", json!({"delta_every_secs": 86_400})).await;
    let running = tokio::spawn(bench.module.clone().run(bench.cx.clone()));
    let action = |name: &str, params: Value| Action {
        id: "1".into(),
        module: MODULE.into(),
        action: name.into(),
        target: Value::Null,
        params,
        ttl_ms: 60_000,
        attempt: 1,
        fence: None,
    };
    let act = |action: Action| bench.module.act(bench.cx.clone(), action);
    let done = act(action("sync_now", json!({}))).await;
    assert!(matches!(done, Outcome::Success(_)), "{done:?}");
    let told = bench.world.cloud.progress_seen();
    let (last, before) = told.split_last().expect("a run tells how it goes");
    assert!(last.finished && before.iter().all(|told| !told.finished), "{told:?}");
    assert!(before.iter().any(|told| told.done > 0), "while it runs too: {told:?}");
    assert!(told.is_sorted_by_key(|told| told.done), "{told:?}");
    for (name, params, code) in [
        ("sync_now", json!({"dry": true}), "bad_parameters"),
        ("sync_user", json!({}), "bad_parameters"),
        ("wipe", json!({}), "unknown_action"),
        ("sync_user", json!({"user": "nobody"}), "no_such_user"),
    ] {
        let Outcome::Failure(report) = act(action(name, params)).await else { panic!("{name}") };
        assert_eq!(report.code, code);
    }
    let slow = Rule::new(Fault::Custom { word: "slow_page".into(), args: json!({"ms_per_entry": 200}) });
    let _slow = bench.world.ldap.faults().guard(slow.on_operation("search"));
    let order = act(action("sync_now", json!({"full": true})));
    let lose = async {
        let seen = bench.world.ldap.journal().last_seq();
        let _ =
            bench.world.ldap.journal().wait(seen, Duration::from_secs(2), |e| e.operation == "search").await;
        bench.world.cloud.take_lease_away();
    };
    let (outcome, ()) = tokio::join!(order, lose);
    let Outcome::Failure(report) = outcome else { panic!("{outcome:?}") };
    assert_eq!(report.code, "stale_fence");
    bench.cx.stop.cancel();
    let ended = tokio::time::timeout(Duration::from_secs(5), running).await;
    assert!(ended.is_ok_and(|ended| ended.unwrap().is_ok()));
}

#[test]
fn every_code_has_its_row() {
    use crate::directory::error::DirectoryError;
    let codes: BTreeSet<&str> = SyncError::TABLE.iter().map(|row| row.0).collect();
    assert_eq!(codes.len(), SyncError::TABLE.len(), "no code twice");
    for error in [
        SyncError::LeaseLost,
        SyncError::Stopping,
        SyncError::NotRunning,
        SyncError::BadState { what: "x" },
        SyncError::TooManyChanges { limit: 1 },
        SyncError::TooManyUnits { limit: 1 },
        SyncError::CursorLost { strategy: "usn", reason: String::new() },
        SyncError::Link { source: LinkError::Offline },
        SyncError::Link { source: LinkError::StaleFence },
        SyncError::Storage { source: crate::storage::StorageError::Closed },
        SyncError::Directory { source: DirectoryError::NoServer { domain: "x".into() } },
    ] {
        assert!(!error.report().remedy.is_empty());
    }
}
