//! The program: flags, ready line, exit.

use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Command;

use crate::client::{Client, Search};

const BIN: &str = env!("CARGO_BIN_EXE_mock-ldap");

#[tokio::test]
async fn one_ready_line_and_a_clean_exit() {
    let mut child = Command::new(BIN)
        .args(["--users", "20", "--seed", "7", "--domain", "corp.test", "--personality", "openldap"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .expect("the program starts");
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let line = tokio::time::timeout(Duration::from_secs(10), lines.next_line()).await.expect("ready in time");
    let ready: Value = serde_json::from_str(&line.unwrap().expect("a line")).expect("JSON");
    assert_eq!((&ready["ready"], &ready["service"]), (&Value::Bool(true), &Value::from("mock-ldap")));
    for name in ["ldap", "ldaps", "admin"] {
        assert!(ready["urls"][name].is_string(), "{name} in {ready}");
    }
    let admin = &ready["accounts"]["admin"];
    let address = ready["urls"]["ldap"].as_str().unwrap().trim_start_matches("ldap://").to_owned();
    let mut client = Client::connect(&address).await;
    let outcome = client.bind(admin["dn"].as_str().unwrap(), admin["password"].as_str().unwrap()).await;
    assert_eq!(outcome.code, 0, "{outcome:?}");
    let found = client.search(&Search::new("dc=corp,dc=test", 2, "(uid=asmith)")).await;
    assert_eq!(found.entries.len(), 1);
    assert!(std::path::Path::new(ready["ca_pem"].as_str().unwrap()).exists());
    let pid = child.id().expect("running").to_string();
    Command::new("kill").args(["-TERM", &pid]).status().await.expect("kill");
    let status =
        tokio::time::timeout(Duration::from_secs(2), child.wait()).await.expect("stops in time").unwrap();
    assert!(status.success(), "{status}");
    assert_eq!(lines.next_line().await.unwrap(), None, "exactly one line");
}

async fn complains(args: &[&str]) -> String {
    let output = Command::new(BIN).args(args).output().await.expect("the program runs");
    assert!(!output.status.success());
    assert!(output.stdout.is_empty(), "nothing on stdout");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[tokio::test]
async fn mistakes_are_named() {
    let text = complains(&["--personality", "nosuch"]).await;
    assert!(text.contains("nosuch") && text.contains("openldap"), "{text}");
    let text = complains(&["--port", "ldpa=0"]).await;
    assert!(text.contains("ldpa"), "{text}");
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("mock.toml");
    std::fs::write(&path, "personality = \"openldap\"\n[policies]\npage_size = 5\n").unwrap();
    let text = complains(&["--config", path.to_str().unwrap()]).await;
    assert!(text.contains("mock.toml:3:1") && text.contains("page_size"), "{text}");
}

/// The two commands the README opens with, run as they stand except for the ports.
#[tokio::test]
async fn the_readme_s_commands_work() {
    let readme = include_str!("../../README.md");
    let block =
        readme.split("```sh\n").nth(1).and_then(|rest| rest.split("```").next()).expect("a first block");
    let commands: Vec<&str> = block.lines().filter(|line| !line.is_empty()).collect();
    let [start, search] = commands[..] else { panic!("two commands: {commands:?}") };
    let flags = start.strip_prefix("cargo run --release --bin mock-ldap -- ").expect("the start command");
    let flags = flags.replace("3389", "0").replace("3636", "0");
    let mut child = Command::new(BIN)
        .args(flags.split_whitespace())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .expect("the program starts");
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let line = tokio::time::timeout(Duration::from_secs(10), lines.next_line()).await.expect("ready in time");
    let ready: Value = serde_json::from_str(&line.unwrap().expect("a line")).expect("JSON");
    if crate::peers::is_missing("ldapsearch") {
        return;
    }
    let search = search.replace("ldap://127.0.0.1:3389", ready["urls"]["ldap"].as_str().unwrap());
    let output = Command::new("sh").args(["-c", &search]).output().await.expect("a shell");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{search}: {output:?}");
    assert!(text.contains("mail: alice.smith@acme.example"), "{text}");
}
