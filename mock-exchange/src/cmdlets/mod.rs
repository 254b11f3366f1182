//! Cmdlets over the organisation, the same for every front end that carries them.
//!
//! [`run`] checks name, rights and parameters, charges the caller's budget, and gives a [`Running`], which makes objects
//! as they are taken: a list of 100,000 phones is never in memory at once.

mod binding;
mod device;
mod device_object;
mod errors;
mod filter;
mod identity;
mod mailbox;
mod object;
mod organisation;
mod policy;
mod rules;
mod table;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use causeway_protocol::clixml::Object;
use causeway_protocol::cmdlet::{Cmdlet, ErrorRecord};

use self::binding::Bound;
use self::errors::Task;
use self::table::Spec;
use crate::limits::OBJECTS_PER_TURN;
use crate::world::{Account, AuditEntry, Charge, Organisation, Reader};

/// Who runs a cmdlet, and over what.
#[derive(Clone, Debug)]
pub struct Caller {
    pub account: Account,
    pub via: Via,
}

/// What carries the cmdlet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via {
    /// The remoting endpoint of Exchange 2010 and later.
    Remoting,
    /// An ordinary PowerShell session with the management snap-in loaded; the front end allows `Add-PSSnapin` there.
    SnapIn,
    /// The REST front end of Exchange Online.
    Rest,
}

/// Something that comes out of a running cmdlet, in order.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    Object(Object),
    Warning(String),
    /// An error that does not end it.
    Error(ErrorRecord),
    /// The error that ended it; nothing follows.
    Failed(ErrorRecord),
}

/// A question to the person at the console; without an answer nothing is done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    pub caption: String,
    pub message: String,
    /// With the position of the default.
    pub choices: Vec<&'static str>,
    pub default: i32,
}

/// A cmdlet that runs. Take its outputs until there are none.
pub struct Running {
    organisation: Arc<Organisation>,
    account: String,
    /// The domain controller the caller named.
    controller: Option<usize>,
    delay: Duration,
    question: Option<Question>,
    start: Option<Box<dyn FnOnce() -> Result<Answer, ErrorRecord> + Send>>,
    /// What fails it when nobody can answer the question.
    unanswered: Option<ErrorRecord>,
    outputs: VecDeque<Output>,
    source: Option<Source>,
    objects: usize,
}

/// What a cmdlet's function gives back.
#[derive(Default)]
struct Answer {
    outputs: Vec<Output>,
    source: Option<Source>,
}

/// Makes further outputs with the world at hand; false when there will be no more.
type Source = Box<dyn FnMut(&Reader<'_>, &mut VecDeque<Output>) -> bool + Send>;

/// Starts a cmdlet. Errors of name, rights and parameters come out of the [`Running`] as [`Output::Failed`].
pub fn run(organisation: &Arc<Organisation>, caller: &Caller, cmdlet: &Cmdlet) -> Running {
    let mut running = Running {
        organisation: Arc::clone(organisation),
        account: caller.account.login.clone(),
        controller: None,
        delay: Duration::ZERO,
        question: None,
        start: None,
        unanswered: None,
        outputs: VecDeque::new(),
        source: None,
        objects: 0,
    };
    if let Err(error) = prepare(&mut running, organisation, caller, cmdlet) {
        running.outputs.push_back(Output::Failed(error));
    }
    running
}

/// Names of the cmdlets a caller sees, sorted: what `Get-Command` would show.
pub fn visible(organisation: &Organisation, caller: &Caller) -> Vec<&'static str> {
    let version = organisation.facts().profile.version;
    let mut names: Vec<_> = table::all()
        .filter(|spec| spec.exists_in(version) && organisation.grants(&caller.account, spec.name, None))
        .map(|spec| spec.name)
        .collect();
    names.sort_unstable();
    names
}

fn prepare(
    running: &mut Running,
    organisation: &Arc<Organisation>,
    caller: &Caller,
    cmdlet: &Cmdlet,
) -> Result<(), ErrorRecord> {
    let spec =
        table::find(organisation, caller, &cmdlet.name).ok_or_else(|| errors::no_command(&cmdlet.name))?;
    let bound = binding::bind(organisation, caller, spec, cmdlet)?;
    let task = Task::new(organisation, spec);
    match organisation.charge(&caller.account, spec.is_destructive()) {
        Charge::Granted { delay, warning } => {
            running.delay = delay;
            running.outputs.extend(warning.map(Output::Warning));
        }
        Charge::LockedOut { for_ms } => return Err(task.over_budget(&caller.account.login, for_ms)),
    }
    running.outputs.extend(spec.farewell(organisation.facts().profile.version).map(Output::Warning));
    let call = Call {
        organisation: Arc::clone(organisation),
        account: caller.account.clone(),
        spec,
        controller: bound.controller(organisation, &task)?,
        bound,
        task,
    };
    running.controller = call.controller;
    if call.bound.wants_confirmation(spec) {
        running.question = Some(call.question());
        running.unanswered = Some(call.task.not_interactive());
        running.start = Some(Box::new(move || call.perform()));
        return Ok(());
    }
    let answer = call.perform()?;
    running.adopt(answer);
    Ok(())
}

/// One cmdlet with everything it needs.
struct Call {
    organisation: Arc<Organisation>,
    account: Account,
    spec: &'static Spec,
    /// The domain controller the caller named.
    controller: Option<usize>,
    bound: Bound,
    task: Task,
}

