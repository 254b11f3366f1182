//! Times as directories write them: GeneralizedTime (RFC 4517 3.3.13) and Windows FILETIME strings.

/// Milliseconds between 1601-01-01 and 1970-01-01.
const FILETIME_EPOCH_MS: i64 = 11_644_473_600_000;

/// `YYYYMMDDHHMMSS` of a Unix millisecond, UTC.
pub(crate) fn digits(unix_ms: i64) -> String {
    let seconds = unix_ms.div_euclid(1000);
    let (year, month, day) = civil(seconds.div_euclid(86_400));
    let of_day = seconds.rem_euclid(86_400);
    format!("{year:04}{month:02}{day:02}{:02}{:02}{:02}", of_day / 3600, of_day / 60 % 60, of_day % 60)
}

/// `20261122043735Z`.
pub(crate) fn generalized(unix_ms: i64) -> String {
    digits(unix_ms) + "Z"
}

/// `20261122043735.0Z`, the form of Active Directory.
pub(crate) fn generalized_ad(unix_ms: i64) -> String {
    digits(unix_ms) + ".0Z"
}

/// Unix milliseconds of the digits at the start of a GeneralizedTime in UTC; the fraction is dropped. Seconds, and
/// minutes with them, may be missing.
pub(crate) fn parse(text: &[u8]) -> Option<i64> {
    let digits = &text[..text.iter().take(14).take_while(|octet| octet.is_ascii_digit()).count()];
    if !matches!(digits.len(), 10 | 12 | 14) {
        return None;
    }
    let number = |from: usize, to: usize| {
        let digits = digits.get(from..to).unwrap_or_default();
        digits.iter().fold(0i64, |sum, &digit| sum * 10 + i64::from(digit - b'0'))
    };
    let (month, day) = (number(4, 6), number(6, 8));
    let (hour, minute, second) = (number(8, 10), number(10, 12), number(12, 14));
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    Some(((days(number(0, 4), month, day) * 24 + hour) * 60 + minute) * 60_000 + second * 1000)
}

/// FILETIME of a Unix millisecond.
pub(crate) fn filetime(unix_ms: i64) -> i64 {
    (unix_ms + FILETIME_EPOCH_MS).saturating_mul(10_000)
}

/// Unix millisecond of a FILETIME.
pub(crate) fn from_filetime(filetime: i64) -> i64 {
    filetime / 10_000 - FILETIME_EPOCH_MS
}

/// Day of the week (0 = Sunday) and hour of the day, UTC, as logonHours counts them.
pub(crate) fn weekday_hour(unix_ms: i64) -> (usize, usize) {
    let hours = unix_ms.div_euclid(3_600_000);
    let weekday = (hours.div_euclid(24) + 4).rem_euclid(7);
    (weekday as usize, hours.rem_euclid(24) as usize)
}

/// Days since 1970 of a date, and back: the usual era arithmetic of the proleptic Gregorian calendar.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let shifted_year = if month <= 2 { year - 1 } else { year };
    let era = shifted_year.div_euclid(400);
    let of_era = shifted_year.rem_euclid(400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

fn civil(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let of_era = shifted.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * of_year + 2) / 153;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, of_year - (153 * shifted_month + 2) / 5 + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_instants() {
        assert_eq!(generalized(1_795_322_255_000), "20261122043735Z");
        assert_eq!(parse(b"20261122043735.0Z"), Some(1_795_322_255_000));
        assert_eq!(generalized_ad(951_782_400_000), "20000229000000.0Z");
        assert_eq!(filetime(0), 116_444_736_000_000_000);
        assert_eq!(from_filetime(116_444_736_000_000_000), 0);
        assert_eq!(weekday_hour(0), (4, 0), "1970 began on a Thursday");
        assert_eq!(parse(b"20261322043735Z"), None);
        assert_eq!(parse(b"197001010001Z"), Some(60_000));
        assert_eq!(parse(b"1970010101Z"), Some(3_600_000));
        assert!(parse(b"000001010000Z").is_some(), "the lock without end of ppolicy");
    }

    #[test]
    fn every_day_of_four_centuries_comes_back() {
        for day in (-10_000..140_000).step_by(13) {
            let at = day * 86_400_000;
            assert_eq!(parse(digits(at).as_bytes()), Some(at), "{day}");
        }
    }
}
