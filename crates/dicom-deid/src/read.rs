//! Reads elements of a data set (PS3.5, section 7) from anything that can be read, up to the pixels.
//!
//! Nothing is allocated on a declared length's word: memory grows with what was really read, and is limited. Sequences
//! nest to a fixed depth, so that no input overflows the stack.

use std::io::{self, Read};

use crate::element::{Coding, Element, ITEM, ITEM_END, Item, Items, SEQUENCE_END, Tag, UNDEFINED, Value, Vr};
use crate::refusal::Refusal;

/// How much of an object may be held in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of everything but the top-level pixels.
    pub header_bytes: u64,
    /// Elements, at every depth.
    pub elements: u64,
    /// Sequences inside sequences.
    pub depth: u32,
    /// Work of searching: bytes of text times the names and identifiers that they are searched for. The default is some
    /// ten seconds of a processor.
    pub search: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            header_bytes: 256 << 20,
            elements: 4_000_000,
            depth: 128,
            search: 20_000_000_000,
        }
    }
}

/// Bytes with a position, of which some can be given back.
pub(crate) struct Source<'a> {
    inner: &'a mut dyn Read,
    back: Vec<u8>,
    at: u64,
}

impl<'a> Source<'a> {
    pub(crate) fn new(inner: &'a mut dyn Read, at: u64) -> Self {
        Self {
            inner,
            back: Vec::new(),
            at,
        }
    }

    pub(crate) fn at(&self) -> u64 {
        self.at
    }

    /// Fills the buffer as far as there are bytes.
    pub(crate) fn fill(&mut self, buffer: &mut [u8]) -> Result<usize, Refusal> {
        let mut filled = self.back.len().min(buffer.len());
        buffer[..filled].copy_from_slice(&self.back[..filled]);
        self.back.drain(..filled);
        while filled < buffer.len() {
            match self.inner.read(&mut buffer[filled..]) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(read_error(error, self.at)),
            }
        }
        self.at += filled as u64;
        Ok(filled)
    }

    pub(crate) fn exact<const N: usize>(&mut self) -> Result<[u8; N], Refusal> {
        let mut buffer = [0; N];
        match self.fill(&mut buffer)? {
            count if count == N => Ok(buffer),
            _ => Err(Refusal::Truncated { at: self.at }),
        }
    }

    pub(crate) fn give_back(&mut self, bytes: &[u8]) {
        self.at -= bytes.len() as u64;
        self.back.splice(0..0, bytes.iter().copied());
    }

    /// `length` bytes, grown as they come.
    fn take(&mut self, length: u32) -> Result<Vec<u8>, Refusal> {
        const STEP: usize = 64 << 10;
        let length = length as usize;
        let mut bytes = Vec::with_capacity(length.min(STEP));
        while bytes.len() < length {
            let had = bytes.len();
            bytes.resize(had + (length - had).min(STEP.max(had)), 0);
            let count = self.fill(&mut bytes[had..])?;
            if had + count < bytes.len() {
                return Err(Refusal::Truncated { at: self.at });
            }
        }
        Ok(bytes)
    }

    /// The rest, given to whoever goes on after this.
    pub(crate) fn into_rest(self) -> (Vec<u8>, &'a mut dyn Read) {
        (self.back, self.inner)
    }
}

/// A compressed stream that ends too early, or is none, is damage of the object and no failure of reading.
fn read_error(error: io::Error, at: u64) -> Refusal {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => Refusal::Truncated { at },
        io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData => Refusal::Malformed {
            at,
            what: "it cannot be inflated",
        },
        _ => Refusal::Read(error),
    }
}

/// The beginning of an element: what it is and how long.
#[derive(Clone, Copy)]
pub(crate) struct Head {
    pub(crate) tag: Tag,
    pub(crate) wire: Vr,
    pub(crate) length: u32,
}

/// Reads elements; keeps count of what was read against the limits.
pub(crate) struct Parser<'a, 's> {
    pub(crate) source: &'a mut Source<'s>,
    pub(crate) coding: Coding,
    budget: &'a mut Budget,
}

/// What is left of the limits.
pub(crate) struct Budget {
    limits: Limits,
    bytes: u64,
    elements: u64,
}

impl Budget {
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            limits,
            bytes: 0,
            elements: 0,
        }
    }

    fn spend(&mut self, bytes: u32) -> Result<(), Refusal> {
        self.elements += 1;
        if self.elements > self.limits.elements {
            return Err(Refusal::TooLarge {
                what: "elements",
                limit: self.limits.elements,
            });
        }
        if bytes != UNDEFINED {
            self.bytes += u64::from(bytes);
        }
        if self.bytes > self.limits.header_bytes {
            return Err(Refusal::TooLarge {
                what: "bytes beside its pixels",
                limit: self.limits.header_bytes,
            });
        }
        Ok(())
    }
}

