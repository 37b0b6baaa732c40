//! The Basic Profile on objects made here, point by point: PS3.15 E.1 to E.3, as `docs/src/de-identification.md` tells
//! it.
#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

mod support;

use dicom_deid::{Options, Profile, ProfileOption, Refusal, Report, Secret};
use support::*;

fn profile(options: &[ProfileOption]) -> Profile {
    let options = Options::new(options.iter().copied()).unwrap();
    Profile::new(options, &Secret::new(&[7; 32]).unwrap())
}

fn run(options: &[ProfileOption], elements: Vec<El>) -> (Vec<Read>, Vec<u8>, Report) {
    run_in(EXPLICIT, options, elements)
}

fn run_in(syntax: &str, options: &[ProfileOption], elements: Vec<El>) -> (Vec<Read>, Vec<u8>, Report) {
    let (out, report) = profile(options).deidentify_file_bytes(&file(syntax, elements)).unwrap();
    assert_eq!(report.bytes, out.len() as u64);
    (read(&out, syntax), out, report)
}

fn refused(options: &[ProfileOption], elements: Vec<El>) -> Refusal {
    profile(options)
        .deidentify_file_bytes(&file(EXPLICIT, elements))
        .expect_err("it should be refused")
}

#[test]
fn a_plain_slice_loses_its_patient_and_keeps_its_image() {
    for syntax in [EXPLICIT, IMPLICIT, BIG] {
        let (out, bytes, report) = run_in(syntax, &[], ct());
        for gone in [
            "Feldmann", "Rosalind", "KH-0047", "Ohnesorg", "Nowhere", "19610228", "2026030", "99999", "needles", "4711",
        ] {
            assert!(!has(&bytes, gone), "{gone} in {syntax}");
        }
        let get = |path| text(&out, path);
        // Type 2 stays empty, Type 3 goes, what the table leaves stays
        assert_eq!(get("0010,0010").as_deref(), Some(""));
        assert_eq!(get("0008,0050").as_deref(), Some(""));
        assert_eq!(get("0008,0020").as_deref(), Some(""));
        assert_eq!(get("0008,0023").as_deref(), Some(""));
        for gone in [
            "0008,0012",
            "0008,0021",
            "0008,002A",
            "0008,0080",
            "0008,1010",
            "0018,1000",
            "0018,1030",
            "0010,4000",
        ] {
            assert_eq!(get(gone), None, "{gone}");
        }
        assert_eq!(get("0018,0050").as_deref(), Some("1.50"));
        assert_eq!(get("0020,0013").as_deref(), Some("+017"));
        assert_eq!(get("0008,0070").as_deref(), Some("Nobody"));
        let pixels = out.iter().find(|element| element.path == "7FE0,0010").unwrap();
        assert_eq!(pixels.value, (0..32).collect::<Vec<u8>>());
        assert!(get("0020,000D").unwrap().starts_with("2.25."));
        assert_eq!(get("0008,0018"), Some(report.new.sop.clone()));
        assert_eq!(get("0010,0020"), report.new.patient);
        assert_eq!(report.original.patient.as_deref(), Some("KH-0047-1961"));
        assert_eq!(report.original.sop, SOP);
        assert!(
            out.windows(2).all(|two| two[0].path[..9] <= two[1].path[..9]),
            "tags ascend"
        );
    }
}

#[test]
fn sequences_are_entered_at_every_depth_and_in_every_form() {
    // 40 levels of sequences that no table lists, lengths given and not
    for undefined in [false, true] {
        let mut inner = vec![
            el(0x10, 0x20, "LO", "KH-0047-1961"),
            el(8, 0x1155, "UI", SOP),
            el(0x29, 0x10, "LO", "FELDMANN CSA"),
            el(0x29, 0x1001, "UN", "Feldmann"),
        ];
        for _ in 0..40 {
            inner = vec![El(8, 0x2218, "SQ", Val::Items(vec![inner], undefined))];
        }
        let (out, bytes, report) = run(&[], with(ct(), inner.remove(0)));
        assert!(!has(&bytes, "KH-0047") && !has(&bytes, "Feldmann"));
        let deep = "0008,2218[1]/".repeat(40);
        assert_eq!(text(&out, &format!("{deep}0008,1155")), Some(report.new.sop));
        // Type of an identifier in a sequence is not known: something stays
        assert_eq!(text(&out, &format!("{deep}0010,0020")).as_deref(), Some("Removed"));
    }
}

#[test]
fn sequences_deeper_than_the_limit_are_refused_without_overflow() {
    let mut inner = vec![el(8, 0x1155, "UI", SOP)];
    for _ in 0..5_000 {
        inner = vec![open_sq(8, 0x2218, vec![inner])];
        if inner.len() > 1 {
            break;
        }
    }
    // made by hand: encoding by recursion would itself overflow
    let mut data = Vec::new();
    for _ in 0..100_000 {
        data.extend(b"\x08\x00\x18\x22SQ\0\0\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff");
    }
    std::mem::forget(inner);
    let elements = ct();
    let whole = [start(EXPLICIT, &elements), data].concat();
    let refusal = profile(&[]).deidentify_file_bytes(&whole).unwrap_err();
    assert!(matches!(refusal, Refusal::TooLarge { .. }), "{refusal}");
}

