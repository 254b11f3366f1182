//! Stream management (XEP-0198): which stanzas the other end has, and how many of its own we have handled.
//!
//! "Handled" means durably accepted, so a stanza is handled in two steps: [`StreamManagement::received`] when it
//! arrives, [`StreamManagement::handled`] when what it asks for is committed. Commits may finish in any order; the
//! counter we report only ever covers an unbroken run from the first.

use std::collections::VecDeque;

use thiserror::Error;

use crate::limits::{ACK_EVERY, UNACKED_MAX};

/// One end's counters and the stanzas the other end has not acknowledged. `S` is whatever can be sent again.
#[derive(Debug)]
pub struct StreamManagement<S> {
    /// Stanzas the peer has acknowledged, modulo 2^32 (§4).
    acked: u32,
    unacked: VecDeque<S>,
    unacked_max: usize,
    /// Stanzas sent since we last asked for an acknowledgement.
    since_request: usize,
    /// Stanzas of the peer handled in an unbroken run, modulo 2^32.
    handled: u32,
    /// Stanzas received after that run: whether each is handled already.
    open: VecDeque<bool>,
}

/// Names one received stanza until it is handled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket(u32);

/// What the peer got wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SmError {
    /// It acknowledges stanzas that were never sent (§4: stream error with `handled-count-too-high`).
    #[error("peer acknowledges {h} stanzas, {sent} were sent")]
    HandledCountTooHigh {
        /// What the peer claims.
        h: u32,
        /// What was sent.
        sent: u32,
    },
}

/// The peer acknowledges too slowly; nothing more may be sent until it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("{0} stanzas are sent and not acknowledged")]
pub struct Backlog(pub usize);

impl<S> Default for StreamManagement<S> {
    fn default() -> Self {
        Self::with_limit(UNACKED_MAX)
    }
}

impl<S> StreamManagement<S> {
    /// Counters at zero, as after `<enabled/>`; at most `unacked_max` stanzas are kept.
    pub fn with_limit(unacked_max: usize) -> Self {
        Self {
            acked: 0,
            unacked: VecDeque::new(),
            unacked_max,
            since_request: 0,
            handled: 0,
            open: VecDeque::new(),
        }
    }

    /// Whether another stanza may be sent.
    pub fn has_room(&self) -> bool {
        self.unacked.len() < self.unacked_max
    }

    /// A stanza goes out. Returns whether an acknowledgement should be asked for behind it.
    ///
    /// # Errors
    /// [`Backlog`] at the limit; the stanza is not counted and must not be sent.
    pub fn sent(&mut self, stanza: S) -> Result<bool, Backlog> {
        if !self.has_room() {
            return Err(Backlog(self.unacked.len()));
        }
        self.unacked.push_back(stanza);
        self.since_request += 1;
        let ask = self.since_request >= ACK_EVERY;
        if ask {
            self.since_request = 0;
        }
        Ok(ask)
    }

    /// `<r/>` was sent for another reason (time, liveness).
    pub fn requested(&mut self) {
        self.since_request = 0;
    }

    /// Stanzas sent and not acknowledged.
    pub fn unacked(&self) -> usize {
        self.unacked.len()
    }

    /// The peer has handled `h` stanzas. Returns those it newly has.
    ///
    /// # Errors
    /// When it claims more than were sent.
    pub fn acked(&mut self, h: u32) -> Result<Vec<S>, SmError> {
        // Counters wrap (§4), so the distance is what counts, and only a small one can be true.
        let newly = h.wrapping_sub(self.acked) as usize;
        if newly > self.unacked.len() {
            let sent = self.acked.wrapping_add(self.unacked.len() as u32);
            return Err(SmError::HandledCountTooHigh { h, sent });
        }
        self.acked = h;
        Ok(self.unacked.drain(..newly).collect())
    }

    /// A stanza arrived.
    pub fn received(&mut self) -> Ticket {
        let number = self.handled.wrapping_add(self.open.len() as u32);
        self.open.push_back(false);
        Ticket(number)
    }

