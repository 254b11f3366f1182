//! The servers of one directory: which there are, which are well, and kept connections to each.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::connection::{Connection, Endpoint};
use super::limits;

/// One server.
pub struct Server {
    endpoint: Endpoint,
    name: Arc<str>,
    circuit: Mutex<Circuit>,
    /// Smoothed time of an answer, in microseconds; 0 for unknown.
    latency_us: AtomicU64,
    pub(super) searches: Arc<Pool>,
    pub(super) binds: Arc<Pool>,
}

/// Whether a server is worth trying.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Circuit {
    /// It is; so many failures in a row.
    Closed { failures: u32 },
    /// It is left alone until then; after that, one probe decides.
    Open { until: Instant },
}

/// What may be done with a server now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// Use it.
    Well,
    /// Somebody should probe it; asking again within the next [`limits::CIRCUIT_OPEN`] answers [`Standing::Failing`].
    Probe,
    /// Only if there is no other.
    Failing,
}

impl Server {
    pub(super) fn new(endpoint: Endpoint) -> Self {
        Self {
            name: endpoint.to_string().into(),
            endpoint,
            circuit: Mutex::new(Circuit::Closed { failures: 0 }),
            latency_us: AtomicU64::new(0),
            searches: Pool::new(limits::SEARCH_CONNECTIONS),
            binds: Pool::new(limits::BIND_CONNECTIONS),
        }
    }

    /// Where it is.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Host and port.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Smoothed time of an answer.
    pub fn latency(&self) -> Option<Duration> {
        match self.latency_us.load(Ordering::Relaxed) {
            0 => None,
            us => Some(Duration::from_micros(us)),
        }
    }

    /// Whether its circuit is closed.
    pub fn is_well(&self) -> bool {
        matches!(*self.circuit(), Circuit::Closed { .. })
    }

    pub(super) fn standing(&self, now: Instant) -> Standing {
        let mut circuit = self.circuit();
        match *circuit {
            Circuit::Closed { .. } => Standing::Well,
            Circuit::Open { until } if until <= now => {
                *circuit = Circuit::Open { until: now + limits::CIRCUIT_OPEN };
                Standing::Probe
            }
            Circuit::Open { .. } => Standing::Failing,
        }
    }

    /// It answered.
    pub(super) fn succeeded(&self, took: Duration) {
        *self.circuit() = Circuit::Closed { failures: 0 };
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX).max(1);
        let before = self.latency_us.load(Ordering::Relaxed);
        let smoothed = if before == 0 { us } else { before - before / 8 + us / 8 };
        self.latency_us.store(smoothed.max(1), Ordering::Relaxed);
    }

    /// It failed in a way that is its own fault.
    pub(super) fn failed(&self, now: Instant) {
        let mut circuit = self.circuit();
        let failures = match *circuit {
            Circuit::Closed { failures } => failures + 1,
            Circuit::Open { .. } => limits::CIRCUIT_FAILURES,
        };
        *circuit = if failures >= limits::CIRCUIT_FAILURES {
            Circuit::Open { until: now + limits::CIRCUIT_OPEN }
        } else {
            Circuit::Closed { failures }
        };
        drop(circuit);
        // What is kept was opened before the failure; none of it can be trusted to be alive.
        self.searches.forget();
        self.binds.forget();
    }

    fn circuit(&self) -> MutexGuard<'_, Circuit> {
        self.circuit.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Connections of one kind to one server, kept for the next user.
pub(super) struct Pool {
    room: Arc<Semaphore>,
    idle: Mutex<Vec<Idle>>,
    generation: AtomicU64,
}

struct Idle {
    connection: Connection,
    since: Instant,
}

impl Pool {
    fn new(size: usize) -> Arc<Self> {
        Arc::new(Self {
            room: Arc::new(Semaphore::new(size)),
            idle: Mutex::new(Vec::new()),
            generation: AtomicU64::new(0),
        })
    }

