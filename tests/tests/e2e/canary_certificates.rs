//! The secrets of certificates, planted and searched for as the others are: while orders are under way, and afterwards.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use causeway_agent::cli::{self, Arguments};
use causeway_agent::config;
use causeway_agent::secrets::{self, FileModeSealer, SecretStore};
use causeway_mock_ca::{Config, MockCa};
use causeway_mock_kit::cli::RunningMock as _;
use causeway_mock_kit::fault::{Fault, Rule};
use causeway_protocol::Secret;
use causeway_protocol::certificate::{Identity, KeyKind};
use causeway_protocol::cms::EnvelopedData;
use causeway_protocol::pkix::{Accept, CsrDraft, Digest, Key, Name};
use causeway_scenarios::http::Client;
use causeway_tests::company::Company;
use causeway_tests::tls;
use clap::Parser;
use serde_json::{Value, json};

use super::canary::{Canary, Log, Place, files, path, search};

/// One step on a loaded machine.
const WITHIN: Duration = Duration::from_secs(60);

/// Longest wait of one call, milliseconds.
const WAIT_MS: u64 = 20_000;

/// Where secrets of an agent are kept.
const KEPT: &[&str] = &[secrets::FILE_NAME];

/// A company with an authority, and everything that is secret about it.
struct Site {
    company: Company,
    ca: MockCa,
    log: Log,
    listening: bool,
    canaries: Vec<Canary>,
    devices: Vec<Client>,
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_of_certificates_is_anywhere_but_where_it_is_kept() -> Result<()> {
    let log = Log::default();
    let listening = log.listen();
    let ca = MockCa::start(Config::default()).await.context("start mock-ca")?;
    let company = Company::start(20).await?;
    let mut site = Site { company, ca, log, listening, canaries: Vec::new(), devices: Vec::new() };
    site.agent().await?;
    site.profiles().await?;

    // Device mode, with an order that waits for a person: sealed on both sides' disks.
    let device = site.device("u-1").await?;
    let waiting = site.challenged(&device).await?;
    site.look("while an order is under way").await?;
    let authority = site.ca.authority().await;
    let asked = authority.requests(10, |_| true);
    authority.approve(asked.last().context("nothing waits at the authority")?.id)?;
    decided(&device, &waiting, "issued").await?;
    // A challenge that is refused goes into errors and timelines.
    let other = site.device("u-2").await?;
    site.ca.faults().add(Rule::new(Fault::Custom { word: "expired_challenge".into(), args: <_>::default() }));
    let refused = site.challenged_as(&other, "identity", "failed").await?;
    ensure!(refused["error"]["code"] == "ca_challenge_refused", "{refused}");
    site.ca.faults().clear();
    // A challenge that is always the same, at an authority that does not take it.
    let fixed = site.challenged_as(&other, "fixed", "failed").await?;
    ensure!(fixed["error"]["code"] == "ca_refused", "{fixed}");
    // Agent mode: the file and its passphrase are the device's alone.
    site.identity(&device).await?;

    site.bundle().await?;
    site.company.stop_agent("agent").await;
    let kept = site.look("at the end").await?;
    ensure!(kept >= 3, "only {kept} of the authority's secrets were found where they are kept");
    Ok(())
}

impl Site {
    /// Plants the secrets and starts the agent that has them.
    async fn agent(&mut self) -> Result<()> {
        let data_dir = self.company.enrol("agent").await?;
        let (user, password) = self.ca.service_account();
        let fixed = "canary-of-a-fixed-challenge".to_owned();
        let ready = self.ca.ready();
        let file = |key: &str| {
            let name = ready.accounts.get("mpki").and_then(|account| account[key].as_str());
            name.map(str::to_owned).with_context(|| format!("mock-ca names no {key}"))
        };
        let certificate_file = data_dir.join("ra.pem");
        std::fs::copy(file("certificate_file")?, &certificate_file)?;
        let key = std::fs::read_to_string(file("key_file")?)?;
        let middle = key.lines().nth(1).context("a key has lines")?.to_owned();
        let ca_file = data_dir.join("authority-ca.pem");
        std::fs::copy(self.ca.tls_ca().pem_path(), &ca_file)?;
        let fingerprint = self.ca.authority().await.hierarchy().current().authority.certificate.sha256();
        let scep = json!({ "urls": [self.ca.url("scep")], "fingerprint": fingerprint, "ca_file": ca_file });
        let with = |more: Value| {
            let mut table = scep.clone();
            table
                .as_object_mut()
                .into_iter()
                .for_each(|table| table.extend(more.as_object().cloned().unwrap_or_default()));
            table
        };
        let authorities = json!({ "ca": {
            "default": with(json!({
                "challenge_urls": [self.ca.url("ndes_admin")], "user": user, "auth": ["ntlm"],
                "challenge": "ndes", "poll_first_secs": 1, "poll_max_secs": 1,
            })),
            "fixed": with(json!({ "challenge": "static" })),
            "ra": { "kind": "mpki", "urls": [self.ca.url("mpki")], "ca_file": ca_file, "certificate_file": certificate_file },
        } });
        let settings = data_dir.join(config::FILE_NAME);
        let text = std::fs::read_to_string(&settings).context("read agent.toml")?;
        std::fs::write(&settings, format!("{text}\n{}", toml::to_string(&authorities)?))?;
        SecretStore::load(&data_dir, &FileModeSealer)?
            .with("ca.default.password", Secret::new(password.clone()))
            .with("ca.fixed.challenge", Secret::new(fixed.clone()))
            .with("ca.ra.key", Secret::new(key))
            .save(&data_dir, &FileModeSealer)?;
        for (what, text) in [
            ("the account's password at the authority", password),
            ("the challenge that is always the same", fixed),
            ("the key of the registration authority", middle),
        ] {
            self.canaries.push(Canary { what, text, kept_in: KEPT });
        }
        self.company.start_agent("agent", &data_dir).await
    }

