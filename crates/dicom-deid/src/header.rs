//! What stands before the pixels of an object, as it came and as it goes out: for whoever keeps the two apart without
//! having the pixels, as a catalogue does (`docs/src/catalogue-images.md`).

use crate::element::{Coding, Element, Tag, Value, Vr, find};
use crate::needles::Needles;
use crate::text::Charset;

/// Both sides of a header. Neither is printed: one of them names people.
pub struct Header {
    before: Side,
    after: Side,
    needles: Needles,
}

/// The attributes of a data set or of an item.
pub struct Side {
    elements: Vec<Element>,
    charset: Charset,
    coding: Coding,
}

impl Header {
    pub(crate) fn new(before: Vec<Element>, after: Vec<Element>, needles: Needles, coding: Coding) -> Self {
        Self {
            before: Side::new(before, Charset::default(), coding),
            after: Side::new(after, Charset::default(), coding),
            needles,
        }
    }

    /// As it came.
    pub fn before(&self) -> &Side {
        &self.before
    }

    /// As it goes out. Values that say nothing stand in it where an object needs one.
    pub fn after(&self) -> &Side {
        &self.after
    }

    /// Whether an attribute goes out with the value that came.
    pub fn is_kept(&self, tag: Tag) -> bool {
        let bytes = |side: &Side| find(&side.elements, tag).and_then(Element::bytes).map(<[u8]>::to_vec);
        bytes(&self.after).is_some_and(|after| bytes(&self.before) == Some(after))
    }

    /// Whether a text has something of this patient in it.
    pub fn names_patient(&mut self, text: &str) -> bool {
        self.needles.are_in(text)
    }

    /// As [`Header::names_patient`] for a code string, which may have the terms of the standard whatever the patient's
    /// name is.
    pub fn code_names_patient(&mut self, text: &str) -> bool {
        self.needles.are_in_code(text)
    }
}

impl Side {
    fn new(elements: Vec<Element>, outer: Charset, coding: Coding) -> Self {
        Self {
            charset: Charset::of(&elements, outer),
            elements,
            coding,
        }
    }

    /// A text, decoded and without its padding; nothing where there is none. Several values have `\` between them.
    pub fn text(&self, tag: Tag) -> Option<String> {
        let text = self.charset.decode(find(&self.elements, tag)?.bytes()?);
        let text = text.trim_matches([' ', '\0']);
        (!text.is_empty()).then(|| text.to_owned())
    }

    /// The first value of an integer, however it is written.
    pub fn integer(&self, tag: Tag) -> Option<i64> {
        let element = find(&self.elements, tag)?;
        let bytes = element.bytes()?;
        let (short, long) = (
            bytes.first_chunk::<2>().map(|bytes| self.coding.u16(*bytes)),
            bytes.first_chunk::<4>().map(|bytes| self.coding.u32(*bytes)),
        );
        match element.vr {
            Vr::US | Vr::OW => short.map(i64::from),
            Vr::SS => short.map(|number| i64::from(number.cast_signed())),
            Vr::UL => long.map(i64::from),
            Vr::SL => long.map(|number| i64::from(number.cast_signed())),
            _ => self.first(tag)?.parse().ok(),
        }
    }

    /// The first value of a number, however it is written; never infinite.
    pub fn float(&self, tag: Tag) -> Option<f64> {
        let element = find(&self.elements, tag)?;
        let bytes = element.bytes()?;
        let number = match element.vr {
            Vr::FL => f64::from(f32::from_bits(self.coding.u32(*bytes.first_chunk()?))),
            Vr::FD => {
                let [first, second] = [bytes.first_chunk()?, bytes.get(4..)?.first_chunk()?];
                let [first, second] = [first, second].map(|half| u64::from(self.coding.u32(*half)));
                let bits = if self.coding.big_endian {
                    first << 32 | second
                } else {
                    second << 32 | first
                };
                f64::from_bits(bits)
            }
            Vr::US | Vr::SS | Vr::UL | Vr::SL => self.integer(tag)? as f64,
            _ => self.first(tag)?.parse().ok()?,
        };
        number.is_finite().then_some(number)
    }

    fn first(&self, tag: Tag) -> Option<String> {
        let text = self.text(tag)?;
        let first = text.split('\\').next().unwrap_or_default().trim();
        Some(first.trim_start_matches('+').to_owned())
    }

    /// The items of a sequence.
    pub fn items(&self, tag: Tag) -> Vec<Self> {
        let Some(Value::Items(items)) = find(&self.elements, tag).map(|element| &element.value) else {
            return Vec::new();
        };
        let of = |item: &crate::element::Item| Self::new(item.elements.clone(), self.charset, items.coding);
        items.items.iter().map(of).collect()
    }
}
