//! What identifying is left in an output, held against its input: of this crate or of any other tool.

use std::collections::{HashMap, HashSet};
use std::io::Read;

use crate::element::{Element, Kind, Tag, Value, Vr, ascii, find};
use crate::engine::{METHOD_CODES, PATIENT_IDENTITY_REMOVED};
use crate::iod::Iod;
use crate::needles::Needles;
use crate::options::{Options, ProfileOption};
use crate::private::{self, Creators};
use crate::profile::{inflated, read_header, read_meta};
use crate::read::{Budget, Limits, Source};
use crate::refusal::Refusal;
use crate::table::{self, Action};
use crate::text::Charset;

const WELL_KNOWN: &str = "1.2.840.10008.";

/// Something that should not be in an output. Never with a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Where: tags and item numbers from 1.
    pub path: String,
    /// The keyword, where the dictionary has one.
    pub keyword: Option<&'static str>,
    /// What is wrong with it.
    pub what: &'static str,
}

/// Compares what stands before the pixels. The options are those that the output says were in force.
///
/// # Errors
/// Where one of the two cannot be read.
pub fn check(input: impl Read, output: impl Read) -> Result<Vec<Finding>, Refusal> {
    let (_, before) = read(input)?;
    let (preamble, after) = read(output)?;
    let options = options_of(&after);
    let sop_class = ascii(&after, Tag(0x0008, 0x0016)).unwrap_or_default();
    let mut checker = Checker {
        needles: Needles::of(&before, &options),
        iod: Iod::of(&sop_class),
        values: HashMap::new(),
        uids: HashSet::new(),
        options,
        path: String::new(),
        findings: Vec::new(),
    };
    checker.learn(&before);
    if !preamble {
        checker.findings.push(Finding {
            path: "preamble".into(),
            keyword: None,
            what: "is not empty",
        });
    }
    checker.marks(&after);
    checker.elements(&after, None, Charset::default());
    Ok(checker.findings)
}

/// Whether the preamble is empty, and the elements before the pixels.
fn read(mut reader: impl Read) -> Result<(bool, Vec<Element>), Refusal> {
    let limits = Options::default();
    let mut preamble = Vec::new();
    reader
        .by_ref()
        .take(128)
        .read_to_end(&mut preamble)
        .map_err(Refusal::Read)?;
    let is_empty = preamble.iter().all(|byte| *byte == 0);
    let mut whole = preamble.as_slice().chain(reader);
    let mut source = Source::new(&mut whole, 0);
    let syntax = read_meta(&mut source, &limits)?;
    let header = |source: &mut Source<'_>| read_header(source, syntax.coding, &mut Budget::new(Limits::default()));
    let (elements, _) = inflated(&syntax, source, header)?;
    Ok((is_empty, elements))
}

/// The options that the codes in (0012,0064) name.
fn options_of(elements: &[Element]) -> Options {
    let codes = find(elements, METHOD_CODES).map(Element::items).unwrap_or_default();
    let named = codes.iter().filter_map(|item| {
        let code = ascii(&item.elements, Tag(0x0008, 0x0100))?;
        ProfileOption::all().find(|option| option.code() == code)
    });
    Options::new(named).unwrap_or_default()
}

struct Checker {
    options: Options,
    iod: Iod,
    needles: Needles,
    /// What stood in each attribute of the input.
    values: HashMap<Tag, HashSet<Vec<u8>>>,
    uids: HashSet<String>,
    path: String,
    findings: Vec<Finding>,
}

impl Checker {
    fn learn(&mut self, elements: &[Element]) {
        for element in elements {
            match &element.value {
                Value::Bytes(bytes) if !element.is_empty() => {
                    if element.tag.dictionary_vr() == Some(Vr::UI) {
                        let text = String::from_utf8_lossy(bytes);
                        self.uids.extend(uids(&text).map(str::to_owned));
                    }
                    self.values.entry(element.tag).or_default().insert(bytes.clone());
                }
                Value::Items(items) => items.items.iter().for_each(|item| self.learn(&item.elements)),
                _ => {}
            }
        }
    }

