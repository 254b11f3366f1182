//! The messages of Kerberos 5 (RFC 4120 5) that a service and a small KDC read and write.

use super::crypto::{Enctype, Key, Usage, WrongKey};
use crate::der::{DerError, Reader, element, field, flags, integer, octets, sequence, tag, text, time};

/// RFC 4120 5.4.1: version of everything.
const VERSION: i64 = 5;

/// `NT-PRINCIPAL` and `NT-SRV-INST` (RFC 4120 6.2).
pub(super) const NT_PRINCIPAL: i64 = 1;
const NT_SRV_INST: i64 = 2;

/// A name of more parts than this is nobody's.
const NAME_PARTS_MAX: usize = 8;
/// Pre-authentication data, encryption types, in one request.
const LIST_MAX: usize = 32;

/// Codes of KRB-ERROR (RFC 4120 7.5.9).
pub(super) mod code {
    pub(crate) const CLIENT_UNKNOWN: i64 = 6;
    pub(crate) const SERVICE_UNKNOWN: i64 = 7;
    pub(crate) const NO_ENCTYPE: i64 = 14;
    pub(crate) const CLIENT_REVOKED: i64 = 18;
    pub(crate) const KEY_EXPIRED: i64 = 23;
    pub(crate) const PREAUTH_FAILED: i64 = 24;
    pub(crate) const PREAUTH_REQUIRED: i64 = 25;
    pub(crate) const TICKET_EXPIRED: i64 = 32;
    pub(crate) const TICKET_NOT_YET_VALID: i64 = 33;
    pub(crate) const REPEATED: i64 = 34;
    pub(crate) const BAD_MATCH: i64 = 36;
    pub(crate) const SKEW: i64 = 37;
    pub(crate) const MODIFIED: i64 = 41;
    pub(crate) const NO_KEY: i64 = 45;
    pub(crate) const BAD_CHECKSUM: i64 = 50;
    pub(crate) const GENERIC: i64 = 60;
    pub(crate) const WRONG_REALM: i64 = 68;
}

/// A principal without its realm.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Name {
    pub(super) kind: i64,
    pub(super) parts: Vec<String>,
}

impl Name {
    pub(super) fn person(login: &str) -> Self {
        Self { kind: NT_PRINCIPAL, parts: vec![login.to_owned()] }
    }

    pub(super) fn service(parts: &[&str]) -> Self {
        Self { kind: NT_SRV_INST, parts: parts.iter().map(|part| (*part).to_owned()).collect() }
    }

    /// As people write it.
    pub(super) fn text(&self) -> String {
        self.parts.join("/")
    }

    pub(super) fn is(&self, other: &Self) -> bool {
        self.parts.len() == other.parts.len()
            && self.parts.iter().zip(&other.parts).all(|(one, two)| one.eq_ignore_ascii_case(two))
    }

    fn read(mut from: Reader<'_>) -> Result<Self, DerError> {
        let mut fields = from.enter(tag::SEQUENCE, "PrincipalName")?;
        let kind = fields.field(0, "name-type")?.integer("name-type")?;
        let mut list = fields.field(1, "name-string")?.enter(tag::SEQUENCE, "name-string")?;
        let mut parts = Vec::new();
        while list.peek().is_some() && parts.len() < NAME_PARTS_MAX {
            parts.push(list.text("name-string")?);
        }
        if list.peek().is_some() || parts.is_empty() {
            return Err(DerError { at: "name-string" });
        }
        Ok(Self { kind, parts })
    }

    pub(super) fn write(&self) -> Vec<u8> {
        let parts: Vec<Vec<u8>> = self.parts.iter().map(|part| text(part)).collect();
        sequence(&[field(0, &integer(self.kind)), field(1, &sequence(&parts))])
    }
}

/// Something sealed, and with what type of key.
#[derive(Clone, Debug)]
pub(super) struct Encrypted {
    pub(super) enctype: i64,
    cipher: Vec<u8>,
}

impl Encrypted {
    pub(super) fn new(key: &Key, usage: Usage, plain: &[u8]) -> Self {
        Self { enctype: key.enctype().number(), cipher: key.seal(usage, plain) }
    }

    pub(super) fn open(&self, key: &Key, usage: Usage) -> Result<Vec<u8>, WrongKey> {
        match self.enctype == key.enctype().number() {
            true => key.open(usage, &self.cipher),
            false => Err(WrongKey),
        }
    }

    fn read(mut from: Reader<'_>) -> Result<Self, DerError> {
        let mut fields = from.enter(tag::SEQUENCE, "EncryptedData")?;
        let enctype = fields.field(0, "etype")?.integer("etype")?;
        fields.skip_if(tag::context(1), "kvno")?;
        Ok(Self { enctype, cipher: fields.field(2, "cipher")?.octets("cipher")? })
    }

