//! Places where something of a patient could hide, each once: what carries it is refused or loses it
//! (`docs/src/de-identification.md`).
#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

mod support;

use dicom_deid::{Options, Profile, ProfileOption, Report, Secret};
use support::*;

fn profile(options: &[ProfileOption], flag_instead: bool) -> Profile {
    let mut options = Options::new(options.iter().copied()).unwrap();
    options.flag_instead = flag_instead;
    Profile::new(options, &Secret::new(&[7; 32]).unwrap())
}

/// What goes out, or the name of the refusal.
fn bytes(options: &[ProfileOption], whole: &[u8]) -> Result<(Vec<u8>, Report), &'static str> {
    profile(options, false)
        .deidentify_file_bytes(whole)
        .map_err(|refusal| refusal.name())
}

fn of(options: &[ProfileOption], more: impl IntoIterator<Item = El>) -> Result<Vec<u8>, &'static str> {
    let elements = more.into_iter().fold(ct(), with);
    bytes(options, &file(EXPLICIT, elements)).map(|(out, _)| out)
}

/// An element of implicit VR little endian.
fn implicit(group: u16, element: u16, value: &[u8]) -> Vec<u8> {
    let head = [group.to_le_bytes(), element.to_le_bytes()].concat();
    let length = u32::try_from(value.len()).unwrap().to_le_bytes();
    [&head, &length[..], value].concat()
}

#[test]
fn private_sequences_nest_no_deeper_than_others() {
    let creator = implicit(0x2001, 0x10, b"Philips Imaging DD 001");
    let mut inner = Vec::new();
    for _ in 0..2_000 {
        let item = implicit(0xfffe, 0xe000, &[creator.clone(), inner].concat());
        inner = implicit(0x2001, 0x105f, &item);
    }
    let mut elements = ct();
    elements.retain(|element| element.0 < 0x2001);
    let data = encode(&elements, Coding::of(IMPLICIT));
    let whole = [start(IMPLICIT, &elements), data, creator, inner].concat();
    // on the stack of a thread, where too much recursion is the end of the process
    let run = move || bytes(&[ProfileOption::RetainSafePrivate], &whole).map(|_| ());
    let thread = std::thread::Builder::new().stack_size(512 << 10).spawn(run).unwrap();
    let ended = thread.join().unwrap();
    assert!(matches!(ended, Err("missing" | "too-large")), "{ended:?}");
}

#[test]
fn names_are_found_in_binary_values_as_they_are_spelled_there() {
    let name = |name: &'static str| el(0x10, 0x10, "PN", name);
    let profile = |text: &'static str| el(0x28, 0x2000, "OB", text);
    for (patient, text) in [
        ("Mueller^Michael", "made by MICHAEL once"),
        ("Mueller^Michael", "made for Mueller"),
        ("Bauer^Samuel", "of samuel"),
        ("M\u{fc}ller^J", "of M\u{fc}ller"),
    ] {
        assert_eq!(
            of(&[], [name(patient), profile(text)]),
            Err("patient-in-binary"),
            "{text}"
        );
    }
    assert!(of(&[], [name("Mueller^Michael"), profile("made by nobody")]).is_ok());
}

#[test]
fn every_binary_value_is_searched() {
    for (vr, text) in [("OB", "Feldmann^Rosalind "), ("OW", "Feldmann"), ("UN", "Feldmann")] {
        let lost = of(&[], [el(0x28, 0x1101, vr, text)]).map(|out| has(&out, "Feldmann"));
        assert!(matches!(lost, Ok(false) | Err("patient-in-binary")), "{vr}: {lost:?}");
    }
    let waveform = sq(0x5400, 0x100, vec![vec![el(0x5400, 0x1010, "OB", "Feldmann")]]);
    let lost = of(&[], [waveform]).map(|out| has(&out, "Feldmann"));
    assert!(matches!(lost, Ok(false) | Err("patient-in-binary")), "{lost:?}");
}

