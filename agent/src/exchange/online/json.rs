//! Cmdlets and objects as Exchange Online's REST API writes them. JSON loses types: dates and enums are texts; siblings
//! of a property whose names hold an `@` say what it was, and are left out.

use std::borrow::Cow;
use std::sync::Arc;

use causeway_protocol::clixml::{Content, Members, Object, Value};
use causeway_protocol::cmdlet::{Cmdlet, ErrorRecord};
use serde_json::{Map, Value as Json, json};

/// The body of a request.
pub(super) fn cmdlet_input(cmdlet: &Cmdlet) -> Json {
    let parameters: Map<String, Json> =
        cmdlet.parameters.iter().map(|(name, value)| (name.clone(), argument(value))).collect();
    json!({ "CmdletInput": { "CmdletName": cmdlet.name, "Parameters": parameters } })
}

fn argument(value: &Value) -> Json {
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
        Value::Object(object) => match &object.content {
            Content::List(_, values) => values.iter().map(argument).collect(),
            Content::Dictionary(entries) => {
                let mut table = Map::from_iter([("@odata.type".into(), "#Exchange.GenericHashTable".into())]);
                for (key, value) in entries {
                    // `add` and `remove` are written small where this is known to work.
                    let key = key.text().unwrap_or_default().to_ascii_lowercase();
                    table.insert(key, argument(value));
                }
                Json::Object(table)
            }
            _ => value.text().map_or(Json::Null, |text| text.into_owned().into()),
        },
        other => other.text().map_or(Json::Null, |text| text.into_owned().into()),
    }
}

/// An element of `value`.
pub(super) fn object(json: Json) -> Object {
    match json {
        Json::Object(fields) => {
            let types: Vec<String> = match fields.get("@odata.type").and_then(Json::as_str) {
                Some(name) => vec![name.trim_start_matches('#').to_owned()],
                None => Vec::new(),
            };
            let adapted: Members = fields
                .into_iter()
                .filter(|(name, _)| !name.contains('@'))
                .map(|(name, value)| (Arc::from(name), property(value)))
                .collect();
            Object { types: types.into(), adapted, ..Object::default() }
        }
        // Cmdlets that give bare texts.
        other => Object { content: Content::Primitive(property(other)), ..Object::default() },
    }
}

fn property(json: Json) -> Value {
    match json {
        Json::Null => Value::Null,
        Json::Bool(truth) => Value::Bool(truth),
        Json::Number(number) => match (number.as_i64(), number.as_u64(), number.as_f64()) {
            (Some(number), ..) => i32::try_from(number).map_or(Value::I64(number), Value::I32),
            (None, Some(number), _) => Value::U64(number),
            (None, None, number) => Value::Double(number.unwrap_or_default()),
        },
        Json::String(text) => Value::String(text),
        Json::Array(values) => Value::list(values.into_iter().map(property).collect()),
        Json::Object(_) => Value::Object(Box::new(object(json))),
    }
}

/// What is wrong, from the body of a refusal: the details before the inner error before the outer message, which only
/// says that something went wrong. `None` when it is no refusal of the API.
pub(super) fn error(body: &[u8]) -> Option<ErrorRecord> {
    let body: Json = serde_json::from_slice(body).ok()?;
    let error = body.get("error")?.as_object()?;
    fn text(value: Option<&Json>) -> Option<&str> {
        value.and_then(Json::as_str).filter(|text| !text.is_empty())
    }
    let detail = error.get("details").and_then(Json::as_array).and_then(|details| details.first());
    let inner = error.get("innererror");
    let internal = inner.and_then(|inner| inner.get("internalexception"));
    let message = text(detail.and_then(|detail| detail.get("message")))
        .or_else(|| text(internal.and_then(|inner| inner.get("message"))))
        .or_else(|| text(inner.and_then(|inner| inner.get("message"))))
        .or_else(|| text(error.get("message")))
        .unwrap_or_default();
    let code = text(error.get("code")).unwrap_or_default();
    let class = text(internal.and_then(|inner| inner.get("type"))).unwrap_or_default();
    let (named, message) = split(message);
    let reason = named.as_deref().unwrap_or(class);
    let reason = reason.rsplit('.').next().unwrap_or_default();
    let reason = if reason.is_empty() { code } else { reason };
    let target = text(detail.and_then(|detail| detail.get("target"))).unwrap_or_default();
    Some(ErrorRecord {
        message: message.chars().take(super::super::limits::TEXT_MAX_CHARS).collect(),
        reason: reason.to_owned(),
        fully_qualified_id: format!("[FailureCategory=Cmdlet-{reason}] {code}"),
        category: 0,
        target: target.to_owned(),
    })
}

