//! Answers (MS-WSMV 2.2.4), as servers write and clients read them.

use super::fault::Fault;
use super::ns::{self, ACTION_FAULT};
use super::request::{Operation, Stream, identifier, selector};
use super::{SoapError, check_understood, cut, header_text, parts};
use crate::limits::SOAP_MAX_BYTES;
use crate::xml::{self, Element, Writer};

/// An answer with what it is an answer to.
#[derive(Clone, Debug, PartialEq)]
pub struct Response {
    /// `uuid:...`
    pub message_id: String,
    /// Message id of the request; `None` only if the request could not be read.
    pub relates_to: Option<String>,
    /// Of the request; the answer's has `Response` behind it, and a fault its own.
    pub request_action: String,
    /// What it says.
    pub reply: Reply,
}

/// What an answer says.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reply {
    /// The shell is open.
    Created(Created),
    /// The command has begun.
    Commanded {
        /// As the server calls it.
        command_id: String,
    },
    /// Input was taken.
    Sent,
    /// Output.
    Received {
        /// In order.
        streams: Vec<Stream>,
        /// Absent while there may be more.
        state: Option<CommandState>,
    },
    /// The signal was taken.
    Signalled,
    /// The shell is closed.
    Deleted,
    /// What is known of the shell.
    Got(Created),
    /// Who is there.
    Identified(Identity),
    /// It is refused.
    Fault(Fault),
}

/// An open shell.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Created {
    /// As the server calls it.
    pub shell_id: String,
    /// To be on every later request, exactly these.
    pub selectors: Vec<(String, String)>,
    /// Of the session configuration.
    pub resource_uri: String,
    /// Who opened it.
    pub owner: String,
    /// From where.
    pub client_ip: String,
    /// Duration, as text.
    pub idle_timeout: String,
    /// Names with spaces between.
    pub input_streams: String,
    /// Names with spaces between.
    pub output_streams: String,
}

/// How a command is.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct CommandState {
    /// Of the shell when absent.
    pub command_id: Option<String>,
    /// Nothing more follows.
    pub done: bool,
    /// Of command lines.
    pub exit_code: Option<i32>,
}

/// Who is there.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Identity {
    /// URI of the protocol.
    pub protocol: String,
    /// Who made it.
    pub vendor: String,
    /// Which it is.
    pub version: String,
}

impl Response {
    /// Reads the answer to the request of this message id.
    ///
    /// # Errors
    /// [`SoapError`]; among them [`SoapError::RelatesTo`] for an answer to another request, or to none that is no
    /// fault: who could not read the request does not know its id.
    pub fn read(bytes: &[u8], request_id: &str) -> Result<Self, SoapError> {
        let root = xml::read(bytes, SOAP_MAX_BYTES).map_err(SoapError::Xml)?;
        let (headers, body) = parts(&root)?;
        if let Some(identity) = body.child(ns::IDENTITY, "IdentifyResponse") {
            return Ok(Self::of(Reply::Identified(Identity::read(identity))));
        }
        check_understood(headers)?;
        let reply = Reply::read(headers, body)?;
        let relates_to = header_text(headers, ns::ADDRESSING, "RelatesTo");
        match (relates_to, &reply) {
            (Some(found), _) if found == request_id => {}
            (None, Reply::Fault(_)) => {}
            (found, _) => return Err(SoapError::RelatesTo { found: cut(found.unwrap_or_default()) }),
        }
        let action = header_text(headers, ns::ADDRESSING, "Action").unwrap_or_default();
        Ok(Self {
            message_id: header_text(headers, ns::ADDRESSING, "MessageID").unwrap_or_default().to_owned(),
            relates_to: relates_to.map(str::to_owned),
            request_action: action.strip_suffix("Response").unwrap_or_default().to_owned(),
            reply,
        })
    }

    fn of(reply: Reply) -> Self {
        Self { message_id: String::new(), relates_to: None, request_action: String::new(), reply }
    }

    /// Answers a request.
    pub fn to(request: &super::Request, message_id: &str, reply: Reply) -> Self {
        Self {
            message_id: message_id.to_owned(),
            relates_to: Some(request.header.message_id.clone()),
            request_action: request.operation.action().to_owned(),
            reply,
        }
    }

