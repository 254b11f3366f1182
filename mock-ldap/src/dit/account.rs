//! Accounts: who a name means, whether a password opens it, and why not (MS-ADTS 5.1.1, MS-SAMR 3.1.1.7, the
//! password policy draft, and the vendors' own words).

use std::collections::HashMap;
use std::sync::PoisonError;

use super::entry::Entry;
use super::limits;
use super::reader::Reader;
use super::replica::Replica;
use super::schema::AttrId;
use super::shared::Shared;
use super::time_text;
use super::types::{
    AccountPolicy, Bound, EmptyPassword, EntryId, Identity, LdapFailure, PolicyWord, ResultCode,
};
use crate::dn::{self, Dn};
use crate::personality::Vendor;

/// userAccountControl bits (MS-ADTS 2.2.16).
pub(crate) const UAC_DISABLED: i64 = 0x2;
pub(crate) const UAC_NORMAL: i64 = 0x200;
pub(crate) const UAC_NEVER_EXPIRES: i64 = 0x1_0000;
pub(crate) const UAC_PASSWORD_NOT_REQUIRED: i64 = 0x20;
/// accountExpires: never.
pub(crate) const NEVER: i64 = i64::MAX;
const DAY_MS: i64 = 86_400_000;

/// A password that was set, as given: plain, or with a `{SCHEME}` in front.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct StoredPassword {
    pub(crate) secret: Vec<u8>,
    /// The one before, and until when it still opens the account.
    pub(crate) previous: Option<(Vec<u8>, i64)>,
}

impl std::fmt::Debug for StoredPassword {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("..")
    }
}

/// The passwords people start with, one behind the other: a hundred thousand cost three megabytes.
#[derive(Default)]
pub(crate) struct InitialPasswords {
    text: String,
    ends: Vec<u32>,
    first: u32,
    others: HashMap<EntryId, String>,
    manager: String,
}

impl InitialPasswords {
    pub(crate) fn new(first: u32, manager: String) -> Self {
        Self { first, manager, ..Self::default() }
    }

    pub(crate) fn push_person(&mut self, password: &str) {
        self.text.push_str(password);
        self.ends.push(self.text.len() as u32);
    }

    pub(crate) fn insert(&mut self, id: EntryId, password: String) {
        self.others.insert(id, password);
    }

    pub(crate) fn of(&self, id: EntryId) -> Option<&str> {
        let at = id.0.checked_sub(self.first).map(|at| at as usize).filter(|&at| at < self.ends.len());
        match at {
            Some(at) => {
                let start = at.checked_sub(1).map_or(0, |before| self.ends[before]) as usize;
                Some(&self.text[start..self.ends[at] as usize])
            }
            None => self.others.get(&id).map(String::as_str),
        }
    }

    pub(crate) fn manager(&self) -> &str {
        &self.manager
    }
}

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

