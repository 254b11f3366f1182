//! The side of [`super`] that talks to the container engine; runs in the program `peers` only.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail, ensure};
use ldap3::{LdapConnAsync, LdapConnSettings, Scope};
use testcontainers::bollard::models::PortBinding;
use testcontainers::core::client::docker_client_instance;
use testcontainers::core::{AccessMode, ContainerPort, Mount};
use testcontainers::runners::AsyncRunner;
use testcontainers::{ContainerAsync, GenericImage, ImageExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use super::table::{self, Image, Ready};
use super::{Address, Kind, Plan};
use crate::limits::{LOG_TAIL_BYTES, PROBE_INTERVAL, PROBE_TIMEOUT, READY_TIMEOUT};

const LOOPBACK: &str = "127.0.0.1";

/// Label by which `xtask` finds containers whose holder was killed.
const HOLDER_LABEL: &str = "causeway.holder";

/// A started container with the folder it reports its CA in.
pub struct Held {
    pub address: Address,
    container: ContainerAsync<GenericImage>,
    _out: tempfile::TempDir,
}

/// Starts all plans at once and waits until every server answers. When one fails, none is left behind.
pub async fn start_all(plans: &[Plan]) -> anyhow::Result<Vec<Held>> {
    let started = futures_util::future::join_all(plans.iter().map(start)).await;
    if started.iter().all(Result::is_ok) {
        return started.into_iter().collect();
    }
    let (ready, mut failed): (Vec<_>, Vec<_>) = started.into_iter().partition(Result::is_ok);
    remove_all(ready.into_iter().flatten().collect()).await?;
    Err(failed.remove(0).err().context("a failed start has an error")?)
}

/// Stops and removes the containers. All are tried; the first error is reported.
pub async fn remove_all(held: Vec<Held>) -> anyhow::Result<()> {
    let removed = futures_util::future::join_all(held.into_iter().map(|one| one.container.rm())).await;
    removed.into_iter().collect::<Result<Vec<()>, _>>().context("remove a container")?;
    Ok(())
}

/// One try: a rootDSE search over TLS for a directory, a TLS handshake for an XMPP server.
pub async fn probe(address: &Address) -> anyhow::Result<()> {
    let tried = async {
        match table::image(address.kind)?.ready {
            Ready::Ldap => probe_directory(address).await,
            Ready::Xmpp => probe_xmpp(address).await,
            Ready::Proxy => probe_proxy(address).await,
        }
    };
    tokio::time::timeout(PROBE_TIMEOUT, tried)
        .await
        .with_context(|| format!("no answer in {PROBE_TIMEOUT:?}"))?
}

async fn start(plan: &Plan) -> anyhow::Result<Held> {
    let name = plan.kind.name();
    let image = table::image(plan.kind)?;
    let (repository, tag) = table::image_tag(plan.kind)?;
    let full_image = format!("{repository}:{tag}");
    let password = plan.join.as_ref().map_or_else(make_password, |join| join.password.clone());
    let out = tempfile::tempdir().context("create a folder for the container's CA")?;

    let mut request = GenericImage::new(repository, tag)
        .with_hostname(if plan.join.is_some() { "dc2".to_owned() } else { image.hostname.clone() })
        .with_label(HOLDER_LABEL, std::process::id().to_string())
        .with_startup_timeout(READY_TIMEOUT)
        .with_mount(Mount::bind_mount(text(out.path())?, "/out"));
    if let Some(size_mib) = image.shared_memory_mib {
        request = request.with_shm_size(size_mib * 1024 * 1024);
    }
    for (key, value) in environment(plan, &password) {
        request = request.with_env_var(key, value);
    }
    if let Some(seed) = &plan.seed {
        let seed = seed.canonicalize().with_context(|| format!("find the seed {}", seed.display()))?;
        let mount = Mount::bind_mount(text(&seed)?, "/seed/seed.ldif").with_access_mode(AccessMode::ReadOnly);
        request = request.with_mount(mount);
    }
    let bindings = loopback_bindings(&image);
    let dns = plan.join.as_ref().map(|join| join.dns.to_string());
    let request = request.with_host_config_modifier(move |host| {
        host.publish_all_ports = Some(false);
        host.port_bindings = Some(bindings.clone());
        if let Some(server) = &dns {
            host.dns = Some(vec![server.clone()]);
            host.dns_search = Some(vec!["acme.example".to_owned()]);
        }
    });
    let container = request.start().await.with_context(|| format!("start a container of {full_image}"))?;

    let address = Address {
        kind: plan.kind,
        host: LOOPBACK.to_owned(),
        ports: Default::default(),
        base_dn: base(plan.kind).to_owned(),
        login: login(plan.kind).to_owned(),
        password,
        ca_pem: String::new(),
        client_pem: None,
        container: container.id().to_owned(),
        network_address: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        image: full_image,
        process_id: 0,
        folder: out.path().to_owned(),
    };
    match complete(&container, address, out.path(), &image).await {
        Ok(address) => Ok(Held { address, container, _out: out }),
        Err(error) => {
            container.rm().await.with_context(|| format!("remove {name} after: {error:#}"))?;
            Err(error)
        }
    }
}

/// Fills in what is known only once the container runs, and waits until the server answers.
async fn complete(
    container: &ContainerAsync<GenericImage>,
    mut address: Address,
    out: &Path,
    image: &Image,
) -> anyhow::Result<Address> {
    let name = address.kind.name();
    (address.network_address, address.process_id) =
        inspected(container).await.with_context(|| format!("address of {name}"))?;
    for (port, inside) in &image.ports {
        let published = container.get_host_port_ipv4(ContainerPort::Tcp(*inside)).await;
        address.ports.insert(port.clone(), published.with_context(|| format!("port {port} of {name}"))?);
    }
    wait_until_ready(container, &mut address, out, image).await?;
    Ok(address)
}

/// Address and first process. testcontainers' own look-up asks for a network named like the container's mode, which is
/// "default" on older engines and no network's name.
async fn inspected(container: &ContainerAsync<GenericImage>) -> anyhow::Result<(IpAddr, u32)> {
    let engine = docker_client_instance().await.context("reach the engine")?;
    let inspected = engine.inspect_container(container.id(), None).await.context("inspect the container")?;
    let process_id = inspected.state.and_then(|state| state.pid).context("the container has no process")?;
    let networks = inspected.network_settings.and_then(|settings| settings.networks).unwrap_or_default();
    let address =
        networks.into_values().find_map(|network| network.ip_address.filter(|text| !text.is_empty()));
    let address = address.context("the container is in no network")?;
    let address = address.parse().with_context(|| format!("{address:?} is not an address"))?;
    Ok((address, u32::try_from(process_id).context("a process id is a number")?))
}

fn loopback_bindings(image: &Image) -> HashMap<String, Option<Vec<PortBinding>>> {
    let free = || PortBinding { host_ip: Some(LOOPBACK.to_owned()), host_port: Some("0".to_owned()) };
    image.ports.values().map(|port| (format!("{port}/tcp"), Some(vec![free()]))).collect()
}

/// The settings the entry script of each image documents.
fn environment(plan: &Plan, password: &str) -> Vec<(&'static str, String)> {
    let password = password.to_owned();
    let load = if plan.bulk { "offline" } else { "online" }.to_owned();
    match plan.kind {
        Kind::Openldap => vec![
            ("LDAP_BASE_DN", base(plan.kind).to_owned()),
            ("LDAP_ADMIN_PASSWORD", password),
            ("LDAP_LOAD", load),
        ],
        Kind::Ds389 => vec![
            ("DS_SUFFIX_NAME", base(plan.kind).to_owned()),
            ("DS_DM_PASSWORD", password),
            ("DS_LOAD", load),
        ],
        Kind::SambaDc => {
            let mut all =
                vec![("SAMBA_REALM", "ACME.EXAMPLE".to_owned()), ("SAMBA_ADMIN_PASSWORD", password)];
            if plan.join.is_some() {
                all.push(("SAMBA_JOIN", "1".to_owned()));
            }
            all
        }
        Kind::Squid => vec![("PROXY_USER", login(plan.kind).to_owned()), ("PROXY_PASSWORD", password)],
        Kind::Prosody | Kind::Ejabberd => {
            vec![("XMPP_USER", "bench".to_owned()), ("XMPP_PASSWORD", password)]
        }
    }
}

fn base(kind: Kind) -> &'static str {
    match kind {
        Kind::Openldap | Kind::Ds389 => "dc=acme,dc=example",
        Kind::SambaDc => "DC=acme,DC=example",
        Kind::Prosody | Kind::Ejabberd => "localhost",
        Kind::Squid => "causeway.test",
    }
}

