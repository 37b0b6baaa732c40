//! As much of data sets as the network needs (PS3.5, chapters 7 and A.4; PS3.10, chapter 7): identifiers of queries,
//! the file meta information, and the identity at the head of an instance. Not a DICOM library: everything else passes
//! through unread.

use std::collections::BTreeMap;
use std::io::{self, Read};

use crate::uid::Uid;

/// What a value of undefined length has for its length.
const UNDEFINED: u32 = u32::MAX;
/// How many levels of sequences are followed.
const DEEPEST: usize = 128;
/// How much of an instance is looked through for its identity: private blocks in front of it are that large at most.
const HEAD_LIMIT: usize = 4 * 1024 * 1024;
/// How long file meta information may be.
const META_LIMIT: usize = 64 * 1024;
/// How long one answer to a query may be.
pub const ANSWER_LIMIT: usize = 1024 * 1024;

/// A tag: group, element.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tag(pub u16, pub u16);

impl std::fmt::Display for Tag {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "({:04x},{:04x})", self.0, self.1)
    }
}

impl std::fmt::Debug for Tag {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{self}")
    }
}

/// The attributes that are asked for or looked at.
#[allow(missing_docs, reason = "the names are those of PS3.6")]
pub mod tag {
    use super::Tag;

    pub const MEDIA_CLASS: Tag = Tag(0x0002, 0x0002);
    pub const MEDIA_INSTANCE: Tag = Tag(0x0002, 0x0003);
    pub const TRANSFER_SYNTAX: Tag = Tag(0x0002, 0x0010);
    pub const CHARACTER_SET: Tag = Tag(0x0008, 0x0005);
    pub const SOP_CLASS: Tag = Tag(0x0008, 0x0016);
    pub const SOP_INSTANCE: Tag = Tag(0x0008, 0x0018);
    pub const QUERY_LEVEL: Tag = Tag(0x0008, 0x0052);
    pub const FAILED_INSTANCES: Tag = Tag(0x0008, 0x0058);
    pub const MODALITY: Tag = Tag(0x0008, 0x0060);
    pub const MODALITIES: Tag = Tag(0x0008, 0x0061);
    pub const PATIENT_ID: Tag = Tag(0x0010, 0x0020);
    pub const STUDY: Tag = Tag(0x0020, 0x000d);
    pub const SERIES: Tag = Tag(0x0020, 0x000e);
    pub(super) const ITEM: Tag = Tag(0xfffe, 0xe000);
    pub(super) const ITEM_END: Tag = Tag(0xfffe, 0xe00d);
    pub(super) const SEQUENCE_END: Tag = Tag(0xfffe, 0xe0dd);
}

/// Transfer syntaxes with a meaning of their own here.
#[allow(missing_docs, reason = "the names are those of PS3.5, annex A")]
pub mod syntax {
    pub const IMPLICIT_LITTLE: &str = "1.2.840.10008.1.2";
    pub const EXPLICIT_LITTLE: &str = "1.2.840.10008.1.2.1";
    pub const DEFLATED: &str = "1.2.840.10008.1.2.1.99";
    pub const EXPLICIT_BIG: &str = "1.2.840.10008.1.2.2";
    /// JPIP with deflated data sets.
    pub const DEFLATED_JPIP: [&str; 2] = ["1.2.840.10008.1.2.4.95", "1.2.840.10008.1.2.4.205"];
}

/// Why a data set, or the head of one, cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataError {
    /// The source failed.
    #[error("the data set cannot be read")]
    Read(#[source] io::Error),
    /// It ends within an element.
    #[error("the data set ends within an element")]
    Cut,
    /// Not structured as its transfer syntax says.
    #[error("the data set is not structured as its transfer syntax says, at {0}")]
    Structure(Tag),
    /// The head is longer than anything sensible.
    #[error("the head of the data set is longer than {0} bytes")]
    Long(usize),
    /// No file of PS3.10.
    #[error("no DICOM file: the mark behind the preamble is missing")]
    NoFile,
    /// Compressed as a whole.
    #[error("the data set is deflated as a whole, which is not taken from the network")]
    Deflated,
    /// An attribute is missing, or none.
    #[error("no identifier at {0}")]
    Missing(Tag),
}

/// How elements are encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Encoding {
    is_explicit: bool,
    is_big: bool,
}

