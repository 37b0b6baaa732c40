//! What XRootD calls: `rss`, `stage`, `queue` and `prep`, thin clients of the agent beside it. What each is called with
//! and must answer is XRootD's to say (`docs/src/storage-element.md` has it, and what was found out about 5.5).

#![allow(
    missing_docs,
    reason = "a doc comment on a flattened group would become the help of the whole command"
)]

use std::fs::{self, File, FileTimes, OpenOptions};
use std::io::{self, BufRead, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use eds::failure::Because;
use hydra_cli::{Code, Failure, output};
use serde_json::json;

use crate::ask::{Agent, Answer, Ask, AskError, FileStatus, Progress, RequestFile, RequestStatus, Wish};
use crate::line::Reason;
use crate::names;

/// How long a hook waits for a file unless told otherwise, in seconds.
const WAIT_S: u64 = 3600;
/// The most requests of `queue` at once; beyond, XRootD's pipe is left full until some are over.
const MOST_AT_ONCE: usize = 1000;
/// Names that are asked for in one go to list a folder.
const LISTED: usize = 1000;
/// The last character: no name under a folder is behind it.
const LAST: char = '\u{10ffff}';

/// Where the agent is.
#[derive(Debug, Clone, clap::Args)]
pub struct Socket {
    /// The agent's socket
    #[arg(long, value_name = "PATH", env = "DICOM_RECALL_SOCKET", default_value = crate::SOCKET)]
    pub socket: PathBuf,
}

/// `dicom-recall rss`, XRootD's `oss.rsscmd`.
#[derive(Debug, clap::Args)]
pub struct Rss {
    /// statx, exists or dlist; what would change something is refused
    pub operation: String,
    /// Of what
    #[arg(allow_hyphen_values = true)]
    pub name: String,
    /// What XRootD adds
    #[arg(hide = true, trailing_var_arg = true, allow_hyphen_values = true)]
    pub more: Vec<String>,
    #[command(flatten)]
    pub socket: Socket,
}

/// `dicom-recall stage`, XRootD's `oss.stagecmd sync`.
#[derive(Debug, clap::Args)]
pub struct Stage {
    /// The name of the file
    #[arg(allow_hyphen_values = true)]
    pub name: String,
    /// Where the storage element looks for it
    pub path: PathBuf,
    /// How long to wait for it
    #[arg(long, value_name = "SECONDS", default_value_t = WAIT_S)]
    pub wait: u64,
    /// Where XRootD looks for what failed, its `oss.xfr fdir` [default: as the agent is configured]
    #[arg(long, value_name = "FOLDER")]
    pub fail_folder: Option<PathBuf>,
    #[command(flatten)]
    pub socket: Socket,
}

/// `dicom-recall queue`, XRootD's `oss.stagecmd async |`.
#[derive(Debug, clap::Args)]
pub struct Queue {
    /// The pipe that XRootD reads answers from [default: as each request says]
    #[arg(long, value_name = "FIFO")]
    pub events: Option<PathBuf>,
    /// How long to wait for a file
    #[arg(long, value_name = "SECONDS", default_value_t = WAIT_S)]
    pub wait: u64,
    #[command(flatten)]
    pub socket: Socket,
}

/// `dicom-recall prep`, XRootD's `ofs.preplib libXrdOfsPrepGPI.so -run`.
#[derive(Debug, clap::Args)]
pub struct Prep {
    /// Together: not looked at
    #[arg(short = 'C')]
    pub colocate: bool,
    /// When to tell the client: not looked at
    #[arg(short = 'n', value_name = "WHEN")]
    pub notify: Option<String>,
    /// From 0, not urgent, to 3
    #[arg(short = 'p', value_name = "PRIORITY", default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=3))]
    pub priority: u8,
    /// For writing: refused
    #[arg(short = 'w')]
    pub write: bool,
    /// The request
    pub request: String,
    /// stage, prep, evict, cancel or query
    pub operation: String,
    /// Of which files
    #[arg(allow_hyphen_values = true)]
    pub names: Vec<String>,
    #[command(flatten)]
    pub socket: Socket,
}

/// The agent cannot be asked, as a failure.
#[allow(clippy::needless_pass_by_value, reason = "for `map_err`")]
pub(crate) fn ask_failure(error: AskError) -> Failure {
    Failure::new(Code::TryLater, error).advise("systemctl status dicom-recall-place")
}

/// An answer that is none to this question: a refusal with its text, or a strange one.
pub(crate) fn other_answer(answer: Answer) -> Failure {
    match answer {
        Answer::Refused { text, .. } => Failure::new(Code::Failed, format!("the agent refused: {text}")),
        Answer::Failed { reason } => Failure::new(Code::Failed, reason.text()),
        _ => Failure::new(Code::Failed, "the agent answered something else"),
    }
}

/// Asks once.
pub(crate) fn ask(socket: &Path, ask: &Ask) -> Result<Answer, Failure> {
    Agent::connect(socket)
        .and_then(|mut agent| agent.ask(ask))
        .map_err(ask_failure)
}

// --- rss --------------------------------------------------------------------------------------------------------------

const ENOENT: i32 = -2;
const EIO: i32 = -5;
const EPERM: i32 = -1;

/// `dicom-recall rss`: the first line is 0 or an errno with a minus, whatever happens; nobody looks at the exit code.
///
/// # Errors
/// Where standard output cannot be written, or the agent cannot be asked, after that was printed.
pub fn rss(args: &Rss) -> Result<(), Failure> {
    let found = looked_up(args);
    let text = match &found {
        Ok(Ok(lines)) if lines.is_empty() => "0".to_owned(),
        Ok(Ok(lines)) => format!("0\n{}", lines.join("\n")),
        Ok(Err(errno)) => errno.to_string(),
        Err(_) => EIO.to_string(),
    };
    output::print_line(&text)?;
    found.map(|_| ())
}

fn looked_up(args: &Rss) -> Result<Result<Vec<String>, i32>, Failure> {
    let name = without_more(&args.name);
    let folder = format!("{}/", name.trim_end_matches('/'));
    let is_listing = args.operation == "dlist";
    if !is_listing && !matches!(args.operation.as_str(), "statx" | "exists") {
        return Ok(Err(EPERM));
    }
    let mut agent = Agent::connect(&args.socket.socket).map_err(ask_failure)?;
    if is_listing {
        let below = below(&mut agent, &folder)?;
        return Ok(if below.is_empty() { Err(ENOENT) } else { Ok(below) });
    }
    let names = vec![name.to_owned()];
    let status = match agent.ask(&Ask::Stat { names }).map_err(ask_failure)? {
        Answer::Files { files } => files.into_iter().next(),
        other => return Err(other_answer(other)),
    };
    let line = match status.filter(|status| status.registered) {
        Some(status) => stat_line(&status),
        None if listed(&mut agent, &folder, None, 1)?.is_empty() => return Ok(Err(ENOENT)),
        None => "d rwxr-xr-x 2 0 0 0 0 0 4096 4096 8".to_owned(),
    };
    Ok(Ok(if args.operation == "statx" {
        vec![line]
    } else {
        Vec::new()
    }))
}

/// Type, mode, links, owner, group, times of access, change and content, size, and the size and number of blocks. The
/// size is exact, or 0 where it is not known: a guess would be served as wrong bytes.
fn stat_line(status: &FileStatus) -> String {
    let size = status.size.unwrap_or(0);
    let time = status.registered_at.unwrap_or(0);
    format!(
        "- rw-r--r-- 1 0 0 {time} {time} {time} {size} 4096 {}",
        size.div_ceil(512)
    )
}

fn listed(agent: &mut Agent, prefix: &str, after: Option<String>, limit: usize) -> Result<Vec<FileStatus>, Failure> {
    let prefix = prefix.to_owned();
    match agent.ask(&Ask::List { prefix, after, limit }).map_err(ask_failure)? {
        Answer::Files { files } => Ok(files),
        other => Err(other_answer(other)),
    }
}

/// What is right below a folder, each once.
fn below(agent: &mut Agent, folder: &str) -> Result<Vec<String>, Failure> {
    let mut found: Vec<String> = Vec::new();
    let mut after = None;
    loop {
        let files = listed(agent, folder, after.take(), LISTED)?;
        for file in &files {
            let rest = file.name.strip_prefix(folder).unwrap_or_default();
            let segment = rest.split('/').next().unwrap_or_default();
            if found.last().is_none_or(|last| last != segment) {
                found.push(segment.to_owned());
            }
        }
        let Some(last) = files.last().filter(|_| files.len() == LISTED) else {
            return Ok(found);
        };
        let rest = last.name.strip_prefix(folder).unwrap_or_default();
        after = Some(match rest.split_once('/') {
            // the rest of that folder has nothing new
            Some((segment, _)) => format!("{folder}{segment}/{LAST}"),
            None => last.name.clone(),
        });
    }
}

/// A name without what clients may add to it behind a question mark, which XRootD hands through.
fn without_more(name: &str) -> &str {
    name.split_once('?').map_or(name, |(name, _)| name)
}

// --- stage ------------------------------------------------------------------------------------------------------------

/// `dicom-recall stage`: waits until the file is there.
///
/// # Errors
/// Exit code 2 where nobody registered it and 1 for all else; then XRootD finds a file that says so, without which it
/// would ask again and again while its client waits.
pub fn stage(args: &Stage) -> Result<(), Failure> {
    let mut failed = args
        .fail_folder
        .as_deref()
        .map(|folder| fail_file(folder, &args.path))
        .transpose()?;
    // one of an earlier time would end the wait of whoever comes next
    remove_failed(failed.as_deref())?;
    let staged = try_stage(args, &mut failed);
    if let Err(failure) = &staged {
        match &failed {
            Some(path) => write_failed(path, failure.code == Code::Usage)?,
            None => output::warn("no folder for failures is known: XRootD will ask again and again"),
        }
    }
    staged
}

fn try_stage(args: &Stage, failed: &mut Option<PathBuf>) -> Result<(), Failure> {
    let failure = |error: AskError| Failure::new(Code::Failed, error);
    let mut agent = Agent::connect(&args.socket.socket).map_err(failure)?;
    if failed.is_none()
        && let Answer::About {
            fail_folder: Some(folder),
            ..
        } = agent.ask(&Ask::About).map_err(failure)?
    {
        *failed = Some(fail_file(&folder, &args.path)?);
        remove_failed(failed.as_deref())?;
    }
    let answer = agent.ask(&Ask::Stage {
        name: args.name.clone(),
        path: Some(args.path.clone()),
        deadline_s: args.wait,
    });
    match answer.map_err(failure)? {
        Answer::Done => Ok(()),
        Answer::Failed {
            reason: reason @ Reason::Unknown,
        } => Err(Failure::new(Code::Usage, format!("`{}`: {}", args.name, reason.text()))),
        Answer::Failed { reason } => Err(Failure::new(
            Code::Failed,
            format!("`{}`: {}", args.name, reason.text()),
        )),
        other => Err(other_answer(other)),
    }
}

/// XRootD puts the two together as they are, and adds an ending.
fn fail_file(folder: &Path, path: &Path) -> Result<PathBuf, Failure> {
    let clean = path.to_str().filter(|path| names::check_path(path));
    let clean =
        clean.ok_or_else(|| Failure::new(Code::Failed, "the path of the file is none that a file could have"))?;
    let mut failed = folder.as_os_str().to_owned();
    failed.push(clean);
    failed.push(".fail");
    Ok(failed.into())
}

fn remove_failed(path: Option<&Path>) -> Result<(), Failure> {
    match path.map(fs::remove_file) {
        Some(Err(error)) if error.kind() != io::ErrorKind::NotFound => Err(Failure::new(
            Code::Failed,
            Because::new("an old failure cannot be removed", error),
        )),
        _ => Ok(()),
    }
}

/// A time of 2 s after 1970 tells XRootD that there is no such file, rather than that it failed.
fn write_failed(path: &Path, is_unknown: bool) -> Result<(), Failure> {
    let written = (|| {
        fs::create_dir_all(path.parent().unwrap_or(Path::new("/")))?;
        let file = File::create(path)?;
        if is_unknown {
            let time = SystemTime::UNIX_EPOCH + Duration::from_secs(2);
            file.set_times(FileTimes::new().set_modified(time).set_accessed(time))?;
        }
        Ok(())
    })();
    written.map_err(|error: io::Error| {
        let text = format!(
            "`{}` cannot be written, and XRootD will ask again and again",
            path.display()
        );
        Failure::new(Code::Failed, Because::new(text, error))
    })
}

// --- queue ------------------------------------------------------------------------------------------------------------

/// A request as XRootD writes it: `+ ID NOTIFY PRIORITY ACTION NAME`.
#[derive(Debug, PartialEq, Eq)]
struct Queued<'a> {
    notify: &'a str,
    name: &'a str,
}

