//! Sealed files from outside: damage of every kind, a second implementation, and outputs that appear whole or not.
#![cfg(feature = "sealed")]
#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::io::{Read, Write};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use aes_gcm::aead::{Aead, KeyInit};
use hydra_core::ids::RegistrationId;
use hydra_core::key_id::KeyId;
use hydra_core::sealed::{
    Batch, Header, HeaderError, Input, InputError, OpenError, OpenOptions, Output, OutputError, Progress, RangeReader,
    Report, SealError, SealOptions, SealedInput, Trouble, seal, seal_reader, sizes,
};
use hydra_core::secret::Key;

struct Bench {
    folder: tempfile::TempDir,
    key: Key,
}

impl Bench {
    fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            key: Key::from_slice(&[42; 32]).unwrap(),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, content: &[u8]) {
        std::fs::write(self.path(name), content).unwrap();
    }

    fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path(name)).unwrap()
    }

    fn seal(&self, from: &str, to: &str, options: &SealOptions<'_>) -> Result<Report, SealError> {
        let (from, to) = (Input::File(self.path(from)), Output::File(self.path(to)));
        seal(&self.key, &header(), &from, &to, options)
    }

    fn open(&self, from: &str, to: &str, options: &OpenOptions<'_>) -> Result<Report, OpenError> {
        SealedInput::open(&Input::File(self.path(from)))?.unseal(&self.key, &Output::File(self.path(to)), options)
    }

    fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.folder.path()).unwrap();
        let mut names = Vec::from_iter(entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()));
        names.sort();
        names
    }
}

fn header() -> Header {
    Header::of_registration(KeyId::new("/myvo/scan").unwrap(), RegistrationId([7; 16]))
}

fn content(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|i| (i % 251) as u8).collect()
}

fn quick<'a>() -> SealOptions<'a> {
    SealOptions {
        sync: false,
        ..SealOptions::default()
    }
}

fn quick_open<'a>() -> OpenOptions<'a> {
    OpenOptions {
        sync: false,
        ..OpenOptions::default()
    }
}

fn sealed_bytes(bench: &Bench, plaintext: &[u8]) -> Vec<u8> {
    bench.write("plain", plaintext);
    bench
        .seal(
            "plain",
            "sealed",
            &SealOptions {
                overwrite: true,
                ..quick()
            },
        )
        .unwrap();
    bench.read("sealed")
}

#[test]
fn what_was_sealed_opens_again() {
    let bench = Bench::new();
    for bytes in [0, 1, 511, 65_480, 65_481, 131_001, 1_000_000] {
        let file = sealed_bytes(&bench, &content(bytes));
        assert_eq!(sizes::file_size(bytes as u64), Ok(file.len() as u64));
        let report = bench
            .open(
                "sealed",
                "opened",
                &OpenOptions {
                    overwrite: true,
                    ..quick_open()
                },
            )
            .unwrap();
        assert!(bench.read("opened") == content(bytes), "{bytes}");
        assert_eq!(
            (report.plaintext_bytes, report.file_bytes),
            (bytes as u64, file.len() as u64)
        );
    }
}

#[test]
fn two_sealings_of_the_same_have_nothing_in_common() {
    let bench = Bench::new();
    let (first, second) = (sealed_bytes(&bench, b"same"), sealed_bytes(&bench, b"same"));
    assert_eq!(first[..513], second[..513]);
    assert_ne!(first[513..545], second[513..545]);
    assert_ne!(first[552..], second[552..]);
}

/// The format once more, by other people's AES-GCM and HKDF and by its document alone.
fn open_otherwise(key: &[u8], file: &[u8]) -> Option<Vec<u8>> {
    let (header, body) = file.split_at_checked(512)?;
    let (start, _) = body.split_at_checked(40)?;
    let mut derived = [0; 32];
    hkdf::Hkdf::<sha2::Sha256>::new(Some(&start[1..33]), key)
        .expand(header, &mut derived)
        .ok()?;
    let cipher = aes_gcm::Aes256Gcm::new_from_slice(&derived).ok()?;
    let segments = Vec::from_iter(body.chunks(65_536));
    let mut plaintext = Vec::new();
    for (number, segment) in segments.iter().enumerate() {
        let mut nonce = [0; 12];
        nonce[..7].copy_from_slice(&start[33..]);
        nonce[7..11].copy_from_slice(&(number as u32).to_be_bytes());
        nonce[11] = u8::from(number + 1 == segments.len());
        let sealed = if number == 0 { &segment[40..] } else { segment };
        plaintext.extend(cipher.decrypt(&nonce.into(), sealed).ok()?);
    }
    Some(plaintext)
}

