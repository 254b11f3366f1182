//! The admin API every mock has on loopback: health, world, journal, faults, clock, and its OpenAPI document.

mod document;
mod extract;
mod guard;
mod problem;
mod routes;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::DefaultBodyLimit;
use axum::http::{Request, StatusCode};
use axum::middleware;
use futures_util::future::BoxFuture;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use utoipa::openapi::OpenApi;
use utoipa_axum::router::OpenApiRouter;

pub use document::{describe_responses, undescribed};
pub use extract::{Json, Path, Query};
pub use problem::{AdminError, Problem};
pub use routes::{Advance, ClockView, JournalPage, NewFault};

use crate::KitContext;
use crate::limits::{ADMIN_BODY_MAX_BYTES, ADMIN_CONNECTIONS_MAX};

/// Time a client has to send a request head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);

/// What the admin API needs to know of a mock's world.
pub trait AdminWorld: Send + Sync + 'static {
    /// The world as JSON, without passwords.
    fn world(&self) -> BoxFuture<'_, Value>;
    /// Puts another world in its place; all or nothing.
    fn replace_world(&self, world: Value) -> BoxFuture<'_, Result<(), AdminError>>;
    /// Brings back the world the mock started with. Faults and journal are cleared by the caller.
    fn reset(&self) -> BoxFuture<'_, Result<(), AdminError>>;
    /// Anything worth telling besides `status`, `service` and `version`; an object.
    fn health(&self) -> Value;
}

/// The admin routes with those of `extra` (a mock's own, under `/world/...`) and `/openapi.json` over all of them.
pub fn router(cx: KitContext, world: Arc<dyn AdminWorld>, extra: OpenApiRouter) -> Router {
    let (router, document) = parts(cx, world, extra);
    let json: Arc<str> = document.to_json().expect("an OpenAPI document is plain JSON").into();
    router
        .route(
            "/openapi.json",
            axum::routing::get(move || {
                let json = json.to_string();
                async move { ([(axum::http::header::CONTENT_TYPE, "application/json")], json) }
            }),
        )
        .method_not_allowed_fallback(|request: Request<Body>| async move {
            let detail = format!(
                "{} is not offered for {}; see /openapi.json",
                request.method(),
                request.uri().path()
            );
            Problem::response(StatusCode::METHOD_NOT_ALLOWED, "", &detail)
        })
        .fallback(|request: Request<Body>| async move {
            let detail =
                format!("there is no {} {}; see /openapi.json", request.method(), request.uri().path());
            Problem::response(StatusCode::NOT_FOUND, "", &detail)
        })
        .layer(DefaultBodyLimit::max(ADMIN_BODY_MAX_BYTES))
}

/// The routes and the document that describes them.
fn parts(cx: KitContext, world: Arc<dyn AdminWorld>, extra: OpenApiRouter) -> (Router, OpenApi) {
    let service = cx.service;
    let (router, mut document) = routes::routes(cx, world).merge(extra).split_for_parts();
    document.info.title = format!("{service} admin API");
    document.info.version = env!("CARGO_PKG_VERSION").to_owned();
    document::add_refusals(&mut document);
    describe_responses(&mut document);
    (router, document)
}

/// Serves an admin API until `stop` is cancelled. On loopback nobody but programs of this machine may call it: a foreign
/// `Origin`, and a `Host` that is neither an address nor `localhost`, are refused. Whoever lets it listen elsewhere
/// decides thereby that everybody who reaches it owns the mock.
pub async fn serve_admin(listener: TcpListener, router: Router, stop: CancellationToken) {
    let guarded = listener.local_addr().is_ok_and(|address| guard::is_needed(address.ip()));
    let router = if guarded { router.layer(middleware::from_fn(guard::refuse_pages)) } else { router };
    serve(listener, router, stop).await;
}

/// Serves HTTP/1.1 until `stop` is cancelled; then closes all connections, also those in a long poll.
pub async fn serve(listener: TcpListener, router: Router, stop: CancellationToken) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept(), if connections.len() < ADMIN_CONNECTIONS_MAX => {
                let Ok((tcp, _)) = accepted else {
                    // Out of file handles, most likely; give others time to close theirs.
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                };
                let service = TowerToHyperService::new(router.clone());
                connections.spawn(async move {
                    let connection = hyper::server::conn::http1::Builder::new()
                        .timer(TokioTimer::new())
                        .header_read_timeout(HEAD_TIMEOUT)
                        .serve_connection(TokioIo::new(tcp), service);
                    if let Err(error) = connection.await {
                        tracing::debug!(%error, "Admin connection ended");
                    }
                });
            }
        }
    }
}
