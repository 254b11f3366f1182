//! What can be told from the sources alone.

pub(crate) mod dependencies;
pub(crate) mod policy;
pub(crate) mod sources;
mod spdx;

use crate::session::Session;

pub(crate) fn clippy(session: &mut Session) -> anyhow::Result<()> {
    session.stream(&mut session.cargo(&[
        "clippy",
        "--workspace",
        "--all-targets",
        "--all-features",
        "--",
        "-D",
        "warnings",
    ]))
}
