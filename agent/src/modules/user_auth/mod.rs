//! Password checks: someone types a name and a password into a device far away, and the company's own directory says
//! whether they are right.
//!
//! What it promises: one bind per attempt; no empty password on the wire; no password anywhere but in memory, for as
//! long as the bind takes; no account locked by a device that repeats an old password.

mod attempts;
mod bind;
pub(crate) mod check;
mod config;
mod error;
mod expiring;
#[cfg(test)]
mod tests;
mod username;
mod verdict;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use causeway_protocol::Secret;
use causeway_protocol::action::{Action, ErrorReport};
use causeway_protocol::auth::{AuthOutcome, AuthReply, AuthRequest, AuthUser, MODULE, REQUEST};
use causeway_protocol::channel::payload::Request;
use causeway_protocol::health::ModuleState;
use causeway_protocol::limits::{PASSWORD_MAX_BYTES, USERNAME_MAX_BYTES};
use futures_util::future::BoxFuture;
use serde_json::{Value, json};
use tokio::time::Instant;

use self::attempts::{Attempts, Cap, Turn};
use self::bind::{Ended, Looked, Profile};
use self::config::{Lookup, Settings};
pub use self::error::AuthError;
use self::expiring::ExpiringMap;
use self::username::Typed;
use super::{
    CheckResult, ConfigError, LocalExample, Module, ModuleContext, ModuleError, ModuleFactory,
    ModuleSettings, Outcome,
};
use crate::chain::Chain;
use crate::directory::{Directory, Net};

/// Names kept from lookups.
const NAMES_MAX: usize = 20_000;

/// Kept back of the time the cloud gives, for the way there.
const MARGIN: Duration = Duration::from_millis(200);

/// Makes user_auth.
pub struct Factory;

impl ModuleFactory for Factory {
    fn kind(&self) -> &'static str {
        MODULE
    }

    fn example(&self) -> Value {
        Settings::example()
    }

    fn defaults(&self) -> Value {
        json!(Settings::default())
    }

    fn example_local(&self) -> LocalExample {
        super::example_directory()
    }

    fn build(&self, settings: &ModuleSettings) -> Result<Arc<dyn Module>, ConfigError> {
        UserAuth::new(settings).map(|module| Arc::new(module) as Arc<dyn Module>)
    }
}

/// The module.
pub struct UserAuth {
    shared: Arc<Shared>,
}

/// What attempts share.
struct Shared {
    settings: Settings,
    directory: Arc<Directory>,
    attempts: Attempts,
    names: Mutex<ExpiringMap<String, Found>>,
    profile: Mutex<Option<Arc<Profile>>>,
    binds: AtomicU64,
    requests: AtomicU64,
}

/// A user found by name.
#[derive(Clone)]
struct Found {
    dn: String,
    user: AuthUser,
}

/// How a bind as a found user ended.
enum Tried {
    Ended(Ended),
    /// The name has passed to another object since it was looked up.
    SomeoneElse(Found),
}

