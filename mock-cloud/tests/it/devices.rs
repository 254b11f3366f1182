//! Phones: through the API and the portal, recognised among the enrolled ones, and judged by the compliance rule.

use serde_json::{Value, json};

use crate::support::agent::Agent;
use crate::support::company::upload;
use crate::support::http::{Api, Browser};
use crate::support::{World, until};

/// One phone in one mailbox.
fn phone(key: &str, user: &str, state: &str) -> Value {
    json!({"op": "upsert", "kind": "device", "key": key, "v": {
        "system": "exchange", "device_id": format!("APPL{key}"), "identity": format!("acme.example/{user}/{key}"),
        "mailbox": format!("mailbox-{user}"), "address": format!("{user}@acme.example"), "user": user,
        "display_name": format!("{user} Example"), "model": "iPhone 15", "access_state": state, "access_reason": "global",
        "policy": "Default", "last_sync": "2026-11-22T10:00:00Z"}})
}

fn surroundings() -> [Value; 2] {
    [
        json!({"op": "upsert", "kind": "device_policy", "key": "p1", "v": {"system": "exchange", "name": "Default",
            "is_default": true, "settings": {"MinPasswordLength": "6"}}}),
        json!({"op": "upsert", "kind": "mail_organization", "key": "Acme", "v": {"system": "exchange", "name": "Acme",
            "version": "2019", "default_access": "quarantined", "settings": {}}}),
    ]
}

async fn rule(api: &Api<'_>, tenant: &str, rule: Value) -> Value {
    api.put(&format!("/tenants/{tenant}/compliance"), rule).await.ok()
}

async fn enrol(api: &Api<'_>, tenant: &str, phone: Value) -> String {
    let answer = api.post(&format!("/tenants/{tenant}/enrolled-devices"), phone).await.ok();
    answer["id"].as_str().unwrap().to_owned()
}

/// Verbs ordered for a phone, oldest first, with the reason in the timeline.
async fn orders(api: &Api<'_>, key: &str) -> Vec<(String, String)> {
    let list = api.of_tenant(&format!("/actions?key={key}")).await;
    let mut orders = Vec::new();
    for action in list["items"].as_array().unwrap().iter().rev() {
        let whole = api.of_tenant(&format!("/actions/{}", action["id"].as_str().unwrap())).await;
        let reason = whole["timeline"][0]["detail"].as_str().unwrap().to_owned();
        orders.push((whole["action"].as_str().unwrap().to_owned(), reason));
    }
    orders
}

/// Waits until the rule has looked at all phones since `since_ms` by the cloud's clock.
async fn looked(world: &World, since_ms: i64) -> Value {
    until("a look at all phones", async || {
        let seen = Api(world).of_tenant("/compliance").await;
        (seen["evaluated_ms"].as_i64()? >= since_ms).then_some(seen)
    })
    .await
}

#[tokio::test]
async fn phones_are_listed_searched_and_filtered() {
    let world = World::start().await;
    let mut agent = Agent::online(&world).await;
    let states = ["allowed", "quarantined", "blocked"];
    let mut records: Vec<Value> =
        (0..30).map(|n| phone(&format!("d{n:02}"), &format!("user{n:02}"), states[n % 3])).collect();
    records.extend(surroundings());
    upload(&world, &mut agent, &records).await;
    let api = Api(&world);
    let mut seen = Vec::new();
    let mut after = String::new();
    loop {
        let page = api.of_tenant(&format!("/devices?state=quarantined&limit=4{after}")).await;
        seen.extend(page["items"].as_array().unwrap().iter().map(|it| it["id"].as_str().unwrap().to_owned()));
        match page["next"].as_str() {
            Some(next) => after = format!("&after={next}"),
            None => break,
        }
    }
    let expected: Vec<String> = (0..30).filter(|n| n % 3 == 1).map(|n| format!("d{n:02}")).collect();
    assert_eq!(seen, expected);
    for (q, found) in [("USER07", 1), ("appld2", 10), ("iphone%2015", 30), ("%25", 0)] {
        let items = &api.of_tenant(&format!("/devices?q={q}")).await["items"];
        assert_eq!(items.as_array().unwrap().len(), found, "{q}");
    }
    let one = api.of_tenant("/devices/d07").await;
    assert_eq!(one["device_id"], "APPLd07");
    assert_eq!(one["merge"]["why"], "no enrolled phone has its ActiveSync id or IMEI");
    assert_eq!(api.of_tenant("/policies").await["items"][0]["devices"], 30);
    assert_eq!(api.of_tenant("/mail-organizations").await["items"][0]["default_access"], "quarantined");
    assert_eq!(api.of_tenant("").await["counts"]["devices"], 30);
    // A snapshot that names fewer forgets the rest.
    upload(&world, &mut agent, &records[..10]).await;
    let source = &api.of_tenant("/sources").await["items"][0];
    assert_eq!((&source["counts"]["devices"], &source["counts"]["device_policies"]), (&json!(10), &json!(0)));
    let other = api.post("/tenants", json!({"name": "Other"})).await.ok()["id"].as_str().unwrap().to_owned();
    api.get(&format!("/tenants/{other}/devices/d07")).await.problem(404, "not_found");
    for list in ["devices", "policies", "mail-organizations", "enrolled-devices", "compliance/findings"] {
        let found = api.get(&format!("/tenants/{other}/{list}")).await.ok();
        assert_eq!(found["items"], json!([]), "{list} of another tenant");
    }
}

