//! The enrolment service: requests and questions after them.

use std::sync::Arc;

use axum::Extension;
use axum::extract::{Path, State};
use axum::response::Response;
use bytes::Bytes;
use causeway_mock_kit::fault::Fault;
use causeway_protocol::enrol::soap::Blame;
use causeway_protocol::enrol::wstep::{ACTION_REQUEST, Detail, Request, Response as Answer, Wrapping};
use http::header::HeaderMap;
use serde_json::json;

use super::{Caller, arrive, refuse};
use crate::bag;
use crate::core::{Authority, Csr, Decision, Denial, Submission};
use crate::serve::{Connection, fault};
use crate::server::Shared;

const FRONT: &str = "wstep";
/// CERTSRV_E_PROPERTY_EMPTY of winerror.h.
const NOTHING: u32 = 0x8009_4004;

pub(super) async fn enrol(
    State(shared): State<Arc<Shared>>,
    Path(directory): Path<String>,
    Extension(connection): Extension<Arc<Connection>>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let arrived = arrive(&shared, FRONT, &directory, ACTION_REQUEST, &connection, &headers, &body).await;
    let caller = match arrived {
        Ok(caller) => caller,
        Err(refused) => return refused,
    };
    let request = match Request::read(&caller.message) {
        Ok(request) => request,
        Err(error) => return refuse(&caller.message, Blame::Sender, None, &error.to_string(), None),
    };
    let authority = shared.authority().await;
    let (operation, decision) = match &request {
        Request::Issue { wrapping: Wrapping::Pkcs7, .. } => {
            let reason = "this service takes no signed requests";
            return refuse(&caller.message, Blame::Receiver, None, reason, None);
        }
        Request::Issue { request, attributes, .. } => {
            ("issue", Some(submit(&authority, &caller, request, attributes)))
        }
        Request::Query { request_id } => {
            let id = request_id.parse().ok().filter(|id| {
                let request = authority.request(*id);
                request
                    .is_some_and(|request| request.front == FRONT && request.requester == caller.account.upn)
            });
            ("query", id.and_then(|id| authority.decision(id)))
        }
    };
    let subject = caller.account.login.clone();
    let note = |outcome: &str| shared.cx.journal.record(FRONT, operation, &subject, outcome, json!({}));
    // The connection may break when everything is done, and nobody learns of it.
    if operation == "issue"
        && let Err(instead) = fault(&shared, FRONT, "issued", &subject).await
    {
        note("lost");
        return instead;
    }
    match decision {
        Some(Decision::Issued(issued)) => {
            note(&format!("issued {}", issued.serial));
            let mut certificate = issued.certificate.clone();
            if matches!(&caller.twist, Some(Fault::Malformed { kind }) if kind == "another_key") {
                certificate = bag::anothers(&authority);
            }
            let bag = (certificate == issued.certificate).then(|| bag::with_chain(&authority, &issued));
            let answer = Answer {
                disposition: "Issued".to_owned(),
                request_id: Some(issued.request.to_string()),
                certificate: Some(certificate),
                bag,
                poll: None,
            };
            let text = answer.write(caller.head());
            let half = matches!(&caller.twist, Some(Fault::Malformed { kind }) if kind == "half");
            caller.answer(if half { text[..text.len() / 2].to_owned() } else { text })
        }
        Some(Decision::Pending(id)) => {
            note(&format!("pending {id}"));
            let answer = Answer {
                disposition: "Taken Under Submission".to_owned(),
                request_id: Some(id.to_string()),
                certificate: None,
                bag: None,
                poll: shared.urls.get(FRONT).cloned(),
            };
            let text = answer.write(caller.head());
            caller.answer(text)
        }
        Some(Decision::Denied(denial, id)) => {
            note(&format!("denied: {denial}"));
            let reason = format!("Denied by Policy Module, {denial}.");
            let detail =
                Detail { error_code: Some(signed(denial.hresult())), request_id: Some(id.to_string()) };
            refuse(&caller.message, Blame::Receiver, None, &reason, Some(&detail))
        }
        None => {
            note("unknown");
            let detail = Detail { error_code: Some(signed(NOTHING)), request_id: None };
            let reason = "The requested property value is empty.";
            refuse(&caller.message, Blame::Receiver, None, reason, Some(&detail))
        }
    }
}

fn submit(authority: &Authority, caller: &Caller, csr: &[u8], attributes: &[(String, String)]) -> Decision {
    let named = attributes.iter().find(|(name, _)| name.eq_ignore_ascii_case("CertificateTemplate"));
    let submission = Submission {
        front: FRONT,
        csr,
        requester: &caller.account.upn,
        template: named.map(|(_, value)| value.as_str()),
        ..Submission::default()
    };
    authority
        .submit(&submission, |_: &Csr| if caller.account.enrols { Ok(()) } else { Err(Denial::NotAllowed) })
}

/// HRESULTs are signed numbers on the wire.
fn signed(hresult: u32) -> i64 {
    i64::from(hresult) - (1 << 32)
}
