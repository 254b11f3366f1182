//! State of SASL (RFC 4513 section 5.2) and Sicily (MS-ADTS 5.1.1.1.3) exchanges, around the kit's NTLM.

use causeway_mock_kit::ntlm::{self, NtlmServer, ServerNames};
use causeway_mock_kit::spnego::Acceptor;

/// A multi-step exchange under way.
pub(crate) enum Exchange {
    Spnego(Box<Acceptor>),
    Sicily(Box<NtlmServer>),
}

/// What signs or seals everything after an NTLM bind.
pub(crate) struct SecurityLayer(ntlm::Session);

impl SecurityLayer {
    /// `None` when the client asked for neither signatures nor encryption.
    pub(crate) fn new(session: ntlm::Session) -> Option<Self> {
        (session.signs() || session.seals()).then_some(Self(session))
    }

    /// The clear text of one received buffer; `None` when its signature is wrong.
    pub(crate) fn open(&mut self, buffer: &[u8]) -> Option<Vec<u8>> {
        self.0.unwrap(buffer).ok()
    }

    pub(crate) fn seal(&mut self, clear: &[u8]) -> Vec<u8> {
        self.0.wrap(clear)
    }
}

/// The names a domain controller puts into its NTLM challenge.
pub(crate) fn server_names(domain: &str, netbios: &str, server: &str) -> ServerNames {
    ServerNames {
        netbios_domain: netbios.to_owned(),
        netbios_computer: server.to_ascii_uppercase(),
        dns_domain: domain.to_owned(),
        dns_computer: format!("{server}.{domain}"),
        dns_forest: domain.to_owned(),
    }
}
