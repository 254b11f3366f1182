//! Which cmdlets exist, in which versions, with which parameters.

use causeway_protocol::cmdlet::ErrorRecord;

use super::{Answer, Call, Caller, device, mailbox, organisation as org, policy, rules};
use crate::profile::Version;
use crate::world::Organisation;

/// One cmdlet.
pub(super) struct Spec {
    pub(super) name: &'static str,
    /// First and last version that has it.
    pub(super) versions: (Version, Version),
    pub(super) parameters: &'static [Parameter],
    /// Whether the settings of policies are parameters too, and under which names.
    pub(super) settings: Settings,
    pub(super) effect: Effect,
    /// Asks before it does anything unless `Confirm` is false.
    pub(super) prompts: bool,
    /// The cmdlet that replaces it from Exchange 2013 on.
    pub(super) replaced_by: Option<&'static str>,
    /// .NET class of the task, as error identifiers name it.
    pub(super) class: &'static str,
    pub(super) run: fn(Call) -> Result<Answer, ErrorRecord>,
}

/// What a cmdlet does to the world.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    Reads,
    Writes,
    /// Counted by the budget for destructive cmdlets.
    Destroys,
}

/// Names of policy settings as parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Settings {
    None,
    Old,
    New,
}

/// A parameter.
#[derive(Clone, Copy, Debug)]
pub(super) struct Parameter {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) mandatory: bool,
    /// First version that has it.
    pub(super) since: Version,
    /// Exchange Online does not have it.
    pub(super) on_premises: bool,
}

/// What a parameter takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    /// Text, or null, which stays null.
    Identity,
    /// A list of texts, or `@{Add=..; Remove=..}`.
    Texts,
    Switch,
    Bool,
    Word(&'static [&'static str]),
    Number(u32, u32),
    /// A number or `Unlimited`.
    Size,
    /// A setting of a policy; what it takes is in the table of settings.
    Setting,
}

impl Spec {
    pub(super) fn exists_in(&self, version: Version) -> bool {
        (self.versions.0..=self.versions.1).contains(&version)
    }

    pub(super) fn writes(&self) -> bool {
        self.effect != Effect::Reads
    }

    pub(super) fn is_destructive(&self) -> bool {
        self.effect == Effect::Destroys
    }

    /// The warning of a cmdlet that has a newer one beside it.
    pub(super) fn farewell(&self, version: Version) -> Option<String> {
        let newer = self.replaced_by.filter(|_| version >= Version::E2013)?;
        let name = self.name;
        Some(format!(
            "The {name} cmdlet will be removed in a future version of Exchange. Use the {newer} cmdlet instead. If you have \
             any scripts that use the {name} cmdlet, update them to use the {newer} cmdlet."
        ))
    }

    /// What the prompt says it is about to do.
    pub(super) fn confirm_text(&self) -> &'static str {
        match self.name.split('-').next() {
            Some("Clear") => "Sending a remote wipe to the mobile device",
            Some("Remove") => "Removing",
            _ => "Changing",
        }
    }
}

const fn parameter(name: &'static str, kind: Kind) -> Parameter {
    Parameter { name, kind, mandatory: false, since: Version::E2007, on_premises: false }
}

const fn mandatory(name: &'static str, kind: Kind) -> Parameter {
    Parameter { mandatory: true, ..parameter(name, kind) }
}

const fn since(version: Version, name: &'static str, kind: Kind) -> Parameter {
    Parameter { since: version, ..parameter(name, kind) }
}

const fn on_premises(name: &'static str, kind: Kind) -> Parameter {
    Parameter { on_premises: true, ..parameter(name, kind) }
}

const IDENTITY: Parameter = parameter("Identity", Kind::Identity);
const MUST_IDENTITY: Parameter = mandatory("Identity", Kind::Identity);
const MAILBOX: Parameter = parameter("Mailbox", Kind::Identity);
const FILTER: Parameter = parameter("Filter", Kind::Text);
const RESULT_SIZE: Parameter = parameter("ResultSize", Kind::Size);
const SORT_BY: Parameter = parameter("SortBy", Kind::Text);
const ORGANIZATIONAL_UNIT: Parameter = parameter("OrganizationalUnit", Kind::Text);

/// Parameters every cmdlet has because PowerShell gives them.
pub(super) const COMMON: &[Parameter] = &[
    parameter("ErrorAction", Kind::Text),
    parameter("WarningAction", Kind::Text),
    parameter("ErrorVariable", Kind::Text),
    parameter("WarningVariable", Kind::Text),
    parameter("OutVariable", Kind::Text),
    parameter("OutBuffer", Kind::Number(0, 1_000_000)),
    parameter("Verbose", Kind::Switch),
    parameter("Debug", Kind::Switch),
];

