//! Sealed files against Google Tink, both ways: what we seal Tink opens, what Tink seals we open.
//!
//! The Python that has the package `tink` is named by `HYDRA_PEER_PYTHON`; `cargo verify` makes one.
#![cfg(feature = "sealed")]
#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::path::Path;
use std::process::{Command, Output as Finished};

use hydra_core::ids::RegistrationId;
use hydra_core::key_id::KeyId;
use hydra_core::sealed::{Header, Input, OpenOptions, Output, SealOptions, SealedInput, seal};
use hydra_core::secret::Key;

const SIZES: [usize; 7] = [0, 1, 65_480, 65_481, 131_000, 131_001, 1_500_000];

fn tink(arguments: &[&Path]) -> Finished {
    let python = std::env::var_os("HYDRA_PEER_PYTHON").unwrap_or_else(|| {
        panic!("HYDRA_PEER_PYTHON does not name a Python with the package `tink`: run `cargo verify`, or leave it out with --no-peers")
    });
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/peers/tink_peer.py");
    Command::new(python).arg(script).args(arguments).output().unwrap()
}

fn content(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|i| (i % 251) as u8).collect()
}

fn header() -> Header {
    let key_id = KeyId::new("/myvo/Größe/scan 1").unwrap();
    Header::of_registration(key_id, RegistrationId([7; 16]))
}

#[test]
fn peer_tink_opens_what_we_seal() {
    let folder = tempfile::tempdir().unwrap();
    let [key_file, plain, sealed, opened] = ["key", "plain", "sealed", "opened"].map(|name| folder.path().join(name));
    let key = Key::random().unwrap();
    std::fs::write(&key_file, key.expose()).unwrap();
    for (bytes, reproducible) in SIZES.into_iter().zip([false, true].into_iter().cycle()) {
        std::fs::write(&plain, content(bytes)).unwrap();
        let options = SealOptions {
            overwrite: true,
            reproducible,
            ..SealOptions::default()
        };
        let (from, to) = (Input::File(plain.clone()), Output::File(sealed.clone()));
        seal(&key, &header(), &from, &to, &options).unwrap();
        let finished = tink(&["open".as_ref(), &key_file, &sealed, &opened]);
        assert!(
            finished.status.success(),
            "{}",
            String::from_utf8_lossy(&finished.stderr)
        );
        assert!(std::fs::read(&opened).unwrap() == content(bytes), "{bytes}");
    }
    // The same driver tells good from bad, else the test above would prove nothing.
    let mut bad = std::fs::read(&sealed).unwrap();
    bad[20] ^= 1;
    std::fs::write(&sealed, bad).unwrap();
    assert_eq!(
        tink(&["open".as_ref(), &key_file, &sealed, &opened]).status.code(),
        Some(65)
    );
}

#[test]
fn peer_tink_seals_what_we_open() {
    let folder = tempfile::tempdir().unwrap();
    let names = ["key", "header", "plain", "sealed", "opened"];
    let [key_file, header_file, plain, sealed, opened] = names.map(|name| folder.path().join(name));
    let key = Key::random().unwrap();
    std::fs::write(&key_file, key.expose()).unwrap();
    std::fs::write(&header_file, header().encode().unwrap()).unwrap();
    for bytes in SIZES {
        std::fs::write(&plain, content(bytes)).unwrap();
        let finished = tink(&["seal".as_ref(), &key_file, &header_file, &plain, &sealed]);
        assert!(
            finished.status.success(),
            "{}",
            String::from_utf8_lossy(&finished.stderr)
        );
        let input = SealedInput::open(&Input::File(sealed.clone())).unwrap();
        assert_eq!(*input.header(), header());
        let options = OpenOptions {
            overwrite: true,
            ..OpenOptions::default()
        };
        input.unseal(&key, &Output::File(opened.clone()), &options).unwrap();
        assert!(std::fs::read(&opened).unwrap() == content(bytes), "{bytes}");
    }
}
