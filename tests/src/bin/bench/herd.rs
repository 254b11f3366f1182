//! Ten thousand agents and a cloud that dies under them: how long until all are back, and does the cloud survive it?
//!
//! The agents are the product's own channel: its dialling, TLS, login and reconnect loop, each with an identity and a
//! certificate of its own; what lies above (modules, state file) is left out, because nothing of it decides when an
//! agent comes back.

use std::collections::HashSet;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use causeway_agent::channel::causeway::CloudConversation;
use causeway_agent::channel::login::Credentials;
use causeway_agent::channel::reconnect::{self, Parts};
use causeway_agent::channel::{Channel, Orders};
use causeway_agent::clock::Clock;
use causeway_agent::cloud::CloudConnector;
use causeway_agent::config::Endpoint;
use causeway_agent::dial::tls::Trust;
use causeway_agent::identity::{Identity, PendingKey};
use causeway_agent::random::RandomSource;
use causeway_mock_cloud::channel::scram::Verifier;
use causeway_mock_cloud::pki::AgentIdentity;
use causeway_mock_cloud::store::{NewAgent, NewEnrollmentKey, Tenant};
use causeway_mock_cloud::{Config, MockCloud};
use causeway_protocol::channel::payload::{Action, Certificate, Configure, Payload, Reply, Request, Welcome};
use causeway_protocol::health::{HealthReport, Hello, ModuleHealth, ModuleState};
use causeway_tests::network::Network;
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use serde_json::json;
use tokio_util::sync::CancellationToken;
use xmpp_parsers::stanza_error::{DefinedCondition, ErrorType, StanzaError};

use crate::Options;
use crate::process::{Program, cpu_secs, peak_rss_mib, rss_mib};
use crate::stage::api;
use crate::table::Table;

/// Agents.
const AGENTS: usize = 10_000;
/// Enrolments at the same time while the herd is made.
const ENROLMENTS: usize = 64;
/// Agents started per second at first, below the cloud's admissions.
const STARTED_PER_SEC: u32 = 400;
/// How long the herd may take to be complete, at first and after a restart.
const COMPLETE_WITHIN: Duration = Duration::from_secs(300);
/// How long a complete herd is watched for a second wave: two health reports of everyone.
const WATCHED: Duration = Duration::from_secs(60);
/// Pause before the cloud dies, so that the first wave's work is done.
const SETTLE: Duration = Duration::from_secs(10);
/// How long the herd's certificates are valid.
const CERTIFICATE_LIFE: Duration = Duration::from_secs(90 * 86_400);
/// Pause between two health reports of an agent, as the cloud asks for by default.
const HEALTH_EVERY: Duration = Duration::from_secs(30);
/// Pause between two looks at the herd.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// The herd's tenant.
const TENANT: &str = "5d9c2a52-6c0f-4c61-9b8e-2d3d3d8f7a10";

pub(crate) fn run(options: &Options) -> BoxFuture<'_, Result<Table>> {
    Box::pin(measure(options))
}

