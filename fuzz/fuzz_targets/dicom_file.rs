//! A DICOM file on its way through de-identification.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| hydra_fuzz::replay::dicom_file(data));
