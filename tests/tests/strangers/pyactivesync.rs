//! pyactivesync: WBXML, provisioning, folders, mail and waiting as a phone of its own sees them.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use causeway_mock_exchange::config::DefaultAccess;
use causeway_mock_exchange::{Config, MockExchange};
use causeway_tests::program::ProgramRun;
use causeway_tests::python;

const USER: &str = "asmith";
const DEVICE: &str = "PYEAS1";

/// What the phone says it waits with before it is blocked; see the script.
const HEARTBEAT_SECS: u32 = 900;

const WITHIN: Duration = Duration::from_secs(90);

#[tokio::test]
async fn a_phone_until_it_is_blocked() -> Result<()> {
    let mock = start(DefaultAccess::Allow).await?;
    let (run, blocked) = tokio::join!(script(&mock, "allowed"), block_when_it_waits(&mock));
    let Some(run) = run? else { return Ok(()) };
    run.expect_success();
    ensure!(blocked, "the phone never waited");
    Ok(())
}

#[tokio::test]
async fn a_held_phone() -> Result<()> {
    let mock = start(DefaultAccess::Quarantine).await?;
    if let Some(run) = script(&mock, "held").await? {
        run.expect_success();
    }
    Ok(())
}

async fn start(default_access: DefaultAccess) -> Result<MockExchange> {
    let mut config = Config { partnerships: Some(0), default_access, ..Config::default() };
    config.common.users = 30;
    Ok(MockExchange::start(config).await?)
}

async fn script(mock: &MockExchange, mode: &str) -> Result<Option<ProgramRun>> {
    let world = mock.world();
    let password = world.password_of(USER).context("the user has a password")?;
    let address = world.company().person(USER).context("the user exists")?.mail.to_string();
    let ca = mock.ca().pem_path().to_str().context("the CA's path is UTF-8")?;
    let arguments = [mock.address("activesync"), ca, USER, &address, mode];
    python::run("pyactivesync_phone.py", &arguments, &[("CAUSEWAY_PASSWORD", &password)], WITHIN).await
}

/// Blocks the phone once it waits for news. False when that did not happen, as without Python.
async fn block_when_it_waits(mock: &MockExchange) -> bool {
    if python::interpreter().is_none() {
        return false;
    }
    let world = mock.world();
    let mut changes = world.changes();
    let waiting = async {
        loop {
            changes.borrow_and_update();
            let mailbox = world.mailbox(USER);
            let phone = mailbox.and_then(|mailbox| world.partnership(mailbox, DEVICE));
            let heartbeat = phone.and_then(|phone| {
                world.read(None, |reader| reader.device(phone).and_then(|it| it.contact.ping_heartbeat_secs))
            });
            if heartbeat == Some(HEARTBEAT_SECS) {
                return mailbox;
            }
            // The world outlives this wait.
            let _ = changes.changed().await;
        }
    };
    match tokio::time::timeout(WITHIN, waiting).await {
        Ok(Some(mailbox)) => {
            world.write(None, |writer| writer.change_cas(mailbox, |cas| cas.blocked.push(DEVICE.into())))
        }
        _ => false,
    }
}
