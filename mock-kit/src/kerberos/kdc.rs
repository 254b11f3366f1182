//! A small key distribution centre (RFC 4120 3.1, 3.3): passwords by encrypted timestamps, tickets for the services it
//! is told about, one realm, TCP. No renewal, forwarding, referrals or PAC.

use aws_lc_rs::constant_time::verify_slices_are_equal;
use md5::{Digest as _, Md5};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::crypto::{Enctype, Key, Usage};
use super::message::{
    ApRequest, Authenticator, Encrypted, Failure, KdcReply, KdcRequest, Name, Ticket, TicketPart, code,
    etype_info, padata,
};
use crate::KitContext;
use crate::der::{DerError, Reader, sequence, tag};
use crate::limits::{
    KDC_CLIENT_WITHIN, KDC_MESSAGE_MAX_BYTES, KERBEROS_SKEW_MAX_MS, KERBEROS_TICKET_LIFE_SECS,
};
use crate::listen;

/// Types of pre-authentication data (RFC 4120 7.5.2).
const PA_TGS: i64 = 1;
const PA_TIMESTAMP: i64 = 2;
const PA_ETYPE_INFO: i64 = 19;
/// `rsa-md5` (RFC 3961 6.1.2): without a key, yet inside what is sealed.
const MD5_CHECKSUM: i64 = 7;

/// Who has an account, as the KDC's owner knows it.
pub trait Accounts {
    /// The account of a login or user principal name.
    ///
    /// # Errors
    /// [`NoTicket`] when there is none, or it may not sign in.
    fn find(&self, name: &str) -> Result<Principal, NoTicket>;

    /// Somebody has shown a wrong password for it.
    fn wrong_password(&self, login: &str);

    /// Unix milliseconds.
    fn now_ms(&self) -> i64;
}

/// An account that may sign in.
pub struct Principal {
    /// Its name in tickets.
    pub login: String,
    /// What its key is made of.
    pub password: String,
}

/// Why an account gets no ticket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoTicket {
    /// There is none of that name.
    Unknown,
    /// It is locked, disabled, expired or not welcome at this hour.
    Revoked,
    /// Its password has expired or must be changed.
    PasswordExpired,
}

/// Gives tickets of one realm.
pub struct Kdc {
    realm: String,
    own: Key,
    /// Services by name in lower case, such as `http/mail1.acme.example`.
    services: Vec<(String, Key)>,
}

/// What the KDC says to a message.
pub struct Reply {
    /// To be sent.
    pub message: Vec<u8>,
    /// For journals: `as_req` or `tgs_req`, or nothing for what cannot be read.
    pub operation: &'static str,
    /// The name that asks for a first ticket, or the service somebody asks for.
    pub subject: String,
    /// Code of the KRB-ERROR (RFC 4120 7.5.9); none for a ticket.
    pub code: Option<i64>,
}

/// A refusal with its code, or a request that cannot be read.
enum No {
    Code(i64),
    /// Pre-authentication is needed; this is how.
    Methods(Vec<u8>),
}

impl From<DerError> for No {
    fn from(error: DerError) -> Self {
        tracing::debug!(%error, "Request to the KDC is malformed");
        Self::Code(code::GENERIC)
    }
}

impl Kdc {
    /// A realm, without services at first.
    pub fn new(realm: &str) -> Self {
        Self { realm: realm.to_owned(), own: Key::random(Enctype::Aes256), services: Vec::new() }
    }

    /// Adds a service, such as `HTTP/mail1.acme.example`, and its key.
    pub fn add_service(&mut self, name: &str, key: Key) {
        self.services.push((name.to_ascii_lowercase(), key));
    }

