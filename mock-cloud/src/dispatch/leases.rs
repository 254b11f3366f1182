//! Leases on the channel: one collector per resource, a fence that grows with every new holder.

use std::sync::Arc;

use causeway_protocol::channel::payload::{Lease, LeaseGrant, LeaseOp};
use serde_json::json;
use xmpp_parsers::stanza_error::DefinedCondition;

use crate::channel::inbound::{Refused, journal};
use crate::channel::registry::Session;
use crate::events::kinds;
use crate::limits::{LEASE_RETRY_MAX_MS, LEASE_RETRY_MIN_MS, RESOURCE_MAX_BYTES};
use crate::pki::AgentIdentity;
use crate::state::Cloud;
use crate::store::{LeaseAsk, LeaseRow, Leased};

/// Answers an agent that wants, keeps or returns a lease.
pub(crate) async fn serve(
    cloud: &Arc<Cloud>,
    session: &Session,
    who: &AgentIdentity,
    lease: Lease,
) -> Result<LeaseGrant, Refused> {
    if lease.resource.is_empty() || lease.resource.len() > RESOURCE_MAX_BYTES {
        return Err(Refused::new(
            DefinedCondition::NotAcceptable,
            "the resource's name is empty or too long",
        ));
    }
    let ask = LeaseAsk {
        tenant: who.tenant.clone(),
        resource: lease.resource.clone(),
        holder: who.instance.clone(),
        boot_id: session.hello().map(|hello| hello.boot_id).unwrap_or_default(),
        ttl_ms: cloud.config.leases.ttl_ms,
        now_ms: cloud.now_ms(),
    };
    let fence = |fence: Option<u64>| {
        fence.ok_or_else(|| Refused::new(DefinedCondition::NotAcceptable, "renew and release need the fence"))
    };
    let leased = match lease.op {
        LeaseOp::Acquire => cloud.store.acquire_lease(ask).await,
        LeaseOp::Renew => cloud.store.renew_lease(ask, fence(lease.fence)?).await,
        LeaseOp::Release => cloud.store.release_lease(ask, fence(lease.fence)?).await.map(Leased::Refused),
    };
    let grant = match leased.map_err(|error| Refused::store(&error))? {
        Leased::Granted { lease, new_holder } => {
            if new_holder {
                passed_on(cloud, who, &lease);
            }
            LeaseGrant {
                resource: lease.resource,
                granted: true,
                fence: lease.fence,
                ttl_ms: cloud.config.leases.ttl_ms,
                holder: None,
                retry_after_ms: 0,
            }
        }
        Leased::Refused(lease) => refused(cloud, lease),
    };
    let word = match (lease.op, grant.granted) {
        (LeaseOp::Release, _) => "released",
        (_, true) => "granted",
        (_, false) => "refused",
    };
    let detail = json!({ "agent": who.instance, "fence": grant.fence });
    journal(cloud, "lease", &grant.resource, word, detail);
    Ok(grant)
}

/// A lease has a new holder: actions of its collection may go there now.
fn passed_on(cloud: &Arc<Cloud>, who: &AgentIdentity, lease: &LeaseRow) {
    let body = json!({ "resource": lease.resource, "holder": lease.holder, "fence": lease.fence });
    cloud.events.emit(&who.tenant, kinds::LEASE, body);
    let (cloud, tenant) = (Arc::clone(cloud), who.tenant.clone());
    tokio::spawn(async move { super::try_waiting(&cloud, &tenant).await });
}

fn refused(cloud: &Cloud, lease: LeaseRow) -> LeaseGrant {
    let held = lease.is_held(cloud.now_ms());
    let left_ms = if held { (lease.expires_ms - cloud.now_ms()).unsigned_abs() } else { 0 };
    LeaseGrant {
        resource: lease.resource,
        granted: false,
        fence: lease.fence,
        ttl_ms: 0,
        holder: lease.holder.filter(|_| held),
        // Not simply what is left: the holder may give it back sooner.
        retry_after_ms: left_ms.clamp(LEASE_RETRY_MIN_MS, LEASE_RETRY_MAX_MS),
    }
}
