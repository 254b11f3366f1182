//! The module against mock-exchange over its real front ends: every generation, end to end.

use std::collections::{BTreeMap, BTreeSet};

use causeway_mock_exchange::MockExchange;
use causeway_mock_exchange::config::{DomainController, Replication};
use causeway_mock_exchange::world::{AccessReason, AccessState, Provision, WipeKind};
use causeway_mock_kit::fault::{Fault, Rule};
use causeway_protocol::mobile::DeviceRecord;

use super::site::{PHONES, Site};
use super::*;

#[tokio::test]
async fn every_generation_is_listed_and_acted_on() {
    for (personality, version) in [
        ("exchange2010", "2010"),
        ("exchange2013", "2013"),
        ("exchange2016", "2016"),
        ("exchange2019", "2019"),
        ("online", "online"),
    ] {
        let site = Site::start(personality, |_| {}, json!({})).await;
        let found = site.sync().await;
        assert!(found.complete, "{personality}");
        let records = site.records();
        assert_eq!(records.len(), PHONES, "{personality}\n{}", site.shown());
        assert_eq!(site.cloud.values(Kind::MailOrganization)["default"]["version"], version);
        assert!(site.cloud.count(Kind::DevicePolicy) > 0, "{personality}");
        for record in records.values() {
            assert_eq!(record.mailbox.len(), 36, "{personality}: {record:?}");
            assert!(
                record.address.as_deref().is_some_and(|it| it.contains('@')),
                "{personality}: {record:?}"
            );
        }
        assert!(records.values().any(|record| record.last_sync.is_some()), "{personality}");
        let uploads = site.cloud.uploads().len();
        site.sync().await;
        assert_eq!(
            site.cloud.uploads().len(),
            uploads,
            "{personality}: nothing changed and something was sent"
        );

        let (target, record) = site.target(3);
        success(site.settle("block_device", target.clone(), Value::Null).await);
        assert_eq!(site.state(&record), AccessState::Blocked, "{personality}");
        success(site.settle("approve_device", target.clone(), Value::Null).await);
        assert_eq!(site.state(&record), AccessState::Allowed, "{personality}");
        success(site.settle("remove_device", target, Value::Null).await);
        site.sync().await;
        assert_eq!(site.records().len(), PHONES - 1, "{personality}");
    }
}

#[tokio::test]
async fn exchange_2007_is_listed_and_acted_on() {
    let site = Site::start("exchange2007", |_| {}, json!({})).await;
    assert!(site.sync().await.complete);
    assert_eq!(site.records().len(), PHONES, "{}", site.shown());
    let (target, record) = site.target(0);
    success(site.settle("approve_device", target.clone(), Value::Null).await);
    assert_eq!(failure(site.settle("quarantine_on", Value::Null, Value::Null).await).code, "not_supported");
    success(site.settle("remove_device", target, Value::Null).await);
    site.sync().await;
    assert!(
        !site.records().values().any(|it| it.device_id == record.device_id && it.mailbox == record.mailbox)
    );
}

#[tokio::test]
async fn exchange_2007_blocks_one_phone_of_a_mailbox_and_opens_it_again() {
    let site = Site::start("exchange2007", |_| {}, json!({})).await;
    site.sync().await;
    let records: Vec<DeviceRecord> = site.records().into_values().collect();
    let of = |mailbox: &str| records.iter().filter(|it| it.mailbox == mailbox).cloned().collect::<Vec<_>>();
    let mine = records.iter().map(|it| of(&it.mailbox)).find(|mine| mine.len() > 1).unwrap();
    let states = || mine.iter().map(|it| site.state(it)).collect::<Vec<_>>();
    let key = |record: &DeviceRecord| {
        let is = |it: &DeviceRecord| it.device_id == record.device_id && it.mailbox == record.mailbox;
        site.records().into_iter().find(|(_, it)| is(it)).map(|(key, _)| key).unwrap()
    };
    let target = |record: &DeviceRecord| json!({ "key": key(record), "device_id": record.device_id, "mailbox": record.mailbox });
    let all_allowed = vec![AccessState::Allowed; mine.len()];
    // Where everybody may, an approval must not make a list that keeps the others out.
    success(site.settle("approve_device", target(&mine[0]), Value::Null).await);
    assert_eq!(states(), all_allowed, "{}", site.shown());
    let result = success(site.settle("block_device", target(&mine[0]), Value::Null).await);
    assert_eq!(result["access_state_before"], "allowed", "{result}");
    assert_eq!(result["new_phones"], "blocked until they are approved", "{result}");
    let mut expected = all_allowed.clone();
    expected[0] = AccessState::Blocked;
    assert_eq!(states(), expected, "{}", site.shown());
    site.sync().await;
    assert_eq!(site.records()[&key(&mine[0])].access_state, "blocked");
    assert_eq!(site.records()[&key(&mine[1])].access_state, "allowed");
    let order = action(
        "p",
        "preauthorise_device",
        Value::Null,
        json!({ "mailbox": mine[0].mailbox, "device_id": "NEWPHONE1" }),
    );
    success(site.module.act(site.cx.clone(), order).await);
    assert_eq!(states(), expected, "{}", site.shown());
    let result = success(site.settle("approve_device", target(&mine[0]), Value::Null).await);
    assert_eq!(
        (&result["access_state_before"], &result["new_phones"]),
        (&json!("blocked"), &json!("allowed"))
    );
    assert_eq!(states(), all_allowed, "{}", site.shown());
}

