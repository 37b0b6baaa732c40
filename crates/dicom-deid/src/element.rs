//! Data elements as they stand in a file: tag, value representation, and the value's bytes untouched (PS3.5, section
//! 7).
//!
//! Values are not decoded: what the profile keeps goes out byte for byte as it came in.

use std::fmt;

use dicom_core::dictionary::{DataDictionary, DataDictionaryEntryRef, VirtualVr};
use dicom_dictionary_std::StandardDataDictionary;

/// A tag: group and element number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tag(pub u16, pub u16);

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "({:04X},{:04X})", self.0, self.1)
    }
}

impl Tag {
    /// Reads `gggg,eeee`, with or without parentheses.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (group, element) = text.trim_matches(['(', ')']).split_once(',')?;
        Some(Self(
            u16::from_str_radix(group, 16).ok()?,
            u16::from_str_radix(element, 16).ok()?,
        ))
    }

    pub(crate) fn is_private(self) -> bool {
        self.0 % 2 == 1
    }

    /// Overlay planes (60xx) and curves (50xx), which go as whole groups.
    pub(crate) fn is_graphics(self) -> bool {
        matches!(self.0, 0x5000..=0x50ff | 0x6000..=0x60ff) && !self.is_private()
    }

    /// The elements whose values are pixels and are streamed (PS3.3, C.7.6.3 and C.7.6.24).
    pub(crate) fn is_pixels(self) -> bool {
        matches!(self, Self(0x7fe0, 0x0008 | 0x0009 | 0x0010))
    }

    fn entry(self) -> Option<&'static DataDictionaryEntryRef<'static>> {
        // group lengths and private creators have entries of their own there, which are no attributes
        if self.is_private() || self.1 == 0 {
            return None;
        }
        StandardDataDictionary.by_tag(dicom_core::Tag(self.0, self.1))
    }

    /// The keyword of the data dictionary (PS3.6).
    pub fn keyword(self) -> Option<&'static str> {
        self.entry().map(|entry| entry.alias)
    }

    /// The representation that the data dictionary gives; of several, the one that says most of the value's length.
    pub(crate) fn dictionary_vr(self) -> Option<Vr> {
        if self.is_private() && (0x10..=0xff).contains(&self.1) {
            return Some(Vr::LO);
        }
        Some(match self.entry()?.vr {
            VirtualVr::Exact(vr) => Vr::of(vr.to_string().as_bytes())?,
            VirtualVr::Xs => Vr::US,
            _ => Vr::OW,
        })
    }
}

/// A value representation, as its two letters.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Vr([u8; 2]);

macro_rules! representations {
    ($($name:ident)*) => {
        #[allow(missing_docs, reason = "each is named by its letters, PS3.5 table 6.2-1")]
        impl Vr { $(pub const $name: Self = { let name = stringify!($name).as_bytes(); Self([name[0], name[1]]) };)* }
        const ALL: &[Vr] = &[$(Vr::$name),*];
    };
}

representations!(AE AS AT CS DA DS DT FD FL IS LO LT OB OD OF OL OV OW PN SH SL SQ SS ST SV TM UC UI UL UN UR US UT UV);

impl fmt::Display for Vr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.letters())
    }
}

impl fmt::Debug for Vr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.letters())
    }
}

/// What kind of value it is: where file and dictionary differ in it, nobody knows what the bytes mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Text,
    Number,
    Binary,
    Sequence,
    Unknown,
}

impl Vr {
    pub(crate) fn of(letters: &[u8]) -> Option<Self> {
        ALL.iter().find(|vr| vr.0 == letters).copied()
    }

    pub(crate) fn letters(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or("??")
    }

    pub(crate) fn bytes(self) -> [u8; 2] {
        self.0
    }

    /// Whether the explicit form has four bytes of length (PS3.5, section 7.1.2).
    pub(crate) fn is_long(self) -> bool {
        matches!(
            self,
            Self::OB
                | Self::OD
                | Self::OF
                | Self::OL
                | Self::OV
                | Self::OW
                | Self::SQ
                | Self::SV
                | Self::UC
                | Self::UN
                | Self::UR
                | Self::UT
                | Self::UV
        )
    }

