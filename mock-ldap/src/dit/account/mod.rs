//! Accounts: who a name means, whether a password opens it, and why not (MS-ADTS 5.1.1, MS-SAMR 3.1.1.7, the
//! password policy draft, and the vendors' own words).

mod names;
mod password;
mod state;

use std::collections::HashMap;
use std::sync::PoisonError;

pub(crate) use password::{InitialPasswords, StoredPassword, verify};

use super::limits;
use super::reader::Reader;
use super::replica::Replica;
use super::time_text;
use super::types::{
    AccountPolicy, Bound, EmptyPassword, EntryId, Identity, LdapFailure, PolicyWord, ResultCode,
};
use crate::dn::Dn;
use crate::personality::Vendor;
use password::same;
use state::State;

/// userAccountControl bits (MS-ADTS 2.2.16).
pub(crate) const UAC_DISABLED: i64 = 0x2;
pub(crate) const UAC_NORMAL: i64 = 0x200;
pub(crate) const UAC_NEVER_EXPIRES: i64 = 0x1_0000;
pub(crate) const UAC_PASSWORD_NOT_REQUIRED: i64 = 0x20;
/// accountExpires: never.
pub(crate) const NEVER: i64 = i64::MAX;
const DAY_MS: i64 = 86_400_000;

/// What one server counts about one account; not replicated.
#[derive(Clone, Debug, Default)]
pub(crate) struct Logon {
    pub(crate) bad_count: u32,
    pub(crate) bad_at_ms: Option<i64>,
    pub(crate) last_ms: Option<i64>,
    pub(crate) count: u32,
    /// Times of the failures that count (pwdFailureTime).
    pub(crate) failures_ms: Vec<i64>,
}

pub(crate) type Logons = HashMap<EntryId, Logon>;

