//! A signing request (PKCS#10) whose signature is right.

use causeway_protocol::Secret;
use causeway_protocol::pkix::{
    self, Accept, AlternativeName, Extension, Extensions, Name, PkixError, PublicKeyKind, Template, oid,
};

use super::Denial;
use crate::limits::CSR_MAX_BYTES;

/// Signatures with SHA-1 are accepted in requests, as AD CS accepts them; what counts is the signature around them.
const ACCEPT: Accept = Accept { sha1: true, ..Accept::MODERN };

/// A request that has been read and whose signature is right.
#[derive(Debug)]
pub struct Csr {
    request: pkix::Csr,
    /// The template it names, by name or by identifier in dots.
    pub template: Option<String>,
}

impl Csr {
    /// Reads a request and checks that it is signed with its own key.
    ///
    /// # Errors
    /// [`Denial::TooLarge`], [`Denial::Unreadable`], [`Denial::BadName`] or [`Denial::BadSignature`].
    pub fn read(bytes: &[u8]) -> Result<Self, Denial> {
        if bytes.len() > CSR_MAX_BYTES {
            return Err(Denial::TooLarge);
        }
        let request = pkix::Csr::read(bytes).map_err(|error| match error {
            PkixError::ControlCharacter { .. } => Denial::BadName,
            _ => Denial::Unreadable,
        })?;
        request.verify(ACCEPT).map_err(|error| match error {
            PkixError::BadSignature { .. } => Denial::BadSignature,
            _ => Denial::KeyKind,
        })?;
        let template = request.template().map(|template| match template {
            Template::Name(name) => name.clone(),
            Template::Id { id, .. } => id.to_string(),
        });
        Ok(Self { request, template })
    }

    /// Subject, DER, as it came.
    pub fn subject_raw(&self) -> &[u8] {
        self.request.subject_raw()
    }

    pub fn subject(&self) -> &Name {
        self.request.subject()
    }

    /// Subject as RFC 4514 writes it.
    pub fn subject_text(&self) -> String {
        self.request.subject().to_string()
    }

    /// The last common name.
    pub fn common_name(&self) -> &str {
        self.request.subject().value(oid::CN).unwrap_or_default()
    }

    pub fn challenge(&self) -> Option<&Secret> {
        self.request.challenge()
    }

    pub fn alternative_names(&self) -> &[AlternativeName] {
        self.request.alternative_names()
    }

    pub fn extensions(&self) -> &Extensions {
        self.request.extensions()
    }

    pub fn public_key(&self) -> &pkix::PublicKey {
        self.request.public_key()
    }

    /// SubjectPublicKeyInfo, DER.
    pub fn spki(&self) -> &[u8] {
        self.request.public_key().spki()
    }

    pub(super) fn key_kind(&self) -> PublicKeyKind {
        self.request.public_key().kind()
    }
}

/// Reads a GeneralNames, DER.
pub(super) fn alternative_names(value: &[u8]) -> Option<Vec<AlternativeName>> {
    let extensions = Extensions(vec![Extension::new(oid::SUBJECT_ALT_NAME, value.to_vec())]);
    extensions.alternative_names().ok()
}