#[test]
fn a_second_implementation_opens_what_we_seal() {
    let bench = Bench::new();
    for bytes in [0, 1, 65_480, 65_481, 131_000, 131_001, 400_000] {
        let file = sealed_bytes(&bench, &content(bytes));
        assert!(open_otherwise(&[42; 32], &file).unwrap() == content(bytes), "{bytes}");
        assert!(open_otherwise(&[41; 32], &file).is_none());
    }
}

#[test]
fn every_truncation_is_refused_and_leaves_nothing() {
    let bench = Bench::new();
    let file = sealed_bytes(&bench, b"a few bytes");
    let cutting = std::fs::File::options().write(true).open(bench.path("sealed")).unwrap();
    for bytes in (0..file.len()).rev() {
        cutting.set_len(bytes as u64).unwrap();
        let error = bench.open("sealed", "opened", &quick_open()).unwrap_err();
        assert_eq!(error.trouble(), Trouble::Damaged, "{bytes}: {error:?}");
        assert_eq!(bench.names(), ["plain", "sealed"]);
    }
}

#[test]
fn every_flipped_bit_is_refused_and_leaves_nothing() {
    let bench = Bench::new();
    let mut file = sealed_bytes(&bench, b"a few bytes");
    // Changed in place: some file systems flush a file that is truncated and written again.
    let changing = std::fs::File::options().write(true).open(bench.path("sealed")).unwrap();
    for bit in 0..8 * file.len() {
        file[bit / 8] ^= 1 << (bit % 8);
        let reader = RangeReader::open(file.as_slice(), Input::Stdin).and_then(|reader| reader.unlock(&bench.key));
        let error = reader.and_then(|reader| reader.read(0, 100)).unwrap_err();
        assert_eq!(error.trouble(), Trouble::Damaged, "{bit}: {error:?}");
        changing.write_all_at(&file, 0).unwrap();
        let error = bench.open("sealed", "opened", &quick_open()).unwrap_err();
        assert_eq!(error.trouble(), Trouble::Damaged, "{bit}: {error:?}");
        file[bit / 8] ^= 1 << (bit % 8);
    }
    assert_eq!(bench.names(), ["plain", "sealed"]);
}

#[test]
fn a_mended_header_still_fails_in_segment_0() {
    let bench = Bench::new();
    let mut file = sealed_bytes(&bench, b"x");
    let other = Header::of_registration(KeyId::new("/myvo/scan").unwrap(), RegistrationId([8; 16]));
    file[..512].copy_from_slice(&other.encode().unwrap());
    bench.write("sealed", &file);
    let error = bench.open("sealed", "opened", &quick_open()).unwrap_err();
    assert!(matches!(error, OpenError::Segment { segment: 0, .. }), "{error:?}");
    assert!(error.to_string().contains("or sealed under another key"), "{error}");
}

#[test]
fn a_damaged_segment_is_named_with_its_bytes() {
    let bench = Bench::new();
    let mut file = sealed_bytes(&bench, &content(131_001));
    file[70_000] ^= 1;
    bench.write("sealed", &file);
    let error = bench.open("sealed", "opened", &quick_open()).unwrap_err().to_string();
    let path = bench.path("sealed");
    let expected = format!(
        "`{}` is damaged: segment 1 (bytes 66048 to 131583) does not verify",
        path.display()
    );
    assert_eq!(error, expected);
}

