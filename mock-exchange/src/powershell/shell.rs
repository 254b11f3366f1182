//! A shell: one runspace pool of one account, and the commands in it (MS-PSRP 3.2, MS-WSMV 3.2.4.1).

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use causeway_protocol::clixml::{self, Content, Value};
use causeway_protocol::cmdlet::Cmdlet;
use causeway_protocol::psrp::{
    Capability, Defragmenter, Envelope, FragmentError, Fragmenter, Guid, Message, PoolState,
};
use tokio::sync::watch;

use super::command::{Bench, Command, Fetched, Progress, Stamp, Started};
use super::language;
use super::outbox::{Outbox, Take};
use super::settings::PowerShellConfig;
use super::twist::Twist;
use crate::cmdlets::{self, Caller, Via};
use crate::limits::RUNSPACES_MAX;
use crate::world::{Account, Organisation, SessionPermit};

/// Type of the dictionaries of APPLICATION_PRIVATE_DATA (MS-PSRP 2.2.3.18).
const PRIMITIVE_DICTIONARY: [&str; 3] =
    ["System.Management.Automation.PSPrimitiveDictionary", "System.Collections.Hashtable", "System.Object"];

/// What never changes while a shell lives.
pub(super) struct Shell {
    pub(super) id: String,
    pub(super) account: Account,
    pub(super) owner: String,
    pub(super) client_ip: String,
    pub(super) resource_uri: String,
    pub(super) idle_timeout_ms: i64,
    /// With `affinity_cookie`, what the client must bring along.
    pub(super) cookie: Option<String>,
    organisation: Arc<Organisation>,
    via: Via,
    stamp: Stamp,
    version: (u32, u32),
    byte_order_mark: bool,
    fragment_max_bytes: usize,
    state: Mutex<State>,
    changed: watch::Sender<u64>,
    /// Counts against the account's sessions until the shell is gone.
    _permit: SessionPermit,
}

/// What a Create decides about a shell.
pub(super) struct Opening {
    pub(super) id: String,
    pub(super) account: Account,
    pub(super) owner: String,
    pub(super) client_ip: String,
    pub(super) resource_uri: String,
    pub(super) idle_timeout_ms: i64,
    pub(super) cookie: Option<String>,
    pub(super) organisation: Arc<Organisation>,
    pub(super) via: Via,
    pub(super) server: String,
    pub(super) runspace: Guid,
    pub(super) version: (u32, u32),
    pub(super) permit: SessionPermit,
}

struct State {
    pool: Guid,
    pool_state: PoolState,
    /// The client's host can be asked something.
    host: bool,
    runspaces_max: i32,
    fragmenter: Fragmenter,
    reader: clixml::Reader,
    /// Streams of the pool by name: `stdin`, and `pr` for answers of the host.
    input: BTreeMap<String, Defragmenter>,
    out: Outbox,
    last: Option<(String, Vec<Vec<u8>>)>,
    commands: BTreeMap<String, Command>,
    /// Ids of commands that wait for a runspace, in order.
    waiting: Vec<String>,
    /// Add-PSSnapin has been called.
    snap_in: bool,
    last_used_ms: i64,
    using: u32,
    closed: bool,
}

/// Why what a client sends cannot be acted on.
#[derive(Debug, thiserror::Error)]
pub(super) enum InputError {
    #[error("fragments of the request")]
    Fragment(#[source] FragmentError),
    #[error("message of the request")]
    Message(#[source] causeway_protocol::psrp::MessageError),
    #[error("the shell has no command of this id")]
    NoCommand,
    #[error("the shell has a command of this id already")]
    SameCommand,
    #[error("too many commands that nobody terminated")]
    TooMany,
    #[error("the pool is broken")]
    Broken,
    #[error("the first messages do not open a runspace pool")]
    NotAnOpening,
}

/// What a Receive finds.
pub(super) enum Found {
    Output(Fetched),
    Nothing {
        until_ms: Option<i64>,
    },
    /// The shell was closed.
    Gone,
    /// The command was terminated, or never was.
    NoCommand,
}

/// Terms of one request.
pub(super) struct Terms<'a> {
    pub(super) now_ms: i64,
    pub(super) take: Take,
    /// Largest fragment that fits the client's envelope.
    pub(super) blob_max_bytes: usize,
    pub(super) twist: &'a Twist,
}

impl Shell {
    /// Opens a pool from the first messages of a client.
    ///
    /// # Errors
    /// [`InputError`]
    pub(super) fn open(
        config: &PowerShellConfig,
        opening: Opening,
        creation: &[u8],
        terms: &Terms<'_>,
    ) -> Result<Self, InputError> {
        let shell = Self {
            stamp: Stamp::new(&opening.server, opening.runspace),
            id: opening.id,
            account: opening.account,
            owner: opening.owner,
            client_ip: opening.client_ip,
            resource_uri: opening.resource_uri,
            idle_timeout_ms: opening.idle_timeout_ms,
            cookie: opening.cookie,
            organisation: opening.organisation,
            via: opening.via,
            version: opening.version,
            byte_order_mark: config.byte_order_mark,
            fragment_max_bytes: config.fragment_max_bytes,
            state: Mutex::new(State::new(terms.now_ms)),
            changed: watch::Sender::new(0),
            _permit: opening.permit,
        };
        shell.greet(creation, terms)?;
        Ok(shell)
    }

