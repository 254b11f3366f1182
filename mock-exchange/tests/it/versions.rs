//! What each version of Exchange has and has not.

use causeway_mock_exchange::cmdlets;
use causeway_mock_exchange::world::Verdict;

use crate::fixture::{ALICE, Phone, caller, cmdlet, organisation, run, table};

fn exists(personality: &str, name: &str) -> bool {
    let organisation = organisation(personality, |_| {});
    cmdlets::visible(&organisation, &caller(&organisation)).contains(&name)
}

#[test]
fn names_of_cmdlets_by_version() {
    let versions = ["exchange2007", "exchange2010", "exchange2013", "exchange2016", "exchange2019", "online"];
    let rows = [
        ("Get-ActiveSyncDevice", [false, true, true, true, true, false]),
        ("Get-MobileDevice", [false, false, true, true, true, true]),
        ("Get-ActiveSyncDeviceStatistics", [true, true, true, true, true, false]),
        ("Get-MobileDeviceStatistics", [false, false, true, true, true, true]),
        ("Clear-ActiveSyncDevice", [true, true, true, true, true, false]),
        ("Set-ActiveSyncMailboxPolicy", [true, true, true, true, true, false]),
        ("Set-MobileDeviceMailboxPolicy", [false, false, true, true, true, true]),
        ("Get-ActiveSyncOrganizationSettings", [false, true, true, true, true, true]),
        ("New-ActiveSyncDeviceAccessRule", [false, true, true, true, true, true]),
        ("Set-ActiveSyncDeviceAutoblockThreshold", [false, true, true, true, true, false]),
        ("Get-ThrottlingPolicy", [false, true, true, true, true, false]),
        ("Get-ExchangeServer", [true, true, true, true, true, false]),
        ("Set-CASMailbox", [true, true, true, true, true, true]),
    ];
    for (name, expected) in rows {
        assert_eq!(versions.map(|version| exists(version, name)), expected, "{name}");
    }
}

#[test]
fn exchange_2007_has_no_quarantine_but_lists_of_allowed_phones() {
    let organisation = organisation("exchange2007", |_| {});
    let mut phone = Phone { version: 121, ..Phone::new(&organisation, ALICE, "p1") };
    phone.provision();
    let statistics = cmdlet("Get-ActiveSyncDeviceStatistics").with("Mailbox", ALICE);
    let objects = run(&organisation, &statistics).objects();
    assert_eq!(objects[0].text("DeviceID").as_deref(), Some("p1"));
    assert!(objects[0].get("DeviceAccessState").is_none());
    let blocked = cmdlet("Set-CASMailbox").with("Identity", ALICE).with("ActiveSyncBlockedDeviceIDs", "p1");
    assert_eq!(run(&organisation, &blocked).reason(), "ParameterBindingException");
    let allow =
        |id: &str| cmdlet("Set-CASMailbox").with("Identity", ALICE).with("ActiveSyncAllowedDeviceIDs", id);
    run(&organisation, &allow("another")).objects();
    assert!(matches!(phone.verdict("Sync"), Verdict::Blocked(_)), "who has a list allows no other phone");
    run(&organisation, &allow("p1")).objects();
    assert_eq!(phone.verdict("Sync"), Verdict::Allowed);
}

#[test]
fn properties_by_version() {
    let with = |personality: &str, name: &str| {
        let organisation = organisation(personality, |config| config.partnerships = Some(1));
        run(&organisation, &cmdlet(name)).objects().remove(0)
    };
    let old = with("exchange2010", "Get-ActiveSyncDevice");
    assert!(old.get("DeviceActiveSyncVersion").is_some() && old.get("ClientType").is_none());
    assert!(old.types[0].ends_with(".ActiveSyncDevice"));
    let new = with("exchange2019", "Get-MobileDevice");
    assert!(new.get("ClientType").is_some() && new.types[0].ends_with(".MobileDevice"));
    assert_eq!(new.types.last().map(String::as_str), Some("System.Object"));
    let online = with("online", "Get-MobileDevice");
    assert!(online.text("Identity").unwrap().contains("\\ExchangeActiveSyncDevices\\"));
    let policy = with("exchange2010", "Get-ActiveSyncMailboxPolicy");
    assert!(policy.get("DevicePasswordEnabled").is_some() && policy.get("PasswordEnabled").is_none());
    assert!(policy.get("AllowApplePushNotifications").is_none());
}

#[test]
fn the_older_name_warns_where_the_newer_exists() {
    let organisation = organisation("exchange2016", |_| {});
    let outcome = run(&organisation, &cmdlet("Get-ActiveSyncDevice"));
    assert!(outcome.warnings[0].contains("Get-MobileDevice"), "{:?}", outcome.warnings);
    assert!(run(&organisation, &cmdlet("Get-MobileDevice")).warnings.is_empty());
}

#[test]
fn parameters_by_version() {
    let refused = |personality: &str, name: &str, value: &str| {
        let organisation = organisation(personality, |_| {});
        run(&organisation, &cmdlet("Get-CASMailbox").with(name, value)).failure.is_some()
    };
    assert!(
        refused("online", "DomainController", "dc1") && !refused("exchange2019", "DomainController", "dc1")
    );
    let organisation = organisation("exchange2013", |_| {});
    let clear =
        cmdlet("Clear-MobileDevice").with("Identity", "x").with("AccountOnly", true).with("Confirm", false);
    assert_eq!(run(&organisation, &clear).reason(), "ParameterBindingException");
    let set = cmdlet("Set-CASMailbox")
        .with("Identity", ALICE)
        .with("ActiveSyncBlockedDeviceIDs", table("Add", &["x"]));
    run(&organisation, &set).objects();
}
