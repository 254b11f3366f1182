//! A client that does as little as possible: it writes requests as bytes and looks only at where answers end, so that
//! a benchmark measures the server and not the client. Independent of both codecs of this repository.

use anyhow::{Context, Result, bail};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Application tags of the answers it knows (RFC 4511 §4).
const BIND_RESPONSE: u8 = 0x61;
const SEARCH_ENTRY: u8 = 0x64;
const SEARCH_DONE: u8 = 0x65;

/// Bytes asked from the socket at once.
const READ_CHUNK: usize = 256 * 1024;

/// One connection.
pub struct RawLdap {
    stream: TcpStream,
    buffer: Vec<u8>,
    start: usize,
    message_id: u32,
}

/// What a scan saw.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scan {
    /// Entries.
    pub entries: u64,
    /// Bytes of all answers.
    pub bytes: u64,
    /// Pages.
    pub pages: u64,
}

impl RawLdap {
    /// Connects to `host:port`.
    ///
    /// # Errors
    /// When nobody listens.
    pub async fn connect(address: &str) -> Result<Self> {
        let stream = TcpStream::connect(address).await.with_context(|| format!("connect to {address}"))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: Vec::with_capacity(READ_CHUNK), start: 0, message_id: 0 })
    }

    /// A simple bind; returns the result code.
    ///
    /// # Errors
    /// When the connection breaks.
    pub async fn bind(&mut self, dn: &str, password: &str) -> Result<u8> {
        let mut body = vec![0x02, 0x01, 0x03];
        put(&mut body, 0x04, dn.as_bytes());
        put(&mut body, 0x80, password.as_bytes());
        self.send(0x60, &body, None).await?;
        let message = self.receive().await?;
        let (tag, at) = operation(&message)?;
        if tag != BIND_RESPONSE {
            bail!("expected a bind response, got tag {tag:#x}");
        }
        // BindResponse begins with ENUMERATED resultCode: 0a 01 cc.
        message.get(at + 2).copied().context("bind response without a result code")
    }

    /// Reads every entry below `base` that has an objectClass, in pages of `page`.
    ///
    /// # Errors
    /// When the search does not end with success.
    pub async fn scan(&mut self, base: &str, attributes: &[&str], page: u32) -> Result<Scan> {
        let mut scan = Scan::default();
        let mut cookie = Vec::new();
        loop {
            self.send_search(base, attributes, page, &cookie).await?;
            scan.pages += 1;
            loop {
                let message = self.receive().await?;
                scan.bytes += message.len() as u64;
                match operation(&message)? {
                    (SEARCH_ENTRY, _) => scan.entries += 1,
                    (SEARCH_DONE, at) => {
                        let code =
                            message.get(at + 2).copied().context("search done without a result code")?;
                        if code != 0 {
                            bail!("search ended with result code {code}");
                        }
                        cookie = paged_cookie(&message)?;
                        break;
                    }
                    (tag, _) => bail!("unexpected answer with tag {tag:#x}"),
                }
            }
            if cookie.is_empty() {
                return Ok(scan);
            }
        }
    }

    async fn send_search(&mut self, base: &str, attributes: &[&str], page: u32, cookie: &[u8]) -> Result<()> {
        let mut body = Vec::new();
        put(&mut body, 0x04, base.as_bytes());
        // wholeSubtree, neverDerefAliases, no size limit, no time limit, values too, (objectClass=*)
        body.extend([0x0a, 1, 2, 0x0a, 1, 0, 0x02, 1, 0, 0x02, 1, 0, 0x01, 1, 0]);
        put(&mut body, 0x87, b"objectClass");
        let mut names = Vec::new();
        for name in attributes {
            put(&mut names, 0x04, name.as_bytes());
        }
        put(&mut body, 0x30, &names);
        // RFC 2696: SEQUENCE { size INTEGER, cookie OCTET STRING } inside the control's value
        let mut value = Vec::new();
        put(&mut value, 0x02, &page.to_be_bytes());
        put(&mut value, 0x04, cookie);
        let mut wrapped = Vec::new();
        put(&mut wrapped, 0x30, &value);
        let mut control = Vec::new();
        put(&mut control, 0x04, b"1.2.840.113556.1.4.319");
        put(&mut control, 0x04, &wrapped);
        let mut controls = Vec::new();
        put(&mut controls, 0x30, &control);
        self.send(0x63, &body, Some(&controls)).await
    }

    async fn send(&mut self, tag: u8, body: &[u8], controls: Option<&[u8]>) -> Result<()> {
        self.message_id += 1;
        let mut inner = Vec::new();
        put(&mut inner, 0x02, &self.message_id.to_be_bytes());
        put(&mut inner, tag, body);
        if let Some(controls) = controls {
            put(&mut inner, 0xa0, controls);
        }
        let mut message = Vec::with_capacity(inner.len() + 6);
        put(&mut message, 0x30, &inner);
        self.stream.write_all(&message).await.context("send")
    }

    /// The next whole LDAPMessage.
    async fn receive(&mut self) -> Result<Vec<u8>> {
        loop {
            if let Some(length) = whole(&self.buffer[self.start..])? {
                let message = self.buffer[self.start..self.start + length].to_vec();
                self.start += length;
                return Ok(message);
            }
            self.buffer.drain(..self.start);
            self.start = 0;
            self.buffer.reserve(READ_CHUNK);
            if self.stream.read_buf(&mut self.buffer).await.context("receive")? == 0 {
                bail!("the server closed the connection");
            }
        }
    }
}

