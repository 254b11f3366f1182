//! How deep elements are inside each other, seen from the bytes before the XML parser sees them.
//!
//! The stream library builds a tree of every element and bounds neither its depth nor its size. A tree of a hundred
//! thousand levels fits into one stanza, and taking it down again recurses once a level: the stack ends, and with it
//! the process. So both ends look first. This is no parser; it only knows enough of XML to tell a tag from text, and
//! what it gets wrong about malformed XML does no harm, because the parser behind it refuses that.

use thiserror::Error;

use crate::limits::ELEMENT_DEPTH_MAX;

/// Elements are nested deeper than [`ELEMENT_DEPTH_MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("elements are nested more than {ELEMENT_DEPTH_MAX} deep")]
pub struct TooDeep;

/// Follows the tags of one stream.
#[derive(Clone, Debug, Default)]
pub struct Nesting {
    depth: u32,
    place: Place,
    /// Bytes at the front of the reader's buffer that were looked at and are not consumed yet.
    ahead: usize,
}

/// Where the next byte is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Place {
    #[default]
    Text,
    /// After `<`.
    Opened,
    /// In a start tag; whether its last byte was a slash.
    StartTag {
        slash: bool,
    },
    /// In an attribute's value, which ends with this quote.
    Value(u8),
    EndTag,
    /// After `<?`.
    Instruction,
    /// After `<!`: CDATA, which ends with `]]>`; so many brackets of that are seen. What else begins so (a comment, a
    /// document type) the parser refuses.
    Section {
        brackets: u8,
    },
}

impl Nesting {
    /// Looks at the reader's buffer, which begins where [`Nesting::consumed`] left off.
    ///
    /// # Errors
    /// [`TooDeep`]; nothing of this buffer should be given to the parser.
    pub fn look(&mut self, buffer: &[u8]) -> Result<(), TooDeep> {
        for byte in buffer.get(self.ahead..).unwrap_or_default() {
            self.step(*byte)?;
            self.ahead += 1;
        }
        Ok(())
    }

    /// The parser has taken so many bytes.
    pub fn consumed(&mut self, bytes: usize) {
        self.ahead = self.ahead.saturating_sub(bytes);
    }

    /// A new stream begins on the same connection (RFC 6120 §4.3.3): the old stream's tag is never closed.
    pub fn restart(&mut self) {
        self.depth = 0;
        self.place = Place::Text;
    }

    /// Whether what was looked at ends between two first-level elements, white space included.
    pub fn is_between_elements(&self) -> bool {
        self.depth <= 1 && self.place == Place::Text
    }

    fn step(&mut self, byte: u8) -> Result<(), TooDeep> {
        self.place = match (self.place, byte) {
            (Place::Text, b'<') => Place::Opened,
            (Place::Text, _) => Place::Text,
            (Place::Opened, b'/') => Place::EndTag,
            (Place::Opened, b'?') => Place::Instruction,
            (Place::Opened, b'!') => Place::Section { brackets: 0 },
            (Place::Opened, _) => {
                // The stream's own tag is one level.
                if self.depth > ELEMENT_DEPTH_MAX {
                    return Err(TooDeep);
                }
                self.depth += 1;
                Place::StartTag { slash: false }
            }
            (Place::StartTag { slash: true }, b'>') | (Place::EndTag, b'>') => {
                self.depth = self.depth.saturating_sub(1);
                Place::Text
            }
            (Place::StartTag { slash: false }, b'>') | (Place::Instruction, b'>') => Place::Text,
            (Place::StartTag { .. }, quote @ (b'"' | b'\'')) => Place::Value(quote),
            (Place::StartTag { .. }, byte) => Place::StartTag { slash: byte == b'/' },
            (Place::Value(quote), byte) if byte == quote => Place::StartTag { slash: false },
            (Place::Section { brackets: 2 }, b'>') => Place::Text,
            (Place::Section { brackets }, b']') => Place::Section { brackets: (brackets + 1).min(2) },
            (Place::Section { .. }, _) => Place::Section { brackets: 0 },
            (place @ (Place::Value(_) | Place::EndTag | Place::Instruction), _) => place,
        };
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HEADER: &str = "<?xml version='1.0'?><stream:stream to='a>b' from=\"it's/\">";

    fn deep(levels: u32) -> String {
        let open: String = (0..levels).map(|n| format!("<e{n} a='/>'>")).collect();
        let close: String = (0..levels).rev().map(|n| format!("</e{n}>")).collect();
        open + &close
    }

    /// Feeds the text in pieces of this size, as a reader that consumes behind itself.
    fn feed(text: &str, piece: usize) -> Result<Nesting, TooDeep> {
        let mut nesting = Nesting::default();
        for part in text.as_bytes().chunks(piece) {
            nesting.look(part)?;
            nesting.consumed(part.len());
        }
        Ok(nesting)
    }

    #[test]
    fn the_limit_counts_levels_below_the_stream() {
        let within = format!("{HEADER}{}", deep(ELEMENT_DEPTH_MAX));
        let over = format!("{HEADER}{}", deep(ELEMENT_DEPTH_MAX + 1));
        for piece in [1, 7, 100_000] {
            assert!(feed(&within, piece).unwrap().is_between_elements());
            assert_eq!(feed(&over, piece).unwrap_err(), TooDeep);
        }
    }

    #[test]
    fn siblings_quotes_and_sections_are_no_levels() {
        let many = "<a/>".repeat(500) + &"<b x='<<<' y=\">\"/>".repeat(500) + "<![CDATA[<<<] ]> ]]<x><y>]]]>";
        let text = format!("{HEADER} <iq>{many}</iq> ");
        assert!(feed(&text, 5).unwrap().is_between_elements());
    }

    #[test]
    fn inside_and_between_are_told_apart() {
        for (text, between) in [
            ("", true),
            ("  ", true),
            ("<", false),
            ("<iq", false),
            ("<iq>", false),
            ("<iq><a/>", false),
            ("<iq/> ", true),
        ] {
            assert_eq!(
                feed(&format!("{HEADER}{text}"), 3).unwrap().is_between_elements(),
                between,
                "{text:?}"
            );
        }
    }

    #[test]
    fn what_was_looked_at_is_not_looked_at_again() {
        let mut nesting = Nesting::default();
        let text = format!("{HEADER}<iq><a>");
        for _ in 0..100 {
            nesting.look(text.as_bytes()).unwrap();
        }
        nesting.consumed(text.len() - 3);
        nesting.look(b"<a></a></iq>").unwrap();
        assert!(nesting.is_between_elements());
        nesting.restart();
        nesting.consumed(12);
        nesting.look(HEADER.as_bytes()).unwrap();
        assert!(nesting.is_between_elements());
    }

    proptest! {
        /// Whatever the bytes and however they are cut.
        #[test]
        fn arbitrary_bytes_are_taken_alike_in_any_pieces(
            bytes in proptest::collection::vec(prop_oneof![Just(b'<'), Just(b'>'), Just(b'/'), Just(b'\''), Just(b']'), Just(b'!'), any::<u8>()], 0..600),
            piece in 1usize..50,
        ) {
            let mut whole = Nesting::default();
            let at_once = whole.look(&bytes);
            let mut cut = Nesting::default();
            let in_pieces = bytes.chunks(piece).try_for_each(|part| {
                cut.look(part)?;
                cut.consumed(part.len());
                Ok(())
            });
            prop_assert_eq!(at_once, in_pieces);
            prop_assert_eq!((whole.depth, whole.place), (cut.depth, cut.place));
        }
    }
}
