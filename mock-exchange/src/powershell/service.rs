//! One envelope in, one envelope out (MS-WSMV 3.2.4).

use std::sync::Arc;
use std::time::Duration;

use ::http::{HeaderValue, StatusCode, header};
use causeway_protocol::psrp::Guid;
use causeway_protocol::wsman::{
    CommandState, CreateShell, Created, Fault, Identity, Operation, Reply, Request, Response, Signal, Stream,
    blob_budget, resource_uri,
};
use causeway_protocol::wsman::{EXCHANGE_CONFIGURATION, POWERSHELL_CONFIGURATION};
use serde_json::json;

use super::answer::Answer;
use super::outbox::Take;
use super::shell::{Found, InUse, InputError, Opening, Shell, Terms};
use super::twist::{BadFragments, Steer, Twist};
use super::{Call, Front, PowerShell, fault, language};
use crate::cmdlets::Via;
use crate::limits::{ENVELOPE_MIN_BYTES, IDLE_TIMEOUT_MAX, OPERATION_TIMEOUT_DEFAULT, OPERATION_TIMEOUT_MAX};
use crate::world::SessionRefusal;

/// Bytes of an envelope that are not stream elements: header, namespaces, state.
const ENVELOPE_HEAD_BYTES: usize = 1_500;

/// The largest stream element before base64: Windows hands on what it reads in pieces of 32 KiB.
const ELEMENT_MAX_BYTES: usize = 32 * 1024;

const SHELLS_RESOURCE: &str = "http://schemas.microsoft.com/wbem/wsman/1/windows/shell";
const PROTOCOL_URI: &str = "http://schemas.dmtf.org/wbem/wsman/1/wsman.xsd";

/// What acting on a request gives.
enum Outcome {
    Reply(Reply),
    /// With the cookie of a new shell.
    Opened(Created, Option<String>),
    /// The server died.
    Lost,
}

impl From<Reply> for Outcome {
    fn from(reply: Reply) -> Self {
        Self::Reply(reply)
    }
}

impl PowerShell {
    /// Answers an envelope; `None` closes the connection.
    pub(super) async fn wsman(&self, call: &Call<'_>, clear: &[u8]) -> Option<Answer> {
        self.shared.shells.reap(self.cx.clock.now_ms());
        let request = match Request::read(clear) {
            Ok(request) => request,
            Err(error) => {
                self.note(call.front, "unreadable", "", &error.to_string(), serde_json::Value::Null);
                let response = Response {
                    message_id: message_id(),
                    relates_to: None,
                    request_action: String::new(),
                    reply: Reply::Fault(fault::unreadable(&error)),
                };
                return Some(Answer::new(StatusCode::INTERNAL_SERVER_ERROR, response.write()));
            }
        };
        let operation = word(&request.operation);
        let subject = self.subject(call, &request);
        let twist = match self.steer(call.front, operation, &subject).await {
            Steer::Go(twist) => twist,
            steer => return self.instead(call, &request, operation, &subject, steer),
        };
        let outcome = self.act(call, &request, &twist).await;
        if matches!(outcome, Ok(Outcome::Lost)) {
            self.note(call.front, operation, &subject, "server lost", serde_json::Value::Null);
            return None;
        }
        let (reply, cookie) = match outcome {
            Ok(Outcome::Reply(reply)) => (reply, None),
            Ok(Outcome::Opened(created, cookie)) => (Reply::Created(created), cookie),
            Ok(Outcome::Lost) => return None,
            Err(fault) => (Reply::Fault(fault), None),
        };
        self.note_reply(call, &request, operation, &subject, &reply);
        let mut answer = envelope(&request, reply, twist);
        answer.cookie = cookie.and_then(|cookie| set_cookie(call.front, &cookie));
        Some(answer)
    }

    /// Who answers (MS-WSMV 3.1.4.5.29); before authentication it does not say which version of Windows.
    pub(super) fn identify(&self, front: &Front, authenticated: bool) -> String {
        self.note(front, "identify", "", "success", json!({ "authenticated": authenticated }));
        let response = Response {
            message_id: String::new(),
            relates_to: None,
            request_action: String::new(),
            reply: Reply::Identified(identity(authenticated)),
        };
        response.write()
    }

