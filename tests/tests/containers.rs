//! The real servers themselves: that they start, answer with a certificate that verifies, let their administrator
//! in, hold the seed, and go away with whoever started them.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use causeway_tests::containers::{
    Address, Ds389, Ejabberd, OpenLdap, Prosody, Running, SambaDc, Seed, answers,
};
use causeway_tests::python;
use ldap3::{LdapConnAsync, LdapConnSettings, Scope};
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto::aws_lc_rs};

const SEED: &str = "\
dn: dc=acme,dc=example
objectClass: top
objectClass: domain
dc: acme

dn: ou=people,dc=acme,dc=example
objectClass: organizationalUnit
ou: people

dn: uid=asmith,ou=people,dc=acme,dc=example
objectClass: inetOrgPerson
uid: asmith
cn: Alice Smith
sn: Smith
userPassword: correct horse

dn: cn=staff,ou=people,dc=acme,dc=example
objectClass: groupOfNames
cn: staff
member: uid=asmith,ou=people,dc=acme,dc=example
";

/// `clearTextPassword` is UTF-16, here of `Passw0rd-1`.
const DOMAIN_SEED: &str = "\
dn: CN=Alice Smith,CN=Users,DC=acme,DC=example
objectClass: user
sAMAccountName: asmith
userPrincipalName: asmith@acme.example
userAccountControl: 512
clearTextPassword:: UABhAHMAcwB3ADAAcgBkAC0AMQA=
";

#[tokio::test]
async fn openldap_holds_its_seed_with_memberships_and_identities() -> anyhow::Result<()> {
    let Some(server) = OpenLdap::start(Seed::Text(SEED.into())).await? else { return Ok(()) };
    seeded_person_signs_in(&server).await
}

#[tokio::test]
async fn ds389_holds_its_seed_with_memberships_and_identities() -> anyhow::Result<()> {
    let Some(server) = Ds389::start(Seed::Text(SEED.into())).await? else { return Ok(()) };
    seeded_person_signs_in(&server).await
}

#[tokio::test]
async fn samba_replicates_its_seed_to_a_second_controller() -> anyhow::Result<()> {
    let Some(first) = SambaDc::start(Seed::Text(DOMAIN_SEED.into())).await? else { return Ok(()) };
    let Some(second) = SambaDc::join(&first).await? else { return Ok(()) };
    for server in [&first, &second] {
        let found = search_as(server, "asmith@acme.example", "Passw0rd-1", "(sAMAccountName=asmith)").await?;
        ensure!(found.len() == 1, "{server:?} found {found:?}");
    }
    Ok(())
}

#[tokio::test]
async fn shared_servers_answer_their_administrators() -> anyhow::Result<()> {
    for server in
        [OpenLdap::shared().await?, Ds389::shared().await?, SambaDc::shared().await?].into_iter().flatten()
    {
        let found = search_as(&server, &server.login, &server.password, "(objectClass=*)").await?;
        ensure!(!found.is_empty(), "{server:?} shows its administrator nothing below {}", server.base_dn);
    }
    Ok(())
}

#[tokio::test]
async fn xmpp_servers_answer() -> anyhow::Result<()> {
    for server in [Prosody::start().await?, Ejabberd::start().await?].into_iter().flatten() {
        answers(&server).await.with_context(|| format!("{server:?}"))?;
    }
    Ok(())
}

#[tokio::test]
async fn a_server_is_gone_once_it_is_dropped() -> anyhow::Result<()> {
    let Some(server) = OpenLdap::start(Seed::Empty).await? else { return Ok(()) };
    let address: Address = (*server).clone();
    answers(&address).await?;
    tokio::task::spawn_blocking(move || drop(server)).await?;
    ensure!(answers(&address).await.is_err(), "{address:?} still answers");
    Ok(())
}

#[tokio::test]
async fn a_broken_seed_is_an_error_that_shows_the_servers_own_words() -> anyhow::Result<()> {
    let started = OpenLdap::start(Seed::Text("dn: dc=acme,dc=example\nobjectClass: nonsense\n".into())).await;
    match started {
        Ok(None) => Ok(()),
        Ok(Some(server)) => anyhow::bail!("{server:?} started with a seed it cannot hold"),
        Err(error) => {
            let text = format!("{error:#}");
            ensure!(text.contains("ended before it was ready") && text.contains("Invalid syntax"), "{text}");
            Ok(())
        }
    }
}

#[tokio::test]
async fn python_clients_have_the_pinned_versions() -> anyhow::Result<()> {
    let names = ["ldap3", "impacket", "slixmpp", "websockets"];
    let Some(run) = python::run("versions.py", &names, &[], Duration::from_secs(30)).await? else {
        return Ok(());
    };
    let printed = run.expect_success().stdout;
    for line in printed.lines() {
        let pinned = line.replace(' ', "==");
        ensure!(include_str!("../requirements.txt").contains(&pinned), "{pinned} is not what is pinned");
    }
    ensure!(printed.lines().count() == names.len(), "printed {printed:?}");
    Ok(())
}

#[tokio::test]
async fn a_python_client_that_hangs_is_killed() -> anyhow::Result<()> {
    let Some(_) = python::interpreter() else { return Ok(()) };
    let error = python::run("hang.py", &[] as &[&str], &[], Duration::from_millis(500)).await.err();
    let text = format!("{:#}", error.context("a script that never ends has ended")?);
    ensure!(text.contains("ran longer than") && text.contains("waiting for nothing"), "{text}");
    Ok(())
}

async fn seeded_person_signs_in(server: &Running) -> anyhow::Result<()> {
    let dn = "uid=asmith,ou=people,dc=acme,dc=example";
    let found = search_as(server, dn, "correct horse", "(uid=asmith)").await?;
    let [entry] = found.as_slice() else { anyhow::bail!("{server:?} found {found:?}") };
    let has = |name: &str| entry.attrs.keys().any(|key| key.eq_ignore_ascii_case(name));
    ensure!(has("memberOf") && has("entryUUID"), "{server:?} answered {entry:?}");
    let wrong = search_as(server, dn, "wrong", "(uid=asmith)").await;
    ensure!(
        wrong.is_err_and(|error| format!("{error:#}").contains("rc=49")),
        "a wrong password was not refused"
    );
    Ok(())
}

async fn search_as(
    server: &Address,
    name: &str,
    password: &str,
    filter: &str,
) -> anyhow::Result<Vec<ldap3::SearchEntry>> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(server.ca_pem.as_bytes()) {
        roots.add(certificate?)?;
    }
    let tls = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let settings =
        LdapConnSettings::new().set_conn_timeout(Duration::from_secs(10)).set_config(Arc::new(tls));
    let (connection, mut ldap) = LdapConnAsync::with_settings(settings, &server.url("ldaps")).await?;
    ldap3::drive!(connection);
    ldap.simple_bind(name, password).await?.success()?;
    let attributes = vec!["*", "memberOf", "entryUUID"];
    let (entries, _) = ldap.search(&server.base_dn, Scope::Subtree, filter, attributes).await?.success()?;
    ldap.unbind().await?;
    Ok(entries.into_iter().map(ldap3::SearchEntry::construct).collect())
}
