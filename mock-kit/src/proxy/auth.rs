//! What a forward proxy asks of its clients: Basic (RFC 7617), Digest (RFC 7616), NTLM (MS-NTHT) and Negotiate
//! (RFC 4559, with NTLM inside). NTLM and Negotiate belong to a connection, nonces to the whole proxy.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use aws_lc_rs::{digest as sha, rand};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use md5::{Digest as _, Md5};

use crate::limits::DIGEST_NONCES_MAX;
use crate::ntlm::{NtHash, NtlmServer, ServerNames, random_challenge};
use crate::spnego::{Acceptor, Step};

/// What the proxy asks of its clients.
#[derive(Clone, Default)]
pub enum ConnectAuth {
    /// Nothing.
    #[default]
    None,
    /// A user name and password (RFC 7617).
    Basic {
        /// User name, without a colon.
        user: String,
        /// Password.
        password: String,
    },
    /// A hash of the password and a nonce (RFC 7616), quality of protection `auth`.
    Digest(DigestAccount),
    /// Challenge and response (MS-NTHT). The answer is really verified.
    Ntlm {
        /// User name without its domain; compared without regard to case.
        user: String,
        /// Password.
        password: String,
    },
    /// SPNEGO (RFC 4178) with NTLM inside; a Kerberos token is answered with a request for NTLM.
    Negotiate {
        /// User name without its domain.
        user: String,
        /// Password.
        password: String,
    },
    /// All of these are offered, in this order.
    Several(Vec<Self>),
}

/// An account and how its Digest challenges look.
#[derive(Clone)]
pub struct DigestAccount {
    /// User name.
    pub user: String,
    /// Password.
    pub password: String,
    /// Algorithm.
    pub algorithm: DigestAlgorithm,
    /// How often a nonce may be used; then it is stale. 0: it always is.
    pub uses_max: u32,
}

/// Hashes of RFC 7616.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DigestAlgorithm {
    /// Not named in the challenge, which means MD5.
    Unnamed,
    /// `MD5-sess`.
    Md5Sess,
    /// `SHA-256`.
    Sha256,
    /// `SHA-256-sess`.
    Sha256Sess,
}

impl DigestAccount {
    /// MD5 without naming it, 50 uses of a nonce: as squid does.
    pub fn new(user: impl Into<String>, password: impl Into<String>) -> Self {
        Self {
            user: user.into(),
            password: password.into(),
            algorithm: DigestAlgorithm::Unnamed,
            uses_max: 50,
        }
    }
}

impl DigestAlgorithm {
    fn name(self) -> Option<&'static str> {
        match self {
            Self::Unnamed => None,
            Self::Md5Sess => Some("MD5-sess"),
            Self::Sha256 => Some("SHA-256"),
            Self::Sha256Sess => Some("SHA-256-sess"),
        }
    }

    fn hash(self, text: &str) -> String {
        let bytes = match self {
            Self::Unnamed | Self::Md5Sess => Md5::digest(text.as_bytes()).to_vec(),
            Self::Sha256 | Self::Sha256Sess => sha::digest(&sha::SHA256, text.as_bytes()).as_ref().to_vec(),
        };
        hex(&bytes)
    }
}

/// What became of a request's credentials.
pub(super) enum Verdict {
    /// It may pass, as this user.
    Admitted { scheme: &'static str, user: String },
    /// 407 with these headers.
    Asked { headers: String, scheme: &'static str, why: &'static str },
}

/// Nonces given out, with their uses.
#[derive(Default)]
pub(super) struct Nonces(Mutex<BTreeMap<String, u32>>);

/// The authentication of one connection.
pub(super) struct Gate<'a> {
    auth: &'a ConnectAuth,
    nonces: &'a Nonces,
    now_ms: i64,
    ntlm: Option<NtlmServer>,
    negotiate: Option<Acceptor>,
}

impl<'a> Gate<'a> {
    pub(super) fn new(auth: &'a ConnectAuth, nonces: &'a Nonces, now_ms: i64) -> Self {
        Self { auth, nonces, now_ms, ntlm: None, negotiate: None }
    }

