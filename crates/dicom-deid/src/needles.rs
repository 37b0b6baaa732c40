//! This patient's own values, and the search for them in whatever the profile keeps: names of everybody in the object,
//! identifiers, dates, addresses; in any spelling, character set and order.

use std::collections::{BTreeSet, HashMap};

use memchr::memmem;

use crate::dates;
use crate::element::{Element, Tag, Value, Vr};
use crate::options::{Options, ProfileOption};
use crate::refusal::Refusal;
use crate::text::{Charset, alphanumeric, fold, words};

const PATIENT_GROUP: u16 = 0x0010;
pub(crate) const PATIENT_ID: Tag = Tag(0x0010, 0x0020);

/// Attributes whose values are identifiers, telephone numbers or addresses, at any depth.
const IDENTIFIERS: &[Tag] = &[
    Tag(0x0008, 0x0050),
    PATIENT_ID,
    Tag(0x0010, 0x1000),
    Tag(0x0010, 0x1040),
    Tag(0x0010, 0x1090),
    Tag(0x0010, 0x2154),
    Tag(0x0010, 0x2155),
    Tag(0x0012, 0x0040),
    Tag(0x0012, 0x0042),
    Tag(0x0020, 0x0010),
    Tag(0x0038, 0x0010),
    Tag(0x0038, 0x0060),
    Tag(0x0040, 0x0009),
    Tag(0x0040, 0x0253),
    Tag(0x0040, 0x1001),
    Tag(0x0040, 0x2016),
    Tag(0x0040, 0x2017),
];

const INSTITUTION: &[Tag] = &[Tag(0x0008, 0x0080), Tag(0x0008, 0x0081)];
const UIDS: &[Tag] = &[
    Tag(0x0008, 0x0018),
    Tag(0x0020, 0x000d),
    Tag(0x0020, 0x000e),
    Tag(0x0020, 0x0052),
];

/// What stands in fields for names and names nobody.
const NOBODY: &[&str] = &[
    "and",
    "anon",
    "anonymized",
    "anonymous",
    "def",
    "der",
    "die",
    "doc",
    "dr",
    "frau",
    "herr",
    "ii",
    "iii",
    "jr",
    "md",
    "mr",
    "mrs",
    "ms",
    "name",
    "no",
    "none",
    "null",
    "of",
    "patient",
    "phd",
    "prof",
    "removed",
    "sr",
    "system",
    "test",
    "the",
    "unknown",
    "van",
    "von",
    "xx",
    "xxx",
];

