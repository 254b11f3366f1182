//! Certificates in a PKCS#7 without signatures (RFC 5652 section 5.1, "certs-only"), and certificates with a chain.

use causeway_protocol::cms;

use crate::core::{Authority, Issued};

/// The certificates in a bag, in this order.
pub(crate) fn of(certificates: &[&[u8]]) -> Vec<u8> {
    cms::write_bag(certificates, &[])
}

/// The chain of what was issued, from its issuer upwards.
pub(crate) fn chain(authority: &Authority, issued: &Issued) -> Vec<Vec<u8>> {
    let hierarchy = authority.hierarchy();
    let found = hierarchy.generations.iter().find(|generation| generation.number == issued.generation);
    let generation = found.unwrap_or_else(|| hierarchy.current());
    hierarchy.chain(generation).into_iter().map(<[u8]>::to_vec).collect()
}

/// What was issued and its chain, in a bag.
pub(crate) fn with_chain(authority: &Authority, issued: &Issued) -> Vec<u8> {
    let chain = chain(authority, issued);
    let mut all: Vec<&[u8]> = vec![&issued.certificate];
    all.extend(chain.iter().map(Vec::as_slice));
    of(&all)
}

/// The fault `another_key`: a certificate for a key nobody asked with.
pub(crate) fn anothers(authority: &Authority) -> Vec<u8> {
    authority.hierarchy().current().ra_signing.certificate.raw().to_vec()
}
