//! To whom an action goes, and what may be repeated.

use std::sync::Arc;

use causeway_protocol::action::{ErrorReport, codes};

use crate::certificates;
use crate::channel::registry::Session;
use crate::pki::AgentIdentity;
use crate::state::Cloud;
use crate::store::{ActionRow, StoreError, Under};

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

/// Actions that belong to a collection, and so to the holder of its lease.
const COLLECTING: [(&str, &str); 6] = [
    ("user_visibility", "sync_now"),
    ("user_visibility", "sync_user"),
    ("exchange", "sync_now"),
    ("exchange", "sync_device"),
    ("exchange", "quarantine_on"),
    ("exchange", "quarantine_off"),
];

/// Name of a source when the action does not say.
const DEFAULT_SOURCE: &str = "default";

/// Whether another agent may be given the action while a first one may have it.
pub(super) fn is_repeatable(action: &ActionRow) -> bool {
    REPEATABLE.contains(&(action.module.as_str(), action.action.as_str()))
}

/// Whether an action belongs to a collection, and so to the holder of its lease.
fn is_collecting(action: &ActionRow) -> bool {
    COLLECTING.contains(&(action.module.as_str(), action.action.as_str()))
}

/// The collection that sees what an action changes: the one the order names, else the one that has shown us the phone it
/// is about, else the only one most tenants have.
async fn collection_of(cloud: &Cloud, action: &ActionRow) -> Result<String, StoreError> {
    let named = |value: &serde_json::Value| value.get("source").and_then(|it| it.as_str()).map(str::to_owned);
    if let Some(source) = named(&action.target).or_else(|| named(&action.params)) {
        return Ok(format!("{}/{source}", action.module));
    }
    let seen = match action.target.get("key").and_then(|key| key.as_str()) {
        Some(key) => cloud.store.device_source(&action.tenant, key).await?,
        None => None,
    };
    let of_module = |it: &String| it.strip_prefix(&action.module).is_some_and(|rest| rest.starts_with('/'));
    Ok(seen.filter(of_module).unwrap_or_else(|| format!("{}/{DEFAULT_SOURCE}", action.module)))
}

/// Whom to give an action to.
pub(super) enum Choice {
    /// This agent, under this lease.
    Agent(Arc<Session>, Option<Under>),
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
        let under = action.resource.clone().zip(action.fence);
        let under = under.map(|(resource, fence)| Under { resource, fence });
        return Ok(cloud.sessions.get(&identity).map_or(Choice::Nobody, |it| Choice::Agent(it, under)));
    }
    if let Some(instance) = certificates::meant_for(action) {
        let identity = AgentIdentity { tenant: tenant.to_owned(), instance: instance.to_owned() };
        let others = cloud.sessions.fit_for(tenant, &action.module);
        return Ok(match cloud.sessions.get(&identity) {
            Some(session) => Choice::Agent(session, None),
            None if others.is_empty() => Choice::Nobody,
            // Another agent cannot do it, but can do what follows.
            None => Choice::Impossible(certificates::sealed_elsewhere(instance)),
        });
    }
    let resource = collection_of(cloud, action).await?;
    let lease = cloud.store.lease(tenant, &resource).await?;
    let holder = if lease.is_held(cloud.now_ms()) { lease.holder } else { None };
    if is_collecting(action)
        && let Some(holder) = holder
    {
        let identity = AgentIdentity { tenant: tenant.to_owned(), instance: holder };
        // A holder that is gone keeps the collection until its lease ends; then there will be another one.
        let session = cloud.sessions.get(&identity).filter(|it| it.fitness(&action.module).is_some());
        let under = Under { resource, fence: lease.fence };
        return Ok(session.map_or(Choice::Nobody, |it| Choice::Agent(it, Some(under))));
    }
    let fit = cloud.sessions.fit_for(tenant, &action.module);
    // Who collects reads at once again what it has changed; from another agent's change the cloud hears at the next
    // listing. So the collector is asked first, and anybody else as well when it cannot.
    let is_other = |session: &&Arc<Session>| instance_of(session) != avoid;
    let collects = |session: &&Arc<Session>| holder.is_some() && instance_of(session) == holder.as_deref();
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
