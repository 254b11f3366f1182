//! Every action: that it does what it says, does it again without harm, and reaches nobody else.

use futures_util::FutureExt;

use super::fake::Trouble;
use super::*;

fn bench() -> Bench {
    Bench::new(Fake::with_phones(10), json!({}))
}

#[tokio::test(start_paused = true)]
async fn block_and_approve_move_a_phone_between_the_lists() {
    let bench = bench();
    let block = action("1", "block_device", on(&bench.fake, 2), Value::Null);
    let result = success(bench.act(&block).await);
    assert_eq!(result["device_id"], "Appl000002");
    assert_eq!(bench.fake.state().mailboxes[2].blocked, ["Appl000002"]);
    let writes = bench.fake.calls("Set-CASMailbox");
    success(bench.act(&action("2", "block_device", on(&bench.fake, 2), Value::Null)).await);
    assert_eq!(bench.fake.calls("Set-CASMailbox"), writes, "it is blocked already");
    success(bench.act(&action("3", "approve_device", on(&bench.fake, 2), Value::Null)).await);
    let state = bench.fake.state();
    assert_eq!(
        (&state.mailboxes[2].allowed[..], state.mailboxes[2].blocked.len()),
        (&["Appl000002".to_owned()][..], 0)
    );
}

#[tokio::test(start_paused = true)]
async fn lists_are_written_whole_where_changes_are_not_taken() {
    let bench = bench();
    bench.fake.state().takes_changes = false;
    bench.fake.state().mailboxes[2].allowed = vec!["OTHER".to_owned(), "Appl000002".to_owned()];
    success(bench.act(&action("1", "block_device", on(&bench.fake, 2), Value::Null)).await);
    let state = bench.fake.state();
    assert_eq!(
        (&state.mailboxes[2].allowed[..], &state.mailboxes[2].blocked[..]),
        (&["OTHER".to_owned()][..], &["Appl000002".to_owned()][..])
    );
}

#[tokio::test(start_paused = true)]
async fn a_write_that_is_not_visible_yet_is_waited_for() {
    let bench = bench();
    bench.fake.state().lag = 3;
    let block = action("1", "block_device", on(&bench.fake, 2), Value::Null);
    let (result, next_check) = pending(bench.act(&block).await);
    assert_eq!(result["waits_for"], "replication");
    assert_eq!(next_check, limits::READ_BACK_AFTER);
    success(bench.settle(&block).await);
    assert!(
        bench.storage.dump().iter().all(|(_, key, _)| !key.starts_with(b"a1")),
        "what was known of it is gone"
    );
}

#[tokio::test(start_paused = true)]
async fn an_action_reaches_only_the_phone_it_names() {
    let bench = bench();
    let good = on(&bench.fake, 2);
    let with = |key: &str, value: &str| {
        let mut target = good.clone();
        target[key] = json!(value);
        target
    };
    let foreign = bench.fake.phone(3).guid.to_string();
    let unknown = "99999999-9999-9999-9999-999999999999";
    for name in ["block_device", "approve_device", "wipe_device"] {
        for (target, code) in [
            (with("device_id", "Appl000003"), "wrong_device"),
            (with("device_id", "appl000002"), "wrong_device"),
            (with("device_id", "*"), "wrong_device"),
            (with("device_id", "Appl000002' -or '1'='1"), "wrong_device"),
            (with("key", &foreign), "wrong_device"),
            (with("mailbox", "user3@acme.example"), "wrong_device"),
            (with("key", unknown), "not_found"),
            (with("key", ""), codes::BAD_PARAMETERS),
            (with("key", "*"), codes::BAD_PARAMETERS),
            (with("device_id", ""), codes::BAD_PARAMETERS),
        ] {
            let order = action(&format!("{name}{target}"), name, target.clone(), Value::Null);
            assert_eq!(failure(bench.settle(&order).await).code, code, "{name} {target}");
        }
    }
    let remove = action("r", "remove_device", with("device_id", "Appl000003"), Value::Null);
    assert_eq!(failure(bench.settle(&remove).await).code, "wrong_device");
    assert_eq!(
        bench.fake.calls("Set-") + bench.fake.calls("Clear-") + bench.fake.calls("Remove-"),
        0,
        "{}",
        bench.shown()
    );
    assert_eq!(bench.fake.state().phones.len(), 10);
}

