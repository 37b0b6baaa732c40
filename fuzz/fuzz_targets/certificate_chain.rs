//! What a peer presents in a handshake: certificates, each with its length (two bytes, big endian) before it.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| hydra_fuzz::replay::certificate_chain(data));
