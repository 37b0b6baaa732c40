//! Values as the catalogue stores them: one text for each date and time, so that texts compare as what they mean
//! (`docs/src/formats/query.md`).

use crate::database::Datum;
use crate::wire::Type;

/// A value of the type that was written as `text`, also as DICOM writes it (`20260131`, `093000.5`); for a list: an
/// item.
pub fn convert(kind: Type, text: &str) -> Option<Datum> {
    match kind {
        Type::String | Type::Code | Type::List => Some(Datum::Text(text.to_owned())),
        Type::Integer => integer(text).map(Datum::Integer),
        Type::Float => float(text).map(Datum::Real),
        Type::Date => date(text).map(Datum::Text),
        Type::Time => time(text).map(Datum::Text),
    }
}

fn integer(text: &str) -> Option<i64> {
    text.trim().parse().ok()
}

fn float(text: &str) -> Option<f64> {
    let number: f64 = text.trim().parse().ok()?;
    // Zero has one sign, so that all databases find it.
    number.is_finite().then_some(number + 0.0)
}

/// `YYYY-MM-DD` of a date that exists, from that or `YYYYMMDD`.
pub fn date(text: &str) -> Option<String> {
    let digits = match text.len() {
        8 => text.to_owned(),
        10 if text.as_bytes()[4] == b'-' && text.as_bytes()[7] == b'-' => text.replacen('-', "", 2),
        _ => return None,
    };
    let number = |range: std::ops::Range<usize>| digits_of(digits.get(range)?);
    let (year, month, day) = (number(0..4)?, number(4..6)?, number(6..8)?);
    let date = jiff::civil::Date::new(i16::try_from(year).ok()?, small(month)?, small(day)?).ok()?;
    Some(date.to_string())
}

fn small(number: u32) -> Option<i8> {
    i8::try_from(number).ok()
}

/// `HH:MM:SS`, with as many of six decimals as are not zeros at the end, from that or `HHMMSS`, seconds and decimals
/// left out or not. A leap second is one.
pub fn time(text: &str) -> Option<String> {
    let (whole, decimals) = match text.split_once('.') {
        Some((whole, decimals)) if (1..=6).contains(&decimals.len()) => (whole, decimals),
        Some(_) => return None,
        None => (text, ""),
    };
    let bytes = whole.as_bytes();
    let digits = match (whole.len(), bytes.get(2), bytes.get(5)) {
        (8, Some(b':'), Some(b':')) | (5, Some(b':'), _) => whole.replace(':', ""),
        _ => whole.to_owned(),
    };
    let seconds = match digits.len() {
        4 if decimals.is_empty() => 0,
        6 => digits_of(digits.get(4..6)?)?,
        _ => return None,
    };
    let (hours, minutes) = (digits_of(digits.get(0..2)?)?, digits_of(digits.get(2..4)?)?);
    let has_digits = decimals.bytes().all(|byte| byte.is_ascii_digit());
    if hours > 23 || minutes > 59 || seconds > 60 || !has_digits {
        return None;
    }
    let decimals = decimals.trim_end_matches('0');
    let point = if decimals.is_empty() { "" } else { "." };
    Some(format!("{hours:02}:{minutes:02}:{seconds:02}{point}{decimals}"))
}

fn digits_of(text: &str) -> Option<u32> {
    text.bytes()
        .all(|byte| byte.is_ascii_digit())
        .then(|| text.parse().ok())
        .flatten()
}

/// Seconds since 1970 of an RFC 3339 time; of a date, its first second in UTC.
pub fn moment(text: &str) -> Option<i64> {
    if let Some(date) = date(text) {
        return moment(&format!("{date}T00:00:00Z"));
    }
    let moment: jiff::Timestamp = text.parse().ok()?;
    Some(moment.as_second())
}

/// What a value's keyed hash is made of.
pub fn text(value: &Datum) -> String {
    match value {
        Datum::Text(text) => text.clone(),
        Datum::Integer(number) => number.to_string(),
        Datum::Real(number) => number.to_string(),
        Datum::Null | Datum::Blob(_) | Datum::Integers(_) | Datum::Texts(_) => String::new(),
    }
}
