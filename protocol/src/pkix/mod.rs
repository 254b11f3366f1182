//! Certificates, signing requests, names and keys (RFC 5280, RFC 2986, RFC 4514), read as they are sent and written as
//! they should be.
//!
//! Reading is tolerant: BER as well as DER, INTEGERs no strict parser takes, any string type. What a peer signed is kept
//! as received and never encoded again, because a second encoding of sloppy bytes is another message. Writing is DER.
//!
//! Signatures, ciphers and the making of keys are the provider's (aws-lc-rs), its randomness included; bytes *we* choose
//! (serial numbers, nonces, content keys) come in as arguments.

pub mod algorithm;
pub mod ber;
pub mod build;
pub mod certificate;
pub mod csr;
pub mod der;
mod error;
pub mod extension;
pub mod key;
pub mod name;
mod name_text;
pub mod oid;
pub mod pem;
pub mod san;
pub mod time;

pub use algorithm::{Accept, Digest, SignatureAlgorithm};
pub use build::{CertificateDraft, CsrDraft, self_signed};
pub use certificate::Certificate;
pub use csr::Csr;
pub use error::PkixError;
pub use extension::{BasicConstraints, Extension, Extensions, KeyUsage, Template};
pub use key::{Key, PublicKey, PublicKeyKind, Signature};
pub use name::{Attribute, Name};
pub use oid::Oid;
pub use san::AlternativeName;
