//! People and groups through the API: paging, search, nesting, and tenants that never cross.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::support::World;
use crate::support::agent::Agent;
use crate::support::company::{company, group_id, person_id, records, upload};
use crate::support::http::Api;

/// All rows of a list, page by page.
async fn all(api: &Api<'_>, path: &str, limit: usize) -> Vec<Value> {
    let mut rows = Vec::new();
    let mut after = String::new();
    loop {
        let page = api.of_tenant(&format!("{path}?limit={limit}{after}")).await;
        let items = page["items"].as_array().unwrap();
        assert!(items.len() <= limit, "a page of {}", items.len());
        rows.extend(items.iter().cloned());
        match page["next"].as_str() {
            Some(next) => after = format!("&after={next}"),
            None => return rows,
        }
    }
}

#[tokio::test]
async fn pages_together_are_the_whole_list_each_row_once() {
    let world = World::start().await;
    let mut agent = Agent::online(&world).await;
    let company = company(60);
    upload(&world, &mut agent, &records(&company)).await;
    let api = Api(&world);
    for (path, count) in
        [("/users", company.people.len()), ("/groups", company.groups.len()), ("/ous", company.ous.len())]
    {
        let rows = all(&api, path, 7).await;
        let ids: BTreeSet<&str> = rows.iter().map(|row| row["id"].as_str().unwrap()).collect();
        assert_eq!((rows.len(), ids.len()), (count, count), "{path}");
    }
    let counts = &api.of_tenant("").await["counts"];
    assert_eq!(counts["users"], company.people.len());
    let (largest, group) =
        company.groups.iter().enumerate().max_by_key(|(_, group)| group.members.len()).unwrap();
    let members = all(&api, &format!("/groups/{}/members", group_id(largest)), 9).await;
    assert_eq!(members.len(), group.members.len());
}

#[tokio::test]
async fn sources_say_what_the_cloud_has_of_them() {
    let world = World::start().await;
    let mut agent = Agent::online(&world).await;
    let company = company(60);
    let memberships: usize = company.groups.iter().map(|group| group.members.len()).sum();
    let expected = json!({
        "users": company.people.len(), "groups": company.groups.len(), "ous": company.ous.len(),
        "members": memberships, "devices": 0, "device_policies": 0, "mail_organizations": 0,
    });
    let api = Api(&world);
    // The second time every row is there already and must not count again.
    for epoch in [1, 2] {
        upload(&world, &mut agent, &records(&company)).await;
        let source = &api.of_tenant("/sources").await["items"][0];
        assert_eq!((&source["epoch"], &source["counts"]), (&json!(epoch), &expected));
    }
    let left: Vec<Value> =
        records(&company).into_iter().filter(|record| record["kind"] != "member").collect();
    upload(&world, &mut agent, &left).await;
    let counts = &api.of_tenant("/sources").await["items"][0]["counts"];
    assert_eq!((&counts["users"], &counts["members"]), (&expected["users"], &json!(0)), "{counts}");
    assert_eq!(api.of_tenant("").await["counts"]["users"], expected["users"]);
}

#[tokio::test]
async fn search_finds_parts_of_names_in_any_case_and_takes_signs_for_signs() {
    let world = World::start().await;
    let mut agent = Agent::online(&world).await;
    let person = |key: &str, login: &str, name: &str| json!({"op": "upsert", "kind": "user", "key": key, "v": {"login": login, "dn": "CN=x", "enabled": true, "display_name": name}});
    let people = [
        person("1", "asmith", "Alice Smith"),
        person("2", "cobrien", "Connor O'Brien"),
        person("3", "percent", "100% _real_"),
        person("4", "jmueller", "Jörg MÜLLER"),
        person("5", "yosef", "יוסף כהן"),
    ];
    upload(&world, &mut agent, &people).await;
    let api = Api(&world);
    for (q, expected) in [
        ("ALICE", vec!["1"]),
        ("o'br", vec!["2"]),
        ("%25", vec!["3"]),
        ("_", vec!["3"]),
        ("m%C3%BCller", vec!["4"]),
        ("%D7%99%D7%95%D7%A1%D7%A3", vec!["5"]),
        ("nobody", vec![]),
        ("%27%20OR%201%3D1--", vec![]),
    ] {
        let found = api.of_tenant(&format!("/users?q={q}")).await;
        let ids: Vec<&str> =
            found["items"].as_array().unwrap().iter().map(|user| user["id"].as_str().unwrap()).collect();
        assert_eq!(ids, expected, "{q}");
    }
}

