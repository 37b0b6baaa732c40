//! Shares as text, as people send them: what joins, joins to the same when upper-cased or broken into lines.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| hydra_fuzz::replay::share_text(data));
