//! What a module must store and nobody else may read: encrypted with a key that rests sealed beside the state file, so
//! that the state file alone, or a copy of it, opens nothing.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use thiserror::Error;
use zeroize::Zeroizing;

use crate::platform::PlatformSealer;
use crate::secrets::{Sealer, SecretsError, read_private, write_private};

/// The file's name in the data directory.
pub const FILE_NAME: &str = "vault.sealed";

const KEY_BYTES: usize = 32;
const TAG_BYTES: usize = 16;

/// Encrypts and opens. Clones share the key. Has no `Debug`.
#[derive(Clone, Default)]
pub struct Vault(Arc<Inner>);

#[derive(Default)]
struct Inner {
    /// Where the key rests; without, it lives as long as this value.
    path: Option<PathBuf>,
    key: OnceLock<RandomizedNonceKey>,
}

/// Why something cannot be encrypted or opened.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum VaultError {
    /// The key's file.
    #[error("read the key of the vault")]
    Read(#[source] SecretsError),
    /// The key cannot be kept.
    #[error("write {}", .path.display())]
    Write {
        /// Which file.
        path: PathBuf,
        /// What the operating system says.
        #[source]
        source: io::Error,
    },
    /// The key was sealed elsewhere, or changed.
    #[error("unseal {}", .path.display())]
    Unseal {
        /// Which file.
        path: PathBuf,
        /// What the platform says.
        #[source]
        source: io::Error,
    },
    /// The file holds something else than a key.
    #[error("{} holds no key", .path.display())]
    Malformed {
        /// Which file.
        path: PathBuf,
    },
    /// No randomness.
    #[error("the system gives no random numbers")]
    Random,
    /// It was encrypted by another vault, for another purpose, or was changed.
    #[error("it was not encrypted here for this")]
    Foreign,
}

impl Vault {
    /// Whose key rests in this data directory; made at first use.
    pub fn at(data_dir: &Path) -> Self {
        Self(Arc::new(Inner { path: Some(data_dir.join(FILE_NAME)), key: OnceLock::new() }))
    }

    /// Encrypts. Only the same `purpose` opens it again.
    ///
    /// # Errors
    /// When the key cannot be read or made.
    pub fn seal(&self, purpose: &str, plain: &[u8]) -> Result<Vec<u8>, VaultError> {
        let mut bytes = Zeroizing::new(Vec::with_capacity(plain.len() + TAG_BYTES));
        bytes.extend_from_slice(plain);
        let nonce = self
            .key()?
            .seal_in_place_append_tag(Aad::from(purpose.as_bytes()), &mut *bytes)
            .map_err(|_| VaultError::Random)?;
        Ok([nonce.as_ref(), bytes.as_slice()].concat())
    }

    /// Opens.
    ///
    /// # Errors
    /// When it was not encrypted here for this purpose, or was changed.
    pub fn open(&self, purpose: &str, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, VaultError> {
        let (nonce, rest) = sealed.split_first_chunk::<NONCE_LEN>().ok_or(VaultError::Foreign)?;
        let mut bytes = Zeroizing::new(rest.to_vec());
        let plain = self
            .key()?
            .open_in_place(Nonce::from(nonce), Aad::from(purpose.as_bytes()), &mut bytes)
            .map_err(|_| VaultError::Foreign)?
            .len();
        bytes.truncate(plain);
        Ok(bytes)
    }

    fn key(&self) -> Result<&RandomizedNonceKey, VaultError> {
        if let Some(key) = self.0.key.get() {
            return Ok(key);
        }
        let bytes = match &self.0.path {
            Some(path) => at_rest(path)?,
            None => fresh()?,
        };
        let key = RandomizedNonceKey::new(&AES_256_GCM, &bytes[..]).map_err(|_| VaultError::Random)?;
        Ok(self.0.key.get_or_init(|| key))
    }
}

fn fresh() -> Result<Zeroizing<Vec<u8>>, VaultError> {
    let mut bytes = Zeroizing::new(vec![0; KEY_BYTES]);
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| VaultError::Random)?;
    Ok(bytes)
}

/// The key of the file, or a new one that is in the file from now on.
fn at_rest(path: &Path) -> Result<Zeroizing<Vec<u8>>, VaultError> {
    if let Some(key) = read(path)? {
        return Ok(key);
    }
    let write = |source| VaultError::Write { path: path.to_owned(), source };
    let key = fresh()?;
    let sealed = PlatformSealer.seal(&key).map_err(write)?;
    // Two may come at once: the file is written under a name of our own and linked, which only the first one can.
    let mut word = [0; 8];
    aws_lc_rs::rand::fill(&mut word).map_err(|_| VaultError::Random)?;
    let own = path.with_file_name(format!("vault-{:016x}.sealed", u64::from_be_bytes(word)));
    write_private(&own, &sealed).map_err(write)?;
    let linked = fs::hard_link(&own, path);
    let _ = fs::remove_file(&own);
    match linked {
        Ok(()) => Ok(key),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            read(path)?.ok_or_else(|| write(io::ErrorKind::NotFound.into()))
        }
        Err(error) => Err(write(error)),
    }
}

fn read(path: &Path) -> Result<Option<Zeroizing<Vec<u8>>>, VaultError> {
    let Some(sealed) = read_private(path).map_err(VaultError::Read)? else { return Ok(None) };
    let key = PlatformSealer
        .unseal(&sealed)
        .map_err(|source| VaultError::Unseal { path: path.to_owned(), source })?;
    if key.len() != KEY_BYTES {
        return Err(VaultError::Malformed { path: path.to_owned() });
    }
    Ok(Some(key))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_vault_opens_for_the_same_purpose() {
        let vault = Vault::default();
        let sealed = vault.seal("request 1", b"canary").unwrap();
        assert!(!sealed.windows(6).any(|part| part == b"canary"));
        assert_eq!(**vault.open("request 1", &sealed).unwrap(), *b"canary");
        assert_ne!(vault.seal("request 1", b"canary").unwrap(), sealed);
        let mut changed = sealed.clone();
        *changed.last_mut().unwrap() ^= 1;
        for (vault, purpose, bytes) in [
            (&vault, "request 2", &sealed[..]),
            (&vault, "request 1", &changed),
            (&vault, "request 1", &sealed[..5]),
            (&Vault::default(), "request 1", &sealed),
        ] {
            assert!(matches!(vault.open(purpose, bytes), Err(VaultError::Foreign)));
        }
    }

    #[test]
    fn the_key_stays_in_the_data_directory_whoever_comes_first() {
        let dir = tempfile::tempdir().unwrap();
        let sealed: Vec<Vec<u8>> = std::thread::scope(|scope| {
            let one = || Vault::at(dir.path()).seal("x", b"text").unwrap();
            let all: Vec<_> = (0..8).map(|_| scope.spawn(one)).collect();
            all.into_iter().map(|one| one.join().unwrap()).collect()
        });
        let later = Vault::at(dir.path());
        for sealed in sealed {
            assert_eq!(**later.open("x", &sealed).unwrap(), *b"text");
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is left beside it");
    }
}
