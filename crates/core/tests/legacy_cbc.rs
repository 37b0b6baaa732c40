//! Files of the original against `vectors/legacy-cbc.json`, which OpenSSL made; outputs that appear whole or not at
//! all; and, where it is there, OpenSSL itself both ways.
#![cfg(feature = "sealed")]
#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use data_encoding::{HEXLOWER, HEXLOWER_PERMISSIVE};
use hydra_core::sealed::legacy_cbc::{self, LegacyCipher, LegacyKey, LegacyKeyError};
use hydra_core::sealed::{
    Header, Input, OpenError, OpenOptions, Opened, Output, SealOptions, SealedInput, Trouble, seal,
};
use hydra_core::secret::Key;
use serde_json::Value;

struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, bytes: &[u8]) -> Input {
        fs::write(self.path(name), bytes).unwrap();
        Input::File(self.path(name))
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.0.path()).unwrap();
        let mut names: Vec<String> = entries
            .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }
}

fn open(input: &Input, key: &LegacyKey, output: &Output) -> Result<hydra_core::sealed::Report, OpenError> {
    match Opened::open(input)? {
        Opened::Raw(raw) => raw.unseal(key, output, &OpenOptions::default()),
        Opened::Sealed(_) => panic!("{input} was taken for a sealed file"),
    }
}

fn hex(value: &Value) -> Vec<u8> {
    HEXLOWER_PERMISSIVE.decode(value.as_str().unwrap().as_bytes()).unwrap()
}

fn content(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|i| (i % 251) as u8).collect()
}

/// A key of the usual length of any cipher.
fn key_of(cipher: LegacyCipher) -> LegacyKey {
    let key = content(cipher.usual_bits() as usize / 8);
    LegacyKey::new(cipher.name(), &key, &HEXLOWER.encode(&content(cipher.block_bytes()))).unwrap()
}

#[test]
fn every_vector_comes_out_as_it_says() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../vectors/legacy-cbc.json");
    let all: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    let vectors = all["vectors"].as_array().unwrap();
    assert_eq!(vectors.len(), 69);
    for vector in vectors {
        let name = vector["name"].as_str().unwrap();
        let text = |field: &str| vector[field].as_str().unwrap();
        let place = Place::new();
        let key = LegacyKey::new(text("cipher"), &hex(&vector["key"]), text("iv")).unwrap();
        let input = place.write("file", &hex(&vector["file"]));
        let output = place.path("out");
        let opened = open(&input, &key, &Output::File(output.clone()));
        if let Some(reason) = vector["expect"].get("refuse") {
            let error = opened.unwrap_err();
            let found = match &error {
                OpenError::Blocks { .. } => "blocks",
                OpenError::Padding { .. } => "padding",
                _ => "other",
            };
            assert_eq!(found, reason.as_str().unwrap(), "{name}: {error}");
            assert_eq!(error.trouble(), Trouble::Damaged, "{name}");
            assert_eq!(place.names(), ["file"], "{name}");
            continue;
        }
        let report = opened.unwrap();
        let plain = hex(&vector["expect"]["plaintext"]);
        assert!(fs::read(&output).unwrap() == plain, "{name}");
        assert_eq!(report.plaintext_bytes, plain.len() as u64, "{name}");
        assert_eq!(report.file_bytes, hex(&vector["file"]).len() as u64, "{name}");
        if vector["note"] != "CBC has no integrity: this passes, with other plaintext" {
            let again = Output::File(place.path("again"));
            let plain = Input::File(output);
            legacy_cbc::seal(&key, &plain, &again, &SealOptions::default()).unwrap();
            assert!(
                fs::read(place.path("again")).unwrap() == hex(&vector["file"]),
                "{name}: what we write is not what OpenSSL wrote"
            );
        }
    }
}