#[test]
fn a_sequence_that_came_as_unknown_is_entered() {
    let implicit = support::Coding {
        explicit: false,
        big: false,
    };
    let item = encode(
        &[el(8, 0x1155, "UI", SOP), el(0x10, 0x10, "PN", "Feldmann^Rosalind")],
        implicit,
    );
    let length = u32::try_from(item.len()).unwrap().to_le_bytes();
    let items = [b"\xfe\xff\x00\xe0".to_vec(), length.to_vec(), item].concat();
    // (0008,1199) Referenced SOP Sequence, with its length
    let (_, bytes, report) = run(&[], with(ct(), el(8, 0x1199, "UN", &items)));
    assert!(has(&bytes, &report.new.sop) && !has(&bytes, "Feldmann") && !has(&bytes, SOP));
    // and without one
    let mut whole = file(EXPLICIT, with(ct(), el(8, 0x1199, "UN", &items)));
    let at = whole.windows(6).position(|six| six == b"\x08\x00\x99\x11UN").unwrap();
    whole[at + 8..at + 12].copy_from_slice(&[0xff; 4]);
    let end = at + 12 + items.len();
    whole.splice(end..end, *b"\xfe\xff\xdd\xe0\0\0\0\0");
    let (bytes, report) = profile(&[]).deidentify_file_bytes(&whole).unwrap();
    assert!(has(&bytes, &report.new.sop) && !has(&bytes, "Feldmann") && !has(&bytes, SOP));
}

#[test]
fn what_the_table_forgot_goes_by_its_representation() {
    let elements = [
        el(0x14, 0x2006, "PN", "Feldmann^R"),
        el(0x10, 0x33, "LO", "28 Rajab 1380"),
        el(8, 0x1167, "UI", SOP),
        el(0x44, 0x108, "UI", "1.3.6.1.4.1.99999.12"),
        el(8, 0x1190, "UR", "https://pacs.nowhere.example/42"),
        el(8, 0x404, "DT", "20260301101500"),
        el(0x28, 0x1351, "ST", "something typed"),
        el(0x0009, 0x10, "LO", "ACME"),
        el(0x0008, 0xfff0, "LO", "in no dictionary"),
    ];
    let (out, bytes, report) = run(&[], elements.into_iter().fold(ct(), with));
    for gone in [
        "Feldmann",
        "Rajab",
        "pacs.nowhere",
        "202603",
        "typed",
        "ACME",
        "dictionary",
        "99999",
    ] {
        assert!(!has(&bytes, gone), "{gone}");
    }
    assert_eq!(text(&out, "0008,1167"), Some(report.new.sop));
    assert_eq!(text(&out, "0028,1351").as_deref(), Some("Removed"));
}

#[test]
fn the_patient_is_searched_in_everything_that_is_kept() {
    let code = |meaning: &str| {
        sq(
            8,
            0x2218,
            vec![vec![
                el(8, 0x100, "SH", "T-D3000"),
                el(8, 0x102, "SH", "SRT"),
                el(8, 0x104, "LO", meaning),
            ]],
        )
    };
    let planted = [
        el(8, 0x70, "LO", "made for ROSALIND F."),
        el(8, 0x1090, "LO", "kh 0047/1961"),
        el(0x18, 0x24, "SH", "FELDMANN"),
        el(0x28, 0x1055, "LO", "born 28.02.1961"),
        el(0x18, 0x1020, "LO", "by Ohnesorg"),
        el(8, 8, "CS", r"ORIGINAL\PRIMARY\FELDMANN"),
        el(0x20, 0x13, "IS", "19610228"),
        code("Chest of Feldmann"),
    ];
    for element in planted {
        let (_, bytes, _) = run(&[], with(ct(), element.clone()));
        for gone in ["Feldmann", "Rosalind", "0047", "28.02.1961", "Ohnesorg", "19610228"] {
            assert!(!has(&bytes, gone), "{gone} of {element:?}");
        }
    }
    let (_, bytes, _) = run(&[], with(ct(), code("Chest")));
    assert!(has(&bytes, "T-D3000") && has(&bytes, "Chest"));
    let refusal = refused(&[], with(ct(), el(0x28, 0x2000, "OB", "profile of Feldmann")));
    assert!(matches!(refusal, Refusal::PatientInBinary { .. }), "{refusal}");
}

#[test]
fn the_patient_is_found_across_character_sets() {
    let names: [(&str, &[u8], &[u8]); 5] = [
        ("ISO_IR 100", b"M\xfcller^J\xf6rg", b"for M\xfcller"),
        ("ISO_IR 192", "Müller^Jörg".as_bytes(), "scan Jörg".as_bytes()),
        (
            "ISO_IR 144",
            b"\xb8\xd2\xd0\xdd\xde\xd2^\xb8\xd2\xd0\xdd",
            b"\xb4\xbb\xcf \xb8\xb2\xb0\xbd\xbe\xb2\xb0 \xd8\xd2\xd0\xdd\xde\xd2",
        ),
        (
            r"\ISO 2022 IR 87",
            b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B",
            b"\x1b$B;3ED\x1b(B 1",
        ),
        (
            "GB18030",
            b"Wang^XiaoDong=\xcd\xf5^\xd0\xa1\xb6\xab",
            b"\xd0\xa1\xb6\xab 2",
        ),
    ];
    for (set, name, text) in names {
        let elements = [el(8, 5, "CS", set), el(0x10, 0x10, "PN", name), el(8, 0x70, "LO", text)];
        let (out, ..) = run(&[], elements.into_iter().fold(ct(), with));
        assert_eq!(support::text(&out, "0008,0070").as_deref(), Some("Removed"), "{set}");
    }
    // the same name in another set than the name itself, inside an item that says so
    let item = vec![el(8, 5, "CS", "ISO_IR 192"), el(8, 0x104, "LO", "Müller".as_bytes())];
    let elements = [
        el(8, 5, "CS", "ISO_IR 100"),
        el(0x10, 0x10, "PN", b"M\xfcller^J\xf6rg"),
        sq(8, 0x2218, vec![item]),
    ];
    let (out, ..) = run(&[], elements.into_iter().fold(ct(), with));
    assert_eq!(
        support::text(&out, "0008,2218[1]/0008,0104").as_deref(),
        Some("Removed")
    );
}

