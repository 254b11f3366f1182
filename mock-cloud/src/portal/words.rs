//! Words for people: times, sizes, states and events.

use causeway_protocol::action::Status;
use causeway_protocol::auth::AuthOutcome;
use causeway_protocol::certificate::RevocationReason;
use causeway_protocol::health::ModuleState;
use causeway_protocol::mobile::access;
use serde_json::Value;
use time::OffsetDateTime;
use time::macros::format_description;

use crate::events::kinds;
use crate::store::Event;

/// A colour with a meaning; always shown together with a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tone {
    Good,
    Busy,
    Warn,
    Bad,
    Calm,
}

impl std::fmt::Display for Tone {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Good => "good",
            Self::Busy => "busy",
            Self::Warn => "warn",
            Self::Bad => "bad",
            Self::Calm => "calm",
        })
    }
}

/// A point in time: readable now, exact on demand.
#[derive(Clone, Debug)]
pub(super) struct When {
    /// Unix milliseconds.
    pub(super) ms: i64,
    /// For machines.
    pub(super) iso: String,
    /// `22 Nov 2026, 14:03:09 UTC`.
    pub(super) exact: String,
    /// `3 min ago`.
    pub(super) relative: String,
}

impl When {
    /// `None` for 0, which means never.
    pub(super) fn at(ms: i64, now_ms: i64) -> Option<Self> {
        if ms == 0 {
            return None;
        }
        let moment = OffsetDateTime::from_unix_timestamp_nanos(i128::from(ms) * 1_000_000).ok()?;
        let exact =
            format_description!("[day padding:none] [month repr:short] [year], [hour]:[minute]:[second] UTC");
        Some(Self {
            ms,
            iso: moment.format(&time::format_description::well_known::Rfc3339).ok()?,
            exact: moment.format(&exact).ok()?,
            relative: relative(now_ms - ms),
        })
    }
}

fn relative(past_ms: i64) -> String {
    let (ago, secs) = (past_ms >= 0, past_ms.abs() / 1_000);
    let span = match secs {
        0..=4 if ago => return "just now".to_owned(),
        0..60 => format!("{secs} s"),
        60..3_600 => format!("{} min", secs / 60),
        3_600..86_400 => format!("{} h", secs / 3_600),
        _ => format!("{} d", secs / 86_400),
    };
    if ago { format!("{span} ago") } else { format!("in {span}") }
}

/// `850 ms`, `2.4 s`, `3 min 05 s`.
pub(super) fn duration(ms: i64) -> String {
    match ms.max(0) {
        ms @ 0..1_000 => format!("{ms} ms"),
        ms @ 1_000..60_000 => format!("{}.{} s", ms / 1_000, ms % 1_000 / 100),
        ms @ 60_000..3_600_000 => format!("{} min {:02} s", ms / 60_000, ms / 1_000 % 60),
        ms => format!("{} h {:02} min", ms / 3_600_000, ms / 60_000 % 60),
    }
}

/// `12,345`.
pub(super) fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `1 policy`, `12,345 policies`.
pub(super) fn counted(n: u64, one: &str, many: &str) -> String {
    format!("{} {}", count(n), if n == 1 { one } else { many })
}

/// `14.2 MiB`.
pub(super) fn bytes(n: u64) -> String {
    match n {
        0 => "unknown".to_owned(),
        1..1_048_576 => format!("{} KiB", n.div_ceil(1_024)),
        _ => format!("{}.{} MiB", n / 1_048_576, n % 1_048_576 * 10 / 1_048_576),
    }
}

/// One or two letters for a person's badge.
pub(super) fn initials(name: &str) -> String {
    let mut words = name.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty());
    let first = words.next().and_then(|word| word.chars().next());
    let last = words.next_back().and_then(|word| word.chars().next());
    first.into_iter().chain(last).flat_map(char::to_uppercase).collect()
}

/// State of a module.
pub(super) fn module_state(state: ModuleState) -> (Tone, &'static str) {
    match state {
        ModuleState::Idle => (Tone::Calm, "Idle"),
        ModuleState::Ok => (Tone::Good, "Working"),
        ModuleState::Degraded => (Tone::Warn, "Degraded"),
        ModuleState::Failed => (Tone::Bad, "Failed"),
    }
}

/// Status of an action.
pub(super) fn action_status(status: Status) -> (Tone, &'static str) {
    match status {
        Status::Pending => (Tone::Busy, "Pending"),
        Status::Success => (Tone::Good, "Success"),
        Status::Failure => (Tone::Bad, "Failure"),
    }
}