    /// Judges the value of `Proxy-Authorization`.
    pub(super) fn judge(&mut self, method_target: &str, given: Option<&str>) -> Verdict {
        if matches!(self.auth, ConnectAuth::None) {
            return Verdict::Admitted { scheme: "none", user: String::new() };
        }
        let Some((scheme, value)) = given.and_then(|given| given.split_once(' ')) else {
            return self.ask("none", "no credentials", None);
        };
        let value = value.trim();
        let offers: &[ConnectAuth] = match self.auth {
            ConnectAuth::Several(all) => all,
            one => std::slice::from_ref(one),
        };
        let offer =
            offers.iter().find(|offer| name(offer).is_some_and(|known| known.eq_ignore_ascii_case(scheme)));
        match offer {
            Some(ConnectAuth::Basic { user, password }) => {
                if value == STANDARD.encode(format!("{user}:{password}")) {
                    Verdict::Admitted { scheme: "Basic", user: user.clone() }
                } else {
                    self.ask("Basic", "wrong password", None)
                }
            }
            Some(ConnectAuth::Digest(account)) => self.digest(account, method_target, value),
            Some(ConnectAuth::Ntlm { user, password }) => self.ntlm(user, password, value),
            Some(ConnectAuth::Negotiate { user, password }) => self.negotiate(user, password, value),
            _ => self.ask("unknown", "scheme not offered", None),
        }
    }

    /// A 407 that offers everything, or goes on with one scheme's token.
    fn ask(&self, scheme: &'static str, why: &'static str, token: Option<&[u8]>) -> Verdict {
        let headers = match token {
            Some(token) => format!("Proxy-Authenticate: {scheme} {}\r\n", STANDARD.encode(token)),
            None => self.challenges(self.auth, why == "stale"),
        };
        Verdict::Asked { headers, scheme, why }
    }

    fn challenges(&self, auth: &ConnectAuth, stale: bool) -> String {
        let value = match auth {
            ConnectAuth::None => return String::new(),
            ConnectAuth::Several(all) => return all.iter().map(|one| self.challenges(one, stale)).collect(),
            ConnectAuth::Basic { .. } => "Basic realm=\"causeway\"".to_owned(),
            ConnectAuth::Ntlm { .. } => "NTLM".to_owned(),
            ConnectAuth::Negotiate { .. } => "Negotiate".to_owned(),
            ConnectAuth::Digest(account) => {
                let algorithm = account.algorithm.name().map(|name| format!(", algorithm={name}"));
                let algorithm = algorithm.unwrap_or_default();
                let nonce = self.nonces.make();
                format!(
                    "Digest realm=\"causeway\", nonce=\"{nonce}\", qop=\"auth\"{algorithm}, stale={stale}"
                )
            }
        };
        format!("Proxy-Authenticate: {value}\r\n")
    }

    fn digest(&self, account: &DigestAccount, target: &str, value: &str) -> Verdict {
        let said = parameters(value);
        let get = |name: &str| said.get(name).map(String::as_str).unwrap_or_default();
        if get("username") != account.user || get("uri") != target || get("qop") != "auth" {
            return self.ask("Digest", "wrong user, uri or qop", None);
        }
        let algorithm = account.algorithm;
        let sess = matches!(algorithm, DigestAlgorithm::Md5Sess | DigestAlgorithm::Sha256Sess);
        let mut a1 = algorithm.hash(&format!("{}:causeway:{}", account.user, account.password));
        if sess {
            a1 = algorithm.hash(&format!("{a1}:{}:{}", get("nonce"), get("cnonce")));
        }
        let a2 = algorithm.hash(&format!("CONNECT:{target}"));
        let (nonce, nc, cnonce) = (get("nonce"), get("nc"), get("cnonce"));
        if get("response") != algorithm.hash(&format!("{a1}:{nonce}:{nc}:{cnonce}:auth:{a2}")) {
            return self.ask("Digest", "wrong password", None);
        }
        match u32::from_str_radix(nc, 16) {
            Ok(count) if self.nonces.admit(nonce, count, account.uses_max) => {
                Verdict::Admitted { scheme: "Digest", user: account.user.clone() }
            }
            _ => self.ask("Digest", "stale", None),
        }
    }