    fn write(&self) -> Vec<u8> {
        sequence(&[field(0, &integer(self.enctype)), field(2, &octets(&self.cipher))])
    }

    /// As it stands inside pre-authentication data.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, DerError> {
        Self::read(Reader(bytes))
    }
}

/// A key as messages carry it; of a type nobody here knows, none.
fn read_key(mut from: Reader<'_>) -> Result<Option<Key>, DerError> {
    let mut fields = from.enter(tag::SEQUENCE, "EncryptionKey")?;
    let enctype = fields.field(0, "keytype")?.integer("keytype")?;
    let bytes = fields.field(1, "keyvalue")?.octets("keyvalue")?;
    Ok(Enctype::numbered(enctype).and_then(|enctype| Key::from_bytes(enctype, &bytes)))
}

fn write_key(key: &Key) -> Vec<u8> {
    sequence(&[field(0, &integer(key.enctype().number())), field(1, &octets(key.bytes()))])
}

/// A ticket (RFC 4120 5.3).
#[derive(Clone, Debug)]
pub(super) struct Ticket {
    pub(super) realm: String,
    pub(super) service: Name,
    pub(super) sealed: Encrypted,
}

impl Ticket {
    fn read(from: &mut Reader<'_>) -> Result<Self, DerError> {
        let mut fields = from.enter(tag::application(1), "Ticket")?.enter(tag::SEQUENCE, "Ticket")?;
        fields.skip_if(tag::context(0), "tkt-vno")?;
        Ok(Self {
            realm: fields.field(1, "realm")?.text("realm")?,
            service: Name::read(fields.field(2, "sname")?)?,
            sealed: Encrypted::read(fields.field(3, "enc-part")?)?,
        })
    }

    pub(super) fn write(&self) -> Vec<u8> {
        let fields = [
            field(0, &integer(VERSION)),
            field(1, &text(&self.realm)),
            field(2, &self.service.write()),
            field(3, &self.sealed.write()),
        ];
        element(tag::application(1), &sequence(&fields))
    }
}

/// What a ticket says to the service it is for.
pub(super) struct TicketPart {
    pub(super) key: Key,
    pub(super) realm: String,
    pub(super) client: Name,
    pub(super) start_secs: i64,
    pub(super) end_secs: i64,
}

/// Initial, pre-authenticated (RFC 4120 5.3).
pub(super) const TICKET_FLAGS: u32 = 0x0060_0000;

impl TicketPart {
    pub(super) fn read(plain: &[u8]) -> Result<Option<Self>, DerError> {
        let mut outer = Reader(plain);
        let mut fields =
            outer.enter(tag::application(3), "EncTicketPart")?.enter(tag::SEQUENCE, "EncTicketPart")?;
        fields.skip_if(tag::context(0), "flags")?;
        let key = read_key(fields.field(1, "key")?)?;
        let realm = fields.field(2, "crealm")?.text("crealm")?;
        let client = Name::read(fields.field(3, "cname")?)?;
        fields.skip_if(tag::context(4), "transited")?;
        let authenticated = fields.field(5, "authtime")?.time("authtime")?;
        let start = fields.field_if(6, "starttime")?.map(|mut at| at.time("starttime")).transpose()?;
        let end_secs = fields.field(7, "endtime")?.time("endtime")?;
        let start_secs = start.unwrap_or(authenticated);
        Ok(key.map(|key| Self { key, realm, client, start_secs, end_secs }))
    }

    pub(super) fn write(&self) -> Vec<u8> {
        let transited = sequence(&[field(0, &integer(0)), field(1, &octets(&[]))]);
        let fields = [
            field(0, &flags(TICKET_FLAGS)),
            field(1, &write_key(&self.key)),
            field(2, &text(&self.realm)),
            field(3, &self.client.write()),
            field(4, &transited),
            field(5, &time(self.start_secs)),
            field(6, &time(self.start_secs)),
            field(7, &time(self.end_secs)),
        ];
        element(tag::application(3), &sequence(&fields))
    }
}

/// What a client shows to a service (RFC 4120 5.5.1).
pub(super) struct ApRequest {
    pub(super) mutual: bool,
    pub(super) ticket: Ticket,
    pub(super) authenticator: Encrypted,
}

impl ApRequest {
    pub(super) fn read(bytes: &[u8]) -> Result<Self, DerError> {
        /// `mutual-required` of APOptions.
        const MUTUAL: u8 = 0x20;
        let mut outer = Reader(bytes);
        let mut fields = outer.enter(tag::application(14), "AP-REQ")?.enter(tag::SEQUENCE, "AP-REQ")?;
        fields.skip_if(tag::context(0), "pvno")?;
        fields.skip_if(tag::context(1), "msg-type")?;
        let options = fields.field(2, "ap-options")?.take(tag::BITS, "ap-options")?;
        Ok(Self {
            mutual: options.get(1).is_some_and(|first| first & MUTUAL != 0),
            ticket: Ticket::read(&mut fields.field(3, "ticket")?)?,
            authenticator: Encrypted::read(fields.field(4, "authenticator")?)?,
        })
    }
}

