//! FolderSync: which folders a phone sees. A held phone sees its inbox alone.

use causeway_protocol::activesync::status::{Status, folder_sync};
use causeway_protocol::wbxml::Element;
use causeway_protocol::wbxml::tags::folder_hierarchy as tag;

use super::request::{Asked, Reply};
use super::sessions::Hierarchy;
use super::{ActiveSync, Refusal};
use crate::world::{FOLDERS, Folder, INBOX};

impl ActiveSync {
    pub(super) fn folder_sync(&self, asked: &Asked) -> Reply {
        let Some(root) = asked.document.as_ref().filter(|root| root.tag == tag::FOLDER_SYNC) else {
            return Reply::Refused(Refusal::NotTheDocument);
        };
        let organisation = &asked.organisation;
        let Some(key) = root.text_of(tag::SYNC_KEY).and_then(|key| key.trim().parse::<u32>().ok()) else {
            return Reply::Document(answer(folder_sync::BAD_REQUEST));
        };
        let now = organisation.folders(asked.phone);
        let held = organisation.is_held(asked.phone);
        let known = self.sessions.get(organisation, asked.phone).hierarchy;
        let from = match (key, known) {
            (0, _) => None,
            (key, Some(known)) if known.key == key => Some(known.held),
            // The answer to the request before was lost; it is given again.
            (key, Some(Hierarchy { before: Some((before, held)), .. })) if before == key => Some(held),
            _ => return Reply::Document(answer(folder_sync::INVALID_SYNC_KEY)),
        };
        let (adds, deletes) = difference(from, &now);
        let next = match from {
            Some(_) if adds.is_empty() && deletes.is_empty() => key,
            _ => key + 1,
        };
        let before = from.map(|held| (key, held)).filter(|_| next != key);
        self.sessions.change(organisation, asked.phone, |session| {
            session.hierarchy = Some(Hierarchy { key: next, held, before });
        });
        let changes = Element::new(tag::CHANGES)
            .with(Element::leaf(tag::COUNT, adds.len() + deletes.len()))
            .with_all(adds.iter().map(added))
            .with_all(
                deletes.iter().map(|id| Element::new(tag::DELETE).with(Element::leaf(tag::SERVER_ID, id))),
            );
        Reply::Document(answer(Status::OK).with(Element::leaf(tag::SYNC_KEY, next)).with(changes))
    }

    /// Whether the folders the phone knows are still those it may see.
    pub(super) fn hierarchy_changed(&self, asked: &Asked) -> bool {
        let known = self.sessions.get(&asked.organisation, asked.phone).hierarchy;
        known.is_some_and(|known| known.held != asked.organisation.is_held(asked.phone))
    }
}

fn answer(status: Status) -> Element {
    Element::new(tag::FOLDER_SYNC).with(Element::leaf(tag::STATUS, status.0))
}

/// What comes and goes between what the phone knows and what it may see.
fn difference(known: Option<bool>, now: &[Folder]) -> (Vec<Folder>, Vec<&'static str>) {
    let knows = |folder: &Folder| known.is_some_and(|held| !held || folder.id == INBOX);
    let adds = now.iter().filter(|folder| !knows(folder)).copied().collect();
    let sees = |folder: &Folder| now.iter().any(|seen| seen.id == folder.id);
    let deletes =
        FOLDERS.iter().filter(|folder| knows(folder) && !sees(folder)).map(|folder| folder.id).collect();
    (adds, deletes)
}

fn added(folder: &Folder) -> Element {
    Element::new(tag::ADD)
        .with(Element::leaf(tag::SERVER_ID, folder.id))
        .with(Element::leaf(tag::PARENT_ID, 0))
        .with(Element::leaf(tag::DISPLAY_NAME, folder.name))
        .with(Element::leaf(tag::TYPE, folder.folder_type))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn held_and_allowed_again() {
        let held: Vec<Folder> = FOLDERS.iter().filter(|folder| folder.id == INBOX).copied().collect();
        let (adds, deletes) = difference(None, &held);
        assert_eq!((adds.len(), deletes.len()), (1, 0));
        let (adds, deletes) = difference(Some(true), &FOLDERS);
        assert_eq!((adds.len(), deletes.len()), (FOLDERS.len() - 1, 0));
        let (adds, deletes) = difference(Some(false), &held);
        assert_eq!((adds.len(), deletes.len()), (0, FOLDERS.len() - 1));
        assert!(!deletes.contains(&INBOX));
    }
}
