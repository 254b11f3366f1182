//! What the server says it can do, and what follows from it.

use causeway_protocol::pkix::Accept;

use crate::server::World;

/// The words of GetCACaps and the legacy switch.
pub(super) struct Capabilities {
    words: Vec<String>,
    legacy: bool,
}

impl Capabilities {
    pub(super) fn of(world: &World) -> Self {
        let (config, profile) = (&world.config.scep, world.profile);
        let words = config.capabilities.clone();
        let words =
            words.unwrap_or_else(|| profile.capabilities.iter().map(|word| (*word).to_owned()).collect());
        Self { words, legacy: config.legacy.unwrap_or(profile.legacy) }
    }

    /// As an answer.
    pub(super) fn text(&self, crlf: bool, aes: bool) -> String {
        let end = if crlf { "\r\n" } else { "\n" };
        let words = self.words.iter().filter(|word| aes || !is_aes(word));
        words.map(|word| format!("{word}{end}")).collect()
    }

    /// What messages may be made with. AES is read announced or not, as NDES does it for clients that do not ask first;
    /// 3DES and SHA-1 are only when announced, single DES never.
    pub(super) fn accept(&self) -> Accept {
        Accept {
            sha1: self.legacy || self.has("SHA-1"),
            triple_des: self.legacy || self.has("DES3"),
            des: self.legacy,
        }
    }

    fn has(&self, word: &str) -> bool {
        self.words.iter().any(|own| own.eq_ignore_ascii_case(word))
    }
}

fn is_aes(word: &str) -> bool {
    ["AES", "SCEPStandard"].iter().any(|own| own.eq_ignore_ascii_case(word))
}
