//! Names for the tags this repository writes or reads, one module for each code page. The numbers are in
//! [`PAGES`](super::PAGES), once; a name that is not there does not compile.

use super::{PAGES, Tag};

const fn same(left: &str, right: &str) -> bool {
    let (left, right) = (left.as_bytes(), right.as_bytes());
    if left.len() != right.len() {
        return false;
    }
    let mut at = 0;
    while at < left.len() {
        if left[at] != right[at] {
            return false;
        }
        at += 1;
    }
    true
}

const fn tag(page: &str, name: &str) -> Tag {
    let mut number = 0;
    while number < PAGES.len() {
        let it = &PAGES[number];
        let mut at = 0;
        while same(it.name, page) && at < it.tags.len() {
            let (token, known) = it.tags[at];
            if same(known, name) {
                return Tag { page: it.number, token };
            }
            at += 1;
        }
        number += 1;
    }
    panic!("no such tag")
}

macro_rules! tags {
    ($module:ident, $page:literal, $($constant:ident = $name:literal),+ $(,)?) => {
        #[doc = concat!("Tags of the code page ", $page, ".")]
        pub mod $module {
            use super::{Tag, tag};
            $(
                #[doc = concat!("`", $page, ":", $name, "`.")]
                pub const $constant: Tag = tag($page, $name);
            )+
        }
    };
}

tags!(
    air_sync,
    "AirSync",
    SYNC = "Sync",
    RESPONSES = "Responses",
    ADD = "Add",
    CHANGE = "Change",
    DELETE = "Delete",
    FETCH = "Fetch",
    SYNC_KEY = "SyncKey",
    CLIENT_ID = "ClientId",
    SERVER_ID = "ServerId",
    STATUS = "Status",
    COLLECTION = "Collection",
    CLASS = "Class",
    COLLECTION_ID = "CollectionId",
    GET_CHANGES = "GetChanges",
    MORE_AVAILABLE = "MoreAvailable",
    WINDOW_SIZE = "WindowSize",
    COMMANDS = "Commands",
    OPTIONS = "Options",
    FILTER_TYPE = "FilterType",
    COLLECTIONS = "Collections",
    APPLICATION_DATA = "ApplicationData",
    DELETES_AS_MOVES = "DeletesAsMoves",
    WAIT = "Wait",
    LIMIT = "Limit",
    PARTIAL = "Partial",
    HEARTBEAT_INTERVAL = "HeartbeatInterval",
);

tags!(
    email,
    "Email",
    BODY = "Body",
    BODY_TRUNCATED = "BodyTruncated",
    DATE_RECEIVED = "DateReceived",
    DISPLAY_TO = "DisplayTo",
    IMPORTANCE = "Importance",
    MESSAGE_CLASS = "MessageClass",
    SUBJECT = "Subject",
    READ = "Read",
    TO = "To",
    FROM = "From",
    THREAD_TOPIC = "ThreadTopic",
    INTERNET_CPID = "InternetCPID",
    CONTENT_CLASS = "ContentClass",
);

tags!(
    get_item_estimate,
    "GetItemEstimate",
    GET_ITEM_ESTIMATE = "GetItemEstimate",
    COLLECTIONS = "Collections",
    COLLECTION = "Collection",
    CLASS = "Class",
    COLLECTION_ID = "CollectionId",
    ESTIMATE = "Estimate",
    RESPONSE = "Response",
    STATUS = "Status",
);

tags!(
    folder_hierarchy,
    "FolderHierarchy",
    DISPLAY_NAME = "DisplayName",
    SERVER_ID = "ServerId",
    PARENT_ID = "ParentId",
    TYPE = "Type",
    STATUS = "Status",
    CHANGES = "Changes",
    ADD = "Add",
    DELETE = "Delete",
    UPDATE = "Update",
    SYNC_KEY = "SyncKey",
    FOLDER_SYNC = "FolderSync",
    COUNT = "Count",
    FOLDER_CREATE = "FolderCreate",
    FOLDER_DELETE = "FolderDelete",
    FOLDER_UPDATE = "FolderUpdate",
);

