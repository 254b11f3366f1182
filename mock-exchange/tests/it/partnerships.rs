//! The life of a phone: provisioning, wipes, removal, mail.

use std::time::Duration;

use causeway_mock_exchange::config::DefaultAccess;
use causeway_mock_exchange::world::{
    INBOX, KeyMismatch, Provision, ProvisionNeed, SyncError, Verdict, WipeKind,
};
use causeway_protocol::cmdlet::Cmdlet;

use crate::fixture::{ALICE, Phone, START_MS, cmdlet, organisation, run};

fn clear(phone: &Phone) -> Cmdlet {
    cmdlet("Clear-MobileDevice").with("Identity", phone.guid()).with("Confirm", false)
}

fn status(phone: &Phone) -> String {
    let statistics = cmdlet("Get-MobileDeviceStatistics").with("Identity", phone.guid());
    run(&phone.organisation, &statistics).texts("Status").remove(0)
}

#[test]
fn a_phone_is_provisioned_before_it_gets_anything() {
    let organisation = organisation("exchange2019", |_| {});
    let mut phone = Phone::new(&organisation, ALICE, "p1");
    assert_eq!(phone.verdict("FolderSync"), Verdict::Provision(ProvisionNeed::NotProvisioned));
    let id = phone.provision();
    assert_eq!(phone.verdict("FolderSync"), Verdict::Allowed);
    let key = phone.key.unwrap();
    phone.key = Some(key ^ 1);
    assert_eq!(phone.verdict("FolderSync"), Verdict::Provision(ProvisionNeed::InvalidKey));
    assert_eq!(
        organisation.provision_acknowledge(id, key, 1),
        Err(KeyMismatch),
        "the last key is not an offer"
    );
    let silent = Phone::new(&organisation, ALICE, "p2");
    let id = silent.command("Provision").partnership.unwrap();
    assert_eq!(organisation.provision(id, 161, None), Provision::InformationMissing);
}

#[test]
fn a_changed_policy_asks_for_provisioning_once_more() {
    let organisation = organisation("exchange2019", |_| {});
    let mut phone = Phone::new(&organisation, ALICE, "p1");
    phone.provision();
    let set = |length: &str| {
        cmdlet("Set-MobileDeviceMailboxPolicy").with("Identity", "Default").with("MinPasswordLength", length)
    };
    run(&organisation, &set("6")).objects();
    assert_eq!(phone.verdict("Sync"), Verdict::Provision(ProvisionNeed::Refresh));
    phone.provision();
    assert_eq!(phone.verdict("Sync"), Verdict::Allowed);
    run(&organisation, &set("6")).objects();
    assert_eq!(phone.verdict("Sync"), Verdict::Allowed, "the same value again changes nothing");
    let refresh = cmdlet("Set-MobileDeviceMailboxPolicy")
        .with("Identity", "Default")
        .with("DevicePolicyRefreshInterval", "1.00:00:00");
    run(&organisation, &refresh).objects();
    phone.provision();
    organisation.clock().advance(Duration::from_secs(86_399));
    assert_eq!(phone.verdict("Sync"), Verdict::Allowed);
    organisation.clock().advance(Duration::from_secs(1));
    assert_eq!(phone.verdict("Sync"), Verdict::Provision(ProvisionNeed::Refresh));
}

