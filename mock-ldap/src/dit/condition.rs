//! Filters ready to be decided: names resolved, values normalized, linked names turned into object numbers.

use std::collections::HashSet;

use super::index::Indexes;
use super::matching::{self, Folding};
use super::reader::Reader;
use super::schema::{AttrId, Computed, Source, Syntax};
use super::tree::{Lookup, Node};
use super::types::EntryId;
use crate::dn::{self, Dn};
use crate::filter::Filter;

/// Bit rules and the transitive rule of Active Directory (MS-ADTS 3.1.1.3.4.4).
const RULE_BIT_AND: &str = "1.2.840.113556.1.4.803";
const RULE_BIT_OR: &str = "1.2.840.113556.1.4.804";
const RULE_IN_CHAIN: &str = "1.2.840.113556.1.4.1941";

/// A filter with everything looked up. `None` from [`Condition::holds`] is RFC 4511's Undefined.
#[derive(Debug)]
pub(crate) enum Condition {
    Always(Option<bool>),
    And(Vec<Condition>),
    Or(Vec<Condition>),
    Not(Box<Condition>),
    Class(usize),
    Equals {
        attribute: AttrId,
        value: Vec<u8>,
    },
    /// The linked attribute names this object, or, where names of missing objects are kept, this name.
    LinksTo {
        attribute: AttrId,
        target: Option<EntryId>,
        name: Vec<u8>,
    },
    /// One of these linked attributes of that object names this one.
    LinkedFrom {
        attributes: Vec<AttrId>,
        source: Option<EntryId>,
    },
    /// Found beforehand, by walking links.
    Among(HashSet<EntryId>),
    Substrings {
        attribute: AttrId,
        initial: Option<Vec<u8>>,
        any: Vec<Vec<u8>>,
        final_: Option<Vec<u8>>,
    },
    Ordered {
        attribute: AttrId,
        value: Vec<u8>,
        at_least: bool,
    },
    Present(AttrId),
    Bits {
        attribute: AttrId,
        mask: i64,
        all: bool,
    },
    /// A relative name of the DN carries this (`:dn:`).
    InName {
        attribute: AttrId,
        value: Vec<u8>,
    },
}

impl Condition {
    pub(crate) fn compile(filter: &Filter, reader: &Reader<'_>) -> Self {
        Compiler { reader }.compile(filter)
    }

    /// RFC 4511 4.5.1.7: true, false, or `None` for Undefined.
    pub(crate) fn holds(&self, reader: &Reader<'_>, id: EntryId, node: &Node) -> Option<bool> {
        match self {
            Self::Always(verdict) => *verdict,
            Self::And(parts) => {
                let mut verdict = Some(true);
                for part in parts {
                    match part.holds(reader, id, node) {
                        Some(false) => return Some(false),
                        None => verdict = None,
                        Some(true) => {}
                    }
                }
                verdict
            }
            Self::Or(parts) => {
                let mut verdict = Some(false);
                for part in parts {
                    match part.holds(reader, id, node) {
                        Some(true) => return Some(true),
                        None => verdict = None,
                        Some(false) => {}
                    }
                }
                verdict
            }
            Self::Not(inner) => inner.holds(reader, id, node).map(|verdict| !verdict),
            Self::Class(class) => Some(node.entry.classes.contains(*class)),
            Self::Among(ids) => Some(ids.contains(&id)),
            Self::LinksTo { attribute, target, name } => {
                Some(links_to(reader, id, node, *attribute, *target, name))
            }
            Self::LinkedFrom { attributes, source } => Some(source.is_some_and(|source| {
                !reader.hides_back_link(source)
                    && attributes.iter().any(|&attribute| reader.tree.back(id, attribute).contains(&source))
            })),
            Self::Equals { attribute, value } => {
                let (syntax, folding) = rules(reader, *attribute);
                Some(any_value(reader, id, node, *attribute, |stored| {
                    matching::equals(syntax, folding, stored, value)
                }))
            }
            Self::Substrings { attribute, initial, any, final_ } => {
                let (syntax, folding) = rules(reader, *attribute);
                Some(any_value(reader, id, node, *attribute, |stored| {
                    matching::substrings(syntax, folding, stored, initial.as_deref(), any, final_.as_deref())
                }))
            }
            Self::Ordered { attribute, value, at_least } => {
                let (syntax, folding) = rules(reader, *attribute);
                Some(any_value(reader, id, node, *attribute, |stored| {
                    let order = matching::compare(syntax, folding, stored, value);
                    order.is_some_and(|order| if *at_least { order.is_ge() } else { order.is_le() })
                }))
            }
            Self::Present(attribute) => Some(any_value(reader, id, node, *attribute, |_| true)),
            Self::Bits { attribute, mask, all } => Some(any_value(reader, id, node, *attribute, |stored| {
                matching::parse_integer(stored)
                    .is_some_and(|number| if *all { number & mask == *mask } else { number & mask != 0 })
            })),
            Self::InName { attribute, value } => Some(in_name(reader, id, *attribute, value)),
        }
    }

