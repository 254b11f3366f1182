//! What a phone can do, whatever carries its commands: come, be judged, be provisioned, be wiped, read mail.

use std::sync::Arc;

use super::access::{AccessReason, AccessState};
use super::device::{Device, DeviceInformation, Partnership, PartnershipId, PolicyApplication};
use super::mail::{FOLDERS, Folder, INBOX, Mark, Message, SyncError, SyncPage};
use super::mailbox::MailboxId;
use super::reader::Reader;
use super::verdict::{Access, DeviceRequest, KeyMismatch, Provision, ProvisionNeed, Verdict};
use super::versioned::Versioned;
use super::wipe::WipeKind;
use super::writer::Writer;
use super::{Autoblock, ClientType, Contact, Organisation, State};

/// Commands a phone may send before it has the policy: without them it could never get it.
const BEFORE_PROVISIONING: [&str; 2] = ["Provision", "Options"];

/// Heartbeats remembered per behaviour; more than any sensible threshold.
const BEHAVIOUR_EVENTS_MAX: usize = 1_000;

impl Organisation {
    /// Judges a command. The first one of a new phone makes its partnership; every one counts as an attempt to synchronise.
    pub fn device_command(&self, request: &DeviceRequest<'_>) -> Access {
        let now_ms = self.clock.now_ms();
        let access = {
            let mut state = self.state_mut();
            match self.find_or_create(&mut state, request, now_ms) {
                Ok(id) => {
                    self.visit(&mut state, id, request, now_ms);
                    let verdict = self.judge(&mut state, id, request, now_ms);
                    Access { partnership: Some(id), verdict }
                }
                Err(verdict) => Access { partnership: None, verdict },
            }
        };
        self.tell();
        access
    }

    /// The partnership of a phone, if it has one.
    pub fn partnership(&self, mailbox: MailboxId, device_id: &str) -> Option<PartnershipId> {
        find(&self.state(), mailbox, device_id)
    }

    /// Whether a phone may be shown its mail now, without counting as a visit; a Ping asks this when it wakes.
    pub fn is_allowed(&self, id: PartnershipId) -> bool {
        let state = self.state();
        let reader = Reader::new(self, &state, state.controllers.writer());
        let Some(device) = reader.device(id) else { return false };
        let enabled =
            reader.mailbox(device.device.mailbox).is_some_and(|mailbox| mailbox.cas.active_sync_enabled);
        enabled && device.contact.wipe.is_none() && reader.decide(&device).state == AccessState::Allowed
    }

    fn find_or_create(
        &self,
        state: &mut State,
        request: &DeviceRequest<'_>,
        now_ms: i64,
    ) -> Result<PartnershipId, Verdict> {
        if let Some(url) = state.mailboxes[request.mailbox.0 as usize].moved_to.as_deref() {
            return Err(Verdict::Moved(url.to_owned()));
        }
        if let Some(id) = find(state, request.mailbox, request.device_id) {
            return Ok(id);
        }
        let enabled = |state: &State| {
            let cas = state.mailboxes[request.mailbox.0 as usize].cas.current();
            cas.is_some_and(|cas| cas.active_sync_enabled)
        };
        if !enabled(state) {
            return Err(Verdict::Disabled);
        }
        if state.mailboxes[request.mailbox.0 as usize].partnerships.len()
            >= self.facts.profile.devices_per_mailbox_max
        {
            return Err(Verdict::TooManyDevices);
        }
        let guid = self.made_guid(state);
        let device = Device {
            guid,
            mailbox: request.mailbox,
            id: request.device_id.into(),
            device_type: request.device_type.into(),
            user_agent: request.user_agent.into(),
            client: ClientType::Eas,
            version: request.version,
            information: DeviceInformation::default(),
            first_sync_ms: now_ms,
            changed_ms: now_ms,
            autoblock: None,
        };
        let id = PartnershipId(u32::try_from(state.partnerships.len()).map_err(|_| Verdict::TooManyDevices)?);
        let origin = state.controllers.writer();
        let stamp = state.controllers.stamp(now_ms, origin);
        let device = Versioned::created(&state.controllers, device, stamp);
        state.partnerships.push(Some(Box::new(Partnership { device, contact: Contact::default() })));
        state.by_guid.insert(guid, id);
        state.mailboxes[request.mailbox.0 as usize].partnerships.push(id);
        Ok(id)
    }