fn put(out: &mut Vec<u8>, tag: u8, content: &[u8]) {
    out.push(tag);
    match content.len() {
        short @ 0..=0x7f => out.push(short as u8),
        long => {
            out.push(0x84);
            out.extend((long as u32).to_be_bytes());
        }
    }
    out.extend_from_slice(content);
}

/// Header length and content length of the element at the beginning, if its header is complete.
fn header(bytes: &[u8]) -> Result<Option<(usize, usize)>> {
    let Some(&first) = bytes.get(1) else { return Ok(None) };
    if first < 0x80 {
        return Ok(Some((2, usize::from(first))));
    }
    let count = usize::from(first & 0x7f);
    if count == 0 || count > 4 {
        bail!("length of {count} bytes");
    }
    let Some(digits) = bytes.get(2..2 + count) else { return Ok(None) };
    Ok(Some((2 + count, digits.iter().fold(0, |length, digit| length << 8 | usize::from(*digit)))))
}

/// Length of the whole element at the beginning, if all of it is there.
fn whole(bytes: &[u8]) -> Result<Option<usize>> {
    Ok(header(bytes)?.map(|(head, content)| head + content).filter(|length| *length <= bytes.len()))
}

/// Tag of the protocolOp and where its content begins.
fn operation(message: &[u8]) -> Result<(u8, usize)> {
    let (head, _) = header(message)?.context("short message")?;
    let (id_head, id_length) = header(&message[head..])?.context("short message")?;
    let at = head + id_head + id_length;
    let (op_head, _) = header(&message[at..])?.context("short message")?;
    Ok((message[at], at + op_head))
}

/// The cookie of the paged results response, which is the last element of the message.
fn paged_cookie(message: &[u8]) -> Result<Vec<u8>> {
    let oid = b"1.2.840.113556.1.4.319";
    let Some(found) = message.windows(oid.len()).position(|window| window == oid) else {
        return Ok(Vec::new());
    };
    let mut at = found + oid.len();
    // Into: OCTET STRING value, SEQUENCE; over: INTEGER size (and a criticality, should one be there).
    if message.get(at) == Some(&0x01) {
        at += 3;
    }
    for _ in 0..2 {
        at += header(&message[at..])?.context("short control")?.0;
    }
    let (head, length) = header(&message[at..])?.context("short control")?;
    at += head + length;
    let (head, length) = header(&message[at..])?.context("short control")?;
    Ok(message.get(at + head..at + head + length).context("short cookie")?.to_vec())
}
