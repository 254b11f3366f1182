//! `WWW-Authenticate` and `Proxy-Authenticate` (RFC 9110 §11.6.1): several challenges to a line or to several lines, with a token or with
//! parameters. Hostile input: nothing here fails, what cannot be read is left out.

use crate::limits::{CHALLENGE_PARAMETERS_MAX, CHALLENGES_MAX};

/// One scheme the peer offers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Challenge {
    /// As the peer writes it.
    pub(crate) scheme: String,
    /// NTLM and Negotiate: the next message, still in base64.
    pub(crate) token: Option<String>,
    /// Names in lower case.
    pub(crate) parameters: Vec<(String, String)>,
}

impl Challenge {
    /// The first parameter of this name.
    pub(crate) fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn is(&self, scheme: &str) -> bool {
        self.scheme.eq_ignore_ascii_case(scheme)
    }
}

/// Names of what is offered, for a person.
pub(crate) fn offered(challenges: &[Challenge]) -> String {
    let mut names: Vec<String> = Vec::new();
    for challenge in challenges {
        let name: String = challenge.scheme.chars().take(20).collect();
        if !names.contains(&name) {
            names.push(name);
        }
    }
    if names.is_empty() { "nothing".to_owned() } else { names.join(", ") }
}

/// Reads one header line's value and adds what it offers.
pub(crate) fn read(value: &str, into: &mut Vec<Challenge>) {
    let mut rest = Rest(value);
    let first = into.len();
    while into.len() < CHALLENGES_MAX {
        rest.skip(|c| c == ',' || c == ' ' || c == '\t');
        let word = rest.take(is_token);
        if word.is_empty() {
            if rest.0.is_empty() {
                return;
            }
            // No token can begin here; what stands until the next comma means nothing to us.
            rest.take(|c| c != ',');
            continue;
        }
        match rest.value() {
            // A parameter needs a challenge of this line to belong to.
            Some(value) if into.len() > first => {
                let last = into.last_mut().expect("there is one more than at the beginning");
                if last.parameters.len() < CHALLENGE_PARAMETERS_MAX {
                    last.parameters.push((word.to_ascii_lowercase(), value));
                }
            }
            Some(_) => {}
            None => {
                into.push(Challenge { scheme: word.to_owned(), token: rest.token(), parameters: Vec::new() })
            }
        }
    }
}

/// What is not read yet.
struct Rest<'a>(&'a str);

impl<'a> Rest<'a> {
    fn take(&mut self, wanted: impl Fn(char) -> bool) -> &'a str {
        let end = self.0.find(|c| !wanted(c)).unwrap_or(self.0.len());
        let (taken, rest) = self.0.split_at(end);
        self.0 = rest;
        taken
    }

    fn skip(&mut self, unwanted: impl Fn(char) -> bool) {
        self.0 = self.0.trim_start_matches(unwanted);
    }

    /// `= value`, quoted or not; `None` and nothing read when there is no equals sign.
    fn value(&mut self) -> Option<String> {
        let after = self.0.trim_start_matches([' ', '\t']).strip_prefix('=')?.trim_start_matches([' ', '\t']);
        self.0 = after;
        match after.strip_prefix('"') {
            None => Some(self.take(|c| c != ',' && c != ' ' && c != '\t').to_owned()),
            Some(quoted) => {
                let mut text = String::new();
                let mut escaped = false;
                for (at, c) in quoted.char_indices() {
                    match c {
                        _ if escaped => {
                            text.push(c);
                            escaped = false;
                        }
                        '\\' => escaped = true,
                        '"' => {
                            self.0 = &quoted[at + 1..];
                            return Some(text);
                        }
                        _ => text.push(c),
                    }
                }
                // The closing quote is missing: the line ends here.
                self.0 = "";
                Some(text)
            }
        }
    }

    /// A token68, which must be followed by a comma or the end; else these are parameters.
    fn token(&mut self) -> Option<String> {
        let spaced = self.0.trim_start_matches([' ', '\t']);
        if spaced.len() == self.0.len() {
            return None;
        }
        let body = spaced
            .find(|c: char| !c.is_ascii_alphanumeric() && !"-._~+/".contains(c))
            .unwrap_or(spaced.len());
        let end = body + spaced[body..].chars().take_while(|c| *c == '=').count();
        let after = spaced[end..].trim_start_matches([' ', '\t']);
        if body == 0 || !(after.is_empty() || after.starts_with(',')) {
            return None;
        }
        self.0 = after;
        Some(spaced[..end].to_owned())
    }
}

/// RFC 9110 §5.6.2.
fn is_token(c: char) -> bool {
    c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop_assert, proptest};

    use super::*;

    fn challenges(lines: &[&str]) -> Vec<Challenge> {
        let mut all = Vec::new();
        for line in lines {
            read(line, &mut all);
        }
        all
    }

    fn challenge(scheme: &str, token: Option<&str>, parameters: &[(&str, &str)]) -> Challenge {
        Challenge {
            scheme: scheme.into(),
            token: token.map(Into::into),
            parameters: parameters.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect(),
        }
    }

    #[test]
    fn several_to_a_line_and_several_lines_are_the_same() {
        let basic = challenge("Basic", None, &[("realm", "a, \"b\"")]);
        let digest = challenge(
            "Digest",
            None,
            &[("realm", "x"), ("nonce", "n=="), ("qop", "auth"), ("stale", "false")],
        );
        let all =
            [challenge("Negotiate", None, &[]), challenge("NTLM", Some("TlRM+/=="), &[]), basic, digest];
        let one = "Negotiate, NTLM TlRM+/==, Basic realm=\"a, \\\"b\\\"\", Digest Realm=x, nonce=\"n==\" , qop = \"auth\",stale=false";
        assert_eq!(challenges(&[one]), all);
        let lines = [
            "Negotiate",
            "NTLM TlRM+/==",
            "Basic realm=\"a, \\\"b\\\"\"",
            ",, Digest realm=\"x\",nonce=\"n==\",qop=auth,stale=false,",
        ];
        assert_eq!(challenges(&lines), all);
    }

    #[test]
    fn what_cannot_be_read_is_left_out() {
        assert_eq!(challenges(&["realm=\"orphan\", Basic"]), [challenge("Basic", None, &[])]);
        assert_eq!(
            challenges(&["Basic realm=\"never closed"]),
            [challenge("Basic", None, &[("realm", "never closed")])]
        );
        assert_eq!(challenges(&["\u{fc}\u{1}, Basic"]), [challenge("Basic", None, &[])]);
        assert_eq!(challenges(&["", ",", " "]), []);
        let storm = "Basic, ".repeat(1_000);
        assert_eq!(challenges(&[&storm, &storm]).len(), CHALLENGES_MAX);
        let wide = format!("Digest {}", "a=b, ".repeat(1_000));
        assert_eq!(challenges(&[&wide])[0].parameters.len(), CHALLENGE_PARAMETERS_MAX);
    }

    proptest! {
        #[test]
        fn arbitrary_lines_never_panic(line in any::<String>()) {
            let mut all = Vec::new();
            read(&line, &mut all);
            prop_assert!(all.len() <= CHALLENGES_MAX);
        }
    }
}
