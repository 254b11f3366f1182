//! Error records and informational records (MS-PSRP 2.2.3.15, 2.2.3.16) as values.

use std::sync::Arc;

use crate::clixml::{Object, Value};
use crate::cmdlet::ErrorRecord;

/// An object of only added properties, as messages are.
pub(super) fn properties<const N: usize>(members: [(&str, Value); N]) -> Object {
    Object {
        extended: members.into_iter().map(|(name, value)| (Arc::from(name), value)).collect(),
        ..Object::default()
    }
}

/// The same as a value.
pub(super) fn body<const N: usize>(members: [(&str, Value); N]) -> Value {
    Value::Object(Box::new(properties(members)))
}

/// The property of a message, null when it is absent.
pub(super) fn member<'v>(value: &'v Value, name: &str) -> &'v Value {
    match value {
        Value::Object(object) => object.get(name).unwrap_or(&Value::Null),
        _ => &Value::Null,
    }
}

fn text(value: &Value, name: &str) -> Option<String> {
    member(value, name).text().filter(|text| !text.is_empty()).map(std::borrow::Cow::into_owned)
}

/// A whole number of whatever width, also of an enum.
pub(super) fn number(value: &Value) -> Option<i64> {
    Some(match value {
        Value::U8(number) => i64::from(*number),
        Value::I8(number) => i64::from(*number),
        Value::U16(number) => i64::from(*number),
        Value::I16(number) => i64::from(*number),
        Value::U32(number) => i64::from(*number),
        Value::I32(number) => i64::from(*number),
        Value::U64(number) => i64::try_from(*number).ok()?,
        Value::I64(number) => *number,
        Value::Object(object) => match &object.content {
            crate::clixml::Content::Primitive(value) => number(value)?,
            _ => return None,
        },
        _ => return None,
    })
}

/// What a program may rely on in an error record; absent parts are empty.
pub fn error_record(value: &Value) -> ErrorRecord {
    let exception = member(value, "Exception");
    let message = text(exception, "Message")
        .or_else(|| text(value, "ErrorDetails_Message"))
        .or_else(|| value.text().map(std::borrow::Cow::into_owned))
        .unwrap_or_default();
    let reason = text(value, "ErrorCategory_Reason").or_else(|| class_name(exception)).unwrap_or_default();
    let target = text(value, "ErrorCategory_TargetName").or_else(|| text(value, "TargetObject"));
    ErrorRecord {
        message,
        reason,
        fully_qualified_id: text(value, "FullyQualifiedErrorId").unwrap_or_default(),
        category: number(member(value, "ErrorCategory_Category"))
            .and_then(|category| i32::try_from(category).ok())
            .unwrap_or_default(),
        target: target.unwrap_or_default(),
    }
}

/// `ManagementObjectNotFoundException` of `Deserialized.Microsoft.Exchange.ManagementObjectNotFoundException`.
fn class_name(exception: &Value) -> Option<String> {
    let Value::Object(object) = exception else { return None };
    object.types.first()?.rsplit(['.', '+']).next().map(str::to_owned)
}

/// An error record as a server sends it.
pub fn error_value(error: &ErrorRecord) -> Value {
    let types = |names: &[&str]| -> Arc<[String]> { names.iter().map(|name| (*name).to_owned()).collect() };
    let exception = Object {
        types: types(&[
            "Deserialized.System.Management.Automation.RemoteException",
            "System.Exception",
            "System.Object",
        ]),
        to_string: Some(format!("{}: {}", error.reason, error.message)),
        adapted: vec![
            (Arc::from("Message"), error.message.as_str().into()),
            (Arc::from("HelpLink"), Value::Null),
            (Arc::from("InnerException"), Value::Null),
        ],
        ..Object::default()
    };
    let target = if error.target.is_empty() { Value::Null } else { error.target.as_str().into() };
    let mut record = properties([
        ("Exception", Value::Object(Box::new(exception))),
        ("TargetObject", target),
        ("FullyQualifiedErrorId", error.fully_qualified_id.as_str().into()),
        ("InvocationInfo", Value::Null),
        ("ErrorCategory_Category", Value::I32(error.category)),
        ("ErrorCategory_Activity", "".into()),
        ("ErrorCategory_Reason", error.reason.as_str().into()),
        ("ErrorCategory_TargetName", error.target.as_str().into()),
        ("ErrorCategory_TargetType", "".into()),
        ("ErrorCategory_Message", category_message(error).into()),
        ("SerializeExtendedInfo", false.into()),
    ]);
    record.types = types(&["System.Management.Automation.ErrorRecord", "System.Object"]);
    record.to_string = Some(error.message.clone());
    Value::Object(Box::new(record))
}

/// As `ErrorCategoryInfo` prints itself: category, target, activity and reason.
fn category_message(error: &ErrorRecord) -> String {
    format!("{}: ({}:) [], {}", category_name(error.category), error.target, error.reason)
}

/// Names of MS-PSRP 2.2.3.9 that Exchange's errors use.
fn category_name(category: i32) -> &'static str {
    match category {
        1 => "OpenError",
        5 => "InvalidArgument",
        6 => "InvalidData",
        7 => "InvalidOperation",
        8 => "InvalidResult",
        9 => "InvalidType",
        11 => "NotImplemented",
        13 => "ObjectNotFound",
        14 => "OperationStopped",
        15 => "OperationTimeout",
        17 => "ParserError",
        18 => "PermissionDenied",
        19 => "ResourceBusy",
        20 => "ResourceExists",
        21 => "ResourceUnavailable",
        22 => "ReadError",
        23 => "WriteError",
        27 => "SecurityError",
        31 => "QuotaExceeded",
        _ => "NotSpecified",
    }
}

/// The words of a warning, verbose or debug record; servers send an object of them or only the text.
pub fn informational_text(value: &Value) -> String {
    text(value, "InformationalRecord_Message")
        .or_else(|| value.text().map(std::borrow::Cow::into_owned))
        .unwrap_or_default()
}

/// A warning, verbose or debug record without the place it comes from.
pub fn informational_record(message: &str) -> Value {
    let mut record = properties([
        ("InformationalRecord_Message", message.into()),
        ("InformationalRecord_SerializeInvocationInfo", false.into()),
    ]);
    let types = ["System.Management.Automation.InformationalRecord", "System.Object"].map(str::to_owned);
    record.types = types.into();
    record.to_string = Some(message.to_owned());
    Value::Object(Box::new(record))
}
