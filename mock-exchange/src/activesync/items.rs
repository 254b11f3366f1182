//! Messages as phones see and send them.

use causeway_protocol::activesync::Version;
use causeway_protocol::activesync::status::{
    Status, get_item_estimate as estimate_status, item_operations as fetch_status,
};
use causeway_protocol::wbxml::Element;
use causeway_protocol::wbxml::tags::{
    air_sync, air_sync_base, compose_mail, email, get_item_estimate, item_operations,
};
use time::OffsetDateTime;
use time::macros::format_description;

use super::limits::{COLLECTIONS_MAX, FETCHES_MAX, RECIPIENTS_MAX};
use super::request::{Asked, Reply};
use super::{ActiveSync, Refusal};
use crate::world::{Message, SyncError};

/// How much of a body a phone wants, and as what (MS-ASAIRS 2.2.2.12).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BodyWanted {
    /// 1 plain text, 2 HTML, 4 MIME.
    kind: u32,
    max_bytes: Option<usize>,
}

impl Default for BodyWanted {
    fn default() -> Self {
        Self { kind: 1, max_bytes: None }
    }
}

impl BodyWanted {
    /// From the element that holds the preferences: the first of a kind that exists here.
    pub(super) fn of(options: &Element) -> Self {
        let wanted = options.children(air_sync_base::BODY_PREFERENCE).find_map(|preference| {
            let number = |tag| preference.text_of(tag)?.trim().parse::<u32>().ok();
            let kind = number(air_sync_base::TYPE).filter(|kind| [1, 2, 4].contains(kind))?;
            let max_bytes =
                number(air_sync_base::TRUNCATION_SIZE).and_then(|size| usize::try_from(size).ok());
            Some(Self { kind, max_bytes })
        });
        wanted.unwrap_or_default()
    }
}

/// A message as Sync and ItemOperations show it (MS-ASEMAIL).
pub(super) fn application_data(message: &Message, version: Version, wanted: BodyWanted) -> Element {
    let mut content = Element::new(air_sync::APPLICATION_DATA);
    fill(&mut content, message, version, wanted);
    content
}

fn fill(content: &mut Element, message: &Message, version: Version, wanted: BodyWanted) {
    let fields = [
        (email::TO, message.to.clone()),
        (email::FROM, message.from.clone()),
        (email::SUBJECT, message.subject.clone()),
        (email::DATE_RECEIVED, date(message.received_ms)),
        (email::DISPLAY_TO, message.to.clone()),
        (email::THREAD_TOPIC, message.subject.clone()),
        (email::IMPORTANCE, "1".to_owned()),
        (email::READ, u8::from(message.read).to_string()),
    ];
    for (tag, text) in fields {
        content.push(Element::leaf(tag, text));
    }
    let whole = match (version >= Version::V12_0, wanted.kind) {
        (true, 2) => html(message),
        (true, 4) => mime(message),
        _ => message.body.clone(),
    };
    let size = whole.len();
    let (text, cut) = truncate(whole, wanted.max_bytes);
    if version >= Version::V12_0 {
        let mut body = Element::new(air_sync_base::BODY)
            .with(Element::leaf(air_sync_base::TYPE, wanted.kind))
            .with(Element::leaf(air_sync_base::ESTIMATED_DATA_SIZE, size));
        if cut {
            body.push(Element::leaf(air_sync_base::TRUNCATED, 1));
        }
        content.push(body.with(Element::leaf(air_sync_base::DATA, text)));
    } else {
        content.push(Element::leaf(email::BODY, text));
        content.push(Element::leaf(email::BODY_TRUNCATED, u8::from(cut)));
    }
    content.push(Element::leaf(email::MESSAGE_CLASS, "IPM.Note"));
    content.push(Element::leaf(email::INTERNET_CPID, 65001));
    if version >= Version::V12_0 {
        content.push(Element::leaf(email::CONTENT_CLASS, "urn:content-classes:message"));
        content.push(Element::leaf(air_sync_base::NATIVE_BODY_TYPE, 1));
    }
}

