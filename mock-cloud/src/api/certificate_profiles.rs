//! Certificate profiles.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use causeway_protocol::certificate::{KeyKind, KeyMode, MissingVariable, Profile};
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;

use super::Problem;
use super::extract::{Body, Item, Listing, Scope, check_word};
use super::problem::{Conflicts, Problems};
use crate::certificates::{MODULE, publish_profiles};
use crate::limits::{
    ALTERNATIVE_NAMES_MAX, CERTIFICATE_PROFILES_MAX, NAME_MAX_BYTES, PATTERN_MAX_BYTES, PROFILE_USERS_MAX,
};
use crate::state::Cloud;
use crate::store::ProfileRow;

/// A profile as it shall be.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewProfile {
    /// Name for people; the id when missing
    #[serde(default)]
    pub(crate) name: String,
    /// The authority that issues: `[ca.NAME]` of the agents
    pub(crate) authority: String,
    /// The authority's own name of the template or profile, where it has several
    #[serde(default)]
    pub(crate) template: Option<String>,
    /// `device`: the device makes its key and sends a signing request. `agent`: the agent makes it and sends the identity
    /// encrypted for the device. `device` when missing
    #[serde(default = "device")]
    #[schema(value_type = String)]
    pub(crate) key_mode: KeyMode,
    /// `rsa2048`, `rsa3072`, `rsa4096` or `p256`; `rsa2048` when missing
    #[serde(default = "rsa2048")]
    #[schema(value_type = String)]
    pub(crate) key: KeyKind,
    /// Subject with variables, for example `/CN=%uname%/emailAddress=%email%`
    pub(crate) subject: String,
    /// Alternative names with variables, for example `upn:%upn%`, `email:%email%`, `dns:%udid%.acme.example`
    #[serde(default)]
    pub(crate) alternative_names: Vec<String>,
    /// What to do where a variable has no value: `fail`, `drop` the part, or write it `literal`ly
    #[serde(default)]
    #[schema(value_type = String)]
    pub(crate) missing_variable: MissingVariable,
    /// Days before the end at which renewal begins, 1 to 365; 14 when missing
    #[serde(default = "renew_days")]
    pub(crate) renew_days: u32,
    /// Identities for old systems (3DES, SHA-1) instead of today's algorithms
    #[serde(default)]
    pub(crate) legacy_pkcs12: bool,
    /// Whose devices get it: logins, principal names or mail addresses; everyone's when empty
    #[serde(default)]
    pub(crate) users: Vec<String>,
}

fn device() -> KeyMode {
    KeyMode::Device
}
fn rsa2048() -> KeyKind {
    KeyKind::Rsa2048
}
fn renew_days() -> u32 {
    14
}

/// A profile.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct ProfileView {
    /// Its id
    id: String,
    /// Name for people
    name: String,
    /// Counted up with every change that reaches agents
    version: u64,
    /// Certificates of versions before this one look different and are replaced
    replaces_before: u64,
    /// What agents get
    #[schema(value_type = Object)]
    profile: Profile,
    /// Whose devices get it; everyone's when empty
    users: Vec<String>,
    /// Unix milliseconds of the last change
    changed_ms: i64,
}

fn view(row: ProfileRow) -> ProfileView {
    ProfileView {
        id: row.profile.id.clone(),
        name: row.name,
        version: row.profile.version,
        replaces_before: row.shape,
        profile: row.profile,
        users: row.users,
        changed_ms: row.changed_ms,
    }
}

/// Every certificate profile
#[utoipa::path(get, path = "/tenants/{tenant}/certificate-profiles", tag = "certificates",
    params(("tenant" = String, Path)), responses((status = 200, body = Listing<ProfileView>), Problems))]
pub(super) async fn list(
    State(cloud): State<Arc<Cloud>>,
    Scope(tenant): Scope,
) -> Result<Json<Listing<ProfileView>>, Problem> {
    let rows = cloud.store.certificate_profiles(&tenant.id).await?;
    Ok(Json(Listing::whole(rows.into_iter().map(view).collect())))
}

/// One certificate profile
#[utoipa::path(get, path = "/tenants/{tenant}/certificate-profiles/{profile}", tag = "certificates",
    params(("tenant" = String, Path), ("profile" = String, Path)),
    responses((status = 200, body = ProfileView), Problems))]
pub(super) async fn show(
    State(cloud): State<Arc<Cloud>>,
    Scope(tenant): Scope,
    Item(id): Item,
) -> Result<Json<ProfileView>, Problem> {
    let row = cloud.store.certificate_profile(&tenant.id, &id).await?;
    row.map(|row| Json(view(row))).ok_or_else(|| Problem::not_found("certificate profile", &id))
}

/// Create or change a certificate profile. Agents get it at once; certificates that would look different from now on are
/// replaced over the next days
#[utoipa::path(put, path = "/tenants/{tenant}/certificate-profiles/{profile}", tag = "certificates",
    params(("tenant" = String, Path), ("profile" = String, Path)), request_body = NewProfile,
    responses((status = 200, body = ProfileView), Problems, Conflicts))]
