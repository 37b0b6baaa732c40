//! Seals or opens one file under a key file of 32 raw bytes, with the library alone:
//! `seal_file seal|open KEY_FILE IN OUT [THREADS]`, where `-` is a standard stream.
#![allow(clippy::print_stderr, reason = "an example talks to the person who typed it")]

use std::error::Error;
use std::fs;

use hydra_core::sealed::{Header, Input, OpenOptions, Output, SealOptions, SealedInput, seal};
use hydra_core::secret::Key;
use zeroize::Zeroizing;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments = Vec::from_iter(std::env::args().skip(1));
    let [verb, key_file, from, to, rest @ ..] = arguments.as_slice() else {
        return Err("seal_file seal|open KEY_FILE IN OUT [THREADS]".into());
    };
    let threads = rest.first().map_or(Ok(2), |text| text.parse())?;
    let bytes = Zeroizing::new(fs::read(key_file)?);
    let key = Key::from_slice(&bytes).ok_or("a key file has 32 bytes")?;
    let input = if from == "-" {
        Input::Stdin
    } else {
        Input::File(from.into())
    };
    let output = if to == "-" {
        Output::Stdout
    } else {
        Output::File(to.into())
    };
    let report = if verb == "seal" {
        let options = SealOptions {
            threads,
            overwrite: true,
            sync: false,
            ..SealOptions::default()
        };
        seal(&key, &Header::of_key_file(), &input, &output, &options)?
    } else {
        let options = OpenOptions {
            threads,
            overwrite: true,
            sync: false,
            ..OpenOptions::default()
        };
        SealedInput::open(&input)?.unseal(&key, &output, &options)?
    };
    eprintln!("{} bytes in {}", report.plaintext_bytes, output);
    Ok(())
}
