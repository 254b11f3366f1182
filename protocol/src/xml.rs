//! XML with namespaces, small and bounded: what SOAP needs, for WSMan as for web services.

use std::borrow::Cow;
use std::sync::Arc;

use quick_xml::escape::{resolve_predefined_entity, unescape};
use quick_xml::events::{BytesStart, Event};
use quick_xml::name::ResolveResult;
use quick_xml::reader::NsReader;
use thiserror::Error;

use crate::limits::{XML_ATTRIBUTES_MAX, XML_DEPTH_MAX, XML_PARTS_MAX};

/// Why bytes are no XML that is taken. Never carries what they say.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum XmlError {
    /// Not UTF-8.
    #[error("the document is not UTF-8")]
    Encoding,
    /// Not well formed, or a prefix without a namespace.
    #[error("the document is not well-formed XML at byte {at}")]
    Malformed {
        /// Where, about.
        at: u64,
    },
    /// A document type, or an entity besides XML's own.
    #[error("the document declares or uses entities")]
    Entity,
    /// Deeper than [`XML_DEPTH_MAX`].
    #[error("elements are nested more than {XML_DEPTH_MAX} deep")]
    TooDeep,
    /// More elements and attributes than [`XML_PARTS_MAX`], or more of one element than [`XML_ATTRIBUTES_MAX`].
    #[error("the document has more elements or attributes than are taken")]
    TooMany,
    /// Longer than the caller takes.
    #[error("the document has more than {max_bytes} bytes")]
    TooLong {
        /// What is taken.
        max_bytes: usize,
    },
}

/// An element. Text between children is joined: SOAP has no mixed content that means anything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Element {
    /// Empty for none.
    pub namespace: Arc<str>,
    /// Without prefix.
    pub name: String,
    /// Without declarations of namespaces.
    pub attributes: Vec<Attribute>,
    /// In order.
    pub children: Vec<Element>,
    /// Its own text, not that of its children.
    pub text: String,
}

/// An attribute of an element.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attribute {
    /// Empty for none, which is the usual case.
    pub namespace: Arc<str>,
    /// Without prefix.
    pub name: String,
    /// Its text.
    pub value: String,
}

impl Element {
    /// Whether it is this one.
    pub fn is(&self, namespace: &str, name: &str) -> bool {
        self.name == name && *self.namespace == *namespace
    }

    /// The first child of this name.
    pub fn child(&self, namespace: &str, name: &str) -> Option<&Self> {
        self.children.iter().find(|child| child.is(namespace, name))
    }

    /// All children of this name.
    pub fn children_named<'a>(&'a self, namespace: &'a str, name: &'a str) -> impl Iterator<Item = &'a Self> {
        self.children.iter().filter(move |child| child.is(namespace, name))
    }

    /// The text of the first child of this name, without white space around it.
    pub fn child_text(&self, namespace: &str, name: &str) -> Option<&str> {
        self.child(namespace, name).map(|child| child.text.trim())
    }

    /// An attribute without namespace.
    pub fn attribute(&self, name: &str) -> Option<&str> {
        self.attribute_in("", name)
    }

    /// An attribute in a namespace.
    pub fn attribute_in(&self, namespace: &str, name: &str) -> Option<&str> {
        let mut attributes = self.attributes.iter();
        attributes
            .find(|known| known.name == name && *known.namespace == *namespace)
            .map(|known| &*known.value)
    }
}

/// Reads a document of at most so many bytes, with or without byte order mark.
///
/// # Errors
/// [`XmlError`]
pub fn read(bytes: &[u8], max_bytes: usize) -> Result<Element, XmlError> {
    if bytes.len() > max_bytes {
        return Err(XmlError::TooLong { max_bytes });
    }
    let text = str::from_utf8(bytes).map_err(|_| XmlError::Encoding)?;
    let mut source = NsReader::from_str(text.strip_prefix('\u{feff}').unwrap_or(text));
    let mut tree = Tree::default();
    loop {
        let event = source.read_event().map_err(|_| malformed(&source))?;
        match event {
            Event::Start(tag) => {
                let element = tree.element(&source, &tag)?;
                tree.open.push(element);
            }
            Event::Empty(tag) => {
                let element = tree.element(&source, &tag)?;
                tree.close(element).map_err(|Misplaced| malformed(&source))?;
            }
            Event::End(_) => {
                let element = tree.open.pop().ok_or_else(|| malformed(&source))?;
                tree.close(element).map_err(|Misplaced| malformed(&source))?;
            }
            Event::Text(text) => tree.text(text.xml10_content()).map_err(|Misplaced| malformed(&source))?,
            Event::CData(text) => tree.text(text.xml10_content()).map_err(|Misplaced| malformed(&source))?,
            Event::GeneralRef(reference) => {
                let text = match reference.resolve_char_ref().map_err(|_| malformed(&source))? {
                    Some(c) => Cow::Owned(c.to_string()),
                    None => Cow::Borrowed(resolve_predefined_entity(&reference).ok_or(XmlError::Entity)?),
                };
                tree.text(text).map_err(|Misplaced| malformed(&source))?;
            }
            Event::DocType(_) => return Err(XmlError::Entity),
            Event::Comment(_) | Event::Decl(_) | Event::PI(_) => {}
            Event::Eof => break,
        }
    }
    match tree.root {
        Some(root) if tree.open.is_empty() => Ok(root),
        _ => Err(malformed(&source)),
    }
}

