//! The upload routes (`causeway_protocol::upload`).

use std::sync::Arc;

use aws_lc_rs::{constant_time, digest};
use axum::body::Body;
use axum::extract::{Extension, Path, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use axum::{Json, Router};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use causeway_mock_kit::fault::{Fault, Point};
use causeway_protocol::limits::{BATCH_MAX_BYTES, UPLOAD_CREDITS};
use causeway_protocol::upload::{BASE_PATH, CREDITS_HEADER, Commit};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde_json::{Value, json};

use super::batch;
use crate::channel::FRONT;
use crate::channel::inbound::journal;
use crate::channel::login::admit;
use crate::events::kinds;
use crate::limits::{COMMIT_BODY_MAX_BYTES, UPLOAD_RETRY_SECS};
use crate::offload::offload;
use crate::pki::AgentIdentity;
use crate::port::Peer;
use crate::state::Cloud;
use crate::store::{BatchApplied, BatchIn, CommitResult};

/// The routes agents upload to.
pub fn router(cloud: Arc<Cloud>) -> Router {
    Router::new()
        .route(&format!("{BASE_PATH}/{{upload}}/batches/{{n}}"), put(put_batch))
        .route(&format!("{BASE_PATH}/{{upload}}/commit"), post(commit))
        .route(&format!("{BASE_PATH}/{{upload}}"), get(state))
        .with_state(cloud)
}

/// An error answer in RFC 9457 form.
struct Refusal {
    status: StatusCode,
    code: &'static str,
    detail: String,
}

impl Refusal {
    fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        Self { status, code, detail: detail.into() }
    }

    fn store(error: &crate::store::StoreError) -> Self {
        tracing::error!(%error, "Store failed for an upload");
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "store_failed",
            "the cloud cannot store anything at the moment",
        )
    }

    fn no_upload() -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", "there is no such upload of this agent")
    }

    fn over(state: &str) -> Self {
        Self::new(StatusCode::GONE, "upload_over", format!("the upload is {state}; ask for a new one"))
    }

    fn stale() -> Self {
        let detail = "the lease has passed to another agent; stop collecting";
        Self::new(StatusCode::PRECONDITION_FAILED, "stale_fence", detail)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let problem = json!({
            "type": format!("urn:causeway:problem:{}", self.code), "status": self.status.as_u16(),
            "title": self.status.canonical_reason().unwrap_or("Error"), "code": self.code, "detail": self.detail,
        });
        let mut response = (self.status, problem.to_string()).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if self.status == StatusCode::UNSUPPORTED_MEDIA_TYPE {
            headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("zstd"));
        }
        if matches!(self.status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS) {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(UPLOAD_RETRY_SECS));
        }
        response
    }
}

async fn put_batch(
    State(cloud): State<Arc<Cloud>>,
    peer: Option<Extension<Peer>>,
    Path((upload, n)): Path<(String, u64)>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Refusal> {
    let who = identify(&cloud, peer.as_deref()).await?;
    meet(&cloud, peer.as_deref(), "upload_batch", &upload).await?;
    if headers.get(header::CONTENT_ENCODING).is_none_or(|encoding| encoding != "zstd") {
        let detail = "batches are sent with Content-Encoding: zstd";
        return Err(Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "encoding", detail));
    }
    let body = take(body, BATCH_MAX_BYTES).await?;
    let digest = check_digest(&headers, &body)?;
    let bytes = body.len();
    // Decompression and parsing are pure computation of some milliseconds: not on the reactor.
    let read = offload(move || batch::read(&body)).await;
    let changes = read
        .map_err(|_| Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "reading the batch failed"))?
        .map_err(|error| {
            let status =
                if error.is_too_large() { StatusCode::PAYLOAD_TOO_LARGE } else { StatusCode::BAD_REQUEST };
            let source = std::error::Error::source(&error).map(|it| format!(": {it}")).unwrap_or_default();
            Refusal::new(status, "bad_batch", format!("{error}{source}"))
        })?;
    let records = changes.len();
    let acknowledge_only = cloud.config.uploads.acknowledge_only;
    let batch =
        BatchIn { identity: who, upload: upload.clone(), n, digest, bytes, changes, acknowledge_only };
    let applied = cloud.store.apply_batch(batch).await.map_err(|error| Refusal::store(&error))?;
    let status = match applied {
        BatchApplied::Stored => StatusCode::CREATED,
        BatchApplied::Repeated => StatusCode::OK,
        BatchApplied::OtherDigest => {
            let detail = format!("batch {n} was stored with another digest");
            return Err(Refusal::new(StatusCode::CONFLICT, "other_digest", detail));
        }
        BatchApplied::StaleFence => return Err(Refusal::stale()),
        BatchApplied::Over(state) => return Err(Refusal::over(&state)),
        BatchApplied::NoUpload => return Err(Refusal::no_upload()),
    };
    let detail = json!({ "n": n, "records": records, "bytes": bytes });
    journal(&cloud, "upload_batch", &upload, status.as_str(), detail);
    let mut response = status.into_response();
    response.headers_mut().insert(CREDITS_HEADER, HeaderValue::from(UPLOAD_CREDITS));
    Ok(response)
}

