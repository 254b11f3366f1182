//! LDAP messages (RFC 4511 section 4): requests out, answers in.

use bytes::{Bytes, BytesMut};
use zeroize::Zeroizing;

use super::ber::{self, BerError, Reader, Writer, tag};
use super::entry::Entry;
use super::limits;

/// A result code (RFC 4511 4.1.9). A number and not an enum: servers send codes nobody registered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ResultCode(pub u32);

impl ResultCode {
    pub const SUCCESS: Self = Self(0);
    pub const TIME_LIMIT_EXCEEDED: Self = Self(3);
    pub const SIZE_LIMIT_EXCEEDED: Self = Self(4);
    pub const STRONGER_AUTH_REQUIRED: Self = Self(8);
    pub const REFERRAL: Self = Self(10);
    pub const ADMIN_LIMIT_EXCEEDED: Self = Self(11);
    pub const UNAVAILABLE_CRITICAL_EXTENSION: Self = Self(12);
    pub const CONFIDENTIALITY_REQUIRED: Self = Self(13);
    pub const NO_SUCH_OBJECT: Self = Self(32);
    pub const INVALID_CREDENTIALS: Self = Self(49);
    pub const INSUFFICIENT_ACCESS_RIGHTS: Self = Self(50);
    pub const BUSY: Self = Self(51);
    pub const UNAVAILABLE: Self = Self(52);
    pub const UNWILLING_TO_PERFORM: Self = Self(53);
    /// e-syncRefreshRequired (RFC 4533 2.1).
    pub const SYNC_REFRESH_REQUIRED: Self = Self(4096);

    /// Whether another server, or this one later, may answer otherwise.
    pub fn is_passing(self) -> bool {
        matches!(self, Self::BUSY | Self::UNAVAILABLE)
    }

    /// Whether the server says that it has done as much as it may for us.
    pub fn is_limit(self) -> bool {
        matches!(self, Self::SIZE_LIMIT_EXCEEDED | Self::TIME_LIMIT_EXCEEDED | Self::ADMIN_LIMIT_EXCEEDED)
    }
}

impl std::fmt::Display for ResultCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let word = match self.0 {
            1 => "operationsError",
            2 => "protocolError",
            3 => "timeLimitExceeded",
            4 => "sizeLimitExceeded",
            7 => "authMethodNotSupported",
            8 => "strongerAuthRequired",
            10 => "referral",
            11 => "adminLimitExceeded",
            12 => "unavailableCriticalExtension",
            13 => "confidentialityRequired",
            19 => "constraintViolation",
            32 => "noSuchObject",
            34 => "invalidDNSyntax",
            48 => "inappropriateAuthentication",
            49 => "invalidCredentials",
            50 => "insufficientAccessRights",
            51 => "busy",
            52 => "unavailable",
            53 => "unwillingToPerform",
            80 => "other",
            4096 => "syncRefreshRequired",
            code => return write!(f, "result code {code}"),
        };
        write!(f, "{word} ({})", self.0)
    }
}

/// How an operation ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OperationResult {
    pub code: ResultCode,
    pub matched_dn: String,
    /// The server's own words, without the NUL Active Directory ends them with, at most
    /// [`limits::DIAGNOSTIC_MAX_BYTES`].
    pub diagnostic: String,
    pub referrals: u32,
    pub controls: Vec<Control>,
}

impl OperationResult {
    pub fn is_success(&self) -> bool {
        self.code == ResultCode::SUCCESS
    }

    /// The value of a response control.
    pub fn control(&self, oid: &str) -> Option<&Control> {
        self.controls.iter().find(|control| control.oid == oid)
    }
}

/// A control, request or response (RFC 4511 4.1.11).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Control {
    pub oid: String,
    pub critical: bool,
    pub value: Option<Bytes>,
}

impl Control {
    /// Without a value.
    pub fn bare(oid: &str, critical: bool) -> Self {
        Self { oid: oid.to_owned(), critical, value: None }
    }

    /// With a value.
    pub fn with(oid: &str, critical: bool, value: Vec<u8>) -> Self {
        Self { oid: oid.to_owned(), critical, value: Some(Bytes::from(value)) }
    }
}

/// What a server can say.
pub(crate) enum Answer {
    Bind(OperationResult),
    Entry(Entry),
    Reference,
    SearchDone(OperationResult),
    Extended(OperationResult),
    Intermediate {
        name: Option<String>,
        value: Option<Bytes>,
    },
    /// An operation we never ask for.
    Other,
}

