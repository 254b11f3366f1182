//! Cmdlets: names, rights, parameters, identities, filters, limits, prompts.

use causeway_mock_exchange::cmdlets::{self, Output};
use causeway_mock_exchange::config::RoleConfig;
use causeway_mock_exchange::world::{Organisation, Role};
use causeway_protocol::clixml::Value;
use causeway_protocol::cmdlet::Cmdlet;
use std::sync::Arc;

use crate::fixture::{ALICE, Phone, caller, cmdlet, organisation, run, run_as, table, with_roles};

fn reason(organisation: &Arc<Organisation>, cmdlet: &Cmdlet) -> String {
    run(organisation, cmdlet).reason().to_owned()
}

fn crowd(partnerships: usize) -> Arc<Organisation> {
    organisation("exchange2019", |config| config.partnerships = Some(partnerships))
}

#[test]
fn what_powershell_refuses_before_the_cmdlet_runs() {
    let organisation = crowd(1);
    let get = || cmdlet("Get-MobileDevice");
    let cases = [
        (cmdlet("Get-Mobiledevices"), "CommandNotFoundException"),
        (cmdlet("Get-MobileDevice; Remove-Item C:"), "CommandNotFoundException"),
        (cmdlet("Where-Object"), "CommandNotFoundException"),
        (get().with("Nonsense", "x"), "ParameterBindingException"),
        (get().with("Result", "1").with("ResultSize", "1"), "ParameterBindingException"),
        (get().with("Identity", "a").with("Identity", "b"), "ParameterBindingException"),
        (get().with("Identity", "a").with("Mailbox", "b"), "ParameterBindingException"),
        (get().with("ResultSize", "many"), "ParameterBindingArgumentTransformationException"),
        (get().with("ActiveSync", "perhaps"), "ParameterBindingArgumentTransformationException"),
        (get().with("Filter", "WhenChangedUTC -gt '1/1/2020'"), "RecipientTaskException"),
        (get().with("Filter", "DeviceId -eq"), "RecipientTaskException"),
        (get().with("OrganizationalUnit", "Nowhere"), "ManagementObjectNotFoundException"),
        (get().with("Mailbox", "nobody"), "ManagementObjectNotFoundException"),
        (get().with("Identity", "nobody"), "ManagementObjectNotFoundException"),
        (get().with("DomainController", "dc9"), "SuitabilityDirectoryException"),
        (cmdlet("Get-MobileDeviceStatistics"), "ParameterBindingException"),
        (cmdlet("Remove-MobileDevice").with("Confirm", false), "ParameterBindingException"),
        (
            cmdlet("Remove-MobileDevice").with("Identity", Value::Null).with("Confirm", false),
            "ParameterBindingValidationException",
        ),
        (
            cmdlet("Clear-MobileDevice").with("Identity", "nobody").with("Confirm", false),
            "ManagementObjectNotFoundException",
        ),
        (cmdlet("Set-CASMailbox").with("ActiveSyncEnabled", true), "ParameterBindingException"),
        (
            cmdlet("Set-CASMailbox").with("Identity", ALICE).with("ActiveSyncMailboxPolicy", "None"),
            "ManagementObjectNotFoundException",
        ),
        (
            cmdlet("Set-CASMailbox")
                .with("Identity", ALICE)
                .with("ActiveSyncAllowedDeviceIDs", table("Add", &[" "])),
            "ParameterBindingValidationException",
        ),
        (
            cmdlet("Set-ActiveSyncOrganizationSettings").with("DefaultAccessLevel", "Maybe"),
            "ParameterBindingArgumentTransformationException",
        ),
        (
            cmdlet("Set-ActiveSyncOrganizationSettings").with("AdminMailRecipients", "not an address"),
            "ParameterBindingValidationException",
        ),
        (cmdlet("New-ActiveSyncDeviceAccessRule").with("AccessLevel", "Block"), "ParameterBindingException"),
        (cmdlet("New-MobileDeviceMailboxPolicy").with("Name", "default"), "ADObjectAlreadyExistsException"),
        (
            cmdlet("New-MobileDeviceMailboxPolicy").with("Name", "x").with("MinPasswordLength", "17"),
            "ParameterBindingValidationException",
        ),
        (
            cmdlet("New-MobileDeviceMailboxPolicy").with("Name", "x").with("AllowBluetooth", "Sometimes"),
            "ParameterBindingArgumentTransformationException",
        ),
        (
            cmdlet("Set-MobileDeviceMailboxPolicy").with("Identity", "Default").with("IsDefault", false),
            "InvalidOperationException",
        ),
        (
            cmdlet("Remove-MobileDeviceMailboxPolicy").with("Identity", "Default").with("Confirm", false),
            "InvalidOperationException",
        ),
        (cmdlet("Get-Mailbox").with("Server", "mail9"), "ManagementObjectNotFoundException"),
        (cmdlet("Get-ExchangeServer").with("Identity", "mail9"), "ManagementObjectNotFoundException"),
        (
            cmdlet("Set-ActiveSyncDeviceAutoblockThreshold").with("Identity", "Other"),
            "ManagementObjectNotFoundException",
        ),
    ];
    for (cmdlet, expected) in cases {
        assert_eq!(reason(&organisation, &cmdlet), expected, "{cmdlet:?}");
    }
    assert_eq!(run(&organisation, &get()).objects().len(), 1, "nothing was changed");
}

