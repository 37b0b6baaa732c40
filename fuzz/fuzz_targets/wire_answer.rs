//! The body of an answer of any operation, as a client reads it.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| hydra_fuzz::replay::wire_answer(data));
