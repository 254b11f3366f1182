//! Values as JSON, which knows fewer kinds: dates, numbers of enums and identifiers become texts.

use base64::Engine as _;
use causeway_protocol::clixml::{Content, Object, Value};
use serde_json::{Map, Value as Json};

/// Name under which a hashtable is sent.
const HASHTABLE: &str = "#Exchange.GenericHashTable";

/// A parameter from JSON. `None` for what no parameter can be.
pub(crate) fn parameter(json: &Json) -> Option<Value> {
    Some(match json {
        Json::Null => Value::Null,
        Json::Bool(truth) => Value::Bool(*truth),
        Json::Number(number) => match number.as_i64() {
            Some(number) => i32::try_from(number).map_or(Value::I64(number), Value::I32),
            None => Value::Double(number.as_f64()?),
        },
        Json::String(text) => Value::String(text.clone()),
        Json::Array(items) => Value::list(items.iter().map(parameter).collect::<Option<Vec<_>>>()?),
        Json::Object(fields) => {
            if fields.get("@odata.type").and_then(Json::as_str) != Some(HASHTABLE) {
                return None;
            }
            let entries = fields.iter().filter(|(name, _)| !name.contains('@'));
            let entries = entries.map(|(name, value)| Some((Value::String(name.clone()), parameter(value)?)));
            Value::hashtable(entries.collect::<Option<Vec<_>>>()?)
        }
    })
}

/// An object, or the properties somebody selected of it. Lists, dates and identifiers have a sibling that says what they were.
pub(super) fn object(object: &Object, select: &[String]) -> Json {
    let mut fields = Map::new();
    for (name, value) in object.adapted.iter().chain(&object.extended) {
        if !select.is_empty() && !select.iter().any(|wanted| wanted.eq_ignore_ascii_case(name)) {
            continue;
        }
        if let Some(kind) = kind(value) {
            fields.insert(format!("{name}@{}", kind.0), Json::String(kind.1.to_owned()));
        }
        fields.insert(name.to_string(), json(value));
    }
    Json::Object(fields)
}

fn kind(value: &Value) -> Option<(&'static str, &'static str)> {
    match value {
        Value::DateTime(_) => Some(("data.type", "System.DateTime")),
        Value::Guid(_) => Some(("data.type", "System.Guid")),
        Value::Object(object) if matches!(object.content, Content::List(..)) => {
            Some(("odata.type", "#Collection(String)"))
        }
        _ => None,
    }
}

fn json(value: &Value) -> Json {
    match value {
        Value::Null => Json::Null,
        Value::Bool(truth) => (*truth).into(),
        Value::U8(number) => (*number).into(),
        Value::I8(number) => (*number).into(),
        Value::U16(number) => (*number).into(),
        Value::I16(number) => (*number).into(),
        Value::U32(number) => (*number).into(),
        Value::I32(number) => (*number).into(),
        Value::U64(number) => (*number).into(),
        Value::I64(number) => (*number).into(),
        Value::Float(number) => f64::from(*number).into(),
        Value::Double(number) => (*number).into(),
        Value::Bytes(bytes) => base64::engine::general_purpose::STANDARD.encode(bytes).into(),
        Value::Object(object) => match &object.content {
            Content::List(_, items) => items.iter().map(json).collect(),
            _ => value.text().map_or(Json::Null, |text| text.into_owned().into()),
        },
        other => other.text().map_or(Json::Null, |text| text.into_owned().into()),
    }
}
