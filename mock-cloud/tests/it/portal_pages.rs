//! The portal: sign-in, forms that only its own pages can send, and pages that show hard names as names.

use http::Method;
use serde_json::json;

use crate::support::World;
use crate::support::agent::Agent;
use crate::support::company::{company, group_id, person_id, records, upload};
use crate::support::http::{Api, Browser};

#[tokio::test]
async fn nobody_sees_a_page_without_signing_in() {
    let world = World::start().await;
    let browser = Browser::new(&world);
    let people = format!("/t/{}/people?q=x", world.tenant);
    let answer = browser.get(&people).await;
    assert_eq!(answer.status, 303);
    let next = answer.header("location").to_owned();
    assert!(next.starts_with("/sign-in?next=%2Ft%2F"), "{next}");
    assert_eq!(browser.get(&format!("/t/{}/live/stream", world.tenant)).await.status, 401);
    let page = browser.get(&next).await;
    assert_eq!(page.status, 200);
    let policy = page.header("content-security-policy");
    assert!(policy.contains("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
    assert_eq!((page.header("x-frame-options"), page.header("cache-control")), ("DENY", "no-store"));
    let admin = world.mock.admin();
    let form =
        [("user", admin.user.as_str()), ("password", admin.password.expose()), ("next", people.as_str())];
    assert_eq!(browser.post("/sign-in", &form).await.header("location"), people);
    let foreign = browser
        .send(
            Method::POST,
            "/sign-in",
            String::new(),
            &[("origin", "https://evil.example"), ("content-type", "application/x-www-form-urlencoded")],
        )
        .await;
    assert!(foreign.status.is_client_error());
}

#[tokio::test]
async fn guessing_is_slowed_down() {
    let world = World::start().await;
    let browser = Browser::new(&world);
    for _ in 0..causeway_mock_cloud::limits::SIGN_IN_FAILURES_MAX {
        let answer = browser.post("/sign-in", &[("user", "admin"), ("password", "wrong")]).await;
        assert_eq!(answer.status, 401);
        assert!(answer.text.contains("Wrong user name or password"));
        assert!(!answer.text.contains("value=\"wrong\""), "the password is not sent back");
    }
    let right = world.mock.admin().password.expose();
    let answer = browser.post("/sign-in", &[("user", "admin"), ("password", right)]).await;
    assert_eq!(answer.status, 429, "even the right password has to wait now");
}

#[tokio::test]
async fn forms_need_the_token_of_their_session() {
    let world = World::start().await;
    let browser = Browser::signed_in(&world).await;
    let actions = format!("/t/{}/actions", world.tenant);
    for form in [vec![("action", "sync_now")], vec![("action", "sync_now"), ("csrf", "guessed")]] {
        assert_eq!(browser.post(&actions, &form).await.status, 403);
    }
    assert_eq!(Api(&world).of_tenant("/actions").await["items"], json!([]), "nothing was ordered");
    let csrf = Browser::csrf(&browser.get(&actions).await);
    let form = [("action", "sync_user"), ("user", "asmith"), ("csrf", csrf.as_str()), ("once", "abc")];
    let first = browser.post(&actions, &form).await.header("location").to_owned();
    let second = browser.post(&actions, &form).await.header("location").to_owned();
    assert_eq!(first, second, "a double click is one order");
    let page = browser.get(&first).await;
    assert!(page.text.contains("Sync one person") && page.text.contains("asmith"), "{}", page.text);
    let other = Browser::signed_in(&world).await;
    assert_eq!(other.post("/sign-out", &[("csrf", &csrf)]).await.status, 403, "a token of another session");
    assert_eq!(browser.post("/sign-out", &[("csrf", &csrf)]).await.status, 303);
    assert_eq!(browser.get(&actions).await.status, 303, "the session is over");
}

#[tokio::test]
async fn a_live_stream_ends_with_its_session() {
    let world = World::start().await;
    let (browser, other) = (Browser::signed_in(&world).await, Browser::signed_in(&world).await);
    let path = format!("/t/{}/live/stream", world.tenant);
    let mut stream = browser.stream(&path).await;
    let mut others = other.stream(&path).await;
    world.cloud().events.emit(&world.tenant, "agent_online", json!({ "host": "first" }));
    assert_eq!(stream.next().await["detail"], "first");
    let csrf = Browser::csrf(&browser.get(&format!("/t/{}", world.tenant)).await);
    assert_eq!(browser.post("/sign-out", &[("csrf", &csrf)]).await.status, 303);
    stream.ended().await;
    assert_eq!(browser.get(&path).await.status, 401);
    world.cloud().events.emit(&world.tenant, "agent_online", json!({ "host": "second" }));
    assert_eq!(others.next().await["detail"], "first");
    assert_eq!(others.next().await["detail"], "second", "the stream of another session goes on");
}

#[tokio::test]
async fn a_form_that_cannot_be_read_is_answered_with_a_page() {
    let world = World::start().await;
    let browser = Browser::signed_in(&world).await;
    let profiles = format!("/t/{}/certificate-profiles", world.tenant);
    let form = browser.get(&profiles).await;
    let field = form.text.split("<input").find(|input| input.contains("name=\"renew_days\"")).unwrap();
    assert!(field.split('>').next().unwrap().ends_with(" required"), "{field}");
    let csrf = Browser::csrf(&form);
    let filled = [
        ("csrf", csrf.as_str()),
        ("id", "wifi"),
        ("authority", "default"),
        ("subject", "/CN=%uname%"),
        ("key_mode", "device"),
        ("key", "p256"),
        ("renew_days", ""),
    ];
    let answer = browser.post(&profiles, &filled).await;
    assert_eq!(answer.status, 422);
    assert!(answer.header("content-type").starts_with("text/html"), "{}", answer.text);
    assert!(
        answer.text.contains("data-testid=\"error-page\"") && answer.text.contains("renew_days"),
        "{}",
        answer.text
    );
    for (path, body) in [
        (format!("/t/{}/modules/user_auth", world.tenant), "x=1".to_owned()),
        (format!("/t/{}/actions", world.tenant), "%ff=%".to_owned()),
        ("/sign-in".to_owned(), "user=a".to_owned()),
        ("/".to_owned(), format!("name={}", "x".repeat(300_000))),
    ] {
        let kind = [("content-type", "application/x-www-form-urlencoded")];
        let answer = browser.send(Method::POST, &path, body, &kind).await;
        assert!(answer.status.is_client_error(), "{path}: {}", answer.status);
        assert!(answer.text.contains("data-testid=\"error-page\""), "{path}: {}", answer.text);
    }
    let json = [("content-type", "application/json")];
    let answer = browser.send(Method::POST, "/sign-in", "{}".to_owned(), &json).await;
    assert!(answer.status == 415 && answer.text.contains("That is no form"), "{}", answer.text);
    let twice = browser.get(&format!("/t/{}/people?q=a&q=b", world.tenant)).await;
    assert!(twice.status == 400 && twice.text.contains("data-testid=\"error-page\""), "{}", twice.text);
}

#[tokio::test]
async fn every_page_shows_hard_names_as_names() {
    let world = World::start().await;
    let mut agent = Agent::online(&world).await;
    let hostile = "<script>alert('x')</script>\"><img src=x onerror=alert(1)>";
    let company = company(60);
    let mut all = records(&company);
    all.push(json!({"op": "upsert", "kind": "user", "key": "evil", "v": {"login": "evil", "dn": hostile, "enabled": true,
        "display_name": hostile, "mail": hostile, "attributes": {hostile: [hostile]}}}));
    all.push(json!({"op": "upsert", "kind": "group", "key": "evil-group", "v": {"name": hostile, "dn": hostile, "description": hostile, "security": true}}));
    all.push(json!({"op": "upsert", "kind": "ou", "key": "evil-ou", "v": {"name": hostile, "dn": hostile}}));
    all.push(json!({"op": "upsert", "kind": "member", "key": "evil-group", "member": "evil"}));
    all.push(json!({"op": "upsert", "kind": "device", "key": "evil-phone", "v": {"device_id": hostile, "display_name": hostile,
        "user": hostile, "model": hostile, "access_state": hostile, "access_reason": hostile, "access_rule": hostile,
        "wipe_status": hostile, "policy": hostile}}));
    all.push(json!({"op": "upsert", "kind": "device_policy", "key": "evil-policy", "v": {"name": hostile, "settings": {hostile: hostile}}}));
    all.push(json!({"op": "upsert", "kind": "mail_organization", "key": "evil-mail", "v": {"name": hostile, "version": hostile,
        "default_access": hostile, "settings": {hostile: hostile}}}));
    upload(&world, &mut agent, &all).await;
    let api = Api(&world);
    let order = json!({"module": "user_visibility", "action": "sync_user", "params": {"user": hostile}});
    let action = api.post(&format!("/tenants/{}/actions", world.tenant), order).await.ok()["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let notice = causeway_protocol::health::Notice {
        code: "sync_failed".into(),
        severity: causeway_protocol::health::Severity::Critical,
        subject: hostile.into(),
        detail: hostile.into(),
        remedy: hostile.into(),
        resolved: false,
    };
    world.cloud().notice(&world.tenant, "", notice).await.unwrap();

    let browser = Browser::signed_in(&world).await;
    let instance = &agent.enrolled.instance;
    let pages = [
        String::new(),
        "/agents".into(),
        format!("/agents/{instance}"),
        "/modules".into(),
        "/modules/user_auth".into(),
        "/people".into(),
        "/people?q=alert".into(),
        "/people/evil".into(),
        "/devices".into(),
        "/devices?q=alert&state=%3Cscript%3E&policy=%22%3E".into(),
        "/devices/evil-phone".into(),
        "/policies".into(),
        "/compliance".into(),
        "/groups".into(),
        "/groups?q=%3Cscript%3E".into(),
        "/groups/evil-group".into(),
        format!("/groups/{}", group_id(0)),
        "/units".into(),
        "/actions".into(),
        format!("/actions/{action}"),
        "/alerts".into(),
        "/live".into(),
        "/password".into(),
    ];
    for page in pages {
        let answer = browser.get(&format!("/t/{}{page}", world.tenant)).await;
        assert_eq!(answer.status, 200, "{page}: {}", answer.text);
        assert!(
            !answer.text.contains("<script>alert") && !answer.text.contains("<img src=x"),
            "{page} lets markup through"
        );
        assert!(
            !answer.text.contains(" style=") && !answer.text.contains("onclick="),
            "{page} needs inline code"
        );
    }
    assert!(
        browser.get(&format!("/t/{}/people/evil", world.tenant)).await.text.contains("&#60;script&#62;alert")
    );
    for person in &company.people {
        let answer = browser.get(&format!("/t/{}/people/{}", world.tenant, person_id(person.index))).await;
        assert_eq!(answer.status, 200);
        let escaped = person
            .display_name
            .replace('&', "&#38;")
            .replace('<', "&#60;")
            .replace('>', "&#62;")
            .replace('"', "&#34;")
            .replace('\'', "&#39;");
        assert!(answer.text.contains(&escaped), "{} is not on its page", person.display_name);
    }
    assert_eq!(browser.get(&format!("/t/{}/people/nobody", world.tenant)).await.status, 404);
    assert_eq!(browser.get("/t/nobody").await.status, 404);
}

#[tokio::test]
async fn the_editor_says_what_is_wrong_and_keeps_what_was_typed() {
    let world = World::start().await;
    let browser = Browser::signed_in(&world).await;
    let path = format!("/t/{}/modules/user_visibility", world.tenant);
    let csrf = Browser::csrf(&browser.get(&path).await);
    let broken = "{\n  \"delta_every_secs\": 60,\n}";
    let answer = browser.post(&path, &[("csrf", &csrf), ("settings", broken), ("enabled", "yes")]).await;
    assert_eq!(answer.status, 400);
    assert!(answer.text.contains("Line 3, column 1"), "{}", answer.text);
    assert!(answer.text.contains("delta_every_secs"), "what was typed is still there");
    let answer = browser
        .post(&path, &[("csrf", &csrf), ("settings", "{\"bind_password\": \"hunter2\"}"), ("enabled", "yes")])
        .await;
    assert!(answer.status == 400 && answer.text.contains("settings.bind_password"), "{}", answer.text);
    let answer = browser.post(&path, &[("csrf", &csrf), ("settings", "{\"delta_every_secs\": 60}")]).await;
    assert!(answer.status == 200 && answer.text.contains("data-testid=\"saved\""), "{}", answer.text);
    let stored = Api(&world).of_tenant("/modules/user_visibility").await;
    assert_eq!((&stored["enabled"], &stored["settings"]), (&json!(false), &json!({"delta_every_secs": 60})));
}
