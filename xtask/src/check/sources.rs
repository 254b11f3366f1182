//! Rules about the text of the sources.
//!
//! - `protocol` opens no socket and reads no clock (clippy says so too; this also sees code behind a `cfg`).
//! - In the agent only `dial` opens sockets, so that every byte honours the proxy and every test can cut it; and
//!   nothing listens.
//! - No file names a package registry's host or a folder of the machine it was written on.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use crate::process;
use crate::session::Session;

/// A word that must not appear below a folder, outside comments and test code.
struct Rule {
    below: &'static str,
    except: Option<&'static str>,
    words: &'static [&'static str],
    reason: &'static str,
}

const RULES: &[Rule] = &[
    Rule {
        below: "protocol/src",
        except: None,
        words: &["TcpStream", "TcpListener", "UdpSocket", "UnixStream", "ToSocketAddrs", "tokio::"],
        reason: "protocol opens no sockets",
    },
    Rule {
        below: "protocol/src",
        except: None,
        words: &[
            "Instant::now",
            "SystemTime::now",
            "UtcDateTime::now",
            "OffsetDateTime::now_utc",
            "thread::sleep",
        ],
        reason: "protocol has no clock; the driver passes `now`",
    },
    Rule {
        below: "agent/src",
        except: Some("agent/src/dial"),
        words: &["TcpStream", "TcpSocket", "UdpSocket"],
        reason: "only agent/src/dial opens sockets",
    },
    Rule { below: "agent/src", except: None, words: &["TcpListener"], reason: "the agent never listens" },
    Rule {
        below: ".",
        except: Some("agent/src/platform/windows"),
        words: &[concat!("allow(", "unsafe_code"), concat!("expect(", "unsafe_code")],
        reason: "unsafe code is for the calls into Windows, in agent/src/platform/windows",
    },
];

/// How far above an unsafe block its reason may begin: a comment of three lines and the start of the statement.
const REASON_LINES_ABOVE: usize = 5;

/// Hosts of package registries, in two halves so that this file passes its own rule.
const HOSTS: &[(&str, &str)] = &[
    ("crates", ".io"),
    ("py", "pi.org"),
    ("pythonhosted", ".org"),
    ("npmjs", ".org"),
    ("deb.debian", ".org"),
    ("security.debian", ".org"),
    ("registry-1.docker", ".io"),
    ("proxy.golang", ".org"),
];

/// Written by cargo, which names its registry in it.
const GENERATED: &[&str] = &["Cargo.lock"];

pub(crate) fn run(session: &mut Session) -> anyhow::Result<()> {
    let mut command = session.command("git");
    command.args(["ls-files", "--cached", "--others", "--exclude-standard"]);
    println!("   $ {}", process::shown(&command));
    let files = process::quiet(&mut command)?;
    let machine = machine_paths(&session.root);
    let mut wrong = Vec::new();
    for file in files.lines() {
        let path = session.root.join(file);
        // Deleted but not yet committed.
        if !path.is_file() {
            continue;
        }
        let bytes = std::fs::read(&path).with_context(|| format!("read {file}"))?;
        // Recorded bytes and pictures are nobody's words.
        let Ok(text) = String::from_utf8(bytes) else { continue };
        wrong.extend(foreign_names(file, &text, &machine));
        if file.ends_with(".rs") && !is_test_module(&session.root, file) {
            wrong.extend(RULES.iter().flat_map(|rule| broken(rule, file, &text)));
            wrong.extend(without_reason(file, &text));
        }
    }
    if wrong.is_empty() {
        return Ok(());
    }
    bail!("{}", wrong.join("\n"))
}

fn broken(rule: &Rule, file: &str, text: &str) -> Vec<String> {
    let inside = |folder: &str| folder == "." || Path::new(file).starts_with(folder);
    let test_file = file.ends_with("/tests.rs") || file.contains("/tests/");
    if !inside(rule.below) || rule.except.is_some_and(inside) || test_file {
        return Vec::new();
    }
    program_lines(text)
        .filter_map(|(number, line)| {
            let word = rule.words.iter().find(|word| contains_word(line, word))?;
            Some(format!("{file}:{number}: {word}: {}", rule.reason))
        })
        .collect()
}

/// Unsafe blocks without a sentence above that says why they are sound. The compiler denies them elsewhere.
fn without_reason(file: &str, text: &str) -> Vec<String> {
    if !Path::new(file).starts_with("agent/src/platform/windows") {
        return Vec::new();
    }
    let lines: Vec<&str> = text.lines().collect();
    let told = |at: usize| {
        lines[at.saturating_sub(REASON_LINES_ABOVE)..at].iter().any(|line| line.contains("SAFETY:"))
    };
    program_lines(text)
        .filter(|(number, line)| {
            (contains_word(line, "unsafe {") || contains_word(line, "unsafe impl")) && !told(number - 1)
        })
        .map(|(number, _)| format!("{file}:{number}: unsafe without a SAFETY comment above"))
        .collect()
}

/// Whether the file that declares this module compiles it for tests only.
fn is_test_module(root: &Path, file: &str) -> bool {
    let path = Path::new(file);
    let (Some(name), Some(folder)) = (path.file_stem().and_then(|stem| stem.to_str()), path.parent()) else {
        return false;
    };
    let parents =
        [folder.join("mod.rs"), folder.with_extension("rs"), folder.join("lib.rs"), folder.join("main.rs")];
    parents
        .iter()
        .filter_map(|parent| std::fs::read_to_string(root.join(parent)).ok())
        .any(|text| declared_for_tests(&text, name))
}

