//! Orders from the cloud: which authority they are for, what their names are, and how trouble is waited out. One at a time
//! is worked on for each request ([`Work`]).

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use causeway_protocol::certificate::{IssueOrder, Profile, RevokeOrder, Revoked, Stage};
use serde_json::json;

use super::challenges::Challenges;
use super::config::Settings;
use super::error::CertError;
use super::keys::Keyring;
use super::sealing::Sealing;
use super::state::{Row, Standing, Store};
use super::template::Names;
use super::work::{Progress, Timing, Work, digest_of};
use super::{limits, lookup, rules, template};
use crate::ca::settings::CaSettings;
use crate::ca::{Authority, CaError, Challenge, Revocation};
use crate::directory::{Directory, Net};
use crate::modules::{ModuleContext, Outcome};
use crate::vault::Vault;

/// An authority with its settings.
pub(super) struct Office {
    pub(super) name: String,
    pub(super) settings: CaSettings,
    pub(super) authority: Arc<dyn Authority>,
}

impl Office {
    pub(super) fn error(&self, source: CaError) -> CertError {
        CertError::Ca { authority: self.name.clone(), source }
    }

    pub(super) async fn challenge(&self, net: &Net) -> Result<Option<Challenge>, CertError> {
        self.authority.challenge(net).await.map_err(|error| self.error(error))
    }
}

/// Carries orders to authorities.
pub(super) struct Relay {
    pub(super) settings: Settings,
    pub(super) offices: BTreeMap<String, Arc<Office>>,
    pub(super) directory: Option<Arc<Directory>>,
    pub(super) vault: Vault,
    pub(super) keyring: Arc<Keyring>,
    pub(super) challenges: Challenges,
    pub(super) sealing: Sealing,
    /// One order is worked on by one at a time, whichever action it came by.
    turns: Mutex<HashMap<String, Weak<tokio::sync::Mutex<()>>>>,
    /// Failures in a row, by request.
    tries: Mutex<HashMap<String, u32>>,
}

/// What an order is about, worked out.
pub(super) struct Plan {
    pub(super) profile: Profile,
    pub(super) names: Names,
    pub(super) office: Arc<Office>,
    pub(super) values: BTreeMap<String, String>,
}

impl Relay {
    pub(super) fn new(
        settings: Settings,
        offices: impl IntoIterator<Item = Office>,
        directory: Option<Arc<Directory>>,
        vault: Vault,
    ) -> Self {
        let offices = offices.into_iter().map(|office| (office.name.clone(), Arc::new(office))).collect();
        Self {
            settings,
            offices,
            directory,
            sealing: Sealing::new(vault.clone()),
            vault,
            keyring: Arc::default(),
            challenges: Challenges::default(),
            turns: Mutex::default(),
            tries: Mutex::default(),
        }
    }

    /// Gets the certificate of an order, or says how far it is.
    pub(super) async fn issue(&self, cx: &ModuleContext, order: &IssueOrder) -> Outcome {
        let turn = self.turn(&order.request);
        let _turn = turn.lock().await;
        match self.issued(cx, order).await {
            Ok(Progress::Issued(issued)) => {
                self.tries().remove(&order.request);
                self.challenges.forget(&order.request);
                Outcome::Success(json!(issued))
            }
            Ok(Progress::Waits { next_check, detail }) => {
                self.tries().remove(&order.request);
                let result = json!({ "stage": Stage::AwaitingApproval, "detail": detail });
                Outcome::Pending { result, next_check }
            }
            Err(error) => self.failed(cx, &order.request, &error),
        }
    }

    /// Ends a certificate, where the authority can be told.
    pub(super) async fn revoke(&self, cx: &ModuleContext, order: &RevokeOrder) -> Outcome {
        let id = format!("revoke {} {}", order.id.issuer, order.id.serial);
        let revoked = async {
            let office = self.office(&order.authority)?;
            let net = Net::from(cx);
            office.authority.revoke(&net, &order.id, order.reason).await.map_err(|error| office.error(error))
        };
        match revoked.await {
            Ok(done) => {
                self.tries().remove(&id);
                let (revoked, note) = match done {
                    Revocation::Done => (true, "the authority says that it is revoked".to_owned()),
                    Revocation::Impossible(who) => (false, who),
                };
                Outcome::Success(json!(Revoked { id: order.id.clone(), revoked, note }))
            }
            Err(error) => self.failed(cx, &id, &error),
        }
    }

