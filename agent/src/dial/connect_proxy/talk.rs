//! One tunnel: which scheme, what next, when to stop.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use causeway_protocol::Secret;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::MutexGuard;
use tokio::time::Instant;

use super::digest::Prompt;
use super::error::ProxyError;
use super::line::{Answer, Line};
use super::memory::{Fingerprint, Known};
use super::{Authenticator, Credentials, ProxyAuth, Scheme, offered};
use crate::chain::Chain;
use crate::dial::Target;
use crate::dial::proxy::ProxyServer;
use crate::dial::security::challenge::Challenge;
use crate::dial::security::{Package, Proof, SecurityContext, SecurityError, Service};
use crate::dial::steps::Steps;
use crate::limits::{PROXY_ROUNDS_MAX, PROXY_TOKEN_MAX_BYTES};

/// What is known while one tunnel is asked for.
pub(super) struct Talk<'a> {
    authenticator: &'a Authenticator,
    proxy: &'a ProxyServer,
    /// The proxy's name in the memory.
    at: String,
    authority: String,
    auth: &'a ProxyAuth,
    who: Option<Fingerprint>,
    steps: &'a Steps,
    /// Held while our credentials are shown and not known to be right.
    turn: Option<MutexGuard<'a, ()>>,
}

/// What the next request says about us.
enum Saying {
    Nothing,
    Basic,
    Digest {
        prompt: Prompt,
        value: Secret,
        /// The nonce was given to an earlier connection.
        remembered: bool,
        /// A nonce was called stale already.
        renewed: bool,
    },
    Bound {
        scheme: Scheme,
        context: Box<dyn SecurityContext>,
        token: Vec<u8>,
        /// The first message; later ones need the connection of the first.
        first: bool,
        /// Said without being asked, because it worked before.
        unasked: bool,
    },
}

impl<'a> Talk<'a> {
    pub(super) fn new(
        authenticator: &'a Authenticator,
        proxy: &'a ProxyServer,
        target: &Target,
        auth: &'a ProxyAuth,
        steps: &'a Steps,
    ) -> Self {
        let who = auth.credentials.as_ref().map(|credentials| authenticator.memory.fingerprint(credentials));
        let (at, authority) = (proxy.to_string(), target.to_string());
        Self { authenticator, proxy, at, authority, auth, who, steps, turn: None }
    }

    pub(super) async fn run<S, E, F, O>(mut self, open: O) -> Result<(S, Bytes), E>
    where
        S: AsyncRead + AsyncWrite + Unpin,
        E: From<ProxyError>,
        F: Future<Output = Result<S, E>>,
        O: Fn() -> F,
    {
        let mut saying = self.opening().await;
        let mut kept = None;
        for _ in 0..PROXY_ROUNDS_MAX {
            let mut line = match kept.take() {
                Some(line) => line,
                None => Line::new(open().await?),
            };
            let answer = self.ask(&mut line, &saying).await?;
            match answer.status {
                200..=299 => {
                    self.steps.note(|| format!("{} {}: the tunnel stands", answer.status, answer.reason));
                    self.accepted(saying);
                    return Ok(line.into_parts());
                }
                407 => {
                    let clean = line.discard(&answer).await;
                    self.steps.note(|| {
                        let kept = if clean { "kept" } else { "not kept" };
                        let offers = offered(&answer.challenges);
                        format!("407 {}: offers {offers}; connection {kept}", answer.reason)
                    });
                    saying = self.next(saying, &answer.challenges, clean).await?;
                    kept = clean.then_some(line);
                }
                status => {
                    let text = line.explain(&answer).await;
                    self.steps.note(|| format!("{status}: {text}"));
                    return Err(ProxyError::by_status(status, text).into());
                }
            }
        }
        Err(ProxyError::TooManyRounds.into())
    }

