//! Questions and answers of DNS (RFC 1035, SRV of RFC 2782, AAAA of RFC 3596), as far as an agent asks.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use thiserror::Error;

/// Of the header; the rest are sections.
const HEADER_BYTES: usize = 12;
/// A name as it travels (RFC 1035 §3.1).
const NAME_MAX_BYTES: usize = 255;
/// One label of a name.
const LABEL_MAX_BYTES: usize = 63;
/// Names behind names within one answer; resolvers give up sooner.
const ALIASES_MAX: usize = 16;
/// The class of the internet.
const IN: u16 = 1;
const CNAME: u16 = 5;
const SOA: u16 = 6;
/// "No such name" (RFC 1035 §4.1.1).
const NAME_ERROR: u8 = 3;

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    A = 1,
    Aaaa = 28,
    Srv = 33,
}

/// One record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Data {
    Address(IpAddr),
    Service { priority: u16, weight: u16, port: u16, host: String },
}

/// What a server answered, and for how long that holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) found: Found,
    pub(super) holds: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Found {
    Records(Vec<Data>),
    /// The name is another one's alias, of which the server said nothing.
    Alias(String),
    /// There is no such name, or nothing of this kind under it.
    Nothing,
}

/// Why a message is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(super) enum WireError {
    #[error("the answer cannot be read")]
    Malformed,
    /// Somebody else's, or a forged one.
    #[error("an answer to another question")]
    NotOurs,
    /// To be asked again over TCP.
    #[error("the answer is cut short")]
    Truncated,
    #[error("the server answers {}", code_name(*.0))]
    Refused(u8),
}

/// Whether DNS can carry it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("this is no name of DNS")]
pub(super) struct NoName;

fn code_name(code: u8) -> &'static str {
    match code {
        1 => "that it does not understand the question",
        2 => "that it has failed (SERVFAIL)",
        4 => "that it cannot do this",
        5 => "that it refuses",
        _ => "with an error",
    }
}

/// A question with recursion, for names without a final dot.
pub(super) fn question(id: u16, name: &str, kind: Kind) -> Result<Vec<u8>, NoName> {
    let mut bytes = Vec::with_capacity(HEADER_BYTES + name.len() + 6);
    bytes.extend(id.to_be_bytes());
    // Recursion desired, one question.
    bytes.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in name.split('.').filter(|_| !name.is_empty()) {
        let fits =
            (1..=LABEL_MAX_BYTES).contains(&label.len()) && label.bytes().all(|c| c.is_ascii_graphic());
        let length = u8::try_from(label.len()).ok().filter(|_| fits).ok_or(NoName)?;
        bytes.push(length);
        bytes.extend(label.bytes());
    }
    bytes.push(0);
    if bytes.len() > HEADER_BYTES + NAME_MAX_BYTES {
        return Err(NoName);
    }
    bytes.extend((kind as u16).to_be_bytes());
    bytes.extend(IN.to_be_bytes());
    Ok(bytes)
}

/// Reads the answer to [`question`].
pub(super) fn answer(message: &[u8], id: u16, name: &str, kind: Kind) -> Result<Answer, WireError> {
    let mut reader = Reader { message, at: 0 };
    let (got, flags) = (reader.u16()?, reader.u16()?);
    let [questions, answers, authorities, _] = [reader.u16()?, reader.u16()?, reader.u16()?, reader.u16()?];
    if got != id || flags & 0x8000 == 0 {
        return Err(WireError::NotOurs);
    }
    // Servers that fail early leave the question out.
    let code = flags.to_be_bytes()[1] & 0x0f;
    if questions == 1 {
        let asked = reader.name()?;
        if !asked.eq_ignore_ascii_case(name) || reader.u16()? != kind as u16 || reader.u16()? != IN {
            return Err(WireError::NotOurs);
        }
    } else if code == 0 || code == NAME_ERROR {
        return Err(WireError::NotOurs);
    }
    if flags & 0x0200 != 0 {
        return Err(WireError::Truncated);
    }
    if code != 0 && code != NAME_ERROR {
        return Err(WireError::Refused(code));
    }
    let mut records = Vec::new();
    for _ in 0..answers {
        records.extend(reader.record()?);
    }
    let found = follow(&records, name, kind);
    let holds_secs = match &found {
        // How long it holds that there is nothing is in the zone's SOA (RFC 2308 §5).
        Found::Nothing => {
            let mut least = 0;
            for _ in 0..authorities {
                if let Some(Record { content: Content::Soa { minimum }, ttl, .. }) = reader.record()? {
                    least = minimum.min(ttl);
                }
            }
            least
        }
        _ => records.iter().map(|record| record.ttl).min().unwrap_or(0),
    };
    Ok(Answer { found, holds: Duration::from_secs(holds_secs.into()) })
}