    /// What a fault rule wants in place of acting on the request.
    fn instead(
        &self,
        call: &Call<'_>,
        request: &Request,
        operation: &str,
        subject: &str,
        steer: Steer,
    ) -> Option<Answer> {
        let fault = match steer {
            Steer::Fault(fault) => fault,
            Steer::RefuseRunspace { limit } => self.refused(call, &SessionRefusal::Concurrency { limit }),
            Steer::Status(status, text) => {
                self.note(call.front, operation, subject, status.as_str(), json!({ "fault": true }));
                let mut answer = Answer::new(status, Vec::new());
                let name = if status.is_redirection() { header::LOCATION } else { header::RETRY_AFTER };
                answer.header = text.and_then(|text| Some((name, HeaderValue::from_str(&text).ok()?)));
                return Some(answer);
            }
            Steer::Bytes(bytes) => {
                self.note(call.front, operation, subject, "malformed", json!({ "fault": true }));
                return Some(Answer::new(StatusCode::OK, bytes));
            }
            Steer::Close | Steer::Go(_) => {
                self.note(call.front, operation, subject, "closed", json!({ "fault": true }));
                return None;
            }
        };
        let reply = Reply::Fault(fault);
        self.note_reply(call, request, operation, subject, &reply);
        Some(envelope(request, reply, Twist::default()))
    }

    async fn act(&self, call: &Call<'_>, request: &Request, twist: &Twist) -> Result<Outcome, Fault> {
        if matches!(request.operation, Operation::Identify) {
            return Ok(Reply::Identified(identity(true)).into());
        }
        self.check_resource(request)?;
        let terms = self.terms(request, twist);
        if let Operation::Create(create) = &request.operation {
            return self.create(call, request, create, &terms);
        }
        let (shell, in_use) = self.shell(call, request)?;
        let refuse = |error| self.refuse_input(&error);
        Ok(match &request.operation {
            Operation::Command { command_id, .. } => {
                let id = command_id.clone().unwrap_or_else(new_id);
                let fragments = request
                    .operation
                    .argument_bytes()
                    .map_err(|_| fault::invalid_parameter("The arguments of the command are not base64."))?;
                shell.command(&self.config, &id, &fragments, &terms).map_err(refuse)?;
                Reply::Commanded { command_id: id }.into()
            }
            Operation::Send { streams } => {
                for stream in streams {
                    let id = stream.command_id.as_deref();
                    shell.input(id, &stream.name, &stream.bytes, &terms).map_err(refuse)?;
                }
                Reply::Sent.into()
            }
            Operation::Receive { command_id, .. } => {
                self.receive(&shell, &in_use, request, command_id.as_deref(), &terms).await?
            }
            Operation::Signal { command_id: Some(id), signal } => {
                match signal {
                    Signal::Terminate => shell.terminate(id, &terms).map_err(refuse)?,
                    Signal::Stop => shell.stop(id, &terms).map_err(refuse)?,
                    Signal::Other(_) => return Err(fault::invalid_parameter("The signal is not known.")),
                }
                Reply::Signalled.into()
            }
            Operation::Signal { command_id: None, .. } => return Err(fault::no_such_command()),
            Operation::Delete => {
                self.shells().remove(&shell.id.to_ascii_uppercase());
                shell.close();
                Reply::Deleted.into()
            }
            Operation::Get => Reply::Got(created(&shell)).into(),
            // Disconnect, Reconnect and Connect among them: Exchange's configuration does not support them.
            _ => return Err(fault::no_such_action()),
        })
    }

    /// Only the resource of the organisation's session configuration exists here, and shells as such for Get.
    fn check_resource(&self, request: &Request) -> Result<(), Fault> {
        let uri = &request.header.resource_uri;
        let own = resource_uri(self.configuration());
        let shells = matches!(request.operation, Operation::Get) && uri.eq_ignore_ascii_case(SHELLS_RESOURCE);
        if uri.eq_ignore_ascii_case(&own) || shells { Ok(()) } else { Err(fault::no_such_resource(uri)) }
    }