    /// The first request goes without credentials, since a proxy that wants none should not see any; unless they were
    /// accepted there before.
    async fn opening(&mut self) -> Saying {
        let (Some(who), Some(credentials)) = (&self.who, &self.auth.credentials) else {
            return Saying::Nothing;
        };
        match self.authenticator.memory.known(&self.at, who) {
            Some(Known { scheme: Scheme::Basic, .. }) if self.basic_allowed() => Saying::Basic,
            Some(Known { scheme: Scheme::Digest, .. }) => {
                match self.authenticator.memory.respond(&self.at, credentials, &self.authority) {
                    Some((prompt, value)) => {
                        Saying::Digest { prompt, value: Secret::new(value), remembered: true, renewed: false }
                    }
                    None => Saying::Nothing,
                }
            }
            Some(Known { scheme: scheme @ (Scheme::Ntlm | Scheme::Negotiate), .. }) => {
                self.bound(scheme, true).await.unwrap_or(Saying::Nothing)
            }
            _ => Saying::Nothing,
        }
    }

    async fn ask<S: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        line: &mut Line<S>,
        saying: &Saying,
    ) -> Result<Answer, ProxyError> {
        self.steps.note(|| format!("CONNECT {} {}", self.authority, saying.describe()));
        let answer = line.ask(self.request(saying).expose()).await;
        if let Err(error) = &answer {
            self.steps.note(|| Chain(error).to_string());
            if saying.proof() == Proof::Password {
                self.remember_refusal(false);
            }
            if let (ProxyError::Closed, Saying::Bound { scheme, first: false, .. }) = (error, saying) {
                return Err(ProxyError::ConnectionNotKept {
                    scheme: *scheme,
                    how: "closes it in the middle",
                });
            }
        }
        answer
    }

    fn request(&self, saying: &Saying) -> Secret {
        let mut request = format!(
            "CONNECT {at} HTTP/1.1\r\nHost: {at}\r\nUser-Agent: causeway-agent/{}\r\nProxy-Connection: Keep-Alive\r\n",
            env!("CARGO_PKG_VERSION"),
            at = self.authority,
        );
        let value = match (saying, &self.auth.credentials) {
            (Saying::Basic, Some(credentials)) => Some(basic(credentials)),
            (Saying::Digest { value, .. }, _) => Some(value.clone()),
            (Saying::Bound { scheme, token, .. }, _) => {
                Some(Secret::new(format!("{scheme} {}", STANDARD.encode(token))))
            }
            _ => None,
        };
        if let Some(value) = value {
            // Enough for the rest at once: growing would leave copies of the value behind.
            request.reserve(value.expose().len() + 32);
            request.push_str("Proxy-Authorization: ");
            request.push_str(value.expose());
            request.push_str("\r\n");
        }
        request.push_str("\r\n");
        Secret::new(request)
    }

    /// What to say after a 407.
    async fn next(
        &mut self,
        said: Saying,
        challenges: &[Challenge],
        clean: bool,
    ) -> Result<Saying, ProxyError> {
        match said {
            Saying::Nothing => self.choose(challenges).await,
            Saying::Basic => Err(self.refused(Scheme::Basic)),
            Saying::Digest { remembered, renewed, .. } => {
                let fresh = Prompt::choose(challenges).ok();
                let stale = fresh.as_ref().is_some_and(Prompt::is_stale);
                match fresh {
                    Some(_) if stale && renewed => Err(ProxyError::StaleNonces),
                    // A nonce from an earlier connection may be unknown by now, which some proxies do not call stale.
                    // The password was accepted with it, so this is no guess.
                    Some(prompt) if stale || (remembered && !renewed) => self.digest(prompt, true),
                    _ => Err(self.refused(Scheme::Digest)),
                }
            }
            Saying::Bound { scheme, context, token, first, unasked } => {
                let proof = Proof::of(&token);
                let theirs = challenges.iter().find(|challenge| challenge.is(scheme.name()));
                match theirs.and_then(|challenge| challenge.token.as_deref()) {
                    Some(token) if proof != Proof::Password => {
                        self.go_on(scheme, context, token, clean).await
                    }
                    _ if proof == Proof::Password => Err(self.refused(scheme)),
                    _ if unasked => self.choose(challenges).await,
                    _ if proof == Proof::Ticket => {
                        Err(ProxyError::TicketRefused { spn: format!("HTTP/{}", self.proxy.host) })
                    }
                    _ if !clean && first => Err(ProxyError::ConnectionNotKept {
                        scheme,
                        how: "closes it after the first message",
                    }),
                    _ => Err(ProxyError::NotContinued { scheme }),
                }
            }
        }
    }

    async fn go_on(
        &mut self,
        scheme: Scheme,
        mut context: Box<dyn SecurityContext>,
        token: &str,
        clean: bool,
    ) -> Result<Saying, ProxyError> {
        if !clean {
            return Err(ProxyError::ConnectionNotKept { scheme, how: "closes it in the middle" });
        }
        let bad = |why: &str| ProxyError::BadToken {
            scheme,
            source: SecurityError::BadToken { why: why.to_owned() },
        };
        if token.len() > PROXY_TOKEN_MAX_BYTES {
            return Err(bad("it is too long"));
        }
        let token = STANDARD.decode(token).map_err(|_| bad("it is not base64"))?;
        let token =
            context.step(Some(&token)).await.map_err(|source| ProxyError::BadToken { scheme, source })?;
        if Proof::of(&token) == Proof::Password {
            self.take_turn().await?;
        }
        Ok(Saying::Bound { scheme, context, token, first: false, unasked: false })
    }

    /// The strongest scheme of those offered that can be used here.
    async fn choose(&mut self, challenges: &[Challenge]) -> Result<Saying, ProxyError> {
        if self.auth.credentials.is_none() && !self.authenticator.contexts.own_logon() {
            return Err(ProxyError::wanted(challenges));
        }
        self.not_held()?;
        let mut why = Vec::new();
        for scheme in Scheme::STRONGEST_FIRST {
            if !challenges.iter().any(|challenge| challenge.is(scheme.name())) {
                continue;
            }
            if scheme == Scheme::Negotiate {
                // Kerberos shows the password's proof to the KDC before the proxy sees anything.
                self.take_turn().await?;
            }
            let problem = match scheme {
                Scheme::Negotiate | Scheme::Ntlm => match self.bound(scheme, false).await {
                    Ok(saying) => return Ok(saying),
                    Err(SecurityError::NotPossible { why }) => why,
                    Err(source @ SecurityError::Credentials { .. }) => {
                        self.remember_refusal(true);
                        return Err(ProxyError::RefusedByDirectory {
                            username: self.username(),
                            scheme,
                            source,
                        });
                    }
                    Err(source) => return Err(ProxyError::BadToken { scheme, source }),
                },
                _ if self.auth.credentials.is_none() => "no user name is configured".to_owned(),
                Scheme::Digest => match Prompt::choose(challenges) {
                    Ok(prompt) => {
                        self.take_turn().await?;
                        return self.digest(prompt, false);
                    }
                    Err(problem) => problem,
                },
                Scheme::Basic if self.basic_allowed() => {
                    self.take_turn().await?;
                    return Ok(Saying::Basic);
                }
                Scheme::Basic => {
                    "it would show the password in clear; allow it by proxy.allow_basic = true".to_owned()
                }
            };
            self.steps.note(|| format!("{scheme} is not used: {problem}"));
            why.push(format!("{scheme}: {problem}"));
        }
        let why = if why.is_empty() { "they are unknown".to_owned() } else { why.join("; ") };
        Err(ProxyError::NoScheme { offered: offered(challenges), why })
    }

    fn digest(&self, mut prompt: Prompt, renewed: bool) -> Result<Saying, ProxyError> {
        let offered = || Scheme::Digest.to_string();
        let Some(credentials) = &self.auth.credentials else {
            return Err(ProxyError::CredentialsWanted { offered: offered() });
        };
        let answer = prompt.respond(credentials, &self.authority);
        let value = answer.map_err(|why| ProxyError::NoScheme { offered: offered(), why })?;
        Ok(Saying::Digest { prompt, value: Secret::new(value), remembered: false, renewed })
    }

    /// Begins NTLM or Negotiate.
    async fn bound(&self, scheme: Scheme, unasked: bool) -> Result<Saying, SecurityError> {
        let package = if scheme == Scheme::Ntlm { Package::Ntlm } else { Package::Negotiate };
        let service = Service { class: "HTTP", host: &self.proxy.host, seal: false, binding: None };
        let mut context = self.authenticator.contexts.begin(package, &service, &self.auth.login())?;
        let token = context.step(None).await?;
        Ok(Saying::Bound { scheme, context, token, first: true, unasked })
    }

    /// Waits until credentials that nobody has accepted yet may be shown, and makes sure they were not refused
    /// meanwhile.
    async fn take_turn(&mut self) -> Result<(), ProxyError> {
        let Some(who) = &self.who else { return Ok(()) };
        let memory = &self.authenticator.memory;
        if self.turn.is_none() && memory.known(&self.at, who).is_none() {
            let turn = self.authenticator.proving.lock().await;
            // Whoever was before us may have proved them meanwhile.
            self.turn = memory.known(&self.at, who).is_none().then_some(turn);
        }
        self.not_held()
    }

    /// Whether our credentials were refused lately.
    fn not_held(&self) -> Result<(), ProxyError> {
        let Some(who) = &self.who else { return Ok(()) };
        match self.authenticator.memory.held(Instant::now(), &self.at, who) {
            None => Ok(()),
            Some(wait) => {
                self.steps.note(|| "no credentials are shown: they were refused lately".to_owned());
                let wait_mins = wait.as_secs().div_ceil(60);
                Err(ProxyError::CredentialsHeld { username: self.username(), wait_mins })
            }
        }
    }

    fn accepted(&mut self, saying: Saying) {
        let (Some(who), Some(scheme)) = (self.who.clone(), saying.scheme()) else { return };
        let digest = match saying {
            Saying::Digest { remembered: true, .. } => return,
            Saying::Digest { prompt, .. } => Some(prompt),
            _ => None,
        };
        self.authenticator.memory.accepted(&self.at, Known { who, scheme, digest });
        self.turn = None;
    }

    fn refused(&mut self, scheme: Scheme) -> ProxyError {
        self.remember_refusal(true);
        ProxyError::BadCredentials { username: self.username(), scheme }
    }

    fn remember_refusal(&self, said: bool) {
        if let Some(who) = &self.who {
            self.authenticator.memory.refused(Instant::now(), &self.at, who, said);
        }
    }

    fn username(&self) -> String {
        let credentials = self.auth.credentials.as_ref();
        credentials.map_or_else(|| "of this service".to_owned(), |credentials| credentials.username.clone())
    }

    fn basic_allowed(&self) -> bool {
        self.auth.allow_basic.unwrap_or(self.proxy.tls)
    }
}

