//! mock-ca issuing over SCEP: requests by POST over loopback, RSA-2048 everywhere, the server on one processor; beside what
//! the cryptography in one issuance costs OpenSSL on the same processor, and costs the library the mock uses.

use std::io::Read as _;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use causeway_protocol::Secret;
use causeway_protocol::certificate::KeyKind;
use causeway_protocol::cms::SignerKey;
use causeway_protocol::pkix::{Certificate, CsrDraft, Digest, Key, Name, self_signed};
use causeway_protocol::scep::{
    Answer, CaCertificates, Caps, CertRep, RequestWriter, ScepRandom, Suite, TransactionId,
};
use futures_util::future::BoxFuture;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::process::Command;

use crate::Options;
use crate::process::Program;
use crate::table::Table;

/// Certificates of one round.
const REQUESTS: usize = 2_000;

/// Connections that send at once: one message is on its way while another is worked on.
const CONNECTIONS: usize = 4;

/// The processor the server has to itself.
const PROCESSOR: &str = "0";

/// Private and public operations with RSA in one issuance: the RA opens the request and signs the answer, the authority
/// signs the certificate; verified are the message and the request in it, and one key is encrypted.
const PRIVATE: f64 = 3.0;
const PUBLIC: f64 = 3.0;

pub(crate) fn run(options: &Options) -> BoxFuture<'_, Result<Table>> {
    Box::pin(measure(options))
}

/// How soon mock-ca is ready with the default world.
pub(crate) fn ready(options: &Options) -> BoxFuture<'_, Result<Table>> {
    Box::pin(async {
        let (mut started, mut issuing) = (Vec::new(), Vec::new());
        for _ in 0..options.rounds {
            let began = Instant::now();
            let mock = Program::start("mock-ca", &[]).await?;
            started.push(mock.ready_after.as_secs_f64() * 1_000.0);
            // The first question waits for the keys.
            Wire::to(mock.text("/urls/scep")?).await?.get("GetCACert").await?;
            issuing.push(began.elapsed().as_secs_f64() * 1_000.0);
        }
        let mut table = Table::default();
        table.alone("mock-ca with the default world: ready after", "ms", started, "at most 100");
        table.alone("start to the authority's certificates (four RSA keys are made)", "ms", issuing, "-");
        Ok(table)
    })
}

async fn measure(options: &Options) -> Result<Table> {
    let requests = (REQUESTS / options.shrink.max(1)).max(CONNECTIONS);
    let mock = Program::start("mock-ca", &["--personality", "rfc8894"]).await?;
    pin(mock.pid()?).await?;
    let client = Client::look(&mock).await?;
    let (mut ours, mut openssl, mut library) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..options.rounds {
        openssl.push(openssl_floor().await?);
        library.push(library_floor(&client.key)?);
        ours.push(issue(&mock, &client, round, requests).await?);
    }
    let mut table = Table::default();
    let what = format!("{requests} certificates over SCEP, one processor");
    let peer = "floor: 3 private and 3 public operations by openssl speed";
    table.against(what, "1/s", ours.clone(), (peer, openssl), "0.8 x, at least 550");
    let peer = "floor: the same by aws-lc, which the mock uses";
    table.against("the same", "1/s", ours, (peer, library), "0.8 x");
    let version = Command::new("openssl").arg("version").output().await.context("run openssl")?.stdout;
    table.note(format!("{}.", String::from_utf8_lossy(&version).trim()));
    table.note("Requests are made before the clock starts; every answer is opened and read after it stops.");
    Ok(table)
}

