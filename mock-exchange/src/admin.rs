//! The admin API: what all mocks have, and the routes only an Exchange organisation needs.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use causeway_mock_kit::KitContext;
use causeway_mock_kit::admin::{AdminError, AdminWorld, Json, Path, Query};
use causeway_protocol::Chain;
use causeway_protocol::cmdlet::{Cmdlet, ErrorRecord};
use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::cmdlets::{self, Caller, Output, Via};
use crate::config::{Config, DefaultAccess, DomainController, Replication, RoleConfig};
use crate::limits::RESULT_SIZE_DEFAULT;
use crate::phone::{self, Phones};
use crate::rest::parameter;
use crate::server::Shared;
use crate::world::{
    Account, AuditEntry, Autoblock, BudgetView, DeviceView, MailboxView, Organisation, Reader, Role,
    SignInError, ThrottlingPolicy, guid_text, parse_guid,
};

/// Objects one call lists when nobody says how many.
const LISTED: usize = 100;

/// Role of whoever uses this API: whoever reaches it owns the mock.
const ALL_RIGHTS: &str = "Organization Management";

/// The world a `PUT /world` describes; absent fields stay as they are.
#[derive(Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
struct WorldDocument {
    personality: Option<String>,
    domain: Option<String>,
    seed: Option<u64>,
    users: Option<usize>,
    partnerships: Option<usize>,
    default_access: Option<DefaultAccess>,
    discovery_minutes: Option<u32>,
    domain_controllers: Option<Vec<DomainController>>,
    servers: Option<Vec<String>>,
    throttling: Option<ThrottlingPolicy>,
    service_roles: Option<Vec<String>>,
    roles: Option<Vec<RoleConfig>>,
}

/// Which phones to list.
#[derive(Deserialize, IntoParams, Default)]
#[serde(default, deny_unknown_fields)]
struct DeviceQuery {
    /// Login, UPN or address of their owner.
    mailbox: Option<String>,
    /// `allowed`, `blocked`, `quarantined` or `device_discovery`.
    state: Option<String>,
    /// At most so many.
    limit: Option<usize>,
}

/// What can be changed about a mailbox and its owner from outside; absent fields stay as they are.
#[derive(Serialize, Deserialize, ToSchema, Default)]
#[serde(default, deny_unknown_fields)]
struct MailboxChange {
    #[serde(skip_serializing)]
    password: Option<String>,
    active_sync_enabled: Option<bool>,
    /// Refuses every sign-in in this way; `"none"` admits again.
    refuse: Option<RefuseWord>,
    /// URL of the server the mailbox has moved to; empty brings it back.
    moved_to: Option<String>,
}

/// `none`, or how to refuse.
#[derive(Serialize, Deserialize, ToSchema, Clone, Copy)]
#[serde(rename_all = "snake_case")]
enum RefuseWord {
    None,
    Disabled,
    Expired,
    PasswordExpired,
    MustChange,
    HoursDenied,
    LockedOut,
}

impl RefuseWord {
    fn error(self) -> Option<SignInError> {
        match self {
            Self::None => None,
            Self::Disabled => Some(SignInError::Disabled),
            Self::Expired => Some(SignInError::Expired),
            Self::PasswordExpired => Some(SignInError::PasswordExpired),
            Self::MustChange => Some(SignInError::MustChange),
            Self::HoursDenied => Some(SignInError::HoursDenied),
            Self::LockedOut => Some(SignInError::LockedOut),
        }
    }
}

/// A message to deliver.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewMail {
    #[serde(default)]
    from: Option<String>,
    subject: String,
    #[serde(default)]
    body: String,
}

/// A block the server puts on a phone by itself.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewAutoblock {
    /// A reason of Exchange, for example `SyncCommands`.
    reason: String,
    /// Minutes of the mock's clock; 0 lifts it.
    minutes: u32,
}

