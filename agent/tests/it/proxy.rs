//! The way out through an HTTP CONNECT proxy.

use std::net::SocketAddr;

use causeway_agent::chain::Chain;
use causeway_agent::dial::Dialer;
use causeway_agent::dial::connect_proxy::{Credentials, ProxyAuth};
use causeway_agent::dial::proxy::bypass::Bypass;
use causeway_agent::dial::proxy::{Access, ProxyServer, Ways};
use causeway_agent::dial::resolve::Names;
use causeway_agent::dial::{Dial, DialError, Target};
use causeway_agent::random::RandomSource;
use causeway_mock_kit::proxy::{ConnectAuth, ConnectProxy, ConnectSettings};
use causeway_protocol::Secret;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::support::soon;

fn dialer(proxy: Option<(SocketAddr, Option<(&str, &str)>)>) -> Dialer {
    let random = RandomSource::seeded(1);
    let names = Names::new(&["127.0.0.1:1".parse().unwrap()], random).unwrap();
    let Some((at, credentials)) = proxy else { return Dialer::new(names, Ways::none()) };
    let server = ProxyServer { host: at.ip().to_string(), port: at.port(), tls: false };
    let credentials = credentials.map(|(username, password)| Credentials {
        username: username.to_owned(),
        password: Secret::new(password),
    });
    let auth = ProxyAuth { credentials, allow_basic: Some(true), ..ProxyAuth::default() };
    let access = Access { auth, ..Access::default() };
    Dialer::new(names, Ways::manual(server, Bypass::nothing(), access))
}

/// Greets first, then echoes: what it says travels right behind the proxy's 200.
async fn greeter() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let _ = stream.write_all(b"hello ").await;
                let (mut from, mut to) = stream.split();
                let _ = tokio::io::copy(&mut from, &mut to).await;
            });
        }
    });
    at
}

async fn talk(dialer: &Dialer, at: SocketAddr) -> Result<String, DialError> {
    let mut stream = dialer.connect(Target::outside(at.ip().to_string(), at.port())).await?;
    stream.write_all(b"echo").await.unwrap();
    let mut got = [0; 10];
    soon("the echo", stream.read_exact(&mut got)).await.unwrap();
    Ok(String::from_utf8_lossy(&got).into_owned())
}

fn basic() -> ConnectSettings {
    ConnectSettings {
        auth: ConnectAuth::Basic { user: "svc".into(), password: "canary-proxy".into() },
        ..ConnectSettings::default()
    }
}

#[tokio::test]
async fn a_tunnel_carries_bytes_both_ways() {
    let proxy = ConnectProxy::start(ConnectSettings::default()).await.unwrap();
    let at = greeter().await;
    assert_eq!(talk(&dialer(Some((proxy.address(), None))), at).await.unwrap(), "hello echo");
    assert_eq!(proxy.journal().count(|entry| entry.subject == at.to_string()), 1);
}

#[tokio::test]
async fn credentials_are_shown_only_when_asked_for_and_accepted() {
    let proxy = ConnectProxy::start(basic()).await.unwrap();
    let at = greeter().await;
    let dialer = dialer(Some((proxy.address(), Some(("svc", "canary-proxy")))));
    assert_eq!(talk(&dialer, at).await.unwrap(), "hello echo");
}

#[tokio::test]
async fn wrong_credentials_are_tried_once_and_never_printed() {
    let proxy = ConnectProxy::start(basic()).await.unwrap();
    let at = greeter().await;
    let error = talk(&dialer(Some((proxy.address(), Some(("svc", "canary-wrong"))))), at).await.unwrap_err();
    let text = Chain(&error).to_string();
    assert!(text.contains("does not accept user svc") && !text.contains("canary"), "{text}");
    let attempts = proxy.journal().count(|entry| entry.operation == "connect");
    assert!(attempts <= 2, "{attempts} attempts");

    let error = talk(&dialer(Some((proxy.address(), None))), at).await.unwrap_err();
    assert!(Chain(&error).to_string().contains("none is configured"), "{}", Chain(&error));
}

#[tokio::test]
async fn inside_targets_are_not_led_through_the_proxy() {
    let proxy = ConnectProxy::start(ConnectSettings::default()).await.unwrap();
    let at = greeter().await;
    let dialer = dialer(Some((proxy.address(), None)));
    let stream = dialer.connect(Target::inside(at.ip().to_string(), at.port())).await.unwrap();
    assert!(stream.into_tcp().is_ok());
    assert_eq!(proxy.journal().count(|_| true), 0);
}

/// A proxy that says exactly these bytes to whoever connects.
async fn scripted(says: Vec<u8>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(script(stream, says.clone()));
        }
    });
    at
}

async fn script(mut stream: TcpStream, says: Vec<u8>) {
    let mut request = vec![0; 4096];
    let _ = stream.read(&mut request).await;
    let _ = stream.write_all(&says).await;
    let _ = stream.shutdown().await;
}

#[tokio::test]
async fn bytes_behind_the_answer_belong_to_the_tunnel() {
    let proxy = scripted(b"HTTP/1.1 200 Connection established\r\nVia: x\r\n\r\nfirst bytes".to_vec()).await;
    let dialer = dialer(Some((proxy, None)));
    let stream = dialer.connect(Target::outside("cloud.example", 443)).await.unwrap();
    let Err(mut stream) = stream.into_tcp() else { panic!("the early bytes would be lost") };
    let mut got = String::new();
    stream.read_to_string(&mut got).await.unwrap();
    assert_eq!(got, "first bytes");
}

#[tokio::test]
async fn broken_proxies_are_named() {
    let endless = [b"HTTP/1.1 200 OK\r\nX: ".to_vec(), vec![b'a'; 100_000]].concat();
    for (says, expected) in [
        (b"SSH-2.0-OpenSSH\r\n\r\n".to_vec(), "not HTTP/1"),
        (b"HTTP/1.1 403 Forbidden by policy\r\n\r\n".to_vec(), "forbids it (403): Forbidden by policy"),
        (
            b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n".to_vec(),
            "does not reach the target (502): Bad Gateway",
        ),
        (b"HTTP/1.1 2".to_vec(), "closed the connection before it answered"),
        (endless, "its head is too long"),
        (
            b"HTTP/1.1 407 x\r\nProxy-Authenticate: Negotiate\r\nContent-Length: 0\r\n\r\n".to_vec(),
            "(Negotiate) can be used: Negotiate: Kerberos needs the server's name",
        ),
    ] {
        let proxy = scripted(says).await;
        let dialer = dialer(Some((proxy, Some(("svc", "canary")))));
        let Err(error) = dialer.connect(Target::outside("cloud.example", 443)).await else {
            panic!("{expected}: connected")
        };
        let text = Chain(&error).to_string();
        assert!(text.contains(expected) && text.contains(&proxy.to_string()), "{text}");
        assert!(!text.contains("canary"), "{text}");
    }
}

#[tokio::test]
async fn a_dead_proxy_and_a_dead_name_server_are_told_apart() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let dead = listener.local_addr().unwrap();
    drop(listener);
    let Err(error) = dialer(Some((dead, None))).connect(Target::outside("cloud.example", 443)).await else {
        panic!("connected")
    };
    assert!(matches!(error, DialError::Unreachable { .. }), "{error}");
    let Err(error) = dialer(None).connect(Target::outside("cloud.example", 443)).await else {
        panic!("connected")
    };
    assert!(matches!(error, DialError::Resolve { .. }), "{error}");
}
