//! `check network`, as an administrator sees it.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;

use causeway_mock_kit::pki::TestCa;
use causeway_mock_kit::proxy::{ConnectProxy, ConnectSettings};
use rustls::ServerConfig;
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::support::soon;

/// A server that does its part of TLS and is silent then.
async fn secured(config: Arc<ServerConfig>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = TlsAcceptor::from(config.clone());
            tokio::spawn(async move {
                if let Ok(mut stream) = acceptor.accept(stream).await {
                    let _ = stream.read_u8().await;
                }
            });
        }
    });
    at
}

/// Exit code and what is printed.
async fn check(dir: &Path, more: &[&str]) -> (i32, String) {
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_causeway-agent"));
    command.args(["check", "network"]).args(more).arg("--data-dir").arg(dir);
    command.stdin(Stdio::null()).kill_on_drop(true);
    for name in ["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"] {
        command.env_remove(name);
    }
    let output = soon("check network", command.output()).await.unwrap();
    let text =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (output.status.code().unwrap(), text)
}

fn settings(dir: &Path, cloud: SocketAddr, ca: &TestCa, proxy: &str) {
    std::fs::write(dir.join("ca.pem"), ca.ca_pem()).unwrap();
    let text = format!("[cloud]\nurl = \"https://{cloud}\"\nca_file = \"ca.pem\"\n\n{proxy}");
    std::fs::write(dir.join("agent.toml"), text).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn it_shows_the_script_the_steps_and_the_signer() {
    let ca = TestCa::new("Our Cloud CA").unwrap();
    let cloud = secured(ca.server_config(&["127.0.0.1"], &[]).unwrap()).await;
    let proxy = ConnectProxy::start(ConnectSettings::default()).await.unwrap();
    let dead = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let script = format!(
        "function FindProxyForURL(url, host) {{ if (shExpMatch(url, '*:{}/')) return 'PROXY {dead}; PROXY {}'; \
         return isInNet(host, '127.0.0.0', '255.0.0.0') ? 'DIRECT' : 'PROXY p:1'; }}",
        cloud.port(),
        proxy.address()
    );
    std::fs::write(dir.path().join("office.pac"), script).unwrap();
    settings(dir.path(), cloud, &ca, "[proxy]\npac_file = \"office.pac\"\n");
    let other = secured(ca.server_config(&["127.0.0.1"], &[]).unwrap()).await;
    let (code, text) = check(dir.path(), &["--url", &format!("https://{other}/path?secret")]).await;
    for expected in [
        &format!(
            "network.way_out of https://{cloud}/: proxy http://{dead}, then proxy http://{}",
            proxy.address()
        ),
        &format!("shExpMatch(https://{cloud}/, *:{}/) = true", cloud.port()),
        &format!("proxy http://{dead} fails: connect to {dead}"),
        &format!("connected to {}", proxy.address()),
        "signed by CN=Our Cloud CA, verified by",
        &format!("network.way_out of https://{other}/: direct"),
        "isInNet(127.0.0.1, 127.0.0.0, 255.0.0.0) = true",
        // Whoever has signed the other server is unknown to this machine, which is said and is a failure.
        "TLS inspection by Our Cloud CA, or an authority this machine does not know",
    ] {
        assert!(text.contains(expected), "{expected} in\n{text}");
    }
    assert!(!text.contains("secret"), "the path is nobody's business:\n{text}");
    assert_eq!(code, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn inspection_is_called_by_its_name() {
    let inspector = TestCa::new("Acme Inspection CA").unwrap();
    let cloud = secured(inspector.server_config(&["127.0.0.1"], &[]).unwrap()).await;
    let dir = tempfile::tempdir().unwrap();
    settings(dir.path(), cloud, &TestCa::new("Our Cloud CA").unwrap(), "[proxy]\nmode = \"none\"\n");
    let (code, text) = check(dir.path(), &[]).await;
    assert!(text.contains("TLS inspection by Acme Inspection CA; exclude 127.0.0.1"), "{text}");
    assert_eq!(code, 1, "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_good_way_is_well_and_a_script_that_is_missing_is_a_warning() {
    let ca = TestCa::new("Our Cloud CA").unwrap();
    let cloud = secured(ca.server_config(&["127.0.0.1"], &[]).unwrap()).await;
    let dir = tempfile::tempdir().unwrap();
    settings(dir.path(), cloud, &ca, "[proxy]\nmode = \"none\"\n");
    let (code, text) = check(dir.path(), &[]).await;
    assert!(code == 0 && text.contains("0 failed, 0 with a warning"), "{text}");

    settings(dir.path(), cloud, &ca, "[proxy]\npac_file = \"missing.pac\"\n");
    let (code, text) = check(dir.path(), &[]).await;
    assert!(code == 0 && text.contains("no script is there, so straight") && text.contains("warn"), "{text}");
}
