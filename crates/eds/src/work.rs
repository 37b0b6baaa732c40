//! Running the jobs of a plan: one file with a progress bar, or many side by side, flushed in batches.

use std::collections::HashMap;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use hydra_cli::progress::Progress;
use hydra_cli::signals::{OnSignal, on_signal};
use hydra_cli::{Code, Failure};
use hydra_core::sealed::{self, Batch, Input, InputError, OpenError, Output, OutputError, Report, SealError, Trouble};
use serde_json::{Value, json};

use crate::failure::{Because, severity};
use crate::operands::{Job, Plan};
use crate::voice::Voice;

/// Outputs of one batch: each keeps a file open until the batch is flushed.
const BATCH: usize = 64;

/// What every job of a command gets from outside: how to write, where to say how far it is.
pub(crate) struct Way<'a> {
    /// Threads for one file.
    pub(crate) threads: usize,
    /// Where outputs wait to be flushed together.
    pub(crate) batch: Option<&'a Batch>,
    /// Called with the progress of a single file.
    pub(crate) progress: Option<&'a (dyn Fn(sealed::Progress) + Sync)>,
}

/// What came of one job.
pub(crate) type Outcome = Result<Report, Failure>;

/// What can be told before a key is fetched or made: an input that is not there, an output that is in the way.
pub(crate) fn preflight(job: &Job, overwrite: bool) -> Result<(), Failure> {
    if let Input::File(path) = &job.input
        && let Err(source) = std::fs::metadata(path)
    {
        let error = InputError::Open {
            input: job.input.clone(),
            source,
        };
        return Err(seal_failure(SealError::Input(error)));
    }
    if let Output::File(path) = &job.output
        && !overwrite
        && std::fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_file())
    {
        let error = OutputError::Exists {
            output: job.output.clone(),
        };
        return Err(seal_failure(SealError::Output(error)));
    }
    Ok(())
}

/// The folder that outputs go to must be there: a misspelt one should not come into being.
pub(crate) fn check_folder(folder: Option<&Path>) -> Result<(), Failure> {
    match folder {
        Some(folder) if !folder.is_dir() => {
            let text = format!("`{}` is no folder to put outputs into", folder.display());
            let mkdir = format!("mkdir {}", crate::failure::quoted(&folder.to_string_lossy()));
            Err(Failure::new(Code::CannotCreate, text).advise(mkdir))
        }
        _ => Ok(()),
    }
}

/// Removes the temporary files of outputs if a signal ends the process.
pub(crate) fn clean_up_on_signal() -> Option<OnSignal> {
    on_signal(sealed::remove_temporary_files).ok()
}

