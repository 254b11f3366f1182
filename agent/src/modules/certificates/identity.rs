//! An identity the agent has made, for the device only: PKCS#12 under a random passphrase, both inside CMS EnvelopedData
//! for the device's key. What leaves here cannot be opened by the agent, which forgets the key with the order.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use causeway_protocol::certificate::Identity;
use causeway_protocol::cms::{self, ContentCipher, KeyTransport, Recipient, SealRandom};
use causeway_protocol::pkix::{Digest, PublicKey, PublicKeyKind};
use p12_keystore::{
    Certificate, EncryptionAlgorithm, KeyStore, KeyStoreEntry, MacAlgorithm, PrivateKey, PrivateKeyChain,
};
use zeroize::Zeroizing;

use super::error::CertError;
use super::limits;

/// Name of the entry in the PKCS#12; some systems show it to people.
const ALIAS: &str = "device identity";

/// Letters and digits that nobody mixes up; 32 of them, so that each is five bits.
const ALPHABET: &[u8; 32] = b"abcdefghjkmnpqrstuvwxyz234567890";

/// The key a device has given to encrypt to.
pub(super) fn recipient(device_key: Option<&str>) -> Result<PublicKey, CertError> {
    let wrong = |problem: String| CertError::BadParameters { action: "issue_certificate".into(), problem };
    let text = device_key.ok_or_else(|| wrong("the device's public key (device_key) is missing".into()))?;
    let der = STANDARD.decode(text).map_err(|_| wrong("device_key is no base64".into()))?;
    let key = PublicKey::read(&der).map_err(|error| wrong(format!("device_key: {error}")))?;
    match key.kind() {
        PublicKeyKind::Rsa { bits: 2_048.. } | PublicKeyKind::P256 => Ok(key),
        kind => Err(wrong(format!("nothing is encrypted to a key of the kind {kind:?}"))),
    }
}

/// `chain` begins with the identity's own certificate.
pub(super) fn enveloped(
    key: &[u8],
    chain: &[&[u8]],
    recipient: &PublicKey,
    legacy: bool,
) -> Result<Vec<u8>, CertError> {
    let passphrase = passphrase()?;
    let pkcs12 = Zeroizing::new(pkcs12(key, chain, &passphrase, legacy)?);
    let mut identity =
        Identity { pkcs12: STANDARD.encode(&*pkcs12), passphrase: passphrase.as_str().to_owned() };
    let json = Zeroizing::new(serde_json::to_vec(&identity).expect("an identity serialises to JSON"));
    zeroize::Zeroize::zeroize(&mut identity.pkcs12);
    zeroize::Zeroize::zeroize(&mut identity.passphrase);
    let mut random = [0; 48];
    fill(&mut random)?;
    let to = Recipient::Key(recipient);
    let transport = KeyTransport::Oaep(Digest::Sha256);
    cms::seal(&json, to, ContentCipher::Aes256, transport, &SealRandom::new(random)).map_err(failed)
}

fn pkcs12(key: &[u8], chain: &[&[u8]], passphrase: &str, legacy: bool) -> Result<Vec<u8>, CertError> {
    let key = PrivateKey::from_der(key).map_err(failed)?;
    let chain = chain
        .iter()
        .map(|certificate| Certificate::from_der(certificate))
        .collect::<Result<Vec<_>, _>>()
        .map_err(failed)?;
    // Connects key and certificate within the file.
    let local_id = [1_u8];
    let mut store = KeyStore::new();
    let entry = PrivateKeyChain::new(local_id.as_slice(), key, chain);
    store.add_entry(ALIAS, KeyStoreEntry::PrivateKeyChain(entry));
    let (cipher, mac) = if legacy {
        (EncryptionAlgorithm::PbeWithShaAnd3KeyTripleDesCbc, MacAlgorithm::HmacSha1)
    } else {
        (EncryptionAlgorithm::PbeWithHmacSha256AndAes256, MacAlgorithm::HmacSha256)
    };
    let writer = store
        .writer(passphrase)
        .encryption_algorithm(cipher)
        .encryption_iterations(limits::PKCS12_ROUNDS)
        .mac_algorithm(mac)
        .mac_iterations(limits::PKCS12_ROUNDS);
    writer.write().map_err(failed)
}

fn passphrase() -> Result<Zeroizing<String>, CertError> {
    let mut bytes = Zeroizing::new([0; limits::PASSPHRASE_CHARS]);
    fill(&mut *bytes)?;
    Ok(Zeroizing::new(bytes.iter().map(|byte| char::from(ALPHABET[usize::from(byte % 32)])).collect()))
}

fn fill(bytes: &mut [u8]) -> Result<(), CertError> {
    let none = |_| CertError::Identity { problem: "the system gives no random numbers".into() };
    aws_lc_rs::rand::fill(bytes).map_err(none)
}

fn failed(error: impl std::error::Error) -> CertError {
    CertError::Identity { problem: error.to_string() }
}

#[cfg(test)]
mod tests {
    use causeway_protocol::certificate::KeyKind;
    use causeway_protocol::cms::EnvelopedData;
    use causeway_protocol::pkix::{Accept, Key, Name, self_signed};
    use p12_keystore::Pkcs12ImportPolicy;

    use super::*;

    fn opened(device: &Key, envelope: &[u8]) -> Identity {
        let plain = EnvelopedData::read(envelope, Accept::MODERN).unwrap().open(device, None).unwrap();
        serde_json::from_slice(&plain).unwrap()
    }

    #[test]
    fn only_the_device_opens_what_is_delivered() {
        let own = Key::generate(KeyKind::P256).unwrap();
        let subject = Name::parse("/CN=asmith").unwrap().to_der();
        let certificate = self_signed(&own, subject, &[7; 16], 0, 4_000_000_000_000).unwrap();
        for (kind, legacy) in [(KeyKind::Rsa2048, false), (KeyKind::P256, true)] {
            let device = Key::generate(kind).unwrap();
            let public = recipient(Some(&STANDARD.encode(device.public_key().spki()))).unwrap();
            let envelope = enveloped(own.pkcs8(), &[&certificate], &public, legacy).unwrap();
            let identity = opened(&device, &envelope);
            let file = STANDARD.decode(&identity.pkcs12).unwrap();
            let strict = Pkcs12ImportPolicy::Strict;
            let store = KeyStore::from_pkcs12(&file, &identity.passphrase, strict).unwrap();
            let (_, entry) = store.private_key_chain().unwrap();
            assert_eq!(entry.certs()[0].as_der(), certificate);
            assert_eq!(
                Key::from_pkcs8(entry.key().as_der()).unwrap().public_key().spki(),
                own.public_key().spki()
            );
            assert!(KeyStore::from_pkcs12(&file, "wrong", strict).is_err(), "a wrong passphrase opens it");
            let stranger = Key::generate(kind).unwrap();
            let read = EnvelopedData::read(&envelope, Accept::MODERN).unwrap();
            assert!(read.open(&stranger, None).is_err());
            assert!(
                !envelope
                    .windows(identity.passphrase.len())
                    .any(|part| part == identity.passphrase.as_bytes())
            );
        }
    }

    #[test]
    fn keys_nobody_should_encrypt_to_are_refused() {
        assert!(
            recipient(None).is_err() && recipient(Some("!")).is_err() && recipient(Some("MAA=")).is_err()
        );
    }
}
