//! Certificates and CRLs in a SignedData that nobody signs (RFC 5652 section 5.2, RFC 8894 section 3.4).

use super::error::CmsError;
use super::signed::SignedData;
use super::wrap;
use crate::pkix::ber::{SET, context};
use crate::pkix::{Certificate, der, oid};

/// What is in such a bag.
#[derive(Clone, Debug, Default)]
pub struct Bag {
    /// Certificates in the order they came.
    pub certificates: Vec<Certificate>,
    /// CRLs as received.
    pub crls: Vec<Vec<u8>>,
}

impl Bag {
    /// Reads a bag. Signatures on it are allowed and mean nothing.
    pub fn read(bytes: &[u8]) -> Result<Self, CmsError> {
        let signed = SignedData::read(bytes)?;
        Ok(Self { certificates: signed.certificates, crls: signed.crls })
    }
}

/// Writes a bag, in the order given. DER would sort its certificates; a client that takes the first one would then take
/// any, so this one place is not sorted, as with every other implementation.
pub fn write_bag(certificates: &[&[u8]], crls: &[&[u8]]) -> Vec<u8> {
    let certificates =
        if certificates.is_empty() { Vec::new() } else { der::joined(context(0), certificates) };
    let crls = if crls.is_empty() { Vec::new() } else { der::joined(context(1), crls) };
    let content = der::sequence(&[&der::oid(oid::CMS_DATA)]);
    let nobody = der::element(SET, &[]);
    wrap(
        oid::SIGNED_DATA,
        &der::sequence(&[&der::small(1), &nobody, &content, &certificates, &crls, &nobody]),
    )
}
