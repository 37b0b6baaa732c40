//! The profile at work on a data set in memory: decides for each element by table, IOD, representation and option, and
//! does it (PS3.15, E.1 to E.3). Sequences are entered wherever they are.

use std::collections::HashSet;

use crate::content;
use crate::dates;
use crate::element::{Coding, Element, Item, Items, Kind, Tag, Value, Vr};
use crate::iod::Iod;
use crate::needles::{self, Needles, PATIENT_ID};
use crate::options::{Options, ProfileOption};
use crate::private::{self, Creators};
use crate::read::{Budget, parse_items};
use crate::refusal::Refusal;
use crate::report::{Counts, OldValue, Original, Outcome, PrivateHalf};
use crate::secret::Keyed;
use crate::table::{self, Action, Beyond};
use crate::text::{Charset, SPECIFIC_CHARACTER_SET};

/// UIDs of the standard itself, which identify nobody (PS3.6, annex A).
const WELL_KNOWN: &str = "1.2.840.10008.";
const MODALITY_ISSUED: &[Tag] = &[Tag(0x0008, 0x0018), Tag(0x0020, 0x000d), Tag(0x0020, 0x000e)];
const TIMEZONE: Tag = Tag(0x0008, 0x0201);

/// What says that and how an object was de-identified: written anew (PS3.15, E.1.1).
pub(crate) const PATIENT_IDENTITY_REMOVED: Tag = Tag(0x0012, 0x0062);
pub(crate) const METHOD: Tag = Tag(0x0012, 0x0063);
pub(crate) const METHOD_CODES: Tag = Tag(0x0012, 0x0064);
pub(crate) const TEMPORAL: Tag = Tag(0x0028, 0x0303);

/// Why an attribute had its outcome, as `explain` shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Rule {
    /// An action of table E.1-1.
    Table(&'static str),
    /// An action of an option's column.
    Option(&'static str, ProfileOption),
    /// An attribute that the table forgot.
    Beyond(&'static str),
    /// In no table: by its representation.
    Representation(Vr),
    /// Inside a sequence that became a dummy.
    DummySequence,
    /// In no dictionary.
    Unknown,
    /// File and dictionary differ in what it is.
    Mismatch,
    /// Private, and not known to be safe.
    Private,
    /// Private, known to be safe by table E.3.10-1.
    SafePrivate,
    /// A group of graphics.
    Graphics,
    /// Retired group length.
    GroupLength,
    /// Pixels inside a sequence.
    NestedPixels,
    /// A value of the patient was found in it.
    PatientFound,
    /// A number that is none.
    NoNumber,
    /// Written anew by every de-identification.
    Mark,
    /// Table E.3.4-1 of content items.
    Content(&'static str),
    /// What names the patient in every file of theirs.
    Pseudonym,
}

impl std::fmt::Display for Rule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Table(code) => write!(f, "table E.1-1: {code}"),
            Self::Option(code, option) => write!(f, "table E.1-1, {option}: {code}"),
            Self::Beyond(why) => write!(f, "beyond the table: {why}"),
            Self::Representation(vr) => write!(f, "not in the table: {vr}"),
            Self::DummySequence => f.write_str("in a sequence that is replaced"),
            Self::Unknown => f.write_str("in no dictionary"),
            Self::Mismatch => f.write_str("not the representation of the dictionary"),
            Self::Private => f.write_str("private"),
            Self::SafePrivate => f.write_str("table E.3.10-1: safe private"),
            Self::Graphics => f.write_str("table E.1-1: graphics"),
            Self::GroupLength => f.write_str("group length"),
            Self::NestedPixels => f.write_str("pixels in a sequence"),
            Self::PatientFound => f.write_str("has a value of the patient"),
            Self::NoNumber => f.write_str("no number, or one of the patient's"),
            Self::Mark => f.write_str("says what was done"),
            Self::Content(code) => write!(f, "table E.3.4-1: {code}"),
            Self::Pseudonym => f.write_str("table E.1-1: Z/D, by a pseudonym"),
        }
    }
}

