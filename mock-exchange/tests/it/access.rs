//! Whether a phone gets mail: the order of decisions, and what changes it.

use std::time::Duration;

use causeway_mock_exchange::config::DefaultAccess;
use causeway_mock_exchange::world::{AccessReason, AccessState, Verdict};
use causeway_protocol::cmdlet::Cmdlet;

use crate::fixture::{ALICE, Phone, cmdlet, organisation, run, table};

const ID: &str = "ApplF9XXXX1";

fn personal(list: &str, ids: &[&str]) -> Cmdlet {
    cmdlet("Set-CASMailbox").with("Identity", ALICE).with(list, table("Add", ids))
}

fn rule(level: &str) -> Cmdlet {
    cmdlet("New-ActiveSyncDeviceAccessRule")
        .with("AccessLevel", level)
        .with("Characteristic", "DeviceType")
        .with("QueryString", "iPhone")
}

fn default_level(level: &str) -> Cmdlet {
    cmdlet("Set-ActiveSyncOrganizationSettings").with("DefaultAccessLevel", level)
}

/// Every combination of what can decide, and who must win.
#[test]
fn the_documented_order_decides() {
    use AccessReason::{DeviceRule, Global, Individual};
    use AccessState::{Allowed, Blocked, Quarantined};
    let cases: &[(&[Cmdlet], (AccessState, AccessReason))] = &[
        (&[], (Allowed, Global)),
        (&[default_level("Quarantine")], (Quarantined, Global)),
        (&[default_level("Block")], (Blocked, Global)),
        (&[default_level("Block"), rule("Allow")], (Allowed, DeviceRule)),
        (&[default_level("Allow"), rule("Quarantine")], (Quarantined, DeviceRule)),
        (&[default_level("Allow"), rule("Block")], (Blocked, DeviceRule)),
        (&[rule("Block"), personal("ActiveSyncAllowedDeviceIDs", &[ID])], (Allowed, Individual)),
        (
            &[default_level("Quarantine"), personal("ActiveSyncAllowedDeviceIDs", &[ID])],
            (Allowed, Individual),
        ),
        (&[rule("Allow"), personal("ActiveSyncBlockedDeviceIDs", &[ID])], (Blocked, Individual)),
        (
            &[personal("ActiveSyncAllowedDeviceIDs", &[ID]), personal("ActiveSyncBlockedDeviceIDs", &[ID])],
            (Blocked, Individual),
        ),
        (&[personal("ActiveSyncAllowedDeviceIDs", &["another"])], (Allowed, Global)),
    ];
    for (commands, expected) in cases {
        let organisation = organisation("exchange2019", |_| {});
        let mut phone = Phone::new(&organisation, ALICE, ID);
        phone.provision();
        for command in *commands {
            run(&organisation, command).objects();
        }
        assert_eq!(phone.state(), *expected, "{commands:?}");
    }
}

#[test]
fn block_beats_quarantine_beats_allow_among_rules() {
    let organisation = organisation("exchange2019", |_| {});
    let mut phone = Phone::new(&organisation, ALICE, ID);
    phone.provision();
    let by_model = |level: &str| {
        cmdlet("New-ActiveSyncDeviceAccessRule")
            .with("AccessLevel", level)
            .with("Characteristic", "DeviceModel")
            .with("QueryString", "iPhone15,4")
    };
    run(&organisation, &rule("Allow")).objects();
    run(&organisation, &by_model("Quarantine")).objects();
    assert_eq!(phone.state(), (AccessState::Quarantined, AccessReason::DeviceRule));
    let by_agent = cmdlet("New-ActiveSyncDeviceAccessRule")
        .with("AccessLevel", "Block")
        .with("Characteristic", "UserAgent")
        .with("QueryString", "Apple-iPhone15C4/2206.79");
    run(&organisation, &by_agent).objects();
    assert_eq!(phone.state().0, AccessState::Blocked);
    let wildcard = cmdlet("Get-ActiveSyncDeviceAccessRule").with("Identity", "Apple* (UserAgent)");
    assert_eq!(run(&organisation, &wildcard).reason(), "ManagementObjectNotFoundException", "no wildcards");
}

#[test]
fn another_default_hits_existing_phones_at_once_unless_they_are_exempt() {
    let organisation = organisation("exchange2016", |_| {});
    let (mut one, mut exempt) =
        (Phone::new(&organisation, ALICE, "one"), Phone::new(&organisation, ALICE, "exempt"));
    one.provision();
    exempt.provision();
    assert_eq!((one.verdict("Sync"), exempt.verdict("Sync")), (Verdict::Allowed, Verdict::Allowed));
    run(&organisation, &personal("ActiveSyncAllowedDeviceIDs", &["EXEMPT"])).objects();
    run(&organisation, &default_level("Quarantine")).objects();
    assert_eq!(one.verdict("Sync"), Verdict::Held(AccessState::Quarantined));
    assert_eq!(exempt.verdict("Sync"), Verdict::Allowed);
    run(&organisation, &default_level("Block")).objects();
    assert_eq!(one.verdict("Sync"), Verdict::Blocked(AccessReason::Global));
}

#[test]
fn allowing_in_the_call_that_unblocks() {
    let organisation = organisation("exchange2019", |_| {});
    let mut phone = Phone::new(&organisation, ALICE, ID);
    phone.provision();
    run(&organisation, &personal("ActiveSyncBlockedDeviceIDs", &[ID])).objects();
    assert_eq!(phone.verdict("FolderSync"), Verdict::Blocked(AccessReason::Individual));
    let both = personal("ActiveSyncAllowedDeviceIDs", &[ID])
        .with("ActiveSyncBlockedDeviceIDs", table("Remove", &[&ID.to_lowercase()]));
    run(&organisation, &both).objects();
    assert_eq!(phone.verdict("FolderSync"), Verdict::Allowed);
    let lists = run(&organisation, &cmdlet("Get-CASMailbox").with("Identity", ALICE)).objects();
    let items = |name: &str| lists[0].get(name).unwrap().items().len();
    assert_eq!((items("ActiveSyncAllowedDeviceIDs"), items("ActiveSyncBlockedDeviceIDs")), (1, 0));
}