    /// Reads the client's capability and wishes, and answers with the three messages that open a pool.
    fn greet(&self, creation: &[u8], terms: &Terms<'_>) -> Result<(), InputError> {
        let mut state = self.state();
        let mut input = Defragmenter::new();
        input.push(creation);
        let mut opened = false;
        let mut capability = false;
        while let Some(bytes) = input.next_message().map_err(InputError::Fragment)? {
            let envelope = Envelope::read(&bytes, &mut state.reader).map_err(InputError::Message)?;
            match envelope.message {
                Message::SessionCapability(theirs) => capability = theirs.protocol.0 == self.version.0,
                Message::InitRunspacePool { min: _, max } if capability => {
                    state.pool = envelope.pool;
                    state.runspaces_max = max.clamp(1, RUNSPACES_MAX);
                    state.host = has_host(&bytes);
                    opened = true;
                }
                _ => return Err(InputError::NotAnOpening),
            }
        }
        if !opened {
            return Err(InputError::NotAnOpening);
        }
        let capability = Capability { protocol: self.version, ..Capability::default() };
        let broken = terms.twist.broken_pool;
        let last = match broken {
            true => Message::PoolState { state: PoolState::Broken, error: Some(language::broken()) },
            false => Message::PoolState { state: PoolState::Opened, error: None },
        };
        state.pool_state = if broken { PoolState::Broken } else { PoolState::Opened };
        for message in [Message::SessionCapability(capability), private_data(self.version), last] {
            self.post_to_pool(&mut state, terms, message);
        }
        Ok(())
    }

    /// Notices of changes, for a Receive that waits.
    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Whether nobody has used it for too long.
    pub(super) fn is_idle(&self, now_ms: i64) -> bool {
        let state = self.state();
        state.using == 0 && now_ms.saturating_sub(state.last_used_ms) >= self.idle_timeout_ms
    }

    /// Counts a request under way, until the guard is dropped.
    pub(super) fn in_use(self: &Arc<Self>, now_ms: i64) -> InUse {
        let mut state = self.state();
        state.using += 1;
        state.last_used_ms = now_ms;
        drop(state);
        InUse(Arc::clone(self))
    }

    pub(super) fn close(&self) {
        let mut state = self.state();
        state.closed = true;
        state.commands.clear();
        drop(state);
        self.tell();
    }

    /// The cmdlet of a command, for fault rules and the journal.
    pub(super) fn subject(&self, command_id: Option<&str>) -> String {
        let Some(id) = command_id else { return "pool".to_owned() };
        self.state()
            .commands
            .get(&id.to_ascii_uppercase())
            .map(|command| command.name.clone())
            .unwrap_or_default()
    }

    /// Begins a command. Its first fragments come along.
    ///
    /// # Errors
    /// [`InputError`]
    pub(super) fn command(
        &self,
        config: &PowerShellConfig,
        id: &str,
        fragments: &[u8],
        terms: &Terms<'_>,
    ) -> Result<(), InputError> {
        let mut state = self.state();
        if state.pool_state == PoolState::Broken {
            return Err(InputError::Broken);
        }
        let key = id.to_ascii_uppercase();
        if state.commands.contains_key(&key) {
            return Err(InputError::SameCommand);
        }
        if state.commands.len() >= config.commands_per_shell_max {
            return Err(InputError::TooMany);
        }
        let pipeline = id.parse().unwrap_or_default();
        state.commands.insert(key, Command::new(pipeline));
        let taken = self.take_input(&mut state, Some(id), "stdin", fragments, terms);
        drop(state);
        self.tell();
        taken
    }

