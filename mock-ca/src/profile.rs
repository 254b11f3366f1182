//! The products the mock can play, as data. Settings win over them.

use crate::core::{RaMode, Tiers};

/// A product.
#[derive(Debug, PartialEq, Eq)]
pub struct Profile {
    /// As given to `--personality`.
    pub name: &'static str,
    pub tiers: Tiers,
    pub ra: RaMode,
    /// Words of GetCACaps.
    pub capabilities: &'static [&'static str],
    /// Accepts single DES, 3DES and SHA-1 without announcing them.
    pub legacy: bool,
}

static PROFILES: [Profile; 3] = [
    Profile {
        name: "ndes",
        tiers: Tiers::Two,
        ra: RaMode::Pair,
        // The list of current NDES as it is widely reported; not seen on a server of our own.
        capabilities: &["POSTPKIOperation", "Renewal", "SHA-512", "SHA-256", "SHA-1", "DES3"],
        legacy: false,
    },
    Profile {
        name: "rfc8894",
        tiers: Tiers::One,
        ra: RaMode::None,
        // SHA-384 is in no RFC; without it Debian's strongSwan believes that there is no AES.
        capabilities: &[
            "AES",
            "DES3",
            "SHA-1",
            "SHA-256",
            "SHA-384",
            "SHA-512",
            "POSTPKIOperation",
            "Renewal",
            "GetNextCACert",
            "SCEPStandard",
        ],
        legacy: false,
    },
    Profile { name: "legacy", tiers: Tiers::One, ra: RaMode::None, capabilities: &[], legacy: true },
];

impl Profile {
    /// The profile of this name.
    pub fn named(name: &str) -> Option<&'static Self> {
        PROFILES.iter().find(|profile| profile.name == name)
    }

    /// Every name, for messages.
    pub fn names() -> String {
        PROFILES.iter().map(|profile| profile.name).collect::<Vec<_>>().join(", ")
    }
}
