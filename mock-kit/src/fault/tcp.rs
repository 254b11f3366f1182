//! How a connection obeys TCP-level faults.
//!
//! A [`Link`] is one accepted connection. Its [`FaultStream`] belongs to the mock; a driver future, run by
//! [`serve`](crate::listen::serve) beside the mock's code, sends what is held back and closes when a rule says so.
//! So a fault takes effect whatever the mock is doing, and held-back data leaves even after the mock is done.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::task::AtomicWaker;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep};

use super::lane::{Allowed, Applied, Lane, Shape};
use super::{Fault, FaultId, Faults, Rule, Stream};
use crate::limits::DISTURBED_READ_BYTES;

/// One accepted connection, shared by its stream, its driver and the rule list.
pub(crate) struct Link {
    core: Mutex<Core>,
    reader: AtomicWaker,
    writer: AtomicWaker,
    driver: AtomicWaker,
}

struct Core {
    /// `None` once closed, so that whoever still holds the stream cannot keep the socket open.
    tcp: Option<TcpStream>,
    applied: Vec<Applied>,
    base_latency: Duration,
    up: Lane,
    down: Lane,
    closing: Option<Closing>,
    slow_close: Duration,
    /// Set when the mock shut its side down or dropped the stream: from then on the end of data is due.
    end_at: Option<Instant>,
    end_sent: bool,
    released: bool,
    ended: Option<io::ErrorKind>,
}

#[derive(Clone, Copy, PartialEq)]
struct Closing {
    at: Instant,
    reset: bool,
}

impl Core {
    /// Works out what the applied rules amount to.
    fn refresh(&mut self) {
        let mut up = Shape::default();
        let mut down = Shape { latency: self.base_latency, ..Shape::default() };
        let mut closing: Option<Closing> = None;
        self.slow_close = Duration::ZERO;
        for applied in self.applied.iter().rev() {
            // In reverse, so that of two rules of one kind the first overwrites the later.
            let close =
                |after_ms: u64, reset| Closing { at: applied.since + Duration::from_millis(after_ms), reset };
            match applied.fault {
                Fault::SlowClose { delay_ms } => self.slow_close = Duration::from_millis(delay_ms),
                Fault::ResetPeer { after_ms } => closing = earlier(closing, close(after_ms, true)),
                Fault::Down {} => closing = earlier(closing, close(0, true)),
                Fault::Timeout { ms } if ms > 0 => closing = earlier(closing, close(ms, false)),
                _ => {}
            }
            if applied.stream != Stream::Downstream {
                up.add(applied);
            }
            if applied.stream != Stream::Upstream {
                down.add(applied);
            }
        }
        self.up.reshape(up);
        self.down.reshape(down);
        self.closing = closing;
    }

    fn close(&mut self, reset: bool) {
        if let Some(tcp) = self.tcp.take()
            && reset
        {
            // Dropping the socket then sends RST. It can fail only for a socket that is gone already.
            let _ = tcp.set_zero_linger();
        }
        self.ended =
            Some(if reset { io::ErrorKind::ConnectionReset } else { io::ErrorKind::ConnectionAborted });
    }

    fn tcp(&mut self) -> io::Result<&mut TcpStream> {
        match &mut self.tcp {
            Some(tcp) => Ok(tcp),
            None => Err(self.ended.unwrap_or(io::ErrorKind::NotConnected).into()),
        }
    }
}

fn earlier(one: Option<Closing>, other: Closing) -> Option<Closing> {
    Some(one.filter(|one| one.at <= other.at).unwrap_or(other))
}

impl Link {
    pub(super) fn new(number: u64, tcp: TcpStream, base_latency: Duration) -> Arc<Self> {
        let mut core = Core {
            tcp: Some(tcp),
            applied: Vec::new(),
            base_latency,
            up: Lane::new(number),
            down: Lane::new(!number),
            closing: None,
            slow_close: Duration::ZERO,
            end_at: None,
            end_sent: false,
            released: false,
            ended: None,
        };
        core.refresh();
        Arc::new(Self {
            core: Mutex::new(core),
            reader: AtomicWaker::new(),
            writer: AtomicWaker::new(),
            driver: AtomicWaker::new(),
        })
    }

