//! The documents of the WLCG Tape REST API, version 1: what its requests mean, and what is answered. Decisions, without
//! I/O; `dicom-recall serve` carries them over HTTPS (`docs/src/storage-element.md`).

use serde::Deserialize;
use serde_json::{Value, json};

use crate::ask::{FileStatus, Progress, RequestFile, RequestStatus, Wish};
use crate::line::Reason;

/// The longest name of a request that is looked up: ours are shorter.
const LONGEST_REQUEST: usize = 128;
const DAY_S: i64 = 24 * 3600;

/// Why a request means nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BodyError {
    /// No JSON, or not as the API has it.
    #[error("the body is not as the API has it: {0}")]
    Json(String),
    /// It names no file.
    #[error("it names no file")]
    Nothing,
    /// It names more than one request may.
    #[error("it names {0} files, {1} are allowed")]
    TooMany(usize, usize),
    /// Not as ISO 8601 has it, or without a length in seconds.
    #[error("`{0}` is no duration in days, hours, minutes and seconds")]
    Duration(String),
}

#[derive(Deserialize)]
struct Stage {
    files: Vec<StageFile>,
}

/// What else there is, as `targetedMetadata` for other sites, means nothing here.
#[derive(Deserialize)]
struct StageFile {
    path: String,
    #[serde(rename = "diskLifetime")]
    disk_lifetime: Option<String>,
}

#[derive(Deserialize)]
struct Paths {
    paths: Vec<String>,
}

fn read<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, BodyError> {
    serde_json::from_slice(body).map_err(|error| BodyError::Json(error.to_string()))
}

fn count(files: usize, most: usize) -> Result<(), BodyError> {
    match files {
        0 => Err(BodyError::Nothing),
        files if files > most => Err(BodyError::TooMany(files, most)),
        _ => Ok(()),
    }
}

/// Reads the body of `POST stage`. No file stays longer than `longest_s`, whatever was asked for. A file that is named
/// twice is wished for once.
///
/// # Errors
/// Where it means nothing.
pub fn wishes(body: &[u8], most: usize, longest_s: u64) -> Result<Vec<Wish>, BodyError> {
    let stage: Stage = read(body)?;
    count(stage.files.len(), most)?;
    let mut seen = std::collections::BTreeSet::new();
    let mut wishes = Vec::new();
    for file in stage.files {
        let lifetime = file.disk_lifetime.as_deref().map(seconds).transpose()?;
        if seen.insert(file.path.clone()) {
            wishes.push(Wish {
                name: file.path,
                lifetime_s: lifetime.map(|lifetime| lifetime.min(longest_s)),
            });
        }
    }
    Ok(wishes)
}

/// Reads the body of `cancel`, `release` and `archiveinfo`.
///
/// # Errors
/// Where it means nothing.
pub fn paths(body: &[u8], most: usize) -> Result<Vec<String>, BodyError> {
    let read: Paths = read(body)?;
    count(read.paths.len(), most)?;
    Ok(read.paths)
}

/// The length of an ISO 8601 duration; months and years have none.
fn seconds(text: &str) -> Result<u64, BodyError> {
    let bad = || BodyError::Duration(text.chars().take(40).collect());
    // jiff reads durations in words too
    let span: jiff::Span = match text.strip_prefix('P') {
        Some(_) => text.parse().map_err(|_| bad())?,
        None => return Err(bad()),
    };
    if span.get_years() != 0 || span.get_months() != 0 || span.is_negative() {
        return Err(bad());
    }
    let days = i64::from(span.get_weeks()) * 7 + i64::from(span.get_days());
    let hours = span.weeks(0).days(0);
    let hours = jiff::SignedDuration::try_from(hours).map_err(|_| bad())?;
    let whole = days
        .checked_mul(DAY_S)
        .and_then(|days| days.checked_add(hours.as_secs()));
    whole.and_then(|whole| u64::try_from(whole).ok()).ok_or_else(bad)
}

/// Whether a text can be the name of a request.
pub fn is_request(text: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || "-_.:".contains(c);
    (1..=LONGEST_REQUEST).contains(&text.len()) && text.chars().all(fits)
}

