//! `agent.toml`: what stays on the premises. Where the cloud is, how to get there, what the customer forbids, and the
//! local part of every module's settings. The desired config from the cloud is another document; where both speak,
//! this one wins.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use thiserror::Error;
use toml::de::{DeTable, DeValue};

pub use crate::dial::proxy::settings::ProxySettings as Proxy;
use crate::limits::SETTINGS_FILE_MAX_BYTES;

/// The file's name in the data directory.
pub const FILE_NAME: &str = "agent.toml";

/// All of it.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// The management cloud.
    pub cloud: Cloud,
    /// The way out.
    pub proxy: Option<Proxy>,
    /// Name resolution.
    pub dns: Dns,
    /// Logging.
    pub log: Log,
    /// What the customer forbids.
    pub limits: Limits,
    /// Directories by name; several modules may use the same one.
    pub directory: BTreeMap<String, Value>,
    /// Exchange organisations by name.
    pub exchange: BTreeMap<String, Value>,
    /// Certificate authorities by name.
    pub ca: BTreeMap<String, Value>,
    /// Modules by kind.
    pub modules: BTreeMap<String, Value>,
}

/// `[cloud]`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Cloud {
    /// `https://host:port`. Written by `enroll`.
    pub url: String,
    /// PEM file with the authorities that may sign the cloud's certificate; relative to the data directory. Default:
    /// the system's store.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// Further hosts the cloud may send this agent to when it moves its agents, for example `node2.cloud.example` or
    /// `*.cloud.example`; they must show the certificate of the host in `url`. Default: that host only, at any port.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub redirect_hosts: Vec<String>,
    /// What this agent is called in the portal, at most 100 characters. Default: the host's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
}

impl Cloud {
    /// What this agent is called in the portal.
    pub fn shown_name(&self) -> String {
        self.display_name.clone().unwrap_or_else(crate::identity::host_name)
    }
}

/// `[dns]`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Dns {
    /// Name servers as `address:port`. Default: the system's.
    pub servers: Vec<SocketAddr>,
}

/// `[log]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// `error`, `warn`, `info`, `debug`, or directives such as `info,causeway_agent::channel=debug`. Default `info`.
    pub level: String,
    /// A file for the log besides standard error; relative to the data directory. Default: none; the service on Windows,
    /// which has no standard error, writes `agent.log`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<PathBuf>,
    /// Size at which a log file is kept aside and a new one begun, 64 KiB to 1 GiB. Default 10 MiB.
    pub file_max_bytes: u64,
    /// Log files kept, the current one included, 1 to 100. Default 5.
    pub files_max: u32,
}

impl Default for Log {
    fn default() -> Self {
        Self { level: "info".to_owned(), file: None, file_max_bytes: 10 << 20, files_max: 5 }
    }
}

/// `[limits]`: the customer's word against the cloud's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Whether the desired config may name servers for modules to talk to. Default false: only this file may.
    pub allow_cloud_endpoints: bool,
    /// Kinds of modules that never run here, whatever the cloud says.
    pub modules_forbidden: Vec<String>,
    /// Requests (password checks) worked on at once, 1 to 1,024; more are answered `overloaded`. Default 256.
    pub requests_at_once: u32,
    /// Actions worked on at once, 1 to 256; more wait. Default 32.
    pub actions_at_once: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            allow_cloud_endpoints: false,
            modules_forbidden: Vec::new(),
            requests_at_once: 256,
            actions_at_once: 32,
        }
    }
}

/// Why the file cannot be used.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum FileError {
    /// It cannot be read.
    #[error("read {}", .path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// What the operating system says.
        #[source]
        source: std::io::Error,
    },
    /// It is larger than anyone writes by hand.
    #[error("{} has {bytes} bytes, the limit is {SETTINGS_FILE_MAX_BYTES}", .path.display())]
    TooLarge {
        /// Which file.
        path: PathBuf,
        /// Its size.
        bytes: u64,
    },
    /// It is not what it should be.
    #[error("{}:{line}:{column}: {problem}\n  advice: {advice}", .path.display())]
    Invalid {
        /// Which file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// Column in characters, from 1.
        column: usize,
        /// What is wrong.
        problem: String,
        /// What to do.
        advice: String,
    },
}

/// The file as read: the settings, and the text for errors that show only later.
#[derive(Clone, Debug, Default)]
pub struct SettingsFile {
    /// Where it is.
    pub path: PathBuf,
    /// Its text.
    pub text: String,
    /// Its content.
    pub settings: Settings,
}