    /// What an order or a device's question is about: names filled in and found harmless.
    pub(super) async fn plan(
        &self,
        cx: &ModuleContext,
        profile: &str,
        version: u64,
        variables: &BTreeMap<String, String>,
    ) -> Result<Plan, CertError> {
        let profile = match self.settings.profile(profile) {
            Some(known) if known.version == version => known.clone(),
            Some(known) if known.version < version => {
                let profile = profile.to_owned();
                return Err(CertError::ProfileBehind { profile, ordered: version, known: known.version });
            }
            Some(known) => {
                let profile = profile.to_owned();
                return Err(CertError::ProfileChanged { profile, ordered: version, known: known.version });
            }
            None => return Err(CertError::NoProfile { profile: profile.to_owned() }),
        };
        let office = self.office(&profile.authority)?;
        let values = self.values(cx, &profile, variables).await?;
        let names = template::fill(&profile, &values)?;
        if let Some(name) = rules::privileged(&names, &self.settings.privileged_names) {
            return Err(CertError::Privileged { name });
        }
        Ok(Plan { profile, names, office, values })
    }

    pub(super) fn office(&self, name: &str) -> Result<Arc<Office>, CertError> {
        if self.settings.authorities_forbidden.contains(name) {
            return Err(CertError::ForbiddenHere { authority: name.to_owned() });
        }
        let office = self.offices.get(name).cloned();
        office.ok_or_else(|| CertError::NoAuthority { authority: name.to_owned() })
    }

    async fn values(
        &self,
        cx: &ModuleContext,
        profile: &Profile,
        variables: &BTreeMap<String, String>,
    ) -> Result<BTreeMap<String, String>, CertError> {
        let mut values = variables.clone();
        let needed = template::variables(profile);
        let Some(directory) = &self.directory else { return Ok(values) };
        if !lookup::needs(&needed, variables) {
            return Ok(values);
        }
        for name in lookup::OF_DIRECTORY {
            values.remove(*name);
        }
        for (name, value) in lookup::values(directory, &Net::from(cx), variables).await? {
            if lookup::OF_DIRECTORY.contains(&name.as_str()) {
                values.insert(name, value);
            } else {
                values.entry(name).or_insert(value);
            }
        }
        Ok(values)
    }

    async fn issued(&self, cx: &ModuleContext, order: &IssueOrder) -> Result<Progress, CertError> {
        let mut timing = Timing::new(cx.clock);
        let digest = digest_of(order);
        let store = Store::new(cx.storage.clone());
        match store.find(&order.request).await? {
            Some(row) if row.digest != digest => {
                Err(CertError::OtherOrder { request: order.request.clone() })
            }
            Some(Row { standing: Standing::Done(issued), .. }) => Ok(Progress::Issued(issued)),
            Some(Row { since_ms, standing: Standing::Open(open), .. }) => {
                let work = Work { relay: self, cx, order, store, digest, since_ms };
                match work.ask(open, &mut timing).await? {
                    Some(progress) => Ok(progress),
                    None => work.hand_in(&mut timing).await,
                }
            }
            None => {
                let since_ms = cx.clock.now_ms();
                Work { relay: self, cx, order, store, digest, since_ms }.hand_in(&mut timing).await
            }
        }
    }

    /// Trouble: over, or to be tried again in a while.
    fn failed(&self, cx: &ModuleContext, id: &str, error: &CertError) -> Outcome {
        let report = error.report();
        let tries = self.tries().get(id).copied().unwrap_or_default();
        let Some(wait) = error.wait(tries) else {
            self.tries().remove(id);
            self.challenges.forget(id);
            tracing::warn!(request = id, code = report.code, error = report.detail, "An order failed");
            return Outcome::Failure(report);
        };
        let mut counts = self.tries();
        if counts.len() < limits::TRIES_KEPT || counts.contains_key(id) {
            counts.insert(id.to_owned(), tries.saturating_add(1));
        }
        drop(counts);
        tracing::info!(
            request = id,
            code = report.code,
            error = report.detail,
            ?wait,
            "An order is tried again"
        );
        let result = json!({
            "stage": Stage::Retrying,
            "code": report.code,
            "detail": report.detail,
            "remedy": report.remedy,
        });
        // A quarter more or less, so that orders that failed together do not come back together.
        let share = 768 + u32::try_from(cx.random.next_u64() % 512).unwrap_or_default();
        Outcome::Pending { result, next_check: wait * share / 1_024 }
    }

    fn turn(&self, request: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(turn) = turns.get(request).and_then(Weak::upgrade) {
            return turn;
        }
        turns.retain(|_, turn| turn.strong_count() > 0);
        let turn = Arc::default();
        turns.insert(request.to_owned(), Arc::downgrade(&turn));
        turn
    }

    fn tries(&self) -> MutexGuard<'_, HashMap<String, u32>> {
        self.tries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
