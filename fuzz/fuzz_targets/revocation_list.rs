//! A revocation list as an authority publishes it, in DER.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| hydra_fuzz::replay::revocation_list(data));
