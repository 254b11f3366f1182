//! The web services of Active Directory Certificate Services: the enrolment policy service (MS-XCEP) and the enrolment
//! service (MS-WSTEP). The path says how a caller shows who it is: `..._UsernamePassword`, `..._Certificate` or
//! `..._Kerberos` (where NTLM inside Negotiate is taken, as IIS takes it).

#![expect(clippy::result_large_err, reason = "a refusal is the answer itself, made once for a request")]

mod wstep;

use std::sync::Arc;

use axum::extract::{DefaultBodyLimit, Path, State};
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use axum::{Extension, Router};
use bytes::Bytes;
use causeway_mock_kit::fault::Fault;
use causeway_protocol::enrol::soap::{self, Blame, Head, Message, Version};
use causeway_protocol::enrol::wstep::Detail;
use causeway_protocol::enrol::xcep::{self, Authentication, Ca, Policies, Policy, Uri};
use http::StatusCode;
use http::header::{CONTENT_TYPE, HeaderMap};
use serde_json::json;

use crate::accounts::Account;
use crate::core::Authority;
use crate::door::{self, Admitted, DoorConfig};
use crate::limits::FORM_MAX_BYTES;
use crate::ra::Ra;
use crate::serve::{Connection, answer, fault, html};
use crate::server::Shared;

const FRONT: &str = "xcep";
const DAY_SECS: u64 = 86_400;
/// Windows offers six weeks before the end by default.
const RENEWAL_SECS: u64 = 42 * DAY_SECS;
/// The only scheme at a Kerberos address.
const NEGOTIATE: DoorConfig = DoorConfig { negotiate: true, ntlm: false, basic: false };

/// The policy service.
pub(crate) fn policy_router(shared: &Arc<Shared>) -> Router {
    routed(shared, post(policies), "/{directory}/service.svc/CEP")
}

/// The enrolment service.
pub(crate) fn enrolment_router(shared: &Arc<Shared>) -> Router {
    routed(shared, post(wstep::enrol), "/{directory}/service.svc/CES")
}

fn routed(shared: &Arc<Shared>, route: axum::routing::MethodRouter<Arc<Shared>>, path: &str) -> Router {
    Router::new()
        .route(path, route)
        .layer(DefaultBodyLimit::max(FORM_MAX_BYTES))
        .with_state(Arc::clone(shared))
}

/// Everything of one call but its body.
struct Caller {
    message: Message,
    account: Account,
    admitted: Option<Admitted>,
    twist: Option<Fault>,
}

impl Caller {
    /// The head of the answer.
    fn head(&self) -> Head<'_> {
        Head { relates_to: self.message.message_id(), ..Head::default() }
    }

    fn answer(self, text: String) -> Response {
        let response = envelope(StatusCode::OK, text);
        match self.admitted {
            Some(admitted) => admitted.answer(response),
            None => response,
        }
    }
}

/// Reads a message and finds out who sends it.
async fn arrive(
    shared: &Shared,
    front: &'static str,
    directory: &str,
    expected: &str,
    connection: &Connection,
    headers: &HeaderMap,
    body: &[u8],
) -> Result<Caller, Response> {
    let authentication = authentication_of(directory).ok_or_else(|| StatusCode::NOT_FOUND.into_response())?;
    let admitted = match authentication {
        Authentication::Kerberos => Some(door::admit(shared, &NEGOTIATE, connection, headers)?),
        _ => None,
    };
    let given = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if !given.to_ascii_lowercase().starts_with("application/soap+xml") {
        return Err(html(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "415 - the content type is not application/soap+xml",
        ));
    }
    let message = match soap::read(body) {
        Ok(message) if message.version == Version::V12 => message,
        _ => return Err(html(StatusCode::BAD_REQUEST, "400 - no SOAP 1.2 envelope")),
    };
    if message.action() != Some(expected) {
        let action = issued_name(message.action().unwrap_or_default());
        let reason = format!("The message with Action '{action}' cannot be processed at the receiver.");
        return Err(refuse(&message, Blame::Sender, Some("a:ActionNotSupported"), &reason, None));
    }
    let account = match (&admitted, authentication) {
        (Some(admitted), _) => admitted.account.clone(),
        (None, Authentication::Certificate) => by_certificate(shared, connection)?,
        (None, _) => by_token(shared, front, &message)?,
    };
    let twist = fault(shared, front, expected.rsplit('/').next().unwrap_or_default(), &account.login).await?;
    Ok(Caller { message, account, admitted, twist })
}

fn by_token(shared: &Shared, front: &str, message: &Message) -> Result<Account, Response> {
    let world = shared.world();
    let known =
        message.user().and_then(|(name, password)| world.accounts.sign_in(&name, password.expose()).ok());
    known.ok_or_else(|| {
        shared.cx.journal.record(front, "sign_in", "", "refused", json!({}));
        // The same words whatever was wrong.
        let reason = "An error occurred when verifying security for the message.";
        refuse(message, Blame::Sender, Some("o:FailedAuthentication"), reason, None)
    })
}