#[test]
fn a_plain_file_is_told_from_a_damaged_one() {
    let bench = Bench::new();
    bench.write("sealed", &content(1000));
    let error = bench.open("sealed", "opened", &quick_open()).unwrap_err();
    assert!(error.is_not_sealed());
    assert!(matches!(
        error,
        OpenError::Header {
            source: HeaderError::NotSealed,
            ..
        }
    ));
}

#[test]
fn nothing_is_overwritten_unless_asked_and_a_failure_leaves_the_old_file() {
    let bench = Bench::new();
    let mut file = sealed_bytes(&bench, b"new");
    bench.write("opened", b"old");
    let error = bench.open("sealed", "opened", &quick_open()).unwrap_err();
    assert!(
        matches!(error, OpenError::Output(OutputError::Exists { .. })),
        "{error:?}"
    );
    assert_eq!(error.trouble(), Trouble::CannotCreate);
    assert!(Output::File(bench.path("opened")).check(false).is_err());
    assert!(Output::File(bench.path("opened")).check(true).is_ok());
    let last = file.len() - 1;
    file[last] ^= 1;
    bench.write("damaged", &file);
    let forced = OpenOptions {
        overwrite: true,
        ..quick_open()
    };
    bench.open("damaged", "opened", &forced).unwrap_err();
    assert_eq!(bench.read("opened"), b"old");
    bench.open("sealed", "opened", &forced).unwrap();
    assert_eq!(bench.read("opened"), b"new");
    assert_eq!(bench.names(), ["damaged", "opened", "plain", "sealed"]);
}

#[test]
fn opened_files_are_their_owners_alone() {
    let bench = Bench::new();
    sealed_bytes(&bench, b"x");
    bench.open("sealed", "opened", &quick_open()).unwrap();
    assert_eq!(
        std::fs::metadata(bench.path("opened")).unwrap().permissions().mode() & 0o777,
        0o600
    );
}

#[test]
fn input_and_output_may_not_be_the_same_file() {
    let bench = Bench::new();
    bench.write("plain", b"x");
    std::fs::hard_link(bench.path("plain"), bench.path("hard")).unwrap();
    std::os::unix::fs::symlink("plain", bench.path("soft")).unwrap();
    for name in ["plain", "hard", "soft"] {
        let error = bench
            .seal(
                "plain",
                name,
                &SealOptions {
                    overwrite: true,
                    ..quick()
                },
            )
            .unwrap_err();
        assert!(
            matches!(error, SealError::Output(OutputError::SameFile { .. })),
            "{name}: {error:?}"
        );
    }
    assert_eq!(bench.read("plain"), b"x");
}

#[test]
fn a_symbolic_link_stays_and_what_it_points_to_is_replaced() {
    let bench = Bench::new();
    sealed_bytes(&bench, b"new");
    bench.write("target", b"old");
    std::os::unix::fs::symlink("target", bench.path("link")).unwrap();
    bench
        .open(
            "sealed",
            "link",
            &OpenOptions {
                overwrite: true,
                ..quick_open()
            },
        )
        .unwrap();
    assert!(std::fs::symlink_metadata(bench.path("link")).unwrap().is_symlink());
    assert_eq!(bench.read("target"), b"new");
}

#[test]
fn folders_and_what_is_not_there_are_refused() {
    let bench = Bench::new();
    bench.write("plain", b"x");
    std::fs::create_dir(bench.path("folder")).unwrap();
    let error = bench.seal("folder", "out", &quick()).unwrap_err();
    assert!(
        matches!(error, SealError::Input(InputError::Directory { .. })),
        "{error:?}"
    );
    let error = bench.seal("plain", "folder", &quick()).unwrap_err();
    assert!(
        matches!(error, SealError::Output(OutputError::Directory { .. })),
        "{error:?}"
    );
    let error = bench.seal("nothing", "out", &quick()).unwrap_err();
    assert!(matches!(error, SealError::Input(InputError::Open { .. })), "{error:?}");
    let error = bench.seal("plain", "nowhere/out", &quick()).unwrap_err();
    assert!(
        matches!(error, SealError::Output(OutputError::Create { .. })),
        "{error:?}"
    );
    assert!(Output::File(bench.path("nowhere/out")).check(false).is_err());
    assert_eq!(bench.names(), ["folder", "plain"]);
}