/// Terms that code strings have of right, though somebody may be called so (PS3.3 defined terms; PS3.16, annex L).
const DEFINED_TERMS: &[&str] = &[
    "ABDOMEN",
    "ABDOMENPELVIS",
    "ADDITION",
    "ADRENAL",
    "ALTERED",
    "ANGIO",
    "ANGIO_TIME",
    "ANIMAL",
    "ANKLE",
    "ANTERIOR",
    "AORTA",
    "ARM",
    "ATTENUATION",
    "AUTOMATIC",
    "AVOIDANCE",
    "AXIAL",
    "AXILLA",
    "BACK",
    "BEAM",
    "BEGIN",
    "BILATERAL",
    "BINARY",
    "BIPLANE",
    "BITMAP",
    "BLADDER",
    "BODY",
    "BRACHY",
    "BRAIN",
    "BREAST",
    "BRONCHUS",
    "BUTTOCK",
    "CALCANEUS",
    "CALCULATED",
    "CALF",
    "CARDIAC",
    "CARDIAC_CTA",
    "CARDIAC_GATED",
    "CARDRESP_GATED",
    "CAROTID",
    "CEREBELLUM",
    "CERVIX",
    "CHEEK",
    "CHEST",
    "CHESTABDOMEN",
    "CHESTABDPELVIS",
    "CIRCLE",
    "CIRCLEOFWILLIS",
    "CIRCULAR",
    "CLAVICLE",
    "CLINICAL",
    "CLOSED_PLANAR",
    "COCCYX",
    "CODE",
    "COLLIMATOR",
    "COLON",
    "COLOR",
    "COMPLETE",
    "COMPOSITE",
    "CONSTANT_ANGLE",
    "CONTAINER",
    "CONTAINS",
    "CONTINUOUS",
    "CONTROL",
    "CONTROL_POINT",
    "CORNEA",
    "CORONAL",
    "CORONARYARTERY",
    "CSPINE",
    "CTSPINE",
    "CURVE",
    "CYLINDER",
    "DATE",
    "DATETIME",
    "DENSITY",
    "DERIVED",
    "DIFFERENCE",
    "DIFFUSION",
    "DIFFUSION_ANISO",
    "DIGITAL",
    "DIS2D",
    "DIS3D",
    "DISPLAY",
    "DIVISION",
    "DIXON",
    "DUODENUM",
    "DYNAMIC",
    "EAR",
    "EFFECTIVE",
    "ELBOW",
    "ELECTRON",
    "ELLIPSE",
    "ELLIPSOID",
    "EMISSION",
    "END",
    "ERECT",
    "ERROR",
    "ESOPHAGUS",
    "ESTIMATED",
    "EXTERNAL",
    "EXTREMITY",
    "EYE",
    "EYELID",
    "FACE",
    "FAT",
    "FEMALE",
    "FEMUR",
    "FFDL",
    "FFDR",
    "FFP",
    "FFS",
    "FILM",
    "FILTERED",
    "FINAL",
    "FINGER",
    "FLAT",
    "FLOW",
    "FLUOROSCOPY",
    "FOOT",
    "FRACTION",
    "FRACTIONAL",
    "FREE",
    "FRONTAL",
    "FUNCTIONAL",
    "GALLBLADDER",
    "GATED",
    "GRAY",
    "HAND",
    "HAS ACQ CONTEXT",
    "HAS CONCEPT MOD",
    "HAS OBS CONTEXT",
    "HAS PROPERTIES",
    "HEAD",
    "HEADNECK",
    "HEART",
    "HELICAL",
    "HFDL",
    "HFDR",
    "HFP",
    "HFS",
    "HIGH",
    "HIP",
    "HUMAN",
    "HUMERUS",
    "IAC",
    "IDENTITY",
    "ILEUM",
    "ILIUM",
    "IMAGE",
    "IMAGINARY",
    "INFERIOR",
    "INFERRED FROM",
    "INTERPOLATED",
    "INVERSE",
    "IONIZATION_CHAMBER",
    "JAW",
    "JEJUNUM",
    "KIDNEY",
    "KNEE",
    "LABEL",
    "LARYNX",
    "LATERAL",
    "LEFT",
    "LEG",
    "LINEAR",
    "LINEAR_EXACT",
    "LIVER",
    "LOCALIZER",
    "LOW",
    "LSPINE",
    "LSSPINE",
    "LUMBO",
    "LUNG",
    "MAGNITUDE",
    "MALE",
    "MANUAL",
    "MARKER",
    "MASK",
    "MAXILLA",
    "MAXIMUM",
    "MEAN",
    "MEASURED",
    "MEDIAL",
    "MEDIAN",
    "MEDIASTINUM",
    "MEDIUM",
    "METABOLITE",
    "MINIMUM",
    "MINIP",
    "MIP",
    "MIXED",
    "MONOCHROME1",
    "MONOCHROME2",
    "MOTION",
    "MOUTH",
    "MPR",
    "MTT",
    "MULTIPLICATION",
    "MULTIPOINT",
    "MULTISEGMENT",
    "MULTI_PLAN",
    "NECK",
    "NECKCHEST",
    "NECKCHESTABDOMEN",
    "NECKCHESTABDPELV",
    "NEUTRON",
    "NOMINAL",
    "NONE",
    "NORM",
    "NORMAL",
    "NOSE",
    "NUM",
    "OBLIQUE",
    "OCCUPANCY",
    "OPEN_NONPLANAR",
    "OPEN_PLANAR",
    "ORBIT",
    "ORGAN",
    "ORIGINAL",
    "OTHER",
    "OVARY",
    "OVERVIEW",
    "PALETTE",
    "PANCREAS",
    "PARALLELEPIPED",
    "PAROTID",
    "PARTIAL",
    "PATELLA",
    "PATIENT",
    "PELVIS",
    "PENIS",
    "PERFUSION",
    "PHANTOM",
    "PHARYNX",
    "PHASE",
    "PHOTON",
    "PHYSICAL",
    "PHYSICIAN",
    "PIXEL",
    "PLAN",
    "PLANAR",
    "PLANE",
    "PNAME",
    "POINT",
    "POLYGON",
    "POLYGONAL",
    "POLYLINE",
    "POSTERIOR",
    "PRELIMINARY",
    "PRIMARY",
    "PROBABILITY",
    "PRODUCT",
    "PROJECTION",
    "PRONE",
    "PROSTATE",
    "PROTON",
    "QUALITY",
    "RAMP",
    "RCBF",
    "RCBV",
    "REAL",
    "RECON",
    "RECTANGLE",
    "RECTUM",
    "REFERENCE",
    "RESAMPLED",
    "RESEARCH",
    "REST",
    "RGB",
    "RIB",
    "RIGHT",
    "SAGITTAL",
    "SAMPLED",
    "SCALE",
    "SCALP",
    "SCAPULA",
    "SCLERA",
    "SCOORD",
    "SCOORD3D",
    "SCOUT",
    "SCROTUM",
    "SECONDARY",
    "SEGMENT",
    "SELECTED FROM",
    "SEMIAUTOMATIC",
    "SEPARATE",
    "SEQUENCED",
    "SERVICE",
    "SESSION",
    "SHOULDER",
    "SIGMOID",
    "SINGLE",
    "SITTING",
    "SKULL",
    "SOURCE",
    "SPECTROSCOPY",
    "SPINE",
    "SPIRAL",
    "SPLEEN",
    "SSPINE",
    "STANDARD",
    "STANDING",
    "STATIC",
    "STATIONARY",
    "STERNUM",
    "STOMACH",
    "STRESS",
    "SUBMANDIBULAR",
    "SUBTRACTION",
    "SUPERIOR",
    "SUPERPOSITION",
    "SUPINE",
    "SURFACE",
    "TABLE",
    "TAGGING",
    "TARGET",
    "TCOORD",
    "TECHNOLOGIST",
    "TEMPLATE",
    "TENSOR",
    "TEST",
    "TESTIS",
    "TEXT",
    "THIGH",
    "THORAX",
    "THUMB",
    "THUMBNAIL",
    "THYMUS",
    "THYROID",
    "TIME",
    "TLSPINE",
    "TMAX",
    "TMJOINT",
    "TOE",
    "TOMO",
    "TONGUE",
    "TRACHEA",
    "TRANSMISSION",
    "TSPINE",
    "TTP",
    "UIDREF",
    "UNALTERED",
    "UNKNOWN",
    "UNPAIRED",
    "UNVERIFIED",
    "URETER",
    "URETHRA",
    "UTERUS",
    "VAGINA",
    "VELOCITY",
    "VERIFIED",
    "VOLUME",
    "VULVA",
    "WATER",
    "WAVEFORM",
    "WEDGE",
    "WHOLE",
    "WHOLEBODY",
    "WRIST",
    "YES",
    "ZYGOMA",
];