/// The lag of one domain controller.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Lag {
    /// Milliseconds of the mock's clock after which a change made elsewhere arrives; absent: only when told.
    #[serde(default)]
    lag_ms: Option<u64>,
}

/// Roles of an account.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Roles {
    roles: Vec<String>,
}

/// A certificate whose key the application signs with.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewCertificate {
    pem: String,
}

/// A cmdlet to run with all rights and without a budget's delay.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewCmdlet {
    name: String,
    /// By name; hashtables as `{"@odata.type": "#Exchange.GenericHashTable", "add": ...}`.
    #[serde(default)]
    #[schema(value_type = Object)]
    parameters: serde_json::Map<String, Value>,
}

pub(crate) fn router(cx: KitContext, shared: Arc<Shared>, phones: Arc<Phones>) -> Router {
    let extra = OpenApiRouter::new()
        .routes(routes!(list_devices))
        .routes(routes!(read_device))
        .routes(routes!(autoblock))
        .routes(routes!(read_mailbox, change_mailbox))
        .routes(routes!(deliver))
        .routes(routes!(read_throttling, write_throttling))
        .routes(routes!(read_budgets))
        .routes(routes!(read_audit))
        .routes(routes!(replicate))
        .routes(routes!(set_lag))
        .routes(routes!(set_roles))
        .routes(routes!(put_role))
        .routes(routes!(list_certificates, add_certificate))
        .routes(routes!(remove_certificate))
        .routes(routes!(revoke_tokens))
        .routes(routes!(run_cmdlet))
        .with_state(Arc::clone(&shared))
        .merge(phone::routes(Arc::clone(&phones)));
    causeway_mock_kit::admin::router(cx, Arc::new(Adapter(shared, phones)), extra)
}

/// Phones, in the order they came.
#[utoipa::path(get, path = "/world/devices", params(DeviceQuery), responses((status = 200, body = Value)))]
async fn list_devices(
    State(shared): State<Arc<Shared>>,
    Query(query): Query<DeviceQuery>,
) -> Result<Json<Value>, AdminError> {
    let organisation = shared.organisation();
    let mailbox = query.mailbox.as_deref().map(|name| mailbox_id(&organisation, name)).transpose()?;
    let limit = query.limit.unwrap_or(LISTED);
    let devices: Vec<Value> = organisation.read(None, |reader| {
        (0..reader.device_slots())
            .filter_map(|position| reader.device_at(position))
            .filter(|view| mailbox.is_none_or(|mailbox| view.device.mailbox == mailbox))
            .map(|view| device_document(reader, &view))
            .filter(|document| query.state.as_deref().is_none_or(|state| document["state"] == state))
            .take(limit)
            .collect()
    });
    Ok(Json(json!({ "devices": devices })))
}

/// One phone.
#[utoipa::path(get, path = "/world/devices/{guid}", responses((status = 200, body = Value)))]
async fn read_device(
    State(shared): State<Arc<Shared>>,
    Path(guid): Path<String>,
) -> Result<Json<Value>, AdminError> {
    let found = shared.organisation().read(None, |reader| {
        let view = reader.device_by_guid(&parse_guid(&guid)?)?;
        Some(device_document(reader, &view))
    });
    found.map(Json).ok_or_else(|| AdminError::not_found(format!("there is no phone {guid:?}")))
}

/// Blocks a phone for a while as the server does by itself, or lifts that.
#[utoipa::path(
    post, path = "/world/devices/{guid}/autoblock", request_body = NewAutoblock, responses((status = 200, body = Value))
)]
async fn autoblock(
    State(shared): State<Arc<Shared>>,
    Path(guid): Path<String>,
    Json(block): Json<NewAutoblock>,
) -> Result<Json<Value>, AdminError> {
    let reason = crate::world::AccessReason::named(&block.reason).ok_or_else(|| {
        AdminError::invalid("/reason", format!("{:?} is no reason of Exchange", block.reason))
    })?;
    let organisation = shared.organisation();
    let id = parse_guid(&guid)
        .and_then(|guid| organisation.read(None, |reader| reader.device_by_guid(&guid).map(|view| view.id)));
    let id = id.ok_or_else(|| AdminError::not_found(format!("there is no phone {guid:?}")))?;
    let until_ms = shared.cx.clock.now_ms() + i64::from(block.minutes) * 60_000;
    organisation.write(None, |writer| {
        writer.set_autoblock(id, (block.minutes > 0).then_some(Autoblock { reason, until_ms }))
    });
    read_device(State(shared), Path(guid)).await
}