/// Proof that who shows the ticket knows its key (RFC 4120 5.5.1).
pub(super) struct Authenticator {
    pub(super) realm: String,
    pub(super) client: Name,
    /// Type and value.
    pub(super) checksum: Option<(i64, Vec<u8>)>,
    pub(super) micros: i64,
    pub(super) secs: i64,
    pub(super) subkey: Option<Key>,
    pub(super) sequence: u64,
}

impl Authenticator {
    pub(super) fn read(plain: &[u8]) -> Result<Self, DerError> {
        let mut outer = Reader(plain);
        let mut fields =
            outer.enter(tag::application(2), "Authenticator")?.enter(tag::SEQUENCE, "Authenticator")?;
        fields.skip_if(tag::context(0), "authenticator-vno")?;
        let realm = fields.field(1, "crealm")?.text("crealm")?;
        let client = Name::read(fields.field(2, "cname")?)?;
        let mut checksum = None;
        if let Some(mut inside) = fields.field_if(3, "cksum")? {
            let mut inside = inside.enter(tag::SEQUENCE, "cksum")?;
            let kind = inside.field(0, "cksumtype")?.integer("cksumtype")?;
            checksum = Some((kind, inside.field(1, "checksum")?.octets("checksum")?));
        }
        let micros = fields.field(4, "cusec")?.integer("cusec")?;
        let secs = fields.field(5, "ctime")?.time("ctime")?;
        let subkey = fields.field_if(6, "subkey")?.map(read_key).transpose()?.flatten();
        // Some write this unsigned number as a signed one (RFC 4120 5.5.1, note at seq-number).
        let number = fields.field_if(7, "seq-number")?.map(|mut at| at.integer("seq-number")).transpose()?;
        let sequence = u64::from(number.unwrap_or_default() as u32);
        Ok(Self { realm, client, checksum, micros, secs, subkey, sequence })
    }
}

/// AP-REP (RFC 4120 5.5.2), sealed with the ticket's key.
pub(super) fn ap_reply(key: &Key, to: &Authenticator, subkey: &Key, sequence_number: u32) -> Vec<u8> {
    let part = [
        field(0, &time(to.secs)),
        field(1, &integer(to.micros)),
        field(2, &write_key(subkey)),
        field(3, &integer(i64::from(sequence_number))),
    ];
    let part = element(tag::application(27), &sequence(&part));
    let sealed = Encrypted::new(key, Usage::ApReply, &part);
    let fields = [field(0, &integer(VERSION)), field(1, &integer(15)), field(2, &sealed.write())];
    element(tag::application(15), &sequence(&fields))
}

/// A KRB-ERROR (RFC 4120 5.9.1).
pub(super) struct Failure<'a> {
    pub(super) code: i64,
    pub(super) now_ms: i64,
    pub(super) realm: &'a str,
    pub(super) service: &'a Name,
    /// `METHOD-DATA`, or nothing.
    pub(super) methods: Option<Vec<u8>>,
}

impl Failure<'_> {
    pub(super) fn write(&self) -> Vec<u8> {
        let mut fields = vec![
            field(0, &integer(VERSION)),
            field(1, &integer(30)),
            field(4, &time(self.now_ms.div_euclid(1000))),
            field(5, &integer(self.now_ms.rem_euclid(1000) * 1000)),
            field(6, &integer(self.code)),
            field(9, &text(self.realm)),
            field(10, &self.service.write()),
        ];
        if let Some(methods) = &self.methods {
            fields.push(field(12, &octets(methods)));
        }
        element(tag::application(30), &sequence(&fields))
    }
}

/// A request to the KDC (RFC 4120 5.4.1).
pub(super) struct KdcRequest {
    /// For a first ticket (AS-REQ), or for one of a service (TGS-REQ).
    pub(super) first: bool,
    /// Type and value.
    pub(super) padata: Vec<(i64, Vec<u8>)>,
    /// The body as it came, for its checksum.
    pub(super) body: Vec<u8>,
    pub(super) client: Option<Name>,
    pub(super) realm: String,
    pub(super) service: Option<Name>,
    pub(super) till_secs: i64,
    pub(super) nonce: i64,
    pub(super) enctypes: Vec<i64>,
}

