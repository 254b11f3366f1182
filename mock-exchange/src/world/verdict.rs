//! What a phone asks, and what it gets: the words between the world and whatever carries a phone's commands.

use std::sync::Arc;

use super::access::{AccessReason, AccessState};
use super::device::PartnershipId;
use super::mailbox::MailboxId;
use super::policy::Policy;
use super::wipe::WipeKind;

/// A command of a phone whose user has signed in.
#[derive(Clone, Copy, Debug)]
pub struct DeviceRequest<'a> {
    pub mailbox: MailboxId,
    pub device_id: &'a str,
    pub device_type: &'a str,
    pub user_agent: &'a str,
    /// Protocol version, for example 141.
    pub version: u16,
    /// `X-MS-PolicyKey`. A phone that does policies says 0 before it has one; absent means that it does none.
    pub policy_key: Option<u32>,
    /// Name of the command, for example `FolderSync`.
    pub command: &'a str,
}

/// What a phone gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Access {
    /// Absent when the phone has none and gets none.
    pub partnership: Option<PartnershipId>,
    pub verdict: Verdict,
}

/// How a command is to be answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Allowed,
    /// Held: it sees its inbox with one notice and nothing else.
    Held(AccessState),
    Blocked(AccessReason),
    /// ActiveSync is switched off for the mailbox.
    Disabled,
    /// It must be provisioned first.
    Provision(ProvisionNeed),
    /// Its protocol knows no policies and the policy does not forgive that.
    NotProvisionable,
    /// It applied only part of a policy that does not forgive that.
    PartlyProvisionable,
    /// It must ask for its wipe (Provision).
    Wipe(WipeKind),
    TooManyDevices,
    /// The mailbox has moved; the new URL.
    Moved(String),
}

/// Why a phone must be provisioned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProvisionNeed {
    /// It shows no key.
    NotProvisioned,
    /// The policy has changed, or must be refreshed.
    Refresh,
    /// The key is not the one it was given.
    InvalidKey,
}

/// The answer to the first step of Provision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Provision {
    /// It must wipe itself; the order counts as sent.
    Wipe(WipeKind),
    /// The policy to obey, to be confirmed with this key.
    Policy { key: u32, policy: Arc<Policy> },
    /// There is no policy.
    NoPolicy,
    /// Since 14.1 a phone must say what it is first.
    InformationMissing,
    /// The partnership is gone.
    Gone,
}

/// A policy was confirmed with a key that was not given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyMismatch;
