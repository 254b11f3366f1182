//! The ways out, each through a real squid that is the only neighbour: {none, manual, PAC, WPAD} x {anonymous, Basic,
//! Digest, NTLM, Negotiate} x {channel, upload}, and a wrong password for each scheme, which is shown once.

use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use causeway_mock_cloud::MockCloud;
use causeway_mock_kit::cli::RunningMock;
use causeway_mock_kit::dns::{DnsServer, Srv};
use causeway_mock_ldap::MockLdap;
use causeway_scenarios::cloud_api::Tenant;
use causeway_scenarios::http::Client;
use causeway_scenarios::world::{Agent, AgentProgram};
use causeway_tests::containers::{Address, Running, Squid};
use causeway_tests::{program, skips, tls};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};

use crate::network::Network;

/// The longest any wait takes.
const PATIENCE: Duration = Duration::from_secs(30);

const ZONE: &str = "causeway.test";
const PROXY: &str = "proxy.causeway.test";

/// People in the directory of an upload cell.
const PEOPLE: usize = 12;

/// How the agent learns of the proxy.
#[derive(Clone, Copy, PartialEq)]
enum Source {
    /// Not at all: there is a way straight to the cloud.
    None,
    Manual,
    Pac,
    Wpad,
}

#[derive(Clone, Copy, PartialEq)]
enum Scheme {
    Anonymous,
    Basic,
    Digest,
    Ntlm,
    Negotiate,
    /// Basic inside TLS to the proxy.
    Tls,
    /// NTLM that refuses every password, which squid's own test program for NTLM cannot.
    Refusing,
}

#[derive(Clone, Copy, PartialEq)]
enum Purpose {
    Channel,
    Upload,
    WrongPassword,
    /// Straight, where no way leads.
    NoRoute,
}

/// One test.
#[derive(Clone, Copy)]
pub(crate) struct Cell {
    number: u8,
    source: Source,
    scheme: Scheme,
    purpose: Purpose,
}

/// All of them.
pub(crate) fn cells() -> Vec<Cell> {
    use Purpose::{Channel, NoRoute, Upload, WrongPassword};
    let schemes = [Scheme::Anonymous, Scheme::Basic, Scheme::Digest, Scheme::Ntlm, Scheme::Negotiate];
    let mut all = Vec::new();
    for source in [Source::None, Source::Manual, Source::Pac, Source::Wpad] {
        all.extend(
            schemes.into_iter().flat_map(|scheme| [(source, scheme, Channel), (source, scheme, Upload)]),
        );
    }
    all.push((Source::Manual, Scheme::Tls, Channel));
    all.push((Source::None, Scheme::Anonymous, NoRoute));
    let refused = [Scheme::Basic, Scheme::Digest, Scheme::Refusing, Scheme::Negotiate];
    all.extend(refused.into_iter().map(|scheme| (Source::Manual, scheme, WrongPassword)));
    let numbered = (1..).zip(all);
    numbered.map(|(number, (source, scheme, purpose))| Cell { number, source, scheme, purpose }).collect()
}

/// The container all cells of this process share; it goes when the process does.
static SQUID: LazyLock<Result<Option<Running>, String>> = LazyLock::new(|| {
    let start = || crate::runtime().block_on(Squid::shared()).map_err(|error| format!("{error:#}"));
    // A runtime must not be entered from within another one.
    std::thread::spawn(start).join().unwrap_or_else(|_| Err("the thread that starts squid panicked".into()))
});

fn squid() -> Result<Option<&'static Address>> {
    let root =
        std::fs::read_to_string("/proc/self/status").is_ok_and(|status| status.contains("\nUid:\t0\t"));
    if !root {
        skips::skip("network namespaces", "only root may make them; run the tests as root");
        return Ok(None);
    }
    if program::find("ip", "iproute2").is_none() || program::find("nsenter", "util-linux").is_none() {
        return Ok(None);
    }
    match &*SQUID {
        Ok(running) => Ok(running.as_ref().map(|running| &**running)),
        Err(problem) => bail!("{problem}"),
    }
}

impl Cell {
    pub(crate) fn name(&self) -> String {
        let source = match self.source {
            Source::None => "none",
            Source::Manual => "manual",
            Source::Pac => "pac",
            Source::Wpad => "wpad",
        };
        let purpose = match self.purpose {
            Purpose::Channel => "channel",
            Purpose::Upload => "upload",
            Purpose::WrongPassword => "wrong_password",
            Purpose::NoRoute => "no_route",
        };
        format!("proxies::{source}::{}::{purpose}", self.scheme.name())
    }

