//! Requests (MS-WSMV 2.2.4), as clients write and servers read them.

use std::time::Duration;

use super::ns::{self, action};
use super::{SoapError, check_understood, cut, decode_base64, duration, duration_text, header_text, parts};
use crate::limits::{PSRP_FRAGMENT_MAX_BYTES, SOAP_MAX_BYTES};
use crate::psrp::FRAGMENT_HEADER_BYTES;
use crate::xml::{self, Element, Writer};

/// A request.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// What it is about.
    pub header: Header,
    /// What is wanted.
    pub operation: Operation,
}

/// What a request is about.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Header {
    /// The full URL, with path and query as configured.
    pub to: String,
    /// See [`super::resource_uri`].
    pub resource_uri: String,
    /// `uuid:...`; the answer relates to it byte for byte.
    pub message_id: String,
    /// `uuid:...`, the same for all requests of a session.
    pub session_id: Option<String>,
    /// How long the server may hold the request.
    pub operation_timeout: Option<Duration>,
    /// Largest answer wanted, in bytes.
    pub envelope_max_bytes: Option<usize>,
    /// In order.
    pub options: Vec<Opt>,
    /// Name and value; `ShellId` for all but the first.
    pub selectors: Vec<(String, String)>,
}

impl Header {
    /// A selector by name.
    pub fn selector(&self, name: &str) -> Option<&str> {
        self.selectors.iter().find(|(known, _)| known == name).map(|(_, value)| &**value)
    }

    /// An option by name, whatever the case.
    pub fn option(&self, name: &str) -> Option<&str> {
        self.options.iter().find(|known| known.name.eq_ignore_ascii_case(name)).map(|known| &*known.value)
    }
}

/// An option of the resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opt {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: String,
    /// Whether a server that does not know it must refuse.
    pub must_comply: bool,
}

/// What is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Operation {
    /// Opens a shell.
    Create(CreateShell),
    /// Begins a command.
    Command {
        /// Proposed by the client.
        command_id: Option<String>,
        /// Empty for PowerShell, a command line for others.
        command: String,
        /// As they are; for PowerShell base64 of fragments: see [`Operation::argument_bytes`].
        arguments: Vec<String>,
    },
    /// Input for the shell or a command.
    Send {
        /// In order.
        streams: Vec<Stream>,
    },
    /// Asks for output.
    Receive {
        /// Of the shell when absent.
        command_id: Option<String>,
        /// Names of the wanted streams, with spaces between.
        streams: String,
    },
    /// Stops or ends a command.
    Signal {
        /// Of the shell when absent.
        command_id: Option<String>,
        /// What to do.
        signal: Signal,
    },
    /// Closes the shell.
    Delete,
    /// Asks about the shell.
    Get,
    /// Asks who is there; without headers.
    Identify,
    /// An action that is none of these.
    Other {
        /// Its URI, cut.
        action: String,
    },
}

/// A shell to open.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct CreateShell {
    /// Proposed by the client; the server decides.
    pub shell_id: Option<String>,
    /// Names with spaces between.
    pub input_streams: String,
    /// Names with spaces between.
    pub output_streams: String,
    /// Fragments of the first messages; absent for shells that are not PowerShell.
    pub creation: Option<Vec<u8>>,
    /// When the server may close it for silence.
    pub idle_timeout: Option<Duration>,
}

/// Bytes of a stream.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Stream {
    /// `stdin`, `stdout`, `pr` ...
    pub name: String,
    /// Of the shell when absent.
    pub command_id: Option<String>,
    /// Fragments, or pieces of them.
    pub bytes: Vec<u8>,
}

/// What to do with a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Signal {
    /// Forget it; it counts against quotas until then.
    Terminate,
    /// Stop the pipeline. Clients spell it differently.
    Stop,
    /// Something else.
    Other(String),
}

impl Signal {
    fn code(&self) -> &str {
        match self {
            Self::Terminate => ns::SIGNAL_TERMINATE,
            Self::Stop => ns::SIGNAL_STOP,
            Self::Other(code) => code,
        }
    }

