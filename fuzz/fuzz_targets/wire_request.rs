//! The body of a request of any operation: what is read is written back as what reads the same.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| hydra_fuzz::replay::wire_request(data));
