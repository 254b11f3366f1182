//! A fault rule as tests, scenario files and the admin API write it.

use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;

/// One failure to inject, where, and how often.
#[derive(Serialize, Deserialize, ToSchema, Clone, Debug, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// A name for people; not unique.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Where the rule applies; everywhere when empty.
    #[serde(default)]
    pub on: Match,
    /// How many matches are disturbed; all when absent. A match is a request for a protocol-level fault, a
    /// connection for a TCP-level fault.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub times: Option<u32>,
    /// How many matches pass undisturbed first.
    #[serde(default)]
    pub after: u32,
    /// Which way data is disturbed, for TCP-level faults that concern data.
    #[serde(default)]
    pub stream: Stream,
    /// What happens.
    pub fault: Fault,
}

impl Rule {
    /// A rule that applies `fault` everywhere, always.
    pub fn new(fault: Fault) -> Self {
        Self { name: None, on: Match::default(), times: None, after: 0, stream: Stream::default(), fault }
    }

    /// Limits the rule to one front end.
    #[must_use]
    pub fn on_front(mut self, front: &str) -> Self {
        self.on.front = Some(front.to_owned());
        self
    }

    /// Limits the rule to one operation.
    #[must_use]
    pub fn on_operation(mut self, operation: &str) -> Self {
        self.on.operation = Some(operation.to_owned());
        self
    }

    /// Limits the rule to subjects that match `pattern` (see [`Match::subject`]).
    #[must_use]
    pub fn on_subject(mut self, pattern: &str) -> Self {
        self.on.subject = Some(pattern.to_owned());
        self
    }

    /// Disturbs only `times` matches.
    #[must_use]
    pub fn times(mut self, times: u32) -> Self {
        self.times = Some(times);
        self
    }

    /// Lets `after` matches pass first.
    #[must_use]
    pub fn after(mut self, after: u32) -> Self {
        self.after = after;
        self
    }

    /// Disturbs data in this direction.
    #[must_use]
    pub fn stream(mut self, stream: Stream) -> Self {
        self.stream = stream;
        self
    }
}

/// Where a rule applies. An absent field matches everything. `*` stands for any run of characters.
#[derive(Serialize, Deserialize, ToSchema, Clone, Debug, Default, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct Match {
    /// Front end, such as `ldaps` (whole name, or a pattern with `*`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub front: Option<String>,
    /// Operation, such as `bind` (whole name, or a pattern with `*`). TCP-level faults ignore it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub operation: Option<String>,
    /// Part of the subject, or with `*` a pattern for the whole of it; ASCII case does not matter. TCP-level
    /// faults ignore it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
}

impl Match {
    pub(super) fn front_matches(&self, front: &str) -> bool {
        self.front.as_deref().is_none_or(|pattern| glob(pattern.as_bytes(), front.as_bytes()))
    }

    pub(super) fn matches(&self, point: &Point<'_>) -> bool {
        self.front_matches(point.front)
            && self.operation.as_deref().is_none_or(|it| glob(it.as_bytes(), point.operation.as_bytes()))
            && self.subject.as_deref().is_none_or(|it| subject_matches(it, point.subject))
    }
}

/// Where a mock stands when it asks whether to fail.
#[derive(Clone, Copy, Debug)]
pub struct Point<'a> {
    /// Front end, such as `ldaps`.
    pub front: &'a str,
    /// The protocol's word for the operation, such as `bind`.
    pub operation: &'a str,
    /// Whom or what it is about.
    pub subject: &'a str,
}

/// Direction of data, seen from the outside as Toxiproxy names it.
#[derive(Serialize, Deserialize, ToSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Stream {
    /// From the client to the mock.
    Upstream,
    /// From the mock to the client.
    #[default]
    Downstream,
    /// Both ways.
    Both,
}

/// What happens. The first eight are TCP-level, in Toxiproxy's vocabulary; the others are protocol-level and mean
/// what the mock's README says about them.
#[derive(Serialize, Deserialize, ToSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Fault {
    /// Data arrives later; order is kept and later data is not slowed further.
    Latency {
        /// Milliseconds added.
        ms: u64,
        /// Up to this many milliseconds more, from a fixed sequence per connection.
        #[serde(default)]
        jitter_ms: u64,
    },
    /// Data flows at most this fast.
    Bandwidth {
        /// KiB per second; 0 lets nothing through.
        rate_kib_s: u64,
    },
    /// Closing takes longer: the peer sees the end of data only after the delay.
    SlowClose {
        /// Milliseconds.
        delay_ms: u64,
    },
    /// No data gets through; after `ms` the connection closes, with 0 never. What was held back arrives when the
    /// rule is removed.
    Timeout {
        /// Milliseconds until the close.
        ms: u64,
    },
    /// The connection is reset (TCP RST).
    ResetPeer {
        /// Milliseconds from the moment the rule meets the connection.
        #[serde(default)]
        after_ms: u64,
    },
    /// Data arrives in small pieces.
    Slicer {
        /// Bytes in one piece.
        size_average: u64,
        /// Microseconds between pieces.
        #[serde(default)]
        delay_us: u64,
    },
    /// The connection closes once so many bytes have passed since the rule met it.
    LimitData {
        /// Bytes.
        bytes: u64,
    },
    /// The front end is off: connections are reset and new ones refused.
    Down {},
    /// The answer comes later.
    Delay {
        /// Milliseconds.
        ms: u64,
    },
    /// No answer comes, ever; the connection stays open.
    Stall {},
    /// The connection closes instead of an answer.
    Close {},
    /// The protocol's own error answer.
    Status {
        /// Result word or number, such as `51` (LDAP busy) or `503`.
        #[serde(deserialize_with = "code")]
        #[schema(value_type = String)]
        code: String,
        /// Text sent with it.
        #[serde(default)]
        message: String,
    },
    /// An answer the protocol does not allow.
    Malformed {
        /// Which one; the mock's README lists its words.
        kind: String,
    },
    /// Anything else a mock defines.
    Custom {
        /// Which one; the mock's README lists its words.
        word: String,
        /// Its arguments.
        #[serde(default)]
        #[schema(value_type = Option<Object>)]
        args: serde_json::Value,
    },
}

