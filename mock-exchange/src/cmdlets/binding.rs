//! From the names and values of a cmdlet to parameters that mean something, refused as PowerShell refuses.

use causeway_protocol::clixml::{Content, Value};
use causeway_protocol::cmdlet::{Cmdlet, ErrorRecord};

use super::Caller;
use super::errors::{self, Task};
use super::table::{COMMON, DOMAIN_CONTROLLER, Kind, Parameter, Settings, Spec, WRITING};
use crate::limits::RESULT_SIZE_DEFAULT;
use crate::world::{Organisation, SETTINGS};

/// Parameters by their full names.
pub(super) struct Bound(Vec<(&'static str, Value)>);

/// What happens to a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ListEdit {
    Replace(Vec<String>),
    Change { add: Vec<String>, remove: Vec<String> },
}

/// Binds the parameters of a cmdlet. A parameter the caller's roles do not grant does not exist.
pub(super) fn bind(
    organisation: &Organisation,
    caller: &Caller,
    spec: &'static Spec,
    cmdlet: &Cmdlet,
) -> Result<Bound, ErrorRecord> {
    let known = parameters(organisation, caller, spec);
    let mut bound: Vec<(&'static str, Value)> = Vec::with_capacity(cmdlet.parameters.len());
    for (name, value) in &cmdlet.parameters {
        let name = name.trim_start_matches('-').trim_end_matches(':');
        let parameter = resolve(spec, &known, name)?;
        if bound.iter().any(|(bound, _)| *bound == parameter.name) {
            return Err(errors::parameter_twice(spec.name, parameter.name));
        }
        bound.push((parameter.name, convert(spec, parameter, value)?));
    }
    let absent: Vec<&str> = known
        .iter()
        .filter(|parameter| parameter.mandatory && !bound.iter().any(|(name, _)| *name == parameter.name))
        .map(|parameter| parameter.name)
        .collect();
    if !absent.is_empty() {
        return Err(errors::missing(spec.name, &absent));
    }
    // Mandatory parameters take no null: Get- cmdlets have no mandatory ones and take it, with the known consequence.
    for parameter in known.iter().filter(|parameter| parameter.mandatory) {
        let empty = bound.iter().any(|(name, value)| {
            *name == parameter.name && value.text().is_none_or(|text| text.trim().is_empty())
        });
        if empty {
            let why = "The argument is null or empty. Provide an argument that is not null or empty, and then try the command again.";
            return Err(errors::validation(spec.name, parameter.name, why));
        }
    }
    Ok(Bound(bound))
}

fn parameters(organisation: &Organisation, caller: &Caller, spec: &Spec) -> Vec<Parameter> {
    let profile = organisation.facts().profile;
    let own = spec.parameters.iter().copied();
    let settings = SETTINGS.iter().filter(|setting| setting.since <= profile.version).filter_map(|setting| {
        let name = match spec.settings {
            Settings::None => return None,
            Settings::Old => setting.old_name,
            Settings::New => setting.name,
        };
        Some(Parameter {
            name,
            kind: Kind::Setting,
            mandatory: false,
            since: setting.since,
            on_premises: false,
        })
    });
    let writing = if spec.writes() { WRITING } else { &[] };
    let theirs: Vec<Parameter> = own
        .chain(settings)
        .chain((spec.name != "Get-Command").then_some(DOMAIN_CONTROLLER))
        .filter(|parameter| parameter.since <= profile.version && !(parameter.on_premises && profile.online))
        .filter(|parameter| {
            organisation.grants(&caller.account, spec.name, Some(parameter.name))
                || spec.name == "Get-Command"
        })
        .collect();
    theirs.into_iter().chain(writing.iter().copied()).chain(COMMON.iter().copied()).collect()
}

/// A parameter by its name or an unambiguous beginning of it; without a name, the first one.
fn resolve<'a>(spec: &Spec, known: &'a [Parameter], name: &str) -> Result<&'a Parameter, ErrorRecord> {
    if name.is_empty() {
        return known.first().ok_or_else(|| errors::no_parameter(spec.name, name));
    }
    if let Some(exact) = known.iter().find(|parameter| parameter.name.eq_ignore_ascii_case(name)) {
        return Ok(exact);
    }
    let begins = |parameter: &&Parameter| {
        parameter.name.get(..name.len()).is_some_and(|head| head.eq_ignore_ascii_case(name))
    };
    let matches: Vec<&Parameter> = known.iter().filter(begins).collect();
    match matches[..] {
        [] => Err(errors::no_parameter(spec.name, name)),
        [one] => Ok(one),
        _ => {
            let names: Vec<&str> = matches.iter().map(|parameter| parameter.name).collect();
            Err(errors::ambiguous_parameter(spec.name, name, &names))
        }
    }
}

