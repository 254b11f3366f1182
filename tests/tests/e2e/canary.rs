//! Secrets of every kind go through a whole company's first day; afterwards every file, log, journal and answer is
//! searched for them. Each may be in exactly one place: where the agent keeps it.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use anyhow::{Context, Result, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use causeway_agent::cli::{self, Arguments};
use causeway_agent::{identity, secrets};
use causeway_tests::company::Company;
use clap::Parser;
use serde_json::json;

/// A secret, and the file names it may be found in.
pub(crate) struct Canary {
    pub(crate) what: &'static str,
    pub(crate) text: String,
    pub(crate) kept_in: &'static [&'static str],
}

/// Somewhere a secret could have leaked to.
pub(crate) struct Place {
    pub(crate) name: String,
    pub(crate) bytes: Vec<u8>,
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_is_anywhere_but_where_it_is_kept() -> Result<()> {
    let log = Log::default();
    let listening = log.listen();

    let mut company = Company::start(40).await?;
    let canaries = a_day(&mut company).await?;
    let mut places = Vec::new();
    files(company.folder.path(), &mut places)?;
    ensure!(places.iter().any(|place| place.name.ends_with(".redb")), "no state file was searched");
    ensure!(places.iter().any(|place| place.bytes.starts_with(b"SQLite format 3")), "no store was searched");
    for list in ["agents", "actions", "alerts", "users", "groups", "ous", "uploads", "leases", "sources"] {
        let answer = company.tenant.get(list).await.with_context(|| list.to_owned())?;
        places.push(Place { name: format!("GET {list}"), bytes: answer.to_string().into_bytes() });
    }
    let journals = [
        ("the directory's journal", company.ldap.journal()),
        ("the cloud's journal", company.cloud.journal()),
    ];
    for (name, journal) in journals {
        let bytes = format!("{:?}", journal.after(0)).into_bytes();
        ensure!(bytes.len() > 100, "{name} is empty");
        places.push(Place { name: name.to_owned(), bytes });
    }
    let logged = log.0.lock().map(|bytes| bytes.clone()).unwrap_or_default();
    ensure!(
        !listening || logged.len() > 10_000,
        "the log is too short to have been written: {}",
        logged.len()
    );
    places.push(Place { name: "the log at its finest level".to_owned(), bytes: logged });

    let kept = search(&places, &canaries)?;
    // The search itself works: it sees what is where it belongs.
    ensure!(kept >= 2, "neither the directory's password nor the agent's key was found where they are kept");
    Ok(())
}

/// Fails with every secret that is where it should not be; gives how often one was found where it is kept.
pub(crate) fn search(places: &[Place], canaries: &[Canary]) -> Result<usize> {
    let mut kept = 0;
    let mut leaks = Vec::new();
    for Place { name, bytes } in places {
        for Canary { what, text, kept_in } in canaries {
            let Some(spelling) = spellings(text).into_iter().find(|(_, octets)| holds(bytes, octets)) else {
                continue;
            };
            if kept_in.iter().any(|file| name.ends_with(file)) {
                kept += 1;
            } else {
                leaks.push(format!("{what} is in {name} ({}): {}", spelling.0, around(bytes, &spelling.1)));
            }
        }
    }
    ensure!(leaks.is_empty(), "{} leaks in {} places:\n{}", leaks.len(), places.len(), leaks.join("\n"));
    Ok(kept)
}

/// Everything that handles a secret, done once; gives the secrets.
async fn a_day(company: &mut Company) -> Result<Vec<Canary>> {
    let key = company.tenant.enrollment_key().await?;
    let data_dir = company.folder.path().join("agent");
    company.enrol_with(&key, &data_dir).await?;
    company.start_agent("agent", &data_dir).await?;
    company.sync().await?;
    let directory = company.ldap.service_account().password;
    let people = company.ldap.world().people.clone();
    let mut canaries = vec![
        Canary { what: "the directory account's password", text: directory, kept_in: &[secrets::FILE_NAME] },
        Canary { what: "a used enrolment key", text: key, kept_in: &[] },
    ];
    for (number, person) in people.iter().take(6).enumerate() {
        let wrong = format!("canary-{number}-\"q\"-typed-wrong");
        company.tenant.authenticate(&person.login, &person.password()).await?;
        company.tenant.authenticate(&person.login, &wrong).await?;
        canaries.push(Canary { what: "a person's password", text: person.password(), kept_in: &[] });
        canaries.push(Canary { what: "a wrong password", text: wrong, kept_in: &[] });
    }
    // With nobody to ask, and with a directory that is away, other paths are taken.
    let (stranger, away) = ("canary-of-a-stranger".to_owned(), "canary-without-a-directory".to_owned());
    company.tenant.authenticate("nobody-of-this-name", &stranger).await?;
    let down = company.ldap.faults().set_down("ldaps");
    company.tenant.authenticate(&people[7].login, &away).await?;
    company.tenant.order("user_visibility", "sync_now", &json!({}), &json!({})).await?;
    company.ldap.faults().remove(down);
    let unused = company.tenant.enrollment_key().await?;
    canaries.push(Canary { what: "a stranger's password", text: stranger, kept_in: &[] });
    canaries.push(Canary { what: "a password without a verdict", text: away, kept_in: &[] });
    canaries.push(Canary { what: "an unused enrolment key", text: unused, kept_in: &[] });

    let private: serde_json::Value =
        serde_json::from_slice(&std::fs::read(data_dir.join(identity::FILE_NAME))?)?;
    let private = private["key_pem"].as_str().context("the agent has a key")?;
    let middle = private.lines().nth(1).context("a key has lines")?.to_owned();
    canaries.push(Canary { what: "the agent's private key", text: middle, kept_in: &[identity::FILE_NAME] });
    let bundle = company.folder.path().join("bundle.json");
    let words =
        ["causeway-agent", "support-bundle", "--output", path(&bundle)?, "--data-dir", path(&data_dir)?];
    cli::execute(Arguments::parse_from(words)).await?;
    company.stop_agent("agent").await;
    ensure!(canaries.iter().all(|canary| canary.text.len() > 7), "a secret too short to be searched for");
    Ok(canaries)
}

pub(crate) fn files(folder: &Path, into: &mut Vec<Place>) -> Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path: PathBuf = entry?.path();
        if path.is_dir() {
            files(&path, into)?;
        } else if path.is_file() {
            let bytes = std::fs::read(&path).with_context(|| format!("read {}", path.display()))?;
            into.push(Place { name: path.display().to_string(), bytes });
        }
    }
    Ok(())
}

