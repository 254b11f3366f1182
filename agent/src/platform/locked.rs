//! Files that somebody else holds for a moment: virus scanners and backups on Windows open what was just written, and
//! until they close it, it can be neither renamed nor opened for writing.

use std::io;
use std::thread;
use std::time::Duration;

use crate::platform::limits::{LOCKED_FILE_RETRY_EVERY, LOCKED_FILE_TRIES};

/// Repeats an operation while the system says that somebody holds the file.
///
/// # Errors
/// What the last attempt said.
pub fn retry<T>(operation: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    retry_if(is_locked, pause, operation)
}

fn retry_if<T>(
    locked: impl Fn(&io::Error) -> bool,
    mut pause: impl FnMut(Duration),
    mut operation: impl FnMut() -> io::Result<T>,
) -> io::Result<T> {
    let mut tries = 1;
    loop {
        match operation() {
            Err(error) if tries < LOCKED_FILE_TRIES && locked(&error) => {
                tries += 1;
                pause(LOCKED_FILE_RETRY_EVERY);
            }
            result => return result,
        }
    }
}

/// Nothing signals the end of a foreign lock, so there is nothing to wait on.
fn pause(length: Duration) {
    thread::park_timeout(length);
}

/// Whether this says that another program holds the file now (winerror.h).
pub fn is_locked(error: &io::Error) -> bool {
    const ACCESS_DENIED: i32 = 5;
    const SHARING_VIOLATION: i32 = 32;
    const LOCK_VIOLATION: i32 = 33;
    cfg!(windows) && matches!(error.raw_os_error(), Some(ACCESS_DENIED | SHARING_VIOLATION | LOCK_VIOLATION))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_waited_out_and_other_errors_are_not() {
        let held = || io::Error::from_raw_os_error(32);
        let locked = |error: &io::Error| error.raw_os_error() == Some(32);
        let (mut tries, mut pauses) = (0, 0);
        let result = retry_if(
            locked,
            |_| pauses += 1,
            || {
                tries += 1;
                if tries < 3 { Err(held()) } else { Ok(tries) }
            },
        );
        assert_eq!((result.unwrap(), pauses), (3, 2));

        let mut tries = 0;
        let result = retry_if(
            locked,
            |_| {},
            || {
                tries += 1;
                Err::<(), _>(held())
            },
        );
        assert_eq!((result.unwrap_err().raw_os_error(), tries), (Some(32), LOCKED_FILE_TRIES));

        let mut tries = 0;
        let result = retry_if(
            locked,
            |_| {},
            || {
                tries += 1;
                Err::<(), _>(io::Error::from_raw_os_error(2))
            },
        );
        assert_eq!((result.unwrap_err().raw_os_error(), tries), (Some(2), 1));
    }
}
