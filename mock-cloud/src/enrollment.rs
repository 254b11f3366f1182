//! Enrolment: a one-time key becomes an agent with a certificate.

use causeway_protocol::Secret;
use causeway_protocol::channel::payload::{Certificate, CertificateRequest};
use xmpp_parsers::stanza_error::DefinedCondition;

use crate::channel::inbound::{Refused, journal};
use crate::channel::scram::Verifier;
use crate::events::kinds;
use crate::limits::HOST_MAX_BYTES;
use crate::pki::{AgentIdentity, Issued, RequestRefusal};
use crate::state::Cloud;
use crate::store::{Enrolled, NewAgent, NewEnrollmentKey, StoreError};

/// Characters of keys: no vowels that make words, nothing that looks like something else.
const ALPHABET: &[u8; 31] = b"23456789abcdefghjkmnpqrstuvwxyz";

/// Prefix of the text people copy.
const KEY_PREFIX: &str = "cw1";

/// Makes a key for one more agent of `tenant`, good until `expires_ms`: `cw1-<keyid>-<secret>`, to be shown once. Only
/// its verifier is stored.
///
/// # Errors
/// When the store fails.
pub async fn create_key(
    cloud: &Cloud,
    tenant: &str,
    expires_ms: i64,
    actor: &str,
) -> Result<Secret, StoreError> {
    let (id, secret) = (random_text(10), Secret::new(random_text(26)));
    let salt: [u8; 16] = rand::random();
    let verifier = Verifier::derive(secret.expose(), salt.to_vec());
    let key = Secret::new(format!("{KEY_PREFIX}-{id}-{}", secret.expose()));
    cloud
        .store
        .create_enrollment_key(tenant, NewEnrollmentKey { id, verifier, expires_ms }, actor, cloud.now_ms())
        .await?;
    Ok(key)
}

/// Signs the first certificate of an agent and uses the key up, in one transaction.
pub(crate) async fn enroll(
    cloud: &Cloud,
    tenant: &str,
    key: &str,
    request: CertificateRequest,
) -> Result<Certificate, Refused> {
    let identity = AgentIdentity { tenant: tenant.to_owned(), instance: cloud.ids.next().to_string() };
    let issued = issue(cloud, &identity, &request)?;
    let host = host(&request);
    let agent = NewAgent {
        identity: identity.clone(),
        host: host.clone(),
        serial: issued.serial.clone(),
        expires_ms: issued.expires_ms,
    };
    match cloud.store.enroll(key, agent, cloud.now_ms()).await.map_err(|error| Refused::store(&error))? {
        Enrolled::Done => {}
        Enrolled::KeyUsed => {
            let text = "the enrolment key was used in this moment by another agent";
            return Err(Refused::new(DefinedCondition::Conflict, text));
        }
    }
    let body = serde_json::json!({ "agent": identity.instance, "host": host });
    cloud.events.emit(tenant, kinds::AGENT_ENROLLED, body);
    journal(cloud, "enroll", &identity.instance, "signed", serde_json::json!({ "host": host }));
    Ok(certificate(cloud, identity, issued))
}

/// Signs a further certificate for an agent that has one.
pub(crate) async fn renew(
    cloud: &Cloud,
    identity: &AgentIdentity,
    request: CertificateRequest,
) -> Result<Certificate, Refused> {
    let issued = issue(cloud, identity, &request)?;
    let (serial, expires_ms) = (issued.serial.clone(), issued.expires_ms);
    cloud
        .store
        .renewed(identity, serial, expires_ms, cloud.now_ms())
        .await
        .map_err(|error| Refused::store(&error))?;
    journal(cloud, "renew", &identity.instance, "signed", serde_json::Value::Null);
    Ok(certificate(cloud, identity.clone(), issued))
}

fn issue(cloud: &Cloud, identity: &AgentIdentity, request: &CertificateRequest) -> Result<Issued, Refused> {
    let life = cloud.config.channel.certificate_life();
    cloud.pki.issue(&request.csr_pem, identity, &jid(cloud, identity), cloud.now_ms(), life).map_err(
        |refusal| {
            let condition = match refusal {
                RequestRefusal::Signing(_) => DefinedCondition::InternalServerError,
                RequestRefusal::Malformed | RequestRefusal::KeyKind => DefinedCondition::NotAcceptable,
            };
            Refused::new(condition, refusal.to_string())
        },
    )
}

fn certificate(cloud: &Cloud, identity: AgentIdentity, issued: Issued) -> Certificate {
    Certificate {
        chain_pem: issued.chain_pem,
        jid: jid(cloud, &identity),
        instance: identity.instance,
        tenant: identity.tenant,
    }
}

fn jid(cloud: &Cloud, identity: &AgentIdentity) -> String {
    format!("{}@{}", identity.instance, cloud.config.domain)
}

/// The host's name for people, cut to a sane length and without control characters.
fn host(request: &CertificateRequest) -> String {
    let mut name: String = request.host.chars().filter(|c| !c.is_control()).collect();
    let end = (0..=HOST_MAX_BYTES.min(name.len())).rev().find(|at| name.is_char_boundary(*at)).unwrap_or(0);
    name.truncate(end);
    name
}

/// `len` random characters.
fn random_text(len: usize) -> String {
    let bytes: Vec<u8> = (0..len).map(|_| rand::random::<u8>()).collect();
    // 31 letters, so a byte favours the first eight a little: 26 letters still hold 128 bits.
    bytes.iter().map(|byte| char::from(ALPHABET[usize::from(byte % 31)])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_have_no_separator_of_their_own() {
        for _ in 0..200 {
            let text = random_text(26);
            assert!(text.len() == 26 && text.bytes().all(|b| b.is_ascii_alphanumeric()), "{text}");
        }
    }

    #[test]
    fn host_names_are_cut_and_cleaned() {
        let request = |host: String| CertificateRequest { csr_pem: String::new(), host };
        assert_eq!(host(&request("srv\n1".into())), "srv1");
        assert_eq!(host(&request("é".repeat(400))).len(), HOST_MAX_BYTES / 2 * 2);
    }
}
