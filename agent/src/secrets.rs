//! Local secrets (the directory account's password, the proxy's) and where they rest: a file sealed by a [`Sealer`].
//! Which one is decided by [`crate::platform`]: DPAPI, a key of systemd's, or the file's mode alone.

use std::collections::{BTreeMap, VecDeque};
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwapOption;
use aws_lc_rs::hmac;
use causeway_protocol::Secret;
use thiserror::Error;
use zeroize::{Zeroize, Zeroizing};

use crate::limits::{REFUSALS_REMEMBERED_MAX, SETTINGS_FILE_MAX_BYTES};
use crate::wake::{Calls, Wake};

/// The file's name in the data directory.
pub const FILE_NAME: &str = "secrets.sealed";

/// Secrets by name, in memory. Has no `Debug`; clones share the texts, what is newer than they are, and what was refused.
#[derive(Clone, Default)]
pub struct SecretStore {
    texts: Arc<BTreeMap<String, Secret>>,
    /// What was read from the file since.
    newest: Arc<ArcSwapOption<BTreeMap<String, Secret>>>,
    refused: Arc<Refused>,
    renewed: Wake,
}

impl SecretStore {
    /// Holds exactly these.
    pub fn new(secrets: impl IntoIterator<Item = (String, Secret)>) -> Self {
        Self { texts: Arc::new(secrets.into_iter().collect()), ..Self::default() }
    }

    /// The secret of that name.
    pub fn get(&self, name: &str) -> Option<&Secret> {
        self.texts.get(name)
    }

    /// The secret of that name as it is now, when it may have been replaced since the start.
    pub fn newest(&self, name: &str) -> Option<Secret> {
        match &*self.newest.load() {
            Some(newest) => newest.get(name).cloned(),
            None => self.texts.get(name).cloned(),
        }
    }

    /// Lets [`SecretStore::newest`] of every clone give these texts from now on. Somebody has been at them, so what was
    /// refused may be tried once more, even where the text is the same: the account may be unlocked by now.
    pub fn renew(&self, read: &Self) {
        self.newest.store(Some(read.texts.clone()));
        self.refused.forget();
        self.renewed.call();
    }

    /// Every time from now on that somebody has been at the secrets.
    pub fn renewals(&self) -> Calls {
        self.renewed.listen()
    }

    /// Whether a server has refused this user with this secret. It says no again and again, and counts until it locks
    /// the account; so nobody shows it again until the text changes.
    pub fn is_refused(&self, username: &str, secret: &Secret) -> bool {
        self.refused.holds(username, secret)
    }

    /// A server has refused this user with this secret.
    pub fn note_refused(&self, username: &str, secret: &Secret) {
        self.refused.note(username, secret);
    }

    /// All names, for `show-config` and errors.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.texts.keys().map(String::as_str)
    }

    /// The same and one more (or another text for the name).
    #[must_use]
    pub fn with(&self, name: impl Into<String>, secret: Secret) -> Self {
        let mut secrets = (*self.texts).clone();
        secrets.insert(name.into(), secret);
        Self::new(secrets)
    }

    /// The same without one.
    #[must_use]
    pub fn without(&self, name: &str) -> Self {
        let mut secrets = (*self.texts).clone();
        secrets.remove(name);
        Self::new(secrets)
    }

    /// Reads the data directory's file; a missing one is empty.
    ///
    /// # Errors
    /// When it cannot be read or unsealed.
    pub fn load(data_dir: &Path, sealer: &dyn Sealer) -> Result<Self, SecretsError> {
        let path = data_dir.join(FILE_NAME);
        let sealed = match read_private(&path) {
            Ok(Some(sealed)) => sealed,
            Ok(None) => return Ok(Self::default()),
            Err(error) => return Err(error),
        };
        let plain =
            sealer.unseal(&sealed).map_err(|source| SecretsError::Unseal { path: path.clone(), source })?;
        let secrets = serde_json::from_slice::<BTreeMap<String, Secret>>(&plain)
            .map_err(|_| SecretsError::Malformed { path })?;
        Ok(Self::new(secrets))
    }

    /// Replaces the data directory's file.
    ///
    /// # Errors
    /// When it cannot be sealed or written.
    pub fn save(&self, data_dir: &Path, sealer: &dyn Sealer) -> Result<(), SecretsError> {
        let path = data_dir.join(FILE_NAME);
        let texts: BTreeMap<&str, &str> =
            self.texts.iter().map(|(name, secret)| (name.as_str(), secret.expose())).collect();
        let mut plain = serde_json::to_vec(&texts).expect("a map of texts serialises to JSON");
        let sealed = sealer.seal(&plain);
        plain.zeroize();
        let sealed = sealed.map_err(|source| SecretsError::Seal { path: path.clone(), source })?;
        if sealed.len() as u64 > SETTINGS_FILE_MAX_BYTES {
            // It would be written, and never read again.
            let source =
                io::Error::other(format!("all secrets together have {} bytes, too many", sealed.len()));
            return Err(SecretsError::Write { path, source });
        }
        write_private(&path, &sealed).map_err(|source| SecretsError::Write { path, source })
    }
}