#[test]
fn a_full_device_fails_the_writing() {
    let bench = Bench::new();
    bench.write("plain", &content(300_000));
    let (from, full) = (Input::File(bench.path("plain")), Output::File("/dev/full".into()));
    let error = seal(&bench.key, &header(), &from, &full, &quick()).unwrap_err();
    assert!(
        matches!(error, SealError::Output(OutputError::Write { .. })),
        "{error:?}"
    );
    assert_eq!(error.trouble(), Trouble::Io);
    bench.seal("plain", "sealed", &quick()).unwrap();
    let sealed = SealedInput::open(&Input::File(bench.path("sealed"))).unwrap();
    let error = sealed.unseal(&bench.key, &full, &quick_open()).unwrap_err();
    assert!(
        matches!(error, OpenError::Output(OutputError::Write { .. })),
        "{error:?}"
    );
    let null = Output::File("/dev/null".into());
    seal(&bench.key, &header(), &from, &null, &quick()).unwrap();
}

#[test]
fn an_input_that_changes_while_it_is_read_is_refused() {
    for reproducible in [false, true] {
        let bench = Bench::new();
        bench.write("plain", &content(17 * 1024 * 1024));
        let writer = std::fs::File::options().write(true).open(bench.path("plain")).unwrap();
        let modified = writer.metadata().unwrap().modified().unwrap() + std::time::Duration::from_secs(1);
        let change = |_: Progress| {
            writer.write_all_at(b"changed", 0).unwrap();
            writer.set_modified(modified).unwrap();
        };
        let options = SealOptions {
            progress: Some(&change),
            reproducible,
            ..quick()
        };
        let result = bench.seal("plain", "sealed", &options);
        if reproducible {
            // All of it had been read, and its digest taken, before the first progress.
            result.unwrap();
            bench.open("sealed", "opened", &quick_open()).unwrap();
            assert!(bench.read("opened") == content(17 * 1024 * 1024));
        } else {
            let error = result.unwrap_err();
            assert!(
                matches!(error, SealError::Input(InputError::Changed { .. })),
                "{error:?}"
            );
            assert_eq!(bench.names(), ["plain"]);
        }
    }
}

#[test]
fn cancelling_leaves_nothing() {
    let bench = Bench::new();
    bench.write("plain", &content(2_000_000));
    let cancel = AtomicBool::new(false);
    let stop = |_: Progress| cancel.store(true, Ordering::Relaxed);
    let options = SealOptions {
        progress: Some(&stop),
        cancel: Some(&cancel),
        ..quick()
    };
    let error = bench.seal("plain", "sealed", &options).unwrap_err();
    assert!(matches!(error, SealError::Cancelled { .. }), "{error:?}");
    assert_eq!(bench.names(), ["plain"]);
}

#[test]
fn progress_ends_at_the_size_of_the_plaintext() {
    let bench = Bench::new();
    bench.write("plain", &content(2_000_000));
    let most = AtomicU64::new(0);
    let note = |progress: Progress| {
        assert_eq!(progress.total_bytes, Some(2_000_000));
        most.fetch_max(progress.done_bytes, Ordering::Relaxed);
    };
    bench
        .seal(
            "plain",
            "sealed",
            &SealOptions {
                progress: Some(&note),
                ..quick()
            },
        )
        .unwrap();
    assert_eq!(most.swap(0, Ordering::Relaxed), 2_000_000);
    bench
        .open(
            "sealed",
            "opened",
            &OpenOptions {
                progress: Some(&note),
                ..quick_open()
            },
        )
        .unwrap();
    assert_eq!(most.load(Ordering::Relaxed), 2_000_000);
}

#[test]
fn a_sparse_file_seals_and_opens() {
    let bench = Bench::new();
    std::fs::File::create(bench.path("plain"))
        .unwrap()
        .set_len(40_000_000)
        .unwrap();
    bench.seal("plain", "sealed", &quick()).unwrap();
    let report = bench.open("sealed", "opened", &quick_open()).unwrap();
    assert_eq!(report.plaintext_bytes, 40_000_000);
    assert!(bench.read("opened").iter().all(|byte| *byte == 0));
}

