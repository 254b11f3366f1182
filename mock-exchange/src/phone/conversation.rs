//! What a phone says to the server, and what it makes of the answers.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use causeway_protocol::Chain;
use causeway_protocol::activesync::status::{
    Status, acknowledgement, folder_sync as folder_status, ping as ping_status, sync as sync_status,
};
use causeway_protocol::activesync::{CONTENT_TYPE, Command, Query, Version, header};
use causeway_protocol::wbxml::tags::{air_sync, folder_hierarchy, ping, provision};
use causeway_protocol::wbxml::{DecodeError, Element, EncodeError, Limits, Tag, decode, encode};
use http::Request;
use http_body_util::Full;

use super::http::{Answer, HttpError, Target};
use super::limits::{ANSWER_TIMEOUT, HEARTBEAT_GRACE, PAGES_MAX, RETRY_AFTER_MAX_SECS, ROUNDS_MAX};
use super::memory::{FolderView, Standing};
use super::{Phone, words};

/// Why a visit, or a step of one, did not end as hoped.
#[derive(Debug, thiserror::Error)]
pub(super) enum Setback {
    #[error("no answer from the server")]
    Unreachable(#[source] HttpError),
    #[error("sign-in refused")]
    SignInRefused,
    #[error("turned away with {how}")]
    Blocked { how: String },
    #[error("ActiveSync is off for this mailbox")]
    Disabled,
    #[error("turned away for its policy with {how}")]
    PolicyRefused { how: String },
    #[error("too many phones on this mailbox")]
    TooManyDevices,
    #[error("server busy")]
    Busy { after_secs: Option<u32> },
    /// The policy, or a wipe, is to be fetched first.
    #[error("provisioning asked for with {how}")]
    Provision { how: String },
    #[error("folders and mail are to be fetched anew")]
    StartOver,
    #[error("the folders have changed")]
    FoldersChanged,
    #[error("the mailbox has moved to {url}")]
    Moved { url: String },
    #[error("the phone has wiped itself")]
    Wiped { account_only: bool },
    #[error("HTTP status {status}")]
    Http { status: u16 },
    #[error("{command} answered with status {status}")]
    Status { command: Command, status: Status },
    #[error("answer to {command} that is not WBXML")]
    NotWbxml {
        command: Command,
        #[source]
        source: DecodeError,
    },
    #[error("write {command}")]
    Unwritable {
        command: Command,
        #[source]
        source: EncodeError,
    },
    #[error("answer to {command} without {what}")]
    Incomplete { command: Command, what: &'static str },
    #[error("no end after {ROUNDS_MAX} new beginnings")]
    Endless,
}

impl Setback {
    pub(super) fn standing(&self) -> Standing {
        match self {
            Self::Unreachable(_) => Standing::Unreachable,
            Self::SignInRefused => Standing::SignInRefused,
            Self::Blocked { .. } => Standing::Blocked,
            Self::Disabled => Standing::Disabled,
            Self::PolicyRefused { .. } => Standing::PolicyRefused,
            Self::TooManyDevices => Standing::TooManyDevices,
            Self::Busy { .. } => Standing::Busy,
            Self::Wiped { account_only: false } => Standing::Wiped,
            Self::Wiped { account_only: true } => Standing::AccountWiped,
            Self::Provision { .. }
            | Self::StartOver
            | Self::FoldersChanged
            | Self::Moved { .. }
            | Self::Http { .. }
            | Self::Status { .. }
            | Self::NotWbxml { .. }
            | Self::Unwritable { .. }
            | Self::Incomplete { .. }
            | Self::Endless => Standing::Failed,
        }
    }

    /// What a common status (MS-ASCMD 2.2.2) means to a phone.
    fn of_status(command: Command, status: Status) -> Self {
        let how = status.to_string();
        match status {
            Status::USER_DISABLED_FOR_SYNC => Self::Disabled,
            Status::DEVICE_IS_BLOCKED_FOR_THIS_USER | Status::ACCESS_DENIED => Self::Blocked { how },
            Status::DEVICE_NOT_FULLY_PROVISIONABLE
            | Status::LEGACY_DEVICE_ON_STRICT_POLICY
            | Status::EXTERNALLY_MANAGED_NOT_ALLOWED => Self::PolicyRefused { how },
            Status::REMOTE_WIPE_REQUESTED
            | Status::DEVICE_NOT_PROVISIONED
            | Status::POLICY_REFRESH
            | Status::INVALID_POLICY_KEY => Self::Provision { how },
            Status::MAXIMUM_DEVICES_REACHED => Self::TooManyDevices,
            Status::SERVER_ERROR_RETRY_LATER => Self::Busy { after_secs: None },
            Status::SYNC_STATE_NOT_FOUND
            | Status::SYNC_STATE_CORRUPT
            | Status::SYNC_STATE_EXISTS
            | Status::SYNC_STATE_VERSION_INVALID => Self::StartOver,
            _ => Self::Status { command, status },
        }
    }

    fn of_http(answer: &Answer) -> Self {
        match answer.status {
            401 => Self::SignInRefused,
            403 => Self::Blocked { how: "HTTP 403".to_owned() },
            449 => Self::Provision { how: "HTTP 449".to_owned() },
            451 => match answer.header(header::LOCATION) {
                Some(url) => Self::Moved { url: url.to_owned() },
                None => Self::Http { status: 451 },
            },
            503 => {
                let after =
                    answer.header(header::RETRY_AFTER).and_then(|text| text.trim().parse::<u32>().ok());
                Self::Busy { after_secs: after.map(|secs| secs.min(RETRY_AFTER_MAX_SECS)) }
            }
            status => Self::Http { status },
        }
    }
}

/// How waiting for news ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Waited {
    /// The time passed.
    Nothing,
    /// There is something to fetch.
    News,
}

impl Phone {
    /// A whole visit: whatever it takes until all mail is here.
    pub(super) async fn converse(&self) -> Result<(), Setback> {
        for _ in 0..ROUNDS_MAX {
            match self.fetch().await {
                Ok(()) => return Ok(()),
                Err(Setback::Provision { how }) => {
                    self.note("provisioning asked for", how.clone());
                    if !self.0.model.provisionable {
                        return Err(Setback::PolicyRefused { how });
                    }
                    match self.provision().await {
                        // The server changed its mind about the policy meanwhile.
                        Err(Setback::Provision { .. }) => {}
                        other => other?,
                    }
                }
                Err(Setback::StartOver) => self.memory().start_over(),
                Err(Setback::FoldersChanged) => self.note("folders changed", ""),
                Err(Setback::Moved { url }) => {
                    self.note("moved", url.clone());
                    self.memory().url = url;
                }
                Err(other) => return Err(other),
            }
        }
        Err(Setback::Endless)
    }