/// Turns a user and a password into an opaque value, under a key that is drawn here and lives as long as the process.
pub(crate) struct Fingerprints(hmac::Key);

impl Default for Fingerprints {
    fn default() -> Self {
        let mut key = [0; 32];
        // A key that is not random would only make the hashes guessable inside this very process.
        let _ = aws_lc_rs::rand::fill(&mut key);
        Self(hmac::Key::new(hmac::HMAC_SHA256, &key))
    }
}

impl Fingerprints {
    /// The pair's value. The lengths keep `("ab", "c")` and `("a", "bc")` apart.
    pub(crate) fn of(&self, username: &str, password: &str) -> [u8; 32] {
        const BLOCK_BYTES: usize = 64;
        let lengths = [username.len() as u64, password.len() as u64].map(u64::to_be_bytes);
        let bytes = lengths.as_flattened().len() + username.len() + password.len();
        // Whole blocks (FIPS 180-4) are hashed where they stand; of a part of one the library would keep a copy, and
        // leave it in memory it gives back.
        let mut text = Zeroizing::new(Vec::with_capacity(bytes.next_multiple_of(BLOCK_BYTES)));
        text.extend_from_slice(lengths.as_flattened());
        text.extend_from_slice(username.as_bytes());
        text.extend_from_slice(password.as_bytes());
        text.resize(bytes.next_multiple_of(BLOCK_BYTES), 0);
        let mut hash = [0; 32];
        hash.copy_from_slice(hmac::sign(&self.0, &text).as_ref());
        hash
    }
}

/// Credentials that were refused, by their fingerprints only.
#[derive(Default)]
struct Refused {
    fingerprints: Fingerprints,
    /// Oldest first.
    seen: Mutex<VecDeque<[u8; 32]>>,
}

impl Refused {
    fn holds(&self, username: &str, secret: &Secret) -> bool {
        let hash = self.fingerprints.of(username, secret.expose());
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).contains(&hash)
    }

    fn forget(&self) {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    fn note(&self, username: &str, secret: &Secret) {
        let hash = self.fingerprints.of(username, secret.expose());
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.len() >= REFUSALS_REMEMBERED_MAX {
            seen.pop_front();
        }
        seen.push_back(hash);
    }
}

/// Binds bytes to this machine and account, as far as the platform can.
pub trait Sealer: Send + Sync {
    /// Seals.
    ///
    /// # Errors
    /// When the platform refuses.
    fn seal(&self, plain: &[u8]) -> io::Result<Vec<u8>>;

    /// Opens again.
    ///
    /// # Errors
    /// When it was sealed elsewhere or changed.
    fn unseal(&self, sealed: &[u8]) -> io::Result<Zeroizing<Vec<u8>>>;
}

/// The seal is the file's mode 0600 and its owner.
#[derive(Clone, Copy, Debug, Default)]
pub struct FileModeSealer;

impl Sealer for FileModeSealer {
    fn seal(&self, plain: &[u8]) -> io::Result<Vec<u8>> {
        Ok(plain.to_vec())
    }

    fn unseal(&self, sealed: &[u8]) -> io::Result<Zeroizing<Vec<u8>>> {
        Ok(Zeroizing::new(sealed.to_vec()))
    }
}

/// Why secrets cannot be used.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SecretsError {
    /// The file cannot be read.
    #[error("read {}", .path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// What the operating system says.
        #[source]
        source: io::Error,
    },
    /// Others may read it.
    #[error("{} may be read by others (mode {mode:o}); run: chmod 600 {}", .path.display(), .path.display())]
    TooOpen {
        /// Which file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// The file cannot be written.
    #[error("write {}", .path.display())]
    Write {
        /// Which file.
        path: PathBuf,
        /// What the operating system says.
        #[source]
        source: io::Error,
    },
    /// It cannot be sealed.
    #[error("seal {}", .path.display())]
    Seal {
        /// Which file.
        path: PathBuf,
        /// What the platform says.
        #[source]
        source: io::Error,
    },
    /// It was sealed elsewhere, or changed.
    #[error("unseal {}", .path.display())]
    Unseal {
        /// Which file.
        path: PathBuf,
        /// What the platform says.
        #[source]
        source: io::Error,
    },
    /// It is not what `configure` writes.
    #[error("{} is damaged; set the secrets again with configure --secret-from-stdin", .path.display())]
    Malformed {
        /// Which file.
        path: PathBuf,
    },
}

impl SecretsError {
    /// Whether what the file holds is lost. Not so where another account, or one with the key, could open it.
    pub fn is_damage(&self) -> bool {
        /// What DPAPI says of bytes that it did not make (winerror.h).
        const ERROR_INVALID_DATA: i32 = 13;
        match self {
            Self::Malformed { .. } => true,
            Self::Unseal { source, .. } => {
                source.kind() == io::ErrorKind::InvalidData
                    || (cfg!(windows) && source.raw_os_error() == Some(ERROR_INVALID_DATA))
            }
            _ => false,
        }
    }
}

