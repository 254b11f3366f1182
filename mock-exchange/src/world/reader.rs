//! What one domain controller, and the mailboxes, know at one moment.

use std::sync::Arc;

use causeway_mock_kit::world::Person;

use super::access::{Case, Decision, decide};
use super::device::{Contact, Device, PartnershipId};
use super::mailbox::{CasSettings, MailboxId};
use super::policy::{Policy, PolicyId};
use super::rules::{AccessRule, AutoblockThreshold, OrganisationSettings};
use super::versioned::View;
use super::{Database, Facts, Organisation, State};

/// See [`Organisation::read`].
pub struct Reader<'a> {
    organisation: &'a Organisation,
    state: &'a State,
    view: View<'a>,
    controller: usize,
    rules: Vec<&'a AccessRule>,
    now_ms: i64,
}

/// A mailbox with its owner.
#[derive(Clone, Copy)]
pub struct MailboxView<'a> {
    pub id: MailboxId,
    pub person: &'a Person,
    pub cas: &'a CasSettings,
    pub database: &'a Database,
    pub partnerships: &'a [PartnershipId],
    pub moved_to: Option<&'a str>,
}

/// A phone in a mailbox.
#[derive(Clone, Copy)]
pub struct DeviceView<'a> {
    pub id: PartnershipId,
    pub device: &'a Device,
    pub contact: &'a Contact,
}

impl<'a> Reader<'a> {
    pub(super) fn new(organisation: &'a Organisation, state: &'a State, controller: usize) -> Self {
        let now_ms = organisation.clock.now_ms();
        let view = state.controllers.view(controller, now_ms);
        let rules = state.rules.iter().filter_map(|rule| rule.seen(view)).collect();
        Self { organisation, state, view, controller, rules, now_ms }
    }

    pub fn now_ms(&self) -> i64 {
        self.now_ms
    }

    pub fn facts(&self) -> &'a Facts {
        &self.organisation.facts
    }

    /// Full name of the controller that answers.
    pub fn controller_name(&self) -> String {
        let name = self.state.controllers.names().nth(self.controller).unwrap_or("dc1");
        format!("{name}.{}", self.organisation.facts.domain)
    }

    /// Mailboxes there are; every id below this exists.
    pub fn mailbox_count(&self) -> u32 {
        u32::try_from(self.state.mailboxes.len()).unwrap_or(u32::MAX)
    }

    /// The mailbox at a position.
    pub fn mailbox_at(&self, position: u32) -> Option<MailboxView<'a>> {
        self.mailbox(MailboxId(position))
    }

    pub fn mailbox(&self, id: MailboxId) -> Option<MailboxView<'a>> {
        let mailbox = self.state.mailboxes.get(id.0 as usize)?;
        Some(MailboxView {
            id,
            person: self.organisation.company.people.get(id.0 as usize)?,
            cas: mailbox.cas.seen(self.view)?,
            database: self.organisation.databases.get(usize::from(mailbox.database))?,
            partnerships: &mailbox.partnerships,
            moved_to: mailbox.moved_to.as_deref(),
        })
    }

    /// The mailbox of a login, UPN, address or `DOMAIN\login`.
    pub fn mailbox_named(&self, name: &str) -> Option<MailboxView<'a>> {
        self.mailbox(MailboxId(self.state.accounts.person(name)?))
    }

    /// Positions of partnerships, those of removed ones included; see [`Reader::device_at`].
    pub fn device_slots(&self) -> u32 {
        u32::try_from(self.state.partnerships.len()).unwrap_or(u32::MAX)
    }

    /// The partnership at a position, unless it is gone.
    pub fn device_at(&self, position: u32) -> Option<DeviceView<'a>> {
        self.device(PartnershipId(position))
    }

    pub fn device(&self, id: PartnershipId) -> Option<DeviceView<'a>> {
        let partnership = self.state.partnerships.get(id.0 as usize)?.as_deref()?;
        Some(DeviceView { id, device: partnership.device.seen(self.view)?, contact: &partnership.contact })
    }

    pub fn device_by_guid(&self, guid: &[u8; 16]) -> Option<DeviceView<'a>> {
        self.device(*self.state.by_guid.get(guid)?)
    }

    /// The phones of a mailbox.
    pub fn devices_of(&self, mailbox: MailboxId) -> impl Iterator<Item = DeviceView<'a>> {
        let ids =
            self.state.mailboxes.get(mailbox.0 as usize).map_or(&[][..], |mailbox| &mailbox.partnerships);
        ids.iter().filter_map(|id| self.device(*id))
    }

    pub fn policies(&self) -> impl Iterator<Item = (PolicyId, &'a Policy)> {
        let view = self.view;
        self.state
            .policies
            .iter()
            .enumerate()
            .filter_map(move |(at, policy)| Some((PolicyId(u32::try_from(at).ok()?), policy.seen(view)?)))
    }

    pub fn policy(&self, id: PolicyId) -> Option<&'a Policy> {
        self.state.policies.get(id.0 as usize)?.seen(self.view)
    }

    /// The policy of a mailbox: its own, else the default one.
    pub fn policy_of(&self, cas: &CasSettings) -> Option<(PolicyId, &'a Policy)> {
        let own = cas.policy.and_then(|id| Some((id, self.policy(id)?)));
        own.or_else(|| self.policies().find(|(_, policy)| policy.is_default))
    }

    pub fn rules(&self) -> &[&'a AccessRule] {
        &self.rules
    }

    pub fn settings(&self) -> OrganisationSettings {
        self.state.settings.seen(self.view).cloned().unwrap_or_default()
    }

    pub fn thresholds(&self) -> &'a [AutoblockThreshold] {
        &self.state.thresholds
    }

    /// Whether a phone gets mail, as this controller knows it.
    pub fn decide(&self, device: &DeviceView<'_>) -> Decision {
        let Some(mailbox) = self.state.mailboxes.get(device.device.mailbox.0 as usize) else {
            return Decision {
                state: super::AccessState::Unknown,
                reason: super::AccessReason::Unknown,
                rule: None,
            };
        };
        let settings = self.state.settings.seen(self.view);
        let (empty_cas, empty_settings) = (CasSettings::default(), OrganisationSettings::default());
        let cas = mailbox.cas.seen(self.view).unwrap_or(&empty_cas);
        decide(&Case {
            device: device.device,
            application: device.contact.application,
            mailbox: cas,
            policy: self.policy_of(cas).map(|(_, policy)| policy),
            rules: &self.rules,
            settings: settings.unwrap_or(&empty_settings),
            quarantine_exists: self.organisation.facts.profile.quarantine,
            discovery_ms: self.organisation.facts.discovery_ms,
            now_ms: self.now_ms,
        })
    }

    /// Login and roles of the accounts that are not people.
    pub fn administrators(&self) -> Vec<(String, Vec<String>)> {
        self.state.accounts.administrators()
    }

    /// Names of policies in force on a phone.
    pub fn applied_policy(&self, contact: &Contact) -> Option<Arc<str>> {
        let (id, _) = contact.applied?;
        self.policy(PolicyId(id)).map(|policy| Arc::clone(&policy.name))
    }
}
