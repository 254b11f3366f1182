//! Linux, and other Unix systems as far as they agree.

mod seal;
pub(crate) mod service;

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;

use crate::dial::dns::system::Settings;
use crate::dial::proxy::system::SystemProxies;
use crate::secrets::Sealer;

pub(super) fn sealer() -> Arc<dyn Sealer> {
    Arc::new(seal::CredentialSealer::from_environment())
}

pub(super) fn machine_id() -> Option<String> {
    fs::read_to_string("/etc/machine-id").ok()
}

/// Linux has none that all programs share; the environment is a way of its own.
pub(super) fn system_proxies() -> Option<Arc<dyn SystemProxies>> {
    None
}

pub(super) fn name_servers() -> io::Result<Settings> {
    fs::read_to_string("/etc/resolv.conf").map(|text| Settings::parse(&text))
}

pub(super) fn hosts() -> io::Result<String> {
    fs::read_to_string("/etc/hosts")
}

pub(super) fn create_private_dir(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

pub(super) fn readable_by(path: &Path) -> io::Result<Vec<String>> {
    let mode = fs::metadata(path)?.permissions().mode();
    let who = [(0o040, "the file's group"), (0o004, "everybody")];
    Ok(who.into_iter().filter(|(bit, _)| mode & bit != 0).map(|(_, who)| who.to_owned()).collect())
}

/// sd_notify(3): one datagram to the socket systemd names. Not being told so is no failure: then nobody waits.
pub(super) fn tell_ready() {
    #[cfg(target_os = "linux")]
    if let Some(socket) = std::env::var_os("NOTIFY_SOCKET")
        && let Err(error) = notify(&socket, b"READY=1")
    {
        tracing::warn!(%error, "The service manager could not be told that the agent is up");
    }
}

#[cfg(target_os = "linux")]
fn notify(socket: &std::ffi::OsStr, message: &[u8]) -> io::Result<()> {
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::net::{SocketAddr, UnixDatagram};

    // A leading @ stands for the zero byte of an abstract name.
    let address = match socket.as_bytes().split_first() {
        Some((b'@', name)) => SocketAddr::from_abstract_name(name)?,
        _ => SocketAddr::from_pathname(socket)?,
    };
    UnixDatagram::unbound()?.send_to_addr(message, &address).map(drop)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::os::unix::net::UnixDatagram;

    use super::*;

    #[test]
    fn the_service_manager_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        notify(path.as_os_str(), b"READY=1").unwrap();
        let mut heard = [0; 16];
        let length = manager.recv(&mut heard).unwrap();
        assert_eq!(&heard[..length], b"READY=1");
    }

    #[test]
    fn what_others_may_read_is_told() {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(readable_by(dir.path()).unwrap(), ["the file's group", "everybody"]);
    }
}
