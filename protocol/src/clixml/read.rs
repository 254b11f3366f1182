//! Text to values. What arrives decides nothing: depth, size and the number of values are bounded, also where references
//! multiply them.

use std::borrow::Cow;
use std::collections::HashMap;
use std::hash::Hash;
use std::ops::Range;
use std::sync::Arc;

use quick_xml::escape::{resolve_predefined_entity, unescape};
use quick_xml::events::{BytesStart, Event};
use thiserror::Error;

use super::primitive;
use super::text::decode;
use super::value::{Content, ListKind, Members, Object, Value};
use crate::limits::{
    CLIXML_DEPTH_MAX, CLIXML_MAX_BYTES, CLIXML_NAMES_MAX, CLIXML_SHARED_MAX_BYTES, CLIXML_TYPES_MAX,
    CLIXML_VALUES_MAX,
};

/// Why text is no CLIXML value that is taken. Never carries what the text says.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ClixmlError {
    /// Not UTF-8.
    #[error("the value is not UTF-8")]
    Encoding,
    /// Not well-formed XML.
    #[error("the value is not well-formed XML at byte {at}")]
    Malformed {
        /// Where, about.
        at: usize,
    },
    /// A document type, or an entity besides XML's own.
    #[error("the value declares or uses entities")]
    Entity,
    /// An element where it does not belong.
    #[error("element {element} is not expected at byte {at}")]
    Unexpected {
        /// The element, cut.
        element: String,
        /// Where.
        at: usize,
    },
    /// The text of a primitive is none of its kind.
    #[error("text of an element {element} is no such value")]
    Primitive {
        /// The element.
        element: &'static str,
    },
    /// A property without a name.
    #[error("a property has no name")]
    Nameless,
    /// A reference to nothing.
    #[error("reference {id} to {what} leads nowhere")]
    Dangling {
        /// `object` or `types`.
        what: &'static str,
        /// As far as it is a number.
        id: u64,
    },
    /// Objects in objects beyond [`CLIXML_DEPTH_MAX`].
    #[error("objects are nested more than {CLIXML_DEPTH_MAX} deep")]
    TooDeep,
    /// More than [`CLIXML_MAX_BYTES`], references counted.
    #[error("the value has more than {CLIXML_MAX_BYTES} bytes")]
    TooLong,
    /// More than [`CLIXML_VALUES_MAX`], references counted.
    #[error("the value has more than {CLIXML_VALUES_MAX} values")]
    TooMany,
}

/// Reads one value; who reads many keeps a [`Reader`].
///
/// # Errors
/// [`ClixmlError`]
pub fn read(bytes: &[u8]) -> Result<Value, ClixmlError> {
    Reader::new().read(bytes)
}

/// Reads values and shares what like objects have in common: names of properties and lists of types.
#[derive(Debug, Default)]
pub struct Reader {
    names: Shared<str>,
    types: Shared<[String]>,
}

impl Reader {
    /// One that shares nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads a value: one element, with or without byte order mark and declaration; a document of serialised objects
    /// (`Objs`) gives its first. References count within this value only (MS-PSRP 2.2.5.1).
    ///
    /// # Errors
    /// [`ClixmlError`]
    pub fn read(&mut self, bytes: &[u8]) -> Result<Value, ClixmlError> {
        if bytes.len() > CLIXML_MAX_BYTES {
            return Err(ClixmlError::TooLong);
        }
        let xml = str::from_utf8(bytes).map_err(|_| ClixmlError::Encoding)?;
        let xml = xml.strip_prefix('\u{feff}').unwrap_or(xml);
        let mut scope = Scope { bytes: xml.len(), ..Scope::default() };
        // Where objects are is only kept for values that refer to them, and few do.
        scope.places = xml.contains("<Ref").then(HashMap::new);
        let mut pass = Pass::new(xml, 0..xml.len(), self, &mut scope);
        let value = pass.document()?;
        pass.end()?;
        Ok(value)
    }
}

/// What was met before and is worth sharing; bounded, because a hostile server never repeats itself.
#[derive(Debug)]
struct Shared<T: ?Sized> {
    known: HashMap<Box<str>, Arc<T>>,
}

