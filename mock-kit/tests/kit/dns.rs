//! The DNS server, asked through sockets.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use causeway_mock_kit::dns::{DnsServer, Srv};
use causeway_mock_kit::fault::{Fault, Rule};
use hickory_proto::op::{Message, Query, ResponseCode};
use hickory_proto::rr::{Name, RData, RecordType};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};

fn question(name: &str, kind: RecordType) -> Message {
    let mut message = Message::query();
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    message
}

async fn raw(server: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.send_to(bytes, server).await.unwrap();
    let mut buffer = vec![0; 65_535];
    let received = tokio::time::timeout(Duration::from_secs(5), socket.recv(&mut buffer)).await;
    buffer.truncate(received.expect("no answer within 5 s").unwrap());
    buffer
}

async fn udp(server: &DnsServer, name: &str, kind: RecordType) -> Message {
    Message::from_vec(&raw(server.address(), &question(name, kind).to_vec().unwrap()).await).unwrap()
}

async fn tcp(server: &DnsServer, name: &str, kind: RecordType) -> Message {
    let mut stream = TcpStream::connect(server.address()).await.unwrap();
    let bytes = question(name, kind).to_vec().unwrap();
    stream.write_u16(u16::try_from(bytes.len()).unwrap()).await.unwrap();
    stream.write_all(&bytes).await.unwrap();
    let mut answer = vec![0; usize::from(stream.read_u16().await.unwrap())];
    stream.read_exact(&mut answer).await.unwrap();
    Message::from_vec(&answer).unwrap()
}

fn dc(number: u16) -> Srv {
    Srv { priority: 0, weight: 100, port: 389, target: format!("dc{number}.acme.example") }
}

fn targets(message: &Message) -> Vec<String> {
    let targets = message.answers.iter().filter_map(|record| match &record.data {
        RData::SRV(srv) => Some(srv.target.to_ascii()),
        _ => None,
    });
    targets.collect()
}

const ALL_DCS: &str = "_ldap._tcp.dc._msdcs.acme.example.";

#[tokio::test]
async fn srv_records_come_with_addresses_and_change_at_run_time() {
    let server = DnsServer::start("acme.example").await.unwrap();
    server.set_srv(ALL_DCS, &[dc(1), dc(2)]).unwrap();
    let addresses: [IpAddr; 2] = ["127.0.0.1".parse().unwrap(), "::1".parse().unwrap()];
    server.set_addresses("dc1.acme.example", &addresses).unwrap();
    let answer = udp(&server, "_LDAP._tcp.dc._msdcs.ACME.example.", RecordType::SRV).await;
    assert!(answer.metadata.authoritative);
    assert_eq!(targets(&answer), ["dc1.acme.example.", "dc2.acme.example."]);
    assert_eq!(answer.additionals.iter().filter_map(|it| it.data.ip_addr()).collect::<Vec<_>>(), addresses);
    let six = tcp(&server, "dc1.acme.example.", RecordType::AAAA).await;
    assert_eq!(six.answers[0].data.ip_addr(), Some(addresses[1]));
    server.set_srv(ALL_DCS, &[dc(2)]).unwrap();
    assert_eq!(targets(&udp(&server, ALL_DCS, RecordType::SRV).await), ["dc2.acme.example."]);
    let asked = server.journal().after(0);
    let asked: Vec<_> =
        asked.iter().map(|entry| (entry.operation.as_str(), entry.outcome.as_str())).collect();
    assert_eq!(asked, [("SRV", "No Error"), ("AAAA", "No Error"), ("SRV", "No Error")]);
    assert_eq!(server.journal().after(0)[0].subject, ALL_DCS.trim_end_matches('.'));
}

#[tokio::test]
async fn names_that_are_not_there_are_told_apart() {
    let server = DnsServer::start("acme.example").await.unwrap();
    server.set_a("dc1.acme.example", &["127.0.0.1".parse().unwrap()]).unwrap();
    server.set_srv(ALL_DCS, &[dc(1)]).unwrap();
    for (name, kind, code) in [
        ("dc1.acme.example.", RecordType::AAAA, ResponseCode::NoError),
        ("_msdcs.acme.example.", RecordType::A, ResponseCode::NoError),
        ("dc9.acme.example.", RecordType::A, ResponseCode::NXDomain),
        ("other.example.", RecordType::A, ResponseCode::Refused),
    ] {
        let answer = udp(&server, name, kind).await;
        assert_eq!((answer.metadata.response_code, answer.answers.len()), (code, 0), "{name} {kind}");
        assert_eq!(answer.authorities.len(), usize::from(code != ResponseCode::Refused), "{name} {kind}");
    }
    server.set_srv(ALL_DCS, &[]).unwrap();
    assert_eq!(udp(&server, ALL_DCS, RecordType::SRV).await.metadata.response_code, ResponseCode::NXDomain);
    assert!(server.set_a("not a name!..", &[]).is_err());
    let broken = raw(server.address(), &[0xab, 0xcd, 1, 0, 0, 9]).await;
    let broken = Message::from_vec(&broken).unwrap();
    assert_eq!((broken.metadata.id, broken.metadata.response_code), (0xabcd, ResponseCode::FormErr));
}

#[tokio::test]
async fn long_answers_are_cut_over_udp_and_whole_over_tcp() {
    let server = DnsServer::start("acme.example").await.unwrap();
    let many: Vec<Srv> = (0..60).map(dc).collect();
    server.set_srv(ALL_DCS, &many).unwrap();
    let cut = udp(&server, ALL_DCS, RecordType::SRV).await;
    assert!(cut.metadata.truncation, "{} answers", cut.answers.len());
    let whole = tcp(&server, ALL_DCS, RecordType::SRV).await;
    assert_eq!((whole.metadata.truncation, whole.answers.len()), (false, 60));
}

#[tokio::test]
async fn the_server_fails_as_told() {
    let server = DnsServer::start("acme.example").await.unwrap();
    server.set_srv(ALL_DCS, &[dc(1)]).unwrap();
    let rule = |fault| Rule::new(fault).on_operation("SRV").times(1);
    server.faults().add(rule(Fault::status(2, "server failure")));
    server.faults().add(rule(Fault::Malformed { kind: "wrong_id".into() }));
    server.faults().add(rule(Fault::Malformed { kind: "garbage".into() }));
    server.faults().add(rule(Fault::Malformed { kind: "truncated".into() }));
    let asked = question(ALL_DCS, RecordType::SRV);
    let bytes = asked.to_vec().unwrap();
    let failure = Message::from_vec(&raw(server.address(), &bytes).await).unwrap();
    assert_eq!((failure.metadata.response_code, failure.answers.len()), (ResponseCode::ServFail, 0));
    let foreign = Message::from_vec(&raw(server.address(), &bytes).await).unwrap();
    assert_ne!(foreign.metadata.id, asked.metadata.id);
    assert!(Message::from_vec(&raw(server.address(), &bytes).await).is_err());
    assert!(Message::from_vec(&raw(server.address(), &bytes).await).unwrap().metadata.truncation);
    assert_eq!(targets(&udp(&server, ALL_DCS, RecordType::SRV).await), ["dc1.acme.example."]);
}