fn queued(line: &str) -> Option<Queued<'_>> {
    let mut words = line.trim_end_matches(['\n', '\r']).splitn(6, ' ');
    if words.next() != Some("+") {
        return None;
    }
    let (_, notify, _, _, name) = (
        words.next()?,
        words.next()?,
        words.next()?,
        words.next()?,
        words.next()?,
    );
    (!name.is_empty()).then_some(Queued { notify, name })
}

/// `dicom-recall queue`: one process for all files, until XRootD closes its end.
///
/// # Errors
/// Where its standard input cannot be read.
pub fn queue(args: &Queue) -> Result<(), Failure> {
    let answers = Arc::new(Mutex::new(()));
    let running = Arc::new(AtomicUsize::new(0));
    for line in io::stdin().lock().split(b'\n') {
        let line = line.map_err(|error| Failure::new(Code::Io, Because::new("cannot read requests", error)))?;
        let line = String::from_utf8_lossy(&line);
        let Some(asked) = queued(&line) else {
            continue;
        };
        let events = args.events.clone().or_else(|| events(asked.notify));
        let Some(events) = events else {
            output::warn("a request does not say where its answer goes: name the pipe with --events");
            continue;
        };
        while running.load(Ordering::Acquire) >= MOST_AT_ONCE {
            std::thread::sleep(Duration::from_millis(20));
        }
        running.fetch_add(1, Ordering::AcqRel);
        let (answers, running) = (Arc::clone(&answers), Arc::clone(&running));
        let (name, socket, wait) = (asked.name.to_owned(), args.socket.socket.clone(), args.wait);
        std::thread::spawn(move || {
            let event = event(&name, &staged(&socket, &name, wait));
            {
                let _one_at_a_time = answers.lock().unwrap_or_else(PoisonError::into_inner);
                if let Err(error) = tell(&events, &event) {
                    output::warn(&format!("`{}` does not take an answer: {error}", events.display()));
                }
            }
            running.fetch_sub(1, Ordering::AcqRel);
        });
    }
    Ok(())
}

