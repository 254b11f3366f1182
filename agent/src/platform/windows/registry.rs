//! Values of the registry.

use std::io;
use std::ptr;

use windows_sys::Win32::Foundation::{ERROR_FILE_NOT_FOUND, ERROR_MORE_DATA};
use windows_sys::Win32::System::Registry::{
    HKEY, HKEY_CURRENT_USER, HKEY_LOCAL_MACHINE, HKEY_USERS, REG_DWORD, REG_EXPAND_SZ, RRF_RT_REG_BINARY,
    RRF_RT_REG_DWORD, RRF_RT_REG_SZ, RegDeleteTreeW, RegGetValueW, RegSetKeyValueW,
};

use super::text::wide;

/// No value we read is longer; a `ProxyOverride` of thousands of hosts is not.
const VALUE_MAX_BYTES: u32 = 1 << 20;

/// Where a key begins.
#[derive(Clone, Copy, Debug)]
pub(super) enum Root {
    /// Of the machine.
    Machine,
    /// Of the account we run as.
    Account,
    /// Of all accounts; a key begins with the SID of one.
    Users,
}

impl Root {
    fn key(self) -> HKEY {
        match self {
            Self::Machine => HKEY_LOCAL_MACHINE,
            Self::Account => HKEY_CURRENT_USER,
            Self::Users => HKEY_USERS,
        }
    }
}

/// A text value; `None` when there is none.
///
/// # Errors
/// When it is no text or may not be read.
pub(super) fn text(root: Root, key: &str, value: &str) -> io::Result<Option<String>> {
    let Some(bytes) = read(root, key, value, RRF_RT_REG_SZ)? else { return Ok(None) };
    let units: Vec<u16> = bytes
        .chunks_exact(2)
        .map(|pair| u16::from_le_bytes([pair[0], pair[1]]))
        .take_while(|c| *c != 0)
        .collect();
    Ok(Some(String::from_utf16_lossy(&units)))
}

/// A number; `None` when there is none.
///
/// # Errors
/// When it is no number or may not be read.
pub(super) fn number(root: Root, key: &str, value: &str) -> io::Result<Option<u32>> {
    let bytes = read(root, key, value, RRF_RT_REG_DWORD)?;
    Ok(bytes.and_then(|bytes| bytes.first_chunk().map(|four| u32::from_le_bytes(*four))))
}

/// Bytes; `None` when there are none.
///
/// # Errors
/// When they may not be read.
pub(super) fn bytes(root: Root, key: &str, value: &str) -> io::Result<Option<Vec<u8>>> {
    read(root, key, value, RRF_RT_REG_BINARY)
}

/// Sets a text that names files by environment variables.
///
/// # Errors
/// When it may not be written.
pub(super) fn set_expandable(root: Root, key: &str, value: &str, text: &str) -> io::Result<()> {
    let bytes: Vec<u8> = wide(text).into_iter().flat_map(u16::to_le_bytes).collect();
    set(root, key, value, REG_EXPAND_SZ, &bytes)
}

/// Sets a number.
///
/// # Errors
/// When it may not be written.
pub(super) fn set_number(root: Root, key: &str, value: &str, number: u32) -> io::Result<()> {
    set(root, key, value, REG_DWORD, &number.to_le_bytes())
}

/// Removes a key and everything below; one that is not there is no error.
///
/// # Errors
/// When it may not be removed.
pub(super) fn remove(root: Root, key: &str) -> io::Result<()> {
    let key = wide(key);
    // SAFETY: the name ends with a zero.
    match unsafe { RegDeleteTreeW(root.key(), key.as_ptr()) } {
        ERROR_FILE_NOT_FOUND => Ok(()),
        code => outcome(code),
    }
}

fn read(root: Root, key: &str, value: &str, kinds: u32) -> io::Result<Option<Vec<u8>>> {
    let (key, value) = (wide(key), wide(value));
    let mut length = 256;
    loop {
        let mut found = vec![0_u8; length as usize];
        // SAFETY: both names end with a zero; `found` has room for `length` bytes, which the call is told.
        let code = unsafe {
            RegGetValueW(
                root.key(),
                key.as_ptr(),
                value.as_ptr(),
                kinds,
                ptr::null_mut(),
                found.as_mut_ptr().cast(),
                &mut length,
            )
        };
        match code {
            ERROR_FILE_NOT_FOUND => return Ok(None),
            // Somebody may write a longer one between two calls.
            ERROR_MORE_DATA if length <= VALUE_MAX_BYTES => {}
            code => {
                outcome(code)?;
                found.truncate(length as usize);
                return Ok(Some(found));
            }
        }
    }
}

fn set(root: Root, key: &str, value: &str, kind: u32, bytes: &[u8]) -> io::Result<()> {
    let (key, value) = (wide(key), wide(value));
    let length = u32::try_from(bytes.len()).map_err(|_| io::Error::other("too long for the registry"))?;
    // SAFETY: both names end with a zero; the bytes live during the call and are as many as it is told.
    outcome(unsafe {
        RegSetKeyValueW(root.key(), key.as_ptr(), value.as_ptr(), kind, bytes.as_ptr().cast(), length)
    })
}

fn outcome(code: u32) -> io::Result<()> {
    if code == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(code.cast_signed())) }
}