#[test]
fn files_larger_than_a_piece_come_back() {
    let place = Place::new();
    for cipher in [LegacyCipher::named("bf-cbc"), LegacyCipher::named("aes-256-cbc")] {
        let key = key_of(cipher.unwrap());
        for bytes in [262_143, 262_144, 262_145, 524_288, 700_001] {
            let plain = place.write("plain", &content(bytes));
            let [sealed, opened] = ["sealed", "opened"].map(|name| place.path(name));
            let (to, options) = (
                Output::File(sealed.clone()),
                SealOptions {
                    overwrite: true,
                    ..Default::default()
                },
            );
            let report = legacy_cbc::seal(&key, &plain, &to, &options).unwrap();
            assert_eq!(report.file_bytes, fs::metadata(&sealed).unwrap().len());
            let _ = fs::remove_file(&opened);
            let report = open(&Input::File(sealed), &key, &Output::File(opened.clone())).unwrap();
            assert_eq!(report.plaintext_bytes, bytes as u64);
            assert!(fs::read(&opened).unwrap() == content(bytes), "{bytes}");
        }
    }
}

#[test]
fn a_wrong_end_leaves_what_was_there_and_nothing_goes_into_a_pipe() {
    let place = Place::new();
    let key = key_of(LegacyCipher::named("bf-cbc").unwrap());
    let plain = place.write("plain", &content(600_000));
    let sealed = place.path("sealed");
    legacy_cbc::seal(&key, &plain, &Output::File(sealed.clone()), &SealOptions::default()).unwrap();
    let mut bytes = fs::read(&sealed).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    let bad = place.write("bad", &bytes);
    place.write("out", b"what was there");
    let out = place.path("out");
    let replace = OpenOptions {
        overwrite: true,
        ..OpenOptions::default()
    };
    let Opened::Raw(raw) = Opened::open(&bad).unwrap() else {
        panic!("taken for a sealed file")
    };
    let error = raw.unseal(&key, &Output::File(out.clone()), &replace).unwrap_err();
    assert!(matches!(error, OpenError::Padding { .. }), "{error}");
    assert_eq!(fs::read(&out).unwrap(), b"what was there");
    // a pipe cannot be taken back, so its end is looked at before anything goes into it
    let fifo = place.path("fifo");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    for (input, good) in [(&bad, false), (&Input::File(sealed), true)] {
        let reader = std::thread::spawn({
            let fifo = fifo.clone();
            move || fs::read(fifo).unwrap()
        });
        let opened = open(input, &key, &Output::File(fifo.clone()));
        let read = reader.join().unwrap();
        assert_eq!(opened.is_ok(), good);
        assert!(
            read == if good { content(600_000) } else { Vec::new() },
            "{} bytes",
            read.len()
        );
    }
    // and what comes through a pipe is kept, encrypted, until its end is there
    for (bytes, good) in [(&bytes, false), (&fs::read(place.path("sealed")).unwrap(), true)] {
        let (from, to) = (place.path("from"), place.path("to"));
        for fifo in [&from, &to] {
            let _ = fs::remove_file(fifo);
            assert!(Command::new("mkfifo").arg(fifo).status().unwrap().success());
        }
        let writer = std::thread::spawn({
            let (from, bytes) = (from.clone(), bytes.clone());
            move || fs::write(from, bytes).unwrap()
        });
        let reader = std::thread::spawn({
            let to = to.clone();
            move || fs::read(to).unwrap()
        });
        let opened = open(&Input::File(from), &key, &Output::File(to));
        writer.join().unwrap();
        let read = reader.join().unwrap();
        assert_eq!(opened.is_ok(), good);
        assert!(
            read == if good { content(600_000) } else { Vec::new() },
            "{} bytes",
            read.len()
        );
    }
}

#[test]
fn a_sealed_file_is_never_raw_and_one_without_its_header_is_not_sealed() {
    let place = Place::new();
    let plain = place.write("plain", &content(1000));
    let sealed = place.path("sealed");
    let key = Key::random().unwrap();
    let to = Output::File(sealed.clone());
    seal(&key, &Header::of_key_file(), &plain, &to, &SealOptions::default()).unwrap();
    assert!(matches!(
        Opened::open(&Input::File(sealed.clone())).unwrap(),
        Opened::Sealed(_)
    ));
    let bytes = fs::read(&sealed).unwrap();
    // cut at any length, what has the mark is a damaged sealed file
    for length in [8, 9, 511, 512, 552, 560] {
        let cut = place.write("cut", &bytes[..length]);
        let error = Opened::open(&cut).err().unwrap();
        assert_eq!(error.trouble(), Trouble::Damaged, "{length}");
        assert!(!error.is_not_sealed(), "{length}");
    }
    let stripped = place.write("stripped", &bytes[512..]);
    let Opened::Raw(raw) = Opened::open(&stripped).unwrap() else {
        panic!("a sealed file without its header is taken for one")
    };
    assert!(raw.not_sealed().is_not_sealed());
    let error = SealedInput::open(&stripped).err().unwrap();
    assert!(error.is_not_sealed());
    assert_eq!(error.trouble(), Trouble::Damaged);
}

