//! Certificate profiles: the list, and one to read and change.

use askama::Template;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Redirect};
use causeway_protocol::certificate::{KeyKind, KeyMode, MissingVariable, Profile};
use serde::Deserialize;

use super::super::Portal;
use super::super::forms::Form;
use super::super::shell::{InTenant, PageResult, PortalError, Shell, page};
use super::super::words::When;
use super::query_value;
use crate::api::{NewProfile, put_profile};
use crate::store::ProfileRow;

/// A profile, ready to show.
struct ProfileCard {
    id: String,
    name: String,
    version: u64,
    authority: String,
    subject: String,
    alternative_names: Vec<String>,
    key: &'static str,
    maker: &'static str,
    renew_days: u32,
    users: String,
    changed: Option<When>,
}

fn card(row: &ProfileRow, now_ms: i64) -> ProfileCard {
    let ProfileRow { name, profile, users, changed_ms, .. } = row;
    ProfileCard {
        id: profile.id.clone(),
        name: name.clone(),
        version: profile.version,
        authority: profile.authority.clone(),
        subject: profile.subject.clone(),
        alternative_names: profile.alternative_names.clone(),
        key: key_words(profile.key),
        maker: match profile.key_mode {
            KeyMode::Device => "made on the device",
            KeyMode::Agent => "made by the agent, encrypted for the device",
        },
        renew_days: profile.renew_days,
        users: match users.len() {
            0 => "Everyone's devices".to_owned(),
            1 => format!("Devices of {}", users[0]),
            n => format!("Devices of {n} people"),
        },
        changed: When::at(*changed_ms, now_ms),
    }
}

fn key_words(key: KeyKind) -> &'static str {
    match key {
        KeyKind::Rsa2048 => "RSA 2,048",
        KeyKind::Rsa3072 => "RSA 3,072",
        KeyKind::Rsa4096 => "RSA 4,096",
        KeyKind::P256 => "ECDSA P-256",
    }
}

#[derive(Template)]
#[template(path = "certificate_profiles.html")]
struct ProfilesPage {
    shell: Shell,
    tab: &'static str,
    cards: Vec<ProfileCard>,
}

#[derive(Template)]
#[template(path = "certificate_profile.html")]
struct ProfilePage {
    shell: Shell,
    card: ProfileCard,
    profile: Profile,
    names: String,
    users: String,
    /// Words of choices, with which one is chosen.
    keys: Vec<(&'static str, &'static str, bool)>,
    modes: Vec<(&'static str, &'static str, bool)>,
    missing: Vec<(&'static str, &'static str, bool)>,
}

/// A profile as a person wants it.
#[derive(Deserialize)]
pub(in super::super) struct ProfileForm {
    #[serde(default)]
    csrf: String,
    #[serde(default)]
    id: String,
    #[serde(default)]
    name: String,
    authority: String,
    #[serde(default)]
    template: String,
    key_mode: KeyMode,
    key: KeyKind,
    subject: String,
    #[serde(default)]
    names: String,
    #[serde(default)]
    missing: MissingVariable,
    renew_days: u32,
    #[serde(default)]
    users: String,
    #[serde(default)]
    legacy: Option<String>,
}

pub(in super::super) async fn list(State(portal): State<Portal>, seen: InTenant) -> PageResult {
    let shell = seen.shell(&portal, "certificates").await?;
    let rows = portal.cloud.store.certificate_profiles(&seen.tenant.id).await?;
    let cards = rows.iter().map(|row| card(row, shell.now_ms)).collect();
    page(&ProfilesPage { cards, tab: "profiles", shell })
}

pub(in super::super) async fn show(
    State(portal): State<Portal>,
    seen: InTenant,
    Path((_, id)): Path<(String, String)>,
) -> PageResult {
    let shell = seen.shell(&portal, "certificates").await?;
    let found = portal.cloud.store.certificate_profile(&seen.tenant.id, &id).await?;
    let row = found.ok_or_else(|| PortalError::NotFound { what: "certificate profile".to_owned() })?;
    let profile = row.profile.clone();
    page(&ProfilePage {
        card: card(&row, shell.now_ms),
        names: profile.alternative_names.join("\n"),
        users: row.users.join("\n"),
        keys: [
            ("rsa2048", KeyKind::Rsa2048),
            ("rsa3072", KeyKind::Rsa3072),
            ("rsa4096", KeyKind::Rsa4096),
            ("p256", KeyKind::P256),
        ]
        .map(|(word, key)| (word, key_words(key), key == profile.key))
        .to_vec(),
        modes: [
            ("device", "On the device", KeyMode::Device),
            ("agent", "By the agent, encrypted for the device", KeyMode::Agent),
        ]
        .map(|(word, label, mode)| (word, label, mode == profile.key_mode))
        .to_vec(),
        missing: [
            ("fail", "Refuse the request", MissingVariable::Fail),
            ("drop", "Leave that part out", MissingVariable::Drop),
            ("literal", "Write the variable's name", MissingVariable::Literal),
        ]
        .map(|(word, label, missing)| (word, label, missing == profile.missing_variable))
        .to_vec(),
        profile,
        shell,
    })
}

/// Creates the profile the form names.
pub(in super::super) async fn create(
    State(portal): State<Portal>,
    seen: InTenant,
    Form(form): Form<ProfileForm>,
) -> PageResult {
    let id = form.id.trim().to_owned();
    if portal.cloud.store.certificate_profile(&seen.tenant.id, &id).await?.is_some() {
        let detail = format!("There is a profile {id} already.");
        return Err(PortalError::Refused { status: 409, detail });
    }
    keep(&portal, &seen, &id, form).await
}

pub(in super::super) async fn save(
    State(portal): State<Portal>,
    seen: InTenant,
    Path((_, id)): Path<(String, String)>,
    Form(form): Form<ProfileForm>,
) -> PageResult {
    keep(&portal, &seen, &id, form).await
}

async fn keep(portal: &Portal, seen: &InTenant, id: &str, form: ProfileForm) -> PageResult {
    seen.visitor.check(&form.csrf)?;
    let lines = |text: &str| {
        text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect::<Vec<_>>()
    };
    let new = NewProfile {
        name: form.name,
        authority: form.authority.trim().to_owned(),
        template: Some(form.template.trim().to_owned()).filter(|template| !template.is_empty()),
        key_mode: form.key_mode,
        key: form.key,
        subject: form.subject,
        alternative_names: lines(&form.names),
        missing_variable: form.missing,
        renew_days: form.renew_days,
        legacy_pkcs12: form.legacy.is_some(),
        users: lines(&form.users),
    };
    put_profile(&portal.cloud, &seen.tenant.id, id, new, &seen.visitor.actor()).await?;
    let to = format!("/t/{}/certificate-profiles/{}", seen.tenant.id, query_value(id));
    Ok(Redirect::to(&to).into_response())
}
