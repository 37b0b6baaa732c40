//! What the catalogue is told of an image, in two halves (`docs/src/catalogue-images.md`). The anonymous half is taken
//! from what de-identification leaves, and from nothing else but three values that it makes coarse: sex, age in steps
//! of five years, and the year of the study.

use dicom_deid::{Header, Side, Tag};
use mdm_catalog::wire::{Attributes, Value};

const TRANSFER_SYNTAX: Tag = Tag(0x0002, 0x0010);
const STUDY_DATE: Tag = Tag(0x0008, 0x0020);
/// What became of dates: Longitudinal Temporal Information Modified.
const DATES_ARE: Tag = Tag(0x0028, 0x0303);
const BIRTH_DATE: Tag = Tag(0x0010, 0x0030);
const SEX: Tag = Tag(0x0010, 0x0040);
const AGE: Tag = Tag(0x0010, 0x1010);
const SLICE_THICKNESS: Tag = Tag(0x0018, 0x0050);
const SHARED_GROUPS: Tag = Tag(0x5200, 0x9229);
const PIXEL_MEASURES: Tag = Tag(0x0028, 0x9110);
const CODE_VALUES: [Tag; 3] = [Tag(0x0008, 0x0100), Tag(0x0008, 0x0119), Tag(0x0008, 0x0120)];
const CODE_SCHEME: Tag = Tag(0x0008, 0x0102);
/// The scheme of a code that de-identification took away.
const REMOVED: &str = "99REMOVED";
/// From this age on people are few enough to be known by it.
const OLDEST: i64 = 90;
/// The longest text of the anonymous half: what is longer is no name of a device or of a part of the body.
const LONGEST: usize = 256;

const CODES: [(&str, Tag); 2] = [("modality", Tag(0x0008, 0x0060)), ("body_part", Tag(0x0018, 0x0015))];
const TEXTS: [(&str, Tag); 2] = [("manufacturer", Tag(0x0008, 0x0070)), ("model", Tag(0x0008, 0x1090))];
const UIDS: [(&str, Tag); 4] = [
    ("study_uid", Tag(0x0020, 0x000d)),
    ("series_uid", Tag(0x0020, 0x000e)),
    ("instance_uid", Tag(0x0008, 0x0018)),
    ("sop_class", Tag(0x0008, 0x0016)),
];
const INTEGERS: [(&str, Tag); 3] = [
    ("rows", Tag(0x0028, 0x0010)),
    ("columns", Tag(0x0028, 0x0011)),
    ("frames", Tag(0x0028, 0x0008)),
];
const MEANINGS: [(&str, Tag); 2] = [
    ("anatomic_region", Tag(0x0008, 0x2218)),
    ("procedure_code", Tag(0x0008, 0x1032)),
];
const IDENTIFYING: [(&str, Tag); 8] = [
    ("patient_name", Tag(0x0010, 0x0010)),
    ("patient_id", Tag(0x0010, 0x0020)),
    ("accession_number", Tag(0x0008, 0x0050)),
    ("original_study_uid", Tag(0x0020, 0x000d)),
    ("original_series_uid", Tag(0x0020, 0x000e)),
    ("original_instance_uid", Tag(0x0008, 0x0018)),
    ("institution", Tag(0x0008, 0x0080)),
    ("referring_physician", Tag(0x0008, 0x0090)),
];
const DATES: [(&str, Tag); 2] = [("birth_date", BIRTH_DATE), ("study_date", STUDY_DATE)];

/// What is known of an image, in two halves.
#[derive(Clone, PartialEq)]
pub struct Halves {
    /// For whoever may search.
    pub anonymous: Attributes,
    /// For whoever may know the patient.
    pub identifying: Attributes,
}

impl Halves {
    /// Both in one, as the catalogue takes them: its schema knows which is which.
    pub fn into_attributes(self) -> Attributes {
        let mut all = self.identifying;
        all.extend(self.anonymous);
        all
    }
}

/// The tags that a PACS is asked for, where it is asked for single attributes.
pub fn tags() -> impl Iterator<Item = Tag> {
    let lists: [&'static [(&'static str, Tag)]; 6] = [&CODES, &TEXTS, &UIDS, &INTEGERS, &IDENTIFYING, &DATES];
    // what de-identification wants to see to know whether a person has to look at the image
    let others = [
        SEX,
        AGE,
        SLICE_THICKNESS,
        Tag(0x0008, 0x0005),
        Tag(0x0008, 0x0008),
        Tag(0x0008, 0x0064),
        Tag(0x0018, 0x0087),
        Tag(0x0028, 0x0301),
        Tag(0x0048, 0x0010),
        Tag(0x0010, 0x1000),
        Tag(0x0010, 0x1001),
        Tag(0x0010, 0x1040),
        Tag(0x0010, 0x2154),
    ];
    lists.into_iter().flatten().map(|(_, tag)| *tag).chain(others)
}

