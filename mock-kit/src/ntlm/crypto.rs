//! The arithmetic of NTLMv2 (MS-NLMP 3.3.2, 3.4.5).

use ::rc4::{KeyInit as _, Rc4, StreamCipher as _};
use hmac::{Hmac, Mac as _};
use md4::Md4;
use md5::{Digest as _, Md5};

/// Hash of a password that NTLM treats as the password itself. Overwritten on drop, never printed.
#[derive(zeroize::ZeroizeOnDrop)]
pub struct NtHash([u8; 16]);

impl NtHash {
    /// NTOWFv1 (MS-NLMP 3.3.1): MD4 over the UTF-16LE password.
    pub fn of_password(password: &str) -> Self {
        Self(Md4::digest(utf16le(password)).into())
    }

    /// A hash that is already known.
    pub fn from_bytes(hash: [u8; 16]) -> Self {
        Self(hash)
    }
}

/// Eight unpredictable bytes for [`NtlmServer::new`](super::NtlmServer::new).
pub fn random_challenge() -> [u8; 8] {
    let mut challenge = [0; 8];
    aws_lc_rs::rand::fill(&mut challenge).expect("the system's random source answers");
    challenge
}

/// MD5 over a GSS channel bindings structure that has application data only (RFC 4121 4.1.1.2, MS-NLMP 3.1.5.1.2):
/// four zero fields for the two addresses, then length and data, little-endian.
pub fn channel_binding_hash(application_data: &[u8]) -> [u8; 16] {
    let length = u32::try_from(application_data.len()).unwrap_or(u32::MAX);
    let mut hash = Md5::new();
    hash.update([0; 16]);
    hash.update(length.to_le_bytes());
    hash.update(application_data);
    hash.finalize().into()
}

/// Application data for channel bindings of type `tls-server-end-point` (RFC 5929 4.1) for a certificate signed with
/// SHA-256 or weaker, which all certificates of [`TestCa`](crate::pki::TestCa) are.
pub fn tls_server_end_point(certificate_der: &[u8]) -> Vec<u8> {
    let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, certificate_der);
    [b"tls-server-end-point:", hash.as_ref()].concat()
}

/// NTOWFv2 (MS-NLMP 3.3.2): the user in upper case, the domain as it is.
pub(super) fn ntowf_v2(hash: &NtHash, user: &str, domain: &str) -> [u8; 16] {
    let upper: String = user.chars().map(simple_upper).collect();
    hmac_md5(&hash.0, &[&utf16le(&upper), &utf16le(domain)])
}

/// NTProofStr (MS-NLMP 3.3.2).
pub(super) fn nt_proof(key: &[u8; 16], server_challenge: &[u8; 8], temp: &[u8]) -> [u8; 16] {
    hmac_md5(key, &[server_challenge, temp])
}

pub(super) fn hmac_md5(key: &[u8], parts: &[&[u8]]) -> [u8; 16] {
    let mut mac = Hmac::<Md5>::new_from_slice(key).expect("HMAC takes keys of any length");
    parts.iter().for_each(|part| mac.update(part));
    mac.finalize().into_bytes().into()
}

pub(super) fn md5(parts: &[&[u8]]) -> [u8; 16] {
    let mut hash = Md5::new();
    parts.iter().for_each(|part| hash.update(part));
    hash.finalize().into()
}

/// RC4K: one use of a key.
pub(super) fn rc4(key: &[u8], bytes: &mut [u8]) {
    rc4_handle(key).apply_keystream(bytes);
}

pub(super) fn rc4_handle(key: &[u8]) -> Rc4 {
    Rc4::new_from_slice(key).expect("RC4 takes keys of 1 to 256 bytes and NTLM's have 16")
}

pub(super) fn utf16le(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(u16::to_le_bytes).collect()
}

/// Windows upper-cases character by character, so a letter that would become two (ß) stays.
fn simple_upper(char: char) -> char {
    let mut upper = char.to_uppercase();
    match (upper.next(), upper.next()) {
        (Some(single), None) => single,
        _ => char,
    }
}
