//! What differs between operating systems, behind functions of the same name on each: the service, the system's log,
//! where secrets are sealed, who may read the data directory, the machine's identity.
//!
//! Everything that can be decided without the operating system is here or in the caller, so that it is tested anywhere;
//! `windows/` holds the calls and is the only place where unsafe code is allowed (`cargo xtask check`).

pub mod limits;
pub mod locked;
pub mod sddl;
pub mod syslog;

#[cfg(not(windows))]
mod linux;
#[cfg(windows)]
mod windows;

#[cfg(not(windows))]
use linux as here;
#[cfg(windows)]
use windows as here;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

#[cfg(not(windows))]
pub use linux::service::unit;
#[cfg(windows)]
pub(crate) use windows::contexts::WindowsContexts as SystemContexts;
#[cfg(windows)]
pub use windows::sspi;

pub(crate) use here::service;

use crate::dial::dns::system::Settings;
use crate::dial::proxy::system::SystemProxies;
use crate::secrets::Sealer;

/// The service's name, wherever names of services are kept.
pub const SERVICE_NAME: &str = "causeway-agent";

/// What a list of services shows.
pub const SERVICE_DISPLAY_NAME: &str = "Causeway agent";

/// What a list of services says about it.
pub const SERVICE_DESCRIPTION: &str =
    "Connects this company's systems to the device-management cloud through one outbound connection.";

/// What `service install` needs to know.
pub struct ServicePlace {
    /// Directory of systemd units; nothing to Windows.
    pub unit_dir: PathBuf,
    /// The agent's files.
    pub data_dir: PathBuf,
}

/// How the service stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Nobody starts services here that we know.
    #[cfg(not(windows))]
    NoServices {
        /// For people.
        because: &'static str,
    },
    /// It is not installed.
    Missing,
    /// It is installed and does not start with the machine.
    Disabled,
    /// It is installed and enabled and does not run.
    Stopped,
    /// It runs and starts with the machine.
    Running,
}

/// How this system seals files: DPAPI on Windows; on Linux the key systemd hands over, or else the file's mode.
pub fn sealer() -> Arc<dyn Sealer> {
    here::sealer()
}

/// The sealer of this system, where a value is handier than [`sealer`].
#[derive(Clone, Copy, Debug, Default)]
pub struct PlatformSealer;

impl Sealer for PlatformSealer {
    fn seal(&self, plain: &[u8]) -> io::Result<Vec<u8>> {
        sealer().seal(plain)
    }

    fn unseal(&self, sealed: &[u8]) -> io::Result<zeroize::Zeroizing<Vec<u8>>> {
        sealer().unseal(sealed)
    }
}

/// What names this installation of the operating system, if it has such a thing.
pub fn machine_id() -> Option<String> {
    here::machine_id().map(|id| id.trim().to_owned()).filter(|id| !id.is_empty())
}

/// The system's own proxy settings, where it has any.
pub fn system_proxies() -> Option<Arc<dyn SystemProxies>> {
    here::system_proxies()
}

/// Whom this machine asks for names.
///
/// # Errors
/// When the system does not say.
pub(crate) fn name_servers() -> io::Result<Settings> {
    here::name_servers()
}

/// The file in which this machine keeps names of its own.
///
/// # Errors
/// When it cannot be read; there may be none.
pub(crate) fn hosts() -> io::Result<String> {
    here::hosts()
}

/// Makes a folder that only the service's account and administrators can enter; one that exists becomes so.
///
/// # Errors
/// When the system refuses.
pub fn create_private_dir(path: &Path) -> io::Result<()> {
    here::create_private_dir(path)
}

/// Who else may read a file or folder of ours, for the doctor; empty when nobody.
///
/// # Errors
/// When the system does not say.
pub fn readable_by(path: &Path) -> io::Result<Vec<String>> {
    here::readable_by(path)
}

/// Renames over whatever is there. On Windows a scanner may hold either file for a moment.
///
/// # Errors
/// What the system says, at last.
pub fn replace(from: &Path, to: &Path) -> io::Result<()> {
    locked::retry(|| fs::rename(from, to))
}

/// Renames a file that cannot be used, so that a new one can begin: `state.redb.corrupt-1`, then `-2`.
///
/// # Errors
/// What the system says.
pub(crate) fn set_aside(path: &Path, because: &str) -> io::Result<PathBuf> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let free = (1..)
        .map(|n| path.with_file_name(format!("{name}.{because}-{n}")))
        .find(|candidate| !candidate.exists())
        .expect("the sequence has no end");
    replace(path, &free)?;
    Ok(free)
}

/// Gives a file to whoever owns its folder: what an administrator writes by `sudo` is for the service's account. Does
/// nothing for anybody but root, and nothing on Windows, where files belong to the service from the start.
///
/// # Errors
/// What the system says.
pub(crate) fn hand_over(path: &Path) -> io::Result<()> {
    here::hand_over(path)
}

/// The user id of whoever should own a private file and does not: who owns the file, and who owns its folder. None when
/// they are the same, and where the system knows no such ids.
///
/// # Errors
/// What the system says.
pub(crate) fn foreign_owner(path: &Path) -> io::Result<Option<(u32, u32)>> {
    here::foreign_owner(path)
}

/// Lets nobody have an image of this process, which holds passwords: no core dump is written, and no program of the same
/// account can look into it.
pub fn forbid_core_dumps() {
    here::forbid_core_dumps();
}

/// Tells the service manager that the agent is up, where it wants to know.
pub fn tell_ready() {
    here::tell_ready();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_platform_seals_it_opens_again() {
        let sealed = PlatformSealer.seal(b"canary").unwrap();
        assert_eq!(PlatformSealer.unseal(&sealed).unwrap().as_slice(), b"canary");
    }

    #[test]
    fn a_private_folder_is_nobody_elses() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b");
        create_private_dir(&path).unwrap();
        assert_eq!(readable_by(&path).unwrap(), Vec::<String>::new());
        create_private_dir(&path).unwrap();
    }

    #[test]
    fn a_file_is_set_aside_under_a_free_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secrets.sealed");
        for n in 1..=2 {
            fs::write(&path, "bad").unwrap();
            let aside = set_aside(&path, "corrupt").unwrap();
            assert_eq!(aside, dir.path().join(format!("secrets.sealed.corrupt-{n}")));
        }
        assert!(!path.exists());
    }

    #[test]
    fn a_file_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("new"), dir.path().join("old"));
        fs::write(&from, "new").unwrap();
        fs::write(&to, "old").unwrap();
        replace(&from, &to).unwrap();
        assert_eq!(fs::read_to_string(&to).unwrap(), "new");
        assert!(!from.exists());
    }
}
