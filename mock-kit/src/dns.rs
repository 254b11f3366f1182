//! A small authoritative DNS server over UDP and TCP, with SRV, A and AAAA records that a test changes at run time.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, PoisonError, RwLock};

use hickory_proto::op::{Edns, Message, MessageType, OpCode, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, SOA, SRV};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::Semaphore;

use crate::KitContext;
use crate::clock::Clock;
use crate::fault::{Fault, Faults, Point};
use crate::journal::Journal;
use crate::limits::{DNS_QUESTIONS_AT_ONCE, DNS_TCP_IDLE, DNS_UDP_CLASSIC_BYTES, DNS_UDP_MAX_BYTES};
use crate::listen::{self, BindError, FaultStream};

/// Name of the front end in rules and journal.
const FRONT: &str = "dns";

/// How often a port is tried that is free for both UDP and TCP.
const PORT_TRIES: usize = 16;

/// Seconds a client may keep an answer: short, because tests change records.
const TTL_SECS: u32 = 1;

/// One SRV record (RFC 2782).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Srv {
    /// Lower is tried first.
    pub priority: u16,
    /// Share among records of one priority.
    pub weight: u16,
    /// Port of the service.
    pub port: u16,
    /// Host of the service.
    pub target: String,
}

/// A name that is not one.
#[derive(Debug, thiserror::Error)]
#[error("{name:?} is not a domain name")]
pub struct NameError {
    name: String,
}

