//! Comments and application segments inside compressed images: blanked in place, so that no length and no offset
//! changes.
//!
//! JPEG and JPEG-LS (ISO 10918-1, ISO 14495-1): segments COM and APPn, but for the short ones that decoders need (JFIF,
//! Adobe, the colour transform of HP). JPEG 2000 and HTJ2K (ISO 15444-1): segments COM. Bytes after the end of an image
//! are blanked too. Everything passes through in pieces; nothing but a few bytes is held back.

/// Which family of code streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    Jpeg,
    Jpeg2000,
}

/// A code stream that is none.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Broken(pub(crate) &'static str);

enum State {
    /// Before the first byte of an image.
    Start,
    /// After the first FF of it, or several.
    Begun,
    /// A marker should come; whether its FF was seen.
    Marker { half: bool },
    /// The two bytes of a segment's length; the marker and how many of them were seen.
    Length { marker: u8, seen: u8, length: u16 },
    /// A segment that passes.
    Pass { left: u32, scan: bool },
    /// A segment that is blanked.
    /// Of which some bytes stay.
    Blank { keep: u8, left: u32 },
    /// A segment that is kept if it is what it should be.
    Look { marker: u8, left: u32, held: Vec<u8> },
    /// Header of a tile part, JPEG 2000: how much of it was seen.
    TilePart { seen: u8, bytes: [u8; 8] },
    /// Coded data of JPEG: whether an FF was seen.
    Scan { half: bool },
    /// Coded data of a tile part: how many bytes are left.
    Tile { left: u64 },
    /// Coded data of the last tile part, which has no length: until the end of the image; whether an FF was seen.
    LastTile { half: bool },
    /// After the end of an image.
    Ended { half: bool },
}

/// Walks over the code streams of one pixel element.
pub(crate) struct Scrubber {
    format: Format,
    state: State,
    /// Bytes of the tile part that are not read yet, JPEG 2000.
    tile_left: Option<u64>,
}

const BLANK: u8 = b' ';
const NO_IMAGE: Broken = Broken("no image where one should begin");

impl Scrubber {
    pub(crate) fn new(format: Format) -> Self {
        Self {
            format,
            state: State::Start,
            tile_left: None,
        }
    }

    /// A new fragment begins.
    pub(crate) fn begin_fragment(&mut self) {
        if matches!(self.state, State::Ended { .. } | State::LastTile { .. }) {
            self.state = State::Start;
        }
    }

    /// Whether a fragment may end here: a comment that is cut by its end is none that anybody needs.
    pub(crate) fn end_fragment(&self) -> Result<(), Broken> {
        match self.state {
            State::Look { .. } => Err(Broken("a segment is cut off")),
            _ => Ok(()),
        }
    }

    /// Whether the element may end here.
    pub(crate) fn end(&self) -> Result<(), Broken> {
        match self.state {
            State::Start | State::Ended { .. } | State::Scan { .. } => Ok(()),
            State::Tile { .. } | State::LastTile { .. } => Ok(()),
            // a frame that ends between its segments shows nothing, and hides nothing
            State::Marker { .. } => Ok(()),
            _ => Err(Broken("the last image is cut off")),
        }
    }

    /// Reads some bytes and appends what goes out for them.
    pub(crate) fn feed(&mut self, mut bytes: &[u8], out: &mut Vec<u8>) -> Result<(), Broken> {
        while !bytes.is_empty() {
            let used = self.step(bytes, out)?;
            bytes = &bytes[used..];
        }
        Ok(())
    }

