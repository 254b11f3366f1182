//! What happened on the way to a stream, one line a step, for `check network`. Never a secret, never more than
//! [`STEPS_MAX`] lines.

use std::sync::{Arc, Mutex, PoisonError};

use crate::limits::{STEP_MAX_CHARS, STEPS_MAX};

/// Takes notes when somebody wants them; otherwise costs nothing. Clones write into one list.
#[derive(Clone, Default)]
pub struct Steps(Option<Arc<Mutex<Vec<String>>>>);

impl Steps {
    /// Nobody reads along.
    pub fn unrecorded() -> Self {
        Self::default()
    }

    /// Keeps what is noted.
    pub fn recorded() -> Self {
        Self(Some(Arc::default()))
    }

    /// Notes a step; `text` is only made when somebody wants it. It must not hold a secret.
    pub fn note(&self, text: impl FnOnce() -> String) {
        let Some(list) = &self.0 else { return };
        let mut list = list.lock().unwrap_or_else(PoisonError::into_inner);
        if list.len() < STEPS_MAX {
            list.push(shortened(&text()));
        }
    }

    /// Whether anybody wants notes.
    pub fn wanted(&self) -> bool {
        self.0.is_some()
    }

    /// What has been noted so far.
    pub fn taken(&self) -> Vec<String> {
        let list = self.0.as_ref().map(|list| list.lock().unwrap_or_else(PoisonError::into_inner).clone());
        list.unwrap_or_default()
    }
}

/// One line without control characters: texts of peers must not paint the administrator's terminal.
pub fn shortened(text: &str) -> String {
    let clean: String =
        text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(STEP_MAX_CHARS).collect();
    if text.chars().nth(STEP_MAX_CHARS).is_some() { format!("{clean}...") } else { clean }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_are_short_few_and_clean() {
        let steps = Steps::recorded();
        for n in 0..2 * STEPS_MAX {
            steps.note(|| format!("step {n}\x1b[31m\r\n{}", "x".repeat(10_000)));
        }
        let taken = steps.taken();
        assert_eq!(taken.len(), STEPS_MAX);
        assert!(taken.iter().all(|line| line.chars().count() <= STEP_MAX_CHARS + 3));
        assert!(taken.iter().all(|line| !line.contains(['\x1b', '\r', '\n'])));

        Steps::unrecorded().note(|| panic!("nobody reads along"));
    }
}
