//! Our own resolver: A, AAAA and SRV records over UDP and TCP from the machine's name servers, or from given ones.
//!
//! A recursive server does the work; here is who is asked when, what counts as its answer and how long that is remembered.
//! The system's own functions would give addresses without the reason why there are none, and no SRV records on most
//! systems; a general library brings ten times the code (docs/benchmarks.md, what the size is made of).

pub(crate) mod system;
mod wire;

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use thiserror::Error;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::{Instant, sleep_until, timeout};

use self::system::{Hosts, Settings};
use self::wire::{Answer, Data, Found, Kind, NoName, WireError};
use super::Service;
use crate::limits::{
    DNS_ALIASES_MAX, DNS_ANSWER_HOLDS_MAX, DNS_ATTEMPTS, DNS_CACHE_MAX, DNS_DATAGRAM_MAX_BYTES,
    DNS_NEXT_SERVER_AFTER, DNS_SETTINGS_HOLD, RESOLVE_WITHIN,
};
use crate::platform;
use crate::random::RandomSource;

/// Why there is no answer.
#[derive(Clone, Debug, Error)]
pub(super) enum DnsError {
    /// It exists as little as anything of this kind under it.
    #[error("there is no such record")]
    NoRecord,
    #[error("{0:?} is no name of DNS")]
    NotAName(String),
    #[error("no name server is set")]
    NoServers,
    #[error("the name server {0} does not answer")]
    Silent(SocketAddr),
    #[error("the name server {server}: {reason}")]
    Unusable { server: SocketAddr, reason: String },
}

/// Asks name servers and remembers what they said.
pub(super) struct Stub {
    /// Given by agent.toml; empty for the machine's own.
    given: Vec<SocketAddr>,
    random: RandomSource,
    machine: Mutex<(Instant, Arc<Machine>)>,
    known: Mutex<HashMap<(String, Kind), Known>>,
}

/// Until when an answer holds, and what it is; none says that there is nothing.
type Known = (Instant, Option<Vec<Data>>);

/// What this machine is set to.
struct Machine {
    settings: Settings,
    hosts: Hosts,
}

impl Machine {
    fn read(given: &[SocketAddr]) -> io::Result<Self> {
        let settings = if given.is_empty() {
            platform::name_servers()?
        } else {
            Settings { servers: given.to_vec(), ..Settings::default() }
        };
        Ok(Self { settings, hosts: Hosts::parse(&platform::hosts().unwrap_or_default()) })
    }
}

impl Stub {
    /// Asks `given`, or whom the system asks when there are none.
    pub(super) fn new(given: &[SocketAddr], random: RandomSource) -> io::Result<Self> {
        let machine = Arc::new(Machine::read(given)?);
        Ok(Self {
            given: given.to_vec(),
            random,
            machine: Mutex::new((Instant::now(), machine)),
            known: Mutex::default(),
        })
    }

