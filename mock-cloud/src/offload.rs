//! Pure computation of some milliseconds, kept off the threads that serve connections.

use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::task::JoinError;

/// Runs `job` on a thread for such work. A runtime of one thread (a test, a simulation) does it in place: there a second
/// thread would gain little and make the order of things depend on the machine.
///
/// # Errors
/// When the job panics on that thread, or the runtime ends.
pub(crate) async fn offload<T: Send + 'static>(
    job: impl FnOnce() -> T + Send + 'static,
) -> Result<T, JoinError> {
    match Handle::current().runtime_flavor() {
        RuntimeFlavor::CurrentThread => Ok(job()),
        _ => tokio::task::spawn_blocking(job).await,
    }
}