    /// Folders, then the inbox.
    async fn fetch(&self) -> Result<(), Setback> {
        self.agree_on_version().await?;
        self.fetch_folders().await?;
        let inbox = self.memory().inbox_id().map(str::to_owned);
        match inbox {
            Some(folder) => self.fetch_mail(&folder).await,
            None => Ok(()),
        }
    }

    /// Asks once which versions the server speaks and takes the highest both know.
    async fn agree_on_version(&self) -> Result<(), Setback> {
        if self.memory().version.is_some() {
            return Ok(());
        }
        let highest: Version = self.0.model.protocol.parse().unwrap_or(Version::V16_1);
        let answer = self.send("OPTIONS", None, &[], Bytes::new(), ANSWER_TIMEOUT).await?;
        if answer.status != 200 {
            return Err(Setback::of_http(&answer));
        }
        let offered = answer.header(header::PROTOCOL_VERSIONS).unwrap_or_default();
        let both =
            offered.split(',').filter_map(|text| text.parse::<Version>().ok()).filter(|it| *it <= highest);
        let version = both
            .max()
            .ok_or(Setback::Incomplete { command: Command::FolderSync, what: "a common protocol version" })?;
        self.memory().version = Some(version);
        self.note("protocol", version.to_string());
        Ok(())
    }

