//! HTTP CONNECT (RFC 9110 §9.3.6) through a proxy given by hand, with Basic credentials where it asks for them.

use std::io;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::{Bytes, BytesMut};
use causeway_protocol::Secret;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

use super::Target;
use crate::limits::{PROXY_BODY_MAX_BYTES, PROXY_HEAD_MAX_BYTES, PROXY_WITHIN};

/// Who we are to the proxy.
#[derive(Clone)]
pub struct Credentials {
    /// User name.
    pub username: String,
    /// Password.
    pub password: Secret,
}

/// What the proxy did wrong, or what we did in its eyes.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ProxyError {
    /// The connection broke.
    #[error("talk to the proxy")]
    Io {
        /// What the operating system says.
        #[source]
        source: io::Error,
    },
    /// No answer in time.
    #[error("the proxy does not answer within {} s", PROXY_WITHIN.as_secs())]
    TimedOut,
    /// It closed before it answered.
    #[error("the proxy closed the connection before it answered")]
    Closed,
    /// It answers something that is not HTTP, or without end.
    #[error("the proxy's answer is not usable: {what}")]
    Malformed {
        /// What is wrong.
        what: &'static str,
    },
    /// It wants credentials and we have none.
    #[error("the proxy wants a user name and password (offers {offered}); none is configured")]
    CredentialsWanted {
        /// The schemes it offers.
        offered: String,
    },
    /// It wants a scheme we do not speak.
    #[error("the proxy offers {offered}, not Basic")]
    SchemeUnknown {
        /// The schemes it offers.
        offered: String,
    },
    /// It does not accept ours. Never repeated, because repeated failures lock accounts.
    #[error("the proxy does not accept user {username}")]
    BadCredentials {
        /// Who we said we are.
        username: String,
    },
    /// It refuses or cannot reach the target.
    #[error("the proxy answers {status} {reason}")]
    Refused {
        /// HTTP status.
        status: u16,
        /// The reason phrase.
        reason: String,
    },
}

/// What came of one CONNECT.
pub enum Answer {
    /// The tunnel stands; these bytes of it came along already.
    Tunnel(Bytes),
    /// 407: credentials are wanted. `reusable` tells whether the same connection takes the next attempt.
    CredentialsWanted {
        /// The schemes offered, each with its parameters.
        offered: Vec<String>,
        /// Whether the connection stays open.
        reusable: bool,
    },
}

/// Asks for a tunnel over an open connection to the proxy.
///
/// # Errors
/// When the proxy refuses for another reason than missing credentials, or is broken.
pub async fn connect<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    target: &Target,
    credentials: Option<&Credentials>,
) -> Result<Answer, ProxyError> {
    timeout(PROXY_WITHIN, exchange(stream, target, credentials)).await.map_err(|_| ProxyError::TimedOut)?
}

async fn exchange<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    target: &Target,
    credentials: Option<&Credentials>,
) -> Result<Answer, ProxyError> {
    let mut request = format!(
        "CONNECT {target} HTTP/1.1\r\nHost: {target}\r\nUser-Agent: causeway-agent/{}\r\nProxy-Connection: Keep-Alive\r\n",
        env!("CARGO_PKG_VERSION")
    );
    if let Some(credentials) = credentials {
        let pair = Secret::new(format!("{}:{}", credentials.username, credentials.password.expose()));
        let encoded = Secret::new(STANDARD.encode(pair.expose()));
        request.push_str("Proxy-Authorization: Basic ");
        request.push_str(encoded.expose());
        request.push_str("\r\n");
    }
    request.push_str("\r\n");
    let request = Secret::new(request);
    stream.write_all(request.expose().as_bytes()).await.map_err(|source| ProxyError::Io { source })?;
    stream.flush().await.map_err(|source| ProxyError::Io { source })?;

    let mut buffer = BytesMut::with_capacity(1024);
    let head = read_head(stream, &mut buffer).await?;
    match head.status {
        200..=299 => Ok(Answer::Tunnel(buffer.freeze())),
        407 => {
            let reusable = head.keep_alive && discard_body(stream, &mut buffer, &head).await?;
            Ok(Answer::CredentialsWanted { offered: head.challenges, reusable })
        }
        status => Err(ProxyError::Refused { status, reason: head.reason }),
    }
}

