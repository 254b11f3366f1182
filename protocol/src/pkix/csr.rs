//! Signing requests (PKCS#10, RFC 2986) as received.

use std::fmt;

use zeroize::Zeroizing;

use super::algorithm::{Accept, SignatureAlgorithm};
use super::ber::{BIT_STRING, INTEGER, Node, SEQUENCE, SET, context};
use super::error::PkixError;
use super::extension::{Extensions, Template};
use super::key::PublicKey;
use super::name::{Name, string};
use super::oid;
use super::san::AlternativeName;
use crate::Secret;
use crate::limits::{CHALLENGE_MAX_BYTES, CSR_ATTRIBUTES_MAX};

const WHAT: &str = "signing request";

/// A signing request. Its parts are read, its signature is verified only by [`Csr::verify`], over the bytes received.
#[derive(Clone)]
pub struct Csr {
    // The challenge stands in both.
    raw: Zeroizing<Vec<u8>>,
    signed: Zeroizing<Vec<u8>>,
    algorithm: Result<SignatureAlgorithm, PkixError>,
    signature: Vec<u8>,
    subject_raw: Vec<u8>,
    subject: Name,
    public_key: PublicKey,
    challenge: Option<Secret>,
    extensions: Extensions,
    alternative_names: Vec<AlternativeName>,
    template: Option<Template>,
}

impl Csr {
    /// Reads a request, BER.
    ///
    /// # Errors
    /// Besides what is malformed: [`PkixError::ControlCharacter`] where subject or alternative names have one. A name
    /// with a NUL in it is one name to some programs and another to others, and no honest program makes one.
    pub fn read(bytes: &[u8]) -> Result<Self, PkixError> {
        let node = Node::only(WHAT, bytes)?;
        let mut outer = node.open(WHAT, SEQUENCE)?;
        let signed = outer.expect(SEQUENCE)?;
        let algorithm = SignatureAlgorithm::read(&outer.expect(SEQUENCE)?);
        let signature = outer.node()?;
        if signature.tag() & !0x20 != BIT_STRING {
            return Err(PkixError::malformed(WHAT, "it has no signature"));
        }
        let mut fields = signed.inside(WHAT)?;
        let _version = fields.expect(INTEGER)?;
        let subject = fields.expect(SEQUENCE)?;
        let mut csr = Self {
            raw: Zeroizing::new(node.raw().to_vec()),
            signed: Zeroizing::new(signed.raw().to_vec()),
            algorithm,
            signature: signature.bits(WHAT)?.into_owned(),
            subject_raw: subject.raw().to_vec(),
            subject: Name::from_node(&subject)?,
            public_key: PublicKey::from_node(&fields.expect(SEQUENCE)?)?,
            challenge: None,
            extensions: Extensions::default(),
            alternative_names: Vec::new(),
            template: None,
        };
        if let Some(attributes) = fields.optional(context(0))? {
            csr.read_attributes(&attributes)?;
        }
        csr.alternative_names = csr.extensions.alternative_names()?;
        csr.template = csr.extensions.template()?;
        csr.subject.check_characters("subject")?;
        if csr.alternative_names.iter().any(AlternativeName::has_control_character) {
            return Err(PkixError::ControlCharacter { what: "alternative name" });
        }
        Ok(csr)
    }

    fn read_attributes(&mut self, attributes: &Node<'_>) -> Result<(), PkixError> {
        for (count, attribute) in attributes.inside(WHAT)?.enumerate() {
            if count == CSR_ATTRIBUTES_MAX {
                return Err(PkixError::TooMuch {
                    what: "attributes of the request",
                    limit: CSR_ATTRIBUTES_MAX,
                });
            }
            let mut fields = attribute?.open(WHAT, SEQUENCE)?;
            let kind = fields.node()?.oid(WHAT)?;
            let mut values = fields.node()?.open(WHAT, SET)?;
            // sscep and scepclient write attributes without a value.
            if values.is_empty() {
                continue;
            }
            match kind {
                oid::CHALLENGE_PASSWORD => self.read_challenge(&values.node()?)?,
                // Which of two lists would count is nobody's to guess.
                oid::EXTENSION_REQUEST | oid::MS_EXTENSION_REQUEST if self.extensions.0.is_empty() => {
                    self.extensions = Extensions::from_node(&values.node()?)?;
                }
                oid::EXTENSION_REQUEST | oid::MS_EXTENSION_REQUEST => {
                    return Err(PkixError::malformed(WHAT, "it asks for extensions twice"));
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn read_challenge(&mut self, value: &Node<'_>) -> Result<(), PkixError> {
        if self.challenge.is_some() {
            return Err(PkixError::malformed(WHAT, "it has two challenges"));
        }
        if value.body().len() > CHALLENGE_MAX_BYTES {
            return Err(PkixError::TooMuch { what: "challenge", limit: CHALLENGE_MAX_BYTES });
        }
        let text = string(value)?.ok_or(PkixError::malformed(WHAT, "its challenge is no text"))?;
        self.challenge = Some(Secret::new(text));
        Ok(())
    }

    /// The whole request as received. The challenge is in it: never log it.
    pub fn raw(&self) -> &[u8] {
        &self.raw
    }

    /// Subject asked for.
    pub fn subject(&self) -> &Name {
        &self.subject
    }

    /// Subject as received.
    pub fn subject_raw(&self) -> &[u8] {
        &self.subject_raw
    }

    /// The key to certify.
    pub fn public_key(&self) -> &PublicKey {
        &self.public_key
    }

    /// challengePassword (RFC 2985 section 5.4.1), whatever kind of string it came as.
    pub fn challenge(&self) -> Option<&Secret> {
        self.challenge.as_ref()
    }

    /// Extensions asked for, as received.
    pub fn extensions(&self) -> &Extensions {
        &self.extensions
    }

    /// Alternative names asked for.
    pub fn alternative_names(&self) -> &[AlternativeName] {
        &self.alternative_names
    }

    /// Microsoft's template asked for.
    pub fn template(&self) -> Option<&Template> {
        self.template.as_ref()
    }

    /// Verifies that whoever asks has the private key.
    pub fn verify(&self, accept: Accept) -> Result<(), PkixError> {
        self.public_key.verify(WHAT, self.algorithm.clone()?, &self.signed, &self.signature, accept)
    }
}

impl fmt::Debug for Csr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Csr")
            .field("subject", &self.subject.to_string())
            .field("key", &self.public_key.kind())
            .field("challenge", &self.challenge.is_some())
            .finish_non_exhaustive()
    }
}
