//! Questions and answers, line by line: works over ssh, on a dumb terminal, in a Windows console and from a pipe.

use std::io::{self, BufRead, IsTerminal};

use causeway_protocol::Secret;
use thiserror::Error;

use crate::cli::say;

/// The person has gone: end of input.
#[derive(Debug, Error)]
#[error("interrupted; nothing was changed")]
pub(super) struct Gone;

/// Somebody to ask.
pub(super) trait Console: Send {
    /// Shows lines.
    fn say(&mut self, text: &str);

    /// Shows a prompt and takes one line.
    fn line(&mut self, prompt: &str) -> anyhow::Result<String>;

    /// The same without showing what is typed.
    fn secret(&mut self, prompt: &str) -> anyhow::Result<Secret>;
}

/// The terminal of the process.
pub(super) struct Terminal;

impl Console for Terminal {
    fn say(&mut self, text: &str) {
        // Whoever has gone will not answer the next question either.
        let _ = say::line(text);
    }

    fn line(&mut self, prompt: &str) -> anyhow::Result<String> {
        say::text(prompt)?;
        let mut line = String::new();
        if io::stdin().lock().read_line(&mut line)? == 0 {
            say::line("")?;
            return Err(Gone.into());
        }
        Ok(line.trim().to_owned())
    }

    fn secret(&mut self, prompt: &str) -> anyhow::Result<Secret> {
        if !io::stdin().is_terminal() {
            return self.line(prompt).map(Secret::new);
        }
        say::text(prompt)?;
        // Its terminal writes the line end that was not echoed.
        let typed = zeroize::Zeroizing::new(console::Term::stdout().read_secure_line()?);
        Ok(Secret::new(typed.as_str()))
    }
}

/// Ctrl-C ends the process from here on as it always does, but leaves the terminal as it was found: a prompt that shows
/// nothing would otherwise leave a terminal that shows nothing, which not every shell mends.
#[cfg(unix)]
pub(super) fn restore_after_interrupt() {
    use rustix::termios::{OptionalActions, tcgetattr, tcsetattr};
    // What every program ended by Ctrl-C ends with: 128 and the signal's number.
    const INTERRUPTED: i32 = 130;
    let Ok(found) = tcgetattr(io::stdin()) else { return };
    tokio::spawn(async move {
        if tokio::signal::ctrl_c().await.is_ok() {
            let _ = tcsetattr(io::stdin(), OptionalActions::Now, &found);
            say::note("");
            std::process::exit(INTERRUPTED);
        }
    });
}

#[cfg(not(unix))]
pub(super) fn restore_after_interrupt() {}

/// Asks with a default in brackets; an empty line takes it.
pub(super) fn ask(console: &mut dyn Console, question: &str, default: &str) -> anyhow::Result<String> {
    let prompt =
        if default.is_empty() { format!("{question}: ") } else { format!("{question} [{default}]: ") };
    let typed = console.line(&prompt)?;
    Ok(if typed.is_empty() { default.to_owned() } else { typed })
}

/// Asks for yes or no until it is one.
pub(super) fn confirm(console: &mut dyn Console, question: &str, default: bool) -> anyhow::Result<bool> {
    let shown = if default { "Y/n" } else { "y/N" };
    loop {
        match console.line(&format!("{question} [{shown}]: "))?.to_ascii_lowercase().as_str() {
            "" => return Ok(default),
            "y" | "yes" => return Ok(true),
            "n" | "no" => return Ok(false),
            _ => console.say("  Please answer y or n."),
        }
    }
}

/// Offers a numbered list; gives the index.
pub(super) fn choose(
    console: &mut dyn Console,
    question: &str,
    options: &[String],
    default: usize,
) -> anyhow::Result<usize> {
    for (n, option) in options.iter().enumerate() {
        console.say(&format!("  {}. {option}", n + 1));
    }
    loop {
        let typed = ask(console, question, &(default + 1).to_string())?;
        match typed.parse::<usize>() {
            Ok(n) if (1..=options.len()).contains(&n) => return Ok(n - 1),
            _ => console.say(&format!("  Please answer with a number from 1 to {}.", options.len())),
        }
    }
}

/// Asks for a number within a range.
pub(super) fn number(
    console: &mut dyn Console,
    question: &str,
    default: u32,
    range: std::ops::RangeInclusive<u32>,
) -> anyhow::Result<u32> {
    loop {
        match ask(console, question, &default.to_string())?.parse() {
            Ok(n) if range.contains(&n) => return Ok(n),
            _ => console.say(&format!("  Please answer with {} to {}.", range.start(), range.end())),
        }
    }
}

#[cfg(test)]
pub(super) mod testing {
    use std::collections::VecDeque;

    use super::{Console, Secret};

    /// Answers in their order, each with a part of the question it is for.
    pub(crate) struct Script {
        answers: VecDeque<(&'static str, String)>,
        shown: Vec<String>,
    }

    impl Script {
        pub(crate) fn new(answers: impl IntoIterator<Item = (&'static str, String)>) -> Self {
            Self { answers: answers.into_iter().collect(), shown: Vec::new() }
        }

        /// What was shown, when everything was asked.
        pub(crate) fn end(self) -> Vec<String> {
            assert!(self.answers.is_empty(), "not asked: {:?}; shown: {:#?}", self.answers, self.shown);
            self.shown
        }
    }

    impl Console for Script {
        fn say(&mut self, text: &str) {
            self.shown.push(text.to_owned());
        }

        fn line(&mut self, prompt: &str) -> anyhow::Result<String> {
            let (part, answer) = self
                .answers
                .pop_front()
                .unwrap_or_else(|| panic!("nothing is answered to {prompt:?}; shown: {:#?}", self.shown));
            assert!(prompt.contains(part), "{prompt:?} is asked instead of {part:?}: {:#?}", self.shown);
            Ok(answer)
        }

        fn secret(&mut self, prompt: &str) -> anyhow::Result<Secret> {
            self.line(prompt).map(Secret::new)
        }
    }
}
