use super::{Element, Node, PROLOGUE, Tag, token};
use crate::limits::{WBXML_DEPTH_MAX, WBXML_MAX_BYTES, WBXML_NODES_MAX};

/// Bytes of the longest `mb_u_int32` (WBXML 1.3 section 5.1): five times seven bits.
const INTEGER_MAX_BYTES: usize = 5;

/// What a reader takes.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Size of a document.
    pub max_bytes: usize,
    /// How deep elements may be inside each other, the root being one.
    pub depth_max: usize,
    /// Elements and pieces of text in a document. Each takes a byte or two on the wire and forty in memory.
    pub nodes_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { max_bytes: WBXML_MAX_BYTES, depth_max: WBXML_DEPTH_MAX, nodes_max: WBXML_NODES_MAX }
    }
}

/// Why bytes are not a document. `at` counts bytes from its start.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// Larger than the limit.
    #[error("WBXML document of {bytes} bytes, at most {max} are taken")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The limit.
        max: usize,
    },
    /// The bytes stop inside the document: elements are not ended, or the last token is cut.
    #[error("WBXML document stops at byte {at} inside an element")]
    Truncated {
        /// Where.
        at: usize,
    },
    /// Not version 1.3.
    #[error("WBXML version byte 0x{version:02X} instead of 0x03")]
    Version {
        /// What it says.
        version: u8,
    },
    /// A document type is named; ActiveSync has none.
    #[error("WBXML public identifier {number} instead of 1")]
    PublicId {
        /// What it says.
        number: u32,
    },
    /// Not UTF-8.
    #[error("WBXML character set {charset} instead of 106, UTF-8")]
    Charset {
        /// The MIBenum it says.
        charset: u32,
    },
    /// String tables are not used by ActiveSync, and a table makes small documents large.
    #[error("WBXML string table of {bytes} bytes")]
    StringTable {
        /// The length it claims.
        bytes: u32,
    },
    /// An integer longer than 32 bits.
    #[error("WBXML integer at byte {at} has more than 32 bits")]
    Integer {
        /// Where.
        at: usize,
    },
    /// Text that is not UTF-8.
    #[error("WBXML text at byte {at} is not UTF-8")]
    NotUtf8 {
        /// Where.
        at: usize,
    },
    /// Opaque bytes that claim to go on behind the end of the document.
    #[error("WBXML opaque of {bytes} bytes at byte {at}, only {left} follow")]
    OpaqueTooLong {
        /// Where.
        at: usize,
        /// The length it claims.
        bytes: u32,
        /// What is there.
        left: usize,
    },
    /// A tag with attributes; ActiveSync has none.
    #[error("WBXML tag with attributes at byte {at}")]
    Attributes {
        /// Where.
        at: usize,
    },
    /// Entities, literal tags, processing instructions, extensions, references into the string table.
    #[error("WBXML token 0x{token:02X} at byte {at}, which ActiveSync does not use")]
    Token {
        /// The token.
        token: u8,
        /// Where.
        at: usize,
    },
    /// A code page that MS-ASWBXML does not have.
    #[error("unknown WBXML code page {page} at byte {at}")]
    UnknownPage {
        /// Which.
        page: u8,
        /// Where.
        at: usize,
    },
    /// An end where nothing is open, or text or a second element outside the root.
    #[error("WBXML byte 0x{byte:02X} at {at} is outside the document's one element")]
    OutsideRoot {
        /// The token.
        byte: u8,
        /// Where.
        at: usize,
    },
    /// Nested deeper than the limit.
    #[error("WBXML elements nested more than {max} deep")]
    TooDeep {
        /// The limit.
        max: usize,
    },
    /// More elements and pieces of text than the limit.
    #[error("more than {max} WBXML elements and texts")]
    TooManyNodes {
        /// The limit.
        max: usize,
    },
}

/// Reads one document. A token that a known page does not list is kept, because new phones bring new tags; a page
/// nobody knows is refused, because nothing after it can be told apart from noise.
///
/// # Errors
/// [`DecodeError`] says what and where.
pub fn decode(bytes: &[u8], limits: &Limits) -> Result<Element, DecodeError> {
    if bytes.len() > limits.max_bytes {
        return Err(DecodeError::TooLarge { bytes: bytes.len(), max: limits.max_bytes });
    }
    let mut reader = Reader { bytes, at: 0, page: 0 };
    reader.prologue()?;
    let mut tree = Tree { open: Vec::new(), root: None, nodes: 0, limits };
    while let Some(byte) = reader.next() {
        let at = reader.at - 1;
        match byte {
            token::SWITCH_PAGE => reader.switch_page()?,
            token::END => tree.end(at)?,
            token::STR_I => {
                let text = reader.inline_string()?;
                tree.add(Node::Text(text), byte, at)?;
            }
            token::OPAQUE => {
                let opaque = reader.opaque()?;
                tree.add(Node::Opaque(opaque), byte, at)?;
            }
            _ => tree.start(byte, reader.page, at)?,
        }
    }
    tree.root.ok_or(DecodeError::Truncated { at: bytes.len() })
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    page: u8,
}

