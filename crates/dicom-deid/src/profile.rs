//! A profile: options and secret, ready to de-identify any number of objects, one after the other or in parallel.

use std::io::{self, BufReader, Cursor, Read, Write};

use flate2::Compression;
use flate2::bufread::DeflateDecoder;
use flate2::write::DeflateEncoder;

use crate::element::{Coding, Element, Tag, Vr, ascii, find, put};
use crate::engine::{Engine, Event, METHOD, METHOD_CODES, PATIENT_IDENTITY_REMOVED, Place, TEMPORAL};
use crate::header::Header;
use crate::iod::Iod;
use crate::meta;
use crate::needles::PATIENT_ID;
use crate::options::{Options, ProfileOption};
use crate::pixels;
use crate::read::{Budget, Head, Parser, Source, are_unique};
use crate::refusal::{Flag, Refusal};
use crate::report::{Counts, Ids, PrivateHalf, Report};
use crate::review;
use crate::secret::{Keyed, Secret};
use crate::syntax::Syntax;
use crate::table::EDITION;
use crate::text::Charset;

/// The version of what this crate makes of an object: the same input, options and secret give the same bytes for as
/// long as this stays the same.
pub const PROFILE_VERSION: u32 = 3;

const SOP_CLASS: Tag = Tag(0x0008, 0x0016);
const SOP: Tag = Tag(0x0008, 0x0018);
const MODALITY: Tag = Tag(0x0008, 0x0060);
const STUDY: Tag = Tag(0x0020, 0x000d);
const ROWS: Tag = Tag(0x0028, 0x0010);
const SERIES: Tag = Tag(0x0020, 0x000e);
const SPECTROSCOPY_DATA: Tag = Tag(0x5600, 0x0020);

/// The Basic Profile with options, and the project's secret.
pub struct Profile {
    options: Options,
    keyed: Keyed,
}

/// Everything before the pixels, done.
pub(crate) struct Prepared<'p> {
    pub(crate) elements: Vec<Element>,
    pub(crate) engine: Engine<'p>,
    pub(crate) flags: Vec<Flag>,
    pixels: Option<Head>,
    described_bytes: Option<u64>,
    original: Ids,
    new: Ids,
    sop_class: String,
    modality: Option<String>,
    budget: Budget,
}

impl Profile {
    /// The Basic Profile with `options`; UIDs, pseudonyms and dates are derived from `secret`, which is not kept.
    pub fn new(options: Options, secret: &Secret) -> Self {
        Self {
            options,
            keyed: Keyed::new(secret),
        }
    }

    /// What is recorded with each object: version of the profile, edition of the standard, options.
    pub fn name(&self) -> String {
        let mut name = format!("hydra-deid-{PROFILE_VERSION} PS3.15-{EDITION}");
        for option in self.options.iter() {
            name.push_str(" +");
            name.push_str(option.name());
        }
        name
    }

    /// The options.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// The UID that goes out for a study's, series' or instance's that comes in: known before the object is.
    pub fn uid(&self, original: &str) -> String {
        let original = original.trim_matches([' ', '\0']);
        if original.is_empty() || self.options.has(ProfileOption::RetainUids) {
            return original.to_owned();
        }
        self.keyed.uid(original)
    }

    /// The patient's identifier that goes out for one that comes in.
    pub fn patient(&self, original: &str) -> String {
        match original.trim_matches([' ', '\0']) {
            "" => String::new(),
            id => self.keyed.pseudonym(id),
        }
    }

    /// De-identifies a file of PS3.10 as it is read. Memory is bounded by [`crate::Limits`], whatever the pixels' size.
    ///
    /// # Errors
    /// Why it is refused. What was written until then must be dropped: nothing of it may be passed on.
    pub fn deidentify(&self, mut reader: impl Read, mut writer: impl Write) -> Result<Report, Refusal> {
        let mut source = Source::new(&mut reader, 0);
        let syntax = read_meta(&mut source, &self.options)?;
        self.run(&syntax, source, &mut writer)
    }

