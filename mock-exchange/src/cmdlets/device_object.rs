//! Phones and their statistics as objects, and as fields of filters.

use causeway_protocol::clixml::{Object, Value};

use super::filter::Field;
use super::identity::{device_dn, device_identity, device_name, policy_dn};
use super::object::{Builder, Types};
use crate::profile::Version;
use crate::world::{ClientType, Contact, DeviceView, Organisation, Reader, Wipe, WipeKind};

static MOBILE_DEVICE: Types = &[
    "Deserialized.Microsoft.Exchange.Data.Directory.SystemConfiguration.MobileDevice",
    "Deserialized.Microsoft.Exchange.Data.Directory.ADConfigurationObject",
    "Deserialized.Microsoft.Exchange.Data.Directory.ADObject",
    "Deserialized.Microsoft.Exchange.Data.Directory.ADRawEntry",
    "Deserialized.Microsoft.Exchange.Data.ConfigurableObject",
    "Deserialized.System.Object",
    "System.Object",
];

static ACTIVE_SYNC_DEVICE: Types = &[
    "Deserialized.Microsoft.Exchange.Data.Directory.SystemConfiguration.ActiveSyncDevice",
    "Deserialized.Microsoft.Exchange.Data.Directory.ADConfigurationObject",
    "Deserialized.Microsoft.Exchange.Data.Directory.ADObject",
    "Deserialized.Microsoft.Exchange.Data.Directory.ADRawEntry",
    "Deserialized.Microsoft.Exchange.Data.ConfigurableObject",
    "Deserialized.System.Object",
    "System.Object",
];

static STATISTICS: Types = &[
    "Deserialized.Microsoft.Exchange.Management.Mobility.MobileDeviceConfiguration",
    "Deserialized.Microsoft.Exchange.Data.ConfigurableObject",
    "Deserialized.System.Object",
    "System.Object",
];

const STATE_ENUM: &str = "Deserialized.Microsoft.Exchange.Data.Directory.DeviceAccessState";
const REASON_ENUM: &str = "Deserialized.Microsoft.Exchange.Data.Directory.DeviceAccessStateReason";
const CLIENT_ENUM: &str = "Deserialized.Microsoft.Exchange.Data.Directory.MobileClientType";
const STATUS_ENUM: &str = "Deserialized.Microsoft.Exchange.Data.Storage.DeviceRemoteWipeStatus";
const APPLICATION_ENUM: &str = "Deserialized.Microsoft.Exchange.Data.Storage.DevicePolicyApplicationStatus";
const OBJECT_STATE_ENUM: &str = "Deserialized.Microsoft.Exchange.Data.ObjectState";

/// Properties a filter may name (documentation of Get-MobileDevice), and those every object of the directory has.
const FILTERABLE: [&str; 19] = [
    "ClientType",
    "DeviceAccessControlRule",
    "DeviceAccessState",
    "DeviceAccessStateReason",
    "DeviceActiveSyncVersion",
    "DeviceId",
    "DeviceImei",
    "DeviceMobileOperator",
    "DeviceModel",
    "DeviceOS",
    "DeviceOSLanguage",
    "DeviceTelephoneNumber",
    "DeviceType",
    "DeviceUserAgent",
    "FirstSyncTime",
    "FriendlyName",
    "ProvisioningFlags",
    "UserDisplayName",
    "DeviceHealth",
];

pub(super) fn is_filterable(name: &str) -> bool {
    FILTERABLE.iter().any(|known| known.eq_ignore_ascii_case(name))
}

/// `16.1`
pub(super) fn version_text(version: u16) -> String {
    format!("{}.{}", version / 10, version % 10)
}

/// A phone's property, as filters and sorting see it.
pub(super) fn field<'a>(
    organisation: &Organisation,
    reader: &Reader<'a>,
    view: &DeviceView<'a>,
    name: &str,
) -> Field<'a> {
    let device = view.device;
    let information = &device.information;
    match name.to_ascii_lowercase().as_str() {
        "clienttype" => device.client.name().into(),
        "deviceaccesscontrolrule" => {
            reader.decide(view).rule.map_or(Field::Null, |rule| Field::Text(rule.to_string().into()))
        }
        "deviceaccessstate" => reader.decide(view).state.name().into(),
        "deviceaccessstatereason" => reader.decide(view).reason.name().into(),
        "deviceactivesyncversion" => Field::Text(version_text(device.version).into()),
        "deviceid" => (&*device.id).into(),
        "deviceimei" => information.imei.as_deref().into(),
        "devicemobileoperator" => information.operator.as_deref().into(),
        "devicemodel" => information.model.as_deref().into(),
        "deviceos" => information.os.as_deref().into(),
        "deviceoslanguage" => information.os_language.as_deref().into(),
        "devicetelephonenumber" => information.phone_number.as_deref().into(),
        "devicetype" => (&*device.device_type).into(),
        "deviceuseragent" => (&*device.user_agent).into(),
        "firstsynctime" => Field::Date(device.first_sync_ms),
        "friendlyname" => information.friendly_name.as_deref().into(),
        "userdisplayname" => match reader.mailbox(device.mailbox) {
            Some(mailbox) => Field::Text(super::identity::canonical(organisation, mailbox.person).into()),
            None => Field::Null,
        },
        _ => Field::Null,
    }
}

