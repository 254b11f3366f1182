//! The state of an account, and how each vendor words a refusal.

use std::sync::PoisonError;

use super::{NEVER, UAC_DISABLED, UAC_NEVER_EXPIRES};
use crate::dit::entry::Entry;
use crate::dit::reader::Reader;
use crate::dit::replica::Replica;
use crate::dit::schema::{AttrId, Computed};
use crate::dit::time_text;
use crate::dit::tree::Node;
use crate::dit::types::{AccountPolicy, EntryId, LdapFailure, ResultCode};
use crate::personality::Vendor;

/// Why a right password does not open an account, or that it does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum State {
    Open,
    MustChange,
    PasswordExpired,
    Disabled,
    AccountExpired,
    BadHours,
    Locked,
}

impl State {
    /// Sub-code of the AcceptSecurityContext error.
    pub(super) fn data(self) -> &'static str {
        match self {
            Self::Open => "0",
            Self::MustChange => "773",
            Self::PasswordExpired => "532",
            Self::Disabled => "533",
            Self::AccountExpired => "701",
            Self::BadHours => "530",
            Self::Locked => "775",
        }
    }
}

impl Replica {
    /// State of an account whose password was right.
    pub(super) fn state_of(
        &self,
        reader: &Reader<'_>,
        entry: &Entry,
        policy: &AccountPolicy,
        now: i64,
    ) -> State {
        match self.shared.personality.vendor {
            Vendor::ActiveDirectory => self.state_by_control(reader, entry, now),
            Vendor::OpenLdap => self.state_by_policy(entry, policy, now),
            Vendor::Ds389 | Vendor::Oracle => self.state_by_password_policy(entry, now),
            Vendor::EDirectory => self.state_by_login_attributes(entry, now),
            Vendor::Domino => State::Open,
        }
    }

    /// Active Directory: userAccountControl and its neighbours, in the order in which a domain controller looks.
    fn state_by_control(&self, reader: &Reader<'_>, entry: &Entry, now: i64) -> State {
        let known = &self.shared.known;
        let integer =
            |attribute: Option<AttrId>| attribute.and_then(|it| entry.integer(it)).unwrap_or_default();
        let control = integer(known.user_account_control);
        let expires = integer(known.account_expires);
        let hours = value(entry, known.logon_hours);
        match () {
            () if control & UAC_DISABLED != 0 => State::Disabled,
            () if expires != 0 && expires != NEVER && time_text::from_filetime(expires) <= now => {
                State::AccountExpired
            }
            () if hours.is_some_and(|hours| !hour_allowed(hours, now)) => State::BadHours,
            () if control & UAC_NEVER_EXPIRES == 0 && integer(known.pwd_last_set) == 0 => State::MustChange,
            () if reader.password_expired(entry, control) => State::PasswordExpired,
            () => State::Open,
        }
    }

    /// OpenLDAP: the attributes of the overlay ppolicy. The date in pwdAccountLockedTime means a lock without an end.
    fn state_by_policy(&self, entry: &Entry, policy: &AccountPolicy, now: i64) -> State {
        let known = &self.shared.known;
        match () {
            () if value(entry, known.pwd_locked) == Some(b"000001010000Z") => State::Locked,
            () if past(entry, known.pwd_end, now) => State::AccountExpired,
            () if is_true(entry, known.pwd_reset) => State::MustChange,
            () if aged(value(entry, known.pwd_changed), policy, now) => State::PasswordExpired,
            () => State::Open,
        }
    }

    /// 389-ds and Oracle: nsAccountLock and the expiration time that the server writes itself.
    fn state_by_password_policy(&self, entry: &Entry, now: i64) -> State {
        let known = &self.shared.known;
        match () {
            () if is_true(entry, known.ns_account_lock) => State::Disabled,
            () if is_true(entry, known.pwd_reset) => State::MustChange,
            () if past(entry, known.password_expiration, now) => State::PasswordExpired,
            () => State::Open,
        }
    }

