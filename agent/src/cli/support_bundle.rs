//! `support-bundle`: one JSON file that tells support what they ask first, and nothing secret. Its sections are always
//! the same and in the same order; what cannot be read is said in its place, because a broken installation needs support
//! most.

use std::fs;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use serde_json::{Map, Value, json};

use super::{DataDir, check, say, show_config};
use crate::chain::Chain;
use crate::clock::Clock;
use crate::config::SettingsFile;
use crate::dial::proxy::settings::ProxySettings;
use crate::health;
use crate::identity::{Identity, machine};
use crate::limits::{
    BUNDLE_ACTIONS_MAX, BUNDLE_LOG_MAX_BYTES, BUNDLE_MAX_BYTES, BUNDLE_ROWS_COUNTED_MAX, STORAGE_PAGE,
};
use crate::logging;
use crate::orchestrator::read_desired;
use crate::platform::PlatformSealer;
use crate::secrets::{SecretStore, write_private};
use crate::storage::redb::{FILE_NAME as STATE_FILE, RedbStorage};
use crate::storage::{Storage, StorageError, Table};

/// Lines of a private key in PEM form. An RSA key of 16384 bits has 200.
const KEY_LINES_MAX: usize = 400;

/// What stands in place of a secret.
const REMOVED: &str = "[removed]";

/// Arguments of `support-bundle`.
#[derive(Args)]
pub struct SupportBundle {
    /// The file to write; default: causeway-support-<time>.json in the current directory
    #[arg(long)]
    output: Option<PathBuf>,
    /// Leave the doctor out: nothing is tried on the network
    #[arg(long)]
    no_check: bool,
    #[command(flatten)]
    data_dir: DataDir,
}

impl SupportBundle {
    pub(super) async fn execute(self) -> anyhow::Result<ExitCode> {
        let now_ms = Clock::system().now_ms();
        let output = self.output.unwrap_or_else(|| format!("causeway-support-{}.json", now_ms / 1000).into());
        let bundle = bundle(&self.data_dir.data_dir, now_ms, !self.no_check).await;
        for (name, section) in bundle.as_object().into_iter().flatten() {
            say::note(format_args!("{name:<12} {:>9} bytes", section.to_string().len()));
        }
        write_private(&output, format!("{bundle:#}\n").as_bytes())
            .with_context(|| format!("write {}", output.display()))?;
        say::line(output.display())?;
        Ok(ExitCode::SUCCESS)
    }
}

/// The bundle.
pub async fn bundle(data_dir: &Path, now_ms: i64, try_everything: bool) -> Value {
    let secrets = SecretStore::load(data_dir, &PlatformSealer);
    let sealed = secrets.as_ref().cloned().unwrap_or_default();
    let file = SettingsFile::load(data_dir);
    let settings = match &file {
        Ok(file) => show_config::effective(file, &read_desired(data_dir), &sealed).to_json(),
        Err(error) => said(error),
    };
    let identity = match Identity::load(data_dir, &PlatformSealer) {
        Ok(identity) => json!({
            "instance": identity.instance,
            "tenant": identity.tenant,
            "jid": identity.jid.to_string(),
            "certificate_valid_until_ms": identity.validity().map(|validity| validity.until_ms).ok(),
        }),
        Err(error) => said(&error),
    };
    let checks = match try_everything {
        false => json!("left out"),
        true => match check::check(data_dir, None).await {
            Ok(report) => report.to_json(),
            Err(error) => json!({ "error": error.to_string() }),
        },
    };
    let log =
        file.as_ref().map_or(Value::Null, |file| log_tail(&logging::path(&file.settings.log, data_dir)));
    let mut bundle = json!({
        "about": {
            "written_ms": now_ms,
            "version": env!("CARGO_PKG_VERSION"),
            "os": format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
        },
        "settings": settings,
        "secrets": secrets.as_ref().map_or_else(|error| said(error), |s| json!(s.names().collect::<Vec<_>>())),
        "identity": identity,
        "status": health::read_file(data_dir).map_or_else(|error| said(&error), |status| json!(status)),
        "checks": checks,
        "files": files(data_dir),
        "state": state(data_dir).await,
        "log": log,
    });
    scrub(&mut bundle, &sealed);
    within_size(&mut bundle);
    bundle
}

