//! `enroll`: a key made here, certified by the cloud; bootstrap settings written beside it.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, anyhow, bail};
use causeway_protocol::Secret;
use clap::Args;

use super::DataDir;
use super::draft::Draft;
use super::say;
use crate::channel::enrol::{EnrolError, EnrolmentKey, enrol};
use crate::cloud::{CloudConnector, CloudError};
use crate::config::Endpoint;
use crate::dial::connect_proxy::Credentials;
use crate::dial::proxy::environment::credentials;
use crate::dial::tls::{TlsError, Trust, read_certificates};
use crate::identity::{self, Identity};
use crate::limits::{ENROLMENT_ROOM_BYTES, SECRET_MAX_BYTES};
use crate::platform::{self, PlatformSealer};
use crate::random::RandomSource;
use crate::secrets::write_private;

/// The cloud's authorities, copied beside the settings so that the original file may go.
pub(super) const CA_FILE: &str = "cloud-ca.pem";

/// Keeps room on the disk while the key is being spent.
const ROOM_FILE: &str = "enroll.room";

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
        say::line(outcome(&enrolled, &self.cloud, true))?;
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
        say::line(outcome(&identity, &self.cloud, false))?;
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
/// Says what went wrong; nothing but copies of authorities is on disk then, unless it says that the key is spent.
pub(super) async fn join(draft: &Draft, key: Secret) -> anyhow::Result<Identity> {
    let data_dir = &draft.data_dir;
    let key = EnrolmentKey::parse(&key)?;
    let settings = draft.settings()?;
    let room = Room::keep(data_dir, ENROLMENT_ROOM_BYTES + draft.bytes_max())?;
    let endpoint = crate::endpoint(&settings)?;
    let dial = crate::dialer(&settings, &draft.secrets, &RandomSource::system())?;
    let trust = crate::trust(&settings, data_dir);
    let domain = endpoint.host.clone();
    let connector = CloudConnector::new(dial, endpoint, trust.clone(), None)?.remembering(data_dir);
    let name = settings.settings.cloud.shown_name();
    let enrolled =
        enrol(&connector, &domain, name, key).await.map_err(|error| with_authorities(error, &trust))?;
    drop(room);
    let kept = draft.save().and_then(|()| Ok(enrolled.save(data_dir, &PlatformSealer)?));
    kept.context("the enrolment key is spent and nothing came of it; make a new one in the cloud's portal")?;
    Ok(enrolled)
}

/// Room on the disk, given back when dropped: a key that is spent for an identity which cannot be written is lost.
struct Room(PathBuf);

