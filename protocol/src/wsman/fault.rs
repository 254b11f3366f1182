//! Faults (SOAP 1.2, MS-WSMV 2.2.4.43).

use super::{SoapError, cut, ns};
use crate::xml::{Element, Writer};

/// Why the server refuses.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Fault {
    /// Whether the request is at fault and not the server.
    pub sender: bool,
    /// Local name of the subcode, for example `TimedOut`; empty if there is none.
    pub subcode: String,
    /// In words.
    pub reason: String,
    /// Number of the fault; a server may leave out the whole detail.
    pub code: Option<u32>,
    /// In the words of the detail, those of providers among them; here Exchange says what it holds against us.
    pub detail: String,
}

/// Numbers of faults (`wsmerror.h`) that mean something to a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FaultCode(pub u32);

#[expect(missing_docs, reason = "the names say it; the numbers are those of Windows")]
impl FaultCode {
    pub const OPERATION_TIMED_OUT: Self = Self(2_150_858_793);
    pub const QUOTA_LIMIT: Self = Self(2_150_858_815);
    pub const SHELL_NOT_FOUND: Self = Self(2_150_858_843);
    pub const QUOTA_MAX_SHELLS: Self = Self(2_150_859_173);
    pub const QUOTA_MAX_OPERATIONS: Self = Self(2_150_859_174);
    pub const QUOTA_USER: Self = Self(2_150_859_175);
    pub const QUOTA_SYSTEM: Self = Self(2_150_859_176);
    pub const QUOTA_MAX_SHELL_USERS: Self = Self(2_150_859_179);
    pub const QUOTA_MAX_SHELLS_OF_PLUGIN: Self = Self(2_150_859_236);
    pub const QUOTA_MAX_COMMANDS_PER_SHELL: Self = Self(2_150_859_241);
}

const QUOTAS: [FaultCode; 8] = [
    FaultCode::QUOTA_LIMIT,
    FaultCode::QUOTA_MAX_SHELLS,
    FaultCode::QUOTA_MAX_OPERATIONS,
    FaultCode::QUOTA_USER,
    FaultCode::QUOTA_SYSTEM,
    FaultCode::QUOTA_MAX_SHELL_USERS,
    FaultCode::QUOTA_MAX_SHELLS_OF_PLUGIN,
    FaultCode::QUOTA_MAX_COMMANDS_PER_SHELL,
];

/// Words of a refusal for load, of which the exact sentence differs with versions and languages.
const LOAD_WORDS: [&str; 4] = ["maxconcurrency", "budget", "throttl", "exceeded the maximum number"];

impl Fault {
    /// Nothing came in the time of the operation; asking again is right.
    pub fn is_timeout(&self) -> bool {
        self.is(FaultCode::OPERATION_TIMED_OUT) || (self.code.is_none() && self.subcode == "TimedOut")
    }

    /// The shell is gone; another must be opened.
    pub fn is_shell_gone(&self) -> bool {
        self.is(FaultCode::SHELL_NOT_FOUND) || (self.code.is_none() && self.subcode == "InvalidSelectors")
    }

    /// The server wants less of us.
    pub fn is_load(&self) -> bool {
        if QUOTAS.into_iter().any(|code| self.is(code)) || self.subcode == "QuotaLimit" {
            return true;
        }
        let words = format!("{} {}", self.reason, self.detail).to_ascii_lowercase();
        LOAD_WORDS.iter().any(|word| words.contains(word))
    }

    fn is(&self, code: FaultCode) -> bool {
        self.code == Some(code.0)
    }

    pub(super) fn read(fault: &Element) -> Result<Self, SoapError> {
        let code = fault.child(ns::SOAP, "Code").ok_or(SoapError::Missing { element: "Code" })?;
        let local = |text: &str| cut(text.rsplit(':').next().unwrap_or_default());
        let subcode = code.child(ns::SOAP, "Subcode").and_then(|code| code.child_text(ns::SOAP, "Value"));
        let reason = fault.child(ns::SOAP, "Reason").and_then(|reason| reason.child_text(ns::SOAP, "Text"));
        let detail = fault.child(ns::SOAP, "Detail").and_then(|detail| detail.child(ns::FAULT, "WSManFault"));
        let mut words = String::new();
        if let Some(message) = detail.and_then(|detail| detail.child(ns::FAULT, "Message")) {
            gather(message, &mut words);
        }
        Ok(Self {
            sender: code.child_text(ns::SOAP, "Value").is_some_and(|value| local(value) == "Sender"),
            subcode: subcode.map(local).unwrap_or_default(),
            reason: reason.unwrap_or_default().to_owned(),
            code: detail.and_then(|detail| detail.attribute("Code")).and_then(|code| code.parse().ok()),
            detail: words,
        })
    }

    pub(super) fn write(&self, out: &mut Writer) {
        out.start("s:Fault", &[]).start("s:Code", &[]);
        out.element("s:Value", &[], if self.sender { "s:Sender" } else { "s:Receiver" });
        if !self.subcode.is_empty() {
            let addressing =
                ["ActionNotSupported", "DestinationUnreachable", "InvalidMessageInformationHeader"];
            let prefix = if addressing.contains(&&*self.subcode) { "a" } else { "w" };
            out.start("s:Subcode", &[]).element("s:Value", &[], &format!("{prefix}:{}", self.subcode)).end();
        }
        out.end().start("s:Reason", &[]);
        out.element("s:Text", &[("xml:lang", "en-US")], &self.reason).end();
        if let Some(code) = self.code {
            let code = code.to_string();
            let attributes = [("xmlns:f", ns::FAULT), ("Code", &code), ("Machine", "localhost")];
            out.start("s:Detail", &[]).start("f:WSManFault", &attributes);
            out.element("f:Message", &[], if self.detail.is_empty() { &self.reason } else { &self.detail });
            out.end().end();
        }
        out.end();
    }
}

/// All text below an element: Exchange puts its own words into a provider's fault inside the message.
fn gather(element: &Element, words: &mut String) {
    for text in std::iter::once(element.text.trim()).filter(|text| !text.is_empty()) {
        if !words.is_empty() {
            words.push(' ');
        }
        words.push_str(text);
    }
    for child in &element.children {
        gather(child, words);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn load_is_known_by_number_and_by_words() {
        let by_number = Fault { code: Some(FaultCode::QUOTA_MAX_SHELLS.0), ..Fault::default() };
        let words = "Fail to create a runspace because you have exceeded the maximum number of connections allowed : \
                     18 for the policy party : MaxConcurrency.";
        let by_words = Fault { detail: words.to_owned(), ..Fault::default() };
        let other = Fault { reason: "access denied".to_owned(), code: Some(5), ..Fault::default() };
        assert!(by_number.is_load() && by_words.is_load() && !other.is_load());
        assert!(!by_words.is_timeout() && !by_words.is_shell_gone());
    }
}
