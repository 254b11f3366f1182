//! The agent's channel core against XMPP servers that have never heard of Causeway: the production login, stream
//! management and reconnection, over the production dialler and TLS, with another conversation than the cloud's. The
//! link goes through a proxy that holds data back and cuts.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use causeway_agent::channel::conversation::{Asked, Conversation, Taken};
use causeway_agent::channel::login::Credentials;
use causeway_agent::channel::reconnect::{self, Parts};
use causeway_agent::channel::{Channel, ChannelState, IqError};
use causeway_agent::clock::Clock;
use causeway_agent::cloud::CloudConnector;
use causeway_agent::config::Endpoint;
use causeway_agent::dial::Dialer;
use causeway_agent::dial::proxy::Ways;
use causeway_agent::dial::resolve::Names;
use causeway_agent::dial::tls::Trust;
use causeway_agent::identity::Identity;
use causeway_agent::random::RandomSource;
use causeway_agent::secrets::FileModeSealer;
use causeway_mock_kit::fault::{Fault, FaultGuard, Rule, Stream};
use causeway_mock_kit::proxy::TcpProxy;
use causeway_protocol::Secret;
use causeway_protocol::channel::ns;
use causeway_protocol::limits::ELEMENT_MAX_BYTES;
use causeway_tests::containers::{Address, Running};
use futures_util::FutureExt;
use futures_util::future::{join_all, ready};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use xmpp_parsers::jid::Jid;
use xmpp_parsers::minidom::Element;
use xmpp_parsers::stanza_error::DefinedCondition;

/// Payload of the tests' own iqs.
const ORDER: &str = "urn:example:order";

/// Iqs in flight in each direction when the link is cut. More than an acknowledgement is asked for after.
const IN_FLIGHT: usize = 25;

/// A server that starts, a login, a reconnection with its back-off.
const SOON: Duration = Duration::from_secs(60);

/// Remembers the orders it was given, in order.
#[derive(Clone, Default)]
struct Recorder {
    orders: Arc<Mutex<Vec<String>>>,
}

impl Recorder {
    fn orders(&self) -> Vec<String> {
        self.orders.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Conversation for Recorder {
    fn opening(&self) -> Option<Element> {
        None
    }

    fn opened(&self, _: Option<Element>) -> Result<(), String> {
        Ok(())
    }

    fn take(&self, asked: Asked<'_>) -> Taken {
        if !asked.set && asked.payload.is("ping", ns::PING) {
            return Taken::Accepting(ready(Ok(())).boxed());
        }
        if asked.set && asked.payload.is("order", ORDER) {
            self.orders.lock().unwrap_or_else(PoisonError::into_inner).push(asked.payload.text());
            return Taken::Accepting(ready(Ok(())).boxed());
        }
        let unknown = xmpp_parsers::stanza_error::StanzaError::new(
            xmpp_parsers::stanza_error::ErrorType::Cancel,
            DefinedCondition::ServiceUnavailable,
            "en",
            "unknown",
        );
        Taken::Refused(Box::new(unknown))
    }
}

/// One core, logged in as one account.
pub(crate) struct Core {
    channel: Channel,
    recorder: Recorder,
    /// Its full JID.
    jid: Jid,
    stop: CancellationToken,
    task: JoinHandle<()>,
    _dir: TempDir,
}

/// How a core proves itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum By {
    /// SCRAM-SHA-256.
    Password,
    /// SASL EXTERNAL with the certificate of the container.
    Certificate,
}

impl Core {
    async fn start(server: &Address, port: u16, user: &str, by: By) -> Result<Self> {
        let core = Self::spawn(server, port, user, by)?;
        core.wait("online", |state| *state == ChannelState::Online).await?;
        Ok(core)
    }

