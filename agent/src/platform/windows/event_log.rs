//! The Windows event log, source `causeway-agent` in the log `Application`.

use std::io;
use std::ptr;

use windows_sys::Win32::Foundation::HANDLE;
use windows_sys::Win32::System::EventLog::{
    DeregisterEventSource, EVENTLOG_ERROR_TYPE, EVENTLOG_INFORMATION_TYPE, EVENTLOG_WARNING_TYPE,
    RegisterEventSourceW, ReportEventW,
};

use super::registry::{self, Root};
use super::text::wide;
use crate::platform::SERVICE_NAME;
use crate::platform::syslog::{Severity, SystemLog};

const SOURCES: &str = r"SYSTEM\CurrentControlSet\Services\EventLog\Application";

/// A program of Windows whose messages 1 to 1000 are `%1`: our entries are shown as they are, and no message file has
/// to be built, installed and kept from being locked by the viewer during an update.
const MESSAGE_FILE: &str = r"%SystemRoot%\System32\EventCreate.exe";

/// Registers the source, so that the viewer shows texts instead of an apology.
///
/// # Errors
/// When the registry refuses; it takes an administrator.
pub(super) fn install() -> io::Result<()> {
    let key = format!(r"{SOURCES}\{SERVICE_NAME}");
    let types = EVENTLOG_ERROR_TYPE | EVENTLOG_WARNING_TYPE | EVENTLOG_INFORMATION_TYPE;
    registry::set_expandable(Root::Machine, &key, "EventMessageFile", MESSAGE_FILE)?;
    registry::set_number(Root::Machine, &key, "TypesSupported", u32::from(types))
}

/// Removes the source.
///
/// # Errors
/// When the registry refuses.
pub(super) fn remove() -> io::Result<()> {
    registry::remove(Root::Machine, &format!(r"{SOURCES}\{SERVICE_NAME}"))
}

/// Open for writing.
pub(crate) struct EventLog {
    source: HANDLE,
}

// SAFETY: the system allows a source to be used from any thread, and several at once.
unsafe impl Send for EventLog {}
// SAFETY: as above.
unsafe impl Sync for EventLog {}

impl EventLog {
    /// Opens our source.
    ///
    /// # Errors
    /// When the event log service does not run.
    pub(crate) fn open() -> io::Result<Self> {
        let name = wide(SERVICE_NAME);
        // SAFETY: the name ends with a zero; a null server is this machine.
        let source = unsafe { RegisterEventSourceW(ptr::null(), name.as_ptr()) };
        if source.is_null() { Err(io::Error::last_os_error()) } else { Ok(Self { source }) }
    }
}

impl SystemLog for EventLog {
    fn write(&self, severity: Severity, text: &str) {
        let (kind, id) = match severity {
            Severity::Notice => (EVENTLOG_INFORMATION_TYPE, 1),
            Severity::Warning => (EVENTLOG_WARNING_TYPE, 2),
            Severity::Error => (EVENTLOG_ERROR_TYPE, 3),
        };
        let text = wide(text);
        let texts = [text.as_ptr()];
        // SAFETY: the source is open; one text is announced and given, and ends with a zero; no account, no raw bytes.
        unsafe {
            ReportEventW(self.source, kind, 0, id, ptr::null_mut(), 1, 0, texts.as_ptr(), ptr::null());
        }
    }
}

impl Drop for EventLog {
    fn drop(&mut self) {
        // SAFETY: opened by us, closed once.
        unsafe { DeregisterEventSource(self.source) };
    }
}
