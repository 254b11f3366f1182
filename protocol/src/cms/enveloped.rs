//! Reading and opening EnvelopedData (RFC 5652 section 6).

use zeroize::Zeroizing;

use super::agreement::{self, Agreement, ForOne};
use super::algorithm::{ContentCipher, KeyTransport};
use super::content_info;
use super::error::CmsError;
use super::signed::SignerId;
use crate::limits::{CMS_RECIPIENTS_MAX, CMS_RECIPIENTS_TRIED_MAX};
use crate::pkix::ber::{INTEGER, Node, OCTET_STRING, SEQUENCE, SET, context, context_primitive};
use crate::pkix::{Accept, Certificate, Key, PkixError, oid};

const WHAT: &str = "encrypted message";

/// An encrypted message.
#[derive(Clone, Debug)]
pub struct EnvelopedData {
    recipients: Vec<Recipient>,
    cipher: ContentCipher,
    iv: Vec<u8>,
    text: Vec<u8>,
}

#[derive(Clone, Debug)]
enum Recipient {
    Transport { id: SignerId, way: KeyTransport, key: Vec<u8> },
    Agreement { ids: Vec<ForOne>, agreement: Agreement },
}

impl EnvelopedData {
    /// Reads a ContentInfo with EnvelopedData.
    ///
    /// # Errors
    /// [`CmsError::Algorithm`] for ciphers that are not known or not accepted: everybody can see which one it is, so
    /// saying so gives nothing away.
    pub fn read(bytes: &[u8], accept: Accept) -> Result<Self, CmsError> {
        let mut fields = content_info(WHAT, bytes, oid::ENVELOPED_DATA)?;
        let _version = fields.expect(INTEGER)?;
        let _originator = fields.optional(context(0))?;
        let mut recipients = Vec::new();
        let mut unknown = None;
        for (count, node) in fields.expect(SET)?.inside(WHAT)?.enumerate() {
            if count == CMS_RECIPIENTS_MAX {
                return Err(PkixError::TooMuch { what: "recipients", limit: CMS_RECIPIENTS_MAX }.into());
            }
            match recipient(&node?) {
                Ok(recipient) => recipients.push(recipient),
                Err(CmsError::Algorithm { what, oid }) => unknown = Some(CmsError::Algorithm { what, oid }),
                Err(other) => return Err(other),
            }
        }
        let mut content = fields.sequence()?;
        let _content_type = content.node()?.oid(WHAT)?;
        let (cipher, iv) = ContentCipher::read(&content.expect(SEQUENCE)?, accept)?;
        let text = content.node()?;
        // [0] IMPLICIT OCTET STRING: in one piece, in many, or in one that is packed like many.
        if text.tag() & !0x20 != context_primitive(0) {
            return Err(PkixError::malformed(WHAT, "it has no content").into());
        }
        if recipients.is_empty() {
            return Err(unknown.unwrap_or(PkixError::malformed(WHAT, "it has no recipient").into()));
        }
        Ok(Self { recipients, cipher, iv, text: text.octets(WHAT)?.into_owned() })
    }

    /// The cipher of its content.
    pub fn cipher(&self) -> ContentCipher {
        self.cipher
    }

    /// Decrypts with the key of `own`; without a certificate, recipients are known by the key's identifier.
    ///
    /// Recipients that are named by `own` are tried; where there is none, the first few are, because clients that fetched
    /// an old certificate of ours name that one. At most one content is decrypted, and every failure is the same.
    pub fn open(&self, key: &Key, own: Option<&Certificate>) -> Result<Zeroizing<Vec<u8>>, CmsError> {
        let candidates = self.candidates(key, own);
        let Some(first) = candidates.first() else { return Err(CmsError::Undecryptable) };
        let substitute = key.substitute(first.block());
        // Every candidate is opened, whether one before it was good or not.
        let content_key = candidates
            .iter()
            .take(CMS_RECIPIENTS_TRIED_MAX)
            .map(|sealed| sealed.open(key).filter(|opened| opened.len() == self.cipher.key_length()))
            .fold(None, Option::or);
        let substitute = &substitute[..self.cipher.key_length()];
        let content_key = content_key.as_deref().map_or(substitute, Vec::as_slice);
        self.cipher.decrypt(content_key, &self.iv, &self.text)
    }

    fn candidates(&self, key: &Key, own: Option<&Certificate>) -> Vec<Sealed<'_>> {
        let named = |id: &SignerId| match (own, id) {
            (Some(own), id) => id.names(own),
            (None, SignerId::Key(id)) => key.public_key().key_id() == *id,
            (None, SignerId::Issuer { .. }) => false,
        };
        let all: Vec<_> = self
            .recipients
            .iter()
            .flat_map(|recipient| match recipient {
                Recipient::Transport { id, way, key: block } if key.is_rsa() => {
                    vec![(named(id), Sealed::Transport(*way, block))]
                }
                Recipient::Agreement { ids, agreement } if !key.is_rsa() => {
                    ids.iter().map(|(id, block)| (named(id), Sealed::Agreement(agreement, block))).collect()
                }
                _ => Vec::new(),
            })
            .collect();
        let any_named = all.iter().any(|(named, _)| *named);
        all.into_iter().filter(|(named, _)| *named || !any_named).map(|(_, sealed)| sealed).collect()
    }
}

/// A content key, encrypted.
enum Sealed<'a> {
    Transport(KeyTransport, &'a [u8]),
    Agreement(&'a Agreement, &'a [u8]),
}

impl Sealed<'_> {
    fn block(&self) -> &[u8] {
        match self {
            Self::Transport(_, block) | Self::Agreement(_, block) => block,
        }
    }

    fn open(&self, key: &Key) -> Option<Zeroizing<Vec<u8>>> {
        match self {
            Self::Transport(KeyTransport::Pkcs1, block) => key.decrypt_pkcs1(block),
            Self::Transport(KeyTransport::Oaep(digest), block) => {
                key.decrypt_oaep(KeyTransport::oaep(*digest), block)
            }
            Self::Agreement(agreement, block) => agreement::open(agreement, block, key),
        }
    }
}

/// RecipientInfo (RFC 5652 section 6.2).
fn recipient(node: &Node<'_>) -> Result<Recipient, CmsError> {
    if node.tag() == context(1) {
        let (ids, agreement) = agreement::read(node)?;
        return Ok(Recipient::Agreement { ids, agreement });
    }
    if node.tag() != SEQUENCE {
        // Of passwords, of keys both have already, and others: nothing we could open.
        return Err(CmsError::Algorithm { what: "recipient", oid: format!("[{}]", node.tag() & 0x1f) });
    }
    let mut fields = node.inside(WHAT)?;
    let _version = fields.expect(INTEGER)?;
    let id = SignerId::read(&fields.node()?)?;
    let way = KeyTransport::read(&fields.expect(SEQUENCE)?)?;
    let key = fields.node()?;
    if key.tag() & !0x20 != OCTET_STRING {
        return Err(PkixError::malformed(WHAT, "its key is no OCTET STRING").into());
    }
    Ok(Recipient::Transport { id, way, key: key.octets(WHAT)?.into_owned() })
}
