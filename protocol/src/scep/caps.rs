//! GetCACaps (RFC 8894 section 3.5): what a server says it can, and what to do with that.

use crate::cms::ContentCipher;
use crate::limits::SCEP_CAPS_MAX_BYTES;
use crate::pkix::{Accept, Digest};

/// Capabilities of a server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Caps {
    /// `AES`: AES-128-CBC.
    pub aes: bool,
    /// `DES3`.
    pub triple_des: bool,
    /// `SHA-1`.
    pub sha1: bool,
    /// `SHA-256`.
    pub sha256: bool,
    /// `SHA-384`: in no RFC, but strongSwan 5.9.8 finds AES by it.
    pub sha384: bool,
    /// `SHA-512`.
    pub sha512: bool,
    /// `POSTPKIOperation`: messages may be posted.
    pub post: bool,
    /// `Renewal`.
    pub renewal: bool,
    /// `GetNextCACert`.
    pub next_ca: bool,
    /// `SCEPStandard`: AES, SHA-256 and POST together.
    pub standard: bool,
}

/// What a client does with a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Suite {
    /// Digest of the messages.
    pub digest: Digest,
    /// Cipher of the messages.
    pub cipher: ContentCipher,
    /// Whether messages are posted.
    pub post: bool,
    /// Whether RenewalReq is understood.
    pub renewal: bool,
    /// What is accepted in answers.
    pub accept: Accept,
}

impl Caps {
    /// Reads the text: a word a line, in any case; words that are not known do not matter. What is no such text (HTML, an
    /// error page, nothing) has no known words, and that is a server of the time before capabilities.
    pub fn parse(body: &[u8]) -> Self {
        let mut caps = Self::default();
        let body = String::from_utf8_lossy(&body[..body.len().min(SCEP_CAPS_MAX_BYTES)]).to_lowercase();
        for word in body.trim_start_matches('\u{feff}').split_whitespace() {
            match word {
                "aes" => caps.aes = true,
                "des3" => caps.triple_des = true,
                "sha-1" => caps.sha1 = true,
                "sha-256" => caps.sha256 = true,
                "sha-384" => caps.sha384 = true,
                "sha-512" => caps.sha512 = true,
                "postpkioperation" => caps.post = true,
                "renewal" => caps.renewal = true,
                "getnextcacert" => caps.next_ca = true,
                "scepstandard" => caps.standard = true,
                _ => {}
            }
        }
        caps
    }

    /// The text a server sends.
    pub fn to_text(self) -> String {
        let words = [
            (self.aes, "AES"),
            (self.triple_des, "DES3"),
            (self.sha1, "SHA-1"),
            (self.sha256, "SHA-256"),
            (self.sha384, "SHA-384"),
            (self.sha512, "SHA-512"),
            (self.post, "POSTPKIOperation"),
            (self.renewal, "Renewal"),
            (self.next_ca, "GetNextCACert"),
            (self.standard, "SCEPStandard"),
        ];
        words.into_iter().filter(|(set, _)| *set).map(|(_, word)| format!("{word}\n")).collect()
    }

    /// The best of what the server can. NDES offers no AES, so triple DES is not out of use; a server that offers no
    /// SHA-2 is sent SHA-256 all the same, because our provider makes no signatures with SHA-1 any more, and is allowed
    /// to answer with SHA-1.
    pub fn negotiate(self) -> Suite {
        let sha256 = self.sha256 || self.standard;
        let modern = sha256 || self.sha384 || self.sha512;
        let aes = self.aes || self.standard;
        let digest = match self {
            _ if sha256 || !modern => Digest::Sha256,
            Self { sha512: true, .. } => Digest::Sha512,
            _ => Digest::Sha384,
        };
        Suite {
            digest,
            cipher: if aes { ContentCipher::Aes128 } else { ContentCipher::TripleDes },
            post: self.post || self.standard,
            renewal: self.renewal,
            accept: Accept { sha1: !modern, triple_des: !aes || self.triple_des, des: false },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_server_gets_what_it_understands() {
        let suite = |text: &str| Caps::parse(text.as_bytes()).negotiate();
        let standard = suite("SCEPStandard\r\n");
        assert_eq!(
            (standard.digest, standard.cipher, standard.post),
            (Digest::Sha256, ContentCipher::Aes128, true)
        );
        assert_eq!(standard.accept, Accept::MODERN);
        // What current NDES says.
        let ndes = suite("POSTPKIOperation\nRenewal\nSHA-512\nSHA-256\nSHA-1\nDES3\n");
        assert_eq!((ndes.digest, ndes.cipher, ndes.post), (Digest::Sha256, ContentCipher::TripleDes, true));
        assert_eq!(ndes.accept, Accept { sha1: false, triple_des: true, des: false });
        assert_eq!(suite("sha-512\naes"), suite("AES\r\nSHA-512\r\n"));
        assert_eq!(suite("SHA-512").digest, Digest::Sha512);
        for legacy in ["", "<html><body>AES SHA-256 is not here</body>x", "Update\nfoo"] {
            let legacy = suite(legacy);
            assert!(!legacy.post || !legacy.accept.sha1, "{legacy:?}");
        }
        let empty = suite("");
        assert_eq!(
            (empty.cipher, empty.post, empty.accept),
            (ContentCipher::TripleDes, false, Accept::LEGACY)
        );
    }

    #[test]
    fn the_text_goes_both_ways() {
        let caps = Caps { aes: true, sha384: true, post: true, standard: true, ..Caps::default() };
        assert_eq!(Caps::parse(caps.to_text().as_bytes()), caps);
    }
}
