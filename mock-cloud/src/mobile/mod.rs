//! Phones: which enrolled phone a phone in a mailbox is, and what the tenant's compliance rule makes of it.

pub(crate) mod compliance;
mod matching;

use std::sync::Arc;

use crate::limits::{DEVICE_ACTION_TTL, PAGE_MAX};
use crate::state::Cloud;
use crate::store::{Device, EnrolledDevice, NewAction, StoreError};

pub(crate) use matching::same_person;
pub use matching::{Candidate, Enrolment, Evidence, Index, Merge, Phone};

/// Which enrolled phone this one is, and why.
///
/// # Errors
/// When the store fails.
pub(crate) async fn merge_of(cloud: &Cloud, tenant: &str, device: &Device) -> Result<Merge, StoreError> {
    let index = index_of(cloud, tenant).await?;
    Ok(index.merge(&Phone::of_device(device)))
}

/// What is enrolled, ready to be matched.
///
/// # Errors
/// When the store fails.
pub(crate) async fn index_of(cloud: &Cloud, tenant: &str) -> Result<Index, StoreError> {
    let mut enrolled: Vec<EnrolledDevice> = Vec::new();
    let mut after = None;
    loop {
        let page = cloud.store.enrolled_devices(tenant, PAGE_MAX, after).await?;
        enrolled.extend(page.items);
        after = page.next;
        if after.is_none() {
            return Ok(Index::new(enrolled));
        }
    }
}

/// An order about one phone. It names the phone in every way there is, so that the agent can check that it means the
/// same one.
pub(crate) fn order(
    module: &str,
    key: &str,
    device_id: &str,
    mailbox: &str,
    action: &str,
    actor: String,
) -> NewAction {
    NewAction {
        module: module.to_owned(),
        action: action.to_owned(),
        target: serde_json::json!({ "key": key, "device_id": device_id, "mailbox": mailbox }),
        params: serde_json::Value::Null,
        idempotency_key: None,
        ttl_ms: u64::try_from(DEVICE_ACTION_TTL.as_millis()).unwrap_or(u64::MAX),
        actor,
        reason: String::new(),
    }
}

/// Starts what watches the rules.
pub(crate) fn start(cloud: &Arc<Cloud>) {
    tokio::spawn(compliance::watch(Arc::clone(cloud)));
}
