//! Cmdlets about mailboxes and their owners.

use std::sync::Arc;

use causeway_protocol::clixml::{Object, Value};
use causeway_protocol::cmdlet::ErrorRecord;

use super::binding::ListEdit;
use super::filter::{Field, Filter};
use super::identity::{canonical, configuration_dn, distinguished, exchange_guid, find_mailbox, find_policy};
use super::object::{Builder, Types};
use super::{Answer, Call, Output, list};
use crate::limits::PERSONAL_IDS_MAX;
use crate::world::{MailboxView, Organisation, Reader};

static CAS: Types = &[
    "Deserialized.Microsoft.Exchange.Data.Directory.Management.CASMailbox",
    "Deserialized.Microsoft.Exchange.Data.Directory.Management.ADPresentationObject",
    "Deserialized.System.Object",
    "System.Object",
];
static MAILBOX: Types = &[
    "Deserialized.Microsoft.Exchange.Data.Directory.Management.Mailbox",
    "Deserialized.Microsoft.Exchange.Data.Directory.Management.MailEnabledOrgPerson",
    "Deserialized.System.Object",
    "System.Object",
];
static RECIPIENT: Types = &[
    "Deserialized.Microsoft.Exchange.Data.Directory.Management.ReducedRecipient",
    "Deserialized.System.Object",
    "System.Object",
];
static USER: Types = &[
    "Deserialized.Microsoft.Exchange.Data.Directory.Management.User",
    "Deserialized.System.Object",
    "System.Object",
];

/// Longest device id a list takes (MS-ASHTTP 2.2.1.1.2.3 allows 32, the property of the directory more).
const DEVICE_ID_MAX: usize = 140;

const FILTERABLE: [&str; 18] = [
    "Alias",
    "DisplayName",
    "PrimarySmtpAddress",
    "SamAccountName",
    "UserPrincipalName",
    "Name",
    "Department",
    "Title",
    "City",
    "Office",
    "Database",
    "ServerName",
    "RecipientType",
    "RecipientTypeDetails",
    "ActiveSyncEnabled",
    "HasActiveSyncDevicePartnership",
    "ActiveSyncMailboxPolicy",
    "Guid",
];

fn field<'a>(
    organisation: &Organisation,
    reader: &Reader<'a>,
    view: &MailboxView<'a>,
    name: &str,
) -> Field<'a> {
    let person = view.person;
    match name.to_ascii_lowercase().as_str() {
        "alias" | "samaccountname" => (&*person.login).into(),
        "displayname" | "name" => (&*person.display_name).into(),
        "primarysmtpaddress" => (&*person.mail).into(),
        "userprincipalname" => Field::Text(organisation.company().upn(&person.login).into()),
        "department" => person.department.into(),
        "title" => person.title.into(),
        "city" | "office" => person.city().into(),
        "database" => view.database.name.as_str().into(),
        "servername" => view.database.server.as_str().into(),
        "recipienttype" | "recipienttypedetails" => "UserMailbox".into(),
        "activesyncenabled" => Field::Bool(view.cas.active_sync_enabled),
        "hasactivesyncdevicepartnership" => Field::Bool(has_partnership(reader, view)),
        "activesyncmailboxpolicy" => reader
            .policy_of(view.cas)
            .map_or(Field::Null, |(_, policy)| Field::Text(policy.name.to_string().into())),
        "guid" => Field::Text(crate::world::guid_text(&person.guid()).into()),
        _ => Field::Null,
    }
}

fn has_partnership(reader: &Reader<'_>, view: &MailboxView<'_>) -> bool {
    reader.devices_of(view.id).next().is_some()
}

/// What one of these cmdlets makes of a mailbox.
type Make = fn(&Organisation, &Reader<'_>, &MailboxView<'_>) -> Object;

pub(super) fn get_cas(call: Call) -> Result<Answer, ErrorRecord> {
    get(&call, cas_object)
}

pub(super) fn get_mailbox(call: Call) -> Result<Answer, ErrorRecord> {
    get(&call, mailbox_object)
}

pub(super) fn get_recipient(call: Call) -> Result<Answer, ErrorRecord> {
    get(&call, recipient_object)
}

pub(super) fn get_user(call: Call) -> Result<Answer, ErrorRecord> {
    get(&call, user_object)
}

