//! Refusals in the words of WinRM and Exchange. Codes and words are those seen in published reports and captures; where
//! only the words are known, the code is a setting or there is no detail at all.

use causeway_protocol::wsman::{Fault, FaultCode};

use crate::world::{SessionRefusal, ThrottlingPolicy};

/// `ERROR_ACCESS_DENIED`.
const ACCESS_DENIED: u32 = 5;
/// `ERROR_INVALID_PARAMETER`.
const INVALID_PARAMETER: u32 = 87;
/// The resource is not in the catalog.
const NO_SUCH_RESOURCE: u32 = 2_150_858_811;
/// The action is none.
const NO_SUCH_ACTION: u32 = 2_150_858_753;

/// Where an Exchange front end says it came from, before its own words.
pub(super) struct Origin {
    pub(super) server: String,
    pub(super) request_id: String,
    pub(super) time: String,
}

impl Origin {
    fn prefix(&self, category: &str) -> String {
        let Self { server, request_id, time } = self;
        let host = server.split('.').next().unwrap_or(server).to_ascii_uppercase();
        format!(
            "[ClientAccessServer={host},BackEndServer={server},RequestId={request_id},TimeStamp={time}] \
             [FailureCategory={category}] "
        )
    }
}

fn fault(sender: bool, subcode: &str, code: Option<u32>, reason: &str) -> Fault {
    Fault { sender, subcode: subcode.to_owned(), reason: reason.to_owned(), code, detail: String::new() }
}

pub(super) fn timed_out() -> Fault {
    let reason = "The WS-Management service cannot complete the operation within the time specified in OperationTimeout.  ";
    fault(false, "TimedOut", Some(FaultCode::OPERATION_TIMED_OUT.0), reason)
}

pub(super) fn shell_not_found(origin: Option<&Origin>, shell_id: &str) -> Fault {
    let reason = format!(
        "{}The request for the Windows Remote Shell with ShellId {shell_id} failed because the shell was not found on the \
         server. Possible causes are: the specified ShellId is incorrect or the shell no longer exists on the server. \
         Provide the correct ShellId or create a new shell and retry the operation.",
        origin.map(|origin| origin.prefix("WSMan-InvalidShellID")).unwrap_or_default()
    );
    fault(true, "InvalidSelectors", Some(FaultCode::SHELL_NOT_FOUND.0), &reason)
}

pub(super) fn access_denied() -> Fault {
    fault(true, "AccessDenied", Some(ACCESS_DENIED), "Access is denied.")
}

/// The account has no role at all.
pub(super) fn no_roles(origin: &Origin, who: &str) -> Fault {
    let prefix = origin.prefix("AuthZ-CmdletAccessDeniedException");
    let reason = format!("{prefix}The user \"{who}\" isn't assigned to any management roles.");
    fault(true, "AccessDenied", Some(ACCESS_DENIED), &reason)
}

/// What was seen of this refusal has no detail.
pub(super) fn too_many_commands() -> Fault {
    let reason = "The WS-Management service cannot process the request. The maximum number of concurrent commands per shell has \
                  been exceeded. Retry the request later or raise the Maximum Commands per Shell quota.";
    fault(false, "InternalError", None, reason)
}

pub(super) fn no_such_resource(uri: &str) -> Fault {
    let reason = format!(
        "The WS-Management service cannot process the request. The resource URI ({uri}) was not found in the WS-Management \
         catalog. The catalog contains the metadata that describes resources, or logical endpoints."
    );
    fault(true, "DestinationUnreachable", Some(NO_SUCH_RESOURCE), &reason)
}

pub(super) fn no_such_action() -> Fault {
    let reason = "The WS-Management service cannot process the request because the action is not supported.";
    fault(true, "ActionNotSupported", Some(NO_SUCH_ACTION), reason)
}

