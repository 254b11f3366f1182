//! mock-exchange's remote PowerShell: how fast it serves every phone of a large organisation, beside how fast our own
//! client reads the very same answers; a mock slower than its reader would make tests of the reader tests of the mock.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use causeway_mock_exchange::{Config, MockExchange};
use causeway_protocol::cmdlet::Cmdlet;
use causeway_protocol::psrp::Guid;
use causeway_protocol::wsman::{Event, RemoteSession, SessionSettings};
use futures_util::future::BoxFuture;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;

use crate::Options;
use crate::process::{Program, peak_rss_mib};
use crate::table::Table;

/// Phones of the largest organisation planned for.
const PHONES: usize = 100_000;

/// People they belong to.
const PEOPLE: usize = 50_000;

pub(crate) fn run(options: &Options) -> BoxFuture<'_, Result<Table>> {
    Box::pin(measure(options))
}

async fn measure(options: &Options) -> Result<Table> {
    let shrink = options.shrink.max(1);
    let mut config = Config::default();
    config.common.users = PEOPLE / shrink;
    config.partnerships = Some(PHONES / shrink);
    config.powershell.basic_over_http = true;
    // The figure is that of the server, not of its budget for one account.
    config.throttling.object_cost_us = 0;
    let mock = MockExchange::start(config).await?;

    let before = peak_rss_mib(std::process::id())?;
    let first = stream(&mock, PHONES / shrink).await?;
    let after = peak_rss_mib(std::process::id())?;
    let (mut served, mut read) = (vec![first.served()], vec![first.read()]);
    for _ in 1..options.rounds {
        let round = stream(&mock, PHONES / shrink).await?;
        served.push(round.served());
        read.push(round.read());
    }
    let mut ready = Vec::new();
    for _ in 0..options.rounds {
        let mock = Program::start("mock-exchange", &[]).await?;
        ready.push(mock.ready_after.as_secs_f64() * 1_000.0);
    }
    let mut table = Table::default();
    table.alone("mock-exchange with the default world: ready after", "ms", ready, "at most 150");
    let what = format!("{} phones served", PHONES / shrink);
    table.against(what, "objects/s", served, ("our client reading the same answers", read), "0.5 x");
    table.alone("memory the first such answer adds, both ends", "MiB", vec![after - before], "below 50");
    table.note("One connection, plain HTTP, Basic; the ends take turns, so each has its own time. Objects of 3.7 kB.");
    Ok(table)
}

/// One list of all phones.
struct Round {
    objects: usize,
    waiting: Duration,
    reading: Duration,
}

impl Round {
    fn served(&self) -> f64 {
        self.objects as f64 / self.waiting.as_secs_f64()
    }

    fn read(&self) -> f64 {
        self.objects as f64 / self.reading.as_secs_f64()
    }
}

async fn stream(mock: &MockExchange, expected: usize) -> Result<Round> {
    let mut http = Http::connect(mock).await?;
    let (pool, pipeline) = (Guid::from_bytes([1; 16]), Guid::from_bytes([2; 16]));
    let mut session = RemoteSession::new(SessionSettings {
        url: mock.url("powershell_http").to_owned(),
        configuration: "Microsoft.Exchange".to_owned(),
        session_id: Guid::NIL,
        pool_id: pool,
    });
    let mut round = Round { objects: 0, waiting: Duration::ZERO, reading: Duration::ZERO };
    let mut requests = 0u128;
    loop {
        let began = Instant::now();
        while let Some(event) = session.next_event()? {
            match event {
                Event::Opened(_) => {
                    let every = Cmdlet::new("Get-MobileDevice").with("ResultSize", "Unlimited");
                    session.run(&every, pipeline)?;
                }
                Event::Object(_) => round.objects += 1,
                _ => {}
            }
        }
        requests += 1;
        let Some(envelope) = session.next_request(Guid::from_bytes(requests.to_be_bytes())) else { break };
        round.reading += began.elapsed();
        let began = Instant::now();
        let answer = http.post(envelope.as_bytes()).await?;
        round.waiting += began.elapsed();
        let began = Instant::now();
        session.answer(&answer)?;
        round.reading += began.elapsed();
    }
    ensure!(round.objects == expected, "{} of {expected} objects came", round.objects);
    Ok(round)
}

/// One connection that posts envelopes.
struct Http {
    tcp: BufReader<TcpStream>,
    head: String,
}

impl Http {
    async fn connect(mock: &MockExchange) -> Result<Self> {
        let admin = mock.service_account();
        let login = STANDARD.encode(format!("{}:{}", admin.user, admin.password));
        let address = mock.address("powershell_http");
        let tcp = TcpStream::connect(address).await.context("connect to the mock")?;
        tcp.set_nodelay(true)?;
        let head = format!(
            "POST /powershell HTTP/1.1\r\nHost: {address}\r\nAuthorization: Basic {login}\r\n\
             Content-Type: application/soap+xml;charset=UTF-8\r\n"
        );
        Ok(Self { tcp: BufReader::with_capacity(1 << 20, tcp), head })
    }

    /// The answer's body; the mock always says how long it is.
    async fn post(&mut self, body: &[u8]) -> Result<Vec<u8>> {
        let head = format!("{}Content-Length: {}\r\n\r\n", self.head, body.len());
        self.tcp.write_all(&[head.as_bytes(), body].concat()).await?;
        let mut length = 0;
        loop {
            let mut line = String::new();
            ensure!(self.tcp.read_line(&mut line).await? > 0, "the mock closed the connection");
            match line.trim_end().split_once(':') {
                Some((name, value)) if name.eq_ignore_ascii_case("content-length") => {
                    length = value.trim().parse()?
                }
                None if line.trim_end().is_empty() => break,
                _ => {}
            }
        }
        let mut body = vec![0; length];
        self.tcp.read_exact(&mut body).await?;
        Ok(body)
    }
}
