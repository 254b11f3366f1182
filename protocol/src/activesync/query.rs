use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::{Command, Version};
use crate::limits::ACTIVESYNC_QUERY_MAX_BYTES;

/// What the query of a request says, in either form (MS-ASHTTP 2.2.1.1.1). Names and values are as the phone sent them:
/// whether a device id will do is the server's business.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query {
    /// The command; `None` when it is missing or unknown.
    pub command: Option<Command>,
    /// What the command was called, for messages.
    pub command_name: String,
    /// User name.
    pub user: Option<String>,
    /// Device id.
    pub device_id: Option<String>,
    /// Device type.
    pub device_type: Option<String>,
    /// Protocol version, which only the base64 form has; the plain form has a header.
    pub version: Option<Version>,
    /// Policy key, which only the base64 form has; the plain form has a header.
    pub policy_key: Option<u32>,
    /// Folder of the attachment, message to answer or message to forward.
    pub collection_id: Option<String>,
    /// Item in that folder.
    pub item_id: Option<String>,
    /// Whether a sent message is kept in Sent Items.
    pub save_in_sent: bool,
    /// Whether the answer may come in several parts.
    pub accept_multipart: bool,
}

/// Why a query cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum QueryError {
    /// Longer than any request needs.
    #[error("query of {bytes} bytes, at most {ACTIVESYNC_QUERY_MAX_BYTES} are taken")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// Neither `name=value` pairs with a `Cmd` nor base64.
    #[error("query without Cmd that is not base64 either")]
    NotBase64,
    /// The base64 form stops before the field.
    #[error("base64 query stops before its {field}")]
    Truncated {
        /// Which field.
        field: &'static str,
    },
    /// The base64 form's policy key is neither absent nor four bytes.
    #[error("policy key of {bytes} bytes in a base64 query")]
    PolicyKey {
        /// Its length.
        bytes: u8,
    },
}

/// Tags of the parameters behind the fixed fields (MS-ASHTTP 2.2.1.1.1.1.3).
mod parameter {
    pub(super) const COLLECTION_ID: u8 = 1;
    pub(super) const ITEM_ID: u8 = 3;
    pub(super) const OPTIONS: u8 = 7;
    pub(super) const USER: u8 = 8;
    /// Bits of the options.
    pub(super) const SAVE_IN_SENT: u8 = 0x01;
    pub(super) const ACCEPT_MULTIPART: u8 = 0x02;
}

/// Locale in a base64 query of ours: English, United States.
const LOCALE: u16 = 0x0409;

impl Query {
    /// Reads the part of a URL behind the question mark. A query with a parameter `Cmd` is the plain form.
    ///
    /// # Errors
    /// [`QueryError`] when it is neither form.
    pub fn parse(raw: &str) -> Result<Self, QueryError> {
        if raw.len() > ACTIVESYNC_QUERY_MAX_BYTES {
            return Err(QueryError::TooLong { bytes: raw.len() });
        }
        let pairs = pairs(raw);
        if pairs.iter().any(|(name, _)| name.eq_ignore_ascii_case("Cmd")) {
            return Ok(Self::from_pairs(pairs));
        }
        let bytes = STANDARD.decode(unescape(raw, false)).map_err(|_| QueryError::NotBase64)?;
        Self::from_bytes(&bytes)
    }

    /// The plain form, without version and policy key.
    pub fn to_plain(&self) -> String {
        let mut query = format!("Cmd={}", escape(&self.command_name()));
        let fields = [("User", &self.user), ("DeviceId", &self.device_id), ("DeviceType", &self.device_type)];
        for (name, value) in fields {
            if let Some(value) = value {
                let _ = write!(query, "&{name}={}", escape(value));
            }
        }
        for (name, value) in [("CollectionId", &self.collection_id), ("ItemId", &self.item_id)] {
            if let Some(value) = value {
                let _ = write!(query, "&{name}={}", escape(value));
            }
        }
        if self.save_in_sent {
            query.push_str("&SaveInSent=T");
        }
        query
    }

