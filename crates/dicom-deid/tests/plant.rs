//! Plants a patient's values at random places, depths and in several character sets, and looks for them afterwards.
#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

mod support;

use dicom_deid::{Options, Profile, ProfileOption, Refusal, Secret, check};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select, subsequence};
use support::*;

/// A character set, the patient's name in it as the file has it, and parts of the name as somebody else would write
/// them.
struct Person {
    set: &'static str,
    name: &'static [u8],
    parts: &'static [&'static [u8]],
}

const PEOPLE: &[Person] = &[
    Person {
        set: "ISO_IR 100",
        name: b"M\xfcllerschmidt^J\xf6rgen",
        parts: &[b"M\xfcllerschmidt", b"MUELLERSCHMIDT", b"j\xf6rgen", b"Joergen"],
    },
    Person {
        set: "ISO_IR 192",
        name: "Łukasiewicz^Bożena".as_bytes(),
        parts: &["ŁUKASIEWICZ".as_bytes(), b"Lukasiewicz", "Bożena".as_bytes(), b"BOZENA"],
    },
    Person {
        set: "ISO_IR 144",
        name: b"\xbb\xee\xda\xe1\xd5\xdc\xd1\xe3\xe0\xd3^\xbc\xd0\xe0\xd8\xdd\xd0",
        parts: &[
            b"\xbb\xee\xda\xe1\xd5\xdc\xd1\xe3\xe0\xd3",
            b"\xdb\xee\xda\xe1\xd5\xdc\xd1\xe3\xe0\xd3",
            b"\xbc\xd0\xe0\xd8\xdd\xd0",
        ],
    },
    Person {
        set: r"\ISO 2022 IR 87",
        name: b"Yamadamori^Taroujirou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B",
        parts: &[b"YAMADAMORI", b"taroujirou", b"\x1b$B;3ED\x1b(B", b"\x1b$BB@O:\x1b(B"],
    },
    Person {
        set: "GB18030",
        name: b"Zhangsun^Wuji=\xb3\xa4\xcb\xef^\xce\xde\xbc\xc9",
        parts: &[b"ZHANGSUN", b"\xb3\xa4\xcb\xef", b"\xce\xde\xbc\xc9"],
    },
];

/// Attributes that take text and are not in the table, or are kept by an option; with representation and room.
const TEXTS: &[(u16, u16, &str, usize)] = &[
    (0x0008, 0x0070, "LO", 64),
    (0x0008, 0x1030, "LO", 64),
    (0x0008, 0x103e, "LO", 64),
    (0x0008, 0x1090, "LO", 64),
    (0x0008, 0x0104, "LO", 64),
    (0x0008, 0x0100, "SH", 16),
    (0x0008, 0x0115, "ST", 64),
    (0x0010, 0x4000, "LT", 64),
    (0x0018, 0x0024, "SH", 16),
    (0x0018, 0x1020, "LO", 64),
    (0x0020, 0x4000, "LT", 64),
    (0x0028, 0x1055, "LO", 64),
    (0x0040, 0xa160, "UT", 64),
    (0x0054, 0x0400, "SH", 16),
    (0x0062, 0x0005, "LO", 64),
    (0x300a, 0x00c2, "LO", 64),
    (0x0009, 0x1001, "LO", 64),
];

/// Sequences to plant in, listed in the table or not.
const SEQUENCES: &[(u16, u16)] = &[
    (0x0008, 0x2218),
    (0x0008, 0x1115),
    (0x0018, 0xa001),
    (0x0040, 0x0275),
    (0x5200, 0x9229),
    (0x0008, 0x9215),
];

const ID: &str = "KH-0047-1961";
const BORN: &str = "19610228";

#[derive(Debug, Clone)]
struct Planted {
    place: usize,
    value: Index,
    around: (&'static str, &'static str),
    depth: Vec<usize>,
    undefined: bool,
}

fn planted() -> impl Strategy<Value = Planted> {
    let around = select(vec![("", ""), ("for ", ""), ("", " 2"), ("x_", "_y"), ("[", "]")]);
    (
        0..TEXTS.len(),
        any::<Index>(),
        around,
        vec(0..SEQUENCES.len(), 0..6),
        any::<bool>(),
    )
        .prop_map(|(place, value, around, depth, undefined)| Planted {
            place,
            value,
            around,
            depth,
            undefined,
        })
}

