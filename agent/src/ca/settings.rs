//! `[ca.<name>]` of agent.toml: where a certificate authority is, who we are to it, and how to know that it is the right
//! one. Profiles of the cloud name it.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::limits;
use crate::dial::tls::Trust;
use crate::modules::{ConfigError, ModuleSettings};
use crate::web::auth::Auth;
use crate::web::client::Manner;
use crate::web::endpoint::Endpoint;

/// One certificate authority.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct CaSettings {
    /// What is spoken to it. Default `scep`.
    pub kind: Kind,
    /// URLs of its front ends, tried in this order; those that fail come last for a while.
    pub urls: Vec<String>,
    /// The account, `ACME\svc-ndes` or `svc-ndes@acme.example`. Its password is the secret `ca.<name>.password`.
    /// Default: none.
    pub user: Option<String>,
    /// Ways to sign in, the first one that the server offers. Default `["kerberos", "negotiate", "basic"]`; `ntlm` is
    /// the fourth that exists.
    pub auth: Vec<Auth>,
    /// Class of the servers' service principal names. Default `HTTP`, which is what IIS has.
    pub spn_class: String,
    /// Kerberos realm of the account. Default: from the user name.
    pub kerberos_realm: Option<String>,
    /// KDCs of that realm as `host` or `host:port`. Default: from DNS.
    pub kerberos_kdcs: Vec<String>,
    /// PEM file of the authorities that may sign the servers' TLS certificates. Over plain http, the issuing authority
    /// must be one of them or lead to one. Default: the system's for TLS, none for http.
    pub ca_file: Option<PathBuf>,
    /// SHA-256 of the issuing authority's certificate, or of one above it, hexadecimal; colons and spaces may be between.
    /// Default: not compared.
    pub fingerprint: Option<String>,
    /// The same of the authority that will take its place, so that nothing stops when it does. `check` and the cloud show
    /// it once the present authority has announced it. Default: none.
    pub next_fingerprint: Option<String>,
    /// PEM file with our own certificate, shown over TLS. Its key is the secret `ca.<name>.key`. Default: none.
    pub certificate_file: Option<PathBuf>,
    /// How requests prove that they may be made. Default `none`.
    pub challenge: ChallengeKind,
    /// Pages that hand out challenges, one for each of `urls` or one for all. Default: `/certsrv/mscep_admin/` at each
    /// of `urls`.
    pub challenge_urls: Vec<String>,
    /// Characters of a challenge, 8 to 128. Default 16, which is what NDES has.
    pub challenge_length: usize,
    /// Challenges the authority keeps at once, 2 to 10000 (`PasswordMax` of NDES). Default 5.
    pub challenges_kept: u32,
    /// Minutes a challenge is good for, 5 to 1440 (`PasswordValidity` of NDES). Default 60.
    pub challenge_valid_mins: u32,
    /// SCEP: which authority of several is meant, the `message` of GetCACert. Default: none.
    pub identifier: String,
    /// SCEP: whether an authority may answer with SHA-1 when it has nothing better. 3DES is used without this where it
    /// is all there is, as with NDES. Default false.
    pub legacy: bool,
    /// Seconds until a request that waits for approval is first asked for again, 1 to 86400. Default 60; each further
    /// wait is longer by half.
    pub poll_first_secs: u64,
    /// Longest of these waits, 1 to 86400. Default 3600.
    pub poll_max_secs: u64,
    /// How often it is asked for at most, 1 to 10000. Default 500.
    pub polls_max: u32,
    /// How certificates are revoked. Default `auto`.
    pub revocation: RevocationKind,
    /// Entrust CA Gateway: id of the authority.
    pub authority_id: String,
    /// Symantec and DigiCert: what a seat is counted by, with variables. Default `%email%`.
    pub seat: String,
    /// Entrust by Digital IDs: group of the administrator. Default: the account's own.
    pub group: String,
    /// Entrust CA Gateway: how it is told to revoke. Default `actions`.
    pub gateway_revoke: GatewayRevoke,
}

