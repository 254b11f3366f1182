//! Text of primitive values that stay text: whether it is what its element promises.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::read::ClixmlError;

pub(super) fn bytes(text: &str) -> Result<Vec<u8>, ClixmlError> {
    let wrong = |_| ClixmlError::Primitive { element: "BA" };
    if text.contains(|c: char| c.is_ascii_whitespace()) {
        let joined: String = text.split_ascii_whitespace().collect();
        return STANDARD.decode(joined).map_err(wrong);
    }
    STANDARD.decode(text).map_err(wrong)
}

/// Lower case, with hyphens, without braces.
pub(super) fn guid(text: &str) -> Result<String, ClixmlError> {
    let text = text.trim().trim_start_matches('{').trim_end_matches('}');
    let right = text.len() == 36
        && text.bytes().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        });
    if right { Ok(text.to_ascii_lowercase()) } else { Err(ClixmlError::Primitive { element: "G" }) }
}

pub(super) fn decimal(text: String) -> Result<String, ClixmlError> {
    let right = text.parse::<f64>().is_ok_and(f64::is_finite);
    if right { Ok(text) } else { Err(ClixmlError::Primitive { element: "D" }) }
}

/// `xs:dateTime` as .NET writes it, with or without a zone (MS-PSRP 2.2.5.1.4).
pub(super) fn date_time(text: String) -> Result<String, ClixmlError> {
    let right = after_date_time(text.trim().as_bytes()).is_some_and(is_zone);
    if right { Ok(text) } else { Err(ClixmlError::Primitive { element: "DT" }) }
}

/// What follows the seconds and their fraction.
fn after_date_time(text: &[u8]) -> Option<&[u8]> {
    let (front, rest) = text.split_at_checked(19)?;
    let number = |from: usize, count: usize| {
        let digits = &front[from..from + count];
        digits
            .iter()
            .try_fold(0_u32, |sum, digit| digit.is_ascii_digit().then(|| sum * 10 + u32::from(digit - b'0')))
    };
    let marks = [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':')];
    let right = marks.iter().all(|(at, mark)| front[*at] == *mark)
        && number(0, 4).is_some()
        && (1..=12).contains(&number(5, 2)?)
        && (1..=31).contains(&number(8, 2)?)
        && number(11, 2)? <= 24
        && number(14, 2)? <= 59
        && number(17, 2)? <= 59;
    match rest {
        _ if !right => None,
        [b'.', fraction @ ..] => {
            let digits = fraction.iter().take_while(|byte| byte.is_ascii_digit()).count();
            (digits > 0).then(|| &fraction[digits..])
        }
        rest => Some(rest),
    }
}

fn is_zone(text: &[u8]) -> bool {
    match text {
        [] | b"Z" => true,
        [b'+' | b'-', a, b, b':', c, d] => [a, b, c, d].into_iter().all(u8::is_ascii_digit),
        _ => false,
    }
}

/// `xs:duration` (MS-PSRP 2.2.5.1.5): at least one part, each once and in order.
pub(super) fn duration(text: String) -> Result<String, ClixmlError> {
    if is_duration(text.trim()).unwrap_or(false) {
        Ok(text)
    } else {
        Err(ClixmlError::Primitive { element: "TS" })
    }
}

fn is_duration(text: &str) -> Option<bool> {
    let text = text.strip_prefix('-').unwrap_or(text).strip_prefix('P')?;
    let (date, time) = text.split_once('T').map_or((text, None), |(date, time)| (date, Some(time)));
    let mut parts = 0;
    for (mut left, units) in [(date, "YMD"), (time.unwrap_or_default(), "HMS")] {
        for unit in units.chars() {
            let Some((number, rest)) = left.split_once(unit) else { continue };
            let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
            let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            if !digits(whole) || !digits(fraction) || (number.contains('.') && unit != 'S') {
                return None;
            }
            (left, parts) = (rest, parts + 1);
        }
        if !left.is_empty() {
            return None;
        }
    }
    Some(parts > 0 && time != Some(""))
}

/// `System.Version` (MS-PSRP 2.2.5.1.21): two to four numbers.
pub(super) fn version(text: String) -> Result<String, ClixmlError> {
    let parts: Vec<_> = text.trim().split('.').map(str::parse::<i32>).collect();
    let right =
        (2..=4).contains(&parts.len()) && parts.iter().all(|part| part.as_ref().is_ok_and(|n| *n >= 0));
    if right { Ok(text) } else { Err(ClixmlError::Primitive { element: "Version" }) }
}