/// A certificate stands for the service account: which accounts certificates belong to, only a directory knows.
fn by_certificate(shared: &Shared, connection: &Connection) -> Result<Account, Response> {
    let forbidden = || html(StatusCode::FORBIDDEN, "403.7 - Forbidden: Client certificate required.");
    match Ra::of(connection, shared.cx.clock.now_ms()) {
        Some(ra) if !ra.is_expired => {
            let world = shared.world();
            world.accounts.admit(world.company.service_account.login).map_err(|_| forbidden())
        }
        _ => Err(forbidden()),
    }
}

/// What the directory of a service says about its callers.
fn authentication_of(directory: &str) -> Option<Authentication> {
    let (rest, word) = directory.rsplit_once('_')?;
    if !(rest.ends_with("_CEP") || rest.ends_with("_CES")) {
        return None;
    }
    match word {
        "UsernamePassword" => Some(Authentication::UserName),
        "Certificate" => Some(Authentication::Certificate),
        "Kerberos" => Some(Authentication::Kerberos),
        _ => None,
    }
}

async fn policies(
    State(shared): State<Arc<Shared>>,
    Path(directory): Path<String>,
    Extension(connection): Extension<Arc<Connection>>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let arrived =
        arrive(&shared, FRONT, &directory, xcep::ACTION_REQUEST, &connection, &headers, &body).await;
    let caller = match arrived {
        Ok(caller) => caller,
        Err(refused) => return refused,
    };
    if let Err(error) = xcep::read_request(&caller.message) {
        return refuse(&caller.message, Blame::Sender, None, &error.to_string(), None);
    }
    let authority = shared.authority().await;
    let services = shared.urls.get("wstep").map(String::as_str).unwrap_or_default();
    let known = offered(&authority, services, caller.account.enrols);
    shared.cx.journal.record(FRONT, "get_policies", &caller.account.login, "200", json!({}));
    let text = known.write(caller.head());
    caller.answer(text)
}

/// Every template and where it is issued.
fn offered(authority: &Authority, services: &str, enrols: bool) -> Policies {
    let policies = authority.config().templates.iter().map(|template| {
        let validity_secs = u64::from(template.validity_days) * DAY_SECS;
        Policy {
            common_name: template.name.clone(),
            oid: template.oid.clone().unwrap_or_default(),
            validity_secs,
            renewal_secs: RENEWAL_SECS.min(validity_secs / 2),
            key_min_bits: template.key_min_bits,
            may_enroll: enrols,
            auto_enroll: false,
            cas: vec![0],
        }
    });
    let ways = [Authentication::Kerberos, Authentication::UserName, Authentication::Certificate];
    let uris = ways.into_iter().zip(1..).map(|(authentication, priority)| {
        let word = match authentication {
            Authentication::Kerberos => "_Kerberos/",
            Authentication::Certificate => "_Certificate/",
            _ => "_UsernamePassword/",
        };
        Uri {
            authentication,
            uri: services.replace("_UsernamePassword/", word),
            priority,
            renewal_only: false,
        }
    });
    Policies {
        id: "{6f1d8b0a-6c2e-4a53-9a0b-3d2f6f0b7c11}".to_owned(),
        friendly_name: authority.config().name.clone(),
        next_update_hours: Some(8),
        policies: policies.collect(),
        cas: vec![Ca {
            reference: 0,
            uris: uris.collect(),
            certificate: authority.hierarchy().current().authority.certificate.raw().to_vec(),
            may_enroll: enrols,
        }],
    }
}

/// A fault, which comes with status 500.
fn refuse(
    message: &Message,
    blame: Blame,
    subcode: Option<&str>,
    reason: &str,
    detail: Option<&Detail>,
) -> Response {
    let head = Head { relates_to: message.message_id(), ..Head::default() };
    let text = soap::write_fault(Version::V12, &head, blame, subcode, reason, &[], |out| {
        if let Some(detail) = detail {
            detail.write(out);
        }
    });
    envelope(StatusCode::INTERNAL_SERVER_ERROR, text)
}

fn envelope(status: StatusCode, text: String) -> Response {
    answer(status, Version::V12.content_type(), text.into_bytes())
}

/// A name from a client, short enough for an answer.
fn issued_name(text: &str) -> String {
    text.chars().filter(|letter| !letter.is_control()).take(200).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_say_who_may_call() {
        for (directory, expected) in [
            ("ADPolicyProvider_CEP_UsernamePassword", Some(Authentication::UserName)),
            ("Acme Issuing CA_CES_Kerberos", Some(Authentication::Kerberos)),
            ("Acme_CES_Certificate", Some(Authentication::Certificate)),
            ("Acme_CES_Anonymous", None),
            ("Acme_Certificate", None),
            ("x", None),
        ] {
            assert_eq!(authentication_of(directory), expected, "{directory}");
        }
    }
}