fn get(call: &Call, make: Make) -> Result<Answer, ErrorRecord> {
    if let Some(identity) = call.bound.filled("Identity") {
        let object = call.read(|reader| {
            let view = find_mailbox(&call.organisation, reader, &call.task, &identity)?;
            Ok(make(&call.organisation, reader, &view))
        })?;
        return Ok(Answer { outputs: vec![Output::Object(object)], source: None });
    }
    let known = |name: &str| FILTERABLE.iter().any(|known| known.eq_ignore_ascii_case(name));
    let filter = match call.bound.filled("Filter") {
        Some(text) => Some(Filter::parse(&text, known).map_err(|why| call.task.recipient_task(why, &text))?),
        None => None,
    };
    let unit =
        call.bound.filled("OrganizationalUnit").map(|name| super::device::unit(call, &name)).transpose()?;
    let anr = call.bound.filled("Anr").map(|text| text.to_lowercase());
    let server =
        call.bound.filled("Server").map(|name| name.split('.').next().unwrap_or_default().to_lowercase());
    let database = call.bound.filled("Database").map(|name| name.to_lowercase());
    check_place(call, server.as_deref(), database.as_deref())?;
    let organisation = Arc::clone(&call.organisation);
    let count = call.read(|reader| reader.mailbox_count());
    let source = list(count, call.bound.limit(), move |reader, position| {
        let view = reader.mailbox_at(position)?;
        let person = view.person;
        let fits = server.as_deref().is_none_or(|name| view.database.server.eq_ignore_ascii_case(name))
            && database.as_deref().is_none_or(|name| view.database.name.eq_ignore_ascii_case(name))
            && anr.as_deref().is_none_or(|text| {
                [&person.login, &person.display_name, &person.mail]
                    .iter()
                    .any(|name| name.to_lowercase().starts_with(text))
            })
            && unit
                .as_deref()
                .is_none_or(|unit| canonical(&organisation, person).to_lowercase().starts_with(unit))
            && filter
                .as_ref()
                .is_none_or(|filter| filter.matches(&|name| field(&organisation, reader, &view, name)));
        fits.then(|| make(&organisation, reader, &view))
    });
    Ok(Answer { source: Some(source), outputs: Vec::new() })
}

/// A server or database that does not exist is an error, not an empty list.
fn check_place(call: &Call, server: Option<&str>, database: Option<&str>) -> Result<(), ErrorRecord> {
    let databases = call.organisation.databases();
    if let Some(name) = server
        && !databases.iter().any(|database| database.server.eq_ignore_ascii_case(name))
    {
        return Err(call.task.not_found(name));
    }
    match database {
        Some(name) if !databases.iter().any(|database| database.name.eq_ignore_ascii_case(name)) => {
            Err(call.task.not_found(name))
        }
        _ => Ok(()),
    }
}

/// What all four objects have in common, at their end.
fn finish(
    organisation: &Organisation,
    reader: &Reader<'_>,
    view: &MailboxView<'_>,
    object: Builder,
    changed_ms: i64,
) -> Object {
    let (person, online) = (view.person, organisation.facts().profile.online);
    let canonical = canonical(organisation, person);
    object
        .text("Name", &*person.display_name)
        .text("DistinguishedName", distinguished(organisation, person))
        .text("Identity", if online { person.login.to_string() } else { canonical })
        .guid("Guid", &person.guid())
        .date("WhenChanged", Some(changed_ms))
        .date("WhenCreated", Some(person.created_ms))
        .date("WhenChangedUTC", Some(changed_ms))
        .date("WhenCreatedUTC", Some(person.created_ms))
        .text("OrganizationId", if online { organisation.facts().tenant.clone() } else { String::new() })
        .text("OriginatingServer", reader.controller_name())
        .text("ExchangeVersion", "0.20 (15.0.0.0)")
        .bool("IsValid", true)
        .done()
}

fn to_string(organisation: &Organisation, view: &MailboxView<'_>) -> String {
    if organisation.facts().profile.online {
        view.person.login.to_string()
    } else {
        canonical(organisation, view.person)
    }
}

fn addresses(view: &MailboxView<'_>) -> [String; 1] {
    [format!("SMTP:{}", view.person.mail)]
}