struct Head {
    status: u16,
    reason: String,
    challenges: Vec<String>,
    keep_alive: bool,
    length: Option<usize>,
}

async fn read_head<S: AsyncRead + Unpin>(stream: &mut S, buffer: &mut BytesMut) -> Result<Head, ProxyError> {
    let end = loop {
        if let Some(end) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
            break end;
        }
        if buffer.len() > PROXY_HEAD_MAX_BYTES {
            return Err(ProxyError::Malformed { what: "its head is too long" });
        }
        if stream.read_buf(buffer).await.map_err(|source| ProxyError::Io { source })? == 0 {
            return Err(ProxyError::Closed);
        }
    };
    let head = buffer.split_to(end + 4);
    let text = std::str::from_utf8(&head[..end]).map_err(|_| ProxyError::Malformed { what: "not text" })?;
    parse_head(text)
}

fn parse_head(text: &str) -> Result<Head, ProxyError> {
    let mut lines = text.split("\r\n");
    let first = lines.next().unwrap_or_default();
    let mut words = first.splitn(3, ' ');
    let version = words.next().unwrap_or_default();
    if !version.starts_with("HTTP/1.") {
        return Err(ProxyError::Malformed { what: "not HTTP/1" });
    }
    let status = words
        .next()
        .and_then(|word| word.parse().ok())
        .ok_or(ProxyError::Malformed { what: "no status in its first line" })?;
    // The reason goes into errors and logs, so a hostile proxy must not choose its length or bring control characters.
    let reason = words.next().unwrap_or_default().chars().filter(|c| !c.is_control()).take(120).collect();
    let mut head =
        Head { status, reason, challenges: Vec::new(), keep_alive: version != "HTTP/1.0", length: None };
    for line in lines {
        let Some((name, value)) = line.split_once(':') else { continue };
        let value = value.trim();
        match name.to_ascii_lowercase().as_str() {
            "proxy-authenticate" => head.challenges.push(value.to_owned()),
            "content-length" => {
                head.length = Some(
                    value
                        .parse()
                        .map_err(|_| ProxyError::Malformed { what: "its Content-Length is no number" })?,
                );
            }
            "transfer-encoding" => head.keep_alive = false,
            "connection" | "proxy-connection" => match value.to_ascii_lowercase().as_str() {
                "close" => head.keep_alive = false,
                "keep-alive" => head.keep_alive = true,
                _ => {}
            },
            _ => {}
        }
    }
    Ok(head)
}

/// Reads a refusal's body so that the next attempt finds a clean connection. False when that is not possible.
async fn discard_body<S: AsyncRead + Unpin>(
    stream: &mut S,
    buffer: &mut BytesMut,
    head: &Head,
) -> Result<bool, ProxyError> {
    let Some(length) = head.length.filter(|length| *length <= PROXY_BODY_MAX_BYTES) else {
        return Ok(false);
    };
    while buffer.len() < length {
        if stream.read_buf(buffer).await.map_err(|source| ProxyError::Io { source })? == 0 {
            return Ok(false);
        }
    }
    Ok(buffer.len() == length)
}

/// Decides about a 407.
///
/// # Errors
/// When there is nothing more to try.
pub fn choose<'a>(
    offered: &[String],
    credentials: Option<&'a Credentials>,
    tried: bool,
) -> Result<&'a Credentials, ProxyError> {
    let names = || {
        let names: Vec<&str> = offered.iter().filter_map(|o| o.split_whitespace().next()).collect();
        if names.is_empty() { "nothing".to_owned() } else { names.join(", ") }
    };
    let basic = offered.iter().any(|challenge| {
        challenge.split_whitespace().next().is_some_and(|name| name.eq_ignore_ascii_case("basic"))
            || challenge.to_ascii_lowercase().contains(", basic ")
    });
    match credentials {
        None => Err(ProxyError::CredentialsWanted { offered: names() }),
        Some(credentials) if tried => {
            Err(ProxyError::BadCredentials { username: credentials.username.clone() })
        }
        Some(_) if !basic => Err(ProxyError::SchemeUnknown { offered: names() }),
        Some(credentials) => Ok(credentials),
    }
}