    fn from_code(code: &str) -> Self {
        let last = code.rsplit('/').next().unwrap_or_default();
        match last.to_ascii_lowercase().as_str() {
            "terminate" => Self::Terminate,
            "ctrl_c" | "crtl_c" => Self::Stop,
            _ => Self::Other(cut(code)),
        }
    }
}

impl Operation {
    /// Its action; empty for [`Operation::Identify`], which has none.
    pub fn action(&self) -> &str {
        match self {
            Self::Create(_) => action::CREATE,
            Self::Command { .. } => action::COMMAND,
            Self::Send { .. } => action::SEND,
            Self::Receive { .. } => action::RECEIVE,
            Self::Signal { .. } => action::SIGNAL,
            Self::Delete => action::DELETE,
            Self::Get => action::GET,
            Self::Identify => "",
            Self::Other { action } => action,
        }
    }

    /// Fragments in the arguments of a PowerShell command.
    ///
    /// # Errors
    /// [`SoapError::Missing`] when they are not base64.
    pub fn argument_bytes(&self) -> Result<Vec<u8>, SoapError> {
        let Self::Command { arguments, .. } = self else { return Ok(Vec::new()) };
        let mut bytes = Vec::new();
        for argument in arguments {
            bytes.extend(decode_base64(argument, "Arguments")?);
        }
        Ok(bytes)
    }

    fn read(action: &str, body: &Element) -> Result<Self, SoapError> {
        Ok(match action {
            action::CREATE => Self::Create(CreateShell::read(body)?),
            action::COMMAND => {
                let line = shell_element(body, "CommandLine")?;
                Self::Command {
                    command_id: line.attribute("CommandId").map(str::to_owned),
                    command: line.child_text(ns::SHELL, "Command").unwrap_or_default().to_owned(),
                    arguments: line.children_named(ns::SHELL, "Arguments").map(|a| a.text.clone()).collect(),
                }
            }
            action::SEND => {
                let send = shell_element(body, "Send")?;
                let streams = send.children_named(ns::SHELL, "Stream");
                Self::Send { streams: streams.map(Stream::read).collect::<Result<_, _>>()? }
            }
            action::RECEIVE => {
                let wanted = shell_element(shell_element(body, "Receive")?, "DesiredStream")?;
                Self::Receive {
                    command_id: wanted.attribute("CommandId").map(str::to_owned),
                    streams: wanted.text.trim().to_owned(),
                }
            }
            action::SIGNAL => {
                let signal = shell_element(body, "Signal")?;
                let code =
                    signal.child_text(ns::SHELL, "Code").ok_or(SoapError::Missing { element: "Code" })?;
                Self::Signal {
                    command_id: signal.attribute("CommandId").map(str::to_owned),
                    signal: Signal::from_code(code),
                }
            }
            action::DELETE => Self::Delete,
            action::GET => Self::Get,
            other => Self::Other { action: cut(other) },
        })
    }

    fn write(&self, out: &mut Writer) {
        match self {
            Self::Create(shell) => shell.write(out),
            Self::Command { command_id, command, arguments } => {
                out.start("rsp:CommandLine", &identifier("CommandId", command_id.as_deref()));
                out.element("rsp:Command", &[], command);
                for argument in arguments {
                    out.element("rsp:Arguments", &[], argument);
                }
                out.end();
            }
            Self::Send { streams } => {
                out.start("rsp:Send", &[]);
                for stream in streams {
                    stream.write(out);
                }
                out.end();
            }
            Self::Receive { command_id, streams } => {
                out.start("rsp:Receive", &[]);
                out.element("rsp:DesiredStream", &identifier("CommandId", command_id.as_deref()), streams);
                out.end();
            }
            Self::Signal { command_id, signal } => {
                out.start("rsp:Signal", &identifier("CommandId", command_id.as_deref()));
                out.element("rsp:Code", &[], signal.code()).end();
            }
            Self::Identify => {
                out.empty("wsmid:Identify", &[("xmlns:wsmid", ns::IDENTITY)]);
            }
            Self::Delete | Self::Get | Self::Other { .. } => {}
        }
    }
}

