//! Messages (MS-PSRP 2.2.1 and 2.2.2), both directions.

use thiserror::Error;

use super::guid::Guid;
use super::pipeline::{Pipeline, apartment_state, no_host};
use super::records::{
    body, error_record, error_value, informational_record, informational_text, member, number,
};
use crate::clixml::{self, ClixmlError, Value};
use crate::cmdlet::ErrorRecord;

/// Destination, type and two identifiers, little-endian.
const HEADER_BYTES: usize = 40;

/// What Windows servers put before the value.
const BYTE_ORDER_MARK: [u8; 3] = [0xef, 0xbb, 0xbf];

/// Why bytes are no message that is taken.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum MessageError {
    /// Shorter than its header.
    #[error("a message has only {bytes} bytes")]
    Short {
        /// So many.
        bytes: usize,
    },
    /// For neither side.
    #[error("a message is for destination {destination}")]
    Destination {
        /// As it is on the wire.
        destination: u32,
    },
    /// Its value is none.
    #[error("message of type {kind:#010x}")]
    Value {
        /// The type.
        kind: u32,
        /// Why.
        #[source]
        source: ClixmlError,
    },
    /// Its value lacks what the type must have.
    #[error("message of type {kind:#010x} has no usable {property}")]
    Property {
        /// The type.
        kind: u32,
        /// What it lacks.
        property: &'static str,
    },
}

/// Which side a message is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Destination {
    /// The client.
    Client,
    /// The server.
    Server,
}

/// The type of a message by its number (MS-PSRP 2.2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind(pub u32);

#[expect(missing_docs, reason = "the names are those of MS-PSRP 2.2.2")]
impl Kind {
    pub const SESSION_CAPABILITY: Self = Self(0x0001_0002);
    pub const INIT_RUNSPACEPOOL: Self = Self(0x0001_0004);
    pub const SET_MAX_RUNSPACES: Self = Self(0x0002_1002);
    pub const SET_MIN_RUNSPACES: Self = Self(0x0002_1003);
    pub const RUNSPACE_AVAILABILITY: Self = Self(0x0002_1004);
    pub const RUNSPACEPOOL_STATE: Self = Self(0x0002_1005);
    pub const CREATE_PIPELINE: Self = Self(0x0002_1006);
    pub const GET_AVAILABLE_RUNSPACES: Self = Self(0x0002_1007);
    pub const USER_EVENT: Self = Self(0x0002_1008);
    pub const APPLICATION_PRIVATE_DATA: Self = Self(0x0002_1009);
    pub const RUNSPACEPOOL_HOST_CALL: Self = Self(0x0002_1100);
    pub const RUNSPACEPOOL_HOST_RESPONSE: Self = Self(0x0002_1101);
    pub const PIPELINE_INPUT: Self = Self(0x0004_1002);
    pub const END_OF_PIPELINE_INPUT: Self = Self(0x0004_1003);
    pub const PIPELINE_OUTPUT: Self = Self(0x0004_1004);
    pub const ERROR_RECORD: Self = Self(0x0004_1005);
    pub const PIPELINE_STATE: Self = Self(0x0004_1006);
    pub const DEBUG_RECORD: Self = Self(0x0004_1007);
    pub const VERBOSE_RECORD: Self = Self(0x0004_1008);
    pub const WARNING_RECORD: Self = Self(0x0004_1009);
    pub const PROGRESS_RECORD: Self = Self(0x0004_1010);
    pub const INFORMATION_RECORD: Self = Self(0x0004_1011);
    pub const PIPELINE_HOST_CALL: Self = Self(0x0004_1100);
    pub const PIPELINE_HOST_RESPONSE: Self = Self(0x0004_1101);
}

/// A message with whom it is for and what it is about.
#[derive(Clone, Debug, PartialEq)]
pub struct Envelope {
    /// Whom it is for.
    pub destination: Destination,
    /// The runspace pool; servers may leave it nil in their first message.
    pub pool: Guid,
    /// The pipeline; nil where it is about the pool.
    pub pipeline: Guid,
    /// What it says.
    pub message: Message,
}