fn fifo(path: &Path) {
    let kind = rustix::fs::FileType::Fifo;
    rustix::fs::mknodat(
        rustix::fs::CWD,
        path,
        kind,
        rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
        0,
    )
    .unwrap();
}

#[test]
fn pipes_are_read_and_written_directly() {
    let bench = Bench::new();
    let plaintext = content(1_000_003);
    sealed_bytes(&bench, &plaintext);
    fifo(&bench.path("in"));
    fifo(&bench.path("out"));
    for damaged in [false, true] {
        let mut file = bench.read("sealed");
        if damaged {
            file[512 + 5 * 65_536] ^= 1;
        }
        let (from, to) = (bench.path("in"), bench.path("out"));
        let (result, got) = std::thread::scope(|scope| {
            let feeding = scope.spawn(|| {
                std::fs::File::options()
                    .write(true)
                    .open(&from)
                    .unwrap()
                    .write_all(&file)
            });
            let reading = scope.spawn(|| {
                let mut got = Vec::new();
                std::fs::File::open(&to).unwrap().read_to_end(&mut got).unwrap();
                got
            });
            let result = bench.open("in", "out", &quick_open());
            let _ = feeding.join().unwrap();
            (result, reading.join().unwrap())
        });
        if damaged {
            let good = 5 * 65_520 - 40;
            assert!(got == plaintext[..good]);
            let error = result.unwrap_err();
            assert_eq!(error.trouble(), Trouble::Damaged);
            let OpenError::Partial {
                written_bytes, source, ..
            } = error
            else {
                panic!("{error:?}");
            };
            assert_eq!(written_bytes, good as u64);
            assert!(matches!(*source, OpenError::Segment { segment: 5, .. }), "{source:?}");
        } else {
            assert!(got == plaintext);
            assert_eq!(result.unwrap().plaintext_bytes, plaintext.len() as u64);
        }
    }
    // Still FIFOs: nothing took their names.
    let kinds = ["in", "out"].map(|name| std::fs::metadata(bench.path(name)).unwrap().mode() & 0o170_000);
    assert_eq!(kinds, [0o010_000; 2]);
}

#[test]
fn a_cut_pipe_is_refused_wherever_it_is_cut() {
    let bench = Bench::new();
    let file = sealed_bytes(&bench, &content(65_490));
    fifo(&bench.path("in"));
    for bytes in [
        0,
        7,
        8,
        511,
        512,
        551,
        552,
        567,
        66_048,
        66_049,
        66_063,
        66_064,
        66_065,
        file.len() - 1,
    ] {
        let from = bench.path("in");
        let result = std::thread::scope(|scope| {
            let feeding = scope.spawn(|| {
                std::fs::File::options()
                    .write(true)
                    .open(&from)
                    .unwrap()
                    .write_all(&file[..bytes])
                    .unwrap();
            });
            let result = bench.open("in", "opened", &quick_open());
            feeding.join().unwrap();
            result
        });
        let error = result.unwrap_err();
        assert_eq!(error.trouble(), Trouble::Damaged, "{bytes}: {error:?}");
        assert!(!bench.path("opened").exists());
    }
}

#[test]
fn reproducible_sealing_is_the_same_from_a_file_and_a_pipe() {
    let bench = Bench::new();
    fifo(&bench.path("in"));
    let options = SealOptions {
        reproducible: true,
        overwrite: true,
        ..quick()
    };
    for bytes in [0, 70_000, 17 * 1024 * 1024] {
        let plaintext = content(bytes);
        bench.write("plain", &plaintext);
        bench.seal("plain", "first", &options).unwrap();
        bench.seal("plain", "second", &options).unwrap();
        let from = bench.path("in");
        std::thread::scope(|scope| {
            scope.spawn(|| {
                std::fs::File::options()
                    .write(true)
                    .open(&from)
                    .unwrap()
                    .write_all(&plaintext)
                    .unwrap();
            });
            bench.seal("in", "third", &options).unwrap();
        });
        let first = bench.read("first");
        assert!(first == bench.read("second") && first == bench.read("third"), "{bytes}");
        assert!(open_otherwise(&[42; 32], &first).unwrap() == plaintext);
    }
    assert_eq!(bench.names(), ["first", "in", "plain", "second", "third"]);
}