/// Parameters of every cmdlet of Exchange on premises.
pub(super) const DOMAIN_CONTROLLER: Parameter = on_premises("DomainController", Kind::Text);

/// Parameters of every cmdlet that changes something.
pub(super) const WRITING: &[Parameter] =
    &[parameter("Confirm", Kind::Switch), parameter("WhatIf", Kind::Switch)];

const CLIENTS: [Parameter; 4] = [
    since(Version::E2013, "ActiveSync", Kind::Switch),
    since(Version::E2013, "OWAforDevices", Kind::Switch),
    since(Version::E2016, "RestApi", Kind::Switch),
    since(Version::E2016, "UniversalOutlook", Kind::Switch),
];

const GET_DEVICE: &[Parameter] = &[
    IDENTITY,
    MAILBOX,
    FILTER,
    RESULT_SIZE,
    SORT_BY,
    ORGANIZATIONAL_UNIT,
    CLIENTS[0],
    CLIENTS[1],
    CLIENTS[2],
    CLIENTS[3],
    since(Version::E2010, "Monitoring", Kind::Switch),
];
const GET_STATISTICS: &[Parameter] = &[
    IDENTITY,
    MAILBOX,
    CLIENTS[0],
    CLIENTS[1],
    CLIENTS[2],
    CLIENTS[3],
    parameter("GetMailboxLog", Kind::Switch),
    parameter("ShowRecoveryPassword", Kind::Switch),
    parameter("NotificationEmailAddresses", Kind::Texts),
];
const CLEAR_DEVICE: &[Parameter] = &[
    MUST_IDENTITY,
    parameter("Cancel", Kind::Switch),
    parameter("NotificationEmailAddresses", Kind::Texts),
    since(Version::E2016, "AccountOnly", Kind::Switch),
];
const GET_CAS: &[Parameter] = &[
    IDENTITY,
    FILTER,
    RESULT_SIZE,
    SORT_BY,
    ORGANIZATIONAL_UNIT,
    parameter("Anr", Kind::Text),
    since(Version::E2013, "RecalculateHasActiveSyncDevicePartnership", Kind::Switch),
    since(Version::E2013, "ActiveSyncDebugLogging", Kind::Switch),
    parameter("ReadFromDomainController", Kind::Switch),
];
const SET_CAS: &[Parameter] = &[
    MUST_IDENTITY,
    parameter("ActiveSyncAllowedDeviceIDs", Kind::Texts),
    since(Version::E2010, "ActiveSyncBlockedDeviceIDs", Kind::Texts),
    parameter("ActiveSyncEnabled", Kind::Bool),
    parameter("ActiveSyncMailboxPolicy", Kind::Identity),
    parameter("ActiveSyncDebugLogging", Kind::Bool),
    since(Version::E2010, "ResetAutoBlockedDevices", Kind::Switch),
    parameter("OWAEnabled", Kind::Bool),
    parameter("PopEnabled", Kind::Bool),
    parameter("ImapEnabled", Kind::Bool),
    parameter("MAPIEnabled", Kind::Bool),
    since(Version::E2010, "EwsEnabled", Kind::Bool),
    since(Version::E2013, "OWAforDevicesEnabled", Kind::Bool),
];
const GET_MAILBOX: &[Parameter] = &[
    IDENTITY,
    FILTER,
    RESULT_SIZE,
    SORT_BY,
    ORGANIZATIONAL_UNIT,
    parameter("Anr", Kind::Text),
    on_premises("Server", Kind::Text),
    on_premises("Database", Kind::Text),
    parameter("RecipientTypeDetails", Kind::Texts),
];
const ID_ONLY: &[Parameter] = &[IDENTITY];
const MUST_ID: &[Parameter] = &[MUST_IDENTITY];
const LEVELS: &[&str] = &["Allow", "Block", "Quarantine"];
const CHARACTERISTICS: &[&str] = &["DeviceType", "DeviceModel", "DeviceOS", "UserAgent", "XMSWLHeader"];

const READ: Spec = Spec {
    name: "",
    versions: (Version::E2007, Version::Online),
    parameters: &[],
    settings: Settings::None,
    effect: Effect::Reads,
    prompts: false,
    replaced_by: None,
    class: "",
    run: org::get_config,
};
const WRITE: Spec = Spec { effect: Effect::Writes, ..READ };
const DESTROY: Spec = Spec { effect: Effect::Destroys, prompts: true, ..READ };

