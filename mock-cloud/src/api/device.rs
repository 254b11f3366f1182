//! What a device calls itself: enrolling with the company's password, and getting its certificates.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{FromRequestParts, Path, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use causeway_protocol::Secret;
use causeway_protocol::action::{ErrorReport, codes};
use causeway_protocol::auth::{AuthOutcome, AuthRequest};
use causeway_protocol::certificate::{KeyKind, KeyMode};
use causeway_protocol::limits::USERNAME_MAX_BYTES;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::Problem;
use super::enrolled::{changed, identifier, new_token};
use super::extract::{Body, Listing, Params};
use super::problem::{Behind, Busy, Conflicts, Problems};
use crate::certificates::{self, Assignment, HandInError, Handover, MODULE};
use crate::limits::{CSR_MAX_BYTES, DEVICE_KEY_MAX_BYTES, WAIT_MAX};
use crate::state::Cloud;
use crate::store::{CertificateRequest, Delivery, EnrolledDevice, NewEnrolled, stages};

/// Who calls: an enrolled device with its own token.
pub(crate) struct Caller {
    tenant: String,
    device: EnrolledDevice,
}

impl FromRequestParts<Arc<Cloud>> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, cloud: &Arc<Cloud>) -> Result<Self, Problem> {
        let token = super::bearer(&parts.headers).ok_or_else(Problem::unauthorized)?;
        let found = cloud.store.device_of_token(token).await?;
        let (tenant, device) = found.ok_or_else(Problem::unauthorized)?;
        Ok(Self { tenant, device })
    }
}

/// A device that enrols, and the password its owner types. At least one of its four identifiers tells it from the other
/// devices of its owner. No `Debug`.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct DeviceEnrolment {
    /// The company: id of the tenant
    tenant: String,
    /// A login, a mail address, a UPN or `DOMAIN\login`
    username: String,
    /// The company's password; checked by the customer's directory and kept nowhere
    #[schema(value_type = String, format = Password)]
    password: Secret,
    /// ActiveSync id
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
}

/// An enrolled device.
#[derive(Serialize, ToSchema)]
pub(crate) struct DeviceEnrolled {
    /// Names the enrolment
    device: String,
    /// Whose it is: the login in the company's directory, whichever of their names was typed
    user: String,
    /// Bearer token of the other routes of a device; shown once
    token: String,
}

/// A profile, and what the device has and must do.
#[derive(Serialize, ToSchema)]
pub(crate) struct AssignedProfile {
    /// The profile's id
    profile: String,
    /// Its name for people
    name: String,
    /// Its version
    version: u64,
    /// `device`: hand in a signing request. `agent`: hand in a public key
    #[schema(value_type = String)]
    key_mode: KeyMode,
    /// The kind of key to make: `rsa2048`, `rsa3072`, `rsa4096` or `p256`
    #[schema(value_type = String)]
    key: KeyKind,
    /// What to do now: `enrol`, `renew`, `replace`, `install`; null for nothing
    wanted: Option<String>,
    /// The request under way
    request: Option<CertificateRequest>,
    /// SHA-256 of the certificate the device has, or may fetch
    certificate: Option<String>,
    /// Unix milliseconds of its end
    not_after_ms: Option<i64>,
}

/// A certificate that the device needs.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct DeviceWish {
    /// The profile
    profile: String,
    /// The device has lost the certificate it had, or its key
    #[serde(default)]
    lost: bool,
}

/// Everything that must stand in the signing request.
#[derive(Serialize, ToSchema)]
pub(crate) struct DeviceChallenge {
    /// The challenge password (RFC 2985 section 5.4.1); null where the authority asks for none
    challenge: Option<String>,
    /// Milliseconds it is good for
    ttl_ms: u64,
    /// The subject, RFC 4514
    subject: String,
    /// The alternative names, `KIND:VALUE`
    alternative_names: Vec<String>,
}

/// A signing request.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct DeviceCsr {
    /// PKCS#10, base64 of DER
    csr: String,
}

/// A public key.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct DeviceKey {
    /// SubjectPublicKeyInfo, base64 of DER: RSA, or EC on P-256
    public_key: String,
}

/// A request, and the certificate once it is there.
#[derive(Serialize, ToSchema)]
pub(crate) struct DeviceRequest {
    /// The request's own fields
    #[serde(flatten)]
    request: CertificateRequest,
    /// The certificate, base64 of DER
    certificate_der: Option<String>,
    /// Authorities from the issuer upwards, base64 of DER
    chain: Vec<String>,
    /// The identity, encrypted for the device's key: CMS EnvelopedData, base64 of DER
    identity: Option<String>,
}