/// `Ex6F9304|Microsoft.Exchange.Configuration.Tasks.ManagementObjectNotFoundException|The operation ...`: an exception's
/// class stands before the words.
fn split(message: &str) -> (Option<String>, Cow<'_, str>) {
    let mut parts = message.splitn(3, '|');
    match (parts.next(), parts.next(), parts.next()) {
        (Some(_), Some(class), Some(words)) if class.ends_with("Exception") && !class.contains(' ') => {
            (Some(class.to_owned()), words.into())
        }
        _ => (None, message.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_keep_what_json_can_say() {
        let cmdlet = Cmdlet::new("Set-CASMailbox")
            .with("Identity", "bob")
            .with("Confirm", false)
            .with("Size", Value::I32(7))
            .with("Nothing", Value::Null)
            .with("List", Value::list(vec!["a".into(), "b".into()]))
            .with("ActiveSyncAllowedDeviceIDs", Value::hashtable(vec![("Add".into(), "ABC\"'".into())]));
        let expected = json!({ "CmdletInput": { "CmdletName": "Set-CASMailbox", "Parameters": {
            "Identity": "bob", "Confirm": false, "Size": 7, "Nothing": null, "List": ["a", "b"],
            "ActiveSyncAllowedDeviceIDs": { "@odata.type": "#Exchange.GenericHashTable", "add": "ABC\"'" },
        } } });
        assert_eq!(cmdlet_input(&cmdlet), expected);
    }

    #[test]
    fn siblings_that_only_name_types_are_left_out() {
        let read = object(json!({
            "@odata.type": "#Exchange.MobileDevice", "DeviceId": "A1", "FirstSyncTime@data.type": "System.DateTime",
            "FirstSyncTime": "2026-01-02T03:04:05Z", "Ids@odata.type": "#Collection(String)", "Ids": ["x", "y"],
            "IsManaged": false, "Count": 5_000_000_000_i64, "Inner": { "A@odata.type": "x", "A": 1 }, "None": null,
        }));
        assert_eq!(&*read.types, ["Exchange.MobileDevice"]);
        assert!(read.adapted.iter().all(|(name, _)| !name.contains('@')), "{read:?}");
        assert_eq!(read.text("DeviceId").as_deref(), Some("A1"));
        assert_eq!(read.get("Ids").unwrap().items().len(), 2);
        assert_eq!(read.get("Count"), Some(&Value::I64(5_000_000_000)));
        assert_eq!(read.get("None"), Some(&Value::Null));
        assert_eq!(object(json!("text")).content, Content::Primitive("text".into()));
    }

    #[test]
    fn the_most_exact_of_several_messages_counts() {
        let body = json!({ "error": {
            "code": "NotFound", "message": "Error executing cmdlet",
            "details": [{ "code": "Context", "target": "bob",
                "message": "Ex6F9304|Microsoft.Exchange.Configuration.Tasks.ManagementObjectNotFoundException|The operation couldn't be performed because object 'bob' couldn't be found." }],
            "innererror": { "message": "x", "internalexception": { "message": "y", "type": "A.B" } },
        } });
        let record = error(body.to_string().as_bytes()).unwrap();
        assert_eq!(record.reason, "ManagementObjectNotFoundException");
        assert!(record.message.starts_with("The operation"), "{}", record.message);
        assert_eq!(record.failure_category(), Some("ManagementObjectNotFoundException"));
        assert_eq!(record.target, "bob");
        let inner = json!({ "error": { "code": "500", "message": "outer", "innererror": { "internalexception":
            { "message": "inner", "type": "System.Management.Automation.CommandNotFoundException" } } } });
        let record = error(inner.to_string().as_bytes()).unwrap();
        assert_eq!((record.message.as_str(), record.reason.as_str()), ("inner", "CommandNotFoundException"));
        assert_eq!(error(b"<html>"), None);
        assert_eq!(error(b"{\"error\": 1}"), None);
    }
}