    /// Attributes whose index would spare a scan but is not built yet.
    pub(crate) fn missing_index(&self, reader: &Reader<'_>) -> Option<AttrId> {
        match self {
            Self::And(parts) => {
                // One indexed part is enough.
                if parts.iter().any(|part| part.candidates(reader).is_some()) {
                    return None;
                }
                parts.iter().find_map(|part| part.missing_index(reader))
            }
            Self::Or(parts) => parts.iter().find_map(|part| part.missing_index(reader)),
            Self::Equals { attribute, .. } => {
                let schema = &reader.tree.schema;
                (Indexes::can_index(schema, *attribute) && !reader.tree.indexes.has(*attribute))
                    .then_some(*attribute)
            }
            _ => None,
        }
    }

    /// A superset of the matching objects that is cheaper to walk than the whole tree, when there is one.
    pub(crate) fn candidates(&self, reader: &Reader<'_>) -> Option<Vec<EntryId>> {
        match self {
            Self::And(parts) => {
                let sets = parts.iter().filter_map(|part| part.candidates(reader));
                sets.min_by_key(Vec::len)
            }
            Self::Or(parts) => {
                let sets: Option<Vec<Vec<EntryId>>> =
                    parts.iter().map(|part| part.candidates(reader)).collect();
                let mut ids = sets?.concat();
                ids.sort_unstable();
                ids.dedup();
                Some(ids)
            }
            Self::Always(Some(true)) => None,
            Self::Always(_) => Some(Vec::new()),
            Self::Among(ids) => Some(ids.iter().copied().collect()),
            Self::Equals { attribute, value } => reader.tree.indexes.candidates(*attribute, value),
            Self::LinksTo { attribute, target: Some(target), .. } => {
                Some(reader.tree.back(*target, *attribute).to_vec())
            }
            Self::LinkedFrom { attributes, source } => Some(match source {
                Some(source) => {
                    attributes.iter().flat_map(|&it| reader.tree.forward(*source, it)).copied().collect()
                }
                None => Vec::new(),
            }),
            Self::Ordered { attribute, value, at_least: true } => changed_since(reader, *attribute, value),
            _ => None,
        }
    }
}

/// `uSNChanged>=n` from the log, when n lies in it.
fn changed_since(reader: &Reader<'_>, attribute: AttrId, value: &[u8]) -> Option<Vec<EntryId>> {
    let source = &reader.tree.schema.attribute(attribute).source;
    if !matches!(source, Source::Computed(Computed::UsnChanged)) {
        return None;
    }
    let from = u64::try_from(matching::parse_integer(value)?).ok()?;
    let log = &reader.tree.log;
    if from <= log.base_usn() {
        return None;
    }
    let mut ids: Vec<EntryId> = log.since(from - 1)?.map(|record| record.id).collect();
    ids.sort_unstable();
    ids.dedup();
    Some(ids)
}

fn rules(reader: &Reader<'_>, attribute: AttrId) -> (Syntax, Folding) {
    (reader.tree.schema.attribute(attribute).syntax, reader.tree.folding)
}

fn any_value(
    reader: &Reader<'_>,
    id: EntryId,
    node: &Node,
    attribute: AttrId,
    test: impl Fn(&[u8]) -> bool,
) -> bool {
    let definition = reader.tree.schema.attribute(attribute);
    if definition.source == Source::Stored && reader.view == super::types::View::Domain {
        return node.entry.values(attribute).any(test);
    }
    let mut found = false;
    reader.each_value(id, node, attribute, &mut |value| found = found || test(value));
    found
}