/// How long to wait.
#[derive(Default, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct DeviceWait {
    /// Milliseconds to wait for news, at most 60,000
    wait_ms: u64,
}

/// Enrol a device with the company's password. The same device again is the same one, with a new token
#[utoipa::path(post, path = "/device/enroll", tag = "device", security(()), request_body = DeviceEnrolment,
    responses((status = 201, body = DeviceEnrolled), Problems, Busy,
              (status = 403, body = Problem, content_type = "application/problem+json",
               description = "The company does not let this person in; `code` is the verdict")))]
pub(super) async fn enroll(
    State(cloud): State<Arc<Cloud>>,
    Body(body): Body<DeviceEnrolment>,
) -> Result<(StatusCode, Json<DeviceEnrolled>), Problem> {
    let tenant = cloud.store.tenant(&body.tenant).await?;
    let tenant = tenant.ok_or_else(|| Problem::not_found("tenant", &body.tenant))?.id;
    let typed = body.username.trim().to_owned();
    if typed.is_empty() || typed.len() > USERNAME_MAX_BYTES {
        return Err(Problem::invalid("username", format!("1 to {USERNAME_MAX_BYTES} bytes")));
    }
    let mut new = NewEnrolled {
        user: typed,
        device_id: identifier("device_id", body.device_id)?,
        imei: identifier("imei", body.imei)?,
        serial: identifier("serial", body.serial)?,
        udid: identifier("udid", body.udid)?,
        model: identifier("model", body.model)?,
        sim: identifier("sim", body.sim)?,
        phone_number: identifier("phone_number", body.phone_number)?,
        compliant: true,
    };
    if !new.is_identified() {
        let detail = "give at least one of device_id, imei, serial and udid: without any, two devices of one person cannot \
                      be told apart";
        return Err(Problem::invalid("body", detail));
    }
    let guesser = format!("{tenant}/{}", new.user.to_lowercase());
    if let Some(wait) = cloud.device_sign_ins.must_wait(&guesser) {
        return Err(Problem::busy_for("too many attempts; wait a little", wait.as_secs().max(1)));
    }
    let request = AuthRequest { username: body.username, password: body.password };
    let verdict = super::check_password(&cloud, &tenant, request).await?;
    match verdict.outcome {
        AuthOutcome::Ok => {}
        AuthOutcome::Unavailable => {
            return Err(Problem::busy(verdict.detail.unwrap_or_else(|| "there is no verdict".to_owned())));
        }
        refused => {
            cloud.device_sign_ins.failed(&guesser);
            return Err(Problem::forbidden(refused.as_str(), "the company does not let this person in"));
        }
    }
    // Whatever its owner has typed this time: one device is one enrolment, with one token and one certificate of a profile.
    if let Some(person) = verdict.user.filter(|person| !person.login.is_empty()) {
        new.user = person.login;
    }
    let now_ms = cloud.now_ms();
    let (device, _) = cloud.store.enrol_device(&tenant, new, "device", now_ms).await?;
    let token = new_token()?;
    cloud.store.put_device_token(&tenant, &device.id, &token).await?;
    changed(&cloud, &tenant, &device.id, Some(&device));
    let token = token.expose().to_owned();
    Ok((StatusCode::CREATED, Json(DeviceEnrolled { device: device.id, user: device.user, token })))
}

/// Every profile the device is to have a certificate of, and what it must do now; waits until there is something to do
#[utoipa::path(get, path = "/device/profiles", tag = "device", security(("device" = [])), params(DeviceWait),
    responses((status = 200, body = Listing<AssignedProfile>), Problems))]
pub(super) async fn profiles(
    State(cloud): State<Arc<Cloud>>,
    caller: Caller,
    Params(query): Params<DeviceWait>,
) -> Result<Json<Listing<AssignedProfile>>, Problem> {
    let until = tokio::time::Instant::now() + Duration::from_millis(query.wait_ms).min(WAIT_MAX);
    let own = cloud.certificates.devices.watch(&caller.device.id);
    let all = cloud.certificates.devices.watch(MODULE);
    loop {
        let (own_news, all_news) = (own.next_change(), all.next_change());
        let found = cloud.store.enrolled_device(&caller.tenant, &caller.device.id).await?;
        let device = found.ok_or_else(Problem::unauthorized)?;
        let assigned = match device.wiped_ms {
            None => certificates::assignments(&cloud, &caller.tenant, &device).await?,
            Some(_) => Vec::new(),
        };
        let idle = assigned.iter().all(|it| it.wanted.is_none());
        let news = async {
            tokio::select! {
                () = own_news => {}
                () = all_news => {}
            }
        };
        if !idle || query.wait_ms == 0 || tokio::time::timeout_at(until, news).await.is_err() {
            return Ok(Json(Listing::whole(assigned.into_iter().map(assigned_view).collect())));
        }
    }
}

