//! Mail systems and their policies for phones.

use std::collections::BTreeMap;

use askama::Template;
use axum::extract::State;
use axum::response::{IntoResponse, Redirect};
use causeway_protocol::mobile::access;
use serde::Deserialize;
use serde_json::Value;

use super::super::Portal;
use super::super::forms::{Form, Query};
use super::super::shell::{InTenant, PageResult, PortalError, Shell, page};
use super::super::words::{Tone, access_state, count};
use super::people::ListQuery;
use super::{next_query, once_key, query_value};
use crate::api::refused;
use crate::dispatch;
use crate::limits::{DEVICE_ACTION_TTL, PAGE_DEFAULT};
use crate::store::{MailOrganization, NewAction, Search};

/// A mail system, ready to show.
struct OrganizationCard {
    organization: MailOrganization,
    /// What happens to new phones; `None` where the version has no such setting.
    new_phones: Option<(Tone, String)>,
    holds_new: bool,
    settings: Vec<(String, String)>,
}

/// A policy, ready to show.
struct PolicyCard {
    name: String,
    href: String,
    is_default: bool,
    phones: String,
    source: String,
    /// What is set to something.
    settings: Vec<(String, String)>,
}

#[derive(Template)]
#[template(path = "policies.html")]
struct PoliciesPage {
    shell: Shell,
    organizations: Vec<OrganizationCard>,
    policies: Vec<PolicyCard>,
    q: String,
    further: bool,
    next: Option<String>,
}

/// Whether new phones are held.
#[derive(Deserialize)]
pub(in super::super) struct QuarantineForm {
    #[serde(default)]
    csrf: String,
    action: String,
    source: String,
    #[serde(default)]
    once: String,
}

pub(in super::super) async fn list(
    State(portal): State<Portal>,
    seen: InTenant,
    Query(query): Query<ListQuery>,
) -> PageResult {
    let shell = seen.shell(&portal, "policies").await?;
    let (store, tenant) = (&portal.cloud.store, seen.tenant.id.as_str());
    let all = Search { limit: PAGE_DEFAULT, ..Search::default() };
    let organizations = store.mail_organizations(tenant, all).await?.items;
    let found = store.device_policies(tenant, query.search()).await?;
    let next = next_query(&query.q, found.next.as_deref());
    let policies = found.items.into_iter().map(|policy| PolicyCard {
        href: format!("/t/{tenant}/devices?policy={}", query_value(&policy.name)),
        phones: count(policy.devices),
        settings: shown(policy.settings),
        name: policy.name,
        is_default: policy.is_default,
        source: policy.source,
    });
    page(&PoliciesPage {
        organizations: organizations.into_iter().map(card).collect(),
        policies: policies.collect(),
        further: query.is_further(),
        q: query.q,
        next,
        shell,
    })
}

/// Orders that new phones are held, or let in.
pub(in super::super) async fn quarantine(
    State(portal): State<Portal>,
    seen: InTenant,
    Form(form): Form<QuarantineForm>,
) -> PageResult {
    seen.visitor.check(&form.csrf)?;
    let tenant = seen.tenant.id.as_str();
    let all = Search { limit: PAGE_DEFAULT, ..Search::default() };
    let organizations = portal.cloud.store.mail_organizations(tenant, all).await?.items;
    let known = organizations.iter().find(|organization| organization.source == form.source);
    let Some(organization) =
        known.filter(|_| matches!(form.action.as_str(), "quarantine_on" | "quarantine_off"))
    else {
        return Err(PortalError::Refused { status: 400, detail: "There is no such mail system.".to_owned() });
    };
    let (module, source) = organization.source.split_once('/').unwrap_or((&organization.system, "default"));
    let new = NewAction {
        module: module.to_owned(),
        action: form.action,
        target: serde_json::json!({ "source": source }),
        params: Value::Null,
        idempotency_key: once_key(form.once),
        ttl_ms: u64::try_from(DEVICE_ACTION_TTL.as_millis()).unwrap_or(u64::MAX),
        actor: seen.visitor.actor(),
        reason: String::new(),
    };
    let id = dispatch::submit(&portal.cloud, tenant, new).await.map_err(refused)?;
    Ok(Redirect::to(&format!("/t/{tenant}/actions/{id}")).into_response())
}

fn card(organization: MailOrganization) -> OrganizationCard {
    OrganizationCard {
        new_phones: organization.default_access.as_deref().map(access_state),
        holds_new: organization.default_access.as_deref() == Some(access::QUARANTINED),
        settings: shown(organization.settings.clone()),
        organization,
    }
}

/// Settings that say something, with names people can read.
fn shown(settings: BTreeMap<String, String>) -> Vec<(String, String)> {
    settings
        .into_iter()
        .filter(|(_, value)| !value.trim().is_empty())
        .map(|(name, value)| (spaced(&name), value))
        .collect()
}

/// `MinPasswordLength` as `Min password length`; runs of capitals stay together.
fn spaced(name: &str) -> String {
    let letters: Vec<char> = name.chars().collect();
    let mut text = String::with_capacity(name.len() + 8);
    for (n, letter) in letters.iter().enumerate() {
        let after_small = n > 0 && (letters[n - 1].is_lowercase() || letters[n - 1].is_ascii_digit());
        let before_small = letters.get(n + 1).is_some_and(|next| next.is_lowercase());
        let starts = letter.is_uppercase() && n > 0 && (after_small || before_small);
        if starts {
            text.push(' ');
        }
        if starts && before_small { text.extend(letter.to_lowercase()) } else { text.push(*letter) }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_settings_are_spaced_for_reading() {
        for (name, text) in [
            ("MinPasswordLength", "Min password length"),
            ("AllowHTMLEmail", "Allow HTML email"),
            ("IrmEnabled", "Irm enabled"),
            ("allowed", "allowed"),
        ] {
            assert_eq!(spaced(name), text);
        }
    }
}
