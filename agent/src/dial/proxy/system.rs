//! The system's own proxy settings, which on Windows are scattered: WinHTTP's machine-wide default, the Internet settings
//! of a user or (by policy) of the machine, and automatic discovery including DHCP. Reading them is the platform's part
//! behind [`SystemProxies`]; what they mean is decided here and tested everywhere.

use std::io;
use std::sync::Arc;

use super::bypass::{BareName, Bypass};
use super::pac::answer;
use super::{Destination, Plan, ProxyServer, Route};
use crate::dial::steps::shortened;

/// Reads the system's settings as they are. Calls may block for seconds; they are made off the async threads.
pub trait SystemProxies: Send + Sync + 'static {
    /// WinHTTP's default: `WinHttpGetDefaultProxyConfiguration`, what `netsh winhttp set proxy` writes.
    ///
    /// # Errors
    /// What the system says.
    fn machine_default(&self) -> io::Result<NamedProxies>;

    /// Whether the policy `ProxySettingsPerUser` = 0 moves the Internet settings from the users to the machine.
    fn per_machine(&self) -> bool;

    /// The Internet settings of the machine (`HKLM`), of a user by SID (`HKEY_USERS\<SID>`), or of the own account.
    ///
    /// # Errors
    /// What the system says; an account without settings is not an error.
    fn internet_settings(&self, whose: &Whose) -> io::Result<InternetSettings>;

    /// `WinHttpGetProxyForUrl`: first without automatic logon, again with it after `ERROR_WINHTTP_LOGIN_FAILURE`.
    ///
    /// # Errors
    /// Its error code.
    fn for_url(&self, url: &str, by: &Automatic) -> Result<NamedProxies, AutomaticError>;
}

/// Whose Internet settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Whose {
    /// The machine's.
    Machine,
    /// Those of a user named in agent.toml.
    User(String),
    /// Those of the account we run as.
    Own,
}

/// Proxies as WinHTTP names them; `None` and empty mean to go straight.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NamedProxies {
    /// `p1:8080;p2:8080`, blanks instead of `;`, or `http=p:1;https=p:2`.
    pub proxies: Option<String>,
    /// Exceptions, as in ProxyOverride.
    pub bypass: Option<String>,
}

/// Values of a key `...\CurrentVersion\Internet Settings`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InternetSettings {
    /// `ProxyEnable`.
    pub proxy_enable: Option<u32>,
    /// `ProxyServer`.
    pub proxy_server: Option<String>,
    /// `ProxyOverride`.
    pub proxy_override: Option<String>,
    /// `AutoConfigURL`.
    pub auto_config_url: Option<String>,
    /// `Connections\DefaultConnectionSettings`.
    pub default_connection_settings: Option<Vec<u8>>,
}

/// How WinHTTP shall find out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Automatic {
    /// By DHCP, then by DNS.
    Detect,
    /// By the script at this address.
    Script(String),
}

/// An error of `WinHttpGetProxyForUrl`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("WinHttpGetProxyForUrl fails with {code}: {}", self.meaning())]
pub struct AutomaticError {
    /// The system's error code.
    pub code: u32,
}

/// The system as a source of ways. Cheap to clone.
#[derive(Clone)]
pub struct System {
    reads: Option<Arc<dyn SystemProxies>>,
    user_sid: Option<String>,
}

/// What a `DefaultConnectionSettings` value says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Connection {
    /// Flag 2: the proxy of `proxy_server` is used.
    pub manual: bool,
    /// Flag 4: the script of `auto_config_url` is used.
    pub script: bool,
    /// Flag 8: proxies are discovered.
    pub detect: bool,
    /// The proxies.
    pub proxy_server: String,
    /// The exceptions.
    pub proxy_override: String,
    /// The script's address.
    pub auto_config_url: String,
}

impl System {
    /// Reads through `reads`; looks at the Internet settings of the user with that SID where no policy says otherwise.
    pub fn new(reads: Option<Arc<dyn SystemProxies>>, user_sid: Option<String>) -> Self {
        Self { reads, user_sid }
    }

    /// The settings of this machine, as far as its platform has any.
    pub fn of_this_machine(user_sid: Option<String>) -> Self {
        Self::new(crate::platform::system_proxies(), user_sid)
    }

    /// Policy, then WinHTTP's machine default, then Internet settings, then discovery. The first that names a proxy or a
    /// script is the answer. Blocks.
    pub fn find(&self, to: &Destination) -> Plan {
        let Some(reads) = &self.reads else {
            return Plan::new(Route::Direct, "system", "this platform has no proxy settings of its own");
        };
        let mut notes = Vec::new();
        let mut found = None;
        if reads.per_machine() {
            found = self.internet(&**reads, &Whose::Machine, to, &mut notes);
        }
        found = found.or_else(|| machine_default(&**reads, to, &mut notes));
        if found.is_none() && !reads.per_machine() {
            let whose = self.user_sid.clone().map_or(Whose::Own, Whose::User);
            found = self.internet(&**reads, &whose, to, &mut notes);
        }
        let mut plan =
            found.unwrap_or_else(|| Plan::new(Route::Direct, "system", "no setting names a proxy"));
        plan.troubled |= !notes.is_empty();
        plan.notes.splice(0..0, notes);
        plan
    }