#[test]
fn errors_name_their_failure_as_each_version_does() {
    let unknown = cmdlet("Get-CASMailbox").with("Identity", "nobody");
    let newer = run(&organisation("exchange2016", |_| {}), &unknown).failure.unwrap();
    assert_eq!(newer.failure_category(), Some("ManagementObjectNotFoundException"));
    assert!(newer.fully_qualified_id.starts_with("[Server=MAIL1,RequestId="), "{newer:?}");
    assert!(newer.fully_qualified_id.ends_with("Microsoft.Exchange.Management.RecipientTasks.GetCASMailbox"));
    let older = run(&organisation("exchange2010", |_| {}), &unknown).failure.unwrap();
    assert_eq!(older.failure_category(), None);
    assert_eq!((older.category, older.target.as_str()), (13, "nobody"));
}

#[test]
fn names_of_parameters_may_be_short_when_they_are_clear() {
    let organisation = crowd(2);
    assert_eq!(run(&organisation, &cmdlet("get-mobiledevice").with("-resultS:", "1")).objects().len(), 1);
    let positional = cmdlet("Get-CASMailbox").with("", ALICE);
    assert_eq!(run(&organisation, &positional).texts("SamAccountName"), [ALICE]);
    let ambiguous = run(&organisation, &cmdlet("Get-MobileDevice").with("O", "x")).failure.unwrap();
    assert!(ambiguous.fully_qualified_id.starts_with("AmbiguousParameter,"), "{ambiguous:?}");
}

#[test]
fn a_null_identity_returns_every_phone() {
    let organisation = crowd(7);
    for nothing in [Value::Null, Value::from("")] {
        let outcome = run(&organisation, &cmdlet("Get-MobileDevice").with("Identity", nothing));
        assert_eq!(outcome.objects().len(), 7);
    }
}

#[test]
fn an_unknown_identity_can_return_every_phone_too() {
    let organisation = organisation("exchange2019", |config| {
        config.partnerships = Some(7);
        config.unknown_identity_returns_all = true;
    });
    let unknown = cmdlet("Get-MobileDevice").with("Identity", "nobody");
    assert_eq!(run(&organisation, &unknown).objects().len(), 7);
    let destructive = cmdlet("Remove-MobileDevice").with("Identity", "nobody").with("Confirm", false);
    assert_eq!(reason(&organisation, &destructive), "ManagementObjectNotFoundException");
}

