//! python ldap3: binds, schema, paging, writes, DirSync, NTLM.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use causeway_mock_kit::world::{Company, CompanySpec};
use causeway_mock_ldap::{Config, MockLdap};
use causeway_tests::containers::{OpenLdap, Seed};
use causeway_tests::{ldif, python};

/// More than two of the script's pages of 17.
const PEOPLE: usize = 50;

/// The script's own waits are 20 s each at most.
const WITHIN: Duration = Duration::from_secs(90);

#[tokio::test]
async fn mock_active_directory() -> Result<()> {
    against_mock("active_directory").await
}

#[tokio::test]
async fn mock_openldap() -> Result<()> {
    against_mock("openldap").await
}

#[tokio::test]
async fn openldap() -> Result<()> {
    let company = Company::generate(&CompanySpec { users: PEOPLE, ..CompanySpec::default() });
    let mut seed = Vec::new();
    ldif::write_company(&company, "dc=acme,dc=example", &mut seed)?;
    let seed = Seed::Text(String::from_utf8(seed).context("LDIF is text")?);
    let Some(server) = OpenLdap::start(seed).await? else { return Ok(()) };
    let folder = tempfile::tempdir()?;
    let ca = folder.path().join("ca.pem");
    std::fs::write(&ca, &server.ca_pem)?;
    let login = (server.login.as_str(), server.password.as_str(), "");
    script([&server.url("ldap"), &server.url("ldaps")], &ca, &server.base_dn, login, "openldap").await
}

async fn against_mock(personality: &str) -> Result<()> {
    let mut config = Config::of(personality);
    config.common.users = PEOPLE;
    let mock = MockLdap::start(config).await?;
    let account = mock.service_account();
    let base = mock.directory().base_dn().to_owned();
    let urls = [mock.url("ldap"), mock.url("ldaps")];
    let login = (account.dn.as_str(), account.password.as_str(), account.user.as_str());
    script(urls, mock.ca().pem_path(), &base, login, personality).await
}

async fn script(
    urls: [&str; 2],
    ca: &Path,
    base: &str,
    login: (&str, &str, &str),
    personality: &str,
) -> Result<()> {
    let (dn, password, domain_user) = login;
    let ca = ca.to_str().context("the CA's path is UTF-8")?;
    let arguments = [urls[0], urls[1], ca, base, dn, "asmith", personality];
    let environment = [("CAUSEWAY_PASSWORD", password), ("CAUSEWAY_DOMAIN_USER", domain_user)];
    if let Some(run) = python::run("python_ldap3.py", &arguments, &environment, WITHIN).await? {
        run.expect_success();
    }
    Ok(())
}
