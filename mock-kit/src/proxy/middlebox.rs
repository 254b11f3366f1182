//! What stands on a path and meddles: boxes that read the TLS client hello, sign-in pages, inspection.

use std::io;
use std::sync::Arc;

use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio_rustls::TlsAcceptor;

use crate::limits::{CLIENT_HELLO_MAX_BYTES, CLIENT_HELLO_WITHIN};
use crate::listen::FaultStream;

/// How a [`TcpProxy`](super::TcpProxy) treats connections it does not simply forward.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Middlebox {
    /// Resets connections whose client hello offers a protocol (ALPN, RFC 7301) other than `h2` and `http/1.1`.
    ResetsUnknownAlpn,
    /// Closes them without a word.
    CutsUnknownAlpn,
    /// Answers them with the TLS alert `no_application_protocol` (120).
    RefusesUnknownAlpn,
    /// Lets them hang.
    SwallowsUnknownAlpn,
    /// Answers whatever comes with an HTTP redirect in clear text, as the sign-in pages of hotels do.
    CaptivePortal {
        /// Where to.
        location: String,
    },
    /// Ends TLS itself with a certificate of its own and answers with an HTTP redirect, or not at all.
    Inspects {
        /// Its certificate.
        tls: Arc<ServerConfig>,
        /// Where to, if anywhere.
        location: Option<String>,
    },
}

/// What becomes of a connection.
pub(super) enum Verdict {
    /// It is forwarded, beginning with these bytes.
    Pass(Vec<u8>),
    /// It is over.
    Handled(&'static str),
    /// It is reset.
    Reset(&'static str),
}

impl Middlebox {
    pub(super) async fn judge(&self, client: &mut FaultStream) -> io::Result<Verdict> {
        match self {
            Self::CaptivePortal { location } => {
                let mut first = [0; 1_024];
                let _ = client.read(&mut first).await?;
                redirect(client, location).await?;
                Ok(Verdict::Handled("sent to the sign-in page"))
            }
            Self::Inspects { tls, location } => {
                let mut secured = match TlsAcceptor::from(Arc::clone(tls)).accept(&mut *client).await {
                    Ok(secured) => secured,
                    Err(_) => return Ok(Verdict::Handled("the client refused the inspection")),
                };
                let mut first = [0; 1_024];
                let _ = secured.read(&mut first).await?;
                if let Some(location) = location {
                    redirect(&mut secured, location).await?;
                }
                Ok(Verdict::Handled("inspected"))
            }
            by_alpn => by_alpn.judge_alpn(client).await,
        }
    }

    async fn judge_alpn(&self, client: &mut FaultStream) -> io::Result<Verdict> {
        let mut bytes = Vec::new();
        let offered = loop {
            match read_hello(&bytes) {
                Hello::Incomplete if bytes.len() < CLIENT_HELLO_MAX_BYTES => {}
                Hello::Incomplete | Hello::NotTls => return Ok(Verdict::Pass(bytes)),
                Hello::Offers(offered) => break offered,
            }
            let mut piece = [0; 2_048];
            let read = tokio::time::timeout(CLIENT_HELLO_WITHIN, client.read(&mut piece)).await;
            match read.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?? {
                0 => return Ok(Verdict::Pass(bytes)),
                n => bytes.extend_from_slice(&piece[..n]),
            }
        };
        if offered.iter().all(|name| name == b"h2" || name == b"http/1.1") {
            return Ok(Verdict::Pass(bytes));
        }
        match self {
            Self::CutsUnknownAlpn => Ok(Verdict::Handled("cut: unknown ALPN")),
            Self::RefusesUnknownAlpn => {
                // A fatal alert (RFC 8446 §6): type 21, TLS 1.2 on the record, level 2, description 120.
                client.write_all(&[21, 3, 3, 0, 2, 2, 120]).await?;
                client.shutdown().await?;
                Ok(Verdict::Handled("refused: unknown ALPN"))
            }
            Self::SwallowsUnknownAlpn => {
                let mut rest = [0; 1_024];
                while client.read(&mut rest).await? > 0 {}
                Ok(Verdict::Handled("swallowed: unknown ALPN"))
            }
            _ => Ok(Verdict::Reset("reset: unknown ALPN")),
        }
    }
}

async fn redirect(client: &mut (impl AsyncRead + AsyncWrite + Unpin), location: &str) -> io::Result<()> {
    let answer = format!(
        "HTTP/1.1 302 Found\r\nLocation: {location}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    );
    client.write_all(answer.as_bytes()).await?;
    client.shutdown().await
}

#[derive(Debug, PartialEq)]
enum Hello {
    Incomplete,
    NotTls,
    /// The protocol names offered, none when the extension is missing.
    Offers(Vec<Vec<u8>>),
}

/// Reads a client hello (RFC 8446 §4.1.2) that fits one record, as all real ones do.
fn read_hello(bytes: &[u8]) -> Hello {
    match bytes {
        [] => return Hello::Incomplete,
        [22, ..] => {}
        _ => return Hello::NotTls,
    }
    let mut record = Cursor(bytes);
    let (Some(_), Some(body)) = (record.take(3), record.vector(2)) else { return Hello::Incomplete };
    offered(body).map_or(Hello::NotTls, Hello::Offers)
}

fn offered(handshake: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut handshake = Cursor(handshake);
    if handshake.take(1)? != [1] {
        return None;
    }
    let mut hello = Cursor(handshake.vector(3)?);
    // Version and random, session id, cipher suites, compression methods.
    hello.take(34)?;
    hello.vector(1)?;
    hello.vector(2)?;
    hello.vector(1)?;
    let mut extensions = Cursor(hello.vector(2)?);
    while !extensions.0.is_empty() {
        let kind = extensions.take(2)?;
        let content = extensions.vector(2)?;
        // application_layer_protocol_negotiation(16), RFC 7301 §3.1.
        if kind == [0, 16] {
            let mut names = Cursor(Cursor(content).vector(2)?);
            let mut all = Vec::new();
            while !names.0.is_empty() {
                all.push(names.vector(1)?.to_vec());
            }
            return Some(all);
        }
    }
    Some(Vec::new())
}

struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (head, tail) = self.0.split_at_checked(count)?;
        self.0 = tail;
        Some(head)
    }

    /// A vector whose length comes first, in `width` bytes.
    fn vector(&mut self, width: usize) -> Option<&'a [u8]> {
        let length = self.take(width)?.iter().fold(0, |length, byte| length << 8 | usize::from(*byte));
        self.take(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello(alpn: &[&[u8]]) -> Vec<u8> {
        let mut config =
            Arc::unwrap_or_clone(crate::pki::TestCa::new("some authority").unwrap().client_config());
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        let name = "cloud.test".try_into().unwrap();
        let mut client = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
        let mut bytes = Vec::new();
        client.write_tls(&mut bytes).unwrap();
        bytes
    }

    #[test]
    fn the_offer_of_a_real_client_hello_is_read() {
        let bytes = hello(&[b"xmpp-client", b"h2"]);
        assert_eq!(read_hello(&bytes), Hello::Offers(vec![b"xmpp-client".to_vec(), b"h2".to_vec()]));
        assert_eq!(read_hello(&bytes[..bytes.len() - 1]), Hello::Incomplete);
        assert_eq!(read_hello(&hello(&[])), Hello::Offers(Vec::new()));
        assert_eq!(read_hello(b"GET / HTTP/1.1"), Hello::NotTls);
        assert_eq!(read_hello(&[22, 3, 1, 0, 2, 1, 0]), Hello::NotTls);
    }
}
