//! CREATE_PIPELINE (MS-PSRP 2.2.2.10): commands a client wants run.

use std::sync::Arc;

use super::records::{body, member};
use crate::clixml::{Content, ListKind, Object, Value};
use crate::cmdlet::Cmdlet;

/// The list type of commands and arguments.
const LIST_TYPES: [&str; 2] = [
    "System.Collections.Generic.List`1[[System.Management.Automation.PSObject, System.Management.Automation, \
     Version=1.0.0.0, Culture=neutral, PublicKeyToken=31bf3856ad364e35]]",
    "System.Object",
];

/// What a client wants run.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Pipeline {
    /// Each takes what the one before gives.
    pub commands: Vec<Command>,
    /// Further statements (`ExtraCmds`).
    pub more_statements: Vec<Vec<Command>>,
    /// Whether nothing will be sent as input.
    pub no_input: bool,
}

/// A command of a pipeline.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Command {
    /// A cmdlet's name, or the text of a script.
    pub name: String,
    /// Whether the name is a script. Exchange refuses those; ours are never.
    pub is_script: bool,
    /// In order.
    pub arguments: Vec<Argument>,
}

/// An argument of a command.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Argument {
    /// Without hyphen and colon; `None` for a positional one.
    pub name: Option<String>,
    /// A switch is true.
    pub value: Value,
}

impl From<&Cmdlet> for Pipeline {
    fn from(cmdlet: &Cmdlet) -> Self {
        let argument =
            |(name, value): &(String, Value)| Argument { name: Some(name.clone()), value: value.clone() };
        let command = Command {
            name: cmdlet.name.clone(),
            is_script: false,
            arguments: cmdlet.parameters.iter().map(argument).collect(),
        };
        Self { commands: vec![command], more_statements: Vec::new(), no_input: true }
    }
}

impl Command {
    /// The cmdlet this is: `None` for a script and when an argument has no name.
    pub fn cmdlet(&self) -> Option<Cmdlet> {
        if self.is_script {
            return None;
        }
        let named = |argument: &Argument| Some((argument.name.clone()?, argument.value.clone()));
        let parameters = self.arguments.iter().map(named).collect::<Option<_>>()?;
        Some(Cmdlet { name: self.name.clone(), parameters })
    }

    fn read(value: &Value) -> Option<Self> {
        let arguments = member(value, "Args").items().iter().map(Argument::read).collect();
        let name = member(value, "Cmd").text()?.into_owned();
        Some(Self { name, is_script: member(value, "IsScript").as_bool().unwrap_or(false), arguments })
    }

    /// What merges with what exists in all versions, the streams one by one since 2.2 and 2.3; an older server refuses
    /// what it does not know.
    fn write(&self, version: (u32, u32)) -> Value {
        let none =
            || Value::enumeration("System.Management.Automation.Runspaces.PipelineResultTypes", "None", 0);
        let mut members = vec![
            ("Cmd", self.name.as_str().into()),
            ("IsScript", self.is_script.into()),
            ("UseLocalScope", Value::Null),
            ("MergeMyResult", none()),
            ("MergeToResult", none()),
            ("MergePreviousResults", none()),
            ("Args", list(self.arguments.iter().map(Argument::write).collect())),
        ];
        if version >= (2, 2) {
            members.extend(
                ["MergeError", "MergeWarning", "MergeVerbose", "MergeDebug"].map(|name| (name, none())),
            );
        }
        if version >= (2, 3) {
            members.push(("MergeInformation", none()));
        }
        let extended = members.into_iter().map(|(name, value)| (Arc::from(name), value)).collect();
        Value::Object(Box::new(Object { extended, ..Object::default() }))
    }
}

impl Argument {
    fn read(value: &Value) -> Self {
        let name = member(value, "N").text().map(|name| {
            let name = name.strip_prefix('-').unwrap_or(&name);
            name.strip_suffix(':').unwrap_or(name).to_owned()
        });
        Self { name, value: member(value, "V").clone() }
    }

    fn write(&self) -> Value {
        let name = self.name.as_deref().map_or(Value::Null, Value::from);
        body([("N", name), ("V", self.value.clone())])
    }
}

impl Pipeline {
    /// From the message's body; `None` when there is no command in it.
    pub(super) fn read(value: &Value) -> Option<Self> {
        let shell = member(value, "PowerShell");
        let commands =
            |value: &Value| -> Option<Vec<_>> { value.items().iter().map(Command::read).collect() };
        let more = member(shell, "ExtraCmds").items();
        let pipeline = Self {
            commands: commands(member(shell, "Cmds"))?,
            more_statements: more.iter().map(|more| commands(member(more, "Cmds"))).collect::<Option<_>>()?,
            no_input: member(value, "NoInput").as_bool().unwrap_or(true),
        };
        if pipeline.commands.is_empty() { None } else { Some(pipeline) }
    }

    /// For a server of this protocol version.
    pub(super) fn write(&self, version: (u32, u32)) -> Value {
        let commands =
            |commands: &[Command]| list(commands.iter().map(|command| command.write(version)).collect());
        let extra = match self.more_statements.as_slice() {
            [] => Value::Null,
            more => list(more.iter().map(|more| body([("Cmds", commands(more))])).collect()),
        };
        let shell = body([
            ("IsNested", false.into()),
            ("ExtraCmds", extra),
            ("Cmds", commands(&self.commands)),
            ("History", Value::Null),
            ("RedirectShellErrorOutputPipe", false.into()),
        ]);
        let options = "System.Management.Automation.Runspaces.RemoteStreamOptions";
        body([
            ("NoInput", self.no_input.into()),
            ("ApartmentState", apartment_state()),
            // Nothing of where a record comes from: it says nothing and doubles the record.
            ("RemoteStreamOptions", Value::enumeration(options, "0", 0)),
            ("AddToHistory", false.into()),
            ("HostInfo", no_host()),
            ("PowerShell", shell),
            ("IsNested", false.into()),
        ])
    }
}

pub(super) fn apartment_state() -> Value {
    Value::enumeration("System.Management.Automation.Runspaces.ApartmentState", "UNKNOWN", 2)
}

/// Nobody is there to be asked (MS-PSRP 2.2.3.14).
pub(super) fn no_host() -> Value {
    body([
        ("_isHostNull", true.into()),
        ("_isHostUINull", true.into()),
        ("_isHostRawUINull", true.into()),
        ("_useRunspaceHost", true.into()),
    ])
}

fn list(values: Vec<Value>) -> Value {
    Value::Object(Box::new(Object {
        types: LIST_TYPES.map(str::to_owned).into(),
        content: Content::List(ListKind::List, values),
        ..Object::default()
    }))
}
