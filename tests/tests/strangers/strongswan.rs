//! strongSwan's `pki` as a client of SCEP and as a judge of the OCSP responder.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use causeway_mock_ca::core::{Reason, Serial, State};
use causeway_mock_ca::{Config, MockCa};
use causeway_protocol::pkix::{Certificate, KeyUsage, pem};
use causeway_tests::program::{self, ProgramRun};
use tokio::process::Command;
use tokio::time::Instant;

const WITHIN: Duration = Duration::from_secs(60);

/// `pki` in a folder.
struct Pki<'a> {
    program: PathBuf,
    folder: &'a Path,
}

impl<'a> Pki<'a> {
    /// `None` where it is not installed, or without the plugin it fetches with.
    fn find(folder: &'a Path) -> Option<Self> {
        program::find("libstrongswan-curl.so", "libstrongswan-extra-plugins")?;
        Some(Self { program: program::find("pki", "strongswan-pki")?, folder })
    }

    /// Runs it with arguments that are separated by spaces.
    async fn run(&self, arguments: &str) -> Result<ProgramRun> {
        let mut command = Command::new(&self.program);
        command.args(arguments.split_whitespace()).current_dir(self.folder);
        program::run(&mut command, "", WITHIN).await
    }

    /// Makes an RSA key.
    async fn key(&self, file: &str) -> Result<()> {
        let made = self.run("--gen --type rsa --size 2048 --outform pem").await?;
        Ok(std::fs::write(self.folder.join(file), made.expect_success().stdout)?)
    }

    /// Writes the certificate that a run has printed; its serial number.
    fn keep(&self, run: ProgramRun, file: &str) -> Result<Serial> {
        let printed = run.expect_success().stdout;
        let der = pem::read("CERTIFICATE", &printed).into_iter().next().context("it prints a certificate")?;
        std::fs::write(self.folder.join(file), &printed)?;
        Serial::from_bytes(Certificate::read(&der)?.serial_raw()).context("a serial number of ours")
    }
}

fn challenge(mock: &MockCa) -> Result<String> {
    mock.world().challenges.config().fixed.clone().context("a static challenge")
}

#[tokio::test]
async fn enrols_renews_and_waits_at_an_authority_of_its_own() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let Some(pki) = Pki::find(folder.path()) else { return Ok(()) };
    let mock = MockCa::start(Config::of("rfc8894")).await?;
    let authority = mock.authority().await;
    let (url, challenge) = (mock.url("scep"), challenge(&mock)?);
    pki.run(&format!("--scepca --url {url} --caout ca.der")).await?.expect_success();
    pki.key("key.pem").await?;
    pki.key("next.pem").await?;
    let scep = format!("--scep --url {url} --cacert-enc ca.der --cacert-sig ca.der --outform pem");

    let first = format!("{scep} --in key.pem --dn CN=phone-1 --san phone-1.acme.example");
    let run = pki.run(&format!("{first} --password 0000000000000000")).await?;
    ensure!(!run.status.success() && run.stderr.contains("badRequest"), "{}", run.stderr);
    ensure!(authority.issued_count() == 0, "a wrong challenge gets no certificate");
    let run = pki.run(&format!("{first} --password {challenge}")).await?;
    let first = pki.keep(run, "own.pem")?;

    // No challenge: the certificate in use is the proof.
    let renewal = "--in next.pem --dn CN=phone-1 --san phone-1.acme.example --cert own.pem --key key.pem";
    let second = pki.keep(pki.run(&format!("{scep} {renewal}")).await?, "renewed.pem")?;
    ensure!(first != second, "a renewal is another certificate");

    let waiting = format!("--in next.pem --dn CN=phone-2 --password {challenge} --profile ApprovedDevice");
    let waiting = format!("{scep} {waiting} --interval 1 --maxpolltime 30");
    let (run, approved) = tokio::join!(pki.run(&waiting), approve_the_first(&mock));
    approved?;
    pki.keep(run?, "approved.pem")?;
    ensure!(authority.issued_count() == 3, "three certificates were issued");
    online_status(&pki, &mock, second).await
}

/// Approves what waits as soon as something does.
async fn approve_the_first(mock: &MockCa) -> Result<()> {
    let authority = mock.authority().await;
    let deadline = Instant::now() + WITHIN;
    loop {
        let waiting = authority.requests(1, |request| matches!(request.state, State::Pending { .. }));
        if let Some(request) = waiting.first() {
            authority.approve(request.id).context("approve the request")?;
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "no request waits for approval");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// `--online` asks the responder the certificate names, and checks who has signed the answer.
async fn online_status(pki: &Pki<'_>, mock: &MockCa, serial: Serial) -> Result<()> {
    let verify = "--verify --in renewed.pem --cacert ca.der --online";
    let run = pki.run(verify).await?.expect_success();
    let said = format!("{}{}", run.stdout, run.stderr);
    ensure!(said.contains("ocsp response correctly signed"), "{said}");
    ensure!(said.contains("certificate status is good"), "{said}");
    mock.authority().await.revoke(&serial, Reason::KeyCompromise)?;
    let run = pki.run(verify).await?;
    let said = format!("{}{}", run.stdout, run.stderr);
    ensure!(!run.status.success() && said.contains("reason: key compromise"), "{said}");
    Ok(())
}

/// strongSwan 5.9.8 looks at the bit beside the one it means: it believes in 3DES where AES is offered. So that word stands
/// among the capabilities here, which the product does not say.
#[tokio::test]
async fn enrols_at_ndes_through_its_two_certificates() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let Some(pki) = Pki::find(folder.path()) else { return Ok(()) };
    let mut config = Config::of("ndes");
    let words = ["POSTPKIOperation", "Renewal", "SHA-512", "SHA-256", "SHA-1", "DES3", "AES"];
    config.scep.capabilities = Some(words.map(str::to_owned).to_vec());
    let mock = MockCa::start(config).await?;
    let (url, challenge) = (mock.url("scep"), challenge(&mock)?);
    pki.run(&format!("--scepca --url {url} --caout ca.der --raout ra.der")).await?.expect_success();
    pki.key("key.pem").await?;
    // They come in the order of their bytes (a SET OF), so in another one each time.
    let one = Certificate::read(&std::fs::read(folder.path().join("ra.der"))?)?;
    let first = one.allows(KeyUsage::KEY_ENCIPHERMENT);
    let (enc, sig) = if first { ("ra.der", "ra-2.der") } else { ("ra-2.der", "ra.der") };
    let certificates = format!("--cacert-enc {enc} --cacert-sig {sig} --cacert ca.der --cacert ca-1.der");
    let wish = format!("--in key.pem --dn CN=phone-1 --password {challenge} --cipher des3 --outform pem");
    let run = pki.run(&format!("--scep --url {url} {certificates} {wish}")).await?;
    let serial = pki.keep(run, "own.pem")?;
    let issued = mock.authority().await.certificate(&serial).context("it stands in the books")?;
    ensure!(issued.subject == "CN=phone-1", "it is for {}", issued.subject);
    Ok(())
}
