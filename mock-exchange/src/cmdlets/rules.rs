//! Cmdlets about the organisation's mobile settings, device access rules, classes and autoblock thresholds.

use std::collections::BTreeSet;

use causeway_protocol::clixml::{Object, Value};
use causeway_protocol::cmdlet::ErrorRecord;

use super::identity::configuration_dn;
use super::object::{Builder, Types};
use super::{Answer, Call, Output};
use crate::config::DefaultAccess;
use crate::limits::ACCESS_RULES_MAX;
use crate::world::{
    AccessRule, AutoblockThreshold, Characteristic, Reader, Refusal, parse_guid, parse_span, span_text,
};

/// Name of the one settings object.
const SETTINGS_NAME: &str = "Mobile Mailbox Settings";
const LEVEL_ENUM: &str =
    "Deserialized.Microsoft.Exchange.Data.Directory.SystemConfiguration.DeviceAccessLevel";
const CHARACTERISTIC_ENUM: &str =
    "Deserialized.Microsoft.Exchange.Data.Directory.SystemConfiguration.DeviceAccessCharacteristic";

static SETTINGS: Types = &[
    "Deserialized.Microsoft.Exchange.Data.Directory.SystemConfiguration.ActiveSyncOrganizationSettings",
    "Deserialized.System.Object",
    "System.Object",
];
static RULE: Types = &[
    "Deserialized.Microsoft.Exchange.Data.Directory.SystemConfiguration.ActiveSyncDeviceAccessRule",
    "Deserialized.System.Object",
    "System.Object",
];
static CLASS: Types = &[
    "Deserialized.Microsoft.Exchange.Data.Directory.SystemConfiguration.ActiveSyncDeviceClass",
    "Deserialized.System.Object",
    "System.Object",
];
static THRESHOLD: Types = &[
    "Deserialized.Microsoft.Exchange.Data.Directory.SystemConfiguration.ActiveSyncDeviceAutoblockThreshold",
    "Deserialized.System.Object",
    "System.Object",
];

fn objects(objects: impl IntoIterator<Item = Object>) -> Answer {
    Answer { outputs: objects.into_iter().map(Output::Object).collect(), source: None }
}

/// Numbers of `DeviceAccessLevel` (unverified).
fn level_number(level: DefaultAccess) -> i32 {
    match level {
        DefaultAccess::Allow => 0,
        DefaultAccess::Block => 1,
        DefaultAccess::Quarantine => 2,
    }
}

fn level(call: &Call, name: &str) -> Option<DefaultAccess> {
    call.bound.filled(name).and_then(|word| DefaultAccess::named(&word))
}

pub(super) fn get_settings(call: Call) -> Result<Answer, ErrorRecord> {
    known_settings(&call)?;
    let dn = format!("CN={SETTINGS_NAME},{}", configuration_dn(&call.organisation));
    let object = call.read(|reader| {
        let settings = reader.settings();
        let level = settings.default_access;
        Builder::new(SETTINGS, SETTINGS_NAME.to_owned())
            .enumeration("DefaultAccessLevel", LEVEL_ENUM, level.name(), level_number(level))
            .text("UserMailInsert", &*settings.user_mail_insert)
            .bool("AllowAccessForUnSupportedPlatform", settings.allow_access_for_unsupported_platform)
            .list("AdminMailRecipients", &settings.admin_mail_recipients)
            .text("OtaNotificationMailInsert", &*settings.ota_notification_mail_insert)
            .list("DeviceFiltering", Vec::<String>::new())
            .bool("IsIntuneManaged", false)
            .text("AdminDisplayName", "")
            .text("Name", SETTINGS_NAME)
            .text("Identity", SETTINGS_NAME)
            .text("DistinguishedName", dn)
            .guid("Guid", &call.organisation.facts().guid)
            .date("WhenChanged", Some(settings.changed_ms))
            .date("WhenChangedUTC", Some(settings.changed_ms))
            .text("OriginatingServer", reader.controller_name())
            .bool("IsValid", true)
            .done()
    });
    Ok(objects([object]))
}

fn known_settings(call: &Call) -> Result<(), ErrorRecord> {
    match call.bound.filled("Identity") {
        Some(identity) if !identity.eq_ignore_ascii_case(SETTINGS_NAME) => {
            Err(call.task.not_found(&identity))
        }
        _ => Ok(()),
    }
}

