//! How a phone is refused: a status number in the body since protocol version 14.0, an HTTP status before.

use std::collections::BTreeMap;

use causeway_protocol::activesync::Version;
use causeway_protocol::activesync::status::Status;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::world::{ProvisionNeed, Verdict};

/// Why a command is not carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Refusal {
    Blocked,
    Disabled,
    NotProvisioned,
    PolicyRefresh,
    InvalidPolicyKey,
    Legacy,
    PartlyProvisionable,
    Wipe,
    TooManyDevices,
    DeviceId,
    DeviceType,
    Busy,
    NotWbxml,
    NotTheDocument,
    UnknownCommand,
    StateLost,
}

/// How a refusal is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RefusalNumbers {
    /// Status in the body, protocol version 14.0 and later.
    pub status: u16,
    /// HTTP status, protocol version 12.1 and older.
    pub http: u16,
}

struct Row {
    refusal: Refusal,
    /// As settings name it.
    name: &'static str,
    status: Status,
    http: u16,
}

const fn row(refusal: Refusal, name: &'static str, status: Status, http: u16) -> Row {
    Row { refusal, name, status, http }
}

/// The status numbers are those of MS-ASCMD 2.2.2. The HTTP ones, and which of the two is used where, are not verified
/// against a server: both can be set in the configuration, and the README lists them.
static ROWS: &[Row] = &[
    row(Refusal::Blocked, "blocked", Status::DEVICE_IS_BLOCKED_FOR_THIS_USER, 403),
    row(Refusal::Disabled, "disabled", Status::USER_DISABLED_FOR_SYNC, 403),
    row(Refusal::NotProvisioned, "not_provisioned", Status::DEVICE_NOT_PROVISIONED, 449),
    row(Refusal::PolicyRefresh, "policy_refresh", Status::POLICY_REFRESH, 449),
    row(Refusal::InvalidPolicyKey, "invalid_policy_key", Status::INVALID_POLICY_KEY, 449),
    row(Refusal::Legacy, "legacy", Status::LEGACY_DEVICE_ON_STRICT_POLICY, 403),
    row(Refusal::PartlyProvisionable, "partly_provisionable", Status::DEVICE_NOT_FULLY_PROVISIONABLE, 403),
    row(Refusal::Wipe, "wipe", Status::REMOTE_WIPE_REQUESTED, 449),
    row(Refusal::TooManyDevices, "too_many_devices", Status::MAXIMUM_DEVICES_REACHED, 403),
    row(Refusal::DeviceId, "device_id", Status::DEVICE_ID_MISSING, 400),
    row(Refusal::DeviceType, "device_type", Status::DEVICE_TYPE_MISSING, 400),
    row(Refusal::Busy, "busy", Status::SERVER_ERROR_RETRY_LATER, 503),
    row(Refusal::NotWbxml, "not_wbxml", Status::INVALID_WBXML, 400),
    row(Refusal::NotTheDocument, "not_the_document", Status::INVALID_XML, 400),
    row(Refusal::UnknownCommand, "unknown_command", Status::COMMAND_NOT_SUPPORTED, 501),
    row(Refusal::StateLost, "state_lost", Status::SYNC_STATE_NOT_FOUND, 500),
];

/// Every refusal by the name settings give it, with its numbers.
pub fn refusals() -> BTreeMap<&'static str, RefusalNumbers> {
    ROWS.iter().map(|row| (row.name, RefusalNumbers { status: row.status.0, http: row.http })).collect()
}

/// How one is said to a phone of this version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Said {
    /// HTTP 200 and a status in the body.
    Body(Status),
    Http(u16),
}

impl Refusal {
    pub(super) fn said(self, version: Version, changed: &BTreeMap<String, RefusalNumbers>) -> Said {
        let row = ROWS.iter().find(|row| row.refusal == self).expect("every refusal has a row");
        let numbers = changed.get(row.name).copied();
        let numbers = numbers.unwrap_or(RefusalNumbers { status: row.status.0, http: row.http });
        if version.has_common_status() {
            Said::Body(Status(numbers.status))
        } else {
            Said::Http(numbers.http)
        }
    }

    /// The refusal a verdict amounts to; `None` when the command is carried out. A mailbox that has moved is another
    /// matter.
    pub(super) fn of(verdict: &Verdict) -> Option<Self> {
        match verdict {
            Verdict::Allowed | Verdict::Held(_) | Verdict::Moved(_) => None,
            Verdict::Blocked(_) => Some(Self::Blocked),
            Verdict::Disabled => Some(Self::Disabled),
            Verdict::Provision(ProvisionNeed::NotProvisioned) => Some(Self::NotProvisioned),
            Verdict::Provision(ProvisionNeed::Refresh) => Some(Self::PolicyRefresh),
            Verdict::Provision(ProvisionNeed::InvalidKey) => Some(Self::InvalidPolicyKey),
            Verdict::NotProvisionable => Some(Self::Legacy),
            Verdict::PartlyProvisionable => Some(Self::PartlyProvisionable),
            Verdict::Wipe(_) => Some(Self::Wipe),
            Verdict::TooManyDevices => Some(Self::TooManyDevices),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_decides_how_it_is_said() {
        let none = BTreeMap::new();
        assert_eq!(Refusal::Blocked.said(Version::V14_0, &none), Said::Body(Status(129)));
        assert_eq!(Refusal::Blocked.said(Version::V12_1, &none), Said::Http(403));
        assert_eq!(Refusal::NotProvisioned.said(Version::V2_5, &none), Said::Http(449));
        let changed = [("blocked".to_owned(), RefusalNumbers { status: 130, http: 401 })].into();
        assert_eq!(Refusal::Blocked.said(Version::V16_1, &changed), Said::Body(Status(130)));
        assert_eq!(Refusal::Blocked.said(Version::V12_0, &changed), Said::Http(401));
    }
}
