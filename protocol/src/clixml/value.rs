//! Values as they are before they are written and after they are read.
//!
//! References are resolved when a value is read: what was written once and referred to twice is here twice. Numbers,
//! dates and identifiers keep the text they came with where Rust has no type for them, so that what is compared is what
//! the server said.

use std::sync::Arc;

/// A value (MS-PSRP 2.2.5.1 and 2.2.5.2).
#[derive(Clone, Debug, PartialEq, Default)]
pub enum Value {
    /// `Nil`
    #[default]
    Null,
    /// `S`
    String(String),
    /// `C`: one UTF-16 unit.
    Char(u16),
    /// `B`
    Bool(bool),
    /// `DT`: ISO 8601 with offset, as text.
    DateTime(String),
    /// `TS`: ISO 8601 duration, as text.
    Duration(String),
    /// `By`
    U8(u8),
    /// `SB`
    I8(i8),
    /// `U16`
    U16(u16),
    /// `I16`
    I16(i16),
    /// `U32`
    U32(u32),
    /// `I32`
    I32(i32),
    /// `U64`
    U64(u64),
    /// `I64`
    I64(i64),
    /// `Sg`
    Float(f32),
    /// `Db`
    Double(f64),
    /// `D`: decimal digits, as text.
    Decimal(String),
    /// `BA`
    Bytes(Vec<u8>),
    /// `G`: lower case, with hyphens, without braces.
    Guid(String),
    /// `URI`
    Uri(String),
    /// `Version`
    Version(String),
    /// `XD`: a document, as text; never parsed.
    Xml(String),
    /// `SBK`: the text of a script, never run.
    ScriptBlock(String),
    /// `SS`: as it is on the wire, encrypted.
    SecureString(String),
    /// `Obj`
    Object(Box<Object>),
}

/// An object with properties (MS-PSRP 2.2.5.2).
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Object {
    /// Names of its types, most derived first; deserialised ones begin with `Deserialized.`.
    pub types: Arc<[String]>,
    /// What `ToString()` gave.
    pub to_string: Option<String>,
    /// `Props`: properties the object itself has.
    pub adapted: Members,
    /// `MS`: properties PowerShell added, and those of objects made by scripts.
    pub extended: Members,
    /// What it is besides its properties.
    pub content: Content,
}

/// Properties in the order of the wire; names may repeat in hostile input, the first one counts.
pub type Members = Vec<(Arc<str>, Value)>;

/// What an object is besides its properties.
#[derive(Clone, Debug, PartialEq, Default)]
pub enum Content {
    /// Only its properties.
    #[default]
    None,
    /// A primitive, for example the number of an enum.
    Primitive(Value),
    /// Several values in order.
    List(ListKind, Vec<Value>),
    /// `DCT`: keys and values in the order of the wire.
    Dictionary(Vec<(Value, Value)>),
}

/// How a list is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListKind {
    /// `LST`
    List,
    /// `IE`
    Enumerable,
    /// `QUE`
    Queue,
    /// `STK`
    Stack,
}

impl Value {
    /// What a person would read: the text of a string, of anything kept as text, of numbers and truth, and an object's
    /// `ToString`. `None` for null, bytes and objects that have none. This makes a server that sends an enum as an
    /// object and one that sends its name the same.
    pub fn text(&self) -> Option<std::borrow::Cow<'_, str>> {
        use std::borrow::Cow::{Borrowed, Owned};
        match self {
            Self::Null | Self::Bytes(_) => None,
            Self::String(text)
            | Self::DateTime(text)
            | Self::Duration(text)
            | Self::Decimal(text)
            | Self::Guid(text)
            | Self::Uri(text)
            | Self::Version(text)
            | Self::Xml(text)
            | Self::ScriptBlock(text)
            | Self::SecureString(text) => Some(Borrowed(text)),
            Self::Char(unit) => Some(Owned(String::from_utf16_lossy(&[*unit]))),
            Self::Bool(true) => Some(Borrowed("True")),
            Self::Bool(false) => Some(Borrowed("False")),
            Self::U8(number) => Some(Owned(number.to_string())),
            Self::I8(number) => Some(Owned(number.to_string())),
            Self::U16(number) => Some(Owned(number.to_string())),
            Self::I16(number) => Some(Owned(number.to_string())),
            Self::U32(number) => Some(Owned(number.to_string())),
            Self::I32(number) => Some(Owned(number.to_string())),
            Self::U64(number) => Some(Owned(number.to_string())),
            Self::I64(number) => Some(Owned(number.to_string())),
            Self::Float(number) => Some(Owned(number.to_string())),
            Self::Double(number) => Some(Owned(number.to_string())),
            Self::Object(object) => match (&object.to_string, &object.content) {
                (Some(text), _) => Some(Borrowed(text)),
                (None, Content::Primitive(value)) => value.text(),
                (None, _) => None,
            },
        }
    }

    /// Truth, also where a server without types sends it as text.
    pub fn as_bool(&self) -> Option<bool> {
        match self {
            Self::Bool(truth) => Some(*truth),
            Self::String(text) if text.eq_ignore_ascii_case("true") => Some(true),
            Self::String(text) if text.eq_ignore_ascii_case("false") => Some(false),
            _ => None,
        }
    }

    /// The values of a list; a single value is a list of one, null is an empty one, because servers send lists of one
    /// element either way.
    pub fn items(&self) -> &[Value] {
        match self {
            Self::Null => &[],
            Self::Object(object) => match &object.content {
                Content::List(_, values) => values,
                _ => std::slice::from_ref(self),
            },
            _ => std::slice::from_ref(self),
        }
    }

    /// An enum as remoting sends it: its number with its name as `ToString`.
    pub fn enumeration(type_name: &str, name: &str, number: i32) -> Self {
        let types = [type_name, "System.Enum", "System.ValueType", "System.Object"].map(str::to_owned);
        Self::Object(Box::new(Object {
            types: types.into(),
            to_string: Some(name.to_owned()),
            content: Content::Primitive(Self::I32(number)),
            ..Object::default()
        }))
    }

    /// A list as remoting sends an `ArrayList`.
    pub fn list(values: Vec<Value>) -> Self {
        let types = ["System.Collections.ArrayList", "System.Object"].map(str::to_owned);
        Self::Object(Box::new(Object {
            types: types.into(),
            content: Content::List(ListKind::List, values),
            ..Object::default()
        }))
    }

    /// `@{key = value}`.
    pub fn hashtable(entries: Vec<(Value, Value)>) -> Self {
        let types = ["System.Collections.Hashtable", "System.Object"].map(str::to_owned);
        Self::Object(Box::new(Object {
            types: types.into(),
            content: Content::Dictionary(entries),
            ..Object::default()
        }))
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::String(text.to_owned())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::String(text)
    }
}

impl From<bool> for Value {
    fn from(truth: bool) -> Self {
        Self::Bool(truth)
    }
}

impl Object {
    /// A property by name, whatever the case; the object's own before added ones.
    pub fn get(&self, name: &str) -> Option<&Value> {
        let found =
            |members: &'_ Members| members.iter().position(|(known, _)| known.eq_ignore_ascii_case(name));
        match found(&self.adapted) {
            Some(at) => Some(&self.adapted[at].1),
            None => found(&self.extended).map(|at| &self.extended[at].1),
        }
    }

    /// A property as text; see [`Value::text`]. `None` also for an empty one.
    pub fn text(&self, name: &str) -> Option<std::borrow::Cow<'_, str>> {
        self.get(name)?.text().filter(|text| !text.is_empty())
    }
}
