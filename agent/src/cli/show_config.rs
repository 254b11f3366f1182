//! `show-config`: every setting in force, with its origin, and what it overrides. Of secrets only whether they are there.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::process::ExitCode;

use causeway_protocol::config::DesiredConfig;
use clap::Args;
use serde_json::{Value, json};

use super::{DataDir, say};
use crate::ca::settings::CaSettings;
use crate::config::{FILE_NAME, SettingsFile};
use crate::dial::proxy::settings::ProxySettings;
use crate::directory::settings::DirectorySettings;
use crate::exchange::settings::ExchangeSettings;
use crate::modules::{FACTORIES, ModuleSettings};
use crate::orchestrator::read_desired;
use crate::platform::PlatformSealer;
use crate::secrets::SecretStore;

/// Arguments of `show-config`.
#[derive(Args)]
pub struct ShowConfig {
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    data_dir: DataDir,
}

impl ShowConfig {
    pub(super) fn execute(self) -> anyhow::Result<ExitCode> {
        let data_dir = &self.data_dir.data_dir;
        let file = SettingsFile::load(data_dir)?;
        let secrets = SecretStore::load(data_dir, &PlatformSealer)?;
        let effective = effective(&file, &read_desired(data_dir), &secrets);
        if self.json {
            say::line(format_args!("{:#}", effective.to_json()))?;
        } else {
            say::text(effective.to_text())?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    Default,
    File {
        line: usize,
    },
    Cloud {
        revision: u64,
    },
    /// A local limit wins over the cloud.
    Limit {
        key: &'static str,
        line: usize,
    },
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { line } => write!(f, "{FILE_NAME}:{line}"),
            Self::Cloud { revision } => write!(f, "cloud, revision {revision}"),
            Self::Limit { key, line } => write!(f, "limited by {key}, {FILE_NAME}:{line}"),
        }
    }
}

/// One value in force.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Setting {
    pub(super) key: String,
    pub(super) value: Value,
    pub(super) origin: Origin,
    /// What would hold without this origin, where somebody else wanted something.
    pub(super) instead_of: Option<(Value, Origin)>,
}

/// Everything in force.
pub(super) struct Effective {
    pub(super) settings: Vec<Setting>,
    /// Names of secrets that are needed or kept, and whether they are there.
    pub(super) secrets: BTreeMap<String, bool>,
}

impl Effective {
    pub(super) fn to_text(&self) -> String {
        let mut text = String::new();
        for Setting { key, value, origin, instead_of } in &self.settings {
            text.push_str(&format!("{key} = {value}  # {origin}"));
            if let Some((value, origin)) = instead_of {
                text.push_str(&format!("; instead of {value} ({origin})"));
            }
            text.push('\n');
        }
        for (name, there) in &self.secrets {
            text.push_str(&format!("secret {name} = {}\n", state(*there)));
        }
        text
    }

    pub(super) fn to_json(&self) -> Value {
        let settings = self.settings.iter().map(|setting| {
            let mut json = json!({
                "key": setting.key,
                "value": setting.value,
                "origin": setting.origin.to_string(),
            });
            if let Some((value, origin)) = &setting.instead_of {
                json["instead_of"] = json!({ "value": value, "origin": origin.to_string() });
            }
            json
        });
        let secrets: BTreeMap<&String, &str> =
            self.secrets.iter().map(|(name, there)| (name, state(*there))).collect();
        json!({ "settings": settings.collect::<Vec<_>>(), "secrets": secrets })
    }
}

fn state(there: bool) -> &'static str {
    if there { "set (sealed)" } else { "missing" }
}

