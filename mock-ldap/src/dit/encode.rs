//! Entries as bytes: choosing attributes is copying slices that were encoded when the entry was written.

use bytes::{BufMut, BytesMut};

use super::made_up::MadeUp;
use super::reader::Reader;
use super::schema::{AttrId, Computed, Schema, Source};
use super::tlv;
use super::tree::Node;
use super::types::{EntryId, LdapFailure, ResultCode, Selection, View};

/// Names of a [`Selection`] resolved against a schema.
#[derive(Debug)]
pub(crate) struct CompiledSelection {
    /// By attribute number: wanted in plain form.
    wanted: Vec<bool>,
    /// Wanted attributes that are not plain stored bytes.
    derived: Vec<AttrId>,
    /// Wanted under a name of its own: `member;range=0-99`, `userCertificate;binary`.
    named: Vec<Named>,
    /// Something was asked that only a base-scope search can answer.
    base_scope_only: bool,
}

#[derive(Debug)]
struct Named {
    attribute: AttrId,
    /// `None` for an option that only changes the name.
    range: Option<(usize, Option<usize>)>,
    name_tlv: Vec<u8>,
}

impl CompiledSelection {
    fn new(selection: &Selection, schema: &Schema) -> Self {
        let mut compiled = Self {
            wanted: vec![false; schema.len()],
            derived: Vec::new(),
            named: Vec::new(),
            base_scope_only: false,
        };
        let names = &selection.attributes;
        if names.is_empty() {
            compiled.want_group(schema, false);
        }
        for name in names {
            match name.as_str() {
                "*" => compiled.want_group(schema, false),
                "+" => compiled.want_group(schema, true),
                "1.1" => {}
                name if name.starts_with('@') => compiled.want_class(schema, &name[1..]),
                name => compiled.want_named(schema, name, selection.types_only),
            }
        }
        let visible = |id: &AttrId| selection.view == View::Domain || schema.attribute(*id).in_global_catalog;
        for index in 0..compiled.wanted.len() {
            let id = AttrId(index as u16);
            compiled.wanted[index] &= visible(&id);
            if compiled.wanted[index] && schema.attribute(id).source != Source::Stored {
                compiled.derived.push(id);
            }
        }
        compiled.named.retain(|named| visible(&named.attribute));
        compiled
    }

    fn want_group(&mut self, schema: &Schema, operational: bool) {
        for (id, attribute) in
            schema.attributes().filter(|(_, attribute)| attribute.operational == operational)
        {
            let costly = matches!(&attribute.source, Source::Computed(what) if what.base_scope_only())
                || attribute.source == Source::Computed(Computed::AllowedAttributes);
            self.wanted[id.index()] |= !costly;
        }
    }

    fn want_class(&mut self, schema: &Schema, class: &str) {
        let Some(class) = schema.find_class(class) else { return };
        for class in schema.lineage(class) {
            let class = schema.class(class);
            class.must.iter().chain(&class.may).for_each(|id| self.wanted[id.index()] = true);
        }
    }

    fn want_named(&mut self, schema: &Schema, name: &str, types_only: bool) {
        let (base, options) = name.split_once(';').unwrap_or((name, ""));
        let Some(attribute) = schema.find(base) else { return };
        let definition = schema.attribute(attribute);
        if matches!(&definition.source, Source::Computed(what) if what.base_scope_only()) {
            self.base_scope_only = true;
        }
        let mut range = None;
        for option in options.split(';').filter(|option| !option.is_empty()) {
            match option.to_ascii_lowercase() {
                binary if binary == "binary" => {}
                option => match option.strip_prefix("range=").and_then(parse_range) {
                    Some(parsed) => range = Some(parsed),
                    // Another option names another attribute, and none is stored with options.
                    None => return,
                },
            }
        }
        if options.is_empty() || (range.is_none() && types_only) {
            self.wanted[attribute.index()] = true;
            return;
        }
        let mut name_tlv = Vec::new();
        tlv::put_octets(&mut name_tlv, format!("{};binary", definition.name()).as_bytes());
        self.named.push(Named { attribute, range, name_tlv });
    }
}

/// `0-99` or `100-*`.
fn parse_range(text: &str) -> Option<(usize, Option<usize>)> {
    let (low, high) = text.split_once('-')?;
    let low = low.parse().ok()?;
    match high {
        "*" => Some((low, None)),
        high => high.parse().ok().filter(|&high| high >= low).map(|high| (low, Some(high))),
    }
}

impl Selection {
    fn compiled(&self, schema: &Schema) -> &CompiledSelection {
        self.compiled.get_or_init(|| CompiledSelection::new(self, schema))
    }
}

