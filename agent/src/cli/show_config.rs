//! `show-config`: every setting in force, with its origin. Of secrets only the names.

use std::collections::BTreeMap;
use std::process::ExitCode;

use clap::Args;
use serde_json::Value;

use super::DataDir;
use crate::config::{Dns, Limits, Log, Proxy, SettingsFile};
use crate::orchestrator::read_desired;
use crate::platform::PlatformSealer;
use crate::secrets::SecretStore;

/// Arguments of `show-config`.
#[derive(Args)]
pub struct ShowConfig {
    #[command(flatten)]
    data_dir: DataDir,
}

impl ShowConfig {
    pub(super) fn execute(self) -> anyhow::Result<ExitCode> {
        let data_dir = &self.data_dir.data_dir;
        let file = SettingsFile::load(data_dir)?;
        let secrets = SecretStore::load(data_dir, &PlatformSealer)?;
        for line in lines(&file, &read_desired(data_dir), &secrets)? {
            println!("{line}");
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// One line a value: `path = value  # origin`.
pub(super) fn lines(
    file: &SettingsFile,
    desired: &BTreeMap<String, causeway_protocol::config::DesiredConfig>,
    secrets: &SecretStore,
) -> anyhow::Result<Vec<String>> {
    let settings = &file.settings;
    let written: Value = serde_json::to_value(file.text.parse::<toml::Table>()?)?;
    let mut lines = Vec::new();
    let mut local = |table: &str, value: Value| {
        let origin = |path: &str| {
            let there = path.split('.').try_fold(&written, |value, part| value.get(part)).is_some();
            if there { "agent.toml" } else { "default" }
        };
        flatten(table, &value, &mut |path, value| {
            lines.push(format!("{path} = {value}  # {}", origin(path)));
        });
    };
    local("cloud", serde_json::to_value(&settings.cloud)?);
    if let Some(proxy) = &settings.proxy {
        local("proxy", serde_json::to_value::<&Proxy>(proxy)?);
    }
    local("dns", serde_json::to_value::<&Dns>(&settings.dns)?);
    local("log", serde_json::to_value::<&Log>(&settings.log)?);
    local("limits", serde_json::to_value::<&Limits>(&settings.limits)?);
    for (name, value) in &settings.directory {
        local(&format!("directory.{name}"), value.clone());
    }
    for (kind, value) in &settings.modules {
        local(&format!("modules.{kind}"), value.clone());
    }
    for (kind, config) in desired {
        let wins = settings.modules.get(kind);
        let origin = |path: &str| {
            let own = path.strip_prefix(&format!("modules.{kind}.")).unwrap_or(path);
            let local = own.split('.').try_fold(wins?, |value, part| value.get(part));
            local.map(|_| " (overridden by agent.toml)")
        };
        let at = format!("modules.{kind}");
        lines.push(format!("{at}.enabled = {}  # cloud, revision {}", config.enabled, config.revision));
        flatten(&at, &config.settings, &mut |path, value| {
            let note = origin(path).unwrap_or_default();
            lines.push(format!("{path} = {value}  # cloud, revision {}{note}", config.revision));
        });
    }
    for name in secrets.names() {
        lines.push(format!("secret {name:?} is set  # secrets.sealed"));
    }
    Ok(lines)
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
