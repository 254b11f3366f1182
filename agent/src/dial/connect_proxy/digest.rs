//! Digest (RFC 7616) for CONNECT: the digest-uri is the authority, A2 is `CONNECT:host:port`.

use aws_lc_rs::rand;
use digest_auth::{Algorithm, AlgorithmType, AuthContext, Charset, HttpMethod, Qop, WwwAuthenticateHeader};

use super::Credentials;
use crate::dial::security::challenge::Challenge;

/// A challenge with the count of its nonce's uses.
#[derive(Clone)]
pub(super) struct Prompt(WwwAuthenticateHeader);

impl Prompt {
    /// The strongest usable Digest challenge.
    ///
    /// # Errors
    /// Why none of them can be answered.
    pub(super) fn choose(challenges: &[Challenge]) -> Result<Self, String> {
        let mut best: Option<Self> = None;
        let mut why = Vec::new();
        for challenge in challenges.iter().filter(|challenge| challenge.is("Digest")) {
            match Self::read(challenge) {
                Ok(prompt) if best.as_ref().is_none_or(|best| prompt.strength() > best.strength()) => {
                    best = Some(prompt)
                }
                Ok(_) => {}
                Err(problem) => why.push(problem),
            }
        }
        best.ok_or_else(|| why.join(", "))
    }

    /// The crate's own reader indexes bytes by characters and so panics on hostile input; only its arithmetic is used.
    fn read(challenge: &Challenge) -> Result<Self, String> {
        let required = |name| {
            let found = challenge.parameter(name).map(str::to_owned);
            found.ok_or_else(|| format!("its challenge has no {name}"))
        };
        let algorithm = match challenge.parameter("algorithm") {
            None => Algorithm::default(),
            Some(name) => {
                algorithm(name).ok_or_else(|| format!("its algorithm {} is unknown", printable(name)))?
            }
        };
        let qop = match challenge.parameter("qop") {
            None => None,
            Some(list) if list.split(',').any(|item| item.trim().eq_ignore_ascii_case("auth")) => {
                Some(vec![Qop::AUTH])
            }
            Some(list) => return Err(format!("its quality of protection {} is not auth", printable(list))),
        };
        let said = |name, yes| challenge.parameter(name).is_some_and(|value| value.eq_ignore_ascii_case(yes));
        Ok(Self(WwwAuthenticateHeader {
            domain: None,
            realm: required("realm")?,
            nonce: required("nonce")?,
            opaque: challenge.parameter("opaque").map(str::to_owned),
            stale: said("stale", "true"),
            algorithm,
            qop,
            userhash: said("userhash", "true"),
            charset: if said("charset", "utf-8") { Charset::UTF8 } else { Charset::ASCII },
            nc: 0,
        }))
    }

    pub(super) fn is_stale(&self) -> bool {
        self.0.stale
    }

    /// How the answer is described to a person.
    pub(super) fn describe(&self) -> String {
        format!("{}, use {} of its nonce", self.0.algorithm, self.0.nc)
    }

    fn strength(&self) -> u8 {
        match self.0.algorithm.algo {
            AlgorithmType::MD5 => 0,
            AlgorithmType::SHA2_256 => 1,
            AlgorithmType::SHA2_512_256 => 2,
        }
    }

    /// The value of `Proxy-Authorization`; counts a use of the nonce.
    pub(super) fn respond(&mut self, credentials: &Credentials, authority: &str) -> Result<String, String> {
        let mut random = [0; 16];
        rand::fill(&mut random).map_err(|_| "the system gives no random numbers".to_owned())?;
        let cnonce: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
        let mut context = AuthContext::new_with_method::<_, _, _, &[u8]>(
            credentials.username.as_str(),
            credentials.password.expose(),
            authority,
            None,
            HttpMethod::CONNECT,
        );
        context.set_custom_cnonce(cnonce);
        self.0.respond(&context).map(|header| header.to_string()).map_err(|error| error.to_string())
    }
}

fn algorithm(name: &str) -> Option<Algorithm> {
    let (name, sess) = match name.get(name.len().saturating_sub(5)..) {
        Some(end) if end.eq_ignore_ascii_case("-sess") => (&name[..name.len() - 5], true),
        _ => (name, false),
    };
    let known = [
        ("MD5", AlgorithmType::MD5),
        ("SHA-256", AlgorithmType::SHA2_256),
        ("SHA-512-256", AlgorithmType::SHA2_512_256),
    ];
    let (_, algo) = known.into_iter().find(|(known, _)| known.eq_ignore_ascii_case(name))?;
    Some(Algorithm::new(algo, sess))
}

fn printable(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(40).collect()
}

#[cfg(test)]
mod tests {
    use causeway_protocol::Secret;

    use super::*;
    use crate::dial::security::challenge;

    fn choose(line: &str) -> Result<Prompt, String> {
        let mut all = Vec::new();
        challenge::read(line, &mut all);
        Prompt::choose(&all)
    }

    #[test]
    fn the_strongest_known_algorithm_is_chosen_and_unknown_ones_are_named() {
        let offer = "Digest realm=r, nonce=a, algorithm=MD5, qop=auth, \
                     Digest realm=r, nonce=b, algorithm=SHA-256-sess, qop=\"auth-int,auth\", \
                     Digest realm=r, nonce=c, algorithm=SHA3-512";
        let chosen = choose(offer).unwrap();
        assert_eq!((chosen.0.nonce.as_str(), chosen.0.algorithm.to_string().as_str()), ("b", "SHA-256-sess"));
        assert_eq!(
            choose("Digest realm=r, nonce=a, algorithm=SHA3-512").err().unwrap(),
            "its algorithm SHA3-512 is unknown"
        );
        assert!(choose("Digest realm=r, nonce=a, qop=auth-int").err().unwrap().contains("not auth"));
        assert!(choose("Digest realm=r").err().unwrap().contains("no nonce"));
        assert!(choose("Digest algorithm=\"\u{fc}\u{fc}\u{fc}\u{1}\"").err().unwrap().contains("unknown"));
    }

    #[test]
    fn each_answer_counts_one_use_and_never_shows_the_password() {
        let mut prompt = choose("Digest realm=\"a \\\"b\\\"\", nonce=n, qop=auth, opaque=o").unwrap();
        let credentials = Credentials { username: "svc".into(), password: Secret::new("canary") };
        for count in 1..=3 {
            let answer = prompt.respond(&credentials, "cloud.example:443").unwrap();
            assert!(answer.contains(&format!("nc={count:08x}")), "{answer}");
            assert!(
                answer.contains("uri=\"cloud.example:443\"") && answer.contains("opaque=\"o\""),
                "{answer}"
            );
            assert!(answer.contains("realm=\"a \\\"b\\\"\"") && !answer.contains("canary"), "{answer}");
        }
    }
}
