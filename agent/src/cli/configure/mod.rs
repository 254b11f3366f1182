//! `configure`: local settings and secrets, checked before they are kept. By flags, from a file of answers, or by
//! questions at a terminal.

mod answers;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::Args;

use super::draft::Draft;
use super::edit::child;
use super::enroll::from_stdin;
use super::tables::{self, Kind};
use super::{DataDir, say, wizard};
use crate::config::SettingsFile;
use crate::dial::proxy::settings::ProxySettings;
use crate::modules::{FACTORIES, ModuleSettings, factory};
use crate::secrets::SecretStore;

/// Keys that belong to the directory a module names, not to the module: `[directory.<name>]`.
const DIRECTORY_KEYS: [&str; 12] = [
    "personality",
    "servers",
    "domain",
    "site",
    "bind_dn",
    "password",
    "ca_file",
    "start_tls",
    "allow_plain",
    "base_dn",
    "page_size",
    "overrides",
];

/// Arguments of `configure`.
#[derive(Args)]
pub struct Configure {
    /// A module (user_auth, user_visibility, modules.exchange), or one of: directory, exchange, ca, proxy, limits, log, dns, cloud. Without
    /// it, and without --from-file, the wizard asks
    module: Option<String>,
    /// A setting; the value is TOML, or plain text
    #[arg(long = "set", value_name = "KEY=VALUE", requires = "module")]
    set: Vec<String>,
    /// Reads the secret of this key from standard input
    #[arg(long, value_name = "KEY", requires = "module")]
    secret_from_stdin: Option<String>,
    /// Removes a sealed secret by its full name, as show-config lists it
    #[arg(long, value_name = "NAME")]
    forget_secret: Option<String>,
    /// The directory that directory settings are for
    #[arg(long, default_value = "default", value_parser = name)]
    directory: String,
    /// The Exchange organisation that exchange settings are for
    #[arg(long, default_value = "default", value_parser = name)]
    exchange: String,
    /// The certificate authority that ca settings are for
    #[arg(long, default_value = "default", value_parser = name)]
    ca: String,
    /// Takes all answers from a TOML file, asks nothing, and changes nothing the second time
    #[arg(long, value_name = "FILE", conflicts_with_all = ["module", "forget_secret"])]
    from_file: Option<PathBuf>,
    /// With --from-file: keep the settings without trying them on the live systems first
    #[arg(long, requires = "from_file")]
    no_check: bool,
    #[command(flatten)]
    data_dir: DataDir,
}

impl Configure {
    pub(super) async fn execute(self) -> anyhow::Result<ExitCode> {
        let data_dir = &self.data_dir.data_dir;
        if let Some(file) = &self.from_file {
            return answers::apply(data_dir, file, !self.no_check).await;
        }
        if let Some(name) = &self.forget_secret {
            return forget(Draft::load(data_dir)?, name);
        }
        let Some(module) = &self.module else { return wizard::run(data_dir).await };
        if self.set.is_empty() && self.secret_from_stdin.is_none() {
            bail!("nothing to change; give --set key=value or --secret-from-stdin key");
        }
        let mut draft = Draft::load(data_dir)?;
        let named_before = draft.settings().map(|file| named_secrets(&file)).unwrap_or_default();
        for assignment in &self.set {
            let Some((key, value)) = assignment.split_once('=') else {
                bail!("--set {assignment}: write it as key=value");
            };
            let place = self.place(module, key.trim())?;
            draft.set(&place.table, &place.key, read_value(&place.key, value))?;
        }
        if let Some(key) = &self.secret_from_stdin {
            let place = self.place(module, key)?;
            draft.set_secret(&place.secret, from_stdin()?);
        }
        let settings = draft.settings()?;
        refuse_unsealed(&settings, &named_before, &draft.secrets)?;
        match self.table(module) {
            // The secret may come before its table.
            Some((Kind::Directory, name))
                if self.set.is_empty() || !settings.settings.directory.contains_key(name) => {}
            Some((kind, name)) => tables::judge(kind, name, &settings)?,
            None => {}
        }
        try_build(kind_of(module), &settings, &draft.secrets)?;
        if !draft.is_changed() {
            say::note("Nothing to change: it is set like this already.");
            return Ok(ExitCode::SUCCESS);
        }
        crate::platform::create_private_dir(data_dir)
            .with_context(|| format!("create {}", data_dir.display()))?;
        draft.save()?;
        say::note("Kept. A running agent uses it after a restart; `causeway-agent check` tries it now.");
        Ok(ExitCode::SUCCESS)
    }