    fn ntlm(&mut self, user: &str, password: &str, value: &str) -> Verdict {
        let token = STANDARD.decode(value).unwrap_or_default();
        match self.ntlm.take() {
            None => {
                let mut server = NtlmServer::new(names(), random_challenge(), self.now_ms);
                match server.challenge(&token) {
                    Ok(challenge) => {
                        self.ntlm = Some(server);
                        self.ask("NTLM", "challenge", Some(&challenge))
                    }
                    Err(_) => self.ask("NTLM", "broken first message", None),
                }
            }
            Some(server) => match server.authenticate(&token) {
                Ok(claim) if claim.user.eq_ignore_ascii_case(user) => {
                    match claim.verify(&NtHash::of_password(password)) {
                        Ok(_) => Verdict::Admitted { scheme: "NTLM", user: claim.user },
                        Err(_) => self.ask("NTLM", "wrong password", None),
                    }
                }
                Ok(_) => self.ask("NTLM", "wrong user", None),
                Err(_) => self.ask("NTLM", "broken answer", None),
            },
        }
    }

    fn negotiate(&mut self, user: &str, password: &str, value: &str) -> Verdict {
        let token = STANDARD.decode(value).unwrap_or_default();
        let now_ms = self.now_ms;
        let mut acceptor = self
            .negotiate
            .take()
            .unwrap_or_else(|| Acceptor::new(NtlmServer::new(names(), random_challenge(), now_ms)));
        match acceptor.accept(&token) {
            Ok(Step::Reply(reply)) => {
                self.negotiate = Some(acceptor);
                self.ask("Negotiate", "challenge", Some(&reply))
            }
            Ok(Step::Claimed(claim)) if claim.user.eq_ignore_ascii_case(user) => {
                let Ok(mut session) = claim.verify(&NtHash::of_password(password)) else {
                    return self.ask("Negotiate", "wrong password", None);
                };
                match acceptor.complete(&mut session) {
                    Ok(_) => Verdict::Admitted { scheme: "Negotiate", user: claim.user },
                    Err(_) => self.ask("Negotiate", "unprotected list of mechanisms", None),
                }
            }
            Ok(Step::Claimed(_)) => self.ask("Negotiate", "wrong user", None),
            Err(_) => self.ask("Negotiate", "broken token", None),
        }
    }
}

impl Nonces {
    fn make(&self) -> String {
        let mut bytes = [0; 16];
        rand::fill(&mut bytes).expect("the system's random source answers");
        let nonce = hex(&bytes);
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= DIGEST_NONCES_MAX {
            known.pop_first();
        }
        known.insert(nonce.clone(), 0);
        nonce
    }

    /// A count may come once and only upwards (RFC 7616 3.4, replay protection).
    fn admit(&self, nonce: &str, count: u32, uses_max: u32) -> bool {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match known.get_mut(nonce) {
            Some(used) if count > *used && count <= uses_max => {
                *used = count;
                true
            }
            _ => false,
        }
    }
}

fn name(auth: &ConnectAuth) -> Option<&'static str> {
    match auth {
        ConnectAuth::None | ConnectAuth::Several(_) => None,
        ConnectAuth::Basic { .. } => Some("Basic"),
        ConnectAuth::Digest(_) => Some("Digest"),
        ConnectAuth::Ntlm { .. } => Some("NTLM"),
        ConnectAuth::Negotiate { .. } => Some("Negotiate"),
    }
}

fn names() -> ServerNames {
    ServerNames {
        netbios_domain: "ACME".into(),
        netbios_computer: "PROXY".into(),
        dns_domain: "acme.example".into(),
        dns_computer: "proxy.acme.example".into(),
        dns_forest: "acme.example".into(),
    }
}

/// `name=value, name="value"`; clients of this proxy quote nothing that holds a comma.
fn parameters(text: &str) -> BTreeMap<String, String> {
    let pairs = text.split(',').filter_map(|pair| pair.split_once('='));
    pairs
        .map(|(name, value)| (name.trim().to_ascii_lowercase(), value.trim().trim_matches('"').to_owned()))
        .collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
