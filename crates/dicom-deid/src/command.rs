//! The command `dicom-deid` (`docs/src/commands/dicom-deid.md`).

use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, BufWriter, IsTerminal, Read, Seek, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use eds::args::{Manners, Stores};
use eds::session::Session;
use eds::voice::Voice;
use eds::{failure, operands};
use hydra_cli::command::{Example, usage_error};
use hydra_cli::secret_input::{self, SecretInputError, Source};
use hydra_cli::signals::on_signal;
use hydra_cli::{Code, Failure};
use hydra_core::keystore::hydra::Purpose;
use hydra_core::sealed::{Batch, Input, InputError, NewFile, Output, OutputError, remove_temporary_files, spool};
use serde_json::{Value as Json, json};

use crate::side_by_side::in_order;
use crate::{Finding, Options, Profile, ProfileOption, Refusal, RefusalKind, Report, Secret, Tag, apart};

/// How large a secret may be.
const MAX_SECRET_BYTES: usize = 4096;
const PIECE: usize = 256 << 10;
const STUDY: Tag = Tag(0x0020, 0x000D);
const SERIES: Tag = Tag(0x0020, 0x000E);
const SOP: Tag = Tag(0x0008, 0x0018);
/// Of a folder, how many objects are worked on or wait for their names: each has a file open.
const WINDOW: usize = 32;

const EXAMPLES: &[Example] = &[
    Example {
        says: "De-identify one file; the secret is the key of this id, fetched from the stores",
        command: "dicom-deid --secret-key /myvo/deid/2026 scan.dcm clean.dcm",
    },
    Example {
        says: "A whole folder, dates moved, and what was taken out into a file of its own",
        command: "dicom-deid --secret-key /myvo/deid/2026 --option retain-modified-dates --private-out private.jsonl IN OUT",
    },
    Example {
        says: "In a pipe, with a secret from a file: for tests",
        command: "dicom-deid --secret-file secret.bin - - < scan.dcm > clean.dcm",
    },
    Example {
        says: "What is left in what some other tool wrote",
        command: "dicom-deid check scan.dcm clean.dcm",
    },
    Example {
        says: "What would happen to each attribute, and by which rule",
        command: "dicom-deid explain scan.dcm",
    },
];

/// Take what identifies people out of DICOM objects
///
/// The Basic Application Level Confidentiality Profile of PS3.15 Annex E and its options. Nothing is written for an
/// object that is refused. Of a folder IN every file is taken, and OUT gets `STUDY/SERIES/INSTANCE.dcm` by the new
/// UIDs.
#[derive(Debug, Parser)]
#[command(
    name = "dicom-deid",
    long_version = concat!("(PS3.15 2026c, profile 3) ", env!("CARGO_PKG_VERSION")),
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true
)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Verb>,
    #[command(flatten)]
    work: Work,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Say what identifying is left in OUT, which was made of IN by any tool
    Check(Check),
    /// Print each attribute of a file, the rule for it, and what would happen to it
    Explain(Explain),
}

#[derive(Debug, Args)]
struct Work {
    #[command(flatten)]
    profile: ProfileArguments,
    /// The key whose 32 bytes are the secret behind UIDs, pseudonyms and dates, fetched from the stores
    #[arg(
        long,
        value_name = "KEY_ID",
        conflicts_with = "secret_file",
        required_unless_present = "secret_file"
    )]
    secret_key: Option<String>,
    /// A file of 32 to 4096 bytes that is the secret: for tests
    #[arg(long, value_name = "FILE")]
    secret_file: Option<PathBuf>,
    /// Append what was taken out, and how it links, to FILE: one JSON object for each file, for the private side alone
    #[arg(long, value_name = "FILE")]
    private_out: Option<PathBuf>,
    /// What to de-identify: a file, a folder, `-` for standard input
    #[arg(value_name = "IN", required = true)]
    input: Option<PathBuf>,
    /// Where to: a file that is not there yet, a folder for a folder, `-` for standard output
    #[arg(value_name = "OUT", required = true)]
    output: Option<PathBuf>,
    #[command(flatten)]
    stores: Stores,
    #[command(flatten)]
    manners: Manners,
}

