//! The web pages of Active Directory Certificate Services: forms in, pages for people out. Clients read the pages by a few
//! marks, which are here as they are there; the rest of the text is ours.

#![expect(clippy::result_large_err, reason = "a refusal is the answer itself, made once for a request")]

mod pages;

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::{DefaultBodyLimit, Query, State};
use axum::response::Response;
use axum::routing::{get, post};
use axum::{Extension, Router};
use bytes::Bytes;
use causeway_mock_kit::fault::Fault;
use causeway_protocol::enrol::{base64_text, pem};
use causeway_protocol::pkix::{AlternativeName, der};
use http::StatusCode;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderValue, USER_AGENT};
use percent_encoding::percent_decode;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::accounts::Account;
use crate::bag;
use crate::core::{Authority, Csr, Decision, Denial, Submission};
use crate::door::{self, Admitted, DoorConfig};
use crate::limits::FORM_MAX_BYTES;
use crate::serve::{Connection, answer, fault, html};
use crate::server::Shared;

const FRONT: &str = "certsrv";

/// Settings of the pages.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CertsrvConfig {
    /// Schemes that sign in.
    pub door: DoorConfig,
    /// Whether names in the attribute `SAN` count (`EDITF_ATTRIBUTESUBJECTALTNAME2`). Default false, as Windows has it.
    pub san_attribute: bool,
}

/// The pages.
pub(crate) fn router(shared: &Arc<Shared>) -> Router {
    Router::new()
        .route("/certsrv", get(first_page))
        .route("/certsrv/", get(first_page))
        .route("/certsrv/certfnsh.asp", post(request))
        .route("/certsrv/certnew.cer", get(certificate))
        .route("/certsrv/certcarc.asp", get(authorities))
        .route("/certsrv/certnew.p7b", get(chain))
        .layer(DefaultBodyLimit::max(FORM_MAX_BYTES))
        .with_state(Arc::clone(shared))
}

/// A request at the door: who it is, or the page that asks for it.
fn at_the_door(shared: &Shared, connection: &Connection, headers: &HeaderMap) -> Result<Admitted, Response> {
    let admitted = door::admit(shared, &shared.world().config.certsrv.door, connection, headers);
    if admitted.is_err() && headers.contains_key(http::header::AUTHORIZATION) {
        note(shared, "sign_in", "", "401");
    }
    admitted
}

async fn first_page(
    State(shared): State<Arc<Shared>>,
    Extension(connection): Extension<Arc<Connection>>,
    headers: HeaderMap,
) -> Response {
    let admitted = match at_the_door(&shared, &connection, &headers) {
        Ok(admitted) => admitted,
        Err(refused) => return refused,
    };
    let authority = shared.authority().await;
    admitted.answer(html(StatusCode::OK, &pages::welcome(&authority.config().name)))
}

async fn request(
    State(shared): State<Arc<Shared>>,
    Extension(connection): Extension<Arc<Connection>>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let admitted = match at_the_door(&shared, &connection, &headers) {
        Ok(admitted) => admitted,
        Err(refused) => return refused,
    };
    // Only now: requests of a handshake come without a form.
    let given = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if !given.to_ascii_lowercase().starts_with("application/x-www-form-urlencoded") {
        return admitted.answer(html(StatusCode::OK, &pages::mistake("The page was called without a form.")));
    }
    let form = fields(&body);
    let account = admitted.account.clone();
    if let Err(instead) = fault(&shared, FRONT, "request", &account.login).await {
        return instead;
    }
    let authority = shared.authority().await;
    let (page, outcome) = submit(&shared, &authority, &account, &form);
    note(&shared, "request", &account.login, &outcome);
    // The connection may break when everything is done, and nobody learns of it.
    if let Err(instead) = fault(&shared, FRONT, "requested", &account.login).await {
        return instead;
    }
    admitted.answer(html(StatusCode::OK, &page))
}

