//! Makes DICOM files element by element, and reads them back: on purpose not with the code under test.
#![allow(dead_code, unreachable_pub, reason = "each test uses some of it")]
#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

/// An element to be written.
#[derive(Clone, Debug)]
pub struct El(pub u16, pub u16, pub &'static str, pub Val);

#[derive(Clone, Debug)]
pub enum Val {
    Bytes(Vec<u8>),
    /// Items; whether their lengths are undefined.
    Items(Vec<Vec<El>>, bool),
}

pub fn el(group: u16, element: u16, vr: &'static str, value: impl AsRef<[u8]>) -> El {
    let mut value = value.as_ref().to_vec();
    if value.len() % 2 == 1 {
        value.push(if matches!(vr, "UI" | "OB" | "UN") { 0 } else { b' ' });
    }
    El(group, element, vr, Val::Bytes(value))
}

pub fn sq(group: u16, element: u16, items: Vec<Vec<El>>) -> El {
    El(group, element, "SQ", Val::Items(items, false))
}

pub fn open_sq(group: u16, element: u16, items: Vec<Vec<El>>) -> El {
    El(group, element, "SQ", Val::Items(items, true))
}

pub const EXPLICIT: &str = "1.2.840.10008.1.2.1";
pub const IMPLICIT: &str = "1.2.840.10008.1.2";
pub const BIG: &str = "1.2.840.10008.1.2.2";
pub const CT: &str = "1.2.840.10008.5.1.4.1.1.2";
pub const STUDY: &str = "1.3.6.1.4.1.99999.1.20260301";
pub const SERIES: &str = "1.3.6.1.4.1.99999.1.20260301.4";
pub const SOP: &str = "1.3.6.1.4.1.99999.1.20260301.4.17";

#[derive(Clone, Copy, PartialEq)]
pub struct Coding {
    pub explicit: bool,
    pub big: bool,
}

impl Coding {
    pub fn of(syntax: &str) -> Self {
        Self {
            explicit: syntax != IMPLICIT,
            big: syntax == BIG,
        }
    }

    fn u16(self, out: &mut Vec<u8>, value: u16) {
        out.extend(if self.big {
            value.to_be_bytes()
        } else {
            value.to_le_bytes()
        });
    }

    fn u32(self, out: &mut Vec<u8>, value: u32) {
        out.extend(if self.big {
            value.to_be_bytes()
        } else {
            value.to_le_bytes()
        });
    }
}

fn is_long(vr: &str) -> bool {
    matches!(
        vr,
        "OB" | "OD" | "OF" | "OL" | "OV" | "OW" | "SQ" | "SV" | "UC" | "UN" | "UR" | "UT" | "UV"
    )
}

fn head(out: &mut Vec<u8>, coding: Coding, El(group, element, vr, _): &El, length: u32) {
    coding.u16(out, *group);
    coding.u16(out, *element);
    if !coding.explicit {
        return coding.u32(out, length);
    }
    out.extend(vr.as_bytes());
    if is_long(vr) {
        out.extend([0, 0]);
        coding.u32(out, length);
    } else {
        coding.u16(out, u16::try_from(length).unwrap());
    }
}

pub fn encode(elements: &[El], coding: Coding) -> Vec<u8> {
    let mut out = Vec::new();
    for element in elements {
        match &element.3 {
            Val::Bytes(bytes) => {
                head(&mut out, coding, element, u32::try_from(bytes.len()).unwrap());
                out.extend(bytes);
            }
            Val::Items(items, undefined) => {
                let mut inner = Vec::new();
                for item in items {
                    let bytes = encode(item, coding);
                    coding.u16(&mut inner, 0xfffe);
                    coding.u16(&mut inner, 0xe000);
                    coding.u32(&mut inner, if *undefined { u32::MAX } else { bytes.len() as u32 });
                    inner.extend(bytes);
                    if *undefined {
                        coding.u16(&mut inner, 0xfffe);
                        coding.u16(&mut inner, 0xe00d);
                        coding.u32(&mut inner, 0);
                    }
                }
                if *undefined {
                    coding.u16(&mut inner, 0xfffe);
                    coding.u16(&mut inner, 0xe0dd);
                    coding.u32(&mut inner, 0);
                }
                head(
                    &mut out,
                    coding,
                    element,
                    if *undefined { u32::MAX } else { inner.len() as u32 },
                );
                out.extend(inner);
            }
        }
    }
    out
}

/// A file with this data set, whose elements are sorted first.
pub fn file(syntax: &str, mut elements: Vec<El>) -> Vec<u8> {
    elements.sort_by_key(|El(group, element, ..)| (*group, *element));
    let data = encode(&elements, Coding::of(syntax));
    [start(syntax, &elements), data].concat()
}

/// Preamble and group 0002, with what senders leave there.
pub fn start(syntax: &str, elements: &[El]) -> Vec<u8> {
    let value = |group, element| {
        let found = elements.iter().find(|El(g, e, ..)| (*g, *e) == (group, element));
        match found {
            Some(El(.., Val::Bytes(bytes))) => bytes.clone(),
            _ => Vec::new(),
        }
    };
    let meta = [
        el(2, 1, "OB", [0, 1]),
        el(2, 2, "UI", value(8, 0x16)),
        el(2, 3, "UI", value(8, 0x18)),
        el(2, 0x10, "UI", syntax),
        el(2, 0x12, "UI", "1.3.6.1.4.1.99999.9"),
        el(2, 0x16, "AE", "FELDMANN_PACS"),
        el(2, 0x100, "UI", "1.3.6.1.4.1.99999.8"),
        el(2, 0x102, "OB", "Feldmann"),
    ];
    let explicit = Coding {
        explicit: true,
        big: false,
    };
    let meta = encode(&meta, explicit);
    let length = encode(
        &[el(2, 0, "UL", u32::try_from(meta.len()).unwrap().to_le_bytes())],
        explicit,
    );
    let mut out = b"II*\0 Feldmann^Rosalind ".to_vec();
    out.resize(128, 0);
    [out, b"DICM".to_vec(), length, meta].concat()
}

/// A CT slice of an invented patient, valid but for its size.
pub fn ct() -> Vec<El> {
    vec![
        el(8, 5, "CS", "ISO_IR 100"),
        el(8, 8, "CS", r"ORIGINAL\PRIMARY\AXIAL"),
        el(8, 0x12, "DA", "20260301"),
        el(8, 0x16, "UI", CT),
        el(8, 0x18, "UI", SOP),
        el(8, 0x20, "DA", "20260301"),
        el(8, 0x21, "DA", "20260301"),
        el(8, 0x22, "DA", "20260301"),
        el(8, 0x23, "DA", "20260302"),
        el(8, 0x2a, "DT", "20260301101742.250000+0100"),
        el(8, 0x30, "TM", "101500"),
        el(8, 0x33, "TM", "101742"),
        el(8, 0x50, "SH", "A-2026-0311"),
        el(8, 0x60, "CS", "CT"),
        el(8, 0x70, "LO", "Nobody"),
        el(8, 0x80, "LO", "St. Nowhere's Hospital"),
        el(8, 0x90, "PN", "Ohnesorg^Theo"),
        el(8, 0x1010, "SH", "CT-ROOM-3"),
        el(8, 0x1030, "LO", "Thorax of Rosalind"),
        el(8, 0x103e, "LO", "Thorax 5.0 B31f"),
        sq(
            8,
            0x1140,
            vec![vec![
                el(8, 0x1150, "UI", CT),
                el(8, 0x1155, "UI", "1.3.6.1.4.1.99999.1.5"),
            ]],
        ),
        el(0x10, 0x10, "PN", "Feldmann^Rosalind"),
        el(0x10, 0x20, "LO", "KH-0047-1961"),
        el(0x10, 0x30, "DA", "19610228"),
        el(0x10, 0x40, "CS", "F"),
        el(0x10, 0x1010, "AS", "065Y"),
        el(0x10, 0x4000, "LT", "afraid of needles"),
        el(0x18, 0x15, "CS", "CHEST"),
        el(0x18, 0x50, "DS", "1.50"),
        el(0x18, 0x60, "DS", "120"),
        el(0x18, 0x1000, "LO", "SN-4711-0815"),
        el(0x18, 0x1030, "LO", "Thorax routine"),
        el(0x20, 0x0d, "UI", STUDY),
        el(0x20, 0x0e, "UI", SERIES),
        el(0x20, 0x10, "SH", "S-20260301"),
        el(0x20, 0x11, "IS", "4"),
        el(0x20, 0x13, "IS", "+017"),
        el(0x20, 0x52, "UI", "1.3.6.1.4.1.99999.1.77"),
        el(0x28, 2, "US", [1, 0]),
        el(0x28, 4, "CS", "MONOCHROME2"),
        el(0x28, 0x10, "US", [4, 0]),
        el(0x28, 0x11, "US", [4, 0]),
        el(0x28, 0x100, "US", [16, 0]),
        el(0x28, 0x101, "US", [12, 0]),
        el(0x28, 0x102, "US", [11, 0]),
        el(0x28, 0x103, "US", [0, 0]),
        el(0x28, 0x1052, "DS", "-1024"),
        el(0x28, 0x1053, "DS", "1"),
        el(0x29, 0x10, "LO", "FELDMANN CSA"),
        el(0x29, 0x1010, "OB", "Feldmann^Rosalind"),
        el(0x7fe0, 0x10, "OW", (0..32).collect::<Vec<u8>>()),
    ]
}

/// Replaces or adds an element.
pub fn with(mut elements: Vec<El>, new: El) -> Vec<El> {
    elements.retain(|El(group, element, ..)| (*group, *element) != (new.0, new.1));
    elements.push(new);
    elements
}

/// An element that was read.
#[derive(Clone, Debug, PartialEq)]
pub struct Read {
    /// `gggg,eeee`, with `gggg,eeee[n]/` for each sequence around it.
    pub path: String,
    pub value: Vec<u8>,
}

/// Everything after the preamble's mark, sequences by what is in them.
pub fn read(file: &[u8], syntax: &str) -> Vec<Read> {
    assert_eq!(&file[128..132], b"DICM");
    let mut out = Vec::new();
    let mut at = 132;
    let explicit = Coding {
        explicit: true,
        big: false,
    };
    while file.get(at..at + 2) == Some(&[2, 0]) {
        at = read_one(file, at, explicit, "", &mut out);
    }
    while at < file.len() {
        at = read_one(file, at, Coding::of(syntax), "", &mut out);
    }
    out
}

fn number(bytes: &[u8], big: bool) -> usize {
    let bytes: Vec<u8> = if big {
        bytes.to_vec()
    } else {
        bytes.iter().rev().copied().collect()
    };
    bytes.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte))
}

