//! What a PACS, or a file, says of an image before its pixels: by WADO-RS metadata, by C-FIND at the level of images,
//! and only where that says too little by retrieving the image itself, of which no more than the header is kept.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use dicom_deid::{Header, Profile, Refusal, Tag};
use dicom_net::dataset::{self, Attributes, syntax, tag};
use dicom_net::{Arrival, Found, Pacs, Taken, Uid, Wanted, json};
use dicom_recall::errors::chain;
use dicom_recall::names::Ids;
use dicom_recall::source::{Source, SourceError};

use crate::halves::{Halves, halves, tags};

const STUDY: Tag = Tag(0x0020, 0x000d);
const SERIES: Tag = Tag(0x0020, 0x000e);
const INSTANCE: Tag = Tag(0x0008, 0x0018);
const CLASS: Tag = Tag(0x0008, 0x0016);
const ROWS: Tag = Tag(0x0028, 0x0010);
const MODALITY: Tag = Tag(0x0008, 0x0060);
const PATIENT_NAME: Tag = Tag(0x0010, 0x0010);
const PATIENT_ID: Tag = Tag(0x0010, 0x0020);
/// How the image is stored, where the PACS tells it (PS3.4, C.3.4).
const AVAILABLE_SYNTAX: dataset::Tag = dataset::Tag(0x0008, 0x3002);
/// Images that are retrieved at once for their headers.
const AT_ONCE: usize = 64;

/// An image and its header, or why it has none.
pub struct Told {
    /// What the PACS calls it; none for a file whose header does not read.
    pub ids: Option<Ids>,
    /// The file that it is of.
    pub file: Option<PathBuf>,
    /// Its SOP class.
    pub class: Option<String>,
    /// Its halves, or why it is not registered, in words that name nobody.
    pub halves: Result<Halves, String>,
}

/// The instances that are wanted, with their headers.
///
/// # Errors
/// Where the PACS does not say what it has. That it does not say it of single images stands with those.
pub fn of_pacs(source: &Source, profile: &Profile, wanted: &Wanted) -> Result<Vec<Told>, SourceError> {
    let mut by_series: BTreeMap<Uid, Vec<Found>> = BTreeMap::new();
    for found in source.find(wanted)? {
        by_series.entry(found.series.clone()).or_default().push(found);
    }
    let mut told = Vec::new();
    for (series, found) in by_series {
        told.extend(of_series(source, profile, &wanted.study, &series, &found)?);
    }
    Ok(told)
}

fn of_series(
    source: &Source,
    profile: &Profile,
    study: &Uid,
    series: &Uid,
    found: &[Found],
) -> Result<Vec<Told>, SourceError> {
    let mut known = match source {
        Source::Web(web) => metadata(&web.metadata(study, series)?, profile),
        Source::Dimse { pacs, .. } => found_headers(pacs, profile, study, series)?,
    };
    // what was told too little of is looked at
    let missing: Vec<&Found> = found
        .iter()
        .filter(|one| !matches!(known.get(one.instance.as_str()), Some(Ok(_))))
        .collect();
    for some in missing.chunks(AT_ONCE) {
        known.extend(retrieved(source, profile, study, series, some)?);
    }
    let told = |one: &Found| Told {
        file: None,
        ids: Some(Ids {
            study: study.to_string(),
            series: series.to_string(),
            instance: one.instance.to_string(),
        }),
        class: one.class.as_ref().map(ToString::to_string),
        halves: known
            .remove(one.instance.as_str())
            .unwrap_or_else(|| Err("the PACS says nothing of it".to_owned())),
    };
    Ok(found.iter().map(told).collect())
}

type Known = BTreeMap<String, Result<Halves, String>>;

fn metadata(instances: &[serde_json::Value], profile: &Profile) -> Known {
    let one = |instance: &serde_json::Value| {
        let name = json::text(instance, tag::SOP_INSTANCE)?;
        let halves = json::data_set(instance)
            .map_err(|error| chain(&error))
            .and_then(|bytes| {
                let header = profile.header_of_data_set(syntax::EXPLICIT_LITTLE, bytes.as_slice());
                split(header, json::text(instance, AVAILABLE_SYNTAX).as_deref())
            });
        Some((name, halves))
    };
    instances.iter().filter_map(one).collect()
}

