//! The header of a sealed file: one that reads is written back byte for byte.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| hydra_fuzz::replay::sealed_header(data));
