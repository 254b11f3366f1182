//! Every limit of the module, with the reason for its value.

use std::time::Duration;

/// Objects of a listing in memory at once: about 1 MB.
pub(super) const PAGE: usize = 256;

/// Objects on their way from the session to us. The server is read no faster than they are taken.
pub(super) const OBJECTS_AHEAD: usize = 64;

/// No object for this long and the listing has stalled. Exchange slows sessions down by up to half a minute a cmdlet.
pub(super) const STALLED_AFTER: Duration = Duration::from_secs(300);

/// A cmdlet about one object ends within this, micro-delays included.
pub(super) const CMDLET_WITHIN: Duration = Duration::from_secs(180);

/// Objects a cmdlet about one object may give. `Get-MobileDevice` gives everything there is when it does not know the
/// identity; a second object is reason enough not to believe the first.
pub(super) const ANSWERS_MAX: usize = 2;

/// Policies of one organisation.
pub(super) const POLICIES_MAX: usize = 1_000;

/// Phones of one mailbox read at once; Exchange allows 100 by default.
pub(super) const PHONES_PER_MAILBOX_MAX: usize = 1_000;

/// A scan lets actions go first for at most this long, so that an endless row of them does not end all collecting.
pub(super) const YIELD_AT_MOST: Duration = Duration::from_secs(60);

/// An unused session for actions is closed after this: servers count open runspaces.
pub(super) const URGENT_IDLE: Duration = Duration::from_secs(90);

/// How often idle sessions are looked for.
pub(super) const IDLE_CHECK_EVERY: Duration = Duration::from_secs(30);

/// Rows read of the store at once.
pub(super) const ROWS_PER_READ: usize = 1_000;

/// Storage operations of one commit while a listing is stored: a quarter of a megabyte. An action that comes meanwhile waits for one
/// of them; with 4,000 it waited up to 90 ms.
pub(super) const OPS_PER_COMMIT: usize = 500;

/// Storage operations after a slice of statistics, in one commit: [`LONG_SLICE`] at two operations a phone.
pub(super) const OPS_PER_SLICE: usize = 4_000;

/// Waiting phones taken from the store at once.
pub(super) const WORK_PER_READ: usize = 100;

/// Longest time that statistics wait before they are sent: a person looks at a new phone.
pub(super) const SLICE: Duration = Duration::from_secs(5);

/// The same while the queue is long, where each upload would only cost time.
pub(super) const LONG_SLICE: Duration = Duration::from_secs(30);

/// A queue this long is a long one.
pub(super) const LONG_QUEUE: u64 = 2_000;

/// Changed phones that wait for their statistics before they travel; beyond it a change travels at once and a second
/// time with its statistics.
pub(super) const CHANGES_HELD: u64 = 2_000;

/// Phones whose statistics are read again only because they are old, for each listing.
pub(super) const STALE_PER_LISTING: u64 = 5_000;

/// The pace of less time than this says little about the rest: a few cmdlets may all have been quick.
pub(super) const PACE_WINDOW_MIN: Duration = Duration::from_secs(60);

/// Orders waiting for the run loop.
pub(super) const ORDERS: usize = 16;

/// Phones waiting to be read again after an action.
pub(super) const POKES: usize = 256;

/// Pause after a failed run; doubled with each failure up to the interval of the next listing.
pub(super) const RETRY_AFTER: Duration = Duration::from_secs(5);

/// Longest pause after failed runs of a kind that trying again does not cost anything.
pub(super) const RETRY_AT_MOST: Duration = Duration::from_secs(900);

/// An action gives up after this, whatever it waits for.
pub(super) const GIVE_UP_AFTER: Duration = Duration::from_secs(168 * 3_600);

/// First look at what a write did; replication between domain controllers takes seconds within a site.
pub(super) const READ_BACK_AFTER: Duration = Duration::from_secs(2);

/// Longest pause between two such looks.
pub(super) const READ_BACK_AT_MOST: Duration = Duration::from_secs(60);

/// Longest pause between two looks at a phone that must act.
pub(super) const PHONE_CHECK_AT_MOST: Duration = Duration::from_secs(900);

/// An action held by the guard looks this often whether a person has confirmed. A confirmation wakes it at once; this is
/// for what woke it being missed.
pub(super) const HELD_CHECK_EVERY: Duration = Duration::from_secs(900);

/// Held actions that are counted one by one; as many as an agent has open at once.
pub(super) const HELD_COUNTED_MAX: usize = crate::limits::ACTIONS_OPEN_MAX;

/// The quarantine job works this long before it reports and looks for what else there is to do.
pub(super) const JOB_SLICE: Duration = Duration::from_secs(10);

/// Listings of the quarantine job that may find newcomers before it says that they come too fast.
pub(super) const JOB_ROUNDS: u32 = 20;

/// Device ids sent in one call of the quarantine job.
pub(super) const IDS_PER_CALL: usize = 100;

/// Longest device id that is passed on. ActiveSync allows 32; some programs on phones use more.
pub(super) const DEVICE_ID_MAX: usize = 128;

/// Phones approved by themselves after one listing.
pub(super) const APPROVALS_PER_LISTING: usize = 500;

/// Enrolled phones in the desired config.
pub(super) const ENROLLED_MAX: usize = 200_000;

/// Longest value of a policy's or organisation's setting that travels.
pub(super) const VALUE_MAX_BYTES: usize = 1_024;