#[derive(Debug, Args)]
struct ProfileArguments {
    /// An option of the profile, once for each
    #[arg(long = "option", value_name = "OPTION", value_parser = option_names())]
    options: Vec<String>,
    /// Write what a person should look at first, flagged in the report, in place of refusing it
    #[arg(long)]
    flag_instead: bool,
}

fn option_names() -> clap::builder::PossibleValuesParser {
    ProfileOption::all().map(ProfileOption::name).collect::<Vec<_>>().into()
}

#[derive(Debug, Args)]
struct Check {
    /// The object as it was
    #[arg(value_name = "IN")]
    input: PathBuf,
    /// The object as it is
    #[arg(value_name = "OUT")]
    output: PathBuf,
    #[command(flatten)]
    manners: Manners,
}

#[derive(Debug, Args)]
struct Explain {
    #[command(flatten)]
    profile: ProfileArguments,
    /// The file
    file: PathBuf,
    #[command(flatten)]
    manners: Manners,
}

/// What was left in an output.
#[derive(Debug, thiserror::Error)]
#[error("{count} attributes of {output} should not be as they are")]
struct Left {
    count: usize,
    output: Input,
}

/// Some of many objects.
#[derive(Debug, thiserror::Error)]
#[error("{refused} of {total} objects were refused, {failed} failed")]
struct NotAll {
    refused: u64,
    failed: u64,
    total: u64,
}

/// A refusal with the file that it is about.
#[derive(Debug, thiserror::Error)]
#[error("cannot {what} {input}")]
struct Refused {
    what: &'static str,
    input: Input,
    #[source]
    source: Refusal,
}

/// A file beside the objects that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("cannot {what} `{}`", path.display())]
struct Beside {
    what: &'static str,
    path: PathBuf,
    #[source]
    source: io::Error,
}

/// The whole of the program.
pub fn main() -> ExitCode {
    hydra_cli::harden();
    hydra_cli::command::run(EXAMPLES, |arguments: Arguments| match arguments.command {
        None => run(&arguments.work),
        Some(Verb::Check(check)) => self::check(&check),
        Some(Verb::Explain(explain)) => self::explain(&explain),
    })
}

fn run(work: &Work) -> Result<(), Failure> {
    let (Some(input), Some(output)) = (&work.input, &work.output) else {
        return Err(usage_error("IN and OUT are needed"));
    };
    let mut voice = Voice::new(&work.manners);
    let options = work.profile.options()?;
    let is_folder = input.as_os_str() != "-" && input.is_dir();
    let output = if output.as_os_str() == "-" {
        Output::Stdout
    } else {
        Output::File(output.clone())
    };
    if is_folder && output == Output::Stdout {
        return Err(usage_error("many objects cannot go to standard output"));
    }
    let to = match &output {
        Output::Stdout => Path::new("/dev/stdout"),
        Output::File(path) => path,
    };
    keep_apart(input, to, is_folder, work.private_out.as_deref())?;
    if output == Output::Stdout {
        if io::stdout().is_terminal() {
            return Err(usage_error(
                "a terminal cannot show an object: name a file, or send it to a pipe",
            ));
        }
        voice.data_on_stdout = true;
        voice.json = false;
    }
    if !is_folder {
        // before the stores are asked in vain
        output.check(false).map_err(output_failure)?;
    }
    let _cleaning = on_signal(remove_temporary_files).ok();
    let job = Job {
        profile: Profile::new(options, &secret(work, voice)?),
        private: work.private_out.as_deref().map(Private::open).transpose()?,
        voice,
    };
    match (is_folder, output) {
        (true, Output::File(folder)) => job.folder(input, &folder),
        (_, output) => {
            let input = input_of(input);
            let report = job.one(&input, &output)?;
            job.tell(&input, &output, &report)
        }
    }
}

/// Refuses what would mix the private half, or what comes, with what goes out.
fn keep_apart(input: &Path, output: &Path, is_folder: bool, private: Option<&Path>) -> Result<(), Failure> {
    if is_folder && apart::is_same(input, output) {
        return Err(usage_error("IN and OUT are the same folder"));
    }
    let Some(private) = private else { return Ok(()) };
    if apart::is_same(private, input) {
        return Err(usage_error("the private half cannot go into IN"));
    }
    let is_out = if is_folder {
        apart::is_inside(private, output)
    } else {
        apart::is_same(private, output)
    };
    if is_out {
        return Err(usage_error("the private half must not be where the objects go")
            .advise("a folder that nobody but you can read"));
    }
    Ok(())
}

