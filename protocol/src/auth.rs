//! Password checks: a request that lives in memory only, and its verdict.

use serde::{Deserialize, Serialize};

use crate::Secret;

/// The module and request name of a password check.
pub const MODULE: &str = "user_auth";
/// The request's name.
pub const REQUEST: &str = "authenticate";

/// What the cloud asks. Has no `Debug`; the encoder is [`encode_request`], the only place where the password is
/// written anywhere.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuthRequest {
    /// What the person typed: a login, a mail address, a UPN or `DOMAIN\login`.
    pub username: String,
    /// The password. Empty ones are refused before the wire.
    pub password: Secret,
}

/// Writes the request's body. The result is as secret as the password.
pub fn encode_request(request: &AuthRequest) -> Secret {
    Secret::new(
        serde_json::json!({ "username": request.username, "password": request.password.expose() })
            .to_string(),
    )
}

/// The verdict, in the words of the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AuthOutcome {
    /// The password is right and the account may be used.
    Ok,
    /// Unknown user or wrong password; the two are never told apart.
    BadCredentials,
    /// The password is right but has expired.
    PasswordExpired,
    /// The password is right but must be changed at the next sign-in.
    MustChange,
    /// Too many failures; says nothing about this password.
    Locked,
    /// The account is switched off.
    Disabled,
    /// The account's end date has passed.
    AccountExpired,
    /// Right password at a forbidden time or place.
    Restricted,
    /// No verdict: no directory, no agent, or no answer in time. Never a statement about the password.
    Unavailable,
}

impl AuthOutcome {
    /// All of them, in the order of the API's documentation.
    pub const ALL: [Self; 9] = [
        Self::Ok,
        Self::BadCredentials,
        Self::PasswordExpired,
        Self::MustChange,
        Self::Locked,
        Self::Disabled,
        Self::AccountExpired,
        Self::Restricted,
        Self::Unavailable,
    ];

    /// The word on the wire and in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::BadCredentials => "bad_credentials",
            Self::PasswordExpired => "password_expired",
            Self::MustChange => "must_change",
            Self::Locked => "locked",
            Self::Disabled => "disabled",
            Self::AccountExpired => "account_expired",
            Self::Restricted => "restricted",
            Self::Unavailable => "unavailable",
        }
    }
}

/// Who signed in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuthUser {
    /// The directory's stable id of the object, as the uploads spell it.
    pub id: String,
    /// Login name.
    pub login: String,
    /// Where the directory keeps the object.
    pub dn: String,
    /// Mail address, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mail: Option<String>,
    /// Name for people to read, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
}

/// The agent's answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuthReply {
    /// The verdict.
    pub outcome: AuthOutcome,
    /// The user, when the verdict is [`AuthOutcome::Ok`] or depends on a right password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<AuthUser>,
    /// The directory server that gave the verdict.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<String>,
    /// Why there is no verdict, for [`AuthOutcome::Unavailable`]; names the culprit, never the password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}
