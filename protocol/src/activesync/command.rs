use std::fmt;

/// A command, by its number in a base64 query (MS-ASHTTP 2.2.1.1.1.1.2).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[expect(missing_docs, reason = "the names are those of MS-ASCMD")]
pub enum Command {
    Sync = 0,
    SendMail = 1,
    SmartForward = 2,
    SmartReply = 3,
    GetAttachment = 4,
    GetHierarchy = 5,
    CreateCollection = 6,
    DeleteCollection = 7,
    MoveCollection = 8,
    FolderSync = 9,
    FolderCreate = 10,
    FolderDelete = 11,
    FolderUpdate = 12,
    MoveItems = 13,
    GetItemEstimate = 14,
    MeetingResponse = 15,
    Search = 16,
    Settings = 17,
    Ping = 18,
    ItemOperations = 19,
    Provision = 20,
    ResolveRecipients = 21,
    ValidateCert = 22,
    Find = 23,
}

impl Command {
    /// All commands, by number.
    pub const ALL: [Self; 24] = [
        Self::Sync,
        Self::SendMail,
        Self::SmartForward,
        Self::SmartReply,
        Self::GetAttachment,
        Self::GetHierarchy,
        Self::CreateCollection,
        Self::DeleteCollection,
        Self::MoveCollection,
        Self::FolderSync,
        Self::FolderCreate,
        Self::FolderDelete,
        Self::FolderUpdate,
        Self::MoveItems,
        Self::GetItemEstimate,
        Self::MeetingResponse,
        Self::Search,
        Self::Settings,
        Self::Ping,
        Self::ItemOperations,
        Self::Provision,
        Self::ResolveRecipients,
        Self::ValidateCert,
        Self::Find,
    ];

    /// The number in a base64 query.
    pub fn number(self) -> u8 {
        self as u8
    }

    /// The command with this number.
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number)).copied()
    }

    /// The name in a plain query.
    pub fn name(self) -> String {
        format!("{self:?}")
    }

    /// The command with this name; case does not matter.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|command| command.name().eq_ignore_ascii_case(name))
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_names_lead_back() {
        for (at, command) in Command::ALL.into_iter().enumerate() {
            assert_eq!(usize::from(command.number()), at);
            assert_eq!(Command::from_number(command.number()), Some(command));
            assert_eq!(Command::from_name(&command.name().to_lowercase()), Some(command));
        }
        assert_eq!((Command::from_number(24), Command::from_name("Format")), (None, None));
    }
}