    /// The system whose table the settings of this module may be for.
    fn table(&self, module: &str) -> Option<(Kind, &str)> {
        match module {
            "exchange" => Some((Kind::Exchange, &self.exchange)),
            "ca" => Some((Kind::Ca, &self.ca)),
            kind if kind == "directory" || factory(kind).is_some() => {
                Some((Kind::Directory, &self.directory))
            }
            _ => None,
        }
    }

    /// Where a setting belongs.
    fn place(&self, module: &str, key: &str) -> anyhow::Result<Place> {
        match module {
            "directory" => Ok(Place::of(Kind::Directory, &self.directory, key)),
            "exchange" => Ok(Place::of(Kind::Exchange, &self.exchange, key)),
            "ca" => Ok(Place::of(Kind::Ca, &self.ca, key)),
            "proxy" => Ok(Place { secret: "proxy_password".to_owned(), ..Place::plain(module, key) }),
            "limits" | "log" | "dns" | "cloud" => Ok(Place::plain(module, key)),
            kind if factory(kind).is_some() => {
                let of_directory = key.strip_prefix("directory.");
                match of_directory.or(DIRECTORY_KEYS.contains(&key).then_some(key)) {
                    Some(key) => Ok(Place::of(Kind::Directory, &self.directory, key)),
                    None => Ok(Place::plain(&format!("modules.{kind}"), key)),
                }
            }
            own if own != kind_of(own) && factory(kind_of(own)).is_some() => Ok(Place::plain(own, key)),
            other => {
                let kinds: Vec<&str> = FACTORIES.iter().map(|factory| factory.kind()).collect();
                bail!("there is no module {other}; this agent has: {}", kinds.join(", "))
            }
        }
    }
}

/// The module that `modules.<kind>` names, or the word itself.
fn kind_of(module: &str) -> &str {
    module.strip_prefix("modules.").unwrap_or(module)
}

/// Where a setting belongs.
struct Place {
    /// The path of its table.
    table: String,
    key: String,
    /// The name of the secret, where the setting is one.
    secret: String,
}

impl Place {
    fn plain(table: &str, key: &str) -> Self {
        Self { table: table.to_owned(), key: key.to_owned(), secret: format!("{table}.{key}") }
    }

    fn of(kind: Kind, name: &str, key: &str) -> Self {
        let definition = format!("{}.{name}", kind.word());
        let secret =
            if key == "password" && kind != Kind::Ca { definition } else { format!("{definition}.{key}") };
        Self { table: child(kind.word(), name), key: key.to_owned(), secret }
    }
}

/// The name of a table, as a person may give it.
fn name(text: &str) -> Result<String, &'static str> {
    if text.is_empty() || text.chars().any(char::is_control) {
        return Err("write a name such as default");
    }
    Ok(text.to_owned())
}

/// Where settings name a secret, and by which name.
fn named_secrets(file: &SettingsFile) -> BTreeSet<(String, String)> {
    let text = |table: &serde_json::Value| Some(table.get("password")?.as_str()?.to_owned());
    let mut named = BTreeSet::new();
    for (name, directory) in &file.settings.directory {
        named.extend(text(directory).map(|secret| (format!("directory.{name}.password"), secret)));
    }
    for (name, exchange) in &file.settings.exchange {
        let accounts = exchange.get("accounts").and_then(|accounts| accounts.as_array());
        for (n, account) in accounts.into_iter().flatten().enumerate() {
            let key = format!("exchange.{name}.accounts[{n}].password");
            named.extend(text(account).map(|secret| (key, secret)));
        }
    }
    let default = ProxySettings::default().password_secret;
    let proxy = file.settings.proxy.as_ref().map(|proxy| proxy.password_secret.clone());
    named.extend(
        proxy.filter(|secret| *secret != default).map(|secret| ("proxy.password_secret".to_owned(), secret)),
    );
    named
}

/// A name of a secret that is not there is most often the secret itself, in a file that is not sealed.
fn refuse_unsealed(
    file: &SettingsFile,
    named_before: &BTreeSet<(String, String)>,
    secrets: &SecretStore,
) -> anyhow::Result<()> {
    let named = named_secrets(file);
    match named.difference(named_before).find(|(_, secret)| secrets.get(secret).is_none()) {
        Some((key, _)) => bail!(
            "{key} names a sealed secret, and there is none of that name. A password does not belong into the settings: \
             leave the key out and give it with --secret-from-stdin password"
        ),
        None => Ok(()),
    }
}

