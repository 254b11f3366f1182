//! Protocol-level faults: what a rule's words mean here. The README lists them.

use causeway_mock_kit::fault::{Fault, Installed, Point};
use http::StatusCode;
use serde_json::Value;

use super::{Front, PowerShell, fault, language};

/// How a request that is executed is answered differently.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Twist {
    /// The connection is cut after so many fragments of the answer.
    pub(super) cut_after_fragments: Option<usize>,
    /// Fragments are cut at every so many bytes, across elements and answers.
    pub(super) split_bytes: Option<usize>,
    /// Before authentication: Negotiate goes by the name Kerberos.
    pub(super) kerberos_word: bool,
    /// Before authentication: the clock that tickets are judged by is so far ahead.
    pub(super) skew_ms: i64,
    /// Overrides whether messages begin with a byte order mark.
    pub(super) byte_order_mark: Option<bool>,
    /// The boundary of a sealed answer is `-- Encrypted Boundary`.
    pub(super) boundary_space: bool,
    /// A bit of the answer's signature is wrong.
    pub(super) wrong_signature: bool,
    /// The answer is compressed, whether the client accepts that or not.
    pub(super) gzip: bool,
    /// What `RelatesTo` says instead; empty leaves it out.
    pub(super) relates_to: Option<String>,
    /// The action of the answer is the request's.
    pub(super) wrong_action: bool,
    /// The answer ends in the middle, although its length says it is whole.
    pub(super) truncated: bool,
    /// A Receive is answered well and at once, with nothing.
    pub(super) no_streams: bool,
    /// What happens to the fragments of the answer.
    pub(super) fragments: Option<BadFragments>,
    /// The pool reports that it is broken.
    pub(super) broken_pool: bool,
    /// A pipeline leaves an error and completes all the same.
    pub(super) partial: Option<Partial>,
    /// The server dies after so many objects of this pipeline: its shells are gone and the connection too.
    pub(super) lost_after_objects: Option<u64>,
    /// The pipeline, or the pool, asks the client's host for something nobody expects.
    pub(super) host_call: Option<AskHost>,
    /// A pipeline is slowed by so many milliseconds and says so.
    pub(super) micro_delay_ms: Option<u64>,
}

/// The error of a partial success.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Partial {
    pub(super) reason: String,
    pub(super) message: String,
}

/// A method of the client's host (MS-PSRP 2.2.3.17).
#[derive(Clone, Debug, PartialEq)]
pub(super) struct AskHost {
    pub(super) method: i32,
    pub(super) name: String,
    pub(super) text: String,
    /// Whether the method returns nothing, so that nobody waits for an answer.
    pub(super) shows: bool,
}

/// Fragments no server may send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BadFragments {
    /// Not base64.
    NotBase64,
    /// A header that announces 4 GiB.
    Huge,
    /// The first fragment comes twice.
    Twice,
    /// The fragments come last first.
    Reversed,
    /// No fragment is the last of its message.
    Endless,
    /// A message with objects nested 1,000 deep.
    Deep,
    /// A message whose references unfold to 2^40 objects.
    Laughs,
    /// A message with a document type and entities of its own.
    Doctype,
}

/// What to do with a request.
pub(super) enum Steer {
    /// Execute it, with these differences.
    Go(Twist),
    /// Answer with this fault instead.
    Fault(causeway_protocol::wsman::Fault),
    /// Refuse the runspace pool as if the account had so many already.
    RefuseRunspace { limit: u32 },
    /// Answer with this HTTP status instead, and perhaps a `Location` or `Retry-After`.
    Status(StatusCode, Option<String>),
    /// Answer with these bytes instead.
    Bytes(Vec<u8>),
    /// Close the connection.
    Close,
}

impl PowerShell {
    /// Asks the fault rules about a request; delays are waited for, stalls never return.
    pub(super) async fn steer(&self, front: &Front, operation: &str, subject: &str) -> Steer {
        let point = Point { front: front.name, operation, subject };
        match self.cx.faults.meet(&point).await {
            None => Steer::Go(Twist::default()),
            Some(Fault::Close {}) => Steer::Close,
            Some(Fault::Status { code, message }) => status(&code, message),
            Some(Fault::Malformed { kind }) => malformed(&kind),
            Some(Fault::Custom { word, args }) => custom(&word, &args),
            // TCP-level faults are the stream's, delays and stalls are met already.
            Some(_) => Steer::Go(Twist::default()),
        }
    }

    /// Asks the rules that name the operation `authenticate`. Rules without an operation mean what comes after it, and
    /// are not used up here.
    pub(super) async fn steer_at_the_door(&self, front: &Front) -> Steer {
        const OPERATION: &str = "authenticate";
        let named = |installed: &Installed| installed.rule.on.operation.as_deref() == Some(OPERATION);
        match self.cx.faults.list().iter().any(named) {
            true => self.steer(front, OPERATION, "").await,
            false => Steer::Go(Twist::default()),
        }
    }
}

/// A number up to 599 is HTTP's, any other one WSMan's; some have names.
fn status(code: &str, message: String) -> Steer {
    let number = match code {
        "timeout" => return Steer::Fault(fault::timed_out()),
        "shell_not_found" => return Steer::Fault(fault::shell_not_found(None, &message)),
        "access_denied" => return Steer::Fault(fault::access_denied()),
        "quota" => return Steer::Fault(fault::too_many_commands()),
        "without_detail" => return Steer::Fault(fault::without_detail(&message)),
        text => text.parse::<u32>(),
    };
    match number {
        Ok(number @ 300..=599) => {
            let code = u16::try_from(number).ok().and_then(|code| StatusCode::from_u16(code).ok());
            Steer::Status(
                code.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
                (!message.is_empty()).then_some(message),
            )
        }
        Ok(number) => Steer::Fault(fault::of_code(number, &message)),
        Err(_) => unknown(code),
    }
}

