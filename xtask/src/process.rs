//! Running programs: shown, streamed, and counted when they are test runners.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, bail};

/// Tests that ran, over all runners.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    pub(crate) skipped: u64,
}

impl std::ops::AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

/// The command as one would type it.
pub(crate) fn shown(command: &Command) -> String {
    let program = Path::new(command.get_program());
    let mut text = program.file_name().unwrap_or(program.as_os_str()).to_string_lossy().into_owned();
    for argument in command.get_args() {
        text.push(' ');
        text.push_str(&argument.to_string_lossy());
    }
    text
}

/// Runs and prints everything as it comes; returns whether it succeeded and what its closing lines counted.
pub(crate) fn stream(command: &mut Command) -> anyhow::Result<(bool, Counts)> {
    let text = shown(command);
    println!("   $ {text}");
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("start `{text}`"))?;
    let stdout = child.stdout.take().context("stdout is piped")?;
    let stderr = child.stderr.take().context("stderr is piped")?;
    let mut counts = Counts::default();
    std::thread::scope(|scope| {
        let errors = scope.spawn(|| pass_through(stderr, std::io::stderr()));
        let output = scope.spawn(|| pass_through(stdout, std::io::stdout()));
        for side in [errors, output] {
            counts += side.join().unwrap_or_default();
        }
    });
    let status = child.wait().with_context(|| format!("wait for `{text}`"))?;
    Ok((status.success(), counts))
}

/// Runs in silence; the error shows the end of what it printed.
pub(crate) fn quiet(command: &mut Command) -> anyhow::Result<String> {
    let text = shown(command);
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("start `{text}`"))?;
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(stdout);
    }
    let all = format!("{stdout}{}", String::from_utf8_lossy(&output.stderr));
    bail!("`{text}` ended with {}:\n{}", output.status, tail(&all, 20))
}

/// Whether it can be started and succeeds.
pub(crate) fn succeeds(command: &mut Command) -> bool {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// Puts the command into a process group of its own, so that Ctrl-C here does not reach it.
pub(crate) fn own_group(command: &mut Command) -> &mut Command {
    #[cfg(unix)]
    std::os::unix::process::CommandExt::process_group(command, 0);
    command
}

/// The last lines of a text.
pub(crate) fn tail(text: &str, lines: usize) -> String {
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

fn pass_through(from: impl Read, mut to: impl Write) -> Counts {
    let mut counts = Counts::default();
    for line in BufReader::new(from).split(b'\n').map_while(Result::ok) {
        // A closed terminal must not stop the run.
        let _ = to.write_all(&line).and_then(|()| to.write_all(b"\n"));
        counts += closing_line(&String::from_utf8_lossy(&line)).unwrap_or_default();
    }
    counts
}

/// The counts in a runner's last line, if this is one.
///
/// nextest: `     Summary [   1.0s] 5 tests run: 3 passed (1 slow), 1 failed, 1 timed out, 2 skipped`;
/// libtest: `test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.1s`.
fn closing_line(line: &str) -> Option<Counts> {
    let numbers = if let Some(rest) = line.trim_start().strip_prefix("Summary [") {
        rest.split_once("run:")?.1
    } else if let Some(rest) = line.strip_prefix("test result: ") {
        // At the margin only: nextest shows the same line, indented, in the output of a failing test.
        rest.split_once(". ")?.1
    } else {
        return None;
    };
    let mut counts = Counts::default();
    for part in without_parentheses(numbers).split([',', ';']) {
        let Some((number, what)) = part.trim().split_once(' ') else { continue };
        let Ok(number) = number.parse::<u64>() else { continue };
        match what.trim() {
            "passed" => counts.passed += number,
            "failed" | "timed out" | "exec failed" => counts.failed += number,
            // Tests left out by a filter are somebody's choice and not a gap.
            "skipped" | "ignored" => counts.skipped += number,
            _ => {}
        }
    }
    Some(counts)
}

fn without_parentheses(text: &str) -> String {
    let mut depth = 0_u32;
    text.chars()
        .filter(|c| {
            match c {
                '(' => depth += 1,
                ')' => depth = depth.saturating_sub(1),
                _ => return depth == 0,
            }
            false
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closing_lines_of_both_runners_are_counted() {
        let cases = [
            ("     Summary [   0.008s] 3 tests run: 3 passed, 0 skipped", Some((3, 0, 0))),
            (
                "     Summary [  61.2s] 9/12 tests run: 5 passed (2 slow, 1 leaky), 2 failed, 1 timed out, 1 exec failed, 4 skipped",
                Some((5, 4, 4)),
            ),
            (
                "test result: FAILED. 2 passed; 1 failed; 3 ignored; 0 measured; 7 filtered out; finished in 0.00s",
                Some((2, 1, 3)),
            ),
            ("    test result: FAILED. 0 passed; 1 failed; 0 ignored; 0 measured; finished in 0.00s", None),
            ("test a::b ... ok", None),
        ];
        for (line, wanted) in cases {
            let counted = closing_line(line).map(|c| (c.passed, c.failed, c.skipped));
            assert_eq!(counted, wanted, "{line}");
        }
    }
}