fn said(error: &(dyn std::error::Error + 'static)) -> Value {
    json!({ "error": Chain(error).to_string() })
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

/// The end of the current log file; none when the log goes elsewhere.
fn log_tail(path: &Path) -> Value {
    let read = || -> std::io::Result<Vec<String>> {
        let mut file = fs::File::open(path)?;
        let bytes = file.metadata()?.len();
        file.seek(SeekFrom::Start(bytes.saturating_sub(BUNDLE_LOG_MAX_BYTES)))?;
        let mut tail = Vec::new();
        file.take(BUNDLE_LOG_MAX_BYTES).read_to_end(&mut tail)?;
        let cut = bytes > BUNDLE_LOG_MAX_BYTES;
        Ok(without_private_keys(String::from_utf8_lossy(&tail).lines().skip(usize::from(cut))))
    };
    match read() {
        Ok(lines) => json!(lines),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => json!("the log goes to standard error"),
        Err(error) => said(&error),
    }
}

/// Lines without the private keys in PEM form that stand among them, from the first line of one to its last.
fn without_private_keys<'a>(lines: impl Iterator<Item = &'a str>) -> Vec<String> {
    let begins = |line: &str| line.contains("-----BEGIN ") && line.contains("PRIVATE KEY");
    let ends = |line: &str| line.contains("-----END ") && line.contains("PRIVATE KEY");
    let mut kept: Vec<String> = Vec::new();
    // How many lines of a key have gone.
    let mut within = None;
    for line in lines {
        within = match within {
            None if begins(line) && !ends(line) => {
                kept.push(REMOVED.to_owned());
                Some(1)
            }
            None if ends(line) => {
                // What was cut off is its beginning, or this line holds all of it.
                while !begins(line) && kept.last().is_some_and(|last| is_base64(last)) {
                    kept.pop();
                }
                kept.push(REMOVED.to_owned());
                None
            }
            None => {
                kept.push(line.to_owned());
                None
            }
            Some(_) if ends(line) => None,
            // What never ends is no key; the log goes on.
            Some(gone) if gone >= KEY_LINES_MAX => None,
            Some(gone) => Some(gone + 1),
        };
    }
    kept
}

fn is_base64(line: &str) -> bool {
    let line = line.trim();
    !line.is_empty() && line.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+/=".contains(&byte))
}

/// Rows of each table, and the last actions without what they carried. A running agent has the file for itself.
async fn state(data_dir: &Path) -> Value {
    if !data_dir.join(STATE_FILE).exists() {
        return json!("none");
    }
    let opened = match RedbStorage::open(data_dir, &machine()) {
        Ok(opened) => opened,
        Err(error) => return said(&error),
    };
    let read = (rows(&opened.storage).await, actions(&opened.storage).await);
    drop(opened.storage);
    let _ = opened.thread.join();
    match read {
        (Ok(rows), Ok(actions)) => json!({ "rows": rows, "actions": actions }),
        (Err(error), _) | (_, Err(error)) => said(&error),
    }
}

async fn rows(storage: &dyn Storage) -> Result<Map<String, Value>, StorageError> {
    let mut counts = Map::new();
    for table in Table::ALL {
        let (mut count, mut after) = (0, None);
        loop {
            let page = storage.scan(table, Vec::new(), after, STORAGE_PAGE).await?;
            count += page.len();
            match page.into_iter().last() {
                Some((key, _)) if count < BUNDLE_ROWS_COUNTED_MAX => after = Some(key),
                _ => break,
            }
        }
        counts.insert(table.name().to_owned(), count.into());
    }
    Ok(counts)
}

/// Of an action only what cannot hold a secret: targets and parameters stay here.
async fn actions(storage: &dyn Storage) -> Result<Vec<Value>, StorageError> {
    let own = b"agent\0".to_vec();
    let mut actions = Vec::new();
    let mut after = None;
    loop {
        let page = storage.scan(Table::Inbox, own.clone(), after, STORAGE_PAGE).await?;
        for (_, bytes) in &page {
            let Ok(row) = serde_json::from_slice::<Value>(bytes) else { continue };
            actions.push(json!({
                "id": row["action"]["id"],
                "module": row["action"]["module"],
                "action": row["action"]["action"],
                "attempt": row["action"]["attempt"],
                "accepted_ms": row["accepted_ms"],
                "status": row["report"]["status"],
                "error": row["report"]["error"]["code"],
            }));
        }
        match page.into_iter().last() {
            Some((key, _)) => after = Some(key),
            None => break,
        }
    }
    actions.sort_by_key(|action| std::cmp::Reverse(action["accepted_ms"].as_i64()));
    actions.truncate(BUNDLE_ACTIONS_MAX);
    Ok(actions)
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
            for clean in [without_user_info, without_enrolment_key] {
                if let Some(clean) = clean(text) {
                    *text = clean;
                }
            }
            if text.contains("PRIVATE KEY") {
                *text = REMOVED.to_owned();
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| scrub(item, secrets)),
        Value::Object(fields) => {
            // A setting is an object of its own, with its key beside it.
            let setting = fields.get("key").and_then(Value::as_str).map(str::to_owned);
            for (key, mut field) in fields.iter_mut() {
                let key = match &setting {
                    Some(setting) if key == "value" => setting,
                    Some(setting) if key == "instead_of" && field.get("value").is_some() => {
                        field = &mut field["value"];
                        setting
                    }
                    _ => key,
                };
                if may_be_secret(key, field, secrets) {
                    *field = REMOVED.into();
                } else {
                    scrub(field, secrets);
                }
            }
        }
        _ => {}
    }
}