    fn spawn(server: &Address, port: u16, user: &str, by: By) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let ca = dir.path().join("ca.pem");
        std::fs::write(&ca, &server.ca_pem)?;
        let random = RandomSource::seeded(7);
        let dialer = Dialer::new(Names::new(&[], random.clone())?, Ways::none());
        let identity = match by {
            By::Password => None,
            By::Certificate => Some(identity(server, dir.path())?),
        };
        let endpoint = Endpoint::parse(&format!("https://127.0.0.1:{port}")).map_err(anyhow::Error::msg)?;
        let connector = CloudConnector::new(Arc::new(dialer), endpoint, Trust::File(ca), identity.as_ref())?;
        let account = format!("{user}@{}", server.base_dn).parse::<xmpp_parsers::jid::BareJid>()?;
        let credentials = match by {
            By::Certificate => Credentials::Certificate(account.clone()),
            By::Password => Credentials::Password {
                username: user.to_owned(),
                secret: Secret::new(server.password.as_str()),
            },
        };
        let (recorder, stop) = (Recorder::default(), CancellationToken::new());
        let (channel, ends) = Channel::new();
        let jid = Jid::new(&format!("{account}/{}", causeway_protocol::channel::RESOURCE))?;
        let parts = Parts {
            connect: Arc::new(connector),
            conversation: Arc::new(recorder.clone()),
            jid: account,
            credentials,
            clock: Clock::system(),
            random,
            stop: stop.clone(),
        };
        let task = tokio::spawn(reconnect::run(parts, ends));
        Ok(Self { channel, recorder, jid, stop, task, _dir: dir })
    }

    /// Waits for a state of the channel.
    async fn wait(&self, what: &str, good: impl Fn(&ChannelState) -> bool) -> Result<ChannelState> {
        let mut states = self.channel.state();
        let found = tokio::time::timeout(SOON, states.wait_for(|state| good(state))).await;
        let Ok(found) = found else { bail!("not {what}: last seen {:?}", self.channel.state().borrow()) };
        Ok(found.context("the channel ended")?.clone())
    }

    async fn order(&self, to: &Jid, text: String) -> Result<Option<Element>, IqError> {
        self.channel.set(Some(to.clone()), Element::builder("order", ORDER).append(text).build()).await
    }

    async fn orders(&self, to: &Jid, prefix: &str) -> Result<()> {
        let all = (0..IN_FLIGHT).map(|n| self.order(to, format!("{prefix}{n}")));
        for (n, answer) in join_all(all).await.into_iter().enumerate() {
            answer.with_context(|| format!("order {prefix}{n}"))?;
        }
        Ok(())
    }

    async fn ping(&self, to: Option<&Jid>) -> Result<(), IqError> {
        let ping = Element::builder("ping", ns::PING).build();
        self.channel.get(to.cloned(), ping).await.map(drop)
    }

    async fn stop(self) -> Result<()> {
        self.stop.cancel();
        tokio::time::timeout(SOON, self.task).await.context("the core does not stop")??;
        Ok(())
    }
}

/// The container's client certificate as an agent keeps one.
fn identity(server: &Address, dir: &std::path::Path) -> Result<Identity> {
    let pem = server.client_pem.as_deref().context("the container made no client certificate")?;
    let kept = serde_json::json!({
        "instance": "bench", "tenant": "none", "jid": server.login, "chain_pem": pem, "key_pem": pem,
    });
    let path = dir.join(causeway_agent::identity::FILE_NAME);
    std::fs::write(&path, kept.to_string())?;
    #[cfg(unix)]
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    Ok(Identity::load(dir, &FileModeSealer)?)
}

/// A server, the link of the core under test to it, and another core beside it that has a link of its own.
pub(crate) struct Foreign {
    server: Running,
    link: TcpProxy,
    peers_link: TcpProxy,
    agent: Core,
    peer: Core,
    by: By,
}

impl Foreign {
    pub(crate) async fn start(server: Running, by: By) -> Result<Self> {
        let port = server.port("xmpps");
        let link = TcpProxy::start(([127, 0, 0, 1], port).into()).await?;
        let agent = Core::start(&server, link.address().port(), "bench", by).await?;
        let peers_link = TcpProxy::start(([127, 0, 0, 1], port).into()).await?;
        let peer = Core::start(&server, peers_link.address().port(), "peer", By::Password).await?;
        Ok(Self { server, link, peers_link, agent, peer, by })
    }