/// What an action does.
pub(super) fn action_title(verb: &str) -> String {
    match verb {
        "sync_now" => "Sync everything".to_owned(),
        "sync_user" => "Sync one person".to_owned(),
        "block_device" => "Block phone".to_owned(),
        "approve_device" => "Approve phone".to_owned(),
        "remove_device" => "Remove phone".to_owned(),
        "wipe_device" => "Wipe phone".to_owned(),
        "sync_device" => "Look at one phone".to_owned(),
        "quarantine_on" => "Hold new phones".to_owned(),
        "quarantine_off" => "Let new phones in".to_owned(),
        "issue_certificate" => "Get a certificate".to_owned(),
        "revoke_certificate" => "Revoke a certificate".to_owned(),
        other => sentence_case(&other.replace('_', " ")),
    }
}

/// The first letter large.
pub(super) fn sentence_case(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

/// Whether a phone gets mail.
pub(super) fn access_state(word: &str) -> (Tone, String) {
    let (tone, text) = match word {
        access::ALLOWED => (Tone::Good, "Allowed"),
        access::BLOCKED => (Tone::Bad, "Blocked"),
        access::QUARANTINED => (Tone::Warn, "Quarantined"),
        access::DISCOVERY => (Tone::Busy, "Being identified"),
        access::UNKNOWN | "" => (Tone::Calm, "Unknown"),
        other => (Tone::Calm, other),
    };
    (tone, sentence_case(&text.replace('_', " ")))
}

/// Where a wipe stands; nothing while there is none.
pub(super) fn wipe_status(word: &str) -> Option<(Tone, String)> {
    let (tone, text) = match word {
        "" | "device_ok" => return None,
        "device_wipe_pending" => (Tone::Warn, "Wipe ordered"),
        "account_only_device_wipe_pending" => (Tone::Warn, "Account wipe ordered"),
        "device_wipe_succeeded" => (Tone::Bad, "Wiped"),
        "account_only_device_wipe_succeeded" => (Tone::Bad, "Account wiped"),
        other => (Tone::Calm, other),
    };
    Some((tone, sentence_case(&text.replace('_', " "))))
}

/// Where a certificate stands.
pub(super) fn certificate_status(word: &str) -> (Tone, String) {
    let (tone, text) = match word {
        "active" => (Tone::Good, "In use"),
        "issued" => (Tone::Busy, "Not installed yet"),
        "renewing" => (Tone::Busy, "Renewal due"),
        "superseded" => (Tone::Calm, "Superseded"),
        "unused" => (Tone::Warn, "Nobody has it"),
        "revoking" => (Tone::Warn, "To be revoked"),
        "revoked" => (Tone::Bad, "Revoked"),
        "not_revocable" => (Tone::Warn, "Cannot be revoked"),
        "expired" => (Tone::Bad, "Expired"),
        other => (Tone::Calm, other),
    };
    (tone, sentence_case(&text.replace('_', " ")))
}

/// How far a request for a certificate is.
pub(super) fn request_stage(word: &str) -> (Tone, String) {
    let (tone, text) = match word {
        "wanted" => (Tone::Calm, "Waits for the device"),
        "challenged" => (Tone::Busy, "The device makes its request"),
        "ordered" => (Tone::Busy, "On its way to an agent"),
        "checked" => (Tone::Busy, "Checked by the agent"),
        "submitted" => (Tone::Busy, "Handed in at the authority"),
        "awaiting_approval" => (Tone::Warn, "Awaiting approval"),
        "retrying" => (Tone::Warn, "Tried again soon"),
        "issued" => (Tone::Good, "Issued"),
        "installed" => (Tone::Good, "Installed"),
        "failed" => (Tone::Bad, "Failed"),
        "cancelled" => (Tone::Calm, "Cancelled"),
        "orphan" => (Tone::Warn, "Issued for nobody"),
        other => (Tone::Calm, other),
    };
    (tone, sentence_case(&text.replace('_', " ")))
}

/// Why a certificate was revoked.
pub(super) fn revocation_reason(reason: RevocationReason) -> &'static str {
    match reason {
        RevocationReason::Unspecified => "no reason given",
        RevocationReason::KeyCompromise => "its key may be in other hands",
        RevocationReason::Superseded => "another one took its place",
        RevocationReason::CessationOfOperation => "it is no longer needed",
    }
}

/// Tells agents of one host apart.
pub(super) fn short_id(instance: &str) -> &str {
    instance.get(..6).unwrap_or(instance)
}