#[tokio::test]
async fn a_wipe_is_confirmed_by_the_phone() {
    let site = Site::start("exchange2019", |_| {}, json!({"phone_check_secs": 1})).await;
    site.sync().await;
    let records = site.records();
    let n = records.values().position(|it| it.client_type.as_deref() == Some("EAS")).unwrap();
    let (target, record) = site.target(n);
    let order = action("w", "wipe_device", target, json!({"scope": "full"}));
    let (result, _) = pending(site.module.act(site.cx.clone(), order.clone()).await);
    assert_eq!(result["waits_for"], "the phone", "{result}\n{}", site.shown());
    let id = site.phone(&record);
    let world = site.mock.world();
    assert_eq!(world.provision(id, 161, None), Provision::Wipe(WipeKind::Full));
    assert!(world.wipe_acknowledge(id, WipeKind::Full));
    let result = success(site.settle_same(order).await);
    assert!(result["acknowledged"].is_string(), "{result}");
}

#[tokio::test]
async fn quarantine_holds_new_phones_and_no_old_one() {
    let site = Site::start("exchange2016", |_| {}, json!({})).await;
    let result = success(site.settle("quarantine_on", Value::Null, Value::Null).await);
    assert_eq!(result["default_access"], "quarantined");
    let world = site.mock.world();
    let states: Vec<AccessState> = world.read(None, |reader| {
        let devices = (0..reader.device_slots()).filter_map(|n| reader.device_at(n));
        devices.map(|view| reader.decide(&view).state).collect()
    });
    assert_eq!(states.len(), PHONES);
    assert!(states.iter().all(|state| *state == AccessState::Allowed), "{states:?}");
    success(site.settle("quarantine_off", Value::Null, Value::Null).await);
}

#[tokio::test]
async fn policies_are_made_and_given_to_mailboxes() {
    for personality in ["exchange2010", "exchange2019", "online"] {
        let site = Site::start(personality, |_| {}, json!({})).await;
        site.sync().await;
        let settings = json!({"PasswordEnabled": true, "AllowCamera": false, "MinPasswordLength": 6});
        let params = json!({ "name": "Managers", "settings": settings });
        success(site.settle("create_policy", Value::Null, params).await);
        let change = json!({"name": "Managers", "settings": {"AllowCamera": true}});
        success(site.settle("change_policy", Value::Null, change).await);
        let (target, record) = site.target(1);
        success(site.settle("assign_policy", target.clone(), json!({"policy": "Managers"})).await);
        site.sync().await;
        let mine = site.records().into_values().find(|it| it.device_id == record.device_id).unwrap();
        let key = site.cloud.values(Kind::DevicePolicy);
        assert!(key.values().any(|it| it["name"] == "Managers"), "{personality}");
        assert!(mine.policy.is_some(), "{personality}: {mine:?}");
        success(site.settle("assign_policy", target, json!({"policy": null})).await);
    }
}

#[tokio::test]
async fn the_doctor_is_content_with_a_good_account() {
    let site = Site::start("exchange2019", |_| {}, json!({})).await;
    let results = site.module.check(site.cx.clone()).await;
    let bad: Vec<_> = results.iter().filter(|it| it.verdict() == crate::modules::Verdict::Fail).collect();
    assert!(bad.is_empty(), "{bad:#?}");
    assert!(results.iter().any(|it| it.name() == "exchange.version"), "{results:#?}");
}

