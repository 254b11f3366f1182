//! Names: namespaces, actions, resources.

pub(super) const SOAP: &str = "http://www.w3.org/2003/05/soap-envelope";
pub(super) const ADDRESSING: &str = "http://schemas.xmlsoap.org/ws/2004/08/addressing";
pub(super) const WSMAN: &str = "http://schemas.dmtf.org/wbem/wsman/1/wsman.xsd";
pub(super) const WSMV: &str = "http://schemas.microsoft.com/wbem/wsman/1/wsman.xsd";
pub(super) const SHELL: &str = "http://schemas.microsoft.com/wbem/wsman/1/windows/shell";
pub(super) const TRANSFER: &str = "http://schemas.xmlsoap.org/ws/2004/09/transfer";
pub(super) const FAULT: &str = "http://schemas.microsoft.com/wbem/wsman/1/wsmanfault";
pub(super) const POWERSHELL: &str = "http://schemas.microsoft.com/powershell";
pub(super) const IDENTITY: &str = "http://schemas.dmtf.org/wbem/wsman/identity/1/wsmanidentity.xsd";

pub(super) const ANONYMOUS: &str = "http://schemas.xmlsoap.org/ws/2004/08/addressing/role/anonymous";

/// Headers that are understood, in the namespaces of addressing and WSMan.
pub(super) const HEADERS: [&str; 17] = [
    "Action",
    "DataLocale",
    "Locale",
    "MaxEnvelopeSize",
    "MessageID",
    "OperationTimeout",
    "OperationID",
    "ReplyTo",
    "From",
    "FaultTo",
    "RelatesTo",
    "ResourceURI",
    "SessionId",
    "SequenceId",
    "To",
    "OptionSet",
    "SelectorSet",
];

/// Actions; an answer's is the request's with `Response` behind it.
pub mod action {
    /// Opens a shell.
    pub const CREATE: &str = "http://schemas.xmlsoap.org/ws/2004/09/transfer/Create";
    /// Closes a shell.
    pub const DELETE: &str = "http://schemas.xmlsoap.org/ws/2004/09/transfer/Delete";
    /// Asks about a shell.
    pub const GET: &str = "http://schemas.xmlsoap.org/ws/2004/09/transfer/Get";
    /// Begins a command.
    pub const COMMAND: &str = "http://schemas.microsoft.com/wbem/wsman/1/windows/shell/Command";
    /// Input.
    pub const SEND: &str = "http://schemas.microsoft.com/wbem/wsman/1/windows/shell/Send";
    /// Output.
    pub const RECEIVE: &str = "http://schemas.microsoft.com/wbem/wsman/1/windows/shell/Receive";
    /// Stops or ends a command.
    pub const SIGNAL: &str = "http://schemas.microsoft.com/wbem/wsman/1/windows/shell/Signal";
}

/// Action of an answer that is a fault of WSMan.
pub const ACTION_FAULT: &str = "http://schemas.dmtf.org/wbem/wsman/1/wsman/fault";

pub(super) const STATE_DONE: &str =
    "http://schemas.microsoft.com/wbem/wsman/1/windows/shell/CommandState/Done";
pub(super) const STATE_RUNNING: &str =
    "http://schemas.microsoft.com/wbem/wsman/1/windows/shell/CommandState/Running";

pub(super) const SIGNAL_TERMINATE: &str =
    "http://schemas.microsoft.com/wbem/wsman/1/windows/shell/signal/Terminate";
/// As Windows's own client spells it.
pub(super) const SIGNAL_STOP: &str = "powershell/signal/crtl_c";

/// Session configuration of the Exchange management shell.
pub const EXCHANGE_CONFIGURATION: &str = "Microsoft.Exchange";

/// Session configuration of an ordinary PowerShell.
pub const POWERSHELL_CONFIGURATION: &str = "Microsoft.PowerShell";

/// The resource of a session configuration.
pub fn resource_uri(configuration: &str) -> String {
    format!("{POWERSHELL}/{configuration}")
}