#[test]
fn preamble_and_group_2_are_made_anew() {
    let (out, bytes, report) = run(&[], ct());
    assert_eq!(&bytes[..128], &[0; 128]);
    let meta: Vec<_> = out.iter().filter(|element| element.path.starts_with("0002")).collect();
    let tags: Vec<_> = meta.iter().map(|element| &element.path[5..]).collect();
    assert_eq!(tags, ["0000", "0001", "0002", "0003", "0010", "0012", "0013"]);
    assert_eq!(text(&out, "0002,0003"), Some(report.new.sop));
    assert_eq!(text(&out, "0002,0010").as_deref(), Some(EXPLICIT));
    assert!(text(&out, "0002,0013").unwrap().starts_with("HYDRA"));
}

#[test]
fn the_object_says_what_was_done_and_nothing_of_before() {
    let stale = [
        el(0x12, 0x62, "CS", "NO"),
        el(0x12, 0x63, "LO", r"by hand\twice"),
        sq(
            0x12,
            0x64,
            vec![vec![el(8, 0x100, "SH", "113108"), el(8, 0x102, "SH", "DCM")]],
        ),
        el(0x28, 0x303, "CS", "UNMODIFIED"),
    ];
    let elements = stale.into_iter().fold(ct(), with);
    let (out, ..) = run(
        &[ProfileOption::RetainModifiedDates, ProfileOption::RetainUids],
        elements,
    );
    assert_eq!(text(&out, "0012,0062").as_deref(), Some("YES"));
    assert_eq!(text(&out, "0028,0303").as_deref(), Some("MODIFIED"));
    let codes: Vec<_> = (1..=4)
        .filter_map(|number| text(&out, &format!("0012,0064[{number}]/0008,0100")))
        .collect();
    assert_eq!(codes, ["113100", "113107", "113110"]);
    assert!(text(&out, "0012,0063").unwrap().contains("2026c"));
}

#[test]
fn actions_with_a_slash_follow_the_iod() {
    let get = |class: &str, path: &str| {
        let (out, ..) = run(&[], with(ct(), el(8, 0x16, "UI", class)));
        text(&out, path)
    };
    let enhanced_mr = "1.2.840.10008.5.1.4.1.1.4.1";
    let pet = "1.2.840.10008.5.1.4.1.1.128";
    assert_eq!(get(CT, "0018,1000"), None);
    assert_eq!(get(enhanced_mr, "0018,1000").as_deref(), Some("Removed"));
    assert_eq!(get(enhanced_mr, "0008,002A").as_deref(), Some("19000101000000"));
    assert_eq!(get(pet, "0008,0021").as_deref(), Some("19000101"));
    assert_eq!(get(pet, "0008,0022").as_deref(), Some(""));
    // an IOD that nobody knows keeps everything that it might need
    assert_eq!(get("1.2.3.4", "0018,1000").as_deref(), Some("Removed"));
    // X/Z/U*: gone where it is not needed, with new UIDs where it is
    assert_eq!(get(CT, "0008,1140[1]/0008,1155"), None);
    assert!(get(enhanced_mr, "0008,1140[1]/0008,1155").unwrap().starts_with("2.25."));
}

#[test]
fn uids_hold_references_together_and_depend_on_the_secret() {
    let other = with(
        with(ct(), el(8, 0x18, "UI", "1.3.6.1.4.1.99999.1.5")),
        sq(8, 0x1199, vec![vec![el(8, 0x1150, "UI", CT), el(8, 0x1155, "UI", SOP)]]),
    );
    let (out, _, report) = run(&[], other.clone());
    let (_, _, first) = run(&[], ct());
    assert_eq!(text(&out, "0008,1199[1]/0008,1155"), Some(first.new.sop.clone()));
    assert_eq!(text(&out, "0008,1199[1]/0008,1150").as_deref(), Some(CT));
    assert_eq!(report.new.study, first.new.study);
    assert_eq!(report.new.sop, profile(&[]).uid("1.3.6.1.4.1.99999.1.5"));
    let stranger = Profile::new(Options::default(), &Secret::new(&[8; 32]).unwrap());
    let (_, strange) = stranger.deidentify_file_bytes(&file(EXPLICIT, ct())).unwrap();
    assert_ne!(strange.new.sop, first.new.sop);
    assert_ne!(strange.new.patient, first.new.patient);
    let (out, ..) = run(&[ProfileOption::RetainUids], other);
    assert_eq!(text(&out, "0020,000D").as_deref(), Some(STUDY));
}