    /// Pings, questions the server does not know, questions nobody knows; in both directions.
    pub(crate) async fn talk(&self) -> Result<()> {
        self.agent.ping(None).await.context("the agent pings the server")?;
        self.agent.ping(Some(&self.peer.jid)).await.with_context(|| {
            let state = self.peer.channel.state();
            format!("the agent pings the peer, which is {:?}", state.borrow())
        })?;
        self.peer.ping(Some(&self.agent.jid)).await.context("the peer pings the agent")?;
        let domain = Jid::new(&self.server.base_dn)?;
        let info = Element::builder("query", "http://jabber.org/protocol/disco#info").build();
        let found = self.agent.channel.get(Some(domain.clone()), info).await.context("disco")?;
        let found = found.context("an empty answer to disco")?;
        ensure!(found.children().any(|child| child.name() == "identity"), "{found:?}");
        for to in [Some(domain), Some(self.peer.jid.clone()), None] {
            let version = Element::builder("query", "jabber:iq:version").build();
            match self.agent.channel.get(to.clone(), version).await {
                Err(IqError::Refused(error))
                    if error.defined_condition == DefinedCondition::ServiceUnavailable => {}
                other => bail!("{to:?} answers {other:?} to a question for its version"),
            }
        }
        Ok(())
    }

    /// Cuts the link with iqs in flight in both directions; the session is resumed, and every iq is answered and was
    /// taken exactly once, in order.
    pub(crate) async fn cut_and_resume(&self) -> Result<()> {
        for round in 0..2 {
            let (to_agent, to_peer) = (format!("in{round}-"), format!("out{round}-"));
            // The first time what is in flight gets lost on the way; the second time it arrives, but the
            // acknowledgements and answers do not.
            let rule = Rule::new(Fault::Timeout { ms: 0 });
            let rule = rule.stream(if round == 0 { Stream::Both } else { Stream::Downstream });
            let held = self.link.faults().guard(rule);
            let (inward, outward) = tokio::join!(
                self.peer.orders(&self.agent.jid, &to_agent),
                self.agent_orders_through_a_cut(&to_peer, held, round),
            );
            inward.with_context(|| format!("round {round}: inward"))?;
            outward.with_context(|| format!("round {round}: outward"))?;
            let expected = |prefix: &str| (0..IN_FLIGHT).map(|n| format!("{prefix}{n}")).collect::<Vec<_>>();
            let of_round = |orders: Vec<String>, prefix: &str| {
                orders.into_iter().filter(|order| order.starts_with(prefix)).collect::<Vec<_>>()
            };
            let taken = of_round(self.agent.recorder.orders(), &to_agent);
            ensure!(taken == expected(&to_agent), "the agent took {taken:?}");
            let taken = of_round(self.peer.recorder.orders(), &to_peer);
            ensure!(taken == expected(&to_peer), "the peer took {taken:?}");
        }
        Ok(())
    }

    async fn agent_orders_through_a_cut(&self, prefix: &str, held: FaultGuard, round: usize) -> Result<()> {
        let cut = async {
            // Behind the peer's orders on its own stream, so the server has those for the agent already.
            self.peer.ping(None).await?;
            if round == 1 {
                let got = || self.peer.recorder.orders().iter().filter(|it| it.starts_with(prefix)).count();
                until("the agent's orders arrive at the peer", got, |count| *count == IN_FLIGHT).await?;
            }
            until("the orders are on their way", || self.agent.channel.waiting(), |waiting| *waiting == 0)
                .await?;
            ensure!(self.link.cut() == 1, "there was one connection to cut");
            drop(held);
            Ok(())
        };
        let (answered, cut) = tokio::join!(self.agent.orders(&self.peer.jid, prefix), cut);
        cut?;
        // Only a resumed session still waits for the answers: a new one would have told every asker "lost".
        answered
    }

    /// While the link is down the session is taken away; the resumption fails, and the agent binds anew on the same
    /// stream. Iqs of the lost session are told so.
    pub(crate) async fn refused_resumption(&self) -> Result<()> {
        let held = self.link.faults().guard(Rule::new(Fault::Timeout { ms: 0 }).stream(Stream::Both));
        let lost = self.agent.order(&self.peer.jid, "lost".to_owned());
        let usurped = async {
            until("the order is on its way", || self.agent.channel.waiting(), |waiting| *waiting == 0)
                .await?;
            let down = self.link.faults().guard(Rule::new(Fault::Down {}));
            drop(held);
            // The same full JID again: the server drops what it kept for the one that was cut.
            let usurper = Core::start(&self.server, self.server.port("xmpps"), "bench", self.by).await?;
            usurper.ping(None).await?;
            usurper.stop().await?;
            drop(down);
            Ok::<_, anyhow::Error>(())
        };
        let (lost, usurped) = tokio::join!(lost, usurped);
        usurped.context("take the session away")?;
        ensure!(matches!(lost, Err(IqError::Lost)), "the order of the lost session ended with {lost:?}");
        self.agent.wait("online again", |state| *state == ChannelState::Online).await?;
        self.agent.ping(Some(&self.peer.jid)).await.context("a ping in the new session")?;
        ensure!(!self.peer.recorder.orders().iter().any(|order| order == "lost"), "it arrived after all");
        Ok(())
    }

