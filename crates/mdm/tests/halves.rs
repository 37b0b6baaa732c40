//! The halves of planted headers: nothing that names the patient is in the anonymous one, wherever it stands.
#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use dicom_deid::{Options, Profile, ProfileOption, Secret};
use dicom_net::dataset::{Attributes, Tag};
use mdm::halves::{Halves, halves};
use mdm_catalog::wire::Value;

const IMPLICIT: &str = "1.2.840.10008.1.2";

fn profile() -> Profile {
    Profile::new(Options::new([]).unwrap(), &Secret::new(&[7; 32]).unwrap())
}

fn plain() -> Attributes {
    [
        (Tag(0x0008, 0x0016), "1.2.840.10008.5.1.4.1.1.4"),
        (Tag(0x0008, 0x0018), "1.3.6.1.4.1.99999.3"),
        (Tag(0x0008, 0x0020), "20260301"),
        (Tag(0x0008, 0x0050), "A-2026-0311"),
        (Tag(0x0008, 0x0060), "MR"),
        (Tag(0x0008, 0x0070), "SIEMENS"),
        (Tag(0x0008, 0x0080), "St. Nowhere's Hospital"),
        (Tag(0x0008, 0x0090), "Ohnesorg^Theo"),
        (Tag(0x0008, 0x1030), "Thorax of Rosalind"),
        (Tag(0x0008, 0x1090), "Prisma"),
        (Tag(0x0010, 0x0010), "Feldmann^Rosalind"),
        (Tag(0x0010, 0x0020), "KH-0047-1961"),
        (Tag(0x0010, 0x0030), "19610528"),
        (Tag(0x0010, 0x0040), "F"),
        (Tag(0x0018, 0x0015), "CHEST"),
        (Tag(0x0018, 0x0050), "1.50"),
        (Tag(0x0018, 0x0087), "3"),
        (Tag(0x0020, 0x000d), "1.3.6.1.4.1.99999.1"),
        (Tag(0x0020, 0x000e), "1.3.6.1.4.1.99999.2"),
        (Tag(0x0028, 0x0008), "24"),
    ]
    .iter()
    .fold(Attributes::new(), |all, (tag, text)| all.with(*tag, text))
}

fn split(header: &Attributes) -> Halves {
    let bytes = header.encode();
    let mut header = profile().header_of_data_set(IMPLICIT, bytes.as_slice()).unwrap();
    halves(&mut header, None)
}

fn text(half: &mdm_catalog::wire::Attributes, name: &str) -> Option<String> {
    match half.get(name) {
        Some(Value::Text(text)) => Some(text.clone()),
        Some(other) => Some(serde_json::to_string(other).unwrap()),
        None => None,
    }
}

#[test]
fn each_attribute_goes_to_its_half() {
    let halves = split(&plain());
    let anonymous = |name| text(&halves.anonymous, name).unwrap_or_default();
    let identifying = |name| text(&halves.identifying, name).unwrap_or_default();
    for (name, value) in [
        ("modality", "MR"),
        ("manufacturer", "SIEMENS"),
        ("model", "Prisma"),
        ("body_part", "CHEST"),
        ("slice_thickness", "1.5"),
        ("field_strength", "3.0"),
        ("frames", "24"),
        ("patient_sex", "F"),
        // the birthday of that year had not come
        ("age_group", "60-64"),
        ("study_year", "2026"),
        ("sop_class", "1.2.840.10008.5.1.4.1.1.4"),
    ] {
        assert_eq!(anonymous(name), value, "{name}");
    }
    assert_eq!(anonymous("study_uid"), profile().uid("1.3.6.1.4.1.99999.1"));
    assert_eq!(anonymous("series_uid"), profile().uid("1.3.6.1.4.1.99999.2"));
    assert_eq!(anonymous("instance_uid"), profile().uid("1.3.6.1.4.1.99999.3"));
    for (name, value) in [
        ("patient_name", "Feldmann^Rosalind"),
        ("patient_id", "KH-0047-1961"),
        ("birth_date", "1961-05-28"),
        ("study_date", "2026-03-01"),
        ("accession_number", "A-2026-0311"),
        ("original_instance_uid", "1.3.6.1.4.1.99999.3"),
        ("institution", "St. Nowhere's Hospital"),
        ("referring_physician", "Ohnesorg^Theo"),
    ] {
        assert_eq!(identifying(name), value, "{name}");
    }
    let both = halves.clone().into_attributes();
    assert_eq!(both.len(), halves.anonymous.len() + halves.identifying.len());
}

