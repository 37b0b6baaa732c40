//! Table E.1-1 of PS3.15 (2026c): what happens to each attribute, and how the options change it. Also what to do with
//! attributes that the table forgot (`data/beyond.csv`).

use std::collections::HashMap;
use std::sync::LazyLock;

use crate::csv;
use crate::element::Tag;
use crate::options::{Options, ProfileOption};

/// The edition of the standard that the tables are of.
pub const EDITION: &str = "2026c";

/// An action of the table (PS3.15, table E.1-1a).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    Dummy,
    Empty,
    Remove,
    Keep,
    Clean,
    Uid,
    RemoveOrEmpty,
    RemoveOrDummy,
    RemoveEmptyOrDummy,
    EmptyOrDummy,
    RemoveEmptyOrUids,
}

/// How an attribute is needed (PS3.5, section 7.4); a conditional one as if its condition held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    One,
    Two,
    Three,
}

impl Action {
    fn parse(code: &str) -> Option<Self> {
        Some(match code {
            "D" => Self::Dummy,
            "Z" => Self::Empty,
            "X" => Self::Remove,
            "K" => Self::Keep,
            "C" => Self::Clean,
            "U" => Self::Uid,
            "X/Z" => Self::RemoveOrEmpty,
            "X/D" => Self::RemoveOrDummy,
            "X/Z/D" => Self::RemoveEmptyOrDummy,
            "Z/D" => Self::EmptyOrDummy,
            "X/Z/U*" => Self::RemoveEmptyOrUids,
            _ => return None,
        })
    }

    /// The code in the table.
    pub(crate) fn code(self) -> &'static str {
        match self {
            Self::Dummy => "D",
            Self::Empty => "Z",
            Self::Remove => "X",
            Self::Keep => "K",
            Self::Clean => "C",
            Self::Uid => "U",
            Self::RemoveOrEmpty => "X/Z",
            Self::RemoveOrDummy => "X/D",
            Self::RemoveEmptyOrDummy => "X/Z/D",
            Self::EmptyOrDummy => "Z/D",
            Self::RemoveEmptyOrUids => "X/Z/U*",
        }
    }

    /// The leftmost that keeps the object valid. An attribute of unknown need is taken to be needed.
    pub(crate) fn resolve(self, need: Option<Need>) -> Self {
        if (self, need) == (Self::Remove, Some(Need::Two)) {
            // what the table removes though an IOD needs it: nothing is left of it either way
            return Self::Empty;
        }
        let need = need.unwrap_or(Need::One);
        match (self, need) {
            (Self::RemoveOrEmpty, Need::Three) => Self::Remove,
            (Self::RemoveOrEmpty, _) => Self::Empty,
            (Self::RemoveOrDummy, Need::Three) => Self::Remove,
            (Self::RemoveOrDummy, _) => Self::Dummy,
            (Self::RemoveEmptyOrDummy | Self::RemoveEmptyOrUids, Need::Three) => Self::Remove,
            (Self::RemoveEmptyOrDummy | Self::RemoveEmptyOrUids, Need::Two) => Self::Empty,
            (Self::RemoveEmptyOrDummy, Need::One) => Self::Dummy,
            (Self::RemoveEmptyOrUids, Need::One) => Self::Uid,
            (Self::EmptyOrDummy, Need::Two | Need::Three) => Self::Empty,
            (Self::EmptyOrDummy, Need::One) => Self::Dummy,
            (plain, _) => plain,
        }
    }

    #[cfg(test)]
    pub(crate) fn depends_on_need(self) -> bool {
        self.code().contains('/')
    }
}

/// A row of the table.
pub(crate) struct Row {
    pub(crate) basic: Action,
    options: [Option<Action>; 10],
}

impl Row {
    fn of(fields: &[String]) -> Option<Self> {
        let mut options = [None; 10];
        for (place, code) in options.iter_mut().zip(fields.get(5..15)?) {
            *place = if code.is_empty() {
                None
            } else {
                Some(Action::parse(code)?)
            };
        }
        Some(Self {
            basic: Action::parse(fields.get(4)?)?,
            options,
        })
    }

    /// What the options make of it, and which of them: moving dates before keeping, keeping before cleaning.
    pub(crate) fn by_options(&self, options: &Options) -> Option<(Action, ProfileOption)> {
        let asked = || {
            options
                .iter()
                .filter_map(|option| Some((self.options[option.column()?]?, option)))
        };
        asked()
            .find(|(action, option)| *action == Action::Clean && *option == ProfileOption::RetainModifiedDates)
            .or_else(|| asked().find(|(action, _)| *action == Action::Keep))
            .or_else(|| asked().next())
    }
}

/// What to do with an attribute that the table forgot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Beyond {
    Keep,
    Dummy,
    Empty,
    Remove,
    Uid,
    Device,
}

impl Beyond {
    fn parse(word: &str) -> Option<Self> {
        Some(match word {
            "keep" => Self::Keep,
            "dummy" => Self::Dummy,
            "empty" => Self::Empty,
            "remove" => Self::Remove,
            "uid" => Self::Uid,
            "device" => Self::Device,
            _ => return None,
        })
    }
}

