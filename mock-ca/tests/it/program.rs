//! The program: flags, ready line, exit.

use causeway_mock_kit::program::{Program, complaint};
use serde_json::Value;

const BIN: &str = env!("CARGO_BIN_EXE_mock-ca");

#[tokio::test]
async fn one_ready_line_and_a_clean_exit() {
    let program = Program::start(BIN, ["--users", "20", "--seed", "7", "--domain", "corp.test"]).await;
    assert_eq!(program.ready["service"], "mock-ca");
    for name in ["scep", "ndes_admin", "crl", "ocsp", "admin"] {
        assert!(program.url(name).starts_with("http://127.0.0.1:"), "{name}");
    }
    let accounts = &program.ready["accounts"];
    assert_eq!(accounts["admin"]["user"], "CORP\\svc-causeway");
    assert!(
        accounts["scep"]["challenge"].as_str().is_some_and(|challenge| challenge.len() == 16),
        "{accounts}"
    );
    assert!(std::path::Path::new(program.ready["ca_pem"].as_str().unwrap()).exists());
    let health = crate::client::get(&format!("{}/health", program.url("admin"))).await.json();
    assert_eq!(health["personality"], Value::from("ndes"));
    program.ends_in_order().await;
}

#[tokio::test]
async fn mistakes_are_named() {
    let text = complaint(BIN, ["--personality", "step"]).await;
    assert!(text.contains("step") && text.contains("rfc8894"), "{text}");
    let text = complaint(BIN, ["--port", "sep=0"]).await;
    assert!(text.contains("sep"), "{text}");
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("mock.toml");
    std::fs::write(&path, "personality = \"ndes\"\n[authority]\nstrict = true\n").unwrap();
    let text = complaint(BIN, ["--config", path.to_str().unwrap()]).await;
    assert!(text.contains("mock.toml:3:1") && text.contains("strict"), "{text}");
    std::fs::write(&path, "[authority]\nkey = \"p256\"\nra = \"none\"\n").unwrap();
    let text = complaint(BIN, ["--config", path.to_str().unwrap()]).await;
    assert!(text.contains("P-256"), "{text}");
}
