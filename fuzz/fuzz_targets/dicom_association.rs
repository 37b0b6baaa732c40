//! Units of an association: read, and written back the same.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| hydra_fuzz::replay::dicom_association(data));
