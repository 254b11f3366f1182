//! The cloud as a customer's program sees it: the REST API of one tenant.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use hyper::Method;
use serde_json::{Value, json};

use crate::http::Client;

/// Page size of lists.
const PAGE: usize = 1_000;

/// Targets of one order for many.
const ORDERS_AT_ONCE: usize = 1_000;

/// Longest single wait the API offers, in milliseconds.
const WAIT_MS: u64 = 10_000;

/// One tenant of one cloud.
#[derive(Clone)]
pub struct Tenant {
    http: Client,
    id: String,
}

impl Tenant {
    /// Creates a tenant.
    ///
    /// # Errors
    /// What the API says.
    pub async fn create(http: Client, name: &str) -> Result<Self> {
        let body = http.post("/api/v1/tenants", &json!({ "name": name })).await?.ok()?;
        let id = body["id"].as_str().context("the API gave the tenant no id")?.to_owned();
        Ok(Self { http, id })
    }

    /// The tenant's id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The same tenant seen through another client (the cloud has moved).
    pub fn through(&self, http: Client) -> Self {
        Self { http, id: self.id.clone() }
    }

    fn path(&self, rest: &str) -> String {
        let slash = if rest.is_empty() { "" } else { "/" };
        format!("/api/v1/tenants/{}{slash}{rest}", self.id)
    }

    /// A one-time enrolment key.
    ///
    /// # Errors
    /// What the API says.
    pub async fn enrollment_key(&self) -> Result<String> {
        let body = self.http.post(&self.path("enrollment-keys"), &json!({})).await?.ok()?;
        Ok(body["key"].as_str().context("the API gave no enrolment key")?.to_owned())
    }

    /// Revokes an agent.
    ///
    /// # Errors
    /// What the API says.
    pub async fn revoke(&self, agent: &str) -> Result<()> {
        self.http.post(&self.path(&format!("agents/{agent}/revoke")), &json!({})).await?.ok()?;
        Ok(())
    }

    /// Sets a module's desired config; returns its revision.
    ///
    /// # Errors
    /// What the API says.
    pub async fn configure(&self, module: &str, enabled: bool, settings: &Value) -> Result<u64> {
        let path = self.path(&format!("modules/{module}"));
        let body = json!({ "enabled": enabled, "settings": settings });
        let body = self.http.call(Method::PUT, &path, Some(&body)).await?.ok()?;
        body["revision"].as_u64().context("the API gave no revision")
    }

    /// A module's desired config and what each agent has applied.
    ///
    /// # Errors
    /// What the API says.
    pub async fn module(&self, module: &str) -> Result<Value> {
        self.get(&format!("modules/{module}")).await
    }

    /// Orders an action; returns its id.
    ///
    /// # Errors
    /// What the API says.
    pub async fn order(&self, module: &str, action: &str, target: &Value, params: &Value) -> Result<String> {
        let body = json!({ "module": module, "action": action, "target": target, "params": params });
        let body = self.http.post(&self.path("actions"), &body).await?.ok()?;
        Ok(body["id"].as_str().context("the API gave the action no id")?.to_owned())
    }

    /// Orders the same action for many targets, as many at once as the API takes; returns their ids.
    ///
    /// # Errors
    /// What the API says.
    pub async fn order_many(
        &self,
        module: &str,
        action: &str,
        targets: &[Value],
        params: &Value,
    ) -> Result<Vec<String>> {
        let mut ids = Vec::with_capacity(targets.len());
        for targets in targets.chunks(ORDERS_AT_ONCE) {
            let body = json!({ "module": module, "action": action, "targets": targets, "params": params });
            let body = self.http.post(&self.path("actions/batch"), &body).await?.ok()?;
            let given = body["ids"].as_array().context("the API gave the actions no ids")?;
            ids.extend(given.iter().filter_map(|id| id.as_str().map(str::to_owned)));
        }
        Ok(ids)
    }

    /// An action as it stands.
    ///
    /// # Errors
    /// What the API says.
    pub async fn action(&self, id: &str) -> Result<Value> {
        self.get(&format!("actions/{id}")).await
    }

    /// An action once it is over.
    ///
    /// # Errors
    /// When it is not over in time, with its last state.
    pub async fn finished(&self, id: &str, within: Duration) -> Result<Value> {
        let deadline = Instant::now() + within;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let wait = (left.as_millis() as u64).min(WAIT_MS);
            let action = self.get(&format!("actions/{id}?wait_ms={wait}")).await?;
            if action["status"] != "pending" {
                return Ok(action);
            }
            if left.is_zero() {
                bail!("action {id} is not over after {} s; it stands at {action}", within.as_secs());
            }
        }
    }

    /// Checks a password.
    ///
    /// # Errors
    /// What the API says.
    pub async fn authenticate(&self, username: &str, password: &str) -> Result<Value> {
        let body = json!({ "username": username, "password": password });
        self.http.post(&self.path("authenticate"), &body).await?.ok()
    }

    /// `GET` below the tenant.
    ///
    /// # Errors
    /// What the API says.
    pub async fn get(&self, rest: &str) -> Result<Value> {
        self.http.get(&self.path(rest)).await?.ok()
    }

    /// `POST` below the tenant.
    ///
    /// # Errors
    /// What the API says.
    pub async fn post(&self, rest: &str, body: &Value) -> Result<Value> {
        self.http.post(&self.path(rest), body).await?.ok()
    }

    /// `PUT` below the tenant.
    ///
    /// # Errors
    /// What the API says.
    pub async fn put(&self, rest: &str, body: &Value) -> Result<Value> {
        self.http.call(Method::PUT, &self.path(rest), Some(body)).await?.ok()
    }

    /// `DELETE` below the tenant.
    ///
    /// # Errors
    /// What the API says.
    pub async fn delete(&self, rest: &str) -> Result<Value> {
        self.http.call(Method::DELETE, &self.path(rest), None).await?.ok()
    }

    /// Every item of a paged list.
    ///
    /// # Errors
    /// What the API says.
    pub async fn all(&self, list: &str) -> Result<Vec<Value>> {
        let mut items = Vec::new();
        let mut after = String::new();
        loop {
            let separator = if list.contains('?') { '&' } else { '?' };
            let page = self.get(&format!("{list}{separator}limit={PAGE}{after}")).await?;
            let Some(found) = page["items"].as_array() else { bail!("GET {list}: no items in the answer") };
            items.extend(found.iter().cloned());
            match page["next"].as_str() {
                Some(next) => after = format!("&after={next}"),
                None => return Ok(items),
            }
        }
    }
}
