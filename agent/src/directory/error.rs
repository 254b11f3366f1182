//! What can go wrong between us and a directory. The variant names the culprit.

use std::io;
use std::time::Duration;

use causeway_protocol::action::ErrorReport;
use thiserror::Error;

use super::message::{MessageError, ResultCode};
use crate::chain::Chain;
use crate::dial::DialError;
use crate::dial::tls::TlsError;
use crate::modules::Retry;

/// Why a directory did not do what we asked.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum DirectoryError {
    /// No stream to the server.
    #[error("reach {server}")]
    Unreachable {
        /// Host and port.
        server: String,
        /// What the dialer says.
        #[source]
        source: Box<DialError>,
    },
    /// A stream, but no TLS on it.
    #[error("secure the connection to {server}")]
    Tls {
        /// Host and port.
        server: String,
        /// What is wrong.
        #[source]
        source: Box<TlsError>,
    },
    /// No server is configured or found.
    #[error("no directory server for {domain}")]
    NoServer {
        /// The domain that was looked up, or the name of the directory definition.
        domain: String,
    },
    /// The name service did not tell the servers of the domain.
    #[error("find the servers of {domain}")]
    Discovery {
        /// The domain.
        domain: String,
        /// What the resolver says.
        #[source]
        source: Box<DialError>,
    },
    /// The server was silent.
    #[error("{server} did not answer the {operation} within {} ms", .within.as_millis())]
    TimedOut {
        /// Host and port.
        server: String,
        /// What was asked.
        operation: &'static str,
        /// How long we waited.
        within: Duration,
    },
    /// The connection broke.
    #[error("connection to {server} during the {operation}")]
    Cut {
        /// Host and port.
        server: String,
        /// What was going on.
        operation: &'static str,
        /// What the operating system says.
        #[source]
        source: io::Error,
    },
    /// The server ended the connection.
    #[error("{server} closed the connection during the {operation}{notice}")]
    Closed {
        /// Host and port.
        server: String,
        /// What was going on.
        operation: &'static str,
        /// `: ` and the text of its notice of disconnection, or nothing.
        notice: String,
    },
    /// The server does not follow the protocol.
    #[error("{server} misbehaved during the {operation}: {problem}")]
    Misbehaved {
        /// Host and port.
        server: String,
        /// What was going on.
        operation: &'static str,
        /// What is wrong with its answer.
        problem: String,
    },
    /// The server answered, and the answer is no.
    #[error("{server} refused the {operation}: {code}{}{diagnostic}", if .diagnostic.is_empty() { "" } else { ", " })]
    Refused {
        /// Host and port.
        server: String,
        /// What was asked.
        operation: &'static str,
        /// Its result code.
        code: ResultCode,
        /// Its own words.
        diagnostic: String,
    },
    /// The server gave pages and then refused to go on: its cursor is gone. From the beginning it may work.
    #[error("{server} refused the next page of a search: {code}{}{diagnostic}", if .diagnostic.is_empty() { "" } else { ", " })]
    PageRefused {
        /// Host and port.
        server: String,
        /// Its result code.
        code: ResultCode,
        /// Its own words.
        diagnostic: String,
    },
    /// The service account's password is not in the secret store.
    #[error("{missing} is not stored")]
    NoSecret {
        /// Which secret, as [`DirectorySettings::shown_password_name`](super::settings::DirectorySettings) says it.
        missing: String,
    },
    /// All servers failed; the last one's error is the source.
    #[error("none of {tried} servers answered")]
    AllFailed {
        /// How many were tried.
        tried: usize,
        /// The error of the last one.
        #[source]
        last: Box<DirectoryError>,
    },
}

impl DirectoryError {
    pub(crate) fn misbehaved(server: &str, operation: &'static str, problem: impl Into<String>) -> Self {
        Self::Misbehaved { server: server.to_owned(), operation, problem: problem.into() }
    }

    pub(crate) fn malformed(server: &str, operation: &'static str, error: MessageError) -> Self {
        Self::misbehaved(server, operation, error.to_string())
    }

    /// The error itself, below [`Self::AllFailed`].
    pub fn root(&self) -> &Self {
        match self {
            Self::AllFailed { last, .. } => last.root(),
            other => other,
        }
    }

    /// The server's result code, if it gave one.
    pub fn result_code(&self) -> Option<ResultCode> {
        match self.root() {
            Self::Refused { code, .. } => Some(*code),
            _ => None,
        }
    }

    /// Whether another server may do better: the fault lies with this one or the way to it, not with what was asked.
    pub fn is_servers_fault(&self) -> bool {
        match self {
            Self::Unreachable { .. }
            | Self::Tls { .. }
            | Self::TimedOut { .. }
            | Self::Cut { .. }
            | Self::Closed { .. }
            | Self::Misbehaved { .. }
            | Self::PageRefused { .. } => true,
            Self::Refused { code, .. } => code.is_passing(),
            _ => false,
        }
    }

