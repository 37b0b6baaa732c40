//! `mdm-get`: from names in the catalogue, or a query, to opened images: in a folder, on standard output, or in a
//! viewer or research PACS, which gets them from memory (`docs/src/commands/mdm-images.md`).

#![allow(
    missing_docs,
    reason = "a doc comment on a flattened group would become the help of the whole command"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{BufReader, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use clap::Parser;
use dicom_net::dataset::FileMeta;
use dicom_net::{AeTitle, Pacs, PacsOptions};
use eds::args::{Manners, Stores};
use eds::decrypt::{fetch_for_opening, open_failure, suite1};
use eds::session::overrides;
use eds::storage::get::Order;
use eds::storage::{Remote, args::Patience, failed};
use eds::voice::Voice;
use hydra_cli::command::{Example, usage_error};
use hydra_cli::output::counted;
use hydra_cli::progress::Progress;
use hydra_cli::{Code, Failure};
use hydra_core::sealed::sizes::plaintext_size;
use hydra_core::sealed::{Input, Output, RangeReader};
use mdm_catalog::LogicalName;
use mdm_catalog::client::{CatalogClient, CatalogError};
use mdm_catalog::wire::{Answer, Entry, Kind, MAX_ITEMS, Search, Status, Value};
use serde_json::json;
use storage_url::{Scheme, StorageUrl};
use zeroize::Zeroizing;

use crate::connection::{Catalog, entry_names};

/// How much of a plaintext is read at once.
const PIECE: usize = 4 << 20;
/// The name that we have towards other DICOM applications, unless told otherwise.
const OUR_TITLE: &str = "HYDRA";

/// Get images by their names in the catalogue, or by a query, and open them
///
/// FOLDER may be `-`, standard output, for one image. What is in FOLDER already, with the length and the identifier
/// that the catalogue says, is not got again.
#[derive(Debug, Parser)]
#[command(name = "mdm-get")]
pub struct Get {
    /// Files and directories of the catalogue, and last the folder, unless there is --to
    #[arg(value_name = "LFN… FOLDER", required_unless_present = "to")]
    pub operands: Vec<String>,
    /// Get what this query finds
    #[arg(long, value_name = "QUERY", requires = "from")]
    pub query: Option<String>,
    /// Where it searches
    #[arg(long, value_name = "DIR")]
    pub from: Option<String>,
    /// Send them there by C-STORE, out of memory: dicom://AET@HOST:PORT
    #[arg(long, value_name = "URL")]
    pub to: Option<String>,
    /// The name that we call ourselves by towards --to
    #[arg(long, value_name = "AET", default_value = OUR_TITLE, requires = "to")]
    pub ae_title: String,
    /// How many are got at once
    #[arg(short, long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u8).range(1..=64))]
    pub jobs: u8,
    /// Get everything, and replace files that are there
    #[arg(short, long)]
    pub force: bool,
    #[command(flatten)]
    pub catalog: Catalog,
    #[command(flatten)]
    pub patience: Patience,
    #[command(flatten)]
    pub stores: Stores,
    #[command(flatten)]
    pub manners: Manners,
}

/// Uses of `mdm-get`.
pub const EXAMPLES: &[Example] = &[
    Example {
        says: "Get and open what a query finds",
        command: "mdm-get --query \"modality = 'MR' AND age_group = '40-44'\" --from /myvo/images here",
    },
    Example {
        says: "Send a series to a viewer, out of memory",
        command: "mdm-get --to dicom://VIEWER@localhost:11112 /myvo/images/2.25.1/2.25.2",
    },
];

/// Where images go.
enum Place {
    Folder(PathBuf),
    Stdout,
    Pacs(Pacs),
}

/// One image to get.
struct Job {
    entry: Entry,
    /// Below the folder.
    relative: PathBuf,
}

/// What became of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Got {
    Now,
    Before,
}

