//! An organisation without ports, and an administrator who runs cmdlets in it.

use std::sync::Arc;

use causeway_mock_exchange::cmdlets::{self, Caller, Output, Via};
use causeway_mock_exchange::profile::Profile;
use causeway_mock_exchange::world::{
    Account, DeviceInformation, DeviceRequest, MailboxId, Organisation, PartnershipId,
};
use causeway_mock_exchange::{Config, world};
use causeway_mock_kit::Clock;
use causeway_mock_kit::world::Company;
use causeway_protocol::clixml::{Object, Value};
use causeway_protocol::cmdlet::{Cmdlet, ErrorRecord};

/// When the organisations of these tests begin: 2026-11-01 12:00 UTC.
pub(crate) const START_MS: i64 = 1_793_534_400_000;

/// The first person of every generated company.
pub(crate) const ALICE: &str = "asmith";

/// An organisation of 30 people without phones, on a clock that stands still.
pub(crate) fn organisation(personality: &str, change: impl FnOnce(&mut Config)) -> Arc<Organisation> {
    let mut config = Config::of(personality);
    config.common.users = 30;
    config.partnerships = Some(0);
    change(&mut config);
    let company = Arc::new(Company::generate(&config.common.company().unwrap()));
    let profile = Profile::named(&config.personality).unwrap();
    Arc::new(Organisation::build(&config, profile, company, Clock::stepped(START_MS)))
}

/// What came out of a cmdlet.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) objects: Vec<Object>,
    pub(crate) warnings: Vec<String>,
    pub(crate) errors: Vec<ErrorRecord>,
    pub(crate) failure: Option<ErrorRecord>,
}

impl Outcome {
    /// The objects of a cmdlet that went well.
    pub(crate) fn objects(self) -> Vec<Object> {
        assert!(self.failure.is_none() && self.errors.is_empty(), "{:?} {:?}", self.failure, self.errors);
        self.objects
    }

    /// One property of each object, as text.
    pub(crate) fn texts(self, property: &str) -> Vec<String> {
        let text = |object: &Object| object.text(property).unwrap_or_default().into_owned();
        self.objects().iter().map(text).collect()
    }

    /// The class of the exception that ended it.
    pub(crate) fn reason(&self) -> &str {
        &self.failure.as_ref().unwrap_or_else(|| panic!("it succeeded: {self:?}")).reason
    }
}

pub(crate) fn caller(organisation: &Organisation) -> Caller {
    let account = organisation.admit(organisation.service_login()).unwrap();
    Caller { account, via: Via::Remoting }
}

/// Runs a cmdlet as the service account. A prompt is not answered.
pub(crate) fn run(organisation: &Arc<Organisation>, cmdlet: &Cmdlet) -> Outcome {
    run_as(organisation, &caller(organisation), cmdlet)
}

pub(crate) fn run_as(organisation: &Arc<Organisation>, caller: &Caller, cmdlet: &Cmdlet) -> Outcome {
    let mut outcome = Outcome::default();
    for output in cmdlets::run(organisation, caller, cmdlet) {
        assert!(outcome.failure.is_none(), "nothing follows the error that ends a cmdlet: {output:?}");
        match output {
            Output::Object(object) => outcome.objects.push(object),
            Output::Warning(text) => outcome.warnings.push(text),
            Output::Error(error) => outcome.errors.push(error),
            Output::Failed(error) => outcome.failure = Some(error),
        }
    }
    outcome
}

/// A caller with these roles only.
pub(crate) fn with_roles(roles: &[&str]) -> Caller {
    let roles = roles.iter().map(|role| (*role).to_owned()).collect();
    Caller { account: Account { login: "helpdesk".to_owned(), mailbox: None, roles }, via: Via::Remoting }
}

pub(crate) fn cmdlet(name: &str) -> Cmdlet {
    Cmdlet::new(name)
}

/// `@{Add = ...}` or `@{Remove = ...}`
pub(crate) fn table(key: &str, ids: &[&str]) -> Value {
    let ids = ids.iter().map(|id| Value::from(*id)).collect();
    Value::hashtable(vec![(Value::from(key), Value::list(ids))])
}

/// A phone without a network: it says what it says straight to the organisation.
pub(crate) struct Phone {
    pub(crate) organisation: Arc<Organisation>,
    pub(crate) mailbox: MailboxId,
    pub(crate) id: String,
    pub(crate) version: u16,
    pub(crate) key: Option<u32>,
}

impl Phone {
    pub(crate) fn new(organisation: &Arc<Organisation>, user: &str, id: &str) -> Self {
        let mailbox = organisation.mailbox(user).unwrap();
        Self {
            organisation: Arc::clone(organisation),
            mailbox,
            id: id.to_owned(),
            version: 161,
            key: Some(0),
        }
    }

    pub(crate) fn command(&self, command: &str) -> world::Access {
        self.organisation.device_command(&DeviceRequest {
            mailbox: self.mailbox,
            device_id: &self.id,
            device_type: "iPhone",
            user_agent: "Apple-iPhone15C4/2206.79",
            version: self.version,
            policy_key: self.key,
            command,
        })
    }

    pub(crate) fn verdict(&self, command: &str) -> world::Verdict {
        self.command(command).verdict
    }

    /// Provisions and keeps the key.
    pub(crate) fn provision(&mut self) -> PartnershipId {
        let access = self.command("Provision");
        let id = access.partnership.unwrap_or_else(|| panic!("no partnership: {access:?}"));
        let information = DeviceInformation {
            model: Some("iPhone15,4".into()),
            os: Some("iOS 18.6".into()),
            ..DeviceInformation::default()
        };
        match self.organisation.provision(id, self.version, Some(information)) {
            world::Provision::Policy { key, .. } => {
                self.key = Some(self.organisation.provision_acknowledge(id, key, 1).unwrap());
            }
            other => panic!("no policy: {other:?}"),
        }
        id
    }

    pub(crate) fn guid(&self) -> String {
        let id = self.organisation.partnership(self.mailbox, &self.id).unwrap();
        self.organisation.read(None, |reader| world::guid_text(&reader.device(id).unwrap().device.guid))
    }

    /// State and reason as an administrator sees them.
    pub(crate) fn state(&self) -> (world::AccessState, world::AccessReason) {
        let id = self.organisation.partnership(self.mailbox, &self.id).unwrap();
        self.organisation.read(None, |reader| {
            let decision = reader.decide(&reader.device(id).unwrap());
            (decision.state, decision.reason)
        })
    }
}