    /// Takes input for the pool or a command.
    ///
    /// # Errors
    /// [`InputError`]
    pub(super) fn input(
        &self,
        command_id: Option<&str>,
        stream: &str,
        fragments: &[u8],
        terms: &Terms<'_>,
    ) -> Result<(), InputError> {
        let mut state = self.state();
        let taken = self.take_input(&mut state, command_id, stream, fragments, terms);
        drop(state);
        self.tell();
        taken
    }

    /// What waits for a Receive with this message id.
    pub(super) fn find(&self, command_id: Option<&str>, message_id: &str, terms: &Terms<'_>) -> Found {
        let mut guard = self.state();
        let state = &mut *guard;
        if state.closed {
            return Found::Gone;
        }
        if terms.twist.broken_pool {
            self.break_pool(state, terms);
        }
        let Some(id) = command_id else { return Self::find_in_pool(state, message_id, &terms.take) };
        let Some(mut command) = state.commands.remove(&id.to_ascii_uppercase()) else {
            return Found::NoCommand;
        };
        let progress = match command.was_fetched(message_id) {
            true => Progress::Ready,
            false => command.work(&mut self.bench(state, terms), terms.take.text_max_bytes / 4 * 3),
        };
        let found = match progress {
            Progress::Ready => Found::Output(command.fetch(message_id, &terms.take)),
            Progress::Idle if command.has_ended() => {
                Found::Output(Fetched { elements: Vec::new(), done: true })
            }
            Progress::Idle => Found::Nothing { until_ms: None },
            Progress::At(until_ms) => Found::Nothing { until_ms: Some(until_ms) },
        };
        let ended = command.has_ended();
        state.commands.insert(id.to_ascii_uppercase(), command);
        if ended {
            self.start_waiting(state, terms);
        }
        found
    }

    /// Objects a command has given so far.
    pub(super) fn objects(&self, command_id: Option<&str>) -> u64 {
        let id = command_id.map(str::to_ascii_uppercase).unwrap_or_default();
        self.state().commands.get(&id).map_or(0, Command::objects)
    }

    /// Forgets a command: it no longer counts.
    ///
    /// # Errors
    /// [`InputError::NoCommand`]
    pub(super) fn terminate(&self, id: &str, terms: &Terms<'_>) -> Result<(), InputError> {
        let mut state = self.state();
        let key = id.to_ascii_uppercase();
        state.waiting.retain(|waiting| *waiting != key);
        state.commands.remove(&key).ok_or(InputError::NoCommand)?;
        self.start_waiting(&mut state, terms);
        drop(state);
        self.tell();
        Ok(())
    }

    /// Stops a pipeline; it stays until it is terminated.
    ///
    /// # Errors
    /// [`InputError::NoCommand`]
    pub(super) fn stop(&self, id: &str, terms: &Terms<'_>) -> Result<(), InputError> {
        let mut guard = self.state();
        let state = &mut *guard;
        let key = id.to_ascii_uppercase();
        let mut command = state.commands.remove(&key).ok_or(InputError::NoCommand)?;
        state.waiting.retain(|waiting| *waiting != key);
        command.stop(&mut self.bench(state, terms));
        state.commands.insert(key, command);
        self.start_waiting(state, terms);
        drop(guard);
        self.tell();
        Ok(())
    }

    fn find_in_pool(state: &mut State, message_id: &str, take: &Take) -> Found {
        if let Some((_, elements)) = state.last.as_ref().filter(|(id, _)| id == message_id) {
            return Found::Output(Fetched { elements: elements.clone(), done: false });
        }
        if state.out.is_empty() {
            return Found::Nothing { until_ms: None };
        }
        let elements = state.out.take(take);
        state.last = Some((message_id.to_owned(), elements.clone()));
        Found::Output(Fetched { elements, done: false })
    }

