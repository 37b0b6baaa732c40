//! The pixel element, which is passed on in pieces: bounded memory for any size, and nothing changed but comments inside
//! compressed images ([`crate::comments`]).

use std::io::Write;

use crate::comments::{Broken, Scrubber};
use crate::element::{Coding, ITEM, SEQUENCE_END, UNDEFINED};
use crate::read::{Head, Source, tag_of};
use crate::refusal::Refusal;
use crate::syntax::Pixels;

const PIECE: usize = 256 << 10;

/// Writes the pixel element whose head was read.
pub(crate) fn pass(
    head: Head,
    source: &mut Source<'_>,
    coding: Coding,
    pixels: Pixels,
    out: &mut dyn Write,
) -> Result<(), Refusal> {
    let mut bytes = Vec::new();
    coding.put_head(&mut bytes, head.tag, head.wire, head.length);
    out.write_all(&bytes).map_err(Refusal::Write)?;
    if head.length != UNDEFINED {
        return copy(source, head.length, None, out);
    }
    let mut scrubber = match pixels {
        Pixels::Stream(format) => Some(Scrubber::new(format)),
        Pixels::Plain | Pixels::Video => None,
    };
    // the first item is the table of offsets, which no blanking moves
    let mut is_table = true;
    loop {
        let item: [u8; 8] = source.exact()?;
        let [a, b, c, d, length @ ..] = item;
        let length = coding.u32(length);
        out.write_all(&item).map_err(Refusal::Write)?;
        match tag_of(coding, [a, b, c, d]) {
            ITEM if length == UNDEFINED => return Err(broken(source, Broken("a fragment without a length"))),
            ITEM if is_table => copy(source, length, None, out)?,
            ITEM => copy(source, length, scrubber.as_mut(), out)?,
            SEQUENCE_END if length == 0 => break,
            _ => return Err(broken(source, Broken("something else where a fragment should be"))),
        }
        is_table = false;
    }
    match scrubber.map(|scrubber| scrubber.end()) {
        Some(Err(what)) => Err(broken(source, what)),
        _ => Ok(()),
    }
}

fn broken(source: &Source<'_>, Broken(what): Broken) -> Refusal {
    Refusal::PixelStream { at: source.at(), what }
}

fn copy(
    source: &mut Source<'_>,
    length: u32,
    mut scrubber: Option<&mut Scrubber>,
    out: &mut dyn Write,
) -> Result<(), Refusal> {
    let mut left = length as usize;
    let mut piece = vec![0; PIECE.min(left)];
    let mut clean = Vec::new();
    if let Some(scrubber) = &mut scrubber {
        scrubber.begin_fragment();
    }
    while left > 0 {
        let wanted = PIECE.min(left);
        if source.fill(&mut piece[..wanted])? < wanted {
            return Err(Refusal::Truncated { at: source.at() });
        }
        left -= wanted;
        let bytes = match &mut scrubber {
            Some(scrubber) => {
                clean.clear();
                scrubber
                    .feed(&piece[..wanted], &mut clean)
                    .map_err(|what| broken(source, what))?;
                clean.as_slice()
            }
            None => &piece[..wanted],
        };
        out.write_all(bytes).map_err(Refusal::Write)?;
    }
    match scrubber.map(|scrubber| scrubber.end_fragment()) {
        Some(Err(what)) => Err(broken(source, what)),
        _ => Ok(()),
    }
}
