//! Dates of certificates: the two forms of RFC 5280, seconds since 1970, and text for messages.

use std::time::{Duration, SystemTime};

use crate::asn1::{DerError, Element, GENERALIZED_TIME, UTC_TIME};

/// Seconds since 1970 of a UTCTime (`YYMMDDHHMMSSZ`) or GeneralizedTime (`YYYYMMDDHHMMSSZ`): no other form is DER.
pub(crate) fn parse(element: Element<'_>) -> Result<i64, DerError> {
    const BAD: DerError = DerError("has a date that does not parse");
    let (century, rest) = match (element.tag, element.content.len()) {
        (UTC_TIME, 13) => (None, element.content),
        (GENERALIZED_TIME, 15) => (Some(two(&element.content[..2]).ok_or(BAD)?), &element.content[2..]),
        _ => return Err(BAD),
    };
    let Some((b'Z', digits)) = rest.split_last() else {
        return Err(BAD);
    };
    let mut fields = [0i64; 6];
    for (field, pair) in fields.iter_mut().zip(digits.chunks(2)) {
        *field = two(pair).ok_or(BAD)?;
    }
    let [short, month, day, hour, minute, second] = fields;
    let year = short + 100 * century.unwrap_or(if short < 50 { 20 } else { 19 });
    if !(1..=12).contains(&month)
        || !(1..=month_length(year, month)).contains(&day)
        || hour > 23
        || minute > 59
        || second > 59
    {
        return Err(BAD);
    }
    Ok(((days(year, month, day) * 24 + hour) * 60 + minute) * 60 + second)
}

fn two(pair: &[u8]) -> Option<i64> {
    match pair {
        [tens @ b'0'..=b'9', ones @ b'0'..=b'9'] => Some(i64::from(tens - b'0') * 10 + i64::from(ones - b'0')),
        _ => None,
    }
}

fn month_length(year: i64, month: i64) -> i64 {
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    match month {
        2 => 28 + i64::from(leap),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days from 1970-01-01 to a date of the Gregorian calendar: years begin in March, so that the leap day comes last.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let (year, month) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    let before = year * 365 + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    before + (153 * month + 2) / 5 + day - 1 - 719_468
}

/// Seconds since 1970.
pub(crate) fn seconds(time: SystemTime) -> i64 {
    let whole = |duration: Duration| i64::try_from(duration.as_secs()).unwrap_or(i64::MAX);
    match time.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(after) => whole(after),
        Err(before) => -whole(before.duration()),
    }
}

/// The moment that many seconds after 1970.
pub(crate) fn moment(seconds: i64) -> SystemTime {
    let distance = Duration::from_secs(seconds.unsigned_abs());
    let moved = if seconds < 0 {
        SystemTime::UNIX_EPOCH.checked_sub(distance)
    } else {
        SystemTime::UNIX_EPOCH.checked_add(distance)
    };
    moved.unwrap_or(SystemTime::UNIX_EPOCH)
}

/// As `2026-07-31T12:00:00Z`.
pub(crate) fn text(seconds: i64) -> String {
    let (day, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    // March-based again: 146097 days are 400 years.
    let day = day + 719_468;
    let era = day.div_euclid(146_097);
    let of_era = day.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * of_year + 2) / 153;
    let (month, carry) = if shifted < 10 {
        (shifted + 3, 0)
    } else {
        (shifted - 9, 1)
    };
    let year = year_of_era + era * 400 + carry;
    let date = of_year - (153 * shifted + 2) / 5 + 1;
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{date:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(tag: u8, content: &str) -> Result<i64, DerError> {
        let content = content.as_bytes();
        parse(Element {
            tag,
            content,
            whole: content,
        })
    }

    #[test]
    fn both_forms_agree_with_the_calendar() {
        assert_eq!(read(UTC_TIME, "700101000000Z"), Ok(0));
        assert_eq!(read(UTC_TIME, "491231235959Z"), Ok(2_524_607_999));
        assert_eq!(read(UTC_TIME, "500101000000Z"), Ok(-631_152_000));
        assert_eq!(read(GENERALIZED_TIME, "20240229120000Z"), Ok(1_709_208_000));
        assert_eq!(read(GENERALIZED_TIME, "99991231235959Z"), Ok(253_402_300_799));
    }

    #[test]
    fn dates_that_are_none_are_refused() {
        for bad in [
            "230229120000Z",
            "231301120000Z",
            "230100120000Z",
            "230101240000Z",
            "230101126000Z",
            "230101120000+",
            "2301011200Z",
            "23010112000 Z",
        ] {
            assert!(read(UTC_TIME, bad).is_err(), "{bad}");
        }
        assert!(read(GENERALIZED_TIME, "20230101120000.5Z").is_err());
    }

    #[test]
    fn text_is_the_inverse() {
        for (seconds, expected) in [
            (0, "1970-01-01T00:00:00Z"),
            (-1, "1969-12-31T23:59:59Z"),
            (1_709_208_000, "2024-02-29T12:00:00Z"),
            (253_402_300_799, "9999-12-31T23:59:59Z"),
        ] {
            assert_eq!(text(seconds), expected);
        }
        for step in 0..5_000 {
            let seconds = step * 7_919_003 - 600_000_000;
            let compact: String = text(seconds).chars().filter(|c| c.is_ascii_digit()).collect();
            assert_eq!(read(GENERALIZED_TIME, &format!("{compact}Z")), Ok(seconds));
        }
    }
}
