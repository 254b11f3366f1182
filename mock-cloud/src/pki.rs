//! The cloud's certificate authority: it signs agents' keys and judges the certificates clients present.
//!
//! TLS itself accepts any client certificate whose key the client has. Whether it is ours, in date and not revoked is
//! judged afterwards, with words: a TLS alert cannot tell an administrator what to do, a SASL failure can.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use causeway_mock_kit::pki::{TestCa, provider};
use causeway_protocol::channel::{ALPN_H2, ALPN_HTTP1, ALPN_XMPP, ID_ON_XMPP_ADDR, IDENTITY_URI_PREFIX};
use rcgen::string::Ia5String;
use rcgen::{
    CertificateParams, CertificateSigningRequestParams, DnType, ExtendedKeyUsagePurpose, KeyUsagePurpose,
    OtherNameValue, SanType, SerialNumber,
};
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, ServerConfig, SignatureScheme};
use rustls_pki_types::{CertificateDer, UnixTime};
use thiserror::Error;
use time::OffsetDateTime;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// How long before its issue a certificate begins to be valid.
const GRACE: Duration = Duration::from_secs(3_600);

/// Who an agent is.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AgentIdentity {
    /// Tenant id.
    pub tenant: String,
    /// Instance id.
    pub instance: String,
}

/// The authority could not be set up.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum PkiError {
    /// The authority's files cannot be used.
    #[error("open the cloud's certificate authority")]
    Authority(#[source] causeway_mock_kit::pki::PkiError),
    /// The verifier of client certificates could not be built.
    #[error("set up verification of client certificates")]
    Verifier(#[source] rustls::server::VerifierBuilderError),
}

/// Why a client certificate is not accepted. The text is sent to the client.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Refusal {
    /// Its time is over.
    #[error("the certificate has expired; enrol this agent again with a new enrolment key")]
    Expired,
    /// Its time has not begun: one of the two clocks is wrong.
    #[error("the certificate is not valid yet; check the clock of the agent's host")]
    NotYetValid,
    /// Somebody else signed it.
    #[error("the certificate was not issued by this cloud")]
    Foreign,
    /// It is ours but names no agent.
    #[error("the certificate names no agent of this cloud")]
    NoAgent,
    /// The agent has shown a newer one.
    #[error(
        "the certificate was replaced by a newer one; this is an old copy of the agent's files, enrol it again with a new enrolment key"
    )]
    Superseded,
    /// The agent was revoked.
    #[error("the certificate is revoked; enrol this agent again with a new enrolment key")]
    Revoked,
    /// It was issued by us but the agent is not known here any more.
    #[error("the agent is not known to this cloud; enrol it again with a new enrolment key")]
    UnknownAgent,
}

/// Why a key is not signed. The text is sent to the client.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RequestRefusal {
    /// Not a PKCS#10 request, or its signature is wrong.
    #[error("the certificate request cannot be read or is not signed by its own key")]
    Malformed,
    /// A kind of key we do not sign.
    #[error("the key is not ECDSA P-256, ECDSA P-384 or Ed25519")]
    KeyKind,
    /// Signing failed.
    #[error("sign certificate")]
    Signing(#[source] rcgen::Error),
}

/// A signed certificate.
#[derive(Clone, Debug)]
pub struct Issued {
    /// Leaf, then the authority, in PEM.
    pub chain_pem: String,
    /// Serial number in hex.
    pub serial: String,
    /// End of validity, Unix milliseconds.
    pub expires_ms: i64,
}

/// The certificate authority and what is made from it.
pub struct CloudPki {
    ca: TestCa,
    verifier: Arc<dyn ClientCertVerifier>,
    server_names: Vec<String>,
}

