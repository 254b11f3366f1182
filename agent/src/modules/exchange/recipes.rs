//! Which cmdlets a generation of Exchange has, as data.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use causeway_protocol::clixml::Value;
use serde::Deserialize;

/// The cmdlets of one generation.
#[derive(Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Recipe {
    pub(super) name: String,
    /// For people.
    pub(super) title: String,
    /// The cmdlet whose existence tells the generation.
    pub(super) probe: String,
    /// Whether phones can only be asked for mailbox by mailbox, and what is told of them is the statistics.
    pub(super) per_mailbox: bool,
    /// Whether phones can be held until a person decides.
    pub(super) quarantine: bool,
    /// Whether a mailbox has a list of blocked phones; else its list of allowed ones, if it has one, keeps out all others.
    pub(super) block_list: bool,
    pub(super) devices: String,
    pub(super) statistics: String,
    pub(super) wipe: String,
    pub(super) remove: String,
    pub(super) mailbox: String,
    pub(super) set_mailbox: String,
    pub(super) policies: String,
    pub(super) new_policy: String,
    pub(super) set_policy: String,
    #[serde(default)]
    pub(super) organization: Option<String>,
    #[serde(default)]
    pub(super) set_organization: Option<String>,
    /// Parameters of policies that this generation calls otherwise.
    pub(super) renamed: BTreeMap<String, String>,
}

/// What a policy's setting holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum SettingType {
    Bool,
    /// A number, or `Unlimited`.
    Number,
    /// `hh:mm:ss` or `d.hh:mm:ss`, or `Unlimited`.
    Span,
    /// One word, such as `HandsfreeOnly`.
    Word,
    /// Anything short.
    Text,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    recipe: Vec<Recipe>,
    settings: BTreeMap<String, SettingType>,
}

static FILE: LazyLock<File> = LazyLock::new(|| {
    toml::from_str(include_str!("recipes.toml")).expect("the built-in recipes parse; tested")
});

/// Every generation, newest first.
pub(super) fn recipes() -> &'static [Recipe] {
    &FILE.recipe
}

impl Recipe {
    /// What this generation calls a setting of policies.
    pub(super) fn parameter<'a>(&'a self, setting: &'a str) -> &'a str {
        self.renamed.get(setting).map_or(setting, String::as_str)
    }
}

/// The value of a policy's setting as the cmdlet takes it.
///
/// # Errors
/// What is wrong with name or value, for people.
pub(super) fn setting(name: &str, value: &serde_json::Value) -> Result<Value, String> {
    let Some(kind) = FILE.settings.get(name) else {
        return Err(format!("{name:?} is no setting of a policy"));
    };
    let wrong = |wanted: &str| Err(format!("{name} takes {wanted}"));
    match (kind, value) {
        (SettingType::Bool, serde_json::Value::Bool(truth)) => Ok(Value::Bool(*truth)),
        (SettingType::Bool, _) => wrong("true or false"),
        (SettingType::Number, serde_json::Value::Number(number)) => Ok(Value::String(number.to_string())),
        (_, serde_json::Value::String(text)) if is_plain(*kind, text) => Ok(Value::String(text.clone())),
        (SettingType::Number, _) => wrong("a number or Unlimited"),
        (SettingType::Span, _) => wrong("a span such as 00:15:00, or Unlimited"),
        (SettingType::Word, _) => wrong("one word"),
        (SettingType::Text, _) => wrong("a short text"),
    }
}

fn is_plain(kind: SettingType, text: &str) -> bool {
    let all = |allowed: fn(char) -> bool| !text.is_empty() && text.len() <= 64 && text.chars().all(allowed);
    match kind {
        SettingType::Bool => false,
        SettingType::Number => text == "Unlimited" || all(|c| c.is_ascii_digit()),
        SettingType::Span => text == "Unlimited" || all(|c| c.is_ascii_digit() || c == ':' || c == '.'),
        SettingType::Word => all(|c| c.is_ascii_alphanumeric()),
        SettingType::Text => all(|c| c.is_ascii_alphanumeric() || " ._-()".contains(c)),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn recipes_name_cmdlets_and_nothing_else() {
        for recipe in recipes() {
            let names = [
                &recipe.probe,
                &recipe.devices,
                &recipe.statistics,
                &recipe.wipe,
                &recipe.remove,
                &recipe.mailbox,
                &recipe.set_mailbox,
                &recipe.policies,
                &recipe.new_policy,
                &recipe.set_policy,
            ];
            for name in names {
                assert!(name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-'), "{name}");
                assert_eq!(name.matches('-').count(), 1, "{name}");
            }
            assert_eq!(recipe.quarantine, recipe.set_organization.is_some(), "{}", recipe.name);
        }
        assert_eq!(recipes().len(), 3);
    }

    #[test]
    fn what_a_policy_is_given_is_named_and_plain() {
        assert_eq!(setting("AllowCamera", &json!(false)), Ok(Value::Bool(false)));
        assert_eq!(setting("MinPasswordLength", &json!(6)), Ok(Value::from("6")));
        assert_eq!(setting("MaxInactivityTimeLock", &json!("00:15:00")), Ok(Value::from("00:15:00")));
        for (name, value) in [
            ("Identity", json!("x")),
            ("AllowCamera; Remove-Mailbox", json!(true)),
            ("AllowCamera", json!("$(Get-Mailbox)")),
            ("AllowBluetooth", json!("Allow; Get-Mailbox")),
            ("MaxAttachmentSize", json!("$(1)")),
            ("MinPasswordLength", json!(["6"])),
        ] {
            assert!(setting(name, &value).is_err(), "{name} {value}");
        }
        assert_eq!(recipes()[1].parameter("PasswordEnabled"), "DevicePasswordEnabled");
        assert_eq!(recipes()[1].parameter("AllowCamera"), "AllowCamera");
    }
}