/// The attribute if there is an identifier.
pub(super) fn identifier<'a>(name: &'a str, id: Option<&'a str>) -> Vec<(&'a str, &'a str)> {
    id.map(|id| (name, id)).into_iter().collect()
}

fn shell_element<'e>(parent: &'e Element, name: &'static str) -> Result<&'e Element, SoapError> {
    parent.child(ns::SHELL, name).ok_or(SoapError::Missing { element: name })
}

impl CreateShell {
    fn read(body: &Element) -> Result<Self, SoapError> {
        let shell = shell_element(body, "Shell")?;
        let text = |name| shell.child_text(ns::SHELL, name).unwrap_or_default().to_owned();
        let creation = shell.child(ns::POWERSHELL, "creationXml");
        Ok(Self {
            shell_id: shell.attribute("ShellId").map(str::to_owned),
            input_streams: text("InputStreams"),
            output_streams: text("OutputStreams"),
            creation: creation.map(|bytes| decode_base64(&bytes.text, "creationXml")).transpose()?,
            idle_timeout: shell.child_text(ns::SHELL, "IdleTimeOut").and_then(duration),
        })
    }

    fn write(&self, out: &mut Writer) {
        out.start("rsp:Shell", &identifier("ShellId", self.shell_id.as_deref()));
        if let Some(timeout) = self.idle_timeout {
            out.element("rsp:IdleTimeOut", &[], &duration_text(timeout));
        }
        out.element("rsp:InputStreams", &[], &self.input_streams);
        out.element("rsp:OutputStreams", &[], &self.output_streams);
        if let Some(creation) = &self.creation {
            out.start("creationXml", &[("xmlns", ns::POWERSHELL)]).base64(creation).end();
        }
        out.end();
    }
}

impl Stream {
    pub(super) fn read(element: &Element) -> Result<Self, SoapError> {
        Ok(Self {
            name: element.attribute("Name").unwrap_or_default().to_owned(),
            command_id: element.attribute("CommandId").map(str::to_owned),
            bytes: decode_base64(&element.text, "Stream")?,
        })
    }

    pub(super) fn write(&self, out: &mut Writer) {
        let mut attributes = vec![("Name", &*self.name)];
        attributes.extend(identifier("CommandId", self.command_id.as_deref()));
        out.start("rsp:Stream", &attributes).base64(&self.bytes).end();
    }
}

impl Request {
    /// Reads a request. An action nobody knows is [`Operation::Other`], so that a server can say so.
    ///
    /// # Errors
    /// [`SoapError`]
    pub fn read(bytes: &[u8]) -> Result<Self, SoapError> {
        let root = xml::read(bytes, SOAP_MAX_BYTES).map_err(SoapError::Xml)?;
        let (headers, body) = parts(&root)?;
        if body.child(ns::IDENTITY, "Identify").is_some() {
            return Ok(Self { header: Header::default(), operation: Operation::Identify });
        }
        check_understood(headers)?;
        let text = |namespace, name| header_text(headers, namespace, name);
        let required = |namespace, element| {
            text(namespace, element).filter(|text| !text.is_empty()).ok_or(SoapError::Missing { element })
        };
        let action = required(ns::ADDRESSING, "Action")?;
        let children = |name| {
            let set = headers.iter().find(|header| header.is(ns::WSMAN, name));
            set.map_or(&[][..], |set| &set.children)
        };
        let header = Header {
            to: text(ns::ADDRESSING, "To").unwrap_or_default().to_owned(),
            resource_uri: text(ns::WSMAN, "ResourceURI").unwrap_or_default().to_owned(),
            message_id: required(ns::ADDRESSING, "MessageID")?.to_owned(),
            session_id: text(ns::WSMV, "SessionId").map(str::to_owned),
            operation_timeout: text(ns::WSMAN, "OperationTimeout").and_then(duration),
            envelope_max_bytes: text(ns::WSMAN, "MaxEnvelopeSize").and_then(|size| size.parse().ok()),
            options: children("OptionSet").iter().filter_map(Opt::read).collect(),
            selectors: children("SelectorSet").iter().filter_map(selector).collect(),
        };
        Ok(Self { header, operation: Operation::read(action, body)? })
    }