#[test]
fn dates_move_by_the_same_days_for_a_patient() {
    let days = |text: &str| -> i64 {
        let part = |range: std::ops::Range<usize>| text[range].parse::<i64>().unwrap();
        // good enough for differences: days of a year of 372 days would not be
        let (year, month, day) = (part(0..4), part(4..6), part(6..8));
        let (y, m) = if month > 2 {
            (year, month - 3)
        } else {
            (year - 1, month + 9)
        };
        365 * y + y / 4 - y / 100 + y / 400 + (153 * m + 2) / 5 + day
    };
    let option = [ProfileOption::RetainModifiedDates];
    let (out, ..) = run(&option, ct());
    let study = text(&out, "0008,0020").unwrap();
    let shift = days("20260301") - days(&study);
    assert!((1..=3650).contains(&shift), "{shift}");
    assert_eq!(days("20260302") - days(&text(&out, "0008,0023").unwrap()), shift);
    let acquired = text(&out, "0008,002A").unwrap();
    assert_eq!(days("20260301") - days(&acquired[..8]), shift);
    assert_eq!(&acquired[8..], "101742.250000+0100");
    assert_eq!(text(&out, "0008,0030").as_deref(), Some("101500"));
    // a date of birth is none of these
    assert_eq!(text(&out, "0010,0030").as_deref(), Some(""));
    let (out, ..) = run(&option, with(ct(), el(8, 0x20, "DA", "20240301")));
    assert_eq!(days("20240301") - days(&text(&out, "0008,0020").unwrap()), shift);
    let (out, ..) = run(&option, with(ct(), el(0x10, 0x20, "LO", "another")));
    assert_ne!(days("20260301") - days(&text(&out, "0008,0020").unwrap()), shift);
    // what is no date goes as the Basic Profile has it
    let (out, ..) = run(&option, with(ct(), el(8, 0x21, "DA", "Feldmann")));
    assert_eq!(text(&out, "0008,0021"), None);
    let (out, ..) = run(&[ProfileOption::RetainFullDates], ct());
    assert_eq!(text(&out, "0008,0020").as_deref(), Some("20260301"));
    assert_eq!(text(&out, "0028,0303").as_deref(), Some("UNMODIFIED"));
}

#[test]
fn options_keep_what_they_are_for() {
    use ProfileOption::*;
    let one = |option, path: &str| text(&run(&[option], ct()).0, path);
    assert_eq!(one(RetainPatientCharacteristics, "0010,1010").as_deref(), Some("065Y"));
    assert_eq!(one(RetainPatientCharacteristics, "0010,0040").as_deref(), Some("F"));
    assert_eq!(one(RetainDeviceIdentity, "0018,1000").as_deref(), Some("SN-4711-0815"));
    assert_eq!(
        one(RetainInstitutionIdentity, "0008,0080").as_deref(),
        Some("St. Nowhere's Hospital")
    );
    // a clean description stays, one with the patient's name goes
    assert_eq!(one(CleanDescriptors, "0008,103E").as_deref(), Some("Thorax 5.0 B31f"));
    assert_eq!(one(CleanDescriptors, "0008,1030"), None);
}

#[test]
fn safe_private_attributes_stay_with_their_creator() {
    let elements = [
        el(0x2001, 0x10, "LO", "Philips Imaging DD 001"),
        el(0x2001, 0x1001, "FL", [0, 0, 128, 63]),
        el(0x2001, 0x10ff, "LO", "Feldmann"),
        el(0x2001, 0x1004, "CS", "FELDMANN"),
        el(0x2005, 0x10, "LO", "Philips MR Imaging DD 001"),
        el(0x2005, 0x1000, "LO", "Feldmann"),
    ];
    let elements = elements.into_iter().fold(ct(), with);
    let (out, bytes, _) = run(&[ProfileOption::RetainSafePrivate], elements.clone());
    assert_eq!(text(&out, "2001,0010").as_deref(), Some("Philips Imaging DD 001"));
    assert!(out.iter().any(|element| element.path == "2001,1001"));
    assert!(!has(&bytes, "Feldmann"));
    let (out, ..) = run(&[], elements);
    assert!(!out.iter().any(|element| element.path.starts_with("2001")));
}

#[test]
fn overlays_and_curves_go_as_whole_groups() {
    let elements = [
        el(0x5000, 0x2500, "LO", "Feldmann"),
        el(0x6000, 0x10, "US", [4, 0]),
        el(0x6000, 0x22, "LO", "Feldmann"),
        el(0x6000, 0x3000, "OW", [1, 2]),
        el(0x6002, 0x10, "US", [4, 0]),
        el(0x6002, 0x3000, "OW", [1, 2]),
    ];
    let (out, bytes, _) = run(&[], elements.into_iter().fold(ct(), with));
    assert!(
        !out.iter()
            .any(|element| element.path.starts_with('6') || element.path.starts_with('5'))
    );
    assert!(!has(&bytes, "Feldmann"));
    // one that is drawn into the pixels would stay there
    let refusal = refused(&[], with(ct(), el(0x6000, 0x10, "US", [4, 0])));
    assert_eq!(refusal.name(), "embedded-overlay");
    // in a private group it is the name of a creator
    let private = [el(0x6001, 0x10, "LO", "ELSCINT1"), el(0x6001, 0x1010, "CS", "NO")];
    let (_, bytes, report) = run(&[], private.into_iter().fold(ct(), with));
    assert!(report.flags.is_empty() && !has(&bytes, "ELSCINT1"));
}