/// What is spoken to an authority.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// SCEP (RFC 8894): NDES and most others.
    #[default]
    Scep,
    /// The web pages of Active Directory Certificate Services.
    Certsrv,
    /// MS-XCEP and MS-WSTEP, the web services of Active Directory Certificate Services.
    Wstep,
    /// Symantec Managed PKI, later DigiCert PKI Platform.
    Mpki,
    /// Entrust CA Gateway.
    EntrustGateway,
    /// Entrust by Digital IDs.
    EntrustDigitalId,
}

/// How requests prove that they may be made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ChallengeKind {
    /// Not at all, or by a person's approval.
    #[default]
    None,
    /// By a password that is always the same: the secret `ca.<name>.challenge`.
    Static,
    /// By one-time passwords from the administration page of NDES.
    Ndes,
}

/// How certificates are revoked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RevocationKind {
    /// By whatever the kind of authority has: Symantec, DigiCert and Entrust can be told, SCEP and Active Directory
    /// Certificate Services cannot.
    #[default]
    Auto,
    /// Not at all; reported as not done.
    None,
    /// By an administrator of Active Directory Certificate Services; reported as not done, with the command.
    Adcs,
}

/// How Entrust CA Gateway is told to revoke: public sources disagree, and versions may.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum GatewayRevoke {
    /// `POST .../certificates/{serial}/actions`.
    #[default]
    Actions,
    /// `PUT .../certificates/{serial}/revoke`.
    Put,
}

impl Default for CaSettings {
    fn default() -> Self {
        Self {
            kind: Kind::Scep,
            urls: Vec::new(),
            user: None,
            auth: vec![Auth::Kerberos, Auth::Negotiate, Auth::Basic],
            spn_class: "HTTP".to_owned(),
            kerberos_realm: None,
            kerberos_kdcs: Vec::new(),
            ca_file: None,
            fingerprint: None,
            next_fingerprint: None,
            certificate_file: None,
            challenge: ChallengeKind::None,
            challenge_urls: Vec::new(),
            challenge_length: limits::CHALLENGE_LENGTH,
            challenges_kept: limits::CHALLENGES_KEPT,
            challenge_valid_mins: limits::CHALLENGE_VALID_MINS,
            identifier: String::new(),
            legacy: false,
            poll_first_secs: 60,
            poll_max_secs: 3_600,
            polls_max: 500,
            revocation: RevocationKind::Auto,
            authority_id: String::new(),
            seat: "%email%".to_owned(),
            group: String::new(),
            gateway_revoke: GatewayRevoke::Actions,
        }
    }
}

impl CaSettings {
    /// Reads and checks the definition of that name.
    ///
    /// # Errors
    /// Names the offending key.
    pub fn read(name: &str, settings: &ModuleSettings) -> Result<Self, ConfigError> {
        let path = format!("ca.{name}");
        let Some(value) = settings.authorities.get(name) else {
            return Err(ConfigError::new(
                path.clone(),
                "no such certificate authority is defined",
                format!("add a table [{path}] with kind and urls to agent.toml"),
            ));
        };
        let read: Self = ModuleSettings::read(&path, value)?;
        read.check_urls(&path)?;
        read.check_kind(&path)?;
        read.check_numbers(&path)?;
        Ok(read)
    }

    /// The configured front ends.
    pub fn endpoints(&self) -> Vec<Endpoint> {
        self.urls.iter().filter_map(|url| Endpoint::read(url).ok()).collect()
    }

    /// The page with challenges that belongs to the n-th of [`CaSettings::endpoints`].
    pub fn challenge_endpoint(&self, n: usize) -> Option<Endpoint> {
        if self.challenge_urls.is_empty() {
            return Some(self.endpoints().get(n)?.at("/certsrv/mscep_admin/"));
        }
        // One page for all of them, or each has its own: `check_urls` lets nothing else pass.
        let nth = if self.challenge_urls.len() == 1 { 0 } else { n };
        Endpoint::read(self.challenge_urls.get(nth)?).ok()
    }

    /// The fingerprint as 32 bytes.
    pub fn fingerprint(&self) -> Option<[u8; 32]> {
        read_fingerprint(self.fingerprint.as_deref()?)
    }