/// Reads a file that only its owner may read.
///
/// # Errors
/// When it cannot be read, is too large, or others may read it.
pub fn read_private(path: &Path) -> Result<Option<Zeroizing<Vec<u8>>>, SecretsError> {
    let read = |source| SecretsError::Read { path: path.to_owned(), source };
    let meta = match fs::metadata(path) {
        Ok(meta) => meta,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(read(error)),
    };
    if meta.len() > SETTINGS_FILE_MAX_BYTES {
        return Err(SecretsError::Malformed { path: path.to_owned() });
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = meta.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(SecretsError::TooOpen { path: path.to_owned(), mode });
        }
    }
    fs::read(path).map(Zeroizing::new).map(Some).map_err(read)
}

/// Replaces a file in one step; only its owner may read it, at no moment anyone else. What root writes belongs to the
/// folder's owner.
///
/// # Errors
/// When the directory or disk refuses; the old file is then untouched.
pub fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let fresh = path.with_extension("new");
    let mut options = fs::OpenOptions::new();
    options.write(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        let _ = fs::remove_file(&fresh);
        options.create_new(true).mode(0o600);
    }
    #[cfg(not(unix))]
    options.create(true).truncate(true);
    let mut file = options.open(&fresh)?;
    let written = file.write_all(bytes).and_then(|()| file.sync_all());
    drop(file);
    if let Err(error) = written {
        // What there is of it takes room on a full disk.
        let _ = fs::remove_file(&fresh);
        return Err(error);
    }
    crate::platform::hand_over(&fresh)?;
    crate::platform::replace(&fresh, path)?;
    sync_directory(folder_of(path))
}

/// The folder a file is in; that of a bare name is the current one.
fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

#[cfg(unix)]
fn sync_directory(path: &Path) -> io::Result<()> {
    fs::File::open(path)?.sync_all()
}

#[cfg(not(unix))]
fn sync_directory(_: &Path) -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_survive_in_a_file_only_the_owner_reads() {
        let dir = tempfile::tempdir().unwrap();
        let store = SecretStore::default().with("password", Secret::new("canary \"x\" \u{1F600}"));
        store.save(dir.path(), &FileModeSealer).unwrap();
        let back = SecretStore::load(dir.path(), &FileModeSealer).unwrap();
        assert_eq!(back.get("password").unwrap().expose(), "canary \"x\" \u{1F600}");
        assert_eq!(back.names().collect::<Vec<_>>(), ["password"]);
    }

    #[test]
    fn a_file_by_a_bare_name_is_in_the_current_folder() {
        assert_eq!(folder_of(Path::new("bundle.json")), Path::new("."));
        assert_eq!(folder_of(Path::new("a/bundle.json")), Path::new("a"));
    }

    #[test]
    fn fingerprints_keep_users_and_passwords_apart() {
        let prints = Fingerprints::default();
        assert_eq!(prints.of("ab", "c"), prints.of("ab", "c"));
        assert_ne!(prints.of("ab", "c"), prints.of("a", "bc"));
        assert_ne!(prints.of("ab", "c"), prints.of("ab", "c\0"), "what fills the block counts for nothing");
        assert_ne!(prints.of("ab", "c"), Fingerprints::default().of("ab", "c"));
    }

    #[cfg(unix)]
    #[test]
    fn a_link_where_the_new_file_is_written_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let (path, target) = (dir.path().join("secrets.sealed"), dir.path().join("target"));
        fs::write(&target, "untouched").unwrap();
        std::os::unix::fs::symlink(&target, path.with_extension("new")).unwrap();
        write_private(&path, b"new").unwrap();
        assert_eq!(fs::read(&target).unwrap(), b"untouched");
        assert_eq!(fs::read(&path).unwrap(), b"new");
    }

    #[test]
    fn what_could_not_be_read_again_is_not_written() {
        let dir = tempfile::tempdir().unwrap();
        let store = SecretStore::default().with("a", Secret::new("short"));
        store.save(dir.path(), &FileModeSealer).unwrap();
        let large = usize::try_from(SETTINGS_FILE_MAX_BYTES).unwrap();
        store.with("b", Secret::new("x".repeat(large))).save(dir.path(), &FileModeSealer).unwrap_err();
        assert_eq!(
            SecretStore::load(dir.path(), &FileModeSealer).unwrap().names().collect::<Vec<_>>(),
            ["a"]
        );
    }

    #[cfg(unix)]
    #[test]
    fn a_file_open_to_others_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        SecretStore::default().save(dir.path(), &FileModeSealer).unwrap();
        let path = dir.path().join(FILE_NAME);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let Err(error) = SecretStore::load(dir.path(), &FileModeSealer) else { panic!("accepted") };
        assert!(error.to_string().contains("chmod 600"), "{error}");
    }
}