/// `2026-11-23T06:45:00.000Z` (MS-ASDTYPE 2.3).
fn date(at_ms: i64) -> String {
    let format = format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");
    let at = OffsetDateTime::from_unix_timestamp_nanos(i128::from(at_ms) * 1_000_000);
    at.ok().and_then(|at| at.format(&format).ok()).unwrap_or_default()
}

fn html(message: &Message) -> String {
    let text = message.body.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    format!("<html><body><pre>{text}</pre></body></html>")
}

fn mime(message: &Message) -> String {
    let one_line = |text: &str| text.replace(['\r', '\n'], " ");
    format!(
        "From: {}\r\nTo: {}\r\nSubject: {}\r\nDate: {}\r\nMIME-Version: 1.0\r\n\
         Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n{}",
        one_line(&message.from),
        one_line(&message.to),
        one_line(&message.subject),
        date(message.received_ms),
        message.body
    )
}

/// At most `max_bytes` of a text, not cutting a character.
fn truncate(mut text: String, max_bytes: Option<usize>) -> (String, bool) {
    let Some(max) = max_bytes.filter(|max| text.len() > *max) else { return (text, false) };
    let end = (0..=max).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    text.truncate(end);
    (text, true)
}

impl ActiveSync {
    /// How many changes wait in each folder.
    pub(super) fn get_item_estimate(&self, asked: &Asked) -> Reply {
        use get_item_estimate as tag;
        let Some(root) = asked.document.as_ref().filter(|root| root.tag == tag::GET_ITEM_ESTIMATE) else {
            return Reply::Refused(Refusal::NotTheDocument);
        };
        let collections =
            root.child(tag::COLLECTIONS).into_iter().flat_map(|all| all.children(tag::COLLECTION));
        let responses = collections.take(COLLECTIONS_MAX).map(|collection| {
            let folder = collection.text_of(tag::COLLECTION_ID).unwrap_or_default();
            let key = collection.text_of(air_sync::SYNC_KEY).and_then(|key| key.trim().parse::<u32>().ok());
            let counted = match key {
                Some(0) => Err(estimate_status::NOT_PRIMED),
                Some(key) => {
                    asked.organisation.pending(asked.phone, &folder, key).map_err(|error| match error {
                        SyncError::NoSuchFolder => estimate_status::INVALID_COLLECTION,
                        SyncError::InvalidKey | SyncError::HierarchyChanged | SyncError::Gone => {
                            estimate_status::INVALID_SYNC_KEY
                        }
                    })
                }
                None => Err(estimate_status::INVALID_SYNC_KEY),
            };
            let (status, count) = match counted {
                Ok(count) => (Status::OK, Some(count)),
                Err(status) => (status, None),
            };
            let folder = Element::new(tag::COLLECTION)
                .with(Element::leaf(tag::COLLECTION_ID, folder))
                .with_all(count.map(|count| Element::leaf(tag::ESTIMATE, count)));
            Element::new(tag::RESPONSE).with(Element::leaf(tag::STATUS, status.0)).with(folder)
        });
        Reply::Document(Element::new(tag::GET_ITEM_ESTIMATE).with_all(responses.collect::<Vec<_>>()))
    }

    /// Whole messages by id; nothing else can be fetched here.
    pub(super) fn item_operations(&self, asked: &Asked) -> Reply {
        use item_operations as tag;
        let Some(root) = asked.document.as_ref().filter(|root| root.tag == tag::ITEM_OPERATIONS) else {
            return Reply::Refused(Refusal::NotTheDocument);
        };
        let fetched = root.children(tag::FETCH).take(FETCHES_MAX).map(|fetch| {
            let folder = fetch.text_of(air_sync::COLLECTION_ID).unwrap_or_default();
            let id = fetch.text_of(air_sync::SERVER_ID).unwrap_or_default();
            let messages = asked.organisation.messages_for(asked.phone, &folder);
            let message = messages.into_iter().find(|message| message.id == id);
            let wanted = fetch.child(tag::OPTIONS).map(BodyWanted::of).unwrap_or_default();
            let status = if message.is_some() { Status::OK } else { fetch_status::NOT_FOUND };
            let answer = Element::new(tag::FETCH)
                .with(Element::leaf(tag::STATUS, status.0))
                .with(Element::leaf(air_sync::COLLECTION_ID, folder))
                .with(Element::leaf(air_sync::SERVER_ID, id));
            match message {
                None => answer,
                Some(message) => {
                    let mut properties = Element::new(tag::PROPERTIES);
                    fill(&mut properties, &message, asked.version, wanted);
                    answer.with(Element::leaf(air_sync::CLASS, "Email")).with(properties)
                }
            }
        });
        let responses = Element::new(tag::RESPONSE).with_all(fetched.collect::<Vec<_>>());
        Reply::Document(
            Element::new(tag::ITEM_OPERATIONS).with(Element::leaf(tag::STATUS, Status::OK.0)).with(responses),
        )
    }

