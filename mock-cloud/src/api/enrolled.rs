//! Phones that device management has enrolled.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use causeway_protocol::Secret;
use causeway_protocol::limits::USERNAME_MAX_BYTES;
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;

use super::Problem;
use super::extract::{Body, Item, Listing, PageQuery, Params, Scope, limit};
use super::problem::Problems;
use crate::access::random_text;
use crate::events::kinds;
use crate::limits::IDENTIFIER_MAX_BYTES;
use crate::state::Cloud;
use crate::store::{EnrolledDevice, NewEnrolled};

/// A phone to enrol. The more identifiers, the surer it is recognised in a mailbox; without any it never is.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Enrol {
    /// Whose it is: login, principal name or mail address
    user: String,
    /// ActiveSync id as device management read it from the phone
    #[serde(default)]
    device_id: Option<String>,
    /// IMEI
    #[serde(default)]
    imei: Option<String>,
    /// Serial number
    #[serde(default)]
    serial: Option<String>,
    /// UDID
    #[serde(default)]
    udid: Option<String>,
    /// Model
    #[serde(default)]
    model: Option<String>,
    /// Serial number of its SIM card (ICCID); one that is given anew replaces the last one
    #[serde(default)]
    sim: Option<String>,
    /// Telephone number; one that is given anew replaces the last one
    #[serde(default)]
    phone_number: Option<String>,
    /// Whether it keeps the rules of device management; true when missing
    #[serde(default = "yes")]
    compliant: bool,
}

fn yes() -> bool {
    true
}

/// What changes.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Compliant {
    /// Whether it keeps the rules of device management
    compliant: bool,
}

/// Enrolled phones in the order of their enrolment
#[utoipa::path(get, path = "/tenants/{tenant}/enrolled-devices", tag = "phones",
    params(("tenant" = String, Path), PageQuery),
    responses((status = 200, body = Listing<EnrolledDevice>), Problems))]
pub(super) async fn list(
    State(cloud): State<Arc<Cloud>>,
    Scope(tenant): Scope,
    Params(page): Params<PageQuery>,
) -> Result<Json<Listing<EnrolledDevice>>, Problem> {
    Ok(Json(cloud.store.enrolled_devices(&tenant.id, limit(page.limit)?, page.after).await?.into()))
}

/// Enrol a phone. The same user with the same identifiers is the same phone, and is changed
#[utoipa::path(post, path = "/tenants/{tenant}/enrolled-devices", tag = "phones",
    params(("tenant" = String, Path)), request_body = Enrol,
    responses((status = 201, body = EnrolledDevice), (status = 200, body = EnrolledDevice), Problems))]
pub(super) async fn enrol(
    State(cloud): State<Arc<Cloud>>,
    Scope(tenant): Scope,
    Body(body): Body<Enrol>,
) -> Result<(StatusCode, Json<EnrolledDevice>), Problem> {
    let user = body.user.trim().to_owned();
    if user.is_empty() || user.len() > USERNAME_MAX_BYTES {
        return Err(Problem::invalid("user", format!("1 to {USERNAME_MAX_BYTES} bytes")));
    }
    let new = NewEnrolled {
        user,
        device_id: identifier("device_id", body.device_id)?,
        imei: identifier("imei", body.imei)?,
        serial: identifier("serial", body.serial)?,
        udid: identifier("udid", body.udid)?,
        model: identifier("model", body.model)?,
        sim: identifier("sim", body.sim)?,
        phone_number: identifier("phone_number", body.phone_number)?,
        compliant: body.compliant,
    };
    let (device, is_new) = cloud.store.enrol_device(&tenant.id, new, "api", cloud.now_ms()).await?;
    changed(&cloud, &tenant.id, &device.id, Some(&device));
    Ok((if is_new { StatusCode::CREATED } else { StatusCode::OK }, Json(device)))
}

/// Say whether an enrolled phone keeps the rules
#[utoipa::path(put, path = "/tenants/{tenant}/enrolled-devices/{enrolled}", tag = "phones",
    params(("tenant" = String, Path), ("enrolled" = String, Path)), request_body = Compliant,
    responses((status = 200, body = EnrolledDevice), Problems))]
