//! Files sealed by the data protection API, for this account on this machine. Never with
//! `CRYPTPROTECT_LOCAL_MACHINE`: every local user could then open them.

use std::io;
use std::ptr;

use windows_sys::Win32::Security::Cryptography::{
    CRYPT_INTEGER_BLOB, CRYPTPROTECT_UI_FORBIDDEN, CryptProtectData, CryptUnprotectData,
};
use zeroize::{Zeroize, Zeroizing};

use super::text::Local;
use crate::secrets::Sealer;

/// Keeps another program of the same account from opening our files by accident; it is no secret.
const ENTROPY: &[u8] = b"causeway-agent data directory, 1";

/// What our files begin with.
const MARK: &[u8] = b"causeway sealed, dpapi, 1\n";

pub(super) struct DpapiSealer;

impl Sealer for DpapiSealer {
    fn seal(&self, plain: &[u8]) -> io::Result<Vec<u8>> {
        let (from, entropy, mut sealed) = (blob(plain)?, blob(ENTROPY)?, empty());
        // SAFETY: the input blobs describe live slices, which the call only reads; the output blob is ours to fill; no
        // description, reserved value or prompt is passed.
        let done = unsafe {
            CryptProtectData(
                &from,
                ptr::null(),
                &entropy,
                ptr::null(),
                ptr::null(),
                CRYPTPROTECT_UI_FORBIDDEN,
                &mut sealed,
            )
        };
        if done == 0 {
            return Err(io::Error::last_os_error());
        }
        Ok([MARK, &taken(sealed)].concat())
    }

    fn unseal(&self, sealed: &[u8]) -> io::Result<Zeroizing<Vec<u8>>> {
        let sealed = sealed.strip_prefix(MARK).ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidData, "the file was not sealed on Windows by this program")
        })?;
        let (from, entropy, mut plain) = (blob(sealed)?, blob(ENTROPY)?, empty());
        // SAFETY: as in `seal`; the description is not asked for.
        let done = unsafe {
            CryptUnprotectData(
                &from,
                ptr::null_mut(),
                &entropy,
                ptr::null(),
                ptr::null(),
                CRYPTPROTECT_UI_FORBIDDEN,
                &mut plain,
            )
        };
        if done == 0 {
            let system = io::Error::last_os_error();
            return Err(io::Error::other(format!(
                "{system}; files sealed by the service open for its account only: run the command as `causeway-agent service exec -- ...`"
            )));
        }
        Ok(Zeroizing::new(taken(plain)))
    }
}

fn blob(bytes: &[u8]) -> io::Result<CRYPT_INTEGER_BLOB> {
    let length = u32::try_from(bytes.len()).map_err(|_| io::Error::other("more than 4 GiB to seal"))?;
    Ok(CRYPT_INTEGER_BLOB { cbData: length, pbData: bytes.as_ptr().cast_mut() })
}

fn empty() -> CRYPT_INTEGER_BLOB {
    CRYPT_INTEGER_BLOB { cbData: 0, pbData: ptr::null_mut() }
}

/// Copies the system's answer and wipes it where the system put it.
fn taken(blob: CRYPT_INTEGER_BLOB) -> Vec<u8> {
    let memory = Local(blob.pbData);
    if memory.0.is_null() {
        return Vec::new();
    }
    // SAFETY: a call that succeeded allocated `cbData` bytes there, and nobody else knows of them.
    let bytes = unsafe { std::slice::from_raw_parts_mut(memory.0, blob.cbData as usize) };
    let copy = bytes.to_vec();
    bytes.zeroize();
    copy
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dpapi_opens_what_it_sealed_and_nothing_else() {
        let sealed = DpapiSealer.seal(b"canary").unwrap();
        assert!(!sealed.windows(6).any(|window| window == b"canary"));
        assert_eq!(DpapiSealer.unseal(&sealed).unwrap().as_slice(), b"canary");
        assert!(DpapiSealer.unseal(b"{}").is_err());
        assert!(DpapiSealer.unseal(&sealed[..sealed.len() - 1]).is_err());
    }
}