    /// What the stanza asked for is durably accepted. Doing it twice changes nothing.
    pub fn handled(&mut self, ticket: Ticket) {
        let index = ticket.0.wrapping_sub(self.handled) as usize;
        if let Some(done) = self.open.get_mut(index) {
            *done = true;
        }
        while self.open.front() == Some(&true) {
            self.open.pop_front();
            self.handled = self.handled.wrapping_add(1);
        }
    }

    /// The number to report in `<a/>`, `<resume/>`, `<resumed/>` and `<failed/>`.
    pub fn h(&self) -> u32 {
        self.handled
    }

    /// Stanzas received and not yet handled.
    pub fn open(&self) -> usize {
        self.open.len()
    }

    /// The session is resumed: the peer has handled `h`, and what it has not must be sent again, in order; it stays
    /// unacknowledged here. What we received but had not handled the peer will send again, so it is forgotten.
    ///
    /// # Errors
    /// When the peer claims more than was sent.
    pub fn resumed(&mut self, h: u32) -> Result<impl Iterator<Item = &S>, SmError> {
        self.acked(h)?;
        self.open.clear();
        self.since_request = 0;
        Ok(self.unacked.iter())
    }

    /// The session is lost: what the peer may not have, for the layer above to decide about.
    pub fn into_unacked(self) -> Vec<S> {
        self.unacked.into()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn acknowledgements_release_in_order() {
        let mut sm = StreamManagement::default();
        for n in 0..5 {
            sm.sent(n).unwrap();
        }
        assert_eq!(sm.acked(2).unwrap(), [0, 1]);
        assert_eq!(sm.acked(2).unwrap(), [] as [i32; 0]);
        assert_eq!(sm.acked(6), Err(SmError::HandledCountTooHigh { h: 6, sent: 5 }));
        assert_eq!(sm.acked(1), Err(SmError::HandledCountTooHigh { h: 1, sent: 5 }));
        assert_eq!(sm.resumed(3).unwrap().copied().collect::<Vec<_>>(), [3, 4]);
        assert_eq!(sm.into_unacked(), [3, 4]);
    }

    #[test]
    fn counters_wrap() {
        let mut sm =
            StreamManagement { acked: u32::MAX - 1, handled: u32::MAX, ..StreamManagement::default() };
        for n in 0..3 {
            sm.sent(n).unwrap();
        }
        assert_eq!(sm.acked(0).unwrap(), [0, 1]);
        let (first, second) = (sm.received(), sm.received());
        sm.handled(second);
        assert_eq!(sm.h(), u32::MAX);
        sm.handled(first);
        assert_eq!(sm.h(), 1);
    }

    #[test]
    fn a_full_queue_refuses_instead_of_growing() {
        let mut sm = StreamManagement::with_limit(2);
        assert_eq!((sm.sent('a'), sm.sent('b'), sm.sent('c')), (Ok(false), Ok(false), Err(Backlog(2))));
        sm.acked(1).unwrap();
        assert!(sm.has_room());
    }

    #[test]
    fn an_acknowledgement_is_asked_for_every_ten() {
        let mut sm = StreamManagement::default();
        let asked: Vec<usize> = (1..=25).filter(|n| sm.sent(*n).unwrap()).collect();
        assert_eq!(asked, [10, 20]);
    }

    proptest! {
        /// Whatever order commits finish in, `h` never covers a stanza that is not handled.
        #[test]
        fn h_covers_only_handled_stanzas(order in Just((0..20usize).collect::<Vec<_>>()).prop_shuffle()) {
            let mut sm = StreamManagement::<()>::default();
            let tickets: Vec<Ticket> = (0..20).map(|_| sm.received()).collect();
            let mut done = [false; 20];
            for index in order {
                sm.handled(tickets[index]);
                done[index] = true;
                let run = done.iter().take_while(|d| **d).count();
                prop_assert_eq!(sm.h() as usize, run);
            }
            prop_assert_eq!(sm.open(), 0);
        }
    }
}
