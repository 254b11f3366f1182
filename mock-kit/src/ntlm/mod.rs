//! The server's half of NTLMv2 (MS-NLMP), without sockets: tokens in, tokens out.
//!
//! Order: [`NtlmServer::challenge`] answers the client's NEGOTIATE; [`NtlmServer::authenticate`] reads its
//! AUTHENTICATE and says who it claims to be; [`Claim::verify`] checks the answer against the NT hash of that very
//! account and gives a [`Session`], which signs and seals. NTLMv1, LM and sessions without extended session security
//! are refused, as current servers do.

mod crypto;
mod message;
mod session;

use std::time::Duration;

pub use crypto::{NtHash, channel_binding_hash, random_challenge, tls_server_end_point};
pub(crate) use message::is_ntlm;
pub use message::{AvPairs, flags};
pub use session::Session;

use crypto::{hmac_md5, nt_proof, ntowf_v2, rc4};
use message::{Authenticate, Challenge, Negotiate};

/// Names a server gives in its challenge.
#[derive(Clone, Debug, Default)]
pub struct ServerNames {
    /// NetBIOS domain name, such as `ACME`.
    pub netbios_domain: String,
    /// NetBIOS computer name, such as `DC1`.
    pub netbios_computer: String,
    /// DNS domain name, such as `acme.example`.
    pub dns_domain: String,
    /// DNS computer name, such as `dc1.acme.example`.
    pub dns_computer: String,
    /// DNS name of the forest's root domain.
    pub dns_forest: String,
}

/// What is wrong with a token, or with its sender.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NtlmError {
    /// The token is larger than any client sends.
    #[error("ntlm token of {size_bytes} bytes is too large")]
    TooLarge {
        /// Its size.
        size_bytes: usize,
    },
    /// The token does not start with the NTLMSSP signature.
    #[error("not an ntlm token")]
    NotNtlm,
    /// Another message was due.
    #[error("ntlm message {got} received where {expected} is due")]
    OutOfTurn {
        /// Message number due (1 NEGOTIATE, 3 AUTHENTICATE).
        expected: u32,
        /// Message number received.
        got: u32,
    },
    /// A field points outside the token, or a list in it does not end.
    #[error("ntlm field {field} is malformed")]
    Malformed {
        /// The field, as the specification names it.
        field: &'static str,
    },
    /// The client answered with LM or NTLMv1.
    #[error("client sent a response older than ntlm v2")]
    OldResponse,
    /// The client does not do extended session security.
    #[error("client does not support extended session security")]
    WeakSession,
    /// The response does not match the account's password.
    #[error("response does not match the password")]
    WrongPassword,
    /// The message integrity code is missing or wrong: somebody changed the negotiation on its way.
    #[error("message integrity code does not match")]
    WrongMic,
    /// A signed message does not match its signature or comes out of order.
    #[error("signature of message {sequence} does not match")]
    WrongSignature {
        /// Number of the message that was due.
        sequence: u32,
    },
}

/// One authentication, from the first token to the claim.
pub struct NtlmServer {
    names: ServerNames,
    server_challenge: [u8; 8],
    timestamp: u64,
    negotiate: Vec<u8>,
    challenge: Option<(u32, Vec<u8>)>,
}

impl NtlmServer {
    /// `server_challenge` must be fresh ([`random_challenge`]); `now_ms` is Unix time and goes into the challenge.
    pub fn new(names: ServerNames, server_challenge: [u8; 8], now_ms: i64) -> Self {
        Self { names, server_challenge, timestamp: filetime(now_ms), negotiate: Vec::new(), challenge: None }
    }

    /// Answers a NEGOTIATE message (MS-NLMP 3.2.5.1.1).
    ///
    /// # Errors
    /// [`NtlmError`] when the token is not a NEGOTIATE this server can work with.
    pub fn challenge(&mut self, negotiate: &[u8]) -> Result<Vec<u8>, NtlmError> {
        let parsed = Negotiate::parse(negotiate)?;
        if parsed.flags & flags::EXTENDED_SESSION_SECURITY == 0 {
            return Err(NtlmError::WeakSession);
        }
        let agreed = parsed.flags & flags::OFFERED | flags::ALWAYS_SET;
        let token = Challenge {
            flags: agreed,
            server_challenge: self.server_challenge,
            names: &self.names,
            timestamp: self.timestamp,
        }
        .encode();
        negotiate.clone_into(&mut self.negotiate);
        self.challenge = Some((agreed, token.clone()));
        Ok(token)
    }

