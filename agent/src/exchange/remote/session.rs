//! One session with one server: a runspace pool in a shell, driven request by request (MS-PSRP 3.1, MS-WSMV 3.1).

use std::sync::Arc;
use std::time::Duration;

use causeway_protocol::clixml::Object;
use causeway_protocol::cmdlet::{Cmdlet, Completed};
use causeway_protocol::psrp::Guid;
use causeway_protocol::wsman::{
    EXCHANGE_CONFIGURATION, Event, POWERSHELL_CONFIGURATION, RemoteSession, SessionError, SessionSettings,
};
use futures_util::future::BoxFuture;
use thiserror::Error;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};

use super::{Room, Shared};
use crate::chain::Chain;
use crate::exchange::transport::{Transport, TransportError};
use crate::exchange::{ExchangeError, ServerFacts, Session, limits};
use crate::web::servers::Server;

/// What holds the cmdlets of Exchange 2007.
const SNAP_IN: &str = "Microsoft.Exchange.Management.PowerShell.Admin";

/// Why there is no session, or no longer.
#[derive(Debug, Error)]
pub(super) enum OpenError {
    #[error(transparent)]
    Transport(#[from] TransportError),
    #[error("{server}")]
    Session {
        server: String,
        #[source]
        source: SessionError,
    },
    #[error("{server} does not open a session within {} s", limits::OPEN_WITHIN.as_secs())]
    Slow { server: String },
    #[error("{server} has no cmdlets of Exchange 2007: {words}")]
    NoSnapIn { server: String, words: String },
    #[error("{cmdlet} at {server} was silent for {secs} s")]
    Hangs { server: String, cmdlet: String, secs: u64 },
}

impl OpenError {
    /// Whether another server may do better, and this one should be left alone for a while.
    pub(super) fn is_servers_fault(&self) -> bool {
        match self {
            Self::Transport(error) => error.is_servers_fault(),
            Self::Session { source: SessionError::Fault { fault, .. }, .. } => {
                !fault.is_load() && !is_denied(&fault.subcode, fault.code)
            }
            Self::Session { .. } | Self::Slow { .. } | Self::NoSnapIn { .. } | Self::Hangs { .. } => true,
        }
    }

    /// Whether another account may do better, and no other server.
    pub(super) fn is_about_account(&self) -> bool {
        match self {
            Self::Transport(TransportError::Auth(error)) => error.is_about_account(),
            Self::Transport(TransportError::Forbidden { .. }) => true,
            Self::Session { source: SessionError::Fault { fault, .. }, .. } => {
                is_denied(&fault.subcode, fault.code)
            }
            _ => false,
        }
    }

    /// Whether the shell was not there, so that what was asked has not begun.
    fn is_shell_gone(&self) -> bool {
        matches!(self, Self::Session { source: SessionError::Fault { fault, .. }, .. } if fault.is_shell_gone())
    }

    /// Whether nothing came back, which a second try of something harmless may change.
    fn is_loss(&self) -> bool {
        match self {
            Self::Transport(TransportError::Http(error)) => error.is_loss(),
            Self::Transport(TransportError::Busy { .. }) => true,
            _ => false,
        }
    }
}

/// ERROR_ACCESS_DENIED (winerror.h) and its subcode.
fn is_denied(subcode: &str, code: Option<u32>) -> bool {
    code == Some(5) || subcode == "AccessDenied"
}

impl From<OpenError> for ExchangeError {
    fn from(error: OpenError) -> Self {
        let detail: String = Chain(&error).to_string().chars().take(limits::TEXT_MAX_CHARS).collect();
        match error {
            OpenError::Transport(error) => error.into(),
            OpenError::Session { source: SessionError::Fault { fault, .. }, .. } => {
                if fault.is_load() {
                    Self::Throttled { detail, retry_after: Some(limits::BUSY_RETRY_AFTER) }
                } else if is_denied(&fault.subcode, fault.code) {
                    Self::Forbidden { detail }
                } else {
                    Self::Unreachable { detail }
                }
            }
            OpenError::Session { source: SessionError::Soap { .. }, .. } => Self::Protocol { detail },
            OpenError::Session { .. }
            | OpenError::Slow { .. }
            | OpenError::NoSnapIn { .. }
            | OpenError::Hangs { .. } => Self::Unreachable { detail },
        }
    }
}

/// A session; closed in the background when nobody does it properly.
pub(super) struct Remote(Option<Box<Shell>>);

/// A shell at a server and what it is spoken to by.
struct Shell {
    shared: Arc<Shared>,
    transport: Transport,
    machine: RemoteSession,
    server: Option<Arc<Server>>,
    room: Option<Room>,
    /// A cmdlet was begun and its end not seen.
    in_the_middle: bool,
    /// Requests of the running cmdlet that the server has taken.
    begun: u32,
    /// The last cmdlet has ended, but the server could not be told so.
    lost: bool,
}

impl Remote {
    /// Opens a session over this transport.
    pub(super) async fn open(shared: Arc<Shared>, transport: Transport) -> Result<Self, OpenError> {
        let machine = machine(&shared, &transport);
        let shell = Shell {
            shared,
            transport,
            machine,
            server: None,
            room: None,
            in_the_middle: false,
            begun: 0,
            lost: false,
        };
        // From here on a shell that was created is closed, whatever happens.
        let mut remote = Self(Some(Box::new(shell)));
        remote.shell().begin().await?;
        Ok(remote)
    }