    pub(crate) fn kind(self) -> Kind {
        match self {
            Self::AE | Self::AS | Self::CS | Self::DA | Self::DT | Self::LO | Self::LT | Self::PN | Self::SH => {
                Kind::Text
            }
            Self::ST | Self::TM | Self::UC | Self::UI | Self::UR | Self::UT => Kind::Text,
            Self::DS | Self::IS => Kind::Number,
            Self::SQ => Kind::Sequence,
            Self::UN => Kind::Unknown,
            _ => Kind::Binary,
        }
    }

    /// What values are made even with.
    pub(crate) fn padding(self) -> u8 {
        match self.kind() {
            Kind::Text | Kind::Number if self != Self::UI => b' ',
            _ => 0,
        }
    }
}

/// How elements are written: by the transfer syntax, or inside an element of representation UN.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Coding {
    pub(crate) explicit: bool,
    pub(crate) big_endian: bool,
}

impl Coding {
    pub(crate) const IMPLICIT: Self = Self {
        explicit: false,
        big_endian: false,
    };
    pub(crate) const EXPLICIT: Self = Self {
        explicit: true,
        big_endian: false,
    };
    pub(crate) const EXPLICIT_BIG: Self = Self {
        explicit: true,
        big_endian: true,
    };

    pub(crate) fn u16(self, bytes: [u8; 2]) -> u16 {
        if self.big_endian {
            u16::from_be_bytes(bytes)
        } else {
            u16::from_le_bytes(bytes)
        }
    }

    pub(crate) fn u32(self, bytes: [u8; 4]) -> u32 {
        if self.big_endian {
            u32::from_be_bytes(bytes)
        } else {
            u32::from_le_bytes(bytes)
        }
    }

    fn put_u16(self, out: &mut Vec<u8>, value: u16) {
        out.extend(if self.big_endian {
            value.to_be_bytes()
        } else {
            value.to_le_bytes()
        });
    }

    fn put_u32(self, out: &mut Vec<u8>, value: u32) {
        out.extend(self.length(value));
    }

    fn length(self, value: u32) -> [u8; 4] {
        if self.big_endian {
            value.to_be_bytes()
        } else {
            value.to_le_bytes()
        }
    }

    pub(crate) fn put_tag(self, out: &mut Vec<u8>, tag: Tag) {
        self.put_u16(out, tag.0);
        self.put_u16(out, tag.1);
    }

    /// Tag, representation and length of an element.
    pub(crate) fn put_head(self, out: &mut Vec<u8>, tag: Tag, wire: Vr, length: u32) {
        self.put_tag(out, tag);
        if !self.explicit {
            return self.put_u32(out, length);
        }
        // PS3.5, section 6.2.2: a value that is too long for two bytes of length is of unknown representation
        let wire = if !wire.is_long() && length > 0xfffe {
            Vr::UN
        } else {
            wire
        };
        out.extend(wire.bytes());
        if wire.is_long() {
            out.extend([0, 0]);
            self.put_u32(out, length);
        } else {
            self.put_u16(out, u16::try_from(length).unwrap_or(u16::MAX));
        }
    }
}

/// The length that stands for "until the delimiter".
pub(crate) const UNDEFINED: u32 = u32::MAX;
pub(crate) const ITEM: Tag = Tag(0xfffe, 0xe000);
pub(crate) const ITEM_END: Tag = Tag(0xfffe, 0xe00d);
pub(crate) const SEQUENCE_END: Tag = Tag(0xfffe, 0xe0dd);

/// An element: never printed, because values may name people.
#[derive(Clone)]
pub(crate) struct Element {
    pub(crate) tag: Tag,
    /// The representation in the file; where the file has none, as in the dictionary.
    pub(crate) wire: Vr,
    /// What the value is: the dictionary's word for UN.
    pub(crate) vr: Vr,
    pub(crate) value: Value,
}

#[derive(Clone)]
pub(crate) enum Value {
    Bytes(Vec<u8>),
    Items(Items),
    /// Encapsulated pixels inside a sequence: never kept, so only their presence is known.
    Fragments,
}

#[derive(Clone)]
pub(crate) struct Items {
    pub(crate) items: Vec<Item>,
    pub(crate) undefined: bool,
    pub(crate) coding: Coding,
}

#[derive(Clone)]
pub(crate) struct Item {
    pub(crate) undefined: bool,
    pub(crate) elements: Vec<Element>,
}

