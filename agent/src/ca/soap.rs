//! SOAP over the front ends of an authority: one message out, one back, faults told apart from everything else.

use bytes::Bytes;
use causeway_protocol::enrol::ShapeError;
use causeway_protocol::enrol::soap::{self, Fault, Message, Version};
use http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use http::{Method, StatusCode};

use super::CaError;
use super::http::{Ask, Endpoint, FrontEnds, Who};
use super::once::Failed;
use crate::directory::Net;
use causeway_protocol::Chain;

/// What comes back.
pub(super) enum Reply {
    Message(Message),
    Fault(Fault),
}

/// Posts an envelope. Faults come with status 500, so the status says nothing where there is an envelope.
pub(super) async fn call(
    front_ends: &FrontEnds,
    net: &Net,
    endpoint: &Endpoint,
    version: Version,
    action: Option<&str>,
    envelope: String,
    who: Who,
) -> Result<Reply, Failed> {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(version.content_type()));
    if let Some(action) = action.and_then(|action| HeaderValue::from_str(action).ok()) {
        headers.insert(HeaderName::from_static("soapaction"), action);
    }
    let ask = Ask { method: Method::POST, headers, body: Bytes::from(envelope) };
    let answer = front_ends.send(net, endpoint, ask, who).await?;
    match soap::read(&answer.body) {
        Ok(message) => Ok(match message.fault() {
            Some(fault) => Reply::Fault(fault),
            None => Reply::Message(message),
        }),
        Err(error) if answer.status == StatusCode::OK => {
            Err(Failed { error: misshapen(endpoint, &error), acted: true })
        }
        Err(_) => Err(Failed::of_status(endpoint, &answer)),
    }
}

/// An answer of another shape.
pub(super) fn misshapen(endpoint: &Endpoint, error: &ShapeError) -> CaError {
    let detail = format!(
        "{}: {}; check that the URL is the service's own and that nothing in between answers for it",
        endpoint.path,
        Chain(error)
    );
    CaError::Answer { host: endpoint.to_string(), detail }
}