/// A line of an action's timeline.
pub(super) fn step(event: &str) -> (Tone, String) {
    let (tone, text) = match event {
        "queued" => (Tone::Calm, "Ordered"),
        "dispatched" => (Tone::Busy, "Sent to an agent"),
        "accepted" => (Tone::Busy, "Accepted by the agent"),
        "running" => (Tone::Busy, "In work"),
        "success" => (Tone::Good, "Succeeded"),
        "failure" => (Tone::Bad, "Failed"),
        "duplicate_result" => (Tone::Warn, "A second result came and was set aside"),
        other => (Tone::Warn, other),
    };
    (tone, sentence_case(&text.replace('_', " ")))
}

/// How bad an alert is.
pub(super) fn severity(word: &str) -> (Tone, &'static str) {
    match word {
        "critical" => (Tone::Bad, "Critical"),
        "warning" => (Tone::Warn, "Warning"),
        _ => (Tone::Calm, "Info"),
    }
}

/// Verdict of a password check, with what it means.
pub(super) fn verdict(outcome: AuthOutcome) -> (Tone, &'static str, &'static str) {
    match outcome {
        AuthOutcome::Ok => (Tone::Good, "Signed in", "The password is right and the account may be used."),
        AuthOutcome::BadCredentials => (
            Tone::Bad,
            "Wrong name or password",
            "Unknown user or wrong password; the two are never told apart.",
        ),
        AuthOutcome::PasswordExpired => {
            (Tone::Warn, "Password expired", "The password is right but has expired.")
        }
        AuthOutcome::MustChange => (
            Tone::Warn,
            "Must change password",
            "The password is right but must be changed at the next sign-in.",
        ),
        AuthOutcome::Locked => {
            (Tone::Warn, "Account locked", "Too many failures; this says nothing about the password.")
        }
        AuthOutcome::Disabled => (Tone::Warn, "Account disabled", "The account is switched off."),
        AuthOutcome::AccountExpired => (Tone::Warn, "Account expired", "The account's end date has passed."),
        AuthOutcome::Restricted => {
            (Tone::Warn, "Not allowed now", "Right password at a forbidden time or place.")
        }
        AuthOutcome::Unavailable => {
            (Tone::Calm, "No verdict", "No directory, no agent, or no answer in time.")
        }
    }
}

/// An event in one line, as the live feed shows it.
#[derive(Clone, Debug)]
pub(super) struct Line {
    pub(super) seq: i64,
    pub(super) kind: String,
    pub(super) tone: Tone,
    /// What happened, in a few words.
    pub(super) title: String,
    /// Particulars.
    pub(super) detail: String,
    /// Where to look, a path on the portal; empty for nowhere.
    pub(super) href: String,
    pub(super) at_ms: i64,
}

impl Line {
    /// Puts an event into words.
    pub(super) fn of(event: &Event) -> Self {
        let body = &event.body;
        let (tone, title, detail) = sentence(&event.kind, body);
        let page = match event.kind.as_str() {
            kinds::ACTION => format!("actions/{}", text(body, "action")),
            kinds::CONFIG_CHANGED | kinds::CONFIG_APPLIED => format!("modules/{}", text(body, "module")),
            kinds::ALERT_OPENED | kinds::ALERT_CLOSED => "alerts".to_owned(),
            kinds::AUTHENTICATE => "password".to_owned(),
            kinds::UPLOAD_COMMITTED | kinds::UPLOAD_REFUSED | kinds::PROGRESS => {
                let source = text(body, "source") + &text(body, "resource");
                let page = if source.starts_with("exchange") { "devices" } else { "people" };
                page.to_owned()
            }
            kinds::COMPLIANCE => "compliance".to_owned(),
            kinds::ENROLLED => "devices".to_owned(),
            kinds::CERTIFICATE => match (text(body, "request"), text(body, "certificate")) {
                (request, _) if !request.is_empty() => format!("certificate-requests/{request}"),
                (_, certificate) if !certificate.is_empty() => format!("certificates/{certificate}"),
                _ => "certificates".to_owned(),
            },
            _ if body.get("agent").is_some() => format!("agents/{}", text(body, "agent")),
            _ => String::new(),
        };
        let href = if page.is_empty() { page } else { format!("/t/{}/{page}", event.tenant) };
        let (seq, kind, at_ms) = (event.seq, event.kind.clone(), event.at_ms);
        Self { seq, kind, tone, title, detail, href, at_ms }
    }
}