/// By C-FIND at the level of images. Whatever a PACS leaves out there is no answer: nor is one without the patient, of
/// whom many tell at the level of studies alone (PS3.4, C.6.1.1 and C.6.2.1). Such an image would have no name for
/// good.
fn found_headers(pacs: &Pacs, profile: &Profile, study: &Uid, series: &Uid) -> Result<Known, SourceError> {
    let query = tags().fold(Attributes::new(), |query, Tag(group, element)| {
        query.with(dataset::Tag(group, element), "")
    });
    let query = query
        .with(tag::QUERY_LEVEL, "IMAGE")
        .with_uids(tag::STUDY, [study])
        .with_uids(tag::SERIES, [series])
        .with(tag::SOP_INSTANCE, "")
        .with(AVAILABLE_SYNTAX, "");
    let mut known = Known::new();
    pacs.find(&query, |answer| {
        let Ok(instance) = answer.uid(tag::SOP_INSTANCE) else {
            return;
        };
        let header = profile.header_of_data_set(syntax::IMPLICIT_LITTLE, answer.encode().as_slice());
        let header = header.ok().filter(|header| {
            let before = header.before();
            let is_told = |tag| before.text(tag).is_some();
            before.integer(ROWS).is_some() && [MODALITY, PATIENT_NAME, PATIENT_ID].into_iter().all(is_told)
        });
        if let Some(header) = header {
            let stored = answer.text(AVAILABLE_SYNTAX).filter(|text| !text.is_empty());
            known.insert(instance.to_string(), split(Ok(header), stored.as_deref()));
        }
    })?;
    Ok(known)
}

/// By retrieving them; what comes behind the header is read over.
fn retrieved(
    source: &Source,
    profile: &Profile,
    study: &Uid,
    series: &Uid,
    found: &[&Found],
) -> Result<Known, SourceError> {
    let wanted = Wanted {
        study: study.clone(),
        series: Some(series.clone()),
        instances: found.iter().map(|one| one.instance.clone()).collect(),
    };
    let classes: BTreeSet<Uid> = found.iter().filter_map(|one| one.class.clone()).collect();
    let classes: Vec<Uid> = classes.into_iter().collect();
    let mut known = Known::new();
    let mut sink = |arrival: &Arrival, file: &mut dyn Read| {
        let halves = split(profile.header(file), Some(arrival.transfer_syntax.as_str()));
        known.insert(arrival.identity.instance.to_string(), halves);
        Taken::Kept
    };
    source.retrieve(&wanted, &classes, &mut sink)?;
    Ok(known)
}

fn split(header: Result<Header, Refusal>, transfer_syntax: Option<&str>) -> Result<Halves, String> {
    let mut header = header.map_err(|refusal| chain(&refusal))?;
    Ok(halves(&mut header, transfer_syntax))
}

/// A file of PS3.10.
pub fn of_file(path: &Path, profile: &Profile) -> Told {
    let read = || -> Result<(Ids, Option<String>, Halves), String> {
        let file = File::open(path).map_err(|error| error.to_string())?;
        let (meta, mut rest) = dataset::FileMeta::read(BufReader::new(&file)).map_err(|error| chain(&error))?;
        rest.clear();
        let file = File::open(path).map_err(|error| error.to_string())?;
        let mut header = profile
            .header(BufReader::new(file))
            .map_err(|refusal| chain(&refusal))?;
        let before = header.before();
        let uid = |tag| {
            let uid = before.text(tag).and_then(|text| Uid::new(&text).ok());
            uid.map(|uid| uid.to_string())
                .ok_or_else(|| "an identifier is missing".to_owned())
        };
        let ids = Ids {
            study: uid(STUDY)?,
            series: uid(SERIES)?,
            instance: uid(INSTANCE)?,
        };
        let class = before.text(CLASS);
        Ok((ids, class, halves(&mut header, Some(meta.transfer_syntax.as_str()))))
    };
    match read() {
        Ok((ids, class, halves)) => Told {
            file: Some(path.to_owned()),
            ids: Some(ids),
            class,
            halves: Ok(halves),
        },
        Err(why) => Told {
            file: Some(path.to_owned()),
            ids: None,
            class: None,
            halves: Err(why),
        },
    }
}

