//! An HTTP forward proxy that tunnels with CONNECT (RFC 9110 9.3.6) and may ask for credentials (RFC 9110 11.7).

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::TcpStream;

use super::auth::{ConnectAuth, Gate, Nonces, Verdict};
use super::{dial, local_addr};
use crate::KitContext;
use crate::clock::Clock;
use crate::fault::{Fault, Faults, Point};
use crate::journal::Journal;
use crate::limits::{CONNECT_HEAD_MAX_BYTES, CONNECT_HEAD_TIMEOUT, CONNECT_REQUESTS_MAX, DIAL_TIMEOUT};
use crate::listen::{self, BindError, FaultStream};

/// Name of the front end in rules and journal.
const FRONT: &str = "proxy";

/// How the proxy behaves.
#[derive(Clone, Default)]
pub struct ConnectSettings {
    /// What it asks of clients.
    pub auth: ConnectAuth,
    /// Ports it tunnels to; any when empty. Company proxies often allow 443 only.
    pub ports: Vec<u16>,
    /// Where `host:port` really is, for names that exist only in a test.
    pub resolve: BTreeMap<String, SocketAddr>,
    /// How badly it behaves.
    pub manners: Manners,
}

/// What hostile, broken or merely old proxies do. The default is a proxy that behaves.
#[derive(Clone, Default)]
pub struct Manners {
    /// Answers, byte for byte, to the first requests of each connection; later ones are served properly.
    pub says: Vec<Vec<u8>>,
    /// Every answer travels one byte a segment.
    pub byte_by_byte: bool,
    /// Closes each connection after so many answers, without announcing it.
    pub closes_after: Option<usize>,
    /// Refuses as HTTP/1.0 does, and closes.
    pub http10: bool,
}

/// A running proxy; stops on drop, with all its tunnels.
///
/// The journal has an entry `connect` per request (subject: the target; outcome: the status) and an entry `tunnel` when
/// a tunnel is over. Faults on operation `connect` may be `delay`, `stall`, `close`, `status` (an HTTP status) and
/// `malformed` with kind `garbage`; TCP-level ones apply to the client's side.
pub struct ConnectProxy {
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    settings: ConnectSettings,
    cx: KitContext,
    nonces: Nonces,
    bytes_up: AtomicU64,
    bytes_down: AtomicU64,
}

impl ConnectProxy {
    /// Listens on a free port of 127.0.0.1.
    ///
    /// # Errors
    /// [`BindError`].
    pub async fn start(settings: ConnectSettings) -> Result<Self, BindError> {
        let cx = KitContext::new("connect-proxy", Clock::automatic());
        let listener = listen::bind(cx.service, FRONT, IpAddr::V4(Ipv4Addr::LOCALHOST), 0).await?;
        let address = local_addr(&listener)?;
        let shared = Arc::new(Shared {
            settings,
            cx: cx.clone(),
            nonces: Nonces::default(),
            bytes_up: AtomicU64::new(0),
            bytes_down: AtomicU64::new(0),
        });
        let serving = Arc::clone(&shared);
        listen::serve(listener, FRONT, cx, move |client, _| {
            let shared = Arc::clone(&serving);
            async move { shared.serve(client).await }
        });
        Ok(Self { address, shared })
    }

    /// Where clients connect.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `http://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Bytes tunnelled so far, to targets and back.
    pub fn bytes(&self) -> (u64, u64) {
        (self.shared.bytes_up.load(Ordering::Acquire), self.shared.bytes_down.load(Ordering::Acquire))
    }

    /// What clients asked for.
    pub fn journal(&self) -> &Journal {
        &self.shared.cx.journal
    }

    /// Failures to inject.
    pub fn faults(&self) -> &Faults {
        &self.shared.cx.faults
    }

    /// Resets all live connections; returns how many there were.
    pub fn cut(&self) -> usize {
        self.shared.cx.faults.cut(FRONT)
    }
}

impl Drop for ConnectProxy {
    fn drop(&mut self) {
        self.shared.cx.stop.cancel();
    }
}

/// An answer that is not a tunnel.
#[derive(Debug)]
struct Refusal {
    status: u16,
    reason: &'static str,
}

const fn refusal(status: u16, reason: &'static str) -> Refusal {
    Refusal { status, reason }
}