/// A server that could not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DnsError {
    /// No port.
    #[error("open the dns server's port")]
    Bind(#[source] BindError),
    /// No UDP socket.
    #[error("open the dns server's udp socket")]
    Udp(#[source] io::Error),
    /// The zone is not a name.
    #[error("name the dns server's zone")]
    Zone(#[source] NameError),
}

/// A running server; stops on drop.
///
/// Names outside its zone are refused. The journal has one entry per question (operation: the type; subject: the
/// name; outcome: the response code). Faults on these may be `delay`, `stall` and `close` (no answer), `status` (a
/// response code by number, such as 2 for server failure) and `malformed` with kind `garbage`, `wrong_id` or `truncated`.
pub struct DnsServer {
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    zone: Name,
    records: RwLock<BTreeMap<Name, Vec<RData>>>,
    cx: KitContext,
}

impl DnsServer {
    /// Serves `zone` (such as `acme.example`) on one free port of 127.0.0.1, UDP and TCP.
    ///
    /// # Errors
    /// [`DnsError`].
    pub async fn start(zone: &str) -> Result<Self, DnsError> {
        let zone = name(zone).map_err(DnsError::Zone)?;
        let cx = KitContext::new("mock-dns", Clock::automatic());
        let (tcp, udp) = sockets(&cx).await?;
        let address = udp.local_addr().map_err(DnsError::Udp)?;
        let shared = Arc::new(Shared { zone, records: RwLock::default(), cx: cx.clone() });
        let serving = Arc::clone(&shared);
        listen::serve(tcp, FRONT, cx, move |stream, _| {
            let shared = Arc::clone(&serving);
            async move { shared.serve_tcp(stream).await }
        });
        tokio::spawn(Arc::clone(&shared).serve_udp(udp));
        Ok(Self { address, shared })
    }

    /// Where to ask, UDP or TCP.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Sets the SRV records of a name; none removes them.
    ///
    /// # Errors
    /// [`NameError`].
    pub fn set_srv(&self, at: &str, records: &[Srv]) -> Result<(), NameError> {
        let data = records
            .iter()
            .map(|srv| Ok(RData::SRV(SRV::new(srv.priority, srv.weight, srv.port, name(&srv.target)?))));
        self.set(at, RecordType::SRV, data.collect::<Result<_, NameError>>()?)
    }

    /// Sets the addresses of a name, of both families; none removes them.
    ///
    /// # Errors
    /// [`NameError`].
    pub fn set_addresses(&self, at: &str, addresses: &[IpAddr]) -> Result<(), NameError> {
        let four = addresses.iter().filter_map(|it| match it {
            IpAddr::V4(it) => Some(RData::A(A::from(*it))),
            IpAddr::V6(_) => None,
        });
        let six = addresses.iter().filter_map(|it| match it {
            IpAddr::V6(it) => Some(RData::AAAA(AAAA::from(*it))),
            IpAddr::V4(_) => None,
        });
        self.set(at, RecordType::A, four.collect())?;
        self.set(at, RecordType::AAAA, six.collect())
    }

    /// Sets the IPv4 addresses of a name.
    ///
    /// # Errors
    /// [`NameError`].
    pub fn set_a(&self, at: &str, addresses: &[Ipv4Addr]) -> Result<(), NameError> {
        self.set(at, RecordType::A, addresses.iter().map(|it| RData::A(A::from(*it))).collect())
    }

    /// Sets the IPv6 addresses of a name.
    ///
    /// # Errors
    /// [`NameError`].
    pub fn set_aaaa(&self, at: &str, addresses: &[Ipv6Addr]) -> Result<(), NameError> {
        self.set(at, RecordType::AAAA, addresses.iter().map(|it| RData::AAAA(AAAA::from(*it))).collect())
    }

    /// Forgets every record.
    pub fn clear(&self) {
        self.shared.records.write().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Failures to inject.
    pub fn faults(&self) -> &Faults {
        &self.shared.cx.faults
    }

    /// What was asked.
    pub fn journal(&self) -> &Journal {
        &self.shared.cx.journal
    }

    fn set(&self, at: &str, kind: RecordType, data: Vec<RData>) -> Result<(), NameError> {
        let mut records = self.shared.records.write().unwrap_or_else(PoisonError::into_inner);
        let at = name(at)?;
        let of_name = records.entry(at.clone()).or_default();
        of_name.retain(|data| data.record_type() != kind);
        of_name.extend(data);
        if of_name.is_empty() {
            records.remove(&at);
        }
        Ok(())
    }
}

impl Drop for DnsServer {
    fn drop(&mut self) {
        self.shared.cx.stop.cancel();
    }
}

/// Where a question came from, as far as the answer depends on it.
#[derive(Clone, Copy, PartialEq)]
enum Transport {
    Udp,
    Tcp,
}

impl Shared {
    async fn serve_udp(self: Arc<Self>, socket: UdpSocket) {
        let socket = Arc::new(socket);
        let slots = Arc::new(Semaphore::new(DNS_QUESTIONS_AT_ONCE));
        let mut buffer = vec![0; usize::from(u16::MAX)];
        loop {
            let received = tokio::select! {
                () = self.cx.stop.cancelled() => return,
                received = socket.recv_from(&mut buffer) => received,
            };
            // An error here is about an earlier answer (ICMP port unreachable); the socket stays good.
            let Ok((length, peer)) = received else { continue };
            let Ok(permit) = Arc::clone(&slots).try_acquire_owned() else { continue };
            let (question, socket, shared) =
                (buffer[..length].to_vec(), Arc::clone(&socket), Arc::clone(&self));
            tokio::spawn(async move {
                let _permit = permit;
                let answered = tokio::select! {
                    () = shared.cx.stop.cancelled() => None,
                    answered = shared.answer(&question, Transport::Udp) => answered,
                };
                if let Some(answer) = answered {
                    // The client may be gone; it asks again if not.
                    let _ = socket.send_to(&answer, peer).await;
                }
            });
        }
    }

    async fn serve_tcp(&self, mut stream: FaultStream) {
        loop {
            let question = tokio::time::timeout(DNS_TCP_IDLE, async {
                let length = usize::from(stream.read_u16().await?);
                let mut question = vec![0; length];
                stream.read_exact(&mut question).await?;
                io::Result::Ok(question)
            });
            let Ok(Ok(question)) = question.await else { return };
            let Some(answer) = self.answer(&question, Transport::Tcp).await else { return };
            let Ok(length) = u16::try_from(answer.len()) else { return };
            if stream.write_u16(length).await.is_err() || stream.write_all(&answer).await.is_err() {
                return;
            }
        }
    }

    /// The answer's bytes; `None` when there is to be none.
    async fn answer(&self, question: &[u8], transport: Transport) -> Option<Vec<u8>> {
        let Ok(request) = Message::from_vec(question) else {
            self.cx.journal.record(FRONT, "unreadable", "", "FormErr", json!({ "bytes": question.len() }));
            // Without a readable header there is no id to answer to (RFC 1035 4.1.1).
            let id = u16::from_be_bytes(*question.first_chunk()?);
            return Message::error_msg(id, OpCode::Query, ResponseCode::FormErr).to_vec().ok();
        };
        if request.metadata.message_type != MessageType::Query {
            return None;
        }
        let asked = request.queries.first().map(|query| (query.name.to_lowercase(), query.query_type));
        let (subject, operation) = asked.as_ref().map_or((String::new(), String::new()), |(name, kind)| {
            (name.to_ascii().trim_end_matches('.').to_owned(), kind.to_string())
        });
        let point = Point { front: FRONT, operation: &operation, subject: &subject };
        let fault = self.cx.faults.meet(&point).await;
        let mut response = self.respond(&request);
        match &fault {
            Some(Fault::Close {}) => {
                self.cx.journal.record(FRONT, &operation, &subject, "no answer", json!({ "fault": true }));
                return None;
            }
            Some(fault) => apply(&mut response, fault, transport),
            None => {}
        }
        let outcome = response.metadata.response_code.to_string();
        self.cx.journal.record(FRONT, &operation, &subject, &outcome, Value::Null);
        if matches!(&fault, Some(Fault::Malformed { kind }) if kind == "garbage") {
            return Some(b"this is not DNS".to_vec());
        }
        encode(&response, &request, transport)
    }

    fn respond(&self, request: &Message) -> Message {
        let mut response = Message::response(request.metadata.id, request.metadata.op_code);
        response.metadata.recursion_desired = request.metadata.recursion_desired;
        response.add_queries(request.queries.iter().cloned());
        if request.edns.is_some() {
            let mut edns = Edns::new();
            edns.set_max_payload(u16::try_from(DNS_UDP_MAX_BYTES).unwrap_or(u16::MAX));
            response.set_edns(edns);
        }
        let [query] = request.queries.as_slice() else {
            response.metadata.response_code = ResponseCode::FormErr;
            return response;
        };
        if request.metadata.op_code != OpCode::Query {
            response.metadata.response_code = ResponseCode::NotImp;
            return response;
        }
        let asked = query.name.to_lowercase();
        if query.query_class != DNSClass::IN || !self.zone.zone_of(&asked) {
            response.metadata.response_code = ResponseCode::Refused;
            return response;
        }
        response.metadata.authoritative = true;
        let records = self.records.read().unwrap_or_else(PoisonError::into_inner);
        let of_name = records.get(&asked);
        let wanted = of_name
            .into_iter()
            .flatten()
            .filter(|data| query.query_type == RecordType::ANY || data.record_type() == query.query_type);
        for data in wanted {
            response.add_answer(Record::from_rdata(query.name.clone(), TTL_SECS, data.clone()));
            if let RData::SRV(srv) = data {
                // RFC 2782: the addresses of the target spare the client a second question.
                let target = srv.target.to_lowercase();
                for address in records.get(&target).into_iter().flatten().filter(|it| it.ip_addr().is_some())
                {
                    response.add_additional(Record::from_rdata(target.clone(), TTL_SECS, address.clone()));
                }
            }
        }
        if response.answers.is_empty() {
            // A name that only has names below it exists too, without data (RFC 8020).
            let exists =
                of_name.is_some() || asked == self.zone || records.keys().any(|it| asked.zone_of(it));
            response.metadata.response_code =
                if exists { ResponseCode::NoError } else { ResponseCode::NXDomain };
            let soa = SOA::new(self.zone.clone(), self.zone.clone(), 1, 60, 60, 60, TTL_SECS);
            response.add_authority(Record::from_rdata(self.zone.clone(), TTL_SECS, RData::SOA(soa)));
        }
        response
    }
}

fn apply(response: &mut Message, fault: &Fault, transport: Transport) {
    match fault {
        Fault::Status { .. } => {
            let number = fault.status_number().and_then(|number| u8::try_from(number & 0x0f).ok());
            response.metadata.response_code = ResponseCode::from(0, number.unwrap_or(2));
            response.answers.clear();
            response.additionals.clear();
        }
        Fault::Malformed { kind } if kind == "wrong_id" => response.metadata.id = !response.metadata.id,
        Fault::Malformed { kind } if kind == "truncated" && transport == Transport::Udp => {
            response.metadata.truncation = true;
            response.answers.clear();
        }
        _ => {}
    }
}

/// Over UDP an answer that does not fit is cut and marked, so that the client asks again over TCP (RFC 2181 9).
fn encode(response: &Message, request: &Message, transport: Transport) -> Option<Vec<u8>> {
    let whole = response.to_vec().ok()?;
    let allowed = match (transport, &request.edns) {
        (Transport::Tcp, _) => usize::from(u16::MAX),
        (Transport::Udp, Some(edns)) => {
            usize::from(edns.max_payload()).clamp(DNS_UDP_CLASSIC_BYTES, DNS_UDP_MAX_BYTES)
        }
        (Transport::Udp, None) => DNS_UDP_CLASSIC_BYTES,
    };
    if whole.len() <= allowed { Some(whole) } else { response.truncate().to_vec().ok() }
}

/// A TCP and a UDP socket of the same number.
async fn sockets(cx: &KitContext) -> Result<(TcpListener, UdpSocket), DnsError> {
    let host = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let mut tries = 0;
    loop {
        let tcp = listen::bind(cx.service, FRONT, host, 0).await.map_err(DnsError::Bind)?;
        let address = tcp.local_addr().map_err(DnsError::Udp)?;
        match UdpSocket::bind(address).await {
            Ok(udp) => return Ok((tcp, udp)),
            Err(error) if tries == PORT_TRIES => return Err(DnsError::Udp(error)),
            Err(_) => tries += 1,
        }
    }
}

/// An absolute, lower-case name.
fn name(text: &str) -> Result<Name, NameError> {
    let mut name = Name::from_ascii(text).map_err(|_| NameError { name: text.to_owned() })?;
    name.set_fqdn(true);
    Ok(name.to_lowercase())
}
