//! Every limit of user_visibility, with the reason for its value.

use std::time::Duration;

/// Changed objects one delta may hold in memory. More are not a delta any more; comparing everything is cheaper then.
pub(super) const CHANGES_MAX: usize = 20_000;

/// Objects a scan holds before it writes them, sorted: 83 bytes each, two rounds alive at once, so about 6 MB. A hundred
/// thousand objects take four rounds, each of which copies every page of the tree once.
pub(super) const ROWS_PER_ROUND: usize = 32_768;

/// Storage operations of one commit during a scan: about 1.5 MB in memory.
pub(super) const OPS_PER_COMMIT: usize = 8_192;

/// Units and containers held while their tree is put together.
pub(super) const UNITS_MAX: usize = 200_000;

/// Members (16 bytes each) of groups whose other members are not known yet, held until the end of a scan. Beyond it,
/// unknown members wait in the store for the next run.
pub(super) const DEFERRED_MEMBERS_MAX: usize = 1_000_000;

/// Rows read of the store at once.
pub(super) const ROWS_PER_READ: usize = 2_000;

/// Attempts of one run at different servers before it waits for the next one.
pub(super) const ATTEMPTS: u32 = 3;

/// Pause after a failed run; doubled with each failure up to the interval of the next delta.
pub(super) const RETRY_AFTER: Duration = Duration::from_secs(5);

/// Longest value of an extra attribute that travels. Photos and certificates are not what this is for.
pub(super) const VALUE_MAX_BYTES: usize = 4_096;

/// Values of one extra attribute that travel.
pub(super) const VALUES_MAX: usize = 100;

/// Orders waiting for the run loop.
pub(super) const ORDERS: usize = 16;
