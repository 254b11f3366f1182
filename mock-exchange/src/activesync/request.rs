//! From HTTP to a command, and back.

use std::sync::Arc;

use bytes::Bytes;
use causeway_mock_kit::fault::{Fault, Point};
use causeway_protocol::activesync::status::Status;
use causeway_protocol::activesync::{CONTENT_TYPE, Command, PATH, Query, Version, header};
use causeway_protocol::wbxml::{Element, Limits, decode, encode};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use serde_json::json;

use super::commands::{SUPPORTED, refusal_body};
use super::enforce::{Refusal, Said};
use super::http::{Closed, Outcome, basic, body, empty, unauthorized};
use super::limits::{BODY_MAX_BYTES, DEVICE_ID_MAX_CHARS, DEVICE_TYPE_MAX_CHARS};
use super::{ActiveSync, fault};
use crate::world::{Account, DeviceRequest, MailboxId, Organisation, PartnershipId, Verdict};

/// One command of one phone that may have it carried out.
pub(super) struct Asked {
    pub(super) organisation: Arc<Organisation>,
    pub(super) mailbox: MailboxId,
    pub(super) phone: PartnershipId,
    pub(super) version: Version,
    pub(super) command: Command,
    /// The document; `None` when the body is empty.
    pub(super) document: Option<Element>,
    /// The body as it came, for commands whose body is a message.
    pub(super) raw: Bytes,
    /// Address of the mailbox.
    pub(super) address: String,
}

/// What a command comes to.
#[derive(Debug)]
pub(super) enum Reply {
    Document(Element),
    /// HTTP 200 without a body.
    Nothing,
    Refused(Refusal),
    Http(StatusCode),
    /// The mailbox is elsewhere now (MS-ASHTTP 3.1.5.2.2).
    Moved(String),
}

/// What has been understood of a request before its command.
struct Arrived {
    query: Query,
    version: Version,
    policy_key: Option<u32>,
    user_agent: String,
    account: Account,
    mailbox: MailboxId,
}

impl ActiveSync {
    /// Answers one HTTP request.
    pub(super) async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Outcome {
        let (head, incoming) = request.into_parts();
        if !head.uri.path().trim_end_matches('/').eq_ignore_ascii_case(PATH) {
            return Ok(empty(StatusCode::NOT_FOUND));
        }
        let organisation = (self.organisation)();
        let Some(account) = self.sign_in(&organisation, &head.headers) else {
            return Ok(unauthorized(&organisation.facts().domain));
        };
        match head.method {
            Method::OPTIONS => self.options(&organisation, &account).await,
            Method::POST => {
                let raw = match body(incoming, BODY_MAX_BYTES).await {
                    Ok(raw) => raw,
                    Err(status) => return Ok(empty(status)),
                };
                self.post(organisation, account, head, raw).await
            }
            _ => Ok(empty(StatusCode::METHOD_NOT_ALLOWED)),
        }
    }

    /// Whoever the request proves to come from.
    fn sign_in(&self, organisation: &Organisation, headers: &HeaderMap) -> Option<Account> {
        let (user, password) = basic(headers)?;
        let account = organisation.sign_in(&user, &password);
        if let Err(error) = &account {
            self.cx.journal.record("activesync", "sign_in", &user, error.word(), serde_json::Value::Null);
        }
        account.ok()
    }

    /// What the server speaks (MS-ASHTTP 2.2.3).
    async fn options(&self, organisation: &Organisation, account: &Account) -> Outcome {
        let point = Point { front: "activesync", operation: "OPTIONS", subject: &account.login };
        if let Some(fault) = self.cx.faults.meet(&point).await
            && let Some(outcome) = fault::before(&fault, None, Version::V16_1)
        {
            return outcome;
        }
        let profile = organisation.facts().profile;
        let versions: Vec<String> = offered(organisation).map(|version| version.to_string()).collect();
        let commands: Vec<String> = SUPPORTED.iter().map(|command| command.name()).collect();
        let mut answer = empty(StatusCode::OK);
        let headers = [
            (header::SERVER, server_version(profile.admin_version).to_owned()),
            (header::PROTOCOL_VERSIONS, versions.join(",")),
            (header::PROTOCOL_COMMANDS, commands.join(",")),
            ("Allow", "OPTIONS,POST".to_owned()),
            ("Public", "OPTIONS,POST".to_owned()),
        ];
        for (name, value) in headers {
            put_header(&mut answer, name, &value);
        }
        self.cx.journal.record("activesync", "OPTIONS", &account.login, "200", serde_json::Value::Null);
        Ok(answer)
    }