    /// eDirectory: the attributes of its login policy. A time map of nothing but zeros allows no hour.
    fn state_by_login_attributes(&self, entry: &Entry, now: i64) -> State {
        let known = &self.shared.known;
        let never = value(entry, known.login_time_map).is_some_and(|map| map.iter().all(|it| *it == 0));
        match () {
            () if is_true(entry, known.login_disabled) => State::Disabled,
            () if past(entry, known.login_expiration, now) => State::AccountExpired,
            () if never => State::BadHours,
            () if past(entry, known.password_expiration, now) => State::PasswordExpired,
            () => State::Open,
        }
    }

    pub(super) fn bind_failure(&self, data: &str) -> LdapFailure {
        LdapFailure::new(
            ResultCode::INVALID_CREDENTIALS,
            self.shared.text("bind_failed", &[("data", data), ("dn", "user")]),
        )
    }

    /// The vendor's words for an account that may not sign in although, or whatever, the password was.
    pub(super) fn refusal(&self, state: State, dn: &str) -> LdapFailure {
        let code = ResultCode::INVALID_CREDENTIALS;
        let text = |reason: &str| self.shared.text(reason, &[("dn", dn)]);
        let reason = match state {
            State::Locked => "account_locked",
            State::Disabled => "account_inactivated",
            State::AccountExpired => "account_expired",
            State::BadHours => "bad_hours",
            State::MustChange => "password_must_change",
            State::PasswordExpired | State::Open => "password_expired",
        };
        let mut failure = match self.shared.personality.vendor {
            Vendor::ActiveDirectory => return self.bind_failure(state.data()),
            // slapd hides the reason from clients that do not send the policy control.
            Vendor::OpenLdap | Vendor::Domino => {
                LdapFailure::new(code, self.shared.text("bind_failed", &[("dn", dn)]))
            }
            Vendor::Ds389 | Vendor::Oracle => match state {
                State::Locked => LdapFailure::new(ResultCode::CONSTRAINT_VIOLATION, text(reason)),
                State::Disabled => LdapFailure::new(ResultCode::UNWILLING_TO_PERFORM, text(reason)),
                _ => LdapFailure::new(code, text(reason)),
            },
            Vendor::EDirectory => match state {
                State::PasswordExpired | State::MustChange => LdapFailure::new(code, text(reason)),
                _ => LdapFailure::new(ResultCode::UNWILLING_TO_PERFORM, text(reason)),
            },
        };
        failure.policy.error = match state {
            State::Locked | State::Disabled => Some(1),
            State::PasswordExpired => Some(0),
            State::MustChange => Some(2),
            _ => None,
        };
        failure
    }
}