fn login(kind: Kind) -> &'static str {
    match kind {
        Kind::Openldap => "cn=admin,dc=acme,dc=example",
        Kind::Ds389 => "cn=Directory Manager",
        Kind::SambaDc => "CN=Administrator,CN=Users,DC=acme,DC=example",
        Kind::Prosody | Kind::Ejabberd => "bench@localhost",
        Kind::Squid => "alice",
    }
}

/// Different in every container, so that a test cannot come to rely on it; complex enough for Samba.
fn make_password() -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    format!("Aa1-{:x}-{:x}", std::process::id(), now.as_nanos())
}

async fn wait_until_ready(
    container: &ContainerAsync<GenericImage>,
    address: &mut Address,
    out: &Path,
    image: &Image,
) -> anyhow::Result<()> {
    let started = Instant::now();
    loop {
        let last = match read_report(out, image.ready) {
            Ok(ca_pem) => {
                address.ca_pem = ca_pem;
                address.client_pem = std::fs::read_to_string(out.join("client.pem")).ok();
                probe(address).await
            }
            Err(error) => Err(error),
        };
        let Err(last) = last else { return Ok(()) };
        let name = address.kind.name();
        if !container.is_running().await.with_context(|| format!("ask whether {name} runs"))? {
            bail!("{name} ended before it was ready; its log ends with\n{}", log_tail(container).await);
        }
        if started.elapsed() > READY_TIMEOUT {
            let log = log_tail(container).await;
            bail!("{name} is not ready after {READY_TIMEOUT:?}: {last:#}; its log ends with\n{log}");
        }
        tokio::time::sleep(PROBE_INTERVAL).await;
    }
}