fn sentence(kind: &str, body: &Value) -> (Tone, String, String) {
    let field = |name: &str| text(body, name);
    let figure = |name: &str| body.get(name).and_then(Value::as_u64).unwrap_or(0);
    let number = |name: &str| count(figure(name));
    let rows = |name: &str| counted(figure(name), "row", "rows");
    let named = |title: &str, detail: String| (title.to_owned(), detail);
    let (tone, (title, detail)) = match kind {
        kinds::AGENT_ONLINE => (
            Tone::Good,
            named("Agent online", join([field("host"), prefixed("version ", &field("version"))])),
        ),
        kinds::AGENT_OFFLINE => (Tone::Bad, named("Agent offline", join([field("host"), field("reason")]))),
        kinds::AGENT_ENROLLED => (Tone::Good, named("Agent enrolled", field("host"))),
        kinds::AGENT_REVOKED => (Tone::Bad, named("Agent revoked", field("agent"))),
        kinds::MODULE_HEALTH => {
            let tone = match field("state").as_str() {
                "ok" => Tone::Good,
                "degraded" => Tone::Warn,
                "failed" => Tone::Bad,
                _ => Tone::Calm,
            };
            (tone, (format!("{} is {}", field("module"), field("state")), field("detail")))
        }
        kinds::CONFIG_CHANGED => (
            Tone::Calm,
            named("Desired config changed", format!("{} revision {}", field("module"), number("revision"))),
        ),
        kinds::CONFIG_APPLIED => applied(body, &field("module"), &number("running"), &number("revision")),
        kinds::PROGRESS => progress(body, &field("resource"), &field("phase"), &number("done")),
        kinds::UPLOAD_COMMITTED => (
            Tone::Good,
            (
                format!("{} received", if field("mode") == "snapshot" { "Full picture" } else { "Changes" }),
                format!("{} written, {} deleted", rows("upserts"), number("deletes")),
            ),
        ),
        kinds::UPLOAD_REFUSED => {
            (Tone::Warn, named("Upload refused", join([field("source"), field("reason").replace('_', " ")])))
        }
        kinds::LEASE => {
            (Tone::Calm, named("Lease", join([field("resource"), prefixed("held by ", &field("holder"))])))
        }
        kinds::ACTION => {
            let status = field("status");
            let step_word = if field("step").is_empty() { status.clone() } else { field("step") };
            let (tone, title) = step(&step_word);
            (tone, (format!("{}: {}", action_title(&field("verb")), title.to_lowercase()), field("module")))
        }
        kinds::ALERT_OPENED => {
            (severity(&field("severity")).0, named("Alert", join([field("subject"), field("detail")])))
        }
        kinds::ALERT_CLOSED => {
            (Tone::Good, named("Alert closed", join([field("subject"), field("code").replace('_', " ")])))
        }
        kinds::AUTHENTICATE => verdicts(body),
        kinds::ENROLLED => {
            let compliant = body.get("compliant").and_then(Value::as_bool);
            let (tone, title) = match compliant {
                Some(true) => (Tone::Good, "Phone enrolled and compliant"),
                Some(false) => (Tone::Warn, "Phone enrolled and not compliant"),
                None => (Tone::Calm, "Phone no longer enrolled"),
            };
            (tone, named(title, field("user")))
        }
        kinds::CERTIFICATE => {
            let (tone, title) = match field("step").as_str() {
                "wiped" => (Tone::Bad, "Device wiped: its certificates are revoked".to_owned()),
                "revoked" => (Tone::Warn, "Certificate revoked".to_owned()),
                "not_revocable" => (Tone::Warn, "Certificate cannot be revoked".to_owned()),
                "revocation_failed" => (Tone::Warn, "Certificate not revoked yet".to_owned()),
                step => {
                    let (tone, words) = request_stage(step);
                    (tone, format!("Certificate: {}", words.to_lowercase()))
                }
            };
            (tone, (title, join([field("user"), field("profile")])))
        }
        kinds::COMPLIANCE => {
            let held = body.get("held").and_then(Value::as_u64).unwrap_or(0);
            let tone = if held > 0 { Tone::Warn } else { Tone::Calm };
            let detail = format!(
                "{} changed, {} given, {} held",
                counted(figure("changes"), "finding", "findings"),
                counted(figure("ordered"), "order", "orders"),
                number("held")
            );
            (tone, named("Compliance rule", detail))
        }
        other => (Tone::Calm, (other.replace('_', " "), String::new())),
    };
    (tone, title, detail)
}

fn applied(body: &Value, module: &str, running: &str, revision: &str) -> (Tone, (String, String)) {
    match body.get("error").filter(|error| !error.is_null()) {
        Some(error) => {
            let detail = format!("{module} revision {revision}: {}", text(error, "detail"));
            (Tone::Bad, ("Config refused by the agent".to_owned(), detail))
        }
        None => (Tone::Good, ("Config applied".to_owned(), format!("{module} runs revision {running}"))),
    }
}

