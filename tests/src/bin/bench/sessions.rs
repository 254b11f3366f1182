//! Ten thousand idle TLS sessions: what one costs in mock-cloud, and in ejabberd.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use causeway_tests::containers::Ejabberd;
use causeway_tests::tls;
use causeway_tests::xmpp_client::{Account, XmppClient};
use futures_util::StreamExt;
use futures_util::future::BoxFuture;

use crate::Options;
use crate::channel::account;
use crate::process::{Program, rss_mib};
use crate::table::Table;

/// Sessions of the real thing, and at ejabberd, whose container may hold no more than 1,024 files open: beyond them it
/// accepts nothing, and connections wait in the kernel's queue for ever.
const SESSIONS: usize = 10_000;
const PEER_SESSIONS: usize = 800;
/// How long a login may take before the benchmark gives up.
const LOGIN_WITHIN: Duration = Duration::from_secs(30);
/// Logins at the same time.
const LOGINS: usize = 32;
/// The console account's password; this cloud lives only as long as the benchmark.
const PASSWORD: &str = "bench-console-password";

pub(crate) fn run(options: &Options) -> BoxFuture<'_, Result<Table>> {
    Box::pin(measure(options))
}

async fn measure(options: &Options) -> Result<Table> {
    let sessions = SESSIONS / options.shrink;
    let folder = tempfile::tempdir()?;
    let config = folder.path().join("cloud.toml");
    std::fs::write(
        &config,
        format!("[channel]\nadmission_per_sec = 100000\nconsole_password = \"{PASSWORD}\"\n"),
    )?;
    let cloud = Program::start("mock-cloud", &["--config", config.to_str().context("path")?]).await?;
    let ca = std::fs::read_to_string(cloud.text("/ca_pem")?)?;
    let ours = Account {
        address: cloud.text("/urls/api")?.trim_start_matches("https://").trim_end_matches('/').to_owned(),
        server_name: "cloud.causeway.test".to_owned(),
        domain: "cloud.causeway.test".to_owned(),
        user: "console".to_owned(),
        password: PASSWORD.to_owned(),
        tls: Arc::new(tls::trusting_only(&ca)?),
    };
    let pid = cloud.pid()?;
    let our_cost = per_session_kib(&ours, sessions, pid).await.context("mock-cloud")?;
    let ejabberd = Ejabberd::start().await?.context("the ejabberd container is needed")?;
    let peer_pid = pid_of("beam.smp")?;
    let peer_sessions = PEER_SESSIONS / options.shrink;
    let peer_cost =
        per_session_kib(&account(&ejabberd)?, peer_sessions, peer_pid).await.context("ejabberd")?;
    let mut table = Table::default();
    let what = format!("one of {sessions} idle TLS sessions");
    table.against(
        what,
        "KiB",
        vec![our_cost],
        (format!("ejabberd, {peer_sessions}"), vec![peer_cost]),
        "at most 40",
    );
    table.alone(format!("mock-cloud with {sessions} sessions"), "MiB RSS", vec![rss_mib(pid)?], "-");
    table.note(
        "growth of resident memory from the first tenth of the sessions to the last, divided by their number",
    );
    Ok(table)
}

/// Growth of a server's resident memory per further session. The first tenth warms its caches and is not counted.
async fn per_session_kib(account: &Account, sessions: usize, pid: u32) -> Result<f64> {
    let mut open = log_in(account, sessions / 10).await?;
    let before = rss_mib(pid)?;
    open.extend(log_in(account, sessions - sessions / 10).await?);
    let after = rss_mib(pid)?;
    Ok((after - before) * 1024.0 / (sessions - sessions / 10) as f64)
}

async fn log_in(account: &Account, sessions: usize) -> Result<Vec<XmppClient>> {
    let login = |_| async {
        let login = tokio::spawn(XmppClient::login_owned(account.clone()));
        let within = tokio::time::timeout(LOGIN_WITHIN, login).await;
        within.with_context(|| format!("no login within {} s", LOGIN_WITHIN.as_secs()))??
    };
    let logins = (0..sessions).map(login);
    let done: Vec<Result<XmppClient>> =
        futures_util::stream::iter(logins).buffer_unordered(LOGINS).collect().await;
    done.into_iter().collect()
}

/// The newest process of that name: the one just started in a container.
fn pid_of(name: &str) -> Result<u32> {
    let processes =
        std::fs::read_dir("/proc")?.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let named = processes.filter(|pid: &u32| {
        std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm.trim() == name)
    });
    named.max().with_context(|| format!("no process is called {name}"))
}
