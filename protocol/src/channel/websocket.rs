//! The same stream in WebSocket messages (RFC 7395), for networks that let nothing but HTTP through.
//!
//! The XML layer of both ends reads and writes the octets of a TCP stream. [`Messages`] cuts those octets into
//! messages, [`octets`] turns a message back into octets; so everything above (elements, stream management, limits)
//! is the same on both transports.

use thiserror::Error;

use super::ns;

/// Path of the endpoint on the public port.
pub const PATH: &str = "/xmpp-websocket";

/// Subprotocol both ends must agree on (RFC 7395 §3.1).
pub const SUBPROTOCOL: &str = "xmpp";

/// Attributes of `<open/>` that a stream header has too (RFC 7395 §3.3.2); others are not for the XML layer.
const HEADER_ATTRIBUTES: [&str; 5] = ["from", "to", "id", "version", "xml:lang"];

/// Why a message or a stream cannot be carried over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum FramingError {
    /// RFC 7395 §3.3.3: the first character of a message is `<`.
    #[error("a message begins with something else than an element")]
    NoElement,
    /// The element goes on in another message, which RFC 7395 §3.3.3 forbids.
    #[error("a message ends inside its element")]
    Incomplete,
    /// More than one element, or text behind it.
    #[error("a message goes on behind its element")]
    Trailing,
    /// Comments, processing instructions and document types have no place in XMPP (RFC 6120 §11.1).
    #[error("a message holds a comment, a processing instruction or a document type")]
    Restricted,
    /// An attribute without value or quotes.
    #[error("a message holds a tag that cannot be read")]
    Malformed,
}

/// Cuts the octets of an outgoing XML stream into messages.
#[derive(Debug, Default)]
pub struct Messages {
    scanner: Scanner,
    text: Vec<u8>,
}

impl Messages {
    /// Takes octets as the XML layer writes them, in any pieces; `message` gets every message that is complete.
    ///
    /// # Errors
    /// When they are no XML stream.
    pub fn push(&mut self, octets: &[u8], mut message: impl FnMut(String)) -> Result<(), FramingError> {
        for octet in octets {
            self.text.push(*octet);
            match self.scanner.step(*octet)? {
                // White space between elements keeps a TCP stream alive and means nothing here.
                Edge::None if self.scanner.is_between() => self.text.clear(),
                Edge::None => {}
                Edge::Declaration => self.text.clear(),
                Edge::Opened => {
                    if name(&self.text) == b"stream:stream" {
                        self.scanner = Scanner::default();
                        message(open(&self.take()?)?);
                    }
                }
                Edge::Complete => message(self_contained(self.take()?)?),
                Edge::Closed => {
                    self.text.clear();
                    message(format!("<close xmlns='{}'/>", ns::FRAMING));
                }
            }
        }
        Ok(())
    }

    fn take(&mut self) -> Result<String, FramingError> {
        String::from_utf8(std::mem::take(&mut self.text)).map_err(|_| FramingError::Malformed)
    }
}

/// The octets of a TCP stream that mean what a message means.
///
/// # Errors
/// When the message is not exactly one element.
pub fn octets(message: &str) -> Result<String, FramingError> {
    if !message.starts_with('<') {
        return Err(FramingError::NoElement);
    }
    let mut scanner = Scanner::default();
    let mut left = message.len();
    for octet in message.bytes() {
        left -= 1;
        match scanner.step(octet)? {
            Edge::None | Edge::Opened => {}
            Edge::Declaration => return Err(FramingError::Restricted),
            Edge::Closed => return Err(FramingError::Malformed),
            Edge::Complete if left > 0 => return Err(FramingError::Trailing),
            Edge::Complete => return framing(message),
        }
    }
    Err(FramingError::Incomplete)
}

/// `<open/>` and `<close/>` become what they stand for; anything else stays as it is.
fn framing(message: &str) -> Result<String, FramingError> {
    let name = std::str::from_utf8(name(message.as_bytes())).map_err(|_| FramingError::Malformed)?;
    let (declaration, local) = match name.split_once(':') {
        Some((prefix, local)) => (format!("xmlns:{prefix}"), local),
        None => ("xmlns".to_owned(), name),
    };
    if !matches!(local, "open" | "close") {
        return Ok(message.to_owned());
    }
    let attributes = attributes(message)?;
    if !attributes.iter().any(|(name, value)| *name == declaration && unquoted(value) == ns::FRAMING) {
        return Ok(message.to_owned());
    }
    if local == "close" {
        return Ok("</stream:stream>".to_owned());
    }
    let mut header =
        format!("<?xml version='1.0'?><stream:stream xmlns='{}' xmlns:stream='{}'", ns::CLIENT, ns::STREAM);
    push_attributes(&mut header, &attributes);
    header.push('>');
    Ok(header)
}

