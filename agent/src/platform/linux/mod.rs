//! Linux, and other Unix systems as far as they agree.

mod seal;
pub(crate) mod service;

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
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

pub(super) fn hand_over(path: &Path) -> io::Result<()> {
    if !rustix::process::geteuid().is_root() || foreign_owner(path)?.is_none() {
        return Ok(());
    }
    let folder = fs::metadata(folder_of(path))?;
    // The folder is the account's own: a link it plants there must not make it the owner of what is linked.
    let no_link = rustix::fs::OFlags::NOFOLLOW.bits().cast_signed();
    let file = fs::OpenOptions::new().read(true).custom_flags(no_link).open(path)?;
    let found = file.metadata()?;
    if !found.is_file() || found.nlink() > 1 {
        return Ok(());
    }
    match std::os::unix::fs::fchown(&file, Some(folder.uid()), Some(folder.gid())) {
        // Root without this capability (a container, a network share) leaves things as they were before.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
        done => done,
    }
}

pub(super) fn foreign_owner(path: &Path) -> io::Result<Option<(u32, u32)>> {
    let (file, folder) = (fs::symlink_metadata(path)?.uid(), fs::metadata(folder_of(path))?.uid());
    Ok((file != folder).then_some((file, folder)))
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

pub(super) fn forbid_core_dumps() {
    #[cfg(target_os = "linux")]
    {
        use rustix::process::{DumpableBehavior, set_dumpable_behavior};
        // There is no log yet, and the agent works without.
        let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
    }
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
    fn a_process_can_forbid_images_of_itself() {
        forbid_core_dumps();
        let now = rustix::process::dumpable_behavior().unwrap();
        assert_eq!(now, rustix::process::DumpableBehavior::NotDumpable);
    }

    #[test]
    fn what_root_writes_belongs_to_the_folders_owner() {
        let dir = tempfile::tempdir().unwrap();
        let (file, link) = (dir.path().join("secrets.sealed"), dir.path().join("link"));
        fs::write(&file, "x").unwrap();
        assert_eq!(foreign_owner(&file).unwrap(), None);
        if !rustix::process::geteuid().is_root() {
            hand_over(&file).unwrap();
            eprintln!("SKIPPED what_root_writes_belongs_to_the_folders_owner: only root can give files away");
            return;
        }
        let elsewhere = tempfile::tempdir().unwrap();
        let target = elsewhere.path().join("target");
        fs::write(&target, "x").unwrap();
        std::os::unix::fs::symlink(&target, &link).unwrap();
        std::os::unix::fs::lchown(dir.path(), Some(65_534), Some(65_534)).unwrap();
        assert_eq!(foreign_owner(&file).unwrap(), Some((0, 65_534)));
        hand_over(&file).unwrap();
        assert_eq!(foreign_owner(&file).unwrap(), None);
        assert!(hand_over(&link).is_err());
        assert_eq!(fs::metadata(&target).unwrap().uid(), 0, "a link gave away what it points at");
        crate::secrets::write_private(&file, b"y").unwrap();
        let written = fs::metadata(&file).unwrap();
        assert_eq!((written.uid(), written.gid(), written.mode() & 0o777), (65_534, 65_534, 0o600));
    }

    #[test]
    fn what_others_may_read_is_told() {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(readable_by(dir.path()).unwrap(), ["the file's group", "everybody"]);
    }
}