    async fn post(
        &self,
        organisation: Arc<Organisation>,
        account: Account,
        head: http::request::Parts,
        raw: Bytes,
    ) -> Outcome {
        let Ok(query) = Query::parse(head.uri.query().unwrap_or_default()) else {
            return Ok(empty(StatusCode::BAD_REQUEST));
        };
        let version = match agreed(&organisation, &query, &head.headers) {
            Ok(version) => version,
            Err(status) => return Ok(empty(status)),
        };
        let Some(mailbox) = account.mailbox else {
            // An account without a mailbox; how Exchange says so is not verified.
            return Ok(empty(StatusCode::FORBIDDEN));
        };
        let text = |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok());
        let policy_key = query.policy_key.or_else(|| text(header::POLICY_KEY)?.trim().parse().ok());
        let user_agent = text("User-Agent").unwrap_or_default().to_owned();
        let arrived = Arrived { query, version, policy_key, user_agent, account, mailbox };

        let device_id = arrived.query.device_id.clone().unwrap_or_default();
        let name = arrived.query.command.map_or_else(|| arrived.query.command_name.clone(), Command::name);
        let subject = format!("{}/{device_id}", arrived.account.login);
        let point = Point { front: "activesync", operation: &name, subject: &subject };
        let met = self.cx.faults.meet(&point).await;
        if let Some(fault) = &met
            && let Some(outcome) = fault::before(fault, arrived.query.command, version)
        {
            self.cx.journal.record("activesync", &name, &subject, "fault", json!({ "fault": fault }));
            return outcome;
        }
        let (reply, detail) = self.carry_out(&organisation, &arrived, raw, met.as_ref()).await?;
        let answer = self.write(reply, arrived.query.command, version);
        self.cx.journal.record("activesync", &name, &subject, &answer.1, detail);
        match &met {
            Some(fault) => fault::after(fault, answer.0).await,
            None => Ok(answer.0),
        }
    }

    /// Checks, asks the organisation, and carries the command out.
    async fn carry_out(
        &self,
        organisation: &Arc<Organisation>,
        arrived: &Arrived,
        raw: Bytes,
        fault: Option<&Fault>,
    ) -> Result<(Reply, serde_json::Value), Closed> {
        let detail = json!({ "version": arrived.version.to_string() });
        let refused = |refusal| Ok((Reply::Refused(refusal), detail.clone()));
        let Some(command) = arrived.query.command.filter(|command| SUPPORTED.contains(command)) else {
            return refused(Refusal::UnknownCommand);
        };
        let Some(device_id) = arrived.query.device_id.as_deref().filter(|id| is_device_id(id)) else {
            return refused(Refusal::DeviceId);
        };
        let Some(device_type) = arrived.query.device_type.as_deref().filter(|it| is_device_type(it)) else {
            return refused(Refusal::DeviceType);
        };
        let access = organisation.device_command(&DeviceRequest {
            mailbox: arrived.mailbox,
            device_id,
            device_type,
            user_agent: &arrived.user_agent,
            version: u16::from(arrived.version.0),
            policy_key: arrived.policy_key,
            command: &command.name(),
        });
        let detail =
            json!({ "version": arrived.version.to_string(), "verdict": format!("{:?}", access.verdict) });
        if let Verdict::Moved(url) = access.verdict {
            return Ok((Reply::Moved(url), detail));
        }
        if let Some(refusal) = Refusal::of(&access.verdict) {
            return Ok((Reply::Refused(refusal), detail));
        }
        let Some(phone) = access.partnership else { return refused(Refusal::Blocked) };
        let document = match Self::document(command, arrived.version, &raw) {
            Ok(document) => document,
            Err(refusal) => return refused(refusal),
        };
        let people = &organisation.company().people;
        let login = &arrived.account.login;
        let person = people.iter().find(|person| *person.login == **login);
        let asked = Asked {
            organisation: Arc::clone(organisation),
            mailbox: arrived.mailbox,
            phone,
            version: arrived.version,
            command,
            document,
            raw,
            address: person.map_or_else(String::new, |person| person.mail.to_string()),
        };
        if fault.is_some_and(|fault| fault::loses_wipe_confirmation(fault, &asked)) {
            return Err(Closed);
        }
        let reply = self.run(&asked).await;
        Ok((reply, detail))
    }

    /// The body as a document; a message for SendMail before 14.0 is none.
    fn document(command: Command, version: Version, raw: &Bytes) -> Result<Option<Element>, Refusal> {
        if raw.is_empty() || (command == Command::SendMail && !version.has_common_status()) {
            return Ok(None);
        }
        match decode(raw, &Limits::default()) {
            Ok(root) => Ok(Some(root)),
            Err(error) => {
                tracing::debug!(%error, %command, "Body is not WBXML");
                Err(Refusal::NotWbxml)
            }
        }
    }

    /// A reply as HTTP, and as a word for the journal.
    fn write(
        &self,
        reply: Reply,
        command: Option<Command>,
        version: Version,
    ) -> (Response<Full<Bytes>>, String) {
        match reply {
            Reply::Nothing => (empty(StatusCode::OK), "200".to_owned()),
            Reply::Http(status) => (empty(status), status.as_u16().to_string()),
            Reply::Moved(url) => {
                let mut answer = empty(StatusCode::UNAVAILABLE_FOR_LEGAL_REASONS);
                put_header(&mut answer, header::LOCATION, &url);
                (answer, "451".to_owned())
            }
            Reply::Document(root) => document_answer(&root),
            Reply::Refused(refusal) => match refusal.said(version, &self.config.refusals) {
                Said::Body(status) => refused_with(command, status),
                Said::Http(number) => {
                    let status = StatusCode::from_u16(number).unwrap_or(StatusCode::FORBIDDEN);
                    (empty(status), number.to_string())
                }
            },
        }
    }
}

