//! Every TCP-level fault does over a socket what its name says, to connections that live already too.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use causeway_mock_kit::fault::{Fault, Rule, Stream};
use causeway_mock_kit::listen::{self, FaultStream};
use causeway_mock_kit::{Clock, KitContext};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::Instant;

/// A mock whose only protocol: the client names a count, the mock sends so many bytes; `x` makes it close.
pub(crate) struct Sender {
    pub(crate) cx: KitContext,
    pub(crate) address: SocketAddr,
    pub(crate) task: tokio::task::JoinHandle<()>,
}

impl Sender {
    pub(crate) async fn start() -> Self {
        let cx = KitContext::new("mock-sender", Clock::automatic());
        let listener = listen::bind("mock-sender", "sender", [127, 0, 0, 1].into(), 0).await.unwrap();
        let address = listener.local_addr().unwrap();
        let journal = cx.journal.clone();
        let task = listen::serve(listener, "sender", cx.clone(), move |stream, _| {
            let journal = journal.clone();
            async move {
                let ended = send(stream, &journal).await;
                journal.record("sender", "end", "", &format!("{ended:?}"), serde_json::Value::Null);
            }
        });
        Self { cx, address, task }
    }

    pub(crate) async fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        stream
    }

    /// A connection that is known to be served.
    async fn live(&self) -> TcpStream {
        let mut stream = self.connect().await;
        assert_eq!(ask(&mut stream, 1).await.unwrap(), [0]);
        stream
    }

    fn add(&self, fault: Fault) -> causeway_mock_kit::fault::FaultGuard {
        self.cx.faults.guard(Rule::new(fault).on_front("sender"))
    }
}

async fn send(mut stream: FaultStream, journal: &causeway_mock_kit::Journal) -> io::Result<()> {
    loop {
        let count = stream.read_u32().await?;
        journal.record("sender", "request", &count.to_string(), "", serde_json::Value::Null);
        if count == u32::MAX {
            return Ok(());
        }
        let bytes: Vec<u8> = (0..count).map(|at| u8::try_from(at % 251).unwrap()).collect();
        stream.write_all(&bytes).await?;
        stream.flush().await?;
    }
}

async fn ask(stream: &mut TcpStream, count: u32) -> io::Result<Vec<u8>> {
    stream.write_u32(count).await?;
    let mut bytes = vec![0; usize::try_from(count).unwrap()];
    stream.read_exact(&mut bytes).await?;
    Ok(bytes)
}

fn expected(count: usize) -> Vec<u8> {
    (0..count).map(|at| u8::try_from(at % 251).unwrap()).collect()
}

