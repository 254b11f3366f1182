//! Where the way out comes from: scripts by file and HTTP, WPAD, several proxies of which some fail, TLS to the proxy,
//! and another way taken over without a restart.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use causeway_agent::chain::Chain;
use causeway_agent::dial::direct::Straight;
use causeway_agent::dial::proxy::pac::fetch::Place;
use causeway_agent::dial::proxy::pac::{FixedPlace, Pac};
use causeway_agent::dial::proxy::settings::ProxySettings;
use causeway_agent::dial::proxy::watch::ProxyWatch;
use causeway_agent::dial::proxy::wpad::{Suffixes, Wpad};
use causeway_agent::dial::proxy::{Access, Destination, Ways};
use causeway_agent::dial::resolve::Names;
use causeway_agent::dial::steps::Steps;
use causeway_agent::dial::tls::Trust;
use causeway_agent::dial::{Dial, DialError, Dialer, Target};
use causeway_agent::random::RandomSource;
use causeway_agent::secrets::{FileModeSealer, SecretStore};
use causeway_mock_kit::dns::DnsServer;
use causeway_mock_kit::pki::TestCa;
use causeway_mock_kit::proxy::{ConnectProxy, ConnectSettings};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};

use crate::support::soon;

fn names(server: SocketAddr) -> Names {
    Names::new(&[server], RandomSource::seeded(1)).unwrap()
}

/// Nobody answers there.
fn no_names() -> Names {
    names("127.0.0.1:1".parse().unwrap())
}

fn by_script(text: &str, dir: &Path) -> Dialer {
    let file = dir.join("proxy.pac");
    std::fs::write(&file, text).unwrap();
    let straight = Straight::new(no_names());
    let place = FixedPlace { place: Place::File(file), straight: straight.clone(), trust: Trust::System };
    let pac = Pac::new(Box::new(place), straight, None);
    Dialer::new(no_names(), Ways::pac(pac, Access::default()))
}

async fn closed_port() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

/// Says hello to whoever connects.
async fn greeter() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.write_all(b"hello").await;
        }
    });
    at
}

/// Answers every connection with these bytes after a request has come.
async fn answering(says: String) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let says = says.clone();
            tokio::spawn(async move {
                let mut request = vec![0; 4096];
                let _ = stream.read(&mut request).await;
                let _ = stream.write_all(says.as_bytes()).await;
                let _ = stream.shutdown().await;
            });
        }
    });
    at
}

async fn greeted(dialer: &Dialer, at: SocketAddr) -> Result<(), DialError> {
    let mut stream = dialer.connect(Target::outside(at.ip().to_string(), at.port())).await?;
    let mut got = [0; 5];
    soon("the greeting", stream.read_exact(&mut got)).await.unwrap();
    assert_eq!(&got, b"hello");
    Ok(())
}

fn tunnels(proxy: &ConnectProxy) -> usize {
    proxy.journal().count(|entry| entry.operation == "connect")
}

#[tokio::test]
async fn a_script_chooses_by_host_and_straight_is_a_choice() {
    let (one, two) = (ConnectProxy::start(ConnectSettings::default()).await.unwrap(), greeter().await);
    let dir = tempfile::tempdir().unwrap();
    let text = format!(
        "function FindProxyForURL(url, host) {{ return shExpMatch(url, '*:{}/') ? 'PROXY {}' : 'DIRECT'; }}",
        two.port(),
        one.address()
    );
    let dialer = by_script(&text, dir.path());
    greeted(&dialer, two).await.unwrap();
    assert_eq!(tunnels(&one), 1);
    greeted(&dialer, greeter().await).await.unwrap();
    assert_eq!(tunnels(&one), 1);
}

#[tokio::test]
async fn a_failing_proxy_is_skipped_at_once_and_left_out_afterwards() {
    let good = ConnectProxy::start(ConnectSettings::default()).await.unwrap();
    let dead = closed_port().await;
    let dir = tempfile::tempdir().unwrap();
    let text = format!("function FindProxyForURL() {{ return 'PROXY {dead}; PROXY {}'; }}", good.address());
    let dialer = by_script(&text, dir.path());
    let at = greeter().await;
    greeted(&dialer, at).await.unwrap();
    let steps = Steps::recorded();
    let target = Target::outside(at.ip().to_string(), at.port());
    dialer.connect_noting(&target, &steps).await.unwrap();
    let taken = steps.taken().join("\n");
    assert!(!taken.contains("fails"), "the dead proxy was tried again:\n{taken}");
    assert_eq!(dialer.used().unwrap().to_string(), format!("proxy http://{}", good.address()));
    let order = dialer.explain(&Destination::of(&target)).await.routes;
    assert_eq!(order.last().unwrap().to_string(), format!("proxy http://{dead}"));

    dialer.network_changed();
    let steps = Steps::recorded();
    dialer.connect_noting(&target, &steps).await.unwrap();
    assert!(steps.taken().join("\n").contains(&format!("http://{dead} fails")), "{:?}", steps.taken());
}