fn cas_object(organisation: &Organisation, reader: &Reader<'_>, view: &MailboxView<'_>) -> Object {
    let (person, cas, profile) = (view.person, view.cas, organisation.facts().profile);
    let policy = reader.policy_of(cas);
    let mut object = Builder::new(CAS, to_string(organisation, view))
        .list("EmailAddresses", addresses(view))
        .text("SamAccountName", &*person.login)
        .text("PrimarySmtpAddress", &*person.mail)
        .text("DisplayName", &*person.display_name)
        .text(
            "LegacyExchangeDN",
            format!("/o={}/ou=Exchange/cn=Recipients/cn={}", organisation.facts().name, person.login),
        )
        .text("LinkedMasterAccount", "")
        .text("ServerName", &*view.database.server)
        .text(
            "ServerLegacyDN",
            format!("/o={}/ou=Exchange/cn=Servers/cn={}", organisation.facts().name, view.database.server),
        )
        .list("ActiveSyncAllowedDeviceIDs", &cas.allowed);
    if profile.quarantine {
        object = object.list("ActiveSyncBlockedDeviceIDs", &cas.blocked);
    }
    object = object
        .value(
            "ActiveSyncMailboxPolicy",
            policy.map_or(Value::Null, |(_, policy)| Value::String(policy.name.to_string())),
        )
        .bool("ActiveSyncMailboxPolicyIsDefaulted", cas.policy.is_none())
        .bool("ActiveSyncDebugLogging", cas.active_sync_debug_logging)
        .bool("ActiveSyncEnabled", cas.active_sync_enabled)
        .bool("HasActiveSyncDevicePartnership", has_partnership(reader, view))
        .bool("OWAEnabled", cas.owa_enabled)
        .bool("PopEnabled", cas.pop_enabled)
        .bool("ImapEnabled", cas.imap_enabled)
        .bool("MAPIEnabled", cas.mapi_enabled)
        .bool("EwsEnabled", cas.ews_enabled)
        .bool("OWAforDevicesEnabled", cas.owa_for_devices_enabled);
    if profile.online {
        object = object.text("ExternalDirectoryObjectId", crate::world::guid_text(&person.guid()));
    }
    finish(organisation, reader, view, object, cas.changed_ms)
}

fn mailbox_object(organisation: &Organisation, reader: &Reader<'_>, view: &MailboxView<'_>) -> Object {
    let (person, online) = (view.person, organisation.facts().profile.online);
    let mut object = Builder::new(MAILBOX, to_string(organisation, view))
        .text("Database", &*view.database.name)
        .text("ServerName", &*view.database.server)
        .guid("ExchangeGuid", &exchange_guid(organisation, person))
        .guid("MailboxDatabaseGuid", &view.database.guid)
        .text("Alias", &*person.login)
        .text("SamAccountName", &*person.login)
        .text("UserPrincipalName", organisation.company().upn(&person.login))
        .text("DisplayName", &*person.display_name)
        .text("PrimarySmtpAddress", &*person.mail)
        .text("WindowsEmailAddress", &*person.mail)
        .list("EmailAddresses", addresses(view))
        .text("OrganizationalUnit", unit_of(organisation, view))
        .text("Office", person.city())
        .text("RecipientType", "UserMailbox")
        .text("RecipientTypeDetails", "UserMailbox")
        .text("ResourceType", "")
        .bool("IsMailboxEnabled", true)
        .bool("AccountDisabled", person.state == causeway_mock_kit::world::PersonState::Disabled)
        .bool("HiddenFromAddressListsEnabled", false);
    if !online {
        object =
            object.text("HomeMTA", format!("CN={},{}", view.database.server, configuration_dn(organisation)));
    } else {
        object = object.text("ExternalDirectoryObjectId", crate::world::guid_text(&person.guid()));
    }
    finish(organisation, reader, view, object, person.created_ms)
}

fn unit_of(organisation: &Organisation, view: &MailboxView<'_>) -> String {
    let name = canonical(organisation, view.person);
    name.rsplit_once('/').map_or(String::new(), |(unit, _)| unit.to_owned())
}

fn recipient_object(organisation: &Organisation, reader: &Reader<'_>, view: &MailboxView<'_>) -> Object {
    let person = view.person;
    let object = Builder::new(RECIPIENT, to_string(organisation, view))
        .text("Alias", &*person.login)
        .text("DisplayName", &*person.display_name)
        .text("PrimarySmtpAddress", &*person.mail)
        .list("EmailAddresses", addresses(view))
        .text("RecipientType", "UserMailbox")
        .text("RecipientTypeDetails", "UserMailbox")
        .text("Department", person.department)
        .text("Title", person.title)
        .text("City", person.city())
        .text("DatabaseName", &*view.database.name)
        .bool("HasActiveSyncDevicePartnership", has_partnership(reader, view))
        .text("OrganizationalUnit", unit_of(organisation, view));
    finish(organisation, reader, view, object, person.created_ms)
}

fn user_object(organisation: &Organisation, reader: &Reader<'_>, view: &MailboxView<'_>) -> Object {
    let person = view.person;
    let object = Builder::new(USER, to_string(organisation, view))
        .text("SamAccountName", &*person.login)
        .text("UserPrincipalName", organisation.company().upn(&person.login))
        .text("FirstName", person.given_name)
        .text("LastName", person.surname)
        .text("DisplayName", &*person.display_name)
        .text("WindowsEmailAddress", &*person.mail)
        .text("Department", person.department)
        .text("Title", person.title)
        .text("Office", person.city())
        .text("City", person.city())
        .text("CountryOrRegion", person.country())
        .text("Phone", person.phone())
        .text("MobilePhone", person.mobile())
        .text("RecipientType", "UserMailbox")
        .text("RecipientTypeDetails", "UserMailbox")
        .bool("RemotePowerShellEnabled", true)
        .text("OrganizationalUnit", unit_of(organisation, view));
    finish(organisation, reader, view, object, person.created_ms)
}

