//! Settings under change: nothing is on disk before [`Draft::save`], and then all of it.

use std::path::{Path, PathBuf};

use anyhow::Context;
use causeway_protocol::Secret;

use super::edit::{Document, parts};
use super::say;
use crate::config::{FILE_NAME, FileError, SettingsFile};
use crate::limits::DIFF_PAIRS_MAX;
use crate::platform::{PlatformSealer, set_aside};
use crate::secrets::{self, SecretStore, write_private};

/// `agent.toml` and the sealed secrets, before and after.
#[derive(Clone)]
pub(super) struct Draft {
    pub(super) data_dir: PathBuf,
    before: String,
    document: Document,
    secrets_before: SecretStore,
    pub(super) secrets: SecretStore,
    /// What the sealed file held is lost; it is kept aside when this is saved.
    pub(super) secrets_lost: bool,
}

impl Draft {
    /// Begins with what the data directory holds; with no secrets where their file is damaged, so that they can be set
    /// again.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(super) fn load(data_dir: &Path) -> anyhow::Result<Self> {
        let file = SettingsFile::load(data_dir)?;
        let (secrets, secrets_lost) = match SecretStore::load(data_dir, &PlatformSealer) {
            Ok(secrets) => (secrets, false),
            Err(error) if error.is_damage() => {
                say::note(format_args!(
                    "{} is damaged: every secret has to be set again. With the next change it is kept aside.",
                    data_dir.join(secrets::FILE_NAME).display()
                ));
                (SecretStore::default(), true)
            }
            Err(error) => return Err(error.into()),
        };
        Ok(Self {
            data_dir: data_dir.to_owned(),
            before: file.text.clone(),
            document: Document::new(file.text),
            secrets_before: secrets.clone(),
            secrets,
            secrets_lost,
        })
    }

    /// A value as it is written now.
    ///
    /// # Errors
    /// When the text does not parse.
    pub(super) fn get(&self, table: &str, key: &str) -> anyhow::Result<Option<toml::Value>> {
        let root: toml::Table = self.document.text().parse().context("read agent.toml")?;
        let mut current = &root;
        for part in parts(table) {
            match current.get(&part) {
                Some(toml::Value::Table(inner)) => current = inner,
                _ => return Ok(None),
            }
        }
        Ok(current.get(key).cloned())
    }

    /// Sets a value.
    ///
    /// # Errors
    /// When the file is written in a form that cannot be changed by a program.
    pub(super) fn set(
        &mut self,
        table: &str,
        key: &str,
        value: impl Into<toml::Value>,
    ) -> anyhow::Result<()> {
        self.document.set(table, key, &value.into())
    }

    /// Removes a value, so that its default holds again.
    ///
    /// # Errors
    /// When the file is written in a form that cannot be changed by a program.
    pub(super) fn unset(&mut self, table: &str, key: &str) -> anyhow::Result<()> {
        self.document.unset(table, key)
    }

    /// Keeps a secret.
    pub(super) fn set_secret(&mut self, name: &str, secret: Secret) {
        self.secrets = self.secrets.with(name, secret);
    }

    /// The settings as they would be.
    ///
    /// # Errors
    /// Names line and column of what cannot work.
    pub(super) fn settings(&self) -> Result<SettingsFile, FileError> {
        SettingsFile::parse(self.data_dir.join(FILE_NAME), self.document.text().to_owned())
    }

    /// Whether saving would change anything.
    pub(super) fn is_changed(&self) -> bool {
        self.before != self.document.text() || !self.changed_secrets().is_empty() || self.secrets_lost
    }

    /// What would change, line by line; of secrets only the names.
    pub(super) fn diff(&self) -> Vec<String> {
        let mut lines = diff(&self.before, self.document.text());
        lines.extend(self.changed_secrets().into_iter().map(|change| format!("secret {change}")));
        lines
    }

    /// How much room all of it takes on the disk, at most.
    pub(super) fn bytes_max(&self) -> usize {
        let secret = |name: &str| self.secrets.get(name).map_or(0, |secret| secret.expose().len());
        // Line ends of keys are escaped in the file of secrets.
        let secrets: usize = self.secrets.names().map(|name| name.len() + 2 * secret(name)).sum();
        self.document.text().len() + secrets
    }

    fn changed_secrets(&self) -> Vec<String> {
        let text = |store: &SecretStore, name: &str| store.get(name).map(|secret| secret.expose().to_owned());
        let mut changes = Vec::new();
        if self.secrets_lost {
            changes.push("file: damaged, kept aside".to_owned());
        }
        for name in self.secrets.names() {
            match text(&self.secrets_before, name) {
                None => changes.push(format!("{name}: set")),
                Some(before) if Some(&before) != text(&self.secrets, name).as_ref() => {
                    changes.push(format!("{name}: replaced"));
                }
                Some(_) => {}
            }
        }
        for name in self.secrets_before.names().filter(|name| self.secrets.get(name).is_none()) {
            changes.push(format!("{name}: removed"));
        }
        changes
    }

    /// Writes what has changed. Secrets first: a secret nobody names yet does no harm, a name without its secret does.
    ///
    /// # Errors
    /// When settings cannot work or the disk refuses.
    pub(super) fn save(&self) -> anyhow::Result<()> {
        let settings = self.settings()?;
        if self.secrets_lost {
            let path = self.data_dir.join(secrets::FILE_NAME);
            // Gone when this is saved a second time.
            if path.exists() {
                let aside = set_aside(&path, "corrupt")
                    .with_context(|| format!("keep the damaged {} aside", path.display()))?;
                say::note(format_args!("The damaged file is kept as {}.", aside.display()));
            }
        }
        if !self.changed_secrets().is_empty() {
            self.secrets.save(&self.data_dir, &PlatformSealer)?;
        }
        if self.before != settings.text || !settings.path.exists() {
            write_private(&settings.path, settings.text.as_bytes())
                .with_context(|| format!("write {}", settings.path.display()))?;
        }
        Ok(())
    }
}

