//! Names to addresses: the system's resolver, or the name servers of agent.toml.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use tokio::time::timeout;

use super::dns::{DnsError, Stub};
use super::{DialError, Service};
use crate::limits::RESOLVE_WITHIN;
use crate::random::RandomSource;

/// Looks names up.
#[derive(Clone)]
pub struct Names {
    stub: Arc<Stub>,
    random: RandomSource,
}

impl Names {
    /// Asks `servers`, or whom the system asks when there are none.
    ///
    /// # Errors
    /// When the system's resolver settings cannot be read.
    pub fn new(servers: &[SocketAddr], random: RandomSource) -> io::Result<Self> {
        Ok(Self { stub: Arc::new(Stub::new(servers, random.clone())?), random })
    }

    /// Whether the name servers answer at all; that they know the name is another matter.
    ///
    /// # Errors
    /// When they are silent or fail.
    pub(crate) async fn answers(&self, name: &str) -> Result<(), DialError> {
        // A host given by its address needs no name; the root of the name space exists everywhere.
        let name = if name.parse::<IpAddr>().is_ok() { "." } else { name };
        within(name, "A", self.stub.answers(name)).await
    }

    /// Addresses of a host; an address is its own answer.
    pub(super) async fn addresses(&self, host: &str) -> Result<Vec<IpAddr>, DialError> {
        if let Ok(address) = host.parse() {
            return Ok(vec![address]);
        }
        within(host, "A/AAAA", self.stub.addresses(host)).await
    }

    /// Service records in the order to try them.
    pub(super) async fn services(&self, name: &str) -> Result<Vec<Service>, DialError> {
        let mut services = within(name, "SRV", self.stub.services(name)).await?;
        // A single record with the root as its target says "not offered here" (RFC 2782).
        services.retain(|service| !service.host.is_empty());
        Ok(order(services, &self.random))
    }
}

/// RFC 2782: lower priority first; among equals a weighted draw decides each place.
pub fn order(mut services: Vec<Service>, random: &RandomSource) -> Vec<Service> {
    services.sort_by(|a, b| (a.priority, a.weight, &a.host).cmp(&(b.priority, b.weight, &b.host)));
    let mut ordered = Vec::with_capacity(services.len());
    while !services.is_empty() {
        let priority = services[0].priority;
        let equals = services.iter().take_while(|service| service.priority == priority).count();
        let total: u64 = services[..equals].iter().map(|service| u64::from(service.weight)).sum();
        let mut draw = random.next_u64() % (total + 1);
        let chosen = services[..equals]
            .iter()
            .position(|service| {
                let hit = draw <= u64::from(service.weight);
                draw = draw.saturating_sub(u64::from(service.weight));
                hit
            })
            .unwrap_or(0);
        ordered.push(services.remove(chosen));
    }
    ordered
}

/// Waits for an answer and says whose fault it is when there is none.
async fn within<T>(
    name: &str,
    kind: &'static str,
    asked: impl Future<Output = Result<T, DnsError>>,
) -> Result<T, DialError> {
    match timeout(RESOLVE_WITHIN, asked).await {
        Ok(Ok(found)) => Ok(found),
        Ok(Err(DnsError::NoRecord)) => Err(DialError::NoRecord { host: name.to_owned(), kind }),
        Ok(Err(error)) => Err(failed(name, error.into())),
        Err(_) => Err(failed(name, "the name servers do not answer".into())),
    }
}

fn failed(host: &str, source: Box<dyn std::error::Error + Send + Sync>) -> DialError {
    DialError::Resolve { host: host.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(host: &str, priority: u16, weight: u16) -> Service {
        Service { host: host.into(), port: 636, priority, weight }
    }

    #[test]
    fn priorities_come_first_and_weights_share() {
        let random = RandomSource::seeded(1);
        let mut first = [0u32; 2];
        for _ in 0..1_000 {
            let ordered = order(vec![service("c", 2, 0), service("a", 1, 10), service("b", 1, 90)], &random);
            assert_eq!(ordered.len(), 3);
            assert_eq!(ordered[2].host, "c");
            first[usize::from(ordered[0].host == "b")] += 1;
        }
        assert!((50..200).contains(&first[0]), "a of weight 10 came first {} times of 1000", first[0]);
    }
}