/// One message from the server.
pub(crate) struct Message {
    pub(crate) id: i32,
    pub(crate) answer: Answer,
    pub(crate) controls: Vec<Control>,
}

/// Scope of a search.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    Base = 0,
    OneLevel = 1,
    Subtree = 2,
}

/// A search to make. The filter is encoded already, see [`super::filter::Filter`].
#[derive(Clone, Debug)]
pub struct SearchRequest {
    pub base: String,
    pub scope: Scope,
    pub filter: super::filter::Filter,
    pub attributes: Vec<String>,
    pub controls: Vec<Control>,
}

impl SearchRequest {
    /// Reads one object.
    pub fn read(dn: impl Into<String>, attributes: &[&str]) -> Self {
        Self {
            base: dn.into(),
            scope: Scope::Base,
            filter: super::filter::Filter::present("objectClass"),
            attributes: attributes.iter().map(|&name| name.to_owned()).collect(),
            controls: Vec::new(),
        }
    }

    /// Searches a subtree.
    pub fn subtree(base: impl Into<String>, filter: super::filter::Filter, attributes: &[&str]) -> Self {
        Self { scope: Scope::Subtree, filter, ..Self::read(base, attributes) }
    }

    /// With one more control.
    pub fn with(mut self, control: Control) -> Self {
        self.controls.push(control);
        self
    }
}

pub(crate) fn search(id: i32, request: &SearchRequest) -> Vec<u8> {
    envelope(id, &request.controls, |out| {
        out.constructed(tag::application(3), |op| {
            op.octets(request.base.as_bytes());
            op.enumerated(request.scope as i64);
            op.enumerated(0);
            op.integer(0);
            op.integer(0);
            op.boolean(false);
            op.raw(request.filter.encoded());
            op.constructed(tag::SEQUENCE, |names| {
                request.attributes.iter().for_each(|name| names.octets(name.as_bytes()));
            });
        });
    })
}

/// A simple bind. The bytes hold the password and are overwritten when dropped.
pub(crate) fn bind(id: i32, name: &str, password: &[u8], controls: &[Control]) -> Zeroizing<Vec<u8>> {
    // The writer must not grow while the password is in it: a reallocation would leave a copy behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(name.len() + password.len() + 512));
    let body = {
        let mut out = Zeroizing::new(Vec::with_capacity(name.len() + password.len() + 64));
        out.extend_from_slice(&[tag::INTEGER, 1, 3]);
        primitive_into(&mut out, tag::OCTETS, name.as_bytes());
        primitive_into(&mut out, tag::context(0), password);
        out
    };
    let mut head = Writer::new();
    head.integer(i64::from(id));
    let head = head.into_bytes();
    let tail = encode_controls(controls);
    let mut op = Zeroizing::new(Vec::with_capacity(body.len() + 8));
    primitive_into(&mut op, tag::application(0), &body);
    bytes.push(tag::SEQUENCE);
    length_into(&mut bytes, head.len() + op.len() + tail.len());
    bytes.extend_from_slice(&head);
    bytes.extend_from_slice(&op);
    bytes.extend_from_slice(&tail);
    bytes
}

pub(crate) fn extended(id: i32, name: &str) -> Vec<u8> {
    envelope(id, &[], |out| {
        out.constructed(tag::application(23), |op| op.primitive(tag::context(0), name.as_bytes()));
    })
}

pub(crate) fn abandon(id: i32, target: i32) -> Vec<u8> {
    let mut number = Writer::new();
    number.integer(i64::from(target));
    let number = number.into_bytes();
    envelope(id, &[], |out| out.primitive(tag::application_primitive(16), &number[2..]))
}

pub(crate) fn unbind(id: i32) -> Vec<u8> {
    envelope(id, &[], |out| out.primitive(tag::application_primitive(2), &[]))
}

fn envelope(id: i32, controls: &[Control], body: impl FnOnce(&mut Writer)) -> Vec<u8> {
    let mut out = Writer::new();
    out.constructed(tag::SEQUENCE, |message| {
        message.integer(i64::from(id));
        body(message);
        message.raw(&encode_controls(controls));
    });
    out.into_bytes()
}

fn encode_controls(controls: &[Control]) -> Vec<u8> {
    let mut out = Writer::new();
    if !controls.is_empty() {
        out.constructed(tag::context_constructed(0), |list| {
            for control in controls {
                list.constructed(tag::SEQUENCE, |one| {
                    one.octets(control.oid.as_bytes());
                    if control.critical {
                        one.boolean(true);
                    }
                    if let Some(value) = &control.value {
                        one.octets(value);
                    }
                });
            }
        });
    }
    out.into_bytes()
}

