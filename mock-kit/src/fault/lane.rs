//! What TCP-level rules make of one direction of a connection.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::time::Instant;

use super::{Fault, FaultId, Stream};
use crate::limits::{BANDWIDTH_SLICES_PER_SEC, HELD_BACK_MAX_BYTES};
use crate::world::SplitMix64;

pub(super) struct Applied {
    pub(super) id: FaultId,
    pub(super) fault: Fault,
    pub(super) stream: Stream,
    pub(super) since: Instant,
}

/// What the rules say about one direction.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Shape {
    pub(super) latency: Duration,
    pub(super) jitter_ms: u64,
    pub(super) rate_bytes_per_sec: Option<u64>,
    pub(super) slice: Option<(usize, Duration)>,
    pub(super) limit: Option<(FaultId, u64)>,
    pub(super) blocked: bool,
}

/// One direction of a disturbed connection: what is held back, and when it may go.
pub(super) struct Lane {
    pub(super) shape: Shape,
    pub(super) held: VecDeque<(Instant, BytesMut)>,
    pub(super) held_bytes: usize,
    pub(super) next_at: Option<Instant>,
    pub(super) last_due: Option<Instant>,
    /// Bytes passed since the rule in `shape.limit` met this connection.
    pub(super) counted: u64,
    pub(super) jitter: SplitMix64,
}

/// What a lane would let pass now.
pub(super) enum Allowed {
    /// Up to so many bytes of the oldest chunk.
    Bytes(usize),
    /// Nothing before this instant.
    NotBefore(Instant),
    /// Nothing until a rule changes.
    Blocked,
    /// Nothing is held back.
    Empty,
    /// The limit is used up.
    Exhausted,
}

impl Lane {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            shape: Shape::default(),
            held: VecDeque::new(),
            held_bytes: 0,
            next_at: None,
            last_due: None,
            counted: 0,
            jitter: SplitMix64::new(seed),
        }
    }

    /// True when data may bypass the lane.
    pub(super) fn idle(&self) -> bool {
        self.held.is_empty() && self.shape == Shape::default()
    }

    pub(super) fn reshape(&mut self, shape: Shape) {
        if shape.limit.map(|(id, _)| id) != self.shape.limit.map(|(id, _)| id) {
            self.counted = 0;
        }
        self.shape = shape;
    }

    pub(super) fn room(&self) -> usize {
        HELD_BACK_MAX_BYTES.saturating_sub(self.held_bytes)
    }

    pub(super) fn hold(&mut self, now: Instant, bytes: &[u8]) {
        let jitter_ms = match self.shape.jitter_ms {
            0 => 0,
            most => self.jitter.below(most + 1),
        };
        let due = now + self.shape.latency + Duration::from_millis(jitter_ms);
        // Jitter must not reorder: TCP delivers in order.
        let due = self.last_due.map_or(due, |last| due.max(last));
        self.last_due = Some(due);
        self.held_bytes += bytes.len();
        self.held.push_back((due, BytesMut::from(bytes)));
    }

    pub(super) fn allowed(&self, now: Instant) -> Allowed {
        let Some((due, chunk)) = self.held.front() else { return Allowed::Empty };
        if self.shape.blocked || self.shape.rate_bytes_per_sec == Some(0) {
            return Allowed::Blocked;
        }
        let at = self.next_at.map_or(*due, |next| next.max(*due));
        if at > now {
            return Allowed::NotBefore(at);
        }
        let mut most = chunk.len();
        if let Some((_, limit)) = self.shape.limit {
            let left = limit.saturating_sub(self.counted);
            if left == 0 {
                return Allowed::Exhausted;
            }
            most = most.min(usize::try_from(left).unwrap_or(usize::MAX));
        }
        if let Some(rate) = self.shape.rate_bytes_per_sec {
            most = most.min(usize::try_from((rate / BANDWIDTH_SLICES_PER_SEC).max(1)).unwrap_or(usize::MAX));
        }
        if let Some((size, _)) = self.shape.slice {
            most = most.min(size);
        }
        Allowed::Bytes(most)
    }

    /// Notes that `count` bytes of the oldest chunk passed.
    pub(super) fn passed(&mut self, now: Instant, count: usize) {
        if let Some((_, chunk)) = self.held.front_mut() {
            chunk.advance(count);
            if chunk.is_empty() {
                self.held.pop_front();
            }
        }
        self.held_bytes -= count;
        self.counted += count as u64;
        let mut pause = self.shape.slice.map_or(Duration::ZERO, |(_, delay)| delay);
        if let Some(rate) = self.shape.rate_bytes_per_sec.filter(|rate| *rate > 0) {
            pause = pause.max(Duration::from_micros((count as u64).saturating_mul(1_000_000) / rate));
        }
        self.next_at = (!pause.is_zero()).then(|| now + pause);
    }
}

impl Shape {
    pub(super) fn add(&mut self, applied: &Applied) {
        match applied.fault {
            Fault::Latency { ms, jitter_ms } => {
                (self.latency, self.jitter_ms) = (Duration::from_millis(ms), jitter_ms);
            }
            Fault::Bandwidth { rate_kib_s } => {
                self.rate_bytes_per_sec = Some(rate_kib_s.saturating_mul(1_024))
            }
            Fault::Timeout { .. } => self.blocked = true,
            Fault::Slicer { size_average, delay_us } => {
                let size = usize::try_from(size_average.max(1)).unwrap_or(usize::MAX);
                self.slice = Some((size, Duration::from_micros(delay_us)));
            }
            Fault::LimitData { bytes } => self.limit = Some((applied.id, bytes)),
            _ => {}
        }
    }
}
