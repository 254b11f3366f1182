//! SCRAM-SHA-256 as a client (RFC 5802, RFC 7677), for enrolment only. The password never crosses the wire, and the
//! server must prove that it knows the verifier.

use std::num::NonZeroU32;

use aws_lc_rs::{constant_time, digest, hmac, pbkdf2, rand};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use causeway_protocol::Secret;
use thiserror::Error;

/// The mechanism's name.
pub const MECHANISM: &str = "SCRAM-SHA-256";

/// Fewest iterations accepted (RFC 7677 §4).
const ITERATIONS_MIN: u32 = 4_096;
/// Most iterations accepted: a hostile server must not keep the processor busy.
const ITERATIONS_MAX: u32 = 1_000_000;
/// The GS2 header: no channel binding, no authorisation identity.
const GS2: &str = "n,,";

/// What the server did wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ScramError {
    /// A message lacks a part or it is unreadable.
    #[error("the server's SCRAM message is malformed: {0}")]
    Malformed(&'static str),
    /// Its nonce does not continue ours.
    #[error("the server's nonce does not continue ours")]
    Nonce,
    /// Too cheap or too dear.
    #[error("the server asks for {0} iterations, acceptable are {ITERATIONS_MIN} to {ITERATIONS_MAX}")]
    Iterations(u32),
    /// It does not know the verifier of our key.
    #[error("the server cannot prove that it knows the key")]
    ServerProof,
    /// The system has no randomness.
    #[error("the system has no randomness")]
    Randomness,
}

/// First step.
pub struct Client {
    password: Secret,
    first_bare: String,
    nonce: String,
}

/// Last step: checks the server.
pub struct Verifier {
    signature: Vec<u8>,
}

impl Client {
    /// Draws a nonce.
    ///
    /// # Errors
    /// When the system has no randomness.
    pub fn new(username: &str, password: Secret) -> Result<Self, ScramError> {
        let mut bytes = [0; 18];
        rand::fill(&mut bytes).map_err(|_| ScramError::Randomness)?;
        Ok(Self::with_nonce(username, password, STANDARD.encode(bytes)))
    }

    fn with_nonce(username: &str, password: Secret, nonce: String) -> Self {
        let name = username.replace('=', "=3D").replace(',', "=2C");
        Self { password, first_bare: format!("n={name},r={nonce}"), nonce }
    }

    /// client-first-message, in Base64.
    pub fn first(&self) -> String {
        STANDARD.encode(format!("{GS2}{}", self.first_bare))
    }

    /// client-final-message in Base64, in answer to server-first-message in Base64.
    ///
    /// # Errors
    /// When the server's message is malformed or asks for the impossible.
    pub fn respond(self, server_first: &str) -> Result<(String, Verifier), ScramError> {
        let server_first = decode(server_first)?;
        let mut parts = server_first.split(',');
        let mut part = |prefix, what| {
            parts.next().and_then(|part| part.strip_prefix(prefix)).ok_or(ScramError::Malformed(what))
        };
        let nonce = part("r=", "no nonce")?;
        let salt = part("s=", "no salt")?;
        let iterations = part("i=", "no iteration count")?;
        if !nonce.starts_with(&self.nonce) || nonce.len() == self.nonce.len() {
            return Err(ScramError::Nonce);
        }
        let salt = STANDARD.decode(salt).map_err(|_| ScramError::Malformed("its salt is not Base64"))?;
        let iterations: u32 =
            iterations.parse().map_err(|_| ScramError::Malformed("its iteration count is no number"))?;
        let rounds = NonZeroU32::new(iterations)
            .filter(|_| (ITERATIONS_MIN..=ITERATIONS_MAX).contains(&iterations))
            .ok_or(ScramError::Iterations(iterations))?;

        let mut salted = [0; 32];
        let password = self.password.expose().as_bytes();
        pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, rounds, &salt, password, &mut salted);
        let without_proof = format!("c={},r={nonce}", STANDARD.encode(GS2));
        let message = format!("{},{server_first},{without_proof}", self.first_bare);

        let client_key = mac(&salted, b"Client Key");
        let stored_key = digest::digest(&digest::SHA256, &client_key);
        let client_signature = mac(stored_key.as_ref(), message.as_bytes());
        let proof: Vec<u8> = client_key.iter().zip(&client_signature).map(|(a, b)| a ^ b).collect();
        let server_key = mac(&salted, b"Server Key");
        let verifier = Verifier { signature: mac(&server_key, message.as_bytes()) };
        Ok((STANDARD.encode(format!("{without_proof},p={}", STANDARD.encode(proof))), verifier))
    }
}

impl Verifier {
    /// Checks server-final-message, in Base64.
    ///
    /// # Errors
    /// When the server cannot prove itself.
    pub fn verify(&self, server_final: &str) -> Result<(), ScramError> {
        let text = decode(server_final)?;
        let signature = text.split(',').next().and_then(|part| part.strip_prefix("v="));
        let signature = signature.ok_or(ScramError::Malformed("no server signature"))?;
        let signature =
            STANDARD.decode(signature).map_err(|_| ScramError::Malformed("its signature is not Base64"))?;
        constant_time::verify_slices_are_equal(&signature, &self.signature)
            .map_err(|_| ScramError::ServerProof)
    }
}

fn mac(key: &[u8], message: &[u8]) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), message).as_ref().to_vec()
}

fn decode(base64: &str) -> Result<String, ScramError> {
    let bytes = STANDARD.decode(base64).map_err(|_| ScramError::Malformed("not Base64"))?;
    String::from_utf8(bytes).map_err(|_| ScramError::Malformed("not text"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The exchange of RFC 7677 §3.
    #[test]
    fn the_example_of_the_specification_holds() {
        let client = Client::with_nonce("user", Secret::new("pencil"), "rOprNGfwEbeRWgbNEkqO".into());
        assert_eq!(decode(&client.first()).unwrap(), "n,,n=user,r=rOprNGfwEbeRWgbNEkqO");
        let server_first = STANDARD
            .encode("r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096");
        let (last, verifier) = client.respond(&server_first).unwrap();
        assert_eq!(
            decode(&last).unwrap(),
            "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
        );
        let good = STANDARD.encode("v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=");
        assert_eq!(verifier.verify(&good), Ok(()));
        let bad = STANDARD.encode("v=7rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=");
        assert_eq!(verifier.verify(&bad), Err(ScramError::ServerProof));
    }

    #[test]
    fn hostile_servers_are_refused() {
        let refuse = |server_first: &str| {
            let client = Client::with_nonce("u", Secret::new("p"), "abc".into());
            client.respond(&STANDARD.encode(server_first)).map(|_| ()).unwrap_err()
        };
        assert_eq!(refuse("r=abc,s=QQ==,i=4096"), ScramError::Nonce);
        assert_eq!(refuse("r=xbcd,s=QQ==,i=4096"), ScramError::Nonce);
        assert_eq!(refuse("r=abcd,s=QQ==,i=1"), ScramError::Iterations(1));
        assert_eq!(refuse("r=abcd,s=QQ==,i=4000000000"), ScramError::Iterations(4_000_000_000));
        assert_eq!(refuse("m=ext,r=abcd,s=QQ==,i=4096"), ScramError::Malformed("no nonce"));
    }
}
