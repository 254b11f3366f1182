//! Two servers with NDES for one profile. Each keeps challenges of its own, so a request goes to the one that gave its
//! challenge, and another one takes over with another challenge.

use std::net::{Ipv4Addr, SocketAddr};

use causeway_mock_ca::MockCa;
use causeway_mock_ca::config::Config;
use causeway_mock_kit::proxy::TcpProxy;

use super::against_mock::{Against, word};
use super::*;
use crate::modules::Verdict;
use crate::web::endpoint::Endpoint;

/// Nobody listens on port 1: a connection through the proxy ends at once.
const AWAY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 1);

/// A server with NDES, and the ways to its two addresses.
struct Front(Vec<(TcpProxy, SocketAddr)>);

impl Front {
    /// The ways, and the URLs by them.
    async fn before(mock: &MockCa) -> (Self, Vec<String>) {
        let (mut ways, mut urls) = (Vec::new(), Vec::new());
        for url in ["scep", "ndes_admin"].map(|front| mock.url(front)) {
            let port = Endpoint::read(url).unwrap().port;
            let there = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
            let way = TcpProxy::start(there).await.unwrap();
            urls.push(url.replace(&format!(":{port}"), &format!(":{}", way.address().port())));
            ways.push((way, there));
        }
        (Self(ways), urls)
    }

    fn goes_away(&self) {
        for (way, _) in &self.0 {
            way.retarget(AWAY);
            way.cut();
        }
    }

    fn comes_back(&self) {
        self.0.iter().for_each(|(way, there)| way.retarget(*there));
    }
}

/// Two of them before one agent. They issue under different authorities, which shows who has issued what.
struct Pair {
    against: Against,
    second: MockCa,
    fronts: [Front; 2],
}

impl Pair {
    async fn new() -> Self {
        let second = MockCa::start(Config::default()).await.unwrap();
        let mock = MockCa::start(Config::default()).await.unwrap();
        let ((front, urls), (other, others)) = (Front::before(&mock).await, Front::before(&second).await);
        let next = second.authority().await.hierarchy().current().authority.certificate.sha256();
        assert_eq!(mock.service_account(), second.service_account());
        let changes = json!({
            "urls": [urls[0], others[0]], "challenge_urls": [urls[1], others[1]], "next_fingerprint": next,
        });
        let against = Against::before(mock, changes).await;
        Self { against, second, fronts: [front, other] }
    }

    /// What the two have issued.
    async fn counts(&self) -> (usize, usize) {
        (self.against.count().await, self.second.authority().await.issued_count())
    }
}

#[tokio::test]
async fn a_request_goes_to_the_server_that_gave_its_challenge() {
    let pair = Pair::new().await;
    let first = pair.against.challenge("a").await;
    pair.fronts[0].goes_away();
    let second = pair.against.challenge("b").await;
    pair.fronts[0].comes_back();
    pair.against.issued(&pair.against.device_order("a", &first)).await;
    assert_eq!(pair.counts().await, (1, 0));
    pair.against.issued(&pair.against.device_order("b", &second)).await;
    assert_eq!(pair.counts().await, (1, 1));
}

#[tokio::test]
async fn another_server_takes_over_with_another_challenge() {
    let pair = Pair::new().await;
    let answer = pair.against.challenge("a").await;
    pair.fronts[0].goes_away();
    // A look, so that no request leaves on a connection of before: nobody could say whether that arrived.
    pair.against.module.check(pair.against.cx.clone()).await;
    // The cloud asks the device again after this code.
    let error = failure(pair.against.issue(&pair.against.device_order("a", &answer)).await);
    assert_eq!(error.code, "ca_challenge_refused", "{error:?}");
    let answer = pair.against.challenge("a").await;
    pair.against.issued(&pair.against.device_order("a", &answer)).await;
    // What the agent makes itself needs nobody's help.
    pair.against.issued(&pair.against.agent_order("b")).await;
    assert_eq!(pair.counts().await, (0, 2));
    pair.fronts[0].comes_back();
    pair.fronts[1].goes_away();
    pair.against.issued(&pair.against.agent_order("c")).await;
    assert_eq!(pair.counts().await, (1, 2));
}

/// Whether the request arrived before the server went away for good nobody can say: that is said after a while, and the
/// cloud begins anew.
#[tokio::test]
async fn an_answer_that_got_lost_with_its_server_holds_nobody_up_for_long() {
    let mut pair = Pair::new().await;
    pair.against.strike("PKIOperation", word("lost_reply"));
    pending(pair.against.issue(&pair.against.agent_order("a")).await);
    pair.fronts[0].goes_away();
    pending(pair.against.issue(&pair.against.agent_order("a")).await);
    let later_ms = pair.against.cx.clock.now_ms() + 61 * 60_000;
    pair.against.cx.clock = Clock::simulated(later_ms);
    let error = failure(pair.against.issue(&pair.against.agent_order("a")).await);
    assert_eq!(error.code, "ca_unclear", "{error:?}");
    pair.against.issued(&pair.against.agent_order("b")).await;
    assert_eq!(pair.counts().await, (1, 1));
}

#[tokio::test]
async fn another_server_gives_a_challenge_when_one_has_none_left() {
    let pair = Pair::new().await;
    pair.against.strike("challenge", word("cache_full"));
    pair.against.issued(&pair.against.agent_order("a")).await;
    assert_eq!(pair.counts().await, (0, 1));
}

#[tokio::test]
async fn the_doctor_names_the_server_that_is_away() {
    let pair = Pair::new().await;
    for (is_away, verdict) in [(false, Verdict::Ok), (true, Verdict::Warn), (false, Verdict::Ok)] {
        if is_away {
            pair.fronts[1].goes_away()
        } else {
            pair.fronts[1].comes_back()
        }
        let found = pair.against.module.check(pair.against.cx.clone()).await;
        let check = found.iter().find(|result| result.name() == "certificates.front_ends").unwrap();
        assert_eq!(check.verdict(), verdict, "{found:?}");
        let port = pair.fronts[1].0[0].0.address().port().to_string();
        assert_eq!(check.detail().contains(&port), is_away, "{check:?}");
    }
}
