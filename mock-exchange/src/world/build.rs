//! How an organisation is made of a generated company.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, RwLock};

use causeway_mock_kit::Clock;
use causeway_mock_kit::world::{Company, Person, mix_two};
use tokio::sync::watch;

use super::accounts::Accounts;
use super::device::{
    ClientType, Contact, Device, DeviceInformation, Partnership, PartnershipId, PolicyApplication,
};
use super::mailbox::{CasSettings, Mailbox, MailboxId};
use super::policy::{Policy, PolicyValue, Setting};
use super::rules::OrganisationSettings;
use super::throttle::Budgets;
use super::versioned::{Controllers, Versioned};
use super::{Database, Facts, Organisation, State, roles};
use crate::config::Config;
use crate::profile::Profile;

/// What a number in a derived key is for, so that no two kinds of object share one.
mod salt {
    pub(super) const TENANT: u64 = 21 << 40;
    pub(super) const DATABASE: u64 = 22 << 40;
    pub(super) const DEVICE: u64 = 23 << 40;
    pub(super) const POLICY: u64 = 24 << 40;
    pub(super) const MADE: u64 = 25 << 40;
    pub(super) const CLIENT: u64 = 26 << 40;
    pub(super) const VISIT: u64 = 27 << 40;
    pub(super) const ORGANISATION: u64 = 28 << 40;
    pub(super) const KEY: u64 = 29 << 40;
}

const HOUR_MS: i64 = 3_600_000;
const DAY_MS: i64 = 24 * HOUR_MS;

/// The policy every organisation begins with.
const DEFAULT_POLICY: &str = "Default";

impl Organisation {
    /// Makes the organisation; the same settings and clock give the same one.
    pub fn build(config: &Config, profile: &'static Profile, company: Arc<Company>, clock: Clock) -> Self {
        let now_ms = clock.now_ms();
        let seed = config.common.seed;
        let facts = facts(config, profile, &company);
        let databases = databases(config, seed);
        let mut accounts = Accounts::new(&company);
        let service = &company.service_account;
        accounts.add(service.login, service.password(), config.service_roles.clone());
        for account in &config.accounts {
            accounts.add(&account.login, account.password.clone(), account.roles.clone());
        }
        let mut default_policy =
            Policy::new(guid(mix_two(seed, salt::POLICY)), DEFAULT_POLICY, now_ms - 400 * DAY_MS);
        default_policy.is_default = true;
        if let Some(setting) = Setting::named("AllowNonProvisionableDevices") {
            default_policy.set(setting, PolicyValue::Switch(true));
        }
        let settings = OrganisationSettings {
            default_access: config.default_access,
            allow_access_for_unsupported_platform: false,
            is_rms_remote_enabled: true,
            changed_ms: now_ms - 400 * DAY_MS,
            ..OrganisationSettings::default()
        };
        let mut state = State {
            controllers: Controllers::new(&config.domain_controllers),
            mailboxes: mailboxes(&company, databases.len()),
            partnerships: Vec::new(),
            by_guid: HashMap::new(),
            policies: vec![Versioned::settled(default_policy)],
            rules: Vec::new(),
            settings: Versioned::settled(settings),
            thresholds: super::rules::thresholds(),
            accounts,
            roles: roles::roles(&config.roles),
            budgets: Budgets::new(config.throttling.clone()),
            audit: super::audit::Audit::default(),
            mail: super::mail::Mail::default(),
            behaviour: HashMap::new(),
            made: 0,
        };
        Generator { seed, online: profile.online, now_ms, company: &company, texts: HashSet::new() }
            .fill(&mut state, config.partnerships);
        Self {
            facts,
            databases,
            servers: config.servers.clone(),
            service_login: service.login.to_owned(),
            clock,
            state: RwLock::new(state),
            changed: watch::Sender::new(0),
            company,
        }
    }

    /// An identifier for something made after the start.
    pub(super) fn made_guid(&self, state: &mut State) -> [u8; 16] {
        state.made += 1;
        guid(mix_two(self.facts.seed, salt::MADE + state.made))
    }

