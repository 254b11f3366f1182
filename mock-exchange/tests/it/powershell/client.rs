//! The smallest client of remote PowerShell: one connection of plain HTTP with Basic, so that a test sees every byte.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use causeway_mock_exchange::{Config, MockExchange};
use causeway_protocol::clixml::{self, Value};
use causeway_protocol::cmdlet::{Cmdlet, ErrorRecord};
use causeway_protocol::psrp::{
    Capability, Defragmenter, Destination, Envelope, Fragmenter, Guid, Message, Pipeline, PipelineState,
    PoolState,
};
use causeway_protocol::wsman::{
    CreateShell, EXCHANGE_CONFIGURATION, Fault, Header, Operation, Reply, Request, Response, Signal,
    SoapError, resource_uri,
};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;

pub(super) const POOL: Guid = Guid::from_bytes([7; 16]);

/// A mock that takes Basic over plain HTTP, of a company small enough for debug builds.
pub(super) async fn start(change: impl FnOnce(&mut Config)) -> MockExchange {
    let mut config = Config::default();
    config.common.users = 20;
    config.partnerships = Some(25);
    config.powershell.basic_over_http = true;
    change(&mut config);
    MockExchange::start(config).await.unwrap()
}

/// An HTTP answer.
#[derive(Debug)]
pub(super) struct Http {
    pub(super) status: u16,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
}

impl Http {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }
}

/// What a pipeline gave.
#[derive(Debug, Default)]
pub(super) struct Ran {
    pub(super) objects: Vec<clixml::Object>,
    pub(super) errors: Vec<ErrorRecord>,
    pub(super) warnings: Vec<String>,
    pub(super) host_calls: Vec<String>,
    pub(super) state: Option<PipelineState>,
    pub(super) failure: Option<ErrorRecord>,
}

pub(super) struct Client {
    tcp: BufReader<TcpStream>,
    address: String,
    pub(super) authorization: String,
    pub(super) cookie: Option<String>,
    pub(super) path: String,
    pub(super) configuration: String,
    pub(super) shell: Option<String>,
    pub(super) envelope_max_bytes: usize,
    pub(super) timeout: Duration,
    pub(super) host: bool,
    pub(super) more_headers: String,
    fragmenter: Fragmenter,
    requests: u32,
    /// Instead of a fresh one.
    pub(super) message_id: Option<String>,
}

impl Client {
    pub(super) async fn connect(mock: &MockExchange) -> Self {
        let admin = mock.service_account();
        Self::connect_as(mock, &admin.user, &admin.password).await
    }

    pub(super) async fn connect_as(mock: &MockExchange, user: &str, password: &str) -> Self {
        let url = mock.url("powershell_http").strip_prefix("http://").unwrap();
        let (address, path) = url.split_once('/').unwrap();
        Self {
            tcp: BufReader::new(TcpStream::connect(address).await.unwrap()),
            address: address.to_owned(),
            authorization: format!("Basic {}", STANDARD.encode(format!("{user}:{password}"))),
            cookie: None,
            path: format!("/{path}"),
            configuration: EXCHANGE_CONFIGURATION.to_owned(),
            shell: None,
            envelope_max_bytes: 153_600,
            timeout: Duration::from_secs(20),
            host: false,
            more_headers: String::new(),
            fragmenter: Fragmenter::new(),
            requests: 0,
            message_id: None,
        }
    }

    pub(super) async fn reconnect(&mut self) {
        self.tcp = BufReader::new(TcpStream::connect(&self.address).await.unwrap());
    }

    /// Sends a body and reads the answer; an error when the connection ends before it.
    pub(super) async fn post(&mut self, body: &[u8]) -> std::io::Result<Http> {
        let cookie = self.cookie.as_ref().map(|cookie| format!("Cookie: {cookie}\r\n")).unwrap_or_default();
        let head = format!(
            "POST {} HTTP/1.1\r\nHost: {}\r\nAuthorization: {}\r\n{cookie}{}\
             Content-Type: application/soap+xml;charset=UTF-8\r\nContent-Length: {}\r\n\r\n",
            self.path,
            self.address,
            self.authorization,
            self.more_headers,
            body.len()
        );
        self.tcp.write_all(&[head.as_bytes(), body].concat()).await?;
        self.read().await
    }

