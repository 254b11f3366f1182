//! A host that nobody sits at (MS-PSRP 2.2.2.27 and 28): what it is only shown it takes, what wants an answer it refuses.

use super::message::HostCall;
use super::records::{body, error_value};
use crate::clixml::{Content, Value};
use crate::cmdlet::ErrorRecord;

/// `InvalidOperation` of `ErrorCategory` (MS-PSRP 2.2.3.9).
const INVALID_OPERATION: i32 = 7;

/// Numbers of `RemoteHostMethodId` (MS-PSRP 2.2.3.17) that a server asks for by this name.
const WRITE_ERROR_LINE: i32 = 18;
const WRITE_WARNING_LINE: i32 = 22;

impl HostCall {
    /// Whether the method returns something. A server waits for the answer then, and for none otherwise.
    pub fn wants_answer(&self) -> bool {
        // Leaving, nested prompts and applications; writing; colours, cursor, window, buffer; runspaces.
        !matches!(
            self.method,
            6..=10 | 13..=22 | 28 | 30 | 32 | 34 | 36 | 38 | 40 | 42 | 47..=49 | 51..=53
        )
    }

    /// The answer of a host without a person, as PowerShell gives it: an error in place of what the method returns.
    pub fn refusal(&self) -> Value {
        let error = ErrorRecord {
            message: "PowerShell is in NonInteractive mode. Read and Prompt functionality is not available."
                .to_owned(),
            reason: "PSInvalidOperationException".to_owned(),
            fully_qualified_id: "RemoteHostExecutionException".to_owned(),
            category: INVALID_OPERATION,
            target: self.name.clone(),
        };
        body([("ci", Value::I64(self.call)), ("mi", self.identifier()), ("me", error_value(&error))])
    }

    /// A warning or an error that the server wants to be seen by a person.
    pub(super) fn warning(&self) -> Option<String> {
        let Value::Object(parameters) = &self.parameters else { return None };
        let Content::List(_, items) = &parameters.content else { return None };
        let shown = matches!(self.method, WRITE_ERROR_LINE | WRITE_WARNING_LINE);
        items.first().filter(|_| shown)?.text().map(std::borrow::Cow::into_owned)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(method: i32, name: &str) -> HostCall {
        let parameters = Value::list(vec!["beware".into()]);
        HostCall { call: 5, method, name: name.to_owned(), parameters }
    }

    #[test]
    fn what_returns_nothing_is_not_answered() {
        for (method, name, wants) in [
            (1, "GetName", true),
            (9, "NotifyBeginApplication", false),
            (11, "ReadLine", true),
            (12, "ReadLineAsSecureString", true),
            (15, "WriteLine1", false),
            (20, "WriteProgress", false),
            (22, "WriteWarningLine", false),
            (24, "PromptForCredential1", true),
            (26, "PromptForChoice", true),
            (30, "SetBackgroundColor", false),
            (46, "ReadKey", true),
            (56, "PromptForChoiceMultipleSelection", true),
            (99, "Tomorrow", true),
        ] {
            assert_eq!(call(method, name).wants_answer(), wants, "{name}");
        }
    }

    #[test]
    fn a_refusal_names_its_call_and_an_error() {
        let Value::Object(answer) = call(26, "PromptForChoice").refusal() else { panic!("no object") };
        assert_eq!(answer.get("ci"), Some(&Value::I64(5)));
        let error = super::super::error_record(answer.get("me").unwrap());
        assert_eq!(error.reason, "PSInvalidOperationException");
        assert_eq!(answer.get("mr"), None);
    }

    #[test]
    fn only_what_a_person_should_see_is_kept() {
        assert_eq!(call(22, "WriteWarningLine").warning().as_deref(), Some("beware"));
        assert_eq!(call(15, "WriteLine1").warning(), None);
    }
}