/// A request that says something nobody can act on.
pub(super) fn invalid_parameter(what: &str) -> Fault {
    Fault {
        detail: format!("The parameter is incorrect. {what}"),
        ..fault(true, "InvalidParameter", Some(INVALID_PARAMETER), "The parameter is incorrect. ")
    }
}

/// The number of this refusal is not known; the words are.
pub(super) fn no_such_command() -> Fault {
    invalid_parameter(
        "The Windows Remote Shell received a request to perform an operation on a command identifier that does not exist. \
         Either the command has completed execution or the client specified an invalid command identifier.",
    )
}

/// An envelope that could not be read.
pub(super) fn unreadable(error: &causeway_protocol::wsman::SoapError) -> Fault {
    use causeway_protocol::wsman::SoapError;
    let text = causeway_words(error);
    match error {
        SoapError::NotUnderstood { .. } => fault(true, "", None, &text),
        _ => fault(true, "SchemaValidationError", None, &text),
    }
}

fn causeway_words(error: &dyn std::error::Error) -> String {
    let source = error.source().map(|source| format!(": {source}")).unwrap_or_default();
    format!(
        "The WS-Management service cannot process the request. The request is not valid: {error}{source}."
    )
}

pub(super) fn broken_pool() -> Fault {
    fault(false, "InternalError", None, "The runspace pool is broken and cannot run commands.")
}

pub(super) fn of_code(code: u32, words: &str) -> Fault {
    fault(false, "InternalError", Some(code), words)
}

pub(super) fn without_detail(words: &str) -> Fault {
    fault(false, "InternalError", None, words)
}

/// Exchange 2010 leaves it to WinRM to refuse; later versions have words of their own, with the account's budget.
pub(super) fn refused_session(
    refusal: &SessionRefusal,
    policy: &ThrottlingPolicy,
    words: &RefusalWords<'_>,
) -> Fault {
    let part = refusal.part();
    let limit = match refusal {
        SessionRefusal::Concurrency { limit } | SessionRefusal::Runspaces { limit, .. } => *limit,
        SessionRefusal::LockedOut { .. } => policy.max_concurrency,
    };
    if words.winrm && matches!(refusal, SessionRefusal::Concurrency { .. }) {
        let reason = format!(
            "The WS-Management service cannot process the request. This user is allowed a maximum number of {limit} concurrent \
             shells, which has been exceeded. Close existing shells or raise the quota for this user."
        );
        return fault(true, "QuotaLimit", Some(FaultCode::QUOTA_MAX_SHELLS.0), &reason);
    }
    let locked_ms = match refusal {
        SessionRefusal::LockedOut { for_ms } => *for_ms,
        _ => 0,
    };
    let advice = match locked_ms {
        0 => "Please close existing runspace and try again.".to_owned(),
        ms => format!("Please wait for {} seconds and try again.", ms.div_euclid(1_000) + 1),
    };
    let reason = format!(
        "[AuthZRequestId={}][FailureCategory=AuthZ-AuthorizationException] Fail to create a runspace because you have \
         exceeded the maximum number of connections allowed : {limit} for the policy party : {part}. {advice}\n\
         Policy: {}; \nSnapshot: Owner:\tSid~{}~WSMan~false\nBudgetType:\tWSMan\nActiveRunspaces:\t{limit}/{}\n\
         Locked:\t{}\nLockRemaining:\t{:02}:{:02}:{:02}",
        words.request_id,
        words.policy_dn,
        words.account,
        policy.max_concurrency,
        if locked_ms > 0 { "True" } else { "False" },
        locked_ms / 3_600_000,
        locked_ms / 60_000 % 60,
        locked_ms / 1_000 % 60,
    );
    fault(false, "InternalError", Some(words.code), &reason)
}

/// What a refused session is told besides why.
pub(super) struct RefusalWords<'a> {
    /// The words of WinRM rather than those of Exchange.
    pub(super) winrm: bool,
    pub(super) request_id: &'a str,
    pub(super) policy_dn: &'a str,
    pub(super) account: &'a str,
    pub(super) code: u32,
}