/// Runs all jobs. A single one fails with its own failure; many all run, each failure printed as it comes, and the
/// answer is the worst of them.
pub(crate) fn run(
    plan: &Plan,
    voice: Voice,
    verb: &str,
    each: impl Fn(&Job, &Way<'_>) -> Outcome + Sync,
) -> Result<Vec<Value>, Failure> {
    let _cleaning = clean_up_on_signal();
    match plan.jobs.as_slice() {
        [job] if !plan.many => {
            let report = one(job, voice, &each)?;
            Ok(vec![told(job, &report)])
        }
        jobs => many(jobs, voice, verb, &each),
    }
}

fn one(job: &Job, voice: Voice, each: impl Fn(&Job, &Way<'_>) -> Outcome) -> Outcome {
    let shown = !voice.quiet && std::io::stderr().is_terminal();
    let bar = shown.then(|| Progress::bytes(&job.input.to_string(), size_of(&job.input), false));
    let step = |progress: sealed::Progress| {
        if let Some(bar) = &bar {
            bar.set(progress.done_bytes);
        }
    };
    let threads = sealed::SealOptions::default().threads;
    each(
        job,
        &Way {
            threads,
            batch: None,
            progress: shown.then_some(&step),
        },
    )
}

fn size_of(input: &Input) -> Option<u64> {
    match input {
        Input::File(path) => std::fs::metadata(path)
            .ok()
            .filter(std::fs::Metadata::is_file)
            .map(|file| file.len()),
        Input::Stdin => None,
    }
}

fn many(
    jobs: &[Job],
    voice: Voice,
    verb: &str,
    each: &(impl Fn(&Job, &Way<'_>) -> Outcome + Sync),
) -> Result<Vec<Value>, Failure> {
    let shown = !voice.quiet && std::io::stderr().is_terminal();
    let total = shown.then(|| jobs.iter().filter_map(|job| size_of(&job.input)).sum());
    let bar = shown.then(|| Progress::bytes(&format!("{} files", jobs.len()), total, false));
    let done_bytes = AtomicU64::new(0);
    let mut told_jobs = Vec::with_capacity(jobs.len());
    let mut worst: Option<Code> = None;
    let mut failed = 0;
    for chunk in jobs.chunks(BATCH) {
        let batch = Batch::new();
        let outcomes = side_by_side(chunk, |job| {
            let outcome = each(
                job,
                &Way {
                    threads: 1,
                    batch: Some(&batch),
                    progress: None,
                },
            );
            if let (Some(bar), Ok(report)) = (&bar, &outcome) {
                let bytes = report.plaintext_bytes;
                bar.set(done_bytes.fetch_add(bytes, Ordering::Relaxed) + bytes);
            }
            outcome
        });
        let mut committed: HashMap<PathBuf, OutputError> = batch
            .commit()
            .into_iter()
            .filter_map(|(output, result)| match (output, result) {
                (Output::File(path), Err(error)) => Some((path, error)),
                _ => None,
            })
            .collect();
        for (job, outcome) in chunk.iter().zip(outcomes) {
            let late = match &job.output {
                Output::File(path) => committed.remove(path),
                Output::Stdout => None,
            };
            let outcome = late.map_or(outcome, |error| Err(seal_failure(SealError::Output(error))));
            match outcome {
                Ok(report) => told_jobs.push(told(job, &report)),
                Err(failure) => {
                    failed += 1;
                    if worst.is_none_or(|code| severity(failure.code) > severity(code)) {
                        worst = Some(failure.code);
                    }
                    told_jobs.push(told_failure(job, &failure));
                    let _ = hydra_cli::exit(Err(failure));
                }
            }
        }
    }
    drop(bar);
    match worst {
        None => {
            voice.note(&format!("{verb} {} files", jobs.len()));
            Ok(told_jobs)
        }
        Some(code) => {
            voice.json(&json!({ "files": told_jobs }))?;
            Err(Failure::new(
                code,
                format!("{failed} of {} files were not {verb}", jobs.len()),
            ))
        }
    }
}

/// Runs `work` on all jobs with as many threads as there are cores; results in the order of the jobs.
fn side_by_side(jobs: &[Job], work: impl Fn(&Job) -> Outcome + Sync) -> Vec<Outcome> {
    let threads = std::thread::available_parallelism()
        .map_or(1, usize::from)
        .min(jobs.len());
    let next = AtomicUsize::new(0);
    let outcomes: Vec<Mutex<Option<Outcome>>> = jobs.iter().map(|_| Mutex::new(None)).collect();
    let worker = || {
        while let Some((job, slot)) = {
            let at = next.fetch_add(1, Ordering::Relaxed);
            jobs.get(at).zip(outcomes.get(at))
        } {
            *slot.lock().unwrap_or_else(PoisonError::into_inner) = Some(work(job));
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..threads {
            scope.spawn(worker);
        }
        worker();
    });
    let missing = || Err(Failure::new(Code::Failed, "the file was not worked on"));
    outcomes
        .into_iter()
        .map(|slot| {
            slot.into_inner()
                .unwrap_or_else(PoisonError::into_inner)
                .unwrap_or_else(missing)
        })
        .collect()
}

fn told(job: &Job, report: &Report) -> Value {
    json!({
        "input": path_text(&job.input_path()),
        "output": path_text(&job.output_path()),
        "plaintext_bytes": report.plaintext_bytes,
        "file_bytes": report.file_bytes,
    })
}

fn told_failure(job: &Job, failure: &Failure) -> Value {
    json!({
        "input": path_text(&job.input_path()),
        "output": path_text(&job.output_path()),
        "error": failure.error.to_string(),
        "code": failure.code as u8,
    })
}

fn path_text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// A file that could not be sealed.
pub(crate) fn seal_failure(error: SealError) -> Failure {
    let exists = matches!(&error, SealError::Output(OutputError::Exists { .. }));
    let failure = Failure::new(code_of(error.trouble()), error);
    if exists {
        failure.advise("another OUT, or --force to replace it")
    } else {
        failure
    }
}

/// A file that could not be opened.
pub fn open_failure(error: OpenError) -> Failure {
    let exists = matches!(&error, OpenError::Output(OutputError::Exists { .. }));
    let failure = Failure::new(code_of(error.trouble()), error);
    if exists {
        failure.advise("another OUT, or --force to replace it")
    } else {
        failure
    }
}

/// Whoever read standard output and went away has seen enough: that is no failure.
pub(crate) fn forgive_reader(opened: Result<Report, OpenError>) -> Result<Report, OpenError> {
    match opened {
        Err(error) if reader_went_away(&error) => Ok(Report {
            plaintext_bytes: 0,
            file_bytes: 0,
        }),
        other => other,
    }
}

/// Whether standard output was not taken to its end.
pub(crate) fn reader_went_away(error: &OpenError) -> bool {
    match error {
        OpenError::Partial { source, .. } => reader_went_away(source),
        OpenError::Output(OutputError::Write {
            output: Output::Stdout,
            source,
        }) => source.kind() == std::io::ErrorKind::BrokenPipe,
        _ => false,
    }
}

fn code_of(trouble: Trouble) -> Code {
    match trouble {
        Trouble::Usage => Code::Usage,
        Trouble::Damaged => Code::Damaged,
        Trouble::CannotCreate => Code::CannotCreate,
        Trouble::Io => Code::Io,
        _ => Code::Failed,
    }
}

/// A key file that gives no key.
pub(crate) fn key_file_failure(error: crate::key_file::ReadError) -> Failure {
    use crate::key_file::ReadError;
    let code = if matches!(error, ReadError::Read { .. }) {
        Code::Io
    } else {
        Code::Config
    };
    Failure::new(code, error)
}

/// A key file that was not written.
pub(crate) fn key_write_failure(error: crate::key_file::WriteError) -> Failure {
    use crate::key_file::WriteError;
    let code = if matches!(error, WriteError::Write { .. }) {
        Code::Io
    } else {
        Code::CannotCreate
    };
    Failure::new(code, error)
}

/// Options that exclude each other because of what goes to standard output.
pub(crate) fn data_on_stdout(plan: &Plan, voice: Voice) -> Result<Voice, Failure> {
    let data_on_stdout = plan.jobs.iter().any(|job| job.output == Output::Stdout);
    if data_on_stdout && voice.json {
        return Err(hydra_cli::command::usage_error(
            "--json and the file cannot both go to standard output",
        ));
    }
    Ok(Voice {
        data_on_stdout,
        ..voice
    })
}

/// No suite-1 key: the file is ours, so the key cannot be its key.
pub(crate) fn other_cipher(key_id: &str, cipher: &str) -> Failure {
    let why = format!("its cipher is `{cipher}`, which files of the original have");
    Failure::new(
        Code::Damaged,
        Because::new(format!("key `{key_id}` does not open or make sealed files"), why),
    )
}
