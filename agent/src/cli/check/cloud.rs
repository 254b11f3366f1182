//! The way to the cloud, step by step: name, connection, TLS, ALPN, login, HTTP/2. A session of the running agent is
//! not disturbed, because the login goes no further than the proof of who we are.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use causeway_protocol::channel::ALPN_XMPP;
use causeway_protocol::limits::{ELEMENT_PRE_AUTH_MAX_BYTES, LOGIN_WITHIN};
use futures_util::FutureExt;
use futures_util::future::join_all;
use http_body_util::Empty;
use hyper::client::conn::http2::handshake;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::time::timeout;

use super::bench::Bench;
use crate::chain::Chain;
use crate::channel::limited::Limited;
use crate::channel::login::{self, Credentials, LoginError};
use crate::checks::{CheckResult, Verdict, declare_checks};
use crate::cloud::{CloudConnector, CloudError};
use crate::config::Endpoint;
use crate::dial::resolve::Names;
use crate::dial::tls::{self, SecureStream, TlsError, Trust, read_certificates};
use crate::dial::{Dial, DialError, Target};
use crate::identity::Identity;
use crate::limits::{CHECK_HTTP_WITHIN, CLOCK_SKEW_MAX};

declare_checks! {
    URL = "cloud.url":
        "whether agent.toml says where the cloud is",
        "enrol this agent, or write cloud.url as https://host:port";
    TRUST = "cloud.trust":
        "whether the authorities that may sign the cloud's certificate can be read and are valid",
        "give the right authorities with cloud.ca_file";
    NAME_SERVERS = "cloud.name_servers":
        "whether each name server of [dns] answers",
        "correct dns.servers in agent.toml, or allow DNS to them at the firewall";
    RESOLVE = "cloud.resolve":
        "whether the cloud's name has an address",
        "correct the name in cloud.url, or the name servers";
    TCP = "cloud.tcp":
        "whether a connection to the cloud's port can be had, through the proxy where there is one",
        "allow outbound TCP to the cloud at the firewall, or configure a proxy";
    TLS = "cloud.tls":
        "whether the cloud's certificate is the cloud's own, who signed it, and which TLS version is spoken",
        "exclude the cloud's host from TLS inspection; give the right authorities with cloud.ca_file";
    CERTIFICATE = "cloud.certificate":
        "how long the cloud's certificate is still valid",
        "nothing here; tell the cloud's operator";
    ALPN = "cloud.alpn":
        "whether something on the way removes the protocol's name from TLS (ALPN)",
        "exclude the cloud's host from inspection by the firewall; until then the agent uses its WebSocket fallback";
    LATENCY = "cloud.latency":
        "how long connecting to the cloud takes, TLS included",
        "look at the way out: a slow proxy, a scanning firewall, a far region";
    LOGIN = "cloud.login":
        "whether the cloud accepts this agent's certificate",
        "look whether the cloud has revoked this agent; if so, enrol it again";
    RESUMPTION = "cloud.resumption":
        "whether sessions survive a short loss of the connection (XEP-0198)",
        "tell the cloud's operator; the agent works, but a lost connection costs a new login";
    UPLOAD = "cloud.upload":
        "whether the endpoint for collected data answers (HTTP/2 on the same port)",
        "look whether a firewall or proxy lets HTTP/2 through to the cloud";
    CLOCK = "cloud.clock":
        "how far this machine's clock is from the cloud's",
        "synchronise this machine's clock";
}

/// Connecting takes longer than this only where something on the way is slow.
const SLOW: Duration = Duration::from_secs(1);

/// The cloud's certificate ends sooner: somebody should look.
const EXPIRY_WARNING_DAYS: i64 = 14;