/// `mdm-get`.
///
/// # Errors
/// The worst of what happened to single images, after the others were got.
pub fn get(args: &Get) -> Result<(), Failure> {
    let mut voice = Voice::new(&args.manners);
    let (names, place) = meant(args)?;
    voice.data_on_stdout = matches!(place, Place::Stdout);
    if voice.data_on_stdout && voice.json {
        return Err(usage_error("--json and the image cannot both go to standard output"));
    }
    let catalog = args.catalog.open()?;
    let (jobs, missing) = jobs(&catalog, args, &names)?;
    if jobs.is_empty() && missing.is_empty() {
        return Err(Failure::new(Code::Failed, "there is nothing of what was asked for"));
    }
    if voice.data_on_stdout && jobs.len() + missing.len() > 1 {
        return Err(usage_error("standard output takes one image, and this means several"));
    }
    if let Place::Folder(folder) = &place {
        std::fs::create_dir_all(folder).map_err(|error| cannot_make(folder, error))?;
    }
    let work = Work {
        args,
        voice,
        place,
        jobs,
        next: AtomicUsize::new(0),
        tally: Mutex::new(Tally::default()),
        bar: Mutex::new(None),
    };
    for error in missing {
        work.tally().failed(error.into());
    }
    work.run()
}

/// What is named, and where it goes.
fn meant(args: &Get) -> Result<(Vec<String>, Place), Failure> {
    let mut operands = args.operands.clone();
    let place = match &args.to {
        Some(to) => Place::Pacs(pacs(to, &args.ae_title)?),
        None => match operands.pop().as_deref() {
            Some("-") => Place::Stdout,
            Some(folder) => Place::Folder(PathBuf::from(folder)),
            None => return Err(usage_error("name the folder that they go to")),
        },
    };
    if operands.is_empty() && args.query.is_none() {
        return Err(usage_error("name what to get: LFN, or --query QUERY --from DIR"));
    }
    Ok((entry_names(&operands)?, place))
}

/// Reads `dicom://AET@HOST:PORT`.
fn pacs(url: &str, title: &str) -> Result<Pacs, Failure> {
    let wrong = || usage_error(format!("`{url}` is not dicom://AET@HOST:PORT"));
    let rest = url.strip_prefix("dicom://").ok_or_else(wrong)?.trim_end_matches('/');
    let (called, place) = rest.split_once('@').ok_or_else(wrong)?;
    let (host, port) = place.rsplit_once(':').ok_or_else(wrong)?;
    let port: u16 = port.parse().map_err(|_| wrong())?;
    let host = host.trim_matches(['[', ']']);
    if host.is_empty() || host.contains('/') {
        return Err(wrong());
    }
    let name = |text: &str| AeTitle::new(text).map_err(|error| usage_error(format!("`{text}`: {error}")));
    Ok(Pacs::new(PacsOptions::new(name(title)?, name(called)?, host, port)))
}

fn jobs(catalog: &CatalogClient, args: &Get, names: &[String]) -> Result<(Vec<Job>, Vec<CatalogError>), Failure> {
    let (mut jobs, mut missing) = (Vec::new(), Vec::new());
    let mut seen = BTreeSet::new();
    let mut places: BTreeMap<PathBuf, LogicalName> = BTreeMap::new();
    let mut add = |entry: Entry, base: &LogicalName, jobs: &mut Vec<Job>| -> Result<(), Failure> {
        if entry.kind == Kind::File && seen.insert(entry.path.clone()) {
            let relative = relative(&entry.path, base);
            if let Some(other) = places.insert(relative.clone(), entry.path.clone())
                && args.to.is_none()
            {
                let text = format!("`{other}` and `{}` would be one file", entry.path);
                return Err(usage_error(text).advise("a folder for each, or a directory above both"));
            }
            jobs.push(Job { entry, relative });
        }
        Ok(())
    };
    for (name, answer) in names.iter().zip(catalog.show(names)?) {
        match answer {
            Answer::Done(entry) if entry.kind == Kind::Directory => {
                for below in catalog.list_all(&entry.path, true) {
                    add(below?, &entry.path, &mut jobs)?;
                }
            }
            Answer::Done(entry) => {
                let base = entry.path.parent().unwrap_or_else(LogicalName::root);
                add(entry, &base, &mut jobs)?;
            }
            Answer::Problem(problem) => missing.push(CatalogError::refused(name, problem)),
        }
    }
    if let (Some(query), Some(from)) = (&args.query, &args.from) {
        let base = LogicalName::typed(from).map_err(|error| usage_error(format!("`{from}`: {error}")))?;
        for path in found(catalog, query, &base)?.chunks(MAX_ITEMS) {
            for answer in catalog.show(path)? {
                // what went meanwhile is no more found
                if let Answer::Done(entry) = answer {
                    add(entry, &base, &mut jobs)?;
                }
            }
        }
    }
    Ok((jobs, missing))
}