impl SettingsFile {
    /// Reads `agent.toml` of a data directory; a missing file is an empty one.
    ///
    /// # Errors
    /// Names line and column.
    pub fn load(data_dir: &Path) -> Result<Self, FileError> {
        let path = data_dir.join(FILE_NAME);
        let read = |source| FileError::Read { path: path.clone(), source };
        let text = match std::fs::metadata(&path) {
            Ok(meta) if meta.len() > SETTINGS_FILE_MAX_BYTES => {
                return Err(FileError::TooLarge { path, bytes: meta.len() });
            }
            Ok(_) => std::fs::read_to_string(&path).map_err(read)?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(read(error)),
        };
        Self::parse(path, text)
    }

    /// Reads settings from text; `path` appears in errors.
    ///
    /// # Errors
    /// Names line and column.
    pub fn parse(path: PathBuf, text: String) -> Result<Self, FileError> {
        let settings: Settings = toml::from_str(&text).map_err(|error| {
            let (line, column) = place(&text, error.span().map_or(0, |span| span.start));
            FileError::Invalid {
                path: path.clone(),
                line,
                column,
                problem: without_value(&error.message().replace('\n', " ")),
                advice: advice(error.message()),
            }
        })?;
        let file = Self { path, text, settings };
        file.validate()?;
        Ok(file)
    }

    /// An error at the place of a key, for example `limits.requests_at_once`.
    pub fn error_at(&self, key: &str, problem: impl Into<String>, advice: impl Into<String>) -> FileError {
        let (line, column) = place(&self.text, locate(&self.text, key).map_or(0, |(offset, _)| offset));
        FileError::Invalid {
            path: self.path.clone(),
            line,
            column,
            problem: format!("{key}: {}", problem.into()),
            advice: advice.into(),
        }
    }

    fn validate(&self) -> Result<(), FileError> {
        let Settings { cloud, proxy, limits, log, .. } = &self.settings;
        if !cloud.url.is_empty()
            && let Err(problem) = Endpoint::parse(&cloud.url)
        {
            return Err(self.error_at("cloud.url", problem, "write it as https://cloud.example:443"));
        }
        if let Some(proxy) = proxy
            && let Err(problem) = proxy.validate()
        {
            return Err(self.error_at(problem.key, problem.problem, problem.advice));
        }
        if let Some(name) = &cloud.display_name
            && (name.trim().is_empty() || name.chars().count() > 100 || name.chars().any(char::is_control))
        {
            return Err(self.error_at(
                "cloud.display_name",
                "unusable",
                "choose 1 to 100 printable characters",
            ));
        }
        if let Some(file) = &log.file
            && (file.file_name().is_none() || file.to_string_lossy().ends_with(std::path::is_separator))
        {
            return Err(self.error_at("log.file", "names no file", "write a name such as agent.log"));
        }
        if !(64 << 10..=1 << 30).contains(&log.file_max_bytes) {
            return Err(self.error_at("log.file_max_bytes", "out of range", "choose 65536 to 1073741824"));
        }
        if !(1..=100).contains(&log.files_max) {
            return Err(self.error_at("log.files_max", "out of range", "choose 1 to 100"));
        }
        if !crate::logging::is_level(&log.level) {
            return Err(self.error_at("log.level", "unreadable", "write error, warn, info or debug"));
        }
        if !(1..=1024).contains(&limits.requests_at_once) {
            return Err(self.error_at("limits.requests_at_once", "out of range", "choose 1 to 1024"));
        }
        if !(1..=256).contains(&limits.actions_at_once) {
            return Err(self.error_at("limits.actions_at_once", "out of range", "choose 1 to 256"));
        }
        Ok(())
    }
}

/// Host and port out of a URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Name or address, without brackets.
    pub host: String,
    /// Port.
    pub port: u16,
}

impl Endpoint {
    /// Reads `https://host[:port]`, default port 443.
    ///
    /// # Errors
    /// Says what is wrong, without repeating the text (it may hold credentials).
    pub fn parse(url: &str) -> Result<Self, &'static str> {
        let rest = url.strip_prefix("https://").ok_or("does not begin with https://")?;
        authority(rest, 443)
    }

    /// Host as it is written in URLs and Host headers.
    pub fn bracketed(&self) -> String {
        if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() }
    }
}

