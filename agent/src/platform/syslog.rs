//! What is written to the system's own log: warnings and errors, so that an administrator finds them where every other
//! service leaves its own. On Windows that is the event log; systemd's journal takes standard error as it is.

use std::fmt::{self, Write};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

use crate::platform::limits::{SYSTEM_LOG_ENTRIES_MAX, SYSTEM_LOG_ENTRY_MAX_BYTES, SYSTEM_LOG_PER};

/// How bad an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// Somebody must act.
    Error,
    /// Degraded, and being retried.
    Warning,
    /// Started, stopped.
    Notice,
}

/// The system's log.
pub trait SystemLog: Send + Sync + 'static {
    /// Writes one entry. Failing is not an option: there is nowhere to tell.
    fn write(&self, severity: Severity, text: &str);
}

/// Passes warnings and errors of ours on to the system's log, at most [`SYSTEM_LOG_ENTRIES_MAX`] in
/// [`SYSTEM_LOG_PER`]: a peer that fails every second must not push everybody else's entries out.
pub struct SystemLogLayer<L> {
    log: L,
    window: Mutex<Window>,
}

struct Window {
    since: Instant,
    written: u32,
    left_out: u32,
}

impl<L: SystemLog> SystemLogLayer<L> {
    /// Writes to `log`.
    pub fn new(log: L) -> Self {
        Self { log, window: Mutex::new(Window { since: Instant::now(), written: 0, left_out: 0 }) }
    }

    fn write(&self, now: Instant, severity: Severity, text: &str) {
        let left_out = {
            let mut window = self.window.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            let left_out = window.advance(now, SYSTEM_LOG_PER);
            if window.written >= SYSTEM_LOG_ENTRIES_MAX {
                window.left_out += 1;
                return;
            }
            window.written += 1;
            left_out
        };
        if left_out > 0 {
            let text =
                format!("{left_out} further warnings and errors were left out here; agent.log has them");
            self.log.write(Severity::Warning, &text);
        }
        self.log.write(severity, text);
    }
}

impl Window {
    /// Begins a new window when the old one is over; returns how many entries that one left out.
    fn advance(&mut self, now: Instant, length: Duration) -> u32 {
        if now.saturating_duration_since(self.since) < length {
            return 0;
        }
        self.since = now;
        self.written = 0;
        std::mem::take(&mut self.left_out)
    }
}

impl<S: Subscriber, L: SystemLog> Layer<S> for SystemLogLayer<L> {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let meta = event.metadata();
        let severity = match *meta.level() {
            Level::ERROR => Severity::Error,
            Level::WARN => Severity::Warning,
            _ => return,
        };
        if !meta.target().starts_with("causeway") {
            return;
        }
        let mut text = Text::default();
        event.record(&mut text);
        self.write(Instant::now(), severity, &text.finish());
    }
}

/// `message: field=value, field=value`.
#[derive(Default)]
struct Text {
    message: String,
    fields: String,
}

impl Text {
    fn finish(self) -> String {
        let mut text = self.message;
        if !self.fields.is_empty() {
            text.push_str(": ");
            text.push_str(&self.fields);
        }
        let mut end = text.len().min(SYSTEM_LOG_ENTRY_MAX_BYTES);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
        text
    }
}

impl Visit for Text {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let into = if field.name() == "message" { &mut self.message } else { &mut self.fields };
        let comma = if into.is_empty() { "" } else { ", " };
        // Writing to a text does not fail.
        let _ = match field.name() {
            "message" => write!(into, "{value:?}"),
            name => write!(into, "{comma}{name}={value:?}"),
        };
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<(Severity, String)>>>);

    impl SystemLog for Kept {
        fn write(&self, severity: Severity, text: &str) {
            self.0.lock().unwrap().push((severity, text.to_owned()));
        }
    }

    #[test]
    fn warnings_and_errors_of_ours_arrive_with_their_fields() {
        let kept = Kept::default();
        let subscriber = tracing_subscriber::registry().with(SystemLogLayer::new(kept.clone()));
        tracing::subscriber::with_default(subscriber, || {
            tracing::error!(target: "causeway_agent::x", peer = "dc1", attempt = 3, "Bind failed");
            tracing::warn!(target: "causeway_agent::x", "Slow");
            tracing::info!(target: "causeway_agent::x", "Online");
            tracing::error!(target: "rustls", "not ours");
        });
        let entries = kept.0.lock().unwrap().clone();
        assert_eq!(
            entries,
            [
                (Severity::Error, "Bind failed: peer=dc1, attempt=3".to_owned()),
                (Severity::Warning, "Slow".to_owned())
            ]
        );
    }

    #[test]
    fn a_flood_is_cut_and_counted() {
        let kept = Kept::default();
        let layer = SystemLogLayer::new(kept.clone());
        let start = Instant::now();
        for _ in 0..SYSTEM_LOG_ENTRIES_MAX + 5 {
            layer.write(start, Severity::Error, "again");
        }
        assert_eq!(kept.0.lock().unwrap().len(), SYSTEM_LOG_ENTRIES_MAX as usize);
        layer.write(start + SYSTEM_LOG_PER, Severity::Error, "later");
        let entries = kept.0.lock().unwrap().clone();
        assert!(entries[SYSTEM_LOG_ENTRIES_MAX as usize].1.starts_with("5 further"), "{entries:?}");
        assert_eq!(entries.last().unwrap().1, "later");
    }

    #[test]
    fn an_entry_is_cut_between_characters() {
        let text = Text { message: "\u{e9}".repeat(SYSTEM_LOG_ENTRY_MAX_BYTES), fields: String::new() };
        let text = text.finish();
        assert!(text.len() <= SYSTEM_LOG_ENTRY_MAX_BYTES && text.ends_with('\u{e9}'));
    }
}