impl Reader<'_> {
    /// The content of a SearchResultEntry.
    pub(crate) fn encode(&self, id: EntryId, node: &Node, selection: &Selection, out: &mut BytesMut) {
        let mut name = String::with_capacity(120);
        self.name_into(id, &mut name);
        tlv::put_octets(out, name.as_bytes());
        let list = tlv::open_sequence(out);
        self.encode_attributes(id, node, selection, out);
        tlv::close_sequence(out, list);
    }

    fn encode_attributes(&self, id: EntryId, node: &Node, selection: &Selection, out: &mut BytesMut) {
        let schema = &self.tree.schema;
        let compiled = selection.compiled(schema);
        for (attribute, set) in node.entry.attributes() {
            if !compiled.wanted[attribute.index()] {
                continue;
            }
            let definition = schema.attribute(attribute);
            if definition.is_link() {
                continue;
            }
            if selection.types_only {
                tlv::put_attribute(out, &definition.name_tlv, EMPTY_SET);
            } else if selection.values_max > 0 && too_long(set, selection.values_max) {
                self.encode_list(id, node, attribute, None, selection, out);
            } else {
                tlv::put_attribute(out, &definition.name_tlv, set);
            }
        }
        for &attribute in &compiled.derived {
            let definition = schema.attribute(attribute);
            if definition.source == Source::Computed(Computed::ObjectClass) && !selection.types_only {
                tlv::put_attribute(out, &definition.name_tlv, &node.entry.classes.values_tlv);
            } else {
                self.encode_list(id, node, attribute, None, selection, out);
            }
        }
        for named in &compiled.named {
            match named.range {
                Some(_) => self.encode_list(id, node, named.attribute, named.range, selection, out),
                None => {
                    if let Some(set) = node.entry.set_of(named.attribute) {
                        tlv::put_attribute(out, &named.name_tlv, set);
                    }
                }
            }
        }
    }

    /// An attribute whose values are gathered one by one, cut into a range when asked or when there are too many.
    fn encode_list(
        &self,
        id: EntryId,
        node: &Node,
        attribute: AttrId,
        range: Option<(usize, Option<usize>)>,
        selection: &Selection,
        out: &mut BytesMut,
    ) {
        let name_tlv = &self.tree.schema.attribute(attribute).name_tlv;
        let mut values = GatheredValues::default();
        self.each_value(id, node, attribute, &mut |value| values.push(value));
        if values.is_empty() {
            return;
        }
        if selection.types_only {
            return tlv::put_attribute(out, name_tlv, EMPTY_SET);
        }
        let most = if selection.values_max == 0 { usize::MAX } else { selection.values_max };
        let (low, high) = match range {
            Some((low, high)) => (low, high.unwrap_or(usize::MAX)),
            None if values.len() > most => {
                // The plain attribute is there too, without values.
                tlv::put_attribute(out, name_tlv, EMPTY_SET);
                (0, usize::MAX)
            }
            None => return tlv::put_attribute(out, name_tlv, &values.set(0, values.len())),
        };
        if low >= values.len() {
            return;
        }
        let end = high.saturating_add(1).min(low.saturating_add(most)).min(values.len());
        let last = if end == values.len() { "*".to_owned() } else { (end - 1).to_string() };
        let mut ranged = Vec::new();
        let name = self.tree.schema.attribute(attribute).name();
        tlv::put_octets(&mut ranged, format!("{name};range={low}-{last}").as_bytes());
        tlv::put_attribute(out, &ranged, &values.set(low, end));
    }

    /// What makes the whole request fail: a transitive attribute over many objects, or a range behind the end.
    pub(crate) fn check_selection(&self, id: EntryId, selection: &Selection) -> Result<(), LdapFailure> {
        let compiled = selection.compiled(&self.tree.schema);
        if compiled.base_scope_only && !selection.base_scope {
            let text = self.shared.text("base_scope_only", &[]);
            return Err(LdapFailure::new(ResultCode::OPERATIONS_ERROR, text));
        }
        let Some(node) = self.tree.node(id).filter(|_| !selection.range_no_error) else { return Ok(()) };
        for named in &compiled.named {
            let Some((low @ 1.., _)) = named.range else { continue };
            let mut count = 0;
            self.each_value(id, node, named.attribute, &mut |_| count += 1);
            if low >= count {
                let text = self.shared.text("range_beyond_end", &[]);
                return Err(LdapFailure::new(ResultCode::OPERATIONS_ERROR, text));
            }
        }
        Ok(())
    }
}

pub(crate) const EMPTY_SET: &[u8] = &[0x31, 0];

/// More values than fit one answer. The cheap test first: so many values need so many bytes.
fn too_long(set: &[u8], values_max: usize) -> bool {
    set.len() > values_max * 2 && tlv::Values::of_set(set).count() > values_max
}

/// Values one behind the other, with their boundaries.
#[derive(Default)]
struct GatheredValues {
    encoded: Vec<u8>,
    ends: Vec<usize>,
}

impl GatheredValues {
    fn push(&mut self, value: &[u8]) {
        tlv::put_octets(&mut self.encoded, value);
        self.ends.push(self.encoded.len());
    }

    fn len(&self) -> usize {
        self.ends.len()
    }

    fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    fn set(&self, from: usize, to: usize) -> Vec<u8> {
        let start = from.checked_sub(1).map_or(0, |before| self.ends[before]);
        let content = &self.encoded[start..self.ends[to - 1]];
        let mut set = Vec::with_capacity(content.len() + 6);
        tlv::put_set_of(&mut set, content);
        set
    }
}

/// The body of an entry that is not stored: the rootDSE, changelog entries.
pub(crate) fn encode_made_up(dn: &str, attributes: &[MadeUp], selection: &Selection, out: &mut BytesMut) {
    tlv::put_octets(out, dn.as_bytes());
    let list = tlv::open_sequence(out);
    let asked = &selection.attributes;
    let all = |group: &str| asked.iter().any(|name| name == group);
    for MadeUp { name, values, operational } in attributes {
        let by_group = if *operational { all("+") } else { asked.is_empty() || all("*") };
        if !by_group && !asked.iter().any(|asked| asked.eq_ignore_ascii_case(name)) {
            continue;
        }
        let (mut name_tlv, mut set) = (Vec::new(), Vec::new());
        tlv::put_octets(&mut name_tlv, name.as_bytes());
        if selection.types_only {
            set.put_slice(EMPTY_SET);
        } else {
            tlv::put_set(&mut set, values);
        }
        tlv::put_attribute(out, &name_tlv, &set);
    }
    tlv::close_sequence(out, list);
}