/// What is searched for. Never printed.
#[derive(Default)]
pub(crate) struct Needles {
    /// Long enough to be themselves inside other words too.
    names: BTreeSet<String>,
    /// Short: as a word alone, or as all letters in a row of one.
    short_names: BTreeSet<String>,
    /// Letters and digits alone.
    identifiers: BTreeSet<String>,
    dates: BTreeSet<(i32, u32, u32)>,
    /// Lower-case ASCII, for values that are no text.
    raw: BTreeSet<Vec<u8>>,
    known: HashMap<String, bool>,
    /// What searching has cost: bytes searched times what was searched for.
    work: u64,
    most_work: u64,
}

impl Needles {
    /// Collects the values of a whole data set.
    pub(crate) fn of(elements: &[Element], options: &Options) -> Self {
        let mut needles = Self {
            most_work: options.limits.search,
            ..Self::default()
        };
        needles.collect(elements, Charset::default(), options);
        needles
    }

    fn collect(&mut self, elements: &[Element], outer: Charset, options: &Options) {
        let charset = Charset::of(elements, outer);
        for element in elements {
            let bytes = match &element.value {
                Value::Bytes(bytes) => bytes,
                Value::Items(items) => {
                    for item in &items.items {
                        self.collect(&item.elements, charset, options);
                    }
                    continue;
                }
                Value::Fragments => continue,
            };
            let tag = element.tag;
            if tag.dictionary_vr() == Some(Vr::PN) || element.vr == Vr::PN {
                self.add_names(&charset.decode(bytes), tag.0 == PATIENT_GROUP);
                // many say another character set than they write, or none
                if let (false, Ok(text)) = (bytes.is_ascii(), std::str::from_utf8(bytes)) {
                    self.add_names(text, tag.0 == PATIENT_GROUP);
                }
                self.add_raw(bytes);
            } else if IDENTIFIERS.contains(&tag)
                || INSTITUTION.contains(&tag) && !options.has(ProfileOption::RetainInstitutionIdentity)
                || UIDS.contains(&tag) && !options.has(ProfileOption::RetainUids)
            {
                let split: &[char] = if UIDS.contains(&tag) {
                    &['\\']
                } else {
                    &['\\', ',', ';', '\n', '\r', '^']
                };
                charset
                    .decode(bytes)
                    .split(split)
                    .for_each(|value| self.add_identifier(value));
            } else if self.is_date(tag, element.vr, options) {
                self.add_dates(&String::from_utf8_lossy(bytes));
            }
        }
    }

