//! Static programs for Linux: no library of the machine is needed, whatever its age.

use std::path::PathBuf;

use super::{AGENT, Dist};
use crate::process;
use crate::windows::target;

pub(super) const TARGET: &str = "x86_64-unknown-linux-musl";

/// Delivered, and packed further by `debian` and `images`.
pub(super) fn program(dist: &Dist<'_>) -> PathBuf {
    dist.out.join(format!("causeway-agent-{}-linux-x86_64", dist.version))
}

pub(super) fn build(dist: &Dist<'_>) -> anyhow::Result<PathBuf> {
    target(dist.session, TARGET)?;
    Ok(dist.build(TARGET, &[AGENT], "")?.join(AGENT))
}

pub(super) fn make(dist: &Dist<'_>) -> anyhow::Result<Vec<PathBuf>> {
    let built = build(dist)?;
    let program = program(dist);
    dist.copy(&built, &program)?;
    let told = process::quiet(dist.session.command("file").arg("--brief").arg(&program))?;
    anyhow::ensure!(told.contains("static"), "the program is not static: {told}");
    Ok(vec![program])
}