    /// Takes at least one byte.
    fn step(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<usize, Broken> {
        let first = bytes[0];
        let passes = |left: u32| bytes.len().min(left as usize);
        match &mut self.state {
            State::Start if first == 0xff => self.pass(first, State::Begun, out),
            // RLE and raw frames never get here; anything else in the place of an image is none
            State::Start => return Err(NO_IMAGE),
            // an image of the other family is none here: nothing in it would be known, and all of it blanked
            State::Begun => match (self.format, first) {
                (Format::Jpeg, 0xd8) | (Format::Jpeg2000, 0x4f) => {
                    self.pass(first, State::Marker { half: false }, out);
                }
                (_, 0xff) => self.pass(first, State::Begun, out),
                _ => return Err(NO_IMAGE),
            },
            State::Ended { half: true } => {
                let next = match (self.format, first) {
                    (Format::Jpeg, 0xd8) | (Format::Jpeg2000, 0x4f) => State::Marker { half: false },
                    (_, 0xff) => State::Ended { half: true },
                    // not the beginning of another image: nothing that may pass
                    _ => return Ok(self.after_end(out)),
                };
                self.pass(first, next, out);
            }
            State::Ended { half: false } if first == 0xff => self.pass(first, State::Ended { half: true }, out),
            State::Ended { half: false } => return Ok(self.after_end(out)),
            State::Marker { half: false } if first == 0xff => self.pass(first, State::Marker { half: true }, out),
            State::Marker { half: false } => return Err(Broken("no marker where one should be")),
            State::Marker { half: true } => self.marker(first, out)?,
            State::Length { marker, seen, length } => {
                let (marker, seen, length) = (*marker, *seen, *length << 8 | u16::from(first));
                out.push(first);
                self.count_tile(1);
                self.state = match seen {
                    0 => State::Length {
                        marker,
                        seen: 1,
                        length,
                    },
                    _ => self.segment(marker, length)?,
                };
            }
            State::Pass { left, scan } => {
                let (used, scan) = (passes(*left), *scan);
                out.extend_from_slice(&bytes[..used]);
                *left -= u32::try_from(used).unwrap_or(u32::MAX);
                if *left == 0 {
                    self.state = if scan {
                        State::Scan { half: false }
                    } else {
                        State::Marker { half: false }
                    };
                }
                self.count_tile(used);
                return Ok(used);
            }
            State::Blank { keep: keep @ 1.., left } => {
                out.push(first);
                *keep -= 1;
                *left -= 1;
                self.count_tile(1);
            }
            State::Blank { keep: 0, left } => {
                let used = passes(*left);
                out.resize(out.len() + used, BLANK);
                *left -= u32::try_from(used).unwrap_or(u32::MAX);
                if *left == 0 {
                    self.state = State::Marker { half: false };
                }
                self.count_tile(used);
                return Ok(used);
            }
            State::Look { marker, left, held } => {
                held.push(first);
                *left -= 1;
                if *left == 0 {
                    if is_needed(*marker, held) {
                        out.append(held);
                    } else {
                        out.resize(out.len() + held.len(), BLANK);
                    }
                    self.state = State::Marker { half: false };
                }
            }
            State::TilePart { seen, bytes } => {
                bytes[usize::from(*seen)] = first;
                *seen += 1;
                out.push(first);
                if *seen == 8 {
                    let length = u32::from_be_bytes([bytes[2], bytes[3], bytes[4], bytes[5]]);
                    // marker, length and these eight are part of it
                    let left = match length {
                        0 => None,
                        length => Some(
                            u64::from(length)
                                .checked_sub(12)
                                .ok_or(Broken("a tile part is too short"))?,
                        ),
                    };
                    self.tile_left = left;
                    self.state = State::Marker { half: false };
                }
            }
            State::Scan { half: false } => {
                let used = memchr::memchr(0xff, bytes).map_or(bytes.len(), |at| at + 1);
                out.extend_from_slice(&bytes[..used]);
                if bytes[used - 1] == 0xff {
                    self.state = State::Scan { half: true };
                }
                return Ok(used);
            }
            // JPEG stuffs a zero byte, JPEG-LS a zero bit; restarts belong to the scan
            State::Scan { half: true } if first < 0x80 || matches!(first, 0xd0..=0xd7) => {
                self.pass(first, State::Scan { half: false }, out);
            }
            State::Scan { half: true } if first == 0xff => self.pass(first, State::Scan { half: true }, out),
            State::Scan { half: true } => self.marker(first, out)?,
            State::Tile { left } => {
                let used = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                out.extend_from_slice(&bytes[..used]);
                *left -= used as u64;
                if *left == 0 {
                    self.state = State::Marker { half: false };
                }
                return Ok(used);
            }
            // coded data never have FF before anything over 8F but markers (ISO 15444-1, B.10.1 and C.2)
            State::LastTile { half: true } if first == 0xd9 => self.pass(first, State::Ended { half: false }, out),
            State::LastTile { half: true } if first != 0xff => {
                self.pass(first, State::LastTile { half: false }, out);
            }
            State::LastTile { .. } => {
                let used = memchr::memchr(0xff, bytes).map_or(bytes.len(), |at| at + 1);
                out.extend_from_slice(&bytes[..used]);
                let half = bytes[used - 1] == 0xff;
                self.state = State::LastTile { half };
                return Ok(used);
            }
        }
        Ok(1)
    }

    fn pass(&mut self, byte: u8, next: State, out: &mut Vec<u8>) {
        out.push(byte);
        self.state = next;
        if self.tile_left.is_some() {
            self.count_tile(1);
        }
    }

    fn count_tile(&mut self, used: usize) {
        if let Some(left) = &mut self.tile_left {
            *left = left.saturating_sub(used as u64);
        }
    }

    /// Fill bytes pass; whatever else follows an image goes.
    fn after_end(&mut self, out: &mut Vec<u8>) -> usize {
        out.push(0);
        self.state = State::Ended { half: false };
        1
    }

    fn marker(&mut self, marker: u8, out: &mut Vec<u8>) -> Result<(), Broken> {
        let next = match (self.format, marker) {
            (_, 0xff) => State::Marker { half: true },
            (_, 0xd9) => {
                self.tile_left = None;
                State::Ended { half: false }
            }
            (Format::Jpeg, 0xd8 | 0xd0..=0xd7 | 0x01) => State::Marker { half: false },
            (Format::Jpeg, 0x00) => return Err(Broken("no marker where one should be")),
            // the start of a tile part has a fixed length of 10, read with the rest of it
            (Format::Jpeg2000, 0x90) => {
                self.tile_left = None;
                State::Length {
                    marker,
                    seen: 0,
                    length: 0,
                }
            }
            (Format::Jpeg2000, 0x93) => {
                // the two bytes of this marker count too
                let left = self.tile_left.take().map(|left| left.saturating_sub(1));
                out.push(marker);
                self.state = match left {
                    None => State::LastTile { half: false },
                    Some(0) => State::Marker { half: false },
                    Some(left) => State::Tile { left },
                };
                return Ok(());
            }
            _ => State::Length {
                marker,
                seen: 0,
                length: 0,
            },
        };
        self.pass(marker, next, out);
        Ok(())
    }

    /// What to do with a segment of this marker and length, its two bytes of length included.
    fn segment(&mut self, marker: u8, length: u16) -> Result<State, Broken> {
        let left = u32::from(length)
            .checked_sub(2)
            .ok_or(Broken("a segment has no length"))?;
        let scan = self.format == Format::Jpeg && marker == 0xda;
        Ok(match (self.format, marker) {
            (Format::Jpeg2000, 0x90) if length == 10 => State::TilePart { seen: 0, bytes: [0; 8] },
            (Format::Jpeg2000, 0x90) => return Err(Broken("a tile part has a wrong length")),
            _ if left == 0 => {
                if scan {
                    State::Scan { half: false }
                } else {
                    State::Marker { half: false }
                }
            }
            (Format::Jpeg, 0xe0..=0xef) if left <= 16 => State::Look {
                marker,
                left,
                held: Vec::with_capacity(16),
            },
            (Format::Jpeg, 0xe0..=0xef | 0xfe) => State::Blank { keep: 0, left },
            // two bytes say whether the comment is text; they stay
            (Format::Jpeg2000, 0x64) if left > 2 => State::Blank { keep: 2, left },
            _ => State::Pass { left, scan },
        })
    }
}

/// Segments that decoders need: a plain JFIF header, Adobe's word on colours, HP's colour transform.
fn is_needed(marker: u8, segment: &[u8]) -> bool {
    match marker {
        0xe0 => segment.starts_with(b"JFIF\0") && segment.len() == 14 && segment.ends_with(&[0, 0]),
        0xee => segment.starts_with(b"Adobe") && segment.len() == 12,
        0xe8 => segment.starts_with(b"mrfx") && segment.len() == 5,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scrub(format: Format, bytes: &[u8]) -> Result<Vec<u8>, Broken> {
        let mut whole = Vec::new();
        let mut scrubber = Scrubber::new(format);
        scrubber.begin_fragment();
        scrubber.feed(bytes, &mut whole)?;
        scrubber.end_fragment()?;
        scrubber.end()?;
        // the same in the smallest pieces
        let mut pieces = Vec::new();
        let mut scrubber = Scrubber::new(format);
        scrubber.begin_fragment();
        for byte in bytes {
            scrubber.feed(&[*byte], &mut pieces)?;
        }
        assert!(whole == pieces && whole.len() == bytes.len());
        Ok(whole)
    }

    const JPEG: &[&[u8]] = &[
        b"\xff\xd8\xff\xe0\x00\x10JFIF\0\x01\x02\0\0\x01\0\x01\0\0",
        b"\xff\xfe\x00\x0bFeldmann!",
        b"\xff\xe1\x00\x12Exif\0\0FELDMANN!!",
        b"\xff\xc0\x00\x04ab\xff\xda\x00\x03x\x01\xff\x00\x02\xff\xd0\x03\xff\xd9",
    ];

    #[test]
    fn comments_of_jpeg_are_blanked_and_nothing_else() {
        let jpeg = JPEG.concat();
        let clean = scrub(Format::Jpeg, &jpeg).unwrap();
        let comment = b"\xff\xfe\x00\x0b         ";
        let expected = [JPEG[0], comment, b"\xff\xe1\x00\x12                ", JPEG[3]].concat();
        assert_eq!(clean, expected);
        assert_eq!(scrub(Format::Jpeg, &clean).unwrap(), clean);
    }

    #[test]
    fn what_follows_the_image_is_blanked() {
        let jpeg = [JPEG[0], JPEG[3], b"\xff\xffhello\0"].concat();
        let clean = scrub(Format::Jpeg, &jpeg).unwrap();
        assert!(!clean.windows(5).any(|five| five == b"hello"));
        assert!(clean.starts_with(&[JPEG[0], JPEG[3]].concat()));
    }

    #[test]
    fn comments_of_jpeg_2000_are_blanked_in_both_headers() {
        let tile: &[&[u8]] = &[
            b"\xff\x90\x00\x0a\0\0\0\0\0\x27\0\x01", // a tile part of 39 bytes
            b"\xff\x64\x00\x0c\0\x01Feldmann",
            b"\xff\x93\xff\x64\x00\x05datadat",
        ];
        let main: &[u8] = b"\xff\x4f\xff\x51\x00\x04ab\xff\x64\x00\x0d\0\x01Rosalind!";
        let stream = [main, &tile.concat(), b"\xff\xd9"].concat();
        let clean = scrub(Format::Jpeg2000, &stream).unwrap();
        let text = String::from_utf8_lossy(&clean);
        assert!(!text.contains("Feldmann") && !text.contains("Rosalind"));
        assert!(clean.ends_with(b"\xff\x93\xff\x64\x00\x05datadat\xff\xd9"));
    }

    #[test]
    fn what_follows_a_last_tile_part_without_a_length_is_blanked() {
        let tile = b"\xff\x90\x00\x0a\0\0\0\0\0\0\0\x01\xff\x93da\xff\x8fta\xff\xd9";
        let stream = [&b"\xff\x4f\xff\x51\x00\x04ab"[..], tile, b"Feldmann"].concat();
        let clean = scrub(Format::Jpeg2000, &stream).unwrap();
        assert!(clean.ends_with(&[&tile[..], &[0; 8]].concat()));
        assert!(scrub(Format::Jpeg2000, &stream[..stream.len() - 11]).is_ok());
    }

    #[test]
    fn what_is_no_code_stream_is_broken() {
        assert!(scrub(Format::Jpeg, b"Feldmann").is_err());
        assert!(scrub(Format::Jpeg, b"\xff\xd8Feldmann").is_err());
        assert!(scrub(Format::Jpeg, b"\xff\xd8\xff\xe0\x00\x01").is_err());
        assert!(scrub(Format::Jpeg2000, b"\xff\x4f\xff\x90\x00\x0a\0\0\0\0\0\x05\0\x01").is_err());
        assert!(scrub(Format::Jpeg2000, b"\0\0\0\x0cjP  ").is_err());
        assert!(scrub(Format::Jpeg, b"\xff").is_err());
    }

    #[test]
    fn an_image_of_the_other_family_is_refused_and_not_blanked() {
        let none = Err(NO_IMAGE);
        assert_eq!(scrub(Format::Jpeg, b"\xff\x4f\xff\x51\x00\x04ab"), none);
        assert_eq!(scrub(Format::Jpeg2000, &JPEG.concat()), none);
        assert_eq!(scrub(Format::Jpeg, b"\xff\xff\xff\x4f"), none);
        // fill bytes before an image are none of it
        let filled = [&b"\xff\xff"[..], JPEG[0], JPEG[3]].concat();
        assert_eq!(scrub(Format::Jpeg, &filled).as_ref(), Ok(&filled));
    }
}
