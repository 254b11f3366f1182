//! Making objects as remoting delivers them.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

use causeway_protocol::clixml::{Content, ListKind, Members, Object, Value};
use time::OffsetDateTime;

use crate::world::guid_text;

thread_local! {
    /// Names of properties, each allocated once a thread; found by where the literal is, which is cheaper than its text.
    static NAMES: RefCell<HashMap<usize, Arc<str>>> = RefCell::default();
    static TYPES: RefCell<HashMap<usize, Arc<[String]>>> = RefCell::default();
}

fn name(literal: &'static str) -> Arc<str> {
    // Two literals may share their place when one is the beginning of the other: their lengths differ.
    let key = (literal.as_ptr() as usize).wrapping_mul(257).wrapping_add(literal.len());
    NAMES.with_borrow_mut(|names| {
        let known = names.entry(key).or_insert_with(|| literal.into());
        if **known == *literal { Arc::clone(known) } else { literal.into() }
    })
}

/// Builds an object property by property, in the order they are to appear.
pub(super) struct Builder {
    object: Object,
}

/// The .NET class of an object and those it is derived from.
pub(super) type Types = &'static [&'static str];

impl Builder {
    pub(super) fn new(types: Types, to_string: String) -> Self {
        let types = TYPES.with_borrow_mut(|known| {
            let made = || types.iter().map(|name| (*name).to_owned()).collect();
            Arc::clone(known.entry(types.as_ptr() as usize).or_insert_with(made))
        });
        let object = Object {
            types,
            to_string: Some(to_string),
            adapted: Members::with_capacity(48),
            ..Object::default()
        };
        Self { object }
    }

    pub(super) fn value(mut self, literal: &'static str, value: Value) -> Self {
        self.object.adapted.push((name(literal), value));
        self
    }

    pub(super) fn text(self, name: &'static str, text: impl Into<String>) -> Self {
        self.value(name, Value::String(text.into()))
    }

    /// A text, or null when there is none.
    pub(super) fn maybe(self, name: &'static str, text: Option<&str>) -> Self {
        let value = text.map_or(Value::Null, |text| Value::String(text.to_owned()));
        self.value(name, value)
    }

    pub(super) fn bool(self, name: &'static str, truth: bool) -> Self {
        self.value(name, Value::Bool(truth))
    }

    pub(super) fn guid(self, name: &'static str, guid: &[u8; 16]) -> Self {
        self.value(name, Value::Guid(guid_text(guid)))
    }

    /// Unix milliseconds as a date, or null.
    pub(super) fn date(self, name: &'static str, ms: Option<i64>) -> Self {
        self.value(name, ms.map_or(Value::Null, date))
    }

    pub(super) fn enumeration(self, name: &'static str, type_name: &str, word: &str, number: i32) -> Self {
        self.value(name, Value::enumeration(type_name, word, number))
    }

    /// A `MultiValuedProperty` of texts.
    pub(super) fn list<T: AsRef<str>>(self, name: &'static str, items: impl IntoIterator<Item = T>) -> Self {
        let values = items.into_iter().map(|item| Value::String(item.as_ref().to_owned())).collect();
        self.value(name, multi_valued(values))
    }

    pub(super) fn done(self) -> Object {
        self.object
    }
}

/// What deserialised lists of Exchange look like.
const MULTI_VALUED: Types = &[
    "Deserialized.Microsoft.Exchange.Data.MultiValuedProperty`1[[System.String, mscorlib, Version=2.0.0.0, Culture=neutral, PublicKeyToken=b77a5c561934e089]]",
    "Deserialized.Microsoft.Exchange.Data.MultiValuedPropertyBase",
    "Deserialized.System.Object",
    "System.Object",
];

fn multi_valued(values: Vec<Value>) -> Value {
    let mut object = Builder::new(MULTI_VALUED, String::new()).done();
    object.to_string = None;
    object.content = Content::List(ListKind::List, values);
    Value::Object(Box::new(object))
}

/// Unix milliseconds as CLIXML writes a date in UTC.
pub(super) fn date(ms: i64) -> Value {
    Value::DateTime(date_text(ms))
}

/// `2026-01-01T00:00:00.000Z`
pub(super) fn date_text(ms: i64) -> String {
    let at = OffsetDateTime::from_unix_timestamp(ms.div_euclid(1_000)).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}Z",
        at.year(),
        u8::from(at.month()),
        at.day(),
        at.hour(),
        at.minute(),
        at.second(),
        ms.rem_euclid(1_000)
    )
}
