//! `configure --from-file`: an unattended installation. The file has the tables of `agent.toml`, `[enroll]` for joining
//! the cloud, and `[secrets]`, which says where secrets are, never what they are.
//!
//! ```toml
//! [enroll]
//! cloud = "https://cloud.example:443"
//! key = { env = "CAUSEWAY_KEY" }        # or { file = "/run/secrets/key" }, or { stdin = true }
//! ca_file = "/etc/ssl/cloud-ca.pem"     # copied; without it the system's authorities hold
//! name = "agent-berlin-1"
//!
//! [secrets]
//! "directory.default" = { file = "/run/secrets/directory" }
//!
//! [directory.default]
//! servers = ["ldaps://dc1.acme.example"]
//! bind_dn = "svc-causeway@acme.example"
//! ```

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use causeway_protocol::Secret;
use serde::Deserialize;

use super::super::check::trial;
use super::super::draft::Draft;
use super::super::edit::child;
use super::super::enroll::{from_environment, from_file, from_stdin, join, keep_authorities};
use super::super::say;
use super::super::tables;
use super::{named_secrets, refuse_unsealed, try_build};
use crate::config::SettingsFile;
use crate::identity::Identity;
use crate::limits::SETTINGS_FILE_MAX_BYTES;
use crate::modules::FACTORIES;
use crate::platform::PlatformSealer;

/// Tables of `agent.toml` that answers may set.
const TABLES: [&str; 9] =
    ["cloud", "proxy", "dns", "log", "limits", "directory", "exchange", "ca", "modules"];

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Own {
    enroll: Option<Enrolment>,
    secrets: BTreeMap<String, Source>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Enrolment {
    cloud: String,
    key: Source,
    #[serde(default)]
    ca_file: Option<PathBuf>,
    #[serde(default)]
    name: Option<String>,
}

/// Where a secret is.
#[derive(Clone, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Source {
    Env(String),
    File(PathBuf),
    Stdin(bool),
}

impl Source {
    fn read(&self) -> anyhow::Result<Secret> {
        match self {
            Self::Env(name) => from_environment(name),
            Self::File(path) => from_file(path),
            Self::Stdin(true) => from_stdin(),
            Self::Stdin(false) => bail!("stdin = false says nothing; remove it or write true"),
        }
    }
}

/// Applies a file of answers. Nothing is kept unless all of it can be.
pub(super) async fn apply(data_dir: &Path, file: &Path, check: bool) -> anyhow::Result<ExitCode> {
    let (own, settings) = read(file)?;
    let readers = own.secrets.values().chain(own.enroll.as_ref().map(|enrolment| &enrolment.key));
    if readers.filter(|source| matches!(source, Source::Stdin(_))).count() > 1 {
        bail!("{}: only one secret can come from standard input", file.display());
    }
    crate::platform::create_private_dir(data_dir)
        .with_context(|| format!("create {}", data_dir.display()))?;
    let mut draft = Draft::load(data_dir)?;
    let named_before = draft.settings().map(|file| named_secrets(&file)).unwrap_or_default();
    for (table, value) in settings {
        merge(&mut draft, &table, value)?;
    }
    for (name, source) in &own.secrets {
        draft.set_secret(name, source.read().with_context(|| format!("the secret {name}"))?);
    }
    let enrolment = match own.enroll {
        Some(enrolment) if Identity::find(data_dir, &PlatformSealer)?.is_none() => Some(enrolment),
        _ => None,
    };
    if let Some(enrolment) = &enrolment {
        draft.set("cloud", "url", enrolment.cloud.as_str())?;
        if let Some(name) = &enrolment.name {
            draft.set("cloud", "display_name", name.as_str())?;
        }
        if let Some(ca) = &enrolment.ca_file {
            keep_authorities(&mut draft, ca)?;
        }
    }
    let settings = draft.settings()?;
    tables::judge_all(&settings)?;
    refuse_unsealed(&settings, &named_before, &draft.secrets)?;
    for factory in FACTORIES {
        try_build(factory.kind(), &settings, &draft.secrets)?;
    }
    if enrolment.is_none() && !draft.is_changed() {
        say::line(serde_json::json!({ "changed": false }))?;
        say::note("Nothing to change.");
        return Ok(ExitCode::SUCCESS);
    }
    if check && !works(&draft, &settings).await {
        say::note("Nothing was changed. Correct the answers, or keep them as they are with --no-check.");
        return Ok(ExitCode::FAILURE);
    }
    let diff = draft.diff();
    match enrolment {
        Some(enrolment) => {
            join(&draft, enrolment.key.read().context("the enrolment key")?).await?;
        }
        None => draft.save()?,
    }
    say::line(serde_json::json!({ "changed": true, "diff": diff }))?;
    Ok(ExitCode::SUCCESS)
}

