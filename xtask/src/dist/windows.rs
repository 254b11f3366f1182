//! The program and the installer for Windows, both signed.

use std::path::{Path, PathBuf};

use anyhow::bail;

use super::signing::Signer;
use super::{AGENT, Dist};
use crate::process;
use crate::windows::{TARGET, target};

const PROGRAM: &str = "causeway-agent.exe";

/// The linker keeps every function that an unwind table mentions, and with it all of aws-lc, QuickJS and zstd, most of which
/// nobody calls. Nothing ever unwinds through C here: what Rust hands to it to be called catches its panics.
const NO_UNWINDING: &str = "-fno-asynchronous-unwind-tables -fno-ident";

/// Corrections to what wixl 0.101 writes; it has no attributes for them.
const CORRECTIONS: &[&str] = &[
    // Given to the installer's privileged half; wixl names its own two here and takes no more.
    "UPDATE `Property` SET `Value`='WIX_UPGRADE_DETECTED;WIX_DOWNGRADE_DETECTED;CLOUD;KEY;CAFILE;PROXY' \
     WHERE `Property`='SecureCustomProperties'",
    // msidbCustomActionTypeHideTarget (0x2000) beside what it is: the enrolment key stays out of the log.
    "UPDATE `CustomAction` SET `Type`=11282 WHERE `Action`='Enroll'",
];

/// Tables the installer cannot do without; a wixl that skips what it does not know would leave them out in silence.
const TABLES: &[(&str, &str)] = &[
    ("ServiceInstall", "causeway-agent"),
    ("ServiceControl", "causeway-agent"),
    ("CustomAction", "11282"),
    ("Property", "DETECTED;CLOUD;KEY"),
];

pub(super) fn make(dist: &Dist<'_>) -> anyhow::Result<Vec<PathBuf>> {
    target(dist.session, TARGET)?;
    let built = dist.build(TARGET, &[AGENT], NO_UNWINDING)?.join(PROGRAM);
    let signer = Signer::new(dist)?;
    let program = dist.out.join(PROGRAM);
    signer.sign(dist, &built, &program)?;
    dist.stamp(&program)?;
    let unsigned = installer(dist, &program)?;
    let installer = dist.out.join(format!("causeway-agent-{}-x64.msi", dist.version));
    signer.sign(dist, &unsigned, &installer)?;
    Ok(vec![program, installer])
}

fn installer(dist: &Dist<'_>, program: &Path) -> anyhow::Result<PathBuf> {
    // wixl takes paths relative to where it runs only.
    let folder = dist.work.join("msi");
    dist.copy(program, &folder.join(PROGRAM))?;
    dist.copy(&dist.session.root.join("packaging/windows/causeway-agent.wxs"), &folder.join("agent.wxs"))?;
    let installer = folder.join("agent.msi");
    let mut wixl = dist.session.command("wixl");
    wixl.current_dir(&folder).env("SOURCE_DATE_EPOCH", dist.epoch.to_string());
    wixl.args(["-a", "x64", "-D"]).arg(format!("VERSION={}", dist.version));
    wixl.args(["-D", &format!("PROGRAM={PROGRAM}"), "-o", "agent.msi", "agent.wxs"]);
    process::quiet(&mut wixl)?;
    for correction in CORRECTIONS {
        let mut build = dist.session.command("msibuild");
        process::quiet(build.arg(&installer).args(["-q", correction]))?;
    }
    for (table, wanted) in TABLES {
        let told = process::quiet(dist.session.command("msiinfo").arg("export").arg(&installer).arg(table))?;
        if !told.contains(wanted) {
            bail!("the installer's table {table} lacks {wanted}:\n{told}");
        }
    }
    Ok(installer)
}
