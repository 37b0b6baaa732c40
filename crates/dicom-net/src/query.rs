//! What a study is looked for by (PS3.4, C.2.2.2 and C.6.2.1.2): a few keys at study level. Answers are held against
//! it: a PACS may pass over keys that it does not know, and then answers with whatever it has.

use std::collections::BTreeSet;

use crate::dataset::{Attributes, Tag, tag};
use crate::uid::Uid;
use crate::web::escaped;

/// The longest value of a key, in characters.
const LONGEST_VALUE: usize = 64;
/// The character set of values that are not all ASCII.
const UTF8: &str = "ISO_IR 192";

/// How a value is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Letter by letter, with `*` and `?`.
    Code,
    /// The same, whatever the case.
    Text,
    /// The same, in any of its groups.
    Name,
    /// A day, or days from and to.
    Date,
    /// One of several, as it is.
    Modality,
}

struct Known {
    keyword: &'static str,
    tag: Tag,
    kind: Kind,
}

const fn key(keyword: &'static str, tag: Tag, kind: Kind) -> Known {
    Known { keyword, tag, kind }
}

const KEYS: [Known; 10] = [
    key("AccessionNumber", Tag(0x0008, 0x0050), Kind::Code),
    key("ModalitiesInStudy", tag::MODALITIES, Kind::Modality),
    key("PatientBirthDate", Tag(0x0010, 0x0030), Kind::Date),
    key("PatientID", tag::PATIENT_ID, Kind::Code),
    key("PatientName", Tag(0x0010, 0x0010), Kind::Name),
    key("PatientSex", Tag(0x0010, 0x0040), Kind::Code),
    key("ReferringPhysicianName", Tag(0x0008, 0x0090), Kind::Name),
    key("StudyDate", Tag(0x0008, 0x0020), Kind::Date),
    key("StudyDescription", Tag(0x0008, 0x1030), Kind::Text),
    key("StudyID", Tag(0x0020, 0x0010), Kind::Code),
];

/// Why a text is no query. Values stay untold: they may be a patient's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum QueryError {
    /// Not `KEY=VALUE`.
    #[error("a part of it is not `KEY=VALUE`")]
    Part,
    /// No such key.
    #[error("studies cannot be looked for by `{0}`: only by {keys}", keys = keywords())]
    Key(String),
    /// A key that is there already.
    #[error("`{0}` is given twice")]
    Twice(&'static str),
    /// A value that none can have.
    #[error("`{0}` has no value that it could have: {1}")]
    Value(&'static str, &'static str),
    /// Every study would fit.
    #[error("it has no key with a value, so everything would fit")]
    Everything,
}

fn keywords() -> String {
    KEYS.map(|known| known.keyword).join(", ")
}

/// What studies are looked for by.
#[derive(Clone)]
pub struct Query(Vec<Key>);

#[derive(Clone)]
struct Key {
    keyword: &'static str,
    tag: Tag,
    kind: Kind,
    value: String,
}

/// Studies that fit a query.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FoundStudies {
    /// Which.
    pub studies: Vec<Uid>,
    /// How many others the PACS answered with that do not fit.
    pub unfit: usize,
}

/// Whether an answer fits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fit {
    Yes,
    No,
    /// It says nothing of this key: the PACS does not go by it.
    Silent(&'static str),
}

impl Query {
    /// Reads `KEY=VALUE,KEY=VALUE`, with the keywords of PS3.6. A comma in a value needs [`Query::parse_lines`].
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, QueryError> {
        Self::of(text.split(','))
    }

