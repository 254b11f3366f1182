//! A Windows of the test's own: a Wine prefix with the agent in it, and a server that keeps its services running.

use std::ffi::OsStr;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::skips::skip;

/// The first program in a new prefix makes it, which takes 5 s alone, and several times that beside a compiler.
const MADE_WITHIN: Duration = Duration::from_secs(120);

/// A command of the agent's, Wine's own start included.
pub const COMMAND_WITHIN: Duration = Duration::from_secs(60);

/// What `cargo xtask test` builds, below `target/wine`.
const PROGRAM: &str = "causeway-agent.exe";
const SHIM: &str = "bcryptprimitives.dll";

/// Where the program lies in the prefix.
const PROGRAM_THERE: &str = r"C:\causeway\causeway-agent.exe";

/// What Wine would start on its own account: a browser engine, .NET, entries in the desktop's menus.
const OVERRIDES: &str = "winemenubuilder.exe=d;mscoree=d;mshtml=d";

/// A Wine prefix. Dropping it ends everything that runs in it.
pub struct Prefix {
    folder: TempDir,
    wine: PathBuf,
    server: PathBuf,
    keeper: Child,
    calls: usize,
}

/// How a command ended.
#[derive(Debug)]
pub struct Ran {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Ran {
    /// # Panics
    /// When it failed; with what it said.
    #[track_caller]
    pub fn expect_success(self) -> Self {
        assert_eq!(self.code, Some(0), "-- stdout\n{}\n-- stderr\n{}", self.stdout, self.stderr);
        self
    }
}

/// A program that runs until it is told to end.
pub struct Running {
    child: Child,
    stdout: PathBuf,
    stderr: PathBuf,
}

impl Prefix {
    /// Makes a prefix with the agent in it. `None` after a counted skip where Wine or the program is missing.
    ///
    /// # Errors
    /// When Wine does not make it.
    pub async fn start() -> Result<Option<Self>> {
        let (wine, server) = (Path::new("/usr/lib/wine/wine64"), Path::new("/usr/lib/wine/wineserver64"));
        if !(wine.is_file() && server.is_file()) {
            skip("wine", "it is not installed; `apt-get install wine64 wine`");
            return Ok(None);
        }
        let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/wine");
        if !built.join(PROGRAM).is_file() {
            skip("the agent for Windows", "it is not built; `cargo xtask test --only windows`");
            return Ok(None);
        }
        let folder = tempfile::Builder::new().prefix("causeway-wine-").tempdir()?;
        let mut keeper = Command::new(server);
        // Services live as long as the server; without `-p` it ends with the program that started them.
        environment(&mut keeper, folder.path()).args(["-f", "-p"]).kill_on_drop(true);
        keeper.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        for name in ["prefix", "home"] {
            std::fs::create_dir(folder.path().join(name))?;
        }
        let keeper = keeper.spawn().context("start wineserver")?;
        let (wine, server) = (wine.to_owned(), server.to_owned());
        let mut prefix = Self { folder, wine, server, keeper, calls: 0 };
        // Any program makes the prefix. Not `wineboot`: then two do, and each starts a service control manager of its own.
        prefix.wine(&["cmd", "/c", "exit"], "", MADE_WITHIN).await?.expect_success();
        let there = prefix.drive_c().join("causeway");
        std::fs::create_dir(&there)?;
        for name in [PROGRAM, SHIM] {
            std::fs::copy(built.join(name), there.join(name)).with_context(|| format!("copy {name}"))?;
        }
        Ok(Some(prefix))
    }

    /// What Windows calls `C:`.
    pub fn drive_c(&self) -> PathBuf {
        self.folder.path().join("prefix/drive_c")
    }

    /// The home folder Wine sees; nothing of what we do belongs there.
    pub fn home(&self) -> PathBuf {
        self.folder.path().join("home")
    }

