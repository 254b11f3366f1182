//! Keeps containers of real servers for tests. Not called by people: see `cargo xtask peers`.
//!
//! - `peers hold`: one JSON line on standard input says what to start (a list of `Plan`), one JSON line on standard
//!   output says where it is.
//! - `peers serve ADDRESSES KIND...`: starts the named servers and writes their addresses to the file.
//! - `peers stay ADDRESSES KIND...`: the same, but outlives whoever started it.
//!
//! Everything is removed on SIGTERM or Ctrl-C and, except for `stay`, when standard input ends.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};

use anyhow::{Context, bail, ensure};
use causeway_tests::containers::{Address, Held, Kind, Plan, hold};
use causeway_tests::engine::{self, Bridge, Engine};
use causeway_tests::limits::LINE_SIZE_MAX_BYTES;
use tokio::io::AsyncWriteExt;
use tokio::sync::mpsc;

/// Set for the child that goes through the bridge.
const BRIDGED: &str = "CAUSEWAY_ENGINE_BRIDGED";

#[tokio::main]
async fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match run(&arguments).await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("peers: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: &[String]) -> anyhow::Result<ExitCode> {
    if std::env::var_os(BRIDGED).is_none()
        && let Engine::Older { socket, version } = engine::find().await?
    {
        return through_bridge(&socket, &version, arguments).await;
    }
    match arguments {
        [command] if command == "hold" => hold_until_end().await,
        [command, addresses, kinds @ ..]
            if ["serve", "stay"].contains(&command.as_str()) && !kinds.is_empty() =>
        {
            serve(Path::new(addresses), kinds, stays(arguments)).await
        }
        _ => bail!("usage: peers hold | peers serve|stay ADDRESSES KIND..."),
    }
}

/// Runs this program again with the bridge as its engine, and ends as it ends.
///
/// The child learns from the end of its standard input that it is time to go, whatever the reason was here: it
/// removes its containers through the bridge, so this process must live longer.
async fn through_bridge(socket: &Path, version: &str, arguments: &[String]) -> anyhow::Result<ExitCode> {
    let folder = tempfile::tempdir().context("create a folder for the bridge")?;
    let bridge = Bridge::start(&folder.path().join("engine.sock"), socket, version)?;
    let mut child = tokio::process::Command::new(std::env::current_exe().context("own path")?)
        .args(arguments)
        .env("DOCKER_HOST", bridge.docker_host())
        .env(BRIDGED, "1")
        .stdin(Stdio::piped())
        .spawn()
        .context("start the bridged child")?;
    let mut to_child = child.stdin.take().context("stdin is piped")?;
    let pass_on = async {
        let mut input = standard_input(stays(arguments));
        while let Some(chunk) = input.recv().await {
            to_child.write_all(&chunk).await.context("pass standard input on")?;
        }
        anyhow::Ok(())
    };
    let ended = tokio::select! {
        passed = pass_on => passed,
        signal = stop_signal() => signal,
        _ = child.wait() => Ok(()),
    };
    drop(to_child);
    let status = child.wait().await.context("wait for the bridged child")?;
    ended?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn stays(arguments: &[String]) -> bool {
    arguments.first().is_some_and(|command| command == "stay")
}

async fn hold_until_end() -> anyhow::Result<ExitCode> {
    let mut input = standard_input(false);
    let plans = read_plans(&mut input).await?;
    let held = match hold::start_all(&plans).await {
        Ok(held) => held,
        Err(error) => {
            say(&Held::Failed(format!("{error:#}")))?;
            return Ok(ExitCode::FAILURE);
        }
    };
    say(&Held::Ready(held.iter().map(|one| one.address.clone()).collect()))?;
    time_to_go(&mut input).await?;
    hold::remove_all(held).await?;
    Ok(ExitCode::SUCCESS)
}

async fn serve(path: &Path, kinds: &[String], stay: bool) -> anyhow::Result<ExitCode> {
    let mut input = standard_input(stay);
    let plans =
        kinds.iter().map(|kind| kind_named(kind).map(Plan::empty)).collect::<anyhow::Result<Vec<_>>>()?;
    let held = hold::start_all(&plans).await?;
    let addresses: Vec<Address> = held.iter().map(|one| one.address.clone()).collect();
    write_addresses(path, &addresses)?;
    let ended = time_to_go(&mut input).await;
    std::fs::remove_file(path).with_context(|| format!("remove {}", path.display()))?;
    hold::remove_all(held).await?;
    ended.map(|()| ExitCode::SUCCESS)
}

fn say(answer: &Held) -> anyhow::Result<()> {
    println!("{}", serde_json::to_string(answer)?);
    std::io::stdout().flush().context("answer")
}

/// First beside, then renamed: a reader never sees half a file.
fn write_addresses(path: &Path, addresses: &[Address]) -> anyhow::Result<()> {
    let mut beside = PathBuf::from(path);
    beside.set_extension("new");
    std::fs::write(&beside, serde_json::to_vec_pretty(addresses)?)
        .and_then(|()| std::fs::rename(&beside, path))
        .with_context(|| format!("write {}", path.display()))
}

fn kind_named(name: &str) -> anyhow::Result<Kind> {
    let known = || Kind::ALL.map(Kind::name).join(", ");
    Kind::ALL
        .into_iter()
        .find(|kind| kind.name() == name)
        .with_context(|| format!("no server {name:?}; known: {}", known()))
}

async fn read_plans(input: &mut mpsc::Receiver<Vec<u8>>) -> anyhow::Result<Vec<Plan>> {
    let mut line = Vec::new();
    while !line.contains(&b'\n') {
        line.extend(input.recv().await.context("standard input ended before it said what to start")?);
        ensure!(
            line.len() <= LINE_SIZE_MAX_BYTES,
            "what to start is longer than {LINE_SIZE_MAX_BYTES} bytes"
        );
    }
    serde_json::from_slice(&line).context("what to start is not a list of plans")
}

/// Returns when standard input ends or a signal asks to stop.
async fn time_to_go(input: &mut mpsc::Receiver<Vec<u8>>) -> anyhow::Result<()> {
    let end_of_input = async { while input.recv().await.is_some() {} };
    tokio::select! {
        () = end_of_input => Ok(()),
        signal = stop_signal() => signal,
    }
}

/// Standard input, chunk by chunk; never ends for the outermost process of `stay`.
///
/// A thread of its own and not tokio's: a runtime waits for its blocking threads when it ends, and a read of standard
/// input may never return.
fn standard_input(stay: bool) -> mpsc::Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::channel(1);
    let endless = stay && std::env::var_os(BRIDGED).is_none();
    std::thread::spawn(move || {
        if endless {
            // Holding the sender keeps the channel open for as long as the process lives.
            loop {
                std::thread::park();
                if sender.is_closed() {
                    return;
                }
            }
        }
        let mut chunk = [0; 4096];
        while let Ok(length) = std::io::stdin().read(&mut chunk) {
            if length == 0 || sender.blocking_send(chunk[..length].to_vec()).is_err() {
                return;
            }
        }
    });
    receiver
}

#[cfg(unix)]
async fn stop_signal() -> anyhow::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        _ = terminate.recv() => Ok(()),
        interrupted = tokio::signal::ctrl_c() => Ok(interrupted?),
    }
}

#[cfg(not(unix))]
async fn stop_signal() -> anyhow::Result<()> {
    Ok(tokio::signal::ctrl_c().await?)
}
