//! Bounds of what the agent asks of the operating system.

use std::time::Duration;

/// Entries in the system's log in [`SYSTEM_LOG_PER`]: the event log is shared with every other service, and the log
/// file has all lines.
pub const SYSTEM_LOG_ENTRIES_MAX: u32 = 30;
/// See [`SYSTEM_LOG_ENTRIES_MAX`].
pub const SYSTEM_LOG_PER: Duration = Duration::from_secs(60);

/// One entry in the system's log; `ReportEvent` takes 31,839 characters.
pub const SYSTEM_LOG_ENTRY_MAX_BYTES: usize = 16 * 1024;

/// Attempts at a file that another program holds: with the pause between them two seconds, which is longer than a
/// scanner looks at files as small as ours.
pub const LOCKED_FILE_TRIES: u32 = 21;
/// Pause between them.
pub const LOCKED_FILE_RETRY_EVERY: Duration = Duration::from_millis(100);

/// How often a stopping service tells its manager that it is still at it.
pub const SERVICE_CHECKPOINT_EVERY: Duration = Duration::from_secs(1);

/// How long `service start` and `service stop` wait for the service; a stop drains modules first.
pub const SERVICE_WITHIN: Duration = Duration::from_secs(30);

/// Pause between two looks at a service that starts or stops.
pub const SERVICE_POLL_EVERY: Duration = Duration::from_millis(100);

/// When a failed service is started again: at once, soon, and then as often as a wrong setting deserves.
pub const SERVICE_RESTARTS: [Duration; 3] =
    [Duration::from_secs(5), Duration::from_secs(30), Duration::from_secs(300)];

/// A command run by `service exec`: the doctor with several slow peers takes longest.
pub const EXEC_WITHIN: Duration = Duration::from_secs(600);

/// What such a command may read and print.
pub const EXEC_MESSAGE_MAX_BYTES: u32 = 16 << 20;
