//! A body of the Tape REST API.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| hydra_fuzz::replay::tape_body(data));
