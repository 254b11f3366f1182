//! The directory itself: pure state, no sockets. One organisation, one or more servers that replicate.

mod encode;
mod types;

use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use causeway_mock_kit::Clock;
pub use types::*;

use crate::filter::Filter;
use crate::personality::Personality;

/// One organisation's directory: a personality and the servers ("dc1", "dc2", ...) that hold its copies.
pub struct Directory {
    spec: DirectorySpec,
    servers: Vec<Arc<Replica>>,
}

impl Directory {
    pub fn build(spec: &DirectorySpec, people: &People, clock: Clock) -> Self {
        let _ = (people, clock);
        Self { spec: spec.clone(), servers: Vec::new() }
    }
    pub fn personality(&self) -> &Personality {
        &self.spec.personality
    }
    pub fn servers(&self) -> &[Arc<Replica>] {
        &self.servers
    }
    pub fn server(&self, name: &str) -> Option<Arc<Replica>> {
        self.servers.iter().find(|server| server.name() == name).cloned()
    }
    /// Delivers every change everywhere, whatever the lag.
    pub fn replicate_now(&self) {}
    /// Delivers what is due. Returns the clock's time at which the next change becomes due.
    pub fn replicate_due(&self) -> Option<i64> {
        None
    }
    /// `None`: only `replicate_now` delivers. False when there is no such server.
    pub fn set_lag(&self, server: &str, lag: Option<Duration>) -> bool {
        let _ = (server, lag);
        false
    }
    /// Whether the service account holds DS-Replication-Get-Changes.
    pub fn set_service_may_replicate(&self, allowed: bool) {
        let _ = allowed;
    }
    pub fn account_policy(&self) -> AccountPolicy {
        self.spec.accounts.clone()
    }
    pub fn set_account_policy(&self, policy: AccountPolicy) {
        let _ = policy;
    }
    /// DN, user principal name, down-level name and password of the service account.
    pub fn service_account(&self) -> ServiceLogin {
        ServiceLogin { dn: String::new(), upn: String::new(), user: String::new(), password: String::new() }
    }
}

/// What a client needs to sign in as the service account.
#[derive(Clone, PartialEq, Eq)]
pub struct ServiceLogin {
    pub dn: String,
    pub upn: String,
    /// `ACME\svc-causeway`; the DN where the personality has no such form.
    pub user: String,
    pub password: String,
}

/// One server's copy. Locks are held only inside a call.
pub struct Replica {
    name: String,
}

