//! A search of the catalogue, up to its SQL.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| hydra_fuzz::replay::catalog_query(data));
