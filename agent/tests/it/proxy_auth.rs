//! What is said to proxies that ask who we are, and how proxies that misbehave are survived.

use std::net::SocketAddr;
use std::time::Duration;

use causeway_agent::chain::Chain;
use causeway_agent::dial::connect_proxy::{Authenticator, Credentials, ProxyAuth, ProxyError};
use causeway_agent::dial::proxy::bypass::Bypass;
use causeway_agent::dial::proxy::{Access, ProxyServer, Ways};
use causeway_agent::dial::resolve::Names;
use causeway_agent::dial::steps::Steps;
use causeway_agent::dial::{Dialer, Target};
use causeway_agent::limits::{PROXY_ROUNDS_MAX, PROXY_WITHIN};
use causeway_agent::random::RandomSource;
use causeway_mock_kit::ntlm::{NtlmServer, ServerNames};
use causeway_mock_kit::proxy::{
    ConnectAuth, ConnectProxy, ConnectSettings, DigestAccount, DigestAlgorithm, Manners,
};
use causeway_protocol::Secret;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::support::{eventually, soon};

const USER: &str = "svc";
const PASSWORD: &str = "canary-proxy";

/// Everything allowed that can be.
fn auth(username: &str, password: &str) -> ProxyAuth {
    ProxyAuth {
        credentials: Some(Credentials { username: username.to_owned(), password: Secret::new(password) }),
        allow_basic: Some(true),
        negotiate_ntlm: true,
        ..ProxyAuth::default()
    }
}

fn ways(proxy: SocketAddr, auth: ProxyAuth) -> Ways {
    let server = ProxyServer { host: proxy.ip().to_string(), port: proxy.port(), tls: false };
    Ways::manual(server, Bypass::nothing(), Access { auth, ..Access::default() })
}

fn dialer(proxy: &ConnectProxy, auth: ProxyAuth) -> Dialer {
    let names = Names::new(&["127.0.0.1:1".parse().unwrap()], RandomSource::seeded(1)).unwrap();
    Dialer::new(names, ways(proxy.address(), auth))
}

async fn proxy(auth: ConnectAuth) -> ConnectProxy {
    with(ConnectSettings { auth, ..ConnectSettings::default() }).await
}

async fn with(settings: ConnectSettings) -> ConnectProxy {
    ConnectProxy::start(settings).await.unwrap()
}

async fn rude(auth: ConnectAuth, manners: Manners) -> ConnectProxy {
    with(ConnectSettings { auth, manners, ..ConnectSettings::default() }).await
}

/// Answers a 407 proxy would give first.
fn says(answers: &[&str]) -> Manners {
    Manners { says: answers.iter().map(|answer| answer.as_bytes().to_vec()).collect(), ..Manners::default() }
}

fn basic() -> ConnectAuth {
    ConnectAuth::Basic { user: USER.into(), password: PASSWORD.into() }
}

fn ntlm() -> ConnectAuth {
    ConnectAuth::Ntlm { user: USER.into(), password: PASSWORD.into() }
}

fn digest(algorithm: DigestAlgorithm, uses_max: u32) -> ConnectAuth {
    ConnectAuth::Digest(DigestAccount { algorithm, uses_max, ..DigestAccount::new(USER, PASSWORD) })
}

fn every_scheme() -> Vec<(&'static str, ConnectAuth)> {
    let negotiate = ConnectAuth::Negotiate { user: USER.into(), password: PASSWORD.into() };
    vec![
        ("Basic", basic()),
        ("Digest", digest(DigestAlgorithm::Unnamed, 50)),
        ("Digest", digest(DigestAlgorithm::Md5Sess, 50)),
        ("Digest", digest(DigestAlgorithm::Sha256, 50)),
        ("Digest", digest(DigestAlgorithm::Sha256Sess, 50)),
        ("NTLM", ntlm()),
        ("Negotiate", negotiate),
    ]
}

async fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut from, mut to) = stream.split();
                let _ = tokio::io::copy(&mut from, &mut to).await;
            });
        }
    });
    at
}

/// Connects and says something through the tunnel; gives the steps, and the failure as text.
async fn attempt(dialer: &Dialer, to: SocketAddr) -> (Vec<String>, Result<(), String>) {
    let steps = Steps::recorded();
    let outcome = async {
        let target = Target::outside(to.ip().to_string(), to.port());
        let mut stream =
            dialer.connect_noting(&target, &steps).await.map_err(|error| Chain(&error).to_string())?;
        stream.write_all(b"echo").await.unwrap();
        let mut got = [0; 4];
        stream.read_exact(&mut got).await.unwrap();
        assert_eq!(&got, b"echo");
        Ok(())
    };
    let outcome = soon("the tunnel or its failure", outcome).await;
    let taken = steps.taken();
    let all = format!("{taken:?} {outcome:?}");
    assert!(!all.contains("canary") && !all.contains("Y2FuYXJ5"), "a secret is shown: {all}");
    (taken, outcome)
}

async fn works(dialer: &Dialer, to: SocketAddr) -> Vec<String> {
    let (steps, outcome) = attempt(dialer, to).await;
    outcome.unwrap_or_else(|error| panic!("{error}; {steps:#?}"));
    steps
}

async fn fails(dialer: &Dialer, to: SocketAddr, expected: &str) -> Vec<String> {
    let (steps, outcome) = attempt(dialer, to).await;
    let error = outcome.expect_err(expected);
    assert!(error.contains(expected), "{error:?} does not say {expected:?}; {steps:#?}");
    steps
}

fn requests(proxy: &ConnectProxy) -> usize {
    proxy.journal().count(|entry| entry.operation == "connect")
}

/// How often the password was judged, rightly or wrongly.
fn judged(proxy: &ConnectProxy) -> usize {
    proxy.journal().count(|entry| entry.outcome == "200" || entry.detail["why"] == "wrong password")
}

#[tokio::test]
async fn every_scheme_opens_a_tunnel() {
    let to = echo().await;
    for (scheme, auth_wanted) in every_scheme() {
        let proxy = proxy(auth_wanted).await;
        let dialer = dialer(&proxy, auth(USER, PASSWORD));
        let steps = works(&dialer, to).await;
        assert!(steps.iter().any(|step| step.contains(&format!("by {scheme}"))), "{steps:#?}");
        let passed =
            proxy.journal().count(|entry| entry.detail["scheme"] == scheme && entry.outcome == "200");
        assert_eq!(passed, 1, "{scheme}");
        // The second one begins with what worked.
        let before = requests(&proxy);
        works(&dialer, to).await;
        let rounds = if ["NTLM", "Negotiate"].contains(&scheme) { 2 } else { 1 };
        assert_eq!(requests(&proxy) - before, rounds, "{scheme}");
    }
}

#[tokio::test]
async fn a_domain_travels_with_the_user() {
    let to = echo().await;
    let proxy = proxy(ntlm()).await;
    works(&dialer(&proxy, auth("ACME\\svc", PASSWORD)), to).await;
}

#[tokio::test]
async fn a_wrong_password_is_tried_once_and_a_changed_one_at_once() {
    let to = echo().await;
    for (scheme, auth_wanted) in every_scheme() {
        let proxy = proxy(auth_wanted).await;
        let dialer = dialer(&proxy, auth(USER, "canary-wrong"));
        fails(&dialer, to, &format!("does not accept user svc by {scheme}")).await;
        assert_eq!(judged(&proxy), 1, "{scheme}");
        for _ in 0..3 {
            let steps = fails(&dialer, to, "was refused lately; the next attempt is in 30 min").await;
            assert!(steps.iter().any(|step| step.contains("no credentials are shown")), "{steps:#?}");
        }
        assert_eq!(judged(&proxy), 1, "{scheme}");
        dialer.set_ways(ways(proxy.address(), auth(USER, PASSWORD)));
        works(&dialer, to).await;
        assert_eq!(judged(&proxy), 2, "{scheme}");
    }
}