/// Judges a password or a proof made elsewhere.
type Proof<'a> = &'a dyn Fn(&Replica, &Reader<'_>, EntryId) -> bool;

impl Replica {
    /// Simple bind with a non-empty name, in every name form of the personality.
    pub fn authenticate(&self, name: &[u8], password: &[u8]) -> Result<Bound, LdapFailure> {
        self.catch_up();
        if password.is_empty() {
            return self.empty_password();
        }
        if let Some(bound) = self.manager_bind(name, password)? {
            return Ok(bound);
        }
        let Some(id) = self.account_named(name)? else { return Err(self.unknown_account()) };
        self.judge(id, &|replica, reader, id| replica.password_fits(reader, id, password))
    }

    /// The account an NTLM or Sicily exchange names, and its password; `None` when unknown.
    pub fn ntlm_account(&self, domain: &str, user: &str) -> Option<(Identity, String)> {
        self.catch_up();
        let id = if user.contains('@') || domain.is_empty() {
            self.user_principal(user).or_else(|| self.by_account_name(user))
        } else {
            let naming = &self.shared.naming;
            let ours =
                domain.eq_ignore_ascii_case(&naming.netbios) || domain.eq_ignore_ascii_case(&naming.domain);
            ours.then(|| self.by_account_name(user)).flatten()
        }?;
        self.read(|reader| {
            let password = match reader.tree.passwords.get(&id) {
                Some(stored) => String::from_utf8(stored.secret.clone()).ok()?,
                None => self.shared.passwords.of(id)?.to_owned(),
            };
            Some((Identity::Entry { id, dn: reader.tree.dn(id) }, password))
        })
    }

    /// The verdict after a proof made elsewhere (NTLM): counts failures and checks the account's state.
    pub fn account_verdict(&self, who: &Identity, proof_ok: bool) -> Result<Bound, LdapFailure> {
        match who {
            Identity::Entry { id, .. } => self.judge(*id, &|_, _, _| proof_ok),
            _ => Err(self.unknown_account()),
        }
    }

    /// The answer to a password for an account that does not exist.
    pub fn unknown_account(&self) -> LdapFailure {
        self.bind_failure("52e")
    }

    /// SASL EXTERNAL: the object a client certificate names, by user principal name, by a mapping in
    /// altSecurityIdentities, or by its subject as a DN.
    pub fn identity_of_certificate(&self, subject_dn: &str, upn: Option<&str>) -> Option<Identity> {
        self.catch_up();
        let mapped = || self.by_text(self.shared.known.alt_security?, &format!("X509:<S>{subject_dn}"));
        let id = upn
            .and_then(|upn| self.user_principal(upn))
            .or_else(mapped)
            .or_else(|| self.read(|reader| reader.tree.find(subject_dn.as_bytes())))?;
        self.read(|reader| {
            let node = reader.tree.node(id).filter(|node| !node.entry.deleted)?;
            let now = self.shared.clock.now_ms();
            let state = self.state_of(reader, &node.entry, &self.shared.accounts(), now);
            matches!(state, State::Open).then(|| Identity::Entry { id, dn: reader.tree.dn(id) })
        })
    }

    /// Authorization identity of RFC 4532: `u:ACME\asmith` on Active Directory, `dn:...` elsewhere.
    pub fn who_am_i(&self, who: &Identity) -> String {
        if let (Identity::Entry { id, .. }, true) = (who, self.shared.personality.is_active_directory()) {
            let account = self.values(*id, "sAMAccountName").into_iter().next().unwrap_or_default();
            return format!("u:{}\\{}", self.shared.naming.netbios, String::from_utf8_lossy(&account));
        }
        match who.dn() {
            "" => String::new(),
            // 389-ds writes a space.
            dn if self.shared.personality.vendor == Vendor::Ds389 => format!("dn: {dn}"),
            dn => format!("dn:{dn}"),
        }
    }

    fn empty_password(&self) -> Result<Bound, LdapFailure> {
        let choice = self.shared.accounts().empty_password.unwrap_or(self.shared.personality.empty_password);
        let text = || self.shared.text("empty_password", &[]);
        match choice {
            EmptyPassword::Anonymous => {
                Ok(Bound { identity: Identity::Anonymous, policy: PolicyWord::default() })
            }
            EmptyPassword::Reject => Err(self.bind_failure("52e")),
            EmptyPassword::Unwilling => Err(LdapFailure::new(ResultCode::UNWILLING_TO_PERFORM, text())),
        }
    }

    fn manager_bind(&self, name: &[u8], password: &[u8]) -> Result<Option<Bound>, LdapFailure> {
        let manager = &self.shared.naming.manager;
        if self.shared.personality.manager_dn.is_none() {
            return Ok(None);
        }
        let key = |text: &[u8]| Dn::parse(text).ok().map(|dn| dn.key(self.shared.folding));
        if key(name).is_none() || key(name) != key(manager.as_bytes()) {
            return Ok(None);
        }
        if same(self.shared.passwords.manager().as_bytes(), password) {
            let identity = Identity::Manager { dn: manager.clone() };
            return Ok(Some(Bound { identity, policy: PolicyWord::default() }));
        }
        Err(self.bind_failure("52e"))
    }

    /// Proof, lock, count, state: the one place where a bind is decided.
    fn judge(&self, id: EntryId, proof: Proof<'_>) -> Result<Bound, LdapFailure> {
        let policy = self.shared.accounts();
        let now = self.shared.clock.now_ms();
        let (locked, fits, state, dn) = self.read(|reader| {
            let Some(node) = reader.tree.node(id).filter(|node| !node.entry.deleted) else {
                return (false, false, State::Open, String::new());
            };
            let state = self.state_of(reader, &node.entry, &policy, now);
            (reader.lock_holds(&node.entry, &policy, now), proof(self, reader, id), state, reader.tree.dn(id))
        });
        if locked {
            return Err(self.refusal(State::Locked, &dn));
        }
        if !fits {
            self.count_failure(id, &policy, now);
            return Err(self.bind_failure("52e"));
        }
        match state {
            State::Open => {
                self.count_success(id, now);
                Ok(Bound { identity: Identity::Entry { id, dn }, policy: PolicyWord::default() })
            }
            // The password policy draft lets these in to change the password, and nothing else.
            State::MustChange if !self.shared.personality.is_active_directory() => {
                self.count_success(id, now);
                let policy = PolicyWord { error: Some(2), ..PolicyWord::default() };
                Ok(Bound { identity: Identity::Entry { id, dn }, policy })
            }
            refused => Err(self.refusal(refused, &dn)),
        }
    }

    fn password_fits(&self, reader: &Reader<'_>, id: EntryId, password: &[u8]) -> bool {
        match reader.tree.passwords.get(&id) {
            Some(stored) => {
                let previous =
                    stored.previous.as_ref().filter(|(_, until)| self.shared.clock.now_ms() < *until);
                verify(&stored.secret, password)
                    | previous.is_some_and(|(secret, _)| verify(secret, password))
            }
            None => self.shared.passwords.of(id).is_some_and(|initial| same(initial.as_bytes(), password)),
        }
    }

    pub(crate) fn count_failure_for_peer(&self, id: EntryId, policy: &AccountPolicy, now: i64) {
        self.count_failure(id, policy, now);
    }

    fn count_failure(&self, id: EntryId, policy: &AccountPolicy, now: i64) {
        let window_ms = policy.lockout_window_secs as i64 * 1000;
        let reached = {
            let mut logons = self.logons.lock().unwrap_or_else(PoisonError::into_inner);
            let full = logons.len() >= limits::LOGON_STATES_MAX && !logons.contains_key(&id);
            if full {
                return;
            }
            let logon = logons.entry(id).or_default();
            if logon.bad_at_ms.is_some_and(|at| now - at > window_ms) {
                logon.bad_count = 0;
                logon.failures_ms.clear();
            }
            logon.bad_count += 1;
            logon.bad_at_ms = Some(now);
            // Only as many as decide about the lock are worth keeping.
            if logon.failures_ms.len() < policy.lockout_threshold as usize {
                logon.failures_ms.push(now);
            }
            policy.lockout_threshold > 0 && logon.bad_count >= policy.lockout_threshold
        };
        if policy.forward_failures && self.index != 0 {
            self.forward_failure(id, policy, now);
        }
        if reached {
            self.lock_account(id, policy, now);
        }
    }

    fn lock_account(&self, id: EntryId, policy: &AccountPolicy, now: i64) {
        let known = &self.shared.known;
        let until = match policy.lockout_duration_secs {
            0 => "20380119031407Z".to_owned(),
            seconds => time_text::generalized(now + seconds as i64 * 1000),
        };
        let (attribute, value) = match self.shared.personality.vendor {
            Vendor::ActiveDirectory => (known.lockout_time, time_text::filetime(now).to_string()),
            Vendor::OpenLdap => (known.pwd_locked, time_text::generalized(now)),
            Vendor::Ds389 | Vendor::Oracle => (known.account_unlock, until),
            Vendor::EDirectory => (known.intruder_reset, until),
            Vendor::Domino => return,
        };
        if let Some(attribute) = attribute {
            self.write_by_server(id, vec![(attribute, vec![value.into_bytes()])]);
        }
    }

    fn count_success(&self, id: EntryId, now: i64) {
        {
            let mut logons = self.logons.lock().unwrap_or_else(PoisonError::into_inner);
            if logons.len() < limits::LOGON_STATES_MAX || logons.contains_key(&id) {
                let logon = logons.entry(id).or_default();
                logon.bad_count = 0;
                logon.failures_ms.clear();
                logon.last_ms = Some(now);
                logon.count = logon.count.saturating_add(1);
            }
        }
        let known = &self.shared.known;
        let mut writes = Vec::new();
        self.read(|reader| {
            let Some(node) = reader.tree.node(id) else { return };
            // lastLogonTimestamp moves only when it is 9 to 14 days old (MS-ADA1 2.351).
            if let Some(attribute) = known.last_logon_timestamp {
                let slack_days = 14 - i64::from(id.0 % 6);
                let old = node.entry.integer(attribute).map(time_text::from_filetime);
                if old.is_none_or(|at| now - at > slack_days * DAY_MS) {
                    writes.push((attribute, vec![time_text::filetime(now).to_string().into_bytes()]));
                }
            }
            let locks = [known.lockout_time, known.pwd_locked, known.account_unlock, known.intruder_reset];
            for attribute in locks.into_iter().flatten() {
                let was_locked = node.entry.first(attribute).is_some_and(|value| value != b"0");
                if was_locked {
                    let active_directory = self.shared.personality.is_active_directory();
                    writes.push((attribute, if active_directory { vec![b"0".to_vec()] } else { Vec::new() }));
                }
            }
        });
        if !writes.is_empty() {
            self.write_by_server(id, writes);
        }
    }
}