impl<T: ?Sized> Default for Shared<T> {
    fn default() -> Self {
        Self { known: HashMap::new() }
    }
}

impl<T: ?Sized> Shared<T> {
    fn keep(&mut self, wire: &str, value: &Arc<T>, max: usize) {
        if self.known.len() < max && wire.len() <= CLIXML_SHARED_MAX_BYTES {
            self.known.insert(wire.into(), Arc::clone(value));
        }
    }
}

/// What counts for one value, whatever refers to what in it.
#[derive(Default)]
struct Scope {
    types: Small<u64, Arc<[String]>>,
    /// Where an object's text is; `None` while it is being read. Absent when nothing refers to objects.
    places: Option<HashMap<u64, Option<Range<usize>>>>,
    values: usize,
    bytes: usize,
}

/// A map that is mostly of one or two entries: those are found without hashing.
#[derive(Default)]
struct Small<K, V> {
    first: Vec<(K, V)>,
    rest: HashMap<K, V>,
}

impl<K: Eq + Hash, V> Small<K, V> {
    const FIRST: usize = 8;

    fn get(&self, key: &K) -> Option<&V> {
        self.first
            .iter()
            .find(|(known, _)| known == key)
            .map(|(_, value)| value)
            .or_else(|| self.rest.get(key))
    }

    /// The first of several of one key counts.
    fn insert(&mut self, key: K, value: V) {
        if self.get(&key).is_some() {
            return;
        }
        if self.first.len() < Self::FIRST {
            self.first.push((key, value));
        } else {
            self.rest.insert(key, value);
        }
    }
}

/// Goes once over some of the text.
struct Pass<'x, 'r> {
    xml: &'x str,
    /// Where the part that is read begins in `xml`.
    base: usize,
    events: quick_xml::Reader<&'x [u8]>,
    reader: &'r mut Reader,
    scope: &'r mut Scope,
}

/// An element's start tag; whether it is its end too.
type Tag<'x> = (BytesStart<'x>, bool);

impl<'x, 'r> Pass<'x, 'r> {
    fn new(xml: &'x str, part: Range<usize>, reader: &'r mut Reader, scope: &'r mut Scope) -> Self {
        let base = part.start;
        Self { xml, base, events: quick_xml::Reader::from_str(&xml[part]), reader, scope }
    }

    /// Where the next event begins in the whole text.
    fn at(&self) -> usize {
        usize::try_from(self.events.buffer_position()).map_or(self.xml.len(), |at| self.base + at)
    }