    /// Notes what a visit tells.
    fn visit(&self, state: &mut State, id: PartnershipId, request: &DeviceRequest<'_>, now_ms: i64) {
        let mut writer = Writer::new(self, state, 0);
        let known = writer.device(id).is_some_and(|device| {
            device.version == request.version
                && (request.user_agent.is_empty() || *device.user_agent == *request.user_agent)
        });
        if !known {
            writer.change_device(id, |device| {
                device.version = request.version;
                if !request.user_agent.is_empty() {
                    device.user_agent = request.user_agent.into();
                }
            });
        }
        if let Some(contact) = contact_mut(state, id) {
            contact.last_attempt_ms = Some(now_ms);
        }
        self.watch_behaviour(state, id, request.command, now_ms);
    }

    /// Blocks a phone for a while when it sends more than a threshold allows.
    fn watch_behaviour(&self, state: &mut State, id: PartnershipId, command: &str, now_ms: i64) {
        let watched = if command == "Sync" { "SyncCommands" } else { "RecentCommands" };
        let threshold =
            state.thresholds.iter().find(|threshold| threshold.behaviour == watched && threshold.limit > 0);
        let Some(threshold) = threshold.cloned() else { return };
        let period_ms = i64::from(threshold.incidence_minutes) * 60_000;
        let events = state.behaviour.entry(id).or_default();
        while events.front().is_some_and(|at| now_ms - at >= period_ms)
            || events.len() >= BEHAVIOUR_EVENTS_MAX
        {
            events.pop_front();
        }
        events.push_back(now_ms);
        if events.len() > usize::try_from(threshold.limit).unwrap_or(usize::MAX) {
            events.clear();
            let until_ms = now_ms + i64::from(threshold.block_minutes) * 60_000;
            let reason = AccessReason::named(watched).unwrap_or(AccessReason::RecentCommands);
            Writer::new(self, state, 0).set_autoblock(id, Some(Autoblock { reason, until_ms }));
        }
    }

    fn judge(
        &self,
        state: &mut State,
        id: PartnershipId,
        request: &DeviceRequest<'_>,
        now_ms: i64,
    ) -> Verdict {
        let writer = state.controllers.writer();
        let (verdict, notice) = {
            let reader = Reader::new(self, state, writer);
            (self.verdict(&reader, id, request, now_ms), self.notice(&reader, id, now_ms))
        };
        let held = matches!(verdict, Verdict::Held(_));
        if let Some(contact) = contact_mut(state, id)
            && contact.held_view != held
            && matches!(verdict, Verdict::Held(_) | Verdict::Allowed)
        {
            contact.held_view = held;
            state.mail.invalidate(id);
        }
        match (held, notice) {
            (true, Some(notice)) if !state.mail.has_notice(id) => state.mail.put_notice(id, notice),
            (false, _) if verdict == Verdict::Allowed => state.mail.forget_notice(id),
            _ => {}
        }
        verdict
    }

    fn verdict(
        &self,
        reader: &Reader<'_>,
        id: PartnershipId,
        request: &DeviceRequest<'_>,
        now_ms: i64,
    ) -> Verdict {
        let Some(device) = reader.device(id) else { return Verdict::Blocked(AccessReason::Unknown) };
        let Some(mailbox) = reader.mailbox(request.mailbox) else { return Verdict::Disabled };
        let contact = device.contact;
        let provisions = request.command == "Provision";
        match contact.wipe {
            // The answer to Provision carries the order itself.
            Some(wipe) if wipe.is_pending() && !provisions => return Verdict::Wipe(wipe.kind),
            Some(wipe) if !wipe.is_pending() => return Verdict::Blocked(AccessReason::Policy),
            Some(_) => return Verdict::Allowed,
            None => {}
        }
        if !mailbox.cas.active_sync_enabled {
            return Verdict::Disabled;
        }
        let decision = reader.decide(&device);
        let strict = reader
            .policy_of(mailbox.cas)
            .is_some_and(|(_, policy)| !policy.is_on("AllowNonProvisionableDevices"));
        match decision.state {
            AccessState::Blocked if decision.reason == AccessReason::Policy => {
                // It may try again to obey.
                return if provisions { Verdict::Allowed } else { Verdict::NotProvisionable };
            }
            AccessState::Blocked => return Verdict::Blocked(decision.reason),
            _ if strict && request.version < 120 => return Verdict::NotProvisionable,
            _ => {}
        }
        if let Some(need) = provision_need(reader, &device, request, now_ms) {
            return Verdict::Provision(need);
        }
        if strict && contact.application == PolicyApplication::PartiallyApplied && !provisions {
            return Verdict::PartlyProvisionable;
        }
        match decision.state {
            AccessState::Quarantined | AccessState::DeviceDiscovery => Verdict::Held(decision.state),
            _ => Verdict::Allowed,
        }
    }