/// `MobileDevice`, or `ActiveSyncDevice` for the older cmdlet.
pub(super) fn device(
    organisation: &Organisation,
    reader: &Reader<'_>,
    view: &DeviceView<'_>,
    old: bool,
) -> Option<Object> {
    let (device, information) = (view.device, &view.device.information);
    let person = reader.mailbox(device.mailbox)?.person;
    let profile = organisation.facts().profile;
    let decision = reader.decide(view);
    let identity = device_identity(organisation, person, device);
    let types = if old { ACTIVE_SYNC_DEVICE } else { MOBILE_DEVICE };
    let mut object = Builder::new(types, identity.clone())
        .maybe("FriendlyName", Some(information.friendly_name.as_deref().unwrap_or_default()))
        .text("DeviceId", &*device.id)
        .maybe("DeviceImei", Some(information.imei.as_deref().unwrap_or_default()))
        .maybe("DeviceMobileOperator", Some(information.operator.as_deref().unwrap_or_default()))
        .maybe("DeviceOS", Some(information.os.as_deref().unwrap_or_default()))
        .maybe("DeviceOSLanguage", Some(information.os_language.as_deref().unwrap_or_default()))
        .maybe("DeviceTelephoneNumber", Some(information.phone_number.as_deref().unwrap_or_default()))
        .text("DeviceType", &*device.device_type)
        .text("DeviceUserAgent", &*device.user_agent)
        .maybe("DeviceModel", Some(information.model.as_deref().unwrap_or_default()))
        .date("FirstSyncTime", Some(device.first_sync_ms))
        .text("UserDisplayName", super::identity::canonical(organisation, person))
        .enumeration("DeviceAccessState", STATE_ENUM, decision.state.name(), decision.state.number())
        .enumeration("DeviceAccessStateReason", REASON_ENUM, decision.reason.name(), decision.reason.number())
        .maybe("DeviceAccessControlRule", decision.rule.as_deref());
    if old {
        object = object.text("DeviceActiveSyncVersion", version_text(device.version));
    } else {
        object = object
            .text("ClientVersion", version_text(device.version))
            .enumeration("ClientType", CLIENT_ENUM, device.client.name(), device.client.number())
            .bool("IsManaged", false)
            .bool("IsCompliant", false)
            .bool("IsDisabled", false);
        if profile.version >= Version::E2016 {
            object = object
                .text("DeviceActiveSyncVersion", version_text(device.version))
                .text("EasId", "")
                .text("IntuneId", "");
        }
    }
    Some(
        object
            .text("AdminDisplayName", "")
            .text("ExchangeVersion", profile.object_version)
            .text("Name", device_name(device))
            .text("DistinguishedName", device_dn(organisation, person, device))
            .text("Identity", identity)
            .guid("Guid", &device.guid)
            .text(
                "ObjectCategory",
                format!("{}/Configuration/Schema/ms-Exch-Active-Sync-Device", organisation.facts().domain),
            )
            .list("ObjectClass", ["top", "msExchActiveSyncDevice"])
            .date("WhenChanged", Some(device.changed_ms))
            .date("WhenCreated", Some(device.first_sync_ms))
            .date("WhenChangedUTC", Some(device.changed_ms))
            .date("WhenCreatedUTC", Some(device.first_sync_ms))
            .text(
                "OrganizationId",
                if profile.online { organisation.facts().tenant.clone() } else { String::new() },
            )
            .text("OriginatingServer", reader.controller_name())
            .bool("IsValid", true)
            .enumeration("ObjectState", OBJECT_STATE_ENUM, "Unchanged", 1)
            .done(),
    )
}