#[tokio::test(start_paused = true)]
async fn ids_with_quotes_and_wildcards_are_only_themselves() {
    let bench = bench();
    for (n, id) in ["Appl' -or 1 -eq 1 #", "*", "Appl00000?"].iter().enumerate() {
        bench.fake.state().phones[n].device_id = (*id).to_owned();
        success(bench.act(&action(&format!("{n}"), "block_device", on(&bench.fake, n), Value::Null)).await);
        assert_eq!(bench.fake.state().mailboxes[n].blocked, [*id]);
    }
    assert_eq!(bench.fake.state().mailboxes.iter().filter(|it| !it.blocked.is_empty()).count(), 3);
    for id in ["*", "a'b", ""] {
        let params = json!({"mailbox": "user1@acme.example", "device_id": id});
        let order = action(id, "preauthorise_device", Value::Null, params);
        assert_eq!(failure(bench.act(&order).await).code, codes::BAD_PARAMETERS);
    }
}

#[tokio::test(start_paused = true)]
async fn remove_and_remove_again() {
    let bench = bench();
    let target = on(&bench.fake, 5);
    let result = success(bench.act(&action("1", "remove_device", target.clone(), Value::Null)).await);
    assert_eq!(result, json!({"gone": true, "removed": true}));
    assert_eq!(bench.fake.state().phones.len(), 9);
    let again = success(bench.act(&action("2", "remove_device", target, Value::Null)).await);
    assert_eq!(again, json!({"gone": true, "removed": false}));
    assert_eq!(bench.fake.calls("Remove-MobileDevice"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_wipe_waits_for_the_phone() {
    let bench = bench();
    let wipe = action("1", "wipe_device", on(&bench.fake, 1), json!({"scope": "full"}));
    let (result, next_check) = pending(bench.act(&wipe).await);
    assert_eq!((result["waits_for"].as_str(), next_check), (Some("the phone"), Duration::from_secs(30)));
    pending(bench.act(&wipe).await);
    assert_eq!(bench.fake.calls("Clear-MobileDevice"), 1, "it is asked for once");
    {
        let mut state = bench.fake.state();
        state.phones[1].wipe[2] = Some(at_ms(NOW_MS + 60_000));
        state.phones[1].status = "DeviceWipeSucceeded".to_owned();
    }
    let result = success(bench.act(&wipe).await);
    assert_eq!(result["acknowledged"], "2026-11-23T06:01:00Z");
}

#[tokio::test(start_paused = true)]
async fn looks_at_a_phone_that_does_not_answer_become_rare() {
    let bench = bench();
    let wipe = action("1", "wipe_device", on(&bench.fake, 1), json!({"scope": "account_only"}));
    let mut last = Duration::ZERO;
    for _ in 0..80 {
        let (_, next_check) = pending(bench.act(&wipe).await);
        assert!(next_check >= last && next_check <= limits::PHONE_CHECK_AT_MOST);
        last = next_check;
    }
    assert_eq!(last, limits::PHONE_CHECK_AT_MOST);
    assert_eq!(bench.fake.phone(1).status, "AccountOnlyDeviceWipePending");
}

#[tokio::test(start_paused = true)]
async fn an_older_confirmation_is_not_taken_for_this_wipe() {
    let bench = bench();
    bench.fake.state().phones[1].wipe =
        [Some("2026-10-01T00:00:00Z".to_owned()), None, Some("2026-10-01T01:00:00Z".to_owned())];
    let wipe = action("1", "wipe_device", on(&bench.fake, 1), json!({"scope": "full"}));
    pending(bench.act(&wipe).await);
    assert_eq!(bench.fake.calls("Clear-MobileDevice"), 1);
    bench.fake.state().phones[1].wipe[2] = Some(at_ms(NOW_MS + 5_000));
    success(bench.act(&wipe).await);
}

#[tokio::test(start_paused = true)]
async fn a_wipe_can_be_taken_back_until_the_phone_has_confirmed() {
    let bench = bench();
    let wipe = action("1", "wipe_device", on(&bench.fake, 1), json!({"scope": "full"}));
    pending(bench.act(&wipe).await);
    let cancel = |id: &str| action(id, "wipe_device", on(&bench.fake, 1), json!({"scope": "cancel"}));
    assert_eq!(success(bench.act(&cancel("2")).await)["cancelled"], true);
    assert_eq!(failure(bench.act(&wipe).await).code, "wipe_cancelled");
    bench.fake.state().phones[1].wipe[2] = Some(at_ms(NOW_MS));
    bench.fake.state().phones[1].status = "DeviceWipeSucceeded".to_owned();
    assert_eq!(failure(bench.act(&cancel("3")).await).code, "too_late");
}

#[tokio::test(start_paused = true)]
async fn an_account_wipe_never_becomes_a_whole_one() {
    let bench = bench();
    bench.fake.trouble("Clear-MobileDevice", Trouble::Fails("ParameterBindingException"));
    let wipe = action("1", "wipe_device", on(&bench.fake, 1), Value::Null);
    assert_eq!(failure(bench.act(&wipe).await).code, "not_supported");
    assert_eq!(bench.fake.phone(1).status, "DeviceOk");
}

#[tokio::test(start_paused = true)]
async fn policies_are_made_changed_and_assigned() {
    let bench = bench();
    let settings = json!({"name": "Managers", "settings": {"AllowCamera": false, "MinPasswordLength": 6}});
    success(bench.act(&action("1", "create_policy", Value::Null, settings.clone())).await);
    success(bench.act(&action("2", "create_policy", Value::Null, settings)).await);
    assert_eq!(bench.fake.calls("New-MobileDeviceMailboxPolicy"), 1);
    assert_eq!(bench.fake.calls("Set-MobileDeviceMailboxPolicy"), 0);
    let change = json!({"name": "Managers", "settings": {"AllowCamera": true}});
    success(bench.act(&action("3", "change_policy", Value::Null, change)).await);
    assert_eq!(bench.fake.state().policies["Managers"]["AllowCamera"], "True");
    let assign = |id: &str, policy: Value| {
        action(id, "assign_policy", on(&bench.fake, 1), json!({ "policy": policy }))
    };
    success(bench.act(&assign("4", json!("Managers"))).await);
    assert_eq!(bench.fake.state().mailboxes[1].policy.as_deref(), Some("Managers"));
    success(bench.act(&assign("5", Value::Null)).await);
    assert_eq!(bench.fake.state().mailboxes[1].policy, None);
    assert_eq!(failure(bench.settle(&assign("6", json!("Man*"))).await).code, "not_found");
    for wrong in [
        json!({"name": "x", "settings": {"Identity": "y"}}),
        json!({"name": "x", "settings": {"AllowCamera": "$(Remove-Mailbox bob)"}}),
        json!({"name": "*", "settings": {}}),
    ] {
        let order = action("7", "change_policy", Value::Null, wrong);
        assert_eq!(failure(bench.act(&order).await).code, codes::BAD_PARAMETERS);
    }
}

#[tokio::test(start_paused = true)]
async fn preauthorised_phones_are_on_the_list_before_they_come() {
    let bench = bench();
    let params = json!({"mailbox": "user7@acme.example", "device_id": "NEW1"});
    success(bench.act(&action("1", "preauthorise_device", Value::Null, params)).await);
    let state = bench.fake.state();
    assert_eq!(state.mailboxes.iter().find(|it| it.name == "user7").unwrap().allowed, ["NEW1"]);
}

#[tokio::test(start_paused = true)]
async fn each_kind_of_trouble_has_its_own_patience() {
    for (trouble, waits_for, at_least) in [
        (Trouble::Throttled(77), "throttled", 77),
        (Trouble::Unreachable, "unreachable", 5),
        (Trouble::Credentials, "credentials", 60),
        (Trouble::Forbidden, "forbidden", 60),
        (Trouble::Fails("ADTransientException"), "unreachable", 5),
        (Trouble::Fails("SomethingOdd"), "other", 10),
    ] {
        let bench = bench();
        let block = action("1", "block_device", on(&bench.fake, 2), Value::Null);
        bench.list(Task::default()).await.unwrap();
        bench.fake.trouble("Get-MobileDevice", trouble.clone());
        let (result, next_check) = pending(bench.act(&block).await);
        assert_eq!(result["waits_for"], waits_for, "{trouble:?}");
        assert!(next_check >= Duration::from_secs(at_least), "{trouble:?} {next_check:?}");
        assert!(next_check <= Duration::from_secs(at_least * 2), "{trouble:?} {next_check:?}");
        success(bench.settle(&block).await);
    }
}

#[tokio::test(start_paused = true)]
async fn patience_ends_after_a_week() {
    let bench = bench();
    bench.list(Task::default()).await.unwrap();
    for _ in 0..5_000 {
        bench.fake.trouble("Get-MobileDevice", Trouble::Unreachable);
    }
    let block = action("1", "block_device", on(&bench.fake, 2), Value::Null);
    let started = Instant::now();
    let error = loop {
        match bench.act(&block).await {
            Outcome::Pending { next_check, .. } => tokio::time::sleep(next_check).await,
            ended => break failure(ended),
        }
    };
    assert_eq!(error.code, "exchange_unreachable");
    let hours = started.elapsed().as_secs() / 3_600;
    assert!((168..170).contains(&hours), "{hours}");
}

#[tokio::test(start_paused = true)]
async fn a_lost_answer_leads_to_the_same_end() {
    for (name, cmdlet) in [
        ("block_device", "Set-CASMailbox"),
        ("remove_device", "Remove-MobileDevice"),
        ("wipe_device", "Clear-MobileDevice"),
    ] {
        let bench = bench();
        bench.fake.trouble(cmdlet, Trouble::AnswerLost);
        let order = action("1", name, on(&bench.fake, 2), Value::Null);
        pending(bench.act(&order).await);
        if name == "wipe_device" {
            pending(bench.act(&order).await);
        } else {
            success(bench.settle(&order).await);
        }
        assert_eq!(bench.fake.calls(cmdlet), 1, "{name}: {}", bench.shown());
    }
}

#[tokio::test(start_paused = true)]
async fn too_many_wipes_wait_for_a_person_also_over_a_restart() {
    let mut bench =
        Bench::new(Fake::with_phones(30), json!({"mass_actions": {"actions_max": 5, "within_secs": 600}}));
    let wipe =
        |bench: &Bench, n: usize| action(&format!("w{n}"), "wipe_device", on(&bench.fake, n), Value::Null);
    for n in 0..5 {
        assert_eq!(pending(bench.act(&wipe(&bench, n)).await).0["waits_for"], "the phone");
    }
    for n in 5..20 {
        assert_eq!(pending(bench.act(&wipe(&bench, n)).await).0["held_by_guard"], true);
    }
    let notice = bench.cloud.notices().pop().unwrap();
    assert_eq!((notice.code.as_str(), notice.severity), (codes::HELD_BY_GUARD, Severity::Critical));
    assert!(notice.detail.starts_with("15 wipes"), "{}", notice.detail);
    assert_eq!(pending(bench.act(&wipe(&bench, 7)).await).0["held_by_guard"], true);
    let again = bench.cloud.notices().pop().unwrap();
    assert_eq!(again.detail, notice.detail, "whoever looks again is not counted again");
    bench = bench.restarted();
    tokio::time::sleep(Duration::from_secs(700)).await;
    assert_eq!(
        pending(bench.act(&wipe(&bench, 7)).await).0["held_by_guard"],
        true,
        "time alone opens nothing"
    );
    assert_eq!(
        pending(bench.act(&wipe(&bench, 1)).await).0["waits_for"],
        "the phone",
        "what has passed goes on"
    );
    assert_eq!(bench.fake.calls("Clear-MobileDevice"), 5);
    // Approvals are never held.
    success(bench.act(&action("a", "approve_device", on(&bench.fake, 25), Value::Null)).await);
    let confirmed = action("c", "block_device", on(&bench.fake, 26), json!({"confirm": true}));
    let mut calls = bench.cx.wake.listen();
    success(bench.act(&confirmed).await);
    assert!(calls.next().now_or_never().is_some(), "what is held is called");
    for n in 5..20 {
        assert_eq!(pending(bench.act(&wipe(&bench, n)).await).0["waits_for"], "the phone");
    }
    assert_eq!(bench.fake.calls("Clear-MobileDevice"), 20);
}

#[tokio::test(start_paused = true)]
async fn an_action_does_not_wait_for_a_scan_nor_for_a_second_session() {
    for sessions_max in [1, 2] {
        let bench = Bench::new(Fake::with_phones(200), json!({}));
        bench.fake.state().sessions_max = sessions_max;
        bench.list(Task::default()).await.unwrap();
        bench.fake.state().delay = Duration::from_secs(1);
        let reading = {
            let (module, cx) = (bench.module.clone(), bench.cx.clone());
            let lease = bench.lease().await;
            tokio::spawn(async move {
                let until = Instant::now() + Duration::from_secs(3_600);
                module.runner.read_slice(&cx, &lease, until, || false).await
            })
        };
        tokio::time::sleep(Duration::from_millis(5_500)).await;
        let started = Instant::now();
        success(bench.act(&action("1", "block_device", on(&bench.fake, 2), Value::Null)).await);
        // Four cmdlets of its own, and at most one that was under way.
        assert!(started.elapsed() <= Duration::from_millis(5_100), "{sessions_max}: {:?}", started.elapsed());
        reading.await.unwrap().unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_forbidden_here_or_unknown_is_said() {
    let bench = Bench::new(Fake::with_phones(2), json!({"actions_forbidden": ["wipe_device"]}));
    let wipe = action("1", "wipe_device", on(&bench.fake, 1), Value::Null);
    assert_eq!(failure(bench.act(&wipe).await).code, codes::FORBIDDEN_LOCALLY);
    let other = action("1", "format_device", on(&bench.fake, 1), Value::Null);
    assert_eq!(failure(bench.act(&other).await).code, codes::UNKNOWN_ACTION);
    let smuggled =
        action("2", "block_device", on(&bench.fake, 1), json!({"script": "Get-Mailbox | Remove-Mailbox"}));
    assert_eq!(failure(bench.act(&smuggled).await).code, codes::BAD_PARAMETERS);
}
