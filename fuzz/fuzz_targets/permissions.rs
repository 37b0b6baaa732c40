//! Permissions as eight letters, and as people type them.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| hydra_fuzz::replay::permissions(data));
