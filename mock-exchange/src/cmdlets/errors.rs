//! Error records as the management shell makes them.

use causeway_protocol::cmdlet::ErrorRecord;
use time::OffsetDateTime;

use super::table::Spec;
use crate::profile::Version;
use crate::world::Organisation;

/// Numbers of `ErrorCategory` (MS-PSRP 2.2.3.9).
mod category {
    pub(super) const NOT_SPECIFIED: i32 = 0;
    pub(super) const INVALID_ARGUMENT: i32 = 5;
    pub(super) const INVALID_DATA: i32 = 6;
    pub(super) const INVALID_OPERATION: i32 = 7;
    pub(super) const OBJECT_NOT_FOUND: i32 = 13;
    pub(super) const RESOURCE_EXISTS: i32 = 20;
    pub(super) const RESOURCE_UNAVAILABLE: i32 = 21;
}

/// The cmdlet does not exist, or the caller's roles do not show it: the shell cannot tell the difference either.
pub(super) fn no_command(name: &str) -> ErrorRecord {
    ErrorRecord {
        message: format!(
            "The term '{name}' is not recognized as the name of a cmdlet, function, script file, or operable program. \
             Check the spelling of the name, or if a path was included, verify that the path is correct and try again."
        ),
        reason: "CommandNotFoundException".to_owned(),
        fully_qualified_id: "CommandNotFoundException".to_owned(),
        category: category::OBJECT_NOT_FOUND,
        target: name.to_owned(),
    }
}

fn binding(cmdlet: &str, reason: &str, id: &str, message: String, target: &str) -> ErrorRecord {
    ErrorRecord {
        message,
        reason: reason.to_owned(),
        fully_qualified_id: format!("{id},{cmdlet}"),
        category: category::INVALID_ARGUMENT,
        target: target.to_owned(),
    }
}

pub(super) fn no_parameter(cmdlet: &str, name: &str) -> ErrorRecord {
    let message = format!("A parameter cannot be found that matches parameter name '{name}'.");
    binding(cmdlet, "ParameterBindingException", "NamedParameterNotFound", message, name)
}

pub(super) fn ambiguous_parameter(cmdlet: &str, name: &str, matches: &[&str]) -> ErrorRecord {
    let matches: Vec<String> = matches.iter().map(|name| format!("-{name}")).collect();
    let message = format!(
        "Parameter cannot be processed because the parameter name '{name}' is ambiguous. Possible matches include: {}.",
        matches.join(" ")
    );
    binding(cmdlet, "ParameterBindingException", "AmbiguousParameter", message, name)
}

pub(super) fn parameter_twice(cmdlet: &str, name: &str) -> ErrorRecord {
    let message = format!(
        "Cannot bind parameter because parameter '{name}' is specified more than once. To provide multiple values to \
         parameters that can accept multiple values, use the array syntax."
    );
    binding(cmdlet, "ParameterBindingException", "ParameterAlreadyBound", message, name)
}

pub(super) fn missing(cmdlet: &str, names: &[&str]) -> ErrorRecord {
    let names = names.join(" ");
    let message =
        format!("Cannot process command because of one or more missing mandatory parameters: {names}.");
    binding(cmdlet, "ParameterBindingException", "MissingMandatoryParameter", message, "")
}

pub(super) fn parameter_set(cmdlet: &str) -> ErrorRecord {
    let message = "Parameter set cannot be resolved using the specified named parameters.".to_owned();
    binding(cmdlet, "ParameterBindingException", "AmbiguousParameterSet", message, "")
}

/// A value that cannot become what the parameter is.
pub(super) fn conversion(cmdlet: &str, parameter: &str, value: &str, kind: &str) -> ErrorRecord {
    let message = format!(
        "Cannot process argument transformation on parameter '{parameter}'. Cannot convert value \"{value}\" to type \"{kind}\"."
    );
    let reason = "ParameterBindingArgumentTransformationException";
    binding(cmdlet, reason, "ParameterArgumentTransformationError", message, parameter)
}

/// A value of the right kind that breaks a rule.
pub(super) fn validation(cmdlet: &str, parameter: &str, why: &str) -> ErrorRecord {
    let message = format!("Cannot validate argument on parameter '{parameter}'. {why}");
    binding(
        cmdlet,
        "ParameterBindingValidationException",
        "ParameterArgumentValidationError",
        message,
        parameter,
    )
}

/// What the errors of one run of a cmdlet have in common.
#[derive(Clone, Debug)]
pub(super) struct Task {
    class: &'static str,
    server: String,
    controller: String,
    at: OffsetDateTime,
    request: String,
    /// Exchange 2013 and later name the class of failure in the identifier; earlier ones give only the number.
    says_category: bool,
}