/// The names of what a query finds.
///
/// # Errors
/// [`CatalogError`]
pub(crate) fn found(catalog: &CatalogClient, query: &str, from: &LogicalName) -> Result<Vec<String>, CatalogError> {
    let search = Search {
        from: from.to_string(),
        query: query.to_owned(),
        columns: vec!["name".to_owned()],
        ..Search::default()
    };
    let mut names = Vec::new();
    for row in catalog.search(&search)? {
        if let Some(Value::Text(name)) = row?.into_iter().next() {
            names.push(name);
        }
    }
    Ok(names)
}

/// Where an image goes below the folder: as it lies below the directory, with the ending of an image.
fn relative(path: &LogicalName, base: &LogicalName) -> PathBuf {
    let base = if base.is_root() { "" } else { base.as_str() };
    let below = path.as_str().strip_prefix(base).unwrap_or(path.as_str());
    let below = below.trim_start_matches('/');
    let plain = below.strip_suffix(".eds").unwrap_or(below);
    if Path::new(plain).extension().is_some_and(|ending| ending == "dcm") {
        PathBuf::from(plain)
    } else {
        PathBuf::from(format!("{plain}.dcm"))
    }
}

/// The replicas that can be read, those that are likeliest to answer at once first.
fn readable(entry: &Entry) -> Vec<StorageUrl> {
    let mut urls: Vec<StorageUrl> = entry
        .replicas
        .iter()
        .filter_map(|url| StorageUrl::parse(url).ok())
        .collect();
    let is_nearline = entry.status == Some(Status::Nearline);
    urls.sort_by_key(|url| match url.scheme() {
        Scheme::File => 0,
        // its open waits until the file is there
        Scheme::Root if is_nearline => 1,
        Scheme::Https => 2,
        Scheme::Root => 3,
        _ => 4,
    });
    urls
}

/// The identifier that an image must have, where the catalogue says it.
pub(crate) fn expected(entry: &Entry) -> Option<&str> {
    match entry.attributes.get("instance_uid") {
        Some(Value::Text(uid)) => Some(uid),
        _ => None,
    }
}

fn cannot_make(path: &Path, error: std::io::Error) -> Failure {
    let text = format!("cannot make `{}`", path.display());
    Failure::new(Code::CannotCreate, eds::failure::Because::new(text, error))
}

#[derive(Default)]
struct Tally {
    now: usize,
    before: usize,
    failures: usize,
    worst: Option<Code>,
}

impl Tally {
    fn failed(&mut self, failure: Failure) {
        let is_worse = |worst| eds::failure::severity(failure.code) > eds::failure::severity(worst);
        if self.worst.is_none_or(is_worse) {
            self.worst = Some(failure.code);
        }
        self.failures += 1;
        let _ = hydra_cli::exit(Err(failure));
    }
}

struct Work<'a> {
    args: &'a Get,
    voice: Voice,
    place: Place,
    jobs: Vec<Job>,
    next: AtomicUsize,
    tally: Mutex<Tally>,
    bar: Mutex<Option<Progress>>,
}