/// Hands a form to the authority; the page, and the outcome for the journal.
fn submit(
    shared: &Shared,
    authority: &Authority,
    account: &Account,
    form: &BTreeMap<String, String>,
) -> (String, String) {
    let field = |name: &str| form.get(name).map(String::as_str).unwrap_or_default();
    if field("Mode") != "newreq" {
        return (pages::mistake("The page was called without a mode it knows."), "no mode".to_owned());
    }
    let Ok(csr) = base64_text(field("CertRequest"), "CertRequest") else {
        return (pages::denied(0, &Denial::Unreadable), "unreadable".to_owned());
    };
    let attributes = attributes(field("CertAttrib"));
    let attribute = |name: &str| {
        attributes.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    };
    let template = attribute("CertificateTemplate");
    if template.is_none() && Csr::read(&csr).is_ok_and(|csr| csr.template.is_none()) {
        return (pages::no_template(), "no template".to_owned());
    }
    let names = attribute("SAN").filter(|_| shared.world().config.certsrv.san_attribute);
    let submission = Submission {
        front: FRONT,
        csr: &csr,
        requester: &account.upn,
        template,
        alternative_names: names.map(general_names),
        ..Submission::default()
    };
    let may = |_: &Csr| if account.enrols { Ok(()) } else { Err(Denial::NotAllowed) };
    match authority.submit(&submission, may) {
        Decision::Issued(issued) => (pages::issued(issued.request), format!("issued {}", issued.serial)),
        Decision::Pending(id) => (pages::pending(id), format!("pending {id}")),
        Decision::Denied(denial, id) => (pages::denied(id, &denial), format!("denied: {denial}")),
    }
}

/// Fields of a form; of two with the same name the last one counts.
fn fields(body: &[u8]) -> BTreeMap<String, String> {
    let decoded = |text: &[u8]| {
        let spaced: Vec<u8> = text.iter().map(|byte| if *byte == b'+' { b' ' } else { *byte }).collect();
        percent_decode(&spaced).decode_utf8_lossy().into_owned()
    };
    let pairs = body.split(|byte| *byte == b'&').filter_map(|pair| {
        let at = pair.iter().position(|byte| *byte == b'=')?;
        Some((decoded(&pair[..at]), decoded(&pair[at + 1..])))
    });
    pairs.collect()
}

/// Lines `Name:Value`, separated by CRLF or LF.
fn attributes(text: &str) -> Vec<(String, String)> {
    let lines = text.lines().filter_map(|line| line.split_once(':'));
    lines.map(|(name, value)| (name.trim().to_owned(), value.trim().to_owned())).collect()
}

/// `dns=a&upn=b` as GeneralNames; what is none of the known kinds is left out.
fn general_names(text: &str) -> Vec<u8> {
    let names = text.split('&').filter_map(|pair| pair.split_once('='));
    let names =
        names.filter_map(|(kind, value)| AlternativeName::parse(&format!("{}:{value}", kind.trim())).ok());
    let encoded: Vec<Vec<u8>> = names.map(|name| name.to_der()).collect();
    der::sequence(&encoded.iter().map(Vec::as_slice).collect::<Vec<_>>())
}

/// What a link to a file asks for.
#[derive(Deserialize)]
struct Wanted {
    #[serde(rename = "ReqID", default)]
    id: String,
    #[serde(rename = "Enc", default)]
    encoding: String,
    #[serde(rename = "Renewal")]
    renewal: Option<usize>,
}

impl Wanted {
    /// A file in the encoding asked for.
    fn file(&self, headers: &HeaderMap, kind: &'static str, label: &str, bytes: Vec<u8>) -> Response {
        let bytes = if self.encoding == "bin" { bytes } else { pem(label, &bytes).into_bytes() };
        let mut response = answer(StatusCode::OK, kind, bytes);
        let browser = headers.get(USER_AGENT).is_some_and(|agent| agent.as_bytes().starts_with(b"Mozilla"));
        if !browser {
            // The pages tell browsers apart, and give others their files as pages.
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/html"));
        }
        response
    }
}

