//! Names of things: what an `Identity` may be.

use causeway_mock_kit::world::Person;
use causeway_protocol::cmdlet::ErrorRecord;

use super::errors::Task;
use crate::world::{
    Device, DeviceView, MailboxId, MailboxView, Organisation, Policy, PolicyId, Reader, parse_guid,
};

/// Container of a mailbox's phones in the directory.
pub(super) const CONTAINER: &str = "ExchangeActiveSyncDevices";

/// Between type and id in the name of a phone.
pub(super) const SECTION: char = '§';

/// `iPhone§ApplF9XXXX`
pub(super) fn device_name(device: &Device) -> String {
    format!("{}{SECTION}{}", device.device_type, device.id)
}

/// `acme.example/London/Sales/Alice Smith`
pub(super) fn canonical(organisation: &Organisation, person: &Person) -> String {
    let company = organisation.company();
    let mut name = company.domain.clone();
    for ou in company.ou_path(person.ou) {
        name.push('/');
        name.push_str(&ou.name);
    }
    name.push('/');
    name.push_str(&person.display_name);
    name
}

/// `CN=Alice Smith,OU=Sales,OU=London,DC=acme,DC=example`
pub(super) fn distinguished(organisation: &Organisation, person: &Person) -> String {
    let company = organisation.company();
    let mut name = format!("CN={}", escaped(&person.display_name));
    for ou in company.ou_path(person.ou).iter().rev() {
        name.push_str(",OU=");
        name.push_str(&escaped(&ou.name));
    }
    name.push(',');
    name.push_str(&company.base_dn);
    name
}

/// RFC 4514 section 2.4.
fn escaped(value: &str) -> String {
    value.chars().fold(String::new(), |mut text, char| {
        if r#",+"\<>;="#.contains(char) {
            text.push('\\');
        }
        text.push(char);
        text
    })
}

/// Identity of a phone: by folder on premises, by alias in the service.
pub(super) fn device_identity(organisation: &Organisation, person: &Person, device: &Device) -> String {
    if organisation.facts().profile.online {
        let program = match device.client {
            crate::world::ClientType::Eas => String::new(),
            client => format!("{}{SECTION}", if client.name() == "Outlook" { "REST" } else { client.name() }),
        };
        return format!("{}\\{CONTAINER}\\{program}{}", person.login, device_name(device));
    }
    format!("{}/{CONTAINER}/{}", canonical(organisation, person), device_name(device))
}

pub(super) fn device_dn(organisation: &Organisation, person: &Person, device: &Device) -> String {
    format!("CN={},CN={CONTAINER},{}", escaped(&device_name(device)), distinguished(organisation, person))
}

/// The mailbox an identity names: GUID, DN, canonical name, login, UPN, address, `DOMAIN\login` or display name.
pub(super) fn find_mailbox<'a>(
    organisation: &Organisation,
    reader: &Reader<'a>,
    task: &Task,
    identity: &str,
) -> Result<MailboxView<'a>, ErrorRecord> {
    let identity = identity.trim();
    if let Some(found) = reader.mailbox_named(identity) {
        return Ok(found);
    }
    let people = &organisation.company().people;
    let position = if let Some(guid) = parse_guid(identity) {
        people.iter().position(|person| person.guid() == guid || exchange_guid(organisation, person) == guid)
    } else if let Some(rest) = strip_ascii_prefix(identity, "CN=") {
        // Only the owners whose name the DN begins with are compared in full.
        let candidate = |person: &&Person| rest.starts_with(escaped(&person.display_name).as_str());
        let whole = |person: &&Person| distinguished(organisation, person).eq_ignore_ascii_case(identity);
        people.iter().find(|person| candidate(person) && whole(person)).map(|person| person.index as usize)
    } else if let Some((_, name)) = identity.rsplit_once('/') {
        let whole = |person: &&Person| canonical(organisation, person).eq_ignore_ascii_case(identity);
        people
            .iter()
            .find(|person| person.display_name.eq_ignore_ascii_case(name) && whole(person))
            .map(|person| person.index as usize)
    } else {
        let mut named =
            people.iter().filter(|person| person.display_name.to_lowercase() == identity.to_lowercase());
        match (named.next(), named.next()) {
            (Some(_), Some(_)) => return Err(task.ambiguous(identity)),
            (first, _) => first.map(|person| person.index as usize),
        }
    };
    let position = position.and_then(|position| u32::try_from(position).ok());
    position.and_then(|position| reader.mailbox_at(position)).ok_or_else(|| task.not_found(identity))
}