    /// Reads one `KEY=VALUE` a line; lines that are empty or begin with `#` are passed over.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse_lines(text: &str) -> Result<Self, QueryError> {
        let is_meant = |line: &&str| !line.trim().is_empty() && !line.trim_start().starts_with('#');
        Self::of(text.lines().filter(is_meant))
    }

    fn of<'t>(parts: impl Iterator<Item = &'t str>) -> Result<Self, QueryError> {
        let mut keys: Vec<Key> = Vec::new();
        for part in parts {
            let (keyword, value) = part.split_once('=').ok_or(QueryError::Part)?;
            let keyword = keyword.trim();
            let known = KEYS.iter().find(|known| known.keyword == keyword);
            // what is no keyword at all may be a value that slipped here
            let is_word = keyword.len() <= LONGEST_VALUE && keyword.bytes().all(|byte| byte.is_ascii_alphanumeric());
            let Known { keyword, tag, kind } = match known {
                Some(known) => known,
                None if is_word => return Err(QueryError::Key(keyword.to_owned())),
                None => return Err(QueryError::Part),
            };
            if keys.iter().any(|key| key.tag == *tag) {
                return Err(QueryError::Twice(keyword));
            }
            let value = value.trim();
            check(*kind, value).map_err(|what| QueryError::Value(keyword, what))?;
            keys.push(Key {
                keyword,
                tag: *tag,
                kind: *kind,
                value: value.to_owned(),
            });
        }
        let narrows = |key: &Key| key.value.chars().any(|one| one != '*');
        if !keys.iter().any(narrows) {
            return Err(QueryError::Everything);
        }
        Ok(Self(keys))
    }

    /// As the identifier of a C-FIND.
    pub(crate) fn identifier(&self) -> Attributes {
        let mut attributes = Attributes::new().with(tag::QUERY_LEVEL, "STUDY").with(tag::STUDY, "");
        if self.0.iter().any(|key| !key.value.is_ascii()) {
            attributes = attributes.with(tag::CHARACTER_SET, UTF8);
        }
        for key in &self.0 {
            attributes = attributes.with(key.tag, &key.value);
        }
        attributes
    }

    /// As the parameters of a QIDO-RS request (PS3.18, 8.3.4).
    pub(crate) fn parameters(&self) -> String {
        let one = |key: &Key| {
            let name = format!("{:04X}{:04X}", key.tag.0, key.tag.1);
            format!("{name}={}&includefield={name}", escaped(&key.value))
        };
        self.0.iter().map(one).collect::<Vec<_>>().join("&")
    }

    /// The modality that a study is to have, if that is asked for.
    pub(crate) fn modality(&self) -> Option<&str> {
        let key = self.0.iter().find(|key| key.kind == Kind::Modality)?;
        Some(&key.value)
    }

    /// Whether an answer fits, whose values are read by `values`. Where it says nothing of several keys, the modality
    /// is named last: that can be found out otherwise.
    pub(crate) fn fit(&self, values: impl Fn(Tag) -> Vec<String>) -> Fit {
        let mut fit = Fit::Yes;
        for key in &self.0 {
            let values: Vec<String> = values(key.tag).into_iter().filter(|value| !value.is_empty()).collect();
            if key.value.chars().all(|one| one == '*') {
                continue;
            }
            if values.is_empty() {
                if !matches!(fit, Fit::Silent(_)) || key.kind != Kind::Modality {
                    fit = Fit::Silent(key.keyword);
                }
            } else if !values.iter().any(|value| key.fits(value)) {
                return Fit::No;
            }
        }
        fit
    }
}

/// Answers, as they are sorted.
pub(crate) struct Sorting {
    /// Those that fit, and those of which only the modality is not told.
    fitting: BTreeSet<Uid>,
    /// Those of which the modality has to be found out.
    pub(crate) untold: Vec<Uid>,
    /// A key that the PACS does not go by.
    pub(crate) ignored: Option<&'static str>,
    unfit: BTreeSet<Uid>,
    /// The key whose silence can be made up for.
    modality: Option<&'static str>,
}

impl Sorting {
    pub(crate) fn new(query: &Query) -> Self {
        let modality = query.0.iter().find(|key| key.kind == Kind::Modality);
        Self {
            fitting: BTreeSet::new(),
            untold: Vec::new(),
            ignored: None,
            unfit: BTreeSet::new(),
            modality: modality.map(|key| key.keyword),
        }
    }

    /// Whether it was in an answer before.
    pub(crate) fn knows(&self, study: &Uid) -> bool {
        self.fitting.contains(study) || self.unfit.contains(study)
    }

    /// Another answer; how many fit so far.
    pub(crate) fn take(&mut self, study: Uid, fit: Fit) -> usize {
        match fit {
            Fit::Yes => drop(self.fitting.insert(study)),
            Fit::No => {
                self.fitting.remove(&study);
                self.unfit.insert(study);
            }
            Fit::Silent(key) if Some(key) == self.modality => {
                if self.fitting.insert(study.clone()) {
                    self.untold.push(study);
                }
            }
            Fit::Silent(key) => self.ignored = Some(key),
        }
        self.fitting.len()
    }

    /// One of which the modality was found out, and it is another.
    pub(crate) fn remove(&mut self, study: &Uid) {
        self.fitting.remove(study);
    }

