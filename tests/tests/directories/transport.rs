//! Ways to a server: LDAPS and StartTLS with the customer's own authority, and no way with another.

use anyhow::{Context, Result, ensure};
use causeway_agent::modules::{Verdict, check_with_directories};
use causeway_mock_kit::pki::TestCa;
use causeway_protocol::auth::AuthOutcome;
use serde_json::{Value, json};

use crate::agent::{Checker, Collector, directory};
use crate::arm::{Arm, NewPerson};
use crate::on_every_arm;
use crate::picture::{compare, seen, told};

on_every_arm![ldaps_and_starttls, another_authority_is_refused, a_wrong_service_password_is_named];

const PASSWORD: &str = "Correct horse 9";

async fn ldaps_and_starttls(mut arm: Arm) -> Result<()> {
    let (login, root) = (arm.login_of("tls"), arm.root.clone());
    arm.add_person(&root, &NewPerson { name: "Tls Probe", login: &login, password: PASSWORD }).await?;
    for server in [arm.ldaps_url.clone(), arm.ldap_url.clone()] {
        let settings = scoped(&arm, &server);
        let reply = Checker::with(&arm, json!({}), settings.clone())?.check(&login, PASSWORD).await;
        ensure!(reply.outcome == AuthOutcome::Ok, "{server}: {reply:?}");
        let collector = Collector::start_on(&arm, json!({}), settings)?;
        collector.sync().await.with_context(|| server.clone())?;
        compare(&told(&collector.cloud)?, &seen(&mut arm).await?).context(server)?;
    }
    Ok(())
}

async fn another_authority_is_refused(mut arm: Arm) -> Result<()> {
    let (login, root) = (arm.login_of("ca"), arm.root.clone());
    arm.add_person(&root, &NewPerson { name: "Ca Probe", login: &login, password: PASSWORD }).await?;
    let stranger = TestCa::new("somebody else")?;
    for server in [arm.ldaps_url.clone(), arm.ldap_url.clone()] {
        let mut settings = scoped(&arm, &server);
        settings["ca_file"] = json!(stranger.pem_path());
        let checker = Checker::with(&arm, json!({}), settings)?;
        let reply = checker.check(&login, PASSWORD).await;
        ensure!(reply.outcome == AuthOutcome::Unavailable, "{server}: {reply:?}");
        let detail = reply.detail.unwrap_or_default();
        ensure!(detail.contains("certificate") || detail.contains("authority"), "{server}: {detail:?}");
        ensure!(checker.module.binds() == 0, "{server}: a password was sent");
        let lines = check_with_directories(&checker.module, checker.cx.clone()).await;
        let failed = lines.iter().find(|line| line.verdict() == Verdict::Fail);
        ensure!(failed.is_some_and(|line| line.remedy().contains("ca_file")), "{server}: {lines:#?}");
    }
    Ok(())
}

async fn a_wrong_service_password_is_named(mut arm: Arm) -> Result<()> {
    arm.password = "not the password".to_owned();
    // Somebody who does not exist: the administrator must not get locked by this test.
    arm.login = arm.login.replacen("cn=", "cn=no-", 1).replacen("CN=", "CN=No ", 1);
    let checker = Checker::new(&arm)?;
    let reply = checker.check("anyone", PASSWORD).await;
    ensure!(reply.outcome == AuthOutcome::Unavailable, "{reply:?}");
    let lines = check_with_directories(&checker.module, checker.cx.clone()).await;
    let failed = lines.iter().find(|line| line.verdict() == Verdict::Fail);
    ensure!(failed.is_some_and(|line| !line.remedy().is_empty()), "{lines:#?}");
    ensure!(!format!("{lines:?}{reply:?}").contains("not the password"), "the password is told");
    Ok(())
}

fn scoped(arm: &Arm, server: &str) -> Value {
    let mut settings = directory(arm);
    settings["servers"] = json!([server]);
    settings["base_dn"] = json!(arm.root);
    settings
}