    /// Dates of the object are the patient's too, but not where they are kept on purpose.
    fn is_date(&self, tag: Tag, vr: Vr, options: &Options) -> bool {
        let vr = tag.dictionary_vr().unwrap_or(vr);
        let born = tag.0 == PATIENT_GROUP && vr == Vr::DA;
        born || matches!(tag, Tag(0x0008, 0x0020..=0x002a)) && !options.has(ProfileOption::RetainFullDates)
    }

    fn add_names(&mut self, value: &str, of_patient: bool) {
        for group in value.split(['\\', '=']) {
            let components: Vec<&str> = group.split('^').collect();
            // family, given and middle names; what comes before and after them names nobody
            for component in components.iter().take(3) {
                for part in
                    component.split(|c: char| !c.is_alphanumeric() && !matches!(c, '\'' | '\u{300}'..='\u{36f}'))
                {
                    self.add_name(&alphanumeric(&fold(part)), of_patient);
                }
            }
            // scripts that are written without spaces
            if !group.is_ascii() {
                self.add_name(
                    &alphanumeric(&fold(&components[..components.len().min(2)].concat())),
                    of_patient,
                );
            }
        }
    }

    fn add_name(&mut self, folded: &str, of_patient: bool) {
        let length = folded.chars().count();
        if NOBODY.contains(&folded) {
            return;
        }
        let has_letters = folded.chars().any(char::is_alphabetic);
        let names = match (folded.is_ascii(), length) {
            (false, 2..) | (true, 5..) => &mut self.names,
            (true, 3..=4) if has_letters => &mut self.short_names,
            (true, 2) if has_letters && of_patient => &mut self.short_names,
            _ => return,
        };
        names.insert(folded.to_owned());
        if folded.is_ascii() && length >= 5 {
            self.raw.insert(folded.as_bytes().to_vec());
        }
    }

    /// The parts of a name as they stand in the file, for values that are no text.
    fn add_raw(&mut self, bytes: &[u8]) {
        let between = |byte: &u8| matches!(byte, b'^' | b'=' | b'\\' | b' ' | b',' | b'-' | 0);
        for part in bytes.split(between) {
            let plain = part.to_ascii_lowercase();
            let is_nobody = NOBODY.iter().any(|word| word.as_bytes() == plain.as_slice());
            if plain.len() >= 5 && !is_nobody {
                self.raw.insert(plain);
            }
        }
    }

