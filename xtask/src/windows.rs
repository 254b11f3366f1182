//! The agent for Windows, as far as it can be looked at from here: lints, and a program that the tests run under Wine.

use std::path::Path;
use std::process::Command;

use anyhow::Context;

use crate::peers::packages;
use crate::process;
use crate::session::Session;

pub(crate) const TARGET: &str = "x86_64-pc-windows-gnu";

/// Where the tests look for the program and what it needs under Wine, below `target`.
const FOLDER: &str = "wine";

/// A function Windows has and Wine 8 has not; see the source.
const SHIM: &str = "tests/wine/bcryptprimitives.c";

/// Has rustup add a target, where it is missing.
pub(crate) fn target(session: &Session, target: &str) -> anyhow::Result<()> {
    let root = process::quiet(session.command("rustc").args(["--print", "sysroot"]))?;
    if Path::new(root.trim()).join("lib/rustlib").join(target).is_dir() {
        return Ok(());
    }
    process::quiet(session.command("rustup").args(["target", "add", target]))
        .map(drop)
        .with_context(|| format!("add Rust's libraries for {target}"))
}

/// Rust's libraries for Windows and a C compiler for it, where they are missing. A new machine has neither.
fn tools(session: &Session) -> anyhow::Result<()> {
    packages::install(session, packages::For::Windows)?;
    target(session, TARGET)
}

/// What aws-lc-sys needs to be built for another system: NASM's output for Windows comes with it.
pub(crate) fn for_target(command: &mut Command) -> &mut Command {
    command.env("AWS_LC_SYS_PREBUILT_NASM", "1")
}

/// The agent's code for Windows is compiled by nothing else on the way.
pub(crate) fn clippy(session: &mut Session) -> anyhow::Result<()> {
    tools(session)?;
    let mut command =
        session.cargo(&["clippy", "--target", TARGET, "-p", "causeway-agent", "--", "-D", "warnings"]);
    session.stream(for_target(&mut command))
}

/// Builds the program unoptimised, which is the fastest way to one, and the missing function, into `target/wine`.
pub(crate) fn for_tests(session: &mut Session) -> anyhow::Result<()> {
    tools(session)?;
    let mut command = session.cargo(&["build", "--target", TARGET, "-p", "causeway-agent", "--bins"]);
    session.stream(for_target(&mut command))?;
    let target = session.root.join("target");
    let folder = target.join(FOLDER);
    std::fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
    let (from, to) =
        (target.join(TARGET).join("debug/causeway-agent.exe"), folder.join("causeway-agent.exe"));
    // Wine reads all of a program whenever it starts one, and nine tenths of this one are for a debugger.
    process::quiet(session.command("x86_64-w64-mingw32-strip").arg("-o").arg(&to).arg(&from))?;
    let mut compiler = session.command("x86_64-w64-mingw32-gcc");
    compiler.args(["-shared", "-O1", "-s", "-o"]).arg(folder.join("bcryptprimitives.dll")).arg(SHIM);
    process::quiet(compiler.arg("-ladvapi32")).map(drop)
}
