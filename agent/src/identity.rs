//! Who this agent is: a key made here that never leaves, and the certificate the cloud gave for it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use causeway_protocol::Secret;
use causeway_protocol::channel::payload::Certificate;
use jid::BareJid;
use rcgen::{CertificateParams, DistinguishedName, KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde::Deserialize;
use thiserror::Error;
use zeroize::Zeroize;

use crate::dial::tls::OwnCertificate;
use crate::secrets::{Sealer, SecretsError, read_private, write_private};

/// The file's name in the data directory. One file, so that key and certificate change together.
pub const FILE_NAME: &str = "identity.sealed";

/// Everything that names this instance. Has no `Debug`: it holds the key.
#[derive(Clone)]
pub struct Identity {
    /// The instance id the cloud gave, a UUID.
    pub instance: String,
    /// The tenant's id.
    pub tenant: String,
    /// Whom we log in as.
    pub jid: BareJid,
    /// Certificate chain in PEM, leaf first.
    pub chain_pem: String,
    key_pem: Secret,
}

/// Why there is no usable identity.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// Nobody has enrolled here.
    #[error("{} holds no identity; run: causeway-agent enroll --cloud URL --key KEY --data-dir {}", .data_dir.display(), .data_dir.display())]
    NotEnrolled {
        /// The data directory.
        data_dir: PathBuf,
    },
    /// The file cannot be used.
    #[error("load the identity")]
    File {
        /// What is wrong with it.
        #[source]
        source: SecretsError,
    },
    /// The file cannot be written.
    #[error("keep the identity")]
    Keep {
        /// Why.
        #[source]
        source: SecretsError,
    },
    /// The file is not what `enroll` wrote.
    #[error("{} is damaged; remove it and enrol again with a new key", .path.display())]
    Damaged {
        /// Which file.
        path: PathBuf,
    },
    /// No key could be made.
    #[error("make a key")]
    Key {
        /// What the library says.
        #[source]
        source: rcgen::Error,
    },
    /// The cloud's certificate is not for our key, or unreadable.
    #[error("the certificate from the cloud is not usable: {what}")]
    BadCertificate {
        /// What is wrong.
        what: &'static str,
    },
}

/// A key that waits for its certificate.
pub struct PendingKey {
    pair: KeyPair,
}

