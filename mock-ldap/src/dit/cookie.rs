//! The DirSync cookie: opaque to clients, valid on every server of the domain, and refused when it is not ours.

use super::limits;
use super::tree::hash_bytes;

const MAGIC: &[u8; 8] = b"MSDS\x03\0\0\0";

/// What a cookie says (the idea of MS-DRSR's up-to-dateness vector, in a layout of its own).
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Cookie {
    pub(crate) context: [u8; 16],
    pub(crate) issued_ms: i64,
    /// Invocation of the server that made it.
    pub(crate) issuer: [u8; 16],
    /// Number of the next object of an enumeration that is not finished.
    pub(crate) position: Option<u32>,
    /// (invocation, highest USN seen of it).
    pub(crate) vector: Vec<([u8; 16], u64)>,
}

impl Cookie {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        out.extend_from_slice(&self.context);
        out.extend_from_slice(&self.issued_ms.to_le_bytes());
        out.extend_from_slice(&self.issuer);
        out.extend_from_slice(&self.position.map_or(-1, i64::from).to_le_bytes());
        for (invocation, usn) in &self.vector {
            out.extend_from_slice(invocation);
            out.extend_from_slice(&usn.to_le_bytes());
        }
        let check = hash_bytes(u64::from_le_bytes(*MAGIC), &out);
        out.extend_from_slice(&check.to_le_bytes());
        out
    }

    /// `None` for anything [`Self::encode`] did not make.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let (body, check) = bytes.split_last_chunk::<8>()?;
        if hash_bytes(u64::from_le_bytes(*MAGIC), body) != u64::from_le_bytes(*check) {
            return None;
        }
        let rest = body.strip_prefix(MAGIC)?;
        let (context, rest) = rest.split_first_chunk::<16>()?;
        let (issued, rest) = rest.split_first_chunk::<8>()?;
        let (issuer, rest) = rest.split_first_chunk::<16>()?;
        let (position, rest) = rest.split_first_chunk::<8>()?;
        if !rest.len().is_multiple_of(24) || rest.len() / 24 > limits::COOKIE_ORIGINS_MAX {
            return None;
        }
        let origin = |row: &[u8]| {
            let (invocation, usn) = row.split_first_chunk::<16>()?;
            Some((*invocation, u64::from_le_bytes(*usn.first_chunk::<8>()?)))
        };
        Some(Self {
            context: *context,
            issued_ms: i64::from_le_bytes(*issued),
            issuer: *issuer,
            position: u32::try_from(i64::from_le_bytes(*position)).ok(),
            vector: rest.chunks_exact(24).map(origin).collect::<Option<_>>()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn comes_back_and_notices_any_change(
            issued_ms: i64,
            position in proptest::option::of(any::<u32>()),
            vector in proptest::collection::vec((any::<[u8; 16]>(), any::<u64>()), 0..5),
            at: prop::sample::Index,
            flip in 1u8..,
        ) {
            let cookie = Cookie { context: [1; 16], issued_ms, issuer: [2; 16], position, vector };
            let mut bytes = cookie.encode();
            prop_assert_eq!(Cookie::decode(&bytes), Some(cookie));
            let at = at.index(bytes.len());
            bytes[at] ^= flip;
            prop_assert_eq!(Cookie::decode(&bytes), None);
        }

        #[test]
        fn arbitrary_bytes_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert_eq!(Cookie::decode(&bytes), None);
        }
    }
}