    /// The message a held phone finds in its inbox.
    fn notice(&self, reader: &Reader<'_>, id: PartnershipId, now_ms: i64) -> Option<Message> {
        let device = reader.device(id)?;
        let mailbox = reader.mailbox(device.device.mailbox)?;
        let settings = reader.settings();
        let mut body = format!(
            "Your phone {} cannot use mail yet: it waits for the permission of an administrator. You need not do anything.",
            device.device.device_type
        );
        if !settings.user_mail_insert.is_empty() {
            body.push_str("\r\n\r\n");
            body.push_str(&settings.user_mail_insert);
        }
        Some(Message {
            id: String::new(),
            from: format!("postmaster@{}", self.facts.domain),
            to: mailbox.person.mail.to_string(),
            subject: "Your phone is temporarily blocked from accessing content via Exchange ActiveSync"
                .to_owned(),
            body,
            received_ms: now_ms,
            read: false,
        })
    }

    /// The first step of Provision. Tells of a wipe, else offers the policy of the mailbox with a key for this step only.
    pub fn provision(
        &self,
        id: PartnershipId,
        version: u16,
        information: Option<DeviceInformation>,
    ) -> Provision {
        if let Some(information) = information {
            self.set_device_information(id, information);
        }
        let now_ms = self.clock.now_ms();
        let mut state = self.state_mut();
        if let Some(contact) = contact_mut(&mut state, id)
            && let Some(wipe) = contact.wipe.as_mut().filter(|wipe| wipe.is_pending())
        {
            wipe.sent(now_ms);
            let kind = wipe.kind;
            drop(state);
            self.tell();
            return Provision::Wipe(kind);
        }
        let (offer, silent) = {
            let reader = Reader::new(self, &state, state.controllers.writer());
            let Some(device) = reader.device(id) else { return Provision::Gone };
            let Some(mailbox) = reader.mailbox(device.device.mailbox) else { return Provision::Gone };
            (
                reader.policy_of(mailbox.cas).map(|(id, policy)| (id, Arc::new(policy.clone()))),
                device.device.information.is_empty(),
            )
        };
        if silent && version >= 141 {
            return Provision::InformationMissing;
        }
        let Some((policy_id, policy)) = offer else { return Provision::NoPolicy };
        let key = self.made_key(&mut state);
        if let Some(contact) = contact_mut(&mut state, id) {
            contact.offered_key = Some(key);
            contact.offered = Some((policy_id.0, policy.revision));
        }
        Provision::Policy { key, policy }
    }

    /// The second step: the phone says how far it obeys (MS-ASPROV 2.2.2.54.2) and gets the key for all other commands.
    ///
    /// # Errors
    /// [`KeyMismatch`] when the key is not the one offered.
    pub fn provision_acknowledge(
        &self,
        id: PartnershipId,
        key: u32,
        status: u32,
    ) -> Result<u32, KeyMismatch> {
        let now_ms = self.clock.now_ms();
        let mut state = self.state_mut();
        let last = self.made_key(&mut state);
        let contact = contact_mut(&mut state, id).ok_or(KeyMismatch)?;
        if contact.offered_key != Some(key) {
            return Err(KeyMismatch);
        }
        contact.offered_key = None;
        contact.applied = contact.offered.take();
        contact.policy_key = Some(last);
        contact.application = PolicyApplication::of_status(status);
        contact.last_policy_ms = Some(now_ms);
        drop(state);
        self.tell();
        Ok(last)
    }

    /// The phone says that it is wiping itself. False when nobody told it to: such a confirmation counts for nothing.
    pub fn wipe_acknowledge(&self, id: PartnershipId, kind: WipeKind) -> bool {
        let now_ms = self.clock.now_ms();
        let mut state = self.state_mut();
        let Some(contact) = contact_mut(&mut state, id) else { return false };
        let obeyed = contact.wipe.as_mut().is_some_and(|wipe| wipe.acknowledge(kind, now_ms));
        if obeyed {
            contact.policy_key = None;
            contact.applied = None;
        }
        drop(state);
        self.tell();
        obeyed
    }