impl Task {
    pub(super) fn new(organisation: &Organisation, spec: &Spec) -> Self {
        let at_ms = organisation.clock().now_ms();
        let at = OffsetDateTime::from_unix_timestamp(at_ms.div_euclid(1_000))
            .unwrap_or(OffsetDateTime::UNIX_EPOCH);
        let server = organisation
            .servers()
            .first()
            .map_or_else(|| "MAIL1".to_owned(), |name| name.to_ascii_uppercase());
        Self {
            class: spec.class,
            server,
            controller: organisation.controllers().into_iter().next().unwrap_or_default(),
            at,
            request: uuid::Uuid::new_v4().to_string(),
            says_category: organisation.facts().profile.version >= Version::E2013,
        }
    }

    fn record(&self, reason: &str, category: i32, message: String, target: &str) -> ErrorRecord {
        // The real number is a hash of the message; equal errors must have equal numbers, which this gives too.
        let number = message
            .bytes()
            .fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
        let class = self.class;
        let fully_qualified_id = if self.says_category {
            let at = self.at;
            let hour = at.hour() % 12;
            format!(
                "[Server={},RequestId={},TimeStamp={}/{}/{} {}:{:02}:{:02} {}] [FailureCategory=Cmdlet-{reason}] {number:X},{class}",
                self.server,
                self.request,
                u8::from(at.month()),
                at.day(),
                at.year(),
                if hour == 0 { 12 } else { hour },
                at.minute(),
                at.second(),
                if at.hour() < 12 { "AM" } else { "PM" },
            )
        } else {
            format!("{number:X},{class}")
        };
        ErrorRecord {
            message,
            reason: reason.to_owned(),
            fully_qualified_id,
            category,
            target: target.to_owned(),
        }
    }

    pub(super) fn not_found(&self, identity: &str) -> ErrorRecord {
        let message = format!(
            "The operation couldn't be performed because object '{identity}' couldn't be found on '{}'.",
            self.controller
        );
        self.record("ManagementObjectNotFoundException", category::OBJECT_NOT_FOUND, message, identity)
    }

    pub(super) fn no_device(&self, identity: &str) -> ErrorRecord {
        let message = format!("Couldn't find '{identity}' as a mobile device.");
        self.record("ManagementObjectNotFoundException", category::OBJECT_NOT_FOUND, message, identity)
    }

    pub(super) fn ambiguous(&self, identity: &str) -> ErrorRecord {
        let message =
            format!("The operation couldn't be performed because '{identity}' matches multiple entries.");
        self.record("ManagementObjectAmbiguousException", category::INVALID_DATA, message, identity)
    }

    pub(super) fn exists(&self, name: &str) -> ErrorRecord {
        let message = format!(
            "Active Directory operation failed on {}. The object '{name}' already exists.",
            self.controller
        );
        self.record("ADObjectAlreadyExistsException", category::RESOURCE_EXISTS, message, name)
    }

    pub(super) fn no_controller(&self, name: &str) -> ErrorRecord {
        let message = format!(
            "An Active Directory error 0x51 occurred when trying to check the suitability of server '{name}'."
        );
        self.record("SuitabilityDirectoryException", category::RESOURCE_UNAVAILABLE, message, name)
    }

    pub(super) fn invalid_operation(&self, message: String, target: &str) -> ErrorRecord {
        self.record("InvalidOperationException", category::INVALID_OPERATION, message, target)
    }

    /// Bad filters, and values that together make no sense.
    pub(super) fn recipient_task(&self, message: String, target: &str) -> ErrorRecord {
        self.record("RecipientTaskException", category::INVALID_ARGUMENT, message, target)
    }

    pub(super) fn too_many(&self, what: &str, most: usize) -> ErrorRecord {
        let message = format!("There can be at most {most} {what}.");
        self.record("TooManyObjectsException", category::INVALID_OPERATION, message, what)
    }

    pub(super) fn over_budget(&self, account: &str, for_ms: i64) -> ErrorRecord {
        let message = format!(
            "Fail to create a runspace because you have exceeded your budget to use during one period of CutoffBalance. \
             The account {account} is locked for another {} seconds.",
            for_ms.max(0) / 1_000 + 1
        );
        self.record("OverBudgetException", category::RESOURCE_UNAVAILABLE, message, account)
    }

    /// A prompt where nobody can answer: the shell's own error, without the marks of a task.
    pub(super) fn not_interactive(&self) -> ErrorRecord {
        let cmdlet = self.class.rsplit('.').next().unwrap_or_default();
        ErrorRecord {
            message: "A command that prompts the user failed because the host program or the command type does not support \
                      user interaction. The host was attempting to request confirmation with the following message: \
                      Are you sure you want to perform this action?"
                .to_owned(),
            reason: "HostException".to_owned(),
            fully_qualified_id: format!("HostFunctionNotImplemented,{cmdlet}"),
            category: category::NOT_SPECIFIED,
            target: String::new(),
        }
    }
}