    fn add_identifier(&mut self, value: &str) {
        let folded = alphanumeric(&fold(value));
        if folded.chars().count() < 4 || NOBODY.contains(&folded.as_str()) || folded.chars().all(|c| c == '0') {
            return;
        }
        let plain = value.trim_matches([' ', '\0']).to_ascii_lowercase();
        if plain.is_ascii() && plain.len() >= 6 {
            self.raw.insert(plain.into_bytes());
        }
        self.identifiers.insert(folded);
    }

    fn add_dates(&mut self, value: &str) {
        for text in value.split('\\') {
            let day = text.trim_matches([' ', '\0']);
            self.dates.extend(day.get(..day.len().min(8)).and_then(dates::parse));
            self.dates.extend(dates::parse(day));
        }
    }

    /// Whether a text has one of them.
    pub(crate) fn are_in(&mut self, text: &str) -> bool {
        const MEMORY: usize = 100_000;
        if let Some(known) = self.known.get(text) {
            return *known;
        }
        let needles = self.names.len() + self.short_names.len() + self.identifiers.len() + self.dates.len();
        if !self.may_search(text.len(), needles) {
            return true;
        }
        let found = self.search(text);
        if self.known.len() < MEMORY {
            self.known.insert(text.to_owned(), found);
        }
        found
    }

    /// [`Needles::are_in`] for code strings, whose defined terms are no one's name.
    pub(crate) fn are_in_code(&mut self, text: &str) -> bool {
        text.split('\\').any(|value| self.are_in_code_value(value))
    }

    /// [`Needles::are_in_code`] for one of its values.
    pub(crate) fn are_in_code_value(&mut self, value: &str) -> bool {
        let value = value.trim_matches([' ', '\0']);
        DEFINED_TERMS.binary_search(&value).is_err() && !is_defined(value) && self.are_in(value)
    }

    fn search(&self, text: &str) -> bool {
        let folded = fold(text);
        if folded.trim().is_empty() {
            return false;
        }
        let joined = alphanumeric(&folded);
        let identifier = |identifier: &String| match identifier.chars().count() {
            0..=5 => stands_alone(identifier, &folded),
            _ => joined.contains(identifier.as_str()),
        };
        self.names.iter().any(|name| joined.contains(name.as_str()))
            || self.has_short_name(&folded)
            || self.identifiers.iter().any(identifier)
            || self.has_date(&folded)
    }

    fn has_short_name(&self, folded: &str) -> bool {
        let is_name = |word: &str| self.short_names.contains(word);
        !self.short_names.is_empty() && words(folded).any(|word| is_name(word) || runs(word).any(is_name))
    }

    fn has_date(&self, folded: &str) -> bool {
        if self.dates.is_empty() {
            return false;
        }
        let words = date_words(folded);
        let one = words.iter().any(|run| match (run.len(), run.is_ascii()) {
            (8, true) => {
                self.is_day([&run[..4], &run[4..6], &run[6..]]) || self.is_day([&run[..2], &run[2..4], &run[4..]])
            }
            (14, true) => self.is_day([&run[..4], &run[4..6], &run[6..8]]),
            _ => false,
        });
        one || words
            .windows(3)
            .any(|three| self.is_day([three[0], three[1], three[2]]))
    }

    /// Whether three words are one of the dates: in any order that people use, months as numbers or names.
    fn is_day(&self, [a, b, c]: [&str; 3]) -> bool {
        let reads = |year: &str, month: &str, day: &str| {
            let (Some(month), Some(day)) = (month_of(month), number(day)) else {
                return false;
            };
            self.dates
                .iter()
                .any(|(y, m, d)| (*m, *d) == (month, day) && is_year(year, *y))
        };
        reads(a, b, c) || reads(c, b, a) || reads(c, a, b)
    }

    /// Whether a number is one of the identifiers or dates, and nothing else.
    pub(crate) fn is_number(&self, text: &str) -> bool {
        let plain = text.trim_matches([' ', '\0']);
        plain.len() >= 6
            && (self.identifiers.contains(plain)
                || dates::parse(plain).is_some_and(|day| !plain.contains('.') && self.dates.contains(&day)))
    }