#[test]
fn what_only_stands_where_pixels_stand_is_none() {
    let out = of(&[], [el(0x7fe0, 0xb, "LO", "Feldmann^Rosalind")]).unwrap();
    assert!(!has(&out, "Feldmann"));
    assert!(read(&out, EXPLICIT).iter().any(|element| element.path == "7FE0,0010"));
}

#[test]
fn pixels_have_the_form_of_their_transfer_syntax() {
    const JPEG: &str = "1.2.840.10008.1.2.4.70";
    let jpeg = b"\xff\xd8\xff\xfe\x00\x0aFeldmann\xff\xc3\x00\x04ab\xff\xda\x00\x03x\x01\x02\xff\xd9";
    let item = |bytes: &[u8]| implicit(0xfffe, 0xe000, bytes);
    let end: &[u8] = b"\xfe\xff\xdd\xe0\0\0\0\0";
    let whole = |syntax: &str, pixels: &[&[u8]]| {
        let mut elements = ct();
        elements.retain(|element| element.0 != 0x7fe0);
        let mut whole = file(syntax, elements);
        whole.extend(b"\xe0\x7f\x10\x00OB\0\0");
        pixels.iter().for_each(|bytes| whole.extend(*bytes));
        bytes(&[], &whole).map(|(out, _)| out)
    };
    let undefined: &[u8] = b"\xff\xff\xff\xff";
    let defined = u32::try_from(jpeg.len()).unwrap().to_le_bytes();
    assert_eq!(whole(JPEG, &[&defined, jpeg]), Err("pixel-stream"));
    let words = item(b"Feldmann");
    assert_eq!(
        whole(EXPLICIT, &[undefined, &item(&[]), &words, end]),
        Err("pixel-stream")
    );
    // the table of offsets: absent, of one frame, of three; anything else is none
    let table = |offsets: &[u32]| item(&offsets.iter().flat_map(|one| one.to_le_bytes()).collect::<Vec<u8>>());
    for good in [table(&[]), table(&[0]), table(&[0, 26, 52])] {
        let out = whole(JPEG, &[undefined, &good, &item(jpeg), end]).unwrap();
        assert!(!has(&out, "Feldmann"));
    }
    for bad in [words, item(b"\0\0\0\0Feld"), table(&[0, 7, 7]), item(b"\0\0")] {
        let refused = whole(JPEG, &[undefined, &bad, &item(jpeg), end]);
        // four bytes of letters could be an offset
        if refused.is_ok() {
            assert_eq!(bad, item(b"\0\0\0\0Feld"));
            continue;
        }
        assert_eq!(refused, Err("pixel-stream"));
    }
}

#[test]
fn an_element_stands_once() {
    let mut twice = ct();
    twice.push(el(0x28, 0x301, "CS", "NO"));
    twice.push(el(0x28, 0x301, "CS", "YES"));
    assert_eq!(bytes(&[], &file(EXPLICIT, twice)).map(|_| ()), Err("malformed"));
    let item = vec![el(8, 0x1150, "UI", CT), el(8, 0x1150, "UI", CT)];
    assert_eq!(of(&[], [sq(8, 0x1140, vec![item])]).map(|_| ()), Err("malformed"));
}

#[test]
fn an_object_that_would_be_searched_for_hours_is_refused() {
    let person = |number: usize| {
        let name = format!("Name{number:06}x");
        let said = format!("word {number}");
        vec![el(0x40, 0xa123, "PN", name), el(8, 0x104, "LO", said.repeat(40))]
    };
    let people: Vec<Vec<El>> = (0..400).map(person).collect();
    let whole = file(EXPLICIT, with(ct(), sq(8, 0x2218, people)));
    let within = |search| {
        let mut options = Options::new([ProfileOption::CleanDescriptors]).unwrap();
        options.limits.search = search;
        let profile = Profile::new(options, &Secret::new(&[7; 32]).unwrap());
        profile
            .deidentify_file_bytes(&whole)
            .map(|_| ())
            .map_err(|refusal| refusal.name())
    };
    assert_eq!(within(10_000_000), Err("too-large"));
    assert_eq!(within(10_000_000_000), Ok(()));
}

