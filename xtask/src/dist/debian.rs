//! The Debian package: program, unit, an account of its own.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};

use super::{Dist, linux};
use crate::process;

/// From `packaging/debian` into the package, with the mode.
const FILES: &[(&str, &str, u32)] = &[
    ("causeway-agent.service", "usr/lib/systemd/system/causeway-agent.service", 0o644),
    ("default", "etc/default/causeway-agent", 0o644),
    ("postinst", "DEBIAN/postinst", 0o755),
    ("prerm", "DEBIAN/prerm", 0o755),
    ("postrm", "DEBIAN/postrm", 0o755),
    ("copyright", "usr/share/doc/causeway-agent/copyright", 0o644),
];

pub(super) fn make(dist: &Dist<'_>) -> anyhow::Result<Vec<PathBuf>> {
    let program = linux::program(dist);
    ensure!(program.exists(), "{} is missing; make the part linux first", program.display());
    let root = dist.work.join("deb");
    if root.exists() {
        std::fs::remove_dir_all(&root).with_context(|| format!("remove {}", root.display()))?;
    }
    place(dist, &program, &root.join("usr/bin/causeway-agent"), 0o755)?;
    let from = dist.session.root.join("packaging/debian");
    for (name, to, mode) in FILES {
        place(dist, &from.join(name), &root.join(to), *mode)?;
    }
    let changes = root.join("usr/share/doc/causeway-agent/changelog");
    place(dist, &dist.session.root.join("CHANGELOG.md"), &changes, 0o644)?;
    process::quiet(dist.session.command("gzip").args(["-9", "--no-name"]).arg(&changes))?;
    write(dist, &root.join("DEBIAN/md5sums"), &sums(dist, &root)?)?;
    write(dist, &root.join("DEBIAN/conffiles"), "/etc/default/causeway-agent\n")?;
    let kib = program.metadata().with_context(|| format!("look at {}", program.display()))?.len() / 1024;
    write(dist, &root.join("DEBIAN/control"), &control(dist.version, kib))?;
    let package = dist.out.join(format!("causeway-agent_{}_amd64.deb", dist.version));
    let mut command = dist.session.command("dpkg-deb");
    command.env("SOURCE_DATE_EPOCH", dist.epoch.to_string());
    command.args(["--root-owner-group", "-Zxz", "--build"]).arg(&root).arg(&package);
    process::quiet(&mut command)?;
    Ok(vec![package])
}

/// Sums of what is installed, by which `dpkg --verify` finds what has changed since.
fn sums(dist: &Dist<'_>, root: &Path) -> anyhow::Result<String> {
    let mut find = dist.session.command("find");
    find.current_dir(root).args(["usr", "-type", "f"]);
    let found = process::quiet(&mut find)?;
    let mut files: Vec<&str> = found.lines().collect();
    files.sort_unstable();
    process::quiet(dist.session.command("md5sum").current_dir(root).arg("--").args(files))
}

fn control(version: &str, kib: u64) -> String {
    format!(
        "Package: causeway-agent
Version: {version}
Section: net
Priority: optional
Architecture: amd64
Depends: adduser
Installed-Size: {kib}
Maintainer: Causeway <packages@example.invalid>
Description: connects a company's systems to its device-management cloud
 Stands behind the firewall, opens no port, and keeps one outbound connection
 to the cloud. Enrol it with `causeway-agent enroll`.
"
    )
}

fn place(dist: &Dist<'_>, from: &Path, to: &Path, mode: u32) -> anyhow::Result<()> {
    dist.copy(from, to)?;
    let mode = std::fs::Permissions::from_mode(mode);
    std::fs::set_permissions(to, mode).with_context(|| format!("set the mode of {}", to.display()))
}

fn write(dist: &Dist<'_>, path: &Path, text: &str) -> anyhow::Result<()> {
    std::fs::write(path, text).with_context(|| format!("write {}", path.display()))?;
    dist.stamp(path)
}
