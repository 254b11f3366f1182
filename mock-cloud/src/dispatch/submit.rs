//! Orders on their way into the store. Where an agent can have one at once, its first attempt is recorded with it: one
//! wait for the disk, not two one after the other.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures_util::StreamExt as _;
use serde_json::json;

use super::DispatchError;
use super::actions::{Attempt, Carried, carry, carry_on};
use super::choice::{Choice, choose, instance_of};
use crate::channel::registry::Session;
use crate::limits::ACTIONS_IN_FLIGHT_MAX;
use crate::state::Cloud;
use crate::store::{ActionRow, Given, Inserted, NewAction, Order, StoreError};

/// Takes an order: it is on the disk when this returns, and on its way.
///
/// # Errors
/// When the idempotency key belongs to another order, or the store fails.
pub async fn submit(cloud: &Arc<Cloud>, tenant: &str, new: NewAction) -> Result<String, DispatchError> {
    let (draft, order) = Draft::new(cloud, tenant, new).await.map_err(DispatchError::Store)?;
    let inserted = cloud.store.insert_action(tenant, order, draft.action.created_ms).await;
    draft.recorded(inserted.map_err(DispatchError::Store)?)
}

/// An order that somebody is about to record.
pub(crate) struct Draft {
    action: ActionRow,
    carried: Carried,
    first: Option<First>,
}

/// The agent that gets an action first.
struct First {
    session: Arc<Session>,
    given: Given,
}

impl Draft {
    /// Chooses whom the order goes to first, if anybody is there, and gives what to record.
    ///
    /// # Errors
    /// When the store fails.
    pub(crate) async fn new(
        cloud: &Arc<Cloud>,
        tenant: &str,
        new: NewAction,
    ) -> Result<(Self, Order), StoreError> {
        let id = cloud.store.action_id();
        let action = new.row(tenant, &id, cloud.now_ms());
        // Before it is recorded, so that nobody else takes it up from the store.
        let carried = Carried::take(cloud, &id).expect("a new id is carried by nobody");
        let first = First::choose(cloud, &action).await?;
        let given = first.as_ref().map(|first| first.given.clone());
        Ok((Self { action, carried, first }, Order { id, new, given }))
    }

    /// It is recorded, or was before: sends it on its way, and gives its id.
    ///
    /// # Errors
    /// When the idempotency key belongs to another order.
    pub(crate) fn recorded(self, inserted: Inserted) -> Result<String, DispatchError> {
        let Self { action, carried, first } = self;
        match inserted {
            Inserted::Same(id) => Ok(id),
            Inserted::OtherBody(id) => Err(DispatchError::KeyReused { id }),
            Inserted::New(id) => {
                let cloud = Arc::clone(&carried.cloud);
                queued(&cloud, &action.tenant, &id, (&action.module, &action.action));
                due(&cloud, action.deadline_ms);
                let tenant = action.tenant.clone();
                let begun = first.map(|First { session, given }| {
                    let fence = given.under.as_ref().map(|under| under.fence);
                    let resource = given.under.map(|under| under.resource);
                    let agent = Some(given.agent.clone());
                    let action = ActionRow { attempts: 1, agent, fence, resource, ..action };
                    Attempt { action, session, agent: given.agent, number: 1, fence }
                });
                tokio::spawn(carry_on(carried, tenant, begun));
                Ok(id)
            }
        }
    }
}

impl First {
    /// Nobody when so much is under way that an order must wait for its turn, or when there is nobody for it now.
    async fn choose(cloud: &Cloud, action: &ActionRow) -> Result<Option<Self>, StoreError> {
        if cloud.dispatch.in_flight.available_permits() == 0 {
            return Ok(None);
        }
        let Choice::Agent(session, under) = choose(cloud, action, None, None).await? else { return Ok(None) };
        let agent = instance_of(&session).map(str::to_owned);
        Ok(agent.map(|agent| Self { session, given: Given { agent, under } }))
    }
}

/// Takes the same order for many targets: all of them are on the disk when this returns, or none is.
///
/// # Errors
/// When the idempotency key belongs to another order, or the store fails.
pub async fn submit_many(
    cloud: &Arc<Cloud>,
    tenant: &str,
    key: Option<String>,
    new: Vec<NewAction>,
) -> Result<Vec<String>, DispatchError> {
    let Some(first) = new.first() else { return Ok(Vec::new()) };
    let (module, verb) = (first.module.clone(), first.action.clone());
    let deadline_ms = cloud.now_ms().saturating_add(i64::try_from(first.ttl_ms).unwrap_or(i64::MAX));
    let inserted =
        cloud.store.insert_actions(tenant, key, new, cloud.now_ms()).await.map_err(DispatchError::Store)?;
    let mut ids = Vec::with_capacity(inserted.len());
    let mut fresh = Vec::new();
    let mut reused = None;
    for inserted in inserted {
        match inserted {
            Inserted::Same(id) => ids.push(id),
            Inserted::OtherBody(id) => reused = Some(id),
            Inserted::New(id) => {
                queued(cloud, tenant, &id, (&module, &verb));
                fresh.push(id.clone());
                ids.push(id);
            }
        }
    }
    due(cloud, deadline_ms);
    let (owned, tenant) = (Arc::clone(cloud), tenant.to_owned());
    tokio::spawn(async move {
        futures_util::stream::iter(fresh)
            .for_each_concurrent(ACTIONS_IN_FLIGHT_MAX, |id| carry(Arc::clone(&owned), tenant.clone(), id))
            .await;
    });
    match reused {
        Some(id) => Err(DispatchError::KeyReused { id }),
        None => Ok(ids),
    }
}

fn queued(cloud: &Cloud, tenant: &str, id: &str, (module, verb): (&str, &str)) {
    let body = json!({ "action": id, "module": module, "verb": verb, "status": "pending", "step": "queued" });
    cloud.action_changed(tenant, id, body);
}

/// Something may be over sooner than the watch over deadlines expects.
fn due(cloud: &Cloud, deadline_ms: i64) {
    if deadline_ms < cloud.dispatch.next_deadline_ms.load(Ordering::Acquire) {
        cloud.dispatch.deadline_changed.notify_one();
    }
}