fn input_of(path: &Path) -> Input {
    if path.as_os_str() == "-" {
        Input::Stdin
    } else {
        Input::File(path.to_owned())
    }
}

impl ProfileArguments {
    fn options(&self) -> Result<Options, Failure> {
        let named: Result<Vec<ProfileOption>, _> = self.options.iter().map(|name| name.parse()).collect();
        let named = named.map_err(|error: crate::UnknownOption| usage_error(error.to_string()))?;
        let mut options = Options::new(named).map_err(|error| usage_error(error.to_string()))?;
        options.flag_instead = self.flag_instead;
        Ok(options)
    }
}

/// The bytes behind everything that is derived. A key of the stores is fetched as for sealing: the caller may read it.
fn secret(work: &Work, voice: Voice) -> Result<Secret, Failure> {
    if let Some(path) = &work.secret_file {
        voice.warning("a secret in a file is for tests: it is in no backup, and shared with nobody");
        let is_open = |found: &std::fs::Metadata| found.is_file() && found.permissions().mode() & 0o077 != 0;
        if path.metadata().is_ok_and(|found| is_open(&found)) {
            voice.warning(&format!("`{}` can be read by others than you", path.display()));
        }
        let read = secret_input::read_all(&Source::File(path.clone()), MAX_SECRET_BYTES);
        let bytes = read.map_err(|error| match error {
            SecretInputError::TooLong { .. } => Failure::new(Code::Config, error),
            error => error.into(),
        })?;
        return Secret::new(&bytes).map_err(|error| Failure::new(Code::Config, error));
    }
    let typed = work.secret_key.as_deref().unwrap_or_default();
    let key_ids = operands::meant_key_ids(typed).map_err(|error| operands::bad_key_id(typed, error))?;
    let session = Session::open(&work.stores)?;
    let fetched = session.fetch(&key_ids, Purpose::Seal).map_err(failure::fetch)?;
    let key = fetched.suite1().ok_or_else(|| {
        usage_error(format!(
            "key `{typed}` is of one of the original's ciphers, and no secret"
        ))
        .advise("eds-key-register KEY_ID")
    })?;
    Secret::new(key.expose()).map_err(|error| Failure::new(Code::Failed, error))
}

/// A new object that has no name yet.
type Made = Result<(NewFile, Report), Failure>;

/// A new object where it is.
type Placed = Result<(PathBuf, Report), Failure>;

/// Everything that one call needs for each of its objects.
struct Job {
    profile: Profile,
    private: Option<Private>,
    voice: Voice,
}

/// Where what identifies people goes.
struct Private {
    path: PathBuf,
    file: File,
}

impl Private {
    fn open(path: &Path) -> Result<Self, Failure> {
        let file = OpenOptions::new().append(true).create(true).mode(0o600).open(path);
        let claimed = file.and_then(|file| apart::claim(&file, path).map(|()| file));
        match claimed {
            Ok(file) => Ok(Self {
                path: path.to_owned(),
                file,
            }),
            Err(source) => Err(beside("write", path, source)),
        }
    }

    /// One line.
    fn add(&self, value: &Json) -> Result<(), Failure> {
        let written = (&self.file).write_all(format!("{value}\n").as_bytes());
        written.map_err(|source| self.failure(source))
    }

    /// What was added is on disk before an object appears: an output that nobody can link is worth less than none.
    fn flush(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn failure(&self, source: io::Error) -> Failure {
        beside("write", &self.path, source)
    }
}

fn beside(what: &'static str, path: &Path, source: io::Error) -> Failure {
    let path = path.to_owned();
    let code = if what == "make" { Code::CannotCreate } else { Code::Io };
    Failure::new(code, Beside { what, path, source })
}

impl Job {
    /// One object to one place.
    fn one(&self, input: &Input, output: &Output) -> Result<Report, Failure> {
        let path = match output {
            Output::File(path) if !path.exists() => path,
            _ => return self.direct(input, output),
        };
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let (new, report) = self.make(input, folder.unwrap_or(Path::new(".")))?;
        self.link(&report)?;
        new.publish(path).map_err(output_failure)?;
        Ok(report)
    }

