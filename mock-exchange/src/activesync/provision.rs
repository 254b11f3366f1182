//! Provision (MS-ASPROV): the policy in two round trips, or the order to wipe.

use causeway_protocol::activesync::status::{Status, provision as provision_status};
use causeway_protocol::activesync::{POLICY_TYPE, POLICY_TYPE_2_5, Version};
use causeway_protocol::wbxml::tags::provision as tag;
use causeway_protocol::wbxml::tags::settings as settings_tag;
use causeway_protocol::wbxml::{Element, PAGES, Tag};

use super::commands::number_of;
use super::request::{Asked, Reply};
use super::settings::information;
use super::{ActiveSync, Refusal};
use crate::world::{Policy, Provision, WipeKind};

/// Elements of the policy document in the order of MS-ASPROV 2.2.2.28, with the setting of the policy each shows.
const DOCUMENT: &[(&str, &str, Shown)] = &[
    ("DevicePasswordEnabled", "PasswordEnabled", Shown::Switch),
    ("AlphanumericDevicePasswordRequired", "AlphanumericPasswordRequired", Shown::Switch),
    ("PasswordRecoveryEnabled", "PasswordRecoveryEnabled", Shown::Switch),
    ("RequireStorageCardEncryption", "RequireStorageCardEncryption", Shown::Switch),
    ("AttachmentsEnabled", "AttachmentsEnabled", Shown::Switch),
    ("MinDevicePasswordLength", "MinPasswordLength", Shown::Number),
    ("MaxInactivityTimeDeviceLock", "MaxInactivityTimeLock", Shown::Seconds),
    ("MaxDevicePasswordFailedAttempts", "MaxPasswordFailedAttempts", Shown::Number),
    ("MaxAttachmentSize", "MaxAttachmentSize", Shown::Number),
    ("AllowSimpleDevicePassword", "AllowSimplePassword", Shown::Switch),
    ("DevicePasswordExpiration", "PasswordExpiration", Shown::Days),
    ("DevicePasswordHistory", "PasswordHistory", Shown::Number),
    ("AllowStorageCard", "AllowStorageCard", Shown::Since12_1),
    ("AllowCamera", "AllowCamera", Shown::Since12_1),
    ("RequireDeviceEncryption", "RequireDeviceEncryption", Shown::Since12_1),
    ("AllowUnsignedApplications", "AllowUnsignedApplications", Shown::Since12_1),
    ("AllowUnsignedInstallationPackages", "AllowUnsignedInstallationPackages", Shown::Since12_1),
    ("MinDevicePasswordComplexCharacters", "MinPasswordComplexCharacters", Shown::Number),
    ("AllowWiFi", "AllowWiFi", Shown::Since12_1),
    ("AllowTextMessaging", "AllowTextMessaging", Shown::Since12_1),
    ("AllowPOPIMAPEmail", "AllowPOPIMAPEmail", Shown::Since12_1),
    ("AllowBluetooth", "AllowBluetooth", Shown::Word(&["Disable", "HandsfreeOnly", "Allow"])),
    ("AllowIrDA", "AllowIrDA", Shown::Since12_1),
    ("RequireManualSyncWhenRoaming", "RequireManualSyncWhenRoaming", Shown::Since12_1),
    ("AllowDesktopSync", "AllowDesktopSync", Shown::Since12_1),
    (
        "MaxCalendarAgeFilter",
        "MaxCalendarAgeFilter",
        // 0 is all, 4 two weeks (MS-ASPROV 2.2.2.32).
        Shown::Word(&["All", "", "", "", "TwoWeeks", "OneMonth", "ThreeMonths", "SixMonths"]),
    ),
    ("AllowHTMLEmail", "AllowHTMLEmail", Shown::Since12_1),
    (
        "MaxEmailAgeFilter",
        "MaxEmailAgeFilter",
        Shown::Word(&["All", "OneDay", "ThreeDays", "OneWeek", "TwoWeeks", "OneMonth"]),
    ),
    ("MaxEmailBodyTruncationSize", "MaxEmailBodyTruncationSize", Shown::Unlimited),
    ("MaxEmailHTMLBodyTruncationSize", "MaxEmailHTMLBodyTruncationSize", Shown::Unlimited),
    ("RequireSignedSMIMEMessages", "RequireSignedSMIMEMessages", Shown::Since12_1),
    ("RequireEncryptedSMIMEMessages", "RequireEncryptedSMIMEMessages", Shown::Since12_1),
    ("AllowSMIMESoftCerts", "AllowSMIMESoftCerts", Shown::Since12_1),
    ("AllowBrowser", "AllowBrowser", Shown::Since12_1),
    ("AllowConsumerEmail", "AllowConsumerEmail", Shown::Since12_1),
    ("AllowRemoteDesktop", "AllowRemoteDesktop", Shown::Since12_1),
    ("AllowInternetSharing", "AllowInternetSharing", Shown::Since12_1),
];