impl Call {
    fn perform(self) -> Result<Answer, ErrorRecord> {
        if self.bound.is_on("WhatIf") && self.spec.writes() {
            return Ok(Answer::default());
        }
        let (organisation, spec) = (Arc::clone(&self.organisation), self.spec);
        let mut entry = spec.writes().then(|| self.audit_entry());
        let result = (spec.run)(self);
        if let Some(entry) = &mut entry {
            entry.succeeded = result.is_ok();
            organisation.audit(entry.clone());
        }
        result
    }

    fn audit_entry(&self) -> AuditEntry {
        AuditEntry {
            at_ms: self.organisation.clock().now_ms(),
            caller: self.account.login.clone(),
            cmdlet: self.spec.name.to_owned(),
            object: self.bound.text("Identity").or_else(|| self.bound.text("Name")).unwrap_or_default(),
            parameters: self.bound.described(),
            succeeded: false,
        }
    }

    fn question(&self) -> Question {
        let target = self.bound.text("Identity").unwrap_or_default();
        Question {
            caption: "Confirm".to_owned(),
            message: format!(
                "Are you sure you want to perform this action?\r\n{} \"{target}\".",
                self.spec.confirm_text()
            ),
            choices: vec!["&Yes", "Yes to &All", "&No", "No to A&ll"],
            default: 0,
        }
    }

    fn read<T>(&self, ask: impl FnOnce(&Reader<'_>) -> T) -> T {
        self.organisation.read(self.controller, ask)
    }
}

impl Running {
    /// How long the servers make it wait before anything comes out.
    pub fn delay(&self) -> Duration {
        self.delay
    }

    /// What it asks before it does anything, if it does. Whoever can ask a person answers with [`Running::answer`];
    /// otherwise it fails when its outputs are taken, as at a console nobody sits at.
    pub fn question(&self) -> Option<&Question> {
        self.question.as_ref()
    }

    /// Answers the question; with no it ends without doing anything.
    pub fn answer(&mut self, yes: bool) {
        self.question = None;
        self.unanswered = None;
        if let Some(start) = self.start.take()
            && yes
        {
            match start() {
                Ok(answer) => self.adopt(answer),
                Err(error) => self.outputs.push_back(Output::Failed(error)),
            }
        }
    }

    /// Whether anything but a warning follows; makes what follows, as far as it must.
    pub fn has_more(&mut self) -> bool {
        while !self.outputs.iter().any(|output| !matches!(output, Output::Warning(_)))
            && let Some(mut source) = self.source.take()
        {
            let more = self.organisation.read(self.controller, |reader| source(reader, &mut self.outputs));
            self.source = more.then_some(source);
        }
        self.outputs.iter().any(|output| !matches!(output, Output::Warning(_)))
    }

    fn adopt(&mut self, answer: Answer) {
        self.outputs.extend(answer.outputs);
        self.source = answer.source;
    }
}

impl Iterator for Running {
    type Item = Output;

    fn next(&mut self) -> Option<Output> {
        if self.start.take().is_some() {
            self.question = None;
            self.outputs.extend(self.unanswered.take().map(Output::Failed));
        }
        while self.outputs.is_empty()
            && let Some(mut source) = self.source.take()
        {
            let more = self.organisation.read(self.controller, |reader| source(reader, &mut self.outputs));
            self.source = more.then_some(source);
        }
        let output = self.outputs.pop_front();
        match &output {
            Some(Output::Object(_)) => self.objects += 1,
            None if self.objects > 0 => {
                self.organisation.charge_objects(&self.account, self.objects);
                self.objects = 0;
            }
            _ => {}
        }
        output
    }
}

/// Where a list ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Limit(Option<usize>);

/// Lists what `make` gives for the positions below `count`, a few at a time, up to a limit; beyond it a warning says that
/// there is more.
fn list(
    count: u32,
    limit: Limit,
    make: impl Fn(&Reader<'_>, u32) -> Option<Object> + Send + 'static,
) -> Source {
    let mut position = 0;
    let mut given = 0;
    Box::new(move |reader, outputs| {
        let mut made = 0;
        // Positions without an object count too, or a filter that fits nothing would hold the lock for the whole list.
        let turn_end = count.min(position + 16 * u32::try_from(OBJECTS_PER_TURN).unwrap_or(64));
        while position < turn_end && made < OBJECTS_PER_TURN {
            let object = make(reader, position);
            position += 1;
            let Some(object) = object else { continue };
            if let Some(limit) = limit.0.filter(|limit| given >= *limit) {
                outputs.push_back(Output::Warning(truncated(limit)));
                return false;
            }
            given += 1;
            made += 1;
            outputs.push_back(Output::Object(object));
        }
        position < count
    })
}

/// The words Exchange uses when a list is cut.
fn truncated(limit: usize) -> String {
    if limit == crate::limits::RESULT_SIZE_DEFAULT {
        return "By default, only the first 1000 items are returned. Use the ResultSize parameter to specify the number of \
                items returned. To return all items, specify \"-ResultSize Unlimited\". Be aware that, depending on the \
                actual number of items, returning all items can take a long time and consume a large amount of memory. \
                Also, we don't recommend storing the results in a variable. Instead, pipe the results to another task or \
                script to perform batch changes."
            .to_owned();
    }
    "There are more results available than are currently displayed. To view them, increase the value for the ResultSize \
     parameter."
        .to_owned()
}