impl PendingKey {
    /// Makes an ECDSA P-256 key.
    ///
    /// # Errors
    /// When the system has no randomness.
    pub fn generate() -> Result<Self, IdentityError> {
        KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)
            .map(|pair| Self { pair })
            .map_err(|source| IdentityError::Key { source })
    }

    /// The request to certify it, PKCS#10 in PEM. Says nothing but the key: names are the cloud's to give.
    ///
    /// # Errors
    /// When signing fails.
    pub fn request_pem(&self) -> Result<String, IdentityError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params
            .serialize_request(&self.pair)
            .and_then(|request| request.pem())
            .map_err(|source| IdentityError::Key { source })
    }

    /// Joins the key with what the cloud answered.
    ///
    /// # Errors
    /// When the certificate is not for this key.
    pub fn certified(self, certificate: Certificate) -> Result<Identity, IdentityError> {
        let bad = |what| IdentityError::BadCertificate { what };
        let leaf = CertificateDer::pem_slice_iter(certificate.chain_pem.as_bytes())
            .next()
            .and_then(Result::ok)
            .ok_or(bad("it is not in PEM form"))?;
        let (_, parsed) = x509_parser::parse_x509_certificate(&leaf).map_err(|_| bad("it is unreadable"))?;
        if parsed.public_key().subject_public_key.data.as_ref() != self.pair.public_key_raw() {
            return Err(bad("it is for another key"));
        }
        let jid = certificate.jid.parse().map_err(|_| bad("its JID is unreadable"))?;
        Ok(Identity {
            instance: certificate.instance,
            tenant: certificate.tenant,
            jid,
            chain_pem: certificate.chain_pem,
            key_pem: Secret::new(self.pair.serialize_pem()),
        })
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OnDisk {
    instance: String,
    tenant: String,
    jid: String,
    chain_pem: String,
    key_pem: Secret,
}

impl Identity {
    /// Reads the data directory's identity.
    ///
    /// # Errors
    /// When there is none or it cannot be used.
    pub fn load(data_dir: &Path, sealer: &dyn Sealer) -> Result<Self, IdentityError> {
        let path = data_dir.join(FILE_NAME);
        let sealed = read_private(&path)
            .map_err(|source| IdentityError::File { source })?
            .ok_or_else(|| IdentityError::NotEnrolled { data_dir: data_dir.to_owned() })?;
        let plain = sealer.unseal(&sealed).map_err(|source| IdentityError::File {
            source: SecretsError::Unseal { path: path.clone(), source },
        })?;
        let disk: OnDisk =
            serde_json::from_slice(&plain).map_err(|_| IdentityError::Damaged { path: path.clone() })?;
        let jid = disk.jid.parse().map_err(|_| IdentityError::Damaged { path })?;
        Ok(Self {
            instance: disk.instance,
            tenant: disk.tenant,
            jid,
            chain_pem: disk.chain_pem,
            key_pem: disk.key_pem,
        })
    }

    /// The same where there may be none yet.
    ///
    /// # Errors
    /// When there is one that cannot be used.
    pub fn find(data_dir: &Path, sealer: &dyn Sealer) -> Result<Option<Self>, IdentityError> {
        match Self::load(data_dir, sealer) {
            Ok(identity) => Ok(Some(identity)),
            Err(IdentityError::NotEnrolled { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Replaces the data directory's identity in one step.
    ///
    /// # Errors
    /// When the disk refuses; the old identity then stays.
    pub fn save(&self, data_dir: &Path, sealer: &dyn Sealer) -> Result<(), IdentityError> {
        let path = data_dir.join(FILE_NAME);
        let mut plain = serde_json::to_vec(&serde_json::json!({
            "instance": self.instance,
            "tenant": self.tenant,
            "jid": self.jid.to_string(),
            "chain_pem": self.chain_pem,
            "key_pem": self.key_pem.expose(),
        }))
        .expect("texts serialise to JSON");
        let sealed = sealer.seal(&plain);
        plain.zeroize();
        let failed = |source| IdentityError::Keep { source };
        let sealed = sealed.map_err(|source| failed(SecretsError::Seal { path: path.clone(), source }))?;
        write_private(&path, &sealed).map_err(|source| failed(SecretsError::Write { path, source }))
    }

    /// What names this enrolment: another one is another life, even on the same machine. Renewing the certificate keeps it.
    pub fn enrolment(&self) -> String {
        format!("{}/{}", self.tenant, self.instance)
    }

    /// Chain and key as TLS wants them.
    ///
    /// # Errors
    /// When they are unreadable.
    pub fn certificate(&self) -> Result<OwnCertificate, IdentityError> {
        let bad = |what| IdentityError::BadCertificate { what };
        let chain = CertificateDer::pem_slice_iter(self.chain_pem.as_bytes())
            .collect::<Result<Vec<_>, _>>()
            .map_err(|_| bad("it is not in PEM form"))?;
        let key = PrivateKeyDer::from_pem_slice(self.key_pem.expose().as_bytes())
            .map_err(|_| bad("our key is unreadable"))?;
        Ok(OwnCertificate { chain, key })
    }

    /// From when to when the certificate is valid, in Unix milliseconds.
    ///
    /// # Errors
    /// When it is unreadable.
    pub fn validity(&self) -> Result<Validity, IdentityError> {
        let bad = IdentityError::BadCertificate { what: "it is unreadable" };
        let certificate = self.certificate()?;
        let Some(leaf) = certificate.chain.first() else { return Err(bad) };
        let Ok((_, parsed)) = x509_parser::parse_x509_certificate(leaf) else { return Err(bad) };
        let validity = parsed.validity();
        Ok(Validity {
            from_ms: validity.not_before.timestamp().saturating_mul(1000),
            until_ms: validity.not_after.timestamp().saturating_mul(1000),
        })
    }
}

/// When a certificate holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// First moment, Unix milliseconds.
    pub from_ms: i64,
    /// Last moment, Unix milliseconds.
    pub until_ms: i64,
}

impl Validity {
    /// When to ask for the next one: after two thirds of its life, so that a cloud outage of the last third is
    /// survived.
    pub fn renew_at_ms(&self) -> i64 {
        self.from_ms + (self.until_ms - self.from_ms) / 3 * 2
    }

    /// How long until then.
    pub fn renew_in(&self, now_ms: i64) -> Duration {
        Duration::from_millis(u64::try_from(self.renew_at_ms() - now_ms).unwrap_or(0))
    }
}

/// What ties the state file to this machine: its id, or the host's name where the system has no such id.
pub fn machine() -> String {
    crate::platform::machine_id().unwrap_or_else(host_name)
}

/// The host's name, for people.
pub fn host_name() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname")
        .ok()
        .or_else(|| std::env::var("COMPUTERNAME").ok())
        .or_else(|| std::env::var("HOSTNAME").ok())
        .map(|name| name.trim().to_owned())
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| "unknown".to_owned())
}

#[cfg(test)]
mod tests {
    use rcgen::Issuer;

    use super::*;
    use crate::secrets::FileModeSealer;

    fn certify(request_pem: &str) -> Certificate {
        let ca_key = KeyPair::generate().unwrap();
        let issuer = Issuer::new(CertificateParams::default(), ca_key);
        let request = rcgen::CertificateSigningRequestParams::from_pem(request_pem).unwrap();
        Certificate {
            chain_pem: request.signed_by(&issuer).unwrap().pem(),
            instance: "7c9e6679-7425-40de-944b-e07fc1f90ae7".into(),
            tenant: "t1".into(),
            jid: "7c9e6679@cloud.example".into(),
        }
    }

    #[test]
    fn an_identity_survives_on_disk_and_is_private() {
        let dir = tempfile::tempdir().unwrap();
        let pending = PendingKey::generate().unwrap();
        let certificate = certify(&pending.request_pem().unwrap());
        let identity = pending.certified(certificate).unwrap();
        identity.save(dir.path(), &FileModeSealer).unwrap();
        let back = Identity::load(dir.path(), &FileModeSealer).unwrap();
        assert_eq!((back.instance, back.chain_pem), (identity.instance.clone(), identity.chain_pem.clone()));
        assert_eq!(identity.certificate().unwrap().chain.len(), 1);
    }

    #[test]
    fn a_damaged_identity_is_not_a_missing_one() {
        let dir = tempfile::tempdir().unwrap();
        assert!(Identity::find(dir.path(), &FileModeSealer).unwrap().is_none());
        write_private(&dir.path().join(FILE_NAME), b"").unwrap();
        let Err(error) = Identity::find(dir.path(), &FileModeSealer) else { panic!("accepted") };
        assert!(error.to_string().contains("identity.sealed is damaged; remove it"), "{error}");
    }

    #[test]
    fn a_certificate_for_another_key_is_refused() {
        let other = PendingKey::generate().unwrap();
        let certificate = certify(&other.request_pem().unwrap());
        let Err(error) = PendingKey::generate().unwrap().certified(certificate) else { panic!("accepted") };
        assert!(error.to_string().ends_with("it is for another key"), "{error}");
    }

    #[test]
    fn renewal_is_due_after_two_thirds() {
        let validity = Validity { from_ms: 0, until_ms: 900 };
        assert_eq!(validity.renew_in(500), Duration::from_millis(100));
        assert_eq!(validity.renew_in(700), Duration::ZERO);
    }
}
