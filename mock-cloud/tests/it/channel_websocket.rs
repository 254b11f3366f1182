//! The channel over WebSocket (RFC 7395), spoken by hand.

use causeway_protocol::channel::ALPN_HTTP1;
use causeway_protocol::channel::websocket::{PATH, SUBPROTOCOL};
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::tungstenite::client::ClientRequestBuilder;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, client_async};

use crate::support::agent::enroll;
use crate::support::wire::{Credentials, dial};
use crate::support::{PATIENCE, World};

const OPEN: &str =
    "<open xmlns='urn:ietf:params:xml:ns:xmpp-framing' to='cloud.causeway.test' version='1.0'/>";

struct Socket(WebSocketStream<TlsStream<TcpStream>>);

impl Socket {
    async fn connect(
        world: &World,
        credentials: Option<&Credentials>,
        protocol: &str,
    ) -> Result<Self, Error> {
        let tls = dial(world, credentials, &[ALPN_HTTP1]).await.unwrap();
        let uri = format!("wss://cloud.causeway.test{PATH}").parse().unwrap();
        let request = ClientRequestBuilder::new(uri).with_sub_protocol(protocol);
        client_async(request, tls).await.map(|(socket, _)| Self(socket))
    }

    async fn open(world: &World, credentials: Option<&Credentials>) -> Self {
        let mut socket = Self::connect(world, credentials, SUBPROTOCOL).await.unwrap();
        socket.say(OPEN).await;
        let open = socket.hear().await;
        assert!(open.starts_with("<open xmlns='urn:ietf:params:xml:ns:xmpp-framing'"), "{open}");
        assert!(
            open.contains("from='cloud.causeway.test'") || open.contains("from=\"cloud.causeway.test\""),
            "{open}"
        );
        socket
    }

    async fn say(&mut self, text: &str) {
        self.0.send(Message::text(text)).await.unwrap();
    }

    /// The next message; empty when the cloud has closed.
    async fn hear(&mut self) -> String {
        match tokio::time::timeout(PATIENCE, self.0.next()).await.expect("the cloud says something") {
            Some(Ok(Message::Text(text))) => text.as_str().to_owned(),
            _ => String::new(),
        }
    }

    /// Everything until the end.
    async fn rest(mut self) -> Vec<String> {
        let mut all = Vec::new();
        loop {
            let next = self.hear().await;
            if next.is_empty() {
                return all;
            }
            all.push(next);
        }
    }
}

#[tokio::test]
async fn an_agent_logs_in_binds_and_says_goodbye() {
    let world = World::start().await;
    let agent = enroll(&world).await;
    let mut socket = Socket::open(&world, Some(&agent.credentials)).await;
    let features = socket.hear().await;
    assert!(features.contains("EXTERNAL") && features.contains("xmlns:stream="), "{features}");
    socket.say("<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='EXTERNAL'>=</auth>").await;
    let success = socket.hear().await;
    assert!(success.starts_with("<success") && success.contains("xmpp-sasl"), "{success}");
    socket.say(OPEN).await;
    assert!(socket.hear().await.starts_with("<open "));
    assert!(socket.hear().await.contains("urn:xmpp:sm:3"));
    let bind = "<iq xmlns='jabber:client' type='set' id='b'>\
                <bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><resource>agent</resource></bind></iq>";
    socket.say(bind).await;
    let bound = socket.hear().await;
    assert!(
        bound.starts_with("<iq") && bound.contains("jabber:client") && bound.contains("/agent<"),
        "{bound}"
    );
    socket.say("<iq xmlns='jabber:client' type='get' id='p'><ping xmlns='urn:xmpp:ping'/></iq>").await;
    assert!(socket.hear().await.contains("result"));
    socket.say("<close xmlns='urn:ietf:params:xml:ns:xmpp-framing'/>").await;
    assert_eq!(socket.rest().await, ["<close xmlns='urn:ietf:params:xml:ns:xmpp-framing'/>"]);
}

/// Logs nobody in, says something, and returns the stream error that follows.
async fn punished(world: &World, message: Message) -> String {
    let mut socket = Socket::open(world, None).await;
    socket.hear().await;
    socket.0.send(message).await.unwrap();
    let rest = socket.rest().await.concat();
    assert!(rest.contains("<stream:error") && rest.contains("<close "), "{rest}");
    rest
}

#[tokio::test]
async fn what_breaks_the_framing_ends_the_stream_in_words() {
    let world = World::start().await;
    for bad in [
        "<a xmlns='x'/><b xmlns='x'/>",
        "<a xmlns='x'><b></a>",
        "</stream:stream>",
        "<!DOCTYPE a [<!ENTITY b 'c'>]><a/>",
        " ",
    ] {
        let error = punished(&world, Message::text(bad)).await;
        assert!(error.contains("bad-format") || error.contains("not-well-formed"), "{bad}: {error}");
    }
    let error = punished(&world, Message::binary(b"<a xmlns='x'/>".to_vec())).await;
    assert!(error.contains("bad-format"), "{error}");
    // Before login 10,000 bytes are allowed, and no message is ever longer than the largest element.
    for size in [11_000, 300_000] {
        let long = format!("<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>{}</auth>", "a".repeat(size));
        let error = punished(&world, Message::text(long)).await;
        assert!(error.contains("policy-violation"), "{size}: {error}");
    }
}

#[tokio::test]
async fn an_unknown_host_gets_an_open_and_then_the_error() {
    let world = World::start().await;
    let mut socket = Socket::connect(&world, None, SUBPROTOCOL).await.unwrap();
    socket.say(&OPEN.replace("cloud.causeway.test", "elsewhere.example")).await;
    assert!(socket.hear().await.starts_with("<open "));
    let rest = socket.rest().await.concat();
    assert!(rest.contains("host-unknown"), "{rest}");
}

#[tokio::test]
async fn only_a_websocket_with_our_subprotocol_is_accepted() {
    let world = World::start().await;
    let Err(Error::Http(answer)) = Socket::connect(&world, None, "mqtt").await else { panic!("accepted") };
    assert_eq!(answer.status(), 400);
    let mut tls = dial(&world, None, &[ALPN_HTTP1]).await.unwrap();
    let request = format!("GET {PATH} HTTP/1.1\r\nHost: cloud.causeway.test\r\nConnection: close\r\n\r\n");
    tls.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(PATIENCE, tls.read_to_end(&mut answer)).await.expect("the cloud hangs up");
    let answer = String::from_utf8_lossy(&answer).into_owned();
    assert!(answer.starts_with("HTTP/1.1 426 ") && answer.contains("sec-websocket-version: 13"), "{answer}");
}
