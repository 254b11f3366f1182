//! Reading what clients send: DER and the BER some of them write instead. Nothing is copied and nothing is encoded
//! anew: what goes into a certificate are the bytes that came.

use aws_lc_rs::digest::{Algorithm, SHA1_FOR_LEGACY_USE_ONLY, SHA256, SHA384, SHA512};

use crate::limits::READ_DEPTH_MAX;

/// One element.
#[derive(Clone, Copy, Debug)]
pub(super) struct Node<'a> {
    pub(super) tag: u8,
    /// With tag and length.
    pub(super) raw: &'a [u8],
    pub(super) body: &'a [u8],
}

/// Reads the element at the beginning and what follows it.
pub(super) fn node(bytes: &[u8]) -> Option<(Node<'_>, &[u8])> {
    let (&tag, rest) = bytes.split_first()?;
    // Tag numbers from 31 have more bytes; nothing here uses them.
    if tag & 0x1f == 0x1f {
        return None;
    }
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81..=0x84 => {
            let (digits, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            (digits.iter().fold(0, |length, digit| length << 8 | usize::from(*digit)), rest)
        }
        _ => return None,
    };
    let (body, rest) = rest.split_at_checked(length)?;
    let raw = &bytes[..bytes.len() - rest.len()];
    Some((Node { tag, raw, body }, rest))
}

/// The one element these bytes are.
pub(super) fn whole(bytes: &[u8]) -> Option<Node<'_>> {
    node(bytes).filter(|(_, rest)| rest.is_empty()).map(|(node, _)| node)
}

impl<'a> Node<'a> {
    /// The elements inside, at most `max`.
    pub(super) fn children(&self, max: usize) -> Option<Vec<Node<'a>>> {
        let (mut rest, mut list) = (self.body, Vec::new());
        while !rest.is_empty() {
            if list.len() == max {
                return None;
            }
            let (child, after) = node(rest)?;
            list.push(child);
            rest = after;
        }
        Some(list)
    }

    /// The element inside this explicit tag.
    pub(super) fn inner(&self) -> Option<Node<'a>> {
        whole(self.body)
    }

    /// The bytes of a BIT STRING of whole bytes.
    pub(super) fn bit_bytes(&self) -> Option<&'a [u8]> {
        match self.body.split_first() {
            Some((0, bytes)) if self.tag == super::der::BIT_STRING => Some(bytes),
            _ => None,
        }
    }
}

/// Whether the nesting of these bytes is one a parser can follow.
pub(super) fn is_shallow(bytes: &[u8]) -> bool {
    fn walk(mut bytes: &[u8], depth: usize) -> bool {
        while let Some((node, rest)) = node(bytes) {
            let constructed = node.tag & 0x20 != 0;
            if constructed && (depth == 0 || !walk(node.body, depth - 1)) {
                return false;
            }
            bytes = rest;
        }
        bytes.is_empty()
    }
    walk(bytes, READ_DEPTH_MAX)
}

/// The bits of a SubjectPublicKeyInfo; nothing when it is none.
pub(super) fn key_bits(spki: &[u8]) -> &[u8] {
    let parts = whole(spki).and_then(|node| node.children(2));
    parts.and_then(|parts| parts.get(1)?.bit_bytes()).unwrap_or_default()
}

/// The digest an object identifier (its body) names.
pub(super) fn digest_algorithm(oid: &[u8]) -> Option<&'static Algorithm> {
    Some(match oid {
        [0x2b, 14, 3, 2, 26] => &SHA1_FOR_LEGACY_USE_ONLY,
        [0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 1] => &SHA256,
        [0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 2] => &SHA384,
        [0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 3] => &SHA512,
        _ => return None,
    })
}

/// A question over OCSP (RFC 6960 section 4.1.1).
pub(super) struct OcspQuestion<'a> {
    pub(super) ids: Vec<OcspId<'a>>,
    /// The whole nonce extension, which is sent back.
    pub(super) nonce: Option<&'a [u8]>,
}

/// One `CertID`.
pub(super) struct OcspId<'a> {
    pub(super) raw: &'a [u8],
    /// Body of the digest's object identifier.
    pub(super) algorithm: &'a [u8],
    pub(super) name_hash: &'a [u8],
    pub(super) key_hash: &'a [u8],
    /// Body of the INTEGER.
    pub(super) serial: &'a [u8],
}

/// `id-pkix-ocsp-nonce`
const NONCE: [u8; 9] = [0x2b, 6, 1, 5, 5, 7, 0x30, 1, 2];

pub(super) fn ocsp_request(bytes: &[u8], max: usize) -> Option<OcspQuestion<'_>> {
    let content = whole(bytes)?.children(2)?.into_iter().next()?;
    let parts = content.children(4)?;
    let list = parts.iter().find(|part| part.tag == super::der::SEQUENCE)?;
    let ids = list.children(max)?.iter().map(ocsp_id).collect::<Option<Vec<_>>>()?;
    let nonce = parts.iter().find(|part| part.tag == 0xa2).and_then(|extensions| {
        let list = extensions.inner()?.children(8)?;
        list.into_iter().find(|one| {
            one.children(3).is_some_and(|parts| parts.first().is_some_and(|oid| oid.body == NONCE))
        })
    });
    (!ids.is_empty()).then_some(OcspQuestion { ids, nonce: nonce.map(|node| node.raw) })
}

fn ocsp_id<'a>(request: &Node<'a>) -> Option<OcspId<'a>> {
    let id = request.children(2)?.into_iter().next()?;
    let parts = id.children(4)?;
    let [algorithm, name_hash, key_hash, serial] = parts.as_slice() else { return None };
    Some(OcspId {
        raw: id.raw,
        algorithm: algorithm.children(2)?.first()?.body,
        name_hash: name_hash.body,
        key_hash: key_hash.body,
        serial: serial.body,
    })
}
