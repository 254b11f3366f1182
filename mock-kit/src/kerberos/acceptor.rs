//! A service that takes tickets (RFC 4120 3.2, RFC 4121 4.1).

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use aws_lc_rs::digest;

use super::crypto::{Key, Usage};
use super::message::{ApRequest, Authenticator, Failure, TicketPart, ap_reply, code};
use super::{KerberosError, Keytab, OID, OID_OF_WINDOWS, Session};
use crate::der::{Reader, element, tag};
use crate::limits::{KERBEROS_REPLAYS_MAX, KERBEROS_SKEW_MAX_MS, SPNEGO_TOKEN_MAX_BYTES};

/// `TOK_ID` of the messages of a context (RFC 4121 4.1).
const AP_REQUEST: [u8; 2] = [1, 0];
const AP_REPLY: [u8; 2] = [2, 0];
const ERROR: [u8; 2] = [3, 0];

/// Type of the checksum that carries flags and channel bindings (RFC 4121 4.1.1).
const GSS_CHECKSUM: i64 = 0x8003;

/// Takes tickets for the services in a keytab. One for all connections: it remembers what it has seen.
pub struct Service {
    keytab: Keytab,
    /// Digests of authenticators, and when they were made: each may be shown once (RFC 4120 3.2.3).
    seen: Mutex<VecDeque<(i64, [u8; 32])>>,
}

/// A client that has proven who it is.
pub struct Accepted {
    /// Its name without the realm.
    pub login: String,
    /// Its realm.
    pub realm: String,
    /// MD5 of the channel bindings it was told about (RFC 4121 4.1.1.2).
    pub channel_bindings: Option<[u8; 16]>,
    /// What it wants to see, if it wants a proof of ours.
    pub reply: Option<Vec<u8>>,
    /// For the messages that follow.
    pub session: Session,
}

/// Why a token is not accepted, before it is put in a message.
struct No {
    code: i64,
    why: &'static str,
}

const fn no(code: i64, why: &'static str) -> No {
    No { code, why }
}

impl Service {
    /// With these keys.
    pub fn new(keytab: Keytab) -> Self {
        Self { keytab, seen: Mutex::default() }
    }

    /// Takes a client's first and only token. `now_ms` is Unix time.
    ///
    /// # Errors
    /// [`KerberosError`]; where there is a reply, the client is waiting for it.
    pub fn accept(&self, token: &[u8], now_ms: i64) -> Result<Accepted, KerberosError> {
        if token.len() > SPNEGO_TOKEN_MAX_BYTES {
            return Err(KerberosError::TooLarge { size_bytes: token.len() });
        }
        let inside = unframed(token).ok_or(KerberosError::Malformed { at: "InitialContextToken" })?;
        let bytes = inside.strip_prefix(&AP_REQUEST).ok_or(KerberosError::Malformed { at: "TOK_ID" })?;
        let request = ApRequest::read(bytes)?;
        let refused = |No { code, why }| {
            tracing::debug!(service = request.ticket.service.text(), why, "Kerberos ticket refused");
            let (realm, service) = (request.ticket.realm.as_str(), &request.ticket.service);
            let message = Failure { code, now_ms, realm, service, methods: None }.write();
            KerberosError::Refused { why, reply: framed(ERROR, &message) }
        };
        let part = self.ticket(&request, now_ms)?.map_err(refused)?;
        let authenticator = self.authenticator(&request, &part, now_ms)?.map_err(refused)?;
        let checksum = match &authenticator.checksum {
            Some((GSS_CHECKSUM, value)) if value.len() >= 24 => value.clone(),
            _ => return Err(refused(no(code::BAD_CHECKSUM, "no checksum of the context's flags"))),
        };
        let bindings: [u8; 16] = checksum[4..20].try_into().expect("sixteen bytes");
        let own = request.mutual.then(|| Key::random(part.key.enctype()));
        let number = first_number();
        let reply =
            own.as_ref().map(|subkey| framed(AP_REPLY, &ap_reply(&part.key, &authenticator, subkey, number)));
        let own_subkey = own.is_some();
        let key = own.or(authenticator.subkey).unwrap_or(part.key);
        let (incoming, outgoing) = (authenticator.sequence, u64::from(number));
        Ok(Accepted {
            login: part.client.text(),
            realm: part.realm,
            channel_bindings: (bindings != [0; 16]).then_some(bindings),
            reply,
            session: Session { key, own_subkey, incoming, outgoing },
        })
    }