/// `MobileDeviceConfiguration`: the phone's visits.
pub(super) fn statistics(
    organisation: &Organisation,
    reader: &Reader<'_>,
    view: &DeviceView<'_>,
    show_recovery: bool,
) -> Option<Object> {
    let (device, information, contact) = (view.device, &view.device.information, view.contact);
    let mailbox = reader.mailbox(device.mailbox)?;
    let decision = reader.decide(view);
    let identity = device_identity(organisation, mailbox.person, device);
    let quarantine = organisation.facts().profile.quarantine;
    let newer = organisation.facts().profile.version >= Version::E2013;
    let mut object = Builder::new(STATISTICS, identity.clone())
        .date("FirstSyncTime", Some(device.first_sync_ms))
        .date("LastPolicyUpdateTime", contact.last_policy_ms)
        .date("LastSyncAttemptTime", contact.last_attempt_ms)
        .date("LastSuccessSync", contact.last_success_ms)
        .text("DeviceType", &*device.device_type)
        .text("DeviceID", &*device.id)
        .text("DeviceUserAgent", &*device.user_agent);
    object = wipe_times(object, contact, newer);
    object = object
        .value("LastPingHeartbeat", number(contact.ping_heartbeat_secs))
        .text("RecoveryPassword", if show_recovery { "" } else { "********" })
        .maybe("DeviceModel", Some(information.model.as_deref().unwrap_or_default()))
        .maybe("DeviceImei", Some(information.imei.as_deref().unwrap_or_default()))
        .maybe("DeviceFriendlyName", Some(information.friendly_name.as_deref().unwrap_or_default()))
        .maybe("DeviceOS", Some(information.os.as_deref().unwrap_or_default()))
        .maybe("DeviceOSLanguage", Some(information.os_language.as_deref().unwrap_or_default()))
        .maybe("DevicePhoneNumber", Some(information.phone_number.as_deref().unwrap_or_default()))
        .maybe("DeviceMobileOperator", Some(information.operator.as_deref().unwrap_or_default()))
        .text("MailboxLogReport", "");
    if quarantine {
        object = object
            .bool("DeviceEnableOutboundSMS", false)
            .enumeration("DeviceAccessState", STATE_ENUM, decision.state.name(), decision.state.number())
            .enumeration(
                "DeviceAccessStateReason",
                REASON_ENUM,
                decision.reason.name(),
                decision.reason.number(),
            )
            .maybe("DeviceAccessControlRule", decision.rule.as_deref());
    }
    let policy = applied_policy(organisation, reader, contact);
    object = object
        .value("DevicePolicyApplied", policy.map_or(Value::Null, Value::String))
        .enumeration(
            "DevicePolicyApplicationStatus",
            APPLICATION_ENUM,
            contact.application.name(),
            contact.application.number(),
        )
        .text("DeviceActiveSyncVersion", version_text(device.version))
        .value("NumberOfFoldersSynced", Value::I32(i32::from(contact.folders)))
        .value("SyncStateUpgradeTime", Value::Null)
        .bool("IsRemoteWipeSupported", device.client == ClientType::Eas)
        .enumeration("Status", STATUS_ENUM, contact.status(), contact.status_number())
        .text("StatusNote", "")
        .text("Identity", identity)
        .guid("Guid", &device.guid)
        .bool("IsValid", true)
        .enumeration("ObjectState", OBJECT_STATE_ENUM, "New", 0);
    if newer {
        object = object.enumeration("ClientType", CLIENT_ENUM, device.client.name(), device.client.number());
    }
    Some(object.done())
}

fn wipe_times(object: Builder, contact: &Contact, newer: bool) -> Builder {
    let of = |kind: WipeKind| contact.wipe.filter(|wipe| wipe.kind == kind);
    let (full, account) = (of(WipeKind::Full), of(WipeKind::AccountOnly));
    let requested = |wipe: &Option<Wipe>| wipe.as_ref().map(|wipe| wipe.requested_ms);
    let sent = |wipe: &Option<Wipe>| wipe.as_ref().and_then(|wipe| wipe.sent_ms);
    let acknowledged = |wipe: &Option<Wipe>| wipe.as_ref().and_then(|wipe| wipe.acknowledged_ms);
    let object = object
        .date("DeviceWipeSentTime", sent(&full))
        .date("DeviceWipeRequestTime", requested(&full))
        .date("DeviceWipeAckTime", acknowledged(&full));
    if !newer {
        return object;
    }
    object
        .date("AccountOnlyDeviceWipeSentTime", sent(&account))
        .date("AccountOnlyDeviceWipeRequestTime", requested(&account))
        .date("AccountOnlyDeviceWipeAckTime", acknowledged(&account))
}

fn applied_policy(organisation: &Organisation, reader: &Reader<'_>, contact: &Contact) -> Option<String> {
    let name = reader.applied_policy(contact)?;
    let (_, policy) = reader.policies().find(|(_, policy)| policy.name == name)?;
    Some(if organisation.facts().profile.version >= Version::E2013 {
        name.to_string()
    } else {
        policy_dn(organisation, policy)
    })
}

fn number(value: Option<u32>) -> Value {
    value.map_or(Value::Null, |number| Value::I32(i32::try_from(number).unwrap_or(i32::MAX)))
}