#[test]
fn lists_end_at_a_thousand_with_a_warning() {
    let organisation = crowd(1_200);
    let get = |size: Option<&str>| {
        let cmdlet =
            size.iter().fold(cmdlet("Get-MobileDevice"), |cmdlet, size| cmdlet.with("ResultSize", *size));
        let outcome = run(&organisation, &cmdlet);
        let warned = outcome.warnings.iter().any(|warning| warning.contains("ResultSize"));
        (outcome.objects().len(), warned)
    };
    assert_eq!(get(None), (1_000, true));
    assert_eq!(get(Some("5")), (5, true));
    assert_eq!(get(Some("1200")), (1_200, false));
    assert_eq!(get(Some("unlimited")), (1_200, false));
}

#[test]
fn objects_are_made_as_they_are_taken() {
    let organisation = crowd(300);
    let list = cmdlet("Get-MobileDevice").with("ResultSize", "Unlimited");
    let mut running = cmdlets::run(&organisation, &caller(&organisation), &list);
    assert!(matches!(running.next(), Some(Output::Object(_))));
    // What is removed while the list is read is not in what follows.
    let last = organisation.read(None, |reader| reader.device_at(299).unwrap().id);
    assert!(organisation.write(None, |writer| writer.remove_device(last)));
    assert_eq!(running.count(), 298);
}

#[test]
fn every_form_of_an_identity_finds_the_same_phone() {
    let organisation = organisation("exchange2019", |_| {});
    let mut phone = Phone::new(&organisation, ALICE, "APPL1");
    phone.provision();
    let found = run(&organisation, &cmdlet("Get-MobileDevice").with("Mailbox", ALICE)).objects();
    let property = |name: &str| found[0].text(name).unwrap().into_owned();
    let identity = property("Identity");
    assert!(
        identity.starts_with("acme.example/")
            && identity.ends_with("/ExchangeActiveSyncDevices/iPhone§APPL1"),
        "{identity}"
    );
    let guid = property("Guid");
    let forms = [
        identity.clone(),
        identity.to_uppercase(),
        property("DistinguishedName"),
        property("Name"),
        guid.clone(),
        format!("{{{guid}}}"),
        format!("{ALICE}\\ExchangeActiveSyncDevices\\iPhone§APPL1"),
    ];
    for form in forms {
        let by = run(&organisation, &cmdlet("Get-MobileDevice").with("Identity", form.as_str()));
        assert_eq!(by.texts("Guid"), std::slice::from_ref(&guid), "{form}");
    }
    for wrong in ["APPL1", "iPhone§APPL*", "iPhone§APPL", "§", "x/ExchangeActiveSyncDevices/iPhone§APPL1"]
    {
        assert_eq!(
            reason(&organisation, &cmdlet("Get-MobileDevice").with("Identity", wrong)),
            "ManagementObjectNotFoundException",
            "{wrong}"
        );
    }
    let second_user = organisation.company().people[1].login.to_string();
    Phone::new(&organisation, &second_user, "APPL1").provision();
    let by_name = cmdlet("Clear-MobileDevice").with("Identity", "iPhone§APPL1").with("Confirm", false);
    assert_eq!(reason(&organisation, &by_name), "ManagementObjectAmbiguousException");
}

#[test]
fn every_form_of_an_identity_finds_the_same_mailbox() {
    let organisation = crowd(0);
    let found = run(&organisation, &cmdlet("Get-Mailbox").with("Identity", ALICE)).objects();
    let property = |name: &str| found[0].text(name).unwrap().into_owned();
    for name in [
        "Alias",
        "Guid",
        "ExchangeGuid",
        "Identity",
        "DistinguishedName",
        "PrimarySmtpAddress",
        "UserPrincipalName",
        "DisplayName",
    ] {
        let by = cmdlet("Get-CASMailbox").with("Identity", property(name));
        assert_eq!(run(&organisation, &by).texts("SamAccountName"), [ALICE], "{name}");
    }
}