/// How a setting becomes text.
enum Shown {
    /// 1 or 0, in every version.
    Switch,
    /// 1 or 0, since protocol version 12.1.
    Since12_1,
    /// A number; an empty element when there is none.
    Number,
    /// A span in seconds; an empty element when there is none.
    Seconds,
    /// A span in days; an empty element when there is none.
    Days,
    /// A number; -1 when there is no limit. Since 12.1.
    Unlimited,
    /// The position of the word in this list. Since 12.1.
    Word(&'static [&'static str]),
}

impl ActiveSync {
    pub(super) fn provision(&self, asked: &Asked) -> Reply {
        let Some(root) = asked.document.as_ref().filter(|root| root.tag == tag::PROVISION) else {
            return Reply::Refused(Refusal::NotTheDocument);
        };
        let organisation = &asked.organisation;
        for (wipe, kind) in WIPES {
            if root.child(wipe).is_some() {
                // A confirmation of a wipe nobody ordered counts for nothing; the phone is told so as with any other.
                organisation.wipe_acknowledge(asked.phone, kind);
                return Reply::Document(answer(Status::OK));
            }
        }
        let device = root.at(&[settings_tag::DEVICE_INFORMATION, settings_tag::SET]).map(information);
        let spoke = device.is_some();
        let Some(policy) = root.at(&[tag::POLICIES, tag::POLICY]) else {
            // Phones before 14.1 may tell about themselves alone; a request for nothing is malformed.
            if let Some(device) = device {
                organisation.set_device_information(asked.phone, device);
                return Reply::Document(answer(Status::OK).with(heard()));
            }
            return Reply::Document(answer(provision_status::PROTOCOL_ERROR));
        };
        let kind = policy.text_of(tag::POLICY_TYPE).unwrap_or_default();
        if let Some(key) = number_of(policy, tag::POLICY_KEY) {
            return Self::confirm(asked, &kind, key, number_of(policy, tag::STATUS).unwrap_or(0));
        }
        match organisation.provision(asked.phone, u16::from(asked.version.0), device) {
            Provision::Wipe(kind) => wipe(asked, kind),
            Provision::InformationMissing => Reply::Document(answer(Status::DEVICE_INFORMATION_REQUIRED)),
            Provision::Gone => Reply::Refused(Refusal::StateLost),
            Provision::NoPolicy => Reply::Document(offer(&kind, provision_status::NO_POLICY, spoke, vec![])),
            Provision::Policy { key, policy } => {
                let data = match policy_data(asked.version, &kind, &policy) {
                    Some(data) => data,
                    None => {
                        let status = provision_status::UNKNOWN_POLICY_TYPE;
                        return Reply::Document(offer(&kind, status, spoke, vec![]));
                    }
                };
                let rest = vec![Element::leaf(tag::POLICY_KEY, key), data];
                Reply::Document(offer(&kind, Status::OK, spoke, rest))
            }
        }
    }

    /// The second round trip.
    fn confirm(asked: &Asked, kind: &str, key: u32, status: u32) -> Reply {
        match asked.organisation.provision_acknowledge(asked.phone, key, status) {
            Ok(last) => {
                Reply::Document(offer(kind, Status::OK, false, vec![Element::leaf(tag::POLICY_KEY, last)]))
            }
            Err(_) => Reply::Document(offer(kind, provision_status::WRONG_POLICY_KEY, false, vec![])),
        }
    }
}

const WIPES: [(Tag, WipeKind); 2] =
    [(tag::REMOTE_WIPE, WipeKind::Full), (tag::ACCOUNT_ONLY_REMOTE_WIPE, WipeKind::AccountOnly)];

/// Tells the phone to wipe. A phone whose version has no word for wiping only the account stays shut out instead
/// (unverified).
fn wipe(asked: &Asked, kind: WipeKind) -> Reply {
    if kind == WipeKind::AccountOnly && !asked.version.has_account_only_wipe() {
        return Reply::Refused(Refusal::Blocked);
    }
    let order = WIPES.into_iter().find(|(_, known)| *known == kind).map(|(order, _)| Element::new(order));
    Reply::Document(answer(Status::OK).with_all(order))
}

