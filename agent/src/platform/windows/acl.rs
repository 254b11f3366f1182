//! Who may open the data directory: the service's account and administrators, nobody else, nothing inherited.

use std::fs;
use std::io;
use std::path::Path;
use std::ptr;

use windows_sys::Win32::Security::Authorization::{
    ConvertSecurityDescriptorToStringSecurityDescriptorW,
    ConvertStringSecurityDescriptorToSecurityDescriptorW, GetNamedSecurityInfoW, SDDL_REVISION_1,
    SE_FILE_OBJECT, SetNamedSecurityInfoW,
};
use windows_sys::Win32::Security::{
    ACL, DACL_SECURITY_INFORMATION, GetSecurityDescriptorDacl, PROTECTED_DACL_SECURITY_INFORMATION,
    PSECURITY_DESCRIPTOR, SECURITY_ATTRIBUTES,
};
use windows_sys::Win32::Storage::FileSystem::CreateDirectoryW;

use super::text::{Local, from_wide, wide};
use crate::platform::sddl;

pub(super) fn create_private_dir(path: &Path) -> io::Result<()> {
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        fs::create_dir_all(parent)?;
    }
    let descriptor = descriptor(sddl::PRIVATE)?;
    let attributes = SECURITY_ATTRIBUTES {
        nLength: size_of::<SECURITY_ATTRIBUTES>() as u32,
        lpSecurityDescriptor: descriptor.0.cast(),
        bInheritHandle: 0,
    };
    let name = wide(path);
    // SAFETY: the name ends with a zero; attributes and the descriptor they point to live until after the call.
    if unsafe { CreateDirectoryW(name.as_ptr(), &attributes) } != 0 {
        return Ok(());
    }
    let error = io::Error::last_os_error();
    if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() {
        return protect(path, &descriptor);
    }
    Err(error)
}

/// Replaces the rights of a folder that is there. What it holds inherits them.
fn protect(path: &Path, descriptor: &Local<core::ffi::c_void>) -> io::Result<()> {
    let (mut present, mut defaulted, mut dacl) = (0, 0, ptr::null_mut::<ACL>());
    // SAFETY: the descriptor is valid, the outputs are ours.
    if unsafe { GetSecurityDescriptorDacl(descriptor.0.cast(), &mut present, &mut dacl, &mut defaulted) } == 0
    {
        return Err(io::Error::last_os_error());
    }
    let name = wide(path);
    let what = DACL_SECURITY_INFORMATION | PROTECTED_DACL_SECURITY_INFORMATION;
    // SAFETY: the name ends with a zero; `dacl` points into the descriptor, which outlives the call; owner, group and
    // audit list are not touched.
    let code = unsafe {
        SetNamedSecurityInfoW(
            name.as_ptr(),
            SE_FILE_OBJECT,
            what,
            ptr::null_mut(),
            ptr::null_mut(),
            dacl,
            ptr::null(),
        )
    };
    outcome(code)
}

pub(super) fn readable_by(path: &Path) -> io::Result<Vec<String>> {
    let name = wide(path);
    let mut descriptor: PSECURITY_DESCRIPTOR = ptr::null_mut();
    // SAFETY: the name ends with a zero; only the descriptor is asked for, and it is freed below.
    outcome(unsafe {
        GetNamedSecurityInfoW(
            name.as_ptr(),
            SE_FILE_OBJECT,
            DACL_SECURITY_INFORMATION,
            ptr::null_mut(),
            ptr::null_mut(),
            ptr::null_mut(),
            ptr::null_mut(),
            &mut descriptor,
        )
    })?;
    let descriptor = Local(descriptor);
    let mut text = ptr::null_mut();
    // SAFETY: the descriptor is valid; the text is allocated by the call and freed below.
    let done = unsafe {
        ConvertSecurityDescriptorToStringSecurityDescriptorW(
            descriptor.0,
            SDDL_REVISION_1,
            DACL_SECURITY_INFORMATION,
            &mut text,
            ptr::null_mut(),
        )
    };
    if done == 0 {
        return Err(io::Error::last_os_error());
    }
    let text = Local(text);
    // SAFETY: a call that succeeded left zero-terminated text there.
    let sddl = unsafe { from_wide(text.0) }.unwrap_or_default();
    Ok(sddl::others(&sddl))
}

/// Reads a descriptor in its text form.
pub(super) fn descriptor(sddl: &str) -> io::Result<Local<core::ffi::c_void>> {
    let text = wide(sddl);
    let mut descriptor: PSECURITY_DESCRIPTOR = ptr::null_mut();
    // SAFETY: the text ends with a zero; the descriptor is allocated by the call and freed by its owner.
    let done = unsafe {
        ConvertStringSecurityDescriptorToSecurityDescriptorW(
            text.as_ptr(),
            SDDL_REVISION_1,
            &mut descriptor,
            ptr::null_mut(),
        )
    };
    if done == 0 { Err(io::Error::last_os_error()) } else { Ok(Local(descriptor)) }
}

fn outcome(code: u32) -> io::Result<()> {
    if code == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(code.cast_signed())) }
}