pub(super) async fn run(bench: &Bench) -> Vec<CheckResult> {
    let Some(file) = bench.file() else { return Vec::new() };
    if file.settings.cloud.url.is_empty() {
        return vec![CheckResult::fail(&URL, "agent.toml names no cloud", "")];
    }
    let (endpoint, dial) = match (crate::endpoint(file), bench.dial.as_ref()) {
        (Ok(endpoint), Ok(dial)) => (endpoint, dial),
        (Err(error), _) => return vec![CheckResult::fail(&URL, Chain(&error).to_string(), "")],
        // The area of the network says so.
        (_, Err(_)) => return Vec::new(),
    };
    let mut results = vec![CheckResult::ok(&URL, &file.settings.cloud.url)];
    let trust = crate::trust(file, &bench.data_dir);
    results.push(authorities(&trust, bench.clock.now_ms()));
    results.extend(name_servers(bench, &file.settings.dns.servers, &endpoint).await);
    let resolved = dial.addresses(&endpoint.host).await;
    let identity = bench.identity.as_ref().ok();
    let (found, stream) = secured(bench, &**dial, &endpoint, &trust, identity).await;
    let reached = found.iter().any(|result| result.check() == &TCP && result.verdict() == Verdict::Ok);
    results.push(resolution(&resolved, reached).of(&endpoint.host));
    results.extend(found);
    let Some(stream) = stream else { return results };
    let Some(identity) = identity else {
        results.push(CheckResult::skipped(&LOGIN, "this agent is not enrolled"));
        return results;
    };
    let limited = Limited::new(Box::new(stream), ELEMENT_PRE_AUTH_MAX_BYTES);
    results.extend(log_in(limited, identity).await);
    match CloudConnector::new(dial.clone(), endpoint, trust, Some(identity)) {
        Ok(connector) => results.extend(upload(&connector, bench.clock.now_ms()).await),
        Err(error) => results.push(CheckResult::fail(&UPLOAD, Chain(&error).to_string(), "")),
    }
    results
}

/// Behind a proxy it is the proxy that looks the name up.
fn resolution(resolved: &Result<Vec<IpAddr>, DialError>, reached: bool) -> CheckResult {
    match resolved {
        Ok(found) => {
            let shown: Vec<String> = found.iter().map(ToString::to_string).collect();
            CheckResult::ok(&RESOLVE, shown.join(", "))
        }
        Err(_) if reached => CheckResult::ok(&RESOLVE, "unknown here; the proxy knows it"),
        Err(error) => CheckResult::fail(&RESOLVE, Chain(error).to_string(), ""),
    }
}

fn authorities(trust: &Trust, now_ms: i64) -> CheckResult {
    let Trust::File(path) = trust else {
        return match trust.roots() {
            Ok(roots) => CheckResult::ok(&TRUST, format!("{trust}, {} authorities", roots.len())),
            Err(error) => CheckResult::fail(&TRUST, Chain(&error).to_string(), ""),
        };
    };
    let certificates = match read_certificates(path) {
        Ok(certificates) => certificates,
        Err(error) => return CheckResult::fail(&TRUST, Chain(&error).to_string(), ""),
    };
    let ends: Vec<i64> = certificates
        .iter()
        .filter_map(|der| x509_parser::parse_x509_certificate(der).ok())
        .map(|(_, parsed)| {
            (parsed.validity().not_after.timestamp().saturating_mul(1000) - now_ms) / 86_400_000
        })
        .collect();
    let last = ends.iter().copied().max().unwrap_or(0);
    let detail = format!("{trust}, {} authorities, the last valid for {last} days", certificates.len());
    match last {
        ..0 => CheckResult::fail(&TRUST, detail, ""),
        0..EXPIRY_WARNING_DAYS => CheckResult::warn(&TRUST, detail, ""),
        _ => CheckResult::ok(&TRUST, detail),
    }
}

/// Each by itself: a dead second server is noticed only when the first one dies.
async fn name_servers(bench: &Bench, servers: &[SocketAddr], endpoint: &Endpoint) -> Vec<CheckResult> {
    let asked = servers.iter().map(|server| async move {
        let alone = Names::new(&[*server], bench.random.clone());
        let result = match alone {
            Ok(names) => match names.answers(&endpoint.host).await {
                Ok(()) => CheckResult::ok(&NAME_SERVERS, "answers"),
                Err(error) => CheckResult::fail(&NAME_SERVERS, Chain(&error).to_string(), ""),
            },
            Err(error) => CheckResult::fail(&NAME_SERVERS, error.to_string(), ""),
        };
        result.of(server.to_string())
    });
    join_all(asked).await
}