impl Encoding {
    const IMPLICIT: Self = Self {
        is_explicit: false,
        is_big: false,
    };
    const EXPLICIT: Self = Self {
        is_explicit: true,
        is_big: false,
    };

    fn of(transfer_syntax: &Uid) -> Result<Self, DataError> {
        match transfer_syntax.as_str() {
            syntax::IMPLICIT_LITTLE => Ok(Self::IMPLICIT),
            syntax::EXPLICIT_BIG => Ok(Self {
                is_big: true,
                ..Self::EXPLICIT
            }),
            text if is_deflated(text) => Err(DataError::Deflated),
            _ => Ok(Self::EXPLICIT),
        }
    }

    fn short(self, bytes: [u8; 2]) -> u16 {
        if self.is_big {
            u16::from_be_bytes(bytes)
        } else {
            u16::from_le_bytes(bytes)
        }
    }

    fn long(self, bytes: [u8; 4]) -> u32 {
        if self.is_big {
            u32::from_be_bytes(bytes)
        } else {
            u32::from_le_bytes(bytes)
        }
    }
}

/// Whether data sets of this transfer syntax are deflated as a whole.
pub fn is_deflated(transfer_syntax: &str) -> bool {
    transfer_syntax == syntax::DEFLATED || syntax::DEFLATED_JPIP.contains(&transfer_syntax)
}

/// Reads elements and keeps every byte that it read.
struct Skim<R> {
    reader: R,
    kept: Vec<u8>,
    limit: usize,
}

/// The header of an element.
struct Element {
    length: u32,
    /// How a sequence within is encoded.
    inner: Encoding,
}

impl<R: Read> Skim<R> {
    fn new(reader: R, limit: usize) -> Self {
        Self {
            reader,
            kept: Vec::new(),
            limit,
        }
    }

    /// The next bytes; none where there is not a single one.
    fn take(&mut self, count: usize) -> Result<Option<&[u8]>, DataError> {
        let start = self.kept.len();
        if count > self.limit - start {
            return Err(DataError::Long(self.limit));
        }
        let wanted = u64::try_from(count).unwrap_or(u64::MAX);
        let read = (&mut self.reader).take(wanted).read_to_end(&mut self.kept);
        match read.map_err(DataError::Read)? {
            read if read == count => Ok(Some(&self.kept[start..])),
            0 => Ok(None),
            _ => Err(DataError::Cut),
        }
    }

    fn need<const N: usize>(&mut self) -> Result<[u8; N], DataError> {
        let bytes = self.take(N)?.ok_or(DataError::Cut)?;
        bytes.try_into().map_err(|_| DataError::Cut)
    }

    fn tag(&mut self, encoding: Encoding) -> Result<Option<Tag>, DataError> {
        Ok(self.take(4)?.map(|bytes| {
            let group = encoding.short([bytes[0], bytes[1]]);
            Tag(group, encoding.short([bytes[2], bytes[3]]))
        }))
    }

    /// What follows the tag: representation and length.
    fn rest_of_header(&mut self, tag: Tag, encoding: Encoding) -> Result<Element, DataError> {
        // delimiters have no representation in any encoding
        if !encoding.is_explicit || tag.0 == 0xfffe {
            let length = encoding.long(self.need()?);
            return Ok(Element {
                length,
                inner: encoding,
            });
        }
        let [v0, v1, l0, l1] = self.need()?;
        let (length, inner) = match &[v0, v1] {
            b"OB" | b"OD" | b"OF" | b"OL" | b"OV" | b"OW" | b"SQ" | b"SV" | b"UC" | b"UR" | b"UT" | b"UV" => {
                (encoding.long(self.need()?), encoding)
            }
            // what is unknown is implicit within (PS3.5, 6.2.2)
            b"UN" => (encoding.long(self.need()?), Encoding::IMPLICIT),
            [b'A'..=b'Z', b'A'..=b'Z'] => (u32::from(encoding.short([l0, l1])), encoding),
            _ => return Err(DataError::Structure(tag)),
        };
        Ok(Element { length, inner })
    }

    fn value(&mut self, element: &Element) -> Result<&[u8], DataError> {
        let length = usize::try_from(element.length).unwrap_or(usize::MAX);
        if length == 0 {
            return Ok(&[]);
        }
        self.take(length)?.ok_or(DataError::Cut)
    }

