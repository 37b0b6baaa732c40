//! Results on standard output: whole or with an error, and silent where the reader has gone (a broken pipe).

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};

use crate::{Code, Failure};

/// A number with what it counts, a noun that takes an `s` in the plural: `1 image`, `3 images`.
pub fn counted(number: usize, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

/// Why standard output did not take a result.
#[derive(Debug, thiserror::Error)]
#[error("cannot write to standard output")]
struct WriteError(#[source] io::Error);

/// Writes a result to standard output, past the buffer of the standard library: a secret would stay in it unwiped.
///
/// # Errors
/// Exit code 74 where it cannot be written; a reader that has gone is no error.
pub fn print(bytes: &[u8]) -> Result<(), Failure> {
    forgive_broken_pipe(write_now(bytes))
}

fn write_now(bytes: &[u8]) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.flush()?;
    unbuffered(stdout.as_fd())?.write_all(bytes)
}

/// A standard stream as a file, which has no buffer.
pub(crate) fn unbuffered(stream: BorrowedFd<'_>) -> io::Result<File> {
    stream.try_clone_to_owned().map(File::from)
}

/// [`print()`] for a line of text, its end added.
///
/// # Errors
/// As [`print()`].
pub fn print_line(text: &str) -> Result<(), Failure> {
    print(format!("{text}\n").as_bytes())
}

/// [`print_line()`] for one line of many: whether somebody still reads.
///
/// # Errors
/// Exit code 74, where it cannot be written for another reason.
pub fn print_one_more(text: &str) -> Result<bool, Failure> {
    match write_now(format!("{text}\n").as_bytes()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        other => forgive_broken_pipe(other).map(|()| true),
    }
}

/// [`print()`] for a JSON value on one line.
///
/// # Errors
/// As [`print()`].
pub fn print_json(value: &serde_json::Value) -> Result<(), Failure> {
    print_line(&value.to_string())
}

/// What came of writing to standard output, as a command sees it.
///
/// # Errors
/// Exit code 74, but for a broken pipe: whoever read has seen enough.
pub fn forgive_broken_pipe(result: io::Result<()>) -> Result<(), Failure> {
    match result {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Failure::new(Code::Io, WriteError(error))),
        _ => Ok(()),
    }
}

/// A line for people on standard error: what was done, a hint. Nothing is lost where it cannot be written.
pub fn tell(text: &str) {
    let _ = writeln!(anstream::stderr().lock(), "{}", crate::printable(text));
}

/// A warning on standard error.
pub fn warn(text: &str) {
    let bold = anstyle::AnsiColor::Yellow.on_default().bold();
    let _ = writeln!(
        anstream::stderr().lock(),
        "{bold}warning:{bold:#} {}",
        crate::printable(text)
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_broken_pipe_is_forgiven() {
        assert!(forgive_broken_pipe(Err(io::ErrorKind::BrokenPipe.into())).is_ok());
        assert_eq!(
            forgive_broken_pipe(Err(io::ErrorKind::StorageFull.into()))
                .unwrap_err()
                .code,
            Code::Io
        );
    }
}
