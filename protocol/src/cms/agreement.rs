//! Content keys for elliptic curve keys: ECDH with a key made for the message, and AES key wrap (RFC 5753).

use aws_lc_rs::agreement::{ECDH_P256, PrivateKey, UnparsedPublicKey, agree};
use aws_lc_rs::key_wrap::{AES_128, AES_256, AesKek, KeyWrap};
use zeroize::Zeroizing;

use super::error::CmsError;
use super::signed::SignerId;
use crate::limits::CMS_RECIPIENTS_MAX;
use crate::pkix::ber::{BIT_STRING, INTEGER, Node, SEQUENCE, context};
use crate::pkix::{Digest, Key, Oid, PkixError, PublicKey, der, oid};

const WHAT: &str = "key agreement";

/// A recipient and the content key encrypted for it.
pub(crate) type ForOne = (SignerId, Vec<u8>);

/// What the recipients of one KeyAgreeRecipientInfo share.
#[derive(Clone, Debug)]
pub(crate) struct Agreement {
    /// The sender's point, uncompressed.
    originator: Vec<u8>,
    /// userKeyingMaterial, if any.
    material: Option<Vec<u8>>,
    wrap: Oid,
    wrap_raw: Vec<u8>,
}

/// Reads `[1]` KeyAgreeRecipientInfo: who it is for with their encrypted keys, and what they share.
pub(crate) fn read(node: &Node<'_>) -> Result<(Vec<ForOne>, Agreement), CmsError> {
    let mut fields = node.inside(WHAT)?;
    let _version = fields.expect(INTEGER)?;
    let originator = fields.expect(context(0))?.inside(WHAT)?.node()?;
    if originator.tag() != context(1) {
        return Err(CmsError::Algorithm { what: WHAT, oid: "with a key of long standing".to_owned() });
    }
    let mut key = originator.inside(WHAT)?;
    let _algorithm = key.expect(SEQUENCE)?;
    let point = key.node()?;
    if point.tag() & !0x20 != BIT_STRING {
        return Err(PkixError::malformed(WHAT, "it has no point").into());
    }
    let material = match fields.optional(context(1))? {
        Some(wrapped) => Some(wrapped.inside(WHAT)?.node()?.octets(WHAT)?.into_owned()),
        None => None,
    };
    let mut scheme = fields.sequence()?;
    let found = scheme.node()?.oid(WHAT)?;
    if found != oid::ECDH_SHA256_KDF {
        return Err(CmsError::Algorithm { what: WHAT, oid: found.to_string() });
    }
    let wrap_node = scheme.expect(SEQUENCE)?;
    let wrap = wrap_node.inside(WHAT)?.node()?.oid(WHAT)?;
    if wrap_key_length(wrap).is_none() {
        return Err(CmsError::Algorithm { what: "key wrap", oid: wrap.to_string() });
    }
    let mut ids = Vec::new();
    for recipient in fields.sequence()? {
        if ids.len() == CMS_RECIPIENTS_MAX {
            return Err(PkixError::TooMuch { what: "recipients", limit: CMS_RECIPIENTS_MAX }.into());
        }
        let mut pair = recipient?.open(WHAT, SEQUENCE)?;
        let id = recipient_id(&pair.node()?)?;
        ids.push((id, pair.node()?.octets(WHAT)?.into_owned()));
    }
    let originator = point.bits(WHAT)?.into_owned();
    Ok((ids, Agreement { originator, material, wrap, wrap_raw: wrap_node.raw().to_vec() }))
}

/// KeyAgreeRecipientIdentifier: as with signers, but the key identifier is wrapped once more.
fn recipient_id(node: &Node<'_>) -> Result<SignerId, PkixError> {
    if node.tag() == context(0) {
        return Ok(SignerId::Key(node.inside(WHAT)?.node()?.octets(WHAT)?.into_owned()));
    }
    SignerId::read(node)
}

