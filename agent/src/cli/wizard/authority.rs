//! The authority that issues certificates to devices: where it is, what is spoken to it, and who we are to it. What there is
//! to ask depends on its kind.

use super::Session;
use super::console::{ask, choose, confirm};
use super::directory::of;
use crate::ca::settings::{CaSettings, ChallengeKind, Kind};
use crate::checks::{CheckResult, Verdict};
use crate::cli::check::trial_of_module;
use crate::modules::{ConfigError, certificates};

/// Name of the definition, and its table.
const NAME: &str = "default";
const TABLE: &str = "ca.default";

/// Each kind with its word in agent.toml, what it is called, and what its addresses look like.
const KINDS: [(Kind, &str, &str, &str); 6] = [
    (Kind::Scep, "scep", "NDES, or another SCEP server", "https://host/certsrv/mscep/mscep.dll"),
    (
        Kind::Certsrv,
        "certsrv",
        "Active Directory Certificate Services by its web pages",
        "https://host/certsrv",
    ),
    (
        Kind::Wstep,
        "wstep",
        "Active Directory Certificate Services by its web services",
        "https://host/ADPolicyProvider_CEP_UsernamePassword/service.svc/CEP",
    ),
    (Kind::Mpki, "mpki", "Symantec or DigiCert Managed PKI", "https://pki-ws.symauth.com"),
    (Kind::EntrustGateway, "entrust_gateway", "Entrust CA Gateway", "https://host/cagw"),
    (Kind::EntrustDigitalId, "entrust_digital_id", "Entrust by Digital IDs", "https://host/mdmws/services"),
];

/// How a SCEP server wants to be convinced.
const CHALLENGES: [(ChallengeKind, &str, &str); 3] = [
    (ChallengeKind::None, "none", "no challenge, or a person approves"),
    (ChallengeKind::Static, "static", "a challenge that is always the same"),
    (ChallengeKind::Ndes, "ndes", "one-time challenges from the page of NDES"),
];

