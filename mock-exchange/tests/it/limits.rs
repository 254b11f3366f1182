//! Budgets: micro-delays, lockout, sessions at once.

use std::time::Duration;

use causeway_mock_exchange::cmdlets;
use causeway_mock_exchange::world::{SessionRefusal, ThrottlingPolicy};

use crate::fixture::{caller, cmdlet, organisation, run};

fn tight() -> ThrottlingPolicy {
    ThrottlingPolicy {
        max_concurrency: 2,
        max_burst_ms: 2_000,
        recharge_ms_per_hour: 3_600_000,
        cutoff_ms: -5_000,
        cmdlet_cost_ms: 1_000,
        object_cost_us: 0,
        ..ThrottlingPolicy::default()
    }
}

#[test]
fn who_does_not_wait_is_locked_out_and_who_waits_is_not() {
    let organisation = organisation("exchange2019", |config| config.throttling = tight());
    let get = cmdlet("Get-OrganizationConfig");
    let impatient: Vec<_> = (0..8).map(|_| run(&organisation, &get)).collect();
    assert!(impatient[0].warnings.is_empty() && impatient[1].warnings.is_empty());
    let warning = &impatient[3].warnings[0];
    assert!(
        warning.starts_with("Micro delay applied") && warning.contains("BudgetType: PowerShell"),
        "{warning}"
    );
    assert_eq!(impatient.last().unwrap().reason(), "OverBudgetException");
    assert!(organisation.budgets()[0].locked);
    let account = caller(&organisation).account;
    assert!(matches!(organisation.open_session(&account), Err(SessionRefusal::LockedOut { .. })));
    organisation.clock().advance(Duration::from_secs(10));
    for _ in 0..50 {
        let running = cmdlets::run(&organisation, &caller(&organisation), &get);
        organisation.clock().advance(running.delay() + Duration::from_secs(1));
        assert!(running.count() >= 1);
    }
    assert_eq!(organisation.budgets()[0].lockouts, 1, "only the impatient caller was locked out");
}

#[test]
fn objects_cost_too() {
    let organisation = organisation("exchange2019", |config| {
        config.partnerships = Some(100);
        config.throttling = ThrottlingPolicy { object_cost_us: 10_000, cmdlet_cost_ms: 0, ..tight() };
    });
    run(&organisation, &cmdlet("Get-MobileDevice")).objects();
    assert_eq!(organisation.budgets()[0].balance_ms, 1_000);
}

#[test]
fn sessions_count_until_they_end() {
    let organisation = organisation("exchange2019", |config| config.throttling = tight());
    let account = caller(&organisation).account;
    let first = organisation.open_session(&account).ok().unwrap();
    let _second = organisation.open_session(&account).ok().unwrap();
    assert_eq!(organisation.open_session(&account).err(), Some(SessionRefusal::Concurrency { limit: 2 }));
    drop(first);
    assert!(organisation.open_session(&account).is_ok());
}

#[test]
fn the_policy_can_be_read() {
    let organisation = organisation("exchange2016", |config| config.throttling = tight());
    let policy = run(&organisation, &cmdlet("Get-ThrottlingPolicy")).objects();
    assert_eq!(policy[0].text("PowerShellMaxConcurrency").as_deref(), Some("2"));
    assert_eq!(policy[0].text("PowerShellCutoffBalance").as_deref(), Some("-5000"));
}