async fn commit(
    State(cloud): State<Arc<Cloud>>,
    peer: Option<Extension<Peer>>,
    Path(upload): Path<String>,
    body: Body,
) -> Result<Response, Refusal> {
    let who = identify(&cloud, peer.as_deref()).await?;
    meet(&cloud, peer.as_deref(), "commit", &upload).await?;
    let body = take(body, COMMIT_BODY_MAX_BYTES).await?;
    let commit: Commit = serde_json::from_slice(&body)
        .map_err(|error| Refusal::new(StatusCode::BAD_REQUEST, "bad_commit", error.to_string()))?;
    let settings = &cloud.config.uploads;
    let result = cloud
        .store
        .commit_upload(&who, &upload, commit, settings, cloud.now_ms())
        .await
        .map_err(|error| Refusal::store(&error))?;
    match result {
        CommitResult::Committed { committed, first, source, mode } => {
            if first {
                let body = json!({
                    "upload": upload, "source": source, "mode": mode, "epoch": committed.epoch,
                    "upserts": committed.upserts, "deletes": committed.deletes, "agent": who.instance,
                });
                cloud.events.emit(&who.tenant, kinds::UPLOAD_COMMITTED, body);
                cloud.compliance.touch(&who.tenant);
                cloud.certificates.touch_phones(&who.tenant);
            }
            let detail = json!({ "epoch": committed.epoch, "upserts": committed.upserts, "deletes": committed.deletes });
            journal(&cloud, "commit", &upload, "committed", detail);
            Ok(Json(committed).into_response())
        }
        CommitResult::MassDelete { source, doomed, total } => {
            let detail = format!(
                "the snapshot would delete {doomed} of {total} objects of {source}, more than {} %; \
                 a person must confirm it",
                settings.mass_delete_percent
            );
            let body = json!({ "upload": upload, "source": source, "reason": "mass_delete" });
            cloud.events.emit(&who.tenant, kinds::UPLOAD_REFUSED, body);
            journal(&cloud, "commit", &upload, "mass_delete", Value::Null);
            Err(Refusal::new(StatusCode::CONFLICT, "mass_delete", detail))
        }
        CommitResult::Incomplete { batches, records } => {
            let detail =
                format!("{batches} batches with {records} records have arrived; GET the upload to see which");
            Err(Refusal::new(StatusCode::CONFLICT, "incomplete", detail))
        }
        CommitResult::StaleFence => Err(Refusal::stale()),
        CommitResult::Over(state) => Err(Refusal::over(&state)),
        CommitResult::NoUpload => Err(Refusal::no_upload()),
    }
}

async fn state(
    State(cloud): State<Arc<Cloud>>,
    peer: Option<Extension<Peer>>,
    Path(upload): Path<String>,
) -> Result<Response, Refusal> {
    let who = identify(&cloud, peer.as_deref()).await?;
    let state = cloud.store.upload_state(&who, &upload).await.map_err(|error| Refusal::store(&error))?;
    state.map(|state| Json(state).into_response()).ok_or_else(Refusal::no_upload)
}

