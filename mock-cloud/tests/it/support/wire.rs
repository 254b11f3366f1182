//! TLS and raw XML: for what a well-behaved client would never send.

use std::sync::Arc;

use causeway_protocol::channel::ALPN_XMPP;
use rustls::ClientConfig;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::{PATIENCE, World};

/// A certificate and its key, PEM.
#[derive(Clone)]
pub(crate) struct Credentials {
    pub(crate) chain_pem: String,
    pub(crate) key_pem: String,
}

/// Client settings that trust the cloud's authority.
pub(crate) fn tls(world: &World, credentials: Option<&Credentials>, alpn: &[&[u8]]) -> Arc<ClientConfig> {
    let mut roots = rustls::RootCertStore::empty();
    let ca = CertificateDer::from_pem_slice(world.cloud().pki.ca_pem().as_bytes()).unwrap();
    roots.add(ca).unwrap();
    let builder = ClientConfig::builder_with_provider(causeway_mock_kit::pki::provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let mut config = match credentials {
        None => builder.with_no_client_auth(),
        Some(it) => {
            let chain = CertificateDer::pem_slice_iter(it.chain_pem.as_bytes()).map(Result::unwrap).collect();
            let key = PrivateKeyDer::from_pem_slice(it.key_pem.as_bytes()).unwrap();
            builder.with_client_auth_cert(chain, key).unwrap()
        }
    };
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    Arc::new(config)
}

/// Connects and does the TLS handshake.
pub(crate) async fn dial(
    world: &World,
    credentials: Option<&Credentials>,
    alpn: &[&[u8]],
) -> std::io::Result<TlsStream<TcpStream>> {
    dial_with(world, tls(world, credentials, alpn)).await
}

/// The same with given settings, which keep what can be resumed.
pub(crate) async fn dial_with(
    world: &World,
    config: Arc<ClientConfig>,
) -> std::io::Result<TlsStream<TcpStream>> {
    let tcp = TcpStream::connect(world.address()).await?;
    tcp.set_nodelay(true)?;
    let name = ServerName::try_from("cloud.causeway.test").unwrap();
    TlsConnector::from(config).connect(name, tcp).await
}

/// An opening stream header.
pub(crate) const HEADER: &str = "<?xml version='1.0'?><stream:stream xmlns='jabber:client' \
    xmlns:stream='http://etherx.jabber.org/streams' to='cloud.causeway.test' version='1.0'>";

/// Sends text on a fresh stream and returns everything the cloud says until it closes.
pub(crate) async fn say_and_listen(world: &World, parts: &[&[u8]]) -> String {
    let mut tls = dial(world, None, &[ALPN_XMPP]).await.unwrap();
    for part in parts {
        // The cloud may hang up in the middle of it; what it said before is what counts.
        if tls.write_all(part).await.is_err() {
            break;
        }
    }
    let _ = tls.flush().await;
    let mut heard = Vec::new();
    let mut buffer = [0; 4_096];
    let listen = async {
        while let Ok(read @ 1..) = tls.read(&mut buffer).await {
            heard.extend_from_slice(&buffer[..read]);
        }
    };
    let ended = tokio::time::timeout(PATIENCE, listen).await;
    let heard = String::from_utf8_lossy(&heard).into_owned();
    assert!(ended.is_ok(), "the cloud did not hang up; it said {heard:?}");
    heard
}