    /// The answer to a message.
    pub fn answer(&self, accounts: &dyn Accounts, message: &[u8]) -> Reply {
        let now_ms = accounts.now_ms();
        let request = KdcRequest::read(message);
        let (operation, subject) = match &request {
            Ok(request) => request.asks(),
            Err(_) => ("", String::new()),
        };
        let answered = match &request {
            Ok(request) if !request.realm.eq_ignore_ascii_case(&self.realm) => {
                Err(No::Code(code::WRONG_REALM))
            }
            Ok(request) if request.first => self.first(accounts, request, now_ms),
            Ok(request) => self.for_service(request, now_ms),
            Err(error) => Err((*error).into()),
        };
        let (code, methods) = match answered {
            Ok(message) => return Reply { message, operation, subject, code: None },
            Err(No::Code(code)) => (code, None),
            Err(No::Methods(methods)) => (code::PREAUTH_REQUIRED, Some(methods)),
        };
        let fallback = self.own_name();
        let service = request.as_ref().ok().and_then(|request| request.service.as_ref()).unwrap_or(&fallback);
        let message = Failure { code, now_ms, realm: &self.realm, service, methods }.write();
        Reply { message, operation, subject, code: Some(code) }
    }

    /// AS-REQ: a ticket for tickets.
    fn first(&self, accounts: &dyn Accounts, request: &KdcRequest, now_ms: i64) -> Result<Vec<u8>, No> {
        let asked = request.client.as_ref().ok_or(No::Code(code::CLIENT_UNKNOWN))?;
        let principal = accounts.find(&asked.text()).map_err(|why| {
            No::Code(match why {
                NoTicket::Unknown => code::CLIENT_UNKNOWN,
                NoTicket::Revoked => code::CLIENT_REVOKED,
                NoTicket::PasswordExpired => code::KEY_EXPIRED,
            })
        })?;
        if !request.service.as_ref().is_some_and(|service| service.is(&self.own_name())) {
            return Err(No::Code(code::SERVICE_UNKNOWN));
        }
        let enctype = preferred(&request.enctypes).ok_or(No::Code(code::NO_ENCTYPE))?;
        let salt = format!("{}{}", self.realm, principal.login);
        let info = padata(PA_ETYPE_INFO, &etype_info(enctype, &salt));
        let key = Key::of_password(enctype, &principal.password, &salt);
        let Some(proof) = request.padata(PA_TIMESTAMP) else {
            return Err(No::Methods(sequence(&[info, padata(PA_TIMESTAMP, &[])])));
        };
        let Ok(plain) = Encrypted::decode(proof)?.open(&key, Usage::Timestamp) else {
            accounts.wrong_password(&principal.login);
            return Err(No::Code(code::PREAUTH_FAILED));
        };
        let stamp_secs = read_timestamp(&plain)?;
        if now_ms.abs_diff(stamp_secs.saturating_mul(1000)) > KERBEROS_SKEW_MAX_MS.unsigned_abs() {
            return Err(No::Code(code::SKEW));
        }
        let part = self.part(enctype, Name::person(&principal.login), request, now_ms);
        let ticket = self.ticket(self.own_name(), &self.own, &part);
        let reply = KdcReply {
            first: true,
            padata: Some(sequence(&[info])),
            nonce: request.nonce,
            ticket: &ticket,
            part: &part,
        };
        Ok(reply.write(&key, Usage::AsReply))
    }

    /// TGS-REQ: a ticket for a service, for who has one for tickets.
    fn for_service(&self, request: &KdcRequest, now_ms: i64) -> Result<Vec<u8>, No> {
        let shown = request.padata(PA_TGS).ok_or(No::Code(code::GENERIC))?;
        let shown = ApRequest::read(shown)?;
        let own = shown.ticket.sealed.open(&self.own, Usage::Ticket).map_err(|_| No::Code(code::MODIFIED))?;
        let first = TicketPart::read(&own)?.ok_or(No::Code(code::NO_ENCTYPE))?;
        if first.end_secs.saturating_mul(1000) < now_ms {
            return Err(No::Code(code::TICKET_EXPIRED));
        }
        let opened = shown.authenticator.open(&first.key, Usage::TgsAuthenticator);
        let authenticator = Authenticator::read(&opened.map_err(|_| No::Code(code::MODIFIED))?)?;
        if !authenticator.client.is(&first.client) {
            return Err(No::Code(code::BAD_MATCH));
        }
        if now_ms.abs_diff(authenticator.secs.saturating_mul(1000)) > KERBEROS_SKEW_MAX_MS.unsigned_abs() {
            return Err(No::Code(code::SKEW));
        }
        if !covers(&authenticator, &first.key, &request.body) {
            return Err(No::Code(code::BAD_CHECKSUM));
        }
        let service = request.service.clone().ok_or(No::Code(code::SERVICE_UNKNOWN))?;
        let name = service.text().to_ascii_lowercase();
        let found = self.services.iter().find(|(known, _)| *known == name);
        let (_, key) = found.ok_or(No::Code(code::SERVICE_UNKNOWN))?;
        let enctype = preferred(&request.enctypes).ok_or(No::Code(code::NO_ENCTYPE))?;
        let part = self.part(enctype, first.client, request, now_ms);
        let ticket = self.ticket(service, key, &part);
        let reply =
            KdcReply { first: false, padata: None, nonce: request.nonce, ticket: &ticket, part: &part };
        Ok(match &authenticator.subkey {
            Some(subkey) => reply.write(subkey, Usage::TgsReplySubkey),
            None => reply.write(&first.key, Usage::TgsReply),
        })
    }

