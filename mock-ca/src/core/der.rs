//! Writing DER: what certificates, CRLs and OCSP answers are made of. Pieces are written once and joined; nothing that
//! a client sent is encoded anew.

use time::OffsetDateTime;

/// Universal tags (X.690 section 8), with the constructed bit where DER wants it.
pub const BOOLEAN: u8 = 0x01;
pub const INTEGER: u8 = 0x02;
pub const BIT_STRING: u8 = 0x03;
pub const OCTET_STRING: u8 = 0x04;
pub const NULL: u8 = 0x05;
pub const OID: u8 = 0x06;
pub const ENUMERATED: u8 = 0x0a;
pub const UTF8_STRING: u8 = 0x0c;
pub const PRINTABLE_STRING: u8 = 0x13;
pub const IA5_STRING: u8 = 0x16;
pub const UTC_TIME: u8 = 0x17;
pub const GENERALIZED_TIME: u8 = 0x18;
pub const SEQUENCE: u8 = 0x30;
pub const SET: u8 = 0x31;

/// One element with its parts inside.
pub fn element(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    let mut out = Vec::with_capacity(length + 6);
    out.push(tag);
    push_length(&mut out, length);
    for part in parts {
        out.extend_from_slice(part);
    }
    out
}

pub fn sequence(parts: &[&[u8]]) -> Vec<u8> {
    element(SEQUENCE, parts)
}

/// `[number] EXPLICIT`, or a constructed implicit one.
pub fn context(number: u8, parts: &[&[u8]]) -> Vec<u8> {
    element(0xa0 | number, parts)
}

/// `[number] IMPLICIT` of a primitive type.
pub fn context_primitive(number: u8, body: &[u8]) -> Vec<u8> {
    element(0x80 | number, &[body])
}

/// A SET OF: DER sorts its members (X.690 section 11.6).
pub fn set_of(mut members: Vec<Vec<u8>>) -> Vec<u8> {
    members.sort();
    let parts: Vec<&[u8]> = members.iter().map(Vec::as_slice).collect();
    element(SET, &parts)
}

/// An object identifier from its arcs.
pub fn oid(arcs: &[u32]) -> Vec<u8> {
    let mut body = Vec::with_capacity(arcs.len() + 4);
    let (first, rest) = match arcs {
        [first, second, rest @ ..] => (first * 40 + second, rest),
        _ => (0, [].as_slice()),
    };
    for arc in std::iter::once(&first).chain(rest) {
        let digits = (32 - arc.leading_zeros()).div_ceil(7).max(1);
        for digit in (0..digits).rev() {
            let seven = (arc >> (digit * 7)) as u8 & 0x7f;
            body.push(if digit > 0 { seven | 0x80 } else { seven });
        }
    }
    element(OID, &[&body])
}

/// An INTEGER that is not negative, from big-endian bytes.
pub fn unsigned(bytes: &[u8]) -> Vec<u8> {
    let start = bytes.iter().position(|byte| *byte != 0).unwrap_or(bytes.len());
    match &bytes[start..] {
        [] => element(INTEGER, &[&[0]]),
        digits if digits[0] & 0x80 != 0 => element(INTEGER, &[&[0], digits]),
        digits => element(INTEGER, &[digits]),
    }
}

pub fn number(value: u64) -> Vec<u8> {
    unsigned(&value.to_be_bytes())
}

pub fn boolean_true() -> Vec<u8> {
    element(BOOLEAN, &[&[0xff]])
}

pub fn octets(bytes: &[u8]) -> Vec<u8> {
    element(OCTET_STRING, &[bytes])
}

/// A BIT STRING of whole bytes.
pub fn bits(bytes: &[u8]) -> Vec<u8> {
    element(BIT_STRING, &[&[0], bytes])
}

