//! Content items of structured reports, acquisition contexts and specimen preparations (PS3.15, E.3.4 and table
//! E.3.4-1).

use std::collections::HashMap;
use std::sync::LazyLock;

use crate::csv;
use crate::element::{Element, Tag, Value, Vr, ascii, find};
use crate::engine::{Engine, Place, Rule};
use crate::options::{Options, ProfileOption};
use crate::refusal::Refusal;
use crate::report::Outcome;
use crate::table::Action;

const CONCEPT_NAME: Tag = Tag(0x0040, 0xa043);
const VALUE_TYPE: Tag = Tag(0x0040, 0xa040);
const REFERENCED_ITEM: Tag = Tag(0x0040, 0xdb73);
const CODE_VALUES: [Tag; 3] = [Tag(0x0008, 0x0100), Tag(0x0008, 0x0119), Tag(0x0008, 0x0120)];
const SCHEME: Tag = Tag(0x0008, 0x0102);
const CONCEPT_CODE: Tag = Tag(0x0040, 0xa168);
const MEASURED_VALUE: Tag = Tag(0x0040, 0xa300);

/// The attribute that has the value of an item of each value type, and its representation.
const VALUES: &[(&str, Tag, Vr)] = &[
    ("TEXT", Tag(0x0040, 0xa160), Vr::UT),
    ("PNAME", Tag(0x0040, 0xa123), Vr::PN),
    ("DATETIME", Tag(0x0040, 0xa120), Vr::DT),
    ("DATE", Tag(0x0040, 0xa121), Vr::DA),
    ("TIME", Tag(0x0040, 0xa122), Vr::TM),
    ("UIDREF", Tag(0x0040, 0xa124), Vr::UI),
];

/// Columns of the table after the basic action, in its order.
const COLUMNS: [ProfileOption; 7] = [
    ProfileOption::RetainUids,
    ProfileOption::RetainDeviceIdentity,
    ProfileOption::RetainInstitutionIdentity,
    ProfileOption::RetainPatientCharacteristics,
    ProfileOption::RetainFullDates,
    ProfileOption::RetainModifiedDates,
    ProfileOption::CleanDescriptors,
];

/// Code value, scheme and value type of an item.
type Key = (String, String, String);

struct Row {
    basic: Action,
    options: [Option<Action>; 7],
}

static ROWS: LazyLock<HashMap<Key, Row>> = LazyLock::new(|| {
    csv::rows(include_str!("../data/ps3-15-e3-4-1-sr-content.csv"))
        .filter_map(|fields| of_row(&fields))
        .collect()
});

fn of_row(fields: &[String]) -> Option<(Key, Row)> {
    let action = |code: &str| match code {
        "X" => Some(Action::Remove),
        // whether a template needs the item is not known here
        "D" | "X/D" => Some(Action::Dummy),
        "K" => Some(Action::Keep),
        "C" => Some(Action::Clean),
        _ => None,
    };
    let mut options = [None; 7];
    for (place, code) in options.iter_mut().zip(fields.get(7..14)?) {
        *place = if code.is_empty() { None } else { Some(action(code)?) };
    }
    let key = (fields.get(1)?.clone(), fields.get(2)?.clone(), fields.get(3)?.clone());
    Some((
        key,
        Row {
            basic: action(fields.get(6)?)?,
            options,
        },
    ))
}

impl Row {
    fn resolve(&self, options: &Options) -> Action {
        let set = || {
            let columns = COLUMNS.iter().zip(self.options);
            columns.filter_map(|(option, action)| action.filter(|_| options.has(*option)))
        };
        set()
            .find(|action| *action == Action::Keep)
            .or_else(|| set().next())
            .unwrap_or(self.basic)
    }
}

/// Whether content items are referred to by their position anywhere.
pub(crate) fn refers_by_position(elements: &[Element]) -> bool {
    elements.iter().any(|element| {
        element.tag == REFERENCED_ITEM || element.items().iter().any(|item| refers_by_position(&item.elements))
    })
}

/// What is left of an item; none where it goes.
pub(crate) fn item(
    engine: &mut Engine<'_>,
    mut elements: Vec<Element>,
    place: Place,
) -> Result<Option<Vec<Element>>, Refusal> {
    let value_type = ascii(&elements, VALUE_TYPE).unwrap_or_default();
    let (mut action, rule) = decide(engine.options, &elements, &value_type);
    if action == Action::Remove && engine.by_reference {
        action = Action::Dummy;
    }
    if action == Action::Remove {
        for element in &elements {
            engine.note(element, place, rule.clone(), Outcome::Removed);
        }
        return Ok(None);
    }
    let value_of = VALUES.iter().find(|(name, ..)| *name == value_type);
    if action == Action::Dummy && value_of.is_none() {
        elements = without_value(engine, elements, place, &rule)?;
    }
    let value = value_of.and_then(|(_, tag, vr)| {
        let position = elements.iter().position(|element| element.tag == *tag)?;
        Some((elements.remove(position), *vr))
    });
    let mut left = engine.elements(elements, place)?;
    if let Some((element, vr)) = value {
        let element = self::value(engine, element, vr, action, place, rule)?;
        crate::element::put(&mut left, element);
    }
    // a container of which everything went has no content sequence
    left.retain(|element| element.tag != Tag(0x0040, 0xa730) || !element.is_empty());
    Ok(Some(left))
}

