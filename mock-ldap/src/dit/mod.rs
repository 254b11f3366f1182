//! The directory itself: pure state, no sockets. One organisation, one or more servers that replicate.

mod account;
mod build;
mod changelog;
mod commit;
mod condition;
mod conflict;
mod cookie;
mod csn;
mod dirsync;
mod encode;
mod entry;
mod index;
pub(crate) mod limits;
mod log;
mod made_up;
pub(crate) mod matching;
mod reader;
mod replica;
mod replication;
mod root_dse;
pub(crate) mod schema;
mod search;
mod shared;
mod stamps;
mod syncrepl;
mod time_text;
mod tlv;
mod tombstone;
mod tree;
mod types;
mod write;

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use causeway_mock_kit::Clock;
use causeway_mock_kit::world::Company;

pub use replica::Replica;
pub use types::*;

use crate::personality::Personality;
use matching::Folding;
use shared::{Known, Origin, Shared};

/// One organisation's directory: a personality and the servers ("dc1", "dc2", ...) that hold its copies.
pub struct Directory {
    shared: Arc<Shared>,
    servers: Vec<Arc<Replica>>,
    service: ServiceLogin,
}

impl Directory {
    /// Builds the company into the personality's shape. The same specification, company and time give the same
    /// directory. At least one server is made, `dc1`, when none is named.
    pub fn build(spec: &DirectorySpec, company: &Company, clock: Clock) -> Self {
        let mut spec = spec.clone();
        if spec.servers.is_empty() {
            spec.servers.push(ServerSpec { name: "dc1".to_owned(), lag_ms: Some(0) });
        }
        let schema = Arc::new(spec.personality.load_schema());
        let folding = if spec.personality.accent_insensitive { Folding::Accents } else { Folding::Case };
        let now_ms = clock.now_ms();
        let invocations: Vec<[u8; 16]> = (0..spec.servers.len())
            .map(|server| shared::uuid_from(spec.seed ^ 0x1dc, server as u64))
            .collect();
        let built = build::build(&spec, company, &schema, folding, now_ms, &invocations);
        // New stamps must come after those of the build, whatever the clock says.
        let newest_ms = built.tree.log.contexts().into_iter().map(|csn| csn.at_ms).max().unwrap_or(now_ms);
        let origins = invocations.iter().enumerate();
        let origins =
            origins.map(|(server, &invocation)| Origin { invocation, server, retired: false }).collect();
        let shared = Arc::new(Shared {
            known: Known::resolve(&schema),
            schema,
            folding,
            clock,
            naming: built.naming,
            landmarks: built.landmarks,
            may_replicate: AtomicBool::new(spec.accounts.service_may_replicate),
            accounts: RwLock::new(spec.accounts.clone()),
            origins: RwLock::new(origins),
            domain_sid: shared::domain_sid(spec.seed),
            passwords: built.passwords,
            seed: spec.seed,
            server_names: spec.servers.iter().map(|server| server.name.clone()).collect(),
            next_id: AtomicU32::new(built.tree.next_id()),
            next_rid: AtomicU32::new(built.next_rid),
            next_uuid: AtomicU64::new(1),
            last_stamp: Mutex::new((newest_ms.max(now_ms), 0)),
            personality: spec.personality,
        });
        let copies: Vec<_> = (1..spec.servers.len()).map(|server| built.tree.copy_for(server)).collect();
        let trees = std::iter::once(built.tree).chain(copies);
        let servers: Vec<Arc<Replica>> = trees
            .zip(&spec.servers)
            .enumerate()
            .map(|(index, (tree, server))| {
                Arc::new(Replica::new(server.name.clone(), index, shared.clone(), tree, server.lag_ms))
            })
            .collect();
        replication::introduce(&servers);
        Self { shared, servers, service: built.service }
    }

    pub fn personality(&self) -> &Personality {
        &self.shared.personality
    }

    pub fn servers(&self) -> &[Arc<Replica>] {
        &self.servers
    }

    pub fn server(&self, name: &str) -> Option<Arc<Replica>> {
        self.servers.iter().find(|server| server.name() == name).cloned()
    }

    /// Suffix that holds the people: `DC=acme,DC=example`.
    pub fn base_dn(&self) -> &str {
        &self.shared.naming.base
    }

    /// DNS domain: `acme.example`.
    pub fn domain(&self) -> &str {
        &self.shared.naming.domain
    }

    /// NetBIOS domain name: `ACME`.
    pub fn netbios(&self) -> &str {
        &self.shared.naming.netbios
    }

    /// Delivers every change everywhere, whatever the lag.
    pub fn replicate_now(&self) {
        for _ in 0..limits::REPLICATION_ROUNDS_MAX {
            // Every server has its turn: what one settles is news for the others.
            if self.servers.iter().filter(|server| server.pull_all(true)).count() == 0 {
                break;
            }
        }
    }

    /// Delivers what is due. Returns the time, in milliseconds of the directory's clock, at which the next change
    /// becomes due; `None` when nothing waits for time to pass.
    pub fn replicate_due(&self) -> Option<i64> {
        self.servers.iter().for_each(|server| server.catch_up());
        self.servers.iter().filter_map(|server| server.next_due_ms()).min()
    }

    /// How long changes made elsewhere take to arrive at a server; `None`: only `replicate_now` delivers. False when
    /// there is no such server.
    pub fn set_lag(&self, server: &str, lag: Option<Duration>) -> bool {
        let Some(server) = self.server(server) else { return false };
        server.set_lag(lag.map(|lag| u64::try_from(lag.as_millis()).unwrap_or(u64::MAX)));
        true
    }

    /// Whether the service account holds DS-Replication-Get-Changes.
    pub fn set_service_may_replicate(&self, allowed: bool) {
        self.shared.may_replicate.store(allowed, Ordering::Relaxed);
    }

    pub fn account_policy(&self) -> AccountPolicy {
        self.shared.accounts()
    }

    /// Changes the rules for binds from now on. The attributes that describe the policy in the directory stay.
    pub fn set_account_policy(&self, policy: AccountPolicy) {
        self.set_service_may_replicate(policy.service_may_replicate);
        *self.shared.accounts.write().unwrap_or_else(PoisonError::into_inner) = policy;
    }

    /// Names and password of the service account.
    pub fn service_account(&self) -> ServiceLogin {
        self.service.clone()
    }

    /// DN of the administrator without entry (`cn=Directory Manager`); empty where there is none. Its password is the
    /// service account's.
    pub fn manager_dn(&self) -> &str {
        if self.shared.personality.manager_dn.is_some() { &self.shared.naming.manager } else { "" }
    }
}

#[cfg(test)]
mod tests;
