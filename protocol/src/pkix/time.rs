//! Dates of certificates (RFC 5280 section 4.1.2.5) as milliseconds since 1970 UTC.

use super::ber::{GENERALIZED_TIME, Node, UTC_TIME};
use super::der;
use super::error::PkixError;

const DAY_MS: i64 = 86_400_000;

/// Reads UTCTime or GeneralizedTime, with or without seconds, in UTC or with an offset.
pub fn read(node: &Node<'_>) -> Result<i64, PkixError> {
    let wrong = || PkixError::malformed("time", "no date");
    let text = std::str::from_utf8(node.body()).map_err(|_| wrong())?;
    let year_digits = match node.tag() {
        UTC_TIME => 2,
        GENERALIZED_TIME => 4,
        _ => return Err(wrong()),
    };
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    if digits != year_digits + 8 && digits != year_digits + 10 {
        return Err(wrong());
    }
    let number = |from: usize, to: usize| text[from..to].parse::<i64>().map_err(|_| wrong());
    let mut year = number(0, year_digits)?;
    if year_digits == 2 {
        year += if year < 50 { 2000 } else { 1900 };
    }
    let at = |field: usize| number(year_digits + 2 * field, year_digits + 2 * field + 2);
    let (month, day, hour, minute) = (at(0)?, at(1)?, at(2)?, at(3)?);
    let second = if digits == year_digits + 10 { at(4)? } else { 0 };
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) || hour > 23 || minute > 59 || second > 60 {
        return Err(wrong());
    }
    let offset_minutes = offset(&text[digits..]).ok_or_else(wrong)?;
    let seconds = (hour * 60 + minute - offset_minutes) * 60 + second;
    Ok(days(year, month, day) * DAY_MS + seconds * 1000)
}

/// What follows the digits: a fraction that does not matter here, then `Z` or `+hhmm`.
fn offset(text: &str) -> Option<i64> {
    let zone = match text.strip_prefix(['.', ',']) {
        Some(fraction) => fraction.trim_start_matches(|character: char| character.is_ascii_digit()),
        None => text,
    };
    if zone == "Z" || zone.is_empty() {
        return Some(0);
    }
    let (sign, digits) = match zone.split_at_checked(1)? {
        ("+", digits) => (1, digits),
        ("-", digits) => (-1, digits),
        _ => return None,
    };
    if digits.len() != 4 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    Some(sign * (digits[..2].parse::<i64>().ok()? * 60 + digits[2..].parse::<i64>().ok()?))
}

/// Writes a time as RFC 5280 wants it: UTCTime until 2049, GeneralizedTime after; fractions of a second are cut. Times
/// outside the years 1950 to 9999 are written as the nearest one inside.
pub fn write(ms: i64) -> Vec<u8> {
    let (year, rest) = digits_of(ms);
    if year < 2050 {
        der::element(UTC_TIME, format!("{:02}{rest}", year % 100).as_bytes())
    } else {
        der::element(GENERALIZED_TIME, format!("{year:04}{rest}").as_bytes())
    }
}

/// Writes a GeneralizedTime of any year, without fraction, as OCSP has it everywhere (RFC 6960 section 4.2.2.2.1). Bounds
/// are those of [`write`].
pub fn write_generalized(ms: i64) -> Vec<u8> {
    let (year, rest) = digits_of(ms);
    der::element(GENERALIZED_TIME, format!("{year:04}{rest}").as_bytes())
}

/// The year, and month to second in digits.
fn digits_of(ms: i64) -> (i64, String) {
    let ms = ms.clamp(days(1950, 1, 1) * DAY_MS, days(10_000, 1, 1) * DAY_MS - 1);
    let (year, month, day) = date(ms.div_euclid(DAY_MS));
    let seconds = ms.rem_euclid(DAY_MS) / 1000;
    let rest = format!("{month:02}{day:02}{:02}{:02}{:02}Z", seconds / 3600, seconds / 60 % 60, seconds % 60);
    (year, rest)
}

/// Days since 1970-01-01 of a date of the Gregorian calendar. Years are counted from March, so that the leap day is the
/// last of its year and the lengths of the months before it are a line.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let leaps = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    year * 365 + leaps + (month * 153 + 2) / 5 + day - 1 - 719_468
}

/// The date of a day; the inverse of [`days`].
fn date(days_since_1970: i64) -> (i64, i64, i64) {
    let since_march_0 = days_since_1970 + 719_468;
    // 146,097 days are 400 years; the estimate is at most one year too high.
    let mut year = (since_march_0 * 400 + 591).div_euclid(146_097);
    let start = |year: i64| year * 365 + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    while start(year) > since_march_0 {
        year -= 1;
    }
    let day_of_year = since_march_0 - start(year);
    let month = (day_of_year * 5 + 2) / 153;
    let day = day_of_year - (month * 153 + 2) / 5 + 1;
    if month < 10 { (year, month + 3, day) } else { (year + 1, month - 9, day) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_text(tag: u8, text: &str) -> Result<i64, PkixError> {
        read(&Node::only("time", &der::element(tag, text.as_bytes())).unwrap())
    }

    #[test]
    fn known_dates() {
        assert_eq!(read_text(UTC_TIME, "700101000000Z").unwrap(), 0);
        assert_eq!(read_text(UTC_TIME, "2001010000Z").unwrap(), 1_577_836_800_000);
        assert_eq!(read_text(GENERALIZED_TIME, "20380119031408Z").unwrap(), 2_147_483_648_000);
        assert_eq!(read_text(GENERALIZED_TIME, "20240229120000.5+0130").unwrap(), 1_709_202_600_000);
        assert_eq!(read_text(UTC_TIME, "500101000000Z").unwrap(), -631_152_000_000);
    }

    #[test]
    fn every_day_of_four_centuries_survives() {
        for day in days(1950, 1, 1)..days(2350, 1, 1) {
            let ms = day * DAY_MS + 45_296_000;
            let written = write(ms);
            assert_eq!(read(&Node::only("time", &written).unwrap()), Ok(ms));
        }
    }

    #[test]
    fn years_decide_the_type() {
        assert_eq!(write(2_524_607_999_000), der::element(UTC_TIME, b"491231235959Z"));
        assert_eq!(write(2_524_608_000_000), der::element(GENERALIZED_TIME, b"20500101000000Z"));
        assert_eq!(write(i64::MAX), der::element(GENERALIZED_TIME, b"99991231235959Z"));
        assert_eq!(write(i64::MIN), der::element(UTC_TIME, b"500101000000Z"));
        let early = der::element(GENERALIZED_TIME, b"20491231235959Z");
        assert_eq!(write_generalized(2_524_607_999_000), early);
    }

    #[test]
    fn what_is_no_date_is_refused() {
        for bad in
            ["", "20010100", "201301000000Z", "200100000000Z", "200101240000Z", "2001010000X", "2001010000+1"]
        {
            assert!(read_text(UTC_TIME, bad).is_err(), "{bad}");
        }
    }
}
