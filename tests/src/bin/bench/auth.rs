//! A password check the whole way (API, channel, agent, LDAPS), beside direct binds by the same LDAP client.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use causeway_agent::dial::direct::Dialer;
use causeway_agent::dial::proxy::Ways;
use causeway_agent::dial::resolve::Names;
use causeway_agent::directory::connection::{Connection, Endpoint, Security};
use causeway_agent::directory::message::ResultCode;
use causeway_agent::random::RandomSource;
use causeway_mock_kit::world::{Company, CompanySpec};
use causeway_scenarios::cloud_api::Tenant;
use causeway_tests::tls;
use futures_util::future::{BoxFuture, try_join_all};

use crate::Options;
use crate::process::Program;
use crate::stage::{Stage, directory_of};
use crate::table::{Table, percentile};

/// People of the company.
const PEOPLE: usize = 5_000;
/// Callers of the API at the same time.
const CALLERS: usize = 48;
/// Password checks of one round.
const CHECKS: usize = 8_000;
/// Direct connections and binds of one round.
const BINDERS: usize = 8;
const BINDS: usize = 2_000;
/// The rate at which latency is measured, and for how long.
const RATE_PER_SEC: u64 = 300;
const LATENCY_FOR: Duration = Duration::from_secs(10);
/// Longest direct bind.
const BIND_WITHIN: Duration = Duration::from_secs(5);

pub(crate) fn run(options: &Options) -> BoxFuture<'_, Result<Table>> {
    Box::pin(measure(options))
}

async fn measure(options: &Options) -> Result<Table> {
    let users = PEOPLE.to_string();
    let mock = Program::start("mock-ldap", &["--users", &users]).await?;
    let mut stage = Stage::start("").await?;
    stage.tenant.configure("user_auth", true, &serde_json::json!({})).await?;
    stage.add_agent(&directory_of(&mock)?).await?;
    stage.module_ok("user_auth").await?;
    let people = Arc::new(active_people());

    let (mut rates, mut direct) = (vec![], vec![]);
    for _ in 0..options.rounds {
        rates.push(through_the_api(&stage.tenant, &people, CHECKS / options.shrink).await?);
        direct.push(direct_binds(&mock, &people, BINDS / options.shrink).await?);
    }
    let latencies = paced(&stage.tenant, &people).await?;
    let mut table = Table::default();
    table.against(
        format!("right passwords checked, {CALLERS} callers"),
        "1/s",
        rates,
        (format!("direct binds, {BINDERS} connections"), direct),
        "at least 2,000/s and 0.2 x",
    );
    table.alone(
        format!("latency at {RATE_PER_SEC}/s: median"),
        "ms",
        vec![percentile(&latencies, 50.0)],
        "-",
    );
    table.alone(
        format!("latency at {RATE_PER_SEC}/s: p99"),
        "ms",
        vec![percentile(&latencies, 99.0)],
        "at most 25",
    );
    table.note(
        "directory: mock-ldap as Active Directory; cloud, agent, directory and callers share two processors",
    );
    table.note("each check is one bind over LDAPS by the agent; each person has a password of their own");
    Ok(table)
}

/// Login, UPN and password of everyone who can sign in.
fn active_people() -> Vec<(String, String, String)> {
    let company = Company::generate(&CompanySpec { users: PEOPLE, ..CompanySpec::default() });
    let active = company.people.iter().filter(|person| person.is_active());
    active.map(|person| (person.login.to_string(), company.upn(&person.login), person.password())).collect()
}

async fn through_the_api(
    tenant: &Tenant,
    people: &Arc<Vec<(String, String, String)>>,
    checks: usize,
) -> Result<f64> {
    let started = Instant::now();
    let callers = (0..CALLERS).map(|caller| {
        let (tenant, people) = (tenant.clone(), people.clone());
        tokio::spawn(async move {
            for n in (caller..checks).step_by(CALLERS) {
                let (login, _, password) = &people[n % people.len()];
                let verdict = tenant.authenticate(login, password).await?;
                ensure!(verdict["outcome"] == "ok", "{login}: {verdict}");
            }
            Ok(())
        })
    });
    for caller in try_join_all(callers).await? {
        caller?;
    }
    Ok(checks as f64 / started.elapsed().as_secs_f64())
}

async fn direct_binds(mock: &Program, people: &[(String, String, String)], binds: usize) -> Result<f64> {
    let directory = directory_of(mock)?;
    let authority = directory.servers[0].trim_start_matches("ldaps://").trim_end_matches('/');
    let (host, port) = authority.rsplit_once(':').context("no port")?;
    let endpoint = Endpoint { host: host.to_owned(), port: port.parse()?, security: Security::Tls };
    let config = Arc::new(tls::trusting_only(&directory.ca_pem)?);
    let dial = Dialer::new(Names::new(&[], RandomSource::system())?, Ways::none());
    let opened = (0..BINDERS).map(|_| Connection::open(&dial, &endpoint, Some(&config)));
    let connections = try_join_all(opened).await?;
    let started = Instant::now();
    let binders = connections.into_iter().enumerate().map(|(binder, mut connection)| async move {
        for n in 0..binds {
            let (_, upn, password) = &people[(binder + n * BINDERS) % people.len()];
            let answer = connection.bind(upn, password.as_bytes(), &[], BIND_WITHIN).await;
            let answer = answer.map_err(|failure| failure.error)?;
            ensure!(answer.code == ResultCode::SUCCESS, "{upn}: refused");
        }
        Ok(())
    });
    try_join_all(binders).await?;
    Ok((BINDERS * binds) as f64 / started.elapsed().as_secs_f64())
}

/// Latencies in milliseconds when checks begin at a fixed rate, whether or not earlier ones have ended.
async fn paced(tenant: &Tenant, people: &Arc<Vec<(String, String, String)>>) -> Result<Vec<f64>> {
    let total = RATE_PER_SEC * LATENCY_FOR.as_secs();
    let mut tick = tokio::time::interval(Duration::from_secs(1) / RATE_PER_SEC as u32);
    let mut running = Vec::new();
    for n in 0..total as usize {
        tick.tick().await;
        let (tenant, people) = (tenant.clone(), people.clone());
        running.push(tokio::spawn(async move {
            let (login, _, password) = &people[n % people.len()];
            let started = Instant::now();
            let verdict = tenant.authenticate(login, password).await?;
            ensure!(verdict["outcome"] == "ok", "{login}: {verdict}");
            Ok(started.elapsed().as_secs_f64() * 1_000.0)
        }));
    }
    let mut latencies = Vec::with_capacity(running.len());
    for check in running {
        latencies.push(check.await??);
    }
    Ok(latencies)
}
