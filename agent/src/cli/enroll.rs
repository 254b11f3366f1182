//! `enroll`: a key made here, certified by the cloud; bootstrap settings written beside it.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use causeway_protocol::Secret;
use clap::Args;

use super::DataDir;
use super::edit::Document;
use crate::channel::enrol::{EnrolmentKey, enrol};
use crate::cloud::CloudConnector;
use crate::config::{Endpoint, FILE_NAME, SettingsFile};
use crate::dial::tls::read_certificates;
use crate::identity::{self, Identity};
use crate::platform::{self, PlatformSealer};
use crate::random::RandomSource;
use crate::secrets::{SecretStore, write_private};

/// The cloud's authorities, copied beside the settings so that the original file may go.
const CA_FILE: &str = "cloud-ca.pem";

/// Arguments of `enroll`.
#[derive(Args)]
pub struct Enroll {
    /// The management cloud, https://host:port
    #[arg(long)]
    cloud: String,
    /// The one-time enrolment key, or - to read it from standard input
    #[arg(long)]
    key: String,
    /// PEM file with the authorities that may sign the cloud's certificate; default: the system's
    #[arg(long)]
    ca: Option<PathBuf>,
    /// http://[user:password@]host:port of a proxy that takes CONNECT
    #[arg(long)]
    proxy: Option<String>,
    #[command(flatten)]
    data_dir: DataDir,
}

impl Enroll {
    pub(super) async fn execute(self) -> anyhow::Result<ExitCode> {
        let data_dir = &self.data_dir.data_dir;
        platform::create_private_dir(data_dir).with_context(|| format!("create {}", data_dir.display()))?;
        if data_dir.join(identity::FILE_NAME).exists() {
            bail!(
                "{} holds an identity already; to enrol anew, remove {} first",
                data_dir.display(),
                identity::FILE_NAME
            );
        }
        let key = EnrolmentKey::parse(&self.key()?)?;
        let endpoint = Endpoint::parse(&self.cloud)
            .map_err(|problem| anyhow::anyhow!("--cloud {problem}; write it as https://host:port"))?;
        let mut secrets = SecretStore::load(data_dir, &PlatformSealer)?;
        let text = self.settings(data_dir, &mut secrets)?;
        let settings = SettingsFile::parse(data_dir.join(FILE_NAME), text)?;

        let dial = crate::dialer(&settings, &secrets, &RandomSource::system())?;
        let trust = crate::trust(&settings, data_dir);
        let domain = endpoint.host.clone();
        let connector = CloudConnector::new(dial, endpoint, trust, None)?.remembering(data_dir);
        let enrolled: Identity = enrol(&connector, &domain, key).await?;

        // The identity comes last: until it is there, `run` says that nobody has enrolled.
        write_private(&settings.path, settings.text.as_bytes())
            .with_context(|| format!("write {}", settings.path.display()))?;
        secrets.save(data_dir, &PlatformSealer)?;
        enrolled.save(data_dir, &PlatformSealer)?;
        let line = serde_json::json!({
            "enrolled": true,
            "instance": enrolled.instance,
            "tenant": enrolled.tenant,
            "cloud": self.cloud,
        });
        println!("{line}");
        Ok(ExitCode::SUCCESS)
    }

    fn key(&self) -> anyhow::Result<Secret> {
        if self.key != "-" {
            return Ok(Secret::new(self.key.clone()));
        }
        let mut text = String::new();
        std::io::stdin().take(4096).read_to_string(&mut text).context("read the key from standard input")?;
        Ok(Secret::new(text))
    }

    /// The new text of `agent.toml`; takes the proxy's password out of its address.
    fn settings(&self, data_dir: &Path, secrets: &mut SecretStore) -> anyhow::Result<String> {
        let mut document = Document::new(SettingsFile::load(data_dir)?.text);
        document.set("cloud", "url", &toml::Value::from(self.cloud.as_str()))?;
        if let Some(ca) = &self.ca {
            read_certificates(ca)?;
            let pem = fs::read(ca).with_context(|| format!("read {}", ca.display()))?;
            write_private(&data_dir.join(CA_FILE), &pem).with_context(|| format!("write {CA_FILE}"))?;
            document.set("cloud", "ca_file", &toml::Value::from(CA_FILE))?;
        }
        if let Some(spec) = &self.proxy {
            let spec = ProxySpec::parse(spec);
            document.set("proxy", "url", &toml::Value::from(spec.url))?;
            if let Some((username, password)) = spec.credentials {
                document.set("proxy", "username", &toml::Value::from(username))?;
                // An address with a password in it is how Basic is written; nobody has to allow it twice.
                document.set("proxy", "allow_basic", &toml::Value::from(true))?;
                *secrets = secrets.with("proxy_password", password);
            }
        }
        Ok(document.into_text())
    }
}

/// A proxy as it is given on a command line.
struct ProxySpec {
    url: String,
    credentials: Option<(String, Secret)>,
}

impl ProxySpec {
    fn parse(spec: &str) -> Self {
        let bare = spec.strip_prefix("http://").unwrap_or(spec);
        match bare.rsplit_once('@') {
            Some((user, at)) => {
                let (name, password) = user.split_once(':').unwrap_or((user, ""));
                let credentials = Some((name.to_owned(), Secret::new(password)));
                Self { url: format!("http://{at}"), credentials }
            }
            None if spec.contains("://") => Self { url: spec.to_owned(), credentials: None },
            None => Self { url: format!("http://{bare}"), credentials: None },
        }
    }
}
