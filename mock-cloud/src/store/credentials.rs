//! Who may use the API and the portal: digests only.

use std::num::NonZeroU32;

use aws_lc_rs::{constant_time, digest, pbkdf2, rand};
use causeway_protocol::Secret;
use rusqlite::{OptionalExtension as _, params};

use super::{Store, StoreError};
use crate::limits::PASSWORD_ROUNDS;

impl Store {
    /// Makes `token` the API token called `name`; an earlier one of that name ends.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn put_api_token(&self, name: &str, token: &Secret) -> Result<(), StoreError> {
        let (name, hash) = (name.to_owned(), token_hash(token.expose()));
        self.write(move |connection| {
            connection.execute("DELETE FROM api_tokens WHERE name = ?1", [&name])?;
            connection.execute("INSERT INTO api_tokens (hash, name) VALUES (?1, ?2)", params![hash, name])?;
            Ok(())
        })
        .await
    }

    /// The digests of all API tokens; the API keeps them in memory.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn api_token_hashes(&self) -> Result<Vec<Vec<u8>>, StoreError> {
        self.read(|connection| {
            let mut query = connection.prepare_cached("SELECT hash FROM api_tokens")?;
            let rows = query.query_map([], |row| row.get(0))?;
            Ok(rows.collect::<Result<Vec<_>, _>>()?)
        })
        .await
    }

    /// Sets the password of a portal user.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn put_portal_user(&self, name: &str, password: &Secret) -> Result<(), StoreError> {
        let (name, password) = (name.to_owned(), password.clone());
        self.write(move |connection| {
            let mut salt = [0_u8; 16];
            rand::fill(&mut salt).map_err(|_| StoreError::Gone)?;
            let hash = password_hash(&salt, PASSWORD_ROUNDS, &password);
            connection.execute(
                "INSERT INTO portal_users (name, salt, iterations, hash) VALUES (?1, ?2, ?3, ?4) \
                 ON CONFLICT (name) DO UPDATE SET salt = excluded.salt, iterations = excluded.iterations, \
                 hash = excluded.hash",
                params![name, salt, PASSWORD_ROUNDS.get(), hash],
            )?;
            Ok(())
        })
        .await
    }

    /// Checks a portal user's password. Takes as long for an unknown name as for a known one.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn check_portal_user(&self, name: &str, password: Secret) -> Result<bool, StoreError> {
        let name = name.to_owned();
        self.read(move |connection| {
            let row: Option<(Vec<u8>, u32, Vec<u8>)> = connection
                .prepare_cached("SELECT salt, iterations, hash FROM portal_users WHERE name = ?1")?
                .query_row([name], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
                .optional()?;
            let known = row.is_some();
            let (salt, rounds, expected) =
                row.unwrap_or_else(|| (vec![0; 16], PASSWORD_ROUNDS.get(), vec![0; 32]));
            let rounds = NonZeroU32::new(rounds).unwrap_or(PASSWORD_ROUNDS);
            let actual = password_hash(&salt, rounds, &password);
            Ok(known & constant_time::verify_slices_are_equal(&actual, &expected).is_ok())
        })
        .await
    }
}

/// The digest under which a token is stored. Tokens are 256 random bits, so one round is enough.
pub fn token_hash(token: &str) -> Vec<u8> {
    digest::digest(&digest::SHA256, token.as_bytes()).as_ref().to_vec()
}

fn password_hash(salt: &[u8], rounds: NonZeroU32, password: &Secret) -> [u8; 32] {
    let mut hash = [0_u8; 32];
    pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, rounds, salt, password.expose().as_bytes(), &mut hash);
    hash
}
