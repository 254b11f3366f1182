//! The throwaway authority, judged by rustls on both ends.

use std::sync::Arc;

use causeway_mock_kit::pki::{LeafUse, PkiError, TestCa, provider};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, ServerConfig};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// Result of a handshake with one byte each way, by the client's account; and the ALPN the server saw.
async fn shake(
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
    name: &str,
) -> (Result<(), String>, Option<Vec<u8>>) {
    let (near, far) = tokio::io::duplex(64 * 1_024);
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let serving = async {
        let mut tls = TlsAcceptor::from(server).accept(far).await.ok()?;
        let alpn = tls.get_ref().1.alpn_protocol().map(<[u8]>::to_vec);
        tls.write_all(b"y").await.ok()?;
        tls.flush().await.ok()?;
        let _ = tls.read_u8().await;
        alpn
    };
    let asking = async {
        let mut tls =
            TlsConnector::from(client).connect(name, near).await.map_err(|error| error.to_string())?;
        tls.read_u8().await.map(|_| ()).map_err(|error| error.to_string())
    };
    let (alpn, result) = tokio::join!(serving, asking);
    (result, alpn)
}

#[tokio::test]
async fn a_server_is_trusted_under_its_names_and_loopback_only() {
    let ca = TestCa::new("Acme Test CA").unwrap();
    let server = ca.server_config(&["dc1.acme.example", "192.0.2.7"], &[b"xmpp-client"]).unwrap();
    for name in ["dc1.acme.example", "192.0.2.7", "localhost", "127.0.0.1", "::1"] {
        assert_eq!(shake(Arc::clone(&server), ca.client_config(), name).await.0, Ok(()), "{name}");
    }
    let (wrong_name, _) = shake(Arc::clone(&server), ca.client_config(), "dc2.acme.example").await;
    assert!(wrong_name.as_ref().is_err_and(|error| error.contains("not valid for name")), "{wrong_name:?}");
    let stranger = TestCa::new("Acme Test CA").unwrap();
    let (unknown, _) = shake(Arc::clone(&server), stranger.client_config(), "localhost").await;
    assert!(unknown.as_ref().is_err_and(|error| error.contains("invalid peer certificate")), "{unknown:?}");
    let mut config = (*ca.client_config()).clone();
    config.alpn_protocols = vec![b"xmpp-client".to_vec()];
    assert_eq!(shake(server, Arc::new(config), "localhost").await, (Ok(()), Some(b"xmpp-client".to_vec())));
}

#[tokio::test]
async fn expired_leaves_are_expired() {
    let ca = TestCa::new("Acme Test CA").unwrap();
    let expired = ca.issue_leaf(&["dc1.acme.example"], LeafUse::ExpiredServer).unwrap();
    let server = ca.server_config_with(expired, &[], None).unwrap();
    let (result, _) = shake(server, ca.client_config(), "localhost").await;
    assert!(result.as_ref().is_err_and(|error| error.contains("expired")), "{result:?}");
}

#[tokio::test]
async fn client_certificates_are_asked_for_and_judged() {
    let ca = TestCa::new("Acme Test CA").unwrap();
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(ca.roots()), provider()).build().unwrap();
    let server = ca.server_config_requesting_clients(&["cloud.acme.example"], &[], verifier).unwrap();
    let client = ca.issue_leaf(&["agent-1"], LeafUse::Client).unwrap();
    let with = ca.client_config_with(&client).unwrap();
    assert_eq!(shake(Arc::clone(&server), with, "localhost").await.0, Ok(()));
    assert!(shake(Arc::clone(&server), ca.client_config(), "localhost").await.0.is_err());
    let expired = ca.issue_leaf(&["agent-1"], LeafUse::ExpiredClient).unwrap();
    assert!(shake(server, ca.client_config_with(&expired).unwrap(), "localhost").await.0.is_err());
}

#[tokio::test]
async fn a_kept_authority_is_the_same_after_a_restart_and_never_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let server =
        TestCa::open_or_create(dir.path(), "Kept CA").unwrap().server_config(&["localhost"], &[]).unwrap();
    let again = TestCa::open_or_create(dir.path(), "Kept CA").unwrap();
    assert_eq!(shake(server, again.client_config(), "localhost").await.0, Ok(()));
    let issued_later = again.server_config(&["localhost"], &[]).unwrap();
    assert_eq!(shake(issued_later, again.client_config(), "localhost").await.0, Ok(()));
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = std::fs::metadata(dir.path().join("ca-key.pem")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
    std::fs::write(again.pem_path(), "damaged").unwrap();
    let error = TestCa::open_or_create(dir.path(), "Kept CA").err().unwrap();
    assert!(matches!(error, PkiError::Damaged { .. }), "{error:?}");
    assert_eq!(std::fs::read_to_string(again.pem_path()).unwrap(), "damaged");
}

#[test]
fn the_pem_file_lives_as_long_as_the_authority() {
    let ca = TestCa::new("Acme Test CA").unwrap();
    let path = ca.pem_path().to_owned();
    assert_eq!(std::fs::read_to_string(&path).unwrap(), ca.ca_pem());
    drop(ca);
    assert!(!path.exists());
}
