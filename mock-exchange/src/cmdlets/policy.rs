//! Cmdlets about device policies.

use causeway_protocol::clixml::{Object, Value};
use causeway_protocol::cmdlet::ErrorRecord;

use super::identity::{find_policy, policy_dn};
use super::object::{Builder, Types};
use super::{Answer, Call, Output};
use crate::limits::POLICIES_MAX;
use crate::profile::Version;
use crate::world::{
    Policy, PolicyId, PolicyValue, Reader, Refusal, SETTINGS, Setting, SettingKind, parse_span, span_text,
};

static NEW_POLICY: Types = &[
    "Deserialized.Microsoft.Exchange.Data.Directory.SystemConfiguration.MobileMailboxPolicy",
    "Deserialized.Microsoft.Exchange.Data.Directory.SystemConfiguration.MailboxPolicy",
    "Deserialized.Microsoft.Exchange.Data.Directory.ADConfigurationObject",
    "Deserialized.System.Object",
    "System.Object",
];
static OLD_POLICY: Types = &[
    "Deserialized.Microsoft.Exchange.Data.Directory.SystemConfiguration.ActiveSyncMailboxPolicy",
    "Deserialized.Microsoft.Exchange.Data.Directory.SystemConfiguration.MailboxPolicy",
    "Deserialized.Microsoft.Exchange.Data.Directory.ADConfigurationObject",
    "Deserialized.System.Object",
    "System.Object",
];

const WORD_ENUM: &str = "Deserialized.Microsoft.Exchange.Data.Directory.SystemConfiguration";

fn is_old(call: &Call) -> bool {
    call.spec.name.contains("ActiveSync")
}

fn object(call: &Call, reader: &Reader<'_>, policy: &Policy) -> Object {
    let old = is_old(call);
    let version = call.organisation.facts().profile.version;
    let mut object = Builder::new(if old { OLD_POLICY } else { NEW_POLICY }, policy.name.to_string());
    for setting in SETTINGS.iter().filter(|setting| setting.since <= version) {
        let name = if old { setting.old_name } else { setting.name };
        object = match (policy.value(setting), setting.kind) {
            (PolicyValue::Switch(on), _) => object.bool(name, on),
            (PolicyValue::List(items), _) => object.list(name, items),
            (PolicyValue::Text(word), SettingKind::Word(words)) => {
                let number =
                    words.iter().position(|known| *known == word).and_then(|at| i32::try_from(at).ok());
                object.enumeration(
                    name,
                    &format!("{WORD_ENUM}.{}Type", setting.name),
                    &word,
                    number.unwrap_or(0),
                )
            }
            (PolicyValue::Text(text), SettingKind::OptionalNumber(..) | SettingKind::Number(..)) => {
                object.value(name, text.parse().map_or(Value::Null, Value::I32))
            }
            (PolicyValue::Text(text), _) => object.text(name, text),
        };
    }
    object = object.bool(if old { "IsDefaultPolicy" } else { "IsDefault" }, policy.is_default);
    if old && version >= Version::E2010 {
        object = object.bool("IsDefault", policy.is_default);
    }
    object
        .text("AdminDisplayName", "")
        .text("ExchangeVersion", "0.10 (14.0.100.0)")
        .text("Name", &*policy.name)
        .text("DistinguishedName", policy_dn(&call.organisation, policy))
        .text("Identity", &*policy.name)
        .guid("Guid", &policy.guid)
        .date("WhenChanged", Some(policy.changed_ms))
        .date("WhenCreated", Some(policy.created_ms))
        .date("WhenChangedUTC", Some(policy.changed_ms))
        .date("WhenCreatedUTC", Some(policy.created_ms))
        .text("OrganizationId", "")
        .text("OriginatingServer", reader.controller_name())
        .bool("IsValid", true)
        .done()
}

pub(super) fn get(call: Call) -> Result<Answer, ErrorRecord> {
    call.read(|reader| {
        let objects: Vec<Object> = match call.bound.filled("Identity") {
            Some(identity) => {
                let (_, policy) = find_policy(&call.organisation, reader, &call.task, &identity)?;
                vec![object(&call, reader, policy)]
            }
            None => reader.policies().map(|(_, policy)| object(&call, reader, policy)).collect(),
        };
        Ok(Answer { outputs: objects.into_iter().map(Output::Object).collect(), source: None })
    })
}

/// The settings among the parameters, checked.
fn values(call: &Call) -> Result<Vec<(&'static Setting, PolicyValue)>, ErrorRecord> {
    let settings = call
        .bound
        .all()
        .filter_map(|(name, value)| Setting::named(name).map(|setting| (name, setting, value)));
    settings.map(|(name, setting, value)| Ok((setting, read(call, name, setting, value)?))).collect()
}