    fn own_name(&self) -> Name {
        Name::service(&["krbtgt", &self.realm])
    }

    fn part(&self, enctype: Enctype, client: Name, request: &KdcRequest, now_ms: i64) -> TicketPart {
        let now_secs = now_ms.div_euclid(1000);
        let end_secs = request.till_secs.clamp(now_secs, now_secs + KERBEROS_TICKET_LIFE_SECS);
        let (key, realm) = (Key::random(enctype), self.realm.clone());
        TicketPart { key, realm, client, start_secs: now_secs, end_secs }
    }

    fn ticket(&self, service: Name, key: &Key, part: &TicketPart) -> Ticket {
        let sealed = Encrypted::new(key, Usage::Ticket, &part.write());
        Ticket { realm: self.realm.clone(), service, sealed }
    }
}

/// The client's first choice among what is known.
fn preferred(enctypes: &[i64]) -> Option<Enctype> {
    enctypes.iter().find_map(|number| Enctype::numbered(*number))
}

/// PA-ENC-TS-ENC (RFC 4120 5.2.7.2).
fn read_timestamp(plain: &[u8]) -> Result<i64, DerError> {
    let mut fields = Reader(plain).enter(tag::SEQUENCE, "PA-ENC-TS-ENC")?;
    fields.field(0, "patimestamp")?.time("patimestamp")
}

/// Whether the authenticator's checksum is one of this request.
fn covers(authenticator: &Authenticator, key: &Key, body: &[u8]) -> bool {
    match &authenticator.checksum {
        Some((MD5_CHECKSUM, value)) => verify_slices_are_equal(&Md5::digest(body), value).is_ok(),
        Some((kind, value)) if *kind == key.enctype().checksum_number() => {
            verify_slices_are_equal(&key.checksum(Usage::TgsChecksum, body), value).is_ok()
        }
        _ => false,
    }
}

/// Serves a KDC on a listener (RFC 4120 7.2.2): each message, and what `answer` makes of it, has its length before it.
pub fn serve_kdc<F>(listener: TcpListener, name: &'static str, cx: KitContext, answer: F) -> JoinHandle<()>
where
    F: Fn(&[u8]) -> Vec<u8> + Clone + Send + Sync + 'static,
{
    listen::serve(listener, name, cx, move |mut stream, peer| {
        let answer = answer.clone();
        async move {
            // A client that hangs up, goes silent or sends rubbish has nothing more to expect.
            while let Ok(Ok(Some(message))) = timeout(KDC_CLIENT_WITHIN, read(&mut stream)).await {
                let answer = answer(&message);
                let length = u32::try_from(answer.len()).expect("an answer is small");
                let framed = [&length.to_be_bytes()[..], &answer].concat();
                if let Err(error) = stream.write_all(&framed).await {
                    tracing::debug!(%error, %peer, "Connection to the KDC ended");
                    break;
                }
            }
        }
    })
}

/// One message; `None` for a length nobody sends.
async fn read(stream: &mut (impl AsyncReadExt + Unpin)) -> std::io::Result<Option<Vec<u8>>> {
    let length = usize::try_from(stream.read_u32().await?).unwrap_or(usize::MAX);
    if length > KDC_MESSAGE_MAX_BYTES {
        return Ok(None);
    }
    let mut message = vec![0; length];
    stream.read_exact(&mut message).await?;
    Ok(Some(message))
}