    /// What the phone says of itself; fields it leaves out stay as they were.
    pub fn set_device_information(&self, id: PartnershipId, information: DeviceInformation) -> bool {
        self.write(None, |writer| {
            writer.change_device(id, |device| {
                let known = &mut device.information;
                let new = information;
                known.model = new.model.or(known.model.take());
                known.imei = new.imei.or(known.imei.take());
                known.friendly_name = new.friendly_name.or(known.friendly_name.take());
                known.os = new.os.or(known.os.take());
                known.os_language = new.os_language.or(known.os_language.take());
                known.phone_number = new.phone_number.or(known.phone_number.take());
                known.operator = new.operator.or(known.operator.take());
                if let Some(agent) = &new.user_agent {
                    device.user_agent = Arc::clone(agent);
                }
                known.user_agent = new.user_agent.or(known.user_agent.take());
            })
        })
    }

    /// The folders a phone may see: all, or the inbox alone while it is held.
    pub fn folders(&self, id: PartnershipId) -> Vec<Folder> {
        let mut state = self.state_mut();
        let Some(contact) = contact_mut(&mut state, id) else { return Vec::new() };
        let held = contact.held_view;
        let folders: Vec<Folder> =
            FOLDERS.iter().filter(|folder| !held || folder.id == INBOX).copied().collect();
        contact.folders = u16::try_from(folders.len()).unwrap_or(u16::MAX);
        folders
    }

    /// What is new in a folder since a key; see [`SyncPage`]. Counts as a successful synchronisation, for a held phone too.
    ///
    /// # Errors
    /// [`SyncError`] says what the phone must do.
    pub fn sync(
        &self,
        id: PartnershipId,
        folder: &str,
        key: u32,
        window: usize,
    ) -> Result<SyncPage, SyncError> {
        let now_ms = self.clock.now_ms();
        let mut state = self.state_mut();
        let (mailbox, held) = whose(&state, id).ok_or(SyncError::Gone)?;
        self.fill(&mut state, mailbox);
        let page = state.mail.sync(id, mailbox, held, folder, key, window)?;
        if let Some(contact) = contact_mut(&mut state, id) {
            contact.last_success_ms = Some(now_ms);
        }
        Ok(page)
    }

    /// How many changes a phone with this key has to fetch in a folder; nothing moves on.
    ///
    /// # Errors
    /// [`SyncError`] says what the phone must do.
    pub fn pending(&self, id: PartnershipId, folder: &str, key: u32) -> Result<usize, SyncError> {
        let mut state = self.state_mut();
        let (mailbox, held) = whose(&state, id).ok_or(SyncError::Gone)?;
        self.fill(&mut state, mailbox);
        state.mail.pending(id, mailbox, held, folder, key)
    }

    /// Whether a phone has something to fetch in any of these folders.
    pub fn has_news(&self, id: PartnershipId, folders: &[&str]) -> bool {
        let mut state = self.state_mut();
        let Some((mailbox, held)) = whose(&state, id) else { return false };
        self.fill(&mut state, mailbox);
        folders.iter().any(|folder| state.mail.has_news(id, mailbox, held, folder))
    }

    /// Whether a phone's view has changed since it last asked for its folders (held, or allowed again).
    pub fn is_held(&self, id: PartnershipId) -> bool {
        whose(&self.state(), id).is_some_and(|(_, held)| held)
    }

    /// Notes the heartbeat of a Ping.
    pub fn set_heartbeat(&self, id: PartnershipId, seconds: u32) {
        if let Some(contact) = contact_mut(&mut self.state_mut(), id) {
            contact.ping_heartbeat_secs = Some(seconds);
        }
        self.tell();
    }

    /// Puts a message into a mailbox's inbox and wakes its phones. `None` when the mailbox is full.
    pub fn deliver(&self, mailbox: MailboxId, from: &str, subject: &str, body: &str) -> Option<String> {
        let received_ms = self.clock.now_ms();
        let to = self.company.people.get(mailbox.0 as usize)?.mail.to_string();
        let message = Message {
            id: String::new(),
            from: from.to_owned(),
            to,
            subject: subject.to_owned(),
            body: body.to_owned(),
            received_ms,
            read: false,
        };
        let mut state = self.state_mut();
        self.fill(&mut state, mailbox);
        let id = state.mail.deliver(mailbox, INBOX, message);
        drop(state);
        self.tell();
        id
    }

    /// Marks a message as read, or removes it; phones learn of it. False when it is not there.
    pub fn mark(&self, mailbox: MailboxId, message: &str, mark: Mark) -> bool {
        let done = self.state_mut().mail.mark(mailbox, message, mark);
        self.tell();
        done
    }

