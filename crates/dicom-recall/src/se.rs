//! The commands of whoever runs a storage element, `--agent SOCKET`: they ask the agent beside it, and know no more
//! than it does (`docs/src/storage-element.md`).

use std::path::Path;

use eds::voice::Voice;
use hydra_cli::{Code, Failure};
use serde_json::{Value, json};

use crate::ask::{Agent, Answer, Ask, FileStatus, Progress, RequestStatus};
use crate::hooks::{ask, ask_failure, other_answer};

/// Names that are asked for in one go.
const PAGE: usize = 1000;

/// Names under a prefix, and with `is_long` what is known of each.
///
/// # Errors
/// Where the agent cannot be asked, or standard output not written.
pub fn ls(socket: &Path, prefix: &str, is_long: bool, voice: Voice) -> Result<(), Failure> {
    let mut agent = Agent::connect(socket).map_err(ask_failure)?;
    let mut after = None;
    loop {
        let (prefix, limit) = (prefix.to_owned(), PAGE);
        let listed = agent.ask(&Ask::List { prefix, after, limit }).map_err(ask_failure)?;
        let Answer::Files { files } = listed else {
            return Err(other_answer(listed));
        };
        for file in &files {
            let line = if is_long { line(file) } else { file.name.clone() };
            voice.result(&line)?;
            voice.json(&value(file)?)?;
        }
        match files.into_iter().nth(PAGE - 1) {
            Some(last) => after = Some(last.name),
            None => return Ok(()),
        }
    }
}

/// What is known of each name.
///
/// # Errors
/// Exit code 77 where one is not registered, after all were told; else as [`ls`].
pub fn stat(socket: &Path, names: &[String], voice: Voice) -> Result<(), Failure> {
    let answer = ask(socket, &Ask::Stat { names: names.to_vec() })?;
    let Answer::Files { files } = answer else {
        return Err(other_answer(answer));
    };
    for file in &files {
        voice.result(&line(file))?;
        voice.json(&value(file)?)?;
    }
    match files.iter().filter(|file| !file.registered).count() {
        0 => Ok(()),
        some => {
            let text = format!("{some} of {} are not registered", files.len());
            Err(Failure::new(Code::NotAllowed, text))
        }
    }
}

/// Every request that the agent remembers, with its files.
///
/// # Errors
/// As [`ls`].
pub fn requests(socket: &Path, voice: Voice) -> Result<(), Failure> {
    let answer = ask(socket, &Ask::Requests { owner: None })?;
    let Answer::Requests { requests } = answer else {
        return Err(other_answer(answer));
    };
    for request in &requests {
        voice.result(&summary(request))?;
        for file in &request.files {
            let reason = file.reason.map_or("", |reason| reason.text());
            voice.result(format!("  {:<10} {}  {reason}", word(file.progress), file.name).trim_end())?;
        }
        voice.json(&value(request)?)?;
    }
    Ok(())
}

/// Takes files off the disk; with `force` also those that a request holds.
///
/// # Errors
/// As [`ls`]; exit code 1 where some stayed.
pub fn evict(socket: &Path, names: &[String], force: bool, voice: Voice) -> Result<(), Failure> {
    let answer = ask(
        socket,
        &Ask::Evict {
            names: names.to_vec(),
            force,
        },
    )?;
    let Answer::Evicted { names: gone } = answer else {
        return Err(other_answer(answer));
    };
    voice.json(&json!({ "evicted": gone }))?;
    for name in &gone {
        voice.result(&format!("evicted {name}"))?;
    }
    if gone.len() < names.len() {
        let text = format!(
            "{} of {} were not on disk, or are held",
            names.len() - gone.len(),
            names.len()
        );
        return Err(Failure::new(Code::Failed, text).advise("dicom-recall requests --agent"));
    }
    Ok(())
}

/// Waits no more for the files of requests.
///
/// # Errors
/// As [`ls`]; where there is no such request.
pub fn cancel(socket: &Path, requests: &[String], voice: Voice) -> Result<(), Failure> {
    for request in requests {
        let answer = ask(
            socket,
            &Ask::Cancel {
                request: request.clone(),
                owner: None,
                names: None,
            },
        )?;
        match answer {
            Answer::Done => voice.result(&format!("cancelled {request}"))?,
            other => return Err(other_answer(other)),
        }
    }
    Ok(())
}

fn value(of: &impl serde::Serialize) -> Result<Value, Failure> {
    serde_json::to_value(of).map_err(|error| Failure::new(Code::Failed, error))
}

/// Where it is, how long, its name, and what is the matter.
fn line(file: &FileStatus) -> String {
    let place = match file {
        FileStatus { registered: false, .. } => "unknown",
        FileStatus { on_disk: true, .. } => "on disk",
        FileStatus { available: true, .. } => "nearline",
        _ => "away",
    };
    let size = file.size.map_or("-".to_owned(), |size| size.to_string());
    let wanted = if file.wanted { "  wanted" } else { "" };
    let reason = file
        .reason
        .map_or(String::new(), |reason| format!("  {}", reason.text()));
    format!("{place:<8} {size:>12} {}{wanted}{reason}", file.name)
}

fn summary(request: &RequestStatus) -> String {
    let done = request
        .files
        .iter()
        .filter(|file| file.progress == Progress::Completed)
        .count();
    format!("{}  {done} of {} files", request.request, request.files.len())
}

fn word(progress: Progress) -> &'static str {
    match progress {
        Progress::Submitted => "submitted",
        Progress::Started => "started",
        Progress::Completed => "completed",
        Progress::Failed => "failed",
        Progress::Cancelled => "cancelled",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::line::Reason;

    #[test]
    fn a_line_says_where_a_file_is_and_what_is_the_matter() {
        let file = FileStatus {
            name: "/eds/a".to_owned(),
            registered: true,
            size: Some(7),
            sha256: None,
            registered_at: None,
            on_disk: false,
            available: true,
            wanted: true,
            reason: Some(Reason::Pacs),
        };
        assert_eq!(
            line(&file),
            "nearline            7 /eds/a  wanted  the archive does not answer"
        );
        let away = FileStatus {
            available: false,
            size: None,
            reason: None,
            wanted: false,
            ..file
        };
        assert_eq!(line(&away), "away                - /eds/a");
    }
}