impl Session<'_> {
    /// Asks until the authority answers and is the right one; or the person goes on without. Nothing is requested of it and no
    /// challenge used up.
    pub(super) async fn certificates(&mut self) -> anyhow::Result<()> {
        self.console.say("\nCertificates");
        let before = self.draft.settings()?.settings.ca.contains_key(NAME);
        let question = "  Is there an authority that issues certificates to devices?";
        if !confirm(self.console, question, before)? {
            return Ok(());
        }
        loop {
            self.ask_issuer()?;
            if self.try_issuer().await? || !confirm(self.console, "  Correct it?", true)? {
                return Ok(());
            }
        }
    }

    /// As far as it is written; what is missing has its default.
    fn current_issuer(&self) -> anyhow::Result<CaSettings> {
        let table = self.draft.settings()?.settings.ca.get(NAME).cloned().unwrap_or_default();
        Ok(serde_json::from_value(table).unwrap_or_default())
    }

    fn ask_issuer(&mut self) -> anyhow::Result<()> {
        loop {
            let before = self.draft.clone();
            let current = self.current_issuer()?;
            self.console.say("  What is it?");
            let options = KINDS.map(|(_, _, called, _)| called.to_owned());
            let known = KINDS.iter().position(|(kind, ..)| *kind == current.kind).unwrap_or_default();
            let (kind, word, _, example) = KINDS[choose(self.console, "  Number", &options, known)?];
            self.draft.set(TABLE, "kind", word)?;
            self.ask_front_ends(&current, example)?;
            match kind {
                Kind::Scep => self.ask_challenge(&current)?,
                Kind::Certsrv | Kind::Wstep | Kind::EntrustDigitalId => self.ask_account_of(&current)?,
                Kind::Mpki => self.ask_certificate(&current)?,
                Kind::EntrustGateway => {
                    self.ask_certificate(&current)?;
                    let question = "  Id of the authority, as the gateway lists it";
                    let id = ask(self.console, question, &current.authority_id)?;
                    self.draft.set(TABLE, "authority_id", id)?;
                }
            }
            if kind != Kind::Scep {
                self.draft.unset(TABLE, "challenge")?;
            }
            match self.issuer() {
                Ok(_) => return Ok(()),
                Err(error) => {
                    self.say_wrong(&error);
                    self.draft = before;
                }
            }
        }
    }

    fn issuer(&self) -> Result<CaSettings, ConfigError> {
        let settings = self.draft.settings().map_err(|error| {
            ConfigError::new("agent.toml", crate::chain::Chain(&error).to_string(), "correct it")
        })?;
        CaSettings::read(NAME, &of(&settings.settings, self))
    }

    fn ask_front_ends(&mut self, current: &CaSettings, example: &str) -> anyhow::Result<()> {
        let question = format!("  Addresses ({example}, several by comma)");
        let typed = ask(self.console, &question, &current.urls.join(", "))?;
        let urls: Vec<toml::Value> = typed.split(',').map(|url| url.trim().to_owned().into()).collect();
        self.draft.set(TABLE, "urls", urls)?;
        self.ask_authority(TABLE, current.ca_file.as_ref())?;
        let question = "  SHA-256 fingerprint of the issuing authority (empty: not compared)";
        let fingerprint = ask(self.console, question, current.fingerprint.as_deref().unwrap_or_default())?;
        if fingerprint.is_empty() {
            self.draft.unset(TABLE, "fingerprint")
        } else {
            self.draft.set(TABLE, "fingerprint", fingerprint)
        }
    }

    fn ask_challenge(&mut self, current: &CaSettings) -> anyhow::Result<()> {
        self.console.say("  What convinces it?");
        let options = CHALLENGES.map(|(_, _, called)| called.to_owned());
        let known = CHALLENGES.iter().position(|(kind, ..)| *kind == current.challenge).unwrap_or_default();
        let (kind, word, _) = CHALLENGES[choose(self.console, "  Number", &options, known)?];
        self.draft.set(TABLE, "challenge", word)?;
        match kind {
            ChallengeKind::None => Ok(()),
            ChallengeKind::Static => self.ask_sealed("The challenge", &CaSettings::challenge_name(NAME)),
            ChallengeKind::Ndes => {
                let question = "  Page of challenges (empty: /certsrv/mscep_admin/ at the same server)";
                let typed = ask(self.console, question, &current.challenge_urls.join(", "))?;
                if typed.is_empty() {
                    self.draft.unset(TABLE, "challenge_urls")?;
                } else {
                    let urls: Vec<toml::Value> =
                        typed.split(',').map(|url| url.trim().to_owned().into()).collect();
                    self.draft.set(TABLE, "challenge_urls", urls)?;
                }
                self.ask_account_of(current)
            }
        }
    }

    fn ask_account_of(&mut self, current: &CaSettings) -> anyhow::Result<()> {
        let known = current.user.as_deref().unwrap_or_default();
        let user = ask(self.console, "  Account (DOMAIN\\user or user@domain)", known)?;
        self.draft.set(TABLE, "user", user)?;
        self.ask_sealed("Its password", &CaSettings::password_name(NAME))
    }

    fn ask_certificate(&mut self, current: &CaSettings) -> anyhow::Result<()> {
        let known = current.certificate_file.as_ref().map(|file| file.display().to_string());
        let file = self.ask_file("  PEM file of our own certificate", &known.unwrap_or_default())?;
        self.draft.set(TABLE, "certificate_file", file.to_string_lossy().into_owned())?;
        self.ask_key(&CaSettings::key_name(NAME))
    }

    fn ask_sealed(&mut self, what: &str, name: &str) -> anyhow::Result<()> {
        let sealed = self.draft.secrets.get(name).is_some_and(|secret| !secret.is_empty());
        let hint = if sealed { "not shown; empty: the one that is sealed" } else { "not shown" };
        let typed = self.console.secret(&format!("  {what} ({hint}): "))?;
        if !typed.is_empty() {
            self.draft.set_secret(name, typed);
        }
        Ok(())
    }

    /// Looks at it once, as the doctor does.
    async fn try_issuer(&mut self) -> anyhow::Result<bool> {
        self.console.say("  Looking at the authority ...");
        let settings = self.draft.settings()?;
        let (data_dir, secrets) = (&self.draft.data_dir, &self.draft.secrets);
        let report = trial_of_module(data_dir, &settings, secrets, certificates::MODULE).await;
        let about_it =
            |result: &&CheckResult| result.name().starts_with("certificates.") && result.subject() == NAME;
        let results: Vec<_> = report.results().filter(about_it).cloned().collect();
        let looked = results.iter().any(|result| {
            result.check() == &certificates::check::AUTHORITY && result.verdict() == Verdict::Ok
        });
        Ok(self.show(&results) && looked)
    }
}

#[cfg(test)]
mod tests {
    use causeway_mock_ca::{Config, MockCa};
    use causeway_mock_kit::cli::RunningMock as _;

    use super::super::console::testing::Script;
    use super::*;
    use crate::cli::draft::Draft;

