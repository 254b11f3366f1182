//! How sealed messages travel over plain HTTP (MS-WSMV 2.2.9.1): the framing only; sealing is the caller's.

use thiserror::Error;

use crate::limits::SOAP_MAX_BYTES;

/// Content type of a message that is not sealed.
pub const CONTENT_TYPE_PLAIN: &str = "application/soap+xml;charset=UTF-8";

/// What begins each part.
const BOUNDARY: &str = "--Encrypted Boundary";
/// The same with a space, as Exchange has been seen to send it.
const BOUNDARY_WITH_SPACE: &str = "-- Encrypted Boundary";

/// Why bytes are no sealed message.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum EncryptionError {
    /// Not the parts that belong there.
    #[error("the sealed message has no usable {part}")]
    Framing {
        /// What is missing or wrong.
        part: &'static str,
    },
    /// Sealed by other means than agreed on.
    #[error("the message is sealed as {found:?}")]
    Protocol {
        /// What it says, cut.
        found: String,
    },
    /// It announces more than is taken.
    #[error("the sealed message announces {bytes} bytes")]
    TooLong {
        /// So many.
        bytes: usize,
    },
}

/// By which means a message is sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// Logged in with `Negotiate`.
    Spnego,
    /// Logged in with `Kerberos`.
    Kerberos,
}

impl Protocol {
    fn name(self) -> &'static str {
        match self {
            Self::Spnego => "application/HTTP-SPNEGO-session-encrypted",
            Self::Kerberos => "application/HTTP-Kerberos-session-encrypted",
        }
    }

    /// The `Content-Type` of the HTTP message.
    pub fn content_type(self) -> String {
        format!("multipart/encrypted;protocol=\"{}\";boundary=\"Encrypted Boundary\"", self.name())
    }

    /// Which it is by the `Content-Type` of an HTTP message; `None` for one that is not sealed.
    pub fn of_content_type(content_type: &str) -> Option<Self> {
        let lower = content_type.to_ascii_lowercase();
        if !lower.trim_start().starts_with("multipart/encrypted") {
            return None;
        }
        [Self::Spnego, Self::Kerberos]
            .into_iter()
            .find(|known| lower.contains(&known.name().to_ascii_lowercase()))
    }
}

/// A message whose content is sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sealed<'a> {
    /// By which means.
    pub protocol: Protocol,
    /// Bytes before sealing, padding included.
    pub plain_bytes: usize,
    /// The signature, or the header of a wrap token.
    pub token: &'a [u8],
    /// What is sealed.
    pub content: &'a [u8],
}

impl<'a> Sealed<'a> {
    /// The body of the HTTP message.
    pub fn write(&self) -> Vec<u8> {
        let name = self.protocol.name();
        let head = format!(
            "{BOUNDARY}\r\n\tContent-Type: {name}\r\n\tOriginalContent: type={CONTENT_TYPE_PLAIN};Length={}\r\n\
             {BOUNDARY}\r\n\tContent-Type: application/octet-stream\r\n",
            self.plain_bytes
        );
        let tail = format!("{BOUNDARY}--\r\n");
        let mut bytes =
            Vec::with_capacity(head.len() + 4 + self.token.len() + self.content.len() + tail.len());
        bytes.extend_from_slice(head.as_bytes());
        // A token has some dozens of bytes.
        bytes.extend_from_slice(&u32::try_from(self.token.len()).unwrap_or(u32::MAX).to_le_bytes());
        bytes.extend_from_slice(self.token);
        bytes.extend_from_slice(self.content);
        bytes.extend_from_slice(tail.as_bytes());
        bytes
    }

    /// Reads the body of an HTTP message. The sealed bytes may look like anything, so they are found by what is around
    /// them: the head is text and ends at its fifth line, the tail is known.
    ///
    /// # Errors
    /// [`EncryptionError`]
    pub fn read(body: &'a [u8]) -> Result<Self, EncryptionError> {
        let mut rest = body;
        let mut line = |part| line(&mut rest).ok_or(EncryptionError::Framing { part });
        boundary(line("first boundary")?)?;
        let kind = field(line("content type")?, "Content-Type")
            .ok_or(EncryptionError::Framing { part: "content type" })?;
        let protocol = [Protocol::Spnego, Protocol::Kerberos]
            .into_iter()
            .find(|known| kind.eq_ignore_ascii_case(known.name()))
            .ok_or_else(|| EncryptionError::Protocol { found: super::cut(kind) })?;
        let original = field(line("length")?, "OriginalContent").and_then(length);
        let plain_bytes = original.ok_or(EncryptionError::Framing { part: "length" })?;
        if plain_bytes > SOAP_MAX_BYTES {
            return Err(EncryptionError::TooLong { bytes: plain_bytes });
        }
        boundary(line("second boundary")?)?;
        field(line("content")?, "Content-Type").ok_or(EncryptionError::Framing { part: "content" })?;

        let payload = without_tail(rest).ok_or(EncryptionError::Framing { part: "last boundary" })?;
        let (length, payload) =
            payload.split_first_chunk().ok_or(EncryptionError::Framing { part: "token" })?;
        let length = usize::try_from(u32::from_le_bytes(*length)).unwrap_or(usize::MAX);
        let (token, content) =
            payload.split_at_checked(length).ok_or(EncryptionError::Framing { part: "token" })?;
        Ok(Self { protocol, plain_bytes, token, content })
    }
}