fn malformed(kind: &str) -> Steer {
    let fragments = |bad| Twist { fragments: Some(bad), ..Twist::default() };
    Steer::Go(match kind {
        "missing_relates_to" => Twist { relates_to: Some(String::new()), ..Twist::default() },
        "wrong_relates_to" => {
            let other = "uuid:00000000-0000-0000-0000-000000000000".to_owned();
            Twist { relates_to: Some(other), ..Twist::default() }
        }
        "wrong_action" => Twist { wrong_action: true, ..Twist::default() },
        "wrong_signature" => Twist { wrong_signature: true, ..Twist::default() },
        "truncated" => Twist { truncated: true, ..Twist::default() },
        "bad_base64" => fragments(BadFragments::NotBase64),
        "huge_fragment" => fragments(BadFragments::Huge),
        "fragment_twice" => fragments(BadFragments::Twice),
        "fragments_reversed" => fragments(BadFragments::Reversed),
        "no_end_fragment" => fragments(BadFragments::Endless),
        "no_streams" => Twist { no_streams: true, ..Twist::default() },
        "deep_clixml" => fragments(BadFragments::Deep),
        "reference_bomb" => fragments(BadFragments::Laughs),
        "clixml_doctype" => fragments(BadFragments::Doctype),
        "html" => return Steer::Bytes(b"<html><body><h1>It works!</h1></body></html>".to_vec()),
        "doctype" => return Steer::Bytes(DOCTYPE.to_vec()),
        _ => return unknown(kind),
    })
}

/// An envelope with entities that grow tenfold each.
const DOCTYPE: &[u8] =
    b"<?xml version=\"1.0\"?><!DOCTYPE s [<!ENTITY a \"aaaaaaaaaa\"><!ENTITY b \"&a;&a;&a;&a;&a;\">]>\
<s:Envelope xmlns:s=\"http://www.w3.org/2003/05/soap-envelope\"><s:Body>&b;</s:Body></s:Envelope>";

fn custom(word: &str, args: &Value) -> Steer {
    let number = |key: &str| args.get(key).and_then(Value::as_u64);
    let size = |key: &str| number(key).and_then(|number| usize::try_from(number).ok());
    let text = |key: &str| args.get(key).and_then(Value::as_str).map(str::to_owned);
    Steer::Go(match word {
        "drop_after_fragments" => {
            Twist { cut_after_fragments: Some(size("fragments").unwrap_or(1)), ..Twist::default() }
        }
        "split_fragments" => {
            Twist { split_bytes: Some(size("bytes").unwrap_or(7).max(1)), ..Twist::default() }
        }
        "byte_order_mark" => {
            let on = args.get("on").and_then(Value::as_bool).unwrap_or(true);
            Twist { byte_order_mark: Some(on), ..Twist::default() }
        }
        "boundary_space" => Twist { boundary_space: true, ..Twist::default() },
        "gzip" => Twist { gzip: true, ..Twist::default() },
        "broken_pool" => Twist { broken_pool: true, ..Twist::default() },
        "partial_success" => {
            let partial = Partial {
                reason: text("reason").unwrap_or_else(|| "ADTransientException".to_owned()),
                message: text("message").unwrap_or_else(|| "Active Directory is not available.".to_owned()),
            };
            Twist { partial: Some(partial), ..Twist::default() }
        }
        "lose_server" => {
            Twist { lost_after_objects: Some(number("objects").unwrap_or(0)), ..Twist::default() }
        }
        "host_call" => Twist { host_call: Some(ask_host(args)), ..Twist::default() },
        "micro_delay" => Twist { micro_delay_ms: Some(number("ms").unwrap_or(1_000)), ..Twist::default() },
        "refuse_runspace" => {
            let limit = number("allowed").and_then(|limit| u32::try_from(limit).ok()).unwrap_or(18);
            return Steer::RefuseRunspace { limit };
        }
        "clock_skew" => {
            let secs = args.get("secs").and_then(Value::as_i64).unwrap_or(600);
            Twist { skew_ms: secs.saturating_mul(1_000), ..Twist::default() }
        }
        "kerberos_header" => Twist { kerberos_word: true, ..Twist::default() },
        _ => return unknown(word),
    })
}

/// What a cmdlet asks: a line, unless the rule says that it shows a warning, a line or asks for credentials.
fn ask_host(args: &Value) -> AskHost {
    let word = args.get("method").and_then(Value::as_str).unwrap_or("ReadLine");
    let (method, shows) = match word {
        "WriteLine2" => (16, true),
        "WriteWarningLine" => (22, true),
        "PromptForCredential1" => (24, false),
        "PromptForChoice" => (language::PROMPT_FOR_CHOICE, false),
        _ => (language::READ_LINE, false),
    };
    let text = args.get("text").and_then(Value::as_str).unwrap_or("from a cmdlet").to_owned();
    AskHost { method, name: word.to_owned(), text, shows }
}

/// A rule with a misspelt word must not pass unnoticed.
fn unknown(word: &str) -> Steer {
    tracing::warn!(word, "Fault rule with a word this mock does not know");
    Steer::Fault(fault::without_detail(&format!("fault word {word:?} is not known to mock-exchange")))
}
