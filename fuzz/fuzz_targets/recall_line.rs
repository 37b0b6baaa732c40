//! What is said on the line of a recall, and what an agent is asked.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| hydra_fuzz::replay::recall_line(data));