fn answer(status: Status) -> Element {
    Element::new(tag::PROVISION).with(Element::leaf(tag::STATUS, status.0))
}

fn heard() -> Element {
    Element::new(settings_tag::DEVICE_INFORMATION).with(Element::leaf(settings_tag::STATUS, Status::OK.0))
}

fn offer(kind: &str, status: Status, spoke: bool, rest: Vec<Element>) -> Element {
    let policy = Element::new(tag::POLICY)
        .with(Element::leaf(tag::POLICY_TYPE, kind))
        .with(Element::leaf(tag::STATUS, status.0))
        .with_all(rest);
    answer(Status::OK).with_all(spoke.then(heard)).with(Element::new(tag::POLICIES).with(policy))
}

/// The policy as the phone's version reads it; `None` for a policy type that does not belong to the version.
fn policy_data(version: Version, kind: &str, policy: &Policy) -> Option<Element> {
    match kind {
        POLICY_TYPE if version >= Version::V12_0 => {
            Some(Element::new(tag::DATA).with(document(version, policy)))
        }
        POLICY_TYPE_2_5 if version == Version::V2_5 => Some(Element::leaf(tag::DATA, wap_document(policy))),
        _ => None,
    }
}

fn document(version: Version, policy: &Policy) -> Element {
    let page = PAGES.iter().find(|page| page.number == tag::PROVISION.page);
    let token = |name: &str| {
        page.and_then(|page| page.tags.iter().find(|(_, known)| *known == name)).map(|(token, _)| *token)
    };
    let mut document = Element::new(tag::EAS_PROVISION_DOC);
    for (name, setting, shown) in DOCUMENT {
        if let (Some(token), Some(text)) = (token(name), shown.text(version, policy, setting)) {
            document.push(Element::leaf(Tag { page: tag::PROVISION.page, token }, text));
        }
    }
    document
}

impl Shown {
    /// `None` when the version does not know the element.
    fn text(&self, version: Version, policy: &Policy, setting: &str) -> Option<String> {
        let later = version >= Version::V12_1;
        let number = |number: Option<u64>| number.map_or_else(String::new, |number| number.to_string());
        match self {
            Self::Switch => Some(u8::from(policy.is_on(setting)).to_string()),
            Self::Since12_1 => later.then(|| u8::from(policy.is_on(setting)).to_string()),
            Self::Number => Some(number(policy.number(setting).map(u64::from))),
            Self::Seconds => Some(number(policy.seconds(setting))),
            Self::Days => Some(number(policy.seconds(setting).map(|seconds| seconds / 86_400))),
            Self::Unlimited => {
                later.then(|| policy.number(setting).map_or("-1".to_owned(), |it| it.to_string()))
            }
            Self::Word(words) => {
                let word = policy.word(setting).unwrap_or_default();
                let at =
                    words.iter().position(|known| !known.is_empty() && known.eq_ignore_ascii_case(&word));
                later.then(|| at.unwrap_or(0).to_string())
            }
        }
    }
}

/// The policy of protocol version 2.5 (MS-ASWBXML and MS-ASPROV keep only its name): the password settings as an OMA
/// provisioning document.
fn wap_document(policy: &Policy) -> String {
    // Registry value 4131 is the password's requirement: 0 asks for one, 1 does not.
    let none = u8::from(!policy.is_on("PasswordEnabled"));
    let length = policy.number("MinPasswordLength").unwrap_or(4);
    let fails = policy.number("MaxPasswordFailedAttempts").unwrap_or(0);
    format!(
        "<wap-provisioningdoc><characteristic type=\"SecurityPolicy\"><parm name=\"4131\" value=\"{none}\"/>\
         </characteristic><characteristic type=\"Registry\"><characteristic \
         type=\"HKLM\\Comm\\Security\\Policy\\LASSD\\LAP\\lap_pw\"><parm name=\"MinimumPasswordLength\" \
         value=\"{length}\"/></characteristic><characteristic type=\"HKLM\\Comm\\Security\\Policy\\LASSD\"><parm \
         name=\"DeviceWipeThreshold\" value=\"{fails}\"/></characteristic></characteristic></wap-provisioningdoc>"
    )
}
