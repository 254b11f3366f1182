//! A small LDAP client of the tests' own, over `lber`: it sends what it is told, also what no client should send.

use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use lber::common::TagClass;
use lber::structure::{PL, StructureTag};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::pki_types::ServerName;

/// Longest wait for one answer; a test that reaches it fails with what came before.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

pub(crate) struct Client {
    stream: Option<Box<dyn Stream>>,
    received: BytesMut,
    next_id: i64,
    /// What the TLS server showed, DER.
    pub(crate) server_certificate: Option<Vec<u8>>,
}

#[derive(Debug, Clone)]
pub(crate) struct Message {
    pub(crate) id: i64,
    pub(crate) op: StructureTag,
    pub(crate) controls: Vec<(String, Option<Vec<u8>>)>,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Outcome {
    pub(crate) code: u64,
    pub(crate) matched: Vec<u8>,
    pub(crate) text: String,
    pub(crate) referrals: Vec<String>,
    pub(crate) sasl: Option<Vec<u8>>,
    pub(crate) name: Option<String>,
    pub(crate) value: Option<Vec<u8>>,
    pub(crate) controls: Vec<(String, Option<Vec<u8>>)>,
}

#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) dn: String,
    pub(crate) attributes: Vec<(String, Vec<Vec<u8>>)>,
    pub(crate) controls: Vec<(String, Option<Vec<u8>>)>,
}

impl Entry {
    pub(crate) fn all(&self, name: &str) -> &[Vec<u8>] {
        self.attributes
            .iter()
            .find(|(found, _)| found.eq_ignore_ascii_case(name))
            .map_or(&[], |(_, values)| values)
    }

    pub(crate) fn first(&self, name: &str) -> Option<String> {
        self.all(name).first().map(|value| String::from_utf8_lossy(value).into_owned())
    }

    pub(crate) fn names(&self) -> Vec<&str> {
        self.attributes.iter().map(|(name, _)| name.as_str()).collect()
    }
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Found {
    pub(crate) entries: Vec<Entry>,
    pub(crate) references: Vec<String>,
    pub(crate) intermediates: Vec<(String, Vec<u8>)>,
    pub(crate) done: Outcome,
}

impl Found {
    pub(crate) fn control(&self, oid: &str) -> Option<&[u8]> {
        control(&self.done.controls, oid)
    }

    pub(crate) fn dns(&self) -> Vec<&str> {
        self.entries.iter().map(|entry| entry.dn.as_str()).collect()
    }
}

pub(crate) fn control<'a>(controls: &'a [(String, Option<Vec<u8>>)], oid: &str) -> Option<&'a [u8]> {
    controls.iter().find(|(found, _)| found == oid).and_then(|(_, value)| value.as_deref())
}

/// A search to send.
#[derive(Clone)]
pub(crate) struct Search<'a> {
    pub(crate) base: &'a str,
    pub(crate) scope: u8,
    pub(crate) filter: &'a str,
    pub(crate) attributes: &'a [&'a str],
    pub(crate) size_limit: u32,
    pub(crate) time_limit: u32,
    pub(crate) types_only: bool,
    pub(crate) controls: Vec<StructureTag>,
}

impl<'a> Search<'a> {
    pub(crate) fn new(base: &'a str, scope: u8, filter: &'a str) -> Self {
        Self {
            base,
            scope,
            filter,
            attributes: &[],
            size_limit: 0,
            time_limit: 0,
            types_only: false,
            controls: Vec::new(),
        }
    }

    pub(crate) fn attributes(mut self, attributes: &'a [&'a str]) -> Self {
        self.attributes = attributes;
        self
    }

    pub(crate) fn control(mut self, control: StructureTag) -> Self {
        self.controls.push(control);
        self
    }

    pub(crate) fn size_limit(mut self, limit: u32) -> Self {
        self.size_limit = limit;
        self
    }

    pub(crate) fn operation(&self) -> StructureTag {
        let filter = ldap3::parse_filter(self.filter).unwrap_or_else(|()| panic!("filter {}", self.filter));
        search_operation(self, filter_structure(filter))
    }
}