impl KdcRequest {
    pub(super) fn read(bytes: &[u8]) -> Result<Self, DerError> {
        let mut outer = Reader(bytes);
        let first = outer.peek() == Some(tag::application(10));
        let number = if first { 10 } else { 12 };
        let mut fields = outer.enter(tag::application(number), "KDC-REQ")?.enter(tag::SEQUENCE, "KDC-REQ")?;
        fields.skip_if(tag::context(1), "pvno")?;
        fields.skip_if(tag::context(2), "msg-type")?;
        let mut padata = Vec::new();
        if let Some(mut inside) = fields.field_if(3, "padata")? {
            let mut list = inside.enter(tag::SEQUENCE, "padata")?;
            while list.peek().is_some() && padata.len() < LIST_MAX {
                let mut one = list.enter(tag::SEQUENCE, "PA-DATA")?;
                let kind = one.field(1, "padata-type")?.integer("padata-type")?;
                padata.push((kind, one.field(2, "padata-value")?.octets("padata-value")?));
            }
        }
        let mut inside = fields.field(4, "req-body")?;
        let body = inside.whole(tag::SEQUENCE, "req-body")?.to_vec();
        let mut fields = Reader(&body).enter(tag::SEQUENCE, "req-body")?;
        fields.skip_if(tag::context(0), "kdc-options")?;
        let client = fields.field_if(1, "cname")?.map(Name::read).transpose()?;
        let realm = fields.field(2, "realm")?.text("realm")?;
        let service = fields.field_if(3, "sname")?.map(Name::read).transpose()?;
        fields.skip_if(tag::context(4), "from")?;
        let till_secs = fields.field(5, "till")?.time("till")?;
        fields.skip_if(tag::context(6), "rtime")?;
        let nonce = fields.field(7, "nonce")?.integer("nonce")?;
        let mut list = fields.field(8, "etype")?.enter(tag::SEQUENCE, "etype")?;
        let mut enctypes = Vec::new();
        while list.peek().is_some() && enctypes.len() < LIST_MAX {
            enctypes.push(list.integer("etype")?);
        }
        Ok(Self { first, padata, body, client, realm, service, till_secs, nonce, enctypes })
    }

    /// The kind of request, and who or what it is about, for journals.
    pub(super) fn asks(&self) -> (&'static str, String) {
        let text = |name: &Option<Name>| name.as_ref().map(Name::text).unwrap_or_default();
        if self.first { ("as_req", text(&self.client)) } else { ("tgs_req", text(&self.service)) }
    }

    pub(super) fn padata(&self, kind: i64) -> Option<&[u8]> {
        self.padata.iter().find(|(found, _)| *found == kind).map(|(_, value)| value.as_slice())
    }
}

/// The answer to a request (RFC 4120 5.4.2).
pub(super) struct KdcReply<'a> {
    /// For AS-REP, not TGS-REP.
    pub(super) first: bool,
    pub(super) padata: Option<Vec<u8>>,
    pub(super) nonce: i64,
    pub(super) ticket: &'a Ticket,
    pub(super) part: &'a TicketPart,
}

impl KdcReply<'_> {
    /// Sealed with the client's key or that of its session.
    pub(super) fn write(&self, key: &Key, usage: Usage) -> Vec<u8> {
        let (part, ticket) = (self.part, self.ticket);
        let last = sequence(&[sequence(&[field(0, &integer(0)), field(1, &time(part.start_secs))])]);
        let inside = [
            field(0, &write_key(&part.key)),
            field(1, &last),
            field(2, &integer(self.nonce)),
            field(4, &flags(TICKET_FLAGS)),
            field(5, &time(part.start_secs)),
            field(6, &time(part.start_secs)),
            field(7, &time(part.end_secs)),
            field(9, &text(&ticket.realm)),
            field(10, &ticket.service.write()),
        ];
        let numbers = if self.first { (25, 11) } else { (26, 13) };
        let sealed = Encrypted::new(key, usage, &element(tag::application(numbers.0), &sequence(&inside)));
        let mut fields = vec![field(0, &integer(VERSION)), field(1, &integer(i64::from(numbers.1)))];
        if let Some(padata) = &self.padata {
            fields.push(field(2, padata));
        }
        fields.extend([
            field(3, &text(&part.realm)),
            field(4, &part.client.write()),
            field(5, &ticket.write()),
            field(6, &sealed.write()),
        ]);
        element(tag::application(numbers.1), &sequence(&fields))
    }
}

/// One PA-DATA.
pub(super) fn padata(kind: i64, value: &[u8]) -> Vec<u8> {
    sequence(&[field(1, &integer(kind)), field(2, &octets(value))])
}

/// PA-ETYPE-INFO2 (RFC 4120 5.2.7.5) of one type.
pub(super) fn etype_info(enctype: Enctype, salt: &str) -> Vec<u8> {
    sequence(&[sequence(&[field(0, &integer(enctype.number())), field(1, &text(salt))])])
}