    pub(crate) fn found(self) -> FoundStudies {
        FoundStudies {
            studies: self.fitting.into_iter().collect(),
            unfit: self.unfit.len(),
        }
    }
}

/// Values may be a patient's: only the keys are shown.
impl std::fmt::Debug for Query {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.iter().map(|key| key.keyword)).finish()
    }
}

impl Key {
    fn fits(&self, value: &str) -> bool {
        // in which characters the answer is, only the PACS knows
        if !(self.value.is_ascii() && value.is_ascii()) {
            return true;
        }
        let (asked, value) = (self.value.as_str(), value.trim());
        match self.kind {
            Kind::Code => is_like(asked, value),
            Kind::Text => is_like(&asked.to_lowercase(), &value.to_lowercase()),
            Kind::Name => {
                let plain = |name: &str| name.trim_end_matches(['^', ' ']).to_lowercase();
                value.split('=').any(|group| is_like(&plain(asked), &plain(group)))
            }
            Kind::Date => {
                let (from, to) = asked.split_once('-').unwrap_or((asked, asked));
                // as it was written before 1993
                let value = value.replace('.', "");
                (from.is_empty() || *value >= *from) && (to.is_empty() || *value <= *to)
            }
            Kind::Modality => asked == value,
        }
    }
}

fn check(kind: Kind, value: &str) -> Result<(), &'static str> {
    if value.is_empty() {
        return Err("it is empty");
    }
    if value.chars().count() > LONGEST_VALUE {
        return Err("it is too long");
    }
    if value.chars().any(|one| one.is_control() || one == '\\') {
        return Err("it has a control character or a backslash in it");
    }
    let is_day = |day: &str| {
        day.len() == 8 && day.bytes().all(|byte| byte.is_ascii_digit()) && {
            let (month, day) = (&day[4..6], &day[6..8]);
            ("01"..="12").contains(&month) && ("01"..="31").contains(&day)
        }
    };
    let is_date = || match value.split_once('-') {
        None => is_day(value),
        Some(("", to)) => is_day(to),
        Some((from, "")) => is_day(from),
        Some((from, to)) => is_day(from) && is_day(to) && from <= to,
    };
    let is_code = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_';
    match kind {
        Kind::Date if !is_date() => Err("a date is YYYYMMDD, a range FROM-TO, FROM- or -TO"),
        Kind::Modality if value.len() > 16 || !value.bytes().all(is_code) => {
            Err("a modality is a single word in capitals, as CT or MR")
        }
        _ => Ok(()),
    }
}

