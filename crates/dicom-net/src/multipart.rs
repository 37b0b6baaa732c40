//! Answers in several parts (RFC 2046, 5.1; PS3.18, 8.6.1.2): each part is read as a stream, whatever its length.

use std::io::{self, Read};

use memchr::memmem::Finder;

/// What is read at once.
const BUFFER_BYTES: usize = 128 * 1024;
/// The longest delimiter (RFC 2046, 5.1.1: up to 70 characters of boundary; some make longer ones).
const LONGEST_BOUNDARY: usize = 200;
/// The longest headers of a part.
const LONGEST_HEADERS: usize = 16 * 1024;
/// Ends a line, and a part's headers after an empty one.
const BLANK_LINE: &[u8] = b"\r\n\r\n";

/// Why a body is none of several parts.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MultipartError {
    /// The source failed.
    #[error("the answer cannot be read")]
    Read(#[source] io::Error),
    /// The type says nothing of parts, or of what is between them.
    #[error("the answer is of type `{0}`, not one of several parts with a boundary")]
    Type(String),
    /// It ends before the last delimiter.
    #[error("the answer ends before its last part does")]
    Cut,
    /// Headers without end, or something behind a delimiter that has no place there.
    #[error("a part of the answer does not begin as it should")]
    Headers,
}

/// Finds the boundary in a `Content-Type`.
///
/// # Errors
/// Where there is none, or one that none can be.
pub fn boundary(content_type: &str) -> Result<Vec<u8>, MultipartError> {
    let refuse = || MultipartError::Type(content_type.chars().take(100).collect());
    let (kind, mut rest) = content_type.split_once(';').ok_or_else(refuse)?;
    if !kind
        .trim()
        .get(..10)
        .is_some_and(|start| start.eq_ignore_ascii_case("multipart/"))
    {
        return Err(refuse());
    }
    while let Some((name, value)) = rest.split_once('=') {
        let name = name.trim_matches([';', ' ', '\t']);
        // a quoted value may have semicolons in it, as `type="application/dicom"` of others does
        let (value, behind) = match value.trim_start().strip_prefix('"') {
            Some(quoted) => quoted.split_once('"').ok_or_else(refuse)?,
            None => value.split_once(';').unwrap_or((value, "")),
        };
        if name.eq_ignore_ascii_case("boundary") {
            let value = value.trim();
            let fits = (1..=LONGEST_BOUNDARY).contains(&value.len());
            return if fits {
                Ok(value.as_bytes().to_vec())
            } else {
                Err(refuse())
            };
        }
        rest = behind;
    }
    Err(refuse())
}

/// The parts of a body, one after the other.
pub struct Parts<R> {
    reader: R,
    /// What is in front of each part but its own end of line.
    delimiter: Vec<u8>,
    finder: Finder<'static>,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    /// Up to where in the buffer no delimiter begins.
    clear: usize,
    state: State,
    /// The reader's failure, which a part could only tell in words.
    fault: Option<MultipartError>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// In front of a delimiter, or within a part.
    Body,
    /// At a delimiter.
    Delimiter,
    /// Behind the last one.
    Done,
}

impl<R: Read> Parts<R> {
    /// The parts of what `reader` gives, parted by `boundary`.
    pub fn new(reader: R, boundary: &[u8]) -> Self {
        let delimiter = [b"\r\n--", boundary].concat();
        let mut buffer = vec![0; BUFFER_BYTES];
        // the first delimiter stands at the very beginning, without an end of line in front
        buffer[..2].copy_from_slice(b"\r\n");
        Self {
            reader,
            finder: Finder::new(&delimiter).into_owned(),
            delimiter,
            buffer,
            start: 0,
            end: 2,
            clear: 0,
            state: State::Body,
            fault: None,
        }
    }

    /// Goes to the next part, past what is left of the one before; answers whether there is one.
    ///
    /// # Errors
    /// Where the body ends before it should, or the part does not begin as it should.
    pub fn advance(&mut self) -> Result<bool, MultipartError> {
        if let Some(fault) = self.fault.take() {
            return Err(fault);
        }
        while self.state == State::Body {
            let count = self.body_bytes()?.len();
            self.start += count;
        }
        if self.state == State::Done {
            return Ok(false);
        }
        self.start += self.delimiter.len();
        while self.end - self.start < 2 {
            self.fill()?;
        }
        if self.buffer[self.start..].starts_with(b"--") {
            self.state = State::Done;
            return Ok(false);
        }
        self.skip_headers()?;
        self.state = State::Body;
        self.clear = self.start;
        Ok(true)
    }

    /// The part, as a stream.
    pub fn part(&mut self) -> Part<'_, R> {
        Part(self)
    }

    /// Nothing in a part's headers matters: what it is stands in itself.
    fn skip_headers(&mut self) -> Result<(), MultipartError> {
        loop {
            let seen = &self.buffer[self.start..self.end];
            // without headers the empty line follows at once
            if let Some(at) = memchr::memmem::find(seen, BLANK_LINE) {
                self.start += at + BLANK_LINE.len();
                return Ok(());
            }
            if seen.len() > LONGEST_HEADERS {
                return Err(MultipartError::Headers);
            }
            self.fill()?;
        }
    }

    /// Bytes of the part that are there now; none at its end.
    fn body_bytes(&mut self) -> Result<&[u8], MultipartError> {
        loop {
            self.clear = self.clear.max(self.start);
            if self.clear > self.start {
                return Ok(&self.buffer[self.start..self.clear]);
            }
            let seen = &self.buffer[self.start..self.end];
            match self.finder.find(seen) {
                Some(0) => {
                    self.state = State::Delimiter;
                    return Ok(&[]);
                }
                Some(at) => self.clear = self.start + at,
                None => {
                    // its end may be the beginning of a delimiter
                    let safe = seen.len().saturating_sub(self.delimiter.len() - 1);
                    if safe == 0 {
                        self.fill()?;
                    } else {
                        self.clear = self.start + safe;
                    }
                }
            }
        }
    }

    /// Reads more, behind what is there.
    fn fill(&mut self) -> Result<(), MultipartError> {
        if self.end == self.buffer.len() {
            self.buffer.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.clear = self.clear.saturating_sub(self.start);
            self.start = 0;
        }
        loop {
            match self.reader.read(&mut self.buffer[self.end..]) {
                Ok(0) => return Err(MultipartError::Cut),
                Ok(read) => {
                    self.end += read;
                    return Ok(());
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(MultipartError::Read(error)),
            }
        }
    }

    /// Why a part could not be read on, if it could not.
    ///
    /// # Errors
    /// That.
    pub fn check(&mut self) -> Result<(), MultipartError> {
        self.fault.take().map_or(Ok(()), Err)
    }
}