fn read(call: &Call, name: &str, setting: &Setting, value: &Value) -> Result<PolicyValue, ErrorRecord> {
    let shown = value.text().map(std::borrow::Cow::into_owned).unwrap_or_default();
    let cmdlet = call.spec.name;
    let wrong = |kind: &str| super::errors::conversion(cmdlet, name, &shown, kind);
    let within = |least: u32, most: u32| match shown.parse::<u32>() {
        Ok(number) if (least..=most).contains(&number) => Ok(PolicyValue::Text(shown.clone())),
        Ok(_) => {
            let why = format!("The property value is invalid. The value must be between {least} and {most}.");
            Err(super::errors::validation(cmdlet, name, &why))
        }
        Err(_) => Err(wrong("System.Int32")),
    };
    match setting.kind {
        SettingKind::Switch(_) => {
            value.as_bool().map(PolicyValue::Switch).ok_or_else(|| wrong("System.Boolean"))
        }
        SettingKind::OptionalNumber(..) if shown.is_empty() => Ok(PolicyValue::Text(String::new())),
        SettingKind::OptionalNumber(least, most) | SettingKind::Number(least, most, _) => within(least, most),
        SettingKind::Limit(..) | SettingKind::Span if shown.eq_ignore_ascii_case("unlimited") => {
            Ok(PolicyValue::Text("Unlimited".to_owned()))
        }
        SettingKind::Limit(least, most) => within(least, most),
        SettingKind::Span => {
            parse_span(&shown).map(|seconds| PolicyValue::Text(span_text(seconds))).ok_or_else(|| {
                wrong("Microsoft.Exchange.Data.Unlimited`1[Microsoft.Exchange.Data.EnhancedTimeSpan]")
            })
        }
        SettingKind::Word(words) => words
            .iter()
            .find(|word| word.eq_ignore_ascii_case(&shown))
            .map(|word| PolicyValue::Text((*word).to_owned()))
            .ok_or_else(|| wrong(&format!("an enumeration; the possible values are {}", words.join(", ")))),
        SettingKind::List => Ok(PolicyValue::List(super::binding::texts(value))),
    }
}

fn wants_default(call: &Call) -> Option<bool> {
    call.bound.bool("IsDefault").or_else(|| call.bound.bool("IsDefaultPolicy"))
}

pub(super) fn new(call: Call) -> Result<Answer, ErrorRecord> {
    let name = call.bound.filled("Name").unwrap_or_default();
    let values = values(&call)?;
    let is_default = wants_default(&call) == Some(true);
    let made = call.organisation.write(call.controller, |writer| {
        writer.create_policy(&name, |policy| {
            policy.is_default = is_default;
            for (setting, value) in values {
                policy.set(setting, value);
            }
        })
    });
    match made {
        Ok(id) => Ok(call.read(|reader| written(&call, reader, id))),
        Err(Refusal::TooMany) => Err(call.task.too_many("policies", POLICIES_MAX)),
        Err(_) => Err(call.task.exists(&name)),
    }
}

/// What New- gives back: what was written, even where the controller that answers has not heard of it yet.
fn written(call: &Call, reader: &Reader<'_>, id: PolicyId) -> Answer {
    let of = |reader: &Reader<'_>| reader.policy(id).map(|policy| object(call, reader, policy));
    let object = of(reader);
    Answer { outputs: object.map(Output::Object).into_iter().collect(), source: None }
}

pub(super) fn set(call: Call) -> Result<Answer, ErrorRecord> {
    let identity = call.bound.filled("Identity").unwrap_or_default();
    let values = values(&call)?;
    let (name, is_default) = (call.bound.filled("Name"), wants_default(&call));
    let (id, was_default) = call.read(|reader| {
        let found = find_policy(&call.organisation, reader, &call.task, &identity);
        found.map(|(id, policy)| (id, policy.is_default))
    })?;
    if is_default == Some(false) && was_default {
        let why = "The default policy can't be changed to not be the default; make another policy the default instead.";
        return Err(call.task.invalid_operation(why.to_owned(), &identity));
    }
    let result = call.organisation.write(call.controller, |writer| {
        writer.change_policy(id, |policy| {
            if let Some(name) = name {
                policy.name = name.into();
            }
            policy.is_default = is_default.unwrap_or(policy.is_default);
            let changed = values.into_iter().map(|(setting, value)| policy.set(setting, value));
            // Every value is put in, whether or not an earlier one changed something.
            changed.fold(false, |any, one| any | one)
        })
    });
    match result {
        Ok(()) => Ok(Answer::default()),
        Err(Refusal::NameTaken) => Err(call.task.exists(&call.bound.filled("Name").unwrap_or_default())),
        Err(_) => Err(call.task.not_found(&identity)),
    }
}

pub(super) fn remove(call: Call) -> Result<Answer, ErrorRecord> {
    let identity = call.bound.filled("Identity").unwrap_or_default();
    let id =
        call.read(|reader| find_policy(&call.organisation, reader, &call.task, &identity).map(|(id, _)| id))?;
    match call.organisation.write(call.controller, |writer| writer.remove_policy(id)) {
        Ok(()) => Ok(Answer::default()),
        Err(Refusal::InUse) => {
            let why =
                "The policy can't be removed because it is the default policy or is assigned to mailboxes.";
            Err(call.task.invalid_operation(why.to_owned(), &identity))
        }
        Err(_) => Err(call.task.not_found(&identity)),
    }
}
