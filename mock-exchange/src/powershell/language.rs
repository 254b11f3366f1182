//! What a runspace without a language allows, and the words with which it refuses (about_Language_Modes).

use causeway_protocol::clixml::{self, Content, Object, Value};
use causeway_protocol::cmdlet::{Cmdlet, ErrorRecord};
use causeway_protocol::psrp::{Command, Defragmenter, Envelope, Message, Pipeline};
use causeway_protocol::wsman::Operation;

use crate::cmdlets::Question;

/// Methods of the client's host (MS-PSRP 2.2.3.17).
pub(super) const READ_LINE: i32 = 11;
pub(super) const PROMPT_FOR_CHOICE: i32 = 26;

/// Choices of a confirmation that mean yes, by their place.
pub(super) const YES: i32 = 0;
pub(super) const YES_TO_ALL: i32 = 1;

/// Numbers of `ErrorCategory` (MS-PSRP 2.2.3.9).
mod category {
    pub(super) const NOT_IMPLEMENTED: i32 = 11;
    pub(super) const OBJECT_NOT_FOUND: i32 = 13;
    pub(super) const OPERATION_STOPPED: i32 = 14;
    pub(super) const PARSER_ERROR: i32 = 17;
    pub(super) const INVALID_ARGUMENT: i32 = 5;
    pub(super) const RESOURCE_UNAVAILABLE: i32 = 21;
}

/// What fault rules and the journal call a command: never the text of a script, which may hold anything.
pub(super) fn subject(command: &Command) -> String {
    if command.is_script { "script".to_owned() } else { command.name.clone() }
}

/// The same for a request that begins a command: known if its first message is whole.
pub(super) fn subject_of(operation: &Operation) -> String {
    let mut input = Defragmenter::new();
    input.push(&operation.argument_bytes().unwrap_or_default());
    let message = input.next_message().ok().flatten();
    let envelope = message.and_then(|bytes| Envelope::read(&bytes, &mut clixml::Reader::new()).ok());
    match envelope.map(|envelope| envelope.message) {
        Some(Message::CreatePipeline(pipeline)) => pipeline.commands.first().map(subject).unwrap_or_default(),
        _ => String::new(),
    }
}

/// The one cmdlet a pipeline consists of.
pub(super) fn only_cmdlet(pipeline: &Pipeline) -> Result<Cmdlet, ErrorRecord> {
    let statements = std::iter::once(&pipeline.commands).chain(&pipeline.more_statements);
    let mut commands = statements.flatten();
    if commands.clone().any(|command| command.is_script) {
        return Err(scripts_refused());
    }
    let Some(first) = commands.next() else { return Err(scripts_refused()) };
    if let Some(second) = commands.next() {
        return Err(command_not_found(&second.name));
    }
    first.cmdlet().ok_or_else(|| positional(&first.name))
}

fn scripts_refused() -> ErrorRecord {
    ErrorRecord {
        message: "The syntax is not supported by this runspace. This can occur if the runspace is in no-language mode."
            .to_owned(),
        reason: "ParseException".to_owned(),
        fully_qualified_id: "ScriptsNotAllowed".to_owned(),
        category: category::PARSER_ERROR,
        target: String::new(),
    }
}

/// Select-Object and its like are not among what Exchange grants; a pipe into another cmdlet is not simulated.
pub(super) fn command_not_found(name: &str) -> ErrorRecord {
    ErrorRecord {
        message: format!(
            "The term '{name}' is not recognized as the name of a cmdlet, function, script file, or operable program. Check \
             the spelling of the name, or if a path was included, verify that the path is correct and try again."
        ),
        reason: "CommandNotFoundException".to_owned(),
        fully_qualified_id: "CommandNotFoundException".to_owned(),
        category: category::OBJECT_NOT_FOUND,
        target: name.to_owned(),
    }
}

fn positional(cmdlet: &str) -> ErrorRecord {
    ErrorRecord {
        message: "A positional parameter cannot be found that accepts the argument.".to_owned(),
        reason: "ParameterBindingException".to_owned(),
        fully_qualified_id: format!("PositionalParameterNotFound,{cmdlet}"),
        category: category::INVALID_ARGUMENT,
        target: cmdlet.to_owned(),
    }
}

/// Loads Exchange 2007's cmdlets into an ordinary session.
pub(super) fn add_snap_in(cmdlet: &Cmdlet) -> Result<(), ErrorRecord> {
    const SNAP_IN: &str = "Microsoft.Exchange.Management.PowerShell.Admin";
    let name = cmdlet.parameter("Name").and_then(Value::text).unwrap_or_default();
    if name.eq_ignore_ascii_case(SNAP_IN) {
        return Ok(());
    }
    Err(ErrorRecord {
        message: format!("The Windows PowerShell snap-in '{name}' is not installed on this computer."),
        reason: "PSArgumentException".to_owned(),
        fully_qualified_id: "AddPSSnapInRead,Microsoft.PowerShell.Commands.AddPSSnapinCommand".to_owned(),
        category: category::INVALID_ARGUMENT,
        target: name.into_owned(),
    })
}

pub(super) fn stopped() -> ErrorRecord {
    ErrorRecord {
        message: "The pipeline has been stopped.".to_owned(),
        reason: "PipelineStoppedException".to_owned(),
        fully_qualified_id: "PipelineStopped".to_owned(),
        category: category::OPERATION_STOPPED,
        target: String::new(),
    }
}

