//! When renewal begins: spread over the first half of the time before the end, so that certificates issued together do not
//! come back together, and the other half is left for what goes wrong.

use crate::limits::REPLACE_OVER;

const DAY_MS: i64 = 86_400_000;

/// Unix milliseconds at which renewal of a certificate begins. Every certificate has its own place, by its fingerprint,
/// which is the same however often it is worked out. A certificate with a short life gets half of it as its window.
pub(super) fn moment(sha256: &str, not_before_ms: i64, not_after_ms: i64, renew_days: u32) -> i64 {
    let life_ms = (not_after_ms - not_before_ms).max(0);
    let window_ms = (i64::from(renew_days) * DAY_MS).min(life_ms / 2);
    not_after_ms - window_ms + share(sha256, window_ms / 2)
}

/// Unix milliseconds at which a certificate is replaced whose profile has changed now.
pub(super) fn replacement(sha256: &str, now_ms: i64) -> i64 {
    now_ms + share(sha256, i64::try_from(REPLACE_OVER.as_millis()).unwrap_or(0))
}

/// A part of `whole` that depends on the fingerprint only.
fn share(sha256: &str, whole: i64) -> i64 {
    let place = sha256.get(..8).and_then(|digits| u32::from_str_radix(digits, 16).ok()).unwrap_or(0);
    let part = i128::from(whole) * i128::from(place) / (i128::from(u32::MAX) + 1);
    i64::try_from(part).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renewals_are_spread_over_the_first_half_of_the_window() {
        let end = 365 * DAY_MS;
        let moments: Vec<i64> =
            (0..1_000_u32).map(|n| moment(&format!("{:08x}", n * 4_294_967), 0, end, 14)).collect();
        let (first, last) = (moments[0], moments[999]);
        assert_eq!(first, end - 14 * DAY_MS);
        assert!((end - 7 * DAY_MS - DAY_MS / 20..end - 7 * DAY_MS).contains(&last), "{last}");
        for day in 0..7 {
            let of_day = moments.iter().filter(|at| (**at - first) / DAY_MS == day).count();
            assert!((142..=143).contains(&of_day), "{of_day} on day {day}");
        }
    }

    #[test]
    fn a_short_life_is_not_all_renewal() {
        let hour = 3_600_000;
        assert_eq!(moment("00000000", 0, 2 * hour, 14), hour);
        assert!(moment("ffffffff", 0, 2 * hour, 14) < hour + hour / 2);
        assert_eq!(moment("80000000", 5, 5, 14), 5, "a life of nothing is no reason to panic");
    }
}