/// A mailbox with its phones.
#[utoipa::path(get, path = "/world/mailboxes/{user}", responses((status = 200, body = Value)))]
async fn read_mailbox(
    State(shared): State<Arc<Shared>>,
    Path(user): Path<String>,
) -> Result<Json<Value>, AdminError> {
    let organisation = shared.organisation();
    let id = mailbox_id(&organisation, &user)?;
    let document =
        organisation.read(None, |reader| reader.mailbox(id).map(|view| mailbox_document(reader, &view)));
    document.map(Json).ok_or_else(|| no_mailbox(&user))
}

/// Changes a mailbox or its owner's account.
#[utoipa::path(
    put, path = "/world/mailboxes/{user}", request_body = MailboxChange, responses((status = 200, body = Value))
)]
async fn change_mailbox(
    State(shared): State<Arc<Shared>>,
    Path(user): Path<String>,
    Json(change): Json<MailboxChange>,
) -> Result<Json<Value>, AdminError> {
    let organisation = shared.organisation();
    let id = mailbox_id(&organisation, &user)?;
    if let Some(password) = &change.password {
        organisation.set_password(&user, password);
    }
    if let Some(refuse) = change.refuse {
        organisation.set_refused(&user, refuse.error());
    }
    organisation.write(None, |writer| {
        if let Some(enabled) = change.active_sync_enabled {
            writer.change_cas(id, |cas| cas.active_sync_enabled = enabled);
        }
        if let Some(url) = &change.moved_to {
            writer.move_mailbox(id, Some(url.as_str()).filter(|url| !url.is_empty()));
        }
    });
    read_mailbox(State(shared), Path(user)).await
}

/// Delivers a message to an inbox.
#[utoipa::path(
    post, path = "/world/mailboxes/{user}/mail", request_body = NewMail, responses((status = 200, body = Value))
)]
async fn deliver(
    State(shared): State<Arc<Shared>>,
    Path(user): Path<String>,
    Json(mail): Json<NewMail>,
) -> Result<Json<Value>, AdminError> {
    let organisation = shared.organisation();
    let id = mailbox_id(&organisation, &user)?;
    let from = mail.from.unwrap_or_else(|| format!("postmaster@{}", organisation.facts().domain));
    match organisation.deliver(id, &from, &mail.subject, &mail.body) {
        Some(message) => Ok(Json(json!({ "id": message }))),
        None => Err(AdminError::conflict("the mailbox is full")),
    }
}

/// The throttling policy in force.
#[utoipa::path(get, path = "/world/throttling", responses((status = 200, body = ThrottlingPolicy)))]
async fn read_throttling(State(shared): State<Arc<Shared>>) -> Json<ThrottlingPolicy> {
    Json(shared.organisation().throttling())
}

/// Puts another throttling policy in force; balances stay.
#[utoipa::path(
    put, path = "/world/throttling", request_body = ThrottlingPolicy, responses((status = 200, body = ThrottlingPolicy))
)]
async fn write_throttling(
    State(shared): State<Arc<Shared>>,
    Json(policy): Json<ThrottlingPolicy>,
) -> Json<ThrottlingPolicy> {
    shared.organisation().set_throttling(policy.clone());
    Json(policy)
}

/// What each account has used, and whether it is locked.
#[utoipa::path(get, path = "/world/budgets", responses((status = 200, body = Vec<BudgetView>)))]
async fn read_budgets(State(shared): State<Arc<Shared>>) -> Json<Vec<BudgetView>> {
    Json(shared.organisation().budgets())
}