#[tokio::test]
async fn a_phone_is_recognised_and_says_why() {
    let world = World::start().await;
    let mut agent = Agent::online(&world).await;
    upload(&world, &mut agent, &[phone("d1", "ada", "allowed")]).await;
    let api = Api(&world);
    let tenant = world.tenant.as_str();
    enrol(&api, tenant, json!({"user": "ada@acme.example", "model": "iphone 15", "compliant": true})).await;
    let weak = api.of_tenant("/devices/d1").await;
    assert_eq!(weak["merge"]["enrolment"], "not_enrolled");
    assert_eq!(weak["merge"]["candidates"][0]["why"], json!(["same user and model: not enough"]));
    let known = json!({"user": "ada", "device_id": "appld1", "compliant": true});
    let id = enrol(&api, tenant, known.clone()).await;
    let strong = api.of_tenant("/devices/d1").await;
    assert_eq!(
        (&strong["merge"]["enrolled"]["id"], &strong["merge"]["why"]),
        (&json!(id), &json!("same ActiveSync id"))
    );
    // The same phone again is the same one.
    let again = api.post(&format!("/tenants/{tenant}/enrolled-devices"), known).await;
    assert_eq!((again.status.as_u16(), &again.json()["id"]), (200, &json!(id)));
    let browser = Browser::signed_in(&world).await;
    let page = browser.get(&format!("/t/{tenant}/devices/d1")).await;
    assert!(page.text.contains("Recognised by: same ActiveSync id."), "{}", page.text);
    assert!(page.text.contains("same user and model: not enough"), "{}", page.text);
    let gone =
        api.call(http::Method::DELETE, &format!("/tenants/{tenant}/enrolled-devices/{id}"), None).await;
    assert_eq!(gone.status, 204);
    assert_eq!(api.of_tenant("/devices/d1").await["merge"]["enrolled"], Value::Null);
    let nobody = api.post(&format!("/tenants/{tenant}/enrolled-devices"), json!({"user": " "})).await;
    nobody.problem(400, "invalid_request");
}