#[test]
fn a_wipe_goes_from_pending_to_sent_to_acknowledged_and_stays_blocked() {
    let organisation = organisation("exchange2019", |_| {});
    let mut phone = Phone::new(&organisation, ALICE, "p1");
    let id = phone.provision();
    run(&organisation, &clear(&phone)).objects();
    assert_eq!(status(&phone), "DeviceWipePending");
    assert_eq!(phone.verdict("Sync"), Verdict::Wipe(WipeKind::Full));
    assert!(!organisation.wipe_acknowledge(id, WipeKind::Full), "it has not been told yet");
    assert_eq!(phone.verdict("Provision"), Verdict::Allowed);
    organisation.clock().advance(Duration::from_secs(60));
    assert_eq!(organisation.provision(id, 161, None), Provision::Wipe(WipeKind::Full));
    assert!(!organisation.wipe_acknowledge(id, WipeKind::AccountOnly), "another kind");
    assert!(organisation.wipe_acknowledge(id, WipeKind::Full));
    assert_eq!(status(&phone), "DeviceWipeSucceeded");
    let statistics = cmdlet("Get-MobileDeviceStatistics").with("Identity", phone.guid());
    let objects = run(&organisation, &statistics).objects();
    let at = |name: &str| objects[0].text(name).map(std::borrow::Cow::into_owned);
    assert_eq!(at("DeviceWipeRequestTime").as_deref(), Some("2026-11-01T12:00:00.000Z"), "{START_MS}");
    assert_eq!(at("DeviceWipeSentTime").as_deref(), Some("2026-11-01T12:01:00.000Z"));
    assert!(at("DeviceWipeAckTime").is_some() && at("AccountOnlyDeviceWipeRequestTime").is_none());
    assert!(matches!(phone.verdict("Sync"), Verdict::Blocked(_)), "it stays out until it is removed");
    let cancel = clear(&phone).with("Cancel", true);
    assert_eq!(run(&organisation, &cancel).reason(), "InvalidOperationException");
    let remove = cmdlet("Remove-MobileDevice").with("Identity", phone.guid()).with("Confirm", false);
    run(&organisation, &remove).objects();
    phone.key = Some(0);
    assert_eq!(phone.verdict("Sync"), Verdict::Provision(ProvisionNeed::NotProvisioned), "a new partnership");
}

#[test]
fn a_wipe_can_be_cancelled_until_the_phone_confirms() {
    let organisation = organisation("exchange2019", |_| {});
    let mut phone = Phone::new(&organisation, ALICE, "p1");
    let id = phone.provision();
    let cancel = clear(&phone).with("Cancel", true);
    assert_eq!(run(&organisation, &cancel).reason(), "InvalidOperationException", "nothing is pending");
    run(&organisation, &clear(&phone)).objects();
    organisation.provision(id, 161, None);
    run(&organisation, &cancel).objects();
    assert_eq!((status(&phone).as_str(), phone.verdict("Sync")), ("DeviceOk", Verdict::Allowed));
    assert!(!organisation.wipe_acknowledge(id, WipeKind::Full), "it was taken back");
}

#[test]
fn account_only_needs_a_phone_that_knows_it() {
    let organisation = organisation("exchange2019", |_| {});
    let mut old = Phone { version: 141, ..Phone::new(&organisation, ALICE, "old") };
    old.provision();
    let refused = run(&organisation, &clear(&old).with("AccountOnly", true));
    assert_eq!(refused.reason(), "InvalidOperationException");
    assert_eq!(status(&old), "DeviceOk");
    let mut new = Phone::new(&organisation, ALICE, "new");
    let id = new.provision();
    run(&organisation, &clear(&new).with("AccountOnly", true)).objects();
    assert_eq!(status(&new), "AccountOnlyDeviceWipePending");
    assert_eq!(organisation.provision(id, 161, None), Provision::Wipe(WipeKind::AccountOnly));
    assert!(organisation.wipe_acknowledge(id, WipeKind::AccountOnly));
    assert_eq!(status(&new), "AccountOnlyDeviceWipeSucceeded");
}

#[test]
fn mailboxes_take_only_so_many_phones() {
    let organisation = organisation("exchange2010", |_| {});
    for number in 0..10 {
        Phone { version: 141, ..Phone::new(&organisation, ALICE, &format!("p{number}")) }.provision();
    }
    let one_more = Phone::new(&organisation, ALICE, "p10");
    assert_eq!(one_more.verdict("FolderSync"), Verdict::TooManyDevices);
}

#[test]
fn a_moved_mailbox_says_where() {
    let organisation = organisation("exchange2019", |_| {});
    let phone = Phone::new(&organisation, ALICE, "p1");
    organisation.write(None, |writer| writer.move_mailbox(phone.mailbox, Some("https://other/")));
    assert_eq!(phone.verdict("Sync"), Verdict::Moved("https://other/".to_owned()));
}