async fn measure(options: &Options) -> Result<Table> {
    let agents = AGENTS / options.shrink;
    let folder = tempfile::tempdir()?;
    let herd = make_herd(folder.path(), agents).await.context("make the herd")?;
    let port = free_port()?;
    let config = folder.path().join("cloud.toml");
    let data_dir = folder.path().join("cloud");
    std::fs::write(&config, format!("data_dir = {:?}\n", data_dir.display().to_string()))?;
    let cloud = Cloud { config: config.to_string_lossy().into_owned(), port: format!("api={port}") };
    let mut running = cloud.start().await?;
    let watch = Arc::new(Watch::default());
    let stop = CancellationToken::new();
    let network = Arc::new(Network::default());
    let ca = Trust::File(running.text("/ca_pem")?.into());
    let mut channels = Vec::with_capacity(agents);
    let mut tick = tokio::time::interval(Duration::from_secs(1) / STARTED_PER_SEC);
    for (number, identity) in herd.iter().enumerate() {
        tick.tick().await;
        let place = Place { number, watch: Arc::clone(&watch) };
        channels.push(start_agent(identity, port, &ca, &network, place, &stop)?);
    }
    watch.complete(&channels, COMPLETE_WITHIN).await.context("the herd's first arrival")?;
    tokio::time::sleep(SETTLE).await;

    let mut table = Table::default();
    for (how, what) in [("KILL", "kill -9"), ("TERM", "an orderly restart")] {
        let attempts = network.attempts();
        let (pid, cpu) = (std::process::id(), cpu_secs(std::process::id())?);
        watch.begin();
        running.signal(how).await?;
        running = cloud.start().await?;
        let back = Instant::now();
        watch.complete(&channels, COMPLETE_WITHIN).await.with_context(|| format!("after {what}"))?;
        let (wave, came) = (Wave::new(&watch, back), watch.state().arrivals.len());
        let cloud_pid = running.pid()?;
        let herd_cpu = cpu_secs(pid)? - cpu;
        tokio::time::sleep(WATCHED).await;
        let offline = channels.iter().filter(|channel| !*channel.online().borrow()).count();
        let left = watch.state().arrivals.len() - came + offline;
        let row = |name: &str| format!("{what}: {name}");
        table.alone(row(&format!("all {agents} online")), "s", vec![wave.all_secs], "at most 60");
        table.alone(row("half of them online"), "s", vec![wave.half_secs], "-");
        table.alone(row("most in one second"), "", vec![wave.peak as f64], "-");
        table.alone(row("a second wave"), "", vec![f64::from(u8::from(wave.second))], "0");
        table.alone(row("sessions lost in the minute after"), "", vec![left as f64], "0");
        table.alone(row("attempts"), "", vec![(network.attempts() - attempts) as f64], "-");
        table.alone(row("cloud, highest memory"), "MiB RSS", vec![peak_rss_mib(cloud_pid)?], "at most 400");
        table.alone(row("cloud, memory a minute later"), "MiB RSS", vec![rss_mib(cloud_pid)?], "-");
        table.alone(row("cloud, processor"), "s", vec![cpu_secs(cloud_pid)?], "-");
        table.alone(row("herd, processor until all were online"), "s", vec![herd_cpu], "-");
        table.note(format!("{what}, online per second since the cloud was back: {}", wave.histogram));
    }
    let out_ms = revoke_one(&running, &herd[0], &channels[0]).await?;
    table.alone("revoked among the herd: session ended", "ms", vec![out_ms], "at most 10000");
    table.note(
        "times from the restarted cloud's ready line; a second wave is a second with a quarter of the peak's \
                arrivals after one with less than a tenth",
    );
    stop.cancel();
    Ok(table)
}

/// How to start the cloud, again and again on the same data and port.
struct Cloud {
    config: String,
    port: String,
}

impl Cloud {
    async fn start(&self) -> Result<Program> {
        Program::start("mock-cloud", &["--config", &self.config, "--port", &self.port]).await
    }
}