fn forget(mut draft: Draft, name: &str) -> anyhow::Result<ExitCode> {
    // Of a damaged file nobody knows what it held; it goes as a whole.
    if draft.secrets.get(name).is_none() && !draft.secrets_lost {
        let names: Vec<&str> = draft.secrets.names().collect();
        bail!("there is no secret {name}; sealed are: {}", names.join(", "));
    }
    draft.secrets = draft.secrets.without(name);
    draft.save()?;
    say::note(format_args!("The secret {name} is removed."));
    Ok(ExitCode::SUCCESS)
}

/// Lets a module judge its local settings. What only the cloud's part lacks is not held against them, nor that a system is
/// not described which nobody has asked the module to work with, nor what a module lacks that never runs here.
fn try_build(kind: &str, file: &SettingsFile, secrets: &SecretStore) -> anyhow::Result<()> {
    let Some(factory) = factory(kind) else { return Ok(()) };
    let settings = ModuleSettings {
        desired: serde_json::Value::Null,
        local: file.settings.modules.get(kind).cloned().unwrap_or_default(),
        directories: file.settings.directory.clone(),
        exchanges: file.settings.exchange.clone(),
        authorities: file.settings.ca.clone(),
        limits: file.settings.limits.clone(),
        secrets: secrets.clone(),
        ..ModuleSettings::default()
    };
    let forbidden = settings.limits.modules_forbidden.iter().any(|name| name == kind);
    match factory.build(&settings) {
        Err(error) if forbidden && !error.path.starts_with("modules.") => Ok(()),
        Err(error) if settings.local.is_null() && tables::is_absent(&error.path, &file.settings) => Ok(()),
        Err(error)
            if ["modules.", "directory.", "exchange.", "ca."].iter().any(|at| error.path.starts_with(at)) =>
        {
            Err(file.error_at(&error.path, error.problem, error.advice).into())
        }
        Ok(_) | Err(_) => Ok(()),
    }
}

/// TOML where it parses as a value, a list where the key wants one, else plain text.
fn read_value(key: &str, text: &str) -> toml::Value {
    let parsed = format!("v = {text}").parse::<toml::Table>().ok().and_then(|mut table| {
        // Text such as `1\n[limits]` must not smuggle in more than a value.
        if table.len() == 1 { table.remove("v") } else { None }
    });
    match parsed {
        Some(value @ toml::Value::Array(_)) => value,
        Some(value) if !is_list(key) && !value.is_datetime() => value,
        _ if is_list(key) => {
            toml::Value::Array(text.split(',').map(|server| server.trim().trim_matches('"').into()).collect())
        }
        _ => text.into(),
    }
}

/// Keys whose value is a list of addresses.
fn is_list(key: &str) -> bool {
    matches!(key, "servers" | "urls" | "challenge_urls")
}

#[cfg(test)]
mod tests {
    use causeway_protocol::Secret;

    use super::*;

    #[test]
    fn a_password_where_its_name_belongs_is_refused_and_not_repeated() {
        let file = |text: &str| SettingsFile::parse(PathBuf::from("agent.toml"), text.to_owned()).unwrap();
        let secrets = SecretStore::default().with("mine", Secret::new("x"));
        let none = BTreeSet::new();
        for (text, key) in [
            ("[directory.default]\npassword = \"canary\"\n", "directory.default.password"),
            (
                "[exchange.a]\naccounts = [{ user = \"u\" }, { user = \"v\", password = \"canary\" }]\n",
                "exchange.a.accounts[1].password",
            ),
            ("[proxy]\npassword_secret = \"canary\"\n", "proxy.password_secret"),
        ] {
            let said = refuse_unsealed(&file(text), &none, &secrets).unwrap_err().to_string();
            assert!(said.starts_with(key) && !said.contains("canary"), "{said}");
            refuse_unsealed(&file(&text.replace("canary", "mine")), &none, &secrets).unwrap();
            // What was there before is not this command's affair.
            refuse_unsealed(&file(text), &named_secrets(&file(text)), &secrets).unwrap();
        }
    }

    #[test]
    fn values_are_toml_or_text() {
        assert_eq!(read_value("page_size", "500"), toml::Value::from(500));
        assert_eq!(read_value("start_tls", "false"), toml::Value::from(false));
        assert_eq!(read_value("bind_dn", "ACME\\svc"), toml::Value::from("ACME\\svc"));
        assert_eq!(read_value("bind_dn", "1\n[limits]\na = 1"), toml::Value::from("1\n[limits]\na = 1"));
        let two = toml::Value::Array(vec!["ldaps://a".into(), "ldaps://b:1636".into()]);
        assert_eq!(read_value("servers", "ldaps://a, ldaps://b:1636"), two);
        assert_eq!(read_value("servers", r#"["ldaps://a", "ldaps://b:1636"]"#), two);
    }
}