fn declared_for_tests(parent: &str, module: &str) -> bool {
    let declaration = format!("mod {module};");
    let lines: Vec<&str> = parent.lines().map(str::trim).filter(|line| !line.starts_with("//")).collect();
    lines.windows(2).any(|pair| pair[0] == "#[cfg(test)]" && pair[1].ends_with(&declaration))
}

/// Numbered lines without comments, up to the tests, which come last in a file.
fn program_lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let lines: Vec<&str> = text.lines().collect();
    let end = lines
        .windows(2)
        .position(|pair| {
            pair[0].trim() == "#[cfg(test)]" && pair[1].trim().starts_with("mod ") && pair[1].contains('{')
        })
        .unwrap_or(lines.len());
    lines
        .into_iter()
        .take(end)
        .enumerate()
        .map(|(index, line)| (index + 1, line.split("//").next().unwrap_or("")))
}

fn contains_word(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        !before.is_some_and(|c| c.is_alphanumeric() || c == '_')
    })
}

fn foreign_names(file: &str, text: &str, machine: &[String]) -> Vec<String> {
    if GENERATED.contains(&file) {
        return Vec::new();
    }
    let hosts: Vec<String> = HOSTS.iter().map(|(start, end)| format!("{start}{end}")).collect();
    let mut wrong = Vec::new();
    for (index, line) in text.lines().enumerate() {
        if let Some(host) = hosts.iter().find(|host| line.contains(host.as_str())) {
            wrong.push(format!("{file}:{}: names the package registry {host}", index + 1));
        }
        if let Some(path) = machine.iter().find(|path| line.contains(path.as_str())) {
            wrong.push(format!("{file}:{}: names the folder {path} of this machine", index + 1));
        }
    }
    wrong
}

/// Where this machine keeps the repository, and the home of whoever runs this.
fn machine_paths(root: &Path) -> Vec<String> {
    let home = std::env::var_os("HOME").map(PathBuf::from);
    [Some(root.to_owned()), home]
        .into_iter()
        .flatten()
        .filter(|path| path.components().count() > 1)
        .map(|path| format!("{}/", path.display()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_outside_dial_are_found_and_tests_and_comments_are_not() {
        let listen = "use tokio::net::TcpListener;\n";
        let connect = "let s = TcpStream::connect(x);\n";
        let in_tests = "// TcpStream\nstruct MyTcpStream;\n#[cfg(test)]\nmod tests {\n    use tokio::net::TcpListener;\n}\n";
        let count = |file: &str, text: &str| RULES.iter().flat_map(|rule| broken(rule, file, text)).count();
        assert_eq!(count("agent/src/dial/mod.rs", connect), 0);
        assert_eq!(count("agent/src/dial/mod.rs", listen), 1);
        assert_eq!(count("agent/src/channel/mod.rs", connect), 1);
        assert_eq!(count("agent/src/channel/mod.rs", in_tests), 0);
        assert_eq!(count("agent/src/channel/tests.rs", listen), 0);
        assert_eq!(count("mock-ldap/src/lib.rs", listen), 0);
        assert_eq!(count("protocol/src/lib.rs", "let now = Instant::now();\n"), 1);
    }

    #[test]
    fn unsafe_code_is_found_outside_its_place_and_without_a_reason() {
        let allow = concat!("#![allow(", "unsafe_code)]\n");
        let count = |file: &str| RULES.iter().flat_map(|rule| broken(rule, file, allow)).count();
        assert_eq!((count("agent/src/platform/windows/mod.rs"), count("agent/src/secrets.rs")), (0, 1));
        assert_eq!(count("mock-kit/src/lib.rs"), 1);
        let bare = "let a = unsafe { call() };\n";
        let reasoned = format!("// SAFETY: it is.\n{bare}");
        let place = "agent/src/platform/windows/x.rs";
        assert_eq!((without_reason(place, bare).len(), without_reason(place, &reasoned).len()), (1, 0));
    }

    #[test]
    fn a_module_is_for_tests_only_where_its_declaration_says_so() {
        let parent = "mod wire;\n#[cfg(test)]\n/// Peers for tests.\npub(crate) mod testing;\n";
        assert!(declared_for_tests(parent, "testing"));
        assert!(!declared_for_tests(parent, "wire"));
        assert!(!declared_for_tests("#[cfg(test)]\nmod my_testing;\n", "other"));
    }

    #[test]
    fn hosts_and_own_folders_are_found() {
        let host: String = [HOSTS[0].0, HOSTS[0].1].concat();
        let machine = vec!["/somewhere/repository/".to_owned()];
        assert_eq!(foreign_names("README.md", &format!("see {host}\n"), &machine).len(), 1);
        assert_eq!(foreign_names("a.rs", "x\n/somewhere/repository/a.rs\n", &machine).len(), 1);
        assert_eq!(foreign_names("Cargo.lock", &host, &machine).len(), 0);
        assert_eq!(foreign_names("a.rs", "/somewhere/else\n", &machine).len(), 0);
    }
}