/// A part as it comes in.
pub struct Part<'a, R>(&'a mut Parts<R>);

impl<R: Read> Read for Part<'_, R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let parts = &mut *self.0;
        if parts.fault.is_some() {
            return Err(io::Error::other("the answer failed"));
        }
        if parts.state != State::Body || out.is_empty() {
            return Ok(0);
        }
        match parts.body_bytes() {
            Ok(bytes) => {
                let count = bytes.len().min(out.len());
                out[..count].copy_from_slice(&bytes[..count]);
                parts.start += count;
                Ok(count)
            }
            Err(error) => {
                let text = io::Error::other(error.to_string());
                parts.fault = Some(error);
                Err(text)
            }
        }
    }
}

/// All parts of a body that lies in memory. Entry point for fuzzing.
///
/// # Errors
/// As for [`Parts::advance`].
pub fn split(body: &[u8], boundary: &[u8]) -> Result<Vec<Vec<u8>>, MultipartError> {
    let mut parts = Parts::new(body, boundary);
    let mut all = Vec::new();
    while parts.advance()? {
        let mut bytes = Vec::new();
        let read = parts.part().read_to_end(&mut bytes);
        parts.check()?;
        read.map_err(MultipartError::Read)?;
        all.push(bytes);
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives a byte or a few at a time, so that delimiters fall apart.
    struct Drops<'a>(&'a [u8], usize);

    impl Read for Drops<'_> {
        fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
            let count = self.1.min(self.0.len()).min(out.len());
            out[..count].copy_from_slice(&self.0[..count]);
            self.0 = &self.0[count..];
            Ok(count)
        }
    }

    fn body(parts: &[&[u8]]) -> Vec<u8> {
        let mut out = Vec::new();
        for part in parts {
            out.extend(b"--=_b\r\nContent-Type: application/dicom\r\n\r\n");
            out.extend(*part);
            out.extend(b"\r\n");
        }
        out.extend(b"--=_b--\r\n");
        out
    }

    #[test]
    fn the_boundary_is_found_however_it_is_written() {
        let found = |text| String::from_utf8(boundary(text).unwrap()).unwrap();
        assert_eq!(found("multipart/related; boundary=abc"), "abc");
        assert_eq!(
            found("Multipart/Related;type=\"application/dicom; x=y\";Boundary=\"a b\""),
            "a b"
        );
        assert_eq!(found("multipart/related; boundary=a; type=x"), "a");
        let long = format!("multipart/related; boundary={}", "x".repeat(201));
        for bad in [
            "",
            "application/dicom",
            "text/x; boundary=a",
            "multipart/related; type=x",
            &long,
            "é; boundary=a",
        ] {
            assert!(boundary(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn parts_come_whole_whatever_is_in_them_and_however_they_arrive() {
        let tricky: &[&[u8]] = &[
            b"",
            b"\r\n",
            b"\r\n--=_",
            b"\r\n--=_\r\n--=_c",
            &[0xff; 300_000],
            b"--=_b",
        ];
        let whole = body(tricky);
        assert_eq!(split(&whole, b"=_b").unwrap(), tricky);
        for step in [1, 2, 3, 7] {
            let mut parts = Parts::new(Drops(&whole, step), b"=_b");
            for expected in tricky {
                assert!(parts.advance().unwrap());
                let mut bytes = Vec::new();
                parts.part().read_to_end(&mut bytes).unwrap();
                assert_eq!(bytes, *expected);
            }
            assert!(!parts.advance().unwrap());
        }
    }

    #[test]
    fn a_part_need_not_be_read() {
        let whole = body(&[&[1; 500_000], b"second"]);
        let mut parts = Parts::new(whole.as_slice(), b"=_b");
        assert!(parts.advance().unwrap() && parts.advance().unwrap());
        let mut bytes = Vec::new();
        parts.part().read_to_end(&mut bytes).unwrap();
        assert_eq!(bytes, b"second");
    }

    #[test]
    fn a_body_that_ends_early_is_never_taken_for_whole() {
        let whole = body(&[b"first", b"second"]);
        // the delimiter's two dashes are its end; the end of line behind them may be missing
        for end in 0..whole.len() - 2 {
            assert!(split(&whole[..end], b"=_b").is_err(), "{end}");
        }
        assert!(split(&whole[..whole.len() - 2], b"=_b").is_ok());
    }

    #[test]
    fn a_part_with_endless_headers_is_refused() {
        let endless = [b"--=_b\r\n".as_slice(), &[b'x'; 200_000]].concat();
        assert!(matches!(split(&endless, b"=_b"), Err(MultipartError::Headers)));
    }
}