fn filter_structure(tag: ldap3::asn1::Tag) -> StructureTag {
    use ldap3::asn1::ASNTag as _;
    tag.into_structure()
}

pub(crate) fn search_operation(search: &Search<'_>, filter: StructureTag) -> StructureTag {
    let names = search.attributes.iter().map(|name| octets(name.as_bytes())).collect();
    app(
        3,
        PL::C(vec![
            octets(search.base.as_bytes()),
            enumerated(i64::from(search.scope)),
            enumerated(0),
            integer(i64::from(search.size_limit)),
            integer(i64::from(search.time_limit)),
            boolean(search.types_only),
            filter,
            sequence(names),
        ]),
    )
}

impl Client {
    pub(crate) async fn connect(address: &str) -> Self {
        let stream = TcpStream::connect(address).await.unwrap_or_else(|error| panic!("{address}: {error}"));
        Self {
            stream: Some(Box::new(stream)),
            received: BytesMut::new(),
            next_id: 1,
            server_certificate: None,
        }
    }

    pub(crate) async fn connect_tls(address: &str, config: Arc<ClientConfig>) -> Self {
        let mut client = Self::connect(address).await;
        client.start_handshake(config).await;
        client
    }

    /// StartTLS and the handshake.
    pub(crate) async fn start_tls(&mut self, config: Arc<ClientConfig>) -> Outcome {
        let outcome = self.extended("1.3.6.1.4.1.1466.20037", None).await;
        if outcome.code == 0 {
            self.start_handshake(config).await;
        }
        outcome
    }

    async fn start_handshake(&mut self, config: Arc<ClientConfig>) {
        let stream = self.stream.take().expect("connected");
        let name = ServerName::try_from("localhost").expect("a host name");
        let tls = TlsConnector::from(config).connect(name, stream).await.expect("TLS handshake");
        let certificates = tls.get_ref().1.peer_certificates();
        self.server_certificate = certificates.and_then(|chain| Some(chain.first()?.as_ref().to_vec()));
        self.stream = Some(Box::new(tls));
    }

    pub(crate) async fn send_bytes(&mut self, bytes: &[u8]) {
        let stream = self.stream.as_mut().expect("connected");
        stream.write_all(bytes).await.expect("write");
        stream.flush().await.expect("flush");
    }

    pub(crate) async fn send(&mut self, op: StructureTag, controls: Vec<StructureTag>) -> i64 {
        let id = self.next_id;
        self.next_id += 1;
        let bytes = encode(message(id, op, controls));
        self.send_bytes(&bytes).await;
        id
    }

    /// The next message, or `None` when the server closed the connection.
    pub(crate) async fn receive(&mut self) -> Option<Message> {
        tokio::time::timeout(PATIENCE, self.receive_patiently()).await.expect("an answer within ten seconds")
    }

    async fn receive_patiently(&mut self) -> Option<Message> {
        loop {
            if let Some(length) = whole(&self.received) {
                let bytes = self.received.split_to(length);
                let (_, tag) = lber::parse::parse_tag(&bytes).expect("well-formed BER from the server");
                return Some(read_message(tag));
            }
            let stream = self.stream.as_mut().expect("connected");
            match stream.read_buf(&mut self.received).await {
                Ok(0) | Err(_) => return None,
                Ok(_) => {}
            }
        }
    }

    /// Everything until the server closes.
    pub(crate) async fn read_to_end(&mut self) -> Vec<u8> {
        let mut bytes = self.received.to_vec();
        let stream = self.stream.as_mut().expect("connected");
        let reading = async {
            let mut chunk = vec![0; 65536];
            while let Ok(count) = stream.read(&mut chunk).await {
                if count == 0 {
                    break;
                }
                bytes.extend_from_slice(&chunk[..count]);
            }
        };
        tokio::time::timeout(PATIENCE, reading).await.expect("the server closes within ten seconds");
        bytes
    }

    /// Waits for the first bytes of an answer.
    pub(crate) async fn fill(&mut self) {
        let reading = self.read_at_least(1);
        tokio::time::timeout(PATIENCE, reading).await.expect("bytes within ten seconds");
    }

