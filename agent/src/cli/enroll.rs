//! `enroll`: a key made here, certified by the cloud; bootstrap settings written beside it.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use causeway_protocol::Secret;
use clap::Args;

use super::DataDir;
use super::draft::Draft;
use crate::channel::enrol::{EnrolmentKey, enrol};
use crate::cloud::CloudConnector;
use crate::config::Endpoint;
use crate::dial::tls::read_certificates;
use crate::identity::{self, Identity};
use crate::platform::{self, PlatformSealer};
use crate::random::RandomSource;
use crate::secrets::write_private;

/// The cloud's authorities, copied beside the settings so that the original file may go.
pub(super) const CA_FILE: &str = "cloud-ca.pem";

/// Longest enrolment key read from standard input or a file, in bytes.
const KEY_MAX_BYTES: u64 = 4096;

/// Arguments of `enroll`.
#[derive(Args)]
pub struct Enroll {
    /// The management cloud, https://host:port
    #[arg(long)]
    cloud: String,
    /// The one-time enrolment key, or - to read it from standard input
    #[arg(long, required_unless_present_any = ["key_env", "key_file"], conflicts_with_all = ["key_env", "key_file"])]
    key: Option<String>,
    /// Environment variable that holds the enrolment key
    #[arg(long, value_name = "NAME", conflicts_with = "key_file")]
    key_env: Option<String>,
    /// File that holds the enrolment key
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
    /// PEM file with the authorities that may sign the cloud's certificate; default: the system's
    #[arg(long)]
    ca: Option<PathBuf>,
    /// The way out: http://[user:password@]host:port or https://... of a proxy that takes CONNECT, pac+http://...,
    /// pac+file:///..., auto (WPAD), env, system, none; default: the environment's variables
    #[arg(long)]
    proxy: Option<String>,
    /// What this agent is called in the portal; default: the host's name
    #[arg(long)]
    name: Option<String>,
    /// Succeed without doing anything when this data directory is enrolled with that cloud already
    #[arg(long)]
    if_needed: bool,
    #[command(flatten)]
    data_dir: DataDir,
}

impl Enroll {
    pub(super) async fn execute(self) -> anyhow::Result<ExitCode> {
        let data_dir = &self.data_dir.data_dir;
        platform::create_private_dir(data_dir).with_context(|| format!("create {}", data_dir.display()))?;
        let mut draft = Draft::load(data_dir)?;
        if data_dir.join(identity::FILE_NAME).exists() {
            return self.enrolled_already(&draft);
        }
        let key = self.key()?;
        Endpoint::parse(&self.cloud)
            .map_err(|problem| anyhow::anyhow!("--cloud {problem}; write it as https://host:port"))?;
        draft.set("cloud", "url", self.cloud.as_str())?;
        if let Some(name) = &self.name {
            draft.set("cloud", "display_name", name.as_str())?;
        }
        if let Some(ca) = &self.ca {
            keep_authorities(&mut draft, ca)?;
        }
        if let Some(spec) = &self.proxy {
            set_proxy(&mut draft, spec)?;
        }
        let enrolled = join(&draft, key).await?;
        println!("{}", outcome(&enrolled, &self.cloud, true));
        Ok(ExitCode::SUCCESS)
    }

    fn enrolled_already(&self, draft: &Draft) -> anyhow::Result<ExitCode> {
        let data_dir = &draft.data_dir;
        if !self.if_needed {
            bail!(
                "{} holds an identity already; to enrol anew, remove {} first",
                data_dir.display(),
                identity::FILE_NAME
            );
        }
        let url = draft.settings()?.settings.cloud.url;
        if url != self.cloud {
            bail!(
                "{} is enrolled with {url}, not with {}; use another --data-dir",
                data_dir.display(),
                self.cloud
            );
        }
        let identity = Identity::load(data_dir, &PlatformSealer)?;
        println!("{}", outcome(&identity, &self.cloud, false));
        Ok(ExitCode::SUCCESS)
    }

    fn key(&self) -> anyhow::Result<Secret> {
        match (&self.key, &self.key_env, &self.key_file) {
            (_, Some(name), _) => from_environment(name),
            (_, _, Some(path)) => from_file(path),
            (Some(key), ..) if key != "-" => Ok(Secret::new(key.clone())),
            _ => from_stdin(),
        }
    }
}

fn outcome(identity: &Identity, cloud: &str, changed: bool) -> serde_json::Value {
    serde_json::json!({
        "enrolled": true,
        "changed": changed,
        "instance": identity.instance,
        "tenant": identity.tenant,
        "cloud": cloud,
    })
}