    async fn read(&mut self) -> std::io::Result<Http> {
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            if self.tcp.read_line(&mut line).await? == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            match line.trim_end() {
                "" => break,
                line => lines.push(line.to_owned()),
            }
        }
        let status = lines[0].split(' ').nth(1).unwrap().parse().unwrap();
        let headers: Vec<_> = lines[1..]
            .iter()
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.trim().to_owned(), value.trim().to_owned()))
            .collect();
        let mut http = Http { status, headers, body: Vec::new() };
        let length = http.header("content-length").unwrap_or("0").parse().unwrap();
        http.body = vec![0; length];
        self.tcp.read_exact(&mut http.body).await?;
        Ok(http)
    }

    pub(super) fn request(&mut self, operation: Operation) -> Request {
        self.requests += 1;
        let message_id = self
            .message_id
            .clone()
            .unwrap_or_else(|| format!("uuid:00000000-0000-0000-0000-{:012}", self.requests));
        let header = Header {
            to: format!("http://{}{}", self.address, self.path),
            resource_uri: resource_uri(&self.configuration),
            message_id,
            operation_timeout: Some(self.timeout),
            envelope_max_bytes: Some(self.envelope_max_bytes),
            selectors: self.shell.iter().map(|id| ("ShellId".to_owned(), id.clone())).collect(),
            ..Header::default()
        };
        Request { header, operation }
    }

    pub(super) async fn ask_http(&mut self, operation: Operation) -> std::io::Result<(String, Http)> {
        let request = self.request(operation);
        let http = self.post(request.write().as_bytes()).await?;
        if let Some(cookie) = http.header("set-cookie") {
            self.cookie = cookie.split(';').next().map(str::to_owned);
        }
        Ok((request.header.message_id, http))
    }

    pub(super) async fn try_ask(&mut self, operation: Operation) -> Result<Reply, SoapError> {
        let (id, http) = self.ask_http(operation).await.unwrap();
        Ok(Response::read(&http.body, &id)?.reply)
    }

    pub(super) async fn ask(&mut self, operation: Operation) -> Result<Reply, Fault> {
        match self.try_ask(operation).await.unwrap() {
            Reply::Fault(fault) => Err(fault),
            reply => Ok(reply),
        }
    }

    /// Opens a runspace pool and reads what the server says until it is open or broken.
    pub(super) async fn open(&mut self) -> Result<PoolState, Fault> {
        let create = self.creation();
        let Reply::Created(created) = self.ask(create).await? else { panic!("not a shell") };
        self.shell = Some(created.shell_id);
        let mut messages = Defragmenter::new();
        loop {
            for envelope in self.receive(None, &mut messages).await?.0 {
                if let Message::PoolState { state, .. } = envelope.message {
                    return Ok(state);
                }
            }
        }
    }

    pub(super) fn creation(&mut self) -> Operation {
        let host = if self.host { "false" } else { "true" };
        let init = format!(
            "<Obj RefId=\"0\"><MS><I32 N=\"MinRunspaces\">1</I32><I32 N=\"MaxRunspaces\">1</I32><Obj RefId=\"1\" N=\"HostInfo\"><MS>\
             <B N=\"_isHostNull\">{host}</B><B N=\"_isHostUINull\">{host}</B><B N=\"_isHostRawUINull\">{host}</B>\
             <B N=\"_useRunspaceHost\">false</B></MS></Obj></MS></Obj>"
        );
        let mut bytes = envelope(Guid::NIL, Message::SessionCapability(Capability::default()));
        let mut creation = Vec::new();
        self.fragmenter.append_whole(&bytes, &mut creation);
        bytes.truncate(40);
        // INIT_RUNSPACEPOOL
        bytes[4..8].copy_from_slice(&0x0001_0004u32.to_le_bytes());
        bytes.extend_from_slice(init.as_bytes());
        self.fragmenter.append_whole(&bytes, &mut creation);
        Operation::Create(CreateShell {
            shell_id: Some(POOL.upper()),
            input_streams: "stdin pr".to_owned(),
            output_streams: "stdout".to_owned(),
            creation: Some(creation),
            idle_timeout: None,
        })
    }

    /// One Receive: messages that are complete, and whether nothing more follows.
    pub(super) async fn receive(
        &mut self,
        command: Option<&str>,
        messages: &mut Defragmenter,
    ) -> Result<(Vec<Envelope>, bool), Fault> {
        let operation =
            Operation::Receive { command_id: command.map(str::to_owned), streams: "stdout".to_owned() };
        let Reply::Received { streams, state } = self.ask(operation).await? else { panic!("no output") };
        let mut reader = clixml::Reader::new();
        let mut envelopes = Vec::new();
        for stream in streams {
            assert_eq!(stream.command_id.as_deref(), command, "the stream says whose it is");
            messages.push(&stream.bytes);
            while let Some(bytes) = messages.next_message().unwrap() {
                envelopes.push(Envelope::read(&bytes, &mut reader).unwrap());
            }
        }
        Ok((envelopes, state.is_some_and(|state| state.done)))
    }

    /// Begins a pipeline; the number makes its id.
    pub(super) async fn begin(&mut self, number: u8, cmdlet: &Cmdlet) -> Result<String, Fault> {
        let pipeline = Guid::from_bytes([number; 16]);
        let bytes = envelope(pipeline, Message::CreatePipeline(Box::new(Pipeline::from(cmdlet))));
        let mut fragments = Vec::new();
        self.fragmenter.append_whole(&bytes, &mut fragments);
        let operation = Operation::Command {
            command_id: Some(pipeline.upper()),
            command: String::new(),
            arguments: vec![STANDARD.encode(fragments)],
        };
        match self.ask(operation).await? {
            Reply::Commanded { command_id } => Ok(command_id),
            other => panic!("{other:?}"),
        }
    }

    /// Reads a pipeline to its end.
    pub(super) async fn finish(&mut self, command: &str) -> Result<Ran, Fault> {
        let mut ran = Ran::default();
        let mut messages = Defragmenter::new();
        loop {
            let (envelopes, done) = self.receive(Some(command), &mut messages).await?;
            for envelope in envelopes {
                ran.add(envelope.message);
            }
            if done {
                messages.end().unwrap();
                return Ok(ran);
            }
        }
    }

    pub(super) async fn run(&mut self, number: u8, cmdlet: &Cmdlet) -> Result<Ran, Fault> {
        let command = self.begin(number, cmdlet).await?;
        let ran = self.finish(&command).await?;
        self.signal(&command, Signal::Terminate).await?;
        Ok(ran)
    }

    pub(super) async fn signal(&mut self, command: &str, signal: Signal) -> Result<(), Fault> {
        self.ask(Operation::Signal { command_id: Some(command.to_owned()), signal }).await.map(drop)
    }

    /// A message of the client's own making, to the pool or a pipeline.
    pub(super) async fn send(
        &mut self,
        stream: &str,
        command: Option<&str>,
        pipeline: Guid,
        message: Message,
    ) {
        let mut fragments = Vec::new();
        self.fragmenter.append_whole(&envelope(pipeline, message), &mut fragments);
        let stream = causeway_protocol::wsman::Stream {
            name: stream.to_owned(),
            command_id: command.map(str::to_owned),
            bytes: fragments,
        };
        assert_eq!(self.ask(Operation::Send { streams: vec![stream] }).await, Ok(Reply::Sent));
    }
}

impl Ran {
    fn add(&mut self, message: Message) {
        match message {
            Message::PipelineOutput(Value::Object(object)) => self.objects.push(*object),
            Message::ErrorRecord(error) => self.errors.push(error),
            Message::Warning(text) => self.warnings.push(text),
            Message::PipelineHostCall(call) => self.host_calls.push(call.name),
            Message::PipelineState { state, error } => {
                self.state = Some(state);
                self.failure = error;
            }
            _ => {}
        }
    }
}

fn envelope(pipeline: Guid, message: Message) -> Vec<u8> {
    Envelope { destination: Destination::Server, pool: POOL, pipeline, message }.write()
}
