//! Signing and sealing with extended session security (MS-NLMP 3.4).

use rc4::{Rc4, StreamCipher as _};
use zeroize::Zeroize as _;

use super::crypto::{hmac_md5, md5, rc4_handle};
use super::{NtlmError, flags};

/// Bytes of a message signature (MS-NLMP 2.2.2.9.2).
const SIGNATURE_BYTES: usize = 16;

const CLIENT_SIGN: &[u8] = b"session key to client-to-server signing key magic constant\0";
const SERVER_SIGN: &[u8] = b"session key to server-to-client signing key magic constant\0";
const CLIENT_SEAL: &[u8] = b"session key to client-to-server sealing key magic constant\0";
const SERVER_SEAL: &[u8] = b"session key to server-to-client sealing key magic constant\0";

/// A proven session. Messages of each direction are numbered, so wrap and unwrap them in order.
pub struct Session {
    exported_key: [u8; 16],
    flags: u32,
    outgoing: Direction,
    incoming: Direction,
}

struct Direction {
    sign_key: [u8; 16],
    seal_key: [u8; 16],
    handle: Rc4,
    sequence: u32,
}

impl Session {
    pub(super) fn server(exported_key: [u8; 16], flags: u32) -> Self {
        Self {
            exported_key,
            flags,
            outgoing: Direction::new(&exported_key, flags, SERVER_SIGN, SERVER_SEAL),
            incoming: Direction::new(&exported_key, flags, CLIENT_SIGN, CLIENT_SEAL),
        }
    }

    /// The same session from the client's end, for tests of a server.
    #[cfg(test)]
    pub(super) fn client(exported_key: [u8; 16], flags: u32) -> Self {
        let mut session = Self::server(exported_key, flags);
        std::mem::swap(&mut session.outgoing, &mut session.incoming);
        session
    }

    /// The session key both ends share (ExportedSessionKey), from which other protocols derive theirs.
    pub fn key(&self) -> &[u8; 16] {
        &self.exported_key
    }

    /// True when messages are to be signed.
    pub fn signs(&self) -> bool {
        self.flags & flags::SIGN != 0
    }

    /// True when messages are to be encrypted.
    pub fn seals(&self) -> bool {
        self.flags & flags::SEAL != 0
    }

    /// Signature and message, the latter encrypted if the session seals (GSS_WrapEx, MS-NLMP 3.4.6, in the order
    /// LDAP's SASL buffers and PowerShell remoting use).
    pub fn wrap(&mut self, message: &[u8]) -> Vec<u8> {
        let mut out = vec![0; SIGNATURE_BYTES];
        out.extend_from_slice(message);
        if self.flags & flags::SEAL != 0 {
            self.outgoing.handle.apply_keystream(&mut out[SIGNATURE_BYTES..]);
        }
        // The message is encrypted before its checksum: both use the same key stream (3.4.3).
        let signature = self.outgoing.next_signature(self.flags, message);
        out[..SIGNATURE_BYTES].copy_from_slice(&signature);
        out
    }

    /// Undoes the client's wrap.
    ///
    /// # Errors
    /// [`NtlmError::WrongSignature`] when the message was changed, repeated or left out; the session cannot go on.
    pub fn unwrap(&mut self, token: &[u8]) -> Result<Vec<u8>, NtlmError> {
        let wrong = NtlmError::WrongSignature { sequence: self.incoming.sequence };
        let Some((signature, body)) = token.split_at_checked(SIGNATURE_BYTES) else { return Err(wrong) };
        let mut message = body.to_vec();
        if self.flags & flags::SEAL != 0 {
            self.incoming.handle.apply_keystream(&mut message);
        }
        let expected = self.incoming.next_signature(self.flags, &message);
        if aws_lc_rs::constant_time::verify_slices_are_equal(&expected, signature).is_err() {
            return Err(wrong);
        }
        Ok(message)
    }

    /// Signs without encrypting (GSS_GetMICEx).
    pub fn sign(&mut self, message: &[u8]) -> [u8; SIGNATURE_BYTES] {
        self.outgoing.next_signature(self.flags, message)
    }

    /// Checks the client's signature of a message that came in clear (GSS_VerifyMICEx).
    ///
    /// # Errors
    /// [`NtlmError::WrongSignature`].
    pub fn verify(&mut self, message: &[u8], signature: &[u8]) -> Result<(), NtlmError> {
        let sequence = self.incoming.sequence;
        let expected = self.incoming.next_signature(self.flags, message);
        aws_lc_rs::constant_time::verify_slices_are_equal(&expected, signature)
            .map_err(|_| NtlmError::WrongSignature { sequence })
    }

    /// Signs SPNEGO's mechanism list. The key stream starts over for the first message afterwards, its number does
    /// not (MS-SPNG 3.3.5.1).
    pub fn sign_mechanisms(&mut self, mechanisms: &[u8]) -> [u8; SIGNATURE_BYTES] {
        let signature = self.outgoing.next_signature(self.flags, mechanisms);
        self.outgoing.restart();
        signature
    }

    /// Checks the client's signature of SPNEGO's mechanism list, as [`Session::sign_mechanisms`] makes it.
    ///
    /// # Errors
    /// [`NtlmError::WrongSignature`].
    pub fn verify_mechanisms(&mut self, mechanisms: &[u8], signature: &[u8]) -> Result<(), NtlmError> {
        let verdict = self.verify(mechanisms, signature);
        self.incoming.restart();
        verdict
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.exported_key.zeroize();
    }
}

impl Drop for Direction {
    fn drop(&mut self) {
        self.sign_key.zeroize();
        self.seal_key.zeroize();
    }
}

impl Direction {
    fn new(exported: &[u8; 16], flags: u32, sign_magic: &[u8], seal_magic: &[u8]) -> Self {
        // MS-NLMP 3.4.5.3: weaker keys use fewer bytes of the session key.
        let strength = match flags {
            _ if flags & flags::KEY_128 != 0 => 16,
            _ if flags & flags::KEY_56 != 0 => 7,
            _ => 5,
        };
        let seal_key = md5(&[&exported[..strength], seal_magic]);
        Self { sign_key: md5(&[exported, sign_magic]), seal_key, handle: rc4_handle(&seal_key), sequence: 0 }
    }

    /// MS-NLMP 3.4.4.2: version 1, checksum (encrypted when keys were exchanged), number of the message.
    fn next_signature(&mut self, flags: u32, message: &[u8]) -> [u8; SIGNATURE_BYTES] {
        let number = self.sequence.to_le_bytes();
        self.sequence = self.sequence.wrapping_add(1);
        let mut checksum = [0; 8];
        checksum.copy_from_slice(&hmac_md5(&self.sign_key, &[&number, message])[..8]);
        if flags & flags::KEY_EXCHANGE != 0 {
            self.handle.apply_keystream(&mut checksum);
        }
        let mut signature = [0; SIGNATURE_BYTES];
        signature[..4].copy_from_slice(&1u32.to_le_bytes());
        signature[4..12].copy_from_slice(&checksum);
        signature[12..].copy_from_slice(&number);
        signature
    }

    fn restart(&mut self) {
        self.handle = rc4_handle(&self.seal_key);
    }
}