/// Puts defaults, `agent.toml` and the cloud's config together as the agent does.
pub(super) fn effective(
    file: &SettingsFile,
    desired: &BTreeMap<String, DesiredConfig>,
    secrets: &SecretStore,
) -> Effective {
    let mut settings = Vec::new();
    let here = &file.settings;
    let proxy = here.proxy.clone().unwrap_or_default();
    for (table, value) in [
        ("cloud", serde_json::to_value(&here.cloud)),
        ("proxy", serde_json::to_value(&proxy)),
        ("dns", serde_json::to_value(&here.dns)),
        ("log", serde_json::to_value(&here.log)),
        ("limits", serde_json::to_value(&here.limits)),
    ] {
        local(file, table, &value.unwrap_or_default(), &mut settings);
    }
    for (name, written) in &here.directory {
        let table = format!("directory.{name}");
        let read = ModuleSettings::read::<DirectorySettings>(&table, written).ok();
        let value = read.and_then(|read| serde_json::to_value(read).ok());
        local(file, &table, &value.unwrap_or_else(|| written.clone()), &mut settings);
    }
    for (name, written) in &here.exchange {
        let table = format!("exchange.{name}");
        let read = ModuleSettings::read::<ExchangeSettings>(&table, written).ok();
        let value = read.and_then(|read| serde_json::to_value(read).ok());
        local(file, &table, &value.unwrap_or_else(|| written.clone()), &mut settings);
    }
    for (name, written) in &here.ca {
        let table = format!("ca.{name}");
        let read = ModuleSettings::read::<CaSettings>(&table, written).ok();
        let value = read.and_then(|read| serde_json::to_value(read).ok());
        local(file, &table, &value.unwrap_or_else(|| written.clone()), &mut settings);
    }
    for factory in FACTORIES {
        let kind = factory.kind();
        let own = here.modules.get(kind);
        if own.is_some() || desired.contains_key(kind) {
            module(file, kind, &factory.defaults(), desired.get(kind), &mut settings);
        }
    }
    Effective { settings, secrets: needed(file, secrets) }
}

fn local(file: &SettingsFile, table: &str, value: &Value, into: &mut Vec<Setting>) {
    flatten(table, value, &mut |key, value| {
        let origin = origin(file, key);
        into.push(Setting { key: key.to_owned(), value: value.clone(), origin, instead_of: None });
    });
}

fn origin(file: &SettingsFile, key: &str) -> Origin {
    file.line_of(key).map_or(Origin::Default, |line| Origin::File { line })
}

/// A key of `agent.toml` replaces the cloud's key of that name as a whole; what neither says is the default.
fn module(
    file: &SettingsFile,
    kind: &str,
    defaults: &Value,
    desired: Option<&DesiredConfig>,
    into: &mut Vec<Setting>,
) {
    let table = format!("modules.{kind}");
    if let Some(config) = desired {
        into.push(enabled(file, kind, config));
    }
    let own = file.settings.modules.get(kind).and_then(Value::as_object);
    let theirs = desired.and_then(|config| config.settings.as_object());
    let defaults = defaults.as_object();
    let keys: BTreeSet<&String> =
        [own, theirs, defaults].into_iter().flatten().flat_map(|fields| fields.keys()).collect();
    for key in keys {
        let path = format!("{table}.{key}");
        let default = defaults.and_then(|fields| fields.get(key));
        let from_cloud = theirs.and_then(|fields| fields.get(key));
        let cloud = Origin::Cloud { revision: desired.map_or(0, |config| config.revision) };
        let (value, instead_of) = match (own.and_then(|fields| fields.get(key)), from_cloud) {
            (Some(own), Some(theirs)) if own != theirs => (own, Some(theirs.clone())),
            (Some(own), _) => (own, None),
            (None, Some(theirs)) => (theirs, None),
            (None, None) => match default {
                Some(default) => (default, None),
                None => continue,
            },
        };
        let mut shown = BTreeSet::new();
        flatten(&path, value, &mut |key, value| {
            shown.insert(key.to_owned());
            let origin = match file.line_of(key) {
                Some(line) => Origin::File { line },
                None if from_cloud.is_some() => cloud.clone(),
                None => Origin::Default,
            };
            let instead_of = instead_of.as_ref().map(|theirs| (theirs.clone(), cloud.clone()));
            into.push(Setting { key: key.to_owned(), value: value.clone(), origin, instead_of });
        });
        // Of a table that is given in part, the rest is the default.
        if let (true, Some(default)) = (value.is_object(), default.filter(|default| default.is_object())) {
            flatten(&path, default, &mut |key, value| {
                if !shown.contains(key) {
                    let value = value.clone();
                    into.push(Setting {
                        key: key.to_owned(),
                        value,
                        origin: Origin::Default,
                        instead_of: None,
                    });
                }
            });
        }
    }
}

fn enabled(file: &SettingsFile, kind: &str, config: &DesiredConfig) -> Setting {
    const LIMIT: &str = "limits.modules_forbidden";
    let key = format!("modules.{kind}.enabled");
    let cloud = Origin::Cloud { revision: config.revision };
    let forbidden = file.settings.limits.modules_forbidden.iter().any(|name| name == kind);
    if forbidden && config.enabled {
        let origin = Origin::Limit { key: LIMIT, line: file.line_of(LIMIT).unwrap_or(1) };
        return Setting { key, value: false.into(), origin, instead_of: Some((true.into(), cloud)) };
    }
    Setting { key, value: config.enabled.into(), origin: cloud, instead_of: None }
}