    /// To what is no regular file: only once the object is known to be whole.
    fn direct(&self, input: &Input, output: &Output) -> Result<Report, Failure> {
        let mut file = spool(output).map_err(output_failure)?;
        let report = self.deidentify(input, &file)?;
        self.link(&report)?;
        file.rewind()
            .map_err(|source| output_failure(write_error(output, source)))?;
        let copied = match output {
            Output::Stdout => io::copy(&mut file, &mut io::stdout().lock()).map(drop),
            Output::File(path) => {
                let to = OpenOptions::new().write(true).open(path);
                // it may have been made only since it was looked for
                if to
                    .as_ref()
                    .is_ok_and(|to| to.metadata().is_ok_and(|found| found.is_file()))
                {
                    return Err(output_failure(OutputError::Exists { output: output.clone() }));
                }
                to.and_then(|mut to| io::copy(&mut file, &mut to).map(drop))
            }
        };
        match (copied, output) {
            (Err(error), Output::Stdout) => hydra_cli::output::forgive_broken_pipe(Err(error))?,
            (Err(error), _) => return Err(output_failure(write_error(output, error))),
            _ => {}
        }
        Ok(report)
    }

    /// Every file of a folder, each by itself: side by side, and told in order.
    fn folder(&self, input: &Path, output: &Path) -> Result<(), Failure> {
        let (mut refused, mut failed, mut worst) = (0, 0, Code::Damaged);
        std::fs::create_dir_all(output).map_err(|source| beside("make", output, source))?;
        let inside = output.canonicalize().map_err(|source| beside("read", output, source))?;
        let inputs: Vec<Input> = files_under(input, &inside)?.into_iter().map(Input::File).collect();
        if inputs.is_empty() {
            self.voice
                .warning(&format!("0 objects: `{}` holds no files", input.display()));
        }
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        // the rest of what was begun: what is there already is not worked on again
        let is_begun = std::fs::read_dir(output).is_ok_and(|mut entries| entries.next().is_some());
        let make = |input: &Input| {
            if is_begun {
                self.refuse_existing(input, output)?;
            }
            self.make(input, output)
        };
        in_order(&inputs, threads, WINDOW, make, |made| {
            for (input, placed) in self.place_all(made, output) {
                let told = placed.and_then(|(path, report)| self.tell(input, &Output::File(path), &report));
                let Err(failure) = told else { continue };
                match failure.code {
                    Code::Damaged => refused += 1,
                    other => {
                        failed += 1;
                        worst = other;
                    }
                }
                for line in failure.lines() {
                    hydra_cli::output::tell(&line);
                }
                let why = why(&failure);
                self.voice
                    .json(&json!({ "input": input_json(input), "refused": why }))?;
            }
            Ok::<(), Failure>(())
        })?;
        if refused + failed == 0 {
            return Ok(());
        }
        let total = inputs.len() as u64;
        Err(Failure::new(worst, NotAll { refused, failed, total }))
    }

