//! Protocol-level faults: what a rule's words mean in LDAP. The README lists them.

use std::time::Duration;

use bytes::{BufMut, Bytes};
use causeway_mock_kit::fault::{Fault, Point};
use serde_json::Value;
use tokio::time::Instant;

use super::{Call, Held, Session};
use crate::ber;
use crate::dit::{LdapFailure, ResultCode};
use crate::limits::FAULT_VALUES_MAX;
use crate::message::{self, Outcome, tag};
use crate::result;

/// How a request is treated differently although it is executed.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Twist {
    /// Responses carry an id nobody asked with.
    pub(super) wrong_id: bool,
    /// The connection breaks after so many entries of this search.
    pub(super) close_after_entries: Option<usize>,
    /// A paged search is refused when it carries a cookie.
    pub(super) refuse_cookie: bool,
    /// A search pauses so long after each entry.
    pub(super) pause_per_entry: Option<Duration>,
    /// A search answers one entry with so many values.
    pub(super) entry_with_values: Option<usize>,
}

pub(super) enum Steer {
    Go(Twist),
    /// The fault has answered, or nothing will.
    Taken,
}

impl Session {
    /// Asks the fault rules about a request, and does what they say unless the request is to be executed.
    pub(super) fn steer(&mut self, call: &Call, frame: &Bytes, released: bool) -> Steer {
        if released {
            return Steer::Go(Twist::default());
        }
        let point = Point { front: self.front.name, operation: call.word, subject: &call.subject };
        match self.shared.cx.faults.protocol_fault(&point) {
            None => Steer::Go(Twist::default()),
            Some(Fault::Delay { ms }) => {
                let at = Instant::now() + Duration::from_millis(ms);
                let blocks = call.word == "bind";
                self.held.push(Held { id: call.id, frame: frame.clone(), at, blocks });
                Steer::Taken
            }
            Some(Fault::Stall {}) => {
                self.note(call, "stalled");
                Steer::Taken
            }
            Some(Fault::Close {}) => {
                self.note(call, "closed");
                self.dropped = true;
                Steer::Taken
            }
            Some(Fault::Status { code, message }) => {
                self.answer_status(call, &code, &message);
                Steer::Taken
            }
            Some(Fault::Malformed { kind }) => self.malform(call, &kind),
            Some(Fault::Custom { word, args }) => self.custom(call, &word, &args),
            // TCP-level faults are the stream's and never come here.
            Some(_) => Steer::Go(Twist::default()),
        }
    }

    fn answer_status(&mut self, call: &Call, code: &str, text: &str) {
        let code = result::parse(code).unwrap_or(ResultCode::OTHER);
        let failure = LdapFailure::new(code, text);
        if call.tag == 0 {
            return self.note(call, "no answer to fault");
        }
        self.finish(call, Some(&failure), &[]);
    }

    fn malform(&mut self, call: &Call, kind: &str) -> Steer {
        let out = self.wire.out();
        match kind {
            "wrong_message_id" => return Steer::Go(Twist { wrong_id: true, ..Twist::default() }),
            "truncated_ber" => {
                let start = out.len();
                message::put_result(out, call.id, call.tag, Outcome::SUCCESS, &[], |_| {});
                let half = start + (out.len() - start) / 2;
                out.truncate(half);
                self.closing = true;
            }
            // A message that says it is 2 GiB long and never comes to its end.
            "oversized_ber" => {
                out.put_slice(&[ber::SEQUENCE, 0x84, 0x7f, 0xff, 0xff, 0xff, 0x02, 0x01, 0x01])
            }
            "indefinite_length" => out.put_slice(&[ber::SEQUENCE, 0x80, 0x02, 0x01, 0x01, 0, 0]),
            "garbage" => out.put_slice(b"HTTP/1.1 400 Bad Request\r\n\r\n"),
            "nesting_bomb" => put_nesting_bomb(out, call.id, 10_000),
            "non_utf8" => put_non_utf8(out, call),
            _ => return self.unknown_word(call, kind),
        }
        self.note(call, kind);
        Steer::Taken
    }