    /// Takes a message and puts it into the inboxes of recipients that are here; others get nothing, silently, as mail
    /// that leaves the organisation does.
    pub(super) fn send_mail(&self, asked: &Asked) -> Reply {
        use compose_mail as tag;
        let organisation = &asked.organisation;
        let mime = match &asked.document {
            Some(root) if root.tag == tag::SEND_MAIL => root.child(tag::MIME).map(Element::to_bytes),
            Some(_) => return Reply::Refused(Refusal::NotTheDocument),
            None => Some(asked.raw.to_vec()),
        };
        let sent = mime.as_deref().and_then(|mime| std::str::from_utf8(mime).ok()).and_then(Letter::read);
        let Some(letter) = sent else {
            let status = Element::leaf(tag::STATUS, Status::INVALID_MIME.0);
            return if asked.version.has_common_status() {
                Reply::Document(Element::new(tag::SEND_MAIL).with(status))
            } else {
                Reply::Http(http::StatusCode::BAD_REQUEST)
            };
        };
        for recipient in letter.recipients.iter().take(RECIPIENTS_MAX) {
            if let Some(mailbox) = organisation.mailbox(recipient) {
                organisation.deliver(mailbox, &asked.address, &letter.subject, &letter.body);
            }
        }
        Reply::Nothing
    }
}

/// The little of a message in MIME that the mock understands: recipients, subject, text behind the first empty line.
struct Letter {
    recipients: Vec<String>,
    subject: String,
    body: String,
}

impl Letter {
    fn read(mime: &str) -> Option<Self> {
        let normal = mime.replace("\r\n", "\n");
        let (head, body) = normal.split_once("\n\n")?;
        // Folded lines belong to the header above (RFC 5322 2.2.3).
        let head = head.replace("\n ", " ").replace("\n\t", " ");
        let mut letter = Self { recipients: Vec::new(), subject: String::new(), body: body.to_owned() };
        for line in head.lines() {
            let (name, value) = line.split_once(':')?;
            match name.trim().to_ascii_lowercase().as_str() {
                "to" | "cc" | "bcc" => letter.recipients.extend(value.split(',').map(address)),
                "subject" => value.trim().clone_into(&mut letter.subject),
                _ => {}
            }
        }
        (!letter.recipients.is_empty()).then_some(letter)
    }
}

/// `a@x` of `"A" <a@x>`.
fn address(text: &str) -> String {
    let inner = text.rsplit_once('<').map_or(text, |(_, rest)| rest.trim_end().trim_end_matches('>'));
    inner.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_letter_with_folded_headers() {
        let mime = "From: <a@x>\r\nTo: \"B, C\" <b@x>,\r\n c@x\r\nSubject: Hello\r\n\r\nText\r\nMore";
        let letter = Letter::read(mime).unwrap();
        assert_eq!((letter.subject.as_str(), letter.body.as_str()), ("Hello", "Text\nMore"));
        assert!(
            letter.recipients.contains(&"b@x".to_owned()) && letter.recipients.contains(&"c@x".to_owned())
        );
        assert!(Letter::read("no header").is_none());
        assert!(Letter::read("Subject: nobody\n\ntext").is_none());
    }

    #[test]
    fn texts_are_cut_between_characters() {
        assert_eq!(truncate("a\u{e9}b".into(), Some(2)), ("a".into(), true));
        assert_eq!(truncate("ab".into(), Some(2)), ("ab".into(), false));
        assert_eq!(date(1_795_415_100_123), "2026-11-23T06:25:00.123Z");
    }
}