fn strip_ascii_prefix<'a>(text: &'a str, prefix: &str) -> Option<&'a str> {
    text.get(..prefix.len()).filter(|head| head.eq_ignore_ascii_case(prefix)).map(|_| &text[prefix.len()..])
}

/// Id of the mailbox itself, besides that of its owner.
pub(super) fn exchange_guid(organisation: &Organisation, person: &Person) -> [u8; 16] {
    let mut guid = person.guid();
    let salt = organisation.facts().guid;
    guid.iter_mut().zip(salt).for_each(|(byte, salt)| *byte ^= salt);
    guid[6] = guid[6] & 0x0f | 0x40;
    guid[8] = guid[8] & 0x3f | 0x80;
    guid
}

/// The phone an identity names: GUID, DN, canonical identity, `alias\ExchangeActiveSyncDevices\type§id`, or its bare name
/// when only one phone has it.
pub(super) fn find_device<'a>(
    organisation: &Organisation,
    reader: &Reader<'a>,
    task: &Task,
    identity: &str,
) -> Result<DeviceView<'a>, ErrorRecord> {
    let identity = identity.trim();
    if let Some(guid) = parse_guid(identity) {
        return reader.device_by_guid(&guid).ok_or_else(|| task.not_found(identity));
    }
    if let Some(owner) = owner_of(organisation, reader, task, identity)? {
        let same = |device: &DeviceView<'_>| {
            let person = reader.mailbox(owner).map(|mailbox| mailbox.person);
            person.is_some_and(|person| {
                device_identity(organisation, person, device.device).eq_ignore_ascii_case(identity)
                    || device_dn(organisation, person, device.device).eq_ignore_ascii_case(identity)
                    || old_style(person, device.device).eq_ignore_ascii_case(identity)
            })
        };
        return reader.devices_of(owner).find(same).ok_or_else(|| task.not_found(identity));
    }
    let mut named =
        (0..reader.device_slots()).filter_map(|position| reader.device_at(position)).filter(|device| {
            identity.contains(SECTION) && device_name(device.device).eq_ignore_ascii_case(identity)
        });
    match (named.next(), named.next()) {
        (Some(_), Some(_)) => Err(task.ambiguous(identity)),
        (Some(one), None) => Ok(one),
        (None, _) => Err(task.not_found(identity)),
    }
}

fn old_style(person: &Person, device: &Device) -> String {
    format!("{}\\{CONTAINER}\\{}", person.login, device_name(device))
}

/// The mailbox whose folder an identity names, if it names a folder.
fn owner_of(
    organisation: &Organisation,
    reader: &Reader<'_>,
    task: &Task,
    identity: &str,
) -> Result<Option<MailboxId>, ErrorRecord> {
    let lower = identity.to_ascii_lowercase();
    let container = CONTAINER.to_ascii_lowercase();
    let place = |part: String| lower.find(&part).map(|at| (at, at + part.len()));
    let before = [format!("/{container}/"), format!("\\{container}\\")].into_iter().find_map(place);
    let owner = before.map(|(at, _)| &identity[..at]);
    let owner = owner.or_else(|| place(format!(",cn={container},")).map(|(_, end)| &identity[end..]));
    let Some(owner) = owner else { return Ok(None) };
    match find_mailbox(organisation, reader, task, owner) {
        Ok(mailbox) => Ok(Some(mailbox.id)),
        Err(_) => Err(task.not_found(identity)),
    }
}

/// The policy an identity names: name, GUID or DN.
pub(super) fn find_policy<'a>(
    organisation: &Organisation,
    reader: &Reader<'a>,
    task: &Task,
    identity: &str,
) -> Result<(PolicyId, &'a Policy), ErrorRecord> {
    let identity = identity.trim();
    let guid = parse_guid(identity);
    reader
        .policies()
        .find(|(_, policy)| {
            policy.name.eq_ignore_ascii_case(identity)
                || guid == Some(policy.guid)
                || policy_dn(organisation, policy).eq_ignore_ascii_case(identity)
        })
        .ok_or_else(|| task.not_found(identity))
}

pub(super) fn policy_dn(organisation: &Organisation, policy: &Policy) -> String {
    format!("CN={},CN=Mobile Mailbox Policies,{}", escaped(&policy.name), configuration_dn(organisation))
}

/// Where the organisation keeps its settings in the directory.
pub(super) fn configuration_dn(organisation: &Organisation) -> String {
    let facts = organisation.facts();
    format!("CN={},CN=Microsoft Exchange,CN=Services,CN=Configuration,{}", facts.name, facts.base_dn)
}