/// Who changed what, oldest first.
#[utoipa::path(get, path = "/world/audit", responses((status = 200, body = Vec<AuditEntry>)))]
async fn read_audit(State(shared): State<Arc<Shared>>) -> Json<Vec<AuditEntry>> {
    Json(shared.organisation().audit_log())
}

/// Delivers every change to every domain controller now.
#[utoipa::path(post, path = "/world/replicate", responses((status = 200, body = Value)))]
async fn replicate(State(shared): State<Arc<Shared>>) -> Json<Value> {
    let organisation = shared.organisation();
    organisation.replicate();
    Json(json!({ "domain_controllers": organisation.controllers() }))
}

/// Sets how long changes take to reach a domain controller.
#[utoipa::path(
    put, path = "/world/controllers/{name}/lag", request_body = Lag, responses((status = 200, body = Lag))
)]
async fn set_lag(
    State(shared): State<Arc<Shared>>,
    Path(name): Path<String>,
    Json(lag): Json<Lag>,
) -> Result<Json<Lag>, AdminError> {
    let replication = lag.lag_ms.map_or(Replication::Manual, Replication::LagMs);
    let known = shared.organisation().set_replication(&name, replication);
    known
        .then_some(Json(lag))
        .ok_or_else(|| AdminError::not_found(format!("there is no domain controller {name:?}")))
}

/// Gives an account that is not a person's other roles; open sessions see it at once.
#[utoipa::path(
    put, path = "/world/accounts/{login}/roles", request_body = Roles, responses((status = 200, body = Roles))
)]
async fn set_roles(
    State(shared): State<Arc<Shared>>,
    Path(login): Path<String>,
    Json(roles): Json<Roles>,
) -> Result<Json<Roles>, AdminError> {
    let known = shared.organisation().set_roles(&login, roles.roles.clone());
    known
        .then_some(Json(roles))
        .ok_or_else(|| AdminError::not_found(format!("there is no account {login:?}")))
}

/// Adds a role, or replaces the one of its name.
#[utoipa::path(post, path = "/world/roles", request_body = RoleConfig, responses((status = 200, body = RoleConfig)))]
async fn put_role(State(shared): State<Arc<Shared>>, Json(role): Json<RoleConfig>) -> Json<RoleConfig> {
    shared.organisation().put_role(Role::new(&role.name, &role.grants));
    Json(role)
}

/// Thumbprints of the certificates registered for the application.
#[utoipa::path(get, path = "/world/app/certificates", responses((status = 200, body = Value)))]
async fn list_certificates(State(shared): State<Arc<Shared>>) -> Json<Value> {
    Json(json!({ "certificates": shared.rest.thumbprints() }))
}

/// Registers a certificate for the application.
#[utoipa::path(
    post, path = "/world/app/certificates", request_body = NewCertificate, responses((status = 200, body = Value))
)]
async fn add_certificate(
    State(shared): State<Arc<Shared>>,
    Json(certificate): Json<NewCertificate>,
) -> Result<Json<Value>, AdminError> {
    match shared.rest.register(&certificate.pem) {
        Ok(thumbprint) => Ok(Json(json!({ "thumbprint": thumbprint }))),
        Err(error) => Err(AdminError::invalid("/pem", error.to_string())),
    }
}

/// Takes a certificate away from the application; tokens it has stay good.
#[utoipa::path(delete, path = "/world/app/certificates/{thumbprint}", responses((status = 200, body = Value)))]
async fn remove_certificate(
    State(shared): State<Arc<Shared>>,
    Path(thumbprint): Path<String>,
) -> Result<Json<Value>, AdminError> {
    match shared.rest.unregister(&thumbprint) {
        true => Ok(Json(json!({ "certificates": shared.rest.thumbprints() }))),
        false => Err(AdminError::not_found(format!("there is no certificate {thumbprint:?}"))),
    }
}

