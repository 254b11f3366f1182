//! What a directory's answer to a bind means.

use causeway_protocol::auth::AuthOutcome;

use crate::directory::controls;
use crate::directory::message::{OperationResult, ResultCode};
use crate::directory::personality::{BindRule, Personality};

/// What to make of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The directory has spoken; nobody else is asked.
    Final(AuthOutcome),
    /// This server is busy or going down and has not looked at the password: another may be asked.
    Elsewhere,
    /// It answered, but not the question: nobody else is asked, and nothing is said about the password.
    None,
}

/// Reads an answer by the personality's rules and the password policy controls.
pub(super) fn read(personality: &Personality, result: &OperationResult) -> Verdict {
    if result.code.is_passing() {
        return Verdict::Elsewhere;
    }
    let policy = result
        .control(controls::PASSWORD_POLICY)
        .and_then(|control| control.value.as_ref())
        .and_then(|value| controls::password_policy_error(value).ok().flatten());
    let expired = result.control(controls::PASSWORD_EXPIRED).is_some();
    if result.is_success() {
        // A success with changeAfterReset, or with Netscape's word for expired, allows nothing but a new password.
        let must_change = policy == Some(2) || expired;
        return Verdict::Final(if must_change { AuthOutcome::MustChange } else { AuthOutcome::Ok });
    }
    let text = result.diagnostic.to_ascii_lowercase();
    let code_fits = |rule: &&BindRule| rule.code.is_none_or(|code| code == result.code.0);
    // A text says more than the policy control, which has no word for "switched off": 389-ds calls that locked there.
    let told =
        personality.bind_errors.iter().filter(code_fits).find(|rule| {
            rule.contains.as_ref().is_some_and(|part| text.contains(&part.to_ascii_lowercase()))
        });
    match policy {
        _ if told.is_some() => {}
        Some(0) => return Verdict::Final(AuthOutcome::PasswordExpired),
        Some(1) => return Verdict::Final(AuthOutcome::Locked),
        Some(2) => return Verdict::Final(AuthOutcome::MustChange),
        _ if expired => return Verdict::Final(AuthOutcome::PasswordExpired),
        _ => {}
    }
    let by_code = || personality.bind_errors.iter().filter(code_fits).find(|rule| rule.contains.is_none());
    match told.or_else(by_code) {
        Some(rule) if rule.outcome == AuthOutcome::Unavailable => Verdict::None,
        Some(rule) => Verdict::Final(rule.outcome),
        None if result.code == ResultCode::INVALID_CREDENTIALS => Verdict::Final(AuthOutcome::BadCredentials),
        None => Verdict::None,
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::directory::message::Control;

    fn result(code: u32, diagnostic: &str, controls: Vec<Control>) -> OperationResult {
        OperationResult {
            code: ResultCode(code),
            matched_dn: String::new(),
            diagnostic: diagnostic.to_owned(),
            referrals: 0,
            controls,
        }
    }

    fn policy(error: u8) -> Vec<Control> {
        let value = Bytes::from(vec![0x30, 3, 0x81, 1, error]);
        vec![Control { oid: controls::PASSWORD_POLICY.into(), critical: false, value: Some(value) }]
    }

    #[test]
    fn sub_codes_of_active_directory() {
        let personality = Personality::named("active_directory").unwrap();
        for (data, outcome) in [
            ("525", AuthOutcome::BadCredentials),
            ("52e", AuthOutcome::BadCredentials),
            ("530", AuthOutcome::Restricted),
            ("532", AuthOutcome::PasswordExpired),
            ("533", AuthOutcome::Disabled),
            ("701", AuthOutcome::AccountExpired),
            ("773", AuthOutcome::MustChange),
            ("775", AuthOutcome::Locked),
        ] {
            let text = format!(
                "80090308: LdapErr: DSID-0C09042F, comment: AcceptSecurityContext error, data {data}, v2580"
            );
            assert_eq!(read(&personality, &result(49, &text, vec![])), Verdict::Final(outcome), "{data}");
        }
        let channel_binding =
            "80090346: LdapErr: DSID-0C090597, comment: AcceptSecurityContext error, data 80090346, v4563";
        assert_eq!(read(&personality, &result(49, channel_binding, vec![])), Verdict::None);
    }

    #[test]
    fn words_of_other_products() {
        for (name, code, text, outcome) in [
            ("openldap", 49, "", AuthOutcome::BadCredentials),
            ("ds389", 53, "Account inactivated. Contact system administrator.", AuthOutcome::Disabled),
            ("ds389", 19, "Exceed password retry limit. Please try later.", AuthOutcome::Locked),
            ("ds389", 49, "password expired!", AuthOutcome::PasswordExpired),
            ("edirectory", 49, "NDS error: failed authentication (-669)", AuthOutcome::BadCredentials),
            ("edirectory", 53, "NDS error: log account expired (-220)", AuthOutcome::Disabled),
            ("edirectory", 53, "NDS error: login lockout (-197)", AuthOutcome::Locked),
            ("domino", 49, "Failed, invalid credentials for Alice Smith", AuthOutcome::BadCredentials),
        ] {
            let personality = Personality::named(name).unwrap();
            assert_eq!(
                read(&personality, &result(code, text, vec![])),
                Verdict::Final(outcome),
                "{name} {text}"
            );
        }
    }

    #[test]
    fn password_policy_controls_win_over_texts() {
        let personality = Personality::named("openldap").unwrap();
        let of = |code, error| read(&personality, &result(code, "", policy(error)));
        assert_eq!(of(49, 0), Verdict::Final(AuthOutcome::PasswordExpired));
        assert_eq!(of(49, 1), Verdict::Final(AuthOutcome::Locked));
        assert_eq!(of(0, 2), Verdict::Final(AuthOutcome::MustChange));
        assert_eq!(read(&personality, &result(0, "", vec![])), Verdict::Final(AuthOutcome::Ok));
    }

    #[test]
    fn a_text_says_more_than_the_control() {
        let personality = Personality::named("ds389").unwrap();
        let words = "Account inactivated. Contact system administrator.";
        let of = |text| read(&personality, &result(53, text, policy(1)));
        assert_eq!(of(words), Verdict::Final(AuthOutcome::Disabled));
        assert_eq!(of(""), Verdict::Final(AuthOutcome::Locked));
    }

    #[test]
    fn an_answer_to_another_question_is_no_verdict() {
        for name in ["active_directory", "openldap", "ds389", "edirectory", "domino"] {
            let personality = Personality::named(name).unwrap();
            assert_eq!(read(&personality, &result(51, "", vec![])), Verdict::Elsewhere);
            assert_eq!(read(&personality, &result(52, "", vec![])), Verdict::Elsewhere);
            assert_eq!(read(&personality, &result(8, "signing required", vec![])), Verdict::None);
            assert_eq!(read(&personality, &result(80, "", vec![])), Verdict::None);
        }
    }
}
