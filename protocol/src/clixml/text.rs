//! Text as CLIXML carries it: `_xHHHH_` is one UTF-16 unit (MS-PSRP 2.2.5.3.2), on top of the escapes of XML.

use std::borrow::Cow;
use std::fmt::Write as _;

/// Undoes `_xHHHH_`. Halves of surrogate pairs without their other half become U+FFFD.
pub(super) fn decode(text: Cow<'_, str>) -> Cow<'_, str> {
    // Looking for one character is quicker than for the pair, and few texts have it.
    match text.find('_') {
        Some(_) => Cow::Owned(decode_units(&text)),
        None => text,
    }
}

fn decode_units(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut high: Option<u16> = None;
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        if let Some(unit) = escaped_unit(rest) {
            rest = &rest[7..];
            match (high.take(), unit) {
                (Some(lead), 0xdc00..=0xdfff) => {
                    out.extend(
                        char::decode_utf16([lead, unit]).map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER)),
                    );
                    continue;
                }
                (Some(_), _) => out.push(char::REPLACEMENT_CHARACTER),
                (None, _) => {}
            }
            match unit {
                0xd800..=0xdbff => high = Some(unit),
                unit => out.push(char::from_u32(u32::from(unit)).unwrap_or(char::REPLACEMENT_CHARACTER)),
            }
        } else {
            if high.take().is_some() {
                out.push(char::REPLACEMENT_CHARACTER);
            }
            out.push(first);
            rest = &rest[first.len_utf8()..];
        }
    }
    if high.is_some() {
        out.push(char::REPLACEMENT_CHARACTER);
    }
    out
}

/// The unit if the text begins with an escape, which has seven bytes.
fn escaped_unit(text: &str) -> Option<u16> {
    let bytes = text.as_bytes();
    let [b'_', b'x' | b'X', digits @ .., b'_'] = bytes.get(..7)? else { return None };
    digits.iter().try_fold(0u16, |unit, digit| {
        let digit = char::from(*digit).to_digit(16)?;
        Some(unit << 4 | u16::try_from(digit).ok()?)
    })
}

/// Appends text with both kinds of escapes. What XML cannot carry, what parsers normalise and what is not in the basic
/// plane goes as `_xHHHH_`, as Windows writes it.
pub(super) fn encode(out: &mut String, text: &str) {
    let mut rest = text;
    while let Some(at) = rest.bytes().position(|byte| SUSPECTS[usize::from(byte)]) {
        // Every suspect byte begins a character.
        let (plain, from) = rest.split_at(at);
        let Some(c) = from.chars().next() else { break };
        out.push_str(plain);
        rest = &from[c.len_utf8()..];
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '_' if rest.starts_with(['x', 'X']) => out.push_str("_x005F_"),
            '\0'..='\u{1f}' | '\u{7f}'..='\u{9f}' | '\u{fffe}' | '\u{ffff}' | '\u{10000}'.. => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    // Writing into a string cannot fail.
                    let _ = write!(out, "_x{unit:04X}_");
                }
            }
            plain => out.push(plain),
        }
    }
    out.push_str(rest);
}

/// First bytes of characters that may need an escape; the others are copied in runs.
const SUSPECTS: [bool; 256] = {
    let mut suspects = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        suspects[byte] =
            matches!(byte, 0..=0x1f | 0x22 | 0x26 | 0x3c | 0x3e | 0x5f | 0x7f | 0xc2 | 0xef | 0xf0..);
        byte += 1;
    }
    suspects
};

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(text: &str) -> String {
        let mut out = String::new();
        encode(&mut out, text);
        out
    }

    #[test]
    fn escapes_are_those_of_windows() {
        for (plain, wire) in [
            ("iPhone§Appl1", "iPhone§Appl1"),
            ("a\nb\tc", "a_x000A_b_x0009_c"),
            ("_x000A_", "_x005F_x000A_"),
            ("_X", "_x005F_X"),
            ("a_b", "a_b"),
            ("\u{1f600}", "_xD83D__xDE00_"),
            ("<&>\"", "&lt;&amp;&gt;&quot;"),
            ("\u{85}\u{7f}", "_x0085__x007F_"),
        ] {
            assert_eq!(encoded(plain), wire);
        }
    }

    #[test]
    fn undone_whatever_the_case_and_wherever_the_halves_are() {
        for (wire, plain) in [
            ("_xd83d__XDE00_", "\u{1f600}"),
            ("_xD83D_x", "\u{fffd}x"),
            ("_xD83D_", "\u{fffd}"),
            ("_xDE00_", "\u{fffd}"),
            ("_xD83D__xD83D__xDE00_", "\u{fffd}\u{1f600}"),
            ("_x005F_x0041_", "_x0041_"),
            ("_x00", "_x00"),
            ("_xGGGG_", "_xGGGG_"),
            ("_x+041_", "_x+041_"),
            ("_x00€_", "_x00€_"),
            ("__x0041_", "_A"),
        ] {
            assert_eq!(decode(Cow::Borrowed(wire)), plain, "{wire}");
        }
    }
}
