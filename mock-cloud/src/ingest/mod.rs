//! Uploads: granted on the channel, sent over HTTP/2, applied batch by batch.
//!
//! Every transaction of a batch checks the fence, and the last one remembers the batch's digest, so a repeated batch
//! changes nothing and a collector that lost its lease writes nothing.

mod batch;
mod http;

use std::sync::Arc;

use causeway_protocol::action::codes;
use causeway_protocol::channel::payload::{UploadGrant, UploadRequest};
use causeway_protocol::limits::UPLOAD_CREDITS;
use serde_json::json;
use xmpp_parsers::stanza_error::DefinedCondition;

pub use batch::{BatchError, Change, Row, read as read_batch};
pub use http::router;

use crate::channel::inbound::{Refused, journal};
use crate::limits::{RESOURCE_MAX_BYTES, UPLOAD_RETRY_SECS};
use crate::pki::AgentIdentity;
use crate::state::Cloud;
use crate::store::{Granted, UploadAsk};

/// Answers an agent that wants to upload.
///
/// # Errors
/// `conflict` with text `stale_fence` or `base_mismatch`; `resource-constraint` with a retry hint when too many
/// uploads are under way.
pub(crate) async fn grant(
    cloud: &Arc<Cloud>,
    who: &AgentIdentity,
    request: UploadRequest,
) -> Result<UploadGrant, Refused> {
    if request.source.is_empty() || request.source.len() > RESOURCE_MAX_BYTES {
        return Err(Refused::new(DefinedCondition::NotAcceptable, "the source's name is empty or too long"));
    }
    let source = request.source.clone();
    let ask = UploadAsk {
        identity: who.clone(),
        request,
        now_ms: cloud.now_ms(),
        concurrent_max: cloud.config.uploads.concurrent_max,
    };
    let granted = cloud.store.grant_upload(ask).await.map_err(|error| Refused::store(&error))?;
    let word = match &granted {
        Granted::Upload { .. } => "granted",
        Granted::StaleFence => codes::STALE_FENCE,
        Granted::BaseMismatch => BASE_MISMATCH,
        Granted::TooMany => codes::OVERLOADED,
    };
    journal(cloud, "upload", &source, word, json!({ "agent": who.instance }));
    match granted {
        Granted::Upload { upload, epoch } => Ok(UploadGrant { upload, epoch, credits: UPLOAD_CREDITS }),
        Granted::StaleFence | Granted::BaseMismatch => Err(Refused::new(DefinedCondition::Conflict, word)),
        Granted::TooMany => Err(Refused::wait("too many uploads are under way", UPLOAD_RETRY_SECS)),
    }
}

/// Text of the refusal of a delta that does not build on what the cloud has: the agent sends a snapshot instead.
const BASE_MISMATCH: &str = "base_mismatch";
