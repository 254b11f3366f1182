//! Simulated phones in the admin API, under `/world/phones`.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use causeway_mock_kit::admin::{AdminError, Json, Path};
use causeway_protocol::Secret;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::memory::PhoneView;
use super::park::{NewPhone, PhoneError, Phones};
use super::{Phone, Rhythm};

/// A phone and how it is called here.
#[derive(Serialize, ToSchema)]
pub struct NamedPhone {
    pub id: String,
    pub phone: PhoneView,
}

/// Another password, typed on the phone.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TypedPassword {
    #[schema(value_type = String)]
    pub password: Secret,
}

/// How often a phone asks by itself.
#[derive(Deserialize, ToSchema, Default)]
#[serde(default, deny_unknown_fields)]
pub struct Keeping {
    /// Seconds it lets the server wait for news.
    pub heartbeat_secs: Option<u32>,
    /// Seconds until it tries again after it was turned away.
    pub retry_secs: Option<u32>,
}

/// The routes; they drive the same phones as the mock's handle.
pub fn routes(phones: Arc<Phones>) -> OpenApiRouter {
    OpenApiRouter::new()
        .routes(routes!(list_phones, connect_phone))
        .routes(routes!(show_phone, remove_phone))
        .routes(routes!(sync_phone))
        .routes(routes!(wait_phone))
        .routes(routes!(keep_phone))
        .routes(routes!(switch_phone_on))
        .routes(routes!(switch_phone_off))
        .routes(routes!(set_phone_up_again))
        .routes(routes!(type_password))
        .with_state(phones)
}

/// All simulated phones.
#[utoipa::path(get, path = "/world/phones", responses((status = 200, body = Vec<NamedPhone>)))]
async fn list_phones(State(phones): State<Arc<Phones>>) -> Json<Vec<NamedPhone>> {
    let named = |(id, phone): (String, Phone)| NamedPhone { id, phone: phone.view() };
    Json(phones.all().into_iter().map(named).collect())
}

/// Makes a phone and lets it talk to the server once; its standing says how that went.
#[utoipa::path(
    post, path = "/world/phones", request_body = NewPhone, responses((status = 201, body = NamedPhone))
)]
async fn connect_phone(
    State(phones): State<Arc<Phones>>,
    Json(new): Json<NewPhone>,
) -> Result<(StatusCode, Json<NamedPhone>), AdminError> {
    let (id, phone) = phones.connect(new).await.map_err(|error| match error {
        PhoneError::NoPassword { .. } => AdminError::invalid("/user", error.to_string()),
        PhoneError::Exists { .. } | PhoneError::TooMany => AdminError::conflict(error.to_string()),
    })?;
    Ok((StatusCode::CREATED, Json(NamedPhone { id, phone: phone.view() })))
}

/// One phone: what it has and what it experienced.
#[utoipa::path(get, path = "/world/phones/{id}", responses((status = 200, body = NamedPhone)))]
async fn show_phone(
    State(phones): State<Arc<Phones>>,
    Path(id): Path<String>,
) -> Result<Json<NamedPhone>, AdminError> {
    let phone = find(&phones, &id)?;
    Ok(Json(NamedPhone { phone: phone.view(), id }))
}

/// Throws a phone away; the server keeps its partnership.
#[utoipa::path(delete, path = "/world/phones/{id}", responses((status = 204)))]
async fn remove_phone(
    State(phones): State<Arc<Phones>>,
    Path(id): Path<String>,
) -> Result<StatusCode, AdminError> {
    if phones.remove(&id) { Ok(StatusCode::NO_CONTENT) } else { Err(no_phone(&id)) }
}

/// Lets the phone fetch what is new, as its owner does by pulling down the list.
#[utoipa::path(post, path = "/world/phones/{id}/sync", responses((status = 200, body = NamedPhone)))]
async fn sync_phone(
    State(phones): State<Arc<Phones>>,
    Path(id): Path<String>,
) -> Result<Json<NamedPhone>, AdminError> {
    let phone = find(&phones, &id)?;
    phone.visit().await;
    Ok(Json(NamedPhone { phone: phone.view(), id }))
}

