//! Sync: what is new in folders since a key, and what the phone itself has changed.

use causeway_protocol::activesync::Version;
use causeway_protocol::activesync::status::{Status, sync as sync_status};
use causeway_protocol::wbxml::tags::air_sync as tag;
use causeway_protocol::wbxml::tags::email;
use causeway_protocol::wbxml::{Element, Node};

use super::commands::number_of;
use super::items::{BodyWanted, application_data};
use super::limits::{COLLECTIONS_MAX, PHONE_COMMANDS_MAX, WINDOW_DEFAULT, WINDOW_MAX};
use super::ping::Woken;
use super::request::{Asked, Reply};
use super::{ActiveSync, Refusal};
use crate::world::{Mark, SyncError, SyncPage};

/// Of an item: the phone's item cannot be made into one (MS-ASCMD 2.2.3.177.17).
const CONVERSION_FAILED: Status = Status(6);

impl ActiveSync {
    pub(super) async fn sync(&self, asked: &Asked) -> Reply {
        let organisation = &asked.organisation;
        let stored = self.sessions.get(organisation, asked.phone).sync;
        let Some(root) = asked.document.as_ref().or(stored.as_ref()) else {
            return Reply::Document(failed(sync_status::INCOMPLETE));
        };
        if root.tag != tag::SYNC {
            return Reply::Refused(Refusal::NotTheDocument);
        }
        // Half a request stands for the rest of the last one; asking for all of it is always permitted.
        if root.child(tag::PARTIAL).is_some() {
            return Reply::Document(failed(sync_status::INCOMPLETE));
        }
        if self.hierarchy_changed(asked) {
            return Reply::Document(failed(sync_status::HIERARCHY_CHANGED));
        }
        let collections: Vec<&Element> =
            root.child(tag::COLLECTIONS).into_iter().flat_map(|all| all.children(tag::COLLECTION)).collect();
        if collections.is_empty() {
            return Reply::Document(failed(sync_status::PROTOCOL_ERROR));
        }
        if collections.len() > COLLECTIONS_MAX {
            return Reply::Document(failed(sync_status::TOO_MANY_COLLECTIONS));
        }
        let wait_secs = match self.wait_secs(root) {
            Ok(seconds) => seconds,
            Err(refused) => return Reply::Document(refused),
        };
        self.sessions.change(organisation, asked.phone, |session| session.sync = Some(repeatable(root)));

        let mut answers: Vec<Answer> = collections.iter().map(|it| collection(asked, it)).collect();
        if let Some(seconds) = wait_secs
            && answers.iter().all(|answer| answer.quiet)
        {
            let folders: Vec<String> =
                collections.iter().filter_map(|it| it.text_of(tag::COLLECTION_ID)).collect();
            match self.wait(asked, &folders, seconds).await {
                Woken::Expired => return Reply::Nothing,
                Woken::Hierarchy | Woken::Access => {
                    return Reply::Document(failed(sync_status::HIERARCHY_CHANGED));
                }
                Woken::News(_) => answers = collections.iter().map(|it| collection(asked, it)).collect(),
            }
        }
        // Nothing to say is said with an empty answer (MS-ASCMD 2.2.1.21); older phones do not know that.
        if asked.version >= Version::V12_1 && answers.iter().all(|answer| answer.quiet) {
            return Reply::Nothing;
        }
        let all = Element::new(tag::COLLECTIONS).with_all(answers.into_iter().map(|answer| answer.element));
        Reply::Document(Element::new(tag::SYNC).with(all))
    }