#[test]
fn keys_that_do_not_fit_their_cipher_are_refused() {
    let refused = |cipher: &str, key: usize, iv: &str| LegacyKey::new(cipher, &vec![7; key], iv).err().unwrap();
    let iv = "0011223344556677";
    assert!(matches!(refused("eds-1", 32, ""), LegacyKeyError::Cipher { .. }));
    assert!(matches!(refused("idea-cbc", 16, iv), LegacyKeyError::Cipher { .. }));
    for (cipher, key) in [
        ("bf-cbc", 3),
        ("bf-cbc", 57),
        ("bf-cbc", 0),
        ("cast5-cbc", 17),
        ("des-cbc", 7),
    ] {
        assert!(
            matches!(refused(cipher, key, iv), LegacyKeyError::KeyLength { .. }),
            "{cipher}, {key} bytes"
        );
    }
    // a key too short for its cipher made the original read past it: nobody can open such a file
    assert!(matches!(
        refused("aes-256-cbc", 16, &iv.repeat(2)),
        LegacyKeyError::KeyLength { .. }
    ));
    for bad in ["", "00112233445566", "0011223344556g77", "001122334455667"] {
        assert!(matches!(refused("bf-cbc", 16, bad), LegacyKeyError::Iv { .. }), "{bad}");
    }
    let cipher = LegacyCipher::named("bf-cbc").unwrap();
    assert_eq!(cipher.bits_that_the_original_used(256), Some(128));
    assert_eq!(cipher.bits_that_the_original_used(64), None);
}

fn openssl(direction: &str, key: &LegacyKey, from: &Path, to: &Path) -> (bool, String) {
    let output = Command::new("openssl")
        .args(["enc", direction, &format!("-{}", key.cipher())])
        .args(["-K", &HEXLOWER.encode(key.key().expose()), "-iv", &key.iv()])
        .args(["-provider", "legacy", "-provider", "default"])
        .arg("-in")
        .arg(from)
        .arg("-out")
        .arg(to)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.success(), said)
}

#[test]
fn peer_openssl_reads_what_we_write_and_we_read_what_it_writes() {
    let place = Place::new();
    let [sealed, opened] = ["sealed", "opened"].map(|name| place.path(name));
    for cipher in LegacyCipher::all() {
        let key = key_of(cipher);
        for bytes in [0, 1, 15, 16, 17, 65_536, 300_000] {
            let plain = place.write("plain", &content(bytes));
            for path in [&sealed, &opened] {
                let _ = fs::remove_file(path);
            }
            let to = Output::File(sealed.clone());
            legacy_cbc::seal(&key, &plain, &to, &SealOptions::default()).unwrap();
            let (ok, said) = openssl("-d", &key, &sealed, &opened);
            assert!(ok, "{cipher}, {bytes} bytes: {said}");
            assert!(fs::read(&opened).unwrap() == content(bytes), "{cipher}, {bytes} bytes");
            for path in [&sealed, &opened] {
                let _ = fs::remove_file(path);
            }
            let (ok, said) = openssl("-e", &key, &place.path("plain"), &sealed);
            assert!(ok, "{cipher}, {bytes} bytes: {said}");
            open(&Input::File(sealed.clone()), &key, &Output::File(opened.clone())).unwrap();
            assert!(fs::read(&opened).unwrap() == content(bytes), "{cipher}, {bytes} bytes");
        }
    }
    // it tells good from bad, else the above would prove nothing
    let key = key_of(LegacyCipher::named("aes-128-cbc").unwrap());
    place.write("cut", &content(17));
    let cut = place.path("cut");
    assert!(!openssl("-d", &key, &cut, &opened).0);
}
