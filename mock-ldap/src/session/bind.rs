//! Bind: simple, SASL and Sicily. One rule above all: a failed bind leaves the connection anonymous.

use serde_json::json;

use super::{Call, Session, outcome_of};
use crate::controls::{self, Controls, PolicyWarning, oid};
use crate::dit::{Bound, EmptyPassword, Identity, LdapFailure, PolicyWord, ResultCode};
use crate::message::{self, Authentication, ResponseControl};
use crate::personality::Vendor;

/// Netscape password controls, which 389-ds sends unasked beside the newer one.
const NETSCAPE_PASSWORD_EXPIRED: &str = "2.16.840.1.113730.3.4.4";
const NETSCAPE_PASSWORD_EXPIRING: &str = "2.16.840.1.113730.3.4.5";

/// What a bind request says beside its credentials.
pub(super) struct BindContext {
    pub(super) call: Call,
    /// The client sent the password policy request control.
    pub(super) wants_policy: bool,
}

impl Session {
    pub(super) fn bind(
        &mut self,
        call: Call,
        version: i64,
        name: &[u8],
        authentication: &Authentication<'_>,
        controls: &Controls<'_>,
    ) {
        // RFC 4511 section 4.2.1: outstanding operations end, and until the new bind succeeds nobody is bound.
        self.running.clear();
        self.watches.clear();
        self.pages.clear();
        self.who = Identity::Anonymous;
        self.must_change = false;
        let mut bind = BindContext { call, wants_policy: controls.password_policy };
        let personality = self.directory.personality();
        if version != 3 && (version != 2 || personality.rejects_version_2) {
            let text = "historical protocol version requested, use LDAPv3 instead";
            return self.refuse_bind(&bind, &LdapFailure::new(ResultCode::PROTOCOL_ERROR, text));
        }
        if !matches!(authentication, Authentication::Sasl { .. } | Authentication::SicilyResponse(_)) {
            self.exchange = None;
        }
        match authentication {
            Authentication::Simple(password) => {
                bind.call.detail = json!({ "method": "simple" });
                self.simple_bind(&bind, name, password);
            }
            Authentication::Sasl { mechanism, credentials } => {
                self.sasl_bind(bind, mechanism, *credentials);
            }
            Authentication::SicilyDiscovery => self.sicily_discovery(bind),
            Authentication::SicilyNegotiate(token) => self.sicily_negotiate(bind, token),
            Authentication::SicilyResponse(token) => self.sicily_response(bind, token),
        }
    }

    fn simple_bind(&mut self, bind: &BindContext, name: &[u8], password: &[u8]) {
        let outcome = match (name.is_empty(), password.is_empty()) {
            (true, true) => Ok(anonymous()),
            (true, false) => Err(LdapFailure::new(ResultCode::INVALID_CREDENTIALS, "")),
            (false, true) => self.unauthenticated_bind(),
            (false, false) => match self.protection_missing() {
                Some(failure) => Err(failure),
                None => self.replica.authenticate(name, password),
            },
        };
        match outcome {
            Ok(bound) => self.accept_bind(bind, bound, None),
            Err(failure) => self.refuse_bind(bind, &failure),
        }
    }

    /// A name without a password (RFC 4513 section 5.1.2).
    fn unauthenticated_bind(&self) -> Result<Bound, LdapFailure> {
        let text = self.directory.personality().text("empty_password", &[]);
        match self.shared.effective.load().empty_password_bind {
            EmptyPassword::Anonymous => Ok(anonymous()),
            EmptyPassword::Reject => Err(LdapFailure::new(ResultCode::INVALID_CREDENTIALS, text)),
            EmptyPassword::Unwilling => Err(LdapFailure::new(ResultCode::UNWILLING_TO_PERFORM, text)),
        }
    }