/// Set-CASMailbox. `@{Add=..; Remove=..}` changes what the list is at that moment; a plain list replaces it.
pub(super) fn set_cas(call: Call) -> Result<Answer, ErrorRecord> {
    let identity = call.bound.filled("Identity").unwrap_or_default();
    let mailbox = call.read(|reader| {
        find_mailbox(&call.organisation, reader, &call.task, &identity).map(|mailbox| mailbox.id)
    })?;
    let policy = match call.bound.value("ActiveSyncMailboxPolicy") {
        None => None,
        Some(_) => Some(match call.bound.filled("ActiveSyncMailboxPolicy") {
            None => None,
            Some(name) => Some(call.read(|reader| {
                find_policy(&call.organisation, reader, &call.task, &name).map(|(id, _)| id)
            })?),
        }),
    };
    let (allowed, blocked) =
        (ids(&call, "ActiveSyncAllowedDeviceIDs")?, ids(&call, "ActiveSyncBlockedDeviceIDs")?);
    let reset = call.bound.is_on("ResetAutoBlockedDevices");
    let bound = &call.bound;
    let too_many = call.organisation.write(call.controller, |writer| {
        let mut too_many = false;
        writer.change_cas(mailbox, |cas| {
            let before = cas.clone();
            for (list, edit) in [(&mut cas.allowed, allowed), (&mut cas.blocked, blocked)] {
                if let Some(edit) = edit {
                    apply(list, edit);
                }
            }
            too_many = cas.allowed.len() > PERSONAL_IDS_MAX || cas.blocked.len() > PERSONAL_IDS_MAX;
            if too_many {
                *cas = before;
                return;
            }
            if let Some(policy) = policy {
                cas.policy = policy;
            }
            let put = |name: &str, place: &mut bool| *place = bound.bool(name).unwrap_or(*place);
            put("ActiveSyncEnabled", &mut cas.active_sync_enabled);
            put("ActiveSyncDebugLogging", &mut cas.active_sync_debug_logging);
            put("OWAEnabled", &mut cas.owa_enabled);
            put("PopEnabled", &mut cas.pop_enabled);
            put("ImapEnabled", &mut cas.imap_enabled);
            put("MAPIEnabled", &mut cas.mapi_enabled);
            put("EwsEnabled", &mut cas.ews_enabled);
            put("OWAforDevicesEnabled", &mut cas.owa_for_devices_enabled);
        });
        if reset {
            writer.reset_autoblocked(mailbox);
        }
        too_many
    });
    if too_many {
        return Err(call.task.too_many("device ids of a mailbox", PERSONAL_IDS_MAX));
    }
    Ok(Answer::default())
}

/// What is to happen to a list of device ids; every id must be one.
fn ids(call: &Call, name: &'static str) -> Result<Option<ListEdit>, ErrorRecord> {
    let Some(edit) = call.bound.edit(name) else { return Ok(None) };
    let all: Vec<&String> = match &edit {
        ListEdit::Replace(ids) => ids.iter().collect(),
        ListEdit::Change { add, remove } => add.iter().chain(remove).collect(),
    };
    match all.into_iter().find(|id| id.trim().is_empty() || id.chars().count() > DEVICE_ID_MAX) {
        Some(id) => {
            let why = format!(
                "\"{id}\" isn't a valid device ID: it must have between 1 and {DEVICE_ID_MAX} characters."
            );
            Err(super::errors::validation(call.spec.name, name, &why))
        }
        None => Ok(Some(edit)),
    }
}

/// Applies a change to a list whose texts are compared whatever their case. Adding what is there and removing what is not
/// are no errors.
pub(super) fn apply<T: AsRef<str> + From<String>>(list: &mut Vec<T>, edit: ListEdit) {
    let has = |list: &[T], id: &str| list.iter().any(|known| known.as_ref().eq_ignore_ascii_case(id));
    let (add, remove) = match edit {
        ListEdit::Replace(ids) => {
            list.clear();
            (ids, Vec::new())
        }
        ListEdit::Change { add, remove } => (add, remove),
    };
    list.retain(|known| !remove.iter().any(|id| id.eq_ignore_ascii_case(known.as_ref())));
    for id in add {
        if !has(list, &id) {
            list.push(id.into());
        }
    }
}