    /// The envelope.
    pub fn write(&self) -> String {
        let mut out = Writer::new();
        out.start(
            "s:Envelope",
            &[
                ("xml:lang", "en-US"),
                ("xmlns:s", ns::SOAP),
                ("xmlns:a", ns::ADDRESSING),
                ("xmlns:x", ns::TRANSFER),
                ("xmlns:w", ns::WSMAN),
                ("xmlns:rsp", ns::SHELL),
                ("xmlns:p", ns::WSMV),
            ],
        );
        out.start("s:Header", &[]);
        if !matches!(self.reply, Reply::Identified(_)) {
            let action = match self.reply {
                Reply::Fault(_) => ACTION_FAULT.to_owned(),
                _ => format!("{}Response", self.request_action),
            };
            out.element("a:Action", &[], &action).element("a:MessageID", &[], &self.message_id);
            out.element("a:To", &[], ns::ANONYMOUS);
            if let Some(id) = &self.relates_to {
                out.element("a:RelatesTo", &[], id);
            }
        }
        out.end().start("s:Body", &[]);
        self.reply.write(&mut out);
        out.finish()
    }
}

impl Reply {
    fn read(headers: &[Element], body: &Element) -> Result<Self, SoapError> {
        let Some(element) = body.children.first() else {
            let action = header_text(headers, ns::ADDRESSING, "Action").unwrap_or_default();
            return match action.strip_suffix("Response") {
                Some(ns::action::DELETE) => Ok(Self::Deleted),
                // Some servers leave out what says nothing.
                Some(ns::action::SEND) => Ok(Self::Sent),
                Some(ns::action::SIGNAL) => Ok(Self::Signalled),
                _ => Err(SoapError::Unexpected { found: cut(action) }),
            };
        };
        Ok(match (&*element.namespace, &*element.name) {
            (ns::SOAP, "Fault") => Self::Fault(Fault::read(element)?),
            (ns::TRANSFER, "ResourceCreated") => Self::Created(Created::read(body)?),
            (ns::SHELL, "Shell") => Self::read_shell(headers, body)?,
            (ns::SHELL, "CommandResponse") => {
                let id = element.child_text(ns::SHELL, "CommandId").filter(|id| !id.is_empty());
                Self::Commanded {
                    command_id: id.ok_or(SoapError::Missing { element: "CommandId" })?.to_owned(),
                }
            }
            (ns::SHELL, "SendResponse") => Self::Sent,
            (ns::SHELL, "ReceiveResponse") => {
                let streams = element.children_named(ns::SHELL, "Stream");
                let state = element.child(ns::SHELL, "CommandState").map(CommandState::read);
                Self::Received { streams: streams.map(Stream::read).collect::<Result<_, _>>()?, state }
            }
            (ns::SHELL, "SignalResponse") => Self::Signalled,
            (namespace, name) => {
                return Err(SoapError::Unexpected { found: cut(&format!("{{{namespace}}}{name}")) });
            }
        })
    }

    /// A shell alone is the answer to Get; some servers answer Create so as well.
    fn read_shell(headers: &[Element], body: &Element) -> Result<Self, SoapError> {
        let created = Created::read(body)?;
        let action = header_text(headers, ns::ADDRESSING, "Action").unwrap_or_default();
        Ok(if action.starts_with(ns::action::CREATE) { Self::Created(created) } else { Self::Got(created) })
    }

    fn write(&self, out: &mut Writer) {
        match self {
            Self::Created(created) => {
                out.start("x:ResourceCreated", &[]);
                out.element("a:Address", &[], ns::ANONYMOUS);
                out.start("a:ReferenceParameters", &[]);
                out.element("w:ResourceURI", &[], &created.resource_uri).start("w:SelectorSet", &[]);
                for (name, value) in &created.selectors {
                    out.element("w:Selector", &[("Name", name)], value);
                }
                out.end().end().end();
                created.write(out);
            }
            Self::Got(created) => created.write(out),
            Self::Commanded { command_id } => {
                out.start("rsp:CommandResponse", &[]).element("rsp:CommandId", &[], command_id).end();
            }
            Self::Sent => {
                out.empty("rsp:SendResponse", &[]);
            }
            Self::Received { streams, state } => {
                out.start("rsp:ReceiveResponse", &[]);
                for stream in streams {
                    stream.write(out);
                }
                if let Some(state) = state {
                    state.write(out);
                }
                out.end();
            }
            Self::Signalled => {
                out.empty("rsp:SignalResponse", &[]);
            }
            Self::Deleted => {}
            Self::Identified(identity) => identity.write(out),
            Self::Fault(fault) => fault.write(out),
        }
    }