#[tokio::test]
async fn many_connections_show_a_wrong_password_once() {
    let to = echo().await;
    for (scheme, auth_wanted) in every_scheme() {
        let proxy = proxy(auth_wanted).await;
        let dialer = dialer(&proxy, auth(USER, "canary-wrong"));
        let all = futures_util::future::join_all((0..8).map(|_| attempt(&dialer, to))).await;
        assert!(all.iter().all(|(_, outcome)| outcome.is_err()));
        assert_eq!(judged(&proxy), 1, "{scheme}");
    }
}

#[tokio::test]
async fn many_connections_with_the_right_password_all_pass() {
    let to = echo().await;
    for (_, auth_wanted) in every_scheme() {
        let proxy = proxy(auth_wanted).await;
        let dialer = dialer(&proxy, auth(USER, PASSWORD));
        for (steps, outcome) in futures_util::future::join_all((0..8).map(|_| attempt(&dialer, to))).await {
            outcome.unwrap_or_else(|error| panic!("{error}; {steps:#?}"));
        }
    }
}

#[tokio::test]
async fn the_strongest_scheme_is_chosen() {
    let to = echo().await;
    let several = ConnectAuth::Several(vec![basic(), digest(DigestAlgorithm::Sha256, 50), ntlm()]);
    let proxy = proxy(several).await;
    let steps = works(&dialer(&proxy, auth(USER, PASSWORD)), to).await;
    assert!(steps.iter().any(|step| step.contains("the answer of NTLM")), "{steps:#?}");
    assert!(!steps.iter().any(|step| step.contains("by Basic") || step.contains("by Digest")), "{steps:#?}");
}

#[tokio::test]
async fn a_password_in_clear_must_be_allowed() {
    let to = echo().await;
    let proxy = proxy(basic()).await;
    let default = ProxyAuth { allow_basic: None, ..auth(USER, PASSWORD) };
    fails(&dialer(&proxy, default), to, "allow it by proxy.allow_basic = true").await;
    assert_eq!(judged(&proxy), 0);
}

#[tokio::test]
async fn unknown_schemes_and_algorithms_are_passed_over() {
    let to = echo().await;
    let strange = "HTTP/1.1 407 x\r\nProxy-Authenticate: Bearer realm=x, Digest realm=x, nonce=n, algorithm=SHA3-512\r\n\
                   Proxy-Authenticate: Basic realm=\"causeway\"\r\nContent-Length: 0\r\n\r\n";
    let proxy = rude(basic(), says(&[strange])).await;
    let steps = works(&dialer(&proxy, auth(USER, PASSWORD)), to).await;
    assert!(steps.iter().any(|step| step.contains("algorithm SHA3-512 is unknown")), "{steps:#?}");

    let only = "HTTP/1.1 407 x\r\nProxy-Authenticate: Bearer\r\nContent-Length: 0\r\n\r\n";
    let proxy = rude(basic(), says(&[only])).await;
    fails(&dialer(&proxy, auth(USER, PASSWORD)), to, "the schemes the proxy offers (Bearer) can be used")
        .await;
    let digest_only = "HTTP/1.1 407 x\r\nProxy-Authenticate: Digest realm=x, nonce=n, algorithm=SHA3-512\r\nContent-Length: 0\r\n\r\n";
    let proxy = rude(basic(), says(&[digest_only])).await;
    fails(&dialer(&proxy, auth(USER, PASSWORD)), to, "its algorithm SHA3-512 is unknown").await;
}