    /// The two round trips of MS-ASPROV 4.1, or the wipe that comes instead of a policy.
    async fn provision(&self) -> Result<(), Setback> {
        let version = self.version();
        let first = self.ask(Command::Provision, Some(words::ask_policy(&self.0.model, version))).await?;
        let root = first.ok_or(Setback::Incomplete { command: Command::Provision, what: "a document" })?;
        for wipe in [provision::REMOTE_WIPE, provision::ACCOUNT_ONLY_REMOTE_WIPE] {
            if root.child(wipe).is_some() {
                return Err(self.obey_wipe(wipe).await?);
            }
        }
        let policy = root.at(&[provision::POLICIES, provision::POLICY]);
        let policy = policy.ok_or(Setback::Incomplete { command: Command::Provision, what: "a policy" })?;
        let status = words::number_of(policy, provision::STATUS).map_or(Status::OK, Status);
        if status == causeway_protocol::activesync::status::provision::NO_POLICY {
            self.note("no policy", "");
            return Ok(());
        }
        let key = policy.text_of(provision::POLICY_KEY);
        let key = key.ok_or(Setback::Incomplete { command: Command::Provision, what: "a policy key" })?;
        let settings = words::policy_settings(&root);
        let failing = self.0.model.failing(&settings).join(", ");
        let verdict = if failing.is_empty() { acknowledgement::DONE } else { acknowledgement::PARTLY };
        // The key of an offer is shown while it is confirmed.
        self.memory().policy_key = key.parse().ok();
        let second =
            self.ask(Command::Provision, Some(words::confirm_policy(version, &key, verdict))).await?;
        let policy = second.as_ref().and_then(|root| root.at(&[provision::POLICIES, provision::POLICY]));
        let policy = policy.ok_or(Setback::Incomplete { command: Command::Provision, what: "a policy" })?;
        let status = words::number_of(policy, provision::STATUS).map_or(Status::OK, Status);
        let last = words::number_of::<u32>(policy, provision::POLICY_KEY);
        if status != Status::OK {
            self.memory().policy_key = None;
            return Err(Setback::Status { command: Command::Provision, status });
        }
        let detail = if failing.is_empty() { String::new() } else { format!("without {failing}") };
        {
            let mut memory = self.memory();
            memory.policy_key = last;
            memory.policy = settings.into_iter().collect();
        }
        self.note("policy taken", detail);
        Ok(())
    }

    /// Confirms and wipes. A phone whose confirmation gets lost is as empty as one that was heard.
    async fn obey_wipe(&self, which: Tag) -> Result<Setback, Setback> {
        let account_only = which == provision::ACCOUNT_ONLY_REMOTE_WIPE;
        self.note("wipe ordered", if account_only { "account only" } else { "" });
        if self.0.model.confirms_wipe {
            match self.ask(Command::Provision, Some(words::confirm_wipe(which))).await {
                Ok(_) => self.note("wipe confirmed", ""),
                Err(error) => self.note("wipe not confirmed", Chain(&error).to_string()),
            }
        }
        let standing = if account_only { Standing::AccountWiped } else { Standing::Wiped };
        self.memory().wipe(standing);
        self.0.http.close();
        Ok(Setback::Wiped { account_only })
    }

    async fn fetch_folders(&self) -> Result<(), Setback> {
        const COMMAND: Command = Command::FolderSync;
        let key = self.memory().hierarchy_key.clone();
        let root = self.ask(COMMAND, Some(words::folder_sync(&key))).await?;
        let root = root.ok_or(Setback::Incomplete { command: COMMAND, what: "a document" })?;
        match words::status_of(&root) {
            Some(Status::OK) | None => {}
            Some(folder_status::INVALID_SYNC_KEY) => return Err(Setback::StartOver),
            Some(status) => return Err(Setback::Status { command: COMMAND, status }),
        }
        let key = root.text_of(folder_hierarchy::SYNC_KEY);
        let key = key.ok_or(Setback::Incomplete { command: COMMAND, what: "a sync key" })?;
        let mut memory = self.memory();
        memory.hierarchy_key = key;
        let Some(changes) = root.child(folder_hierarchy::CHANGES) else { return Ok(()) };
        for change in changes.elements() {
            let Some(id) = change.text_of(folder_hierarchy::SERVER_ID) else { continue };
            memory.folders.retain(|folder| folder.id != id);
            if change.tag == folder_hierarchy::ADD || change.tag == folder_hierarchy::UPDATE {
                let name = change.text_of(folder_hierarchy::DISPLAY_NAME).unwrap_or_default();
                let folder_type = words::number_of(change, folder_hierarchy::TYPE).unwrap_or_default();
                memory.folders.push(FolderView { id, name, folder_type });
            }
        }
        Ok(())
    }