fn about(measured: Duration, expected_ms: u64) {
    let expected = Duration::from_millis(expected_ms);
    assert!(
        measured >= expected && measured < expected + Duration::from_millis(10),
        "took {measured:?} of tokio time, expected {expected:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn without_a_fault_no_time_passes() {
    let sender = Sender::start().await;
    let mut stream = sender.live().await;
    let started = Instant::now();
    assert_eq!(ask(&mut stream, 100_000).await.unwrap(), expected(100_000));
    about(started.elapsed(), 0);
}

#[tokio::test(start_paused = true)]
async fn latency_delays_a_live_connection_and_goes_away() {
    let sender = Sender::start().await;
    let mut stream = sender.live().await;
    for (direction, expected_ms) in [(Stream::Downstream, 300), (Stream::Upstream, 300), (Stream::Both, 600)]
    {
        let guard =
            sender.cx.faults.guard(Rule::new(Fault::Latency { ms: 300, jitter_ms: 0 }).stream(direction));
        let started = Instant::now();
        assert_eq!(ask(&mut stream, 1).await.unwrap(), [0]);
        about(started.elapsed(), expected_ms);
        drop(guard);
        let started = Instant::now();
        assert_eq!(ask(&mut stream, 1).await.unwrap(), [0]);
        about(started.elapsed(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn latency_does_not_slow_the_flow() {
    let sender = Sender::start().await;
    let mut stream = sender.live().await;
    let _guard = sender.add(Fault::Latency { ms: 300, jitter_ms: 0 });
    let started = Instant::now();
    for _ in 0..10 {
        stream.write_u32(1_000).await.unwrap();
    }
    let mut bytes = vec![0; 10_000];
    stream.read_exact(&mut bytes).await.unwrap();
    about(started.elapsed(), 300);
    assert_eq!(bytes, expected(1_000).repeat(10));
}

#[tokio::test(start_paused = true)]
async fn jitter_varies_but_never_reorders() {
    let sender = Sender::start().await;
    let mut stream = sender.live().await;
    let _guard = sender.add(Fault::Latency { ms: 100, jitter_ms: 50 });
    let mut times = Vec::new();
    for _ in 0..8 {
        let started = Instant::now();
        assert_eq!(ask(&mut stream, 300).await.unwrap(), expected(300));
        times.push(started.elapsed().as_millis());
    }
    assert!(times.iter().all(|ms| (100..=160).contains(ms)), "{times:?}");
    assert!(times.iter().any(|ms| *ms != times[0]), "{times:?}");
}

#[tokio::test(start_paused = true)]
async fn base_latency_applies_to_new_connections_and_survives_clear() {
    let sender = Sender::start().await;
    sender.cx.faults.set_base_latency(Duration::from_millis(40));
    sender.cx.faults.clear();
    let mut stream = sender.connect().await;
    let started = Instant::now();
    ask(&mut stream, 1).await.unwrap();
    about(started.elapsed(), 40);
}

#[tokio::test(start_paused = true)]
async fn bandwidth_limits_the_rate() {
    let sender = Sender::start().await;
    let mut stream = sender.live().await;
    let _guard = sender.add(Fault::Bandwidth { rate_kib_s: 10 });
    let started = Instant::now();
    assert_eq!(ask(&mut stream, 20 * 1_024).await.unwrap(), expected(20 * 1_024));
    // 20 slices of 1 KiB, the first at once, the others 100 ms apart.
    let took = started.elapsed();
    assert!((1_900..2_100).contains(&took.as_millis()), "took {took:?}");
}

#[tokio::test(start_paused = true)]
async fn slow_close_delays_the_end_of_data() {
    let sender = Sender::start().await;
    let mut stream = sender.live().await;
    let _guard = sender.add(Fault::SlowClose { delay_ms: 500 });
    let started = Instant::now();
    stream.write_u32(u32::MAX).await.unwrap();
    assert_eq!(stream.read_u8().await.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    about(started.elapsed(), 500);
}

#[tokio::test(start_paused = true)]
async fn timeout_zero_holds_data_until_the_rule_is_gone() {
    let sender = Sender::start().await;
    let mut stream = sender.live().await;
    let guard = sender.add(Fault::Timeout { ms: 0 });
    let seen = sender.cx.journal.last_seq();
    stream.write_u32(5).await.unwrap();
    let received = sender.cx.journal.wait(seen, Duration::from_secs(5), |entry| entry.subject == "5").await;
    received.expect("the request still arrives");
    let mut bytes = [0; 5];
    let held = tokio::time::timeout(Duration::from_secs(3_600), stream.read_exact(&mut bytes)).await;
    assert!(held.is_err(), "the answer came through: {held:?}");
    drop(guard);
    stream.read_exact(&mut bytes).await.unwrap();
    assert_eq!(bytes.to_vec(), expected(5));
}

#[tokio::test(start_paused = true)]
async fn timeout_closes_when_it_is_over() {
    let sender = Sender::start().await;
    let mut stream = sender.live().await;
    let _guard = sender.add(Fault::Timeout { ms: 700 });
    let started = Instant::now();
    let error = ask(&mut stream, 5).await.unwrap_err();
    about(started.elapsed(), 700);
    assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof, "{error}");
}

#[tokio::test(start_paused = true)]
async fn reset_peer_resets_an_idle_connection() {
    let sender = Sender::start().await;
    for after_ms in [0, 250] {
        let mut stream = sender.live().await;
        let guard = sender.add(Fault::ResetPeer { after_ms });
        let started = Instant::now();
        assert_eq!(stream.read_u8().await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
        about(started.elapsed(), after_ms);
        assert_eq!(guard.hits(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn slicer_cuts_data_into_pieces() {
    let sender = Sender::start().await;
    let mut stream = sender.live().await;
    let _guard = sender.add(Fault::Slicer { size_average: 3, delay_us: 10_000 });
    let started = Instant::now();
    stream.write_u32(10).await.unwrap();
    let (mut pieces, mut all) = (Vec::new(), Vec::new());
    while all.len() < 10 {
        let count = stream.read_buf(&mut all).await.unwrap();
        pieces.push(count);
    }
    assert_eq!(pieces, [3, 3, 3, 1]);
    about(started.elapsed(), 30);
    assert_eq!(all, expected(10));
}

#[tokio::test(start_paused = true)]
async fn limit_data_counts_from_the_rule_and_closes() {
    let sender = Sender::start().await;
    let mut stream = sender.live().await;
    let _guard = sender.add(Fault::LimitData { bytes: 10 });
    assert_eq!(ask(&mut stream, 4).await.unwrap(), expected(4));
    stream.write_u32(100).await.unwrap();
    let mut rest = Vec::new();
    // The close may show as an end of data or as a reset; what counts is what came before it.
    let _ = stream.read_to_end(&mut rest).await;
    assert_eq!(rest, expected(6));
}

#[tokio::test(start_paused = true)]
async fn limit_data_upstream_stops_what_the_mock_receives() {
    let sender = Sender::start().await;
    let mut stream = sender.live().await;
    let _guard = sender.cx.faults.guard(Rule::new(Fault::LimitData { bytes: 4 }).stream(Stream::Upstream));
    assert_eq!(ask(&mut stream, 2).await.unwrap(), expected(2));
    let _ = stream.write_u32(9).await;
    assert!(stream.read_u8().await.is_err());
    assert_eq!(sender.cx.journal.count(|entry| entry.subject == "9"), 0);
}

#[tokio::test(start_paused = true)]
async fn down_resets_the_living_refuses_the_new_and_keeps_the_port() {
    let sender = Sender::start().await;
    let mut stream = sender.live().await;
    let id = sender.cx.faults.set_down("sender");
    assert_eq!(stream.read_u8().await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    let refused = loop {
        // The listener closes when its task runs; until then a connection is accepted and reset.
        match TcpStream::connect(sender.address).await {
            Ok(mut early) => assert!(early.read_u8().await.is_err()),
            Err(error) => break error,
        }
    };
    assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    #[cfg(unix)]
    {
        let thief = tokio::net::TcpSocket::new_v4().unwrap();
        let taken = thief.bind(sender.address).map_err(|error| error.kind());
        assert_eq!(taken, Err(io::ErrorKind::AddrInUse), "another program could take the port meanwhile");
    }
    sender.cx.faults.remove(id);
    let mut again = loop {
        match TcpStream::connect(sender.address).await {
            Ok(stream) => break stream,
            Err(_) => tokio::task::yield_now().await,
        }
    };
    assert_eq!(ask(&mut again, 3).await.unwrap(), expected(3));
}

#[tokio::test(start_paused = true)]
async fn times_and_after_count_connections() {
    let sender = Sender::start().await;
    let rule = Rule::new(Fault::ResetPeer { after_ms: 0 }).on_front("sender").after(1).times(1);
    let (mut first, mut second) = (sender.live().await, sender.live().await);
    let guard = sender.cx.faults.guard(rule);
    assert!(second.read_u8().await.is_err());
    assert_eq!(ask(&mut first, 2).await.unwrap(), expected(2));
    sender.live().await;
    assert_eq!(guard.hits(), 1);
    let other_front = sender.cx.faults.guard(Rule::new(Fault::ResetPeer { after_ms: 0 }).on_front("other"));
    assert_eq!(ask(&mut first, 2).await.unwrap(), expected(2));
    assert_eq!(other_front.hits(), 0);
}

#[tokio::test(start_paused = true)]
async fn faults_of_different_kinds_add_up() {
    let sender = Sender::start().await;
    let mut stream = sender.live().await;
    let _latency = sender.add(Fault::Latency { ms: 200, jitter_ms: 0 });
    let _ignored = sender.add(Fault::Latency { ms: 5_000, jitter_ms: 0 });
    let _slicer = sender.add(Fault::Slicer { size_average: 5, delay_us: 50_000 });
    let started = Instant::now();
    assert_eq!(ask(&mut stream, 10).await.unwrap(), expected(10));
    about(started.elapsed(), 250);
}

#[tokio::test(start_paused = true)]
async fn a_mock_that_looks_away_is_still_cut() {
    let cx = KitContext::new("mock-sleeper", Clock::automatic());
    let listener = listen::bind("mock-sleeper", "sleeper", [127, 0, 0, 1].into(), 0).await.unwrap();
    let address = listener.local_addr().unwrap();
    // The stream lives in another task that never touches it.
    listen::serve(listener, "sleeper", cx.clone(), |mut stream, _| async move {
        stream.write_u8(7).await.unwrap();
        tokio::spawn(async move {
            let _kept = stream;
            std::future::pending::<()>().await
        });
    });
    let mut cut = TcpStream::connect(address).await.unwrap();
    assert_eq!(cut.read_u8().await.unwrap(), 7);
    assert_eq!(cx.faults.connections("sleeper"), 1);
    assert_eq!(cx.faults.cut("sleeper"), 1);
    assert_eq!(cut.read_u8().await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    let mut stopped = TcpStream::connect(address).await.unwrap();
    assert_eq!(stopped.read_u8().await.unwrap(), 7);
    cx.stop.cancel();
    assert!(stopped.read_u8().await.is_err(), "a connection outlives its mock");
}