/// A code or a measurement that has to stay as an item, because others are referred to by their position behind it.
fn without_value(
    engine: &mut Engine<'_>,
    elements: Vec<Element>,
    place: Place,
    rule: &Rule,
) -> Result<Vec<Element>, Refusal> {
    let replaced = elements.into_iter().map(|mut element| match element.tag {
        CONCEPT_CODE => engine.dummy(element, place, rule.clone()),
        // may be empty (PS3.3, C.18.1)
        MEASURED_VALUE => {
            engine.note(&element, place, rule.clone(), Outcome::Emptied);
            if let Value::Items(items) = &mut element.value {
                items.items.clear();
            }
            Ok(element)
        }
        _ => Ok(element),
    });
    replaced.collect()
}

fn decide(options: &Options, elements: &[Element], value_type: &str) -> (Action, Rule) {
    let concept = find(elements, CONCEPT_NAME).and_then(|element| element.items().first());
    let row = concept.and_then(|concept| {
        let code = CODE_VALUES.iter().find_map(|tag| ascii(&concept.elements, *tag))?;
        let scheme = ascii(&concept.elements, SCHEME).unwrap_or_default();
        ROWS.get(&(code, scheme, value_type.to_owned()))
    });
    if let Some(row) = row {
        let action = row.resolve(options);
        return (action, Rule::Content(action.code()));
    }
    // an item that the table does not list: what people type is replaced, codes and numbers are kept and searched
    let action = match value_type {
        "TEXT" if options.has(ProfileOption::CleanDescriptors) => Action::Clean,
        "DATE" | "TIME" | "DATETIME" if options.has(ProfileOption::RetainFullDates) => Action::Keep,
        "DATE" | "TIME" | "DATETIME" if options.has(ProfileOption::RetainModifiedDates) => Action::Clean,
        "UIDREF" if options.has(ProfileOption::RetainUids) => Action::Keep,
        "TEXT" | "PNAME" | "DATE" | "TIME" | "DATETIME" | "UIDREF" => Action::Dummy,
        _ => Action::Keep,
    };
    (action, Rule::Content("not listed"))
}

fn value(
    engine: &mut Engine<'_>,
    mut element: Element,
    vr: Vr,
    action: Action,
    place: Place,
    rule: Rule,
) -> Result<Element, Refusal> {
    let Value::Bytes(bytes) = &element.value else {
        return engine.dummy(element, place, rule);
    };
    match (action, vr) {
        // whole days leave the time as it is
        (Action::Keep, Vr::DA | Vr::DT | Vr::TM | Vr::UI) | (Action::Clean, Vr::TM) => {
            engine.keep(element, place, rule)
        }
        (Action::Clean, Vr::DA | Vr::DT) => {
            let text = String::from_utf8_lossy(bytes).into_owned();
            match engine.moved(vr, &text) {
                Some(moved) => {
                    engine.note(&element, place, rule, Outcome::Moved);
                    element.set(moved);
                    Ok(element)
                }
                None => engine.dummy(element, place, rule),
            }
        }
        (Action::Keep | Action::Clean, Vr::UT) if engine.is_clean(bytes, place) => {
            engine.note(&element, place, rule, Outcome::Cleaned);
            Ok(element)
        }
        _ => engine.dummy(element, place, rule),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_of_the_table_is_understood() {
        let rows: Vec<_> = csv::rows(include_str!("../data/ps3-15-e3-4-1-sr-content.csv")).collect();
        assert_eq!(rows.len(), 214);
        for fields in &rows {
            assert!(of_row(fields).is_some(), "{fields:?}");
        }
        let head = include_str!("../data/ps3-15-e3-4-1-sr-content.csv")
            .lines()
            .next()
            .unwrap();
        assert!(head.ends_with(
            "basic_prof,rtn_uids_opt,rtn_dev_id_opt,rtn_inst_id_opt,rtn_pat_chars_opt,rtn_long_full_dates_opt,\
             rtn_long_modif_dates_opt,clean_desc_opt"
        ));
    }

    #[test]
    fn options_change_what_is_done_with_an_item() {
        let key = |code: &str, kind: &str| (code.to_owned(), "DCM".to_owned(), kind.to_owned());
        let row = &ROWS[&key("121111", "TEXT")];
        assert_eq!(row.resolve(&Options::default()), Action::Remove);
        let clean = Options::new([ProfileOption::CleanDescriptors]).unwrap();
        assert_eq!(row.resolve(&clean), Action::Clean);
    }
}