/// Opens an encrypted key. `None` covers everything that can be wrong with it.
pub(crate) fn open(agreement: &Agreement, block: &[u8], key: &Key) -> Option<Zeroizing<Vec<u8>>> {
    let own = PrivateKey::from_private_key_der(&ECDH_P256, key.pkcs8()).ok()?;
    let kek = shared(&own, &agreement.originator, agreement).ok()?;
    let mut plain = Zeroizing::new(vec![0; block.len()]);
    let length = match kek.len() {
        16 => AesKek::new(&AES_128, &kek).ok()?.unwrap(block, &mut plain).ok()?.len(),
        _ => AesKek::new(&AES_256, &kek).ok()?.unwrap(block, &mut plain).ok()?.len(),
    };
    plain.truncate(length);
    Some(plain)
}

/// Encrypts a content key to a P-256 key: a whole KeyAgreeRecipientInfo. The key made for the message is the provider's.
pub(crate) fn seal(content_key: &[u8], to: &PublicKey, id: &[u8]) -> Result<Vec<u8>, CmsError> {
    const FAILED: CmsError = CmsError::Key { what: "agreeing on a key" };
    let own = PrivateKey::generate(&ECDH_P256).map_err(|_| FAILED)?;
    let point = own.compute_public_key().map_err(|_| FAILED)?;
    // RFC 3565 section 2.3.2: no parameters.
    let wrap_raw = der::sequence(&[&der::oid(oid::AES256_WRAP)]);
    let agreement =
        Agreement { originator: point.as_ref().to_vec(), material: None, wrap: oid::AES256_WRAP, wrap_raw };
    let kek = shared(&own, to.bits(), &agreement)?;
    let mut block = vec![0; content_key.len() + 8];
    let kek = AesKek::new(&AES_256, &kek).map_err(|_| FAILED)?;
    kek.wrap(content_key, &mut block).map_err(|_| FAILED)?;
    let algorithm = der::sequence(&[&der::oid(oid::EC_PUBLIC_KEY), &der::oid(oid::P256)]);
    let originator = der::joined(context(1), &[&algorithm, &der::bits(&agreement.originator)]);
    let scheme = der::sequence(&[&der::oid(oid::ECDH_SHA256_KDF), &agreement.wrap_raw]);
    let recipient = der::sequence(&[id, &der::octets(&block)]);
    Ok(der::joined(
        context(1),
        &[&der::small(3), &der::explicit(0, &originator), &scheme, &der::sequence(&[&recipient])],
    ))
}

/// `[0]` RecipientKeyIdentifier around a key identifier.
pub(crate) fn key_identifier(id: &[u8]) -> Vec<u8> {
    der::joined(context(0), &[&der::octets(id)])
}

/// The wrapping key: ECDH, then the derivation of X9.63 over ECC-CMS-SharedInfo (RFC 5753 section 7.2). One block of
/// SHA-256 is enough for AES-256.
fn shared(own: &PrivateKey, peer: &[u8], agreement: &Agreement) -> Result<Zeroizing<Vec<u8>>, CmsError> {
    let length = wrap_key_length(agreement.wrap).ok_or(CmsError::Undecryptable)?;
    let bits = u32::try_from(length * 8).map_err(|_| CmsError::Undecryptable)?;
    let material = agreement.material.as_deref().map(|bytes| der::explicit(0, &der::octets(bytes)));
    let info = der::sequence(&[
        &agreement.wrap_raw,
        &material.unwrap_or_default(),
        &der::explicit(2, &der::octets(&bits.to_be_bytes())),
    ]);
    agree(own, UnparsedPublicKey::new(&ECDH_P256, peer), CmsError::Undecryptable, |secret| {
        let input = Zeroizing::new([secret, &1u32.to_be_bytes(), &info].concat());
        Ok(Zeroizing::new(Digest::Sha256.of(&input).as_ref()[..length].to_vec()))
    })
}

fn wrap_key_length(wrap: Oid) -> Option<usize> {
    match wrap {
        oid::AES128_WRAP => Some(16),
        oid::AES256_WRAP => Some(32),
        _ => None,
    }
}
