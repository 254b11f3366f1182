//! The three messages (MS-NLMP 2.2.1) and the AV_PAIR list (2.2.2.1).

use super::crypto::utf16le;
use super::{NtlmError, ServerNames};
use crate::limits::NTLM_TOKEN_MAX_BYTES;

const SIGNATURE: &[u8; 8] = b"NTLMSSP\0";

/// Windows 10 or Server 2016 and later, NTLM revision 15 (MS-NLMP 2.2.2.10).
const VERSION: [u8; 8] = [10, 0, 0x63, 0x45, 0, 0, 0, 15];

/// Where the MIC is in an AUTHENTICATE message that has one: after the fixed fields and the version (2.2.1.3).
const MIC_AT: usize = 72;

/// NEGOTIATE flags (MS-NLMP 2.2.2.5), by the names used here.
pub mod flags {
    /// Text is UTF-16.
    pub const UNICODE: u32 = 0x0000_0001;
    /// The client wants the server's name.
    pub const REQUEST_TARGET: u32 = 0x0000_0004;
    /// Messages are signed.
    pub const SIGN: u32 = 0x0000_0010;
    /// Messages are encrypted.
    pub const SEAL: u32 = 0x0000_0020;
    /// NTLM authentication.
    pub const NTLM: u32 = 0x0000_0200;
    /// A session key is made even without SIGN or SEAL.
    pub const ALWAYS_SIGN: u32 = 0x0000_8000;
    /// The server's name is a domain's.
    pub const TARGET_TYPE_DOMAIN: u32 = 0x0001_0000;
    /// Signing and sealing of the modern kind.
    pub const EXTENDED_SESSION_SECURITY: u32 = 0x0008_0000;
    /// The challenge carries an AV_PAIR list.
    pub const TARGET_INFO: u32 = 0x0080_0000;
    /// The message carries a version.
    pub const VERSION: u32 = 0x0200_0000;
    /// 128-bit keys.
    pub const KEY_128: u32 = 0x2000_0000;
    /// The client chooses the session key.
    pub const KEY_EXCHANGE: u32 = 0x4000_0000;
    /// 56-bit keys.
    pub const KEY_56: u32 = 0x8000_0000;

    /// What the server grants when the client asks.
    pub(in crate::ntlm) const OFFERED: u32 = SIGN | SEAL | KEY_128 | KEY_EXCHANGE | KEY_56;
    /// What every challenge has.
    pub(in crate::ntlm) const ALWAYS_SET: u32 = UNICODE
        | REQUEST_TARGET
        | NTLM
        | ALWAYS_SIGN
        | TARGET_TYPE_DOMAIN
        | EXTENDED_SESSION_SECURITY
        | TARGET_INFO
        | VERSION;
}

/// AV ids (MS-NLMP 2.2.2.1).
mod av {
    pub(super) const EOL: u16 = 0;
    pub(super) const NB_COMPUTER: u16 = 1;
    pub(super) const NB_DOMAIN: u16 = 2;
    pub(super) const DNS_COMPUTER: u16 = 3;
    pub(super) const DNS_DOMAIN: u16 = 4;
    pub(super) const DNS_TREE: u16 = 5;
    pub(super) const FLAGS: u16 = 6;
    pub(super) const TIMESTAMP: u16 = 7;
    pub(super) const TARGET_NAME: u16 = 9;
    pub(super) const CHANNEL_BINDINGS: u16 = 10;
}

/// Attribute-value pairs of a client's response.
#[derive(Clone, Debug, Default)]
pub struct AvPairs(Vec<(u16, Vec<u8>)>);