/// The `<open/>` for a stream header.
fn open(header: &str) -> Result<String, FramingError> {
    let mut open = format!("<open xmlns='{}'", ns::FRAMING);
    push_attributes(&mut open, &attributes(header)?);
    open.push_str("/>");
    Ok(open)
}

fn push_attributes(to: &mut String, attributes: &[(&str, &str)]) {
    for (name, value) in attributes.iter().filter(|(name, _)| HEADER_ATTRIBUTES.contains(name)) {
        to.push(' ');
        to.push_str(name);
        to.push('=');
        to.push_str(value);
    }
}

/// Declares what the element took from the stream header (RFC 7395 §3.3.3: every message stands alone).
fn self_contained(element: String) -> Result<String, FramingError> {
    let end = 1 + name(element.as_bytes()).len();
    let attributes = attributes(&element)?;
    let declared = |wanted: &str| attributes.iter().any(|(name, _)| *name == wanted);
    let mut more = String::new();
    if !declared("xmlns") {
        more.push_str(&format!(" xmlns='{}'", ns::CLIENT));
    }
    if !declared("xmlns:stream") && element.contains("stream:") {
        more.push_str(&format!(" xmlns:stream='{}'", ns::STREAM));
    }
    let mut whole = element;
    whole.insert_str(end, &more);
    Ok(whole)
}

/// The name of the element whose start tag begins the text.
fn name(text: &[u8]) -> &[u8] {
    let text = text.strip_prefix(b"<").unwrap_or(text);
    let end = text.iter().position(|octet| octet.is_ascii_whitespace() || matches!(octet, b'/' | b'>'));
    &text[..end.unwrap_or(text.len())]
}

/// Attributes of the start tag that begins the text, values with their quotes and still escaped.
fn attributes(text: &str) -> Result<Vec<(&str, &str)>, FramingError> {
    let mut rest = &text[1 + name(text.as_bytes()).len()..];
    let mut found = Vec::new();
    loop {
        rest = rest.trim_start();
        if rest.starts_with(['>', '/']) {
            return Ok(found);
        }
        let (name, after) = rest.split_once('=').ok_or(FramingError::Malformed)?;
        let after = after.trim_start();
        let quote =
            after.chars().next().filter(|c| matches!(c, '\'' | '"')).ok_or(FramingError::Malformed)?;
        let length = after[1..].find(quote).ok_or(FramingError::Malformed)? + 2;
        let (value, behind) = after.split_at(length);
        found.push((name.trim_end(), value));
        rest = behind;
    }
}

fn unquoted(value: &str) -> &str {
    value.get(1..value.len().saturating_sub(1)).unwrap_or_default()
}

/// Finds where first-level elements begin and end. It judges no names and no entities: the parser behind it does.
#[derive(Debug, Default)]
struct Scanner {
    state: State,
    depth: usize,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
enum State {
    #[default]
    Text,
    /// Behind `<`.
    Tag,
    StartTag {
        quote: Option<u8>,
        slash: bool,
    },
    EndTag,
    /// Between `<?` and `?>`.
    Declaration {
        mark: bool,
    },
}

/// What an octet has completed.
#[derive(Debug, PartialEq)]
enum Edge {
    None,
    Declaration,
    /// A start tag of the first level; its content follows.
    Opened,
    /// An element of the first level.
    Complete,
    /// The end tag of what the first level is inside.
    Closed,
}

impl Scanner {
    /// Outside of every tag and element.
    fn is_between(&self) -> bool {
        self.depth == 0 && self.state == State::Text
    }

    fn step(&mut self, octet: u8) -> Result<Edge, FramingError> {
        let (next, edge) = match (self.state, octet) {
            (State::Text, b'<') => (State::Tag, Edge::None),
            (State::Text, _) => (State::Text, Edge::None),
            (State::Tag, b'/') => (State::EndTag, Edge::None),
            (State::Tag, b'?') if self.depth == 0 => (State::Declaration { mark: false }, Edge::None),
            (State::Tag, b'?' | b'!') => return Err(FramingError::Restricted),
            (State::Tag, b'<' | b'>') => return Err(FramingError::Malformed),
            (State::Tag, _) => (State::StartTag { quote: None, slash: false }, Edge::None),
            (State::Declaration { mark: true }, b'>') => (State::Text, Edge::Declaration),
            (State::Declaration { .. }, octet) => (State::Declaration { mark: octet == b'?' }, Edge::None),
            (State::StartTag { quote: Some(quote), .. }, octet) => (
                State::StartTag { quote: Some(quote).filter(|quote| *quote != octet), slash: false },
                Edge::None,
            ),
            (State::StartTag { .. }, quote @ (b'\'' | b'"')) => {
                (State::StartTag { quote: Some(quote), slash: false }, Edge::None)
            }
            (State::StartTag { slash, .. }, b'>') => (State::Text, self.start_tag(slash)),
            (State::StartTag { .. }, octet) => {
                (State::StartTag { quote: None, slash: octet == b'/' }, Edge::None)
            }
            (State::EndTag, b'>') => (State::Text, self.end_tag()),
            (State::EndTag, _) => (State::EndTag, Edge::None),
        };
        self.state = next;
        Ok(edge)
    }

