//! One object: immutable, shared by the servers that agree about it, its values already encoded for the wire.

use std::sync::Arc;

use super::schema::{AttrId, ClassSet};
use super::tlv::{self, Values};
use super::types::EntryId;

/// An object's replicated state. Per-server state (USNs, logon counters, links) lives in the tree.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) uuid: [u8; 16],
    pub(crate) parent: Option<EntryId>,
    /// Relative name as shown; the whole DN for the head of a naming context.
    pub(crate) rdn: Box<str>,
    pub(crate) classes: Arc<ClassSet>,
    pub(crate) deleted: bool,
    pub(crate) created_ms: i64,
    /// Repeated: attribute number (u16, little endian), then the encoded SET of its values.
    attributes: Box<[u8]>,
}

impl Entry {
    pub(crate) fn attributes(&self) -> Attributes<'_> {
        Attributes { rest: &self.attributes }
    }

    /// The encoded SET of an attribute's stored values.
    pub(crate) fn set_of(&self, wanted: AttrId) -> Option<&[u8]> {
        self.attributes().find(|(attribute, _)| *attribute == wanted).map(|(_, set)| set)
    }

    pub(crate) fn values(&self, attribute: AttrId) -> Values<'_> {
        self.set_of(attribute).map_or_else(Values::none, Values::of_set)
    }

    pub(crate) fn first(&self, attribute: AttrId) -> Option<&[u8]> {
        self.values(attribute).next()
    }

    pub(crate) fn integer(&self, attribute: AttrId) -> Option<i64> {
        super::matching::parse_integer(self.first(attribute)?)
    }

    pub(crate) fn size_bytes(&self) -> usize {
        self.attributes.len()
    }

    pub(crate) fn to_draft(&self) -> EntryDraft {
        EntryDraft {
            uuid: self.uuid,
            parent: self.parent,
            rdn: self.rdn.to_string(),
            classes: self.classes.clone(),
            deleted: self.deleted,
            created_ms: self.created_ms,
            attributes: self
                .attributes()
                .map(|(id, set)| (id, Values::of_set(set).map(<[u8]>::to_vec).collect()))
                .collect(),
        }
    }

    /// Same replicated state, byte for byte.
    pub(crate) fn same_as(&self, other: &Self) -> bool {
        self.uuid == other.uuid
            && self.parent == other.parent
            && self.rdn == other.rdn
            && Arc::ptr_eq(&self.classes, &other.classes)
            && self.deleted == other.deleted
            && self.created_ms == other.created_ms
            && self.attributes == other.attributes
    }
}

pub(crate) struct Attributes<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Attributes<'a> {
    type Item = (AttrId, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (number, rest) = self.rest.split_first_chunk::<2>()?;
        let (set, rest) = tlv::split(rest);
        self.rest = rest;
        Some((AttrId(u16::from_le_bytes(*number)), set))
    }
}

/// An object while it is made or changed.
#[derive(Clone, Debug)]
pub(crate) struct EntryDraft {
    pub(crate) uuid: [u8; 16],
    pub(crate) parent: Option<EntryId>,
    pub(crate) rdn: String,
    pub(crate) classes: Arc<ClassSet>,
    pub(crate) deleted: bool,
    pub(crate) created_ms: i64,
    pub(crate) attributes: Vec<(AttrId, Vec<Vec<u8>>)>,
}

impl EntryDraft {
    pub(crate) fn values(&self, attribute: AttrId) -> &[Vec<u8>] {
        self.attributes.iter().find(|(id, _)| *id == attribute).map_or(&[], |(_, values)| values.as_slice())
    }

    /// Replaces all values; none removes the attribute.
    pub(crate) fn set(&mut self, attribute: AttrId, values: Vec<Vec<u8>>) {
        let slot = self.attributes.iter_mut().find(|(id, _)| *id == attribute);
        match slot {
            _ if values.is_empty() => self.attributes.retain(|(id, _)| *id != attribute),
            Some((_, old)) => *old = values,
            None => self.attributes.push((attribute, values)),
        }
    }

    pub(crate) fn set_text(&mut self, attribute: AttrId, value: impl AsRef<str>) {
        self.set(attribute, vec![value.as_ref().as_bytes().to_vec()]);
    }

    pub(crate) fn build(&self) -> Entry {
        let mut buffer = Vec::with_capacity(
            64 + self.attributes.iter().map(|(_, values)| encoded_size(values)).sum::<usize>(),
        );
        for (attribute, values) in self.attributes.iter().filter(|(_, values)| !values.is_empty()) {
            buffer.extend_from_slice(&attribute.0.to_le_bytes());
            tlv::put_set(&mut buffer, values);
        }
        self.with_buffer(buffer)
    }

    fn with_buffer(&self, buffer: Vec<u8>) -> Entry {
        Entry {
            uuid: self.uuid,
            parent: self.parent,
            rdn: self.rdn.as_str().into(),
            classes: self.classes.clone(),
            deleted: self.deleted,
            created_ms: self.created_ms,
            attributes: buffer.into_boxed_slice(),
        }
    }
}

fn encoded_size(values: &[Vec<u8>]) -> usize {
    8 + values.iter().map(|value| tlv::octets_size(value)).sum::<usize>()
}

/// Writes the attributes of one object straight into its buffer: a hundred thousand people are built this way.
pub(crate) struct EntryWriter<'a> {
    buffer: &'a mut Vec<u8>,
}

impl<'a> EntryWriter<'a> {
    /// `buffer` is scratch space that many entries share.
    pub(crate) fn new(buffer: &'a mut Vec<u8>) -> Self {
        buffer.clear();
        Self { buffer }
    }

    pub(crate) fn text(&mut self, attribute: AttrId, value: &str) -> &mut Self {
        if !value.is_empty() {
            self.bytes(attribute, &[value.as_bytes()]);
        }
        self
    }

    pub(crate) fn number(&mut self, attribute: AttrId, value: i64) -> &mut Self {
        self.bytes(attribute, &[value.to_string().as_bytes()])
    }

    pub(crate) fn bytes(&mut self, attribute: AttrId, values: &[&[u8]]) -> &mut Self {
        self.buffer.extend_from_slice(&attribute.0.to_le_bytes());
        tlv::put_set(self.buffer, values);
        self
    }

    pub(crate) fn finish(
        &self,
        uuid: [u8; 16],
        parent: Option<EntryId>,
        rdn: &str,
        classes: &Arc<ClassSet>,
        created_ms: i64,
    ) -> Entry {
        Entry {
            uuid,
            parent,
            rdn: rdn.into(),
            classes: classes.clone(),
            deleted: false,
            created_ms,
            attributes: self.buffer.as_slice().into(),
        }
    }
}