    /// The envelope, with the headers in the order other clients have them.
    pub fn write(&self) -> String {
        let mut out = Writer::new();
        out.start(
            "s:Envelope",
            &[
                ("xmlns:rsp", ns::SHELL),
                ("xmlns:s", ns::SOAP),
                ("xmlns:wsa", ns::ADDRESSING),
                ("xmlns:wsman", ns::WSMAN),
                ("xmlns:wsmv", ns::WSMV),
            ],
        );
        match self.operation {
            Operation::Identify => out.empty("s:Header", &[]),
            _ => self.write_header(&mut out),
        };
        out.start("s:Body", &[]);
        self.operation.write(&mut out);
        out.finish()
    }

    fn write_header<'o>(&self, out: &'o mut Writer) -> &'o mut Writer {
        let must = [("s:mustUnderstand", "true")];
        let may = [("s:mustUnderstand", "false"), ("xml:lang", "en-US")];
        let header = &self.header;
        out.start("s:Header", &[]);
        out.element("wsa:Action", &must, self.operation.action());
        out.empty("wsmv:DataLocale", &may).empty("wsman:Locale", &may);
        if let Some(size) = header.envelope_max_bytes {
            out.element("wsman:MaxEnvelopeSize", &must, &size.to_string());
        }
        out.element("wsa:MessageID", &[], &header.message_id);
        if let Some(timeout) = header.operation_timeout {
            out.element("wsman:OperationTimeout", &[], &duration_text(timeout));
        }
        out.start("wsa:ReplyTo", &[]).element("wsa:Address", &must, ns::ANONYMOUS).end();
        out.element("wsman:ResourceURI", &must, &header.resource_uri);
        if let Some(session) = &header.session_id {
            out.element("wsmv:SessionId", &may[..1], session);
        }
        out.element("wsa:To", &[], &header.to);
        if !header.options.is_empty() {
            out.start("wsman:OptionSet", &must);
            for option in &header.options {
                let mut attributes = vec![("Name", &*option.name)];
                if option.must_comply {
                    attributes.insert(0, ("MustComply", "true"));
                }
                out.element("wsman:Option", &attributes, &option.value);
            }
            out.end();
        }
        if !header.selectors.is_empty() {
            out.start("wsman:SelectorSet", &[]);
            for (name, value) in &header.selectors {
                out.element("wsman:Selector", &[("Name", name)], value);
            }
            out.end();
        }
        out.end()
    }
}

impl Opt {
    fn read(element: &Element) -> Option<Self> {
        Some(Self {
            name: element.attribute("Name")?.to_owned(),
            value: element.text.clone(),
            must_comply: element.attribute("MustComply").is_some_and(|must| must == "true" || must == "1"),
        })
    }
}

pub(super) fn selector(element: &Element) -> Option<(String, String)> {
    Some((element.attribute("Name")?.to_owned(), element.text.trim().to_owned()))
}

/// How many bytes of a message fit into a fragment of an envelope of this size whose other parts have so many bytes:
/// base64 makes four of three, and 256 are left for what a proxy or another version adds.
pub fn blob_budget(envelope_bytes: usize, other_bytes: usize) -> usize {
    let room = envelope_bytes.saturating_sub(other_bytes + 256) / 4 * 3;
    room.saturating_sub(FRAGMENT_HEADER_BYTES).clamp(1, PSRP_FRAGMENT_MAX_BYTES)
}