impl Element {
    /// A new element with bytes, made even.
    pub(crate) fn new(tag: Tag, vr: Vr, value: impl Into<Vec<u8>>) -> Self {
        let mut element = Self {
            tag,
            wire: vr,
            vr,
            value: Value::Bytes(Vec::new()),
        };
        element.set(value);
        element
    }

    /// Another value, made even.
    pub(crate) fn set(&mut self, value: impl Into<Vec<u8>>) {
        let mut value = value.into();
        if value.len() % 2 == 1 {
            value.push(self.vr.padding());
        }
        self.value = Value::Bytes(value);
    }

    /// A new sequence of one item.
    pub(crate) fn sequence(tag: Tag, items: Vec<Vec<Element>>, coding: Coding) -> Self {
        let items = items.into_iter().map(|elements| Item {
            undefined: false,
            elements,
        });
        Self {
            tag,
            wire: Vr::SQ,
            vr: Vr::SQ,
            value: Value::Items(Items {
                items: items.collect(),
                undefined: false,
                coding,
            }),
        }
    }

    pub(crate) fn bytes(&self) -> Option<&[u8]> {
        match &self.value {
            Value::Bytes(bytes) => Some(bytes),
            _ => None,
        }
    }

    pub(crate) fn items(&self) -> &[Item] {
        match &self.value {
            Value::Items(items) => &items.items,
            _ => &[],
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        match &self.value {
            Value::Bytes(bytes) if self.vr.kind() == Kind::Binary => bytes.is_empty(),
            Value::Bytes(bytes) => bytes.iter().all(|byte| matches!(byte, b' ' | 0)),
            Value::Items(items) => items.items.is_empty(),
            Value::Fragments => false,
        }
    }

    /// Appends the element as the file has it.
    pub(crate) fn write(&self, out: &mut Vec<u8>, coding: Coding) {
        match &self.value {
            Value::Bytes(bytes) => {
                let length = u32::try_from(bytes.len()).unwrap_or(UNDEFINED);
                coding.put_head(out, self.tag, self.wire, length);
                out.extend_from_slice(bytes);
            }
            Value::Items(items) => self.write_items(out, coding, items),
            Value::Fragments => {}
        }
    }

    fn write_items(&self, out: &mut Vec<u8>, coding: Coding, items: &Items) {
        // a sequence whose representation in the file is no sequence's can only be UN
        let wire = if self.wire == Vr::UN { Vr::UN } else { Vr::SQ };
        coding.put_head(out, self.tag, wire, if items.undefined { UNDEFINED } else { 0 });
        let (inner, start) = (items.coding, out.len());
        for item in &items.items {
            inner.put_tag(out, ITEM);
            inner.put_u32(out, if item.undefined { UNDEFINED } else { 0 });
            let begins = out.len();
            item.elements.iter().for_each(|element| element.write(out, inner));
            if item.undefined {
                inner.put_tag(out, ITEM_END);
                inner.put_u32(out, 0);
            } else {
                patch_length(out, begins, inner);
            }
        }
        if items.undefined {
            inner.put_tag(out, SEQUENCE_END);
            inner.put_u32(out, 0);
        } else {
            patch_length(out, start, coding);
        }
    }
}

/// Writes the length of everything after `start` into the four bytes before it.
fn patch_length(out: &mut [u8], start: usize, coding: Coding) {
    let length = u32::try_from(out.len() - start).unwrap_or(UNDEFINED);
    if let Some(place) = out.get_mut(start - 4..start) {
        place.copy_from_slice(&coding.length(length));
    }
}

/// The first element of this tag.
pub(crate) fn find(elements: &[Element], tag: Tag) -> Option<&Element> {
    elements.iter().find(|element| element.tag == tag)
}

/// Puts an element where its tag belongs, in place of any that are there.
pub(crate) fn put(elements: &mut Vec<Element>, element: Element) {
    elements.retain(|other| other.tag != element.tag);
    let place = elements.iter().position(|other| other.tag > element.tag);
    elements.insert(place.unwrap_or(elements.len()), element);
}

/// A plain ASCII value without its padding; none where there is no such element or value.
pub(crate) fn ascii(elements: &[Element], tag: Tag) -> Option<String> {
    let bytes = find(elements, tag)?.bytes()?;
    let text = String::from_utf8_lossy(bytes);
    let text = text.trim_matches([' ', '\0']);
    (!text.is_empty()).then(|| text.to_owned())
}
