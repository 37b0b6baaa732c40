//! Private attributes that are known to be safe (PS3.15, table E.3.10-1).

use std::collections::HashMap;
use std::sync::LazyLock;

use crate::csv;
use crate::element::{Element, Tag, Vr};

/// Group, low byte of the element number, creator: where it is and whose.
type Key = (u16, u8, String);

static SAFE: LazyLock<HashMap<Key, Vec<Vr>>> = LazyLock::new(|| {
    csv::rows(include_str!("../data/ps3-15-e3-10-1-safe-private.csv"))
        .filter_map(|fields| of_row(&fields))
        .collect()
});

fn of_row(fields: &[String]) -> Option<(Key, Vec<Vr>)> {
    let [place, creator, vr, _multiplicity] = fields else {
        return None;
    };
    let (group, element) = place.trim_matches(['(', ')']).split_once(',')?;
    let low = element.get(2..)?;
    let group = u16::from_str_radix(group, 16).ok()?;
    let low = u8::from_str_radix(low, 16).ok()?;
    let vrs = vr.split('/').filter_map(|vr| Vr::of(vr.as_bytes())).collect();
    Some(((group, low, creator.clone()), vrs))
}

/// Whether it is the element that reserves a block for a creator.
pub(crate) fn is_creator(tag: Tag) -> bool {
    tag.is_private() && (0x10..=0xff).contains(&tag.1)
}

/// The element that says whose this one is.
pub(crate) fn creator_of(tag: Tag) -> Option<Tag> {
    (tag.is_private() && tag.1 >= 0x1000).then_some(Tag(tag.0, tag.1 >> 8))
}

/// The names of those who reserved blocks.
pub(crate) type Creators = HashMap<Tag, String>;

/// Those among the elements of a data set or item.
pub(crate) fn creators(elements: &[Element]) -> Creators {
    elements
        .iter()
        .filter(|element| is_creator(element.tag))
        .filter_map(|element| {
            let name = String::from_utf8_lossy(element.bytes()?);
            Some((element.tag, name.trim_matches([' ', '\0']).to_owned()))
        })
        .collect()
}

/// The representations that a safe attribute may have; none where it is not known to be safe. An empty list: any.
pub(crate) fn safe(element: &Element, creators: &Creators) -> Option<&'static [Vr]> {
    let name = creators.get(&creator_of(element.tag)?)?;
    let [_, low] = element.tag.1.to_be_bytes();
    SAFE.get(&(element.tag.0, low, name.clone())).map(Vec::as_slice)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_of_the_table_is_understood() {
        let rows: Vec<_> = csv::rows(include_str!("../data/ps3-15-e3-10-1-safe-private.csv")).collect();
        assert_eq!(rows.len(), 479);
        for fields in &rows {
            assert!(of_row(fields).is_some(), "{fields:?}");
        }
        assert!(SAFE.len() > 470, "{}", SAFE.len());
    }

    #[test]
    fn a_block_is_looked_up_by_its_creator_wherever_it_is() {
        let siblings = creators(&[Element::new(Tag(0x2001, 0x0011), Vr::LO, "Philips Imaging DD 001")]);
        let element = |tag| Element::new(tag, Vr::FL, [0; 4]);
        assert_eq!(
            safe(&element(Tag(0x2001, 0x1101)), &siblings),
            Some([Vr::FL].as_slice())
        );
        assert_eq!(safe(&element(Tag(0x2001, 0x1001)), &siblings), None);
        assert_eq!(safe(&element(Tag(0x2001, 0x11ef)), &siblings), None);
    }
}
