//! mock-ldap beside slapd: same people, same client, one after the other.

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use causeway_mock_kit::world::{Company, CompanySpec};
use causeway_tests::containers::{OpenLdap, Seed};
use causeway_tests::ldif;
use causeway_tests::raw_ldap::RawLdap;
use futures_util::future::{BoxFuture, try_join_all};

use crate::Options;
use crate::process::{Program, peak_rss_mib};
use crate::table::Table;

/// People of the real thing.
const PEOPLE: usize = 100_000;
/// Entries in one page.
const PAGE: u32 = 1_000;
/// Connections that bind at the same time.
const BINDERS: usize = 8;
/// Binds of one connection in one round.
const BINDS: usize = 4_000;
/// What both servers are asked for.
const ATTRIBUTES: [&str; 8] =
    ["uid", "cn", "sn", "givenName", "displayName", "mail", "title", "telephoneNumber"];
const BASE: &str = "dc=acme,dc=example";

pub(crate) fn run(options: &Options) -> BoxFuture<'_, Result<Table>> {
    Box::pin(measure(options))
}

async fn measure(options: &Options) -> Result<Table> {
    let people = PEOPLE / options.shrink;
    let company = Company::generate(&CompanySpec { users: people, ..CompanySpec::default() });
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("company.ldif");
    ldif::write_company(&company, BASE, &mut std::io::BufWriter::new(std::fs::File::create(&file)?))?;
    let slapd = OpenLdap::start(Seed::BulkFile(file)).await?.context("the OpenLDAP container is needed")?;
    let slapd_address = format!("{}:389", slapd.network_address);
    let users = people.to_string();
    let mock = Program::start("mock-ldap", &["--personality", "openldap", "--users", &users]).await?;
    let mock_address =
        mock.text("/urls/ldap")?.trim_start_matches("ldap://").trim_end_matches('/').to_owned();
    let (mock_dn, mock_password) = (mock.text("/accounts/admin/dn")?, mock.text("/accounts/admin/password")?);

    let mut table = Table::default();
    let (mut scans, mut slapd_scans, mut binds, mut slapd_binds) = (vec![], vec![], vec![], vec![]);
    for _ in 0..options.rounds {
        scans.push(scan(&mock_address, mock_dn, mock_password, people).await.context("mock-ldap")?);
        slapd_scans.push(scan(&slapd_address, &slapd.login, &slapd.password, people).await.context("slapd")?);
        binds.push(bind_rate(&mock_address, mock_dn, mock_password).await.context("mock-ldap")?);
        slapd_binds.push(bind_rate(&slapd_address, &slapd.login, &slapd.password).await.context("slapd")?);
    }
    table.against(
        format!("paged scan of {people} people and their groups"),
        "entries/s",
        scans,
        ("slapd", slapd_scans),
        "at least 3 x",
    );
    table.against(
        format!("simple binds, {BINDERS} connections"),
        "binds/s",
        binds,
        ("slapd", slapd_binds),
        "at least 1.5 x",
    );
    table.alone(
        format!("mock-ldap with {people} people: peak RSS"),
        "MiB",
        vec![peak_rss_mib(mock.pid()?)?],
        "at most 300",
    );
    table.alone(
        format!("mock-ldap with {people} people: ready after"),
        "ms",
        vec![ms(mock.ready_after)],
        "-",
    );
    drop(mock);
    let mut ready = Vec::new();
    for _ in 0..options.rounds {
        ready.push(ms(Program::start("mock-ldap", &[]).await?.ready_after));
    }
    table.alone("mock-ldap with the default world: ready after", "ms", ready, "at most 100");
    table.note(format!(
        "peer: {} (Debian's slapd, back_mdb), reached over the container bridge; its binds are hashed (SSHA)",
        slapd.image
    ));
    table.note("client: writes bytes, looks only at where messages end; one connection for scans");
    Ok(table)
}

async fn scan(address: &str, dn: &str, password: &str, people: usize) -> Result<f64> {
    let mut client = RawLdap::connect(address).await?;
    ensure!(client.bind(dn, password).await? == 0, "bind refused");
    let started = Instant::now();
    let scan = client.scan(BASE, &ATTRIBUTES, PAGE).await?;
    ensure!(scan.entries as usize >= people, "only {} entries", scan.entries);
    Ok(scan.entries as f64 / started.elapsed().as_secs_f64())
}

async fn bind_rate(address: &str, dn: &str, password: &str) -> Result<f64> {
    let started = Instant::now();
    let binders = (0..BINDERS).map(|_| async {
        let mut client = RawLdap::connect(address).await?;
        for _ in 0..BINDS {
            ensure!(client.bind(dn, password).await? == 0, "bind refused");
        }
        Ok(())
    });
    try_join_all(binders).await?;
    Ok((BINDERS * BINDS) as f64 / started.elapsed().as_secs_f64())
}

fn ms(duration: std::time::Duration) -> f64 {
    duration.as_secs_f64() * 1_000.0
}
