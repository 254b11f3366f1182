//! Fetching a script: a file, or HTTP over a straight connection (the way to the proxy cannot lead through the proxy).

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use ::http::header::{ACCEPT, ACCEPT_ENCODING, HOST, LOCATION, USER_AGENT};
use ::http::{Request, StatusCode, Uri};
use bytes::Bytes;
use http_body_util::{BodyExt, Empty, LengthLimitError, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::time::timeout;

use super::error::FetchError;
use super::limits::{FETCHED_WITHIN, REDIRECTS_MAX, SCRIPT_MAX_BYTES};
use crate::dial::direct::Straight;
use crate::dial::proxy::host_and_port;
use crate::dial::steps::Steps;
use crate::dial::tls::{self, Trust};
use crate::dial::{ByteStream, DialStream, Target};

/// Where a script is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// On this machine.
    File(PathBuf),
    /// `http://` or `https://`.
    Url(String),
}

impl Place {
    /// Reads `http://...`, `https://...`, `file:///path` or a path.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, FetchError> {
        let lower = text.to_ascii_lowercase();
        if lower.starts_with("http://") || lower.starts_with("https://") {
            address(text)?;
            return Ok(Self::Url(text.to_owned()));
        }
        if let Some(rest) = lower.strip_prefix("file://") {
            let path = &text[text.len() - rest.len()..];
            let path = path.strip_prefix("localhost").unwrap_or(path);
            // file:///C:/proxy.pac names a drive.
            let bytes = path.as_bytes();
            let drive = bytes.len() > 2 && bytes[0] == b'/' && bytes[2] == b':';
            let path = if drive { &path[1..] } else { path };
            return Ok(Self::File(PathBuf::from(crate::dial::proxy::environment::unescaped(path))));
        }
        if text.contains("://") || text.trim().is_empty() {
            return Err(FetchError::BadAddress { problem: "is neither http:// nor https:// nor file://" });
        }
        Ok(Self::File(PathBuf::from(text)))
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Url(url) => f.write_str(url),
        }
    }
}

/// Fetches a script as text.
///
/// # Errors
/// [`FetchError`].
pub async fn fetch(place: &Place, straight: &Straight, trust: &Trust) -> Result<String, FetchError> {
    let bytes = match place {
        Place::File(path) => read(path).await?,
        Place::Url(url) => timeout(FETCHED_WITHIN, follow(url, None, straight, trust))
            .await
            .map_err(|_| FetchError::TimedOut)??,
    };
    Ok(text(&bytes))
}

/// Fetches a script from exactly these addresses, whatever its name resolves to in a moment.
///
/// # Errors
/// [`FetchError`].
pub async fn fetch_from(url: &str, addresses: &[IpAddr], straight: &Straight) -> Result<String, FetchError> {
    let fetched = follow(url, Some(addresses), straight, &Trust::System);
    Ok(text(&timeout(FETCHED_WITHIN, fetched).await.map_err(|_| FetchError::TimedOut)??))
}

async fn read(path: &Path) -> Result<Vec<u8>, FetchError> {
    let failed = |source| FetchError::File { path: path.to_owned(), source };
    let size = tokio::fs::metadata(path).await.map_err(failed)?.len();
    if size > SCRIPT_MAX_BYTES as u64 {
        return Err(FetchError::TooLarge);
    }
    tokio::fs::read(path).await.map_err(failed)
}

/// UTF-8 where it is, with or without its mark; else every byte is a character (Latin-1), as browsers read it.
fn text(bytes: &[u8]) -> String {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    match std::str::from_utf8(bytes) {
        Ok(text) => text.to_owned(),
        Err(_) => bytes.iter().map(|byte| char::from(*byte)).collect(),
    }
}

/// TLS or not, host, port, and what to ask for.
fn address(url: &str) -> Result<(bool, String, u16, String), FetchError> {
    let bad = |problem| FetchError::BadAddress { problem };
    let (scheme, rest) = url.split_once("://").ok_or(bad("is no address"))?;
    let tls = match scheme.to_ascii_lowercase().as_str() {
        "http" => false,
        "https" => true,
        _ => return Err(bad("begins with neither http:// nor https://")),
    };
    let rest = rest.split('#').next().unwrap_or_default();
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    if authority.contains('@') {
        return Err(bad("must not hold credentials"));
    }
    let (host, port) =
        host_and_port(authority, if tls { 443 } else { 80 }).map_err(|problem| bad(problem.0))?;
    let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
    path.parse::<Uri>().map_err(|_| bad("has an unusable path"))?;
    Ok((tls, host, port, path))
}

