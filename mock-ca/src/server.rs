//! The running mock: ports, the authority, and the tasks behind them.

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use axum::Router;
use causeway_mock_kit::cli::{ConfigError, Ready, RunningMock, Tasks};
use causeway_mock_kit::listen::{self, BindError};
use causeway_mock_kit::pki::{LeafUse, PkiError, TestCa};
use causeway_mock_kit::world::{Company, SplitMix64, mix_two};
use causeway_mock_kit::{Clock, Faults, Journal, KitContext};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::OnceCell;
use tokio::task::JoinHandle;
use tokio_rustls::rustls::ServerConfig;

use crate::accounts::Accounts;
use crate::config::Config;
use crate::core::{Authority, AuthorityError, Challenges, Checked, Links};
use crate::profile::Profile;
use crate::ra::RaIssuer;
use crate::{admin, certsrv, entrust, mpki, ndes, publish, scep, serve, xcep};

/// Why the mock did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    #[error("read the settings")]
    Config(#[source] ConfigError),
    #[error("unknown personality {name:?}; known are {known}")]
    UnknownPersonality { name: String, known: String },
    #[error("read the settings of the authority")]
    Authority(#[source] AuthorityError),
    #[error("{language:?} is no language of the page of challenges; known are {known}")]
    UnknownLanguage { language: String, known: String },
    #[error("listen")]
    Bind(#[source] BindError),
    #[error("find the address of a listening port")]
    Address(#[source] std::io::Error),
    #[error("make TLS certificates")]
    Pki(#[source] PkiError),
}

/// TLS settings, or none for plain HTTP.
type Tls = Result<Option<Arc<ServerConfig>>, PkiError>;

/// A front end: its name in `urls`, what its URL ends with, its TLS, and its routes.
pub(crate) struct Front {
    pub(crate) name: &'static str,
    /// Path of its URL.
    pub(crate) path: &'static str,
    /// TLS settings; none for plain HTTP. The names are those of the certificate.
    pub(crate) tls: fn(&TestCa, &RaIssuer, &[&str]) -> Tls,
    pub(crate) router: fn(&Arc<Shared>) -> Router,
}

/// Every front end but the admin API.
pub(crate) static FRONTS: &[Front] = &[
    Front { name: "scep", path: "/certsrv/mscep/mscep.dll", tls: plain, router: scep::router },
    Front { name: "ndes_admin", path: "/certsrv/mscep_admin/", tls: plain, router: ndes::router },
    Front { name: "certsrv", path: "/certsrv/", tls, router: certsrv::router },
    Front {
        name: "xcep",
        path: "/ADPolicyProvider_CEP_UsernamePassword/service.svc/CEP",
        tls: asking,
        router: xcep::policy_router,
    },
    Front {
        name: "wstep",
        path: "/Issuing_CES_UsernamePassword/service.svc/CES",
        tls: asking,
        router: xcep::enrolment_router,
    },
    Front { name: "mpki", path: "/", tls: insisting, router: mpki::router },
    Front { name: "entrust", path: "/digitalid/service", tls, router: entrust::digital_id_router },
    Front { name: "entrust_gateway", path: "/cagw", tls: insisting, router: entrust::gateway_router },
    Front { name: "crl", path: "/crl", tls: plain, router: publish::crl_router },
    Front { name: "ocsp", path: "/ocsp", tls: plain, router: publish::ocsp_router },
];

/// Plain HTTP.
pub(crate) fn plain(_: &TestCa, _: &RaIssuer, _: &[&str]) -> Tls {
    Ok(None)
}

/// TLS with a certificate of ours only.
fn tls(ca: &TestCa, _: &RaIssuer, names: &[&str]) -> Tls {
    ca.server_config(names, &[b"http/1.1"]).map(Some)
}

/// TLS that asks for the certificate of a registration authority.
fn asking(ca: &TestCa, ra: &RaIssuer, names: &[&str]) -> Tls {
    ra.tls(ca, ca.issue_leaf(names, LeafUse::Server)?, false).map(Some)
}

/// TLS that insists on it.
fn insisting(ca: &TestCa, ra: &RaIssuer, names: &[&str]) -> Tls {
    ra.tls(ca, ca.issue_leaf(names, LeafUse::Server)?, true).map(Some)
}

/// The company, its accounts and its authority, until a reset puts another in its place.
pub struct World {
    pub company: Arc<Company>,
    pub accounts: Accounts,
    pub challenges: Challenges,
    pub config: Config,
    pub profile: &'static Profile,
    checked: Checked,
    links: Links,
    clock: Clock,
    authority: OnceCell<Arc<Authority>>,
}

impl World {
    fn new(config: Config, links: Links, clock: Clock) -> Result<Self, StartError> {
        let profile = Profile::named(&config.personality).ok_or_else(|| StartError::UnknownPersonality {
            name: config.personality.clone(),
            known: Profile::names(),
        })?;
        if ndes::language(&config.ndes.language).is_none() {
            let language = config.ndes.language.clone();
            return Err(StartError::UnknownLanguage { language, known: ndes::languages() });
        }
        let company = Arc::new(Company::generate(&config.common.company().map_err(StartError::Config)?));
        let mut authority = config.authority.clone();
        authority.tiers.get_or_insert(profile.tiers);
        authority.ra.get_or_insert(profile.ra);
        let checked = authority.checked(&company).map_err(StartError::Authority)?;
        let mut challenge = config.challenge.clone();
        challenge.fixed.get_or_insert_with(|| fixed_challenge(company.seed));
        Ok(Self {
            accounts: Accounts::new(Arc::clone(&company), &config.accounts),
            challenges: Challenges::new(challenge),
            company,
            config,
            profile,
            checked,
            links,
            clock,
            authority: OnceCell::new(),
        })
    }

    /// The authority. Its keys are made when it is first asked for, on a blocking thread: making them takes longer than
    /// the mock may take to be ready.
    pub async fn authority(&self) -> Arc<Authority> {
        let made = self.authority.get_or_init(|| async {
            let (checked, company) = (self.checked.clone(), Arc::clone(&self.company));
            let (links, clock) = (self.links.clone(), self.clock.clone());
            let building =
                tokio::task::spawn_blocking(move || Authority::build(checked, company, links, clock));
            Arc::new(building.await.expect("making an authority does not panic"))
        });
        Arc::clone(made.await)
    }
}

/// The challenge of the ready line: like the generated people's passwords it follows from the seed and is of no use
/// elsewhere.
fn fixed_challenge(seed: u64) -> String {
    let mut random = SplitMix64::new(mix_two(seed, 0x5ce9));
    format!("{:016X}", random.next_u64())
}

/// What the front ends and the admin API share.
pub struct Shared {
    pub cx: KitContext,
    /// The authority of the mock's TLS certificates; it has nothing to do with the simulated one.
    pub tls_ca: TestCa,
    /// Who issues the certificates of registration authorities that MPKI and Entrust know.
    pub ra: RaIssuer,
    /// Front end name to URL.
    pub urls: BTreeMap<String, String>,
    world: ArcSwap<World>,
}

impl Shared {
    /// The company and its authority as they are now; a reset puts others in their place.
    pub fn world(&self) -> Arc<World> {
        self.world.load_full()
    }

    /// The authority as it is now.
    pub async fn authority(&self) -> Arc<Authority> {
        self.world().authority().await
    }

    /// Does something slow with the authority on a thread where it keeps nobody waiting.
    pub async fn work<T: Send + 'static>(&self, work: impl FnOnce(&Authority) -> T + Send + 'static) -> T {
        let authority = self.authority().await;
        let working = tokio::task::spawn_blocking(move || work(&authority));
        working.await.expect("work on the authority does not panic")
    }

    /// Puts the world a configuration describes in place of the present one. An error leaves everything as it is.
    pub(crate) fn replace(self: &Arc<Self>, config: Config) -> Result<(), StartError> {
        let world = World::new(config, self.world().links.clone(), self.cx.clock.clone())?;
        self.world.store(Arc::new(world));
        self.warm_up();
        Ok(())
    }

    /// Begins to make the keys.
    fn warm_up(self: &Arc<Self>) -> JoinHandle<()> {
        let world = self.world();
        tokio::spawn(async move {
            world.authority().await;
        })
    }
}

/// A running authority. Everything stops when it is dropped.
pub struct MockCa {
    shared: Arc<Shared>,
    tasks: Tasks,
}

impl MockCa {
    /// Generates the company, binds all ports and serves them; the authority's keys follow in the background.
    ///
    /// # Errors
    /// [`StartError`] says which setting is at fault.
    pub async fn start(config: Config) -> Result<Self, StartError> {
        let cx = KitContext::from_common("mock-ca", &config.common);
        Self::start_in(config, cx).await
    }

    /// As [`MockCa::start`] on a clock of the caller's, for tests that move time themselves.
    ///
    /// # Errors
    /// [`StartError`] says which setting is at fault.
    pub async fn start_with_clock(config: Config, clock: Clock) -> Result<Self, StartError> {
        Self::start_in(config, KitContext::new("mock-ca", clock)).await
    }

    async fn start_in(config: Config, cx: KitContext) -> Result<Self, StartError> {
        let names: Vec<&str> = FRONTS.iter().map(|front| front.name).chain(["admin"]).collect();
        config.common.check_ports(&names).map_err(StartError::Config)?;
        let tls_ca = TestCa::new("Causeway mock-ca TLS CA").map_err(StartError::Pki)?;
        let ra = RaIssuer::new().map_err(StartError::Pki)?;
        let hosts = tls_names(&config);
        let hosts: Vec<&str> = hosts.iter().map(String::as_str).collect();
        let (mut urls, mut bound) = (BTreeMap::new(), Vec::new());
        for front in FRONTS {
            let tls = (front.tls)(&tls_ca, &ra, &hosts).map_err(StartError::Pki)?;
            let listener = bind(&cx, &config, front.name).await?;
            let scheme = if tls.is_some() { "https" } else { "http" };
            let address = listener.local_addr().map_err(StartError::Address)?;
            urls.insert(front.name.to_owned(), format!("{scheme}://{address}{}", front.path));
            bound.push((front, tls, listener));
        }
        let admin = bind(&cx, &config, "admin").await?;
        let address = admin.local_addr().map_err(StartError::Address)?;
        urls.insert("admin".to_owned(), format!("http://{address}"));
        let links = Links { crl: urls["crl"].clone(), ocsp: urls["ocsp"].clone() };
        let world = World::new(config, links, cx.clock.clone())?;
        let shared = Arc::new(Shared { cx, tls_ca, ra, urls, world: ArcSwap::from_pointee(world) });
        let mut tasks = vec![shared.warm_up()];
        let router = admin::router(Arc::clone(&shared));
        tasks.push(tokio::spawn(causeway_mock_kit::admin::serve_admin(
            admin,
            router,
            shared.cx.stop.clone(),
        )));
        for (front, tls, listener) in bound {
            let (name, router) = (front.name, (front.router)(&shared));
            tasks.push(listen::serve(listener, name, shared.cx.clone(), move |stream, peer| {
                serve::connection(name, tls.clone(), router.clone(), stream, peer)
            }));
        }
        Ok(Self { shared, tasks: Tasks::new(tasks) })
    }

    /// Front end name to URL.
    pub fn urls(&self) -> &BTreeMap<String, String> {
        &self.shared.urls
    }

    /// The URL of one front end.
    ///
    /// # Panics
    /// When there is no such front end.
    pub fn url(&self, front: &str) -> &str {
        self.urls().get(front).unwrap_or_else(|| panic!("no front end {front:?} in {:?}", self.urls().keys()))
    }

    /// The company and its authority as they are now.
    pub fn world(&self) -> Arc<World> {
        self.shared.world()
    }

    /// The authority as it is now; waits for its keys.
    pub async fn authority(&self) -> Arc<Authority> {
        self.shared.authority().await
    }

    /// What the front ends share.
    pub fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    pub fn faults(&self) -> &Faults {
        &self.shared.cx.faults
    }

    pub fn journal(&self) -> &Journal {
        &self.shared.cx.journal
    }

    pub fn clock(&self) -> &Clock {
        &self.shared.cx.clock
    }

    /// The authority that signed the TLS certificates.
    pub fn tls_ca(&self) -> &TestCa {
        &self.shared.tls_ca
    }

    /// Who issues the certificates of registration authorities.
    pub fn ra(&self) -> &RaIssuer {
        &self.shared.ra
    }

    /// Sign-in of the account an agent uses: `ACME\svc-causeway` and its password.
    pub fn service_account(&self) -> (String, String) {
        let world = self.world();
        let service = &world.company.service_account;
        (format!("{}\\{}", world.company.netbios, service.login), service.password())
    }

    /// Builds the world anew as it was at the start.
    ///
    /// # Errors
    /// [`StartError`] when the settings no longer make one.
    pub fn reset(&self) -> Result<(), StartError> {
        self.shared.replace(self.world().config.clone())
    }
}

impl Drop for MockCa {
    fn drop(&mut self) {
        self.shared.cx.stop.cancel();
    }
}

impl RunningMock for MockCa {
    fn ready(&self) -> Ready {
        let mut ready = Ready::new("mock-ca");
        ready.urls = self.urls().clone();
        ready.ca_pem = Some(self.shared.tls_ca.pem_path().to_owned());
        let world = self.world();
        let company = &world.company;
        let (user, password) = self.service_account();
        let upn = company.upn(company.service_account.login);
        ready.accounts.insert("admin".to_owned(), json!({ "user": user, "upn": upn, "password": password }));
        let challenge = world.challenges.config().fixed.as_deref();
        let ra =
            json!({ "certificate_file": self.ra().certificate_file(), "key_file": self.ra().key_file() });
        ready.accounts.insert("entrust_gateway".to_owned(), ra.clone());
        let mut mpki = ra;
        mpki["api_key"] = json!(world.config.mpki.api_key);
        ready.accounts.insert("mpki".to_owned(), mpki);
        ready.accounts.insert("scep".to_owned(), json!({ "challenge": challenge, "url": self.url("scep") }));
        if let Some(person) = company.people.iter().find(|person| person.is_active()) {
            let sid = company.sid(person.rid);
            let upn = company.upn(&person.login);
            let account =
                json!({ "login": person.login, "upn": upn, "sid": sid, "password": person.password() });
            ready.accounts.insert("user".to_owned(), account);
        }
        ready
    }

    async fn stop(self) {
        self.shared.cx.stop.cancel();
        self.tasks.ended().await;
    }
}

async fn bind(cx: &KitContext, config: &Config, front: &str) -> Result<TcpListener, StartError> {
    let common = &config.common;
    listen::bind(cx.service, front, common.listen, common.port(front)).await.map_err(StartError::Bind)
}

/// Host names in TLS certificates.
fn tls_names(config: &Config) -> Vec<String> {
    let mut names = vec![format!("pki1.{}", config.common.domain)];
    if !config.common.listen.is_unspecified() {
        names.push(config.common.listen.to_string());
    }
    names
}