    async fn profiles(&self) -> Result<()> {
        let profile = |authority: &str, mode: &str| {
            json!({
                "name": "Identity", "authority": authority, "key_mode": mode, "key": "rsa2048",
                "subject": "/CN=%uname%",
            })
        };
        for (id, authority, mode) in
            [("identity", "default", "device"), ("fixed", "fixed", "device"), ("made", "default", "agent")]
        {
            self.company.tenant.put(&format!("certificate-profiles/{id}"), &profile(authority, mode)).await?;
        }
        Ok(())
    }

    /// An enrolled device with a token.
    async fn device(&mut self, udid: &str) -> Result<Client> {
        let login = self.company.ldap.world().people[0].login.clone();
        let wish = json!({ "user": login, "udid": udid, "model": "iPhone 15" });
        let device = self.company.tenant.post("enrolled-devices", &wish).await?;
        let id = device["id"].as_str().context("the device has no id")?;
        let answer = self.company.tenant.post(&format!("enrolled-devices/{id}/token"), &json!({})).await?;
        let token = answer["token"].as_str().context("the device has no token")?.to_owned();
        self.canaries.push(Canary { what: "a device's token", text: token.clone(), kept_in: &[] });
        let trust = tls::trusting_only(&std::fs::read_to_string(self.company.cloud.ca_pem())?)?;
        let client = Client::new(self.company.cloud.url("api"), Some(Arc::new(trust)), Some(token))?;
        self.devices.push(client.clone());
        Ok(client)
    }

    /// A request that the authority keeps waiting.
    async fn challenged(&mut self, device: &Client) -> Result<String> {
        let pending = Fault::Custom { word: "pending".into(), args: <_>::default() };
        self.ca.faults().add(Rule::new(pending).on_operation("PKIOperation").times(1));
        let request = self.challenged_as(device, "identity", "awaiting_approval").await?;
        Ok(request["id"].as_str().context("the request has no id")?.to_owned())
    }

    /// A signing request with a challenge, until the cloud shows this stage.
    async fn challenged_as(&mut self, device: &Client, profile: &str, stage: &str) -> Result<Value> {
        let request = post(device, "/requests", &json!({ "profile": profile })).await?;
        let id = request["id"].as_str().context("the request has no id")?.to_owned();
        let told = self.told(device, &id).await?;
        let challenge = told["challenge"].as_str().context("there is no challenge")?.to_owned();
        let subject = Name::parse(told["subject"].as_str().unwrap_or_default())?;
        let key = Key::generate(KeyKind::Rsa2048)?;
        let draft =
            CsrDraft { subject, challenge: Some(Secret::new(challenge.clone())), ..CsrDraft::default() };
        let csr = draft.sign(&key, Digest::Sha256)?;
        if profile != "fixed" {
            self.canaries.push(Canary { what: "a challenge", text: challenge, kept_in: &[] });
        }
        post(device, &format!("/requests/{id}/csr"), &json!({ "csr": STANDARD.encode(csr) })).await?;
        decided(device, &id, stage).await
    }

