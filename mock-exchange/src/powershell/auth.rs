//! Who sends a request: Basic with every request, NTLM and Kerberos once for a connection (MS-NTHT, RFC 4559).

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use causeway_mock_kit::kerberos::{self, Accepted, Service};
use causeway_mock_kit::ntlm::{self, Claim, NtHash, NtlmServer, ServerNames};
use causeway_mock_kit::spnego::{Acceptor, Step, TicketStep};
use http::HeaderValue;

use super::settings::{ChannelBinding, PowerShellConfig, Scheme};
use crate::world::{Account, Organisation};

/// What the door of one front end asks of everybody.
pub(super) struct Door<'a> {
    pub(super) config: &'a PowerShellConfig,
    pub(super) organisation: &'a Organisation,
    pub(super) names: ServerNames,
    pub(super) now_ms: i64,
    /// Over TLS the channel binding of the server's certificate.
    pub(super) tls: Option<[u8; 16]>,
    /// A fault: Negotiate goes by the name `Kerberos`.
    pub(super) kerberos_word: bool,
    /// Who takes tickets.
    pub(super) kerberos: Option<Arc<Service>>,
    /// A fault: how far the clock is off that tickets are judged by.
    pub(super) skew_ms: i64,
}

/// What one connection has proven so far.
#[derive(Default)]
pub(super) enum Guest {
    #[default]
    Unknown,
    /// A challenge is on its way.
    Asked(Scheme, Box<Acceptor>),
    /// NTLM or Kerberos has authenticated the connection.
    Known(Box<Known>),
}

/// A connection that NTLM or Kerberos has authenticated.
pub(super) struct Known {
    pub(super) account: Account,
    pub(super) scheme: Scheme,
    pub(super) seal: Seal,
}

/// What seals the messages of a connection.
pub(super) enum Seal {
    Ntlm(Box<ntlm::Session>),
    Kerberos(kerberos::Session),
}

impl Seal {
    /// Bytes in front of the sealed text: NTLM's signature (MS-NLMP 2.2.2.9), or the wrap token without its text.
    pub(super) fn token_bytes(&self) -> usize {
        match self {
            Self::Ntlm(_) => 16,
            Self::Kerberos(_) => kerberos::TOKEN_BYTES,
        }
    }

    pub(super) fn wrap(&mut self, message: &[u8]) -> Vec<u8> {
        match self {
            Self::Ntlm(session) => session.wrap(message),
            Self::Kerberos(session) => session.wrap(message),
        }
    }

    /// None when the message was changed, or is out of turn.
    pub(super) fn unwrap(&mut self, token: &[u8]) -> Option<Vec<u8>> {
        match self {
            Self::Ntlm(session) => session.unwrap(token).ok(),
            Self::Kerberos(session) => session.unwrap(token).ok(),
        }
    }
}

/// What follows for a request.
#[derive(Debug)]
pub(super) enum Verdict {
    /// 401 with these `WWW-Authenticate` headers.
    Refuse(Vec<HeaderValue>, &'static str),
    /// The request is this account's.
    Admit { account: Account, last_token: Option<HeaderValue> },
}

impl Door<'_> {
    /// Judges a request by its `Authorization` header and by what the connection has proven before.
    pub(super) fn judge(&self, guest: &mut Guest, authorization: Option<&HeaderValue>) -> Verdict {
        let Some(header) = authorization else {
            return match guest {
                Guest::Known(known) => Verdict::Admit { account: known.account.clone(), last_token: None },
                _ => self.refuse("no credentials"),
            };
        };
        let credentials = header.to_str().ok().and_then(|text| text.split_once(' '));
        let Some((word, token)) = credentials else { return self.refuse("unreadable credentials") };
        let token = STANDARD.decode(token.trim());
        match (Scheme::of_word(word), token) {
            (Some(scheme), _) if !self.offers(scheme) => self.refuse("scheme not offered"),
            (Some(Scheme::Basic), Ok(token)) => self.basic(&token),
            (Some(scheme), Ok(token)) => self.negotiate(guest, scheme, &token),
            _ => self.refuse("unreadable credentials"),
        }
    }

    fn offers(&self, scheme: Scheme) -> bool {
        self.schemes().any(|offered| offered == scheme)
    }

    fn schemes(&self) -> impl Iterator<Item = Scheme> {
        let config = self.config;
        let negotiate = if self.kerberos_word { Scheme::Kerberos } else { Scheme::Negotiate };
        let basic = config.basic && (self.tls.is_some() || config.basic_over_http);
        [(negotiate, config.negotiate), (Scheme::Ntlm, config.ntlm), (Scheme::Basic, basic)]
            .into_iter()
            .filter_map(|(scheme, offered)| offered.then_some(scheme))
    }

    /// The same answer whatever was wrong: a server that says which part was wrong helps to guess the other one.
    fn refuse(&self, why: &'static str) -> Verdict {
        let offers = self.schemes().map(|scheme| match scheme {
            Scheme::Basic => {
                let realm = format!("Basic realm=\"{}\"", self.names.dns_computer);
                HeaderValue::from_str(&realm).unwrap_or(HeaderValue::from_static("Basic"))
            }
            other => HeaderValue::from_static(other.word()),
        });
        Verdict::Refuse(offers.collect(), why)
    }

