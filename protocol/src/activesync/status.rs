//! Status numbers. The common ones (MS-ASCMD 2.2.2) may come instead of any answer since protocol version 14.0; the
//! others belong to one command.

/// A status number that may answer any command.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Status(pub u16);

macro_rules! common {
    ($($constant:ident = $number:literal $name:literal: $meaning:literal;)+) => {
        impl Status {
            $(
                #[doc = $meaning]
                pub const $constant: Self = Self($number);
            )+

            /// The name in the specification; `None` for a number that is not common to all commands.
            pub fn name(self) -> Option<&'static str> {
                match self {
                    $(Self::$constant => Some($name),)+
                    _ => None,
                }
            }
        }
    };
}

common! {
    OK = 1 "Success": "It worked.";
    INVALID_CONTENT = 101 "InvalidContent": "The body is not what the command takes.";
    INVALID_WBXML = 102 "InvalidWBXML": "The body is not WBXML.";
    INVALID_XML = 103 "InvalidXML": "The body is WBXML, but not the command's document.";
    INVALID_DATE_TIME = 104 "InvalidDateTime": "A date is wrong.";
    INVALID_IDS = 105 "InvalidCombinationOfIDs": "Ids that do not go together.";
    INVALID_MIME = 107 "InvalidMIME": "The message is not MIME.";
    DEVICE_ID_MISSING = 108 "DeviceIdMissingOrInvalid": "No device id, or not 1 to 32 letters and digits.";
    DEVICE_TYPE_MISSING = 109 "DeviceTypeMissingOrInvalid": "No device type, or a wrong one.";
    SERVER_ERROR = 110 "ServerError": "The server failed; not worth repeating.";
    SERVER_ERROR_RETRY_LATER = 111 "ServerErrorRetryLater": "The server is busy; try later.";
    ACTIVE_DIRECTORY_ACCESS_DENIED = 112 "ActiveDirectoryAccessDenied": "The server may not read the directory.";
    MAILBOX_QUOTA_EXCEEDED = 113 "MailboxQuotaExceeded": "The mailbox is full.";
    MAILBOX_SERVER_OFFLINE = 114 "MailboxServerOffline": "The mailbox server does not answer.";
    SEND_QUOTA_EXCEEDED = 115 "SendQuotaExceeded": "Too much sent.";
    MESSAGE_ALREADY_SENT = 118 "MessagePreviouslySent": "That message was sent already.";
    MESSAGE_HAS_NO_RECIPIENT = 119 "MessageHasNoRecipient": "The message has no recipient.";
    USER_DISABLED_FOR_SYNC = 126 "UserDisabledForSync": "ActiveSync is off for this mailbox.";
    USER_ON_NEW_MAILBOX_CANNOT_SYNC = 127 "UserOnNewMailboxCannotSync": "The server is too old for the mailbox.";
    USER_ON_LEGACY_MAILBOX_CANNOT_SYNC = 128 "UserOnLegacyMailboxCannotSync": "The mailbox is too old for the server.";
    DEVICE_IS_BLOCKED_FOR_THIS_USER = 129 "DeviceIsBlockedForThisUser": "The phone is blocked.";
    ACCESS_DENIED = 130 "AccessDenied": "Not permitted.";
    ACCOUNT_DISABLED = 131 "AccountDisabled": "The account is disabled.";
    SYNC_STATE_NOT_FOUND = 132 "SyncStateNotFound": "The server lost its state; begin again with Provision and FolderSync.";
    SYNC_STATE_LOCKED = 133 "SyncStateLocked": "Another request of the same phone is under way.";
    SYNC_STATE_CORRUPT = 134 "SyncStateCorrupt": "The server's state is broken; begin again.";
    SYNC_STATE_EXISTS = 135 "SyncStateAlreadyExists": "The server's state exists already; begin again.";
    SYNC_STATE_VERSION_INVALID = 136 "SyncStateVersionInvalid": "The server's state is of another version.";
    COMMAND_NOT_SUPPORTED = 137 "CommandNotSupported": "The server does not know the command.";
    VERSION_NOT_SUPPORTED = 138 "VersionNotSupported": "The command does not exist in this protocol version.";
    DEVICE_NOT_FULLY_PROVISIONABLE = 139 "DeviceNotFullyProvisionable": "The phone does part of the policy only.";
    REMOTE_WIPE_REQUESTED = 140 "RemoteWipeRequested": "The phone is to wipe itself: ask Provision.";
    LEGACY_DEVICE_ON_STRICT_POLICY = 141 "LegacyDeviceOnStrictPolicy": "The phone does no policies, the policy insists.";
    DEVICE_NOT_PROVISIONED = 142 "DeviceNotProvisioned": "The phone has not taken the policy.";
    POLICY_REFRESH = 143 "PolicyRefresh": "The policy has changed or is old.";
    INVALID_POLICY_KEY = 144 "InvalidPolicyKey": "The policy key is not the one given out.";
    EXTERNALLY_MANAGED_NOT_ALLOWED = 145 "ExternallyManagedDevicesNotAllowed": "Managed elsewhere, which the policy forbids.";
    NO_RECURRENCE = 146 "NoRecurrenceInCalendar": "The appointment does not recur.";
    UNEXPECTED_ITEM_CLASS = 147 "UnexpectedItemClass": "Items of a class that is not expected.";
    INVALID_STORED_REQUEST = 149 "InvalidStoredRequest": "Nothing is stored that an empty request could repeat.";
    ITEM_NOT_FOUND = 150 "ItemNotFound": "No such item.";
    TOO_MANY_FOLDERS = 151 "TooManyFolders": "Too many folders.";
    NO_FOLDERS_FOUND = 152 "NoFoldersFound": "No folders.";
    DEVICE_INFORMATION_REQUIRED = 165 "DeviceInformationRequired": "Provision without a word about the phone.";
    MAXIMUM_DEVICES_REACHED = 177 "MaximumDevicesReached": "The user has too many phones.";
}

