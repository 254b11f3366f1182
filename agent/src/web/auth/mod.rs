//! Signing in to a server (RFC 4559, RFC 7617, MS-WSMV 2.2.9.1): which scheme, by which messages, and what is never
//! repeated.
//!
//! A wrong password must not be shown twice, because a few repetitions lock the account. What a server or KDC says about
//! a password is final for every server, every scheme and every session, until the secret is stored again.

mod handshake;

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Mutex, PoisonError};

use http::HeaderMap;
use http::header::WWW_AUTHENTICATE;
use serde::{Deserialize, Serialize};
use thiserror::Error;

pub(crate) use self::handshake::{Names, NotShaken, Shaking, basic, shake};
use super::connection::HttpError;
use crate::dial::security::challenge::{self, Challenge};
use crate::dial::security::{Credentials, Package, SecurityError};
use crate::secrets::SecretStore;

/// A way to sign in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Auth {
    /// Kerberos, inside Negotiate or alone, as the server offers it.
    Kerberos,
    /// Negotiate with Kerberos or NTLM.
    Negotiate,
    /// NTLM alone.
    Ntlm,
    /// The password as it is; only over TLS.
    Basic,
}

impl fmt::Display for Auth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kerberos => "Kerberos",
            Self::Negotiate => "Negotiate",
            Self::Ntlm => "NTLM",
            Self::Basic => "Basic",
        })
    }
}

/// Why nobody is signed in.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum AuthError {
    /// The server does not accept the password.
    #[error(
        "{server} does not accept {user} by {scheme}: wrong password, or the account is locked or disabled"
    )]
    Refused {
        /// Host and port.
        server: String,
        /// Who.
        user: String,
        /// By which scheme.
        scheme: Auth,
    },
    /// The KDC does not accept it; the server never saw it.
    #[error("{user} is refused for {scheme}")]
    RefusedByDirectory {
        /// Who.
        user: String,
        /// By which scheme.
        scheme: Auth,
        /// In the KDC's words.
        #[source]
        source: SecurityError,
    },
    /// It was refused before and nobody has stored another one since.
    #[error("{user} was refused before; store the password again once it is right")]
    Held {
        /// Who.
        user: String,
    },
    /// There is no password.
    #[error("the secret with the password of {user} is not stored")]
    NoSecret {
        /// Who. Not the secret's name: where a person chose it, it may be the password itself.
        user: String,
    },
    /// Nothing the server offers can be used.
    #[error("none of the ways to sign in that {server} offers ({offered}) can be used: {why}")]
    NoScheme {
        /// Host and port.
        server: String,
        /// Names of the schemes.
        offered: String,
        /// Each one's reason.
        why: String,
    },
    /// The server breaks the exchange off.
    #[error("{server} does not go through with {scheme}: {why}")]
    Broken {
        /// Host and port.
        server: String,
        /// The scheme.
        scheme: Auth,
        /// What it does.
        why: String,
    },
    /// The connection.
    #[error(transparent)]
    Http(#[from] HttpError),
}

impl AuthError {
    /// Whether it is about the account and not about the server.
    pub fn is_about_account(&self) -> bool {
        matches!(
            self,
            Self::Refused { .. }
                | Self::RefusedByDirectory { .. }
                | Self::Held { .. }
                | Self::NoSecret { .. }
        )
    }
}

/// What all connections to one system know about its accounts.
pub struct Accounts {
    secrets: SecretStore,
    /// Users that a server has accepted.
    proved: Mutex<BTreeSet<String>>,
    /// Held while a password is shown that nobody has accepted yet: two sessions at once would be two failures.
    pub(crate) proving: tokio::sync::Mutex<()>,
}

impl Accounts {
    /// With the local secrets.
    pub fn new(secrets: SecretStore) -> Self {
        Self { secrets, proved: Mutex::default(), proving: tokio::sync::Mutex::default() }
    }

    /// The credentials as they are stored now.
    ///
    /// # Errors
    /// When there are none, or they were refused.
    pub fn credentials(&self, user: &str, name: &str) -> Result<Credentials, AuthError> {
        let secret = self.secrets.newest(name).filter(|secret| !secret.is_empty());
        let Some(password) = secret else {
            return Err(AuthError::NoSecret { user: user.to_owned() });
        };
        if self.secrets.is_refused(user, &password) {
            return Err(AuthError::Held { user: user.to_owned() });
        }
        Ok(Credentials { username: user.to_owned(), password })
    }

    /// The local secrets.
    pub fn secrets(&self) -> &SecretStore {
        &self.secrets
    }

    pub(crate) fn is_proved(&self, user: &str) -> bool {
        self.proved().contains(user)
    }

    pub(crate) fn accepted(&self, user: &str) {
        self.proved().insert(user.to_owned());
    }

    /// Nobody shows these again until they change.
    pub(crate) fn refused(&self, credentials: &Credentials) {
        self.proved().remove(&credentials.username);
        self.secrets.note_refused(&credentials.username, &credentials.password);
    }