fn links_to(
    reader: &Reader<'_>,
    id: EntryId,
    node: &Node,
    attribute: AttrId,
    target: Option<EntryId>,
    name: &[u8],
) -> bool {
    if target.is_some_and(|target| {
        !reader.hides_link(&node.entry) && reader.tree.forward(id, attribute).contains(&target)
    }) {
        return true;
    }
    let folding = reader.tree.folding;
    node.entry.values(attribute).any(|stored| matching::equals(Syntax::Dn, folding, stored, name))
}

fn in_name(reader: &Reader<'_>, id: EntryId, attribute: AttrId, value: &[u8]) -> bool {
    let (syntax, folding) = rules(reader, attribute);
    let name = Dn::parse(reader.tree.dn(id).as_bytes()).unwrap_or_default();
    let parts = name.rdns.iter().flat_map(|rdn| &rdn.parts);
    let mut same = parts.filter(|part| reader.tree.schema.find(&part.attribute) == Some(attribute));
    same.any(|part| matching::equals(syntax, folding, &part.value, value))
}

struct Compiler<'a> {
    reader: &'a Reader<'a>,
}

impl Compiler<'_> {
    fn compile(&self, filter: &Filter) -> Condition {
        match filter {
            Filter::And(parts) => Condition::And(parts.iter().map(|part| self.compile(part)).collect()),
            Filter::Or(parts) => Condition::Or(parts.iter().map(|part| self.compile(part)).collect()),
            Filter::Not(inner) => Condition::Not(Box::new(self.compile(inner))),
            Filter::Equality { attr, value } | Filter::Approx { attr, value } => self.equality(attr, value),
            Filter::Substrings { attr, initial, any, final_ } => {
                self.substrings(attr, initial.as_deref(), any, final_.as_deref())
            }
            Filter::GreaterOrEqual { attr, value } => self.ordered(attr, value, true),
            Filter::LessOrEqual { attr, value } => self.ordered(attr, value, false),
            Filter::Present(attr) => match self.find(attr) {
                Some(attribute) if self.is(attribute, Computed::ObjectClass) => Condition::Always(Some(true)),
                Some(attribute) => Condition::Present(attribute),
                None => Condition::Always(None),
            },
            Filter::Extensible { rule, attr, value, dn_attributes } => {
                self.extensible(rule.as_deref(), attr.as_deref(), value, *dn_attributes)
            }
            Filter::Undefined => Condition::Always(None),
        }
    }

    /// The attribute a description means. Options are not stored here, so a description with one means none.
    fn find(&self, description: &str) -> Option<AttrId> {
        let (name, options) = description.split_once(';').unwrap_or((description, ""));
        let attribute = self.reader.tree.schema.find(name)?;
        let known_option = options.is_empty() || options.eq_ignore_ascii_case("binary");
        known_option.then_some(attribute)
    }

    fn is(&self, attribute: AttrId, what: Computed) -> bool {
        self.reader.tree.schema.attribute(attribute).source == Source::Computed(what)
    }

    fn equality(&self, attr: &str, value: &[u8]) -> Condition {
        let reader = self.reader;
        if attr == "anr" && reader.shared.personality.is_active_directory() {
            return self.ambiguous_name(value);
        }
        let Some(attribute) = self.find(attr) else { return Condition::Always(None) };
        let definition = reader.tree.schema.attribute(attribute);
        match &definition.source {
            Source::Computed(Computed::ObjectClass) => {
                let class = std::str::from_utf8(value)
                    .ok()
                    .and_then(|name| reader.tree.schema.find_class(name.trim()));
                // An unknown class is not a matter of one entry: the assertion is Undefined (RFC 4511 4.5.1.7).
                class.map_or(Condition::Always(None), Condition::Class)
            }
            Source::Computed(Computed::ObjectCategory) => self.category(attribute, value),
            Source::Link => {
                let name = matching::normalize(Syntax::Dn, reader.tree.folding, value).into_owned();
                Condition::LinksTo { attribute, target: self.object(value), name }
            }
            Source::BackLink(links) => {
                Condition::LinkedFrom { attributes: links.clone(), source: self.object(value) }
            }
            _ => Condition::Equals { attribute, value: self.assertion(attribute, value) },
        }
    }

    /// The comparison form of an assertion value; SIDs and GUIDs may come as text (MS-ADTS 3.1.1.3.1.3.1).
    fn assertion(&self, attribute: AttrId, value: &[u8]) -> Vec<u8> {
        let (syntax, folding) = rules(self.reader, attribute);
        let text = std::str::from_utf8(value).ok();
        if let Some(sid) =
            text.filter(|text| text.starts_with("S-") && syntax == Syntax::Sid).and_then(dn::parse_sid)
        {
            return sid;
        }
        if self.is(attribute, Computed::Guid)
            && let Some(guid) = text.and_then(dn::parse_guid)
            && value.len() != 16
        {
            return guid.to_vec();
        }
        matching::normalize(syntax, folding, value).into_owned()
    }

    /// `objectCategory=person` means the DN of that class's category (MS-ADTS 3.1.1.3.1.3.5).
    fn category(&self, attribute: AttrId, value: &[u8]) -> Condition {
        let schema = &self.reader.tree.schema;
        let class = std::str::from_utf8(value).ok().and_then(|name| schema.find_class(name));
        let full = match class {
            Some(class) => {
                super::reader::category_dn(&schema.class(class).category, &self.reader.shared.naming.schema)
                    .into_bytes()
            }
            None => value.to_vec(),
        };
        Condition::Equals {
            attribute,
            value: matching::normalize(Syntax::Dn, self.reader.tree.folding, &full).into_owned(),
        }
    }

    /// The object a DN, or one of Active Directory's identifiers, means.
    fn object(&self, value: &[u8]) -> Option<EntryId> {
        self.reader.resolve(&dn::Name::parse(value).ok()?)
    }

    fn substrings(
        &self,
        attr: &str,
        initial: Option<&[u8]>,
        any: &[Vec<u8>],
        final_: Option<&[u8]>,
    ) -> Condition {
        let Some(attribute) = self.find(attr) else { return Condition::Always(None) };
        let (syntax, folding) = rules(self.reader, attribute);
        if matches!(syntax, Syntax::Dn | Syntax::Boolean) {
            // No substrings rule for these syntaxes (RFC 4517 4.2).
            return Condition::Always(None);
        }
        let part = |part: &[u8], first, last| matching::normalize_part(syntax, folding, part, first, last);
        Condition::Substrings {
            attribute,
            initial: initial.map(|text| part(text, true, false)),
            any: any.iter().map(|text| part(text, false, false)).collect(),
            final_: final_.map(|text| part(text, false, true)),
        }
    }

    fn ordered(&self, attr: &str, value: &[u8], at_least: bool) -> Condition {
        let Some(attribute) = self.find(attr) else { return Condition::Always(None) };
        let (syntax, folding) = rules(self.reader, attribute);
        let value = matching::normalize(syntax, folding, value).into_owned();
        let comparable = match syntax {
            Syntax::Dn | Syntax::Descriptor | Syntax::Boolean => false,
            Syntax::Integer => matching::parse_integer(&value).is_some(),
            _ => true,
        };
        if comparable { Condition::Ordered { attribute, value, at_least } } else { Condition::Always(None) }
    }

    fn extensible(
        &self,
        rule: Option<&str>,
        attr: Option<&str>,
        value: &[u8],
        dn_attributes: bool,
    ) -> Condition {
        let microsoft = self.reader.shared.personality.is_active_directory();
        match (rule, attr) {
            (Some(RULE_BIT_AND), Some(attr)) if microsoft => self.bits(attr, value, true),
            (Some(RULE_BIT_OR), Some(attr)) if microsoft => self.bits(attr, value, false),
            (Some(RULE_IN_CHAIN), Some(attr)) if microsoft => self.in_chain(attr, value),
            (rule, Some(attr)) if rule.is_none_or(is_standard_rule) => {
                let plain = self.equality(attr, value);
                match self.find(attr).filter(|_| dn_attributes) {
                    Some(attribute) => {
                        let value = self.assertion(attribute, value);
                        Condition::Or(vec![plain, Condition::InName { attribute, value }])
                    }
                    None => plain,
                }
            }
            _ => Condition::Always(None),
        }
    }

    fn bits(&self, attr: &str, value: &[u8], all: bool) -> Condition {
        match (self.find(attr), matching::parse_integer(value)) {
            (Some(attribute), Some(mask)) if rules(self.reader, attribute).0 == Syntax::Integer => {
                Condition::Bits { attribute, mask, all }
            }
            _ => Condition::Always(None),
        }
    }

    fn in_chain(&self, attr: &str, value: &[u8]) -> Condition {
        let Some(attribute) = self.find(attr) else { return Condition::Always(None) };
        let Some(target) = self.object(value) else { return Condition::Always(Some(false)) };
        let tree = self.reader.tree;
        let ids = match &tree.schema.attribute(attribute).source {
            Source::Link => tree.closure(target, &[attribute], true),
            Source::BackLink(links) => tree.closure(target, links, false),
            _ => return Condition::Always(None),
        };
        Condition::Among(ids.into_iter().collect())
    }

    /// Ambiguous name resolution (MS-ADTS 3.1.1.3.1.3.1.1): a prefix of any of several names; two words also as given
    /// name and surname in either order; a leading `=` asks for equality.
    fn ambiguous_name(&self, value: &[u8]) -> Condition {
        let schema = &self.reader.tree.schema;
        let set: Vec<AttrId> = schema.attributes().filter(|(_, it)| it.in_anr).map(|(id, _)| id).collect();
        if let Some(exact) = value.strip_prefix(b"=") {
            let equal = |attribute| Condition::Equals { attribute, value: self.assertion(attribute, exact) };
            return Condition::Or(set.into_iter().map(equal).collect());
        }
        let prefix = |attribute: AttrId, text: &[u8]| {
            let (syntax, folding) = rules(self.reader, attribute);
            let initial = Some(matching::normalize_part(syntax, folding, text, true, true));
            Condition::Substrings { attribute, initial, any: Vec::new(), final_: None }
        };
        let mut parts: Vec<Condition> = set.into_iter().map(|attribute| prefix(attribute, value)).collect();
        let words = value.iter().position(|&byte| byte == b' ').map(|at| (&value[..at], &value[at + 1..]));
        let known = &self.reader.shared.known;
        if let (Some((one, two)), Some(given), Some(family)) = (words, known.given_name, known.sn) {
            parts.push(Condition::And(vec![prefix(given, one), prefix(family, two)]));
            parts.push(Condition::And(vec![prefix(given, two), prefix(family, one)]));
        }
        Condition::Or(parts)
    }
}