const OLD: (Version, Version) = (Version::E2007, Version::E2019);
const NEW: (Version, Version) = (Version::E2013, Version::Online);
const SINCE_2010: (Version, Version) = (Version::E2010, Version::Online);
const ON_PREMISES: (Version, Version) = (Version::E2007, Version::E2019);

static TABLE: &[Spec] = &[
    Spec {
        name: "Get-MobileDevice",
        versions: NEW,
        parameters: GET_DEVICE,
        class: "Microsoft.Exchange.Management.Tasks.GetMobileDevice",
        run: device::get,
        ..READ
    },
    Spec {
        name: "Get-ActiveSyncDevice",
        replaced_by: Some("Get-MobileDevice"),
        versions: (Version::E2010, Version::E2019),
        parameters: GET_DEVICE,
        class: "Microsoft.Exchange.Management.Tasks.GetActiveSyncDevice",
        run: device::get,
        ..READ
    },
    Spec {
        name: "Get-MobileDeviceStatistics",
        versions: NEW,
        parameters: GET_STATISTICS,
        class: "Microsoft.Exchange.Management.Tasks.GetMobileDeviceStatistics",
        run: device::statistics,
        ..READ
    },
    Spec {
        name: "Get-ActiveSyncDeviceStatistics",
        replaced_by: Some("Get-MobileDeviceStatistics"),
        versions: OLD,
        parameters: GET_STATISTICS,
        class: "Microsoft.Exchange.Management.Tasks.GetActiveSyncDeviceStatistics",
        run: device::statistics,
        ..READ
    },
    Spec {
        name: "Clear-MobileDevice",
        versions: NEW,
        parameters: CLEAR_DEVICE,
        class: "Microsoft.Exchange.Management.Tasks.ClearMobileDevice",
        run: device::clear,
        ..DESTROY
    },
    Spec {
        name: "Clear-ActiveSyncDevice",
        replaced_by: Some("Clear-MobileDevice"),
        versions: OLD,
        parameters: CLEAR_DEVICE,
        class: "Microsoft.Exchange.Management.Tasks.ClearActiveSyncDevice",
        run: device::clear,
        ..DESTROY
    },
    Spec {
        name: "Remove-MobileDevice",
        versions: NEW,
        parameters: MUST_ID,
        class: "Microsoft.Exchange.Management.Tasks.RemoveMobileDevice",
        run: device::remove,
        ..DESTROY
    },
    Spec {
        name: "Remove-ActiveSyncDevice",
        replaced_by: Some("Remove-MobileDevice"),
        versions: OLD,
        parameters: MUST_ID,
        class: "Microsoft.Exchange.Management.Tasks.RemoveActiveSyncDevice",
        run: device::remove,
        ..DESTROY
    },
    Spec {
        name: "Get-CASMailbox",
        parameters: GET_CAS,
        class: "Microsoft.Exchange.Management.RecipientTasks.GetCASMailbox",
        run: mailbox::get_cas,
        ..READ
    },
    Spec {
        name: "Set-CASMailbox",
        parameters: SET_CAS,
        class: "Microsoft.Exchange.Management.RecipientTasks.SetCASMailbox",
        run: mailbox::set_cas,
        ..WRITE
    },
    Spec {
        name: "Get-Mailbox",
        parameters: GET_MAILBOX,
        class: "Microsoft.Exchange.Management.RecipientTasks.GetMailbox",
        run: mailbox::get_mailbox,
        ..READ
    },
    Spec {
        name: "Get-Recipient",
        parameters: GET_MAILBOX,
        class: "Microsoft.Exchange.Management.RecipientTasks.GetRecipient",
        run: mailbox::get_recipient,
        ..READ
    },
    Spec {
        name: "Get-User",
        parameters: GET_MAILBOX,
        class: "Microsoft.Exchange.Management.RecipientTasks.GetUser",
        run: mailbox::get_user,
        ..READ
    },
    Spec {
        name: "Get-MobileDeviceMailboxPolicy",
        versions: NEW,
        parameters: ID_ONLY,
        class: "Microsoft.Exchange.Management.SystemConfigurationTasks.GetMobileDeviceMailboxPolicy",
        run: policy::get,
        ..READ
    },
    Spec {
        name: "Get-ActiveSyncMailboxPolicy",
        replaced_by: Some("Get-MobileDeviceMailboxPolicy"),
        versions: OLD,
        parameters: ID_ONLY,
        class: "Microsoft.Exchange.Management.SystemConfigurationTasks.GetActiveSyncMailboxPolicy",
        run: policy::get,
        ..READ
    },
    Spec {
        name: "New-MobileDeviceMailboxPolicy",
        versions: NEW,
        parameters: &[mandatory("Name", Kind::Text), parameter("IsDefault", Kind::Bool)],
        settings: Settings::New,
        class: "Microsoft.Exchange.Management.SystemConfigurationTasks.NewMobileDeviceMailboxPolicy",
        run: policy::new,
        ..WRITE
    },
    Spec {
        name: "New-ActiveSyncMailboxPolicy",
        replaced_by: Some("New-MobileDeviceMailboxPolicy"),
        versions: OLD,
        parameters: &[mandatory("Name", Kind::Text), parameter("IsDefaultPolicy", Kind::Bool)],
        settings: Settings::Old,
        class: "Microsoft.Exchange.Management.SystemConfigurationTasks.NewActiveSyncMailboxPolicy",
        run: policy::new,
        ..WRITE
    },
    Spec {
        name: "Set-MobileDeviceMailboxPolicy",
        versions: NEW,
        parameters: &[MUST_IDENTITY, parameter("Name", Kind::Text), parameter("IsDefault", Kind::Bool)],
        settings: Settings::New,
        class: "Microsoft.Exchange.Management.SystemConfigurationTasks.SetMobileDeviceMailboxPolicy",
        run: policy::set,
        ..WRITE
    },
    Spec {
        name: "Set-ActiveSyncMailboxPolicy",
        replaced_by: Some("Set-MobileDeviceMailboxPolicy"),
        versions: OLD,
        parameters: &[MUST_IDENTITY, parameter("Name", Kind::Text), parameter("IsDefaultPolicy", Kind::Bool)],
        settings: Settings::Old,
        class: "Microsoft.Exchange.Management.SystemConfigurationTasks.SetActiveSyncMailboxPolicy",
        run: policy::set,
        ..WRITE
    },
    Spec {
        name: "Remove-MobileDeviceMailboxPolicy",
        versions: NEW,
        parameters: &[MUST_IDENTITY, parameter("Force", Kind::Switch)],
        class: "Microsoft.Exchange.Management.SystemConfigurationTasks.RemoveMobileDeviceMailboxPolicy",
        run: policy::remove,
        ..DESTROY
    },
    Spec {
        name: "Remove-ActiveSyncMailboxPolicy",
        replaced_by: Some("Remove-MobileDeviceMailboxPolicy"),
        versions: OLD,
        parameters: &[MUST_IDENTITY, parameter("Force", Kind::Switch)],
        class: "Microsoft.Exchange.Management.SystemConfigurationTasks.RemoveActiveSyncMailboxPolicy",
        run: policy::remove,
        ..DESTROY
    },
    Spec {
        name: "Get-ActiveSyncOrganizationSettings",
        versions: SINCE_2010,
        parameters: ID_ONLY,
        class: "Microsoft.Exchange.Management.SystemConfigurationTasks.GetActiveSyncOrganizationSettings",
        run: rules::get_settings,
        ..READ
    },
    Spec {
        name: "Set-ActiveSyncOrganizationSettings",
        versions: SINCE_2010,
        parameters: &[
            IDENTITY,
            parameter("DefaultAccessLevel", Kind::Word(LEVELS)),
            parameter("UserMailInsert", Kind::Text),
            parameter("OtaNotificationMailInsert", Kind::Text),
            parameter("AdminMailRecipients", Kind::Texts),
            parameter("AllowAccessForUnSupportedPlatform", Kind::Bool),
        ],
        class: "Microsoft.Exchange.Management.SystemConfigurationTasks.SetActiveSyncOrganizationSettings",
        run: rules::set_settings,
        ..WRITE
    },
    Spec {
        name: "Get-ActiveSyncDeviceAccessRule",
        versions: SINCE_2010,
        parameters: ID_ONLY,
        class: "Microsoft.Exchange.Management.SystemConfigurationTasks.GetActiveSyncDeviceAccessRule",
        run: rules::get_rules,
        ..READ
    },
    Spec {
        name: "New-ActiveSyncDeviceAccessRule",
        versions: SINCE_2010,
        parameters: &[
            mandatory("AccessLevel", Kind::Word(LEVELS)),
            mandatory("Characteristic", Kind::Word(CHARACTERISTICS)),
            mandatory("QueryString", Kind::Text),
        ],
        class: "Microsoft.Exchange.Management.SystemConfigurationTasks.NewActiveSyncDeviceAccessRule",
        run: rules::new_rule,
        ..WRITE
    },
    Spec {
        name: "Set-ActiveSyncDeviceAccessRule",
        versions: SINCE_2010,
        parameters: &[MUST_IDENTITY, parameter("AccessLevel", Kind::Word(LEVELS))],
        class: "Microsoft.Exchange.Management.SystemConfigurationTasks.SetActiveSyncDeviceAccessRule",
        run: rules::set_rule,
        ..WRITE
    },
    Spec {
        name: "Remove-ActiveSyncDeviceAccessRule",
        versions: SINCE_2010,
        parameters: MUST_ID,
        class: "Microsoft.Exchange.Management.SystemConfigurationTasks.RemoveActiveSyncDeviceAccessRule",
        run: rules::remove_rule,
        ..DESTROY
    },
    Spec {
        name: "Get-ActiveSyncDeviceClass",
        versions: SINCE_2010,
        parameters: &[IDENTITY, FILTER, SORT_BY],
        class: "Microsoft.Exchange.Management.SystemConfigurationTasks.GetActiveSyncDeviceClass",
        run: rules::get_classes,
        ..READ
    },
    Spec {
        name: "Get-ActiveSyncDeviceAutoblockThreshold",
        versions: (Version::E2010, Version::E2019),
        parameters: ID_ONLY,
        class: "Microsoft.Exchange.Management.SystemConfigurationTasks.GetActiveSyncDeviceAutoblockThreshold",
        run: rules::get_thresholds,
        ..READ
    },
    Spec {
        name: "Set-ActiveSyncDeviceAutoblockThreshold",
        versions: (Version::E2010, Version::E2019),
        parameters: &[
            MUST_IDENTITY,
            parameter("BehaviorTypeIncidenceLimit", Kind::Number(0, 1_000_000)),
            parameter("BehaviorTypeIncidenceDuration", Kind::Text),
            parameter("DeviceBlockDuration", Kind::Text),
            parameter("AdminEmailInsert", Kind::Text),
        ],
        class: "Microsoft.Exchange.Management.SystemConfigurationTasks.SetActiveSyncDeviceAutoblockThreshold",
        run: rules::set_threshold,
        ..WRITE
    },
    Spec {
        name: "Get-OrganizationConfig",
        class: "Microsoft.Exchange.Management.SystemConfigurationTasks.GetOrganizationConfig",
        run: org::get_config,
        ..READ
    },
    Spec {
        name: "Get-ExchangeServer",
        versions: ON_PREMISES,
        parameters: &[IDENTITY, parameter("Status", Kind::Switch)],
        class: "Microsoft.Exchange.Management.SystemConfigurationTasks.GetExchangeServer",
        run: org::get_servers,
        ..READ
    },
    Spec {
        name: "Get-ThrottlingPolicy",
        versions: (Version::E2010, Version::E2019),
        parameters: &[IDENTITY, since(Version::E2013, "ThrottlingPolicyScope", Kind::Text)],
        class: "Microsoft.Exchange.Management.SystemConfigurationTasks.GetThrottlingPolicy",
        run: org::get_throttling,
        ..READ
    },
    Spec {
        name: "Get-ManagementRoleAssignment",
        versions: SINCE_2010,
        parameters: &[
            IDENTITY,
            parameter("RoleAssignee", Kind::Text),
            parameter("Role", Kind::Text),
            parameter("GetEffectiveUsers", Kind::Switch),
        ],
        class: "Microsoft.Exchange.Management.RbacTasks.GetManagementRoleAssignment",
        run: org::get_assignments,
        ..READ
    },
    Spec {
        name: "Get-ManagementRole",
        versions: SINCE_2010,
        parameters: &[IDENTITY, parameter("Cmdlet", Kind::Text), parameter("CmdletParameters", Kind::Texts)],
        class: "Microsoft.Exchange.Management.RbacTasks.GetManagementRole",
        run: org::get_roles,
        ..READ
    },
    Spec {
        name: "Get-Command",
        parameters: &[parameter("Name", Kind::Texts)],
        class: "Microsoft.PowerShell.Commands.GetCommandCommand",
        run: org::get_command,
        ..READ
    },
];

/// Every cmdlet of every version.
pub(super) fn all() -> impl Iterator<Item = &'static Spec> {
    TABLE.iter()
}

/// The cmdlet of this name that the caller sees.
pub(super) fn find(organisation: &Organisation, caller: &Caller, name: &str) -> Option<&'static Spec> {
    let version = organisation.facts().profile.version;
    TABLE
        .iter()
        .filter(|spec| spec.exists_in(version))
        .find(|spec| spec.name.eq_ignore_ascii_case(name))
        // Who is in the session needs no role to see what the session offers.
        .filter(|spec| spec.name == "Get-Command" || organisation.grants(&caller.account, spec.name, None))
}
