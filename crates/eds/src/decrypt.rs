//! `eds-decrypt` and `eds-cat`: open sealed files with the key that their headers name, or with one in a key file.
//!
//! The registration id in a file's header decides: exactly that registration is fetched, whatever name it goes by now.
//! A file without our mark is damaged, never the original's raw format: whoever strips a header must not thereby turn
//! authentication off (`docs/src/formats/sealed-file.md`).

use std::collections::{BTreeMap, BTreeSet};

use futures_util::{StreamExt, stream};
use hydra_cli::{Code, Failure};
use hydra_core::ids::RegistrationId;
use hydra_core::key_id::KeyId;
use hydra_core::keystore::hydra::{FetchedKey, Hydra, Purpose};
use hydra_core::sealed::{Header, OpenError, OpenOptions, Output, OutputError, Report, SealedInput};
use hydra_core::secret::Key;
use serde_json::json;

use crate::operands::{self, Job, Plan};
use crate::session::{Session, fetch_first};
use crate::voice::Voice;
use crate::work::{self, Outcome, Way, open_failure};
use crate::{args, encrypt, failure, slice};

/// Keys that are fetched at the same time: enough to hide the way to the stores, few enough to be no burden to them.
const FETCHES_AT_ONCE: usize = 8;

/// `eds-decrypt`.
///
/// # Errors
/// What went wrong; of many files, the worst.
pub fn decrypt(args: &args::Decrypt) -> Result<(), Failure> {
    let voice = Voice::new(&args.manners);
    let plan = operands::decrypt(
        &args.operands,
        args.key_id.as_deref(),
        args.key_file.is_some(),
        &args.many,
    )?;
    let voice = work::data_on_stdout(&plan, voice)?;
    work::check_folder(args.many.out_dir.as_deref())?;
    let opening = Opening {
        key_file: args
            .key_file
            .as_deref()
            .map(|path| encrypt::existing_key(path, voice))
            .transpose()?,
        stores: &args.stores,
        overwrite: args.force,
        voice,
    };
    opening.run(&plan)
}

/// `eds-cat`.
///
/// # Errors
/// What went wrong.
pub fn cat(args: &args::Cat) -> Result<(), Failure> {
    let voice = Voice::of(args.verbosity);
    let plan = operands::cat(&args.operands, args.key_file.is_some())?;
    let voice = work::data_on_stdout(&plan, voice)?;
    if let Some(range) = args.range {
        let key_file = args.key_file.as_deref();
        let key = key_file.map(|path| encrypt::existing_key(path, voice)).transpose()?;
        return slice::write(&plan, range, key.as_ref(), &args.stores, voice);
    }
    let opening = Opening {
        key_file: args
            .key_file
            .as_deref()
            .map(|path| encrypt::existing_key(path, voice))
            .transpose()?,
        stores: &args.stores,
        overwrite: false,
        voice,
    };
    opening.run(&plan)
}

/// Fetches the key of exactly the registration that a header names, by the key id that the user typed or the header's.
///
/// # Errors
/// Where there is no such key for the caller, or the stores hold another registration of it.
pub fn fetch_for_opening(
    session: &Session,
    typed: Option<&str>,
    header: &Header,
    voice: Voice,
) -> Result<FetchedKey, Failure> {
    let fetched = session.wait(fetch_named(&session.hydra, typed, header))?;
    remark(&fetched, header, voice);
    Ok(fetched)
}

async fn fetch_named(hydra: &Hydra, typed: Option<&str>, header: &Header) -> Result<FetchedKey, Failure> {
    let key_ids = match (typed, &header.key_id) {
        (Some(typed), _) => operands::meant_key_ids(typed).map_err(|error| operands::bad_key_id(typed, error))?,
        (None, Some(named)) => vec![named.clone()],
        (None, None) => return Err(under_key_file()),
    };
    fetch_first(hydra, &key_ids, Purpose::Open(header.registration_id))
        .await
        .map_err(failure::fetch)
}

/// What the user should know about a key that was fetched for a file.
pub(crate) fn remark(fetched: &FetchedKey, header: &Header, voice: Voice) {
    for fault in &fetched.faults {
        tracing::info!(store = fault.store, "{fault}");
    }
    if let Some(named) = header.key_id.as_ref().filter(|named| **named != fetched.key_id) {
        voice.warning(&format!(
            "the file names its key `{named}`, and it is `{}` here",
            fetched.key_id
        ));
    }
    if !fetched.verified {
        voice.warning(&format!("key `{}` was imported and has no check value", fetched.key_id));
    }
}

/// The keys that files name, each once, in the order of the files.
fn wanted_keys(jobs: &[Job]) -> Vec<Header> {
    let mut seen = BTreeSet::new();
    let headers = jobs.iter().filter_map(|job| {
        let input = SealedInput::open(&job.input).ok()?;
        Some(input.header().clone())
    });
    headers
        .filter(|header| seen.insert((header.key_id.clone(), header.registration_id)))
        .collect()
}

/// The key of our format, where a fetched key is one.
///
/// # Errors
/// Damage: the file is of our format, so a key of the original's ciphers is not its key.
pub fn suite1(fetched: &FetchedKey) -> Result<Key, Failure> {
    let cipher = || work::other_cipher(fetched.key_id.as_str(), &fetched.constants.cipher);
    fetched.suite1().ok_or_else(cipher)
}

/// Said before a configuration is looked for, which would not help.
pub(crate) fn has_key_id(header: &Header) -> Result<(), Failure> {
    match header.key_id {
        Some(_) => Ok(()),
        None => Err(under_key_file()),
    }
}

fn under_key_file() -> Failure {
    let text = "the file was sealed under a key file, not under a registered key";
    Failure::new(Code::Usage, text).advise("--key-file FILE")
}