fn primitive_into(out: &mut Vec<u8>, tag: u8, content: &[u8]) {
    out.push(tag);
    length_into(out, content.len());
    out.extend_from_slice(content);
}

fn length_into(out: &mut Vec<u8>, length: usize) {
    if length < 0x80 {
        out.push(length as u8);
    } else {
        out.push(0x84);
        out.extend_from_slice(&(length as u32).to_be_bytes());
    }
}

/// Takes the next whole message out of what has arrived; `None` when more is needed.
///
/// # Errors
/// When the bytes are no LDAP message, or announce one larger than [`limits::MESSAGE_MAX_BYTES`].
pub(crate) fn take(buffer: &mut BytesMut) -> Result<Option<Message>, MessageError> {
    if let Some(&first) = buffer.first()
        && first != tag::SEQUENCE
    {
        return Err(BerError::UnexpectedTag { wanted: tag::SEQUENCE, got: first }.into());
    }
    let Some((header, length)) = ber::header(buffer)? else { return Ok(None) };
    if length > limits::MESSAGE_MAX_BYTES {
        return Err(MessageError::TooLarge { bytes: length });
    }
    if buffer.len() < header + length {
        return Ok(None);
    }
    let whole = buffer.split_to(header + length).freeze();
    decode(&whole.slice(header..)).map(Some)
}

/// Bytes of the first message that have not arrived yet; 0 when its length is not known, or is one [`take`] refuses.
pub(crate) fn missing(buffer: &[u8]) -> usize {
    match ber::header(buffer) {
        Ok(Some((header, length))) if length <= limits::MESSAGE_MAX_BYTES => {
            (header + length).saturating_sub(buffer.len())
        }
        _ => 0,
    }
}

/// What is wrong with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum MessageError {
    #[error("{0}")]
    Ber(BerError),
    #[error("a message of {bytes} bytes, the limit is {}", limits::MESSAGE_MAX_BYTES)]
    TooLarge { bytes: usize },
}

impl From<BerError> for MessageError {
    fn from(error: BerError) -> Self {
        Self::Ber(error)
    }
}

fn decode(body: &Bytes) -> Result<Message, MessageError> {
    let mut reader = Reader::new(body);
    let id = i32::try_from(reader.integer()?).map_err(|_| BerError::BadInteger(8))?;
    let (operation, content) = reader.next()?;
    let content = body.slice_ref(content);
    let controls = match reader.optional(tag::context_constructed(0))? {
        Some(list) => decode_controls(body, list)?,
        // Active Directory puts the name of a Notice of Disconnection here, against RFC 4511; it tells nothing new.
        None => Vec::new(),
    };
    const BIND: u8 = tag::application(1);
    const ENTRY: u8 = tag::application(4);
    const DONE: u8 = tag::application(5);
    const REFERENCE: u8 = tag::application(19);
    const EXTENDED: u8 = tag::application(24);
    const INTERMEDIATE: u8 = tag::application(25);
    let answer = match operation {
        ENTRY => Answer::Entry(Entry::decode(content)?),
        REFERENCE => Answer::Reference,
        DONE => Answer::SearchDone(decode_result(&mut Reader::new(&content), &controls)?),
        BIND => Answer::Bind(decode_result(&mut Reader::new(&content), &controls)?),
        EXTENDED => Answer::Extended(decode_result(&mut Reader::new(&content), &controls)?),
        INTERMEDIATE => {
            let mut inner = Reader::new(&content);
            let name = inner.optional(tag::context(0))?.map(lossy);
            let value = inner.optional(tag::context(1))?.map(|value| content.slice_ref(value));
            Answer::Intermediate { name, value }
        }
        _ => Answer::Other,
    };
    Ok(Message { id, answer, controls })
}

fn decode_result(reader: &mut Reader<'_>, controls: &[Control]) -> Result<OperationResult, BerError> {
    let code = reader.enumerated()?;
    let matched_dn = lossy(reader.octets()?);
    let diagnostic = reader.octets()?;
    let diagnostic = &diagnostic[..diagnostic.len().min(limits::DIAGNOSTIC_MAX_BYTES)];
    let mut referrals = 0;
    if let Some(list) = reader.optional(tag::context_constructed(3))? {
        let mut list = Reader::new(list);
        while !list.is_empty() {
            list.octets()?;
            referrals += 1;
        }
    }
    Ok(OperationResult {
        code: ResultCode(u32::try_from(code).unwrap_or(u32::MAX)),
        matched_dn,
        diagnostic: lossy(diagnostic).trim_end_matches('\0').to_owned(),
        referrals,
        controls: controls.to_vec(),
    })
}