fn convert(spec: &Spec, parameter: &Parameter, value: &Value) -> Result<Value, ErrorRecord> {
    let shown = value.text().map(std::borrow::Cow::into_owned).unwrap_or_default();
    let wrong = |kind: &str| Err(errors::conversion(spec.name, parameter.name, &shown, kind));
    match parameter.kind {
        Kind::Setting | Kind::Texts => Ok(value.clone()),
        Kind::Identity if matches!(value, Value::Null) => Ok(Value::Null),
        Kind::Text | Kind::Identity => match value.text() {
            Some(text) => Ok(Value::String(text.into_owned())),
            None if matches!(value, Value::Null) => Ok(Value::String(String::new())),
            None => wrong("System.String"),
        },
        Kind::Switch | Kind::Bool => match truth(value) {
            Some(truth) => Ok(Value::Bool(truth)),
            None => wrong(if parameter.kind == Kind::Bool {
                "System.Boolean"
            } else {
                "System.Management.Automation.SwitchParameter"
            }),
        },
        Kind::Word(words) => match words.iter().find(|word| word.eq_ignore_ascii_case(&shown)) {
            Some(word) => Ok(Value::String((*word).to_owned())),
            None => {
                let words = words.join(", ");
                wrong(&format!("an enumeration; the possible values are {words}"))
            }
        },
        Kind::Number(least, most) => match shown.parse::<u32>() {
            Ok(number) if (least..=most).contains(&number) => Ok(Value::U32(number)),
            Ok(_) => {
                let why = format!("The value {shown} is outside the range {least} to {most}.");
                Err(errors::validation(spec.name, parameter.name, &why))
            }
            Err(_) => wrong("System.Int32"),
        },
        Kind::Size if shown.eq_ignore_ascii_case("unlimited") => Ok(Value::String("Unlimited".to_owned())),
        Kind::Size => match shown.parse::<u32>() {
            Ok(number) => Ok(Value::U32(number)),
            Err(_) => wrong("Microsoft.Exchange.Data.Unlimited`1[System.UInt32]"),
        },
    }
}

/// Truth as PowerShell converts it: numbers count, texts do not; REST has texts for everything, so those of truth do.
fn truth(value: &Value) -> Option<bool> {
    match value {
        Value::Bool(truth) => Some(*truth),
        Value::I32(number) => Some(*number != 0),
        Value::I64(number) => Some(*number != 0),
        Value::String(_) => value.as_bool(),
        Value::Object(object) => match &object.content {
            Content::Primitive(inner) => truth(inner),
            // A SwitchParameter that was serialised as an object.
            _ => object.get("IsPresent").and_then(truth),
        },
        _ => None,
    }
}

impl Bound {
    pub(super) fn value(&self, name: &str) -> Option<&Value> {
        self.0.iter().find(|(bound, _)| bound.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    /// A parameter as text; `None` when absent or null.
    pub(super) fn text(&self, name: &str) -> Option<String> {
        self.value(name)?.text().map(std::borrow::Cow::into_owned)
    }

    /// As [`Bound::text`], without one that says nothing.
    pub(super) fn filled(&self, name: &str) -> Option<String> {
        self.text(name).filter(|text| !text.trim().is_empty())
    }

    pub(super) fn is_on(&self, name: &str) -> bool {
        self.bool(name) == Some(true)
    }

    pub(super) fn bool(&self, name: &str) -> Option<bool> {
        self.value(name)?.as_bool()
    }

    pub(super) fn number(&self, name: &str) -> Option<u32> {
        match self.value(name)? {
            Value::U32(number) => Some(*number),
            _ => None,
        }
    }

    /// How many objects may come.
    pub(super) fn limit(&self) -> super::Limit {
        super::Limit(match self.value("ResultSize") {
            None => Some(RESULT_SIZE_DEFAULT),
            Some(Value::U32(number)) => Some(usize::try_from(*number).unwrap_or(usize::MAX)),
            Some(_) => None,
        })
    }

    /// What is to happen to a list; `None` when nothing is said about it.
    pub(super) fn edit(&self, name: &str) -> Option<ListEdit> {
        let value = self.value(name)?;
        if let Value::Object(object) = value
            && let Content::Dictionary(entries) = &object.content
        {
            let of = |word: &str| {
                let named = entries
                    .iter()
                    .filter(|(key, _)| key.text().is_some_and(|key| key.eq_ignore_ascii_case(word)));
                named.flat_map(|(_, value)| texts(value)).collect()
            };
            return Some(ListEdit::Change { add: of("Add"), remove: of("Remove") });
        }
        Some(ListEdit::Replace(texts(value)))
    }

    /// The parameters with their values as text, for the audit log.
    pub(super) fn described(&self) -> Vec<(String, String)> {
        let described = |value: &Value| match value {
            Value::Object(object) => match &object.content {
                Content::Dictionary(entries) => {
                    let entry = |(key, value): &(Value, Value)| {
                        format!("{}={}", key.text().unwrap_or_default(), texts(value).join(","))
                    };
                    format!("@{{{}}}", entries.iter().map(entry).collect::<Vec<_>>().join("; "))
                }
                _ => texts(value).join(","),
            },
            _ => value.text().unwrap_or_default().into_owned(),
        };
        self.0.iter().map(|(name, value)| ((*name).to_owned(), described(value))).collect()
    }

    /// The policy settings among the parameters.
    pub(super) fn all(&self) -> impl Iterator<Item = (&'static str, &Value)> {
        self.0.iter().map(|(name, value)| (*name, value))
    }

    pub(super) fn wants_confirmation(&self, spec: &Spec) -> bool {
        !self.is_on("WhatIf") && self.bool("Confirm").unwrap_or(spec.prompts && !self.is_on("Force"))
    }

    /// The domain controller the caller names.
    pub(super) fn controller(
        &self,
        organisation: &Organisation,
        task: &Task,
    ) -> Result<Option<usize>, ErrorRecord> {
        let Some(name) = self.filled("DomainController") else { return Ok(None) };
        organisation.controller(&name).map(Some).ok_or_else(|| task.no_controller(&name))
    }
}

/// The texts of a list, or of a single value.
pub(super) fn texts(value: &Value) -> Vec<String> {
    value.items().iter().filter_map(|item| item.text().map(std::borrow::Cow::into_owned)).collect()
}