async fn certificate(
    State(shared): State<Arc<Shared>>,
    Extension(connection): Extension<Arc<Connection>>,
    headers: HeaderMap,
    Query(wanted): Query<Wanted>,
) -> Response {
    let admitted = match at_the_door(&shared, &connection, &headers) {
        Ok(admitted) => admitted,
        Err(refused) => return refused,
    };
    let twist = match fault(&shared, FRONT, "certificate", &wanted.id).await {
        Ok(twist) => twist,
        Err(instead) => return instead,
    };
    let authority = shared.authority().await;
    let file = |bytes| wanted.file(&headers, "application/pkix-cert", "CERTIFICATE", bytes);
    if wanted.id == "CACert" {
        let hierarchy = authority.hierarchy();
        let at = wanted.renewal.unwrap_or(hierarchy.generations.len() - 1);
        return admitted.answer(match hierarchy.generations.get(at) {
            Some(generation) => file(generation.authority.certificate.raw().to_vec()),
            None => html(StatusCode::OK, &pages::nothing()),
        });
    }
    // A leading plus or a zero would name the same request twice.
    let id = wanted.id.parse::<u32>().ok().filter(|id| id.to_string() == wanted.id);
    let response = match id.and_then(|id| authority.decision(id)) {
        Some(Decision::Issued(issued)) => match twist {
            Some(Fault::Malformed { kind }) if kind == "another_key" => file(bag::anothers(&authority)),
            Some(Fault::Malformed { kind }) if kind == "half" => {
                file(issued.certificate[..issued.certificate.len() / 2].to_vec())
            }
            _ => file(issued.certificate.clone()),
        },
        Some(Decision::Pending(id)) => html(StatusCode::OK, &pages::still_pending(id)),
        Some(Decision::Denied(denial, id)) => html(StatusCode::OK, &pages::was_denied(id, &denial)),
        None => html(StatusCode::OK, &pages::nothing()),
    };
    note(&shared, "certificate", &wanted.id, "200");
    admitted.answer(response)
}

async fn authorities(
    State(shared): State<Arc<Shared>>,
    Extension(connection): Extension<Arc<Connection>>,
    headers: HeaderMap,
) -> Response {
    let admitted = match at_the_door(&shared, &connection, &headers) {
        Ok(admitted) => admitted,
        Err(refused) => return refused,
    };
    if let Err(instead) = fault(&shared, FRONT, "authorities", "").await {
        return instead;
    }
    let authority = shared.authority().await;
    let renewals = authority.hierarchy().generations.len() - 1;
    admitted.answer(html(StatusCode::OK, &pages::authorities(&authority.config().name, renewals)))
}

async fn chain(
    State(shared): State<Arc<Shared>>,
    Extension(connection): Extension<Arc<Connection>>,
    headers: HeaderMap,
    Query(wanted): Query<Wanted>,
) -> Response {
    let admitted = match at_the_door(&shared, &connection, &headers) {
        Ok(admitted) => admitted,
        Err(refused) => return refused,
    };
    if let Err(instead) = fault(&shared, FRONT, "chain", &wanted.id).await {
        return instead;
    }
    let authority = shared.authority().await;
    let hierarchy = authority.hierarchy();
    let bytes = if wanted.id == "CACert" {
        let at = wanted.renewal.unwrap_or(hierarchy.generations.len() - 1);
        hierarchy.generations.get(at).map(|generation| bag::of(&hierarchy.chain(generation)))
    } else {
        match wanted.id.parse().ok().and_then(|id| authority.decision(id)) {
            Some(Decision::Issued(issued)) => Some(bag::with_chain(&authority, &issued)),
            _ => None,
        }
    };
    admitted.answer(match bytes {
        Some(bytes) => wanted.file(&headers, "application/x-pkcs7-certificates", "CERTIFICATE", bytes),
        None => html(StatusCode::OK, &pages::nothing()),
    })
}

fn note(shared: &Shared, operation: &str, subject: &str, outcome: &str) {
    shared.cx.journal.record(FRONT, operation, subject, outcome, json!({}));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_are_decoded() {
        let form = fields(b"Mode=newreq&CertAttrib=CertificateTemplate%3AUser%0d%0a&x=a+b%2Bc&rubbish&=");
        assert_eq!(form["Mode"], "newreq");
        assert_eq!(form["CertAttrib"], "CertificateTemplate:User\r\n");
        assert_eq!(form["x"], "a b+c");
    }

    #[test]
    fn attributes_come_in_lines_of_either_kind() {
        let both = attributes("CertificateTemplate:User\r\nSAN:dns=a&upn=b@c\nrubbish\n");
        assert_eq!(both.len(), 2);
        assert_eq!(both[1], ("SAN".to_owned(), "dns=a&upn=b@c".to_owned()));
        let names = ["dns:a", "upn:b@c"].map(|name| AlternativeName::parse(name).unwrap().to_der());
        assert_eq!(general_names(&both[1].1), der::sequence(&[&names[0], &names[1]]));
    }
}