async fn secured(
    bench: &Bench,
    dial: &dyn Dial,
    endpoint: &Endpoint,
    trust: &Trust,
    identity: Option<&Identity>,
) -> (Vec<CheckResult>, Option<SecureStream>) {
    let at = format!("{}:{}", endpoint.host, endpoint.port);
    let begun = bench.clock.now();
    let stream = match dial.connect(Target::outside(&endpoint.host, endpoint.port)).await {
        Ok(stream) => stream,
        Err(error) => {
            let remedy = match error {
                DialError::Proxy { .. } => {
                    "correct [proxy] in agent.toml, or allow CONNECT to the cloud at the proxy"
                }
                _ => "",
            };
            return (vec![CheckResult::fail(&TCP, Chain(&error).to_string(), remedy).of(at)], None);
        }
    };
    let mut results = vec![CheckResult::ok(&TCP, "open").of(&*at)];
    let own = identity.and_then(|identity| identity.certificate().ok());
    let config = match tls::client_config(trust, own, &[ALPN_XMPP]) {
        Ok(config) => config,
        Err(error) => {
            results.push(CheckResult::fail(&TLS, Chain(&error).to_string(), ""));
            return (results, None);
        }
    };
    let stream = match tls::handshake(config, &endpoint.host, stream).await {
        Ok(stream) => stream,
        Err(error) => {
            results.push(untrusted(&error, trust, &endpoint.host));
            return (results, None);
        }
    };
    let took = bench.clock.now().saturating_duration_since(begun);
    results.extend(seen(&stream, bench.clock.now_ms()));
    let detail = format!("{} ms", took.as_millis());
    results.push(if took > SLOW {
        CheckResult::warn(&LATENCY, detail, "")
    } else {
        CheckResult::ok(&LATENCY, detail)
    });
    (results, Some(stream))
}

/// Somebody between us and the cloud shows himself by who has signed what we see.
fn untrusted(error: &TlsError, trust: &Trust, host: &str) -> CheckResult {
    let inspected = match error {
        TlsError::Untrusted { problem, .. }
            if matches!(trust, Trust::File(_))
                && problem.error == rustls::CertificateError::UnknownIssuer =>
        {
            Some(&problem.issuer)
        }
        _ => None,
    };
    match (inspected, error) {
        (Some(issuer), _) => CheckResult::fail(
            &TLS,
            format!("TLS inspection: the certificate shown for {host} is signed by {issuer}"),
            "exclude the cloud's host from TLS inspection at the proxy or firewall; if nobody inspects, cloud.ca_file is not the \
             cloud's own authority",
        ),
        (None, TlsError::Untrusted { .. }) => CheckResult::fail(
            &TLS,
            Chain(error).to_string(),
            "give the right authorities with cloud.ca_file; look at this machine's clock",
        ),
        (None, _) => CheckResult::fail(
            &TLS,
            Chain(error).to_string(),
            "look whether the port is the cloud's, and whether a firewall alters the connection",
        ),
    }
}

fn seen(stream: &SecureStream, now_ms: i64) -> Vec<CheckResult> {
    let session = stream.get_ref().1;
    let version =
        session.protocol_version().map_or_else(|| "TLS".to_owned(), |version| format!("{version:?}"));
    let suite = session.negotiated_cipher_suite().map(|suite| format!(", {:?}", suite.suite()));
    let leaf = session.peer_certificates().and_then(|chain| chain.first());
    let parsed = leaf.and_then(|leaf| x509_parser::parse_x509_certificate(leaf).ok());
    let issuer =
        parsed.as_ref().map_or_else(String::new, |(_, parsed)| format!(", signed by {}", parsed.issuer()));
    let mut results = vec![CheckResult::ok(&TLS, format!("{version}{}{issuer}", suite.unwrap_or_default()))];
    if let Some((_, parsed)) = parsed {
        let until_ms = parsed.validity().not_after.timestamp().saturating_mul(1000);
        let days = (until_ms - now_ms) / 86_400_000;
        let detail = format!("valid for {days} days");
        results.push(if days < EXPIRY_WARNING_DAYS {
            CheckResult::warn(&CERTIFICATE, detail, "")
        } else {
            CheckResult::ok(&CERTIFICATE, detail)
        });
    }
    results.push(if session.alpn_protocol() == Some(ALPN_XMPP) {
        CheckResult::ok(&ALPN, "kept")
    } else {
        CheckResult::warn(&ALPN, "the other end has not answered to it", "")
    });
    results
}