    fn take_input(
        &self,
        state: &mut State,
        command_id: Option<&str>,
        stream: &str,
        fragments: &[u8],
        terms: &Terms<'_>,
    ) -> Result<(), InputError> {
        let mut messages = Vec::new();
        {
            let input = match command_id {
                Some(id) => {
                    let command =
                        state.commands.get_mut(&id.to_ascii_uppercase()).ok_or(InputError::NoCommand)?;
                    command.input()
                }
                None => state.input.entry(stream.to_owned()).or_default(),
            };
            input.push(fragments);
            while let Some(bytes) = input.next_message().map_err(InputError::Fragment)? {
                messages.push(bytes);
            }
        }
        for bytes in messages {
            let envelope = Envelope::read(&bytes, &mut state.reader).map_err(InputError::Message)?;
            self.message(state, command_id, envelope, terms);
        }
        Ok(())
    }

    /// Acts on a message. A host's answer may come on the pool's stream; the message says which pipeline it is for.
    fn message(&self, state: &mut State, command_id: Option<&str>, envelope: Envelope, terms: &Terms<'_>) {
        let key = command_id.map(str::to_ascii_uppercase).or_else(|| {
            let found = state.commands.iter().find(|(_, command)| command.pipeline == envelope.pipeline);
            found.map(|(key, _)| key.clone())
        });
        match (envelope.message, key) {
            (Message::CreatePipeline(pipeline), Some(key)) => {
                if let Some(command) = state.commands.get_mut(&key) {
                    command.pipeline = envelope.pipeline;
                    command.accept(*pipeline);
                    state.waiting.push(key);
                }
                self.start_waiting(state, terms);
            }
            (Message::PipelineHostResponse(response), Some(key)) => {
                if let Some(mut command) = state.commands.remove(&key) {
                    command.answered(&mut self.bench(state, terms), &response);
                    state.commands.insert(key, command);
                }
            }
            (Message::SetMaxRunspaces { runspaces, call }, _) => {
                let possible = (1..=RUNSPACES_MAX).contains(&runspaces);
                if possible {
                    state.runspaces_max = runspaces;
                }
                let response = possible.into();
                self.post_to_pool(state, terms, Message::RunspaceAvailability { call, response });
                self.start_waiting(state, terms);
            }
            (Message::SetMinRunspaces { runspaces, call }, _) => {
                let response = (1..=state.runspaces_max).contains(&runspaces).into();
                self.post_to_pool(state, terms, Message::RunspaceAvailability { call, response });
            }
            (Message::GetAvailableRunspaces { call }, _) => {
                let busy = i64::try_from(state.commands.values().filter(|command| command.is_busy()).count());
                let free = i64::from(state.runspaces_max).saturating_sub(busy.unwrap_or(i64::MAX));
                let response = Value::I64(free.max(0));
                self.post_to_pool(state, terms, Message::RunspaceAvailability { call, response });
            }
            // Input of a pipeline no cmdlet here reads, and keys for values no cmdlet here takes.
            (other, _) => tracing::debug!(kind = ?std::mem::discriminant(&other), "PSRP message ignored"),
        }
    }

    /// Starts commands as long as runspaces are free.
    fn start_waiting(&self, state: &mut State, terms: &Terms<'_>) {
        while !state.waiting.is_empty() {
            let busy = state.commands.values().filter(|command| command.is_busy()).count();
            if busy >= usize::try_from(state.runspaces_max).unwrap_or(1) {
                return;
            }
            let key = state.waiting.remove(0);
            let Some(mut command) = state.commands.remove(&key) else { continue };
            let (host, mut snap_in) = (state.host, state.snap_in);
            command.start(&mut self.bench(state, terms), host, |cmdlet| self.run(&mut snap_in, cmdlet));
            state.snap_in = snap_in;
            state.commands.insert(key, command);
        }
    }

    /// In an ordinary PowerShell session Exchange's cmdlets exist once their snap-in is loaded.
    fn run(&self, snap_in: &mut bool, cmdlet: &Cmdlet) -> Started {
        if self.via == Via::SnapIn {
            if cmdlet.name.eq_ignore_ascii_case("Add-PSSnapin") {
                return Started::Done(language::add_snap_in(cmdlet).map(|()| *snap_in = true));
            }
            if !*snap_in {
                return Started::Done(Err(language::command_not_found(&cmdlet.name)));
            }
        }
        let caller = Caller { account: self.account.clone(), via: self.via };
        Started::Running(Box::new(cmdlets::run(&self.organisation, &caller, cmdlet)))
    }

