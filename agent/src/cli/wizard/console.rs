//! Questions and answers, line by line: works over ssh, on a dumb terminal, in a Windows console and from a pipe.

use std::io::{self, BufRead, IsTerminal, Write};

use causeway_protocol::Secret;
use thiserror::Error;

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
        println!("{text}");
    }

    fn line(&mut self, prompt: &str) -> anyhow::Result<String> {
        print!("{prompt}");
        io::stdout().flush()?;
        let mut line = String::new();
        if io::stdin().lock().read_line(&mut line)? == 0 {
            println!();
            return Err(Gone.into());
        }
        Ok(line.trim().to_owned())
    }

    fn secret(&mut self, prompt: &str) -> anyhow::Result<Secret> {
        if !io::stdin().is_terminal() {
            return self.line(prompt).map(Secret::new);
        }
        print!("{prompt}");
        io::stdout().flush()?;
        // Its terminal writes the line end that was not echoed.
        let typed = zeroize::Zeroizing::new(console::Term::stdout().read_secure_line()?);
        Ok(Secret::new(typed.as_str()))
    }
}

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