    /// Addresses of a host, those of IPv6 first.
    pub(super) async fn addresses(&self, host: &str) -> Result<Vec<IpAddr>, DnsError> {
        let ascii = ascii(host)?;
        let plain = ascii.trim_end_matches('.');
        let machine = self.machine();
        let Machine { settings, hosts } = &*machine;
        let own = hosts.addresses(plain);
        if !own.is_empty() {
            return Ok(own);
        }
        // RFC 6761 §6.3: these never leave the machine.
        if plain.eq_ignore_ascii_case("localhost") || plain.to_ascii_lowercase().ends_with(".localhost") {
            return Ok(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]);
        }
        let mut failure = DnsError::NoRecord;
        for name in settings.candidates(&ascii) {
            let (six, four) = tokio::join!(
                self.records(settings, &name, Kind::Aaaa),
                self.records(settings, &name, Kind::A)
            );
            let mut addresses = Vec::new();
            for answer in [six, four] {
                match answer {
                    Ok(records) => addresses.extend(records.iter().filter_map(|data| match data {
                        Data::Address(address) => Some(*address),
                        Data::Service { .. } => None,
                    })),
                    Err(DnsError::NoRecord) => {}
                    Err(error) => failure = error,
                }
            }
            if !addresses.is_empty() {
                return Ok(addresses);
            }
        }
        Err(failure)
    }

    /// Whether a server answers at all, be it that there is nothing.
    pub(super) async fn answers(&self, name: &str) -> Result<(), DnsError> {
        match self.records(&self.machine().settings, ascii(name)?.trim_end_matches('.'), Kind::A).await {
            Ok(_) | Err(DnsError::NoRecord) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Service records under a full name, as they came.
    pub(super) async fn services(&self, name: &str) -> Result<Vec<Service>, DnsError> {
        let records =
            self.records(&self.machine().settings, ascii(name)?.trim_end_matches('.'), Kind::Srv).await?;
        let service = |data| match data {
            Data::Service { priority, weight, port, host } => Some(Service { host, port, priority, weight }),
            Data::Address(_) => None,
        };
        Ok(records.into_iter().filter_map(service).collect())
    }

    /// Read again after a while: machines change networks. What cannot be read stays as it was.
    fn machine(&self) -> Arc<Machine> {
        let mut machine = self.machine.lock().unwrap_or_else(PoisonError::into_inner);
        if machine.0.elapsed() >= DNS_SETTINGS_HOLD {
            let read = Machine::read(&self.given).map_or_else(|_| machine.1.clone(), Arc::new);
            *machine = (Instant::now(), read);
        }
        machine.1.clone()
    }

    async fn records(&self, settings: &Settings, name: &str, kind: Kind) -> Result<Vec<Data>, DnsError> {
        let key = (name.to_ascii_lowercase(), kind);
        if let Some(known) = self.known(&key) {
            return known.ok_or(DnsError::NoRecord);
        }
        let mut holds = DNS_ANSWER_HOLDS_MAX;
        let mut current = name.to_owned();
        for _ in 0..=DNS_ALIASES_MAX {
            let answer = self.ask_servers(&settings.servers, &current, kind).await?;
            holds = holds.min(answer.holds);
            let records = match answer.found {
                Found::Records(records) => Some(records),
                Found::Nothing => None,
                Found::Alias(target) => {
                    current = target;
                    continue;
                }
            };
            self.remember(key, holds, records.clone());
            return records.ok_or(DnsError::NoRecord);
        }
        Err(DnsError::NoRecord)
    }

    fn known(&self, key: &(String, Kind)) -> Option<Option<Vec<Data>>> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(key).filter(|(until, _)| *until > Instant::now()).map(|(_, records)| records.clone())
    }

    fn remember(&self, key: (String, Kind), holds: Duration, records: Option<Vec<Data>>) {
        let now = Instant::now();
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= DNS_CACHE_MAX {
            known.retain(|_, (until, _)| *until > now);
        }
        // Full of what still holds: whoever asks for so many names gains nothing by remembering.
        if known.len() >= DNS_CACHE_MAX {
            known.clear();
        }
        known.insert(key, (now + holds, records));
    }

    /// The first answer. A server that fails is followed by the next one at once, a silent one after a while; it may
    /// still come first.
    async fn ask_servers(&self, servers: &[SocketAddr], name: &str, kind: Kind) -> Result<Answer, DnsError> {
        let mut turns = servers.iter().cycle().take(servers.len() * DNS_ATTEMPTS);
        let mut running = FuturesUnordered::new();
        let mut failure = DnsError::NoServers;
        let mut next = turns.next();
        loop {
            let Some(server) = next.take() else {
                match running.next().await {
                    Some(Ok(answer)) => return Ok(answer),
                    Some(Err(error)) => failure = error,
                    None => return Err(failure),
                }
                continue;
            };
            running.push(self.ask(*server, name, kind));
            let patience = sleep_until(Instant::now() + DNS_NEXT_SERVER_AFTER);
            tokio::select! {
                Some(result) = running.next() => match result {
                    Ok(answer) => return Ok(answer),
                    Err(error @ DnsError::NotAName(_)) => return Err(error),
                    Err(error) => failure = error,
                },
                () = patience => {}
            }
            next = turns.next();
        }
    }

    async fn ask(&self, server: SocketAddr, name: &str, kind: Kind) -> Result<Answer, DnsError> {
        // Besides the port, which the system draws, what a forger would have to guess.
        let [high, low, ..] = self.random.next_u64().to_be_bytes();
        let id = u16::from_be_bytes([high, low]);
        let question =
            wire::question(id, name, kind).map_err(|NoName| DnsError::NotAName(name.to_owned()))?;
        let unusable = |reason: String| DnsError::Unusable { server, reason };
        let read = |message: &[u8]| wire::answer(message, id, name, kind);
        let talk = async {
            match over_udp(server, &question, read).await.map_err(|error| unusable(error.to_string()))? {
                Err(WireError::Truncated) => {
                    let message =
                        over_tcp(server, &question).await.map_err(|error| unusable(error.to_string()))?;
                    read(&message).map_err(|error| unusable(error.to_string()))
                }
                answer => answer.map_err(|error| unusable(error.to_string())),
            }
        };
        timeout(RESOLVE_WITHIN / 2, talk).await.unwrap_or(Err(DnsError::Silent(server)))
    }
}

/// As DNS carries it.
fn ascii(name: &str) -> Result<String, DnsError> {
    if name.is_ascii() {
        return Ok(name.to_owned());
    }
    idna::domain_to_ascii(name).map_err(|_| DnsError::NotAName(name.to_owned()))
}

type Read = Result<Answer, WireError>;

/// Waits until something comes that is an answer to this question; all else is somebody's mistake or a forgery.
async fn over_udp(server: SocketAddr, question: &[u8], read: impl Fn(&[u8]) -> Read) -> io::Result<Read> {
    let any: IpAddr =
        if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).await?;
    // The system drops what comes from anybody else, and says when nobody is there.
    socket.connect(server).await?;
    socket.send(question).await?;
    let mut buffer = vec![0; DNS_DATAGRAM_MAX_BYTES];
    loop {
        let count = socket.recv(&mut buffer).await?;
        match read(&buffer[..count]) {
            Err(WireError::NotOurs | WireError::Malformed) => {}
            answer => return Ok(answer),
        }
    }
}

/// RFC 7766: each message behind its length.
async fn over_tcp(server: SocketAddr, question: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await?;
    let length = u16::try_from(question.len()).map_err(io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes()[..], question].concat()).await?;
    let mut message = vec![0; usize::from(stream.read_u16().await?)];
    stream.read_exact(&mut message).await?;
    Ok(message)
}

#[cfg(test)]
mod tests;