#[tokio::test]
async fn databases_and_servers_divide_the_organisation() {
    let mut seen = 0;
    for n in 0..2 {
        let scope = |mock: &MockExchange| mock.world().servers()[n].clone();
        let plain = Site::start("exchange2019", |_| {}, json!({})).await;
        let server = scope(&plain.mock);
        let by_server =
            Site::start("exchange2019", |_| {}, json!({"scope": {"name": "s", "servers": [server.clone()]}}))
                .await;
        by_server.sync().await;
        let databases: Vec<String> = plain
            .mock
            .world()
            .databases()
            .iter()
            .filter(|database| database.server == server)
            .map(|database| database.name.clone())
            .collect();
        let by_database =
            Site::start("exchange2019", |_| {}, json!({"scope": {"name": "d", "databases": databases}}))
                .await;
        by_database.sync().await;
        let ids = |site: &Site| site.records().into_values().map(|it| it.device_id).collect::<Vec<_>>();
        assert_eq!(ids(&by_server), ids(&by_database));
        seen += by_server.records().len();
    }
    assert_eq!(seen, PHONES);
}

#[tokio::test]
async fn what_was_written_is_read_back_where_it_was_written() {
    let lagging = |config: &mut causeway_mock_exchange::Config| {
        let dc = |name: &str, replication| DomainController { name: name.to_owned(), replication };
        config.domain_controllers = vec![dc("dc1", Replication::LagMs(0)), dc("dc2", Replication::Manual)];
    };
    // The servers write to one and read from the other, which has not heard of it.
    let site = Site::start("exchange2019", lagging, json!({})).await;
    site.sync().await;
    let (target, record) = site.target(0);
    let order = action("b", "block_device", target, Value::Null);
    let (result, _) = pending(site.module.act(site.cx.clone(), order.clone()).await);
    assert_eq!(result["waits_for"], "replication", "{result}");
    site.mock.world().replicate();
    success(site.settle_same(order).await);
    assert_eq!(site.state(&record), AccessState::Blocked);

    let pinned = json!({ "domain_controller": "dc1.acme.example" });
    let site = Site::start("exchange2019", lagging, pinned).await;
    site.sync().await;
    let (target, _) = site.target(0);
    let order = action("b", "block_device", target, Value::Null);
    success(site.module.act(site.cx.clone(), order).await);
}

#[tokio::test]
async fn the_switch_to_quarantine_is_written_and_read_back_at_one_domain_controller() {
    // What is written on one never arrives at the other.
    let apart = |config: &mut causeway_mock_exchange::Config| {
        let dc = |name: &str| DomainController { name: name.to_owned(), replication: Replication::Manual };
        config.domain_controllers = vec![dc("dc1"), dc("dc2")];
    };
    for (named, expected) in [(Some("dc1.acme.example"), 0), (None, 1)] {
        let desired = named.map_or(json!({}), |name| json!({ "domain_controller": name }));
        let site = Site::start("exchange2019", apart, desired).await;
        let result = success(site.settle("quarantine_on", Value::Null, Value::Null).await);
        assert_eq!(result["allowed"], PHONES, "{result}\n{}", site.shown());
        let world = site.mock.world();
        let at = world.read(Some(expected), |reader| {
            let devices = (0..reader.device_slots()).filter_map(|n| reader.device_at(n));
            devices.map(|view| reader.decide(&view)).collect::<Vec<_>>()
        });
        let by_name =
            at.iter().filter(|it| it.state == AccessState::Allowed && it.reason == AccessReason::Individual);
        assert_eq!(by_name.count(), PHONES, "{expected}: {at:?}");
    }
}

#[tokio::test]
async fn forbidden_statistics_do_not_stop_a_listing() {
    let site = Site::start("online", |_| {}, json!({})).await;
    let refused = Rule::new(Fault::status("403", "no role")).on_operation("Get-MobileDeviceStatistics");
    let guard = site.mock.faults().guard(refused);
    let found = site.sync().await;
    assert!(found.complete);
    assert_eq!(guard.hits(), 1, "who says no once is not asked again");
    assert_eq!(site.records().len(), PHONES);
}

