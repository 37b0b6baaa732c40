//! A signing policy, and the newer kind of it.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| hydra_fuzz::replay::signing_policy(data));