    async fn fetch_mail(&self, folder: &str) -> Result<(), Setback> {
        for _ in 0..PAGES_MAX {
            let key = self.memory().inbox.key.clone();
            let more = self.fetch_page(folder, &key).await?;
            if !more && key != "0" {
                return Ok(());
            }
        }
        Err(Setback::Endless)
    }

    /// One Sync of one folder. True when the server has more.
    async fn fetch_page(&self, folder: &str, key: &str) -> Result<bool, Setback> {
        const COMMAND: Command = Command::Sync;
        let answer = self.ask(COMMAND, Some(words::sync(folder, key, self.version()))).await?;
        // An empty answer means that nothing has changed (MS-ASCMD 2.2.1.21).
        let Some(root) = answer else { return Ok(false) };
        let collection = root.at(&[air_sync::COLLECTIONS, air_sync::COLLECTION]);
        let of_folder = collection.and_then(|it| words::number_of(it, air_sync::STATUS)).map(Status);
        match words::status_of(&root).filter(|status| *status != Status::OK).or(of_folder) {
            Some(Status::OK) | None => {}
            Some(sync_status::INVALID_SYNC_KEY) => {
                self.memory().inbox = super::memory::Inbox::default();
                return Ok(true);
            }
            Some(sync_status::HIERARCHY_CHANGED | sync_status::NOT_FOUND) => {
                return Err(Setback::FoldersChanged);
            }
            Some(status) => return Err(Setback::Status { command: COMMAND, status }),
        }
        let collection = collection.ok_or(Setback::Incomplete { command: COMMAND, what: "a collection" })?;
        let key = collection.text_of(air_sync::SYNC_KEY);
        let key = key.ok_or(Setback::Incomplete { command: COMMAND, what: "a sync key" })?;
        let mut memory = self.memory();
        memory.inbox.key = key;
        for change in collection.child(air_sync::COMMANDS).into_iter().flat_map(Element::elements) {
            let Some(heading) = words::heading(change) else { continue };
            if change.tag == air_sync::DELETE {
                memory.inbox.messages.remove(&heading.id);
            } else {
                memory.inbox.put(heading);
            }
        }
        Ok(collection.child(air_sync::MORE_AVAILABLE).is_some())
    }

    /// Lets the server wait for news of the inbox, on a connection of its own.
    pub(super) async fn wait_for_news(&self, heartbeat_secs: u32) -> Result<Waited, Setback> {
        const COMMAND: Command = Command::Ping;
        let Some(folder) = self.memory().inbox_id().map(str::to_owned) else { return Ok(Waited::News) };
        let mut heartbeat_secs = heartbeat_secs;
        for _ in 0..ROUNDS_MAX {
            let asked = Some((heartbeat_secs, folder.clone()));
            // The same question again may be empty (MS-ASCMD 2.2.1.13).
            let same = self.memory().pinged == asked;
            let body = (!same).then(|| words::wait_for_news(heartbeat_secs, &folder));
            let bound = Duration::from_secs(u64::from(heartbeat_secs)) + HEARTBEAT_GRACE;
            let root = self.ask_within(COMMAND, body, bound).await?;
            let root = root.ok_or(Setback::Incomplete { command: COMMAND, what: "a document" })?;
            let status = words::status_of(&root);
            let status = status.ok_or(Setback::Incomplete { command: COMMAND, what: "a status" })?;
            self.memory().pinged = asked;
            match status {
                ping_status::EXPIRED => return Ok(Waited::Nothing),
                ping_status::CHANGES | ping_status::HIERARCHY_CHANGED => return Ok(Waited::News),
                ping_status::BAD_INTERVAL => {
                    heartbeat_secs = words::number_of(&root, ping::HEARTBEAT_INTERVAL)
                        .ok_or(Setback::Incomplete { command: COMMAND, what: "a heartbeat" })?;
                }
                ping_status::INCOMPLETE => self.memory().pinged = None,
                status => return Err(Setback::Status { command: COMMAND, status }),
            }
        }
        Err(Setback::Endless)
    }