#[tokio::test]
async fn a_proxy_that_cannot_reach_the_target_passes_it_on_and_a_verdict_ends_the_search() {
    let good = ConnectProxy::start(ConnectSettings::default()).await.unwrap();
    let at = greeter().await;
    let dir = tempfile::tempdir().unwrap();
    for (status, passed_on) in
        [("502 Bad Gateway", true), ("503 x", true), ("504 x", true), ("403 Forbidden", false)]
    {
        let first = answering(format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n")).await;
        let text =
            format!("function FindProxyForURL() {{ return 'PROXY {first}; PROXY {}'; }}", good.address());
        let dialer = by_script(&text, dir.path());
        match greeted(&dialer, at).await {
            Ok(()) => assert!(passed_on, "{status} was passed on"),
            Err(error) => {
                assert!(!passed_on && Chain(&error).to_string().contains("403"), "{}", Chain(&error))
            }
        }
    }
}

#[tokio::test]
async fn when_every_way_fails_each_is_named() {
    let (a, b) = (closed_port().await, closed_port().await);
    let dir = tempfile::tempdir().unwrap();
    let dialer =
        by_script(&format!("function FindProxyForURL() {{ return 'PROXY {a}; PROXY {b}'; }}"), dir.path());
    let error = greeted(&dialer, greeter().await).await.unwrap_err();
    let text = Chain(&error).to_string();
    assert!(
        text.contains(&a.to_string()) && text.contains(&b.to_string()) && text.contains("PAC script"),
        "{text}"
    );

    let dialer = by_script("function FindProxyForURL() { return 'SOCKS s:1'; }", dir.path());
    let text = Chain(&greeted(&dialer, greeter().await).await.unwrap_err()).to_string();
    assert!(text.contains("names no way we can use"), "{text}");
}

#[tokio::test]
async fn a_script_that_fails_leads_straight() {
    let dir = tempfile::tempdir().unwrap();
    let dialer = by_script("function FindProxyForURL() { while (true); }", dir.path());
    greeted(&dialer, greeter().await).await.unwrap();
    let plan = dialer.explain(&Destination::parse("https://c/").unwrap()).await;
    assert!(plan.rule.contains("was stopped after 500 ms"), "{plan}");
}

fn script_answer(script: &str) -> String {
    format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/x-ns-proxy-autoconfig\r\nContent-Length: {}\r\n\r\n{script}",
        script.len()
    )
}

fn settings(text: &str) -> ProxySettings {
    toml::from_str(text).unwrap()
}

async fn way(dialer: &Dialer, url: &str) -> String {
    dialer.explain(&Destination::parse(url).unwrap()).await.to_string()
}

#[tokio::test]
async fn scripts_come_over_http_with_redirects_and_limits() {
    let dir = tempfile::tempdir().unwrap();
    let straight = Straight::new(no_names());
    let server = answering(script_answer("function FindProxyForURL() { return 'PROXY fetched:1'; }")).await;
    let elsewhere = answering(format!("HTTP/1.1 302 Found\r\nLocation: http://{server}/x\r\n\r\n")).await;
    let circle = answering("HTTP/1.1 302 Found\r\nLocation: /again\r\n\r\n".to_owned()).await;
    let missing = answering("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n".to_owned()).await;
    let huge = answering(script_answer(&"x".repeat(2 << 20))).await;
    let portal = answering(script_answer("<html>Please log in</html>")).await;
    for (at, expected) in [
        (server, "proxy http://fetched:1 "),
        (elsewhere, "proxy http://fetched:1 "),
        (circle, "redirects more than"),
        (missing, "answers 404"),
        (huge, "more than 1048576 bytes"),
        (portal, "cannot be loaded"),
        (closed_port().await, "connect to the script's server"),
    ] {
        let proxy = settings(&format!("pac_url = \"http://{at}/proxy.pac\""));
        let ways = proxy.ways(&SecretStore::default(), dir.path(), &straight).unwrap();
        let plan = ways.explain(&Destination::parse("https://c/").unwrap()).await;
        let text = format!("{plan} {}", plan.notes.join(" "));
        assert!(text.contains(expected), "{expected} in {text}");
        let _ = std::fs::remove_file(dir.path().join("last-good.pac"));
    }
}

