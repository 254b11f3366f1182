//! OpenSSL's word about what a device has: a program that shares no line with us.

use std::io::ErrorKind;
use std::path::Path;
use std::process::{Output, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use causeway_protocol::pkix::pem;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use super::Held;
use super::identity::IdentityFile;

/// How long it may take.
const WITHIN: Duration = Duration::from_secs(30);

/// What a step says whose certificate nobody judged, because there is no `openssl`.
pub const NO_OPENSSL: &str = "not checked: no openssl";

/// Lets `openssl verify` judge a certificate: its chain up to `root`, its purpose, the authority's CRL, all at that time and
/// by the letter of RFC 5280; and `openssl pkcs12` the file it came in, where there was one. Says what it found, or `None`
/// where there is no `openssl`.
///
/// # Errors
/// What it objects to.
pub async fn verify(held: &Held, root: &[u8], crl: &[u8], now_ms: i64) -> Result<Option<String>> {
    let folder = tempfile::tempdir().context("make a folder")?;
    let write = |file: &str, text: String| {
        std::fs::write(folder.path().join(file), text).with_context(|| format!("write {file}"))
    };
    let between: String = held.chain.iter().map(|it| pem::write("CERTIFICATE", it.raw())).collect();
    write("own.pem", pem::write("CERTIFICATE", held.certificate.raw()))?;
    write("chain.pem", between)?;
    write("root.pem", pem::write("CERTIFICATE", root))?;
    write("crl.pem", pem::write("X509 CRL", crl))?;
    let now = (now_ms / 1_000).to_string();
    let judge = ["verify", "-x509_strict", "-purpose", "sslclient", "-crl_check", "-attime", &now];
    let files = ["-CAfile", "root.pem", "-CRLfile", "crl.pem", "-untrusted", "chain.pem", "own.pem"];
    let arguments: Vec<&str> = judge.into_iter().chain(files).collect();
    let Some(ended) = openssl(folder.path(), &arguments, "").await? else { return Ok(None) };
    let said = String::from_utf8_lossy(&ended.stdout).trim().to_owned();
    if !ended.status.success() {
        bail!("openssl refuses it: {said} {}", String::from_utf8_lossy(&ended.stderr).trim());
    }
    ensure!(said == "own.pem: OK", "openssl says {said:?}");
    let mut found =
        format!("openssl verify: OK, its chain, its purpose and the CRL; it ends on {}", held.ends());
    if let Some(file) = &held.file {
        opens(file, held, folder.path()).await?;
        found += "; openssl pkcs12 opens its file: that key, that certificate and the chain";
    }
    Ok(Some(found))
}

/// Lets `openssl pkcs12` open a file without its old algorithms, and compares what is in it.
async fn opens(file: &IdentityFile, held: &Held, folder: &Path) -> Result<()> {
    std::fs::write(folder.join("own.p12"), &file.pkcs12).context("write own.p12")?;
    let arguments = ["pkcs12", "-in", "own.p12", "-passin", "stdin", "-nodes"];
    let ended = openssl(folder, &arguments, file.passphrase.expose()).await?.context("openssl is gone")?;
    if !ended.status.success() {
        bail!("openssl does not open the PKCS#12: {}", String::from_utf8_lossy(&ended.stderr).trim());
    }
    let text = String::from_utf8_lossy(&ended.stdout);
    let key = [pem::write("PRIVATE KEY", &held.key)];
    let chain = held.chain.iter().map(|it| pem::write("CERTIFICATE", it.raw()));
    let certificates = std::iter::once(pem::write("CERTIFICATE", held.certificate.raw())).chain(chain);
    for wanted in key.into_iter().chain(certificates) {
        let what = wanted.lines().next().unwrap_or_default();
        ensure!(text.contains(wanted.trim_end()), "openssl finds no such {what} in the PKCS#12");
    }
    let wrong = openssl(folder, &arguments, "another passphrase").await?.context("openssl is gone")?;
    ensure!(!wrong.status.success(), "openssl opens the PKCS#12 with any passphrase");
    Ok(())
}

/// One run; nothing where there is no such program.
async fn openssl(folder: &Path, arguments: &[&str], stdin: &str) -> Result<Option<Output>> {
    let mut command = Command::new("openssl");
    command.args(arguments).current_dir(folder).kill_on_drop(true);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).context("start openssl"),
    };
    if let Some(mut input) = child.stdin.take() {
        // Whether it reads that is its own affair: its verdict counts.
        let _ = input.write_all(stdin.as_bytes()).await;
    }
    let ended =
        tokio::time::timeout(WITHIN, child.wait_with_output()).await.context("openssl does not end")?;
    ended.map(Some).context("wait for openssl")
}
