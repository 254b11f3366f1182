//! One connection to a proxy: requests out, answers in, and bodies read to exactly where they end, so that the next
//! request finds a clean line.

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

use super::error::ProxyError;
use crate::dial::security::challenge::{self, Challenge};
use crate::limits::{
    PROXY_BODY_MAX_BYTES, PROXY_BODY_WITHIN, PROXY_CHUNK_LINE_MAX_BYTES, PROXY_HEAD_MAX_BYTES,
    PROXY_INTERIM_MAX, PROXY_TEXT_MAX_CHARS, PROXY_TEXT_READ_MAX_BYTES, PROXY_WITHIN,
};

/// A connection to a proxy with what was read from it and not used yet.
pub(super) struct Line<S> {
    stream: S,
    buffer: BytesMut,
}

/// The head of an answer.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) reason: String,
    pub(super) challenges: Vec<Challenge>,
    /// Whether the proxy means to keep the connection.
    pub(super) keeps: bool,
    body: Body,
    html: bool,
    /// squid's own name of the error, which says more than the reason.
    detail: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Body {
    Length(usize),
    Chunked,
    UntilClose,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Line<S> {
    pub(super) fn new(stream: S) -> Self {
        Self { stream, buffer: BytesMut::with_capacity(1024) }
    }

    /// The stream and what came behind the answer.
    pub(super) fn into_parts(self) -> (S, Bytes) {
        (self.stream, self.buffer.freeze())
    }

    /// Sends a request and reads the head of its answer.
    pub(super) async fn ask(&mut self, request: &str) -> Result<Answer, ProxyError> {
        timeout(PROXY_WITHIN, async {
            let io = |source| ProxyError::Io { source };
            self.stream.write_all(request.as_bytes()).await.map_err(io)?;
            self.stream.flush().await.map_err(io)?;
            for _ in 0..PROXY_INTERIM_MAX {
                let head = self.head().await?;
                // Interim answers (RFC 9110 §15.2) have no body and announce another one.
                if !(100..200).contains(&head.status) {
                    return Ok(head);
                }
            }
            Err(ProxyError::Malformed { what: "interim answers without end" })
        })
        .await
        .map_err(|_| ProxyError::TimedOut)?
    }

    async fn head(&mut self) -> Result<Answer, ProxyError> {
        let mut looked = 0;
        let end = loop {
            if let Some(found) = self.buffer[looked..].windows(4).position(|four| four == b"\r\n\r\n") {
                break looked + found;
            }
            if self.buffer.len() > PROXY_HEAD_MAX_BYTES {
                return Err(ProxyError::Malformed { what: "its head is too long" });
            }
            looked = self.buffer.len().saturating_sub(3);
            if self.more().await? == 0 {
                return Err(ProxyError::Closed);
            }
        };
        if end > PROXY_HEAD_MAX_BYTES {
            return Err(ProxyError::Malformed { what: "its head is too long" });
        }
        let head = self.buffer.split_to(end + 4);
        parse(&String::from_utf8_lossy(&head[..end]))
    }

    /// Reads the answer's body away. True when it ended where the head said, nothing follows, and the proxy means to
    /// keep the connection: the next request may use it.
    pub(super) async fn discard(&mut self, answer: &Answer) -> bool {
        let mut kept = Vec::new();
        let ended = timeout(PROXY_BODY_WITHIN, self.body(answer.body, &mut kept, 0)).await;
        matches!(ended, Ok(true)) && answer.keeps && self.buffer.is_empty()
    }

    /// What the proxy says about a refusal, as text for a person.
    pub(super) async fn explain(&mut self, answer: &Answer) -> String {
        let mut kept = Vec::new();
        // A body that does not end is cut; what there is explains enough.
        let _ =
            timeout(PROXY_BODY_WITHIN, self.body(answer.body, &mut kept, PROXY_TEXT_READ_MAX_BYTES)).await;
        let body = String::from_utf8_lossy(&kept);
        let body = if answer.html { without_tags(&body) } else { body.into_owned() };
        let parts = [answer.reason.as_str(), answer.detail.as_deref().unwrap_or_default(), &body];
        let parts: Vec<String> =
            parts.iter().map(|part| plain(part)).filter(|part| !part.is_empty()).collect();
        parts.join("; ").chars().take(PROXY_TEXT_MAX_CHARS).collect()
    }

    /// Reads a body, keeps its beginning, stops early when no more than that is wanted. True when it ended properly.
    async fn body(&mut self, body: Body, kept: &mut Vec<u8>, keep: usize) -> bool {
        match body {
            Body::Length(length) if length <= PROXY_BODY_MAX_BYTES => self.pass(length, kept, keep).await,
            Body::Length(_) => {
                self.pass(keep, kept, keep).await;
                false
            }
            Body::Chunked => self.chunks(kept, keep).await,
            Body::UntilClose => {
                self.pass(keep, kept, keep).await;
                false
            }
        }
    }

    async fn chunks(&mut self, kept: &mut Vec<u8>, keep: usize) -> bool {
        let mut total = 0usize;
        loop {
            let Some(line) = self.short_line().await else { return false };
            let size = line.split(';').next().unwrap_or_default().trim();
            // from_str_radix takes a sign, which a chunk size has not (RFC 9112 §7.1).
            if !size.bytes().all(|digit| digit.is_ascii_hexdigit()) {
                return false;
            }
            let Ok(size) = usize::from_str_radix(size, 16) else { return false };
            if size == 0 {
                break;
            }
            total = total.saturating_add(size);
            if total > PROXY_BODY_MAX_BYTES || !self.pass(size, kept, keep).await {
                return false;
            }
            if self.short_line().await.as_deref() != Some("") {
                return false;
            }
        }
        // Trailers, then an empty line; bounded like a head.
        for _ in 0..PROXY_HEAD_MAX_BYTES / PROXY_CHUNK_LINE_MAX_BYTES {
            match self.short_line().await.as_deref() {
                Some("") => return true,
                Some(_) => {}
                None => return false,
            }
        }
        false
    }

    async fn short_line(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.buffer.windows(2).position(|two| two == b"\r\n") {
                let line = self.buffer.split_to(end + 2);
                return Some(String::from_utf8_lossy(&line[..end]).into_owned());
            }
            if self.buffer.len() > PROXY_CHUNK_LINE_MAX_BYTES || self.more().await.ok()? == 0 {
                return None;
            }
        }
    }

    /// Takes so many bytes off the line; false when they do not come.
    async fn pass(&mut self, mut length: usize, kept: &mut Vec<u8>, keep: usize) -> bool {
        while length > 0 {
            if self.buffer.is_empty() && !matches!(self.more().await, Ok(1..)) {
                return false;
            }
            let part = self.buffer.split_to(length.min(self.buffer.len()));
            length -= part.len();
            let wanted = keep.saturating_sub(kept.len()).min(part.len());
            kept.extend_from_slice(&part[..wanted]);
        }
        true
    }

    async fn more(&mut self) -> Result<usize, ProxyError> {
        self.stream.read_buf(&mut self.buffer).await.map_err(|source| ProxyError::Io { source })
    }
}