    pub(super) fn apply(&self, id: FaultId, rule: &Rule) {
        let mut core = self.core();
        let applied = Applied { id, fault: rule.fault.clone(), stream: rule.stream, since: Instant::now() };
        core.applied.push(applied);
        core.refresh();
        drop(core);
        self.wake_all();
    }

    pub(super) fn lift(&self, which: impl Fn(FaultId) -> bool) {
        let mut core = self.core();
        core.applied.retain(|applied| !which(applied.id));
        core.refresh();
        drop(core);
        self.wake_all();
    }

    /// Resets the connection now.
    pub(super) fn reset(&self) {
        self.core().close(true);
        self.wake_all();
    }

    fn core(&self) -> MutexGuard<'_, Core> {
        // Nothing in the critical sections panics between dependent updates.
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake_all(&self) {
        self.reader.wake();
        self.writer.wake();
        self.driver.wake();
    }

    /// Sends what is held back and closes when a rule says so. Returns when the connection is over: closed by a
    /// fault, or released by the mock and everything sent.
    async fn drive(&self) {
        let mut timer: Option<Pin<Box<Sleep>>> = None;
        poll_fn(|cx| {
            self.driver.register(cx.waker());
            loop {
                let wake_at = {
                    let mut core = self.core();
                    match self.step(&mut core, cx) {
                        Step::Over => {
                            drop(core);
                            self.wake_all();
                            return Poll::Ready(());
                        }
                        Step::Wait(wake_at) => wake_at,
                    }
                };
                let Some(wake_at) = wake_at else { return Poll::Pending };
                ready!(poll_at(&mut timer, wake_at, cx));
            }
        })
        .await;
    }

    /// One round of the driver; says when the next is due if nothing else wakes it.
    fn step(&self, core: &mut Core, cx: &mut Context<'_>) -> Step {
        let now = Instant::now();
        if core.tcp.is_none() {
            return Step::Over;
        }
        if let Some(closing) = core.closing.filter(|closing| closing.at <= now) {
            core.close(closing.reset);
            return Step::Over;
        }
        let mut wake_at = core.closing.map(|closing| closing.at);
        let mut sooner = |at: Instant| wake_at = Some(wake_at.map_or(at, |other| other.min(at)));
        match self.drain(core, now, cx) {
            Drained::All => {
                if let Some(end_at) = core.end_at {
                    if end_at > now {
                        sooner(end_at);
                    } else if !core.end_sent {
                        core.end_sent = true;
                        shutdown_write(core);
                    }
                    if core.released && core.end_sent {
                        core.tcp = None;
                        return Step::Over;
                    }
                }
            }
            Drained::Until(at) => sooner(at),
            Drained::Stuck => {}
            Drained::Broken => return Step::Over,
        }
        Step::Wait(wake_at)
    }

    /// Sends from the outgoing lane as much as the rules and the socket allow.
    fn drain(&self, core: &mut Core, now: Instant, cx: &mut Context<'_>) -> Drained {
        loop {
            let count = match core.down.allowed(now) {
                Allowed::Empty => return Drained::All,
                Allowed::Blocked => return Drained::Stuck,
                Allowed::NotBefore(at) => return Drained::Until(at),
                Allowed::Exhausted => {
                    core.close(false);
                    return Drained::Broken;
                }
                Allowed::Bytes(count) => count,
            };
            let Core { tcp: Some(tcp), down, .. } = core else { return Drained::Broken };
            let Some((_, chunk)) = down.held.front() else { return Drained::All };
            match Pin::new(tcp).poll_write(cx, &chunk[..count]) {
                Poll::Pending => return Drained::Stuck,
                Poll::Ready(Ok(written)) => {
                    down.passed(now, written);
                    if matches!(down.shape.limit, Some((_, limit)) if down.counted >= limit) {
                        core.close(false);
                        return Drained::Broken;
                    }
                    self.writer.wake();
                }
                Poll::Ready(Err(error)) => {
                    core.ended = Some(error.kind());
                    core.tcp = None;
                    return Drained::Broken;
                }
            }
        }
    }
}