    /// Remembers whose it is.
    pub(super) fn keep(&mut self, server: Arc<Server>, room: Option<Room>) {
        let shell = self.shell();
        (shell.server, shell.room) = (Some(server), room);
    }

    fn shell(&mut self) -> &mut Shell {
        self.0.as_mut().expect("taken only when closed or dropped")
    }
}

impl Session for Remote {
    fn run<'a>(
        &'a mut self,
        cmdlet: &'a Cmdlet,
        objects: mpsc::Sender<Object>,
    ) -> BoxFuture<'a, Result<Completed, ExchangeError>> {
        Box::pin(self.shell().run(cmdlet, objects))
    }

    fn server(&self) -> ServerFacts {
        let host = self.0.as_ref().map(|shell| shell.transport.endpoint().host.clone());
        ServerFacts { host: host.unwrap_or_default(), online: false }
    }

    fn close(mut self: Box<Self>) -> BoxFuture<'static, ()> {
        let shell = self.0.take();
        Box::pin(async move {
            if let Some(shell) = shell {
                shell.close().await;
            }
        })
    }
}

impl Drop for Remote {
    fn drop(&mut self) {
        // A shell that nobody closes counts against the account for a quarter of an hour.
        if let Some(shell) = self.0.take()
            && shell.machine.has_shell()
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            runtime.spawn(shell.close());
        }
    }
}

fn machine(shared: &Shared, transport: &Transport) -> RemoteSession {
    let plain = shared.common.settings.snap_in;
    RemoteSession::new(SessionSettings {
        url: transport.endpoint().url.clone(),
        configuration: if plain { POWERSHELL_CONFIGURATION } else { EXCHANGE_CONFIGURATION }.to_owned(),
        session_id: id(shared),
        pool_id: id(shared),
    })
}

fn id(shared: &Shared) -> Guid {
    Guid::from_bytes(shared.random.uuid().into_bytes())
}

impl Shell {
    /// Creates the shell and waits for its pool.
    async fn begin(&mut self) -> Result<(), OpenError> {
        let slow = OpenError::Slow { server: self.name() };
        timeout(limits::OPEN_WITHIN, self.opened()).await.unwrap_or(Err(slow))?;
        if self.shared.common.settings.snap_in {
            self.snap_in().await?;
        }
        Ok(())
    }

    async fn opened(&mut self) -> Result<(), OpenError> {
        loop {
            while let Some(event) = self.next_event()? {
                if let Event::Opened(_) = event {
                    return Ok(());
                }
            }
            self.ask(limits::OPEN_WITHIN).await?;
        }
    }

    async fn snap_in(&mut self) -> Result<(), OpenError> {
        let cmdlet = Cmdlet::new("Add-PSSnapin").with("Name", SNAP_IN);
        let (objects, _none) = mpsc::channel(1);
        let completed = self.piped(&cmdlet, &objects).await?;
        match completed.failure.or_else(|| completed.errors.into_iter().next()) {
            None => Ok(()),
            Some(error) => {
                let words = error.message.chars().take(limits::TEXT_MAX_CHARS).collect();
                Err(OpenError::NoSnapIn { server: self.name(), words })
            }
        }
    }

    async fn run(
        &mut self,
        cmdlet: &Cmdlet,
        objects: mpsc::Sender<Object>,
    ) -> Result<Completed, ExchangeError> {
        if std::mem::replace(&mut self.in_the_middle, true) {
            let detail = format!("a cmdlet at {} was given up in the middle", self.name());
            return Err(ExchangeError::Unreachable { detail });
        }
        let pause = self.shared.pace().pause();
        if !pause.is_zero() {
            tokio::select! {
                () = sleep(pause) => {}
                () = objects.closed() => {
                    self.in_the_middle = false;
                    return Err(ExchangeError::Stopped);
                }
            }
        }
        let piped = match self.lost {
            true => self.anew(cmdlet, &objects).await,
            false => match self.piped(cmdlet, &objects).await {
                // Idle too long: nothing has begun, so a new shell may do it.
                Err(error) if error.is_shell_gone() && self.begun == 0 => self.anew(cmdlet, &objects).await,
                other => other,
            },
        };
        match piped {
            Ok(completed) => {
                self.in_the_middle = false;
                self.shared.pace().note(&completed.warnings);
                if objects.is_closed() {
                    return Err(ExchangeError::Stopped);
                }
                Ok(completed)
            }
            Err(error) => {
                if let Some(server) = self.server.as_ref().filter(|_| error.is_servers_fault()) {
                    server.failed(Instant::now());
                }
                // Whoever holds a session that is over must not stand in the way of the next one.
                self.room = None;
                Err(error.into())
            }
        }
    }