#[tokio::test]
async fn names_are_kept_as_they_are_and_found_by_their_parts() {
    let world = World::start().await;
    let mut agent = Agent::online(&world).await;
    let long = format!("{}tail", "n".repeat(996));
    // A name, and a part of it as a query has it.
    let names = [
        ("Quo \"ted\" O'Name", "%22ted%22%20O%27"),
        ("Paren (the) Sis", "(the)"),
        ("Back\\slash", "k%5Cs"),
        ("nul\0byte", "ul%00by"),
        ("\u{202e}\u{5d0}\u{5d1}\u{5d2} left", "%D7%91%D7%92%20left"),
        (&long, "ntail"),
    ];
    let people: Vec<Value> = names
        .iter()
        .enumerate()
        .map(|(at, (name, _))| {
            json!({"op": "upsert", "kind": "user", "key": at.to_string(),
                "v": {"login": name, "dn": name, "enabled": true, "display_name": name}})
        })
        .collect();
    upload(&world, &mut agent, &people).await;
    let api = Api(&world);
    assert_eq!(all(&api, "/users", 2).await.len(), names.len(), "page by page");
    for (at, (name, part)) in names.iter().enumerate() {
        let user = api.of_tenant(&format!("/users/{at}")).await;
        for field in ["login", "dn", "display_name"] {
            assert_eq!(user[field], *name, "{field}");
        }
        let found = api.of_tenant(&format!("/users?q={part}")).await;
        let ids: Vec<&str> =
            found["items"].as_array().unwrap().iter().map(|user| user["id"].as_str().unwrap()).collect();
        assert_eq!(ids, [at.to_string()], "{part}");
    }
}

#[tokio::test]
async fn effective_groups_follow_nesting_and_survive_cycles() {
    let world = World::start().await;
    let mut agent = Agent::online(&world).await;
    let group = |key: &str| json!({"op": "upsert", "kind": "group", "key": key, "v": {"name": key, "dn": "CN=g", "security": true}});
    let member =
        |group: &str, member: &str| json!({"op": "upsert", "kind": "member", "key": group, "member": member});
    let user = json!({"op": "upsert", "kind": "user", "key": "u", "v": {"login": "u", "dn": "CN=u", "enabled": true}});
    // u in a; a in b; b in c; c in a (a circle); u in c too; d stands alone; a also holds someone who never arrives
    let records = [
        member("a", "u"),
        member("b", "a"),
        member("c", "b"),
        member("a", "c"),
        member("c", "u"),
        member("a", "ghost"),
        group("a"),
        group("b"),
        group("c"),
        group("d"),
        user,
    ];
    upload(&world, &mut agent, &records).await;
    let api = Api(&world);
    let user = api.of_tenant("/users/u").await;
    let groups: Vec<(&str, bool, u64)> = user["groups"]
        .as_array()
        .unwrap()
        .iter()
        .map(|group| {
            (
                group["id"].as_str().unwrap(),
                group["direct"].as_bool().unwrap(),
                group["depth"].as_u64().unwrap(),
            )
        })
        .collect();
    assert_eq!(groups, [("a", true, 1), ("c", true, 1), ("b", false, 2)], "{user}");
    assert_eq!(user["login"], "u");
    let detail = api.of_tenant("/groups/a").await;
    let kinds: BTreeSet<(&str, &str)> = detail["direct_members"]["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|member| (member["id"].as_str().unwrap(), member["kind"].as_str().unwrap()))
        .collect();
    assert_eq!(kinds, BTreeSet::from([("u", "user"), ("c", "group"), ("ghost", "unresolved")]));
    let above: Vec<&str> =
        detail["groups"].as_array().unwrap().iter().map(|group| group["id"].as_str().unwrap()).collect();
    assert_eq!(above, ["b", "c"], "a group is not in itself");
}

#[tokio::test]
async fn ids_of_one_tenant_are_unknown_in_another() {
    let world = World::start().await;
    let mut agent = Agent::online(&world).await;
    upload(&world, &mut agent, &records(&company(20))).await;
    let action = world.order("user_visibility", "sync_now", 60_000).await;
    let api = Api(&world);
    let other = api.post("/tenants", json!({"name": "Other"})).await.ok()["id"].as_str().unwrap().to_owned();
    let instance = agent.enrolled.instance.clone();
    for path in [
        format!("/users/{}", person_id(0)),
        format!("/groups/{}", group_id(0)),
        format!("/groups/{}/members", group_id(0)),
        format!("/agents/{instance}"),
        format!("/actions/{action}"),
    ] {
        api.of_tenant(&path).await;
        api.get(&format!("/tenants/{other}{path}")).await.problem(404, "not_found");
    }
    api.post(&format!("/tenants/{other}/agents/{instance}/revoke"), json!({}))
        .await
        .problem(404, "not_found");
    for list in
        ["agents", "users", "groups", "ous", "actions", "uploads", "sources", "leases", "alerts", "modules"]
    {
        let found = api.get(&format!("/tenants/{other}/{list}")).await.ok();
        assert_eq!(found["items"], json!([]), "{list} of another tenant");
    }
    let verdict = api
        .post(&format!("/tenants/{other}/authenticate"), json!({"username": "a", "password": "b"}))
        .await
        .ok();
    assert_eq!((&verdict["outcome"], &verdict["agent"]), (&json!("unavailable"), &Value::Null));
}
