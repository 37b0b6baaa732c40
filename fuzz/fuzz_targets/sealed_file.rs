//! A key (32 bytes) and a sealed file: pieces that are read one by one are those of the whole.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| hydra_fuzz::replay::sealed_file(data));