fn assigned_view(it: Assignment) -> AssignedProfile {
    AssignedProfile {
        profile: it.profile.id,
        name: it.name,
        version: it.profile.version,
        key_mode: it.profile.key_mode,
        key: it.profile.key,
        wanted: it.wanted,
        request: it.request.filter(|request| request.open),
        not_after_ms: it.certificate.as_ref().map(|certificate| certificate.not_after_ms),
        certificate: it.certificate.map(|certificate| certificate.sha256),
    }
}

/// Begin to get a certificate. There is one request at a time for a profile: repeating the call gives the same one
#[utoipa::path(post, path = "/device/requests", tag = "device", security(("device" = [])), request_body = DeviceWish,
    responses((status = 201, body = DeviceRequest), (status = 200, body = DeviceRequest), Problems, Conflicts, Busy))]
pub(super) async fn want(
    State(cloud): State<Arc<Cloud>>,
    caller: Caller,
    Body(wish): Body<DeviceWish>,
) -> Result<(StatusCode, Json<DeviceRequest>), Problem> {
    let wanted = certificates::want(&cloud, &caller.tenant, &caller.device, &wish.profile, wish.lost).await;
    let (request, is_new) = wanted.map_err(problem)?;
    let status = if is_new { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, Json(view(&cloud, &caller, request).await?)))
}

/// A request; waits until it is issued, has failed or is over
#[utoipa::path(get, path = "/device/requests/{request}", tag = "device", security(("device" = [])),
    params(("request" = String, Path), DeviceWait), responses((status = 200, body = DeviceRequest), Problems))]
pub(super) async fn show(
    State(cloud): State<Arc<Cloud>>,
    caller: Caller,
    Path(id): Path<String>,
    Params(query): Params<DeviceWait>,
) -> Result<Json<DeviceRequest>, Problem> {
    let until = tokio::time::Instant::now() + Duration::from_millis(query.wait_ms).min(WAIT_MAX);
    let watch = cloud.certificates.devices.watch(&caller.device.id);
    loop {
        let news = watch.next_change();
        let request = found(&cloud, &caller, &id).await?;
        let over = !request.open || request.stage == stages::ISSUED || query.wait_ms == 0;
        if over || tokio::time::timeout_at(until, news).await.is_err() {
            return Ok(Json(view(&cloud, &caller, request).await?));
        }
    }
}

async fn found(cloud: &Cloud, caller: &Caller, id: &str) -> Result<CertificateRequest, Problem> {
    let found = cloud.store.certificate_request(&caller.tenant, id).await?;
    let own = found.map(|(request, _)| request).filter(|request| request.device == caller.device.id);
    own.ok_or_else(|| Problem::not_found("request", id))
}

async fn view(cloud: &Cloud, caller: &Caller, request: CertificateRequest) -> Result<DeviceRequest, Problem> {
    let brought = match &request.certificate {
        Some(sha256) => cloud.store.delivery(&caller.tenant, &request.id, sha256).await?,
        None => Delivery::default(),
    };
    let identity = brought.identity.map(|bytes| STANDARD.encode(bytes));
    let (der, chain) = brought.certificate.unzip();
    let certificate_der = der.map(|bytes| STANDARD.encode(bytes));
    Ok(DeviceRequest { request, certificate_der, chain: chain.unwrap_or_default(), identity })
}

/// Fetch the challenge and the names for the signing request. Make the request at once: the challenge is good for a short
/// time, and asking again makes the one before worthless
#[utoipa::path(post, path = "/device/requests/{request}/challenge", tag = "device", security(("device" = [])),
    params(("request" = String, Path)), responses((status = 200, body = DeviceChallenge), Problems, Conflicts, Behind))]
pub(super) async fn challenge(
    State(cloud): State<Arc<Cloud>>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<DeviceChallenge>, Problem> {
    let answer = certificates::challenge(&cloud, &caller.tenant, &caller.device, &id).await;
    let answer = answer.map_err(problem)?;
    Ok(Json(DeviceChallenge {
        challenge: answer.challenge,
        ttl_ms: answer.ttl_ms,
        subject: answer.subject,
        alternative_names: answer.alternative_names,
    }))
}

/// Hand in the signing request; the same one again changes nothing
#[utoipa::path(post, path = "/device/requests/{request}/csr", tag = "device", security(("device" = [])),
    params(("request" = String, Path)), request_body = DeviceCsr,
    responses((status = 202, body = DeviceRequest), Problems, Conflicts, Behind))]