    fn internet(
        &self,
        reads: &dyn SystemProxies,
        whose: &Whose,
        to: &Destination,
        notes: &mut Vec<String>,
    ) -> Option<Plan> {
        let settings = match reads.internet_settings(whose) {
            Ok(settings) => settings,
            Err(error) => {
                notes.push(format!("Internet settings of {whose} cannot be read: {error}"));
                return None;
            }
        };
        let connection = settings.effective();
        let source = format!("Internet settings of {whose}");
        let mut automatic = Vec::new();
        if connection.detect {
            automatic.push(Automatic::Detect);
        }
        if connection.script && !connection.auto_config_url.is_empty() {
            automatic.push(Automatic::Script(connection.auto_config_url.clone()));
        }
        for by in automatic {
            if matches!(&by, Automatic::Script(url) if url.to_ascii_lowercase().starts_with("file:")) {
                notes.push(format!("{source}: WinHTTP refuses {by}; name the file with proxy.pac_file"));
                continue;
            }
            match reads.for_url(&to.url(), &by) {
                Ok(named) => return Some(plan(&named, to, &format!("{source}, {by}"))),
                Err(error) => notes.push(format!("{source}, {by}: {error}")),
            }
        }
        if !connection.manual || connection.proxy_server.is_empty() {
            return None;
        }
        let named =
            NamedProxies { proxies: Some(connection.proxy_server), bypass: Some(connection.proxy_override) };
        Some(plan(&named, to, &source))
    }
}

fn machine_default(reads: &dyn SystemProxies, to: &Destination, notes: &mut Vec<String>) -> Option<Plan> {
    match reads.machine_default() {
        Ok(named) if named.proxies.as_deref().is_some_and(|list| !list.trim().is_empty()) => {
            Some(plan(&named, to, "WinHTTP's machine setting"))
        }
        Ok(_) => None,
        Err(error) => {
            notes.push(format!("WinHTTP's machine setting cannot be read: {error}"));
            None
        }
    }
}

fn plan(named: &NamedProxies, to: &Destination, source: &str) -> Plan {
    let (bypass, bad) = proxy_override(named.bypass.as_deref().unwrap_or_default());
    if let Some(item) = bypass.matching(to) {
        return Plan::new(Route::Direct, source, format!("exception {item}"));
    }
    let (routes, mut notes) = automatic_routes(named.proxies.as_deref().unwrap_or_default(), to.scheme);
    notes.extend(bad);
    Plan {
        routes,
        source: source.to_owned(),
        rule: "no exception covers it".to_owned(),
        troubled: !notes.is_empty(),
        notes,
    }
}

/// Reads `ProxyServer` and the lists of WinHTTP: `host:port` for everything or `scheme=host:port` for some, entries split
/// by `;` or blanks. An empty list means to go straight.
pub fn proxy_list(text: &str, scheme: &str) -> (Vec<Route>, Vec<String>) {
    let (mut routes, mut notes) = (Vec::new(), Vec::new());
    for entry in text.split([';', ' ', '\t', '\r', '\n', '\0']).filter(|entry| !entry.is_empty()) {
        let (kind, at) = entry.split_once('=').map_or((None, entry), |(kind, at)| (Some(kind), at));
        match kind {
            Some(kind) if kind.eq_ignore_ascii_case("socks") => {
                notes.push("socks= is skipped: SOCKS proxies are not supported".to_owned());
                continue;
            }
            Some(kind) if !kind.eq_ignore_ascii_case(scheme) => continue,
            _ => {}
        }
        if at.eq_ignore_ascii_case("direct") {
            routes.push(Route::Direct);
            continue;
        }
        // Windows' default port for a proxy is the scheme's own.
        let (at, default_port) = match at.split_once("://") {
            Some((_, rest)) => (rest.trim_end_matches('/'), 80),
            None => (at, 80),
        };
        match super::host_and_port(at, default_port) {
            Ok((host, port)) => {
                routes.push(Route::Proxy(ProxyServer { host: super::normal(&host), port, tls: false }));
            }
            Err(problem) => notes.push(format!("entry {:?} is skipped: it {problem}", shortened(entry))),
        }
    }
    routes.truncate(super::pac::limits::ENTRIES_MAX);
    if routes.is_empty() {
        routes.push(Route::Direct);
    }
    (routes, notes)
}

