//! Files sealed with a key that systemd keeps for the service: `LoadCredentialEncrypted=` gives it in
//! `$CREDENTIALS_DIRECTORY`, readable by the service alone and bound to the machine (its TPM, where there is one).
//! Without such a key the seal is the file's mode and owner, as in [`FileModeSealer`].

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use zeroize::{Zeroize, Zeroizing};

use crate::secrets::{FileModeSealer, Sealer};

/// The credential's name, in the unit and in the folder.
pub(super) const CREDENTIAL: &str = "causeway-seal-key";

/// What a file sealed by a key begins with; JSON, which is what an unsealed one holds, begins with a brace.
const MARK: &[u8] = b"causeway sealed, aes-256-gcm, 1\n";

const KEY_BYTES: usize = 32;

/// Seals with the key of the service, if there is one.
pub(super) struct CredentialSealer {
    folder: Option<PathBuf>,
}

impl CredentialSealer {
    /// Looks where systemd says.
    pub(super) fn from_environment() -> Self {
        Self { folder: std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from) }
    }

    fn key(&self) -> io::Result<Option<RandomizedNonceKey>> {
        let Some(folder) = &self.folder else { return Ok(None) };
        let path = folder.join(CREDENTIAL);
        let mut bytes = match fs::read(&path) {
            Ok(bytes) => Zeroizing::new(bytes),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let key = (bytes.len() == KEY_BYTES)
            .then(|| RandomizedNonceKey::new(&AES_256_GCM, &bytes).ok())
            .flatten()
            .ok_or_else(|| wrong_length(&path));
        bytes.zeroize();
        key.map(Some)
    }
}

impl Sealer for CredentialSealer {
    fn seal(&self, plain: &[u8]) -> io::Result<Vec<u8>> {
        let Some(key) = self.key()? else { return FileModeSealer.seal(plain) };
        let mut text = plain.to_vec();
        let nonce = key
            .seal_in_place_append_tag(Aad::from(MARK), &mut text)
            .map_err(|_| io::Error::other("the cryptographic library does not seal"))?;
        Ok([MARK, nonce.as_ref(), &text].concat())
    }

    fn unseal(&self, sealed: &[u8]) -> io::Result<Zeroizing<Vec<u8>>> {
        let Some(rest) = sealed.strip_prefix(MARK) else { return FileModeSealer.unseal(sealed) };
        let Some(key) = self.key()? else { return Err(no_key()) };
        let (nonce, text) = rest.split_at_checked(NONCE_LEN).ok_or_else(changed)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| changed())?;
        let mut text = Zeroizing::new(text.to_vec());
        let length = key.open_in_place(nonce, Aad::from(MARK), &mut text).map_err(|_| changed())?.len();
        text.truncate(length);
        Ok(text)
    }
}

fn wrong_length(path: &Path) -> io::Error {
    io::Error::other(format!(
        "{} does not hold {KEY_BYTES} bytes; make it as docs/deployment.md says",
        path.display()
    ))
}

fn no_key() -> io::Error {
    io::Error::other(format!(
        "the file is sealed with the service's key {CREDENTIAL}; run the command with it, as docs/deployment.md says"
    ))
}

fn changed() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the file was sealed with another key, or changed")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_key(key: &[u8]) -> (tempfile::TempDir, CredentialSealer) {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(CREDENTIAL), key).unwrap();
        let sealer = CredentialSealer { folder: Some(dir.path().to_owned()) };
        (dir, sealer)
    }

    #[test]
    fn what_the_services_key_sealed_only_that_key_opens() {
        let (_a, sealer) = with_key(&[7; KEY_BYTES]);
        let (_b, other) = with_key(&[8; KEY_BYTES]);
        let none = CredentialSealer { folder: None };
        let sealed = sealer.seal(b"canary").unwrap();
        assert!(!sealed.windows(6).any(|window| window == b"canary"));
        assert_eq!(sealer.unseal(&sealed).unwrap().as_slice(), b"canary");
        assert!(other.unseal(&sealed).is_err());
        assert!(none.unseal(&sealed).unwrap_err().to_string().contains(CREDENTIAL));
        assert_ne!(sealed, sealer.seal(b"canary").unwrap(), "a nonce was used twice");
    }

    #[test]
    fn every_changed_byte_is_noticed() {
        let (_dir, sealer) = with_key(&[7; KEY_BYTES]);
        let sealed = sealer.seal(b"canary").unwrap();
        for at in MARK.len()..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert!(sealer.unseal(&changed).is_err(), "byte {at}");
            assert!(sealer.unseal(&sealed[..at]).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn files_from_before_the_key_are_still_read() {
        let (_dir, sealer) = with_key(&[7; KEY_BYTES]);
        assert_eq!(sealer.unseal(b"{}").unwrap().as_slice(), b"{}");
    }

    #[test]
    fn a_key_of_the_wrong_length_is_refused() {
        let (_dir, sealer) = with_key(b"short");
        assert!(sealer.seal(b"x").unwrap_err().to_string().contains("32 bytes"));
    }
}