    fn start_tag(&mut self, empty: bool) -> Edge {
        match (empty, self.depth) {
            (true, 0) => Edge::Complete,
            (true, _) => Edge::None,
            (false, depth) => {
                self.depth += 1;
                if depth == 0 { Edge::Opened } else { Edge::None }
            }
        }
    }

    fn end_tag(&mut self) -> Edge {
        match self.depth {
            0 => return Edge::Closed,
            1 => {
                self.depth = 0;
                return Edge::Complete;
            }
            _ => self.depth -= 1,
        }
        Edge::None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &str = "<?xml version='1.0'?><stream:stream xmlns='jabber:client' to='t.test' \
        xmlns:stream=\"http://etherx.jabber.org/streams\" version='1.0'> \n\
        <auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='EXTERNAL'>=</auth>\
        <?xml version='1.0'?><stream:stream xmlns='jabber:client' to='t.test'>\
        <iq type='get' id='a>b'><ping xmlns='urn:xmpp:ping'/></iq>\
        <r xmlns='urn:xmpp:sm:3'/><stream:error><reset xmlns='x'/></stream:error></stream:stream>";

    fn cut(pieces: &[&[u8]]) -> Vec<String> {
        let (mut messages, mut all) = (Messages::default(), Vec::new());
        for piece in pieces {
            messages.push(piece, |message| all.push(message)).unwrap();
        }
        all
    }

    #[test]
    fn a_stream_becomes_messages_that_stand_alone() {
        let all = cut(&[STREAM.as_bytes()]);
        assert_eq!(
            all,
            [
                "<open xmlns='urn:ietf:params:xml:ns:xmpp-framing' to='t.test' version='1.0'/>",
                "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='EXTERNAL'>=</auth>",
                "<open xmlns='urn:ietf:params:xml:ns:xmpp-framing' to='t.test'/>",
                "<iq xmlns='jabber:client' type='get' id='a>b'><ping xmlns='urn:xmpp:ping'/></iq>",
                "<r xmlns='urn:xmpp:sm:3'/>",
                "<stream:error xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'>\
                 <reset xmlns='x'/></stream:error>",
                "<close xmlns='urn:ietf:params:xml:ns:xmpp-framing'/>",
            ]
        );
    }

    #[test]
    fn any_split_gives_the_same_messages() {
        let whole = cut(&[STREAM.as_bytes()]);
        for at in 0..STREAM.len() {
            let (head, tail) = STREAM.as_bytes().split_at(at);
            assert_eq!(cut(&[head, tail]), whole, "split at {at}");
        }
    }

    #[test]
    fn messages_become_a_stream() {
        let open = "<open xmlns=\"urn:ietf:params:xml:ns:xmpp-framing\" to='a&amp;b' see='x' version='1.0'/>";
        let header = octets(open).unwrap();
        assert!(header.starts_with("<?xml version='1.0'?><stream:stream xmlns='jabber:client'"), "{header}");
        assert!(header.ends_with(" to='a&amp;b' version='1.0'>"), "{header}");
        let prefixed = "<f:close xmlns:f='urn:ietf:params:xml:ns:xmpp-framing'></f:close>";
        assert_eq!(octets(prefixed).unwrap(), "</stream:stream>");
        let iq = "<iq xmlns='jabber:client'><open/></iq>";
        assert_eq!(octets(iq).unwrap(), iq);
        // Somebody else's element of that name is not ours to translate.
        assert_eq!(octets("<open xmlns='urn:x'/>").unwrap(), "<open xmlns='urn:x'/>");
    }

    #[test]
    fn what_is_not_exactly_one_element_is_refused() {
        for (bad, why) in [
            ("", FramingError::NoElement),
            (" <a/>", FramingError::NoElement),
            ("<a/> ", FramingError::Trailing),
            ("<a/><b/>", FramingError::Trailing),
            ("<a><b></b>", FramingError::Incomplete),
            ("<stream:stream to='x'>", FramingError::Incomplete),
            ("</stream:stream>", FramingError::Malformed),
            ("<?xml version='1.0'?><a/>", FramingError::Restricted),
            ("<!DOCTYPE a><a/>", FramingError::Restricted),
            ("<a><!-- b --></a>", FramingError::Restricted),
            ("<open xmlns=urn:ietf:params:xml:ns:xmpp-framing/>", FramingError::Malformed),
        ] {
            assert_eq!(octets(bad), Err(why), "{bad}");
        }
    }
}
