//! The phones of one mock: those made through its admin API and its handle.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use causeway_mock_kit::Clock;
use causeway_mock_kit::world::{Company, DeviceModel};
use causeway_protocol::Secret;
use serde::Deserialize;
use tokio_rustls::rustls::ClientConfig;
use utoipa::ToSchema;

use super::limits::PHONES_MAX;
use super::model::PhoneModel;
use super::{Account, Phone, Rhythm};

/// A phone to be made.
#[derive(Clone, Deserialize, ToSchema, Default)]
#[serde(deny_unknown_fields)]
pub struct NewPhone {
    /// Whose mail it fetches: login, UPN or `DOMAIN\login`.
    pub user: String,
    /// Default: the password the account has now.
    #[schema(value_type = Option<String>)]
    pub password: Option<Secret>,
    /// How it is called here. Default: its device id.
    pub id: Option<String>,
    /// ActiveSync device id. Default: one no phone has had. The id of an existing partnership continues that one.
    pub device_id: Option<String>,
    /// One of the company's kinds of phones (`Galaxy S24`, `iPhone15,4`), or any other text as its model.
    pub model: Option<String>,
    /// Everything else about it; `model` wins.
    pub details: Option<PhoneModel>,
    /// Server. Default: this mock's ActiveSync.
    pub url: Option<String>,
    /// Whether it keeps asking by itself after its first visit.
    #[serde(default)]
    pub keep_in_touch: bool,
    /// Seconds it lets the server wait for news.
    pub heartbeat_secs: Option<u32>,
    /// Seconds until it tries again after it was turned away.
    pub retry_secs: Option<u32>,
}

impl NewPhone {
    /// A phone of this user with everything else as it comes.
    pub fn of(user: &str) -> Self {
        Self { user: user.to_owned(), ..Self::default() }
    }

    fn rhythm(&self) -> Rhythm {
        let usual = Rhythm::default();
        Rhythm {
            heartbeat_secs: self.heartbeat_secs.unwrap_or(usual.heartbeat_secs),
            retry_secs: self.retry_secs.unwrap_or(usual.retry_secs),
        }
    }
}

/// Why there is no such phone.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PhoneError {
    #[error("there is no user {user:?} whose password is known; give one")]
    NoPassword { user: String },
    #[error("there is a phone {id:?} already")]
    Exists { id: String },
    #[error("there are {PHONES_MAX} phones already")]
    TooMany,
}

/// What the password of an account is now.
pub type Passwords = Arc<dyn Fn(&str) -> Option<Secret> + Send + Sync>;

/// The phones of one mock.
pub struct Phones {
    url: String,
    tls: Arc<ClientConfig>,
    clock: Clock,
    kinds: Vec<&'static DeviceModel>,
    passwords: Passwords,
    list: Mutex<List>,
}

#[derive(Default)]
struct List {
    phones: BTreeMap<String, Phone>,
    made: u32,
}

impl Phones {
    /// No phones yet; those to come talk to `url` and trust what `tls` says.
    pub fn new(
        url: &str,
        tls: Arc<ClientConfig>,
        clock: Clock,
        company: &Company,
        passwords: Passwords,
    ) -> Self {
        let mut kinds: Vec<&'static DeviceModel> = Vec::new();
        for device in &company.devices {
            if !kinds.contains(&device.model) {
                kinds.push(device.model);
            }
        }
        Self { url: url.to_owned(), tls, clock, kinds, passwords, list: Mutex::default() }
    }

    /// Makes a phone, which has not talked to anybody yet, and gives its name here.
    ///
    /// # Errors
    /// [`PhoneError`].
    pub fn add(&self, new: NewPhone) -> Result<(String, Phone), PhoneError> {
        let password = match &new.password {
            Some(password) => password.clone(),
            None => (self.passwords)(&new.user)
                .ok_or_else(|| PhoneError::NoPassword { user: new.user.clone() })?,
        };
        let model = self.model(&new);
        let mut list = self.list();
        if list.phones.len() >= PHONES_MAX {
            return Err(PhoneError::TooMany);
        }
        let device_id = new.device_id.clone().unwrap_or_else(|| unused_id(list.made + 1, &new.user));
        let id = new.id.clone().unwrap_or_else(|| device_id.clone());
        if list.phones.contains_key(&id) {
            return Err(PhoneError::Exists { id });
        }
        list.made += 1;
        let url = new.url.clone().unwrap_or_else(|| self.url.clone());
        let account = Account { url, user: new.user, password, device_id };
        let phone = Phone::new(model, account, Arc::clone(&self.tls), self.clock.clone());
        list.phones.insert(id.clone(), phone.clone());
        Ok((id, phone))
    }

    /// Makes a phone and lets it talk to the server.
    ///
    /// # Errors
    /// [`PhoneError`]. That the server turned it away is no error: the phone says so.
    pub async fn connect(&self, new: NewPhone) -> Result<(String, Phone), PhoneError> {
        let rhythm = new.keep_in_touch.then(|| new.rhythm());
        let (id, phone) = self.add(new)?;
        phone.visit().await;
        if let Some(rhythm) = rhythm {
            phone.keep_in_touch(rhythm);
        }
        Ok((id, phone))
    }

    pub fn get(&self, id: &str) -> Option<Phone> {
        self.list().phones.get(id).cloned()
    }

    /// All phones by name.
    pub fn all(&self) -> Vec<(String, Phone)> {
        self.list().phones.iter().map(|(id, phone)| (id.clone(), phone.clone())).collect()
    }

    /// Switches a phone off and throws it away. The server keeps its partnership.
    pub fn remove(&self, id: &str) -> bool {
        let removed = self.list().phones.remove(id);
        if let Some(phone) = &removed {
            phone.switch_off();
        }
        removed.is_some()
    }

    /// Throws all phones away.
    pub fn clear(&self) {
        let all = std::mem::take(&mut *self.list()).phones;
        all.values().for_each(Phone::switch_off);
    }

    fn model(&self, new: &NewPhone) -> PhoneModel {
        let details = new.details.clone();
        let Some(name) = &new.model else { return details.unwrap_or_default() };
        let named = |kind: &&&DeviceModel| {
            kind.name.eq_ignore_ascii_case(name) || kind.identifier.eq_ignore_ascii_case(name)
        };
        match (self.kinds.iter().find(named), details) {
            (Some(kind), None) => PhoneModel::of(kind),
            (Some(kind), Some(details)) => PhoneModel {
                model: kind.identifier.to_owned(),
                device_type: kind.eas_type.to_owned(),
                os: kind.os.to_owned(),
                user_agent: kind.user_agent.to_owned(),
                ..details
            },
            (None, details) => PhoneModel { model: name.clone(), ..details.unwrap_or_default() },
        }
    }

    fn list(&self) -> MutexGuard<'_, List> {
        // Every critical section leaves the list whole even if a later step of it panicked.
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Phones {
    fn drop(&mut self) {
        self.clear();
    }
}

/// A device id that tells people whose phone it is: letters and digits, at most 32 (MS-ASHTTP 2.2.1.1.1.2.4).
fn unused_id(number: u32, user: &str) -> String {
    let short = user.rsplit('\\').next().unwrap_or(user).split('@').next().unwrap_or(user);
    let letters: String = short.chars().filter(char::is_ascii_alphanumeric).take(16).collect();
    format!("PHONE{number:04}{}", letters.to_ascii_uppercase())
}
