//! What was done to an object: for everybody, and the identifying half for the private side alone.

use std::fmt;

use data_encoding::BASE64;
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

/// What stood in an attribute: the first of it. Never printed.
#[derive(Clone, PartialEq, Eq)]
pub enum OldValue {
    /// Text, at most 1024 characters.
    Text(String),
    /// What is no text, at most 1024 bytes.
    Bytes(Vec<u8>),
}

impl OldValue {
    /// The first of a text, without its padding; and whether there was more.
    pub(crate) fn text(text: &str) -> (Self, bool) {
        let text = text.trim_matches([' ', '\0']);
        let first: String = text.chars().take(PrivateHalf::MAX_LENGTH).collect();
        let is_cut = first.len() < text.len();
        (Self::Text(first), is_cut)
    }

    /// The first of what is no text; and whether there was more.
    pub(crate) fn bytes(bytes: &[u8]) -> (Self, bool) {
        let first = &bytes[..bytes.len().min(PrivateHalf::MAX_LENGTH)];
        (Self::Bytes(first.to_vec()), first.len() < bytes.len())
    }
}

/// What an attribute was before: for the private side. Never printed.
pub struct Original {
    /// Where it was: tags and item numbers from 1, as `(0040,0275)[1]/(0008,0050)`.
    pub path: String,
    /// Its tag.
    pub tag: Tag,
    /// What stood there.
    pub value: OldValue,
    /// Whether there was more of it than is kept.
    pub is_cut: bool,
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
    const MAX_LENGTH: usize = 1024;

    /// Adds what `original` gives, if there is still room for it.
    pub(crate) fn add(&mut self, original: impl FnOnce() -> Original) {
        if self.attributes.len() >= Self::MAX_ATTRIBUTES {
            self.left_out += 1;
            return;
        }
        self.attributes.push(original());
    }

    /// For the private side.
    pub fn to_json(&self) -> Json {
        let attributes = self.attributes.iter().map(|original| {
            let mut json = json!({
                "path": original.path,
                "keyword": original.tag.keyword(),
                "outcome": original.outcome.name(),
            });
            match &original.value {
                OldValue::Text(text) => json["value"] = text.as_str().into(),
                OldValue::Bytes(bytes) => json["base64"] = BASE64.encode(bytes).into(),
            }
            if original.is_cut {
                json["cut"] = true.into();
            }
            json
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

#[cfg(test)]
mod tests {
    use super::*;

    fn told((value, is_cut): (OldValue, bool)) -> Json {
        let mut half = PrivateHalf::default();
        half.add(|| Original {
            path: "(0010,0010)".into(),
            tag: Tag(0x0010, 0x0010),
            value,
            is_cut,
            outcome: Outcome::Removed,
        });
        half.to_json()["attributes"][0].clone()
    }

    #[test]
    fn what_was_taken_out_is_there_or_marked_as_cut() {
        let short = told(OldValue::text("Käse\0"));
        assert_eq!(short["value"], "Käse");
        assert_eq!((short.get("cut"), short.get("base64")), (None, None));
        let exact = told(OldValue::text(&"ä".repeat(1024)));
        assert_eq!(exact.get("cut"), None);
        let long = told(OldValue::text(&"ä".repeat(1025)));
        assert_eq!(
            (long["value"].as_str().unwrap().len(), &long["cut"]),
            (2048, &json!(true))
        );
        let bytes = told(OldValue::bytes(&[0, 255, 7]));
        assert_eq!(
            (&bytes["base64"], bytes.get("value"), bytes.get("cut")),
            (&json!("AP8H"), None, None)
        );
        let long = told(OldValue::bytes(&[1; 1025]));
        assert_eq!(
            BASE64.decode(long["base64"].as_str().unwrap().as_bytes()).unwrap(),
            [1; 1024]
        );
        assert_eq!(long["cut"], true);
    }
}
