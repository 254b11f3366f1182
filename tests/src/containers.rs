//! Real servers in containers, for tests and benchmarks.
//!
//! ```no_run
//! # async fn test() -> anyhow::Result<()> {
//! use causeway_tests::containers::{OpenLdap, Seed};
//! let Some(server) = OpenLdap::start(Seed::Text("dn: dc=acme,dc=example\n...".into())).await? else { return Ok(()) };
//! println!("{} as {}", server.url("ldaps"), server.login);
//! # Ok(()) }
//! ```
//!
//! Who keeps a container alive: never the test process itself. A test runner kills a test that hangs, and a killed
//! process removes nothing. So the program `peers` of this package starts the containers (with `testcontainers`, see
//! [`hold`]) and removes them when its standard input ends, which the kernel sees to however its parent died. Being a
//! child it can also be given the engine's address in its environment (see [`crate::engine`]).
//!
//! Who shares one: nextest runs every test in a process of its own, so a `static` would start a container per test.
//! `cargo xtask test` runs `peers` once before the tests and puts the addresses into `target/peers/addresses.json`;
//! [`OpenLdap::shared`] reads them, and starts a server of its own where nobody did. Tests that share a server write
//! below an entry of their own; tests that need certain contents, or that break the server, call `start`.

pub mod hold;
mod table;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::IpAddr;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};

use crate::engine;
use crate::limits::LINE_SIZE_MAX_BYTES;
use crate::skips::skip;

/// The servers there are images for; names as in `tests/containers/images.toml`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    Openldap,
    Ds389,
    SambaDc,
    Prosody,
    Ejabberd,
    Squid,
}

impl Kind {
    pub const ALL: [Self; 6] =
        [Self::Openldap, Self::Ds389, Self::SambaDc, Self::Prosody, Self::Ejabberd, Self::Squid];

    /// Name of the image's folder and of its table in `images.toml`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Openldap => "openldap",
            Self::Ds389 => "ds389",
            Self::SambaDc => "samba_dc",
            Self::Prosody => "prosody",
            Self::Ejabberd => "ejabberd",
            Self::Squid => "squid",
        }
    }
}

/// What a directory contains when it starts.
#[derive(Clone, Debug, Default)]
pub enum Seed {
    /// The suffix entry only.
    #[default]
    Empty,
    /// LDIF, parents first, from the suffix entry on (not for Samba, which has its own); loaded through the server,
    /// so that it keeps `memberOf`.
    Text(String),
    File(PathBuf),
    /// LDIF for the server's fastest loader: OpenLDAP takes 100,000 entries in five seconds, 389-ds 400 a second,
    /// Samba 150. There are then only the `memberOf` values the file itself brings.
    BulkFile(PathBuf),
}

/// Where a running server is and how to sign in as its administrator.
#[derive(Clone, Serialize, Deserialize)]
pub struct Address {
    pub kind: Kind,
    /// Loopback; nothing is published elsewhere.
    pub host: String,
    /// By name: `ldap`, `ldaps`, `gc`, `gcs`, `kerberos`, or `xmpps`.
    pub ports: BTreeMap<String, u16>,
    /// Suffix of a directory; the XMPP domain of the others.
    pub base_dn: String,
    /// DN of a directory's administrator; account of an XMPP server.
    pub login: String,
    /// Made up when the container starts; worth nothing elsewhere.
    pub password: String,
    /// The CA that signed the server's certificate, which names 127.0.0.1 and localhost.
    pub ca_pem: String,
    /// A certificate for `login` with its key, where the server takes one in place of a password (ejabberd).
    #[serde(default)]
    pub client_pem: Option<String>,
    /// The engine's name for the container.
    #[serde(default)]
    pub container: String,
    /// Inside the engine's network: where another container reaches it (a second domain controller, its DNS).
    pub network_address: IpAddr,
    pub image: String,
    /// The container's first process as this machine sees it: whoever may can enter its network.
    #[serde(default)]
    pub process_id: u32,
    /// Folder of this machine the container writes to.
    #[serde(default)]
    pub folder: PathBuf,
}

impl Address {
    /// `ldaps://127.0.0.1:40001`.
    ///
    /// # Panics
    /// When the server has no port of that name.
    pub fn url(&self, port: &str) -> String {
        let scheme = match port {
            "gc" => "ldap",
            "gcs" => "ldaps",
            other => other,
        };
        format!("{scheme}://{}:{}", self.host, self.port(port))
    }

    /// # Panics
    /// When the server has no port of that name.
    pub fn port(&self, name: &str) -> u16 {
        match self.ports.get(name) {
            Some(port) => *port,
            None => panic!("{} has no port {name:?}, only {:?}", self.kind.name(), self.ports),
        }
    }
}