    /// Exactly so many raw bytes.
    pub(crate) async fn take(&mut self, count: usize) -> Vec<u8> {
        let reading = self.read_at_least(count);
        let bytes = tokio::time::timeout(PATIENCE, reading).await.expect("bytes within ten seconds");
        assert!(bytes.len() >= count, "closed after {} bytes of {count}", bytes.len());
        self.received.split_to(count).to_vec()
    }

    /// At least so many raw bytes, or all there are before the server closes.
    pub(crate) async fn read_at_least(&mut self, count: usize) -> Vec<u8> {
        let stream = self.stream.as_mut().expect("connected");
        while self.received.len() < count {
            match stream.read_buf(&mut self.received).await {
                Ok(0) | Err(_) => break,
                Ok(_) => {}
            }
        }
        self.received.to_vec()
    }

    pub(crate) async fn call(&mut self, op: StructureTag, controls: Vec<StructureTag>) -> Outcome {
        let id = self.send(op, controls).await;
        let message = self.receive().await.expect("an answer, not a closed connection");
        assert_eq!(message.id, id, "{message:?}");
        outcome(&message)
    }

    pub(crate) async fn bind(&mut self, name: &str, password: &str) -> Outcome {
        self.bind_bytes(3, name.as_bytes(), password.as_bytes()).await
    }

    pub(crate) async fn bind_bytes(&mut self, version: i64, name: &[u8], password: &[u8]) -> Outcome {
        let op = app(0, PL::C(vec![integer(version), octets(name), ctx(0, PL::P(password.to_vec()))]));
        self.call(op, Vec::new()).await
    }

    pub(crate) async fn sasl(&mut self, mechanism: &str, credentials: Option<&[u8]>) -> Outcome {
        let mut fields = vec![octets(mechanism.as_bytes())];
        fields.extend(credentials.map(octets));
        let op = app(0, PL::C(vec![integer(3), octets(b""), ctx(3, PL::C(fields))]));
        self.call(op, Vec::new()).await
    }

    pub(crate) async fn search(&mut self, search: &Search<'_>) -> Found {
        let id = self.send(search.operation(), search.controls.clone()).await;
        self.collect(id).await
    }

    /// Collects the answers of one search until its SearchResultDone.
    pub(crate) async fn collect(&mut self, id: i64) -> Found {
        let mut found = Found::default();
        loop {
            let message = self
                .receive()
                .await
                .unwrap_or_else(|| panic!("closed after {} entries", found.entries.len()));
            assert!(message.id == id || message.id == 0, "{message:?}");
            match message.op.id {
                4 => found.entries.push(entry(&message)),
                19 => found.references.extend(children(message.op).into_iter().map(text)),
                25 => found.intermediates.push(intermediate(message.op)),
                _ => {
                    found.done = outcome(&message);
                    return found;
                }
            }
        }
    }

    pub(crate) async fn extended(&mut self, oid: &str, value: Option<&[u8]>) -> Outcome {
        let mut fields = vec![ctx(0, PL::P(oid.as_bytes().to_vec()))];
        fields.extend(value.map(|value| ctx(1, PL::P(value.to_vec()))));
        self.call(app(23, PL::C(fields)), Vec::new()).await
    }

    pub(crate) async fn modify(&mut self, dn: &str, changes: &[(i64, &str, &[&[u8]])]) -> Outcome {
        self.call(modify_operation(dn, changes), Vec::new()).await
    }

    pub(crate) async fn add(&mut self, dn: &str, attributes: &[(&str, &[&str])]) -> Outcome {
        let list = attributes.iter().map(|(name, values)| {
            let values: Vec<&[u8]> = values.iter().map(|value| value.as_bytes()).collect();
            attribute(name, &values)
        });
        self.call(app(8, PL::C(vec![octets(dn.as_bytes()), sequence(list.collect())])), Vec::new()).await
    }

    pub(crate) async fn delete(&mut self, dn: &str) -> Outcome {
        self.call(app(10, PL::P(dn.as_bytes().to_vec())), Vec::new()).await
    }