    /// A policy key; never 0, which stands for none.
    pub(super) fn made_key(&self, state: &mut State) -> u32 {
        state.made += 1;
        let bytes = mix_two(self.facts.seed, salt::KEY + state.made).to_be_bytes();
        u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]).max(1)
    }
}

fn facts(config: &Config, profile: &'static Profile, company: &Company) -> Facts {
    let seed = config.common.seed;
    let id = |salt| uuid::Uuid::from_bytes(guid(mix_two(seed, salt))).to_string();
    Facts {
        profile,
        domain: company.domain.clone(),
        netbios: company.netbios.clone(),
        name: company.organisation.clone(),
        base_dn: company.base_dn.clone(),
        seed,
        tenant: id(salt::TENANT),
        guid: guid(mix_two(seed, salt::ORGANISATION)),
        client_id: config.rest.client_id.clone().unwrap_or_else(|| id(salt::CLIENT)),
        app_roles: config.rest.app_roles.clone(),
        discovery_ms: i64::from(config.discovery_minutes) * 60_000,
        messages: config.activesync.messages,
        unknown_identity_returns_all: config.unknown_identity_returns_all,
    }
}

fn databases(config: &Config, seed: u64) -> Vec<Database> {
    let per_server = config.databases_per_server.max(1);
    let mut databases = Vec::new();
    for server in &config.servers {
        for _ in 0..per_server {
            let number = databases.len() + 1;
            databases.push(Database {
                name: causeway_mock_kit::world::database_name(number),
                server: server.clone(),
                guid: guid(mix_two(seed, salt::DATABASE + number as u64)),
            });
        }
    }
    databases
}

fn mailboxes(company: &Company, databases: usize) -> Vec<Mailbox> {
    let cas = CasSettings {
        active_sync_enabled: true,
        owa_enabled: true,
        pop_enabled: true,
        imap_enabled: true,
        mapi_enabled: true,
        ews_enabled: true,
        owa_for_devices_enabled: true,
        ..CasSettings::default()
    };
    let mailbox = |person: &Person| Mailbox {
        cas: Versioned::settled(CasSettings { changed_ms: person.created_ms, ..cas.clone() }),
        database: u16::try_from(person.index as usize % databases.max(1)).unwrap_or(0),
        partnerships: Vec::new(),
        moved_to: None,
    };
    company.people.iter().map(mailbox).collect()
}

/// Makes the partnerships of the start.
struct Generator<'a> {
    seed: u64,
    online: bool,
    now_ms: i64,
    company: &'a Company,
    /// Texts that many phones share.
    texts: HashSet<Arc<str>>,
}