/// Why a right password does not open an account, or that it does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
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
    fn data(self) -> &'static str {
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
            let state = self.state_of(reader, id, &node.entry, &self.shared.accounts(), now);
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

    /// The one account a bind name means, in the forms of the personality.
    fn account_named(&self, name: &[u8]) -> Result<Option<EntryId>, LdapFailure> {
        let text = String::from_utf8_lossy(name);
        let by_dn =
            || Dn::parse(name).ok().and_then(|dn| self.read(|reader| reader.resolve(&dn::Name::Path(dn))));
        match self.shared.personality.vendor {
            Vendor::ActiveDirectory => Ok(by_dn().or_else(|| self.windows_name(&text))),
            Vendor::Domino => {
                let known = &self.shared.known;
                let forms = [known.short_name, known.mail, known.cn, known.full_name];
                Ok(by_dn().or_else(|| {
                    forms.into_iter().flatten().find_map(|attribute| self.by_text(attribute, &text))
                }))
            }
            _ => match Dn::parse(name) {
                Ok(_) => Ok(by_dn()),
                Err(_) => {
                    Err(LdapFailure::new(ResultCode::INVALID_DN_SYNTAX, self.shared.text("bad_dn", &[])))
                }
            },
        }
    }

    /// The name forms of MS-ADTS 5.1.1.1.1, in turn. A plain account name is not among them.
    fn windows_name(&self, text: &str) -> Option<EntryId> {
        let known = &self.shared.known;
        if let Some(id) = self.user_principal(text) {
            return Some(id);
        }
        if let Some((domain, account)) = text.split_once('\\') {
            let naming = &self.shared.naming;
            let ours =
                domain.eq_ignore_ascii_case(&naming.netbios) || domain.eq_ignore_ascii_case(&naming.domain);
            return ours.then(|| self.by_account_name(account)).flatten();
        }
        if text.contains('/')
            && let Some(id) = self.canonical(text)
        {
            return Some(id);
        }
        if let Some(guid) = dn::parse_guid(text) {
            return self.by_bytes(known.object_guid?, &guid);
        }
        if let Some(sid) =
            text.get(..2).filter(|start| start.eq_ignore_ascii_case("S-")).and_then(|_| dn::parse_sid(text))
        {
            return self.by_bytes(known.object_sid?, &sid);
        }
        let unique = [known.display_name, known.service_principal_name].into_iter().flatten();
        unique.into_iter().find_map(|attribute| self.by_unique_text(attribute, text))
    }

    fn user_principal(&self, text: &str) -> Option<EntryId> {
        let explicit = self.by_unique_text(self.shared.known.user_principal_name?, text);
        explicit.or_else(|| {
            let (account, domain) = text.rsplit_once('@')?;
            domain
                .eq_ignore_ascii_case(&self.shared.naming.domain)
                .then(|| self.by_account_name(account))
                .flatten()
        })
    }

    fn by_account_name(&self, account: &str) -> Option<EntryId> {
        let known = &self.shared.known;
        self.by_unique_text(known.sam_account_name.or(known.uid)?, account)
    }

    /// `acme.example/Berlin/Jane Doe`, walked from the head of the domain.
    fn canonical(&self, text: &str) -> Option<EntryId> {
        let (domain, path) = text.split_once('/')?;
        if !domain.eq_ignore_ascii_case(&self.shared.naming.domain) {
            return None;
        }
        self.read(|reader| {
            let mut at = self.shared.landmarks.base?;
            for part in path.replace("\\/", "\0").split('/') {
                let value = part.replace('\0', "/");
                let folded = self.shared.folding.fold(value.as_bytes());
                let is_it = |&&child: &&EntryId| {
                    let node = reader.tree.node(child);
                    let name = node.and_then(|node| super::reader::rdn_value(&node.entry.rdn));
                    name.is_some_and(|name| self.shared.folding.fold(&name) == folded)
                };
                at = *reader.tree.children(at).iter().find(is_it)?;
            }
            Some(at)
        })
    }

    pub(crate) fn by_text(&self, attribute: AttrId, text: &str) -> Option<EntryId> {
        let syntax = self.shared.schema.attribute(attribute).syntax;
        let normalized = super::matching::normalize(syntax, self.shared.folding, text.as_bytes());
        self.by_bytes(attribute, &normalized)
    }

    /// As [`Self::by_text`], but two objects with the value are as good as none.
    fn by_unique_text(&self, attribute: AttrId, text: &str) -> Option<EntryId> {
        let syntax = self.shared.schema.attribute(attribute).syntax;
        let normalized =
            super::matching::normalize(syntax, self.shared.folding, text.as_bytes()).into_owned();
        self.ensure_index(attribute);
        self.read(|reader| {
            let condition = super::condition::Condition::Equals { attribute, value: normalized };
            let ids = condition.candidates(reader)?;
            let live = |id: &EntryId| {
                let node = reader.tree.node(*id);
                node.is_some_and(|node| {
                    !node.entry.deleted && condition.holds(reader, *id, node) == Some(true)
                })
            };
            let mut matching = ids.into_iter().filter(live);
            matching.next().filter(|_| matching.next().is_none())
        })
    }

    fn by_bytes(&self, attribute: AttrId, normalized: &[u8]) -> Option<EntryId> {
        self.ensure_index(attribute);
        self.read(|reader| {
            let found = reader.by_value(attribute, normalized)?;
            reader.tree.node(found).is_some_and(|node| !node.entry.deleted).then_some(found)
        })
    }

    /// Proof, lock, count, state: the one place where a bind is decided.
    fn judge(&self, id: EntryId, proof: Proof<'_>) -> Result<Bound, LdapFailure> {
        let policy = self.shared.accounts();
        let now = self.shared.clock.now_ms();
        let (locked, fits, state, dn) = self.read(|reader| {
            let Some(node) = reader.tree.node(id).filter(|node| !node.entry.deleted) else {
                return (false, false, State::Open, String::new());
            };
            let state = self.state_of(reader, id, &node.entry, &policy, now);
            (
                reader.locked_at(id, &node.entry, &policy, now),
                proof(self, reader, id),
                state,
                reader.tree.dn(id),
            )
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

    /// State of an account whose password was right.
    fn state_of(
        &self,
        reader: &Reader<'_>,
        id: EntryId,
        entry: &Entry,
        policy: &AccountPolicy,
        now: i64,
    ) -> State {
        let known = &self.shared.known;
        let is_true = |attribute: Option<AttrId>| {
            attribute.and_then(|it| entry.first(it)).is_some_and(|value| value.eq_ignore_ascii_case(b"TRUE"))
        };
        let past = |attribute: Option<AttrId>| {
            attribute.and_then(|it| entry.first(it)).and_then(time_text::parse).is_some_and(|at| at <= now)
        };
        let integer =
            |attribute: Option<AttrId>| attribute.and_then(|it| entry.integer(it)).unwrap_or_default();
        match self.shared.personality.vendor {
            Vendor::ActiveDirectory => {
                let control = integer(known.user_account_control);
                let expires = integer(known.account_expires);
                if control & UAC_DISABLED != 0 {
                    State::Disabled
                } else if expires != 0 && expires != NEVER && time_text::from_filetime(expires) <= now {
                    State::AccountExpired
                } else if known
                    .logon_hours
                    .and_then(|it| entry.first(it))
                    .is_some_and(|hours| !hour_allowed(hours, now))
                {
                    State::BadHours
                } else if control & UAC_NEVER_EXPIRES == 0 && integer(known.pwd_last_set) == 0 {
                    State::MustChange
                } else if reader.password_expired(id, entry, control) {
                    State::PasswordExpired
                } else {
                    State::Open
                }
            }
            Vendor::OpenLdap => {
                let permanent = known.pwd_locked.and_then(|it| entry.first(it)) == Some(b"000001010000Z");
                match () {
                    () if permanent => State::Locked,
                    () if past(known.pwd_end) => State::AccountExpired,
                    () if is_true(known.pwd_reset) => State::MustChange,
                    () if aged(known.pwd_changed.and_then(|it| entry.first(it)), policy, now) => {
                        State::PasswordExpired
                    }
                    () => State::Open,
                }
            }
            Vendor::Ds389 | Vendor::Oracle => match () {
                () if is_true(known.ns_account_lock) => State::Disabled,
                () if is_true(known.pwd_reset) => State::MustChange,
                () if past(known.password_expiration) => State::PasswordExpired,
                () => State::Open,
            },
            Vendor::EDirectory => match () {
                () if is_true(known.login_disabled) => State::Disabled,
                () if past(known.login_expiration) => State::AccountExpired,
                () if known
                    .login_time_map
                    .and_then(|it| entry.first(it))
                    .is_some_and(|map| map.iter().all(|it| *it == 0)) =>
                {
                    State::BadHours
                }
                () if past(known.password_expiration) => State::PasswordExpired,
                () => State::Open,
            },
            Vendor::Domino => State::Open,
        }
    }

    fn bind_failure(&self, data: &str) -> LdapFailure {
        LdapFailure::new(
            ResultCode::INVALID_CREDENTIALS,
            self.shared.text("bind_failed", &[("data", data), ("dn", "user")]),
        )
    }

    /// The vendor's words for an account that may not sign in although, or whatever, the password was.
    fn refusal(&self, state: State, dn: &str) -> LdapFailure {
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

impl Reader<'_> {
    pub(crate) fn is_locked(&self, entry: &Entry) -> bool {
        let policy = self.shared.accounts();
        self.lock_holds(entry, &policy, self.shared.clock.now_ms())
    }

    fn locked_at(&self, _id: EntryId, entry: &Entry, policy: &AccountPolicy, now: i64) -> bool {
        self.lock_holds(entry, policy, now)
    }

    fn lock_holds(&self, entry: &Entry, policy: &AccountPolicy, now: i64) -> bool {
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

    pub(crate) fn password_expired(&self, _id: EntryId, entry: &Entry, control: i64) -> bool {
        let max_ms = self.shared.accounts().password_age_max_secs as i64 * 1000;
        let set = self.shared.known.pwd_last_set.and_then(|it| entry.integer(it)).unwrap_or_default();
        let counts = max_ms > 0 && control & (UAC_NEVER_EXPIRES | 0x3800) == 0;
        counts && (set == 0 || self.shared.clock.now_ms() - time_text::from_filetime(set) > max_ms)
    }

    pub(crate) fn logon_value(
        &self,
        id: EntryId,
        node: &super::tree::Node,
        what: super::schema::Computed,
        emit: &mut dyn FnMut(&[u8]),
    ) {
        use super::schema::Computed;
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

impl Shared {
    /// What is kept of a password that a client sets, with the one before it while the grace lasts.
    pub(crate) fn new_password(&self, secret: &[u8], before: Option<Vec<u8>>) -> StoredPassword {
        let grace_ms = self.accounts().old_password_grace_secs as i64 * 1000;
        let previous = before.filter(|_| grace_ms > 0).map(|old| (old, self.clock.now_ms() + grace_ms));
        StoredPassword { secret: secret.to_vec(), previous }
    }
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

/// Compares without telling by time how much was right.
fn same(expected: &[u8], given: &[u8]) -> bool {
    aws_lc_rs::constant_time::verify_slices_are_equal(expected, given).is_ok()
}

/// Plain, or RFC 2307 userPassword schemes.
pub(crate) fn verify(stored: &[u8], given: &[u8]) -> bool {
    use aws_lc_rs::digest;
    use base64::Engine as _;
    let scheme =
        |name: &str| stored.get(..name.len()).filter(|head| head.eq_ignore_ascii_case(name.as_bytes()));
    let decode = |name: &str| {
        base64::engine::general_purpose::STANDARD.decode(&stored[name.len()..]).unwrap_or_default()
    };
    if scheme("{SSHA}").is_some() || scheme("{SHA}").is_some() {
        let bytes = decode(if scheme("{SSHA}").is_some() { "{SSHA}" } else { "{SHA}" });
        let Some((hash, salt)) = bytes.split_at_checked(20) else { return false };
        let mut context = digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY);
        context.update(given);
        context.update(salt);
        return same(hash, context.finish().as_ref());
    }
    match scheme("{CLEARTEXT}") {
        Some(head) => same(&stored[head.len()..], given),
        None => same(stored, given),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schemes_of_rfc_2307() {
        // SHA-1 of "secret" with the salt "salt", computed with another tool.
        assert!(verify(b"plain", b"plain") && !verify(b"plain", b"Plain"));
        assert!(verify(b"{cleartext}x", b"x"));
        assert!(verify(b"{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=", b"secret"));
        assert!(!verify(b"{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=", b"Secret"));
        assert!(!verify(b"{SSHA}AAAA", b"secret"), "too short to hold a hash");
    }

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

    #[test]
    fn initial_passwords_are_found_by_number() {
        let mut passwords = InitialPasswords::new(10, "boss".to_owned());
        passwords.push_person("one");
        passwords.push_person("two");
        passwords.insert(EntryId(3), "svc".to_owned());
        let found = [9, 10, 11, 12, 3].map(|id| passwords.of(EntryId(id)));
        assert_eq!(found, [None, Some("one"), Some("two"), None, Some("svc")]);
    }
}