#[tokio::test]
async fn wpad_walks_up_and_believes_private_addresses_only() {
    let dns = DnsServer::start("acme.example").await.unwrap();
    let server = answering(script_answer("function FindProxyForURL() { return 'PROXY found:1'; }")).await;
    let found = |suffixes: Suffixes| {
        // A resolver of its own each time: that a name is missing is remembered.
        let straight = Straight::new(names(dns.address()));
        let wpad = Wpad { straight: straight.clone(), suffixes, port: server.port() };
        Dialer::new(
            no_names(),
            Ways::pac(Pac::new(Box::new(wpad), straight.clone(), None), Access::default()),
        )
    };
    let machine = || Suffixes::OfMachine(vec!["berlin.corp.acme.example".to_owned()]);
    assert!(way(&found(machine()), "https://c/").await.starts_with("direct"));

    dns.set_addresses("wpad.corp.acme.example", &["203.0.113.5".parse().unwrap()]).unwrap();
    let dialer = found(machine());
    let plan = dialer.explain(&Destination::parse("https://c/").unwrap()).await;
    assert!(plan.notes[0].contains("203.0.113.5 is a public address"), "{plan:?}");

    dns.set_addresses("wpad.corp.acme.example", &[server.ip()]).unwrap();
    let text = way(&found(machine()), "https://c/").await;
    assert!(
        text.starts_with("proxy http://found:1 (by WPAD by DNS: http://wpad.corp.acme.example"),
        "{text}"
    );
    let asked = |name: &str| dns.journal().count(|entry| entry.subject == name);
    assert!(asked("wpad.berlin.corp.acme.example") > 0);
    assert_eq!(asked("wpad.acme.example") + asked("wpad.example"), 0, "the walk went too far up");

    let configured = found(Suffixes::Configured("corp.acme.example".to_owned()));
    assert!(way(&configured, "https://c/").await.starts_with("proxy http://found:1"));
}

/// A script looks names up through the agent's own name servers.
#[tokio::test]
async fn scripts_ask_the_agent_s_name_servers() {
    let dns = DnsServer::start("acme.example").await.unwrap();
    dns.set_addresses("inside.acme.example", &["10.1.2.3".parse().unwrap()]).unwrap();
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(
        dir.path().join("proxy.pac"),
        "function FindProxyForURL(url, host) { return isInNet(host, '10.0.0.0', '255.0.0.0') ? 'DIRECT' : 'PROXY p:1'; }",
    )
    .unwrap();
    let straight = Straight::new(names(dns.address()));
    let ways =
        settings("pac_file = \"proxy.pac\"").ways(&SecretStore::default(), dir.path(), &straight).unwrap();
    let find = async |url| ways.explain(&Destination::parse(url).unwrap()).await;
    let plan = find("https://inside.acme.example/").await;
    assert_eq!(plan.routes[0].to_string(), "direct");
    assert!(
        plan.notes.iter().any(|note| note.contains("look-up of inside.acme.example: 10.1.2.3")),
        "{plan:?}"
    );
    assert_eq!(find("https://outside.acme.example/").await.routes[0].to_string(), "proxy http://p:1");
}

/// TLS in front of a plain CONNECT proxy.
async fn secured(proxy: SocketAddr, ca: &TestCa) -> SocketAddr {
    let config = ca.server_config(&["proxy.acme.example", "127.0.0.1"], &[b"http/1.1"]).unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(config);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(mut inside) = acceptor.accept(stream).await else { return };
                let mut plain = TcpStream::connect(proxy).await.unwrap();
                let _ = copy_bidirectional(&mut inside, &mut plain).await;
            });
        }
    });
    at
}