/// The pipe in a request's `NOTIFY`, which is a path or begins with what kind of thing it is.
fn events(notify: &str) -> Option<PathBuf> {
    let path = notify.split_once("://").map_or(notify, |(_, path)| path);
    path.starts_with('/').then(|| path.into())
}

fn staged(socket: &Path, name: &str, wait: u64) -> Result<Answer, AskError> {
    Agent::connect(socket)?.ask(&Ask::Stage {
        name: name.to_owned(),
        path: None,
        deadline_s: wait,
    })
}

/// What XRootD is told, one line.
fn event(name: &str, staged: &Result<Answer, AskError>) -> String {
    match staged {
        Ok(Answer::Done) => format!("stage OK {name}\n"),
        Ok(Answer::Failed {
            reason: Reason::Unknown,
        }) => format!("stage ENOENT {name}\n"),
        Ok(Answer::Failed { reason }) => format!("stage BAD {name} {}\n", reason.text()),
        Ok(_) => format!("stage BAD {name} the name or place of the file is not taken\n"),
        Err(_) => format!("stage BAD {name} the agent does not answer\n"),
    }
}

/// Writes a line as a whole: others write to the same pipe. One that nobody reads is not waited for.
fn tell(events: &Path, event: &str) -> io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    let flags = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap_or(0);
    let mut pipe = OpenOptions::new().write(true).custom_flags(flags).open(events)?;
    let mut again = 0;
    loop {
        match pipe.write(event.as_bytes()) {
            Ok(_) => return Ok(()),
            // full: XRootD is slow to read
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && again < 600 => {
                again += 1;
                std::thread::sleep(Duration::from_millis(50));
            }
            Err(error) => return Err(error),
        }
    }
}

