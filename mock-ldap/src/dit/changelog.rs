//! The retro changelog of 389-ds and Oracle: `cn=changelog` with one entry per change, read from the log.

use bytes::BytesMut;

use super::encode::encode_made_up;
use super::limits;
use super::log::Record;
use super::made_up::{self, MadeUp};
use super::reader::{Reader, ns_unique_id};
use super::replica::Replica;
use super::time_text;
use super::types::{ChangeKind, EntryId, Matches, ModOp, Modification, Scope, SearchPlan};
use crate::dn::Dn;
use crate::filter::Filter;
use crate::personality::Vendor;

/// Numbers from here on are entries of the changelog: change n is this plus n, and the container is this itself.
const VIRTUAL: u32 = 0x8000_0000;
const SUFFIX: &str = "cn=changelog";

/// What a changelog entry says beyond its number.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Body {
    pub(crate) target: String,
    /// LDIF of the change, without the dn line.
    pub(crate) changes: Vec<u8>,
    pub(crate) new_rdn: Option<String>,
    pub(crate) delete_old_rdn: bool,
    pub(crate) new_superior: Option<String>,
    pub(crate) uuid: [u8; 16],
}

pub(crate) fn is_virtual(id: EntryId) -> bool {
    id.0 >= VIRTUAL
}

impl Body {
    pub(crate) fn add(target: String, uuid: [u8; 16], attributes: &[(String, Vec<Vec<u8>>)]) -> Self {
        let mut changes = Vec::new();
        for (name, values) in attributes {
            values.iter().for_each(|value| ldif_line(name, value, &mut changes));
        }
        Self { target, changes, uuid, ..Self::default() }
    }

    pub(crate) fn modify(target: String, uuid: [u8; 16], modifications: &[Modification]) -> Self {
        let mut changes = Vec::new();
        for modification in modifications {
            let word = match modification.op {
                ModOp::Add => "add",
                ModOp::Delete => "delete",
                ModOp::Replace => "replace",
                ModOp::Increment => "increment",
            };
            ldif_line(word, modification.attribute.as_bytes(), &mut changes);
            modification
                .values
                .iter()
                .for_each(|value| ldif_line(&modification.attribute, value, &mut changes));
            changes.extend_from_slice(b"-\n");
        }
        Self { target, changes, uuid, ..Self::default() }
    }
}

/// `name: value`, base64 where the value is not plain (RFC 2849). Passwords are masked: a changelog is no secret.
fn ldif_line(name: &str, value: &[u8], out: &mut Vec<u8>) {
    use base64::Engine as _;
    let secret = ["userpassword", "unicodepwd"].contains(&name.to_ascii_lowercase().as_str());
    let value: &[u8] = if secret { b"********" } else { value };
    let safe_start = !matches!(value.first(), Some(b' ' | b':' | b'<'));
    let plain =
        safe_start && value.last() != Some(&b' ') && value.iter().all(|byte| (0x20..0x7f).contains(byte));
    out.extend_from_slice(name.as_bytes());
    if plain {
        out.extend_from_slice(b": ");
        out.extend_from_slice(value);
    } else {
        out.extend_from_slice(b":: ");
        out.extend_from_slice(base64::engine::general_purpose::STANDARD.encode(value).as_bytes());
    }
    out.push(b'\n');
}

impl Replica {
    fn has_changelog(&self) -> bool {
        matches!(self.shared.personality.vendor, Vendor::Ds389 | Vendor::Oracle)
    }

    /// First and last change number; both zero when nothing has changed yet.
    pub(crate) fn changelog_bounds(&self) -> (u64, u64) {
        self.read(bounds)
    }

    /// Answers a search under `cn=changelog`; `None` when the base lies elsewhere.
    pub(crate) fn search_changelog(&self, plan: &SearchPlan<'_>) -> Option<Matches> {
        let base = Dn::parse(plan.base).ok().filter(|_| self.has_changelog())?;
        let at = |level: usize| base.rdns.get(level).and_then(|rdn| rdn.parts.first());
        let is_log = |level: usize| {
            at(level).is_some_and(|part| {
                part.attribute.eq_ignore_ascii_case("cn") && part.value.eq_ignore_ascii_case(b"changelog")
            })
        };
        let numbered = match base.rdns.len() {
            1 if is_log(0) => None,
            2 if is_log(1) => Some(std::str::from_utf8(&at(0)?.value).ok()?.parse::<u64>().ok()?),
            _ => return None,
        };
        Some(self.read(|reader| self.changelog_matches(reader, plan, numbered)))
    }