fn free_port() -> Result<u16> {
    Ok(std::net::TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

/// Enrols agents with a cloud in this process, in the folder the measured one takes over.
async fn make_herd(folder: &Path, agents: usize) -> Result<Vec<Identity>> {
    let config = Config { data_dir: Some(folder.join("cloud")), ..Config::default() };
    let cloud = MockCloud::start(config).await?;
    let row = Tenant { id: TENANT.to_owned(), name: "Herd".to_owned(), created_ms: cloud.cloud().now_ms() };
    cloud.cloud().store.create_tenant(row, "bench".to_owned()).await?;
    let made: Vec<Result<Identity>> = futures_util::stream::iter(0..agents)
        .map(|number| enrol(&cloud, number))
        .buffer_unordered(ENROLMENTS)
        .collect()
        .await;
    cloud.stop().await;
    made.into_iter().collect()
}

async fn enrol(mock: &MockCloud, number: usize) -> Result<Identity> {
    let cloud = mock.cloud();
    let now_ms = cloud.now_ms();
    // Nobody logs in with these keys, so one that nothing fits will do.
    let verifier =
        Verifier { salt: vec![0; 16], iterations: 4_096, stored_key: vec![0; 32], server_key: vec![0; 32] };
    let id = format!("herd{number}");
    let key = NewEnrollmentKey { id: id.clone(), verifier, expires_ms: now_ms + 3_600_000 };
    cloud.store.create_enrollment_key(TENANT, key, "bench", now_ms).await?;
    let pending = PendingKey::generate()?;
    let instance = format!("00000000-0000-4000-8000-{number:012}");
    let identity = AgentIdentity { tenant: TENANT.to_owned(), instance: instance.clone() };
    let jid = format!("{instance}@{}", cloud.config.domain);
    let issued = cloud
        .pki
        .issue(&pending.request_pem()?, &identity, &jid, now_ms, CERTIFICATE_LIFE)
        .map_err(|refusal| anyhow::anyhow!("{refusal}"))?;
    let agent = NewAgent { identity, host: id.clone(), serial: issued.serial, expires_ms: issued.expires_ms };
    cloud.store.enroll(&id, agent, now_ms).await?;
    let certificate = Certificate { chain_pem: issued.chain_pem, instance, tenant: TENANT.to_owned(), jid };
    Ok(pending.certified(certificate)?)
}

fn start_agent(
    identity: &Identity,
    port: u16,
    ca: &Trust,
    network: &Arc<Network>,
    place: Place,
    stop: &CancellationToken,
) -> Result<Channel> {
    let endpoint = Endpoint::parse(&format!("https://127.0.0.1:{port}")).map_err(anyhow::Error::msg)?;
    let connector = CloudConnector::new(Arc::clone(network) as _, endpoint, ca.clone(), Some(identity))?;
    let random = RandomSource::system();
    let orders =
        Arc::new(Bystander { host: identity.instance.clone(), boot_id: random.uuid().to_string(), place });
    let parts = Parts {
        connect: Arc::new(connector),
        conversation: Arc::new(CloudConversation::new(orders)),
        jid: identity.jid.clone(),
        credentials: Credentials::Certificate(identity.jid.clone()),
        clock: Clock::system(),
        random,
        stop: stop.clone(),
    };
    let (channel, ends) = Channel::new();
    tokio::spawn(reconnect::run(parts, ends));
    tokio::spawn(report_health(channel.clone(), stop.clone()));
    Ok(channel)
}

/// As an agent does: at once, and then at the cloud's pace.
async fn report_health(channel: Channel, stop: CancellationToken) {
    let life = async {
        while channel.wait_online().await.is_ok() {
            // What did not arrive is sent again in the next session.
            let _ = channel.ask(health().to_element()).await;
            tokio::time::sleep(HEALTH_EVERY).await;
        }
    };
    tokio::select! {
        () = stop.cancelled() => {}
        () = life => {}
    }
}

fn health() -> HealthReport {
    let module = ModuleHealth {
        module: "user_auth".to_owned(),
        state: ModuleState::Idle,
        detail: String::new(),
        revision: 0,
        restarts: 0,
        figures: Default::default(),
    };
    HealthReport { modules: vec![module], ..HealthReport::default() }
}

/// Takes orders and does nothing: the herd gets none.
struct Bystander {
    host: String,
    boot_id: String,
    place: Place,
}

/// An agent's number in the herd, and who counts it.
struct Place {
    number: usize,
    watch: Arc<Watch>,
}

impl Orders for Bystander {
    fn hello(&self) -> Hello {
        Hello {
            version: "bench".to_owned(),
            os: "linux x86_64".to_owned(),
            host: self.host.clone(),
            boot_id: self.boot_id.clone(),
            modules: vec!["user_auth".to_owned()],
            capacity: 64,
            ..Hello::default()
        }
    }

    fn welcomed(&self, _: Welcome) {
        self.place.watch.came(self.place.number);
    }

    fn accept(&self, _: Action) -> BoxFuture<'static, Result<(), Box<StanzaError>>> {
        Box::pin(async { Err(nothing_here()) })
    }

    fn configure(&self, _: Configure) -> BoxFuture<'static, Result<(), Box<StanzaError>>> {
        Box::pin(async { Err(nothing_here()) })
    }

    fn answer(&self, _: Request) -> BoxFuture<'static, Reply> {
        Box::pin(async { Reply::Answer(json!(null)) })
    }
}