impl std::fmt::Display for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.name() {
            Some(name) => write!(f, "{} {name}", self.0),
            None => write!(f, "{}", self.0),
        }
    }
}

impl std::fmt::Debug for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}

/// Of FolderSync (MS-ASCMD 2.2.3.177.4).
pub mod folder_sync {
    use super::Status;
    /// The sync key is not the server's: begin again with 0.
    pub const INVALID_SYNC_KEY: Status = Status(9);
    /// The request is not well formed.
    pub const BAD_REQUEST: Status = Status(10);
}

/// Of Sync (MS-ASCMD 2.2.3.177.17).
pub mod sync {
    use super::Status;
    /// The sync key is not the server's: begin again with 0.
    pub const INVALID_SYNC_KEY: Status = Status(3);
    /// The request does not make sense.
    pub const PROTOCOL_ERROR: Status = Status(4);
    /// There is no such item or folder.
    pub const NOT_FOUND: Status = Status(8);
    /// The folders have changed: FolderSync first.
    pub const HIERARCHY_CHANGED: Status = Status(12);
    /// An empty request, but nothing to repeat: send all of it.
    pub const INCOMPLETE: Status = Status(13);
    /// Wait or HeartbeatInterval outside the limits.
    pub const BAD_WAIT: Status = Status(14);
    /// Too many collections.
    pub const TOO_MANY_COLLECTIONS: Status = Status(15);
}

/// Of Ping (MS-ASCMD 2.2.3.177.11).
pub mod ping {
    use super::Status;
    /// The interval passed and nothing happened.
    pub const EXPIRED: Status = Status(1);
    /// Changes in the folders named.
    pub const CHANGES: Status = Status(2);
    /// Parameters missing, and nothing to repeat.
    pub const INCOMPLETE: Status = Status(3);
    /// Not well formed.
    pub const SYNTAX: Status = Status(4);
    /// Interval outside the limits; the nearest possible is in the answer.
    pub const BAD_INTERVAL: Status = Status(5);
    /// Too many folders; the greatest number is in the answer.
    pub const TOO_MANY_FOLDERS: Status = Status(6);
    /// The folders have changed: FolderSync first.
    pub const HIERARCHY_CHANGED: Status = Status(7);
}

/// Of Provision (MS-ASPROV 2.2.2.54).
pub mod provision {
    use super::Status;
    /// Not well formed.
    pub const PROTOCOL_ERROR: Status = Status(2);
    /// Of a policy: there is none for this phone.
    pub const NO_POLICY: Status = Status(2);
    /// Of a policy: a policy type the server does not have.
    pub const UNKNOWN_POLICY_TYPE: Status = Status(3);
    /// Of a policy: the phone confirms a policy that is not the one it was given.
    pub const WRONG_POLICY_KEY: Status = Status(5);
}

/// What a phone says it did with a policy or a wipe (MS-ASPROV 2.2.2.54.1).
pub mod acknowledgement {
    use super::Status;
    /// All of it.
    pub const DONE: Status = Status(1);
    /// A part.
    pub const PARTLY: Status = Status(2);
    /// Nothing.
    pub const IGNORED: Status = Status(3);
    /// Another management decides on the phone.
    pub const EXTERNALLY_MANAGED: Status = Status(4);
}

/// Of GetItemEstimate (MS-ASCMD 2.2.3.177.5).
pub mod get_item_estimate {
    use super::Status;
    /// No such collection.
    pub const INVALID_COLLECTION: Status = Status(2);
    /// The folder has not been synchronized yet.
    pub const NOT_PRIMED: Status = Status(3);
    /// The sync key is not the server's.
    pub const INVALID_SYNC_KEY: Status = Status(4);
}

/// Of ItemOperations (MS-ASCMD 2.2.3.177.7).
pub mod item_operations {
    use super::Status;
    /// Not well formed.
    pub const PROTOCOL_ERROR: Status = Status(2);
    /// No such item.
    pub const NOT_FOUND: Status = Status(6);
}