    /// What agent.toml looks like after these answers, and what was shown.
    async fn after(answers: Vec<(&'static str, String)>) -> (Draft, Vec<String>) {
        let dir = tempfile::tempdir().unwrap();
        let mut script = Script::new(answers);
        let draft = Draft::load(dir.path()).unwrap();
        let mut session = Session { console: &mut script, draft, authorities: None, key: None };
        session.certificates().await.unwrap();
        let draft = session.draft;
        (draft, script.end())
    }

    fn own(mock: &MockCa, account: &str, key: &str) -> String {
        mock.ready().accounts[account][key].as_str().unwrap().to_owned()
    }

    /// Each kind is asked what it needs, nothing else, and what was said is tried on it.
    #[tokio::test]
    async fn every_kind_is_asked_for_what_it_needs() {
        let mock = MockCa::start(Config::default()).await.unwrap();
        let (user, password) = mock.service_account();
        let trusted = tempfile::NamedTempFile::new().unwrap();
        let root = mock.authority().await.hierarchy().root.certificate.raw().to_vec();
        let mut pem = std::fs::read_to_string(mock.tls_ca().pem_path()).unwrap();
        pem += &causeway_protocol::pkix::pem::write("CERTIFICATE", &root);
        std::fs::write(trusted.path(), pem).unwrap();
        let ca_file = trusted.path().display().to_string();
        let to = |text: &str| text.to_owned();
        let fingerprint = mock.authority().await.hierarchy().current().authority.certificate.sha256();
        let account = vec![("Account", user.clone()), ("Its password", password.clone())];
        let certificate = |name: &str| {
            vec![
                ("PEM file of our own certificate", own(&mock, name, "certificate_file")),
                ("PEM file of its key", own(&mock, name, "key_file")),
            ]
        };
        for (number, front, more) in [
            (
                1,
                "scep",
                [
                    vec![("Number", to("3")), ("Page of challenges", mock.url("ndes_admin").to_owned())],
                    account.clone(),
                ]
                .concat(),
            ),
            (2, "certsrv", account.clone()),
            (3, "xcep", account.clone()),
            (4, "mpki", certificate("mpki")),
            (
                5,
                "entrust_gateway",
                [certificate("entrust_gateway"), vec![("Id of the authority", to("acme-issuing"))]].concat(),
            ),
            (6, "entrust", account),
        ] {
            let mut answers = vec![
                ("Is there an authority", to("y")),
                ("Number", number.to_string()),
                ("Addresses", mock.url(front).to_owned()),
                ("PEM file of the authority", ca_file.clone()),
                ("fingerprint", if number == 1 { fingerprint.clone() } else { String::new() }),
            ];
            answers.extend(more);
            let (draft, shown) = after(answers).await;
            assert!(shown.iter().any(|line| line.contains("ok    certificates.authority")), "{shown:#?}");
            let settings = draft.settings().unwrap();
            assert_eq!(settings.settings.ca[NAME]["kind"], KINDS[number - 1].1);
            let said = shown.join("\n");
            assert!(!said.contains(&password) && !said.contains("PRIVATE KEY"), "{said}");
        }
    }

    #[tokio::test]
    async fn what_does_not_work_is_said_and_asked_again() {
        let mock = MockCa::start(Config::default()).await.unwrap();
        let to = |text: &str| text.to_owned();
        let address = ("Addresses", mock.url("scep").to_owned());
        let (draft, shown) = after(vec![
            ("Is there an authority", to("y")),
            ("Number", to("1")),
            ("Addresses", to("ndes1")),
            ("PEM file of the authority", String::new()),
            ("fingerprint", String::new()),
            ("Number", to("1")),
            // Read, and found wrong: all of it is asked again.
            ("Number", to("1")),
            address.clone(),
            ("PEM file of the authority", String::new()),
            ("fingerprint", "00".repeat(32)),
            ("Number", to("2")),
            ("The challenge", to("canary-challenge")),
            ("Correct it?", to("n")),
        ])
        .await;
        let said = shown.join("\n");
        assert!(
            said.contains("ca.default.urls[0]") && said.contains("FAIL  certificates.authority"),
            "{said}"
        );
        assert!(said.contains("fingerprint") && !said.contains("canary"), "{said}");
        assert_eq!(draft.secrets.get("ca.default.challenge").unwrap().expose(), "canary-challenge");
        let (draft, _) = after(vec![("Is there an authority", String::new())]).await;
        assert!(!draft.is_changed());
    }
}