#[test]
fn a_batch_appears_when_it_is_committed() {
    let bench = Bench::new();
    let batch = Batch::new();
    for number in 0..20 {
        let name = format!("{number}");
        bench.write(&name, &content(number * 1000));
        let options = SealOptions {
            batch: Some(&batch),
            ..SealOptions::default()
        };
        bench.seal(&name, &format!("{number}.eds"), &options).unwrap();
    }
    assert_eq!(bench.names().len(), 20);
    assert!(batch.commit().into_iter().all(|(_, result)| result.is_ok()));
    for number in 0..20 {
        bench
            .open(
                &format!("{number}.eds"),
                "opened",
                &OpenOptions {
                    overwrite: true,
                    ..quick_open()
                },
            )
            .unwrap();
        assert!(bench.read("opened") == content(number * 1000));
    }
}

#[test]
fn ranges_are_what_a_plain_file_would_give() {
    let bench = Bench::new();
    let plaintext = content(200_000);
    sealed_bytes(&bench, &plaintext);
    let file = std::fs::File::open(bench.path("sealed")).unwrap();
    let reader = RangeReader::open(file, Input::File(bench.path("sealed"))).unwrap();
    assert!(reader.read(0, 1).is_err(), "no key, no plaintext");
    let reader = reader.unlock(&bench.key).unwrap();
    assert_eq!(reader.plaintext_bytes(), 200_000);
    for (offset, length) in [
        (0, 0),
        (0, 1),
        (0, 200_000),
        (65_479, 2),
        (65_480, 65_520),
        (130_999, 1),
        (131_000, 1),
        (199_999, 10),
        (200_000, 10),
        (u64::MAX, usize::MAX),
        (5, usize::MAX),
    ] {
        let start = plaintext.len().min(usize::try_from(offset).unwrap());
        let end = plaintext.len().min(start.saturating_add(length));
        assert!(
            *reader.read(offset, length).unwrap() == plaintext[start..end],
            "{offset} {length}"
        );
    }
}

#[test]
fn what_is_read_from_anywhere_is_sealed_as_a_file_is() {
    let bench = Bench::new();
    let reproducible = SealOptions {
        reproducible: true,
        ..quick()
    };
    // in memory, and over a spool
    for bytes in [0, 700_000, 17 * 1024 * 1024] {
        let plaintext = content(bytes);
        bench.write("plain", &plaintext);
        let (name, output) = (Input::File("an instance".into()), Output::File(bench.path("read")));
        let report = seal_reader(
            &bench.key,
            &header(),
            &name,
            &mut plaintext.as_slice(),
            &output,
            &reproducible,
        );
        assert_eq!(report.unwrap(), bench.seal("plain", "sealed", &reproducible).unwrap());
        assert!(bench.read("read") == bench.read("sealed"), "{bytes}");
        std::fs::remove_file(bench.path("read")).unwrap();
        std::fs::remove_file(bench.path("sealed")).unwrap();
    }
}

#[test]
fn a_reader_that_fails_at_its_end_leaves_nothing() {
    struct Failing;
    impl Read for Failing {
        fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
            Err(std::io::Error::other("refused"))
        }
    }
    let bench = Bench::new();
    for (bytes, reproducible) in [(10, true), (200_000, false), (17 * 1024 * 1024, true)] {
        let plaintext = content(bytes);
        let mut reader = plaintext.as_slice().chain(Failing);
        let options = SealOptions {
            reproducible,
            ..quick()
        };
        let (name, output) = (Input::File("an instance".into()), Output::File(bench.path("read")));
        let error = seal_reader(&bench.key, &header(), &name, &mut reader, &output, &options).unwrap_err();
        assert!(matches!(error, SealError::Input(InputError::Read { .. })), "{error}");
        assert!(bench.names().is_empty(), "{:?}", bench.names());
    }
}
