//! Several domain controllers: a change made on one is seen on another later.

use std::time::Duration;

use causeway_mock_exchange::config::{DomainController, Replication};
use causeway_protocol::cmdlet::Cmdlet;

use crate::fixture::{ALICE, Phone, cmdlet, organisation, run, table};

fn controllers(second: Replication) -> Vec<DomainController> {
    let dc = |name: &str, replication| DomainController { name: name.to_owned(), replication };
    vec![dc("dc1", Replication::LagMs(0)), dc("dc2", second)]
}

#[test]
fn what_was_written_is_read_back_only_where_it_has_arrived() {
    let organisation = organisation("exchange2019", |config| {
        config.domain_controllers = controllers(Replication::LagMs(15_000))
    });
    let mut phone = Phone::new(&organisation, ALICE, "p1");
    let on = |cmdlet: Cmdlet, dc: Option<&str>| {
        dc.iter().fold(cmdlet, |cmdlet, dc| cmdlet.with("DomainController", *dc))
    };
    let list = |dc: Option<&str>| {
        let cas = run(&organisation, &on(cmdlet("Get-CASMailbox").with("Identity", ALICE), dc)).objects();
        cas[0].get("ActiveSyncBlockedDeviceIDs").unwrap().items().len()
    };
    let devices = |dc: Option<&str>| run(&organisation, &on(cmdlet("Get-MobileDevice"), dc)).objects().len();
    phone.provision();
    assert_eq!((devices(Some("dc1")), devices(Some("dc2.acme.example")), devices(None)), (1, 0, 0));
    let block = |id: &str| {
        cmdlet("Set-CASMailbox")
            .with("Identity", ALICE)
            .with("ActiveSyncBlockedDeviceIDs", table("Add", &[id]))
    };
    run(&organisation, &block("p1")).objects();
    assert_eq!((list(Some("dc1")), list(Some("dc2")), list(None)), (1, 0, 0));
    run(&organisation, &on(block("p2"), Some("dc2"))).objects();
    assert_eq!((list(Some("dc1")), list(Some("dc2"))), (2, 2), "dc1 is told at once, and dc2 knows its own");
    organisation.clock().advance(Duration::from_secs(15));
    assert_eq!((list(None), devices(None)), (2, 1));
    let remove = cmdlet("Remove-MobileDevice").with("Identity", phone.guid()).with("Confirm", false);
    run(&organisation, &on(remove, Some("dc1"))).objects();
    assert_eq!((devices(Some("dc1")), devices(Some("dc2"))), (0, 1));
    organisation.clock().advance(Duration::from_secs(15));
    assert_eq!(devices(None), 0);
}

#[test]
fn manual_replication_waits_for_the_word() {
    let organisation =
        organisation("exchange2019", |config| config.domain_controllers = controllers(Replication::Manual));
    let level = || {
        run(&organisation, &cmdlet("Get-ActiveSyncOrganizationSettings"))
            .texts("DefaultAccessLevel")
            .remove(0)
    };
    run(
        &organisation,
        &cmdlet("Set-ActiveSyncOrganizationSettings").with("DefaultAccessLevel", "Quarantine"),
    )
    .objects();
    organisation.clock().advance(Duration::from_secs(86_400));
    assert_eq!(level(), "Allow");
    organisation.replicate();
    assert_eq!(level(), "Quarantine");
}

#[test]
fn a_phone_removed_and_back_before_the_removal_has_arrived_is_a_new_one() {
    let organisation =
        organisation("exchange2019", |config| config.domain_controllers = controllers(Replication::Manual));
    let mut phone = Phone::new(&organisation, ALICE, "p1");
    phone.provision();
    organisation.replicate();
    let first = phone.guid();
    let remove = cmdlet("Remove-MobileDevice").with("Identity", first.as_str()).with("Confirm", false);
    run(&organisation, &remove).objects();
    phone.key = Some(0);
    phone.provision();
    let guids =
        |dc: &str| run(&organisation, &cmdlet("Get-MobileDevice").with("DomainController", dc)).texts("Guid");
    assert_eq!(guids("dc2"), std::slice::from_ref(&first));
    assert_eq!(guids("dc1").len(), 1);
    assert_ne!(guids("dc1"), std::slice::from_ref(&first));
    organisation.replicate();
    assert_eq!(guids("dc2"), guids("dc1"));
}