/// Makes every access token worthless.
#[utoipa::path(post, path = "/world/app/revoke-tokens", responses((status = 200, body = Value)))]
async fn revoke_tokens(State(shared): State<Arc<Shared>>) -> Json<Value> {
    shared.rest.forget();
    Json(json!({}))
}

/// Runs a cmdlet as an administrator with all rights.
#[utoipa::path(post, path = "/world/cmdlets", request_body = NewCmdlet, responses((status = 200, body = Value)))]
async fn run_cmdlet(
    State(shared): State<Arc<Shared>>,
    Json(new): Json<NewCmdlet>,
) -> Result<Json<Value>, AdminError> {
    let mut cmdlet = Cmdlet::new(&new.name);
    for (name, value) in &new.parameters {
        let value = parameter(value).ok_or_else(|| {
            AdminError::invalid(format!("/parameters/{name}"), "a parameter cannot be this object")
        })?;
        cmdlet.parameters.push((name.clone(), value));
    }
    let account =
        Account { login: "admin-api".to_owned(), mailbox: None, roles: vec![ALL_RIGHTS.to_owned()] };
    let organisation = shared.organisation();
    let mut running = cmdlets::run(&organisation, &Caller { account, via: Via::Remoting }, &cmdlet);
    if running.question().is_some() {
        running.answer(true);
    }
    let (mut objects, mut warnings, mut errors) = (Vec::new(), Vec::new(), Vec::new());
    for output in running {
        match output {
            Output::Object(_) if objects.len() >= RESULT_SIZE_DEFAULT => break,
            Output::Object(object) => objects.push(crate::rest::object(&object)),
            Output::Warning(text) => warnings.push(text),
            Output::Error(error) | Output::Failed(error) => errors.push(error_document(&error)),
        }
    }
    Ok(Json(json!({ "objects": objects, "warnings": warnings, "errors": errors })))
}

fn error_document(error: &ErrorRecord) -> Value {
    json!({ "reason": error.reason, "message": error.message, "id": error.fully_qualified_id, "target": error.target })
}

fn mailbox_id(organisation: &Organisation, user: &str) -> Result<crate::world::MailboxId, AdminError> {
    organisation.mailbox(user).ok_or_else(|| no_mailbox(user))
}

fn no_mailbox(user: &str) -> AdminError {
    AdminError::not_found(format!("there is no mailbox {user:?}"))
}

fn device_document(reader: &Reader<'_>, view: &DeviceView<'_>) -> Value {
    let (device, contact, information) = (view.device, view.contact, &view.device.information);
    let decision = reader.decide(view);
    let owner = reader.mailbox(device.mailbox);
    json!({
        "guid": guid_text(&device.guid),
        "mailbox": owner.map(|mailbox| &*mailbox.person.login),
        "address": owner.map(|mailbox| &*mailbox.person.mail),
        "device_id": &*device.id,
        "device_type": &*device.device_type,
        "model": information.model.as_deref(),
        "friendly_name": information.friendly_name.as_deref(),
        "os": information.os.as_deref(),
        "imei": information.imei.as_deref(),
        "user_agent": &*device.user_agent,
        "client_type": device.client,
        "version": device.version,
        "state": decision.state,
        "reason": decision.reason,
        "rule": decision.rule.as_deref(),
        "status": contact.status(),
        "wipe": contact.wipe,
        "policy": reader.applied_policy(contact).as_deref(),
        "policy_status": contact.application.name(),
        "first_sync_ms": device.first_sync_ms,
        "last_attempt_ms": contact.last_attempt_ms,
        "last_success_ms": contact.last_success_ms,
        "folders": contact.folders,
    })
}