    /// A path of ours as Windows sees it.
    pub fn windows_path(path: &Path) -> String {
        format!("Z:{}", path.display()).replace('/', r"\")
    }

    /// Runs the agent with these arguments, and this on its standard input.
    ///
    /// # Errors
    /// When it does not end in time.
    pub async fn agent(&mut self, arguments: &[&str], input: &str) -> Result<Ran> {
        let words: Vec<&str> = [PROGRAM_THERE].into_iter().chain(arguments.iter().copied()).collect();
        self.wine(&words, input, COMMAND_WITHIN).await
    }

    /// Starts the agent with these arguments and leaves it running.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start_agent(&mut self, arguments: &[&str]) -> Result<Running> {
        let words: Vec<&str> = [PROGRAM_THERE].into_iter().chain(arguments.iter().copied()).collect();
        self.spawn(&words, "")
    }

    /// Runs a program of Windows.
    ///
    /// # Errors
    /// When it does not end in time.
    pub async fn wine(&mut self, words: &[&str], input: &str, within: Duration) -> Result<Ran> {
        let mut running = self.spawn(words, input)?;
        let Ok(status) = timeout(within, running.child.wait()).await else {
            let _ = running.child.kill().await;
            bail!("wine {words:?} runs longer than {within:?}\n-- stderr\n{}", running.stderr());
        };
        Ok(Ran { code: status?.code(), stdout: running.stdout(), stderr: running.stderr() })
    }

    /// Output goes to files: a service inherits it, and a pipe would not close before the service ends.
    fn spawn(&mut self, words: &[&str], input: &str) -> Result<Running> {
        self.calls += 1;
        let file = |kind: &str| self.folder.path().join(format!("{}-{kind}", self.calls));
        let (stdin, stdout, stderr) = (file("in"), file("out"), file("err"));
        std::fs::write(&stdin, input)?;
        let mut command = Command::new(&self.wine);
        environment(&mut command, self.folder.path()).args(words.iter().map(OsStr::new)).kill_on_drop(true);
        command.stdin(File::open(&stdin)?).stdout(File::create(&stdout)?).stderr(File::create(&stderr)?);
        let child = command.spawn().with_context(|| format!("start wine {words:?}"))?;
        // It may hold a secret; the program has it open.
        std::fs::remove_file(&stdin)?;
        Ok(Running { child, stdout, stderr })
    }
}

impl Drop for Prefix {
    fn drop(&mut self) {
        let mut command = std::process::Command::new(&self.server);
        command.env("WINEPREFIX", self.folder.path().join("prefix")).arg("-k");
        // The folder is about to go; what still runs in it would write into nothing.
        let _ = command.stdout(Stdio::null()).stderr(Stdio::null()).status();
        let _ = self.keeper.start_kill();
    }
}

impl Running {
    /// What it has written to standard output so far.
    pub fn stdout(&self) -> String {
        std::fs::read_to_string(&self.stdout).unwrap_or_default()
    }

    /// What it has written to standard error so far.
    pub fn stderr(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.stderr).unwrap_or_default()).into_owned()
    }

    /// Whether it runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Presses Ctrl-C and waits for the end.
    ///
    /// # Errors
    /// When it does not end in time.
    pub async fn interrupt(mut self) -> Result<Ran> {
        let pid = self.child.id().context("it has ended")?.to_string();
        let status = Command::new("kill").args(["-INT", &pid]).status().await?;
        ensure!(status.success(), "kill -INT {pid} failed");
        let Ok(status) = timeout(COMMAND_WITHIN, self.child.wait()).await else {
            bail!("it does not end after Ctrl-C\n-- stderr\n{}", self.stderr());
        };
        Ok(Ran { code: status?.code(), stdout: self.stdout(), stderr: self.stderr() })
    }
}

fn environment<'a>(command: &'a mut Command, folder: &Path) -> &'a mut Command {
    command.env("WINEPREFIX", folder.join("prefix")).env("HOME", folder.join("home"));
    command.env("WINEDEBUG", "-all").env("WINEDLLOVERRIDES", OVERRIDES).env_remove("DISPLAY")
}