#[test]
fn what_a_person_should_see_is_refused_or_flagged() {
    use ProfileOption::{CleanPixelData, CleanRecognizableVisualFeatures};
    let cases: [(&[ProfileOption], Vec<El>, &str); 9] = [
        (&[], vec![el(0x28, 0x301, "CS", "YES")], "burned-in"),
        (&[], vec![el(8, 0x60, "CS", "US")], "maybe-burned-in"),
        (
            &[],
            vec![el(8, 0x16, "UI", "1.2.840.10008.5.1.4.1.1.7")],
            "maybe-burned-in",
        ),
        (
            &[],
            vec![el(8, 8, "CS", r"DERIVED\SECONDARY\SCREEN SAVE")],
            "maybe-burned-in",
        ),
        (&[CleanPixelData], vec![], "maybe-burned-in"),
        // scanned film
        (
            &[],
            vec![el(8, 0x60, "CS", "HC"), el(0x28, 0x301, "CS", "")],
            "maybe-burned-in",
        ),
        // the label of a slide was not burned in, but photographed
        (
            &[],
            vec![el(0x48, 0x10, "CS", "YES"), el(0x28, 0x301, "CS", "NO")],
            "maybe-burned-in",
        ),
        (
            &[],
            vec![el(0x48, 0x10, "CS", "YES"), el(0x28, 0x301, "CS", "")],
            "maybe-burned-in",
        ),
        (
            &[CleanRecognizableVisualFeatures],
            vec![el(0x18, 0x15, "CS", "HEAD")],
            "recognizable-features",
        ),
    ];
    for (options, elements, name) in cases {
        let elements: Vec<El> = elements.into_iter().fold(ct(), with);
        assert_eq!(refused(options, elements.clone()).name(), name);
        let mut set = Options::new(options.iter().copied()).unwrap();
        set.flag_instead = true;
        let flagging = Profile::new(set, &Secret::new(&[7; 32]).unwrap());
        let (_, report) = flagging.deidentify_file_bytes(&file(EXPLICIT, elements)).unwrap();
        assert_eq!(report.flags[0].name(), name);
    }
    let ultrasound = with(with(ct(), el(8, 0x60, "CS", "US")), el(0x28, 0x301, "CS", "NO"));
    assert!(run(&[CleanPixelData], ultrasound).2.flags.is_empty());
    let slide = with(with(ct(), el(0x48, 0x10, "CS", "NO")), el(0x28, 0x301, "CS", "NO"));
    assert!(run(&[], slide).2.flags.is_empty());
}

#[test]
fn spectra_have_rows_and_need_no_pixels() {
    let class = el(8, 0x16, "UI", "1.2.840.10008.5.1.4.1.1.4.2");
    let mut elements = [class, el(0x28, 0x10, "US", [1, 0]), el(0x28, 0x11, "US", [1, 0])]
        .into_iter()
        .fold(ct(), with);
    elements.retain(|element| element.0 != 0x7fe0);
    assert_eq!(refused(&[], elements.clone()).name(), "missing");
    let spectrum = (0..64).collect::<Vec<u8>>();
    let (out, ..) = run(&[], with(elements, el(0x5600, 0x20, "OF", &spectrum)));
    let kept = out.iter().find(|element| element.path == "5600,0020").unwrap();
    assert_eq!(kept.value, spectrum);
}

#[test]
fn a_limit_counts_what_stands_in_sequences_once() {
    let nested = |vr, length| {
        let inner = vec![el(0x10, 0x4000, vr, vec![b'x'; length])];
        let middle = vec![sq(8, 0x2218, vec![inner])];
        with(ct(), sq(8, 0x2218, vec![vec![sq(8, 0x2218, vec![middle])]]))
    };
    let mut options = Options::default();
    options.limits.header_bytes = 10_000;
    let profile = Profile::new(options, &Secret::new(&[7; 32]).unwrap());
    let run = |elements| profile.deidentify_file_bytes(&file(EXPLICIT, elements)).map(|_| ());
    run(nested("LT", 6_000)).unwrap();
    assert_eq!(run(nested("UT", 10_002)).unwrap_err().name(), "too-large");
    // a sequence that promises four gigabytes
    let data = b"\x08\x00\x18\x22SQ\0\0\xfe\xff\xff\xff\xfe\xff\x00\xe0\xee\xff\xff\xff";
    let bomb = [&start(EXPLICIT, &ct())[..], data].concat();
    assert_eq!(
        profile.deidentify_file_bytes(&bomb).map(|_| ()).unwrap_err().name(),
        "truncated"
    );
}

#[test]
fn many_private_blocks_take_no_longer_than_other_elements() {
    // 240 blocks in each, together 100,000; those of elements without a creator in other groups
    const GROUPS: u16 = 417;
    let mut elements = ct();
    for number in 0..GROUPS {
        for block in 0x10..=0xff {
            elements.push(el(0x1001 + 2 * number, block, "LO", "ACME"));
            elements.push(el(0x4001 + 2 * number, block << 8, "LO", "orphan"));
        }
    }
    let options = [ProfileOption::RetainSafePrivate];
    let (out, bytes, _) = run(&options, elements.clone());
    assert!(!out.iter().any(|element| element.path.starts_with("1001")));
    let left = dicom_deid::check(file(EXPLICIT, elements).as_slice(), bytes.as_slice()).unwrap();
    assert_eq!(left, []);
}

#[test]
fn nothing_but_padding_may_stand_behind_the_last_pixel() {
    let pixels = (0..32).collect::<Vec<u8>>();
    let run = |more: &[u8], frames: &str| {
        let image = with(ct(), el(0x28, 8, "IS", frames));
        let image = with(image, el(0x7fe0, 0x10, "OW", [&pixels[..], more].concat()));
        profile(&[]).deidentify_file_bytes(&file(EXPLICIT, image))
    };
    assert_eq!(run(b"Feldmann^Rosalind", "1").unwrap_err().name(), "behind-pixels");
    assert!(has(&run(&[0; 4000], "1").unwrap().0, "\x1c\x1d\x1e\x1f\0\0\0\0"));
    // a second frame is no padding
    assert!(run(&[7; 32], "2").is_ok());
    assert_eq!(run(&[7; 34], "2").unwrap_err().name(), "behind-pixels");
    // nor is it where nobody says how much there is
    assert!(run(&[7; 34], "many").is_ok());
}

