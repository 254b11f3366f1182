//! From a device's wish to the order an agent carries out.

use std::collections::BTreeMap;
use std::sync::Arc;

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use causeway_protocol::Secret;
use causeway_protocol::action::ErrorReport;
use causeway_protocol::certificate::{
    CertificateId, ChallengeAnswer, ChallengeAsk, IssueOrder, KeyMode, SealTo, SealedCsr,
};
use causeway_protocol::cms::{self, ContentCipher, KeyTransport, Recipient, SealRandom};
use causeway_protocol::pkix::{Digest, PublicKey};
use serde_json::{Value, json};
use thiserror::Error;

use super::{ISSUE, MODULE, REVOKE, reading, request_changed};
use crate::api;
use crate::dispatch::{self, DispatchError, Draft};
use crate::limits::{
    CERTIFICATE_ORDER_TTL, CERTIFICATE_RETRY_MAX, CERTIFICATE_RETRY_MIN, CHALLENGE_LIFE_MAX,
    CHALLENGE_WITHIN, PORTAL_PAGE, REVOCATION_ORDER_TTL,
};
use crate::mobile::same_person;
use crate::state::Cloud;
use crate::store::{
    ActionRow, CertificateRequest, DeviceCertificate, EnrolledDevice, HandedIn, NewAction, NewRequest,
    ProfileRow, RequestParts, Search, StoreError, TakenIn, User, reasons, stages,
};

/// Code of an order whose signing request is sealed to another agent; agents have the same one.
const SEALED_ELSEWHERE: &str = "request_sealed_elsewhere";

