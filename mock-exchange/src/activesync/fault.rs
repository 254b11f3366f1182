//! Faults of the ActiveSync front end; the README lists their words.

use bytes::Bytes;
use causeway_mock_kit::fault::Fault;
use causeway_protocol::activesync::status::Status;
use causeway_protocol::activesync::{CONTENT_TYPE, Command, Version, header};
use causeway_protocol::wbxml::tags::provision;
use http::{Response, StatusCode};
use http_body_util::{BodyExt, Full};

use super::http::{Closed, Outcome, empty};
use super::request::{Asked, put_header, refused_with};

/// Seconds a throttled phone is told to stay away when the rule does not say.
const RETRY_AFTER_SECS: u64 = 60;

/// What a fault answers instead of the command; `None` when the command goes on.
pub(super) fn before(fault: &Fault, command: Option<Command>, version: Version) -> Option<Outcome> {
    match fault {
        Fault::Close {} => Some(Err(Closed)),
        Fault::Status { message, .. } => match fault.status_number() {
            Some(number @ 400..) => {
                let status = u16::try_from(number).ok().and_then(|number| StatusCode::from_u16(number).ok());
                Some(Ok(http_refusal(status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), message)))
            }
            Some(number) => {
                let status = Status(u16::try_from(number).unwrap_or(u16::MAX));
                // Before 14.0 there are no statuses for everything; the phone gets the plainest HTTP error.
                Some(Ok(if version.has_common_status() {
                    refused_with(command, status).0
                } else {
                    empty(StatusCode::INTERNAL_SERVER_ERROR)
                }))
            }
            None => None,
        },
        Fault::Custom { word, args } if word == "throttled" => {
            let seconds = args["retry_after_secs"].as_u64().unwrap_or(RETRY_AFTER_SECS);
            let mut answer = http_refusal(StatusCode::SERVICE_UNAVAILABLE, &seconds.to_string());
            put_header(&mut answer, header::THROTTLE, "CommandFrequency");
            Some(Ok(answer))
        }
        _ => None,
    }
}

/// An HTTP refusal; the message is the Retry-After of a 503 and the new place of a 451.
fn http_refusal(status: StatusCode, message: &str) -> Response<Full<Bytes>> {
    let mut answer = empty(status);
    match status {
        StatusCode::SERVICE_UNAVAILABLE if !message.is_empty() => {
            put_header(&mut answer, header::RETRY_AFTER, message);
        }
        StatusCode::UNAVAILABLE_FOR_LEGAL_REASONS => put_header(&mut answer, header::LOCATION, message),
        _ => {}
    }
    answer
}

/// What a fault makes of an answer that is ready.
pub(super) async fn after(fault: &Fault, answer: Response<Full<Bytes>>) -> Outcome {
    let Fault::Malformed { kind } = fault else { return Ok(answer) };
    let (mut head, body) = answer.into_parts();
    let bytes = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let broken = match kind.as_str() {
        "cut" => bytes.slice(..bytes.len() / 2),
        "unbalanced" => [&bytes[..], &[0x01]].concat().into(),
        "unknown_page" => Bytes::from_static(&[0x03, 0x01, 0x6A, 0x00, 0x00, 0x63, 0x45, 0x01]),
        // An opaque of four gigabytes by its length.
        "endless_opaque" => {
            Bytes::from_static(&[0x03, 0x01, 0x6A, 0x00, 0x45, 0xC3, 0x8F, 0xFF, 0xFF, 0xFF, 0x7F, 0x00])
        }
        "deep" => {
            let mut deep = vec![0x03, 0x01, 0x6A, 0x00];
            deep.resize(10_004, 0x45);
            deep.into()
        }
        "html" => Bytes::from_static(b"<html><body>Service unavailable</body></html>"),
        _ => Bytes::new(),
    };
    let content_type = if kind == "html" { "text/html" } else { CONTENT_TYPE };
    head.headers.insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static(content_type));
    Ok(Response::from_parts(head, Full::new(broken)))
}

/// Whether this fault swallows the confirmation of a wipe: the phone is empty, the server never hears of it.
pub(super) fn loses_wipe_confirmation(fault: &Fault, asked: &Asked) -> bool {
    let swallows = matches!(fault, Fault::Custom { word, .. } if word == "wipe_ack_lost");
    swallows
        && asked.document.as_ref().is_some_and(|root| {
            root.child(provision::REMOTE_WIPE).is_some()
                || root.child(provision::ACCOUNT_ONLY_REMOTE_WIPE).is_some()
        })
}
