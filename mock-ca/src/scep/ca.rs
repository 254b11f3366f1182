//! GetCACert and GetNextCACert (RFC 8894 sections 4.2 and 4.7).

use causeway_protocol::cms::{SignerKey, write_bag};
use causeway_protocol::pkix::Digest;
use causeway_protocol::scep::write_next_ca;

use crate::core::{Authority, Generation, Hierarchy};

/// Content type and body of GetCACert: one certificate as it is, several in a bag. With `wrong_ra` the certificates of an RA
/// whose keys nobody has: what clients see when somebody installed NDES anew and an old answer is cached.
pub(super) fn certificates(authority: &Authority, wrong_ra: bool) -> (&'static str, Vec<u8>) {
    let hierarchy = authority.hierarchy();
    let stranger = wrong_ra.then(|| authority.stranger());
    let all = listed(&hierarchy, stranger.as_ref().unwrap_or(hierarchy.current()));
    match all.as_slice() {
        [one] => ("application/x-x509-ca-cert", one.to_vec()),
        several => ("application/x-x509-ca-ra-cert", write_bag(several, &[])),
    }
}

/// Body of GetNextCACert, when a rollover is announced: the next authority, signed by the present one.
pub(super) fn next_certificates(authority: &Authority) -> Option<Vec<u8>> {
    let hierarchy = authority.hierarchy();
    let (next, _) = hierarchy.next.as_ref()?;
    let bag = write_bag(&listed(&hierarchy, next), &[]);
    let now = &hierarchy.current().authority;
    let signer = SignerKey { certificate: &now.certificate, key: &now.key };
    write_next_ca(&bag, signer, Digest::Sha256)
        .inspect_err(|error| tracing::error!(%error, "The next authority cannot be announced"))
        .ok()
}

/// The RA's certificates, then the chain.
fn listed<'a>(hierarchy: &'a Hierarchy, generation: &'a Generation) -> Vec<&'a [u8]> {
    let mut all = generation.ra_certificates();
    all.extend(hierarchy.chain(generation));
    all
}