    /// De-identifies a data set without preamble and group 0002, as it comes over the network; writes a file of PS3.10.
    ///
    /// # Errors
    /// As [`Profile::deidentify`].
    pub fn deidentify_data_set(
        &self,
        transfer_syntax: &str,
        mut reader: impl Read,
        mut writer: impl Write,
    ) -> Result<Report, Refusal> {
        let syntax = syntax_of(transfer_syntax)?;
        self.run(&syntax, Source::new(&mut reader, 0), &mut writer)
    }

    /// [`Profile::deidentify`] for a file that is in memory; gives back the new one.
    ///
    /// # Errors
    /// As [`Profile::deidentify`].
    pub fn deidentify_file_bytes(&self, file: &[u8]) -> Result<(Vec<u8>, Report), Refusal> {
        let mut out = Vec::with_capacity(file.len());
        let report = self.deidentify(file, &mut out)?;
        Ok((out, report))
    }

    fn run(&self, syntax: &Syntax, source: Source<'_>, writer: &mut dyn Write) -> Result<Report, Refusal> {
        let mut out = Counted {
            inner: writer,
            bytes: 0,
        };
        let mut prepared;
        if syntax.deflated {
            let at = source.at();
            let (back, inner) = source.into_rest();
            let mut inflated = DeflateDecoder::new(BufReader::new(Cursor::new(back).chain(inner)));
            let mut source = Source::new(&mut inflated, at);
            prepared = self.prepare(syntax, &mut source, false)?;
            prepared.write_meta(syntax, &mut out)?;
            let begins = out.bytes;
            let mut deflating = DeflateEncoder::new(&mut out, Compression::default());
            prepared.write_rest(syntax, &mut source, &mut deflating)?;
            deflating.finish().map_err(Refusal::Write)?;
            let size = inflated.total_out();
            nothing_follows(inflated.into_inner(), size)?;
            // PS3.5, A.5: an even number of bytes
            if (out.bytes - begins) % 2 == 1 {
                out.write_all(&[0]).map_err(Refusal::Write)?;
            }
        } else {
            let mut source = source;
            prepared = self.prepare(syntax, &mut source, false)?;
            prepared.write_meta(syntax, &mut out)?;
            prepared.write_rest(syntax, &mut source, &mut out)?;
        }
        out.flush().map_err(Refusal::Write)?;
        Ok(prepared.report(self, syntax, out.bytes))
    }

