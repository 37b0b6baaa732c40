//! Sealing into a pipe and opening out of one, for files that go over a network while they are sealed or opened.
//!
//! The other end of a pipe sees the end of the bytes also where sealing failed: whoever stores them must wait for the
//! report before calling the file whole. Opening needs no such word, the last segment says that it is the last.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::sync::atomic::Ordering;

use zeroize::Zeroizing;

use super::file::{OpenError, Progress, Report, SealError, SealOptions, SealedInput, seal_opened};
use super::header::Header;
use super::place::{Input, InputError, OpenInput, OpenOutput, Output, OutputError};
use crate::secret::Key;

/// An end of a pipe, and what errors call what is at the other.
pub struct Pipe {
    /// The end.
    pub file: File,
    /// For example a URL.
    pub name: String,
}

/// Seals `input` under `key` into a pipe, with `header` in front. Memory is bounded, whatever the size.
///
/// Of the options, those about outputs that get a name have no effect.
///
/// # Errors
/// See [`SealError`]; a reader that went away is a failure to write.
pub fn seal_into(
    key: &Key,
    header: &Header,
    input: &Input,
    pipe: Pipe,
    options: &SealOptions<'_>,
) -> Result<Report, SealError> {
    let opened = OpenInput::open(input).map_err(SealError::Input)?;
    let output = Output::File(PathBuf::from(pipe.name));
    seal_opened(key, header, &opened, &output, &OpenOutput::direct(pipe.file), options)
}

/// How much is passed on at once.
const PIECE: usize = 256 * 1024;

/// Passes `input` through a pipe as it is, for what is not to be sealed.
///
/// Of the options, only progress and cancelling have an effect.
///
/// # Errors
/// See [`SealError`]; a reader that went away is a failure to write.
pub fn pass_into(input: &Input, mut pipe: Pipe, options: &SealOptions<'_>) -> Result<Report, SealError> {
    let opened = OpenInput::open(input).map_err(SealError::Input)?;
    let mut piece = Zeroizing::new(vec![0; PIECE]);
    let mut done_bytes = 0;
    loop {
        let read = match (&opened.file).read(&mut piece) {
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(source) => return Err(SealError::Input(opened.read_error(source))),
        };
        if read == 0 {
            break;
        }
        pipe.file.write_all(&piece[..read]).map_err(|source| {
            let output = Output::File(PathBuf::from(&pipe.name));
            SealError::Output(OutputError::Write { output, source })
        })?;
        done_bytes += read as u64;
        if let Some(progress) = options.progress {
            let total_bytes = opened.size();
            progress(Progress {
                done_bytes,
                total_bytes,
            });
        }
        if options.cancel.is_some_and(|cancel| cancel.load(Ordering::Relaxed)) {
            return Err(SealError::Cancelled { input: input.clone() });
        }
    }
    opened.unchanged().map_err(SealError::Input)?;
    Ok(Report {
        plaintext_bytes: done_bytes,
        file_bytes: done_bytes,
    })
}

impl SealedInput {
    /// A sealed file that comes out of a pipe: as [`SealedInput::open`], its size unknown.
    ///
    /// # Errors
    /// Among the [`OpenError`]s, those that need no key.
    pub fn from_pipe(pipe: Pipe) -> Result<Self, OpenError> {
        let input = Input::File(PathBuf::from(pipe.name));
        let opened = OpenInput::pipe(input.clone(), pipe.file);
        Self::of(opened.map_err(|source| OpenError::Input(InputError::Open { input, source }))?)
    }
}

#[cfg(test)]
mod tests {
    use std::io::pipe;
    use std::os::fd::OwnedFd;

    use std::sync::atomic::AtomicBool;

    use super::*;
    use crate::sealed::legacy_cbc::{self, LegacyKey, RawInput};
    use crate::sealed::{OpenOptions, Trouble};

    fn named(file: OwnedFd) -> Pipe {
        Pipe {
            file: file.into(),
            name: "https://se/x".into(),
        }
    }

