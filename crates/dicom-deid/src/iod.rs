//! What an object's IOD needs (PS3.3): decides the actions with a slash. Data: `data/sop-classes.csv`,
//! `data/iod-types.csv`.

use std::collections::HashMap;
use std::sync::LazyLock;

use crate::csv;
use crate::element::Tag;
use crate::table::Need;

/// Where in the object an attribute has the need.
#[derive(Debug, PartialEq, Eq)]
enum Place {
    Anywhere,
    Top,
    In(Tag),
}

struct Row {
    place: Place,
    need: Need,
    /// None: every IOD.
    iods: Option<Vec<String>>,
}

impl Row {
    fn of(fields: &[String]) -> Option<(Tag, Self)> {
        let [tag, place, need, iods, _module] = fields else {
            return None;
        };
        let place = match place.as_str() {
            "*" => Place::Anywhere,
            "top" => Place::Top,
            tag => Place::In(Tag::parse(tag)?),
        };
        let need = match need.as_str() {
            "1" => Need::One,
            "2" => Need::Two,
            "3" => Need::Three,
            _ => return None,
        };
        let iods = (iods != "*").then(|| iods.split(' ').map(str::to_owned).collect());
        Some((Tag::parse(tag)?, Self { place, need, iods }))
    }
}

static SOP_CLASSES: LazyLock<HashMap<String, String>> = LazyLock::new(|| {
    let rows = csv::rows(include_str!("../data/sop-classes.csv"));
    rows.filter_map(|fields| <[String; 2]>::try_from(fields).ok().map(|[uid, iod]| (uid, iod)))
        .collect()
});

static TYPES: LazyLock<HashMap<Tag, Vec<Row>>> = LazyLock::new(|| {
    let mut types: HashMap<Tag, Vec<Row>> = HashMap::new();
    for (tag, row) in csv::rows(include_str!("../data/iod-types.csv")).filter_map(|fields| Row::of(&fields)) {
        types.entry(tag).or_default().push(row);
    }
    types
});

const WITHOUT_PIXELS: &[&str] = &[
    "ecg",
    "ko",
    "pr",
    "raw",
    "registration",
    "rtdose",
    "rtplan",
    "rtrecord",
    "rtstruct",
    "spectroscopy",
    "sr",
    "surface-seg",
    "waveform",
];

/// The IOD of an object, as far as it is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Iod(Option<&'static str>);

impl Iod {
    /// Whether it is known to be one of these.
    pub(crate) fn is_any(self, names: &[&str]) -> bool {
        self.0.is_some_and(|own| names.contains(&own))
    }

    /// By the SOP class.
    pub(crate) fn of(sop_class: &str) -> Self {
        Self(SOP_CLASSES.get(sop_class).map(String::as_str))
    }

    /// Whether it is known to have pixels always: one without them is cut off.
    pub(crate) fn is_image(self) -> bool {
        self.0.is_some_and(|iod| !WITHOUT_PIXELS.contains(&iod))
    }

    /// How it needs an attribute in the sequence `inside`, or in the data set itself; none where that is not known.
    pub(crate) fn need(self, tag: Tag, inside: Option<Tag>) -> Option<Need> {
        let row = TYPES.get(&tag)?.iter().find(|row| {
            let here = match row.place {
                Place::Anywhere => true,
                Place::Top => inside.is_none(),
                Place::In(sequence) => inside == Some(sequence),
            };
            here && match (&row.iods, self.0) {
                (None, _) => true,
                (Some(iods), Some(own)) => iods.iter().any(|iod| iod == own),
                (Some(_), None) => false,
            }
        })?;
        Some(row.need)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table;

    #[test]
    fn every_row_is_understood_and_about_an_action_with_a_slash() {
        let rows: Vec<_> = csv::rows(include_str!("../data/iod-types.csv")).collect();
        let known: Vec<&String> = SOP_CLASSES.values().collect();
        for fields in &rows {
            let (tag, row) = Row::of(fields).unwrap_or_else(|| panic!("{fields:?}"));
            let action = table::row(tag).unwrap().basic;
            let emptied = action == table::Action::Remove && row.need == Need::Two;
            assert!(action.depends_on_need() || emptied, "{tag}");
            for iod in row.iods.iter().flatten() {
                assert!(known.contains(&iod), "{iod} of {tag}");
            }
        }
        let classes = csv::rows(include_str!("../data/sop-classes.csv")).count();
        assert_eq!(SOP_CLASSES.len(), classes);
        assert_eq!(TYPES.values().map(Vec::len).sum::<usize>(), rows.len());
    }

    #[test]
    fn a_serial_number_is_needed_in_enhanced_mr_alone() {
        let need = |class| Iod::of(class).need(Tag(0x0018, 0x1000), None);
        assert_eq!(need("1.2.840.10008.5.1.4.1.1.4"), Some(Need::Three));
        assert_eq!(need("1.2.840.10008.5.1.4.1.1.4.1"), None);
        assert_eq!(need("1.2.3"), None);
        // in the machine that made a plan it is of Type 3 whatever the equipment module says
        let beam = Iod::of("1.2.840.10008.5.1.4.1.1.481.5").need(Tag(0x0018, 0x1000), Some(Tag(0x300a, 0x00b0)));
        assert_eq!(beam, Some(Need::Three));
    }

    #[test]
    fn a_series_date_is_needed_in_pet() {
        let need = |class| Iod::of(class).need(Tag(0x0008, 0x0021), None);
        assert_eq!(need("1.2.840.10008.5.1.4.1.1.128"), Some(Need::One));
        assert_eq!(need("1.2.840.10008.5.1.4.1.1.2"), Some(Need::Three));
    }
}