/// Why a device does not get on.
#[derive(Debug, Error)]
#[non_exhaustive]
pub(crate) enum HandInError {
    /// The device is wiped, or has no such profile or request.
    #[error("there is no {what} {id:?} for this device")]
    NotForDevice {
        /// What was asked for.
        what: &'static str,
        /// Its name, as it was asked for.
        id: String,
    },
    /// The device has what it needs.
    #[error("the device has a certificate of this profile, and its renewal is not due")]
    NothingDue,
    /// The last try failed a short while ago.
    #[error("the last try failed; the next one is possible in {secs} s")]
    TooSoon {
        /// Seconds to wait.
        secs: u64,
    },
    /// It does not fit where the request stands.
    #[error("{detail}")]
    OutOfOrder {
        /// One of a bounded set of words.
        code: &'static str,
        /// For people.
        detail: String,
    },
    /// What was handed in is not what it should be.
    #[error("{detail}")]
    Malformed {
        /// For people.
        detail: String,
    },
    /// The agent, or the authority behind it, says no or nothing.
    #[error("{}", error.detail)]
    Refused {
        /// Its words.
        error: ErrorReport,
    },
    /// The order could not be given.
    #[error("give the order")]
    Dispatch(#[source] DispatchError),
    /// The store failed.
    #[error("use the store")]
    Store(#[source] StoreError),
}

impl From<StoreError> for HandInError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

fn missing(what: &'static str, id: &str) -> HandInError {
    HandInError::NotForDevice { what, id: id.to_owned() }
}

/// What a device hands in, as it came.
pub(crate) enum Handover {
    /// Base64 of its signing request.
    Csr(Vec<u8>),
    /// Base64 of the public key the identity is encrypted to.
    DeviceKey(Vec<u8>),
}

/// Whether a profile is for a device.
pub(crate) fn is_for(row: &ProfileRow, device: &EnrolledDevice) -> bool {
    row.users.is_empty() || row.users.iter().any(|user| same_person(user, &device.user))
}

/// Puts the tenant's profiles into the desired config of the agents' module; the same profiles change nothing.
///
/// # Errors
/// When they do not fit a config, or the store fails.
pub(crate) async fn publish_profiles(
    cloud: &Arc<Cloud>,
    tenant: &str,
    actor: &str,
) -> Result<(), api::Problem> {
    let profiles = cloud.store.certificate_profiles(tenant).await?;
    let config = cloud.store.config(tenant, MODULE).await?;
    if config.is_none() && profiles.is_empty() {
        return Ok(());
    }
    let enabled = config.as_ref().is_none_or(|config| config.enabled);
    let mut settings = config.map_or_else(|| json!({}), |config| config.settings);
    if let Some(table) = settings.as_object_mut() {
        let profiles: Vec<_> = profiles.into_iter().map(|row| row.profile).collect();
        table.insert("profiles".to_owned(), json!(profiles));
    }
    api::change_module(cloud, tenant, MODULE, enabled, settings, actor).await?;
    Ok(())
}

/// The open request of a device for a profile, or a new one when it needs a certificate. `lost` says that it no longer
/// has the one it had.
///
/// # Errors
/// See [`HandInError`].
pub(crate) async fn want(
    cloud: &Cloud,
    tenant: &str,
    device: &EnrolledDevice,
    profile: &str,
    lost: bool,
) -> Result<(CertificateRequest, bool), HandInError> {
    let now_ms = cloud.now_ms();
    let assigned = super::assignments(cloud, tenant, device).await?;
    let found = assigned.into_iter().find(|it| it.profile.id == profile && device.wiped_ms.is_none());
    let it = found.ok_or_else(|| missing("profile", profile))?;
    if let Some(request) = it.request.as_ref().filter(|request| request.open) {
        return Ok((request.clone(), false));
    }
    let in_use = it.certificate.as_ref().filter(|certificate| certificate.installed_ms.is_some());
    if in_use.is_some() && !lost {
        return Err(HandInError::NothingDue);
    }
    if let Some(failed) = it.request.as_ref().filter(|request| request.stage == stages::FAILED) {
        let until_ms = failed.retry_ms.unwrap_or(now_ms);
        if until_ms > now_ms {
            let secs = (until_ms - now_ms).unsigned_abs().div_ceil(1_000);
            return Err(HandInError::TooSoon { secs });
        }
    }
    let new = NewRequest {
        device: device.id.clone(),
        user: device.user.clone(),
        profile: it.profile.id.clone(),
        version: it.profile.version,
        reason: if in_use.is_some() { reasons::REPLACE } else { reasons::ENROL },
        renews: in_use.map(|certificate| certificate.sha256.clone()),
        planned: false,
        device_key: None,
        detail: "the device asks for it".to_owned(),
    };
    let (request, is_new) = cloud.store.open_request(tenant, new, now_ms).await?;
    if is_new {
        request_changed(cloud, tenant, &request);
    }
    Ok((request, is_new))
}

/// Begins the renewal of a certificate because a person wants it.
///
/// # Errors
/// See [`HandInError`].
pub(crate) async fn renew(
    cloud: &Arc<Cloud>,
    tenant: &str,
    certificate: DeviceCertificate,
    actor: &str,
) -> Result<CertificateRequest, HandInError> {
    let gone = || missing("device", &certificate.device);
    let device = cloud.store.enrolled_device(tenant, &certificate.device).await?;
    let device = device.filter(|device| device.wiped_ms.is_none()).ok_or_else(gone)?;
    let row = cloud.store.certificate_profile(tenant, &certificate.profile).await?;
    let row = row.ok_or_else(|| missing("profile", &certificate.profile))?;
    if certificate.replaced_by.is_some() || certificate.revocation.is_some() {
        let detail =
            "this certificate is not in use any more; look at the one that took its place".to_owned();
        return Err(HandInError::OutOfOrder { code: "not_in_use", detail });
    }
    let device_key = match row.profile.key_mode {
        KeyMode::Agent => cloud.store.last_device_key(tenant, &device.id, &row.profile.id).await?,
        KeyMode::Device => None,
    };
    let new = NewRequest {
        device: device.id,
        user: device.user,
        profile: row.profile.id,
        version: row.profile.version,
        reason: reasons::RENEW,
        renews: Some(certificate.sha256),
        planned: false,
        device_key,
        detail: format!("ordered by {actor}"),
    };
    let (request, is_new) = cloud.store.open_request(tenant, new, cloud.now_ms()).await?;
    if is_new {
        request_changed(cloud, tenant, &request);
        // An identity made by an agent needs nothing of the device.
        cloud.certificates.touch(tenant);
    }
    Ok(request)
}

/// Whether a request has failed for its challenge alone, so that it makes sense to try another one at once. Only once: an
/// authority that refuses the next one too refuses something else.
pub(super) fn wants_new_challenge(error: &ErrorReport) -> bool {
    ["ca_challenge_refused", SEALED_ELSEWHERE].contains(&error.code.as_str())
}

/// Unix milliseconds from which a request may follow one that failed: soon after the first failure, then ever later.
pub(super) fn retry_ms(attempt: u32, ended_ms: i64) -> i64 {
    let pause = CERTIFICATE_RETRY_MIN.saturating_mul(1 << attempt.saturating_sub(1).min(16));
    let pause = pause.min(CERTIFICATE_RETRY_MAX);
    ended_ms.saturating_add(i64::try_from(pause.as_millis()).unwrap_or(i64::MAX))
}

/// Fetches a challenge for a request, just in time: the answer is the device's and is kept nowhere. What is kept is how the
/// signing request is to be protected that will hold it.
///
/// # Errors
/// See [`HandInError`].
pub(crate) async fn challenge(
    cloud: &Cloud,
    tenant: &str,
    device: &EnrolledDevice,
    id: &str,
) -> Result<ChallengeAnswer, HandInError> {
    let (request, row) = of_device(cloud, tenant, device, id).await?;
    if !matches!(request.stage.as_str(), stages::WANTED | stages::CHALLENGED) {
        return Err(out_of_order(&request));
    }
    if row.profile.key_mode != KeyMode::Device {
        let detail = "keys of this profile are made by the agent; hand in the device's public key".to_owned();
        return Err(HandInError::OutOfOrder { code: "no_challenge", detail });
    }
    let ask = ChallengeAsk {
        request: request.id.clone(),
        profile: row.profile.id.clone(),
        version: row.profile.version,
        variables: variables(cloud, tenant, device).await?,
    };
    let body = Secret::new(json!(ask).to_string());
    let answer = dispatch::request(cloud, tenant, (MODULE, "challenge"), body, CHALLENGE_WITHIN).await;
    let (agent, answer) = answer.map_err(|error| HandInError::Refused { error })?;
    let nonsense = |detail: &str| HandInError::Refused {
        error: ErrorReport::new("internal", detail, "Look at the agent's log"),
    };
    let mut answer: ChallengeAnswer = serde_json::from_value(answer).map_err(|_| {
        // The words of the parser might quote the challenge.
        nonsense("the agent answered something else than a challenge")
    })?;
    let seal = answer.seal.take().map(|seal| (seal, agent));
    if answer.challenge.is_some() && seal.is_none() {
        return Err(nonsense("the agent does not say how to protect the challenge; update it"));
    }
    let life_ms = answer.ttl_ms.min(u64::try_from(CHALLENGE_LIFE_MAX.as_millis()).unwrap_or(u64::MAX));
    let now_ms = cloud.now_ms();
    let until_ms = now_ms.saturating_add(i64::try_from(life_ms).unwrap_or(i64::MAX));
    let noted = cloud.store.note_challenge(tenant, id, seal, until_ms, row.profile.version, now_ms).await?;
    if !noted {
        return Err(out_of_order(&request));
    }
    announce(cloud, tenant, id).await?;
    Ok(answer)
}

/// Takes what a device hands in, and gives the order. The same again is answered the same way.
///
/// # Errors
/// See [`HandInError`].
pub(crate) async fn hand_in(
    cloud: &Arc<Cloud>,
    tenant: &str,
    device: &EnrolledDevice,
    id: &str,
    handover: Handover,
) -> Result<CertificateRequest, HandInError> {
    let (request, parts, row) = of_device_with_parts(cloud, tenant, device, id).await?;
    let malformed = |detail: String| HandInError::Malformed { detail };
    let mut seal = None;
    let handed = match (handover, row.profile.key_mode) {
        (Handover::Csr(der), KeyMode::Device) => {
            let key = reading::key_of_csr(&der).map_err(malformed)?;
            let sha256 = reading::hex(digest::digest(&digest::SHA256, &der).as_ref());
            seal = parts.seal;
            let body = match &seal {
                Some((seal, _)) => sealed(&der, seal).map_err(|detail| {
                    let error = ErrorReport::new("internal", detail, "Look at the agent's log");
                    HandInError::Refused { error }
                })?,
                None => der,
            };
            HandedIn::Csr { body, seal: seal.as_ref().map(|(seal, _)| seal.clone()), sha256, key }
        }
        (Handover::DeviceKey(der), KeyMode::Agent) => {
            reading::check_public_key(&der).map_err(malformed)?;
            HandedIn::DeviceKey(der)
        }
        (_, mode) => {
            let detail = match mode {
                KeyMode::Device => "this profile wants a signing request",
                KeyMode::Agent => {
                    "keys of this profile are made by the agent; hand in the device's public key"
                }
            };
            return Err(HandInError::OutOfOrder { code: "other_key_mode", detail: detail.to_owned() });
        }
    };
    let parts = match &handed {
        HandedIn::Csr { body, .. } => {
            RequestParts { csr: Some(body.clone()), seal, ..RequestParts::default() }
        }
        HandedIn::DeviceKey(key) => RequestParts { device_key: Some(key.clone()), ..RequestParts::default() },
    };
    // A challenge was given for one version of the profile; a key is good for any.
    let version = if parts.csr.is_some() { request.version } else { row.profile.version };
    let ordered = CertificateRequest { version, ..request.clone() };
    let new = order_of(cloud, tenant, device, &ordered, parts, &row.profile.authority).await?;
    let (draft, to_record) = Draft::new(cloud, tenant, new).await?;
    let now_ms = cloud.now_ms();
    let (taken, inserted) = cloud.store.hand_in(tenant, id, handed, version, to_record, now_ms).await?;
    if let Some(inserted) = inserted {
        known_before(draft.recorded(inserted))?;
    }
    match taken {
        TakenIn::New => announce(cloud, tenant, id).await?,
        TakenIn::Same => {}
        TakenIn::Other => {
            let detail = "something else was handed in for this request before".to_owned();
            return Err(HandInError::OutOfOrder { code: "handed_in", detail });
        }
        TakenIn::NoChallenge => {
            let detail = "there is no challenge for this request, or its time is over; ask for another one";
            return Err(HandInError::OutOfOrder { code: "challenge_expired", detail: detail.to_owned() });
        }
        TakenIn::NotNow => return Err(out_of_order(&request)),
    }
    let (request, _) = of_device(cloud, tenant, device, id).await?;
    if request.action.is_none() && request.stage == stages::ORDERED {
        order(cloud, tenant, &request).await?;
    }
    Ok(request)
}

/// Gives the order of a request to dispatch. Repeating it gives the same order.
///
/// # Errors
/// See [`HandInError`].
pub(super) async fn order(
    cloud: &Arc<Cloud>,
    tenant: &str,
    request: &CertificateRequest,
) -> Result<(), HandInError> {
    let device = cloud.store.enrolled_device(tenant, &request.device).await?;
    let device = device.ok_or_else(|| missing("device", &request.device))?;
    let parts = cloud.store.request_parts(tenant, &request.id).await?;
    let row = cloud.store.certificate_profile(tenant, &request.profile).await?;
    let authority = row.ok_or_else(|| missing("profile", &request.profile))?.profile.authority;
    let order = order_of(cloud, tenant, &device, request, parts, &authority).await?;
    let action = known_before(dispatch::submit(cloud, tenant, order).await)?;
    cloud.store.request_ordered(tenant, &request.id, &action, cloud.now_ms()).await?;
    Ok(())
}

/// The order that a request leads to.
async fn order_of(
    cloud: &Cloud,
    tenant: &str,
    device: &EnrolledDevice,
    request: &CertificateRequest,
    parts: RequestParts,
    authority: &str,
) -> Result<NewAction, HandInError> {
    let base64 = |bytes: Vec<u8>| STANDARD.encode(bytes);
    let (csr, sealed_csr, agent) = match (parts.csr.map(base64), parts.seal) {
        (Some(envelope), Some((seal, agent))) => {
            (None, Some(SealedCsr { envelope, proof: seal.proof }), Some(agent))
        }
        (csr, _) => (csr, None, None),
    };
    let order = IssueOrder {
        request: request.id.clone(),
        profile: request.profile.clone(),
        version: request.version,
        variables: variables(cloud, tenant, device).await?,
        csr,
        sealed_csr,
        device_key: parts.device_key.map(base64),
        renews: match &request.renews {
            Some(sha256) => cloud.store.certificate(tenant, sha256, cloud.now_ms()).await?.map(id_of),
            None => None,
        },
    };
    Ok(NewAction {
        module: MODULE.to_owned(),
        action: ISSUE.to_owned(),
        target: order_target(request, authority, agent),
        params: json!(order),
        idempotency_key: Some(format!("certificate/{}", request.id)),
        ttl_ms: u64::try_from(CERTIFICATE_ORDER_TTL.as_millis()).unwrap_or(u64::MAX),
        actor: "certificates".to_owned(),
        reason: format!("{} for {}", request.reason, request.user),
    })
}

/// What an order is about and the authority it goes to, which the profile may no longer say when the certificate comes;
/// with the agent it is for, where only that one can carry it out.
fn order_target(request: &CertificateRequest, authority: &str, agent: Option<String>) -> Value {
    let mut target = json!({
        "request": request.id, "device": request.device, "user": request.user, "authority": authority,
    });
    if let Some(agent) = agent {
        target["agent"] = json!(agent);
    }
    target
}

/// The agent that alone can carry an order out, when there is one: the signing request is sealed to it.
pub(crate) fn meant_for(action: &ActionRow) -> Option<&str> {
    let orders = action.module == MODULE && action.action == ISSUE;
    action.target.get("agent").filter(|_| orders)?.as_str()
}

/// Why an order ends whose agent is gone before it had the order.
pub(crate) fn sealed_elsewhere(agent: &str) -> ErrorReport {
    let detail = format!("the agent {agent}, to which the signing request is sealed, has gone meanwhile");
    ErrorReport::new(SEALED_ELSEWHERE, detail, "Nothing: the device begins anew with another challenge")
}

/// A signing request encrypted to the agent that fetched the challenge in it.
fn sealed(csr: &[u8], to: &SealTo) -> Result<Vec<u8>, &'static str> {
    const WRONG: &str = "the agent's key to protect the challenge with is none";
    let key = STANDARD.decode(&to.key).map_err(|_| WRONG)?;
    let key = PublicKey::read(&key).map_err(|_| WRONG)?;
    let mut random = [0; 48];
    aws_lc_rs::rand::fill(&mut random).map_err(|_| "the system gives no random numbers")?;
    let (cipher, transport) = (ContentCipher::Aes256, KeyTransport::Oaep(Digest::Sha256));
    cms::seal(csr, Recipient::Key(&key), cipher, transport, &SealRandom::new(random)).map_err(|_| WRONG)
}

/// Orders the revocation of a certificate; gives the action.
///
/// # Errors
/// See [`HandInError`].
pub(super) async fn order_revocation(
    cloud: &Arc<Cloud>,
    tenant: &str,
    certificate: &DeviceCertificate,
) -> Result<String, HandInError> {
    let Some(revocation) = &certificate.revocation else { return Err(HandInError::NothingDue) };
    let new = NewAction {
        module: MODULE.to_owned(),
        action: REVOKE.to_owned(),
        target: json!({ "certificate": certificate.sha256, "user": certificate.user }),
        params: json!({
            "authority": certificate.authority,
            "id": { "issuer": certificate.issuer, "serial": certificate.serial },
            "reason": revocation.reason,
        }),
        idempotency_key: Some(format!("revoke/{}/{}", certificate.sha256, revocation.tries)),
        ttl_ms: u64::try_from(REVOCATION_ORDER_TTL.as_millis()).unwrap_or(u64::MAX),
        actor: "certificates".to_owned(),
        reason: String::new(),
    };
    known_before(dispatch::submit(cloud, tenant, new).await)
}

/// The action that an order has, given now or before a crash; what is known of the person may have changed since.
fn known_before(given: Result<String, DispatchError>) -> Result<String, HandInError> {
    match given {
        Ok(id) | Err(DispatchError::KeyReused { id }) => Ok(id),
        Err(error) => Err(HandInError::Dispatch(error)),
    }
}

fn id_of(certificate: DeviceCertificate) -> CertificateId {
    CertificateId { issuer: certificate.issuer, serial: certificate.serial }
}

/// A request of this device and its profile as it is now.
async fn of_device(
    cloud: &Cloud,
    tenant: &str,
    device: &EnrolledDevice,
    id: &str,
) -> Result<(CertificateRequest, ProfileRow), HandInError> {
    let (request, _, row) = of_device_with_parts(cloud, tenant, device, id).await?;
    Ok((request, row))
}

async fn of_device_with_parts(
    cloud: &Cloud,
    tenant: &str,
    device: &EnrolledDevice,
    id: &str,
) -> Result<(CertificateRequest, RequestParts, ProfileRow), HandInError> {
    let found = cloud.store.request_with_profile(tenant, id).await?;
    let own = found.filter(|(request, ..)| request.device == device.id);
    let (request, parts, row) = own.ok_or_else(|| missing("request", id))?;
    let row = row.ok_or_else(|| missing("profile", &request.profile))?;
    Ok((request, parts, row))
}

async fn announce(cloud: &Cloud, tenant: &str, id: &str) -> Result<(), StoreError> {
    if let Some((request, _)) = cloud.store.certificate_request(tenant, id).await? {
        request_changed(cloud, tenant, &request);
    }
    Ok(())
}

fn out_of_order(request: &CertificateRequest) -> HandInError {
    let detail = format!("the request is {}", request.stage.replace('_', " "));
    HandInError::OutOfOrder { code: "not_now", detail }
}

/// What the cloud knows for the variables of a profile; the rest the agent looks up in the directory.
async fn variables(
    cloud: &Cloud,
    tenant: &str,
    device: &EnrolledDevice,
) -> Result<BTreeMap<String, String>, StoreError> {
    let person = person(cloud, tenant, &device.user).await?;
    let mut variables = BTreeMap::new();
    let mut set = |name: &str, value: Option<&str>| {
        if let Some(value) = value.map(str::trim).filter(|value| !value.is_empty()) {
            variables.insert(name.to_owned(), value.to_owned());
        }
    };
    set("udid", device.udid.as_deref());
    set("csn", device.serial.as_deref());
    set("imei", device.imei.as_deref());
    set("model", device.model.as_deref());
    set("sim", device.sim.as_deref());
    set("phnumber", device.phone_number.as_deref());
    let typed = device.user.trim();
    let name = typed.rsplit('\\').next().unwrap_or(typed);
    set("uname", Some(name.split('@').next().unwrap_or(name)));
    set("domain", typed.split_once('\\').map(|(domain, _)| domain));
    set("domain", name.split_once('@').map(|(_, domain)| domain));
    set("email", Some(name).filter(|name| name.contains('@')));
    if let Some(person) = &person {
        set("uname", Some(&person.login));
        set("email", person.mail.as_deref());
        set("upn", person.upn.as_deref());
        set("domain", person.upn.as_deref().and_then(|upn| Some(upn.split_once('@')?.1)));
        set("cn", person.display_name.as_deref());
        set("givenname", person.given_name.as_deref());
        set("surname", person.surname.as_deref());
        set("dn", Some(&person.dn));
    }
    Ok(variables)
}

/// The person in the directory, when exactly one is meant.
async fn person(cloud: &Cloud, tenant: &str, user: &str) -> Result<Option<User>, StoreError> {
    let name = user.trim().rsplit('\\').next().unwrap_or_default();
    let q = name.split('@').next().unwrap_or_default().to_owned();
    if q.is_empty() {
        return Ok(None);
    }
    let search = Search { q: Some(q), limit: PORTAL_PAGE, ..Search::default() };
    let found = cloud.store.users(tenant, search).await?.items;
    let is_meant = |person: &&User| {
        let names = [Some(person.login.as_str()), person.upn.as_deref(), person.mail.as_deref()];
        names.into_iter().flatten().any(|known| same_person(known, user))
    };
    let mut meant = found.iter().filter(is_meant);
    Ok(match (meant.next(), meant.next()) {
        (Some(person), None) => Some(person.clone()),
        _ => None,
    })
}

/// The parameters of an order as it stands in an action, for what came after the action had ended.
pub(super) fn request_in(params: &Value) -> Option<&str> {
    params.get("request").and_then(Value::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_limit() {
        let pauses: Vec<i64> = [1, 2, 3, 10, 11, 40].map(|attempt| retry_ms(attempt, 0) / 1_000).to_vec();
        assert_eq!(pauses, [30, 60, 120, 15_360, 21_600, 21_600]);
    }
}
