//! The cloud, and the way to it.

use std::path::PathBuf;

use super::Session;
use super::console::{ask, confirm};
use crate::checks::Verdict;
use crate::cli::check::trial;
use crate::cli::enroll::{CA_FILE, set_proxy};
use crate::config::Endpoint;
use crate::dial::tls::read_certificates;

impl Session<'_> {
    /// Asks until a connection secured by the right authorities is there.
    pub(super) async fn cloud(&mut self) -> anyhow::Result<()> {
        self.console.say("\nCloud");
        if let Some(identity) = self.identity()? {
            let url = self.draft.settings()?.settings.cloud.url;
            self.console.say(&format!(
                "  Enrolled with {url} as {} of tenant {}.",
                identity.instance, identity.tenant
            ));
            return self.proxy().await;
        }
        loop {
            self.ask_url()?;
            self.ask_authorities()?;
            self.ask_proxy()?;
            if self.try_cloud().await? || !confirm(self.console, "  Correct it?", true)? {
                break;
            }
        }
        let default = self.draft.settings()?.settings.cloud.shown_name();
        let name = ask(self.console, "  Name of this agent in the portal", &default)?;
        if name != default {
            self.draft.set("cloud", "display_name", name)?;
        }
        // Whether the key is right shows when it is spent, and that is when everything is kept.
        let key = self.console.secret("  Enrolment key, from the portal (not shown): ")?;
        self.key = Some(key);
        Ok(())
    }

    fn ask_url(&mut self) -> anyhow::Result<()> {
        loop {
            let default = self.draft.settings()?.settings.cloud.url;
            let url = ask(self.console, "  Address of the cloud, https://host:port", &default)?;
            match Endpoint::parse(&url) {
                Ok(_) => return self.draft.set("cloud", "url", url),
                Err(problem) => self.console.say(&format!("  The address {problem}.")),
            }
        }
    }

    fn ask_authorities(&mut self) -> anyhow::Result<()> {
        loop {
            let kept = self.draft.settings()?.settings.cloud.ca_file;
            let default = kept.as_ref().map(|file| file.display().to_string()).unwrap_or_default();
            let question = "  PEM file of the cloud's authority (empty: those of the system)";
            let typed = ask(self.console, question, &default)?;
            if typed.is_empty() {
                return self.draft.unset("cloud", "ca_file");
            }
            if typed == default {
                return Ok(());
            }
            let file = PathBuf::from(&typed);
            match read_certificates(&file)
                .map_err(anyhow::Error::from)
                .and_then(|_| Ok(std::fs::read(&file)?))
            {
                Ok(pem) => {
                    // Until everything is kept, the original file serves.
                    let full = std::fs::canonicalize(&file)?;
                    self.draft.set("cloud", "ca_file", full.to_string_lossy().into_owned())?;
                    self.authorities = Some(pem);
                    return Ok(());
                }
                Err(error) => self.console.say(&format!("  {error:#}")),
            }
        }
    }

    /// Asks for the proxy of an agent that is enrolled already, and tries it.
    async fn proxy(&mut self) -> anyhow::Result<()> {
        loop {
            self.ask_proxy()?;
            if self.try_cloud().await? || !confirm(self.console, "  Correct it?", true)? {
                return Ok(());
            }
        }
    }

    fn ask_proxy(&mut self) -> anyhow::Result<()> {
        let settings = self.draft.settings()?.settings;
        let default = settings.proxy.and_then(|proxy| proxy.url).unwrap_or_default();
        let question = "  Proxy, http://host:port (empty: as the system says; - for none)";
        match ask(self.console, question, &default)?.as_str() {
            typed if typed == default => Ok(()),
            "-" => {
                self.draft.unset("proxy", "url")?;
                self.draft.set("proxy", "mode", "none")
            }
            typed => {
                self.draft.unset("proxy", "mode")?;
                let before = self.draft.clone();
                set_proxy(&mut self.draft, typed)?;
                if let Err(error) = self.draft.settings() {
                    self.console.say(&format!("  {error}"));
                    self.draft = before;
                    return self.ask_proxy();
                }
                let user = ask(self.console, "  User name at the proxy (empty: none)", "")?;
                if !user.is_empty() {
                    self.draft.set("proxy", "username", user)?;
                    let password = self.console.secret("  Password at the proxy (not shown): ")?;
                    self.draft.set_secret("proxy_password", password);
                    let question = "  May the password be sent in the clear (Basic), if the proxy asks for nothing better?";
                    if confirm(self.console, question, false)? {
                        self.draft.set("proxy", "allow_basic", true)?;
                    }
                }
                Ok(())
            }
        }
    }

    async fn try_cloud(&mut self) -> anyhow::Result<bool> {
        self.console.say("  Trying the cloud ...");
        let settings = self.draft.settings()?;
        let report = trial(&self.draft.data_dir, &settings, &self.draft.secrets, &["network", "cloud"]).await;
        let results: Vec<_> =
            report.results().filter(|result| result.verdict() != Verdict::Skipped).cloned().collect();
        Ok(self.show(&results))
    }

    /// The copy of the authorities takes the place of the original.
    pub(super) fn name_kept_authorities(&mut self) -> anyhow::Result<()> {
        if self.authorities.is_some() {
            self.draft.set("cloud", "ca_file", CA_FILE)?;
        }
        Ok(())
    }
}