/// Enrols with the draft's settings and writes all of it. The identity comes last: until it is there, `run` says that
/// nobody has enrolled.
///
/// # Errors
/// Says what went wrong; nothing but copies of authorities is on disk then.
pub(super) async fn join(draft: &Draft, key: Secret) -> anyhow::Result<Identity> {
    let data_dir = &draft.data_dir;
    let key = EnrolmentKey::parse(&key)?;
    let settings = draft.settings()?;
    let endpoint = crate::endpoint(&settings)?;
    let dial = crate::dialer(&settings, &draft.secrets, &RandomSource::system())?;
    let trust = crate::trust(&settings, data_dir);
    let domain = endpoint.host.clone();
    let connector = CloudConnector::new(dial, endpoint, trust, None)?.remembering(data_dir);
    let enrolled = enrol(&connector, &domain, settings.settings.cloud.shown_name(), key).await?;
    draft.save()?;
    enrolled.save(data_dir, &PlatformSealer)?;
    Ok(enrolled)
}

/// Copies a file of authorities beside the settings.
///
/// # Errors
/// When it holds none.
pub(super) fn keep_authorities(draft: &mut Draft, file: &Path) -> anyhow::Result<()> {
    read_certificates(file)?;
    let pem = fs::read(file).with_context(|| format!("read {}", file.display()))?;
    let kept = draft.data_dir.join(CA_FILE);
    if fs::read(&kept).ok().as_deref() != Some(&*pem) {
        write_private(&kept, &pem).with_context(|| format!("write {CA_FILE}"))?;
    }
    draft.set("cloud", "ca_file", CA_FILE)
}

/// Takes a proxy as it is given on a command line apart; its password goes among the secrets.
///
/// # Errors
/// When the settings cannot be changed by a program.
pub(super) fn set_proxy(draft: &mut Draft, spec: &str) -> anyhow::Result<()> {
    let mode = match spec {
        "none" | "auto" | "system" | "environment" => Some(spec),
        "env" => Some("environment"),
        _ => None,
    };
    if let Some(mode) = mode {
        return draft.set("proxy", "mode", mode);
    }
    if let Some(script) = spec.strip_prefix("pac+") {
        draft.set("proxy", "mode", "pac")?;
        return draft.set("proxy", "pac_url", script);
    }
    if draft.settings()?.settings.proxy.is_some_and(|proxy| proxy.mode.is_some()) {
        draft.set("proxy", "mode", "manual")?;
    }
    let (scheme, bare) = spec.split_once("://").unwrap_or(("http", spec));
    let (url, credentials) = match bare.rsplit_once('@') {
        Some((user, at)) => (format!("{scheme}://{at}"), Some(user.split_once(':').unwrap_or((user, "")))),
        None => (format!("{scheme}://{bare}"), None),
    };
    draft.set("proxy", "url", url)?;
    if let Some((username, password)) = credentials {
        draft.set("proxy", "username", username)?;
        // An address with a password in it is how Basic is written; nobody has to allow it twice.
        draft.set("proxy", "allow_basic", true)?;
        draft.set_secret("proxy_password", Secret::new(password));
    }
    Ok(())
}

/// A secret from an environment variable.
///
/// # Errors
/// When it is not set or empty.
pub(super) fn from_environment(name: &str) -> anyhow::Result<Secret> {
    match std::env::var(name) {
        Ok(text) if !text.is_empty() => Ok(Secret::new(text)),
        _ => bail!("the environment variable {name} is not set or empty"),
    }
}

/// A secret from a file, without its last line end.
///
/// # Errors
/// When it cannot be read or is empty.
pub(super) fn from_file(path: &Path) -> anyhow::Result<Secret> {
    let file = fs::File::open(path).with_context(|| format!("open {}", path.display()))?;
    one_line(file).with_context(|| format!("read a secret from {}", path.display()))
}

/// A secret from standard input, without its last line end.
///
/// # Errors
/// When there is none.
pub(super) fn from_stdin() -> anyhow::Result<Secret> {
    one_line(std::io::stdin()).context("read a secret from standard input")
}

fn one_line(source: impl Read) -> anyhow::Result<Secret> {
    let mut text = zeroize::Zeroizing::new(String::new());
    source.take(KEY_MAX_BYTES).read_to_string(&mut text)?;
    let secret = text.strip_suffix('\n').unwrap_or(&text);
    let secret = secret.strip_suffix('\r').unwrap_or(secret);
    if secret.is_empty() {
        bail!("there is no secret in it");
    }
    Ok(Secret::new(secret))
}