    /// Waits for room, then gives a kept connection that is still alive, or the right to open one.
    pub(super) async fn enter(self: &Arc<Self>, now: Instant) -> (Option<Connection>, Slot) {
        let permit =
            self.room.clone().acquire_owned().await.expect("the semaphore lives as long as the pool");
        let slot =
            Slot { pool: self.clone(), generation: self.generation.load(Ordering::SeqCst), _permit: permit };
        loop {
            // The youngest first: it is the least likely to have been forgotten by a firewall.
            let Some(mut idle) = self.idle().pop() else { return (None, slot) };
            if now.saturating_duration_since(idle.since) < limits::IDLE_MAX
                && !idle.connection.is_stale().await
            {
                return (Some(idle.connection), slot);
            }
        }
    }

    fn forget(&self) {
        self.generation.fetch_add(1, Ordering::SeqCst);
        self.idle().clear();
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Idle>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The right to have one connection of a pool open.
pub(super) struct Slot {
    pool: Arc<Pool>,
    generation: u64,
    _permit: OwnedSemaphorePermit,
}

/// A connection on loan; goes back to its pool when dropped, if it can be used again.
pub struct Lent {
    connection: Option<Connection>,
    server: Arc<Server>,
    slot: Slot,
}

impl Lent {
    pub(super) fn new(connection: Connection, server: Arc<Server>, slot: Slot) -> Self {
        Self { connection: Some(connection), server, slot }
    }

    /// Whose it is.
    pub fn server(&self) -> &Arc<Server> {
        &self.server
    }
}

impl std::ops::Deref for Lent {
    type Target = Connection;
    fn deref(&self) -> &Connection {
        self.connection.as_ref().expect("taken only when dropped")
    }
}

impl std::ops::DerefMut for Lent {
    fn deref_mut(&mut self) -> &mut Connection {
        self.connection.as_mut().expect("taken only when dropped")
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let Some(connection) = self.connection.take() else { return };
        let pool = &self.slot.pool;
        if connection.is_clean() && pool.generation.load(Ordering::SeqCst) == self.slot.generation {
            pool.idle().push(Idle { connection, since: Instant::now() });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::directory::connection::Security;

    fn server() -> Arc<Server> {
        Arc::new(Server::new(Endpoint { host: "dc1".into(), port: 636, security: Security::Tls }))
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_opens_the_circuit_and_one_probe_follows() {
        let server = server();
        assert_eq!(server.standing(Instant::now()), Standing::Well);
        server.failed(Instant::now());
        assert_eq!(server.standing(Instant::now()), Standing::Failing);
        tokio::time::advance(limits::CIRCUIT_OPEN).await;
        assert_eq!(server.standing(Instant::now()), Standing::Probe);
        assert_eq!(server.standing(Instant::now()), Standing::Failing, "one probe at a time");
        server.succeeded(Duration::from_millis(1));
        assert_eq!(server.standing(Instant::now()), Standing::Well);
    }

    #[tokio::test]
    async fn a_connection_goes_back_only_when_it_is_clean_and_alive() {
        let server = server();
        let lend = |connection: Connection, slot: Slot| Lent::new(connection, server.clone(), slot);
        let (ours, theirs) = tokio::io::duplex(64);
        let (kept, slot) = server.binds.enter(Instant::now()).await;
        assert!(kept.is_none());
        drop(lend(Connection::over("dc1:636".into(), Box::new(ours)), slot));
        let (kept, slot) = server.binds.enter(Instant::now()).await;
        drop(lend(kept.expect("it was clean"), slot));
        drop(theirs);
        let (kept, _slot) = server.binds.enter(Instant::now()).await;
        assert!(kept.is_none(), "the peer has closed it");
    }

    #[tokio::test]
    async fn a_failure_of_the_server_forgets_what_was_kept_and_lent() {
        let server = server();
        let (ours, _theirs) = tokio::io::duplex(64);
        let (_, slot) = server.binds.enter(Instant::now()).await;
        let lent = Lent::new(Connection::over("dc1:636".into(), Box::new(ours)), server.clone(), slot);
        server.failed(Instant::now());
        drop(lent);
        assert!(server.binds.enter(Instant::now()).await.0.is_none());
    }
}