    fn configuration(&self) -> &'static str {
        match self.organisation.facts().profile.remoting {
            true => EXCHANGE_CONFIGURATION,
            false => POWERSHELL_CONFIGURATION,
        }
    }

    fn create(
        &self,
        call: &Call<'_>,
        request: &Request,
        create: &CreateShell,
        terms: &Terms<'_>,
    ) -> Result<Outcome, Fault> {
        if self.organisation.roles_of(call.account).is_empty() {
            return Err(fault::no_roles(&self.origin(), &self.owner(call)));
        }
        let creation =
            create.creation.as_deref().ok_or_else(|| fault::invalid_parameter("creationXml is missing."))?;
        let permit =
            self.organisation.open_session(call.account).map_err(|refusal| self.refused(call, &refusal))?;
        let id = match &create.shell_id {
            Some(id) if !self.config.chooses_shell_id => id.clone(),
            _ => new_id(),
        };
        let idle = create.idle_timeout.unwrap_or(Duration::from_secs(self.config.idle_timeout_secs));
        let opening = Opening {
            id,
            account: call.account.clone(),
            owner: self.owner(call),
            client_ip: call.peer.ip().to_string(),
            resource_uri: request.header.resource_uri.clone(),
            idle_timeout_ms: millis(idle.min(IDLE_TIMEOUT_MAX)),
            cookie: self.config.affinity_cookie.then(new_id),
            organisation: Arc::clone(&self.organisation),
            via: if self.organisation.facts().profile.remoting { Via::Remoting } else { Via::SnapIn },
            server: self.server(),
            runspace: new_id().parse().unwrap_or_default(),
            version: self.version(),
            permit,
        };
        let shell =
            Shell::open(&self.config, opening, creation, terms).map_err(|error| self.refuse_input(&error))?;
        let shell = Arc::new(shell);
        let key = shell.id.to_ascii_uppercase();
        let mut shells = self.shells();
        if shells.contains_key(&key) {
            return Err(fault::invalid_parameter("A shell of this id exists already."));
        }
        shells.insert(key, Arc::clone(&shell));
        Ok(Outcome::Opened(created(&shell), shell.cookie.clone()))
    }

    /// Waits for output as long as the client wants to wait.
    async fn receive(
        &self,
        shell: &Arc<Shell>,
        in_use: &InUse,
        request: &Request,
        command_id: Option<&str>,
        terms: &Terms<'_>,
    ) -> Result<Outcome, Fault> {
        let timeout = request.header.operation_timeout.unwrap_or(OPERATION_TIMEOUT_DEFAULT);
        let deadline_ms = terms.now_ms.saturating_add(millis(timeout.min(OPERATION_TIMEOUT_MAX)));
        let mut changes = shell.changes();
        loop {
            changes.borrow_and_update();
            let now_ms = self.cx.clock.now_ms();
            in_use.until(now_ms);
            let found = shell.find(command_id, &request.header.message_id, &Terms { now_ms, ..*terms });
            if terms.twist.lost_after_objects.is_some_and(|objects| shell.objects(command_id) >= objects) {
                self.shared.shells.forget();
                return Ok(Outcome::Lost);
            }
            let until_ms = match found {
                Found::Output(fetched) => {
                    let streams = fetched.elements.into_iter().map(|bytes| Stream {
                        name: "stdout".to_owned(),
                        command_id: command_id.map(str::to_owned),
                        bytes,
                    });
                    let command_id = command_id.map(str::to_owned);
                    let state =
                        fetched.done.then_some(CommandState { command_id, done: true, exit_code: None });
                    return Ok(Reply::Received { streams: streams.collect(), state }.into());
                }
                Found::Gone => return Err(fault::shell_not_found(self.prefix().as_ref(), &shell.id)),
                Found::NoCommand => return Err(fault::no_such_command()),
                Found::Nothing { until_ms } => until_ms.unwrap_or(deadline_ms).min(deadline_ms),
            };
            if now_ms >= deadline_ms {
                return Err(fault::timed_out());
            }
            tokio::select! {
                _ = changes.changed() => {}
                () = self.cx.clock.sleep_until_ms(until_ms) => {}
            }
        }
    }

    /// The shell a request is about: its id must be known, and who asks must be who opened it.
    fn shell(&self, call: &Call<'_>, request: &Request) -> Result<(Arc<Shell>, InUse), Fault> {
        let id = request.header.selector("ShellId").unwrap_or_default();
        let found = self.shells().get(&id.to_ascii_uppercase()).cloned();
        let not_found = || fault::shell_not_found(self.prefix().as_ref(), id);
        let shell = found.ok_or_else(not_found)?;
        if shell.account.login != call.account.login {
            return Err(fault::access_denied());
        }
        if shell.cookie.as_deref().is_some_and(|cookie| !brings(call, cookie)) {
            // Without its cookie the request goes to another server, which does not know the shell.
            return Err(not_found());
        }
        let in_use = shell.in_use(self.cx.clock.now_ms());
        Ok((shell, in_use))
    }

    fn terms<'a>(&self, request: &Request, twist: &'a Twist) -> Terms<'a> {
        let wanted = request.header.envelope_max_bytes.unwrap_or(self.config.envelope_max_bytes);
        let envelope = wanted.min(self.config.envelope_max_bytes).max(ENVELOPE_MIN_BYTES);
        let take = Take {
            text_max_bytes: envelope - ENVELOPE_HEAD_BYTES,
            // A fault that counts fragments wants each in an element of its own.
            element_max_bytes: if twist.cut_after_fragments.is_some() { 0 } else { ELEMENT_MAX_BYTES },
            split_bytes: twist.split_bytes,
            bad: twist.fragments,
        };
        let blob_max_bytes = blob_budget(envelope, ENVELOPE_HEAD_BYTES);
        Terms { now_ms: self.cx.clock.now_ms(), take, blob_max_bytes, twist }
    }

    fn refuse_input(&self, error: &InputError) -> Fault {
        match error {
            InputError::NoCommand => fault::no_such_command(),
            InputError::TooMany => fault::too_many_commands(),
            InputError::Broken => fault::broken_pool(),
            other => {
                let source =
                    std::error::Error::source(other).map(|source| format!(": {source}")).unwrap_or_default();
                fault::invalid_parameter(&format!("{other}{source}"))
            }
        }
    }

    fn refused(&self, call: &Call<'_>, refusal: &SessionRefusal) -> Fault {
        let facts = self.organisation.facts();
        let words = fault::RefusalWords {
            winrm: facts.profile.version <= crate::profile::Version::E2010,
            request_id: &new_id().to_ascii_lowercase(),
            policy_dn: &format!("CN=GlobalThrottlingPolicy,CN=Global Settings,CN={}", facts.name),
            account: &call.account.login,
            code: self.config.refusal_code,
        };
        fault::refused_session(refusal, &self.organisation.throttling(), &words)
    }

    /// Exchange 2013 and later say in front of a fault where it comes from.
    fn prefix(&self) -> Option<fault::Origin> {
        (self.organisation.facts().profile.version >= crate::profile::Version::E2013).then(|| self.origin())
    }

    fn origin(&self) -> fault::Origin {
        fault::Origin {
            server: self.server(),
            request_id: new_id().to_ascii_lowercase(),
            time: time_text(self.cx.clock.now_ms()),
        }
    }

    fn owner(&self, call: &Call<'_>) -> String {
        format!("{}\\{}", self.organisation.facts().netbios, call.account.login)
    }

    fn version(&self) -> (u32, u32) {
        use crate::profile::Version;
        let stated = self.config.protocol_version.as_deref().and_then(|text| {
            let (major, minor) = text.split_once('.')?;
            Some((major.parse().ok()?, minor.parse().ok()?))
        });
        stated.unwrap_or(match self.organisation.facts().profile.version {
            Version::E2007 | Version::E2010 => (2, 1),
            Version::E2013 => (2, 2),
            _ => (2, 3),
        })
    }

    /// What a request is about, for fault rules and the journal.
    fn subject(&self, call: &Call<'_>, request: &Request) -> String {
        let command_id = match &request.operation {
            Operation::Create(_) => return call.account.login.clone(),
            Operation::Command { .. } => return language::subject_of(&request.operation),
            Operation::Receive { command_id, .. } | Operation::Signal { command_id, .. } => {
                command_id.as_deref()
            }
            Operation::Send { streams } => streams.first().and_then(|stream| stream.command_id.as_deref()),
            _ => None,
        };
        let id = request.header.selector("ShellId").unwrap_or_default().to_ascii_uppercase();
        let shell = self.shells().get(&id).cloned();
        shell.map(|shell| shell.subject(command_id)).unwrap_or_default()
    }

    fn note_reply(&self, call: &Call<'_>, request: &Request, operation: &str, subject: &str, reply: &Reply) {
        let account = &call.account.login;
        let (outcome, detail) = match reply {
            Reply::Fault(fault) => {
                let word = if fault.subcode.is_empty() { "fault" } else { &fault.subcode };
                (word.to_owned(), json!({ "account": account, "code": fault.code }))
            }
            Reply::Received { streams, state } => {
                let bytes: usize = streams.iter().map(|stream| stream.bytes.len()).sum();
                let done = state.is_some();
                ("success".to_owned(), json!({ "account": account, "bytes": bytes, "done": done }))
            }
            _ => ("success".to_owned(), json!({ "account": account, "to": request.header.to })),
        };
        self.note(call.front, operation, subject, &outcome, detail);
    }
}

