//! The side of STOW-RS that is asked to store (PS3.18, 10.5): reads the parts of a request as they come, and makes the
//! answer. What carries it over HTTP is not here.

use std::io::Read;

use serde_json::{Value, json};

use crate::command::Status;
use crate::dataset::DataError;
use crate::intake::{Intake, Sink, Taken, Wanted};
use crate::multipart::{self, MultipartError, Parts};
use crate::uid::Uid;

/// "Processing failure" (PS3.7, annex C): for what has no better word.
const FAILURE: Status = Status(0x0110);
const REFERENCED_CLASS: &str = "00081150";
const REFERENCED_INSTANCE: &str = "00081155";
const RETRIEVE_URL: &str = "00081190";
const FAILURE_REASON: &str = "00081197";
const FAILED: &str = "00081198";
const REFERENCED: &str = "00081199";
const OTHER_FAILURES: &str = "0008119A";

/// Why a request is none, or broke off. What came before was handed on; whoever sent it must send all again.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StowError {
    /// Not of the media type of instances as files (PS3.18, 8.7.3.3).
    #[error("not `multipart/related; type=\"application/dicom\"`")]
    Media,
    /// The body is none of several parts, or ended early.
    #[error("the instances do not come as they should")]
    Parts(#[source] MultipartError),
    /// More than one request may have.
    #[error("more than {0} instances in one request")]
    TooMany(usize),
    /// Whoever takes the instances wants no more.
    #[error("no more instances are taken")]
    Stopped,
}

/// What became of one part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// SOP class and instance, where the part is an instance at all.
    pub what: Option<(Uid, Uid)>,
    /// Whether it is stored, or why not.
    pub status: Status,
}

/// Reads the body of a request: hands each instance to `sink`, as one that comes by C-STORE. Where `study` is given,
/// instances of others are refused.
///
/// # Errors
/// Where the request is none, or broke off.
pub fn receive(
    content_type: &str,
    body: impl Read,
    study: Option<&Uid>,
    most: usize,
    sink: &mut Sink<'_>,
) -> Result<Vec<Stored>, StowError> {
    if !is_of_instances(content_type) {
        return Err(StowError::Media);
    }
    let boundary = multipart::boundary(content_type).map_err(|_| StowError::Media)?;
    let wanted = study.map(|study| Wanted {
        study: study.clone(),
        series: None,
        instances: Vec::new(),
    });
    let mut parts = Parts::new(body, &boundary);
    let mut stored = Vec::new();
    while parts.advance().map_err(StowError::Parts)? {
        if stored.len() == most {
            return Err(StowError::TooMany(most));
        }
        let mut intake = Intake::new(wanted.as_ref(), &mut *sink);
        let taken = intake.file(&mut parts.part());
        let what = intake.announced.take();
        let strange = intake.retrieved.strange.pop();
        // a part that broke off fails the request, whatever was made of its beginning
        parts.check().map_err(StowError::Parts)?;
        let status = match (taken, strange) {
            (_, Some((_, strange))) => strange.status(),
            (Ok(Taken::Kept), None) => Status::SUCCESS,
            (Ok(Taken::Refused(status)), None) => status,
            (Ok(Taken::Stop), None) => return Err(StowError::Stopped),
            (Ok(Taken::Dropped), None) => Status::OUT_OF_RESOURCES,
            (Err(DataError::Read(_)), None) => FAILURE,
            (Err(_), None) => Status::NOT_UNDERSTOOD,
        };
        stored.push(Stored { what, status });
    }
    Ok(stored)
}

/// Whether the media type is that of files of PS3.10 in parts. A missing `type` is forgiven.
fn is_of_instances(content_type: &str) -> bool {
    let lower = content_type.to_ascii_lowercase();
    let kind = lower.split(';').next().unwrap_or_default().trim();
    let inner = lower.split(';').find_map(|part| part.trim().strip_prefix("type="));
    kind == "multipart/related" && inner.is_none_or(|inner| inner.trim_matches(['"', ' ']) == "application/dicom")
}