enum Step {
    Over,
    Wait(Option<Instant>),
}

enum Drained {
    All,
    Until(Instant),
    Stuck,
    Broken,
}

/// Sends FIN. tokio's `poll_shutdown` of a TCP stream never waits, so it needs no real context.
fn shutdown_write(core: &mut Core) {
    if let Some(tcp) = &mut core.tcp {
        let mut cx = Context::from_waker(std::task::Waker::noop());
        // An error means the peer is gone; there is nobody left to tell.
        let _ = Pin::new(tcp).poll_shutdown(&mut cx);
    }
}

/// Polls a timer for `at`, making or moving it as needed.
fn poll_at(timer: &mut Option<Pin<Box<Sleep>>>, at: Instant, cx: &mut Context<'_>) -> Poll<()> {
    let sleep = timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(at)));
    if sleep.deadline() != at {
        sleep.as_mut().reset(at);
    }
    sleep.as_mut().poll(cx)
}

/// The rule list's hold on one connection; dropping it closes the socket whoever else holds the stream.
pub(crate) struct LinkGuard {
    faults: Faults,
    number: u64,
    link: Arc<Link>,
}

impl LinkGuard {
    pub(super) fn new(faults: Faults, number: u64, link: Arc<Link>) -> Self {
        Self { faults, number, link }
    }

    /// The mock's end. Called once per connection.
    pub(crate) fn stream(&self) -> FaultStream {
        FaultStream { link: Arc::clone(&self.link), timer: None }
    }

    /// Runs until the connection is over.
    pub(crate) async fn drive(&self) {
        self.link.drive().await;
    }
}

impl Drop for LinkGuard {
    fn drop(&mut self) {
        self.faults.leave(self.number);
        let mut core = self.link.core();
        if core.tcp.take().is_some() {
            core.ended = Some(io::ErrorKind::ConnectionAborted);
        }
        drop(core);
        self.link.wake_all();
    }
}

/// A TCP connection that obeys the TCP-level faults of its front end, also those added later.
///
/// Without a fault reads and writes go straight to the socket. Under latency a flush does not wait for the peer,
/// as in a real network; writers wait only when [`HELD_BACK_MAX_BYTES`](crate::limits::HELD_BACK_MAX_BYTES) are
/// under way.
pub struct FaultStream {
    link: Arc<Link>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl FaultStream {
    /// The address of the peer.
    ///
    /// # Errors
    /// When the connection is closed.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.link.core().tcp()?.peer_addr()
    }

    /// The address of this end.
    ///
    /// # Errors
    /// When the connection is closed.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.link.core().tcp()?.local_addr()
    }

    /// Ends the connection with RST, as a machine does that has lost its connections.
    pub fn reset(self) {
        self.link.reset();
    }

    /// Copies bytes waiting in the socket without taking them, to tell protocols apart. Meant for the start of a
    /// connection: a disturbed direction is not looked at through its delay.
    ///
    /// # Errors
    /// When the connection is closed.
    pub async fn peek(&self, buf: &mut [u8]) -> io::Result<usize> {
        poll_fn(|cx| {
            self.link.reader.register(cx.waker());
            let mut core = self.link.core();
            let mut peeked = ReadBuf::new(buf);
            core.tcp()?.poll_peek(cx, &mut peeked)
        })
        .await
    }
}

