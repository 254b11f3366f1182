//! `configure MODULE --set key=value --secret-from-stdin key`: local settings, checked before they are kept.

use std::io::Read;
use std::process::ExitCode;

use anyhow::{Context, bail};
use causeway_protocol::Secret;
use clap::Args;

use super::DataDir;
use super::edit::Document;
use crate::config::{FILE_NAME, SettingsFile};
use crate::modules::{FACTORIES, ModuleSettings, factory};
use crate::platform::PlatformSealer;
use crate::secrets::{SecretStore, write_private};

/// Keys that belong to the directory a module names, not to the module: `[directory.<name>]`.
const DIRECTORY_KEYS: [&str; 12] = [
    "personality",
    "servers",
    "domain",
    "site",
    "bind_dn",
    "password",
    "ca_file",
    "start_tls",
    "allow_plain",
    "base_dn",
    "page_size",
    "overrides",
];

/// Longest secret read from standard input, in bytes.
const SECRET_MAX_BYTES: u64 = 64 * 1024;

/// Arguments of `configure`.
#[derive(Args)]
pub struct Configure {
    /// A module (user_auth, user_visibility), or one of: directory, proxy, limits, log, dns, cloud
    module: String,
    /// A setting; the value is TOML, or plain text
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Reads the secret of this key from standard input
    #[arg(long, value_name = "KEY")]
    secret_from_stdin: Option<String>,
    /// The directory that directory settings are for
    #[arg(long, default_value = "default")]
    directory: String,
    #[command(flatten)]
    data_dir: DataDir,
}

impl Configure {
    pub(super) fn execute(self) -> anyhow::Result<ExitCode> {
        let data_dir = &self.data_dir.data_dir;
        let file = SettingsFile::load(data_dir)?;
        let mut secrets = SecretStore::load(data_dir, &PlatformSealer)?;
        if self.set.is_empty() && self.secret_from_stdin.is_none() {
            bail!("nothing to change; give --set key=value or --secret-from-stdin key");
        }
        let mut document = Document::new(file.text);
        for assignment in &self.set {
            let Some((key, value)) = assignment.split_once('=') else {
                bail!("--set {assignment}: write it as key=value");
            };
            let (table, key) = self.place(key.trim())?;
            document.set(&table, &key, &read_value(&key, value))?;
        }
        if let Some(key) = &self.secret_from_stdin {
            secrets = secrets.with(self.secret_name(key)?, read_secret()?);
        }
        let settings = SettingsFile::parse(data_dir.join(FILE_NAME), document.into_text())?;
        self.try_build(&settings, &secrets)?;
        write_private(&settings.path, settings.text.as_bytes())
            .with_context(|| format!("write {}", settings.path.display()))?;
        if self.secret_from_stdin.is_some() {
            secrets.save(data_dir, &PlatformSealer)?;
        }
        eprintln!("Kept. A running agent uses it after a restart; `causeway-agent check` tries it now.");
        Ok(ExitCode::SUCCESS)
    }

    /// Table and key of a setting.
    fn place(&self, key: &str) -> anyhow::Result<(String, String)> {
        let directory = || format!("directory.{}", self.directory);
        match self.module.as_str() {
            "directory" => Ok((directory(), key.to_owned())),
            "proxy" | "limits" | "log" | "dns" | "cloud" => Ok((self.module.clone(), key.to_owned())),
            kind if factory(kind).is_some() => {
                if let Some(key) = key.strip_prefix("directory.") {
                    Ok((directory(), key.to_owned()))
                } else if DIRECTORY_KEYS.contains(&key) {
                    Ok((directory(), key.to_owned()))
                } else {
                    Ok((format!("modules.{kind}"), key.to_owned()))
                }
            }
            other => {
                let kinds: Vec<&str> = FACTORIES.iter().map(|factory| factory.kind()).collect();
                bail!("there is no module {other}; this agent has: {}", kinds.join(", "))
            }
        }
    }

    fn secret_name(&self, key: &str) -> anyhow::Result<String> {
        let (table, key) = self.place(key)?;
        Ok(match (table.as_str(), key.as_str()) {
            ("proxy", _) => "proxy_password".to_owned(),
            (directory, "password") if directory.starts_with("directory.") => directory.to_owned(),
            (table, key) => format!("{table}.{key}"),
        })
    }

    /// Lets the module judge its local settings; what only the cloud's part lacks is not held against them.
    fn try_build(&self, file: &SettingsFile, secrets: &SecretStore) -> anyhow::Result<()> {
        let Some(factory) = factory(&self.module) else { return Ok(()) };
        let settings = ModuleSettings {
            desired: serde_json::Value::Null,
            local: file.settings.modules.get(&self.module).cloned().unwrap_or_default(),
            directories: file.settings.directory.clone(),
            limits: file.settings.limits.clone(),
            secrets: secrets.clone(),
        };
        match factory.build(&settings) {
            Err(error) if error.path.starts_with("modules.") || error.path.starts_with("directory.") => {
                Err(file.error_at(&error.path, error.problem, error.advice).into())
            }
            Ok(_) | Err(_) => Ok(()),
        }
    }
}

/// TOML where it parses as a value, a list where the key wants one, else plain text.
fn read_value(key: &str, text: &str) -> toml::Value {
    let parsed = format!("v = {text}").parse::<toml::Table>().ok().and_then(|mut table| {
        // Text such as `1\n[limits]` must not smuggle in more than a value.
        if table.len() == 1 { table.remove("v") } else { None }
    });
    match parsed {
        Some(value @ toml::Value::Array(_)) => value,
        Some(value) if key != "servers" && !value.is_datetime() => value,
        _ if key == "servers" => {
            toml::Value::Array(text.split(',').map(|server| server.trim().trim_matches('"').into()).collect())
        }
        _ => text.into(),
    }
}

fn read_secret() -> anyhow::Result<Secret> {
    let mut text = zeroize::Zeroizing::new(String::new());
    std::io::stdin()
        .take(SECRET_MAX_BYTES)
        .read_to_string(&mut text)
        .context("read the secret from standard input")?;
    let secret = text.strip_suffix('\n').unwrap_or(&text);
    let secret = secret.strip_suffix('\r').unwrap_or(secret);
    if secret.is_empty() {
        bail!("standard input holds no secret");
    }
    Ok(Secret::new(secret))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_toml_or_text() {
        assert_eq!(read_value("page_size", "500"), toml::Value::from(500));
        assert_eq!(read_value("start_tls", "false"), toml::Value::from(false));
        assert_eq!(read_value("bind_dn", "ACME\\svc"), toml::Value::from("ACME\\svc"));
        assert_eq!(read_value("bind_dn", "1\n[limits]\na = 1"), toml::Value::from("1\n[limits]\na = 1"));
        let two = toml::Value::Array(vec!["ldaps://a".into(), "ldaps://b:1636".into()]);
        assert_eq!(read_value("servers", "ldaps://a, ldaps://b:1636"), two);
        assert_eq!(read_value("servers", r#"["ldaps://a", "ldaps://b:1636"]"#), two);
    }
}
