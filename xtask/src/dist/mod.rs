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

/// The product.
const AGENT: &str = "causeway-agent";

/// The feature of [`AGENT`] for what is packed.
const DELIVERED: &str = "causeway-agent/delivered";

/// Batches are compressed at the fastest level (`ZSTD_LEVEL` of the agent); the code of the others is a third of a megabyte.
const ONLY_FAST_ZSTD: &str = "-DZSTD_EXCLUDE_DFAST_BLOCK_COMPRESSOR -DZSTD_EXCLUDE_GREEDY_BLOCK_COMPRESSOR \
     -DZSTD_EXCLUDE_LAZY_BLOCK_COMPRESSOR -DZSTD_EXCLUDE_LAZY2_BLOCK_COMPRESSOR -DZSTD_EXCLUDE_BTLAZY2_BLOCK_COMPRESSOR \
     -DZSTD_EXCLUDE_BTOPT_BLOCK_COMPRESSOR -DZSTD_EXCLUDE_BTULTRA_BLOCK_COMPRESSOR";

/// Rust's library, built with the programs: small instead of fast, and without the reader of debug information, of which
/// there is none in what is delivered. Sorting alone is 0.1 MB less.
const SMALL_STD: &[&str] =
    &["-Zbuild-std=std,panic_unwind", "-Zbuild-std-features=panic-unwind,optimize_for_size"];

/// Where everything goes, below the repository, when nothing else is said.
const OUT: &str = "target/packages";

#[derive(Args)]
pub(crate) struct Arguments {
    /// Where to put everything
    #[arg(long, default_value = OUT)]
    out: PathBuf,
    /// Only these parts: windows, linux, debian, images
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Take Rust's library as it was delivered instead of building it small; needs no sources of it and no unstable flags
    #[arg(long)]
    prebuilt_std: bool,
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
    /// Where Rust's own sources are.
    std_sources: PathBuf,
    /// Whether Rust's library is built from them.
    small_std: bool,
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
    let dist = Dist::new(session, &arguments.out, arguments.prebuilt_std)?;
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
    made.push(checksums(&dist)?);
    table(&made)?;
    for (what, reason) in skipped {
        session.skip(what, reason);
    }
    Ok(())
}

/// Builds the agent as it is delivered for Linux, for whoever measures it.
pub(crate) fn agent_for_linux(session: &Session) -> anyhow::Result<()> {
    peers::packages::install(session, peers::packages::For::Dist)?;
    linux::build(&Dist::new(session, Path::new(OUT), false)?).map(drop)
}

impl<'a> Dist<'a> {
    fn new(session: &'a Session, out: &Path, prebuilt_std: bool) -> anyhow::Result<Self> {
        let out = session.root.join(out);
        let work = session.root.join("target/xtask/dist");
        for folder in [&out, &work] {
            std::fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
        }
        let sysroot = process::quiet(session.command("rustc").args(["--print", "sysroot"]))?;
        let std_sources = Path::new(sysroot.trim()).join("lib/rustlib/src/rust");
        let small_std = !prebuilt_std && has_sources(session, &std_sources);
        let version = env!("CARGO_PKG_VERSION");
        Ok(Self { session, out, work, epoch: epoch(session)?, version, std_sources, small_std })
    }

    /// Builds programs for a target, and gives where they are. `for_c` goes to the C compiler.
    fn build(&self, target: &str, packages: &[&str], for_c: &str) -> anyhow::Result<PathBuf> {
        let mut command = self.session.cargo(&["build", "--profile", PROFILE, "--target", target, "--bins"]);
        for package in packages {
            command.args(["-p", package]);
        }
        if packages.contains(&AGENT) {
            command.args(["--features", DELIVERED]);
        }
        command.arg("--config").arg(format!("build.rustflags={}", self.short_paths()?));
        if self.small_std {
            // The one way to these flags in a stable compiler; they have no other effect than what they say.
            command.args(SMALL_STD).env("RUSTC_BOOTSTRAP", "1");
        }
        for_target(&mut command);
        let short = format!("-ffile-prefix-map={}=.", self.session.root.display());
        command.env(
            format!("CFLAGS_{}", target.replace('-', "_")),
            format!("{ONLY_FAST_ZSTD} {short} {for_c}").trim_end(),
        );
        command.env("SOURCE_DATE_EPOCH", self.epoch.to_string());
        self.session.stream(&mut command)?;
        Ok(self.session.root.join("target").join(target).join(PROFILE))
    }

    /// Flags, as a list in TOML, that keep this machine's folders out of the programs: whoever builds the same sources
    /// elsewhere gets the same bytes, and nobody needs to know where that was.
    fn short_paths(&self) -> anyhow::Result<String> {
        let mut folders = vec![(self.std_sources.clone(), "/rust")];
        folders.push((self.session.root.clone(), "."));
        let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
        let home = home.or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cargo")));
        let sources = home.context("neither CARGO_HOME nor HOME is set")?.join("registry/src");
        let indexes = std::fs::read_dir(&sources).with_context(|| format!("read {}", sources.display()))?;
        for index in indexes {
            folders.push((index.context("read the folder of sources")?.path(), "/crates"));
        }
        let flag = |(from, to): &(PathBuf, &str)| format!("--remap-path-prefix={}={to}", from.display());
        serde_json::to_string(&folders.iter().map(flag).collect::<Vec<_>>()).context("texts are JSON")
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

/// Whether the sources of Rust's library are there, if need be after rustup has fetched them.
fn has_sources(session: &Session, at: &Path) -> bool {
    let there = || at.join("library/Cargo.lock").is_file();
    let found = there()
        || process::succeeds(session.command("rustup").args(["component", "add", "rust-src"])) && there();
    if !found {
        println!(
            "   no sources of Rust's library (rustup's rust-src): the programs get half a megabyte larger"
        );
    }
    found
}

/// `SOURCE_DATE_EPOCH`, or the time of the last commit.
fn epoch(session: &Session) -> anyhow::Result<u64> {
    let text = match std::env::var("SOURCE_DATE_EPOCH") {
        Ok(text) => text,
        Err(_) => process::quiet(session.command("git").args(["log", "-1", "--format=%ct"]))?,
    };
    text.trim().parse().with_context(|| format!("SOURCE_DATE_EPOCH={text:?} is no number of seconds"))
}

/// As `sha256sum -c SHA256SUMS` wants it: of everything in the folder, also of what an earlier run has made.
fn checksums(dist: &Dist<'_>) -> anyhow::Result<PathBuf> {
    const NAME: &str = "SHA256SUMS";
    let mut names = Vec::new();
    for entry in std::fs::read_dir(&dist.out).with_context(|| format!("read {}", dist.out.display()))? {
        names.push(entry.context("read the folder of what is delivered")?.file_name());
    }
    names.retain(|name| name != NAME);
    names.sort();
    let mut command = dist.session.command("sha256sum");
    command.current_dir(&dist.out).arg("--").args(names);
    let path = dist.out.join(NAME);
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
