//! What only faults ask for: an authority nobody knows, and certificates that are not what was asked for.

use super::certificate::{self, Body, Extensions, Serial};
use super::hierarchy::{Generation, Maker, Tiers};
use super::template::KeyUsage;
use super::{Authority, AuthorityConfig, Issued};

/// Makes another seed of a seed, so that the stranger's keys are kept like all others.
const STRANGE: u64 = 0x57a1_6e72;

impl Authority {
    /// An authority and RA of the same names with other keys. Blocks while they are made.
    pub fn stranger(&self) -> Generation {
        let config = AuthorityConfig { tiers: Some(Tiers::One), ..self.config.clone() };
        let maker = Maker {
            config: &config,
            seed: self.company.seed ^ STRANGE,
            links: &self.links,
            now_ms: self.now_ms(),
        };
        maker.make_keys(0);
        maker.generation(None, 0)
    }

    /// The certificate again, for somebody else's key. It is in no book.
    pub fn with_another_key(&self, issued: &Issued) -> Vec<u8> {
        let stranger = self.stranger();
        let hierarchy = self.hierarchy();
        let by = &hierarchy.current().authority;
        let body = Body {
            serial: Serial::random(),
            issuer: &by.name,
            subject: &issued.name,
            spki: stranger.ra_signing.key.public_key().spki(),
            not_before_ms: issued.not_before_ms,
            not_after_ms: issued.not_after_ms,
        };
        let mut extensions = Extensions::default();
        extensions.usage(&[KeyUsage::DigitalSignature, KeyUsage::KeyEncipherment], &["client_auth"]);
        certificate::sign(&body, &extensions, &by.key)
    }
}