/// A refusal in a body: the command's own root with a status in it.
pub(super) fn refused_with(command: Option<Command>, status: Status) -> (Response<Full<Bytes>>, String) {
    match command.and_then(|command| refusal_body(command, status)) {
        Some(root) => document_answer(&root),
        None => (empty(StatusCode::NOT_IMPLEMENTED), "501".to_owned()),
    }
}

fn document_answer(root: &Element) -> (Response<Full<Bytes>>, String) {
    let Ok(bytes) = encode(root) else {
        // A text with a NUL in it came from an administrator.
        return (empty(StatusCode::INTERNAL_SERVER_ERROR), "500".to_owned());
    };
    let status = root.elements().find(|child| child.tag.name() == Some("Status"));
    let outcome = status.map_or_else(|| "200".to_owned(), |status| format!("200 status {}", status.text()));
    let mut answer = Response::new(Full::new(Bytes::from(bytes)));
    put_header(&mut answer, "Content-Type", CONTENT_TYPE);
    (answer, outcome)
}

pub(super) fn put_header(answer: &mut Response<Full<Bytes>>, name: &str, value: &str) {
    let name = http::HeaderName::from_bytes(name.as_bytes());
    if let (Ok(name), Ok(value)) = (name, value.parse()) {
        answer.headers_mut().insert(name, value);
    }
}

/// The versions this server speaks, oldest first.
fn offered(organisation: &Organisation) -> impl Iterator<Item = Version> {
    let max = organisation.facts().profile.active_sync_max;
    Version::ALL.into_iter().filter(move |version| u16::from(version.0) <= max)
}

/// The version a request is written in. Which HTTP status refuses a missing or unknown one is not verified.
fn agreed(organisation: &Organisation, query: &Query, headers: &HeaderMap) -> Result<Version, StatusCode> {
    let said = headers.get(header::PROTOCOL_VERSION).map(|value| value.to_str().unwrap_or_default().parse());
    let version = match (query.version, said) {
        (Some(version), _) | (None, Some(Ok(version))) => version,
        (None, _) => return Err(StatusCode::BAD_REQUEST),
    };
    let known = offered(organisation).any(|offered| offered == version);
    if known { Ok(version) } else { Err(StatusCode::HTTP_VERSION_NOT_SUPPORTED) }
}

/// `15.2` of `Version 15.2 (Build 1544.4)`.
fn server_version(admin_version: &str) -> &str {
    admin_version.split_whitespace().nth(1).unwrap_or(admin_version)
}

fn is_device_id(id: &str) -> bool {
    (1..=DEVICE_ID_MAX_CHARS).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

fn is_device_type(text: &str) -> bool {
    (1..=DEVICE_TYPE_MAX_CHARS).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
}
