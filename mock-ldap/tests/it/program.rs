//! The program: flags, ready line, exit.

use causeway_mock_kit::program::{Program, complaint};
use tokio::process::Command;

use crate::client::{Client, Search};

const BIN: &str = env!("CARGO_BIN_EXE_mock-ldap");

#[tokio::test]
async fn one_ready_line_and_a_clean_exit() {
    let flags = ["--users", "20", "--seed", "7", "--domain", "corp.test", "--personality", "openldap"];
    let program = Program::start(BIN, flags).await;
    let ready = &program.ready;
    assert_eq!(ready["service"], "mock-ldap");
    for name in ["ldap", "ldaps", "admin"] {
        assert!(ready["urls"][name].is_string(), "{name} in {ready}");
    }
    let admin = &ready["accounts"]["admin"];
    let mut client = Client::connect(program.url("ldap").trim_start_matches("ldap://")).await;
    let outcome = client.bind(admin["dn"].as_str().unwrap(), admin["password"].as_str().unwrap()).await;
    assert_eq!(outcome.code, 0, "{outcome:?}");
    let found = client.search(&Search::new("dc=corp,dc=test", 2, "(uid=asmith)")).await;
    assert_eq!(found.entries.len(), 1);
    program.ends_in_order().await;
}

#[tokio::test]
async fn mistakes_are_named() {
    let text = complaint(BIN, ["--personality", "nosuch"]).await;
    assert!(text.contains("nosuch") && text.contains("openldap"), "{text}");
    let text = complaint(BIN, ["--port", "ldpa=0"]).await;
    assert!(text.contains("ldpa"), "{text}");
    let text = complaint(BIN, ["--users", "100000000"]).await;
    assert!(text.contains("2000000") && !text.contains("panicked"), "{text}");
    let text = complaint(BIN, ["--domain", "x y"]).await;
    assert!(text.contains("\"x y\" is no DNS domain"), "{text}");
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("mock.toml");
    std::fs::write(&path, "personality = \"openldap\"\n[policies]\npage_size = 5\n").unwrap();
    let text = complaint(BIN, ["--config", path.to_str().unwrap()]).await;
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
    let program = Program::start(BIN, flags.split_whitespace()).await;
    if crate::peers::is_missing("ldapsearch") {
        return;
    }
    let search = search.replace("ldap://127.0.0.1:3389", program.url("ldap"));
    let output = Command::new("sh").args(["-c", &search]).output().await.expect("a shell");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{search}: {output:?}");
    assert!(text.contains("mail: alice.smith@acme.example"), "{text}");
}