/// What a message says.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Message {
    /// First in both directions.
    SessionCapability(Capability),
    /// Opens the pool.
    InitRunspacePool {
        /// Runspaces at least.
        min: i32,
        /// Runspaces at most.
        max: i32,
    },
    /// How many runspaces there may be at most; answered by [`Message::RunspaceAvailability`].
    SetMaxRunspaces {
        /// So many.
        runspaces: i32,
        /// Of the call.
        call: i64,
    },
    /// How many runspaces there must be at least.
    SetMinRunspaces {
        /// So many.
        runspaces: i32,
        /// Of the call.
        call: i64,
    },
    /// Asks how many runspaces are free.
    GetAvailableRunspaces {
        /// Of the call.
        call: i64,
    },
    /// Answers the three above.
    RunspaceAvailability {
        /// Of the call.
        call: i64,
        /// A boolean for a change, a number for a question.
        response: Value,
    },
    /// How the pool is.
    PoolState {
        /// Its state.
        state: PoolState,
        /// Why, if it is broken.
        error: Option<ErrorRecord>,
    },
    /// What the server says of itself.
    ApplicationPrivateData(Value),
    /// Runs something.
    CreatePipeline(Box<Pipeline>),
    /// An object for the pipeline.
    PipelineInput(Value),
    /// There is no more of that.
    EndOfPipelineInput,
    /// An object from the pipeline.
    PipelineOutput(Value),
    /// An error that does not end the pipeline.
    ErrorRecord(ErrorRecord),
    /// How the pipeline is.
    PipelineState {
        /// Its state.
        state: PipelineState,
        /// Why, if it failed or was stopped.
        error: Option<ErrorRecord>,
    },
    /// In words.
    Debug(String),
    /// In words.
    Verbose(String),
    /// In words.
    Warning(String),
    /// How far it is.
    Progress(Value),
    /// What a cmdlet wrote to nobody in particular.
    Information(Value),
    /// An event somebody subscribed to.
    UserEvent(Value),
    /// The server asks for the host of the pool.
    PoolHostCall(HostCall),
    /// The server asks for the host of the pipeline.
    PipelineHostCall(HostCall),
    /// The answer, as it is.
    PoolHostResponse(Value),
    /// The answer, as it is.
    PipelineHostResponse(Value),
    /// Of another type, among them those that exchange keys and reconnect.
    Other(Kind, Value),
}

/// What a side speaks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capability {
    /// Major and minor of PSRP.
    pub protocol: (u32, u32),
    /// Of PowerShell.
    pub powershell: String,
    /// Of CLIXML.
    pub serialization: String,
}

impl Default for Capability {
    /// What we speak, and what current clients say.
    fn default() -> Self {
        Self { protocol: (2, 3), powershell: "2.0".to_owned(), serialization: "1.1.0.1".to_owned() }
    }
}

/// State of a runspace pool (MS-PSRP 2.2.3.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are those of the specification")]
pub enum PoolState {
    BeforeOpen,
    Opening,
    Opened,
    Closed,
    Closing,
    Broken,
    NegotiationSent,
    NegotiationSucceeded,
    Connecting,
    Disconnected,
    /// A number the specification does not name.
    Unknown(i32),
}

const POOL_STATES: [PoolState; 10] = [
    PoolState::BeforeOpen,
    PoolState::Opening,
    PoolState::Opened,
    PoolState::Closed,
    PoolState::Closing,
    PoolState::Broken,
    PoolState::NegotiationSent,
    PoolState::NegotiationSucceeded,
    PoolState::Connecting,
    PoolState::Disconnected,
];

impl PoolState {
    fn from_number(number: i32) -> Self {
        usize::try_from(number)
            .ok()
            .and_then(|at| POOL_STATES.get(at).copied())
            .unwrap_or(Self::Unknown(number))
    }

    fn number(self) -> i32 {
        match self {
            Self::Unknown(number) => number,
            state => position(&POOL_STATES, state),
        }
    }
}

/// State of a pipeline (MS-PSRP 2.2.3.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are those of the specification")]
pub enum PipelineState {
    NotStarted,
    Running,
    Stopping,
    Stopped,
    Completed,
    Failed,
    Disconnected,
    /// A number the specification does not name.
    Unknown(i32),
}

const PIPELINE_STATES: [PipelineState; 7] = [
    PipelineState::NotStarted,
    PipelineState::Running,
    PipelineState::Stopping,
    PipelineState::Stopped,
    PipelineState::Completed,
    PipelineState::Failed,
    PipelineState::Disconnected,
];

impl PipelineState {
    fn from_number(number: i32) -> Self {
        let known = usize::try_from(number).ok().and_then(|at| PIPELINE_STATES.get(at).copied());
        known.unwrap_or(Self::Unknown(number))
    }

    fn number(self) -> i32 {
        match self {
            Self::Unknown(number) => number,
            state => position(&PIPELINE_STATES, state),
        }
    }

    /// Whether nothing more of the pipeline follows.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Stopped | Self::Completed | Self::Failed)
    }
}