impl UserAuth {
    /// From settings; opens nothing.
    ///
    /// # Errors
    /// Names the offending key.
    pub fn new(settings: &ModuleSettings) -> Result<Self, ConfigError> {
        let read = Settings::read(settings)?;
        let directory = Arc::new(Directory::new(&read.directory, settings)?);
        let shared = Shared {
            attempts: Attempts::new(Duration::from_secs(read.refused_cache_secs)),
            names: Mutex::new(ExpiringMap::new(Duration::from_secs(read.name_cache_secs), NAMES_MAX)),
            profile: Mutex::new(None),
            binds: AtomicU64::new(0),
            requests: AtomicU64::new(0),
            settings: read,
            directory,
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Checks one pair within `ttl`. Never fails: without a verdict the outcome is `unavailable`.
    pub async fn authenticate(&self, cx: &ModuleContext, request: AuthRequest, ttl: Duration) -> AuthReply {
        let shared = &self.shared;
        shared.requests.fetch_add(1, Ordering::Relaxed);
        // An empty password would turn the bind into an anonymous one that succeeds (RFC 4513 5.1.2).
        if request.password.is_empty() || request.username.trim().is_empty() {
            return Ended::plain(AuthOutcome::BadCredentials).reply();
        }
        let net = Net::from(cx);
        let now = net.clock.now();
        let until = now + ttl.saturating_sub(MARGIN);
        let pair = shared.attempts.pair(&request.username.to_lowercase(), request.password.expose());
        let mut verdict = match shared.attempts.enter(pair, now) {
            Turn::Refused => return Ended::plain(AuthOutcome::BadCredentials).reply(),
            Turn::Follow(verdict) => verdict,
            Turn::Lead(sender) => {
                let verdict = sender.subscribe();
                let shared = shared.clone();
                // On its own, so that an asker who goes away does not cut a bind whose outcome must be remembered.
                tokio::spawn(async move {
                    let ended = shared.attempt(&net, &request, until).await;
                    if ended.outcome == AuthOutcome::BadCredentials {
                        shared.attempts.refuse(pair, net.clock.now());
                    }
                    shared.attempts.leave(pair);
                    sender.send_replace(Some(ended.reply()));
                });
                verdict
            }
        };
        let waited = tokio::time::timeout_at(until, verdict.wait_for(Option::is_some)).await;
        match waited {
            Ok(Ok(reply)) => reply.clone().expect("waited for it"),
            Ok(Err(_)) => Ended::unavailable("the attempt ended without a verdict").reply(),
            Err(_) => Ended::unavailable("the directory did not answer in time").reply(),
        }
    }

    /// Binds made with users' passwords since the start.
    pub fn binds(&self) -> u64 {
        self.shared.binds.load(Ordering::Relaxed)
    }
}

impl Shared {
    async fn attempt(&self, net: &Net, request: &AuthRequest, until: Instant) -> Ended {
        let typed = Typed::read(&request.username, self.settings.accept_dn);
        if let Lookup::Direct { template } = &self.settings.lookup {
            let name = bind::from_template(template, typed.login());
            return self
                .guarded(net, &name.to_lowercase(), &request.password, async || {
                    self.bind_once(net, &name, &request.password, until).await
                })
                .await;
        }
        let key = request.username.to_lowercase();
        let kept = self.names().get(&key, net.clock.now()).cloned();
        let was_kept = kept.is_some();
        let found = match kept {
            Some(found) => found,
            None => match self.find(net, &typed).await {
                Ok(found) => found,
                Err(ended) => return ended,
            },
        };
        match self.try_found(net, &typed, &found, was_kept, &request.password, until).await {
            Tried::Ended(ended) => ended,
            Tried::SomeoneElse(found) => {
                match self.try_found(net, &typed, &found, false, &request.password, until).await {
                    Tried::Ended(ended) => ended,
                    Tried::SomeoneElse(_) => Ended::unavailable("the name passes from account to account"),
                }
            }
        }
    }

    async fn find(&self, net: &Net, typed: &Typed<'_>) -> Result<Found, Ended> {
        match self.look_up(net, typed).await {
            Ok(Looked::User(found)) => {
                self.names().insert(typed.text().to_lowercase(), found.clone(), net.clock.now());
                Ok(found)
            }
            Ok(Looked::Nobody) => Err(Ended::plain(AuthOutcome::BadCredentials)),
            Ok(Looked::Several(count)) => Err(Ended {
                detail: Some(format!("{count} accounts answer to this name; none was tried")),
                ..Ended::plain(AuthOutcome::BadCredentials)
            }),
            Err(error) => Err(Ended::unavailable(Chain(&error).to_string())),
        }
    }

    async fn try_found(
        &self,
        net: &Net,
        typed: &Typed<'_>,
        found: &Found,
        was_kept: bool,
        password: &Secret,
        until: Instant,
    ) -> Tried {
        let identity = if found.user.id.is_empty() { &found.dn } else { &found.user.id };
        let (mut user, mut someone_else) = (found.user.clone(), None);
        let mut ended = self
            .guarded(net, identity, password, async || {
                let ended = self.bind_once(net, &found.dn, password, until).await;
                if ended.outcome != AuthOutcome::BadCredentials || !was_kept {
                    return ended;
                }
                // The kept name may be one the object no longer has; then the bind asked about nobody and counted
                // nowhere.
                match self.find(net, typed).await {
                    Ok(now) if now.dn == found.dn => ended,
                    Ok(now) if now.user.id == found.user.id => {
                        user = now.user;
                        self.bind_once(net, &now.dn, password, until).await
                    }
                    Ok(now) => {
                        someone_else = Some(now);
                        Ended::unavailable("the name belongs to another account now")
                    }
                    Err(_) => ended,
                }
            })
            .await;
        if let Some(found) = someone_else {
            return Tried::SomeoneElse(found);
        }
        // Who it is may be told only to someone who knew the password.
        let knew = matches!(
            ended.outcome,
            AuthOutcome::Ok
                | AuthOutcome::PasswordExpired
                | AuthOutcome::MustChange
                | AuthOutcome::Disabled
                | AuthOutcome::AccountExpired
                | AuthOutcome::Restricted
        );
        if knew {
            ended.user = Some(user);
        }
        Tried::Ended(ended)
    }

    /// Lets one attempt of a user through at a time, and none that was refused a moment ago or that could lock the
    /// account.
    async fn guarded(
        &self,
        net: &Net,
        identity: &str,
        password: &Secret,
        bind: impl AsyncFnOnce() -> Ended,
    ) -> Ended {
        let gate = self.attempts.user(identity);
        let _turn = gate.lock().await;
        let pair = self.attempts.pair(identity, password.expose());
        let now = net.clock.now();
        if self.attempts.was_refused(pair, now) {
            return Ended::plain(AuthOutcome::BadCredentials);
        }
        if self.attempts.is_capped(identity, self.cap(), now) {
            return Ended {
                detail: Some(
                    "too many wrong passwords; the directory is not asked, so that the account is not locked"
                        .into(),
                ),
                ..Ended::plain(AuthOutcome::Locked)
            };
        }
        let ended = bind().await;
        let now = net.clock.now();
        match ended.outcome {
            AuthOutcome::BadCredentials => {
                self.attempts.refuse(pair, now);
                self.attempts.failed(identity, now);
            }
            AuthOutcome::Ok => self.attempts.succeeded(identity),
            _ => {}
        }
        ended
    }

    fn cap(&self) -> Option<Cap> {
        const WINDOW: Duration = Duration::from_secs(1_800);
        let lockout = self.known_profile().and_then(|profile| profile.lockout);
        let of_domain = lockout.filter(|lockout| lockout.threshold > 0);
        let failures_max =
            self.settings.failures_max.or_else(|| of_domain.map(|l| (l.threshold - 1).max(1)))?;
        let window = self
            .settings
            .failure_window_secs
            .map(Duration::from_secs)
            .or_else(|| of_domain.map(|lockout| lockout.window).filter(|window| !window.is_zero()))
            .unwrap_or(WINDOW);
        Some(Cap { failures_max, window })
    }

    fn known_profile(&self) -> Option<Arc<Profile>> {
        self.profile.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn learn(&self, profile: Arc<Profile>) {
        *self.profile.lock().unwrap_or_else(PoisonError::into_inner) = Some(profile);
    }

    fn names(&self) -> MutexGuard<'_, ExpiringMap<String, Found>> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count_bind(&self) {
        self.binds.fetch_add(1, Ordering::Relaxed);
    }

    /// Says how the module is, from what is known of its servers.
    fn tell(&self, cx: &ModuleContext, servers: usize, well: usize) {
        cx.status.figure("requests", self.requests.load(Ordering::Relaxed).cast_signed());
        cx.status.figure("binds", self.binds.load(Ordering::Relaxed).cast_signed());
        cx.status.figure("servers_well", well as i64);
        let (state, detail) = match (servers, well) {
            (0, _) => (ModuleState::Failed, "no directory server is known".to_owned()),
            (all, 0) => (ModuleState::Failed, format!("none of {all} directory servers answers")),
            (all, well) if well < all => {
                (ModuleState::Degraded, format!("{well} of {all} directory servers answer"))
            }
            (all, _) => (ModuleState::Ok, format!("checks passwords against {all} directory servers")),
        };
        cx.status.set(state, detail);
    }
}

impl Module for UserAuth {
    fn run(self: Arc<Self>, cx: ModuleContext) -> BoxFuture<'static, Result<(), ModuleError>> {
        /// How often the servers' health is looked at.
        const EVERY: Duration = Duration::from_secs(10);
        Box::pin(async move {
            let net = Net::from(&cx);
            loop {
                let look = async {
                    // A lookup of a name nobody has: opens connections, learns the profile, finds dead servers.
                    let _ = self.shared.look_up(&net, &Typed::Login("\0")).await;
                    let servers = self.shared.directory.servers(&net).await.unwrap_or_default();
                    let well = servers.iter().filter(|server| server.is_well()).count();
                    self.shared.tell(&cx, servers.len(), well);
                    cx.clock.sleep(EVERY).await;
                };
                tokio::select! {
                    () = look => {}
                    () = cx.stop.cancelled() => return Ok(()),
                }
            }
        })
    }

    fn act(&self, _cx: ModuleContext, action: Action) -> BoxFuture<'_, Outcome> {
        Box::pin(async move { Outcome::Failure(AuthError::UnknownAction { action: action.action }.report()) })
    }

