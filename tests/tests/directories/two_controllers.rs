//! Two domain controllers of one real domain, and the loss of the first.

use anyhow::{Context, Result, ensure};
use causeway_protocol::auth::AuthOutcome;
use causeway_tests::containers::{SambaDc, Seed};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

use crate::agent::{Checker, Collector, directory};
use crate::arm::{Arm, NewPerson, Product};
use crate::picture::{compare, seen, told, word};

const PASSWORD: &str = "Correct horse 9";

/// Inter-site notification delays apply even within one site: 15 s to the first partner (MS-ADTS 3.1.1.5.1.5 names the
/// setting; Samba's default is the same), and a loaded machine takes longer.
const REPLICATED_WITHIN: Duration = Duration::from_secs(90);

#[tokio::test]
async fn the_second_takes_over_with_the_place_in_history() -> Result<()> {
    let Some(first) = SambaDc::start(Seed::Empty).await? else { return Ok(()) };
    let Some(second) = SambaDc::join(&first).await? else { return Ok(()) };
    let servers = json!([first.url("ldaps"), second.url("ldaps")]);
    let cas = format!("{}\n{}", first.ca_pem, second.ca_pem);
    let Some(mut one) = Arm::container(Product::ActiveDirectory, Some(first)).await? else { return Ok(()) };
    std::fs::write(&one.ca_file, cas).context("write both authorities")?;

    let (login, root) = (one.login_of("dc"), one.root.clone());
    let dn =
        one.add_person(&root, &NewPerson { name: "Dc Probe", login: &login, password: PASSWORD }).await?;
    let mut settings = directory(&one);
    settings["servers"] = servers;
    let collector = Collector::start_on(&one, json!({ "strategy": "dirsync" }), settings.clone())?;
    let checker = checker(&one, &settings)?;
    let result = collector.sync().await?;
    compare(&told(&collector.cloud)?, &seen(&mut one).await?)?;
    let reply = checker.check(&login, PASSWORD).await;
    ensure!(reply.outcome == AuthOutcome::Ok, "{reply:?}");
    let (first_sync, first_auth) = (word(&result, "server").to_owned(), reply.server);

    let mut two = Arm::container_at(Product::ActiveDirectory, second, &one).await?;
    replicated(&mut two, &dn).await?;
    tokio::task::spawn_blocking(move || drop(one)).await?;

    two.replace(&dn, "mail", &["after@acme.example"]).await?;
    let result = collector.sync().await?;
    ensure!(word(&result, "server") != first_sync, "still served by {first_sync}: {result}");
    let (strategy, mode) = (word(&result, "strategy"), word(&result, "mode"));
    ensure!((strategy, mode) == ("dirsync", "delta"), "the place in history was lost: {result}");
    compare(&told(&collector.cloud)?, &seen(&mut two).await?)?;
    let reply = checker.check(&login, PASSWORD).await;
    ensure!(reply.outcome == AuthOutcome::Ok && reply.server != first_auth, "{reply:?}");
    ensure!(checker.module.binds() == 2, "{} binds for two attempts", checker.module.binds());
    Ok(())
}

fn checker(arm: &Arm, settings: &Value) -> Result<Checker> {
    let mut settings = settings.clone();
    settings["base_dn"] = json!(arm.root);
    Checker::with(arm, json!({}), settings)
}

/// Waits until an entry has arrived at the arm's server.
async fn replicated(arm: &mut Arm, dn: &str) -> Result<()> {
    let started = Instant::now();
    loop {
        let Err(last) = arm.read(dn, &["cn"]).await else { return Ok(()) };
        ensure!(
            started.elapsed() < REPLICATED_WITHIN,
            "{dn} has not arrived after {REPLICATED_WITHIN:?}: {last:#}"
        );
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}