/// The answer's envelope, with what a fault rule wants to be wrong with it.
fn envelope(request: &Request, reply: Reply, twist: Twist) -> Answer {
    let status = match &reply {
        Reply::Fault(_) => StatusCode::INTERNAL_SERVER_ERROR,
        _ => StatusCode::OK,
    };
    let reply = match reply {
        Reply::Received { .. } if twist.no_streams => Reply::Received { streams: Vec::new(), state: None },
        reply => reply,
    };
    let mut response = Response::to(request, &message_id(), reply);
    match &twist.relates_to {
        Some(id) if id.is_empty() => response.relates_to = None,
        Some(id) => response.relates_to = Some(id.clone()),
        None => {}
    }
    if twist.wrong_action {
        response.request_action = "http://schemas.xmlsoap.org/ws/2004/09/transfer/Put".to_owned();
    }
    let mut xml = response.write();
    if twist.fragments == Some(BadFragments::NotBase64) {
        xml = xml.replace("</rsp:Stream>", "%%%</rsp:Stream>");
    }
    if twist.truncated {
        let half = (0..=xml.len() / 2).rev().find(|at| xml.is_char_boundary(*at)).unwrap_or(0);
        xml.truncate(half);
    }
    let mut answer = Answer::new(status, Vec::new());
    answer.cut_at = twist.cut_after_fragments.map(|fragments| after_elements(&xml, fragments));
    answer.twist = twist;
    answer.xml = xml.into_bytes();
    answer
}

