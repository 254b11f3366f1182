//! The retargetable TCP proxy and the CONNECT proxy.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use causeway_mock_kit::fault::{Fault, Rule};
use causeway_mock_kit::proxy::{ConnectAuth, ConnectProxy, ConnectSettings, TcpProxy};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};

/// A peer that answers every byte with its own name.
async fn peer(name: u8) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                while stream.read_u8().await.is_ok() {
                    stream.write_u8(name).await.unwrap();
                }
            });
        }
    });
    address
}

async fn who(stream: &mut (impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin)) -> io::Result<u8> {
    stream.write_u8(0).await?;
    stream.read_u8().await
}

#[tokio::test]
async fn a_restarted_peer_is_found_behind_the_same_port() {
    let (one, two) = (peer(1).await, peer(2).await);
    let proxy = TcpProxy::start(one).await.unwrap();
    let mut old = TcpStream::connect(proxy.address()).await.unwrap();
    assert_eq!(who(&mut old).await.unwrap(), 1);
    proxy.retarget(two);
    assert_eq!(who(&mut old).await.unwrap(), 1, "a live connection stays");
    let mut new = TcpStream::connect(proxy.address()).await.unwrap();
    assert_eq!(who(&mut new).await.unwrap(), 2);
    assert_eq!((proxy.connections(), proxy.cut()), (2, 2));
    for stream in [&mut old, &mut new] {
        assert_eq!(stream.read_u8().await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    }
    let mut again = TcpStream::connect(proxy.address()).await.unwrap();
    assert_eq!(who(&mut again).await.unwrap(), 2);
}

#[tokio::test]
async fn a_dead_target_shows_as_a_reset_and_the_end_of_data_passes_through() {
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let proxy = TcpProxy::start(gone).await.unwrap();
    let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
    assert_eq!(stream.read_u8().await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    proxy.retarget(peer(3).await);
    let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
    stream.write_all(&[0, 0]).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut all = Vec::new();
    stream.read_to_end(&mut all).await.unwrap();
    assert_eq!(all, [3, 3]);
    let entry =
        proxy.journal().wait(0, Duration::from_secs(5), |entry| entry.outcome == "closed").await.unwrap();
    assert_eq!((&entry.detail["bytes_up"], &entry.detail["bytes_down"]), (&2.into(), &2.into()));
}

#[tokio::test(start_paused = true)]
async fn a_link_behind_the_proxy_can_be_slowed_while_it_lives() {
    let proxy = TcpProxy::start(peer(4).await).await.unwrap();
    let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
    assert_eq!(who(&mut stream).await.unwrap(), 4);
    let _slow = proxy.faults().guard(Rule::new(Fault::Latency { ms: 2_000, jitter_ms: 0 }));
    let started = tokio::time::Instant::now();
    assert_eq!(who(&mut stream).await.unwrap(), 4);
    assert!(started.elapsed() >= Duration::from_secs(2), "took {:?}", started.elapsed());
}

/// Asks on an open connection; gives the status and the challenge, leaving the tunnel open on 200.
async fn connect(stream: &mut BufReader<TcpStream>, target: &str, header: &str) -> (u16, String) {
    let text = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n{header}\r\n");
    stream.write_all(text.as_bytes()).await.unwrap();
    let (mut head, mut challenge) = (String::new(), String::new());
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await.unwrap() == 0 || line == "\r\n" {
            break;
        }
        if let Some(value) = line.strip_prefix("Proxy-Authenticate: ") {
            value.trim().clone_into(&mut challenge);
        }
        head.push_str(&line);
    }
    (head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0), challenge)
}

async fn open(proxy: &ConnectProxy) -> BufReader<TcpStream> {
    BufReader::new(TcpStream::connect(proxy.address()).await.unwrap())
}

