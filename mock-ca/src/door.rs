//! Windows authentication in front of web pages: Basic for each request, NTLM and Negotiate once for a connection
//! (MS-NTHT, RFC 4559).

use axum::body::Body;
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use causeway_mock_kit::ntlm::{self, Claim, NtHash, NtlmServer, ServerNames};
use causeway_mock_kit::spnego::{Acceptor, Step};
use http::header::{AUTHORIZATION, CONNECTION, HeaderMap, HeaderValue, WWW_AUTHENTICATE};
use http::{StatusCode, header};
use serde::{Deserialize, Serialize};

use crate::accounts::{Account, Accounts};
use crate::serve::Connection;
use crate::server::Shared;

/// Schemes a front end offers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DoorConfig {
    /// Default true.
    pub negotiate: bool,
    /// Default true.
    pub ntlm: bool,
    /// On Windows only where an administrator switched it on. Default true, because it is what simple clients speak.
    pub basic: bool,
}

impl Default for DoorConfig {
    fn default() -> Self {
        Self { negotiate: true, ntlm: true, basic: true }
    }
}

/// What one connection has proven so far.
#[derive(Default)]
pub(crate) enum Guest {
    #[default]
    Unknown,
    /// A challenge is on its way.
    Asked(Scheme, Box<Acceptor>),
    /// NTLM has authenticated the connection.
    Known(Account),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scheme {
    Negotiate,
    Ntlm,
    Basic,
}

impl Scheme {
    const ALL: [Self; 3] = [Self::Negotiate, Self::Ntlm, Self::Basic];

    fn word(self) -> &'static str {
        match self {
            Self::Negotiate => "Negotiate",
            Self::Ntlm => "NTLM",
            Self::Basic => "Basic",
        }
    }

    fn is_offered(self, config: &DoorConfig) -> bool {
        match self {
            Self::Negotiate => config.negotiate,
            Self::Ntlm => config.ntlm,
            Self::Basic => config.basic,
        }
    }
}

/// Someone who may come in, and the last token of the exchange, which goes into the answer.
pub struct Admitted {
    pub account: Account,
    token: Option<HeaderValue>,
}

impl Admitted {
    /// The answer with what the exchange still needs.
    pub fn answer(self, mut response: Response) -> Response {
        if let Some(token) = self.token {
            response.headers_mut().insert(WWW_AUTHENTICATE, token);
        }
        response
    }
}

/// Judges a request by its `Authorization` header and by what its connection has proven before.
///
/// # Errors
/// The 401 that asks for credentials, or goes on with the exchange. It is the same whatever was wrong: a server that says
/// which part was wrong helps to guess the other one.
pub fn admit(
    shared: &Shared,
    config: &DoorConfig,
    connection: &Connection,
    headers: &HeaderMap,
) -> Result<Admitted, Response> {
    let world = shared.world();
    let mut guest = connection.guest();
    let Some(header) = headers.get(AUTHORIZATION) else {
        return match &*guest {
            Guest::Known(account) => Ok(Admitted { account: account.clone(), token: None }),
            _ => Err(refuse(config, shared)),
        };
    };
    let given = header.to_str().ok().and_then(|text| text.split_once(' ')).and_then(|(word, token)| {
        let scheme = Scheme::ALL.into_iter().find(|scheme| scheme.word().eq_ignore_ascii_case(word))?;
        scheme.is_offered(config).then_some((scheme, STANDARD.decode(token.trim()).ok()?))
    });
    match given {
        None => Err(refuse(config, shared)),
        Some((Scheme::Basic, token)) => {
            let text = String::from_utf8_lossy(&token);
            let account =
                text.split_once(':').and_then(|(user, password)| world.accounts.sign_in(user, password).ok());
            account.map(|account| Admitted { account, token: None }).ok_or_else(|| refuse(config, shared))
        }
        Some((scheme, token)) => negotiate(shared, config, &world.accounts, &mut guest, scheme, &token),
    }
}

fn negotiate(
    shared: &Shared,
    config: &DoorConfig,
    accounts: &Accounts,
    guest: &mut Guest,
    scheme: Scheme,
    token: &[u8],
) -> Result<Admitted, Response> {
    let mut acceptor = match std::mem::take(guest) {
        Guest::Asked(asked, acceptor) if asked == scheme => acceptor,
        // A new exchange on an authenticated connection starts from nothing.
        _ => Box::new(Acceptor::new(NtlmServer::new(
            names(shared),
            ntlm::random_challenge(),
            shared.cx.clock.now_ms(),
        ))),
    };
    match acceptor.accept(token) {
        Ok(Step::Reply(reply)) => {
            *guest = Guest::Asked(scheme, acceptor);
            let mut response = unauthorized();
            response.headers_mut().insert(WWW_AUTHENTICATE, token_header(scheme, &reply));
            Err(response)
        }
        Ok(Step::Claimed(claim)) => match claimed(accounts, &acceptor, &claim) {
            Some((account, last)) => {
                *guest = Guest::Known(account.clone());
                Ok(Admitted { account, token: last.map(|token| token_header(scheme, &token)) })
            }
            None => Err(refuse(config, shared)),
        },
        Err(error) => {
            tracing::debug!(%error, "Authentication token refused");
            Err(refuse(config, shared))
        }
    }
}

/// Only the password of the account the claim names is tried, never anybody else's.
fn claimed(accounts: &Accounts, acceptor: &Acceptor, claim: &Claim) -> Option<(Account, Option<Vec<u8>>)> {
    let name = match claim.domain.as_str() {
        "" => claim.user.clone(),
        domain => format!("{domain}\\{}", claim.user),
    };
    let password = accounts.password_of(&name)?;
    let mut session = claim.verify(&NtHash::of_password(&password)).ok()?;
    let account = accounts.admit(&name).ok()?;
    let last = acceptor.complete(&mut session).ok()?;
    Some((account, last))
}

fn names(shared: &Shared) -> ServerNames {
    let world = shared.world();
    let company = &world.company;
    ServerNames {
        netbios_domain: company.netbios.clone(),
        netbios_computer: "PKI1".to_owned(),
        dns_domain: company.domain.clone(),
        dns_computer: format!("pki1.{}", company.domain),
        dns_forest: company.domain.clone(),
    }
}

fn refuse(config: &DoorConfig, shared: &Shared) -> Response {
    let mut response = unauthorized();
    for scheme in Scheme::ALL.into_iter().filter(|scheme| scheme.is_offered(config)) {
        let value = match scheme {
            Scheme::Basic => {
                let realm = format!("Basic realm=\"pki1.{}\"", shared.world().company.domain);
                HeaderValue::from_str(&realm).unwrap_or(HeaderValue::from_static("Basic"))
            }
            other => HeaderValue::from_static(other.word()),
        };
        response.headers_mut().append(WWW_AUTHENTICATE, value);
    }
    response
}

fn unauthorized() -> Response {
    let page = "<html><head><title>401 - Unauthorized: Access is denied due to invalid credentials.</title></head></html>";
    let mut response = Response::new(Body::from(page));
    *response.status_mut() = StatusCode::UNAUTHORIZED;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html"));
    // The exchange goes on here, so the connection must stay.
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("keep-alive"));
    response
}

fn token_header(scheme: Scheme, token: &[u8]) -> HeaderValue {
    let text = format!("{} {}", scheme.word(), STANDARD.encode(token));
    HeaderValue::from_str(&text).expect("a word and base64 are visible ASCII")
}