/// Everything of the person that could be found, as bytes in the person's character set.
fn values(person: &Person) -> Vec<Vec<u8>> {
    let mut values: Vec<Vec<u8>> = person.parts.iter().map(|part| part.to_vec()).collect();
    for other in [
        ID,
        "kh 0047/1961",
        "KH00471961",
        BORN,
        "1961-02-28",
        "28.02.1961",
        "28 Feb 1961",
        SOP,
    ] {
        values.push(other.as_bytes().to_vec());
    }
    values
}

fn object(person: &Person, all: &[Planted]) -> (Vec<El>, Vec<Vec<u8>>) {
    let mut elements = with(ct(), el(8, 5, "CS", person.set));
    elements = with(elements, el(0x10, 0x10, "PN", person.name));
    let values = values(person);
    let mut planted = Vec::new();
    for one in all {
        let (group, element, vr, room) = TEXTS[one.place];
        let value = one.value.get(&values);
        let text = [one.around.0.as_bytes(), value, one.around.1.as_bytes()].concat();
        let text = if text.len() > room { value.clone() } else { text };
        if text.len() > room {
            continue;
        }
        planted.push(value.clone());
        let mut inner = el(group, element, vr, &text);
        for sequence in &one.depth {
            let (group, element) = SEQUENCES[*sequence];
            let mut item = vec![inner];
            if item[0].0 == 0x0009 {
                item.insert(0, el(0x0009, 0x0010, "LO", "ACME"));
            }
            inner = El(group, element, "SQ", Val::Items(vec![item], one.undefined));
        }
        elements = with(elements, inner);
    }
    (elements, planted)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nothing_of_the_patient_is_left(
        person in 0..PEOPLE.len(),
        all in vec(planted(), 1..8),
        options in subsequence(ProfileOption::all().filter(|option| !matches!(option,
            ProfileOption::CleanPixelData | ProfileOption::CleanRecognizableVisualFeatures
            | ProfileOption::RetainFullDates | ProfileOption::RetainUids)).collect::<Vec<_>>(), 0..5),
        syntax in select(vec![EXPLICIT, IMPLICIT, BIG]),
    ) {
        let person = &PEOPLE[person];
        let (elements, planted) = object(person, &all);
        let input = file(syntax, elements);
        let profile = Profile::new(Options::new(options).unwrap(), &Secret::new(&[7; 32]).unwrap());
        let (out, report) = match profile.deidentify_file_bytes(&input) {
            Ok(made) => made,
            // implicit little endian has no representation for a private text: it is bytes, and they are refused or
            // gone
            Err(Refusal::PatientInBinary { .. }) => return Ok(()),
            Err(other) => return Err(TestCaseError::fail(other.to_string())),
        };
        for value in planted.iter().chain([&ID.as_bytes().to_vec(), &BORN.as_bytes().to_vec()]) {
            let found = out.windows(value.len()).any(|window| window.eq_ignore_ascii_case(value));
            prop_assert!(!found, "{}", String::from_utf8_lossy(value));
        }
        prop_assert_eq!(check(input.as_slice(), out.as_slice()).unwrap(), []);
        // it is still an object: everything reads, the pixels are as they were, and a second pass takes it
        let again = read(&out, syntax);
        let pixels = again.iter().find(|element| element.path == "7FE0,0010").unwrap();
        prop_assert_eq!(&pixels.value, &(0..32).collect::<Vec<u8>>());
        prop_assert_eq!(text(&again, "0008,0018"), Some(report.new.sop));
        profile.deidentify_file_bytes(&out).unwrap();
    }

    #[test]
    fn damage_is_refused_and_never_a_panic(at in any::<Index>(), bit in 0..8_u8, cut in any::<Index>()) {
        let mut input = file(EXPLICIT, with(ct(), open_sq(8, 0x2218, vec![ct()])));
        let at = at.index(input.len());
        input[at] ^= 1 << bit;
        let profile = Profile::new(Options::default(), &Secret::new(&[7; 32]).unwrap());
        let _ = profile.deidentify_file_bytes(&input);
        input.truncate(cut.index(input.len()));
        prop_assert!(profile.deidentify_file_bytes(&input).is_err() || input.len() > 300);
    }
}