fn malformed(source: &NsReader<&[u8]>) -> XmlError {
    XmlError::Malformed { at: source.buffer_position() }
}

/// Something outside the one root element.
struct Misplaced;

#[derive(Default)]
struct Tree {
    root: Option<Element>,
    open: Vec<Element>,
    parts: usize,
    /// Namespaces met so far: a document has a handful, and every element names one.
    namespaces: Vec<Arc<str>>,
}

impl Tree {
    fn element(&mut self, source: &NsReader<&[u8]>, tag: &BytesStart<'_>) -> Result<Element, XmlError> {
        self.part()?;
        if self.open.len() >= XML_DEPTH_MAX {
            return Err(XmlError::TooDeep);
        }
        let (namespace, name) = source.resolver().resolve_element(tag.name());
        let mut element = Element {
            namespace: self.namespace(namespace).ok_or_else(|| malformed(source))?,
            name: name.as_ref().to_owned(),
            ..Element::default()
        };
        for (count, attribute) in tag.attributes().enumerate() {
            if count >= XML_ATTRIBUTES_MAX {
                return Err(XmlError::TooMany);
            }
            self.part()?;
            let attribute = attribute.map_err(|_| malformed(source))?;
            if attribute.key.as_namespace_binding().is_some() {
                continue;
            }
            let (namespace, name) = source.resolver().resolve_attribute(attribute.key);
            element.attributes.push(Attribute {
                namespace: self.namespace(namespace).ok_or_else(|| malformed(source))?,
                name: name.as_ref().to_owned(),
                value: unescape(&attribute.value).map_err(|_| XmlError::Entity)?.into_owned(),
            });
        }
        Ok(element)
    }

    /// One more element or attribute.
    fn part(&mut self) -> Result<(), XmlError> {
        self.parts += 1;
        if self.parts > XML_PARTS_MAX { Err(XmlError::TooMany) } else { Ok(()) }
    }

    /// Shared with what was met; `None` for a prefix nobody declared.
    fn namespace(&mut self, resolved: ResolveResult<'_>) -> Option<Arc<str>> {
        let name = match resolved {
            ResolveResult::Bound(namespace) => namespace.0,
            ResolveResult::Unbound => "",
            ResolveResult::Unknown(_) => return None,
        };
        if let Some(known) = self.namespaces.iter().find(|known| &***known == name) {
            return Some(Arc::clone(known));
        }
        let namespace: Arc<str> = name.into();
        if self.namespaces.len() < XML_ATTRIBUTES_MAX {
            self.namespaces.push(Arc::clone(&namespace));
        }
        Some(namespace)
    }

    fn close(&mut self, element: Element) -> Result<(), Misplaced> {
        match self.open.last_mut() {
            Some(parent) => parent.children.push(element),
            None if self.root.is_some() => return Err(Misplaced),
            None => self.root = Some(element),
        }
        Ok(())
    }

    fn text(&mut self, text: Cow<'_, str>) -> Result<(), Misplaced> {
        match self.open.last_mut() {
            Some(element) => element.text.push_str(&text),
            None if text.trim_ascii().is_empty() => {}
            None => return Err(Misplaced),
        }
        Ok(())
    }
}

/// Writes a document; the caller declares the prefixes it uses on the root.
#[derive(Debug, Default)]
pub struct Writer {
    out: String,
    open: Vec<&'static str>,
    /// Nothing is in the element opened last.
    bare: bool,
}

impl Writer {
    /// An empty document without declaration.
    pub fn new() -> Self {
        Self::default()
    }

    /// Opens an element, named with its prefix.
    pub fn start(&mut self, name: &'static str, attributes: &[(&str, &str)]) -> &mut Self {
        self.tag(name, attributes);
        self.out.push('>');
        self.open.push(name);
        self.bare = true;
        self
    }

    /// An element without content.
    pub fn empty(&mut self, name: &'static str, attributes: &[(&str, &str)]) -> &mut Self {
        self.tag(name, attributes);
        self.out.push_str("/>");
        self
    }

    /// An element with only text, or with nothing.
    pub fn element(&mut self, name: &'static str, attributes: &[(&str, &str)], text: &str) -> &mut Self {
        self.start(name, attributes).text(text).end()
    }

    /// Text in the open element.
    pub fn text(&mut self, text: &str) -> &mut Self {
        self.bare &= text.is_empty();
        escape(&mut self.out, text);
        self
    }

    /// Bytes as base64 in the open element.
    pub fn base64(&mut self, bytes: &[u8]) -> &mut Self {
        use base64::Engine as _;
        self.bare &= bytes.is_empty();
        base64::engine::general_purpose::STANDARD.encode_string(bytes, &mut self.out);
        self
    }

