//! Password checks.

use anyhow::{Result, ensure};
use causeway_protocol::auth::AuthOutcome;

use crate::agent::Checker;
use crate::arm::{Arm, NewPerson, Product};
use crate::on_every_arm;

on_every_arm![
    right_and_wrong_passwords,
    an_empty_password_is_never_sent,
    account_states,
    hostile_names,
    a_repeated_wrong_password_locks_nobody,
];

const PASSWORD: &str = "Correct horse 9";

/// Wrong tries after which every arm's policy has locked an account (five).
const LOCKING_TRIES: usize = 6;

async fn right_and_wrong_passwords(mut arm: Arm) -> Result<()> {
    let (login, root) = (arm.login_of("alice"), arm.root.clone());
    let dn =
        arm.add_person(&root, &NewPerson { name: "Alice Probe", login: &login, password: PASSWORD }).await?;
    let checker = Checker::new(&arm)?;
    let right = checker.check(&login, PASSWORD).await;
    ensure!(right.outcome == AuthOutcome::Ok, "{right:?}");
    let user = right.user.unwrap_or_else(|| panic!("a right password names its user"));
    ensure!(user.dn.eq_ignore_ascii_case(&dn) && user.login == login, "{user:?}");
    ensure!(user.mail.as_deref() == Some(&*format!("{login}@acme.example")), "{user:?}");
    let by_mail = checker.check(&format!("{login}@acme.example"), PASSWORD).await;
    ensure!(by_mail.outcome == AuthOutcome::Ok, "by mail address: {by_mail:?}");

    let wrong = checker.check(&login, "Wrong horse 9").await;
    let unknown = checker.check(&arm.login_of("nobody"), PASSWORD).await;
    for reply in [&wrong, &unknown] {
        ensure!(reply.outcome == AuthOutcome::BadCredentials && reply.user.is_none(), "{reply:?}");
    }
    ensure!(wrong.detail == unknown.detail, "a stranger could tell the two apart: {wrong:?}, {unknown:?}");
    Ok(())
}

/// A simple bind with a name and no password succeeds as anonymous on most servers (RFC 4513 §5.1.2).
async fn an_empty_password_is_never_sent(mut arm: Arm) -> Result<()> {
    let (login, root) = (arm.login_of("empty"), arm.root.clone());
    let dn =
        arm.add_person(&root, &NewPerson { name: "Empty Probe", login: &login, password: PASSWORD }).await?;
    let checker = Checker::new(&arm)?;
    let reply = checker.check(&login, "").await;
    ensure!(reply.outcome == AuthOutcome::BadCredentials, "{reply:?}");
    ensure!(checker.module.binds() == 0, "{} binds were made", checker.module.binds());
    if let Some(mock) = &arm.mock {
        let theirs = |entry: &causeway_mock_kit::journal::Entry| {
            entry.operation == "bind" && entry.subject.eq_ignore_ascii_case(&dn)
        };
        let seen = mock.journal().after(0).into_iter().filter(theirs).count();
        ensure!(seen == 0, "the server saw {seen} binds of {dn}");
    }
    Ok(())
}

async fn account_states(mut arm: Arm) -> Result<()> {
    let root = arm.root.clone();
    let (off, locked, new) = (arm.login_of("off"), arm.login_of("lock"), arm.login_of("new"));
    let off_dn =
        arm.add_person(&root, &NewPerson { name: "Off Probe", login: &off, password: PASSWORD }).await?;
    let locked_dn = arm
        .add_person(&root, &NewPerson { name: "Locked Probe", login: &locked, password: PASSWORD })
        .await?;
    let new_dn =
        arm.add_person(&root, &NewPerson { name: "New Probe", login: &new, password: PASSWORD }).await?;
    arm.disable(&off_dn).await?;
    let mut other = arm.connect().await?;
    for attempt in 0..LOCKING_TRIES {
        other.simple_bind(&locked_dn, &format!("wrong {attempt}")).await?;
    }

    let checker = Checker::new(&arm)?;
    let reply = checker.check(&off, PASSWORD).await;
    // OpenLDAP has no word of its own for "switched off": it is a lock without end.
    let expected = if arm.product == Product::OpenLdap { AuthOutcome::Locked } else { AuthOutcome::Disabled };
    ensure!(reply.outcome == expected, "switched off: {reply:?}");
    let reply = checker.check(&locked, PASSWORD).await;
    ensure!(reply.outcome == AuthOutcome::Locked, "locked: {reply:?}");
    if arm.require_new_password(&new_dn).await? {
        let reply = checker.check(&new, PASSWORD).await;
        ensure!(reply.outcome == AuthOutcome::MustChange, "must change: {reply:?}");
        let reply = checker.check(&new, "Wrong horse 9").await;
        ensure!(reply.outcome == AuthOutcome::BadCredentials, "must change, wrong password: {reply:?}");
    }
    Ok(())
}

async fn hostile_names(mut arm: Arm) -> Result<()> {
    let root = arm.root.clone();
    // Active Directory forbids "/\[]:;|=,+*?<> in logins; the others take anything.
    let odd = match arm.product {
        Product::ActiveDirectory => format!("o'b (q) {}", arm.tag),
        Product::OpenLdap | Product::Ds389 => format!("o'b*(q)\\,+\"<;>=# {}", arm.tag),
    };
    let name = "O'Brien, \"Quo\" (x) \\ + ; < > # = \u{05d0}\u{05d1}";
    let dn = arm.add_person(&root, &NewPerson { name, login: &odd, password: PASSWORD }).await?;
    let checker = Checker::new(&arm)?;
    let reply = checker.check(&odd, PASSWORD).await;
    ensure!(reply.outcome == AuthOutcome::Ok, "{dn}: {reply:?}");

    let long = "x".repeat(1_000);
    let wide = format!("{}\u{202e}", arm.tag);
    let injected = format!("*){}(uid=*", arm.tag);
    for typed in ["*", "o'b*", &injected, "a\0b", "\\", "\u{202e}", &wide, &long, ")(", "(|(uid=*))", "\u{0}"]
    {
        let reply = checker.check(typed, PASSWORD).await;
        ensure!(reply.outcome == AuthOutcome::BadCredentials, "{typed:?}: {reply:?}");
    }
    ensure!(checker.module.binds() == 1, "{} binds instead of one", checker.module.binds());
    Ok(())
}

/// A telephone that repeats an old password every minute must not lock its owner out.
async fn a_repeated_wrong_password_locks_nobody(mut arm: Arm) -> Result<()> {
    let (login, root) = (arm.login_of("phone"), arm.root.clone());
    arm.add_person(&root, &NewPerson { name: "Phone Probe", login: &login, password: PASSWORD }).await?;
    let checker = Checker::new(&arm)?;
    for attempt in 0..3 * LOCKING_TRIES {
        let reply = checker.check(&login, "the old one").await;
        ensure!(reply.outcome == AuthOutcome::BadCredentials, "attempt {attempt}: {reply:?}");
    }
    let reply = checker.check(&login, PASSWORD).await;
    ensure!(reply.outcome == AuthOutcome::Ok, "the owner is locked out: {reply:?}");
    ensure!(checker.module.binds() == 2, "{} binds instead of two", checker.module.binds());
    Ok(())
}