#[tokio::test]
async fn credentials_are_asked_for_and_the_tunnel_is_counted() {
    let target = peer(5).await;
    let auth = ConnectAuth::Basic { user: "agent".into(), password: "open sesame".into() };
    let proxy = ConnectProxy::start(ConnectSettings { auth, ..ConnectSettings::default() }).await.unwrap();
    let mut stream = open(&proxy).await;
    let target = target.to_string();
    assert_eq!(connect(&mut stream, &target, "").await, (407, "Basic realm=\"causeway\"".to_owned()));
    let wrong = "Proxy-Authorization: Basic YWdlbnQ6d3Jvbmc=\r\n";
    assert_eq!(connect(&mut stream, &target, wrong).await.0, 407);
    // base64 of "agent:open sesame"
    let right = "proxy-authorization: basic YWdlbnQ6b3BlbiBzZXNhbWU=\r\n";
    assert_eq!(connect(&mut stream, &target, right).await.0, 200);
    assert_eq!(who(&mut stream).await.unwrap(), 5);
    assert_eq!(who(&mut stream).await.unwrap(), 5);
    assert_eq!(proxy.bytes(), (2, 2));
    let asked: Vec<_> =
        proxy.journal().after(0).into_iter().map(|entry| (entry.subject, entry.outcome)).collect();
    assert_eq!(asked, ["407", "407", "200"].map(|status| (target.clone(), status.to_owned())));
    drop(stream);
    let over =
        proxy.journal().wait(0, Duration::from_secs(5), |entry| entry.operation == "tunnel").await.unwrap();
    assert_eq!((over.outcome.as_str(), &over.detail["bytes_up"]), ("closed", &2.into()));
    let all = serde_json::to_string(&proxy.journal().after(0)).unwrap();
    assert!(!all.contains("sesame") && !all.contains("YWdl"), "the journal holds a credential: {all}");
}

#[tokio::test]
async fn targets_are_limited_resolved_and_refused() {
    let target = peer(6).await;
    let settings = ConnectSettings {
        ports: vec![443, target.port()],
        resolve: [("cloud.acme.example:443".to_owned(), target)].into(),
        ..ConnectSettings::default()
    };
    let proxy = ConnectProxy::start(settings).await.unwrap();
    let mut stream = open(&proxy).await;
    assert_eq!(connect(&mut stream, "cloud.acme.example:443", "").await.0, 200);
    assert_eq!(who(&mut stream).await.unwrap(), 6);
    assert_eq!(connect(&mut open(&proxy).await, "127.0.0.1:25", "").await.0, 403);
    assert_eq!(connect(&mut open(&proxy).await, "no-port", "").await.0, 400);
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let open_ports = ConnectProxy::start(ConnectSettings::default()).await.unwrap();
    assert_eq!(connect(&mut open(&open_ports).await, &gone.to_string(), "").await.0, 502);
    let mut plain = open(&proxy).await;
    plain.write_all(b"GET http://acme.example/ HTTP/1.1\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    plain.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 405 "), "{answer}");
    let mut endless = open(&proxy).await;
    let _ = endless.write_all(&[b'x'; 64 * 1_024]).await;
    let mut answer = Vec::new();
    let _ = endless.read_to_end(&mut answer).await;
    assert!(
        answer.starts_with(b"HTTP/1.1 431 ") || answer.is_empty(),
        "{}",
        String::from_utf8_lossy(&answer)
    );
    let refused = proxy.journal().wait(0, Duration::from_secs(5), |entry| entry.outcome == "431").await;
    refused.expect("an endless head is refused");
}

#[tokio::test]
async fn the_proxy_fails_as_told() {
    let target = peer(7).await.to_string();
    let proxy = ConnectProxy::start(ConnectSettings::default()).await.unwrap();
    let rule = |fault| Rule::new(fault).on_operation("connect").times(1);
    proxy.faults().add(rule(Fault::status(503, "Try Later")));
    proxy.faults().add(rule(Fault::Malformed { kind: "garbage".into() }));
    proxy.faults().add(rule(Fault::Close {}));
    let mut statuses = Vec::new();
    for _ in 0..4 {
        statuses.push(connect(&mut open(&proxy).await, &target, "").await.0);
    }
    assert_eq!(statuses[0], 503);
    assert!(statuses[1] != 200 && statuses[1] != 503, "garbage read as {}", statuses[1]);
    assert_eq!(statuses[2..], [0, 200]);
}