    /// The base64 form, percent-encoded where base64 needs it. `None` when a field does not fit into it: no known
    /// command, or a text longer than 255 bytes.
    pub fn to_base64(&self) -> Option<String> {
        let mut bytes = vec![self.version.unwrap_or(Version::V16_1).0, self.command?.number()];
        bytes.extend(LOCALE.to_le_bytes());
        put(&mut bytes, self.device_id.as_deref().unwrap_or_default().as_bytes())?;
        match self.policy_key {
            Some(key) => put(&mut bytes, &key.to_le_bytes())?,
            None => bytes.push(0),
        }
        put(&mut bytes, self.device_type.as_deref().unwrap_or_default().as_bytes())?;
        let texts = [
            (parameter::USER, &self.user),
            (parameter::COLLECTION_ID, &self.collection_id),
            (parameter::ITEM_ID, &self.item_id),
        ];
        for (tag, value) in texts {
            if let Some(value) = value {
                bytes.push(tag);
                put(&mut bytes, value.as_bytes())?;
            }
        }
        let options = (u8::from(self.save_in_sent) * parameter::SAVE_IN_SENT)
            | (u8::from(self.accept_multipart) * parameter::ACCEPT_MULTIPART);
        if options != 0 {
            bytes.extend([parameter::OPTIONS, 1, options]);
        }
        Some(STANDARD.encode(bytes).replace('+', "%2B"))
    }

    fn command_name(&self) -> String {
        self.command.map_or_else(|| self.command_name.clone(), Command::name)
    }

    fn from_pairs(pairs: Vec<(String, String)>) -> Self {
        let mut query = Self::default();
        for (name, value) in pairs {
            match name.to_ascii_lowercase().as_str() {
                "cmd" => {
                    query.command = Command::from_name(&value);
                    query.command_name = value;
                }
                "user" => query.user = Some(value),
                "deviceid" => query.device_id = Some(value),
                "devicetype" => query.device_type = Some(value),
                "collectionid" => query.collection_id = Some(value),
                "itemid" => query.item_id = Some(value),
                "saveinsent" => query.save_in_sent = value.eq_ignore_ascii_case("T"),
                _ => {}
            }
        }
        query
    }

    fn from_bytes(bytes: &[u8]) -> Result<Self, QueryError> {
        let mut rest = bytes;
        let version = Version(byte(&mut rest, "protocol version")?);
        let number = byte(&mut rest, "command")?;
        let _locale = [byte(&mut rest, "locale")?, byte(&mut rest, "locale")?];
        let device_id = counted(&mut rest, "device id")?;
        let policy_key = match counted(&mut rest, "policy key")? {
            [] => None,
            &[a, b, c, d] => Some(u32::from_le_bytes([a, b, c, d])),
            other => {
                return Err(QueryError::PolicyKey { bytes: u8::try_from(other.len()).unwrap_or(u8::MAX) });
            }
        };
        let device_type = counted(&mut rest, "device type")?;
        let command = Command::from_number(number);
        let mut query = Self {
            command,
            command_name: command.map_or_else(|| number.to_string(), Command::name),
            device_id: some_text(device_id),
            device_type: some_text(device_type),
            version: Some(version),
            policy_key,
            ..Self::default()
        };
        while !rest.is_empty() {
            let tag = byte(&mut rest, "parameter")?;
            let value = counted(&mut rest, "parameter")?;
            match tag {
                parameter::USER => query.user = some_text(value),
                parameter::COLLECTION_ID => query.collection_id = some_text(value),
                parameter::ITEM_ID => query.item_id = some_text(value),
                parameter::OPTIONS => {
                    let options = value.first().copied().unwrap_or_default();
                    query.save_in_sent = options & parameter::SAVE_IN_SENT != 0;
                    query.accept_multipart = options & parameter::ACCEPT_MULTIPART != 0;
                }
                _ => {}
            }
        }
        Ok(query)
    }
}

fn byte(rest: &mut &[u8], field: &'static str) -> Result<u8, QueryError> {
    let (first, left) = rest.split_first().ok_or(QueryError::Truncated { field })?;
    *rest = left;
    Ok(*first)
}

fn counted<'a>(rest: &mut &'a [u8], field: &'static str) -> Result<&'a [u8], QueryError> {
    let length = usize::from(byte(rest, field)?);
    let (value, left) = rest.split_at_checked(length).ok_or(QueryError::Truncated { field })?;
    *rest = left;
    Ok(value)
}

fn put(bytes: &mut Vec<u8>, value: &[u8]) -> Option<()> {
    bytes.push(u8::try_from(value.len()).ok()?);
    bytes.extend_from_slice(value);
    Some(())
}

/// A device id may be 16 bytes of a GUID instead of text; servers show those in hexadecimal.
fn some_text(bytes: &[u8]) -> Option<String> {
    if bytes.is_empty() {
        return None;
    }
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.chars().any(char::is_control) => Some(text.to_owned()),
        _ => Some(bytes.iter().fold(String::new(), |mut hex, byte| {
            let _ = write!(hex, "{byte:02X}");
            hex
        })),
    }
}

fn pairs(raw: &str) -> Vec<(String, String)> {
    let pair = |piece: &str| {
        let (name, value) = piece.split_once('=').unwrap_or((piece, ""));
        (unescape_text(name), unescape_text(value))
    };
    raw.split('&').filter(|piece| !piece.is_empty()).map(pair).collect()
}

