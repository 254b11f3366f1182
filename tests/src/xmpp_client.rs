//! A small XMPP client for strangers and ours alike: direct TLS, SCRAM-SHA-256, bind, pings. The login's SCRAM is the
//! agent's own, so a login at Prosody or ejabberd is also a stranger's judgement of that.

use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use causeway_agent::channel::scram;
use causeway_protocol::Secret;
use causeway_protocol::channel::element::{Auth, Response};
use causeway_protocol::channel::{ALPN_XMPP, SaslElement, StreamElement, ns};
use futures_util::{SinkExt, StreamExt};
use rustls::pki_types::ServerName;
use tokio::io::BufStream;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_xmpp::xmlstream::{StreamHeader, Timeouts, XmlStream, initiate_stream};
use xmpp_parsers::bind::BindQuery;
use xmpp_parsers::iq::Iq;
use xmpp_parsers::jid::Jid;
use xmpp_parsers::ping::Ping;
use xmpp_parsers::stream_features::StreamFeatures;

/// Bytes buffered each way per connection.
const BUFFER_BYTES: usize = 2_048;

type Stream = XmlStream<BufStream<TlsStream<TcpStream>>, StreamElement>;

/// Where to log in and as whom.
#[derive(Clone)]
pub struct Account {
    /// `host:port` to connect to.
    pub address: String,
    /// The name or address the certificate must carry.
    pub server_name: String,
    /// The XMPP domain.
    pub domain: String,
    /// Local part of the JID.
    pub user: String,
    /// The password.
    pub password: String,
    /// What to trust.
    pub tls: Arc<rustls::ClientConfig>,
}

/// A bound session.
pub struct XmppClient {
    stream: Stream,
    domain: Jid,
    next_id: u64,
}

impl XmppClient {
    /// Connects, logs in with SCRAM-SHA-256 and binds.
    ///
    /// # Errors
    /// Where the login failed.
    pub async fn login(account: &Account) -> Result<Self> {
        let tcp = TcpStream::connect(&account.address)
            .await
            .with_context(|| format!("connect to {}", account.address))?;
        tcp.set_nodelay(true)?;
        let mut tls = (*account.tls).clone();
        tls.alpn_protocols = vec![ALPN_XMPP.to_vec()];
        let name = ServerName::try_from(account.server_name.clone())?;
        let tls = TlsConnector::from(Arc::new(tls)).connect(name, tcp).await.context("TLS")?;
        let io = BufStream::with_capacity(BUFFER_BYTES, BUFFER_BYTES, tls);
        let pending = initiate_stream(io, ns::CLIENT, header(&account.domain), Timeouts::default())
            .await
            .context("stream header")?;
        let (features, mut stream) = pending.recv_features::<StreamElement>().await.context("features")?;
        let offered = &features.sasl_mechanisms;
        ensure!(
            offered.contains(scram::MECHANISM),
            "the server offers {offered:?}, not {}",
            scram::MECHANISM
        );
        authenticate(&mut stream, account).await?;
        let pending =
            stream.initiate_reset().send_header(header(&account.domain)).await.context("second header")?;
        let (_, stream): (StreamFeatures, Stream) =
            pending.recv_features().await.context("second features")?;
        let mut client = Self { stream, domain: account.domain.parse()?, next_id: 0 };
        client.bind().await?;
        Ok(client)
    }

    /// The same, for a task of its own.
    ///
    /// # Errors
    /// Where the login failed.
    pub async fn login_owned(account: Account) -> Result<Self> {
        Self::login(&account).await
    }

    async fn bind(&mut self) -> Result<()> {
        self.send(Iq::from_set("bind", BindQuery::new(None))).await?;
        match self.next_iq().await? {
            Iq::Result { .. } => Ok(()),
            other => bail!("bind was answered with {other:?}"),
        }
    }

    /// Sends `total` pings to the server, at most `outstanding` unanswered, and waits for all answers.
    ///
    /// # Errors
    /// When a ping is answered with an error or not at all.
    pub async fn pings(&mut self, total: u64, outstanding: u64) -> Result<()> {
        let (mut sent, mut answered) = (0, 0);
        while answered < total {
            while sent < total && sent - answered < outstanding {
                self.next_id += 1;
                let ping = Iq::from_get(format!("p{}", self.next_id), Ping).with_to(self.domain.clone());
                self.stream.feed(&StreamElement::Iq(ping)).await.context("send ping")?;
                sent += 1;
            }
            SinkExt::<&StreamElement>::flush(&mut self.stream).await.context("flush")?;
            match self.next_iq().await? {
                Iq::Result { .. } => answered += 1,
                other => bail!("a ping was answered with {other:?}"),
            }
        }
        Ok(())
    }

    async fn send(&mut self, iq: Iq) -> Result<()> {
        self.stream.send(&StreamElement::Iq(iq)).await.context("send")
    }

    async fn next_iq(&mut self) -> Result<Iq> {
        loop {
            match self.stream.next().await {
                Some(Ok(StreamElement::Iq(iq))) => return Ok(iq),
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(error).context("read"),
                None => bail!("the server closed the stream"),
            }
        }
    }
}

async fn authenticate(stream: &mut Stream, account: &Account) -> Result<()> {
    let client = scram::Client::new(&account.user, Secret::new(account.password.as_str()))?;
    let auth = Auth { mechanism: scram::MECHANISM.to_owned(), body: client.first() };
    stream.send(&StreamElement::Sasl(SaslElement::Auth(auth))).await.context("send auth")?;
    let challenge = match stream.next().await {
        Some(Ok(StreamElement::Sasl(SaslElement::Challenge(challenge)))) => challenge.body,
        other => bail!("auth was answered with {other:?}"),
    };
    let (body, verifier) = client.respond(&challenge)?;
    stream
        .send(&StreamElement::Sasl(SaslElement::Response(Response { body })))
        .await
        .context("send response")?;
    match stream.next().await {
        Some(Ok(StreamElement::Sasl(SaslElement::Success(success)))) => Ok(verifier.verify(&success.body)?),
        other => bail!("response was answered with {other:?}"),
    }
}

fn header(domain: &str) -> StreamHeader<'static> {
    StreamHeader { to: Some(domain.to_owned().into()), from: None, id: None }
}
