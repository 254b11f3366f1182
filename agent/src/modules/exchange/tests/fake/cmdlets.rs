//! What the cmdlets do and show.

use causeway_protocol::clixml::{Content, Object, Value};
use causeway_protocol::cmdlet::{Cmdlet, ErrorRecord};
use uuid::Uuid;

use super::{Mailbox, Phone, State};

impl State {
    fn identity(&self, phone: &Phone) -> String {
        let owner = &self.mailboxes[phone.mailbox].name;
        format!("acme.example/Users/{owner}/ExchangeActiveSyncDevices/iPhone§{}", phone.device_id)
    }

    fn phone_object(&self, phone: &Phone, statistics: bool) -> Object {
        let owner = &self.mailboxes[phone.mailbox];
        let (state, reason) = self.access(phone);
        let mut properties: Vec<(&str, Value)> = vec![
            ("Guid", Value::Guid(phone.guid.to_string())),
            ("DeviceId", phone.device_id.as_str().into()),
            ("Identity", self.identity(phone).into()),
            ("UserDisplayName", format!("acme.example/Users/{}", owner.name).into()),
            ("DeviceModel", phone.model.as_str().into()),
            ("DeviceType", "iPhone".into()),
            ("DeviceAccessState", Value::enumeration("X.DeviceAccessState", state, 1)),
            ("DeviceAccessStateReason", Value::enumeration("X.DeviceAccessStateReason", reason, 1)),
            ("FirstSyncTime", Value::DateTime(phone.first_sync.clone())),
            ("RunspaceId", Value::Guid(Uuid::from_u128(self.log.len() as u128).to_string())),
        ];
        if statistics {
            let time = |time: &Option<String>| time.clone().map_or(Value::Null, Value::DateTime);
            properties.extend([
                ("LastSuccessSync", time(&phone.last_sync)),
                ("LastSyncAttemptTime", time(&phone.last_sync)),
                ("Status", phone.status.as_str().into()),
                ("DevicePolicyApplied", owner.policy.clone().unwrap_or("Default".to_owned()).into()),
                ("DeviceWipeRequestTime", time(&phone.wipe[0])),
                ("DeviceWipeSentTime", time(&phone.wipe[1])),
                ("DeviceWipeAckTime", time(&phone.wipe[2])),
                ("AccountOnlyDeviceWipeRequestTime", time(&phone.account_wipe[0])),
                ("AccountOnlyDeviceWipeSentTime", time(&phone.account_wipe[1])),
                ("AccountOnlyDeviceWipeAckTime", time(&phone.account_wipe[2])),
            ]);
        }
        object(properties)
    }

    fn mailbox_object(&self, mailbox: &Mailbox) -> Object {
        let list = |ids: &[String]| Value::list(ids.iter().map(|id| id.as_str().into()).collect());
        object(vec![
            ("Guid", Value::Guid(mailbox.guid.to_string())),
            ("Identity", format!("acme.example/Users/{}", mailbox.name).into()),
            ("SamAccountName", mailbox.name.as_str().into()),
            ("PrimarySmtpAddress", format!("{}@acme.example", mailbox.name).into()),
            ("ServerName", "ex1".into()),
            ("ActiveSyncMailboxPolicy", mailbox.policy.clone().map_or(Value::Null, Value::from)),
            ("ActiveSyncAllowedDeviceIDs", list(&mailbox.allowed)),
            ("ActiveSyncBlockedDeviceIDs", list(&mailbox.blocked)),
        ])
    }

    fn mailbox_at(&self, identity: &str) -> Option<usize> {
        let identity = identity.to_lowercase();
        self.mailboxes.iter().position(|it| {
            it.guid.to_string() == identity
                || it.name == identity
                || format!("{}@acme.example", it.name) == identity
                || format!("acme.example/users/{}", it.name) == identity
        })
    }