/// `GET /.well-known/wlcg-tape-rest-api`
pub fn well_known(site: &str, description: &str, url: &str) -> Value {
    json!({
        "sitename": site,
        "description": description,
        "endpoints": [{ "uri": format!("{url}/api/v1"), "version": "v1", "metadata": {} }],
    })
}

/// `GET stage/ID`
pub fn request(status: &RequestStatus) -> Value {
    let started = status.files.iter().filter_map(|file| file.started_at).min();
    let mut answer = json!({
        "id": status.request,
        "createdAt": status.created_at,
        // it is in the queue from the beginning
        "startedAt": started.unwrap_or(status.created_at),
        "files": status.files.iter().map(file).collect::<Vec<_>>(),
    });
    let is_open = |file: &RequestFile| matches!(file.progress, Progress::Submitted | Progress::Started);
    if !status.files.iter().any(is_open) {
        let ended = status.files.iter().filter_map(|file| file.finished_at).max();
        answer["completedAt"] = ended.unwrap_or(status.created_at).into();
    }
    answer
}

/// Clients know a file by its state or by whether it is on disk: they get both.
fn file(file: &RequestFile) -> Value {
    let state = match file.progress {
        Progress::Submitted => "SUBMITTED",
        Progress::Started => "STARTED",
        Progress::Completed => "COMPLETED",
        Progress::Failed => "FAILED",
        Progress::Cancelled => "CANCELLED",
    };
    let mut answer = json!({ "path": file.name, "state": state, "onDisk": file.on_disk });
    if let Some(started) = file.started_at {
        answer["startedAt"] = started.into();
    }
    if let Some(finished) = file.finished_at {
        answer["finishedAt"] = finished.into();
    }
    if file.progress == Progress::Failed {
        answer["error"] = file.reason.unwrap_or(Reason::Other).text().into();
    }
    answer
}

/// `POST archiveinfo`
pub fn archive(files: &[FileStatus]) -> Value {
    files.iter().map(locality).collect()
}