    /// The element it is, for people.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Created(_) => "ResourceCreated",
            Self::Commanded { .. } => "CommandResponse",
            Self::Sent => "SendResponse",
            Self::Received { .. } => "ReceiveResponse",
            Self::Signalled => "SignalResponse",
            Self::Deleted => "DeleteResponse",
            Self::Got(_) => "Shell",
            Self::Identified(_) => "IdentifyResponse",
            Self::Fault(_) => "Fault",
        }
    }

    /// Whether it can be the answer to this operation.
    pub(super) fn answers(&self, operation: &Operation) -> bool {
        matches!(
            (self, operation),
            (Self::Fault(_), _)
                | (Self::Created(_), Operation::Create(_))
                | (Self::Commanded { .. }, Operation::Command { .. })
                | (Self::Sent, Operation::Send { .. })
                | (Self::Received { .. }, Operation::Receive { .. })
                | (Self::Signalled, Operation::Signal { .. })
                | (Self::Deleted, Operation::Delete)
                | (Self::Got(_), Operation::Get)
                | (Self::Identified(_), Operation::Identify)
        )
    }
}

impl Created {
    fn read(body: &Element) -> Result<Self, SoapError> {
        let parameters = body
            .child(ns::TRANSFER, "ResourceCreated")
            .and_then(|created| created.child(ns::ADDRESSING, "ReferenceParameters"));
        let selectors: Vec<_> = parameters
            .and_then(|parameters| parameters.child(ns::WSMAN, "SelectorSet"))
            .map_or(&[][..], |set| &set.children)
            .iter()
            .filter_map(selector)
            .collect();
        let shell = body.child(ns::SHELL, "Shell");
        let text =
            |name| shell.and_then(|shell| shell.child_text(ns::SHELL, name)).unwrap_or_default().to_owned();
        let selected = selectors.iter().find(|(name, _)| name == "ShellId").map(|(_, id)| id.clone());
        let shell_id = selected.unwrap_or_else(|| text("ShellId"));
        if shell_id.is_empty() {
            return Err(SoapError::Missing { element: "ShellId" });
        }
        let selectors = match selectors.is_empty() {
            true => vec![("ShellId".to_owned(), shell_id.clone())],
            false => selectors,
        };
        Ok(Self {
            shell_id,
            selectors,
            resource_uri: text("ResourceUri"),
            owner: text("Owner"),
            client_ip: text("ClientIP"),
            idle_timeout: text("IdleTimeOut"),
            input_streams: text("InputStreams"),
            output_streams: text("OutputStreams"),
        })
    }

    fn write(&self, out: &mut Writer) {
        out.start("rsp:Shell", &[]);
        for (name, text) in [
            ("rsp:ShellId", &self.shell_id),
            ("rsp:ResourceUri", &self.resource_uri),
            ("rsp:Owner", &self.owner),
            ("rsp:ClientIP", &self.client_ip),
            ("rsp:IdleTimeOut", &self.idle_timeout),
            ("rsp:InputStreams", &self.input_streams),
            ("rsp:OutputStreams", &self.output_streams),
        ] {
            if !text.is_empty() {
                out.element(name, &[], text);
            }
        }
        out.element("rsp:ShellRunTime", &[], "P0DT0H0M0S")
            .element("rsp:ShellInactivity", &[], "P0DT0H0M0S")
            .end();
    }
}

impl CommandState {
    fn read(element: &Element) -> Self {
        let state = element.attribute("State").unwrap_or_default();
        Self {
            command_id: element.attribute("CommandId").map(str::to_owned),
            done: state == ns::STATE_DONE,
            exit_code: element.child_text(ns::SHELL, "ExitCode").and_then(|code| code.parse().ok()),
        }
    }

    fn write(&self, out: &mut Writer) {
        let mut attributes = identifier("CommandId", self.command_id.as_deref());
        attributes.push(("State", if self.done { ns::STATE_DONE } else { ns::STATE_RUNNING }));
        out.start("rsp:CommandState", &attributes);
        if let Some(code) = self.exit_code {
            out.element("rsp:ExitCode", &[], &code.to_string());
        }
        out.end();
    }
}

impl Identity {
    fn read(element: &Element) -> Self {
        let text = |name| element.child_text(ns::IDENTITY, name).unwrap_or_default().to_owned();
        Self {
            protocol: text("ProtocolVersion"),
            vendor: text("ProductVendor"),
            version: text("ProductVersion"),
        }
    }

    fn write(&self, out: &mut Writer) {
        out.start("wsmid:IdentifyResponse", &[("xmlns:wsmid", ns::IDENTITY)]);
        out.element("wsmid:ProtocolVersion", &[], &self.protocol);
        out.element("wsmid:ProductVendor", &[], &self.vendor);
        out.element("wsmid:ProductVersion", &[], &self.version).end();
    }
}