impl CloudPki {
    /// Opens the authority kept in `dir`, or makes one there. `server_names` are the DNS names and addresses of the
    /// public port besides loopback.
    ///
    /// # Errors
    /// When the files are damaged or cannot be written.
    pub fn open(dir: &Path, server_names: Vec<String>) -> Result<Self, PkiError> {
        let ca = TestCa::open_or_create(dir, "Causeway cloud CA").map_err(PkiError::Authority)?;
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(ca.roots()), provider())
            .build()
            .map_err(PkiError::Verifier)?;
        Ok(Self { ca, verifier, server_names })
    }

    /// File with the authority's certificate.
    pub fn ca_path(&self) -> &Path {
        self.ca.pem_path()
    }

    /// The authority's certificate in PEM.
    pub fn ca_pem(&self) -> &str {
        self.ca.ca_pem()
    }

    /// Whether the public port answers to this name.
    pub fn serves_name(&self, name: &str) -> bool {
        const ALWAYS: [&str; 3] = ["localhost", "127.0.0.1", "::1"];
        let bare = name.trim_start_matches('[').trim_end_matches(']');
        ALWAYS.contains(&bare) || self.server_names.iter().any(|own| own.eq_ignore_ascii_case(bare))
    }

    /// TLS settings of the public port: all its protocols by ALPN, client certificates asked for but not needed.
    ///
    /// # Errors
    /// When a server name is not one.
    pub fn server_config(&self) -> Result<Arc<ServerConfig>, PkiError> {
        let names: Vec<&str> = self.server_names.iter().map(String::as_str).collect();
        let asking = Arc::new(AskOnly {
            algorithms: provider().signature_verification_algorithms,
            // Browsers offer only certificates of the authorities named here, so the portal's visitors are not asked.
            hints: self.verifier.root_hint_subjects().to_vec(),
        });
        let config = self
            .ca
            .server_config_requesting_clients(&names, &[ALPN_XMPP, ALPN_H2, ALPN_HTTP1], asking)
            .map_err(PkiError::Authority)?;
        let mut config = Arc::unwrap_or_clone(config);
        // AES-256-GCM first, whatever the client prefers.
        config.ignore_client_order = true;
        // No resumption: a resumed TLS session would carry a certificate judged in the past, and the cache costs
        // memory per session.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(Arc::new(config))
    }

    /// Judges a presented chain at `now_ms`. Revocation is not known here; see `Cloud::admit`.
    ///
    /// # Errors
    /// [`Refusal`], in words for the client.
    pub fn judge(&self, chain: &[CertificateDer<'_>], now_ms: i64) -> Result<AgentIdentity, Refusal> {
        let (leaf, rest) = chain.split_first().ok_or(Refusal::NoAgent)?;
        let now = UnixTime::since_unix_epoch(Duration::from_millis(now_ms.unsigned_abs()));
        self.verifier.verify_client_cert(leaf, rest, now).map_err(|error| match error {
            rustls::Error::InvalidCertificate(
                CertificateError::Expired | CertificateError::ExpiredContext { .. },
            ) => Refusal::Expired,
            rustls::Error::InvalidCertificate(
                CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. },
            ) => Refusal::NotYetValid,
            rustls::Error::InvalidCertificate(
                CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. },
            ) => Refusal::NoAgent,
            _ => Refusal::Foreign,
        })?;
        identity_in(leaf).ok_or(Refusal::NoAgent)
    }

    /// Signs the key of a request. Nothing but the public key is taken from it; the names are ours.
    ///
    /// # Errors
    /// [`RequestRefusal`], in words for the client.
    pub fn issue(
        &self,
        csr_pem: &str,
        identity: &AgentIdentity,
        jid: &str,
        now_ms: i64,
        life: Duration,
    ) -> Result<Issued, RequestRefusal> {
        let request =
            CertificateSigningRequestParams::from_pem(csr_pem).map_err(|_| RequestRefusal::Malformed)?;
        let kinds = [&rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_ECDSA_P384_SHA384, &rcgen::PKCS_ED25519];
        if !kinds.contains(&request.public_key.algorithm()) {
            return Err(RequestRefusal::KeyKind);
        }
        let serial: [u8; 16] = {
            let mut bytes: [u8; 16] = rand::random();
            // Positive and not zero (RFC 5280 §4.1.2.2).
            bytes[0] = bytes[0] & 0x7f | 0x01;
            bytes
        };
        let now = OffsetDateTime::from_unix_timestamp(now_ms / 1_000).unwrap_or(OffsetDateTime::UNIX_EPOCH);
        let ends = now + life;
        // An hour of grace for hosts whose clock is a little behind; less for a certificate that lives shorter, so
        // that its holder does not take it for an old one.
        let begins = now - GRACE.min(life / 10);
        let params = leaf_params(identity, jid, begins, ends, &serial).map_err(RequestRefusal::Signing)?;
        let leaf =
            params.signed_by(&request.public_key, self.ca.issuer()).map_err(RequestRefusal::Signing)?;
        Ok(Issued {
            chain_pem: format!("{}{}", leaf.pem(), self.ca.ca_pem()),
            serial: hex(&serial),
            expires_ms: ends.unix_timestamp() * 1_000,
        })
    }
}

fn leaf_params(
    identity: &AgentIdentity,
    jid: &str,
    begins: OffsetDateTime,
    ends: OffsetDateTime,
    serial: &[u8],
) -> Result<CertificateParams, rcgen::Error> {
    let uri = format!("{IDENTITY_URI_PREFIX}{}/agent/{}", identity.tenant, identity.instance);
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, identity.instance.as_str());
    params.subject_alt_names = vec![
        SanType::URI(Ia5String::try_from(uri)?),
        SanType::OtherName((ID_ON_XMPP_ADDR.to_vec(), OtherNameValue::Utf8String(jid.to_owned()))),
    ];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params.use_authority_key_identifier_extension = true;
    params.serial_number = Some(SerialNumber::from_slice(serial));
    params.not_before = begins;
    params.not_after = ends;
    Ok(params)
}