    fn skip(&mut self, element: &Element) -> Result<(), DataError> {
        if element.length != UNDEFINED {
            return self.value(element).map(|_| ());
        }
        enum Level {
            Sequence(Encoding),
            Item(Encoding),
        }
        let mut levels = vec![Level::Sequence(element.inner)];
        while let Some(level) = levels.last() {
            let (encoding, in_item) = match level {
                Level::Sequence(encoding) => (*encoding, false),
                Level::Item(encoding) => (*encoding, true),
            };
            let tag = self.tag(encoding)?.ok_or(DataError::Cut)?;
            let inside = self.rest_of_header(tag, encoding)?;
            match (tag, in_item) {
                (tag::ITEM_END, true) | (tag::SEQUENCE_END, false) => {
                    levels.pop();
                }
                (tag::ITEM, false) if inside.length == UNDEFINED => levels.push(Level::Item(encoding)),
                (tag::ITEM, false) => self.value(&inside).map(|_| ())?,
                (tag, true) if tag.0 != 0xfffe && inside.length == UNDEFINED => {
                    levels.push(Level::Sequence(inside.inner));
                }
                (tag, true) if tag.0 != 0xfffe => self.value(&inside).map(|_| ())?,
                _ => return Err(DataError::Structure(tag)),
            }
            if levels.len() > DEEPEST {
                return Err(DataError::Structure(tag));
            }
        }
        Ok(())
    }
}

/// What an instance says that it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Its SOP class.
    pub class: Uid,
    /// Itself.
    pub instance: Uid,
    /// Its study.
    pub study: Uid,
    /// Its series.
    pub series: Uid,
}

/// Reads the identity at the head of a data set; answers with it the bytes that were read, which belong in front of
/// the rest of `reader`.
///
/// # Errors
/// Where there is none, or the data set is no such one.
pub fn read_identity(reader: impl Read, transfer_syntax: &Uid) -> Result<(Identity, Vec<u8>), DataError> {
    let encoding = Encoding::of(transfer_syntax)?;
    let mut skim = Skim::new(reader, HEAD_LIMIT);
    let mut found: BTreeMap<Tag, Uid> = BTreeMap::new();
    let mut before = Tag(0, 0);
    while let Some(at) = skim.tag(encoding)? {
        // elements ascend: what does not is no data set, and would be looked through to its end
        if at < before || at.0 == 0 {
            return Err(DataError::Structure(at));
        }
        before = at;
        let element = skim.rest_of_header(at, encoding)?;
        if at > tag::SERIES {
            break;
        }
        if [tag::SOP_CLASS, tag::SOP_INSTANCE, tag::STUDY, tag::SERIES].contains(&at) {
            if element.length > 128 {
                return Err(DataError::Missing(at));
            }
            let value = skim.value(&element)?;
            found.insert(at, Uid::from_value(value).map_err(|_| DataError::Missing(at))?);
        } else {
            skim.skip(&element)?;
        }
        if at == tag::SERIES {
            break;
        }
    }
    let mut one = |tag: Tag| found.remove(&tag).ok_or(DataError::Missing(tag));
    let identity = Identity {
        class: one(tag::SOP_CLASS)?,
        instance: one(tag::SOP_INSTANCE)?,
        study: one(tag::STUDY)?,
        series: one(tag::SERIES)?,
    };
    Ok((identity, skim.kept))
}

/// What the file meta information says that matters on the network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileMeta {
    /// The SOP class.
    pub class: Uid,
    /// The instance.
    pub instance: Uid,
    /// How the data set is encoded.
    pub transfer_syntax: Uid,
}

impl FileMeta {
    /// The beginning of a file: an empty preamble, the mark, and group 0002.
    pub fn encode(&self) -> Vec<u8> {
        let mut group = Vec::new();
        explicit(&mut group, Tag(0x0002, 0x0001), b"OB", &[0, 1], 0);
        explicit(&mut group, tag::MEDIA_CLASS, b"UI", self.class.as_str().as_bytes(), 0);
        let instance = self.instance.as_str().as_bytes();
        explicit(&mut group, tag::MEDIA_INSTANCE, b"UI", instance, 0);
        let syntax = self.transfer_syntax.as_str().as_bytes();
        explicit(&mut group, tag::TRANSFER_SYNTAX, b"UI", syntax, 0);
        explicit(
            &mut group,
            Tag(0x0002, 0x0012),
            b"UI",
            crate::IMPLEMENTATION.as_bytes(),
            0,
        );
        let version = crate::IMPLEMENTATION_VERSION.as_bytes();
        explicit(&mut group, Tag(0x0002, 0x0013), b"SH", version, b' ');
        let mut out = vec![0; 128];
        out.extend(b"DICM");
        let length = u32::try_from(group.len()).unwrap_or(u32::MAX).to_le_bytes();
        explicit(&mut out, Tag(0x0002, 0x0000), b"UL", &length, 0);
        out.extend(group);
        out
    }

