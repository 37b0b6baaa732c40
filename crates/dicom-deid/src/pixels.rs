//! The pixel element, which is passed on in pieces: bounded memory for any size, and nothing changed but comments
//! inside compressed images ([`crate::comments`]).

use std::io::{self, Write};

use crate::comments::{Broken, Scrubber};
use crate::element::{Coding, Element, ITEM, SEQUENCE_END, Tag, UNDEFINED, ascii, find};
use crate::read::{Head, Source, tag_of};
use crate::refusal::Refusal;
use crate::syntax::Pixels;

const PIECE: usize = 256 << 10;

const NO_TABLE: Broken = Broken("no table of offsets where one should be");

const PIXEL_DATA: Tag = Tag(0x7fe0, 0x0010);
const SAMPLES: Tag = Tag(0x0028, 0x0002);
const FRAMES: Tag = Tag(0x0028, 0x0008);
const ROWS: Tag = Tag(0x0028, 0x0010);
const COLUMNS: Tag = Tag(0x0028, 0x0011);
const BITS: Tag = Tag(0x0028, 0x0100);

/// How many bytes the attributes of an image say that it has where it is not compressed (PS3.3, C.7.6.3; PS3.5, 8.1.1);
/// none where they do not say.
pub(crate) fn described_bytes(elements: &[Element], coding: Coding) -> Option<u64> {
    let number = |tag| {
        let bytes = find(elements, tag)?.bytes()?;
        Some(u64::from(coding.u16(bytes.get(..2)?.try_into().ok()?)))
    };
    let samples = number(SAMPLES).unwrap_or(1);
    let frames = match ascii(elements, FRAMES) {
        Some(text) => text.trim().parse().ok()?,
        None => 1,
    };
    let bits = [number(ROWS)?, number(COLUMNS)?, samples, number(BITS)?, frames];
    let bits = bits.into_iter().try_fold(1_u64, u64::checked_mul)?;
    Some(bits.div_ceil(8))
}

/// Writes the pixel element whose head was read, if it is as its transfer syntax has it: native pixels with a length,
/// all others in fragments behind a table of their offsets (PS3.5, sections 8.2 and A.4). Where it is not compressed,
/// `described` is how long it should be: what stands behind that belongs to no image, and only padding may.
pub(crate) fn pass(
    head: Head,
    described: Option<u64>,
    source: &mut Source<'_>,
    coding: Coding,
    pixels: Pixels,
    out: &mut dyn Write,
) -> Result<(), Refusal> {
    // floats are never compressed
    let native = pixels == Pixels::Native || head.tag != PIXEL_DATA;
    if native == (head.length == UNDEFINED) {
        return Err(broken(
            source,
            Broken("pixels that are not as their transfer syntax has them"),
        ));
    }
    let mut bytes = Vec::new();
    coding.put_head(&mut bytes, head.tag, head.wire, head.length);
    out.write_all(&bytes).map_err(Refusal::Write)?;
    if head.length != UNDEFINED {
        // one byte pads an odd number of them, whatever its value
        let shown = described.map_or(u64::MAX, |bytes| bytes.next_multiple_of(2));
        let shown = u32::try_from(shown).unwrap_or(u32::MAX).min(head.length);
        copy(source, shown, None, out)?;
        return pass_padding(source, head.length - shown, out);
    }
    let mut scrubber = match pixels {
        Pixels::Stream(format) => Some(Scrubber::new(format)),
        Pixels::Native | Pixels::Plain | Pixels::Video => None,
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
            ITEM if is_table => table(source, length, coding, out)?,
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

/// The table of offsets: empty, or 32 bits for each frame, ascending from 0.
fn table(source: &mut Source<'_>, length: u32, coding: Coding, out: &mut dyn Write) -> Result<(), Refusal> {
    let mut last = None;
    let fits = |offset: u32, last: Option<u32>| last.map_or(offset == 0, |last| last < offset);
    for _ in 0..length / 4 {
        let bytes = source.exact()?;
        let offset = coding.u32(bytes);
        if !fits(offset, last) {
            return Err(broken(source, NO_TABLE));
        }
        last = Some(offset);
        out.write_all(&bytes).map_err(Refusal::Write)?;
    }
    if length.is_multiple_of(4) {
        Ok(())
    } else {
        Err(broken(source, NO_TABLE))
    }
}

fn pass_padding(source: &mut Source<'_>, length: u32, out: &mut dyn Write) -> Result<(), Refusal> {
    let at = source.at();
    let mut padding = OnlyZeros { out, is_broken: false };
    match copy(source, length, None, &mut padding) {
        Err(Refusal::Write(_)) if padding.is_broken => Err(Refusal::BehindPixels { at }),
        other => other,
    }
}

/// Passes zeros on and nothing else.
struct OnlyZeros<'a> {
    out: &'a mut dyn Write,
    is_broken: bool,
}

impl Write for OnlyZeros<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.is_broken = bytes.iter().any(|byte| *byte != 0);
        if self.is_broken {
            return Err(io::ErrorKind::InvalidData.into());
        }
        self.out.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
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