/// A request head, as far as a proxy cares.
struct Head {
    target: String,
    credentials: Option<String>,
    /// What came after the head; a client may send before it has the answer.
    rest: Vec<u8>,
}

impl Shared {
    async fn serve(&self, mut client: FaultStream) {
        let manners = &self.settings.manners;
        let mut gate = Gate::new(&self.settings.auth, &self.nonces, self.cx.clock.now_ms());
        for answered in 0..CONNECT_REQUESTS_MAX {
            if manners.closes_after == Some(answered) {
                return;
            }
            let head = tokio::time::timeout(CONNECT_HEAD_TIMEOUT, read_head(&mut client)).await;
            let head = match head {
                Ok(Ok(Some(head))) => head,
                Ok(Ok(None)) | Err(_) => return,
                Ok(Err(refusal)) => {
                    self.record("", &refusal, Value::Null);
                    return self.refuse(&mut client, &refusal, "").await;
                }
            };
            let point = Point { front: FRONT, operation: "connect", subject: &head.target };
            if let Some(fault) = self.cx.faults.meet(&point).await {
                return self.fail(client, &head.target, fault).await;
            }
            if let Some(says) = manners.says.get(answered) {
                self.cx.journal.record(FRONT, "connect", &head.target, "scripted", Value::Null);
                self.say(&mut client, says).await;
                continue;
            }
            let admitted = match gate.judge(&head.target, head.credentials.as_deref()) {
                Verdict::Admitted { scheme, user } => json!({ "scheme": scheme, "user": user }),
                Verdict::Asked { headers, scheme, why } => {
                    let unauthorised = refusal(407, "Proxy Authentication Required");
                    self.record(&head.target, &unauthorised, json!({ "scheme": scheme, "why": why }));
                    self.refuse(&mut client, &unauthorised, &headers).await;
                    if manners.http10 {
                        return;
                    }
                    // The connection stays open: the client answers on it.
                    continue;
                }
            };
            match self.reach(&head.target).await {
                Ok(upstream) => return self.tunnel(client, upstream, head, admitted).await,
                Err(refusal) => {
                    self.record(&head.target, &refusal, admitted);
                    return self.refuse(&mut client, &refusal, "").await;
                }
            }
        }
    }

    async fn reach(&self, target: &str) -> Result<TcpStream, Refusal> {
        let port =
            target.rsplit_once(':').and_then(|(host, port)| (!host.is_empty()).then(|| port.parse().ok())?);
        let Some(port) = port else { return Err(refusal(400, "Bad Request")) };
        if !self.settings.ports.is_empty() && !self.settings.ports.contains(&port) {
            return Err(refusal(403, "Forbidden"));
        }
        let reached = match self.settings.resolve.get(target) {
            Some(address) => dial(*address).await,
            None => match tokio::time::timeout(DIAL_TIMEOUT, TcpStream::connect(target)).await {
                Ok(reached) => reached,
                Err(_) => return Err(refusal(504, "Gateway Timeout")),
            },
        };
        reached.map_err(|_| refusal(502, "Bad Gateway"))
    }

    async fn tunnel(&self, mut client: FaultStream, mut upstream: TcpStream, head: Head, who: Value) {
        self.cx.journal.record(FRONT, "connect", &head.target, "200", who);
        let sent = async {
            self.say(&mut client, b"HTTP/1.1 200 Connection established\r\n\r\n").await;
            upstream.write_all(&head.rest).await
        };
        if sent.await.is_err() {
            return;
        }
        let mut counted = Counted { inner: &mut upstream, up: &self.bytes_up, down: &self.bytes_down };
        let early = head.rest.len() as u64;
        self.bytes_up.fetch_add(early, Ordering::AcqRel);
        let (outcome, bytes) = match copy_bidirectional(&mut client, &mut counted).await {
            Ok((up, down)) => ("closed".to_owned(), json!({ "bytes_up": up + early, "bytes_down": down })),
            Err(error) => (error.to_string(), Value::Null),
        };
        self.cx.journal.record(FRONT, "tunnel", &head.target, &outcome, bytes);
        if outcome != "closed" {
            client.reset();
        }
    }