    /// What the KDC has sealed for us.
    fn ticket(&self, request: &ApRequest, now_ms: i64) -> Result<Result<TicketPart, No>, KerberosError> {
        let ticket = &request.ticket;
        let mut known = false;
        let opened = self.keytab.keys(&ticket.service.text(), &ticket.realm).find_map(|key| {
            known = true;
            ticket.sealed.open(key, Usage::Ticket).ok()
        });
        let Some(plain) = opened else {
            return Ok(Err(match known {
                true => no(code::MODIFIED, "the ticket is sealed with another key"),
                false => no(code::NO_KEY, "no key for the ticket's service"),
            }));
        };
        let Some(part) = TicketPart::read(&plain)? else {
            return Ok(Err(no(code::NO_ENCTYPE, "the ticket's session key is of no known type")));
        };
        let now_secs = now_ms.div_euclid(1000);
        let skew_secs = KERBEROS_SKEW_MAX_MS / 1000;
        Ok(match () {
            () if part.end_secs + skew_secs < now_secs => {
                Err(no(code::TICKET_EXPIRED, "the ticket has expired"))
            }
            () if part.start_secs > now_secs + skew_secs => {
                Err(no(code::TICKET_NOT_YET_VALID, "the ticket is not valid yet"))
            }
            () => Ok(part),
        })
    }

    fn authenticator(
        &self,
        request: &ApRequest,
        part: &TicketPart,
        now_ms: i64,
    ) -> Result<Result<Authenticator, No>, KerberosError> {
        let Ok(plain) = request.authenticator.open(&part.key, Usage::Authenticator) else {
            return Ok(Err(no(code::MODIFIED, "the authenticator does not open")));
        };
        let authenticator = Authenticator::read(&plain)?;
        let same = authenticator.client.is(&part.client) && authenticator.realm == part.realm;
        let at_ms = authenticator.secs.saturating_mul(1000).saturating_add(authenticator.micros / 1000);
        Ok(match () {
            () if !same => Err(no(code::BAD_MATCH, "ticket and authenticator name different clients")),
            () if now_ms.abs_diff(at_ms) > KERBEROS_SKEW_MAX_MS.unsigned_abs() => {
                Err(no(code::SKEW, "the client's clock differs too much"))
            }
            () if !self.is_new(&plain, at_ms, now_ms) => {
                Err(no(code::REPEATED, "the request was seen before"))
            }
            () => Ok(authenticator),
        })
    }

    fn is_new(&self, authenticator: &[u8], at_ms: i64, now_ms: i64) -> bool {
        let digest = digest::digest(&digest::SHA256, authenticator);
        let digest: [u8; 32] = digest.as_ref().try_into().expect("sha-256 has 32 bytes");
        // A panic in between would leave a list that is whole.
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.retain(|(made_ms, _)| now_ms.abs_diff(*made_ms) <= KERBEROS_SKEW_MAX_MS.unsigned_abs());
        if seen.iter().any(|(_, known)| *known == digest) {
            return false;
        }
        if seen.len() == KERBEROS_REPLAYS_MAX {
            seen.pop_front();
        }
        seen.push_back((at_ms, digest));
        true
    }
}

/// Whether a token is Kerberos's own, without SPNEGO around it.
pub(crate) fn is_kerberos(token: &[u8]) -> bool {
    unframed(token).is_some()
}

/// What follows the mechanism in a first token (RFC 2743 3.1).
fn unframed(token: &[u8]) -> Option<&[u8]> {
    let mut inside = Reader(token).enter(tag::application(0), "InitialContextToken").ok()?;
    let mechanism = inside.take(tag::OID, "thisMech").ok()?;
    (mechanism == OID || mechanism == OID_OF_WINDOWS).then_some(inside.0)
}

fn framed(kind: [u8; 2], message: &[u8]) -> Vec<u8> {
    element(tag::application(0), &[&element(tag::OID, OID)[..], &kind, message].concat())
}

/// Where our numbers start: below half, as old clients read them signed.
fn first_number() -> u32 {
    let mut bytes = [0; 4];
    aws_lc_rs::rand::fill(&mut bytes).expect("the system's random source answers");
    u32::from_be_bytes(bytes) >> 2
}
