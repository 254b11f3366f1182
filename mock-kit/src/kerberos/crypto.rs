//! AES for Kerberos: `aes128-cts-hmac-sha1-96` and `aes256-cts-hmac-sha1-96` (RFC 3961, RFC 3962).

use std::num::NonZeroU32;

use aws_lc_rs::cipher::{
    AES_128, AES_256, DecryptingKey, DecryptionContext, EncryptingKey, EncryptionContext,
};
use aws_lc_rs::cipher::{Algorithm, UnboundCipherKey};
use aws_lc_rs::hmac;
use aws_lc_rs::iv::FixedLength;
use aws_lc_rs::pbkdf2;
use zeroize::Zeroize as _;

const BLOCK_BYTES: usize = 16;
/// HMAC-SHA1 cut to 96 bits.
pub(super) const CHECKSUM_BYTES: usize = 12;
/// Rounds when a KDC says nothing else (RFC 3962 4).
const ROUNDS: NonZeroU32 = NonZeroU32::new(4096).expect("not zero");

/// What a key is used for (RFC 4120 7.5.1, RFC 4121 2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Usage {
    Timestamp = 1,
    Ticket = 2,
    AsReply = 3,
    TgsChecksum = 6,
    TgsAuthenticator = 7,
    TgsReply = 8,
    TgsReplySubkey = 9,
    Authenticator = 11,
    ApReply = 12,
    AcceptorSeal = 22,
    InitiatorSeal = 24,
}

/// An encryption type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Enctype {
    /// `aes128-cts-hmac-sha1-96`, number 17.
    Aes128,
    /// `aes256-cts-hmac-sha1-96`, number 18.
    Aes256,
}

impl Enctype {
    /// By its number (RFC 3962 7).
    pub fn numbered(number: i64) -> Option<Self> {
        match number {
            17 => Some(Self::Aes128),
            18 => Some(Self::Aes256),
            _ => None,
        }
    }

    /// Its number.
    pub fn number(self) -> i64 {
        match self {
            Self::Aes128 => 17,
            Self::Aes256 => 18,
        }
    }

    /// The number of its keyed checksum (RFC 3962 7).
    pub(super) fn checksum_number(self) -> i64 {
        match self {
            Self::Aes128 => 15,
            Self::Aes256 => 16,
        }
    }

    fn key_bytes(self) -> usize {
        match self {
            Self::Aes128 => 16,
            Self::Aes256 => 32,
        }
    }

    fn algorithm(self) -> &'static Algorithm {
        match self {
            Self::Aes128 => &AES_128,
            Self::Aes256 => &AES_256,
        }
    }
}

/// A key of a principal or of a session. Overwritten on drop, never printed.
#[derive(Clone)]
pub struct Key {
    enctype: Enctype,
    bytes: Vec<u8>,
}

/// What was opened was not sealed with this key, or was changed on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct WrongKey;

impl Drop for Key {
    fn drop(&mut self) {
        self.bytes.zeroize();
    }
}

impl Key {
    /// A key whose bytes are known; `None` when they are too few or too many.
    pub fn from_bytes(enctype: Enctype, bytes: &[u8]) -> Option<Self> {
        (bytes.len() == enctype.key_bytes()).then(|| Self { enctype, bytes: bytes.to_vec() })
    }

    /// The key of a password (RFC 3962 4). Active Directory's salt of a person is the realm and the account's name.
    pub fn of_password(enctype: Enctype, password: &str, salt: &str) -> Self {
        Self::of_password_in(enctype, password, salt, ROUNDS)
    }

    /// A new one.
    pub fn random(enctype: Enctype) -> Self {
        let mut bytes = vec![0; enctype.key_bytes()];
        aws_lc_rs::rand::fill(&mut bytes).expect("the system's random source answers");
        Self { enctype, bytes }
    }

    /// Its type.
    pub fn enctype(&self) -> Enctype {
        self.enctype
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    fn of_password_in(enctype: Enctype, password: &str, salt: &str, rounds: NonZeroU32) -> Self {
        let mut bytes = vec![0; enctype.key_bytes()];
        pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA1, rounds, salt.as_bytes(), password.as_bytes(), &mut bytes);
        let derived = Self { enctype, bytes }.derived(b"kerberos");
        Self { enctype, bytes: derived }
    }