/// Reads `ProxyOverride`: `;` or blanks, `<local>`, globs; a bare name is that name alone.
pub fn proxy_override(text: &str) -> (Bypass, Vec<String>) {
    let items = text
        .split([';', ' ', '\t', '\r', '\n', '\0'])
        .filter(|item| !item.eq_ignore_ascii_case("<-loopback>"));
    let (bypass, bad) = Bypass::parse_leniently(items, BareName::Alone);
    (bypass, bad.iter().map(|error| format!("ProxyOverride: {error}")).collect())
}

impl InternetSettings {
    /// The blob is what the settings page writes and WinINet reads; the single values are the older copy of it, and the
    /// only one where a script or policy wrote them.
    pub fn effective(&self) -> Connection {
        let blob =
            self.default_connection_settings.as_deref().and_then(Connection::parse).unwrap_or_default();
        let text = |single: &Option<String>, blob: &str| match single {
            Some(text) if !text.trim().is_empty() => text.trim().to_owned(),
            _ => blob.to_owned(),
        };
        let auto_config_url = text(&self.auto_config_url, &blob.auto_config_url);
        Connection {
            manual: self.proxy_enable.map_or(blob.manual, |enabled| enabled != 0),
            script: blob.script || self.auto_config_url.as_ref().is_some_and(|url| !url.trim().is_empty()),
            detect: blob.detect,
            proxy_server: text(&self.proxy_server, &blob.proxy_server),
            proxy_override: text(&self.proxy_override, &blob.proxy_override),
            auto_config_url,
        }
    }
}

impl Connection {
    /// Layout: version (4 bytes), counter (4), flags (4), then three texts, each a length of 4 bytes and so many bytes:
    /// proxies, exceptions, script. All little-endian; not documented by Microsoft, as observed.
    pub fn parse(blob: &[u8]) -> Option<Self> {
        let mut rest = blob.get(8..)?;
        let flags = number(&mut rest)?;
        let mut text = || {
            let length = usize::try_from(number(&mut rest)?).ok()?;
            let (bytes, after) = rest.split_at_checked(length)?;
            rest = after;
            Some(String::from_utf8_lossy(bytes).trim_end_matches('\0').to_owned())
        };
        // A value cut short is still good for its flags.
        Some(Self {
            manual: flags & 2 != 0,
            script: flags & 4 != 0,
            detect: flags & 8 != 0,
            proxy_server: text().unwrap_or_default(),
            proxy_override: text().unwrap_or_default(),
            auto_config_url: text().unwrap_or_default(),
        })
    }
}

fn number(rest: &mut &[u8]) -> Option<u32> {
    let (bytes, after) = rest.split_first_chunk()?;
    *rest = after;
    Some(u32::from_le_bytes(*bytes))
}

/// Routes out of an answer of WinHTTP, which may also be in PAC's own words.
pub fn automatic_routes(text: &str, scheme: &str) -> (Vec<Route>, Vec<String>) {
    let pac = text.split(';').any(|entry| {
        let kind = entry.split_whitespace().next().unwrap_or_default();
        ["PROXY", "HTTPS", "DIRECT"].iter().any(|word| kind.eq_ignore_ascii_case(word))
    });
    if pac { answer::routes(text) } else { proxy_list(text, scheme) }
}

impl AutomaticError {
    fn meaning(self) -> &'static str {
        match self.code {
            12015 => "the script's server wants a logon",
            12166 => "the script is bad",
            12167 => "the script cannot be downloaded",
            12178 => "the discovery service fails",
            12180 => "no script was discovered",
            _ => "see the system's list of errors",
        }
    }
}

impl std::fmt::Display for Whose {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Machine => f.write_str("the machine (policy)"),
            Self::User(sid) => write!(f, "user {sid}"),
            Self::Own => f.write_str("the service's account"),
        }
    }
}

impl std::fmt::Display for Automatic {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Detect => f.write_str("discovery by DHCP and DNS"),
            Self::Script(url) => write!(f, "script {url}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(routes: &[Route]) -> String {
        routes.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
    }

    #[test]
    fn proxy_lists_of_every_form() {
        for (text, expected) in [
            ("proxy:8080", "proxy http://proxy:8080"),
            ("p1:8080;p2:8080", "proxy http://p1:8080, proxy http://p2:8080"),
            ("p1:8080 p2:8080", "proxy http://p1:8080, proxy http://p2:8080"),
            ("http=a:1;https=b:2;ftp=c:3;socks=d:4", "proxy http://b:2"),
            ("http=a:1", "direct"),
            ("HTTPS=Http://B:2/", "proxy http://b:2"),
            ("proxy", "proxy http://proxy:80"),
            ("[2001:db8::1]:8080", "proxy http://[2001:db8::1]:8080"),
            ("", "direct"),
            ("p:0", "direct"),
        ] {
            assert_eq!(listed(&proxy_list(text, "https").0), expected, "{text}");
        }
        assert_eq!(listed(&automatic_routes("PROXY a:1; DIRECT", "https").0), "proxy http://a:1, direct");
        assert_eq!(listed(&automatic_routes("a:1;b:2", "https").0), "proxy http://a:1, proxy http://b:2");
    }