#[test]
fn what_cannot_be_looked_into_is_refused() {
    let document = with(ct(), el(0x42, 0x11, "OB", "%PDF Feldmann"));
    assert_eq!(refused(&[], document).name(), "encapsulated-document");
    let report = with(ct(), sq(0x40, 0xa730, vec![vec![el(0x40, 0xa160, "UT", "Feldmann")]]));
    assert_eq!(refused(&[], report).name(), "structured-content");
    let whole = file(EXPLICIT, ct());
    let run = |bytes: &[u8]| {
        let refusal = profile(&[]).deidentify_file_bytes(bytes).map(|_| ()).unwrap_err();
        let said = format!("{refusal} {refusal:?}");
        assert!(!said.contains("Feldmann") && !said.contains("0047"), "{said}");
        refusal.name()
    };
    // at every place where it could end
    for end in 0..whole.len() {
        let name = run(&whole[..end]);
        assert!(
            matches!(name, "not-dicom" | "truncated" | "malformed" | "missing"),
            "{end}: {name}"
        );
    }
    assert_eq!(
        run(&[whole.as_slice(), b"Feldmann^Rosalind"].concat()),
        "trailing-garbage"
    );
    assert_eq!(run(&[whole.as_slice(), b"\0\0\0\0"].concat()), "trailing-garbage");
    assert_eq!(run(&[whole.as_slice(), &whole[..]].concat()), "trailing-garbage");
    // a length that promises four gigabytes
    let at = whole.windows(6).position(|six| six == b"\xe0\x7f\x10\x00OW").unwrap();
    let mut bomb = whole;
    bomb[at + 8..at + 12].copy_from_slice(&[0xfe, 0xff, 0xff, 0xff]);
    assert_eq!(run(&bomb), "truncated");
    let mut directory = ct();
    directory = with(directory, el(8, 0x16, "UI", "1.2.840.10008.1.3.10"));
    assert_eq!(run(&file(EXPLICIT, directory)), "dicomdir");
    assert_eq!(run(&file("1.2.840.10008.1.2.4.94", ct())), "transfer-syntax");
    assert_eq!(run(&file("Feldmann", ct())), "transfer-syntax");
    let no_sop: Vec<El> = ct()
        .into_iter()
        .filter(|element| (element.0, element.1) != (8, 0x18))
        .collect();
    assert_eq!(run(&file(EXPLICIT, no_sop)), "missing");
}

#[test]
fn the_same_input_gives_the_same_bytes() {
    use ProfileOption::*;
    let all = [
        CleanDescriptors,
        RetainModifiedDates,
        RetainSafePrivate,
        RetainDeviceIdentity,
    ];
    assert_eq!(run(&all, ct()).1, run(&all, ct()).1);
    // and always will: other bytes need another version of the profile
    let (bytes, _) = profile(&[]).deidentify_file_bytes(&file(EXPLICIT, ct())).unwrap();
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &bytes);
    let hex: String = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hex, GOLDEN);
}

const GOLDEN: &str = "afb7a269b090a96f035e0fd90524f057ed898f4583c5a27b9ab6160e1a6b524d";

#[test]
fn a_second_pass_changes_nothing_but_identifiers() {
    let (first, bytes, _) = run(&[], ct());
    let (again, _) = profile(&[]).deidentify_file_bytes(&bytes).unwrap();
    let again = read(&again, EXPLICIT);
    let paths = |elements: &[Read]| elements.iter().map(|element| element.path.clone()).collect::<Vec<_>>();
    assert_eq!(paths(&first), paths(&again));
}

#[test]
fn what_follows_the_pixels_is_read_too() {
    let tail = [
        el(0x7fe1, 0x10, "LO", "FELDMANN"),
        el(0x7fe1, 0x1001, "OB", "Feldmann"),
        sq(0xfffa, 0xfffa, vec![vec![el(0x400, 0x115, "OB", "Feldmann")]]),
        el(0xfffc, 0xfffc, "OB", "Feldmann"),
    ];
    let (out, bytes, _) = run(&[], tail.into_iter().fold(ct(), with));
    assert!(!has(&bytes, "Feldmann"));
    assert_eq!(out.last().unwrap().path, "7FE0,0010");
}

#[test]
fn fragments_pass_and_their_comments_do_not() {
    let jpeg = b"\xff\xd8\xff\xfe\x00\x0aFeldmann\xff\xc3\x00\x04ab\xff\xda\x00\x03x\x01\x02\xff\xd9";
    let item = |bytes: &[u8]| {
        let length = u32::try_from(bytes.len()).unwrap().to_le_bytes();
        [b"\xfe\xff\x00\xe0", length.as_slice(), bytes].concat()
    };
    let mut elements = ct();
    elements.retain(|element| element.0 != 0x7fe0);
    let syntax = "1.2.840.10008.1.2.4.70";
    let whole = |fragments: &[&[u8]]| {
        let mut whole = file(syntax, elements.clone());
        whole.extend(b"\xe0\x7f\x10\x00OB\0\0\xff\xff\xff\xff");
        whole.extend(item(&[]));
        fragments.iter().for_each(|fragment| whole.extend(item(fragment)));
        whole.extend(b"\xfe\xff\xdd\xe0\0\0\0\0");
        whole
    };
    let input = whole(&[jpeg]);
    let (bytes, _) = profile(&[]).deidentify_file_bytes(&input).unwrap();
    assert!(!has(&bytes, "Feldmann"));
    let out = read(&bytes, syntax);
    let mut expected = jpeg.to_vec();
    expected[6..14].fill(b' ');
    assert_eq!(out.last().unwrap().value, expected);
    let refusal = profile(&[])
        .deidentify_file_bytes(&whole(&[b"Feldmann"]))
        .map(|_| ())
        .unwrap_err();
    assert_eq!(refusal.name(), "pixel-stream");
}