    /// Counts the work of a search; whether it may be done.
    fn may_search(&mut self, bytes: usize, needles: usize) -> bool {
        const ONE_SEARCH: u64 = 50;
        let work = (bytes as u64 + ONE_SEARCH).saturating_mul(needles as u64);
        self.work = self.work.saturating_add(work);
        self.work <= self.most_work
    }

    /// Refuses an object in which not everything was searched.
    pub(crate) fn were_searched(&self) -> Result<(), Refusal> {
        if self.work <= self.most_work {
            return Ok(());
        }
        Err(Refusal::TooLarge {
            what: "names and identifiers, times the text to be searched for them",
            limit: self.most_work,
        })
    }

    /// Whether bytes that are no text have one of them.
    pub(crate) fn are_in_bytes(&mut self, bytes: &[u8]) -> bool {
        if self.raw.is_empty() || bytes.len() < 5 {
            return false;
        }
        if !self.may_search(bytes.len(), self.raw.len()) {
            return true;
        }
        let lower = bytes.to_ascii_lowercase();
        self.raw.iter().any(|needle| memmem::find(&lower, needle).is_some())
    }
}

fn is_defined(value: &str) -> bool {
    // modalities and the like: two letters of a name say nothing in a code string
    value.len() <= 2
}

fn digit_runs(word: &str) -> impl Iterator<Item = &str> {
    word.split(|c: char| !c.is_ascii_digit()).filter(|run| !run.is_empty())
}

/// Runs of digits and runs of what is none.
fn runs(word: &str) -> impl Iterator<Item = &str> {
    let mut rest = word;
    std::iter::from_fn(move || {
        let digit = rest.chars().next()?.is_ascii_digit();
        let end = rest.find(|c: char| c.is_ascii_digit() != digit).unwrap_or(rest.len());
        let (run, after) = rest.split_at(end);
        rest = after;
        Some(run)
    })
}

/// Runs of digits and runs of letters, without the endings of "1st", "2nd", "3rd", "4th".
fn date_words(folded: &str) -> Vec<&str> {
    let all = words(folded).flat_map(runs);
    all.filter(|run| !matches!(*run, "st" | "nd" | "rd" | "th")).collect()
}

/// Whether words that follow one another are an identifier, however it is separated there: the whole of each.
fn stands_alone(identifier: &str, folded: &str) -> bool {
    let mut words = words(folded);
    loop {
        let mut rest = identifier;
        for word in words.clone() {
            match rest.strip_prefix(word) {
                Some("") => return true,
                Some(after) => rest = after,
                None => break,
            }
        }
        if words.next().is_none() {
            return false;
        }
    }
}

fn number(text: &str) -> Option<u32> {
    let plain = (1..=2).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    plain.then(|| text.parse().ok()).flatten()
}

fn is_year(text: &str, year: i32) -> bool {
    match text.len() {
        4 => text.parse() == Ok(year),
        2 => text.parse() == Ok(year.rem_euclid(100)),
        _ => false,
    }
}

/// A month by number, or by its first letters in English, German, French, Spanish or Italian.
fn month_of(text: &str) -> Option<u32> {
    const MONTHS: [&[&str]; 12] = [
        &["jan", "ene", "gen"],
        &["feb", "fev"],
        &["mar", "mrz"],
        &["apr", "avr", "abr"],
        &["may", "mai", "mag"],
        &["jun", "juin", "giu"],
        &["jul", "juil", "lug"],
        &["aug", "aou", "ago", "aout"],
        &["sep", "set"],
        &["oct", "okt", "ott"],
        &["nov"],
        &["dec", "dez", "dic"],
    ];
    if let Some(number) = number(text) {
        return Some(number);
    }
    let month = MONTHS
        .iter()
        .position(|names| names.iter().any(|name| text.starts_with(name)))?;
    u32::try_from(month + 1).ok()
}