#[test]
fn what_names_the_patient_is_in_the_anonymous_half_nowhere() {
    let planted = [
        (Tag(0x0008, 0x0060), "FELDMANN"),
        (Tag(0x0008, 0x0070), "For Mrs Feldmann"),
        (Tag(0x0008, 0x1090), "KH-0047-1961"),
        (Tag(0x0018, 0x0015), "ROSALIND"),
        (Tag(0x0018, 0x0050), "19610528"),
        (Tag(0x0018, 0x0087), "Feldmann"),
        (Tag(0x0010, 0x0040), "Feldmann"),
        (Tag(0x0010, 0x1010), "Feldmann"),
        (Tag(0x0008, 0x0016), "Feldmann"),
    ];
    let telling = [
        "feldmann", "rosalind", "kh-0047", "0528", "ohnesorg", "nowhere", "99999", "0311",
    ];
    for (tag, value) in planted {
        let header = plain().with(tag, value);
        let bytes = header.encode();
        // a whole object may be refused for it; then there is nothing to tell
        let Ok(mut header) = profile().header_of_data_set(IMPLICIT, bytes.as_slice()) else {
            continue;
        };
        let anonymous = serde_json::to_string(&halves(&mut header, None).anonymous)
            .unwrap()
            .to_lowercase();
        for text in telling {
            assert!(!anonymous.contains(text), "{text} of {tag} in {anonymous}");
        }
    }
}

#[test]
fn options_that_keep_more_put_nothing_more_into_the_anonymous_half() {
    let options = [ProfileOption::RetainUids, ProfileOption::RetainFullDates];
    let profile = Profile::new(Options::new(options).unwrap(), &Secret::new(&[7; 32]).unwrap());
    let bytes = plain().encode();
    let mut header = profile.header_of_data_set(IMPLICIT, bytes.as_slice()).unwrap();
    let anonymous = serde_json::to_string(&halves(&mut header, None).anonymous).unwrap();
    assert!(
        !anonymous.contains("20260301") && !anonymous.contains("Nowhere"),
        "{anonymous}"
    );
}

#[test]
fn the_year_of_a_study_is_that_which_its_image_shows() {
    use dicom_deid::Tag as Of;
    let year = |options: &[ProfileOption], date: &str| {
        let options = Options::new(options.iter().copied()).unwrap();
        let profile = Profile::new(options, &Secret::new(&[7; 32]).unwrap());
        let bytes = plain().with(Tag(0x0008, 0x0020), date).encode();
        let mut header = profile.header_of_data_set(IMPLICIT, bytes.as_slice()).unwrap();
        let shown = header.after().text(Of(0x0008, 0x0020)).unwrap_or_default();
        let halves = halves(&mut header, None);
        assert_eq!(text(&halves.identifying, "study_date").is_some(), date.len() == 8);
        (text(&halves.anonymous, "study_year").unwrap_or_default(), shown)
    };
    for date in ["20260301", "20250301", "20240301"] {
        let (told, shown) = year(&[ProfileOption::RetainModifiedDates], date);
        assert_eq!(told, shown[..4]);
        assert!(
            told.as_str() < &date[..4],
            "moved by more than the days since the year began"
        );
    }
    assert_eq!(year(&[ProfileOption::RetainFullDates], "20260301").0, "2026");
    assert_eq!(year(&[], "20260301"), ("2026".to_owned(), String::new()));
    for options in [&[ProfileOption::RetainModifiedDates][..], &[]] {
        assert_eq!(year(options, "of old").0, "");
    }
}