pub(super) async fn change(
    State(cloud): State<Arc<Cloud>>,
    Scope(tenant): Scope,
    Item(id): Item,
    Body(body): Body<Compliant>,
) -> Result<Json<EnrolledDevice>, Problem> {
    let found = cloud.store.set_compliant(&tenant.id, &id, body.compliant, "api", cloud.now_ms()).await?;
    let device = found.ok_or_else(|| Problem::not_found("enrolled device", &id))?;
    changed(&cloud, &tenant.id, &id, Some(&device));
    Ok(Json(device))
}

/// Note that an enrolled phone was wiped or lost: its certificates are revoked, because their keys may be in other hands,
/// and it gets no new one until it is enrolled again
#[utoipa::path(post, path = "/tenants/{tenant}/enrolled-devices/{enrolled}/wipe", tag = "phones",
    params(("tenant" = String, Path), ("enrolled" = String, Path)),
    responses((status = 200, body = EnrolledDevice), Problems))]
pub(super) async fn wipe(
    State(cloud): State<Arc<Cloud>>,
    Scope(tenant): Scope,
    Item(id): Item,
) -> Result<Json<EnrolledDevice>, Problem> {
    let wiped = cloud.store.wipe_enrolled(&tenant.id, &id, String::new(), "api", cloud.now_ms()).await?;
    let device = wiped.ok_or_else(|| Problem::not_found("enrolled device", &id))?;
    crate::certificates::device_wiped(&cloud, &tenant.id, &id, &device.user);
    cloud.certificates.touch(&tenant.id);
    Ok(Json(device))
}

/// What a device shows to speak for itself.
#[derive(Serialize, ToSchema)]
pub(crate) struct DeviceToken {
    /// Bearer token of the routes under `/device`; shown once
    token: String,
}

/// Make a token with which an enrolled phone speaks for itself; an earlier one is no longer good
#[utoipa::path(post, path = "/tenants/{tenant}/enrolled-devices/{enrolled}/token", tag = "phones",
    params(("tenant" = String, Path), ("enrolled" = String, Path)),
    responses((status = 201, body = DeviceToken), Problems))]
pub(super) async fn token(
    State(cloud): State<Arc<Cloud>>,
    Scope(tenant): Scope,
    Item(id): Item,
) -> Result<(StatusCode, Json<DeviceToken>), Problem> {
    let token = new_token()?;
    if !cloud.store.put_device_token(&tenant.id, &id, &token).await? {
        return Err(Problem::not_found("enrolled device", &id));
    }
    Ok((StatusCode::CREATED, Json(DeviceToken { token: token.expose().to_owned() })))
}

/// 256 random bits.
///
/// # Errors
/// When the system gives no random numbers.
pub(super) fn new_token() -> Result<Secret, Problem> {
    let text = random_text(32).map_err(|error| Problem::internal(&error))?;
    Ok(Secret::new(format!("cwd_{text}")))
}

/// Forget an enrolled phone; its certificates are revoked
#[utoipa::path(delete, path = "/tenants/{tenant}/enrolled-devices/{enrolled}", tag = "phones",
    params(("tenant" = String, Path), ("enrolled" = String, Path)),
    responses((status = 204, description = "It is forgotten"), Problems))]
pub(super) async fn remove(
    State(cloud): State<Arc<Cloud>>,
    Scope(tenant): Scope,
    Item(id): Item,
) -> Result<StatusCode, Problem> {
    if !cloud.store.remove_enrolled(&tenant.id, &id, "api", cloud.now_ms()).await? {
        return Err(Problem::not_found("enrolled device", &id));
    }
    changed(&cloud, &tenant.id, &id, None);
    Ok(StatusCode::NO_CONTENT)
}

pub(super) fn identifier(path: &str, text: Option<String>) -> Result<Option<String>, Problem> {
    let text = text.map(|text| text.trim().to_owned()).filter(|text| !text.is_empty());
    match &text {
        Some(text) if text.len() > IDENTIFIER_MAX_BYTES => {
            Err(Problem::invalid(path, format!("at most {IDENTIFIER_MAX_BYTES} bytes")))
        }
        _ => Ok(text),
    }
}

pub(super) fn changed(cloud: &Cloud, tenant: &str, id: &str, device: Option<&EnrolledDevice>) {
    let body = json!({
        "enrolled": id, "user": device.map(|it| &it.user), "compliant": device.map(|it| it.compliant),
    });
    cloud.events.emit(tenant, kinds::ENROLLED, body);
    cloud.compliance.touch(tenant);
    cloud.certificates.touch(tenant);
}