    /// Whether one of these, SHA-256 in lower case hexadecimal, is what agent.toml names; nothing when it names none.
    pub fn is_expected<'a>(&self, mut found: impl Iterator<Item = &'a str>) -> Option<bool> {
        let hex = |bytes: [u8; 32]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let present = hex(self.fingerprint()?);
        let next = self.next_fingerprint.as_deref().and_then(read_fingerprint).map(hex);
        Some(found.any(|found| found == present || Some(found) == next.as_deref()))
    }

    /// Name of the secret with the account's password.
    pub fn password_name(ca: &str) -> String {
        format!("ca.{ca}.password")
    }

    /// Name of the secret with the key of our own certificate, PEM.
    pub fn key_name(ca: &str) -> String {
        format!("ca.{ca}.key")
    }

    /// Name of the secret with the challenge that is always the same.
    pub fn challenge_name(ca: &str) -> String {
        format!("ca.{ca}.challenge")
    }

    /// Every secret it needs.
    pub fn secret_names(&self, ca: &str) -> BTreeSet<String> {
        let mut names = BTreeSet::new();
        if self.user.is_some() {
            names.insert(Self::password_name(ca));
        }
        if self.certificate_file.is_some() {
            names.insert(Self::key_name(ca));
        }
        if self.challenge == ChallengeKind::Static {
            names.insert(Self::challenge_name(ca));
        }
        names
    }

    /// How its servers are talked to.
    pub fn manner(&self, ca: &str) -> Manner {
        Manner {
            account: self.user.clone().map(|user| (user, Self::password_name(ca))),
            auth: self.auth.clone(),
            spn_class: self.spn_class.clone(),
            kerberos_realm: self.kerberos_realm.clone(),
            kerberos_kdcs: self.kerberos_kdcs.clone(),
            trust: self.ca_file.clone().map_or(Trust::System, Trust::File),
            certificate: self.certificate_file.clone().map(|file| (file, Self::key_name(ca))),
        }
    }

    /// How long to wait before the n-th question after a request that is pending, from 0.
    pub fn poll_after(&self, n: u32) -> Duration {
        let most = Duration::from_secs(self.poll_max_secs);
        let grown = (0..n.min(64)).fold(Duration::from_secs(self.poll_first_secs), |wait, _| {
            if wait >= most { most } else { wait * 3 / 2 }
        });
        grown.min(most)
    }

    fn check_urls(&self, path: &str) -> Result<(), ConfigError> {
        let wrong = |key: &str, problem: String, advice: &str| {
            Err(ConfigError::new(format!("{path}.{key}"), problem, advice))
        };
        if self.urls.is_empty() {
            let advice = "list URLs such as https://ndes1.acme.example/certsrv/mscep/mscep.dll";
            return wrong("urls", "no URL is given".into(), advice);
        }
        if self.urls.len() > limits::URLS_MAX {
            return wrong("urls", format!("{} URLs are given", self.urls.len()), "list 16 at most");
        }
        for (n, url) in self.urls.iter().enumerate() {
            match Endpoint::read(url) {
                Err(problem) => return wrong(&format!("urls[{n}]"), problem, "write https://host/path"),
                // SCEP protects its messages itself (RFC 8894 section 1); everything else relies on TLS.
                Ok(at) if !at.tls && self.kind != Kind::Scep && !at.is_loopback() => {
                    let problem = format!("{url} would show requests and passwords to everybody");
                    return wrong(&format!("urls[{n}]"), problem, "use https://");
                }
                Ok(at) if !at.tls && self.fingerprint.is_none() && self.ca_file.is_none() => {
                    let problem = format!("nothing says who answers at {url}");
                    let advice =
                        "give the authority's fingerprint, or ca_file with the authority it leads to";
                    return wrong("fingerprint", problem, advice);
                }
                Ok(_) => {}
            }
        }
        for (n, url) in self.challenge_urls.iter().enumerate() {
            if let Err(problem) = Endpoint::read(url) {
                let advice = "write https://host/certsrv/mscep_admin/";
                return wrong(&format!("challenge_urls[{n}]"), problem, advice);
            }
        }
        let (pages, servers) = (self.challenge_urls.len(), self.urls.len());
        if pages > 1 && pages != servers {
            // A page that is taken for another server's gives challenges its own server does not know.
            let problem = format!("{pages} pages with challenges for {servers} front ends");
            return wrong(
                "challenge_urls",
                problem,
                "give one for each of urls in the same order, or one for all",
            );
        }
        Ok(())
    }

    fn check_kind(&self, path: &str) -> Result<(), ConfigError> {
        let wrong = |key: &str, problem: &str, advice: &str| {
            Err(ConfigError::new(format!("{path}.{key}"), problem, advice))
        };
        if self.auth.is_empty() {
            return wrong("auth", "no way to sign in is given", "remove the key for the default");
        }
        if self.user.as_ref().is_some_and(|user| user.trim().is_empty()) {
            return wrong("user", "it is empty", "name the account, or remove the key");
        }
        if self.fingerprint.is_some() && self.fingerprint().is_none() {
            let advice = "write the 64 hexadecimal digits of the SHA-256 fingerprint";
            return wrong("fingerprint", "it is no SHA-256", advice);
        }
        if let Some(next) = &self.next_fingerprint {
            if read_fingerprint(next).is_none() {
                let advice = "write the 64 hexadecimal digits of the SHA-256 fingerprint";
                return wrong("next_fingerprint", "it is no SHA-256", advice);
            }
            if self.fingerprint.is_none() {
                let advice = "give the present authority's fingerprint too, or remove the key";
                return wrong("next_fingerprint", "without fingerprint it says nothing", advice);
            }
        }
        if self.challenge != ChallengeKind::None && self.kind != Kind::Scep {
            let advice = "remove the key: only SCEP has challenges";
            return wrong("challenge", "this kind of authority has none", advice);
        }
        if self.challenge == ChallengeKind::Ndes && self.user.is_none() {
            let advice = "name the account that may open the page with the challenges";
            return wrong("user", "challenges of NDES are only given to an account", advice);
        }
        if matches!(self.kind, Kind::Mpki | Kind::EntrustGateway) && self.certificate_file.is_none() {
            let advice = "name the PEM file with the registration authority's certificate";
            return wrong("certificate_file", "this kind of authority wants a certificate of ours", advice);
        }
        if self.kind == Kind::EntrustDigitalId && self.user.is_none() {
            let advice = "name the administrator that Digital IDs are issued by";
            return wrong("user", "this kind of authority wants an account", advice);
        }
        if self.kind == Kind::EntrustGateway && self.authority_id.is_empty() {
            return wrong("authority_id", "it is empty", "name the authority as the gateway lists it");
        }
        Ok(())
    }

    fn check_numbers(&self, path: &str) -> Result<(), ConfigError> {
        for (key, value, low, high) in [
            ("challenge_length", self.challenge_length as u64, 8, 128),
            ("challenges_kept", self.challenges_kept.into(), 2, 10_000),
            ("challenge_valid_mins", self.challenge_valid_mins.into(), 5, 1_440),
            ("poll_first_secs", self.poll_first_secs, 1, 86_400),
            ("poll_max_secs", self.poll_max_secs, 1, 86_400),
            ("polls_max", self.polls_max.into(), 1, 10_000),
        ] {
            if !(low..=high).contains(&value) {
                let (problem, advice) =
                    (format!("{value} is out of range"), format!("choose {low} to {high}"));
                return Err(ConfigError::new(format!("{path}.{key}"), problem, advice));
            }
        }
        Ok(())
    }
}

