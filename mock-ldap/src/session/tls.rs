//! What a TLS connection says about its client.

use std::sync::Arc;

use causeway_mock_kit::ntlm::{channel_binding_hash, tls_server_end_point};
use causeway_mock_kit::pki::{LeafUse, PkiError, TestCa, provider};
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::Session;
use crate::dit::Identity;
use crate::personality::Vendor;

/// OID of the user principal name in a subject alternative name (MS-PKCA 3.1.5.2.1.3).
const UPN_OTHER_NAME: &str = "1.3.6.1.4.1.311.20.2.3";

/// TLS settings of every port and of StartTLS, and the channel binding NTLM clients must show (RFC 5929 section 4). A client
/// certificate is asked for, not demanded; it must come from the mock's own authority.
pub(crate) fn server_config(
    ca: &TestCa,
    names: &[String],
) -> Result<(Arc<ServerConfig>, [u8; 16]), PkiError> {
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let leaf = ca.issue_leaf(&names, LeafUse::Server)?;
    let channel_binding = channel_binding_hash(&tls_server_end_point(&leaf.cert));
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(ca.roots()), provider())
        .allow_unauthenticated()
        .build()
        .expect("the authority's own certificate is a usable trust anchor");
    Ok((ca.server_config_with(leaf, &[], Some(verifier))?, channel_binding))
}

/// Short names of the attributes that occur in subjects (RFC 4514 section 3).
const DN_ATTRIBUTES: [(&str, &str); 8] = [
    ("2.5.4.3", "CN"),
    ("2.5.4.6", "C"),
    ("2.5.4.7", "L"),
    ("2.5.4.8", "ST"),
    ("2.5.4.10", "O"),
    ("2.5.4.11", "OU"),
    ("0.9.2342.19200300.100.1.1", "UID"),
    ("0.9.2342.19200300.100.1.25", "DC"),
];

impl Session {
    /// Active Directory binds the owner of a client certificate without a bind request (MS-ADTS 5.1.1.1.2); others
    /// wait for SASL EXTERNAL.
    pub(super) fn adopt_certificate(&mut self) {
        if self.front.tls
            && self.directory.personality().vendor == Vendor::ActiveDirectory
            && let Some(identity) = self.certificate_identity()
        {
            self.trusted = true;
            self.who = identity;
        }
    }

    /// Whom the client's certificate names.
    pub(super) fn certificate_identity(&self) -> Option<Identity> {
        let der = self.wire.client_certificate()?;
        let (_, certificate) = X509Certificate::from_der(&der).ok()?;
        let subject = subject_dn(&certificate);
        self.replica.identity_of_certificate(&subject, upn(&certificate).as_deref())
    }
}

/// The subject as an LDAP DN (RFC 4514): certificates write the outermost part first, LDAP last.
fn subject_dn(certificate: &X509Certificate<'_>) -> String {
    let rdns: Vec<String> = certificate
        .subject()
        .iter_rdn()
        .map(|rdn| {
            let parts = rdn.iter().map(|part| {
                let oid = part.attr_type().to_id_string();
                let name = DN_ATTRIBUTES
                    .iter()
                    .find(|(known, _)| *known == oid)
                    .map_or(oid.as_str(), |(_, name)| name);
                format!("{name}={}", escaped(part.as_str().unwrap_or_default()))
            });
            parts.collect::<Vec<_>>().join("+")
        })
        .collect();
    rdns.into_iter().rev().collect::<Vec<_>>().join(",")
}

fn escaped(value: &str) -> String {
    value.chars().fold(String::new(), |mut text, char| {
        if r#",+"\<>;=#"#.contains(char) {
            text.push('\\');
        }
        text.push(char);
        text
    })
}

fn upn(certificate: &X509Certificate<'_>) -> Option<String> {
    let names = certificate.subject_alternative_name().ok()??;
    names.value.general_names.iter().find_map(|name| match name {
        GeneralName::OtherName(oid, value) if oid.to_id_string() == UPN_OTHER_NAME => utf8_string(value),
        _ => None,
    })
}

/// The UTF8String inside `[0] EXPLICIT`.
fn utf8_string(value: &[u8]) -> Option<String> {
    let mut reader = crate::ber::Reader::new(value);
    let mut inner = reader.nested(0xa0).ok()?;
    String::from_utf8(inner.expect(0x0c).ok()?.to_vec()).ok()
}
