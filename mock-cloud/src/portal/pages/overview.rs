//! All tenants at a glance.

use askama::Template;
use axum::extract::State;
use axum::response::{IntoResponse, Redirect};
use serde::Deserialize;

use super::super::Portal;
use super::super::forms::Form;
use super::super::shell::{PageResult, Shell, Visitor, page};
use super::super::words::count;
use crate::limits::PAGE_DEFAULT;
use crate::store::TenantCounts;

#[derive(Template)]
#[template(path = "overview.html")]
struct OverviewPage {
    shell: Shell,
    tenants: Vec<Card>,
}

struct Card {
    id: String,
    name: String,
    online: usize,
    counts: TenantCounts,
}

impl Card {
    fn people(&self) -> String {
        count(self.counts.users)
    }

    fn groups(&self) -> String {
        count(self.counts.groups)
    }
}

/// A tenant to create.
#[derive(Deserialize)]
pub(in super::super) struct NewTenantForm {
    name: String,
    #[serde(default)]
    csrf: String,
}

pub(in super::super) async fn show(State(portal): State<Portal>, visitor: Visitor) -> PageResult {
    let mut tenants = Vec::new();
    for tenant in portal.cloud.store.tenants(PAGE_DEFAULT, None).await?.items {
        let counts = portal.cloud.store.tenant_counts(&tenant.id).await?;
        let online = portal.cloud.sessions.online(&tenant.id).len();
        tenants.push(Card { id: tenant.id, name: tenant.name, online, counts });
    }
    page(&OverviewPage { shell: visitor.shell(&portal, "overview"), tenants })
}

pub(in super::super) async fn create(
    State(portal): State<Portal>,
    visitor: Visitor,
    Form(form): Form<NewTenantForm>,
) -> PageResult {
    visitor.check(&form.csrf)?;
    let id = crate::api::create_tenant(&portal.cloud, &form.name, &visitor.actor()).await?;
    Ok(Redirect::to(&format!("/t/{id}/agents")).into_response())
}