    async fn fail(&self, mut client: FaultStream, target: &str, fault: Fault) {
        let outcome = match &fault {
            Fault::Status { code, message } => {
                let text = format!("HTTP/1.1 {code} {message}\r\nContent-Length: 0\r\n\r\n");
                // The client may be gone; the journal tells what was tried.
                let _ = client.write_all(text.as_bytes()).await;
                code.clone()
            }
            Fault::Malformed { .. } => {
                let _ = client.write_all(b"\x16\x03\x01 this is not HTTP\r\n\r\n").await;
                "garbage".to_owned()
            }
            _ => "closed".to_owned(),
        };
        self.cx.journal.record(FRONT, "connect", target, &outcome, json!({ "fault": true }));
    }

    fn record(&self, target: &str, refusal: &Refusal, detail: Value) {
        self.cx.journal.record(FRONT, "connect", target, &refusal.status.to_string(), detail);
    }

    async fn refuse(&self, client: &mut FaultStream, refusal: &Refusal, headers: &str) {
        let version = if self.settings.manners.http10 { "HTTP/1.0" } else { "HTTP/1.1" };
        let text =
            format!("{version} {} {}\r\n{headers}Content-Length: 0\r\n\r\n", refusal.status, refusal.reason);
        self.say(client, text.as_bytes()).await;
    }

    /// A client that is gone needs no answer.
    async fn say(&self, client: &mut FaultStream, bytes: &[u8]) {
        let size = if self.settings.manners.byte_by_byte { 1 } else { bytes.len().max(1) };
        for part in bytes.chunks(size) {
            if client.write_all(part).await.is_err() || client.flush().await.is_err() {
                return;
            }
            tokio::task::yield_now().await;
        }
    }
}

/// Reads one request head; `None` when the client closed between requests.
async fn read_head(client: &mut FaultStream) -> Result<Option<Head>, Refusal> {
    let mut bytes = Vec::with_capacity(1_024);
    let end = loop {
        if let Some(at) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            break at;
        }
        if bytes.len() >= CONNECT_HEAD_MAX_BYTES {
            return Err(refusal(431, "Request Header Fields Too Large"));
        }
        match client.read_buf(&mut bytes).await {
            Ok(0) | Err(_) => return Ok(None),
            Ok(_) => {}
        }
    };
    let rest = bytes.split_off(end + 4);
    let text = String::from_utf8(bytes).map_err(|_| refusal(400, "Bad Request"))?;
    let mut lines = text.split("\r\n");
    let mut words = lines.next().unwrap_or_default().split(' ');
    let (method, target, version) = (words.next(), words.next(), words.next());
    match (method, target, version) {
        (Some("CONNECT"), Some(target), Some(version)) if version.starts_with("HTTP/1.") => {
            let mut headers = lines.filter_map(|line| line.split_once(':'));
            let credentials = headers.find(|(name, _)| name.eq_ignore_ascii_case("proxy-authorization"));
            let credentials = credentials.map(|(_, value)| value.trim().to_owned());
            Ok(Some(Head { target: target.to_owned(), credentials, rest }))
        }
        (Some(_), Some(_), Some(version)) if version.starts_with("HTTP/1.") => {
            Err(refusal(405, "Method Not Allowed"))
        }
        _ => Err(refusal(400, "Bad Request")),
    }
}

/// Counts what passes while it passes, so that a test can watch a live tunnel.
struct Counted<'a> {
    inner: &'a mut TcpStream,
    up: &'a AtomicU64,
    down: &'a AtomicU64,
}

impl tokio::io::AsyncRead for Counted<'_> {
    fn poll_read(
        self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        buf: &mut tokio::io::ReadBuf<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        let polled = std::pin::Pin::new(&mut *this.inner).poll_read(cx, buf);
        this.down.fetch_add((buf.filled().len() - before) as u64, Ordering::AcqRel);
        polled
    }
}

impl tokio::io::AsyncWrite for Counted<'_> {
    fn poll_write(
        self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        buf: &[u8],
    ) -> std::task::Poll<std::io::Result<usize>> {
        let this = self.get_mut();
        let polled = std::pin::Pin::new(&mut *this.inner).poll_write(cx, buf);
        if let std::task::Poll::Ready(Ok(count)) = polled {
            this.up.fetch_add(count as u64, Ordering::AcqRel);
        }
        polled
    }

    fn poll_flush(
        self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::pin::Pin::new(&mut *self.get_mut().inner).poll_flush(cx)
    }

    fn poll_shutdown(
        self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::pin::Pin::new(&mut *self.get_mut().inner).poll_shutdown(cx)
    }
}