// --- prep -------------------------------------------------------------------------------------------------------------

/// `dicom-recall prep`: hands the request to the agent and ends at once, because XRootD runs a few of these at a time
/// and loses what it has to put off. Answers to `query` go to the client as they are printed.
///
/// # Errors
/// Where the agent does not take it; XRootD writes that into its log.
pub fn prep(args: &Prep) -> Result<(), Failure> {
    let socket = &args.socket.socket;
    let request = args.request.clone();
    let names: Vec<String> = args.names.iter().map(|name| without_more(name).to_owned()).collect();
    let answer = match args.operation.as_str() {
        "stage" | "prep" if args.write => {
            return Err(Failure::new(
                Code::NotAllowed,
                "nothing is written through the storage element",
            ));
        }
        "stage" | "prep" => ask(
            socket,
            &Ask::Prepare {
                request: Some(request),
                owner: None,
                files: names.into_iter().map(wish).collect(),
                priority: args.priority,
            },
        )?,
        "evict" => ask(socket, &Ask::Evict { names, force: false })?,
        "cancel" => {
            let names = Some(names).filter(|names| !names.is_empty());
            let owner = None;
            ask(socket, &Ask::Cancel { request, owner, names })?
        }
        "query" => return query(socket, &request, names),
        other => {
            let text = format!("`{other}` is none of stage, prep, evict, cancel and query");
            return Err(hydra_cli::command::usage_error(text));
        }
    };
    match answer {
        Answer::Done | Answer::Accepted { .. } | Answer::Evicted { .. } => Ok(()),
        other => Err(other_answer(other)),
    }
}

