//! The options of the profile (PS3.15, E.3), and what of them can be set together.

use std::fmt;
use std::str::FromStr;

use crate::read::Limits;

/// An option of the Basic Application Level Confidentiality Profile (PS3.15, table E.1-1 and CID 7050).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum ProfileOption {
    /// E.3.1: objects whose pixels may need cleaning are refused; pixels are never changed.
    CleanPixelData,
    /// E.3.2: objects that may show a face are refused; pixels are never changed.
    CleanRecognizableVisualFeatures,
    /// E.3.3
    CleanGraphics,
    /// E.3.4
    CleanStructuredContent,
    /// E.3.5
    CleanDescriptors,
    /// E.3.6
    RetainFullDates,
    /// E.3.6
    RetainModifiedDates,
    /// E.3.7
    RetainPatientCharacteristics,
    /// E.3.8
    RetainDeviceIdentity,
    /// E.3.9
    RetainUids,
    /// E.3.10
    RetainSafePrivate,
    /// E.3.11
    RetainInstitutionIdentity,
}

/// Name, code of CID 7050, meaning, column in the table of attributes.
type Facts = (ProfileOption, &'static str, &'static str, &'static str, Option<usize>);

const FACTS: &[Facts] = {
    use ProfileOption as O;
    &[
        (
            O::CleanPixelData,
            "clean-pixel-data",
            "113101",
            "Clean Pixel Data Option",
            None,
        ),
        (
            O::CleanRecognizableVisualFeatures,
            "clean-recognizable-visual-features",
            "113102",
            "Clean Recognizable Visual Features Option",
            None,
        ),
        (
            O::CleanGraphics,
            "clean-graphics",
            "113103",
            "Clean Graphics Option",
            Some(9),
        ),
        (
            O::CleanStructuredContent,
            "clean-structured-content",
            "113104",
            "Clean Structured Content Option",
            Some(8),
        ),
        (
            O::CleanDescriptors,
            "clean-descriptors",
            "113105",
            "Clean Descriptors Option",
            Some(7),
        ),
        (
            O::RetainFullDates,
            "retain-full-dates",
            "113106",
            "Retain Longitudinal Temporal Information Full Dates Option",
            Some(5),
        ),
        (
            O::RetainModifiedDates,
            "retain-modified-dates",
            "113107",
            "Retain Longitudinal Temporal Information Modified Dates Option",
            Some(6),
        ),
        (
            O::RetainPatientCharacteristics,
            "retain-patient-characteristics",
            "113108",
            "Retain Patient Characteristics Option",
            Some(4),
        ),
        (
            O::RetainDeviceIdentity,
            "retain-device-identity",
            "113109",
            "Retain Device Identity Option",
            Some(2),
        ),
        (O::RetainUids, "retain-uids", "113110", "Retain UIDs Option", Some(1)),
        (
            O::RetainSafePrivate,
            "retain-safe-private",
            "113111",
            "Retain Safe Private Option",
            Some(0),
        ),
        (
            O::RetainInstitutionIdentity,
            "retain-institution-identity",
            "113112",
            "Retain Institution Identity Option",
            Some(3),
        ),
    ]
};

impl ProfileOption {
    /// Every option.
    pub fn all() -> impl Iterator<Item = Self> {
        FACTS.iter().map(|facts| facts.0)
    }

    fn facts(self) -> &'static Facts {
        FACTS.iter().find(|facts| facts.0 == self).unwrap_or(&FACTS[0])
    }

    /// The name on command lines and in configurations.
    pub fn name(self) -> &'static str {
        self.facts().1
    }

    /// The code of CID 7050.
    pub fn code(self) -> &'static str {
        self.facts().2
    }

    /// The meaning of the code.
    pub fn meaning(self) -> &'static str {
        self.facts().3
    }

    /// Which of the ten option columns of table E.1-1 is this option's.
    pub(crate) fn column(self) -> Option<usize> {
        self.facts().4
    }
}

impl fmt::Display for ProfileOption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// No option of this name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no option `{0}`")]
pub struct UnknownOption(pub String);

impl FromStr for ProfileOption {
    type Err = UnknownOption;

    fn from_str(name: &str) -> Result<Self, UnknownOption> {
        Self::all()
            .find(|option| option.name() == name)
            .ok_or_else(|| UnknownOption(name.to_owned()))
    }
}

/// Options that contradict each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("retain-full-dates and retain-modified-dates cannot be set together")]
pub struct OptionsError;

/// What a profile is made of, its secret aside.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options {
    set: Vec<ProfileOption>,
    /// Pass on, with a [`crate::Flag`] in the report, what a person should look at, in place of refusing it.
    pub flag_instead: bool,
    /// How much of an object may be held in memory.
    pub limits: Limits,
}

impl Options {
    /// The Basic Profile with these options, each once.
    ///
    /// # Errors
    /// Where both kinds of dates are asked for.
    pub fn new(options: impl IntoIterator<Item = ProfileOption>) -> Result<Self, OptionsError> {
        let mut set: Vec<ProfileOption> = options.into_iter().collect();
        // in the order of their codes, which is also that of the output
        set.sort();
        set.dedup();
        let options = Self { set, ..Self::default() };
        if options.has(ProfileOption::RetainFullDates) && options.has(ProfileOption::RetainModifiedDates) {
            return Err(OptionsError);
        }
        Ok(options)
    }

    /// Whether the option is set.
    pub fn has(&self, option: ProfileOption) -> bool {
        self.set.contains(&option)
    }

    /// The options that are set.
    pub fn iter(&self) -> impl Iterator<Item = ProfileOption> {
        self.set.iter().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_twelve_options_with_names_and_codes_of_their_own() {
        let mut codes: Vec<_> = ProfileOption::all().map(ProfileOption::code).collect();
        assert!(codes.is_sorted());
        codes.dedup();
        assert_eq!(codes.len(), 12);
        for option in ProfileOption::all() {
            assert_eq!(option.name().parse(), Ok(option));
            assert!(option.meaning().len() <= 64, "{option}");
        }
        let mut columns: Vec<_> = ProfileOption::all().filter_map(ProfileOption::column).collect();
        columns.sort_unstable();
        assert_eq!(columns, Vec::from_iter(0..10));
    }

    #[test]
    fn dates_are_full_or_modified() {
        use ProfileOption::{RetainFullDates, RetainModifiedDates};
        assert_eq!(Options::new([RetainFullDates, RetainModifiedDates]), Err(OptionsError));
        assert!(Options::new([RetainFullDates, RetainFullDates]).is_ok());
    }
}
