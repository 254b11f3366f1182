//! pypsrp and pywinrm: WSMan, PSRP, CLIXML, NTLM and sealing as clients of their own see them.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use causeway_mock_exchange::config::ChannelBinding;
use causeway_mock_exchange::{Config, MockExchange};
use causeway_mock_kit::cli::RunningMock as _;
use causeway_tests::python;

/// Enough for several pages of a Receive, few enough for a client that reads some hundred objects a second.
const PARTNERSHIPS: usize = 40;

const WITHIN: Duration = Duration::from_secs(120);

#[tokio::test]
async fn pypsrp_against_the_mock() -> Result<()> {
    let mock = start().await?;
    let mailbox = mock.world().company().people[0].mail.to_string();
    script(&mock, "pypsrp_session.py", &[&mailbox]).await
}

#[tokio::test]
async fn pywinrm_against_the_mock() -> Result<()> {
    script(&start().await?, "pywinrm_shell.py", &[]).await
}

#[tokio::test]
async fn extended_protection_is_enforced() -> Result<()> {
    let mut config = small();
    config.powershell.channel_binding = ChannelBinding::Require;
    let mock = MockExchange::start(config).await?;
    let admin = mock.service_account();
    let ca = mock.ca().pem_path().to_str().context("the CA's path is UTF-8")?;
    let arguments = [mock.url("powershell"), ca, &admin.user];
    let environment = [("CAUSEWAY_PASSWORD", admin.password.as_str())];
    if let Some(run) = python::run("pypsrp_binding.py", &arguments, &environment, WITHIN).await? {
        run.expect_success();
    }
    Ok(())
}

/// The session the README opens with, run as it stands there.
#[tokio::test]
async fn the_session_of_the_readme() -> Result<()> {
    let Some(interpreter) = python::interpreter() else { return Ok(()) };
    let readme = include_str!("../../../mock-exchange/README.md");
    let (_, rest) = readme.split_once("```python\n").context("the README has a session")?;
    let (session, _) = rest.split_once("```").context("the session ends")?;
    let mock = start().await?;
    let folder = tempfile::tempdir()?;
    std::fs::write(folder.path().join("ready.json"), serde_json::to_string(&mock.ready())?)?;
    std::fs::write(folder.path().join("session.py"), session)?;
    let mut command = tokio::process::Command::new(interpreter);
    command.arg("session.py").current_dir(folder.path());
    let printed = causeway_tests::program::run(&mut command, "", WITHIN).await?.expect_success().stdout;
    let lines: Vec<&str> = printed.lines().collect();
    anyhow::ensure!(lines.len() == 5, "five devices were asked for:\n{printed}");
    anyhow::ensure!(
        lines.iter().all(|line| line.contains('\u{a7}')),
        "identities have a section sign:\n{printed}"
    );
    Ok(())
}

fn small() -> Config {
    let mut config = Config::default();
    config.common.users = 30;
    config.partnerships = Some(PARTNERSHIPS);
    config
}

async fn start() -> Result<MockExchange> {
    Ok(MockExchange::start(small()).await?)
}

async fn script(mock: &MockExchange, name: &str, more: &[&str]) -> Result<()> {
    let admin = mock.service_account();
    let ca: &Path = mock.ca().pem_path();
    let ca = ca.to_str().context("the CA's path is UTF-8")?;
    let mut arguments = vec![mock.url("powershell"), mock.url("powershell_http"), ca, &admin.user];
    arguments.extend(more);
    if let Some(run) =
        python::run(name, &arguments, &[("CAUSEWAY_PASSWORD", &admin.password)], WITHIN).await?
    {
        run.expect_success();
    }
    Ok(())
}