impl std::fmt::Debug for Address {
    /// Without the password.
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{} at {} {:?} as {}", self.kind.name(), self.host, self.ports, self.login)
    }
}

/// A running server; one that this value started is removed when it is dropped.
#[derive(Debug)]
pub struct Running {
    address: Address,
    _holder: Option<Holder>,
}

impl Deref for Running {
    type Target = Address;

    fn deref(&self) -> &Address {
        &self.address
    }
}

impl Running {
    /// Runs a command in the container; returns when it has been started.
    ///
    /// # Errors
    /// When the engine refuses.
    pub async fn exec(&self, command: &[&str]) -> anyhow::Result<()> {
        engine::exec(&self.address.container, command).await
    }

    /// Tells the server's first process to end (SIGTERM).
    ///
    /// # Errors
    /// When the engine refuses.
    pub async fn terminate(&self) -> anyhow::Result<()> {
        engine::terminate(&self.address.container).await
    }

    /// Starts the server again once it has ended. Its data is still there, its ports are new.
    ///
    /// # Errors
    /// When it does not end or start within the engine's patience.
    pub async fn start_again(&mut self) -> anyhow::Result<()> {
        engine::wait_ended(&self.address.container).await?;
        engine::start(&self.address.container).await?;
        for (name, inside) in table::image(self.address.kind)?.ports {
            let port = engine::published_port(&self.address.container, inside).await?;
            self.address.ports.insert(name, port);
        }
        Ok(())
    }
}

/// OpenLDAP with syncprov, memberOf, ppolicy (five bad tries lock for half an hour), sort and VLV.
pub struct OpenLdap;

impl OpenLdap {
    /// A server of one's own. `None` after a counted skip: no engine or no image on this machine.
    pub async fn start(seed: Seed) -> anyhow::Result<Option<Running>> {
        start(Kind::Openldap, seed, None).await
    }

    /// The server the whole test run shares, else one of one's own.
    pub async fn shared() -> anyhow::Result<Option<Running>> {
        shared(Kind::Openldap).await
    }
}

/// 389-ds with content synchronisation, retro changelog and memberOf; the same lockout as OpenLDAP.
pub struct Ds389;

impl Ds389 {
    /// A server of one's own. `None` after a counted skip.
    pub async fn start(seed: Seed) -> anyhow::Result<Option<Running>> {
        start(Kind::Ds389, seed, None).await
    }

    /// The server the whole test run shares, else one of one's own.
    pub async fn shared() -> anyhow::Result<Option<Running>> {
        shared(Kind::Ds389).await
    }
}

/// Samba as an Active Directory domain controller of `acme.example` (NetBIOS name ACME), simple binds on the plain
/// port allowed, five bad tries lock for half an hour.
pub struct SambaDc;

impl SambaDc {
    /// A domain of one's own with one controller, dc1. `None` after a counted skip.
    pub async fn start(seed: Seed) -> anyhow::Result<Option<Running>> {
        start(Kind::SambaDc, seed, None).await
    }

    /// A second controller, dc2, joined to the domain of `first` and replicated.
    pub async fn join(first: &Address) -> anyhow::Result<Option<Running>> {
        let join = Join { dns: first.network_address, password: first.password.clone() };
        start(Kind::SambaDc, Seed::Empty, Some(join)).await
    }

    /// The controller the whole test run shares, else one of one's own.
    pub async fn shared() -> anyhow::Result<Option<Running>> {
        shared(Kind::SambaDc).await
    }
}

/// An XMPP server with one account, direct TLS, XEP-0198 and XEP-0199: the measure for the channel.
pub struct Prosody;

impl Prosody {
    /// A server of one's own. `None` after a counted skip.
    pub async fn start() -> anyhow::Result<Option<Running>> {
        start(Kind::Prosody, Seed::Empty, None).await
    }
}

/// The same as [`Prosody`], another implementation.
pub struct Ejabberd;

impl Ejabberd {
    /// A server of one's own. `None` after a counted skip.
    pub async fn start() -> anyhow::Result<Option<Running>> {
        start(Kind::Ejabberd, Seed::Empty, None).await
    }
}

/// squid, once for each way to ask who somebody is, with a KDC beside it; see `tests/containers/squid/entry.sh`.
pub struct Squid;

impl Squid {
    /// The one the whole test run shares, else one of one's own.
    pub async fn shared() -> anyhow::Result<Option<Running>> {
        shared(Kind::Squid).await
    }
}

/// What `peers hold` is asked to start; one JSON line on its standard input holds a list of these.
#[derive(Serialize, Deserialize)]
pub struct Plan {
    pub kind: Kind,
    /// An LDIF file.
    pub seed: Option<PathBuf>,
    /// Use the fastest loader.
    pub bulk: bool,
    pub join: Option<Join>,
}