pub(super) fn set_settings(call: Call) -> Result<Answer, ErrorRecord> {
    known_settings(&call)?;
    let recipients = call.bound.edit("AdminMailRecipients");
    for recipient in call.bound.value("AdminMailRecipients").map(super::binding::texts).unwrap_or_default() {
        if !recipient.contains('@') {
            let why = format!(
                "The email address \"{recipient}\" isn't correct. Please use this format: user name, the @ sign, followed by the domain name."
            );
            return Err(super::errors::validation(call.spec.name, "AdminMailRecipients", &why));
        }
    }
    let default_access = level(&call, "DefaultAccessLevel");
    call.organisation.write(call.controller, |writer| {
        writer.change_settings(|settings| {
            settings.default_access = default_access.unwrap_or(settings.default_access);
            if let Some(text) = call.bound.text("UserMailInsert") {
                settings.user_mail_insert = text;
            }
            if let Some(text) = call.bound.text("OtaNotificationMailInsert") {
                settings.ota_notification_mail_insert = text;
            }
            if let Some(edit) = recipients {
                super::mailbox::apply(&mut settings.admin_mail_recipients, edit);
            }
            if let Some(truth) = call.bound.bool("AllowAccessForUnSupportedPlatform") {
                settings.allow_access_for_unsupported_platform = truth;
            }
        });
    });
    Ok(Answer::default())
}

fn rule_object(call: &Call, reader: &Reader<'_>, rule: &AccessRule) -> Object {
    let characteristic = rule.characteristic;
    let number = Characteristic::ALL.iter().position(|known| *known == characteristic);
    Builder::new(RULE, rule.name.to_string())
        .text("QueryString", &*rule.query)
        .enumeration(
            "Characteristic",
            CHARACTERISTIC_ENUM,
            characteristic.name(),
            number.and_then(|number| i32::try_from(number).ok()).unwrap_or(0),
        )
        .enumeration("AccessLevel", LEVEL_ENUM, rule.level.name(), level_number(rule.level))
        .text("Name", &*rule.name)
        .text("Identity", &*rule.name)
        .text(
            "DistinguishedName",
            format!("CN={},CN=Mobile Mailbox Settings,{}", rule.name, configuration_dn(&call.organisation)),
        )
        .guid("Guid", &rule.guid)
        .date("WhenChangedUTC", Some(rule.changed_ms))
        .text("OriginatingServer", reader.controller_name())
        .bool("IsValid", true)
        .done()
}

fn find_rule(call: &Call, reader: &Reader<'_>, identity: &str) -> Result<AccessRule, ErrorRecord> {
    let guid = parse_guid(identity);
    let named = |rule: &&&AccessRule| rule.name.eq_ignore_ascii_case(identity) || guid == Some(rule.guid);
    reader.rules().iter().find(named).map(|rule| (*rule).clone()).ok_or_else(|| call.task.not_found(identity))
}

pub(super) fn get_rules(call: Call) -> Result<Answer, ErrorRecord> {
    call.read(|reader| match call.bound.filled("Identity") {
        Some(identity) => Ok(objects([rule_object(&call, reader, &find_rule(&call, reader, &identity)?)])),
        None => Ok(objects(reader.rules().iter().map(|rule| rule_object(&call, reader, rule)))),
    })
}

pub(super) fn new_rule(call: Call) -> Result<Answer, ErrorRecord> {
    let query = call.bound.filled("QueryString").unwrap_or_default();
    let characteristic = call.bound.filled("Characteristic").and_then(|word| Characteristic::named(&word));
    let (Some(characteristic), Some(level)) = (characteristic, level(&call, "AccessLevel")) else {
        return Err(super::errors::missing(call.spec.name, &["AccessLevel", "Characteristic"]));
    };
    let made =
        call.organisation.write(call.controller, |writer| writer.create_rule(characteristic, &query, level));
    match made {
        Ok(rule) => Ok(call.read(|reader| objects([rule_object(&call, reader, &rule)]))),
        Err(Refusal::TooMany) => Err(call.task.too_many("device access rules", ACCESS_RULES_MAX)),
        Err(_) => Err(call.task.exists(&format!("{query} ({})", characteristic.name()))),
    }
}

pub(super) fn set_rule(call: Call) -> Result<Answer, ErrorRecord> {
    let identity = call.bound.filled("Identity").unwrap_or_default();
    let rule = call.read(|reader| find_rule(&call, reader, &identity))?;
    let level = level(&call, "AccessLevel").unwrap_or(rule.level);
    match call.organisation.write(call.controller, |writer| writer.change_rule(&rule.guid, Some(level))) {
        true => Ok(Answer::default()),
        false => Err(call.task.not_found(&identity)),
    }
}

