//! What a KDC or a service says when it refuses (RFC 4120 §5.9.1).

/// The code of a KRB-ERROR, when the message is one. `sspi` maps several codes to one error of its own, and which one it
/// was decides whether a password was wrong.
pub(super) fn code(message: &[u8]) -> Option<u32> {
    let (0x7e, application, _) = element(message)? else { return None };
    let (0x30, mut fields, _) = element(application)? else { return None };
    loop {
        let (tag, content, rest) = element(fields)?;
        if tag == 0xa6 {
            let (0x02, number, _) = element(content)? else { return None };
            return (number.len() <= 4)
                .then(|| number.iter().fold(0, |code, byte| code << 8 | u32::from(*byte)));
        }
        fields = rest;
    }
}

/// One DER element with a tag of one byte: tag, content, what follows.
fn element(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = bytes.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81..=0x83 => {
            let (digits, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            (digits.iter().fold(0, |length, digit| length << 8 | usize::from(*digit)), rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, proptest};

    use super::super::ticket_error;
    use super::*;

    /// RFC 4120 §5.9.1: pvno, msg-type, stime, susec, error-code; cut to what is read.
    fn message(code: u8) -> Vec<u8> {
        [
            &[0x7e, 0x29, 0x30, 0x27, 0xa0, 3, 2, 1, 5, 0xa1, 3, 2, 1, 30, 0xa4, 0x11, 0x18, 0x0f][..],
            b"20261123031200Z",
            &[0xa5, 3, 2, 1, 0, 0xa6, 3, 2, 1, code],
        ]
        .concat()
    }

    #[test]
    fn an_error_is_known_by_its_code() {
        let message = message(24);
        assert_eq!(message.len(), 0x29 + 2);
        assert_eq!(code(&message), Some(24));
        assert_eq!(code(&message[..message.len() - 1]), None);
        assert_eq!(code(b"\x6b\0"), None);
    }

    #[test]
    fn a_service_says_it_inside_spnego() {
        let inner =
            [&[0x60, 0x38, 6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x12, 1, 2, 2, 3, 0][..], &message(37)]
                .concat();
        let wrapped =
            [&[0xa1, 0x45, 0x30, 0x43, 0xa0, 3, 10, 1, 2, 0xa2, 0x3c, 4, 0x3a][..], &inner].concat();
        assert_eq!((ticket_error(&inner), ticket_error(&wrapped)), (Some(37), Some(37)));
        assert_eq!(ticket_error(&wrapped[..40]), None);
        assert_eq!(ticket_error(b"NTLMSSP\0\x02\0\0\0"), None);
    }

    proptest! {
        #[test]
        fn arbitrary_answers_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            code(&bytes);
            ticket_error(&bytes);
        }
    }
}