    pub(crate) async fn modify_dn(&mut self, dn: &str, new_rdn: &str, new_superior: Option<&str>) -> Outcome {
        let mut fields = vec![octets(dn.as_bytes()), octets(new_rdn.as_bytes()), boolean(true)];
        fields.extend(new_superior.map(|dn| ctx(0, PL::P(dn.as_bytes().to_vec()))));
        self.call(app(12, PL::C(fields)), Vec::new()).await
    }

    pub(crate) async fn compare(&mut self, dn: &str, name: &str, value: &str) -> Outcome {
        let assertion = sequence(vec![octets(name.as_bytes()), octets(value.as_bytes())]);
        self.call(app(14, PL::C(vec![octets(dn.as_bytes()), assertion])), Vec::new()).await
    }
}

pub(crate) fn modify_operation(dn: &str, changes: &[(i64, &str, &[&[u8]])]) -> StructureTag {
    let list =
        changes.iter().map(|(kind, name, values)| sequence(vec![enumerated(*kind), attribute(name, values)]));
    app(6, PL::C(vec![octets(dn.as_bytes()), sequence(list.collect())]))
}

fn attribute(name: &str, values: &[&[u8]]) -> StructureTag {
    let values = values.iter().map(|value| octets(value)).collect();
    sequence(vec![octets(name.as_bytes()), universal(17, PL::C(values))])
}

/// Length of the first message, if all of it is there.
fn whole(bytes: &[u8]) -> Option<usize> {
    let first = *bytes.get(1)?;
    let (size, length) = if first < 0x80 {
        (2, usize::from(first))
    } else {
        let count = usize::from(first & 0x7f);
        let length =
            bytes.get(2..2 + count)?.iter().fold(0usize, |value, byte| (value << 8) | usize::from(*byte));
        (2 + count, length)
    };
    (bytes.len() >= size + length).then_some(size + length)
}

fn read_message(tag: StructureTag) -> Message {
    let mut fields = children(tag).into_iter();
    let id = number(fields.next().expect("a message id"));
    let op = fields.next().expect("an operation");
    let controls = fields.next().map(children).unwrap_or_default().into_iter().map(|control| {
        let mut fields = children(control).into_iter();
        let oid = text(fields.next().expect("a control type"));
        (oid, fields.find(|field| field.id == 4).map(bytes))
    });
    Message { id: i64::try_from(id).expect("a small id"), op, controls: controls.collect() }
}

pub(crate) fn outcome(message: &Message) -> Outcome {
    let mut fields = children(message.op.clone()).into_iter();
    let mut outcome = Outcome {
        code: number(fields.next().expect("a result code")),
        matched: bytes(fields.next().expect("a matched DN")),
        text: text(fields.next().expect("a diagnostic message")),
        controls: message.controls.clone(),
        ..Outcome::default()
    };
    for field in fields {
        assert_eq!(field.class, TagClass::Context, "{field:?}");
        match field.id {
            3 => outcome.referrals = children(field).into_iter().map(text).collect(),
            7 => outcome.sasl = Some(bytes(field)),
            10 => outcome.name = Some(text(field)),
            11 => outcome.value = Some(bytes(field)),
            other => panic!("field [{other}] in a result"),
        }
    }
    outcome
}

pub(crate) fn entry(message: &Message) -> Entry {
    let mut fields = children(message.op.clone()).into_iter();
    let dn = text(fields.next().expect("a DN"));
    let attributes = children(fields.next().expect("attributes")).into_iter().map(|attribute| {
        let mut fields = children(attribute).into_iter();
        let name = text(fields.next().expect("a type"));
        (name, children(fields.next().expect("values")).into_iter().map(bytes).collect())
    });
    Entry { dn, attributes: attributes.collect(), controls: message.controls.clone() }
}

fn intermediate(op: StructureTag) -> (String, Vec<u8>) {
    let mut fields = children(op).into_iter();
    (fields.next().map(text).unwrap_or_default(), fields.next().map(bytes).unwrap_or_default())
}

pub(crate) fn parse(bytes: &[u8]) -> StructureTag {
    lber::parse::parse_tag(bytes).expect("well-formed BER").1
}

