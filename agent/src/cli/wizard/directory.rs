//! A directory: its servers, its product, who we are to it, and where searches start.

use std::path::PathBuf;
use std::sync::Arc;

use super::Session;
use super::console::{ask, choose, confirm};
use crate::chain::Chain;
use crate::checks::Verdict;
use crate::cli::check::trial;
use crate::cli::draft::Draft;
use crate::config::Settings;
use crate::dial::tls::read_certificates;
use crate::directory::discover::RootDse;
use crate::directory::personality::Personality;
use crate::directory::settings::DirectorySettings;
use crate::directory::{Directory, Net, doctor};
use crate::modules::ModuleSettings;
use crate::orchestrator::module_settings;
use crate::random::RandomSource;

/// The table, and the name of the secret that holds the password.
const TABLE: &str = "directory.default";

impl Session<'_> {
    /// Asks until the servers answer, the account may sign in, and users are found. Who goes on before somebody has signed
    /// in goes on without a directory, or with the one there was.
    pub(super) async fn directory(&mut self) -> anyhow::Result<()> {
        self.console.say("\nDirectory");
        if !confirm(self.console, "  Is there a directory of users to look after?", true)? {
            return Ok(());
        }
        let before = self.draft.clone();
        loop {
            if !self.ask_servers()? {
                self.go_back(before);
                return Ok(());
            }
            if self.try_servers().await? {
                break;
            }
            if !confirm(self.console, "  Correct it?", true)? {
                self.go_back(before);
                return Ok(());
            }
        }
        let root = loop {
            self.ask_account()?;
            if let Some(root) = self.try_account().await? {
                break root;
            }
            if !confirm(self.console, "  Correct it?", true)? {
                self.go_back(before);
                return Ok(());
            }
        };
        self.console.say(&format!("  The directory is {}.", Personality::detect(&root)));
        loop {
            self.ask_base(&root)?;
            if self.try_all().await? || !confirm(self.console, "  Correct it?", true)? {
                return Ok(());
            }
        }
    }

    fn go_back(&mut self, before: Draft) {
        self.draft = before;
        self.console.say("  What was said about the directory is forgotten.");
    }

    fn current(&self) -> anyhow::Result<DirectorySettings> {
        let settings = self.draft.settings()?.settings;
        Ok(DirectorySettings::read("default", &of(&settings, self)).unwrap_or_default())
    }

    /// False when there are none after all.
    fn ask_servers(&mut self) -> anyhow::Result<bool> {
        loop {
            let before = self.draft.clone();
            let current = self.current()?;
            let default = match &current.domain {
                Some(domain) if current.servers.is_empty() => domain.clone(),
                _ => current.servers.join(", "),
            };
            let question =
                "  Servers (ldaps://host, several by comma), or the domain whose servers DNS knows";
            let typed = ask(self.console, question, &default)?;
            if typed.is_empty() {
                if confirm(self.console, "  Without servers there is no directory. Go on without?", false)? {
                    return Ok(false);
                }
                continue;
            }
            if typed.contains("://") {
                let servers: Vec<toml::Value> =
                    typed.split(',').map(|server| server.trim().to_owned().into()).collect();
                self.draft.set(TABLE, "servers", servers)?;
                self.draft.unset(TABLE, "domain")?;
            } else {
                self.draft.set(TABLE, "domain", typed)?;
                self.draft.unset(TABLE, "servers")?;
            }
            self.ask_authority(TABLE, current.ca_file.as_ref())?;
            match Directory::new("default", &self.told()?) {
                Ok(_) => return Ok(true),
                Err(error) => {
                    self.console.say(&format!("  {}: {}; {}", error.path, error.problem, error.advice));
                    self.draft = before;
                }
            }
        }
    }

    /// Asks for the authority of a table's servers.
    pub(super) fn ask_authority(&mut self, table: &str, current: Option<&PathBuf>) -> anyhow::Result<()> {
        let default = current.map(|file| file.display().to_string()).unwrap_or_default();
        loop {
            let question = "  PEM file of the authority that signed the servers' certificates (empty: those of the system)";
            let typed = ask(self.console, question, &default)?;
            if typed.is_empty() {
                return self.draft.unset(table, "ca_file");
            }
            match read_certificates(&self.draft.data_dir.join(&typed)) {
                Ok(_) => {
                    let full = std::fs::canonicalize(self.draft.data_dir.join(&typed))?;
                    return self.draft.set(table, "ca_file", full.to_string_lossy().into_owned());
                }
                Err(error) => self.console.say(&format!("  {}", Chain(&error))),
            }
        }
    }

    async fn try_servers(&mut self) -> anyhow::Result<bool> {
        self.console.say("  Trying the servers ...");
        let (directory, net) = self.live()?;
        let results = doctor::reach_all(&directory, &net).await;
        Ok(self.show(&results))
    }

    fn ask_account(&mut self) -> anyhow::Result<()> {
        let current = self.current()?;
        let question = "  Service account (DN, user@domain or DOMAIN\\user)";
        let account = ask(self.console, question, &current.bind_dn)?;
        self.draft.set(TABLE, "bind_dn", account)?;
        let known = self.draft.secrets.get(TABLE).is_some_and(|secret| !secret.is_empty());
        let prompt = if known {
            "  Its password (not shown; empty: the one that is sealed): "
        } else {
            "  Its password (not shown): "
        };
        let password = self.console.secret(prompt)?;
        if !password.is_empty() {
            self.draft.set_secret(TABLE, password);
        }
        Ok(())
    }

    async fn try_account(&mut self) -> anyhow::Result<Option<RootDse>> {
        self.console.say("  Signing in ...");
        let (directory, net) = self.live()?;
        match doctor::first_look(&directory, &net).await {
            Ok((result, root)) => {
                self.show(&[result]);
                Ok(Some(root))
            }
            Err(result) => {
                self.show(&[*result]);
                Ok(None)
            }
        }
    }

    fn ask_base(&mut self, root: &RootDse) -> anyhow::Result<()> {
        let current = self.current()?.base_dn;
        let mut offered: Vec<String> = vec![root.base()];
        offered.extend(current.clone());
        offered.extend(root.naming_contexts.iter().cloned());
        offered.retain(|name| !name.is_empty());
        let mut seen = Vec::new();
        offered.retain(|name| {
            let new = !seen.contains(name);
            seen.push(name.clone());
            new
        });
        let default = current.and_then(|base| offered.iter().position(|name| *name == base)).unwrap_or(0);
        offered.push("another one".to_owned());
        self.console.say("  Where do searches start?");
        let chosen = choose(self.console, "  Number", &offered, default)?;
        let base = if chosen + 1 == offered.len() {
            ask(self.console, "  Base DN", "")?
        } else {
            offered[chosen].clone()
        };
        if base == root.base() {
            self.draft.unset(TABLE, "base_dn")
        } else {
            self.draft.set(TABLE, "base_dn", base)
        }
    }

    async fn try_all(&mut self) -> anyhow::Result<bool> {
        self.console.say("  Searching ...");
        let settings = self.draft.settings()?;
        let report = trial(&self.draft.data_dir, &settings, &self.draft.secrets, &["directory"]).await;
        // What went well before is known; the rest, and the number of users, is news.
        let results: Vec<_> = report
            .results()
            .filter(|result| result.verdict() != Verdict::Ok || result.check() == &doctor::USERS)
            .cloned()
            .collect();
        let well = self.show(&results);
        let found =
            results.iter().any(|result| result.check() == &doctor::USERS && result.verdict() == Verdict::Ok);
        Ok(well && found)
    }

    fn told(&self) -> anyhow::Result<ModuleSettings> {
        Ok(of(&self.draft.settings()?.settings, self))
    }

    fn live(&self) -> anyhow::Result<(Arc<Directory>, Net)> {
        let settings = self.draft.settings()?;
        let dial = crate::dialer(&settings, &self.draft.secrets, &RandomSource::system())?;
        let directory = Directory::new("default", &self.told()?)?;
        Ok((Arc::new(directory), Net { dial, clock: crate::clock::Clock::system() }))
    }
}