fn unescape_text(text: &str) -> String {
    String::from_utf8_lossy(&unescape(text, true)).into_owned()
}

/// Percent-decoding; a lone percent sign stands for itself. Base64 uses `+`, forms use it for a space.
fn unescape(text: &str, plus_is_space: bool) -> Vec<u8> {
    let bytes = text.as_bytes();
    let mut plain = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let escaped = match bytes[at] {
            b'%' => text.get(at + 1..at + 3).and_then(|hex| u8::from_str_radix(hex, 16).ok()),
            _ => None,
        };
        plain.push(match (escaped, bytes[at]) {
            (Some(byte), _) => byte,
            (None, b'+') if plus_is_space => b' ',
            (None, byte) => byte,
        });
        at += if escaped.is_some() { 3 } else { 1 };
    }
    plain
}

fn escape(text: &str) -> String {
    text.bytes().fold(String::new(), |mut escaped, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~@".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            let _ = write!(escaped, "%{byte:02X}");
        }
        escaped
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_plain_form_of_a_stranger() {
        // As pyactivesync 0.17.0 sends it.
        let raw = "Cmd=Provision&User=ACME%5Casmith&DeviceId=PYEAS1&DeviceType=pyactivesync&PolicyKey=17";
        let query = Query::parse(raw).unwrap();
        assert_eq!(query.command, Some(Command::Provision));
        assert_eq!(query.user.as_deref(), Some("ACME\\asmith"));
        assert_eq!(query.device_id.as_deref(), Some("PYEAS1"));
        assert_eq!((query.policy_key, query.version), (None, None));
    }

    #[test]
    fn the_base64_form_byte_for_byte() {
        // The layout of MS-ASHTTP 2.2.1.1.1.1.1, written by hand.
        let bytes = b"\x79\x09\x09\x04\x0av140Device\x04\x2d\x03\x00\x00\x08PocketPC";
        let query = Query::parse(&STANDARD.encode(bytes)).unwrap();
        assert_eq!((query.version, query.command), (Some(Version::V12_1), Some(Command::FolderSync)));
        assert_eq!(query.device_id.as_deref(), Some("v140Device"));
        assert_eq!((query.policy_key, query.device_type.as_deref()), (Some(0x032D), Some("PocketPC")));
    }

    #[test]
    fn a_guid_as_device_id_is_shown_in_hexadecimal() {
        let mut bytes = vec![161, 0, 9, 4, 16];
        bytes.extend([0xE4; 16]);
        bytes.extend([0, 2, b'W', b'P', 7, 1, 3]);
        let query = Query::parse(&STANDARD.encode(bytes)).unwrap();
        assert_eq!(query.device_id.as_deref(), Some("E4".repeat(16).as_str()));
        assert!(query.save_in_sent && query.accept_multipart);
    }

    #[test]
    fn what_is_neither_form_is_refused() {
        assert_eq!(Query::parse("%%%"), Err(QueryError::NotBase64));
        assert_eq!(Query::parse(""), Err(QueryError::Truncated { field: "protocol version" }));
        assert_eq!(Query::parse("oQAJBAE="), Err(QueryError::Truncated { field: "device id" }));
        let long = "A".repeat(ACTIVESYNC_QUERY_MAX_BYTES + 1);
        assert_eq!(Query::parse(&long), Err(QueryError::TooLong { bytes: long.len() }));
        let key = STANDARD.encode([161, 0, 9, 4, 0, 2, 1, 1, 0]);
        assert_eq!(Query::parse(&key), Err(QueryError::PolicyKey { bytes: 2 }));
    }

    proptest! {
        #[test]
        fn both_forms_say_the_same(
            number in 0u8..24, user in "[ -~]{1,40}", device_id in "[A-Za-z0-9]{1,32}",
            device_type in "[A-Za-z0-9]{1,20}", key in any::<Option<u32>>(), save_in_sent in any::<bool>(),
        ) {
            let command = Command::from_number(number);
            let query = Query {
                command, command_name: command.unwrap().name(), user: Some(user), device_id: Some(device_id),
                device_type: Some(device_type), version: Some(Version::V16_1), policy_key: key, save_in_sent,
                ..Query::default()
            };
            prop_assert_eq!(&Query::parse(&query.to_base64().unwrap()).unwrap(), &query);
            let plain = Query { version: None, policy_key: None, ..query };
            prop_assert_eq!(Query::parse(&plain.to_plain()).unwrap(), plain);
        }

        #[test]
        fn arbitrary_queries_never_panic(raw in ".{0,200}", bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            let _ = Query::parse(&raw);
            let _ = Query::parse(&STANDARD.encode(bytes));
        }
    }
}