    /// Gives objects their names, flushed together; answers for each.
    fn place_all<'i>(&self, made: Vec<(&'i Input, Made)>, folder: &Path) -> Vec<(&'i Input, Placed)> {
        let (batch, mut names) = (Batch::new(), HashSet::new());
        let mut staged: Vec<(&Input, Placed)> = Vec::with_capacity(made.len());
        for (input, made) in made {
            let one = made.and_then(|(new, report)| {
                let path = self.path_of(&report, folder)?;
                // the private half says nothing of what is not written
                refuse_if_there(&path)?;
                if !names.insert(path.clone()) {
                    return Err(exists(&path));
                }
                if let Some(private) = &self.private {
                    private.add(&report.to_private_json())?;
                }
                new.publish_in(&path, &batch);
                Ok((path, report))
            });
            staged.push((input, one));
        }
        let done = staged.iter_mut().map(|(_, one)| one).filter(|one| one.is_ok());
        if let Some(private) = &self.private
            && let Err(error) = private.flush()
        {
            // what is not committed leaves nothing
            for one in done {
                let error = io::Error::new(error.kind(), error.to_string());
                *one = Err(private.failure(error));
            }
            return staged;
        }
        for (one, (_, named)) in done.zip(batch.commit()) {
            if let Err(error) = named {
                *one = Err(output_failure(error));
            }
        }
        staged
    }

    /// Refuses what is there already, as far as its header tells; what else is wrong is told by the work.
    fn refuse_existing(&self, input: &Input, folder: &Path) -> Result<(), Failure> {
        let Ok(header) = self.profile.header(open(input)?) else {
            return Ok(());
        };
        let uid = |tag| header.after().text(tag);
        let (study, series, sop) = (uid(STUDY), uid(SERIES), uid(SOP));
        refuse_if_there(&path_in(
            folder,
            study.as_deref(),
            series.as_deref(),
            &sop.unwrap_or_default(),
        ))
    }

    /// Where an object goes, in folders that are there now.
    fn path_of(&self, report: &Report, folder: &Path) -> Result<PathBuf, Failure> {
        let new = &report.new;
        let path = path_in(folder, new.study.as_deref(), new.series.as_deref(), &new.sop);
        let place = path.parent().unwrap_or(folder);
        std::fs::create_dir_all(place).map_err(|source| beside("make", place, source))?;
        Ok(path)
    }

    fn make(&self, input: &Input, folder: &Path) -> Made {
        let new = NewFile::under(folder).map_err(output_failure)?;
        let report = self.deidentify(input, new.file())?;
        Ok((new, report))
    }

    fn deidentify(&self, input: &Input, output: &File) -> Result<Report, Failure> {
        let reader = open(input)?;
        let writer = BufWriter::with_capacity(PIECE, output);
        self.profile
            .deidentify(reader, writer)
            .map_err(|refusal| refusal_failure("de-identify", input, refusal))
    }

    fn link(&self, report: &Report) -> Result<(), Failure> {
        match &self.private {
            Some(private) => {
                private.add(&report.to_private_json())?;
                private.flush().map_err(|error| private.failure(error))
            }
            None => Ok(()),
        }
    }

    fn tell(&self, input: &Input, output: &Output, report: &Report) -> Result<(), Failure> {
        for flag in &report.flags {
            self.voice.warning(&format!("{output}: {flag}"));
        }
        self.voice.result(&format!("{input} -> {output}"))?;
        let mut json = report.to_json();
        json["input"] = input_json(input);
        json["output"] = match output {
            Output::Stdout => Json::Null,
            Output::File(path) => path.to_string_lossy().into(),
        };
        self.voice.json(&json)
    }
}

fn input_json(input: &Input) -> Json {
    match input {
        Input::Stdin => Json::Null,
        Input::File(path) => path.to_string_lossy().into(),
    }
}

/// The name of a refusal for programs; of any other failure its code.
fn why(failure: &Failure) -> String {
    if let Some(OutputError::Exists { .. }) = failure.error.downcast_ref::<OutputError>() {
        return "exists".to_owned();
    }
    match failure.error.downcast_ref::<Refused>() {
        Some(refused) => refused.source.name().to_owned(),
        None => format!("exit-code-{}", failure.code as u8),
    }
}

/// Where an object of these new UIDs goes.
fn path_in(folder: &Path, study: Option<&str>, series: Option<&str>, sop: &str) -> PathBuf {
    let part = |uid: Option<&str>| safe_name(uid.unwrap_or("none"));
    let place = folder.join(part(study)).join(part(series));
    place.join(format!("{}.dcm", safe_name(sop)))
}

fn refuse_if_there(path: &Path) -> Result<(), Failure> {
    match path.symlink_metadata() {
        Ok(_) => Err(exists(path)),
        Err(_) => Ok(()),
    }
}

fn exists(path: &Path) -> Failure {
    let output = Output::File(path.to_owned());
    output_failure(OutputError::Exists { output })
}

/// A UID as a file's name: retained ones come from outside.
fn safe_name(uid: &str) -> String {
    let plain = uid.len() <= 64 && uid.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'.');
    if plain && !uid.is_empty() && !uid.starts_with('.') {
        uid.to_owned()
    } else {
        "unnamed".to_owned()
    }
}

/// The files under a folder in the order of their names, links to folders and `except` aside.
fn files_under(folder: &Path, except: &Path) -> Result<Vec<PathBuf>, Failure> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        let failed = |source| beside("read", &folder, source);
        if folder.canonicalize().is_ok_and(|path| path == except) {
            continue;
        }
        for entry in std::fs::read_dir(&folder).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let kind = entry.file_type().map_err(failed)?;
            if kind.is_dir() {
                folders.push(entry.path());
            } else if kind.is_file() || kind.is_symlink() && entry.path().is_file() {
                files.push(entry.path());
            }
        }
    }
    files.sort();
    Ok(files)
}