fn decode_controls(body: &Bytes, list: &[u8]) -> Result<Vec<Control>, BerError> {
    let mut controls = Vec::new();
    let mut list = Reader::new(list);
    while !list.is_empty() {
        let mut one = Reader::new(list.expect(tag::SEQUENCE)?);
        let oid = lossy(one.octets()?);
        let critical = one.optional(tag::BOOLEAN)?.is_some_and(|flag| flag.first().is_some_and(|&b| b != 0));
        let value = one.optional(tag::OCTETS)?.map(|value| body.slice_ref(value));
        controls.push(Control { oid, critical, value });
    }
    Ok(controls)
}

fn lossy(octets: &[u8]) -> String {
    String::from_utf8_lossy(octets).into_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..256)) {
            let mut buffer = BytesMut::from(&bytes[..]);
            while let Ok(Some(_)) = take(&mut buffer) {}
        }

        #[test]
        fn a_damaged_message_never_panics(at in 0_usize..60, to: u8) {
            let mut bytes = vec![0x30, 0x84, 0, 0, 0, 0, 2, 1, 7];
            bytes.extend_from_slice(&[0x65, 9, 10, 1, 49, 4, 0, 4, 2, b'n', b'o']);
            bytes.extend_from_slice(&[0xa0, 11, 0x30, 9, 4, 3, b'1', b'.', b'2', 4, 2, 0x30, 0]);
            bytes[5] = (bytes.len() - 6) as u8;
            if let Some(octet) = bytes.get_mut(at) {
                *octet = to;
            }
            let _ = take(&mut BytesMut::from(&bytes[..]));
        }
    }

    #[test]
    fn a_bind_is_what_rfc_4511_says() {
        let bytes = bind(2, "cn=a", b"pw", &[]);
        let expected: &[u8] = b"\x30\x12\x02\x01\x02\x60\x0d\x02\x01\x03\x04\x04cn=a\x80\x02pw";
        assert_eq!(&bytes[..], expected);
    }

    #[test]
    fn a_message_that_announces_gigabytes_is_refused_at_its_header() {
        let mut buffer = BytesMut::from(&[0x30, 0x84, 0x7f, 0xff, 0xff, 0xff][..]);
        assert!(matches!(take(&mut buffer), Err(MessageError::TooLarge { bytes: 0x7fff_ffff })));
    }

    #[test]
    fn half_a_message_waits_for_the_rest() {
        let mut buffer = BytesMut::from(&[0x30, 0x0c, 2, 1, 1][..]);
        assert!(take(&mut buffer).unwrap().is_none());
        assert_eq!(buffer.len(), 5);
        assert_eq!(missing(&buffer), 9);
    }

    #[test]
    fn room_is_made_for_what_may_come_only() {
        for (start, wanted) in [
            (&[][..], 0),
            (&[0x30, 0x84, 0x7f, 0xff], 0),
            (&[0x30, 0x84, 0x7f, 0xff, 0xff, 0xff], 0),
            (&[0x30, 3, 2, 1, 1, 9, 9], 0),
            (&[0x30, 0x83, 0x10, 0, 0, 2], 0x10_0000 - 1),
        ] {
            assert_eq!(missing(start), wanted, "{start:?}");
        }
    }

    #[test]
    fn nesting_does_not_recurse() {
        // A million opened sequences inside an attribute list: refused at the first level that does not fit.
        let mut content = vec![0x30; 1 << 20];
        content[0] = 4;
        content[1] = 0;
        let mut bytes = vec![0x30, 0x84];
        let body_len = content.len() + 6 + 3;
        bytes.extend_from_slice(&(body_len as u32).to_be_bytes());
        bytes.extend_from_slice(&[2, 1, 1, 0x64, 0x84]);
        bytes.extend_from_slice(&(content.len() as u32).to_be_bytes());
        bytes.extend_from_slice(&content);
        assert!(take(&mut BytesMut::from(&bytes[..])).is_err());
    }

    #[test]
    fn diagnostics_lose_the_final_nul_of_active_directory() {
        let content = [10, 1, 49, 4, 0, 4, 3, b'b', b'a', 0];
        let result = decode_result(&mut Reader::new(&content), &[]).unwrap();
        assert_eq!((result.code, result.diagnostic.as_str()), (ResultCode::INVALID_CREDENTIALS, "ba"));
    }
}
