//! The organisation: pure state with its rules, no HTTP and no XML. Front ends ask it and tell it; what one changes the
//! others see.
//!
//! [`Organisation`] is shared and locks itself for one question or one change at a time. Phones use the methods of
//! `phones.rs`, cmdlets read through [`Reader`] and change through [`Writer`].

mod access;
mod accounts;
mod audit;
mod build;
mod device;
mod guid;
mod mail;
mod mailbox;
mod phones;
mod policy;
mod reader;
mod roles;
mod rules;
mod throttle;
mod verdict;
mod versioned;
mod wipe;
mod writer;

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use causeway_mock_kit::Clock;
use causeway_mock_kit::world::Company;
use tokio::sync::watch;

pub use access::{AccessReason, AccessState, Decision};
pub use accounts::{Account, SignInError};
pub use audit::AuditEntry;
pub use device::{
    Autoblock, ClientType, Contact, Device, DeviceInformation, PartnershipId, PolicyApplication,
};
pub use guid::{guid_text, parse_guid};
pub use mail::{FOLDERS, Folder, INBOX, Mark, Message, SyncError, SyncPage};
pub use mailbox::{CasSettings, MailboxId};
pub use policy::{Policy, PolicyId, PolicyValue, SETTINGS, Setting, SettingKind, parse_span, span_text};
pub use reader::{DeviceView, MailboxView, Reader};
pub use roles::Role;
pub use rules::{AccessRule, AutoblockThreshold, Characteristic, OrganisationSettings};
pub use throttle::{BudgetView, Charge, SessionRefusal, ThrottlingPolicy};
pub use verdict::{Access, DeviceRequest, KeyMismatch, Provision, ProvisionNeed, Verdict};
pub use versioned::Controllers;
pub use wipe::{CancelError, Wipe, WipeKind};
pub use writer::{Refusal, Writer};

use crate::config::Replication;
use crate::profile::Profile;

/// What never changes while the world lives.
#[derive(Debug)]
pub struct Facts {
    pub profile: &'static Profile,
    /// DNS domain, `acme.example`.
    pub domain: String,
    pub netbios: String,
    /// Name of the organisation, `Acme`.
    pub name: String,
    pub base_dn: String,
    pub seed: u64,
    /// Tenant of Exchange Online, lower case with hyphens.
    pub tenant: String,
    /// The organisation object's id.
    pub guid: [u8; 16],
    /// Client id of the application that uses the REST front end.
    pub client_id: String,
    /// Roles of that application.
    pub app_roles: Vec<String>,
    pub discovery_ms: i64,
    /// Messages in an inbox at the start.
    pub messages: usize,
    /// Whether Get-MobileDevice takes an identity nobody has for none, as its documentation warns.
    pub unknown_identity_returns_all: bool,
}

/// One mailbox database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Database {
    pub name: String,
    /// Short name of its server.
    pub server: String,
    pub guid: [u8; 16],
}

/// One Exchange organisation.
pub struct Organisation {
    facts: Facts,
    company: Arc<Company>,
    databases: Vec<Database>,
    servers: Vec<String>,
    service_login: String,
    clock: Clock,
    state: RwLock<State>,
    changed: watch::Sender<u64>,
}

/// Everything that changes.
pub(crate) struct State {
    controllers: Controllers,
    mailboxes: Vec<mailbox::Mailbox>,
    partnerships: Vec<Option<Box<device::Partnership>>>,
    by_guid: HashMap<[u8; 16], PartnershipId>,
    policies: Vec<versioned::Versioned<Policy>>,
    rules: Vec<versioned::Versioned<AccessRule>>,
    settings: versioned::Versioned<OrganisationSettings>,
    thresholds: Vec<AutoblockThreshold>,
    accounts: accounts::Accounts,
    roles: Vec<Role>,
    budgets: throttle::Budgets,
    audit: audit::Audit,
    mail: mail::Mail,
    /// Recent commands of phones that a threshold watches.
    behaviour: HashMap<PartnershipId, std::collections::VecDeque<i64>>,
    /// Counts policy keys and identifiers made since the start.
    made: u64,
}

impl Organisation {
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    pub fn company(&self) -> &Arc<Company> {
        &self.company
    }

    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    pub fn databases(&self) -> &[Database] {
        &self.databases
    }