/// One line of `explain`.
pub(crate) struct Event {
    pub(crate) path: String,
    pub(crate) tag: Tag,
    pub(crate) vr: Vr,
    pub(crate) rule: Rule,
    pub(crate) outcome: Outcome,
}

/// Where the engine is.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    charset: Charset,
    /// The sequence that holds the item; none for the data set itself.
    pub(crate) inside: Option<Tag>,
    /// Inside a sequence that becomes a dummy.
    dummy: bool,
}

impl Place {
    /// The data set itself.
    pub(crate) fn top() -> Self {
        Self {
            charset: Charset::default(),
            inside: None,
            dummy: false,
        }
    }
}

/// The profile at work on one object.
pub(crate) struct Engine<'a> {
    pub(crate) options: &'a Options,
    keyed: &'a Keyed,
    iod: Iod,
    shift: i64,
    pub(crate) needles: Needles,
    /// Content items are referred to by their position, so none may go.
    pub(crate) by_reference: bool,
    path: Vec<(Tag, usize)>,
    pub(crate) counts: Counts,
    pub(crate) private: PrivateHalf,
    pub(crate) events: Option<Vec<Event>>,
}

/// What is decided for an element.
type Decision = (Action, Rule);

impl<'a> Engine<'a> {
    /// For an object with these elements before its pixels, of this patient.
    pub(crate) fn new(options: &'a Options, keyed: &'a Keyed, iod: Iod, elements: &[Element], patient: &str) -> Self {
        Self {
            options,
            keyed,
            iod,
            shift: keyed.shift_days(patient),
            needles: Needles::of(elements, options),
            by_reference: content::refers_by_position(elements),
            path: Vec::new(),
            counts: Counts::default(),
            private: PrivateHalf::default(),
            events: None,
        }
    }

    /// What it knows of the patient.
    pub(crate) fn into_needles(self) -> Needles {
        self.needles
    }

    /// What is left of the elements of the data set or of an item.
    pub(crate) fn elements(&mut self, elements: Vec<Element>, place: Place) -> Result<Vec<Element>, Refusal> {
        let place = Place {
            charset: Charset::of(&elements, place.charset),
            ..place
        };
        let creators = private::creators(&elements);
        let mut left = Vec::with_capacity(elements.len());
        for element in elements {
            if let Some(element) = self.element(element, place, &creators)? {
                left.push(element);
            }
        }
        let blocks: HashSet<Tag> = left
            .iter()
            .filter_map(|element| private::creator_of(element.tag))
            .collect();
        left.retain(|element| !private::is_creator(element.tag) || blocks.contains(&element.tag));
        Ok(left)
    }

    fn element(&mut self, element: Element, place: Place, creators: &Creators) -> Result<Option<Element>, Refusal> {
        let tag = element.tag;
        if tag.is_private() {
            return self.private(element, place, creators);
        }
        let known = tag.dictionary_vr();
        let gone = if tag.1 == 0 {
            Some(Rule::GroupLength)
        } else if tag.is_graphics() {
            Some(Rule::Graphics)
        } else if tag.is_pixels() || matches!(element.value, Value::Fragments) {
            Some(Rule::NestedPixels)
        } else if matches!(tag, PATIENT_IDENTITY_REMOVED | METHOD | METHOD_CODES | TEMPORAL) {
            Some(Rule::Mark)
        } else if known.is_none() && table::row(tag).is_none() {
            Some(Rule::Unknown)
        } else if known.is_some_and(|known| differs(known, &element)) {
            Some(Rule::Mismatch)
        } else {
            None
        };
        if let Some(rule) = gone {
            return Ok(self.remove(&element, place, rule));
        }
        if tag == SPECIFIC_CHARACTER_SET {
            return self.keep(element, place, Rule::Representation(Vr::CS)).map(Some);
        }
        if tag == PATIENT_ID && place.inside.is_none() && !element.is_empty() {
            return Ok(Some(self.pseudonym(element, place)));
        }
        let (action, rule) = self.decide(tag, known.unwrap_or(element.vr), place);
        self.apply(action, element, place, rule)
    }