impl AvPairs {
    pub(super) fn parse(mut bytes: &[u8]) -> Result<Self, NtlmError> {
        let malformed = || NtlmError::Malformed { field: "AvPairs" };
        let mut pairs = Vec::new();
        loop {
            let (head, rest) = bytes.split_first_chunk::<4>().ok_or_else(malformed)?;
            let id = u16::from_le_bytes([head[0], head[1]]);
            let length = usize::from(u16::from_le_bytes([head[2], head[3]]));
            if id == av::EOL {
                return Ok(Self(pairs));
            }
            let (value, rest) = rest.split_at_checked(length).ok_or_else(malformed)?;
            pairs.push((id, value.to_vec()));
            bytes = rest;
        }
    }

    /// The value of an id.
    pub fn get(&self, id: u16) -> Option<&[u8]> {
        self.0.iter().find(|(has, _)| *has == id).map(|(_, value)| value.as_slice())
    }

    pub(super) fn channel_bindings(&self) -> Option<[u8; 16]> {
        self.get(av::CHANNEL_BINDINGS)?.try_into().ok()
    }

    pub(super) fn target_name(&self) -> Option<String> {
        Some(from_utf16le(self.get(av::TARGET_NAME)?))
    }

    /// MsvAvFlags bit 1: the AUTHENTICATE message carries a MIC.
    pub(super) fn promises_mic(&self) -> bool {
        self.get(av::FLAGS).is_some_and(|flags| flags.first().is_some_and(|byte| byte & 2 != 0))
    }
}

/// Message number of a token.
pub(super) fn kind(token: &[u8]) -> Option<u32> {
    let rest = token.strip_prefix(SIGNATURE)?;
    Some(u32::from_le_bytes(*rest.first_chunk()?))
}

/// True when the token is a bare NTLM message, without SPNEGO around it.
pub(crate) fn is_ntlm(token: &[u8]) -> bool {
    token.starts_with(SIGNATURE)
}

fn expect(token: &[u8], expected: u32) -> Result<(), NtlmError> {
    if token.len() > NTLM_TOKEN_MAX_BYTES {
        return Err(NtlmError::TooLarge { size_bytes: token.len() });
    }
    match kind(token) {
        None => Err(NtlmError::NotNtlm),
        Some(got) if got != expected => Err(NtlmError::OutOfTurn { expected, got }),
        Some(_) => Ok(()),
    }
}

fn u32_at(token: &[u8], at: usize, field: &'static str) -> Result<u32, NtlmError> {
    let bytes = token.get(at..at + 4).and_then(|bytes| bytes.first_chunk());
    bytes.map(|bytes| u32::from_le_bytes(*bytes)).ok_or(NtlmError::Malformed { field })
}

/// The bytes a (length, space, offset) field at `at` points to. A length of zero makes the offset irrelevant.
fn field<'a>(token: &'a [u8], at: usize, field: &'static str) -> Result<&'a [u8], NtlmError> {
    let malformed = NtlmError::Malformed { field };
    let Some(head) = token.get(at..at + 8) else { return Err(malformed) };
    let length = usize::from(u16::from_le_bytes([head[0], head[1]]));
    if length == 0 {
        return Ok(&[]);
    }
    let offset =
        usize::try_from(u32::from_le_bytes([head[4], head[5], head[6], head[7]])).unwrap_or(usize::MAX);
    let end = offset.checked_add(length);
    end.and_then(|end| token.get(offset..end)).ok_or(malformed)
}

pub(super) struct Negotiate {
    pub(super) flags: u32,
}

impl Negotiate {
    pub(super) fn parse(token: &[u8]) -> Result<Self, NtlmError> {
        expect(token, 1)?;
        Ok(Self { flags: u32_at(token, 12, "NegotiateFlags")? })
    }
}

pub(super) struct Challenge<'a> {
    pub(super) flags: u32,
    pub(super) server_challenge: [u8; 8],
    pub(super) names: &'a ServerNames,
    pub(super) timestamp: u64,
}