async fn works(draft: &Draft, settings: &SettingsFile) -> bool {
    // A file may prepare a machine that joins its cloud later.
    let areas =
        if settings.settings.cloud.url.is_empty() { &["directory"][..] } else { &["cloud", "directory"] };
    let report = trial(&draft.data_dir, settings, &draft.secrets, areas).await;
    if report.failed() {
        say::note(report.to_text().trim_end());
    }
    !report.failed()
}

/// Parts of the file that are ours, and the tables of `agent.toml`.
fn read(file: &Path) -> anyhow::Result<(Own, toml::Table)> {
    let bytes = std::fs::metadata(file).with_context(|| format!("read {}", file.display()))?.len();
    if bytes > SETTINGS_FILE_MAX_BYTES {
        bail!("{} has {bytes} bytes, the limit is {SETTINGS_FILE_MAX_BYTES}", file.display());
    }
    let text = std::fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
    let mut tables: toml::Table = text.parse().with_context(|| format!("read {}", file.display()))?;
    let mut own = toml::Table::new();
    for name in ["enroll", "secrets"] {
        if let Some(value) = tables.remove(name) {
            own.insert(name.to_owned(), value);
        }
    }
    for (name, value) in &tables {
        if !TABLES.contains(&name.as_str()) || !value.is_table() {
            bail!(
                "{}: [{name}] is unknown; there are enroll, secrets, {}",
                file.display(),
                TABLES.join(", ")
            );
        }
    }
    // The parser's own words would repeat a password that a person has written where its place belongs.
    let own = Own::deserialize(own).map_err(|_| {
        anyhow::anyhow!(
            "{}: [enroll] takes cloud, key, ca_file and name; [secrets] and key take {{ env = \"NAME\" }}, \
             {{ file = \"PATH\" }} or {{ stdin = true }}, never a secret itself",
            file.display()
        )
    })?;
    Ok((own, tables))
}

/// Sets every value below a table; values that are the same stay untouched, comments and all.
fn merge(draft: &mut Draft, table: &str, value: toml::Value) -> anyhow::Result<()> {
    let toml::Value::Table(entries) = value else { return Ok(()) };
    for (key, value) in entries {
        if value.is_table() {
            merge(draft, &child(table, &key), value)?;
        } else if draft.get(table, &key)?.as_ref() != Some(&value) {
            draft.set(table, &key, value)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answers(text: &str) -> anyhow::Result<(Own, toml::Table)> {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("answers.toml");
        std::fs::write(&file, text).unwrap();
        read(&file)
    }

    #[test]
    fn a_secret_in_the_clear_is_refused_and_not_repeated() {
        for text in [
            "[secrets]\n\"directory.default\" = \"canary\"\n",
            "[secrets]\n\"directory.default\" = { value = \"canary\" }\n",
            "[enroll]\ncloud = \"https://c\"\nkey = \"canary\"\n",
        ] {
            let Err(error) = answers(text) else { panic!("{text} accepted") };
            let said = format!("{error:#}");
            assert!(!said.contains("canary") && said.contains("env = "), "{said}");
        }
        assert!(answers("[directroy.default]\n").is_err());
    }

    #[test]
    fn the_same_answers_change_nothing_the_second_time() {
        let dir = tempfile::tempdir().unwrap();
        let text = "[directory.default]\nservers = [\"ldaps://a\"]\n[limits]\nactions_at_once = 4\n";
        let mut draft = Draft::load(dir.path()).unwrap();
        for (table, value) in answers(text).unwrap().1 {
            merge(&mut draft, &table, value).unwrap();
        }
        draft.save().unwrap();
        let mut again = Draft::load(dir.path()).unwrap();
        for (table, value) in answers(text).unwrap().1 {
            merge(&mut again, &table, value).unwrap();
        }
        assert!(!again.is_changed(), "{:?}", again.diff());
    }
}
