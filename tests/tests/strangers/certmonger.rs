//! certmonger: keys, requests, GET messages of 3.6 KB, renewal with another key, all by the program itself. It runs on a
//! private socket with folders of its own, so it needs neither D-Bus nor the system's certmonger.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use causeway_mock_ca::core::RaMode;
use causeway_mock_ca::{Config, MockCa};
use causeway_protocol::pkix::{Certificate, pem};
use causeway_tests::program;
use tokio::process::Command;

const WITHIN: Duration = Duration::from_secs(60);

/// What certmonger runs while it is up, in `/`. `-w` waits for the end of a request; the renewal shows the certificate in use
/// instead of a challenge, and has a new key. An answer that refuses has no content (RFC 8894 section 3.3.2.2), which
/// certmonger's OpenSSL takes for a broken one: it says CA_UNREACHABLE instead of CA_REJECTED.
const SESSION: &str = r#"
set -eu
cd "$FOLDER"
getcert add-scep-ca -c mock -u "$URL" -r "$PWD/signer.pem" -N "$PWD/root.pem" -I "$PWD/above.pem"
getcert request -c mock -I one -k "$PWD/key.pem" -f "$PWD/own.pem" -N CN=phone-1 -L "$CHALLENGE" -w
cp own.pem first.pem
getcert rekey -i one -w
getcert request -c mock -I two -k "$PWD/key-2.pem" -f "$PWD/wrong.pem" -N CN=phone-2 -L 0000000000000000 -w || true
getcert list
"#;

#[tokio::test]
async fn enrols_and_renews_at_an_authority_of_its_own() -> Result<()> {
    session(Config::of("rfc8894")).await
}

/// certmonger encrypts for the first certificate of an RA that it is given, whatever that is for, so this RA has one for both.
#[tokio::test]
async fn enrols_and_renews_at_ndes() -> Result<()> {
    let mut config = Config::of("ndes");
    config.authority.ra = Some(RaMode::Single);
    session(config).await
}

async fn session(config: Config) -> Result<()> {
    let Some(certmonger) = program::find("certmonger", "certmonger") else { return Ok(()) };
    let mock = MockCa::start(config).await?;
    let challenge = mock.world().challenges.config().fixed.clone().context("a static challenge")?;
    let folder = tempfile::tempdir()?;
    let path = folder.path();
    write_authority(&mock, path).await?;
    // What certmonger runs gets no environment.
    let values = format!("FOLDER={}\nURL={}\nCHALLENGE={challenge}", path.display(), mock.url("scep"));
    std::fs::write(path.join("session.sh"), format!("{values}\n{SESSION}"))?;
    let mut command = Command::new(certmonger);
    for folder in ["REQUESTS_DIR", "CAS_DIR", "CONFIG_DIR", "LOCAL_CA_DIR", "TMPDIR"] {
        let own = path.join(folder);
        std::fs::create_dir(&own)?;
        command.env(format!("CERTMONGER_{folder}"), own);
    }
    let begin = format!("sh {}", path.join("session.sh").display());
    command.arg("-n").arg("-L").arg("-P").arg(path.join("socket")).arg("-c").arg(begin);
    let run = program::run(&mut command, "", WITHIN).await?;
    let said = format!("{}{}", run.stdout, run.stderr);
    let (first, renewed) = (read(&path.join("first.pem"), &said)?, read(&path.join("own.pem"), &said)?);
    ensure!(first.subject().to_string() == "CN=phone-1", "{}", first.subject());
    ensure!(renewed.subject_raw() == first.subject_raw(), "a renewal keeps the name");
    ensure!(!renewed.public_key().same_as(first.public_key()), "and has the new key");
    ensure!(!path.join("wrong.pem").exists(), "a wrong challenge gets nothing: {said}");
    let issued = mock.authority().await.issued_count();
    ensure!(issued == 2, "{issued} certificates were issued: {said}");
    Ok(())
}

/// The root, who signs SCEP's answers, and what stands between.
async fn write_authority(mock: &MockCa, folder: &Path) -> Result<()> {
    let hierarchy = mock.authority().await.hierarchy();
    let authority = hierarchy.current().authority.certificate.raw();
    let ra = hierarchy.current().ra_certificates();
    let signer = ra.first().map_or(authority, |it| it);
    let write = |file: &str, der: &[u8]| std::fs::write(folder.join(file), pem::write("CERTIFICATE", der));
    write("root.pem", hierarchy.root.certificate.raw())?;
    write("signer.pem", signer)?;
    Ok(write("above.pem", authority)?)
}

fn read(file: &Path, said: &str) -> Result<Certificate> {
    let text = std::fs::read_to_string(file).with_context(|| format!("no {}: {said}", file.display()))?;
    let der = pem::read("CERTIFICATE", &text).into_iter().next().context("a certificate in PEM")?;
    Ok(Certificate::read(&der)?)
}
