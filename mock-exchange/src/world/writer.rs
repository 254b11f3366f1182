//! Changes, made on one domain controller at one moment.

use super::device::{Device, PartnershipId};
use super::mailbox::{CasSettings, MailboxId};
use super::policy::{Policy, PolicyId};
use super::rules::{AccessRule, AutoblockThreshold, Characteristic, OrganisationSettings};
use super::versioned::{Stamp, Versioned};
use super::wipe::{CancelError, Wipe, WipeKind};
use super::{Organisation, State};
use crate::config::DefaultAccess;
use crate::limits::{ACCESS_RULES_MAX, POLICIES_MAX};

/// See [`Organisation::write`].
pub struct Writer<'a> {
    organisation: &'a Organisation,
    state: &'a mut State,
    controller: usize,
    now_ms: i64,
}

/// Why an object is not made or removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    NameTaken,
    /// The organisation has as many as it can.
    TooMany,
    Gone,
    /// Mailboxes have this policy, or it is the default one.
    InUse,
}

impl<'a> Writer<'a> {
    pub(super) fn new(organisation: &'a Organisation, state: &'a mut State, controller: usize) -> Self {
        let now_ms = organisation.clock.now_ms();
        Self { organisation, state, controller, now_ms }
    }

    pub fn now_ms(&self) -> i64 {
        self.now_ms
    }

    fn stamp(&mut self) -> Stamp {
        self.state.controllers.stamp(self.now_ms, self.controller)
    }

    /// Changes what client access knows of a mailbox. False when there is none.
    pub fn change_cas(&mut self, mailbox: MailboxId, change: impl FnOnce(&mut CasSettings)) -> bool {
        let stamp = self.stamp();
        let now_ms = self.now_ms;
        let State { controllers, mailboxes, .. } = &mut *self.state;
        let Some(mailbox) = mailboxes.get_mut(mailbox.0 as usize) else { return false };
        mailbox.cas.change(controllers, stamp, |cas| {
            let before = cas.clone();
            change(cas);
            if *cas != before {
                cas.changed_ms = now_ms;
            }
        })
    }

    pub fn change_settings(&mut self, change: impl FnOnce(&mut OrganisationSettings)) {
        let stamp = self.stamp();
        let now_ms = self.now_ms;
        let State { controllers, settings, .. } = &mut *self.state;
        settings.change(controllers, stamp, |settings| {
            change(settings);
            settings.changed_ms = now_ms;
        });
    }

    /// Makes a policy from a draft.
    ///
    /// # Errors
    /// [`Refusal::NameTaken`], [`Refusal::TooMany`].
    pub fn create_policy(&mut self, name: &str, fill: impl FnOnce(&mut Policy)) -> Result<PolicyId, Refusal> {
        if self.policy_named(name).is_some() {
            return Err(Refusal::NameTaken);
        }
        if self.state.policies.len() >= POLICIES_MAX {
            return Err(Refusal::TooMany);
        }
        let mut policy = Policy::new(self.organisation.made_guid(self.state), name, self.now_ms);
        fill(&mut policy);
        let id = PolicyId(u32::try_from(self.state.policies.len()).map_err(|_| Refusal::TooMany)?);
        if policy.is_default {
            self.clear_default(id);
        }
        let stamp = self.stamp();
        let policy = Versioned::created(&self.state.controllers, policy, stamp);
        self.state.policies.push(policy);
        Ok(id)
    }

    /// Changes a policy; phones that obey it must be provisioned again when `change` says that a value is another.
    ///
    /// # Errors
    /// [`Refusal::Gone`], [`Refusal::NameTaken`] when it is to have the name of another.
    pub fn change_policy(
        &mut self,
        id: PolicyId,
        change: impl FnOnce(&mut Policy) -> bool,
    ) -> Result<(), Refusal> {
        let current = self.current_policy(id).ok_or(Refusal::Gone)?;
        let mut policy = current.clone();
        let values_changed = change(&mut policy);
        if self.policy_named(&policy.name).is_some_and(|other| other != id) {
            return Err(Refusal::NameTaken);
        }
        policy.revision += u32::from(values_changed);
        policy.changed_ms = self.now_ms;
        if policy.is_default {
            self.clear_default(id);
        }
        let stamp = self.stamp();
        let State { controllers, policies, .. } = &mut *self.state;
        policies[id.0 as usize].set(controllers, Some(policy), stamp);
        Ok(())
    }

