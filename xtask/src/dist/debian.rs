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
    let licences = root.join("usr/share/doc/causeway-agent");
    for name in ["LICENSE-MIT", "LICENSE-APACHE"] {
        place(dist, &dist.session.root.join(name), &licences.join(name), 0o644)?;
    }
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
