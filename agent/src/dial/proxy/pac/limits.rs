//! What a PAC script may cost. It comes from the company's network, often over plain HTTP, and runs in our process.

use std::time::Duration;

/// Largest script; the largest known in the field have some hundred kilobytes.
pub const SCRIPT_MAX_BYTES: usize = 1 << 20;
/// Memory of the script engine, source and byte code included.
pub const MEMORY_MAX_BYTES: usize = 8 << 20;
/// Stack of the script engine.
pub const STACK_MAX_BYTES: usize = 256 << 10;
/// Stack of the thread around it: the engine measures its own use from where it was entered.
pub const THREAD_STACK_BYTES: usize = 2 << 20;
/// Time in the script for loading it, and again for each evaluation; waiting for name servers is not counted.
pub const SCRIPT_WITHIN: Duration = Duration::from_millis(500);
/// A script that sits in one built-in function cannot be interrupted: after this long its thread is given up. Far above
/// [`SCRIPT_WITHIN`], so that a busy machine does not look like a hanging script.
pub const GIVEN_UP_AFTER: Duration = Duration::from_secs(2);
/// Threads given up at most in the life of the agent; then scripts are not run any more until it restarts.
pub const GIVEN_UP_MAX: usize = 2;
/// Names looked up in one evaluation ...
pub const LOOKUPS_MAX: u32 = 20;
/// ... and the time for all of them.
pub const LOOKUPS_WITHIN: Duration = Duration::from_secs(5);
/// Longest answer of a script that is read; a list of 16 proxies has less than one kilobyte.
pub const ANSWER_MAX_BYTES: usize = 8 << 10;
/// Entries of an answer that are used.
pub const ENTRIES_MAX: usize = 16;
/// Function calls shown in a trace.
pub const TRACE_MAX: usize = 64;
/// Evaluations waiting for the script's thread.
pub const QUEUE_MAX: usize = 64;

/// How long a script's answer for one destination is used again.
pub const ANSWER_KEPT_FOR: Duration = Duration::from_secs(60);
/// Answers kept.
pub const ANSWERS_MAX: usize = 1_000;
/// A script is fetched again after this long ...
pub const FETCHED_AGAIN_AFTER: Duration = Duration::from_secs(12 * 3_600);
/// ... and after a failure after these, the last one for ever.
pub const FETCHED_AGAIN_AFTER_FAILURE: [Duration; 4] = [
    Duration::from_secs(8),
    Duration::from_secs(32),
    Duration::from_secs(120),
    Duration::from_secs(4 * 3_600),
];
/// Fetching a script: connecting, redirects and body together.
pub const FETCHED_WITHIN: Duration = Duration::from_secs(10);
/// Redirects followed.
pub const REDIRECTS_MAX: usize = 3;
/// Longest text a script may give to one of our functions: matching a pattern takes time in proportion to both texts and
/// cannot be interrupted.
pub const ARGUMENT_MAX_BYTES: usize = 4 << 10;
