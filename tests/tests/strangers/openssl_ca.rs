//! OpenSSL as judge of everything mock-ca issues and publishes.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use causeway_mock_ca::core::{Decision, Issued, Reason, Signer, Submission};
use causeway_mock_ca::{Config, MockCa};
use causeway_protocol::certificate::KeyKind;
use causeway_protocol::pkix::{AlternativeName, CsrDraft, Digest, Key, Name, pem};
use causeway_tests::program;
use tokio::process::Command;

const WITHIN: Duration = Duration::from_secs(60);

/// Runs `openssl` in a folder; its output, and whether it was content.
async fn openssl(folder: &Path, arguments: &[&str]) -> Result<Option<(bool, String)>> {
    let Some(program) = program::find("openssl", "openssl") else { return Ok(None) };
    let mut command = Command::new(program);
    command.args(arguments).current_dir(folder);
    let run = program::run(&mut command, "", WITHIN).await?;
    Ok(Some((run.status.success(), format!("{}{}", run.stdout, run.stderr))))
}

macro_rules! judged {
    ($folder:expr, $($argument:expr),+ $(,)?) => {
        match openssl($folder, &[$($argument),+]).await? {
            Some((true, output)) => output,
            Some((false, output)) => anyhow::bail!("openssl {}: {output}", [$($argument),+].join(" ")),
            None => return Ok(()),
        }
    };
}

/// A certificate for a person, over the core: which way it came does not matter here.
async fn issue(mock: &MockCa, name: &str, kind: KeyKind) -> Result<std::sync::Arc<Issued>> {
    let key = Key::generate(kind)?;
    let draft = CsrDraft {
        subject: Name::parse(&format!("CN={name},OU=Sales Zürich,DC=acme,DC=example"))?,
        alternative_names: [
            "upn:asmith@acme.example",
            "email:a.smith@acme.example",
            "dns:phone.acme.example",
        ]
        .into_iter()
        .map(AlternativeName::parse)
        .collect::<Result<_, _>>()?,
        sid: Some("S-1-5-21-1-2-3-1001".to_owned()),
        ..CsrDraft::default()
    };
    let csr = draft.sign(&key, Digest::Sha256)?;
    let submission = Submission { front: "test", csr: &csr, requester: "test", ..Submission::default() };
    match mock.authority().await.submit(&submission, |_| Ok(())) {
        Decision::Issued(issued) => Ok(issued),
        other => anyhow::bail!("not issued: {other:?}"),
    }
}

/// Writes the root, the issuing authority and a certificate as PEM.
async fn write(mock: &MockCa, folder: &Path, issued: &Issued) -> Result<()> {
    let hierarchy = mock.authority().await.hierarchy();
    let issuer = &hierarchy.generations[issued.generation as usize].authority.certificate;
    std::fs::write(folder.join("root.pem"), pem::write("CERTIFICATE", hierarchy.root.certificate.raw()))?;
    std::fs::write(folder.join("ca.pem"), pem::write("CERTIFICATE", issuer.raw()))?;
    std::fs::write(folder.join("own.pem"), pem::write("CERTIFICATE", &issued.certificate))?;
    for (file, ra) in ["ra-0.pem", "ra-1.pem"].iter().zip(hierarchy.current().ra_certificates()) {
        std::fs::write(folder.join(file), pem::write("CERTIFICATE", ra))?;
    }
    Ok(())
}

#[tokio::test]
async fn chains_verify_and_say_what_they_should() -> Result<()> {
    for (authority, own) in [(KeyKind::Rsa2048, KeyKind::Rsa2048), (KeyKind::P256, KeyKind::P256)] {
        let mut config = Config::default();
        config.authority.key = authority;
        let mock = MockCa::start(config).await?;
        let folder = tempfile::tempdir()?;
        let folder = folder.path();
        let issued = issue(&mock, "phone-1", own).await?;
        write(&mock, folder, &issued).await?;
        let chain = ["-x509_strict", "-CAfile", "root.pem", "-untrusted", "ca.pem"];
        let [strict, anchor, root, more, ca] = chain;
        judged!(folder, "verify", strict, "-purpose", "sslclient", anchor, root, more, ca, "own.pem");
        judged!(folder, "verify", strict, anchor, root, more, ca, "ra-0.pem", "ra-1.pem");
        let text =
            judged!(folder, "x509", "-in", "own.pem", "-noout", "-text", "-nameopt", "utf8,sep_comma_plus");
        for expected in [
            "CN=phone-1",
            "Sales Zürich",
            "Digital Signature, Key Encipherment",
            "TLS Web Client Authentication",
            "UPN::asmith@acme.example",
            "email:a.smith@acme.example",
            "DNS:phone.acme.example",
            "1.3.6.1.4.1.311.25.2",
            mock.url("ocsp"),
            &format!("{}/0.crl", mock.url("crl")),
        ] {
            ensure!(text.contains(expected), "no {expected:?} in {text}");
        }
        let serial = judged!(folder, "x509", "-in", "own.pem", "-noout", "-serial");
        ensure!(serial.trim() == format!("serial={}", issued.serial.to_string().to_uppercase()), "{serial}");
    }
    Ok(())
}