    fn custom(&mut self, call: &Call, word: &str, args: &Value) -> Steer {
        let number = |key: &str| args.get(key).and_then(Value::as_u64);
        match word {
            "close_mid_page" => {
                let entries = number("entries").unwrap_or(10) as usize;
                Steer::Go(Twist { close_after_entries: Some(entries), ..Twist::default() })
            }
            "refuse_cookie" => Steer::Go(Twist { refuse_cookie: true, ..Twist::default() }),
            "slow_page" => {
                let pause = Duration::from_millis(number("ms_per_entry").unwrap_or(10));
                Steer::Go(Twist { pause_per_entry: Some(pause), ..Twist::default() })
            }
            "huge_entry" => {
                let values = number("values").unwrap_or(50_000).min(FAULT_VALUES_MAX as u64) as usize;
                Steer::Go(Twist { entry_with_values: Some(values), ..Twist::default() })
            }
            "referral_loop" => {
                let scheme = if self.wire.is_tls() { "ldaps" } else { "ldap" };
                let mut failure = LdapFailure::new(ResultCode::REFERRAL, "");
                let host = self.shared.names.endpoint(self.front.name).unwrap_or_default();
                failure.referrals = vec![format!("{scheme}://{host}/{}", call.subject)];
                self.finish(call, Some(&failure), &[]);
                Steer::Taken
            }
            "disconnect" => {
                let code = args.get("code").and_then(Value::as_str).and_then(result::parse);
                self.note(call, "disconnected");
                self.disconnect(code.unwrap_or(ResultCode::UNAVAILABLE), "told to disconnect");
                Steer::Taken
            }
            _ => self.unknown_word(call, word),
        }
    }

    /// A rule with a misspelt word must not pass unnoticed.
    fn unknown_word(&mut self, call: &Call, word: &str) -> Steer {
        tracing::warn!(word, "Fault rule with a word this mock does not know");
        self.answer_status(call, "other", &format!("fault word {word:?} is not known to mock-ldap"));
        Steer::Taken
    }
}

/// A response whose operation nests `depth` sequences.
fn put_nesting_bomb(out: &mut bytes::BytesMut, id: i32, depth: usize) {
    message::put_message(out, id, &[], |out| {
        let opened: Vec<_> = (0..depth).map(|_| ber::begin(out, ber::SEQUENCE)).collect();
        opened.into_iter().rev().for_each(|open| ber::end(out, open));
    });
}

/// Text fields (RFC 4511 section 4.1.2 says UTF-8) with bytes that are not.
fn put_non_utf8(out: &mut bytes::BytesMut, call: &Call) {
    const BAD: &[u8] = b"CN=J\xe4ne \xff\xfe,DC=acme";
    if call.tag == tag::SEARCH_RESULT_DONE {
        message::put_entry(out, call.id, &[], |out| {
            ber::put_octets(out, BAD);
            ber::constructed(out, ber::SEQUENCE, |out| {
                ber::constructed(out, ber::SEQUENCE, |out| {
                    ber::put_octets(out, b"displayName");
                    ber::constructed(out, ber::SET, |out| ber::put_octets(out, b"J\xe4ne \xff\xfe"));
                });
            });
            true
        });
    }
    let outcome = Outcome { code: 0, matched_dn: b"", message: b"gr\xfc\xdfe \xff", referrals: &[] };
    message::put_result(out, call.id, call.tag, outcome, &[], |_| {});
}

/// The body of an entry nobody has, with `count` values of `member`.
pub(super) fn put_entry_with_values(out: &mut bytes::BytesMut, base: &str, count: usize) -> bool {
    ber::put_octets(out, format!("CN=Entry with {count} values,{base}").as_bytes());
    ber::constructed(out, ber::SEQUENCE, |out| {
        ber::constructed(out, ber::SEQUENCE, |out| {
            ber::put_octets(out, b"member");
            ber::constructed(out, ber::SET, |out| {
                (0..count).for_each(|n| ber::put_octets(out, format!("CN=Value {n},{base}").as_bytes()));
            });
        });
    });
    true
}