/// A BIT STRING of named bits: bit 0 is the first, trailing zeros are left out (X.690 section 11.2.2).
pub fn named_bits(set: u16) -> Vec<u8> {
    let bytes = set.reverse_bits().to_be_bytes();
    let used = 16 - set.leading_zeros() as usize;
    let count = used.div_ceil(8);
    let unused = u8::try_from(count * 8 - used).expect("less than eight bits are unused");
    element(BIT_STRING, &[&[unused], &bytes[..count]])
}

/// A time as RFC 5280 section 4.1.2.5 wants it: UTCTime up to 2049, GeneralizedTime after.
pub fn time(at_ms: i64) -> Vec<u8> {
    let at = date(at_ms);
    if (1950..2050).contains(&at.year()) {
        let text = format!("{:02}{}", at.year() % 100, month_to_second(at));
        return element(UTC_TIME, &[text.as_bytes()]);
    }
    generalized_time(at_ms)
}

/// A GeneralizedTime without fraction, as OCSP has it everywhere (RFC 6960 section 4.2.2.2.1).
pub fn generalized_time(at_ms: i64) -> Vec<u8> {
    let at = date(at_ms);
    let text = format!("{:04}{}", at.year(), month_to_second(at));
    element(GENERALIZED_TIME, &[text.as_bytes()])
}

fn date(at_ms: i64) -> OffsetDateTime {
    // Clocks can be advanced far, never past the years a certificate can name.
    OffsetDateTime::from_unix_timestamp(at_ms.div_euclid(1_000).clamp(0, 253_402_300_799))
        .expect("the second was clamped to the years 1970 to 9999")
}

fn month_to_second(at: OffsetDateTime) -> String {
    let (month, day) = (u8::from(at.month()), at.day());
    format!("{month:02}{day:02}{:02}{:02}{:02}Z", at.hour(), at.minute(), at.second())
}

fn push_length(out: &mut Vec<u8>, length: usize) {
    if length < 0x80 {
        out.push(length as u8);
        return;
    }
    let bytes = length.to_be_bytes();
    let digits = &bytes[(length.leading_zeros() / 8) as usize..];
    out.push(0x80 | digits.len() as u8);
    out.extend_from_slice(digits);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    // Expected bytes are what `openssl asn1parse -genstr ... -out` writes.
    #[test]
    fn elements_as_openssl_writes_them() {
        assert_eq!(hex(&oid(&[1, 2, 840, 113_549, 1, 9, 7])), "06092a864886f70d010907");
        assert_eq!(hex(&oid(&[2, 16, 840, 1, 113_733, 1, 9, 2])), "060a6086480186f845010902");
        assert_eq!(hex(&oid(&[2, 5, 29, 15])), "0603551d0f");
        assert_eq!(hex(&number(0)), "020100");
        assert_eq!(hex(&number(128)), "02020080");
        assert_eq!(hex(&number(65_537)), "0203010001");
        assert_eq!(hex(&element(OCTET_STRING, &[&[7; 200]])[..3]), "0481c8");
        assert_eq!(hex(&element(OCTET_STRING, &[&[7; 300]])[..4]), "0482012c");
    }

    // KeyUsage values as they stand in published certificates: digitalSignature is the first bit.
    #[test]
    fn named_bits_lose_their_trailing_zeros() {
        assert_eq!(hex(&named_bits(0b1)), "03020780", "digitalSignature");
        assert_eq!(hex(&named_bits(0b101)), "030205a0", "digitalSignature, keyEncipherment");
        assert_eq!(hex(&named_bits(0b110_0000)), "03020106", "keyCertSign, cRLSign");
        assert_eq!(hex(&named_bits(0b1_0000_0001)), "0303078080", "digitalSignature, decipherOnly");
    }

    #[test]
    fn times_change_their_form_in_2050() {
        assert_eq!(time(1_793_534_400_000), element(UTC_TIME, &[b"261101120000Z"]));
        assert_eq!(time(2_524_607_999_000), element(UTC_TIME, &[b"491231235959Z"]));
        assert_eq!(time(2_524_608_000_000), element(GENERALIZED_TIME, &[b"20500101000000Z"]));
    }
}