    /// Closes the element opened last.
    pub fn end(&mut self) -> &mut Self {
        if let Some(name) = self.open.pop() {
            if std::mem::take(&mut self.bare) {
                self.out.pop();
                self.out.push_str("/>");
            } else {
                self.out.push_str("</");
                self.out.push_str(name);
                self.out.push('>');
            }
        }
        self
    }

    /// Closes what is open and gives the document.
    pub fn finish(mut self) -> String {
        while !self.open.is_empty() {
            self.end();
        }
        self.out
    }

    fn tag(&mut self, name: &str, attributes: &[(&str, &str)]) {
        self.bare = false;
        self.out.push('<');
        self.out.push_str(name);
        for (name, value) in attributes {
            self.out.push(' ');
            self.out.push_str(name);
            self.out.push_str("=\"");
            escape(&mut self.out, value);
            self.out.push('"');
        }
    }
}

/// Appends text with what XML reserves escaped, and white space that parsers would change. Control characters XML has no
/// way to write become U+FFFD.
fn escape(out: &mut String, text: &str) {
    let mut plain_from = 0;
    for (at, c) in text.char_indices() {
        let escaped = match c {
            '&' => "&amp;",
            '<' => "&lt;",
            '>' => "&gt;",
            '"' => "&quot;",
            '\r' => "&#13;",
            '\n' => "&#10;",
            '\t' => "&#9;",
            '\0'..='\u{1f}' | '\u{fffe}' | '\u{ffff}' => "\u{fffd}",
            _ => continue,
        };
        out.push_str(&text[plain_from..at]);
        out.push_str(escaped);
        plain_from = at + c.len_utf8();
    }
    out.push_str(&text[plain_from..]);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MAX: usize = 1 << 20;

    #[test]
    fn names_are_resolved_and_text_is_joined() {
        let xml = "\u{feff}<?xml version='1.0'?><!-- c --><p:a xmlns:p='urn:1' xmlns='urn:2' x='1&amp;' p:x='2'>\
                   t&#x41;&lt;<b xml:lang='en'/><![CDATA[<]]></p:a>\n";
        let root = read(xml.as_bytes(), MAX).unwrap();
        assert!(root.is("urn:1", "a"));
        assert_eq!((root.attribute("x"), root.attribute_in("urn:1", "x")), (Some("1&"), Some("2")));
        assert_eq!(root.attributes.len(), 2);
        assert_eq!(root.text, "tA<<");
        let child = root.child("urn:2", "b").unwrap();
        assert_eq!(child.attribute_in("http://www.w3.org/XML/1998/namespace", "lang"), Some("en"));
        assert_eq!(root.children_named("urn:2", "b").count(), 1);
        assert_eq!(root.child_text("urn:1", "b"), None);
    }

    #[test]
    fn document_types_and_entities_are_refused() {
        for xml in ["<!DOCTYPE a [<!ENTITY b 'c'>]><a>&b;</a>", "<a>&b;</a>", "<a x='&b;'/>"] {
            assert_eq!(read(xml.as_bytes(), MAX), Err(XmlError::Entity), "{xml}");
        }
    }

    #[test]
    fn what_is_not_one_well_formed_element_is_refused() {
        for xml in [
            "",
            "a",
            "<a",
            "<a>",
            "</a>",
            "<a></b>",
            "<a/><a/>",
            "<a/>b",
            "<p:a/>",
            "<a p:x='1'/>",
            "<a>&#0;</a>",
        ] {
            assert!(matches!(read(xml.as_bytes(), MAX), Err(XmlError::Malformed { .. })), "{xml}");
        }
        assert_eq!(read(&[0xff], MAX), Err(XmlError::Encoding));
    }

    #[test]
    fn every_dimension_is_bounded() {
        let deep = "<a>".repeat(100_000);
        assert_eq!(read(deep.as_bytes(), MAX), Err(XmlError::TooDeep));
        let wide = format!("<a>{}</a>", "<b/>".repeat(XML_PARTS_MAX));
        assert_eq!(read(wide.as_bytes(), MAX), Err(XmlError::TooMany));
        let attributes: String = (0..=XML_ATTRIBUTES_MAX).map(|n| format!(" x{n}='1'")).collect();
        assert_eq!(read(format!("<a{attributes}/>").as_bytes(), MAX), Err(XmlError::TooMany));
        let many = format!("<a>{}</a>", "<b x='1' y='2'/>".repeat(XML_PARTS_MAX / 3 + 1));
        assert_eq!(read(many.as_bytes(), MAX), Err(XmlError::TooMany));
        assert_eq!(read(b"<a/>", 3), Err(XmlError::TooLong { max_bytes: 3 }));
    }

    proptest! {
        #[test]
        fn text_travels(text in "[^\\p{Cc}\u{fffe}\u{ffff}]{0,20}|[ -~\r\n\t]{0,20}") {
            let mut out = Writer::new();
            out.start("a", &[("x", &text)]).text(&text);
            let root = read(out.finish().as_bytes(), MAX).unwrap();
            prop_assert_eq!(root.attribute("x"), Some(&*text));
            prop_assert_eq!(root.text, text);
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = read(&bytes, MAX);
        }
    }
}