impl AsyncRead for FaultStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        // Registered before the rules are looked at, so that a change in between wakes us.
        this.link.reader.register(cx.waker());
        loop {
            let mut core = this.link.core();
            if core.up.idle() {
                return Pin::new(core.tcp()?).poll_read(cx, buf);
            }
            let now = Instant::now();
            let filled = fill(&mut core, now, cx)?;
            match core.up.allowed(now) {
                Allowed::Bytes(count) => {
                    let count = count.min(buf.remaining());
                    if let Some((_, chunk)) = core.up.held.front() {
                        buf.put_slice(&chunk[..count]);
                    }
                    core.up.passed(now, count);
                    return Poll::Ready(Ok(()));
                }
                Allowed::NotBefore(at) => {
                    drop(core);
                    ready!(poll_at(&mut this.timer, at, cx));
                }
                Allowed::Blocked => return Poll::Pending,
                Allowed::Empty => {
                    return if filled == Filled::End { Poll::Ready(Ok(())) } else { Poll::Pending };
                }
                Allowed::Exhausted => {
                    core.close(false);
                    drop(core);
                    this.link.wake_all();
                    return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
                }
            }
        }
    }
}

#[derive(PartialEq)]
enum Filled {
    Waiting,
    End,
}

/// Takes what has arrived from the socket into the incoming lane.
fn fill(core: &mut Core, now: Instant, cx: &mut Context<'_>) -> io::Result<Filled> {
    let mut space = [0u8; DISTURBED_READ_BYTES];
    loop {
        let room = core.up.room().min(space.len());
        if room == 0 {
            return Ok(Filled::Waiting);
        }
        let mut buf = ReadBuf::new(&mut space[..room]);
        match Pin::new(core.tcp()?).poll_read(cx, &mut buf)? {
            Poll::Pending => return Ok(Filled::Waiting),
            Poll::Ready(()) if buf.filled().is_empty() => return Ok(Filled::End),
            Poll::Ready(()) => core.up.hold(now, buf.filled()),
        }
    }
}

impl AsyncWrite for FaultStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let link = &self.link;
        link.writer.register(cx.waker());
        let mut core = link.core();
        if core.down.idle() {
            return Pin::new(core.tcp()?).poll_write(cx, buf);
        }
        core.tcp()?;
        let count = core.down.room().min(buf.len());
        if count == 0 && !buf.is_empty() {
            return Poll::Pending;
        }
        core.down.hold(Instant::now(), &buf[..count]);
        drop(core);
        link.driver.wake();
        Poll::Ready(Ok(count))
    }

    /// Several pieces in one system call. TLS depends on it: rustls gives its last words (a server hello and the
    /// alert behind it) one chance to be written.
    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut core = self.link.core();
        if core.down.idle() {
            self.link.writer.register(cx.waker());
            return Pin::new(core.tcp()?).poll_write_vectored(cx, bufs);
        }
        drop(core);
        let first = bufs.iter().find(|buf| !buf.is_empty()).map_or(&[][..], |buf| buf);
        self.poll_write(cx, first)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut core = self.link.core();
        if core.down.idle() {
            Pin::new(core.tcp()?).poll_flush(cx)
        } else {
            Poll::Ready(core.tcp().map(|_| ()))
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut core = self.link.core();
        core.tcp()?;
        if core.end_at.is_none() {
            core.end_at = Some(Instant::now() + core.slow_close);
        }
        if core.down.idle() && core.slow_close.is_zero() && !core.end_sent {
            core.end_sent = true;
            shutdown_write(&mut core);
        }
        drop(core);
        self.link.driver.wake();
        Poll::Ready(Ok(()))
    }
}

impl Drop for FaultStream {
    fn drop(&mut self) {
        let mut core = self.link.core();
        core.released = true;
        if core.end_at.is_none() {
            core.end_at = Some(Instant::now() + core.slow_close);
        }
        drop(core);
        self.link.driver.wake();
    }
}