    /// Reads the beginning of a file; the data set follows in `reader`. Answers all bytes that were read too.
    ///
    /// # Errors
    /// Where it is no such file.
    pub fn read(reader: impl Read) -> Result<(Self, Vec<u8>), DataError> {
        let mut skim = Skim::new(reader, META_LIMIT);
        let mark = skim.take(132).map_err(|error| match error {
            DataError::Cut => DataError::NoFile,
            other => other,
        })?;
        if mark.is_none_or(|start| &start[128..] != b"DICM") {
            return Err(DataError::NoFile);
        }
        let (length_tag, encoding) = (Tag(0x0002, 0x0000), Encoding::EXPLICIT);
        // the standard wants the length first, and without it the end could not be known before it was passed
        if skim.tag(encoding)? != Some(length_tag) {
            return Err(DataError::Structure(length_tag));
        }
        let length = skim.rest_of_header(length_tag, encoding)?;
        let bytes: [u8; 4] = skim
            .value(&length)?
            .try_into()
            .map_err(|_| DataError::Structure(length_tag))?;
        let length = usize::try_from(u32::from_le_bytes(bytes)).unwrap_or(usize::MAX);
        let group = skim.take(length)?.ok_or(DataError::Cut)?.to_vec();
        let values = read_elements(&group, encoding)?;
        let one = |tag: Tag| {
            let value = values.get(&tag).and_then(|value| Uid::from_value(value).ok());
            value.ok_or(DataError::Missing(tag))
        };
        let meta = Self {
            class: one(tag::MEDIA_CLASS)?,
            instance: one(tag::MEDIA_INSTANCE)?,
            transfer_syntax: one(tag::TRANSFER_SYNTAX)?,
        };
        Ok((meta, skim.kept))
    }
}

fn explicit(out: &mut Vec<u8>, tag: Tag, representation: &[u8; 2], value: &[u8], padding: u8) {
    let odd = value.len() % 2;
    let length = value.len() + odd;
    out.extend(tag.0.to_le_bytes());
    out.extend(tag.1.to_le_bytes());
    out.extend(representation);
    if representation == b"OB" {
        out.extend([0, 0]);
        out.extend(u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes());
    } else {
        out.extend(u16::try_from(length).unwrap_or(u16::MAX).to_le_bytes());
    }
    out.extend(value);
    out.extend(std::iter::repeat_n(padding, odd));
}

/// The top level of a small data set: tags and values, sequences left out.
fn read_elements(bytes: &[u8], encoding: Encoding) -> Result<BTreeMap<Tag, Vec<u8>>, DataError> {
    // a little more than there is, so that the end is seen
    let mut skim = Skim::new(bytes, bytes.len() + 8);
    let mut values = BTreeMap::new();
    while let Some(at) = skim.tag(encoding)? {
        let element = skim.rest_of_header(at, encoding)?;
        if element.length == UNDEFINED {
            skim.skip(&element)?;
        } else {
            values.insert(at, skim.value(&element)?.to_vec());
        }
    }
    Ok(values)
}

/// The identifier of a query or of its answer: attributes of the top level, in implicit VR little endian, which every
/// peer speaks.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Attributes(BTreeMap<Tag, Vec<u8>>);

impl Attributes {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// With an attribute; an empty text asks for its value.
    #[must_use]
    pub fn with(mut self, tag: Tag, text: &str) -> Self {
        let mut value = text.as_bytes().to_vec();
        if value.len() % 2 == 1 {
            // identifiers are padded with NUL, texts with a blank; only identifiers are all numbers and dots
            let is_identifier = text.split('\\').all(|part| Uid::new(part).is_ok());
            value.push(if is_identifier { 0 } else { b' ' });
        }
        self.0.insert(tag, value);
        self
    }