/// Where a list of elements or items ends.
#[derive(Clone, Copy)]
struct End {
    /// A position that nothing may reach over.
    bound: u64,
    /// A delimiter ends it before.
    delimited: bool,
}

impl<'a, 's> Parser<'a, 's> {
    pub(crate) fn new(source: &'a mut Source<'s>, coding: Coding, budget: &'a mut Budget) -> Self {
        Self { source, coding, budget }
    }

    /// The next element of the data set itself: its head alone; none at the end of the object.
    pub(crate) fn head(&mut self) -> Result<Option<Head>, Refusal> {
        let mut bytes = [0; 4];
        match self.source.fill(&mut bytes)? {
            0 => Ok(None),
            4 => self.rest_of_head(self.tag(bytes), self.coding).map(Some),
            _ => Err(Refusal::Truncated { at: self.source.at }),
        }
    }

    fn tag(&self, bytes: [u8; 4]) -> Tag {
        tag_of(self.coding, bytes)
    }

    fn rest_of_head(&mut self, tag: Tag, coding: Coding) -> Result<Head, Refusal> {
        if !coding.explicit || tag.0 == 0xfffe {
            let length = coding.u32(self.source.exact()?);
            let wire = tag.dictionary_vr().unwrap_or(Vr::UN);
            return Ok(Head { tag, wire, length });
        }
        let letters: [u8; 2] = self.source.exact()?;
        let wire = Vr::of(&letters).ok_or(Refusal::Malformed {
            at: self.source.at,
            what: "an element without a known value representation",
        })?;
        let length = if wire.is_long() {
            let _reserved: [u8; 2] = self.source.exact()?;
            coding.u32(self.source.exact()?)
        } else {
            u32::from(coding.u16(self.source.exact()?))
        };
        Ok(Head { tag, wire, length })
    }

    /// The value of an element whose head was read.
    pub(crate) fn element(&mut self, head: Head) -> Result<Element, Refusal> {
        let whole = End {
            bound: u64::MAX,
            delimited: false,
        };
        self.value(head, self.coding, whole, 0)
    }

    /// The value of an element of group 0002, which no data set may have.
    pub(crate) fn meta_element(&mut self, head: Head) -> Result<Element, Refusal> {
        let Head { tag, wire, length } = head;
        if length == UNDEFINED {
            return Err(self.malformed("a value without an end"));
        }
        self.budget.spend(length)?;
        let value = Value::Bytes(self.source.take(length)?);
        Ok(Element {
            tag,
            wire,
            vr: wire,
            value,
        })
    }

    fn value(&mut self, head: Head, coding: Coding, end: End, depth: u32) -> Result<Element, Refusal> {
        let Head { tag, wire, length } = head;
        if tag.0 == 0xfffe || tag.0 < 8 && !tag.is_private() {
            return Err(self.malformed("an element that cannot stand here"));
        }
        // what stands in a sequence is counted there, once and not for each sequence around it
        self.budget.spend(if wire == Vr::SQ { 0 } else { length })?;
        if length != UNDEFINED && self.source.at + u64::from(length) > end.bound {
            return Err(self.malformed("a length reaches over the end of its item"));
        }
        let known = tag.dictionary_vr();
        let vr = if wire == Vr::UN { known.unwrap_or(Vr::UN) } else { wire };
        let is_pixels = matches!(vr, Vr::OB | Vr::OW);
        let value = if length == UNDEFINED && is_pixels {
            self.fragments(coding, end)?;
            Value::Fragments
        } else if wire == Vr::SQ || length == UNDEFINED {
            if length == UNDEFINED && !matches!(wire, Vr::SQ | Vr::UN) {
                return Err(self.malformed("a value without an end"));
            }
            // PS3.5, section 6.2.2, note 4: what is UN without a length is a sequence in implicit little endian
            let inner = if wire == Vr::UN { Coding::IMPLICIT } else { coding };
            Value::Items(self.sequence(length, inner, end, depth)?)
        } else {
            let bytes = self.source.take(length)?;
            match (wire, vr) {
                (Vr::UN, Vr::SQ) => self.hidden_sequence(bytes, depth),
                _ => Value::Bytes(bytes),
            }
        };
        Ok(Element { tag, wire, vr, value })
    }

    /// A sequence that came as UN with a length: implicit little endian where it is one at all.
    fn hidden_sequence(&mut self, bytes: Vec<u8>, depth: u32) -> Value {
        match parse_items(&bytes, Coding::IMPLICIT, self.budget, depth) {
            Ok(items) => Value::Items(items),
            Err(_) => Value::Bytes(bytes),
        }
    }