fn wish(name: String) -> Wish {
    Wish { name, lifetime_s: None }
}

fn query(socket: &Path, request: &str, names: Vec<String>) -> Result<(), Failure> {
    let mut agent = Agent::connect(socket).map_err(ask_failure)?;
    let (name, owner) = (request.to_owned(), None);
    let status = match agent.ask(&Ask::Request { request: name, owner }).map_err(ask_failure)? {
        Answer::Request { status } => Some(status),
        // it never came here, and every file of it says so
        Answer::Refused { .. } => None,
        other => return Err(other_answer(other)),
    };
    let names = match &status {
        Some(status) if names.is_empty() => status.files.iter().map(|file| file.name.clone()).collect(),
        _ => names,
    };
    let files = match agent.ask(&Ask::Stat { names }).map_err(ask_failure)? {
        Answer::Files { files } => files,
        other => return Err(other_answer(other)),
    };
    output::print_line(&query_answer(request, status.as_ref(), &files))
}

/// The shape that EOS and CTA answer in, and that gfal2 and FTS read; no blanks, for XRootD cuts long answers.
fn query_answer(request: &str, status: Option<&RequestStatus>, files: &[FileStatus]) -> String {
    let responses: Vec<serde_json::Value> = files
        .iter()
        .map(|file| {
            let mut of_request = status.iter().flat_map(|status| &status.files);
            let asked = of_request.find(|asked| asked.name == file.name);
            let time = status
                .filter(|_| asked.is_some())
                .map(|status| status.created_at.to_string());
            json!({
                "path": file.name,
                "path_exists": file.registered,
                "on_tape": file.registered,
                "online": file.on_disk,
                "requested": asked.is_some(),
                "has_reqid": asked.is_some(),
                "req_time": time.unwrap_or_default(),
                "error_text": asked.and_then(error_text).unwrap_or_default(),
            })
        })
        .collect();
    json!({ "request_id": request, "responses": responses }).to_string()
}