/// The ways a text may have been written down.
fn spellings(text: &str) -> Vec<(&'static str, Vec<u8>)> {
    let json = serde_json::Value::from(text).to_string();
    // Inside something larger that is written in Base64, the letters depend on where the secret begins.
    let inner = |skip: usize| {
        let letters = STANDARD.encode(&text.as_bytes()[skip..]);
        letters.as_bytes()[..(text.len() - skip) / 3 * 4].to_vec()
    };
    vec![
        ("as it is", text.as_bytes().to_vec()),
        ("in JSON", json.trim_matches('"').as_bytes().to_vec()),
        ("in JSON in Debug form", format!("{json:?}").trim_matches(['"', '\\']).as_bytes().to_vec()),
        ("in Base64", STANDARD.encode(text).trim_end_matches('=').as_bytes().to_vec()),
        ("within Base64", inner(0)),
        ("within Base64, one later", inner(1)),
        ("within Base64, two later", inner(2)),
        ("in UTF-16", text.encode_utf16().flat_map(u16::to_le_bytes).collect()),
        ("in hex", text.bytes().map(|octet| format!("{octet:02x}")).collect::<String>().into_bytes()),
        (
            "as a list of octets",
            format!("{:?}", text.as_bytes()).trim_matches(['[', ']']).as_bytes().to_vec(),
        ),
    ]
}

fn holds(bytes: &[u8], wanted: &[u8]) -> bool {
    find(bytes, wanted).is_some()
}

/// Plain search by first octet; a few megabytes times a hundred needles must not take minutes in a debug build.
fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    let first = *wanted.first()?;
    let mut from = 0;
    while let Some(step) = bytes.get(from..)?.iter().position(|octet| *octet == first) {
        let at = from + step;
        if bytes[at..].starts_with(wanted) {
            return Some(at);
        }
        from = at + 1;
    }
    None
}

fn around(bytes: &[u8], wanted: &[u8]) -> String {
    let at = find(bytes, wanted).unwrap_or(0);
    let shown = &bytes[at.saturating_sub(160)..(at + 40).min(bytes.len())];
    String::from_utf8_lossy(shown).escape_debug().to_string()
}

pub(crate) fn path(path: &Path) -> Result<&str> {
    path.to_str().context("the path is UTF-8")
}

/// What was logged.
#[derive(Clone, Default)]
pub(crate) struct Log(pub(crate) Arc<Mutex<Vec<u8>>>);

impl Log {
    /// Takes everything this process logs from now on, whatever its level. False when another log does already: with a
    /// process for each test this one is the first.
    pub(crate) fn listen(&self) -> bool {
        let writer = self.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(tracing::Level::TRACE)
            .with_ansi(false)
            .with_writer(move || writer.clone())
            .finish();
        tracing::subscriber::set_global_default(subscriber).is_ok()
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if let Ok(mut log) = self.0.lock() {
            log.extend_from_slice(bytes);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