    /// The agent has the profile a moment after the cloud.
    async fn told(&self, device: &Client, id: &str) -> Result<Value> {
        let began = Instant::now();
        loop {
            let answer = device.post(&format!("/api/v1/device/requests/{id}/challenge"), &json!({})).await?;
            if answer.status.is_success() || began.elapsed() > WITHIN {
                return answer.ok();
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// An identity that the agent makes; opened as the device does.
    async fn identity(&mut self, device: &Client) -> Result<()> {
        let key = Key::generate(KeyKind::P256)?;
        let request = post(device, "/requests", &json!({ "profile": "made" })).await?;
        let id = request["id"].as_str().context("the request has no id")?.to_owned();
        let public = json!({ "public_key": STANDARD.encode(key.public_key().spki()) });
        post(device, &format!("/requests/{id}/key"), &public).await?;
        let issued = decided(device, &id, "issued").await?;
        let envelope = STANDARD.decode(issued["identity"].as_str().context("there is no identity")?)?;
        let plain = EnvelopedData::read(&envelope, Accept::MODERN)?.open(&key, None)?;
        let identity: Identity = serde_json::from_slice(&plain)?;
        let middle = identity.pkcs12[200..264].to_owned();
        self.canaries.push(Canary {
            what: "the passphrase of an identity",
            text: identity.passphrase,
            kept_in: &[],
        });
        self.canaries.push(Canary { what: "the file of an identity", text: middle, kept_in: &[] });
        Ok(())
    }

    async fn bundle(&self) -> Result<()> {
        let bundle = self.company.folder.path().join("bundle.json");
        let data_dir = self.company.folder.path().join("agent");
        let words =
            ["causeway-agent", "support-bundle", "--output", path(&bundle)?, "--data-dir", path(&data_dir)?];
        cli::execute(Arguments::parse_from(words)).await?;
        ensure!(Path::new(&bundle).is_file(), "no bundle was written");
        Ok(())
    }

    /// Searches every file, answer, journal and log for what is secret.
    async fn look(&self, when: &str) -> Result<usize> {
        let mut places = Vec::new();
        files(self.company.folder.path(), &mut places)?;
        ensure!(places.iter().any(|place| place.name.ends_with(".redb")), "no state file was searched");
        ensure!(
            places.iter().any(|place| place.bytes.starts_with(b"SQLite format 3")),
            "no store was searched"
        );
        for list in
            ["agents", "actions", "alerts", "certificates", "certificate-requests", "enrolled-devices"]
        {
            let answer = self.company.tenant.get(list).await.with_context(|| list.to_owned())?;
            places.push(Place { name: format!("GET {list}"), bytes: answer.to_string().into_bytes() });
        }
        for action in self.company.tenant.all("actions").await? {
            let id = action["id"].as_str().unwrap_or_default();
            let bytes = self.company.tenant.action(id).await?.to_string().into_bytes();
            places.push(Place { name: format!("the action {id}"), bytes });
        }
        for (name, journal) in [
            ("the authority's journal", self.ca.journal()),
            ("the cloud's journal", self.company.cloud.journal()),
        ] {
            let bytes = format!("{:?}", journal.after(0)).into_bytes();
            ensure!(bytes.len() > 100, "{name} is empty");
            places.push(Place { name: name.to_owned(), bytes });
        }
        let logged = self.log.0.lock().map(|bytes| bytes.clone()).unwrap_or_default();
        ensure!(!self.listening || logged.len() > 10_000, "the log was not written: {}", logged.len());
        places.push(Place { name: "the log at its finest level".to_owned(), bytes: logged });
        search(&places, &self.canaries).with_context(|| when.to_owned())
    }
}

async fn post(device: &Client, path: &str, body: &Value) -> Result<Value> {
    device.post(&format!("/api/v1/device{path}"), body).await?.ok().with_context(|| path.to_owned())
}

/// Waits until the request is at this stage.
async fn decided(device: &Client, id: &str, stage: &str) -> Result<Value> {
    let began = Instant::now();
    loop {
        let wait_ms = if stage == "awaiting_approval" { 0 } else { WAIT_MS };
        let path = format!("/api/v1/device/requests/{id}?wait_ms={wait_ms}");
        let request = device.get(&path).await?.ok()?;
        if request["stage"] == stage {
            return Ok(request);
        }
        ensure!(began.elapsed() < WITHIN, "not {stage}: {request}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