fn error_text(file: &RequestFile) -> Option<&'static str> {
    match file.progress {
        Progress::Failed => Some(file.reason.unwrap_or(Reason::Other).text()),
        Progress::Cancelled => Some(Reason::Cancelled.text()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(name: &str, size: Option<u64>) -> FileStatus {
        FileStatus {
            name: name.to_owned(),
            registered: true,
            size,
            sha256: None,
            registered_at: Some(1_700_000_000),
            on_disk: false,
            available: true,
            wanted: false,
            reason: None,
        }
    }

    #[test]
    fn a_stat_line_has_the_exact_size_or_none() {
        let line = "- rw-r--r-- 1 0 0 1700000000 1700000000 1700000000 525209 4096 1026";
        assert_eq!(stat_line(&status("/a", Some(525_209))), line);
        assert!(stat_line(&status("/a", None)).ends_with(" 0 4096 0"));
    }

    #[test]
    fn requests_on_the_queue_are_read_and_answered_as_they_were_written() {
        let line = "+ 1234:srv fifo:///var/adm/ofsEvents 0 r /eds/a b.eds\n";
        let asked = queued(line).unwrap();
        assert_eq!(asked.name, "/eds/a b.eds");
        assert_eq!(events(asked.notify), Some("/var/adm/ofsEvents".into()));
        assert_eq!(events("-"), None);
        assert_eq!(queued("- 1234:srv\n"), None);
        assert_eq!(queued("+ 1 2 3 4 "), None);
        let reason = Reason::Pacs;
        for (answer, text) in [
            (Answer::Done, "stage OK /a\n"),
            (Answer::Failed { reason }, "stage BAD /a the archive does not answer\n"),
            (
                Answer::Failed {
                    reason: Reason::Unknown,
                },
                "stage ENOENT /a\n",
            ),
        ] {
            assert_eq!(event("/a", &Ok(answer)), text);
        }
    }

    #[test]
    fn an_answer_to_a_query_says_what_was_never_asked_for() {
        let request = RequestStatus {
            request: "r".to_owned(),
            created_at: 5,
            files: vec![RequestFile {
                name: "/a".to_owned(),
                progress: Progress::Failed,
                reason: Some(Reason::Missing),
                on_disk: false,
                started_at: None,
                finished_at: None,
            }],
        };
        let files = [status("/a", None), status("/b", None)];
        let text = query_answer("r", Some(&request), &files);
        let answer: serde_json::Value = serde_json::from_str(&text).unwrap();
        let [a, b] = [&answer["responses"][0], &answer["responses"][1]];
        assert_eq!((&a["requested"], &a["req_time"]), (&json!(true), &json!("5")));
        assert_eq!(a["error_text"], Reason::Missing.text());
        assert_eq!(
            (&b["requested"], &b["online"], &b["error_text"]),
            (&json!(false), &json!(false), &json!(""))
        );
        assert!(query_answer("x", None, &files).contains("\"requested\":false"));
    }

    #[test]
    fn failures_are_written_where_xrootd_looks() {
        let folder = tempfile::tempdir().unwrap();
        let file = fail_file(folder.path(), Path::new("/data/eds/a")).unwrap();
        assert_eq!(file, folder.path().join("data/eds/a.fail"));
        write_failed(&file, true).unwrap();
        let modified = fs::metadata(&file).unwrap().modified().unwrap();
        assert_eq!(modified, SystemTime::UNIX_EPOCH + Duration::from_secs(2));
        remove_failed(Some(&file)).unwrap();
        remove_failed(Some(&file)).unwrap();
        for bad in ["data", "/data/../x", "/data/a\nb"] {
            assert!(fail_file(folder.path(), Path::new(bad)).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_clients_add_to_a_name_is_not_of_it() {
        assert_eq!(without_more("/eds/a?x=1"), "/eds/a");
        assert_eq!(without_more("/eds/a"), "/eds/a");
    }
}