/// Who uploads: certificate judged as on the channel, on every request, so that a revocation counts at once.
async fn identify(cloud: &Cloud, peer: Option<&Peer>) -> Result<AgentIdentity, Refusal> {
    let chain = peer.map(|peer| &*peer.chain).unwrap_or_default();
    if chain.is_empty() {
        let detail = "uploads need the agent's client certificate";
        return Err(Refusal::new(StatusCode::UNAUTHORIZED, "no_certificate", detail));
    }
    let refuse = |refusal: crate::pki::Refusal| {
        Refusal::new(StatusCode::FORBIDDEN, "certificate_refused", refusal.to_string())
    };
    let who = cloud.pki.judge(chain, cloud.now_ms()).map_err(refuse)?;
    admit(cloud, &who, chain).await.map_err(refuse)?;
    Ok(who)
}

async fn meet(cloud: &Cloud, peer: Option<&Peer>, operation: &str, subject: &str) -> Result<(), Refusal> {
    let Some(fault) = cloud.kit.faults.meet(&Point { front: FRONT, operation, subject }).await else {
        return Ok(());
    };
    if let Fault::Status { message, .. } = &fault {
        let number = fault.status_number().and_then(|number| u16::try_from(number).ok());
        let status = number.and_then(|number| StatusCode::from_u16(number).ok());
        return Err(Refusal::new(
            status.unwrap_or(StatusCode::SERVICE_UNAVAILABLE),
            "injected",
            message.clone(),
        ));
    }
    if let Some(peer) = peer {
        peer.cut.cancel();
    }
    std::future::pending().await
}

async fn take(body: Body, max_bytes: usize) -> Result<Bytes, Refusal> {
    axum::body::to_bytes(body, max_bytes).await.map_err(|error| {
        let too_large = std::error::Error::source(&error)
            .is_some_and(|source| source.is::<http_body_util::LengthLimitError>());
        if too_large {
            let detail = format!("the body is larger than {max_bytes} bytes");
            return Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", detail);
        }
        Refusal::new(StatusCode::BAD_REQUEST, "incomplete_body", "the body ended early")
    })
}

/// RFC 9530: `Content-Digest: sha-256=:<base64>:` over the body as sent.
fn check_digest(headers: &HeaderMap, body: &[u8]) -> Result<Vec<u8>, Refusal> {
    let wrong = |detail: &str| Refusal::new(StatusCode::BAD_REQUEST, "digest", detail);
    let text = headers.get("content-digest").and_then(|value| value.to_str().ok());
    let stated = text
        .into_iter()
        .flat_map(|text| text.split(','))
        .find_map(|member| member.trim().strip_prefix("sha-256=:")?.strip_suffix(':'))
        .ok_or_else(|| wrong("Content-Digest with sha-256 is missing"))?;
    let stated = STANDARD.decode(stated).map_err(|_| wrong("Content-Digest is not Base64"))?;
    let actual = digest::digest(&digest::SHA256, body);
    constant_time::verify_slices_are_equal(&stated, actual.as_ref())
        .map_err(|_| wrong("Content-Digest does not fit the body"))?;
    Ok(stated)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SHA-256 of `abc` as FIPS 180-4 prints it.
    const ABC: &str = "ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0=";

    fn with(value: &str) -> HeaderMap {
        HeaderMap::from_iter([("content-digest".parse().unwrap(), value.parse().unwrap())])
    }

    #[test]
    fn digests_are_found_among_others_and_compared() {
        assert!(check_digest(&with(&format!("sha-512=:AAAA:, sha-256=:{ABC}:")), b"abc").is_ok());
        for (headers, body) in [
            (with(&format!("sha-256=:{ABC}:")), &b"abd"[..]),
            (with("sha-256=abc"), b"abc"),
            (with("sha-256=:%%:"), b"abc"),
            (HeaderMap::new(), b"abc"),
        ] {
            let refusal = check_digest(&headers, body).unwrap_err();
            assert_eq!((refusal.status, refusal.code), (StatusCode::BAD_REQUEST, "digest"));
        }
    }
}
