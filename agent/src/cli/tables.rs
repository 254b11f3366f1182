//! The tables of agent.toml that describe systems, judged by those who read them. Nothing is opened.

use crate::ca::settings::CaSettings;
use crate::config::{FileError, Settings, SettingsFile};
use crate::directory::settings::DirectorySettings;
use crate::exchange::settings::ExchangeSettings;
use crate::modules::ModuleSettings;

/// A kind of system that agent.toml has tables of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Directory,
    Exchange,
    Ca,
}

impl Kind {
    /// The first part of its tables' names, as a person writes it too.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Directory => "directory",
            Self::Exchange => "exchange",
            Self::Ca => "ca",
        }
    }

    /// Names of its tables.
    pub(super) fn names(self, settings: &Settings) -> impl Iterator<Item = &str> {
        let tables = match self {
            Self::Directory => &settings.directory,
            Self::Exchange => &settings.exchange,
            Self::Ca => &settings.ca,
        };
        tables.keys().map(String::as_str)
    }
}

/// All of them.
pub(super) const KINDS: [Kind; 3] = [Kind::Directory, Kind::Exchange, Kind::Ca];

/// Whether one table can work.
///
/// # Errors
/// Names line, column and key.
pub(super) fn judge(kind: Kind, name: &str, file: &SettingsFile) -> Result<(), FileError> {
    let settings = ModuleSettings {
        directories: file.settings.directory.clone(),
        exchanges: file.settings.exchange.clone(),
        authorities: file.settings.ca.clone(),
        ..ModuleSettings::default()
    };
    let read = match kind {
        Kind::Directory => DirectorySettings::read(name, &settings).map(drop),
        Kind::Exchange => ExchangeSettings::read(name, &settings).map(drop),
        Kind::Ca => CaSettings::read(name, &settings).map(drop),
    };
    read.map_err(|error| file.error_at(&error.path, error.problem, error.advice))
}

/// Whether all tables can work.
///
/// # Errors
/// The first that cannot.
pub(super) fn judge_all(file: &SettingsFile) -> Result<(), FileError> {
    KINDS
        .into_iter()
        .try_for_each(|kind| kind.names(&file.settings).try_for_each(|name| judge(kind, name, file)))
}

/// Whether a path leads into a table that the file does not have.
pub(super) fn is_absent(path: &str, settings: &Settings) -> bool {
    KINDS.into_iter().any(|kind| {
        let Some(rest) = path.strip_prefix(kind.word()).and_then(|rest| rest.strip_prefix('.')) else {
            return false;
        };
        !kind
            .names(settings)
            .any(|name| rest.strip_prefix(name).is_some_and(|more| more.is_empty() || more.starts_with('.')))
    })
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn file(text: &str) -> SettingsFile {
        SettingsFile::parse(PathBuf::from("agent.toml"), text.to_owned()).unwrap()
    }

    #[test]
    fn a_table_that_cannot_work_is_named_whatever_its_name() {
        for (text, wrong) in [
            ("[directory.default]\nserverz = \"x\"\n", "directory.default"),
            ("[directory.default]\nservers = [\"ftp://x\"]\n", "directory.default.servers[0]"),
            (
                "[directory.corp]\nservers = [\"ldaps://a\"]\npage_size = \"hugo\"\n",
                "directory.corp.page_size",
            ),
            ("[exchange.corp]\nservers = [\"https://a/\"]\n", "exchange.corp.accounts"),
            ("[ca.\"a.b\"]\nkind = \"scep\"\n", "ca.a.b.urls"),
        ] {
            let said = judge_all(&file(text)).unwrap_err().to_string();
            assert!(said.contains(wrong), "{said}");
        }
        judge_all(&file("[directory.default]\nservers = [\"ldaps://a\"]\n[limits]\n")).unwrap();
    }

    #[test]
    fn tables_are_absent_only_by_their_whole_name() {
        let settings = file("[directory.\"corp.example\"]\nservers = []\n").settings;
        for (path, absent) in [
            ("directory.default", true),
            ("directory.corp", true),
            ("directory.corp.example", false),
            ("directory.corp.example.servers", false),
            ("exchange.default.accounts", true),
            ("modules.user_auth.directory", false),
        ] {
            assert_eq!(is_absent(path, &settings), absent, "{path}");
        }
    }
}