pub(super) async fn csr(
    State(cloud): State<Arc<Cloud>>,
    caller: Caller,
    Path(id): Path<String>,
    Body(body): Body<DeviceCsr>,
) -> Result<(StatusCode, Json<DeviceRequest>), Problem> {
    let der = decode("csr", &body.csr, CSR_MAX_BYTES)?;
    take(&cloud, &caller, &id, Handover::Csr(der)).await
}

/// Hand in the public key the identity is to be encrypted to; the same one again changes nothing
#[utoipa::path(post, path = "/device/requests/{request}/key", tag = "device", security(("device" = [])),
    params(("request" = String, Path)), request_body = DeviceKey,
    responses((status = 202, body = DeviceRequest), Problems, Conflicts, Behind))]
pub(super) async fn key(
    State(cloud): State<Arc<Cloud>>,
    caller: Caller,
    Path(id): Path<String>,
    Body(body): Body<DeviceKey>,
) -> Result<(StatusCode, Json<DeviceRequest>), Problem> {
    let der = decode("public_key", &body.public_key, DEVICE_KEY_MAX_BYTES)?;
    take(&cloud, &caller, &id, Handover::DeviceKey(der)).await
}

async fn take(
    cloud: &Arc<Cloud>,
    caller: &Caller,
    id: &str,
    handover: Handover,
) -> Result<(StatusCode, Json<DeviceRequest>), Problem> {
    let taken = certificates::hand_in(cloud, &caller.tenant, &caller.device, id, handover).await;
    let request = taken.map_err(problem)?;
    Ok((StatusCode::ACCEPTED, Json(view(cloud, caller, request).await?)))
}

/// Say that the certificate is installed: it is in use from now on, and the one it replaces is revoked
#[utoipa::path(post, path = "/device/requests/{request}/installed", tag = "device", security(("device" = [])),
    params(("request" = String, Path)), responses((status = 200, body = DeviceRequest), Problems, Conflicts))]
pub(super) async fn installed(
    State(cloud): State<Arc<Cloud>>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<DeviceRequest>, Problem> {
    let before = found(&cloud, &caller, &id).await?;
    let now_ms = cloud.now_ms();
    let noted = cloud.store.request_installed(&caller.tenant, &id, &caller.device.id, now_ms).await?;
    let Some(request) = noted else {
        return Err(Problem::conflict("not_now", "there is no certificate yet"));
    };
    if before.stage != request.stage {
        certificates::request_changed(&cloud, &caller.tenant, &request);
        cloud.certificates.touch(&caller.tenant);
    }
    Ok(Json(view(&cloud, &caller, request).await?))
}

fn decode(path: &str, text: &str, max: usize) -> Result<Vec<u8>, Problem> {
    // Base64 is four thirds of what it stands for; line breaks are forgiven.
    if text.len() > max * 2 {
        return Err(Problem::invalid(path, format!("larger than {max} bytes")));
    }
    let plain: String = text.split_ascii_whitespace().collect();
    let der = STANDARD.decode(plain).map_err(|_| Problem::invalid(path, "this is not base64"))?;
    if der.len() > max { Err(Problem::invalid(path, format!("larger than {max} bytes"))) } else { Ok(der) }
}

/// What a caller sees when a device does not get on.
pub(crate) fn problem(error: HandInError) -> Problem {
    match error {
        HandInError::NotForDevice { what, id } => Problem::not_found(what, &id),
        HandInError::NothingDue => Problem::conflict("nothing_due", error.to_string()),
        HandInError::TooSoon { secs } => Problem::busy_for(error.to_string(), secs),
        HandInError::OutOfOrder { code, detail } => Problem::conflict(code, detail),
        HandInError::Malformed { detail } => Problem::invalid("body", detail),
        HandInError::Refused { error } => refused_behind(&error),
        HandInError::Dispatch(error) => Problem::internal(&error),
        HandInError::Store(error) => error.into(),
    }
}

/// Codes of what will be better by itself: the agent's module names its own (docs/error-codes.md).
const PASSES: [&str; 7] = [
    codes::OVERLOADED,
    codes::NO_AGENT,
    codes::UNKNOWN_OUTCOME,
    "ca_challenges_used_up",
    "ca_unreachable",
    "ca_busy",
    "profile_missing",
];

/// What will be better by itself is worth another try; the rest is for an administrator.
fn refused_behind(error: &ErrorReport) -> Problem {
    let detail = format!("{}: {}", error.code, error.detail);
    let passes = PASSES.contains(&error.code.as_str());
    if passes { Problem::busy(detail) } else { Problem::refused_behind(detail) }
}