pub(crate) fn children(tag: StructureTag) -> Vec<StructureTag> {
    let shown = format!("{tag:?}");
    tag.expect_constructed().unwrap_or_else(|| panic!("not constructed: {shown}"))
}

pub(crate) fn bytes(tag: StructureTag) -> Vec<u8> {
    let shown = format!("{tag:?}");
    tag.expect_primitive().unwrap_or_else(|| panic!("not primitive: {shown}"))
}

pub(crate) fn text(tag: StructureTag) -> String {
    String::from_utf8_lossy(&bytes(tag)).into_owned()
}

pub(crate) fn number(tag: StructureTag) -> u64 {
    bytes(tag).iter().fold(0, |value, byte| (value << 8) | u64::from(*byte))
}

pub(crate) fn encode(tag: StructureTag) -> Vec<u8> {
    let mut out = BytesMut::new();
    lber::write::encode_into(&mut out, tag).expect("encodes");
    out.to_vec()
}

pub(crate) fn message(id: i64, op: StructureTag, controls: Vec<StructureTag>) -> StructureTag {
    let mut fields = vec![integer(id), op];
    if !controls.is_empty() {
        fields.push(ctx(0, PL::C(controls)));
    }
    sequence(fields)
}

/// A request control.
pub(crate) fn request_control(oid: &str, critical: bool, value: Option<StructureTag>) -> StructureTag {
    let mut fields = vec![octets(oid.as_bytes())];
    if critical {
        fields.push(boolean(true));
    }
    fields.extend(value.map(|value| octets(&encode(value))));
    sequence(fields)
}

pub(crate) const PAGED: &str = "1.2.840.113556.1.4.319";

pub(crate) fn paged(size: i64, cookie: &[u8]) -> StructureTag {
    request_control(PAGED, true, Some(sequence(vec![integer(size), octets(cookie)])))
}

/// The cookie of a paged response.
pub(crate) fn page_cookie(found: &Found) -> Vec<u8> {
    let value = found.control(PAGED).unwrap_or_else(|| panic!("no paged control: {:?}", found.done));
    bytes(children(parse(value)).remove(1))
}

pub(crate) const DIRSYNC: &str = "1.2.840.113556.1.4.841";

pub(crate) fn dirsync(flags: i64, max_bytes: i64, cookie: &[u8]) -> StructureTag {
    request_control(DIRSYNC, true, Some(sequence(vec![integer(flags), integer(max_bytes), octets(cookie)])))
}

/// More data, and the cookie.
pub(crate) fn dirsync_answer(found: &Found) -> (bool, Vec<u8>) {
    let value = found.control(DIRSYNC).unwrap_or_else(|| panic!("no DirSync control: {:?}", found.done));
    let mut fields = children(parse(value));
    (number(fields.remove(0)) != 0, bytes(fields.remove(1)))
}

pub(crate) fn sequence(fields: Vec<StructureTag>) -> StructureTag {
    universal(16, PL::C(fields))
}

pub(crate) fn octets(value: &[u8]) -> StructureTag {
    universal(4, PL::P(value.to_vec()))
}

pub(crate) fn integer(value: i64) -> StructureTag {
    universal(2, PL::P(minimal(value)))
}

pub(crate) fn enumerated(value: i64) -> StructureTag {
    universal(10, PL::P(minimal(value)))
}

pub(crate) fn boolean(value: bool) -> StructureTag {
    universal(1, PL::P(vec![if value { 0xff } else { 0 }]))
}

pub(crate) fn universal(id: u64, payload: PL) -> StructureTag {
    StructureTag { class: TagClass::Universal, id, payload }
}

pub(crate) fn app(id: u64, payload: PL) -> StructureTag {
    StructureTag { class: TagClass::Application, id, payload }
}

pub(crate) fn ctx(id: u64, payload: PL) -> StructureTag {
    StructureTag { class: TagClass::Context, id, payload }
}

fn minimal(value: i64) -> Vec<u8> {
    let mut bytes = value.to_be_bytes().to_vec();
    while bytes.len() > 1 && ((bytes[0] == 0 && bytes[1] < 0x80) || (bytes[0] == 0xff && bytes[1] >= 0x80)) {
        bytes.remove(0);
    }
    bytes
}