impl Saying {
    fn scheme(&self) -> Option<Scheme> {
        match self {
            Self::Nothing => None,
            Self::Basic => Some(Scheme::Basic),
            Self::Digest { .. } => Some(Scheme::Digest),
            Self::Bound { scheme, .. } => Some(*scheme),
        }
    }

    fn proof(&self) -> Proof {
        match self {
            Self::Nothing => Proof::None,
            Self::Basic | Self::Digest { .. } => Proof::Password,
            Self::Bound { token, .. } => Proof::of(token),
        }
    }

    fn describe(&self) -> String {
        match self {
            Self::Nothing => "without credentials".to_owned(),
            Self::Basic => "with user name and password by Basic".to_owned(),
            Self::Digest { prompt, .. } => format!("with an answer by Digest ({})", prompt.describe()),
            Self::Bound { scheme, token, .. } => {
                let what = match Proof::of(token) {
                    Proof::None => "a first message of NTLM",
                    Proof::Password => "the answer of NTLM",
                    Proof::Ticket => "a Kerberos ticket",
                };
                format!("with {what} by {scheme} ({} bytes)", token.len())
            }
        }
    }
}

fn basic(credentials: &Credentials) -> Secret {
    let pair = Secret::new(format!("{}:{}", credentials.username, credentials.password.expose()));
    let encoded = Secret::new(STANDARD.encode(pair.expose()));
    Secret::new(format!("Basic {}", encoded.expose()))
}
