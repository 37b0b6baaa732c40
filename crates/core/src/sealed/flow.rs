//! Sealing into a pipe and opening out of one, for files that go over a network while they are sealed or opened.
//!
//! The other end of a pipe sees the end of the bytes also where sealing failed: whoever stores them must wait for the
//! report before calling the file whole. Opening needs no such word, the last segment says that it is the last.

use std::fs::File;
use std::path::PathBuf;

use super::file::{OpenError, Report, SealError, SealOptions, SealedInput, seal_opened};
use super::header::Header;
use super::place::{Input, InputError, OpenInput, OpenOutput, Output};
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
    use std::io::{Read, pipe};
    use std::os::fd::OwnedFd;

    use super::*;
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
                let _ = std::io::Write::write_all(&mut opened, &bytes);
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