async fn log_in(io: Limited, identity: &Identity) -> Vec<CheckResult> {
    let domain = identity.jid.domain().to_string();
    let credentials = Credentials::Certificate(identity.jid.clone());
    let login = login::authenticate(io, &domain, &credentials).boxed();
    let error = match timeout(LOGIN_WITHIN, login).await.unwrap_or(Err(LoginError::TimedOut)) {
        Ok(mut authenticated) => {
            let resumption = match authenticated.features.stream_management {
                Some(_) => CheckResult::ok(&RESUMPTION, "offered"),
                None => CheckResult::warn(&RESUMPTION, "the cloud does not offer it", ""),
            };
            let _ = timeout(crate::limits::CLOSE_WITHIN, authenticated.stream.shutdown()).await;
            return vec![CheckResult::ok(&LOGIN, format!("{domain} accepts {}", identity.jid)), resumption];
        }
        Err(error) => error,
    };
    let remedy = match error {
        LoginError::Refused { .. } => "",
        _ => "look whether a firewall or proxy alters the connection",
    };
    vec![CheckResult::fail(&LOGIN, Chain(&error).to_string(), remedy)]
}

/// Any answer shows that the way is open; what is asked for does not exist on purpose.
async fn upload(connector: &CloudConnector, now_ms: i64) -> Vec<CheckResult> {
    match timeout(CHECK_HTTP_WITHIN, ask(connector)).await {
        Ok(Ok((status, date))) => {
            let mut results = vec![CheckResult::ok(&UPLOAD, format!("HTTP/2 answers ({status})"))];
            results.extend(date.and_then(|date| clock(&date, now_ms)));
            results
        }
        Ok(Err(error)) => vec![CheckResult::fail(&UPLOAD, error, "")],
        Err(_) => {
            let detail = format!("no answer within {} s", CHECK_HTTP_WITHIN.as_secs());
            vec![CheckResult::fail(&UPLOAD, detail, "")]
        }
    }
}

async fn ask(connector: &CloudConnector) -> Result<(http::StatusCode, Option<String>), String> {
    let said = |error: &(dyn std::error::Error + 'static)| Chain(error).to_string();
    let stream = connector.connect_h2().await.map_err(|error: CloudError| said(&error))?;
    let (mut sender, connection) =
        handshake(TokioExecutor::new(), TokioIo::new(stream)).await.map_err(|error| said(&error))?;
    let driving = tokio::spawn(connection);
    let endpoint = connector.endpoint();
    let uri = format!("https://{}:{}/agent/v1/uploads/check", endpoint.bracketed(), endpoint.port);
    let request =
        http::Request::builder().uri(uri).body(Empty::<Bytes>::new()).map_err(|error| error.to_string())?;
    let answer = sender.send_request(request).await.map_err(|error| said(&error));
    driving.abort();
    let answer = answer?;
    let date = answer.headers().get(http::header::DATE).and_then(|date| date.to_str().ok());
    Ok((answer.status(), date.map(str::to_owned)))
}

fn clock(date: &str, now_ms: i64) -> Option<CheckResult> {
    let theirs = crate::web::connection::read_date(date)? / 1_000;
    let skew = Duration::from_secs((theirs - now_ms / 1000).unsigned_abs());
    let detail = format!("{} s apart", skew.as_secs());
    Some(if skew > CLOCK_SKEW_MAX {
        CheckResult::fail(&CLOCK, detail, "")
    } else {
        CheckResult::ok(&CLOCK, detail)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_is_minutes_off_is_found() {
        let date = "Sun, 06 Nov 1994 08:49:37 GMT";
        let theirs_ms = 784_111_777_000;
        assert_eq!(clock(date, theirs_ms + 1_000).unwrap().verdict(), Verdict::Ok);
        assert_eq!(clock(date, theirs_ms - 301_000).unwrap().verdict(), Verdict::Fail);
        assert!(clock("yesterday", 0).is_none());
    }
}
