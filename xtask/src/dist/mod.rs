//! `cargo xtask dist`: everything that is delivered, in one folder, with checksums and a bill of materials.

mod debian;
mod images;
mod linux;
mod sbom;
mod signing;
mod windows;

use std::path::{Path, PathBuf};
use std::time::{Instant, SystemTime};

use anyhow::{Context, bail};
use clap::Args;

use crate::peers;
use crate::process;
use crate::session::Session;
use crate::windows::for_target;

/// Size, link time and memory decide here, not the time a build takes.
const PROFILE: &str = "dist";

#[derive(Args)]
pub(crate) struct Arguments {
    /// Where to put everything
    #[arg(long, default_value = "target/packages")]
    out: PathBuf,
    /// Only these parts: windows, linux, debian, images
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
}

/// What the parts share.
struct Dist<'a> {
    session: &'a Session,
    /// What is delivered.
    out: PathBuf,
    /// What is only needed on the way.
    work: PathBuf,
    /// Seconds since 1970 that every file and package carries, so that the same sources give the same bytes.
    epoch: u64,
    version: &'static str,
}

/// One part; gives the files it made.
struct Part {
    name: &'static str,
    make: fn(&Dist<'_>) -> anyhow::Result<Vec<PathBuf>>,
}

/// In the order in which one needs the other.
const PARTS: &[Part] = &[
    Part { name: "windows", make: windows::make },
    Part { name: "linux", make: linux::make },
    Part { name: "debian", make: debian::make },
    Part { name: "images", make: images::make },
];

pub(crate) fn run(session: &mut Session, arguments: &Arguments) -> anyhow::Result<()> {
    for name in &arguments.only {
        if !PARTS.iter().any(|part| part.name == name) {
            let known: Vec<&str> = PARTS.iter().map(|part| part.name).collect();
            bail!("no part {name:?}; known: {}", known.join(", "));
        }
    }
    peers::packages::install(session, peers::packages::For::Dist)?;
    let out = session.root.join(&arguments.out);
    let work = session.root.join("target/xtask/dist");
    for folder in [&out, &work] {
        std::fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
    }
    let epoch = epoch(session)?;
    let dist = Dist { session, out, work, epoch, version: env!("CARGO_PKG_VERSION") };
    let mut made = Vec::new();
    let mut skipped = Vec::new();
    for part in PARTS {
        if !arguments.only.is_empty() && !arguments.only.iter().any(|name| name == part.name) {
            continue;
        }
        println!("== {}", part.name);
        if part.name == "images" && !images::engine_answers(session) {
            skipped.push(("images", "no container engine answers; start one (`cargo xtask peers start`)"));
            continue;
        }
        let started = Instant::now();
        made.extend((part.make)(&dist).with_context(|| format!("make {}", part.name))?);
        println!("== {}: ok in {:.1} s", part.name, started.elapsed().as_secs_f64());
    }
    made.push(sbom::write(&dist)?);
    made.push(checksums(&dist, &made)?);
    table(&made)?;
    for (what, reason) in skipped {
        session.skip(what, reason);
    }
    Ok(())
}

impl Dist<'_> {
    /// Builds programs for a target, and gives where they are.
    fn build(&self, target: &str, packages: &[&str]) -> anyhow::Result<PathBuf> {
        let mut command = self.session.cargo(&["build", "--profile", PROFILE, "--target", target, "--bins"]);
        for package in packages {
            command.args(["-p", package]);
        }
        for_target(&mut command);
        command.env("SOURCE_DATE_EPOCH", self.epoch.to_string());
        self.session.stream(&mut command)?;
        Ok(self.session.root.join("target").join(target).join(PROFILE))
    }

    /// Gives a file the time all files carry.
    fn stamp(&self, path: &Path) -> anyhow::Result<()> {
        let time = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(self.epoch);
        std::fs::File::options()
            .write(true)
            .open(path)
            .and_then(|file| file.set_modified(time))
            .with_context(|| format!("set the time of {}", path.display()))
    }

    fn copy(&self, from: &Path, to: &Path) -> anyhow::Result<()> {
        if let Some(folder) = to.parent() {
            std::fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
        }
        std::fs::copy(from, to).with_context(|| format!("copy {} to {}", from.display(), to.display()))?;
        self.stamp(to)
    }
}

/// `SOURCE_DATE_EPOCH`, or the time of the last commit.
fn epoch(session: &Session) -> anyhow::Result<u64> {
    let text = match std::env::var("SOURCE_DATE_EPOCH") {
        Ok(text) => text,
        Err(_) => process::quiet(session.command("git").args(["log", "-1", "--format=%ct"]))?,
    };
    text.trim().parse().with_context(|| format!("SOURCE_DATE_EPOCH={text:?} is no number of seconds"))
}

/// As `sha256sum -c SHA256SUMS` wants it.
fn checksums(dist: &Dist<'_>, made: &[PathBuf]) -> anyhow::Result<PathBuf> {
    let mut command = dist.session.command("sha256sum");
    command.current_dir(&dist.out).arg("--");
    for path in made {
        command.arg(path.strip_prefix(&dist.out).context("what is delivered lies in one folder")?);
    }
    let path = dist.out.join("SHA256SUMS");
    std::fs::write(&path, process::quiet(&mut command)?)
        .with_context(|| format!("write {}", path.display()))?;
    Ok(path)
}

fn table(made: &[PathBuf]) -> anyhow::Result<()> {
    println!("\n{:<48} {:>10}", "file", "MiB");
    for path in made {
        let bytes = path.metadata().with_context(|| format!("look at {}", path.display()))?.len();
        let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy();
        println!("{name:<48} {:>10.2}", bytes as f64 / (1024.0 * 1024.0));
    }
    if let Some(folder) = made.first().and_then(|path| path.parent()) {
        println!("in {}", folder.display());
    }
    Ok(())
}