fn read_fingerprint(text: &str) -> Option<[u8; 32]> {
    let digits: Vec<u32> = text
        .chars()
        .filter(|c| !matches!(c, ':' | ' ' | '-'))
        .map(|c| c.to_digit(16))
        .collect::<Option<_>>()?;
    let bytes: Vec<u8> = digits.chunks_exact(2).map(|pair| (pair[0] << 4 | pair[1]) as u8).collect();
    (digits.len() == 64).then(|| bytes.try_into().expect("64 digits are 32 bytes"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::{Value, json};

    use super::*;

    fn read(value: Value) -> Result<CaSettings, ConfigError> {
        let authorities = BTreeMap::from([("default".to_owned(), value)]);
        CaSettings::read("default", &ModuleSettings { authorities, ..ModuleSettings::default() })
    }

    #[test]
    fn what_is_missing_or_cannot_work_is_named() {
        let url = json!(["https://ndes1/certsrv/mscep/mscep.dll"]);
        for (value, path) in [
            (json!({}), "ca.default.urls"),
            (json!({ "urls": ["ndes1"] }), "ca.default.urls[0]"),
            (json!({ "urls": ["http://ndes1/scep"] }), "ca.default.fingerprint"),
            (json!({ "urls": url, "fingerprint": "00:11" }), "ca.default.fingerprint"),
            (
                json!({ "urls": url, "fingerprint": "ab".repeat(32), "next_fingerprint": "1" }),
                "ca.default.next_fingerprint",
            ),
            (json!({ "urls": url, "next_fingerprint": "ab".repeat(32) }), "ca.default.next_fingerprint"),
            (json!({ "urls": url, "challenge": "ndes" }), "ca.default.user"),
            (json!({ "urls": url, "challenge": "dynamic" }), "ca.default.challenge"),
            (json!({ "urls": url, "kind": "certsrv", "challenge": "static" }), "ca.default.challenge"),
            (json!({ "urls": ["http://ca1/certsrv"], "kind": "certsrv" }), "ca.default.urls[0]"),
            (json!({ "urls": url, "kind": "mpki" }), "ca.default.certificate_file"),
            (json!({ "urls": url, "challenges_kept": 1 }), "ca.default.challenges_kept"),
            (json!({ "urls": url, "challenge_urls": ["x"] }), "ca.default.challenge_urls[0]"),
            (
                json!({ "urls": url, "challenge_urls": ["https://a/", "https://b/"] }),
                "ca.default.challenge_urls",
            ),
        ] {
            let error = read(value).unwrap_err();
            assert_eq!(error.path, path, "{error}");
            assert!(!error.advice.is_empty());
        }
        let error = read(json!({ "url": "https://ndes1" })).unwrap_err();
        assert!(error.problem.contains("url") && error.advice.contains("urls"), "{error:?}");
    }

    #[test]
    fn fingerprints_are_read_as_people_copy_them() {
        let digits = "AB".repeat(32);
        let colons = vec!["ab"; 32].join(":");
        for text in [digits, colons, vec!["AB AB"; 16].join(" ")] {
            let read = read(json!({ "urls": ["http://a/"], "fingerprint": text })).unwrap();
            assert_eq!(read.fingerprint(), Some([0xab; 32]));
        }
    }

    #[test]
    fn pages_with_challenges_belong_to_their_servers() {
        let urls = json!(["https://ndes1:8443/certsrv/mscep/mscep.dll", "https://ndes2/scep"]);
        let ndes = read(json!({ "urls": urls, "user": "svc", "challenge": "ndes" })).unwrap();
        let url = |n| ndes.challenge_endpoint(n).unwrap().url;
        assert_eq!(url(0), "https://ndes1:8443/certsrv/mscep_admin/");
        assert_eq!(url(1), "https://ndes2/certsrv/mscep_admin/");
        assert_eq!(ndes.secret_names("default"), BTreeSet::from(["ca.default.password".to_owned()]));
        for (pages, second) in
            [(json!(["https://p1/"]), "https://p1/"), (json!(["https://p1/", "https://p2/"]), "https://p2/")]
        {
            let ndes =
                read(json!({ "urls": urls, "user": "svc", "challenge": "ndes", "challenge_urls": pages }));
            assert_eq!(ndes.unwrap().challenge_endpoint(1).unwrap().url, second);
        }
    }

    #[test]
    fn waits_for_an_approval_grow_up_to_their_limit() {
        let ca =
            read(json!({ "urls": ["https://a/"], "poll_first_secs": 60, "poll_max_secs": 200 })).unwrap();
        let waits: Vec<u64> = (0..5).map(|n| ca.poll_after(n).as_secs()).collect();
        assert_eq!(waits, [60, 90, 135, 200, 200]);
        assert_eq!(ca.poll_after(u32::MAX).as_secs(), 200);
    }
}