#[tokio::test]
async fn the_rule_orders_once_per_change_and_takes_only_its_own_blocks_back() {
    let world = World::start().await;
    let mut agent = Agent::online(&world).await;
    let api = Api(&world);
    let tenant = world.tenant.as_str();
    let ada = json!({"user": "ada", "device_id": "APPLd1", "compliant": false});
    let id = enrol(&api, tenant, ada).await;
    upload(&world, &mut agent, &[phone("d1", "ada", "allowed"), phone("d2", "bob", "allowed")]).await;

    let dry = json!({"enabled": true, "grace_secs": 0});
    let since = rule(&api, tenant, dry).await["changed_ms"].as_i64().unwrap();
    looked(&world, since).await;
    let wanted = api.of_tenant("/compliance/findings?wanted=true").await;
    assert_eq!(wanted["items"].as_array().unwrap().len(), 1, "{wanted}");
    assert_eq!(
        (&wanted["items"][0]["device"], &wanted["items"][0]["wants"]),
        (&json!("d1"), &json!("block_device"))
    );
    assert_eq!(orders(&api, "d1").await, [], "a dry run orders nothing");

    let on = json!({"enabled": true, "dry_run": false, "grace_secs": 0});
    rule(&api, tenant, on.clone()).await;
    let block = (
        "block_device".to_owned(),
        "compliance rule: it is enrolled and not compliant (same ActiveSync id)".to_owned(),
    );
    let first = until("the block", async || {
        let orders = orders(&api, "d1").await;
        (!orders.is_empty()).then_some(orders)
    })
    .await;
    assert_eq!(first, std::slice::from_ref(&block));
    let page = Browser::signed_in(&world).await.get(&format!("/t/{tenant}/devices/d1")).await;
    assert!(page.text.contains("What it ordered") && page.text.contains("Block phone"), "{}", page.text);

    // A person approves it against the rule; the rule does not argue.
    let now = world.cloud().now_ms();
    upload(&world, &mut agent, &[phone("d1", "ada", "allowed"), phone("d2", "bob", "allowed")]).await;
    looked(&world, now).await;
    assert_eq!(orders(&api, "d1").await, std::slice::from_ref(&block));

    // It becomes compliant: what the rule has blocked it lets go.
    let put = format!("/tenants/{tenant}/enrolled-devices/{id}");
    api.put(&put, json!({"compliant": true})).await.ok();
    let both = until("the approval", async || {
        let orders = orders(&api, "d1").await;
        (orders.len() > 1).then_some(orders)
    })
    .await;
    let why = "compliance rule: it is enrolled and compliant (same ActiveSync id)";
    assert_eq!(both, [block, ("approve_device".to_owned(), why.to_owned())]);

    // Bob's phone was never the rule's business, and stays blocked by whoever blocked it.
    let now = world.cloud().now_ms();
    upload(&world, &mut agent, &[phone("d1", "ada", "allowed"), phone("d2", "bob", "blocked")]).await;
    looked(&world, now).await;
    assert_eq!(orders(&api, "d2").await, []);
}

#[tokio::test]
async fn many_blocks_at_once_wait_for_a_person() {
    let world = World::start().await;
    let mut agent = Agent::online(&world).await;
    let api = Api(&world);
    let tenant = world.tenant.as_str();
    let phones: Vec<Value> =
        (0..8).map(|n| phone(&format!("d{n}"), &format!("user{n}"), "allowed")).collect();
    upload(&world, &mut agent, &phones).await;
    let strict = json!({"enabled": true, "dry_run": false, "block_not_enrolled": true, "grace_secs": 0, "blocks_max": 5,
                        "exempt": ["user0"]});
    rule(&api, tenant, strict).await;
    let held = until("the guard", async || {
        let seen = api.of_tenant("/compliance").await;
        (seen["held"] != 0).then_some(seen)
    })
    .await;
    assert_eq!(held["held"], 7);
    let blocks = || async {
        let list = api.of_tenant("/actions?module=exchange").await;
        list["items"].as_array().unwrap().len()
    };
    assert_eq!(blocks().await, 0, "not even the first five");
    let alert = &api.of_tenant("/alerts?state=open").await["items"][0];
    assert_eq!((&alert["code"], &alert["severity"]), (&json!("compliance_held"), &json!("critical")));

    let browser = Browser::signed_in(&world).await;
    let path = format!("/t/{tenant}/compliance");
    let page = browser.get(&path).await;
    assert!(page.text.contains("7 blocks are held"), "{}", page.text);
    let confirm = format!("{path}/confirm");
    assert_eq!(browser.post(&confirm, &[]).await.status, 403, "not without the page's token");
    let csrf = Browser::csrf(&page);
    assert_eq!(browser.post(&confirm, &[("csrf", csrf.as_str())]).await.status, 303);
    until("seven blocks", async || (blocks().await == 7).then_some(())).await;
    assert_eq!(orders(&api, "d0").await, [], "an exempt person");
    until("the end of the alert", async || {
        let open = api.of_tenant("/alerts?state=open").await;
        let over = open["items"].as_array()?.iter().all(|alert| alert["code"] != "compliance_held");
        over.then_some(())
    })
    .await;
}