impl Challenge<'_> {
    /// MS-NLMP 2.2.1.2: 48 fixed bytes, version, then target name and target info.
    pub(super) fn encode(&self) -> Vec<u8> {
        const PAYLOAD_AT: usize = 56;
        let target = utf16le(&self.names.netbios_domain);
        let info = self.target_info();
        let mut out = Vec::with_capacity(PAYLOAD_AT + target.len() + info.len());
        out.extend_from_slice(SIGNATURE);
        out.extend_from_slice(&2u32.to_le_bytes());
        put_field(&mut out, target.len(), PAYLOAD_AT);
        out.extend_from_slice(&self.flags.to_le_bytes());
        out.extend_from_slice(&self.server_challenge);
        out.extend_from_slice(&[0; 8]);
        put_field(&mut out, info.len(), PAYLOAD_AT + target.len());
        out.extend_from_slice(&VERSION);
        out.extend_from_slice(&target);
        out.extend_from_slice(&info);
        out
    }

    fn target_info(&self) -> Vec<u8> {
        let names = self.names;
        let mut out = Vec::new();
        for (id, name) in [
            (av::NB_DOMAIN, &names.netbios_domain),
            (av::NB_COMPUTER, &names.netbios_computer),
            (av::DNS_DOMAIN, &names.dns_domain),
            (av::DNS_COMPUTER, &names.dns_computer),
            (av::DNS_TREE, &names.dns_forest),
        ] {
            if !name.is_empty() {
                put_pair(&mut out, id, &utf16le(name));
            }
        }
        put_pair(&mut out, av::TIMESTAMP, &self.timestamp.to_le_bytes());
        put_pair(&mut out, av::EOL, &[]);
        out
    }
}

fn put_field(out: &mut Vec<u8>, length: usize, offset: usize) {
    let length = u16::try_from(length).expect("a server's names are far below 64 KiB");
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(&u32::try_from(offset).expect("offsets follow from 16-bit lengths").to_le_bytes());
}

fn put_pair(out: &mut Vec<u8>, id: u16, value: &[u8]) {
    out.extend_from_slice(&id.to_le_bytes());
    out.extend_from_slice(&u16::try_from(value.len()).expect("a name is far below 64 KiB").to_le_bytes());
    out.extend_from_slice(value);
}

pub(super) struct Authenticate {
    pub(super) nt_response: Vec<u8>,
    pub(super) domain: String,
    pub(super) user: String,
    pub(super) workstation: String,
    pub(super) encrypted_session_key: Vec<u8>,
    pub(super) flags: u32,
    pub(super) mic: Option<[u8; 16]>,
}

impl Authenticate {
    pub(super) fn parse(token: &[u8]) -> Result<Self, NtlmError> {
        expect(token, 3)?;
        let flags = u32_at(token, 60, "NegotiateFlags")?;
        let text = |at, name| -> Result<String, NtlmError> {
            let bytes = field(token, at, name)?;
            // Without UNICODE names are in an OEM code page; its common part is ASCII.
            Ok(match flags & flags::UNICODE {
                0 => String::from_utf8_lossy(bytes).into_owned(),
                _ => from_utf16le(bytes),
            })
        };
        Ok(Self {
            nt_response: field(token, 20, "NtChallengeResponse")?.to_vec(),
            domain: text(28, "DomainName")?,
            user: text(36, "UserName")?,
            workstation: text(44, "Workstation")?,
            encrypted_session_key: field(token, 52, "EncryptedRandomSessionKey")?.to_vec(),
            flags,
            mic: token.get(MIC_AT..MIC_AT + 16).and_then(|mic| mic.try_into().ok()),
        })
    }

    /// The token with its MIC zeroed, as the MIC is computed (MS-NLMP 3.1.5.1.2).
    pub(super) fn without_mic(&self, token: &[u8]) -> Vec<u8> {
        let mut bytes = token.to_vec();
        if let Some(mic) = bytes.get_mut(MIC_AT..MIC_AT + 16) {
            mic.fill(0);
        }
        bytes
    }
}

fn from_utf16le(bytes: &[u8]) -> String {
    let units: Vec<u16> = bytes.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]])).collect();
    String::from_utf16_lossy(&units)
}
