//! Debian packages the peers come from.

use anyhow::bail;

use super::is_root;
use crate::process;
use crate::session::Session;

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum For {
    /// `cargo xtask test` and `peers`.
    Tests,
    /// The agent compiled for Windows: the lints of `cargo xtask check` come before the peers.
    Windows,
    /// `cargo xtask dist`.
    Dist,
}

/// Package, and a program of it: what is on the path already need not come from a package.
const PACKAGES: &[(&str, &str)] = &[
    ("docker.io", "dockerd"),
    ("debootstrap", "debootstrap"),
    ("ldap-utils", "ldapsearch"),
    ("slapd", "slapd"),
    ("strongswan-pki", "pki"),
    // Its fetcher: without it `pki` can reach no server.
    ("libstrongswan-extra-plugins", "libstrongswan-curl.so"),
    ("certmonger", "certmonger"),
    ("chromium", "chromium"),
    ("chromium-driver", "chromedriver"),
    ("curl", "curl"),
    ("openssl", "openssl"),
    ("iproute2", "ip"),
    ("util-linux", "nsenter"),
    ("tmux", "tmux"),
    ("python3-venv", "python3"),
    ("wine64", "wine64"),
    ("wine", "wine"),
];

/// What C code in the agent's dependencies is compiled with for Windows.
const PACKAGES_FOR_WINDOWS: &[(&str, &str)] = &[("gcc-mingw-w64-x86-64", "x86_64-w64-mingw32-gcc")];

/// What packing needs.
const PACKAGES_FOR_DIST: &[(&str, &str)] = &[
    ("gcc-mingw-w64-x86-64", "x86_64-w64-mingw32-gcc"),
    ("musl-tools", "musl-gcc"),
    ("wixl", "wixl"),
    ("msitools", "msiinfo"),
    ("osslsigncode", "osslsigncode"),
    ("openssl", "openssl"),
    ("file", "file"),
];

/// Folders that an ordinary user's path often lacks.
const MORE_FOLDERS: &[&str] = &["/usr/sbin", "/sbin", "/usr/lib/wine", "/usr/lib/ipsec/plugins"];

pub(super) fn missing(session: &Session, purpose: For) -> Vec<&'static str> {
    let packages = match purpose {
        For::Tests => PACKAGES,
        For::Windows => PACKAGES_FOR_WINDOWS,
        For::Dist => PACKAGES_FOR_DIST,
    };
    packages
        .iter()
        .filter(|(package, program)| !there(session, package, program))
        .map(|(package, _)| *package)
        .collect()
}

pub(crate) fn install(session: &Session, purpose: For) -> anyhow::Result<()> {
    let missing = missing(session, purpose);
    if missing.is_empty() {
        return Ok(());
    }
    let list = missing.join(" ");
    if !(is_root(session) && std::path::Path::new("/etc/debian_version").exists()) {
        bail!("missing: {list}; install them (on Debian or Ubuntu: `sudo apt-get install {list}`)");
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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::PACKAGES;

    /// Program and package of every `program::find("PROGRAM", "PACKAGE")` below a folder.
    fn asked_for(folder: &Path, found: &mut Vec<(String, String)>) {
        for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
            let path = entry.path();
            if path.is_dir() {
                asked_for(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                for call in text.split("program::find(").skip(1) {
                    let words: Vec<&str> = call.split('"').collect();
                    found.push((words[1].to_owned(), words[3].to_owned()));
                }
            }
        }
    }

    /// A machine that has been used has them anyway, and then only a new one fails.
    #[test]
    fn every_program_the_tests_look_for_is_installed_for_them() {
        let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests");
        let mut found = Vec::new();
        asked_for(&tests, &mut found);
        assert!(found.len() > 10, "{found:?}");
        for (program, package) in found {
            assert!(
                PACKAGES.contains(&(package.as_str(), program.as_str())),
                "{program} of {package} is not in the list"
            );
        }
    }
}