fn read_one(file: &[u8], at: usize, coding: Coding, around: &str, out: &mut Vec<Read>) -> usize {
    let n = |at: usize, length: usize| number(&file[at..at + length], coding.big);
    let (group, element) = (n(at, 2), n(at + 2, 2));
    let path = format!("{around}{group:04X},{element:04X}");
    let vr = if coding.explicit {
        String::from_utf8_lossy(&file[at + 4..at + 6]).into_owned()
    } else {
        String::new()
    };
    let (length, start) = match (coding.explicit, is_long(&vr)) {
        (false, _) => (n(at + 4, 4), at + 8),
        (true, true) => (n(at + 8, 4), at + 12),
        (true, false) => (n(at + 6, 2), at + 8),
    };
    let undefined = length == 0xffff_ffff;
    let pixels = (group, element) == (0x7fe0, 0x10);
    let sequence = vr == "SQ" || (undefined && !pixels) || (!coding.explicit && is_known_sequence(group, element));
    if !sequence && !undefined {
        out.push(Read {
            path,
            value: file[start..start + length].to_vec(),
        });
        return start + length;
    }
    let end = if undefined { usize::MAX } else { start + length };
    let mut at = start;
    let mut count = 0;
    let mut fragments = Vec::new();
    while at < end {
        let (tag, length) = (n(at + 2, 2), n(at + 4, 4));
        at += 8;
        if tag == 0xe0dd {
            break;
        }
        count += 1;
        if pixels {
            fragments.extend_from_slice(&file[at..at + length]);
            at += length;
            continue;
        }
        let around = format!("{path}[{count}]/");
        let item_end = if length == 0xffff_ffff { usize::MAX } else { at + length };
        while at < item_end {
            if n(at, 2) == 0xfffe {
                at += 8;
                break;
            }
            at = read_one(file, at, coding, &around, out);
        }
    }
    if pixels || count == 0 {
        out.push(Read { path, value: fragments });
    }
    at
}

fn is_known_sequence(group: usize, element: usize) -> bool {
    matches!(
        (group, element),
        (0x0008, 0x1140 | 0x1115 | 0x1199 | 0x2112 | 0x2218 | 0x9215)
            | (0x0012, 0x0064)
            | (0x0040, 0x0275 | 0x0555 | 0xa730 | 0xa043 | 0xa168)
            | (0x0018, 0xa001)
            | (0x5200, 0x9229 | 0x9230)
    )
}

/// The text of the first element with this path, without padding.
pub fn text(elements: &[Read], path: &str) -> Option<String> {
    let found = elements.iter().find(|element| element.path == path)?;
    Some(
        String::from_utf8_lossy(&found.value)
            .trim_matches([' ', '\0'])
            .to_owned(),
    )
}

/// Whether bytes have a text, in any case.
pub fn has(bytes: &[u8], text: &str) -> bool {
    let lower = bytes.to_ascii_lowercase();
    let text = text.to_ascii_lowercase();
    lower.windows(text.len()).any(|window| window == text.as_bytes())
}
