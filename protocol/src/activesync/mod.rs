//! Exchange ActiveSync on the wire: what phone and server agree on besides the documents themselves, which are
//! [`wbxml`](crate::wbxml) trees.
//!
//! Versions, commands, the query in both its forms (MS-ASHTTP), and status numbers (MS-ASCMD). Which status a server
//! answers, and what a phone makes of it, is decided by either side for itself.

mod command;
mod query;
pub mod status;
mod version;

pub use command::Command;
pub use query::{Query, QueryError};
pub use version::Version;

/// The path every ActiveSync server has (MS-ASHTTP 2.2.1.1.1).
pub const PATH: &str = "/Microsoft-Server-ActiveSync";

/// Media type of a body.
pub const CONTENT_TYPE: &str = "application/vnd.ms-sync.wbxml";

/// Media type of a body in several parts (MS-ASCMD 2.2.2.10.1).
pub const MULTIPART_CONTENT_TYPE: &str = "application/vnd.ms-sync.multipart";

/// The only policy type since protocol version 12.0 (MS-ASPROV 2.2.2.43).
pub const POLICY_TYPE: &str = "MS-EAS-Provisioning-WBXML";

/// The policy type of protocol version 2.5, whose policy is an XML text.
pub const POLICY_TYPE_2_5: &str = "MS-WAP-Provisioning-XML";

/// Names of headers (MS-ASHTTP 2.2.1.1.2 and 2.2.2.1.1).
pub mod header {
    /// Version a request is written in: `16.1`.
    pub const PROTOCOL_VERSION: &str = "MS-ASProtocolVersion";
    /// Policy key a phone holds, decimal.
    pub const POLICY_KEY: &str = "X-MS-PolicyKey";
    /// Versions a server speaks, in the answer to OPTIONS.
    pub const PROTOCOL_VERSIONS: &str = "MS-ASProtocolVersions";
    /// Commands a server knows, in the answer to OPTIONS.
    pub const PROTOCOL_COMMANDS: &str = "MS-ASProtocolCommands";
    /// The server's own version.
    pub const SERVER: &str = "MS-Server-ActiveSync";
    /// Where the mailbox is now, with HTTP 451.
    pub const LOCATION: &str = "X-MS-Location";
    /// Why a server throttles, with HTTP 503.
    pub const THROTTLE: &str = "X-MS-ASThrottle";
    /// When to come again, with HTTP 503: seconds.
    pub const RETRY_AFTER: &str = "Retry-After";
}