impl Work<'_> {
    fn run(self) -> Result<(), Failure> {
        let is_silent = self.voice.quiet || self.voice.json || self.jobs.len() < 2;
        *self.bar.lock().unwrap_or_else(PoisonError::into_inner) =
            Some(Progress::count("images", self.jobs.len() as u64, is_silent));
        let workers = usize::from(self.args.jobs).min(self.jobs.len());
        std::thread::scope(|scope| {
            for _ in 0..workers {
                scope.spawn(|| self.work());
            }
        });
        drop(self.bar);
        let tally = self.tally.into_inner().unwrap_or_else(PoisonError::into_inner);
        let word = if matches!(self.place, Place::Pacs(_)) {
            "sent"
        } else {
            "got"
        };
        let already = match tally.before {
            0 => String::new(),
            before => format!(", {before} already there"),
        };
        self.voice
            .result(&format!("{word} {}{already}", counted(tally.now, "image")))?;
        match tally.worst {
            None => Ok(()),
            Some(code) => {
                let text = format!("{} not {word}", counted(tally.failures, "image"));
                Err(Failure::new(code, text))
            }
        }
    }

    fn tally(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Each worker has its own connections.
    fn work(&self) {
        let remote = Remote::open(&overrides(&self.args.stores), self.args.patience.idle());
        let remote = match remote {
            Ok(remote) => remote,
            Err(error) => {
                let mut tally = self.tally();
                // told once, by whoever comes first
                if tally.worst.is_none() {
                    tally.failed(error.into());
                }
                return;
            }
        };
        let mut storing = match &self.place {
            Place::Pacs(pacs) => Some(pacs.storing()),
            _ => None,
        };
        while let Some(job) = self.jobs.get(self.next.fetch_add(1, Ordering::Relaxed)) {
            let got = self.one(job, &remote, storing.as_mut());
            let path = &job.entry.path;
            let mut tally = self.tally();
            let told = match got {
                Ok(got) => {
                    match got {
                        Got::Now => tally.now += 1,
                        Got::Before => tally.before += 1,
                    }
                    let state = if got == Got::Now { "got" } else { "there" };
                    json!({ "state": state, "path": path, "file": self.file(job) })
                }
                Err(failure) => {
                    let line = json!({ "state": "failed", "path": path, "error": failure.error.to_string() });
                    let text = format!("`{path}`");
                    tally.failed(Failure {
                        error: Box::new(eds::failure::Because::new(text, failure.error)),
                        ..failure
                    });
                    line
                }
            };
            if let Err(failure) = self.voice.json(&told) {
                tally.failed(failure);
                self.next.store(self.jobs.len(), Ordering::Relaxed);
            }
            let done = tally.now + tally.before + tally.failures;
            drop(tally);
            if let Some(bar) = &*self.bar.lock().unwrap_or_else(PoisonError::into_inner) {
                bar.set(done as u64);
            }
        }
    }

    fn file(&self, job: &Job) -> Option<String> {
        match &self.place {
            Place::Folder(folder) => Some(folder.join(&job.relative).to_string_lossy().into_owned()),
            _ => None,
        }
    }

    fn one(&self, job: &Job, remote: &Remote, storing: Option<&mut dicom_net::Storing>) -> Result<Got, Failure> {
        let output = match &self.place {
            Place::Folder(folder) => {
                let path = folder.join(&job.relative);
                make_folders(folder, &job.relative)?;
                if let Some(bytes) = there(&path)?
                    && !self.args.force
                {
                    if is_right(&path, expected(&job.entry)) && plaintext_bytes(&job.entry, remote) == Some(bytes) {
                        return Ok(Got::Before);
                    }
                    let text = format!("`{}` is there, and differs or may differ", path.display());
                    return Err(Failure::new(Code::CannotCreate, text).advise("--force, or another folder"));
                }
                Some(Output::File(path))
            }
            // out of memory, so that nothing is written that another replica would have to follow
            Place::Stdout | Place::Pacs(_) => None,
        };
        let urls = readable(&job.entry);
        let Some((last, others)) = urls.split_last() else {
            let text = "it has no replica that can be read";
            return Err(Failure::new(Code::Failed, text).advise(format!("mdm-show {}", job.entry.path)));
        };
        let mut storing = storing;
        for url in others {
            match self.from(job, url, output.as_ref(), remote, storing.as_deref_mut()) {
                Ok(()) => return Ok(Got::Now),
                // another replica does not help whoever has no key
                Err(failure) if matches!(failure.code, Code::NotAllowed | Code::TryLater | Code::Config) => {
                    return Err(failure);
                }
                Err(failure) => self
                    .voice
                    .note(&format!("`{url}`: {}, trying another replica", failure.error)),
            }
        }
        self.from(job, last, output.as_ref(), remote, storing)?;
        Ok(Got::Now)
    }

    fn from(
        &self,
        job: &Job,
        url: &StorageUrl,
        output: Option<&Output>,
        remote: &Remote,
        storing: Option<&mut dicom_net::Storing>,
    ) -> Result<(), Failure> {
        // the catalogue says which key: a file under another one is not the image
        let key_id = job.entry.key_id.as_deref();
        let voice = Voice {
            quiet: self.voice.quiet || self.jobs.len() > 1,
            ..self.voice
        };
        let Some(output) = output else {
            let plain = open_in_memory(remote, url, key_id, None, voice)?;
            check(&plain, expected(&job.entry))?;
            return match storing {
                Some(storing) => {
                    let sent = storing.store(&mut plain.as_slice());
                    sent.map_err(|error| Failure::new(Code::Io, error))
                }
                None => hydra_cli::output::print(&plain),
            };
        };
        let order = Order {
            url,
            output,
            key_id,
            overwrite: self.args.force,
        };
        order.carry_out(remote, voice)?;
        if let Output::File(path) = output
            && !is_right(path, expected(&job.entry))
        {
            let _ = std::fs::remove_file(path);
            return Err(another());
        }
        Ok(())
    }
}