    /// Removes a policy.
    ///
    /// # Errors
    /// [`Refusal::Gone`], [`Refusal::InUse`].
    pub fn remove_policy(&mut self, id: PolicyId) -> Result<(), Refusal> {
        let policy = self.current_policy(id).ok_or(Refusal::Gone)?;
        let assigned = |mailbox: &super::mailbox::Mailbox| {
            mailbox.cas.current().is_some_and(|cas| cas.policy == Some(id))
        };
        if policy.is_default || self.state.mailboxes.iter().any(assigned) {
            return Err(Refusal::InUse);
        }
        let stamp = self.stamp();
        let State { controllers, policies, .. } = &mut *self.state;
        policies[id.0 as usize].set(controllers, None, stamp);
        Ok(())
    }

    fn current_policy(&self, id: PolicyId) -> Option<&Policy> {
        self.state.policies.get(id.0 as usize)?.current()
    }

    fn policy_named(&self, name: &str) -> Option<PolicyId> {
        let named = |policy: &Versioned<Policy>| {
            policy.current().is_some_and(|policy| policy.name.eq_ignore_ascii_case(name))
        };
        let at = self.state.policies.iter().position(named)?;
        u32::try_from(at).ok().map(PolicyId)
    }

    /// There is one default policy.
    fn clear_default(&mut self, except: PolicyId) {
        let stamp = self.stamp();
        let State { controllers, policies, .. } = &mut *self.state;
        for (at, policy) in policies.iter_mut().enumerate() {
            if at != except.0 as usize && policy.current().is_some_and(|policy| policy.is_default) {
                policy.change(controllers, stamp, |policy| policy.is_default = false);
            }
        }
    }

    /// Makes a device access rule; its name is made of what it looks for, as Exchange does.
    ///
    /// # Errors
    /// [`Refusal::NameTaken`], [`Refusal::TooMany`].
    pub fn create_rule(
        &mut self,
        characteristic: Characteristic,
        query: &str,
        level: DefaultAccess,
    ) -> Result<AccessRule, Refusal> {
        let name = format!("{query} ({})", characteristic.name());
        let known = |rule: &Versioned<AccessRule>| {
            rule.current().is_some_and(|rule| rule.name.eq_ignore_ascii_case(&name))
        };
        if self.state.rules.iter().any(known) {
            return Err(Refusal::NameTaken);
        }
        if self.state.rules.len() >= ACCESS_RULES_MAX {
            return Err(Refusal::TooMany);
        }
        let rule = AccessRule {
            guid: self.organisation.made_guid(self.state),
            name: name.into(),
            query: query.to_owned(),
            characteristic,
            level,
            changed_ms: self.now_ms,
        };
        let stamp = self.stamp();
        let made = Versioned::created(&self.state.controllers, rule.clone(), stamp);
        self.state.rules.push(made);
        Ok(rule)
    }

    /// Changes the level of a rule, or removes it. False when it is not there.
    pub fn change_rule(&mut self, guid: &[u8; 16], level: Option<DefaultAccess>) -> bool {
        let stamp = self.stamp();
        let now_ms = self.now_ms;
        let State { controllers, rules, .. } = &mut *self.state;
        let named = |rule: &&mut Versioned<AccessRule>| rule.current().is_some_and(|rule| rule.guid == *guid);
        let Some(rule) = rules.iter_mut().find(named) else { return false };
        match level {
            Some(level) => rule.change(controllers, stamp, |rule| {
                rule.level = level;
                rule.changed_ms = now_ms;
            }),
            None => {
                rule.set(controllers, None, stamp);
                true
            }
        };
        rules.retain(|rule| !rule.is_gone(controllers, now_ms));
        true
    }

