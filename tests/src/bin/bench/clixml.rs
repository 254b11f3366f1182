//! Device objects as Exchange sends them: our decoder beside pypsrp's on the same bytes, the same through a whole remote
//! session, and what a long answer costs in memory.

use std::hint::black_box;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use causeway_protocol::clixml::{Reader, Value};
use causeway_protocol::cmdlet::Cmdlet;
use causeway_protocol::psrp::{Destination, Envelope, Fragmenter, Guid, Message, PipelineState, PoolState};
use causeway_protocol::wsman::{
    Created, Event, Operation, RemoteSession, Reply, Request, Response, SessionSettings, Stream,
};
use causeway_tests::python;
use futures_util::future::BoxFuture;

use crate::Options;
use crate::process::peak_rss_mib;
use crate::table::Table;

/// The object of the corpus both sides decode.
const DEVICE: &str = "../protocol/tests/it/corpus/mobile-device-object.clixml";

/// Objects of one round: as many as the largest organisation planned for has.
const OBJECTS: usize = 100_000;

/// Objects of one round of the peer, which is some fifty times slower.
const PEER_OBJECTS: usize = 2_000;

/// Longest round of the peer.
const PEER_WITHIN: Duration = Duration::from_secs(120);

/// Bytes of fragments in one answer: with base64 and the envelope about what is asked for.
const ANSWER_BYTES: usize = 370_000;

/// Largest blob of a fragment, as Windows cuts.
const BLOB_BYTES: usize = 32_768;

pub(crate) fn run(options: &Options) -> BoxFuture<'_, Result<Table>> {
    Box::pin(measure(options))
}

async fn measure(options: &Options) -> Result<Table> {
    let mut table = Table::default();
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(DEVICE);
    let device = std::fs::read(&file).with_context(|| file.display().to_string())?;
    let objects = OBJECTS / options.shrink.max(1);

    // Memory first: what later rounds leave in the allocator would hide it.
    let few = peak_of(&device, objects / 100)?;
    let many = peak_of(&device, objects)?;

    let (mut ours, mut theirs, mut session) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..options.rounds {
        ours.push(decode(&device, objects)?);
        theirs.extend(peer(&file, options).await?);
        session.push(stream(&device, objects)?);
    }
    let what = format!("decode, object of {} bytes", device.len());
    let goal = "30,000/s and 30 x";
    if theirs.is_empty() {
        table.alone(what, "objects/s", ours, goal);
        table.note("pypsrp is not installed; `cargo xtask peers start` installs it.");
    } else {
        table.against(what, "objects/s", ours, ("pypsrp 0.9.1", theirs), goal);
    }
    table.alone("the same through SOAP, fragments and messages", "objects/s", session, "-");
    table.alone(format!("peak memory, {} objects in a session", objects / 100), "MiB", vec![few], "-");
    table.alone(format!("peak memory, {objects} objects in a session"), "MiB", vec![many], "the same");
    table.note(
        "One thread. The session's figure includes the server's side of the envelopes, in the same process.",
    );
    Ok(table)
}

fn decode(device: &[u8], objects: usize) -> Result<f64> {
    let mut reader = Reader::new();
    let began = Instant::now();
    for _ in 0..objects {
        black_box(reader.read(black_box(device))?);
    }
    Ok(objects as f64 / began.elapsed().as_secs_f64())
}

async fn peer(file: &Path, options: &Options) -> Result<Option<f64>> {
    let count = (PEER_OBJECTS / options.shrink.max(1)).max(100).to_string();
    let file = file.display().to_string();
    let run = python::run("pypsrp_decode.py", &[file, count], &[], PEER_WITHIN).await?;
    let Some(run) = run else { return Ok(None) };
    ensure!(run.status.success(), "pypsrp fails: {}", run.stderr);
    Ok(Some(run.stdout.trim().parse().context("pypsrp's figure")?))
}