    fn decide(&self, tag: Tag, vr: Vr, place: Place) -> Decision {
        if let Some(row) = table::row(tag) {
            return match row.by_options(self.options) {
                Some((action, option)) => (action, Rule::Option(action.code(), option)),
                None => (self.basic(tag, place), Rule::Table(row.basic.code())),
            };
        }
        match table::beyond(tag) {
            Some((Beyond::Keep, why)) => return (Action::Keep, Rule::Beyond(why)),
            Some((Beyond::Empty, why)) => return (Action::Empty, Rule::Beyond(why)),
            Some((Beyond::Dummy, why)) => return (Action::Dummy, Rule::Beyond(why)),
            Some((Beyond::Remove, why)) => return (Action::Remove, Rule::Beyond(why)),
            Some((Beyond::Uid, why)) if self.options.has(ProfileOption::RetainUids) => {
                return (Action::Keep, Rule::Beyond(why));
            }
            Some((Beyond::Uid, why)) => return (Action::Uid, Rule::Beyond(why)),
            Some((Beyond::Device, why)) if self.options.has(ProfileOption::RetainDeviceIdentity) => {
                return (Action::Keep, Rule::Beyond(why));
            }
            Some((Beyond::Device, why)) => return (Action::Dummy, Rule::Beyond(why)),
            None => {}
        }
        (self.by_representation(vr), Rule::Representation(vr))
    }

    /// What neither table nor list know. Numbers, codes and labels stay, and are searched; prose goes.
    fn by_representation(&self, vr: Vr) -> Action {
        let has = |option| self.options.has(option);
        match vr {
            Vr::PN | Vr::ST | Vr::LT | Vr::UT | Vr::UC | Vr::UR | Vr::AE => Action::Dummy,
            Vr::AS if has(ProfileOption::RetainPatientCharacteristics) => Action::Keep,
            Vr::AS => Action::Dummy,
            Vr::DA | Vr::DT | Vr::TM if has(ProfileOption::RetainFullDates) => Action::Keep,
            Vr::DA | Vr::DT | Vr::TM if has(ProfileOption::RetainModifiedDates) => Action::Clean,
            Vr::DA | Vr::DT | Vr::TM => Action::Dummy,
            Vr::UI if has(ProfileOption::RetainUids) => Action::Keep,
            Vr::UI => Action::Uid,
            _ => Action::Keep,
        }
    }

    /// The action of the Basic Profile in this IOD.
    fn basic(&self, tag: Tag, place: Place) -> Action {
        match table::row(tag) {
            Some(row) => row.basic.resolve(self.iod.need(tag, place.inside)),
            None => Action::Dummy,
        }
    }

    fn apply(
        &mut self,
        action: Action,
        element: Element,
        place: Place,
        rule: Rule,
    ) -> Result<Option<Element>, Refusal> {
        match action {
            Action::Remove => Ok(self.remove(&element, place, rule)),
            Action::Empty => Ok(Some(self.empty(element, place, rule))),
            Action::Dummy => self.dummy(element, place, rule).map(Some),
            Action::Uid => self.uids(element, place, rule).map(Some),
            Action::Clean => self.clean(element, place, rule),
            // all codes with a slash are resolved before
            _ => self.keep(element, place, rule).map(Some),
        }
    }

    pub(crate) fn remove(&mut self, element: &Element, place: Place, rule: Rule) -> Option<Element> {
        self.note(element, place, rule, Outcome::Removed);
        None
    }

    fn empty(&mut self, mut element: Element, place: Place, rule: Rule) -> Element {
        self.note(&element, place, rule, Outcome::Emptied);
        match &mut element.value {
            Value::Items(items) => items.items.clear(),
            value => *value = Value::Bytes(Vec::new()),
        }
        element
    }