    /// Reads everything before the pixels and applies the profile to it.
    pub(crate) fn prepare(
        &self,
        syntax: &Syntax,
        source: &mut Source<'_>,
        explain: bool,
    ) -> Result<Prepared<'_>, Refusal> {
        let mut budget = Budget::new(self.options.limits);
        let (elements, pixels) = read_header(source, syntax.coding, &mut budget)?;
        if pixels.is_none() && has_pixels(&elements) {
            return Err(Refusal::Missing { keyword: "PixelData" });
        }
        self.prepare_elements(syntax, elements, pixels, budget, explain)
    }

    /// Applies the profile to everything before the pixels.
    fn prepare_elements(
        &self,
        syntax: &Syntax,
        elements: Vec<Element>,
        pixels: Option<Head>,
        budget: Budget,
        explain: bool,
    ) -> Result<Prepared<'_>, Refusal> {
        let sop_class = ascii(&elements, SOP_CLASS).ok_or(Refusal::Missing { keyword: "SOPClassUID" })?;
        let sop = ascii(&elements, SOP).ok_or(Refusal::Missing {
            keyword: "SOPInstanceUID",
        })?;
        let iod = Iod::of(&sop_class);
        let described_bytes = pixels::described_bytes(&elements, syntax.coding);
        let flags = self.review(&elements, &sop_class, syntax, has_pixels(&elements) || pixels.is_some())?;
        let original = Ids {
            study: ascii(&elements, STUDY),
            series: ascii(&elements, SERIES),
            sop,
            patient: patient_id(&elements),
        };
        // without a patient's identifier dates move together within the study at least
        let patient = original.patient.clone().or_else(|| original.study.clone());
        let patient = patient.unwrap_or_else(|| original.sop.clone());
        let mut engine = Engine::new(&self.options, &self.keyed, iod, &elements, &patient);
        engine.events = explain.then(Vec::new);
        let mut elements = engine.elements(elements, Place::top())?;
        engine.needles.were_searched()?;
        self.mark(&mut elements, &flags, syntax.coding);
        // what everybody may see is what goes out
        let modality = ascii(&elements, MODALITY);
        let sop_class = ascii(&elements, SOP_CLASS).unwrap_or_default();
        let new = Ids {
            study: ascii(&elements, STUDY),
            series: ascii(&elements, SERIES),
            sop: ascii(&elements, SOP).ok_or(Refusal::Missing {
                keyword: "SOPInstanceUID",
            })?,
            patient: ascii(&elements, PATIENT_ID),
        };
        Ok(Prepared {
            elements,
            engine,
            flags,
            pixels,
            described_bytes,
            original,
            new,
            sop_class,
            modality,
            budget,
        })
    }

    /// Both sides of what stands before the pixels, of a file of PS3.10, of which no more is read.
    ///
    /// # Errors
    /// As [`Profile::deidentify`], as far as it can be told without the pixels.
    pub fn header(&self, mut reader: impl Read) -> Result<Header, Refusal> {
        let mut source = Source::new(&mut reader, 0);
        let syntax = read_meta(&mut source, &self.options)?;
        inflated(&syntax, source, |source| self.sides(&syntax, source))
    }

    /// [`Profile::header`] of a data set without preamble and group 0002, which may lack the pixels: what a PACS tells
    /// of an instance without sending it.
    ///
    /// # Errors
    /// As [`Profile::header`].
    pub fn header_of_data_set(&self, transfer_syntax: &str, mut reader: impl Read) -> Result<Header, Refusal> {
        let syntax = syntax_of(transfer_syntax)?;
        self.sides(&syntax, &mut Source::new(&mut reader, 0))
    }

    fn sides(&self, syntax: &Syntax, source: &mut Source<'_>) -> Result<Header, Refusal> {
        let mut budget = Budget::new(self.options.limits);
        let (elements, pixels) = read_header(source, syntax.coding, &mut budget)?;
        let before = elements.clone();
        let prepared = self.prepare_elements(syntax, elements, pixels, budget, false)?;
        Ok(Header::new(
            before,
            prepared.elements,
            prepared.engine.into_needles(),
            syntax.coding,
        ))
    }

    /// [`Profile::prepare`] for any transfer syntax, with an account of every attribute.
    pub(crate) fn explain(&self, syntax: &Syntax, source: Source<'_>) -> Result<Prepared<'_>, Refusal> {
        inflated(syntax, source, |source| self.prepare(syntax, source, true))
    }

    /// Refuses what must not go on, and answers what a person should look at.
    fn review(
        &self,
        elements: &[Element],
        sop_class: &str,
        syntax: &Syntax,
        has_pixels: bool,
    ) -> Result<Vec<Flag>, Refusal> {
        review::refused(elements, sop_class, &self.options)?;
        let flags = if has_pixels {
            review::flags(elements, sop_class, syntax, &self.options)
        } else {
            Vec::new()
        };
        match flags.first() {
            Some(flag) if !self.options.flag_instead => Err(Refusal::Review(*flag)),
            _ => Ok(flags),
        }
    }

    /// Says what was done (PS3.15, E.1.1; PS3.16, CID 7050).
    fn mark(&self, elements: &mut Vec<Element>, flags: &[Flag], coding: Coding) {
        let code = |code: &str, meaning: &str| {
            vec![
                Element::new(Tag(0x0008, 0x0100), Vr::SH, code),
                Element::new(Tag(0x0008, 0x0102), Vr::SH, "DCM"),
                Element::new(Tag(0x0008, 0x0104), Vr::LO, meaning),
            ]
        };
        let mut codes = vec![code("113100", "Basic Application Confidentiality Profile")];
        // what only a person can say of the pixels is not claimed
        let is_done = |option: &ProfileOption| match option {
            ProfileOption::CleanPixelData => flags.iter().all(|flag| *flag == Flag::RecognizableFeatures),
            ProfileOption::CleanRecognizableVisualFeatures => !flags.contains(&Flag::RecognizableFeatures),
            _ => true,
        };
        let done = self.options.iter().filter(is_done);
        codes.extend(done.map(|option| code(option.code(), option.meaning())));
        let temporal = if self.options.has(ProfileOption::RetainFullDates) {
            "UNMODIFIED"
        } else if self.options.has(ProfileOption::RetainModifiedDates) {
            "MODIFIED"
        } else {
            "REMOVED"
        };
        let method = format!("Hydra EDS dicom-deid profile {PROFILE_VERSION}, PS3.15 {EDITION}");
        put(elements, Element::new(PATIENT_IDENTITY_REMOVED, Vr::CS, "YES"));
        put(elements, Element::new(METHOD, Vr::LO, method));
        put(elements, Element::sequence(METHOD_CODES, codes, coding));
        put(elements, Element::new(TEMPORAL, Vr::CS, temporal));
    }
}