#[test]
fn a_device_id_with_wildcards_or_quotes_reaches_no_other_phone() {
    let organisation = organisation("exchange2019", |_| {});
    let mut phones: Vec<Phone> =
        ["Appl1", "Appl*", "App'l1"].map(|id| Phone::new(&organisation, ALICE, id)).into();
    phones.iter_mut().for_each(|phone| {
        phone.provision();
    });
    run(&organisation, &personal("ActiveSyncBlockedDeviceIDs", &["Appl*"])).objects();
    let states: Vec<_> = phones.iter().map(|phone| phone.state().0).collect();
    assert_eq!(states, [AccessState::Allowed, AccessState::Blocked, AccessState::Allowed]);
    let filter = cmdlet("Get-MobileDevice").with("Filter", "DeviceId -eq 'App''l1'");
    assert_eq!(run(&organisation, &filter).texts("DeviceId"), ["App'l1"]);
}

#[test]
fn active_sync_switched_off_comes_before_everything() {
    let organisation = organisation("exchange2019", |_| {});
    let mut phone = Phone::new(&organisation, ALICE, ID);
    phone.provision();
    run(&organisation, &personal("ActiveSyncAllowedDeviceIDs", &[ID])).objects();
    run(&organisation, &cmdlet("Set-CASMailbox").with("Identity", ALICE).with("ActiveSyncEnabled", false))
        .objects();
    assert_eq!(phone.verdict("Sync"), Verdict::Disabled);
    let new = Phone::new(&organisation, ALICE, "new");
    let access = new.command("FolderSync");
    assert_eq!((access.verdict, access.partnership), (Verdict::Disabled, None), "no partnership is made");
}

#[test]
fn a_new_phone_waits_in_discovery_until_it_says_what_it_is_or_time_is_up() {
    let organisation = organisation("exchange2019", |config| {
        config.discovery_minutes = 14;
        config.default_access = DefaultAccess::Quarantine;
    });
    let silent = Phone { version: 121, ..Phone::new(&organisation, ALICE, "silent") };
    silent.command("FolderSync");
    assert_eq!(silent.state().0, AccessState::DeviceDiscovery);
    let mut talking = Phone::new(&organisation, ALICE, "talking");
    talking.provision();
    assert_eq!(talking.state().0, AccessState::Quarantined);
    organisation.clock().advance(Duration::from_secs(14 * 60));
    assert_eq!(silent.state().0, AccessState::Quarantined);
}

#[test]
fn a_phone_that_asks_too_often_is_blocked_for_a_while() {
    let organisation = organisation("exchange2019", |_| {});
    let threshold = cmdlet("Set-ActiveSyncDeviceAutoblockThreshold")
        .with("Identity", "SyncCommands")
        .with("BehaviorTypeIncidenceLimit", causeway_protocol::clixml::Value::I32(3))
        .with("BehaviorTypeIncidenceDuration", "00:10:00")
        .with("DeviceBlockDuration", "01:00:00");
    run(&organisation, &threshold).objects();
    let mut phone = Phone::new(&organisation, ALICE, ID);
    phone.provision();
    let verdicts: Vec<_> = (0..4).map(|_| phone.verdict("Sync")).collect();
    assert_eq!(verdicts[..3], [Verdict::Allowed, Verdict::Allowed, Verdict::Allowed]);
    assert_eq!(verdicts[3], Verdict::Blocked(AccessReason::SyncCommands));
    let reset = cmdlet("Set-CASMailbox").with("Identity", ALICE).with("ResetAutoBlockedDevices", true);
    run(&organisation, &reset).objects();
    assert_eq!(phone.verdict("Ping"), Verdict::Allowed);
    for _ in 0..4 {
        phone.verdict("Sync");
    }
    assert_eq!(phone.state(), (AccessState::Blocked, AccessReason::SyncCommands));
    organisation.clock().advance(Duration::from_secs(3_600));
    assert_eq!(phone.state().0, AccessState::Allowed, "the block ends by itself");
}

#[test]
fn a_phone_that_refuses_a_strict_policy_is_blocked_by_it() {
    let organisation = organisation("exchange2019", |_| {});
    let strict = cmdlet("New-MobileDeviceMailboxPolicy").with("Name", "Strict").with("PasswordEnabled", true);
    run(&organisation, &strict).objects();
    let assign = cmdlet("Set-CASMailbox").with("Identity", ALICE).with("ActiveSyncMailboxPolicy", "Strict");
    run(&organisation, &assign).objects();
    let phone = Phone::new(&organisation, ALICE, ID);
    let id = phone.command("Provision").partnership.unwrap();
    let offer = organisation.provision(id, 140, None);
    let causeway_mock_exchange::world::Provision::Policy { key, policy } = offer else { panic!("{offer:?}") };
    assert_eq!(&*policy.name, "Strict");
    organisation.provision_acknowledge(id, key, 3).unwrap();
    assert_eq!(phone.state(), (AccessState::Blocked, AccessReason::Policy));
    assert_eq!(phone.verdict("Sync"), Verdict::NotProvisionable);
    assert_eq!(phone.verdict("Provision"), Verdict::Allowed, "it may try again");
}