    /// A value that says nothing in place of one that does; nothing stays nothing.
    pub(crate) fn dummy(&mut self, mut element: Element, place: Place, rule: Rule) -> Result<Element, Refusal> {
        if element.is_empty() {
            self.note(&element, place, rule, Outcome::Kept);
            return Ok(element);
        }
        if let Value::Items(_) = element.value {
            return self.enter(element, Place { dummy: true, ..place }, rule);
        }
        let vr = element.tag.dictionary_vr().unwrap_or(element.vr);
        if vr == Vr::UI {
            return self.uids(element, place, rule);
        }
        self.note(&element, place, rule, Outcome::Replaced);
        let length = element.bytes().map_or(0, <[u8]>::len);
        element.set(dummy_value(vr, element.tag, length));
        Ok(element)
    }

    /// Other UIDs in place of those that are not the standard's.
    fn uids(&mut self, mut element: Element, place: Place, rule: Rule) -> Result<Element, Refusal> {
        let Some(bytes) = element.bytes() else {
            return self.enter(element, place, rule);
        };
        let text = String::from_utf8_lossy(bytes).into_owned();
        let mapped: Vec<String> = text
            .split('\\')
            .map(|uid| self.uid(element.tag, uid.trim_matches([' ', '\0'])))
            .collect();
        let mapped = mapped.join("\\");
        if mapped == text.trim_matches([' ', '\0']) {
            self.note(&element, place, rule, Outcome::Kept);
        } else {
            self.note(&element, place, rule, Outcome::Mapped);
            element.set(mapped);
        }
        Ok(element)
    }

    /// The UID that goes out for one that came in.
    pub(crate) fn uid(&self, tag: Tag, uid: &str) -> String {
        let well_known = uid.starts_with(WELL_KNOWN) && is_uid(uid.as_bytes()) && !MODALITY_ISSUED.contains(&tag);
        if uid.is_empty() || well_known {
            uid.to_owned()
        } else {
            self.keyed.uid(uid)
        }
    }

    fn pseudonym(&mut self, mut element: Element, place: Place) -> Element {
        let patient = place.charset.decode(element.bytes().unwrap_or_default());
        self.note(&element, place, Rule::Pseudonym, Outcome::Mapped);
        element.set(self.keyed.pseudonym(patient.trim_matches([' ', '\0'])));
        element
    }

    /// Kept, but only after a look at it.
    pub(crate) fn keep(&mut self, element: Element, place: Place, rule: Rule) -> Result<Element, Refusal> {
        let Some(bytes) = element.bytes() else {
            return self.enter(element, place, rule);
        };
        let vr = element
            .tag
            .dictionary_vr()
            .filter(|vr| *vr != Vr::UN)
            .unwrap_or(element.vr);
        if place.dummy && is_replaced_in_dummies(vr) && !element.is_empty() {
            return self.dummy(element, place, Rule::DummySequence);
        }
        if vr == Vr::UI && !is_uids(bytes) {
            return self.uids(element, place, Rule::Mismatch);
        }
        let found = match vr.kind() {
            Kind::Text => self.patient_in_text(bytes, vr, place).then_some(Rule::PatientFound),
            Kind::Number => {
                let text = String::from_utf8_lossy(bytes);
                (!is_numbers(&text) || text.split('\\').any(|text| self.needles.is_number(text)))
                    .then_some(Rule::NoNumber)
            }
            _ if self.needles.are_in_bytes(bytes) => {
                return Err(Refusal::PatientInBinary { tag: element.tag });
            }
            _ => None,
        };
        match found {
            Some(rule) if vr.kind() == Kind::Number => Ok(self.empty(element, place, rule)),
            Some(rule) if vr == Vr::CS => Ok(self.code_values(element, place, rule)),
            Some(rule) => self.dummy(element, place, rule),
            None => {
                self.note(&element, place, rule, Outcome::Kept);
                Ok(element)
            }
        }
    }

