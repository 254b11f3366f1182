use super::{Element, Node, PROLOGUE, Tag, token};

/// What cannot be written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EncodeError {
    /// Inline strings end at a NUL.
    #[error("NUL character in the text of {tag}")]
    NulInText {
        /// Where.
        tag: Tag,
    },
    /// Tokens are 0x05 to 0x3F.
    #[error("token 0x{token:02X} cannot be a WBXML tag")]
    Token {
        /// Which.
        token: u8,
    },
    /// Lengths are 32 bits.
    #[error("opaque bytes of 4 GiB or more in {tag}")]
    OpaqueTooLong {
        /// Where.
        tag: Tag,
    },
}

/// Writes a document. Recursion is as deep as the tree the caller built.
///
/// # Errors
/// [`EncodeError`] when the tree cannot be written in WBXML.
pub fn encode(root: &Element) -> Result<Vec<u8>, EncodeError> {
    let mut writer = Writer { bytes: PROLOGUE.to_vec(), page: 0 };
    writer.element(root)?;
    Ok(writer.bytes)
}

struct Writer {
    bytes: Vec<u8>,
    page: u8,
}

impl Writer {
    fn element(&mut self, element: &Element) -> Result<(), EncodeError> {
        let Tag { page, token: number } = element.tag;
        if !(token::FIRST_TAG..=token::TAG_BITS).contains(&number) {
            return Err(EncodeError::Token { token: number });
        }
        if page != self.page {
            self.bytes.extend([token::SWITCH_PAGE, page]);
            self.page = page;
        }
        if element.content.is_empty() {
            self.bytes.push(number);
            return Ok(());
        }
        self.bytes.push(number | token::CONTENT);
        for node in &element.content {
            match node {
                Node::Element(child) => self.element(child)?,
                Node::Text(text) => self.text(text, element.tag)?,
                Node::Opaque(opaque) => self.opaque(opaque, element.tag)?,
            }
        }
        self.bytes.push(token::END);
        Ok(())
    }

    fn text(&mut self, text: &str, tag: Tag) -> Result<(), EncodeError> {
        if text.as_bytes().contains(&0) {
            return Err(EncodeError::NulInText { tag });
        }
        self.bytes.push(token::STR_I);
        self.bytes.extend_from_slice(text.as_bytes());
        self.bytes.push(0);
        Ok(())
    }

    fn opaque(&mut self, opaque: &[u8], tag: Tag) -> Result<(), EncodeError> {
        let length = u32::try_from(opaque.len()).map_err(|_| EncodeError::OpaqueTooLong { tag })?;
        self.bytes.push(token::OPAQUE);
        // mb_u_int32, the most significant seven bits first (WBXML 1.3 section 5.1).
        let groups = (32 - length.leading_zeros()).div_ceil(7).max(1);
        for group in (0..groups).rev() {
            let more = if group == 0 { 0 } else { 0x80 };
            self.bytes.push((length >> (7 * group) & 0x7F) as u8 | more);
        }
        self.bytes.extend_from_slice(opaque);
        Ok(())
    }
}