/// Whether a person may have written a secret under this key. The name of a secret that is sealed is none, nor is one of
/// the words that say which challenges there are.
fn may_be_secret(key: &str, value: &Value, secrets: &SecretStore) -> bool {
    const WORDS: [&str; 8] =
        ["password", "passwd", "passphrase", "secret", "token", "private_key", "challenge", "credentials"];
    let (table, last) = key.rsplit_once('.').unwrap_or(("", key));
    let is_key = last == "key" && !table.is_empty();
    if !is_key && !WORDS.iter().any(|word| last.ends_with(word)) {
        return false;
    }
    match value {
        Value::String(text) => {
            let a_word = last == "challenge" && ["none", "static", "ndes"].contains(&text.as_str());
            let a_name = !table.is_empty()
                && (secrets.get(text).is_some() || *text == ProxySettings::default().password_secret);
            !text.is_empty() && !a_word && !a_name
        }
        Value::Object(_) | Value::Null => false,
        _ => true,
    }
}

/// `scheme://user:password@host` without what stands before the at sign; `None` when there is none.
fn without_user_info(text: &str) -> Option<String> {
    let mut clean = String::new();
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (head, tail) = rest.split_at(at + 3);
        clean.push_str(head);
        let end = tail.find(['/', ' ', '"', '\'', '?', '#']).unwrap_or(tail.len());
        rest = match tail[..end].rfind('@') {
            Some(user_info) => {
                clean.push_str(REMOVED);
                &tail[user_info..]
            }
            None => tail,
        };
    }
    (!clean.is_empty()).then(|| clean + rest)
}

/// Enrolment keys begin with `cw1-`, wherever somebody has pasted one.
fn without_enrolment_key(text: &str) -> Option<String> {
    let at = text.find("cw1-")?;
    let end = text[at..]
        .find(|c: char| !c.is_ascii_alphanumeric() && c != '-' && c != '_')
        .map_or(text.len(), |n| at + n);
    let rest = &text[end..];
    let rest = without_enrolment_key(rest).unwrap_or_else(|| rest.to_owned());
    Some(format!("{}{REMOVED}{rest}", &text[..at]))
}