/// Makes the folders between FOLDER and a file. The catalogue names them, and a link at such a name leads elsewhere.
fn make_folders(folder: &Path, relative: &Path) -> Result<(), Failure> {
    let mut path = folder.to_owned();
    for part in relative.parent().into_iter().flat_map(Path::components) {
        path.push(part);
        match std::fs::symlink_metadata(&path) {
            Ok(metadata) if metadata.is_dir() => {}
            Ok(_) => return Err(in_the_way(&path, "is no folder")),
            Err(error) if error.kind() == ErrorKind::NotFound => match std::fs::create_dir(&path) {
                // another worker was first
                Err(error) if error.kind() == ErrorKind::AlreadyExists && is_folder(&path) => {}
                made => made.map_err(|error| cannot_make(&path, error))?,
            },
            Err(error) => return Err(cannot_make(&path, error)),
        }
    }
    Ok(())
}

fn is_folder(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_dir())
}

/// How long the file at a path is, where there is one. A link or a device is in the way: it would be written through.
fn there(path: &Path) -> Result<Option<u64>, Failure> {
    match std::fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_file() => Ok(Some(metadata.len())),
        Ok(_) => Err(in_the_way(path, "is no regular file")),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(cannot_make(path, error)),
    }
}

fn in_the_way(path: &Path, what: &str) -> Failure {
    Failure::new(Code::CannotCreate, format!("`{}` {what}", path.display())).advise("another folder")
}

/// How long an image is once it is opened: as the catalogue or a storage element says of its sealed file.
fn plaintext_bytes(entry: &Entry, remote: &Remote) -> Option<u64> {
    let stat = |url: StorageUrl| remote.session.wait(remote.storage.stat(&url)).ok()?.bytes;
    let sealed = entry.size.or_else(|| readable(entry).into_iter().find_map(stat))?;
    plaintext_size(sealed).ok()
}

fn another() -> Failure {
    Failure::new(
        Code::Damaged,
        "what is stored there is another image than the catalogue says",
    )
}

/// Whether a file is the image of that identifier; any image, where none is known.
fn is_right(path: &Path, uid: Option<&str>) -> bool {
    let meta = File::open(path)
        .ok()
        .and_then(|file| FileMeta::read(BufReader::new(file)).ok());
    match (meta, uid) {
        (Some((meta, _)), Some(uid)) => meta.instance.as_str() == uid,
        (Some(_), None) => true,
        (None, _) => false,
    }
}

/// Whether an opened file is the image of that identifier; any image, where none is known.
pub(crate) fn check(plain: &[u8], uid: Option<&str>) -> Result<(), Failure> {
    let (meta, _) = FileMeta::read(plain).map_err(|error| Failure::new(Code::Damaged, error))?;
    if uid.is_some_and(|uid| meta.instance.as_str() != uid) {
        return Err(another());
    }
    Ok(())
}

/// What a file that somebody else named may cost who looks into it.
#[derive(Clone, Copy)]
pub(crate) struct Bounds {
    /// The most bytes.
    pub(crate) bytes: usize,
    /// The longest time.
    pub(crate) time: Duration,
}

