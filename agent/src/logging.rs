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

use crate::config::Log;
use crate::platform;
use crate::platform::syslog::{SystemLog, SystemLogLayer};

/// The log of a service, in the data directory.
pub const FILE_NAME: &str = "agent.log";

/// Logs to standard error, and to a file where the settings name one.
///
/// # Errors
/// When the level is none, the file cannot be opened, or somebody has set up logging before.
pub fn to_stderr(log: &Log, data_dir: &Path) -> anyhow::Result<()> {
    let layer = lines().with_writer(io::stderr).with_filter(harmless());
    let file = log.file.as_ref().map(|_| open(log, data_dir)).transpose()?;
    let file = file.map(|file| lines().with_writer(Mutex::new(file)).with_filter(harmless()));
    let registry = tracing_subscriber::registry().with(filter(&log.level)?).with(layer).with(file);
    registry.try_init().context("set up logging")
}

/// Logs to a file in the data directory, and warnings and errors to the system's log.
///
/// # Errors
/// When the file cannot be opened, and as in [`to_stderr`].
pub fn to_file(log: &Log, data_dir: &Path, system: impl SystemLog) -> anyhow::Result<()> {
    let file = open(log, data_dir)?;
    let layer = lines().with_writer(Mutex::new(file)).with_filter(harmless());
    let registry = tracing_subscriber::registry()
        .with(filter(&log.level)?)
        .with(layer)
        .with(SystemLogLayer::new(system));
    registry.try_init().context("set up logging")
}

/// Lines without colours. What cannot be written is lost without a word: the library's own word for it would go to
/// standard error, and end the process where that is closed too.
fn lines<S>() -> fmt::Layer<S> {
    fmt::layer().with_ansi(false).log_internal_errors(false)
}

/// The current log file: the one the settings name, or where a service without standard error writes.
pub fn path(log: &Log, data_dir: &Path) -> PathBuf {
    data_dir.join(log.file.as_deref().unwrap_or(Path::new(FILE_NAME)))
}

/// The file `n` generations before the current one: `agent.1.log`, `agent.2.log` ...
pub fn kept(path: &Path, n: u32) -> PathBuf {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let extension = path.extension().map(|text| format!(".{}", text.to_string_lossy())).unwrap_or_default();
    path.with_file_name(format!("{stem}.{n}{extension}"))
}

/// Whether a level can be read.
pub(crate) fn is_level(level: &str) -> bool {
    filter(level).is_ok()
}

fn open(log: &Log, data_dir: &Path) -> anyhow::Result<LogFile> {
    let path = path(log, data_dir);
    LogFile::open(path.clone(), log.file_max_bytes, log.files_max)
        .with_context(|| format!("open {}", path.display()))
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

/// Appends to a file; a full one is kept aside, the oldest goes. What cannot be written is lost: a full disk must not
/// stop the agent.
struct LogFile {
    path: PathBuf,
    file: Option<File>,
    bytes: u64,
    max_bytes: u64,
    files: u32,
}

impl LogFile {
    fn open(path: PathBuf, max_bytes: u64, files: u32) -> io::Result<Self> {
        let (file, bytes) = append_to(&path)?;
        Ok(Self { path, file: Some(file), bytes, max_bytes, files })
    }

    fn turn_over(&mut self) -> io::Result<()> {
        // Windows renames no file that is open.
        self.file = None;
        self.bytes = 0;
        let renamed = self.move_up();
        let (file, bytes) = append_to(&self.path)?;
        // Held by somebody else: go on in the same file, and try again after as much again.
        self.bytes = if renamed.is_ok() { bytes } else { 0 };
        self.file = Some(file);
        Ok(())
    }

    fn move_up(&self) -> io::Result<()> {
        if self.files <= 1 {
            return std::fs::remove_file(&self.path);
        }
        for n in (1..self.files).rev() {
            let from = if n == 1 { self.path.clone() } else { kept(&self.path, n - 1) };
            if from.exists() {
                platform::replace(&from, &kept(&self.path, n))?;
            }
        }
        Ok(())
    }
}

impl Write for LogFile {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let full = self.bytes > 0 && self.bytes.saturating_add(line.len() as u64) > self.max_bytes;
        if full || self.file.is_none() {
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
    // What root began by hand, the service goes on with.
    let _ = platform::hand_over(path);
    let bytes = file.metadata()?.len();
    Ok((file, bytes))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn the_log_stays_within_its_size_and_keeps_the_newest_lines() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE_NAME);
        let mut log = LogFile::open(path.clone(), 100, 3).unwrap();
        for n in 0..101 {
            log.write_all(format!("line {n:03} of the log\n").as_bytes()).unwrap();
        }
        let text = |path: &Path| fs::read_to_string(path).unwrap();
        assert_eq!(text(&path), "line 100 of the log\n");
        assert!(text(&dir.path().join("agent.1.log")).ends_with("line 099 of the log\n"));
        assert!(text(&kept(&path, 2)).ends_with("line 094 of the log\n"));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 3);
        drop(log);
        let mut log = LogFile::open(path.clone(), 100, 3).unwrap();
        log.write_all(b"after a restart\n").unwrap();
        assert_eq!(text(&path), "line 100 of the log\nafter a restart\n");
    }

    #[cfg(unix)]
    #[test]
    fn a_log_that_cannot_be_kept_aside_goes_on() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE_NAME);
        // A folder stands where the kept file should go.
        fs::create_dir_all(kept(&path, 1).join("x")).unwrap();
        let mut log = LogFile::open(path.clone(), 10, 2).unwrap();
        log.write_all(b"0123456789\n").unwrap();
        log.write_all(b"more\n").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "0123456789\nmore\n");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o077, 0, "others read no log");
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