/// The answer to a request: its HTTP status, and its body as `application/dicom+json` (PS3.18, 10.5.3 and I.2).
pub fn answer(stored: &[Stored]) -> (u16, Value) {
    let (good, bad): (Vec<&Stored>, Vec<&Stored>) = stored.iter().partition(|one| one.status.is_success());
    let mut body = json!({ RETRIEVE_URL: { "vr": "UR" } });
    let referenced: Vec<Value> = good.iter().filter_map(|one| reference(one)).collect();
    let mut failed = Vec::new();
    let mut others = Vec::new();
    for one in &bad {
        let reason = json!({ "vr": "US", "Value": [one.status.0] });
        match reference(one) {
            Some(mut item) => {
                item[FAILURE_REASON] = reason;
                failed.push(item);
            }
            None => others.push(json!({ FAILURE_REASON: reason })),
        }
    }
    for (name, items) in [(REFERENCED, referenced), (FAILED, failed), (OTHER_FAILURES, others)] {
        if !items.is_empty() {
            body[name] = json!({ "vr": "SQ", "Value": items });
        }
    }
    let all_busy = || {
        let resources = |one: &&Stored| one.status.0 >> 8 == Status::OUT_OF_RESOURCES.0 >> 8;
        bad.iter().all(resources)
    };
    let status = match (good.is_empty(), bad.is_empty()) {
        (true, true) => 400,
        (false, true) => 200,
        (false, false) => 202,
        // nothing was wrong with what came: later it may be taken
        (true, false) if all_busy() => 503,
        (true, false) => 409,
    };
    (status, body)
}