/// From alias to alias to what was asked for.
fn follow(records: &[Record], name: &str, kind: Kind) -> Found {
    let mut current = name;
    for _ in 0..ALIASES_MAX {
        let of_current = || records.iter().filter(|record| record.owner.eq_ignore_ascii_case(current));
        let data: Vec<Data> = of_current()
            .filter_map(|record| match &record.content {
                Content::Data(of, data) if *of == kind => Some(data.clone()),
                _ => None,
            })
            .collect();
        if !data.is_empty() {
            return Found::Records(data);
        }
        let alias = of_current().find_map(|record| match &record.content {
            Content::Alias(target) => Some(target.as_str()),
            _ => None,
        });
        match alias {
            Some(target) => current = target,
            None if current == name => return Found::Nothing,
            None => return Found::Alias(current.to_owned()),
        }
    }
    Found::Nothing
}

struct Record {
    owner: String,
    ttl: u32,
    content: Content,
}

enum Content {
    Data(Kind, Data),
    Alias(String),
    Soa { minimum: u32 },
}

struct Reader<'a> {
    message: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], WireError> {
        let end = self.at.checked_add(count).ok_or(WireError::Malformed)?;
        let taken = self.message.get(self.at..end).ok_or(WireError::Malformed)?;
        self.at = end;
        Ok(taken)
    }

    fn u8(&mut self) -> Result<u8, WireError> {
        Ok(self.take(1)?[0])
    }

    fn u16(&mut self) -> Result<u16, WireError> {
        let bytes = self.take(2)?;
        Ok(u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    fn u32(&mut self) -> Result<u32, WireError> {
        Ok((u32::from(self.u16()?) << 16) | u32::from(self.u16()?))
    }

    /// A name without its final dot. Pointers lead backwards only, so that there is no circle (RFC 1035 §4.1.4).
    fn name(&mut self) -> Result<String, WireError> {
        let mut name = String::new();
        let mut resume = None;
        let mut before = self.at;
        loop {
            let length = self.u8()?;
            match length {
                0 => break,
                1..=63 => {
                    let label = self.take(length.into())?;
                    if !label.iter().all(|c| c.is_ascii_graphic() && *c != b'.') {
                        return Err(WireError::Malformed);
                    }
                    if !name.is_empty() {
                        name.push('.');
                    }
                    name.extend(label.iter().map(|c| char::from(*c)));
                    if name.len() > NAME_MAX_BYTES {
                        return Err(WireError::Malformed);
                    }
                }
                0xc0..=0xff => {
                    let target = (usize::from(length & 0x3f) << 8) | usize::from(self.u8()?);
                    if target >= before {
                        return Err(WireError::Malformed);
                    }
                    resume.get_or_insert(self.at);
                    before = target;
                    self.at = target;
                }
                64..=0xbf => return Err(WireError::Malformed),
            }
        }
        self.at = resume.unwrap_or(self.at);
        Ok(name)
    }

    /// The next record; `None` when it is of no kind that matters here.
    fn record(&mut self) -> Result<Option<Record>, WireError> {
        let owner = self.name()?;
        let (kind, class, ttl) = (self.u16()?, self.u16()?, self.u32()?);
        let length = usize::from(self.u16()?);
        let end = self.at + length;
        let content = if class == IN { self.content(kind, length)? } else { None };
        // Within its own bytes, whatever it says.
        if self.at > end || end > self.message.len() {
            return Err(WireError::Malformed);
        }
        self.at = end;
        // The highest bit set means 0 (RFC 2181 §8).
        let ttl = if ttl > i32::MAX as u32 { 0 } else { ttl };
        Ok(content.map(|content| Record { owner, ttl, content }))
    }

    fn content(&mut self, kind: u16, length: usize) -> Result<Option<Content>, WireError> {
        let data = match (kind, length) {
            (1, 4) => {
                let octets: [u8; 4] = self.take(4)?.try_into().map_err(|_| WireError::Malformed)?;
                (Kind::A, Data::Address(Ipv4Addr::from(octets).into()))
            }
            (28, 16) => {
                let octets: [u8; 16] = self.take(16)?.try_into().map_err(|_| WireError::Malformed)?;
                (Kind::Aaaa, Data::Address(Ipv6Addr::from(octets).into()))
            }
            (1 | 28, _) => return Err(WireError::Malformed),
            (33, _) => {
                let (priority, weight, port) = (self.u16()?, self.u16()?, self.u16()?);
                (Kind::Srv, Data::Service { priority, weight, port, host: self.name()? })
            }
            (CNAME, _) => return Ok(Some(Content::Alias(self.name()?))),
            (SOA, _) => {
                let (_, _) = (self.name()?, self.name()?);
                self.take(16)?;
                return Ok(Some(Content::Soa { minimum: self.u32()? }));
            }
            _ => return Ok(None),
        };
        Ok(Some(Content::Data(data.0, data.1)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// `www.a` is an alias of `b`, whose address is 192.0.2.1; the names are compressed.
    fn aliased() -> Vec<u8> {
        let mut message = question(7, "www.a", Kind::A).unwrap();
        message[2] = 0x81;
        message[7] = 2;
        message.extend(b"\xc0\x0c\x00\x05\x00\x01\x00\x00\x00\x3c\x00\x03\x01b\x00");
        message.extend(b"\xc0\x23\x00\x01\x00\x01\x00\x00\x00\x1e\x00\x04\xc0\x00\x02\x01");
        message
    }

    fn read(message: &[u8]) -> Result<Answer, WireError> {
        answer(message, 7, "WWW.a", Kind::A)
    }

    #[test]
    fn an_alias_is_followed() {
        let message = aliased();
        let found = Found::Records(vec![Data::Address("192.0.2.1".parse().unwrap())]);
        assert_eq!(read(&message), Ok(Answer { found, holds: Duration::from_secs(30) }));
        let mut alone = message[..message.len() - 16].to_vec();
        alone[7] = 1;
        assert_eq!(read(&alone).map(|answer| answer.found), Ok(Found::Alias("b".to_owned())));
    }

    #[test]
    fn only_the_answer_to_our_question_counts() {
        let message = aliased();
        for (at, octet) in [(1, 8), (2, 0x01), (13, b'x'), (20, 28)] {
            let mut other = message.clone();
            other[at] = octet;
            assert_eq!(read(&other), Err(WireError::NotOurs), "{at}");
        }
        let mut short = message.clone();
        short[2] |= 2;
        assert_eq!(read(&short), Err(WireError::Truncated));
        let failed = [0, 7, 0x81, 2, 0, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(read(&failed), Err(WireError::Refused(2)));
    }

    #[test]
    fn no_such_name_holds_as_long_as_the_zone_says() {
        let mut message = question(7, "www.a", Kind::A).unwrap();
        message[2] = 0x81;
        message[3] = 3;
        message[9] = 1;
        message.extend(b"\x00\x00\x06\x00\x01\x00\x00\x0e\x10\x00\x16\x00\x00");
        message.extend([0; 16]);
        message.extend([0, 0, 0, 60]);
        assert_eq!(read(&message), Ok(Answer { found: Found::Nothing, holds: Duration::from_secs(60) }));
    }

    #[test]
    fn circles_of_pointers_and_aliases_end() {
        let mut message = question(7, "www.a", Kind::A).unwrap();
        message[2] = 0x81;
        message[7] = 1;
        let mut to_itself = message.clone();
        to_itself.extend(b"\xc0\x17\x00\x05");
        assert_eq!(read(&to_itself), Err(WireError::Malformed));
        message.extend(b"\xc0\x0c\x00\x05\x00\x01\x00\x00\x00\x3c\x00\x02\xc0\x0c");
        assert_eq!(read(&message).map(|answer| answer.found), Ok(Found::Nothing));
    }

    #[test]
    fn names_that_dns_cannot_carry_are_refused() {
        let long = "a.".repeat(128);
        for name in ["a..b", ".a", "a b", "\u{e4}.example", &"x".repeat(64), long.trim_end_matches('.')] {
            assert_eq!(question(1, name, Kind::A), Err(NoName), "{name}");
        }
        assert_eq!(question(1, "", Kind::A).unwrap()[12..], [0, 0, 1, 0, 1]);
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = read(&bytes);
        }

        #[test]
        fn a_damaged_answer_never_panics(at in 0_usize..60, to: u8) {
            let mut message = aliased();
            if let Some(octet) = message.get_mut(at) {
                *octet = to;
            }
            let _ = read(&message);
        }
    }
}
