//! The few BER forms entries are stored and sent in: OCTET STRING, SET OF OCTET STRING and their concatenation.

use bytes::{BufMut, BytesMut};

const OCTET_STRING: u8 = 0x04;
const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;

/// Bytes a definite length takes.
fn length_size(length: usize) -> usize {
    match length {
        0..0x80 => 1,
        0x80..0x100 => 2,
        0x100..0x1_0000 => 3,
        0x1_0000..0x100_0000 => 4,
        _ => 5,
    }
}

fn put_length(out: &mut impl BufMut, length: usize) {
    let bytes = (length as u32).to_be_bytes();
    match length_size(length) {
        1 => out.put_u8(bytes[3]),
        size => {
            out.put_u8(0x80 | (size as u8 - 1));
            out.put_slice(&bytes[5 - size..]);
        }
    }
}

pub(crate) fn octets_size(value: &[u8]) -> usize {
    1 + length_size(value.len()) + value.len()
}

pub(crate) fn put_octets(out: &mut impl BufMut, value: &[u8]) {
    out.put_u8(OCTET_STRING);
    put_length(out, value.len());
    out.put_slice(value);
}

pub(crate) fn put_set<V: AsRef<[u8]>>(out: &mut impl BufMut, values: &[V]) {
    out.put_u8(SET);
    put_length(out, values.iter().map(|value| octets_size(value.as_ref())).sum());
    for value in values {
        put_octets(out, value.as_ref());
    }
}

/// A SET from content that is already a row of OCTET STRINGs.
pub(crate) fn put_set_of(out: &mut impl BufMut, content: &[u8]) {
    out.put_u8(SET);
    put_length(out, content.len());
    out.put_slice(content);
}

/// One PartialAttribute from a name that is already encoded and a SET that is already encoded.
pub(crate) fn put_attribute(out: &mut BytesMut, name_tlv: &[u8], set_tlv: &[u8]) {
    let size = name_tlv.len() + set_tlv.len();
    out.reserve(size + 6);
    out.put_u8(SEQUENCE);
    put_length(out, size);
    out.put_slice(name_tlv);
    out.put_slice(set_tlv);
}

/// Opens a SEQUENCE whose length is filled in later: four length octets, as Windows servers always write.
pub(crate) fn open_sequence(out: &mut BytesMut) -> usize {
    out.put_slice(&[SEQUENCE, 0x84, 0, 0, 0, 0]);
    out.len()
}

pub(crate) fn close_sequence(out: &mut BytesMut, opened: usize) {
    let length = (out.len() - opened) as u32;
    out[opened - 4..opened].copy_from_slice(&length.to_be_bytes());
}

/// Length of the TLV at the start of `bytes`: header size and content size. The bytes are our own, so well formed.
fn header(bytes: &[u8]) -> (usize, usize) {
    match bytes[1] {
        short @ 0..0x80 => (2, usize::from(short)),
        long => {
            let count = usize::from(long & 0x7f);
            let length = bytes[2..2 + count].iter().fold(0, |sum, &byte| (sum << 8) | usize::from(byte));
            (2 + count, length)
        }
    }
}

/// Splits the first TLV off: the whole TLV and the rest.
pub(crate) fn split(bytes: &[u8]) -> (&[u8], &[u8]) {
    let (head, length) = header(bytes);
    bytes.split_at(head + length)
}

/// Content of a TLV.
pub(crate) fn content(tlv: &[u8]) -> &[u8] {
    let (head, length) = header(tlv);
    &tlv[head..head + length]
}

/// The values of an encoded SET OF OCTET STRING.
#[derive(Clone, Debug)]
pub(crate) struct Values<'a> {
    rest: &'a [u8],
}

impl<'a> Values<'a> {
    pub(crate) fn of_set(set_tlv: &'a [u8]) -> Self {
        Self { rest: content(set_tlv) }
    }

    pub(crate) fn none() -> Self {
        Self { rest: &[] }
    }
}

impl<'a> Iterator for Values<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        if self.rest.is_empty() {
            return None;
        }
        let (tlv, rest) = split(self.rest);
        self.rest = rest;
        Some(content(tlv))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_of_every_length_form_come_back() {
        for size in [0, 1, 127, 128, 255, 256, 65_535, 65_536, 70_000] {
            let values = [vec![7u8; size], vec![8u8; 3]];
            let mut out = Vec::new();
            put_set(&mut out, &values);
            let (whole, rest) = split(&out);
            assert_eq!((whole.len(), rest.len()), (out.len(), 0));
            assert_eq!(Values::of_set(&out).map(<[u8]>::len).collect::<Vec<_>>(), [size, 3]);
        }
    }

    #[test]
    fn an_attribute_has_the_bytes_of_rfc_4511() {
        let (mut name, mut set, mut out) = (Vec::new(), Vec::new(), BytesMut::new());
        put_octets(&mut name, b"cn");
        put_set(&mut set, &["a"]);
        put_attribute(&mut out, &name, &set);
        assert_eq!(&out[..], b"\x30\x09\x04\x02cn\x31\x03\x04\x01a");
    }
}
