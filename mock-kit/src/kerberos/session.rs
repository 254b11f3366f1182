//! Messages of an established context (RFC 4121 4.2).

use super::KerberosError;
use super::crypto::{CHECKSUM_BYTES, Key, Usage};

const HEAD_BYTES: usize = 16;
/// `TOK_ID` of a Wrap token (RFC 4121 4.2.6.2).
const WRAP: [u8; 2] = [5, 4];
/// Flags (RFC 4121 4.2.2).
const SENT_BY_ACCEPTOR: u8 = 1;
const SEALED: u8 = 2;
const ACCEPTOR_SUBKEY: u8 = 4;
/// How far the end of a token is turned to its front: head and checksum, as Windows does (MS-KILE 3.4.5.4.1).
const TURNED_BYTES: usize = HEAD_BYTES + CHECKSUM_BYTES;

/// Bytes in front of the sealed text that WinRM counts as the token: the head, what is turned to the front, and the
/// confounder.
pub const TOKEN_BYTES: usize = HEAD_BYTES + TURNED_BYTES + 16;

/// The acceptor's end of a context.
pub struct Session {
    pub(super) key: Key,
    /// Whether the key is the one that the acceptor chose.
    pub(super) own_subkey: bool,
    /// Numbers of the next message, theirs and ours.
    pub(super) incoming: u64,
    pub(super) outgoing: u64,
}

impl Session {
    /// Seals a message: a token of [`TOKEN_BYTES`], then as many bytes as the message has.
    pub fn wrap(&mut self, message: &[u8]) -> Vec<u8> {
        let subkey = if self.own_subkey { ACCEPTOR_SUBKEY } else { 0 };
        let flags = SENT_BY_ACCEPTOR | SEALED | subkey;
        let mut head = head(flags, 0, self.outgoing);
        self.outgoing = self.outgoing.wrapping_add(1);
        let mut sealed = self.key.seal(Usage::AcceptorSeal, &[message, &head].concat());
        sealed.rotate_right(TURNED_BYTES);
        // The number of turned bytes is not part of what is protected (RFC 4121 4.2.4).
        head[7] = TURNED_BYTES as u8;
        [&head[..], &sealed].concat()
    }

    /// Undoes the client's wrap, whatever it turned.
    ///
    /// # Errors
    /// [`KerberosError::WrongSeal`] when the message was changed, repeated or left out; the session cannot go on.
    pub fn unwrap(&mut self, token: &[u8]) -> Result<Vec<u8>, KerberosError> {
        let wrong = KerberosError::WrongSeal { sequence: self.incoming };
        let Some((given, body)) = token.split_at_checked(HEAD_BYTES) else { return Err(wrong) };
        let number = |at: usize| usize::from(u16::from_be_bytes([given[at], given[at + 1]]));
        let (filler, turned) = (number(4), number(6));
        let expected = head(given[2], filler, self.incoming);
        let by_us = given[2] & (SENT_BY_ACCEPTOR | SEALED) != SEALED;
        if given[..2] != WRAP || given[8..] != expected[8..] || by_us || body.is_empty() {
            return Err(wrong);
        }
        let mut sealed = body.to_vec();
        sealed.rotate_left(turned % body.len());
        let Ok(mut plain) = self.key.open(Usage::InitiatorSeal, &sealed) else { return Err(wrong) };
        // The head is sealed behind the text, so that its readable copy cannot be changed.
        let Some(size) = plain.len().checked_sub(filler + HEAD_BYTES) else { return Err(wrong) };
        if plain[size + filler..] != expected {
            return Err(wrong);
        }
        plain.truncate(size);
        self.incoming = self.incoming.wrapping_add(1);
        Ok(plain)
    }

    /// The client's end, for tests.
    #[cfg(test)]
    pub(super) fn client_wrap(key: &Key, sequence: u64, message: &[u8]) -> Vec<u8> {
        let head = head(SEALED | ACCEPTOR_SUBKEY, 0, sequence);
        [&head[..], &key.seal(Usage::InitiatorSeal, &[message, &head].concat())].concat()
    }
}

fn head(flags: u8, filler: usize, sequence: u64) -> [u8; HEAD_BYTES] {
    let mut head = [0xff; HEAD_BYTES];
    head[..2].copy_from_slice(&WRAP);
    head[2] = flags;
    head[4..6].copy_from_slice(&(filler as u16).to_be_bytes());
    head[6..8].fill(0);
    head[8..].copy_from_slice(&sequence.to_be_bytes());
    head
}
