//! Desired config: which modules run, and with which settings.

use askama::Template;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{Html, IntoResponse, Redirect};
use serde::Deserialize;
use serde_json::Value;

use super::super::Portal;
use super::super::forms::Form;
use super::super::shell::{InTenant, PageResult, PortalError, Shell, page};
use crate::api::{ModuleView, change_module, check_word, module_views};

/// What this version's agents can do, with a word for people and a first set of settings.
const KNOWN: [(&str, &str, &str); 4] = [
    ("certificates", "Gets, renews and revokes devices' certificates at the company's authority.", "{}"),
    ("exchange", "Sees every phone in Exchange, holds new ones, and acts on any of them.", "{}"),
    ("user_auth", "Checks passwords against the company's directory.", "{}"),
    ("user_visibility", "Brings people, groups and units into the cloud and keeps them up to date.", "{}"),
];

#[derive(Template)]
#[template(path = "modules.html")]
struct ModulesPage {
    shell: Shell,
    modules: Vec<ModuleView>,
    absent: Vec<(&'static str, &'static str)>,
}

#[derive(Template)]
#[template(path = "module.html")]
struct ModulePage {
    shell: Shell,
    module: String,
    purpose: &'static str,
    current: Option<ModuleView>,
    enabled: bool,
    settings: String,
    error: String,
    saved: bool,
}

/// Kind of a module to open.
#[derive(Deserialize)]
pub(in super::super) struct OpenForm {
    module: String,
}

/// The edited config.
#[derive(Deserialize)]
pub(in super::super) struct ConfigForm {
    #[serde(default)]
    csrf: String,
    #[serde(default)]
    enabled: Option<String>,
    settings: String,
}

pub(in super::super) async fn list(State(portal): State<Portal>, seen: InTenant) -> PageResult {
    let modules = module_views(&portal.cloud, &seen.tenant.id).await?;
    let absent = KNOWN
        .iter()
        .filter(|(name, ..)| !modules.iter().any(|module| module.module == *name))
        .map(|(name, purpose, _)| (*name, *purpose))
        .collect();
    page(&ModulesPage { shell: seen.shell(&portal, "modules").await?, modules, absent })
}

/// Leads to the editor of a module by name; changes nothing.
pub(in super::super) async fn open(seen: InTenant, Form(form): Form<OpenForm>) -> PageResult {
    check_word("module", form.module.trim())?;
    Ok(Redirect::to(&format!("/t/{}/modules/{}", seen.tenant.id, form.module.trim())).into_response())
}

pub(in super::super) async fn edit(
    State(portal): State<Portal>,
    seen: InTenant,
    Path((_, module)): Path<(String, String)>,
) -> PageResult {
    check_word("module", &module)?;
    let current = current(&portal, &seen, &module).await?;
    let known = KNOWN.iter().find(|(name, ..)| *name == module);
    let settings = match &current {
        Some(view) => pretty(&view.settings),
        None => known.map_or("{}", |(.., settings)| settings).to_owned(),
    };
    page(&ModulePage {
        shell: seen.shell(&portal, "modules").await?,
        purpose: known.map_or("", |(_, purpose, _)| purpose),
        enabled: current.as_ref().is_none_or(|view| view.enabled),
        module,
        current,
        settings,
        error: String::new(),
        saved: false,
    })
}

pub(in super::super) async fn save(
    State(portal): State<Portal>,
    seen: InTenant,
    Path((_, module)): Path<(String, String)>,
    Form(form): Form<ConfigForm>,
) -> PageResult {
    seen.visitor.check(&form.csrf)?;
    check_word("module", &module)?;
    let enabled = form.enabled.is_some();
    let error = match parse(&form.settings) {
        Ok(settings) => {
            let actor = seen.visitor.actor();
            let changed =
                change_module(&portal.cloud, &seen.tenant.id, &module, enabled, settings, &actor).await;
            changed.err().map(|problem| match problem.path {
                Some(path) => format!("{path}: {}", problem.detail),
                None => problem.detail,
            })
        }
        Err(text) => Some(text),
    };
    let saved = error.is_none();
    let current = current(&portal, &seen, &module).await?;
    let shown = match (&current, saved) {
        (Some(view), true) => pretty(&view.settings),
        _ => form.settings,
    };
    let status = if saved { StatusCode::OK } else { StatusCode::BAD_REQUEST };
    let html = ModulePage {
        shell: seen.shell(&portal, "modules").await?,
        purpose: KNOWN.iter().find(|(name, ..)| *name == module).map_or("", |(_, purpose, _)| purpose),
        module,
        current,
        enabled,
        settings: shown,
        error: error.unwrap_or_default(),
        saved,
    };
    let html = html.render().map_err(PortalError::Render)?;
    Ok((status, Html(html)).into_response())
}

async fn current(portal: &Portal, seen: &InTenant, module: &str) -> Result<Option<ModuleView>, PortalError> {
    let views = module_views(&portal.cloud, &seen.tenant.id).await?;
    Ok(views.into_iter().find(|view| view.module == module))
}

/// Reads the text area; the message says where.
fn parse(text: &str) -> Result<Value, String> {
    let value: Value = serde_json::from_str(text).map_err(|error| {
        let place = format!(" at line {} column {}", error.line(), error.column());
        let what = error.to_string().replace(&place, "");
        format!("Line {}, column {}: {what}", error.line(), error.column())
    })?;
    if value.is_object() { Ok(value) } else { Err("Settings are a JSON object: { ... }".to_owned()) }
}

fn pretty(value: &Value) -> String {
    serde_json::to_string_pretty(value).expect("JSON values serialise to JSON")
}
