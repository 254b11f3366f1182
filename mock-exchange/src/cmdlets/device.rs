//! Cmdlets about phones.

use std::sync::Arc;

use causeway_protocol::clixml::Object;
use causeway_protocol::cmdlet::ErrorRecord;

use super::device_object;
use super::filter::Filter;
use super::identity::{canonical, find_device, find_mailbox};
use super::{Answer, Call, Limit, Output, Source, list};
use crate::world::{
    CancelError, ClientType, DeviceView, MailboxId, Organisation, PartnershipId, Reader, WipeKind,
};

/// Which phones a caller asks for.
struct Choice {
    organisation: Arc<Organisation>,
    filter: Option<Filter>,
    clients: Vec<ClientType>,
    /// Canonical name of a unit, lower case, with a slash at its end.
    unit: Option<String>,
}

impl Choice {
    fn new(call: &Call) -> Result<Self, ErrorRecord> {
        let filter = match call.bound.filled("Filter") {
            Some(text) => Some(
                Filter::parse(&text, device_object::is_filterable)
                    .map_err(|why| call.task.recipient_task(why, &text))?,
            ),
            None => None,
        };
        let clients = [
            ("ActiveSync", ClientType::Eas),
            ("OWAforDevices", ClientType::Mowa),
            ("RestApi", ClientType::Rest),
            ("UniversalOutlook", ClientType::Outlook),
        ];
        let clients =
            clients.iter().filter(|(name, _)| call.bound.is_on(name)).map(|(_, client)| *client).collect();
        let unit = call.bound.filled("OrganizationalUnit").map(|name| unit(call, &name)).transpose()?;
        Ok(Self { organisation: Arc::clone(&call.organisation), filter, clients, unit })
    }

    fn fits(&self, reader: &Reader<'_>, view: &DeviceView<'_>) -> bool {
        if !self.clients.is_empty() && !self.clients.contains(&view.device.client) {
            return false;
        }
        if let Some(unit) = &self.unit {
            let owner = reader
                .mailbox(view.device.mailbox)
                .map(|mailbox| canonical(&self.organisation, mailbox.person));
            if !owner.is_some_and(|name| name.to_lowercase().starts_with(unit.as_str())) {
                return false;
            }
        }
        let organisation = &self.organisation;
        self.filter.as_ref().is_none_or(|filter| {
            filter.matches(&|name| device_object::field(organisation, reader, view, name))
        })
    }
}

/// An organisational unit by canonical name, DN or its own name.
pub(super) fn unit(call: &Call, name: &str) -> Result<String, ErrorRecord> {
    let company = call.organisation.company();
    let found = company.ous.iter().enumerate().find_map(|(at, ou)| {
        let path = company.ou_path(at);
        let canonical: String = path.iter().map(|ou| format!("/{}", ou.name)).collect();
        let canonical = format!("{}{canonical}", company.domain);
        let dn: String = path.iter().rev().map(|ou| format!("OU={},", ou.name)).collect();
        let dn = format!("{dn}{}", company.base_dn);
        let named = [canonical.as_str(), dn.as_str(), ou.name.as_str()]
            .iter()
            .any(|known| known.eq_ignore_ascii_case(name));
        named.then(|| canonical.to_lowercase())
    });
    let top = name.eq_ignore_ascii_case(&company.domain).then(|| company.domain.to_lowercase());
    found.or(top).map(|name| name + "/").ok_or_else(|| call.task.not_found(name))
}

/// Get-MobileDevice and Get-ActiveSyncDevice. A null identity counts as none: every phone comes back.
pub(super) fn get(call: Call) -> Result<Answer, ErrorRecord> {
    let (identity, mailbox) = (call.bound.filled("Identity"), call.bound.filled("Mailbox"));
    if identity.is_some() && mailbox.is_some() {
        return Err(super::errors::parameter_set(call.spec.name));
    }
    let choice = Choice::new(&call)?;
    let old = call.spec.name.contains("ActiveSync");
    if let Some(identity) = identity {
        let found = call.read(|reader| {
            let view = find_device(&call.organisation, reader, &call.task, &identity)?;
            Ok(device_object::device(&call.organisation, reader, &view, old))
        });
        match found {
            Err(error) if !call.organisation.facts().unknown_identity_returns_all => return Err(error),
            Err(_) => {}
            Ok(object) => {
                return Ok(Answer {
                    outputs: object.map(Output::Object).into_iter().collect(),
                    source: None,
                });
            }
        }
    }
    let limit = call.bound.limit();
    let make = move |reader: &Reader<'_>, view: &DeviceView<'_>| {
        choice
            .fits(reader, view)
            .then(|| device_object::device(&choice.organisation, reader, view, old))
            .flatten()
    };
    if let Some(mailbox) = mailbox {
        let owner = call.read(|reader| {
            find_mailbox(&call.organisation, reader, &call.task, &mailbox).map(|mailbox| mailbox.id)
        })?;
        return Ok(of_mailbox(&call, owner, limit, make));
    }
    let source = match call.bound.filled("SortBy") {
        Some(property) => sorted(&call, &property, limit, make),
        None => {
            let slots = call.read(|reader| reader.device_slots());
            list(slots, limit, move |reader, position| make(reader, &reader.device_at(position)?))
        }
    };
    Ok(Answer { source: Some(source), outputs: Vec::new() })
}

