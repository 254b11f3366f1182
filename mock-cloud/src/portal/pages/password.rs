//! Trying a password, to see what people will meet.

use askama::Template;
use axum::extract::State;
use causeway_protocol::Secret;
use causeway_protocol::auth::AuthRequest;
use serde::Deserialize;

use super::super::Portal;
use super::super::forms::Form;
use super::super::shell::{InTenant, PageResult, PortalError, Shell, page};
use super::super::words::{Tone, verdict};
use crate::api::{Verdict, check_password};
use crate::store::Entry;

#[derive(Template)]
#[template(path = "password.html")]
struct PasswordPage {
    shell: Shell,
    username: String,
    answer: Option<Answer>,
}

struct Answer {
    verdict: Verdict,
    tone: Tone,
    title: &'static str,
    meaning: &'static str,
    host: String,
}

/// What was typed. No `Debug`.
#[derive(Deserialize)]
pub(in super::super) struct AttemptForm {
    #[serde(default)]
    csrf: String,
    username: String,
    password: Secret,
}

pub(in super::super) async fn show(State(portal): State<Portal>, seen: InTenant) -> PageResult {
    let shell = seen.shell(&portal, "password").await?;
    page(&PasswordPage { shell, username: String::new(), answer: None })
}

pub(in super::super) async fn check(
    State(portal): State<Portal>,
    seen: InTenant,
    Form(form): Form<AttemptForm>,
) -> PageResult {
    seen.visitor.check(&form.csrf)?;
    let tenant = seen.tenant.id.as_str();
    if let Some(wait) = portal.limits.check(&seen.visitor.signed_in.user) {
        let detail = format!("Too many password checks. Try again in {} seconds.", wait.as_secs() + 1);
        return Err(PortalError::Refused { status: 429, detail });
    }
    // Whoever tries passwords of others here is written down, with the name tried and never the password.
    let tried = serde_json::json!({ "username": form.username });
    let entry = Entry::new(tenant, portal.cloud.now_ms(), &seen.visitor.actor(), "password_tried", tried);
    portal.cloud.store.audit(entry).await?;
    let request = AuthRequest { username: form.username.clone(), password: form.password };
    let answer = check_password(&portal.cloud, tenant, request).await?;
    let (tone, title, meaning) = verdict(answer.outcome);
    let host = match &answer.agent {
        Some(agent) => {
            portal.cloud.store.agent(tenant, agent).await?.map_or_else(String::new, |agent| agent.host)
        }
        None => String::new(),
    };
    let answer = Answer { verdict: answer, tone, title, meaning, host };
    let shell = seen.shell(&portal, "password").await?;
    page(&PasswordPage { shell, username: form.username, answer: Some(answer) })
}