    /// A code string without those of its values that have something of the patient.
    fn code_values(&mut self, mut element: Element, place: Place, rule: Rule) -> Element {
        let text = place.charset.decode(element.bytes().unwrap_or_default());
        self.note(&element, place, rule, Outcome::Replaced);
        let values = text
            .split('\\')
            .map(|value| match self.needles.are_in_code_value(value) {
                true => "REMOVED",
                false => value,
            });
        let values: Vec<&str> = values.collect();
        element.set(values.join("\\").trim_matches([' ', '\0']));
        element
    }

    fn patient_in_text(&mut self, bytes: &[u8], vr: Vr, place: Place) -> bool {
        match vr {
            Vr::UI => false,
            // a date that may stay may be any date, but nothing else
            Vr::DA | Vr::DT | Vr::TM => !bytes
                .iter()
                .all(|byte| byte.is_ascii_digit() || matches!(byte, b'.' | b':' | b'+' | b'-' | b'\\' | b' ' | 0)),
            Vr::CS => {
                let text = place.charset.decode(bytes);
                self.needles.are_in_code(&text)
            }
            _ => {
                let text = place.charset.decode(bytes);
                self.needles.are_in(&text)
                    || (!bytes.is_ascii() && self.needles.are_in(&String::from_utf8_lossy(bytes)))
            }
        }
    }

    /// The items of a content sequence, by the table of content items.
    fn content(&mut self, mut element: Element, place: Place, rule: Rule) -> Result<Element, Refusal> {
        self.note(&element, place, rule, Outcome::Entered);
        let tag = element.tag;
        if let Value::Items(items) = &mut element.value {
            self.each(tag, items, |engine, elements| {
                let charset = Charset::of(&elements, place.charset);
                let inside = Place {
                    charset,
                    inside: Some(tag),
                    ..place
                };
                content::item(engine, elements, inside)
            })?;
        }
        Ok(element)
    }

    /// Cleaned where that is possible, else what the Basic Profile says.
    fn clean(&mut self, element: Element, place: Place, rule: Rule) -> Result<Option<Element>, Refusal> {
        let vr = element.tag.dictionary_vr().unwrap_or(element.vr);
        let option = match &rule {
            Rule::Option(_, option) => Some(*option),
            _ => None,
        };
        if let Value::Items(_) = element.value {
            return match option {
                Some(ProfileOption::CleanStructuredContent) => self.content(element, place, rule).map(Some),
                _ => self.enter(element, place, rule).map(Some),
            };
        }
        if matches!(vr, Vr::DA | Vr::DT | Vr::TM) || option == Some(ProfileOption::RetainModifiedDates) {
            return self.move_date(element, vr, place, rule);
        }
        if vr.kind() == Kind::Text && self.is_clean(element.bytes().unwrap_or_default(), place) {
            self.note(&element, place, rule, Outcome::Cleaned);
            return Ok(Some(element));
        }
        let action = self.basic(element.tag, place);
        self.apply(action, element, place, rule)
    }

    fn move_date(
        &mut self,
        mut element: Element,
        vr: Vr,
        place: Place,
        rule: Rule,
    ) -> Result<Option<Element>, Refusal> {
        let text = String::from_utf8_lossy(element.bytes().unwrap_or_default()).into_owned();
        let moved = match vr {
            Vr::DA => dates::shift_dates(&text, self.shift),
            Vr::DT => dates::shift_date_times(&text, self.shift),
            // whole days leave the time as it is
            Vr::TM => return self.keep(element, place, rule).map(Some),
            _ if element.tag == TIMEZONE => return self.keep(element, place, rule).map(Some),
            _ => None,
        };
        let Some(moved) = moved else {
            let action = self.basic(element.tag, place);
            return self.apply(action, element, place, rule);
        };
        self.note(&element, place, rule, Outcome::Moved);
        element.set(moved);
        Ok(Some(element))
    }

    /// The date or time of a content item; `none` where it cannot be moved.
    pub(crate) fn moved(&self, vr: Vr, text: &str) -> Option<String> {
        match vr {
            Vr::DA => dates::shift_dates(text, self.shift),
            Vr::DT => dates::shift_date_times(text, self.shift),
            _ => None,
        }
    }