impl Room {
    fn keep(data_dir: &Path, bytes: usize) -> anyhow::Result<Self> {
        let room = Self(data_dir.join(ROOM_FILE));
        // Some file systems store zeros in no room at all.
        let mut filling = vec![0; bytes];
        let filled = aws_lc_rs::rand::fill(&mut filling).map_err(|_| io::Error::other("no random bytes"));
        filled.and_then(|()| write_private(&room.0, &filling)).with_context(|| {
            let folder = data_dir.display();
            format!("make sure of {bytes} bytes in {folder} (the enrolment key is not spent)")
        })?;
        Ok(room)
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// Before the first login nothing shows yet that the authorities given are the cloud's: somebody between us may have signed
/// what we see, or the file may be the wrong one.
fn with_authorities(error: EnrolError, trust: &Trust) -> anyhow::Error {
    let EnrolError::Connect { source } = &error else { return error.into() };
    let (host, issuer) = match source.source.downcast_ref::<CloudError>() {
        Some(CloudError::Inspected { host, issuer }) => (host, issuer),
        Some(CloudError::Tls { host, source }) => match &**source {
            TlsError::Untrusted { problem, .. } if problem.is_foreign() => (host, &problem.issuer),
            _ => return error.into(),
        },
        _ => return error.into(),
    };
    let (known, advice) = match trust {
        Trust::File(path) => (path.display().to_string(), "give the cloud's own authority"),
        Trust::System => ("this machine's store".to_owned(), "name the file with the cloud's own authority"),
    };
    anyhow!(
        "the certificate shown for {host} is signed by {issuer}, which is not in {known}; {advice} (--ca, ca_file in a file \
         of answers), or exclude {host} from TLS inspection where that is what {issuer} does"
    )
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
    let (url, user) = match bare.rsplit_once('@') {
        Some((user, at)) => (format!("{scheme}://{at}"), Some(credentials(user))),
        None => (format!("{scheme}://{bare}"), None),
    };
    draft.set("proxy", "url", url)?;
    if let Some(Credentials { username, password }) = user {
        draft.set("proxy", "username", username)?;
        // An address with a password in it is how Basic is written; nobody has to allow it twice.
        draft.set("proxy", "allow_basic", true)?;
        draft.set_secret("proxy_password", password);
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
    // Room for all of it: a text that grows leaves copies behind.
    let mut text = zeroize::Zeroizing::new(String::with_capacity(SECRET_MAX_BYTES + 1));
    source.take(SECRET_MAX_BYTES as u64 + 1).read_to_string(&mut text)?;
    if text.len() > SECRET_MAX_BYTES {
        bail!("it is longer than {SECRET_MAX_BYTES} bytes");
    }
    let secret = text.strip_suffix('\n').unwrap_or(&text);
    let secret = secret.strip_suffix('\r').unwrap_or(secret);
    if secret.is_empty() {
        bail!("there is no secret in it");
    }
    Ok(Secret::new(secret))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_whole_or_refused() {
        let long = "k".repeat(SECRET_MAX_BYTES);
        assert_eq!(
            one_line(format!("{long}\n").as_bytes()).map_err(|e| e.to_string()).err().as_deref(),
            Some("it is longer than 65536 bytes")
        );
        assert_eq!(one_line(long.as_bytes()).unwrap().expose(), long);
        assert_eq!(one_line(&b"one\ntwo\r\n"[..]).unwrap().expose(), "one\ntwo");
        assert!(one_line(&b"\n"[..]).is_err());
    }

    #[test]
    fn a_proxy_s_address_is_read_as_the_environment_s_is() {
        let dir = tempfile::tempdir().unwrap();
        let mut draft = Draft::load(dir.path()).unwrap();
        set_proxy(&mut draft, "http://CORP%5Cuser:Can%40ary%2F1@127.0.0.1:18999").unwrap();
        let proxy = draft.settings().unwrap().settings.proxy.unwrap();
        assert_eq!(proxy.url.as_deref(), Some("http://127.0.0.1:18999"));
        assert_eq!(proxy.username.as_deref(), Some("CORP\\user"));
        assert_eq!(draft.secrets.get("proxy_password").unwrap().expose(), "Can@ary/1");
    }

    #[test]
    fn a_foreign_certificate_may_be_a_wrong_ca_as_well_as_an_inspection() {
        let said = |error: CloudError, trust: &Trust| {
            let source = crate::channel::ConnectError { source: Box::new(error) };
            format!("{:#}", with_authorities(EnrolError::Connect { source }, trust))
        };
        let (host, issuer) = ("cloud.example".to_owned(), "CN=Somebody".to_owned());
        let seen = CloudError::Inspected { host: host.clone(), issuer: issuer.clone() };
        let text = said(seen, &Trust::File("wrong.pem".into()));
        assert!(text.contains("signed by CN=Somebody, which is not in wrong.pem"), "{text}");
        assert!(text.contains("--ca") && text.contains("TLS inspection"), "{text}");
        let unknown = |error| {
            let problem =
                crate::dial::tls::Refused { reason: "reason".to_owned(), issuer: issuer.clone(), error };
            let source = TlsError::Untrusted { name: host.clone(), problem: Box::new(problem) };
            CloudError::Tls { host: host.clone(), source: Box::new(source) }
        };
        let text = said(unknown(rustls::CertificateError::UnknownIssuer), &Trust::System);
        assert!(
            text.contains("not in this machine's store; name the file") && text.contains("--ca"),
            "{text}"
        );
        // What has nothing to do with who signed is told as it is, once.
        let text = said(unknown(rustls::CertificateError::Expired), &Trust::System);
        assert_eq!(text.matches("reason (issued by CN=Somebody)").count(), 1, "{text}");
        assert!(!text.contains("--ca"), "{text}");
    }

    #[tokio::test]
    async fn without_room_for_the_identity_the_key_is_not_spent() {
        let cloud = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        cloud.set_nonblocking(true).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let mut draft = Draft::load(dir.path()).unwrap();
        draft.set("cloud", "url", format!("https://{}", cloud.local_addr().unwrap())).unwrap();
        // Stands for a disk that is full: no file can be where this folder is.
        fs::create_dir_all(dir.path().join(ROOM_FILE).join("x")).unwrap();
        let Err(error) = join(&draft, Secret::new("cw1-k-s")).await else { panic!("joined") };
        assert!(format!("{error:#}").contains("make sure of"), "{error:#}");
        assert_eq!(cloud.accept().unwrap_err().kind(), std::io::ErrorKind::WouldBlock, "the cloud was asked");
        fs::remove_dir_all(dir.path().join(ROOM_FILE)).unwrap();
        let room = Room::keep(dir.path(), 5_000).unwrap();
        assert_eq!(fs::metadata(dir.path().join(ROOM_FILE)).unwrap().len(), 5_000);
        drop(room);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