    fn event(&mut self) -> Result<Event<'x>, ClixmlError> {
        match self.events.read_event() {
            Ok(Event::DocType(_)) => Err(ClixmlError::Entity),
            Ok(event) => Ok(event),
            Err(_) => Err(ClixmlError::Malformed { at: self.at() }),
        }
    }

    fn unexpected(&self, tag: &BytesStart<'_>) -> ClixmlError {
        let element = tag.name().0.chars().take(40).collect();
        ClixmlError::Unexpected { element, at: self.at() }
    }

    fn malformed(&self) -> ClixmlError {
        ClixmlError::Malformed { at: self.at() }
    }

    /// The next element inside the current one, or `None` at its end. Text between elements says nothing.
    fn child(&mut self) -> Result<Option<Tag<'x>>, ClixmlError> {
        loop {
            match self.event()? {
                Event::Start(tag) => return Ok(Some((tag, false))),
                Event::Empty(tag) => return Ok(Some((tag, true))),
                Event::End(_) => return Ok(None),
                Event::Eof => return Err(self.malformed()),
                Event::Text(text) if text.trim_ascii().is_empty() => {}
                Event::Comment(_) | Event::Decl(_) | Event::PI(_) => {}
                _ => return Err(self.malformed()),
            }
        }
    }

    fn document(&mut self) -> Result<Value, ClixmlError> {
        let (tag, empty) = self.child()?.ok_or_else(|| self.malformed())?;
        if tag.name().0 != "Objs" {
            return self.value(&tag, empty, 0);
        }
        let mut first = None;
        while let Some((tag, empty)) = if empty { None } else { self.child()? } {
            let value = self.value(&tag, empty, 0)?;
            first.get_or_insert(value);
        }
        Ok(first.unwrap_or_default())
    }

    /// Nothing but white space follows.
    fn end(&mut self) -> Result<(), ClixmlError> {
        loop {
            match self.event()? {
                Event::Eof => return Ok(()),
                Event::Text(text) if text.trim_ascii().is_empty() => {}
                Event::Comment(_) | Event::PI(_) => {}
                _ => return Err(self.malformed()),
            }
        }
    }

    fn value(&mut self, tag: &BytesStart<'x>, empty: bool, depth: usize) -> Result<Value, ClixmlError> {
        self.count()?;
        Ok(match tag.name().0 {
            "S" => Value::String(self.decoded(empty)?),
            "Obj" => Value::Object(Box::new(self.object(tag, empty, depth)?)),
            "Nil" => {
                self.text(empty)?;
                Value::Null
            }
            "B" => Value::Bool(self.truth(empty)?),
            "DT" => Value::DateTime(primitive::date_time(self.decoded(empty)?)?),
            "G" => Value::Guid(primitive::guid(&self.text(empty)?)?),
            "I32" => Value::I32(self.number("I32", empty)?),
            "I64" => Value::I64(self.number("I64", empty)?),
            "TS" => Value::Duration(primitive::duration(self.decoded(empty)?)?),
            "C" => Value::Char(self.number("C", empty)?),
            "By" => Value::U8(self.number("By", empty)?),
            "SB" => Value::I8(self.number("SB", empty)?),
            "U16" => Value::U16(self.number("U16", empty)?),
            "I16" => Value::I16(self.number("I16", empty)?),
            "U32" => Value::U32(self.number("U32", empty)?),
            "U64" => Value::U64(self.number("U64", empty)?),
            "Sg" => Value::Float(self.number("Sg", empty)?),
            "Db" => Value::Double(self.number("Db", empty)?),
            "D" => Value::Decimal(primitive::decimal(self.decoded(empty)?)?),
            "BA" => Value::Bytes(primitive::bytes(&self.text(empty)?)?),
            "URI" => Value::Uri(self.decoded(empty)?),
            "Version" => Value::Version(primitive::version(self.decoded(empty)?)?),
            "XD" => Value::Xml(self.decoded(empty)?),
            "SBK" => Value::ScriptBlock(self.decoded(empty)?),
            "SS" => Value::SecureString(self.decoded(empty)?),
            "Ref" => {
                let id = self.id(tag)?;
                self.text(empty)?;
                self.referred(id, depth)?
            }
            _ => return Err(self.unexpected(tag)),
        })
    }

    fn count(&mut self) -> Result<(), ClixmlError> {
        self.scope.values += 1;
        if self.scope.values > CLIXML_VALUES_MAX { Err(ClixmlError::TooMany) } else { Ok(()) }
    }

    /// Reads the text of the object once more: no copy is kept of objects nobody refers to. An object that contains
    /// itself has null there, because a value cannot.
    fn referred(&mut self, id: u64, depth: usize) -> Result<Value, ClixmlError> {
        let place = self.scope.places.as_ref().and_then(|places| places.get(&id).cloned());
        match place {
            None => Err(ClixmlError::Dangling { what: "object", id }),
            Some(None) => Ok(Value::Null),
            Some(Some(part)) => {
                self.scope.bytes += part.len();
                if self.scope.bytes > CLIXML_MAX_BYTES {
                    return Err(ClixmlError::TooLong);
                }
                let mut pass = Pass::new(self.xml, part, self.reader, self.scope);
                let (tag, empty) = pass.child()?.ok_or(ClixmlError::Dangling { what: "object", id })?;
                pass.value(&tag, empty, depth)
            }
        }
    }

    fn object(&mut self, tag: &BytesStart<'x>, empty: bool, depth: usize) -> Result<Object, ClixmlError> {
        if depth >= CLIXML_DEPTH_MAX {
            return Err(ClixmlError::TooDeep);
        }
        let place = match &self.scope.places {
            None => None,
            // The tag has angle brackets around its content, and a slash when it is empty.
            Some(_) => attribute(tag, "RefId")
                .and_then(|id| id.parse().ok())
                .map(|id: u64| (id, self.at() - tag.len() - if empty { 3 } else { 2 })),
        };
        if let (Some(places), Some((id, _))) = (&mut self.scope.places, place) {
            places.insert(id, None);
        }
        let mut object = Object::default();
        while let Some((child, empty)) = if empty { None } else { self.child()? } {
            self.part(&mut object, &child, empty, depth)?;
        }
        let end = self.at();
        if let (Some(places), Some((id, begin))) = (&mut self.scope.places, place) {
            places.insert(id, Some(begin..end));
        }
        Ok(object)
    }

    /// One child of an object, in whatever order they come. Of several contents the first counts.
    fn part(
        &mut self,
        object: &mut Object,
        tag: &BytesStart<'x>,
        empty: bool,
        depth: usize,
    ) -> Result<(), ClixmlError> {
        let content = match tag.name().0 {
            "TN" => {
                object.types = self.types(tag, empty)?;
                return Ok(());
            }
            "TNRef" => {
                let id = self.id(tag)?;
                self.text(empty)?;
                let known = self.scope.types.get(&id);
                object.types = Arc::clone(known.ok_or(ClixmlError::Dangling { what: "types", id })?);
                return Ok(());
            }
            "ToString" => {
                object.to_string = Some(self.decoded(empty)?);
                return Ok(());
            }
            "Props" => return self.members(&mut object.adapted, empty, depth),
            "MS" => return self.members(&mut object.extended, empty, depth),
            "LST" => Content::List(ListKind::List, self.list(empty, depth)?),
            "IE" => Content::List(ListKind::Enumerable, self.list(empty, depth)?),
            "QUE" => Content::List(ListKind::Queue, self.list(empty, depth)?),
            "STK" => Content::List(ListKind::Stack, self.list(empty, depth)?),
            "DCT" => Content::Dictionary(self.dictionary(empty, depth)?),
            _ => Content::Primitive(self.value(tag, empty, depth + 1)?),
        };
        if object.content == Content::None {
            object.content = content;
        }
        Ok(())
    }

    fn members(&mut self, members: &mut Members, empty: bool, depth: usize) -> Result<(), ClixmlError> {
        while let Some((tag, empty)) = if empty { None } else { self.child()? } {
            let name = self.member_name(&tag)?;
            let value = self.value(&tag, empty, depth + 1)?;
            members.push((name, value));
        }
        Ok(())
    }

    fn member_name(&mut self, tag: &BytesStart<'x>) -> Result<Arc<str>, ClixmlError> {
        let wire = attribute(tag, "N").ok_or(ClixmlError::Nameless)?;
        if let Some(name) = self.reader.names.known.get(wire) {
            return Ok(Arc::clone(name));
        }
        let text = unescape(wire).map_err(|_| ClixmlError::Entity)?;
        let name: Arc<str> = decode(text).into();
        self.reader.names.keep(wire, &name, CLIXML_NAMES_MAX);
        Ok(name)
    }

    fn types(&mut self, tag: &BytesStart<'x>, empty: bool) -> Result<Arc<[String]>, ClixmlError> {
        let id = self.id(tag)?;
        let types = if empty { Arc::default() } else { self.type_names(tag)? };
        self.scope.types.insert(id, Arc::clone(&types));
        Ok(types)
    }

    /// Lists of types are long and the same for every object of a kind, so they are known by their text.
    fn type_names(&mut self, tag: &BytesStart<'x>) -> Result<Arc<[String]>, ClixmlError> {
        let begin = self.at();
        let span = self.events.read_to_end(tag.name()).map_err(|_| ClixmlError::Malformed { at: begin })?;
        let end = usize::try_from(span.end).map_or(self.xml.len(), |end| self.base + end);
        let wire = &self.xml[begin..end];
        if let Some(types) = self.reader.types.known.get(wire) {
            return Ok(Arc::clone(types));
        }
        let mut types = Vec::new();
        let mut pass = Pass::new(self.xml, begin..end, self.reader, self.scope);
        loop {
            match pass.event()? {
                Event::Start(tag) if tag.name().0 == "T" => {
                    pass.count()?;
                    types.push(pass.decoded(false)?);
                }
                Event::Start(tag) | Event::Empty(tag) => return Err(pass.unexpected(&tag)),
                Event::Eof => break,
                _ => {}
            }
        }
        let types: Arc<[String]> = types.into();
        self.reader.types.keep(wire, &types, CLIXML_TYPES_MAX);
        Ok(types)
    }

    fn list(&mut self, empty: bool, depth: usize) -> Result<Vec<Value>, ClixmlError> {
        let mut values = Vec::new();
        while let Some((tag, empty)) = if empty { None } else { self.child()? } {
            values.push(self.value(&tag, empty, depth + 1)?);
        }
        Ok(values)
    }

    fn dictionary(&mut self, empty: bool, depth: usize) -> Result<Vec<(Value, Value)>, ClixmlError> {
        let mut entries = Vec::new();
        while let Some((tag, empty)) = if empty { None } else { self.child()? } {
            if tag.name().0 != "En" {
                return Err(self.unexpected(&tag));
            }
            let (mut key, mut value) = (Value::Null, Value::Null);
            while let Some((tag, empty)) = if empty { None } else { self.child()? } {
                let place = match attribute(&tag, "N") {
                    Some("Key") => &mut key,
                    Some("Value") => &mut value,
                    _ => return Err(ClixmlError::Nameless),
                };
                *place = self.value(&tag, empty, depth + 1)?;
            }
            entries.push((key, value));
        }
        Ok(entries)
    }

    fn id(&self, tag: &BytesStart<'_>) -> Result<u64, ClixmlError> {
        attribute(tag, "RefId").and_then(|id| id.parse().ok()).ok_or_else(|| self.unexpected(tag))
    }

    /// The text up to the end of the element.
    fn text(&mut self, empty: bool) -> Result<Cow<'x, str>, ClixmlError> {
        let mut text = Cow::Borrowed("");
        if empty {
            return Ok(text);
        }
        loop {
            let more = match self.event()? {
                Event::End(_) => return Ok(text),
                Event::Text(more) => more.xml10_content(),
                Event::CData(more) => more.xml10_content(),
                Event::GeneralRef(reference) => {
                    let resolved = reference.resolve_char_ref().map_err(|_| self.malformed())?;
                    match resolved {
                        Some(c) => Cow::Owned(c.to_string()),
                        None => resolve_predefined_entity(&reference).ok_or(ClixmlError::Entity)?.into(),
                    }
                }
                Event::Comment(_) | Event::PI(_) => continue,
                Event::Start(tag) | Event::Empty(tag) => return Err(self.unexpected(&tag)),
                _ => return Err(self.malformed()),
            };
            if text.is_empty() {
                text = more;
            } else {
                text.to_mut().push_str(&more);
            }
        }
    }

    fn decoded(&mut self, empty: bool) -> Result<String, ClixmlError> {
        Ok(decode(self.text(empty)?).into_owned())
    }

    fn truth(&mut self, empty: bool) -> Result<bool, ClixmlError> {
        match self.text(empty)?.trim() {
            text if text.eq_ignore_ascii_case("true") => Ok(true),
            text if text.eq_ignore_ascii_case("false") => Ok(false),
            _ => Err(ClixmlError::Primitive { element: "B" }),
        }
    }

    fn number<N: std::str::FromStr>(&mut self, element: &'static str, empty: bool) -> Result<N, ClixmlError> {
        self.text(empty)?.trim().parse().map_err(|_| ClixmlError::Primitive { element })
    }
}

/// An attribute as it is on the wire, without copying; no attribute of CLIXML is in a namespace.
fn attribute<'t>(tag: &'t BytesStart<'_>, name: &str) -> Option<&'t str> {
    let mut attributes = tag.attributes();
    attributes.with_checks(false);
    let attribute = attributes.filter_map(Result::ok).find(|attribute| attribute.key.0 == name)?;
    match attribute.value {
        Cow::Borrowed(value) => Some(value),
        Cow::Owned(_) => None,
    }
}
