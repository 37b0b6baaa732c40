//! Dates as DICOM writes them (PS3.5, table 6.2-1), moved by whole days.

/// Days since 1970-01-01 of a day of the Gregorian calendar; none where there is no such day.
fn days_of(year: i32, month: u32, day: u32) -> Option<i64> {
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let length = match month {
        2 => 28 + u32::from(leap),
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return None,
    };
    if day == 0 || day > length {
        return None;
    }
    // years that begin in March, so that the leap day is the last
    let (year, month) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let of_year = (153 * month + 2) / 5 + day - 1;
    let of_era = i64::from(of_era) * 365 + i64::from(of_era / 4) - i64::from(of_era / 100) + i64::from(of_year);
    Some(i64::from(era) * 146_097 + of_era - 719_468)
}

/// The day that many days after 1970-01-01.
fn day_of(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let (era, of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (era * 400 + year + i64::from(month <= 2), month, day)
}

fn digits(text: &str) -> Option<u32> {
    (!text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()))
        .then(|| text.parse().ok())
        .flatten()
}

/// A day as year, month, day; also in the form with points of before 1993.
pub(crate) fn parse(text: &str) -> Option<(i32, u32, u32)> {
    let text = text.trim_matches([' ', '\0']);
    let plain = match (text.len(), text.get(4..5), text.get(7..8)) {
        (10, Some("."), Some(".")) => text.replace('.', ""),
        (8, ..) => text.to_owned(),
        _ => return None,
    };
    if plain.len() != 8 {
        return None;
    }
    let year = i32::try_from(digits(plain.get(..4)?)?).ok()?;
    let (month, day) = (digits(plain.get(4..6)?)?, digits(plain.get(6..8)?)?);
    days_of(year, month, day)?;
    Some((year, month, day))
}

/// A value of representation DA, every date in it moved; none where one of them is no date.
pub(crate) fn shift_dates(value: &str, by: i64) -> Option<String> {
    let moved = value.split('\\').map(|date| match date.trim_matches([' ', '\0']) {
        "" => Some(String::new()),
        date => {
            let (year, month, day) = parse(date)?;
            let (year, month, day) = day_of(days_of(year, month, day)? + by);
            (0..=9999)
                .contains(&year)
                .then(|| format!("{year:04}{month:02}{day:02}"))
        }
    });
    moved.collect::<Option<Vec<_>>>().map(|dates| dates.join("\\"))
}

/// A value of representation DT, its day moved and everything after it kept; one without a day keeps its precision.
pub(crate) fn shift_date_times(value: &str, by: i64) -> Option<String> {
    let moved = value.split('\\').map(|text| match text.trim_matches([' ', '\0']) {
        "" => Some(String::new()),
        text => shift_date_time(text, by),
    });
    moved.collect::<Option<Vec<_>>>().map(|times| times.join("\\"))
}

fn shift_date_time(text: &str, by: i64) -> Option<String> {
    if !text
        .bytes()
        .all(|byte| byte.is_ascii_digit() || matches!(byte, b'.' | b'+' | b'-'))
    {
        return None;
    }
    let end = text.find(['.', '+', '-']).unwrap_or(text.len());
    let (known, rest) = text.split_at(end);
    let precision = known.len().min(8);
    if !matches!(known.len(), 4 | 6 | 8 | 10 | 12 | 14) {
        return None;
    }
    let filled = format!("{}{}", &known[..precision], &"00000101"[precision..]);
    let day = shift_dates(&filled, by)?;
    Some(format!("{}{}{rest}", &day[..precision], &known[precision..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_counted_as_the_calendar_does() {
        assert_eq!(days_of(1970, 1, 1), Some(0));
        assert_eq!(days_of(2000, 3, 1), Some(11_017));
        assert_eq!(days_of(2023, 2, 29), None);
        for days in (-800_000..800_000).step_by(97) {
            let (year, month, day) = day_of(days);
            let back = days_of(
                i32::try_from(year).unwrap(),
                u32::try_from(month).unwrap(),
                u32::try_from(day).unwrap(),
            );
            assert_eq!(back, Some(days));
        }
    }

    #[test]
    fn dates_move_by_whole_days_and_times_stay() {
        assert_eq!(shift_dates("20240301", -1).as_deref(), Some("20240229"));
        assert_eq!(shift_dates("2024.03.01", 1).as_deref(), Some("20240302"));
        assert_eq!(
            shift_dates("20240301\\\\20231231 ", 1).as_deref(),
            Some("20240302\\\\20240101")
        );
        assert_eq!(shift_dates("yesterday", 1), None);
        assert_eq!(shift_dates("20240231", 1), None);
        assert_eq!(
            shift_date_times("20240301235959.123456+0100", -1).as_deref(),
            Some("20240229235959.123456+0100")
        );
        assert_eq!(shift_date_times("202403", -31).as_deref(), Some("202401"));
        assert_eq!(shift_date_times("2024", -1).as_deref(), Some("2023"));
        assert_eq!(shift_date_times("2024-0500", 0).as_deref(), Some("2024-0500"));
        assert_eq!(shift_date_times("Feldmann", 1), None);
    }

    #[test]
    fn a_date_that_leaves_the_calendar_is_none() {
        assert_eq!(shift_dates("00000101", -1), None);
    }
}
