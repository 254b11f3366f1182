//! SCRAM-SHA-256 (RFC 5802, RFC 7677), the server's half, as a machine without I/O.
//!
//! No channel binding: nothing is bound to a TLS session here, because only enrolment uses it and the key it proves
//! works once.

use aws_lc_rs::{constant_time, digest, hmac, pbkdf2};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use thiserror::Error;

use crate::limits::SCRAM_ITERATIONS;

/// SHA-256 output.
const HASH_BYTES: usize = 32;

/// What the cloud keeps of a password (RFC 5802 §3): enough to check it, not enough to use it.
#[derive(Clone, PartialEq, Eq)]
pub struct Verifier {
    /// Random, per password.
    pub salt: Vec<u8>,
    /// PBKDF2 rounds, at least 4,096 (RFC 7677 §4).
    pub iterations: u32,
    /// SHA-256 of the client key.
    pub stored_key: Vec<u8>,
    /// Proves to the client that the server knows the password.
    pub server_key: Vec<u8>,
}

impl Verifier {
    /// Derives the verifier of `password`.
    pub fn derive(password: &str, salt: Vec<u8>) -> Self {
        let salted = salted_password(password, &salt, SCRAM_ITERATIONS);
        let client_key = hmac_sha256(&salted, b"Client Key");
        Self {
            stored_key: digest::digest(&digest::SHA256, &client_key).as_ref().to_vec(),
            server_key: hmac_sha256(&salted, b"Server Key").to_vec(),
            salt,
            iterations: SCRAM_ITERATIONS,
        }
    }

    /// A verifier nothing fits, the same for the same name, so that asking for an unknown name looks like a wrong
    /// password (RFC 5802 §5.1, `unknown-user`).
    pub fn of_nobody(secret: &[u8], name: &str) -> Self {
        let salt = hmac_sha256(secret, name.as_bytes());
        Self {
            salt: salt[..16].to_vec(),
            iterations: SCRAM_ITERATIONS,
            stored_key: hmac_sha256(secret, &salt).to_vec(),
            server_key: hmac_sha256(&salt, secret).to_vec(),
        }
    }
}

/// What is wrong with a client's message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ScramError {
    /// Not a SCRAM message.
    #[error("client sent a malformed SCRAM message")]
    Malformed,
    /// Channel binding was asked for and is not offered.
    #[error("client asks for channel binding, which is not offered")]
    ChannelBinding,
    /// Someone changed the exchange on the way: nonce or header differ between the two client messages.
    #[error("client's second message does not continue its first")]
    Discontinuous,
    /// The password is wrong or the name unknown.
    #[error("client's proof does not fit")]
    WrongProof,
}

/// The client's first message.
#[derive(Debug)]
pub struct ClientFirst {
    /// Who it says it is.
    pub name: String,
    gs2_header: String,
    bare: String,
    nonce: String,
}

impl ClientFirst {
    /// Reads `gs2-header client-first-message-bare` (RFC 5802 §7).
    ///
    /// # Errors
    /// When it is malformed or wants channel binding.
    pub fn parse(message: &str) -> Result<Self, ScramError> {
        let mut parts = message.splitn(3, ',');
        let flag = parts.next().ok_or(ScramError::Malformed)?;
        let authzid = parts.next().ok_or(ScramError::Malformed)?;
        let bare = parts.next().ok_or(ScramError::Malformed)?;
        match flag {
            // "y": the client could and thinks we cannot, which is true.
            "n" | "y" => {}
            _ if flag.starts_with("p=") => return Err(ScramError::ChannelBinding),
            _ => return Err(ScramError::Malformed),
        }
        if !authzid.is_empty() && !authzid.starts_with("a=") {
            return Err(ScramError::Malformed);
        }
        let mut fields = bare.split(',');
        let name = fields.next().and_then(|field| field.strip_prefix("n=")).ok_or(ScramError::Malformed)?;
        let nonce = fields.next().and_then(|field| field.strip_prefix("r=")).ok_or(ScramError::Malformed)?;
        if nonce.is_empty() {
            return Err(ScramError::Malformed);
        }
        Ok(Self {
            name: unescape(name)?,
            gs2_header: format!("{flag},{authzid},"),
            nonce: nonce.to_owned(),
            bare: bare.to_owned(),
        })
    }
}

/// An exchange between the server's first message and the client's second.
pub struct Exchange {
    verifier: Verifier,
    nonce: String,
    gs2_header: String,
    /// `client-first-message-bare "," server-first-message`
    transcript: String,
}

impl Exchange {
    /// Answers the client's first message. `server_nonce` must be fresh and printable, without commas.
    pub fn begin(first: &ClientFirst, verifier: Verifier, server_nonce: &str) -> (Self, String) {
        let nonce = format!("{}{server_nonce}", first.nonce);
        let salt = STANDARD.encode(&verifier.salt);
        let server_first = format!("r={nonce},s={salt},i={}", verifier.iterations);
        let transcript = format!("{},{server_first}", first.bare);
        (Self { verifier, nonce, gs2_header: first.gs2_header.clone(), transcript }, server_first)
    }