    /// How long the phone lets the server wait: `Wait` in minutes or `HeartbeatInterval` in seconds.
    fn wait_secs(&self, root: &Element) -> Result<Option<u32>, Element> {
        let minutes = number_of(root, tag::WAIT);
        let seconds = number_of(root, tag::HEARTBEAT_INTERVAL);
        let (wanted, unit) = match (minutes, seconds) {
            (None, None) => return Ok(None),
            (Some(_), Some(_)) => return Err(failed(sync_status::PROTOCOL_ERROR)),
            (Some(minutes), None) => (minutes.saturating_mul(60), 60),
            (None, Some(seconds)) => (seconds, 1),
        };
        let (min, max) = (self.config.heartbeat_min_secs, self.config.heartbeat_max_secs);
        if (min..=max).contains(&wanted) {
            return Ok(Some(wanted));
        }
        let limit = if wanted < min { min.div_ceil(unit) } else { max / unit };
        Err(failed(sync_status::BAD_WAIT).with(Element::leaf(tag::LIMIT, limit)))
    }
}

/// What one collection comes to.
struct Answer {
    element: Element,
    /// Nothing in it that the phone must hear.
    quiet: bool,
}

fn failed(status: Status) -> Element {
    Element::new(tag::SYNC).with(Element::leaf(tag::STATUS, status.0))
}

/// A request without the changes it carried: those are made once.
fn repeatable(root: &Element) -> Element {
    let mut copy = root.clone();
    for node in &mut copy.content {
        let Node::Element(all) = node else { continue };
        for node in &mut all.content {
            let Node::Element(collection) = node else { continue };
            collection.content.retain(|node| !matches!(node, Node::Element(it) if it.tag == tag::COMMANDS));
        }
    }
    copy
}

fn collection(asked: &Asked, wanted: &Element) -> Answer {
    let folder = wanted.text_of(tag::COLLECTION_ID).unwrap_or_default();
    match page(asked, wanted, &folder) {
        Ok((page, responses)) => describe(asked, wanted, &folder, &page, responses),
        Err(error) => {
            let (status, key) = match error {
                SyncError::InvalidKey => (sync_status::INVALID_SYNC_KEY, "0".to_owned()),
                SyncError::NoSuchFolder => (sync_status::NOT_FOUND, key_text(wanted)),
                SyncError::HierarchyChanged | SyncError::Gone => {
                    (sync_status::HIERARCHY_CHANGED, key_text(wanted))
                }
            };
            let element = Element::new(tag::COLLECTION)
                .with(Element::leaf(tag::SYNC_KEY, key))
                .with(Element::leaf(tag::COLLECTION_ID, folder))
                .with(Element::leaf(tag::STATUS, status.0));
            Answer { element, quiet: false }
        }
    }
}

fn key_text(wanted: &Element) -> String {
    wanted.text_of(tag::SYNC_KEY).unwrap_or_default()
}

/// Makes the phone's changes and collects the server's.
fn page(asked: &Asked, wanted: &Element, folder: &str) -> Result<(SyncPage, Vec<Element>), SyncError> {
    let organisation = &asked.organisation;
    let key: u32 = key_text(wanted).trim().parse().map_err(|_| SyncError::InvalidKey)?;
    let window = number_of(wanted, tag::WINDOW_SIZE).map_or(WINDOW_DEFAULT, |window| match window {
        0 => WINDOW_MAX,
        window => usize::try_from(window).unwrap_or(WINDOW_MAX).min(WINDOW_MAX),
    });
    let mut own = Vec::new();
    let mut responses = Vec::new();
    if let Some(commands) = wanted.child(tag::COMMANDS).filter(|_| key != 0) {
        organisation.pending(asked.phone, folder, key)?;
        for command in commands.elements().take(PHONE_COMMANDS_MAX) {
            carry_out(asked, wanted, folder, command, &mut own, &mut responses);
        }
    }
    // Without `GetChanges` a phone with a key wants them; an empty element says so, 0 says no (MS-ASCMD 2.2.3.84).
    let wants_changes = wanted.text_of(tag::GET_CHANGES).is_none_or(|text| text.trim() != "0");
    if key != 0 && !wants_changes {
        organisation.pending(asked.phone, folder, key)?;
        return Ok((SyncPage { key, ..SyncPage::default() }, responses));
    }
    let mut page = organisation.sync(asked.phone, folder, key, window)?;
    // A phone is not told what it did itself.
    page.changes.retain(|message| !own.contains(&message.id));
    page.deletes.retain(|id| !own.contains(id));
    Ok((page, responses))
}