    fn basic(&self, token: &[u8]) -> Verdict {
        let text = String::from_utf8_lossy(token);
        let Some((user, password)) = text.split_once(':') else {
            return self.refuse("unreadable credentials");
        };
        // An empty password is a mistake, never a proof.
        if password.is_empty() {
            return self.refuse("empty password");
        }
        match self.organisation.sign_in(user, password) {
            Ok(account) => Verdict::Admit { account, last_token: None },
            Err(error) => self.refuse(error.word()),
        }
    }

    fn negotiate(&self, guest: &mut Guest, scheme: Scheme, token: &[u8]) -> Verdict {
        let mut acceptor = match std::mem::take(guest) {
            Guest::Asked(asked, acceptor) if asked == scheme => acceptor,
            // A new exchange on an authenticated connection starts from nothing.
            _ => {
                let ntlm = NtlmServer::new(self.names.clone(), ntlm::random_challenge(), self.now_ms);
                Box::new(Acceptor::new(ntlm))
            }
        };
        let step = match self.kerberos.as_ref().filter(|_| scheme != Scheme::Ntlm) {
            Some(service) => acceptor.accept_tickets(token, service, self.now_ms + self.skew_ms),
            None => acceptor.accept(token).map(TicketStep::Ntlm),
        };
        match step {
            Ok(TicketStep::Ntlm(Step::Reply(reply))) => {
                *guest = Guest::Asked(scheme, acceptor);
                Verdict::Refuse(vec![token_header(scheme, &reply)], "challenge")
            }
            Ok(TicketStep::Ntlm(Step::Claimed(claim))) => self.claimed(guest, scheme, &acceptor, &claim),
            Ok(TicketStep::Proven(accepted, reply)) => self.proven(guest, scheme, *accepted, reply),
            // As Windows does: the refusal travels beside the scheme it is for.
            Ok(TicketStep::Refused(why, reply)) => Verdict::Refuse(vec![token_header(scheme, &reply)], why),
            Err(error) => {
                tracing::debug!(error = %error, "Authentication token refused");
                self.refuse("token refused")
            }
        }
    }

    /// Only the password of the account the claim names is tried, never anybody else's.
    fn claimed(&self, guest: &mut Guest, scheme: Scheme, acceptor: &Acceptor, claim: &Claim) -> Verdict {
        let name = match claim.domain.as_str() {
            "" => claim.user.clone(),
            domain => format!("{domain}\\{}", claim.user),
        };
        let Some(password) = self.organisation.password_of(&name) else {
            return self.refuse("unknown account");
        };
        let Ok(mut session) = claim.verify(&NtHash::of_password(&password)) else {
            self.organisation.failed_sign_in(&name);
            return self.refuse("wrong response");
        };
        let account = match self.organisation.admit(&name) {
            Ok(account) => account,
            Err(error) => return self.refuse(error.word()),
        };
        if !self.bound_to_channel(claim.channel_bindings()) {
            return self.refuse("not bound to the channel");
        }
        let Ok(last) = acceptor.complete(&mut session) else {
            return self.refuse("mechanism list changed on its way");
        };
        let seal = Seal::Ntlm(Box::new(session));
        *guest = Guest::Known(Box::new(Known { account: account.clone(), scheme, seal }));
        let last_token = last.map(|token| token_header(scheme, &token));
        Verdict::Admit { account, last_token }
    }

    /// The KDC has judged the password; what is left is whether the account may sign in here, and the channel.
    fn proven(
        &self,
        guest: &mut Guest,
        scheme: Scheme,
        accepted: Accepted,
        reply: Option<Vec<u8>>,
    ) -> Verdict {
        let Accepted { login, realm, channel_bindings, session, .. } = accepted;
        let account = match self.organisation.admit(&format!("{realm}\\{login}")) {
            Ok(account) => account,
            Err(error) => return self.refuse(error.word()),
        };
        if !self.bound_to_channel(channel_bindings) {
            return self.refuse("not bound to the channel");
        }
        let seal = Seal::Kerberos(session);
        *guest = Guest::Known(Box::new(Known { account: account.clone(), scheme, seal }));
        Verdict::Admit { account, last_token: reply.map(|token| token_header(scheme, &token)) }
    }

    fn bound_to_channel(&self, shown: Option<[u8; 16]>) -> bool {
        let Some(expected) = self.tls else { return true };
        let right = shown.map(|shown| shown == expected);
        match self.config.channel_binding {
            ChannelBinding::None => true,
            ChannelBinding::Allow => right.unwrap_or(true),
            ChannelBinding::Require => right.unwrap_or(false),
        }
    }
}

fn token_header(scheme: Scheme, token: &[u8]) -> HeaderValue {
    let text = format!("{} {}", scheme.word(), STANDARD.encode(token));
    HeaderValue::from_str(&text).expect("a word and base64 are visible ASCII")
}