fn reference(one: &Stored) -> Option<Value> {
    let (class, instance) = one.what.as_ref()?;
    Some(json!({
        REFERENCED_CLASS: { "vr": "UI", "Value": [class.as_str()] },
        REFERENCED_INSTANCE: { "vr": "UI", "Value": [instance.as_str()] },
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::FileMeta;
    use crate::intake::Arrival;

    const TYPE: &str = "multipart/related; type=\"application/dicom\"; boundary=b";

    fn uid(text: &str) -> Uid {
        Uid::new(text).unwrap()
    }

    fn element(out: &mut Vec<u8>, group: u16, element: u16, value: &str) {
        out.extend(group.to_le_bytes());
        out.extend(element.to_le_bytes());
        out.extend(b"UI");
        let padded = value.len() + value.len() % 2;
        out.extend(u16::try_from(padded).unwrap().to_le_bytes());
        out.extend(value.as_bytes());
        out.resize(out.len() + padded - value.len(), 0);
    }

    fn file(study: &str, instance: &str) -> Vec<u8> {
        let class = "1.2.840.10008.5.1.4.1.1.2";
        let meta = FileMeta {
            class: uid(class),
            instance: uid(instance),
            transfer_syntax: uid("1.2.840.10008.1.2.1"),
        };
        let mut out = meta.encode();
        element(&mut out, 8, 0x16, class);
        element(&mut out, 8, 0x18, instance);
        element(&mut out, 0x20, 0x0d, study);
        element(&mut out, 0x20, 0x0e, "2.25.5");
        out
    }

    fn body(parts: &[Vec<u8>]) -> Vec<u8> {
        let mut out = Vec::new();
        for part in parts {
            out.extend(b"--b\r\nContent-Type: application/dicom\r\n\r\n");
            out.extend(part);
            out.extend(b"\r\n");
        }
        out.extend(b"--b--\r\n");
        out
    }

    fn statuses(parts: &[Vec<u8>], study: Option<&str>, refuse: Option<Status>) -> Vec<u16> {
        let study = study.map(uid);
        let mut sink = |_: &Arrival, file: &mut dyn Read| {
            std::io::copy(file, &mut std::io::sink()).unwrap();
            refuse.map_or(Taken::Kept, Taken::Refused)
        };
        let stored = receive(TYPE, body(parts).as_slice(), study.as_ref(), 3, &mut sink).unwrap();
        stored.iter().map(|one| one.status.0).collect()
    }

    #[test]
    fn each_part_gets_its_own_word() {
        let parts = [file("2.25.1", "2.25.7"), b"no DICOM".to_vec(), file("2.25.2", "2.25.8")];
        assert_eq!(statuses(&parts, None, None), [0, 0xc000, 0]);
        assert_eq!(statuses(&parts, Some("2.25.1"), None), [0, 0xc000, 0xa900]);
        // who sent it is told which one it was
        let mut sink = |_: &Arrival, _: &mut dyn Read| Taken::Kept;
        let study = uid("2.25.1");
        let stored = receive(TYPE, body(&parts).as_slice(), Some(&study), 10, &mut sink).unwrap();
        let (_, told) = answer(&stored);
        assert_eq!(told[FAILED]["Value"][0][REFERENCED_INSTANCE]["Value"][0], "2.25.8");
        assert_eq!(statuses(&parts[..1], None, Some(Status(0xa701))), [0xa701]);
        assert_eq!(statuses(&[], None, None), [0_u16; 0]);
    }

    #[test]
    fn what_is_no_request_is_refused() {
        let mut sink = |_: &Arrival, _: &mut dyn Read| Taken::Kept;
        let mut of = |kind: &str, body: &[u8]| receive(kind, body, None, 2, &mut sink);
        for kind in [
            "application/dicom",
            "multipart/form-data; boundary=b",
            "multipart/related; type=\"application/dicom+json\"; boundary=b",
            "multipart/related; type=\"application/dicom\"",
        ] {
            assert!(matches!(of(kind, b""), Err(StowError::Media)), "{kind}");
        }
        let many = body(&[vec![1], vec![2], vec![3]]);
        assert!(matches!(of(TYPE, &many), Err(StowError::TooMany(2))));
        let whole = body(&[file("2.25.1", "2.25.7")]);
        for end in 0..whole.len() - 2 {
            assert!(matches!(of(TYPE, &whole[..end]), Err(StowError::Parts(_))), "{end}");
        }
        let mut stop = |_: &Arrival, _: &mut dyn Read| Taken::Stop;
        assert!(matches!(
            receive(TYPE, whole.as_slice(), None, 2, &mut stop),
            Err(StowError::Stopped)
        ));
    }

    #[test]
    fn the_answer_says_what_is_stored_and_why_the_rest_is_not() {
        let one = |status: u16| Stored {
            what: Some((uid("1.2"), uid("2.25.7"))),
            status: Status(status),
        };
        let strange = Stored {
            what: None,
            status: Status::NOT_UNDERSTOOD,
        };
        let (status, body) = answer(&[one(0)]);
        assert_eq!(status, 200);
        assert_eq!(body[REFERENCED]["Value"][0][REFERENCED_INSTANCE]["Value"][0], "2.25.7");
        assert!(body.get(FAILED).is_none() && body.get(OTHER_FAILURES).is_none());
        let (status, body) = answer(&[one(0), one(0xa900), strange.clone()]);
        assert_eq!(status, 202);
        assert_eq!(body[FAILED]["Value"][0][FAILURE_REASON]["Value"][0], 0xa900);
        assert_eq!(body[FAILED]["Value"][0][REFERENCED_CLASS]["Value"][0], "1.2");
        assert_eq!(body[OTHER_FAILURES]["Value"][0][FAILURE_REASON]["Value"][0], 0xc000);
        assert_eq!(answer(&[one(0xa900), strange]).0, 409);
        assert_eq!(answer(&[one(0xa700), one(0xa701)]).0, 503);
        assert_eq!(answer(&[]).0, 400);
    }
}