    fn break_pool(&self, state: &mut State, terms: &Terms<'_>) {
        if state.pool_state == PoolState::Broken {
            return;
        }
        state.pool_state = PoolState::Broken;
        let message = Message::PoolState { state: PoolState::Broken, error: Some(language::broken()) };
        self.post_to_pool(state, terms, message);
        for (key, mut command) in std::mem::take(&mut state.commands) {
            command.fail(&mut self.bench(state, terms), language::broken());
            state.commands.insert(key, command);
        }
        state.waiting.clear();
    }

    fn post_to_pool(&self, state: &mut State, terms: &Terms<'_>, message: Message) {
        let mut out = std::mem::take(&mut state.out);
        self.bench(state, terms).post(&mut out, Guid::NIL, message);
        state.out = out;
    }

    fn bench<'a>(&'a self, state: &'a mut State, terms: &'a Terms<'_>) -> Bench<'a> {
        Bench {
            pool: state.pool,
            fragmenter: &mut state.fragmenter,
            version: self.version,
            byte_order_mark: self.byte_order_mark,
            fragment_max_bytes: self.fragment_max_bytes.min(terms.blob_max_bytes),
            now_ms: terms.now_ms,
            stamp: &self.stamp,
            twist: terms.twist,
        }
    }

    fn tell(&self) {
        self.changed.send_modify(|version| *version += 1);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Every change leaves the state usable even if a later step of it panicked.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn new(now_ms: i64) -> Self {
        Self {
            pool: Guid::NIL,
            pool_state: PoolState::BeforeOpen,
            host: false,
            runspaces_max: 1,
            fragmenter: Fragmenter::new(),
            reader: clixml::Reader::new(),
            input: BTreeMap::new(),
            out: Outbox::default(),
            last: None,
            commands: BTreeMap::new(),
            waiting: Vec::new(),
            snap_in: false,
            last_used_ms: now_ms,
            using: 0,
            closed: false,
        }
    }
}

/// A request under way.
pub(super) struct InUse(Arc<Shell>);

impl InUse {
    /// The shell was used until now.
    pub(super) fn until(&self, now_ms: i64) {
        self.0.state().last_used_ms = now_ms;
    }
}

impl Drop for InUse {
    fn drop(&mut self) {
        self.0.state().using -= 1;
    }
}

/// Whether the client says it has a host (`HostInfo`, MS-PSRP 2.2.3.14).
fn has_host(message: &[u8]) -> bool {
    /// Destination, type, pool and pipeline.
    const HEADER_BYTES: usize = 40;
    let body = message.get(HEADER_BYTES..).unwrap_or_default();
    let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
    let Ok(Value::Object(body)) = clixml::read(body) else { return false };
    let Some(Value::Object(info)) = body.get("HostInfo") else { return false };
    info.get("_isHostNull").and_then(Value::as_bool) == Some(false)
        && info.get("_isHostUINull").and_then(Value::as_bool) == Some(false)
}

/// What the server says of itself (MS-PSRP 2.2.2.13).
fn private_data(version: (u32, u32)) -> Message {
    let text = |key: &str, value: Value| (Value::from(key), value);
    let (major, minor) = version;
    // Servers that speak 2.3 run PowerShell 5.1, older ones PowerShell 4 or 2.
    let powershell = match version {
        (2, 3) => "5.1.17763.5933",
        (2, 2) => "4.0",
        _ => "2.0",
    };
    let table = dictionary(vec![
        text("PSVersion", Value::Version(powershell.to_owned())),
        text("WSManStackVersion", Value::Version("3.0".to_owned())),
        text("SerializationVersion", Value::Version("1.1.0.1".to_owned())),
        text("PSRemotingProtocolVersion", Value::Version(format!("{major}.{minor}"))),
        text("CLRVersion", Value::Version("4.0.30319.42000".to_owned())),
        text("BuildVersion", Value::Version("10.0.17763.5933".to_owned())),
    ]);
    Message::ApplicationPrivateData(dictionary(vec![text("PSVersionTable", table)]))
}

fn dictionary(entries: Vec<(Value, Value)>) -> Value {
    Value::Object(Box::new(clixml::Object {
        types: PRIMITIVE_DICTIONARY.map(str::to_owned).into(),
        content: Content::Dictionary(entries),
        ..clixml::Object::default()
    }))
}
