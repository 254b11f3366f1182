//! The messages of one sign-in over one connection.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use causeway_protocol::Secret;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue};
use http::{Method, StatusCode};

use super::{Auth, AuthError, Way, challenges};
use crate::dial::security::{
    self, Credentials, Login, Package, Proof, SecurityContext, SecurityContexts, SecurityError, Service,
};
use crate::web::connection::{Answer, Ask, Connection};
use crate::web::endpoint::Endpoint;
use crate::web::limits;

/// What a sign-in works with.
pub(crate) struct Shaking<'a> {
    pub(crate) endpoint: &'a Endpoint,
    pub(crate) names: Names<'a>,
    pub(crate) contexts: &'a dyn SecurityContexts,
    pub(crate) credentials: &'a Credentials,
    /// Fields of every request, cookies among them.
    pub(crate) headers: HeaderMap,
    /// How the real request is sent.
    pub(crate) method: Method,
    /// The first real request; travels with the last message unless it is to be sealed.
    pub(crate) body: Bytes,
    /// Whether the context is to seal what travels.
    pub(crate) seal: bool,
    pub(crate) within: Duration,
    pub(crate) max_bytes: usize,
}

/// Names that a sign-in by Kerberos needs.
#[derive(Clone, Copy)]
pub(crate) struct Names<'a> {
    /// Class of the server's principal name.
    pub(crate) spn_class: &'a str,
    /// Realm of the account, where it is not in the user name.
    pub(crate) realm: Option<&'a str>,
    /// KDCs of that realm, where they are not in DNS.
    pub(crate) kdcs: &'a [String],
}

/// A sign-in that worked.
pub(crate) struct Shaken {
    /// For sealing; over TLS there is nothing more to do with it.
    pub(crate) context: Box<dyn SecurityContext>,
    /// The answer to the real request, when that has gone out already.
    pub(crate) answer: Option<Answer>,
}

/// How an attempt by one way ends without success.
pub(crate) enum NotShaken {
    /// This way is not possible here; another may be.
    Another(String),
    /// There is nothing to be tried any more.
    Final(AuthError),
}

impl From<AuthError> for NotShaken {
    fn from(error: AuthError) -> Self {
        Self::Final(error)
    }
}

/// Signs in by one way that takes several messages.
pub(crate) async fn shake(
    with: &Shaking<'_>,
    connection: &mut Connection,
    way: Way,
    package: Package,
) -> Result<Shaken, NotShaken> {
    let service = Service {
        class: with.names.spn_class,
        host: &with.endpoint.host,
        seal: with.seal,
        binding: connection.binding(),
    };
    let login = Login {
        credentials: Some(with.credentials),
        kerberos_realm: with.names.realm,
        kerberos_kdcs: with.names.kdcs,
        negotiate_ntlm: way.auth != Auth::Kerberos,
    };
    let mut context =
        with.contexts.begin(package, &service, &login).map_err(|error| with.judged(way, error))?;
    let mut token = context.step(None).await.map_err(|error| with.judged(way, error))?;
    for _ in 0..limits::SIGN_IN_ROUNDS_MAX {
        let proof = Proof::of(&token);
        // Before the proof an answer is a 401 whatever the request says, so the body would only travel in vain.
        let carries = !with.seal && proof != Proof::None;
        let answer = with.post(connection, way, &token, carries).await?;
        let said = challenges(&answer.headers).into_iter().find(|challenge| challenge.is(way.header));
        let said = said.and_then(|challenge| challenge.token).and_then(|text| STANDARD.decode(text).ok());
        if answer.status != StatusCode::UNAUTHORIZED {
            // Where nothing is going to be sealed the server need not prove that it could open the ticket, and most say no
            // more than that they are content.
            if let Some(said) = said.filter(|_| with.seal && !context.is_complete()) {
                context.step(Some(&said)).await.map_err(|error| with.judged(way, error))?;
            }
            if with.seal && answer.status.is_success() && !context.is_complete() {
                return Err(with.broken(way, "it accepts us without proving who it is").into());
            }
            // What is no success here is the answer, whichever request it was for.
            let answer = (carries || !answer.status.is_success()).then_some(answer);
            return Ok(Shaken { context, answer });
        }
        match said {
            Some(said) if proof == Proof::Ticket && security::ticket_error(&said).is_some() => {
                return Err(with.ticket_refused(security::ticket_error(&said)));
            }
            Some(said) if !context.is_complete() && proof != Proof::Password => {
                if !connection.is_open() {
                    return Err(with.broken(way, "it closes the connection in the middle").into());
                }
                token = match context.step(Some(&said)).await {
                    Ok(token) if !token.is_empty() => token,
                    Ok(_) => return Err(NotShaken::Another("the server has no next message".into())),
                    Err(_) if proof == Proof::Ticket => return Err(with.ticket_refused(None)),
                    Err(error) => return Err(with.judged(way, error)),
                };
            }
            _ => return Err(with.not_accepted(way, proof)),
        }
    }
    Err(with.broken(way, "it asks again and again").into())
}

