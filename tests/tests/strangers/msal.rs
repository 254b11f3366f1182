//! MSAL for Python: Exchange Online's token endpoint as Microsoft's own library sees it, and the admin REST with its tokens.

use std::time::Duration;

use anyhow::{Context, Result};
use causeway_mock_exchange::{Config, MockExchange};
use causeway_tests::python;

/// Several pages of seven, the last of them not full.
const PARTNERSHIPS: usize = 25;

const WITHIN: Duration = Duration::from_secs(90);

#[tokio::test]
async fn an_application_of_exchange_online() -> Result<()> {
    let mut config = Config::of("online");
    config.common.users = 30;
    config.partnerships = Some(PARTNERSHIPS);
    let mock = MockExchange::start(config).await?;
    let organisation = mock.world();
    let facts = organisation.facts();
    let ca = mock.ca().pem_path().to_str().context("the CA's path is UTF-8")?;
    let partnerships = PARTNERSHIPS.to_string();
    let arguments = [
        mock.url("token"),
        mock.url("rest"),
        mock.url("admin"),
        ca,
        &facts.client_id,
        &facts.domain,
        &partnerships,
    ];
    if let Some(run) = python::run("msal_online.py", &arguments, &[], WITHIN).await? {
        run.expect_success();
    }
    Ok(())
}