/// Whether `value` is as `pattern` has it, where `*` is anything and `?` any one character.
fn is_like(pattern: &str, value: &str) -> bool {
    let (pattern, value) = (pattern.as_bytes(), value.as_bytes());
    let (mut p, mut v) = (0, 0);
    // where the last star stands, and what it covers until
    let mut star: Option<(usize, usize)> = None;
    while v < value.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, v));
                p += 1;
            }
            Some(&byte) if byte == b'?' || byte == value[v] => (p, v) = (p + 1, v + 1),
            _ => {
                let Some((at, until)) = star else { return false };
                star = Some((at, until + 1));
                (p, v) = (at + 1, until + 1);
            }
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn query(text: &str) -> Query {
        Query::parse(text).unwrap()
    }

    fn fit(text: &str, answer: &[(Tag, &str)]) -> Fit {
        let values: BTreeMap<Tag, &str> = answer.iter().copied().collect();
        query(text).fit(|tag| {
            let value = values.get(&tag).copied().unwrap_or_default();
            value.split('\\').map(str::to_owned).collect()
        })
    }

    const DATE: Tag = Tag(0x0008, 0x0020);
    const NAME: Tag = Tag(0x0010, 0x0010);

    #[test]
    fn what_is_no_query_is_refused_without_its_values() {
        let refused = |text: &str| Query::parse(text).unwrap_err();
        assert_eq!(refused("PatientID"), QueryError::Part);
        assert_eq!(refused("PatientName=SMITH, JOHN"), QueryError::Part);
        assert_eq!(refused("SeriesNumber=7"), QueryError::Key("SeriesNumber".into()));
        assert_eq!(refused("PatientID=1,PatientID=2"), QueryError::Twice("PatientID"));
        assert_eq!(refused("PatientID=*"), QueryError::Everything);
        assert_eq!(refused(" "), QueryError::Part);
        for bad in [
            "PatientID=",
            "PatientID=1\\2",
            "PatientID=a\tb",
            "StudyDate=2020",
            "StudyDate=20201301",
            "StudyDate=20200101-20190101",
            "StudyDate=-",
            "ModalitiesInStudy=mr",
            "ModalitiesInStudy=M*",
        ] {
            let error = refused(bad);
            assert!(matches!(error, QueryError::Value(..)), "{bad}: {error:?}");
            let (_, value) = bad.split_once('=').unwrap();
            assert!(
                value.is_empty() || !error.to_string().contains(&format!("`{value}`")),
                "{error}"
            );
        }
        let lines = Query::parse_lines("# mine\n\nPatientName=SMITH, J*\nStudyDate=20200101-\n").unwrap();
        assert_eq!(format!("{lines:?}"), "{\"PatientName\", \"StudyDate\"}");
        assert_eq!(Query::parse_lines("# nothing\n").unwrap_err(), QueryError::Everything);
    }

    #[test]
    fn answers_are_held_against_it() {
        let dates = [
            ("20200101-20201231", "20200615", Fit::Yes),
            ("20200101-20201231", "20210101", Fit::No),
            ("20200101-", "20191231", Fit::No),
            ("-20200101", "2020.01.01", Fit::Yes),
            ("20200101", "20200102", Fit::No),
        ];
        for (asked, date, expected) in dates {
            assert_eq!(fit(&format!("StudyDate={asked}"), &[(DATE, date)]), expected, "{asked}");
        }
        let names = [
            ("DOE*", "Doe^Jane^^", Fit::Yes),
            ("DOE^JANE", "DOE^JANE^^", Fit::Yes),
            ("DOE^JANE", "DOE^JANET", Fit::No),
            ("YAMADA^T?RO", "x=y=Yamada^Taro", Fit::Yes),
            ("MÜLLER*", "whatever", Fit::Yes),
        ];
        for (asked, name, expected) in names {
            assert_eq!(
                fit(&format!("PatientName={asked}"), &[(NAME, name)]),
                expected,
                "{asked}"
            );
        }
        let ids = [
            ("AB1", "AB1 ", Fit::Yes),
            ("AB1", "ab1", Fit::No),
            ("AB*", "AB", Fit::Yes),
        ];
        for (asked, id, expected) in ids {
            assert_eq!(
                fit(&format!("PatientID={asked}"), &[(tag::PATIENT_ID, id)]),
                expected,
                "{asked}"
            );
        }
        assert_eq!(fit("ModalitiesInStudy=MR", &[(tag::MODALITIES, "CT\\MR")]), Fit::Yes);
        assert_eq!(fit("ModalitiesInStudy=MR", &[(tag::MODALITIES, "CT\\SR")]), Fit::No);
    }

    #[test]
    fn a_key_that_nothing_is_said_of_is_named_and_the_modality_last() {
        let text = "ModalitiesInStudy=MR,PatientID=7";
        assert_eq!(fit(text, &[]), Fit::Silent("PatientID"));
        assert_eq!(fit(text, &[(tag::PATIENT_ID, "7")]), Fit::Silent("ModalitiesInStudy"));
        assert_eq!(fit(text, &[(tag::PATIENT_ID, "8")]), Fit::No);
        assert_eq!(fit("PatientID=7,ModalitiesInStudy=MR", &[]), Fit::Silent("PatientID"));
        assert_eq!(fit("PatientID=7,PatientName=*", &[(tag::PATIENT_ID, "7")]), Fit::Yes);
    }

    #[test]
    fn patterns_are_matched_whole() {
        for (pattern, value, expected) in [
            ("a*b*c", "a1b2b3c", true),
            ("a*b*c", "a1b2b3", false),
            ("*", "", true),
            ("?", "", false),
            ("a?c", "abc", true),
            ("abc", "abcd", false),
            ("**a", "ba", true),
        ] {
            assert_eq!(is_like(pattern, value), expected, "{pattern} {value}");
        }
    }

    #[test]
    fn parameters_are_quoted() {
        let parameters = query("PatientName=DOE^J* X,StudyDate=20200101-").parameters();
        assert_eq!(
            parameters,
            "00100010=DOE%5EJ*%20X&includefield=00100010&00080020=20200101-&includefield=00080020"
        );
    }
}
