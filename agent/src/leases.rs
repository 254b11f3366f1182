//! Leases: being the one collector of a resource. The holder counts from before it asked, by its own monotonic clock,
//! and stops a margin earlier than the cloud would hand the lease on.

use std::time::Duration;

use causeway_protocol::channel::backoff::spread;
use causeway_protocol::channel::payload::{Lease, LeaseGrant, LeaseOp};
use causeway_protocol::limits::{LEASE_MARGIN, LEASE_RENEW_EVERY};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::channel::{Channel, IqError};
use crate::clock::Clock;
use crate::limits::{LEASE_ASK_FROM, LEASE_ASK_TO, LEASE_RETRY_AFTER};
use crate::link::{LeaseGuard, LinkError};
use crate::random::RandomSource;

/// Gets and keeps leases. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Leases {
    pub(crate) channel: Channel,
    pub(crate) clock: Clock,
    pub(crate) random: RandomSource,
    pub(crate) stop: CancellationToken,
    /// Changes when time did not pass as it should: a holder that slept cannot know whether its lease lived on.
    pub(crate) jumps: watch::Receiver<u64>,
}

impl Leases {
    /// Waits until the lease is ours.
    pub(crate) async fn acquire(&self, resource: &str) -> Result<LeaseGuard, LinkError> {
        loop {
            let wait = tokio::select! {
                biased;
                () = self.stop.cancelled() => return Err(LinkError::Stopping),
                got = self.try_acquire(resource) => match got? {
                    Ok(guard) => return Ok(guard),
                    Err(wait) => wait,
                },
            };
            let wait = wait.clamp(LEASE_ASK_FROM, LEASE_ASK_TO);
            let wait = wait + spread(wait / 4, self.random.next_u64());
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return Err(LinkError::Stopping),
                () = self.clock.sleep(wait) => {}
            }
        }
    }

    /// One attempt: the guard, or how long to wait.
    async fn try_acquire(&self, resource: &str) -> Result<Result<LeaseGuard, Duration>, LinkError> {
        self.channel.wait_online().await.map_err(|_| LinkError::Stopping)?;
        let asked = self.clock.now();
        let grant = match self.ask(resource, LeaseOp::Acquire, None).await {
            Ok(grant) => grant,
            Err(error) => {
                tracing::debug!(resource, %error, "A lease could not be asked for");
                return Ok(Err(LEASE_RETRY_AFTER));
            }
        };
        if !grant.granted {
            tracing::debug!(resource, holder = grant.holder, "Another agent holds the lease");
            return Ok(Err(Duration::from_millis(grant.retry_after_ms)));
        }
        let (lost, returned) = (CancellationToken::new(), CancellationToken::new());
        tracing::info!(resource, fence = grant.fence, "Lease held");
        let guard = LeaseGuard::new(resource.to_owned(), grant.fence, lost.clone(), returned.clone());
        let keeper = Keeper {
            leases: self.clone(),
            resource: resource.to_owned(),
            fence: grant.fence,
            lost,
            returned,
        };
        tokio::spawn(keeper.keep(asked, grant.ttl_ms));
        Ok(Ok(guard))
    }

    async fn ask(&self, resource: &str, op: LeaseOp, fence: Option<u64>) -> Result<LeaseGrant, IqError> {
        self.channel.ask_for(&Lease { resource: resource.to_owned(), op, fence }).await
    }
}

struct Keeper {
    leases: Leases,
    resource: String,
    fence: u64,
    lost: CancellationToken,
    returned: CancellationToken,
}

impl Keeper {
    async fn keep(self, asked: Instant, ttl_ms: u64) {
        let mut jumps = self.leases.jumps.clone();
        jumps.mark_unchanged();
        let mut ttl = Duration::from_millis(ttl_ms);
        let mut ends = asked + ttl - margin(ttl);
        let mut next = asked + period(ttl);
        loop {
            let sure = tokio::select! {
                biased;
                () = self.returned.cancelled() => return self.give_back().await,
                () = self.leases.stop.cancelled() => return self.give_back().await,
                Ok(()) = jumps.changed() => Err("this machine slept, or its clock was set"),
                () = sleep_until(ends) => Err("it could not be renewed in time"),
                () = sleep_until(next) => Ok(()),
            };
            let renewed = match sure {
                Ok(()) => self.renew(ends).await,
                Err(reason) => Err(reason),
            };
            match renewed {
                Ok(Some((asked, granted))) => {
                    ttl = granted;
                    ends = asked + ttl - margin(ttl);
                    next = asked + period(ttl);
                }
                Ok(None) => next = self.leases.clock.now() + period(ttl).min(LEASE_RETRY_AFTER),
                Err(reason) => {
                    tracing::warn!(
                        resource = self.resource,
                        fence = self.fence,
                        error = reason,
                        "Lease lost"
                    );
                    return self.lost.cancel();
                }
            }
        }
    }

    /// `None` when it is unknown whether the cloud renewed.
    async fn renew(&self, ends: Instant) -> Result<Option<(Instant, Duration)>, &'static str> {
        let asked = self.leases.clock.now();
        let ask = self.leases.ask(&self.resource, LeaseOp::Renew, Some(self.fence));
        let answer = tokio::select! {
            biased;
            () = self.returned.cancelled() => return Ok(None),
            () = sleep_until(ends) => return Err("it could not be renewed in time"),
            answer = ask => answer,
        };
        match answer {
            Ok(grant) if grant.granted && grant.fence == self.fence => {
                Ok(Some((asked, Duration::from_millis(grant.ttl_ms))))
            }
            Ok(_) => Err("the cloud has given it to another agent"),
            Err(error) => {
                tracing::debug!(resource = self.resource, %error, "A lease could not be renewed yet");
                Ok(None)
            }
        }
    }

    async fn give_back(self) {
        self.lost.cancel();
        let answer = self.leases.ask(&self.resource, LeaseOp::Release, Some(self.fence)).await;
        if let Err(error) = answer {
            tracing::debug!(resource = self.resource, %error, "A lease could not be returned; it will end by itself");
        }
    }
}

/// A lease shorter than usual (in tests) has a shorter margin.
fn margin(ttl: Duration) -> Duration {
    LEASE_MARGIN.min(ttl / 6)
}

fn period(ttl: Duration) -> Duration {
    LEASE_RENEW_EVERY.min(ttl / 4)
}
