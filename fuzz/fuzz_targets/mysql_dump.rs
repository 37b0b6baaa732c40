//! What mysqldump wrote of an original Hydra's database.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| hydra_fuzz::replay::mysql_dump(data));
