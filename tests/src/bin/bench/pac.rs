//! Proxy scripts: how long one answer takes, beside pacparser where it is installed, and how soon scripts that mean harm
//! are stopped.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use causeway_agent::clock::Clock;
use causeway_agent::dial::proxy::Destination;
use causeway_agent::dial::proxy::pac::engine::{Lookup, ScriptHost};
use causeway_agent::dial::proxy::pac::error::ScriptError;
use causeway_agent::dial::proxy::pac::script::{GivenUp, Script};
use causeway_tests::python;
use futures_util::future::BoxFuture;

use crate::Options;
use crate::table::{Table, median};

/// Questions to a script in one round.
const QUESTIONS: usize = 2_000;

/// Longest run of the third-party engine.
const PEER_WITHIN: Duration = Duration::from_secs(60);

/// Scripts that mean harm, each stopped in another way.
const HOSTILE: [(&str, &str); 4] = [
    ("endless loop", "while (true);"),
    ("endless loop that catches", "for (;;) { try { while (true); } catch (e) {} }"),
    ("memory bomb", "var a = []; while (true) a.push('x'.repeat(1000) + a.length);"),
    ("endless regular expression", "return String(/(a+)+$/.test('a'.repeat(40) + 'b'));"),
];

pub(crate) fn run(options: &Options) -> BoxFuture<'_, Result<Table>> {
    Box::pin(measure(options))
}

/// Fifty rules as companies have them. Nothing needs a name server: that would measure the name server.
pub(crate) fn typical_script() -> String {
    let mut text = String::from(
        "function FindProxyForURL(url, host) {\n  if (isPlainHostName(host)) return 'DIRECT';\n",
    );
    for n in 0..50 {
        text.push_str(&match n % 4 {
            0 => format!("  if (dnsDomainIs(host, '.unit{n}.corp.example')) return 'DIRECT';\n"),
            1 => format!(
                "  if (shExpMatch(host, '*.partner{n}.example')) return 'PROXY p{n}.corp.example:8080';\n"
            ),
            2 => format!("  if (localHostOrDomainIs(host, 'app{n}.corp.example')) return 'DIRECT';\n"),
            _ => format!("  if (shExpMatch(url, 'https://*.cdn{n}.example/*')) return 'DIRECT';\n"),
        });
    }
    text.push_str("  return 'PROXY one.corp.example:3128; PROXY two.corp.example:3128; DIRECT';\n}\n");
    text
}

async fn measure(options: &Options) -> Result<Table> {
    let mut table = Table::default();
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("typical.pac");
    std::fs::write(&file, typical_script())?;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..options.rounds {
        ours.push(our_median_us(options).await?);
        theirs.extend(peer_median_us(&file, options).await?);
    }
    let what = "one answer of a script of 50 rules, the last one counts";
    if theirs.is_empty() {
        table.alone(what, "us", ours, "at most 100");
        table.note("pacparser is not installed; `cargo xtask peers start` installs it.");
    } else {
        table.against(what, "us", ours, ("pacparser 1.5.3", theirs), "at most 100");
        table.note("Ours includes the way to the script's thread and back; the peer is a C library called from Python.");
    }
    for (name, body) in HOSTILE {
        let mut stopped_ms = Vec::new();
        for _ in 0..options.rounds {
            stopped_ms.push(stopped_after_ms(body).await.with_context(|| name.to_owned())?);
        }
        table.alone(format!("{name} stopped after"), "ms", stopped_ms, "at most 600");
    }
    Ok(table)
}

async fn load(text: String) -> Result<Script> {
    let host = ScriptHost { lookup: Arc::new(NoNames), clock: Clock::system() };
    Ok(Script::load(text, host, GivenUp::default()).await?)
}

async fn our_median_us(options: &Options) -> Result<f64> {
    let script = load(typical_script()).await?;
    let mut took = Vec::new();
    for n in 0..QUESTIONS / options.shrink.max(1) {
        let to = Destination::parse(&format!("https://host{n}.elsewhere.example/"))?;
        let began = Instant::now();
        let answer = script.ask(&to, false).await?;
        took.push(began.elapsed().as_secs_f64() * 1e6);
        ensure!(answer.text.starts_with("PROXY one"), "the script answers {:?}", answer.text);
    }
    Ok(median(&took))
}

async fn peer_median_us(file: &std::path::Path, options: &Options) -> Result<Option<f64>> {
    let questions = (QUESTIONS / options.shrink.max(1)).to_string();
    let file = file.display().to_string();
    let run = python::run("pacparser_corpus.py", &["bench", &file, &questions], &[], PEER_WITHIN).await?;
    let Some(run) = run else { return Ok(None) };
    ensure!(run.status.success(), "pacparser fails: {}", run.stderr);
    Ok(Some(run.stdout.trim().parse().context("pacparser's median")?))
}

async fn stopped_after_ms(body: &str) -> Result<f64> {
    let script = load(format!("function FindProxyForURL(url, host) {{ {body} }}")).await?;
    let to = Destination::parse("https://host.example/")?;
    let began = Instant::now();
    let answer = script.ask(&to, false).await;
    let took = began.elapsed();
    let stopped = matches!(answer, Err(ScriptError::TooSlow | ScriptError::OutOfMemory));
    ensure!(stopped, "it was not stopped but gave {answer:?}");
    Ok(took.as_secs_f64() * 1e3)
}

/// Knows no name.
struct NoNames;

impl Lookup for NoNames {
    fn addresses(&self, _: &str, _: Duration) -> Vec<std::net::IpAddr> {
        Vec::new()
    }

    fn own(&self) -> Vec<std::net::IpAddr> {
        Vec::new()
    }
}