    /// As much as the server takes arrives; more is refused here, and the session goes on.
    pub(crate) async fn largest_stanza(&self) -> Result<()> {
        let before = self.agent.recorder.orders().len();
        let text = "x".repeat(ELEMENT_MAX_BYTES - 1_000);
        self.agent.order(&self.peer.jid, text).await.context("an order just below the limit")?;
        let over = self.agent.order(&self.peer.jid, "x".repeat(ELEMENT_MAX_BYTES)).await;
        ensure!(matches!(over, Err(IqError::TooLarge { .. })), "above the limit: {over:?}");
        self.agent.ping(None).await.context("the session goes on")?;
        ensure!(self.agent.recorder.orders().len() == before, "nothing came back");
        Ok(())
    }

    /// The server goes away, as `leave` makes it, and comes back; so does the agent. Returns why it was offline.
    pub(crate) async fn restart(
        &mut self,
        leave: impl AsyncFnOnce(&Running) -> Result<()>,
    ) -> Result<String> {
        leave(&self.server).await.context("stop the server")?;
        let state = self.agent.wait("offline", |state| matches!(state, ChannelState::Waiting { .. })).await?;
        let ChannelState::Waiting { reason, needs_admin, .. } = state else { bail!("not waiting") };
        ensure!(!needs_admin, "a restart is no matter for a person: {reason}");
        self.server.start_again().await.context("start the server again")?;
        for link in [&self.link, &self.peers_link] {
            link.retarget(([127, 0, 0, 1], self.server.port("xmpps")).into());
        }
        let back = || async { self.agent.ping(None).await.is_ok() && self.peer.ping(None).await.is_ok() };
        let deadline = tokio::time::Instant::now() + SOON * 2;
        while !back().await {
            ensure!(
                tokio::time::Instant::now() < deadline,
                "not back: last seen {:?}",
                (self.agent.channel.state().borrow().clone(), self.peer.channel.state().borrow().clone())
            );
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        Ok(reason)
    }

    pub(crate) async fn stop(self) -> Result<()> {
        self.peer.stop().await?;
        self.agent.stop().await
    }
}

/// Every server's story but its end.
pub(crate) async fn everything_but_a_restart(foreign: &Foreign) -> Result<()> {
    foreign.talk().await.context("talk")?;
    foreign.cut_and_resume().await.context("cut and resume")?;
    foreign.largest_stanza().await.context("largest stanza")?;
    foreign.refused_resumption().await.context("refused resumption")?;
    foreign.talk().await.context("talk after a refused resumption")
}

/// A wrong password is a matter for a person, and is not tried again at once.
pub(crate) async fn wrong_password(server: &Address) -> Result<()> {
    let mut wrong: Address = server.clone();
    wrong.password = "wrong".to_owned();
    let refused = tokio::time::timeout(SOON, async {
        let core = Core::spawn(&wrong, wrong.port("xmpps"), "bench", By::Password)?;
        let state = core.wait("refused", |state| matches!(state, ChannelState::Waiting { .. })).await?;
        core.stop().await?;
        Ok::<_, anyhow::Error>(state)
    });
    match refused.await.context("the login ends")?? {
        ChannelState::Waiting { reason, needs_admin: true, delay_ms }
            if reason.contains("not-authorized") =>
        {
            ensure!(delay_ms >= 900_000, "it would be tried again after {delay_ms} ms");
            Ok(())
        }
        other => bail!("a wrong password leads to {other:?}"),
    }
}

async fn until<T: std::fmt::Debug>(what: &str, look: impl Fn() -> T, good: impl Fn(&T) -> bool) -> Result<T> {
    let deadline = tokio::time::Instant::now() + SOON;
    loop {
        let seen = look();
        if good(&seen) {
            return Ok(seen);
        }
        ensure!(tokio::time::Instant::now() < deadline, "{what}: last seen {seen:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
