//! The commands there are, and the document each is refused with.

use causeway_protocol::activesync::Command;
use causeway_protocol::activesync::status::Status;
use causeway_protocol::wbxml::tags::{
    air_sync, compose_mail, find, folder_hierarchy, get_item_estimate, item_operations, meeting_response,
    move_items, ping, provision, resolve_recipients, search, settings, validate_cert,
};
use causeway_protocol::wbxml::{Element, Tag};

use super::ActiveSync;
use super::request::{Asked, Reply};

/// Commands that are carried out; the others are answered as a server does that does not know them.
pub(super) const SUPPORTED: &[Command] = &[
    Command::Sync,
    Command::SendMail,
    Command::FolderSync,
    Command::GetItemEstimate,
    Command::Settings,
    Command::Ping,
    Command::ItemOperations,
    Command::Provision,
];

impl ActiveSync {
    /// Carries out a command that the phone may send.
    pub(super) async fn run(&self, asked: &Asked) -> Reply {
        match asked.command {
            Command::Sync => self.sync(asked).await,
            Command::SendMail => self.send_mail(asked),
            Command::FolderSync => self.folder_sync(asked),
            Command::GetItemEstimate => self.get_item_estimate(asked),
            Command::Settings => self.settings(asked),
            Command::Ping => self.ping(asked).await,
            Command::ItemOperations => self.item_operations(asked),
            Command::Provision => self.provision(asked),
            _ => Reply::Refused(super::Refusal::UnknownCommand),
        }
    }
}

/// The command's own root with a status in it; `None` for commands whose answer is no document.
pub(super) fn refusal_body(command: Command, status: Status) -> Option<Element> {
    let (root, tag) = root_of(command)?;
    Some(Element::new(root).with(Element::leaf(tag, status.0)))
}

fn root_of(command: Command) -> Option<(Tag, Tag)> {
    Some(match command {
        Command::Sync => (air_sync::SYNC, air_sync::STATUS),
        Command::SendMail => (compose_mail::SEND_MAIL, compose_mail::STATUS),
        Command::SmartForward => (compose_mail::SMART_FORWARD, compose_mail::STATUS),
        Command::SmartReply => (compose_mail::SMART_REPLY, compose_mail::STATUS),
        Command::FolderSync => (folder_hierarchy::FOLDER_SYNC, folder_hierarchy::STATUS),
        Command::FolderCreate => (folder_hierarchy::FOLDER_CREATE, folder_hierarchy::STATUS),
        Command::FolderDelete => (folder_hierarchy::FOLDER_DELETE, folder_hierarchy::STATUS),
        Command::FolderUpdate => (folder_hierarchy::FOLDER_UPDATE, folder_hierarchy::STATUS),
        Command::MoveItems => (move_items::MOVE_ITEMS, move_items::STATUS),
        Command::GetItemEstimate => (get_item_estimate::GET_ITEM_ESTIMATE, get_item_estimate::STATUS),
        Command::MeetingResponse => (meeting_response::MEETING_RESPONSE, meeting_response::STATUS),
        Command::Search => (search::SEARCH, search::STATUS),
        Command::Settings => (settings::SETTINGS, settings::STATUS),
        Command::Ping => (ping::PING, ping::STATUS),
        Command::ItemOperations => (item_operations::ITEM_OPERATIONS, item_operations::STATUS),
        Command::Provision => (provision::PROVISION, provision::STATUS),
        Command::ResolveRecipients => (resolve_recipients::RESOLVE_RECIPIENTS, resolve_recipients::STATUS),
        Command::ValidateCert => (validate_cert::VALIDATE_CERT, validate_cert::STATUS),
        Command::Find => (find::FIND, find::STATUS),
        Command::GetAttachment
        | Command::GetHierarchy
        | Command::CreateCollection
        | Command::DeleteCollection
        | Command::MoveCollection => return None,
    })
}

/// A number in a child, 0 when it is not one; `None` when there is no such child.
pub(super) fn number_of(parent: &Element, tag: Tag) -> Option<u32> {
    parent.child(tag).map(|child| child.text().trim().parse().unwrap_or(0))
}