impl Reader<'_> {
    pub(crate) fn is_locked(&self, entry: &Entry) -> bool {
        let policy = self.shared.accounts();
        self.lock_holds(entry, &policy, self.shared.clock.now_ms())
    }

    pub(super) fn lock_holds(&self, entry: &Entry, policy: &AccountPolicy, now: i64) -> bool {
        let known = &self.shared.known;
        let since = |at: i64| {
            policy.lockout_duration_secs == 0 || now - at < policy.lockout_duration_secs as i64 * 1000
        };
        let time =
            |attribute: Option<AttrId>| attribute.and_then(|it| entry.first(it)).and_then(time_text::parse);
        match self.shared.personality.vendor {
            Vendor::ActiveDirectory => {
                let at = known.lockout_time.and_then(|it| entry.integer(it)).unwrap_or_default();
                at != 0 && since(time_text::from_filetime(at))
            }
            Vendor::OpenLdap => time(known.pwd_locked).is_some_and(since),
            Vendor::Ds389 | Vendor::Oracle => time(known.account_unlock).is_some_and(|until| now < until),
            Vendor::EDirectory => time(known.intruder_reset).is_some_and(|until| now < until),
            Vendor::Domino => false,
        }
    }

    pub(crate) fn password_expired(&self, entry: &Entry, control: i64) -> bool {
        let max_ms = self.shared.accounts().password_age_max_secs as i64 * 1000;
        let set = self.shared.known.pwd_last_set.and_then(|it| entry.integer(it)).unwrap_or_default();
        let counts = max_ms > 0 && control & (UAC_NEVER_EXPIRES | 0x3800) == 0;
        counts && (set == 0 || self.shared.clock.now_ms() - time_text::from_filetime(set) > max_ms)
    }

    pub(crate) fn logon_value(&self, id: EntryId, node: &Node, what: Computed, emit: &mut dyn FnMut(&[u8])) {
        let known = &self.shared.known;
        // Groups and containers have no logons.
        let accounts = [known.user_account_control, known.uid, known.login_disabled];
        if !accounts.into_iter().flatten().any(|it| node.entry.first(it).is_some()) {
            return;
        }
        let logon =
            self.logons.lock().unwrap_or_else(PoisonError::into_inner).get(&id).cloned().unwrap_or_default();
        let active_directory = self.shared.personality.is_active_directory();
        let filetime = |at: Option<i64>| at.map_or(0, time_text::filetime).to_string();
        let mut text = |value: String| emit(value.as_bytes());
        match what {
            Computed::BadCount if active_directory || logon.bad_count > 0 => {
                text(logon.bad_count.to_string())
            }
            Computed::BadTime => text(filetime(logon.bad_at_ms)),
            Computed::LastLogon => text(filetime(logon.last_ms)),
            Computed::LastLogonTime => logon.last_ms.iter().for_each(|&at| text(time_text::generalized(at))),
            Computed::LogonCount => text(logon.count.to_string()),
            Computed::FailureTimes => {
                logon.failures_ms.iter().for_each(|&at| text(time_text::generalized(at)))
            }
            Computed::RetryReset if logon.bad_count > 0 => {
                let window_ms = self.shared.accounts().lockout_window_secs as i64 * 1000;
                logon.bad_at_ms.iter().for_each(|&at| text(time_text::generalized(at + window_ms)));
            }
            Computed::LockedFlag => emit(if self.is_locked(&node.entry) { b"TRUE" } else { b"FALSE" }),
            _ => {}
        }
    }
}

fn value(entry: &Entry, attribute: Option<AttrId>) -> Option<&[u8]> {
    attribute.and_then(|it| entry.first(it))
}

fn is_true(entry: &Entry, attribute: Option<AttrId>) -> bool {
    value(entry, attribute).is_some_and(|value| value.eq_ignore_ascii_case(b"TRUE"))
}

fn past(entry: &Entry, attribute: Option<AttrId>, now: i64) -> bool {
    value(entry, attribute).and_then(time_text::parse).is_some_and(|at| at <= now)
}

/// logonHours: 168 bits, Sunday 0:00 UTC first, least significant bit first (MS-SAMR 2.2.6.5).
fn hour_allowed(hours: &[u8], now: i64) -> bool {
    let (weekday, hour) = time_text::weekday_hour(now);
    let bit = weekday * 24 + hour;
    hours.get(bit / 8).is_none_or(|byte| byte & (1 << (bit % 8)) != 0)
}

fn aged(changed: Option<&[u8]>, policy: &AccountPolicy, now: i64) -> bool {
    let max_ms = policy.password_age_max_secs as i64 * 1000;
    max_ms > 0 && changed.and_then(time_text::parse).is_some_and(|at| now - at > max_ms)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hours_count_from_sunday_midnight() {
        let mut hours = [0xff; 21];
        assert!(hour_allowed(&hours, 0));
        // 1970-01-01 0:00 is Thursday: bit 96.
        hours[12] &= !1;
        assert!(!hour_allowed(&hours, 0));
        assert!(hour_allowed(&hours, 3_600_000));
        assert!(!hour_allowed(&[0; 21], 12_345_678));
    }
}
