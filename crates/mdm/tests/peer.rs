//! The halves of every real file of the packages pydicom, pydicom-data and deid-data.
#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use dicom_deid::{Options, Profile, Secret, Tag};
use mdm::halves::halves;
use mdm_catalog::wire::Value;

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, files);
        } else if std::fs::read(&path).unwrap().get(128..132) == Some(b"DICM") {
            files.push(path);
        }
    }
}

fn files() -> Vec<PathBuf> {
    let python = std::env::var("HYDRA_PEER_PYTHON");
    let python = python.expect("HYDRA_PEER_PYTHON must name a Python that has pydicom, pydicom-data and deid-data");
    let asked = Command::new(python)
        .args(["-c", "import sysconfig; print(sysconfig.get_paths()['purelib'])"])
        .output()
        .unwrap();
    let packages = PathBuf::from(String::from_utf8(asked.stdout).unwrap().trim());
    let mut files = Vec::new();
    for folder in ["pydicom/data", "data_store", "deid_data"] {
        collect(&packages.join(folder), &mut files);
    }
    files.sort();
    files
}

/// Words of three letters or more, and numbers of four or more, of what identifies.
fn words(text: &str) -> BTreeSet<String> {
    let lower = text.to_lowercase();
    let words = lower.split(|one: char| !one.is_alphanumeric());
    let is_telling = |word: &&str| {
        let least = if word.chars().all(char::is_numeric) { 4 } else { 3 };
        word.chars().count() >= least
    };
    words.filter(is_telling).map(str::to_owned).collect()
}

#[test]
fn peer_files_have_nothing_identifying_in_their_anonymous_half() {
    let mut options = Options::new([]).unwrap();
    options.flag_instead = true;
    let profile = Profile::new(options, &Secret::new(&[7; 32]).unwrap());
    let (mut split, mut refused, mut told) = (0, 0, 0);
    for path in files() {
        let file = std::fs::read(&path).unwrap();
        let Ok(mut header) = profile.header(file.as_slice()) else {
            refused += 1;
            continue;
        };
        split += 1;
        let halves = halves(&mut header, None);
        let mut telling = BTreeSet::new();
        for (name, value) in &halves.identifying {
            let Value::Text(text) = value else { continue };
            // of identifiers the whole tells something, and not one of their numbers
            match name.starts_with("original_") {
                true => telling.insert(text.clone()),
                false => {
                    telling.extend(words(text));
                    true
                }
            };
        }
        for tag in [
            Tag(0x0010, 0x1001),
            Tag(0x0010, 0x1040),
            Tag(0x0010, 0x0030),
            Tag(0x0008, 0x0020),
        ] {
            telling.extend(words(&header.before().text(tag).unwrap_or_default()));
        }
        let uids = ["study_uid", "series_uid", "instance_uid"];
        for (name, value) in &halves.anonymous {
            let Value::Text(text) = value else { continue };
            told += 1;
            if uids.contains(&name.as_str()) {
                let originals = halves.identifying.values().any(|other| other == value);
                assert!(!originals, "{}: {name} is that of the hospital", path.display());
                continue;
            }
            // what the standard itself defines, what is made coarse, and who made the device (where some of these
            // pictures were taken, too) is no word of the patient's
            if matches!(
                name.as_str(),
                "manufacturer"
                    | "modality"
                    | "body_part"
                    | "sop_class"
                    | "transfer_syntax"
                    | "age_group"
                    | "patient_sex"
            ) {
                continue;
            }
            let named: Vec<_> = words(text).intersection(&telling).cloned().collect();
            assert!(named.is_empty(), "{}: {name} names {named:?}", path.display());
        }
    }
    println!("{split} files split, {refused} refused, {told} texts told");
    assert!(split > 180 && told > 1000, "{split} files, {told} texts");
}