#[tokio::test]
async fn a_proxy_may_want_tls_and_its_certificate_counts() {
    let proxy = ConnectProxy::start(ConnectSettings::default()).await.unwrap();
    let ca = TestCa::new("Proxy CA").unwrap();
    let at = secured(proxy.address(), &ca).await;
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("proxy-ca.pem"), ca.ca_pem()).unwrap();
    let dialer = |text: &str| {
        let straight = Straight::new(no_names());
        let ways = settings(text).ways(&SecretStore::default(), dir.path(), &straight).unwrap();
        Dialer::new(no_names(), ways)
    };
    let trusting = dialer(&format!("url = \"https://127.0.0.1:{}\"\nca_file = \"proxy-ca.pem\"", at.port()));
    greeted(&trusting, greeter().await).await.unwrap();
    assert_eq!(tunnels(&proxy), 1);

    let other = TestCa::new("Another CA").unwrap();
    std::fs::write(dir.path().join("other-ca.pem"), other.ca_pem()).unwrap();
    let doubting = dialer(&format!("url = \"https://127.0.0.1:{}\"\nca_file = \"other-ca.pem\"", at.port()));
    let text = Chain(&greeted(&doubting, greeter().await).await.unwrap_err()).to_string();
    assert!(text.contains("secure the connection to proxy") && text.contains("Proxy CA"), "{text}");
    assert_eq!(tunnels(&proxy), 1);
}

#[tokio::test]
async fn another_way_out_is_taken_over_without_restart() {
    let (first, second) = (
        ConnectProxy::start(ConnectSettings::default()).await.unwrap(),
        ConnectProxy::start(ConnectSettings::default()).await.unwrap(),
    );
    let dir = tempfile::tempdir().unwrap();
    let write = |text: String| std::fs::write(dir.path().join("agent.toml"), text).unwrap();
    write(format!("[proxy]\nurl = \"http://{}\"\n", first.address()));
    let load = || causeway_agent::config::SettingsFile::load(dir.path()).unwrap();
    let settings = load();
    let random = RandomSource::seeded(1);
    let dialer = causeway_agent::dialer(&settings, &SecretStore::default(), &random).unwrap();
    let sealer = Arc::new(FileModeSealer);
    let mut watch = ProxyWatch::new(dialer.clone(), &settings, SecretStore::default(), sealer.clone());
    let at = greeter().await;
    greeted(&dialer, at).await.unwrap();
    assert_eq!((tunnels(&first), tunnels(&second)), (1, 0));

    write(format!("[proxy]\nurl = \"http://{}\" # another one\n", second.address()));
    watch.look();
    greeted(&dialer, at).await.unwrap();
    assert_eq!((tunnels(&first), tunnels(&second)), (1, 1));

    // A file that cannot be used changes nothing.
    write(
        "[proxy]\nurl = \"socks5://nobody\" # and longer than before, so that its length differs\n"
            .to_owned(),
    );
    watch.look();
    greeted(&dialer, at).await.unwrap();
    assert_eq!((tunnels(&first), tunnels(&second)), (1, 2));

    // Credentials: the user's name comes with the settings, the password with the secrets.
    let named = format!("[proxy]\nurl = \"http://{}\"\nusername = \"svc\"\n", first.address());
    write(named);
    watch.look();
    assert!(dialer.ways().access().auth.credentials.is_none(), "without the secret nothing is taken over");
    SecretStore::default()
        .with("proxy_password", causeway_protocol::Secret::new("canary-one"))
        .save(dir.path(), &*sealer)
        .unwrap();
    watch.look();
    let password = |dialer: &Dialer| {
        let ways = dialer.ways();
        ways.access().auth.credentials.as_ref().map(|credentials| credentials.password.expose().to_owned())
    };
    assert_eq!(password(&dialer).as_deref(), Some("canary-one"));
}

#[tokio::test]
async fn changes_are_noticed_by_themselves() {
    let dir = tempfile::tempdir().unwrap();
    let write = |text: &str| std::fs::write(dir.path().join("agent.toml"), text).unwrap();
    write("[proxy]\nurl = \"http://first:1\"\n");
    let settings = causeway_agent::config::SettingsFile::load(dir.path()).unwrap();
    let dialer =
        causeway_agent::dialer(&settings, &SecretStore::default(), &RandomSource::seeded(1)).unwrap();
    let watch = ProxyWatch::new(dialer.clone(), &settings, SecretStore::default(), Arc::new(FileModeSealer));
    let watching = tokio::spawn(watch.run());
    assert!(way(&dialer, "https://c/").await.starts_with("proxy http://first:1"));
    write("[proxy]\nmode = \"none\"\n");
    let taken_over = async {
        while !way(&dialer, "https://c/").await.starts_with("direct") {
            tokio::task::yield_now().await;
        }
    };
    soon("another way out", taken_over).await;
    watching.abort();
}
