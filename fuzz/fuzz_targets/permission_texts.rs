//! Modes, lines of an ACL and lists of them.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| hydra_fuzz::replay::permission_texts(data));