fn position<S: PartialEq>(states: &[S], state: S) -> i32 {
    let at = states.iter().position(|known| *known == state);
    at.and_then(|at| i32::try_from(at).ok()).unwrap_or_default()
}

/// The server wants something of the client's host (MS-PSRP 2.2.2.27).
#[derive(Clone, Debug, PartialEq)]
pub struct HostCall {
    /// To be repeated in the answer.
    pub call: i64,
    /// Number of the method (MS-PSRP 2.2.3.17), for example 26 for a choice.
    pub method: i32,
    /// Its name.
    pub name: String,
    /// What it is called with.
    pub parameters: Value,
}

impl HostCall {
    fn read(value: &Value) -> Option<Self> {
        let method = member(value, "mi");
        Some(Self {
            call: number(member(value, "ci"))?,
            method: i32::try_from(number(method)?).ok()?,
            name: method.text().unwrap_or_default().into_owned(),
            parameters: member(value, "mp").clone(),
        })
    }

    fn write(&self) -> Value {
        body([("ci", Value::I64(self.call)), ("mi", self.identifier()), ("mp", self.parameters.clone())])
    }

    /// The method, as calls and answers name it.
    pub(super) fn identifier(&self) -> Value {
        let method = "System.Management.Automation.Remoting.RemoteHostMethodId";
        Value::enumeration(method, &self.name, self.method)
    }
}

impl Envelope {
    /// Reads a message; the reader is kept from message to message for what like objects share.
    ///
    /// # Errors
    /// [`MessageError`]
    pub fn read(bytes: &[u8], reader: &mut clixml::Reader) -> Result<Self, MessageError> {
        let short = || MessageError::Short { bytes: bytes.len() };
        let (destination, rest) = bytes.split_first_chunk().ok_or_else(short)?;
        let (kind, rest) = rest.split_first_chunk().ok_or_else(short)?;
        let (pool, rest) = rest.split_first_chunk().ok_or_else(short)?;
        let (pipeline, text) = rest.split_first_chunk().ok_or_else(short)?;
        let destination = match u32::from_le_bytes(*destination) {
            1 => Destination::Client,
            2 => Destination::Server,
            destination => return Err(MessageError::Destination { destination }),
        };
        let kind = Kind(u32::from_le_bytes(*kind));
        let text = text.strip_prefix(&BYTE_ORDER_MARK).unwrap_or(text);
        let value = match text {
            [] => Value::Null,
            text => reader.read(text).map_err(|source| MessageError::Value { kind: kind.0, source })?,
        };
        Ok(Self {
            destination,
            pool: Guid::from_wire(*pool),
            pipeline: Guid::from_wire(*pipeline),
            message: Message::read(kind, value)
                .map_err(|property| MessageError::Property { kind: kind.0, property })?,
        })
    }

    /// Whether the bytes are a message with an object, without reading that.
    pub(super) fn is_output(bytes: &[u8]) -> bool {
        bytes.get(4..8).is_some_and(|kind| kind == Kind::PIPELINE_OUTPUT.0.to_le_bytes())
    }

    /// The message as bytes, without byte order mark, for a peer that speaks our version.
    pub fn write(&self) -> Vec<u8> {
        self.write_for((2, 3), false)
    }

    /// The message for a peer of another version, with or without the byte order mark Windows servers send.
    pub fn write_for(&self, version: (u32, u32), byte_order_mark: bool) -> Vec<u8> {
        let (kind, value) = self.message.write(version);
        let mut text = String::new();
        if let Some(value) = &value {
            clixml::write_to(&mut text, value);
        }
        let destination: u32 = match self.destination {
            Destination::Client => 1,
            Destination::Server => 2,
        };
        let mut bytes = Vec::with_capacity(HEADER_BYTES + BYTE_ORDER_MARK.len() + text.len());
        bytes.extend_from_slice(&destination.to_le_bytes());
        bytes.extend_from_slice(&kind.0.to_le_bytes());
        bytes.extend_from_slice(&self.pool.to_wire());
        bytes.extend_from_slice(&self.pipeline.to_wire());
        if byte_order_mark {
            bytes.extend_from_slice(&BYTE_ORDER_MARK);
        }
        bytes.extend_from_slice(text.as_bytes());
        bytes
    }
}

