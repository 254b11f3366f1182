//! The program itself: what it opens, what it prints, what it leaves behind.

use std::collections::HashSet;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use causeway_agent::config::FILE_NAME;
use causeway_agent::identity;
use causeway_agent::secrets::{self, FileModeSealer};
use tempfile::TempDir;

use crate::support;

const PROGRAM: &str = env!("CARGO_BIN_EXE_causeway-agent");

/// A data directory that looks enrolled, with a cloud that nobody answers for.
fn enrolled() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let config = support::config(dir.path(), "");
    config.identity.save(dir.path(), &FileModeSealer).unwrap();
    let text = "[cloud]\nurl = \"https://127.0.0.1:1\"\nca_file = \"ca.pem\"\n\n[log]\nlevel = \"trace\"\n";
    fs::write(dir.path().join(FILE_NAME), text).unwrap();
    dir
}

fn agent(dir: &Path, words: &[&str]) -> Command {
    let mut command = Command::new(PROGRAM);
    command.args(words).arg("--data-dir").arg(dir).stdin(Stdio::null());
    command
}

fn run(dir: &Path, words: &[&str], stdin: Option<&str>) -> Output {
    let mut command = agent(dir, words);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    if stdin.is_some() {
        command.stdin(Stdio::piped());
    }
    let mut child = command.spawn().unwrap();
    if let Some(text) = stdin {
        child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    }
    child.wait_with_output().unwrap()
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// A child that is ended with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Waits until `look` finds something; a file of another process can only be looked at again and again.
fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "{what} did not happen");
        std::thread::yield_now();
    }
}

/// Inodes of sockets in state LISTEN (0A) or unconnected UDP (07), among those the process holds open.
#[cfg(target_os = "linux")]
fn listening(pid: u32) -> Vec<String> {
    let own: HashSet<String> = fs::read_dir(format!("/proc/{pid}/fd"))
        .unwrap()
        .filter_map(|entry| {
            let link = fs::read_link(entry.ok()?.path()).ok()?;
            Some(link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned())
        })
        .collect();
    ["tcp", "tcp6"]
        .iter()
        .flat_map(|table| {
            let lines = fs::read_to_string(format!("/proc/{pid}/net/{table}")).unwrap_or_default();
            lines.lines().skip(1).map(str::to_owned).collect::<Vec<_>>()
        })
        .filter(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            words[3] == "0A" && own.contains(words[9])
        })
        .collect()
}

/// The agent forbids images of itself, and its files below /proc are root's then.
#[cfg(target_os = "linux")]
fn may_look_into(pid: u32) -> bool {
    fs::read_dir(format!("/proc/{pid}/fd")).is_ok()
}

#[cfg(target_os = "linux")]
#[test]
fn nobody_reading_what_is_printed_ends_nothing() {
    // The reader has gone before the first word.
    for words in [&["check", "--list"][..], &["check", "--list", "--json"]] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut command = Command::new(PROGRAM);
        let ended = command.args(words).stdout(writer).stderr(Stdio::piped()).output().unwrap();
        assert_eq!((ended.status.code(), text(&ended).as_str()), (Some(0), ""), "{words:?}");
    }
    let full = || fs::File::options().write(true).open("/dev/full").unwrap();
    let mut command = Command::new(PROGRAM);
    let ended = command.args(["check", "--list"]).stdout(full()).stderr(Stdio::piped()).output().unwrap();
    assert_eq!(ended.status.code(), Some(1), "{}", text(&ended));
    assert!(text(&ended).contains("write to standard output"), "{}", text(&ended));

    // A log nobody takes any more.
    let dir = enrolled();
    let child = agent(dir.path(), &["run"]).stdout(full()).stderr(full()).spawn().unwrap();
    let mut child = Running(child);
    let status = dir.path().join(causeway_agent::health::FILE_NAME);
    until("an attempt to connect", || {
        fs::read_to_string(&status).ok().filter(|text| text.contains("offline, next attempt"))
    });
    assert_eq!(child.0.try_wait().unwrap(), None, "it ended");
}