/// Both halves of what a header says. `transfer_syntax` is how the image is encoded, where that is known.
pub fn halves(header: &mut Header, transfer_syntax: Option<&str>) -> Halves {
    let mut anonymous = anonymous(header);
    let stored = header.before().text(TRANSFER_SYNTAX);
    if let Some(uid) = transfer_syntax.map(str::to_owned).or(stored).filter(|uid| is_uid(uid)) {
        anonymous.insert("transfer_syntax".to_owned(), Value::Text(uid));
    }
    Halves {
        anonymous,
        identifying: identifying(header.before()),
    }
}

fn anonymous(header: &mut Header) -> Attributes {
    let mut half = Attributes::new();
    let mut put = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            half.insert(name.to_owned(), value);
        }
    };
    for (name, tag) in CODES {
        let text = kept(header, tag);
        put(
            name,
            text.filter(|text| !header.code_names_patient(text)).map(Value::Text),
        );
    }
    for (name, tag) in TEXTS {
        let text = kept(header, tag);
        put(name, text.filter(|text| !header.names_patient(text)).map(Value::Text));
    }
    let (before, after) = (header.before(), header.after());
    for (name, tag) in UIDS {
        put(name, after.text(tag).filter(|uid| is_uid(uid)).map(Value::Text));
    }
    for (name, tag) in INTEGERS {
        let number = after.integer(tag).filter(|_| header.is_kept(tag));
        put(name, number.map(Value::Integer));
    }
    put("slice_thickness", slice_thickness(header).map(Value::Float));
    let field = Tag(0x0018, 0x0087);
    let field = after.float(field).filter(|_| header.is_kept(field));
    put("field_strength", field.map(Value::Float));
    let sex = before.text(SEX).filter(|sex| matches!(sex.as_str(), "M" | "F" | "O"));
    put("patient_sex", sex.map(Value::Text));
    put("age_group", age(before).map(|age| Value::Text(age_group(age))));
    put("study_year", study_year(header).map(Value::Integer));
    for (name, tag) in MEANINGS {
        put(name, code(header, tag).map(Value::Text));
    }
    half
}

/// Where dates are moved, that of the moved one, which the image shows: beside it the true year would tell how far.
fn study_year(header: &Header) -> Option<i64> {
    let year = |side: &Side| Some(date(&side.text(STUDY_DATE)?)?.0);
    let (before, after) = (header.before(), header.after());
    let known = year(before)?;
    match after.text(DATES_ARE).as_deref() {
        Some("MODIFIED") => year(after),
        _ => Some(known),
    }
}

/// A text that goes out as it came, and is no long one.
fn kept(header: &Header, tag: Tag) -> Option<String> {
    let text = header.after().text(tag).filter(|_| header.is_kept(tag))?;
    let is_plain = text.len() <= LONGEST && !text.chars().any(char::is_control);
    is_plain.then_some(text)
}

fn slice_thickness(header: &Header) -> Option<f64> {
    let after = header.after();
    if header.is_kept(SLICE_THICKNESS) {
        return after.float(SLICE_THICKNESS);
    }
    // of several frames in one object it stands where all of them share it (PS3.3, C.7.6.16)
    let groups = after.items(SHARED_GROUPS);
    let measures = groups.first()?.items(PIXEL_MEASURES);
    measures.first()?.float(SLICE_THICKNESS)
}

/// The first code of a sequence, where de-identification left it as it was.
fn code(header: &mut Header, tag: Tag) -> Option<String> {
    let told = |side: &Side| -> Option<(String, String)> {
        let items = side.items(tag);
        let first = items.first()?;
        let value = CODE_VALUES.iter().find_map(|tag| first.text(*tag))?;
        Some((value, first.text(CODE_SCHEME)?))
    };
    let (value, scheme) = told(header.after())?;
    let is_plain = |text: &str| text.len() <= 64 && !text.contains('^') && !text.chars().any(char::is_control);
    let is_kept = scheme != REMOVED && told(header.before()).is_some_and(|before| before.0 == value);
    if !is_kept || !is_plain(&value) || !is_plain(&scheme) || header.names_patient(&value) {
        return None;
    }
    // codes of the house itself say which house it is
    (!scheme.starts_with("99") && scheme != "L").then(|| format!("{value}^{scheme}"))
}

