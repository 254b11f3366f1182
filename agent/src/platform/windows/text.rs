//! UTF-16 with a zero at its end, as the system wants text, and back.

use std::ffi::OsStr;
use std::os::windows::ffi::OsStrExt;

use windows_sys::Win32::Foundation::{GlobalFree, LocalFree};

/// With the final zero.
pub(super) fn wide(text: impl AsRef<OsStr>) -> Vec<u16> {
    text.as_ref().encode_wide().chain([0]).collect()
}

/// Up to the first zero.
///
/// # Safety
/// `text` is null or points to zero-terminated UTF-16 that nobody changes during the call.
pub(super) unsafe fn from_wide(text: *const u16) -> Option<String> {
    if text.is_null() {
        return None;
    }
    let mut length = 0;
    // SAFETY: the caller promises a zero; every unit before it may be read.
    while unsafe { *text.add(length) } != 0 {
        length += 1;
    }
    // SAFETY: `length` units were just read one by one.
    let units = unsafe { std::slice::from_raw_parts(text, length) };
    Some(String::from_utf16_lossy(units))
}

/// Memory the system gave with `LocalAlloc`, given back on drop.
pub(super) struct Local<T>(pub(super) *mut T);

impl<T> Drop for Local<T> {
    fn drop(&mut self) {
        // SAFETY: the pointer came from a function documented to be freed so, and is freed once; null is allowed.
        unsafe { LocalFree(self.0.cast()) };
    }
}

/// Text the system gave with `GlobalAlloc`, given back on drop.
pub(super) struct Global(pub(super) *mut u16);

impl Drop for Global {
    fn drop(&mut self) {
        // SAFETY: as in `Local`.
        unsafe { GlobalFree(self.0.cast()) };
    }
}