    /// Stable word of a bounded set.
    pub fn code(&self) -> &'static str {
        match self.root() {
            Self::Unreachable { .. } => "directory_unreachable",
            Self::Tls { source, .. } if matches!(**source, TlsError::Untrusted { .. }) => {
                "directory_untrusted"
            }
            Self::Tls { .. } => "directory_tls",
            Self::NoServer { .. } | Self::Discovery { .. } => "directory_not_found",
            Self::TimedOut { .. } => "directory_slow",
            Self::Cut { .. } | Self::Closed { .. } => "directory_cut",
            Self::Misbehaved { .. } => "directory_misbehaved",
            Self::Refused { code, .. } => match *code {
                ResultCode::BUSY | ResultCode::UNAVAILABLE => "directory_busy",
                ResultCode::INVALID_CREDENTIALS => "directory_bind_refused",
                ResultCode::STRONGER_AUTH_REQUIRED | ResultCode::CONFIDENTIALITY_REQUIRED => {
                    "directory_wants_tls"
                }
                ResultCode::INSUFFICIENT_ACCESS_RIGHTS => "directory_forbidden",
                ResultCode::NO_SUCH_OBJECT => "directory_no_such_base",
                ResultCode::SIZE_LIMIT_EXCEEDED
                | ResultCode::TIME_LIMIT_EXCEEDED
                | ResultCode::ADMIN_LIMIT_EXCEEDED => "directory_limit",
                _ => "directory_refused",
            },
            Self::PageRefused { .. } => "directory_page_refused",
            Self::NoSecret { .. } => "directory_no_secret",
            Self::AllFailed { .. } => "directory_unreachable",
        }
    }

    /// Code, retry class and remedy of every code of this layer, for [`Self::code`] and the generated documentation.
    pub const TABLE: &[(&str, Retry, &str)] = &[
        (
            "directory_unreachable",
            Retry::After,
            "check that the server runs, and that name, port and firewall are right",
        ),
        (
            "directory_untrusted",
            Retry::NeedsAdmin,
            "set ca_file to the authority that signed the server's certificate, and use the name the certificate was issued for",
        ),
        (
            "directory_tls",
            Retry::NeedsAdmin,
            "check that the port speaks TLS (636), or use start_tls on 389; TLS 1.2 is the least",
        ),
        (
            "directory_not_found",
            Retry::NeedsAdmin,
            "check the domain and that this machine's name servers know its _ldap._tcp.dc._msdcs records, or list servers",
        ),
        ("directory_slow", Retry::After, "check the server's load and the indexes its filter needs"),
        (
            "directory_cut",
            Retry::After,
            "look for restarts of the server and for firewalls that cut idle connections",
        ),
        (
            "directory_misbehaved",
            Retry::After,
            "check that the address is a directory server and not another service; report the detail to its vendor",
        ),
        ("directory_busy", Retry::After, "nothing, if it passes; otherwise reduce the server's load"),
        (
            "directory_bind_refused",
            Retry::NeedsAdmin,
            "check the service account's name and password, and that it is neither locked nor expired",
        ),
        ("directory_wants_tls", Retry::NeedsAdmin, "use ldaps:// or start_tls = true"),
        (
            "directory_forbidden",
            Retry::NeedsAdmin,
            "give the service account read rights on the search base (and Replicating Directory Changes for DirSync)",
        ),
        ("directory_no_such_base", Retry::NeedsAdmin, "correct base_dn or the bases of the scope"),
        (
            "directory_limit",
            Retry::NeedsAdmin,
            "allow paged searches, or raise the server's size and time limits for the service account",
        ),
        ("directory_refused", Retry::NeedsAdmin, "see the server's own words in the detail"),
        (
            "directory_page_refused",
            Retry::After,
            "nothing, if it passes; otherwise use a smaller page_size, or look for restarts of the server",
        ),
        (
            "directory_no_secret",
            Retry::NeedsAdmin,
            "store the password with causeway-agent configure MODULE --secret-from-stdin NAME",
        ),
    ];

    /// Whether trying again helps.
    pub fn retry(&self) -> Retry {
        self.row().1
    }

    /// What a person can do.
    pub fn remedy(&self) -> &'static str {
        self.row().2
    }

    fn row(&self) -> &'static (&'static str, Retry, &'static str) {
        let code = self.code();
        Self::TABLE.iter().find(|row| row.0 == code).expect("every code has a row; tested")
    }

    /// As the cloud and the portal see it.
    pub fn report(&self) -> ErrorReport {
        ErrorReport::new(self.code(), Chain(self).to_string(), self.remedy())
    }
}