#[test]
fn phones_are_chosen_by_filter_unit_and_program() {
    let organisation = organisation("online", |config| config.partnerships = Some(200));
    let all = run(&organisation, &cmdlet("Get-MobileDevice")).objects();
    let of =
        |filter: &str| run(&organisation, &cmdlet("Get-MobileDevice").with("Filter", filter)).objects().len();
    let iphones = all.iter().filter(|object| object.text("DeviceType").as_deref() == Some("iPhone")).count();
    assert!(iphones > 0);
    assert_eq!(of("DeviceType -eq 'iphone'"), iphones);
    assert_eq!(
        of("DeviceType -ne 'iPhone' -and ClientType -eq 'EAS'")
            + of("DeviceType -eq 'iPhone' -or ClientType -ne 'EAS'"),
        200
    );
    assert_eq!(of("DeviceAccessState -eq 'Quarantined'"), 0);
    assert_eq!(of("-not (DeviceAccessState -eq 'Quarantined')"), 200);
    let outlook = run(&organisation, &cmdlet("Get-MobileDevice").with("UniversalOutlook", true)).objects();
    assert!(!outlook.is_empty() && outlook.len() < 200);
    let unit = organisation.company().ou_path(organisation.company().people[0].ou)[0].name.clone();
    let here =
        run(&organisation, &cmdlet("Get-MobileDevice").with("OrganizationalUnit", unit.as_str())).objects();
    assert!(!here.is_empty() && here.len() < 200, "{} in {unit}", here.len());
    let sorted = run(&organisation, &cmdlet("Get-MobileDevice").with("SortBy", "DeviceId")).texts("DeviceId");
    assert!(sorted.is_sorted_by_key(|id| id.to_lowercase()) && sorted.len() == 200);
}

#[test]
fn outlook_reports_no_times() {
    let organisation = organisation("online", |config| config.partnerships = Some(60));
    let outlook =
        run(&organisation, &cmdlet("Get-MobileDevice").with("UniversalOutlook", true)).texts("Guid");
    let statistics = cmdlet("Get-MobileDeviceStatistics").with("Identity", outlook[0].as_str());
    let objects = run(&organisation, &statistics).objects();
    assert_eq!(objects[0].get("LastSuccessSync"), Some(&Value::Null));
}

#[test]
fn destructive_cmdlets_ask_and_fail_where_nobody_answers() {
    let organisation = crowd(1);
    let guid = run(&organisation, &cmdlet("Get-MobileDevice")).texts("Guid").remove(0);
    let remove = cmdlet("Remove-MobileDevice").with("Identity", guid.as_str());
    assert_eq!(reason(&organisation, &remove), "HostException");
    let mut running = cmdlets::run(&organisation, &caller(&organisation), &remove);
    assert!(running.question().unwrap().message.contains(&guid));
    running.answer(false);
    assert_eq!(running.count(), 0);
    assert_eq!(run(&organisation, &remove.clone().with("WhatIf", true)).objects().len(), 0);
    assert_eq!(run(&organisation, &cmdlet("Get-MobileDevice")).objects().len(), 1, "still there");
    let mut running = cmdlets::run(&organisation, &caller(&organisation), &remove);
    running.answer(true);
    assert_eq!(running.count(), 0);
    assert_eq!(run(&organisation, &cmdlet("Get-MobileDevice")).objects().len(), 0);
}