fn of_mailbox(
    call: &Call,
    owner: MailboxId,
    limit: Limit,
    make: impl Fn(&Reader<'_>, &DeviceView<'_>) -> Option<Object> + Send + 'static,
) -> Answer {
    let ids: Vec<PartnershipId> = call.read(|reader| reader.devices_of(owner).map(|view| view.id).collect());
    Answer { source: Some(of_ids(ids, limit, make)), outputs: Vec::new() }
}

fn of_ids(
    ids: Vec<PartnershipId>,
    limit: Limit,
    make: impl Fn(&Reader<'_>, &DeviceView<'_>) -> Option<Object> + Send + 'static,
) -> Source {
    let count = u32::try_from(ids.len()).unwrap_or(u32::MAX);
    list(count, limit, move |reader, position| make(reader, &reader.device(*ids.get(position as usize)?)?))
}

/// By one property as text; the list is of positions, not of objects.
fn sorted(
    call: &Call,
    property: &str,
    limit: Limit,
    make: impl Fn(&Reader<'_>, &DeviceView<'_>) -> Option<Object> + Send + 'static,
) -> Source {
    let ids = call.read(|reader| {
        let views = (0..reader.device_slots()).filter_map(|position| reader.device_at(position));
        let mut keyed: Vec<(String, PartnershipId)> = views
            .map(|view| {
                let key = match device_object::field(&call.organisation, reader, &view, property) {
                    super::filter::Field::Text(text) => text.to_lowercase(),
                    super::filter::Field::Date(at) => format!("{at:020}"),
                    super::filter::Field::Bool(truth) => truth.to_string(),
                    super::filter::Field::Null => String::new(),
                };
                (key, view.id)
            })
            .collect();
        keyed.sort();
        keyed.into_iter().map(|(_, id)| id).collect()
    });
    of_ids(ids, limit, make)
}

/// Get-MobileDeviceStatistics and Get-ActiveSyncDeviceStatistics: for one phone or one mailbox, never for all.
pub(super) fn statistics(call: Call) -> Result<Answer, ErrorRecord> {
    let (identity, mailbox) = (call.bound.filled("Identity"), call.bound.filled("Mailbox"));
    let choice = Choice::new(&call)?;
    let show = call.bound.is_on("ShowRecoveryPassword");
    match (identity, mailbox) {
        (Some(identity), None) => {
            let object = call.read(|reader| {
                let view = find_device(&call.organisation, reader, &call.task, &identity)?;
                Ok(device_object::statistics(&call.organisation, reader, &view, show))
            })?;
            Ok(Answer { outputs: object.map(Output::Object).into_iter().collect(), source: None })
        }
        (None, Some(mailbox)) => {
            let owner = call.read(|reader| {
                find_mailbox(&call.organisation, reader, &call.task, &mailbox).map(|mailbox| mailbox.id)
            })?;
            Ok(of_mailbox(&call, owner, Limit(None), move |reader, view| {
                choice
                    .fits(reader, view)
                    .then(|| device_object::statistics(&choice.organisation, reader, view, show))
                    .flatten()
            }))
        }
        (None, None) => Err(super::errors::missing(call.spec.name, &["Identity"])),
        (Some(_), Some(_)) => Err(super::errors::parameter_set(call.spec.name)),
    }
}

fn target(call: &Call) -> Result<PartnershipId, ErrorRecord> {
    let identity = call.bound.filled("Identity").unwrap_or_default();
    call.read(|reader| find_device(&call.organisation, reader, &call.task, &identity).map(|view| view.id))
}

/// Clear-MobileDevice and Clear-ActiveSyncDevice.
pub(super) fn clear(call: Call) -> Result<Answer, ErrorRecord> {
    let identity = call.bound.filled("Identity").unwrap_or_default();
    let (cancel, account_only) = (call.bound.is_on("Cancel"), call.bound.is_on("AccountOnly"));
    if cancel && account_only {
        return Err(super::errors::parameter_set(call.spec.name));
    }
    let id = target(&call)?;
    if cancel {
        let refused = |why: &str| call.task.invalid_operation(why.to_owned(), &identity);
        return match call.organisation.write(call.controller, |writer| writer.cancel_wipe(id)) {
            Ok(()) => Ok(Answer::default()),
            Err(CancelError::NothingPending) => {
                Err(refused("There is no pending remote device wipe request to cancel."))
            }
            Err(CancelError::Acknowledged) => Err(refused(
                "The remote device wipe request can't be canceled because the device has already acknowledged it.",
            )),
        };
    }
    let kind = if account_only { WipeKind::AccountOnly } else { WipeKind::Full };
    let version = call.read(|reader| reader.device(id).map(|view| view.device.version)).unwrap_or(0);
    if account_only && version < 161 {
        let why = format!(
            "The device speaks ActiveSync {}, which has no account-only remote wipe; 16.1 is needed.",
            device_object::version_text(version)
        );
        return Err(call.task.invalid_operation(why, &identity));
    }
    if !call.organisation.write(call.controller, |writer| writer.request_wipe(id, kind)) {
        return Err(call.task.no_device(&identity));
    }
    Ok(Answer::default())
}

/// Remove-MobileDevice and Remove-ActiveSyncDevice.
pub(super) fn remove(call: Call) -> Result<Answer, ErrorRecord> {
    let id = target(&call)?;
    if !call.organisation.write(call.controller, |writer| writer.remove_device(id)) {
        return Err(call.task.no_device(&call.bound.filled("Identity").unwrap_or_default()));
    }
    Ok(Answer::default())
}