#[test]
fn a_held_phone_sees_the_notice_and_nothing_else_until_it_is_allowed() {
    let organisation =
        organisation("exchange2019", |config| config.default_access = DefaultAccess::Quarantine);
    let mut phone = Phone::new(&organisation, ALICE, "p1");
    let id = phone.provision();
    assert!(matches!(phone.verdict("FolderSync"), Verdict::Held(_)));
    assert_eq!(organisation.folders(id).iter().map(|folder| folder.id).collect::<Vec<_>>(), [INBOX]);
    organisation.sync(id, INBOX, 0, 10).unwrap();
    let page = organisation.sync(id, INBOX, 1, 10).unwrap();
    assert_eq!(page.adds.len(), 1);
    assert!(page.adds[0].subject.contains("temporarily blocked"), "{:?}", page.adds[0]);
    assert_eq!(organisation.sync(id, "1", 0, 10), Err(SyncError::NoSuchFolder));
    let allow = cmdlet("Set-CASMailbox")
        .with("Identity", ALICE)
        .with("ActiveSyncAllowedDeviceIDs", crate::fixture::table("Add", &["p1"]));
    run(&organisation, &allow).objects();
    assert_eq!(phone.verdict("Sync"), Verdict::Allowed);
    assert_eq!(organisation.sync(id, INBOX, page.key, 10), Err(SyncError::InvalidKey), "it must begin anew");
    assert!(organisation.folders(id).len() > 1);
    organisation.sync(id, INBOX, 0, 10).unwrap();
    let mail = organisation.sync(id, INBOX, 1, 10).unwrap();
    assert_eq!(mail.adds.len(), 3);
    assert!(mail.adds.iter().all(|message| !message.subject.contains("temporarily blocked")));
}

#[test]
fn new_mail_wakes_the_phones_of_its_mailbox_only() {
    let organisation = organisation("exchange2019", |_| {});
    let mut alice = Phone::new(&organisation, ALICE, "p1");
    let other_user = organisation.company().people[1].login.to_string();
    let mut other = Phone::new(&organisation, &other_user, "p1");
    let (alice_id, other_id) = (alice.provision(), other.provision());
    for id in [alice_id, other_id] {
        organisation.sync(id, INBOX, 0, 10).unwrap();
        organisation.sync(id, INBOX, 1, 10).unwrap();
        assert!(!organisation.has_news(id, &[INBOX]));
    }
    let changes = organisation.changes();
    organisation.deliver(alice.mailbox, "x@y", "Hello", "text").unwrap();
    assert!(changes.has_changed().unwrap(), "a Ping wakes");
    assert!(organisation.has_news(alice_id, &[INBOX]) && !organisation.has_news(other_id, &[INBOX]));
    assert_eq!(organisation.sync(alice_id, INBOX, 2, 10).unwrap().adds[0].subject, "Hello");
}

#[test]
fn wrong_passwords_lock_an_account() {
    let organisation = organisation("exchange2019", |_| {});
    let password = organisation.password_of(ALICE).unwrap();
    for name in [ALICE, "asmith@acme.example", "ACME\\asmith", "acme\\ASMITH"] {
        assert!(organisation.sign_in(name, &password).is_ok(), "{name}");
    }
    assert!(organisation.sign_in("OTHER\\asmith", &password).is_err());
    assert!(organisation.sign_in(ALICE, "").is_err());
    for _ in 0..9 {
        assert!(organisation.sign_in(ALICE, "wrong").is_err());
    }
    let locked = organisation.sign_in(ALICE, &password);
    assert_eq!(locked, Err(causeway_mock_exchange::world::SignInError::LockedOut));
    organisation.set_password(ALICE, "Another-1");
    assert!(organisation.sign_in(ALICE, "Another-1").is_ok());
    assert!(organisation.sign_in(ALICE, &password).is_err());
}
