//! Plays many seeds of the simulation, several at once; `cargo xtask sim` starts it in release.

use std::collections::BTreeMap;
use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::sync_channel;
use std::time::{Duration, Instant};

use causeway_tests::sim::{Outcome, Stats, run};
use clap::Parser;

/// One in so many seeds is played twice and must leave the same log.
const TWICE_EVERY: u64 = 50;

#[derive(Parser)]
#[command(name = "cargo xtask sim", about = "Play seeds of the deterministic simulation")]
struct Arguments {
    /// How many seeds; without it and with --seed, one, with its event log
    #[arg(long)]
    seeds: Option<u64>,
    /// The first seed
    #[arg(long)]
    seed: Option<u64>,
    /// Seeds at once
    #[arg(long, default_value_t = 1)]
    jobs: u64,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match (arguments.seeds, arguments.seed) {
        (None, Some(seed)) => replay(seed),
        (count, first) => many(first.unwrap_or(0), count.unwrap_or(1_000), arguments.jobs.max(1)),
    }
}

/// Plays one seed and shows what happened in it.
fn replay(seed: u64) -> ExitCode {
    if std::env::var_os("RUST_LOG").is_some() {
        tracing_subscriber::fmt()
            .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
            .without_time()
            .init();
    }
    let outcome = run(seed, true);
    let mut out = std::io::stdout().lock();
    for (at_ms, line) in &outcome.log {
        let _ = writeln!(out, "{:>9.3}  {line}", Duration::from_millis(*at_ms).as_secs_f64());
    }
    let again = run(seed, true);
    if again.log_hash != outcome.log_hash {
        let _ = writeln!(out, "seed {seed} is not deterministic: a second run left another log");
        let differs = (0..).find(|n| again.log.get(*n) != outcome.log.get(*n)).unwrap_or(0);
        let _ = writeln!(out, "first:  {:?}\nsecond: {:?}", outcome.log.get(differs), again.log.get(differs));
        return ExitCode::FAILURE;
    }
    for violation in &outcome.violations {
        let _ = writeln!(out, "seed {seed}: {violation}");
    }
    let _ = writeln!(
        out,
        "seed {seed}: {} events in {:.1} simulated seconds, {} violations; a second run left the same log",
        outcome.stats.events,
        Duration::from_millis(outcome.stats.simulated_ms).as_secs_f64(),
        outcome.violations.len()
    );
    if outcome.violations.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn many(first: u64, count: u64, jobs: u64) -> ExitCode {
    let began = Instant::now();
    let next = AtomicU64::new(first);
    let (results, played) = sync_channel::<(Outcome, bool)>(64);
    let mut total = Stats::default();
    let (mut done, mut twice, mut failed) = (0, 0, BTreeMap::new());
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            let (next, results) = (&next, results.clone());
            scope.spawn(move || {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first + count {
                        return;
                    }
                    let mut outcome = run(seed, false);
                    let again = seed % TWICE_EVERY == 0;
                    if again && run(seed, false).log_hash != outcome.log_hash {
                        outcome
                            .violations
                            .push("not deterministic: a second run left another log".to_owned());
                    }
                    if results.send((outcome, again)).is_err() {
                        return;
                    }
                }
            });
        }
        drop(results);
        let mut told = Instant::now();
        for (outcome, again) in played {
            done += 1;
            twice += u64::from(again);
            total.add(outcome.stats);
            if let Some(what) = outcome.violations.first() {
                println!("\rseed {}: {what}", outcome.seed);
                println!("replay it: cargo xtask sim --seed {}", outcome.seed);
                failed.insert(outcome.seed, outcome.violations);
            }
            if told.elapsed() > Duration::from_secs(1) {
                told = Instant::now();
                progress(done, count, failed.len(), began);
            }
        }
    });
    progress(done, count, failed.len(), began);
    eprintln!();
    summary(&total, done, twice, began);
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn progress(done: u64, count: u64, failed: usize, began: Instant) {
    let rate = done as f64 / began.elapsed().as_secs_f64();
    let end = if std::io::stderr().is_terminal() { "" } else { "\n" };
    eprint!("\r{done}/{count} seeds, {rate:.1}/s, {failed} failed {end}");
    let _ = std::io::stderr().flush();
}

fn summary(total: &Stats, done: u64, twice: u64, began: Instant) {
    let took = began.elapsed().as_secs_f64();
    println!(
        "{done} seeds in {took:.1} s: {:.1} seeds/s; {:.0} simulated seconds a seed, {} events; {twice} played twice",
        done as f64 / took,
        total.simulated_ms as f64 / 1_000.0 / done.max(1) as f64,
        total.events
    );
    println!("\nfaults that struck");
    for (kind, count) in &total.faults {
        println!("  {count:>9}  {kind}");
    }
    println!("\nwork done");
    for (kind, count) in &total.work {
        println!("  {count:>9}  {kind}");
    }
    println!(
        "\nstorage awaits a process died at: {} of {} known",
        total.crashed_at.len(),
        total.points.len()
    );
    for (point, seen) in total.points.iter().filter(|(point, _)| !total.crashed_at.contains(*point)) {
        println!("  never died at: {point} (seen {seen} times)");
    }
}