pub(super) async fn put(
    State(cloud): State<Arc<Cloud>>,
    Scope(tenant): Scope,
    Item(id): Item,
    Body(new): Body<NewProfile>,
) -> Result<Json<ProfileView>, Problem> {
    Ok(Json(view(put_profile(&cloud, &tenant.id, &id, new, "api").await?)))
}

/// Remove a certificate profile: nothing is issued or renewed by it any more; certificates that are there stay until they
/// end or are revoked
#[utoipa::path(delete, path = "/tenants/{tenant}/certificate-profiles/{profile}", tag = "certificates",
    params(("tenant" = String, Path), ("profile" = String, Path)),
    responses((status = 204, description = "It is gone"), Problems))]
pub(super) async fn remove(
    State(cloud): State<Arc<Cloud>>,
    Scope(tenant): Scope,
    Item(id): Item,
) -> Result<StatusCode, Problem> {
    if !cloud.store.remove_certificate_profile(&tenant.id, &id, "api", cloud.now_ms()).await? {
        return Err(Problem::not_found("certificate profile", &id));
    }
    publish_profiles(&cloud, &tenant.id, "api").await?;
    cloud.certificates.touch(&tenant.id);
    Ok(StatusCode::NO_CONTENT)
}

/// Checks, stores and publishes a profile.
///
/// # Errors
/// What does not fit.
pub(crate) async fn put_profile(
    cloud: &Arc<Cloud>,
    tenant: &str,
    id: &str,
    new: NewProfile,
    actor: &str,
) -> Result<ProfileRow, Problem> {
    check_word("path.profile", id)?;
    check(&new)?;
    let (name, users) = (new.name.trim().to_owned(), new.users);
    let profile = Profile {
        id: id.to_owned(),
        version: 0,
        authority: new.authority,
        template: new.template.filter(|template| !template.trim().is_empty()),
        key_mode: new.key_mode,
        key: new.key,
        subject: new.subject.trim().to_owned(),
        alternative_names: new.alternative_names,
        missing_variable: new.missing_variable,
        renew_days: new.renew_days,
        legacy_pkcs12: new.legacy_pkcs12,
    };
    let others = cloud.store.certificate_profiles(tenant).await?;
    if others.len() >= CERTIFICATE_PROFILES_MAX && !others.iter().any(|row| row.profile.id == id) {
        let detail = format!("a tenant has at most {CERTIFICATE_PROFILES_MAX} certificate profiles");
        return Err(Problem::conflict("too_many_profiles", detail));
    }
    let all: Vec<&Profile> =
        others.iter().map(|row| &row.profile).filter(|it| it.id != id).chain([&profile]).collect();
    super::check_settings("profiles", &json!({ "profiles": all }))?;
    let name = if name.is_empty() { id.to_owned() } else { name };
    let row =
        cloud.store.put_certificate_profile(tenant, name, profile, users, actor, cloud.now_ms()).await?;
    publish_profiles(cloud, tenant, actor).await?;
    cloud.certificates.touch(tenant);
    // Devices that wait for something to do may have it now.
    cloud.certificates.devices.changed(MODULE);
    Ok(row)
}

fn check(new: &NewProfile) -> Result<(), Problem> {
    let text = |path: &str, text: &str, max: usize| {
        if text.trim().is_empty() || text.len() > max || text.chars().any(char::is_control) {
            return Err(Problem::invalid(path, format!("1 to {max} bytes, no control characters")));
        }
        Ok(())
    };
    check_word("authority", &new.authority)?;
    text("subject", &new.subject, PATTERN_MAX_BYTES)?;
    if !new.subject.trim().starts_with('/') || !new.subject.contains('=') {
        return Err(Problem::invalid("subject", "a subject looks like /CN=%uname%/O=Acme"));
    }
    if !new.name.is_empty() {
        text("name", &new.name, NAME_MAX_BYTES)?;
    }
    if let Some(template) = &new.template {
        text("template", template, NAME_MAX_BYTES)?;
    }
    if new.alternative_names.len() > ALTERNATIVE_NAMES_MAX {
        return Err(Problem::invalid("alternative_names", format!("at most {ALTERNATIVE_NAMES_MAX}")));
    }
    for (n, name) in new.alternative_names.iter().enumerate() {
        let path = format!("alternative_names[{n}]");
        text(&path, name, PATTERN_MAX_BYTES)?;
        let known = ["upn", "email", "dns", "uri", "ip"];
        if !name.split_once(':').is_some_and(|(kind, value)| known.contains(&kind) && !value.is_empty()) {
            return Err(Problem::invalid(
                path,
                format!("KIND:VALUE with one of the kinds {}", known.join(", ")),
            ));
        }
    }
    if !(1..=365).contains(&new.renew_days) {
        return Err(Problem::invalid("renew_days", "1 to 365"));
    }
    if new.users.len() > PROFILE_USERS_MAX {
        return Err(Problem::invalid("users", format!("at most {PROFILE_USERS_MAX}")));
    }
    new.users.iter().enumerate().try_for_each(|(n, user)| text(&format!("users[{n}]"), user, NAME_MAX_BYTES))
}