    /// Why a password may not travel on this connection as it is.
    pub(super) fn protection_missing(&self) -> Option<LdapFailure> {
        if self.is_secure() {
            return None;
        }
        let effective = self.shared.effective.load();
        let text = |reason| self.directory.personality().text(reason, &[]);
        if effective.require_signing {
            return Some(LdapFailure::new(ResultCode::STRONGER_AUTH_REQUIRED, text("signing_required")));
        }
        effective
            .simple_bind_needs_tls
            .then(|| LdapFailure::new(ResultCode::CONFIDENTIALITY_REQUIRED, text("confidentiality")))
    }

    /// `proof`: the last server token of a SASL exchange.
    pub(super) fn accept_bind(&mut self, bind: &BindContext, bound: Bound, proof: Option<&[u8]>) {
        let anonymous = bound.identity == Identity::Anonymous;
        self.trusted |= !anonymous;
        // Error 2 with success: the password was set by an administrator and must be changed first.
        self.must_change = bound.policy.error == Some(2);
        self.who = bound.identity;
        let controls = self.policy_controls(bind.wants_policy, bound.policy);
        let (out, call) = (self.wire.out(), &bind.call);
        message::put_result(out, call.id, call.tag, outcome_of(None), &controls, |out| {
            if let Some(token) = proof {
                crate::ber::primitive(out, 0x87, token);
            }
        });
        self.note(call, if anonymous { "success (anonymous)" } else { "success" });
    }

    pub(super) fn refuse_bind(&mut self, bind: &BindContext, failure: &LdapFailure) {
        self.exchange = None;
        let controls = self.policy_controls(bind.wants_policy, failure.policy);
        self.finish(&bind.call, Some(failure), &controls);
    }

    /// saslBindInProgress with the server's next token.
    pub(super) fn continue_bind(&mut self, bind: &BindContext, token: &[u8]) {
        let failure = LdapFailure::new(ResultCode::SASL_BIND_IN_PROGRESS, "");
        let (out, call) = (self.wire.out(), &bind.call);
        message::put_result(out, call.id, call.tag, outcome_of(Some(&failure)), &[], |out| {
            crate::ber::primitive(out, 0x87, token);
        });
        self.note_outcome(call, Some(&failure));
    }

    /// Controls a password policy adds to a bind response.
    pub(super) fn policy_controls(&self, asked: bool, policy: PolicyWord) -> Vec<ResponseControl> {
        let mut controls = Vec::new();
        let personality = self.directory.personality();
        if asked && personality.supports_control(oid::PASSWORD_POLICY) {
            let warning = policy
                .time_before_expiration_secs
                .map(PolicyWarning::SecondsToExpiry)
                .or(policy.grace_remaining.map(PolicyWarning::GraceLogins));
            controls.push(controls::password_policy(warning, policy.error));
        }
        if matches!(personality.vendor, Vendor::Ds389 | Vendor::Oracle) {
            if matches!(policy.error, Some(0 | 2)) {
                let value = Some(b"0".to_vec());
                controls.push(ResponseControl { oid: NETSCAPE_PASSWORD_EXPIRED, value });
            } else if let Some(secs) = policy.time_before_expiration_secs {
                let value = Some(secs.to_string().into_bytes());
                controls.push(ResponseControl { oid: NETSCAPE_PASSWORD_EXPIRING, value });
            }
        }
        controls
    }
}

fn anonymous() -> Bound {
    Bound { identity: Identity::Anonymous, policy: PolicyWord::default() }
}

/// The hexadecimal sub-code in an AD diagnostic text (`..., data 52e, v4563`).
pub(super) fn sub_code(text: &str) -> Option<&str> {
    let rest = &text[text.find("AcceptSecurityContext error, data ")? + 34..];
    let end = rest.find(|c: char| !c.is_ascii_hexdigit()).unwrap_or(rest.len());
    Some(&rest[..end]).filter(|code| !code.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sub_codes_are_found_in_ad_texts_only() {
        let text =
            "80090308: LdapErr: DSID-0C09044E, comment: AcceptSecurityContext error, data 52e, v4563\0";
        assert_eq!(sub_code(text), Some("52e"));
        assert_eq!(sub_code("NDS error: failed authentication (-669)"), None);
        assert_eq!(sub_code("AcceptSecurityContext error, data "), None);
    }
}