#[test]
fn a_deflated_object_stays_deflated() {
    use std::io::{Read as _, Write as _};
    let syntax = "1.2.840.10008.1.2.1.99";
    let mut elements = ct();
    elements.sort_by_key(|element| (element.0, element.1));
    let mut deflating = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::fast());
    let plain = support::Coding {
        explicit: true,
        big: false,
    };
    deflating.write_all(&encode(&elements, plain)).unwrap();
    let whole = [start(syntax, &elements), deflating.finish().unwrap()].concat();
    let (bytes, report) = profile(&[]).deidentify_file_bytes(&whole).unwrap();
    assert_eq!(report.transfer_syntax, syntax);
    assert_eq!(bytes.len() % 2, 0);
    let (_, expected, _) = run(&[], ct());
    let begins = |bytes: &[u8]| 144 + usize::try_from(u32::from_le_bytes(bytes[140..144].try_into().unwrap())).unwrap();
    let mut inflated = Vec::new();
    flate2::read::DeflateDecoder::new(&bytes[begins(&bytes)..])
        .read_to_end(&mut inflated)
        .unwrap();
    assert_eq!(inflated, expected[begins(&expected)..]);
    let cut = profile(&[])
        .deidentify_file_bytes(&whole[..whole.len() - 9])
        .map(|_| ())
        .unwrap_err();
    assert_eq!(cut.name(), "truncated");
    let more = profile(&[])
        .deidentify_file_bytes(&[whole, b"Feldmann".to_vec()].concat())
        .map(|_| ())
        .unwrap_err();
    assert_eq!(more.name(), "trailing-garbage");
}

#[test]
fn a_data_set_from_the_network_gives_the_same_file() {
    let mut elements = ct();
    elements.sort_by_key(|element| (element.0, element.1));
    let mut out = Vec::new();
    profile(&[])
        .deidentify_data_set(
            EXPLICIT,
            encode(&elements, support::Coding::of(EXPLICIT)).as_slice(),
            &mut out,
        )
        .unwrap();
    assert_eq!(out, run(&[], ct()).1);
}

#[test]
fn content_items_are_cleaned_by_their_table() {
    use ProfileOption::CleanStructuredContent;
    let concept = |value: &str, meaning: &str| {
        sq(
            0x40,
            0xa043,
            vec![vec![
                el(8, 0x100, "SH", value),
                el(8, 0x102, "SH", "DCM"),
                el(8, 0x104, "LO", meaning),
            ]],
        )
    };
    let item = |kind: &str, value: &str, meaning: &str, rest: El| {
        vec![
            el(0x40, 0xa010, "CS", "CONTAINS"),
            el(0x40, 0xa040, "CS", kind),
            concept(value, meaning),
            rest,
        ]
    };
    let items = vec![
        item("TEXT", "121106", "Comment", el(0x40, 0xa160, "UT", "afraid of needles")),
        item(
            "PNAME",
            "121008",
            "Person Observer Name",
            el(0x40, 0xa123, "PN", "Ohnesorg^Theo"),
        ),
        item("TEXT", "999999", "Something", el(0x40, 0xa160, "UT", "typed by hand")),
        item(
            "UIDREF",
            "112040",
            "Tracking Unique Identifier",
            el(0x40, 0xa124, "UI", SOP),
        ),
        item("DATE", "111060", "Study Date", el(0x40, 0xa121, "DA", "20260301")),
        item(
            "CODE",
            "121071",
            "Finding",
            sq(0x40, 0xa168, vec![vec![el(8, 0x104, "LO", "Nodule")]]),
        ),
    ];
    let mut report = ct();
    report.retain(|element| !matches!(element.0, 0x28 | 0x7fe0));
    let report = with(
        with(report, sq(0x40, 0xa730, items)),
        el(8, 0x16, "UI", "1.2.840.10008.5.1.4.1.1.88.33"),
    );
    let (out, bytes, _) = run(&[CleanStructuredContent], report);
    for gone in ["needles", "Ohnesorg", "typed", "99999.1", "20260301"] {
        assert!(!has(&bytes, gone), "{gone}");
    }
    // the comment went, the others moved up
    assert_eq!(text(&out, "0040,A730[1]/0040,A123").as_deref(), Some("Removed"));
    assert_eq!(text(&out, "0040,A730[2]/0040,A160").as_deref(), Some("Removed"));
    assert!(text(&out, "0040,A730[3]/0040,A124").unwrap().starts_with("2.25."));
    assert_eq!(text(&out, "0040,A730[4]/0040,A121").as_deref(), Some("19000101"));
    assert_eq!(
        text(&out, "0040,A730[5]/0040,A168[1]/0008,0104").as_deref(),
        Some("Nodule")
    );
    assert_eq!(text(&out, "0040,A730[6]/0040,A010"), None);
}

