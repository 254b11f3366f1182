//! Values to text.

use std::fmt::{Display, Write as _};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::text::encode;
use super::value::{Content, ListKind, Members, Object, Value};

/// A value as the body of one message.
pub fn write(value: &Value) -> String {
    let mut out = String::new();
    write_to(&mut out, value);
    out
}

/// An object as the body of one message.
pub fn write_object(object: &Object) -> String {
    let mut out = String::new();
    Writer::new(&mut out).object(None, object);
    out
}

/// Appends a value as the body of one message: a caller that writes many keeps one buffer.
pub fn write_to(out: &mut String, value: &Value) {
    Writer::new(out).value(None, value);
}

/// Writes one message: the scope of references.
struct Writer<'o, 'v> {
    out: &'o mut String,
    objects: u32,
    /// Lists of types written so far; the position is the identifier. Objects and types count independently.
    types: Vec<&'v Arc<[String]>>,
}

impl<'o, 'v> Writer<'o, 'v> {
    fn new(out: &'o mut String) -> Self {
        Self { out, objects: 0, types: Vec::new() }
    }

    fn value(&mut self, name: Option<&str>, value: &'v Value) {
        match value {
            Value::Null => self.open("Nil", name, true),
            Value::String(text) => self.text("S", name, text),
            Value::Char(unit) => self.plain("C", name, unit),
            Value::Bool(truth) => self.plain("B", name, truth),
            Value::DateTime(text) => self.text("DT", name, text),
            Value::Duration(text) => self.text("TS", name, text),
            Value::U8(number) => self.plain("By", name, number),
            Value::I8(number) => self.plain("SB", name, number),
            Value::U16(number) => self.plain("U16", name, number),
            Value::I16(number) => self.plain("I16", name, number),
            Value::U32(number) => self.plain("U32", name, number),
            Value::I32(number) => self.plain("I32", name, number),
            Value::U64(number) => self.plain("U64", name, number),
            Value::I64(number) => self.plain("I64", name, number),
            Value::Float(number) => self.plain("Sg", name, Real(f64::from(*number), number)),
            Value::Double(number) => self.plain("Db", name, Real(*number, number)),
            Value::Decimal(text) => self.text("D", name, text),
            Value::Bytes(bytes) => {
                self.open("BA", name, false);
                STANDARD.encode_string(bytes, self.out);
                self.close("BA");
            }
            Value::Guid(text) => self.text("G", name, text),
            Value::Uri(text) => self.text("URI", name, text),
            Value::Version(text) => self.text("Version", name, text),
            Value::Xml(text) => self.text("XD", name, text),
            Value::ScriptBlock(text) => self.text("SBK", name, text),
            Value::SecureString(text) => self.text("SS", name, text),
            Value::Object(object) => self.object(name, object),
        }
    }

    fn object(&mut self, name: Option<&str>, object: &'v Object) {
        // Writing into a string cannot fail, here and below.
        let _ = write!(self.out, "<Obj RefId=\"{}\"", self.objects);
        self.objects += 1;
        self.name(name);
        self.out.push('>');
        self.types(&object.types);
        if let Some(text) = &object.to_string {
            self.text("ToString", None, text);
        }
        match &object.content {
            Content::None => {}
            Content::Primitive(value) => self.value(None, value),
            Content::List(kind, values) => self.list(list_element(*kind), values),
            Content::Dictionary(entries) => self.dictionary(entries),
        }
        self.members("Props", &object.adapted);
        self.members("MS", &object.extended);
        self.close("Obj");
    }

    fn types(&mut self, types: &'v Arc<[String]>) {
        if types.is_empty() {
            return;
        }
        let known = self.types.iter().position(|known| Arc::ptr_eq(known, types) || *known == types);
        if let Some(id) = known {
            let _ = write!(self.out, "<TNRef RefId=\"{id}\"/>");
            return;
        }
        let _ = write!(self.out, "<TN RefId=\"{}\">", self.types.len());
        self.types.push(types);
        for name in types.iter() {
            self.text("T", None, name);
        }
        self.close("TN");
    }

    fn list(&mut self, element: &str, values: &'v [Value]) {
        self.open(element, None, false);
        for value in values {
            self.value(None, value);
        }
        self.close(element);
    }

    fn dictionary(&mut self, entries: &'v [(Value, Value)]) {
        self.open("DCT", None, false);
        for (key, value) in entries {
            self.open("En", None, false);
            self.value(Some("Key"), key);
            self.value(Some("Value"), value);
            self.close("En");
        }
        self.close("DCT");
    }

    fn members(&mut self, element: &str, members: &'v Members) {
        if members.is_empty() {
            return;
        }
        self.open(element, None, false);
        for (name, value) in members {
            self.value(Some(name), value);
        }
        self.close(element);
    }

    fn text(&mut self, element: &str, name: Option<&str>, text: &str) {
        self.open(element, name, false);
        encode(self.out, text);
        self.close(element);
    }

    fn plain(&mut self, element: &str, name: Option<&str>, value: impl Display) {
        self.open(element, name, false);
        let _ = write!(self.out, "{value}");
        self.close(element);
    }

    fn open(&mut self, element: &str, name: Option<&str>, empty: bool) {
        self.out.push('<');
        self.out.push_str(element);
        self.name(name);
        self.out.push_str(if empty { "/>" } else { ">" });
    }

    fn name(&mut self, name: Option<&str>) {
        if let Some(name) = name {
            self.out.push_str(" N=\"");
            encode(self.out, name);
            self.out.push('"');
        }
    }

    fn close(&mut self, element: &str) {
        self.out.push_str("</");
        self.out.push_str(element);
        self.out.push('>');
    }
}

fn list_element(kind: ListKind) -> &'static str {
    match kind {
        ListKind::List => "LST",
        ListKind::Enumerable => "IE",
        ListKind::Queue => "QUE",
        ListKind::Stack => "STK",
    }
}

/// A number with a point, whose endless values are called as XML Schema calls them.
struct Real<N>(f64, N);

impl<N: Display> Display for Real<N> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.0.is_infinite(), self.0.is_sign_positive()) {
            (true, true) => f.write_str("INF"),
            (true, false) => f.write_str("-INF"),
            (false, _) => self.1.fmt(f),
        }
    }
}