impl Message {
    /// The error names the property that is missing.
    fn read(kind: Kind, value: Value) -> Result<Self, &'static str> {
        let call = || number(member(&value, "CI")).ok_or("CI");
        let count =
            |name| number(member(&value, name)).and_then(|number| i32::try_from(number).ok()).ok_or(name);
        let error = |name| match member(&value, name) {
            Value::Null => None,
            error => Some(error_record(error)),
        };
        Ok(match kind {
            Kind::SESSION_CAPABILITY => Self::SessionCapability(Capability::read(&value)?),
            Kind::INIT_RUNSPACEPOOL => {
                Self::InitRunspacePool { min: count("MinRunspaces")?, max: count("MaxRunspaces")? }
            }
            Kind::SET_MAX_RUNSPACES => {
                Self::SetMaxRunspaces { runspaces: count("MaxRunspaces")?, call: call()? }
            }
            Kind::SET_MIN_RUNSPACES => {
                Self::SetMinRunspaces { runspaces: count("MinRunspaces")?, call: call()? }
            }
            Kind::GET_AVAILABLE_RUNSPACES => Self::GetAvailableRunspaces { call: call()? },
            Kind::RUNSPACE_AVAILABILITY => Self::RunspaceAvailability {
                call: call()?,
                response: member(&value, "SetMinMaxRunspacesResponse").clone(),
            },
            Kind::RUNSPACEPOOL_STATE => Self::PoolState {
                state: PoolState::from_number(count("RunspaceState")?),
                error: error("ExceptionAsErrorRecord"),
            },
            Kind::APPLICATION_PRIVATE_DATA => {
                Self::ApplicationPrivateData(member(&value, "ApplicationPrivateData").clone())
            }
            Kind::CREATE_PIPELINE => {
                Self::CreatePipeline(Box::new(Pipeline::read(&value).ok_or("PowerShell")?))
            }
            Kind::PIPELINE_INPUT => Self::PipelineInput(value),
            Kind::END_OF_PIPELINE_INPUT => Self::EndOfPipelineInput,
            Kind::PIPELINE_OUTPUT => Self::PipelineOutput(value),
            Kind::ERROR_RECORD => Self::ErrorRecord(error_record(&value)),
            Kind::PIPELINE_STATE => Self::PipelineState {
                state: PipelineState::from_number(count("PipelineState")?),
                error: error("ExceptionAsErrorRecord"),
            },
            Kind::DEBUG_RECORD => Self::Debug(informational_text(&value)),
            Kind::VERBOSE_RECORD => Self::Verbose(informational_text(&value)),
            Kind::WARNING_RECORD => Self::Warning(informational_text(&value)),
            Kind::PROGRESS_RECORD => Self::Progress(value),
            Kind::INFORMATION_RECORD => Self::Information(value),
            Kind::USER_EVENT => Self::UserEvent(value),
            Kind::RUNSPACEPOOL_HOST_CALL => Self::PoolHostCall(HostCall::read(&value).ok_or("mi")?),
            Kind::PIPELINE_HOST_CALL => Self::PipelineHostCall(HostCall::read(&value).ok_or("mi")?),
            Kind::RUNSPACEPOOL_HOST_RESPONSE => Self::PoolHostResponse(value),
            Kind::PIPELINE_HOST_RESPONSE => Self::PipelineHostResponse(value),
            kind => Self::Other(kind, value),
        })
    }

    /// Its type.
    pub fn kind(&self) -> Kind {
        match self {
            Self::SessionCapability(_) => Kind::SESSION_CAPABILITY,
            Self::InitRunspacePool { .. } => Kind::INIT_RUNSPACEPOOL,
            Self::SetMaxRunspaces { .. } => Kind::SET_MAX_RUNSPACES,
            Self::SetMinRunspaces { .. } => Kind::SET_MIN_RUNSPACES,
            Self::GetAvailableRunspaces { .. } => Kind::GET_AVAILABLE_RUNSPACES,
            Self::RunspaceAvailability { .. } => Kind::RUNSPACE_AVAILABILITY,
            Self::PoolState { .. } => Kind::RUNSPACEPOOL_STATE,
            Self::ApplicationPrivateData(_) => Kind::APPLICATION_PRIVATE_DATA,
            Self::CreatePipeline(_) => Kind::CREATE_PIPELINE,
            Self::PipelineInput(_) => Kind::PIPELINE_INPUT,
            Self::EndOfPipelineInput => Kind::END_OF_PIPELINE_INPUT,
            Self::PipelineOutput(_) => Kind::PIPELINE_OUTPUT,
            Self::ErrorRecord(_) => Kind::ERROR_RECORD,
            Self::PipelineState { .. } => Kind::PIPELINE_STATE,
            Self::Debug(_) => Kind::DEBUG_RECORD,
            Self::Verbose(_) => Kind::VERBOSE_RECORD,
            Self::Warning(_) => Kind::WARNING_RECORD,
            Self::Progress(_) => Kind::PROGRESS_RECORD,
            Self::Information(_) => Kind::INFORMATION_RECORD,
            Self::UserEvent(_) => Kind::USER_EVENT,
            Self::PoolHostCall(_) => Kind::RUNSPACEPOOL_HOST_CALL,
            Self::PipelineHostCall(_) => Kind::PIPELINE_HOST_CALL,
            Self::PoolHostResponse(_) => Kind::RUNSPACEPOOL_HOST_RESPONSE,
            Self::PipelineHostResponse(_) => Kind::PIPELINE_HOST_RESPONSE,
            Self::Other(kind, _) => *kind,
        }
    }

    /// Its type and its value; `None` for a message without one.
    fn write(&self, version: (u32, u32)) -> (Kind, Option<std::borrow::Cow<'_, Value>>) {
        use std::borrow::Cow::{Borrowed, Owned};
        let value = match self {
            Self::SessionCapability(capability) => Owned(capability.write()),
            Self::InitRunspacePool { min, max } => Owned(init_runspace_pool(*min, *max)),
            Self::SetMaxRunspaces { runspaces, call } => {
                Owned(body([("MaxRunspaces", Value::I32(*runspaces)), ("CI", Value::I64(*call))]))
            }
            Self::SetMinRunspaces { runspaces, call } => {
                Owned(body([("MinRunspaces", Value::I32(*runspaces)), ("CI", Value::I64(*call))]))
            }
            Self::GetAvailableRunspaces { call } => Owned(body([("ci", Value::I64(*call))])),
            Self::RunspaceAvailability { call, response } => {
                Owned(body([("SetMinMaxRunspacesResponse", response.clone()), ("ci", Value::I64(*call))]))
            }
            Self::PoolState { state, error } => {
                Owned(with_state("RunspaceState", state.number(), error.as_ref()))
            }
            Self::ApplicationPrivateData(value) => Owned(body([("ApplicationPrivateData", value.clone())])),
            Self::CreatePipeline(pipeline) => Owned(pipeline.write(version)),
            Self::EndOfPipelineInput => return (self.kind(), None),
            Self::ErrorRecord(error) => Owned(error_value(error)),
            Self::PipelineState { state, error } => {
                Owned(with_state("PipelineState", state.number(), error.as_ref()))
            }
            Self::Debug(text) | Self::Verbose(text) | Self::Warning(text) => {
                Owned(informational_record(text))
            }
            Self::PoolHostCall(call) | Self::PipelineHostCall(call) => Owned(call.write()),
            Self::PipelineInput(value)
            | Self::PipelineOutput(value)
            | Self::Progress(value)
            | Self::Information(value)
            | Self::UserEvent(value)
            | Self::PoolHostResponse(value)
            | Self::PipelineHostResponse(value)
            | Self::Other(_, value) => Borrowed(value),
        };
        (self.kind(), Some(value))
    }
}