fn mailbox_document(reader: &Reader<'_>, view: &MailboxView<'_>) -> Value {
    let (person, cas) = (view.person, view.cas);
    let devices: Vec<Value> =
        reader.devices_of(view.id).map(|device| device_document(reader, &device)).collect();
    json!({
        "login": person.login,
        "display_name": person.display_name,
        "address": person.mail,
        "guid": guid_text(&person.guid()),
        "database": view.database.name,
        "server": view.database.server,
        "active_sync_enabled": cas.active_sync_enabled,
        "allowed": cas.allowed,
        "blocked": cas.blocked,
        "policy": reader.policy_of(cas).map(|(_, policy)| policy.name.to_string()),
        "moved_to": view.moved_to,
        "devices": devices,
    })
}

struct Adapter(Arc<Shared>, Arc<Phones>);

impl AdminWorld for Adapter {
    fn world(&self) -> BoxFuture<'_, Value> {
        Box::pin(async { describe(&self.0) })
    }

    fn replace_world(&self, world: Value) -> BoxFuture<'_, Result<(), AdminError>> {
        Box::pin(async move {
            let document: WorldDocument =
                serde_json::from_value(world).map_err(|error| AdminError::invalid("", error.to_string()))?;
            self.0
                .replace(changed(self.0.config(), document))
                .map_err(|error| AdminError::invalid("", Chain(&error).to_string()))?;
            self.1.clear();
            Ok(())
        })
    }

    fn reset(&self) -> BoxFuture<'_, Result<(), AdminError>> {
        Box::pin(async {
            let config = self.0.config();
            self.1.clear();
            self.0.replace(config).map_err(|error| AdminError::Failed { detail: Chain(&error).to_string() })
        })
    }

    fn health(&self) -> Value {
        let organisation = self.0.organisation();
        let devices = organisation.read(None, |reader| reader.device_slots());
        json!({
            "personality": organisation.facts().profile.name,
            "mailboxes": organisation.company().people.len(),
            "devices": devices,
        })
    }
}

fn changed(mut config: Config, document: WorldDocument) -> Config {
    let common = &mut config.common;
    common.domain = document.domain.unwrap_or_else(|| common.domain.clone());
    common.seed = document.seed.unwrap_or(common.seed);
    common.users = document.users.unwrap_or(common.users);
    config.personality = document.personality.unwrap_or(config.personality);
    config.partnerships = document.partnerships.or(config.partnerships);
    config.default_access = document.default_access.unwrap_or(config.default_access);
    config.discovery_minutes = document.discovery_minutes.unwrap_or(config.discovery_minutes);
    config.domain_controllers = document.domain_controllers.unwrap_or(config.domain_controllers);
    config.servers = document.servers.unwrap_or(config.servers);
    config.throttling = document.throttling.unwrap_or(config.throttling);
    config.service_roles = document.service_roles.unwrap_or(config.service_roles);
    config.roles = document.roles.unwrap_or(config.roles);
    config
}

fn describe(shared: &Shared) -> Value {
    let (organisation, config) = (shared.organisation(), shared.config());
    let facts = organisation.facts();
    organisation.read(None, |reader| {
        let policies: Vec<Value> = reader
            .policies()
            .map(|(_, policy)| json!({ "name": &*policy.name, "is_default": policy.is_default, "revision": policy.revision }))
            .collect();
        let rules: Vec<Value> = reader
            .rules()
            .iter()
            .map(|rule| json!({ "name": &*rule.name, "level": rule.level }))
            .collect();
        json!({
            "personality": facts.profile.name,
            "domain": facts.domain,
            "seed": facts.seed,
            "users": config.common.users,
            "tenant": facts.tenant,
            "client_id": facts.client_id,
            "default_access": reader.settings().default_access,
            "devices": reader.device_slots(),
            "policies": policies,
            "rules": rules,
            "servers": organisation.servers(),
            "databases": organisation.databases().iter().map(|database| &*database.name).collect::<Vec<_>>(),
            "domain_controllers": organisation.controllers(),
            "throttling": organisation.throttling(),
            "accounts": reader.administrators().into_iter().map(|(login, roles)| json!({ "login": login, "roles": roles })).collect::<Vec<_>>(),
        })
    })
}