    /// Runs a cmdlet in a new shell, because the old one is gone.
    async fn anew(
        &mut self,
        cmdlet: &Cmdlet,
        objects: &mpsc::Sender<Object>,
    ) -> Result<Completed, OpenError> {
        tracing::debug!(server = %self.name(), "The shell is gone; another one is opened");
        self.machine = machine(&self.shared, &self.transport);
        self.begin().await?;
        self.lost = false;
        self.piped(cmdlet, objects).await
    }

    /// Runs a cmdlet from its first request to its last.
    async fn piped(
        &mut self,
        cmdlet: &Cmdlet,
        objects: &mpsc::Sender<Object>,
    ) -> Result<Completed, OpenError> {
        let id = id(&self.shared);
        self.begun = 0;
        self.machine.run(cmdlet, id).map_err(|source| OpenError::Session { server: self.name(), source })?;
        let silence_max = Duration::from_secs(self.shared.common.settings.silence_max_secs);
        let (mut heard, mut quick) = (Instant::now(), 0);
        let mut completed = None;
        let (mut stopping, mut hung) = (false, false);
        loop {
            while let Some(event) = self.next_event()? {
                (heard, quick) = (Instant::now(), 0);
                match event {
                    // Full means that the server is read no further until there is room.
                    Event::Object(object) => {
                        let wanted = stopping || objects.send(object).await.is_ok();
                        if !wanted {
                            stopping = true;
                            self.machine.stop();
                        }
                    }
                    Event::Completed(done) => completed = Some(done),
                    _ => {}
                }
            }
            if completed.is_none() && heard.elapsed() > silence_max {
                if stopping {
                    return Err(self.hangs(cmdlet, silence_max));
                }
                // Stopped properly it does not count against us any more.
                (stopping, hung, heard) = (true, true, Instant::now());
                self.machine.stop();
            }
            // A server that says at once that it has nothing yet must not be asked without pause.
            if quick > limits::EMPTY_ANSWERS_MAX {
                sleep(limits::EMPTY_ANSWER_AFTER).await;
            }
            let asked = Instant::now();
            let answered = self.ask(limits::ANSWER_WITHIN).await;
            quick = if asked.elapsed() < limits::EMPTY_ANSWER_AFTER { quick + 1 } else { 0 };
            match answered {
                Ok(true) => self.begun = self.begun.saturating_add(1),
                Ok(false) => {
                    let completed = completed.filter(|_| !hung);
                    return completed.ok_or_else(|| self.hangs(cmdlet, silence_max));
                }
                // It is over; that the server was not told so is its loss.
                Err(error) if completed.is_some() => {
                    tracing::debug!(server = %self.name(), error = %Chain(&error), "A command was not ended properly");
                    self.lost = true;
                    return Ok(completed.take().unwrap_or_default());
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Sends the next request and takes its answer; false when there is none to send. What can be asked again is, when
    /// the answer gets lost.
    async fn ask(&mut self, within: Duration) -> Result<bool, OpenError> {
        let Some(mut envelope) = self.machine.next_request(id(&self.shared)) else { return Ok(false) };
        let mut tries = 0;
        loop {
            let error = match self.transport.post(envelope.as_bytes(), within).await {
                Ok(body) => {
                    let answered = self.machine.answer(&body);
                    answered.map_err(|source| OpenError::Session { server: self.name(), source })?;
                    return Ok(true);
                }
                Err(error) => OpenError::from(error),
            };
            tries += 1;
            match self.machine.again() {
                Some(same) if error.is_loss() && tries < limits::RECEIVE_TRIES => {
                    tracing::debug!(server = %self.name(), error = %Chain(&error), tries, "An answer got lost and is asked for again");
                    envelope = same.to_owned();
                    sleep(limits::RECEIVE_PAUSE * tries).await;
                }
                _ => return Err(error),
            }
        }
    }

    fn next_event(&mut self) -> Result<Option<Event>, OpenError> {
        self.machine.next_event().map_err(|source| OpenError::Session { server: self.name(), source })
    }

    async fn close(mut self: Box<Self>) {
        self.machine.close();
        let shell = &mut *self;
        let closed = async {
            while !matches!(shell.next_event(), Ok(Some(Event::Closed)) | Err(_)) {
                if !matches!(shell.ask(limits::CLOSE_WITHIN).await, Ok(true)) {
                    return;
                }
            }
        };
        if timeout(limits::CLOSE_WITHIN, closed).await.is_err() {
            tracing::debug!(server = %self.name(), "A session could not be closed in time");
        }
    }

    fn hangs(&self, cmdlet: &Cmdlet, silence_max: Duration) -> OpenError {
        OpenError::Hangs { server: self.name(), cmdlet: cmdlet.name.clone(), secs: silence_max.as_secs() }
    }

    fn name(&self) -> String {
        self.transport.endpoint().to_string()
    }
}