    /// Whether free text may stay.
    pub(crate) fn is_clean(&mut self, bytes: &[u8], place: Place) -> bool {
        !self.patient_in_text(bytes, Vr::LT, place) && !needles::is_suspicious(&place.charset.decode(bytes))
    }

    /// Applies the profile to every item of a sequence.
    pub(crate) fn enter(&mut self, mut element: Element, place: Place, rule: Rule) -> Result<Element, Refusal> {
        self.note(&element, place, rule, Outcome::Entered);
        let tag = element.tag;
        if let Value::Items(items) = &mut element.value {
            self.each(tag, items, |engine, elements| {
                let inside = Place {
                    inside: Some(tag),
                    ..place
                };
                engine.elements(elements, inside).map(Some)
            })?;
        }
        Ok(element)
    }

    /// Calls `work` for the elements of each item, with the path to it known; an item of which nothing comes back goes.
    pub(crate) fn each(
        &mut self,
        tag: Tag,
        items: &mut Items,
        mut work: impl FnMut(&mut Self, Vec<Element>) -> Result<Option<Vec<Element>>, Refusal>,
    ) -> Result<(), Refusal> {
        let mut left = Vec::with_capacity(items.items.len());
        for (number, Item { undefined, elements }) in (1..).zip(std::mem::take(&mut items.items)) {
            self.path.push((tag, number));
            let elements = work(self, elements);
            self.path.pop();
            left.extend(elements?.map(|elements| Item { undefined, elements }));
        }
        items.items = left;
        Ok(())
    }

    fn private(&mut self, mut element: Element, place: Place, creators: &Creators) -> Result<Option<Element>, Refusal> {
        if !self.options.has(ProfileOption::RetainSafePrivate) {
            return Ok(self.remove(&element, place, Rule::Private));
        }
        if private::is_creator(element.tag) {
            // goes later, with its block
            self.note(&element, place, Rule::SafePrivate, Outcome::Kept);
            return Ok(Some(element));
        }
        let Some(vrs) = private::safe(&element, creators) else {
            return Ok(self.remove(&element, place, Rule::Private));
        };
        if element.wire == Vr::UN {
            element.vr = vrs.first().copied().unwrap_or(Vr::UN);
            if let (Vr::SQ, Value::Bytes(bytes)) = (element.vr, &element.value) {
                let mut budget = Budget::new(self.options.limits);
                let depth = u32::try_from(self.path.len()).unwrap_or(u32::MAX);
                if let Ok(items) = parse_items(bytes, Coding::IMPLICIT, &mut budget, depth) {
                    element.value = Value::Items(items);
                }
            }
        }
        let fits = vrs.contains(&element.vr) || vrs.is_empty() && element.vr.kind() == Kind::Binary;
        let is_sequence = matches!(element.value, Value::Items(_));
        if !fits || is_sequence != (element.vr == Vr::SQ) {
            return Ok(self.remove(&element, place, Rule::Mismatch));
        }
        let action = match element.vr {
            Vr::LO | Vr::SH => Action::Keep,
            // known to be safe, but prose all the same: only where nothing is found in it
            Vr::ST | Vr::LT | Vr::UT if self.is_clean(element.bytes().unwrap_or_default(), place) => Action::Keep,
            vr => self.by_representation(vr),
        };
        match action {
            Action::Dummy => Ok(self.remove(&element, place, Rule::Private)),
            action => self.apply(action, element, place, Rule::SafePrivate),
        }
    }

    /// Counts what became of an element, and keeps what it was for the private side.
    pub(crate) fn note(&mut self, element: &Element, place: Place, rule: Rule, outcome: Outcome) {
        self.counts.add(outcome);
        if let Some(events) = &mut self.events {
            events.push(Event {
                path: path_to(&self.path, element.tag),
                tag: element.tag,
                vr: element.vr,
                rule,
                outcome,
            });
        }
        if !matches!(outcome, Outcome::Kept | Outcome::Entered | Outcome::Cleaned) {
            let mut path = self.path.clone();
            remember(&mut self.private, &mut path, element, place.charset, outcome);
        }
    }
}

