//! Search filters (RFC 4511 4.5.1.7): the tree as it comes off the wire, and its text form (RFC 4515).

/// An attribute description: type in lower case, plus options as received.
pub type AttrDesc = String;

/// One filter. Values are bytes, never text: objectGUID searches carry any byte.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Filter {
    And(Vec<Filter>),
    Or(Vec<Filter>),
    Not(Box<Filter>),
    Equality { attr: AttrDesc, value: Vec<u8> },
    Substrings { attr: AttrDesc, initial: Option<Vec<u8>>, any: Vec<Vec<u8>>, final_: Option<Vec<u8>> },
    GreaterOrEqual { attr: AttrDesc, value: Vec<u8> },
    LessOrEqual { attr: AttrDesc, value: Vec<u8> },
    Present(AttrDesc),
    Approx { attr: AttrDesc, value: Vec<u8> },
    Extensible { rule: Option<String>, attr: Option<AttrDesc>, value: Vec<u8>, dn_attributes: bool },
}