async fn follow(
    url: &str,
    addresses: Option<&[IpAddr]>,
    straight: &Straight,
    trust: &Trust,
) -> Result<Vec<u8>, FetchError> {
    let (mut url, mut addresses) = (url.to_owned(), addresses);
    for _ in 0..=REDIRECTS_MAX {
        match ask(&url, addresses, straight, trust).await? {
            Got::Script(bytes) => return Ok(bytes.to_vec()),
            Got::Elsewhere(to) => {
                let (tls, host, port, _) = address(&url)?;
                let scheme = if tls { "https" } else { "http" };
                let host = Target::inside(host, port);
                url = if to.starts_with('/') { format!("{scheme}://{host}{to}") } else { to };
                let (to_tls, to_host, ..) = address(&url)?;
                // Whoever vouched for the first server did not vouch for another one.
                if (tls && !to_tls) || (addresses.is_some() && to_host != host.host) {
                    return Err(FetchError::BadAddress {
                        problem: "redirects to a place that is not as safe",
                    });
                }
                addresses = addresses.filter(|_| to_host == host.host);
            }
        }
    }
    Err(FetchError::Redirects)
}

enum Got {
    Script(Bytes),
    Elsewhere(String),
}

async fn ask(
    url: &str,
    addresses: Option<&[IpAddr]>,
    straight: &Straight,
    trust: &Trust,
) -> Result<Got, FetchError> {
    let (tls, host, port, path) = address(url)?;
    let target = Target::inside(host, port);
    let stream = match addresses {
        Some(addresses) => straight.open_to(addresses, &target).await,
        None => straight.open(&target, &Steps::unrecorded()).await,
    };
    let stream = DialStream::tcp(stream.map_err(|source| FetchError::Connect { source: Box::new(source) })?);
    if !tls {
        return exchange(stream, &target, 80, &path).await;
    }
    let config = tls::client_config(trust, None, &[b"http/1.1"])
        .map_err(|source| FetchError::Tls { source: Box::new(source) })?;
    let stream = tls::handshake(config, &target.host, stream)
        .await
        .map_err(|source| FetchError::Tls { source: Box::new(source) })?;
    exchange(stream, &target, 443, &path).await
}

async fn exchange<S: ByteStream>(
    stream: S,
    target: &Target,
    default_port: u16,
    path: &str,
) -> Result<Got, FetchError> {
    let failed = |source: hyper::Error| FetchError::Http { source: source.into() };
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(failed)?;
    let connection = tokio::spawn(connection);
    let host = target.to_string();
    let host = host.strip_suffix(&format!(":{default_port}")).unwrap_or(&host);
    let request = Request::get(path)
        .header(HOST, host)
        .header(USER_AGENT, concat!("causeway-agent/", env!("CARGO_PKG_VERSION")))
        .header(ACCEPT, "application/x-ns-proxy-autoconfig, */*")
        .header(ACCEPT_ENCODING, "identity")
        .body(Empty::<Bytes>::new())
        .map_err(|source| FetchError::Http { source: source.into() })?;
    let answer = sender.send_request(request).await;
    let got = async {
        let answer = answer.map_err(failed)?;
        let status = answer.status();
        if matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308) {
            let to = answer.headers().get(LOCATION).and_then(|to| to.to_str().ok()).unwrap_or_default();
            return Ok(Got::Elsewhere(to.to_owned()));
        }
        if status != StatusCode::OK {
            return Err(FetchError::Status { status: status.as_u16() });
        }
        let body = Limited::new(answer.into_body(), SCRIPT_MAX_BYTES).collect().await;
        let body = body.map_err(|source| {
            if source.is::<LengthLimitError>() { FetchError::TooLarge } else { FetchError::Http { source } }
        })?;
        Ok(Got::Script(body.to_bytes()))
    };
    let got = got.await;
    connection.abort();
    got
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_files_and_addresses() {
        let place =
            |text| Place::parse(text).map(|place| place.to_string()).map_err(|error| error.to_string());
        assert_eq!(place("http://pac.example/proxy.pac"), Ok("http://pac.example/proxy.pac".to_owned()));
        assert_eq!(place("file:///etc/my%20proxy.pac"), Ok("/etc/my proxy.pac".to_owned()));
        assert_eq!(place("FILE://localhost/etc/p.pac"), Ok("/etc/p.pac".to_owned()));
        assert_eq!(place("file:///C:/p.pac"), Ok("C:/p.pac".to_owned()));
        assert_eq!(place("proxy.pac"), Ok("proxy.pac".to_owned()));
        assert!(place("ftp://pac.example/p").is_err());
        assert!(place("http://u:canary@pac.example/p").is_err_and(|error| !error.contains("canary")));
    }

    #[test]
    fn text_of_any_encoding_is_read() {
        assert_eq!(text(b"\xef\xbb\xbffunction"), "function");
        assert_eq!(text("// gr\u{fc}n".as_bytes()), "// gr\u{fc}n");
        assert_eq!(text(b"// gr\xfcn"), "// gr\u{fc}n");
    }
}