    /// With identifiers, as a list.
    #[must_use]
    pub fn with_uids<'a>(self, tag: Tag, uids: impl IntoIterator<Item = &'a Uid>) -> Self {
        let texts: Vec<&str> = uids.into_iter().map(Uid::as_str).collect();
        self.with(tag, &texts.join("\\"))
    }

    /// A text without its padding; characters that are no UTF-8 are replaced.
    pub fn text(&self, tag: Tag) -> Option<String> {
        let text = String::from_utf8_lossy(self.0.get(&tag)?);
        Some(text.trim_matches(['\0', ' ']).to_owned())
    }

    /// The values of a list of texts.
    pub fn texts(&self, tag: Tag) -> Vec<String> {
        let text = self.text(tag).unwrap_or_default();
        text.split('\\').map(|value| value.trim().to_owned()).collect()
    }

    /// A single identifier.
    ///
    /// # Errors
    /// Where it is missing or none.
    pub fn uid(&self, tag: Tag) -> Result<Uid, DataError> {
        let value = self.0.get(&tag).and_then(|value| Uid::from_value(value).ok());
        value.ok_or(DataError::Missing(tag))
    }

    /// A list of identifiers; what is none is left out.
    pub fn uids(&self, tag: Tag) -> Vec<Uid> {
        let values = self.0.get(&tag).map(Vec::as_slice).unwrap_or_default();
        values
            .split(|byte| *byte == b'\\')
            .filter_map(|value| Uid::from_value(value).ok())
            .collect()
    }

    /// Writes the data set.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for (tag, value) in &self.0 {
            out.extend(tag.0.to_le_bytes());
            out.extend(tag.1.to_le_bytes());
            out.extend(u32::try_from(value.len()).unwrap_or(u32::MAX).to_le_bytes());
            out.extend(value);
        }
        out
    }

    /// Reads a data set.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn decode(bytes: &[u8]) -> Result<Self, DataError> {
        read_elements(bytes, Encoding::IMPLICIT).map(Self)
    }
}