    fn changelog_matches(
        &self,
        reader: &Reader<'_>,
        plan: &SearchPlan<'_>,
        numbered: Option<u64>,
    ) -> Matches {
        let mut matches = Matches { change_number: reader.tree.log.last_usn(), ..Matches::default() };
        // 389-ds refuses nothing: who may not read the changes sees none.
        if !self.rights(reader, plan.who).replicate {
            return matches;
        }
        let (first, last) = bounds(reader);
        let numbers = match (numbered, plan.scope) {
            (None, Scope::Base) => 0..=0,
            (None, Scope::Subtree) => 0..=last,
            (None, _) => first.max(1)..=last,
            (Some(number), Scope::Base | Scope::Subtree) => number..=number,
            (Some(_), _) => return matches,
        };
        let from = lower_bound(plan.filter).unwrap_or(0);
        for number in numbers {
            if (number != 0 && number < first.max(from)) || number > last {
                continue;
            }
            let Some(attributes) = entry(reader, number) else { continue };
            if made_up::holds(plan.filter, &attributes, &self.shared.schema, self.shared.folding)
                != Some(true)
            {
                continue;
            }
            if matches.ids.len() >= plan.count_max {
                matches.truncated = true;
                break;
            }
            matches.ids.push(EntryId(VIRTUAL + number as u32));
        }
        matches
    }

    pub(crate) fn encode_changelog(
        &self,
        id: EntryId,
        selection: &super::types::Selection,
        out: &mut BytesMut,
    ) -> bool {
        let number = u64::from(id.0 - VIRTUAL);
        self.read(|reader| {
            let Some(attributes) = entry(reader, number) else { return false };
            encode_made_up(&dn_of(number), &attributes, selection, out);
            true
        })
    }
}

fn dn_of(number: u64) -> String {
    if number == 0 { SUFFIX.to_owned() } else { format!("changenumber={number},{SUFFIX}") }
}

fn bounds(reader: &Reader<'_>) -> (u64, u64) {
    let log = &reader.tree.log;
    let last = log.last_usn() - log.base_usn();
    let oldest = log.first_usn() - log.base_usn();
    let first = oldest.max((last + 1).saturating_sub(limits::CHANGELOG_RECORDS_MAX as u64));
    if last == 0 { (0, 0) } else { (first, last) }
}

/// The smallest change number a filter can match, so that a poll does not read the whole log.
fn lower_bound(filter: &Filter) -> Option<u64> {
    match filter {
        Filter::GreaterOrEqual { attr, value } | Filter::Equality { attr, value }
            if attr == "changenumber" =>
        {
            std::str::from_utf8(value).ok()?.trim().parse().ok()
        }
        Filter::And(parts) => parts.iter().filter_map(lower_bound).max(),
        _ => None,
    }
}

fn entry(reader: &Reader<'_>, number: u64) -> Option<Vec<MadeUp>> {
    if number == 0 {
        return Some(vec![
            MadeUp::new("objectClass", ["top", "nsContainer"]),
            MadeUp::new("cn", ["changelog"]),
        ]);
    }
    let record = reader.tree.log.record(reader.tree.log.base_usn() + number)?;
    Some(change_entry(reader, number, record))
}

fn change_entry(reader: &Reader<'_>, number: u64, record: &Record) -> Vec<MadeUp> {
    let made = record.changelog.as_deref();
    // Changes the server makes by itself, such as lock times, carry no text of their own.
    let fallback = || record.gone.as_ref().map_or_else(|| reader.tree.dn(record.id), |gone| gone.dn.clone());
    let target = made.map_or_else(fallback, |body| body.target.clone());
    let uuid = made.map(|body| body.uuid).or_else(|| reader.tree.node(record.id).map(|node| node.entry.uuid));
    let kind = match record.kind {
        ChangeKind::Add => "add",
        ChangeKind::Delete => "delete",
        ChangeKind::Modify => "modify",
        ChangeKind::ModifyDn => "modrdn",
    };
    let mut attributes = vec![
        MadeUp::new("objectClass", ["top", "changelogentry"]),
        MadeUp::new("changeNumber", [number.to_string()]),
        MadeUp::new("targetDn", [target]),
        MadeUp::new("changeType", [kind]),
        MadeUp::new("changeTime", [time_text::generalized(record.csn.at_ms)]),
    ];
    if let Some(uuid) = uuid {
        attributes.push(MadeUp::new("targetUniqueId", [ns_unique_id(&uuid)]));
        attributes.push(MadeUp::operational("nsUniqueId", [ns_unique_id(&uuid)]));
    }
    let Some(body) = made else { return attributes };
    if !body.changes.is_empty() {
        attributes.push(MadeUp::new("changes", [body.changes.clone()]));
    }
    if let Some(new_rdn) = &body.new_rdn {
        attributes.push(MadeUp::new("newRdn", [new_rdn.as_str()]));
        attributes.push(MadeUp::new("deleteOldRdn", [if body.delete_old_rdn { "TRUE" } else { "FALSE" }]));
    }
    body.new_superior.iter().for_each(|dn| attributes.push(MadeUp::new("newSuperior", [dn.as_str()])));
    attributes
}