#[test]
fn no_cleaning_is_claimed_that_nobody_did() {
    use ProfileOption::{CleanPixelData, CleanRecognizableVisualFeatures};
    let codes = |options: &[ProfileOption], element: El| {
        let whole = file(EXPLICIT, with(ct(), element));
        let (out, _) = profile(options, true).deidentify_file_bytes(&whole).unwrap();
        ["113101", "113102"].map(|code| has(&out, code))
    };
    let both = [CleanPixelData, CleanRecognizableVisualFeatures];
    assert_eq!(codes(&both, el(0x18, 0x15, "CS", "HEAD")), [false, false]);
    // a chest shows no face
    assert_eq!(codes(&both, el(0x28, 0x301, "CS", "YES")), [false, true]);
    assert_eq!(codes(&[CleanPixelData], el(0x28, 0x301, "CS", "YES")), [false, false]);
    assert_eq!(codes(&[CleanPixelData], el(0x28, 0x301, "CS", "NO")), [true, false]);
}

#[test]
fn names_are_found_whatever_the_character_set_is_said_to_be() {
    let named = |charset: Option<&'static str>, name: &'static str, text: &'static str| {
        let mut elements = ct();
        elements.retain(|element| (element.0, element.1) != (8, 5));
        elements.extend(charset.map(|charset| el(8, 5, "CS", charset)));
        let elements = [el(0x10, 0x10, "PN", name), el(0x28, 0x1055, "LO", text)];
        let elements = elements.into_iter().fold(ct_without_charset(charset), with);
        let (out, _) = bytes(&[], &file(EXPLICIT, elements)).unwrap();
        has(&out, text)
    };
    assert!(!named(None, "M\u{fc}ller^J\u{f6}rg", "for MUELLER"));
    assert!(!named(Some("ISO_IR 100"), "M\u{fc}ller^J\u{f6}rg", "for MUELLER"));
    assert!(!named(Some("ISO_IR 192"), "Nguy\u{1ec5}n^V\u{103}n", "for NGUYEN"));
    assert!(named(None, "M\u{fc}ller^J\u{f6}rg", "for anybody"));
    // in what is cleaned, too
    let clean = [
        el(0x10, 0x10, "PN", "M\u{fc}ller^X"),
        el(8, 0x103e, "LO", "M\u{fc}ller Thorax"),
    ];
    let out = of(&[ProfileOption::CleanDescriptors], clean).unwrap();
    assert!(!has(&out, "ller Thorax"));
}

fn ct_without_charset(charset: Option<&'static str>) -> Vec<El> {
    let mut elements = ct();
    elements.retain(|element| (element.0, element.1) != (8, 5));
    elements.extend(charset.map(|charset| el(8, 5, "CS", charset)));
    elements
}

fn report_with(items: Vec<Vec<El>>) -> Vec<u8> {
    let mut report = ct();
    report.retain(|element| !matches!(element.0, 0x28 | 0x7fe0));
    let report = with(report, el(8, 0x16, "UI", "1.2.840.10008.5.1.4.1.1.88.33"));
    file(EXPLICIT, with(report, sq(0x40, 0xa730, items)))
}

fn content(kind: &str, code: &str, value: El) -> Vec<El> {
    let concept = [("SH", 0x100, code), ("SH", 0x102, "DCM"), ("LO", 0x104, "Something")];
    let concept = concept.map(|(vr, element, value)| el(8, element, vr, value)).to_vec();
    vec![
        el(0x40, 0xa010, "CS", "CONTAINS"),
        el(0x40, 0xa040, "CS", kind),
        sq(0x40, 0xa043, vec![concept]),
        value,
    ]
}