/// The log gives way first; it is the only part without a small bound.
fn within_size(bundle: &mut Value) {
    while bundle.to_string().len() > BUNDLE_MAX_BYTES {
        match bundle["log"].as_array_mut() {
            Some(lines) if !lines.is_empty() => {
                let half = lines.len().div_ceil(2);
                lines.drain(..half);
            }
            _ => {
                bundle["checks"] = json!("left out: too large");
                bundle["state"] = json!("left out: too large");
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use causeway_protocol::Secret;

    use super::*;

    #[test]
    fn secrets_are_removed_wherever_they_stand() {
        let secrets = SecretStore::default().with("a", Secret::new("canary-sealed"));
        let mut bundle = json!({
            "line": "dial http://user:canary-url@proxy:3128/ and ldap://x:canary-2@y failed",
            "key": "used cw1-canaryid-canarysecret to enrol at http://u:canary-3@c, cw1-canary-2 too",
            "deep": [{ "password": "canary-field", "note": "it is canary-sealed" }],
            "pem": "-----BEGIN PRIVATE KEY-----\ncanary\n",
            "plain": "https://cloud.example:443/path and svc@acme.example",
            "settings": [
                { "key": "directory.default.password", "value": "canary-name" },
                { "key": "directory.other.password", "value": 47_114_711, "origin": "agent.toml:3" },
                { "key": "ca.default.challenge", "value": "canary-challenge" },
                { "key": "ca.default.key", "value": "canary-key" },
                { "key": "proxy.bind_password", "value": "canary-unknown", "instead_of": { "value": "canary-2" } },
                { "key": "exchange.default.accounts", "value": [{ "user": "svc", "password": "canary-account" }] },
                { "key": "directory.third.password", "value": "a" },
                { "key": "ca.other.challenge", "value": "ndes" },
                { "key": "ca.other.challenge_length", "value": 16 },
            ],
        });
        scrub(&mut bundle, &secrets);
        let text = bundle.to_string();
        assert!(!text.contains("canary") && !text.contains("4711"), "{text}");
        let kept: Vec<&Value> = (6..9).map(|n| &bundle["settings"][n]["value"]).collect();
        assert_eq!(kept, [&json!("a"), &json!("ndes"), &json!(16)], "these hold nothing secret");
        assert!(text.contains("http://[removed]@proxy:3128/ and ldap://[removed]@y failed"), "{text}");
        assert!(text.contains("https://cloud.example:443/path and svc@acme.example"), "{text}");
    }

    #[test]
    fn private_keys_are_removed_from_their_first_line_to_their_last() {
        let log = "Y2FuYXJ5MQ==\nY2FuYXJ5\n-----END PRIVATE KEY-----\nINFO one\n\
                   WARN the key is -----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\nY2FuYXJ5\nY2Fu\n\
                   -----END RSA PRIVATE KEY-----\nINFO two\n\
                   -----BEGIN CERTIFICATE-----\nQUJD\n-----END CERTIFICATE-----\n\
                   a -----BEGIN PRIVATE KEY-----\\nY2Fu\\n-----END PRIVATE KEY----- b\nINFO three\n";
        let kept = without_private_keys(log.lines());
        let certificate = ["-----BEGIN CERTIFICATE-----", "QUJD", "-----END CERTIFICATE-----"];
        let [first, second, third] = certificate;
        let expected =
            [REMOVED, "INFO one", REMOVED, "INFO two", first, second, third, REMOVED, "INFO three"];
        assert_eq!(kept, expected);
        let endless = std::iter::once("-----BEGIN PRIVATE KEY-----").chain(std::iter::repeat_n("x", 1_000));
        assert_eq!(without_private_keys(endless).len(), 1 + 1_000 - KEY_LINES_MAX);
    }

    #[test]
    fn a_bundle_stays_within_its_size_and_keeps_the_newest_lines() {
        let line = "x".repeat(1_000);
        let mut lines: Vec<String> = (0..BUNDLE_MAX_BYTES / 500).map(|_| line.clone()).collect();
        lines.push("the newest".to_owned());
        let mut bundle = json!({ "log": lines, "checks": [] });
        within_size(&mut bundle);
        assert!(bundle.to_string().len() <= BUNDLE_MAX_BYTES);
        assert_eq!(bundle["log"].as_array().unwrap().last().unwrap(), "the newest");
    }
}
