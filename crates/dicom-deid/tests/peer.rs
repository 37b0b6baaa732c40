//! Every real file of the packages pydicom, pydicom-data and deid-data: written or refused, and what other people's
//! validators say of the output, next to what they say of the input.
#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use dicom_deid::{Options, Profile, ProfileOption, Secret, check};

/// Where a Python keeps what was installed for it, asked for by the names of the packages' own folders.
fn folders() -> Vec<PathBuf> {
    let python = std::env::var("HYDRA_PEER_PYTHON");
    let python = python.expect("HYDRA_PEER_PYTHON must name a Python that has pydicom, pydicom-data and deid-data");
    let asked = Command::new(python)
        .args(["-c", "import sysconfig; print(sysconfig.get_paths()['purelib'])"])
        .output()
        .unwrap();
    let packages = PathBuf::from(String::from_utf8(asked.stdout).unwrap().trim());
    let folders = ["pydicom/data", "data_store", "deid_data"].map(|name| packages.join(name));
    for folder in &folders {
        assert!(folder.is_dir(), "{} is not there", folder.display());
    }
    folders.to_vec()
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, files);
        } else if is_object(&path) {
            files.push(path);
        }
    }
}

fn is_object(path: &Path) -> bool {
    let bytes = std::fs::read(path).unwrap();
    bytes.get(128..132) == Some(b"DICM") || path.extension().is_some_and(|extension| extension == "dcm")
}

/// How often a program complains in which way.
type Complaints = BTreeMap<String, usize>;

/// The programs, and how they are asked.
const VALIDATORS: &[(&str, &[&str])] = &[("dciodvfy", &["-new"]), ("dcmdump", &[])];

/// Numbers of items and offsets depend on what was taken out, values and names of files on what was put in: all aside.
fn complaints(program: &str, arguments: &[&str], file: &Path) -> Complaints {
    let output = Command::new(program).args(arguments).arg(file).output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    let mut complaints = Complaints::new();
    for line in String::from_utf8_lossy(&text).lines() {
        let is_complaint = match program {
            "dciodvfy" => line.starts_with("Error"),
            _ => ["E:", "W:", "F:"].iter().any(|start| line.starts_with(start)),
        };
        if !is_complaint {
            continue;
        }
        let what = line.split(" = <").next().unwrap_or_default();
        let what = what.split(": /").next().unwrap_or_default();
        let mut plain = String::new();
        for (number, part) in what.split('[').enumerate() {
            let rest = part.trim_start_matches(|c: char| c.is_ascii_digit());
            plain.push_str(if number > 0 { "[" } else { "" });
            plain.push_str(if rest.starts_with(']') || program == "dcmdump" {
                rest
            } else {
                part
            });
        }
        *complaints.entry(plain).or_default() += 1;
    }
    complaints
}

/// What each validator said of each input, asked once.
#[derive(Default)]
struct Before(Mutex<BTreeMap<(PathBuf, &'static str), Complaints>>);

impl Before {
    fn of(&self, program: &'static str, arguments: &[&str], file: &Path) -> Complaints {
        let key = (file.to_owned(), program);
        if let Some(known) = self.0.lock().unwrap().get(&key) {
            return known.clone();
        }
        let said = complaints(program, arguments, file);
        self.0.lock().unwrap().insert(key, said.clone());
        said
    }

    /// What is worse in the output.
    fn worse(&self, before: &Path, after: &Path, inflates: bool) -> Vec<String> {
        let mut worse = Vec::new();
        for (program, arguments) in VALIDATORS {
            // dciodvfy does not inflate
            if inflates && *program == "dciodvfy" {
                continue;
            }
            let before = self.of(program, arguments, before);
            for (what, count) in complaints(program, arguments, after) {
                if before.get(&what).copied().unwrap_or(0) < count {
                    worse.push(format!("{program}: {what}"));
                }
            }
        }
        worse
    }
}

#[derive(Default)]
struct Outcome {
    written: usize,
    refused: BTreeMap<&'static str, usize>,
    faults: Vec<String>,
}

fn run(files: &[PathBuf], profile: &Profile, before: &Before) -> Outcome {
    let place = tempfile::tempdir().unwrap();
    let (next, outcome) = (AtomicUsize::new(0), Mutex::new(Outcome::default()));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let Some(path) = files.get(number) else { break };
                    let input = std::fs::read(path).unwrap();
                    let made = profile.deidentify_file_bytes(&input);
                    let (output, report) = match made {
                        Ok(made) => made,
                        Err(refusal) => {
                            *outcome.lock().unwrap().refused.entry(refusal.name()).or_default() += 1;
                            continue;
                        }
                    };
                    let mut faults = Vec::new();
                    for finding in check(input.as_slice(), output.as_slice()).unwrap() {
                        faults.push(format!("check: {finding:?}"));
                    }
                    if output != profile.deidentify_file_bytes(&input).unwrap().0 {
                        faults.push("another time gives other bytes".to_owned());
                    }
                    let new = place.path().join(format!("{number}.dcm"));
                    std::fs::write(&new, &output).unwrap();
                    faults.extend(before.worse(path, &new, report.transfer_syntax.ends_with(".1.99")));
                    std::fs::remove_file(&new).unwrap();
                    let mut outcome = outcome.lock().unwrap();
                    outcome.written += 1;
                    outcome
                        .faults
                        .extend(faults.iter().map(|fault| format!("{}: {fault}", path.display())));
                }
            });
        }
    });
    outcome.into_inner().unwrap()
}

#[test]
fn peer_validators_are_as_content_with_every_real_file_as_before() {
    let mut files = Vec::new();
    folders().iter().for_each(|folder| collect(folder, &mut files));
    files.sort();
    assert!(files.len() > 250, "only {} files", files.len());
    let secret = Secret::new(&[7; 32]).unwrap();
    let profile = |options: &[ProfileOption]| {
        let mut options = Options::new(options.iter().copied()).unwrap();
        options.flag_instead = true;
        Profile::new(options, &secret)
    };
    let before = Before::default();
    let basic = run(&files, &profile(&[]), &before);
    println!("Basic Profile: {} written, refused {:?}", basic.written, basic.refused);
    assert!(basic.faults.is_empty(), "{}", basic.faults.join("\n"));
    assert!(basic.written >= 180, "{} written", basic.written);

    use ProfileOption::*;
    let keeping = profile(&[
        CleanDescriptors,
        CleanGraphics,
        CleanStructuredContent,
        RetainModifiedDates,
        RetainPatientCharacteristics,
        RetainDeviceIdentity,
        RetainSafePrivate,
        RetainInstitutionIdentity,
    ]);
    let keeping = run(&files, &keeping, &before);
    println!(
        "with options: {} written, refused {:?}",
        keeping.written, keeping.refused
    );
    assert!(keeping.faults.is_empty(), "{}", keeping.faults.join("\n"));
    assert!(
        keeping.written > basic.written,
        "reports are written with their content cleaned"
    );
}
