//! A look at who answers where the cloud should be, to name a captive portal or a wrong clock. Nothing of ours is
//! shown: no certificate, no name, one HTTP request without content.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use crate::dial::ByteStream;
use crate::limits::{GLIMPSE_MAX_BYTES, GLIMPSE_WITHIN};

/// What an HTTP answer tells.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Glimpse {
    /// Its status.
    pub(crate) status: u16,
    /// Where it sends us.
    pub(crate) location: Option<String>,
    /// What time it is there, Unix milliseconds.
    pub(crate) date_ms: Option<i64>,
}

impl Glimpse {
    /// Asks over an open stream. `None` when what answers is no HTTP server.
    pub(crate) async fn take(mut stream: impl ByteStream, host: &str) -> Option<Self> {
        let request = format!("HEAD / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        let head = async {
            stream.write_all(request.as_bytes()).await.ok()?;
            stream.flush().await.ok()?;
            let mut head = Vec::new();
            let mut piece = [0; 1_024];
            while !complete(&head) && head.len() < GLIMPSE_MAX_BYTES {
                match stream.read(&mut piece).await {
                    Ok(0) | Err(_) => break,
                    Ok(n) => head.extend_from_slice(&piece[..n]),
                }
            }
            Self::parse(&head)
        };
        timeout(GLIMPSE_WITHIN, head).await.ok().flatten()
    }

    fn parse(head: &[u8]) -> Option<Self> {
        let text = String::from_utf8_lossy(head);
        let mut lines = text.lines();
        let status = lines.next()?.strip_prefix("HTTP/1.")?.split(' ').nth(1)?.parse().ok()?;
        let mut glimpse = Self { status, ..Self::default() };
        for line in lines.take_while(|line| !line.is_empty()) {
            let Some((name, value)) = line.split_once(':') else { continue };
            if name.eq_ignore_ascii_case("location") {
                glimpse.location = Some(crate::channel::login::shorten(value.trim()));
            } else if name.eq_ignore_ascii_case("date") {
                glimpse.date_ms = date_ms(value.trim());
            }
        }
        Some(glimpse)
    }

    /// Whether it sends us to a page on another host, as the sign-in pages of hotels and trains do.
    pub(crate) fn sends_away_from(&self, host: &str) -> Option<&str> {
        let location = self.location.as_deref().filter(|_| (300..400).contains(&self.status))?;
        let (_, rest) = location.split_once("://")?;
        let authority = rest.split(['/', '?']).next()?;
        let there = authority.rsplit_once(':').map_or(authority, |(host, _)| host);
        (!there.eq_ignore_ascii_case(host)).then_some(location)
    }
}

fn complete(head: &[u8]) -> bool {
    head.windows(4).any(|four| four == b"\r\n\r\n")
}

/// RFC 9110 §5.6.7; senders use the first of its three forms, so that is the one understood.
fn date_ms(text: &str) -> Option<i64> {
    let format = time::macros::format_description!(
        "[weekday repr:short], [day] [month repr:short] [year] [hour]:[minute]:[second] GMT"
    );
    let at = time::PrimitiveDateTime::parse(text, &format).ok()?;
    at.assume_utc().unix_timestamp().checked_mul(1_000)
}

/// A span of time for people.
pub(crate) fn in_words(span: Duration) -> String {
    let secs = span.as_secs();
    match secs {
        0..120 => format!("{secs} s"),
        120..7_200 => format!("{} min", secs / 60),
        7_200..172_800 => format!("{} h", secs / 3_600),
        _ => format!("{} days", secs / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read() {
        let head = b"HTTP/1.1 302 Found\r\nlocation: http://login.hotel.test:80/?a=b\r\n\
                     Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n\r\nLocation: not this";
        let glimpse = Glimpse::parse(head).unwrap();
        assert_eq!((glimpse.status, glimpse.date_ms), (302, Some(784_111_777_000)));
        assert_eq!(glimpse.sends_away_from("cloud.test"), Some("http://login.hotel.test:80/?a=b"));
        assert_eq!(glimpse.sends_away_from("LOGIN.hotel.test"), None);
        let elsewhere = Glimpse { status: 200, ..glimpse };
        assert_eq!(elsewhere.sends_away_from("cloud.test"), None);
        for bad in [&b""[..], b"SSH-2.0-x\r\n\r\n", b"HTTP/1.1 abc\r\n", b"\xff\xff"] {
            assert_eq!(Glimpse::parse(bad), None);
        }
        assert_eq!(Glimpse::parse(b"HTTP/1.1 200 OK\r\nDate: yesterday\r\n\r\n").unwrap().date_ms, None);
    }

    #[test]
    fn spans_are_said_in_the_unit_that_fits() {
        let words = |secs| in_words(Duration::from_secs(secs));
        assert_eq!(
            [words(90), words(600), words(10_800), words(2_592_000)],
            ["90 s", "10 min", "3 h", "30 days"]
        );
    }
}