fn authority(rest: &str, default_port: u16) -> Result<Endpoint, &'static str> {
    let rest = rest.trim_end_matches('/');
    if rest.contains('@') {
        return Err("must not hold credentials");
    }
    if rest.contains(['/', '?', '#', ' ']) {
        return Err("must end after the port");
    }
    let (host, port) = match rest.strip_prefix('[') {
        Some(v6) => {
            let (host, rest) = v6.split_once(']').ok_or("lacks the closing bracket")?;
            (host, rest.strip_prefix(':'))
        }
        None => match rest.rsplit_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (rest, None),
        },
    };
    if host.is_empty() {
        return Err("names no host");
    }
    let port = port.map_or(Ok(default_port), str::parse).map_err(|_| "has an unusable port")?;
    Ok(Endpoint { host: host.to_owned(), port })
}

impl SettingsFile {
    /// The line (from 1) where the file sets a dotted key; none when it does not. A part of an array is where the array
    /// is.
    pub fn line_of(&self, key: &str) -> Option<usize> {
        match locate(&self.text, key)? {
            (offset, true) => Some(place(&self.text, offset).0),
            (_, false) => None,
        }
    }
}

/// Line and column (both from 1, in characters) of a byte offset.
fn place(text: &str, offset: usize) -> (usize, usize) {
    let before = &text[..text.floor_char_boundary(offset)];
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    (line, column)
}

/// Byte offset of the value at a dotted key, or of its nearest table that exists, and which of the two it is.
fn locate(text: &str, key: &str) -> Option<(usize, bool)> {
    let root = DeTable::parse(text).ok()?;
    let mut table = root.get_ref();
    let (mut rest, mut found) = (key, None);
    loop {
        // A key may hold dots itself: the longest one that exists is meant.
        let mut ends: Vec<usize> = rest.match_indices('.').map(|(at, _)| at).collect();
        ends.push(rest.len());
        let longest = ends.into_iter().rev().find_map(|end| Some((end, table.get(&rest[..end])?)));
        let Some((end, value)) = longest else { return found };
        let offset = value.span().start;
        match value.get_ref() {
            DeValue::Table(inner) if end < rest.len() => {
                table = inner;
                rest = &rest[end + 1..];
                found = Some((offset, false));
            }
            _ => return Some((offset, true)),
        }
    }
}

fn advice(message: &str) -> String {
    if message.starts_with("unknown field") {
        match nearest(message) {
            Some(known) => {
                format!("write {known}, or remove the key; `causeway-agent show-config` lists all keys")
            }
            None => "remove the key; `causeway-agent show-config` lists all keys".to_owned(),
        }
    } else if message.starts_with("missing field") {
        "add the key".to_owned()
    } else if message.starts_with("invalid type") {
        "write the value as the kind of value named".to_owned()
    } else {
        "correct the line; texts stand in quotes, tables begin with [name]".to_owned()
    }
}

/// The known key that is most like the unknown one, out of serde's "unknown field `a`, expected one of `b`, `c`". None
/// when no key is alike.
pub(crate) fn nearest(message: &str) -> Option<&str> {
    let (written, expected) = message.strip_prefix("unknown ")?.rsplit_once(", expected ")?;
    let unknown = written.split_once('`')?.1.trim_end_matches('`');
    let known = expected.split('`').skip(1).step_by(2);
    let (distance, known) = known.map(|known| (strsim::osa_distance(unknown, known), known)).min()?;
    (distance <= 1 + unknown.chars().count() / 3).then_some(known)
}

