//! OpenSSL's word about what a device has: a program that shares no line with us.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use causeway_protocol::pkix::pem;
use tokio::process::Command;

use super::Held;

/// How long it may take.
const WITHIN: Duration = Duration::from_secs(30);

/// Lets `openssl verify` judge a certificate: its chain up to `root`, its purpose, the authority's CRL, all at that time and
/// by the letter of RFC 5280. Says what it found, or `None` where there is no `openssl`.
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
    let mut command = Command::new("openssl");
    command.args(judge).args(files).current_dir(folder.path()).stdin(Stdio::null()).kill_on_drop(true);
    let ended = match tokio::time::timeout(WITHIN, command.output()).await.context("openssl does not end")? {
        Ok(ended) => ended,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).context("start openssl"),
    };
    let said = String::from_utf8_lossy(&ended.stdout).trim().to_owned();
    if !ended.status.success() {
        bail!("openssl refuses it: {said} {}", String::from_utf8_lossy(&ended.stderr).trim());
    }
    ensure!(said == "own.pem: OK", "openssl says {said:?}");
    Ok(Some(format!("openssl verify: OK, its chain, its purpose and the CRL; it ends on {}", held.ends())))
}
