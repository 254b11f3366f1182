//! The cloud behind the admin API that every mock has: its world is its tenants.

use std::collections::BTreeMap;
use std::sync::Arc;

use causeway_mock_kit::admin::{AdminError, AdminWorld};
use futures_util::future::BoxFuture;
use serde::Deserialize;
use serde_json::{Value, json};
use xmpp_parsers::stream_error::DefinedCondition;

use crate::api;
use crate::channel::stream_error;
use crate::limits::PAGE_MAX;
use crate::state::Cloud;
use crate::store::StoreError;

/// What `PUT /world` takes.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct World {
    tenants: Vec<TenantWorld>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TenantWorld {
    name: String,
    /// Desired config by module.
    #[serde(default)]
    modules: BTreeMap<String, Value>,
}

/// Shows and replaces the tenants.
pub(crate) struct CloudWorld(pub(crate) Arc<Cloud>);

impl AdminWorld for CloudWorld {
    fn world(&self) -> BoxFuture<'_, Value> {
        Box::pin(async move {
            // A store that fails shows as an error here too, instead of as an empty world.
            self.describe().await.unwrap_or_else(|error| json!({ "error": error.to_string() }))
        })
    }

    fn replace_world(&self, world: Value) -> BoxFuture<'_, Result<(), AdminError>> {
        Box::pin(async move {
            let world: World = serde_path_to_error::deserialize(world)
                .map_err(|error| AdminError::invalid(error.path().to_string(), error.inner().to_string()))?;
            for (n, tenant) in world.tenants.iter().enumerate() {
                for (module, settings) in &tenant.modules {
                    let place = format!("tenants[{n}].modules.{module}");
                    let checked =
                        api::check_word(&place, module).and_then(|()| api::check_settings(&place, settings));
                    checked.map_err(|problem| AdminError::invalid(place, problem.detail))?;
                }
            }
            self.clear().await?;
            for (n, tenant) in world.tenants.into_iter().enumerate() {
                self.add(n, tenant).await?;
            }
            Ok(())
        })
    }

    fn reset(&self) -> BoxFuture<'_, Result<(), AdminError>> {
        Box::pin(self.clear())
    }

    fn health(&self) -> Value {
        json!({ "agents_online": self.0.sessions.count(), "events_dropped": self.0.events.dropped() })
    }
}

impl CloudWorld {
    async fn describe(&self) -> Result<Value, StoreError> {
        let mut tenants = Vec::new();
        for tenant in self.0.store.tenants(PAGE_MAX, None).await?.items {
            let counts = self.0.store.tenant_counts(&tenant.id).await?;
            let mut modules = serde_json::Map::new();
            for config in self.0.store.configs(&tenant.id).await? {
                modules.insert(config.module, config.settings);
            }
            tenants.push(json!({
                "id": tenant.id, "name": tenant.name, "counts": counts, "modules": modules,
                "agents_online": self.0.sessions.online(&tenant.id).len(),
            }));
        }
        Ok(json!({ "tenants": tenants }))
    }

    /// Ends all sessions first: their agents belong to nobody any more.
    async fn clear(&self) -> Result<(), AdminError> {
        self.0.sessions.end_all(|| stream_error(DefinedCondition::Reset, "the cloud was reset"));
        self.0.store.reset().await.map_err(|error| AdminError::conflict(error.to_string()))
    }

    async fn add(&self, n: usize, tenant: TenantWorld) -> Result<(), AdminError> {
        let wrong = |problem: api::Problem| AdminError::invalid(format!("tenants[{n}]"), problem.detail);
        let id = api::create_tenant(&self.0, &tenant.name, "admin").await.map_err(wrong)?;
        for (module, settings) in tenant.modules {
            api::change_module(&self.0, &id, &module, true, settings, "admin").await.map_err(wrong)?;
        }
        Ok(())
    }
}
