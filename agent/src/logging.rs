//! Where log lines go: standard error in the foreground and under systemd; a file of bounded size and the system's own
//! log where a service has no standard error.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use anyhow::Context;
use tracing_subscriber::filter::{FilterFn, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, fmt};

use crate::platform;
use crate::platform::limits::LOG_FILE_MAX_BYTES;
use crate::platform::syslog::{SystemLog, SystemLogLayer};

/// The log of a service, in the data directory.
pub const FILE_NAME: &str = "agent.log";

/// The one before, kept when a new one begins.
pub const PREVIOUS_FILE_NAME: &str = "agent.1.log";

/// Logs to standard error.
///
/// # Errors
/// When the level is none, or somebody has set up logging before.
pub fn to_stderr(level: &str) -> anyhow::Result<()> {
    let layer = fmt::layer().with_writer(io::stderr).with_ansi(false).with_filter(harmless());
    let registry = tracing_subscriber::registry().with(filter(level)?).with(layer);
    registry.try_init().context("set up logging")
}

/// Logs to a file in the data directory, and warnings and errors to the system's log.
///
/// # Errors
/// When the file cannot be opened, and as in [`to_stderr`].
pub fn to_file(level: &str, data_dir: &Path, system: impl SystemLog) -> anyhow::Result<()> {
    let path = data_dir.join(FILE_NAME);
    let file = LogFile::open(path.clone()).with_context(|| format!("open {}", path.display()))?;
    let layer = fmt::layer().with_writer(Mutex::new(file)).with_ansi(false).with_filter(harmless());
    let registry =
        tracing_subscriber::registry().with(filter(level)?).with(layer).with(SystemLogLayer::new(system));
    registry.try_init().context("set up logging")
}

/// `error`, `warn`, `info`, `debug`, or `target=level` pairs with commas between.
fn filter(level: &str) -> anyhow::Result<Targets> {
    level
        .parse()
        .with_context(|| format!("log.level = {level:?} in agent.toml; write error, warn, info or debug"))
}

/// Libraries that log the bytes they send are kept quiet whatever the level: those bytes hold passwords.
fn harmless() -> FilterFn<impl Fn(&tracing::Metadata<'_>) -> bool> {
    FilterFn::new(|meta| {
        let ours = meta.target().starts_with("causeway");
        ours || *meta.level() <= tracing::Level::INFO
    })
}

/// Appends to a file; a full one becomes the previous one. What cannot be written is lost: a full disk must not stop
/// the agent.
struct LogFile {
    path: PathBuf,
    file: Option<File>,
    bytes: u64,
    max_bytes: u64,
}

impl LogFile {
    fn open(path: PathBuf) -> io::Result<Self> {
        let (file, bytes) = append_to(&path)?;
        Ok(Self { path, file: Some(file), bytes, max_bytes: LOG_FILE_MAX_BYTES })
    }

    fn turn_over(&mut self) -> io::Result<()> {
        // Windows renames no file that is open.
        self.file = None;
        self.bytes = 0;
        let renamed = platform::replace(&self.path, &self.path.with_file_name(PREVIOUS_FILE_NAME));
        let (file, bytes) = append_to(&self.path)?;
        // Held by somebody else: go on in the same file, and try again after as much again.
        self.bytes = if renamed.is_ok() { bytes } else { 0 };
        self.file = Some(file);
        Ok(())
    }
}

impl Write for LogFile {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.bytes >= self.max_bytes || self.file.is_none() {
            self.turn_over()?;
        }
        if let Some(file) = &mut self.file {
            file.write_all(line)?;
            self.bytes += line.len() as u64;
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.as_mut().map_or(Ok(()), File::flush)
    }
}

fn append_to(path: &Path) -> io::Result<(File, u64)> {
    let mut options = OpenOptions::new();
    options.create(true).append(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let file = platform::locked::retry(|| options.open(path))?;
    let bytes = file.metadata()?.len();
    Ok((file, bytes))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_full_log_becomes_the_previous_one() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = LogFile::open(dir.path().join(FILE_NAME)).unwrap();
        log.max_bytes = 10;
        for line in ["0123456789\n", "a\n", "b\n"] {
            assert_eq!(log.write(line.as_bytes()).unwrap(), line.len());
        }
        assert_eq!(fs::read_to_string(dir.path().join(PREVIOUS_FILE_NAME)).unwrap(), "0123456789\n");
        assert_eq!(fs::read_to_string(dir.path().join(FILE_NAME)).unwrap(), "a\nb\n");
    }

    #[test]
    fn levels_are_words_and_pairs() {
        for level in ["error", "warn", "info", "debug", "info,causeway_agent::dial=debug"] {
            assert!(filter(level).is_ok(), "{level}");
        }
        let error = filter("loud=very=much").unwrap_err();
        assert!(format!("{error:#}").contains("write error, warn, info or debug"), "{error:#}");
    }
}
