//! Every bound of the ActiveSync and autodiscover front ends, with the reason for its value.

use std::time::Duration;

/// Largest request body: `maxRequestLength` of Exchange's ActiveSync site (10,240 KB).
pub const BODY_MAX_BYTES: usize = causeway_protocol::limits::WBXML_MAX_BYTES;

/// Largest autodiscover request; a real one is below 1 KB.
pub const AUTODISCOVER_BODY_MAX_BYTES: usize = 64 * 1024;

/// Time a phone has to send the head of a request, and an idle connection lives: the two minutes of IIS.
pub const HEAD_TIMEOUT: Duration = Duration::from_secs(120);

/// Time a phone has to send a body.
pub const BODY_TIMEOUT: Duration = Duration::from_secs(60);

/// How long the TLS handshake may take.
pub const TLS_TIMEOUT: Duration = Duration::from_secs(20);

/// Letters and digits in a device id (MS-ASHTTP 2.2.1.1.1.2.4).
pub const DEVICE_ID_MAX_CHARS: usize = 32;

/// Characters in a device type: what fits into Exchange's directory attribute.
pub const DEVICE_TYPE_MAX_CHARS: usize = 32;

/// Longest piece of what a phone says of itself that is kept (MS-ASCMD 2.2.3.50: 1,024 characters).
pub const INFORMATION_MAX_CHARS: usize = 1_024;

/// Items in one Sync response unless the phone says otherwise, and at most (MS-ASCMD 2.2.3.199).
pub const WINDOW_DEFAULT: usize = 100;
pub const WINDOW_MAX: usize = 512;

/// Collections in one Sync, folders in one Ping, collections in one GetItemEstimate: Exchange's defaults are 30 and more;
/// a phone of this mock has eight folders.
pub const COLLECTIONS_MAX: usize = 300;

/// Changes a phone may send in one Sync.
pub const PHONE_COMMANDS_MAX: usize = 512;

/// Items asked for in one ItemOperations (MS-ASCMD 2.2.2.10: Exchange takes 100).
pub const FETCHES_MAX: usize = 100;

/// Recipients one SendMail is delivered to.
pub const RECIPIENTS_MAX: usize = 100;

/// Phones whose last requests are remembered; each takes a few hundred bytes. Beyond that another is
/// forgotten, as in a server that was restarted, and its phone starts over.
pub const SESSIONS_MAX: usize = 200_000;