fn carry_out(
    asked: &Asked,
    wanted: &Element,
    folder: &str,
    command: &Element,
    own: &mut Vec<String>,
    responses: &mut Vec<Element>,
) {
    let organisation = &asked.organisation;
    let id = command.text_of(tag::SERVER_ID).unwrap_or_default();
    let visible =
        || organisation.messages_for(asked.phone, folder).into_iter().find(|message| message.id == id);
    let answered = |status: Status| {
        Element::new(command.tag)
            .with(Element::leaf(tag::SERVER_ID, &id))
            .with(Element::leaf(tag::STATUS, status.0))
    };
    match command.tag {
        tag::CHANGE | tag::DELETE => {
            let content = command.child(tag::APPLICATION_DATA);
            let read =
                content.and_then(|content| content.text_of(email::READ)).map(|read| read.trim() == "1");
            let mark = if command.tag == tag::DELETE { Some(Mark::Delete) } else { read.map(Mark::Read) };
            let done =
                visible().is_some() && mark.is_none_or(|mark| organisation.mark(asked.mailbox, &id, mark));
            if done {
                own.push(id);
            } else {
                responses.push(answered(sync_status::NOT_FOUND));
            }
        }
        tag::FETCH => match visible() {
            Some(message) => {
                let content = application_data(&message, asked.version, body_wanted(wanted));
                responses.push(answered(Status::OK).with(content));
            }
            None => responses.push(answered(sync_status::NOT_FOUND)),
        },
        tag::ADD => {
            let client = command.text_of(tag::CLIENT_ID).unwrap_or_default();
            responses.push(
                Element::new(tag::ADD)
                    .with(Element::leaf(tag::CLIENT_ID, client))
                    .with(Element::leaf(tag::STATUS, CONVERSION_FAILED.0)),
            );
        }
        _ => {}
    }
}

fn body_wanted(wanted: &Element) -> BodyWanted {
    wanted.child(tag::OPTIONS).map(BodyWanted::of).unwrap_or_default()
}

/// The collection as the phone reads it, in the order of MS-ASCMD 2.2.3.29.2.
fn describe(
    asked: &Asked,
    wanted: &Element,
    folder: &str,
    page: &SyncPage,
    responses: Vec<Element>,
) -> Answer {
    let body = body_wanted(wanted);
    let item = |command, message: &crate::world::Message| {
        Element::new(command).with(Element::leaf(tag::SERVER_ID, &message.id)).with(application_data(
            message,
            asked.version,
            body,
        ))
    };
    let mut commands = Element::new(tag::COMMANDS);
    for message in &page.adds {
        commands.push(item(tag::ADD, message));
    }
    for message in &page.changes {
        commands.push(item(tag::CHANGE, message));
    }
    for id in &page.deletes {
        commands.push(Element::new(tag::DELETE).with(Element::leaf(tag::SERVER_ID, id)));
    }
    let first = key_text(wanted).trim() == "0";
    let quiet = !first && commands.content.is_empty() && responses.is_empty() && !page.more;
    let class = (asked.version < Version::V12_1).then(|| Element::leaf(tag::CLASS, "Email"));
    let mut element = Element::new(tag::COLLECTION)
        .with_all(class)
        .with(Element::leaf(tag::SYNC_KEY, page.key))
        .with(Element::leaf(tag::COLLECTION_ID, folder))
        .with(Element::leaf(tag::STATUS, Status::OK.0));
    if page.more {
        element.push(Element::new(tag::MORE_AVAILABLE));
    }
    if !responses.is_empty() {
        element.push(Element::new(tag::RESPONSES).with_all(responses));
    }
    if !commands.content.is_empty() {
        element.push(commands);
    }
    Answer { element, quiet }
}
