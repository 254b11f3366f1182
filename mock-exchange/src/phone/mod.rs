//! Simulated phones: clients that speak real ActiveSync over HTTPS to whatever URL they are given.
//!
//! A phone signs in, provisions, fetches folders and mail, waits for news, and wipes itself when it is told to. It knows
//! the server only by its answers; what it experienced it keeps in a log that tests, scenarios and the demo read.

mod conversation;
pub mod http;
pub mod limits;
mod memory;
mod model;
mod park;
mod routes;
mod words;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use causeway_mock_kit::Clock;
use causeway_protocol::Secret;
use tokio::sync::watch;
use tokio_rustls::rustls::ClientConfig;
use tokio_util::sync::CancellationToken;

pub use memory::{Event, FolderView, MessageView, PhoneView, Standing};
pub use model::PhoneModel;
pub use park::{NewPhone, Passwords, PhoneError, Phones};
pub use routes::{Keeping, NamedPhone, TypedPassword, routes};

use self::conversation::Waited;
use self::http::Http;
use self::limits::{HEARTBEAT_SECS, RETRY_SECS};
use self::memory::Memory;

/// Whose mail a phone fetches, and where.
#[derive(Clone)]
pub struct Account {
    /// URL of the server's ActiveSync.
    pub url: String,
    /// Login, UPN or `DOMAIN\login`.
    pub user: String,
    pub password: Secret,
    /// ActiveSync device id, 1 to 32 letters and digits.
    pub device_id: String,
}

/// How often a phone asks by itself.
#[derive(Clone, Copy, Debug)]
pub struct Rhythm {
    /// Seconds it lets the server wait for news.
    pub heartbeat_secs: u32,
    /// Seconds until it tries again after it was turned away.
    pub retry_secs: u32,
}

impl Default for Rhythm {
    fn default() -> Self {
        Self { heartbeat_secs: HEARTBEAT_SECS, retry_secs: RETRY_SECS }
    }
}

/// One simulated phone. Clones are the same phone.
#[derive(Clone)]
pub struct Phone(Arc<Inner>);

struct Inner {
    model: PhoneModel,
    device_id: String,
    http: Http,
    clock: Clock,
    memory: Mutex<Memory>,
    /// Counts changes of the memory, for whoever waits for one.
    changed: watch::Sender<u64>,
    /// One conversation at a time, as on a real phone.
    busy: tokio::sync::Mutex<()>,
    /// Ends the loop that keeps in touch.
    loops: Mutex<CancellationToken>,
}

impl Phone {
    /// A phone with this account on it, switched on, which has not talked to the server yet.
    pub fn new(model: PhoneModel, account: Account, tls: Arc<ClientConfig>, clock: Clock) -> Self {
        let Account { url, user, password, device_id } = account;
        Self(Arc::new(Inner {
            model,
            device_id,
            http: Http::new(tls),
            clock,
            memory: Mutex::new(Memory::new(url, user, password)),
            changed: watch::Sender::new(0),
            busy: tokio::sync::Mutex::new(()),
            loops: Mutex::new(CancellationToken::new()),
        }))
    }

    /// Talks to the server until the phone has all its mail or was turned away, and says which. Does nothing on a phone
    /// that is off or empty.
    pub async fn visit(&self) -> Standing {
        let _busy = self.0.busy.lock().await;
        if !self.is_on() || self.standing().is_wiped() {
            return self.standing();
        }
        let outcome = self.converse().await;
        let standing = self.memory().settle(outcome, self.0.clock.now_ms());
        self.publish();
        standing
    }

    /// Waits for news once (Ping) and fetches it.
    pub async fn wait_and_visit(&self, heartbeat_secs: u32) -> Standing {
        match self.wait_for_news(heartbeat_secs).await {
            Ok(Waited::Nothing) => self.standing(),
            Ok(Waited::News) | Err(_) => self.visit().await,
        }
    }

    /// Keeps in touch from now on: fetches mail, waits for news, tries again when turned away; until switched off.
    pub fn keep_in_touch(&self, rhythm: Rhythm) {
        let stop = CancellationToken::new();
        let before = std::mem::replace(&mut *self.loops(), stop.clone());
        before.cancel();
        let phone = self.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = phone.live(rhythm) => {}
            }
        });
    }

    async fn live(&self, rhythm: Rhythm) {
        self.visit().await;
        loop {
            match self.standing() {
                standing if standing.is_wiped() => return,
                Standing::Synced | Standing::Held => {
                    self.wait_and_visit(rhythm.heartbeat_secs).await;
                }
                _ => {
                    let wait_secs = self.memory().retry_after_secs.unwrap_or(rhythm.retry_secs);
                    let clock = &self.0.clock;
                    clock.sleep_until_ms(clock.now_ms() + i64::from(wait_secs) * 1_000).await;
                    self.visit().await;
                }
            }
        }
    }

    /// Switches the phone off: it asks nothing any more until it is switched on.
    pub fn switch_off(&self) {
        self.loops().cancel();
        self.0.http.close();
        self.memory().switch(false, self.0.clock.now_ms());
        self.publish();
    }

    /// Switches the phone on again. It does nothing by itself until it visits or is told to keep in touch.
    pub fn switch_on(&self) {
        self.memory().switch(true, self.0.clock.now_ms());
        self.publish();
    }

    /// The owner types another password on the phone.
    pub fn set_password(&self, password: Secret) {
        self.memory().password = password;
        self.publish();
    }

    /// The owner sets the account up again, as after a wipe: everything the phone knew is gone.
    pub fn set_up_again(&self) {
        self.0.http.close();
        self.memory().set_up_again(self.0.clock.now_ms());
        self.publish();
    }

    pub fn is_on(&self) -> bool {
        self.memory().on
    }

    /// How the last visit ended.
    pub fn standing(&self) -> Standing {
        self.memory().standing
    }

    pub fn device_id(&self) -> &str {
        &self.0.device_id
    }

    /// What the phone is.
    pub fn model(&self) -> &PhoneModel {
        &self.0.model
    }

    /// Everything about the phone, without its password.
    pub fn view(&self) -> PhoneView {
        self.memory().view(&self.0.model, &self.0.device_id)
    }

    /// Waits until what `view` shows fulfils the condition.
    ///
    /// # Errors
    /// The last view, when that did not happen within `bound`.
    pub async fn wait(
        &self,
        bound: Duration,
        condition: impl Fn(&PhoneView) -> bool,
    ) -> Result<PhoneView, Box<PhoneView>> {
        let mut changed = self.0.changed.subscribe();
        let waiting = async {
            loop {
                changed.borrow_and_update();
                let view = self.view();
                if condition(&view) {
                    return view;
                }
                // The sender lives as long as this phone.
                let _ = changed.changed().await;
            }
        };
        tokio::time::timeout(bound, waiting).await.map_err(|_| Box::new(self.view()))
    }

    fn publish(&self) {
        self.0.changed.send_modify(|version| *version += 1);
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        // Every critical section leaves the memory whole even if a later step of it panicked.
        self.0.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn loops(&self) -> MutexGuard<'_, CancellationToken> {
        self.0.loops.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.loops.get_mut().unwrap_or_else(PoisonError::into_inner).cancel();
    }
}