/// serde's words without the value they repeat: a person may have written a password where something else belongs, and
/// errors travel. Names of keys stay.
pub(crate) fn without_value(message: &str) -> String {
    let expected = |rest: &str| rest.rsplit_once(", expected ").map(|(_, expected)| expected.to_owned());
    for what in ["invalid type: ", "invalid value: "] {
        if let Some(rest) = message.strip_prefix(what) {
            let kind = rest.split(['`', '"', ',']).next().unwrap_or_default().trim_end();
            let expected = expected(rest).map(|expected| format!(", expected {expected}"));
            return format!("{what}{kind}{}", expected.unwrap_or_default());
        }
    }
    match message.strip_prefix("unknown variant ") {
        Some(rest) => match expected(rest) {
            Some(expected) => format!("unknown value, expected {expected}"),
            None => "unknown value".to_owned(),
        },
        None => message.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<SettingsFile, FileError> {
        SettingsFile::parse(PathBuf::from("agent.toml"), text.to_owned())
    }

    #[test]
    fn a_broken_file_is_refused_at_line_and_column_with_advice() {
        let error = parse("[cloud]\nurl = \"https://c\"\n\n[limits]\nreqests_at_once = 3\n").unwrap_err();
        let text = error.to_string();
        assert!(text.starts_with("agent.toml:5:1: unknown field `reqests_at_once`"), "{text}");
        assert!(text.contains("advice: write requests_at_once, or remove the key"), "{text}");
        let text = parse("[limits]\nzebra = 3\n").unwrap_err().to_string();
        assert!(text.contains("advice: remove the key"), "{text}");

        let text = parse("[cloud]\nurl = \"https://c\n").unwrap_err().to_string();
        assert!(text.starts_with("agent.toml:2:"), "{text}");

        let text = parse("[log]\nlevel = 3\n").unwrap_err().to_string();
        assert!(text.starts_with("agent.toml:2:9: invalid type"), "{text}");
    }

    #[test]
    fn values_that_cannot_work_are_refused_at_their_place() {
        let text = parse("[cloud]\nurl = \"http://c\"\n").unwrap_err().to_string();
        assert!(text.starts_with("agent.toml:2:7: cloud.url: does not begin with https://"), "{text}");
        let text = parse("\n[limits]\n  requests_at_once = 0\n").unwrap_err().to_string();
        assert!(text.starts_with("agent.toml:3:22: limits.requests_at_once"), "{text}");
        for file in ["/", "", "logs/", "logs/.."] {
            let text = parse(&format!("[log]\nfile = {file:?}\n")).unwrap_err().to_string();
            assert!(text.starts_with("agent.toml:2:8: log.file: names no file"), "{text}");
        }
        let text = parse("[proxy]\nurl = \"http://user:canary@p:1\"\n").unwrap_err().to_string();
        assert!(text.contains("must not hold credentials") && !text.contains("canary"), "{text}");
    }

    #[test]
    fn a_value_that_is_none_is_not_repeated() {
        for (message, shown) in [
            ("invalid type: string \"canary\", expected u32", "invalid type: string, expected u32"),
            ("invalid type: integer `5`, expected a string", "invalid type: integer, expected a string"),
            ("invalid type: map, expected a string", "invalid type: map, expected a string"),
            ("invalid value: string \"a, expected canary\", expected x", "invalid value: string, expected x"),
            (
                "unknown variant `ca`na`ry`, expected one of `a`, `b`",
                "unknown value, expected one of `a`, `b`",
            ),
            ("unknown field `zebra`, expected `a`", "unknown field `zebra`, expected `a`"),
        ] {
            assert_eq!(without_value(message), shown);
        }
        assert_eq!(nearest("unknown variant `wrn`, expected one of `info`, `warn`"), Some("warn"));
        assert_eq!(nearest("invalid type: string \"`canary` `canarz`\", expected u32"), None);
        let text = parse("[limits]\nrequests_at_once = \"canary\"\n").unwrap_err().to_string();
        assert!(text.starts_with("agent.toml:2:20: invalid type: string, expected u32"), "{text}");
        let text = parse("[proxy]\nmode = \"canary\"\n").unwrap_err().to_string();
        assert!(text.contains("unknown value, expected") && !text.contains("canary"), "{text}");
    }

    #[test]
    fn keys_are_found_at_their_lines() {
        let file =
            parse("[log]\nlevel = \"info\"\n[directory.\"a.b\"]\nservers = [\n\"ldaps://x\",\n]\n").unwrap();
        assert_eq!(file.line_of("log.level"), Some(2));
        assert_eq!(file.line_of("directory.a.b.servers"), Some(4));
        assert_eq!(file.line_of("directory.a.b.base_dn"), None);
        assert_eq!(file.line_of("limits.actions_at_once"), None);
        let error = file.error_at("directory.a.b.servers", "unusable", "correct it").to_string();
        assert!(error.starts_with("agent.toml:4:11: directory.a.b.servers: unusable"), "{error}");
    }

    #[test]
    fn urls_give_host_and_port() {
        let at = |url| Endpoint::parse(url).map(|e| (e.host, e.port));
        assert_eq!(at("https://cloud.example"), Ok(("cloud.example".to_owned(), 443)));
        assert_eq!(at("https://127.0.0.1:8443/"), Ok(("127.0.0.1".to_owned(), 8443)));
        assert_eq!(at("https://[::1]:8443"), Ok(("::1".to_owned(), 8443)));
        assert_eq!(at("https://c:99999"), Err("has an unusable port"));
    }
}