tags!(move_items, "Move", MOVE_ITEMS = "MoveItems", STATUS = "Status");

tags!(meeting_response, "MeetingResponse", MEETING_RESPONSE = "MeetingResponse", STATUS = "Status");

tags!(resolve_recipients, "ResolveRecipients", RESOLVE_RECIPIENTS = "ResolveRecipients", STATUS = "Status");

tags!(validate_cert, "ValidateCert", VALIDATE_CERT = "ValidateCert", STATUS = "Status");

tags!(
    ping,
    "Ping",
    PING = "Ping",
    STATUS = "Status",
    HEARTBEAT_INTERVAL = "HeartbeatInterval",
    FOLDERS = "Folders",
    FOLDER = "Folder",
    ID = "Id",
    CLASS = "Class",
    MAX_FOLDERS = "MaxFolders",
);

tags!(
    provision,
    "Provision",
    PROVISION = "Provision",
    POLICIES = "Policies",
    POLICY = "Policy",
    POLICY_TYPE = "PolicyType",
    POLICY_KEY = "PolicyKey",
    DATA = "Data",
    STATUS = "Status",
    REMOTE_WIPE = "RemoteWipe",
    EAS_PROVISION_DOC = "EASProvisionDoc",
    ACCOUNT_ONLY_REMOTE_WIPE = "AccountOnlyRemoteWipe",
    DEVICE_PASSWORD_ENABLED = "DevicePasswordEnabled",
    ALPHANUMERIC_DEVICE_PASSWORD_REQUIRED = "AlphanumericDevicePasswordRequired",
    REQUIRE_DEVICE_ENCRYPTION = "RequireDeviceEncryption",
);

tags!(search, "Search", SEARCH = "Search", STATUS = "Status");

tags!(
    air_sync_base,
    "AirSyncBase",
    BODY_PREFERENCE = "BodyPreference",
    TYPE = "Type",
    TRUNCATION_SIZE = "TruncationSize",
    BODY = "Body",
    DATA = "Data",
    ESTIMATED_DATA_SIZE = "EstimatedDataSize",
    TRUNCATED = "Truncated",
    NATIVE_BODY_TYPE = "NativeBodyType",
);

tags!(
    settings,
    "Settings",
    SETTINGS = "Settings",
    STATUS = "Status",
    GET = "Get",
    SET = "Set",
    DEVICE_PASSWORD = "DevicePassword",
    PASSWORD = "Password",
    DEVICE_INFORMATION = "DeviceInformation",
    MODEL = "Model",
    IMEI = "IMEI",
    FRIENDLY_NAME = "FriendlyName",
    OS = "OS",
    OS_LANGUAGE = "OSLanguage",
    PHONE_NUMBER = "PhoneNumber",
    USER_INFORMATION = "UserInformation",
    EMAIL_ADDRESSES = "EmailAddresses",
    SMTP_ADDRESS = "SmtpAddress",
    USER_AGENT = "UserAgent",
    ENABLE_OUTBOUND_SMS = "EnableOutboundSMS",
    MOBILE_OPERATOR = "MobileOperator",
    PRIMARY_SMTP_ADDRESS = "PrimarySmtpAddress",
    ACCOUNTS = "Accounts",
    ACCOUNT = "Account",
    OOF = "Oof",
    OOF_STATE = "OofState",
);

tags!(
    item_operations,
    "ItemOperations",
    ITEM_OPERATIONS = "ItemOperations",
    FETCH = "Fetch",
    OPTIONS = "Options",
    STORE = "Store",
    PROPERTIES = "Properties",
    STATUS = "Status",
    RESPONSE = "Response",
);

tags!(
    compose_mail,
    "ComposeMail",
    SEND_MAIL = "SendMail",
    SMART_FORWARD = "SmartForward",
    SMART_REPLY = "SmartReply",
    SAVE_IN_SENT_ITEMS = "SaveInSentItems",
    MIME = "Mime",
    CLIENT_ID = "ClientId",
    STATUS = "Status",
);

tags!(find, "Find", FIND = "Find", STATUS = "Status");
