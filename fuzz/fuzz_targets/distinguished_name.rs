//! A name as DER and as text: the canonical text is canonical.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| hydra_fuzz::replay::distinguished_name(data));