#[tokio::test]
async fn stale_nonces_are_renewed_but_not_for_ever() {
    let to = echo().await;
    let proxy = proxy(digest(DigestAlgorithm::Unnamed, 3)).await;
    let dialer_of_many = dialer(&proxy, auth(USER, PASSWORD));
    for _ in 0..10 {
        works(&dialer_of_many, to).await;
    }
    let stale = proxy.journal().count(|entry| entry.detail["why"] == "stale");
    assert_eq!(stale, 3, "a nonce lasts for three tunnels, so ten take three renewals");

    let storm = self::proxy(digest(DigestAlgorithm::Unnamed, 0)).await;
    fails(&dialer(&storm, auth(USER, PASSWORD)), to, "calls its own fresh nonce stale").await;
    assert_eq!(requests(&storm), 3);
}

#[tokio::test]
async fn a_forgotten_nonce_is_no_wrong_password() {
    let to = echo().await;
    let first = proxy(digest(DigestAlgorithm::Sha256, 50)).await;
    let at = first.address();
    let dialer = dialer(&first, auth(USER, PASSWORD));
    works(&dialer, to).await;
    drop(first);
    // The proxy restarts, and does not know what a stale nonce is.
    let listener =
        eventually("the port again", || async { TcpListener::bind(at).await.ok() }, Option::is_some)
            .await
            .unwrap();
    let again = "HTTP/1.1 407 x\r\nProxy-Authenticate: Digest realm=causeway, nonce=new, qop=auth\r\nContent-Length: 0\r\n\r\n";
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        for answer in [again, "HTTP/1.1 200 OK\r\n\r\necho"] {
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                request.push(stream.read_u8().await.unwrap());
            }
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
        let _ = stream.read_u8().await;
    });
    works(&dialer, to).await;
}

/// An NTLM challenge as a proxy sends it.
fn ntlm_challenge() -> String {
    use base64::Engine;
    // NEGOTIATE with the flags of MS-NLMP 2.2.1.1's usual client.
    let negotiate = [&b"NTLMSSP\0\x01\0\0\0\xb7\x82\x08\xe2"[..], &[0; 24]].concat();
    let names = ServerNames { netbios_domain: "ACME".into(), ..ServerNames::default() };
    let challenge = NtlmServer::new(names, [7; 8], 1_800_000_000_000).challenge(&negotiate).unwrap();
    let token = base64::engine::general_purpose::STANDARD.encode(challenge);
    format!("HTTP/1.1 407 x\r\nProxy-Authenticate: NTLM {token}\r\nContent-Length: 0\r\n\r\n")
}

const WANTS_NTLM: &str = "HTTP/1.1 407 x\r\nProxy-Authenticate: NTLM\r\nContent-Length: 0\r\n\r\n";

#[tokio::test]
async fn a_proxy_that_never_has_enough_is_left() {
    let to = echo().await;
    let challenge = ntlm_challenge();
    let for_ever: Vec<&str> =
        [WANTS_NTLM].into_iter().chain(std::iter::repeat_n(challenge.as_str(), 20)).collect();
    let proxy = rude(ntlm(), says(&for_ever)).await;
    fails(&dialer(&proxy, auth(USER, PASSWORD)), to, "does not accept user svc by NTLM").await;
    assert_eq!(requests(&proxy), 3, "nothing, the first message, the answer");

    let plain_for_ever: Vec<&str> = std::iter::repeat_n(WANTS_NTLM, 20).collect();
    let proxy = rude(ntlm(), says(&plain_for_ever)).await;
    fails(&dialer(&proxy, auth(USER, PASSWORD)), to, "offers NTLM but does not answer its first message")
        .await;
    assert!(requests(&proxy) <= PROXY_ROUNDS_MAX);
}

