//! What a proxy carries of VOMS servers: the value of the extension.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| hydra_fuzz::replay::attribute_certificates(data));