    /// Checks the client's second message; the answer proves to the client that we knew the password too.
    ///
    /// # Errors
    /// When it is malformed, belongs to another exchange, or its proof is wrong.
    pub fn finish(&self, client_final: &str) -> Result<String, ScramError> {
        let (without_proof, proof) = client_final.rsplit_once(",p=").ok_or(ScramError::Malformed)?;
        let mut fields = without_proof.split(',');
        let binding =
            fields.next().and_then(|field| field.strip_prefix("c=")).ok_or(ScramError::Malformed)?;
        let nonce = fields.next().and_then(|field| field.strip_prefix("r=")).ok_or(ScramError::Malformed)?;
        if binding != STANDARD.encode(&self.gs2_header) || nonce != self.nonce {
            return Err(ScramError::Discontinuous);
        }
        let proof = STANDARD.decode(proof).map_err(|_| ScramError::Malformed)?;
        let transcript = format!("{},{without_proof}", self.transcript);
        let signature = hmac_sha256(&self.verifier.stored_key, transcript.as_bytes());
        if proof.len() != HASH_BYTES {
            return Err(ScramError::WrongProof);
        }
        let client_key: Vec<u8> = proof.iter().zip(signature.iter()).map(|(p, s)| p ^ s).collect();
        let stored = digest::digest(&digest::SHA256, &client_key);
        constant_time::verify_slices_are_equal(stored.as_ref(), &self.verifier.stored_key)
            .map_err(|_| ScramError::WrongProof)?;
        let server = hmac_sha256(&self.verifier.server_key, transcript.as_bytes());
        Ok(format!("v={}", STANDARD.encode(server)))
    }
}

/// `saslname` of RFC 5802 §7: `=2C` is a comma, `=3D` an equals sign, any other use of `=` is an error.
fn unescape(name: &str) -> Result<String, ScramError> {
    if name.is_empty() {
        return Err(ScramError::Malformed);
    }
    let mut out = String::with_capacity(name.len());
    let mut rest = name;
    while let Some(at) = rest.find('=') {
        out.push_str(&rest[..at]);
        out.push(match rest.get(at + 1..at + 3) {
            Some("2C") => ',',
            Some("3D") => '=',
            _ => return Err(ScramError::Malformed),
        });
        rest = &rest[at + 3..];
    }
    out.push_str(rest);
    Ok(out)
}

fn salted_password(password: &str, salt: &[u8], iterations: u32) -> [u8; HASH_BYTES] {
    let mut out = [0; HASH_BYTES];
    let rounds = std::num::NonZeroU32::new(iterations).unwrap_or(std::num::NonZeroU32::MIN);
    pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, rounds, salt, password.as_bytes(), &mut out);
    out
}

fn hmac_sha256(key: &[u8], message: &[u8]) -> [u8; HASH_BYTES] {
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), message);
    let mut out = [0; HASH_BYTES];
    out.copy_from_slice(tag.as_ref());
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of RFC 7677 §3, word for word.
    fn rfc_exchange() -> (Exchange, String) {
        let first = ClientFirst::parse("n,,n=user,r=rOprNGfwEbeRWgbNEkqO").unwrap();
        assert_eq!(first.name, "user");
        let salt = STANDARD.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
        Exchange::begin(&first, Verifier::derive("pencil", salt), "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0")
    }

    const RFC_FINAL: &str = "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";

    #[test]
    fn the_example_of_rfc_7677_holds() {
        let (exchange, server_first) = rfc_exchange();
        assert_eq!(
            server_first,
            "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
        );
        let server_final = exchange.finish(RFC_FINAL).unwrap();
        assert_eq!(server_final, "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=");
    }

    #[test]
    fn a_wrong_proof_nonce_or_header_is_refused() {
        let (exchange, _) = rfc_exchange();
        let other_proof = RFC_FINAL.replace("p=dHzb", "p=eHzb");
        assert_eq!(exchange.finish(&other_proof), Err(ScramError::WrongProof));
        assert_eq!(exchange.finish(&RFC_FINAL.replace("r=rO", "r=rP")), Err(ScramError::Discontinuous));
        assert_eq!(exchange.finish(&RFC_FINAL.replace("biws", "eSws")), Err(ScramError::Discontinuous));
        assert_eq!(exchange.finish("c=biws,r=x"), Err(ScramError::Malformed));
        assert_eq!(exchange.finish("c=biws,r=,p="), Err(ScramError::Discontinuous));
    }

    #[test]
    fn first_messages_are_read_strictly() {
        assert_eq!(ClientFirst::parse("y,a=x,n=a=2Cb=3D,r=n").unwrap().name, "a,b=");
        for (text, error) in [
            ("p=tls-exporter,,n=u,r=n", ScramError::ChannelBinding),
            ("n,,n=u", ScramError::Malformed),
            ("n,,n=,r=n", ScramError::Malformed),
            ("n,,n=u,r=", ScramError::Malformed),
            ("n,,n=a=2,r=n", ScramError::Malformed),
            ("n,,m=ext,n=u,r=n", ScramError::Malformed),
            ("", ScramError::Malformed),
            ("n", ScramError::Malformed),
        ] {
            assert_eq!(ClientFirst::parse(text).unwrap_err(), error, "{text}");
        }
    }

    #[test]
    fn nobody_looks_like_somebody_every_time() {
        let one = Verifier::of_nobody(b"seed", "bob");
        assert_eq!(one.salt, Verifier::of_nobody(b"seed", "bob").salt);
        assert_ne!(one.salt, Verifier::of_nobody(b"seed", "eve").salt);
        assert_eq!((one.salt.len(), one.iterations), (16, SCRAM_ITERATIONS));
    }
}