/// What stood in an element, and in everything inside it.
fn remember(
    half: &mut PrivateHalf,
    path: &mut Vec<(Tag, usize)>,
    element: &Element,
    charset: Charset,
    outcome: Outcome,
) {
    match &element.value {
        Value::Items(items) => {
            for (number, item) in (1..).zip(&items.items) {
                path.push((element.tag, number));
                let charset = Charset::of(&item.elements, charset);
                for inner in &item.elements {
                    remember(half, path, inner, charset, outcome);
                }
                path.pop();
            }
        }
        Value::Bytes(bytes) if !element.is_empty() && element.tag.1 != 0 => {
            half.add(|| {
                let (value, is_cut) = match element.vr.kind() {
                    Kind::Text | Kind::Number => OldValue::text(&charset.decode(bytes)),
                    _ => OldValue::bytes(bytes),
                };
                Original {
                    path: path_to(path, element.tag),
                    tag: element.tag,
                    value,
                    is_cut,
                    outcome,
                }
            });
        }
        _ => {}
    }
}

fn path_to(path: &[(Tag, usize)], tag: Tag) -> String {
    let mut text = String::new();
    for (sequence, number) in path {
        text.push_str(&format!("{sequence}[{number}]/"));
    }
    text + &tag.to_string()
}

/// Whether the file has another kind of value than the dictionary: then nobody knows what the bytes mean.
fn differs(known: Vr, element: &Element) -> bool {
    let is_sequence = matches!(element.value, Value::Items(_));
    if is_sequence != (known == Vr::SQ) {
        return true;
    }
    let (known, own) = (known.kind(), element.vr.kind());
    // numbers as text may have any representation of text, because they are checked
    known != own && own != Kind::Unknown && !(known == Kind::Number && own == Kind::Text)
}

/// What a dummy sequence does not leave of what is else kept: everything that somebody could have typed or drawn.
fn is_replaced_in_dummies(vr: Vr) -> bool {
    matches!(vr, Vr::FL | Vr::FD | Vr::OF | Vr::OD) || vr.kind() == Kind::Text && !matches!(vr, Vr::UI | Vr::CS)
}

/// Whether a value is UIDs at all: what is none could be anything.
fn is_uids(bytes: &[u8]) -> bool {
    bytes.split(|byte| *byte == b'\\').all(|uid| {
        let padding = uid.iter().rev().take_while(|byte| matches!(byte, b' ' | 0)).count();
        is_uid(&uid[..uid.len() - padding])
    })
}

/// Digits and points, 64 at most (PS3.5, section 9.1).
fn is_uid(uid: &[u8]) -> bool {
    uid.len() <= 64 && uid.iter().all(|byte| byte.is_ascii_digit() || *byte == b'.')
}

fn is_numbers(text: &str) -> bool {
    text.bytes()
        .all(|byte| byte.is_ascii_digit() || matches!(byte, b'+' | b'-' | b'.' | b'e' | b'E' | b'\\' | b' ' | 0))
}

/// A value of the representation that says nothing.
pub(crate) fn dummy_value(vr: Vr, tag: Tag, length: usize) -> Vec<u8> {
    // a scheme of our own begins with 99 (PS3.3, section 8.2)
    if tag == Tag(0x0008, 0x0102) {
        return b"99REMOVED".to_vec();
    }
    match vr {
        Vr::AS => b"000D".to_vec(),
        Vr::AE | Vr::CS => b"REMOVED".to_vec(),
        Vr::DA => b"19000101".to_vec(),
        Vr::DT => b"19000101000000".to_vec(),
        Vr::TM => b"000000".to_vec(),
        Vr::DS | Vr::IS => b"0".to_vec(),
        Vr::UR => b"about:blank".to_vec(),
        vr if vr.kind() == Kind::Text => b"Removed".to_vec(),
        Vr::OB | Vr::UN => vec![0; 2],
        _ => vec![0; length],
    }
}
