//! Certificates of devices: what the cloud orders, what the agent reports, and the profiles both read.
//!
//! The cloud orders `issue_certificate` and `revoke_certificate` as actions of the module `certificates`, and asks with
//! the request `challenge` when a device is about to make its own signing request. An action that an agent has accepted
//! is never given to another one, so one order leads to one certificate, whatever dies when.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Where the key of an identity is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeyMode {
    /// On the device, which sends a signing request (PKCS#10).
    Device,
    /// By the agent, which sends the identity back encrypted for the device and keeps nothing that opens it.
    Agent,
}

/// Kind and size of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeyKind {
    /// RSA with 2,048 bits.
    Rsa2048,
    /// RSA with 3,072 bits.
    Rsa3072,
    /// RSA with 4,096 bits.
    Rsa4096,
    /// ECDSA on the curve P-256.
    P256,
}

/// What to do where a variable of a template has no value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MissingVariable {
    /// Refuse the order and name the variable.
    #[default]
    Fail,
    /// Leave out the part of the name that needs it.
    Drop,
    /// Write the variable's name as it stands in the template.
    Literal,
}

/// A profile: how certificates of one purpose look and where they come from. Part of the desired config.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// Stable id within the tenant.
    pub id: String,
    /// Counted up with every edit; an order names the version it was made for.
    pub version: u64,
    /// The authority that issues: `[ca.<name>]` of the agents.
    pub authority: String,
    /// The authority's own name of the template or profile, where it has several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template: Option<String>,
    /// Where keys are made.
    pub key_mode: KeyMode,
    /// Their kind, and the least that a device's request may have.
    pub key: KeyKind,
    /// Subject with variables, for example `/CN=%uname%/emailAddress=%email%`.
    pub subject: String,
    /// Alternative names with variables, for example `upn:%upn%`, `email:%email%`, `dns:%udid%.acme.example`,
    /// `uri:tag:microsoft.com,2022-09-14:sid:%sid%`.
    #[serde(default)]
    pub alternative_names: Vec<String>,
    /// What to do where a variable has no value.
    #[serde(default)]
    pub missing_variable: MissingVariable,
    /// Days before the end at which renewal begins, 1 to 365.
    #[serde(default = "renew_days")]
    pub renew_days: u32,
    /// Passphrase-protected PKCS#12 with algorithms of old systems (3DES, SHA-1) instead of today's.
    #[serde(default)]
    pub legacy_pkcs12: bool,
}

fn renew_days() -> u32 {
    14
}

/// Parameters of `issue_certificate`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IssueOrder {
    /// Names the order for ever: a repeated one gets the recorded answer, never a second certificate.
    pub request: String,
    /// [`Profile::id`].
    pub profile: String,
    /// [`Profile::version`].
    pub version: u64,
    /// Values of the template's variables without their percent signs: `uname`, `email`, `udid` ... The cloud knows them;
    /// what it does not know (`sid`, `ou`, `dn`), the agent looks up in the directory.
    pub variables: BTreeMap<String, String>,
    /// With [`KeyMode::Device`], where no challenge was handed out: the device's PKCS#10, base64 of DER.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub csr: Option<String>,
    /// With [`KeyMode::Device`], where a challenge was handed out and is therefore inside the device's PKCS#10.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sealed_csr: Option<SealedCsr>,
    /// With [`KeyMode::Agent`]: the device's public key (SubjectPublicKeyInfo, base64 of DER) the identity is encrypted to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_key: Option<String>,
    /// The certificate this one takes the place of, when it is a renewal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub renews: Option<CertificateId>,
}

/// A signing request that holds a challenge. Orders rest on disk, at both ends; so it is encrypted before it becomes part of
/// one, and only the agent that fetched the challenge opens it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SealedCsr {
    /// CMS EnvelopedData for [`SealTo::key`] around the device's PKCS#10, base64 of DER.
    pub envelope: String,
    /// [`SealTo::proof`], as it came.
    pub proof: String,
}

/// What names a certificate in the world: issuer and serial number (RFC 5280 section 4.1.2.2).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CertificateId {
    /// Distinguished name as RFC 4514 writes it.
    pub issuer: String,
    /// Hexadecimal, lower case, without leading zeros.
    pub serial: String,
}

