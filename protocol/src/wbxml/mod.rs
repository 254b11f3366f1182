//! WBXML as ActiveSync uses it (MS-ASWBXML): a compact form of XML in which a byte stands for a tag name.
//!
//! ActiveSync uses a corner of WBXML 1.3 only: version 1.3, UTF-8, no string table, no attributes, no entities; code
//! pages of tags, inline strings and opaque bytes. Everything else is refused by name. A document is small, so it is
//! read into a tree of [`Element`]s; the reader never recurses and takes memory in proportion to the bytes it was
//! given, whatever lengths they claim.

mod decode;
mod encode;
mod pages;
pub mod tags;
#[cfg(test)]
mod tests;

use std::fmt;

pub use decode::{DecodeError, Limits, decode};
pub use encode::{EncodeError, encode};
pub use pages::{PAGES, Page};

/// A tag: its code page and its token there (the low six bits of the wire byte).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tag {
    /// Code page (MS-ASWBXML 2.1.2.1).
    pub page: u8,
    /// Token in that page, 0x05 to 0x3F.
    pub token: u8,
}

impl Tag {
    /// The name in the specification; `None` for a token it does not list.
    pub fn name(self) -> Option<&'static str> {
        self.code_page()?.tags.iter().find(|(token, _)| *token == self.token).map(|(_, name)| *name)
    }

    /// The page's entry in [`PAGES`]; `None` for a page the specification does not have.
    pub fn code_page(self) -> Option<&'static Page> {
        PAGES.iter().find(|page| page.number == self.page)
    }
}

/// `AirSync:Sync`; numbers where the specification has no name.
impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.code_page(), self.name()) {
            (Some(page), Some(name)) => write!(f, "{}:{name}", page.name),
            (Some(page), None) => write!(f, "{}:0x{:02X}", page.name, self.token),
            (None, _) => write!(f, "page{}:0x{:02X}", self.page, self.token),
        }
    }
}

impl fmt::Debug for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// One element with everything in it.
#[derive(Clone, PartialEq, Eq)]
pub struct Element {
    /// Which element.
    pub tag: Tag,
    /// What it holds, in order.
    pub content: Vec<Node>,
}

/// What can be inside an element.
#[derive(Clone, PartialEq, Eq)]
pub enum Node {
    /// Another element.
    Element(Element),
    /// Text (STR_I).
    Text(String),
    /// Bytes (OPAQUE).
    Opaque(Vec<u8>),
}

impl Element {
    /// An empty element.
    pub fn new(tag: Tag) -> Self {
        Self { tag, content: Vec::new() }
    }

    /// An element that holds text; an empty text leaves it empty.
    pub fn leaf(tag: Tag, text: impl ToString) -> Self {
        let text = text.to_string();
        let content = if text.is_empty() { Vec::new() } else { vec![Node::Text(text)] };
        Self { tag, content }
    }

    /// An element that holds bytes.
    pub fn bytes(tag: Tag, bytes: Vec<u8>) -> Self {
        Self { tag, content: vec![Node::Opaque(bytes)] }
    }

    /// Adds a child.
    #[must_use]
    pub fn with(mut self, child: Element) -> Self {
        self.push(child);
        self
    }

    /// Adds children.
    #[must_use]
    pub fn with_all(mut self, children: impl IntoIterator<Item = Element>) -> Self {
        self.content.extend(children.into_iter().map(Node::Element));
        self
    }

    /// Adds a child.
    pub fn push(&mut self, child: Element) {
        self.content.push(Node::Element(child));
    }

    /// The children that are elements.
    pub fn elements(&self) -> impl Iterator<Item = &Element> {
        self.content.iter().filter_map(|node| match node {
            Node::Element(element) => Some(element),
            Node::Text(_) | Node::Opaque(_) => None,
        })
    }

    /// The first child with this tag.
    pub fn child(&self, tag: Tag) -> Option<&Element> {
        self.elements().find(|element| element.tag == tag)
    }

    /// All children with this tag.
    pub fn children(&self, tag: Tag) -> impl Iterator<Item = &Element> {
        self.elements().filter(move |element| element.tag == tag)
    }

    /// The element at the end of a path of first children.
    pub fn at(&self, path: &[Tag]) -> Option<&Element> {
        path.iter().try_fold(self, |element, tag| element.child(*tag))
    }

    /// The element's text, its pieces joined; opaque bytes count when they are UTF-8, because some clients send text
    /// that way. Empty when there is none.
    pub fn text(&self) -> String {
        let mut text = String::new();
        for node in &self.content {
            match node {
                Node::Text(piece) => text.push_str(piece),
                Node::Opaque(bytes) => text.push_str(std::str::from_utf8(bytes).unwrap_or_default()),
                Node::Element(_) => {}
            }
        }
        text
    }

    /// The text of the first child with this tag.
    pub fn text_of(&self, tag: Tag) -> Option<String> {
        self.child(tag).map(Element::text)
    }

    /// The bytes in the element: opaque ones, or those of its text.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut all = Vec::new();
        for node in &self.content {
            match node {
                Node::Text(piece) => all.extend_from_slice(piece.as_bytes()),
                Node::Opaque(bytes) => all.extend_from_slice(bytes),
                Node::Element(_) => {}
            }
        }
        all
    }
}

/// The element as XML on one line, for people; a password in it is not shown.
impl fmt::Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.content.is_empty() {
            return write!(f, "<{}/>", self.tag);
        }
        write!(f, "<{}>", self.tag)?;
        for node in &self.content {
            match node {
                Node::Element(element) => fmt::Display::fmt(element, f)?,
                // The recovery password of a phone (MS-ASCMD 2.2.3.127) is a secret.
                _ if self.tag == tags::settings::PASSWORD => f.write_str("...")?,
                Node::Text(text) => {
                    for character in text.chars() {
                        match character {
                            '&' => f.write_str("&amp;")?,
                            '<' => f.write_str("&lt;")?,
                            other => write!(f, "{other}")?,
                        }
                    }
                }
                Node::Opaque(bytes) => write!(f, "[{} bytes]", bytes.len())?,
            }
        }
        write!(f, "</{}>", self.tag)
    }
}

impl fmt::Debug for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Element(element) => fmt::Display::fmt(element, f),
            Self::Text(text) => write!(f, "text of {} bytes", text.len()),
            Self::Opaque(bytes) => write!(f, "{} bytes", bytes.len()),
        }
    }
}

/// The reserved tokens of WBXML 1.3 section 7.1 that ActiveSync uses.
mod token {
    pub(super) const SWITCH_PAGE: u8 = 0x00;
    pub(super) const END: u8 = 0x01;
    pub(super) const STR_I: u8 = 0x03;
    pub(super) const OPAQUE: u8 = 0xC3;
    /// Bit of a tag byte: content follows.
    pub(super) const CONTENT: u8 = 0x40;
    /// Bit of a tag byte: attributes follow. ActiveSync has none.
    pub(super) const ATTRIBUTES: u8 = 0x80;
    /// The lowest token that is a tag.
    pub(super) const FIRST_TAG: u8 = 0x05;
    /// The bits of a tag byte that name the tag.
    pub(super) const TAG_BITS: u8 = 0x3F;
}

/// Version 1.3, unknown public identifier, UTF-8, a string table of length zero.
const PROLOGUE: [u8; 4] = [0x03, 0x01, 0x6A, 0x00];