    /// Put together by hand from the layout, not by our reader's mirror image.
    fn blob(flags: u8, texts: [&str; 3]) -> Vec<u8> {
        let mut blob = vec![0x46, 0, 0, 0, 0x0b, 0, 0, 0, flags, 0, 0, 0];
        for text in texts {
            blob.extend([u8::try_from(text.len()).unwrap(), 0, 0, 0]);
            blob.extend(text.as_bytes());
        }
        blob.extend([0; 32]);
        blob
    }

    #[test]
    fn the_blob_s_flags_and_texts() {
        let read = Connection::parse(&blob(0x0f, ["p:8080", "<local>", "http://pac/x"])).unwrap();
        assert!(read.manual && read.script && read.detect);
        assert_eq!((read.proxy_server.as_str(), read.proxy_override.as_str()), ("p:8080", "<local>"));
        assert_eq!(read.auto_config_url, "http://pac/x");
        assert_eq!(Connection::parse(&blob(1, ["", "", ""])), Some(Connection::default()));
        assert_eq!(Connection::parse(&[0x46, 0, 0]), None);
        let cut = Connection::parse(&[0x46, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, b'p'])
            .unwrap();
        assert!(cut.manual && cut.proxy_server.is_empty());
    }

    /// A system with just these settings.
    #[derive(Default)]
    struct Fixed {
        machine: NamedProxies,
        per_machine: bool,
        settings: Vec<(Whose, InternetSettings)>,
        automatic: Option<NamedProxies>,
    }

    impl SystemProxies for Fixed {
        fn machine_default(&self) -> io::Result<NamedProxies> {
            Ok(self.machine.clone())
        }

        fn per_machine(&self) -> bool {
            self.per_machine
        }

        fn internet_settings(&self, whose: &Whose) -> io::Result<InternetSettings> {
            let found = self.settings.iter().find(|(of, _)| of == whose);
            Ok(found.map(|(_, settings)| settings.clone()).unwrap_or_default())
        }

        fn for_url(&self, url: &str, _: &Automatic) -> Result<NamedProxies, AutomaticError> {
            assert_eq!(url, "https://cloud.example/");
            self.automatic.clone().ok_or(AutomaticError { code: 12180 })
        }
    }

    fn way(system: Fixed, sid: Option<&str>) -> String {
        let to = Destination::parse("https://cloud.example/").unwrap();
        System::new(Some(Arc::new(system)), sid.map(str::to_owned)).find(&to).to_string()
    }

    #[test]
    fn policy_then_machine_then_user() {
        let named = |list: &str| NamedProxies { proxies: Some(list.into()), bypass: None };
        let manual = |list: &str| InternetSettings {
            proxy_enable: Some(1),
            proxy_server: Some(list.into()),
            ..InternetSettings::default()
        };
        let all = |per_machine| Fixed {
            machine: named("winhttp:1"),
            per_machine,
            settings: vec![
                (Whose::Machine, manual("policy:1")),
                (Whose::User("S-1".into()), manual("user:1")),
            ],
            automatic: None,
        };
        assert!(way(all(true), None).starts_with("proxy http://policy:1"));
        assert!(way(all(false), None).starts_with("proxy http://winhttp:1"));
        let user = Fixed { machine: NamedProxies::default(), ..all(false) };
        assert!(way(user, Some("S-1")).starts_with("proxy http://user:1"));
        let nobody = Fixed { machine: NamedProxies::default(), ..all(false) };
        assert!(way(nobody, None).starts_with("direct"));
    }

    #[test]
    fn discovery_comes_before_the_manual_proxy_and_failure_falls_to_it() {
        let settings = InternetSettings {
            proxy_enable: Some(1),
            default_connection_settings: Some(blob(0x0b, ["manual:1", "*.corp;cloud.example", ""])),
            ..InternetSettings::default()
        };
        let system = |automatic| Fixed {
            settings: vec![(Whose::Own, settings.clone())],
            automatic,
            ..Fixed::default()
        };
        let found = NamedProxies { proxies: Some("found:1".into()), bypass: None };
        assert!(way(system(Some(found)), None).starts_with("proxy http://found:1"));
        let text = way(system(None), None);
        assert!(
            text.starts_with("direct (by Internet settings") && text.contains("exception cloud.example"),
            "{text}"
        );
    }
}