/// Whether a description may name somebody who is not known from this object: numbers that could identify, titles,
/// addresses of mail. What is cleaned and has none of them and no value of the patient is kept.
pub(crate) fn is_suspicious(text: &str) -> bool {
    const TITLES: &[&str] = &[
        "born", "dob", "doctor", "dr", "frau", "geb", "geboren", "herr", "mr", "mrn", "mrs", "ms", "patient", "phone",
        "pid", "prof", "ssn", "tel",
    ];
    let folded = fold(text);
    text.contains(['@', '^'])
        || words(&folded).any(|word| TITLES.binary_search(&word).is_ok() || digit_runs(word).any(|run| run.len() >= 5))
        || date_words(&folded).windows(3).any(|three| {
            let year = |word: &str| word.len() == 4 && word.bytes().all(|byte| byte.is_ascii_digit());
            let [a, b, c] = [three[0], three[1], three[2]];
            year(a) && month_of(b).is_some() && number(c).is_some()
                || year(c)
                    && (month_of(b).is_some() && number(a).is_some() || month_of(a).is_some() && number(b).is_some())
                || is_named_day([a, b, c])
        })
        || has_short_date(&folded)
}

/// A month by its name between day and year, of two digits, in either order.
fn is_named_day([a, b, c]: [&str; 3]) -> bool {
    let is_named = number(b).is_none() && month_of(b).is_some();
    is_named && number(a).is_some() && number(c).is_some() && (a.len() == 2 || c.len() == 2)
}

/// Whether a text has a day whose year has two digits: numbers with nothing but points, slashes or dashes between them.
/// Spaces there would make dates of any three numbers.
fn has_short_date(folded: &str) -> bool {
    let is_between = |c: char| matches!(c, '.' | '/' | '-');
    folded
        .split(|c: char| !c.is_ascii_digit() && !is_between(c))
        .any(|token| {
            let numbers: Vec<&str> = token.split(is_between).filter(|number| !number.is_empty()).collect();
            numbers
                .windows(3)
                .any(|three| is_short_day([three[0], three[1], three[2]]))
        })
}