/// Where so many stream elements end.
fn after_elements(xml: &str, count: usize) -> usize {
    const END: &str = "</rsp:Stream>";
    xml.match_indices(END).take(count).last().map_or(xml.len() / 2, |(at, end)| at + end.len())
}

fn created(shell: &Shell) -> Created {
    Created {
        shell_id: shell.id.clone(),
        selectors: vec![("ShellId".to_owned(), shell.id.clone())],
        resource_uri: shell.resource_uri.clone(),
        owner: shell.owner.clone(),
        client_ip: shell.client_ip.clone(),
        idle_timeout: format!("PT{}.000S", shell.idle_timeout_ms / 1_000),
        input_streams: "stdin pr".to_owned(),
        output_streams: "stdout".to_owned(),
    }
}

fn identity(authenticated: bool) -> Identity {
    let version =
        if authenticated { "OS: 10.0.17763 SP: 0.0 Stack: 3.0" } else { "OS: 0.0.0 SP: 0.0 Stack: 3.0" };
    Identity {
        protocol: PROTOCOL_URI.to_owned(),
        vendor: "Microsoft Corporation".to_owned(),
        version: version.to_owned(),
    }
}

/// The operation, as fault rules and the journal name it.
fn word(operation: &Operation) -> &'static str {
    match operation {
        Operation::Create(_) => "create",
        Operation::Command { .. } => "command",
        Operation::Send { .. } => "send",
        Operation::Receive { .. } => "receive",
        Operation::Signal { .. } => "signal",
        Operation::Delete => "delete",
        Operation::Get => "get",
        Operation::Identify => "identify",
        _ => "other",
    }
}

const COOKIE: &str = "X-BackEndCookie";

fn set_cookie(front: &Front, value: &str) -> Option<HeaderValue> {
    let secure = if front.tls.is_some() { "; secure" } else { "" };
    HeaderValue::from_str(&format!("{COOKIE}={value}; path=/powershell{secure}; HttpOnly")).ok()
}

fn brings(call: &Call<'_>, cookie: &str) -> bool {
    let wanted = format!("{COOKIE}={cookie}");
    let headers = call.headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    headers.flat_map(|header| header.split(';')).any(|pair| pair.trim() == wanted)
}

fn message_id() -> String {
    format!("uuid:{}", new_id())
}

fn new_id() -> String {
    let id = Guid::from_bytes(*uuid::Uuid::new_v4().as_bytes());
    id.upper()
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// As Exchange writes it, in the form of the United States.
fn time_text(unix_ms: i64) -> String {
    let time = time::OffsetDateTime::from_unix_timestamp(unix_ms.div_euclid(1_000));
    let time = time.unwrap_or(time::OffsetDateTime::UNIX_EPOCH);
    let (hour, half) = match time.hour() {
        hour @ 0..=11 => (hour, "AM"),
        hour => (hour - 12, "PM"),
    };
    let hour = if hour == 0 { 12 } else { hour };
    let (month, day, year) = (u8::from(time.month()), time.day(), time.year());
    format!("{month}/{day}/{year} {hour}:{:02}:{:02} {half}", time.minute(), time.second())
}
