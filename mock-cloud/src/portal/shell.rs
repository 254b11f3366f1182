//! The frame of every page: who looks, at which tenant, and what went wrong.

use askama::Template;
use axum::extract::{FromRequestParts, Path};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::{Html, IntoResponse, Redirect, Response};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;

use super::Portal;
use super::session::SignedIn;
use crate::api::Problem;
use crate::store::{StoreError, Tenant};

/// What the frame of a page shows.
pub(super) struct Shell {
    /// Who is signed in.
    pub(super) user: String,
    /// For every form on the page.
    pub(super) csrf: String,
    /// The tenant whose pages these are; empty on the overview.
    pub(super) tenant: String,
    /// Its name.
    pub(super) tenant_name: String,
    /// Which entry of the navigation is the current one.
    pub(super) active: &'static str,
    /// Open alerts, for the badge.
    pub(super) alerts_open: u64,
    /// The cloud's time, for relative times.
    pub(super) now_ms: i64,
}

/// Someone signed in.
pub(super) struct Visitor {
    pub(super) signed_in: SignedIn,
}

impl Visitor {
    /// Name in the audit log.
    pub(super) fn actor(&self) -> String {
        format!("portal:{}", self.signed_in.user)
    }

    /// Refuses a form that is not from a page of this session.
    pub(super) fn check(&self, csrf: &str) -> Result<(), PortalError> {
        if self.signed_in.owns(csrf) { Ok(()) } else { Err(PortalError::ForeignForm) }
    }

    /// The frame of a page outside any tenant.
    pub(super) fn shell(&self, portal: &Portal, active: &'static str) -> Shell {
        Shell {
            user: self.signed_in.user.clone(),
            csrf: self.signed_in.csrf.clone(),
            tenant: String::new(),
            tenant_name: String::new(),
            active,
            alerts_open: 0,
            now_ms: portal.cloud.now_ms(),
        }
    }
}

impl FromRequestParts<Portal> for Visitor {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, portal: &Portal) -> Result<Self, Response> {
        let found = cookie(&parts.headers, portal).and_then(|cookie| portal.sign_ins.find(&cookie));
        match found {
            Some(signed_in) => Ok(Self { signed_in }),
            None => Err(to_sign_in(parts)),
        }
    }
}

/// Back to the page afterwards, if it was one that can be asked for again.
fn to_sign_in(parts: &Parts) -> Response {
    if parts.uri.path().ends_with("/stream") {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    let path =
        parts.extensions.get::<axum::extract::OriginalUri>().map_or(&parts.uri, |original| &original.0);
    let wanted = path.path_and_query().map_or("/", |path| path.as_str());
    if parts.method != Method::GET || wanted == "/" {
        return Redirect::to("/sign-in").into_response();
    }
    Redirect::to(&format!("/sign-in?next={}", utf8_percent_encode(wanted, NON_ALPHANUMERIC))).into_response()
}

/// Someone signed in, looking at a tenant.
pub(super) struct InTenant {
    pub(super) visitor: Visitor,
    pub(super) tenant: Tenant,
}

#[derive(Deserialize)]
struct TenantInPath {
    tenant: String,
}

impl FromRequestParts<Portal> for InTenant {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, portal: &Portal) -> Result<Self, Response> {
        let visitor = Visitor::from_request_parts(parts, portal).await?;
        let Path(path) = Path::<TenantInPath>::from_request_parts(parts, portal)
            .await
            .map_err(|_| PortalError::NotFound { what: "page".to_owned() }.into_response())?;
        let found = portal.cloud.store.tenant(&path.tenant).await;
        match found.map_err(|error| PortalError::from(error).into_response())? {
            Some(tenant) => Ok(Self { visitor, tenant }),
            None => Err(PortalError::NotFound { what: "tenant".to_owned() }.into_response()),
        }
    }
}

impl InTenant {
    /// The frame of one of the tenant's pages.
    pub(super) async fn shell(&self, portal: &Portal, active: &'static str) -> Result<Shell, PortalError> {
        let mut shell = self.visitor.shell(portal, active);
        shell.alerts_open = portal.cloud.store.alerts_open(&self.tenant.id).await?;
        shell.tenant.clone_from(&self.tenant.id);
        shell.tenant_name.clone_from(&self.tenant.name);
        Ok(shell)
    }
}

/// Name of the session cookie. Behind TLS the prefix makes browsers refuse it from anywhere else (RFC 6265bis 4.1.3).
pub(super) fn cookie_name(portal: &Portal) -> &'static str {
    if portal.secure { "__Host-causeway" } else { "causeway" }
}

/// The session cookie of a request.
pub(super) fn cookie(headers: &HeaderMap, portal: &Portal) -> Option<String> {
    headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find(|(name, _)| *name == cookie_name(portal))
        .map(|(_, value)| value.to_owned())
}

/// Why there is no page.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PortalError {
    /// No such thing in this tenant.
    #[error("there is no such {what}")]
    NotFound {
        /// What was looked for.
        what: String,
    },
    /// A form without this session's token.
    #[error("this form is out of date")]
    ForeignForm,
    /// What the person asked for does not fit.
    #[error("{detail}")]
    Refused {
        /// HTTP status.
        status: u16,
        /// For people.
        detail: String,
    },
    /// The store failed.
    #[error("use the store")]
    Store(#[source] StoreError),
    /// A template failed, which is a mistake of ours.
    #[error("render page")]
    Render(#[source] askama::Error),
}

impl From<StoreError> for PortalError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<Problem> for PortalError {
    fn from(problem: Problem) -> Self {
        Self::Refused { status: problem.status, detail: problem.detail }
    }
}

#[derive(Template)]
#[template(path = "error.html")]
struct ErrorPage<'a> {
    status: u16,
    title: &'a str,
    detail: &'a str,
}

impl IntoResponse for PortalError {
    fn into_response(self) -> Response {
        let (status, title, detail) = match &self {
            Self::NotFound { what } => {
                (404, "Not here", format!("There is no such {what}, or it is gone by now."))
            }
            Self::ForeignForm => (
                403,
                "Please try again",
                "This form was out of date. Go back, reload the page and send it again.".into(),
            ),
            Self::Refused { status, detail } => (*status, "That did not work", detail.clone()),
            Self::Store(_) | Self::Render(_) => {
                tracing::error!(error = ?self, "Portal page failed");
                (500, "Something broke", "The cloud could not make this page; its log says why.".into())
            }
        };
        let page = ErrorPage { status, title, detail: &detail };
        let code = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        match page.render() {
            Ok(html) => (code, Html(html)).into_response(),
            Err(_) => (code, detail).into_response(),
        }
    }
}

/// A rendered page.
pub(super) type PageResult = Result<Response, PortalError>;

/// Renders a template.
pub(super) fn page(template: &impl Template) -> PageResult {
    Ok(Html(template.render().map_err(PortalError::Render)?).into_response())
}
