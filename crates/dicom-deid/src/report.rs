//! What was done to an object: for everybody, and the identifying half for the private side alone.

use std::fmt;

use serde_json::{Value as Json, json};

use crate::element::Tag;
use crate::refusal::Flag;

/// The identifiers of an object. Never printed: originals belong to the private side.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Ids {
    /// (0020,000D)
    pub study: Option<String>,
    /// (0020,000E)
    pub series: Option<String>,
    /// (0008,0018)
    pub sop: String,
    /// (0010,0020)
    pub patient: Option<String>,
}

impl fmt::Debug for Ids {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ids(…)")
    }
}

impl Ids {
    /// For catalogues and queues.
    pub fn to_json(&self) -> Json {
        json!({ "study": self.study, "series": self.series, "sop": self.sop, "patient": self.patient })
    }
}

/// What became of an attribute.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Outcome {
    /// Byte for byte as it was.
    Kept,
    /// A sequence that was looked into.
    Entered,
    /// Gone.
    Removed,
    /// There, without a value.
    Emptied,
    /// Another value that says nothing.
    Replaced,
    /// A UID or identifier that only the secret's owner can link.
    Mapped,
    /// A date moved by whole days.
    Moved,
    /// Free text in which nothing was found.
    Cleaned,
}

impl Outcome {
    /// A word for people and programs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Kept => "kept",
            Self::Entered => "entered",
            Self::Removed => "removed",
            Self::Emptied => "emptied",
            Self::Replaced => "replaced",
            Self::Mapped => "mapped",
            Self::Moved => "moved",
            Self::Cleaned => "cleaned",
        }
    }

    const ALL: [Self; 8] = [
        Self::Kept,
        Self::Entered,
        Self::Removed,
        Self::Emptied,
        Self::Replaced,
        Self::Mapped,
        Self::Moved,
        Self::Cleaned,
    ];
}

/// How many attributes had each outcome.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts([u64; 8]);

impl Counts {
    pub(crate) fn add(&mut self, outcome: Outcome) {
        self.0[outcome as usize] += 1;
    }

    /// How many attributes had this outcome.
    pub fn of(&self, outcome: Outcome) -> u64 {
        self.0[outcome as usize]
    }

    /// For programs.
    pub fn to_json(&self) -> Json {
        Outcome::ALL
            .iter()
            .map(|outcome| (outcome.name().to_owned(), json!(self.of(*outcome))))
            .collect::<serde_json::Map<_, _>>()
            .into()
    }
}

/// What an attribute was before: for the private side. Never printed.
pub struct Original {
    /// Where it was: tags and item numbers from 1, as `(0040,0275)[1]/(0008,0050)`.
    pub path: String,
    /// Its tag.
    pub tag: Tag,
    /// Its text, at most 1024 characters; of a binary value nothing.
    pub value: String,
    /// What became of it.
    pub outcome: Outcome,
}

/// The identifying half of an object: what was taken out or changed. Never printed.
#[derive(Default)]
pub struct PrivateHalf {
    /// The attributes, in the order of the object.
    pub attributes: Vec<Original>,
    /// How many more there were than are listed.
    pub left_out: u64,
}

impl fmt::Debug for PrivateHalf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PrivateHalf({} attributes)", self.attributes.len())
    }
}

impl PrivateHalf {
    const MAX_ATTRIBUTES: usize = 20_000;
    const MAX_CHARACTERS: usize = 1024;

    pub(crate) fn add(&mut self, path: impl FnOnce() -> String, tag: Tag, value: &str, outcome: Outcome) {
        if self.attributes.len() >= Self::MAX_ATTRIBUTES {
            self.left_out += 1;
            return;
        }
        self.attributes.push(Original {
            path: path(),
            tag,
            value: value
                .trim_matches([' ', '\0'])
                .chars()
                .take(Self::MAX_CHARACTERS)
                .collect(),
            outcome,
        });
    }

    /// For the private side.
    pub fn to_json(&self) -> Json {
        let attributes = self.attributes.iter().map(|original| {
            json!({
                "path": original.path,
                "keyword": original.tag.keyword(),
                "value": original.value,
                "outcome": original.outcome.name(),
            })
        });
        json!({ "attributes": attributes.collect::<Vec<_>>(), "left_out": self.left_out })
    }
}

/// What came of de-identifying one object.
#[derive(Debug)]
pub struct Report {
    /// The identifiers that came in; for the private side.
    pub original: Ids,
    /// The identifiers that went out.
    pub new: Ids,
    /// (0008,0016)
    pub sop_class: String,
    /// (0008,0060)
    pub modality: Option<String>,
    /// The transfer syntax, which is never changed.
    pub transfer_syntax: String,
    /// Which profile of which edition it was, [`crate::Profile::name`].
    pub profile: String,
    /// How many bytes were written.
    pub bytes: u64,
    /// How many attributes had which outcome.
    pub counts: Counts,
    /// What a person should look at.
    pub flags: Vec<Flag>,
    /// The identifying half; for the private side.
    pub private: PrivateHalf,
}

impl Report {
    /// What everybody may see: nothing of the original.
    pub fn to_json(&self) -> Json {
        json!({
            "profile": self.profile,
            "new": self.new.to_json(),
            "sop_class": self.sop_class,
            "modality": self.modality,
            "transfer_syntax": self.transfer_syntax,
            "bytes": self.bytes,
            "counts": self.counts.to_json(),
            "flags": self.flags.iter().map(|flag| flag.name()).collect::<Vec<_>>(),
        })
    }

    /// The link between both sides and the identifying half: for the private side alone.
    pub fn to_private_json(&self) -> Json {
        json!({
            "profile": self.profile,
            "original": self.original.to_json(),
            "new": self.new.to_json(),
            "identifying": self.private.to_json(),
        })
    }
}