    pub(crate) async fn play(self) -> Result<()> {
        let Some(squid) = squid()? else { return Ok(()) };
        let stage = Stage::build(self, squid).await?;
        match self.purpose {
            Purpose::Channel | Purpose::Upload => stage.comes_through().await,
            Purpose::WrongPassword => stage.shows_its_password_once().await,
            Purpose::NoRoute => stage.finds_no_way().await,
        }
    }

    /// `[proxy]` of agent.toml.
    fn settings(&self, port: u16) -> String {
        let mut text = match self.source {
            Source::None => "[proxy]\nmode = \"none\"\n".to_owned(),
            Source::Manual if self.scheme == Scheme::Tls => {
                format!("[proxy]\nurl = \"https://{PROXY}:{port}\"\nca_file = \"proxy-ca.pem\"\n")
            }
            Source::Manual => format!("[proxy]\nurl = \"http://{PROXY}:{port}\"\n"),
            Source::Pac => format!("[proxy]\nmode = \"pac\"\npac_url = \"http://wpad.{ZONE}/proxy.pac\"\n"),
            Source::Wpad => format!("[proxy]\nmode = \"auto\"\nwpad_suffix = \"{ZONE}\"\n"),
        };
        match self.scheme {
            Scheme::Anonymous => {}
            Scheme::Negotiate => text.push_str("username = \"alice@CAUSEWAY.TEST\"\n"),
            Scheme::Basic => text.push_str("username = \"alice\"\nallow_basic = true\n"),
            _ => text.push_str("username = \"alice\"\n"),
        }
        text
    }
}

impl Scheme {
    /// In the test's name, and of the container's port.
    fn name(self) -> &'static str {
        match self {
            Self::Anonymous => "anonymous",
            Self::Basic => "basic",
            Self::Digest => "digest",
            Self::Ntlm => "ntlm",
            Self::Negotiate => "negotiate",
            Self::Tls => "tls",
            Self::Refusing => "refusing",
        }
    }

    /// The port inside the container, as its entry script gives them.
    fn port(self) -> u16 {
        match self {
            Self::Anonymous => 3128,
            Self::Basic => 3129,
            Self::Digest => 3130,
            Self::Ntlm => 3131,
            Self::Negotiate => 3132,
            Self::Tls => 3133,
            Self::Refusing => 3134,
        }
    }
}

/// A cloud outside, a company inside, and between them the neighbour.
struct Stage {
    cell: Cell,
    squid: &'static Address,
    network: Network,
    company: Served,
    cloud: MockCloud,
    tenant: Tenant,
    agent: Agent,
    _dir: tempfile::TempDir,
    _company: Child,
}

impl Stage {
    async fn build(cell: Cell, squid: &'static Address) -> Result<Self> {
        let network = Network::build(cell.number, squid.process_id)?;
        let outside = this_machine(squid.network_address)?;
        if cell.source == Source::None && cell.purpose != Purpose::NoRoute {
            network.lead_to(outside)?;
        }
        let routes = network.routes()?;
        ensure!(!routes.contains("default"), "a network with a way out:\n{routes}");
        let ways = if cell.source == Source::None && cell.purpose != Purpose::NoRoute { 3 } else { 1 };
        ensure!(routes.lines().count() == ways, "another number of routes than {ways}:\n{routes}");
        let (company, child) = Company::start(&network, cell.scheme.port()).await?;

        let mut config = causeway_mock_cloud::Config::default();
        config.common.listen = outside.into();
        let cloud = MockCloud::start(config).await.context("start the cloud")?;
        let trust = tls::trusting_only(&std::fs::read_to_string(cloud.ca_pem())?)?;
        let client = Client::new(cloud.url("api"), Some(Arc::new(trust)), Some(cloud.token().to_owned()))?;
        let tenant = Tenant::create(client, "acme").await?;

        let dir = tempfile::tempdir()?;
        let data_dir = dir.path().join("agent");
        let program = AgentProgram::this_program()?.started_by("ip", &network.entry());
        let agent = Agent::new(&program, data_dir.clone());
        std::fs::create_dir(&data_dir)?;
        std::fs::write(data_dir.join("proxy-ca.pem"), &squid.ca_pem)?;
        let dns = format!("[dns]\nservers = [\"{}\"]\n\n", company.dns);
        std::fs::write(data_dir.join("agent.toml"), dns + &cell.settings(cell.scheme.port()))?;
        let password = match cell.purpose {
            Purpose::WrongPassword => "certainly-wrong",
            _ => &squid.password,
        };
        agent.command(&["configure", "proxy", "--secret-from-stdin", "password"], Some(password)).await?;
        Ok(Self { cell, squid, network, company, cloud, tenant, agent, _dir: dir, _company: child })
    }

