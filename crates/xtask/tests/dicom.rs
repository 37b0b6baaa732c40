//! The demo's image, judged by other people's DICOM programs.
#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::process::{Command, Output};

use hydra_xtask::dicom::{INVENTED, ct_slice};

fn judge(program: &str) -> Output {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("slice.dcm");
    std::fs::write(&file, ct_slice(&INVENTED, [1 << 100, 2, 3, u128::MAX])).unwrap();
    let answer = Command::new(program).arg(&file).output();
    answer.unwrap_or_else(|error| panic!("`{program}` is needed (Debian: dcmtk, dicom3tools): {error}"))
}

#[test]
fn peer_dcmdump_reads_the_slice_with_patient_and_pixels() {
    let answer = judge("dcmdump");
    let text = String::from_utf8_lossy(&answer.stdout).into_owned() + &String::from_utf8_lossy(&answer.stderr);
    assert!(answer.status.success(), "{text}");
    assert!(
        text.contains(INVENTED.name) && text.contains("CTImageStorage") && text.contains("PixelData"),
        "{text}"
    );
    assert!(!text.contains("W:") && !text.contains("E:"), "{text}");
}

#[test]
fn peer_dciodvfy_finds_a_valid_ct_image() {
    let answer = judge("dciodvfy");
    let text = String::from_utf8_lossy(&answer.stdout).into_owned() + &String::from_utf8_lossy(&answer.stderr);
    assert!(text.contains("CTImage"), "{text}");
    assert!(!text.contains("Error") && !text.contains("Warning"), "{text}");
}