/// Lines that went (`-`) and came (`+`). Where two long files differ in many places, all between the first and the last
/// of them goes and comes.
fn diff(before: &str, after: &str) -> Vec<String> {
    let (a, b): (Vec<&str>, Vec<&str>) = (before.lines().collect(), after.lines().collect());
    let same = |(x, y): &(&&str, &&str)| x == y;
    let head = a.iter().zip(&b).take_while(same).count();
    let (a, b) = (&a[head..], &b[head..]);
    let tail = a.iter().rev().zip(b.iter().rev()).take_while(same).count();
    let (a, b) = (&a[..a.len() - tail], &b[..b.len() - tail]);
    let mut lines = if a.len().saturating_mul(b.len()) > DIFF_PAIRS_MAX {
        let gone = a.iter().map(|line| format!("- {line}"));
        gone.chain(b.iter().map(|line| format!("+ {line}"))).collect()
    } else {
        changes(a, b)
    };
    lines.retain(|line| line.len() > 2);
    lines
}

/// The same by the longest common subsequence.
fn changes(a: &[&str], b: &[&str]) -> Vec<String> {
    let mut common = vec![vec![0_u32; b.len() + 1]; a.len() + 1];
    for i in (0..a.len()).rev() {
        for j in (0..b.len()).rev() {
            common[i][j] =
                if a[i] == b[j] { common[i + 1][j + 1] + 1 } else { common[i + 1][j].max(common[i][j + 1]) };
        }
    }
    let (mut i, mut j, mut lines) = (0, 0, Vec::new());
    while i < a.len() || j < b.len() {
        if i < a.len() && j < b.len() && a[i] == b[j] {
            // The table a change belongs to says more than the lines around it.
            (i, j) = (i + 1, j + 1);
        } else if j == b.len() || (i < a.len() && common[i + 1][j] >= common[i][j + 1]) {
            lines.push(format!("- {}", a[i]));
            i += 1;
        } else {
            lines.push(format!("+ {}", b[j]));
            j += 1;
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_diff_shows_what_goes_and_what_comes() {
        assert_eq!(diff("a\nb\nc\n", "a\nx\nc\nd\n"), ["- b", "+ x", "+ d"]);
        assert_eq!(diff("a\n", "a\n"), Vec::<String>::new());
        assert_eq!(diff("a\na\n", "a\n"), ["- a"]);
    }

    #[test]
    fn a_diff_of_long_files_takes_little_memory() {
        // A table of all pairs of these lines would have 40,000,000,000 numbers.
        let lines = |n: std::ops::Range<u32>| n.map(|n| format!("{n}\n")).collect::<String>();
        let one = format!("{}x\n{}", lines(0..100_000), lines(100_001..200_000));
        assert_eq!(diff(&lines(0..200_000), &one), ["- 100000", "+ x"]);
        let all = diff(&lines(0..20_000), &lines(20_000..40_000));
        assert_eq!((all.len(), &*all[0], &*all[20_000]), (40_000, "- 0", "+ 20000"));
    }

    #[test]
    fn damaged_secrets_are_kept_aside_and_can_be_set_again() {
        let dir = tempfile::tempdir().unwrap();
        SecretStore::default().with("a", Secret::new("canary")).save(dir.path(), &PlatformSealer).unwrap();
        let path = dir.path().join(secrets::FILE_NAME);
        let sealed = std::fs::read(&path).unwrap();
        std::fs::File::options().write(true).open(&path).unwrap().set_len(5).unwrap();
        let mut draft = Draft::load(dir.path()).unwrap();
        assert!(draft.is_changed() && draft.secrets.names().next().is_none());
        draft.set_secret("b", Secret::new("new"));
        assert_eq!(std::fs::metadata(&path).unwrap().len(), 5, "nothing happens before it is saved");
        draft.save().unwrap();
        let aside = dir.path().join(format!("{}.corrupt-1", secrets::FILE_NAME));
        assert_eq!(std::fs::read(aside).unwrap(), sealed[..5]);
        let again = Draft::load(dir.path()).unwrap();
        assert!(!again.is_changed());
        assert_eq!(again.secrets.names().collect::<Vec<_>>(), ["b"]);
        // Others than the owner may read it: nothing is lost, and nothing is thrown away.
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
            assert!(Draft::load(dir.path()).is_err());
        }
    }

    #[test]
    fn nothing_is_written_before_it_is_saved_and_secrets_are_never_shown() {
        let dir = tempfile::tempdir().unwrap();
        let mut draft = Draft::load(dir.path()).unwrap();
        assert!(!draft.is_changed());
        draft.set("log", "level", "warn").unwrap();
        draft.set_secret("directory.default", Secret::new("canary"));
        assert!(draft.is_changed());
        assert_eq!(draft.diff(), ["+ [log]", "+ level = \"warn\"", "secret directory.default: set"]);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        draft.save().unwrap();
        let again = Draft::load(dir.path()).unwrap();
        assert!(!again.is_changed());
        assert_eq!(again.secrets.get("directory.default").unwrap().expose(), "canary");
    }
}