    async fn ask(&self, command: Command, body: Option<Element>) -> Result<Option<Element>, Setback> {
        self.ask_within(command, body, ANSWER_TIMEOUT).await
    }

    /// One command. A common status becomes the setback it stands for; `None` is an empty answer.
    async fn ask_within(
        &self,
        command: Command,
        body: Option<Element>,
        bound: Duration,
    ) -> Result<Option<Element>, Setback> {
        let body = body.map(|body| encode(&body)).transpose();
        let body = body.map_err(|source| Setback::Unwritable { command, source })?.unwrap_or_default();
        let query = self.query(command);
        let mut headers = vec![(header::PROTOCOL_VERSION, self.version().to_string())];
        if self.0.model.provisionable {
            // A phone that does policies says 0 before it has one (MS-ASHTTP 2.2.1.1.2.5).
            let key = self.memory().policy_key.unwrap_or(0);
            headers.push((header::POLICY_KEY, key.to_string()));
        }
        let answer = self.send("POST", Some(&query), &headers, body.into(), bound).await?;
        if answer.status != 200 {
            return Err(Setback::of_http(&answer));
        }
        if answer.body.is_empty() {
            return Ok(None);
        }
        let root = decode(&answer.body, &Limits::default())
            .map_err(|source| Setback::NotWbxml { command, source })?;
        match words::status_of(&root) {
            Some(status) if status.0 > 100 => Err(Setback::of_status(command, status)),
            _ => Ok(Some(root)),
        }
    }

    fn query(&self, command: Command) -> String {
        let version = self.version();
        let memory = self.memory();
        let query = Query {
            command: Some(command),
            user: Some(memory.user.clone()),
            device_id: Some(self.0.device_id.clone()),
            device_type: Some(self.0.model.device_type.clone()),
            version: Some(version),
            policy_key: memory.policy_key.or(Some(0)).filter(|_| self.0.model.provisionable),
            ..Query::default()
        };
        // The base64 form exists since 12.1 (MS-ASHTTP 2.2.1.1.1.1).
        let base64 = self.0.model.base64_query && version >= Version::V12_1;
        base64.then(|| query.to_base64()).flatten().unwrap_or_else(|| query.to_plain())
    }

    async fn send(
        &self,
        method: &str,
        query: Option<&str>,
        headers: &[(&str, String)],
        body: Bytes,
        bound: Duration,
    ) -> Result<Answer, Setback> {
        let (url, credentials) = {
            let memory = self.memory();
            let pair = format!("{}:{}", memory.user, memory.password.expose());
            (memory.url.clone(), STANDARD.encode(pair))
        };
        let target = Target::parse(&url).map_err(Setback::Unreachable)?;
        let path = query.map_or_else(|| target.path.clone(), |query| format!("{}?{query}", target.path));
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header("Host", target.authority())
            .header("Authorization", format!("Basic {credentials}"))
            .header("User-Agent", &self.0.model.user_agent);
        if !body.is_empty() {
            request = request.header("Content-Type", CONTENT_TYPE);
        }
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        let request = request
            .body(Full::new(body))
            .map_err(|source| Setback::Unreachable(HttpError::Request(source)))?;
        self.0.http.send(&target, request, bound).await.map_err(Setback::Unreachable)
    }

    fn version(&self) -> Version {
        self.memory().version.unwrap_or(Version::V16_1)
    }

    fn note(&self, what: &str, detail: impl Into<String>) {
        self.memory().note(self.0.clock.now_ms(), what, detail);
        self.publish();
    }
}