#[test]
fn lists_are_replaced_or_changed_in_place() {
    let organisation = crowd(0);
    let set = |value: Value| {
        let cmdlet =
            cmdlet("Set-CASMailbox").with("Identity", ALICE).with("ActiveSyncAllowedDeviceIDs", value);
        run(&organisation, &cmdlet).objects();
        let cas = run(&organisation, &cmdlet_get()).objects();
        let list = cas[0].get("ActiveSyncAllowedDeviceIDs").unwrap();
        list.items().iter().map(|item| item.text().unwrap().into_owned()).collect::<Vec<_>>()
    };
    fn cmdlet_get() -> Cmdlet {
        cmdlet("Get-CASMailbox").with("Identity", ALICE)
    }
    assert_eq!(set(table("Add", &["a", "b"])), ["a", "b"]);
    assert_eq!(set(table("add", &["B", "c"])), ["a", "b", "c"], "known ones are no error");
    assert_eq!(set(table("Remove", &["A", "nobody"])), ["b", "c"]);
    let both = Value::hashtable(vec![
        (Value::from("Add"), Value::from("d")),
        (Value::from("Remove"), Value::from("b")),
    ]);
    assert_eq!(set(both), ["c", "d"]);
    assert_eq!(set(Value::from("only")), ["only"]);
    assert_eq!(set(Value::list(vec!["x".into(), "y".into()])), ["x", "y"]);
    assert!(set(Value::Null).is_empty());
}

#[test]
fn policies_are_made_changed_made_default_and_removed() {
    let organisation = crowd(0);
    let new = cmdlet("New-MobileDeviceMailboxPolicy")
        .with("Name", "Field staff")
        .with("PasswordEnabled", true)
        .with("MaxInactivityTimeLock", "00:05:00")
        .with("MaxPasswordFailedAttempts", "8");
    let made = run(&organisation, &new).objects();
    assert_eq!(made[0].text("MaxInactivityTimeLock").as_deref(), Some("00:05:00"));
    assert_eq!(made[0].text("PasswordExpiration").as_deref(), Some("Unlimited"));
    let change = cmdlet("Set-MobileDeviceMailboxPolicy")
        .with("Identity", "field STAFF")
        .with("Name", "Field")
        .with("IsDefault", true)
        .with("AllowBluetooth", "handsfreeonly");
    run(&organisation, &change).objects();
    let list = run(&organisation, &cmdlet("Get-MobileDeviceMailboxPolicy")).objects();
    let defaults: Vec<_> = list
        .iter()
        .map(|policy| (policy.text("Name").unwrap(), policy.get("IsDefault").unwrap().as_bool()))
        .collect();
    assert_eq!(defaults, [("Default".into(), Some(false)), ("Field".into(), Some(true))]);
    assert_eq!(list[1].text("AllowBluetooth").as_deref(), Some("HandsfreeOnly"));
    let remove =
        |name: &str| cmdlet("Remove-MobileDeviceMailboxPolicy").with("Identity", name).with("Confirm", false);
    let assign = |value: Value| {
        cmdlet("Set-CASMailbox").with("Identity", ALICE).with("ActiveSyncMailboxPolicy", value)
    };
    run(&organisation, &assign("Default".into())).objects();
    assert_eq!(reason(&organisation, &remove("Default")), "InvalidOperationException", "assigned");
    run(&organisation, &assign(Value::Null)).objects();
    run(&organisation, &remove("Default")).objects();
    let cas = run(&organisation, &cmdlet("Get-CASMailbox").with("Identity", ALICE)).objects();
    assert_eq!(cas[0].text("ActiveSyncMailboxPolicy").as_deref(), Some("Field"));
    assert_eq!(cas[0].get("ActiveSyncMailboxPolicyIsDefaulted"), Some(&Value::Bool(true)));
}