pub(super) fn broken() -> ErrorRecord {
    ErrorRecord {
        message: "The runspace pool is broken.".to_owned(),
        reason: "PSRemotingDataStructureException".to_owned(),
        fully_qualified_id: "RunspacePoolBroken".to_owned(),
        category: category::RESOURCE_UNAVAILABLE,
        target: String::new(),
    }
}

/// A question that nobody can answer.
pub(super) fn no_host(question: &str) -> ErrorRecord {
    ErrorRecord {
        message: format!(
            "A command that prompts the user failed because the host program or the command type does not support user \
             interaction. The host was attempting to request confirmation with the following message: {question}"
        ),
        reason: "HostException".to_owned(),
        fully_qualified_id: "HostFunctionNotImplemented".to_owned(),
        category: category::NOT_IMPLEMENTED,
        target: String::new(),
    }
}

/// The error of a pipeline that completes all the same.
pub(super) fn partial(reason: &str, message: &str) -> ErrorRecord {
    ErrorRecord {
        message: message.to_owned(),
        reason: reason.to_owned(),
        fully_qualified_id: format!("[FailureCategory=Cmdlet-{reason}] 5A5A5A5A"),
        category: category::RESOURCE_UNAVAILABLE,
        target: String::new(),
    }
}

/// The warning of a slowed pipeline, with the figures of the published sample.
pub(super) fn micro_delay(ms: u64) -> String {
    format!(
        "Micro delay applied. Actual delayed: {ms} msecs, Enforced: True, Capped delay: {ms} msecs, Required: False, \
         Additional info: ; PolicyDN: ; Snapshot: Owner: Sid~CAUSEWAY; BudgetType: PowerShell; ActiveRunspaces: 1/20; \
         Balance: -800000/2160000/-3000000; PowerShellCmdletsLeft: 397/400; ExchangeCmdletsLeft: 197/200; \
         CmdletTimePeriod: 5; DestructiveCmdletsLeft: 120/120; DestructiveCmdletTimePeriod: 60; QueueDepth: 100; \
         Locked: False; LockRemaining: 00:00:00"
    )
}

/// Arguments of PromptForChoice: caption, message, choices, default (MS-PSRP 2.2.6.2).
pub(super) fn confirmation(question: &Question) -> Value {
    let choices = question.choices.iter().map(|label| {
        let members = [("label", *label), ("helpMessage", "")];
        let extended = members.into_iter().map(|(name, text)| (name.into(), Value::from(text))).collect();
        Value::Object(Box::new(Object { extended, ..Object::default() }))
    });
    Value::list(vec![
        Value::from(question.caption.as_str()),
        Value::from(question.message.as_str()),
        Value::list(choices.collect()),
        Value::I32(question.default),
    ])
}

/// The choice in a host's answer.
pub(super) fn choice(value: &Value) -> Option<i32> {
    match value {
        Value::I32(choice) => Some(*choice),
        Value::Object(object) => match &object.content {
            Content::Primitive(value) => choice(value),
            _ => None,
        },
        _ => None,
    }
}

/// A document with entities of its own.
pub(super) const DOCTYPE: &str =
    "<!DOCTYPE Obj [<!ENTITY a \"aaaaaaaa\">]><Obj RefId=\"0\"><MS><S N=\"x\">&a;</S></MS></Obj>";

/// Objects inside each other, 1,000 deep: one answer holds them.
pub(super) fn deep() -> String {
    const DEPTH: usize = 1_000;
    let mut text = String::with_capacity(DEPTH * 40);
    for number in 0..DEPTH {
        text.push_str(&format!("<Obj RefId=\"{number}\" N=\"x\"><MS>"));
    }
    for _ in 0..DEPTH {
        text.push_str("</MS></Obj>");
    }
    text
}

/// Forty lists, each of which holds the one before it twice: 2^40 objects for a reader that unfolds references.
pub(super) fn laughs() -> String {
    let mut text = "<Obj RefId=\"0\"><LST><Obj RefId=\"1\"><LST><S>ha</S></LST></Obj>".to_owned();
    for number in 2..=40 {
        let before = number - 1;
        text.push_str(&format!(
            "<Obj RefId=\"{number}\"><LST><Ref RefId=\"{before}\"/><Ref RefId=\"{before}\"/></LST></Obj>"
        ));
    }
    text.push_str("</LST></Obj>");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_cmdlet_and_no_script() {
        let cmdlet = Cmdlet::new("Get-MobileDevice").with("ResultSize", "Unlimited");
        let pipeline = Pipeline::from(&cmdlet);
        assert_eq!(only_cmdlet(&pipeline).unwrap(), cmdlet);

        let mut script = pipeline.clone();
        script.commands[0].is_script = true;
        assert!(only_cmdlet(&script).unwrap_err().message.contains("no-language mode"));
        assert_eq!(subject(&script.commands[0]), "script");

        let mut piped = pipeline.clone();
        piped.commands.extend(Pipeline::from(&Cmdlet::new("Select-Object")).commands);
        assert_eq!(only_cmdlet(&piped).unwrap_err().target, "Select-Object");

        let mut second = pipeline;
        second.more_statements.push(Pipeline::from(&Cmdlet::new("Get-Date")).commands);
        assert_eq!(only_cmdlet(&second).unwrap_err().reason, "CommandNotFoundException");
    }
}
