//! A storage URL: it is read to the same again, and shows no secret.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| hydra_fuzz::replay::storage_url(data));