impl Shaking<'_> {
    async fn post(
        &self,
        connection: &mut Connection,
        way: Way,
        token: &[u8],
        carries: bool,
    ) -> Result<Answer, AuthError> {
        let mut headers = self.headers.clone();
        if !carries {
            headers.remove(CONTENT_TYPE);
        }
        headers.insert(AUTHORIZATION, authorization(way.header, token));
        let body = if carries { self.body.clone() } else { Bytes::new() };
        let request = Ask { method: self.method.clone(), headers, body };
        Ok(connection.send(self.endpoint, request, self.within, self.max_bytes).await?)
    }

    fn judged(&self, way: Way, error: SecurityError) -> NotShaken {
        let user = self.credentials.username.clone();
        match error {
            SecurityError::NotPossible { why } => NotShaken::Another(why),
            source @ SecurityError::Credentials { .. } => {
                NotShaken::Final(AuthError::RefusedByDirectory { user, scheme: way.auth, source })
            }
            other => NotShaken::Final(self.broken(way, &other.to_string())),
        }
    }

    fn not_accepted(&self, way: Way, proof: Proof) -> NotShaken {
        match proof {
            Proof::Password => NotShaken::Final(AuthError::Refused {
                server: self.endpoint.to_string(),
                user: self.credentials.username.clone(),
                scheme: way.auth,
            }),
            Proof::Ticket => self.ticket_refused(None),
            Proof::None => NotShaken::Another("the server offers it but does not go on with it".into()),
        }
    }

    /// The KDC knows the password, so another scheme does no harm with it.
    /// Codes of RFC 4120 §7.5.9.
    fn ticket_refused(&self, code: Option<u32>) -> NotShaken {
        let spn = format!("{}/{}", self.names.spn_class, self.endpoint.host);
        NotShaken::Another(match code {
            Some(37) => "its clock and ours differ by more than it allows (KRB_AP_ERR_SKEW)".to_owned(),
            Some(32 | 33) => format!("the ticket for {spn} is not valid now by its clock"),
            Some(35 | 41 | 45) => {
                format!(
                    "the server has no key for the ticket: another account than its own holds the name {spn}"
                )
            }
            Some(code) => format!("the server does not accept the ticket for {spn} (Kerberos error {code})"),
            None => format!(
                "the server does not accept the ticket for {spn}: another account holds that name, or a clock is wrong"
            ),
        })
    }

    fn broken(&self, way: Way, why: &str) -> AuthError {
        AuthError::Broken { server: self.endpoint.to_string(), scheme: way.auth, why: why.to_owned() }
    }
}

/// The field with a message in base64.
pub(crate) fn authorization(scheme: &str, token: &[u8]) -> HeaderValue {
    let text = format!("{scheme} {}", STANDARD.encode(token));
    let mut value = HeaderValue::from_str(&text).expect("base64 is visible ASCII");
    value.set_sensitive(true);
    value
}

/// The field with user name and password (RFC 7617).
pub(crate) fn basic(credentials: &Credentials) -> HeaderValue {
    let pair = Secret::new(format!("{}:{}", credentials.username, credentials.password.expose()));
    let text = Secret::new(format!("Basic {}", STANDARD.encode(pair.expose())));
    let mut value = HeaderValue::from_str(text.expose()).expect("base64 is visible ASCII");
    value.set_sensitive(true);
    value
}