/// Day, month and year, month, day and year, or year, month and day.
fn is_short_day([a, b, c]: [&str; 3]) -> bool {
    let up_to = |text: &str, most: u32| number(text).is_some_and(|number| (1..=most).contains(&number));
    let is_year = |text: &str| text.len() == 2 && number(text).is_some();
    let is_day = |month: &str, day: &str| up_to(month, 12) && up_to(day, 31);
    is_year(c) && (is_day(a, b) || is_day(b, a)) || is_year(a) && is_day(b, c)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn needles(elements: &[(Tag, Vr, &str)]) -> Needles {
        let elements: Vec<_> = elements
            .iter()
            .map(|(tag, vr, value)| Element::new(*tag, *vr, *value))
            .collect();
        Needles::of(&elements, &Options::default())
    }

    const NAME: Tag = Tag(0x0010, 0x0010);
    const BORN: Tag = Tag(0x0010, 0x0030);

    #[test]
    fn the_lists_are_sorted_where_they_are_searched() {
        let mut terms = DEFINED_TERMS.to_vec();
        terms.sort_unstable();
        assert!(NOBODY.is_sorted());
        assert_eq!(terms, DEFINED_TERMS);
    }

    #[test]
    fn names_are_found_in_any_spelling_and_order() {
        let mut needles = needles(&[
            (Tag(0x0008, 0x0005), Vr::CS, "ISO_IR 192"),
            (NAME, Vr::PN, "Müller^Jörg Li^^Dr"),
        ]);
        for text in [
            "scan of MUELLER",
            "muller_joerg",
            "J\u{d6}RG",
            "for Li, again",
            "xMULLERx",
        ] {
            assert!(needles.are_in(text), "{text}");
        }
        for text in ["Liver", "Dr. Who", "", "jor"] {
            assert!(!needles.are_in(text), "{text}");
        }
    }

    #[test]
    fn identifiers_are_found_however_they_are_separated() {
        let mut needles = needles(&[
            (PATIENT_ID, Vr::LO, "KH-0047-1961"),
            (Tag(0x0008, 0x0050), Vr::SH, "4711"),
        ]);
        for text in ["see kh00471961", "KH 0047/1961b", "no 4711 again"] {
            assert!(needles.are_in(text), "{text}");
        }
        for text in ["KH-0047", "147110", "0.4711001"] {
            assert!(!needles.are_in(text), "{text}");
        }
    }

    #[test]
    fn short_identifiers_are_found_as_whole_words_however_they_are_separated() {
        for (id, found, others) in [
            (
                "AB-12",
                ["AB-12 ap", "T2 ab 12 ap", "of_AB12", "a_b_1_2"],
                ["ab 123", "xab 12"],
            ),
            ("P-001", ["P-001", "p 001 lat", "P001", "(p/001)"], ["P-0011", "ap 001"]),
            (
                "12-345",
                ["12-345", "12345 ap", "no 12 345", "1/23/45"],
                ["12 3456", "112 345"],
            ),
        ] {
            let mut needles = needles(&[(PATIENT_ID, Vr::LO, id)]);
            for text in found {
                assert!(needles.are_in(text), "{id} in {text}");
            }
            for text in others {
                assert!(!needles.are_in(text), "{id} in {text}");
            }
        }
    }

    #[test]
    fn short_names_are_found_beside_digits() {
        let mut needles = needles(&[(NAME, Vr::PN, "Kim^Bo")]);
        for text in ["KIM1", "t2_kim", "2bo3 ap"] {
            assert!(needles.are_in(text), "{text}");
        }
        for text in ["KIMONO", "bone 3", "1a"] {
            assert!(!needles.are_in(text), "{text}");
        }
    }

    #[test]
    fn dates_are_found_as_people_write_them() {
        let mut needles = needles(&[(BORN, Vr::DA, "19610228")]);
        for text in [
            "19610228",
            "1961-02-28",
            "28.02.1961",
            "28.2.61",
            "2/28/1961",
            "28 Feb 1961",
            "February 28th, 1961",
            "28. Februar 1961",
            "born 28FEB1961",
            "x19610228120000",
        ] {
            assert!(needles.are_in(text), "{text}");
        }
        for text in ["28.03.1961", "1961", "2.8", "196102280"] {
            assert!(!needles.are_in(text), "{text}");
        }
        assert!(needles.is_number("19610228"));
        assert!(!needles.is_number("19610229"));
    }

    #[test]
    fn a_patient_called_head_costs_no_code_strings() {
        let mut needles = needles(&[(NAME, Vr::PN, "HEAD^ROSALIND^text")]);
        assert!(!needles.are_in_code("HEAD"));
        assert!(!needles.are_in_code("TEXT "));
        assert!(needles.are_in_code("ORIGINAL\\ROSALIND"));
        assert!(needles.are_in("head"));
    }

    #[test]
    fn bytes_are_searched_without_regard_to_case() {
        let mut needles = needles(&[(NAME, Vr::PN, "Feldmann^Rosalind")]);
        assert!(needles.are_in_bytes(b"\x01\x02FELDMANN\xff"));
        assert!(!needles.are_in_bytes(b"\x01\x02FELD\xff"));
    }

    #[test]
    fn plain_descriptions_are_kept_and_others_are_not() {
        for text in [
            "THORAX 5.0 B31f",
            "t2_tse_sag_320",
            "Abdomen with contrast, arterial phase",
            "T2 3.0-5.0/20",
            "ep2d b 0-500-1000",
            "0.5/0.5/10",
            "FOV 12.5 3",
            "3 may 5",
        ] {
            assert!(!is_suspicious(text), "{text}");
        }
        for text in [
            "Pat. of Dr. Who",
            "see 2024-03-01",
            "call 0551 39123",
            "a@b.org",
            "MRN 17",
            "Smith^J",
            "1 March 2024",
            "Vgl. 03.01.24",
            "prior 02/11/23",
            "24-01-03",
            "v.3.1.24-5.1.24",
            "3 Jan 24",
            "of 03JAN24",
        ] {
            assert!(is_suspicious(text), "{text}");
        }
    }
}