static ROWS: LazyLock<HashMap<Tag, Row>> = LazyLock::new(|| {
    let rows = csv::rows(include_str!("../data/ps3-15-e1-1.csv"));
    rows.filter_map(|fields| Some((Tag::parse(fields.first()?)?, Row::of(&fields)?)))
        .collect()
});

static BEYOND: LazyLock<HashMap<Tag, (Beyond, String)>> = LazyLock::new(|| {
    let rows = csv::rows(include_str!("../data/beyond.csv"));
    rows.filter_map(|fields| {
        let [tag, action, why] = <[String; 3]>::try_from(fields).ok()?;
        Some((Tag::parse(&tag)?, (Beyond::parse(&action)?, why)))
    })
    .collect()
});

/// The row of an attribute. The three patterns (curves, overlays, private attributes) are code, not rows.
pub(crate) fn row(tag: Tag) -> Option<&'static Row> {
    ROWS.get(&tag)
}

/// What to do with an attribute that the table does not list, and why.
pub(crate) fn beyond(tag: Tag) -> Option<(Beyond, &'static str)> {
    BEYOND.get(&tag).map(|(action, why)| (*action, why.as_str()))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    const TABLE: &str = include_str!("../data/ps3-15-e1-1.csv");

    #[test]
    fn every_row_of_the_table_is_understood() {
        assert_eq!(csv::rows(TABLE).count(), 656);
        assert_eq!(ROWS.len(), 652);
        for fields in csv::rows(TABLE) {
            assert_eq!(fields.len(), 15, "{fields:?}");
            assert!(Row::of(&fields).is_some(), "{fields:?}");
        }
        let patterns: Vec<_> = csv::rows(TABLE)
            .filter(|fields| Tag::parse(&fields[0]).is_none())
            .collect();
        let tags: Vec<_> = patterns.iter().map(|fields| fields[0].as_str()).collect();
        assert_eq!(tags, ["50xx,xxxx", "60xx,3000", "60xx,4000", "gggg,eeee"]);
    }

    #[test]
    fn the_columns_are_those_of_the_options() {
        let head = TABLE.lines().next().unwrap();
        let columns: Vec<_> = head.split(',').skip(5).collect();
        for option in ProfileOption::all() {
            let Some(column) = option.column() else { continue };
            let name = option.name().replace('-', "_");
            let expected = match name.as_str() {
                "retain_full_dates" => "retain_long_full_dates",
                "retain_modified_dates" => "retain_long_modified_dates",
                other => other,
            };
            assert_eq!(columns[column], expected);
        }
    }

    #[test]
    fn actions_are_counted_as_in_the_table() {
        let count = |action| ROWS.values().filter(|row| row.basic == action).count();
        let slashes = ROWS.values().filter(|row| row.basic.depends_on_need()).count();
        assert_eq!(slashes, 50);
        let plain = [Action::Dummy, Action::Empty, Action::Remove, Action::Uid].map(count);
        assert_eq!(plain.iter().sum::<usize>() + slashes, 652, "{plain:?}");
    }

    #[test]
    fn every_row_beyond_the_table_is_understood_and_needed() {
        let rows: Vec<_> = csv::rows(include_str!("../data/beyond.csv")).collect();
        let tags: HashSet<_> = rows.iter().map(|fields| fields[0].clone()).collect();
        assert_eq!(tags.len(), rows.len());
        assert_eq!(BEYOND.len(), rows.len());
        for tag in BEYOND.keys() {
            assert!(row(*tag).is_none(), "{tag} is in the table");
            assert!(tag.keyword().is_some(), "{tag} is in no dictionary");
        }
    }

    #[test]
    fn the_leftmost_that_keeps_the_object_valid() {
        use Need::{One, Three, Two};
        let all = |action: Action| [Some(Three), Some(Two), Some(One), None].map(|need| action.resolve(need).code());
        assert_eq!(all(Action::RemoveOrEmpty), ["X", "Z", "Z", "Z"]);
        assert_eq!(all(Action::RemoveOrDummy), ["X", "D", "D", "D"]);
        assert_eq!(all(Action::RemoveEmptyOrDummy), ["X", "Z", "D", "D"]);
        assert_eq!(all(Action::EmptyOrDummy), ["Z", "Z", "D", "D"]);
        assert_eq!(all(Action::RemoveEmptyOrUids), ["X", "Z", "U", "U"]);
        assert_eq!(all(Action::Remove), ["X", "Z", "X", "X"]);
    }

    #[test]
    fn moving_a_date_wins_over_keeping_it() {
        let row = row(Tag(0x0018, 0x1200)).unwrap();
        let by = |options: &[ProfileOption]| {
            let options = Options::new(options.iter().copied()).unwrap();
            row.by_options(&options).map(|(action, _)| action)
        };
        use ProfileOption::{RetainDeviceIdentity, RetainFullDates, RetainModifiedDates};
        assert_eq!(by(&[]), None);
        assert_eq!(by(&[RetainDeviceIdentity]), Some(Action::Keep));
        assert_eq!(by(&[RetainFullDates]), Some(Action::Keep));
        assert_eq!(by(&[RetainDeviceIdentity, RetainModifiedDates]), Some(Action::Clean));
    }
}
