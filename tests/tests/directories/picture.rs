//! What a directory looks like, drawn twice: from the records the agent sent, and from the directory itself as another
//! client reads it. The two must be equal.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, bail};
use causeway_protocol::record::Kind;
use causeway_tests::memory_cloud::MemoryCloud;
use ldap3::SearchEntry;
use serde_json::Value;

use crate::arm::{Arm, Product, first_bytes, texts};

/// Objects by stable id.
pub(crate) type Picture = BTreeMap<String, Object>;

/// One object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Object {
    pub kind: &'static str,
    pub dn: String,
    /// Stable id of the unit it is in, when that is visible too.
    pub parent: Option<String>,
    /// Login, mail, names ... by name of the record's field.
    pub fields: BTreeMap<&'static str, String>,
    /// Stable ids of direct members.
    pub members: BTreeSet<String>,
}

/// Fields of people that are compared, with the directory's attribute.
const PERSON: &[(&str, &str)] =
    &[("mail", "mail"), ("given_name", "givenName"), ("surname", "sn"), ("display_name", "displayName")];

/// What the agent told the cloud.
pub(crate) fn told(cloud: &MemoryCloud) -> Result<Picture> {
    let mut picture = Picture::new();
    let mut edges = Vec::new();
    for ((kind, key, member), value) in cloud.objects() {
        let text = |name: &str| value[name].as_str().map(str::to_owned);
        let mut object =
            Object { dn: text("dn").unwrap_or_default(), parent: text("parent"), ..Object::default() };
        let fields: &[&'static str] = match kind {
            Kind::Member => {
                edges.push((key, member.context("a membership without a member")?));
                continue;
            }
            Kind::User => {
                object.kind = "user";
                object.fields.insert("enabled", value["enabled"].to_string());
                &["login", "mail", "given_name", "surname", "display_name"]
            }
            Kind::Group => {
                object.kind = "group";
                &["name", "description"]
            }
            Kind::Ou => {
                object.kind = "unit";
                &["name"]
            }
            Kind::Device | Kind::DevicePolicy | Kind::MailOrganization => {
                bail!("a directory's collection sent a {}", kind.as_str())
            }
        };
        object.fields.extend(fields.iter().filter_map(|name| Some((*name, text(name)?))));
        picture.insert(key, object);
    }
    for (group, member) in edges {
        let known = picture.contains_key(&member);
        let Some(group) = picture.get_mut(&group) else {
            bail!("a membership of a group that was not sent: {group}")
        };
        anyhow::ensure!(known, "a member that was not sent: {member}");
        group.members.insert(member);
    }
    Ok(picture)
}

/// What the directory says to its administrator.
pub(crate) async fn seen(arm: &mut Arm) -> Result<Picture> {
    let product = arm.product;
    let (id_attribute, login) = match product {
        Product::ActiveDirectory => ("objectGUID", "sAMAccountName"),
        Product::OpenLdap => ("entryUUID", "uid"),
        Product::Ds389 => ("nsUniqueId", "uid"),
    };
    let off = match product {
        Product::ActiveDirectory => "userAccountControl",
        Product::OpenLdap => "pwdAccountLockedTime",
        Product::Ds389 => "nsAccountLock",
    };
    let mut asked = vec!["objectClass", id_attribute, login, off, "cn", "ou", "member", "description"];
    asked.extend(PERSON.iter().map(|(_, attribute)| *attribute));
    asked.sort_unstable();
    asked.dedup();
    let entries = arm.everything(&asked).await?;
    let mut ids = BTreeMap::new();
    for entry in &entries {
        let id = first_bytes(entry, id_attribute)
            .with_context(|| format!("{} has no {id_attribute}", entry.dn))?;
        ids.insert(entry.dn.to_lowercase(), id_text(product, &id)?);
    }
    let mut picture = Picture::new();
    for entry in &entries {
        let Some(mut object) = object(product, entry, login, off) else { continue };
        object.parent = parent(&entry.dn).and_then(|dn| ids.get(&dn.to_lowercase())).cloned();
        object.members =
            texts(entry, "member").iter().filter_map(|dn| ids.get(&dn.to_lowercase()).cloned()).collect();
        picture.insert(ids[&entry.dn.to_lowercase()].clone(), object);
    }
    Ok(picture)
}

/// Fails with the differences, if there are any.
pub(crate) fn compare(told: &Picture, seen: &Picture) -> Result<()> {
    let ids: BTreeSet<&String> = told.keys().chain(seen.keys()).collect();
    let differences: Vec<String> = ids
        .into_iter()
        .filter(|id| told.get(*id) != seen.get(*id))
        .take(5)
        .map(|id| {
            format!("{id}\n  the agent told {:?}\n  the directory has {:?}", told.get(id), seen.get(id))
        })
        .collect();
    if !differences.is_empty() {
        bail!("{} objects told, {} seen; they differ:\n{}", told.len(), seen.len(), differences.join("\n"));
    }
    Ok(())
}

fn object(product: Product, entry: &SearchEntry, login: &str, off: &str) -> Option<Object> {
    let is = |class: &str| texts(entry, "objectClass").iter().any(|has| has.eq_ignore_ascii_case(class));
    let first = |name: &str| texts(entry, name).first().cloned();
    let mut object = Object { dn: entry.dn.clone(), ..Object::default() };
    if is("inetOrgPerson") || is("user") {
        object.kind = "user";
        object.fields.insert("enabled", (!is_off(product, first(off))).to_string());
        object.fields.extend(first(login).map(|value| ("login", value)));
        object.fields.extend(PERSON.iter().filter_map(|(field, name)| Some((*field, first(name)?))));
    } else if is("groupOfNames") || is("group") {
        object.kind = "group";
        let name = if product == Product::ActiveDirectory { login } else { "cn" };
        object.fields.extend(first(name).map(|value| ("name", value)));
        object.fields.extend(first("description").map(|value| ("description", value)));
    } else if is("organizationalUnit") {
        object.kind = "unit";
        object.fields.extend(first("ou").map(|value| ("name", value)));
    } else {
        return None;
    }
    Some(object)
}

fn is_off(product: Product, value: Option<String>) -> bool {
    let Some(value) = value else { return false };
    match product {
        Product::ActiveDirectory => value.parse::<u32>().is_ok_and(|flags| flags & 2 != 0),
        Product::OpenLdap => value == "000001010000Z",
        Product::Ds389 => value.eq_ignore_ascii_case("true"),
    }
}

/// The id as records spell it: a GUID's first three groups are little-endian on the wire (MS-DTYP 2.3.4.2).
fn id_text(product: Product, id: &[u8]) -> Result<String> {
    if product != Product::ActiveDirectory {
        return Ok(String::from_utf8(id.to_vec())?.to_lowercase());
    }
    let [a, b, c, d, e, f, g, h, rest @ ..] = id else { bail!("an objectGUID of {} bytes", id.len()) };
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    Ok(format!(
        "{}-{}-{}-{}-{}",
        hex(&[*d, *c, *b, *a]),
        hex(&[*f, *e]),
        hex(&[*h, *g]),
        hex(&rest[..2]),
        hex(&rest[2..])
    ))
}

fn parent(dn: &str) -> Option<&str> {
    let mut escaped = false;
    for (at, byte) in dn.bytes().enumerate() {
        match byte {
            b'\\' if !escaped => escaped = true,
            b',' if !escaped => return Some(&dn[at + 1..]),
            _ => escaped = false,
        }
    }
    None
}

/// For messages: the value under a key of a sync result.
pub(crate) fn word<'a>(result: &'a Value, key: &str) -> &'a str {
    result[key].as_str().unwrap_or("(none)")
}
