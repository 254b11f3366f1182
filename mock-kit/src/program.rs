//! A stand-alone mock seen from outside, for tests of its program: flags, ready line, exit.

use std::ffi::OsStr;
use std::process::{Output, Stdio};
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

/// Time a program has to print its ready line: a loaded machine is slow, a hanging program is slower.
const READY_WITHIN: Duration = Duration::from_secs(20);

/// Time a program has to end after SIGTERM. The contract says a second; the rest is for a loaded machine.
const ENDS_WITHIN: Duration = Duration::from_secs(5);

/// A running program; killed when dropped.
pub struct Program {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    /// What its ready line says.
    pub ready: Value,
}

impl Program {
    /// Starts a program and reads its ready line.
    ///
    /// # Panics
    /// When it does not start, or says nothing, or something that is no ready line.
    pub async fn start<A: AsRef<OsStr>>(path: &str, args: impl IntoIterator<Item = A>) -> Self {
        let mut child = Command::new(path)
            .args(args)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap_or_else(|error| panic!("{path} starts: {error}"));
        let stdout = child.stdout.take().expect("stdout is piped");
        let mut lines = BufReader::new(stdout).lines();
        let line = tokio::time::timeout(READY_WITHIN, lines.next_line()).await.expect("ready in time");
        let line = line.expect("stdout can be read").expect("a line before the end");
        let ready: Value = serde_json::from_str(&line).expect("the ready line is JSON");
        assert_eq!(ready["ready"], true, "{ready}");
        Self { child, lines, ready }
    }

    /// The URL of a front end.
    ///
    /// # Panics
    /// When it has none of that name.
    pub fn url(&self, front: &str) -> &str {
        self.ready["urls"][front].as_str().unwrap_or_else(|| panic!("{front} in {}", self.ready))
    }

    /// Sends SIGTERM and sees that it ends in order, having printed nothing besides the ready line.
    ///
    /// # Panics
    /// When it does not.
    pub async fn ends_in_order(mut self) {
        let pid = self.child.id().expect("it runs").to_string();
        Command::new("kill").args(["-TERM", &pid]).status().await.expect("kill runs");
        let ended = tokio::time::timeout(ENDS_WITHIN, self.child.wait()).await.expect("it ends in time");
        let status = ended.expect("it can be waited for");
        assert!(status.success(), "{status}");
        let more = self.lines.next_line().await.expect("stdout can be read");
        assert_eq!(more, None, "exactly one line on stdout");
    }
}

/// Runs a program that must refuse its arguments; gives what it says on stderr.
///
/// # Panics
/// When it accepts them, or says something on stdout.
pub async fn complaint<A: AsRef<OsStr>>(path: &str, args: impl IntoIterator<Item = A>) -> String {
    let Output { status, stdout, stderr } =
        Command::new(path).args(args).output().await.expect("the program runs");
    assert!(!status.success(), "it accepts this");
    assert!(stdout.is_empty(), "nothing on stdout");
    String::from_utf8_lossy(&stderr).into_owned()
}
