//! The adapter in place of Entrust's older administration services. Its contract is ours, and marked so in every answer.

use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, State};
use axum::response::Response;
use axum::routing::post;
use bytes::Bytes;
use causeway_mock_kit::fault::Fault;
use causeway_protocol::enrol::digital_id::{
    Create, Created, DigitalId, REPLACE, Request, write_list, write_revoked,
};
use causeway_protocol::enrol::soap::{self, Blame, Head, Version};
use causeway_protocol::pkix::{Attribute, Name};
use http::StatusCode;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use serde_json::json;

use super::{DigitalIdConfig, EntrustConfig};
use crate::bag;
use crate::core::{Authority, Csr, Decision, Reason, RevokeError, Serial, Submission, Transaction};
use crate::limits::FORM_MAX_BYTES;
use crate::serve::{answer, fault, html};
use crate::server::Shared;

const FRONT: &str = "entrust";

/// A refusal: the fault's code, and its text.
type Refusal = (&'static str, String);

pub(crate) fn router(shared: &Arc<Shared>) -> Router {
    Router::new()
        .route("/digitalid/service", post(service))
        .layer(DefaultBodyLimit::max(FORM_MAX_BYTES))
        .with_state(Arc::clone(shared))
}

async fn service(State(shared): State<Arc<Shared>>, headers: HeaderMap, body: Bytes) -> Response {
    let given = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if !given.to_ascii_lowercase().starts_with("text/xml") {
        return html(StatusCode::UNSUPPORTED_MEDIA_TYPE, "415 - the content type is not text/xml");
    }
    let message = match soap::read(&body) {
        Ok(message) if message.version == Version::V11 => message,
        _ => return refused(("Client", "no SOAP 1.1 envelope".to_owned())),
    };
    let world = shared.world();
    let signed_in =
        message.user().and_then(|(name, password)| world.accounts.sign_in(&name, password.expose()).ok());
    let Some(account) = signed_in else {
        shared.cx.journal.record(FRONT, "sign_in", "", "refused", json!({}));
        return refused(("FailedAuthentication", "user name or password is wrong".to_owned()));
    };
    let request = match Request::read(&message) {
        Ok(request) => request,
        Err(error) => return refused(("Client", error.to_string())),
    };
    let operation = match &request {
        Request::List { .. } => "list",
        Request::Create(_) => "create",
        Request::Revoke { .. } => "revoke",
    };
    let twist = match fault(&shared, FRONT, operation, &account.login).await {
        Ok(twist) => twist,
        Err(instead) => return instead,
    };
    if !account.enrols {
        return refused(("AccessDenied", "the account is no administrator of Digital IDs".to_owned()));
    }
    let authority = shared.authority().await;
    let done = match request {
        Request::List { group } => Ok(list(&world.config.entrust, &group)),
        Request::Create(request) => create(&world.config.entrust, &authority, &request, twist.as_ref()),
        Request::Revoke { serial, reason } => revoke(&authority, &serial, &reason),
    };
    let outcome = done.as_ref().map_or_else(|(code, _)| *code, |_| "200");
    shared.cx.journal.record(FRONT, operation, &account.login, outcome, json!({}));
    // The connection may break when everything is done, and nobody learns of it.
    if let Err(instead) = fault(&shared, FRONT, &format!("{operation}_done"), &account.login).await {
        return instead;
    }
    match done {
        Ok(text) => marked(answer(StatusCode::OK, Version::V11.content_type(), text.into_bytes())),
        Err(refusal) => refused(refusal),
    }
}

fn list(config: &EntrustConfig, group: &str) -> String {
    let visible = |id: &&DigitalIdConfig| {
        group.is_empty() || id.groups.is_empty() || id.groups.iter().any(|own| own == group)
    };
    let view = |id: &DigitalIdConfig| DigitalId {
        name: id.name.clone(),
        subject: id.subject.clone(),
        unique: id.subject.first().map(|(field, _)| field.clone()).unwrap_or_default(),
    };
    let ids: Vec<DigitalId> = config.digital_ids.iter().filter(visible).map(view).collect();
    write_list(&ids)
}

fn create(
    config: &EntrustConfig,
    authority: &Authority,
    request: &Create,
    twist: Option<&Fault>,
) -> Result<String, Refusal> {
    let id = config.digital_ids.iter().find(|id| id.name == request.name);
    let id = id.ok_or_else(|| ("UnknownDigitalId", format!("there is no Digital ID {}", request.name)))?;
    let mut attributes = Vec::new();
    for (field, value) in id.subject.iter().rev() {
        let value = match value.as_str() {
            REPLACE => {
                let given = request.values.iter().find(|(name, _)| name.eq_ignore_ascii_case(field));
                let given = given.map(|(_, value)| value.as_str()).filter(|value| !value.is_empty());
                given.ok_or_else(|| ("MissingValue", format!("{field} is missing")))?
            }
            fixed => fixed,
        };
        // The type from a name of one part, the value as it is: nothing in it can begin another part.
        let kind = Name::parse(&format!("{field}=x"))
            .ok()
            .and_then(|name| name.attributes().next().map(|one| one.kind));
        let kind = kind.ok_or_else(|| ("Server", format!("{field} is no part of a name")))?;
        attributes.push(vec![Attribute::new(kind, value)]);
    }
    let transaction = Transaction { id: request.request.clone().into_bytes(), asker: [0; 32] };
    // A request has one outcome, whoever asks again.
    if let Some(Decision::Denied(denial, _)) = authority.poll(FRONT, &transaction) {
        return Err(("RequestDenied", denial.to_string()));
    }
    let submission = Submission {
        front: FRONT,
        csr: &request.csr,
        requester: &request.name,
        template: Some(&id.template),
        transaction: Some(transaction),
        subject: Some(Name { rdns: attributes }.to_der()),
        ..Submission::default()
    };
    match authority.submit(&submission, |_: &Csr| Ok(())) {
        Decision::Issued(issued) => {
            let chain = bag::chain(authority, &issued);
            let certificate = match twist {
                Some(Fault::Malformed { kind }) if kind == "another_key" => bag::anothers(authority),
                _ => issued.certificate.clone(),
            };
            Ok(Created::Issued { certificate, chain }.write())
        }
        Decision::Pending(_) => Ok(Created::Pending.write()),
        Decision::Denied(denial, _) => Err(("RequestDenied", denial.to_string())),
    }
}

fn revoke(authority: &Authority, serial: &str, reason: &str) -> Result<String, Refusal> {
    let reason = match reason {
        "unspecified" => Reason::Unspecified,
        "keyCompromise" => Reason::KeyCompromise,
        "superseded" => Reason::Superseded,
        "cessationOfOperation" => Reason::CessationOfOperation,
        _ => return Err(("Client", "the reason is none that is known".to_owned())),
    };
    let unknown = || ("UnknownCertificate", "no certificate has this serial number".to_owned());
    let serial = Serial::from_hex(serial).ok_or_else(unknown)?;
    match authority.revoke(&serial, reason) {
        Ok(_) | Err(RevokeError::Already) => Ok(write_revoked("REVOKED")),
        Err(_) => Err(unknown()),
    }
}

fn refused((code, text): Refusal) -> Response {
    // SOAP 1.1 section 4.4.1 lets codes of one's own stand in the place of Client and Server.
    let body = soap::write_fault(Version::V11, &Head::default(), Blame::Sender, None, &text, &[], |_| {});
    let body = body.replace("<faultcode>s:Client</faultcode>", &format!("<faultcode>s:{code}</faultcode>"));
    marked(answer(StatusCode::INTERNAL_SERVER_ERROR, Version::V11.content_type(), body.into_bytes()))
}

fn marked(mut response: Response) -> Response {
    let name = HeaderName::from_static("x-causeway-fidelity");
    response.headers_mut().insert(name, HeaderValue::from_static("own contract"));
    response
}