impl Fault {
    /// A protocol error answer.
    pub fn status(code: impl ToString, message: &str) -> Self {
        Self::Status { code: code.to_string(), message: message.to_owned() }
    }

    /// True for the faults that a connection obeys without the protocol knowing.
    pub fn is_tcp(&self) -> bool {
        match self {
            Self::Latency { .. }
            | Self::Bandwidth { .. }
            | Self::SlowClose { .. }
            | Self::Timeout { .. }
            | Self::ResetPeer { .. }
            | Self::Slicer { .. }
            | Self::LimitData { .. }
            | Self::Down {} => true,
            Self::Delay { .. }
            | Self::Stall {}
            | Self::Close {}
            | Self::Status { .. }
            | Self::Malformed { .. }
            | Self::Custom { .. } => false,
        }
    }

    /// The number in a [`Fault::Status`], when its code is one.
    pub fn status_number(&self) -> Option<u32> {
        match self {
            Self::Status { code, .. } => code.parse().ok(),
            _ => None,
        }
    }

    /// How long a [`Fault::Delay`] lasts.
    pub fn delay(&self) -> Option<Duration> {
        match self {
            Self::Delay { ms } => Some(Duration::from_millis(*ms)),
            _ => None,
        }
    }
}

/// Accepts a number where a code is expected, because result codes are numbers in most protocols.
fn code<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    struct Visitor;
    impl serde::de::Visitor<'_> for Visitor {
        type Value = String;
        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("a result code, as a word or a number")
        }
        fn visit_str<E>(self, text: &str) -> Result<String, E> {
            Ok(text.to_owned())
        }
        fn visit_u64<E>(self, number: u64) -> Result<String, E> {
            Ok(number.to_string())
        }
        fn visit_i64<E>(self, number: i64) -> Result<String, E> {
            Ok(number.to_string())
        }
    }
    deserializer.deserialize_any(Visitor)
}

fn subject_matches(pattern: &str, subject: &str) -> bool {
    let (pattern, subject) = (pattern.to_ascii_lowercase(), subject.to_ascii_lowercase());
    if pattern.contains('*') {
        glob(pattern.as_bytes(), subject.as_bytes())
    } else {
        subject.contains(&pattern)
    }
}

/// Whole-text match where `*` stands for any run of bytes. Backtracks to the last star only, so the cost is at most
/// pattern length times text length.
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        if pattern.get(p) == Some(&b'*') {
            star = Some((p, t));
            p += 1;
        } else if pattern.get(p) == text.get(t) {
            p += 1;
            t += 1;
        } else if let Some((star_p, star_t)) = star {
            star = Some((star_p, star_t + 1));
            p = star_p + 1;
            t = star_t + 1;
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        for (pattern, text, expected) in [
            ("ldap", "ldap", true),
            ("ldap", "ldaps", false),
            ("ldap*", "ldaps", true),
            ("*s", "ldaps", true),
            ("*a*b*c", "xaxbxbxc", true),
            ("*a*b*c", "xaxbxbxd", false),
            ("", "", true),
            ("*", "", true),
            ("", "x", false),
        ] {
            assert_eq!(glob(pattern.as_bytes(), text.as_bytes()), expected, "{pattern} on {text}");
        }
        assert!(subject_matches("ASMITH", "cn=asmith,dc=acme"));
        assert!(!subject_matches("asmith*", "cn=asmith,dc=acme"));
    }

    #[test]
    fn rules_are_written_as_the_contract_says() {
        let rule: Rule = serde_json::from_str(
            r#"{"on":{"front":"ldaps","operation":"bind"},"times":2,"fault":{"status":{"code":51,"message":"busy"}}}"#,
        )
        .unwrap();
        assert_eq!(rule.fault.status_number(), Some(51));
        assert_eq!((rule.times, rule.after, rule.stream), (Some(2), 0, Stream::Downstream));
        for (text, fault) in [
            (r#"{"fault":{"latency":{"ms":5}}}"#, Fault::Latency { ms: 5, jitter_ms: 0 }),
            (r#"{"fault":{"down":{}}}"#, Fault::Down {}),
            (r#"{"fault":{"stall":{}}}"#, Fault::Stall {}),
            (r#"{"fault":{"slicer":{"size_average":3}}}"#, Fault::Slicer { size_average: 3, delay_us: 0 }),
        ] {
            let rule: Rule = serde_json::from_str(text).unwrap();
            assert_eq!(rule.fault, fault);
            let again: Rule = serde_json::from_str(&serde_json::to_string(&rule).unwrap()).unwrap();
            assert_eq!(again, rule);
        }
        let wrong =
            serde_json::from_str::<Rule>(r#"{"fault":{"latency":{"millis":5}}}"#).unwrap_err().to_string();
        assert!(wrong.contains("unknown field `millis`"), "{wrong}");
    }
}