#[tokio::test]
async fn lists_and_answers_follow_a_revocation() -> Result<()> {
    let mock = MockCa::start(Config::default()).await?;
    let folder = tempfile::tempdir()?;
    let folder = folder.path();
    let issued = issue(&mock, "phone-1", KeyKind::P256).await?;
    let other = issue(&mock, "phone-2", KeyKind::P256).await?;
    write(&mock, folder, &other).await?;
    std::fs::rename(folder.join("own.pem"), folder.join("other.pem"))?;
    write(&mock, folder, &issued).await?;
    let url = mock.url("ocsp");
    let ask = [
        "ocsp",
        "-issuer",
        "ca.pem",
        "-cert",
        "own.pem",
        "-cert",
        "other.pem",
        "-url",
        url,
        "-CAfile",
        "root.pem",
    ];
    let [a, b, c, d, e, f, g, h, i, j, k] = ask;
    let said = judged!(folder, a, b, c, d, e, f, g, h, i, j, k, "-verify_other", "ca.pem", "-nonce");
    ensure!(said.contains("Response verify OK") && said.contains("own.pem: good"), "{said}");
    ensure!(!said.contains("nonce") && !said.contains("Nonce"), "the nonce comes back: {said}");
    let authority = mock.authority().await;
    authority.revoke(&issued.serial, Reason::KeyCompromise)?;
    let said = judged!(folder, a, "-sha256", b, c, d, e, f, g, h, i, j, k, "-no_nonce");
    ensure!(said.contains("Response verify OK") && said.contains("own.pem: revoked"), "{said}");
    ensure!(said.contains("Reason: keyCompromise") && said.contains("other.pem: good"), "{said}");

    std::fs::write(folder.join("list.crl"), authority.crl(Signer::Generation(0)).context("a list")?)?;
    let list =
        judged!(folder, "crl", "-in", "list.crl", "-inform", "DER", "-noout", "-text", "-CAfile", "ca.pem");
    ensure!(list.contains("verify OK") && list.contains("Key Compromise"), "{list}");
    ensure!(list.contains(&issued.serial.to_string().to_uppercase()), "{list}");
    ensure!(!list.contains(&other.serial.to_string().to_uppercase()), "{list}");
    judged!(folder, "crl", "-in", "list.crl", "-inform", "DER", "-out", "list.pem");
    let checked =
        ["verify", "-crl_check", "-CRLfile", "list.pem", "-CAfile", "root.pem", "-untrusted", "ca.pem"];
    let [a, b, c, d, e, f, g, h] = checked;
    judged!(folder, a, b, c, d, e, f, g, h, "other.pem");
    std::fs::write(folder.join("root.crl"), authority.crl(Signer::Root).context("the root's list")?)?;
    judged!(folder, "crl", "-in", "root.crl", "-inform", "DER", "-out", "root-list.pem");
    judged!(folder, a, "-crl_check_all", "-CRLfile", "root-list.pem", c, d, e, f, g, h, "other.pem");
    let above = ["ocsp", "-issuer", "root.pem", "-cert", "ca.pem", "-url", url, "-CAfile", "root.pem"];
    let [i, j, k, l, m, n, o, p, q] = above;
    let said = judged!(folder, i, j, k, l, m, n, o, p, q);
    ensure!(said.contains("Response verify OK") && said.contains("ca.pem: good"), "{said}");
    let said = judged!(folder, "x509", "-in", "ca.pem", "-noout", "-text");
    ensure!(said.contains("/crl/root.crl") && said.contains("/crl/root.cer"), "{said}");
    let Some((content, said)) = openssl(folder, &[a, b, c, d, e, f, g, h, "own.pem"]).await? else {
        return Ok(());
    };
    ensure!(!content && said.contains("certificate revoked"), "{said}");
    Ok(())
}