fn nothing_here() -> Box<StanzaError> {
    Box::new(StanzaError::new(ErrorType::Cancel, DefinedCondition::ServiceUnavailable, "en", "a bystander"))
}

/// Who began a session, and when.
#[derive(Default)]
struct Watch(Mutex<Arrivals>);

#[derive(Default)]
struct Arrivals {
    arrivals: Vec<Instant>,
    who: HashSet<usize>,
}

impl Watch {
    fn state(&self) -> MutexGuard<'_, Arrivals> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn came(&self, number: usize) {
        let mut state = self.state();
        state.arrivals.push(Instant::now());
        state.who.insert(number);
    }

    /// Forgets earlier arrivals.
    fn begin(&self) {
        *self.state() = Arrivals::default();
    }

    /// Waits until everyone has come since [`Watch::begin`] and is there.
    async fn complete(&self, herd: &[Channel], within: Duration) -> Result<()> {
        let deadline = Instant::now() + within;
        loop {
            let came = self.state().who.len();
            let online = || herd.iter().filter(|channel| *channel.online().borrow()).count();
            if came == herd.len() && online() == herd.len() {
                return Ok(());
            }
            if Instant::now() > deadline {
                let (secs, online) = (within.as_secs(), online());
                bail!("{came} of {} agents have come after {secs} s, {online} are online", herd.len());
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

/// The herd's return, second by second.
struct Wave {
    all_secs: f64,
    half_secs: f64,
    peak: usize,
    second: bool,
    histogram: String,
}

impl Wave {
    fn new(watch: &Watch, back: Instant) -> Self {
        let arrivals = watch.state().arrivals.clone();
        let mut secs: Vec<f64> = arrivals
            .iter()
            .map(|at| at.checked_duration_since(back).unwrap_or_default().as_secs_f64())
            .collect();
        secs.sort_by(f64::total_cmp);
        let all_secs = secs.last().copied().unwrap_or_default();
        let mut per_sec = vec![0_usize; all_secs as usize + 1];
        for at in &secs {
            per_sec[*at as usize] += 1;
        }
        let peak_at = (0..per_sec.len()).max_by_key(|at| per_sec[*at]).unwrap_or_default();
        let peak = per_sec[peak_at];
        let quiet = per_sec.iter().skip(peak_at).position(|came| came * 10 < peak).map(|at| at + peak_at);
        let second = quiet.is_some_and(|quiet| per_sec[quiet..].iter().any(|came| came * 4 >= peak));
        let histogram = per_sec.iter().map(usize::to_string).collect::<Vec<_>>().join(" ");
        Self { all_secs, half_secs: secs[secs.len() / 2], peak, second, histogram }
    }
}

/// Revokes one agent through the API; milliseconds until its session has ended.
async fn revoke_one(cloud: &Program, identity: &Identity, channel: &Channel) -> Result<f64> {
    let http = api(cloud)?;
    let path = format!("/api/v1/tenants/{TENANT}/agents/{}/revoke", identity.instance);
    let mut online = channel.online();
    let revoked = Instant::now();
    http.post(&path, &json!({})).await?.ok()?;
    tokio::time::timeout(Duration::from_secs(30), online.wait_for(|online| !online))
        .await
        .context("the revoked agent stays")??;
    Ok(revoked.elapsed().as_secs_f64() * 1_000.0)
}