    /// Short names of the mailbox servers.
    pub fn servers(&self) -> &[String] {
        &self.servers
    }

    /// Short login of the account the agent uses.
    pub fn service_login(&self) -> &str {
        &self.service_login
    }

    /// Changes whenever anything in the organisation does; a Ping waits on it.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Asks several things at one moment, of one domain controller (`None`: the one that answers questions).
    pub fn read<T>(&self, controller: Option<usize>, ask: impl FnOnce(&Reader<'_>) -> T) -> T {
        let state = self.state();
        let controller = controller.unwrap_or_else(|| state.controllers.reader());
        ask(&Reader::new(self, &state, controller))
    }

    /// Changes several things at one moment, on one domain controller (`None`: the one changes are made on).
    pub fn write<T>(&self, controller: Option<usize>, change: impl FnOnce(&mut Writer<'_>) -> T) -> T {
        let mut state = self.state_mut();
        let controller = controller.unwrap_or_else(|| state.controllers.writer());
        let result = change(&mut Writer::new(self, &mut state, controller));
        drop(state);
        self.tell();
        result
    }

    /// Index of a domain controller by short or full name.
    pub fn controller(&self, name: &str) -> Option<usize> {
        self.state().controllers.find(name)
    }

    /// Full names of the domain controllers.
    pub fn controllers(&self) -> Vec<String> {
        self.state().controllers.names().map(|name| format!("{name}.{}", self.facts.domain)).collect()
    }

    /// Sets how long changes take to reach a controller. False when there is none of that name.
    pub fn set_replication(&self, controller: &str, replication: Replication) -> bool {
        self.state_mut().controllers.set_replication(controller, replication)
    }

    /// Delivers every change to every controller now.
    pub fn replicate(&self) {
        self.state_mut().controllers.push();
        self.tell();
    }

    /// Signs in with a password, as Basic does.
    ///
    /// # Errors
    /// [`SignInError`]; a wrong password counts towards locking the account.
    pub fn sign_in(&self, user: &str, password: &str) -> Result<Account, SignInError> {
        let mut state = self.state_mut();
        let Some(expected) = state.accounts.password(&self.company, user) else {
            return Err(SignInError::UnknownUser);
        };
        if password.is_empty() || expected != password {
            state.accounts.failed(&self.company, user);
            return Err(SignInError::BadPassword);
        }
        state.accounts.admit(&self.company, user)
    }

    /// The password of the one account this name means, for schemes that prove it without showing it.
    pub fn password_of(&self, user: &str) -> Option<String> {
        self.state().accounts.password(&self.company, user)
    }

    /// Signs in somebody who has proven the password.
    ///
    /// # Errors
    /// [`SignInError`] for an account that may not sign in all the same.
    pub fn admit(&self, user: &str) -> Result<Account, SignInError> {
        self.state_mut().accounts.admit(&self.company, user)
    }

    /// Whether an account may sign in, its password apart.
    ///
    /// # Errors
    /// [`SignInError`].
    pub fn may_sign_in(&self, user: &str) -> Result<Account, SignInError> {
        self.state().accounts.judge(&self.company, user)
    }

    /// Counts a wrong proof of a password.
    pub fn failed_sign_in(&self, user: &str) {
        self.state_mut().accounts.failed(&self.company, user);
    }

    /// Wrong passwords of an account in a row.
    pub fn bad_passwords(&self, user: &str) -> u32 {
        self.state().accounts.bad_passwords(&self.company, user)
    }

    /// The application that uses the REST front end.
    pub fn app(&self) -> Account {
        Account { login: self.facts.client_id.clone(), mailbox: None, roles: self.facts.app_roles.clone() }
    }

    /// The mailbox of a login, UPN, address or `DOMAIN\login`.
    pub fn mailbox(&self, user: &str) -> Option<MailboxId> {
        self.state().accounts.person(user).map(MailboxId)
    }

    /// Gives an account another password. False when there is no such account.
    pub fn set_password(&self, user: &str, password: &str) -> bool {
        self.state_mut().accounts.set_password(&self.company, user, password)
    }

    /// Refuses an account whatever its password, or admits it again.
    pub fn set_refused(&self, user: &str, refused: Option<SignInError>) -> bool {
        self.state_mut().accounts.set_refused(&self.company, user, refused)
    }

    /// Gives an account that is not a person's other roles.
    pub fn set_roles(&self, login: &str, roles: Vec<String>) -> bool {
        self.state_mut().accounts.set_roles(login, roles)
    }

    /// Adds a role, or replaces the one of its name.
    pub fn put_role(&self, role: Role) {
        let mut state = self.state_mut();
        state.roles.retain(|known| !known.name.eq_ignore_ascii_case(&role.name));
        state.roles.push(role);
    }

    /// Names of the roles that fit.
    pub fn role_names(&self, fits: impl Fn(&Role) -> bool) -> Vec<String> {
        self.state().roles.iter().filter(|role| fits(role)).map(|role| role.name.clone()).collect()
    }

    /// The present roles of an account: a session sees what an administrator has changed meanwhile.
    pub fn roles_of(&self, account: &Account) -> Vec<String> {
        self.state().accounts.roles(&account.login).unwrap_or_else(|| account.roles.clone())
    }

    /// Whether an account sees a cmdlet, and a parameter of it.
    pub fn grants(&self, account: &Account, cmdlet: &str, parameter: Option<&str>) -> bool {
        let state = self.state();
        let own;
        let names = match state.accounts.roles(&account.login) {
            Some(roles) => {
                own = roles;
                &own
            }
            None => &account.roles,
        };
        state
            .roles
            .iter()
            .filter(|role| names.iter().any(|name| name.eq_ignore_ascii_case(&role.name)))
            .any(|role| role.grants(cmdlet, parameter))
    }

    /// Opens a session of an account, counted until the permit is dropped.
    ///
    /// # Errors
    /// [`SessionRefusal`] when the throttling policy forbids another one now.
    pub fn open_session(self: &Arc<Self>, account: &Account) -> Result<SessionPermit, SessionRefusal> {
        let now_ms = self.clock.now_ms();
        self.state_mut().budgets.open(&account.login, now_ms)?;
        Ok(SessionPermit { organisation: Arc::clone(self), account: account.login.clone() })
    }

    /// Charges an account for starting a cmdlet.
    pub fn charge(&self, account: &Account, destructive: bool) -> Charge {
        let now_ms = self.clock.now_ms();
        self.state_mut().budgets.start(&account.login, destructive, now_ms)
    }

    pub(crate) fn charge_objects(&self, account: &str, objects: usize) {
        let now_ms = self.clock.now_ms();
        self.state_mut().budgets.spend_objects(account, objects, now_ms);
    }

    /// Counts a REST request of an account; an error says when to come back.
    ///
    /// # Errors
    /// How long to wait.
    pub fn charge_request(&self, account: &Account) -> Result<(), Duration> {
        let now_ms = self.clock.now_ms();
        self.state_mut().budgets.request(&account.login, now_ms)
    }

    /// The throttling policy in force.
    pub fn throttling(&self) -> ThrottlingPolicy {
        self.state().budgets.policy.clone()
    }

    /// Puts another throttling policy in force; balances stay.
    pub fn set_throttling(&self, policy: ThrottlingPolicy) {
        self.state_mut().budgets.policy = policy;
    }

    /// The budgets of every account that has used something.
    pub fn budgets(&self) -> Vec<BudgetView> {
        let now_ms = self.clock.now_ms();
        self.state_mut().budgets.views(now_ms)
    }

    /// Remembers a change for the audit log.
    pub fn audit(&self, entry: AuditEntry) {
        self.state_mut().audit.add(entry);
    }

    /// The audit log, oldest first.
    pub fn audit_log(&self) -> Vec<AuditEntry> {
        self.state().audit.entries()
    }

    fn tell(&self) {
        self.changed.send_modify(|version| *version += 1);
    }

    fn state(&self) -> RwLockReadGuard<'_, State> {
        // Every change leaves the state consistent even if a later step of it panicked.
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn state_mut(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A session that counts against `MaxConcurrency` until this is dropped.
pub struct SessionPermit {
    organisation: Arc<Organisation>,
    account: String,
}

impl Drop for SessionPermit {
    fn drop(&mut self) {
        self.organisation.state_mut().budgets.close(&self.account);
    }
}
