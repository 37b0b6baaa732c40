//! A command set of DIMSE.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| hydra_fuzz::replay::dicom_command(data));