impl Plan {
    pub fn empty(kind: Kind) -> Self {
        Self { kind, seed: None, bulk: false, join: None }
    }
}

/// The existing domain a Samba controller joins.
#[derive(Serialize, Deserialize)]
pub struct Join {
    pub dns: IpAddr,
    pub password: String,
}

/// What `peers hold` answers, as one JSON line.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Held {
    Ready(Vec<Address>),
    Failed(String),
}

/// Where `xtask` keeps what peers need: image tags, addresses, the Python environment, logs.
pub fn peers_dir() -> PathBuf {
    match std::env::var_os("CAUSEWAY_PEERS_DIR") {
        Some(path) => PathBuf::from(path),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/peers"),
    }
}

/// Whether a rootDSE search, verified against the server's CA, is answered at `address`.
pub async fn answers(address: &Address) -> anyhow::Result<()> {
    hold::probe(address).await
}

async fn shared(kind: Kind) -> anyhow::Result<Option<Running>> {
    let path = peers_dir().join("addresses.json");
    if let Ok(text) = std::fs::read_to_string(&path) {
        let all: Vec<Address> =
            serde_json::from_str(&text).with_context(|| format!("read {}", path.display()))?;
        if let Some(address) = all.into_iter().find(|address| address.kind == kind) {
            // The file outlives a run that was killed; then the server is gone.
            if answers(&address).await.is_ok() {
                return Ok(Some(Running { address, _holder: None }));
            }
        }
    }
    start(kind, Seed::Empty, None).await
}

async fn start(kind: Kind, seed: Seed, join: Option<Join>) -> anyhow::Result<Option<Running>> {
    if let Some(reason) = missing(kind).await {
        skip(kind.name(), &reason);
        return Ok(None);
    }
    let (seed, bulk, scratch) = match seed {
        Seed::Empty => (None, false, None),
        Seed::File(path) => (Some(path), false, None),
        Seed::BulkFile(path) => (Some(path), true, None),
        Seed::Text(text) => {
            let mut file =
                tempfile::Builder::new().suffix(".ldif").tempfile().context("create a seed file")?;
            file.write_all(text.as_bytes()).context("write a seed file")?;
            (Some(file.path().to_owned()), false, Some(file))
        }
    };
    let plan = Plan { kind, seed, bulk, join };
    let running =
        tokio::task::spawn_blocking(move || Holder::start(&[plan])).await.context("start a container")??;
    drop(scratch);
    let (holder, mut addresses) = running;
    let address = addresses.pop().context("the peers program started nothing")?;
    Ok(Some(Running { address, _holder: Some(holder) }))
}

/// Why `kind` cannot be started on this machine, with the remedy.
async fn missing(kind: Kind) -> Option<String> {
    if let Err(error) = engine::find().await {
        return Some(format!("no container engine: {error:#}; run `cargo xtask peers start`"));
    }
    if let Err(error) = table::image_tag(kind) {
        return Some(format!("{error:#}; run `cargo xtask images`"));
    }
    match peers_program() {
        Ok(_) => None,
        Err(error) => Some(format!("{error:#}")),
    }
}

/// A child that keeps containers until its standard input ends.
#[derive(Debug)]
struct Holder {
    child: Child,
}

impl Holder {
    fn start(plans: &[Plan]) -> anyhow::Result<(Self, Vec<Address>)> {
        let child = std::process::Command::new(peers_program()?)
            .arg("hold")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("start the peers program")?;
        let mut holder = Self { child };
        let mut line = serde_json::to_string(plans)?;
        line.push('\n');
        let stdin = holder.child.stdin.as_mut().context("stdin is piped")?;
        stdin.write_all(line.as_bytes()).context("ask the peers program")?;
        let stdout = holder.child.stdout.take().context("stdout is piped")?;
        let mut answer = String::new();
        // Bounded in time by the program itself: it gives up after `READY_TIMEOUT`.
        BufReader::new(stdout)
            .take(LINE_SIZE_MAX_BYTES as u64)
            .read_line(&mut answer)
            .context("read from peers")?;
        match serde_json::from_str(&answer).with_context(|| format!("peers answered {answer:?}"))? {
            Held::Ready(addresses) => Ok((holder, addresses)),
            Held::Failed(reason) => bail!("{reason}"),
        }
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        // The child removes its containers and ends; nothing is left to do when it does not.
        let _ = self.child.wait();
    }
}

/// The program lies beside the test (`target/debug/peers`, the test in `target/debug/deps/`).
fn peers_program() -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe().context("find this program's own path")?;
    own.ancestors()
        .skip(1)
        .take(2)
        .map(|folder| folder.join(if cfg!(windows) { "peers.exe" } else { "peers" }))
        .find(|path| path.exists())
        .context("the program `peers` is not built; run `cargo build -p causeway-tests --bin peers`")
}