/// How far an order is: the result of an action that is pending.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Checked against the profile; nothing has left.
    Checked,
    /// The authority has, or may have, the request.
    Submitted,
    /// The authority waits for a person's approval.
    AwaitingApproval,
    /// Something is in the way and will be tried again.
    Retrying,
}

/// Result of `issue_certificate`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Issued {
    /// [`IssueOrder::request`].
    pub request: String,
    /// Issuer and serial number.
    pub id: CertificateId,
    /// Subject as RFC 4514 writes it.
    pub subject: String,
    /// Begin of validity, milliseconds since 1970 UTC.
    pub not_before_ms: i64,
    /// End of validity, milliseconds since 1970 UTC.
    pub not_after_ms: i64,
    /// SHA-256 over the DER, lower case hexadecimal.
    pub sha256: String,
    /// The certificate, base64 of DER.
    pub certificate: String,
    /// Authorities from the issuer upwards, base64 of DER.
    pub chain: Vec<String>,
    /// With [`KeyMode::Agent`]: CMS EnvelopedData for the device's key around a PKCS#12 and its passphrase
    /// ([`Identity`]), base64 of DER.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<String>,
    /// Milliseconds each step took on the agent, by name.
    #[serde(default)]
    pub timing_ms: BTreeMap<String, u64>,
}

/// What is inside the envelope of [`Issued::identity`], as JSON.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    /// PKCS#12 with key, certificate and chain, base64 of DER.
    pub pkcs12: String,
    /// Its passphrase.
    pub passphrase: String,
}

/// Why a certificate ends (RFC 5280 section 5.3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RevocationReason {
    /// No reason given (0).
    Unspecified,
    /// The device is lost or was wiped (1).
    KeyCompromise,
    /// Another certificate took its place (4).
    Superseded,
    /// The device is no longer managed (5).
    CessationOfOperation,
}

impl RevocationReason {
    /// The number in a CRL (RFC 5280 section 5.3.1).
    pub fn code(self) -> u8 {
        match self {
            Self::Unspecified => 0,
            Self::KeyCompromise => 1,
            Self::Superseded => 4,
            Self::CessationOfOperation => 5,
        }
    }
}

/// Parameters of `revoke_certificate`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RevokeOrder {
    /// [`Profile::authority`] it came from.
    pub authority: String,
    /// Which one.
    pub id: CertificateId,
    /// Why.
    pub reason: RevocationReason,
}

/// Result of `revoke_certificate`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Revoked {
    /// Which one.
    pub id: CertificateId,
    /// Whether the authority says that it is revoked. False where it has no way to be told, and `note` says so.
    pub revoked: bool,
    /// For people.
    pub note: String,
}

/// Body of the request `challenge`: a device is about to make its own signing request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChallengeAsk {
    /// [`IssueOrder::request`] it will be for.
    pub request: String,
    /// [`Profile::id`].
    pub profile: String,
    /// [`Profile::version`].
    pub version: u64,
    /// As in [`IssueOrder::variables`].
    pub variables: BTreeMap<String, String>,
}

/// Answer to the request `challenge`: everything the device must put into its signing request. Held in memory only, at
/// both ends.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChallengeAnswer {
    /// The challenge password (RFC 2985 section 5.4.1); none where the authority asks for none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub challenge: Option<String>,
    /// Milliseconds it is good for.
    pub ttl_ms: u64,
    /// The subject to ask for, RFC 4514.
    pub subject: String,
    /// The alternative names to ask for, as in [`Profile::alternative_names`] with their variables filled in.
    pub alternative_names: Vec<String>,
    /// Given with a challenge: how the device's signing request is to be protected. Not for the device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seal: Option<SealTo>,
}

/// What keeps a signing request with a challenge from everybody but the agent that fetched the challenge. Neither part is
/// a secret; both may be stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SealTo {
    /// The agent's public key (SubjectPublicKeyInfo, base64 of DER) the request is encrypted to.
    pub key: String,
    /// Goes back with the order. To the agent it says which challenge was handed out for which request and subject; nobody
    /// else reads it, so that a short challenge cannot be guessed from what rests on disk.
    pub proof: String,
}
