//! An instance that comes in: no byte of it is lost.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| hydra_fuzz::replay::dicom_instance(data));