#[tokio::test]
async fn organizational_units_divide_the_organisation() {
    let of = async |unit: &str| {
        let scope = json!({ "name": "part", "organizational_units": [unit] });
        let site = Site::start("exchange2019", |_| {}, json!({ "scope": scope })).await;
        site.sync().await;
        site.records()
    };
    let plain = Site::start("exchange2019", |_| {}, json!({})).await;
    let world = plain.mock.world();
    let company = world.company();
    let path = |ou: usize| {
        let names = company.ou_path(ou).into_iter().map(|unit| unit.name.as_str());
        std::iter::once(company.domain.as_str()).chain(names).collect::<Vec<_>>().join("/")
    };
    let units: BTreeSet<String> = company.people.iter().map(|person| path(person.ou)).collect();
    assert!(units.len() > 3, "{units:?}");
    let mut by_unit = BTreeMap::new();
    for unit in &units {
        for (key, record) in of(unit).await {
            assert!(
                by_unit.insert(key, record.device_id).is_none(),
                "a phone of {unit} is in another one too"
            );
        }
    }
    assert_eq!(by_unit.len(), PHONES);
    assert_eq!(of(&company.domain).await.len(), PHONES, "with everything below");
    // A unit that is misspelt is no empty one.
    let scope = json!({ "name": "part", "organizational_units": ["acme.example/Lodnon"] });
    let site = Site::start("exchange2019", |_| {}, json!({ "scope": scope })).await;
    let lease = site.cx.cloud.lease("exchange/default").await.unwrap();
    let error = site.module.runner.list(&site.cx, &lease, &Task::default()).await.unwrap_err();
    assert!(error.report().detail.contains("acme.example/Lodnon"), "{error:?}");
    assert!(site.cloud.uploads().is_empty());
}

#[tokio::test]
async fn a_phone_that_is_gone_stays_in_the_cloud_for_the_hold() {
    const HOLD: Duration = Duration::from_secs(1);
    let site = Site::start("exchange2019", |_| {}, json!({ "deletion_hold_secs": HOLD.as_secs() })).await;
    site.sync().await;
    let id = site.phone(&site.target(2).1);
    let removed = Instant::now();
    assert!(site.mock.world().write(None, |writer| writer.remove_device(id)));
    loop {
        site.sync().await;
        match site.records().len() {
            PHONES => assert!(removed.elapsed() < Duration::from_secs(30), "it is never deleted"),
            left => break assert_eq!(left, PHONES - 1),
        }
    }
    assert!(removed.elapsed() >= HOLD, "deleted after {:?}", removed.elapsed());
}

#[tokio::test]
async fn a_phone_that_is_not_there_is_not_found() {
    // An identity nobody has may give every phone there is.
    for gives_all in [false, true] {
        let change =
            |config: &mut causeway_mock_exchange::Config| config.unknown_identity_returns_all = gives_all;
        let site = Site::start("exchange2019", change, json!({})).await;
        site.sync().await;
        let before = site.records();
        for name in ["block_device", "approve_device", "remove_device", "wipe_device"] {
            let (mut target, _) = site.target(0);
            target["key"] = json!("00000000-0000-4000-8000-000000000000");
            target["device_id"] = json!("NOBODYS1");
            let params = if name == "wipe_device" { json!({ "scope": "full" }) } else { Value::Null };
            match site.module.act(site.cx.clone(), action(name, name, target, params)).await {
                // It may be one that has not replicated yet: this is looked at again for a while.
                Outcome::Pending { result, .. } => assert_eq!(result["error"]["code"], "not_found", "{name}"),
                // What is gone is removed.
                other => {
                    assert!(name == "remove_device" && matches!(other, Outcome::Success(_)), "{other:?}")
                }
            }
        }
        site.sync().await;
        assert_eq!(site.records(), before, "{gives_all}");
        for cmdlet in ["Clear-MobileDevice", "Set-CASMailbox", "Remove-MobileDevice"] {
            let ran =
                site.mock.journal().count(|entry| entry.operation == "command" && entry.subject == cmdlet);
            assert_eq!(ran, 0, "{cmdlet} {gives_all}\n{}", site.shown());
        }
    }
}

#[tokio::test]
async fn online_a_scan_goes_on_with_a_new_token_and_over_pages() {
    const MANY: usize = 2_300;
    let change = |config: &mut causeway_mock_exchange::Config| {
        config.common.users = 400;
        config.partnerships = Some(MANY);
        config.rest.token_life_secs = 1;
    };
    let site = Site::start("online", change, json!({ "statistics": false })).await;
    // Each page takes longer than half a token's life.
    let slow = Rule::new(Fault::Delay { ms: 700 }).on_operation("Get-MobileDevice");
    let _slow = site.mock.faults().guard(slow);
    assert!(site.sync().await.complete);
    assert_eq!(site.records().len(), MANY, "{}", site.shown());
    let tokens = site.mock.journal().count(|entry| entry.front == "token" && entry.operation == "token");
    assert!(tokens > 1, "{tokens} tokens\n{}", site.shown());
}
