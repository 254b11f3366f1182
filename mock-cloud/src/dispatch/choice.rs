//! To whom an action goes, and what may be repeated.

use std::sync::Arc;

use causeway_protocol::action::{ErrorReport, codes};

use crate::channel::registry::Session;
use crate::pki::AgentIdentity;
use crate::state::Cloud;
use crate::store::{ActionRow, StoreError};

/// Actions that do no harm when a second agent carries them out too. Of those on phones all that set a state which is
/// then the same, whoever set it; not the wipe: a second one would hit a phone that has been given on meanwhile.
const REPEATABLE: [(&str, &str); 13] = [
    ("user_visibility", "sync_now"),
    ("user_visibility", "sync_user"),
    ("exchange", "sync_now"),
    ("exchange", "sync_device"),
    ("exchange", "block_device"),
    ("exchange", "approve_device"),
    ("exchange", "preauthorise_device"),
    ("exchange", "remove_device"),
    ("exchange", "assign_policy"),
    ("exchange", "change_policy"),
    ("exchange", "quarantine_on"),
    ("exchange", "quarantine_off"),
    // A certificate that is revoked stays revoked. Never `issue_certificate`: a second agent would get a second one.
    ("certificates", "revoke_certificate"),
];

/// Actions that belong to a collection, and so to the holder of its lease. Not the switching of quarantine: it outlives
/// leases, and what it writes is right whoever writes it.
const COLLECTING: [(&str, &str); 4] = [
    ("user_visibility", "sync_now"),
    ("user_visibility", "sync_user"),
    ("exchange", "sync_now"),
    ("exchange", "sync_device"),
];

/// Name of a source when the action does not say.
const DEFAULT_SOURCE: &str = "default";

/// Whether another agent may be given the action while a first one may have it.
pub(super) fn is_repeatable(action: &ActionRow) -> bool {
    REPEATABLE.contains(&(action.module.as_str(), action.action.as_str()))
}

/// The leased resource an action belongs to.
pub(super) fn resource_of(action: &ActionRow) -> Option<String> {
    if !COLLECTING.contains(&(action.module.as_str(), action.action.as_str())) {
        return None;
    }
    Some(collection_of(action))
}

/// The collection that sees what an action changes.
fn collection_of(action: &ActionRow) -> String {
    let named = |value: &serde_json::Value| value.get("source").and_then(|it| it.as_str()).map(str::to_owned);
    let source = named(&action.target).or_else(|| named(&action.params));
    format!("{}/{}", action.module, source.as_deref().unwrap_or(DEFAULT_SOURCE))
}

/// Whom to give an action to.
pub(super) enum Choice {
    /// This agent, under this fence.
    Agent(Arc<Session>, Option<u64>),
    /// Nobody for now; something must change first.
    Nobody,
    /// Nobody ever.
    Impossible(ErrorReport),
}

/// Chooses. `avoid` has just refused or gone; `only` may have the action already and nobody else may get it.
pub(super) async fn choose(
    cloud: &Cloud,
    action: &ActionRow,
    avoid: Option<&str>,
    only: Option<&str>,
) -> Result<Choice, StoreError> {
    let tenant = action.tenant.as_str();
    if let Some(instance) = only {
        let identity = AgentIdentity { tenant: tenant.to_owned(), instance: instance.to_owned() };
        return Ok(cloud
            .sessions
            .get(&identity)
            .map_or(Choice::Nobody, |it| Choice::Agent(it, action.fence)));
    }
    if let Some(resource) = resource_of(action) {
        let lease = cloud.store.lease(tenant, &resource).await?;
        if lease.is_held(cloud.now_ms())
            && let Some(holder) = lease.holder
        {
            let identity = AgentIdentity { tenant: tenant.to_owned(), instance: holder };
            // A holder that is gone keeps the collection until its lease ends; then there will be another one.
            let session = cloud.sessions.get(&identity).filter(|it| it.fitness(&action.module).is_some());
            return Ok(session.map_or(Choice::Nobody, |it| Choice::Agent(it, Some(lease.fence))));
        }
    }
    let fit = cloud.sessions.fit_for(tenant, &action.module);
    // Who collects reads at once again what it has changed; from another agent's change the cloud hears at the next
    // listing. So the collector is asked first, and anybody else as well when it cannot.
    let lease = cloud.store.lease(tenant, &collection_of(action)).await?;
    let collector = if lease.is_held(cloud.now_ms()) { lease.holder } else { None };
    let is_other = |session: &&Arc<Session>| instance_of(session) != avoid;
    let collects =
        |session: &&Arc<Session>| collector.is_some() && instance_of(session) == collector.as_deref();
    let other = fit.iter().filter(is_other).find(collects).or_else(|| fit.iter().find(is_other));
    if let Some(session) = other.or_else(|| fit.first()) {
        return Ok(Choice::Agent(Arc::clone(session), None));
    }
    let online = cloud.sessions.of_tenant(tenant);
    if !online.is_empty() && !online.iter().any(|session| session.knows(&action.module)) {
        return Ok(Choice::Impossible(unknown_module(action, &online)));
    }
    Ok(Choice::Nobody)
}

/// Instance id of a session.
pub(super) fn instance_of(session: &Session) -> Option<&str> {
    session.identity.as_ref().map(|identity| identity.instance.as_str())
}

fn unknown_module(action: &ActionRow, online: &[Arc<Session>]) -> ErrorReport {
    let mut kinds: Vec<String> =
        online.iter().filter_map(|session| session.hello()).flat_map(|hello| hello.modules).collect();
    kinds.sort();
    kinds.dedup();
    ErrorReport::new(
        codes::UNKNOWN_MODULE,
        format!("no agent of this tenant has a module {:?}; theirs are: {}", action.module, kinds.join(", ")),
        "Check the module's name, or update the agents",
    )
}