impl Reader<'_> {
    fn prologue(&mut self) -> Result<(), DecodeError> {
        let version = self.next().ok_or(DecodeError::Truncated { at: 0 })?;
        if version != PROLOGUE[0] {
            return Err(DecodeError::Version { version });
        }
        let number = self.integer()?;
        if number != u32::from(PROLOGUE[1]) {
            return Err(DecodeError::PublicId { number });
        }
        let charset = self.integer()?;
        if charset != u32::from(PROLOGUE[2]) {
            return Err(DecodeError::Charset { charset });
        }
        match self.integer()? {
            0 => Ok(()),
            bytes => Err(DecodeError::StringTable { bytes }),
        }
    }

    fn next(&mut self) -> Option<u8> {
        let byte = self.bytes.get(self.at).copied();
        self.at += usize::from(byte.is_some());
        byte
    }

    fn switch_page(&mut self) -> Result<(), DecodeError> {
        let at = self.at;
        let page = self.next().ok_or(DecodeError::Truncated { at })?;
        if (Tag { page, token: token::FIRST_TAG }).code_page().is_none() {
            return Err(DecodeError::UnknownPage { page, at });
        }
        self.page = page;
        Ok(())
    }

    fn inline_string(&mut self) -> Result<String, DecodeError> {
        let at = self.at;
        let rest = &self.bytes[at..];
        let end = rest.iter().position(|byte| *byte == 0).ok_or(DecodeError::Truncated { at })?;
        let text = std::str::from_utf8(&rest[..end]).map_err(|_| DecodeError::NotUtf8 { at })?;
        self.at += end + 1;
        Ok(text.to_owned())
    }

    fn opaque(&mut self) -> Result<Vec<u8>, DecodeError> {
        let at = self.at;
        let bytes = self.integer()?;
        let left = self.bytes.len() - self.at;
        let length = usize::try_from(bytes).ok().filter(|length| *length <= left);
        let length = length.ok_or(DecodeError::OpaqueTooLong { at, bytes, left })?;
        let opaque = self.bytes[self.at..self.at + length].to_vec();
        self.at += length;
        Ok(opaque)
    }

    fn integer(&mut self) -> Result<u32, DecodeError> {
        let at = self.at;
        let mut value: u64 = 0;
        for _ in 0..INTEGER_MAX_BYTES {
            let byte = self.next().ok_or(DecodeError::Truncated { at })?;
            value = value << 7 | u64::from(byte & 0x7F);
            if byte & 0x80 == 0 {
                return u32::try_from(value).map_err(|_| DecodeError::Integer { at });
            }
        }
        Err(DecodeError::Integer { at })
    }
}

struct Tree<'a> {
    /// Elements that wait for their end, outermost first.
    open: Vec<Element>,
    root: Option<Element>,
    nodes: usize,
    limits: &'a Limits,
}

impl Tree<'_> {
    fn start(&mut self, byte: u8, page: u8, at: usize) -> Result<(), DecodeError> {
        let number = byte & token::TAG_BITS;
        if number < token::FIRST_TAG {
            return Err(DecodeError::Token { token: byte, at });
        }
        if byte & token::ATTRIBUTES != 0 {
            return Err(DecodeError::Attributes { at });
        }
        let element = Element::new(Tag { page, token: number });
        if byte & token::CONTENT == 0 {
            return self.add(Node::Element(element), byte, at);
        }
        if self.root.is_some() {
            return Err(DecodeError::OutsideRoot { byte, at });
        }
        if self.open.len() >= self.limits.depth_max {
            return Err(DecodeError::TooDeep { max: self.limits.depth_max });
        }
        self.open.push(element);
        Ok(())
    }

    fn end(&mut self, at: usize) -> Result<(), DecodeError> {
        let element = self.open.pop().ok_or(DecodeError::OutsideRoot { byte: token::END, at })?;
        self.add(Node::Element(element), token::END, at)
    }

    fn add(&mut self, node: Node, byte: u8, at: usize) -> Result<(), DecodeError> {
        self.nodes += 1;
        if self.nodes > self.limits.nodes_max {
            return Err(DecodeError::TooManyNodes { max: self.limits.nodes_max });
        }
        match (self.open.last_mut(), node) {
            (Some(parent), node) => parent.content.push(node),
            (None, Node::Element(element)) if self.root.is_none() => self.root = Some(element),
            (None, _) => return Err(DecodeError::OutsideRoot { byte, at }),
        }
        Ok(())
    }
}
