//! A thousand changes in a large directory, by each delta strategy, beside the full sync of the same directory.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use causeway_mock_kit::world::{Company, CompanySpec};
use futures_util::future::BoxFuture;
use ldap3::{Ldap, LdapConnAsync, Mod, Scope, SearchEntry};
use serde_json::{Value, json};

use crate::Options;
use crate::process::Program;
use crate::stage::{Stage, directory_of};
use crate::table::Table;

/// People of the real thing.
const PEOPLE: usize = 100_000;
/// People changed in one round.
const CHANGES: usize = 1_000;
/// Longest sync.
const SYNC_WITHIN: Duration = Duration::from_secs(600);

pub(crate) fn run(options: &Options) -> BoxFuture<'_, Result<Table>> {
    Box::pin(measure(options))
}

async fn measure(options: &Options) -> Result<Table> {
    let people = PEOPLE / options.shrink;
    let mut table = Table::default();
    for (strategy, personality) in
        [("dirsync", "active_directory"), ("usn", "active_directory"), ("syncrepl", "openldap")]
    {
        let (deltas, full) = strategy_rounds(strategy, personality, people, options).await?;
        let what = format!("{strategy}: {CHANGES} changes in {people}, until the API shows the last");
        table.against(what, "s", deltas, ("full sync", full), "at most 0.05 x");
    }
    table.note(
        "directory: mock-ldap (Active Directory, OpenLDAP); from sync_now to the last change in GET users",
    );
    Ok(table)
}

async fn strategy_rounds(
    strategy: &str,
    personality: &str,
    people: usize,
    options: &Options,
) -> Result<(Vec<f64>, Vec<f64>)> {
    let users = people.to_string();
    let mock = Program::start("mock-ldap", &["--personality", personality, "--users", &users]).await?;
    let mut stage = Stage::start("").await?;
    stage.add_agent(&directory_of(&mock)?).await?;
    let started = Instant::now();
    let settings = json!({ "strategy": strategy, "delta_every_secs": 86_400 });
    stage.tenant.configure("user_visibility", true, &settings).await?;
    let committed = |list: &Value| {
        list["items"].as_array().into_iter().flatten().any(|upload| upload["state"] == "committed")
    };
    stage.wait("uploads", SYNC_WITHIN, committed).await?;
    let full = started.elapsed().as_secs_f64();

    let company = Company::generate(&CompanySpec { users: people, ..CompanySpec::default() });
    let mut ldap = administrator(&mock).await?;
    let mut deltas = Vec::new();
    for round in 0..options.rounds {
        let mark = format!("Round {round} {strategy}");
        let chosen: Vec<&str> =
            company.people.iter().skip(round * CHANGES).take(CHANGES).map(|p| &*p.login).collect();
        change(&mut ldap, &mock, personality, &chosen, &mark).await?;
        let last = chosen.last().context("nobody to change")?;
        let started = Instant::now();
        let id = stage.tenant.order("user_visibility", "sync_now", &Value::Null, &json!({})).await?;
        stage
            .wait(&format!("users?q={last}"), SYNC_WITHIN, |list| {
                list["items"].as_array().into_iter().flatten().any(|user| user["given_name"] == *mark)
            })
            .await?;
        deltas.push(started.elapsed().as_secs_f64());
        stage.tenant.finished(&id, SYNC_WITHIN).await?;
    }
    let full = vec![full; deltas.len()];
    Ok((deltas, full))
}

async fn administrator(mock: &Program) -> Result<Ldap> {
    let (connection, mut ldap) = LdapConnAsync::new(mock.text("/urls/ldap")?).await?;
    ldap3::drive!(connection);
    ldap.simple_bind(mock.text("/accounts/admin/dn")?, mock.text("/accounts/admin/password")?)
        .await?
        .success()?;
    Ok(ldap)
}

/// Gives everyone chosen a new given name.
async fn change(
    ldap: &mut Ldap,
    mock: &Program,
    personality: &str,
    logins: &[&str],
    name: &str,
) -> Result<()> {
    let attribute = if personality == "active_directory" { "sAMAccountName" } else { "uid" };
    let admin = mock.text("/accounts/admin/dn")?;
    let base_at = admin.to_ascii_lowercase().find("dc=").context("no base in the administrator's DN")?;
    let base = &admin[base_at..];
    for login in logins {
        let filter = format!("({attribute}={login})");
        let (found, _) = ldap.search(base, Scope::Subtree, &filter, vec!["1.1"]).await?.success()?;
        let entry = SearchEntry::construct(found.into_iter().next().with_context(|| format!("no {login}"))?);
        let values = HashSet::from([name]);
        ldap.modify(&entry.dn, vec![Mod::Replace("givenName", values)]).await?.success()?;
    }
    Ok(())
}