/// Values may be a patient's: only the tags are shown.
impl std::fmt::Debug for Attributes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uid(text: &str) -> Uid {
        Uid::new(text).unwrap()
    }

    fn put(out: &mut Vec<u8>, tag: Tag, vr: Option<&[u8; 2]>, length: Option<u32>, value: &[u8]) {
        out.extend(tag.0.to_le_bytes());
        out.extend(tag.1.to_le_bytes());
        let length = length.unwrap_or(u32::try_from(value.len()).unwrap());
        match vr {
            Some(vr @ (b"SQ" | b"OB" | b"UN")) => {
                out.extend(vr);
                out.extend([0, 0]);
                out.extend(length.to_le_bytes());
            }
            Some(vr) => {
                out.extend(vr);
                out.extend(u16::try_from(length).unwrap().to_le_bytes());
            }
            None => out.extend(length.to_le_bytes()),
        }
        out.extend(value);
    }

    /// An instance with sequences of undefined length, one of them in an unknown representation, before its identity.
    fn head(is_explicit: bool) -> Vec<u8> {
        let vr = |vr: &'static [u8; 2]| is_explicit.then_some(vr);
        let mut out = Vec::new();
        put(
            &mut out,
            tag::SOP_CLASS,
            vr(b"UI"),
            None,
            b"1.2.840.10008.5.1.4.1.1.2\0",
        );
        put(&mut out, tag::SOP_INSTANCE, vr(b"UI"), None, b"2.25.17\0");
        put(&mut out, Tag(8, 0x1140), vr(b"SQ"), Some(UNDEFINED), &[]);
        put(&mut out, tag::ITEM, None, Some(UNDEFINED), &[]);
        put(&mut out, tag::SOP_INSTANCE, vr(b"UI"), None, b"6.6.6 ");
        put(&mut out, Tag(8, 0x1199), vr(b"SQ"), Some(UNDEFINED), &[]);
        put(&mut out, tag::ITEM, None, None, b"anything");
        put(&mut out, tag::SEQUENCE_END, None, None, &[]);
        put(&mut out, tag::ITEM_END, None, None, &[]);
        put(&mut out, tag::SEQUENCE_END, None, None, &[]);
        put(&mut out, Tag(9, 0x1001), vr(b"UN"), Some(UNDEFINED), &[]);
        put(&mut out, tag::ITEM, None, Some(UNDEFINED), &[]);
        // within an unknown representation elements are implicit, in every encoding
        put(&mut out, tag::STUDY, None, None, b"6.6.6 ");
        put(&mut out, tag::ITEM_END, None, None, &[]);
        put(&mut out, tag::SEQUENCE_END, None, None, &[]);
        put(&mut out, tag::STUDY, vr(b"UI"), None, b"1.3\0");
        put(&mut out, tag::SERIES, vr(b"UI"), None, b"1.4\0");
        out
    }

    #[test]
    fn the_identity_is_that_of_the_top_level_and_no_byte_is_lost() {
        for (syntax, is_explicit) in [(syntax::IMPLICIT_LITTLE, false), (syntax::EXPLICIT_LITTLE, true)] {
            let head = head(is_explicit);
            let whole = [head.as_slice(), b"pixels and more"].concat();
            let mut rest = whole.as_slice();
            let (identity, kept) = read_identity(&mut rest, &uid(syntax)).unwrap();
            assert_eq!(identity.instance, uid("2.25.17"));
            assert_eq!(identity.study, uid("1.3"));
            assert_eq!(identity.series, uid("1.4"));
            assert_eq!([&kept, rest].concat(), whole);
        }
    }

    #[test]
    fn a_head_that_is_cut_or_of_another_encoding_has_no_identity() {
        let explicit = uid(syntax::EXPLICIT_LITTLE);
        let whole = head(true);
        for end in 0..whole.len() {
            assert!(read_identity(&whole[..end], &explicit).is_err(), "{end}");
        }
        assert!(read_identity(head(false).as_slice(), &explicit).is_err());
        assert!(matches!(
            read_identity(whole.as_slice(), &uid(syntax::DEFLATED)),
            Err(DataError::Deflated)
        ));
    }

    #[test]
    fn lengths_beyond_the_limit_are_no_reason_to_take_memory() {
        let mut bomb = Vec::new();
        put(&mut bomb, Tag(8, 5), None, Some(0xffff_fff0), &[]);
        let result = read_identity(bomb.as_slice(), &uid(syntax::IMPLICIT_LITTLE));
        assert!(matches!(result, Err(DataError::Long(_))), "{result:?}");
    }

    #[test]
    fn nesting_without_end_is_refused() {
        let mut deep = Vec::new();
        for _ in 0..10_000 {
            put(&mut deep, Tag(8, 0x1140), None, Some(UNDEFINED), &[]);
            put(&mut deep, tag::ITEM, None, Some(UNDEFINED), &[]);
        }
        let result = read_identity(deep.as_slice(), &uid(syntax::IMPLICIT_LITTLE));
        assert!(matches!(result, Err(DataError::Structure(_))), "{result:?}");
    }

    #[test]
    fn file_meta_reads_back_and_the_data_set_follows() {
        let meta = FileMeta {
            class: uid("1.2.840.10008.5.1.4.1.1.2"),
            instance: uid("2.25.17"),
            transfer_syntax: uid(syntax::EXPLICIT_LITTLE),
        };
        let file = [meta.encode().as_slice(), b"rest"].concat();
        let mut reader = file.as_slice();
        let (read, kept) = FileMeta::read(&mut reader).unwrap();
        assert_eq!(read, meta);
        assert_eq!(reader, b"rest");
        assert_eq!(kept, meta.encode());
        assert!(matches!(FileMeta::read(&[0; 200][..]), Err(DataError::NoFile)));
        assert!(matches!(FileMeta::read(&[0; 20][..]), Err(DataError::NoFile)));
    }

    #[test]
    fn attributes_read_back_padded_as_they_should_be() {
        let query = Attributes::new()
            .with(tag::QUERY_LEVEL, "IMAGE")
            .with(tag::STUDY, "1.2.3")
            .with_uids(tag::SOP_INSTANCE, [&uid("1.2"), &uid("1.34")])
            .with(tag::MODALITY, "");
        let bytes = query.encode();
        assert_eq!(bytes.len() % 2, 0);
        let read = Attributes::decode(&bytes).unwrap();
        assert_eq!(read, query);
        assert_eq!(read.text(tag::QUERY_LEVEL).unwrap(), "IMAGE");
        assert_eq!(read.uid(tag::STUDY).unwrap(), uid("1.2.3"));
        assert_eq!(read.uids(tag::SOP_INSTANCE), [uid("1.2"), uid("1.34")]);
        assert_eq!(
            format!("{read:?}"),
            "{(0008,0018), (0008,0052), (0008,0060), (0020,000d)}"
        );
    }
}
