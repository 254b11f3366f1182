//! Cryptographic messages (RFC 5652): signed ones, encrypted ones, and the bags of certificates that are signed by
//! nobody.
//!
//! Reading takes every form real peers send: definite and indefinite lengths, ciphertext in pieces under a constructed
//! `[0]`, signers named by issuer or by key identifier, signatures named `rsaEncryption` or together with their digest,
//! signed attributes in any order. Writing knows one form: DER, `rsaEncryption`, because strongSwan takes no other, and
//! bags in the order given, leaf first, because old clients take the first certificate they meet.
//!
//! Whoever can send an encrypted message can ask for its decryption. So that the answers tell nothing (RFC 3218): every
//! failure after the algorithms are known is [`CmsError::Undecryptable`], and where the padding of RSA is wrong, another
//! content key takes the place of the one that is missing and the work goes on.

mod agreement;
mod algorithm;
mod bag;
mod enveloped;
mod error;
mod seal;
mod sign;
mod signed;

pub use algorithm::{ContentCipher, KeyTransport};
pub use bag::{Bag, write_bag};
pub use enveloped::EnvelopedData;
pub use error::CmsError;
pub use seal::{Recipient, SealRandom, seal};
pub use sign::{SignerKey, sign};
pub use signed::{SignedData, Signer, SignerId};

use crate::pkix::ber::{Node, Reader, SEQUENCE, context};
use crate::pkix::{Oid, PkixError, der};

/// The contents of a ContentInfo (RFC 5652 section 3) of one type.
pub(crate) fn content_info<'a>(
    what: &'static str,
    bytes: &'a [u8],
    kind: Oid,
) -> Result<Reader<'a>, CmsError> {
    let (node, rest) = Node::read(what, bytes)?;
    // Some servers end their answers with a line, some cannot count their padding.
    if rest.iter().any(|byte| !byte.is_ascii_whitespace() && *byte != 0) {
        return Err(PkixError::malformed(what, "something follows it").into());
    }
    let mut fields = node.open(what, SEQUENCE)?;
    let found = fields.node()?.oid(what)?;
    if found != kind {
        return Err(CmsError::AnotherContent { what, found: found.to_string() });
    }
    let mut content = fields.expect(context(0))?.inside(what)?;
    Ok(content.expect(SEQUENCE)?.inside(what)?)
}

/// Writes a ContentInfo.
pub(crate) fn wrap(kind: Oid, content: &[u8]) -> Vec<u8> {
    der::sequence(&[&der::oid(kind), &der::explicit(0, content)])
}
