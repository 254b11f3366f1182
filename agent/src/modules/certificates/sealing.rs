//! Signing requests with a challenge come sealed to this agent, because orders rest on disk on their way, in the cloud and
//! here: a challenge is never stored, and so neither is a request that holds one. The agent that fetches a challenge says
//! which key the request is to be encrypted to. The key rests in the vault, so an agent that was restarted still opens what
//! comes; another agent does not, and the cloud begins anew with another challenge.

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use causeway_protocol::Secret;
use causeway_protocol::certificate::{KeyKind, SealTo};
use causeway_protocol::cms::EnvelopedData;
use causeway_protocol::pkix::{Accept, Csr, Key};
use tokio::sync::OnceCell;
use zeroize::Zeroizing;

use super::error::CertError;
use super::rules::{RequestError, hex};
use super::state::Store;
use crate::vault::{Vault, VaultError};

/// What the vault knows the key by.
const KEY: &str = "certificates key for requests";

/// Opens what was sealed to this agent.
pub(super) struct Sealing {
    vault: Vault,
    /// Made at first use, and from then on the one in the storage.
    key: OnceCell<Key>,
}

impl Sealing {
    pub(super) fn new(vault: Vault) -> Self {
        Self { vault, key: OnceCell::new() }
    }

    /// How the signing request with this challenge is to come back.
    pub(super) async fn ask(
        &self,
        store: &Store,
        request: &str,
        subject: &str,
        challenge: &Secret,
    ) -> Result<SealTo, CertError> {
        let key = self.key.get_or_try_init(|| self.kept(store)).await?;
        let sha256 = digest(&SHA256, challenge.expose().as_bytes());
        let proof = self.vault.seal(&purpose(request, subject), sha256.as_ref())?;
        Ok(SealTo { key: STANDARD.encode(key.public_key().spki()), proof: STANDARD.encode(proof) })
    }

    /// The signing request in an envelope for this agent.
    pub(super) async fn open(
        &self,
        store: &Store,
        request: &str,
        envelope: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, CertError> {
        let key = self.key.get_or_try_init(|| self.kept(store)).await?;
        let elsewhere = || CertError::SealedElsewhere { request: request.to_owned() };
        let opened = EnvelopedData::read(envelope, Accept::MODERN).and_then(|sealed| sealed.open(key, None));
        let csr = opened.map_err(|error| {
            tracing::info!(request, error = %crate::chain::Chain(&error), "A sealed request cannot be opened");
            elsewhere()
        })?;
        // One time in 256 the padding looks right under another key too.
        if let Err(error) = Csr::read(&csr) {
            tracing::info!(request, error = %crate::chain::Chain(&error), "A sealed request opens to something else");
            return Err(elsewhere());
        }
        Ok(csr)
    }

    /// SHA-256 in hex over the challenge that was handed out for the request and its subject.
    pub(super) fn handed_out(
        &self,
        proof: &str,
        request: &str,
        subject: &str,
    ) -> Result<String, RequestError> {
        let proof = STANDARD.decode(proof).map_err(|_| RequestError::Challenge)?;
        let sha256 = self.vault.open(&purpose(request, subject), &proof);
        sha256.map(|sha256| hex(&sha256)).map_err(|_| RequestError::Challenge)
    }

    async fn kept(&self, store: &Store) -> Result<Key, CertError> {
        if let Some(sealed) = store.own_key().await? {
            match self.vault.open(KEY, &sealed) {
                Ok(key) => return Key::from_pkcs8(&key).map_err(|_| CertError::BadState),
                // The vault is another one by now, so nothing that was sealed to the old key is opened any more.
                Err(VaultError::Foreign) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let failed =
            |error: causeway_protocol::pkix::PkixError| CertError::Identity { problem: error.to_string() };
        let key = Key::generate(KeyKind::P256).map_err(failed)?;
        store.keep_own_key(self.vault.seal(KEY, key.pkcs8())?).await?;
        Ok(key)
    }
}

/// A proof is good for one request in one name.
fn purpose(request: &str, subject: &str) -> String {
    format!("certificates challenge {request} for {subject}")
}