    /// The messages of a folder, oldest first, as their owner sees them.
    pub fn messages(&self, mailbox: MailboxId, folder: &str) -> Vec<Message> {
        let mut state = self.state_mut();
        self.fill(&mut state, mailbox);
        state.mail.messages(mailbox, folder)
    }

    /// The messages of a folder as one phone may see them.
    pub fn messages_for(&self, id: PartnershipId, folder: &str) -> Vec<Message> {
        let Some((mailbox, held)) = whose(&self.state(), id) else { return Vec::new() };
        if held {
            return if folder == INBOX { self.state().mail.notice(id) } else { Vec::new() };
        }
        self.messages(mailbox, folder)
    }

    /// Puts the messages of the start into a mailbox that nobody has looked into.
    fn fill(&self, state: &mut State, mailbox: MailboxId) {
        if state.mail.is_open(mailbox) {
            return;
        }
        state.mail.open(mailbox);
        let people = &self.company.people;
        let Some(person) = people.get(mailbox.0 as usize) else { return };
        for number in 0..self.facts.messages {
            let from = &people[(mailbox.0 as usize + 7 * (number + 1)) % people.len()];
            let (subject, body) = SUBJECTS[number % SUBJECTS.len()];
            let hours = i64::try_from(self.facts.messages - number).unwrap_or(1);
            let message = Message {
                id: String::new(),
                from: from.mail.to_string(),
                to: person.mail.to_string(),
                subject: subject.to_owned(),
                body: format!("Hello {},\r\n\r\n{body}\r\n\r\n{}", person.given_name, from.given_name),
                received_ms: self.clock.now_ms() - hours * 3_600_000,
                read: false,
            };
            state.mail.deliver(mailbox, INBOX, message);
        }
    }
}

const SUBJECTS: [(&str, &str); 5] = [
    ("Lunch on Thursday", "Shall we try the new place by the river?"),
    ("Figures for the quarter", "The table is ready. Two rows still need your eyes."),
    ("Visitors next week", "Three people from the supplier will be here on Monday."),
    ("Room change", "We meet on the second floor from now on."),
    ("Thank you", "That went well. The customer has already written."),
];

/// Whether a phone must be provisioned before anything else.
fn provision_need(
    reader: &Reader<'_>,
    device: &super::reader::DeviceView<'_>,
    request: &DeviceRequest<'_>,
    now_ms: i64,
) -> Option<ProvisionNeed> {
    if BEFORE_PROVISIONING.contains(&request.command) || request.version < 120 {
        return None;
    }
    let mailbox = reader.mailbox(request.mailbox)?;
    let (policy_id, policy) = reader.policy_of(mailbox.cas)?;
    let contact = device.contact;
    let shown = request.policy_key.filter(|key| *key != 0);
    let Some(shown) = shown else {
        // A phone that does policies says 0 until it has a key; one that sends no key at all does none.
        let forgiven = request.policy_key.is_none() && policy.is_on("AllowNonProvisionableDevices");
        return (!forgiven).then_some(ProvisionNeed::NotProvisioned);
    };
    if contact.policy_key != Some(shown) {
        return Some(ProvisionNeed::InvalidKey);
    }
    let stale = policy.seconds("DevicePolicyRefreshInterval").is_some_and(|seconds| {
        let interval_ms = i64::try_from(seconds).unwrap_or(i64::MAX).saturating_mul(1_000);
        contact.last_policy_ms.is_none_or(|at| now_ms.saturating_sub(at) >= interval_ms)
    });
    let current = contact.applied == Some((policy_id.0, policy.revision));
    (!current || stale).then_some(ProvisionNeed::Refresh)
}

fn find(state: &State, mailbox: MailboxId, device_id: &str) -> Option<PartnershipId> {
    let mailbox = state.mailboxes.get(mailbox.0 as usize)?;
    mailbox.partnerships.iter().copied().find(|id| {
        let partnership = state.partnerships.get(id.0 as usize).and_then(Option::as_deref);
        let device = partnership.and_then(|partnership| partnership.device.current());
        device.is_some_and(|device| device.id.eq_ignore_ascii_case(device_id))
    })
}

fn whose(state: &State, id: PartnershipId) -> Option<(MailboxId, bool)> {
    let partnership = state.partnerships.get(id.0 as usize)?.as_deref()?;
    Some((partnership.device.current()?.mailbox, partnership.contact.held_view))
}

fn contact_mut(state: &mut State, id: PartnershipId) -> Option<&mut Contact> {
    Some(&mut state.partnerships.get_mut(id.0 as usize)?.as_deref_mut()?.contact)
}