fn parse(text: &str) -> Result<Answer, ProxyError> {
    let malformed = |what| ProxyError::Malformed { what };
    let mut lines = text.split("\r\n");
    let first = lines.next().unwrap_or_default();
    let mut words = first.splitn(3, ' ');
    let version = words.next().unwrap_or_default();
    if !version.starts_with("HTTP/1.") {
        return Err(malformed("not HTTP/1"));
    }
    let status = words.next().filter(|word| word.len() == 3).and_then(|word| word.parse().ok());
    let mut answer = Answer {
        status: status.ok_or(malformed("no status in its first line"))?,
        reason: plain(words.next().unwrap_or_default()),
        challenges: Vec::new(),
        keeps: version != "HTTP/1.0",
        body: Body::UntilClose,
        html: false,
        detail: None,
    };
    let mut length: Option<usize> = None;
    let mut coding: Option<String> = None;
    for line in lines {
        let Some((name, value)) = line.split_once(':') else { continue };
        let value = value.trim();
        match name.to_ascii_lowercase().as_str() {
            "proxy-authenticate" => challenge::read(value, &mut answer.challenges),
            "content-length" => {
                let digits = value.bytes().all(|digit| digit.is_ascii_digit());
                let said = value.parse().ok().filter(|_| digits);
                let said = said.ok_or(malformed("its Content-Length is no number"))?;
                if length.is_some_and(|before| before != said) {
                    return Err(malformed("it gives two different Content-Lengths"));
                }
                length = Some(said);
            }
            "transfer-encoding" => coding = Some(value.to_ascii_lowercase()),
            "connection" | "proxy-connection" => {
                for option in value.split(',') {
                    match option.trim().to_ascii_lowercase().as_str() {
                        "close" => answer.keeps = false,
                        "keep-alive" => answer.keeps = true,
                        _ => {}
                    }
                }
            }
            "content-type" => answer.html = value.to_ascii_lowercase().starts_with("text/html"),
            "x-squid-error" => answer.detail = Some(value.to_owned()),
            _ => {}
        }
    }
    // RFC 9112 §6.3: a transfer coding overrides a length, and what is not chunked at the end goes on until the close.
    answer.body = match (coding.as_deref(), length) {
        (Some("chunked"), _) => Body::Chunked,
        (Some(_), _) | (None, None) => Body::UntilClose,
        (None, Some(length)) => Body::Length(length),
    };
    Ok(answer)
}

