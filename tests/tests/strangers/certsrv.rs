//! certsrv: AD CS web enrolment as a client of its own reads the pages, over HTTPS with Basic and with NTLM.

use std::time::Duration;

use anyhow::{Context, Result};
use causeway_mock_ca::{Config, MockCa};
use causeway_tests::python;

const WITHIN: Duration = Duration::from_secs(120);

#[tokio::test]
async fn certsrv_against_the_mock() -> Result<()> {
    let mut config = Config::default();
    config.common.users = 20;
    let mock = MockCa::start(config).await?;
    let (user, password) = mock.service_account();
    let world = mock.world();
    let upn = world.company.upn(world.company.service_account.login);
    let ca = mock.tls_ca().pem_path().to_str().context("the CA's path is UTF-8")?;
    let arguments = [mock.url("certsrv"), mock.url("admin"), ca, &user, &upn];
    let environment = [("CAUSEWAY_PASSWORD", password.as_str())];
    if let Some(run) = python::run("certsrv_pages.py", &arguments, &environment, WITHIN).await? {
        run.expect_success();
    }
    Ok(())
}
