//! `support-bundle`: one JSON file that tells support what they ask first, and nothing secret.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use serde_json::{Value, json};

use super::{DataDir, show_config};
use crate::clock::Clock;
use crate::config::SettingsFile;
use crate::health;
use crate::identity::Identity;
use crate::orchestrator::read_desired;
use crate::platform::PlatformSealer;
use crate::secrets::{SecretStore, write_private};

/// What stands in place of a secret.
const REMOVED: &str = "[removed]";

/// Arguments of `support-bundle`.
#[derive(Args)]
pub struct SupportBundle {
    /// The file to write; default: causeway-support-<time>.json in the current directory
    #[arg(long)]
    output: Option<PathBuf>,
    #[command(flatten)]
    data_dir: DataDir,
}

impl SupportBundle {
    pub(super) fn execute(self) -> anyhow::Result<ExitCode> {
        let now_ms = Clock::system().now_ms();
        let output = self.output.unwrap_or_else(|| format!("causeway-support-{}.json", now_ms / 1000).into());
        let bundle = bundle(&self.data_dir.data_dir, now_ms);
        write_private(&output, bundle.as_bytes()).with_context(|| format!("write {}", output.display()))?;
        println!("{}", output.display());
        Ok(ExitCode::SUCCESS)
    }
}

/// The bundle's text. What cannot be read is said in its place: a broken installation needs support most.
pub fn bundle(data_dir: &Path, now_ms: i64) -> String {
    let sealer = PlatformSealer;
    let secrets = SecretStore::load(data_dir, &sealer);
    let said = |error: &(dyn std::error::Error + 'static)| json!({ "error": crate::chain::Chain(error).to_string() });
    let empty = SecretStore::default();
    let file = SettingsFile::load(data_dir);
    let desired = read_desired(data_dir);
    let settings = match &file {
        Ok(file) => show_config::lines(file, &desired, secrets.as_ref().unwrap_or(&empty))
            .map_or_else(|error| json!({ "error": error.to_string() }), |lines| json!(lines)),
        Err(error) => said(error),
    };
    let identity = match Identity::load(data_dir, &sealer) {
        Ok(identity) => json!({
            "instance": identity.instance,
            "tenant": identity.tenant,
            "jid": identity.jid.to_string(),
            "certificate_valid_until_ms": identity.validity().map(|validity| validity.until_ms).ok(),
        }),
        Err(error) => said(&error),
    };
    let status = health::read_file(data_dir).map_or_else(|error| said(&error), |status| json!(status));
    let bundle = json!({
        "written_ms": now_ms,
        "version": env!("CARGO_PKG_VERSION"),
        "os": format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
        "settings": settings,
        "secrets": secrets.as_ref().map_or_else(|error| said(error), |s| json!(s.names().collect::<Vec<_>>())),
        "identity": identity,
        "status": status,
        "files": files(data_dir),
    });
    let mut bundle = bundle;
    scrub(&mut bundle, secrets.as_ref().unwrap_or(&empty));
    format!("{bundle:#}\n")
}

fn files(data_dir: &Path) -> Value {
    let Ok(entries) = fs::read_dir(data_dir) else { return Value::Null };
    let mut files: Vec<(String, u64)> = entries
        .filter_map(|entry| {
            let entry = entry.ok()?;
            Some((entry.file_name().to_string_lossy().into_owned(), entry.metadata().ok()?.len()))
        })
        .collect();
    files.sort();
    json!(files)
}

/// A second net: a person may have written a password where none belongs.
fn scrub(value: &mut Value, secrets: &SecretStore) {
    match value {
        Value::String(text) => {
            for name in secrets.names() {
                let Some(secret) = secrets.get(name).filter(|secret| !secret.is_empty()) else { continue };
                if text.contains(secret.expose()) {
                    *text = text.replace(secret.expose(), REMOVED);
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| scrub(item, secrets)),
        Value::Object(fields) => {
            for (key, field) in fields.iter_mut() {
                let suspicious = ["password", "passwd", "token", "private_key"].contains(&key.as_str());
                if suspicious && field.is_string() {
                    *field = REMOVED.into();
                } else {
                    scrub(field, secrets);
                }
            }
        }
        _ => {}
    }
}