pub(crate) fn read_meta(source: &mut Source<'_>, options: &Options) -> Result<Syntax, Refusal> {
    let uid = meta::read(source, &mut Budget::new(options.limits))?;
    syntax_of(&uid)
}

fn syntax_of(uid: &str) -> Result<Syntax, Refusal> {
    Syntax::of(uid).ok_or_else(|| Refusal::TransferSyntax { uid: hide(uid) })
}

/// A UID as errors show it: what is none might be anything.
fn hide(uid: &str) -> String {
    let plain = uid.len() <= 64 && uid.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    if plain {
        uid.to_owned()
    } else {
        "that is no UID".to_owned()
    }
}

/// Gives `work` the bytes of the data set as they are without compression.
pub(crate) fn inflated<T>(
    syntax: &Syntax,
    mut source: Source<'_>,
    work: impl FnOnce(&mut Source<'_>) -> Result<T, Refusal>,
) -> Result<T, Refusal> {
    if !syntax.deflated {
        return work(&mut source);
    }
    let at = source.at();
    let (back, inner) = source.into_rest();
    let mut inflated = DeflateDecoder::new(BufReader::new(Cursor::new(back).chain(inner)));
    work(&mut Source::new(&mut inflated, at))
}

/// Reads up to the pixels, whose head is given back, or to the end.
pub(crate) fn read_header(
    source: &mut Source<'_>,
    coding: Coding,
    budget: &mut Budget,
) -> Result<(Vec<Element>, Option<Head>), Refusal> {
    let mut elements = Vec::new();
    let mut pixels = None;
    let mut parser = Parser::new(source, coding, budget);
    while let Some(head) = parser.head()? {
        if head.tag.is_pixels() {
            pixels = Some(head);
            break;
        }
        elements.push(parser.element(head)?);
    }
    are_unique(&elements, source.at())?;
    Ok((elements, pixels))
}

/// Whether an object with these elements is one with pixels.
fn has_pixels(elements: &[Element]) -> bool {
    let is_image = ascii(elements, SOP_CLASS).is_some_and(|class| Iod::of(&class).is_image());
    // spectra have rows and columns too, and no pixels (PS3.3, C.8.14.1)
    is_image || find(elements, ROWS).is_some() && find(elements, SPECTROSCOPY_DATA).is_none()
}

fn patient_id(elements: &[Element]) -> Option<String> {
    let text = Charset::of(elements, Charset::default()).decode(find(elements, PATIENT_ID)?.bytes()?);
    let text = text.trim_matches([' ', '\0']);
    (!text.is_empty()).then(|| text.to_owned())
}

/// After a deflated data set comes nothing, or a byte of padding, or what gzip writes there: four bytes of checksum and
/// four of size. None of it goes out.
fn nothing_follows(mut rest: impl Read, size: u64) -> Result<(), Refusal> {
    let mut bytes = Vec::new();
    rest.by_ref().take(10).read_to_end(&mut bytes).map_err(Refusal::Read)?;
    let is_size = |bytes: &[u8]| bytes.iter().eq(size.to_le_bytes()[..4].iter());
    match bytes.as_slice() {
        [] | [0] => Ok(()),
        [_, _, _, _, length @ ..] if is_size(length) => Ok(()),
        _ => Err(Refusal::TrailingGarbage { at: size }),
    }
}

impl Prepared<'_> {
    fn write_meta(&self, syntax: &Syntax, out: &mut dyn Write) -> Result<(), Refusal> {
        let meta = meta::write(&self.sop_class, &self.new.sop, &syntax.uid);
        out.write_all(&meta).map_err(Refusal::Write)
    }

    /// Header, pixels, and what comes after them.
    fn write_rest(&mut self, syntax: &Syntax, source: &mut Source<'_>, out: &mut dyn Write) -> Result<(), Refusal> {
        let mut bytes = Vec::new();
        for element in std::mem::take(&mut self.elements) {
            element.write(&mut bytes, syntax.coding);
        }
        out.write_all(&bytes).map_err(Refusal::Write)?;
        let Some(head) = self.pixels else { return Ok(()) };
        pixels::pass(head, self.described_bytes, source, syntax.coding, syntax.pixels, out)?;
        let mut last = head.tag;
        let begins = source.at();
        while let Some(element) = self.next_of_tail(syntax.coding, source, last, begins)? {
            last = element.tag;
            bytes.clear();
            for element in self.engine.elements(vec![element], Place::top())? {
                element.write(&mut bytes, syntax.coding);
            }
            self.engine.needles.were_searched()?;
            out.write_all(&bytes).map_err(Refusal::Write)?;
        }
        Ok(())
    }

    /// The next element after the pixels: in order of tags, or it is no part of the object.
    fn next_of_tail(
        &mut self,
        coding: Coding,
        source: &mut Source<'_>,
        last: Tag,
        begins: u64,
    ) -> Result<Option<Element>, Refusal> {
        let at = source.at();
        let garbage = || Refusal::TrailingGarbage { at };
        let mut parser = Parser::new(source, coding, &mut self.budget);
        let head = match parser.head() {
            Err(Refusal::Malformed { .. } | Refusal::Truncated { .. }) if at == begins => return Err(garbage()),
            other => other?,
        };
        match head {
            None => Ok(None),
            Some(head) if head.tag <= last => Err(garbage()),
            Some(head) => parser.element(head).map(Some),
        }
    }

    fn report(self, profile: &Profile, syntax: &Syntax, bytes: u64) -> Report {
        let Engine { counts, private, .. } = self.engine;
        let counts: Counts = counts;
        let private: PrivateHalf = private;
        Report {
            original: self.original,
            new: self.new,
            sop_class: self.sop_class,
            modality: self.modality,
            transfer_syntax: syntax.uid.clone(),
            profile: profile.name(),
            bytes,
            counts,
            flags: self.flags,
            private,
        }
    }

    pub(crate) fn events(&mut self) -> Vec<Event> {
        self.engine.events.take().unwrap_or_default()
    }
}

/// Counts what is written.
struct Counted<'a> {
    inner: &'a mut dyn Write,
    bytes: u64,
}

impl Write for Counted<'_> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let count = self.inner.write(buffer)?;
        self.bytes += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}
