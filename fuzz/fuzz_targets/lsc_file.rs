//! An LSC file.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| hydra_fuzz::replay::lsc_file(data));