    pub(super) fn answer(&mut self, cmdlet: &Cmdlet) -> Result<Vec<Object>, ErrorRecord> {
        let text = |name: &str| cmdlet.parameter(name).and_then(Value::text).map(|it| it.into_owned());
        let verb = cmdlet.name.as_str();
        if self.missing.iter().any(|missing| missing == verb) {
            return Err(record("CommandNotFoundException"));
        }
        let gone = || Err(record("ManagementObjectNotFoundException"));
        let named = text("DomainController").and(text("Identity")).and_then(|it| self.mailbox_at(&it));
        if self.other_domain_from.is_some_and(|from| named.is_some_and(|at| at >= from)) {
            return gone();
        }
        let by_identity = |state: &Self| {
            text("Identity").and_then(|id| state.phones.iter().position(|it| it.guid.to_string() == id))
        };
        match verb {
            "Get-MobileDevice" | "Get-ActiveSyncDevice" => {
                if text("Filter").is_some() && !self.takes_filters {
                    return Err(record("FilterParsingException"));
                }
                let held = text("Filter").map(|filter| {
                    assert_eq!(filter, "DeviceAccessState -eq 'Quarantined'");
                    "Quarantined"
                });
                let is_wanted = |at: &usize| held.is_none_or(|held| self.access(&self.phones[*at]).0 == held);
                // The trap: an identity that is empty or unknown gives everything.
                let all = 0..self.phones.len();
                let range = by_identity(self).map_or(all, |at| at..at + 1);
                let cut = self.truncate_at.filter(|_| text("Identity").is_none()).unwrap_or(usize::MAX);
                Ok(range
                    .filter(is_wanted)
                    .take(cut)
                    .map(|at| self.phone_object(&self.phones[at], false))
                    .collect())
            }
            "Get-MobileDeviceStatistics" | "Get-ActiveSyncDeviceStatistics" => {
                if let Some(mailbox) = text("Mailbox") {
                    let Some(mailbox) = self.mailbox_at(&mailbox) else { return gone() };
                    let mine = self.phones.iter().filter(|it| it.mailbox == mailbox);
                    return Ok(mine.map(|it| self.phone_object(it, true)).collect());
                }
                let Some(at) = by_identity(self) else { return gone() };
                Ok(vec![self.phone_object(&self.phones[at], true)])
            }
            "Clear-MobileDevice" | "Clear-ActiveSyncDevice" => {
                let Some(at) = by_identity(self) else { return gone() };
                let now = super::super::at_ms(self.clock_ms + 1_000);
                let phone = &mut self.phones[at];
                if cmdlet.parameter("Cancel").is_some() {
                    phone.wipe = [None, None, None];
                    phone.account_wipe = [None, None, None];
                    phone.status = "DeviceOk".to_owned();
                } else if cmdlet.parameter("AccountOnly").is_some() {
                    phone.account_wipe[0] = Some(now);
                    phone.status = "AccountOnlyDeviceWipePending".to_owned();
                } else {
                    phone.wipe[0] = Some(now);
                    phone.status = "DeviceWipePending".to_owned();
                }
                Ok(Vec::new())
            }
            "Remove-MobileDevice" | "Remove-ActiveSyncDevice" => {
                let Some(at) = by_identity(self) else { return gone() };
                self.phones.remove(at);
                Ok(Vec::new())
            }
            "Get-CASMailbox" => match text("Identity") {
                Some(identity) => {
                    let Some(at) = self.mailbox_at(&identity) else { return gone() };
                    let seen = match self.stale.front_mut() {
                        Some((left, before)) if *left > 0 => {
                            *left -= 1;
                            before[at].clone()
                        }
                        _ => self.mailboxes[at].clone(),
                    };
                    Ok(vec![self.mailbox_object(&seen)])
                }
                None => {
                    let marked = self.mailboxes.iter().filter(|it| it.marked);
                    Ok(marked.map(|it| self.mailbox_object(it)).collect())
                }
            },
            "Set-CASMailbox" => self.set_mailbox(cmdlet, text("Identity").unwrap_or_default()),
            "Get-ActiveSyncOrganizationSettings" => {
                Ok(vec![object(vec![("DefaultAccessLevel", self.default_level.as_str().into())])])
            }
            "Set-ActiveSyncOrganizationSettings" => {
                self.default_level = text("DefaultAccessLevel").unwrap();
                self.look();
                Ok(Vec::new())
            }
            "Get-MobileDeviceMailboxPolicy" => Ok(self
                .policies
                .iter()
                .map(|(name, settings)| {
                    let mut properties: Vec<(&str, Value)> = vec![("Name", name.as_str().into())];
                    properties
                        .extend(settings.iter().map(|(key, value)| (key.as_str(), value.as_str().into())));
                    object(properties)
                })
                .collect()),
            "New-MobileDeviceMailboxPolicy" | "Set-MobileDeviceMailboxPolicy" => {
                let name = text("Name").or(text("Identity")).unwrap();
                let policy = self.policies.entry(name).or_default();
                for (key, value) in &cmdlet.parameters {
                    if !["Name", "Identity", "Confirm"].contains(&key.as_str()) {
                        policy.insert(key.clone(), value.text().unwrap().into_owned());
                    }
                }
                Ok(Vec::new())
            }
            "Get-ExchangeServer" => {
                Ok(vec![object(vec![("AdminDisplayVersion", "Version 15.2 (Build 1544.4)".into())])])
            }
            "Get-OrganizationConfig" => Ok(vec![object(vec![("Name", "Acme".into())])]),
            _ => Err(record("CommandNotFoundException")),
        }
    }

    fn set_mailbox(&mut self, cmdlet: &Cmdlet, identity: String) -> Result<Vec<Object>, ErrorRecord> {
        let Some(at) = self.mailbox_at(&identity) else {
            return Err(record("ManagementObjectNotFoundException"));
        };
        if self.lag > 0 {
            self.stale.push_back((self.lag, self.mailboxes.clone()));
        }
        for (name, value) in &cmdlet.parameters {
            let mailbox = &mut self.mailboxes[at];
            let list = match name.as_str() {
                "ActiveSyncAllowedDeviceIDs" => &mut mailbox.allowed,
                "ActiveSyncBlockedDeviceIDs" => &mut mailbox.blocked,
                "ActiveSyncMailboxPolicy" => {
                    mailbox.policy = value.text().map(|it| it.into_owned());
                    continue;
                }
                _ => continue,
            };
            let ids = |value: &Value| -> Vec<String> {
                value.items().iter().map(|it| it.text().unwrap().into_owned()).collect()
            };
            match value {
                Value::Object(object) if matches!(object.content, Content::Dictionary(_)) => {
                    if !self.takes_changes {
                        return Err(record("ParameterBindingArgumentTransformationException"));
                    }
                    let Content::Dictionary(entries) = &object.content else { unreachable!() };
                    for (key, value) in entries {
                        for id in ids(value) {
                            list.retain(|known| *known != id);
                            if key.text().as_deref() == Some("Add") {
                                list.push(id);
                            }
                        }
                    }
                }
                value => *list = ids(value),
            }
        }
        self.look();
        Ok(Vec::new())
    }
}

fn object(properties: Vec<(&str, Value)>) -> Object {
    let adapted = properties.into_iter().map(|(name, value)| (name.into(), value)).collect();
    Object { adapted, ..Object::default() }
}

pub(super) fn record(reason: &str) -> ErrorRecord {
    ErrorRecord {
        message: format!("the server says {reason}"),
        reason: reason.to_owned(),
        ..ErrorRecord::default()
    }
}