#[test]
fn a_killed_agent_does_not_run() {
    let dir = enrolled();
    let child = agent(dir.path(), &["run"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let child = Running(child);
    let shown = || text(&run(dir.path(), &["status"], None));
    until("a status", || shown().contains("agent        running for").then_some(()));
    drop(child);
    assert!(shown().contains("not running: it ended without a word"), "{}", shown());
    let said = text(&run(dir.path(), &["check", "installation"], None));
    assert!(said.contains("installation.one_agent: none runs"), "{said}");
}

#[test]
fn a_password_where_its_name_belongs_goes_nowhere() {
    let dir = enrolled();
    let before = fs::read_to_string(dir.path().join(FILE_NAME)).unwrap();
    for words in [
        ["configure", "directory", "--set", "password=canary-1"],
        ["configure", "exchange", "--set", "accounts=[{ user = 'u', password = 'canary-2' }]"],
        ["configure", "ca", "--set", "challenge=canary-3"],
    ] {
        let output = run(dir.path(), &words, None);
        let said = text(&output);
        assert!(!output.status.success() && !said.contains("canary"), "{words:?}: {said}");
    }
    assert_eq!(fs::read_to_string(dir.path().join(FILE_NAME)).unwrap(), before);
    // Somebody has written them with an editor.
    let written = "[directory.default]\nservers = [\"ldaps://127.0.0.1:1\"]\nbind_dn = \"cn=svc\"\n\
                   password = \"canary-1\"\n\
                   [exchange.default]\nservers = [\"https://127.0.0.1:1/PowerShell/\"]\n\
                   accounts = [{ user = \"svc\", password = \"canary-2\" }]\n\
                   [ca.default]\nurls = [\"https://127.0.0.1:1/\"]\nchallenge = \"canary-3\"\n\
                   [modules.user_auth]\n[modules.exchange]\n[modules.certificates]\n";
    fs::write(dir.path().join(FILE_NAME), format!("{before}{written}")).unwrap();
    let mut said = text(&run(dir.path(), &["check"], None));
    for key in ["directory.default.password names", "exchange.default.accounts[0].password names"] {
        assert!(said.contains(key), "{key}: {said}");
    }
    let bundle = dir.path().join("bundle.json");
    said.push_str(&text(&run(dir.path(), &["support-bundle", "--output", bundle.to_str().unwrap()], None)));
    said.push_str(&fs::read_to_string(&bundle).unwrap());
    assert!(!said.contains("canary"), "{said}");
}

#[cfg(target_os = "linux")]
#[test]
fn the_agent_has_no_listening_socket() {
    // The way of looking finds what is there.
    let ours = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    assert_eq!(listening(std::process::id()).len(), 1);
    drop(ours);

    let dir = enrolled();
    let child = agent(dir.path(), &["run"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let child = Running(child);
    let status = dir.path().join(causeway_agent::health::FILE_NAME);
    until("an attempt to connect", || {
        fs::read_to_string(&status).ok().filter(|text| text.contains("offline, next attempt"))
    });
    if !may_look_into(child.0.id()) {
        eprintln!("SKIPPED the_agent_has_no_listening_socket: only root may look into the agent");
        return;
    }
    assert_eq!(listening(child.0.id()), Vec::<String>::new());
}

#[test]
fn no_secret_of_any_kind_is_ever_printed_or_left_behind() {
    let dir = enrolled();
    let mut said = String::new();
    let mut take = |output: Output| said.push_str(&text(&output));
    let other = tempfile::tempdir().unwrap();
    let url = "https://127.0.0.1:1";
    let key = "cw1-canarykeyid-canary-key-secret";
    let proxy = "http://svc:canary-proxy-spec@127.0.0.1:1";
    take(run(other.path(), &["enroll", "--cloud", url, "--key", key, "--proxy", proxy], None));
    let set = ["--set", "servers=ldaps://127.0.0.1:1", "--set", "bind_dn=cn=svc"];
    let words = [&["configure", "user_auth"][..], &set, &["--secret-from-stdin", "password"]].concat();
    take(run(dir.path(), &words, Some("canary-directory\n")));
    take(run(dir.path(), &["configure", "proxy", "--set", "url=http://127.0.0.1:1"], None));
    let words = ["configure", "proxy", "--set", "username=svc", "--secret-from-stdin", "password"];
    take(run(dir.path(), &words, Some("canary-proxy\n")));
    // A person writes a password where none belongs.
    let path = dir.path().join(FILE_NAME);
    let mut settings = fs::read_to_string(&path).unwrap();
    settings.push_str("\n[directory.unused]\nbind_dn = \"canary-directory\"\n");
    fs::write(&path, settings).unwrap();

    let log = dir.path().join("log.txt");
    let child = agent(dir.path(), &["run"])
        .stdout(fs::File::create(&log).unwrap())
        .stderr(fs::OpenOptions::new().append(true).open(&log).unwrap())
        .spawn()
        .unwrap();
    let child = Running(child);
    until("the log", || fs::read_to_string(&log).ok().filter(|log| log.contains("Offline")));
    drop(child);
    // Everything a log could hold that it should not: the bundle takes its end along.
    let planted = "dial http://u:canary-url@p:1 as canary-directory with cw1-canaryid-canarykey\n\
                   -----BEGIN PRIVATE KEY----- canary-pem\n";
    fs::write(dir.path().join("agent.log"), planted).unwrap();
    let bundle = dir.path().join("bundle.json");
    take(run(dir.path(), &["support-bundle", "--output", bundle.to_str().unwrap()], None));
    let bundled = fs::read_to_string(&bundle).unwrap();
    assert!(bundled.contains("[removed]") && bundled.contains("dial http://[removed]@p:1"), "{bundled}");
    let sections: serde_json::Value = serde_json::from_str(&bundled).unwrap();
    for section in ["about", "settings", "secrets", "identity", "status", "checks", "files", "state", "log"] {
        assert!(!sections[section].is_null(), "{section} is missing");
    }
    take(run(dir.path(), &["status"], None));
    take(run(dir.path(), &["check"], None));

    let sealed = [secrets::FILE_NAME, identity::FILE_NAME, FILE_NAME, "agent.log"];
    let mut looked_at = 0;
    for entry in fs::read_dir(dir.path()).unwrap().chain(fs::read_dir(other.path()).unwrap()) {
        let path = entry.unwrap().path();
        if sealed.contains(&path.file_name().unwrap().to_str().unwrap()) {
            continue;
        }
        let bytes = fs::read(&path).unwrap();
        let found = String::from_utf8_lossy(&bytes).matches("canary").count();
        assert_eq!(found, 0, "{}", path.display());
        looked_at += 1;
    }
    assert!(looked_at >= 4, "{looked_at} files");
    assert!(!said.contains("canary"), "{said}");
    let kept = fs::read_to_string(dir.path().join(secrets::FILE_NAME)).unwrap();
    assert!(
        kept.contains("canary-directory") && kept.contains("canary-proxy"),
        "the secrets were really there"
    );
}

#[cfg(unix)]
#[test]
fn every_file_with_a_secret_is_private() {
    use std::os::unix::fs::PermissionsExt;
    let dir = enrolled();
    run(
        dir.path(),
        &["configure", "proxy", "--set", "url=http://p:1", "--secret-from-stdin", "password"],
        Some("x"),
    );
    for name in [secrets::FILE_NAME, identity::FILE_NAME] {
        let mode = fs::metadata(dir.path().join(name)).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{name}");
    }
}

#[test]
fn broken_settings_are_refused_at_their_place() {
    let dir = enrolled();
    fs::write(dir.path().join(FILE_NAME), "[cloud]\nurl = \"https://c\"\n[limit]\n").unwrap();
    for words in [&["run"][..], &["show-config"], &["configure", "log", "--set", "level=info"]] {
        let output = run(dir.path(), words, None);
        assert!(!output.status.success());
        let said = text(&output);
        assert!(said.contains("agent.toml:3:2: unknown field `limit`"), "{said}");
        assert!(said.contains("advice:"), "{said}");
    }
}

#[test]
fn an_agent_that_was_never_enrolled_says_how_to() {
    let dir = tempfile::tempdir().unwrap();
    let said = text(&run(dir.path(), &["run"], None));
    assert!(said.contains("run: causeway-agent enroll"), "{said}");
    let output = run(dir.path(), &["check"], None);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output).contains("remedy: enrol this agent"), "{}", text(&output));
}

#[test]
fn a_second_agent_with_the_same_files_is_refused() {
    let dir = enrolled();
    let child = agent(dir.path(), &["run"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let held_by = format!("in use by another agent (process {})", child.id());
    let _child = Running(child);
    let status = dir.path().join(causeway_agent::health::FILE_NAME);
    until("the first agent", || status.exists().then_some(()));
    let output = run(dir.path(), &["run"], None);
    assert!(!output.status.success());
    assert!(text(&output).contains(&held_by), "{}", text(&output));
}

#[test]
fn settings_are_checked_before_they_are_kept() {
    let dir = enrolled();
    let before = fs::read_to_string(dir.path().join(FILE_NAME)).unwrap();
    for words in [
        &["configure", "user_auth", "--set", "page_size=many"][..],
        &["configure", "user_auth", "--set", "servres=x"],
        &["configure", "limits", "--set", "requests_at_once=0"],
        &["configure", "no_such_module", "--set", "a=1"],
        &["configure", "user_auth", "--set", "servers"],
        &["configure", "directory", "--set", "serverz=x"],
        &["configure", "directory", "--set", "servers=ftp://x"],
        &["configure", "directory", "--set", "servers=ldaps://x", "--set", "page_size=hugo"],
        &[
            "configure",
            "user_auth",
            "--directory",
            "b",
            "--set",
            "servers=ldaps://x",
            "--set",
            "page_size=-1",
        ],
        &["configure", "directory", "--directory", "", "--set", "servers=ldaps://x"],
        &["configure", "log", "--set", "file=/"],
        &["configure", "modules.exchange", "--set", "scope={ nmae = 'x' }"],
        &["configure", "modules.no_such", "--set", "a=1"],
    ] {
        let output = run(dir.path(), words, None);
        assert!(!output.status.success(), "{words:?} was kept: {}", text(&output));
    }
    assert_eq!(fs::read_to_string(dir.path().join(FILE_NAME)).unwrap(), before);
    let output = run(dir.path(), &["configure", "limits", "--set", "requests_at_once=8"], None);
    assert!(output.status.success(), "{}", text(&output));
    let servers = ["configure", "exchange", "--set", "servers=https://ex1.acme.example/powershell"];
    let account = ["--set", "accounts=[{ user = 'svc' }]", "--secret-from-stdin", "password"];
    let output = run(dir.path(), &[&servers[..], &account].concat(), Some("canary-9"));
    assert!(output.status.success(), "{}", text(&output));
    let scope = ["configure", "modules.exchange", "--set", "scope={ name = 'berlin', servers = ['mail2'] }"];
    let output = run(dir.path(), &scope, None);
    assert!(output.status.success(), "{}", text(&output));
    let shown = text(&run(dir.path(), &["show-config"], None));
    assert!(shown.contains("modules.exchange.scope"), "{shown}");
    assert!(shown.contains("limits.requests_at_once = 8  # agent.toml:"), "{shown}");
    assert!(shown.contains("limits.actions_at_once = 32  # default\n"), "{shown}");
}

#[test]
fn a_name_with_a_dot_is_one_name() {
    let dir = enrolled();
    for kind in ["directory", "ca"] {
        let key =
            if kind == "ca" { "urls=https://ca1.corp.example/scep" } else { "servers=ldaps://127.0.0.1:1" };
        let flag = format!("--{kind}");
        let words =
            ["configure", kind, &flag, "corp.example", "--set", key, "--secret-from-stdin", "password"];
        let output = run(dir.path(), &words, Some("canary"));
        assert!(output.status.success(), "{}", text(&output));
    }
    let settings = fs::read_to_string(dir.path().join(FILE_NAME)).unwrap();
    assert!(settings.contains("[directory.\"corp.example\"]\n"), "{settings}");
    let shown = text(&run(dir.path(), &["show-config"], None));
    assert!(shown.contains("directory.corp.example.servers"), "{shown}");
    let sealed = fs::read_to_string(dir.path().join(secrets::FILE_NAME)).unwrap();
    for name in ["\"directory.corp.example\"", "\"ca.corp.example.password\""] {
        assert!(sealed.contains(name), "{name}");
    }
    let said = text(&run(dir.path(), &["check", "installation"], None));
    assert!(said.contains("ok    installation.settings"), "{said}");
}

#[test]
fn answers_need_not_speak_of_every_system() {
    let dir = tempfile::tempdir().unwrap();
    let data_dir = dir.path().join("new/data");
    let file = dir.path().join("answers.toml");
    let configure = |text: &str| {
        fs::write(&file, text).unwrap();
        run(&data_dir, &["configure", "--from-file", file.to_str().unwrap()], None)
    };
    let output = configure("[limits]\nactions_at_once = 4\n");
    assert!(output.status.success(), "{}", text(&output));
    let output = configure(
        "[limits]\nmodules_forbidden = [\"user_auth\", \"user_visibility\", \"exchange\"]\n\
         [ca.default]\nurls = [\"https://ndes1.corp.example/certsrv/mscep/mscep.dll\"]\n",
    );
    assert!(output.status.success(), "{}", text(&output));
    // What is there has to work, whatever its name, and so has what a module is told to use.
    for wrong in ["[directory.corp]\nserverz = 1\n", "[modules.certificates]\nca = \"other\"\n"] {
        let output = configure(wrong);
        assert!(!output.status.success(), "{wrong} was kept: {}", text(&output));
    }
    // An identity that is damaged is not one that is there.
    secrets::write_private(&data_dir.join(identity::FILE_NAME), b"").unwrap();
    let output = configure("[enroll]\ncloud = \"https://127.0.0.1:1\"\nkey = { env = \"NO_SUCH_KEY\" }\n");
    assert!(
        !output.status.success() && text(&output).contains("identity.sealed is damaged"),
        "{}",
        text(&output)
    );
}

#[test]
fn settings_make_their_folder() {
    let dir = tempfile::tempdir().unwrap();
    let data_dir = dir.path().join("new/data");
    let output = run(&data_dir, &["configure", "limits", "--set", "actions_at_once=4"], None);
    assert!(output.status.success() && data_dir.join(FILE_NAME).exists(), "{}", text(&output));
}

#[test]
fn a_bundle_is_written_where_the_person_stands() {
    let (dir, here) = (enrolled(), tempfile::tempdir().unwrap());
    for words in [&["support-bundle"][..], &["support-bundle", "--output", "b.json"]] {
        let output = agent(dir.path(), words).current_dir(here.path()).output().unwrap();
        assert!(output.status.success(), "{}", text(&output));
    }
    assert!(here.path().join("b.json").exists());
    assert_eq!(fs::read_dir(here.path()).unwrap().count(), 2);
}

#[test]
fn a_log_file_that_is_a_folder_is_found_before_the_start() {
    let dir = enrolled();
    fs::create_dir(dir.path().join("logs")).unwrap();
    let words = ["configure", "log", "--set", "file=logs"];
    assert!(run(dir.path(), &words, None).status.success());
    let said = text(&run(dir.path(), &["check", "installation"], None));
    assert!(said.contains("FAIL  installation.log_file"), "{said}");
}