/// What a module would be told that nobody has configured in the cloud yet.
pub(super) fn of(settings: &Settings, session: &Session<'_>) -> ModuleSettings {
    let none = causeway_protocol::config::DesiredConfig {
        module: String::new(),
        revision: 0,
        enabled: true,
        settings: serde_json::Value::Null,
    };
    module_settings(&none, settings, &session.draft.secrets, &session.draft.data_dir)
}

#[cfg(test)]
mod tests {
    use super::super::console::testing::Script;
    use super::*;

    /// What agent.toml looks like after these answers, and what was shown.
    async fn after(answers: &[(&'static str, &str)]) -> (Draft, Vec<String>) {
        let dir = tempfile::tempdir().unwrap();
        let mut script = Script::new(answers.iter().map(|(part, answer)| (*part, (*answer).to_owned())));
        let draft = Draft::load(dir.path()).unwrap();
        let mut session = Session { console: &mut script, draft, authorities: None, key: None };
        session.directory().await.unwrap();
        (session.draft, script.end())
    }

    #[tokio::test]
    async fn who_has_no_directory_goes_on_without() {
        for answers in [
            &[("Is there a directory", "n")][..],
            &[("Is there a directory", ""), ("Servers", ""), ("Go on without", "y")],
        ] {
            let (draft, _) = after(answers).await;
            assert!(!draft.is_changed(), "{:?}", draft.diff());
        }
    }

    #[tokio::test]
    async fn what_nobody_could_sign_in_to_is_not_kept() {
        let servers = ("Servers (ldaps://host", "ldaps://127.0.0.1:1");
        let authority = ("PEM file of the authority", "");
        let (draft, shown) = after(&[
            ("Is there a directory", ""),
            ("Servers (ldaps://host", ""),
            ("Go on without", ""),
            servers,
            authority,
            ("Correct it?", "y"),
            servers,
            authority,
            ("Correct it?", "n"),
        ])
        .await;
        let said = shown.join("\n");
        assert!(said.contains("FAIL  directory.tcp"), "{said}");
        assert!(!draft.is_changed(), "{:?}", draft.diff());
    }
}
