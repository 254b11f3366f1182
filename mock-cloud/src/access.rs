//! First credentials of the cloud: the API token and the portal's password.
//!
//! The store holds their digests only. Whoever starts the mock must be told them again after a restart, so a cloud
//! with a data directory keeps them in `admin.json` beside the store, readable by its owner only.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use aws_lc_rs::{constant_time, rand};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use causeway_protocol::Secret;
use serde::Deserialize;
use thiserror::Error;

use crate::store::{Store, StoreError, token_hash};

/// Name of the token that the ready line shows.
const TOKEN_NAME: &str = "admin";

/// Credentials of the first administrator. No `Debug`.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdminAccount {
    /// Bearer token of the API.
    pub token: Secret,
    /// User of the portal.
    pub user: String,
    /// Password of the portal.
    pub password: Secret,
}

/// What is wrong with the credentials file.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum AccessError {
    /// It cannot be read or written.
    #[error("use credentials file {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It does not hold what we wrote.
    #[error("read credentials file {}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Why; never the content.
        #[source]
        source: serde_json::Error,
    },
    /// The system gives no random numbers.
    #[error("draw random numbers")]
    NoRandomness,
    /// The store failed.
    #[error("store credentials")]
    Store(#[source] StoreError),
}

impl AdminAccount {
    /// Reads `dir/admin.json`, or draws new credentials and writes it; their digests go to the store either way.
    ///
    /// # Errors
    /// See [`AccessError`].
    pub async fn establish(dir: &Path, user: &str, store: &Store) -> Result<Self, AccessError> {
        let path = dir.join("admin.json");
        let account = match std::fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map_err(|source| AccessError::Malformed { path: path.clone(), source })?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Self::draw(&path, user)?,
            Err(source) => return Err(AccessError::File { path, source }),
        };
        store.put_api_token(TOKEN_NAME, &account.token).await.map_err(AccessError::Store)?;
        store.put_portal_user(&account.user, &account.password).await.map_err(AccessError::Store)?;
        Ok(account)
    }

    fn draw(path: &Path, user: &str) -> Result<Self, AccessError> {
        let account = Self {
            token: Secret::new(format!("cwt_{}", random_text(32)?)),
            user: user.to_owned(),
            password: Secret::new(random_text(12)?),
        };
        let text = serde_json::json!({
            "token": account.token.expose(), "user": account.user, "password": account.password.expose(),
        });
        write_private(path, text.to_string().as_bytes())
            .map_err(|source| AccessError::File { path: path.to_owned(), source })?;
        Ok(account)
    }
}

/// Checks bearer tokens without touching the store.
pub struct Access {
    hashes: Vec<Vec<u8>>,
}

impl Access {
    /// Loads the tokens' digests.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn load(store: &Store) -> Result<Self, StoreError> {
        Ok(Self { hashes: store.api_token_hashes().await? })
    }

    /// Whether the token is one of ours; takes as long for a wrong one.
    pub fn allows(&self, token: &str) -> bool {
        let hash = token_hash(token);
        self.hashes
            .iter()
            .fold(false, |found, known| found | constant_time::verify_slices_are_equal(known, &hash).is_ok())
    }
}

/// `bytes` random bytes as URL-safe text.
pub(crate) fn random_text(bytes: usize) -> Result<String, AccessError> {
    let mut buffer = vec![0_u8; bytes];
    rand::fill(&mut buffer).map_err(|_| AccessError::NoRandomness)?;
    Ok(URL_SAFE_NO_PAD.encode(buffer))
}

fn write_private(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}
