//! A person at a terminal, played by tmux: keys go in, the screen is read.

use std::path::Path;
use std::process::Output;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use tempfile::TempDir;
use tokio::process::Command;

/// How long the program may take to show something, on a loaded machine.
const WITHIN: Duration = Duration::from_secs(30);

/// One terminal with one program in it.
pub(crate) struct Terminal {
    folder: TempDir,
}

impl Terminal {
    /// Starts `program words`; the screen shows how it ended. Ctrl-C reaches the program and spares the shell around it.
    pub(crate) async fn start(program: &Path, words: &[&str]) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("causeway-tmux-").tempdir()?;
        let quoted: Vec<String> = words.iter().map(|word| format!("'{word}'")).collect();
        let line = format!(
            "trap : INT; '{}' {}; echo \"ended with $?\"; stty -a | grep -q -- ' echo ' && echo 'echo is on'; exec cat",
            program.display(),
            quoted.join(" ")
        );
        let terminal = Self { folder };
        terminal.tmux(&["new-session", "-d", "-x", "200", "-y", "200", "sh", "-c", &line]).await?;
        Ok(terminal)
    }

    async fn tmux(&self, words: &[&str]) -> Result<Output> {
        let socket = self.folder.path().join("socket");
        let output = Command::new("tmux")
            .args(["-f", "/dev/null", "-S"])
            .arg(&socket)
            .args(words)
            .env("TERM", "xterm")
            .output()
            .await
            .context("run tmux")?;
        ensure!(output.status.success(), "tmux {words:?}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(output)
    }

    /// Everything on the screen.
    pub(crate) async fn screen(&self) -> Result<String> {
        let output = self.tmux(&["capture-pane", "-p", "-J"]).await?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        Ok(text.trim_end().to_owned())
    }

    /// Waits until the last line is this question, not answered yet: prompts end with a colon.
    pub(crate) async fn prompt(&self, question: &str) -> Result<()> {
        let open = |screen: &str| {
            let last = screen.lines().next_back().unwrap_or_default().trim_end();
            last.contains(question) && last.ends_with(':')
        };
        self.until(question, open).await
    }

    /// Waits until the screen holds this.
    pub(crate) async fn shows(&self, text: &str) -> Result<()> {
        self.until(text, |screen| screen.contains(text)).await
    }

    async fn until(&self, what: &str, enough: impl Fn(&str) -> bool) -> Result<()> {
        let deadline = Instant::now() + WITHIN;
        loop {
            let screen = self.screen().await?;
            if enough(&screen) {
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!("{what:?} did not come; the screen shows:\n{screen}");
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits for a prompt, then types a line.
    pub(crate) async fn answer(&self, prompt: &str, line: &str) -> Result<()> {
        self.prompt(prompt).await?;
        if !line.is_empty() {
            self.tmux(&["send-keys", "-l", "--", line]).await?;
        }
        self.key("Enter").await
    }

    /// Presses one key, by tmux's name for it.
    pub(crate) async fn key(&self, name: &str) -> Result<()> {
        self.tmux(&["send-keys", name]).await.map(drop)
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // The server of this socket serves this terminal only.
        let socket = self.folder.path().join("socket");
        let _ = std::process::Command::new("tmux").arg("-S").arg(socket).arg("kill-server").output();
    }
}