#[test]
fn roles_hide_cmdlets_and_parameters() {
    let organisation = organisation("exchange2019", |config| {
        config.partnerships = Some(1);
        config.roles = vec![RoleConfig {
            name: "Helpdesk".to_owned(),
            grants: vec![
                "Get-MobileDevice".to_owned(),
                "Set-CASMailbox:Identity,ActiveSyncAllowedDeviceIDs".to_owned(),
            ],
        }];
    });
    let helpdesk = with_roles(&["Helpdesk"]);
    assert_eq!(cmdlets::visible(&organisation, &helpdesk), ["Get-MobileDevice", "Set-CASMailbox"]);
    let as_helpdesk = |cmdlet: &Cmdlet| run_as(&organisation, &helpdesk, cmdlet);
    assert_eq!(as_helpdesk(&cmdlet("Get-MobileDevice")).objects().len(), 1);
    assert_eq!(as_helpdesk(&cmdlet("Get-CASMailbox")).reason(), "CommandNotFoundException");
    let set = cmdlet("Set-CASMailbox")
        .with("Identity", ALICE)
        .with("ActiveSyncAllowedDeviceIDs", table("Add", &["a"]));
    as_helpdesk(&set).objects();
    assert_eq!(
        as_helpdesk(&set.clone().with("ActiveSyncEnabled", false)).reason(),
        "ParameterBindingException"
    );
    let commands = as_helpdesk(
        &cmdlet("Get-Command")
            .with("Name", Value::list(vec!["Set-CASMailbox".into(), "Clear-MobileDevice".into()])),
    );
    assert_eq!((commands.objects.len(), commands.errors.len()), (1, 1));
    let fitting = |name: &str| as_helpdesk(&cmdlet("Get-Command").with("Name", name));
    assert_eq!(fitting("*mobile*").texts("Name"), ["Get-MobileDevice"]);
    assert_eq!(fitting("*").texts("Name"), ["Get-MobileDevice", "Set-CASMailbox"]);
    let nothing = fitting("New-*");
    assert_eq!(
        (nothing.objects.len(), nothing.errors.len()),
        (0, 0),
        "a pattern that fits nothing is no error"
    );
    organisation.put_role(Role::new("Helpdesk", &["Get-CASMailbox"]));
    assert_eq!(
        as_helpdesk(&cmdlet("Get-MobileDevice")).reason(),
        "CommandNotFoundException",
        "changed meanwhile"
    );
    let person = organisation.admit(ALICE).unwrap();
    let person = cmdlets::Caller { account: person, via: cmdlets::Via::Remoting };
    assert_eq!(
        run_as(&organisation, &person, &cmdlet("Get-MobileDevice")).reason(),
        "CommandNotFoundException"
    );
    let mine = cmdlet("Get-ManagementRoleAssignment").with("RoleAssignee", "ACME\\svc-causeway");
    assert_eq!(run(&organisation, &mine).texts("Role"), ["Organization Management"]);
    let granting = cmdlet("Get-ManagementRole").with("Cmdlet", "Clear-MobileDevice");
    assert!(run(&organisation, &granting).texts("Name").contains(&"Mail Recipients".to_owned()));
}

#[test]
fn changes_are_written_down_with_who_and_what() {
    let organisation = crowd(0);
    let set = cmdlet("Set-CASMailbox")
        .with("Identity", ALICE)
        .with("ActiveSyncAllowedDeviceIDs", table("Add", &["a"]));
    run(&organisation, &set).objects();
    run(&organisation, &cmdlet("Get-CASMailbox").with("Identity", ALICE)).objects();
    run(&organisation, &cmdlet("Clear-MobileDevice").with("Identity", "nobody").with("Confirm", false));
    let log = organisation.audit_log();
    let lines: Vec<_> =
        log.iter().map(|entry| (entry.cmdlet.as_str(), entry.object.as_str(), entry.succeeded)).collect();
    assert_eq!(lines, [("Set-CASMailbox", ALICE, true), ("Clear-MobileDevice", "nobody", false)]);
    assert_eq!(log[0].caller, "svc-causeway");
    assert!(
        log[0].parameters.contains(&("ActiveSyncAllowedDeviceIDs".to_owned(), "@{Add=a}".to_owned())),
        "{log:?}"
    );
}

#[test]
fn a_world_is_the_same_for_a_seed() {
    let all = || {
        let objects = run(&crowd(50), &cmdlet("Get-MobileDevice")).objects();
        objects.into_iter().map(|object| object.adapted).collect::<Vec<_>>()
    };
    assert_eq!(all(), all());
}