/// One call of `eds-decrypt` or `eds-cat`.
struct Opening<'a> {
    key_file: Option<Key>,
    stores: &'a args::Stores,
    overwrite: bool,
    voice: Voice,
}

/// The keys of many files, each fetched once, or why it could not be.
type Keys = BTreeMap<(Option<KeyId>, RegistrationId), Result<Key, (Code, String)>>;

impl Opening<'_> {
    fn run(&self, plan: &Plan) -> Result<(), Failure> {
        match (plan.jobs.as_slice(), plan.many) {
            ([job], false) => self.one(plan, job),
            (jobs, _) => self.many(plan, jobs),
        }
    }

    fn one(&self, plan: &Plan, job: &Job) -> Result<(), Failure> {
        if let Some(typed) = &plan.key_id {
            operands::meant_key_ids(typed).map_err(|error| operands::bad_key_id(typed, error))?;
        }
        work::preflight(job, self.overwrite)?;
        let input = SealedInput::open(&job.input).map_err(open_failure)?;
        let header = input.header().clone();
        if let (None, None, Some(named)) = (&self.key_file, &plan.key_id, &header.key_id) {
            self.voice.result(named.as_str())?;
        }
        let fetched_key;
        let key = match &self.key_file {
            Some(key) => key,
            None => {
                // said before a configuration is looked for, which would not help
                if header.key_id.is_none() {
                    return Err(under_key_file());
                }
                let session = Session::open(self.stores)?;
                let fetched = fetch_for_opening(&session, plan.key_id.as_deref(), &header, self.voice)?;
                fetched_key = suite1(&fetched)?;
                &fetched_key
            }
        };
        // an input can be opened only once where it is a pipe
        let input = std::sync::Mutex::new(Some(input));
        let files = work::run(plan, self.voice, "opened", |job, way| {
            let input = input.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
            let input = input.map_or_else(|| SealedInput::open(&job.input).map_err(open_failure), Ok)?;
            self.unseal(input, key, job, way)
        })?;
        self.voice.json(&json!({
            "key_id": header.key_id.as_ref().map(ToString::to_string),
            "registration_id": header.registration_id.to_string(),
            "files": files,
        }))
    }

    fn many(&self, plan: &Plan, jobs: &[Job]) -> Result<(), Failure> {
        let keys = if self.key_file.is_some() {
            Keys::new()
        } else {
            self.fetch_all(plan, jobs)?
        };
        if plan.key_id.is_none() {
            for key_id in keys.keys().filter_map(|(key_id, _)| key_id.as_ref()) {
                self.voice.result(key_id.as_str())?;
            }
        }
        let files = work::run(plan, self.voice, "opened", |job, way| {
            let input = SealedInput::open(&job.input).map_err(open_failure)?;
            let header = input.header();
            let key = match &self.key_file {
                Some(key) => key,
                None => match keys.get(&(header.key_id.clone(), header.registration_id)) {
                    Some(Ok(key)) => key,
                    Some(Err((code, text))) => {
                        return Err(Failure::new(*code, format!("{}: {text}", job.input)));
                    }
                    None => {
                        return Err(Failure::new(
                            Code::Io,
                            format!("{} changed while it was read", job.input),
                        ));
                    }
                },
            };
            self.unseal(input, key, job, way)
        })?;
        self.voice.json(&json!({ "files": files }))
    }

    /// One fetch for each key that the files name, several at a time. A file that cannot be read yet fails later, by
    /// itself.
    fn fetch_all(&self, plan: &Plan, jobs: &[Job]) -> Result<Keys, Failure> {
        let wanted = wanted_keys(jobs);
        let registered: Vec<&Header> = wanted.iter().filter(|header| header.key_id.is_some()).collect();
        let fetched = if registered.is_empty() {
            Vec::new()
        } else {
            let session = Session::open(self.stores)?;
            let fetch = async |header: &Header| fetch_named(&session.hydra, plan.key_id.as_deref(), header).await;
            let all = stream::iter(registered).map(fetch).buffered(FETCHES_AT_ONCE);
            session.wait(all.collect::<Vec<_>>())
        };
        let mut fetched = fetched.into_iter();
        let mut keys = Keys::new();
        for header in wanted {
            let key = match header.key_id {
                None => Err(under_key_file()),
                Some(_) => fetched
                    .next()
                    .unwrap_or_else(|| Err(Failure::new(Code::Failed, "the key was not fetched")))
                    .and_then(|fetched| {
                        remark(&fetched, &header, self.voice);
                        suite1(&fetched)
                    }),
            };
            // told in full once, then by its first line for each file
            let kept = key.map_err(|failure| {
                let kept = (failure.code, failure.error.to_string());
                let _ = hydra_cli::exit(Err(failure));
                kept
            });
            keys.insert((header.key_id, header.registration_id), kept);
        }
        Ok(keys)
    }

    fn unseal(&self, input: SealedInput, key: &Key, job: &Job, way: &Way<'_>) -> Outcome {
        let options = OpenOptions {
            threads: way.threads,
            overwrite: self.overwrite,
            progress: way.progress,
            batch: way.batch,
            ..OpenOptions::default()
        };
        match input.unseal(key, &job.output, &options) {
            // whoever read standard output has seen enough
            Err(error) if reader_went_away(&error) => Ok(Report {
                plaintext_bytes: 0,
                file_bytes: 0,
            }),
            other => other.map_err(open_failure),
        }
    }
}

fn reader_went_away(error: &OpenError) -> bool {
    match error {
        OpenError::Partial { source, .. } => reader_went_away(source),
        OpenError::Output(OutputError::Write {
            output: Output::Stdout,
            source,
        }) => source.kind() == std::io::ErrorKind::BrokenPipe,
        _ => false,
    }
}