pub(super) fn remove_rule(call: Call) -> Result<Answer, ErrorRecord> {
    let identity = call.bound.filled("Identity").unwrap_or_default();
    let rule = call.read(|reader| find_rule(&call, reader, &identity))?;
    match call.organisation.write(call.controller, |writer| writer.change_rule(&rule.guid, None)) {
        true => Ok(Answer::default()),
        false => Err(call.task.not_found(&identity)),
    }
}

/// The kinds of phones that have come so far.
pub(super) fn get_classes(call: Call) -> Result<Answer, ErrorRecord> {
    let classes: BTreeSet<(String, String)> = call.read(|reader| {
        (0..reader.device_slots())
            .filter_map(|position| reader.device_at(position))
            .map(|view| {
                let model = view.device.information.model.as_deref().unwrap_or(&view.device.device_type);
                (view.device.device_type.to_string(), model.to_owned())
            })
            .collect()
    });
    let wanted = call.bound.filled("Identity");
    let named = |(kind, model): &(String, String)| format!("{kind}§{model}");
    let classes: Vec<_> = classes
        .into_iter()
        .filter(|class| wanted.as_deref().is_none_or(|name| named(class).eq_ignore_ascii_case(name)))
        .collect();
    if let (Some(name), true) = (wanted, classes.is_empty()) {
        return Err(call.task.not_found(&name));
    }
    Ok(objects(classes.iter().map(|class| {
        Builder::new(CLASS, named(class))
            .text("DeviceType", &*class.0)
            .text("DeviceModel", &*class.1)
            .text("Name", named(class))
            .text("Identity", named(class))
            .bool("IsValid", true)
            .done()
    })))
}

fn threshold_object(threshold: &AutoblockThreshold) -> Object {
    let span = |minutes: u32| Value::String(span_text(u64::from(minutes) * 60));
    Builder::new(THRESHOLD, threshold.behaviour.to_owned())
        .text("BehaviorType", threshold.behaviour)
        .value("BehaviorTypeIncidenceLimit", Value::I32(i32::try_from(threshold.limit).unwrap_or(i32::MAX)))
        .value("BehaviorTypeIncidenceDuration", span(threshold.incidence_minutes))
        .value("DeviceBlockDuration", span(threshold.block_minutes))
        .text("AdminEmailInsert", &*threshold.mail_insert)
        .text("Name", threshold.behaviour)
        .text("Identity", threshold.behaviour)
        .bool("IsValid", true)
        .done()
}

pub(super) fn get_thresholds(call: Call) -> Result<Answer, ErrorRecord> {
    let wanted = call.bound.filled("Identity");
    call.read(|reader| {
        let named = |threshold: &&AutoblockThreshold| {
            wanted.as_deref().is_none_or(|name| threshold.behaviour.eq_ignore_ascii_case(name))
        };
        let found: Vec<_> = reader.thresholds().iter().filter(named).map(threshold_object).collect();
        match (&wanted, found.is_empty()) {
            (Some(name), true) => Err(call.task.not_found(name)),
            _ => Ok(objects(found)),
        }
    })
}

pub(super) fn set_threshold(call: Call) -> Result<Answer, ErrorRecord> {
    let identity = call.bound.filled("Identity").unwrap_or_default();
    let minutes = |name: &str| -> Result<Option<u32>, ErrorRecord> {
        let Some(text) = call.bound.filled(name) else { return Ok(None) };
        let seconds = parse_span(&text);
        let seconds = seconds.ok_or_else(|| {
            super::errors::conversion(call.spec.name, name, &text, "Microsoft.Exchange.Data.EnhancedTimeSpan")
        })?;
        Ok(Some(u32::try_from(seconds / 60).unwrap_or(u32::MAX)))
    };
    let (incidence, block) = (minutes("BehaviorTypeIncidenceDuration")?, minutes("DeviceBlockDuration")?);
    let limit = call.bound.number("BehaviorTypeIncidenceLimit");
    let insert = call.bound.text("AdminEmailInsert");
    let done = call.organisation.write(call.controller, |writer| {
        writer.change_threshold(&identity, |threshold| {
            threshold.limit = limit.unwrap_or(threshold.limit);
            threshold.incidence_minutes = incidence.unwrap_or(threshold.incidence_minutes);
            threshold.block_minutes = block.unwrap_or(threshold.block_minutes);
            if let Some(text) = insert {
                threshold.mail_insert = text;
            }
        })
    });
    if done { Ok(Answer::default()) } else { Err(call.task.not_found(&identity)) }
}