fn identifying(before: &Side) -> Attributes {
    let texts = IDENTIFYING.iter().filter_map(|(name, tag)| {
        let text: String = before.text(*tag)?.chars().filter(|one| !one.is_control()).collect();
        (!text.is_empty()).then_some(((*name).to_owned(), Value::Text(text)))
    });
    let dates = DATES.iter().filter_map(|(name, tag)| {
        let (year, month, day) = date(&before.text(*tag)?)?;
        Some((
            (*name).to_owned(),
            Value::Text(format!("{year:04}-{month:02}-{day:02}")),
        ))
    });
    texts.chain(dates).collect()
}

fn is_uid(text: &str) -> bool {
    (1..=64).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.')
}

/// Year, month and day of a date that is one, as of now or as of long ago (`1961.02.28`).
fn date(text: &str) -> Option<(i64, i64, i64)> {
    let digits: String = text.chars().filter(|one| *one != '.').collect();
    if digits.len() != 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let (year, month, day): (i64, i64, i64) = (
        digits[..4].parse().ok()?,
        digits[4..6].parse().ok()?,
        digits[6..].parse().ok()?,
    );
    let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days = match month {
        2 if is_leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return None,
    };
    ((1800..=2200).contains(&year) && (1..=days).contains(&day)).then_some((year, month, day))
}

/// In years: as it is told, or from the two dates.
fn age(before: &Side) -> Option<i64> {
    if let Some(text) = before.text(AGE)
        && let Some((number, unit)) = text.split_at_checked(text.len().saturating_sub(1))
        && let Ok(number) = number.parse::<u16>()
    {
        let per_year = match unit {
            "Y" => Some(1),
            "M" => Some(12),
            "W" => Some(52),
            "D" => Some(365),
            _ => None,
        };
        if let Some(per_year) = per_year {
            return Some(i64::from(number) / per_year);
        }
    }
    let (born, studied) = (date(&before.text(BIRTH_DATE)?)?, date(&before.text(STUDY_DATE)?)?);
    let had_birthday = (studied.1, studied.2) >= (born.1, born.2);
    let age = studied.0 - born.0 - i64::from(!had_birthday);
    (0..=130).contains(&age).then_some(age)
}

fn age_group(age: i64) -> String {
    if age >= OLDEST {
        return format!("{OLDEST}+");
    }
    let first = age / 5 * 5;
    format!("{first:02}-{:02}", first + 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_told_in_steps_and_the_oldest_together() {
        let groups = [0, 4, 5, 42, 89, 90, 104].map(age_group);
        assert_eq!(groups, ["00-04", "00-04", "05-09", "40-44", "85-89", "90+", "90+"]);
    }

    #[test]
    fn dates_are_dates() {
        assert_eq!(date("19610228"), Some((1961, 2, 28)));
        assert_eq!(date("1961.02.28"), Some((1961, 2, 28)));
        assert_eq!(date("20000229"), Some((2000, 2, 29)));
        for none in [
            "",
            "19000229",
            "19611301",
            "19610001",
            "1961",
            "Feldmann",
            "1961０２28",
            "17991231",
        ] {
            assert_eq!(date(none), None, "{none}");
        }
    }

    #[test]
    fn every_attribute_is_of_the_half_that_the_schema_says() {
        use mdm_catalog::image::half;
        use mdm_catalog::wire::Part;
        let anonymous = CODES
            .iter()
            .chain(&TEXTS)
            .chain(&UIDS)
            .chain(&INTEGERS)
            .chain(&MEANINGS);
        assert!(anonymous.clone().all(|(name, _)| half(name) == Some(Part::Anonymous)));
        let identifying = IDENTIFYING.iter().chain(&DATES);
        assert!(
            identifying
                .clone()
                .all(|(name, _)| half(name) == Some(Part::Identifying))
        );
        let others = [
            "slice_thickness",
            "field_strength",
            "patient_sex",
            "age_group",
            "study_year",
            "transfer_syntax",
        ];
        assert!(others.iter().all(|name| half(name) == Some(Part::Anonymous)));
        let told = anonymous.count() + identifying.count() + others.len();
        assert_eq!(told, mdm_catalog::image::schema().len());
    }
}