/// Lets a running program use one processor only.
async fn pin(pid: u32) -> Result<()> {
    let mut command = Command::new("taskset");
    let output = command
        .args(["-a", "-c", "-p", PROCESSOR, &pid.to_string()])
        .output()
        .await
        .context("run taskset")?;
    ensure!(output.status.success(), "taskset: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// Issuances a second if nothing but OpenSSL's RSA took time.
async fn openssl_floor() -> Result<f64> {
    let mut command = Command::new("taskset");
    command.args(["-c", PROCESSOR, "openssl", "speed", "-mr", "-seconds", "2", "rsa2048"]);
    let output = command.output().await.context("run openssl speed")?;
    // `+F2:2:2048:signatures:verifications`, a second.
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let line =
        text.lines().find(|line| line.starts_with("+F2:")).with_context(|| format!("no figure in {text}"))?;
    let figures: Vec<f64> = line.rsplit(':').take(2).map(str::parse).collect::<Result<_, _>>()?;
    let (verifies, signs) = (figures[0], figures[1]);
    ensure!(verifies > 0.0 && signs > 0.0, "openssl says {line}");
    Ok(1.0 / (PRIVATE / signs + PUBLIC / verifies))
}

/// The same with the library the mock uses. It is not pinned: this thread is alone while it runs.
fn library_floor(key: &Key) -> Result<f64> {
    const TIMES: u32 = 300;
    let message = [7; 32];
    let began = Instant::now();
    let mut signature = key.sign(Digest::Sha256, &message)?;
    for _ in 1..TIMES {
        signature = key.sign(Digest::Sha256, &message)?;
    }
    let sign = began.elapsed().as_secs_f64() / f64::from(TIMES);
    let began = Instant::now();
    let accept = causeway_protocol::pkix::Accept::MODERN;
    for _ in 0..TIMES {
        key.public_key().verify("message", signature.algorithm, &message, &signature.bytes, accept)?;
    }
    let verify = began.elapsed().as_secs_f64() / f64::from(TIMES);
    Ok(1.0 / (PRIVATE * sign + PUBLIC * verify))
}

/// What every request needs.
pub(crate) struct Client {
    key: Key,
    certificate: Certificate,
    suite: Suite,
    authority: CaCertificates,
    challenge: String,
}

impl Client {
    /// Asks the mock for what it can do and who it is.
    pub(crate) async fn look(mock: &Program) -> Result<Self> {
        let mut wire = Wire::to(mock.text("/urls/scep")?).await?;
        let key = Key::generate(KeyKind::Rsa2048)?;
        let name = Name::parse("CN=bench")?.to_der();
        let certificate =
            Certificate::read(&self_signed(&key, name, &[7; 16], 0, i64::from(u32::MAX) * 1_000)?)?;
        Ok(Self {
            suite: Caps::parse(&wire.get("GetCACaps").await?).negotiate(),
            authority: CaCertificates::read(&wire.get("GetCACert").await?)?,
            challenge: mock.text("/accounts/scep/challenge")?.to_owned(),
            key,
            certificate,
        })
    }

    /// A signing request with the challenge.
    pub(crate) fn csr(&self, name: &str) -> Result<Vec<u8>> {
        let draft = CsrDraft {
            subject: Name::parse(&format!("CN={name}"))?,
            challenge: Some(Secret::new(self.challenge.clone())),
            ..CsrDraft::default()
        };
        Ok(draft.sign(&self.key, Digest::Sha256)?)
    }

    /// The message that carries it, of a transaction of its own.
    pub(crate) fn message(&self, csr: &[u8], transaction: &str) -> Result<Vec<u8>> {
        let mut bytes = [0; 64];
        std::fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
        let writer = RequestWriter {
            suite: self.suite,
            recipient: self.authority.recipient()?,
            signer: SignerKey { certificate: &self.certificate, key: &self.key },
            transaction: &TransactionId::new(transaction),
        };
        Ok(writer.certificate(csr, false, &ScepRandom::new(bytes))?)
    }

    /// Opens an answer, which must be a certificate.
    pub(crate) fn check(&self, answer: &[u8]) -> Result<()> {
        let reply = CertRep::read(answer)?;
        let opened = reply.open(&self.authority, &self.key, &self.certificate, self.suite.accept)?;
        ensure!(matches!(opened, Answer::Success(_)), "the mock answered {opened:?}");
        Ok(())
    }
}

/// Certificates a second.
async fn issue(mock: &Program, client: &Client, round: usize, requests: usize) -> Result<f64> {
    let url = mock.text("/urls/scep")?;
    let mut lanes = Vec::new();
    for lane in 0..CONNECTIONS {
        let names = (lane..requests).step_by(CONNECTIONS).map(|number| format!("phone-{round}-{number}"));
        let messages: Result<Vec<_>> = names.map(|name| client.message(&client.csr(&name)?, &name)).collect();
        lanes.push((Wire::to(url).await?, messages?));
    }
    let began = Instant::now();
    let sent = lanes.into_iter().map(|(mut wire, messages)| {
        tokio::spawn(async move {
            let mut answers = Vec::with_capacity(messages.len());
            for message in &messages {
                answers.push(wire.post(message).await?);
            }
            anyhow::Ok(answers)
        })
    });
    let answers = futures_util::future::try_join_all(sent).await?;
    let elapsed = began.elapsed().as_secs_f64();
    for answer in answers {
        answer?.iter().try_for_each(|answer| client.check(answer))?;
    }
    Ok(requests as f64 / elapsed)
}

/// One connection, as little HTTP as there can be.
pub(crate) struct Wire {
    tcp: BufReader<TcpStream>,
    address: String,
    path: String,
}

impl Wire {
    pub(crate) async fn to(url: &str) -> Result<Self> {
        let (address, path) =
            url.strip_prefix("http://").and_then(|rest| rest.split_once('/')).context("no plain URL")?;
        let tcp = TcpStream::connect(address).await.context("connect to the mock")?;
        tcp.set_nodelay(true)?;
        Ok(Self { tcp: BufReader::new(tcp), address: address.to_owned(), path: format!("/{path}") })
    }

    async fn get(&mut self, operation: &str) -> Result<Vec<u8>> {
        self.send(&format!("GET {}?operation={operation}", self.path), &[]).await
    }

    pub(crate) async fn post(&mut self, message: &[u8]) -> Result<Vec<u8>> {
        self.send(&format!("POST {}?operation=PKIOperation", self.path), message).await
    }

    async fn send(&mut self, line: &str, body: &[u8]) -> Result<Vec<u8>> {
        let head =
            format!("{line} HTTP/1.1\r\nHost: {}\r\nContent-Length: {}\r\n\r\n", self.address, body.len());
        self.tcp.write_all(&[head.as_bytes(), body].concat()).await?;
        let (mut length, mut status) = (0, String::new());
        loop {
            let mut line = String::new();
            ensure!(self.tcp.read_line(&mut line).await? > 0, "the mock closed the connection");
            if status.is_empty() {
                status = line.trim_end().to_owned();
                continue;
            }
            match line.trim_end().split_once(':') {
                Some((name, value)) if name.eq_ignore_ascii_case("content-length") => {
                    length = value.trim().parse()?
                }
                None if line.trim_end().is_empty() => break,
                _ => {}
            }
        }
        ensure!(status.contains(" 200 "), "the mock answered {status}");
        let mut body = vec![0; length];
        self.tcp.read_exact(&mut body).await?;
        Ok(body)
    }
}
