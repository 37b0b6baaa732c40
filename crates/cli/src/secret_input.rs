//! Secrets on their way in: a file, a pipe, or a terminal without echo; never an argument.
//!
//! On a terminal the line is read key by key and not by the kernel: its lines end at 4095 bytes, which a pasted share
//! may exceed, and Ctrl-C would leave the echo off.

use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal, Read, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use rustix::termios::{LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcsetattr};
use zeroize::{Zeroize, Zeroizing};

use crate::{Code, Failure, output, signals};

/// Where a secret comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// Standard input: a pipe, or a terminal.
    Stdin,
    /// A file, byte for byte.
    File(PathBuf),
}

impl Source {
    /// Standard input where no path is given, or `-`.
    pub fn from_operand(path: Option<&Path>) -> Self {
        match path {
            None => Self::Stdin,
            Some(path) if path.as_os_str() == "-" => Self::Stdin,
            Some(path) => Self::File(path.to_owned()),
        }
    }

    /// Whether somebody at a terminal has to be asked.
    pub fn is_terminal(&self) -> bool {
        *self == Self::Stdin && io::stdin().is_terminal()
    }
}

/// Why a secret could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SecretInputError {
    /// A file or standard input.
    #[error("cannot read {}", name(.from))]
    Read {
        /// From where.
        from: Source,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// More than is allowed.
    #[error("{} holds more than {limit} bytes", name(.from))]
    TooLong {
        /// From where.
        from: Source,
        /// How much would be read.
        limit: usize,
    },
    /// Nobody can be asked.
    #[error("no terminal to ask on")]
    NoTerminal(#[source] io::Error),
    /// Ctrl-C, or the terminal closed.
    #[error("interrupted")]
    Interrupted,
    /// The second of two times differed.
    #[error("the two inputs differ")]
    Differ,
}

fn name(source: &Source) -> String {
    match source {
        Source::Stdin => "standard input".to_owned(),
        Source::File(path) => format!("`{}`", path.display()),
    }
}

impl From<SecretInputError> for Failure {
    fn from(error: SecretInputError) -> Self {
        let code = match error {
            SecretInputError::Read { .. } | SecretInputError::NoTerminal(_) => Code::Io,
            SecretInputError::TooLong { .. } | SecretInputError::Interrupted | SecretInputError::Differ => Code::Failed,
        };
        Self::new(code, error)
    }
}

/// Reads a file or a pipe to its end, byte for byte.
///
/// # Errors
/// Where it cannot be read, or has more than `limit` bytes.
pub fn read_all(from: &Source, limit: usize) -> Result<Zeroizing<Vec<u8>>, SecretInputError> {
    let failed = |source| SecretInputError::Read {
        from: from.clone(),
        source,
    };
    let read = match from {
        Source::Stdin => output::unbuffered(io::stdin().as_fd()).and_then(|mut stdin| read_to_end(&mut stdin, limit)),
        Source::File(path) => File::open(path).and_then(|mut file| read_to_end(&mut file, limit)),
    };
    read.map_err(failed)?.ok_or_else(|| SecretInputError::TooLong {
        from: from.clone(),
        limit,
    })
}

/// Asks on the terminal, without echo, for one line; its end is no part of it.
///
/// # Errors
/// Where there is no terminal, Ctrl-C is typed, or the line is longer than `limit` bytes.
pub fn ask(prompt: &str, limit: usize) -> Result<Zeroizing<Vec<u8>>, SecretInputError> {
    let mut terminal = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/tty")
        .map_err(SecretInputError::NoTerminal)?;
    let failed = |source| SecretInputError::Read {
        from: Source::File("/dev/tty".into()),
        source,
    };
    let _silent = Silence::new(&terminal).map_err(failed)?;
    terminal
        .write_all(crate::printable(prompt).as_bytes())
        .map_err(failed)?;
    let mut line = Line::default();
    let mut byte = Zeroizing::new([0]);
    let end = loop {
        if terminal.read(&mut byte[..]).map_err(failed)? == 0 {
            break Key::Interrupt;
        }
        match line.press(byte[0]) {
            Key::More if line.0.len() > limit => break Key::Enter,
            Key::More => {}
            end => break end,
        }
    };
    terminal.write_all(b"\n").map_err(failed)?;
    match end {
        Key::Interrupt => Err(SecretInputError::Interrupted),
        _ if line.0.len() > limit => Err(SecretInputError::TooLong {
            from: Source::Stdin,
            limit,
        }),
        _ => Ok(line.0),
    }
}

/// [`ask`] twice, for a secret that nobody could correct later.
///
/// # Errors
/// As [`ask`], and where the second time differs.
pub fn ask_twice(prompt: &str, again: &str, limit: usize) -> Result<Zeroizing<Vec<u8>>, SecretInputError> {
    let first = ask(prompt, limit)?;
    let second = ask(again, limit)?;
    if *first == *second {
        Ok(first)
    } else {
        Err(SecretInputError::Differ)
    }
}

/// A passphrase from the terminal, in the shape in which credentials ask for one; none where nobody answers.
pub fn passphrase(prompt: &str) -> Option<Zeroizing<String>> {
    let mut line = ask(prompt, 4096).ok()?;
    match String::from_utf8(std::mem::take(&mut *line)) {
        Ok(text) => Some(Zeroizing::new(text)),
        Err(error) => {
            error.into_bytes().zeroize();
            None
        }
    }
}

/// All of a reader, growing without leaving copies behind; none where there is more than `limit`.
fn read_to_end(reader: &mut impl Read, limit: usize) -> io::Result<Option<Zeroizing<Vec<u8>>>> {
    let mut all = Zeroizing::new(Vec::new());
    let mut part = Zeroizing::new(vec![0; 64 << 10]);
    loop {
        match reader.read(&mut part) {
            Ok(0) => return Ok(Some(all)),
            Ok(count) if all.len() + count > limit => return Ok(None),
            Ok(count) => append(&mut all, &part[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Like `extend_from_slice`, but the old place is wiped where the bytes have to move.
fn append(all: &mut Zeroizing<Vec<u8>>, part: &[u8]) {
    if all.capacity() - all.len() < part.len() {
        let mut larger = Vec::with_capacity((2 * all.capacity()).max(all.len() + part.len()));
        larger.extend_from_slice(all);
        *all = Zeroizing::new(larger);
    }
    all.extend_from_slice(part);
}

/// What a key meant.
#[derive(Debug, PartialEq, Eq)]
enum Key {
    More,
    Enter,
    Interrupt,
}

/// A line while it is typed.
#[derive(Default)]
struct Line(Zeroizing<Vec<u8>>);

impl Line {
    fn press(&mut self, byte: u8) -> Key {
        match byte {
            b'\r' | b'\n' => return Key::Enter,
            // Ctrl-C; Ctrl-D with nothing typed
            0x03 => return Key::Interrupt,
            0x04 if self.0.is_empty() => return Key::Interrupt,
            0x04 => return Key::Enter,
            // erase: one character of UTF-8, however many bytes it has
            0x08 | 0x7f => while self.0.pop().is_some_and(|last| last & 0xc0 == 0x80) {},
            // Ctrl-U
            0x15 => self.0.clear(),
            _ => append(&mut self.0, &[byte]),
        }
        Key::More
    }
}

/// A terminal that shows nothing and hands over each key; as it was before when dropped, or when a signal comes.
struct Silence {
    terminal: File,
    before: Termios,
    _on_signal: signals::OnSignal,
}

impl Silence {
    fn new(terminal: &File) -> io::Result<Self> {
        let terminal = terminal.try_clone()?;
        let before = tcgetattr(&terminal)?;
        let restore = (terminal.try_clone()?, before.clone());
        let on_signal = signals::on_signal(move || {
            let _ = tcsetattr(&restore.0, OptionalActions::Now, &restore.1);
        })?;
        let mut silent = before.clone();
        silent
            .local_modes
            .remove(LocalModes::ECHO | LocalModes::ECHONL | LocalModes::ICANON | LocalModes::ISIG);
        silent.special_codes[SpecialCodeIndex::VMIN] = 1;
        silent.special_codes[SpecialCodeIndex::VTIME] = 0;
        tcsetattr(&terminal, OptionalActions::Flush, &silent)?;
        Ok(Self {
            terminal,
            before,
            _on_signal: on_signal,
        })
    }
}

impl Drop for Silence {
    fn drop(&mut self) {
        let _ = tcsetattr(&self.terminal, OptionalActions::Now, &self.before);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(keys: &[u8]) -> (Vec<u8>, Option<Key>) {
        let mut line = Line::default();
        let end = keys.iter().map(|key| line.press(*key)).find(|key| *key != Key::More);
        (line.0.to_vec(), end)
    }

    #[test]
    fn keys_do_what_they_do_elsewhere() {
        assert_eq!(typed(b"secret\n"), (b"secret".to_vec(), Some(Key::Enter)));
        assert_eq!(typed("sä\u{7f}x\r".as_bytes()), (b"sx".to_vec(), Some(Key::Enter)));
        assert_eq!(typed(b"\x7f\x08a\x15b\x04"), (b"b".to_vec(), Some(Key::Enter)));
        assert_eq!(typed(b"abc\x03").1, Some(Key::Interrupt));
        assert_eq!(typed(b"\x04").1, Some(Key::Interrupt));
        assert_eq!(typed(b"abc").1, None);
    }

    #[test]
    fn a_reader_is_read_whole_or_not_at_all() {
        let data = vec![7; 200_000];
        assert_eq!(
            read_to_end(&mut data.as_slice(), 200_000).unwrap().map(|all| all.len()),
            Some(200_000)
        );
        assert!(read_to_end(&mut data.as_slice(), 199_999).unwrap().is_none());
    }

    #[test]
    fn a_dash_is_standard_input() {
        assert_eq!(Source::from_operand(Some(Path::new("-"))), Source::Stdin);
        assert_eq!(Source::from_operand(None), Source::Stdin);
        assert_eq!(Source::from_operand(Some(Path::new("./-"))), Source::File("./-".into()));
    }

    #[test]
    fn a_missing_file_is_named() {
        let failure = Failure::from(read_all(&Source::File("/no/such\nfile".into()), 10).unwrap_err());
        assert_eq!(failure.code, Code::Io);
        assert_eq!(failure.lines()[0], "error: cannot read `/no/such\\nfile`");
    }
}
