//! Names to addresses: the system's resolver, or the name servers of agent.toml.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::RData;
use hickory_resolver::{Resolver, TokioResolver};
use tokio::time::timeout;

use super::{DialError, Service};
use crate::limits::RESOLVE_WITHIN;
use crate::random::RandomSource;

/// Looks names up.
#[derive(Clone)]
pub struct Names {
    resolver: Arc<TokioResolver>,
    random: RandomSource,
}

impl Names {
    /// Asks `servers`, or whom the system asks when there are none.
    ///
    /// # Errors
    /// When the system's resolver settings cannot be read.
    pub fn new(servers: &[SocketAddr], random: RandomSource) -> Result<Self, NetError> {
        let mut builder = if servers.is_empty() {
            TokioResolver::builder_tokio()?
        } else {
            let servers = servers.iter().map(|server| name_server(*server)).collect();
            let config = ResolverConfig::from_parts(None, Vec::new(), servers);
            Resolver::builder_with_config(config, TokioRuntimeProvider::default())
        };
        builder.options_mut().attempts = 2;
        builder.options_mut().timeout = RESOLVE_WITHIN / 2;
        Ok(Self { resolver: Arc::new(builder.build()?), random })
    }

    /// Whether the name servers answer at all; that they know the name is another matter.
    ///
    /// # Errors
    /// When they are silent or fail.
    pub(crate) async fn answers(&self, name: &str) -> Result<(), DialError> {
        // A host given by its address needs no name; the root of the name space exists everywhere.
        let name = if name.parse::<IpAddr>().is_ok() { "." } else { name };
        match timeout(RESOLVE_WITHIN, self.resolver.lookup_ip(name)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) if error.is_no_records_found() => Ok(()),
            Ok(Err(error)) => Err(failed(name, error.into())),
            Err(_) => Err(failed(name, "the name server does not answer".into())),
        }
    }

    /// Addresses of a host; an address is its own answer.
    pub(super) async fn addresses(&self, host: &str) -> Result<Vec<IpAddr>, DialError> {
        if let Ok(address) = host.parse() {
            return Ok(vec![address]);
        }
        let found = match timeout(RESOLVE_WITHIN, self.resolver.lookup_ip(host)).await {
            Ok(Ok(found)) => found,
            Ok(Err(error)) if error.is_no_records_found() => {
                return Err(DialError::NoRecord { host: host.to_owned(), kind: "A/AAAA" });
            }
            Ok(Err(error)) => return Err(failed(host, error.into())),
            Err(_) => return Err(failed(host, "the name servers do not answer".into())),
        };
        Ok(found.iter().collect())
    }

    /// Service records in the order to try them.
    pub(super) async fn services(&self, name: &str) -> Result<Vec<Service>, DialError> {
        let found = match timeout(RESOLVE_WITHIN, self.resolver.srv_lookup(name)).await {
            Ok(Ok(found)) => found,
            Ok(Err(error)) if error.is_no_records_found() => {
                return Err(DialError::NoRecord { host: name.to_owned(), kind: "SRV" });
            }
            Ok(Err(error)) => return Err(failed(name, error.into())),
            Err(_) => return Err(failed(name, "the name servers do not answer".into())),
        };
        let services = found
            .answers()
            .iter()
            .filter_map(|record| match &record.data {
                RData::SRV(srv) => Some(Service {
                    host: srv.target.to_utf8().trim_end_matches('.').to_owned(),
                    port: srv.port,
                    priority: srv.priority,
                    weight: srv.weight,
                }),
                _ => None,
            })
            // A single record with the root as its target says "not offered here" (RFC 2782).
            .filter(|service| !service.host.is_empty())
            .collect();
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

fn name_server(address: SocketAddr) -> NameServerConfig {
    let mut udp = ConnectionConfig::udp();
    udp.port = address.port();
    let mut tcp = ConnectionConfig::tcp();
    tcp.port = address.port();
    let mut server = NameServerConfig::udp_and_tcp(address.ip());
    server.connections = vec![udp, tcp];
    server
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
