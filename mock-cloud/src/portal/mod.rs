//! The portal: pages for people, rendered on the server, without a build step or any foreign asset.
//!
//! Pages work without JavaScript; `portal.js` adds live updates and relative times. Everything a page shows is escaped
//! by the templates, and the content security policy allows no inline script or style, so that a person called
//! `<script>` stays a name.

mod forms;
mod pages;
mod session;
mod shell;
mod words;

use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{HeaderValue, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{get, post};

use crate::limits::API_BODY_MAX_BYTES;
use crate::state::Cloud;
use crate::unread;
pub(crate) use session::SignInLimits;
use session::SignIns;
pub(crate) use shell::PortalError;

/// What portal pages share. The public port and the loopback port have one each over the same sign-ins.
#[derive(Clone)]
struct Portal {
    cloud: Arc<Cloud>,
    sign_ins: Arc<SignIns>,
    limits: Arc<SignInLimits>,
    /// Whether this front end is behind TLS: cookies are then bound to it.
    secure: bool,
}

/// The pages for one or more front ends; they share who is signed in.
#[derive(Clone)]
pub struct Pages {
    portal: Portal,
}

impl Pages {
    /// Nobody is signed in yet.
    pub fn new(cloud: Arc<Cloud>) -> Self {
        let (sign_ins, limits) = (Arc::default(), Arc::default());
        Self { portal: Portal { cloud, sign_ins, limits, secure: true } }
    }

    /// The routes for a front end; `secure` says whether it is behind TLS.
    pub fn router(&self, secure: bool) -> Router {
        router(Portal { secure, ..self.portal.clone() })
    }
}

fn router(portal: Portal) -> Router {
    let tenant = Router::new()
        .route("/", get(pages::home::show))
        .route("/agents", get(pages::agents::list))
        .route("/agents/key", post(pages::agents::make_key))
        .route("/agents/{agent}", get(pages::agents::show))
        .route("/agents/{agent}/revoke", post(pages::agents::revoke))
        .route("/modules", get(pages::modules::list))
        .route("/modules/new", post(pages::modules::open))
        .route("/modules/{module}", get(pages::modules::edit).post(pages::modules::save))
        .route("/people", get(pages::people::list))
        .route("/people/{user}", get(pages::people::show))
        .route("/groups", get(pages::groups::list))
        .route("/groups/{group}", get(pages::groups::show))
        .route("/units", get(pages::units::show))
        .route("/devices", get(pages::devices::list))
        .route("/devices/{device}", get(pages::device::show).post(pages::device::order))
        .route("/policies", get(pages::policies::list).post(pages::policies::quarantine))
        .route("/compliance", get(pages::compliance::show).post(pages::compliance::save))
        .route("/compliance/confirm", post(pages::compliance::confirm))
        .route("/certificates", get(pages::certificates::list))
        .route("/certificates/{certificate}", get(pages::certificates::show))
        .route("/certificates/{certificate}/chain", get(pages::certificates::chain))
        .route("/certificates/{certificate}/renew", post(pages::certificates::renew))
        .route("/certificates/{certificate}/revoke", post(pages::certificates::revoke))
        .route("/certificate-requests", get(pages::certificate_requests::list))
        .route("/certificate-requests/{request}", get(pages::certificate_requests::show))
        .route(
            "/certificate-profiles",
            get(pages::certificate_profiles::list).post(pages::certificate_profiles::create),
        )
        .route(
            "/certificate-profiles/{profile}",
            get(pages::certificate_profiles::show).post(pages::certificate_profiles::save),
        )
        .route("/actions", get(pages::actions::list).post(pages::actions::order))
        .route("/actions/{action}", get(pages::actions::show))
        .route("/alerts", get(pages::alerts::list))
        .route("/alerts/{alert}/ack", post(pages::alerts::ack))
        .route("/live", get(pages::live::show))
        .route("/live/stream", get(pages::live::stream))
        .route("/password", get(pages::password::show).post(pages::password::check));
    Router::new()
        .route("/", get(pages::overview::show).post(pages::overview::create))
        .route("/sign-in", get(pages::sign_in::show).post(pages::sign_in::sign_in))
        .route("/sign-out", post(pages::sign_in::sign_out))
        .nest("/t/{tenant}", tenant)
        .route("/t/{tenant}/", get(|request: Request| async move { without_slash(&request) }))
        .route("/assets/portal.css", get(|| async { asset("text/css; charset=utf-8", CSS) }))
        .route("/assets/portal.js", get(|| async { asset("text/javascript; charset=utf-8", JS) }))
        .route("/assets/mark.svg", get(|| async { asset("image/svg+xml", MARK) }))
        .fallback(|| async { PortalError::NotFound { what: "page".to_owned() } })
        .layer(DefaultBodyLimit::max(API_BODY_MAX_BYTES))
        .layer(middleware::from_fn(unread::throw_away))
        .layer(middleware::from_fn_with_state(portal.clone(), harden))
        .with_state(portal)
}

const CSS: &str = include_str!("../../assets/portal.css");
const JS: &str = include_str!("../../assets/portal.js");
const MARK: &str = include_str!("../../assets/mark.svg");

fn asset(kind: &'static str, text: &'static str) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, "max-age=60")], text)
}

fn without_slash(request: &Request) -> Redirect {
    Redirect::permanent(request.uri().path().trim_end_matches('/'))
}

/// Headers of every answer: nothing foreign is loaded, nothing is framed, nothing is kept by the browser but assets.
async fn harden(State(portal): State<Portal>, request: Request, next: Next) -> Response {
    const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; \
                          connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'";
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("same-origin"));
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    if portal.secure {
        let value = HeaderValue::from_static("max-age=31536000");
        headers.insert(header::STRICT_TRANSPORT_SECURITY, value);
    }
    response
}