#[tokio::test]
async fn a_connection_that_ends_in_the_middle_is_named() {
    let to = echo().await;
    let manners = Manners { closes_after: Some(2), ..Manners::default() };
    let proxy = rude(ntlm(), manners).await;
    let dialer_of_both = dialer(&proxy, auth(USER, PASSWORD));
    fails(
        &dialer_of_both,
        to,
        "NTLM needs the connection to stay open, but the proxy closes it in the middle",
    )
    .await;

    let closing = ntlm_challenge().replace("Content-Length", "Connection: close\r\nContent-Length");
    let proxy = rude(ntlm(), says(&[WANTS_NTLM, &closing])).await;
    fails(&dialer(&proxy, auth(USER, PASSWORD)), to, "NTLM needs the connection to stay open").await;

    let proxy = rude(ntlm(), Manners { http10: true, ..Manners::default() }).await;
    fails(&dialer(&proxy, auth(USER, PASSWORD)), to, "NTLM needs the connection to stay open").await;
    // Basic and Digest do not care.
    for auth_wanted in [basic(), digest(DigestAlgorithm::Unnamed, 50)] {
        let proxy = rude(auth_wanted, Manners { http10: true, ..Manners::default() }).await;
        works(&dialer(&proxy, auth(USER, PASSWORD)), to).await;
    }
}

#[tokio::test]
async fn a_proxy_that_hangs_up_on_passwords_does_not_get_them_for_ever() {
    let to = echo().await;
    let manners = Manners { closes_after: Some(2), ..Manners::default() };
    let proxy = rude(ntlm(), manners).await;
    let dialer = dialer(&proxy, auth(USER, PASSWORD));
    for _ in 0..3 {
        fails(&dialer, to, "in the middle").await;
    }
    fails(&dialer, to, "refused lately").await;
}

/// A 407 with these headers and this body; then the proxy behaves.
async fn after(headers: &str, body: &str) -> ConnectProxy {
    let answer = format!("HTTP/1.1 407 x\r\nProxy-Authenticate: Basic realm=x\r\n{headers}\r\n\r\n{body}");
    rude(basic(), says(&[&answer])).await
}

#[tokio::test]
async fn bodies_are_read_away_on_the_same_connection() {
    let to = echo().await;
    let chunked = "5\r\nhello\r\nA;x=y\r\n0123456789\r\n0\r\nTrailer: x\r\n\r\n";
    let page = "x".repeat(3_000);
    for proxy in
        [after("Transfer-Encoding: chunked", chunked).await, after("Content-Length: 3000", &page).await]
    {
        let steps = works(&dialer(&proxy, auth(USER, PASSWORD)), to).await;
        assert!(steps.iter().any(|step| step.contains("connection kept")), "{steps:#?}");
    }
}

#[tokio::test]
async fn lengths_that_lie_cost_a_connection_and_no_more() {
    let to = echo().await;
    for (headers, body) in [
        ("Content-Length: 5", "more than five"),
        ("Content-Length: 5000", "less"),
        ("Content-Length: 99999999", "less"),
        ("Transfer-Encoding: chunked", "zz\r\nnot a size"),
        ("Transfer-Encoding: chunked", "-5\r\nhello\r\n0\r\n\r\n"),
        ("Transfer-Encoding: chunked", "ffffffffffffffff\r\nhello"),
        ("Via: x", "no length at all"),
    ] {
        let proxy = after(headers, body).await;
        // Every connection begins with the lie, so the second one is answered by it too: a refusal, in one attempt.
        let steps = fails(&dialer(&proxy, auth(USER, PASSWORD)), to, "does not accept user svc").await;
        assert_eq!(
            steps.iter().filter(|step| step.contains("connection not kept")).count(),
            2,
            "{headers}: {steps:#?}"
        );
        assert_eq!(requests(&proxy), 2, "{headers}");
    }
    for headers in ["Content-Length: -1", "Content-Length: 5\r\nContent-Length: 6", "Content-Length: five"] {
        let proxy = after(headers, "hello").await;
        fails(&dialer(&proxy, auth(USER, PASSWORD)), to, "Content-Length").await;
        assert_eq!(requests(&proxy), 1, "{headers}");
    }
}