    fn marks(&mut self, elements: &[Element]) {
        if ascii(elements, PATIENT_IDENTITY_REMOVED).as_deref() != Some("YES") {
            self.found(PATIENT_IDENTITY_REMOVED, "does not say YES");
        }
        let codes = find(elements, METHOD_CODES).map(Element::items).unwrap_or_default();
        let is_basic = |item: &crate::element::Item| {
            ascii(&item.elements, Tag(0x0008, 0x0100)).is_some_and(|code| code == "113100")
        };
        if !codes.iter().any(is_basic) {
            self.found(METHOD_CODES, "does not name the Basic Profile");
        }
    }

    fn found(&mut self, tag: Tag, what: &'static str) {
        self.findings.push(Finding {
            path: format!("{}{tag}", self.path),
            keyword: tag.keyword(),
            what,
        });
    }

    fn elements(&mut self, elements: &[Element], inside: Option<Tag>, outer: Charset) {
        let charset = Charset::of(elements, outer);
        let creators = private::creators(elements);
        for element in elements {
            if let Some(what) = self.fault(element, inside, charset, &creators) {
                self.found(element.tag, what);
            }
            for (number, item) in (1..).zip(element.items()) {
                let length = self.path.len();
                self.path.push_str(&format!("{}[{number}]/", element.tag));
                self.elements(&item.elements, Some(element.tag), charset);
                self.path.truncate(length);
            }
        }
    }

    fn fault(
        &mut self,
        element: &Element,
        inside: Option<Tag>,
        charset: Charset,
        creators: &Creators,
    ) -> Option<&'static str> {
        let tag = element.tag;
        if tag.is_private() {
            let safe = self.options.has(ProfileOption::RetainSafePrivate)
                && (private::is_creator(tag) || private::safe(element, creators).is_some());
            return (!safe).then_some("is private");
        }
        if tag.is_graphics() {
            return Some("is an overlay or curve");
        }
        if tag.dictionary_vr().is_none() && table::row(tag).is_none() && tag.1 != 0 {
            return Some("is in no dictionary");
        }
        if let Some(what) = self.against_table(element, inside) {
            return Some(what);
        }
        let bytes = element.bytes()?;
        let vr = tag.dictionary_vr().unwrap_or(element.vr);
        if vr == Vr::UI {
            let text = String::from_utf8_lossy(bytes);
            let is_old = |uid: &str| !uid.starts_with(WELL_KNOWN) && self.uids.contains(uid);
            let kept = self.options.has(ProfileOption::RetainUids) || is_class(tag);
            return (!kept && uids(&text).any(is_old)).then_some("has a UID of the input");
        }
        let found = match vr.kind() {
            Kind::Text if vr == Vr::CS => self.needles.are_in_code(&charset.decode(bytes)),
            Kind::Text if !matches!(vr, Vr::DA | Vr::DT | Vr::TM) => self.needles.are_in(&charset.decode(bytes)),
            Kind::Number => String::from_utf8_lossy(bytes)
                .split('\\')
                .any(|text| self.needles.is_number(text)),
            _ => self.needles.are_in_bytes(bytes),
        };
        found.then_some("has a value of the patient")
    }

    fn against_table(&self, element: &Element, inside: Option<Tag>) -> Option<&'static str> {
        let row = table::row(element.tag)?;
        if element.is_empty() {
            return None;
        }
        if let Some((Action::Keep | Action::Clean, _)) = row.by_options(&self.options) {
            return None;
        }
        match row.basic.resolve(self.iod.need(element.tag, inside)) {
            Action::Remove => Some("should be gone"),
            Action::Empty | Action::Dummy => {
                let same = element.bytes().is_some_and(|bytes| {
                    self.values
                        .get(&element.tag)
                        .is_some_and(|values| values.contains(bytes))
                });
                same.then_some("has the value of the input")
            }
            _ => None,
        }
    }
}

/// Whether the UIDs of an attribute say what something is, not which one.
fn is_class(tag: Tag) -> bool {
    matches!(table::beyond(tag), Some((table::Beyond::Keep, _)))
}

fn uids(text: &str) -> impl Iterator<Item = &str> {
    text.split('\\')
        .map(|uid| uid.trim_matches([' ', '\0']))
        .filter(|uid| !uid.is_empty())
}
