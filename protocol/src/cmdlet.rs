//! A cmdlet and what came of it, whatever carries it: PowerShell remoting or Exchange Online's REST.

use std::collections::BTreeMap;

use crate::clixml::{Object, Value};

/// A command with named parameters. Never a script: names and values travel apart, so nothing in a value is code.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Cmdlet {
    /// `Verb-Noun`.
    pub name: String,
    /// Parameters by name, without the hyphen; a switch is [`Value::Bool`].
    pub parameters: Vec<(String, Value)>,
}

impl Cmdlet {
    /// Without parameters.
    pub fn new(name: &str) -> Self {
        Self { name: name.to_owned(), parameters: Vec::new() }
    }

    /// With one more parameter.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.parameters.push((name.to_owned(), value.into()));
        self
    }

    /// A parameter by name, whatever the case.
    pub fn parameter(&self, name: &str) -> Option<&Value> {
        self.parameters.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }
}

/// An error record (MS-PSRP 2.2.3.15), in the parts a program may rely on.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct ErrorRecord {
    /// For people, in the server's language; never matched against.
    pub message: String,
    /// The .NET class of the exception without its namespace, for example `ManagementObjectNotFoundException`.
    pub reason: String,
    /// `[Server=...] [FailureCategory=Cmdlet-...] hash,task`.
    pub fully_qualified_id: String,
    /// `ErrorCategory` as its number (MS-PSRP 2.2.3.9).
    pub category: i32,
    /// What the error is about, as text.
    pub target: String,
}

impl ErrorRecord {
    /// The word after `FailureCategory=Cmdlet-`, if the identifier has one.
    pub fn failure_category(&self) -> Option<&str> {
        let (_, rest) = self.fully_qualified_id.split_once("[FailureCategory=")?;
        let word = rest.split([']', ' ']).next()?;
        Some(word.strip_prefix("Cmdlet-").unwrap_or(word))
    }
}

/// How a pipeline ended, besides its objects.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Completed {
    /// Errors that did not end it: with any of these the result is partial.
    pub errors: Vec<ErrorRecord>,
    /// Warnings, throttling notes among them.
    pub warnings: Vec<String>,
    /// The error that ended it before its end.
    pub failure: Option<ErrorRecord>,
}

/// Properties remoting adds to every object; they differ with every session and say nothing about the object.
pub const REMOTING_PROPERTIES: [&str; 3] = ["PSComputerName", "RunspaceId", "PSShowComputerName"];

/// The properties of an object as text, without those remoting adds: what two scans compare.
pub fn properties(object: &Object) -> BTreeMap<String, String> {
    let members = object.adapted.iter().chain(&object.extended);
    let mut properties = BTreeMap::new();
    for (name, value) in members {
        if !REMOTING_PROPERTIES.iter().any(|added| added.eq_ignore_ascii_case(name))
            && let Some(text) = value.text()
        {
            properties.entry(name.to_string()).or_insert_with(|| text.into_owned());
        }
    }
    properties
}