/// Gets a sealed file and opens it without putting it anywhere.
pub(crate) fn open_in_memory(
    remote: &Remote,
    url: &StorageUrl,
    key_id: Option<&str>,
    bounds: Option<Bounds>,
    voice: Voice,
) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let most = bounds.map_or(usize::MAX, |bounds| bounds.bytes);
    let download = async {
        let mut download = remote.storage.get(url, 0).await?;
        let mut sealed = Vec::new();
        while let Some(bytes) = download.chunk().await? {
            if sealed.len() + bytes.len() > most {
                return Ok(None);
            }
            sealed.extend_from_slice(&bytes);
        }
        Ok::<_, storage_url::StorageError>(Some(sealed))
    };
    let sealed = remote.session.wait(async {
        match bounds {
            Some(bounds) => tokio::time::timeout(bounds.time, download).await,
            None => Ok(download.await),
        }
    });
    let late = |_| Failure::new(Code::TryLater, "it does not come in time");
    let sealed = sealed.map_err(late)?.map_err(failed)?;
    let sealed = sealed.ok_or_else(|| Failure::new(Code::Damaged, format!("it has more than {most} bytes")))?;
    let name = Input::File(url.to_string().into());
    let reader = RangeReader::open(sealed.as_slice(), name).map_err(open_failure)?;
    let fetched = fetch_for_opening(&remote.session, key_id, reader.header(), voice)?;
    let reader = reader.unlock(&suite1(&fetched)?).map_err(open_failure)?;
    let bytes = usize::try_from(reader.plaintext_bytes()).unwrap_or(usize::MAX);
    let mut plain = Zeroizing::new(Vec::with_capacity(bytes));
    while plain.len() < bytes {
        let piece = reader.read(plain.len() as u64, PIECE).map_err(open_failure)?;
        if piece.is_empty() {
            break;
        }
        plain.extend_from_slice(&piece);
    }
    // that this is its end is verified too
    reader.read(plain.len() as u64, 1).map_err(open_failure)?;
    Ok(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_lie_in_the_folder_as_below_their_directory() {
        let name = |text| LogicalName::new(text).unwrap();
        let at = |path, base| relative(&name(path), &name(base)).to_string_lossy().into_owned();
        assert_eq!(at("/myvo/images/1/2/3", "/myvo/images"), "1/2/3.dcm");
        assert_eq!(at("/myvo/images/1/2/3.dcm.eds", "/myvo/images/1/2"), "3.dcm");
        assert_eq!(at("/myvo/3.dcm", "/"), "myvo/3.dcm");
        // identifiers have dots, and end in no ending
        assert_eq!(at("/myvo/2.25.17", "/myvo"), "2.25.17.dcm");
    }

    #[test]
    fn nothing_is_written_through_links_and_into_what_is_no_folder() {
        let folder = tempfile::tempdir().unwrap();
        let (out, elsewhere) = (folder.path().join("out"), folder.path().join("elsewhere"));
        std::fs::create_dir_all(out.join("1")).unwrap();
        std::fs::write(&elsewhere, "mine").unwrap();
        std::os::unix::fs::symlink(&elsewhere, out.join("1/link.dcm")).unwrap();
        std::os::unix::fs::symlink(folder.path(), out.join("2")).unwrap();
        std::fs::write(out.join("1/3.dcm"), "abc").unwrap();
        assert_eq!(there(&out.join("1/3.dcm")).unwrap(), Some(3));
        assert_eq!(there(&out.join("1/4.dcm")).unwrap(), None);
        assert_eq!(there(&out.join("1/link.dcm")).unwrap_err().code, Code::CannotCreate);
        let made = |relative: &str| make_folders(&out, Path::new(relative));
        assert!(made("1/9/3.dcm").is_ok() && made("3.dcm").is_ok());
        assert!(out.join("1/9").is_dir());
        for taken in ["2/3.dcm", "2/5/3.dcm", "1/3.dcm/4.dcm"] {
            assert_eq!(made(taken).unwrap_err().code, Code::CannotCreate, "{taken}");
        }
        assert!(!folder.path().join("5").exists());
    }

    #[test]
    fn applications_are_named_by_title_host_and_port() {
        assert!(pacs("dicom://VIEWER@localhost:11112", OUR_TITLE).is_ok());
        assert!(pacs("dicom://VIEWER@[::1]:11112/", OUR_TITLE).is_ok());
        for wrong in [
            "dicom://localhost:1",
            "http://A@h:1",
            "dicom://A@h",
            "dicom://A@h:x",
            "dicom://A@:1",
            "",
        ] {
            assert_eq!(
                pacs(wrong, OUR_TITLE).err().map(|failure| failure.code),
                Some(Code::Usage),
                "{wrong}"
            );
        }
    }
}