#[tokio::test]
async fn a_megabyte_of_headers_is_not_read() {
    let to = echo().await;
    let long = format!("HTTP/1.1 407 x\r\nX-Long: {}\r\n\r\n", "x".repeat(1 << 20));
    let many = format!("HTTP/1.1 407 x\r\n{}\r\n", "X-Many: x\r\n".repeat(100_000));
    for answer in [long, many] {
        let proxy = rude(basic(), says(&[&answer])).await;
        fails(&dialer(&proxy, auth(USER, PASSWORD)), to, "its head is too long").await;
    }
}

#[tokio::test]
async fn answers_in_single_bytes_are_whole_answers() {
    let to = echo().await;
    for (_, auth_wanted) in every_scheme() {
        let proxy = rude(auth_wanted, Manners { byte_by_byte: true, ..Manners::default() }).await;
        works(&dialer(&proxy, auth(USER, PASSWORD)), to).await;
    }
}

#[tokio::test]
async fn broken_tokens_are_the_proxys_fault() {
    let to = echo().await;
    for token in ["!", "TlRMTVNTUAAC", "TlRMTVNTUAACAAAA/////////////////////////////////////w=="] {
        let answer =
            format!("HTTP/1.1 407 x\r\nProxy-Authenticate: NTLM {token}\r\nContent-Length: 0\r\n\r\n");
        let proxy = rude(ntlm(), says(&[WANTS_NTLM, &answer])).await;
        let (steps, outcome) = attempt(&dialer(&proxy, auth(USER, PASSWORD)), to).await;
        let error = outcome.expect_err("a broken token");
        assert!(
            error.contains("message is not usable") || error.contains("does not answer its first"),
            "{error} {steps:#?}"
        );
    }
}

#[tokio::test]
async fn refusals_come_with_the_proxys_own_words() {
    let to = echo().await;
    let page = "<html><style>p{}</style><body>Denied by \x1b[2Jrule <b>7</b></body></html>";
    let forbidden = format!(
        "HTTP/1.1 403 Forbidden\r\nX-Squid-Error: ERR_ACCESS_DENIED 0\r\nContent-Type: text/html\r\nContent-Length: {}\r\n\r\n{page}",
        page.len()
    );
    let proxy = rude(ConnectAuth::None, says(&[&forbidden])).await;
    let expected = "the proxy forbids it (403): Forbidden; ERR_ACCESS_DENIED 0; Denied by [2Jrule 7";
    fails(&dialer(&proxy, auth(USER, PASSWORD)), to, expected).await;
    for (status, expected) in
        [(502, "does not reach the target (502)"), (504, "does not reach"), (500, "answers 500")]
    {
        let answer = format!("HTTP/1.1 {status} x\r\nContent-Length: 0\r\n\r\n");
        let proxy = rude(ConnectAuth::None, says(&[&answer])).await;
        fails(&dialer(&proxy, auth(USER, PASSWORD)), to, expected).await;
    }
}

#[tokio::test(start_paused = true)]
async fn silence_ends() {
    let names = Names::new(&["127.0.0.1:1".parse().unwrap()], RandomSource::seeded(1)).unwrap();
    let authenticator = Authenticator::new(std::sync::Arc::new(Dialer::new(names, Ways::none())));
    let server = ProxyServer { host: "proxy".into(), port: 1, tls: false };
    let begun = tokio::time::Instant::now();
    let (ours, _theirs) = tokio::io::duplex(4096);
    let ours = std::sync::Mutex::new(Some(ours));
    let open = || {
        let stream = ours.lock().unwrap().take().expect("one connection is enough");
        async move { Ok::<_, ProxyError>(stream) }
    };
    let target = Target::outside("cloud.example", 443);
    let outcome =
        authenticator.tunnel(&server, &target, &ProxyAuth::default(), &Steps::unrecorded(), open).await;
    assert!(matches!(outcome, Err(ProxyError::TimedOut)));
    assert!(begun.elapsed() < PROXY_WITHIN + Duration::from_secs(1), "{:?}", begun.elapsed());
}
