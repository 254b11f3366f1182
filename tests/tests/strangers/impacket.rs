//! impacket's `GetADUsers.py`: NTLM inside SASL GSS-SPNEGO, paged search. It connects to port 389 and to no other, so
//! mock-ldap gets a loopback address of its own, which needs the right to bind low ports.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use causeway_mock_ldap::{Config, MockLdap};
use causeway_tests::{containers, program, python, skips};
use tokio::process::Command;

/// An address of the loopback network that nothing else here uses.
const HOST: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 9));

const WITHIN: Duration = Duration::from_secs(60);

#[tokio::test]
async fn get_ad_users_lists_everyone_over_ntlm() -> Result<()> {
    let Some(python) = python::interpreter() else { return Ok(()) };
    if let Err(error) = TcpListener::bind((HOST, 389)) {
        ensure!(error.kind() == ErrorKind::PermissionDenied, "bind {HOST}:389: {error}");
        skips::skip("impacket", "may not listen on port 389; run as root or allow low ports");
        return Ok(());
    }
    let mut config = Config::of("active_directory");
    config.common.users = 120;
    config.common.listen = HOST;
    config.common.ports.insert("ldap".to_owned(), 389);
    let mock = MockLdap::start(config).await?;
    let account = mock.service_account();
    let user = account.user.split_once('\\').context("the account's name has a domain")?.1;
    let script = containers::peers_dir().join("venv/bin/GetADUsers.py");

    // The tool takes a password only as an argument; this one lives as long as the test.
    let target = |password: &str| format!("acme.example/{user}:{password}");
    let mut command = Command::new(&python);
    command.arg(&script).args(["-all", "-dc-ip", &HOST.to_string()]).arg(target(&account.password));
    let printed = program::run(&mut command, "", WITHIN).await?.expect_success().stdout;
    let listed: Vec<&str> = printed.lines().filter_map(|line| line.split_whitespace().next()).collect();
    for person in &mock.world().people {
        ensure!(listed.contains(&&*person.login), "{} is not listed in\n{printed}", person.login);
    }
    let bound =
        |entry: &causeway_mock_kit::journal::Entry| entry.operation == "bind" && entry.outcome == "success";
    let journal = mock.journal().after(0);
    ensure!(journal.iter().any(bound), "no bind succeeded: {journal:?}");

    let mut command = Command::new(&python);
    command.arg(&script).args(["-all", "-dc-ip", &HOST.to_string()]).arg(target("wrong"));
    let printed = program::run(&mut command, "", WITHIN).await?;
    ensure!(printed.stdout.contains("data 52e"), "a wrong password: {printed:?}");
    Ok(())
}