    /// Encrypts and protects (RFC 3961 5.3): confounder and text by CBC with stolen text, then their checksum.
    pub(super) fn seal(&self, usage: Usage, text: &[u8]) -> Vec<u8> {
        let mut plain = vec![0; BLOCK_BYTES];
        aws_lc_rs::rand::fill(&mut plain).expect("the system's random source answers");
        plain.extend_from_slice(text);
        let checksum = mac(&self.of_usage(usage, 0x55), &plain);
        let encryption = Self { enctype: self.enctype, bytes: self.of_usage(usage, 0xaa) };
        let mut sealed = encryption.cts_encrypt(&plain);
        sealed.extend_from_slice(&checksum);
        sealed
    }

    /// Undoes [`Key::seal`].
    pub(super) fn open(&self, usage: Usage, sealed: &[u8]) -> Result<Vec<u8>, WrongKey> {
        let size =
            sealed.len().checked_sub(CHECKSUM_BYTES).filter(|size| *size >= BLOCK_BYTES).ok_or(WrongKey)?;
        let (cipher, checksum) = sealed.split_at(size);
        let encryption = Self { enctype: self.enctype, bytes: self.of_usage(usage, 0xaa) };
        let mut plain = encryption.cts_decrypt(cipher);
        let expected = mac(&self.of_usage(usage, 0x55), &plain);
        aws_lc_rs::constant_time::verify_slices_are_equal(&expected, checksum).map_err(|_| WrongKey)?;
        plain.drain(..BLOCK_BYTES);
        Ok(plain)
    }

    /// The keyed checksum of something that stays readable (RFC 3961 5.3).
    pub(super) fn checksum(&self, usage: Usage, text: &[u8]) -> [u8; CHECKSUM_BYTES] {
        mac(&self.of_usage(usage, 0x99), text)
    }

    fn of_usage(&self, usage: Usage, kind: u8) -> Vec<u8> {
        self.derived(&[0, 0, 0, usage as u8, kind])
    }

    /// DK (RFC 3961 5.1): the constant folded to a block, encrypted again and again until there is enough.
    fn derived(&self, constant: &[u8]) -> Vec<u8> {
        let mut block = n_fold(constant, BLOCK_BYTES);
        let mut bytes = Vec::with_capacity(self.bytes.len());
        while bytes.len() < self.bytes.len() {
            self.cbc_encrypt(&mut block);
            bytes.extend_from_slice(&block);
        }
        bytes
    }

    fn cipher_key(&self) -> UnboundCipherKey {
        UnboundCipherKey::new(self.enctype.algorithm(), &self.bytes)
            .expect("a key has the length of its type")
    }

    /// CBC from a block of zeros; the length is a multiple of a block.
    fn cbc_encrypt(&self, blocks: &mut [u8]) {
        let key = EncryptingKey::cbc(self.cipher_key()).expect("aes has cbc");
        let start = EncryptionContext::Iv128(FixedLength::from([0; BLOCK_BYTES]));
        key.less_safe_encrypt(blocks, start).expect("whole blocks");
    }

    fn cbc_decrypt(&self, blocks: &mut [u8]) {
        let key = DecryptingKey::cbc(self.cipher_key()).expect("aes has cbc");
        let start = DecryptionContext::Iv128(FixedLength::from([0; BLOCK_BYTES]));
        key.decrypt(blocks, start).expect("whole blocks");
    }

    /// CBC with ciphertext stealing (RFC 3962 5): the last two blocks change places and the last one is cut.
    fn cts_encrypt(&self, plain: &[u8]) -> Vec<u8> {
        let mut blocks = plain.to_vec();
        blocks.resize(plain.len().next_multiple_of(BLOCK_BYTES), 0);
        self.cbc_encrypt(&mut blocks);
        if blocks.len() > BLOCK_BYTES {
            let before_last = blocks.len() - 2 * BLOCK_BYTES;
            blocks[before_last..].rotate_left(BLOCK_BYTES);
            blocks.truncate(plain.len());
        }
        blocks
    }

    /// At least one block.
    fn cts_decrypt(&self, cipher: &[u8]) -> Vec<u8> {
        let mut blocks = cipher.to_vec();
        if cipher.len() > BLOCK_BYTES {
            let last = (cipher.len() - 1) / BLOCK_BYTES * BLOCK_BYTES;
            let before_last = last - BLOCK_BYTES;
            // What was cut off the last block stands in the decrypted other one.
            let mut stolen = cipher[before_last..last].to_vec();
            self.cbc_decrypt(&mut stolen);
            blocks.extend_from_slice(&stolen[cipher.len() - last..]);
            blocks[before_last..].rotate_left(BLOCK_BYTES);
        }
        self.cbc_decrypt(&mut blocks);
        blocks.truncate(cipher.len());
        blocks
    }
}

fn mac(key: &[u8], text: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, key);
    let tag = hmac::sign(&key, text);
    let mut cut = [0; CHECKSUM_BYTES];
    cut.copy_from_slice(&tag.as_ref()[..CHECKSUM_BYTES]);
    cut
}