impl Generator<'_> {
    fn fill(mut self, state: &mut State, count: Option<usize>) {
        // Phones of BlackBerry's own service do not speak ActiveSync.
        let own: Vec<_> =
            self.company.devices.iter().filter(|device| !device.model.user_agent.is_empty()).collect();
        if own.is_empty() {
            return;
        }
        let count = count.unwrap_or_else(|| own.len().min(crate::limits::PARTNERSHIPS_MAX));
        state.partnerships.reserve_exact(count);
        state.by_guid.reserve(count);
        for number in 0..count {
            let device = own[number % own.len()];
            let first_round = number < own.len();
            let owner = if first_round { device.owner } else { self.owner(number) };
            let id = match first_round {
                true => device.eas_id(),
                false => {
                    let part = |salt: u64| mix_two(self.seed, salt + number as u64);
                    format!("{:016X}{:016X}", part(salt::DEVICE), part(salt::DEVICE | 1 << 39))
                }
            };
            let imei = first_round.then(|| device.imei()).flatten();
            let partnership = self.partnership(number, MailboxId(owner), id, device.model, imei);
            let id = PartnershipId(u32::try_from(number).expect("PARTNERSHIPS_MAX is below u32"));
            if let Some(device) = partnership.device.current() {
                state.by_guid.insert(device.guid, id);
            }
            state.mailboxes[owner as usize].partnerships.push(id);
            state.partnerships.push(Some(Box::new(partnership)));
        }
    }

    /// Further phones are spread over everybody who works here.
    fn owner(&self, number: usize) -> u32 {
        let people = &self.company.people;
        let start = number % people.len();
        let round = people[start..].iter().chain(&people[..start]);
        let active = round.clone().find(|person| person.is_active());
        active.map_or(0, |person| person.index)
    }

    fn text(&mut self, text: &str) -> Arc<str> {
        if let Some(known) = self.texts.get(text) {
            return Arc::clone(known);
        }
        let text: Arc<str> = text.into();
        self.texts.insert(Arc::clone(&text));
        text
    }

    fn partnership(
        &mut self,
        number: usize,
        mailbox: MailboxId,
        id: String,
        model: &causeway_mock_kit::world::DeviceModel,
        imei: Option<String>,
    ) -> Partnership {
        let dice = mix_two(self.seed, salt::VISIT + number as u64);
        let person = &self.company.people[mailbox.0 as usize];
        // One in five phones of the service runs the vendor's own mail program, which reports no times.
        let outlook = self.online && dice.is_multiple_of(5);
        let days = |number: u64| i64::try_from(number).unwrap_or(0) * DAY_MS;
        let first_sync_ms =
            self.now_ms - days(40 + dice / 7 % 360) - i64::try_from(dice % 86_400_000).unwrap_or(0);
        // One in twenty has not been seen for three months.
        let idle_ms = match dice % 20 {
            0 => days(92 + dice / 11 % 100).min(self.now_ms - first_sync_ms),
            _ => i64::try_from(dice / 13 % 64_800_000).unwrap_or(0),
        };
        let last_ms = self.now_ms - idle_ms;
        let owner_name = person.given_name;
        let information = DeviceInformation {
            model: Some(self.text(if outlook { "Outlook for iOS and Android" } else { model.identifier })),
            imei: imei.map(String::into_boxed_str),
            friendly_name: Some(self.text(&format!("{owner_name}'s {}", model.name))),
            os: Some(self.text(model.os)),
            os_language: Some(self.text("en")),
            phone_number: (!outlook).then(|| person.mobile().replace(' ', "").into_boxed_str()),
            operator: (!outlook).then(|| self.text("Example Mobile")),
            user_agent: None,
        };
        let device = Device {
            guid: guid(mix_two(self.seed, salt::DEVICE + (1 << 38) + number as u64)),
            mailbox,
            id: id.into_boxed_str(),
            device_type: self.text(if outlook { "Outlook" } else { model.eas_type }),
            user_agent: self.text(if outlook { "Outlook-iOS-Android/1.0" } else { model.user_agent }),
            client: if outlook { ClientType::Outlook } else { ClientType::Eas },
            version: if self.online || dice.is_multiple_of(3) { 161 } else { 141 },
            information,
            first_sync_ms,
            changed_ms: first_sync_ms,
            autoblock: None,
        };
        let contact = Contact {
            last_attempt_ms: (!outlook).then_some(last_ms),
            last_success_ms: (!outlook).then_some(last_ms),
            last_policy_ms: Some(first_sync_ms),
            folders: if outlook { 0 } else { u16::try_from(5 + dice % 30).unwrap_or(5) },
            policy_key: Some(u32::try_from(dice & 0xffff_ffff).unwrap_or(1).max(1)),
            applied: Some((0, 1)),
            application: PolicyApplication::AppliedInFull,
            ping_heartbeat_secs: (!outlook).then_some(900),
            ..Contact::default()
        };
        Partnership { device: Versioned::settled(device), contact }
    }
}

/// A GUID of version 4 layout (RFC 9562 5.4) from a number.
pub(super) fn guid(key: u64) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&mix_two(key, 201).to_be_bytes());
    bytes[8..].copy_from_slice(&mix_two(key, 202).to_be_bytes());
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    bytes
}