/// What a proxy writes ends up in errors and logs, so it must not bring control characters.
fn plain(text: &str) -> String {
    text.split(|c: char| c.is_control() || c.is_whitespace())
        .filter(|word| !word.is_empty())
        .collect::<Vec<_>>()
        .join(" ")
        .chars()
        .take(PROXY_TEXT_MAX_CHARS)
        .collect()
}

/// The readable part of an error page: no tags, no style sheets.
fn without_tags(html: &str) -> String {
    let mut text = String::new();
    let mut rest = html;
    while let Some((before, tag)) = rest.split_once('<') {
        text.push_str(before);
        text.push(' ');
        let lower = tag.to_ascii_lowercase();
        let unread = ["style", "script", "title", "!--"].into_iter().find(|name| lower.starts_with(name));
        let end = match unread {
            Some("!--") => lower.find("-->").map(|at| at + 2),
            Some(name) => lower.find(&format!("</{name}")).and_then(|at| Some(at + lower[at..].find('>')?)),
            None => lower.find('>'),
        };
        match end {
            Some(end) => rest = &tag[end + 1..],
            None => return text,
        }
    }
    text.push_str(rest);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_are_where_the_head_says() {
        let body =
            |headers: &str| parse(&format!("HTTP/1.1 407 x\r\n{headers}")).map(|answer| answer.body).ok();
        assert_eq!(body("Content-Length: 12"), Some(Body::Length(12)));
        assert_eq!(body("Content-Length: 12\r\ncontent-length: 12"), Some(Body::Length(12)));
        assert_eq!(body("Content-Length: 12\r\nContent-Length: 13"), None);
        for wrong in ["-1", "+1", "1e3", "", "0x10", "99999999999999999999999"] {
            assert_eq!(body(&format!("Content-Length: {wrong}")), None, "{wrong:?}");
        }
        assert_eq!(body("Content-Length: 12\r\nTransfer-Encoding: chunked"), Some(Body::Chunked));
        assert_eq!(body("Transfer-Encoding: gzip"), Some(Body::UntilClose));
        assert_eq!(body("Via: x"), Some(Body::UntilClose));
    }

    #[test]
    fn who_keeps_the_connection() {
        let keeps = |head: &str| parse(head).unwrap().keeps;
        assert!(keeps("HTTP/1.1 407 x"));
        assert!(!keeps("HTTP/1.0 407 x"));
        assert!(!keeps("HTTP/1.1 407 x\r\nConnection: close"));
        assert!(keeps("HTTP/1.0 407 x\r\nProxy-Connection: Keep-Alive"));
    }

    #[test]
    fn error_pages_become_one_plain_line() {
        let page = "<html><head><title>ERROR</title><style>b { }</style></head>\n<body><p>Access\x1b[31m denied by <b>rule 7</b><!-- > -->";
        assert_eq!(plain(&without_tags(page)), "Access [31m denied by rule 7");
        assert_eq!(without_tags("a<"), "a ");
        assert_eq!(without_tags("a<style>never closed"), "a ");
        assert!(plain(&"x".repeat(10_000)).len() == PROXY_TEXT_MAX_CHARS);
    }
}
