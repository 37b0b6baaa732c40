//! `eds-cat --range`: a piece of a sealed file, of which only the segments that it covers are read and opened.

use std::fs::File;
use std::io::{self, Write};
use std::str::FromStr;

use hydra_cli::output::forgive_broken_pipe;
use hydra_cli::{Code, Failure};
use hydra_core::sealed::{Input, InputError, OpenError, RangeReader};
use hydra_core::secret::Key;

use crate::operands::Plan;
use crate::session::Session;
use crate::voice::Voice;
use crate::work::open_failure;
use crate::{args, decrypt};

/// Plaintext that is in memory at once.
const PIECE_BYTES: usize = 1 << 20;

/// Bytes of the plaintext, as HTTP names them (RFC 9110, section 14.1.1): `FIRST-LAST` with both ends, `FIRST-` to the
/// end, `-COUNT` the last ones. Ends behind the end of the file are cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ByteRange {
    /// From the first to the last, from 0; without a last to the end.
    From(u64, Option<u64>),
    /// So many at the end.
    Last(u64),
}

/// A text that names no range.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a range is FIRST-LAST, FIRST- or -COUNT, in bytes from 0")]
pub struct BadRange;

impl FromStr for ByteRange {
    type Err = BadRange;

    fn from_str(text: &str) -> Result<Self, BadRange> {
        let number = |digits: &str| match digits.bytes().all(|byte| byte.is_ascii_digit()) {
            true => digits.parse().map_err(|_| BadRange),
            false => Err(BadRange),
        };
        match text.split_once('-').ok_or(BadRange)? {
            ("", count) => Ok(Self::Last(number(count)?)),
            (first, "") => Ok(Self::From(number(first)?, None)),
            (first, last) => match (number(first)?, number(last)?) {
                (first, last) if first <= last => Ok(Self::From(first, Some(last))),
                _ => Err(BadRange),
            },
        }
    }
}

impl ByteRange {
    /// Where it begins and ends (exclusive) in so many bytes.
    pub(crate) fn within(self, bytes: u64) -> (u64, u64) {
        match self {
            Self::Last(count) => (bytes.saturating_sub(count), bytes),
            Self::From(first, last) => {
                let end = last.map_or(bytes, |last| last.saturating_add(1).min(bytes));
                (first.min(end), end)
            }
        }
    }
}

/// Writes a range of the one file of `plan` to standard output.
///
/// # Errors
/// What went wrong; nothing was written of a segment that does not verify, or behind it.
pub(crate) fn write(
    plan: &Plan,
    range: ByteRange,
    key_file: Option<&Key>,
    stores: &args::Stores,
    voice: Voice,
) -> Result<(), Failure> {
    let Some(input) = plan.jobs.first().map(|job| &job.input) else {
        return Ok(());
    };
    let Input::File(path) = input else {
        let text = "a range can only be read of a file, not of standard input";
        return Err(Failure::new(Code::Usage, text));
    };
    let file = File::open(path).map_err(|source| {
        let input = input.clone();
        open_failure(OpenError::Input(InputError::Open { input, source }))
    })?;
    let reader = RangeReader::open(file, input.clone()).map_err(open_failure)?;
    let fetched;
    let key = match key_file {
        Some(key) => key,
        None => {
            decrypt::has_key_id(reader.header())?;
            let session = Session::open(stores)?;
            let header = reader.header();
            fetched = decrypt::suite1(&decrypt::fetch_for_opening(
                &session,
                plan.key_id.as_deref(),
                header,
                voice,
            )?)?;
            &fetched
        }
    };
    let reader = reader.unlock(key).map_err(open_failure)?;
    let (mut at, end) = range.within(reader.plaintext_bytes());
    let mut out = io::stdout().lock();
    loop {
        let room = usize::try_from(end - at).unwrap_or(PIECE_BYTES).min(PIECE_BYTES);
        // an empty range at the end, too, is answered only after the last segment verified
        let piece = reader.read(at, room).map_err(open_failure)?;
        if let Err(error) = out.write_all(&piece) {
            return forgive_broken_pipe(Err(error));
        }
        at += piece.len() as u64;
        if piece.is_empty() || at >= end {
            return forgive_broken_pipe(out.flush());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_those_of_http() {
        let cases = [
            ("0-0", Some((0, 1))),
            ("2-5", Some((2, 6))),
            ("7-", Some((7, 10))),
            ("-3", Some((7, 10))),
            ("-30", Some((0, 10))),
            ("8-100", Some((8, 10))),
            ("10-", Some((10, 10))),
            ("99-100", Some((10, 10))),
            ("0-18446744073709551615", Some((0, 10))),
            ("5-2", None),
            ("", None),
            ("-", None),
            ("5", None),
            ("+1-2", None),
            ("1-2-3", None),
            ("0-18446744073709551616", None),
        ];
        for (text, expected) in cases {
            let got = text.parse::<ByteRange>().ok().map(|range| range.within(10));
            assert_eq!(got, expected, "{text:?}");
        }
    }
}