#[test]
fn content_items_of_times_dates_and_uids_are_nothing_else() {
    use ProfileOption::{CleanStructuredContent, RetainFullDates, RetainModifiedDates, RetainUids};
    let items = || {
        vec![
            content("TIME", "999999", el(0x40, 0xa122, "TM", "Feldmann^Rosalind")),
            content("DATE", "999998", el(0x40, 0xa121, "DA", "Feldmann^Rosalind")),
            content("DATETIME", "999997", el(0x40, 0xa120, "DT", "Feldmann^Rosalind")),
            content("UIDREF", "999996", el(0x40, 0xa124, "UI", "Feldmann^Rosalind")),
        ]
    };
    for option in [RetainFullDates, RetainModifiedDates, RetainUids] {
        let (out, _) = bytes(&[CleanStructuredContent, option], &report_with(items())).unwrap();
        assert!(!has(&out, "Feldmann"), "{}", option.name());
    }
    let time = vec![content("TIME", "999999", el(0x40, 0xa122, "TM", "101742"))];
    let (out, _) = bytes(&[CleanStructuredContent, RetainModifiedDates], &report_with(time)).unwrap();
    assert!(has(&out, "101742"));
}

#[test]
fn codes_and_measurements_of_the_subject_go_where_items_cannot() {
    let sex = vec![
        el(8, 0x100, "SH", "M"),
        el(8, 0x102, "SH", "DCM"),
        el(8, 0x104, "LO", "Male"),
    ];
    let age = sq(0x40, 0xa300, vec![vec![el(0x40, 0xa30a, "DS", "094")]]);
    let reference = vec![
        el(0x40, 0xa010, "CS", "INFERRED FROM"),
        el(0x40, 0xdb73, "UL", [1, 0, 0, 0]),
    ];
    let items = vec![
        content("CODE", "121032", sq(0x40, 0xa168, vec![sex])),
        content("NUM", "121033", age),
        reference,
    ];
    let (out, _) = bytes(&[ProfileOption::CleanStructuredContent], &report_with(items)).unwrap();
    assert!(!has(&out, "Male") && !has(&out, "094"));
}

#[test]
fn burned_in_text_is_suspected_in_any_spelling() {
    for said in ["Yes", "Y", "PERHAPS"] {
        assert_eq!(
            of(&[], [el(0x28, 0x301, "CS", said)]).map(|_| ()),
            Err("burned-in"),
            "{said}"
        );
    }
    assert!(of(&[], [el(0x28, 0x301, "CS", "no")]).is_ok());
    for class in ["1.2.840.10008.5.1.4.1.1.6.1", "1.2.840.10008.5.1.4.1.1.77.1.4"] {
        let mut elements = with(ct(), el(8, 0x16, "UI", class));
        elements.retain(|element| (element.0, element.1) != (8, 0x60));
        assert_eq!(
            bytes(&[], &file(EXPLICIT, elements)).map(|_| ()),
            Err("maybe-burned-in"),
            "{class}"
        );
    }
    assert_eq!(of(&[], [el(8, 0x60, "CS", "us")]).map(|_| ()), Err("maybe-burned-in"));
}

#[test]
fn a_uid_is_digits_and_points() {
    let reference = |uid: &'static str| sq(8, 0x1140, vec![vec![el(8, 0x1150, "UI", CT), el(8, 0x1155, "UI", uid)]]);
    let out = of(&[], [reference("1.2.840.10008.Feldmann")]).unwrap();
    assert!(!has(&out, "Feldmann"));
    let class = of(&[], [el(8, 0x16, "UI", "1.2.840.10008.Feldmann")]);
    assert!(class.is_err() || class.is_ok_and(|out| !has(&out, "Feldmann")));
    // more of them than two bytes of length can say
    let many = "1.2\\".repeat(16_000);
    let out = of(&[], [el(8, 0x3010, "UI", &many[..many.len() - 1])]).unwrap();
    assert!(read(&out, EXPLICIT).iter().any(|element| element.path == "7FE0,0010"));
}