    pub fn change_threshold(
        &mut self,
        behaviour: &str,
        change: impl FnOnce(&mut AutoblockThreshold),
    ) -> bool {
        let mut thresholds = self.state.thresholds.iter_mut();
        match thresholds.find(|threshold| threshold.behaviour.eq_ignore_ascii_case(behaviour)) {
            Some(threshold) => {
                change(threshold);
                true
            }
            None => false,
        }
    }

    /// Orders a wipe. False when the partnership is gone.
    pub fn request_wipe(&mut self, id: PartnershipId, kind: WipeKind) -> bool {
        let now_ms = self.now_ms;
        let Some(partnership) = self.partnership(id) else { return false };
        partnership.contact.wipe = Some(Wipe::request(partnership.contact.wipe, kind, now_ms));
        true
    }

    /// Takes a wipe back.
    ///
    /// # Errors
    /// [`CancelError`] when there is none or it has been confirmed.
    pub fn cancel_wipe(&mut self, id: PartnershipId) -> Result<(), CancelError> {
        let Some(partnership) = self.partnership(id) else { return Err(CancelError::NothingPending) };
        Wipe::cancel(partnership.contact.wipe)?;
        partnership.contact.wipe = None;
        Ok(())
    }

    /// Removes a partnership; a phone that comes again begins a new one. False when it is gone.
    pub fn remove_device(&mut self, id: PartnershipId) -> bool {
        let stamp = self.stamp();
        let now_ms = self.now_ms;
        let State { controllers, partnerships, mailboxes, by_guid, mail, behaviour, .. } = &mut *self.state;
        let Some(slot) = partnerships.get_mut(id.0 as usize) else { return false };
        let Some(partnership) = slot.as_deref_mut() else { return false };
        let Some(device) = partnership.device.current() else { return false };
        let (mailbox, guid) = (device.mailbox, device.guid);
        partnership.device.set(controllers, None, stamp);
        mail.forget(id);
        behaviour.remove(&id);
        if partnership.device.is_gone(controllers, now_ms) {
            *slot = None;
            by_guid.remove(&guid);
            if let Some(mailbox) = mailboxes.get_mut(mailbox.0 as usize) {
                mailbox.partnerships.retain(|known| *known != id);
            }
        }
        true
    }

    /// The newest state of a phone.
    pub(super) fn device(&self, id: PartnershipId) -> Option<&Device> {
        self.state.partnerships.get(id.0 as usize)?.as_deref()?.device.current()
    }

    /// Changes what the directory knows of a phone.
    pub(super) fn change_device(&mut self, id: PartnershipId, change: impl FnOnce(&mut Device)) -> bool {
        let stamp = self.stamp();
        let now_ms = self.now_ms;
        let State { controllers, partnerships, .. } = &mut *self.state;
        let Some(partnership) = partnerships.get_mut(id.0 as usize).and_then(Option::as_deref_mut) else {
            return false;
        };
        partnership.device.change(controllers, stamp, |device| {
            change(device);
            device.changed_ms = now_ms;
        })
    }

    /// Blocks a phone for a while, or lifts that, as the server does by itself.
    pub fn set_autoblock(&mut self, id: PartnershipId, block: Option<super::Autoblock>) -> bool {
        self.change_device(id, |device| device.autoblock = block)
    }

    /// Lifts every block the server put on the phones of a mailbox.
    pub fn reset_autoblocked(&mut self, mailbox: MailboxId) {
        let phones = self.state.mailboxes.get(mailbox.0 as usize).map(|mailbox| mailbox.partnerships.clone());
        for id in phones.unwrap_or_default() {
            if self.device(id).is_some_and(|device| device.autoblock.is_some()) {
                self.set_autoblock(id, None);
            }
        }
    }

    /// Says where a mailbox has gone.
    pub fn move_mailbox(&mut self, mailbox: MailboxId, url: Option<&str>) -> bool {
        match self.state.mailboxes.get_mut(mailbox.0 as usize) {
            Some(mailbox) => {
                mailbox.moved_to = url.map(Into::into);
                true
            }
            None => false,
        }
    }

    fn partnership(&mut self, id: PartnershipId) -> Option<&mut super::device::Partnership> {
        let partnership = self.state.partnerships.get_mut(id.0 as usize)?.as_deref_mut()?;
        partnership.device.current()?;
        Some(partnership)
    }
}