/// Reads `causeway:tenant/<t>/agent/<a>` out of the certificate's URI SAN.
fn identity_in(leaf: &CertificateDer<'_>) -> Option<AgentIdentity> {
    let (_, certificate) = X509Certificate::from_der(leaf).ok()?;
    let names = certificate.subject_alternative_name().ok()??;
    names.value.general_names.iter().find_map(|name| match name {
        GeneralName::URI(uri) => {
            let (tenant, instance) = uri.strip_prefix(IDENTITY_URI_PREFIX)?.split_once("/agent/")?;
            Some(AgentIdentity { tenant: tenant.to_owned(), instance: instance.to_owned() })
        }
        _ => None,
    })
}

/// Serial number of a certificate, as [`Issued::serial`] spells it.
pub(crate) fn serial_of(certificate: &CertificateDer<'_>) -> Option<String> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    Some(hex(certificate.raw_serial()))
}

/// Lower case hex.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut out, byte| {
        let _ = write!(out, "{byte:02x}");
        out
    })
}

/// Asks for a client certificate and checks only that the client has its key.
#[derive(Debug)]
struct AskOnly {
    algorithms: WebPkiSupportedAlgorithms,
    hints: Vec<DistinguishedName>,
}

impl ClientCertVerifier for AskOnly {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.hints
    }

    fn verify_client_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use causeway_mock_kit::pki::LeafUse;
    use rcgen::KeyPair;
    use rustls_pki_types::pem::PemObject as _;

    const NOW_MS: i64 = 1_790_000_000_000;
    const NINETY_DAYS: Duration = Duration::from_secs(90 * 86_400);

    fn pki(dir: &tempfile::TempDir) -> CloudPki {
        CloudPki::open(dir.path(), vec!["cloud.causeway.test".into()]).unwrap()
    }

    fn who() -> AgentIdentity {
        AgentIdentity { tenant: "t1".into(), instance: "i1".into() }
    }

    fn request() -> String {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["evil.example".to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, "root");
        params.serialize_request(&key).unwrap().pem().unwrap()
    }

    #[test]
    fn only_the_key_is_taken_from_a_request() {
        let dir = tempfile::tempdir().unwrap();
        let pki = pki(&dir);
        let issued = pki.issue(&request(), &who(), "i1@cloud.causeway.test", NOW_MS, NINETY_DAYS).unwrap();
        let chain: Vec<_> =
            CertificateDer::pem_slice_iter(issued.chain_pem.as_bytes()).map(Result::unwrap).collect();
        assert_eq!(chain.len(), 2);
        assert_eq!(pki.judge(&chain, NOW_MS), Ok(who()));
        let text = String::from_utf8_lossy(&chain[0]).into_owned();
        assert!(!text.contains("evil.example") && text.contains("i1@cloud.causeway.test"), "{text:?}");
        let day_ms = 86_400_000;
        assert_eq!(pki.judge(&chain, NOW_MS + 91 * day_ms), Err(Refusal::Expired));
        assert_eq!(pki.judge(&chain, NOW_MS - day_ms), Err(Refusal::NotYetValid));
        assert_eq!(issued.expires_ms, NOW_MS + 90 * day_ms);
        assert_eq!(serial_of(&chain[0]), Some(issued.serial));
    }

    #[test]
    fn foreign_and_purposeless_certificates_are_refused_in_words() {
        let dir = tempfile::tempdir().unwrap();
        let pki = pki(&dir);
        let now_ms = OffsetDateTime::now_utc().unix_timestamp() * 1_000;
        let foreign = TestCa::new("someone else").unwrap().issue_leaf(&["x"], LeafUse::Client).unwrap();
        assert_eq!(pki.judge(&[foreign.cert], now_ms), Err(Refusal::Foreign));
        let server = pki.ca.issue_leaf(&["x"], LeafUse::Server).unwrap();
        assert_eq!(pki.judge(&[server.cert], now_ms), Err(Refusal::NoAgent));
        let nameless = pki.ca.issue_leaf(&["x"], LeafUse::Client).unwrap();
        assert_eq!(pki.judge(&[nameless.cert], now_ms), Err(Refusal::NoAgent));
        assert_eq!(pki.judge(&[], now_ms), Err(Refusal::NoAgent));
    }

    #[test]
    fn unreadable_requests_and_weak_keys_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let pki = pki(&dir);
        assert!(matches!(
            pki.issue("nonsense", &who(), "j", NOW_MS, NINETY_DAYS),
            Err(RequestRefusal::Malformed)
        ));
    }

    #[test]
    fn the_authority_survives_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let first = pki(&dir).ca_pem().to_owned();
        assert_eq!(pki(&dir).ca_pem(), first);
        assert!(pki(&dir).serves_name("CLOUD.causeway.test") && pki(&dir).serves_name("[::1]"));
        assert!(!pki(&dir).serves_name("other.test"));
    }
}