impl Replica {
    pub fn name(&self) -> &str {
        &self.name
    }
    pub fn search(&self, plan: &SearchPlan<'_>) -> Result<Matches, LdapFailure> {
        let _ = plan;
        Err(soon())
    }
    /// Appends LDAPDN and PartialAttributeList (the content of SearchResultEntry, without its tag and length).
    /// False when the entry is gone or may not be seen; nothing is written then.
    pub fn encode_entry(&self, id: EntryId, selection: &Selection, out: &mut BytesMut) -> bool {
        let _ = (id, selection, out);
        false
    }
    /// An error the selection causes before any entry is read: tokenGroups over a subtree, a range beyond the end.
    pub fn check_selection(&self, id: EntryId, selection: &Selection) -> Result<(), LdapFailure> {
        let _ = (id, selection);
        Ok(())
    }
    /// Same layout as `encode_entry`, for the empty DN. `sasl_external` adds what TLS makes available.
    pub fn root_dse(&self, selection: &Selection, tls: bool, out: &mut BytesMut) {
        let _ = (selection, tls, out);
    }
    /// Whether a base-scope search of the empty DN with this filter shows the rootDSE.
    pub fn root_dse_matches(&self, filter: &Filter) -> bool {
        let _ = filter;
        true
    }
    pub fn dn_of(&self, id: EntryId) -> Option<String> {
        let _ = id;
        None
    }
    /// Values of one attribute, for sort keys and virtual lists.
    pub fn values(&self, id: EntryId, attribute: &str) -> Vec<Vec<u8>> {
        let _ = (id, attribute);
        Vec::new()
    }
    /// The key under which values of this attribute sort (case folded, numbers padded); `None` sorts last.
    pub fn sort_key(&self, id: EntryId, attribute: &str) -> Option<Vec<u8>> {
        let _ = (id, attribute);
        None
    }
    pub fn compare(&self, dn: &[u8], attribute: &str, value: &[u8], who: &Identity) -> Result<bool, LdapFailure> {
        let _ = (dn, attribute, value, who);
        Err(soon())
    }
    /// `secure`: the connection is protected; Active Directory takes passwords only then.
    pub fn write(&self, op: WriteOp, who: &Identity, secure: bool) -> Result<WriteDone, LdapFailure> {
        let _ = (op, who, secure);
        Err(soon())
    }
    /// RFC 3062. Returns the generated password when `new` is none.
    pub fn change_password(
        &self,
        who: &Identity,
        user: Option<&[u8]>,
        old: Option<&[u8]>,
        new: Option<&[u8]>,
        secure: bool,
    ) -> Result<Option<String>, LdapFailure> {
        let _ = (who, user, old, new, secure);
        Err(soon())
    }
    /// Simple bind with a non-empty name, in every name form of the personality.
    pub fn authenticate(&self, name: &[u8], password: &[u8]) -> Result<Bound, LdapFailure> {
        let _ = (name, password);
        Err(soon())
    }
    /// The account an NTLM or Sicily exchange names, and its password, or `None` when unknown.
    pub fn ntlm_account(&self, domain: &str, user: &str) -> Option<(Identity, String)> {
        let _ = (domain, user);
        None
    }
    /// The verdict after a proof made elsewhere (NTLM): counts failures and checks the account's state.
    pub fn account_verdict(&self, who: &Identity, proof_ok: bool) -> Result<Bound, LdapFailure> {
        let _ = (who, proof_ok);
        Err(soon())
    }
    /// The answer to a password for an account that does not exist.
    pub fn unknown_account(&self) -> LdapFailure {
        soon()
    }
    /// SASL EXTERNAL: the object whose DN or user principal name a client certificate carries.
    pub fn identity_of_certificate(&self, subject_dn: &str, upn: Option<&str>) -> Option<Identity> {
        let _ = (subject_dn, upn);
        None
    }
    /// Authorization identity of RFC 4532: `u:ACME\asmith` on Active Directory, `dn:...` elsewhere.
    pub fn who_am_i(&self, who: &Identity) -> String {
        let _ = who;
        String::new()
    }
    pub fn dirsync(&self, request: &DirSyncRequest<'_>) -> Result<DirSyncPage, LdapFailure> {
        let _ = request;
        Err(soon())
    }
    pub fn syncrepl(&self, request: &SyncRequest<'_>) -> Result<SyncBatch, LdapFailure> {
        let _ = request;
        Err(soon())
    }
    /// Wakes with the number of the last change after each change this server sees.
    pub fn subscribe(&self) -> tokio::sync::watch::Receiver<u64> {
        tokio::sync::watch::channel(0).1
    }
    /// What happened after change `number` to objects in scope.
    pub fn changes_since(&self, number: u64, plan: &SearchPlan<'_>) -> Result<Changes, LdapFailure> {
        let _ = (number, plan);
        Err(soon())
    }
    /// Simulates a restore from backup: cursors of the old invocation are void.
    pub fn set_invocation_id(&self, invocation: [u8; 16]) {
        let _ = invocation;
    }
    pub fn invocation_id(&self) -> [u8; 16] {
        [0; 16]
    }
    pub fn highest_usn(&self) -> u64 {
        0
    }
    /// What the rootDSE says in isSynchronized; a test may make a stale server honest.
    pub fn set_synchronized(&self, synchronized: bool) {
        let _ = synchronized;
    }
}

fn soon() -> LdapFailure {
    LdapFailure::new(ResultCode::UNAVAILABLE, "not built yet")
}
