//! Debian packages the peers come from.

use anyhow::bail;

use super::is_root;
use crate::process;
use crate::session::Session;

/// Package, and a program of it: what is on the path already need not come from a package.
const PACKAGES: &[(&str, &str)] = &[
    ("docker.io", "dockerd"),
    ("debootstrap", "debootstrap"),
    ("ldap-utils", "ldapsearch"),
    ("slapd", "slapd"),
    ("chromium", "chromium"),
    ("python3-venv", "python3"),
];

/// Folders that an ordinary user's path often lacks.
const MORE_FOLDERS: &[&str] = &["/usr/sbin", "/sbin"];

pub(super) fn missing(session: &Session) -> Vec<&'static str> {
    PACKAGES
        .iter()
        .filter(|(package, program)| !there(session, package, program))
        .map(|(package, _)| *package)
        .collect()
}

pub(super) fn install(session: &Session) -> anyhow::Result<()> {
    let missing = missing(session);
    if missing.is_empty() {
        return Ok(());
    }
    let list = missing.join(" ");
    if !(is_root(session) && std::path::Path::new("/etc/debian_version").exists()) {
        bail!(
            "missing: {list}; install them (on Debian or Ubuntu: `sudo apt-get install {list}`) and start the container engine"
        );
    }
    println!("   installing {list}");
    // Waits for another run of apt instead of failing beside it.
    const WAIT: &str = "DPkg::Lock::Timeout=300";
    process::quiet(session.command("apt-get").args(["-o", WAIT, "update", "-q"]))?;
    let mut command = session.command("apt-get");
    command.args(["-o", WAIT, "install", "-y", "-q", "--no-install-recommends"]).args(&missing);
    // A package's own service must not come up on the ports that tests or users own.
    process::quiet(command.env("DEBIAN_FRONTEND", "noninteractive").env("RUNLEVEL", "1"))?;
    Ok(())
}

fn there(session: &Session, package: &str, program: &str) -> bool {
    if package == "python3-venv" {
        return process::succeeds(session.command("python3").args(["-c", "import venv, ensurepip"]));
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(MORE_FOLDERS.iter().map(std::path::PathBuf::from))
        .any(|folder| folder.join(program).exists())
}
