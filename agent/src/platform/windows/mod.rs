//! Windows. Each file wraps one part of the system behind safe functions; no unsafe code is allowed anywhere else.
#![allow(unsafe_code)]

mod acl;
pub(crate) mod contexts;
mod dpapi;
pub(crate) mod event_log;
pub(crate) mod exec;
mod names;
mod proxy;
mod registry;
pub(crate) mod service;
pub mod sspi;
mod text;

pub(super) use names::{hosts, name_servers};

use std::io;
use std::path::Path;
use std::sync::Arc;

use crate::dial::proxy::system::SystemProxies;
use crate::secrets::Sealer;

pub(super) fn sealer() -> Arc<dyn Sealer> {
    Arc::new(dpapi::DpapiSealer)
}

/// Made when Windows is installed, and again by `sysprep`, as a clone must be.
pub(super) fn machine_id() -> Option<String> {
    registry::text(registry::Root::Machine, r"SOFTWARE\Microsoft\Cryptography", "MachineGuid").ok().flatten()
}

pub(super) fn system_proxies() -> Option<Arc<dyn SystemProxies>> {
    Some(Arc::new(proxy::ThisMachine))
}

pub(super) fn create_private_dir(path: &Path) -> io::Result<()> {
    acl::create_private_dir(path)
}

pub(super) fn readable_by(path: &Path) -> io::Result<Vec<String>> {
    acl::readable_by(path)
}

/// Files belong to the account of the service from the start: commands run as it.
pub(super) fn hand_over(_: &Path) -> io::Result<()> {
    Ok(())
}

pub(super) fn foreign_owner(_: &Path) -> io::Result<Option<(u32, u32)>> {
    Ok(None)
}

/// Windows writes no image of a process unless an administrator has asked for it.
pub(super) fn forbid_core_dumps() {}

/// The service control manager is told by the service itself.
pub(super) fn tell_ready() {}