    fn proved(&self) -> std::sync::MutexGuard<'_, BTreeSet<String>> {
        self.proved.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Everything an answer offers.
pub(crate) fn challenges(headers: &HeaderMap) -> Vec<Challenge> {
    let mut challenges = Vec::new();
    for value in headers.get_all(WWW_AUTHENTICATE) {
        if let Ok(text) = value.to_str()
            && text.len() <= super::limits::TOKEN_HEADER_MAX_BYTES
        {
            challenge::read(text, &mut challenges);
        }
    }
    challenges
}

/// One way to sign in, as it goes over the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Way {
    pub(crate) auth: Auth,
    /// Scheme in the header fields.
    pub(crate) header: &'static str,
    /// Who speaks it; none for Basic.
    pub(crate) package: Option<Package>,
}

/// The ways that are configured and offered, in the configured order; and why the others are not among them.
pub(crate) fn ways(wanted: &[Auth], offered: &[Challenge], tls: bool) -> (Vec<Way>, Vec<String>) {
    let offers = |name: &str| offered.iter().any(|challenge| challenge.is(name));
    let (mut ways, mut why) = (Vec::new(), Vec::new());
    for auth in wanted.iter().copied() {
        let way = match auth {
            Auth::Basic if !tls => Err("Basic: it would show the password to everybody on the way"),
            Auth::Basic if offers("Basic") => Ok(("Basic", None)),
            Auth::Kerberos if offers("Negotiate") => Ok(("Negotiate", Some(Package::Negotiate))),
            Auth::Kerberos if offers("Kerberos") => Ok(("Kerberos", Some(Package::Kerberos))),
            // Negotiate has tried Kerberos before: what is left of it is NTLM, which servers take as it is.
            Auth::Negotiate if offers("Negotiate") => {
                let kerberos_first = ways.iter().any(|way: &Way| way.auth == Auth::Kerberos);
                let package = if kerberos_first { Package::Ntlm } else { Package::Negotiate };
                Ok(("Negotiate", Some(package)))
            }
            Auth::Ntlm if offers("NTLM") => Ok(("NTLM", Some(Package::Ntlm))),
            Auth::Ntlm if offers("Negotiate") => Ok(("Negotiate", Some(Package::Ntlm))),
            Auth::Basic => Err("Basic: not offered"),
            Auth::Kerberos => Err("Kerberos: not offered"),
            Auth::Negotiate => Err("Negotiate: not offered"),
            Auth::Ntlm => Err("NTLM: not offered"),
        };
        match way {
            Ok((header, package)) => ways.push(Way { auth, header, package }),
            Err(reason) => why.push(reason.to_owned()),
        }
    }
    (ways, why)
}

#[cfg(test)]
mod tests {
    use causeway_protocol::Secret;
    use http::HeaderValue;

    use super::*;

    fn offered(lines: &[&str]) -> Vec<Challenge> {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(WWW_AUTHENTICATE, HeaderValue::from_str(line).unwrap());
        }
        challenges(&headers)
    }

    fn shown(wanted: &[Auth], lines: &[&str], tls: bool) -> Vec<(&'static str, Option<Package>)> {
        ways(wanted, &offered(lines), tls).0.iter().map(|way| (way.header, way.package)).collect()
    }

    #[test]
    fn the_configured_order_decides_among_what_is_offered() {
        use Auth::{Basic, Kerberos, Negotiate, Ntlm};
        let all = ["Negotiate", "Basic realm=\"mail1\""];
        assert_eq!(
            shown(&[Kerberos, Negotiate, Basic], &all, true),
            [("Negotiate", Some(Package::Negotiate)), ("Negotiate", Some(Package::Ntlm)), ("Basic", None)]
        );
        assert_eq!(shown(&[Basic, Negotiate], &all, true)[0], ("Basic", None));
        assert_eq!(shown(&[Kerberos], &["Kerberos"], false), [("Kerberos", Some(Package::Kerberos))]);
        assert_eq!(shown(&[Ntlm], &["NTLM"], false), [("NTLM", Some(Package::Ntlm))]);
        assert_eq!(shown(&[Negotiate], &["Negotiate"], false), [("Negotiate", Some(Package::Negotiate))]);
    }

    #[test]
    fn basic_never_goes_over_plain_http() {
        let (found, why) = ways(&[Auth::Basic], &offered(&["Basic realm=\"x\""]), false);
        assert!(found.is_empty() && why[0].contains("everybody"), "{why:?}");
    }

    #[test]
    fn refused_credentials_are_held_until_they_are_stored_again() {
        let with =
            |password: &str| SecretStore::new([("exchange.default".to_owned(), Secret::new(password))]);
        let secrets = with("wrong");
        let (one, other) = (Accounts::new(secrets.clone()), Accounts::new(secrets.clone()));
        let credentials = one.credentials("svc", "exchange.default").unwrap();
        one.refused(&credentials);
        for accounts in [&one, &other] {
            let held = accounts.credentials("svc", "exchange.default");
            assert!(matches!(held, Err(AuthError::Held { .. })));
        }
        assert!(one.credentials("svc2", "exchange.default").is_ok(), "it was about the other account");
        secrets.renew(&with("right"));
        assert_eq!(other.credentials("svc", "exchange.default").unwrap().password.expose(), "right");
        assert!(matches!(one.credentials("svc", "none"), Err(AuthError::NoSecret { .. })));
    }
}
