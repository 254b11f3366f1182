//! The little DER (X.690) that SPNEGO and Kerberos need: elements with a tag of one byte, one after the other. Lengths are
//! checked against what is there, so nothing is allocated on a claim; nesting is what the callers spell out.

/// An element that is missing, or is not what its place wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed at {at}")]
pub(crate) struct DerError {
    /// The element, as its specification names it.
    pub(crate) at: &'static str,
}

/// Tags (X.690 8.1.2, RFC 4120 5).
pub(crate) mod tag {
    pub(crate) const INTEGER: u8 = 0x02;
    pub(crate) const BITS: u8 = 0x03;
    pub(crate) const OCTETS: u8 = 0x04;
    pub(crate) const OID: u8 = 0x06;
    pub(crate) const ENUMERATED: u8 = 0x0a;
    pub(crate) const TIME: u8 = 0x18;
    pub(crate) const TEXT: u8 = 0x1b;
    pub(crate) const SEQUENCE: u8 = 0x30;

    pub(crate) const fn application(number: u8) -> u8 {
        0x60 | number
    }

    pub(crate) const fn context(number: u8) -> u8 {
        0xa0 | number
    }
}

/// Reads elements one after the other.
#[derive(Clone, Copy)]
pub(crate) struct Reader<'a>(pub(crate) &'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn peek(&self) -> Option<u8> {
        self.0.first().copied()
    }

    /// The content of the next element, which must have this tag.
    pub(crate) fn take(&mut self, tag: u8, at: &'static str) -> Result<&'a [u8], DerError> {
        let malformed = DerError { at };
        let [found, first, rest @ ..] = self.0 else { return Err(malformed) };
        let (length, rest) = match first {
            0..=0x7f => (usize::from(*first), rest),
            0x81..=0x84 => {
                let Some((digits, rest)) = rest.split_at_checked(usize::from(first & 0x7f)) else {
                    return Err(malformed);
                };
                (digits.iter().fold(0, |length, digit| length << 8 | usize::from(*digit)), rest)
            }
            _ => return Err(malformed),
        };
        match rest.split_at_checked(length) {
            Some((content, rest)) if *found == tag => {
                self.0 = rest;
                Ok(content)
            }
            _ => Err(malformed),
        }
    }

    /// The next element with its tag and length; for what is passed on as it came.
    pub(crate) fn whole(&mut self, tag: u8, at: &'static str) -> Result<&'a [u8], DerError> {
        let before = self.0;
        self.take(tag, at)?;
        Ok(&before[..before.len() - self.0.len()])
    }

    pub(crate) fn enter(&mut self, tag: u8, at: &'static str) -> Result<Self, DerError> {
        self.take(tag, at).map(Self)
    }

    /// What is inside `[number]`.
    pub(crate) fn field(&mut self, number: u8, at: &'static str) -> Result<Self, DerError> {
        self.enter(tag::context(number), at)
    }

    /// What is inside `[number]` where that may be left out.
    pub(crate) fn field_if(&mut self, number: u8, at: &'static str) -> Result<Option<Self>, DerError> {
        match self.peek() == Some(tag::context(number)) {
            true => self.field(number, at).map(Some),
            false => Ok(None),
        }
    }

    pub(crate) fn skip_if(&mut self, tag: u8, at: &'static str) -> Result<(), DerError> {
        if self.peek() == Some(tag) {
            self.take(tag, at)?;
        }
        Ok(())
    }

    pub(crate) fn octets(&mut self, at: &'static str) -> Result<Vec<u8>, DerError> {
        self.take(tag::OCTETS, at).map(<[u8]>::to_vec)
    }

    /// An integer of at most 64 bits.
    pub(crate) fn integer(&mut self, at: &'static str) -> Result<i64, DerError> {
        let bytes = self.take(tag::INTEGER, at)?;
        match bytes {
            [first, ..] if bytes.len() <= 8 => {
                let start = if first & 0x80 == 0 { 0 } else { -1 };
                Ok(bytes.iter().fold(start, |number, byte| number << 8 | i64::from(*byte)))
            }
            _ => Err(DerError { at }),
        }
    }

    pub(crate) fn text(&mut self, at: &'static str) -> Result<String, DerError> {
        let bytes = self.take(tag::TEXT, at)?;
        String::from_utf8(bytes.to_vec()).map_err(|_| DerError { at })
    }

    /// A time as Kerberos writes it (RFC 4120 5.2.3): UTC, whole seconds. Gives Unix seconds.
    pub(crate) fn time(&mut self, at: &'static str) -> Result<i64, DerError> {
        let text = self.take(tag::TIME, at)?;
        let (digits, rest) = text.split_at_checked(14).ok_or(DerError { at })?;
        if rest != b"Z" || !digits.iter().all(u8::is_ascii_digit) {
            return Err(DerError { at });
        }
        let number =
            |from: usize, to: usize| digits[from..to].iter().fold(0, |n, d| n * 10 + u16::from(d - b'0'));
        let small = |from: usize| u8::try_from(number(from, from + 2)).unwrap_or(u8::MAX);
        let month = time::Month::try_from(small(4)).map_err(|_| DerError { at })?;
        let date = time::Date::from_calendar_date(i32::from(number(0, 4)), month, small(6));
        let clock = time::Time::from_hms(small(8), small(10), small(12));
        match (date, clock) {
            (Ok(date), Ok(clock)) => {
                Ok(time::PrimitiveDateTime::new(date, clock).assume_utc().unix_timestamp())
            }
            _ => Err(DerError { at }),
        }
    }
}

/// An element.
pub(crate) fn element(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    match u8::try_from(content.len()) {
        Ok(short @ 0..=0x7f) => out.push(short),
        _ => {
            let digits = content.len().to_be_bytes();
            let digits = &digits[digits.iter().take_while(|digit| **digit == 0).count()..];
            out.push(0x80 | u8::try_from(digits.len()).expect("a length has at most 8 bytes"));
            out.extend_from_slice(digits);
        }
    }
    out.extend_from_slice(content);
    out
}

pub(crate) fn sequence(parts: &[Vec<u8>]) -> Vec<u8> {
    element(tag::SEQUENCE, &parts.concat())
}

/// `[number]` around something.
pub(crate) fn field(number: u8, content: &[u8]) -> Vec<u8> {
    element(tag::context(number), content)
}

pub(crate) fn octets(content: &[u8]) -> Vec<u8> {
    element(tag::OCTETS, content)
}

pub(crate) fn text(text: &str) -> Vec<u8> {
    element(tag::TEXT, text.as_bytes())
}

pub(crate) fn integer(number: i64) -> Vec<u8> {
    let bytes = number.to_be_bytes();
    let spare = bytes
        .windows(2)
        .take_while(|pair| matches!((pair[0], pair[1] & 0x80), (0, 0) | (0xff, 0x80)))
        .count();
    element(tag::INTEGER, &bytes[spare..])
}

/// A bit string of 32 flags (RFC 4120 5.2.8).
pub(crate) fn flags(bits: u32) -> Vec<u8> {
    element(tag::BITS, &[&[0][..], &bits.to_be_bytes()].concat())
}

pub(crate) fn time(unix_secs: i64) -> Vec<u8> {
    let at = time::OffsetDateTime::from_unix_timestamp(unix_secs).unwrap_or(time::OffsetDateTime::UNIX_EPOCH);
    let text = format!(
        "{:04}{:02}{:02}{:02}{:02}{:02}Z",
        at.year(),
        u8::from(at.month()),
        at.day(),
        at.hour(),
        at.minute(),
        at.second()
    );
    element(tag::TIME, text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_times_come_back() {
        for number in [0, 1, -1, 127, 128, -128, -129, 255, 65_536, i64::MAX, i64::MIN] {
            assert_eq!(Reader(&integer(number)).integer("number"), Ok(number));
        }
        assert_eq!(integer(128), [2, 2, 0, 128]);
        let encoded = time(1_795_430_000);
        assert_eq!(&encoded[2..], b"20261123103320Z".as_slice());
        assert_eq!(Reader(&encoded).time("time"), Ok(1_795_430_000));
        let broken = element(tag::TIME, b"20261323103320Z");
        assert_eq!(Reader(&broken).time("time"), Err(DerError { at: "time" }));
    }

    #[test]
    fn lengths_are_held_against_what_is_there() {
        let long = element(tag::OCTETS, &[7; 300]);
        assert_eq!(&long[..4], [4, 0x82, 1, 44]);
        assert_eq!(Reader(&long).octets("octets").map(|octets| octets.len()), Ok(300));
        for length in 0..long.len() {
            assert!(Reader(&long[..length]).octets("octets").is_err());
        }
        assert!(Reader(&[4, 0x84, 0xff, 0xff, 0xff, 0xff]).octets("octets").is_err());
    }
}