    async fn enrol(&self) -> Result<()> {
        let key = self.tenant.enrollment_key().await?;
        let ca = self.cloud.ca_pem().to_str().context("the CA's path is UTF-8")?.to_owned();
        let url = self.cloud.url("api");
        self.agent.command(&["enroll", "--cloud", url, "--key", &key, "--ca", &ca], None).await
    }

    async fn comes_through(mut self) -> Result<()> {
        self.enrol().await?;
        if self.cell.purpose == Purpose::Upload {
            let settings = json!({
                "servers": [self.company.ldaps], "bind_dn": self.company.dn, "ca_file": self.company.ca_file,
            });
            self.agent.configure_directory(&settings, &self.company.password).await?;
            self.tenant.configure("user_visibility", true, &json!({})).await?;
        }
        self.agent.start().await?;
        let mut tunnels = 2;
        if self.cell.purpose == Purpose::Upload {
            tunnels = 3;
            let arrived = async || Ok(self.tenant.all("users").await?.len());
            until("the people in the cloud", arrived, |count| *count >= PEOPLE).await?;
        }
        // squid writes a tunnel down when it ends.
        self.agent.stop().await?;
        if self.cell.source == Source::None {
            let seen = self.requests()?;
            ensure!(seen.is_empty(), "told to go straight, it went to the proxy: {seen:?}");
            return Ok(());
        }
        let opened = async || {
            let all = self.requests()?;
            Ok(all.into_iter().filter(|request| request.status == 200).collect::<Vec<_>>())
        };
        let opened = until("the tunnels in squid's log", opened, |opened| opened.len() >= tunnels).await?;
        let expected = match self.cell.scheme {
            Scheme::Anonymous => "-",
            Scheme::Negotiate => "alice@CAUSEWAY.TEST",
            // ntlm_fake_auth reads the name in the wrong encoding.
            Scheme::Ntlm => return Ok(()),
            _ => "alice",
        };
        ensure!(
            opened.iter().all(|request| request.user == expected),
            "another user than {expected}: {opened:?}"
        );
        Ok(())
    }

    async fn shows_its_password_once(self) -> Result<()> {
        let error = match self.enrol().await {
            Ok(()) => bail!("a wrong password let it in"),
            Err(error) => format!("{error:#}"),
        };
        let expected = match self.cell.scheme {
            Scheme::Basic => "the proxy does not accept user alice by Basic",
            Scheme::Digest => "the proxy does not accept user alice by Digest",
            Scheme::Refusing => "the proxy does not accept user alice by NTLM",
            _ => "user alice@CAUSEWAY.TEST is refused for Negotiate: the KDC says the password is wrong",
        };
        ensure!(error.contains(expected), "{error:?} does not say {expected:?}");
        ensure!(!error.contains("certainly-wrong"), "the password is shown: {error}");
        // Nothing; with the password, which NTLM takes two messages for. With Kerberos only the KDC sees it.
        let wanted = match self.cell.scheme {
            Scheme::Refusing => 3,
            Scheme::Negotiate => 1,
            _ => 2,
        };
        let seen = async || self.requests();
        let seen = until("the attempt in squid's log", seen, |seen| seen.len() >= wanted).await?;
        ensure!(seen.len() == wanted, "{wanted} requests were due: {seen:?}");
        ensure!(seen.iter().all(|request| request.status == 407), "not all were refused: {seen:?}");
        if self.cell.scheme == Scheme::Negotiate {
            let log = std::fs::read_to_string(self.squid.folder.join("kdc.log"))?;
            let from = format!(" {}: ", self.network.own());
            let judged =
                log.lines().filter(|line| line.contains(&from) && line.contains("PREAUTH_FAILED")).count();
            ensure!(judged == 1, "the KDC judged {judged} passwords:\n{log}");
        }
        Ok(())
    }

    async fn finds_no_way(self) -> Result<()> {
        let error = match self.enrol().await {
            Ok(()) => bail!("it came through where no way leads"),
            Err(error) => format!("{error:#}"),
        };
        ensure!(error.contains("unreachable"), "it does not say that the network is unreachable: {error}");
        ensure!(self.requests()?.is_empty(), "told to go straight, it went to the proxy");
        Ok(())
    }