    fn answer(&self, cx: ModuleContext, request: Request) -> BoxFuture<'_, Result<Value, ErrorReport>> {
        Box::pin(async move {
            let asked = read_request(&request).map_err(|error| error.report())?;
            let reply = self.authenticate(&cx, asked, Duration::from_millis(request.ttl_ms)).await;
            Ok(json!(reply))
        })
    }

    fn directories(&self) -> Vec<Arc<Directory>> {
        vec![self.shared.directory.clone()]
    }

    fn check(&self, cx: ModuleContext) -> BoxFuture<'_, Vec<CheckResult>> {
        Box::pin(async move { check::run(&self.shared, &cx).await })
    }
}

fn read_request(request: &Request) -> Result<AuthRequest, AuthError> {
    if request.request != REQUEST {
        return Err(AuthError::UnknownRequest { request: request.request.clone() });
    }
    let asked: AuthRequest = serde_json::from_str(request.body.expose())
        .map_err(|error| AuthError::Malformed { line: error.line(), column: error.column() })?;
    for (field, bytes, limit) in [
        ("username", asked.username.len(), USERNAME_MAX_BYTES),
        ("password", asked.password.expose().len(), PASSWORD_MAX_BYTES),
    ] {
        if bytes > limit {
            return Err(AuthError::TooLong { field, bytes, limit });
        }
    }
    Ok(asked)
}