fn progress(body: &Value, resource: &str, phase: &str, done: &str) -> (Tone, (String, String)) {
    if body.get("finished").and_then(Value::as_bool).unwrap_or(false) {
        let changes: u64 = body
            .get("counts")
            .and_then(Value::as_object)
            .into_iter()
            .flatten()
            .filter_map(|(_, n)| n.as_u64())
            .sum();
        let detail = match (phase, changes) {
            ("done" | "listed", 0) => "no change".to_owned(),
            ("done" | "listed", n) => counted(n, "record", "records"),
            (other, _) => other.replace('_', " "),
        };
        let is_good = matches!(phase, "done" | "listed" | "dry run done");
        let tone = if is_good { Tone::Good } else { Tone::Warn };
        return (tone, ("Collection finished".to_owned(), join([resource.to_owned(), detail])));
    }
    let of = body
        .get("total")
        .and_then(Value::as_u64)
        .map(|total| format!(" of {}", count(total)))
        .unwrap_or_default();
    (Tone::Busy, (format!("Collecting {resource}"), format!("{phase}: {done}{of} objects")))
}

fn verdicts(body: &Value) -> (Tone, (String, String)) {
    let counts: Vec<(String, u64)> = body
        .as_object()
        .into_iter()
        .flatten()
        .filter_map(|(outcome, n)| Some((outcome.replace('_', " "), n.as_u64()?)))
        .collect();
    let total: u64 = counts.iter().map(|(_, n)| n).sum();
    let only_good = counts.iter().all(|(outcome, _)| outcome == "ok");
    let detail: Vec<String> = counts.iter().map(|(outcome, n)| format!("{} {outcome}", count(*n))).collect();
    let tone = if only_good { Tone::Good } else { Tone::Calm };
    let title = counted(total, "password check", "password checks");
    (tone, (title, detail.join(", ")))
}

fn text(body: &Value, name: &str) -> String {
    match body.get(name) {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Null) | None => String::new(),
        Some(other) => other.to_string(),
    }
}

fn join(parts: [String; 2]) -> String {
    let parts: Vec<String> = parts.into_iter().filter(|part| !part.is_empty()).collect();
    parts.join(" \u{b7} ")
}

fn prefixed(prefix: &str, text: &str) -> String {
    if text.is_empty() { String::new() } else { format!("{prefix}{text}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_times_read_well() {
        assert_eq!((count(0), count(999), count(1_234_567)), ("0".into(), "999".into(), "1,234,567".into()));
        assert_eq!(
            (duration(850), duration(2_460), duration(185_000)),
            ("850 ms".into(), "2.4 s".into(), "3 min 05 s".into())
        );
        assert_eq!(
            (relative(1_000), relative(-90_000), relative(7_200_000)),
            ("just now".into(), "in 1 min".into(), "2 h ago".into())
        );
        assert_eq!(When::at(1_795_000_000_000, 1_795_000_061_000).unwrap().relative, "1 min ago");
        assert!(When::at(0, 1).is_none());
    }

    #[test]
    fn initials_survive_hard_names() {
        assert_eq!(initials("Alice Smith"), "AS");
        assert_eq!(initials("Connor (Con) O'Brien"), "CB");
        assert_eq!(initials("  "), "");
        assert_eq!(initials("ßpan"), "SS");
    }

    #[test]
    fn every_event_has_a_sentence() {
        let body = serde_json::json!({ "ok": 3, "bad_credentials": 1 });
        let (_, title, detail) = sentence(kinds::AUTHENTICATE, &body);
        assert_eq!((title.as_str(), detail.as_str()), ("4 password checks", "1 bad credentials, 3 ok"));
    }

    #[test]
    fn a_collection_that_went_well_is_no_warning() {
        let ended = |phase: &str, devices: u64| {
            let body = serde_json::json!({ "resource": "exchange/acme", "phase": phase, "finished": true,
                                           "counts": { "devices": devices } });
            let (tone, _, detail) = sentence(kinds::PROGRESS, &body);
            (tone, detail)
        };
        // A directory and an Exchange organisation say it in words of their own.
        for phase in ["done", "listed"] {
            assert_eq!(ended(phase, 0), (Tone::Good, "exchange/acme \u{b7} no change".to_owned()));
            assert_eq!(ended(phase, 1), (Tone::Good, "exchange/acme \u{b7} 1 record".to_owned()));
        }
        assert_eq!(ended("dry run done", 3).0, Tone::Good);
        assert_eq!(ended("given_up", 3), (Tone::Warn, "exchange/acme \u{b7} given up".to_owned()));
    }
}