fn needed(file: &SettingsFile, secrets: &SecretStore) -> BTreeMap<String, bool> {
    let mut names: BTreeSet<String> = secrets.names().map(str::to_owned).collect();
    for (name, directory) in &file.settings.directory {
        let text = |key: &str| directory.get(key).and_then(Value::as_str).unwrap_or_default();
        if !text("bind_dn").is_empty() {
            names.insert(match text("password") {
                "" => format!("directory.{name}"),
                // What names no secret may be the password itself.
                named if secrets.get(named).is_none() => format!("(named by directory.{name}.password)"),
                named => named.to_owned(),
            });
        }
    }
    for (name, exchange) in &file.settings.exchange {
        let read = ModuleSettings::read::<ExchangeSettings>(&format!("exchange.{name}"), exchange);
        let there = |name: &str| secrets.get(name).is_some();
        names.extend(read.map(|read| read.missing_secrets(name, there)).unwrap_or_default());
    }
    for (name, ca) in &file.settings.ca {
        let read = ModuleSettings::read::<CaSettings>(&format!("ca.{name}"), ca);
        names.extend(read.map(|read| read.secret_names(name)).unwrap_or_default());
    }
    if let Some(proxy) = file.settings.proxy.as_ref().filter(|proxy| proxy.username.is_some()) {
        let named = &proxy.password_secret;
        let there = secrets.get(named).is_some() || *named == ProxySettings::default().password_secret;
        names.insert(if there { named.clone() } else { "(named by proxy.password_secret)".to_owned() });
    }
    names.into_iter().map(|name| (name.clone(), secrets.get(&name).is_some())).collect()
}

fn flatten(path: &str, value: &Value, line: &mut dyn FnMut(&str, &Value)) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                flatten(&format!("{path}.{key}"), value, line);
            }
        }
        Value::Null => {}
        other => line(path, other),
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use causeway_protocol::Secret;

    use super::*;

    fn shown(text: &str, desired: Value) -> Effective {
        let file = SettingsFile::parse(PathBuf::from("agent.toml"), text.to_owned()).unwrap();
        let desired: BTreeMap<String, DesiredConfig> = serde_json::from_value(desired).unwrap();
        let secrets = SecretStore::default().with("directory.default", Secret::new("canary"));
        effective(&file, &desired, &secrets)
    }

    #[test]
    fn every_value_has_its_origin_and_what_it_overrides() {
        let text = "[limits]\nmodules_forbidden = [\"user_auth\"]\n\n[directory.default]\nservers = [\"ldaps://a\"]\n\
                    bind_dn = \"cn=svc\"\n[directory.other]\nservers = [\"ldaps://b\"]\nbind_dn = \"cn=svc\"\n\
                    [modules.user_visibility]\ndelta_every_secs = 60\n";
        let config = |module: &str, settings: Value| json!({ "module": module, "revision": 7, "enabled": true, "settings": settings });
        let desired = json!({
            "user_auth": config("user_auth", json!({})),
            "user_visibility": config("user_visibility", json!({
                "delta_every_secs": 300, "groups": false, "guard": { "percent_max": 9 },
            })),
        });
        let effective = shown(text, desired);
        let text = effective.to_text();
        for line in [
            "limits.actions_at_once = 32  # default\n",
            "limits.modules_forbidden = [\"user_auth\"]  # agent.toml:2\n",
            "directory.default.page_size = 1000  # default\n",
            "directory.default.servers = [\"ldaps://a\"]  # agent.toml:5\n",
            "modules.user_auth.enabled = false  # limited by limits.modules_forbidden, agent.toml:2; instead of true (cloud, revision 7)\n",
            "modules.user_visibility.delta_every_secs = 60  # agent.toml:11; instead of 300 (cloud, revision 7)\n",
            "modules.user_visibility.groups = false  # cloud, revision 7\n",
            "modules.user_visibility.guard.percent_max = 9  # cloud, revision 7\n",
            "modules.user_visibility.guard.deletions_max = 500  # default\n",
            "secret directory.default = set (sealed)\n",
            "secret directory.other = missing\n",
        ] {
            assert!(text.contains(line), "{line}\n is not in\n{text}");
        }
        assert!(!text.contains("canary"));
        let json = effective.to_json();
        assert_eq!(json["secrets"]["directory.other"], "missing");
    }
}