    /// Reads an AUTHENTICATE message. Nothing is proven yet: see [`Claim::verify`].
    ///
    /// # Errors
    /// [`NtlmError`] when the token is malformed, comes before a challenge, or carries an NTLMv1 response.
    pub fn authenticate(&self, token: &[u8]) -> Result<Claim, NtlmError> {
        let Some((agreed, challenge)) = &self.challenge else {
            return Err(NtlmError::OutOfTurn { expected: 1, got: message::kind(token).unwrap_or(0) });
        };
        let parsed = Authenticate::parse(token)?;
        let anonymous = parsed.user.is_empty() && parsed.nt_response.is_empty();
        let (proof, temp) = match parsed.nt_response.split_first_chunk::<16>() {
            // The shortest NTLMv2 client challenge: 28 fixed bytes and an empty AV list (MS-NLMP 2.2.2.7).
            Some((proof, temp)) if temp.len() >= 28 + 4 => (*proof, temp.to_vec()),
            _ if anonymous => ([0; 16], Vec::new()),
            _ => return Err(NtlmError::OldResponse),
        };
        let av_pairs = if anonymous { AvPairs::default() } else { AvPairs::parse(&temp[28..])? };
        let transcript = [self.negotiate.as_slice(), challenge, &parsed.without_mic(token)].concat();
        Ok(Claim {
            user: parsed.user,
            domain: parsed.domain,
            workstation: parsed.workstation,
            anonymous,
            flags: agreed & parsed.flags,
            server_challenge: self.server_challenge,
            proof,
            temp,
            av_pairs,
            encrypted_session_key: parsed.encrypted_session_key,
            mic: parsed.mic,
            transcript,
        })
    }
}

/// Who a client says it is, with the evidence.
pub struct Claim {
    /// User name as sent: `asmith`, or `asmith@acme.example` with an empty domain.
    pub user: String,
    /// Domain name as sent; may be empty.
    pub domain: String,
    /// The client's computer name; not verified by anything.
    pub workstation: String,
    /// True when the client claims to be nobody; there is nothing to verify then.
    pub anonymous: bool,
    flags: u32,
    server_challenge: [u8; 8],
    proof: [u8; 16],
    temp: Vec<u8>,
    av_pairs: AvPairs,
    encrypted_session_key: Vec<u8>,
    mic: Option<[u8; 16]>,
    transcript: Vec<u8>,
}

impl Claim {
    /// Hash of the channel bindings the client saw ([`channel_binding_hash`]); `None` when it sent none or the
    /// all-zero value that means "none" (MS-NLMP 2.2.2.1, MsvAvChannelBindings). Trust it only after [`Claim::verify`].
    pub fn channel_bindings(&self) -> Option<[u8; 16]> {
        self.av_pairs.channel_bindings().filter(|hash| *hash != [0; 16])
    }

    /// Service principal name the client thinks it talks to, such as `ldap/dc1.acme.example`.
    pub fn target_name(&self) -> Option<String> {
        self.av_pairs.target_name()
    }

    /// True when the client asked for signed messages.
    pub fn signs(&self) -> bool {
        self.flags & flags::SIGN != 0
    }

    /// True when the client asked for encrypted messages.
    pub fn seals(&self) -> bool {
        self.flags & flags::SEAL != 0
    }

    /// Checks the response against the password's hash of the account this claim names, and of no other account
    /// (MS-NLMP 3.2.5.1.2, 3.3.2).
    ///
    /// # Errors
    /// [`NtlmError::WrongPassword`], or [`NtlmError::WrongMic`] when the password is right but the negotiation was
    /// tampered with.
    pub fn verify(&self, hash: &NtHash) -> Result<Session, NtlmError> {
        if self.anonymous {
            return Err(NtlmError::WrongPassword);
        }
        let key = ntowf_v2(hash, &self.user, &self.domain);
        let expected = nt_proof(&key, &self.server_challenge, &self.temp);
        if aws_lc_rs::constant_time::verify_slices_are_equal(&expected, &self.proof).is_err() {
            return Err(NtlmError::WrongPassword);
        }
        let session_base_key = hmac_md5(&key, &[&self.proof]);
        let exported = self.exported_session_key(session_base_key)?;
        if self.av_pairs.promises_mic() {
            let expected = hmac_md5(&exported, &[&self.transcript]);
            let mic = self.mic.ok_or(NtlmError::WrongMic)?;
            aws_lc_rs::constant_time::verify_slices_are_equal(&expected, &mic)
                .map_err(|_| NtlmError::WrongMic)?;
        }
        Ok(Session::server(exported, self.flags))
    }

    /// MS-NLMP 3.2.5.1.2: for NTLMv2 the key exchange key is the session base key (3.4.5.1).
    fn exported_session_key(&self, session_base_key: [u8; 16]) -> Result<[u8; 16], NtlmError> {
        if self.flags & flags::KEY_EXCHANGE == 0 || self.flags & (flags::SIGN | flags::SEAL) == 0 {
            return Ok(session_base_key);
        }
        let mut key: [u8; 16] = self
            .encrypted_session_key
            .as_slice()
            .try_into()
            .map_err(|_| NtlmError::Malformed { field: "EncryptedRandomSessionKey" })?;
        rc4(&session_base_key, &mut key);
        Ok(key)
    }
}

/// 100-nanosecond intervals since 1601 (MS-DTYP 2.3.3).
fn filetime(unix_ms: i64) -> u64 {
    const UNIX_EPOCH: Duration = Duration::from_secs(11_644_473_600);
    let since_1601 = i128::from(unix_ms) + i128::try_from(UNIX_EPOCH.as_millis()).unwrap_or(0);
    u64::try_from(since_1601.max(0)).unwrap_or(u64::MAX).saturating_mul(10_000)
}

#[cfg(test)]
pub(crate) mod tests;