fn open(input: &Input) -> Result<Box<dyn Read>, Failure> {
    let failed = |error| Failure::new(Code::Io, error);
    match input {
        Input::Stdin => Ok(Box::new(io::stdin().lock())),
        Input::File(path) => {
            let file = File::open(path).map_err(|source| {
                failed(InputError::Open {
                    input: input.clone(),
                    source,
                })
            })?;
            if file.metadata().is_ok_and(|metadata| metadata.is_dir()) {
                return Err(failed(InputError::Directory { input: input.clone() }));
            }
            Ok(Box::new(BufReader::with_capacity(PIECE, file)))
        }
    }
}

fn write_error(output: &Output, source: io::Error) -> OutputError {
    OutputError::Write {
        output: output.clone(),
        source,
    }
}

fn output_failure(error: OutputError) -> Failure {
    let code = match &error {
        OutputError::Write { .. } => Code::Io,
        _ => Code::CannotCreate,
    };
    Failure::new(code, error)
}

fn refusal_failure(what: &'static str, input: &Input, source: Refusal) -> Failure {
    let code = match source.kind() {
        RefusalKind::Io => Code::Io,
        RefusalKind::Object => Code::Damaged,
    };
    let advice = match &source {
        Refusal::Review(_) => Some("look at it, then: dicom-deid --flag-instead"),
        Refusal::StructuredContent => Some("dicom-deid --option clean-structured-content"),
        _ => None,
    };
    let failure = Failure::new(
        code,
        Refused {
            what,
            input: input.clone(),
            source,
        },
    );
    advice.into_iter().fold(failure, Failure::advise)
}

fn check(arguments: &Check) -> Result<(), Failure> {
    let voice = Voice::new(&arguments.manners);
    let (input, output) = (input_of(&arguments.input), input_of(&arguments.output));
    let findings = crate::check(open(&input)?, open(&output)?).map_err(|refusal| {
        // which of the two it is, both are the user's to know
        refusal_failure("compare", &output, refusal)
    })?;
    for finding in &findings {
        let Finding { path, keyword, what } = finding;
        voice.result(&format!("{path} {}: {what}", keyword.unwrap_or("-")))?;
        voice.json(&json!({ "path": path, "keyword": keyword, "what": what }))?;
    }
    if findings.is_empty() {
        voice.result("nothing found")?;
        return Ok(());
    }
    let count = findings.len();
    Err(Failure::new(Code::Damaged, Left { count, output }))
}

fn explain(arguments: &Explain) -> Result<(), Failure> {
    let voice = Voice::new(&arguments.manners);
    let options = arguments.profile.options()?;
    let input = input_of(&arguments.file);
    // no derived value is shown, so any secret does
    let secret = Secret::new(&[0; 32]).map_err(|error| Failure::new(Code::Failed, error))?;
    let lines = crate::explain(&Profile::new(options, &secret), open(&input)?)
        .map_err(|refusal| refusal_failure("explain", &input, refusal))?;
    for line in lines {
        let keyword = line.tag.keyword();
        voice.result(&format!(
            "{:8} {} {} {} ({})",
            line.outcome.name(),
            line.path,
            line.vr,
            keyword.unwrap_or("-"),
            line.rule
        ))?;
        voice.json(&json!({
            "path": line.path,
            "keyword": keyword,
            "vr": line.vr.to_string(),
            "outcome": line.outcome.name(),
            "rule": line.rule,
        }))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uid_from_outside_makes_no_path() {
        for bad in ["../../etc", ".", "a/b", "", "x\0"] {
            let name = safe_name(bad);
            assert!(name == "unnamed" || name.is_empty(), "{bad}");
        }
        assert_eq!(safe_name("2.25.1"), "2.25.1");
    }

    #[test]
    fn the_edition_in_the_version_is_that_of_the_tables() {
        use clap::CommandFactory;
        let version = Arguments::command().render_long_version();
        assert!(version.contains(crate::EDITION), "{version}");
        assert!(
            version.contains(&format!("profile {}", crate::PROFILE_VERSION)),
            "{version}"
        );
    }
}