/// Highest resident memory while so many objects pass. Linux forgets the highest so far when told to.
fn peak_of(device: &[u8], objects: usize) -> Result<f64> {
    std::fs::write("/proc/self/clear_refs", "5").context("reset the peak")?;
    stream(device, objects)?;
    peak_rss_mib(std::process::id())
}

/// A server in memory that answers with one object again and again.
struct Server {
    pool: Guid,
    pipeline: Guid,
    fragmenter: Fragmenter,
    output: Vec<u8>,
    left: usize,
}

impl Server {
    fn message(&self, pipeline: Guid, message: Message) -> Vec<u8> {
        Envelope { destination: Destination::Client, pool: self.pool, pipeline, message }.write()
    }

    fn reply(&mut self, operation: &Operation) -> Result<Reply> {
        Ok(match operation {
            Operation::Create(_) => {
                Reply::Created(Created { shell_id: "shell".to_owned(), ..Created::default() })
            }
            Operation::Command { command_id, .. } => {
                Reply::Commanded { command_id: command_id.clone().context("no command id")? }
            }
            Operation::Receive { command_id, .. } => {
                let bytes = match command_id {
                    None => self.opened(),
                    Some(_) => self.devices(),
                };
                let stream = Stream { name: "stdout".to_owned(), command_id: command_id.clone(), bytes };
                Reply::Received { streams: vec![stream], state: None }
            }
            Operation::Signal { .. } => Reply::Signalled,
            other => bail!("the client asks for {other:?}"),
        })
    }

    fn opened(&mut self) -> Vec<u8> {
        let message = self.message(Guid::NIL, Message::PoolState { state: PoolState::Opened, error: None });
        self.fragmenter.cut(&message, BLOB_BYTES).flatten().collect()
    }

    /// As many as fit, and the end when there are no more.
    fn devices(&mut self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(ANSWER_BYTES + BLOB_BYTES);
        while self.left > 0 && bytes.len() < ANSWER_BYTES {
            self.left -= 1;
            self.fragmenter.cut(&self.output, BLOB_BYTES).for_each(|fragment| bytes.extend(fragment));
        }
        if self.left == 0 {
            let state = Message::PipelineState { state: PipelineState::Completed, error: None };
            let message = self.message(self.pipeline, state);
            self.fragmenter.cut(&message, BLOB_BYTES).for_each(|fragment| bytes.extend(fragment));
        }
        bytes
    }
}

/// Objects in a second through a session, none of them kept.
fn stream(device: &[u8], objects: usize) -> Result<f64> {
    let (pool, pipeline) = (Guid::from_bytes([1; 16]), Guid::from_bytes([2; 16]));
    let device = Message::PipelineOutput(Reader::new().read(device)?);
    let mut server =
        Server { pool, pipeline, fragmenter: Fragmenter::new(), output: Vec::new(), left: objects };
    server.output = server.message(pipeline, device);
    let mut session = RemoteSession::new(SessionSettings {
        url: "https://bench.example/powershell".to_owned(),
        configuration: "Microsoft.Exchange".to_owned(),
        session_id: Guid::NIL,
        pool_id: pool,
    });
    let mut count = 0;
    let mut began = Instant::now();
    loop {
        while let Some(event) = session.next_event()? {
            match event {
                Event::Opened(_) => {
                    session
                        .run(&Cmdlet::new("Get-MobileDevice").with("ResultSize", "Unlimited"), pipeline)?;
                    began = Instant::now();
                }
                Event::Object(object) => {
                    ensure!(object.get("P37").is_some_and(|value| *value != Value::Null), "not the device");
                    count += 1;
                }
                _ => {}
            }
        }
        let Some(envelope) = session.next_request(Guid::from_bytes([9; 16])) else { break };
        let request = Request::read(envelope.as_bytes())?;
        let reply = server.reply(&request.operation)?;
        session.answer(Response::to(&request, "uuid:ANSWER", reply).write().as_bytes())?;
    }
    ensure!(count == objects, "{count} of {objects} objects came");
    Ok(objects as f64 / began.elapsed().as_secs_f64())
}