    /// What squid saw of this cell's agent.
    fn requests(&self) -> Result<Vec<Request>> {
        let log =
            std::fs::read_to_string(self.squid.folder.join("access.log")).context("read squid's log")?;
        let own = self.network.own().to_string();
        let lines = log.lines().map(|line| line.split(' ').collect::<Vec<_>>());
        let ours = lines.filter(|words| words.len() >= 4 && words[0] == own);
        ours.map(|words| Ok(Request { status: words[2].parse()?, user: words[3].to_owned() })).collect()
    }
}

#[derive(Debug)]
struct Request {
    status: u16,
    user: String,
}

/// Waits for a condition over a value, bounded, and reports the last value.
async fn until<T: std::fmt::Debug>(
    what: &str,
    look: impl AsyncFn() -> Result<T>,
    good: impl Fn(&T) -> bool,
) -> Result<T> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let value = look().await?;
        if good(&value) {
            return Ok(value);
        }
        ensure!(Instant::now() < deadline, "{what}: last seen {value:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The address under which the container's neighbours, and it itself, reach this machine. No packet is sent.
fn this_machine(container: IpAddr) -> Result<Ipv4Addr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.connect((container, 9)).context("find the way to the container")?;
    match socket.local_addr()?.ip() {
        IpAddr::V4(address) => Ok(address),
        IpAddr::V6(address) => bail!("the container is reached from {address}"),
    }
}

/// What stands inside besides the agent: directory, name server, and the web server of the PAC scripts.
#[derive(clap::Args)]
pub(crate) struct Company {
    /// Address of the proxy
    #[arg(long)]
    proxy: Ipv4Addr,
    /// Port of the proxy
    #[arg(long)]
    port: u16,
    /// Address of the web server
    #[arg(long)]
    own: Ipv4Addr,
}

/// Where it is.
#[derive(Serialize, Deserialize)]
struct Served {
    dns: String,
    ldaps: String,
    dn: String,
    password: String,
    ca_file: PathBuf,
}

impl Company {
    async fn start(network: &Network, port: u16) -> Result<(Served, Child)> {
        let own = std::env::current_exe().context("find this program's file")?;
        let mut child = Command::new("ip")
            .args(network.entry())
            .arg(own)
            .args(["company", "--proxy", &network.neighbour().to_string(), "--port", &port.to_string()])
            .args(["--own", &network.own().to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("start the company")?;
        let mut line = String::new();
        let stdout = child.stdout.take().context("stdout is piped")?;
        tokio::time::timeout(PATIENCE, BufReader::new(stdout).read_line(&mut line))
            .await
            .context("the company does not come up")??;
        Ok((serde_json::from_str(&line).context("the company's ready line")?, child))
    }

    /// Serves until it is killed.
    pub(crate) async fn run(self) -> Result<()> {
        let dns = DnsServer::start(ZONE).await?;
        dns.set_a(PROXY, &[self.proxy])?;
        dns.set_a(&format!("wpad.{ZONE}"), &[self.own])?;
        let kdc = Srv { priority: 0, weight: 0, port: 88, target: PROXY.to_owned() };
        dns.set_srv(&format!("_kerberos._tcp.{ZONE}"), &[kdc])?;

        let mut config = causeway_mock_ldap::Config::default();
        config.common.users = PEOPLE;
        let directory = MockLdap::start(config).await.context("start the directory")?;

        let script =
            format!("function FindProxyForURL(url, host) {{ return \"PROXY {PROXY}:{}\"; }}", self.port);
        // WPAD knows no other port.
        let listener = TcpListener::bind((self.own, 80)).await.context("open port 80")?;

        let account = directory.service_account();
        let ready = Served {
            dns: dns.address().to_string(),
            ldaps: directory.url("ldaps").to_owned(),
            dn: account.dn,
            password: account.password,
            ca_file: Path::new(directory.ready().ca_pem.as_ref().context("the directory has a CA")?)
                .to_owned(),
        };
        println!("{}", serde_json::to_string(&ready)?);
        loop {
            let (stream, _) = listener.accept().await.context("accept")?;
            // Whoever asks gets the script; a client that breaks off hurts nobody.
            let _ = tokio::time::timeout(PATIENCE, answer(stream, &script)).await;
        }
    }
}

async fn answer(mut stream: TcpStream, script: &str) -> Result<()> {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") && request.len() < 8_192 {
        request.push(stream.read_u8().await?);
    }
    let head = "HTTP/1.1 200 OK\r\nContent-Type: application/x-ns-proxy-autoconfig\r\nConnection: close";
    let text = format!("{head}\r\nContent-Length: {}\r\n\r\n{script}", script.len());
    stream.write_all(text.as_bytes()).await?;
    Ok(stream.shutdown().await?)
}
