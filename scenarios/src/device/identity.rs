//! Keys, signing requests, and what comes back: installed only if it is what was asked for.

use anyhow::{Context, Result, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use causeway_protocol::Secret;
use causeway_protocol::certificate::Identity;
use causeway_protocol::cms::EnvelopedData;
use causeway_protocol::pkix::{Accept, AlternativeName, Certificate, CsrDraft, Digest, Key, Name};
use p12_keystore::{KeyStore, Pkcs12ImportPolicy};
use serde_json::Value;
use zeroize::Zeroizing;

use super::api::Told;
use super::{Forgery, day};

/// A request under way, with the key that was made for it.
pub enum Wish {
    /// A certificate for this key.
    Certificate(Key),
    /// An identity made elsewhere, encrypted to this key.
    Identity(Key),
}

/// What a device has.
pub struct Held {
    /// PKCS#8 of the key.
    pub key: Zeroizing<Vec<u8>>,
    /// The certificate.
    pub certificate: Certificate,
    /// Authorities from the issuer upwards.
    pub chain: Vec<Certificate>,
    /// The file they came in, where they came in one.
    pub file: Option<IdentityFile>,
}

/// A PKCS#12 and what opens it.
pub struct IdentityFile {
    /// The file.
    pub pkcs12: Vec<u8>,
    /// Its passphrase.
    pub passphrase: Secret,
}

impl Held {
    /// The day it ends, for people.
    pub fn ends(&self) -> String {
        day(self.certificate.not_after_ms())
    }

    /// Checks that the key is the certificate's and that every certificate is signed by the next one above it.
    ///
    /// # Errors
    /// What does not fit.
    pub fn check(&self) -> Result<()> {
        let key = Key::from_pkcs8(&self.key).context("read the key")?;
        ensure!(
            key.public_key().same_as(self.certificate.public_key()),
            "the certificate is for another key than the device's"
        );
        let mut below = &self.certificate;
        for above in &self.chain {
            ensure!(
                below.issued_by(above, Accept::default()),
                "{} did not issue {}",
                above.subject(),
                below.subject()
            );
            below = above;
        }
        ensure!(!self.chain.is_empty(), "the certificate came without its issuer");
        Ok(())
    }
}

impl Wish {
    /// The signing request the cloud asks for, or a forged one; base64 of DER.
    ///
    /// # Errors
    /// When what the cloud says cannot be written into one.
    pub(super) fn csr(&self, told: &Told, forgery: &Forgery) -> Result<String> {
        let Self::Certificate(key) = self else { bail!("this key is for an identity") };
        let subject = forgery.subject.as_deref().unwrap_or(&told.subject);
        let names = told.alternative_names.iter().chain(&forgery.alternative_names);
        let challenge = forgery.challenge.clone().or_else(|| told.challenge.clone());
        let draft = CsrDraft {
            subject: Name::parse(subject).with_context(|| format!("read the subject {subject:?}"))?,
            alternative_names: names
                .map(|name| AlternativeName::parse(name).with_context(|| format!("read the name {name:?}")))
                .collect::<Result<_>>()?,
            challenge: challenge.map(Secret::new),
            ..CsrDraft::default()
        };
        Ok(STANDARD.encode(draft.sign(key, Digest::Sha256).context("sign the request")?))
    }

    /// SubjectPublicKeyInfo, base64 of DER.
    pub(super) fn public_key(&self) -> String {
        let (Self::Certificate(key) | Self::Identity(key)) = self;
        STANDARD.encode(key.public_key().spki())
    }

    /// What the cloud gives, checked.
    ///
    /// # Errors
    /// When it is not what was asked for.
    pub(super) fn install(&self, given: &Value) -> Result<Held> {
        let certificate = read(given["certificate_der"].as_str().context("the cloud gave no certificate")?)?;
        let chain = given["chain"].as_array().into_iter().flatten().filter_map(Value::as_str);
        let chain = chain.map(read).collect::<Result<Vec<_>>>()?;
        let held = match self {
            Self::Certificate(key) => Held { key: key.pkcs8().clone(), certificate, chain, file: None },
            Self::Identity(key) => {
                let sealed = given["identity"].as_str().context("the cloud gave no identity")?;
                let inside = open(sealed, key)?;
                ensure!(
                    inside.certificate.raw() == certificate.raw(),
                    "the identity holds another certificate than the cloud shows"
                );
                inside
            }
        };
        held.check()?;
        Ok(held)
    }
}

/// Opens an identity: the envelope with our key, the PKCS#12 in it with the passphrase beside it.
fn open(sealed: &str, key: &Key) -> Result<Held> {
    let der = STANDARD.decode(sealed).context("the identity is not base64")?;
    let envelope = EnvelopedData::read(&der, Accept::default()).context("read the envelope")?;
    let text = envelope.open(key, None).context("open the envelope")?;
    // The parser's words might quote the passphrase.
    let identity: Identity =
        serde_json::from_slice(&text).ok().context("there is something else in the envelope")?;
    let pkcs12 = STANDARD.decode(&identity.pkcs12).context("the PKCS#12 is not base64")?;
    let store = KeyStore::from_pkcs12(&pkcs12, &identity.passphrase, Pkcs12ImportPolicy::Relaxed)
        .ok()
        .context("the PKCS#12 does not open")?;
    let (_, entry) = store.private_key_chain().context("the PKCS#12 holds no key")?;
    let certificates = entry.certs().iter().map(|it| Certificate::read(it.as_der()));
    let mut chain = certificates.collect::<Result<Vec<_>, _>>().context("read the PKCS#12's certificates")?;
    ensure!(!chain.is_empty(), "the identity has no certificate");
    let certificate = chain.remove(0);
    let key = Zeroizing::new(entry.key().as_der().to_vec());
    let file = IdentityFile { passphrase: Secret::new(identity.passphrase.as_str()), pkcs12 };
    Ok(Held { key, certificate, chain, file: Some(file) })
}

fn read(text: &str) -> Result<Certificate> {
    let der = STANDARD.decode(text).context("a certificate is not base64")?;
    Certificate::read(&der).context("read a certificate")
}
