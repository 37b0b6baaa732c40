//! Operands of the original's join commands, separated by blanks.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| hydra_fuzz::replay::glite_join(data));