fn with_state(name: &str, state: i32, error: Option<&ErrorRecord>) -> Value {
    match error {
        None => body([(name, Value::I32(state))]),
        Some(error) => body([(name, Value::I32(state)), ("ExceptionAsErrorRecord", error_value(error))]),
    }
}

fn init_runspace_pool(min: i32, max: i32) -> Value {
    let options = "System.Management.Automation.Runspaces.PSThreadOptions";
    body([
        ("MinRunspaces", Value::I32(min)),
        ("MaxRunspaces", Value::I32(max)),
        ("PSThreadOptions", Value::enumeration(options, "Default", 0)),
        ("ApartmentState", apartment_state()),
        ("HostInfo", no_host()),
        ("ApplicationArguments", Value::Null),
    ])
}

impl Capability {
    fn read(value: &Value) -> Result<Self, &'static str> {
        let text = |name| member(value, name).text().unwrap_or_default().into_owned();
        let version = text("protocolversion");
        let mut parts = version.split('.').map(str::parse);
        match (parts.next(), parts.next()) {
            (Some(Ok(major)), Some(Ok(minor))) => Ok(Self {
                protocol: (major, minor),
                powershell: text("PSVersion"),
                serialization: text("SerializationVersion"),
            }),
            _ => Err("protocolversion"),
        }
    }

    fn write(&self) -> Value {
        let (major, minor) = self.protocol;
        body([
            ("protocolversion", Value::Version(format!("{major}.{minor}"))),
            ("PSVersion", Value::Version(self.powershell.clone())),
            ("SerializationVersion", Value::Version(self.serialization.clone())),
        ])
    }
}