    fn sequence(&mut self, length: u32, coding: Coding, end: End, depth: u32) -> Result<Items, Refusal> {
        if depth >= self.budget.limits.depth {
            return Err(Refusal::TooLarge {
                what: "sequences inside one another",
                limit: u64::from(self.budget.limits.depth),
            });
        }
        let end = self.inner_end(length, end)?;
        let mut items = Vec::new();
        while let Some((tag, length)) = self.item_head(coding, end)? {
            match tag {
                ITEM => items.push(self.item(length, coding, end, depth)?),
                SEQUENCE_END if end.delimited => break,
                _ => return Err(self.malformed("something else where an item should be")),
            }
        }
        Ok(Items {
            items,
            undefined: length == UNDEFINED,
            coding,
        })
    }

    fn inner_end(&self, length: u32, outer: End) -> Result<End, Refusal> {
        if length == UNDEFINED {
            return Ok(End {
                bound: outer.bound,
                delimited: true,
            });
        }
        let bound = self.source.at + u64::from(length);
        if bound > outer.bound {
            return Err(self.malformed("a length reaches over the end of its item"));
        }
        Ok(End {
            bound,
            delimited: false,
        })
    }

    /// Tag and length of an item or delimiter; none where the list ends by its length.
    fn item_head(&mut self, coding: Coding, end: End) -> Result<Option<(Tag, u32)>, Refusal> {
        if !end.delimited && self.source.at == end.bound {
            return Ok(None);
        }
        if self.source.at + 8 > end.bound {
            return Err(self.malformed("a length ends in the middle of an item"));
        }
        let tag = tag_of(coding, self.source.exact()?);
        Ok(Some((tag, coding.u32(self.source.exact()?))))
    }

    fn item(&mut self, length: u32, coding: Coding, outer: End, depth: u32) -> Result<Item, Refusal> {
        self.budget.spend(0)?;
        let end = self.inner_end(length, outer)?;
        let mut elements = Vec::new();
        loop {
            if !end.delimited && self.source.at == end.bound {
                break;
            }
            if self.source.at + 8 > end.bound {
                return Err(self.malformed("a length ends in the middle of an element"));
            }
            let tag = tag_of(coding, self.source.exact()?);
            let head = self.rest_of_head(tag, coding)?;
            if tag == ITEM_END && end.delimited {
                break;
            }
            elements.push(self.value(head, coding, end, depth + 1)?);
        }
        are_unique(&elements, self.source.at)?;
        Ok(Item {
            undefined: length == UNDEFINED,
            elements,
        })
    }

    /// Skips encapsulated pixels inside a sequence, which are never kept.
    fn fragments(&mut self, coding: Coding, outer: End) -> Result<(), Refusal> {
        let end = End {
            bound: outer.bound,
            delimited: true,
        };
        while let Some((tag, length)) = self.item_head(coding, end)? {
            match tag {
                ITEM if length != UNDEFINED => {
                    self.budget.spend(length)?;
                    self.source.take(length)?;
                }
                SEQUENCE_END => break,
                _ => return Err(self.malformed("something else where a fragment should be")),
            }
        }
        Ok(())
    }

    fn malformed(&self, what: &'static str) -> Refusal {
        Refusal::Malformed {
            at: self.source.at,
            what,
        }
    }
}

/// Refuses a list in which an element stands twice: readers would differ in which of them they see (PS3.5, section
/// 7.1).
pub(crate) fn are_unique(elements: &[Element], at: u64) -> Result<(), Refusal> {
    if elements.is_sorted_by(|a, b| a.tag < b.tag) {
        return Ok(());
    }
    let mut tags: Vec<Tag> = elements.iter().map(|element| element.tag).collect();
    tags.sort_unstable();
    if tags.windows(2).all(|two| two[0] != two[1]) {
        return Ok(());
    }
    let what = "an element stands twice";
    Err(Refusal::Malformed { at, what })
}

pub(crate) fn tag_of(coding: Coding, [a, b, c, d]: [u8; 4]) -> Tag {
    Tag(coding.u16([a, b]), coding.u16([c, d]))
}

/// The items of a sequence whose bytes are at hand.
pub(crate) fn parse_items(bytes: &[u8], coding: Coding, budget: &mut Budget, depth: u32) -> Result<Items, Refusal> {
    let mut rest = bytes;
    let mut source = Source::new(&mut rest, 0);
    let mut parser = Parser::new(&mut source, coding, budget);
    let end = End {
        bound: bytes.len() as u64,
        delimited: false,
    };
    let length = u32::try_from(bytes.len()).unwrap_or(UNDEFINED - 1);
    parser.sequence(length, coding, end, depth)
}