    /// Seals into a pipe, cuts what comes out of it, and opens it out of another one.
    fn through(plaintext: &[u8], keep: impl Fn(&mut Vec<u8>) + Send + Sync) -> Result<Vec<u8>, OpenError> {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("plain"), folder.path().join("opened"));
        std::fs::write(&from, plaintext).unwrap();
        let key = Key::random().unwrap();
        let header = Header::of_key_file();
        let (mut sealed, sealing) = pipe().unwrap();
        let (opening, mut opened) = pipe().unwrap();
        std::thread::scope(|scope| {
            let seal = scope.spawn(|| {
                let (pipe, options) = (named(sealing.into()), SealOptions::default());
                seal_into(&key, &header, &Input::File(from.clone()), pipe, &options)
            });
            scope.spawn(move || {
                let mut bytes = Vec::new();
                sealed.read_to_end(&mut bytes).unwrap();
                keep(&mut bytes);
                // the opening end may be gone before it took all
                let _ = opened.write_all(&bytes);
            });
            let input = SealedInput::from_pipe(named(opening.into()))?;
            let output = Output::File(to.clone());
            let report = input.unseal(&key, &output, &OpenOptions::default())?;
            assert_eq!(seal.join().unwrap().unwrap(), report);
            Ok(())
        })?;
        Ok(std::fs::read(&to).unwrap())
    }

    #[test]
    fn what_goes_in_comes_out() {
        for bytes in [0, 1, 65_480, 65_481, 700_000] {
            let plaintext: Vec<u8> = (0..bytes).map(|n| (n % 251) as u8).collect();
            assert_eq!(through(&plaintext, |_| ()).unwrap(), plaintext);
        }
    }

    #[test]
    fn a_pipe_that_ends_early_is_damage_by_name() {
        let plaintext = vec![7; 300_000];
        // also where a segment ends, and within the header
        for length in [200_000, 512 + 2 * 65_536, 551, 100, 0] {
            let error = through(&plaintext, |sealed| sealed.truncate(length)).unwrap_err();
            assert_eq!(error.trouble(), Trouble::Damaged, "{length}: {error}");
            assert!(error.to_string().contains("`https://se/x`"), "{error}");
        }
    }

    fn out_of(send: impl FnOnce(Pipe) -> Report + Send) -> (Vec<u8>, Report) {
        let (mut reader, writer) = pipe().unwrap();
        std::thread::scope(|scope| {
            let sending = scope.spawn(|| send(named(writer.into())));
            let mut bytes = Vec::new();
            reader.read_to_end(&mut bytes).unwrap();
            (bytes, sending.join().unwrap())
        })
    }

    fn legacy_key() -> LegacyKey {
        LegacyKey::new("aes-256-cbc", &[7; 32], "00112233445566778899aabbccddeeff").unwrap()
    }

    #[test]
    fn what_is_passed_on_is_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let from = folder.path().join("plain");
        for bytes in [0, 1, 700_000] {
            let plaintext: Vec<u8> = (0..bytes).map(|n| (n % 251) as u8).collect();
            std::fs::write(&from, &plaintext).unwrap();
            let send = |pipe| pass_into(&Input::File(from.clone()), pipe, &SealOptions::default()).unwrap();
            let (came, report) = out_of(send);
            assert_eq!(came, plaintext);
            assert_eq!((report.plaintext_bytes, report.file_bytes), (bytes, bytes));
        }
    }

    #[test]
    fn files_of_the_original_go_through_pipes_too() {
        let folder = tempfile::tempdir().unwrap();
        let [from, here, to] = ["plain", "here", "opened"].map(|name| folder.path().join(name));
        for bytes in [0, 15, 16, 700_000] {
            let plaintext: Vec<u8> = (0..bytes).map(|n| (n % 251) as u8).collect();
            std::fs::write(&from, &plaintext).unwrap();
            let (key, input, options) = (legacy_key(), Input::File(from.clone()), SealOptions::default());
            let (came, report) = out_of(|pipe| legacy_cbc::seal_into(&key, &input, pipe, &options).unwrap());
            legacy_cbc::seal(
                &key,
                &input,
                &Output::File(here.clone()),
                &SealOptions {
                    overwrite: true,
                    ..options
                },
            )
            .unwrap();
            assert_eq!(came, std::fs::read(&here).unwrap());
            assert_eq!(key.cipher().file_bytes(bytes), Some(report.file_bytes));
            let (reader, mut writer) = pipe().unwrap();
            std::thread::scope(|scope| {
                scope.spawn(move || writer.write_all(&came).unwrap());
                let raw = RawInput::from_pipe(named(reader.into())).unwrap();
                let options = OpenOptions {
                    overwrite: true,
                    ..OpenOptions::default()
                };
                raw.unseal(&key, &Output::File(to.clone()), &options).unwrap();
            });
            assert_eq!(std::fs::read(&to).unwrap(), plaintext);
        }
    }

    /// Without a header nothing tells a file that was cut at a block whose last bytes look like a padding from a whole
    /// one.
    #[test]
    fn a_file_of_the_original_that_broke_off_is_no_output_even_if_its_end_looks_right() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("plain"), folder.path().join("opened"));
        let mut plaintext = vec![9; 64];
        plaintext[31] = 1;
        std::fs::write(&from, &plaintext).unwrap();
        let (key, input) = (legacy_key(), Input::File(from));
        let (whole, _) = out_of(|pipe| legacy_cbc::seal_into(&key, &input, pipe, &SealOptions::default()).unwrap());
        for (broke_off, output) in [
            (false, Output::File(to.clone())),
            (true, Output::File(to.clone())),
            (true, Output::File("/dev/null".into())),
        ] {
            let (reader, mut writer) = pipe().unwrap();
            writer.write_all(&whole[..32]).unwrap();
            let cancel = AtomicBool::new(broke_off);
            drop(writer);
            let raw = RawInput::from_pipe(named(reader.into())).unwrap();
            let options = OpenOptions {
                cancel: Some(&cancel),
                ..OpenOptions::default()
            };
            let opened = raw.unseal(&key, &output, &options);
            assert_eq!(opened.is_err(), broke_off);
            assert_eq!(to.exists(), !broke_off);
            let _ = std::fs::remove_file(&to);
        }
    }

    #[test]
    fn a_reader_that_goes_away_stops_the_sealing() {
        let folder = tempfile::tempdir().unwrap();
        let from = folder.path().join("plain");
        std::fs::write(&from, vec![0; 1 << 20]).unwrap();
        let (sealed, sealing) = pipe().unwrap();
        drop(sealed);
        let (key, header) = (Key::random().unwrap(), Header::of_key_file());
        let (pipe, options) = (named(sealing.into()), SealOptions::default());
        let error = seal_into(&key, &header, &Input::File(from), pipe, &options).unwrap_err();
        assert_eq!(error.trouble(), Trouble::Io, "{error}");
    }
}
