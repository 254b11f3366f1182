//! OpenSSL as the responder that the simulated server asks: its answers, and answers of those it has not appointed.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use causeway_protocol::pkix::{Certificate, pem};
use causeway_scenarios::device::{OcspError, Question, Standing};
use causeway_tests::program;
use tokio::process::Command;

const WITHIN: Duration = Duration::from_secs(60);

const DAY_MS: i64 = 86_400_000;

/// An authority of OpenSSL's, a certificate of a phone, and two that want to speak for the authority: the second was
/// not appointed.
const SETUP: &str = "
    req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout ca.key -out ca.pem -subj /CN=Judge -days 30
    req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout own.key -out own.csr -subj /CN=phone-1
    x509 -req -in own.csr -CA ca.pem -CAkey ca.key -set_serial 0x8123 -days 10 -out own.pem
    req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout responder.key -out responder.csr -subj /CN=Responder
    x509 -req -in responder.csr -CA ca.pem -CAkey ca.key -set_serial 2 -days 10 -extfile appointed -out responder.pem
    x509 -req -in responder.csr -CA ca.pem -CAkey ca.key -set_serial 3 -days 10 -out usurper.pem";

async fn openssl(program: &Path, folder: &Path, arguments: &str) -> Result<()> {
    let mut command = Command::new(program);
    command.args(arguments.split_whitespace()).current_dir(folder);
    program::run(&mut command, "", WITHIN).await?.expect_success();
    Ok(())
}

#[tokio::test]
async fn what_openssl_answers_is_understood() -> Result<()> {
    let Some(openssl_program) = program::find("openssl", "openssl") else { return Ok(()) };
    let folder = tempfile::tempdir()?;
    let path = folder.path();
    std::fs::write(path.join("appointed"), "extendedKeyUsage = OCSPSigning\n")?;
    for line in SETUP.lines().filter(|line| !line.trim().is_empty()) {
        openssl(&openssl_program, path, line).await?;
    }
    let (own, issuer) = (read(&path.join("own.pem"))?, read(&path.join("ca.pem"))?);
    let question = Question::new(&own, &issuer, [7; 16]);
    std::fs::write(path.join("question.der"), question.to_der())?;
    let now_ms = own.not_before_ms() + 60_000;
    let revoked = "R\t361231000000Z\t261101120000Z,keyCompromise\t8123\tunknown\t/CN=phone-1\n";
    let books = ["V\t361231000000Z\t\t8123\tunknown\t/CN=phone-1\n", revoked, ""];
    let answer = async |signer: &str, key: &str| {
        let who = format!("-rsigner {signer} -rkey {key} -CA ca.pem -index index.txt");
        let what = "-reqin question.der -respout answer.der -ndays 1";
        openssl(&openssl_program, path, &format!("ocsp {who} {what}")).await?;
        Ok::<_, anyhow::Error>(std::fs::read(path.join("answer.der"))?)
    };
    for (line, expected) in
        books.iter().zip([Standing::Good, Standing::Revoked(1_793_534_400_000, Some(1)), Standing::Unknown])
    {
        std::fs::write(path.join("index.txt"), line)?;
        for (signer, key) in [("ca.pem", "ca.key"), ("responder.pem", "responder.key")] {
            let said = question.read(&answer(signer, key).await?, now_ms)?;
            ensure!(said == expected, "{signer}: {said:?} instead of {expected:?}");
        }
    }
    std::fs::write(path.join("index.txt"), books[0])?;
    let usurped = question.read(&answer("usurper.pem", "responder.key").await?, now_ms);
    ensure!(matches!(usurped, Err(OcspError::Signer)), "not appointed: {usurped:?}");
    let good = answer("ca.pem", "ca.key").await?;
    let other = Question::new(&own, &issuer, [8; 16]).read(&good, now_ms);
    ensure!(matches!(other, Err(OcspError::Nonce)), "another question: {other:?}");
    let other = Question::new(&issuer, &issuer, [7; 16]).read(&good, now_ms);
    ensure!(matches!(other, Err(OcspError::About)), "another certificate: {other:?}");
    for (days, when) in [(3, "old"), (-1, "of the future")] {
        let untimely = question.read(&good, now_ms + days * DAY_MS);
        ensure!(matches!(untimely, Err(OcspError::Time)), "{when}: {untimely:?}");
    }
    for at in 0..good.len() {
        let mut spoilt = good.clone();
        spoilt[at] ^= 0x01;
        // Whatever stands outside of what is signed may change without harm; it never becomes another answer.
        let said = question.read(&spoilt, now_ms);
        ensure!(matches!(said, Err(_) | Ok(Standing::Good)), "byte {at}: {said:?}");
    }
    Ok(())
}

fn read(file: &Path) -> Result<Certificate> {
    let text = std::fs::read_to_string(file)?;
    let der = pem::read("CERTIFICATE", &text).into_iter().next().context("a certificate in PEM")?;
    Ok(Certificate::read(&der)?)
}
