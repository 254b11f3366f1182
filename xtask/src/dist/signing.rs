//! Signatures on what Windows runs.
//!
//! A release names its certificate by `CAUSEWAY_SIGN_CERT` and `CAUSEWAY_SIGN_KEY` (PEM files) and, for a time stamp,
//! `CAUSEWAY_SIGN_TIMESTAMP_URL`. Without them a certificate is made here, whose name says what it is worth.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use super::Dist;
use crate::process;

/// The name on signatures that mean nothing.
const TEST_NAME: &str = "/CN=Causeway TEST certificate, not for production/O=Causeway TEST";

/// What a signature shows.
const PRODUCT: &str = "Causeway agent";

/// Certificate and key.
pub(super) struct Signer {
    certificate: PathBuf,
    key: PathBuf,
    timestamp_url: Option<String>,
}

impl Signer {
    /// From the environment, or a new one for tests.
    pub(super) fn new(dist: &Dist<'_>) -> anyhow::Result<Self> {
        let given = |name: &str| std::env::var_os(name).map(PathBuf::from);
        match (given("CAUSEWAY_SIGN_CERT"), given("CAUSEWAY_SIGN_KEY")) {
            (Some(certificate), Some(key)) => {
                let timestamp_url = std::env::var("CAUSEWAY_SIGN_TIMESTAMP_URL").ok();
                Ok(Self { certificate, key, timestamp_url })
            }
            (None, None) => Self::for_tests(dist),
            _ => bail!("CAUSEWAY_SIGN_CERT and CAUSEWAY_SIGN_KEY belong together"),
        }
    }

    fn for_tests(dist: &Dist<'_>) -> anyhow::Result<Self> {
        println!("   CAUSEWAY_SIGN_CERT is not set: signing with a TEST certificate that nobody trusts");
        let (certificate, key) = (dist.work.join("test-signer.pem"), dist.work.join("test-signer.key"));
        if !(certificate.exists() && key.exists()) {
            let mut command = dist.session.command("openssl");
            command.args(["req", "-x509", "-newkey", "rsa:3072", "-nodes", "-sha256", "-days", "365"]);
            command.args(["-subj", TEST_NAME, "-addext", "extendedKeyUsage=codeSigning"]);
            command.arg("-keyout").arg(&key).arg("-out").arg(&certificate);
            process::quiet(&mut command)?;
        }
        Ok(Self { certificate, key, timestamp_url: None })
    }

    /// Signs `from` into `to`, and reads the signature back.
    pub(super) fn sign(&self, dist: &Dist<'_>, from: &Path, to: &Path) -> anyhow::Result<()> {
        if to.exists() {
            std::fs::remove_file(to).with_context(|| format!("remove {}", to.display()))?;
        }
        let mut command = dist.session.command("osslsigncode");
        command.args(["sign", "-h", "sha256", "-n", PRODUCT]);
        command.arg("-certs").arg(&self.certificate).arg("-key").arg(&self.key);
        match &self.timestamp_url {
            Some(url) => command.args(["-ts", url]),
            // A time that the sources fix, instead of now.
            None => command.args(["-time", &dist.epoch.to_string()]),
        };
        command.arg("-in").arg(from).arg("-out").arg(to);
        process::quiet(&mut command)?;
        self.verify(dist, to)
    }

    fn verify(&self, dist: &Dist<'_>, path: &Path) -> anyhow::Result<()> {
        let mut command = dist.session.command("osslsigncode");
        command.arg("verify").arg("-CAfile").arg(&self.certificate).arg("-in").arg(path);
        let told = process::quiet(&mut command)?;
        if !told.contains("Signature verification: ok") {
            bail!("the signature of {} does not verify:\n{}", path.display(), process::tail(&told, 20));
        }
        println!("   signed and verified: {}", path.file_name().unwrap_or_default().to_string_lossy());
        Ok(())
    }
}