fn locality(file: &FileStatus) -> Value {
    if !file.registered {
        return json!({ "path": file.name, "error": Reason::Unknown.text() });
    }
    let locality = match (file.on_disk, file.reason, file.available) {
        (true, ..) => "DISK_AND_TAPE",
        (false, Some(Reason::Missing), _) => "LOST",
        (false, _, true) => "TAPE",
        (false, _, false) => "UNAVAILABLE",
    };
    json!({ "path": file.name, "locality": locality })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stage_request_is_its_files_with_their_lifetimes() {
        let body = br#"{"files": [
            {"path": "/eds/1", "diskLifetime": "PT1H", "targetedMetadata": {"ELSEWHERE": {"x": 1}}},
            {"path": "/eds/2"}, {"path": "/eds/1", "diskLifetime": "P1D"}, {"path": "/eds/3", "diskLifetime": "P90D"}
        ], "more": true}"#;
        let wishes = wishes(body, 4, 7 * 86400).unwrap();
        let told: Vec<_> = wishes
            .iter()
            .map(|wish| (wish.name.as_str(), wish.lifetime_s))
            .collect();
        assert_eq!(
            told,
            [("/eds/1", Some(3600)), ("/eds/2", None), ("/eds/3", Some(604_800))]
        );
    }

    #[test]
    fn durations_are_those_of_iso_8601_with_a_length() {
        for (text, expected) in [
            ("PT0S", 0),
            ("PT1H", 3600),
            ("PT90M", 5400),
            ("P1D", 86400),
            ("P1DT12H", 129_600),
            ("P2W", 1_209_600),
            ("PT1H30M5S", 5405),
        ] {
            assert_eq!(seconds(text), Ok(expected), "{text}");
        }
        for text in [
            "",
            "1 hour",
            "PT",
            "P1M",
            "P1Y",
            "-PT1H",
            "3600",
            "P99999999999999D",
            "PT1H\n",
        ] {
            assert!(seconds(text).is_err(), "{text:?}: {:?}", seconds(text));
        }
    }

    #[test]
    fn what_means_nothing_is_refused_in_words() {
        let refused = |body: &str| wishes(body.as_bytes(), 2, 1).unwrap_err().to_string();
        assert!(refused("{").contains("not as the API has it"));
        assert!(refused("{\"paths\": []}").contains("files"));
        assert!(refused("{\"files\": [{\"path\": 7}]}").contains("string"));
        assert_eq!(refused("{\"files\": []}"), "it names no file");
        let three = r#"{"files": [{"path": "a"}, {"path": "b"}, {"path": "c"}]}"#;
        assert_eq!(refused(three), "it names 3 files, 2 are allowed");
        let long = r#"{"files": [{"path": "a", "diskLifetime": "for ever"}]}"#;
        assert!(refused(long).contains("`for ever` is no duration"));
        assert_eq!(paths(b"{\"paths\": [\"/a\"]}", 1).unwrap(), ["/a"]);
        assert!(paths(b"{\"paths\": \"/a\"}", 1).is_err());
        for (text, expected) in [
            ("ab-12", true),
            ("", false),
            ("../x", false),
            ("a/b", false),
            ("é", false),
        ] {
            assert_eq!(is_request(text), expected, "{text}");
        }
        assert!(!is_request(&"x".repeat(129)));
    }

    fn of(name: &str, progress: Progress, on_disk: bool, times: (Option<i64>, Option<i64>)) -> RequestFile {
        RequestFile {
            name: name.to_owned(),
            progress,
            reason: (progress == Progress::Failed).then_some(Reason::Key),
            on_disk,
            started_at: times.0,
            finished_at: times.1,
        }
    }

    #[test]
    fn a_poll_has_times_states_and_reasons() {
        let mut status = RequestStatus {
            request: "r-1".to_owned(),
            created_at: 100,
            files: vec![
                of("/a", Progress::Completed, true, (Some(110), Some(120))),
                of("/b", Progress::Failed, false, (Some(105), Some(130))),
                of("/c", Progress::Submitted, false, (None, None)),
            ],
        };
        assert_eq!(
            request(&status),
            json!({
                "id": "r-1", "createdAt": 100, "startedAt": 105,
                "files": [
                    { "path": "/a", "state": "COMPLETED", "onDisk": true, "startedAt": 110, "finishedAt": 120 },
                    { "path": "/b", "state": "FAILED", "onDisk": false, "startedAt": 105, "finishedAt": 130,
                      "error": "its key cannot be had now" },
                    { "path": "/c", "state": "SUBMITTED", "onDisk": false },
                ],
            })
        );
        status.files[2] = of("/c", Progress::Cancelled, false, (None, Some(125)));
        let done = request(&status);
        assert_eq!(
            (&done["completedAt"], &done["files"][2]["state"]),
            (&json!(130), &json!("CANCELLED"))
        );
        status.files[2] = of("/c", Progress::Started, false, (Some(90), None));
        let under_way = request(&status);
        assert_eq!(
            (&under_way["startedAt"], under_way.get("completedAt")),
            (&json!(90), None)
        );
    }

    #[test]
    fn localities_are_those_of_a_file_and_its_archive() {
        let of = |registered, on_disk, available, reason| {
            let status = FileStatus {
                name: "/a".to_owned(),
                registered,
                size: None,
                sha256: None,
                registered_at: None,
                on_disk,
                available,
                wanted: false,
                reason,
            };
            archive(&[status])[0].clone()
        };
        assert_eq!(of(true, true, false, None)["locality"], "DISK_AND_TAPE");
        assert_eq!(of(true, false, true, None)["locality"], "TAPE");
        assert_eq!(of(true, false, true, Some(Reason::Key))["locality"], "TAPE");
        assert_eq!(of(true, false, false, None)["locality"], "UNAVAILABLE");
        assert_eq!(of(true, false, true, Some(Reason::Missing))["locality"], "LOST");
        let unknown = of(false, false, true, None);
        assert_eq!(unknown.get("locality"), None);
        assert_eq!(unknown["error"], "nothing of that name is registered");
    }

    #[test]
    fn clients_find_the_endpoint() {
        let told = well_known("HERE", "x", "https://se.example.org:8444");
        assert_eq!(told["endpoints"][0]["uri"], "https://se.example.org:8444/api/v1");
        assert_eq!(
            (&told["endpoints"][0]["version"], &told["sitename"]),
            (&json!("v1"), &json!("HERE"))
        );
    }
}