/// The files of PS3.10 at a path: itself, or all in a folder and below, in order.
///
/// # Errors
/// Where the folder cannot be read.
pub fn files(path: &Path) -> std::io::Result<Vec<PathBuf>> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let (mut folders, mut files) = (vec![path.to_owned()], Vec::new());
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder)? {
            let entry = entry?;
            let kind = entry.file_type()?;
            if kind.is_dir() {
                folders.push(entry.path());
            } else if kind.is_file() && is_object(&entry.path())? {
                files.push(entry.path());
            }
        }
    }
    files.sort();
    Ok(files)
}

fn is_object(path: &Path) -> std::io::Result<bool> {
    let mut start = Vec::new();
    File::open(path)?.take(132).read_to_end(&mut start)?;
    Ok(start.get(128..) == Some(b"DICM"))
}

/// A query of studies, one `KEY=VALUE` a line. `Modality` means images, of studies that have some.
pub struct Query {
    studies: dicom_net::Query,
    /// What modality the images are of; any, where there is none.
    modalities: Option<String>,
}

impl Query {
    /// Reads one.
    ///
    /// # Errors
    /// What is wrong with it, without its values.
    pub fn parse(lines: &str) -> Result<Self, dicom_net::QueryError> {
        let value_of = |line: &str, known: &str| {
            let (key, value) = line.split_once('=')?;
            (key.trim() == known).then(|| value.trim().to_owned())
        };
        let line = |line: &str| match value_of(line, MODALITY_NAME) {
            Some(value) => format!("{MODALITIES_NAME}={value}"),
            None => line.to_owned(),
        };
        let lines: Vec<String> = lines.lines().map(line).collect();
        let modalities = lines.iter().find_map(|line| value_of(line, MODALITIES_NAME));
        Ok(Self {
            studies: dicom_net::Query::parse_lines(&lines.join("\n"))?,
            modalities: modalities.filter(|value| !value.contains(['*', '?'])),
        })
    }

    /// The studies that fit, each once and at most so many, and how many others the PACS answered with.
    ///
    /// # Errors
    /// Where the PACS does not answer.
    pub fn studies(&self, source: &Source, most: usize) -> Result<(Vec<Wanted>, usize), SourceError> {
        let found = source.studies_that_fit(&self.studies, most)?;
        let wanted = |study| Wanted {
            study,
            series: None,
            instances: Vec::new(),
        };
        Ok((found.studies.into_iter().map(wanted).collect(), found.unfit))
    }

    /// Whether an image of a study that matches is meant: a study has series of several modalities.
    pub fn means(&self, halves: &Halves) -> bool {
        let Some(asked) = &self.modalities else { return true };
        let own = match halves.anonymous.get("modality") {
            Some(mdm_catalog::wire::Value::Text(own)) => own.as_str(),
            _ => return false,
        };
        asked.split('\\').any(|one| one == own)
    }
}

/// What users call it, of an image.
const MODALITY_NAME: &str = "Modality";
/// The modalities in a study.
const MODALITIES_NAME: &str = "ModalitiesInStudy";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_read_and_what_is_none_is_refused() {
        let query = Query::parse("PatientID=KH-0047\nModality=MR\nStudyDate=20260101-").unwrap();
        assert_eq!(query.modalities.as_deref(), Some("MR"));
        assert!(format!("{:?}", query.studies).contains("ModalitiesInStudy"));
        for wrong in [
            "",
            "\n",
            "PatientID",
            "PatientID=*",
            "Nothing=1",
            "StudyInstanceUID=1.2",
        ] {
            assert!(Query::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_query_for_a_modality_means_no_other_series() {
        let halves = |modality: &str| Halves {
            anonymous: [(
                "modality".to_owned(),
                mdm_catalog::wire::Value::Text(modality.to_owned()),
            )]
            .into(),
            identifying: Default::default(),
        };
        let query = Query::parse("Modality=MR").unwrap();
        assert!(query.means(&halves("MR")) && !query.means(&halves("CT")));
        assert!(Query::parse("PatientID=1").unwrap().means(&halves("CT")));
    }
}