/// The next line without its end, which is a line feed with or without carriage return.
fn line<'a>(rest: &mut &'a [u8]) -> Option<&'a str> {
    // No line of the head is long; the binary part may have no line end at all.
    let end = rest.iter().take(512).position(|byte| *byte == b'\n')?;
    let (line, after) = rest.split_at_checked(end)?;
    *rest = after.get(1..)?;
    str::from_utf8(line).ok().map(|line| line.trim_end_matches('\r'))
}

fn boundary(line: &str) -> Result<(), EncryptionError> {
    let line = line.trim_end();
    if line == BOUNDARY || line == BOUNDARY_WITH_SPACE {
        return Ok(());
    }
    Err(EncryptionError::Framing { part: "boundary" })
}

fn field<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    let (found, value) = line.trim().split_once(':')?;
    found.trim().eq_ignore_ascii_case(name).then_some(value.trim())
}

/// The number behind `Length=`.
fn length(original: &str) -> Option<usize> {
    original.split(';').find_map(|part| {
        let (name, value) = part.split_once('=')?;
        name.trim().eq_ignore_ascii_case("length").then(|| value.trim().parse().ok())?
    })
}

fn without_tail(payload: &[u8]) -> Option<&[u8]> {
    let payload = payload.strip_suffix(b"\r\n").unwrap_or(payload);
    let payload = payload.strip_suffix(b"--").unwrap_or(payload);
    [BOUNDARY, BOUNDARY_WITH_SPACE].into_iter().find_map(|boundary| payload.strip_suffix(boundary.as_bytes()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sealed<'a>(token: &'a [u8], content: &'a [u8]) -> Sealed<'a> {
        Sealed { protocol: Protocol::Spnego, plain_bytes: content.len(), token, content }
    }

    #[test]
    fn the_framing_is_that_of_the_sheet() {
        let body = sealed(b"0123456789abcdef", b"xyz").write();
        let expected = b"--Encrypted Boundary\r\n\tContent-Type: application/HTTP-SPNEGO-session-encrypted\r\n\
            \tOriginalContent: type=application/soap+xml;charset=UTF-8;Length=3\r\n--Encrypted Boundary\r\n\
            \tContent-Type: application/octet-stream\r\n\x10\0\0\x000123456789abcdefxyz--Encrypted Boundary--\r\n";
        assert_eq!(body, expected);
    }

    #[test]
    fn a_boundary_with_a_space_is_understood() {
        let body = sealed(b"0123456789abcdef", b"--Encrypted Boundary\r\n").write();
        // The content is binary here, so only the framing's own boundaries may change.
        let text = String::from_utf8(body).unwrap().replacen("--Encrypted", "-- Encrypted", 2);
        let text = text.replace("--Encrypted Boundary--", "-- Encrypted Boundary--");
        let read = Sealed::read(text.as_bytes()).unwrap();
        assert_eq!(read.content, b"--Encrypted Boundary\r\n");
    }

    #[test]
    fn the_kerberos_variant_has_its_own_name() {
        let message = Sealed { protocol: Protocol::Kerberos, ..sealed(b"t", b"c") };
        assert_eq!(Sealed::read(&message.write()), Ok(message));
        assert_eq!(Protocol::of_content_type(&Protocol::Kerberos.content_type()), Some(Protocol::Kerberos));
        assert_eq!(Protocol::of_content_type(CONTENT_TYPE_PLAIN), None);
    }

    #[test]
    fn what_is_not_framed_so_is_refused() {
        let good = sealed(b"0123456789abcdef", b"xyz").write();
        for end in 0..good.len() - 4 {
            assert!(Sealed::read(&good[..end]).is_err(), "{end}");
        }
        let replaced = |from: &str, to: &str| String::from_utf8(good.clone()).unwrap().replace(from, to);
        for (from, to) in [
            ("HTTP-SPNEGO", "HTTP-CredSSP"),
            ("Length=3", "Length=99999999"),
            ("Length=3", "Length=-3"),
            ("OriginalContent", "Original"),
            ("\u{10}\0\0\0", "\u{7f}\0\0\0"),
        ] {
            assert!(Sealed::read(replaced(from, to).as_bytes()).is_err(), "{from} {to}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_travel(
            token in proptest::collection::vec(any::<u8>(), 0..80),
            content in proptest::collection::vec(prop_oneof![Just(b'-'), Just(b'\r'), Just(b'\n'), any::<u8>()], 0..300),
        ) {
            let message = sealed(&token, &content);
            let body = message.write();
            prop_assert_eq!(Sealed::read(&body), Ok(message));
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = Sealed::read(&bytes);
        }
    }
}
