//! What the doctor's checks have in common: a stable name, what they look at, how they end. A check that does not end
//! well cannot be written without a remedy.
//!
//! Each area declares its checks with [`declare_checks!`] beside the code that runs them; `cli::check::registry` lists
//! the areas, and `docs/checks.md` is made from that list.

use serde::Serialize;

/// A check by its name. Declared with [`declare_checks!`], so that every check has a row in `docs/checks.md`.
#[derive(Debug, PartialEq, Eq)]
pub struct Check {
    /// Stable name, `area.what`; never changed, because monitoring matches on it.
    pub name: &'static str,
    /// What it looks at, for people.
    pub looks_at: &'static str,
    /// What to do when it does not end well, in general. The result says it more exactly where it can.
    pub remedy: &'static str,
}

/// Declares checks and lists them in `CHECKS`: `NAME = "area.what": "what it looks at", "what to do";`.
macro_rules! declare_checks {
    ($($id:ident = $name:literal: $looks_at:literal, $remedy:literal;)+) => {
        $(
            #[doc = $looks_at]
            pub(crate) static $id: $crate::checks::Check =
                $crate::checks::Check { name: $name, looks_at: $looks_at, remedy: $remedy };
        )+
        /// Every check of this area.
        pub(crate) static CHECKS: &[&$crate::checks::Check] = &[$(&$id),+];
    };
}

pub(crate) use declare_checks;

/// How a check went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Works.
    Ok,
    /// Not tried, because what it stands on failed.
    Skipped,
    /// Works, with a reservation.
    Warn,
    /// Does not work.
    Fail,
}

/// How one check of one thing ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckResult {
    check: &'static Check,
    subject: String,
    detail: String,
    ending: Ending,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Ending {
    Ok,
    Skipped,
    Warn { remedy: String },
    Fail { remedy: String },
}

impl CheckResult {
    /// It works.
    pub fn ok(check: &'static Check, detail: impl Into<String>) -> Self {
        Self::new(check, detail, Ending::Ok)
    }

    /// It was not tried; `because` says what failed before.
    pub fn skipped(check: &'static Check, because: impl Into<String>) -> Self {
        Self::new(check, because, Ending::Skipped)
    }

    /// It works, with a reservation.
    pub fn warn(check: &'static Check, detail: impl Into<String>, remedy: impl Into<String>) -> Self {
        let remedy = remedy_or(check, remedy.into());
        Self::new(check, detail, Ending::Warn { remedy })
    }

    /// It does not work.
    pub fn fail(check: &'static Check, detail: impl Into<String>, remedy: impl Into<String>) -> Self {
        let remedy = remedy_or(check, remedy.into());
        Self::new(check, detail, Ending::Fail { remedy })
    }

    fn new(check: &'static Check, detail: impl Into<String>, ending: Ending) -> Self {
        Self { check, subject: String::new(), detail: detail.into(), ending }
    }

    /// Names the thing that was looked at, where there are several: a server, a module.
    #[must_use]
    pub fn of(self, subject: impl Into<String>) -> Self {
        Self { subject: subject.into(), ..self }
    }

    /// Which check it is.
    pub fn check(&self) -> &'static Check {
        self.check
    }

    /// The check's stable name.
    pub fn name(&self) -> &'static str {
        self.check.name
    }

    /// What was looked at; empty where there is only one such thing.
    pub fn subject(&self) -> &str {
        &self.subject
    }

    /// What was seen.
    pub fn detail(&self) -> &str {
        &self.detail
    }

    /// How it ended.
    pub fn verdict(&self) -> Verdict {
        match self.ending {
            Ending::Ok => Verdict::Ok,
            Ending::Skipped => Verdict::Skipped,
            Ending::Warn { .. } => Verdict::Warn,
            Ending::Fail { .. } => Verdict::Fail,
        }
    }

    /// What to do; empty when all is well.
    pub fn remedy(&self) -> &str {
        match &self.ending {
            Ending::Ok | Ending::Skipped => "",
            Ending::Warn { remedy } | Ending::Fail { remedy } => remedy,
        }
    }

    /// As `check --json` prints it.
    pub fn to_json(&self) -> serde_json::Value {
        serde_json::json!({
            "name": self.name(),
            "subject": self.subject,
            "verdict": self.verdict(),
            "detail": self.detail,
            "remedy": self.remedy(),
        })
    }
}

fn remedy_or(check: &'static Check, remedy: String) -> String {
    if remedy.trim().is_empty() { check.remedy.to_owned() } else { remedy }
}

#[cfg(test)]
mod tests {
    use super::*;

    declare_checks! {
        SAMPLE = "sample.one": "nothing", "do something";
    }

    #[test]
    fn a_bad_end_always_has_a_remedy() {
        assert_eq!(CheckResult::fail(&SAMPLE, "broken", " ").remedy(), "do something");
        assert_eq!(CheckResult::warn(&SAMPLE, "odd", "look").remedy(), "look");
        assert_eq!(CheckResult::ok(&SAMPLE, "fine").of("x").to_json()["verdict"], "ok");
        assert_eq!(CHECKS, [&SAMPLE]);
    }
}