/// RFC 3961 5.1: copies of the input, each turned right by 13 bits more than the one before, added up with the carry
/// going round.
fn n_fold(input: &[u8], size: usize) -> Vec<u8> {
    let bits = input.len() * 8;
    let total = input.len() / gcd(input.len(), size) * size;
    let mut sum = vec![0_u8; size];
    let mut carry = 0_u16;
    for at in (0..total).rev() {
        let turned = 13 * (at / input.len()) % bits;
        let bit = (at % input.len() * 8 + bits - turned) % bits;
        let (byte, shift) = (bit / 8, bit % 8);
        let pair = u16::from(input[byte]) << 8 | u16::from(input[(byte + 1) % input.len()]);
        carry += u16::from(sum[at % size]) + (pair >> (8 - shift) & 0xff);
        sum[at % size] = (carry & 0xff) as u8;
        carry >>= 8;
    }
    for byte in sum.iter_mut().rev() {
        carry += u16::from(*byte);
        *byte = (carry & 0xff) as u8;
        carry >>= 8;
    }
    sum
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn folding_as_rfc_3961_a_1_shows_it() {
        assert_eq!(hex(&n_fold(b"012345", 8)), "be072631276b1955");
        assert_eq!(hex(&n_fold(b"password", 7)), "78a07b6caf85fa");
        assert_eq!(hex(&n_fold(b"Rough Consensus, and Running Code", 8)), "bb6ed30870b7f0e0");
        assert_eq!(hex(&n_fold(b"kerberos", 16)), "6b65726265726f737b9b5b2b93132b93");
        assert_eq!(hex(&n_fold(b"Q", 21)), "518a54a215a8452a518a54a215a8452a518a54a215");
    }

    #[test]
    fn passwords_as_rfc_3962_b_shows_them() {
        let key = |enctype, rounds| {
            let rounds = NonZeroU32::new(rounds).unwrap();
            hex(Key::of_password_in(enctype, "password", "ATHENA.MIT.EDUraeburn", rounds).bytes())
        };
        assert_eq!(key(Enctype::Aes128, 1), "42263c6e89f4fc28b8df68ee09799f15");
        assert_eq!(
            key(Enctype::Aes256, 1),
            "fe697b52bc0d3ce14432ba036a92e65bbb52280990a2fa27883998d72af30161"
        );
        assert_eq!(key(Enctype::Aes128, 1200), "4c01cd46d632d01e6dbe230a01ed642a");
        assert_eq!(
            key(Enctype::Aes256, 1200),
            "55a6ac740ad17b4846941051e1e8b0a7548d93b0ab30a8bc3ff16280382b8c2a"
        );
    }

    #[test]
    fn stolen_text_as_rfc_3962_b_shows_it() {
        let key = Key::from_bytes(Enctype::Aes128, b"chicken teriyaki").unwrap();
        let text = b"I would like the General Gau's Chicken, please, and wonton soup.";
        for (size, expected) in [
            (17, "c6353568f2bf8cb4d8a580362da7ff7f97"),
            (31, "fc00783e0efdb2c1d445d4c8eff7ed2297687268d6ecccc0c07b25e25ecfe5"),
            (32, "39312523a78662d5be7fcbcc98ebf5a897687268d6ecccc0c07b25e25ecfe584"),
            (
                47,
                "97687268d6ecccc0c07b25e25ecfe584b3fffd940c16a18c1b5549d2f838029e39312523a78662d5be7fcbcc98ebf5",
            ),
        ] {
            let cipher = key.cts_encrypt(&text[..size]);
            assert_eq!(hex(&cipher), expected);
            assert_eq!(key.cts_decrypt(&cipher), &text[..size]);
        }
    }

    #[test]
    fn what_is_sealed_opens_only_with_the_same_key_and_usage() {
        let key = Key::random(Enctype::Aes256);
        for size in 0..50 {
            let text = vec![size; usize::from(size)];
            let sealed = key.seal(Usage::Ticket, &text);
            assert_eq!(sealed.len(), text.len() + BLOCK_BYTES + CHECKSUM_BYTES);
            assert_eq!(key.open(Usage::Ticket, &sealed), Ok(text));
            assert_eq!(key.open(Usage::ApReply, &sealed), Err(WrongKey));
            assert_eq!(key.open(Usage::Ticket, &sealed[..sealed.len() - 1]), Err(WrongKey));
        }
        assert_eq!(key.open(Usage::Ticket, &[0; 27]), Err(WrongKey));
    }
}