/// Rules by name or OID that ask for what equality does anyway.
fn is_standard_rule(rule: &str) -> bool {
    const RULES: [&str; 14] = [
        "caseignorematch",
        "caseexactmatch",
        "distinguishednamematch",
        "integermatch",
        "octetstringmatch",
        "objectidentifiermatch",
        "booleanmatch",
        "2.5.13.2",
        "2.5.13.5",
        "2.5.13.1",
        "2.5.13.14",
        "2.5.13.17",
        "2.5.13.0",
        "2.5.13.13",
    ];
    RULES.contains(&rule.to_ascii_lowercase().as_str())
}

impl Reader<'_> {
    /// The object a name means. Deleted objects are found too; the caller decides whether they may be seen.
    pub(crate) fn resolve(&self, name: &dn::Name) -> Option<EntryId> {
        let known = &self.shared.known;
        match name {
            dn::Name::Path(dn) => match self.tree.lookup(dn) {
                Lookup::Found(id) => Some(id),
                _ => None,
            },
            dn::Name::Guid(guid) => self.by_value(known.object_guid?, guid),
            dn::Name::Sid(sid) => self.by_value(known.object_sid?, sid),
            dn::Name::WellKnown { guid, of } => {
                let base = self.shared.landmarks.base?;
                let found = self.shared.landmarks.well_known.iter().find(|(known, _)| known == guid)?;
                (self.tree.lookup(of) == Lookup::Found(base)).then_some(found.1)
            }
        }
    }

    /// The first object with this value, by index when there is one.
    pub(crate) fn by_value(&self, attribute: AttrId, normalized: &[u8]) -> Option<EntryId> {
        let condition = Condition::Equals { attribute, value: normalized.to_vec() };
        let is_it = |id: &EntryId| {
            self.tree.node(*id).is_some_and(|node| condition.holds(self, *id, node) == Some(true))
        };
        match condition.candidates(self) {
            Some(ids) => ids.into_iter().find(is_it),
            None => self.tree.nodes().map(|(id, _)| id).find(is_it),
        }
    }
}
