//! What would happen to each attribute of a file, and by which rule; without any of its values.

use std::io::Read;

use crate::element::{Tag, Vr};
use crate::profile::{Profile, read_meta};
use crate::read::Source;
use crate::refusal::Refusal;
use crate::report::Outcome;

/// One attribute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Where it is: tags and item numbers from 1.
    pub path: String,
    /// Its tag.
    pub tag: Tag,
    /// Its representation.
    pub vr: Vr,
    /// Why, in words that cite the table.
    pub rule: String,
    /// What becomes of it.
    pub outcome: Outcome,
}

/// Explains everything before the pixels.
///
/// # Errors
/// As [`Profile::deidentify`].
pub fn explain(profile: &Profile, mut reader: impl Read) -> Result<Vec<Line>, Refusal> {
    let mut source = Source::new(&mut reader, 0);
    let syntax = read_meta(&mut source, profile.options())?;
    let mut prepared = profile.explain(&syntax, source)?;
    let lines = prepared.events().into_iter().map(|event| Line {
        path: event.path,
        tag: event.tag,
        vr: event.vr,
        rule: event.rule.to_string(),
        outcome: event.outcome,
    });
    Ok(lines.collect())
}
