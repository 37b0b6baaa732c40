//! A key id: its canonical form is one too, and canonical.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| hydra_fuzz::replay::key_id(data));