/// Lets the server wait for news once (Ping) and fetches them.
#[utoipa::path(
    post, path = "/world/phones/{id}/wait", request_body = Keeping, responses((status = 200, body = NamedPhone))
)]
async fn wait_phone(
    State(phones): State<Arc<Phones>>,
    Path(id): Path<String>,
    Json(keeping): Json<Keeping>,
) -> Result<Json<NamedPhone>, AdminError> {
    let phone = find(&phones, &id)?;
    phone.wait_and_visit(rhythm(&keeping).heartbeat_secs).await;
    Ok(Json(NamedPhone { phone: phone.view(), id }))
}

/// Lets the phone ask by itself from now on.
#[utoipa::path(
    post, path = "/world/phones/{id}/keep-in-touch", request_body = Keeping,
    responses((status = 200, body = NamedPhone))
)]
async fn keep_phone(
    State(phones): State<Arc<Phones>>,
    Path(id): Path<String>,
    Json(keeping): Json<Keeping>,
) -> Result<Json<NamedPhone>, AdminError> {
    let phone = find(&phones, &id)?;
    phone.keep_in_touch(rhythm(&keeping));
    Ok(Json(NamedPhone { phone: phone.view(), id }))
}

/// Switches the phone on.
#[utoipa::path(post, path = "/world/phones/{id}/on", responses((status = 200, body = NamedPhone)))]
async fn switch_phone_on(
    State(phones): State<Arc<Phones>>,
    Path(id): Path<String>,
) -> Result<Json<NamedPhone>, AdminError> {
    let phone = find(&phones, &id)?;
    phone.switch_on();
    Ok(Json(NamedPhone { phone: phone.view(), id }))
}

/// Switches the phone off.
#[utoipa::path(post, path = "/world/phones/{id}/off", responses((status = 200, body = NamedPhone)))]
async fn switch_phone_off(
    State(phones): State<Arc<Phones>>,
    Path(id): Path<String>,
) -> Result<Json<NamedPhone>, AdminError> {
    let phone = find(&phones, &id)?;
    phone.switch_off();
    Ok(Json(NamedPhone { phone: phone.view(), id }))
}

/// Sets the account up on the phone again, as its owner does after a wipe.
#[utoipa::path(post, path = "/world/phones/{id}/set-up-again", responses((status = 200, body = NamedPhone)))]
async fn set_phone_up_again(
    State(phones): State<Arc<Phones>>,
    Path(id): Path<String>,
) -> Result<Json<NamedPhone>, AdminError> {
    let phone = find(&phones, &id)?;
    phone.set_up_again();
    phone.visit().await;
    Ok(Json(NamedPhone { phone: phone.view(), id }))
}

/// Types another password on the phone.
#[utoipa::path(
    put, path = "/world/phones/{id}/password", request_body = TypedPassword, responses((status = 204))
)]
async fn type_password(
    State(phones): State<Arc<Phones>>,
    Path(id): Path<String>,
    Json(typed): Json<TypedPassword>,
) -> Result<StatusCode, AdminError> {
    find(&phones, &id)?.set_password(typed.password);
    Ok(StatusCode::NO_CONTENT)
}

fn rhythm(keeping: &Keeping) -> Rhythm {
    let usual = Rhythm::default();
    Rhythm {
        heartbeat_secs: keeping.heartbeat_secs.unwrap_or(usual.heartbeat_secs),
        retry_secs: keeping.retry_secs.unwrap_or(usual.retry_secs),
    }
}

fn find(phones: &Phones, id: &str) -> Result<Phone, AdminError> {
    phones.get(id).ok_or_else(|| no_phone(id))
}

fn no_phone(id: &str) -> AdminError {
    AdminError::not_found(format!("there is no phone {id:?}"))
}