/// The CA the container made, once it has written it.
fn read_report(out: &Path, ready: Ready) -> anyhow::Result<String> {
    ensure!(ready == Ready::Ldap || out.join("ready").exists(), "it is not set up yet");
    let ca_pem = std::fs::read_to_string(out.join("ca.pem")).context("the container wrote no CA yet")?;
    ensure!(ca_pem.trim_end().ends_with("-----END CERTIFICATE-----"), "the CA is not complete yet");
    Ok(ca_pem)
}

async fn log_tail(container: &ContainerAsync<GenericImage>) -> String {
    let mut log = container.stdout_to_vec().await.unwrap_or_default();
    log.extend(container.stderr_to_vec().await.unwrap_or_default());
    String::from_utf8_lossy(&log[log.len().saturating_sub(LOG_TAIL_BYTES)..]).into_owned()
}

async fn probe_directory(address: &Address) -> anyhow::Result<()> {
    let settings = LdapConnSettings::new().set_conn_timeout(PROBE_TIMEOUT).set_config(tls(&address.ca_pem)?);
    let (connection, mut ldap) = LdapConnAsync::with_settings(settings, &address.url("ldaps")).await?;
    ldap3::drive!(connection);
    let (entries, _) =
        ldap.search("", Scope::Base, "(objectClass=*)", vec!["namingContexts"]).await?.success()?;
    ensure!(entries.len() == 1, "{} rootDSE entries", entries.len());
    ldap.unbind().await?;
    Ok(())
}

async fn probe_xmpp(address: &Address) -> anyhow::Result<()> {
    let stream = tokio::net::TcpStream::connect((address.host.as_str(), address.port("xmpps"))).await?;
    let name = ServerName::try_from("localhost").context("localhost is a server name")?;
    tokio_rustls::TlsConnector::from(tls(&address.ca_pem)?).connect(name, stream).await?;
    Ok(())
}

/// Nobody listens on port 1 of the container, so a proxy that lets us pass answers 503.
async fn probe_proxy(address: &Address) -> anyhow::Result<()> {
    for (name, port) in address.ports.iter().filter(|(name, _)| *name != "tls") {
        let mut stream = tokio::net::TcpStream::connect((address.host.as_str(), *port)).await?;
        stream.write_all(b"CONNECT 127.0.0.1:1 HTTP/1.1\r\nHost: 127.0.0.1:1\r\n\r\n").await?;
        let mut status = [0; 12];
        stream.read_exact(&mut status).await.with_context(|| format!("port {name} does not answer"))?;
        ensure!(
            [b"HTTP/1.1 407", b"HTTP/1.1 503"].contains(&&status),
            "port {name} answers {:?}",
            String::from_utf8_lossy(&status)
        );
    }
    let stream = tokio::net::TcpStream::connect((address.host.as_str(), address.port("tls"))).await?;
    let name = ServerName::try_from("localhost").context("localhost is a server name")?;
    tokio_rustls::TlsConnector::from(tls(&address.ca_pem)?).connect(name, stream).await?;
    Ok(())
}

/// Trusts the container's CA and nothing else.
fn tls(ca_pem: &str) -> anyhow::Result<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(ca_pem.as_bytes()) {
        roots.add(certificate.context("read the container's CA")?).context("use the container's CA")?;
    }
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .context("TLS versions")?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

fn text(path: &Path) -> anyhow::Result<&str> {
    path.to_str().with_context(|| format!("the path {} is not UTF-8", path.display()))
}