#[tokio::test]
async fn grace_passes_by_the_clouds_clock() {
    let world = World::start().await;
    let mut agent = Agent::online(&world).await;
    let api = Api(&world);
    upload(&world, &mut agent, &[phone("d1", "ada", "allowed")]).await;
    let strict = json!({"enabled": true, "dry_run": false, "block_not_enrolled": true, "grace_secs": 3600});
    let since = rule(&api, &world.tenant, strict).await["changed_ms"].as_i64().unwrap();
    looked(&world, since).await;
    assert_eq!(orders(&api, "d1").await, []);
    world.cloud().kit.clock.advance(std::time::Duration::from_secs(3_601));
    let ordered = until("the block after the grace", async || {
        let orders = orders(&api, "d1").await;
        (!orders.is_empty()).then_some(orders)
    })
    .await;
    assert!(ordered[0].1.ends_with("for longer than the grace of 3600 s"), "{ordered:?}");
}

#[tokio::test]
async fn rules_that_make_no_sense_are_refused() {
    let world = World::start().await;
    let api = Api(&world);
    let path = format!("/tenants/{}/compliance", world.tenant);
    for (rule, field) in [
        (json!({"grace_secs": 99_999_999}), "grace_secs"),
        (json!({"exempt": [" "]}), "exempt"),
        (json!({"blocks_window_secs": 0}), "blocks_window_secs"),
        (json!({"block_everyone": true}), "block_everyone"),
    ] {
        let problem = api.put(&path, rule).await.problem(400, "invalid_request");
        assert!(problem.to_string().contains(field), "{problem}");
    }
}

#[tokio::test]
async fn orders_from_the_portal_name_the_phone_in_every_way() {
    let world = World::start().await;
    let mut agent = Agent::online(&world).await;
    let mut records = vec![phone("d1", "ada", "quarantined")];
    records.extend(surroundings());
    upload(&world, &mut agent, &records).await;
    let api = Api(&world);
    let browser = Browser::signed_in(&world).await;
    let path = format!("/t/{}/devices/d1", world.tenant);
    let page = browser.get(&path).await;
    assert!(page.text.contains("It waits for a person because the organisation"), "{}", page.text);
    let csrf = Browser::csrf(&page);
    assert_eq!(browser.post(&path, &[("action", "approve_device")]).await.status, 403);
    let form = [("csrf", csrf.as_str()), ("action", "approve_device"), ("once", "x1")];
    let first = browser.post(&path, &form).await.header("location").to_owned();
    assert_eq!(browser.post(&path, &form).await.header("location"), first, "a double click is one order");
    let action = &api.of_tenant("/actions?key=d1").await["items"][0];
    assert_eq!((&action["module"], &action["action"]), (&json!("exchange"), &json!("approve_device")));
    assert_eq!(action["target"], json!({"key": "d1", "device_id": "APPLd1", "mailbox": "mailbox-ada"}));

    let wipe = |typed: &'static str| {
        [
            ("csrf", csrf.clone()),
            ("action", "wipe_device".into()),
            ("scope", "full".into()),
            ("typed", typed.into()),
        ]
    };
    let refused = wipe("APPLd2");
    let refused: Vec<(&str, &str)> = refused.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let answer = browser.post(&path, &refused).await;
    assert_eq!(answer.status, 400);
    assert!(answer.text.contains("Nothing was ordered"), "{}", answer.text);
    assert_eq!(api.of_tenant("/actions?key=d1").await["items"].as_array().unwrap().len(), 1);
    let typed = wipe("appld1");
    let typed: Vec<(&str, &str)> = typed.iter().map(|(name, value)| (*name, value.as_str())).collect();
    assert_eq!(browser.post(&path, &typed).await.status, 303);
    let action = &api.of_tenant("/actions?key=d1").await["items"][0];
    assert_eq!((&action["action"], &action["params"]), (&json!("wipe_device"), &json!({"scope": "full"})));

    let policies = format!("/t/{}/policies", world.tenant);
    let page = browser.get(&policies).await;
    assert!(page.text.contains("Min password length") && page.text.contains("1 phone<"), "{}", page.text);
    let off = [("csrf", csrf.as_str()), ("action", "quarantine_off"), ("source", "user_visibility/default")];
    assert_eq!(browser.post(&policies, &off).await.status, 303);
    let elsewhere = [("csrf", csrf.as_str()), ("action", "quarantine_off"), ("source", "exchange/other")];
    assert_eq!(browser.post(&policies, &elsewhere).await.status, 400);
}