#[test]
fn the_private_half_has_what_was_taken_and_the_report_has_none_of_it() {
    let (_, _, report) = run(&[], ct());
    let private = report.to_private_json().to_string();
    for value in ["Feldmann^Rosalind", "KH-0047-1961", "19610228", SOP] {
        assert!(private.contains(value), "{value}");
    }
    let public = format!("{} {report:?}", report.to_json());
    for value in ["Feldmann", "0047", "19610228", "99999"] {
        assert!(!public.contains(value), "{value}");
    }
}

#[test]
fn what_the_report_says_is_what_goes_out() {
    let elements = [
        el(8, 0x16, "UI", "1.2.Feldmann"),
        el(8, 0x60, "CS", "FELDMANN"),
        el(8, 0x1167, "UI", "Rosalind"),
    ];
    let (out, bytes, report) = run(&[], elements.into_iter().fold(ct(), with));
    assert!(!has(&bytes, "Feldmann") && !has(&bytes, "Rosalind"));
    assert_eq!(report.modality.as_deref(), Some("REMOVED"));
    assert!(report.sop_class.starts_with("2.25."));
    assert_eq!(text(&out, "0002,0002"), Some(report.sop_class));
    let (_, bytes, _) = run(
        &[ProfileOption::RetainUids],
        with(ct(), el(8, 0x1167, "UI", "Rosalind")),
    );
    assert!(!has(&bytes, "Rosalind"));
}

#[test]
fn a_check_finds_what_other_tools_leave() {
    let input = file(EXPLICIT, ct());
    let (_, good, _) = run(&[], ct());
    assert_eq!(dicom_deid::check(input.as_slice(), good.as_slice()).unwrap(), []);
    let bad = dicom_deid::check(input.as_slice(), input.as_slice()).unwrap();
    let found = |path: &str| bad.iter().any(|finding| finding.path == path);
    for path in [
        "preamble",
        "(0012,0062)",
        "(0010,0010)",
        "(0010,0030)",
        "(0008,0018)",
        "(0029,1010)",
        "(0018,1000)",
        "(0008,1030)",
    ] {
        assert!(found(path), "{path}: {bad:?}");
    }
    assert!(!format!("{bad:?}").contains("Feldmann"));
    for options in [
        vec![ProfileOption::RetainUids, ProfileOption::RetainFullDates],
        vec![ProfileOption::RetainModifiedDates, ProfileOption::CleanDescriptors],
        vec![
            ProfileOption::RetainDeviceIdentity,
            ProfileOption::RetainInstitutionIdentity,
        ],
    ] {
        let (_, good, _) = run(&options, ct());
        assert_eq!(
            dicom_deid::check(input.as_slice(), good.as_slice()).unwrap(),
            [],
            "{options:?}"
        );
    }
}

#[test]
fn explain_names_the_rule_and_never_a_value() {
    let lines = dicom_deid::explain(&profile(&[]), file(EXPLICIT, ct()).as_slice()).unwrap();
    let line = |path: &str| lines.iter().find(|line| line.path == path).unwrap();
    assert_eq!(line("(0018,1000)").rule, "table E.1-1: X/Z/D");
    assert_eq!(line("(0018,1000)").outcome.name(), "removed");
    assert_eq!(line("(0029,1010)").rule, "private");
    assert_eq!(line("(0018,0060)").outcome.name(), "kept");
    assert!(!format!("{lines:?}").contains("Feldmann"));
}

#[test]
fn both_sides_of_a_header_are_told_without_the_pixels() {
    use dicom_deid::Tag;
    for syntax in [EXPLICIT, IMPLICIT, BIG] {
        let mut elements = ct();
        elements.push(el(
            0x18,
            0x9087,
            "FD",
            match syntax {
                BIG => 1000_f64.to_be_bytes(),
                _ => 1000_f64.to_le_bytes(),
            },
        ));
        let rows = if syntax == BIG { [2, 0] } else { [0, 2] };
        let elements = with(elements, el(0x28, 0x10, "US", rows));
        let whole = file(syntax, elements);
        let end = whole.len() - 20;
        let mut header = profile(&[]).header(&whole[..end]).unwrap();
        let (before, after) = (header.before(), header.after());
        assert_eq!(before.text(Tag(0x10, 0x10)).as_deref(), Some("Feldmann^Rosalind"));
        assert_eq!(after.text(Tag(0x10, 0x10)), None);
        assert_eq!(after.integer(Tag(0x28, 0x10)), Some(512));
        assert_eq!(after.integer(Tag(0x20, 0x13)), Some(17));
        assert_eq!(after.float(Tag(0x18, 0x50)), Some(1.5));
        assert_eq!(after.float(Tag(0x18, 0x9087)), Some(1000.0));
        assert_eq!(after.text(Tag(0x20, 0x0d)), Some(profile(&[]).uid(STUDY)));
        assert!(header.is_kept(Tag(8, 0x60)) && !header.is_kept(Tag(0x10, 0x20)) && !header.is_kept(Tag(0x20, 0x0d)));
        let references = before.items(Tag(8, 0x1140));
        assert_eq!(references[0].text(Tag(8, 0x1150)).as_deref(), Some(CT));
        assert!(header.names_patient("for Mrs Feldmann") && !header.names_patient("Thorax"));
        let data = whole[whole.len() - 20..].to_vec();
        assert!(profile(&[]).header_of_data_set(syntax, &data[..]).is_err());
    }
    let burnt = with(ct(), el(0x28, 0x301, "CS", "YES"));
    assert!(matches!(
        profile(&[]).header(&file(EXPLICIT, burnt)[..]),
        Err(Refusal::Review(_))
    ));
}
